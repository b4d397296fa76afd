import type { ClientSession, Document, Filter } from 'mongodb';
import type { ClusterStore, ClusterView, EngineBeat, EngineRow, TaskState, Waiting } from '../../ports/cluster.ts';
import type { RecoverableExecution } from '../../ports/store.ts';
import type { TaskRow } from '../../ports/task-queue.ts';
import type { WorkReport } from '../../ports/work.ts';
import type { Json } from '../../wire.ts';
import { compare, decodeTrigger, LIVE, RECORD_FIELDS, type RecordFields } from './codec.ts';
import type { Connection } from './connection.ts';
import { CLUSTER_ID, type EngineDocument, type ExecutionDocument, type TriggerDocument } from './documents.ts';
import { Gathered } from './gathered.ts';
import type { Lanes } from './lanes.ts';
import { recoverableOf } from './recoverable.ts';
import type { Collections } from './schema.ts';
import type { Tasks } from './tasks.ts';
import type { Texts } from './texts.ts';

/** Rows of engines that are gone are kept for an hour, and while they own something. */
const GONE_KEPT_MS = 3_600_000;
/** Trees of one transaction. */
const TREES_MAX = 50;

export interface ClusterOptions {
  connection: Connection;
  collections: Collections;
  texts: Texts;
  tasks: Tasks;
  /** Of updates of headers. */
  lanes: Lanes<ExecutionDocument>;
  /** Runs what concerns one execution after the earlier calls on it. */
  inTurn<T>(executionId: string, work: () => Promise<T>): Promise<T>;
}

type EngineSeen = EngineDocument & { silentMs?: number; now: Date };

const live: Filter<ExecutionDocument> = { status: { $lt: LIVE } };

export class MongoClusterStore implements ClusterStore {
  readonly #connection: Connection;
  readonly #collections: Collections;
  readonly #texts: Texts;
  readonly #tasks: Tasks;
  readonly #inTurn: ClusterOptions['inTurn'];
  readonly #lanes: Lanes<ExecutionDocument>;
  readonly #accepted = new Gathered(async (ids) => {
    const records = await this.#records({ _id: { $in: ids }, ...live, offer: { $exists: false } });
    return new Map(records.map((record) => [record.header.id, record]));
  });
  /** Engines that beat here before: a row of theirs that is gone stays gone. */
  readonly #joined = new Set<string>();

  constructor({ connection, collections, texts, tasks, lanes, inTurn }: ClusterOptions) {
    this.#connection = connection;
    this.#collections = collections;
    this.#texts = texts;
    this.#tasks = tasks;
    this.#lanes = lanes;
    this.#inTurn = inTurn;
  }

  // Who is there

  async beat(beat: EngineBeat): Promise<ClusterView> {
    const { id, leaseMs } = beat;
    const body = JSON.stringify(beat);
    const isMember = { $eq: [{ $ifNull: ['$membership', 'member'] }, 'member'] };
    const set = (value: unknown, kept: string): Document => ({ $cond: [isMember, value, kept] });
    // The lease counts in the server's time.
    const update = [
      {
        $set: {
          body: set({ $literal: body }, '$body'),
          lease: set(leaseMs, '$lease'),
          at: set('$$NOW', '$at'),
          drain: { $ifNull: ['$drain', false] },
          membership: { $ifNull: ['$membership', 'member'] },
        },
      },
    ];
    const upsert = !this.#joined.has(id);
    await this.#connection.run(() => this.#collections.engines.updateOne({ _id: id }, update, { upsert }));
    this.#joined.add(id);
    const documents = await this.#engines();
    this.#connection.noteServerTime(documents[0]?.now);
    const shared = documents.find(({ _id }) => _id === CLUSTER_ID);
    const engines = documents.flatMap((document) => rowOf(document) ?? []);
    await this.#dropGone(engines);
    return {
      self: engines.find((engine) => engine.id === id && engine.membership === 'member') ?? null,
      engines,
      definitionsTurn: shared?.definitionsTurn ?? 0,
      admission: shared?.admission === undefined ? null : (JSON.parse(shared.admission) as Json),
    };
  }

  #engines(): Promise<EngineSeen[]> {
    return this.#connection.run(() =>
      this.#collections.engines
        .find<EngineSeen>(
          {},
          {
            projection: {
              body: 1,
              membership: 1,
              drain: 1,
              definitionsTurn: 1,
              admission: 1,
              now: '$$NOW',
              silentMs: { $subtract: ['$$NOW', '$at'] },
            },
          },
        )
        .toArray(),
    );
  }

  async #dropGone(engines: EngineRow[]): Promise<void> {
    const gone = engines.filter(({ membership, silentMs }) => membership !== 'member' && silentMs >= GONE_KEPT_MS);
    for (const { id } of gone) {
      await this.#connection.run(async () => {
        const owned = await this.#collections.executions.findOne({ ...live, engine: id }, { projection: { _id: 1 } });
        if (owned === null) await this.#collections.engines.deleteOne({ _id: id, membership: { $ne: 'member' } });
      });
    }
  }

  declareDead(engineId: string): Promise<boolean> {
    return this.#connection.run(async () => {
      const { engines } = this.#collections;
      const silence = { $gt: [{ $subtract: ['$$NOW', '$at'] }, '$lease'] };
      const { matchedCount } = await engines.updateOne(
        { _id: engineId, membership: 'member', $expr: silence },
        { $set: { membership: 'dead' } },
      );
      if (matchedCount === 1) return true;
      const found = await engines.findOne({ _id: engineId }, { projection: { membership: 1 } });
      return found !== null && found.membership !== 'member';
    });
  }

  async leave(engineId: string): Promise<void> {
    await this.#connection.run(() =>
      this.#collections.engines.updateOne({ _id: engineId, membership: 'member' }, { $set: { membership: 'left' } }),
    );
  }

  requestDrain(engineId: string): Promise<boolean> {
    return this.#connection.run(async () => {
      const { matchedCount } = await this.#collections.engines.updateOne(
        { _id: engineId, membership: 'member' },
        { $set: { drain: true } },
      );
      return matchedCount === 1;
    });
  }

  // Who owns what

  async listOrphans(from: string[], limit: number): Promise<string[]> {
    const roots = await this.#connection.run(() =>
      this.#collections.executions
        .aggregate<{ _id: string }>([
          { $match: { ...live, engine: { $in: from } } },
          { $group: { _id: '$root' } },
          { $sort: { _id: 1 } },
          { $limit: limit },
        ])
        .toArray(),
    );
    return roots.map(({ _id }) => _id);
  }

  async takeOver(given: string[], from: string[], to: string): Promise<RecoverableExecution[]> {
    const roots = [...new Set(given)];
    const taken: string[] = [];
    for (let index = 0; index < roots.length; index += TREES_MAX) {
      const batch = roots.slice(index, index + TREES_MAX);
      taken.push(...(await this.#connection.transaction((session) => this.#takeTrees(session, batch, from, to))));
    }
    const documents = await this.#connection.run(() =>
      this.#collections.executions
        .find<RecordFields & Pick<ExecutionDocument, 'ancestors'>>(
          { ...live, root: { $in: taken }, engine: to },
          { projection: { ...RECORD_FIELDS, ancestors: 1 } },
        )
        .toArray(),
    );
    return recoverableOf(documents.sort(parentsFirst), this.#texts);
  }

  /** Answers the roots of those trees that nobody else owns. */
  async #takeTrees(session: ClientSession, roots: string[], from: string[], to: string): Promise<string[]> {
    const { executions } = this.#collections;
    const others = await executions
      .find({ _id: { $in: roots }, ...live, engine: { $nin: [...from, to] } }, { session, projection: { _id: 1 } })
      .toArray();
    const left = new Set(others.map(({ _id }) => _id));
    const free = roots.filter((root) => !left.has(root));
    if (free.length > 0) {
      await executions.updateMany({ ...live, root: { $in: free }, engine: { $in: from } }, takenBy(to), { session });
    }
    return free;
  }

  /** Offers come many at a time, where one engine gets most of the starts: they share both commands. */
  acceptOffer(executionId: string, to: string): Promise<RecoverableExecution | null> {
    return this.#inTurn(executionId, async () => {
      const filter = { _id: executionId, ...live, 'offer.to': to };
      await this.#lanes.write({ updateOne: { filter, update: takenBy(to) } });
      // Also where it was accepted before, and the answer was lost.
      const record = await this.#accepted.get(executionId);
      return record?.header.owner.engine === to ? record : null;
    });
  }

  async takeBackOffers(engine: string, olderThanMs: number): Promise<RecoverableExecution[]> {
    const { executions } = this.#collections;
    const old: Filter<ExecutionDocument> = {
      ...live,
      engine,
      'offer.to': { $exists: true },
      $expr: { $lt: ['$offer.at', { $subtract: [{ $toLong: '$$NOW' }, olderThanMs] }] },
    };
    const found = await this.#connection.run(() => executions.find(old, { projection: { _id: 1 } }).toArray());
    if (found.length === 0) return [];
    const ids = found.map(({ _id }) => _id);
    await this.#connection.run(() =>
      executions.updateMany({ _id: { $in: ids }, ...live, engine }, { $unset: { offer: '' } }),
    );
    return this.#records({ _id: { $in: ids }, ...live, engine });
  }

  async #records(filter: Filter<ExecutionDocument>): Promise<RecoverableExecution[]> {
    const documents = await this.#connection.run(() =>
      this.#collections.executions
        .find<RecordFields & Pick<ExecutionDocument, 'ancestors'>>(filter, {
          projection: { ...RECORD_FIELDS, ancestors: 1 },
        })
        .toArray(),
    );
    return recoverableOf(documents.sort(parentsFirst), this.#texts);
  }

  // What waits

  async waiting(engine: string, limit: number): Promise<Waiting> {
    const intents: Document[] = [
      { $match: { ...live, engine, 'stop.id': { $exists: true } } },
      { $limit: limit },
      { $project: { stop: 1 } },
    ];
    const offered: Document[] = [
      { $match: { 'offer.to': engine, ...live } },
      { $limit: limit },
      { $project: { offer: 1 } },
    ];
    const triggers: Document[] = [
      { $match: { ...live, engine, 'triggers.delivered': false } },
      { $limit: limit },
      { $project: { triggers: 1 } },
    ];
    const coll = this.#collections.executions.collectionName;
    // One command: an idle engine asks this often.
    const found = await this.#connection.run(() =>
      this.#collections.executions
        .aggregate<Partial<ExecutionDocument> & { _id: string }>([
          ...intents,
          { $unionWith: { coll, pipeline: offered } },
          { $unionWith: { coll, pipeline: triggers } },
        ])
        .toArray(),
    );
    const undelivered = found.flatMap(({ _id, triggers: all = [] }) =>
      all.filter(({ delivered }) => !delivered).map((trigger): [string, TriggerDocument] => [_id, trigger]),
    );
    const read = await this.#texts.reader(undelivered.map(([, { payload }]) => payload));
    return {
      intents: found.flatMap(({ _id, stop }) =>
        stop === undefined ? [] : [{ executionId: _id, requestId: stop.id, requestedAtMs: stop.at }],
      ),
      offered: found.flatMap(({ _id, offer }) => (offer === undefined ? [] : [_id])),
      triggers: undelivered
        .map(([id, trigger]) => decodeTrigger(id, trigger, read))
        .sort((a, b) => a.atMs - b.atMs || compare(a.id, b.id))
        .slice(0, limit),
    };
  }

  async markDelivered(triggerIds: string[]): Promise<void> {
    if (triggerIds.length === 0) return;
    await this.#connection.run(() =>
      this.#collections.executions.updateMany(
        { 'triggers.id': { $in: triggerIds } },
        { $set: { 'triggers.$[each].delivered': true } },
        { arrayFilters: [{ 'each.id': { $in: triggerIds } }] },
      ),
    );
  }

  async takePlace(project: string, workflow: string, executionId: string, max: number): Promise<boolean> {
    const id = `${project}/${workflow}`;
    const place = (): Promise<string[]> =>
      this.#connection.run(async () => {
        const after = await this.#collections.places.findOneAndUpdate(
          { _id: id },
          [
            {
              $set: {
                holders: {
                  $let: {
                    vars: { holders: { $ifNull: ['$holders', []] } },
                    in: {
                      $cond: [
                        { $or: [{ $in: [executionId, '$$holders'] }, { $gte: [{ $size: '$$holders' }, max] }] },
                        '$$holders',
                        { $concatArrays: ['$$holders', [executionId]] },
                      ],
                    },
                  },
                },
              },
            },
          ],
          { upsert: true, returnDocument: 'after' },
        );
        return after?.holders ?? [];
      });
    const holders = await place();
    if (holders.includes(executionId)) return true;
    // Full: some may have ended with an engine that could not give their places back.
    const alive = await this.#connection.run(() =>
      this.#collections.executions.find({ _id: { $in: holders }, ...live }, { projection: { _id: 1 } }).toArray(),
    );
    const living = new Set(alive.map(({ _id }) => _id));
    const ended = holders.filter((each) => !living.has(each));
    if (ended.length === 0) return false;
    await this.#connection.run(() =>
      this.#collections.places.updateOne({ _id: id }, { $pull: { holders: { $in: ended } } }),
    );
    return (await place()).includes(executionId);
  }

  async givePlaceBack(project: string, workflow: string, executionId: string): Promise<void> {
    await this.#connection.run(() =>
      this.#collections.places.updateOne({ _id: `${project}/${workflow}` }, { $pull: { holders: executionId } }),
    );
  }

  // Tasks

  listQueued(capabilities: string[], project: string | null, notOf: string, limit: number): Promise<TaskRow[]> {
    return this.#tasks.listQueued(capabilities, project, notOf, limit);
  }

  readTasks(ids: string[]): Promise<TaskState[]> {
    return this.#tasks.states(ids);
  }

  getTasks(ids: string[]): Promise<TaskRow[]> {
    return this.#tasks.get(ids);
  }

  storeReport(taskId: string, tokenHash: string, report: WorkReport): Promise<'stored' | 'gone' | 'refused'> {
    return this.#tasks.storeReport(taskId, tokenHash, report);
  }

  moveClaims(taskIds: string[], worker: string, via: string): Promise<void> {
    return this.#tasks.moveClaims(taskIds, worker, via);
  }
}

function takenBy(to: string): Document {
  return { $set: { engine: to, 'tasks.$[].owned': true }, $inc: { epoch: 1 }, $unset: { offer: '' } };
}

function rowOf({ body, membership, drain, silentMs }: EngineSeen): EngineRow | null {
  if (body === undefined || membership === undefined) return null;
  const beat = JSON.parse(body) as EngineBeat;
  return { ...beat, silentMs: Math.max(0, silentMs ?? 0), membership, drainRequested: drain === true };
}

function parentsFirst(
  a: Pick<ExecutionDocument, '_id' | 'ancestors'>,
  b: Pick<ExecutionDocument, '_id' | 'ancestors'>,
): number {
  return (a.ancestors?.length ?? 0) - (b.ancestors?.length ?? 0) || compare(a._id, b._id);
}
