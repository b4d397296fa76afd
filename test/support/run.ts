/**
 * `npm test [-- SUITE...]`: runs each suite (a folder of test/) in a process of its own, one after the other.
 *
 * The last line is `N passed, N failed, N skipped` over all of them. The exit code is 1 when a test failed, when a
 * suite ran no test, or when it did not exit by itself: then something was left open.
 */
import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Counts } from './reporter.ts';

/** How long a suite's process may live on once its tests have ended. */
const exitGraceMs = 15_000;

const root = join(import.meta.dirname, '..', '..');

/** Folders of test/ that hold tests; `package` last, because it builds and installs. */
function suites(): string[] {
  const names = readdirSync(join(root, 'test')).filter((name) => globSync(filesOf(name), { cwd: root }).length > 0);
  return [...names.filter((name) => name !== 'package'), ...names.filter((name) => name === 'package')];
}

function filesOf(suite: string): string {
  return `test/${suite}/**/*.test.ts`;
}

async function runSuite(suite: string, countsFile: string): Promise<Counts> {
  const mocha = join(root, 'node_modules/mocha/bin/mocha.js');
  const args = ['--reporter', 'test/support/reporter.ts', '--reporter-option', `counts=${countsFile}`];
  const child = spawn(process.execPath, [mocha, ...args, ...globSync(filesOf(suite), { cwd: root }).sort()], {
    cwd: root,
    stdio: 'inherit',
  });
  const hungUp = setInterval(() => {
    if (!existsSync(countsFile)) return;
    clearInterval(hungUp);
    setTimeout(() => {
      console.error(`suite ${suite} did not exit: something was left open`);
      child.kill('SIGKILL');
    }, exitGraceMs).unref();
  }, 500);
  const exitCode = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  clearInterval(hungUp);
  const counts: Counts = existsSync(countsFile)
    ? JSON.parse(readFileSync(countsFile, 'utf8'))
    : { passed: 0, failed: 0, skipped: 0 };
  // A crash, a hang, and a suite without a test are failures too, although no test says so.
  const ran = counts.passed + counts.failed + counts.skipped > 0;
  if (counts.failed === 0 && (exitCode !== 0 || !ran)) counts.failed = 1;
  return counts;
}

async function main(wanted: string[]): Promise<number> {
  const known = suites();
  const unknown = wanted.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    console.error(`no suite ${unknown.join(', ')}; there are ${known.join(', ')}`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), 'fullstop-test-'));
  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  const lines: string[] = [];
  for (const suite of wanted.length > 0 ? known.filter((name) => wanted.includes(name)) : known) {
    console.log(`\n=== ${suite}`);
    const startedMs = performance.now();
    const counts = await runSuite(suite, join(folder, `${suite}.json`));
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    lines.push(`suite ${suite}: ${text(counts)} (${seconds} s)`);
    total.passed += counts.passed;
    total.failed += counts.failed;
    total.skipped += counts.skipped;
  }
  rmSync(folder, { recursive: true });
  console.log(`\n${lines.join('\n')}\n${text(total)}`);
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

function text({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

process.exitCode = await main(process.argv.slice(2));
