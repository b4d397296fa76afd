/**
 * Who may do what: every verb, by every role, in its own project and in another, over HTTP and Socket.IO.
 * What is expected is written down here from docs/api.md, apart from the table the server is made from.
 */
import { expect } from 'chai';
import type { Socket } from 'socket.io-client';
import { shapes } from '../../src/server/shapes.ts';
import { verbs } from '../../src/server/verbs/table.ts';
import type { Verb } from '../../src/server/verbs/verb.ts';
import type { Role } from '../../src/wire.ts';
import { ADMIN_KEY, ask, openWorld, type World } from './support.ts';

type Need = 'nothing' | 'viewer' | 'operator' | 'admin' | 'admin of all';
/** What another project's things look like: not there, an empty list, or nothing at all is project-bound. */
type Elsewhere = 'missing' | 'empty' | 'same';
type Payload = Record<string, unknown>;

interface Case {
  verb: string;
  need: Need;
  elsewhere: Elsewhere;
  success: number;
  /** A fresh target in `project`, and the payload that names it. */
  payload(world: World, project: string): Promise<Payload>;
  /** Whether an answer of a list is empty. */
  isEmpty?(data: Record<string, unknown>): boolean;
}

const noItems = (data: Record<string, unknown>): boolean => (data.items as unknown[]).length === 0;
const running = async (world: World, project: string): Promise<Payload> => ({ id: await world.running(project) });
const stopped = async (world: World, project: string): Promise<Payload> => {
  const id = await world.running(project);
  await world.engine.requestStop(id);
  return { id };
};
const ended = async (world: World, project: string): Promise<Payload> => {
  const id = await world.running(project);
  await world.engine.finish(id);
  return { id };
};
let workflows = 0;
const newWorkflow = async (_world: World, project: string): Promise<Payload> => ({
  project,
  definition: { name: `flow-${workflows++}`, nodes: { a: { type: 'set', with: { value: 1 } } } },
});
const savedWorkflow = async (world: World, project: string): Promise<{ project: string; name: string }> => {
  const name = `flow-${workflows++}`;
  const source = { name, nodes: { a: { type: 'set', with: { value: 1 } } } };
  await world.store.saveDefinition({ project, name, hash: 'b'.repeat(64), source, savedAtMs: 0 });
  return { project, name };
};
const nothing = async (): Promise<Payload> => ({});

const cases: Case[] = [
  { verb: 'workflow.save', need: 'admin', elsewhere: 'missing', success: 201, payload: newWorkflow },
  {
    verb: 'workflow.save',
    need: 'viewer',
    elsewhere: 'missing',
    success: 200,
    payload: async (world, project) => ({ ...(await newWorkflow(world, project)), dryRun: true }),
  },
  {
    verb: 'workflow.list',
    need: 'viewer',
    elsewhere: 'empty',
    success: 200,
    payload: async (world, project) => ({ project: (await savedWorkflow(world, project)).project }),
    isEmpty: noItems,
  },
  { verb: 'workflow.get', need: 'viewer', elsewhere: 'missing', success: 200, payload: savedWorkflow },
  { verb: 'workflow.disable', need: 'admin', elsewhere: 'missing', success: 200, payload: savedWorkflow },
  { verb: 'workflow.enable', need: 'admin', elsewhere: 'missing', success: 200, payload: savedWorkflow },
  {
    verb: 'execution.start',
    need: 'operator',
    elsewhere: 'missing',
    success: 201,
    payload: async (world, project) => ({ project, workflow: (await savedWorkflow(world, project)).name }),
  },
  {
    verb: 'execution.list',
    need: 'viewer',
    elsewhere: 'empty',
    success: 200,
    payload: async (world, project) => {
      await world.running(project);
      return { project };
    },
    isEmpty: noItems,
  },
  { verb: 'execution.get', need: 'viewer', elsewhere: 'missing', success: 200, payload: running },
  { verb: 'execution.results', need: 'viewer', elsewhere: 'missing', success: 200, payload: running },
  { verb: 'execution.events', need: 'viewer', elsewhere: 'missing', success: 200, payload: running },
  { verb: 'execution.inspect', need: 'viewer', elsewhere: 'missing', success: 201, payload: running },
  { verb: 'execution.stop', need: 'viewer', elsewhere: 'missing', success: 202, payload: running },
  { verb: 'execution.receipt', need: 'viewer', elsewhere: 'missing', success: 200, payload: stopped },
  { verb: 'execution.preview', need: 'viewer', elsewhere: 'missing', success: 200, payload: running },
  {
    verb: 'executions.stop',
    need: 'viewer',
    elsewhere: 'empty',
    success: 200,
    payload: async (world, project) => ({ filter: { ids: [await world.running(project)] } }),
    isEmpty: (data) => data.matched === 0 && (data.requested as unknown[]).length === 0,
  },
  {
    verb: 'execution.trigger',
    need: 'operator',
    elsewhere: 'missing',
    success: 200,
    payload: async (world, project) => ({ ...(await running(world, project)), name: 'approve', payload: 1 }),
  },
  { verb: 'execution.delete', need: 'admin', elsewhere: 'missing', success: 204, payload: ended },
  {
    verb: 'admission.set',
    need: 'admin of all',
    elsewhere: 'same',
    success: 200,
    payload: async () => ({ paused: false }),
  },
  { verb: 'key.list', need: 'admin', elsewhere: 'same', success: 200, payload: nothing },
  {
    verb: 'key.create',
    need: 'admin',
    elsewhere: 'missing',
    success: 201,
    payload: async (_world, project) => ({ name: 'k', role: 'viewer', project }),
  },
  {
    verb: 'key.delete',
    need: 'admin',
    elsewhere: 'missing',
    success: 204,
    payload: async (world, project) => {
      await world.key('viewer', project);
      const rows = await world.store.listKeys(project);
      return { id: rows.at(-1)?.id };
    },
  },
  { verb: 'engine.list', need: 'admin of all', elsewhere: 'same', success: 200, payload: nothing },
  {
    verb: 'engine.drain',
    need: 'admin of all',
    elsewhere: 'same',
    success: 202,
    payload: async () => ({ id: 'engine-1' }),
  },
  { verb: 'worker.list', need: 'admin of all', elsewhere: 'same', success: 200, payload: nothing },
  { verb: 'audit.list', need: 'admin', elsewhere: 'same', success: 200, payload: nothing },
  { verb: 'health', need: 'nothing', elsewhere: 'same', success: 200, payload: nothing },
];

/** Subscriptions, on Socket.IO alone. */
const subscriptions: Case[] = [
  { verb: 'execution.subscribe', need: 'viewer', elsewhere: 'missing', success: 200, payload: running },
  {
    verb: 'executions.subscribe',
    need: 'viewer',
    elsewhere: 'same',
    success: 200,
    payload: async (_world, project) => ({ project }),
  },
];

interface Who {
  name: string;
  role: Role | 'nobody';
  /** null: all. */
  project: string | null;
}

const everybody: Who[] = [
  { name: 'nobody', role: 'nobody', project: null },
  ...(['viewer', 'operator', 'admin', 'worker', 'agent'] as const).map((role) => ({
    name: role,
    role,
    project: 'alpha',
  })),
  { name: 'admin of all', role: 'admin', project: null },
];

/** The code a caller gets; null: success. */
function expected(who: Who, { need, elsewhere }: Case, project: string): string | null {
  if (need === 'nothing') return null;
  if (who.role === 'nobody') return 'FS_UNAUTHENTICATED';
  const ranks = { worker: 0, agent: 0, viewer: 1, operator: 2, admin: 3 };
  const needed = { viewer: 1, operator: 2, admin: 3, 'admin of all': 3 }[need];
  if (ranks[who.role] < needed || (need === 'admin of all' && who.project !== null)) return 'FS_FORBIDDEN';
  return elsewhere === 'missing' && who.project !== null && who.project !== project ? 'FS_NOT_FOUND' : null;
}

const statusOf: Record<string, number> = { FS_UNAUTHENTICATED: 401, FS_FORBIDDEN: 403, FS_NOT_FOUND: 404 };

function request(verb: Verb, payload: Payload): { path: string; body: unknown } {
  let path = verb.http.path;
  const query = new URLSearchParams(verb.http.when === undefined ? {} : { [verb.http.when]: 'true' });
  const body: Payload = {};
  for (const [key, value] of Object.entries(payload)) {
    if (key in verb.params) path = path.replace(`:${key}`, String(value));
    else if (key in verb.query) query.set(key, String(value));
    else body[key] = value;
  }
  const asked = query.size === 0 ? path : `${path}?${query}`;
  if (verb.http.definition) return { path: asked, body: body.definition };
  return { path: asked, body: Object.keys(body).length === 0 ? undefined : body };
}

describe('access matrix', () => {
  let world: World;
  const keys = new Map<string, string | null>();
  const sockets = new Map<string, Socket>();

  before(async () => {
    world = await openWorld();
    for (const who of everybody) {
      const key =
        who.role === 'nobody' ? null : who.project === null ? ADMIN_KEY : await world.key(who.role, who.project);
      keys.set(who.name, key);
      if (key !== null) sockets.set(who.name, await world.connect(key));
    }
  });
  after(() => world.close());

  it('has a case for every verb and a verb for every case', () => {
    expect(new Set(cases.map((one) => one.verb))).to.deep.equal(new Set(verbs.map((verb) => verb.name)));
  });

  for (const one of cases) {
    const verb = verbs.find(({ name }) => name === one.verb) as Verb;
    for (const who of everybody) {
      for (const project of ['alpha', 'beta']) {
        const code = expected(who, one, project);
        const kept = who.project === null || who.project === project || one.elsewhere !== 'empty';
        const title = `${one.verb}${one.need === 'viewer' && one.success === 200 && one.verb === 'workflow.save' ? ' (dry run)' : ''}: ${who.name} in ${project} ${code ?? (kept ? 'may' : 'finds nothing')}`;

        it(`${title}, over HTTP`, async () => {
          const payload = await one.payload(world, project);
          const { path, body } = request(verb, payload);
          const answer = await world.http(keys.get(who.name) ?? null, verb.http.method, path, body);
          if (code !== null) {
            expect(answer.status, answer.text).to.equal(statusOf[code]);
            expect(answer.data.code).to.equal(code);
            expect(answer.data).to.have.all.keys('code', 'message', 'details');
            await nothingHappened(payload);
            return;
          }
          expect(answer.status, answer.text).to.equal(one.success);
          const shape = verb.answers[answer.status];
          if (shape !== undefined && answer.status !== 204) shapes[shape].parse(answer.data);
          if (one.isEmpty !== undefined) expect(one.isEmpty(answer.data)).to.equal(!kept);
        });

        if (who.role !== 'nobody') {
          it(`${title}, over Socket.IO`, async () => {
            const payload = await one.payload(world, project);
            const answer = await ask(sockets.get(who.name) as Socket, one.verb, payload);
            if (code !== null) {
              expect(answer).to.have.nested.property('error.code', code);
              await nothingHappened(payload);
              return;
            }
            if (!answer.ok) throw new Error(`${answer.error.code}: ${answer.error.message}`);
            const shape = verb.answers[one.success];
            if (shape !== undefined) shapes[shape].parse(answer.data);
            if (one.isEmpty !== undefined) expect(one.isEmpty(answer.data)).to.equal(!kept);
          });
        }
      }
    }
  }

  for (const one of subscriptions) {
    for (const who of everybody.filter(({ role }) => role !== 'nobody')) {
      for (const project of ['alpha', 'beta']) {
        const code = expected(who, one, project);
        it(`${one.verb}: ${who.name} in ${project} ${code ?? 'may'}, over Socket.IO`, async () => {
          const answer = await ask(sockets.get(who.name) as Socket, one.verb, await one.payload(world, project));
          if (code === null) expect(answer.ok).to.equal(true);
          else expect(answer).to.have.nested.property('error.code', code);
        });
      }
    }
  }

  it('answers 404 for what a key may not see in the very words of what is not there', async () => {
    const key = keys.get('viewer') ?? null;
    const unseen = await world.running('beta');
    const missing = '0190b0a0-0000-7000-8000-000000000000';
    for (const [method, path] of [
      ['GET', ''],
      ['GET', '/events'],
      ['GET', '/results'],
      ['GET', '/stop'],
      ['POST', '/stop'],
      ['POST', '/inspections'],
    ] as const) {
      const [a, b] = await Promise.all(
        [unseen, missing].map((id) => world.http(key, method, `/api/executions/${id}${path}`)),
      );
      expect(a?.text.replace(unseen, 'ID')).to.equal(b?.text.replace(missing, 'ID'));
    }
  });

  it('has refused acts in the audit log, with who tried', async () => {
    const { items } = await world.store.listAudit(null, undefined, 10_000);
    const refused = items.filter(({ outcome }) => outcome === 'FS_FORBIDDEN' || outcome === 'FS_NOT_FOUND');
    const audited = verbs.filter((verb) => verb.audited).map(({ name }) => name);
    for (const one of cases.filter(
      ({ verb, success }) => audited.includes(verb) && !(verb === 'workflow.save' && success === 200),
    )) {
      const roles = everybody.filter((who) =>
        ['alpha', 'beta'].some((project) =>
          ['FS_FORBIDDEN', 'FS_NOT_FOUND'].includes(expected(who, one, project) ?? ''),
        ),
      );
      for (const { role } of roles) {
        expect(
          refused.some(({ verb, actor }) => verb === one.verb && actor?.role === role),
          `${one.verb} by ${role}`,
        ).to.equal(true);
      }
    }
  });

  it('audits the verbs that change something, and no others', () => {
    const reads = [
      'workflow.list',
      'workflow.get',
      'execution.list',
      'execution.get',
      'execution.results',
      'execution.events',
      'execution.inspect',
      'execution.receipt',
      'execution.preview',
      'key.list',
      'engine.list',
      'worker.list',
      'audit.list',
      'health',
    ];
    expect(verbs.filter((verb) => !verb.audited).map(({ name }) => name)).to.have.members(reads);
  });

  /** A refused act left its target as it was. */
  async function nothingHappened(payload: Payload): Promise<void> {
    if (typeof payload.id !== 'string' || payload.id === 'engine-1') return;
    const stored = await world.store.load(payload.id);
    const key = (await world.store.listKeys(null)).some(({ id }) => id === payload.id);
    if (!key && stored === null) throw new Error('the target is gone');
    if (stored !== null && 'name' in payload) expect(stored.triggers).to.deep.equal([]);
  }
});
