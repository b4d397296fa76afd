/** A server with both namespaces over a gate that a test has in its hands, and an executor that it ends itself. */
import { io, type Socket } from 'socket.io-client';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds } from '../../src/adapters/system/ids.ts';
import type { Clock } from '../../src/ports/clock.ts';
import type { KeyRow } from '../../src/ports/store.ts';
import type { Task, WorkReport } from '../../src/ports/work.ts';
import type { HeldTask, WorkerGate, WorkerItem, WorkerLink } from '../../src/ports/workers.ts';
import { hashKey } from '../../src/server/access.ts';
import { createServer, type RunningServer } from '../../src/server/server.ts';
import type { WorkerTimes } from '../../src/server/workers.ts';
import type { Executor } from '../../src/worker/executor.ts';
import type { RunningWorker } from '../../src/worker/worker.ts';
import { FakeEngine } from '../server/support.ts';
import { httpTask, until } from './support.ts';

export const ADMIN_KEY = 'first-admin-key';

interface SeenResult extends HeldTask {
  link: WorkerLink;
  report: WorkReport;
}

/** Remembers what it was told, and answers as a test says. */
export class FakeGate implements WorkerGate {
  links: WorkerLink[] = [];
  hellos: HeldTask[][] = [];
  gone: WorkerLink[] = [];
  beats: string[][] = [];
  results: SeenResult[] = [];
  logs: { taskId: string; stream: string; text: string; truncated: boolean }[] = [];
  /** Of the answers to come. */
  keep: (held: HeldTask[]) => string[] | Promise<string[]> = (held) => held.map(({ taskId }) => taskId);
  cancel: (held: string[]) => string[] = () => [];
  answer: (result: SeenResult) => Promise<{ discarded: boolean }> = async () => ({ discarded: false });
  missingNow: Record<string, number> = {};

  get link(): WorkerLink {
    return this.links.at(-1) as WorkerLink;
  }

  async connected(link: WorkerLink, held: HeldTask[]): Promise<string[]> {
    this.links.push(link);
    this.hellos.push(held);
    return this.keep(held);
  }
  disconnected(link: WorkerLink): void {
    this.gone.push(link);
  }
  heartbeat(_link: WorkerLink, held: string[]): string[] {
    this.beats.push(held);
    return this.cancel(held);
  }
  async result(link: WorkerLink, taskId: string, token: string, report: WorkReport) {
    const seen = { link, taskId, token, report };
    this.results.push(seen);
    return this.answer(seen);
  }
  log(_link: WorkerLink, taskId: string, _token: string, stream: string, text: string, truncated: boolean): void {
    this.logs.push({ taskId, stream, text, truncated });
  }
  workers(): WorkerItem[] {
    return this.links.map((link) => ({
      id: link.workerId,
      name: link.name,
      kind: link.kind,
      capabilities: [...link.capabilities],
      slots: link.slots,
      held: 0,
      connected: !this.gone.includes(link),
      silentMs: 1,
    }));
  }
  missing(): Record<string, number> {
    return this.missingNow;
  }

  /** The report of a task, once it is there. */
  async reported(taskId: string): Promise<WorkReport> {
    const find = () => this.results.find((result) => result.taskId === taskId);
    await until(() => find() !== undefined, `the result of ${taskId} is there`);
    return find()?.report as WorkReport;
  }
}

/** Runs tasks until a test ends them. */
export class HandExecutor implements Executor {
  readonly running = new Map<
    string,
    { task: Task; signal: AbortSignal; resolve(output: unknown): void; reject(error: unknown): void }
  >();
  readonly started: string[] = [];
  readonly aborted: string[] = [];
  /** An aborted task ends. */
  obeys = true;
  log: ((stream: 'stdout' | 'stderr', text: string) => void) | null = null;
  closed = false;

  run(task: Task, signal: AbortSignal, log: (stream: 'stdout' | 'stderr', text: string) => void): Promise<unknown> {
    this.started.push(task.id);
    this.log = log;
    return new Promise<unknown>((resolve, reject) => {
      this.running.set(task.id, { task, signal, resolve, reject });
      signal.addEventListener('abort', () => {
        this.aborted.push(task.id);
        if (this.obeys) reject(new Error('aborted'));
      });
    }).finally(() => this.running.delete(task.id));
  }
  async close(): Promise<void> {
    this.closed = true;
  }

  /** Ends what ignores its abort, and what will be aborted. */
  obey(): void {
    this.obeys = true;
    for (const { reject } of this.running.values()) reject(new Error('ended'));
  }

  finish(taskId: string, output: unknown = 'done'): void {
    this.running.get(taskId)?.resolve(output);
  }
}

export interface GateWorld {
  gate: FakeGate;
  bus: SocketIoBus;
  store: MemoryStore;
  server: RunningServer;
  url: string;
  /** Added to the server's time. */
  skewMs: number;
  key(role: KeyRow['role'], more?: Partial<KeyRow>): Promise<{ id: string; key: string }>;
  /** A raw socket of a namespace; rejects when refused. */
  connect(namespace: string, auth: Record<string, unknown>): Promise<Socket>;
  http(key: string | null, method: string, path: string): Promise<{ status: number; data: Record<string, unknown> }>;
  /** Closed with the world. */
  keepTrack<T extends RunningWorker>(worker: T): T;
  /** Ends the server, and starts one on the same port. */
  stopServer(): Promise<void>;
  startServer(): Promise<void>;
  close(): Promise<void>;
}

export const quick: WorkerTimes = { heartbeatMs: 50, workerLeaseMs: 400, agentLeaseMs: 400 };

export async function openGateWorld(times: WorkerTimes = quick): Promise<GateWorld> {
  const store = createMemoryStore();
  await store.open();
  const gate = new FakeGate();
  const bus = new SocketIoBus();
  const sockets: Socket[] = [];
  const workers: RunningWorker[] = [];
  const world = { skewMs: 0 } as GateWorld;
  const silent = { info() {}, warn() {}, error() {}, debug() {} };
  let port = 0;

  async function start(): Promise<RunningServer> {
    return createServer({
      store,
      engine: Object.assign(new FakeEngine(store, bus as never), { allWorkers: () => gate.workers() }),
      bus,
      workers: gate,
      workerTimes: times,
      clock: { ...systemClock, nowMs: () => Date.now() + world.skewMs } as Clock,
      ids: systemIds,
      logger: silent as never,
      config: { host: '127.0.0.1', port, adminKeyHash: hashKey(ADMIN_KEY), drainMs: 10 },
    });
  }

  let server = await start();
  port = Number(new URL(server.url).port);
  let up = true;
  return Object.assign(world, {
    gate,
    bus,
    store,
    server,
    url: server.url,
    async key(role: KeyRow['role'], more: Partial<KeyRow> = {}) {
      const key = `key-${systemIds.next()}`;
      const id = systemIds.next();
      await store.createKey({
        id,
        hash: hashKey(key),
        name: role,
        role,
        project: 'default',
        capabilities: null,
        pool: role === 'agent' ? 'yard' : null,
        createdAtMs: 0,
        ...more,
      });
      return { id, key };
    },
    connect(namespace: string, auth: Record<string, unknown>) {
      const socket = io(server.url + namespace, {
        auth,
        transports: ['websocket'],
        forceNew: true,
        reconnection: false,
      });
      sockets.push(socket);
      return new Promise<Socket>((resolve, reject) => {
        socket.on('connect', () => resolve(socket));
        socket.on('connect_error', (error) => reject((error as { data?: unknown }).data ?? error));
      });
    },
    async http(key: string | null, method: string, path: string) {
      const headers: Record<string, string> = key === null ? {} : { authorization: `Bearer ${key}` };
      const answer = await fetch(server.url + path, { method, headers });
      const text = await answer.text();
      return { status: answer.status, data: text === '' ? {} : JSON.parse(text) };
    },
    keepTrack<T extends RunningWorker>(worker: T): T {
      workers.push(worker);
      return worker;
    },
    async stopServer() {
      up = false;
      await server.close();
    },
    async startServer() {
      server = await start();
      world.server = server;
      up = true;
    },
    async close() {
      await Promise.all(workers.map((worker) => worker.close(0)));
      for (const socket of sockets) socket.disconnect();
      if (up) await server.close();
    },
  });
}

const EXECUTION = '0190b0a0-0000-7000-8000-000000000000';

/** A task whose id is `EXECUTION/NODE/1`. */
export function taskOf(node: string, over: Partial<Task> = {}): Task {
  const executionId = over.executionId ?? EXECUTION;
  return httpTask({}, { id: `${executionId}/${node}/1`, executionId, node, ...over });
}

export const silentLog = { info: (): void => {}, warn: (): void => {} };

export async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
