import type { Ids, Random } from '../../src/ports/ids.ts';

/** `SEED` of the environment, or a fresh one; printed, so that a failing run can be repeated. */
export function seedOfRun(): number {
  const given = process.env.SEED;
  const seed = given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  if (!Number.isSafeInteger(seed)) throw new Error(`expected SEED to be an integer, found "${given}"`);
  console.log(`    SEED=${seed}`);
  return seed;
}

/** Repeatable randomness. @see mulberry32, Tommy Ettinger */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    next() {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    },
  };
}

/** UUIDs version 7 that count up: the n-th of two runs is the same. */
export function countingIds(): Ids {
  let count = 0;
  return {
    next() {
      const digits = (++count).toString(16).padStart(12, '0');
      return `018ccccc-0000-7000-8000-${digits}`;
    },
  };
}
