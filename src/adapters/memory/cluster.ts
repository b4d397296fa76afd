import type { ClusterStore, ClusterView, EngineBeat, EngineRow, TaskState, Waiting } from '../../ports/cluster.ts';
import type { RecoverableExecution } from '../../ports/store.ts';
import type { TaskRow } from '../../ports/task-queue.ts';
import type { WorkReport } from '../../ports/work.ts';
import type { Json } from '../../wire.ts';
import { compare, type Entry, hasEnded, jsonCopy, nameKey, recoverable } from './entry.ts';

/** Rows of engines that are gone are kept for an hour, and while they own something. */
const GONE_KEPT_MS = 3_600_000;

interface Member {
  beat: EngineBeat;
  beatAtMs: number;
  membership: EngineRow['membership'];
  drainRequested: boolean;
}

/** What the cluster needs of the store that it is a part of. */
export interface ClusterHost {
  readonly entries: ReadonlyMap<string, Entry>;
  /** The store's own clock. */
  nowMs(): number;
  /** What the store may keep of what it is given. */
  own<T>(given: T): T;
  definitionsTurn(): number;
  admission(): Json;
  read<T>(work: () => T): Promise<T>;
  write<T>(work: () => T): Promise<T>;
}

/** Several engines of one test on one memory store. */
export class MemoryClusterStore implements ClusterStore {
  readonly #host: ClusterHost;
  readonly #members = new Map<string, Member>();
  /** Executions that have a place, by workflow. */
  readonly #places = new Map<string, Set<string>>();

  constructor(host: ClusterHost) {
    this.#host = host;
  }

  /** As if the last heartbeat of an engine were so much older. */
  silence(engineId: string, ms: number): void {
    const member = this.#members.get(engineId);
    if (member !== undefined) member.beatAtMs -= ms;
  }

  // Who is there

  beat(given: EngineBeat): Promise<ClusterView> {
    const beat = this.#host.own(given);
    return this.#host.write(() => {
      const nowMs = this.#host.nowMs();
      const known = this.#members.get(beat.id);
      if (known === undefined) {
        this.#members.set(beat.id, { beat, beatAtMs: nowMs, membership: 'member', drainRequested: false });
      } else if (known.membership === 'member') {
        known.beat = beat;
        known.beatAtMs = nowMs;
      }
      this.#dropGone(nowMs);
      const engines = [...this.#members.values()].map((member) => rowOf(member, nowMs));
      const self = engines.find(({ id, membership }) => id === beat.id && membership === 'member') ?? null;
      return { self, engines, definitionsTurn: this.#host.definitionsTurn(), admission: this.#host.admission() };
    });
  }

  #dropGone(nowMs: number): void {
    for (const [id, { membership, beatAtMs }] of this.#members) {
      if (membership === 'member' || nowMs - beatAtMs < GONE_KEPT_MS) continue;
      if (this.#live(({ header }) => header.owner.engine === id).length === 0) this.#members.delete(id);
    }
  }

  declareDead(engineId: string): Promise<boolean> {
    return this.#host.write(() => {
      const member = this.#members.get(engineId);
      if (member === undefined) return false;
      if (member.membership !== 'member') return true;
      if (this.#host.nowMs() - member.beatAtMs <= member.beat.leaseMs) return false;
      member.membership = 'dead';
      return true;
    });
  }

  leave(engineId: string): Promise<void> {
    return this.#host.write(() => {
      const member = this.#members.get(engineId);
      if (member?.membership === 'member') member.membership = 'left';
    });
  }

  requestDrain(engineId: string): Promise<boolean> {
    return this.#host.write(() => {
      const member = this.#members.get(engineId);
      if (member?.membership !== 'member') return false;
      member.drainRequested = true;
      return true;
    });
  }

  // Who owns what

  listOrphans(from: string[], limit: number): Promise<string[]> {
    return this.#host.read(() => {
      const orphans = this.#live(({ header }) => from.includes(header.owner.engine));
      return [...new Set(orphans.map(rootOf))].sort(compare).slice(0, limit);
    });
  }

  takeOver(roots: string[], from: string[], to: string): Promise<RecoverableExecution[]> {
    return this.#host.write(() => {
      const owned: Entry[] = [];
      for (const root of new Set(roots)) {
        const entry = this.#host.entries.get(root);
        const owner = entry?.header.owner.engine ?? to;
        if (entry !== undefined && !hasEnded(entry) && owner !== to && !from.includes(owner)) continue;
        const tree = this.#live((each) => rootOf(each) === root);
        for (const each of tree) if (from.includes(each.header.owner.engine)) this.#own(each, to);
        owned.push(...tree.filter(({ header }) => header.owner.engine === to));
      }
      return owned.sort(parentsFirst).map(recoverable);
    });
  }

  acceptOffer(executionId: string, to: string): Promise<RecoverableExecution | null> {
    return this.#host.write(() => {
      const entry = this.#host.entries.get(executionId);
      if (entry === undefined || hasEnded(entry)) return null;
      if (entry.offer?.to === to) this.#own(entry, to);
      // Accepted before, and its answer was lost.
      return entry.offer === null && entry.header.owner.engine === to ? recoverable(entry) : null;
    });
  }

  takeBackOffers(engine: string, olderThanMs: number): Promise<RecoverableExecution[]> {
    return this.#host.write(() => {
      const beforeMs = this.#host.nowMs() - olderThanMs;
      const back = this.#live(
        ({ header, offer }) => header.owner.engine === engine && offer !== null && offer.atMs < beforeMs,
      );
      for (const entry of back) entry.offer = null;
      return back.sort(parentsFirst).map(recoverable);
    });
  }

  #own(entry: Entry, to: string): void {
    entry.header.owner = { engine: to, epoch: entry.header.owner.epoch + 1 };
    entry.offer = null;
    for (const task of entry.tasks.values()) task.engine = to;
  }

  #live(condition: (entry: Entry) => boolean): Entry[] {
    return [...this.#host.entries.values()].filter((entry) => !hasEnded(entry) && condition(entry));
  }

  // What waits

  waiting(engine: string, limit: number): Promise<Waiting> {
    return this.#host.read(() => {
      const own = this.#live(({ header }) => header.owner.engine === engine);
      const intents = own
        .flatMap(({ header: { id, stop } }) => (stop === null ? [] : [{ executionId: id, ...stop }]))
        .slice(0, limit);
      const offered = this.#live(({ offer }) => offer?.to === engine)
        .map(({ header }) => header.id)
        .slice(0, limit);
      const triggers = own
        .flatMap((entry) => [...entry.triggers.values()].filter(({ id }) => !entry.delivered.has(id)))
        .sort((a, b) => a.atMs - b.atMs || compare(a.id, b.id))
        .slice(0, limit);
      return { intents, offered, triggers };
    });
  }

  markDelivered(triggerIds: string[]): Promise<void> {
    return this.#host.write(() => {
      for (const { triggers, delivered } of this.#host.entries.values())
        for (const id of triggerIds) if (triggers.has(id)) delivered.add(id);
    });
  }

  takePlace(project: string, workflow: string, executionId: string, max: number): Promise<boolean> {
    return this.#host.write(() => {
      const places = this.#places.get(nameKey(project, workflow)) ?? new Set();
      this.#places.set(nameKey(project, workflow), places);
      for (const id of places) {
        const holder = this.#host.entries.get(id);
        if (holder === undefined || hasEnded(holder)) places.delete(id);
      }
      if (places.has(executionId)) return true;
      if (places.size >= max) return false;
      places.add(executionId);
      return true;
    });
  }

  givePlaceBack(project: string, workflow: string, executionId: string): Promise<void> {
    return this.#host.write(() => {
      this.#places.get(nameKey(project, workflow))?.delete(executionId);
    });
  }

  // Tasks

  listQueued(capabilities: string[], project: string | null, notOf: string, limit: number): Promise<TaskRow[]> {
    return this.#host.read(() =>
      this.#live(() => true)
        .flatMap(({ tasks }) => [...tasks.values()])
        .filter(
          ({ capability, claim, engine, task }) =>
            claim === null &&
            engine !== notOf &&
            capabilities.includes(capability) &&
            (project === null || task.project === project),
        )
        .sort((a, b) => a.queuedAtMs - b.queuedAtMs || compare(a.id, b.id))
        .slice(0, limit),
    );
  }

  readTasks(ids: string[]): Promise<TaskState[]> {
    return this.#host.read(() =>
      this.#tasks(ids).map(({ entry, task: { id, claim, report = null } }) => {
        return { id, claim, report, stopping: entry.header.stop !== null };
      }),
    );
  }

  getTasks(ids: string[]): Promise<TaskRow[]> {
    return this.#host.read(() => this.#tasks(ids).map(({ task }) => task));
  }

  storeReport(taskId: string, tokenHash: string, given: WorkReport): Promise<'stored' | 'gone' | 'refused'> {
    const report = jsonCopy(given);
    return this.#host.write(() => {
      const [found] = this.#tasks([taskId]);
      if (found === undefined) return 'gone';
      const { task } = found;
      if (task.claim?.tokenHash !== tokenHash) return 'refused';
      task.report ??= report;
      return 'stored';
    });
  }

  moveClaims(taskIds: string[], worker: string, via: string): Promise<void> {
    return this.#host.write(() => {
      for (const { task } of this.#tasks(taskIds)) if (task.claim?.worker === worker) task.claim.via = via;
    });
  }

  #tasks(ids: string[]): { entry: Entry; task: TaskRow }[] {
    return ids.flatMap((id) => {
      const entry = this.#host.entries.get(id.slice(0, id.indexOf('/')));
      const task = entry?.tasks.get(id);
      return entry === undefined || task === undefined || hasEnded(entry) ? [] : [{ entry, task }];
    });
  }
}

function rowOf({ beat, beatAtMs, membership, drainRequested }: Member, nowMs: number): EngineRow {
  return { ...beat, silentMs: Math.max(0, nowMs - beatAtMs), membership, drainRequested };
}

function rootOf({ header }: Entry): string {
  return header.ancestors[0] ?? header.id;
}

function parentsFirst(a: Entry, b: Entry): number {
  return a.header.ancestors.length - b.header.ancestors.length || a.turn - b.turn;
}
