/** What `http` nodes of the bench call. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const BACKLOG = 4_096;
const WAIT_MS = 30_000;

/** Instants by execution, and who waits for how many of them. */
export class Instants {
  readonly at = new Map<string, number>();
  #wanted: { count: number; resolve: () => void } | null = null;

  note(id: string): void {
    this.at.set(id, performance.now());
    if (this.#wanted !== null && this.at.size >= this.#wanted.count) this.#wanted.resolve();
  }

  /** @throws when they do not come. */
  async until(count: number, what: string): Promise<void> {
    if (this.at.size >= count) return;
    const late = new AbortController();
    await Promise.race([
      new Promise<void>((resolve) => {
        this.#wanted = { count, resolve };
      }),
      sleep(WAIT_MS, null, { signal: late.signal }).then(() => {
        throw new Error(`${what}: ${this.at.size} of ${count}`);
      }),
    ]);
    late.abort();
  }
}

/** Answers no call; notes when each came, and when its caller went away. */
export class SilentEndpoint {
  readonly calls = new Instants();
  readonly aborts = new Instants();
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      const id = (request.url as string).slice(1);
      this.calls.note(id);
      response.once('close', () => this.aborts.note(id));
    });
  }

  listen(): Promise<string> {
    return listen(this.#server);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** Answers every call at once with the last part of its path, as JSON. */
export class EchoEndpoint {
  calls = 0;
  /** Idempotency keys that were seen: one for each node. */
  readonly keys = new Set<string>();
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      this.calls += 1;
      this.keys.add(String(request.headers['idempotency-key']));
      const node = (request.url as string).slice(1);
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ node }));
    });
  }

  listen(): Promise<string> {
    return listen(this.#server);
  }

  forget(): void {
    this.calls = 0;
    this.keys.clear();
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1', BACKLOG);
  await once(server, 'listening');
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
