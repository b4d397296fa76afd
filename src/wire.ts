/**
 * The shapes that leave the process: what HTTP, Socket.IO, the client and the command line exchange.
 *
 * Source: docs/api.md. Times are ISO 8601 UTC with milliseconds; ids are UUID version 7 strings.
 */
export type ExecutionStatus = 'Pending' | 'Running' | 'Complete' | 'Failed';
export type NodeStatus = 'Pending' | 'Held' | 'Running' | 'Complete' | 'Failed' | 'Skipped';
export type Where = 'engine' | 'worker' | 'agent';
export type Role = 'viewer' | 'operator' | 'admin' | 'worker' | 'agent';
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface WorkflowRef {
  name: string;
  hash: string;
  version: number;
}

export interface ParentRef {
  executionId: string;
  node: string;
  iterations?: number[];
  attempt: number;
  itemIndex?: number;
}

export interface StopRef {
  requestId: string;
  requestedAt: string;
}

export interface NodeRecord {
  type: string;
  status: NodeStatus;
  error: string | null;
  errorCode: string | null;
  attempt: number;
  startedAt: string | null;
  endedAt: string | null;
  hasOutput: boolean;
  where: Where;
  iteration?: { index: number; nodes: Record<string, NodeRecord> };
  children?: { total: number; running: number; complete: number; failed: number };
}

/** One item of a list: an execution without input, outputs and nodes. */
export interface ExecutionItem {
  id: string;
  project: string;
  workflow: WorkflowRef;
  labels: Record<string, string>;
  status: ExecutionStatus;
  error: string | null;
  errorCode: string | null;
  parent: ParentRef | null;
  createdAt: string;
  startedAt: string | null;
  endedAt: string | null;
  stop: StopRef | null;
  stoppedByUser: boolean;
  seq: number;
}

export interface ExecutionRecord extends ExecutionItem {
  input: Json;
  outputs: Json;
  /** While a stop waits: on what. */
  waitingFor?: (NodeAddress & { where: Where; sinceMs: number })[];
  nodes: Record<string, NodeRecord>;
}

export interface List<T> {
  items: T[];
  nextCursor: string | null;
}

export interface ExecutionEvent {
  seq: number;
  at: string;
  type: ExecutionEventType;
  node?: string;
  iterations?: number[];
  attempt?: number;
  data?: Json;
}

export type ExecutionEventType =
  | 'execution.created'
  | 'execution.started'
  | 'execution.completed'
  | 'execution.failed'
  | 'stop.requested'
  | 'stop.delivered'
  | 'stop.halted'
  | 'node.held'
  | 'node.triggered'
  | 'node.started'
  | 'node.retrying'
  | 'node.completed'
  | 'node.failed'
  | 'node.skipped'
  | 'iteration.started'
  | 'task.queued'
  | 'task.claimed'
  | 'task.aborting'
  | 'task.aborted'
  | 'log';

export interface EventPage {
  items: ExecutionEvent[];
  /** The `from` of the next page: one past the last seq seen. */
  nextFrom: number;
}

export interface Results {
  executionId: string;
  workflow: WorkflowRef;
  status: ExecutionStatus;
  error: string | null;
  outputs: Json;
  nodes: Record<string, { status: NodeStatus; output: Json; error: string | null }>;
}

export interface StopAnswer {
  executionId: string;
  requestId: string;
  requestedAt: string;
  status: 'stop requested' | 'stopped';
}

export interface NodeAddress {
  node: string;
  iterations?: number[];
}

export interface StopPreview {
  executionId: string;
  /** `queued`: no worker or agent has its task: it is withdrawn, and never starts. */
  willAbort: (NodeAddress & { type: string; where: Where; runningForMs: number; queued?: true })[];
  cannotCancel: (NodeAddress & { agent: string; runningForMs: number })[];
  kept: { Complete: number; Failed: number; Skipped: number };
  stayPending: NodeAddress[];
  stayHeld: NodeAddress[];
  /** Live child executions that are stopped with this one. */
  children: { executionId: string; status: ExecutionStatus }[];
}

export type TaskOutcome = 'aborted' | 'neverStarted' | 'finishedFirst' | 'forced' | 'unconfirmed' | 'agentRunsOn';
export type DeliveryPath = 'local' | 'bus' | 'poll' | 'takeover';

export interface StopReceipt {
  executionId: string;
  requestId: string;
  requestedAt: string;
  delivery: { path: DeliveryPath; ms: number } | null;
  haltedMs: number | null;
  finalisedMs: number | null;
  finalisedAt: string | null;
  tasks: (NodeAddress & { attempt: number; type: string; where: Where; outcome: TaskOutcome; ms: number | null })[];
  lateResultsDiscarded: number;
  /** How many tasks have not confirmed their end. */
  unconfirmed: number;
  children: { executionId: string; status: ExecutionStatus }[];
}

export interface ExecutionFilter {
  ids?: string[];
  status?: ExecutionStatus;
  workflow?: string;
  label?: string;
  text?: string;
  createdFrom?: string;
  createdTo?: string;
  all?: true;
}

export interface BulkStopAnswer {
  matched: number;
  requested: string[];
  alreadyEnded: string[];
  failed: { id: string; code: string }[];
  startedMeanwhile: string[];
}

export interface BulkStopDryRun {
  matched: number;
  setId: string;
}

export interface ErrorBody {
  code: string;
  message: string;
  details: unknown;
}

export interface DefinitionFault {
  /** Where in the file, such as `nodes.scan.needs[0]`. */
  path: string;
  /** 1-based line of the file; null when it did not come as text. */
  line: number | null;
  message: string;
}

/** Where a Stately viewer looks at one execution: a path of the server, which is all the authorisation it needs. */
export interface Inspection {
  /** `/inspect/TOKEN`; viewers of XState 4 look at `/inspect/v4/TOKEN`. */
  path: string;
  expiresAt: string;
}

export interface WorkflowSaved {
  name: string;
  hash: string;
  version: number;
}

export interface WorkflowItem {
  project: string;
  name: string;
  hash: string;
  version: number;
  description: string | null;
  disabled: boolean;
  schedules: { cron: string; timezone: string | null; nextAt: string | null }[];
  savedAt: string;
}

export interface KeyItem {
  id: string;
  name: string;
  role: Role;
  /** null: all projects. */
  project: string | null;
  capabilities?: string[];
  pool?: string;
  createdAt: string;
}

/** A process that runs tasks, or has lately: a worker, an agent, or the pool inside the server. */
export interface WorkerItem {
  id: string;
  name: string;
  kind: 'worker' | 'agent' | 'pool';
  /** Node types; of an agent `agent:POOL`. */
  capabilities: string[];
  slots: number;
  /** Tasks it holds. */
  held: number;
  connected: boolean;
  /** Since its last word. */
  silentMs: number;
}

export interface EngineItem {
  id: string;
  epoch: number;
  startedAt: string;
  status: 'starting' | 'serving' | 'draining' | 'stopped';
  executions: { running: number; pending: number; parked: number };
  version: string;
  /** Where it is reached, as it says; null: unknown. */
  url: string | null;
}

export interface AuditItem {
  id: string;
  at: string;
  /** Who asked: the key's id and name. */
  actor: { keyId: string; name: string; role: Role } | null;
  verb: string;
  project: string | null;
  target: string | null;
  /** null until known. */
  outcome: string | null;
  data?: Json;
}

/** Server to client on namespace `/`. */
export interface ServerEvents {
  'execution.event': (message: { executionId: string; event: ExecutionEvent }) => void;
  'execution.changed': (item: ExecutionItem) => void;
  'stop.receipt': (receipt: StopReceipt) => void;
  STOP: (message: { executionId: string; requestId: string }) => void;
}
