/**
 * Socket.IO namespaces `/workers` and `/agents`: authenticates, validates, and makes of every socket a link for
 * the engine's dispatcher.
 */
import type { Namespace, Server, Socket } from 'socket.io';
import { z } from 'zod';
import { executionRoom, type SocketIoBus } from '../adapters/socket-io/bus.ts';
import { errorCodes, FullstopError } from '../errors.ts';
import type { TimerHandle } from '../ports/clock.ts';
import type { Task, WorkReport } from '../ports/work.ts';
import type { HeldTask, WorkerGate, WorkerLink } from '../ports/workers.ts';
import { type WelcomeAnswer, type WorkerHello, workerProtocol } from '../worker/protocol.ts';
import { allows, type Caller } from './access.ts';
import { errorBody, unauthenticated } from './call.ts';
import { assertPlainJson } from './json.ts';
import { keyRoom, refusal } from './sockets.ts';
import type { Context } from './verbs/verb.ts';

/** How long a socket may be connected without a hello. */
const HELLO_MS = 10_000;
/** Messages of one socket that may be worked on at once. */
const CALLS_MAX = 2_000;
const OUTPUT_KEYS_REFUSED: ReadonlySet<string> = new Set(['__proto__']);

export interface WorkerTimes {
  heartbeatMs: number;
  workerLeaseMs: number;
  agentLeaseMs: number;
}

export interface WorkerNamespacesOptions {
  context: Context;
  gate: WorkerGate;
  /** Brings stops to the rooms of `/workers`. */
  bus: SocketIoBus;
  /** Default: those of the protocol. */
  times?: WorkerTimes;
}

type Kind = WorkerLink['kind'];
type Ack = (answer: { ok: true; data: unknown } | { ok: false; error: unknown }) => void;

const taskId = z.string().min(1).max(2_000);
const held = z.strictObject({ taskId, token: z.string().min(1).max(200) });
const capability = z.string().regex(/^[a-z][a-z0-9-]{0,62}$/, 'expected the name of a node type');

const schemas = {
  'worker.hello': z.strictObject({
    workerId: z.uuid(),
    name: z.string().min(1).max(200),
    capabilities: z.array(z.string().min(1).max(200)).max(200),
    slots: z.int().min(0).max(workerProtocol.slotsMax),
    held: z.array(held).max(workerProtocol.heldMax),
  }),
  'worker.heartbeat': z.strictObject({ held: z.array(taskId).max(workerProtocol.heldMax) }),
  'task.result': z.union([
    z.strictObject({ ...held.shape, report: z.unknown() }),
    z.strictObject({ ...held.shape, parts: z.int().min(1) }),
  ]),
  'task.part': z.strictObject({
    ...held.shape,
    part: z.int().min(0),
    text: z.string().min(1).max(workerProtocol.partChars),
  }),
  'task.log': z.strictObject({
    ...held.shape,
    stream: z.enum(['stdout', 'stderr']),
    text: z.string().max(workerProtocol.logCharsMax),
    truncated: z.literal(true).optional(),
  }),
};

const report = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('completed'), output: z.unknown() }),
  z.strictObject({
    kind: z.literal('failed'),
    error: z.string().max(100_000),
    code: z
      .string()
      .max(100)
      .transform((code) => (Object.hasOwn(errorCodes, code) ? code : 'FS_FAILED')),
    retryable: z.boolean(),
  }),
  z.strictObject({
    kind: z.literal('aborted'),
    outcome: z.enum(['aborted', 'neverStarted', 'finishedFirst', 'forced', 'unconfirmed']),
  }),
  z.strictObject({ kind: z.literal('lost') }),
]);

/** Opens both namespaces on a server's Socket.IO. */
export function openWorkerNamespaces(
  io: Server,
  options: WorkerNamespacesOptions,
): { closeSocketsOf(keyId: string): void } {
  const present = new Map<string, Session>();
  const namespaces: Namespace[] = [];
  for (const kind of ['worker', 'agent'] as const) {
    const namespace: Namespace = io.of(`/${kind}s`);
    namespaces.push(namespace);
    if (kind === 'worker') options.bus.attachWorkers(namespace);
    namespace.use((socket, next) => {
      admit(options.context, kind, socket).then(
        () => next(),
        (error: unknown) => next(refusal(error)),
      );
    });
    namespace.on('connection', (socket) => new Session(socket, kind, options, present));
  }
  return {
    closeSocketsOf(keyId) {
      for (const namespace of namespaces) namespace.in(keyRoom(keyId)).disconnectSockets(true);
    },
  };
}

interface SocketData {
  caller: Caller;
  token: string;
  /** Of an agent. */
  pool: string | null;
}

/** @throws FS_UNAUTHENTICATED, FS_FORBIDDEN for a key of another role */
async function admit(context: Context, kind: Kind, socket: Socket): Promise<void> {
  const { token, pool: asked } = socket.handshake.auth as { token?: unknown; pool?: unknown };
  const caller = typeof token === 'string' ? await context.access.byKey(token) : null;
  if (caller === null) throw unauthenticated();
  // An admin of all projects could make itself a key: on the server's machine it needs none.
  if (caller.role !== kind && !allows(caller, 'administerAll')) {
    const article = kind === 'agent' ? 'an' : 'a';
    throw new FullstopError(
      'FS_FORBIDDEN',
      `expected a key of the role ${kind}, found one of the role ${caller.role}: an admin makes one with \`keys create NAME --role ${kind}\``,
      { details: { expected: `${article} ${kind}'s key` } },
    );
  }
  const pool = kind === 'worker' ? null : poolOf(caller, asked);
  socket.data = { caller, token, pool } as SocketData;
}

function poolOf(caller: Caller, asked: unknown): string {
  if (asked !== undefined && (typeof asked !== 'string' || !/^[a-z0-9][a-z0-9-]{0,62}$/.test(asked))) {
    throw new FullstopError('FS_INVALID', 'expected the name of a pool');
  }
  const pool = caller.pool ?? asked;
  if (pool === undefined) throw new FullstopError('FS_INVALID', 'expected the name of a pool, found none');
  if (asked !== undefined && asked !== pool) {
    throw new FullstopError('FS_FORBIDDEN', `expected the pool ${pool}, which is this key's, found ${asked}`);
  }
  return pool;
}

interface Pushed {
  token: string;
  executionId: string;
  /** Of a report that comes in parts. */
  parts: string[];
}

/** One connected worker or agent. */
class Session {
  readonly #socket: Socket;
  readonly #kind: Kind;
  readonly #options: WorkerNamespacesOptions;
  readonly #present: Map<string, Session>;
  readonly #data: SocketData;
  readonly #helloTimer: TimerHandle;
  #link: WorkerLink | null = null;
  /** Of a hello that the gate has not answered. */
  #coming: WorkerLink | null = null;
  #calls = 0;
  #partChars = 0;
  /** What it holds as far as this socket knows, and of how many of them each execution is. */
  readonly #pushed = new Map<string, Pushed>();
  readonly #executions = new Map<string, number>();

  constructor(socket: Socket, kind: Kind, options: WorkerNamespacesOptions, present: Map<string, Session>) {
    this.#socket = socket;
    this.#kind = kind;
    this.#options = options;
    this.#present = present;
    this.#data = socket.data as SocketData;
    this.#helloTimer = options.context.clock.setTimer(HELLO_MS, () => socket.disconnect(true));
    socket.on('disconnect', () => this.#disconnected());
    socket.onAny((name: string, ...args: unknown[]) => {
      const last = args.at(-1);
      const ack = typeof last === 'function' ? (last as Ack) : null;
      void this.#answer(name, ack === null ? args : args.slice(0, -1), ack);
    });
    // Its key may have gone between the handshake and this room, which hears of a deletion.
    void socket.join(keyRoom(this.#data.caller.keyId));
    void this.#identify().catch(() => socket.disconnect(true));
  }

  async #identify(): Promise<void> {
    if ((await this.#options.context.access.byKey(this.#data.token)) === null) throw unauthenticated();
  }

  async #answer(name: string, args: unknown[], ack: Ack | null): Promise<void> {
    this.#calls += 1;
    try {
      if (this.#calls > CALLS_MAX) {
        throw new FullstopError('FS_RATE', `expected at most ${CALLS_MAX} messages at once: wait for answers`);
      }
      if (args.length !== 1) throw new FullstopError('FS_INVALID', `expected one payload, found ${args.length}`);
      const data = await this.#dispatch(name, args[0]);
      ack?.({ ok: true, data });
    } catch (error) {
      const body = errorBody(error);
      if (body.code === 'FS_INTERNAL') {
        this.#options.context.logger.error({ err: error, message: name, kind: this.#kind }, 'message failed');
      }
      ack?.({ ok: false, error: body });
      if (body.code === 'FS_UNAUTHENTICATED') this.#socket.disconnect(true);
    } finally {
      this.#calls -= 1;
    }
  }

  #dispatch(name: string, payload: unknown): unknown {
    // An output is somebody else's data: it may use any name that does no harm.
    assertPlainJson(payload, 0, name === 'task.result' ? OUTPUT_KEYS_REFUSED : undefined);
    switch (name) {
      case 'worker.hello':
        return this.#hello(parsed(schemas[name], payload));
      case 'worker.heartbeat':
        return this.#heartbeat(parsed(schemas[name], payload).held);
      case 'task.result':
        return this.#result(parsed(schemas[name], payload));
      case 'task.part':
        return this.#part(parsed(schemas[name], payload));
      case 'task.log':
        return this.#log(parsed(schemas[name], payload));
      default:
        throw new FullstopError('FS_INVALID', `expected a message of the protocol, found "${name.slice(0, 100)}"`);
    }
  }

  /** The link of this socket. @throws FS_INVALID before its hello */
  #linked(): WorkerLink {
    if (this.#link === null) throw new FullstopError('FS_INVALID', 'expected worker.hello first');
    return this.#link;
  }

  async #hello(hello: WorkerHello): Promise<WelcomeAnswer> {
    const { gate, times = workerProtocol } = this.#options;
    const link = this.#linkOf(hello);
    const before = this.#present.get(hello.workerId);
    if (before !== undefined && before.#data.caller.keyId !== this.#data.caller.keyId) {
      throw new FullstopError('FS_CONFLICT', 'expected an id of its own, found that of a worker with another key');
    }
    if (this.#link !== null && this.#link.workerId !== hello.workerId) {
      throw new FullstopError('FS_INVALID', 'expected the id of the first hello on this connection');
    }
    this.#options.context.clock.clearTimer(this.#helloTimer);
    // What was pushed on this connection is on its way, though the hello may not know of it yet.
    const listed = new Map([...this.#pushed].map(([id, { token }]) => [id, token]));
    for (const task of hello.held) listed.set(task.taskId, task.token);
    this.#present.set(hello.workerId, this);
    const tasks = [...listed].map(([id, token]) => ({ taskId: id, token }));
    this.#coming = link;
    let keep: string[];
    try {
      keep = await gate.connected(link, tasks);
      // What it says meanwhile is said on its link before.
      this.#link = link;
    } catch (error) {
      if (before !== undefined && this.#present.get(hello.workerId) === this) this.#present.set(hello.workerId, before);
      throw error;
    } finally {
      if (this.#coming === link) this.#coming = null;
    }
    if (before !== undefined && before !== this) before.#socket.disconnect(true);
    for (const id of keep) {
      const token = listed.get(id);
      if (token !== undefined) this.#hold(id, token);
    }
    return {
      keep,
      heartbeatMs: times.heartbeatMs,
      leaseMs: this.#kind === 'agent' ? times.agentLeaseMs : times.workerLeaseMs,
    };
  }

  /** @throws FS_FORBIDDEN for what its key may not offer */
  #linkOf(hello: WorkerHello): WorkerLink {
    const { caller, pool } = this.#data;
    if (pool === null) {
      for (const name of hello.capabilities) parsed(capability, name);
      const refused = hello.capabilities.filter((name) => caller.capabilities?.includes(name) === false);
      if (refused.length > 0) {
        throw new FullstopError(
          'FS_FORBIDDEN',
          `expected capabilities of this key (${caller.capabilities?.join(', ')}), found ${refused.join(', ')}`,
        );
      }
    }
    return {
      workerId: hello.workerId,
      name: hello.name,
      kind: this.#kind,
      capabilities: pool === null ? [...new Set(hello.capabilities)] : [`agent:${pool}`],
      slots: hello.slots,
      project: caller.project,
      run: (task, token) => this.#run(task, token),
      cancel: (id) => void this.#socket.emit('task.cancel', { taskId: id }),
      close: () => void this.#socket.disconnect(true),
    };
  }

  #run(task: Task, token: string): void {
    // In the room first: a stop that follows finds it there.
    this.#hold(task.id, token);
    this.#socket.emit('task.run', { task, token });
  }

  async #heartbeat(ids: string[]): Promise<{ cancel: string[] }> {
    const link = this.#linked();
    // A deletion of the key that was not heard of is found here.
    const known = this.#options.context.access.byKey(this.#data.token);
    if ((known instanceof Promise ? await known : known) === null) throw unauthenticated();
    return { cancel: this.#options.gate.heartbeat(link, ids) };
  }

  async #result(message: HeldTask & ({ report: unknown } | { parts: number })): Promise<{ discarded: boolean }> {
    const link = this.#linked();
    const { taskId: id, token } = message;
    const found = 'parts' in message ? this.#assemble(id, token, message.parts) : message.report;
    const answer = await this.#options.gate.result(link, id, token, parsed(report, found) as WorkReport);
    this.#release(id, token);
    return answer;
  }

  #part({ taskId: id, token, part, text }: HeldTask & { part: number; text: string }): { part: number } {
    this.#linked();
    const pushed = this.#pushed.get(id);
    // Of a task that is not its own nothing is kept: its result is answered as any other's.
    if (pushed?.token !== token) return { part };
    if (part === 0) this.#dropParts(pushed);
    if (part !== pushed.parts.length) {
      throw new FullstopError('FS_UNAVAILABLE', `expected part ${pushed.parts.length}, found ${part}`);
    }
    if (this.#partChars + text.length > workerProtocol.reportCharsMax) {
      throw new FullstopError(
        'FS_TOO_LARGE',
        `expected reports of at most ${workerProtocol.reportCharsMax} characters in parts at once, found more`,
      );
    }
    pushed.parts.push(text);
    this.#partChars += text.length;
    return { part };
  }

  #assemble(id: string, token: string, parts: number): unknown {
    const pushed = this.#pushed.get(id);
    // Late: the answer says so, whatever its output was.
    if (pushed?.token !== token) return { kind: 'completed', output: null };
    if (pushed.parts.length !== parts) {
      throw new FullstopError('FS_UNAVAILABLE', `expected ${parts} parts, found ${pushed.parts.length}: say it again`);
    }
    const json = pushed.parts.join('');
    this.#dropParts(pushed);
    let value: unknown;
    try {
      value = JSON.parse(json);
    } catch {
      throw new FullstopError('FS_INVALID', 'expected a report as JSON in parts');
    }
    assertPlainJson(value, 0, OUTPUT_KEYS_REFUSED);
    return value;
  }

  #dropParts(pushed: Pushed): void {
    for (const part of pushed.parts) this.#partChars -= part.length;
    pushed.parts = [];
  }

  #log(message: z.output<(typeof schemas)['task.log']>): null {
    const { taskId: id, token, stream, text, truncated } = message;
    this.#options.gate.log(this.#linked(), id, token, stream, text, truncated === true);
    return null;
  }

  #hold(id: string, token: string): void {
    if (!this.#socket.connected) return;
    const before = this.#pushed.get(id);
    if (before !== undefined) this.#release(id, before.token);
    const executionId = id.slice(0, Math.max(0, id.indexOf('/')));
    this.#pushed.set(id, { token, executionId, parts: [] });
    const count = this.#executions.get(executionId) ?? 0;
    this.#executions.set(executionId, count + 1);
    // Nobody can cancel what an agent has picked up.
    if (count === 0 && this.#kind === 'worker') void this.#socket.join(executionRoom(executionId));
  }

  #release(id: string, token: string): void {
    const pushed = this.#pushed.get(id);
    if (pushed?.token !== token) return;
    this.#dropParts(pushed);
    this.#pushed.delete(id);
    const count = (this.#executions.get(pushed.executionId) ?? 0) - 1;
    if (count > 0) {
      this.#executions.set(pushed.executionId, count);
      return;
    }
    this.#executions.delete(pushed.executionId);
    void this.#socket.leave(executionRoom(pushed.executionId));
  }

  #disconnected(): void {
    this.#options.context.clock.clearTimer(this.#helloTimer);
    for (const link of new Set([this.#link, this.#coming])) {
      if (link === null) continue;
      if (this.#present.get(link.workerId) === this) this.#present.delete(link.workerId);
      this.#options.gate.disconnected(link);
    }
  }
}

/** @throws FS_INVALID with the first fault: a list may have thousands */
function parsed<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = (issue?.path ?? []).join('.').slice(0, 200);
  throw new FullstopError('FS_INVALID', `${path === '' ? '' : `${path}: `}${issue?.message ?? 'not valid'}`);
}
