/**
 * One virtual time for everything: what happens next is the earliest of the events that wait, and between two of
 * them every promise that can go on has gone on. The same events in the same order give the same run.
 */
import type { Clock, TimerHandle } from '../../src/ports/clock.ts';
import type { Random } from '../../src/ports/ids.ts';
import { seededRandom } from '../support/seeds.ts';

interface Waiting {
  atMs: number;
  order: number;
  run: (() => void) | null;
}

/** Events handed to the event loop at once: each is a turn of its own. */
const BATCH = 48;

export class Scheduler {
  /** Virtual, with fractions: two events rarely fall on one instant. */
  nowMs = Date.UTC(2030, 0, 1);
  readonly startMs = this.nowMs;
  steps = 0;
  #order = 0;
  #heap: Waiting[] = [];
  #deferred: (() => void)[] = [];

  /** Calls `run` at this instant, or at once where it has passed. */
  at(atMs: number, run: () => void): Waiting {
    const waiting: Waiting = { atMs: Math.max(this.nowMs, atMs), order: this.#order++, run };
    const heap = this.#heap;
    let index = heap.length;
    heap.push(waiting);
    while (index > 0) {
      const up = (index - 1) >> 1;
      const parent = heap[up] as Waiting;
      if (!isBefore(waiting, parent)) break;
      heap[index] = parent;
      index = up;
    }
    heap[index] = waiting;
    return waiting;
  }

  cancel(waiting: Waiting): void {
    waiting.run = null;
  }

  /** Calls `run` before time moves on. */
  defer(run: () => void): void {
    this.#deferred.push(run);
  }

  /** Lets everything happen until `done` says so (asked after each event) or nothing is left before `untilMs`. */
  run(untilMs: number, done: () => boolean = () => false): Promise<void> {
    return new Promise((resolve, reject) => {
      let over = false;
      const step = (): void => {
        if (over) return;
        try {
          if (done() || !this.#step(untilMs)) over = true;
        } catch (error) {
          over = true;
          reject(error);
        }
      };
      const turn = (): void => {
        if (over) {
          resolve();
          return;
        }
        for (let index = 0; index < BATCH; index += 1) setImmediate(step);
        setImmediate(turn);
      };
      turn();
    });
  }

  /** False: nothing is left before `untilMs`. */
  #step(untilMs: number): boolean {
    this.steps += 1;
    if (this.#deferred.length > 0) {
      const batch = this.#deferred;
      this.#deferred = [];
      for (const run of batch) run();
      return true;
    }
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs);
        return false;
      }
      this.#pop();
      if (next.run === null) continue;
      this.nowMs = next.atMs;
      next.run();
      return true;
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Waiting;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Waiting, heap[child] as Waiting)) child += 1;
      if (!isBefore(heap[child] as Waiting, last)) break;
      heap[index] = heap[child] as Waiting;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(one: Waiting, other: Waiting): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}

/**
 * A process as the scheduler sees it: whatever reaches it (a timer, an answer, a message) comes through `later`.
 * A dead one hears nothing and says nothing; one that is paused hears everything when it wakes.
 */
export class Process {
  readonly name: string;
  readonly clock: Clock;
  alive = true;
  /** When it died. */
  diedAtMs: number | null = null;
  /** It does nothing until then. */
  pausedUntilMs = 0;
  /** How wrong its clock is. */
  skewMs: number;
  readonly #scheduler: Scheduler;

  constructor(name: string, scheduler: Scheduler, skewMs = 0) {
    this.name = name;
    this.skewMs = skewMs;
    this.#scheduler = scheduler;
    const clock = {
      nowMs: () => Math.floor(scheduler.nowMs + this.skewMs),
      monotonicMs: () => scheduler.nowMs,
      setTimer: (delayMs: number, run: () => void): TimerHandle => this.later(delayMs, run),
      clearTimer: (handle: TimerHandle) => {
        if (handle !== null && handle !== undefined) scheduler.cancel(handle as Waiting);
      },
      defer: (run: () => void) => scheduler.defer(() => this.hear(run)),
    };
    this.clock = clock;
  }

  /** Something that reaches this process in a while. */
  later(delayMs: number, run: () => void): Waiting {
    const waiting = this.#scheduler.at(this.#scheduler.nowMs + Math.max(0, delayMs), () => this.hear(run, waiting));
    return waiting;
  }

  /** Something that reaches it now, or when it wakes. */
  hear(run: () => void, waiting: Waiting | null = null): void {
    if (!this.alive) return;
    if (this.pausedUntilMs <= this.#scheduler.nowMs) {
      run();
      return;
    }
    // The same handle: whoever cancels the timer meanwhile still does.
    const again = this.#scheduler.at(this.pausedUntilMs, () => {
      if (waiting === null || waiting.run !== null) this.hear(run, waiting);
    });
    if (waiting !== null) waiting.run = again.run;
  }
}

/** Draws by name: what one component draws does not depend on how much another did. */
export class Streams {
  readonly #seed: number;
  readonly #streams = new Map<string, Random>();

  constructor(seed: number) {
    this.#seed = seed;
  }

  of(name: string): Random {
    let stream = this.#streams.get(name);
    if (stream === undefined) {
      stream = seededRandom(hashText(name, this.#seed));
      this.#streams.set(name, stream);
    }
    return stream;
  }
}

/** FNV-1a over UTF-16 units, with a final mix. */
export function hashText(text: string, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x2c1b3c6d);
  hash ^= hash >>> 12;
  return hash >>> 0;
}
