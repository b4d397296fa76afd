import type { WorkerItem, WorkerLink } from '../ports/workers.ts';
import type { Timer } from './timers.ts';

/** A worker or agent of another process, connected or awaited. */
export interface Worker {
  link: WorkerLink;
  connected: boolean;
  /** By a clock that nobody sets. */
  heardAtMs: number;
  /** Tasks it holds or is being given: its slots become free by proof of exit. */
  held: Set<string>;
  /** What nobody wants any more and still occupies a slot there. */
  runsOn: Set<string>;
  leaseTimer: Timer | null;
}

/** The workers and agents that an engine knows, and their free slots. */
export class WorkerTable {
  readonly #workers = new Map<string, Worker>();

  get size(): number {
    return this.#workers.size;
  }

  get(id: string): Worker | undefined {
    return this.#workers.get(id);
  }

  has(id: string): boolean {
    return this.#workers.has(id);
  }

  delete(id: string): void {
    this.#workers.delete(id);
  }

  [Symbol.iterator](): IterableIterator<Worker> {
    return this.#workers.values();
  }

  add(link: WorkerLink, connected: boolean, nowMs: number): Worker {
    const worker: Worker = {
      link,
      connected,
      heardAtMs: nowMs,
      held: new Set(),
      runsOn: new Set(),
      leaseTimer: null,
    };
    this.#workers.set(link.workerId, worker);
    return worker;
  }

  /** One that holds a task of this capability, and has not been heard of here. */
  addAbsent(id: string, name: string, capability: string, nowMs: number): Worker {
    const absent: WorkerLink = {
      workerId: id,
      name,
      kind: capability.startsWith('agent:') ? 'agent' : 'worker',
      capabilities: [capability],
      slots: 0,
      project: null,
      run: () => undefined,
      cancel: () => undefined,
      close: () => undefined,
    };
    return this.add(absent, false, nowMs);
  }

  /** Who has most free slots of those that may take it. */
  freest(capability: string, project: string): Worker | null {
    let best: Worker | null = null;
    for (const worker of this.#workers.values()) {
      const { link } = worker;
      if (!worker.connected || !link.capabilities.includes(capability)) continue;
      if (link.project !== null && link.project !== project) continue;
      const free = freeSlots(worker);
      if (free > 0 && (best === null || free > freeSlots(best))) best = worker;
    }
    return best;
  }

  anyFree(capability: string): boolean {
    for (const worker of this.#workers.values()) {
      if (worker.connected && worker.link.capabilities.includes(capability) && freeSlots(worker) > 0) return true;
    }
    return false;
  }

  offers(capability: string): boolean {
    for (const { connected, link } of this.#workers.values()) {
      if (connected && link.capabilities.includes(capability)) return true;
    }
    return false;
  }

  /** For people. */
  items(nowMs: number): WorkerItem[] {
    return [...this.#workers.values()].map(({ link, held, connected, heardAtMs }) => ({
      id: link.workerId,
      name: link.name,
      kind: link.kind,
      capabilities: [...link.capabilities],
      slots: link.slots,
      held: held.size,
      connected,
      silentMs: Math.max(0, Math.round(nowMs - heardAtMs)),
    }));
  }
}

export function freeSlots({ link, held, runsOn }: Worker): number {
  return link.slots - held.size - runsOn.size;
}
