#!/usr/bin/env node
// Plain JavaScript of 2015, so that an old Node.js can parse it and say what is wrong.
'use strict';

var fs = require('fs');
var path = require('path');

var NEEDED_MAJOR = 24;

if (Number(process.versions.node.split('.')[0]) < NEEDED_MAJOR) {
  console.error(
    'fullstop: found Node.js ' + process.versions.node + ', needs ' + NEEDED_MAJOR + ' or newer: ' +
      'install it from https://nodejs.org, or in a checkout use npm start, which brings its own.'
  );
  process.exit(1);
} else {
  var root = path.dirname(__dirname);
  var source = path.join(root, 'src', 'cli', 'main.ts');
  // Node strips no types under node_modules: a package has its compiled files.
  var isCheckout = root.split(path.sep).indexOf('node_modules') < 0 && fs.existsSync(source);
  import(isCheckout ? '../src/cli/main.ts' : '../dist/src/cli/main.js').then(function (cli) {
    return cli.runProcess();
  });
}
