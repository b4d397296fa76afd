/** Time as the engine sees it: the system's, or a virtual one in tests. */
export interface Clock {
  /** Wall-clock milliseconds since the Unix epoch. */
  nowMs(): number;
  /** Milliseconds since some moment: for spans. Nobody sets it, and it goes on while the process stands still. */
  monotonicMs(): number;
  /** Calls `run` once, `delayMs` from now at the earliest; 0 is the next turn. The handle cancels it. */
  setTimer(delayMs: number, run: () => void): TimerHandle;
  clearTimer(handle: TimerHandle): void;
  /** Calls `run` after the current turn's callbacks, before timers: batches what one turn produced. */
  defer(run: () => void): void;
}

export type TimerHandle = unknown;
