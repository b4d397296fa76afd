/** A listening server over a real engine, watched with the receiver of `@statelyai/inspect` 0.7. */
import { setTimeout as sleep } from 'node:timers/promises';
import { createWebSocketReceiver, type StatelyInspectionEvent } from '@statelyai/inspect';
import { expect } from 'chai';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import type { AnyActorRef } from 'xstate';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds, systemTokens } from '../../src/adapters/system/ids.ts';
import { loadDefinition } from '../../src/definition/compile.ts';
import type { EngineApi } from '../../src/engine/api.ts';
import { executionActorId, Inspections } from '../../src/engine/inspection.ts';
import { STOPPED_MESSAGE } from '../../src/errors.ts';
import type { Clock } from '../../src/ports/clock.ts';
import type { Expressions } from '../../src/ports/expressions.ts';
import type { ExecutionStore } from '../../src/ports/store.ts';
import { composeEngine } from '../../src/runtime.ts';
import { hashKey } from '../../src/server/access.ts';
import { createServer, type RunningServer } from '../../src/server/server.ts';
import type { Inspection, Role, StopReceipt } from '../../src/wire.ts';
import { FakeWork } from '../support/engine.ts';
import { opened } from '../support/leaks.ts';

const ADMIN_KEY = 'first-admin-key';
const CANARY = 'canary-7f3a';
const FOREIGN = 'https://viewer.example';

const flow = {
  name: 'flow',
  inputs: { secret: { type: 'string', default: '' } },
  nodes: {
    prepare: { type: 'set', with: { value: `${CANARY}-output \${{ input.secret }}` } },
    call: {
      type: 'http',
      needs: ['prepare'],
      with: { url: `https://x.example/?q=${CANARY}` },
      retry: { attempts: 3, backoff: '10ms' },
    },
    after: { type: 'set', needs: ['call'], with: { value: '${{ nodes.call.output }}' } },
  },
};
const held = { name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } };

/** Held back until the test lets it go. */
interface Gate {
  commits: Promise<unknown> | null;
}

interface HttpAnswer {
  status: number;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: answers are checked field by field.
  data: any;
}

interface World {
  server: RunningServer;
  store: MemoryStore;
  engine: EngineApi;
  work: FakeWork;
  gate: Gate;
  /** Observers of the actor system now. */
  observers(): number;
  /** Added to the time the server sees. */
  skewMs: number;
  /** The server's timers that wait. */
  timers: Set<{ run: () => void }>;
  start(definition?: object, input?: object): Promise<string>;
  key(role: Role, project: string): Promise<{ id: string; key: string }>;
  http(key: string, method: string, path: string, body?: unknown): Promise<HttpAnswer>;
  token(id: string, key?: string): Promise<string>;
  close(): Promise<void>;
}

async function openWorld(inspectOrigins: readonly string[] | null = [FOREIGN]): Promise<World> {
  const closed = opened('inspection world');
  const store = createMemoryStore();
  await store.open();
  const gate: Gate = { commits: null };
  const gated = new Proxy(store, {
    get: (target, name: keyof ExecutionStore) => {
      if (name === 'trouble') return () => target.trouble();
      if (name === 'cluster') return target.cluster;
      return async (...args: unknown[]) => {
        const given = structuredClone(args);
        if (name === 'commit') await gate.commits;
        return (target[name] as (...all: unknown[]) => unknown).apply(target, given);
      };
    },
  });
  const expressions: Expressions & { close(): Promise<void> } = createExpressions();
  const work = new FakeWork(systemClock as never, () => undefined);
  const bus = new SocketIoBus();
  const logger = pino({ level: 'silent' });
  const engine = composeEngine(
    { store: gated, bus, clock: systemClock, ids: systemIds, expressions, work, tokens: systemTokens, log: logger },
    { sweepMs: 20, stopGraceMs: 300 },
  );
  await engine.start();
  const { system } = (engine as unknown as { registryActor: AnyActorRef }).registryActor;
  let observers = 0;
  const { inspect } = system;
  system.inspect = (observer) => {
    observers += 1;
    const subscription = inspect(observer as never);
    return {
      unsubscribe() {
        observers -= 1;
        subscription.unsubscribe();
      },
    };
  };
  const world = { skewMs: 0, timers: new Set() } as World;
  const clock: Clock = {
    ...systemClock,
    nowMs: () => Date.now() + world.skewMs,
    setTimer(delayMs, run) {
      const timer = {
        run: () => {
          world.timers.delete(timer);
          systemClock.clearTimer(handle);
          run();
        },
      };
      const handle = systemClock.setTimer(delayMs, timer.run);
      world.timers.add(timer);
      return { timer, handle };
    },
    clearTimer(given) {
      const { timer, handle } = given as { timer: { run: () => void }; handle: unknown };
      world.timers.delete(timer);
      systemClock.clearTimer(handle);
    },
  };
  const server = await createServer({
    store,
    engine,
    bus,
    clock,
    ids: systemIds,
    logger,
    config: { host: '127.0.0.1', port: 0, adminKeyHash: hashKey(ADMIN_KEY), drainMs: 10, inspectOrigins },
  });
  const http: World['http'] = async (key, method, path, body) => {
    const answer = await fetch(server.url + path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, text, data: text.startsWith('{') ? JSON.parse(text) : null };
  };
  return Object.assign(world, {
    server,
    store,
    engine,
    work,
    gate,
    observers: () => observers,
    http,
    async start(definition = flow, input = {}) {
      const { source, hash, compiled } = loadDefinition(definition);
      await store.saveDefinition({ project: 'default', name: compiled.name, hash, source, savedAtMs: 0 });
      await engine.workflowChanged('default', compiled.name);
      const { header } = await engine.startExecution({
        project: 'default',
        workflow: compiled.name,
        input: input as never,
        labels: {},
        idempotencyKey: null,
      });
      return header.id;
    },
    async key(role, project) {
      const made = await http(ADMIN_KEY, 'POST', '/api/keys', { name: role, role, project });
      return made.data;
    },
    async token(id, key = ADMIN_KEY) {
      const made = await http(key, 'POST', `/api/executions/${id}/inspections`);
      expect(made.status, made.text).to.equal(201);
      return (made.data as Inspection).path;
    },
    async close() {
      await engine.drain(0);
      await server.close();
      await expressions.close();
      await store.close();
      closed();
    },
  } satisfies Omit<World, 'skewMs' | 'timers'>);
}

async function until<T>(what: string, look: () => T | Promise<T>, fits: (value: T) => boolean = Boolean): Promise<T> {
  const untilMs = performance.now() + 5_000;
  for (;;) {
    const value = await look();
    if (fits(value)) return value;
    if (performance.now() > untilMs) throw new Error(`${what}: still ${JSON.stringify(value)}`);
    await sleep(5);
  }
}

/** A viewer without the package, for what the receiver cannot do. */
class Viewer {
  readonly socket: WebSocket;
  readonly frames: string[] = [];
  /** The code of the close; the HTTP status where it was never let in. */
  readonly ended: Promise<number>;
  readonly opened: Promise<boolean>;

  constructor(url: string, headers: Record<string, string> = {}) {
    this.socket = new WebSocket(url, { headers });
    this.socket.on('message', (data) => this.frames.push(data.toString()));
    this.socket.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      this.socket.on('close', (code) => resolve(code));
      this.socket.on('unexpected-response', (request, response) => {
        resolve(response.statusCode ?? 0);
        request.destroy();
      });
    });
    this.opened = new Promise((resolve) => {
      this.socket.on('open', () => resolve(true));
      void this.ended.then(() => resolve(false));
    });
  }

  // biome-ignore lint/suspicious/noExplicitAny: frames are checked field by field.
  get events(): any[] {
    return this.frames.map((frame) => JSON.parse(frame));
  }

  send(value: unknown): void {
    this.socket.send(typeof value === 'string' || value instanceof Buffer ? value : JSON.stringify(value));
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.ended;
  }
}

const stopEvent = (id: string): object => ({
  type: '@xstate.event',
  sessionId: executionActorId(id),
  event: { type: 'execution.stop' },
});

describe('inspection', () => {
  let world: World;
  const viewers: Viewer[] = [];
  beforeEach(async () => {
    world = await openWorld();
  });
  afterEach(async () => {
    for (const viewer of viewers.splice(0)) viewer.socket.terminate();
    await world.close();
  });

  const address = (path: string): string => world.server.url.replace('http', 'ws') + path;
  const view = (path: string, headers: Record<string, string> = {}): Viewer => {
    const viewer = new Viewer(address(path), headers);
    viewers.push(viewer);
    return viewer;
  };
  const runs = (definition?: object, input?: object): Promise<string> =>
    world.start(definition, input).then(async (id) => {
      await until('a task', () => world.work.running.length > 0);
      return id;
    });
  const record = async (id: string) => (await world.store.getExecution(id))?.header;
  const stops = async () =>
    (await world.store.listAudit(null, undefined, 100)).items.filter(({ verb }) => verb === 'execution.stop');
  /** Behind the engine's interface: whether an execution is in memory, and its actor. */
  const hostOf = (id: string) =>
    (world.engine as unknown as { hostOf(id: string): { actor: AnyActorRef } | null }).hostOf(id);
  const states = (events: StatelyInspectionEvent[], sessionId: string): unknown[] =>
    events.flatMap((event) =>
      event.sessionId === sessionId && event.type === '@xstate.snapshot'
        ? [(event.snapshot as { value?: unknown }).value]
        : [],
    );

  describe('with the receiver of @statelyai/inspect', () => {
    it('shows the actors with their machines, snapshots while nodes run, and the stop', async () => {
      const id = await runs();
      const events: StatelyInspectionEvent[] = [];
      const receiver = createWebSocketReceiver({ server: address(await world.token(id)) });
      receiver.subscribe((event) => void events.push(event));
      const execution = executionActorId(id);
      const actors = await until(
        'actors',
        () => events.filter((event) => event.type === '@xstate.actor'),
        ({ length }) => length >= 2,
      );
      expect(actors.map(({ sessionId, parentId }) => [sessionId, parentId])).to.deep.equal([
        [execution, undefined],
        [`node:${id}/call/-`, execution],
      ]);
      expect(actors.map(({ snapshot }) => snapshot)).to.deep.equal([
        { status: 'active', value: 'running' },
        { status: 'active', value: 'running' },
      ]);
      for (const { definition, rootId } of actors) {
        expect(rootId).to.equal(execution);
        const machine = JSON.parse(definition as string);
        expect(machine.states.running.on).to.be.an('object');
        expect(machine).not.to.have.property('context');
      }
      expect(actors[0]?.definition).to.include('"guard":"allSettled"').and.include('"startNodes"');

      world.work.answer('call', { kind: 'failed', error: 'no', code: 'FS_HTTP_STATUS', retryable: true });
      const node = actors[1]?.sessionId as string;
      await until(
        'the second try',
        () => states(events, node),
        (seen) => seen.join().includes('backingOff,running'),
      );
      expect(events.some((event) => event.type === '@xstate.event' && event.event.type === 'work.failed')).to.equal(
        true,
      );

      expect((await world.http(ADMIN_KEY, 'POST', `/api/executions/${id}/stop`)).status).to.equal(202);
      await until(
        'its end',
        () => states(events, execution),
        (seen) => seen.at(-1) === 'failed',
      );
      expect(states(events, execution)).to.include('stopping');
      expect(states(events, node)).to.include('aborting');
      expect(events.some((event) => event.type === '@xstate.event' && event.event.type === 'execution.stop')).to.equal(
        true,
      );
      const last = events.findLast((event) => event.type === '@xstate.snapshot' && event.sessionId === execution);
      expect((last as { snapshot: object }).snapshot).to.deep.equal({ status: 'done', value: 'failed' });
    });
  });

  it('shows no other execution', async () => {
    const [id, other] = [await runs(), await world.start()];
    const viewer = view(await world.token(id));
    await until('frames', () => viewer.frames.length > 0);
    await world.engine.requestStop(other);
    await until('the end of the other', async () => (await record(other))?.endedAtMs != null);
    await world.engine.requestStop(id);
    await until('the end', () => viewer.frames.some((frame) => frame.includes('"done","value":"failed"')));
    expect(viewer.frames.join()).to.include(id).and.not.include(other);
  });

  it('shows one that waits, one that is parked, and one that has ended, from its record', async () => {
    const held1 = await world.start({ ...held, name: 'held-1' });
    await until(
      'parked',
      () => world.engine.metrics().live.parked,
      (count) => count === 1,
    );
    await until('out of memory', () => hostOf(held1) === null);
    const viewer = view(await world.token(held1));
    const actors = await until(
      'actors',
      () => viewer.events,
      ({ length }) => length === 2,
    );
    expect(actors.map(({ type, snapshot }) => [type, snapshot.value])).to.deep.equal([
      ['@xstate.actor', 'running'],
      ['@xstate.actor', 'held'],
    ]);
    viewer.send(stopEvent(held1));
    await until(
      'its end',
      () => viewer.events.at(-1),
      (event) => event.snapshot?.value === 'failed',
    );
    const late = view(await world.token(held1));
    const [only] = await until(
      'an actor',
      () => late.events,
      ({ length }) => length > 0,
    );
    expect(only.snapshot).to.deep.equal({ status: 'done', value: 'failed' });
  });

  it('tells nothing before it is durable', async () => {
    const id = await runs();
    const viewer = view(await world.token(id));
    await until('actors', () => viewer.frames.length >= 2);
    let release = (): void => undefined;
    world.gate.commits = new Promise<void>((resolve) => {
      release = resolve;
    });
    const before = viewer.frames.length;
    world.work.answer('call', { kind: 'completed', output: {} });
    await sleep(100);
    // A newcomer sees no more than the others.
    const newcomer = view(await world.token(id));
    await newcomer.opened;
    await sleep(50);
    expect([viewer.frames.length, newcomer.frames.length]).to.deep.equal([before, 0]);
    world.gate.commits = null;
    release();
    await until(
      'the end',
      () => viewer.events.at(-1),
      (event) => event.snapshot?.value === 'complete',
    );
    await until('the end', () => newcomer.events.at(-1)?.snapshot?.value === 'complete');
  });

  it('does not tell what a stop took back', async () => {
    const id = await runs();
    const viewer = view(await world.token(id));
    await until('actors', () => viewer.frames.length >= 2);
    let release = (): void => undefined;
    world.gate.commits = new Promise<void>((resolve) => {
      release = resolve;
    });
    world.work.answer('call', { kind: 'completed', output: {} });
    await sleep(20);
    await world.engine.requestStop(id);
    world.gate.commits = null;
    release();
    await until('the end', async () => (await record(id))?.endedAtMs != null);
    await until('the end', () => viewer.events.at(-1)?.snapshot?.value === 'failed');
    expect(viewer.events.map(({ snapshot }) => snapshot?.value)).not.to.include('complete');
  });

  describe('the token', () => {
    it('is random, kept as a hash alone, and good for one hour', async () => {
      const id = await runs();
      const made = await world.http(ADMIN_KEY, 'POST', `/api/executions/${id}/inspections`);
      const { path, expiresAt } = made.data as Inspection;
      expect(path).to.match(/^\/inspect\/[\w-]{43}$/);
      expect(Date.parse(expiresAt) - Date.now()).to.be.within(3_590_000, 3_600_000);
      expect(await world.token(id)).not.to.equal(path);
      world.skewMs = 3_590_000;
      expect(await view(path).opened).to.equal(true);
      world.skewMs = 3_601_000;
      expect(await view(path).ended).to.equal(404);
    });

    it('ends what it let in when its hour is over', async () => {
      const id = await runs();
      const viewer = view(await world.token(id));
      await until('frames', () => viewer.frames.length > 0);
      world.skewMs = 3_601_000;
      viewer.send(stopEvent(id));
      expect(await viewer.ended).to.equal(1008);
      const other = view(await world.token(id));
      await until('frames', () => other.frames.length > 0);
      world.skewMs = 2 * 3_601_000;
      for (const timer of [...world.timers]) timer.run();
      expect(await other.ended).to.equal(1008);
      expect((await record(id))?.stop).to.equal(null);
      await until(
        'nobody looks',
        () => world.observers(),
        (count) => count === 0,
      );
    });

    it('is nothing when it is unknown, cut, or more than itself', async () => {
      const path = await world.token(await runs());
      for (const wrong of ['/inspect/', `/inspect/${'A'.repeat(43)}`, path.slice(0, -1), `${path}?x=1`, `${path}/`]) {
        expect(await view(wrong).ended, wrong).to.equal(404);
      }
      expect((await world.http(ADMIN_KEY, 'GET', path)).status).to.equal(404);
      expect(await view(path).opened).to.equal(true);
    });

    it('is of no use for another execution', async () => {
      const [id, other] = [await runs(), await world.start()];
      const viewer = view(await world.token(id));
      await viewer.opened;
      viewer.send(stopEvent(other));
      await refusals(1);
      expect((await record(other))?.stop).to.equal(null);
      expect((await record(id))?.stop).to.equal(null);
    });

    it('ends with the key that made it', async () => {
      const id = await runs();
      const { id: keyId, key } = await world.key('viewer', 'default');
      const path = await world.token(id, key);
      const [viewer, silent, kept] = [view(path), view(path), view(await world.token(id))];
      await until('frames', () => [viewer, silent, kept].every(({ frames }) => frames.length > 0));
      expect((await world.http(ADMIN_KEY, 'DELETE', `/api/keys/${keyId}`)).status).to.equal(204);
      viewer.send(stopEvent(id));
      expect(await viewer.ended).to.equal(1008);
      // At once, not when it is next looked after.
      await until('hung up', () => silent.socket.readyState === WebSocket.CLOSED);
      expect(await view(path).ended).to.equal(404);
      expect((await record(id))?.stop).to.equal(null);
      expect(kept.socket.readyState).to.equal(WebSocket.OPEN);
    });

    it('ends with a key that another server deleted', async () => {
      const id = await runs();
      const { id: keyId, key } = await world.key('viewer', 'default');
      const path = await world.token(id, key);
      const [viewer, silent] = [view(path), view(path)];
      await until('frames', () => viewer.frames.length > 0 && silent.frames.length > 0);
      await world.store.deleteKey(keyId, null);
      viewer.send(stopEvent(id));
      expect(await viewer.ended).to.equal(1008);
      for (const timer of [...world.timers]) timer.run();
      expect(await silent.ended).to.equal(1008);
      expect(await view(path).ended).to.equal(1008);
      expect((await record(id))?.stop).to.equal(null);
    });

    it('is not made for an execution the key may not see, nor when inspection is off', async () => {
      const id = await runs();
      const { key } = await world.key('admin', 'alpha');
      expect((await world.http(key, 'POST', `/api/executions/${id}/inspections`)).status).to.equal(404);
      await world.close();
      world = await openWorld(null);
      const made = await world.http(ADMIN_KEY, 'POST', `/api/executions/${await runs()}/inspections`);
      expect([made.status, made.data.code]).to.deep.equal([409, 'FS_DISABLED']);
      expect(await view(`/inspect/${'A'.repeat(43)}`).ended).to.equal(404);
    });
  });

  it('lets in programs, pages of this server and those that are listed, and no other page', async () => {
    const path = await world.token(await runs());
    const { host } = new URL(world.server.url);
    for (const origin of [`http://${host}`, FOREIGN])
      expect(await view(path, { origin }).opened, origin).to.equal(true);
    for (const origin of ['https://evil.example', `${FOREIGN}.evil.example`, 'null', 'http://viewer.example']) {
      expect(await view(path, { origin }).ended, origin).to.equal(403);
    }
    expect(await view(path, { host: 'evil.example' }).ended).to.equal(403);
    await world.close();
    world = await openWorld([]);
    expect(await view(await world.token(await runs()), { origin: FOREIGN }).ended).to.equal(403);
  });

  describe('from a viewer', () => {
    it('takes execution.stop as the stop verb does: audited with the key that made the token, with a receipt', async () => {
      const id = await runs();
      const { id: keyId, key } = await world.key('viewer', 'default');
      const viewer = view(await world.token(id, key));
      await viewer.opened;
      viewer.send({ ...stopEvent(id), _version: '0.7.2', createdAt: '1', id: null, rootId: 'anonymous' });
      await until('its end', async () => (await record(id))?.endedAtMs != null);
      expect((await record(id))?.error).to.equal(STOPPED_MESSAGE);
      const receipt = await world.http(key, 'GET', `/api/executions/${id}/stop`);
      expect((receipt.data as StopReceipt).tasks).to.deep.include.members([
        { ...(receipt.data as StopReceipt).tasks[0], outcome: 'aborted' },
      ]);
      const [entry] = await until('the entry', stops, (found) => found[0]?.outcome === 'requested');
      expect(entry).to.deep.include({ target: id, project: 'default' });
      expect(entry?.actor?.keyId).to.equal(keyId);
      expect(world.work.aborted).to.have.length(1);
      viewer.send(stopEvent(id));
      await until('the second entry', stops, (found) => found.length === 2 && found[0]?.outcome !== null);
    });

    it('takes nothing else: forged events, other types, garbage', async () => {
      const id = await runs();
      const viewer = view(await world.token(id));
      await until('actors', () => viewer.frames.length >= 2);
      const frames = viewer.frames.length;
      const execution = executionActorId(id);
      const node = `node:${id}/call/-`;
      const event = (sessionId: string, inner: unknown): object => ({ type: '@xstate.event', sessionId, event: inner });
      const forged: unknown[] = [
        event(execution, { type: `xstate.done.actor.${node}`, output: 1 }),
        event(execution, { type: 'execution.concluded', failure: null }),
        event(execution, { type: 'execution.abort', verdict: { error: 'x', errorCode: 'y' } }),
        event(execution, { type: 'execution.stop', reason: 'because' }),
        event(execution, { type: 'STOP' }),
        event(node, { type: 'work.completed' }),
        event(node, { type: 'execution.stop' }),
        event('engine', { type: 'engine.drain' }),
        event('engine', { type: 'execution.stop' }),
        { ...stopEvent(id), type: '@xstate.snapshot' },
        { ...stopEvent(id), extra: 1 },
        { type: 'execution.stop' },
        { type: 'xstate.event', event: '{"type":"execution.stop"}', sessionId: execution },
        '',
        'null',
        '[]',
        '{',
        '{"__proto__":{"type":"@xstate.event"}}',
        Buffer.from(JSON.stringify(stopEvent(id))),
      ];
      for (const message of forged) viewer.send(message);
      await refusals(forged.length);
      await sleep(50);
      expect(viewer.frames.length).to.equal(frames);
      expect(world.work.running).to.have.length(1);
      const header = await record(id);
      expect([header?.status, header?.stop]).to.deep.equal(['Running', null]);
      expect(await stops()).to.deep.equal([]);
    });

    it('refuses a frame of 1 MB, and hangs up on one that goes on', async () => {
      const id = await runs();
      const [large, noisy] = [view(await world.token(id)), view(await world.token(id))];
      await Promise.all([large.opened, noisy.opened]);
      large.send(JSON.stringify({ ...stopEvent(id), padding: 'x'.repeat(1_048_576) }));
      expect(await large.ended).to.equal(1009);
      await refusals(1);
      for (let index = 0; index < 200; index += 1) noisy.send('nonsense');
      expect(await noisy.ended).to.equal(1008);
      expect((await record(id))?.stop).to.equal(null);
    });
  });

  it('sends names and states, and nothing else', async () => {
    const id = await runs(flow, { secret: `${CANARY}-input` });
    const viewer = view(await world.token(id));
    await until('actors', () => viewer.frames.length >= 2);
    world.work.answer('call', {
      kind: 'failed',
      error: `${CANARY}-error`,
      code: 'FS_HTTP_STATUS',
      retryable: true,
    });
    await until('the next try', () => viewer.frames.join().includes('backingOff') && world.work.running.length > 0);
    world.work.answer('call', { kind: 'completed', output: `${CANARY}-result` });
    await until(
      'the end',
      () => viewer.events.at(-1),
      (event) => event.snapshot?.value === 'complete',
    );
    const all = viewer.frames.join('\n');
    expect(all).not.to.include(CANARY).and.not.include('=>').and.not.include('function');
    const keys = new Set(viewer.events.flatMap((event) => Object.keys(event)));
    expect([...keys]).to.have.members([
      ...['type', 'name', 'parentId', 'definition', 'snapshot', 'sessionId', 'rootId', 'createdAt', 'id', '_version'],
      ...['event', 'sourceId'],
    ]);
    for (const { event, snapshot } of viewer.events) {
      if (event !== undefined) expect(event).to.have.all.keys('type');
      if (snapshot !== undefined)
        expect(Object.keys(snapshot)).to.have.members('value' in snapshot ? ['status', 'value'] : ['status']);
    }
  });

  it('observes the actors only while somebody looks', async () => {
    const [id, other] = [await runs(), await world.start()];
    const path = await world.token(id);
    expect(world.observers()).to.equal(0);
    const [one, two, three] = [view(path), view(path), view(await world.token(other))];
    await until('frames', () => [one, two, three].every((viewer) => viewer.frames.length > 0));
    expect(world.observers()).to.equal(1);
    await Promise.all([one.close(), three.close()]);
    expect(world.observers()).to.equal(1);
    const frames = two.frames.length;
    world.work.answer('call', { kind: 'completed', output: {} });
    await until('more', () => two.frames.length > frames);
    await two.close();
    await until(
      'nobody',
      () => world.observers(),
      (count) => count === 0,
    );
  });

  it('hangs up on a viewer that does not read', async function () {
    this.timeout(30_000);
    const id = await runs();
    const viewer = view(await world.token(id));
    await until('actors', () => viewer.frames.length >= 2);
    viewer.socket.pause();
    const actor = hostOf(id)?.actor as AnyActorRef;
    // Events that the chart ignores: each is told, and changes nothing.
    for (let round = 0; round < 200 && world.observers() > 0; round += 1) {
      for (let index = 0; index < 1_000; index += 1) actor.send({ type: 'node.ignored' } as never);
      await sleep(1);
    }
    expect(world.observers()).to.equal(0);
    expect((await record(id))?.status).to.equal('Running');
  });

  it('hangs up on a viewer that has gone without a word', async () => {
    const [gone, there] = [view(await world.token(await runs())), view(await world.token(await world.start()))];
    await until('frames', () => gone.frames.length > 0 && there.frames.length > 0);
    gone.socket.pause();
    for (let round = 0; round < 2; round += 1) {
      for (const timer of [...world.timers]) timer.run();
      await sleep(100);
    }
    await until(
      'one check',
      () => world.timers.size,
      (count) => count === 1,
    );
    expect(there.socket.readyState).to.equal(WebSocket.OPEN);
  });

  it('ends with the server', async () => {
    const viewer = view(await world.token(await runs()));
    await until('frames', () => viewer.frames.length > 0);
    await world.engine.drain(0);
    await world.server.close();
    expect(await viewer.ended).to.be.oneOf([1001, 1006]);
    expect(world.observers()).to.equal(0);
  });

  async function refusals(count: number): Promise<void> {
    const read = async (): Promise<number> => {
      const { text } = await world.http(ADMIN_KEY, 'GET', '/metrics');
      return Number(/^fullstop_inspection_refusals_total (\d+)$/m.exec(text)?.[1]);
    };
    await until('refusals', read, (found) => found === count);
  }
});

describe('inspections of an engine', () => {
  it('convert nothing of executions that nobody looks at', () => {
    let observe: (event: unknown) => void = () => undefined;
    const system = {
      inspect(next: typeof observe) {
        observe = next;
        return { unsubscribe: () => undefined };
      },
    };
    const env = { clock: systemClock, log: pino({ level: 'silent' }), hostOf: () => null, read: async () => null };
    const inspections = new Inspections(env, system as never);
    const id = systemIds.next();
    inspections.observe(id, { tell: () => undefined, lost: () => undefined });
    const touched: PropertyKey[] = [];
    const event = (actorId: string): object =>
      new Proxy(
        { type: '@xstate.event', actorRef: { id: actorId }, event: { type: 'x' } },
        {
          get(target, name) {
            touched.push(name);
            return Reflect.get(target, name);
          },
        },
      );
    for (const actorId of [executionActorId(systemIds.next()), `node:${systemIds.next()}/a`, 'engine', 'executions'])
      observe(event(actorId));
    expect(new Set(touched)).to.deep.equal(new Set(['type', 'actorRef']));
    observe(event(executionActorId(id)));
    expect(touched).to.include('event');
    inspections.close();
  });
});
