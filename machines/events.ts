/**
 * Every event of the machines, grouped by receiver.
 *
 * Commands are imperative, facts are past tense. Times enter as data, stamped by whoever observed them.
 */

/** What ends an execution early, and the text its running nodes get. */
export interface Verdict {
  error: string;
  errorCode: string;
}

export type EngineEvent =
  /** Live executions were claimed and restored. */
  | { type: 'engine.recovered' }
  | { type: 'engine.drain' }
  /** No attempt runs any more, or the time for it is over. */
  | { type: 'engine.drained' }
  | { type: 'engine.pause' }
  | { type: 'engine.resume' }
  /** An execution's actor broke; `atMs` for the restart budget. */
  | { type: 'execution.crashed'; executionId: string; atMs: number };

export type ExecutionEvent =
  /** Admitted: the roots of the graph are ready. */
  | { type: 'execution.start'; ready: readonly unknown[] }
  /** A node reached a final state; `ready`: nodes whose last need that was. */
  | { type: 'node.settled'; ready: readonly unknown[]; failure: Verdict | null }
  /** Nodes became ready otherwise: the roots of a loop's next iteration, or what a restart found. */
  | { type: 'nodes.ready'; ready: readonly unknown[] }
  /** The stop intent is durable. */
  | { type: 'execution.stop' }
  /** Another early end: its timeout passed, or its parent's node ended. */
  | { type: 'execution.abort'; verdict: Verdict }
  /** `stopGraceMs` after the halt: who has not confirmed by now is written off as unconfirmed. */
  | { type: 'stop.graceElapsed' }
  /** Outputs are evaluated; null: they are good. */
  | { type: 'execution.concluded'; failure: Verdict | null };

export type NodeEvent =
  | { type: 'work.completed' }
  | { type: 'work.failed'; error: string; errorCode: string; retryable: boolean; atMs: number }
  /** No worker here is free: the attempt waits for one, and its deadline for the claim. */
  | { type: 'work.queued' }
  | { type: 'work.claimed'; atMs: number }
  /** The process that ran the attempt died. */
  | { type: 'work.lost'; atMs: number }
  /** The answer to an abort. */
  | { type: 'work.aborted' }
  | { type: 'node.triggered' }
  /** The instant in `wakeAtMs` or `dueAtMs` has passed. */
  | { type: 'node.wake'; atMs: number }
  /** The attempt's deadline has passed. */
  | { type: 'node.timedOut'; atMs: number }
  /** The loop's condition holds: its next iteration runs, at `wakeAtMs` where that is given. */
  | { type: 'loop.continue'; wakeAtMs: number | null }
  /** All body nodes of the iteration have settled. */
  | { type: 'iteration.ended'; failure: Verdict | null; atMs: number }
  /** Stop, or another early end of the execution: the verdict is the node's error. */
  | { type: 'execution.end'; verdict: Verdict }
  /** Under `failFast` a node failed: no try and no iteration follows. */
  | { type: 'execution.failFast'; verdict: Verdict }
  | { type: 'stop.graceElapsed' };
