/**
 * How rows of the port look in the database and between the threads.
 *
 * The main thread turns values into JSON text and back; the threads move text only. Nodes and events are
 * JSON lists in the order of the functions below: half the bytes of an object, and a fifth less time.
 */
import { FullstopError } from '../../errors.ts';
import type {
  Commit,
  DefinitionRow,
  EventRow,
  HeaderRow,
  LoopPlace,
  NewExecution,
  NodeRow,
  RecoverableExecution,
  ResultRow,
  StoredExecution,
  TriggerRow,
} from '../../ports/store.ts';
import type { TaskRow } from '../../ports/task-queue.ts';
import type { ExecutionStatus, Json } from '../../wire.ts';

/** By their number in the `status` column. */
export const executionStatuses: readonly ExecutionStatus[] = ['Pending', 'Running', 'Complete', 'Failed'];

export function statusNumber(status: ExecutionStatus): number {
  return executionStatuses.indexOf(status);
}

export function statusOf(number: number): ExecutionStatus {
  const status = executionStatuses[number];
  if (status === undefined) throw new FullstopError('FS_INTERNAL', `expected a status from 0 to 3, found ${number}`);
  return status;
}

/** What never changes about an execution and no query needs as a column. */
type Facts = Pick<HeaderRow, 'bodyPath' | 'labels' | 'parent' | 'ancestors' | 'startedByFailure'> & {
  hash: string;
  version: number;
};

/** The columns of `decodeHeader`, in its order; of `executions` alone. */
export const HEADER_COLUMNS =
  'id, project, workflow, status, created_at, started_at, ended_at, engine, epoch, v, seq, ' +
  'stop_request, stop_at, error, error_code, facts';

export type HeaderColumns = [
  id: string,
  project: string,
  workflow: string,
  status: number,
  createdAt: number,
  startedAt: number | null,
  endedAt: number | null,
  engine: string,
  epoch: number,
  v: number,
  seq: number,
  stopRequest: string | null,
  stopAt: number | null,
  error: string | null,
  errorCode: string | null,
  facts: string,
];

/** The parts of a header that may be big, as JSON text. */
export interface HeaderValues {
  input: string;
  outputs: string | null;
  machine: string;
}

export interface EncodedExecution {
  header: HeaderColumns;
  values: HeaderValues;
  nodes: [key: string, body: string][];
}

export interface EncodedRecoverable extends EncodedExecution {
  triggers: [id: string, name: string, payload: string, at: number][];
}

export interface EncodedNewExecution {
  header: HeaderColumns;
  values: HeaderValues;
  parent: [id: string, place: string, item: number | null] | null;
  events: EncodedEvents | null;
  uniqueKey: string | null;
  bodyHash: string | null;
}

/** `body` holds the events `first` to `last`. */
export type EncodedEvents = [first: number, last: number, body: string];

/** A thread's word for `{kind: 'committed'}`, which would cost a copy each. */
export const COMMITTED = 0;

/** A commit as the store thread takes it: a flat list, because keys cost the main thread time. */
export type EncodedCommit = [
  executionId: string,
  epoch: number,
  v: number,
  requestId: string | null,
  final: boolean,
  machine: string | null,
  /** Column names and values in turn; null: none beside the machine. */
  changes: (string | number | null)[] | null,
  events: EncodedEvents | null,
  /** Key and body in turn. */
  nodes: string[],
  /** Key, attempt and output in turn. */
  results: string[],
  dropNodes: string[] | null,
  consumedTriggers: string[] | null,
  receipt: string | null,
  creates: EncodedNewExecution[] | null,
  tasks: EncodedTask[] | null,
  endedTasks: string[] | null,
];

/** `body`: capability and task. */
export type EncodedTask = [id: string, queuedAtMs: number, body: string];

/** As listed: with worker, hash of the token, and time of the claim. */
export type EncodedTaskRow = [
  ...EncodedTask,
  worker: string | null,
  tokenHash: string | null,
  claimedAtMs: number | null,
];

/** The columns of `decodeDefinition`, in its order. */
export const DEFINITION_COLUMNS = 'project, name, hash, version, saved_at, disabled, source';

export type EncodedDefinition = [
  project: string,
  name: string,
  hash: string,
  version: number,
  savedAt: number,
  disabled: number,
  source: string,
];

/** The place of children in their parent: one attempt of one node. */
export function placeOf(node: string, loops: readonly LoopPlace[], attempt: number): string {
  return JSON.stringify([node, loops, attempt]);
}

export function encodeNew({ header: h, events, uniqueKey, bodyHash }: NewExecution): EncodedNewExecution {
  const facts: Facts = {
    hash: h.workflow.hash,
    version: h.workflow.version,
    bodyPath: h.bodyPath,
    labels: h.labels,
    parent: h.parent,
    ancestors: h.ancestors,
    startedByFailure: h.startedByFailure,
  };
  return {
    header: [
      h.id,
      h.project,
      h.workflow.name,
      statusNumber(h.status),
      h.createdAtMs,
      h.startedAtMs,
      h.endedAtMs,
      h.owner.engine,
      h.owner.epoch,
      h.v,
      h.seq,
      h.stop?.requestId ?? null,
      h.stop?.requestedAtMs ?? null,
      h.error,
      h.errorCode,
      JSON.stringify(facts),
    ],
    values: {
      input: JSON.stringify(h.input),
      outputs: h.outputs === null ? null : JSON.stringify(h.outputs),
      machine: JSON.stringify(h.machine),
    },
    parent:
      h.parent === null
        ? null
        : [
            h.parent.executionId,
            placeOf(h.parent.node, h.parent.loops ?? h.parent.iterations ?? [], h.parent.attempt),
            h.parent.itemIndex ?? null,
          ],
    events: encodeEvents(events),
    uniqueKey,
    bodyHash,
  };
}

export function encodeCommit(commit: Commit): EncodedCommit {
  const { executionId, header, results } = commit;
  const nodes: string[] = [];
  for (const node of commit.nodes) nodes.push(node.key, encodeNode(node));
  const outputs: string[] = [];
  for (const result of results) outputs.push(result.key, attemptOf(result, executionId), JSON.stringify(result.output));
  return [
    executionId,
    commit.epoch,
    commit.v,
    commit.requestId,
    commit.final,
    header.machine === undefined ? null : JSON.stringify(header.machine),
    encodeChanges(header),
    encodeEvents(commit.events),
    nodes,
    outputs,
    commit.dropNodes.length > 0 ? commit.dropNodes : null,
    commit.consumedTriggers.length > 0 ? commit.consumedTriggers : null,
    commit.receipt === null ? null : JSON.stringify({ ...commit.receipt, revision: commit.v }),
    commit.creates.length > 0 ? commit.creates.map(encodeNew) : null,
    commit.tasks.length > 0 ? commit.tasks.map(encodeTask) : null,
    commit.endedTasks.length > 0 ? commit.endedTasks : null,
  ];
}

function encodeTask({ id, queuedAtMs, capability, task }: TaskRow): EncodedTask {
  return [id, queuedAtMs, JSON.stringify({ capability, task })];
}

export function decodeTask([id, queuedAtMs, body, worker, tokenHash, claimedAtMs]: EncodedTaskRow): TaskRow {
  const { capability, task } = JSON.parse(body) as Pick<TaskRow, 'capability' | 'task'>;
  const claim = worker === null ? null : { worker, tokenHash: tokenHash ?? '', atMs: claimedAtMs ?? 0 };
  return { id, capability, task, queuedAtMs, claim };
}

/** Characters of its outputs: of all parts these may be big. */
export function sizeOf([, , , , , , changes, , , results]: EncodedCommit): number {
  let size = 0;
  for (const text of results) size += text.length;
  if (changes?.at(-2) === 'outputs') size += String(changes.at(-1)).length;
  return size;
}

function encodeChanges(header: Commit['header']): (string | number | null)[] | null {
  const changes: (string | number | null)[] = [];
  if (header.status !== undefined) changes.push('status', statusNumber(header.status));
  if (header.error !== undefined) changes.push('error', header.error);
  if (header.errorCode !== undefined) changes.push('error_code', header.errorCode);
  if (header.startedAtMs !== undefined) changes.push('started_at', header.startedAtMs);
  if (header.endedAtMs !== undefined) changes.push('ended_at', header.endedAtMs);
  if (header.outputs !== undefined) {
    changes.push('outputs', header.outputs === null ? null : JSON.stringify(header.outputs));
  }
  return changes.length > 0 ? changes : null;
}

/** The attempt: what `id` has beyond execution and key. */
function attemptOf({ id, key }: ResultRow, executionId: string): string {
  const before = `${executionId}/${key}/`;
  if (!id.startsWith(before)) throw new FullstopError('FS_INTERNAL', `expected a result ${before}ATTEMPT, found ${id}`);
  return id.slice(before.length);
}

/** @throws FS_INTERNAL when the numbers have a gap. */
export function encodeEvents(events: EventRow[]): EncodedEvents | null {
  const first = events[0]?.seq;
  if (first === undefined) return null;
  const body: unknown[] = [];
  for (const { seq, atMs, type, node, iterations, attempt, data } of events) {
    if (seq !== first + body.length) {
      throw new FullstopError('FS_INTERNAL', `expected event ${first + body.length}, found ${seq}`);
    }
    body.push([atMs, type, node, iterations, attempt, data]);
  }
  return [first, first + body.length - 1, JSON.stringify(body)];
}

export function decodeEvents(first: number, body: string): EventRow[] {
  const events = JSON.parse(body) as [number, EventRow['type'], string | null, number[] | null, number | null, Json][];
  return events.map(([atMs, type, node, iterations, attempt, data], index) => {
    return { seq: first + index, atMs, type, node, iterations, attempt, data };
  });
}

function encodeNode(node: NodeRow): string {
  return JSON.stringify([
    node.path,
    node.iterations,
    node.type,
    node.status,
    node.error,
    node.errorCode,
    node.attempt,
    node.startedAtMs,
    node.endedAtMs,
    node.where,
    node.hasOutput,
    node.machine,
    node.data,
  ]);
}

function decodeNode(key: string, body: string): NodeRow {
  const [
    path,
    iterations,
    type,
    status,
    error,
    errorCode,
    attempt,
    startedAtMs,
    endedAtMs,
    where,
    hasOutput,
    machine,
    data,
  ] = JSON.parse(body) as [
    string,
    string[],
    string,
    NodeRow['status'],
    string | null,
    string | null,
    number,
    number | null,
    number | null,
    NodeRow['where'],
    boolean,
    Json,
    Json,
  ];
  return {
    key,
    path,
    iterations,
    type,
    status,
    error,
    errorCode,
    attempt,
    startedAtMs,
    endedAtMs,
    where,
    hasOutput,
    machine,
    data,
  };
}

/** A header; without `values` (in a list) its input, outputs and machine are null. */
export function decodeHeader(columns: HeaderColumns, values?: HeaderValues): HeaderRow {
  const facts = JSON.parse(columns[15]) as Facts;
  return {
    id: columns[0],
    project: columns[1],
    workflow: { name: columns[2], hash: facts.hash, version: facts.version },
    bodyPath: facts.bodyPath,
    labels: facts.labels,
    status: statusOf(columns[3]),
    error: columns[13],
    errorCode: columns[14],
    input: values === undefined ? null : (JSON.parse(values.input) as Json),
    outputs: values === undefined || values.outputs === null ? null : (JSON.parse(values.outputs) as Json),
    parent: facts.parent,
    ancestors: facts.ancestors,
    startedByFailure: facts.startedByFailure,
    createdAtMs: columns[4],
    startedAtMs: columns[5],
    endedAtMs: columns[6],
    owner: { engine: columns[7], epoch: columns[8] },
    v: columns[9],
    stop: columns[11] === null ? null : { requestId: columns[11], requestedAtMs: columns[12] ?? 0 },
    seq: columns[10],
    machine: values === undefined ? null : (JSON.parse(values.machine) as Json),
  };
}

export function decodeExecution({ header, values, nodes }: EncodedExecution): StoredExecution {
  return { header: decodeHeader(header, values), nodes: nodes.map(([key, body]) => decodeNode(key, body)) };
}

export function decodeRecoverable(stored: EncodedRecoverable): RecoverableExecution {
  const executionId = stored.header[0];
  const triggers = stored.triggers.map(([id, name, payload, atMs]): TriggerRow => {
    return { id, executionId, name, payload: JSON.parse(payload) as Json, atMs };
  });
  return { ...decodeExecution(stored), triggers };
}

export function decodeDefinition(columns: EncodedDefinition): DefinitionRow {
  const [project, name, hash, version, savedAtMs, disabled, source] = columns;
  return { project, name, hash, version, source: JSON.parse(source) as Json, savedAtMs, disabled: disabled === 1 };
}
