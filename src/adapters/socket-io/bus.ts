/**
 * The Bus over Socket.IO rooms, for one engine: `execution:<id>` and `project:<name>` on namespace `/`.
 *
 * Events go to `onEvent` instead of the room: each subscriber has its own place in the sequence, and only
 * the server knows it. Before `attach` nobody listens.
 */
import type { Namespace } from 'socket.io';
import type { Bus, StopMessage } from '../../ports/bus.ts';
import type { ExecutionEvent, ExecutionItem, StopReceipt } from '../../wire.ts';

const EXECUTION = 'execution:';
const PROJECT = 'project:';
/** Room of those who follow every project. */
export const EVERY_PROJECT = 'projects';
/** Packets that may wait for a client that reads slowly. With more it is hung up on, and asks again when it is back. */
const WAITING_MAX = 10_000;

export type EventSink = (executionId: string, event: ExecutionEvent) => void;

export class SocketIoBus implements Bus {
  readonly #followed = new Set<string>();
  readonly #projects = new Set<string>();
  #everyProject = false;
  #namespace: Namespace | null = null;
  #workers: Namespace | null = null;
  #eventSink: EventSink | null = null;
  readonly #stopHandlers: ((message: StopMessage) => void)[] = [];
  /** Announcements that an adapter or a handler failed on. */
  failures = 0;

  attach(namespace: Namespace, eventSink: EventSink): void {
    this.#namespace = namespace;
    this.#eventSink = eventSink;
    namespace.adapter.on('create-room', (room: string) => this.#noteRoom(room, true));
    namespace.adapter.on('delete-room', (room: string) => this.#noteRoom(room, false));
  }

  /** Workers are in the rooms of the executions whose tasks they hold. */
  attachWorkers(namespace: Namespace): void {
    this.#workers = namespace;
  }

  hasListeners(executionId: string): boolean {
    return this.#followed.has(executionId);
  }

  hasListListeners(project: string): boolean {
    return this.#everyProject || this.#projects.has(project);
  }

  event(executionId: string, event: ExecutionEvent): void {
    if (this.#followed.has(executionId)) this.#try(() => this.#eventSink?.(executionId, event));
  }

  changed(item: ExecutionItem): void {
    if (this.hasListListeners(item.project))
      this.#send([PROJECT + item.project, EVERY_PROJECT], 'execution.changed', item);
  }

  receipt(receipt: StopReceipt): void {
    if (this.#followed.has(receipt.executionId)) this.#send([EXECUTION + receipt.executionId], 'stop.receipt', receipt);
  }

  stop(message: StopMessage): void {
    for (const handler of this.#stopHandlers) this.#try(() => handler(message));
    const room = EXECUTION + message.executionId;
    if (this.#workers?.adapter.rooms.has(room) === true) this.#try(() => this.#workers?.to(room).emit('STOP', message));
    if (this.#followed.has(message.executionId)) this.#send([room], 'STOP', message);
  }

  onStop(handler: (message: StopMessage) => void): void {
    this.#stopHandlers.push(handler);
  }

  // One engine has nobody to tell.
  tell(): void {}
  onHint(): void {}
  onGap(): void {}
  othersFollow(): void {}

  follows(): string[] {
    return [];
  }

  #noteRoom(room: string, there: boolean): void {
    if (room === EVERY_PROJECT) this.#everyProject = there;
    else if (room.startsWith(EXECUTION)) note(this.#followed, room.slice(EXECUTION.length), there);
    else if (room.startsWith(PROJECT)) note(this.#projects, room.slice(PROJECT.length), there);
  }

  #send(rooms: string[], name: string, message: unknown): void {
    this.#try(() => {
      this.#namespace?.to(rooms).emit(name, message);
      for (const room of rooms) this.#hangUpOnSlow(room);
    });
  }

  #hangUpOnSlow(room: string): void {
    for (const id of this.#namespace?.adapter.rooms.get(room) ?? []) {
      const socket = this.#namespace?.sockets.get(id);
      if (socket !== undefined && waitingPackets(socket) > WAITING_MAX) socket.disconnect(true);
    }
  }

  #try(announce: () => void): void {
    try {
      announce();
    } catch {
      this.failures += 1;
    }
  }
}

/** Packets of a client's connection that its transport has not taken yet. */
export function waitingPackets(socket: { conn: unknown }): number {
  return (socket.conn as { writeBuffer: unknown[] }).writeBuffer.length;
}

export function executionRoom(id: string): string {
  return EXECUTION + id;
}

export function projectRoom(project: string | null): string {
  return project === null ? EVERY_PROJECT : PROJECT + project;
}

function note(set: Set<string>, member: string, there: boolean): void {
  if (there) set.add(member);
  else set.delete(member);
}
