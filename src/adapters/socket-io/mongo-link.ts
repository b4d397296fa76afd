/**
 * The link over MongoDB: `@socket.io/mongo-adapter` on a collection of its own, whose documents MongoDB deletes.
 *
 * What the adapter (0.4.0) leaves open is closed in the collection it is given: an insert that would wait for a
 * primary is refused, what deletions write to the change stream is not read, and of two streams that are open at
 * once (it opens another when the driver takes more than a second to resume one) the older is closed.
 */
import { createAdapter } from '@socket.io/mongo-adapter';
import { type ChangeStream, type Collection, MongoClient, type TopologyDescription } from 'mongodb';
import type { Logger } from 'pino';
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

export interface MongoLinkOptions {
  uri: string;
  database: string;
  log: Pick<Logger, 'warn' | 'debug'>;
}

export const BUS_COLLECTION = 'bus';
/** By this name the server's log, and tests, know the connections of the bus. */
export const BUS_APP_NAME = 'fullstop-bus';
const KEPT_S = 60;
const RETRY_MS = 1_000;
/** How long MongoDB waits for a packet before it says that there is none; a packet ends the wait. */
const AWAIT_MS = 10_000;

export function createMongoLink(options: MongoLinkOptions): EngineLink {
  return new MongoLink(options);
}

class MongoLink implements EngineLink {
  readonly #client: MongoClient;
  readonly #collection: Collection;
  readonly #log: MongoLinkOptions['log'];
  #handlers: LinkHandlers | null = null;
  #namespace: Namespace | null = null;
  #stream: ChangeStream | null = null;
  #opened = false;
  #noteOpen = (): void => {};
  #hasPrimary = false;
  #closed = false;
  #lastInsert: Promise<unknown> = Promise.resolve();

  constructor({ uri, database, log }: MongoLinkOptions) {
    this.#log = log;
    this.#client = new MongoClient(uri, {
      appName: BUS_APP_NAME,
      serverSelectionTimeoutMS: SEND_MS,
      connectTimeoutMS: SEND_MS,
      maxPoolSize: 5,
    });
    this.#client.on('topologyDescriptionChanged', ({ newDescription }) => {
      const had = this.#hasPrimary;
      this.#hasPrimary = takesWrites(newDescription);
      if (this.#hasPrimary && !had && this.#opened) this.#handlers?.up();
    });
    this.#collection = this.#client.db(database).collection(BUS_COLLECTION, { writeConcern: { w: 1 } });
  }

  async open(handlers: LinkHandlers): Promise<void> {
    this.#handlers = handlers;
    const opened = new Promise<void>((resolve) => {
      this.#noteOpen = resolve;
    });
    void this.#connect();
    await atMost(OPEN_MS, opened);
  }

  async #connect(): Promise<void> {
    while (!this.#closed) {
      try {
        await this.#client.connect();
        await this.#collection.createIndex({ createdAt: 1 }, { expireAfterSeconds: KEPT_S });
        break;
      } catch (error) {
        this.#log.warn({ error: messageOf(error) }, 'the bus is not connected: it goes on trying');
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
    if (this.#closed) return;
    const adapter = createAdapter(this.#guarded(), {
      addCreatedAtField: true,
      heartbeatInterval: ADAPTER_HEARTBEAT_MS,
      heartbeatTimeout: 3 * ADAPTER_HEARTBEAT_MS,
    });
    this.#namespace = openNamespace(adapter, (packet) => this.#handlers?.received(packet));
  }

  async send(packet: Packet): Promise<void> {
    if (this.#namespace === null || this.#closed) throw new Error('the bus is not open');
    // The adapter calls `insertOne` within this call, and tells nobody what becomes of it.
    emitToEngines(this.#namespace, packet);
    await this.#lastInsert;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await atMost(
      SEND_MS,
      Promise.resolve(this.#namespace?.adapter.close()).catch(() => undefined),
    );
    this.#stream?.removeAllListeners('change');
    await atMost(
      SEND_MS,
      this.#client.close().catch(() => undefined),
    );
  }

  #guarded(): Collection {
    return {
      insertOne: (document: object) => {
        this.#lastInsert = this.#insert(document);
        return this.#lastInsert;
      },
      watch: (pipeline: object[], options: object) => this.#watch(pipeline, options),
    } as unknown as Collection;
  }

  async #insert(document: object) {
    if (!this.#hasPrimary) throw new Error('MongoDB has no primary now');
    return this.#collection.insertOne(document, { timeoutMS: SEND_MS });
  }

  #watch(pipeline: object[], options: object): ChangeStream {
    const before = this.#stream;
    if (before !== null) {
      before.removeAllListeners();
      before.on('error', () => undefined);
      before.close().catch(() => undefined);
    }
    const stream = this.#collection.watch([{ $match: { operationType: 'insert' } }, ...pipeline], {
      ...options,
      maxAwaitTimeMS: AWAIT_MS,
    });
    this.#stream = stream;
    let wasOpen = false;
    let broken = before !== null;
    stream.on('error', (error) => {
      this.#log.warn({ error: messageOf(error) }, 'the bus lost its change stream');
    });
    // The driver closes a stream's cursor, and opens another, when it resumes it.
    stream.on('close', () => {
      broken = true;
    });
    stream.on('resumeTokenChanged', () => {
      if (wasOpen && !broken) return;
      const missed = broken;
      wasOpen = true;
      broken = false;
      this.#opened = true;
      this.#noteOpen();
      if (missed) {
        this.#handlers?.gap();
        this.#handlers?.up();
      }
    });
    return stream;
  }
}

function takesWrites(description: TopologyDescription): boolean {
  return [...description.servers.values()].some(({ isWritable }) => isWritable);
}
