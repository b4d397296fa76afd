import type { Clock } from '../ports/clock.ts';

/** How long an id is remembered. */
const tombstoneMs = 60_000;
/** Beyond it the oldest is forgotten: a tombstone guards a race of milliseconds. */
const tombstonesMax = 100_000;

/** Remembers for a minute what has ended, so that what comes late or twice finds it ended. */
export class Tombstones {
  readonly #clock: Clock;
  /** Since when; oldest first. */
  readonly #atMs = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(id: string): void {
    const nowMs = this.#clock.nowMs();
    this.#atMs.delete(id);
    for (const [old, atMs] of this.#atMs) {
      if (nowMs - atMs < tombstoneMs && this.#atMs.size < tombstonesMax) break;
      this.#atMs.delete(old);
    }
    this.#atMs.set(id, nowMs);
  }

  has(id: string): boolean {
    const atMs = this.#atMs.get(id);
    return atMs !== undefined && this.#clock.nowMs() - atMs < tombstoneMs;
  }

  /** Whether it was there; it is not any more. */
  take(id: string): boolean {
    const there = this.has(id);
    this.#atMs.delete(id);
    return there;
  }
}
