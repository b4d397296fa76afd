import { z } from 'zod';
import type { EngineItem } from '../../wire.ts';
import { allows, notFound } from '../access.ts';
import { cursor, limit } from './inputs.ts';
import { verb } from './verb.ts';

const AUDIT_DEFAULT = 100;

const admission = verb({
  name: 'admission.set',
  summary: 'Paused: starts and schedules wait as Pending, what runs goes on',
  http: { method: 'POST', path: '/api/admission' },
  body: { paused: z.boolean() },
  level: 'administerAll',
  audited: true,
  answers: { 200: 'Admission' },
  async run(context, _caller, input, act) {
    await act.begin({ data: { paused: input.paused } });
    await context.engine.setAdmission(input.paused);
    return { status: 200, data: { paused: context.engine.admissionPaused() } };
  },
});

const engines = verb({
  name: 'engine.list',
  summary: 'The engines and what they run',
  http: { method: 'GET', path: '/api/engines' },
  level: 'administerAll',
  answers: { 200: 'EngineList' },
  async run(context) {
    return { status: 200, data: { items: context.engine.engines(), nextCursor: null } };
  },
});

const drain = verb({
  name: 'engine.drain',
  summary:
    'Admits nothing more on an engine and lets running attempts end, then hands over to the others; never a stop',
  http: { method: 'POST', path: '/api/engines/:id/drain' },
  params: { id: z.string().min(1).max(100) },
  level: 'administerAll',
  audited: true,
  answers: { 202: 'Engine' },
  async run(context, _caller, input, act) {
    const known = (): EngineItem | undefined => context.engine.engines().find(({ id }) => id === input.id);
    if (known() === undefined) throw notFound('engine', input.id);
    await act.begin();
    if (!(await context.engine.requestDrain(input.id))) throw notFound('engine', input.id);
    const found = known();
    if (found === undefined) throw notFound('engine', input.id);
    return { status: 202, data: { ...found, status: 'draining' } };
  },
});

const workers = verb({
  name: 'worker.list',
  summary: 'The workers and agents, and what they hold',
  http: { method: 'GET', path: '/api/workers' },
  level: 'administerAll',
  answers: { 200: 'WorkerList' },
  async run(context) {
    return {
      status: 200,
      data: { items: context.workers === null ? [] : context.engine.allWorkers(), nextCursor: null },
    };
  },
});

const audit = verb({
  name: 'audit.list',
  summary: 'Who asked for what, newest first',
  http: { method: 'GET', path: '/api/audit' },
  query: { cursor: cursor.optional(), limit: limit.optional() },
  level: 'administer',
  answers: { 200: 'AuditList' },
  async run(context, caller, input) {
    const page = await context.store.listAudit(caller.project, input.cursor, input.limit ?? AUDIT_DEFAULT);
    return { status: 200, data: page };
  },
});

/** Open to all; why something is wrong only to those who may see something. */
const health = verb({
  name: 'health',
  summary: 'Whether the server takes work',
  http: { method: 'GET', path: '/api/health' },
  level: 'open',
  answers: { 200: 'Health', 503: 'Health' },
  async run(context, caller) {
    const { engine, store, workers: gate } = context;
    const trouble = [...new Set([store.trouble(), engine.trouble()])].filter((found) => found !== null);
    const seen = allows(caller, 'see');
    const missing = gate === null ? {} : { missing: gate.missing() };
    const details =
      seen && caller !== null
        ? {
            admissionPaused: engine.admissionPaused(),
            engine: engine.describe(),
            ...missing,
            caller: { name: caller.name, role: caller.role, project: caller.project },
          }
        : null;
    if (trouble.length === 0) return { status: 200, data: { status: 'ok', ...details } };
    const message = seen ? trouble.join('; ') : 'the server does not take work now: ask with a key for the reason';
    return { status: 503, data: { status: 'unavailable', code: 'FS_UNAVAILABLE', message, details } };
  },
});

export const operationVerbs = [admission, engines, drain, workers, audit, health];
