// What the compiled files were made from, in a word: they are stale when it changes.
'use strict';

var fs = require('fs');
var path = require('path');

/** Number of source files and the newest change among them, such as `120@1764000000000`. */
exports.stampOf = function stampOf(root) {
  var count = 0;
  var newestMs = 0;
  function look(directory) {
    fs.readdirSync(directory, { withFileTypes: true }).forEach(function (entry) {
      var file = path.join(directory, entry.name);
      if (entry.isDirectory()) {
        look(file);
      } else {
        count += 1;
        newestMs = Math.max(newestMs, fs.statSync(file).mtimeMs);
      }
    });
  }
  look(path.join(root, 'src'));
  look(path.join(root, 'machines'));
  return count + '@' + newestMs;
};
