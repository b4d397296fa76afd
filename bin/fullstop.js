#!/usr/bin/env node
// Plain JavaScript that Node.js 10 can parse, so that an old one can say what is wrong.
'use strict';

var fs = require('fs');
var path = require('path');

var NEEDED_MAJOR = 24;

if (Number(process.versions.node.split('.')[0]) < NEEDED_MAJOR) {
  console.error(
    'fullstop: found Node.js ' +
      process.versions.node +
      ', needs ' +
      NEEDED_MAJOR +
      ' or newer: install it from https://nodejs.org, or in a checkout use npm start, which brings its own.',
  );
  process.exit(1);
} else {
  var root = path.dirname(__dirname);
  // A package has only its compiled files (Node strips no types under node_modules); a checkout runs them while
  // they are as new as their sources, because they start faster and take less memory, and its sources otherwise.
  import(isCompiled(root) ? '../dist/src/cli/main.js' : '../src/cli/main.ts').then(function (cli) {
    return cli.runProcess();
  });
}

function isCompiled(root) {
  if (root.split(path.sep).indexOf('node_modules') >= 0 || !fs.existsSync(path.join(root, 'src'))) return true;
  try {
    var built = JSON.parse(fs.readFileSync(path.join(root, 'dist', 'sources.json'), 'utf8'));
    return require('./sources.js').stampOf(root) === built.stamp;
  } catch (_noBuild) {
    return false;
  }
}
