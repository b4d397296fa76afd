import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

/** What `run.ts` reads of a suite. */
export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** Mocha's `spec` on the screen, and the counts in the file named by the reporter option `counts`. */
export default class CountingReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const file: unknown = options.reporterOptions?.counts;
    runner.once('end', () => {
      const counts: Counts = {
        passed: this.stats.passes,
        failed: this.stats.failures,
        skipped: this.stats.pending,
      };
      if (typeof file === 'string') writeFileSync(file, JSON.stringify(counts));
    });
  }
}
