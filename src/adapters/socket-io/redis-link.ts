/**
 * The link over Redis: `@socket.io/redis-streams-adapter`, whose `serverSideEmit` goes by publish and subscribe.
 *
 * What the adapter (0.3.1) leaves open is closed in the clients it is given: promises that it forgets are caught, a
 * subscription that failed is made again, and a publish that would wait for a connection is refused.
 */
import { createAdapter } from '@socket.io/redis-streams-adapter';
import type { Logger } from 'pino';
import { createClient } from 'redis';
import type { Namespace } from 'socket.io';
import { messageOf } from '../../errors.ts';
import {
  ADAPTER_HEARTBEAT_MS,
  atMost,
  type EngineLink,
  emitToEngines,
  type LinkHandlers,
  OPEN_MS,
  openNamespace,
  type Packet,
  SEND_MS,
} from './link.ts';

export interface RedisLinkOptions {
  url: string;
  /** Engines of one database hear each other, others do not. */
  channel: string;
  log: Pick<Logger, 'warn'>;
}

const RETRY_MS = 1_000;
const PING_MS = 10_000;

type Client = ReturnType<typeof createClient>;

export function createRedisLink(options: RedisLinkOptions): EngineLink {
  return new RedisLink(options);
}

class RedisLink implements EngineLink {
  readonly #client: Client;
  readonly #channel: string;
  readonly #log: RedisLinkOptions['log'];
  /** Those that the adapter listens with. */
  readonly #listening: Client[] = [];
  #handlers: LinkHandlers | null = null;
  #namespace: Namespace | null = null;
  #noteOpen = (): void => {};
  #opened = false;
  #closed = false;
  #lastPublish: Promise<unknown> = Promise.resolve();
  #lastTrouble = '';

  constructor({ url, channel, log }: RedisLinkOptions) {
    this.#log = log;
    this.#channel = channel;
    this.#client = createClient({
      url,
      disableOfflineQueue: true,
      pingInterval: PING_MS,
      socket: {
        connectTimeout: SEND_MS,
        reconnectStrategy: (retries) => Math.min(RETRY_MS, 50 * 2 ** Math.min(retries, 10)) * (0.5 + Math.random()),
      },
    });
    this.#client.on('error', (error) => this.#troubled(error));
    this.#client.on('ready', () => {
      this.#lastTrouble = '';
      if (this.#opened) this.#handlers?.up();
    });
  }

  async open(handlers: LinkHandlers): Promise<void> {
    this.#handlers = handlers;
    const opened = new Promise<void>((resolve) => {
      this.#noteOpen = resolve;
    });
    const connected = this.#client.connect().then(
      () => {
        if (this.#closed) return;
        const adapter = createAdapter(this.#guarded(), {
          streamName: this.#channel,
          channelPrefix: this.#channel,
          onlyPlaintext: true,
          heartbeatInterval: ADAPTER_HEARTBEAT_MS,
          heartbeatTimeout: 3 * ADAPTER_HEARTBEAT_MS,
        });
        this.#namespace = openNamespace(adapter, (packet) => this.#handlers?.received(packet));
      },
      (error: unknown) => this.#troubled(error),
    );
    await atMost(OPEN_MS, Promise.all([connected, opened]));
  }

  async send(packet: Packet): Promise<void> {
    if (this.#namespace === null || this.#closed) throw new Error('the bus is not open');
    // The adapter calls `publish` within this call, and tells nobody what becomes of it.
    emitToEngines(this.#namespace, packet);
    const left = this.#lastPublish.then(() => true);
    if ((await atMost(SEND_MS, left)) !== true) throw new Error(`Redis did not answer within ${SEND_MS} ms`);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#namespace?.adapter.close();
    for (const client of [...this.#listening, this.#client]) destroy(client);
  }

  /** What the adapter uses of a client. */
  #guarded(): object {
    return {
      /** By this method the adapter knows the package `redis`. */
      sSubscribe: (): void => {},
      publish: (channel: string, payload: Buffer) => {
        this.#lastPublish = this.#client.isReady
          ? this.#client.publish(channel, payload)
          : Promise.reject(new Error('Redis is not connected now'));
        return this.#lastPublish.catch(() => 0);
      },
      duplicate: () => this.#listener(),
    };
  }

  #listener(): Client {
    // Its reads wait for a connection: refused, the adapter would repeat them without a pause.
    const client = this.#client.duplicate({ disableOfflineQueue: false }) as Client;
    this.#listening.push(client);
    let wasReady = false;
    client.on('error', (error) => this.#troubled(error));
    client.on('ready', () => {
      if (wasReady) this.#handlers?.gap();
      wasReady = true;
    });
    const connect = client.connect.bind(client);
    const subscribe = client.subscribe.bind(client);
    return Object.assign(client, {
      connect: () => connect().catch((error: unknown) => this.#over(error)),
      disconnect: async () => destroy(client),
      subscribe: async (...subscription: Parameters<typeof subscribe>): Promise<void> => {
        for (;;) {
          try {
            await subscribe(...subscription);
            break;
          } catch (error) {
            if (this.#closed) return;
            this.#troubled(error);
            await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          }
        }
        if (this.#opened) this.#handlers?.gap();
        this.#opened = true;
        this.#noteOpen();
      },
    }) as unknown as Client;
  }

  /** A client that will never be connected: whoever waits for it waits on. */
  #over(error: unknown): Promise<never> {
    this.#troubled(error);
    return new Promise<never>(() => {});
  }

  #troubled(error: unknown): void {
    const text = messageOf(error);
    if (this.#closed || text === this.#lastTrouble) return;
    this.#lastTrouble = text;
    this.#log.warn({ error: text }, 'the bus has trouble with Redis');
  }
}

function destroy(client: Client): void {
  if (client.isOpen) client.destroy();
}
