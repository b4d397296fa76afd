/**
 * What must hold of every execution, whatever happened to the processes that ran it: the invariants I1 to I8 as far
 * as a record and its events can show them. Each fault is one sentence; an empty list is a proof of nothing else.
 */
import { parseDurationMs } from '../../src/config.ts';
import { STOPPED_MESSAGE } from '../../src/errors.ts';
import type { ExecutionEvent, ExecutionRecord, NodeRecord } from '../../src/wire.ts';

export interface Seen {
  record: ExecutionRecord;
  /** All of them. */
  events: ExecutionEvent[];
}

/** The parts of a workflow file that timing is checked by. */
export interface CheckedNode {
  type: string;
  with?: { duration?: string | number; [key: string]: unknown };
  delay?: string | number;
  body?: Record<string, CheckedNode>;
  [key: string]: unknown;
}

const TERMINAL = ['execution.completed', 'execution.failed'];
const SETTLED = ['node.completed', 'node.failed', 'node.skipped'];
/** What a stop may still cause, and nothing else after it. */
const AFTER_STOP = [
  'stop.delivered',
  'stop.halted',
  'node.failed',
  'task.aborting',
  'task.aborted',
  'log',
  'execution.failed',
];

/**
 * Faults of one execution. One that has not ended is only checked for what holds all the time. `nodes` null: the clocks
 * that stamped its events differ, its timing cannot be told from them.
 */
export function faultsOf({ record, events }: Seen, nodes: Record<string, CheckedNode> | null = {}): string[] {
  const faults: string[] = [];
  const fault = (text: string): void => void faults.push(`${record.id} (${record.workflow.name}): ${text}`);
  events.forEach((event, index) => {
    if (event.seq !== index + 1) fault(`expected seq ${index + 1}, found ${event.seq} (I7)`);
  });
  if (events[0]?.type !== 'execution.created') fault(`begins with ${events[0]?.type}`);
  for (const type of [
    'execution.created',
    'execution.started',
    'stop.requested',
    'stop.delivered',
    'stop.halted',
  ] as const) {
    const found = events.filter((event) => event.type === type).length;
    if (found > 1) fault(`${found} events ${type}`);
  }
  checkEnd(record, events, fault);
  checkStop(record, events, fault);
  checkNodes(record, events, fault);
  if (nodes !== null) checkTiming(events, nodes, fault);
  return faults;
}

type Fault = (text: string) => void;

/** I1: one terminal event, the last, as the record says. */
function checkEnd(record: ExecutionRecord, events: ExecutionEvent[], fault: Fault): void {
  const ends = events.filter(({ type }) => TERMINAL.includes(type));
  if (ends.length > 1) fault(`${ends.length} terminal events (I1)`);
  if (record.endedAt === null) {
    if (record.status !== 'Pending' && record.status !== 'Running') fault(`${record.status} without an end (I1)`);
    return;
  }
  const last = events.at(-1);
  if (ends.length === 0) fault('ended without a terminal event (I1)');
  else if (last !== ends[0]) fault(`${last?.type} follows the terminal event (I1)`);
  const expected = record.status === 'Complete' ? 'execution.completed' : 'execution.failed';
  if (last?.type !== expected) fault(`is ${record.status}, but its last event is ${last?.type} (I1)`);
  if (record.seq !== last?.seq) fault(`its seq is ${record.seq}, its last event's ${last?.seq}`);
  if (record.status === 'Failed' && record.error === null) fault('Failed without an error');
  if (record.status === 'Complete' && (record.error !== null || record.stop !== null)) {
    fault(`Complete with ${record.stop === null ? `the error ${record.error}` : 'a stop (I2)'}`);
  }
}

/** I2 to I4: a stop and nothing else ends it, and nothing starts or is accepted after it. */
function checkStop(record: ExecutionRecord, events: ExecutionEvent[], fault: Fault): void {
  const at = events.findIndex(({ type }) => type === 'stop.requested');
  if (record.stop === null) {
    if (at >= 0) fault('has the event of a stop, and no stop (I2)');
    if (record.error === STOPPED_MESSAGE || record.errorCode === 'FS_STOPPED') fault('has the marker, and no stop');
    return;
  }
  if (!record.stoppedByUser) fault('has a stop, and is not stoppedByUser');
  if (record.endedAt !== null) {
    if (record.status !== 'Failed' || record.error !== STOPPED_MESSAGE)
      fault(`stopped, and ${record.status} with ${record.error} (I4)`);
    if (record.outputs !== null) fault('stopped, and has outputs');
    if (at < 0) fault('stopped without the event of it');
  }
  if (at < 0) return;
  const { requestId } = (events[at]?.data ?? {}) as { requestId?: string };
  if (requestId !== record.stop.requestId) fault(`stopped by ${record.stop.requestId}, its event says ${requestId}`);
  for (const event of events.slice(at + 1)) {
    if (!AFTER_STOP.includes(event.type))
      fault(`${event.type} of ${event.node} (seq ${event.seq}) follows the stop (seq ${at + 1}) (I3)`);
  }
}

/** I5 and I8: attempts count up, a node ends once, and the record shows what the events tell. */
function checkNodes(record: ExecutionRecord, events: ExecutionEvent[], fault: Fault): void {
  const lives = new Map<string, Life>();
  const prefix = itemPrefix(record);
  for (const [key, event] of placed(events)) {
    const life = livesOf(lives, key, event.type) ?? { attempt: 0, settled: null, held: false, aborting: false };
    if (!lives.has(key)) lives.set(key, life);
    if (life.settled !== null && event.type !== 'task.aborted')
      fault(`${event.type} of ${key} follows its ${life.settled} (I5)`);
    if (event.type === 'task.aborting') life.aborting = true;
    if (event.type === 'node.started') {
      if (event.attempt !== life.attempt + 1)
        fault(`attempt ${event.attempt} of ${key} follows attempt ${life.attempt} (I8)`);
      life.attempt = event.attempt ?? 0;
    }
    if (event.type === 'node.held') life.held = true;
    if (SETTLED.includes(event.type)) life.settled = event.type;
  }
  if (record.endedAt === null) return;
  for (const [name, node] of Object.entries(record.nodes)) {
    const key = prefix + name;
    const life = lives.get(key);
    const expected = statusOf(life);
    if (node.status !== expected) fault(`${key} is ${node.status} in the record, ${expected} by its events`);
    checkStopped(record, key, node, fault);
  }
}

interface Life {
  attempt: number;
  settled: string | null;
  held: boolean;
  /** Its task was told to end. */
  aborting: boolean;
}

/**
 * Whose event it is: mostly the youngest's. A loop that timed out around another loop may have begun its next attempt
 * while tasks of the last are still being aborted, and events do not name the attempt of the loops around them.
 */
function livesOf(lives: Map<string, Life>, key: string, type: string): Life | undefined {
  if (type !== 'node.failed' && type !== 'task.aborted') return lives.get(key);
  const place = key.replaceAll(/@\d+/g, '');
  for (const [other, life] of lives)
    if (life.aborting && life.settled === null && other.replaceAll(/@\d+/g, '') === place) return life;
  return lives.get(key);
}

function statusOf(life: Life | undefined): string {
  switch (life?.settled) {
    case 'node.completed':
      return 'Complete';
    case 'node.failed':
      return 'Failed';
    case 'node.skipped':
      return 'Skipped';
    default:
      return life === undefined ? 'Pending' : life.held ? 'Held' : 'Running';
  }
}

/** Section 2's table, as far as the end shows it, in bodies too. */
function checkStopped(record: ExecutionRecord, key: string, node: NodeRecord, fault: Fault): void {
  if (node.status === 'Running') fault(`${key} runs in an execution that ended (I4)`);
  if (node.status === 'Complete' && node.error !== null) fault(`${key} is Complete with ${node.error}`);
  if (node.status === 'Failed' && node.error === null) fault(`${key} is Failed without an error`);
  if (record.stop === null && node.errorCode === 'FS_STOPPED')
    fault(`${key} has the marker in an execution without a stop`);
  for (const [name, inner] of Object.entries(node.iteration?.nodes ?? {}))
    checkStopped(record, `${key}/${name}`, inner, fault);
}

/** I8: delays, backoffs and pauses end once and not early; iterations follow one another. */
function checkTiming(events: ExecutionEvent[], nodes: Record<string, CheckedNode>, fault: Fault): void {
  const startedAtMs = new Map<string, number>();
  const wakeAtMs = new Map<string, number>();
  const iteration = new Map<string, number>();
  /** Of the body: the last end of one of its nodes. */
  const bodyEndedAtMs = new Map<string, number>();
  for (const [key, event] of placed(events)) {
    const atMs = Date.parse(event.at);
    const node = nodeAt(nodes, event.node ?? '');
    switch (event.type) {
      case 'node.started': {
        const wake = wakeAtMs.get(key);
        if (wake !== undefined && atMs < wake)
          fault(`attempt ${event.attempt} of ${key} began ${wake - atMs} ms before its backoff was over (I8)`);
        wakeAtMs.delete(key);
        // Its instant was set before its start was stamped, and after the event before that; a delay's by its first try.
        if (node?.type !== 'delay' || event.attempt === 1)
          startedAtMs.set(key, Date.parse(events[event.seq - 2]?.at ?? event.at));
        iteration.delete(key);
        break;
      }
      case 'node.retrying': {
        const data = (event.data ?? {}) as { wakeAtMs?: number };
        if (typeof data.wakeAtMs === 'number') wakeAtMs.set(key, data.wakeAtMs);
        break;
      }
      case 'iteration.started': {
        const { index } = (event.data ?? {}) as { index?: number };
        const expected = (iteration.get(key) ?? -1) + 1;
        if (index !== expected) fault(`iteration ${index} of ${key} follows ${expected - 1} (I8)`);
        iteration.set(key, expected);
        const pauseMs = node?.delay === undefined ? 0 : (parseDurationMs(String(node.delay)) ?? 0);
        const endedAtMs = bodyEndedAtMs.get(key);
        if (expected > 0 && endedAtMs !== undefined && atMs < endedAtMs + pauseMs) {
          fault(`iteration ${index} of ${key} began ${endedAtMs + pauseMs - atMs} ms early (I8)`);
        }
        break;
      }
      case 'node.completed': {
        const duration = node?.type === 'delay' ? node.with?.duration : undefined;
        const sinceMs = atMs - (startedAtMs.get(key) ?? atMs);
        const wantedMs = duration === undefined ? undefined : parseDurationMs(String(duration));
        if (wantedMs !== undefined && sinceMs < wantedMs) fault(`${key} waited ${sinceMs} ms of ${wantedMs} (I8)`);
        break;
      }
      default:
        break;
    }
    if (SETTLED.includes(event.type)) {
      const loop = key.slice(0, Math.max(0, key.lastIndexOf('/'))).replace(/#\d+@\d+$/, '');
      bodyEndedAtMs.set(loop, Math.max(atMs, bodyEndedAtMs.get(loop) ?? 0));
    }
  }
}

/** Events of nodes by where they belong: the path with each enclosing loop's iteration and attempt. */
function* placed(events: ExecutionEvent[]): Generator<[string, ExecutionEvent]> {
  const attempts = new Map<string, number>();
  for (const event of events) {
    if (event.node === undefined) continue;
    const parts = event.node.split('/');
    const iterations = event.iterations ?? [];
    // Of an item of a foreach the outer parts of the path are not loops of this execution.
    const outer = parts.length - 1 - iterations.length;
    let key = parts.slice(0, outer + 1).join('/');
    for (const [depth, index] of iterations.entries()) {
      key += `#${index}@${attempts.get(key) ?? 0}/${parts[outer + 1 + depth]}`;
    }
    if (event.type === 'node.started') attempts.set(key, event.attempt ?? 0);
    yield [key, event];
  }
}

/** What paths of an item's nodes begin with: the node whose body it is. */
function itemPrefix(record: ExecutionRecord): string {
  return record.parent?.itemIndex === undefined ? '' : `${record.parent.node}/`;
}

function nodeAt(nodes: Record<string, CheckedNode>, path: string): CheckedNode | undefined {
  let found: CheckedNode | undefined;
  let level: Record<string, CheckedNode> | undefined = nodes;
  for (const name of path.split('/')) {
    found = level?.[name];
    level = found?.body;
  }
  return found;
}

/** Faults between executions: children are one for each place, end with their parent, and under its stop. */
export function familyFaults(all: Seen[], endedBefore = endedBeforeStop): string[] {
  const faults: string[] = [];
  const byId = new Map(all.map((seen) => [seen.record.id, seen]));
  const places = new Map<string, string>();
  for (const { record } of all) {
    const { parent } = record;
    if (parent === null) continue;
    const place = JSON.stringify([
      parent.executionId,
      parent.node,
      parent.iterations ?? [],
      parent.attempt,
      parent.itemIndex ?? null,
    ]);
    const other = places.get(place);
    // A loop's next attempt has iterations of the same index.
    if (other !== undefined && (parent.iterations ?? []).length === 0)
      faults.push(`${record.id} and ${other} are the same child ${place} (I5)`);
    places.set(place, record.id);
    const above = byId.get(parent.executionId)?.record;
    if (above === undefined) {
      faults.push(`${record.id} has a parent that nobody knows: ${parent.executionId}`);
      continue;
    }
    if (above.endedAt !== null && record.endedAt === null)
      faults.push(`${record.id} lives, its parent ${above.id} has ended`);
    if (
      above.stop !== null &&
      record.stop?.requestId !== above.stop.requestId &&
      !endedBefore(record, above.stop.requestedAt)
    ) {
      faults.push(`${record.id} did not stop with its parent ${above.id}: ${record.status}, ${record.error}`);
    }
  }
  return faults;
}

/** Its end was under way when the parent's stop was stored. */
function endedBeforeStop(record: ExecutionRecord, at: string): boolean {
  const slackMs = 2_000;
  if (record.stop !== null) return Date.parse(record.stop.requestedAt) <= Date.parse(at) + slackMs;
  return record.endedAt !== null && Date.parse(record.endedAt) <= Date.parse(at) + slackMs;
}

/** What was seen once stays: an ended record never changes, and events are only added. */
export function changeFaults(earlier: Seen, later: Seen): string[] {
  const faults: string[] = [];
  const { id } = earlier.record;
  if (earlier.record.endedAt !== null && JSON.stringify(earlier.record) !== JSON.stringify(later.record)) {
    faults.push(
      `${id} changed after its end: ${JSON.stringify(earlier.record)} became ${JSON.stringify(later.record)} (I1)`,
    );
  }
  if (earlier.record.stop !== null && later.record.stop?.requestId !== earlier.record.stop.requestId)
    faults.push(`${id} lost its stop (I4)`);
  earlier.events.forEach((event, index) => {
    if (JSON.stringify(later.events[index]) !== JSON.stringify(event)) {
      faults.push(
        `${id}: event ${index + 1} was ${JSON.stringify(event)}, is ${JSON.stringify(later.events[index])} (I7)`,
      );
    }
  });
  return faults;
}
