/**
 * The Bus over Socket.IO rooms: `execution:<id>` and `project:<name>` on namespace `/`.
 *
 * Events go to `onEvent` instead of the room: each subscriber has its own place in the sequence, and only
 * the server knows it. Before `attach` nobody listens.
 *
 * With a relay it reaches other engines, too. Every engine serves its own rooms, when it is told: what is announced
 * here reaches those who are connected here whatever becomes of the relay.
 */
import type { Namespace } from 'socket.io';
import type { Bus, EngineHint, StopMessage } from '../../ports/bus.ts';
import type { Clock, TimerHandle } from '../../ports/clock.ts';
import type { ExecutionEvent, ExecutionItem, StopReceipt } from '../../wire.ts';
import type { Relay, RelayCounters } from './relay.ts';

const EXECUTION = 'execution:';
const PROJECT = 'project:';
/** Room of those who follow every project. */
export const EVERY_PROJECT = 'projects';
/** Rooms that a heartbeat names. */
const FOLLOWS_MAX = 200;
/** Between two calls of who looks for himself after a gap. */
const GAP_PAUSE_MS = 500;
/** Packets that may wait for a client that reads slowly. With more it is hung up on, and asks again when it is back. */
const WAITING_MAX = 10_000;

export type EventSink = (executionId: string, event: ExecutionEvent) => void;

/** From one engine's bus to the others'. */
export type BusMessage =
  | { kind: 'stop'; message: StopMessage }
  | { kind: 'event'; executionId: string; event: ExecutionEvent }
  | { kind: 'changed'; item: ExecutionItem }
  | { kind: 'receipt'; receipt: StopReceipt }
  | { kind: 'hint'; hint: EngineHint }
  /** A room of the sender has somebody in it, or nobody any more. */
  | { kind: 'follow'; room: string; there: boolean }
  /** All of its rooms with somebody in them. */
  | { kind: 'follows'; rooms: string[] }
  /** Asks this sender, or everybody, for `follows`. */
  | { kind: 'ask'; of: string | null };

export interface BusCounters extends RelayCounters {
  /** Announcements that a room or a handler failed on. */
  failed: number;
  /** Other engines that are heard now. */
  others: number;
}

export class SocketIoBus implements Bus {
  readonly #relay: Relay<BusMessage> | null;
  /** Rooms that clients of this engine are in. */
  readonly #here = new Set<string>();
  /** Rooms that clients of other engines are in: by engine, as the relay tells, and of all, as heartbeats say. */
  readonly #elsewhere = new Map<string, Set<string>>();
  #elsewhereByBeat: ReadonlySet<string> = new Set();
  #tellFollowsScheduled = false;
  #gapTimer: TimerHandle | null = null;
  #gapAgain = false;
  #namespace: Namespace | null = null;
  #workers: Namespace | null = null;
  #eventSink: EventSink | null = null;
  readonly #stopHandlers: ((message: StopMessage) => void)[] = [];
  readonly #hintHandlers: ((hint: EngineHint) => void)[] = [];
  readonly #gapHandlers: (() => void)[] = [];
  #failed = 0;

  constructor(relay: Relay<BusMessage> | null = null) {
    this.#relay = relay;
  }

  /** Resolves when other engines are heard, or when there is no more waiting for that. */
  async open(): Promise<void> {
    const relay = this.#relay;
    await relay?.open({
      message: (message, from) => this.#try(() => this.#heard(message, from)),
      gap: (from) => {
        relay.say({ kind: 'ask', of: from });
        this.#gap(relay.clock);
      },
      joined: () => this.#tellFollows(),
      left: (from) => this.#elsewhere.delete(from),
    });
  }

  async close(): Promise<void> {
    if (this.#gapTimer !== null) this.#relay?.clock.clearTimer(this.#gapTimer);
    await this.#relay?.close();
  }

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
    const room = EXECUTION + executionId;
    return this.#here.has(room) || this.#isFollowedElsewhere(room);
  }

  hasListListeners(project: string): boolean {
    const room = PROJECT + project;
    return (
      this.#here.has(EVERY_PROJECT) ||
      this.#here.has(room) ||
      this.#isFollowedElsewhere(EVERY_PROJECT) ||
      this.#isFollowedElsewhere(room)
    );
  }

  event(executionId: string, event: ExecutionEvent): void {
    this.#eventHere(executionId, event);
    if (this.#isFollowedElsewhere(EXECUTION + executionId)) this.#relay?.say({ kind: 'event', executionId, event });
  }

  changed(item: ExecutionItem): void {
    this.#changedHere(item);
    if (this.#isFollowedElsewhere(EVERY_PROJECT) || this.#isFollowedElsewhere(PROJECT + item.project))
      this.#relay?.say({ kind: 'changed', item });
  }

  receipt(receipt: StopReceipt): void {
    this.#receiptHere(receipt);
    if (this.#isFollowedElsewhere(EXECUTION + receipt.executionId)) this.#relay?.say({ kind: 'receipt', receipt });
  }

  stop(message: StopMessage): void {
    this.#stopHere(message);
    this.#relay?.say({ kind: 'stop', message });
  }

  onStop(handler: (message: StopMessage) => void): void {
    this.#stopHandlers.push(handler);
  }

  tell(hint: EngineHint): void {
    this.#relay?.say({ kind: 'hint', hint });
  }

  onHint(handler: (hint: EngineHint) => void): void {
    this.#hintHandlers.push(handler);
  }

  onGap(handler: () => void): void {
    this.#gapHandlers.push(handler);
  }

  /** Lists before executions: what a heartbeat has no place for is followed by the store. */
  follows(): string[] {
    const rooms = [...this.#here];
    if (rooms.length <= FOLLOWS_MAX) return rooms;
    const lists = rooms.filter((room) => !room.startsWith(EXECUTION));
    const executions = rooms.filter((room) => room.startsWith(EXECUTION));
    return [...lists, ...executions].slice(0, FOLLOWS_MAX);
  }

  othersFollow(rooms: ReadonlySet<string>): void {
    this.#elsewhereByBeat = rooms;
  }

  counters(): BusCounters {
    const none: RelayCounters = { sent: 0, dropped: 0, received: 0, doubled: 0, gaps: 0 };
    return { ...(this.#relay?.counters ?? none), failed: this.#failed, others: this.#relay?.others ?? 0 };
  }

  /** At once, and when gaps follow each other once more after a while. */
  #gap(clock: Clock): void {
    if (this.#gapTimer !== null) {
      this.#gapAgain = true;
      return;
    }
    for (const handler of this.#gapHandlers) this.#try(handler);
    this.#gapTimer = clock.setTimer(GAP_PAUSE_MS, () => {
      this.#gapTimer = null;
      if (!this.#gapAgain) return;
      this.#gapAgain = false;
      this.#gap(clock);
    });
  }

  #heard(message: BusMessage, from: string): void {
    switch (message.kind) {
      case 'stop':
        return this.#stopHere(message.message);
      case 'event':
        return this.#eventHere(message.executionId, message.event);
      case 'changed':
        return this.#changedHere(message.item);
      case 'receipt':
        return this.#receiptHere(message.receipt);
      case 'hint':
        for (const handler of this.#hintHandlers) this.#try(() => handler(message.hint));
        return;
      case 'follow':
        return note(this.#roomsOf(from), message.room, message.there);
      case 'follows':
        this.#elsewhere.set(from, new Set(message.rooms));
        return;
      case 'ask':
        if (message.of === null || message.of === this.#relay?.id) this.#tellFollows();
        return;
    }
  }

  #roomsOf(from: string): Set<string> {
    const known = this.#elsewhere.get(from);
    if (known !== undefined) return known;
    const rooms = new Set<string>();
    this.#elsewhere.set(from, rooms);
    return rooms;
  }

  /** Once for all who ask within a turn. */
  #tellFollows(): void {
    if (this.#tellFollowsScheduled) return;
    this.#tellFollowsScheduled = true;
    this.#relay?.clock.defer(() => {
      this.#tellFollowsScheduled = false;
      this.#relay?.say({ kind: 'follows', rooms: [...this.#here] });
    });
  }

  #isFollowedElsewhere(room: string): boolean {
    if (this.#elsewhereByBeat.has(room)) return true;
    for (const rooms of this.#elsewhere.values()) if (rooms.has(room)) return true;
    return false;
  }

  #eventHere(executionId: string, event: ExecutionEvent): void {
    if (this.#here.has(EXECUTION + executionId)) this.#try(() => this.#eventSink?.(executionId, event));
  }

  #changedHere(item: ExecutionItem): void {
    const room = PROJECT + item.project;
    if (this.#here.has(EVERY_PROJECT) || this.#here.has(room))
      this.#send([room, EVERY_PROJECT], 'execution.changed', item);
  }

  #receiptHere(receipt: StopReceipt): void {
    const room = EXECUTION + receipt.executionId;
    if (this.#here.has(room)) this.#send([room], 'stop.receipt', receipt);
  }

  #stopHere(message: StopMessage): void {
    for (const handler of this.#stopHandlers) this.#try(() => handler(message));
    const room = EXECUTION + message.executionId;
    if (this.#workers?.adapter.rooms.has(room) === true) this.#try(() => this.#workers?.to(room).emit('STOP', message));
    if (this.#here.has(room)) this.#send([room], 'STOP', message);
  }

  #noteRoom(room: string, there: boolean): void {
    if (room !== EVERY_PROJECT && !room.startsWith(EXECUTION) && !room.startsWith(PROJECT)) return;
    note(this.#here, room, there);
    this.#relay?.say({ kind: 'follow', room, there });
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
      this.#failed += 1;
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
