import { z } from 'zod';
import type { KeyRow } from '../../ports/store.ts';
import type { KeyItem } from '../../wire.ts';
import { hashKey, newKey, notFound } from '../access.ts';
import { id, project } from './inputs.ts';
import { invalid, oneProject } from './scope.ts';
import { verb } from './verb.ts';

const list = verb({
  name: 'key.list',
  summary: 'The keys of the project; no key itself',
  http: { method: 'GET', path: '/api/keys' },
  level: 'administer',
  answers: { 200: 'KeyList' },
  async run(context, caller) {
    const rows = await context.store.listKeys(caller.project);
    return { status: 200, data: { items: rows.map(itemOf), nextCursor: null } };
  },
});

const create = verb({
  name: 'key.create',
  summary: 'Makes a key: the answer is the only place it is ever shown',
  http: { method: 'POST', path: '/api/keys' },
  body: {
    name: z.string().min(1).max(100),
    role: z.enum(['viewer', 'operator', 'admin', 'worker', 'agent']),
    project: project.optional(),
    capabilities: z.array(z.string().min(1).max(63)).min(1).max(20).optional().describe('of a worker'),
    pool: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected the name of a pool')
      .optional()
      .describe('of an agent'),
  },
  level: 'administer',
  audited: true,
  answers: { 201: 'KeyCreated' },
  async run(context, caller, input, act) {
    if (input.capabilities !== undefined && input.role !== 'worker')
      throw invalid('expected `capabilities` with the role worker only');
    if ((input.pool !== undefined) !== (input.role === 'agent'))
      throw invalid('expected `pool` with the role agent, and only there');
    const key = newKey();
    const row: KeyRow = {
      id: context.ids.next(),
      hash: hashKey(key),
      name: input.name,
      role: input.role,
      project: oneProject(caller, input.project, 'project', input.project ?? ''),
      capabilities: input.capabilities ?? null,
      pool: input.pool ?? null,
      createdAtMs: context.clock.nowMs(),
    };
    await act.begin({ project: row.project, target: row.id, data: { name: row.name, role: row.role } });
    await context.store.createKey(row);
    return { status: 201, data: { id: row.id, key } };
  },
});

const remove = verb({
  name: 'key.delete',
  summary: 'Deletes a key and hangs up on every socket that came with it',
  http: { method: 'DELETE', path: '/api/keys/:id' },
  params: { id },
  level: 'administer',
  audited: true,
  answers: { 204: 'Nothing' },
  async run(context, caller, input, act) {
    await act.begin();
    if (!(await context.store.deleteKey(input.id, caller.project))) throw notFound('key', input.id);
    context.access.forget(input.id);
    context.closeSocketsOf(input.id);
    return { status: 204, data: null };
  },
});

function itemOf(row: KeyRow): KeyItem {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    project: row.project,
    ...(row.capabilities === null ? {} : { capabilities: row.capabilities }),
    ...(row.pool === null ? {} : { pool: row.pool }),
    createdAt: new Date(row.createdAtMs).toISOString(),
  };
}

export const keyVerbs = [list, create, remove];
