import type { ExecutionHost } from './execution-host.ts';

/** Places among the executions of a workflow that run at once, where several engines share them. */
export interface Places {
  take(host: ExecutionHost): Promise<boolean>;
  giveBack(host: ExecutionHost): void;
}

/**
 * Who may start: oldest first, within the engine's and the workflow's limits.
 *
 * Children, and executions with nothing live but held or delayed nodes, do not count against the engine's.
 */
export class Admission {
  readonly #maxRunning: number;
  readonly #queue: ExecutionHost[] = [];
  /** Waiting for their workflow's `concurrency`, by workflow. */
  readonly #blocked = new Map<string, ExecutionHost[]>();
  /** Begun and not ended, of workflows with `concurrency`. */
  readonly #begun = new Map<string, number>();
  /** Of those that wait: whoever may have a place among the engines', and does not know. */
  readonly #mayHavePlace = new Set<ExecutionHost>();
  /** Executions that count. */
  #running = 0;
  #waiting = 0;
  readonly #open: () => boolean;
  readonly #places: Places | null;

  /** `places` null: this engine's executions are all there are. */
  constructor(maxRunning: number, open: () => boolean, places: Places | null = null) {
    this.#maxRunning = maxRunning;
    this.#open = open;
    this.#places = places;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Executions that count, and those that wait. */
  get load(): number {
    return this.#running + this.#waiting;
  }

  /** Begun or waiting executions of a workflow with `concurrency`. */
  loadOfWorkflow(project: string, name: string): number {
    const key = `${project}/${name}`;
    return (this.#begun.get(key) ?? 0) + (this.#blocked.get(key)?.length ?? 0);
  }

  /** `restored`: another engine may have found a place for it. */
  enqueue(host: ExecutionHost, restored = false): void {
    if (restored && this.#places !== null && host.workflow.concurrency !== null) this.#mayHavePlace.add(host);
    this.#waiting += 1;
    this.#queue.push(host);
    this.admit();
  }

  /** A restored execution that had begun before. */
  countBegun(host: ExecutionHost): void {
    this.#count(host, 1);
    this.recount(host);
  }

  /** Starts whoever may start now. */
  admit(): void {
    while (this.#open() && this.#running < this.#maxRunning) {
      const host = this.#queue.shift();
      if (host === undefined) return;
      if (!waits(host)) {
        this.#waiting -= 1;
        continue;
      }
      const max = host.workflow.concurrency?.max ?? Number.POSITIVE_INFINITY;
      if ((this.#begun.get(keyOf(host)) ?? 0) >= max) {
        const list = this.#blocked.get(keyOf(host));
        if (list === undefined) this.#blocked.set(keyOf(host), [host]);
        else list.push(host);
        continue;
      }
      this.#waiting -= 1;
      this.#count(host, 1);
      host.counted = true;
      this.#running += 1;
      if (this.#places !== null && host.workflow.concurrency !== null) this.#askForPlace(host, this.#places);
      else host.enter(() => host.begin());
    }
  }

  /** It has everything but a place among those of the other engines. */
  #askForPlace(host: ExecutionHost, places: Places): void {
    places.take(host).then(
      (taken) => {
        this.#mayHavePlace.delete(host);
        if (taken && waits(host)) host.enter(() => host.begin());
        else if (waits(host)) this.#block(host);
        if (taken || this.#mayHavePlace.size === 0) return;
        const key = keyOf(host);
        if (this.#blocked.get(key)?.some((other) => this.#mayHavePlace.has(other)) === true) this.#unblock(key);
      },
      () => {
        if (!waits(host)) return;
        this.#mayHavePlace.add(host);
        this.#block(host);
      },
    );
  }

  /** Others have the places: it waits until one may be free. */
  #block(host: ExecutionHost): void {
    this.#waiting += 1;
    this.#count(host, -1);
    host.counted = false;
    this.#running -= 1;
    const list = this.#blocked.get(keyOf(host));
    if (list === undefined) this.#blocked.set(keyOf(host), [host]);
    else list.unshift(host);
  }

  /** Another engine gave one back. */
  placeFreed(project: string, workflow: string): void {
    this.#unblock(`${project}/${workflow}`);
  }

  /** Places may have become free without a word. */
  askAgain(): void {
    for (const key of [...this.#blocked.keys()]) this.#unblock(key);
  }

  #unblock(key: string): void {
    const waiting = this.#blocked.get(key);
    const max = waiting?.[0]?.workflow.concurrency?.max ?? 0;
    if (waiting === undefined || (this.#begun.get(key) ?? 0) >= max) return;
    const next = this.#nextOf(waiting);
    if (waiting.length === 0) this.#blocked.delete(key);
    if (next === undefined) return;
    this.#queue.unshift(next);
    this.admit();
  }

  /** The oldest; before it whoever may have the place that it would wait for in vain. */
  #nextOf(waiting: ExecutionHost[]): ExecutionHost | undefined {
    if (this.#mayHavePlace.size === 0) return waiting.shift();
    const index = waiting.findIndex((host) => this.#mayHavePlace.has(host));
    return waiting.splice(Math.max(0, index), 1)[0];
  }

  /** Its parked state may have changed, or it has ended. */
  recount(host: ExecutionHost): void {
    const counts = !host.over && host.header.status === 'Running' && host.header.parent === null && host.busy > 0;
    if (counts === host.counted) return;
    host.counted = counts;
    this.#running += counts ? 1 : -1;
    if (!counts && this.#queue.length > 0) this.admit();
  }

  /** It has ended, or left this engine. */
  release(host: ExecutionHost): void {
    const hadPlace = host.hasPlace;
    this.#mayHavePlace.delete(host);
    if (hadPlace) this.#count(host, -1);
    const ended = host.header.endedAtMs !== null;
    if (hadPlace && ended && host.workflow.concurrency !== null && host.header.parent === null)
      this.#places?.giveBack(host);
    this.recount(host);
    const waiting = this.#blocked.get(keyOf(host));
    if (!hadPlace && host.header.startedAtMs === null && host.header.parent === null) this.#withdraw(host);
    if (!hadPlace || waiting === undefined) return;
    // One place became free: the oldest of those that wait for it takes it.
    let next = this.#nextOf(waiting);
    for (; next !== undefined && !waits(next); next = this.#nextOf(waiting)) this.#waiting -= 1;
    if (waiting.length === 0) this.#blocked.delete(keyOf(host));
    if (next === undefined) return;
    this.#queue.unshift(next);
    this.admit();
  }

  /** One that waited will not begin. */
  #withdraw(host: ExecutionHost): void {
    for (const list of [this.#queue, this.#blocked.get(keyOf(host)) ?? []]) {
      const index = list.indexOf(host);
      if (index < 0) continue;
      list.splice(index, 1);
      this.#waiting -= 1;
    }
    if (this.#blocked.get(keyOf(host))?.length === 0) this.#blocked.delete(keyOf(host));
  }

  #count(host: ExecutionHost, delta: 1 | -1): void {
    host.hasPlace = delta > 0;
    if (host.workflow.concurrency === null || host.header.parent !== null) return;
    const key = keyOf(host);
    const count = (this.#begun.get(key) ?? 0) + delta;
    if (count <= 0) this.#begun.delete(key);
    else this.#begun.set(key, count);
  }
}

/** Neither begun, nor stopped while it waited. */
function waits({ over, header }: ExecutionHost): boolean {
  return !over && header.status === 'Pending' && header.stop === null;
}

function keyOf(host: ExecutionHost): string {
  return `${host.header.project}/${host.header.workflow.name}`;
}
