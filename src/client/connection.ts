/**
 * One Socket.IO connection: calls with a deadline, pushes, and who hears that it is there again.
 *
 * Nothing is sent before the connection stands and nothing is kept for later: a call that was reported as
 * failed is never delivered afterwards.
 */
import { io, type Socket } from 'socket.io-client';
import { type ErrorCode, errorCodes, FullstopError } from '../errors.ts';
import type { ServerEvents } from '../wire.ts';
import type { Verbs } from './verbs.ts';

export interface ConnectOptions {
  /** Address of the server, such as `http://127.0.0.1:4747`. */
  url: string;
  /** API key. */
  key?: string;
  /** Longest wait for an answer, connecting included, in ms; 15,000 by default. */
  timeoutMs?: number;
}

const TIMEOUT_MS = 15_000;
const RECONNECT_MS = 200;
const RECONNECT_MAX_MS = 5_000;

interface Pending {
  /** False: it waits for the connection; true: for the answer. */
  sent: boolean;
  send(): void;
  fail(error: FullstopError): void;
}

export class Connection {
  readonly #url: string;
  readonly #timeoutMs: number;
  readonly #socket: Socket;
  readonly #pending = new Set<Pending>();
  readonly #breakListeners = new Set<() => void>();
  /** Why nothing will be answered any more; null while that may change. */
  #over: FullstopError | null = null;
  #lastTrouble = 'still connecting';
  #everConnected = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(options: ConnectOptions) {
    this.#url = options.url;
    this.#timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
    this.#socket = io(options.url, {
      auth: options.key === undefined ? {} : { token: options.key },
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      forceNew: true,
      autoConnect: false,
      reconnectionDelay: RECONNECT_MS,
      reconnectionDelayMax: RECONNECT_MAX_MS,
      timeout: this.#timeoutMs,
    });
    this.#socket.on('connect', () => {
      this.#everConnected = true;
      for (const call of [...this.#pending]) if (!call.sent) call.send();
    });
    this.#socket.on('connect_error', (error) => this.#notConnected(error));
    this.#socket.on('disconnect', (reason) => this.#disconnected(reason));
    this.#socket.connect();
  }

  get connected(): boolean {
    return this.#socket.connected;
  }

  /** False until the first connection stood. */
  get everConnected(): boolean {
    return this.#everConnected;
  }

  /** Why the connection is over for good, null while it is not. */
  get over(): FullstopError | null {
    return this.#over;
  }

  /**
   * Sends one verb and gives its answer.
   *
   * @throws what the server answered; FS_UNAVAILABLE when no answer came in time or the connection broke before
   * it (a change may then have happened); FS_UNAUTHENTICATED when the key was refused; the signal's reason.
   */
  call<V extends keyof Verbs>(
    verb: V,
    payload: Verbs[V]['payload'],
    signal?: AbortSignal,
  ): Promise<Verbs[V]['answer']> {
    if (this.#over !== null) return Promise.reject(this.#over);
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const settle = (): boolean => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', aborted);
        return this.#pending.delete(call);
      };
      const call: Pending = {
        sent: false,
        send: () => {
          call.sent = true;
          this.#socket.emit(verb, payload, (answer: unknown) => {
            if (!settle()) return;
            const outcome = readAnswer(verb, answer);
            if (outcome instanceof FullstopError) reject(outcome);
            else resolve(outcome.data as Verbs[V]['answer']);
          });
        },
        fail: (error) => {
          if (settle()) reject(error);
        },
      };
      const aborted = (): void => {
        if (settle()) reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        call.fail(
          call.sent
            ? unavailable(
                `${verb}: no answer from ${this.#url} within ${this.#timeoutMs} ms; whether it took effect is not known`,
              )
            : this.#unreachable(),
        );
      }, this.#timeoutMs);
      signal?.addEventListener('abort', aborted);
      this.#pending.add(call);
      if (this.#socket.connected) call.send();
    });
  }

  /** Listens to one push; the returned function ends that. */
  on<E extends keyof ServerEvents>(event: E, listener: ServerEvents[E]): () => void {
    this.#socket.on(event as string, listener);
    return () => this.#socket.off(event as string, listener);
  }

  /** Calls `listener` each time the connection breaks (the server has then forgotten its rooms) and when it is over for good. */
  onBreak(listener: () => void): () => void {
    this.#breakListeners.add(listener);
    return () => this.#breakListeners.delete(listener);
  }

  /** Resolves when connected. @throws why this attempt failed; later attempts follow by themselves. */
  ready(): Promise<void> {
    if (this.#over !== null) return Promise.reject(this.#over);
    if (this.#socket.connected) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#socket.off('connect', connected);
        this.#socket.off('connect_error', failed);
        stopListening();
      };
      const connected = (): void => {
        settle();
        resolve();
      };
      const failed = (): void => {
        settle();
        reject(this.#over ?? this.#unreachable());
      };
      const stopListening = this.onBreak(failed);
      this.#socket.on('connect', connected);
      this.#socket.on('connect_error', failed);
    });
  }

  close(): void {
    this.#end(unavailable('the client was closed'));
  }

  #notConnected(error: Error & { data?: unknown; description?: { message?: string } }): void {
    const refused = toError(error.data, error.message);
    if (refused === null) {
      this.#lastTrouble = error.description?.message || error.message;
      return;
    }
    this.#lastTrouble = refused.message;
    // The server refused this socket: the library does not try again by itself.
    if (refused.retryable) this.#connectLater();
    else this.#end(refused);
  }

  #disconnected(reason: string): void {
    this.#lastTrouble = `disconnected (${reason})`;
    for (const call of [...this.#pending]) {
      if (call.sent)
        call.fail(unavailable('the connection broke before the answer came; whether it took effect is not known'));
    }
    this.#tellBreak();
    // The server closed it, as it does when it ends and when a key is deleted: the next attempt tells which.
    if (reason === 'io server disconnect') this.#connectLater();
  }

  #connectLater(): void {
    if (this.#over !== null) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#socket.connect(), RECONNECT_MS * (1 + Math.random()));
  }

  #end(error: FullstopError): void {
    if (this.#over !== null) return;
    this.#over = error;
    clearTimeout(this.#retry);
    for (const call of [...this.#pending]) call.fail(error);
    this.#socket.disconnect();
    this.#tellBreak();
  }

  #tellBreak(): void {
    for (const listener of [...this.#breakListeners]) listener();
  }

  #unreachable(): FullstopError {
    return unavailable(`nothing answers at ${this.#url}: ${this.#lastTrouble}`);
  }
}

const unavailable = (message: string): FullstopError => new FullstopError('FS_UNAVAILABLE', message);

function readAnswer(verb: string, answer: unknown): FullstopError | { data: unknown } {
  if (typeof answer === 'object' && answer !== null) {
    const { ok, data, error } = answer as { ok?: unknown; data?: unknown; error?: unknown };
    if (ok === true) return { data };
    const refused = toError(error, `${verb} was refused`);
    if (ok === false && refused !== null) return refused;
  }
  return new FullstopError(
    'FS_INTERNAL',
    `${verb}: expected {ok, data} or {ok, error}, found ${JSON.stringify(answer)}`,
  );
}

/** null when `body` is no error body. A code that this client does not know is kept. */
function toError(body: unknown, fallback: string): FullstopError | null {
  if (typeof body !== 'object' || body === null) return null;
  const { code, message, details } = body as { code?: unknown; message?: unknown; details?: unknown };
  if (typeof code !== 'string') return null;
  return new FullstopError(code as ErrorCode, typeof message === 'string' ? message : fallback, {
    details,
    retryable: code in errorCodes && errorCodes[code as ErrorCode].retryable,
  });
}
