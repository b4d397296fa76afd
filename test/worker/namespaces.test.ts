import { expect } from 'chai';
import fc from 'fast-check';
import type { Socket } from 'socket.io-client';
import { ADMIN_KEY, type GateWorld, openGateWorld, pause, taskOf } from './gate.ts';
import { until } from './support.ts';

const WORKER = '0190b0a0-1111-4000-8000-000000000001';
const hello = {
  workerId: WORKER,
  name: 'w',
  capabilities: ['http'],
  slots: 2,
  held: [] as { taskId: string; token: string }[],
};

type Answer = { ok: boolean; data?: Record<string, unknown>; error?: { code: string; message: string } };

function ask(socket: Socket, name: string, ...payload: unknown[]): Promise<Answer> {
  return socket.timeout(5_000).emitWithAck(name, ...payload);
}

async function refusedWith(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return (error as { code: string }).code;
  }
  return 'not refused';
}

describe('the namespaces of workers and agents', () => {
  let world: GateWorld;
  beforeEach(async () => {
    world = await openGateWorld();
  });
  afterEach(() => world.close());

  describe('let in', () => {
    const roles = ['viewer', 'operator', 'admin', 'worker', 'agent'] as const;
    for (const role of roles) {
      for (const kind of ['worker', 'agent']) {
        it(`${role === kind ? 'a key' : 'no key'} of the role ${role} at /${kind}s`, async () => {
          const { key } = await world.key(role);
          const code = await refusedWith(world.connect(`/${kind}s`, { token: key }));
          expect(code).to.equal(role === kind ? 'not refused' : 'FS_FORBIDDEN');
        });
      }
    }

    it('nobody without a key, with one that is not known, or with something else than text', async () => {
      for (const token of [undefined, '', 'wrong', 7, { $ne: null }, ['x']]) {
        expect(await refusedWith(world.connect('/workers', { token }))).to.equal('FS_UNAUTHENTICATED');
        expect(await refusedWith(world.connect('/agents', { token }))).to.equal('FS_UNAUTHENTICATED');
      }
    });

    it('the first admin key, as a worker of all projects and as an agent of the pool it names', async () => {
      const worker = await world.connect('/workers', { token: ADMIN_KEY });
      await ask(worker, 'worker.hello', hello);
      expect(world.gate.link).to.include({ project: null, kind: 'worker' });
      const agent = await world.connect('/agents', { token: ADMIN_KEY, pool: 'dock' });
      await ask(agent, 'worker.hello', { ...hello, workerId: '0190b0a0-1111-4000-8000-000000000002' });
      expect(world.gate.link.capabilities).to.deep.equal(['agent:dock']);
      expect(await refusedWith(world.connect('/agents', { token: ADMIN_KEY }))).to.equal('FS_INVALID');
    });

    it('an agent to the pool of its key alone', async () => {
      const { key } = await world.key('agent', { pool: 'yard' });
      expect(await refusedWith(world.connect('/agents', { token: key, pool: 'dock' }))).to.equal('FS_FORBIDDEN');
      const agent = await world.connect('/agents', { token: key });
      await ask(agent, 'worker.hello', { ...hello, capabilities: ['nmap', '/opt/scan'] });
      expect(world.gate.link.capabilities).to.deep.equal(['agent:yard']);
      expect(world.gate.link.project).to.equal('default');
    });

    it('no verbs of clients, and at / no messages of workers', async () => {
      const { key } = await world.key('worker');
      const worker = await world.connect('/workers', { token: key });
      expect((await ask(worker, 'execution.list', {})).error?.code).to.equal('FS_INVALID');
      const client = await world.connect('/', { token: ADMIN_KEY });
      expect((await ask(client, 'worker.hello', hello)).error?.code).to.equal('FS_INVALID');
    });
  });

  describe('a worker', () => {
    let socket: Socket;
    let keyId: string;

    beforeEach(async () => {
      const { id, key } = await world.key('worker', { capabilities: ['http', 'container'] });
      keyId = id;
      socket = await world.connect('/workers', { token: key });
    });

    it('says hello, and is told what goes on, how often to beat, and its lease', async () => {
      world.gate.keep = () => ['a'];
      const held = [
        { taskId: 'a', token: 't' },
        { taskId: 'b', token: 't' },
      ];
      const answer = await ask(socket, 'worker.hello', { ...hello, held });
      expect(answer).to.deep.equal({ ok: true, data: { keep: ['a'], heartbeatMs: 50, leaseMs: 400 } });
      expect(world.gate.hellos).to.deep.equal([held]);
      const { workerId, name, kind, capabilities, slots, project } = world.gate.link;
      expect({ workerId, name, kind, capabilities, slots, project }).to.deep.equal({
        workerId: WORKER,
        name: 'w',
        kind: 'worker',
        capabilities: ['http'],
        slots: 2,
        project: 'default',
      });
    });

    it('may offer what its key allows, and nothing else', async () => {
      const answer = await ask(socket, 'worker.hello', { ...hello, capabilities: ['http', 'ai'] });
      expect(answer.error?.code).to.equal('FS_FORBIDDEN');
      expect(answer.error?.message).to.include('ai');
      expect((await ask(socket, 'worker.hello', { ...hello, capabilities: ['agent:yard'] })).error?.code).to.equal(
        'FS_INVALID',
      );
      expect(world.gate.links).to.deep.equal([]);
      expect((await ask(socket, 'worker.hello', { ...hello, capabilities: ['http', 'container'] })).ok).to.equal(true);
    });

    it('is heard only after its hello', async () => {
      for (const [name, payload] of [
        ['worker.heartbeat', { held: [] }],
        ['task.result', { taskId: 'a', token: 't', report: { kind: 'lost' } }],
        ['task.part', { taskId: 'a', token: 't', part: 0, text: 'x' }],
        ['task.log', { taskId: 'a', token: 't', stream: 'stdout', text: 'x' }],
      ] as const) {
        expect((await ask(socket, name, payload)).error?.code).to.equal('FS_INVALID');
      }
      expect([world.gate.beats, world.gate.results, world.gate.logs]).to.deep.equal([[], [], []]);
    });

    it('is answered with what it must end, and whether its result was wanted', async () => {
      await ask(socket, 'worker.hello', hello);
      world.gate.cancel = () => ['b'];
      expect((await ask(socket, 'worker.heartbeat', { held: ['a', 'b'] })).data).to.deep.equal({ cancel: ['b'] });
      expect(world.gate.beats).to.deep.equal([['a', 'b']]);
      world.gate.answer = async () => ({ discarded: true });
      const report = { kind: 'completed', output: { constructor: 1, x: [null] } };
      expect((await ask(socket, 'task.result', { taskId: 'a', token: 't', report })).data).to.deep.equal({
        discarded: true,
      });
      expect(world.gate.results[0]).to.deep.include({ taskId: 'a', token: 't', report });
    });

    it('says a result again that the gate rejects', async () => {
      await ask(socket, 'worker.hello', hello);
      world.gate.answer = () => Promise.reject(new Error('the disk is full of secrets'));
      const answer = await ask(socket, 'task.result', { taskId: 'a', token: 't', report: { kind: 'lost' } });
      expect(answer.error?.code).to.equal('FS_INTERNAL');
      expect(JSON.stringify(answer)).not.to.include('secrets');
    });

    it('brings a long report in parts', async () => {
      await ask(socket, 'worker.hello', hello);
      const task = taskOf('a');
      world.gate.link.run(task, 't');
      const output = 'é"\u{1f600}'.repeat(300_000);
      const json = JSON.stringify({ kind: 'completed', output });
      let parts = 0;
      for (let at = 0; at < json.length; at += 262_144) {
        const text = json.slice(at, at + 262_144);
        expect((await ask(socket, 'task.part', { taskId: task.id, token: 't', part: parts++, text })).ok).to.equal(
          true,
        );
      }
      expect(
        (await ask(socket, 'task.result', { taskId: task.id, token: 't', parts: parts + 1 })).error?.code,
      ).to.equal('FS_UNAVAILABLE');
      expect((await ask(socket, 'task.result', { taskId: task.id, token: 't', parts })).ok).to.equal(true);
      expect(world.gate.results[0]?.report).to.deep.equal({ kind: 'completed', output });
    });

    it('leaves no parts of tasks that it was not given', async () => {
      await ask(socket, 'worker.hello', hello);
      await ask(socket, 'task.part', { taskId: 'x/a/1', token: 't', part: 0, text: '{"kind":"completed","output":1}' });
      await ask(socket, 'task.result', { taskId: 'x/a/1', token: 't', parts: 1 });
      expect(world.gate.results[0]?.report).to.deep.equal({ kind: 'completed', output: null });
    });

    it('gets tasks and cancels', async () => {
      const heard: unknown[] = [];
      socket.onAny((name, payload) => heard.push([name, payload]));
      await ask(socket, 'worker.hello', hello);
      const task = taskOf('a');
      world.gate.link.run(task, 'token');
      world.gate.link.cancel(task.id);
      await until(() => heard.length === 2, 'both are there');
      expect(heard).to.deep.equal([
        ['task.run', { task, token: 'token' }],
        ['task.cancel', { taskId: task.id }],
      ]);
    });

    it('hears of a stop while it holds a task of the execution, and not after the last', async () => {
      const stops: unknown[] = [];
      socket.on('STOP', (message) => stops.push(message));
      await ask(socket, 'worker.hello', hello);
      const [a, b] = [taskOf('a'), taskOf('b')];
      world.gate.link.run(a, 't');
      world.gate.link.run(b, 't');
      const message = { executionId: a.executionId, requestId: 'r' };
      world.bus.stop({ ...message, executionId: 'another' });
      world.bus.stop(message);
      await until(() => stops.length === 1, 'the stop is heard');
      await ask(socket, 'task.result', { taskId: a.id, token: 't', report: { kind: 'lost' } });
      world.bus.stop(message);
      await until(() => stops.length === 2, 'the stop is heard again');
      await ask(socket, 'task.result', { taskId: b.id, token: 't', report: { kind: 'lost' } });
      world.bus.stop(message);
      await ask(socket, 'worker.heartbeat', { held: [] });
      expect(stops).to.deep.equal([message, message]);
    });

    it('hears of a stop of what it was told to keep', async () => {
      const stops: unknown[] = [];
      socket.on('STOP', (message) => stops.push(message));
      const { id, executionId } = taskOf('a');
      await ask(socket, 'worker.hello', { ...hello, held: [{ taskId: id, token: 't' }] });
      world.bus.stop({ executionId, requestId: 'r' });
      await until(() => stops.length === 1, 'the stop is heard');
    });

    it('keeps what is on its way to it when it says hello again', async () => {
      await ask(socket, 'worker.hello', hello);
      const task = taskOf('a');
      world.gate.link.run(task, 't');
      await ask(socket, 'worker.hello', { ...hello, slots: 0 });
      expect(world.gate.hellos.at(-1)).to.deep.equal([{ taskId: task.id, token: 't' }]);
      expect(world.gate.link.slots).to.equal(0);
    });

    it('is hung up on when its key is deleted, and cannot come back', async () => {
      await ask(socket, 'worker.hello', hello);
      const { status } = await world.http(ADMIN_KEY, 'DELETE', `/api/keys/${keyId}`);
      expect(status).to.equal(204);
      await until(() => !socket.connected, 'it is hung up on');
      expect(world.gate.gone).to.deep.equal([world.gate.link]);
      socket.connect();
      const code = await new Promise((resolve) =>
        socket.once('connect_error', (error) => resolve((error as { data?: { code?: string } }).data?.code)),
      );
      expect(code).to.equal('FS_UNAUTHENTICATED');
    });

    it('is refused at its next heartbeat when the deletion was not heard of', async () => {
      await ask(socket, 'worker.hello', hello);
      await world.store.deleteKey(keyId, null);
      world.skewMs = 60_000;
      expect((await ask(socket, 'worker.heartbeat', { held: [] })).error?.code).to.equal('FS_UNAUTHENTICATED');
      await until(() => !socket.connected, 'it is hung up on');
    });

    it('takes the place of its own older connection, and no other key may', async () => {
      await ask(socket, 'worker.hello', hello);
      const [first] = world.gate.links;
      const { key: another } = await world.key('worker');
      const thief = await world.connect('/workers', { token: another });
      expect((await ask(thief, 'worker.hello', hello)).error?.code).to.equal('FS_CONFLICT');
      const again = await world.connect('/workers', socket.auth as { token: string });
      expect((await ask(again, 'worker.hello', hello)).ok).to.equal(true);
      await until(() => !socket.connected, 'the older one is hung up on');
      expect(world.gate.gone).to.deep.equal([first]);
      expect(again.connected).to.equal(true);
    });

    it('is hung up on by the engine', async () => {
      await ask(socket, 'worker.hello', hello);
      world.gate.link.close();
      await until(() => !socket.connected, 'it is hung up on');
    });

    it('gets a coded answer to anything, and never ends the server', async () => {
      await ask(socket, 'worker.hello', hello);
      const wire = (json: string) => JSON.parse(json) as unknown;
      const bad: [string, ...unknown[]][] = [
        ['worker.hello', {}],
        ['worker.hello', { ...hello, workerId: { $ne: 1 } }],
        ['worker.hello', { ...hello, slots: 1e9 }],
        ['worker.hello', { ...hello, slots: -1 }],
        ['worker.hello', { ...hello, name: 'x'.repeat(201) }],
        ['worker.hello', { ...hello, held: [{ taskId: ['a'], token: 't' }] }],
        ['worker.hello', { ...hello, workerId: '0190b0a0-1111-4000-8000-000000000009' }],
        ['worker.hello', hello, hello],
        ['worker.hello'],
        ['worker.heartbeat', { held: 'a' }],
        ['worker.heartbeat', { held: [{ $gt: '' }] }],
        ['worker.heartbeat', { held: ['x'.repeat(2_001)] }],
        ['worker.heartbeat', wire('{"held":[],"__proto__":{"held":["a"]}}')],
        ['task.result', { taskId: 'a', token: 't' }],
        ['task.result', { taskId: 'a', token: 't', report: { kind: 'won' } }],
        ['task.result', { taskId: { a: 1 }, token: 't', report: { kind: 'lost' } }],
        ['task.result', { taskId: 'a', token: 't', report: { kind: 'aborted', outcome: 'agentRunsOn' } }],
        ['task.result', { taskId: 'a', token: 't', report: wire('{"kind":"completed","output":{"__proto__":1}}') }],
        ['task.result', { taskId: 'a', token: 't', report: { kind: 'completed', output: Buffer.from('x') } }],
        ['task.log', { taskId: 'a', token: 't', stream: 'stdin', text: 'x' }],
        ['task.log', { taskId: 'a', token: 't', stream: 'stdout', text: 'x'.repeat(65_537) }],
        ['constructor', {}],
        ['toString', {}],
      ];
      for (const [name, ...payload] of bad) {
        const answer = await ask(socket, name, ...payload);
        expect(answer, `${name} ${JSON.stringify(payload).slice(0, 100)}`).to.have.nested.property(
          'error.code',
          'FS_INVALID',
        );
      }
      expect([world.gate.results, world.gate.beats, world.gate.logs]).to.deep.equal([[], [], []]);
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom('worker.heartbeat', 'task.result', 'task.part', 'task.log'),
          fc.jsonValue(),
          async (name, payload) => {
            expect((await ask(socket, name, payload)).error?.code).to.equal('FS_INVALID');
          },
        ),
        { numRuns: 100 },
      );
      expect((await ask(socket, 'worker.heartbeat', { held: [] })).ok).to.equal(true);
    });

    it('reports a code that nobody knows as FS_FAILED', async () => {
      await ask(socket, 'worker.hello', hello);
      for (const code of ['FS_NEW', 'toString', '__proto__']) {
        const report = { kind: 'failed', error: 'no', code, retryable: true };
        await ask(socket, 'task.result', { taskId: 'a', token: 't', report });
        expect(world.gate.results.at(-1)?.report).to.deep.equal({ ...report, code: 'FS_FAILED' });
      }
    });
  });

  it('speak on the link of their last answered hello while the next one waits', async () => {
    const { key } = await world.key('worker');
    const socket = await world.connect('/workers', { token: key });
    await ask(socket, 'worker.hello', hello);
    const [first] = world.gate.links;
    let answer = (_keep: string[]): void => undefined;
    world.gate.keep = () => new Promise((resolve) => (answer = resolve));
    const again = ask(socket, 'worker.hello', { ...hello, slots: 1 });
    await until(() => world.gate.links.length === 2, 'the second hello is there');
    await ask(socket, 'task.result', { taskId: 'x/a/-/1', token: 't', report: { kind: 'lost' } });
    answer([]);
    expect((await again).ok).to.equal(true);
    await ask(socket, 'task.result', { taskId: 'x/a/-/2', token: 't', report: { kind: 'lost' } });
    expect(world.gate.results.map(({ link }) => link)).to.deep.equal([first, world.gate.links[1]]);
  });

  it('are gone also where their hello was not answered yet', async () => {
    const { key } = await world.key('worker');
    const socket = await world.connect('/workers', { token: key });
    world.gate.keep = () => new Promise(() => undefined);
    void ask(socket, 'worker.hello', hello).catch(() => undefined);
    await until(() => world.gate.links.length === 1, 'the hello is there');
    socket.disconnect();
    await until(() => world.gate.gone.length === 1, 'its end is told');
    expect(world.gate.gone).to.deep.equal(world.gate.links);
  });

  it('keep their id where the hello of another connection failed', async () => {
    const { key } = await world.key('worker');
    const socket = await world.connect('/workers', { token: key });
    await ask(socket, 'worker.hello', hello);
    world.gate.keep = () => Promise.reject(new Error('the store is away'));
    const second = await world.connect('/workers', { token: key });
    expect((await ask(second, 'worker.hello', hello)).ok).to.equal(false);
    expect(socket.connected).to.equal(true);
    const other = await world.connect('/workers', { token: (await world.key('worker')).key });
    expect((await ask(other, 'worker.hello', hello)).error?.code).to.equal('FS_CONFLICT');
    second.disconnect();
    await pause(30);
    expect(world.gate.gone).to.deep.equal([]);
    expect((await ask(other, 'worker.hello', hello)).error?.code).to.equal('FS_CONFLICT');
  });

  it('hear no stop as an agent, which nobody can cancel', async () => {
    const { key } = await world.key('agent');
    const agent = await world.connect('/agents', { token: key });
    const heard: string[] = [];
    agent.onAny((name) => heard.push(name));
    await ask(agent, 'worker.hello', hello);
    const task = taskOf('a', { type: 'agent', where: 'agent' });
    world.gate.link.run(task, 't');
    world.bus.stop({ executionId: task.executionId, requestId: 'r' });
    await pause(30);
    await ask(agent, 'worker.heartbeat', { held: [task.id] });
    expect(heard).to.deep.equal(['task.run']);
  });

  it('show who is there to an admin of all projects, and what is missing to those with a key', async () => {
    const { key } = await world.key('worker');
    await ask(await world.connect('/workers', { token: key }), 'worker.hello', hello);
    const { status, data } = await world.http(ADMIN_KEY, 'GET', '/api/workers');
    expect(status).to.equal(200);
    expect(data).to.deep.equal({
      items: [
        {
          id: WORKER,
          name: 'w',
          kind: 'worker',
          capabilities: ['http'],
          slots: 2,
          held: 0,
          connected: true,
          silentMs: 1,
        },
      ],
      nextCursor: null,
    });
    expect((await world.http(key, 'GET', '/api/workers')).status).to.equal(403);
    world.gate.missingNow = { container: 3 };
    const viewer = await world.key('viewer');
    expect((await world.http(viewer.key, 'GET', '/api/health')).data.missing).to.deep.equal({ container: 3 });
    expect((await world.http(null, 'GET', '/api/health')).data).to.deep.equal({ status: 'ok' });
  });
});
