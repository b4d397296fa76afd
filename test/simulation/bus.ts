/** What engines tell each other and their clients: the real bus's promises, over links that break them. */
import type { Bus, EngineHint, StopMessage } from '../../src/ports/bus.ts';
import type { ExecutionEvent, ExecutionItem, StopReceipt } from '../../src/wire.ts';
import { tail } from './database.ts';
import type { Ledger } from './ledger.ts';
import type { FaultKind } from './plan.ts';
import type { Process, Scheduler, Streams } from './scheduler.ts';
import type { Trace } from './trace.ts';

/** Faults of messages that hold now, or held. */
export interface Weather {
  droppedUntilMs: number;
  doubledUntilMs: number;
  reorderedUntilMs: number;
  lateUntilMs: number;
  /** All are lost. */
  silentUntilMs: number;
}

export interface Follower {
  /** Told as its engine hears of it. */
  event(executionId: string, event: ExecutionEvent): void;
}

type Message =
  | { kind: 'stop'; message: StopMessage }
  | { kind: 'hint'; hint: EngineHint }
  | { kind: 'event'; executionId: string; event: ExecutionEvent }
  | { kind: 'receipt'; receipt: StopReceipt }
  | { kind: 'changed'; item: ExecutionItem };

export interface NetworkOptions {
  scheduler: Scheduler;
  streams: Streams;
  ledger: Ledger;
  trace: Trace;
  hit: (kind: FaultKind) => void;
  /** Whether messages from one to the other are lost now. */
  cut: (from: SimBus, to: SimBus) => boolean;
}

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
  readonly #members = new Set<SimBus>();

  constructor(options: NetworkOptions) {
    this.options = options;
  }

  join(bus: SimBus): void {
    this.#members.add(bus);
  }

  leave(bus: SimBus): void {
    this.#members.delete(bus);
  }

  broadcast(from: SimBus, message: Message): void {
    for (const to of this.#members) if (to !== from) this.#send(from, to, message);
  }

  #send(from: SimBus, to: SimBus, message: Message): void {
    const { scheduler, streams, hit, cut } = this.options;
    const random = streams.of(`bus of ${from.process.name}`);
    const { nowMs } = scheduler;
    const { weather } = this;
    let delayMs = 0.2 + random.next() * 3;
    const draw = random.next();
    if (cut(from, to)) {
      hit('partitioned');
      return;
    }
    if (weather.silentUntilMs > nowMs) {
      hit('broadcastLost');
      return;
    }
    if (to.deafUntilMs > nowMs) {
      hit('streamGap');
      return;
    }
    if (weather.droppedUntilMs > nowMs && draw < 0.6) {
      hit('messageDropped');
      return;
    }
    if (weather.reorderedUntilMs > nowMs) {
      hit('messageReordered');
      delayMs += draw * 300;
    }
    if (weather.lateUntilMs > nowMs) {
      hit('messageLate');
      delayMs += 2_000 + draw * 5_000;
    }
    const deliver = (): void => to.hear(message);
    to.process.later(delayMs, deliver);
    if (weather.doubledUntilMs > nowMs && draw < 0.7) {
      hit('messageDoubled');
      to.process.later(delayMs + draw * 500, deliver);
    }
  }
}

function aboutOf(message: Message): string {
  switch (message.kind) {
    case 'stop':
      return `STOP ${tail(message.message.executionId)}`;
    case 'hint':
      return message.hint.kind;
    case 'event':
      return `event ${tail(message.executionId)} ${message.event.seq}`;
    default:
      return message.kind;
  }
}

/** One engine's end. */
export class SimBus implements Bus {
  readonly process: Process;
  readonly #network: Network;
  readonly #followers = new Map<string, Set<Follower>>();
  #others: ReadonlySet<string> = new Set();
  #stopHandlers: ((message: StopMessage) => void)[] = [];
  #hintHandlers: ((hint: EngineHint) => void)[] = [];
  #gapHandlers: (() => void)[] = [];
  /** Passes a STOP on to the workers that are connected here. */
  toWorkers: (message: StopMessage) => void = () => undefined;
  deafUntilMs = 0;

  constructor(process: Process, network: Network) {
    this.process = process;
    this.#network = network;
    network.join(this);
  }

  follow(executionId: string, follower: Follower): void {
    const followers = this.#followers.get(executionId) ?? new Set();
    followers.add(follower);
    this.#followers.set(executionId, followers);
  }

  unfollow(follower: Follower): void {
    for (const [id, followers] of this.#followers) {
      if (followers.delete(follower) && followers.size === 0) this.#followers.delete(id);
    }
  }

  /** The stream of the others' messages broke for good, and a new one stands. */
  gap(): void {
    for (const handler of this.#gapHandlers) handler();
  }

  hear(message: Message): void {
    this.#network.options.trace.note(this.process.name, `hears ${aboutOf(message)}`);
    switch (message.kind) {
      case 'stop':
        for (const handler of this.#stopHandlers) handler(message.message);
        this.toWorkers(message.message);
        break;
      case 'hint':
        for (const handler of this.#hintHandlers) handler(message.hint);
        break;
      case 'event':
        for (const follower of this.#followers.get(message.executionId) ?? [])
          follower.event(message.executionId, message.event);
        break;
      default:
        break;
    }
  }

  // ------------------------------------------------------------------ Bus

  hasListeners(executionId: string): boolean {
    return this.#followers.has(executionId) || this.#others.has(`execution:${executionId}`);
  }

  hasListListeners(project: string): boolean {
    return this.#others.has(`project:${project}`) || this.#others.has('projects');
  }

  event(executionId: string, event: ExecutionEvent): void {
    if (!this.process.alive) return;
    this.#network.options.ledger.eventLeaves(executionId, event);
    const message: Message = { kind: 'event', executionId, event };
    if (this.#followers.has(executionId)) this.process.clock.defer(() => this.hear(message));
    if (this.#others.has(`execution:${executionId}`)) this.#network.broadcast(this, message);
  }

  changed(): void {}

  receipt(): void {}

  stop(message: StopMessage): void {
    if (!this.process.alive) return;
    const { ledger, trace } = this.#network.options;
    ledger.stopLeaves(message.executionId, message.requestId);
    trace.note(this.process.name, `STOP ${tail(message.executionId)}`);
    this.process.clock.defer(() => this.hear({ kind: 'stop', message }));
    this.#network.broadcast(this, { kind: 'stop', message });
  }

  onStop(handler: (message: StopMessage) => void): void {
    this.#stopHandlers.push(handler);
  }

  tell(hint: EngineHint): void {
    if (!this.process.alive) return;
    this.#network.options.trace.note(this.process.name, `hint ${hint.kind}`);
    this.#network.broadcast(this, { kind: 'hint', hint });
  }

  onHint(handler: (hint: EngineHint) => void): void {
    this.#hintHandlers.push(handler);
  }

  onGap(handler: () => void): void {
    this.#gapHandlers.push(handler);
  }

  follows(): string[] {
    return [...this.#followers.keys()].map((id) => `execution:${id}`);
  }

  othersFollow(rooms: ReadonlySet<string>): void {
    this.#others = rooms;
  }
}
