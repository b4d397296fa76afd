import { z } from 'zod';
import { loadDefinition } from '../../definition/compile.ts';
import type { DefinitionRow } from '../../ports/store.ts';
import type { WorkflowItem } from '../../wire.ts';
import { type Caller, notFound } from '../access.ts';
import type { Act } from '../audit.ts';
import { project, workflowName, workflowRef } from './inputs.ts';
import { invalid, listedProject, oneProject } from './scope.ts';
import { type Answer, type Context, verb } from './verb.ts';

const inProject = { project: project.optional() };

const save = verb({
  name: 'workflow.save',
  summary: 'Checks a workflow file and saves it under its name and hash',
  http: { method: 'POST', path: '/api/workflows', definition: true },
  query: { ...inProject, dryRun: z.boolean().optional().describe('only check') },
  body: {
    definition: z.union([z.string().min(1), z.record(z.string(), z.unknown())], {
      error: 'expected a workflow file: its text, or an object',
    }),
    format: z.enum(['json', 'yaml']).optional().describe('of a text; yaml by default'),
  },
  level: 'see',
  levelOf: ({ dryRun }) => (dryRun ? 'see' : 'administer'),
  audited: true,
  answers: { 200: 'WorkflowSaved', 201: 'WorkflowSaved' },
  async run(context, caller, input, act) {
    const format = typeof input.definition === 'string' ? (input.format ?? 'yaml') : undefined;
    const { source, hash, compiled } = loadDefinition(input.definition, format);
    const { name } = compiled;
    const where = oneProject(caller, input.project, 'project', input.project ?? '');
    if (input.dryRun) {
      const versions = await context.store.listVersions(where, name);
      const known = versions.find((row) => row.hash === hash);
      const next = versions.reduce((last, row) => Math.max(last, row.version), 0) + 1;
      return { status: 200, data: { name, hash, version: known?.version ?? next } };
    }
    await act.begin({ project: where, target: name, data: { hash } });
    const { row, created } = await context.store.saveDefinition({
      project: where,
      name,
      hash,
      source,
      savedAtMs: context.clock.nowMs(),
    });
    await context.engine.workflowChanged(where, name);
    return { status: created ? 201 : 200, data: { name, hash, version: row.version } };
  },
});

const list = verb({
  name: 'workflow.list',
  summary: 'The last saved version of each workflow',
  http: { method: 'GET', path: '/api/workflows' },
  query: inProject,
  level: 'see',
  answers: { 200: 'WorkflowList' },
  async run(context, caller, input) {
    const where = listedProject(caller, input.project);
    const rows = where === undefined ? [] : await context.store.listDefinitions(where);
    const items = await Promise.all(rows.map((row) => itemOf(context, row)));
    return { status: 200, data: { items, nextCursor: null } };
  },
});

const get = verb({
  name: 'workflow.get',
  summary: 'One version of a workflow with its file; without a hash the last saved',
  http: { method: 'GET', path: '/api/workflows/:name' },
  params: { name: workflowRef },
  query: {
    ...inProject,
    hash: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'expected a hash: 64 hexadecimal digits')
      .optional(),
    versions: z.boolean().optional().describe('list all versions of the name too'),
  },
  level: 'see',
  answers: { 200: 'WorkflowDetail' },
  async run(context, caller, input) {
    const [name = '', hash = input.hash] = input.name.split('@');
    if (input.hash !== undefined && hash !== input.hash)
      throw invalid('expected one hash, found two: in the name and beside it');
    const where = oneProject(caller, input.project, 'workflow', input.name);
    const row = await context.store.getDefinition(where, name, hash);
    if (row === null) throw notFound('workflow', input.name);
    const detail = { ...(await itemOf(context, row)), definition: row.source };
    if (input.versions !== true) return { status: 200, data: detail };
    const versions = (await context.store.listVersions(where, name)).map((one) => ({
      version: one.version,
      hash: one.hash,
      savedAt: new Date(one.savedAtMs).toISOString(),
    }));
    return { status: 200, data: { ...detail, versions } };
  },
});

const disable = verb({
  name: 'workflow.disable',
  summary: 'Ends the schedules and refuses the starts of a workflow; what runs goes on',
  http: { method: 'POST', path: '/api/workflows/:name/disable' },
  params: { name: workflowName },
  query: inProject,
  level: 'administer',
  audited: true,
  answers: { 200: 'WorkflowItem' },
  run: (context, caller, input, act) => setDisabled(context, caller, input, act, true),
});

const enable = verb({
  name: 'workflow.enable',
  summary: 'Takes a disable back',
  http: { method: 'POST', path: '/api/workflows/:name/enable' },
  params: { name: workflowName },
  query: inProject,
  level: 'administer',
  audited: true,
  answers: { 200: 'WorkflowItem' },
  run: (context, caller, input, act) => setDisabled(context, caller, input, act, false),
});

async function setDisabled(
  context: Context,
  caller: Caller,
  input: { name: string; project?: string | undefined },
  act: Act,
  disabled: boolean,
): Promise<Answer> {
  const where = oneProject(caller, input.project, 'workflow', input.name);
  await act.begin({ project: where });
  if (!(await context.store.setDisabled(where, input.name, disabled))) throw notFound('workflow', input.name);
  await context.engine.workflowChanged(where, input.name);
  const row = await context.store.getDefinition(where, input.name);
  if (row === null) throw notFound('workflow', input.name);
  return { status: 200, data: await itemOf(context, row) };
}

async function itemOf(context: Context, row: DefinitionRow): Promise<WorkflowItem> {
  const compiled = await context.engine.compiled(row.project, row.name, row.hash);
  const instants = row.disabled ? [] : context.engine.nextInstants(row.project, row.name);
  return {
    project: row.project,
    name: row.name,
    hash: row.hash,
    version: row.version,
    description: compiled?.description ?? null,
    disabled: row.disabled,
    schedules: (compiled?.schedules ?? []).map(({ cron, timezone }, index) => {
      const nextMs = instants[index] ?? null;
      return { cron, timezone, nextAt: nextMs === null ? null : new Date(nextMs).toISOString() };
    }),
    savedAt: new Date(row.savedAtMs).toISOString(),
  };
}

export const workflowVerbs = [save, list, get, disable, enable];
