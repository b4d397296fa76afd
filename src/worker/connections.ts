import { isIP, type Socket } from 'node:net';
import { buildConnector, Client, type Dispatcher } from 'undici';
import { blockedError, guardedLookup, isBlocked } from './guard.ts';

/** How long a connection may take to stand. The node's `timeout` bounds everything else. */
const connectTimeoutMs = 30_000;
/** The longest an idle connection is kept, whatever the other side offers; without an offer undici keeps it 4 s. */
const idleMaxMs = 60_000;

const connectOpen = buildConnector({ allowH2: false, timeout: connectTimeoutMs });
const connectLookedUp = buildConnector({ allowH2: false, timeout: connectTimeoutMs, lookup: guardedLookup });

const connectGuarded: buildConnector.connector = (options, callback) => {
  // An address as the host is never looked up.
  if (isIP(options.hostname) === 0 || !isBlocked(options.hostname)) return connectLookedUp(options, callback);
  callback(blockedError(options.hostname), null);
};

/**
 * Hands out connections: one request at a time on each, as many as are asked for, idle ones reused.
 *
 * undici's Agent does not serve here. A request that it aborts stays in its queue, so that it connects anew just to
 * find nothing to send, and it cannot end a connection that is still being made.
 */
export class Connections {
  /** By host, and by whether the guard was asked: no guarded request travels on a connection made without it. */
  readonly #idle = new Map<string, Connection[]>();
  readonly #all = new Set<Connection>();

  /** Connections made or being made, idle ones too. */
  get size(): number {
    return this.#all.size;
  }

  /** A connection for one request to `origin`; `open`: whatever its address is. `release` or `destroy` it after. */
  acquire(origin: string, open: boolean): Connection {
    const key = `${open ? 'open' : 'guarded'} ${origin}`;
    const idle = this.#idle.get(key)?.pop();
    if (idle !== undefined) return idle;
    const connection = new Connection(key, origin, open ? connectOpen : connectGuarded);
    this.#all.add(connection);
    connection.client.on('disconnect', () => {
      if (this.#removeIdle(connection)) this.destroy(connection, null);
    });
    return connection;
  }

  release(connection: Connection): void {
    if (!this.#all.has(connection)) return;
    const idle = this.#idle.get(connection.key);
    if (idle === undefined) this.#idle.set(connection.key, [connection]);
    else idle.push(connection);
  }

  /** Closes it at once, also while it is being made; its request fails with `error`. */
  destroy(connection: Connection, error: Error | null): void {
    if (this.#all.delete(connection)) void connection.destroy(error);
  }

  async close(): Promise<void> {
    const all = [...this.#all];
    this.#all.clear();
    this.#idle.clear();
    await Promise.all(all.map((connection) => connection.destroy(null)));
  }

  #removeIdle(connection: Connection): boolean {
    const idle = this.#idle.get(connection.key);
    const at = idle?.indexOf(connection) ?? -1;
    if (idle === undefined || at === -1) return false;
    idle.splice(at, 1);
    if (idle.length === 0) this.#idle.delete(connection.key);
    return true;
  }
}

export class Connection {
  readonly key: string;
  readonly client: Dispatcher;
  #socket: Socket | undefined;

  constructor(key: string, origin: string, connector: buildConnector.connector) {
    this.key = key;
    this.client = new Client(origin, {
      allowH2: false,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveMaxTimeout: idleMaxMs,
      connect: (options, callback) => {
        // The connector gives the socket back at once, which its type does not say.
        this.#socket = connector(options, callback) as unknown as Socket | undefined;
      },
    });
  }

  async destroy(error: Error | null): Promise<void> {
    const destroyed = this.client.destroy(error);
    this.#socket?.destroy();
    await destroyed;
  }
}
