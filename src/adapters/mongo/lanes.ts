import type { AnyBulkWriteOperation, Collection, Document } from 'mongodb';
import { MongoBulkWriteError } from 'mongodb';
import { Again, type Connection, passes } from './connection.ts';

/** What one bulk write takes, and how many are under way at once: more of either gained nothing. */
const BATCH_MAX = 64;
const LANES = 4;
/**
 * Fewer wait for a bulk that is under way to end, but for no longer than this. A command costs an engine about 0.8 ms, a
 * write in it 0.04: below saturation bulks that leave at once hold two or three writes, and each costs a third more.
 */
const WORTH_A_LANE = 16;
const PATIENCE_MS = 25;

interface Write<T extends Document> {
  operations: AnyBulkWriteOperation<T>[];
  resolve(applied: boolean): void;
  reject(error: unknown): void;
}

/**
 * Writes to documents of one collection that share bulk writes.
 *
 * What is written in one turn of the event loop leaves together, and with what came while another bulk was under way,
 * until that is worth a lane of its own. The server tells of a bulk only how many of its
 * updates found their document: where that is not all of them, each answer is `false`, "perhaps not", and the caller
 * looks for itself.
 */
export class Lanes<T extends Document> {
  readonly #connection: Connection;
  readonly #collection: Collection<T>;
  #queue: Write<T>[] = [];
  #busy = 0;
  #scheduled = false;
  /** Runs while few wait. */
  #patience: NodeJS.Timeout | null = null;

  constructor(connection: Connection, collection: Collection<T>) {
    this.#connection = connection;
    this.#collection = collection;
  }

  /**
   * true: each of `operations` found its document. Several are applied in their order, all or the first ones.
   *
   * @throws FS_UNAVAILABLE unknown whether it was applied
   */
  write(...operations: AnyBulkWriteOperation<T>[]): Promise<boolean> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ operations, resolve, reject });
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0 || this.#busy >= LANES) return;
    if (this.#fewWait()) {
      this.#patience ??= setTimeout(() => {
        this.#patience = null;
        if (this.#queue.length > 0 && this.#busy < LANES) void this.#send(this.#take());
        this.#schedule();
      }, PATIENCE_MS);
      return;
    }
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      while (this.#queue.length > 0 && this.#busy < LANES && !this.#fewWait()) void this.#send(this.#take());
      this.#schedule();
    });
  }

  #fewWait(): boolean {
    return this.#busy > 0 && this.#queue.length < WORTH_A_LANE;
  }

  /** The next batch; a run of several operations on one document has one of its own, because it needs its order. */
  #take(): Write<T>[] {
    let count = 0;
    while (count < BATCH_MAX && this.#queue[count]?.operations.length === 1) count += 1;
    return this.#queue.splice(0, Math.max(1, count));
  }

  async #send(batch: Write<T>[]): Promise<void> {
    this.#busy += 1;
    if (this.#patience !== null) clearTimeout(this.#patience);
    this.#patience = null;
    const [first] = batch;
    const ordered = batch.length === 1 && (first?.operations.length ?? 0) > 1;
    const operations = batch.length === 1 && first !== undefined ? first.operations : batch.map((w) => w.operations[0]);
    try {
      const all = await this.#connection.run(() => this.#bulk(operations as AnyBulkWriteOperation<T>[], ordered));
      for (const write of batch) write.resolve(all);
    } catch (error) {
      for (const write of batch) write.reject(error);
    } finally {
      this.#busy -= 1;
      this.#schedule();
    }
  }

  async #bulk(operations: AnyBulkWriteOperation<T>[], ordered: boolean): Promise<boolean> {
    try {
      const { matchedCount, insertedCount } = await this.#collection.bulkWrite(operations, { ordered });
      return matchedCount + insertedCount === operations.length;
    } catch (error) {
      // A key that was there already, say: what else the bulk held was applied, unless the whole of it is in doubt.
      if (!(error instanceof MongoBulkWriteError) || passes(error)) throw error;
      const writeErrors = Array.isArray(error.writeErrors) ? error.writeErrors : [error.writeErrors];
      if (writeErrors.length === 0) throw error;
      if (error.result.getWriteConcernError() !== undefined) throw new Again(error);
      return false;
    }
  }
}
