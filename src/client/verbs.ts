/**
 * What each Socket.IO verb takes and answers, as the client sends them. Reference: docs/api.md.
 */
import type {
  AuditItem,
  BulkStopAnswer,
  BulkStopDryRun,
  EngineItem,
  EventPage,
  ExecutionFilter,
  ExecutionItem,
  ExecutionRecord,
  ExecutionStatus,
  Inspection,
  Json,
  KeyItem,
  List,
  Results,
  Role,
  StopAnswer,
  StopPreview,
  StopReceipt,
  WorkerItem,
  WorkflowItem,
  WorkflowSaved,
} from '../wire.ts';

/** Of every verb that names a workflow; a key of one project needs none. */
export interface InProject {
  project?: string;
}

export interface StartRequest extends InProject {
  /** NAME, or NAME@HASH for one that is not the last saved. */
  workflow: string;
  input?: Record<string, Json>;
  labels?: Record<string, string>;
  /** The same key with the same request answers with the first execution. */
  idempotencyKey?: string;
}

export interface ExecutionListQuery extends InProject {
  status?: ExecutionStatus;
  workflow?: string;
  stoppedByUser?: boolean;
  /** Prefix of an id, or words of a workflow's name or an error. */
  text?: string;
  /** `NAME=VALUE` or `NAME`. */
  label?: string;
  /** Children of this execution. */
  parent?: string;
  createdFrom?: string;
  createdTo?: string;
  cursor?: string;
  /** Items of one page; 100 by default, at most 1,000. */
  limit?: number;
}

export interface KeyRequest {
  name: string;
  role: Role;
  project?: string;
  /** Of a worker. */
  capabilities?: string[];
  /** Of an agent. */
  pool?: string;
}

/** A workflow with its file as a JSON value. */
export interface WorkflowDetail extends WorkflowItem {
  definition: Json;
  /** Where they were asked for: all of its name, the last saved first. */
  versions?: { version: number; hash: string; savedAt: string }[];
}

/** `status` is the same for everybody, the rest is for keys that may see something. */
export interface Health {
  status: 'ok' | 'unavailable';
  /** Why it is unavailable. */
  message?: string;
  admissionPaused?: boolean;
  engine?: EngineItem;
  /** Tasks that wait for a capability which nobody here offers, by capability. */
  missing?: Record<string, number>;
  /** Whose key this is. */
  caller?: { name: string; role: Role /** null: all projects. */; project: string | null };
}

type Verb<Payload, Answer> = { payload: Payload; answer: Answer };

export interface Verbs {
  'workflow.save': Verb<InProject & { definition: string | Json; dryRun?: boolean }, WorkflowSaved>;
  'workflow.list': Verb<InProject, List<WorkflowItem>>;
  /** `name`: NAME or NAME@HASH. */
  'workflow.get': Verb<InProject & { name: string; versions?: boolean }, WorkflowDetail>;
  'workflow.disable': Verb<InProject & { name: string }, WorkflowItem>;
  'workflow.enable': Verb<InProject & { name: string }, WorkflowItem>;
  'execution.start': Verb<StartRequest, ExecutionRecord>;
  'execution.list': Verb<ExecutionListQuery, List<ExecutionItem>>;
  'execution.get': Verb<{ id: string }, ExecutionRecord>;
  'execution.results': Verb<{ id: string }, Results>;
  'execution.events': Verb<{ id: string; from?: number; limit?: number }, EventPage>;
  'execution.subscribe': Verb<{ id: string; from: number }, unknown>;
  'execution.unsubscribe': Verb<{ id: string }, unknown>;
  'executions.subscribe': Verb<InProject, unknown>;
  'executions.unsubscribe': Verb<InProject, unknown>;
  'execution.stop': Verb<{ id: string }, StopAnswer>;
  'execution.inspect': Verb<{ id: string }, Inspection>;
  'execution.receipt': Verb<{ id: string }, StopReceipt>;
  'execution.preview': Verb<{ id: string }, StopPreview>;
  'executions.stop': Verb<
    (InProject & { filter: ExecutionFilter; dryRun?: boolean }) | { setId: string },
    BulkStopAnswer | BulkStopDryRun
  >;
  'execution.trigger': Verb<{ id: string; name: string; payload?: Json }, { duplicate: boolean }>;
  'execution.delete': Verb<{ id: string }, unknown>;
  'admission.set': Verb<{ paused: boolean }, { paused: boolean }>;
  'key.list': Verb<Record<string, never>, List<KeyItem>>;
  'key.create': Verb<KeyRequest, { id: string; key: string }>;
  'key.delete': Verb<{ id: string }, unknown>;
  'engine.list': Verb<Record<string, never>, List<EngineItem>>;
  'engine.drain': Verb<{ id: string }, EngineItem>;
  'worker.list': Verb<Record<string, never>, List<WorkerItem>>;
  'audit.list': Verb<{ cursor?: string; limit?: number }, List<AuditItem>>;
  health: Verb<Record<string, never>, Health>;
}
