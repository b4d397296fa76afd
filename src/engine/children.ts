import type { Verdict } from '../../machines/events.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { ExecutionStatus, Json } from '../wire.ts';
import type { ExecutionHost } from './execution-host.ts';
import { loopPlaces } from './identity.ts';
import type { Slot } from './slot.ts';

/** What a parent needs to know of a child that ended. */
export interface ChildEnd {
  id: string;
  status: ExecutionStatus;
  error: string | null;
  errorCode: string | null;
  stopped: boolean;
}

/**
 * The child executions of one attempt of a `foreach` or `workflow` node: starts them within `concurrency`,
 * counts their ends, reports the node's.
 *
 * A child's place in its parent is its unique key, so a restart finds every child that was created.
 */
export class ChildrenDriver {
  readonly #host: ExecutionHost;
  readonly #slot: Slot;
  readonly #attempt: number;
  readonly total: number;
  readonly #items: readonly unknown[] | null;
  readonly #concurrency: number;
  readonly #ends: (ChildEnd | undefined)[];
  readonly #ids: (string | undefined)[];
  readonly running = new Map<string, number>();
  #next = 0;
  #complete = 0;
  #failed = 0;
  #failure: Verdict | null = null;
  #retryable = true;
  /** After a restart it is not known yet which children there are. */
  #finding = false;
  over = false;

  /** `items` null: one child of another workflow. */
  constructor(host: ExecutionHost, slot: Slot, items: readonly unknown[] | null) {
    this.#host = host;
    this.#slot = slot;
    this.#attempt = slot.attempt;
    this.#items = items;
    this.total = items === null ? 1 : items.length;
    this.#concurrency = items === null ? 1 : (slot.node.keys.concurrency ?? 10);
    this.#ends = new Array<ChildEnd | undefined>(this.total).fill(undefined);
    this.#ids = new Array<string | undefined>(this.total).fill(undefined);
  }

  counts(): { total: number; running: number; complete: number; failed: number } {
    return { total: this.total, running: this.running.size, complete: this.#complete, failed: this.#failed };
  }

  #existing(): ReturnType<ExecutionStore['listChildren']> {
    const { node, scope } = this.#slot;
    const { header, env } = this.#host;
    return env.store.listChildren(header.id, node.path, loopPlaces(scope.iterations), this.#attempt);
  }

  /** After a restart: takes in the children that exist, then goes on. */
  async resume(): Promise<void> {
    const { store } = this.#host.env;
    this.#finding = true;
    const found = await this.#existing();
    if (this.over) return;
    for (const child of found) {
      const index = child.itemIndex ?? 0;
      if (this.#ids[index] !== undefined || index >= this.total) continue;
      this.#ids[index] = child.id;
      if (child.status === 'Pending' || child.status === 'Running') this.running.set(child.id, index);
      else this.#count(index, child);
    }
    for (const [id, index] of [...this.running]) {
      // It may have ended while this was read.
      if (this.#host.env.hostOf(id) === null) {
        const stored = await store.getHeader(id);
        if (stored !== null && stored.endedAtMs !== null && this.running.delete(id)) {
          this.#count(index, { ...stored, stopped: stored.stop !== null });
        }
      }
    }
    this.#finding = false;
    this.pump();
  }

  /** Starts what may start; reports the node's end when nothing runs any more. */
  pump(): void {
    if (this.over || this.#finding) return;
    let started = false;
    while (this.#failure === null && this.running.size < this.#concurrency && this.#next < this.total) {
      const index = this.#next;
      this.#next += 1;
      if (this.#ids[index] !== undefined) continue;
      this.#start(index);
      started = true;
    }
    // With the commit of the end that made room, where there was one.
    if (started && this.total > 1) this.#host.childrenChanged(this.#slot);
    if (this.running.size === 0 && (this.#next >= this.total || this.#failure !== null)) this.#finish();
  }

  #start(index: number): void {
    const id = this.#host.env.ids.next();
    this.#ids[index] = id;
    this.running.set(id, index);
    const place = this.#items === null ? null : { item: this.#items[index], itemIndex: index };
    this.#host.env.createChild(this.#host, this.#slot, id, place).then(
      (outcome) => {
        if (outcome.kind === 'created') {
          if (this.over) this.#host.lateChild(outcome.id);
          if (outcome.id !== id && this.running.delete(id)) {
            this.#ids[index] = outcome.id;
            this.running.set(outcome.id, index);
          }
          return;
        }
        if (outcome.kind === 'ended') {
          this.running.delete(id);
          this.#ids[index] = outcome.end.id;
          this.#end(index, outcome.end);
          return;
        }
        if (outcome.kind === 'refused') {
          // The parent is stopping or has ended: its own end is on its way.
          this.running.delete(id);
          return;
        }
        this.running.delete(id);
        this.#ids[index] = undefined;
        this.#end(index, { id, status: 'Failed', error: outcome.error, errorCode: outcome.errorCode, stopped: false });
      },
      () => this.#findOut(index, id),
    );
  }

  /** The store did not say whether this child was created. Until it does the node does not end. */
  #findOut(index: number, id: string): void {
    this.#host.env.timers.after(500, () => {
      if (this.over) return;
      this.#existing().then(
        (found) => {
          if (this.over || !this.running.delete(id)) return;
          this.#ids[index] = undefined;
          // Once more where it exists: its unique key leads to it.
          if (found.some(({ itemIndex }) => (itemIndex ?? 0) === index)) {
            this.#start(index);
            return;
          }
          this.#next = Math.min(this.#next, index);
          this.pump();
        },
        () => this.#findOut(index, id),
      );
    });
  }

  /** Under `failFast` a node failed: no further item starts, and what runs ends by itself. `pump` follows. */
  startNoMore(verdict: Verdict): void {
    if (this.over || this.#next >= this.total) return;
    this.#failure ??= verdict;
    this.#retryable = false;
  }

  /** A child's terminal commit is durable. */
  ended(child: ChildEnd): void {
    const index = this.running.get(child.id);
    if (index === undefined || this.over) return;
    this.running.delete(child.id);
    this.#end(index, child);
  }

  #end(index: number, child: ChildEnd): void {
    this.#count(index, child);
    if (!this.over) {
      this.#host.childrenChanged(this.#slot);
      this.pump();
    }
  }

  #count(index: number, child: ChildEnd): void {
    this.#ends[index] = child;
    if (child.status === 'Complete') {
      this.#complete += 1;
      return;
    }
    this.#failed += 1;
    if (this.#items !== null && this.#slot.node.keys.onItemError === 'continue') return;
    if (this.#failure !== null) return;
    if (child.stopped) {
      this.#failure = { error: `child execution ${child.id} was stopped`, errorCode: 'FS_CHILD_STOPPED' };
      this.#retryable = false;
      return;
    }
    const where = this.#items === null ? '' : `item ${index}: `;
    this.#failure = { error: `${where}${child.error ?? 'failed'}`, errorCode: 'FS_CHILD_FAILED' };
  }

  #finish(): void {
    this.over = true;
    if (this.#failure !== null) {
      this.#host.workFailed(this.#slot, this.#attempt, this.#failure.error, this.#failure.errorCode, this.#retryable);
      return;
    }
    if (this.total === 0) {
      this.#host.workCompleted(this.#slot, this.#attempt, []);
      return;
    }
    const ids = this.#ids.map((id) => id ?? '');
    this.#host.env.store.readOutputs(ids).then(
      (outputs) => {
        const value =
          this.#items === null
            ? (outputs[0] ?? null)
            : outputs.map((output, index) => {
                const end = this.#ends[index];
                if (end?.status === 'Complete') return output;
                return {
                  error: end?.stopped === true ? `child execution ${end.id} was stopped` : (end?.error ?? null),
                };
              });
        this.#host.workCompleted(this.#slot, this.#attempt, value as Json);
      },
      () => {
        this.over = false;
        this.#host.env.timers.after(500, () => this.pump());
      },
    );
  }

  /** The node ended without its children: they end with it. A stop has its own intent for each of them. */
  abandon(verdict: Verdict | null): void {
    this.over = true;
    if (verdict === null) return;
    for (const id of this.running.keys()) this.#host.env.endChild(id, verdict);
    this.#host.env.endChildrenOf(this.#slot, verdict);
  }
}
