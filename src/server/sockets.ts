/** Socket.IO namespace `/`: every verb of the table by its name, and the subscriptions. */

import type { Server as HttpServer } from 'node:http';
import { type Namespace, Server, type Socket } from 'socket.io';
import { z } from 'zod';
import { executionRoom, projectRoom, type SocketIoBus, waitingPackets } from '../adapters/socket-io/bus.ts';
import { FullstopError } from '../errors.ts';
import { allows, type Caller, maySee } from './access.ts';
import { call, errorBody, parse, unauthenticated } from './call.ts';
import { BODY_BYTES_MAX } from './http.ts';
import { assertPlainJson } from './json.ts';
import type { Origins } from './origins.ts';
import { Subscriptions } from './subscriptions.ts';
import { refuseGone } from './verbs/executions.ts';
import { id, project } from './verbs/inputs.ts';
import { listedProject, seenExecution } from './verbs/scope.ts';
import type { Context, Verb } from './verbs/verb.ts';

/** Calls of one socket that may run at once. */
const CALLS_MAX = 2_000;
/** Answers that may wait for a client that does not read; with more it is hung up on. */
const WAITING_MAX = 10_000;
/** Executions that one socket may follow at once. */
const FOLLOWED_MAX = 10_000;

export interface SocketOptions {
  context: Context;
  origins: Origins;
  bus: SocketIoBus;
  verbs: readonly Verb[];
}

export interface Sockets {
  io: Server;
  closeSocketsOf(keyId: string): void;
  /** Ids of the keys that connected clients came with. */
  keysInUse(): string[];
  close(): void;
}

interface SocketData {
  /** As sent with `auth`; null: the browser's session counts. */
  token: string | null;
  calls: number;
  followed: Set<string>;
}

type ClientSocket = Socket<never, never, never, SocketData>;
type Ack = (answer: { ok: true; data: unknown } | { ok: false; error: unknown }) => void;
/** `after` runs when the answer is on its way. */
type Outcome = { data: unknown; after?: () => void };

export function createSockets(server: HttpServer, { context, origins, bus, verbs }: SocketOptions): Sockets {
  const io = new Server(server, {
    serveClient: false,
    maxHttpBufferSize: BODY_BYTES_MAX,
    allowRequest(request, done) {
      const refused = origins.refuseHost(request.headers.host) ?? origins.refuseOrigin(request.headers);
      done(refused?.message ?? null, refused === null);
    },
  });
  return { io, ...openClientNamespace(io, { context, bus, verbs }) };
}

/** Opens it on a server's Socket.IO. */
export function openClientNamespace(
  io: Server,
  { context, bus, verbs }: Omit<SocketOptions, 'origins'>,
): Omit<Sockets, 'io'> {
  const namespace = io.of('/') as unknown as Namespace<never, never, never, SocketData>;
  const subscriptions = new Subscriptions(context);
  bus.attach(io.of('/'), (executionId, event) => subscriptions.announce(executionId, event));
  bus.onGap(() => subscriptions.missed());
  const table = new Map<string, (socket: ClientSocket, caller: Caller, payload: unknown) => Promise<Outcome>>();
  for (const verb of verbs) {
    table.set(verb.name, async (_socket, caller, payload) => {
      const { data } = await call(context, verb, caller, parse(verb.schemas.payload, payload));
      return { data };
    });
  }
  for (const [name, run] of Object.entries(subscriptionVerbs(context, subscriptions))) table.set(name, run);

  namespace.use((socket, next) => {
    const { token } = socket.handshake.auth as { token?: unknown };
    socket.data = { token: typeof token === 'string' ? token : null, calls: 0, followed: new Set() };
    identify(context, socket).then(
      (caller) => next(caller === null ? refusal(unauthenticated()) : undefined),
      (error: unknown) => next(refusal(error)),
    );
  });

  namespace.on('connection', (socket: ClientSocket) => {
    socket.on('disconnect', () => {
      for (const executionId of socket.data.followed) subscriptions.end(socket as unknown as Socket, executionId);
    });
    socket.onAny((name: string, ...args: unknown[]) => {
      const last = args.at(-1);
      const ack = typeof last === 'function' ? (last as Ack) : null;
      void answer(socket, name, ack === null ? args : args.slice(0, -1), ack);
    });
    // Its key may have gone between the handshake and this room, which hears of a deletion.
    void identify(context, socket).then((caller) => {
      if (caller === null) socket.disconnect(true);
      else void socket.join(keyRoom(caller.keyId));
    });
  });

  async function answer(socket: ClientSocket, name: string, args: unknown[], ack: Ack | null): Promise<void> {
    if (waitingPackets(socket) > WAITING_MAX) return void socket.disconnect(true);
    socket.data.calls += 1;
    try {
      const outcome = await dispatch(socket, name, args);
      ack?.({ ok: true, data: outcome.data });
      outcome.after?.();
    } catch (error) {
      const body = errorBody(error);
      if (body.code === 'FS_INTERNAL') context.logger.error({ err: error, verb: name }, 'call failed');
      ack?.({ ok: false, error: body });
      if (body.code === 'FS_UNAUTHENTICATED') socket.disconnect(true);
    } finally {
      socket.data.calls -= 1;
    }
  }

  async function dispatch(socket: ClientSocket, name: string, args: unknown[]): Promise<Outcome> {
    if (socket.data.calls > CALLS_MAX)
      throw new FullstopError('FS_RATE', `expected at most ${CALLS_MAX} calls at once: wait for answers`);
    const run = table.get(name);
    if (run === undefined)
      throw new FullstopError('FS_INVALID', `expected a verb of this API, found "${name.slice(0, 100)}": see /docs`);
    if (args.length > 1) throw new FullstopError('FS_INVALID', `expected one payload, found ${args.length}`);
    const payload = args[0] ?? {};
    assertPlainJson(payload);
    const caller = await identify(context, socket);
    if (caller === null) throw unauthenticated();
    return run(socket, caller, payload);
  }

  return {
    closeSocketsOf: (keyId) => namespace.in(keyRoom(keyId)).disconnectSockets(true),
    keysInUse() {
      const rooms = [...namespace.adapter.rooms.keys()].filter((room) => room.startsWith(KEY));
      return rooms.map((room) => room.slice(KEY.length));
    },
    close: () => subscriptions.close(),
  };
}

/** Who a socket belongs to now: asked again at each event, so that a deleted key is nobody's at once. */
async function identify(context: Context, socket: ClientSocket): Promise<Caller | null> {
  const { token } = socket.data;
  return token === null ? context.access.bySession(socket.handshake.headers) : context.access.byKey(token);
}

const one = z.strictObject({ id });
const from = z.strictObject({ id, from: z.int().min(1).optional() });
const list = z.strictObject({ project: project.optional() });

function subscriptionVerbs(context: Context, subscriptions: Subscriptions) {
  return {
    async 'execution.subscribe'(socket: ClientSocket, caller: Caller, payload: unknown): Promise<Outcome> {
      const input = parse(from, payload) as z.output<typeof from>;
      mustSee(caller, 'execution.subscribe');
      await seenExecution(context, caller, input.id);
      const { followed } = socket.data;
      if (followed.size >= FOLLOWED_MAX && !followed.has(input.id)) {
        throw new FullstopError(
          'FS_RATE',
          `expected at most ${FOLLOWED_MAX} followed executions: unsubscribe from some`,
        );
      }
      const first = input.from ?? 1;
      const { firstSeq } = await context.store.readEvents(input.id, first, 1);
      if (input.from !== undefined) refuseGone(input.id, first, firstSeq);
      followed.add(input.id);
      await socket.join(executionRoom(input.id));
      const after = (): void => {
        if (socket.connected) subscriptions.start(socket as unknown as Socket, input.id, Math.max(first, firstSeq));
      };
      return { data: { id: input.id, from: Math.max(first, firstSeq) }, after };
    },

    async 'execution.unsubscribe'(socket: ClientSocket, _caller: Caller, payload: unknown): Promise<Outcome> {
      const input = parse(one, payload) as z.output<typeof one>;
      socket.data.followed.delete(input.id);
      subscriptions.end(socket as unknown as Socket, input.id);
      await socket.leave(executionRoom(input.id));
      return { data: { id: input.id } };
    },

    /** A project that the caller may not see is followed like one that is not there: nothing ever comes. */
    async 'executions.subscribe'(socket: ClientSocket, caller: Caller, payload: unknown): Promise<Outcome> {
      const input = parse(list, payload) as z.output<typeof list>;
      mustSee(caller, 'executions.subscribe');
      if (input.project === undefined || maySee(caller, input.project)) {
        await socket.join(projectRoom(input.project ?? caller.project));
      }
      return { data: {} };
    },

    async 'executions.unsubscribe'(socket: ClientSocket, caller: Caller, payload: unknown): Promise<Outcome> {
      const input = parse(list, payload) as z.output<typeof list>;
      const where = listedProject(caller, input.project);
      if (where !== undefined) await socket.leave(projectRoom(where));
      return { data: {} };
    },
  };
}

function mustSee(caller: Caller, name: string): void {
  if (!allows(caller, 'see')) {
    throw new FullstopError(
      'FS_FORBIDDEN',
      `expected a key that may ${name}, found the role ${caller.role}: ask an admin for one`,
    );
  }
}

const KEY = 'key:';

/** Every socket that came with a key, in each namespace. */
export function keyRoom(keyId: string): string {
  return KEY + keyId;
}

/** Socket.IO sends `data` of a middleware's error to the client. */
export function refusal(error: unknown): Error & { data: unknown } {
  const body = errorBody(error);
  return Object.assign(new Error(body.message), { data: body });
}
