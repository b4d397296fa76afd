import { messageOf } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { ClusterStore, ClusterView, EngineBeat, EngineRow } from '../ports/cluster.ts';
import type { Log } from './environment.ts';
import type { Timer, Timers } from './timers.ts';

/** Between two heartbeats. */
const BEAT_MS = 2_000;
/** After a heartbeat that the store did not answer. */
const AGAIN_MS = 500;
/** An engine gives up so long before others may take over: it has ended what it does by then. */
const MARGIN_MS = 1_500;
/** An orphan that its chosen heir has not taken for so long is anybody's. */
const PATIENCE_MS = 3_000;
/** An engine counts with the most that it had in a time between this and twice this. */
const LATELY_MS = 1_000;
/** Between two words of this engine on how much it has to do, and by how much that must differ from the last one. */
const TELL_MS = 100;
const TELL_CHANGE = 16;
const TELL_SHARE = 0.125;
/** An engine's word is kept until a heartbeat of it that is surely newer: the age of one is known about so well. */
const AGE_UNSURE_MS = 500;
/** Between two looks for what an engine that is gone may still have left, once nothing was found. */
const LOOK_AGAIN_MS = 10_000;

/** What another engine has to do. */
interface Load {
  /** As it said itself. */
  count: number;
  saidAtMs: number;
  /** How it grew until then. */
  perMs: number;
  /** What this engine has offered to it since. */
  offered: number;
}

export interface MembershipOptions {
  id: string;
  cluster: ClusterStore;
  clock: Clock;
  timers: Timers;
  log: Log;
  leaseMs: number;
  /** What this engine says of itself. */
  beat(): EngineBeat;
  /** A newer view of the others. */
  seen(view: ClusterView): void;
  /** For the others, between two heartbeats: what this engine has to do now. */
  tellLoad(load: number): void;
  /** Its lease may have run out, or did: it owns nothing any more. Called once. */
  fenced(why: string): void;
}

/** An engine among those that share its store: keeps its lease, sees the others' run out. */
export class Membership {
  readonly #options: MembershipOptions;
  #engines: readonly EngineRow[] = [];
  /** When these rows came. */
  #seenAtMs = 0;
  #others: readonly EngineRow[] = [];
  /** When the last heartbeat that the store answered was sent, by a clock that nobody sets. */
  #renewedAtMs: number | null = null;
  #watchdog: Timer | null = null;
  #nextBeat: Timer | null = null;
  #beating: Promise<void> | null = null;
  #closed = false;
  /** Of the others, by engine. */
  readonly #loads = new Map<string, Load>();
  readonly #own = new Most(LATELY_MS);
  /** What this engine had to do when it said so last, heartbeats aside. */
  #told = { count: 0, atMs: Number.NEGATIVE_INFINITY };
  /** Engines that are gone and of whom nothing was left at the last look: when to look again. */
  readonly #settled = new Map<string, number>();
  /** Orphans that are another's to take, and since when. */
  readonly #waitedFor = new Map<string, number>();

  constructor(options: MembershipOptions) {
    this.#options = options;
  }

  /** The first heartbeat. Rejects while the store does not answer. */
  async join(): Promise<void> {
    await this.#beat();
    this.#again(BEAT_MS);
  }

  close(): void {
    this.#closed = true;
    const { timers } = this.#options;
    if (this.#watchdog !== null) timers.cancel(this.#watchdog);
    if (this.#nextBeat !== null) timers.cancel(this.#nextBeat);
  }

  /** Everybody the store knows of, those that are gone included. */
  get engines(): readonly EngineRow[] {
    return this.#engines;
  }

  /** The others that are alive. */
  get others(): readonly EngineRow[] {
    return this.#others;
  }

  /** Of an engine as it was seen last; null: unknown. */
  find(id: string): EngineRow | null {
    return this.#engines.find((row) => row.id === id) ?? null;
  }

  /**
   * Others may have taken over: asked before anything that cannot be taken back. A process that stood still has its
   * timers and its answers late, and in any order.
   */
  lapsed(): boolean {
    const { clock, leaseMs } = this.#options;
    if (this.#closed) return true;
    if (this.#renewedAtMs === null || clock.monotonicMs() - this.#renewedAtMs < leaseMs - MARGIN_MS) return false;
    this.#fence(`no heartbeat reached the store for ${leaseMs - MARGIN_MS} ms`);
    return true;
  }

  #fence(why: string): void {
    if (this.#closed) return;
    this.close();
    this.#options.fenced(why);
  }

  /** Beats now: something of the others has changed. */
  async look(): Promise<void> {
    if (this.#closed) return;
    await this.#beat().catch(() => undefined);
  }

  #again(ms: number): void {
    if (this.#closed) return;
    const { timers, log } = this.#options;
    if (this.#nextBeat !== null) timers.cancel(this.#nextBeat);
    this.#nextBeat = timers.after(ms, () => {
      this.#nextBeat = null;
      if (this.lapsed()) return;
      this.#beat().then(
        () => this.#again(BEAT_MS),
        (error: unknown) => {
          log.warn({ error: messageOf(error) }, 'a heartbeat did not reach the store');
          this.#again(AGAIN_MS);
        },
      );
    });
  }

  #beat(): Promise<void> {
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = null;
    });
    return this.#beating;
  }

  async #beatOnce(): Promise<void> {
    const { cluster, clock, beat, id, seen } = this.#options;
    // The lease runs from the moment the store may have noted it, which is not before it was sent.
    const sentAtMs = clock.monotonicMs();
    const said = beat();
    const view = await cluster.beat({ ...said, load: this.#own.note(countOf(said.executions), sentAtMs) });
    if (this.lapsed()) return;
    if (view.self === null) {
      this.#fence('another engine declared this one dead');
      return;
    }
    this.#renewedAtMs = sentAtMs;
    this.#watch();
    this.#engines = view.engines;
    this.#seenAtMs = clock.monotonicMs();
    this.#others = view.engines.filter(
      (row) => row.id !== id && row.membership === 'member' && row.silentMs <= row.leaseMs,
    );
    const ids = new Set(this.#others.map((row) => row.id));
    for (const known of this.#loads.keys()) if (!ids.has(known)) this.#loads.delete(known);
    for (const row of this.#others)
      this.#noteLoad(row.id, row.load ?? countOf(row.executions), sentAtMs - row.silentMs);
    seen(view);
  }

  /** Looks again when the lease of the last heartbeat has run out. */
  #watch(): void {
    const { timers, clock, leaseMs } = this.#options;
    if (this.#watchdog !== null) timers.cancel(this.#watchdog);
    const leftMs = (this.#renewedAtMs ?? 0) + leaseMs - MARGIN_MS - clock.monotonicMs();
    this.#watchdog = timers.after(Math.max(1, Math.ceil(leftMs)), () => this.lapsed());
  }

  // ------------------------------------------------------------------ who takes what

  /** Engines that own nothing any more and may have left something; those whose lease ran out are declared dead. */
  async gone(): Promise<string[]> {
    const { cluster, clock, log, id } = this.#options;
    const gone: string[] = [];
    for (const row of this.#engines) {
      if (row.id === id) continue;
      if (row.membership === 'member') {
        // As far as the last view goes; the store knows.
        const silentMs = row.silentMs + clock.monotonicMs() - this.#seenAtMs;
        if (silentMs <= row.leaseMs) continue;
        if (!(await cluster.declareDead(row.id))) continue;
        log.warn({ engine: row.id, silentMs }, 'an engine is silent for its lease: others take over');
        row.membership = 'dead';
        this.#others = this.#others.filter((other) => other !== row);
      }
      if ((this.#settled.get(row.id) ?? 0) <= clock.monotonicMs()) gone.push(row.id);
    }
    return gone;
  }

  /** Nothing was left of these at the last look. */
  settled(engines: string[]): void {
    const againAtMs = this.#options.clock.monotonicMs() + LOOK_AGAIN_MS;
    for (const id of engines) this.#settled.set(id, againAtMs);
    for (const id of this.#settled.keys()) if (this.find(id) === null) this.#settled.delete(id);
    this.#waitedFor.clear();
  }

  /** Which of these orphaned trees are this engine's to take: each has one heir among those that serve. */
  inherits(roots: string[]): string[] {
    const { clock, id } = this.#options;
    const heirs = [...this.#others.filter(({ status }) => status === 'serving').map((row) => row.id), id];
    const nowMs = clock.monotonicMs();
    return roots.filter((root) => {
      if (heirOf(root, heirs) === id) return true;
      const sinceMs = this.#waitedFor.get(root);
      if (sinceMs === undefined) this.#waitedFor.set(root, nowMs);
      return sinceMs !== undefined && nowMs - sinceMs >= PATIENCE_MS;
    });
  }

  /** An engine with clearly less to do than this one; null: a new execution stays here. */
  lessLoaded(ownLoad: number): string | null {
    const others = this.#others.filter(({ status }) => status === 'serving');
    if (others.length === 0) return null;
    const nowMs = this.#options.clock.monotonicMs();
    this.#tellLoad(this.#own.note(ownLoad, nowMs), nowMs);
    const loads = others.flatMap(({ id }) => {
      const load = this.#loads.get(id);
      return load === undefined ? [] : [{ id, load, count: load.offered + countNow(load, nowMs) }];
    });
    const mean = (loads.reduce((sum, { count }) => sum + count, 0) + ownLoad) / (loads.length + 1);
    if (ownLoad <= 1.25 * mean + 16) return null;
    const least = loads.reduce((best, each) => (each.count < best.count ? each : best));
    least.load.offered += 1;
    return least.id;
  }

  /**
   * Starts that come to all engines at once would make each believe that the others have nothing to do, until the next
   * heartbeat, and offer to them what they offer back. Short executions come and go together: what an engine has at
   * one instant, it may not have at the next, so it says the most that it had lately.
   */
  #tellLoad(count: number, nowMs: number): void {
    const { count: before, atMs } = this.#told;
    if (Math.abs(count - before) < TELL_CHANGE + TELL_SHARE * before || nowMs - atMs < TELL_MS) return;
    this.#told = { count, atMs: nowMs };
    this.#options.tellLoad(count);
  }

  /** What another engine says of itself. */
  heardLoad(id: string, load: number): void {
    if (this.#loads.has(id)) this.#setLoad(id, load, this.#options.clock.monotonicMs());
  }

  #noteLoad(id: string, count: number, saidAtMs: number): void {
    const known = this.#loads.get(id);
    if (known === undefined || saidAtMs >= known.saidAtMs + AGE_UNSURE_MS) this.#setLoad(id, count, saidAtMs);
  }

  #setLoad(id: string, count: number, saidAtMs: number): void {
    const before = this.#loads.get(id);
    const perMs =
      before === undefined ? 0 : Math.max(0, (count - before.count) / Math.max(TELL_MS, saidAtMs - before.saidAtMs));
    this.#loads.set(id, { count, saidAtMs, perMs, offered: 0 });
  }
}

/** One that grew is taken to grow on, to twice as much at most. */
function countNow({ count, saidAtMs, perMs }: Load, nowMs: number): number {
  return count + Math.min(count, perMs * Math.max(0, nowMs - saidAtMs));
}

function countOf({ running, pending }: EngineBeat['executions']): number {
  return running + pending;
}

/** The most of what was noted lately. */
class Most {
  readonly #ms: number;
  #sinceMs = Number.NEGATIVE_INFINITY;
  #now = 0;
  #before = 0;

  constructor(ms: number) {
    this.#ms = ms;
  }

  note(count: number, nowMs: number): number {
    const agoMs = nowMs - this.#sinceMs;
    if (agoMs >= this.#ms) {
      this.#before = agoMs >= 2 * this.#ms ? 0 : this.#now;
      this.#now = 0;
      this.#sinceMs = nowMs;
    }
    this.#now = Math.max(this.#now, count);
    return Math.max(this.#now, this.#before);
  }
}

/**
 * The one of `heirs` that takes the tree of `root`: every engine comes to the same answer, and each gets its share.
 *
 * Rendezvous hashing (Thaler and Ravishankar, 1998) with FNV-1a.
 */
function heirOf(root: string, heirs: readonly string[]): string {
  let best = '';
  let most = -1;
  for (const heir of heirs) {
    const weight = fnv1a(`${heir}/${root}`);
    if (weight > most || (weight === most && heir < best)) {
      most = weight;
      best = heir;
    }
  }
  return best;
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  // The last characters alone would decide little of the upper bits.
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  return hash >>> 0;
}
