/** A Socket.IO server that does what a test tells it, for the client and the command line. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Server, type Socket } from 'socket.io';
import { FullstopError } from '../../src/errors.ts';
import type {
  ExecutionEvent,
  ExecutionEventType,
  ExecutionItem,
  ExecutionRecord,
  StopReceipt,
} from '../../src/wire.ts';

export const ID = '01936d5e-0000-7000-8000-000000000001';
export const OTHER_ID = '01936d5e-0000-7000-8000-000000000002';
const REQUEST_ID = '01936d5e-0000-7000-8000-00000000000f';
const AT = '2026-01-02T03:04:05.678Z';

// biome-ignore lint/suspicious/noExplicitAny: payloads are whatever the client sends
export type Handler = (payload: any, socket: Socket) => unknown;

export const NO_ANSWER = Symbol('no answer');

export class ScriptedServer {
  /** Every call in order. */
  readonly calls: { verb: string; payload: unknown }[] = [];
  readonly handlers: Record<string, Handler>;
  /** Tokens that are let in; null: all. */
  tokens: string[] | null = null;
  url = '';
  readonly #http = createServer();
  readonly #io = new Server(this.#http, { serveClient: false });

  constructor(handlers: Record<string, Handler> = {}) {
    this.handlers = handlers;
    this.#io.use((socket, next) => {
      const token = String((socket.handshake.auth as { token?: string }).token);
      if (this.tokens === null || this.tokens.includes(token)) return next();
      const body = { code: 'FS_UNAUTHENTICATED', message: 'expected a key this server knows', details: null };
      next(Object.assign(new Error(body.message), { data: body }));
    });
    this.#io.on('connection', (socket) => {
      socket.onAny(async (verb: string, payload: unknown, ack: (answer: unknown) => void) => {
        this.calls.push({ verb, payload });
        try {
          const handler = this.handlers[verb];
          if (handler === undefined) throw new FullstopError('FS_INVALID', `the script has no ${verb}`);
          const data = await handler(payload, socket);
          if (data !== NO_ANSWER) ack({ ok: true, data });
        } catch (error) {
          const { code, message, details } = error as FullstopError;
          ack({ ok: false, error: { code, message, details } });
        }
      });
    });
  }

  async listen(port = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#http.listen(port, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
    return this;
  }

  payloads(verb: string): unknown[] {
    return this.calls.filter((call) => call.verb === verb).map((call) => call.payload);
  }

  /** As a server does that closes sockets by itself (a deleted key, its own end). */
  hangUp(): void {
    this.#io.disconnectSockets(true);
  }

  /** As a network does. */
  breakConnections(): void {
    for (const socket of this.#io.sockets.sockets.values())
      (socket.conn as unknown as { transport: { close(): void } }).transport.close();
  }

  emit(event: string, message: unknown): void {
    this.#io.emit(event, message);
  }

  async close(): Promise<void> {
    this.#io.disconnectSockets(true);
    await this.#io.close();
  }
}

export function event(seq: number, type: ExecutionEventType = 'log'): ExecutionEvent {
  return { seq, at: AT, type };
}

/** Numbers 1 to `count`, the last terminal. */
export function history(count: number): ExecutionEvent[] {
  return Array.from({ length: count }, (_, index) =>
    event(index + 1, index + 1 === count ? 'execution.completed' : 'log'),
  );
}

/** An execution whose events a test appends, with the verbs that read and follow it, as the real server does. */
export class ScriptedExecution {
  readonly events: ExecutionEvent[] = [];
  readonly subscribers = new Map<Socket, number>();
  /** Filters, doubles or holds what is pushed. */
  push = (socket: Socket, pushed: ExecutionEvent): void =>
    void socket.emit('execution.event', { executionId: ID, event: pushed });
  pageMax = 100;
  record: ExecutionRecord = record();

  append(...events: ExecutionEvent[]): void {
    for (const appended of events) {
      this.events.push(appended);
      this.record.seq = appended.seq;
      if (appended.type === 'execution.completed') Object.assign(this.record, { status: 'Complete', endedAt: AT });
      for (const [socket, from] of this.subscribers) if (appended.seq >= from) this.push(socket, appended);
    }
  }

  readonly handlers: Record<string, Handler> = {
    'execution.get': () => this.record,
    'execution.events': ({ from = 1 }: { from?: number }) => {
      const items = this.events.filter(({ seq }) => seq >= from).slice(0, this.pageMax);
      return { items, nextFrom: (items.at(-1)?.seq ?? from - 1) + 1 };
    },
    'execution.subscribe': ({ from }: { from: number }, socket) => {
      this.subscribers.set(socket, from);
      if (socket.listenerCount('disconnect') === 0) socket.on('disconnect', () => this.subscribers.delete(socket));
      setImmediate(() => {
        for (const missed of this.events)
          if (missed.seq >= from && this.subscribers.has(socket)) this.push(socket, missed);
      });
      return {};
    },
    'execution.unsubscribe': (_payload, socket) => {
      this.subscribers.delete(socket);
      return {};
    },
  };
}

export function item(over: Partial<ExecutionItem> = {}): ExecutionItem {
  return {
    id: ID,
    project: 'default',
    workflow: { name: 'scan', hash: 'a'.repeat(64), version: 1 },
    labels: {},
    status: 'Running',
    error: null,
    errorCode: null,
    parent: null,
    createdAt: AT,
    startedAt: AT,
    endedAt: null,
    stop: null,
    stoppedByUser: false,
    seq: 1,
    ...over,
  };
}

export function record(over: Partial<ExecutionRecord> = {}): ExecutionRecord {
  return { ...item(), input: {}, outputs: null, nodes: {}, ...over };
}

export function stopped(over: Partial<ExecutionRecord> = {}): ExecutionRecord {
  return record({
    status: 'Failed',
    error: 'workflow stopped by user',
    errorCode: 'FS_STOPPED',
    endedAt: AT,
    stop: { requestId: REQUEST_ID, requestedAt: AT },
    stoppedByUser: true,
    ...over,
  });
}

export function receipt(over: Partial<StopReceipt> = {}): StopReceipt {
  return {
    executionId: ID,
    requestId: REQUEST_ID,
    requestedAt: AT,
    delivery: null,
    haltedMs: null,
    finalisedMs: null,
    finalisedAt: null,
    tasks: [],
    lateResultsDiscarded: 0,
    unconfirmed: 0,
    children: [],
    ...over,
  };
}

export const finalReceipt = (over: Partial<StopReceipt> = {}): StopReceipt =>
  receipt({ delivery: { path: 'local', ms: 1 }, haltedMs: 2, finalisedMs: 3, finalisedAt: AT, ...over });

/** Resolves when `condition` holds; fails the test after two seconds. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 2_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
