/**
 * What several engines on one database need of it beyond `ExecutionStore`: who is alive, who owns what, and what
 * waits for an engine that was not told. A store that serves one engine at a time has none of this.
 *
 * Contract suite: test/contracts/cluster.contract.ts. Every write can be repeated. Lease times are the store's own
 * clock: engines' clocks may differ by an hour.
 */
import type { EngineItem, Json, WorkerItem } from '../wire.ts';
import type { RecoverableExecution, TriggerRow } from './store.ts';
import type { TaskClaim, TaskRow } from './task-queue.ts';
import type { WorkReport } from './work.ts';

/** What an engine says of itself with each heartbeat. */
export interface EngineBeat {
  id: string;
  /** Where clients reach it; null: unknown. */
  url: string | null;
  startedAtMs: number;
  status: EngineItem['status'];
  version: string;
  executions: { running: number; pending: number; parked: number };
  /** The most that ran and waited there lately; absent: as `executions` says. */
  load?: number;
  /** Its own silence after which others may take over, ms. */
  leaseMs: number;
  /** Executions and projects (`execution:ID`, `project:NAME`, `projects`) that its clients follow, at most 200. */
  follows: string[];
  /** Workers and agents connected to it. */
  workers: WorkerItem[];
}

export interface EngineRow extends EngineBeat {
  /** Since its last heartbeat, in the store's time. */
  silentMs: number;
  /**
   * `left`: it handed over and writes nothing more. `dead`: somebody saw its lease run out and declared it so;
   * it may not come back under this id.
   */
  membership: 'member' | 'left' | 'dead';
  drainRequested: boolean;
}

export interface ClusterView {
  /** The row of the engine that beat; null: it was declared dead, or is gone: it owns nothing any more. */
  self: EngineRow | null;
  engines: EngineRow[];
  /** Grows with every save, enabling and disabling of a definition. */
  definitionsTurn: number;
  /** The setting `admission`. */
  admission: Json;
}

/** What waits for this engine to act on, whoever failed to tell it. */
export interface Waiting {
  /** Live executions that it owns and that carry a stop intent. */
  intents: { executionId: string; requestId: string; requestedAtMs: number }[];
  /** Live executions that are offered to it (see `NewExecution.offeredTo`). */
  offered: string[];
  /** Unconsumed triggers of executions that it owns, and that `markDelivered` does not know. */
  triggers: TriggerRow[];
}

/** A task as those who wait for it see it. */
export interface TaskState {
  id: string;
  claim: TaskClaim | null;
  report: WorkReport | null;
  /** Its execution carries a stop intent. */
  stopping: boolean;
}

export interface ClusterStore {
  /** Renews the lease (the first time: joins) and tells who else is there. Drops rows that are of no use after an hour. */
  beat(beat: EngineBeat): Promise<ClusterView>;
  /**
   * Declares an engine dead whose silence exceeds its lease in the store's time; false: it is alive, or unknown.
   * True also for one that was declared dead before.
   */
  declareDead(engineId: string): Promise<boolean>;
  /** This engine hands over what it owns: it writes nothing more. */
  leave(engineId: string): Promise<void>;
  /** For `drain ENGINE` asked elsewhere; false: no such member. */
  requestDrain(engineId: string): Promise<boolean>;

  /**
   * Roots of trees that hold a live execution whose owner is one of `from`, at most `limit`, by id.
   * The root of an execution is its outermost ancestor, or itself.
   */
  listOrphans(from: string[], limit: number): Promise<string[]>;
  /**
   * Takes over: in each tree of `roots`, every live execution whose owner is one of `from` gets owner `to` and
   * epoch + 1, and its tasks follow. A tree whose root is live and has another owner than `from` and `to` is left alone:
   * that owner takes it. A tree never ends up with two owners that way. Also clears `offeredTo`.
   *
   * Answers every live execution of these trees that `to` owns now, parents before children (so a repeat after a lost
   * reply answers the same).
   */
  takeOver(roots: string[], from: string[], to: string): Promise<RecoverableExecution[]>;
  /**
   * Takes an execution that is offered to `to`: owner `to`, epoch + 1. null: it is not offered to it, or has ended.
   * Where `to` owns it already and nothing of it is offered, the answer is the execution as it is (a lost reply).
   */
  acceptOffer(executionId: string, to: string): Promise<RecoverableExecution | null>;
  /** Live executions owned by `engine` whose offer to somebody else is older than `olderThanMs`: their offers are taken back. */
  takeBackOffers(engine: string, olderThanMs: number): Promise<RecoverableExecution[]>;

  /** What waits for this engine; at most `limit` of each. */
  waiting(engine: string, limit: number): Promise<Waiting>;
  /** The owner has these triggers in hand: `waiting` does not tell of them again. */
  markDelivered(triggerIds: string[]): Promise<void>;

  /**
   * A place among the `max` executions that run at once of a workflow; true also where it has one. The place of an
   * execution that has ended, or is gone, is free, whoever forgot to give it back.
   */
  takePlace(project: string, workflow: string, executionId: string, max: number): Promise<boolean>;
  givePlaceBack(project: string, workflow: string, executionId: string): Promise<void>;

  /** Queued tasks that nobody has claimed, of other owners than `notOf`, oldest first; `project` null: of any. */
  listQueued(capabilities: string[], project: string | null, notOf: string, limit: number): Promise<TaskRow[]>;
  /** Of these tasks, those that are still there. */
  readTasks(ids: string[]): Promise<TaskState[]>;
  /** The whole rows of these tasks, where they are still there. */
  getTasks(ids: string[]): Promise<TaskRow[]>;
  /**
   * Keeps a report for the owner. `gone`: nobody waits for it. `refused`: the claim is another one (its `tokenHash`
   * differs). The first report stays: a later one is `stored` too where it is the same claim's, and changes nothing.
   */
  storeReport(taskId: string, tokenHash: string, report: WorkReport): Promise<'stored' | 'gone' | 'refused'>;
  /** A worker came back at another engine: its claims go by that one now. */
  moveClaims(taskIds: string[], worker: string, via: string): Promise<void>;
}
