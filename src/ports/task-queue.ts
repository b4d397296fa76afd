/**
 * The durable queue of tasks that wait for a worker in another process, or are held by one.
 *
 * A task enters with the commit that starts its node's attempt (`Commit.tasks`) and leaves with the commit that
 * ends it (`Commit.endedTasks`), or with its execution. Tasks of the in-process pool are never in it.
 *
 * Contract suite: test/contracts/task-queue.contract.ts.
 */
import type { Task, WorkReport } from './work.ts';

export interface TaskRow {
  /** The attempt's identity; `task.id`. */
  id: string;
  /** What a worker must offer: a node type, or `agent:POOL`. */
  capability: string;
  task: Task;
  queuedAtMs: number;
  claim: TaskClaim | null;
  /** The engine that owns its execution, where several share the store. */
  engine?: string;
  /** What its worker said at another engine, until the owner takes it. */
  report?: WorkReport | null;
}

export interface TaskClaim {
  /** Id of the worker or agent, stable across its reconnects. */
  worker: string;
  /** SHA-256, hex, of the token that the result must bring. */
  tokenHash: string;
  atMs: number;
  /** The engine that its worker is connected to, where several share the store. */
  via?: string;
}

export interface TaskQueue {
  /**
   * Gives a queued task to a worker, unless its execution has ended or carries a stop intent.
   *
   * `gone`: there is no such task (its node has ended). `taken`: it has a claim; the same claim again is `claimed`.
   */
  claimTask(id: string, claim: TaskClaim): Promise<'claimed' | 'stopping' | 'gone' | 'taken'>;
  /** Every task, oldest first, for recovery; in pages. */
  listTasks(afterId: string | null, limit: number): Promise<TaskRow[]>;
}
