import { z } from 'zod';
import { eventOf, isLive, itemOf, recordOf, resultsOf } from '../../engine/views.ts';
import { FullstopError } from '../../errors.ts';
import type { ExecutionQuery, HeaderRow, StoredExecution } from '../../ports/store.ts';
import type { ExecutionFilter, ExecutionRecord, Json } from '../../wire.ts';
import { type Caller, maySee, notFound } from '../access.ts';
import { cursor, filter, id, json, jsonObject, labels, limit, project, triggerName, workflowRef } from './inputs.ts';
import { isHere, listedProject, oneProject, seenExecution } from './scope.ts';
import { type Context, verb } from './verb.ts';

const LIST_DEFAULT = 100;
const EVENTS_DEFAULT = 1_000;

const start = verb({
  name: 'execution.start',
  summary: 'Starts an execution of a workflow',
  http: { method: 'POST', path: '/api/executions' },
  query: { project: project.optional() },
  body: {
    workflow: workflowRef,
    input: jsonObject.optional(),
    labels: labels.optional(),
    idempotencyKey: z.string().min(1).max(255).optional(),
  },
  level: 'operate',
  audited: true,
  answers: { 200: 'Execution', 201: 'Execution' },
  errors: ['FS_CONFLICT', 'FS_DISABLED', 'FS_RATE'],
  async run(context, caller, input, act) {
    const where = oneProject(caller, input.project, 'workflow', input.workflow);
    act.about({ project: where, data: { workflow: input.workflow } });
    const { header, created } = await context.engine.startExecution({
      project: where,
      workflow: input.workflow,
      input: (input.input ?? {}) as Record<string, Json>,
      labels: input.labels ?? {},
      idempotencyKey: input.idempotencyKey ?? null,
    });
    act.about({ target: header.id });
    if (created) return { status: 201, data: await fullRecord(context, { header, nodes: [] }) };
    const stored = await context.store.getExecution(header.id);
    return { status: 200, data: await fullRecord(context, stored ?? { header, nodes: [] }) };
  },
});

const list = verb({
  name: 'execution.list',
  summary: 'Executions, newest first; children only with `parent`',
  http: { method: 'GET', path: '/api/executions' },
  query: {
    ...filter,
    project: project.optional(),
    stoppedByUser: z.boolean().optional(),
    parent: id.optional(),
    cursor: cursor.optional(),
    limit: limit.optional(),
  },
  level: 'see',
  answers: { 200: 'ExecutionList' },
  async run(context, caller, input) {
    const where = listedProject(caller, input.project);
    if (where === undefined) return { status: 200, data: { items: [], nextCursor: null } };
    const query: ExecutionQuery = { ...matching(input, where), limit: input.limit ?? LIST_DEFAULT };
    if (input.stoppedByUser !== undefined) query.stoppedByUser = input.stoppedByUser;
    if (input.parent !== undefined) query.parent = input.parent;
    if (input.cursor !== undefined) query.cursor = input.cursor;
    const page = await context.store.listExecutions(query);
    return { status: 200, data: { items: page.items.map(itemOf), nextCursor: page.nextCursor } };
  },
});

const get = verb({
  name: 'execution.get',
  summary: 'The record of an execution',
  http: { method: 'GET', path: '/api/executions/:id' },
  params: { id },
  level: 'see',
  answers: { 200: 'Execution' },
  async run(context, caller, input) {
    return { status: 200, data: await fullRecord(context, await seenRecord(context, caller, input.id)) };
  },
});

const results = verb({
  name: 'execution.results',
  summary: 'What the nodes gave, as a file',
  http: { method: 'GET', path: '/api/executions/:id/results' },
  params: { id },
  level: 'see',
  answers: { 200: 'Results' },
  async run(context, caller, input) {
    const stored = await seenRecord(context, caller, input.id);
    const rows = await context.store.readResults(input.id);
    return {
      status: 200,
      data: resultsOf(stored, await compiledOf(context, stored.header), rows),
      headers: { 'content-disposition': `attachment; filename="${input.id}.json"` },
    };
  },
});

const events = verb({
  name: 'execution.events',
  summary: 'Events from a number on; ask again from `nextFrom`',
  http: { method: 'GET', path: '/api/executions/:id/events' },
  params: { id },
  query: {
    from: z.int().min(1).optional().describe('the first number; the first kept by default'),
    limit: limit.optional(),
  },
  level: 'see',
  answers: { 200: 'EventPage' },
  errors: ['FS_GONE'],
  async run(context, caller, input) {
    await seenExecution(context, caller, input.id);
    const from = input.from ?? 1;
    const page = await context.store.readEvents(input.id, from, input.limit ?? EVENTS_DEFAULT);
    if (input.from !== undefined) refuseGone(input.id, from, page.firstSeq);
    const last = page.items.at(-1);
    return {
      status: 200,
      data: { items: page.items.map(eventOf), nextFrom: last === undefined ? from : last.seq + 1 },
    };
  },
});

const inspect = verb({
  name: 'execution.inspect',
  summary: 'A path at which a Stately viewer watches the actors of an execution for one hour, without a key',
  http: { method: 'POST', path: '/api/executions/:id/inspections' },
  params: { id },
  level: 'see',
  answers: { 201: 'Inspection' },
  errors: ['FS_CONFLICT', 'FS_DISABLED', 'FS_RATE'],
  async run(context, caller, input) {
    const header = await seenExecution(context, caller, input.id);
    if (!isHere(context, header)) {
      const { engine } = header.owner;
      const url = await context.engine.ownerUrl(input.id);
      throw new FullstopError(
        'FS_CONFLICT',
        `expected an execution that this engine runs, found one of engine ${engine}: ask that one${url === null ? '' : `, at ${url}`}`,
        { details: { engine, url } },
      );
    }
    return { status: 201, data: context.inspections.create(caller, input.id) };
  },
});

const trigger = verb({
  name: 'execution.trigger',
  summary: 'Releases the holds that wait for a trigger, or the next that will',
  http: { method: 'POST', path: '/api/executions/:id/triggers/:name' },
  params: { id, name: triggerName },
  body: { payload: json.optional() },
  level: 'operate',
  audited: true,
  answers: { 200: 'Triggered' },
  errors: ['FS_CONFLICT', 'FS_ENDED'],
  async run(context, caller, input, act) {
    const { project: where } = await seenExecution(context, caller, input.id);
    act.about({ project: where, data: { trigger: input.name } });
    const { duplicate } = await context.engine.trigger(input.id, input.name, (input.payload ?? null) as Json);
    return { status: 200, data: { duplicate } };
  },
});

const remove = verb({
  name: 'execution.delete',
  summary: 'Deletes an ended execution with its children, results, events and receipts',
  http: { method: 'DELETE', path: '/api/executions/:id' },
  params: { id },
  level: 'administer',
  audited: true,
  answers: { 204: 'Nothing' },
  errors: ['FS_CONFLICT'],
  async run(context, caller, input, act) {
    const header = await seenExecution(context, caller, input.id);
    await act.begin({ project: header.project });
    if (header.parent !== null) {
      throw new FullstopError(
        'FS_CONFLICT',
        `expected an execution without a parent: delete ${header.parent.executionId} with all its children`,
      );
    }
    const outcome = isLive(header) ? 'live' : await context.store.deleteExecution(input.id);
    if (outcome === 'missing') throw notFound('execution', input.id);
    if (outcome === 'live') {
      throw new FullstopError(
        'FS_CONFLICT',
        `expected an ended execution, found ${input.id} ${header.status}: stop it first`,
        {
          details: { status: header.status },
        },
      );
    }
    context.engine.forget(input.id);
    return { status: 204, data: null };
  },
});

/** What the store looks for, from what a caller filters by. */
export function matching(
  asked: { [Key in keyof ExecutionFilter]?: ExecutionFilter[Key] | undefined },
  project: string | null,
): Omit<ExecutionQuery, 'limit'> {
  const query: Omit<ExecutionQuery, 'limit'> = { project };
  if (asked.ids !== undefined) query.ids = asked.ids;
  if (asked.status !== undefined) query.status = asked.status;
  if (asked.workflow !== undefined) query.workflow = asked.workflow;
  if (asked.label !== undefined) query.label = asked.label;
  if (asked.text !== undefined) query.text = asked.text;
  if (asked.createdFrom !== undefined) query.createdFromMs = Date.parse(asked.createdFrom);
  if (asked.createdTo !== undefined) query.createdToMs = Date.parse(asked.createdTo);
  return query;
}

/** @throws FS_GONE when events from `from` on are asked for and `firstSeq` is the first kept. */
export function refuseGone(executionId: string, from: number, firstSeq: number): void {
  if (from >= firstSeq) return;
  throw new FullstopError(
    'FS_GONE',
    `expected \`from\` to be at least ${firstSeq}, found ${from}: older events of ${executionId} are not kept`,
    {
      details: { firstSeq },
    },
  );
}

async function seenRecord(context: Context, caller: Caller, executionId: string): Promise<StoredExecution> {
  const stored = await context.store.getExecution(executionId);
  if (stored === null || !maySee(caller, stored.header.project)) throw notFound('execution', executionId);
  return stored;
}

function compiledOf(context: Context, { project, workflow }: HeaderRow) {
  return context.engine.compiled(project, workflow.name, workflow.hash);
}

async function fullRecord(context: Context, stored: StoredExecution): Promise<ExecutionRecord> {
  const { header } = stored;
  const receipt = header.stop !== null && isLive(header) ? await context.engine.receipt(header.id) : null;
  return recordOf(stored, await compiledOf(context, header), receipt, context.clock.nowMs());
}

export const executionVerbs = [start, list, get, results, events, inspect, trigger, remove];
