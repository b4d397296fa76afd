/** Rows of the store's port, with the parts a test does not care about filled in. */
import type { Commit, EventRow, HeaderRow, NewExecution, NodeRow, ResultRow } from '../../src/ports/store.ts';
import type { AuditItem, Json, StopReceipt } from '../../src/wire.ts';

/** Milliseconds of the first instant of these tests. */
export const T0 = 1_700_000_000_000;

/** `id('a')` to `id('z')`, in order of creation. */
export function id(letter: string): string {
  return `01990000-0000-7000-8000-00000000000${letter}`;
}

export function header(given: Partial<HeaderRow> & { id: string }): HeaderRow {
  const owner = { engine: 'engine-1', epoch: 1 };
  return {
    project: 'default',
    workflow: { name: 'perimeter-scan', hash: 'abc', version: 1 },
    bodyPath: null,
    labels: {},
    status: 'Running',
    error: null,
    errorCode: null,
    input: { target: 'example.org' },
    outputs: null,
    parent: null,
    ancestors: [],
    startedByFailure: false,
    createdAtMs: T0,
    startedAtMs: null,
    endedAtMs: null,
    owner,
    v: 0,
    stop: null,
    seq: 1,
    machine: null,
    ...given,
  };
}

export function newExecution(
  given: Partial<HeaderRow> & { id: string },
  more: Partial<Omit<NewExecution, 'header'>> = {},
): NewExecution {
  return { header: header(given), events: [event(1, 'execution.created')], uniqueKey: null, bodyHash: null, ...more };
}

/** A child of one attempt of a node of `parent`. */
export function child(childId: string, parentId: string, given: Partial<HeaderRow> = {}): NewExecution {
  const parent = { executionId: parentId, node: 'each', attempt: 1, itemIndex: 0 };
  return newExecution({ id: childId, parent, ancestors: [parentId], ...given });
}

export function node(key: string, given: Partial<NodeRow> = {}): NodeRow {
  return {
    key,
    path: key.slice(0, key.lastIndexOf('/')),
    iterations: [],
    type: 'http',
    status: 'Running',
    error: null,
    errorCode: null,
    attempt: 1,
    startedAtMs: T0 + 1,
    endedAtMs: null,
    where: 'worker',
    hasOutput: false,
    machine: { value: 'running' },
    data: null,
    ...given,
  };
}

export function event(seq: number, type: EventRow['type'] = 'log', given: Partial<EventRow> = {}): EventRow {
  return { seq, atMs: T0 + seq, type, node: null, iterations: null, attempt: null, data: null, ...given };
}

export function result(executionId: string, key: string, output: Json, attempt = 1): ResultRow {
  return { id: `${executionId}/${key}/${attempt}`, key, output };
}

export function commit(executionId: string, given: Partial<Commit> = {}): Commit {
  return {
    executionId,
    epoch: 1,
    v: 1,
    requestId: null,
    header: {},
    nodes: [],
    dropNodes: [],
    events: [],
    results: [],
    consumedTriggers: [],
    receipt: null,
    creates: [],
    tasks: [],
    endedTasks: [],
    final: false,
    ...given,
  };
}

/** The terminal commit; `seq` is its event's number. */
export function finalCommit(executionId: string, given: Partial<Commit> = {}, seq = 2): Commit {
  return commit(executionId, {
    header: { status: 'Complete', endedAtMs: T0 + 1000, outputs: { done: true } },
    events: [event(seq, 'execution.completed')],
    final: true,
    ...given,
  });
}

export function receipt(executionId: string, given: Partial<StopReceipt> = {}): StopReceipt {
  return {
    executionId,
    requestId: 'stop-1',
    requestedAt: '2026-01-01T00:00:00.000Z',
    delivery: { path: 'local', ms: 1 },
    haltedMs: 2,
    finalisedMs: 3,
    finalisedAt: '2026-01-01T00:00:00.003Z',
    tasks: [],
    lateResultsDiscarded: 0,
    unconfirmed: 0,
    children: [],
    ...given,
  };
}

export function audit(auditId: string, given: Partial<AuditItem> = {}): AuditItem {
  return {
    id: auditId,
    at: '2026-01-01T00:00:00.000Z',
    actor: { keyId: 'k1', name: 'ada', role: 'admin' },
    verb: 'execution.stop',
    project: 'default',
    target: 'x',
    outcome: null,
    ...given,
  };
}
