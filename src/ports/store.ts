/**
 * What the engine needs from a database. The store is the truth.
 *
 * Contract suite: test/contracts/store.contract.ts; every adapter passes it unchanged. All methods may
 * reject with FS_UNAVAILABLE when the database cannot take the call now: whether a write then happened is
 * not known, and the caller reads back or repeats (every write here can be repeated).
 *
 * Times are milliseconds since the epoch. JSON values are passed as values; adapters serialise.
 */
import type {
  AuditItem,
  ExecutionEventType,
  ExecutionFilter,
  ExecutionStatus,
  Json,
  NodeStatus,
  ParentRef,
  Role,
  StopReceipt,
  Where,
  WorkflowRef,
} from '../wire.ts';
import type { ClusterStore } from './cluster.ts';
import type { TaskQueue, TaskRow } from './task-queue.ts';

export interface DefinitionRow {
  project: string;
  name: string;
  hash: string;
  /** 1 for the first hash saved under the name, then 2, ...; a known hash keeps its number. */
  version: number;
  /** The workflow file as a JSON value. */
  source: Json;
  savedAtMs: number;
  disabled: boolean;
}

/** A loop around a child's node: the index of its iteration, or `INDEX@ATTEMPT` where it is not at its first attempt. */
export type LoopPlace = number | string;

/** A child's place in its parent. */
export interface ParentRow extends ParentRef {
  /** Of each enclosing loop, outermost first; absent where `iterations` says it all. */
  loops?: LoopPlace[];
}

/** One execution without its nodes. */
export interface HeaderRow {
  id: string;
  project: string;
  workflow: WorkflowRef;
  /** Path of the body this execution runs, for the items of a `foreach`; null: the whole workflow. */
  bodyPath: string | null;
  labels: Record<string, string>;
  status: ExecutionStatus;
  error: string | null;
  errorCode: string | null;
  input: Json;
  outputs: Json;
  parent: ParentRow | null;
  /** Ancestors, outermost first, the parent last; [] for an execution somebody started. */
  ancestors: string[];
  /** Started by `onFailure`: such an execution starts none itself. */
  startedByFailure: boolean;
  createdAtMs: number;
  startedAtMs: number | null;
  endedAtMs: number | null;
  owner: { engine: string; epoch: number };
  /** How many commits it has had. */
  v: number;
  stop: { requestId: string; requestedAtMs: number } | null;
  /** The last event's number. */
  seq: number;
  /** Persisted snapshot of the execution's actor; null before its first commit. */
  machine: Json;
}

/** One node that has started, been held or skipped: a Pending node has no row. */
export interface NodeRow {
  /** `path` and `iterations` in one: `poll/check/3@1` (see `nodeKey`). Unique within the execution. */
  key: string;
  path: string;
  /** `INDEX@ATTEMPT` of each enclosing loop, outermost first. */
  iterations: string[];
  type: string;
  status: NodeStatus;
  error: string | null;
  errorCode: string | null;
  attempt: number;
  startedAtMs: number | null;
  endedAtMs: number | null;
  where: Where;
  hasOutput: boolean;
  /** Persisted snapshot of the node's actor. */
  machine: Json;
  /** Of a loop: the current iteration's index and what the engine needs to go on; of other types what their type keeps. */
  data: Json;
}

export interface EventRow {
  seq: number;
  atMs: number;
  type: ExecutionEventType;
  node: string | null;
  iterations: number[] | null;
  attempt: number | null;
  data: Json;
}

/** An attempt's output. Immutable: the same `id` again is the same result. */
export interface ResultRow {
  /** The attempt's identity (`ID/path/iterations/attempt`): execution, `key` and attempt. */
  id: string;
  /** The node's `key`. */
  key: string;
  output: Json;
}

/** A receipt, and what putting together takes what several engines know of one stop. */
export interface ReceiptRow extends StopReceipt {
  /** Tasks whose results `lateResultsDiscarded` counts: each once, whoever tells of it and however often. */
  discarded?: string[];
  /** Tasks without confirmation that may go on when their engine dies, and of which no row of the queue is left. */
  outliving?: string[];
}

export interface StoredReceipt extends ReceiptRow {
  /** Another one with each change. */
  revision: number;
}

/**
 * One atomic change of one execution, made by its owner.
 *
 * It may hold the whole life of many nodes, and of an execution from its start to its end: a node comes Complete that
 * was never Running in the record, with its output; iterations of a loop come and go. So one key may be in `nodes` or
 * `results` and in `dropNodes`: it goes. Of a key there is one row, as it is at the end; of `events` there is each, in
 * order.
 *
 * Applied only if the execution has not ended, `epoch` is the stored one, and the stop intent is as
 * `requestId` says: null demands that there is none, a string that it is the stored one.
 */
export interface Commit {
  executionId: string;
  epoch: number;
  /**
   * This commit's number: the stored `v` must be one less, and becomes it. Where the stored `v` is already
   * this one, the commit was applied before and its reply was lost: the answer is `committed`, and nothing
   * changes (also where it was the final one). Any other `v`: `fenced`, or `ended`.
   */
  v: number;
  requestId: string | null;
  header: {
    status?: ExecutionStatus;
    error?: string | null;
    errorCode?: string | null;
    outputs?: Json;
    startedAtMs?: number;
    endedAtMs?: number;
    machine?: Json;
  };
  nodes: NodeRow[];
  /** Keys of nodes of iterations that are over: their rows go, and their results. */
  dropNodes: string[];
  events: EventRow[];
  results: ResultRow[];
  consumedTriggers: string[];
  receipt: ReceiptRow | null;
  /** Tasks that now wait for a worker in another process, and tasks that no longer matter (see task-queue.ts). */
  tasks: TaskRow[];
  endedTasks: string[];
  /**
   * Executions that come to be with this commit, in the same transaction; one whose uniqueKey exists, or
   * whose parent takes no more children, is left out.
   */
  creates: NewExecution[];
  /** True for the terminal commit: the epoch is bumped, so that nothing of this owner is accepted after it. */
  final: boolean;
}

export type CommitOutcome =
  | { kind: 'committed' }
  | { kind: 'refused'; why: 'stopping'; stop: { requestId: string; requestedAtMs: number } }
  | { kind: 'refused'; why: 'fenced' | 'ended' | 'missing' };

export interface NewExecution {
  header: HeaderRow;
  events: EventRow[];
  /**
   * Unique within the project: a caller's `idempotencyKey`, a schedule's instant, a child's place in its
   * parent. null: none.
   */
  uniqueKey: string | null;
  /** Digest of the request, to tell a repeat from a conflict. */
  bodyHash: string | null;
  /** An engine that has less to do than its owner, and may take it (`ClusterStore.acceptOffer`). */
  offeredTo?: string;
}

export type CreateOutcome =
  | { kind: 'created' }
  | { kind: 'exists'; id: string; sameBody: boolean }
  /** Its parent has ended, or a stop intent is stored for it. */
  | { kind: 'refused'; why: 'parentEnded' | 'parentStopping' };

/** The stop that an execution carries. */
export interface Intent {
  executionId: string;
  requestId: string;
  requestedAtMs: number;
}

export type StopRequestOutcome =
  | { kind: 'missing' }
  /**
   * The intent is stored. `repeated`: it was already. `affected`: the execution and its live descendants, each with
   * the intent that it carries now: a child that was stopped before keeps its own.
   */
  | { kind: 'requested'; repeated: boolean; requestId: string; requestedAtMs: number; affected: Intent[] }
  | { kind: 'stopped'; requestId: string; requestedAtMs: number }
  | { kind: 'ended'; status: ExecutionStatus };

export interface TriggerRow {
  id: string;
  executionId: string;
  name: string;
  payload: Json;
  atMs: number;
}

export type TriggerOutcome =
  | { kind: 'stored' }
  /** The same name and payload wait unconsumed, under this id. */
  | { kind: 'duplicate'; id: string }
  /** Another payload of this name waits unconsumed. */
  | { kind: 'conflict' }
  | { kind: 'missing' }
  | { kind: 'ended'; status: ExecutionStatus };

export interface KeyRow {
  id: string;
  /** SHA-256 of the key, hex. */
  hash: string;
  name: string;
  role: Role;
  project: string | null;
  capabilities: string[] | null;
  pool: string | null;
  createdAtMs: number;
}

export interface StoredExecution {
  header: HeaderRow;
  nodes: NodeRow[];
}

/** What an engine needs to go on with an execution. */
export interface RecoverableExecution extends StoredExecution {
  triggers: TriggerRow[];
}

export interface ExecutionQuery extends Omit<ExecutionFilter, 'all' | 'createdFrom' | 'createdTo'> {
  /** null: all projects. */
  project: string | null;
  createdFromMs?: number;
  createdToMs?: number;
  stoppedByUser?: boolean;
  /** Only children of this execution; otherwise only executions without a parent unless `withChildren`. */
  parent?: string;
  withChildren?: boolean;
  /** Only executions that have not ended. */
  live?: boolean;
  /** Newest first from here; opaque, from the last page. */
  cursor?: string;
  limit: number;
}

export interface ExecutionStore extends TaskQueue {
  /** null: the store serves one engine at a time, and whoever opened it knows that all earlier ones are gone. */
  readonly cluster: ClusterStore | null;
  /** Creates what is missing, checks the schema version, takes the lock. @throws FS_LOCKED */
  open(): Promise<void>;
  close(): Promise<void>;
  /** null when the store takes writes; otherwise why it does not, for a person. */
  trouble(): string | null;

  /** Saves a definition under its name and hash; makes it the name's last. `created` is false for a known hash. */
  saveDefinition(row: Omit<DefinitionRow, 'version' | 'disabled'>): Promise<{ row: DefinitionRow; created: boolean }>;
  /** Without `hash` the last saved. */
  getDefinition(project: string, name: string, hash?: string): Promise<DefinitionRow | null>;
  /** All versions of a name, newest save first. */
  listVersions(project: string, name: string): Promise<DefinitionRow[]>;
  /** The last of each name, by project and name. */
  listDefinitions(project: string | null): Promise<DefinitionRow[]>;
  /** False when there is no such workflow. */
  setDisabled(project: string, name: string, disabled: boolean): Promise<boolean>;

  createExecution(execution: NewExecution): Promise<CreateOutcome>;
  /** The execution that bears this unique key, and its start's `bodyHash`; null: none. Reads its own writes. */
  findStart(project: string, uniqueKey: string): Promise<{ id: string; bodyHash: string | null } | null>;
  commit(commit: Commit): Promise<CommitOutcome>;
  /** Stores the stop intent on a live execution and on its live descendants, atomically. */
  requestStop(id: string, intent: { requestId: string; requestedAtMs: number }): Promise<StopRequestOutcome>;
  /** `delivered`: the caller owns the execution and has it in hand (see `ClusterStore.waiting`). */
  putTrigger(trigger: TriggerRow, delivered?: boolean): Promise<TriggerOutcome>;
  /**
   * Replaces the receipt of a stopped execution after its terminal commit (late confirmations, discards), if its
   * revision is still `ifRevision`. `changed`: it is another one: read it, and put yours in it. `live`: until the
   * execution has ended its receipt is a part of its owner's commits, and nobody else's to write. `missing`: there is
   * no such execution, or it has none.
   */
  putReceipt(receipt: ReceiptRow, ifRevision: number): Promise<'stored' | 'changed' | 'live' | 'missing'>;
  /** Reads its own writes. */
  getReceipt(executionId: string): Promise<StoredReceipt | null>;
  /** Takes over: epoch + 1, owner = `engine`, of every live execution; returns how many. */
  claimAll(engine: string): Promise<number>;
  /** Live executions in order of creation, in pages, for recovery. */
  recover(afterId: string | null, limit: number): Promise<RecoverableExecution[]>;
  /** One execution as `recover` gives it, whatever its status; null when missing. Reads its own writes. */
  load(id: string): Promise<RecoverableExecution | null>;
  /** Live executions that carry a stop intent, for the sweep: ids and request ids, at most `limit`. */
  listIntents(limit: number): Promise<Intent[]>;
  /** Children of one attempt of a node, in order of item index. Reads its own writes. */
  listChildren(
    parentId: string,
    node: string,
    loops: LoopPlace[],
    attempt: number,
  ): Promise<
    {
      id: string;
      status: ExecutionStatus;
      error: string | null;
      errorCode: string | null;
      stopped: boolean;
      itemIndex: number | null;
    }[]
  >;
  /** `outputs` of ended executions, in the order asked; null for a missing one. */
  readOutputs(ids: string[]): Promise<Json[]>;

  /** Reads below may be served by a second connection, and are as of some moment after the call began. */
  getHeader(id: string): Promise<HeaderRow | null>;
  getExecution(id: string): Promise<StoredExecution | null>;
  /** Headers of a list come without `input`, `outputs` and `machine`: these are null. */
  listExecutions(query: ExecutionQuery): Promise<{ items: HeaderRow[]; nextCursor: string | null }>;
  countExecutions(query: Omit<ExecutionQuery, 'limit' | 'cursor'>): Promise<number>;
  /** Events with seq >= from, at most `limit`; `firstSeq` is the first one kept (1 unless trimmed). */
  readEvents(id: string, from: number, limit: number): Promise<{ items: EventRow[]; firstSeq: number }>;
  /** One attempt's output, by `ResultRow.id`; undefined when missing. */
  readResult(id: string): Promise<Json | undefined>;
  /** Every result of an execution. */
  readResults(executionId: string): Promise<ResultRow[]>;

  /** Deletes an ended execution, its descendants and all that belongs to them; says what stood in the way. */
  deleteExecution(id: string): Promise<'deleted' | 'missing' | 'live'>;
  /** Deletes executions without parent that ended before, with their descendants; at most `limit`; returns how many. */
  deleteEndedBefore(beforeMs: number, limit: number): Promise<number>;
  /** Drops the oldest events of running executions that hold more than `keep`. */
  trimEvents(executionId: string, keep: number): Promise<void>;

  appendAudit(entry: AuditItem): Promise<void>;
  completeAudit(id: string, outcome: string): Promise<void>;
  /** Newest first. */
  listAudit(
    project: string | null,
    cursor: string | undefined,
    limit: number,
  ): Promise<{ items: AuditItem[]; nextCursor: string | null }>;

  createKey(row: KeyRow): Promise<void>;
  listKeys(project: string | null): Promise<KeyRow[]>;
  findKey(hash: string): Promise<KeyRow | null>;
  deleteKey(id: string, project: string | null): Promise<boolean>;

  /** Small values the engine keeps by name: the admission switch, a schedule's last instant. */
  getSetting(name: string): Promise<Json>;
  putSetting(name: string, value: Json): Promise<void>;
}
