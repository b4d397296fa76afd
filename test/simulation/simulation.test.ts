import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { prepareModules } from './modules.ts';
import { mutants } from './mutants.ts';

prepareModules();
const { countsOf, drawPlan, LEAST } = await import('./plan.ts');
const { runPlan } = await import('./world.ts');
type Plan = ReturnType<typeof drawPlan>;

const SEEDS = 2_000;
const regressions = join(import.meta.dirname, 'regressions');
const textOf = (file: string): string => readFileSync(join(import.meta.dirname, '..', '..', file), 'utf8');

describe('a simulated world', function () {
  this.timeout(600_000);

  it('goes the same way twice from one seed, and another from another', async () => {
    const hashes = new Set<string>();
    for (let seed = 1; seed <= 25; seed += 1) {
      const { hash } = await runPlan(drawPlan(seed));
      expect((await runPlan(drawPlan(seed))).hash, `seed ${seed}`).to.equal(hash);
      hashes.add(hash);
    }
    expect(hashes.size).to.equal(25);
  });

  it(`asks for enough executions, stops and faults in each of ${SEEDS} seeds`, () => {
    expect(LEAST).to.deep.equal({ executions: 3, stops: 1, faults: 3 });
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { executions, stops, faults } = countsOf(drawPlan(seed));
      expect(executions, `executions of seed ${seed}`).to.be.at.least(LEAST.executions);
      expect(stops, `stops of seed ${seed}`).to.be.at.least(LEAST.stops);
      expect(faults, `faults of seed ${seed}`).to.be.at.least(LEAST.faults);
    }
  });

  it(`keeps every promise over ${SEEDS} seeds`, async () => {
    const failed: string[] = [];
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const { faults } = await runPlan(drawPlan(seed));
      if (faults.length > 0) failed.push(`seed ${seed}: ${faults[0]}`);
    }
    expect(failed, `${failed.length} seeds failed`).to.deep.equal([]);
  });

  it('finds the text of every guard that can be switched off, once', () => {
    const lost = mutants.flatMap(({ name, rewrites }) =>
      rewrites.filter(({ file, text }) => textOf(file).split(text).length !== 2).map(({ file }) => `${name}: ${file}`),
    );
    expect(mutants.length).to.be.at.least(20);
    expect(lost).to.deep.equal([]);
  });

  for (const file of readdirSync(regressions).filter((name) => name.endsWith('.json'))) {
    it(`keeps every promise in ${file}`, async () => {
      const { plan } = JSON.parse(readFileSync(join(regressions, file), 'utf8')) as { plan: Plan };
      expect((await runPlan(plan)).faults).to.deep.equal([]);
    });
  }
});
