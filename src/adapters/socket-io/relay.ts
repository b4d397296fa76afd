/**
 * Messages between engines, over a link that may lose, double and delay packets.
 *
 * Every message of a sender has a number, so that a receiver takes each once, in order, and notices what it never
 * got. What is said within one turn, or while a packet is on its way, leaves in one packet. What cannot leave is
 * dropped: others notice by its number.
 */
import type { Clock, TimerHandle } from '../../ports/clock.ts';
import type { EngineLink, Packet } from './link.ts';

/** One that has something to say, and one that hears it. */
export interface RelayHandlers<Message> {
  message(message: Message, from: string): void;
  /** Messages may have been missed; of one sender, or of anybody. */
  gap(from: string | null): void;
  /** An engine is heard for the first time since it, or this one, came. */
  joined(from: string): void;
  /** It said goodbye, or has been silent for long. */
  left(from: string): void;
}

export interface RelayOptions {
  link: EngineLink;
  clock: Clock;
  /** Of this start: nobody else's, and none that was before. */
  id: string;
  /** Between two signs of life of an engine that has nothing to say, ms. */
  beatMs?: number;
}

export interface RelayCounters {
  sent: number;
  /** Never left, as far as is known here. */
  dropped: number;
  received: number;
  /** Came twice, or after later ones. */
  doubled: number;
  gaps: number;
}

const BEAT_MS = 5_000;
/** Signs of life that may be missing before a sender counts as gone. */
const BEATS_MISSED = 3;
/** A packet may be on its way so long: whoever has left is known until then, and is not heard anew by one that is late. */
const KEPT_MS = 60_000;
/** Messages that may wait to leave; with more the newest are dropped. */
const WAITING_MAX = 10_000;
/** Of one packet. */
const PACKET_MESSAGES_MAX = 500;
const PACKET_CHARS_MAX = 1_000_000;
/** No sender comes so far: a number beyond it would make deaf for all that its sender says later. */
const NUMBER_MAX = 2 ** 40;
/** A message that is larger stays here: what it tells is in the store. */
const MESSAGE_CHARS_MAX = 4_000_000;

interface Sender {
  /** Number of the next message. */
  next: number;
  heardAtMs: number;
  /** It has not said goodbye, nor been silent for long. */
  here: boolean;
  over: boolean;
}

interface Waiting {
  number: number;
  text: string;
}

/** How long an end waits for what has not left. */
const CLOSE_MS = 1_000;
/** Said by the relay itself. */
const GOODBYE = '"goodbye"';

export class Relay<Message extends object> {
  readonly id: string;
  readonly clock: Clock;
  readonly counters: RelayCounters = { sent: 0, dropped: 0, received: 0, doubled: 0, gaps: 0 };
  /** How many are heard now. */
  others = 0;
  readonly #link: EngineLink;
  readonly #beatMs: number;
  readonly #senders = new Map<string, Sender>();
  #handlers: RelayHandlers<Message> | null = null;
  #waiting: Waiting[] = [];
  #next = 1;
  #sending = false;
  /** Resolves when nothing waits to leave. */
  #idle: Promise<void> = Promise.resolve();
  #scheduled = false;
  #saidAtMs = 0;
  #beat: TimerHandle | null = null;
  #closed = false;

  constructor({ link, clock, id, beatMs = BEAT_MS }: RelayOptions) {
    this.#link = link;
    this.clock = clock;
    this.id = id;
    this.#beatMs = beatMs;
  }

  /** Resolves when others are heard, or when there is no more waiting for that. */
  async open(handlers: RelayHandlers<Message>): Promise<void> {
    this.#handlers = handlers;
    await this.#link.open({
      received: (packet) => this.#received(packet),
      gap: () => this.#gap(null),
      up: () => this.#sendBeat(),
    });
    if (this.#closed) return;
    this.#sendBeat();
    this.#beatLater();
  }

  say(message: Message): void {
    if (this.#handlers === null || this.#closed) return;
    this.#enqueue(JSON.stringify(message));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#beat !== null) this.clock.clearTimer(this.#beat);
    if (this.#handlers !== null) {
      // Behind what still waits to leave.
      this.#waiting.push({ number: this.#take(), text: GOODBYE });
      if (!this.#sending) this.#startSending();
      await this.#idleFor(CLOSE_MS);
    }
    this.#waiting = [];
    await this.#link.close();
  }

  /** Resolves when nothing waits to leave, or after that time. */
  #idleFor(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.clock.setTimer(ms, resolve);
      void this.#idle.then(() => {
        this.clock.clearTimer(timer);
        resolve();
      });
    });
  }

  #beatLater(): void {
    this.#beat = this.clock.setTimer(this.#beatMs, () => {
      this.#dropSilent();
      if (this.clock.monotonicMs() - this.#saidAtMs >= this.#beatMs * 0.9) this.#sendBeat();
      this.#beatLater();
    });
  }

  #take(): number {
    const number = this.#next;
    this.#next += 1;
    return number;
  }

  #enqueue(text: string): void {
    const number = this.#take();
    if (text.length > MESSAGE_CHARS_MAX || this.#waiting.length >= WAITING_MAX) {
      this.counters.dropped += 1;
      return;
    }
    this.#waiting.push({ number, text });
    if (this.#sending || this.#scheduled) return;
    this.#scheduled = true;
    this.clock.defer(() => {
      this.#scheduled = false;
      if (!this.#sending) this.#startSending();
    });
  }

  /** A packet without messages tells where the numbers are. */
  #sendBeat(): void {
    if (this.#closed || this.#sending || this.#waiting.length > 0) return;
    this.#saidAtMs = this.clock.monotonicMs();
    this.#link.send({ from: this.id, first: this.#next, count: 0, text: '[]' }).catch(() => undefined);
  }

  #startSending(): void {
    this.#idle = this.#sendAll();
  }

  /** One packet at a time keeps them in order. */
  async #sendAll(): Promise<void> {
    this.#sending = true;
    while (this.#waiting.length > 0) {
      const batch = this.#nextBatch();
      const [first] = batch;
      if (first === undefined) break;
      this.#saidAtMs = this.clock.monotonicMs();
      const text = `[${batch.map((message) => message.text).join(',')}]`;
      try {
        await this.#link.send({ from: this.id, first: first.number, count: batch.length, text });
        this.counters.sent += batch.length;
      } catch {
        this.counters.dropped += batch.length;
      }
    }
    this.#sending = false;
  }

  /** The oldest messages, without a gap in their numbers. */
  #nextBatch(): Waiting[] {
    let chars = 0;
    let length = 0;
    for (const message of this.#waiting) {
      const follows = length === 0 || message.number === (this.#waiting[length - 1] as Waiting).number + 1;
      if (!follows || length >= PACKET_MESSAGES_MAX || (length > 0 && chars + message.text.length > PACKET_CHARS_MAX))
        break;
      chars += message.text.length;
      length += 1;
    }
    return this.#waiting.splice(0, length);
  }

  #received(packet: unknown): void {
    if (!isPacket(packet) || packet.from === this.id || this.#closed) return;
    const { from, first, count } = packet;
    const known = this.#senders.get(from);
    if (known?.over === true) {
      this.counters.doubled += count;
      return;
    }
    const sender = known ?? { next: first, heardAtMs: 0, here: false, over: false };
    sender.heardAtMs = this.clock.monotonicMs();
    if (!sender.here) {
      sender.here = true;
      this.others += 1;
      this.#senders.set(from, sender);
      this.#handlers?.joined(from);
      if (known !== undefined || first > 1) this.#gap(from);
    } else if (first > sender.next) this.#gap(from);
    const doubled = Math.min(count, Math.max(0, sender.next - first));
    this.counters.doubled += doubled;
    sender.next = Math.max(sender.next, first + count);
    if (doubled === count) return;
    const messages = messagesOf(packet);
    // What cannot be read was missed, as what never came.
    if (messages.length !== count) return this.#gap(from);
    for (const message of messages.slice(doubled)) {
      this.counters.received += 1;
      if (message === 'goodbye') this.#left(from, sender, true);
      else if (typeof message === 'object' && message !== null) this.#handlers?.message(message as Message, from);
    }
  }

  #gap(from: string | null): void {
    if (this.#closed) return;
    this.counters.gaps += 1;
    this.#handlers?.gap(from);
  }

  #dropSilent(): void {
    const nowMs = this.clock.monotonicMs();
    for (const [from, sender] of this.#senders) {
      const silentMs = nowMs - sender.heardAtMs;
      if (silentMs > BEATS_MISSED * this.#beatMs) this.#left(from, sender, sender.over);
      if (silentMs > KEPT_MS) this.#senders.delete(from);
    }
  }

  #left(from: string, sender: Sender, over: boolean): void {
    sender.over = over;
    if (!sender.here) return;
    sender.here = false;
    this.others -= 1;
    this.#handlers?.left(from);
  }
}

function isPacket(value: unknown): value is Packet {
  const { from, first, count, text } = (value ?? {}) as Partial<Record<keyof Packet, unknown>>;
  return (
    typeof from === 'string' &&
    isWithin(first, 1, NUMBER_MAX) &&
    isWithin(count, 0, PACKET_MESSAGES_MAX) &&
    typeof text === 'string'
  );
}

function isWithin(value: unknown, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
}

function messagesOf({ text }: Packet): unknown[] {
  try {
    const messages: unknown = JSON.parse(text);
    return Array.isArray(messages) ? messages : [];
  } catch {
    return [];
  }
}
