/**
 * The connection of a worker or agent to an engine: it says hello, beats, and repeats results until they are
 * answered, over as many reconnects as that takes.
 */
import { io, type Socket } from 'socket.io-client';
import { type ErrorCode, errorCodes, FullstopError, hasCode, messageOf } from '../errors.ts';
import type { Clock, TimerHandle } from '../ports/clock.ts';
import type { Task, WorkReport } from '../ports/work.ts';
import { type HeldTask, type WelcomeAnswer, type WorkerHello, workerProtocol } from './protocol.ts';

const RECONNECT_MS = 100;
const RECONNECT_MAX_MS = 1_000;
/** Until a result that was refused for now, or not answered, is said again. */
const REPEAT_MS = 1_000;
const ANSWER_MS = 15_000;
/** Of what was printed while there was no connection. */
const LOG_CHARS_MAX = 4 * 2 ** 20;

export interface LinkLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** What the engine says, and what happens to the connection. */
export interface LinkHandlers {
  /** As things are now; without the results that were not answered. */
  hello(): WorkerHello;
  run(task: Task, token: string): void;
  cancel(taskId: string): void;
  stop(executionId: string): void;
  /** Of what the hello listed, the engine wants this no more. */
  unwanted(task: HeldTask): void;
  /** Nothing was heard for a lease: the engine has given everything away that was here. */
  cutOff(): void;
  /** The engine refused this process for good. */
  refused(error: FullstopError): void;
}

export interface EngineLinkOptions {
  /** Of an engine, or of several with commas: tried in turn. */
  url: string;
  namespace: '/workers' | '/agents';
  /** Of the handshake: `token`, and what else the namespace takes. */
  auth: Record<string, string>;
  clock: Clock;
  log: LinkLog;
  handlers: LinkHandlers;
}

interface Outgoing {
  task: HeldTask;
  report: WorkReport;
  json: string;
  underWay: boolean;
}

type LogMessage = HeldTask & { stream: 'stdout' | 'stderr'; text: string; truncated?: true };

export class EngineLink {
  readonly #options: EngineLinkOptions;
  readonly #clock: Clock;
  readonly #handlers: LinkHandlers;
  readonly #urls: string[];
  /** Of the connection that stands, or is tried. */
  #url: string;
  #socket: Socket;
  /** Results that were not answered, oldest first, by task and token. */
  readonly #outbox = new Map<string, Outgoing>();
  #logs: LogMessage[] = [];
  #logChars = 0;
  /** Of the connection that stands; null: no hello was answered on it. */
  #welcome: WelcomeAnswer | null = null;
  /** When the last message that was answered was sent: the engine's lease began no earlier. */
  #confirmedAtMs: number | null = null;
  #leaseMs: number = workerProtocol.workerLeaseMs;
  #beatTimer: TimerHandle = null;
  #leaseTimer: TimerHandle = null;
  #repeatTimer: TimerHandle = null;
  #reconnectTimer: TimerHandle = null;
  /** It was said that there is no connection. */
  #missed = false;
  #over: FullstopError | null = null;
  #whenChanged: (() => void)[] = [];

  constructor(options: EngineLinkOptions) {
    this.#options = options;
    this.#clock = options.clock;
    this.#handlers = options.handlers;
    this.#urls = options.url.split(',');
    this.#url = this.#urls[0] as string;
    this.#socket = this.#open();
  }

  #open(): Socket {
    const { namespace, auth } = this.#options;
    const socket = io(this.#url + namespace, {
      auth,
      transports: ['websocket', 'polling'],
      tryAllTransports: true,
      forceNew: true,
      autoConnect: false,
      reconnectionDelay: RECONNECT_MS,
      reconnectionDelayMax: RECONNECT_MAX_MS,
      timeout: 5_000,
    });
    socket.on('connect', () => void this.sayHello());
    socket.on('connect_error', (error) => this.#notConnected(error));
    socket.on('disconnect', (reason) => this.#disconnected(reason));
    socket.on('task.run', ({ task, token }: { task: Task; token: string }) => this.#handlers.run(task, token));
    socket.on('task.cancel', ({ taskId }: { taskId: string }) => this.#handlers.cancel(taskId));
    socket.on('STOP', ({ executionId }: { executionId: string }) => this.#handlers.stop(executionId));
    return socket;
  }

  /** To the next engine, where several are known. */
  #turn(): void {
    if (this.#urls.length === 1) return;
    const former = this.#socket;
    former.off();
    former.disconnect();
    this.#url = this.#urls[(this.#urls.indexOf(this.#url) + 1) % this.#urls.length] as string;
    this.#socket = this.#open();
  }

  connect(): void {
    this.#socket.connect();
  }

  /** An engine has answered the hello of the connection that stands. */
  get welcomed(): boolean {
    return this.#welcome !== null;
  }

  /** Why nothing will be answered any more; null while that may change. */
  get over(): FullstopError | null {
    return this.#over;
  }

  /** Tasks whose results were not answered. */
  unanswered(): HeldTask[] {
    return [...this.#outbox.values()].map(({ task }) => task);
  }

  holds(task: HeldTask): boolean {
    return this.#outbox.has(keyOf(task));
  }

  /** Says how a task ended, again and again until that is answered. */
  send(task: HeldTask, report: WorkReport): void {
    if (this.#over !== null) return;
    const outgoing = toOutgoing(task, report);
    this.#outbox.set(keyOf(task), outgoing);
    void this.#deliver(outgoing);
  }

  print(message: LogMessage): void {
    if (this.#welcome !== null) {
      this.#socket.emit('task.log', message);
      return;
    }
    this.#logs.push(message);
    this.#logChars += message.text.length;
    while (this.#logChars > LOG_CHARS_MAX) this.#logChars -= this.#logs.shift()?.text.length ?? this.#logChars;
  }

  /** Resolves when an engine has said welcome. @throws why none ever will */
  async ready(): Promise<void> {
    while (this.#welcome === null) {
      if (this.#over !== null) throw this.#over;
      await this.#change();
    }
  }

  /** Resolves when every result was answered, or after `ms`. */
  async answered(ms: number): Promise<void> {
    let late = this.#outbox.size === 0;
    const timer = this.#clock.setTimer(ms, () => {
      late = true;
      this.#changed();
    });
    while (!late && this.#outbox.size > 0 && this.#over === null) await this.#change();
    this.#cancel(timer);
  }

  close(): void {
    this.#end(new FullstopError('FS_UNAVAILABLE', 'closed'));
  }

  /** Tells the engine of the connection that stands what is held and offered now. */
  async sayHello(): Promise<void> {
    const connection = this.#socket.id;
    const sentAtMs = this.#clock.nowMs();
    const hello = this.#handlers.hello();
    const held = [...hello.held, ...this.unanswered()];
    let welcome: WelcomeAnswer;
    try {
      welcome = (await this.#ask('worker.hello', { ...hello, held }, ANSWER_MS)) as WelcomeAnswer;
    } catch (error) {
      if (this.#over !== null || this.#socket.id !== connection) return;
      if (hasCode(error, 'FS_INVALID', 'FS_FORBIDDEN', 'FS_CONFLICT')) this.#refuse(error as FullstopError);
      else this.#reconnect('the hello was not answered', error, RECONNECT_MAX_MS);
      return;
    }
    if (this.#socket.id !== connection) return;
    this.#leaseMs = welcome.leaseMs;
    this.#confirm(sentAtMs);
    this.#dropUnwanted(held, new Set(welcome.keep));
    const isFirst = this.#welcome === null;
    this.#missed = false;
    this.#welcome = welcome;
    if (isFirst) {
      for (const message of this.#logs) this.#socket.emit('task.log', message);
      this.#logs = [];
      this.#logChars = 0;
      this.#repeatAll();
      this.#beatLater(welcome.heartbeatMs);
      this.#options.log.info({ url: this.#url, held: held.length, kept: welcome.keep.length }, 'connected');
    }
    this.#changed();
  }

  #dropUnwanted(listed: HeldTask[], keep: ReadonlySet<string>): void {
    for (const task of listed) if (!keep.has(task.taskId)) this.#handlers.unwanted(task);
  }

  // ------------------------------------------------------------------ heartbeats and the lease

  #beatLater(ms: number): void {
    this.#cancel(this.#beatTimer);
    this.#beatTimer = this.#clock.setTimer(ms, () => void this.#beat());
  }

  async #beat(): Promise<void> {
    const connection = this.#socket.id;
    const welcome = this.#welcome;
    if (welcome === null) return;
    const sentAtMs = this.#clock.nowMs();
    const held = [...this.#handlers.hello().held, ...this.unanswered()].map(({ taskId }) => taskId);
    let cancel: string[];
    try {
      // Unanswered for half a lease, the connection is taken for dead: the other half is for a new one.
      ({ cancel } = (await this.#ask('worker.heartbeat', { held }, welcome.leaseMs / 2)) as { cancel: string[] });
    } catch (error) {
      if (this.#socket.id === connection) this.#reconnect('a heartbeat was not answered', error);
      return;
    }
    if (this.#socket.id !== connection) return;
    this.#confirm(sentAtMs);
    for (const taskId of cancel) this.#handlers.cancel(taskId);
    this.#beatLater(Math.max(0, welcome.heartbeatMs - (this.#clock.nowMs() - sentAtMs)));
  }

  #confirm(sentAtMs: number): void {
    this.#confirmedAtMs = sentAtMs;
    if (this.#leaseTimer === null) this.#watchLease();
  }

  #watchLease(): void {
    const leftMs = (this.#confirmedAtMs ?? 0) + this.#leaseMs - this.#clock.nowMs();
    this.#leaseTimer = this.#clock.setTimer(Math.max(0, leftMs), () => {
      this.#leaseTimer = null;
      if (this.#confirmedAtMs === null || this.#over !== null) return;
      if (this.#clock.nowMs() - this.#confirmedAtMs < this.#leaseMs) return this.#watchLease();
      this.#confirmedAtMs = null;
      this.#handlers.cutOff();
      // Whatever still stands belongs to a lease that has run out.
      this.#reconnect(`not heard for ${this.#leaseMs} ms`);
    });
  }

  // ------------------------------------------------------------------ results

  async #deliver(outgoing: Outgoing): Promise<void> {
    if (this.#welcome === null || outgoing.underWay) return;
    const { task, json, report } = outgoing;
    outgoing.underWay = true;
    try {
      if (json.length <= workerProtocol.partChars) {
        await this.#ask('task.result', { ...task, report }, ANSWER_MS);
      } else {
        let parts = 0;
        for (let at = 0; at < json.length; at += workerProtocol.partChars) {
          const text = json.slice(at, at + workerProtocol.partChars);
          await this.#ask('task.part', { ...task, part: parts++, text }, ANSWER_MS);
        }
        await this.#ask('task.result', { ...task, parts }, ANSWER_MS);
      }
      this.#forget(outgoing);
    } catch (error) {
      outgoing.underWay = false;
      if (hasCode(error, 'FS_INVALID', 'FS_TOO_LARGE')) this.#replace(outgoing, messageOf(error));
      else this.#repeatLater();
    }
  }

  /** The engine will never take this report: it gets one that it can take. */
  #replace(outgoing: Outgoing, why: string): void {
    const { task, report } = outgoing;
    if (this.#outbox.get(keyOf(task)) !== outgoing) return;
    this.#options.log.warn({ taskId: task.taskId, why }, 'a result was refused');
    if (report.kind !== 'completed') return this.#forget(outgoing);
    const error = `its output was refused: ${why}`;
    this.send(task, { kind: 'failed', error, code: 'FS_FAILED', retryable: false });
  }

  #forget(outgoing: Outgoing): void {
    const key = keyOf(outgoing.task);
    if (this.#outbox.get(key) === outgoing) this.#outbox.delete(key);
    this.#changed();
  }

  #repeatLater(): void {
    if (this.#over !== null) return;
    this.#repeatTimer ??= this.#clock.setTimer(REPEAT_MS, () => this.#repeatAll());
  }

  #repeatAll(): void {
    this.#cancel(this.#repeatTimer);
    this.#repeatTimer = null;
    for (const outgoing of this.#outbox.values()) void this.#deliver(outgoing);
  }

  // ------------------------------------------------------------------ the socket

  async #ask(name: string, payload: unknown, withinMs: number): Promise<unknown> {
    const answer: unknown = await this.#socket.timeout(withinMs).emitWithAck(name, payload);
    const { ok, data, error } = Object(answer) as { ok?: unknown; data?: unknown; error?: unknown };
    if (ok === true) return data;
    throw toError(error) ?? new FullstopError('FS_INTERNAL', `${name}: expected {ok, data} or {ok, error}`);
  }

  #notConnected(error: Error & { data?: unknown }): void {
    if (!this.#missed) this.#options.log.warn({ url: this.#url, error: error.message }, 'no engine: trying on');
    this.#missed = true;
    if (this.#socket.active) {
      // The library tries again, and knows one address.
      if (this.#urls.length > 1) this.#connectLater();
      return;
    }
    // The server refused this socket: the library does not try again by itself.
    const refused = toError(error.data);
    const final = refused !== null && !refused.retryable && refused.code !== 'FS_INTERNAL';
    if (final) this.#refuse(refused);
    else this.#connectLater(RECONNECT_MAX_MS);
  }

  #disconnected(reason: string): void {
    this.#unwelcome();
    if (this.#over !== null) return;
    this.#options.log.warn({ reason }, 'disconnected');
    if (reason === 'io server disconnect') this.#connectLater();
  }

  #reconnect(why: string, error?: unknown, afterMs = RECONNECT_MS): void {
    if (this.#over !== null) return;
    this.#options.log.warn({ why, error: error === undefined ? undefined : messageOf(error) }, 'connecting anew');
    this.#unwelcome();
    this.#socket.disconnect();
    this.#connectLater(afterMs);
  }

  #connectLater(afterMs = RECONNECT_MS): void {
    this.#cancel(this.#reconnectTimer);
    this.#reconnectTimer = this.#clock.setTimer(afterMs * (1 + Math.random()), () => {
      if (this.#over !== null) return;
      this.#turn();
      this.#socket.connect();
    });
  }

  #unwelcome(): void {
    this.#welcome = null;
    this.#cancel(this.#beatTimer);
  }

  #refuse(error: FullstopError): void {
    this.#end(error);
    this.#handlers.refused(error);
  }

  #end(error: FullstopError): void {
    if (this.#over !== null) return;
    this.#over = error;
    this.#unwelcome();
    for (const timer of [this.#leaseTimer, this.#repeatTimer, this.#reconnectTimer]) this.#cancel(timer);
    this.#outbox.clear();
    this.#socket.disconnect();
    this.#changed();
  }

  #cancel(timer: TimerHandle): void {
    if (timer !== null) this.#clock.clearTimer(timer);
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#whenChanged.push(resolve));
  }

  #changed(): void {
    const waiting = this.#whenChanged;
    this.#whenChanged = [];
    for (const resolve of waiting) resolve();
  }
}

function keyOf({ taskId, token }: HeldTask): string {
  return `${token} ${taskId}`;
}

function toOutgoing(task: HeldTask, report: WorkReport): Outgoing {
  try {
    const sent = report.kind === 'completed' ? { kind: report.kind, output: report.output ?? null } : report;
    const json = JSON.stringify(sent);
    if (json.length > workerProtocol.reportCharsMax) {
      throw new RangeError(`its output is larger than ${workerProtocol.reportCharsMax} characters of JSON`);
    }
    return { task, report: sent, json, underWay: false };
  } catch (error) {
    // No JSON, nested too deeply, or too large.
    const failed: WorkReport = { kind: 'failed', error: messageOf(error), code: 'FS_FAILED', retryable: false };
    return { task, report: failed, json: JSON.stringify(failed), underWay: false };
  }
}

/** null when `body` is no error body. */
function toError(body: unknown): FullstopError | null {
  const { code, message, details } = Object(body) as { code?: unknown; message?: unknown; details?: unknown };
  if (typeof code !== 'string') return null;
  const known = Object.hasOwn(errorCodes, code) ? errorCodes[code as ErrorCode] : null;
  return new FullstopError(code as ErrorCode, typeof message === 'string' ? message : code, {
    details,
    retryable: known?.retryable ?? false,
  });
}
