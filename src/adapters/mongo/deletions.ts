import type { Filter } from 'mongodb';
import { LIVE, startIdOf } from './codec.ts';
import type { Connection } from './connection.ts';
import type { ExecutionDocument } from './documents.ts';
import { descendantsOf } from './family.ts';
import type { Collections } from './schema.ts';
import type { Texts } from './texts.ts';

/** Documents of one command. */
const BATCH_MAX = 500;

/**
 * Deletion of ended executions with all that belongs to them.
 *
 * No transaction: an execution that has ended takes no more children, so a family that has ended stays so. Its root's
 * header goes last, so that what a crash leaves can be deleted again.
 */
export class Deletions {
  readonly #connection: Connection;
  readonly #collections: Collections;
  readonly #texts: Texts;

  constructor(connection: Connection, collections: Collections, texts: Texts) {
    this.#connection = connection;
    this.#collections = collections;
    this.#texts = texts;
  }

  async delete(id: string): Promise<'deleted' | 'missing' | 'live'> {
    const { executions } = this.#collections;
    const projection = { status: 1, project: 1, uniqueKey: 1 };
    const root = await this.#connection.run(() => executions.findOne({ _id: id }, { projection }));
    if (root === null) return 'missing';
    const descendants = await this.#connection.run(() => descendantsOf(executions, id));
    // The deepest first: what a crash leaves is still found from the root.
    const family = [root, ...descendants].reverse();
    if (family.some(({ status }) => status < LIVE)) return 'live';
    for (let index = 0; index < family.length; index += BATCH_MAX) {
      const batch = family.slice(index, index + BATCH_MAX);
      const ids = batch.map(({ _id }) => _id);
      const startIds = batch.flatMap(({ project, uniqueKey }) =>
        uniqueKey === undefined ? [] : [startIdOf(project, uniqueKey)],
      );
      await this.#deleteParts(ids, startIds);
      const members = ids.filter((each) => each !== id);
      if (members.length > 0) await this.#connection.run(() => executions.deleteMany({ _id: { $in: members } }));
    }
    await this.#connection.run(() => executions.deleteOne({ _id: id }));
    return 'deleted';
  }

  async #deleteParts(ids: string[], startIds: string[]): Promise<void> {
    const { events, results, starts } = this.#collections;
    const ofThem = { x: { $in: ids } };
    await Promise.all([
      this.#connection.run(() => events.deleteMany(ofThem)),
      this.#connection.run(() => results.deleteMany(ofThem)),
      this.#texts.dropAll(ids),
      ...(startIds.length === 0
        ? []
        : [this.#connection.run(() => starts.deleteMany({ _id: { $in: startIds }, x: { $in: ids } }))]),
    ]);
  }

  async deleteEndedBefore(beforeMs: number, limit: number): Promise<number> {
    const oldRoots = { isRoot: true, $and: [{ ended: { $type: 'number' } }, { ended: { $lt: beforeMs } }] };
    const roots = await this.#connection.run(() =>
      this.#collections.executions
        .find(oldRoots as Filter<ExecutionDocument>, { projection: { _id: 1 } })
        .sort({ ended: 1 })
        .limit(limit + BATCH_MAX)
        .toArray(),
    );
    let deleted = 0;
    for (const { _id } of roots) {
      if (deleted >= limit) break;
      if ((await this.delete(_id)) === 'deleted') deleted += 1;
    }
    return deleted;
  }
}
