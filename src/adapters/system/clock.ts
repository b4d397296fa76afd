import type { Clock, TimerHandle } from '../../ports/clock.ts';

/** The longest delay `setTimeout` takes; a longer one fires at once. */
const delayMaxMs = 2 ** 31 - 1;

/**
 * The machine's time.
 *
 * `setTimeout` rounds down to a millisecond, so a callback may come early by a fraction of one, and it
 * takes no more than 24.8 days: `setTimer` looks at a monotonic clock when it wakes and sleeps on if it must.
 */
export const systemClock: Clock = {
  nowMs: Date.now,
  monotonicMs: () => performance.now(),
  setTimer(delayMs, run) {
    return new SystemTimer(delayMs, run);
  },
  clearTimer(handle: TimerHandle) {
    (handle as SystemTimer).clear();
  },
  defer(run) {
    setImmediate(run);
  },
};

class SystemTimer {
  readonly #run: () => void;
  readonly #dueMs: number;
  #pending: { timeout: NodeJS.Timeout } | { immediate: NodeJS.Immediate } | null = null;

  constructor(delayMs: number, run: () => void) {
    this.#run = run;
    this.#dueMs = performance.now() + delayMs;
    if (delayMs > 0) this.#sleep(delayMs);
    else this.#pending = { immediate: setImmediate(() => this.#fire()) };
  }

  clear(): void {
    if (this.#pending === null) return;
    if ('timeout' in this.#pending) clearTimeout(this.#pending.timeout);
    else clearImmediate(this.#pending.immediate);
    this.#pending = null;
  }

  #sleep(delayMs: number): void {
    this.#pending = { timeout: setTimeout(() => this.#wake(), Math.min(Math.ceil(delayMs), delayMaxMs)) };
  }

  #wake(): void {
    const leftMs = this.#dueMs - performance.now();
    if (leftMs > 0) this.#sleep(leftMs);
    else this.#fire();
  }

  #fire(): void {
    this.#pending = null;
    this.#run();
  }
}
