/**
 * `npm test [-- SUITE...]`: runs each suite (a folder of test/) in a process of its own, one after the other.
 *
 * At the end, under `=== failures`, is each test that failed and why; then a line for each suite. The last line is
 * `N passed, N failed, N skipped` over all of them. The exit code is 1 when a test failed, when a suite ran no test, or
 * when it did not exit by itself: then something was left open.
 */
import { type StdioOptions, spawn } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Counts, Failure, Report } from './reporter.ts';

/** How long a suite's process may live on once its tests have ended. */
const exitGraceMs = 15_000;
/** How many failures are told in full at the end; of the others the titles. */
const toldMax = 20;

const root = join(import.meta.dirname, '..', '..');

/** Folders of test/ that hold tests; `package` last, because it builds and installs. */
function suites(): string[] {
  const names = readdirSync(join(root, 'test')).filter((name) => globSync(filesOf(name), { cwd: root }).length > 0);
  return [...names.filter((name) => name !== 'package'), ...names.filter((name) => name === 'package')];
}

function filesOf(suite: string): string {
  return `test/${suite}/**/*.test.ts`;
}

export interface SuiteOptions {
  /** Of its tests, absolute or from the root of the project. */
  files: string[];
  /** Written by its process when its tests have ended. */
  reportFile: string;
  graceMs?: number;
  stdio?: StdioOptions;
}

/** Exported for its test. */
export async function runSuite(
  suite: string,
  { files, reportFile, graceMs = exitGraceMs, stdio = 'inherit' }: SuiteOptions,
): Promise<Report> {
  const mocha = join(root, 'node_modules/mocha/bin/mocha.js');
  const args = ['--reporter', 'test/support/reporter.ts', '--reporter-option', `report=${reportFile}`];
  const child = spawn(process.execPath, [mocha, ...args, ...files], { cwd: root, stdio });
  let late: NodeJS.Timeout | undefined;
  let killed = false;
  const ended = setInterval(() => {
    if (!existsSync(reportFile)) return;
    clearInterval(ended);
    late = setTimeout(() => {
      killed = true;
      if (stdio === 'inherit') console.error(`suite ${suite} did not exit: something was left open`);
      child.kill('SIGKILL');
    }, graceMs);
  }, 100);
  const [exitCode, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.once('exit', (...how) => resolve(how)),
  );
  clearInterval(ended);
  clearTimeout(late);
  const hasEnded = existsSync(reportFile);
  const report: Report = hasEnded
    ? JSON.parse(readFileSync(reportFile, 'utf8'))
    : { passed: 0, failed: 0, skipped: 0, failures: [] };
  // A crash, a hang, and a suite without a test are failures too, although no test says so.
  const fail = (text: string): void => {
    report.failed += 1;
    report.failures.push({ title: `suite ${suite}`, text });
  };
  if (killed) fail('did not exit: something was left open');
  else if (!hasEnded) fail(`ended with ${signal ?? `exit code ${exitCode}`} before its tests had ended`);
  else if (report.passed + report.failed + report.skipped === 0) fail('ran no test');
  else if (report.failed === 0 && exitCode !== 0) fail(`ended with ${signal ?? `exit code ${exitCode}`}`);
  return report;
}

/** What the end of a log has to tell of failures; exported for its test. */
export function failureLines(failures: (Failure & { suite: string })[]): string[] {
  if (failures.length === 0) return [];
  const told = failures.flatMap(({ suite, title, text }, index) => [
    `${index + 1}) ${suite}: ${title}`,
    ...(index < toldMax ? text.split('\n').map((line) => `   ${line}`) : []),
  ]);
  return ['=== failures', ...told, ''];
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
  const failures: (Failure & { suite: string })[] = [];
  const lines: string[] = [];
  for (const suite of wanted.length > 0 ? known.filter((name) => wanted.includes(name)) : known) {
    console.log(`\n=== ${suite}`);
    const startedMs = performance.now();
    const files = globSync(filesOf(suite), { cwd: root }).sort();
    const report = await runSuite(suite, { files, reportFile: join(folder, `${suite}.json`) });
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    lines.push(`suite ${suite}: ${text(report)} (${seconds} s)`);
    total.passed += report.passed;
    total.failed += report.failed;
    total.skipped += report.skipped;
    failures.push(...report.failures.map((failure) => ({ suite, ...failure })));
  }
  rmSync(folder, { recursive: true });
  console.log(`\n${[...failureLines(failures), ...lines, text(total)].join('\n')}`);
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

function text({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
