import type { Clock, TimerHandle } from '../ports/clock.ts';

/** One instant somebody waits for. */
export interface Timer {
  readonly atMs: number;
  run: (() => void) | null;
}

/** Between two looks at the wall clock: one that was set forward is noticed within this time. */
const LOOK_MS = 1_000;

/**
 * Absolute instants on one clock timer: a binary heap, so that 10,000 parked executions cost one system timer.
 *
 * Never fires early. A cancelled timer stays in the heap until its instant or until half of it is dead.
 *
 * Instants are the wall clock's, which may be set back by an hour: what an engine does by itself again and again, or
 * allows somebody else for an answer, is counted with `after` instead.
 */
export class Timers {
  readonly #clock: Clock;
  #heap: Timer[] = [];
  #cancelled = 0;
  readonly #intervals = new Map<Timer, TimerHandle>();
  #handle: TimerHandle = null;
  #armedAtMs = Number.POSITIVE_INFINITY;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  at(atMs: number, run: () => void): Timer {
    const timer: Timer = { atMs, run };
    this.#push(timer);
    if (atMs < this.#armedAtMs) this.#arm();
    return timer;
  }

  /** `ms` from now, whatever becomes of the wall clock meanwhile. */
  after(ms: number, run: () => void): Timer {
    const timer: Timer = { atMs: this.#clock.nowMs() + ms, run };
    const handle = this.#clock.setTimer(ms, () => {
      this.#intervals.delete(timer);
      timer.run = null;
      run();
    });
    this.#intervals.set(timer, handle);
    return timer;
  }

  cancel(timer: Timer): void {
    if (timer.run === null) return;
    timer.run = null;
    const interval = this.#intervals.get(timer);
    if (interval !== undefined) {
      this.#clock.clearTimer(interval);
      this.#intervals.delete(timer);
      return;
    }
    this.#cancelled += 1;
    if (this.#cancelled > 64 && this.#cancelled * 2 > this.#heap.length) {
      const alive = this.#heap.filter((entry) => entry.run !== null);
      this.#heap = [];
      this.#cancelled = 0;
      for (const entry of alive) this.#push(entry);
    }
  }

  close(): void {
    this.#heap = [];
    for (const interval of this.#intervals.values()) this.#clock.clearTimer(interval);
    this.#intervals.clear();
    if (this.#handle !== null) this.#clock.clearTimer(this.#handle);
    this.#handle = null;
    this.#armedAtMs = Number.POSITIVE_INFINITY;
  }

  #arm(): void {
    if (this.#handle !== null) this.#clock.clearTimer(this.#handle);
    this.#handle = null;
    this.#armedAtMs = Number.POSITIVE_INFINITY;
    const first = this.#heap[0];
    if (first === undefined) return;
    this.#armedAtMs = first.atMs;
    const leftMs = first.atMs - this.#clock.nowMs();
    this.#handle = this.#clock.setTimer(Math.min(LOOK_MS, Math.max(0, leftMs)), () => this.#fire());
  }

  #fire(): void {
    this.#handle = null;
    this.#armedAtMs = Number.POSITIVE_INFINITY;
    const nowMs = this.#clock.nowMs();
    for (let first = this.#heap[0]; first !== undefined && first.atMs <= nowMs; first = this.#heap[0]) {
      this.#pop();
      const run = first.run;
      if (run === null) {
        this.#cancelled -= 1;
      } else {
        first.run = null;
        run();
      }
    }
    this.#arm();
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(timer);
    while (index > 0) {
      const up = (index - 1) >> 1;
      const parent = heap[up] as Timer;
      if (parent.atMs <= timer.atMs) break;
      heap[index] = parent;
      index = up;
    }
    heap[index] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop() as Timer;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = index * 2 + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && (heap[child + 1] as Timer).atMs < (heap[child] as Timer).atMs) child += 1;
      if ((heap[child] as Timer).atMs >= last.atMs) break;
      heap[index] = heap[child] as Timer;
      index = child;
    }
    heap[index] = last;
  }
}
