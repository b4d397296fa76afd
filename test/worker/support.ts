import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { systemClock } from '../../src/adapters/system/clock.ts';
import type { Task, WorkReport } from '../../src/ports/work.ts';
import type { HttpAllow } from '../../src/worker/guard.ts';
import { createHttpExecutor } from '../../src/worker/http.ts';
import { createInProcessPool, type InProcessPool } from '../../src/worker/pool.ts';

export interface SeenRequest {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  body: string;
}

/** A service on loopback that answers as a test says, and remembers what it was asked. */
export class Endpoint {
  readonly requests: SeenRequest[] = [];
  /** Connections made so far, and those open now. */
  connections = 0;
  readonly sockets = new Set<Socket>();
  answer: (request: SeenRequest, response: ServerResponse) => void = (_, response) => response.end();
  readonly #server = createServer((request, response) => void this.#receive(request, response));

  constructor() {
    this.#server.on('connection', (socket: Socket) => {
      this.connections++;
      this.sockets.add(socket);
      socket.once('close', () => this.sockets.delete(socket));
    });
  }

  async open(): Promise<void> {
    this.#server.listen(0, '127.0.0.1', 4096);
    await once(this.#server, 'listening');
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get last(): SeenRequest {
    return this.requests.at(-1) as SeenRequest;
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method = '', url = '', headers } = request;
    const seen = { method, url, headers, body: Buffer.concat(chunks).toString() };
    this.requests.push(seen);
    this.answer(seen, response);
  }
}

export function httpTask(with_: Record<string, unknown>, over: Partial<Task> = {}): Task {
  return {
    id: 'E/call/1',
    executionId: 'E',
    project: 'default',
    node: 'call',
    iterations: [],
    attempt: 1,
    type: 'http',
    where: 'worker',
    with: with_,
    secrets: [],
    idempotencyKey: 'E/call',
    workflow: 'demo',
    workflowHash: 'h',
    ...over,
  };
}

export function httpPool(allow: HttpAllow): InProcessPool {
  return createInProcessPool({ executors: new Map([['http', createHttpExecutor({ allow })]]), clock: systemClock });
}

/** The one report of a task. */
export function runTask(pool: InProcessPool, task: Task): Promise<WorkReport> {
  return new Promise((resolve) => pool.start(task, resolve));
}

/** Resolves when `condition` holds. @throws after five seconds */
export async function until(condition: () => boolean, what: string): Promise<void> {
  const untilMs = performance.now() + 5_000;
  while (!condition()) {
    if (performance.now() > untilMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
