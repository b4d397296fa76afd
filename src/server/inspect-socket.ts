/** The WebSockets at `/inspect/TOKEN` and `/inspect/v4/TOKEN`: a Stately viewer watches one execution, and may stop it. */
import { type Server as HttpServer, type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Inspected } from '../engine/inspection.ts';
import { errorCodes, FullstopError, messageOf } from '../errors.ts';
import type { TimerHandle } from '../ports/clock.ts';
import { isFirstAdmin } from './access.ts';
import { call, codeOf, errorBody } from './call.ts';
import { INSPECT_PATH, type Pass } from './inspection-tokens.ts';
import type { Origins } from './origins.ts';
import { stately } from './stately.ts';
import { statelyV4 } from './stately-v4.ts';
import { isHere } from './verbs/scope.ts';
import type { Context, Verb } from './verbs/verb.ts';
import { STOP_EVENT, type ViewerProtocol } from './viewer-protocol.ts';

/** What a viewer may say fits in this many bytes. */
const FRAME_BYTES_MAX = 4_096;
/** Messages that may wait for a viewer that does not read; with more it is hung up on. */
const WAITING_MAX = 50_000;
/** Bytes given to the connection at once; more wait as messages, which viewers of one execution share. */
const BUFFERED_BYTES_MAX = 1_048_576;
/** Between two looks at whether a viewer lives, and may still look. */
const CHECK_MS = 10_000;
const VIEWERS_MAX = 100;
/** A viewer that goes on saying what is not taken is hung up on. */
const REFUSALS_MAX = 100;

/** Codes of RFC 6455. */
const close = { leaving: 1001, policy: 1008, broken: 1011, later: 1013 } as const;

export interface InspectSocketOptions {
  context: Context;
  origins: Origins;
  /** Foreign pages that may look, as `https://viewer.example`. */
  allowed: readonly string[];
  verbs: readonly Verb[];
}

export interface InspectSocket {
  closeSocketsOf(keyId: string): void;
  close(): void;
}

export function openInspectSocket(server: HttpServer, options: InspectSocketOptions): InspectSocket {
  const { context, origins, allowed, verbs } = options;
  const stop = verbs.find(({ name }) => name === STOP_EVENT);
  if (stop === undefined) throw new Error(`no verb ${STOP_EVENT}`);
  const sockets = new WebSocketServer({ noServer: true, maxPayload: FRAME_BYTES_MAX, perMessageDeflate: false });
  const viewers = new Set<Viewer>();

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const { url = '' } = request;
    if (!url.startsWith(INSPECT_PATH)) return;
    socket.on('error', () => socket.destroy());
    const protocol = url.startsWith(statelyV4.path) ? statelyV4 : stately;
    const pass = context.inspections.find(url.slice(protocol.path.length));
    const refused =
      origins.refuseHost(request.headers.host) ??
      (allowed.includes(request.headers.origin ?? '') ? null : origins.refuseOrigin(request.headers)) ??
      (pass === null ? unknownToken() : null) ??
      (viewers.size >= VIEWERS_MAX ? tooMany() : null);
    if (refused !== null || pass === null) return refuse(socket, refused ?? unknownToken());
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      const viewer = new Viewer(context, stop, protocol, pass, webSocket, () => viewers.delete(viewer));
      viewers.add(viewer);
      viewer.open();
    });
  });

  return {
    closeSocketsOf(keyId) {
      context.inspections.forget(keyId);
      for (const viewer of viewers) if (viewer.pass.caller.keyId === keyId) viewer.hangUp(close.policy);
    },
    close() {
      for (const viewer of viewers) viewer.hangUp(close.leaving);
      sockets.close();
    },
  };
}

class Viewer {
  readonly pass: Pass;
  readonly #context: Context;
  readonly #stop: Verb;
  readonly #protocol: ViewerProtocol;
  readonly #socket: WebSocket;
  readonly #gone: () => void;
  #waiting: Inspected[] = [];
  /** Of `#waiting`: what was sent. */
  #sent = 0;
  #unobserve: (() => void) | null = null;
  #check: TimerHandle | null = null;
  #alive = true;
  #over = false;
  #refusals = 0;
  #stopping = false;

  constructor(context: Context, stop: Verb, protocol: ViewerProtocol, pass: Pass, socket: WebSocket, gone: () => void) {
    this.#context = context;
    this.#stop = stop;
    this.#protocol = protocol;
    this.pass = pass;
    this.#socket = socket;
    this.#gone = gone;
  }

  open(): void {
    this.#socket.on('close', () => this.#end());
    this.#socket.on('pong', () => {
      this.#alive = true;
    });
    // Such as a frame that is too large: the connection ends with it.
    this.#socket.on('error', () => this.#refuse());
    this.#socket.on('message', (data, isBinary) => {
      if (this.#over) return;
      const heard = isBinary ? null : this.#protocol.heard(this.pass.executionId, data.toString());
      if (heard === 'stop') void this.#stopExecution();
      else if (heard === null) this.#refuse();
    });
    void this.#mayLook().then((may) => {
      if (this.#over) return;
      if (!may) return this.hangUp(close.policy);
      this.#armCheck();
      this.#unobserve = this.#context.engine.inspect(this.pass.executionId, {
        tell: (inspected) => this.#tell(inspected),
        lost: () => this.hangUp(close.broken),
      });
    });
  }

  hangUp(code: number): void {
    this.#socket.close(code);
    this.#end();
    // One that does not read is not waited for, and nobody is when the server ends.
    if (code === close.later || code === close.leaving) this.#socket.terminate();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#unobserve?.();
    this.#waiting = [];
    if (this.#check !== null) this.#context.clock.clearTimer(this.#check);
    this.#gone();
  }

  /** Its token is good, and so is the key that made it, for an execution that is still there. */
  async #mayLook(): Promise<boolean> {
    const { caller, executionId } = this.pass;
    try {
      const keys = isFirstAdmin(caller) ? null : await this.#context.store.listKeys(caller.project);
      const known = keys === null || keys.some(({ id }) => id === caller.keyId);
      const header = known ? await this.#context.store.getHeader(executionId) : null;
      // Its actors may have gone to another engine.
      return header !== null && isHere(this.#context, header) && this.#context.inspections.isGood(this.pass);
    } catch (error) {
      this.#context.logger.warn({ executionId, error: messageOf(error) }, 'an inspection was not checked');
      return false;
    }
  }

  #armCheck(): void {
    const { clock } = this.#context;
    const delayMs = Math.max(0, Math.min(CHECK_MS, this.pass.untilMs - clock.nowMs()));
    this.#check = clock.setTimer(delayMs, () => {
      this.#check = null;
      void this.#mayLook().then((may) => {
        if (this.#over) return;
        if (!may || !this.#alive) return this.hangUp(close.policy);
        this.#alive = false;
        this.#socket.ping();
        this.#armCheck();
      });
    });
  }

  #tell(inspected: Inspected): void {
    if (this.#over) return;
    if (this.#waiting.length - this.#sent >= WAITING_MAX) return this.hangUp(close.later);
    this.#waiting.push(inspected);
    this.#pump();
  }

  /** Makes frames no faster than they leave. */
  #pump(): void {
    while (!this.#over && this.#sent < this.#waiting.length && this.#socket.bufferedAmount < BUFFERED_BYTES_MAX) {
      const inspected = this.#waiting[this.#sent] as Inspected;
      this.#sent += 1;
      for (const frame of this.#protocol.framesOf(this.pass.executionId, inspected))
        this.#socket.send(frame, () => this.#pump());
    }
    if (this.#sent === this.#waiting.length || this.#sent >= WAITING_MAX) {
      this.#waiting = this.#waiting.slice(this.#sent);
      this.#sent = 0;
    }
  }

  #refuse(): void {
    this.#context.inspections.refused += 1;
    this.#refusals += 1;
    if (this.#refusals > REFUSALS_MAX) this.hangUp(close.policy);
  }

  /** As the verb does it, for the key that made the token: audited, and refused where that is. */
  async #stopExecution(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    const { caller, executionId } = this.pass;
    try {
      if (!(await this.#mayLook())) return this.hangUp(close.policy);
      await call(this.#context, this.#stop, caller, { id: executionId });
    } catch (error) {
      if (codeOf(error) === 'FS_INTERNAL') this.#context.logger.error({ err: error, executionId }, 'a stop failed');
    } finally {
      this.#stopping = false;
    }
  }
}

function unknownToken(): FullstopError {
  return new FullstopError(
    'FS_NOT_FOUND',
    'expected the token of an inspection, found one that is over or never was: make one with execution.inspect',
  );
}

function tooMany(): FullstopError {
  return new FullstopError('FS_RATE', `expected at most ${VIEWERS_MAX} viewers at once: close one`);
}

function refuse(socket: Duplex, error: FullstopError): void {
  const { status } = errorCodes[error.code];
  const body = JSON.stringify(errorBody(error));
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
