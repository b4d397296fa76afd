/**
 * What is stored where, as BSON.
 *
 * JSON values are stored as JSON text: BSON would lose the difference of `1` and `1.0`, and names such as `a.b`,
 * `$set` and `__proto__`. Text above `INLINE_MAX` is kept apart and referred to (texts.ts). Names of fields are those of
 * the port, without their units.
 */

/** JSON text, or where it is kept. */
export type Stored = string | { value: string } | { file: string };

export interface TaskDocument {
  id: string;
  /** The capability while nobody has claimed it: the index of queued tasks holds those that have this field. */
  queued?: string;
  capability: string;
  at: number;
  task: Stored;
  /** Whether its row names the engine that owns its execution. */
  owned: boolean;
  claim?: { worker: string; tokenHash: string; at: number; via?: string };
  report?: Stored;
}

export interface TriggerDocument {
  id: string;
  name: string;
  payload: Stored;
  at: number;
  delivered: boolean;
}

/** The outputs of a node by `V/ATTEMPT`, V being the commit that brought it: of one attempt the first counts. */
export type ResultsOfNode = Record<string, Stored>;

/**
 * One execution: everything that an ordinary commit changes, so that it costs one write of one document.
 *
 * Keys of nodes are escaped (`fieldOf`).
 */
export interface ExecutionDocument {
  _id: string;
  project: string;
  workflow: string;
  /** What never changes and nothing is looked up by, as JSON text. */
  facts: string;
  /** 0 Pending, 1 Running, 2 Complete, 3 Failed; below 2 is live. */
  status: number;
  created: number;
  started: number | null;
  ended: number | null;
  engine: string;
  epoch: number;
  v: number;
  seq: number;
  stop?: { id: string; at: number };
  /** JSON text, because MongoDB takes no ill-formed Unicode. */
  error: string | null;
  /** In lower case, to be searched. */
  errorWords?: string;
  errorCode: string | null;
  bodyHash: string | null;
  /** Tells the document of one call from that of another with the same id. */
  made: string;
  uniqueKey?: string;
  input: Stored;
  outputs: Stored | null;
  machine: Stored;
  nodes: Record<string, Stored>;
  /** The newest events, those of one commit under the number of the first. */
  events: Record<string, Stored>;
  /** The first event kept. */
  firstSeq: number;
  results: Record<string, ResultsOfNode>;
  /** About how many bytes of events, outputs and tasks are in this document. */
  inline: number;
  /** Whether outputs were moved to `results`. */
  spilled?: true;
  tasks: TaskDocument[];
  /** Tasks of `tasks` that have ended (`fieldOf` their ids), until they are taken out of it. */
  gone?: Record<string, true>;
  triggers: TriggerDocument[];
  receipt?: Stored;
  /** The engine that may take it; `at` in the server's time. */
  offer?: { to: string; at: number };
  /** The outermost ancestor, or itself. */
  root: string;
  /** Absent without a parent: partial indexes hold documents by fields that exist. */
  isRoot?: true;
  ancestors?: string[];
  parent?: string;
  /** The attempt of the parent's node that it belongs to. */
  place?: string;
  item?: number | null;
  /** Raised with each child: a child and a stop of its parent that are made at once meet here. */
  children?: number;
  labels: { k: string; v: string }[];
}

/** Events that have left their header. */
export interface EventsDocument {
  _id: string;
  x: string;
  first: number;
  last: number;
  events: Record<string, Stored>;
}

/** Outputs that have left their header, many to a document. */
export interface ResultsDocument {
  _id: string;
  x: string;
  results: Record<string, ResultsOfNode>;
}

/** A text too big for a header. */
export interface ValueDocument {
  _id: string;
  x: string;
  text: string;
}

/** A caller's key, and what it started. `_id`: project and key. */
export interface StartDocument {
  _id: string;
  x: string;
}

export interface WorkflowDocument {
  _id: string;
  project: string;
  name: string;
  disabled: boolean;
  versions: number;
  turn: number;
  /** The hash that was saved last. */
  last: string;
}

export interface DefinitionDocument {
  _id: string;
  project: string;
  name: string;
  hash: string;
  version: number;
  turn: number;
  saved: number;
  source: string;
}

export interface AuditDocument {
  _id: string;
  project: string | null;
  outcome: string | null;
  body: string;
}

export interface KeyDocument {
  _id: string;
  hash: string;
  project: string | null;
  body: string;
}

export interface SettingDocument {
  _id: string;
  value: string;
}

/** An engine; or, under `CLUSTER_ID`, what each heartbeat reads with them. */
export interface EngineDocument {
  _id: string;
  body?: string;
  lease?: number;
  at?: Date;
  membership?: 'member' | 'left' | 'dead';
  drain?: boolean;
  definitionsTurn?: number;
  admission?: string;
}

export interface PlacesDocument {
  _id: string;
  holders: string[];
}

export interface MetaDocument {
  _id: string;
  version?: number;
  n?: number;
}

/** No id of an engine: those are UUIDs. */
export const CLUSTER_ID = 'cluster';

/** A key as the name of a field: MongoDB reads dots and dollars in names as paths and operators. */
export function fieldOf(key: string): string {
  return key.replace(/[%.$\0]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
}

export function keyOf(field: string): string {
  return field.replace(/%([0-9A-F]{2})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}
