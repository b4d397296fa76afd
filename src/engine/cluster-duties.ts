/**
 * What an engine does because others share its store: it keeps its lease, looks each second for what waits for it,
 * takes over what a dead engine left, offers new executions to engines with less to do, and takes what it is offered.
 *
 * A write whose answer was lost is repeated until it is answered, and what it gave is taken in to the end: an execution
 * that this engine owns and does not know would wait for ever.
 */
import { messageOf } from '../errors.ts';
import type { Bus, EngineHint } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { ClusterStore, ClusterView, EngineBeat, Waiting } from '../ports/cluster.ts';
import type { RecoverableExecution, TriggerRow } from '../ports/store.ts';
import type { WorkerItem } from '../wire.ts';
import type { Log } from './environment.ts';
import { Membership } from './membership.ts';
import type { Peers } from './remote-tasks.ts';
import type { Timers } from './timers.ts';

/** Until an engine that is asked about has been seen, if it is there. */
const STRANGER_MS = 6_000;
/** Of one look at what waits. */
const WAITING_MAX = 1_000;
/** Trees that are taken over with one call, and that one look finds. */
const TAKE_OVER_BATCH = 50;
const ORPHANS_MAX = 1_000;
/** Offers that are accepted at once. */
const ACCEPT_BATCH = 32;
/** An offer that nobody took is taken back; it is looked after for twice as long. */
const OFFER_MS = 5_000;

/** The engine, as its duties see it. */
export interface DutyBound {
  beat(): EngineBeat;
  draining(): boolean;
  /** It is in memory, or parked. */
  has(executionId: string): boolean;
  load(executionId: string): Promise<RecoverableExecution | null>;
  /** These are this engine's now, those that it has already among them. `afterCrash`: their former owner is gone. */
  takeIn(taken: RecoverableExecution[], afterCrash: boolean): Promise<void>;
  stopped(intent: Waiting['intents'][number]): void;
  triggered(trigger: TriggerRow): void;
  placesMayBeFree(): void;
  /** Some definition was saved, enabled or disabled. */
  definitionsChanged(): void;
  admissionIs(paused: boolean): void;
  heard(hint: EngineHint): void;
  fenced(why: string): void;
  drainAsked(): void;
}

export interface ClusterDutiesOptions {
  id: string;
  cluster: ClusterStore;
  bus: Bus;
  clock: Clock;
  timers: Timers;
  log: Log;
  leaseMs: number;
  engine: DutyBound;
}

export class ClusterDuties {
  readonly membership: Membership;
  readonly peers: Peers = {
    hasOthers: () => this.membership.others.length > 0,
    isAlive: (id) => this.#isAlive(id),
    workerName: (id) => this.#workers.get(id)?.name ?? null,
    offers: (capability) => this.#capabilities.has(capability),
  };
  readonly #options: ClusterDutiesOptions;
  readonly #engine: DutyBound;
  #definitionsTurn: number | null = null;
  /** Those of the other engines, and what they offer. */
  #workers = new Map<string, WorkerItem>();
  #capabilities = new Set<string>();
  /** Engines that no view has shown, and when one of them was asked about first. */
  readonly #strangers = new Map<string, number>();
  #sweeping: Promise<void> | null = null;
  #sweepAgain = false;
  /** Takeovers that are not taken in to the end. */
  readonly #taking = new Set<{ roots: string[]; from: string[] }>();
  /** Offers of others that are to be accepted. */
  readonly #toAccept = new Set<string>();
  /** Of these, those that the store is asked for now. */
  readonly #accepting = new Set<string>();
  #acceptAsked = false;
  /** Own offers, when they were made, and whether every answer of the store on them came. */
  readonly #offered = new Map<string, { atMs: number; certain: boolean }>();

  constructor(options: ClusterDutiesOptions) {
    this.#options = options;
    this.#engine = options.engine;
    this.membership = new Membership({
      ...options,
      beat: () => options.engine.beat(),
      seen: (view) => this.#seen(view),
      tellLoad: (load) => options.bus.tell({ kind: 'engine.load', engine: options.id, load }),
      fenced: (why) => options.engine.fenced(why),
    });
  }

  /** Resolves when the others can know of this engine. */
  async join(): Promise<void> {
    const { bus } = this.#options;
    bus.onHint((hint) => {
      if (!this.membership.lapsed()) this.#heard(hint);
    });
    bus.onGap(() => this.sweepNow());
    await this.membership.join();
  }

  get workers(): WorkerItem[] {
    return [...this.#workers.values()];
  }

  /** One that no view shows has joined since the last one, or has been gone for an hour: the next view tells. */
  #isAlive(id: string): boolean {
    const row = this.membership.find(id);
    if (row !== null) return row.membership === 'member';
    const nowMs = this.#options.clock.monotonicMs();
    const sinceMs = this.#strangers.get(id);
    if (sinceMs !== undefined) return nowMs - sinceMs < STRANGER_MS;
    this.#strangers.set(id, nowMs);
    void this.membership.look();
    return true;
  }

  #seen(view: ClusterView): void {
    const { others } = this.membership;
    const forgottenMs = this.#options.clock.monotonicMs() - 10 * STRANGER_MS;
    for (const [id, sinceMs] of this.#strangers) if (sinceMs < forgottenMs) this.#strangers.delete(id);
    this.#options.bus.othersFollow(new Set(others.flatMap((row) => row.follows)));
    const workers = others.flatMap((row) => row.workers);
    this.#workers = new Map(workers.map((worker) => [worker.id, worker]));
    this.#capabilities = new Set(workers.flatMap(({ connected, capabilities }) => (connected ? capabilities : [])));
    const before = this.#definitionsTurn;
    this.#definitionsTurn = view.definitionsTurn;
    if (before !== null && before !== view.definitionsTurn) this.#engine.definitionsChanged();
    this.#engine.admissionIs((view.admission as { paused?: boolean } | null)?.paused === true);
    if (view.self?.drainRequested === true) this.#engine.drainAsked();
  }

  #heard(hint: EngineHint): void {
    const { id } = this.#options;
    switch (hint.kind) {
      case 'engine.gone':
        void this.membership.look().then(() => this.sweepNow());
        return;
      case 'engine.load':
        this.membership.heardLoad(hint.engine, hint.load);
        return;
      case 'admission.changed':
        void this.membership.look();
        return;
      case 'execution.offered':
        if (hint.engine !== id) return;
        this.#toAccept.add(hint.executionId);
        this.#acceptSoon();
        return;
      case 'execution.triggered':
        if (this.#engine.has(hint.executionId)) this.sweepNow();
        return;
      default:
        this.#engine.heard(hint);
    }
  }

  // ------------------------------------------------------------------ the sweep

  sweepNow(): void {
    void this.sweep();
  }

  /** Looks at the store for what others did and this engine may not have heard: one look at a time. */
  sweep(): Promise<void> {
    // What is asked for meanwhile is one more look.
    this.#sweepAgain = true;
    this.#sweeping ??= this.#sweepOnceMore().finally(() => {
      this.#sweeping = null;
    });
    return this.#sweeping;
  }

  async #sweepOnceMore(): Promise<void> {
    while (this.#sweepAgain && !this.membership.lapsed()) {
      this.#sweepAgain = false;
      // What one part of the store does not answer does not hold up the others.
      await this.#try(() => this.#lookForWaiting());
      if (this.#engine.draining()) return;
      await this.#try(() => this.#acceptAll());
      await this.#try(() => this.#takeBackOffers());
      this.#engine.placesMayBeFree();
      await this.#try(() => this.#takeOver());
    }
  }

  async #try(work: () => Promise<void>): Promise<void> {
    if (this.membership.lapsed()) return;
    try {
      await work();
    } catch (error) {
      this.#options.log.warn({ error: messageOf(error) }, 'what others did waits for the store');
    }
  }

  async #lookForWaiting(): Promise<void> {
    const { cluster, id } = this.#options;
    const waiting = await cluster.waiting(id, WAITING_MAX);
    if (this.membership.lapsed()) return;
    for (const intent of waiting.intents) this.#engine.stopped(intent);
    for (const executionId of waiting.offered) this.#toAccept.add(executionId);
    // One that is still on its way into memory may have been read before its trigger was stored.
    const inHand = waiting.triggers.filter(({ executionId }) => this.#engine.has(executionId));
    for (const trigger of inHand) this.#engine.triggered(trigger);
    if (inHand.length > 0) await cluster.markDelivered(inHand.map((trigger) => trigger.id));
  }

  /** The executions of engines that are gone get new owners: this engine takes its share of their trees. */
  async #takeOver(): Promise<void> {
    const { cluster } = this.#options;
    for (const batch of this.#taking) await this.#take(batch);
    const gone = await this.membership.gone();
    if (gone.length === 0) return;
    const orphans = await cluster.listOrphans(gone, ORPHANS_MAX);
    if (orphans.length === 0) {
      this.membership.settled(gone);
      return;
    }
    const own = this.membership.inherits(orphans);
    for (let from = 0; from < own.length; from += TAKE_OVER_BATCH) {
      if (this.#engine.draining()) return;
      await this.#take({ roots: own.slice(from, from + TAKE_OVER_BATCH), from: gone });
    }
    if (orphans.length === ORPHANS_MAX) this.#sweepAgain = true;
  }

  async #take(batch: { roots: string[]; from: string[] }): Promise<void> {
    const { cluster, id } = this.#options;
    this.#taking.add(batch);
    await this.#engine.takeIn(await cluster.takeOver(batch.roots, batch.from, id), true);
    this.#taking.delete(batch);
  }

  // ------------------------------------------------------------------ offers

  #acceptSoon(): void {
    if (this.#acceptAsked) return;
    this.#acceptAsked = true;
    this.#options.clock.defer(() => {
      this.#acceptAsked = false;
      void this.#try(() => this.#acceptAll());
    });
  }

  /** What was not answered is tried again with the next sweep. */
  async #acceptAll(): Promise<void> {
    if (this.#engine.draining()) return;
    const ids = [...this.#toAccept];
    for (let from = 0; from < ids.length; from += ACCEPT_BATCH) {
      const outcomes = await Promise.allSettled(
        ids.slice(from, from + ACCEPT_BATCH).map((executionId) => this.#accept(executionId)),
      );
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    }
  }

  async #accept(executionId: string): Promise<void> {
    if (this.#accepting.has(executionId)) return;
    const { cluster, id } = this.#options;
    this.#accepting.add(executionId);
    try {
      const stored = await cluster.acceptOffer(executionId, id);
      if (stored !== null) await this.#engine.takeIn([stored], false);
      this.#toAccept.delete(executionId);
    } finally {
      this.#accepting.delete(executionId);
    }
  }

  /** A new execution, should this engine have clearly more to do than another: that one's id. */
  lessLoaded(ownLoad: number): string | null {
    return this.membership.lessLoaded(ownLoad);
  }

  /** It is offered; where the store did not say so, it may be. */
  offered(executionId: string, certain: boolean): void {
    this.#offered.set(executionId, { atMs: this.#options.clock.monotonicMs(), certain });
  }

  /** What nobody took stays here. */
  async #takeBackOffers(): Promise<void> {
    const { cluster, clock, id } = this.#options;
    const beforeMs = clock.monotonicMs() - OFFER_MS;
    if (![...this.#offered.values()].some(({ atMs }) => atMs < beforeMs)) return;
    try {
      await this.#engine.takeIn(await cluster.takeBackOffers(id, OFFER_MS - 1_000), false);
    } catch (error) {
      // Those that it took back are not told of again.
      for (const offer of this.#offered.values()) offer.certain = false;
      throw error;
    }
    for (const [executionId, { atMs, certain }] of this.#offered) {
      if (atMs >= beforeMs - OFFER_MS) continue;
      if (!certain) await this.#takeInOwn(executionId);
      this.#offered.delete(executionId);
    }
  }

  async #takeInOwn(executionId: string): Promise<void> {
    const stored = await this.#engine.load(executionId);
    if (stored?.header.endedAtMs === null && stored.header.owner.engine === this.#options.id)
      await this.#engine.takeIn([stored], false);
  }
}
