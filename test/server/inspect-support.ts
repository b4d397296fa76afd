/** A listening server over a real engine, and viewers of both protocols. */
import { setTimeout as sleep } from 'node:timers/promises';
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
import { executionActorId } from '../../src/engine/inspection.ts';
import type { Clock } from '../../src/ports/clock.ts';
import type { Expressions } from '../../src/ports/expressions.ts';
import type { ExecutionStore } from '../../src/ports/store.ts';
import { composeEngine } from '../../src/runtime.ts';
import { hashKey } from '../../src/server/access.ts';
import { createServer, type RunningServer } from '../../src/server/server.ts';
import type { Inspection, Role } from '../../src/wire.ts';
import { FakeWork } from '../support/engine.ts';
import { opened } from '../support/leaks.ts';

export const ADMIN_KEY = 'first-admin-key';
export const CANARY = 'canary-7f3a';
export const FOREIGN = 'https://viewer.example';

export const flow = {
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
export const held = { name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } };

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

export interface World {
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
  /** The path that the verb answers. */
  token(id: string, key?: string): Promise<string>;
  close(): Promise<void>;
}

export async function openWorld(inspectOrigins: readonly string[] | null = [FOREIGN]): Promise<World> {
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

export async function until<T>(
  what: string,
  look: () => T | Promise<T>,
  fits: (value: T) => boolean = Boolean,
): Promise<T> {
  const untilMs = performance.now() + 5_000;
  for (;;) {
    const value = await look();
    if (fits(value)) return value;
    if (performance.now() > untilMs) throw new Error(`${what}: still ${JSON.stringify(value)}`);
    await sleep(5);
  }
}

export interface ToldState {
  sessionId: string;
  value: unknown;
  done: boolean;
}

// biome-ignore lint/suspicious/noExplicitAny: frames are checked field by field.
type Frame = any;

/** One of the two protocols, as its viewers see it. */
export interface Dialect {
  name: string;
  /** Of the path that the verb answers. */
  path(inspectPath: string): string;
  /** What its viewers say first. */
  hello: object | null;
  /** The stop of one execution. */
  stop(id: string): object;
  /** Close to a stop, and none. */
  forged(id: string): unknown[];
  /** null: the frame tells no state. */
  state(frame: Frame): ToldState | null;
  /** Fails when a frame has room for more than names and states. */
  checkRedacted(frame: Frame): void;
}

/** Events that only the engine itself may send, each to an actor of this execution or of the engine. */
const forgedEvents = (id: string): [sessionId: string, event: { type: string; [key: string]: unknown }][] => {
  const execution = executionActorId(id);
  const node = `node:${id}/call/-`;
  return [
    [execution, { type: `xstate.done.actor.${node}`, output: 1 }],
    [execution, { type: 'execution.concluded', failure: null }],
    [execution, { type: 'execution.abort', verdict: { error: 'x', errorCode: 'y' } }],
    [execution, { type: 'execution.stop', reason: 'because' }],
    [execution, { type: 'STOP' }],
    [node, { type: 'work.completed' }],
    [node, { type: 'execution.stop' }],
    ['engine', { type: 'engine.drain' }],
    ['engine', { type: 'execution.stop' }],
  ];
};

const garbage = ['', 'null', '[]', '{', '"xstate.event"', '{"__proto__":{"type":"execution.stop"}}'];

const stop07 = (id: string): object => ({
  type: '@xstate.event',
  sessionId: executionActorId(id),
  event: { type: 'execution.stop' },
});

/** An event as XState 4 keeps it. */
const scxml = (event: { type: string }, origin?: string): string =>
  JSON.stringify({ name: event.type, data: event, $$type: 'scxml', type: 'external', origin });

const stop08 = (id: string): object => ({
  type: 'xstate.event',
  event: scxml({ type: 'execution.stop' }, executionActorId(id)),
});

export const stately07: Dialect = {
  name: '@statelyai/inspect 0.7',
  path: (inspectPath) => inspectPath,
  hello: null,
  stop: stop07,
  forged: (id) => [
    ...forgedEvents(id).map(([sessionId, event]) => ({ type: '@xstate.event', sessionId, event })),
    { ...stop07(id), type: '@xstate.snapshot' },
    { ...stop07(id), extra: 1 },
    { type: 'execution.stop' },
    stop08(id),
    { type: 'xstate.inspecting' },
    ...garbage,
    Buffer.from(JSON.stringify(stop07(id))),
  ],
  state: ({ sessionId, snapshot }) =>
    snapshot?.value === undefined ? null : { sessionId, value: snapshot.value, done: snapshot.status === 'done' },
  checkRedacted(frame) {
    const keys = ['type', 'name', 'parentId', 'definition', 'snapshot', 'sessionId', 'rootId', 'createdAt', 'id'];
    expect([...keys, '_version', 'event', 'sourceId']).to.include.members(Object.keys(frame));
    const { event, snapshot } = frame;
    if (event !== undefined) expect(event).to.have.all.keys('type');
    if (snapshot !== undefined)
      expect(Object.keys(snapshot)).to.have.members('value' in snapshot ? ['status', 'value'] : ['status']);
  },
};

export const xstate08: Dialect = {
  name: '@xstate/inspect 0.8',
  path: (inspectPath) => inspectPath.replace('/inspect/', '/inspect/v4/'),
  hello: { type: 'xstate.inspecting' },
  stop: stop08,
  forged: (id) => {
    const service = executionActorId(id);
    const event = scxml({ type: 'execution.stop' }, service);
    return [
      ...forgedEvents(id).flatMap(([origin, forged]) => [
        { type: 'xstate.event', event: scxml(forged, origin) },
        { type: 'xstate.event', event: JSON.stringify(forged), service: origin },
      ]),
      // To nobody, and to two at once.
      { type: 'xstate.event', event: scxml({ type: 'execution.stop' }) },
      { type: 'xstate.event', event: '{"type":"execution.stop"}' },
      { type: 'xstate.event', event, service: 'engine' },
      { type: 'xstate.event', event, sessionId: 'engine' },
      { type: 'xstate.event', event: scxml({ type: 'execution.stop' }, 'engine'), service },
      // Another event behind the name.
      { type: 'xstate.event', event: event.replace('"name":"execution.stop"', '"name":"execution.abort"') },
      { type: 'xstate.event', event: event.replace('{"type":"execution.stop"}', '{"type":"execution.abort"}') },
      { type: 'xstate.event', event: event.replace('"external"', '"platform"') },
      { type: 'xstate.event', event: { type: 'execution.stop' }, service },
      ...garbage.map((text) => ({ type: 'xstate.event', event: text, service })),
      { ...stop08(id), type: 'service.event' },
      { ...stop08(id), extra: 1 },
      { type: 'xstate.inspecting', extra: 1 },
      { type: 'execution.stop' },
      stop07(id),
      ...garbage,
      Buffer.from(JSON.stringify(stop08(id))),
    ];
  },
  state({ sessionId, state }) {
    if (state === undefined) return null;
    const { value, done } = JSON.parse(state);
    return { sessionId, value, done };
  },
  checkRedacted(frame) {
    expect(['type', 'machine', 'state', 'event', 'id', 'sessionId', 'parent']).to.include.members(Object.keys(frame));
    const bare = (event: Frame): void => {
      expect(['name', 'data', '$$type', 'type', 'origin']).to.include.members(Object.keys(event));
      expect(event.data).to.have.all.keys('type');
    };
    if (frame.event !== undefined) bare(JSON.parse(frame.event));
    if (frame.machine !== undefined) expect(JSON.parse(frame.machine)).not.to.have.property('context');
    if (frame.state === undefined) return;
    const { context, event, _event, children, actions, ...rest } = JSON.parse(frame.state);
    expect([context, children, actions]).to.deep.equal([{}, {}, []]);
    expect(event).to.have.all.keys('type');
    bare(_event);
    expect(rest).to.have.all.keys('value', '_sessionid', 'done');
  },
};

/** A viewer without the packages, for what their receivers cannot do. */
export class Viewer {
  readonly socket: WebSocket;
  readonly frames: string[] = [];
  /** The code of the close; the HTTP status where it was never let in. */
  readonly ended: Promise<number>;
  readonly opened: Promise<boolean>;

  readonly #dialect: Dialect;

  constructor(dialect: Dialect, url: string, headers: Record<string, string> = {}) {
    this.#dialect = dialect;
    this.socket = new WebSocket(url, { headers });
    if (dialect.hello !== null) this.socket.on('open', () => this.send(dialect.hello));
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

  /** Of actors, in the order they were told. */
  get states(): ToldState[] {
    return this.events.flatMap((event) => this.#dialect.state(event) ?? []);
  }

  /** Types of the events that an actor was told of. */
  eventsOf(actorId: string): string[] {
    return this.events.flatMap(({ type, sessionId, event }) => {
      if (sessionId !== actorId || (type !== '@xstate.event' && type !== 'service.event')) return [];
      return typeof event === 'string' ? JSON.parse(event).name : event.type;
    });
  }

  send(value: unknown): void {
    this.socket.send(typeof value === 'string' || value instanceof Buffer ? value : JSON.stringify(value));
  }

  async close(): Promise<void> {
    this.socket.close();
    await this.ended;
  }
}
