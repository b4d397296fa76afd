/**
 * The shapes of answers, for the OpenAPI document and the tests. Answers are not checked against them at run
 * time, and this file is loaded only where they are asked for.
 */
import { z } from 'zod';

const id = z.uuid();
const time = z.iso.datetime({ precision: 3 });
const json = z.unknown();
const executionStatus = z.enum(['Pending', 'Running', 'Complete', 'Failed']);
const nodeStatus = z.enum(['Pending', 'Held', 'Running', 'Complete', 'Failed', 'Skipped']);
const where = z.enum(['engine', 'worker', 'agent']);
const count = z.int().min(0);
const ms = z.number().min(0);
const address = { node: z.string(), iterations: z.array(count).optional() };
const nextCursor = z.string().nullable();

const workflowRef = z.strictObject({ name: z.string(), hash: z.string(), version: z.int().min(1) });

const WorkflowItem = z.strictObject({
  project: z.string(),
  name: z.string(),
  hash: z.string(),
  version: z.int().min(1),
  description: z.string().nullable(),
  disabled: z.boolean(),
  schedules: z.array(z.strictObject({ cron: z.string(), timezone: z.string().nullable(), nextAt: time.nullable() })),
  savedAt: time,
});

const ExecutionItem = z.strictObject({
  id,
  project: z.string(),
  workflow: workflowRef,
  labels: z.record(z.string(), z.string()),
  status: executionStatus,
  error: z.string().nullable(),
  errorCode: z.string().nullable(),
  parent: z.strictObject({ executionId: id, ...address, attempt: count, itemIndex: count.optional() }).nullable(),
  createdAt: time,
  startedAt: time.nullable(),
  endedAt: time.nullable(),
  stop: z.strictObject({ requestId: id, requestedAt: time }).nullable(),
  stoppedByUser: z.boolean(),
  seq: count,
});

const Node = z.strictObject({
  type: z.string(),
  status: nodeStatus,
  error: z.string().nullable(),
  errorCode: z.string().nullable(),
  attempt: count,
  startedAt: time.nullable(),
  endedAt: time.nullable(),
  hasOutput: z.boolean(),
  where,
  get iteration() {
    return z.strictObject({ index: count, nodes: z.record(z.string(), Node) }).optional();
  },
  children: z.strictObject({ total: count, running: count, complete: count, failed: count }).optional(),
});

const Execution = z.strictObject({
  ...ExecutionItem.shape,
  input: json,
  outputs: json,
  waitingFor: z.array(z.strictObject({ ...address, where, sinceMs: ms })).optional(),
  nodes: z.record(z.string(), Node),
});

const Event = z.strictObject({
  seq: z.int().min(1),
  at: time,
  type: z.string(),
  node: z.string().optional(),
  iterations: z.array(count).optional(),
  attempt: count.optional(),
  data: json.optional(),
});

const children = z.array(z.strictObject({ executionId: id, status: executionStatus }));

const Key = z.strictObject({
  id,
  name: z.string(),
  role: z.enum(['viewer', 'operator', 'admin', 'worker', 'agent']),
  project: z.string().nullable(),
  capabilities: z.array(z.string()).optional(),
  pool: z.string().optional(),
  createdAt: time,
});

const Engine = z.strictObject({
  id: z.string(),
  epoch: count,
  startedAt: time,
  status: z.enum(['starting', 'serving', 'draining', 'stopped']),
  executions: z.strictObject({ running: count, pending: count, parked: count }),
  version: z.string(),
  url: z.string().nullable(),
});

const Worker = z.strictObject({
  id: z.string(),
  name: z.string(),
  kind: z.enum(['worker', 'agent', 'pool']),
  capabilities: z.array(z.string()),
  slots: count,
  held: count,
  connected: z.boolean(),
  silentMs: ms,
});

const AuditEntry = z.strictObject({
  id,
  at: time,
  actor: z.strictObject({ keyId: z.string(), name: z.string(), role: z.string() }).nullable(),
  verb: z.string(),
  project: z.string().nullable(),
  target: z.string().nullable(),
  outcome: z.string().nullable(),
  data: json.optional(),
});

export const shapes = {
  WorkflowSaved: workflowRef,
  WorkflowItem,
  WorkflowList: z.strictObject({ items: z.array(WorkflowItem), nextCursor }),
  WorkflowDetail: z.strictObject({
    ...WorkflowItem.shape,
    definition: json,
    versions: z
      .array(z.strictObject({ version: z.int().min(1), hash: z.string(), savedAt: time }))
      .optional()
      .describe('where they are asked for: the last saved first'),
  }),
  Execution,
  ExecutionItem,
  ExecutionList: z.strictObject({ items: z.array(ExecutionItem), nextCursor }),
  Node,
  Event,
  EventPage: z.strictObject({ items: z.array(Event), nextFrom: z.int().min(1) }),
  Results: z.strictObject({
    executionId: id,
    workflow: workflowRef,
    status: executionStatus,
    error: z.string().nullable(),
    outputs: json,
    nodes: z.record(z.string(), z.strictObject({ status: nodeStatus, output: json, error: z.string().nullable() })),
  }),
  Stop: z.strictObject({
    executionId: id,
    requestId: id,
    requestedAt: time,
    status: z.enum(['stop requested', 'stopped']),
  }),
  Preview: z.strictObject({
    executionId: id,
    willAbort: z.array(
      z.strictObject({ ...address, type: z.string(), where, runningForMs: ms, queued: z.literal(true).optional() }),
    ),
    cannotCancel: z.array(z.strictObject({ ...address, agent: z.string(), runningForMs: ms })),
    kept: z.strictObject({ Complete: count, Failed: count, Skipped: count }),
    stayPending: z.array(z.strictObject(address)),
    stayHeld: z.array(z.strictObject(address)),
    children,
  }),
  Receipt: z.strictObject({
    executionId: id,
    requestId: id,
    requestedAt: time,
    delivery: z.strictObject({ path: z.enum(['local', 'bus', 'poll', 'takeover']), ms }).nullable(),
    haltedMs: ms.nullable(),
    finalisedMs: ms.nullable(),
    finalisedAt: time.nullable(),
    tasks: z.array(
      z.strictObject({
        ...address,
        attempt: count,
        type: z.string(),
        where,
        outcome: z.enum(['aborted', 'neverStarted', 'finishedFirst', 'forced', 'unconfirmed', 'agentRunsOn']),
        ms: ms.nullable(),
      }),
    ),
    lateResultsDiscarded: count,
    unconfirmed: count,
    children,
  }),
  BulkStop: z.union([
    z.strictObject({
      matched: count,
      requested: z.array(id),
      alreadyEnded: z.array(id),
      failed: z.array(z.strictObject({ id, code: z.string() })),
      startedMeanwhile: z.array(id),
    }),
    z.strictObject({ matched: count, setId: id }),
  ]),
  Inspection: z.strictObject({ path: z.string(), expiresAt: time }),
  Triggered: z.strictObject({ duplicate: z.boolean() }),
  Admission: z.strictObject({ paused: z.boolean() }),
  Key,
  KeyList: z.strictObject({ items: z.array(Key), nextCursor }),
  KeyCreated: z.strictObject({ id, key: z.string() }),
  Engine,
  EngineList: z.strictObject({ items: z.array(Engine), nextCursor }),
  Worker,
  WorkerList: z.strictObject({ items: z.array(Worker), nextCursor }),
  AuditEntry,
  AuditList: z.strictObject({ items: z.array(AuditEntry), nextCursor }),
  /** Details only with a key. */
  Health: z.looseObject({ status: z.enum(['ok', 'unavailable']) }),
  Nothing: z.null(),
  Error: z.strictObject({ code: z.string(), message: z.string(), details: json }),
};

export type ShapeName = keyof typeof shapes;
