import type { TaskOutcome, Where } from '../wire.ts';

/**
 * Work outside the engine: tasks for workers and agents.
 *
 * A task is one attempt of one node. The engine reserves a slot for it, starts it after the commit that says so, and gets exactly
 * one report per `start`, unless the process dies.
 */
export interface NodeWork {
  /** Takes a slot of this process for a task of this type; false: there is none, it waits for another worker. */
  reserve(type: string): boolean;
  /** Gives back a slot that was reserved and not used. */
  release(type: string): void;
  start(task: Task, report: (report: WorkReport) => void, log?: TaskLog): void;
  /** Ends the task for real; its report follows. A task that is not known here is ignored. */
  abort(taskId: string): void;
  /**
   * Ends what a task that died with its process may have left running; one report follows when that is proven gone.
   * false: work of this type ends with its process.
   */
  pursue(task: LeftTask, report: (report: WorkReport) => void): boolean;
  /** For people: what it runs, how much at once, how much now. */
  describe(): { capabilities: string[]; slots: number; held: number };
}

export interface Task {
  /** The attempt's identity: `ID/poll/check/3@1/2`. */
  id: string;
  executionId: string;
  project: string;
  /** The node's path, such as `poll/check`. */
  node: string;
  iterations: number[];
  attempt: number;
  /** The node type: also the capability a worker needs. */
  type: string;
  where: Where;
  /** The node's `with`, templates rendered, secrets still references. */
  with: Record<string, unknown>;
  /** Where `with` holds references to secrets that the definition itself put there; all other text is data. */
  secrets: SecretReference[];
  /** `id` without the last part: equal for every attempt of a node within one iteration. */
  idempotencyKey: string;
  /** Name and content hash of the definition it belongs to. */
  workflow: string;
  workflowHash: string;
}

/** What is known of a task whose process is gone. */
export type LeftTask = Pick<Task, 'id' | 'type'>;

/** What a task prints while it runs. `truncated`: more was printed than is kept, this is the last of it. */
export type TaskLog = (stream: 'stdout' | 'stderr', text: string, truncated?: boolean) => void;

/** One string of a `with` that names secrets. */
export interface SecretReference {
  path: (string | number)[];
  names: string[];
}

export type WorkReport =
  | { kind: 'completed'; output: unknown }
  | { kind: 'failed'; error: string; code: string; retryable: boolean }
  /** The answer to an abort. */
  | { kind: 'aborted'; outcome: TaskOutcome }
  /** The process that ran it died. */
  | { kind: 'lost' };
