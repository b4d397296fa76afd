/**
 * Socket.IO as workers and the server's namespaces see it: connections between processes of the simulation. Frames of
 * one connection arrive in order, or not at all.
 *
 * `io` stands in for that of `socket.io-client` where src/worker/engine-link.ts imports it (see `modules.ts`).
 */
import { copy } from './database.ts';
import type { Process } from './scheduler.ts';

type Handler = (...args: never[]) => void;
type Middleware = (socket: ServerSocket, next: (error?: Error) => void) => void;

/** What a connection needs of the world around it. */
export interface Wires {
  /** The engine that takes a new connection of this process; null: none answers. */
  route(client: Process): Serving | null;
  /** A frame that is lost breaks the connection: what arrives arrives whole, from the start. */
  whole: boolean;
  /** Frames from one to the other are lost now; `loss`: this one may be lost alone. */
  lost(from: Process, to: Process, loss: boolean): boolean;
  delayMs(from: Process): number;
  /** How long a frame takes that keeps no order; null: it keeps it. */
  strays(): number | null;
  nowMs(): number;
  /** A client hears something. */
  heard(client: Process, name: string, payload: unknown): void;
  /** Something was said on a connection. */
  said(from: Process, name: string, payload: unknown): void;
  /** How much later the same frame arrives once more; null: it does not. */
  doubled(from: Process, name: string): number | null;
  /** An answer of an engine is on its way. */
  answered(server: Process, name: string, payload: unknown, answer: unknown): void;
}

/** An engine's process that listens. */
export interface Serving {
  process: Process;
  io: ServerIo;
}

interface World {
  process: Process;
  wires: Wires;
}

/** Processes by the URL that their workers were given. */
const worlds = new Map<string, World>();

export function register(url: string, world: World): void {
  worlds.set(url, world);
}

export function forgetWorlds(): void {
  worlds.clear();
}

interface Options {
  auth: Record<string, string>;
  reconnectionDelay: number;
  reconnectionDelayMax: number;
  /** Until a connection that is not made is given up. */
  timeout: number;
}

export function io(address: string, options: Options): ClientSocket {
  const at = address.lastIndexOf('/');
  const world = worlds.get(address.slice(0, at));
  if (world === undefined) throw new Error(`nobody is at ${address}`);
  return new ClientSocket(world, address.slice(at), options);
}

let connections = 0;

export function resetConnections(): void {
  connections = 0;
}

class Emitter {
  readonly #handlers = new Map<string, Handler[]>();

  on(name: string, handler: Handler): this {
    const handlers = this.#handlers.get(name);
    if (handlers === undefined) this.#handlers.set(name, [handler]);
    else handlers.push(handler);
    return this;
  }

  tell(name: string, ...args: unknown[]): void {
    for (const handler of this.#handlers.get(name) ?? []) handler(...(args as never[]));
  }
}

export class ClientSocket extends Emitter {
  id: string | undefined;
  /** It connects by itself whenever it can. */
  active = false;
  readonly #world: World;
  readonly #namespace: string;
  readonly #options: Options;
  #line: Line | null = null;
  #tries = 0;

  constructor(world: World, namespace: string, options: Options) {
    super();
    this.#world = world;
    this.#namespace = namespace;
    this.#options = options;
  }

  get connected(): boolean {
    return this.id !== undefined;
  }

  connect(): this {
    if (this.active) return this;
    this.active = true;
    this.#tries = 0;
    this.#open();
    return this;
  }

  #open(): void {
    const { process, wires } = this.#world;
    const serving = wires.route(process);
    const reachable = serving !== null && !wires.lost(process, serving.process, false);
    process.later(reachable ? wires.delayMs(process) : 200, () => {
      if (!this.active || this.#line !== null) return;
      if (serving === null || !reachable || !serving.process.alive) {
        this.#failed();
        return;
      }
      const line = new Line(this, process, serving.process, wires);
      this.#line = line;
      serving.io.of(this.#namespace).accept(line, this.#options.auth);
      process.later(this.#options.timeout, () => {
        if (this.#line === line && !this.connected) line.break();
      });
    });
  }

  #failed(): void {
    this.#tries += 1;
    const { reconnectionDelay, reconnectionDelayMax } = this.#options;
    this.#world.process.later(Math.min(reconnectionDelayMax, reconnectionDelay * 2 ** this.#tries), () => {
      if (this.active && this.#line === null) this.#open();
    });
    this.tell('connect_error', new Error('no engine answers'));
  }

  /** The engine has let it in. */
  welcomed(line: Line): void {
    if (this.#line !== line) return;
    this.id = line.id;
    this.#tries = 0;
    this.tell('connect');
  }

  refused(line: Line, data: unknown): void {
    if (this.#line !== line) return;
    this.#line = null;
    this.active = false;
    this.tell('connect_error', Object.assign(new Error('refused'), { data }));
  }

  heard(line: Line, name: string, payload: unknown): void {
    if (this.#line === line) this.tell(name, payload);
  }

  /** The connection is no more. */
  dropped(line: Line, reason: string): void {
    if (this.#line !== line) return;
    const wasConnected = this.connected;
    this.#line = null;
    this.id = undefined;
    if (reason !== 'transport close') this.active = false;
    if (wasConnected) this.tell('disconnect', reason);
    else if (this.active) this.#failed();
    if (wasConnected && this.active) {
      this.#world.process.later(this.#options.reconnectionDelay, () => {
        if (this.active && this.#line === null) this.#open();
      });
    }
  }

  disconnect(): this {
    const line = this.#line;
    this.active = false;
    if (line === null) return this;
    line.close(true);
    this.dropped(line, 'io client disconnect');
    return this;
  }

  emit(name: string, payload: unknown): this {
    if (this.connected) this.#line?.toServer(name, payload, null);
    return this;
  }

  timeout(ms: number): { emitWithAck(name: string, payload: unknown): Promise<unknown> } {
    return {
      emitWithAck: (name, payload) =>
        new Promise((resolve, reject) => {
          const line = this.#line;
          let over = false;
          const end = (settle: () => void): void => {
            if (over) return;
            over = true;
            settle();
          };
          this.#world.process.later(ms, () => end(() => reject(new Error('operation has timed out'))));
          if (line === null || !this.connected) return;
          line.onClosed.push(() => end(() => reject(new Error('socket has been disconnected'))));
          line.toServer(name, payload, (answer) => end(() => resolve(answer)));
        }),
    };
  }
}

/** One connection between two processes. */
export class Line {
  readonly id: string;
  readonly client: Process;
  readonly server: Process;
  readonly wires: Wires;
  /** Told in the client's process. */
  readonly onClosed: (() => void)[] = [];
  readonly #socket: ClientSocket;
  #serverSocket: ServerSocket | null = null;
  #closed = false;
  #toServerAtMs = 0;
  #toClientAtMs = 0;

  constructor(socket: ClientSocket, client: Process, server: Process, wires: Wires) {
    connections += 1;
    this.id = `socket-${connections}`;
    this.#socket = socket;
    this.client = client;
    this.server = server;
    this.wires = wires;
  }

  attach(socket: ServerSocket): void {
    this.#serverSocket = socket;
  }

  get open(): boolean {
    return !this.#closed && this.client.alive && this.server.alive;
  }

  welcome(): void {
    this.#frame(false, () => this.#socket.welcomed(this));
  }

  refuse(error: unknown): void {
    this.#frame(false, () => this.#socket.refused(this, (error as { data?: unknown }).data));
    this.#closed = true;
  }

  toServer(name: string, payload: unknown, ack: ((answer: unknown) => void) | null): void {
    const frozen = copy(payload);
    this.wires.said(this.client, name, frozen);
    const answer =
      ack === null
        ? null
        : (given: unknown): void => {
            if (this.#closed || !this.server.alive) return;
            const copied = copy(given);
            this.wires.answered(this.server, name, frozen, copied);
            this.#frame(false, () => ack(copied), true);
          };
    const arrive = (): void => this.#serverSocket?.heard(name, frozen, answer);
    this.#frame(true, arrive, true);
    const laterMs = this.wires.doubled(this.client, name);
    if (laterMs !== null) this.server.later(laterMs, () => this.#closed || this.#frame(true, arrive));
  }

  toClient(name: string, payload: unknown): void {
    if (!this.server.alive) return;
    const frozen = copy(payload);
    this.wires.said(this.server, name, frozen);
    const arrive = (): void => {
      this.wires.heard(this.client, name, frozen);
      this.#socket.heard(this, name, frozen);
    };
    this.#frame(false, arrive, true);
    const laterMs = this.wires.doubled(this.server, name);
    if (laterMs !== null) this.client.later(laterMs, () => this.#closed || this.#frame(false, arrive));
  }

  #frame(up: boolean, deliver: () => void, loss = false): void {
    if (this.#closed) return;
    const [from, to] = up ? [this.client, this.server] : [this.server, this.client];
    if (this.wires.lost(from, to, loss)) {
      if (this.wires.whole) this.break();
      return;
    }
    const nowMs = this.wires.nowMs();
    // In order: none overtakes the one before it, unless the world says so.
    const straysMs = loss ? this.wires.strays() : null;
    const atMs =
      straysMs === null
        ? Math.max(nowMs + this.wires.delayMs(from), up ? this.#toServerAtMs : this.#toClientAtMs)
        : nowMs + straysMs;
    if (straysMs === null) {
      if (up) this.#toServerAtMs = atMs;
      else this.#toClientAtMs = atMs;
    }
    to.later(atMs - nowMs, () => {
      if (!this.#closed) deliver();
    });
  }

  /** Hung up by one side; the other hears of it, late where the network is cut. */
  close(byClient: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    const [from, to] = byClient ? [this.client, this.server] : [this.server, this.client];
    const afterMs = this.wires.lost(from, to, false) ? 20_000 : this.wires.delayMs(from);
    to.later(afterMs, () => {
      if (byClient) this.#serverSocket?.disconnected();
      else {
        this.#forgetAnswers();
        this.#socket.dropped(this, 'io server disconnect');
      }
    });
    if (byClient) this.#forgetAnswers();
  }

  /** Neither side meant it. */
  break(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.client.later(this.wires.delayMs(this.server), () => {
      this.#forgetAnswers();
      this.#socket.dropped(this, 'transport close');
    });
    this.server.later(this.wires.delayMs(this.client), () => this.#serverSocket?.disconnected());
  }

  /** No answer comes on a connection that is no more. */
  #forgetAnswers(): void {
    for (const run of this.onClosed.splice(0)) run();
  }
}

export class ServerSocket extends Emitter {
  readonly id: string;
  readonly handshake: { auth: Record<string, string>; headers: Record<string, string> };
  /** Its transport takes everything at once. */
  readonly conn = { writeBuffer: [], on: () => undefined, off: () => undefined };
  data: unknown = null;
  connected = true;
  readonly #line: Line;
  readonly #namespace: Namespace;
  #any: Handler = () => undefined;

  constructor(line: Line, namespace: Namespace, auth: Record<string, string>) {
    super();
    this.id = line.id;
    this.handshake = { auth, headers: {} };
    this.#line = line;
    this.#namespace = namespace;
    line.attach(this);
  }

  onAny(handler: Handler): this {
    this.#any = handler;
    return this;
  }

  heard(name: string, payload: unknown, ack: ((answer: unknown) => void) | null): void {
    if (!this.connected) return;
    const args = ack === null ? [name, payload] : [name, payload, ack];
    this.#any(...(args as never[]));
  }

  emit(name: string, payload: unknown): boolean {
    if (this.connected) this.#line.toClient(name, payload);
    return true;
  }

  join(room: string): void {
    // Socket.IO lets nobody in who has gone.
    if (this.connected) this.#namespace.adapter.add(this.id, room);
  }

  leave(room: string): void {
    this.#namespace.adapter.delete(this.id, room);
  }

  disconnect(): this {
    if (!this.connected) return this;
    this.#line.close(false);
    this.disconnected();
    return this;
  }

  /** Its client says this besides what its code says. */
  forge(name: string, payload: unknown, answered: (answer: unknown) => void): void {
    this.#line.toServer(name, payload, answered);
  }

  /** The network breaks it, or one of its processes has died. */
  break(): void {
    this.#line.break();
  }

  get client(): Process {
    return this.#line.client;
  }

  disconnected(): void {
    if (!this.connected) return;
    this.connected = false;
    this.#namespace.adapter.deleteAll(this.id);
    this.#namespace.sockets.delete(this.id);
    this.tell('disconnect');
  }
}

/** Who is in which room, as Socket.IO's own adapter has it. */
class Adapter extends Emitter {
  readonly rooms = new Map<string, Set<string>>();

  add(id: string, room: string): void {
    const ids = this.rooms.get(room);
    if (ids !== undefined) {
      ids.add(id);
      return;
    }
    this.rooms.set(room, new Set([id]));
    this.tell('create-room', room);
  }

  delete(id: string, room: string): void {
    const ids = this.rooms.get(room);
    if (ids?.delete(id) !== true || ids.size > 0) return;
    this.rooms.delete(room);
    this.tell('delete-room', room);
  }

  deleteAll(id: string): void {
    for (const room of [...this.rooms.keys()]) this.delete(id, room);
  }
}

export class Namespace {
  readonly sockets = new Map<string, ServerSocket>();
  readonly adapter = new Adapter();
  readonly #middlewares: Middleware[] = [];
  #connection: (socket: ServerSocket) => void = () => undefined;

  use(middleware: Middleware): this {
    this.#middlewares.push(middleware);
    return this;
  }

  on(_name: 'connection', handler: (socket: ServerSocket) => void): this {
    this.#connection = handler;
    return this;
  }

  in(room: string): { disconnectSockets(): void } {
    return {
      disconnectSockets: () => {
        for (const socket of this.#of([room])) socket.disconnect();
      },
    };
  }

  /** How many that are connected. */
  inRoom(room: string): number {
    let count = 0;
    for (const id of this.adapter.rooms.get(room) ?? []) if (this.sockets.has(id)) count += 1;
    return count;
  }

  to(rooms: string | string[]): { emit(name: string, payload: unknown): void } {
    return {
      emit: (name, payload) => {
        for (const socket of this.#of(Array.isArray(rooms) ? rooms : [rooms])) socket.emit(name, payload);
      },
    };
  }

  #of(rooms: string[]): ServerSocket[] {
    const ids = new Set(rooms.flatMap((room) => [...(this.adapter.rooms.get(room) ?? [])]));
    return [...ids].flatMap((id) => this.sockets.get(id) ?? []);
  }

  accept(line: Line, auth: Record<string, string>): void {
    line.server.later(line.wires.delayMs(line.client), () => {
      if (!line.open) return;
      const socket = new ServerSocket(line, this, auth);
      const next = (index: number): void => {
        const middleware = this.#middlewares[index];
        if (middleware !== undefined) {
          middleware(socket, (error) => {
            if (error === undefined) next(index + 1);
            else line.refuse(error);
          });
          return;
        }
        if (!line.open) return;
        this.sockets.set(socket.id, socket);
        this.#connection(socket);
        line.welcome();
      };
      next(0);
    });
  }
}

export class ServerIo {
  readonly #namespaces = new Map<string, Namespace>();

  of(name: string): Namespace {
    const known = this.#namespaces.get(name);
    if (known !== undefined) return known;
    const made = new Namespace();
    this.#namespaces.set(name, made);
    return made;
  }

  /** Of clients and workers, in this room. */
  inRoom(room: string): number {
    let count = 0;
    for (const namespace of this.#namespaces.values()) count += namespace.inRoom(room);
    return count;
  }

  /** Of this client; null: it has none. */
  socketOf(client: Process): ServerSocket | null {
    for (const namespace of this.#namespaces.values())
      for (const socket of namespace.sockets.values()) if (socket.client === client) return socket;
    return null;
  }

  /** Breaks the connections of this client, or of all. */
  break(client: Process | null = null): void {
    for (const namespace of this.#namespaces.values()) {
      for (const socket of [...namespace.sockets.values()])
        if (client === null || socket.client === client) socket.break();
    }
  }
}
