import type { LeftTask, Task, TaskLog } from '../ports/work.ts';
import type { TaskOutcome } from '../wire.ts';

export type { TaskLog } from '../ports/work.ts';

/** Runs the tasks of one node type. One file per type in this folder. */
export interface Executor {
  /**
   * Resolves with the task's output, or rejects with a FullstopError: its code and `retryable` reach the record.
   *
   * When `signal` aborts, ends the work for real before it settles: the socket is closed, the process gone. It
   * then rejects with anything (outcome `aborted`) or with `AbortedAs`, or resolves if the work had finished first.
   *
   * `log` passes on what the work prints, in pieces of any size; who takes it cuts it to the record's limits.
   */
  run(task: Task, signal: AbortSignal, log: TaskLog): Promise<unknown>;
  /**
   * Where work can outlive the process that ran it: ends what an earlier process left of a task. Resolves with its
   * outcome when it is proven gone, and with `unconfirmed` when this is closed before.
   */
  pursue?(task: LeftTask): Promise<TaskOutcome>;
  /** Frees what outlives a task, such as idle connections. No task runs any more. */
  close(): Promise<void>;
}

/** Says how an abort ended when that was not plainly `aborted`. */
export class AbortedAs extends Error {
  readonly outcome: TaskOutcome;

  constructor(outcome: TaskOutcome) {
    super(`the task ended as ${outcome}`);
    this.name = 'AbortedAs';
    this.outcome = outcome;
  }
}
