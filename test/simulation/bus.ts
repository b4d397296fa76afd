/**
 * What carries packets between engines, and breaks every promise that it may break: the real bus of each engine
 * (`src/adapters/socket-io/bus.ts`, over `relay.ts`) is opened on one of these links. Also watches what a bus is told
 * and tells: nothing leaves before it is durable, nothing is heard twice, and what was lost is noticed.
 */
import type { BusMessage, SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import type { EngineLink, LinkHandlers, Packet } from '../../src/adapters/socket-io/link.ts';
import type { Bus, EngineHint, StopMessage } from '../../src/ports/bus.ts';
import { tail } from './database.ts';
import type { Ledger } from './ledger.ts';
import type { FaultKind } from './plan.ts';
import type { Process, Scheduler, Streams } from './scheduler.ts';
import type { Trace } from './trace.ts';

/** Faults of packets that hold now, or held. */
export interface Weather {
  droppedUntilMs: number;
  doubledUntilMs: number;
  reorderedUntilMs: number;
  lateUntilMs: number;
  /** All are lost. */
  silentUntilMs: number;
}

export interface NetworkOptions {
  scheduler: Scheduler;
  streams: Streams;
  ledger: Ledger;
  trace: Trace;
  hit: (kind: FaultKind) => void;
  /** Whether what this process sends (true) to other engines, or they to it, is lost now. */
  cut: (process: Process, sends: boolean) => boolean;
}

/** Until whoever sends gives up. */
const SEND_MS = 2_000;
/** Until whoever was cut off finds out that it is not any more. */
const LOOK_MS = 250;
/** Whoever missed something has noticed by then: a bus calls at once, or half a second after the last time. */
const NOTICED_MS = 600;
/** An engine that has nothing to say says so in that time: up to two beats, and a second before that may be troubled. */
const BEATS_MS = 11_000;
/** An engine looks at the store itself after a gap, and not only with its next sweep. */
const SWEPT_MS = 500;
/** Whoever missed who follows what has been told by then. */
const TOLD_MS = 300;

/** Between the engines. */
export class Network {
  readonly options: NetworkOptions;
  readonly weather: Weather = {
    droppedUntilMs: 0,
    doubledUntilMs: 0,
    reorderedUntilMs: 0,
    lateUntilMs: 0,
    silentUntilMs: 0,
  };
  /** When a packet was lost, or came late, most recently. */
  #troubledAtMs = 0;
  readonly members = new Set<SimLink>();
  /** Senders of what nobody of ours says. */
  strangers = 0;
  /** How often each hint and STOP was said, by all. */
  readonly said = new Map<string, number>();

  constructor(options: NetworkOptions) {
    this.options = options;
  }

  carry(from: SimLink, packet: Packet): Promise<void> {
    const { scheduler, streams, hit, cut } = this.options;
    const { process } = from;
    return new Promise((resolve, reject) => {
      if (!process.alive) return;
      const random = streams.of(`link of ${process.name}`);
      const leavesMs = 0.1 + random.next();
      const lost = cut(process, true);
      if (lost || cut(process, false)) {
        hit('partitioned');
        from.cutOff();
        from.stuckUntilMs = scheduler.nowMs + SEND_MS;
        this.#trouble(from.stuckUntilMs);
        process.later(SEND_MS, () => reject(new Error('nobody knows whether it left')));
      } else process.later(leavesMs, resolve);
      if (lost) {
        this.#lost(from, null, packet);
        return;
      }
      for (const to of this.members) if (to !== from) this.#send(from, to, packet, leavesMs);
    });
  }

  #send(from: SimLink, to: SimLink, packet: Packet, leavesMs: number): void {
    const { scheduler, streams, hit, cut } = this.options;
    const random = streams.of(`link of ${from.process.name}`);
    const { nowMs } = scheduler;
    const { weather } = this;
    const draw = random.next();
    const delayMs = leavesMs + random.next() * 2;
    const lost = (kind: FaultKind): void => {
      hit(kind);
      this.#lost(from, to, packet);
    };
    if (cut(to.process, false)) return lost('partitioned');
    if (weather.silentUntilMs > nowMs) return lost('broadcastLost');
    if (to.deafUntilMs > nowMs) return lost('streamGap');
    if (weather.droppedUntilMs > nowMs && draw < 0.6) return lost('messageDropped');
    let straysMs: number | null = null;
    if (weather.reorderedUntilMs > nowMs) {
      hit('messageReordered');
      straysMs = draw * 300;
    }
    if (weather.lateUntilMs > nowMs) {
      hit('messageLate');
      straysMs = 2_000 + draw * 5_000;
    }
    if (straysMs !== null) this.#trouble(nowMs + straysMs);
    to.carries(from, packet, delayMs, straysMs);
    if (weather.doubledUntilMs > nowMs && draw < 0.7) {
      hit('messageDoubled');
      to.carries(from, packet, delayMs, draw * 500);
    }
  }

  /** `to`: null is everybody. */
  #lost(from: SimLink, to: SimLink | null, packet: Packet): void {
    const { nowMs } = this.options.scheduler;
    this.#trouble(nowMs);
    if (packet.count === 0) return;
    for (const one of to === null ? this.members : [to]) if (one !== from) one.missed(from, packet);
  }

  #trouble(untilMs: number): void {
    this.#troubledAtMs = Math.max(this.#troubledAtMs, untilMs);
  }

  /** Everything that was sent since then has arrived, in order. */
  clearSince(atMs: number): boolean {
    return this.#troubledAtMs < atMs;
  }

  wasSaid(what: string): void {
    this.said.set(what, (this.said.get(what) ?? 0) + 1);
  }
}

interface Poison {
  packet: unknown;
  /** It says that it has messages, and nobody can tell which. */
  unreadable?: boolean;
}

/** One engine's end. */
export class SimLink implements EngineLink {
  readonly process: Process;
  readonly #network: Network;
  #handlers: LinkHandlers | null = null;
  #bus: SocketIoBus | null = null;
  /** What others send to it is lost. */
  deafUntilMs = 0;
  /** A packet is on its way, and nobody says that it has left. */
  stuckUntilMs = 0;
  #isCutOff = false;
  /** When packets of each other link arrive, at the earliest: they keep their order. */
  readonly #earliestMs = new Map<SimLink, number>();
  /** By sender, the number of the first message that it has missed and could not notice yet. */
  readonly #missing = new Map<SimLink, number>();
  /** By sender, the number after the last message that has arrived. */
  readonly #nextOf = new Map<SimLink, number>();
  #gapAtMs = 0;
  readonly #heard = new Map<string, number>();

  constructor(process: Process, network: Network) {
    this.process = process;
    this.#network = network;
  }

  /** As an engine starts: others may have started with it, or long before. */
  open(handlers: LinkHandlers): Promise<void> {
    const random = this.#network.options.streams.of(`link of ${this.process.name}`);
    return new Promise((resolve) => {
      this.process.later(0.5 + random.next() * 3, () => {
        this.#handlers = handlers;
        this.#network.members.add(this);
        resolve();
      });
    });
  }

  send(packet: Packet): Promise<void> {
    return this.#network.carry(this, packet);
  }

  /** Its bus is about to close: it listens no more. */
  ends(): void {
    this.#handlers = null;
  }

  async close(): Promise<void> {
    this.ends();
    this.#network.members.delete(this);
  }

  /** The stream of the others' packets broke for good, and a new one stands. */
  gap(): void {
    const { nowMs } = this.#network.options.scheduler;
    this.#handlers?.gap();
    this.#handlers?.up();
    this.#mustNotice(nowMs, 'its link had a gap');
    for (const other of this.#network.members) if (other !== this) this.#mustKnow(other);
  }

  /** Nothing leaves: it looks until something does. */
  cutOff(): void {
    if (this.#isCutOff) return;
    this.#isCutOff = true;
    const look = (): void => {
      const { cut } = this.#network.options;
      if (cut(this.process, true) || cut(this.process, false)) {
        this.process.later(LOOK_MS, look);
        return;
      }
      this.#isCutOff = false;
      this.#handlers?.up();
    };
    this.process.later(LOOK_MS, look);
  }

  carries(from: SimLink, packet: Packet, delayMs: number, straysMs: number | null): void {
    const { nowMs } = this.#network.options.scheduler;
    if (straysMs !== null) {
      this.process.later(straysMs, () => this.#arrives(from, packet));
      return;
    }
    const atMs = Math.max(nowMs + delayMs, this.#earliestMs.get(from) ?? 0);
    this.#earliestMs.set(from, atMs);
    this.process.later(atMs - nowMs, () => this.#arrives(from, packet));
  }

  #arrives(from: SimLink, packet: Packet): void {
    const missing = this.#missing.get(from);
    if (missing !== undefined && packet.first > missing) {
      const { nowMs } = this.#network.options.scheduler;
      this.#missing.delete(from);
      this.#mustKnow(from);
      this.#mustNotice(nowMs, `it missed ${missing} of ${from.process.name}`);
    }
    this.#takes(from, packet);
  }

  /** All of it where nothing later came before, and nothing of it otherwise. */
  #takes(from: SimLink, packet: Packet): void {
    if (this.#handlers === null) return;
    const { first, count } = packet;
    const next = this.#nextOf.get(from) ?? 0;
    const before = this.#bus?.counters().received ?? 0;
    this.#handlers.received(packet);
    this.#nextOf.set(from, Math.max(next, first + count));
    const took = (this.#bus?.counters().received ?? 0) - before;
    const wanted = first >= next ? count : 0;
    if (took !== wanted) this.#fault(`took ${took} of ${wanted} messages from ${first} of ${from.process.name}`);
  }

  /** What nobody of ours sends. */
  poison({ packet, unreadable = false }: Poison): void {
    this.process.later(1, () => {
      this.#handlers?.received(packet);
      if (unreadable) this.#mustNotice(this.#network.options.scheduler.nowMs, 'it could not read a packet');
    });
  }

  /** It will never get this one. */
  missed(from: SimLink, { first }: Packet): void {
    const { scheduler } = this.#network.options;
    if (!this.#missing.has(from)) this.#missing.set(from, first);
    const { nowMs } = scheduler;
    // Where nothing else is said, a sign of life tells.
    this.process.later(BEATS_MS, () => {
      const { process } = from;
      if (this.#handlers === null) return;
      if (this.#missing.get(from) !== first || !process.alive || process.pausedUntilMs > 0) return;
      if (this.process.pausedUntilMs > nowMs || !this.#network.clearSince(nowMs + 1_000)) return;
      if (this.#gapAtMs < nowMs) this.#fault(`has not noticed that it missed ${first} of ${process.name}`);
    });
  }

  #mustNotice(sinceMs: number, why: string): void {
    this.process.later(NOTICED_MS, () => {
      if (this.#handlers !== null && this.#gapAtMs < sinceMs) this.#fault(`has not noticed a gap: ${why}`);
    });
  }

  /** Its engine's bus; `sweeps` counts, and is null while there are reasons for none. */
  watch(bus: SocketIoBus, sweeps: (sinceMs: number) => number | null): void {
    this.#bus = bus;
    const { options } = this.#network;
    bus.onGap(() => {
      const { nowMs } = options.scheduler;
      options.trace.note(this.process.name, 'notices a gap');
      this.#gapAtMs = nowMs;
      const before = sweeps(nowMs);
      this.process.later(SWEPT_MS, () => {
        if (before !== null && sweeps(nowMs) === before)
          this.#fault('had a gap, and its engine did not look at the store');
      });
    });
  }

  /** It missed something of the other: soon it knows again whom that one's clients follow. */
  #mustKnow(other: SimLink): void {
    const { nowMs } = this.#network.options.scheduler;
    const rooms = other.#bus?.follows() ?? [];
    if (rooms.length === 0 || other.stuckUntilMs > nowMs || this.stuckUntilMs > nowMs) return;
    this.process.later(TOLD_MS, () => {
      const { process } = other;
      if (this.#handlers === null || !process.alive || !this.#network.clearSince(nowMs)) return;
      if (process.pausedUntilMs > nowMs || this.process.pausedUntilMs > nowMs) return;
      const still = new Set(other.#bus?.follows());
      for (const room of rooms) {
        const id = room.slice(room.indexOf(':') + 1);
        const known = room.startsWith('execution:') ? this.#bus?.hasListeners(id) : this.#bus?.hasListListeners(id);
        if (known === false && still.has(room))
          this.#fault(`does not know that ${room} is followed in ${process.name}`);
      }
    });
  }

  heard(what: string): void {
    const times = (this.#heard.get(what) ?? 0) + 1;
    this.#heard.set(what, times);
    const said = this.#network.said.get(what) ?? 0;
    if (times > said) this.#fault(`heard ${what} ${times} times, it was said ${said} times`);
  }

  #fault(text: string): void {
    this.#network.options.ledger.fault(`the bus of ${this.process.name} ${text}`);
  }
}

export interface WatchOptions {
  network: Network;
  process: Process;
  /** null: it is alone. */
  link: SimLink | null;
  /** Sockets of clients and workers that are in the execution's room here. */
  inRoom: (executionId: string) => number;
  /** How often STOP was said to a client or worker. */
  stopsTold: () => number;
  sweeps: (sinceMs: number) => number | null;
}

/** The bus as its engine has it. */
export function watched(bus: SocketIoBus, { network, process, link, inRoom, stopsTold, sweeps }: WatchOptions): Bus {
  const { ledger, trace } = network.options;
  link?.watch(bus, sweeps);
  bus.onStop((message) => {
    trace.note(process.name, `hears STOP ${tail(message.executionId)}`);
    link?.heard(stopText(message));
  });
  bus.onHint((hint) => {
    trace.note(process.name, `hears ${hint.kind}`);
    link?.heard(JSON.stringify(hint));
  });
  return {
    hasListeners: (id) => bus.hasListeners(id),
    hasListListeners: (project) => bus.hasListListeners(project),
    event(id, event) {
      if (!process.alive) return;
      ledger.eventLeaves(id, event);
      bus.event(id, event);
    },
    changed: (item) => bus.changed(item),
    receipt: (receipt) => bus.receipt(receipt),
    stop(message) {
      if (!process.alive) return;
      ledger.stopLeaves(message.executionId, message.requestId);
      trace.note(process.name, `STOP ${tail(message.executionId)}`);
      network.wasSaid(stopText(message));
      const before = stopsTold();
      bus.stop(message);
      const told = stopsTold() - before;
      const wanted = inRoom(message.executionId);
      if (process.alive && told !== wanted)
        ledger.fault(
          `${process.name} told ${told} of ${wanted} who are connected to it of a STOP at once (local first)`,
        );
    },
    onStop: (handler) => bus.onStop(handler),
    tell(hint) {
      if (!process.alive) return;
      trace.note(process.name, `hint ${hint.kind}`);
      network.wasSaid(JSON.stringify(hint));
      bus.tell(hint);
    },
    onHint: (handler) => bus.onHint(handler),
    onGap: (handler) => bus.onGap(handler),
    follows: () => bus.follows(),
    othersFollow: (rooms) => bus.othersFollow(rooms),
  };
}

function stopText({ executionId, requestId }: StopMessage): string {
  return `STOP ${executionId} ${requestId}`;
}

const NOBODY = '018ccccc-0000-7000-8000-00000000dead';

/** What no engine of ours would say: about things that are not there, or no longer; and what is no message at all. */
export function poisoned(network: Network, to: SimLink, what: number): void {
  const taskId = `${NOBODY}/n0/-/1`;
  network.strangers += 1;
  const stranger = `stranger ${network.strangers}`;
  const said = (messages: unknown[], count = messages.length): Packet => {
    for (const message of messages) {
      const { kind, hint, message: stop } = Object(message) as { kind?: string; hint?: unknown; message?: StopMessage };
      if (kind === 'hint') network.wasSaid(JSON.stringify(hint));
      if (kind === 'stop' && stop !== undefined) network.wasSaid(stopText(stop));
    }
    return { from: stranger, first: 1, count, text: JSON.stringify(messages) };
  };
  const hints: EngineHint[] = [
    { kind: 'engine.gone', engine: NOBODY },
    { kind: 'execution.offered', engine: NOBODY, executionId: NOBODY },
    { kind: 'execution.deleted', executionId: NOBODY },
    { kind: 'task.changed', executionId: NOBODY, taskId },
    { kind: 'task.queued', capability: 'nothing' },
  ];
  const [sender = null] = [...network.members].filter((member) => member !== to);
  const from = sender?.process.name ?? stranger;
  const poisons: Poison[] = [
    ...hints.map((hint) => ({ packet: said([{ kind: 'hint', hint } satisfies BusMessage]) })),
    { packet: said([{ kind: 'stop', message: { executionId: NOBODY, requestId: NOBODY } } satisfies BusMessage]) },
    { packet: null },
    { packet: { from: 7, first: '1', count: {}, text: [] } },
    { packet: { from: stranger, first: -3, count: 1, text: '[{}]' } },
    { packet: { from: stranger, first: 1, count: 2 ** 53, text: '[]' } },
    { packet: { from: stranger, first: 1, count: 1, text: '{"kind":' }, unreadable: true },
    { packet: { from: stranger, first: 1, count: 1, text: '7' }, unreadable: true },
    // Of one that is heard, from a count that nobody reaches.
    { packet: { from, first: Number.MAX_SAFE_INTEGER, count: 0, text: '[]' } },
    { packet: { from, first: 1e15, count: 1, text: '[{}]' } },
    // Fewer, and more, than it says.
    { packet: said([{ kind: 'ask', of: null }], 3), unreadable: true },
    { packet: said([{ kind: 'ask', of: null }, {}, {}], 1), unreadable: true },
    { packet: said([1, null, 'text', [], {}, { kind: 'nothing' }, { kind: 'stop' }, { kind: 'hint' }]) },
    { packet: said([{ kind: 'event' }, { kind: 'changed' }, { kind: 'receipt' }, { kind: 'hint', hint: 1 }]) },
    { packet: said([{ kind: 'follow' }, { kind: 'follows' }, { kind: 'follows', rooms: 7 }, { kind: 'ask', of: {} }]) },
    {
      packet: said([
        { kind: 'stop', message: { executionId: 7, requestId: {} } },
        { kind: 'hint', hint: { kind: 'execution.offered', engine: {}, executionId: [] } },
        { kind: 'hint', hint: { kind: 'task.ended', to: 1, taskId: null, report: 2, counts: 3 } },
        { kind: 'hint', hint: { kind: 'engine.load', engine: null, executions: 'many' } },
      ]),
    },
    { packet: 'goodbye' },
  ];
  to.poison(poisons[what] as Poison);
}

/** Kinds of poison. */
export const POISONS = 21;
