import { isDeepStrictEqual } from 'node:util';
import type { Filter } from 'mongodb';
import { FullstopError } from '../../errors.ts';
import type {
  Commit,
  CommitOutcome,
  CreateOutcome,
  DefinitionRow,
  EventRow,
  ExecutionQuery,
  ExecutionStore,
  HeaderRow,
  KeyRow,
  LoopPlace,
  NewExecution,
  ReceiptRow,
  RecoverableExecution,
  ResultRow,
  StopRequestOutcome,
  StoredExecution,
  StoredReceipt,
  TriggerOutcome,
  TriggerRow,
} from '../../ports/store.ts';
import type { TaskClaim, TaskRow } from '../../ports/task-queue.ts';
import type { AuditItem, Json } from '../../wire.ts';
import { MongoClusterStore } from './cluster.ts';
import {
  decodeEvents,
  decodeHeader,
  decodeRecoverable,
  encodeNew,
  HEADER_FIELDS,
  LIVE,
  placeOf,
  RECORD_FIELDS,
  type RecordFields,
  startIdOf,
  statusOf,
  storedOfRecord,
  VALUE_FIELDS,
  valuesOf,
} from './codec.ts';
import { Commits } from './commits.ts';
import { Connection } from './connection.ts';
import { Creations } from './creations.ts';
import { Definitions } from './definitions.ts';
import { Deletions } from './deletions.ts';
import {
  type AuditDocument,
  CLUSTER_ID,
  type ExecutionDocument,
  fieldOf,
  type KeyDocument,
  keyOf,
  type ResultsOfNode,
  type Stored,
} from './documents.ts';
import { descendantsOf } from './family.ts';
import { filterOf } from './filter.ts';
import { Lanes } from './lanes.ts';
import { recoverableOf } from './recoverable.ts';
import { type Collections, collectionsOf, LIVE_INDEX, prepare } from './schema.ts';
import { Tasks } from './tasks.ts';
import { storedOf, type TextReader, Texts, TextWriter } from './texts.ts';
import { Turns } from './turns.ts';

export interface MongoStoreOptions {
  uri: string;
  /** By default that of the URI's path, or `fullstop`. */
  database?: string;
}

const DEFAULT_DATABASE = 'fullstop';
const ADMISSION = 'admission';
/** Of a trigger that waits in a header, in characters: there may be one of each name. */
const PAYLOAD_INLINE_MAX = 400;

/**
 * The store in a MongoDB database, which several engines may share.
 *
 * A header document holds all that an ordinary commit changes; see docs/decisions/0011-one-document-per-execution.md.
 */
export class MongoExecutionStore implements ExecutionStore {
  readonly cluster: MongoClusterStore;
  readonly #connection: Connection;
  readonly #collections: Collections;
  readonly #texts: Texts;
  readonly #turns = new Turns();
  readonly #creations: Creations;
  readonly #commits: Commits;
  readonly #tasks: Tasks;
  readonly #definitions: Definitions;
  readonly #deletions: Deletions;
  readonly #auditLanes: Lanes<AuditDocument>;

  constructor({ uri, database }: MongoStoreOptions) {
    this.#connection = new Connection({ uri, database: database ?? databaseOf(uri) });
    const connection = this.#connection;
    const collections = collectionsOf(connection);
    this.#collections = collections;
    this.#texts = new Texts(connection);
    this.#creations = new Creations(connection, collections, this.#texts);
    this.#commits = new Commits({
      connection,
      collections,
      texts: this.#texts,
      turns: this.#turns,
      creations: this.#creations,
    });
    this.#tasks = new Tasks({ connection, collections, texts: this.#texts, lanes: this.#commits.lanes });
    this.#definitions = new Definitions(connection, collections);
    this.#deletions = new Deletions(connection, collections, this.#texts);
    this.#auditLanes = new Lanes(connection, collections.audit);
    this.cluster = new MongoClusterStore({
      connection,
      collections,
      texts: this.#texts,
      tasks: this.#tasks,
      lanes: this.#commits.lanes,
      inTurn: (id, work) => this.#inTurn(id, work),
    });
  }

  async open(): Promise<void> {
    try {
      await this.#connection.connect();
      await prepare(this.#connection, this.#collections);
    } catch (error) {
      await this.#connection.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#turns.idle();
    await this.#connection.close();
  }

  trouble(): string | null {
    return this.#connection.trouble;
  }

  /** After all calls on this execution that were made before. */
  #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    this.#commits.noteOther();
    return this.#turns.take([id], work);
  }

  // Definitions

  saveDefinition(row: Omit<DefinitionRow, 'version' | 'disabled'>): Promise<{ row: DefinitionRow; created: boolean }> {
    return this.#definitions.save(row);
  }

  getDefinition(project: string, name: string, hash?: string): Promise<DefinitionRow | null> {
    return this.#definitions.get(project, name, hash);
  }

  listVersions(project: string, name: string): Promise<DefinitionRow[]> {
    return this.#definitions.listVersions(project, name);
  }

  listDefinitions(project: string | null): Promise<DefinitionRow[]> {
    return this.#definitions.list(project);
  }

  setDisabled(project: string, name: string, disabled: boolean): Promise<boolean> {
    return this.#definitions.setDisabled(project, name, disabled);
  }

  // Executions

  async createExecution(execution: NewExecution): Promise<CreateOutcome> {
    const encoded = encodeNew(execution, this.#connection.serverTimeMs);
    const { startId, document } = encoded;
    const keys = [document._id];
    if (startId !== null) keys.push(`key ${startId}`);
    if (document.parent !== undefined) keys.push(document.parent);
    this.#commits.noteOther();
    return this.#turns.take(keys, () => this.#creations.create(encoded));
  }

  async findStart(project: string, uniqueKey: string): ReturnType<ExecutionStore['findStart']> {
    const startId = startIdOf(project, uniqueKey);
    return this.#turns.take([`key ${startId}`], () =>
      this.#connection.run(async () => {
        const start = await this.#collections.starts.findOne({ _id: startId });
        if (start === null) return null;
        const found = await this.#collections.executions.findOne({ _id: start.x }, { projection: { bodyHash: 1 } });
        return found === null ? null : { id: found._id, bodyHash: found.bodyHash };
      }),
    );
  }

  commit(commit: Commit): Promise<CommitOutcome> {
    return this.#commits.commit(commit);
  }

  requestStop(id: string, intent: { requestId: string; requestedAtMs: number }): Promise<StopRequestOutcome> {
    const stop = { id: intent.requestId, at: intent.requestedAtMs };
    return this.#inTurn(id, async () => {
      // Without children the intent is one update; where there are some, theirs must be stored with it.
      const alone = await this.#commits.lanes.write({
        updateOne: {
          filter: { _id: id, status: { $lt: LIVE }, stop: { $exists: false }, children: { $exists: false } },
          update: { $set: { stop } },
          hint: '_id_',
        },
      });
      if (alone)
        return {
          kind: 'requested',
          repeated: false,
          ...requestOf(stop),
          affected: [{ executionId: id, ...requestOf(stop) }],
        };
      return this.#stopFamily(id, stop);
    });
  }

  #stopFamily(id: string, given: { id: string; at: number }): Promise<StopRequestOutcome> {
    const { executions } = this.#collections;
    return this.#connection.transaction(async (session): Promise<StopRequestOutcome> => {
      const header = await executions.findOne({ _id: id }, { session, projection: { status: 1, stop: 1 } });
      if (header === null) return { kind: 'missing' };
      if (header.status >= LIVE) {
        if (header.stop === undefined) return { kind: 'ended', status: statusOf(header.status) };
        return { kind: 'stopped', ...requestOf(header.stop) };
      }
      const stop = header.stop ?? given;
      const descendants = (await descendantsOf(executions, id, session)).flat().filter(({ status }) => status < LIVE);
      const unmarked = descendants.filter((each) => each.stop === undefined).map(({ _id }) => _id);
      if (header.stop === undefined) unmarked.push(id);
      if (unmarked.length > 0) await executions.updateMany({ _id: { $in: unmarked } }, { $set: { stop } }, { session });
      const affected = [
        { executionId: id, ...requestOf(stop) },
        ...descendants.map((each) => ({ executionId: each._id, ...requestOf(each.stop ?? stop) })),
      ];
      // The same request again, in one call that had to be repeated, is the first.
      return { kind: 'requested', repeated: stop.id !== given.id, ...requestOf(stop), affected };
    });
  }

  async putTrigger(trigger: TriggerRow, delivered = false): Promise<TriggerOutcome> {
    const { id, executionId, name, atMs } = trigger;
    const text = JSON.stringify(trigger.payload);
    return this.#inTurn(executionId, async () => {
      const texts = new TextWriter(executionId);
      const payload = texts.store(text, PAYLOAD_INLINE_MAX);
      if (texts.bigs.length > 0) await this.#texts.put(texts.bigs);
      const stored = await this.#commits.lanes.write({
        updateOne: {
          filter: { _id: executionId, status: { $lt: LIVE }, 'triggers.name': { $ne: name } },
          update: { $push: { triggers: { id, name, payload, at: atMs, delivered } } },
          hint: '_id_',
        },
      });
      if (stored) return { kind: 'stored' };
      const outcome = await this.#whyNotTriggered(executionId, id, name, text);
      if (outcome.kind !== 'stored') await this.#texts.drop(texts.bigs.map(storedOf));
      return outcome;
    });
  }

  async #whyNotTriggered(executionId: string, id: string, name: string, text: string): Promise<TriggerOutcome> {
    const header = await this.#header(executionId, { status: 1, triggers: 1 });
    if (header === null) return { kind: 'missing' };
    const waiting = header.triggers.find((other) => other.name === name);
    if (waiting?.id === id) return { kind: 'stored' };
    if (header.status >= LIVE) return { kind: 'ended', status: statusOf(header.status) };
    if (waiting === undefined) {
      throw new FullstopError('FS_UNAVAILABLE', `trigger ${name} of ${executionId} met another one: try again`);
    }
    const read = await this.#texts.reader([waiting.payload]);
    if (!isDeepStrictEqual(JSON.parse(read(waiting.payload)), JSON.parse(text))) return { kind: 'conflict' };
    return { kind: 'duplicate', id: waiting.id };
  }

  putReceipt(receipt: ReceiptRow, ifRevision: number): Promise<'stored' | 'changed' | 'live' | 'missing'> {
    const { executionId } = receipt;
    const texts = new TextWriter(executionId);
    const stored = texts.store(JSON.stringify({ ...receipt, revision: ifRevision + 1 }));
    return this.#inTurn(executionId, async () => {
      const header = await this.#header(executionId, { status: 1, receipt: 1 });
      if (header === null) return 'missing';
      if (header.status < LIVE) return 'live';
      const before = header.receipt;
      if (before === undefined) return 'missing';
      if (receiptIn(before, await this.#texts.reader([before]))?.revision !== ifRevision) return 'changed';
      if (texts.bigs.length > 0) await this.#texts.put(texts.bigs);
      // Its text, or the name of it, is no other revision's.
      const { matchedCount } = await this.#connection.run(() =>
        this.#collections.executions.updateOne(
          { _id: executionId, receipt: { $eq: before } },
          { $set: { receipt: stored } },
        ),
      );
      await this.#texts.drop(matchedCount === 0 ? texts.bigs.map(storedOf) : [before]);
      return matchedCount === 0 ? 'changed' : 'stored';
    });
  }

  getReceipt(executionId: string): Promise<StoredReceipt | null> {
    return this.#inTurn(executionId, () =>
      this.#texts.decoded(
        async () => (await this.#header(executionId, { receipt: 1 }))?.receipt ?? null,
        (stored) => [stored],
        receiptIn,
      ),
    );
  }

  claimTask(id: string, claim: TaskClaim): Promise<'claimed' | 'stopping' | 'gone' | 'taken'> {
    const given = { ...claim };
    return this.#inTurn(id.slice(0, id.indexOf('/')), () => this.#tasks.claim(id, given));
  }

  listTasks(afterId: string | null, limit: number): Promise<TaskRow[]> {
    return this.#tasks.list(afterId, limit);
  }

  claimAll(engine: string): Promise<number> {
    return this.#connection.run(async () => {
      const { modifiedCount } = await this.#collections.executions.updateMany(
        { status: { $lt: LIVE } },
        { $set: { engine }, $inc: { epoch: 1 }, $unset: { offer: '' } },
      );
      return modifiedCount;
    });
  }

  async recover(afterId: string | null, limit: number): Promise<RecoverableExecution[]> {
    const documents = await this.#connection.run(() =>
      this.#collections.executions
        .find<RecordFields>(
          { status: { $lt: LIVE }, ...(afterId === null ? {} : { _id: { $gt: afterId } }) },
          { projection: RECORD_FIELDS, hint: LIVE_INDEX },
        )
        .sort({ _id: 1 })
        .limit(limit)
        .toArray(),
    );
    return recoverableOf(documents, this.#texts);
  }

  load(id: string): Promise<RecoverableExecution | null> {
    return this.#inTurn(id, () => this.#load(id));
  }

  #load(id: string): Promise<RecoverableExecution | null> {
    return this.#texts.decoded(() => this.#header(id, RECORD_FIELDS), storedOfRecord, decodeRecoverable);
  }

  async listIntents(limit: number): ReturnType<ExecutionStore['listIntents']> {
    const found = await this.#connection.run(() =>
      this.#collections.executions
        .find({ status: { $lt: LIVE }, 'stop.id': { $exists: true } }, { projection: { stop: 1 } })
        .sort({ _id: 1 })
        .limit(limit)
        .toArray(),
    );
    return found.flatMap(({ _id, stop }) => (stop === undefined ? [] : [{ executionId: _id, ...requestOf(stop) }]));
  }

  async listChildren(
    parentId: string,
    node: string,
    loops: LoopPlace[],
    attempt: number,
  ): ReturnType<ExecutionStore['listChildren']> {
    const children = await this.#connection.run(() =>
      this.#collections.executions
        .find(
          { parent: parentId, place: placeOf(node, loops, attempt) },
          { projection: { status: 1, error: 1, errorCode: 1, stop: 1, item: 1 } },
        )
        .sort({ item: 1 })
        .toArray(),
    );
    return children.map(({ _id, status, error, errorCode, stop, item }) => ({
      id: _id,
      status: statusOf(status),
      error: error === null ? null : (JSON.parse(error) as string),
      errorCode,
      stopped: stop !== undefined,
      itemIndex: item ?? null,
    }));
  }

  async readOutputs(ids: string[]): Promise<Json[]> {
    const found = await this.#connection.run(() =>
      this.#collections.executions
        .find({ _id: { $in: ids }, status: { $gte: LIVE } }, { projection: { outputs: 1 } })
        .toArray(),
    );
    const read = await this.#texts.reader(found.map(({ outputs }) => outputs));
    const outputs = new Map(found.map((each) => [each._id, each.outputs]));
    return ids.map((id) => {
      const stored = outputs.get(id) ?? null;
      return stored === null ? null : (JSON.parse(read(stored)) as Json);
    });
  }

  getHeader(id: string): Promise<HeaderRow | null> {
    return this.#texts.decoded(() => this.#header(id, { ...HEADER_FIELDS, ...VALUE_FIELDS }), valuesOf, decodeHeader);
  }

  getExecution(id: string): Promise<StoredExecution | null> {
    return this.#load(id);
  }

  async listExecutions(query: ExecutionQuery): Promise<{ items: HeaderRow[]; nextCursor: string | null }> {
    const { cursor, limit, ...filter } = query;
    const all: Filter<ExecutionDocument>[] = [filterOf(filter)];
    if (cursor !== undefined) {
      const [created, id] = parseCursor(cursor);
      all.push({ created: { $lte: created } });
      all.push({ $or: [{ created: { $lt: created } }, { _id: { $lt: id } }] });
    }
    const found = await this.#connection.run(() =>
      this.#collections.executions
        .find({ $and: all }, { projection: HEADER_FIELDS })
        .sort({ created: -1, _id: -1 })
        .limit(limit + 1)
        .toArray(),
    );
    const page = found.slice(0, limit);
    const last = page.at(-1);
    return {
      items: page.map((document) => decodeHeader(document, null)),
      nextCursor: found.length > limit && last !== undefined ? `${last.created}.${last._id}` : null,
    };
  }

  countExecutions(query: Omit<ExecutionQuery, 'limit' | 'cursor'>): Promise<number> {
    return this.#connection.run(() => this.#collections.executions.countDocuments(filterOf(query)));
  }

  async readEvents(id: string, from: number, limit: number): Promise<{ items: EventRow[]; firstSeq: number }> {
    for (;;) {
      const header = await this.#header(id, { events: 1, firstSeq: 1, seq: 1 });
      if (header === null) return { items: [], firstSeq: 1 };
      const start = Math.max(from, header.firstSeq);
      const firsts = Object.keys(header.events).map(Number);
      const inHeader = Math.min(...firsts);
      const stored: [first: number, body: Stored][] = [];
      if (start < inHeader && start <= header.seq) {
        stored.push(...(await this.#movedEvents(id, start, start + limit)));
        // Moved in between, and trimmed or not yet seen.
        if (stored.length === 0 && (await this.#header(id, { firstSeq: 1 }))?.firstSeq !== header.firstSeq) continue;
      }
      for (const first of firsts) if (first < start + limit) stored.push([first, header.events[first] as Stored]);
      const read = await this.#texts.reader(stored.map(([, body]) => body));
      const items = stored
        .sort(([a], [b]) => a - b)
        .flatMap(([first, body]) => decodeEvents(first, read(body)))
        .filter(({ seq }) => seq >= start);
      return { items: items.slice(0, limit), firstSeq: header.firstSeq };
    }
  }

  async #movedEvents(id: string, from: number, before: number): Promise<[first: number, body: Stored][]> {
    const documents = await this.#connection.run(() =>
      this.#collections.events
        .find({ x: id, first: { $lt: before }, last: { $gte: from } })
        .sort({ first: 1 })
        .toArray(),
    );
    return documents
      .flatMap(({ events }) => Object.entries(events))
      .map(([first, body]): [number, Stored] => [Number(first), body])
      .filter(([first]) => first < before);
  }

  async readResult(id: string): Promise<Json | undefined> {
    const slash = id.indexOf('/');
    const executionId = id.slice(0, slash);
    const key = id.slice(slash + 1, id.lastIndexOf('/'));
    const found = await this.#texts.decoded(
      async () => (await this.#results(executionId, key)).get(id) ?? null,
      ({ stored }) => [stored],
      ({ stored }, read) => ({ output: JSON.parse(read(stored)) as Json }),
    );
    return found?.output;
  }

  async readResults(executionId: string): Promise<ResultRow[]> {
    const found = await this.#texts.decoded(
      () => this.#results(executionId, null),
      (results) => [...results.values()].map(({ stored }) => stored),
      (results, read) =>
        [...results].map(([id, { key, stored }]) => ({ id, key, output: JSON.parse(read(stored)) as Json })),
    );
    return found ?? [];
  }

  /** Of all nodes, or of one; by `ResultRow.id`. */
  async #results(executionId: string, key: string | null): Promise<Map<string, { key: string; stored: Stored }>> {
    const path = key === null ? 'results' : `results.${fieldOf(key)}`;
    // The header first: what it has moved meanwhile is in both, and what it moves later is in the header.
    const header = await this.#header(executionId, { [path]: 1, spilled: 1 });
    if (header === null) return new Map();
    const moved =
      header.spilled === true
        ? await this.#connection.run(() =>
            this.#collections.results.find({ x: executionId }, { projection: { [path]: 1 } }).toArray(),
          )
        : [];
    const all: { v: number; id: string; key: string; stored: Stored }[] = [];
    for (const { results } of [...moved, header] as { results?: Record<string, ResultsOfNode> }[]) {
      for (const [field, attempts] of Object.entries(results ?? {})) {
        for (const [place, stored] of Object.entries(attempts)) {
          const slash = place.indexOf('/');
          const id = `${executionId}/${keyOf(field)}/${keyOf(place.slice(slash + 1))}`;
          all.push({ v: Number(place.slice(0, slash)), id, key: keyOf(field), stored });
        }
      }
    }
    all.sort((a, b) => a.v - b.v);
    const first = new Map<string, { key: string; stored: Stored }>();
    for (const { id, key: own, stored } of all) if (!first.has(id)) first.set(id, { key: own, stored });
    return first;
  }

  deleteExecution(id: string): Promise<'deleted' | 'missing' | 'live'> {
    return this.#inTurn(id, () => this.#deletions.delete(id));
  }

  deleteEndedBefore(beforeMs: number, limit: number): Promise<number> {
    return this.#deletions.deleteEndedBefore(beforeMs, limit);
  }

  trimEvents(executionId: string, keep: number): Promise<void> {
    return this.#inTurn(executionId, async () => {
      const after = await this.#connection.run(() =>
        this.#collections.executions.findOneAndUpdate(
          { _id: executionId },
          [{ $set: { firstSeq: { $max: ['$firstSeq', { $add: [{ $subtract: ['$seq', keep] }, 1] }] } } }],
          { returnDocument: 'after', projection: { firstSeq: 1 } },
        ),
      );
      if (after === null) return;
      await this.#connection.run(() =>
        this.#collections.events.deleteMany({ x: executionId, last: { $lt: after.firstSeq } }),
      );
    });
  }

  // Audit, keys, settings

  async appendAudit(entry: AuditItem): Promise<void> {
    const { id: _id, project, outcome } = entry;
    const document = { _id, project, outcome, body: JSON.stringify(entry) };
    // Every start has one: they share bulk writes.
    if (await this.#auditLanes.write({ insertOne: { document } })) return;
    const { audit } = this.#collections;
    await this.#connection.run(() => audit.updateOne({ _id }, { $setOnInsert: document }, { upsert: true }));
  }

  async completeAudit(id: string, outcome: string): Promise<void> {
    await this.#auditLanes.write({ updateOne: { filter: { _id: id }, update: { $set: { outcome } } } });
  }

  async listAudit(
    project: string | null,
    cursor: string | undefined,
    limit: number,
  ): Promise<{ items: AuditItem[]; nextCursor: string | null }> {
    const filter: Filter<AuditDocument> = {};
    if (project !== null) filter.project = project;
    if (cursor !== undefined) {
      if (!cursor.startsWith('-')) throw badCursor(cursor);
      filter._id = { $lt: cursor.slice(1) };
    }
    const found = await this.#connection.run(() =>
      this.#collections.audit
        .find(filter)
        .sort({ _id: -1 })
        .limit(limit + 1)
        .toArray(),
    );
    const page = found.slice(0, limit);
    const items = page.map(({ body, outcome }) => ({ ...(JSON.parse(body) as AuditItem), outcome }));
    return { items, nextCursor: found.length > limit ? `-${page.at(-1)?._id}` : null };
  }

  async createKey(row: KeyRow): Promise<void> {
    const { id, hash, project } = row;
    const body = JSON.stringify(row);
    await this.#connection.run(() =>
      this.#collections.apiKeys.updateOne({ _id: id }, { $setOnInsert: { hash, project, body } }, { upsert: true }),
    );
  }

  async listKeys(project: string | null): Promise<KeyRow[]> {
    const filter: Filter<KeyDocument> = project === null ? {} : { project };
    const found = await this.#connection.run(() => this.#collections.apiKeys.find(filter).sort({ _id: 1 }).toArray());
    return found.map(({ body }) => JSON.parse(body) as KeyRow);
  }

  async findKey(hash: string): Promise<KeyRow | null> {
    const found = await this.#connection.run(() => this.#collections.apiKeys.findOne({ hash }));
    return found === null ? null : (JSON.parse(found.body) as KeyRow);
  }

  deleteKey(id: string, project: string | null): Promise<boolean> {
    return this.#connection.run(async () => {
      const filter: Filter<KeyDocument> = project === null ? { _id: id } : { _id: id, project };
      return (await this.#collections.apiKeys.deleteOne(filter)).deletedCount === 1;
    });
  }

  getSetting(name: string): Promise<Json> {
    return this.#connection.run(async () => {
      // Engines read the admission switch with each heartbeat: it is where they look.
      const text =
        name === ADMISSION
          ? (await this.#collections.engines.findOne({ _id: CLUSTER_ID }))?.admission
          : (await this.#collections.settings.findOne({ _id: name }))?.value;
      return text === undefined ? null : (JSON.parse(text) as Json);
    });
  }

  async putSetting(name: string, value: Json): Promise<void> {
    const text = JSON.stringify(value);
    const { engines, settings } = this.#collections;
    await this.#connection.run(() =>
      name === ADMISSION
        ? engines.updateOne({ _id: CLUSTER_ID }, { $set: { admission: text } }, { upsert: true })
        : settings.updateOne({ _id: name }, { $set: { value: text } }, { upsert: true }),
    );
  }

  #header(id: string, projection: Record<string, unknown>): Promise<ExecutionDocument | null> {
    return this.#connection.run(() => this.#collections.executions.findOne({ _id: id }, { projection }));
  }
}

export function createMongoStore(options: MongoStoreOptions): MongoExecutionStore {
  return new MongoExecutionStore(options);
}

function requestOf({ id, at }: { id: string; at: number }): { requestId: string; requestedAtMs: number } {
  return { requestId: id, requestedAtMs: at };
}

function parseCursor(cursor: string): [created: number, id: string] {
  const parts = /^(\d+)\.(.+)$/.exec(cursor);
  if (parts === null) throw badCursor(cursor);
  return [Number(parts[1]), parts[2] as string];
}

function badCursor(cursor: string): FullstopError {
  return new FullstopError('FS_INVALID', `expected a cursor of an earlier page, found ${cursor}`);
}

function databaseOf(uri: string): string {
  const path = /^mongodb(?:\+srv)?:\/\/[^/]+\/([^?]+)/.exec(uri)?.[1];
  return path === undefined ? DEFAULT_DATABASE : decodeURIComponent(path);
}

/** null: its text is gone, because another one replaced it. */
function receiptIn(stored: Stored, read: TextReader): StoredReceipt | null {
  const receipt = JSON.parse(read(stored)) as ReceiptRow | null;
  return receipt === null ? null : { revision: 0, ...receipt };
}
