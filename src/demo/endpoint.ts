import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** The longest `/slow` waits. */
const slowMaxSeconds = 3600;
/** Connections the system keeps for us while we do not look: a burst of a thousand is not slowed down. */
const backlog = 4096;
/** Calls that wait at once; more are answered 503. */
const waitingMax = 10_000;

export interface DemoEndpoint {
  /** Such as `http://127.0.0.1:43117`. */
  readonly url: string;
  readonly port: number;
  /** Calls that wait for their answer now. */
  readonly waiting: number;
  /** Calls whose caller went away before the answer. */
  readonly aborted: number;
  close(): Promise<void>;
}

/**
 * The service that the demonstration's workflows call: `/slow?seconds=600` answers late, `/status` says that a
 * job is still running. On loopback, and without any state worth protecting.
 *
 * `port` is taken if it is free, otherwise any; 0 is any.
 */
export async function startDemoEndpoint({ port }: { port: number }): Promise<DemoEndpoint> {
  let waiting = 0;
  let aborted = 0;
  let polls = 0;

  function answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://demo');
    if (pathname === '/status') send(response, 200, { state: 'running', polls: ++polls });
    else if (pathname === '/slow') slow(Number(searchParams.get('seconds') ?? 600), response);
    else send(response, 404, { error: 'only /status and /slow are here' });
  }

  function slow(seconds: number, response: ServerResponse): void {
    if (!(seconds >= 0 && seconds <= slowMaxSeconds)) {
      return send(response, 400, { error: `expected seconds from 0 to ${slowMaxSeconds}` });
    }
    if (waiting >= waitingMax) return send(response, 503, { error: 'too many calls wait' });
    waiting++;
    const timer = setTimeout(() => send(response, 200, { waitedSeconds: seconds }), seconds * 1000);
    response.once('close', () => {
      clearTimeout(timer);
      waiting--;
      if (!response.writableFinished) aborted++;
    });
  }

  const server = createServer(answer);
  server.listen(port, '127.0.0.1', backlog);
  try {
    await once(server, 'listening');
  } catch (error) {
    if (port === 0 || !['EADDRINUSE', 'EACCES'].includes((error as { code?: string }).code ?? '')) throw error;
    server.listen(0, '127.0.0.1', backlog);
    await once(server, 'listening');
  }
  const bound = (server.address() as AddressInfo).port;
  return {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    get waiting() {
      return waiting;
    },
    get aborted() {
      return aborted;
    },
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
}
