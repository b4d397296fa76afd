import { z } from 'zod';
import { FullstopError } from '../../errors.ts';
import type { ExecutionQuery, HeaderRow, StopRequestOutcome } from '../../ports/store.ts';
import type { BulkStopAnswer, ExecutionFilter, StopAnswer } from '../../wire.ts';
import { type Caller, notFound } from '../access.ts';
import { codeOf } from '../call.ts';
import type { FrozenSet } from '../frozen-sets.ts';
import { matching } from './executions.ts';
import { filter, id, project } from './inputs.ts';
import { invalid, listedProject, seenExecution } from './scope.ts';
import { type Context, verb } from './verb.ts';

/** Ids that one filter may name. */
const IDS_MAX = 10_000;
/** Executions read, or stopped, at once. */
const BATCH = 1_000;

const stop = verb({
  name: 'execution.stop',
  summary: 'Stops an execution. Takes no reason',
  http: { method: 'POST', path: '/api/executions/:id/stop' },
  params: { id },
  level: 'see',
  audited: true,
  answers: { 200: 'Stop', 202: 'Stop' },
  errors: ['FS_ENDED'],
  async run(context, caller, input, act) {
    const { project: where } = await seenExecution(context, caller, input.id);
    await act.begin({ project: where });
    const outcome = await context.engine.requestStop(input.id);
    switch (outcome.kind) {
      case 'missing':
        throw notFound('execution', input.id);
      case 'ended':
        throw new FullstopError(
          'FS_ENDED',
          `expected a live execution, found ${input.id} ${outcome.status}: nothing to stop`,
          {
            details: { status: outcome.status },
          },
        );
      case 'requested':
      case 'stopped': {
        const answer: StopAnswer = {
          executionId: input.id,
          requestId: outcome.requestId,
          requestedAt: new Date(outcome.requestedAtMs).toISOString(),
          status: outcome.kind === 'requested' ? 'stop requested' : 'stopped',
        };
        return { status: outcome.kind === 'requested' ? 202 : 200, data: answer, outcome: outcomeOf(outcome) };
      }
    }
  },
});

const receipt = verb({
  name: 'execution.receipt',
  summary: 'What a stop did, as far as it has come',
  http: { method: 'GET', path: '/api/executions/:id/stop' },
  params: { id },
  level: 'see',
  answers: { 200: 'Receipt' },
  async run(context, caller, input) {
    await seenExecution(context, caller, input.id);
    const found = await context.engine.receipt(input.id);
    if (found === null) {
      throw new FullstopError('FS_NOT_FOUND', `expected a stop of ${input.id}, found none: nobody has stopped it`);
    }
    return { status: 200, data: found };
  },
});

const preview = verb({
  name: 'execution.preview',
  summary: 'What a stop would do now',
  http: { method: 'GET', path: '/api/executions/:id/stop', when: 'preview' },
  params: { id },
  level: 'see',
  answers: { 200: 'Preview' },
  errors: ['FS_ENDED'],
  async run(context, caller, input) {
    await seenExecution(context, caller, input.id);
    const found = await context.engine.previewStop(input.id);
    if (found === null) throw notFound('execution', input.id);
    return { status: 200, data: found };
  },
});

const bulk = verb({
  name: 'executions.stop',
  summary: 'Stops every live execution that a filter matches, or those a dry run matched',
  http: { method: 'POST', path: '/api/stops' },
  query: { project: project.optional() },
  body: {
    filter: z
      .strictObject({ ...filter, ids: z.array(id).min(1).max(IDS_MAX).optional(), all: z.literal(true).optional() })
      .optional()
      .describe('at least one key, or {all: true} alone'),
    dryRun: z.boolean().optional().describe('stop nothing: freeze what matches for 5 minutes'),
    setId: id.optional().describe('of a dry run'),
  },
  level: 'see',
  audited: true,
  answers: { 200: 'BulkStop' },
  async run(context, caller, input, act) {
    if (input.setId !== undefined) {
      if (input.filter !== undefined || input.dryRun !== undefined)
        throw invalid('expected `setId` alone: a set keeps its filter');
      const set = await context.frozenSets.get(caller, input.setId);
      await act.begin({ project: set.project ?? null, data: { ...set.filter } });
      return { status: 200, data: await stopAll(context, caller, set) };
    }
    const asked = checkFilter(input.filter);
    const where = listedProject(caller, input.project);
    const members = await matched(context, asked, where);
    const set: FrozenSet = { members, filter: asked, project: where, frozenAtMs: context.clock.nowMs() };
    if (!input.dryRun) {
      await act.begin({ project: set.project ?? null, data: { ...asked } });
      return { status: 200, data: await stopAll(context, caller, set) };
    }
    return { status: 200, data: { matched: members.length, setId: await context.frozenSets.keep(caller, set) } };
  },
});

function checkFilter(asked: object | undefined): ExecutionFilter {
  const keys = Object.keys(asked ?? {});
  if (asked === undefined || keys.length === 0) {
    throw invalid('expected `filter` with at least one key, or {"all": true}, or `setId`');
  }
  if ('all' in asked && keys.length > 1)
    throw invalid('expected {"all": true} alone, found it beside other keys of `filter`');
  return asked;
}

/**
 * Live executions that a filter matches, newest first. One whose ancestor matches too is left out: the
 * ancestor's stop takes it along under the same request.
 */
async function matched(
  context: Context,
  asked: ExecutionFilter,
  where: string | null | undefined,
): Promise<FrozenSet['members']> {
  if (where === undefined) return [];
  const headers: HeaderRow[] = [];
  const query: ExecutionQuery = { ...matching(asked, where), live: true, limit: BATCH };
  if (!asked.all) query.withChildren = true;
  for (;;) {
    const page = await context.store.listExecutions(query);
    headers.push(...page.items);
    if (page.nextCursor === null) break;
    query.cursor = page.nextCursor;
  }
  const ids = new Set(headers.map(({ id: executionId }) => executionId));
  return headers
    .filter(({ ancestors }) => !ancestors.some((ancestor) => ids.has(ancestor)))
    .map(({ id: executionId, project: itsProject }) => ({ id: executionId, project: itsProject }));
}

async function stopAll(context: Context, caller: Caller, set: FrozenSet): Promise<BulkStopAnswer> {
  const { members } = set;
  const answer: BulkStopAnswer = {
    matched: members.length,
    requested: [],
    alreadyEnded: [],
    failed: [],
    startedMeanwhile: [],
  };
  for (let at = 0; at < members.length; at += BATCH) {
    await Promise.all(members.slice(at, at + BATCH).map((member) => stopOne(context, caller, member, answer)));
  }
  if (set.filter.ids === undefined) {
    const taken = new Set(members.map((member) => member.id));
    const now = await matched(context, set.filter, set.project);
    answer.startedMeanwhile = now.map((member) => member.id).filter((executionId) => !taken.has(executionId));
  }
  return answer;
}

/** No stop is without its audit entry: that is durable before the intent is. */
async function stopOne(
  context: Context,
  caller: Caller,
  { id: executionId, project: where }: FrozenSet['members'][number],
  answer: BulkStopAnswer,
): Promise<void> {
  const act = context.audit.act({
    caller,
    verb: 'executions.stop',
    project: where,
    target: executionId,
    outcome: null,
  });
  try {
    await act.begin();
    const outcome = await context.engine.requestStop(executionId);
    await act.end(outcomeOf(outcome));
    if (outcome.kind === 'requested') answer.requested.push(executionId);
    else if (outcome.kind === 'missing') answer.failed.push({ id: executionId, code: 'FS_NOT_FOUND' });
    else answer.alreadyEnded.push(executionId);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'FS_INTERNAL') context.logger.error({ error, executionId }, 'a stop of many failed');
    if (act.begun) await act.end(code);
    answer.failed.push({ id: executionId, code });
  }
}

function outcomeOf(outcome: StopRequestOutcome): string {
  return outcome.kind === 'requested' && outcome.repeated ? 'repeated' : outcome.kind;
}

export const stopVerbs = [stop, receipt, preview, bulk];
