/** How rows of the port become documents, and back. */
import { randomBytes } from 'node:crypto';
import { FullstopError } from '../../errors.ts';
import type {
  Commit,
  EventRow,
  HeaderRow,
  LoopPlace,
  NewExecution,
  NodeRow,
  RecoverableExecution,
  TriggerRow,
} from '../../ports/store.ts';
import type { TaskClaim, TaskRow } from '../../ports/task-queue.ts';
import type { WorkReport } from '../../ports/work.ts';
import type { ExecutionStatus, Json } from '../../wire.ts';
import {
  type ExecutionDocument,
  fieldOf,
  keyOf,
  nodePath,
  type Stored,
  type TaskDocument,
  type TriggerDocument,
} from './documents.ts';
import { type BigText, INLINE_MAX, type TextReader, TextWriter } from './texts.ts';

/** By their number in `status`. */
const executionStatuses: readonly ExecutionStatus[] = ['Pending', 'Running', 'Complete', 'Failed'];
/** Numbers below are live. */
export const LIVE = 2;
/** Of a node's row, in characters: a header has up to 2,000, and stays below 1 MB. */
const NODE_INLINE_MAX = 400;
/** Bodies of tasks that wait in a header, which moves them when they are many. */
const TASK_INLINE_MAX = 2 * 1024;
/** What one commit may add to a header's events, outputs and tasks: further ones are kept apart from the start. */
const COMMIT_INLINE_MAX = 64 * 1024;
/** What an entry costs beside its text, about. */
const ENTRY_BYTES = 64;

export function statusNumber(status: ExecutionStatus): number {
  return executionStatuses.indexOf(status);
}

export function statusOf(number: number): ExecutionStatus {
  const status = executionStatuses[number];
  if (status === undefined) throw new FullstopError('FS_INTERNAL', `expected a status from 0 to 3, found ${number}`);
  return status;
}

/** The place of children in their parent: one attempt of one node. */
export function placeOf(node: string, loops: readonly LoopPlace[], attempt: number): string {
  return JSON.stringify([node, loops, attempt]);
}

/** What never changes about an execution and nothing is looked up by. */
type Facts = Pick<HeaderRow, 'bodyPath' | 'labels' | 'parent' | 'ancestors' | 'startedByFailure'> & {
  hash: string;
  version: number;
};

export interface EncodedNew {
  document: ExecutionDocument;
  bigs: BigText[];
  /** Of `starts`; null: it has no unique key. */
  startId: string | null;
}

export function startIdOf(project: string, uniqueKey: string): string {
  return `${project}/${uniqueKey}`;
}

export function encodeNew(
  { header: h, events, uniqueKey, bodyHash, offeredTo }: NewExecution,
  serverTimeMs: number,
): EncodedNew {
  const texts = new TextWriter(h.id);
  const facts: Facts = {
    hash: h.workflow.hash,
    version: h.workflow.version,
    bodyPath: h.bodyPath,
    labels: h.labels,
    parent: h.parent,
    ancestors: h.ancestors,
    startedByFailure: h.startedByFailure,
  };
  const first = events[0]?.seq;
  const body = encodeEvents(events);
  const document: ExecutionDocument = {
    _id: h.id,
    project: h.project,
    workflow: h.workflow.name,
    facts: JSON.stringify(facts),
    status: statusNumber(h.status),
    created: h.createdAtMs,
    started: h.startedAtMs,
    ended: h.endedAtMs,
    engine: h.owner.engine,
    epoch: h.owner.epoch,
    v: h.v,
    seq: h.seq,
    ...(h.stop === null ? {} : { stop: { id: h.stop.requestId, at: h.stop.requestedAtMs } }),
    error: h.error === null ? null : JSON.stringify(h.error),
    ...(h.error === null ? {} : { errorWords: h.error.toLowerCase() }),
    errorCode: h.errorCode,
    bodyHash,
    made: randomBytes(6).toString('base64'),
    ...(uniqueKey === null ? {} : { uniqueKey }),
    input: texts.store(JSON.stringify(h.input)),
    outputs: h.outputs === null ? null : texts.store(JSON.stringify(h.outputs)),
    machine: texts.store(JSON.stringify(h.machine)),
    nodes: {},
    events: first === undefined ? {} : { [first]: texts.store(body) },
    firstSeq: first ?? h.seq + 1,
    results: {},
    inline: body.length + ENTRY_BYTES,
    tasks: [],
    triggers: [],
    ...(offeredTo === undefined ? {} : { offer: { to: offeredTo, at: serverTimeMs } }),
    root: h.ancestors[0] ?? h.id,
    ...(h.parent === null ? { isRoot: true } : {}),
    ...(h.ancestors.length === 0 ? {} : { ancestors: h.ancestors }),
    ...(h.parent === null
      ? {}
      : {
          parent: h.parent.executionId,
          place: placeOf(h.parent.node, h.parent.loops ?? h.parent.iterations ?? [], h.parent.attempt),
          item: h.parent.itemIndex ?? null,
        }),
    labels: Object.entries(h.labels).map(([k, v]) => ({ k, v })),
  };
  return { document, bigs: texts.bigs, startId: uniqueKey === null ? null : startIdOf(h.project, uniqueKey) };
}

/** A commit as one update of its header. */
export interface EncodedCommit {
  executionId: string;
  epoch: number;
  v: number;
  requestId: string | null;
  final: boolean;
  /** Of its first event; null: it has none. */
  firstSeq: number | null;
  set: Record<string, unknown>;
  unset: Record<string, ''>;
  /** Bytes that it adds to the header's events, outputs and tasks. */
  inline: number;
  bigs: BigText[];
  dropNodes: string[];
  consumedTriggers: string[];
  tasks: TaskDocument[];
  /** Fields of `gone`. */
  endedTasks: string[];
  creates: EncodedNew[];
}

export function encodeCommit(commit: Commit, serverTimeMs: number): EncodedCommit {
  const { executionId, header, v } = commit;
  const texts = new TextWriter(executionId);
  const set: Record<string, unknown> = { v };
  const unset: Record<string, ''> = {};
  let inline = 0;
  if (header.machine !== undefined) set['machine'] = texts.store(JSON.stringify(header.machine));
  if (header.status !== undefined) set['status'] = statusNumber(header.status);
  if (header.error !== undefined) {
    set['error'] = header.error === null ? null : JSON.stringify(header.error);
    set['errorWords'] = (header.error ?? '').toLowerCase();
  }
  if (header.errorCode !== undefined) set['errorCode'] = header.errorCode;
  if (header.startedAtMs !== undefined) set['started'] = header.startedAtMs;
  if (header.endedAtMs !== undefined) set['ended'] = header.endedAtMs;
  if (header.outputs !== undefined) {
    set['outputs'] = header.outputs === null ? null : texts.store(JSON.stringify(header.outputs));
  }
  if (commit.receipt !== null) set['receipt'] = texts.store(JSON.stringify({ ...commit.receipt, revision: v }));
  if (commit.final) set['epoch'] = commit.epoch + 1;

  const firstSeq = commit.events[0]?.seq ?? null;
  if (firstSeq !== null) {
    const body = encodeEvents(commit.events);
    const stored = texts.store(body);
    set[`events.${firstSeq}`] = stored;
    set['seq'] = firstSeq + commit.events.length - 1;
    inline += bytesOf(stored);
  }
  const dropped = new Set(commit.dropNodes);
  for (const node of commit.nodes) {
    if (!dropped.has(node.key)) set[nodePath(node.key)] = texts.store(encodeNode(node), NODE_INLINE_MAX);
  }
  for (const result of commit.results) {
    const attempt = attemptOf(result, executionId);
    const path = `results.${fieldOf(result.key)}.${v}/${fieldOf(attempt)}`;
    // Of one attempt the first counts.
    if (dropped.has(result.key) || path in set) continue;
    const output = JSON.stringify(result.output);
    const fits = inline < COMMIT_INLINE_MAX;
    const stored = texts.store(output, fits ? INLINE_MAX : 0);
    set[path] = stored;
    inline += bytesOf(stored) + result.key.length;
  }
  for (const key of dropped) {
    unset[nodePath(key)] = '';
    unset[`results.${fieldOf(key)}`] = '';
  }
  const ended = new Set(commit.endedTasks);
  const tasks = commit.tasks
    .filter(({ id }) => !ended.has(id))
    .map((row) => {
      if (!row.id.startsWith(`${executionId}/`)) {
        throw new FullstopError('FS_INTERNAL', `expected a task of ${executionId}, found ${row.id}`);
      }
      const task = encodeTask(row, texts, inline < COMMIT_INLINE_MAX ? TASK_INLINE_MAX : 0);
      inline += bytesOf(task.task);
      return task;
    });
  return {
    executionId,
    epoch: commit.epoch,
    v,
    requestId: commit.requestId,
    final: commit.final,
    firstSeq,
    set,
    unset,
    inline,
    bigs: texts.bigs,
    dropNodes: [...dropped],
    consumedTriggers: [...commit.consumedTriggers],
    tasks,
    endedTasks: [...ended].map(fieldOf),
    creates: commit.creates.map((each) => encodeNew(each, serverTimeMs)),
  };
}

/** About what a text costs in a header. */
export function bytesOf(stored: Stored): number {
  return ENTRY_BYTES + (typeof stored === 'string' ? stored.length : 0);
}

/** The attempt: what `id` has beyond execution and key. */
function attemptOf({ id, key }: { id: string; key: string }, executionId: string): string {
  const before = `${executionId}/${key}/`;
  if (!id.startsWith(before)) throw new FullstopError('FS_INTERNAL', `expected a result ${before}ATTEMPT, found ${id}`);
  return id.slice(before.length);
}

/**
 * By their number in `events`. Every byte of a header is written again with each commit, and sent to each member: what
 * is in it by the hundred is stored as short lists. New ones go to the end.
 */
const eventTypes: readonly EventRow['type'][] = [
  'execution.created',
  'execution.started',
  'execution.completed',
  'execution.failed',
  'stop.requested',
  'stop.delivered',
  'stop.halted',
  'node.held',
  'node.triggered',
  'node.started',
  'node.retrying',
  'node.completed',
  'node.failed',
  'node.skipped',
  'iteration.started',
  'task.queued',
  'task.claimed',
  'task.aborting',
  'task.aborted',
  'log',
];

/** Without the nulls at its end. */
type EventBody = [
  type: number,
  /** After the first of the list. */
  afterMs: number,
  node?: string | null,
  attempt?: number | null,
  iterations?: number[] | null,
  data?: Json,
];

/** @throws FS_INTERNAL when the numbers have a gap. */
function encodeEvents(events: EventRow[]): string {
  const [first] = events;
  const firstAtMs = first?.atMs ?? 0;
  const body: unknown[] = [firstAtMs];
  for (const [index, { seq, atMs, type, node, iterations, attempt, data }] of events.entries()) {
    const expected = (first?.seq ?? 0) + index;
    if (seq !== expected) throw new FullstopError('FS_INTERNAL', `expected event ${expected}, found ${seq}`);
    body.push(trimmed([eventTypes.indexOf(type), atMs - firstAtMs, node, attempt, iterations, data]));
  }
  return JSON.stringify(body);
}

export function decodeEvents(first: number, body: string): EventRow[] {
  const [firstAtMs, ...events] = JSON.parse(body) as [number, ...EventBody[]];
  return events.map(([type, afterMs, node = null, attempt = null, iterations = null, data = null], index) => ({
    seq: first + index,
    atMs: firstAtMs + afterMs,
    type: eventTypes[type] as EventRow['type'],
    node,
    iterations,
    attempt,
    data,
  }));
}

const nodeStatuses: readonly NodeRow['status'][] = ['Pending', 'Held', 'Running', 'Complete', 'Failed', 'Skipped'];
const places: readonly NodeRow['where'][] = ['engine', 'worker', 'agent'];

/** Without the nulls at its end. */
type NodeBody = [
  type: string,
  status: number,
  attempt: number,
  startedAtMs: number | null,
  /** Since its start, or the epoch without one. */
  endedAfterMs: number | null,
  /** Twice its place, and one more with an output. */
  flags: number,
  machine?: Json,
  data?: Json,
  error?: string | null,
  errorCode?: string | null,
  /** Where the key does not say it. */
  path?: string,
  iterations?: string[],
];

function encodeNode(node: NodeRow): string {
  const [path, iterations] = addressOf(node.key);
  const isTold = path === node.path && iterations.join() === node.iterations.join();
  const body: NodeBody = [
    node.type,
    nodeStatuses.indexOf(node.status),
    node.attempt,
    node.startedAtMs,
    node.endedAtMs === null ? null : node.endedAtMs - (node.startedAtMs ?? 0),
    2 * places.indexOf(node.where) + (node.hasOutput ? 1 : 0),
    node.machine,
    node.data,
    node.error,
    node.errorCode,
    ...(isTold ? ([] as const) : ([node.path, node.iterations] as const)),
  ];
  return JSON.stringify(trimmed(body));
}

function decodeNode(key: string, body: string): NodeRow {
  const [
    type,
    status,
    attempt,
    startedAtMs,
    endedAfterMs,
    flags,
    machine = null,
    data = null,
    error = null,
    errorCode = null,
    ...address
  ] = JSON.parse(body) as NodeBody;
  const [path, iterations] = address.length === 2 ? (address as [string, string[]]) : addressOf(key);
  return {
    key,
    path,
    iterations,
    type,
    status: nodeStatuses[status] as NodeRow['status'],
    error,
    errorCode,
    attempt,
    startedAtMs,
    endedAtMs: endedAfterMs === null ? null : endedAfterMs + (startedAtMs ?? 0),
    where: places[flags >> 1] as NodeRow['where'],
    hasOutput: (flags & 1) === 1,
    machine,
    data,
  };
}

function trimmed(list: readonly unknown[]): readonly unknown[] {
  let length = list.length;
  while (length > 0 && (list[length - 1] === null || list[length - 1] === undefined)) length -= 1;
  return length === list.length ? list : list.slice(0, length);
}

/** Path and iterations of `poll/check/3@1,0@1`. */
function addressOf(key: string): [path: string, iterations: string[]] {
  const slash = key.lastIndexOf('/');
  const last = key.slice(slash + 1);
  return [key.slice(0, Math.max(0, slash)), last === '-' ? [] : last.split(',')];
}

/** A header; of a list it comes without `input`, `outputs` and `machine`, which are null then. */
export function decodeHeader(document: HeaderFields & Partial<HeaderValues>, read: TextReader | null): HeaderRow {
  const facts = JSON.parse(document.facts) as Facts;
  const value = (stored: Stored | null | undefined): Json => {
    return read === null || stored === null || stored === undefined ? null : (JSON.parse(read(stored)) as Json);
  };
  return {
    id: document._id,
    project: document.project,
    workflow: { name: document.workflow, hash: facts.hash, version: facts.version },
    bodyPath: facts.bodyPath,
    labels: facts.labels,
    status: statusOf(document.status),
    error: document.error === null ? null : (JSON.parse(document.error) as string),
    errorCode: document.errorCode,
    input: value(document.input),
    outputs: value(document.outputs),
    parent: facts.parent,
    ancestors: facts.ancestors,
    startedByFailure: facts.startedByFailure,
    createdAtMs: document.created,
    startedAtMs: document.started,
    endedAtMs: document.ended,
    owner: { engine: document.engine, epoch: document.epoch },
    v: document.v,
    stop: document.stop === undefined ? null : { requestId: document.stop.id, requestedAtMs: document.stop.at },
    seq: document.seq,
    machine: value(document.machine),
  };
}

type HeaderFields = Pick<ExecutionDocument, keyof typeof HEADER_FIELDS>;
type HeaderValues = Pick<ExecutionDocument, keyof typeof VALUE_FIELDS>;
export type RecordFields = HeaderFields & HeaderValues & Pick<ExecutionDocument, 'nodes' | 'triggers'>;

/** What `decodeHeader` needs. */
export const HEADER_FIELDS = {
  _id: 1,
  project: 1,
  workflow: 1,
  facts: 1,
  status: 1,
  created: 1,
  started: 1,
  ended: 1,
  engine: 1,
  epoch: 1,
  v: 1,
  seq: 1,
  stop: 1,
  error: 1,
  errorCode: 1,
} as const;
export const VALUE_FIELDS = { input: 1, outputs: 1, machine: 1 } as const;
/** What `decodeRecoverable` needs. */
export const RECORD_FIELDS = { ...HEADER_FIELDS, ...VALUE_FIELDS, nodes: 1, triggers: 1 } as const;

export function valuesOf(document: HeaderValues): (Stored | null)[] {
  return [document.input, document.outputs, document.machine];
}

/** All of a record that may be kept apart. */
export function storedOfRecord(document: RecordFields): (Stored | null)[] {
  return [
    ...valuesOf(document),
    ...Object.values(document.nodes).flatMap((group) => Object.values(group)),
    ...document.triggers.map((trigger) => trigger.payload),
  ];
}

export function decodeRecoverable(document: RecordFields, read: TextReader): RecoverableExecution {
  const nodes = Object.values(document.nodes)
    .flatMap((group) => Object.entries(group))
    .map(([field, body]) => decodeNode(keyOf(field), read(body)));
  const triggers = document.triggers.map((trigger) => decodeTrigger(document._id, trigger, read));
  return {
    header: decodeHeader(document, read),
    nodes: nodes.sort((a, b) => compare(a.key, b.key)),
    triggers: triggers.sort((a, b) => a.atMs - b.atMs || compare(a.id, b.id)),
  };
}

export function decodeTrigger(executionId: string, trigger: TriggerDocument, read: TextReader): TriggerRow {
  const { id, name, payload, at } = trigger;
  return { id, executionId, name, payload: JSON.parse(read(payload)) as Json, atMs: at };
}

function encodeTask(
  { id, capability, task, queuedAtMs, claim, engine, report }: TaskRow,
  texts: TextWriter,
  inlineMax: number,
): TaskDocument {
  const document: TaskDocument = {
    id,
    capability,
    at: queuedAtMs,
    task: texts.store(JSON.stringify(task), inlineMax),
    owned: engine !== undefined,
  };
  if (claim === null) document.queued = capability;
  else document.claim = encodeClaim(claim);
  if (report !== undefined && report !== null) document.report = texts.store(JSON.stringify(report));
  return document;
}

export function encodeClaim({ worker, tokenHash, atMs, via }: TaskClaim): NonNullable<TaskDocument['claim']> {
  return { worker, tokenHash, at: atMs, ...(via === undefined ? {} : { via }) };
}

export function decodeClaim(claim: TaskDocument['claim']): TaskClaim | null {
  if (claim === undefined) return null;
  const { worker, tokenHash, at, via } = claim;
  return { worker, tokenHash, atMs: at, ...(via === undefined ? {} : { via }) };
}

export function decodeTask(task: TaskDocument, engine: string, read: TextReader): TaskRow {
  return {
    id: task.id,
    capability: task.capability,
    task: JSON.parse(read(task.task)) as TaskRow['task'],
    queuedAtMs: task.at,
    claim: decodeClaim(task.claim),
    ...(task.owned ? { engine } : {}),
    ...(task.report === undefined ? {} : { report: JSON.parse(read(task.report)) as WorkReport }),
  };
}

/** Those that have not ended; where one was queued again, the last. */
export function tasksOf({ tasks, gone }: Pick<ExecutionDocument, 'tasks' | 'gone'>): TaskDocument[] {
  const last = new Map<string, TaskDocument>();
  for (const task of tasks) {
    if (gone === undefined || !Object.hasOwn(gone, fieldOf(task.id))) last.set(task.id, task);
  }
  return [...last.values()];
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
