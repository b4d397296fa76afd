import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { FullstopError } from '../../errors.ts';
import type { Call, FromThread, Operations, ThreadError, ToThread } from './protocol.ts';
import type { ConnectionOptions } from './schema.ts';

interface Waiting {
  resolve: (value: never) => void;
  reject: (error: unknown) => void;
  decode: ((value: never) => unknown) | undefined;
}

/** So many calls are posted before the turn is over: the thread works on them while this one makes more. */
const POST_AT = 64;

/** So many characters of big texts, too: a thread takes a message whole, and its memory is bounded. */
const POST_AT_SIZE = 4 * 1024 * 1024;

/**
 * The main thread's end of a store thread.
 *
 * The calls of one turn of the event loop are posted as one message, many of them as several. A thread that
 * dies takes the calls under way with it (FS_UNAVAILABLE) and is started again by the next one.
 */
export class StoreThread<Ops extends Operations> {
  readonly #name: string;
  readonly #options: ConnectionOptions;
  #worker: Worker | null = null;
  #opening: { resolve: () => void; reject: (error: unknown) => void } | null = null;
  #closing: (() => void) | null = null;
  #closed = false;
  #calls: Call[] = [];
  #size = 0;
  #waiting: Waiting[] = [];
  /** Where the calls not answered yet begin in `#waiting`. */
  #answered = 0;
  #trouble: string | null = null;

  readonly #idleMs: number;
  #idle: NodeJS.Timeout | null = null;

  /**
   * `name` is that of the thread's file: `writer` for writer.thread.ts. A thread without a call for `idleMs`
   * ends, to give its memory back, and is started by the next one; 0: never.
   */
  constructor(name: string, options: ConnectionOptions, idleMs = 0) {
    this.#name = name;
    this.#options = options;
    this.#idleMs = idleMs;
  }

  get trouble(): string | null {
    return this.#trouble;
  }

  /** Resolves when the thread has opened the database. */
  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#opening = { resolve, reject };
      this.#start();
    });
  }

  /** Ends the thread after the calls made before. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#post();
    if (this.#worker === null) return;
    const ended = new Promise<void>((resolve) => {
      this.#closing = resolve;
    });
    this.#send('close');
    await ended;
  }

  call<K extends keyof Ops & string>(operation: K, ...args: Parameters<Ops[K]>): Promise<ReturnType<Ops[K]>> {
    return this.#enqueue([operation, ...args], 0, undefined);
  }

  /** As `call`, with big texts of `size` characters; `decode` makes the port's value of what the thread answers. */
  callSized<K extends keyof Ops & string, T>(
    size: number,
    decode: (value: ReturnType<Ops[K]>) => T,
    operation: K,
    ...args: Parameters<Ops[K]>
  ): Promise<T> {
    return this.#enqueue([operation, ...args], size, decode as (value: never) => unknown);
  }

  #enqueue<T>(call: Call, size: number, decode: Waiting['decode']): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new FullstopError('FS_UNAVAILABLE', 'the store is closed'));
        return;
      }
      this.#waiting.push({ resolve, reject, decode });
      // After a turn's promises have run, so that all they call is in one message.
      const count = this.#calls.push(call);
      this.#size += size;
      if (count >= POST_AT || this.#size >= POST_AT_SIZE) this.#post();
      else if (count === 1) process.nextTick(() => this.#post());
    });
  }

  #post(): void {
    if (this.#calls.length === 0) return;
    const message = { calls: this.#calls, size: this.#size };
    this.#calls = [];
    this.#size = 0;
    if (this.#worker === null) this.#start();
    this.#send(message);
  }

  #send(message: ToThread): void {
    this.#worker?.postMessage(message);
  }

  #start(): void {
    const worker = new Worker(new URL(`./${this.#name}.thread${extname(import.meta.url)}`, import.meta.url), {
      name: `store ${this.#name}`,
      workerData: this.#options,
      resourceLimits: { maxOldGenerationSizeMb: 512, maxYoungGenerationSizeMb: 16 },
    });
    let failure = 'it ended';
    worker.on('message', (message: FromThread) => this.#receive(message));
    worker.on('error', (error: Error) => {
      failure = error.message;
    });
    worker.on('exit', () => {
      // One that ended because nobody asked anything is not missed.
      if (worker === this.#worker) this.#ended(failure);
    });
    this.#worker = worker;
  }

  #receive(message: FromThread): void {
    switch (message.kind) {
      case 'outcomes':
        this.#answer(message.values.length, message.values, message.errors, null);
        break;
      case 'failed':
        this.#answer(message.count, null, null, message.error);
        break;
      case 'trouble':
        this.#trouble = message.message;
        break;
      case 'opened':
        this.#trouble = null;
        this.#opening?.resolve();
        this.#opening = null;
        break;
      case 'refused':
        this.#opening?.reject(asError(message.error));
        this.#opening = null;
        break;
    }
  }

  #answer(
    count: number,
    values: unknown[] | null,
    errors: Map<number, ThreadError> | null,
    failure: ThreadError | null,
  ): void {
    for (let index = 0; index < count; index += 1) {
      const waiting = this.#waiting[this.#answered] as Waiting;
      this.#answered += 1;
      const error = failure ?? errors?.get(index);
      if (error !== undefined) {
        waiting.reject(asError(error));
        continue;
      }
      try {
        const value = values?.[index] as never;
        waiting.resolve((waiting.decode === undefined ? value : waiting.decode(value)) as never);
      } catch (reason) {
        waiting.reject(reason);
      }
    }
    if (this.#answered === this.#waiting.length) {
      this.#waiting = [];
      this.#answered = 0;
      if (this.#idleMs > 0) this.#armIdle();
    } else if (this.#answered > 4096) {
      this.#waiting.splice(0, this.#answered);
      this.#answered = 0;
    }
  }

  #armIdle(): void {
    if (this.#idle !== null) {
      this.#idle.refresh();
      return;
    }
    this.#idle = setTimeout(() => {
      this.#idle = null;
      if (this.#waiting.length > 0 || this.#closed) return;
      this.#send('close');
      this.#worker = null;
    }, this.#idleMs).unref();
  }

  #ended(failure: string): void {
    this.#worker = null;
    const error: ThreadError = {
      code: 'FS_UNAVAILABLE',
      message: `the store's ${this.#name} thread failed: ${failure}`,
    };
    this.#opening?.reject(asError(error));
    this.#opening = null;
    const unposted = this.#calls.length;
    const lost = this.#waiting.length - this.#answered - unposted;
    if (lost > 0) this.#answer(lost, null, null, error);
    if (this.#closing !== null) this.#closing();
    else this.#trouble = error.message;
  }
}

function asError({ code, message }: ThreadError): FullstopError {
  return new FullstopError(code, message);
}
