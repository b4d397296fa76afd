import { messageOf } from '../errors.ts';
import type { TaskRow } from '../ports/task-queue.ts';
import type { RemoteTasksOptions } from './remote-tasks.ts';
import { freeSlots } from './worker-table.ts';

/** Between two words that a capability is waited for. */
const HINT_MS = 25;
/** A task that was refused is not tried again for so long. */
const REFUSED_MS = 5_000;
/** Tasks of one call of the store. */
const BATCH = 1_000;

/** Free slots of workers that may take the same tasks. */
interface Group {
  project: string | null;
  capabilities: string[];
  free: number;
}

type TaskSearchOptions = Pick<
  RemoteTasksOptions,
  'engine' | 'cluster' | 'peers' | 'tell' | 'table' | 'clock' | 'timers' | 'log'
> & {
  /** False: no worker here has a slot for it. */
  take(row: TaskRow): boolean;
};

/** Looks for queued tasks of other engines where workers of this one have free slots, and tells of its own. */
export class TaskSearch {
  readonly #options: TaskSearchOptions;
  #searching = false;
  #again = false;
  #closed = false;
  /** Capabilities for which the last search left nothing, by the project that was searched. */
  readonly #searched = new Map<string | null, Set<string>>();
  /** Until when a task that was refused is passed over. */
  readonly #refused = new Map<string, number>();
  /** Capabilities told of within the last moment; true: to be told of again after it. */
  readonly #told = new Map<string, boolean>();

  constructor(options: TaskSearchOptions) {
    this.#options = options;
  }

  close(): void {
    this.#closed = true;
  }

  /** Another engine says that such tasks wait. */
  heard(capability: string): void {
    for (const capabilities of this.#searched.values()) capabilities.delete(capability);
    if (this.#options.table.free(capability)) this.find();
  }

  /** The queue of a capability was gone through; `waiting`: nobody here takes what is left. */
  pumped(capability: string, waiting: boolean): void {
    if (waiting) this.#tellOf(capability);
    if (this.#options.table.free(capability) && this.#mayFind(capability)) this.find();
  }

  /** The store did not let it be claimed: where it is listed again, others come first. */
  refused(id: string): void {
    this.#refused.set(id, this.#options.clock.nowMs() + REFUSED_MS);
  }

  #tellOf(capability: string): void {
    const { clock, timers, tell, peers } = this.#options;
    if (this.#closed || !peers.hasOthers()) return;
    if (this.#told.has(capability)) {
      this.#told.set(capability, true);
      return;
    }
    this.#told.set(capability, false);
    clock.defer(() => tell({ kind: 'task.queued', capability }));
    timers.after(HINT_MS, () => {
      const again = this.#told.get(capability) === true;
      this.#told.delete(capability);
      if (again) this.#tellOf(capability);
    });
  }

  /** Somebody may have left such a task, for one of the slots that are free. */
  #mayFind(capability: string): boolean {
    for (const worker of this.#options.table.workers) {
      const { connected, link } = worker;
      if (!connected || freeSlots(worker) <= 0 || !link.capabilities.includes(capability)) continue;
      if (this.#searched.get(link.project)?.has(capability) !== true) return true;
    }
    return false;
  }

  find(): void {
    if (this.#closed) return;
    this.#again = this.#searching;
    if (this.#searching) return;
    this.#searching = true;
    this.#options.clock.defer(() => {
      this.#find()
        .catch((error: unknown) => {
          this.#options.log.warn({ error: messageOf(error) }, 'tasks of other engines were not found');
        })
        .then(() => {
          this.#searching = false;
          if (this.#again) this.find();
        });
    });
  }

  async #find(): Promise<void> {
    const { cluster, engine, clock, take } = this.#options;
    const nowMs = clock.nowMs();
    for (const [id, untilMs] of this.#refused) if (untilMs <= nowMs) this.#refused.delete(id);
    for (const { project, capabilities, free } of this.#groups()) {
      const searched = this.#searched.get(project) ?? new Set();
      this.#searched.set(project, searched);
      for (const capability of capabilities) searched.add(capability);
      // One more than it may take: then there is something to look for when the next slot is free.
      const limit = Math.min(free + this.#refused.size + 1, BATCH);
      const rows = await cluster.listQueued(capabilities, project, engine, limit);
      if (this.#closed) return;
      for (const row of rows) if (!this.#refused.has(row.id) && !take(row)) searched.delete(row.capability);
      if (rows.length === limit) for (const capability of capabilities) searched.delete(capability);
    }
  }

  /** One for workers that offer the same: so no task is kept waiting behind others that cannot be taken. */
  #groups(): Iterable<Group> {
    const { workers, free } = this.#options.table;
    const groups = new Map<string, Group>();
    for (const worker of workers) {
      const slots = freeSlots(worker);
      if (!worker.connected || slots <= 0) continue;
      const { project } = worker.link;
      const capabilities = worker.link.capabilities.filter((capability) => free(capability)).sort();
      if (capabilities.length === 0) continue;
      const key = JSON.stringify([project, capabilities]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { project, capabilities, free: slots });
      else group.free += slots;
    }
    return groups.values();
  }
}
