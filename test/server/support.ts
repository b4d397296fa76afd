/** A listening server over the memory store, with an engine that keeps its promises and runs nothing. */
import { pino } from 'pino';
import type { Namespace } from 'socket.io';
import { io, type Socket } from 'socket.io-client';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { type EventSink, SocketIoBus, waitingPackets } from '../../src/adapters/socket-io/bus.ts';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds } from '../../src/adapters/system/ids.ts';
import type { EngineApi, StartRequest } from '../../src/engine/api.ts';
import { eventOf, previewOf } from '../../src/engine/views.ts';
import { FullstopError } from '../../src/errors.ts';
import type { EventRow, HeaderRow, NodeRow } from '../../src/ports/store.ts';
import type { WorkerGate } from '../../src/ports/workers.ts';
import { hashKey } from '../../src/server/access.ts';
import { createServer, type RunningServer } from '../../src/server/server.ts';
import type { Json, Role, StopReceipt } from '../../src/wire.ts';

export const ADMIN_KEY = 'first-admin-key';

/** Reads and writes a real store; starts, stops and ends are records only. */
export class FakeEngine implements EngineApi {
  readonly id = 'engine-1';
  readonly workers: WorkerGate = {
    connected: async () => [],
    disconnected: () => undefined,
    heartbeat: () => [],
    result: async () => ({ discarded: true }),
    log: () => undefined,
    workers: () => [],
    missing: () => ({}),
  };
  readonly store: MemoryStore;
  readonly bus: SocketIoBus;
  readonly #metrics: ReturnType<EngineApi['metrics']> = {
    executionsStarted: 0,
    executionsEnded: { Complete: 0, Failed: 0, stopped: 0 },
    nodesEnded: 0,
    commits: 0,
    commitRetries: 0,
    lateResultsDiscarded: 0,
    live: { running: 0, pending: 0, parked: 0 },
    onNodeStopped: null,
  };
  #paused = false;
  drains = 0;
  unhealthy: string | null = null;

  constructor(store: MemoryStore, bus: SocketIoBus) {
    this.store = store;
    this.bus = bus;
  }

  async start(): Promise<void> {}
  engines() {
    return [this.describe()];
  }
  allWorkers() {
    return this.workers.workers();
  }
  async requestDrain(id: string): Promise<boolean> {
    if (id === this.id) this.drains += 1;
    return id === this.id;
  }
  async ownerUrl(): Promise<string | null> {
    return null;
  }
  async drain(): Promise<void> {
    this.drains += 1;
  }
  describe() {
    return {
      id: this.id,
      epoch: 1,
      startedAt: new Date(0).toISOString(),
      status: 'serving' as const,
      executions: { running: 0, pending: 0, parked: 0 },
      version: '0.1.0',
      url: null,
    };
  }
  trouble(): string | null {
    return this.unhealthy;
  }

  async startExecution(request: StartRequest): Promise<{ header: HeaderRow; created: boolean }> {
    const [name = '', hash] = request.workflow.split('@');
    const definition = await this.store.getDefinition(request.project, name, hash);
    if (definition === null) throw new FullstopError('FS_NOT_FOUND', `no workflow ${request.workflow}`);
    if (definition.disabled) throw new FullstopError('FS_DISABLED', `${name} is disabled`);
    if ('boom' in request.input) throw new TypeError('secret internals');
    const header = headerOf(request.project, {
      workflow: { name, hash: definition.hash, version: definition.version },
      labels: request.labels,
      input: request.input,
    });
    const outcome = await this.store.createExecution({
      header,
      events: [eventRow(1, 'execution.created')],
      uniqueKey: request.idempotencyKey,
      bodyHash: JSON.stringify(request),
    });
    if (outcome.kind !== 'exists') return { header, created: true };
    if (!outcome.sameBody) throw new FullstopError('FS_CONFLICT', 'another body');
    return { header: (await this.store.getHeader(outcome.id)) as HeaderRow, created: false };
  }

  requestStop(id: string) {
    return this.store.requestStop(id, { requestId: systemIds.next(), requestedAtMs: Date.now() });
  }

  async previewStop(id: string) {
    const stored = await this.store.load(id);
    if (stored === null) return null;
    if (stored.header.endedAtMs !== null) throw new FullstopError('FS_ENDED', 'it has ended');
    return previewOf(stored, null, Date.now());
  }

  async receipt(id: string): Promise<StopReceipt | null> {
    const header = await this.store.getHeader(id);
    if (header?.stop == null) return null;
    return (await this.store.getReceipt(id)) ?? receiptOf(header);
  }

  async trigger(id: string, name: string, payload: Json) {
    if (name !== 'approve') throw new FullstopError('FS_NOT_FOUND', `no trigger ${name}`);
    const outcome = await this.store.putTrigger({
      id: systemIds.next(),
      executionId: id,
      name,
      payload,
      atMs: Date.now(),
    });
    if (outcome.kind === 'ended') throw new FullstopError('FS_ENDED', 'it has ended');
    if (outcome.kind === 'conflict') throw new FullstopError('FS_CONFLICT', 'another payload waits');
    return { duplicate: outcome.kind === 'duplicate' };
  }

  async setAdmission(paused: boolean): Promise<void> {
    this.#paused = paused;
  }
  admissionPaused(): boolean {
    return this.#paused;
  }
  async workflowChanged(): Promise<void> {}
  nextInstants() {
    return [];
  }
  async compiled() {
    return null;
  }
  forget(): void {}
  inspect() {
    return () => undefined;
  }
  metrics() {
    return this.#metrics;
  }

  /** Commits events, then announces them as an engine does. */
  async produce(id: string, rows: EventRow[]): Promise<void> {
    await this.#commit(id, rows, {});
    if (this.bus.hasListeners(id)) for (const row of rows) this.bus.event(id, eventOf(row));
  }

  /** Ends an execution, by its stop if it has one. */
  async finish(id: string): Promise<void> {
    const header = (await this.store.getHeader(id)) as HeaderRow;
    const stopped = header.stop !== null;
    await this.#commit(id, [eventRow(header.seq + 1, stopped ? 'execution.failed' : 'execution.completed')], {
      status: stopped ? 'Failed' : 'Complete',
      endedAtMs: Date.now(),
    });
  }

  async #commit(
    id: string,
    events: EventRow[],
    header: { status?: 'Failed' | 'Complete'; endedAtMs?: number },
  ): Promise<void> {
    const stored = (await this.store.getHeader(id)) as HeaderRow;
    const requestId = stored.stop?.requestId ?? null;
    const outcome = await this.store.commit({
      executionId: id,
      epoch: stored.owner.epoch,
      v: stored.v + 1,
      requestId,
      header,
      nodes: [],
      dropNodes: [],
      events,
      results: [],
      consumedTriggers: [],
      creates: [],
      tasks: [],
      endedTasks: [],
      receipt: stored.stop !== null && header.status !== undefined ? receiptOf(stored) : null,
      final: header.status !== undefined,
    });
    if (outcome.kind !== 'committed') throw new Error(`refused: ${outcome.why}`);
  }
}

export function headerOf(project: string, more: Partial<HeaderRow> = {}): HeaderRow {
  return {
    id: systemIds.next(),
    project,
    workflow: { name: 'flow', hash: 'a'.repeat(64), version: 1 },
    bodyPath: null,
    labels: {},
    status: 'Running',
    error: null,
    errorCode: null,
    input: {},
    outputs: null,
    parent: null,
    ancestors: [],
    startedByFailure: false,
    createdAtMs: Date.now(),
    startedAtMs: Date.now(),
    endedAtMs: null,
    owner: { engine: 'engine-1', epoch: 1 },
    v: 0,
    stop: null,
    seq: 1,
    machine: null,
    ...more,
  };
}

export function nodeRow(path: string, more: Partial<NodeRow> = {}): NodeRow {
  return {
    key: `${path}/-`,
    path,
    iterations: [],
    type: 'set',
    status: 'Running',
    error: null,
    errorCode: null,
    attempt: 1,
    startedAtMs: 1_000,
    endedAtMs: null,
    where: 'engine',
    hasOutput: false,
    machine: null,
    data: null,
    ...more,
  };
}

export function eventRow(seq: number, type: EventRow['type'] = 'node.started'): EventRow {
  return { seq, atMs: 1_000 + seq, type, node: null, iterations: null, attempt: null, data: null };
}

function receiptOf(header: HeaderRow): StopReceipt {
  return {
    executionId: header.id,
    requestId: header.stop?.requestId ?? '',
    requestedAt: new Date(header.stop?.requestedAtMs ?? 0).toISOString(),
    delivery: { path: 'local', ms: 1 },
    haltedMs: null,
    finalisedMs: null,
    finalisedAt: null,
    tasks: [],
    lateResultsDiscarded: 0,
    unconfirmed: 0,
    children: [],
  };
}

/** Shows what the server holds of its clients. */
export class WatchedBus extends SocketIoBus {
  #namespace: Namespace | null = null;

  override attach(namespace: Namespace, sink: EventSink): void {
    this.#namespace = namespace;
    super.attach(namespace, sink);
  }

  /** Packets that wait for each client. */
  waiting(): number[] {
    return [...(this.#namespace?.sockets.values() ?? [])].map(waitingPackets);
  }
}

export interface World {
  server: RunningServer;
  store: MemoryStore;
  engine: FakeEngine;
  bus: WatchedBus;
  /** Added to the time the server sees. */
  skewMs: number;
  /** Lines of the log. */
  logged: string[];
  /** Makes a key of a project. */
  key(role: Role, project: string): Promise<string>;
  /** A stored execution that runs. */
  running(project: string, more?: Partial<HeaderRow>): Promise<string>;
  http(
    key: string | null,
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<HttpAnswer>;
  /** A connected socket; the world closes it. */
  connect(key: string): Promise<Socket>;
  close(): Promise<void>;
}

export interface HttpAnswer {
  status: number;
  headers: Headers;
  text: string;
  // biome-ignore lint/suspicious/noExplicitAny: answers are checked field by field.
  data: any;
}

export async function openWorld(): Promise<World> {
  const store = createMemoryStore();
  await store.open();
  const bus = new WatchedBus();
  const engine = new FakeEngine(store, bus);
  const logged: string[] = [];
  const logger = pino({ level: 'info' }, { write: (line: string) => void logged.push(line) });
  // Filled in below: the server's clock reads it from the start.
  const world = { skewMs: 0 } as World;
  const server = await createServer({
    store,
    engine,
    bus,
    clock: { ...systemClock, nowMs: () => Date.now() + world.skewMs },
    ids: systemIds,
    logger,
    config: { host: '127.0.0.1', port: 0, adminKeyHash: hashKey(ADMIN_KEY), drainMs: 10 },
  });
  const sockets: Socket[] = [];
  return Object.assign(world, {
    server,
    store,
    engine,
    bus,
    logged,
    async key(role, project) {
      const key = `key-${role}-${project}-${systemIds.next()}`;
      const id = systemIds.next();
      await store.createKey({
        id,
        hash: hashKey(key),
        name: `${role} of ${project}`,
        role,
        project,
        capabilities: null,
        pool: null,
        createdAtMs: 0,
      });
      return key;
    },
    async running(project, more = {}) {
      const header = headerOf(project, more);
      await store.createExecution({
        header,
        events: [eventRow(1, 'execution.created')],
        uniqueKey: null,
        bodyHash: null,
      });
      return header.id;
    },
    async http(key, method, path, body, headers = {}) {
      const answer = await fetch(server.url + path, {
        method,
        redirect: 'manual',
        headers: {
          ...(key === null ? {} : { authorization: `Bearer ${key}` }),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
      });
      const text = await answer.text();
      const isJson = answer.headers.get('content-type')?.startsWith('application/json');
      return { status: answer.status, headers: answer.headers, text, data: isJson ? JSON.parse(text) : null };
    },
    connect(key) {
      const socket = io(server.url, {
        auth: { token: key },
        transports: ['websocket'],
        forceNew: true,
        reconnection: false,
      });
      sockets.push(socket);
      return new Promise((resolve, reject) => {
        socket.on('connect', () => resolve(socket));
        socket.on('connect_error', (error) =>
          reject(Object.assign(error, { refused: (error as { data?: unknown }).data })),
        );
      });
    },
    async close() {
      for (const socket of sockets) socket.disconnect();
      await server.close();
    },
  } satisfies Omit<World, 'skewMs'>);
}

export type SocketAnswer =
  | { ok: true; data: Record<string, unknown> }
  | { ok: false; error: { code: string; message: string; details: unknown } };

export function ask(socket: Socket, verb: string, payload: unknown): Promise<SocketAnswer> {
  return socket.timeout(5_000).emitWithAck(verb, payload);
}
