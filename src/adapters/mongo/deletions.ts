import type { Filter } from 'mongodb';
import { LIVE, startIdOf } from './codec.ts';
import type { Connection } from './connection.ts';
import type { ExecutionDocument } from './documents.ts';
import { descendantsOf } from './family.ts';
import type { Collections } from './schema.ts';
import type { Texts } from './texts.ts';

/** Executions of one command. */
const BATCH_MAX = 500;
const FIELDS = { status: 1, project: 1, uniqueKey: 1 } as const;

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
    const root = await this.#connection.run(() => executions.findOne({ _id: id }, { projection: FIELDS }));
    if (root === null) return 'missing';
    const generations = [[root], ...(await this.#connection.run(() => descendantsOf(executions, id)))];
    if (generations.flat().some(({ status }) => status < LIVE)) return 'live';
    // The youngest first: what a crash leaves is still found from the root.
    for (const generation of generations.reverse()) await this.#deleteAll(generation);
    return 'deleted';
  }

  async #deleteAll(executions: Pick<ExecutionDocument, '_id' | 'project' | 'uniqueKey'>[]): Promise<void> {
    for (let index = 0; index < executions.length; index += BATCH_MAX) {
      const batch = executions.slice(index, index + BATCH_MAX);
      const ids = batch.map(({ _id }) => _id);
      const startIds = batch.flatMap(({ project, uniqueKey }) =>
        uniqueKey === undefined ? [] : [startIdOf(project, uniqueKey)],
      );
      await this.#deleteParts(ids, startIds);
      await this.#connection.run(() => this.#collections.executions.deleteMany({ _id: { $in: ids } }));
    }
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
        .find(oldRoots as Filter<ExecutionDocument>, { projection: { ...FIELDS, children: 1 } })
        .sort({ ended: 1 })
        .limit(limit + BATCH_MAX)
        .toArray(),
    );
    let deleted = 0;
    let alone: typeof roots = [];
    // Those that never had a child go together.
    for (const root of roots) {
      if (deleted + alone.length >= limit) break;
      if (root.children === undefined) {
        alone.push(root);
        continue;
      }
      await this.#deleteAll(alone);
      deleted += alone.length;
      alone = [];
      if ((await this.delete(root._id)) === 'deleted') deleted += 1;
    }
    await this.#deleteAll(alone);
    return deleted + alone.length;
  }
}
