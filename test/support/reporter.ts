import { writeFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';
import Mocha from 'mocha';

/** What `run.ts` reads of a suite. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

export interface Failure {
  /** With those of the suites around it. */
  title: string;
  /** Message, difference and where from: at most 30 lines. */
  text: string;
}

export interface Report extends Counts {
  failures: Failure[];
}

/** Lines of one failure, and characters of a line. */
const messageLinesMax = 10;
const differenceLinesMax = 12;
const stackLinesMax = 6;
const lineMax = 600;

/** Mocha's `spec` on the screen, and a `Report` in the file named by the reporter option `report`. */
export default class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const file: unknown = options.reporterOptions?.report;
    const failures: Failure[] = [];
    // Behind the listener of the base class, which makes text of what is compared.
    runner.on('fail', (test: Mocha.Runnable, error: unknown) => {
      failures.push({ title: test.fullTitle(), text: failureText(error) });
    });
    runner.once('end', () => {
      const report: Report = {
        passed: this.stats.passes,
        failed: this.stats.failures,
        skipped: this.stats.pending,
        failures,
      };
      if (typeof file === 'string') writeFileSync(file, JSON.stringify(report));
    });
  }
}

/** Exported for its test. */
export function failureText(error: unknown): string {
  if (!(error instanceof Error)) return cut(lines(String(error)), messageLinesMax).join('\n');
  const { message, stack = '' } = error;
  const { expected, actual, showDiff } = error as { expected?: unknown; actual?: unknown; showDiff?: boolean };
  const at = lines(stack).findIndex((line) => /^ +at /.test(line));
  const compared = typeof expected === 'string' && typeof actual === 'string' && showDiff !== false;
  const difference = compared ? lines(Mocha.reporters.Base.generateDiff(actual, expected)) : [];
  return [
    ...cut(lines(`${error.name}: ${message}`), messageLinesMax),
    ...cut(
      difference.filter((line) => line.trim() !== ''),
      differenceLinesMax,
    ),
    ...(at < 0 ? [] : lines(stack).slice(at, at + stackLinesMax)),
  ].join('\n');
}

function lines(text: string): string[] {
  return stripVTControlCharacters(text).split('\n');
}

function cut(all: string[], max: number): string[] {
  const shown = all.slice(0, max).map((line) => (line.length > lineMax ? `${line.slice(0, lineMax)} …` : line));
  return all.length > max ? [...shown, `… ${all.length - max} more lines`] : shown;
}
