/** What people see of an execution, made from what is stored of it. Pure functions. */
import type { CompiledNode, CompiledWorkflow, Graph } from '../definition/types.ts';
import type { EventRow, HeaderRow, NodeRow, ParentRow, ResultRow, StoredExecution } from '../ports/store.ts';
import type {
  ExecutionEvent,
  ExecutionItem,
  ExecutionRecord,
  Json,
  NodeAddress,
  NodeRecord,
  ParentRef,
  Results,
  StopPreview,
  StopReceipt,
} from '../wire.ts';
import { attemptId, iterationIndexes, nodeKey } from './identity.ts';

export function itemOf(header: HeaderRow): ExecutionItem {
  return {
    id: header.id,
    project: header.project,
    workflow: header.workflow,
    labels: header.labels,
    status: header.status,
    error: header.error,
    errorCode: header.errorCode,
    parent: header.parent === null ? null : refOf(header.parent),
    createdAt: isoOf(header.createdAtMs),
    startedAt: isoOrNull(header.startedAtMs),
    endedAt: isoOrNull(header.endedAtMs),
    stop: header.stop && { requestId: header.stop.requestId, requestedAt: isoOf(header.stop.requestedAtMs) },
    stoppedByUser: header.stop !== null,
    seq: header.seq,
  };
}

/** As everybody may read it: by iterations, whatever their attempts. */
function refOf({ loops: _, ...parent }: ParentRow): ParentRef {
  return parent;
}

/**
 * The whole record. A node without a row is Pending, as its definition lists it.
 *
 * Without the workflow only nodes with a row are known. `nowMs` measures how long a stop has waited.
 */
export function recordOf(
  stored: StoredExecution,
  workflow: CompiledWorkflow | null,
  receipt: StopReceipt | null,
  nowMs: number,
): ExecutionRecord {
  const { header } = stored;
  const record: ExecutionRecord = {
    ...itemOf(header),
    input: header.input,
    outputs: header.outputs,
    nodes: nodesOf(rowsByKey(stored.nodes), graphOf(header, workflow), graphPathOf(header), []),
  };
  if (header.stop !== null && isLive(header)) record.waitingFor = waitingFor(stored, receipt, nowMs);
  return record;
}

/** One event, without the keys that are null. On the hot path of a followed execution. */
export function eventOf(row: EventRow): ExecutionEvent {
  const event: ExecutionEvent = { seq: row.seq, at: isoOf(row.atMs), type: row.type };
  if (row.node !== null) event.node = row.node;
  if (row.iterations !== null && row.iterations.length > 0) event.iterations = row.iterations;
  if (row.attempt !== null) event.attempt = row.attempt;
  if (row.data !== null) event.data = row.data;
  return event;
}

/** What a stop would do at `nowMs`. `children` is left empty: children have records of their own. */
export function previewOf(stored: StoredExecution, workflow: CompiledWorkflow | null, nowMs: number): StopPreview {
  const preview: StopPreview = {
    executionId: stored.header.id,
    willAbort: [],
    cannotCancel: [],
    kept: { Complete: 0, Failed: 0, Skipped: 0 },
    stayPending: [],
    stayHeld: [],
    children: [],
  };
  for (const row of stored.nodes) {
    const address = addressOf(row.path, row.iterations);
    switch (row.status) {
      case 'Running': {
        const runningForMs = Math.max(0, nowMs - (row.startedAtMs ?? nowMs));
        const agent = agentOf(row);
        if (agent !== null) preview.cannotCancel.push({ ...address, agent, runningForMs });
        else {
          const { type, where } = row;
          const queued = isQueued(row) ? { queued: true as const } : {};
          preview.willAbort.push({ ...address, type, where, runningForMs, ...queued });
        }
        break;
      }
      case 'Held':
        preview.stayHeld.push(address);
        break;
      case 'Complete':
      case 'Failed':
      case 'Skipped':
        preview.kept[row.status] += 1;
        break;
      case 'Pending':
        break;
    }
  }
  const graph = graphOf(stored.header, workflow);
  if (graph !== null) collectPending(rowsByKey(stored.nodes), graph, [], preview.stayPending);
  return preview;
}

/** Outputs of the execution and of its nodes; a node that has none yet, or never will, has null. */
export function resultsOf(stored: StoredExecution, workflow: CompiledWorkflow | null, results: ResultRow[]): Results {
  const { header } = stored;
  const outputs = new Map(results.map((result) => [result.id, result.output]));
  const nodes: Results['nodes'] = {};
  const records = nodesOf(rowsByKey(stored.nodes), graphOf(header, workflow), graphPathOf(header), []);
  for (const [name, node] of Object.entries(records)) {
    const key = nodeKey(joinPath(graphPathOf(header), name), []);
    const output = outputs.get(attemptId(header.id, key, node.attempt)) ?? null;
    nodes[name] = { status: node.status, output, error: node.error };
  }
  return {
    executionId: header.id,
    workflow: header.workflow,
    status: header.status,
    error: header.error,
    outputs: header.outputs,
    nodes,
  };
}

export function isLive(header: HeaderRow): boolean {
  return header.status === 'Pending' || header.status === 'Running';
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : isoOf(ms);
}

function graphPathOf(header: HeaderRow): string {
  return header.bodyPath ?? '';
}

/** The graph this execution runs: the workflow's, or the body of the node at `bodyPath`. */
function graphOf(header: HeaderRow, workflow: CompiledWorkflow | null): Graph | null {
  let graph: Graph | null = workflow?.graph ?? null;
  if (header.bodyPath === null) return graph;
  for (const name of header.bodyPath.split('/')) graph = graph?.byName.get(name)?.body ?? null;
  return graph;
}

type Rows = Map<string, NodeRow>;

function rowsByKey(rows: NodeRow[]): Rows {
  return new Map(rows.map((row) => [row.key, row]));
}

function joinPath(outer: string, name: string): string {
  return outer === '' ? name : `${outer}/${name}`;
}

function addressOf(path: string, iterations: string[]): NodeAddress {
  return iterations.length === 0 ? { node: path } : { node: path, iterations: iterationIndexes(iterations) };
}

/** Records of one graph's nodes by name, in the file's order. */
function nodesOf(rows: Rows, graph: Graph | null, graphPath: string, iterations: string[]): Record<string, NodeRecord> {
  const nodes: Record<string, NodeRecord> = {};
  if (graph !== null) {
    for (const node of graph.nodes) {
      const row = rows.get(nodeKey(node.path, iterations));
      nodes[node.name] = row === undefined ? pendingNode(node) : nodeOf(rows, row, node.body);
    }
    return nodes;
  }
  for (const row of rows.values()) {
    const cut = row.path.lastIndexOf('/');
    if (row.path.slice(0, Math.max(0, cut)) !== graphPath) continue;
    if (row.iterations.join('/') !== iterations.join('/')) continue;
    nodes[row.path.slice(cut + 1)] = nodeOf(rows, row, null);
  }
  return nodes;
}

function nodeOf(rows: Rows, row: NodeRow, body: Graph | null): NodeRecord {
  const node: NodeRecord = {
    type: row.type,
    status: row.status,
    error: row.error,
    errorCode: row.errorCode,
    attempt: row.attempt,
    startedAt: isoOrNull(row.startedAtMs),
    endedAt: isoOrNull(row.endedAtMs),
    hasOutput: row.hasOutput,
    where: row.where,
  };
  const iteration = iterationOf(row);
  if (iteration !== null) {
    const nodes = nodesOf(rows, body, row.path, [...row.iterations, iteration]);
    node.iteration = { index: dataOf(row).index as number, nodes };
  }
  const children = dataOf(row).children;
  if (children !== undefined) node.children = children as unknown as NonNullable<NodeRecord['children']>;
  return node;
}

function pendingNode(node: CompiledNode): NodeRecord {
  return {
    type: node.type.type,
    status: 'Pending',
    error: null,
    errorCode: null,
    attempt: 0,
    startedAt: null,
    endedAt: null,
    hasOutput: false,
    where: node.type.where,
  };
}

function dataOf(row: NodeRow): Record<string, Json> {
  return typeof row.data === 'object' && row.data !== null && !Array.isArray(row.data) ? row.data : {};
}

/** `INDEX@ATTEMPT` of the iteration a `while` is in, or ended in; null for other nodes. */
function iterationOf(row: NodeRow): string | null {
  const { index } = dataOf(row);
  return typeof index === 'number' ? `${index}@${row.attempt}` : null;
}

/** Who has picked an agent's task up; null while nobody has, and for every other node. */
function agentOf(row: NodeRow): string | null {
  const { agent } = dataOf(row);
  return row.where === 'agent' && typeof agent === 'string' ? agent : null;
}

/** Its task waits: no worker or agent has it. */
function isQueued(row: NodeRow): boolean {
  const { queued, worker, agent } = dataOf(row);
  return queued === true && typeof (worker ?? agent) !== 'string';
}

/** Pending nodes of a graph and of the current iterations of its running loops. */
function collectPending(rows: Rows, graph: Graph, iterations: string[], into: NodeAddress[]): void {
  for (const node of graph.nodes) {
    const row = rows.get(nodeKey(node.path, iterations));
    if (row === undefined) {
      into.push(addressOf(node.path, iterations));
      continue;
    }
    const iteration = iterationOf(row);
    if (row.status === 'Running' && iteration !== null && node.body !== null) {
      collectPending(rows, node.body, [...iterations, iteration], into);
    }
  }
}

/** What still runs though a stop is stored. Work of an External Agent is never waited for. */
function waitingFor(
  stored: StoredExecution,
  receipt: StopReceipt | null,
  nowMs: number,
): NonNullable<ExecutionRecord['waitingFor']> {
  const sinceMs = Math.max(0, nowMs - (stored.header.stop?.requestedAtMs ?? nowMs));
  const ended = new Set(
    (receipt?.tasks ?? [])
      .filter((task) => task.ms !== null)
      .map((task) => `${task.node}/${(task.iterations ?? []).join('/')}`),
  );
  return stored.nodes
    .filter((row) => row.status === 'Running' && row.where !== 'agent')
    .filter((row) => !ended.has(`${row.path}/${iterationIndexes(row.iterations).join('/')}`))
    .map((row) => ({ ...addressOf(row.path, row.iterations), where: row.where, sinceMs }));
}
