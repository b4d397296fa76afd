/**
 * The service that http nodes of the tests call: answers at once, late, never, or badly, and remembers every call.
 *
 * Calls are told apart by their Idempotency-Key, which is the same for every attempt of a node.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface EndpointCall {
  path: string;
  /** The Idempotency-Key. */
  key: string;
  arrivedAtMs: number;
  /** null: it is open. `aborted`: the caller went away first. */
  end: 'answered' | 'aborted' | null;
  answer(status: number, body: unknown): void;
}

export class Endpoint {
  readonly calls: EndpointCall[] = [];
  readonly #server: Server;
  readonly #watchers = new Set<() => void>();

  private constructor() {
    this.#server = createServer((request, response) => this.#arrived(request, response));
  }

  static async start(): Promise<Endpoint> {
    const endpoint = new Endpoint();
    endpoint.#server.listen(0, '127.0.0.1', 4096);
    await once(endpoint.#server, 'listening');
    return endpoint;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** What `FULLSTOP_HTTP_ALLOW` has to say. */
  get host(): string {
    return `127.0.0.1:${this.port}`;
  }

  of(id: string): EndpointCall[] {
    return this.calls.filter(({ key }) => key.startsWith(id));
  }

  /** Resolves with the calls of an execution (or a node: `ID/path`) as soon as `fits` holds. */
  async calling(
    prefix: string,
    fits: (calls: EndpointCall[]) => boolean = (calls) => calls.length > 0,
    withinMs = 20_000,
  ): Promise<EndpointCall[]> {
    const late = AbortSignal.timeout(withinMs);
    for (;;) {
      const calls = this.of(prefix);
      if (fits(calls)) return calls;
      if (late.aborted)
        throw new Error(`calls of ${prefix} are not as expected after ${withinMs} ms: ${JSON.stringify(calls)}`);
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#watchers.delete(done);
          late.removeEventListener('abort', done);
          resolve();
        };
        this.#watchers.add(done);
        late.addEventListener('abort', done);
      });
    }
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #arrived(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://endpoint');
    const number = (name: string, otherwise: number): number => Number(searchParams.get(name) ?? otherwise);
    const call: EndpointCall = {
      path: pathname,
      key: String(request.headers['idempotency-key'] ?? ''),
      arrivedAtMs: Date.now(),
      end: null,
      answer(status, body) {
        if (call.end !== null) return;
        response.writeHead(status, { 'content-type': 'application/json' });
        response.end(JSON.stringify(body));
      },
    };
    let timer: NodeJS.Timeout | undefined;
    response.once('close', () => {
      clearTimeout(timer);
      call.end = response.writableFinished ? 'answered' : 'aborted';
      this.#changed();
    });
    const before = this.calls.filter(({ key }) => key === call.key).length;
    this.calls.push(call);
    this.#changed();
    switch (pathname) {
      /** Stays open until the caller goes or the test answers. */
      case '/park':
        break;
      case '/late':
        timer = setTimeout(() => call.answer(200, { value: searchParams.get('value') }), number('ms', 100));
        break;
      /** The first `times` calls of a key fail. */
      case '/flaky':
        if (before < number('times', 1)) call.answer(503, { error: 'not yet' });
        else call.answer(200, { value: searchParams.get('value') });
        break;
      case '/bad':
        call.answer(500, { error: 'never' });
        break;
      default:
        call.answer(200, { value: searchParams.get('value') });
    }
  }

  #changed(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}
