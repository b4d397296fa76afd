import { createHash } from 'node:crypto';
import { expect } from 'chai';
import { stringify } from 'yaml';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import type { Random } from '../../src/ports/ids.ts';
import { checkStore, closeRigs, openRig, type Rig } from '../support/engine.ts';
import { seededRandom, seedOfRun } from '../support/seeds.ts';
import { drawWorkflow, leaf, liveOn, pick, windDown, withoutThreads } from '../support/workloads.ts';

const NAMES = ['one', 'two', 'three', 'four'];

/** A random mix of workflows of all node types, stops, triggers and reports. */
async function live(
  seed: number,
  moments: number,
  between: (rig: Rig, random: Random) => Promise<Rig> = async (rig) => rig,
): Promise<Rig> {
  const random = seededRandom(seed);
  let rig = await openRig({ maxRunning: 6, expressions: withoutThreads(createExpressions()) });
  await rig.save(stringify(leaf));
  for (const name of NAMES) await rig.save(stringify(drawWorkflow(random, name)));
  const ids: string[] = [];
  for (let moment = 0; moment < moments; moment += 1) {
    rig.work.ignoreAborts = pick(random, 4) === 0;
    await liveOn(rig, random, ids, NAMES);
    rig = await between(rig, random);
  }
  if (rig.gate.dead) rig = await rig.crash(0, { expressions: withoutThreads(createExpressions()) });
  rig.gate.writesLeft = Number.POSITIVE_INFINITY;
  rig.work.ignoreAborts = false;
  await windDown(rig, ids);
  return rig;
}

describe('a random life', function () {
  this.timeout(240_000);
  afterEach(closeRigs);
  let seed: number;
  before(() => {
    seed = seedOfRun();
  });

  it('gives the same trace twice from one seed, and another from another', async () => {
    const traceOf = async (from: number): Promise<string> => {
      const rig = await live(from, 120);
      expect(rig.trace.length).to.be.greaterThan(100);
      return createHash('sha256').update(rig.trace.join('\n')).digest('hex');
    };
    const first = await traceOf(seed);
    expect(await traceOf(seed), `SEED=${seed}`).to.equal(first);
    expect(await traceOf(seed + 1), `SEED=${seed}`).not.to.equal(first);
  });

  it('keeps the invariants, and ends whatever it started', async () => {
    for (let round = 0; round < 20; round += 1) {
      const rig = await live(seed + round, 80);
      try {
        await rig.close();
      } catch (error) {
        throw new Error(`SEED=${seed} round ${round}: ${(error as Error).message}`, { cause: error });
      }
    }
  });

  it('keeps them though its process is killed again and again', async () => {
    for (let round = 0; round < 20; round += 1) {
      const between = async (rig: Rig, random: Random): Promise<Rig> => {
        if (rig.gate.writesLeft === Number.POSITIVE_INFINITY) rig.gate.writesLeft = 1 + pick(random, 40);
        if (!rig.gate.dead && pick(random, 30) > 0) return rig;
        const next = await rig.crash(pick(random, 3) * 1_000, { expressions: withoutThreads(createExpressions()) });
        await checkStore(next.store);
        return next;
      };
      try {
        const rig = await live(seed + round, 80, between);
        await rig.close();
      } catch (error) {
        throw new Error(`SEED=${seed} round ${round}: ${(error as Error).message}`, { cause: error });
      }
    }
  });

  it('keeps them though its store fails, and loses answers', async () => {
    for (let round = 0; round < 20; round += 1) {
      const between = async (rig: Rig, random: Random): Promise<Rig> => {
        const roll = random.next();
        const writes = new Set(['commit', 'createExecution', 'putReceipt', 'putSetting']);
        rig.gate.intervene = ({ method, args }) => {
          // A start is the test's own call: it is not refused.
          const own = method === 'createExecution' && (args[0] as { uniqueKey: string | null }).uniqueKey === null;
          if (own || !writes.has(method) || roll > 0.4) return undefined;
          const fate = random.next();
          return fate < 0.2 ? 'fail' : fate < 0.4 ? 'lose' : undefined;
        };
        return rig;
      };
      try {
        const rig = await live(seed + round, 80, between);
        await rig.close();
      } catch (error) {
        throw new Error(`SEED=${seed} round ${round}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
});
