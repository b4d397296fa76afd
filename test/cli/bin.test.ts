import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { expect } from 'chai';

const bin = join(import.meta.dirname, '..', '..', 'bin', 'fullstop.js');

/** A Node.js on the PATH that is too old to run the program. */
function findOld(): { path: string; version: string } | null {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, 'node');
    if (!existsSync(path)) continue;
    const version = spawnSync(path, ['--version'], { encoding: 'utf8' }).stdout.trim().slice(1);
    if (Number(version.split('.')[0]) < 24) return { path, version };
  }
  return null;
}

describe('bin/fullstop.js', () => {
  it('says on an old Node.js in one line what was found, what is needed and what to do', function () {
    const old = findOld();
    if (old === null) {
      console.log('      skipped: no Node.js older than 24 on the PATH');
      this.skip();
    }
    const { status, stdout, stderr } = spawnSync(old.path, [bin, 'ps'], { encoding: 'utf8' });
    expect([status, stdout]).to.deep.equal([1, '']);
    expect(stderr)
      .to.match(/^fullstop: found Node\.js .+, needs 24 or newer: .+\n$/)
      .and.to.contain(old.version);
  });

  it('runs the sources of a checkout', () => {
    const { status, stdout } = spawnSync(process.execPath, [bin, '--help'], { encoding: 'utf8' });
    expect([status, stdout.split('\n')[0]]).to.deep.equal([0, 'Usage: fullstop VERB [options]']);
  });

  it('gives its exit code to the shell', () => {
    expect(spawnSync(process.execPath, [bin, 'frobnicate'], { encoding: 'utf8' }).status).to.equal(2);
  });

  it('ends quietly when nobody reads its output', () => {
    const { status, stderr } = spawnSync('sh', ['-c', '"$0" "$1" --help | true', process.execPath, bin], {
      encoding: 'utf8',
    });
    expect([status, stderr]).to.deep.equal([0, '']);
  });
});
