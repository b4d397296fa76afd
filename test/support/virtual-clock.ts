import type { Clock, TimerHandle } from '../../src/ports/clock.ts';

interface Timer {
  dueMs: number;
  order: number;
  run: () => void;
}

/**
 * Time that stands still until a test moves it. Timers run in order of their instant, then of their setting, so
 * that the same program gives the same trace.
 */
export class VirtualClock implements Clock {
  #nowMs: number;
  #order = 0;
  #timers = new Set<Timer>();
  #deferred: (() => void)[] = [];

  constructor(startMs = Date.UTC(2030, 0, 1)) {
    this.#nowMs = startMs;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, run: () => void): TimerHandle {
    const timer = { dueMs: this.#nowMs + Math.max(0, delayMs), order: this.#order++, run };
    this.#timers.add(timer);
    return timer;
  }

  clearTimer(handle: TimerHandle): void {
    this.#timers.delete(handle as Timer);
  }

  defer(run: () => void): void {
    this.#deferred.push(run);
  }

  /** Timers that have not run. */
  get pending(): number {
    return this.#timers.size;
  }

  /** When the next timer is due; null without one. */
  get nextDueMs(): number | null {
    return this.#next()?.dueMs ?? null;
  }

  /** Runs what is deferred, and what promises make of it, until nothing more comes; time stands still. */
  async settle(): Promise<void> {
    // Two turns without anything new: a promise chain that crosses a turn has then had its chance.
    for (let quietTurns = 0; quietTurns < 2; quietTurns++) {
      while (this.#deferred.length > 0) {
        quietTurns = 0;
        const batch = this.#deferred;
        this.#deferred = [];
        for (const run of batch) run();
      }
      await new Promise((resolve) => setImmediate(resolve));
      if (this.#deferred.length > 0) quietTurns = -1;
    }
  }

  /** Moves time on by `ms`, running each timer at its own instant, and settles after each. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    await this.settle();
    for (let timer = this.#next(); timer !== null && timer.dueMs <= untilMs; timer = this.#next()) {
      this.#timers.delete(timer);
      this.#nowMs = Math.max(this.#nowMs, timer.dueMs);
      timer.run();
      await this.settle();
    }
    this.#nowMs = untilMs;
  }

  #next(): Timer | null {
    let next: Timer | null = null;
    for (const timer of this.#timers) {
      if (next === null || timer.dueMs < next.dueMs || (timer.dueMs === next.dueMs && timer.order < next.order)) {
        next = timer;
      }
    }
    return next;
  }
}
