/**
 * The connection to MongoDB: what is sent again, for how long, and what is said when that does not help.
 *
 * Every write of the store can be repeated, so an error that leaves open whether a write happened is answered by the
 * same write once more, until it is acknowledged by a majority or time is up.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClientSession,
  type Collection,
  type Db,
  type Document,
  MongoBulkWriteError,
  MongoClient,
  type MongoClientOptions,
  MongoError,
  MongoNetworkError,
  MongoServerError,
  MongoServerSelectionError,
} from 'mongodb';
import { FullstopError, messageOf } from '../../errors.ts';

/** How long a majority may take to acknowledge a write, ms. */
const WRITE_MS = 5_000;
/** How long a primary may be looked for in one attempt, ms. */
const SELECTION_MS = 2_000;
/** No attempt begins later than this after the call's first, ms. */
const ATTEMPTS_MS = 5_000;
const PAUSE_MS = 20;
const PAUSE_MAX_MS = 250;
/** While writes are not taken: how often one is tried, ms. */
const PROBE_MS = 500;

/**
 * Errors of the server that pass: no primary, a step-down, a shutdown, a member that is not ready yet, an interrupted
 * call or cursor, a snapshot that is gone, a lock, a timeout, a full disk, a shard's moved chunk.
 */
const PASSING_CODES = new Set([
  6, 7, 24, 43, 46, 50, 63, 64, 89, 91, 94, 100, 112, 117, 133, 134, 135, 150, 175, 189, 211, 234, 237, 239, 246, 249,
  251, 262, 267, 279, 290, 317, 365, 9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436, 14031,
]);
/** Of the driver: a pool or server that it dropped while the call was on its way there. */
const PASSING_NAMES = new Set(['MongoPoolClosedError', 'MongoServerClosedError']);
const SOCKET_CODES = new Set(['EPIPE', 'ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'ETIMEDOUT', 'ENOTCONN']);
const DUPLICATE_KEY = 11000;
const UNAUTHORIZED_CODES = new Set([13, 18]);

export interface ConnectionOptions {
  uri: string;
  database: string;
}

export class Connection {
  readonly client: MongoClient;
  readonly db: Db;
  readonly #unretried: MongoClient;
  #trouble: string | null = null;
  #probing: Promise<void> | null = null;
  #serverAheadMs = performance.timeOrigin;
  readonly #closing = new AbortController();

  constructor({ uri, database }: ConnectionOptions) {
    const options: MongoClientOptions = {
      appName: 'fullstop',
      retryReads: true,
      readPreference: 'primary',
      readConcern: { level: 'majority' },
      writeConcern: { w: 'majority', journal: true, wtimeoutMS: WRITE_MS },
      serverSelectionTimeoutMS: SELECTION_MS,
      connectTimeoutMS: 3_000,
      heartbeatFrequencyMS: 3_000,
      socketTimeoutMS: 20_000,
      maxPoolSize: 32,
      enableUtf8Validation: false,
    };
    this.client = new MongoClient(uri, { ...options, retryWrites: true });
    this.#unretried = new MongoClient(uri, { ...options, retryWrites: false, maxPoolSize: 8 });
    this.db = this.client.db(database);
  }

  /** The server's clock, which all engines share, as far as this process has heard of it, ms. */
  get serverTimeMs(): number {
    return Math.floor(performance.now() + this.#serverAheadMs);
  }

  noteServerTime(now: unknown): void {
    if (now instanceof Date) this.#serverAheadMs = now.getTime() - performance.now();
  }

  async connect(): Promise<void> {
    await this.run(async () => {
      await this.client.connect();
      this.noteServerTime((await this.db.command({ hello: 1 }))['localTime']);
    });
  }

  get trouble(): string | null {
    return this.#trouble;
  }

  collection<T extends Document>(name: string): Collection<T> {
    return this.db.collection<T>(name);
  }

  /**
   * For updates of which `run` can send any again at any time: each names the number that must be stored. That the
   * driver sends a write again is paid for on the server, with a write to the session for each: a fifth of a commit.
   */
  unretried<T extends Document>(name: string): Collection<T> {
    return this.#unretried.db(this.db.databaseName).collection<T>(name);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#probing;
    await Promise.all([this.client.close(), this.#unretried.close()]);
  }

  /** Does `work`, again while its errors are such that pass. @throws FS_UNAVAILABLE, FS_INTERNAL */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const untilMs = performance.now() + (this.#trouble === null ? ATTEMPTS_MS : 0);
    for (let pauseMs = PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MAX_MS)) {
      try {
        const value = await work();
        return value;
      } catch (error) {
        if (error instanceof FullstopError) throw error;
        if (!passes(error)) throw unexpected(error);
        if (lastedLong(error)) this.#note(error);
        if (performance.now() + pauseMs > untilMs) throw this.#unavailable(error);
        await sleep(pauseMs * (0.5 + Math.random()));
      }
    }
  }

  /**
   * Does `work` in a transaction, again where another one was in its way, or inserted the same key.
   *
   * `work` gives its session to every call, and does nothing else that lasts.
   */
  transaction<T>(work: (session: ClientSession) => Promise<T>): Promise<T> {
    return this.run(async () => {
      const session = this.client.startSession();
      try {
        session.startTransaction({
          readConcern: { level: 'snapshot' },
          readPreference: 'primary',
          writeConcern: { w: 'majority', journal: true, wtimeoutMS: WRITE_MS },
        });
        const value = await work(session);
        await this.#commit(session);
        return value;
      } catch (error) {
        if (session.inTransaction()) await session.abortTransaction().catch(() => undefined);
        throw isDuplicate(error) ? new Again(error) : error;
      } finally {
        await session.endSession().catch(() => undefined);
      }
    });
  }

  async #commit(session: ClientSession): Promise<void> {
    const untilMs = performance.now() + ATTEMPTS_MS;
    for (;;) {
      try {
        await session.commitTransaction();
        return;
      } catch (error) {
        const unknown = error instanceof MongoError && error.hasErrorLabel('UnknownTransactionCommitResult');
        if (!unknown) throw error;
        if (performance.now() > untilMs) throw this.#unavailable(error);
        await sleep(PAUSE_MS);
      }
    }
  }

  #unavailable(cause: unknown): FullstopError {
    const why = this.#note(cause);
    return new FullstopError('FS_UNAVAILABLE', why, { cause });
  }

  /** Writes are not taken: tries one now and then until they are. */
  #note(error: unknown): string {
    const why = `MongoDB does not take writes: ${reasonOf(error)}`;
    this.#trouble = why;
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = null;
    });
    return why;
  }

  async #probe(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted && this.#trouble !== null) {
      await sleep(PROBE_MS, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await this.collection<{ _id: string; n: number }>('meta').updateOne(
          { _id: 'probe' },
          { $inc: { n: 1 } },
          { upsert: true },
        );
        this.#trouble = null;
      } catch (error) {
        this.#trouble = `MongoDB does not take writes: ${reasonOf(error)}`;
      }
    }
  }
}

/** Of a call that can simply be made again: a transaction met a key that was not there when it began, say. */
export class Again extends Error {
  constructor(cause: unknown) {
    super(messageOf(cause), { cause });
  }
}

/** Whether the same call may go well later; if it was a write, it may also have happened. */
export function passes(error: unknown): boolean {
  if (error instanceof Again) return true;
  if (!(error instanceof MongoError)) return isOfSocket(error);
  // A bulk write wraps what its connection met, and that alone says whether it passes.
  if (error instanceof MongoBulkWriteError && (error.errorResponse as unknown) instanceof MongoError) {
    return passes(error.errorResponse);
  }
  if (error instanceof MongoNetworkError || error instanceof MongoServerSelectionError) return true;
  if (PASSING_NAMES.has(error.name)) return true;
  if (error.hasErrorLabel('TransientTransactionError') || error.hasErrorLabel('RetryableWriteError')) return true;
  return typeof error.code === 'number' && PASSING_CODES.has(error.code);
}

/** The driver passes on as it is what a socket says that the other side has ended: Node.js's own errors. */
function isOfSocket(error: unknown): boolean {
  return error instanceof Error && SOCKET_CODES.has(String(codeOf(error)));
}

export function isDuplicate(error: unknown): boolean {
  return error instanceof MongoServerError && error.code === DUPLICATE_KEY;
}

/** No primary, or no majority: not the moment of a step-down. */
function lastedLong(error: unknown): boolean {
  return error instanceof MongoServerSelectionError || codeOf(error) === 64;
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown } | null)?.code;
}

function reasonOf(error: unknown): string {
  if (error instanceof MongoServerSelectionError) {
    const servers = [...(error.reason?.servers.values() ?? [])];
    const known = servers.some(({ type }) => type.startsWith('RS'));
    return known ? 'its replica set has no primary' : `no server answers (${messageOf(error)})`;
  }
  if (codeOf(error) === 64) return `no majority of its members acknowledged a write within ${WRITE_MS / 1_000} s`;
  return messageOf(error);
}

function unexpected(error: unknown): FullstopError {
  if (error instanceof MongoError && UNAUTHORIZED_CODES.has(Number(error.code))) {
    return new FullstopError('FS_UNAVAILABLE', `MongoDB refuses this user: ${messageOf(error)}`, { cause: error });
  }
  return new FullstopError('FS_INTERNAL', `MongoDB refused a call: ${messageOf(error)}`, { cause: error });
}
