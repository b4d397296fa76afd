import type { Clock, TimerHandle } from '../../src/ports/clock.ts';
import type { VirtualClock } from './virtual-clock.ts';

/**
 * Time of one of several processes: it may stand still for a while, as with SIGSTOP, and its wall clock may be wrong.
 *
 * What came due meanwhile runs when it goes on, in that order and each in a turn of its own.
 */
export class ProcessClock implements Clock {
  /** How wrong its wall clock is. */
  skewMs = 0;
  readonly #world: VirtualClock;
  readonly #handles = new Map<object, TimerHandle>();
  #late: (() => void)[] | null = null;

  constructor(world: VirtualClock) {
    this.#world = world;
  }

  nowMs(): number {
    return this.#world.nowMs() + this.skewMs;
  }

  monotonicMs(): number {
    return this.#world.monotonicMs();
  }

  setTimer(delayMs: number, run: () => void): TimerHandle {
    const handle = {};
    const fire = (): void => {
      // One that came due while the process stood still may be cleared by what runs before it.
      if (this.#handles.delete(handle)) run();
    };
    this.#handles.set(
      handle,
      this.#world.setTimer(delayMs, () => this.reach(fire)),
    );
    return handle;
  }

  clearTimer(handle: TimerHandle): void {
    this.#world.clearTimer(this.#handles.get(handle as object));
    this.#handles.delete(handle as object);
  }

  defer(run: () => void): void {
    this.#world.defer(() => this.reach(run));
  }

  /** Something that reaches this process. */
  reach(run: () => void): void {
    if (this.#late === null) run();
    else this.#late.push(run);
  }

  stop(): void {
    this.#late ??= [];
  }

  go(): void {
    const next = (): void => {
      const run = this.#late?.shift();
      if (run === undefined) {
        this.#late = null;
        return;
      }
      run();
      this.#world.defer(next);
    };
    this.#world.defer(next);
  }
}
