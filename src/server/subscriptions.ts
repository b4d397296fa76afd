/**
 * Who follows which execution's events, and how far each has come.
 *
 * A subscription reads the store until it has everything that was announced, then takes events as they are
 * announced. Whatever breaks the sequence (a lost announcement, a client that reads slowly) sends it back to
 * the store: nothing is buffered here, and each event is sent once and in order.
 *
 * What another engine announces may be lost on its way. Where engines share the store, it is asked every now and then
 * how far the followed executions have come: one look for all of them.
 */

import type { Logger } from 'pino';
import type { Socket } from 'socket.io';
import { waitingPackets } from '../adapters/socket-io/bus.ts';
import { eventOf } from '../engine/views.ts';
import { messageOf } from '../errors.ts';
import type { Clock, TimerHandle } from '../ports/clock.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { ExecutionEvent } from '../wire.ts';

/** Events read from the store at once. */
const PAGE = 500;
/** Packets that may wait for the client before its events are left in the store. */
const WAITING_MAX = 1_000;
/** Between two looks at how far followed executions have come, where others may own them. */
const LOOK_MS = 1_500;
/** Executions of one look. */
const LOOK_PAGE = 1_000;
/** Until the store is asked again after it failed, or had not yet what was announced. */
const RETRY_MS = 200;

/** What subscriptions need of their server. */
export interface SubscriptionGround {
  store: ExecutionStore;
  clock: Clock;
  logger: Logger;
}

export class Subscriptions {
  readonly #ground: SubscriptionGround;
  /** By execution, then by socket id. */
  readonly #all = new Map<string, Map<string, Subscription>>();
  #timer: TimerHandle | null = null;
  #looking = false;
  #closed = false;

  constructor(ground: SubscriptionGround) {
    this.#ground = ground;
  }

  /** Sends events from `from` on, once each and in order. Replaces the socket's earlier subscription. */
  start(socket: Socket, executionId: string, from: number): void {
    this.end(socket, executionId);
    const subscription = new Subscription(this.#ground, socket, executionId, from);
    const ofExecution = this.#all.get(executionId) ?? new Map<string, Subscription>();
    ofExecution.set(socket.id, subscription);
    this.#all.set(executionId, ofExecution);
    subscription.read();
    this.#lookLater();
  }

  end(socket: Socket, executionId: string): void {
    const ofExecution = this.#all.get(executionId);
    ofExecution?.get(socket.id)?.close();
    ofExecution?.delete(socket.id);
    if (ofExecution?.size === 0) this.#all.delete(executionId);
  }

  announce(executionId: string, event: ExecutionEvent): void {
    const ofExecution = this.#all.get(executionId);
    if (ofExecution === undefined) return;
    for (const subscription of ofExecution.values()) subscription.announce(event);
  }

  /** Announcements may have been missed. */
  missed(): void {
    void this.#look();
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) this.#ground.clock.clearTimer(this.#timer);
  }

  #lookLater(): void {
    const { store, clock } = this.#ground;
    if (store.cluster === null || this.#timer !== null || this.#closed || this.#all.size === 0) return;
    this.#timer = clock.setTimer(LOOK_MS, () => {
      this.#timer = null;
      void this.#look().then(() => this.#lookLater());
    });
  }

  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const ids = [...this.#all].flatMap(([id, ofExecution]) =>
        [...ofExecution.values()].some((subscription) => subscription.waits) ? [id] : [],
      );
      for (let at = 0; at < ids.length && !this.#closed; at += LOOK_PAGE) {
        const { items } = await this.#ground.store.listExecutions({
          project: null,
          ids: ids.slice(at, at + LOOK_PAGE),
          withChildren: true,
          limit: LOOK_PAGE,
        });
        for (const { id, seq } of items)
          for (const subscription of this.#all.get(id)?.values() ?? []) subscription.reached(seq);
      }
    } catch (error) {
      this.#ground.logger.debug({ error: messageOf(error) }, 'followed executions were not looked at');
    } finally {
      this.#looking = false;
    }
  }
}

class Subscription {
  readonly #ground: SubscriptionGround;
  readonly #socket: Socket;
  readonly #executionId: string;
  /** The last event sent. */
  #last: number;
  /** The newest event announced. */
  #announced = 0;
  #reading = false;
  #closed = false;
  /** Its execution's last event was sent. */
  #ended = false;

  constructor(ground: SubscriptionGround, socket: Socket, executionId: string, from: number) {
    this.#ground = ground;
    this.#socket = socket;
    this.#executionId = executionId;
    this.#last = from - 1;
  }

  announce(event: ExecutionEvent): void {
    if (event.seq > this.#announced) this.#announced = event.seq;
    if (this.#reading || event.seq <= this.#last) return;
    if (event.seq === this.#last + 1 && waitingPackets(this.#socket) < WAITING_MAX) this.#send(event);
    else this.read();
  }

  /** It has what was announced, and more may come. */
  get waits(): boolean {
    return !this.#reading && !this.#ended;
  }

  /** The store has events up to this one. */
  reached(seq: number): void {
    if (seq > this.#announced) this.#announced = seq;
    if (!this.#reading && !this.#closed && seq > this.#last) this.read();
  }

  close(): void {
    this.#closed = true;
  }

  read(): void {
    this.#reading = true;
    this.#readAll().catch((error: unknown) => {
      this.#ground.logger.error({ executionId: this.#executionId, error: messageOf(error) }, 'subscription failed');
      this.#socket.disconnect(true);
    });
  }

  async #readAll(): Promise<void> {
    for (;;) {
      await this.#drained();
      if (this.#closed) return;
      const page = await this.#ground.store.readEvents(this.#executionId, this.#last + 1, PAGE).catch(() => null);
      if (this.#closed) return;
      if (page === null) {
        await this.#sleep(RETRY_MS);
        continue;
      }
      // Older events went while the client read slowly: on its way back it is told from where it can go on.
      if (page.firstSeq > this.#last + 1) return void this.#socket.disconnect(true);
      for (const row of page.items) this.#send(eventOf(row));
      if (page.items.length === PAGE) continue;
      if (this.#last >= this.#announced) break;
      if (page.items.length === 0) await this.#sleep(RETRY_MS);
    }
    this.#reading = false;
  }

  #send(event: ExecutionEvent): void {
    this.#last = event.seq;
    // The terminal event is the last one.
    if (event.type === 'execution.completed' || event.type === 'execution.failed') this.#ended = true;
    this.#socket.emit('execution.event', { executionId: this.#executionId, event });
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#ground.clock.setTimer(ms, resolve));
  }

  /** Resolves when the client has taken enough of what waits for it. */
  async #drained(): Promise<void> {
    const { conn } = this.#socket;
    while (!this.#closed && waitingPackets(this.#socket) >= WAITING_MAX) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          conn.off('drain', done);
          conn.off('close', done);
          resolve();
        };
        conn.on('drain', done);
        conn.on('close', done);
      });
    }
  }
}
