/** The collections, their indexes, and the version of what is in them. */
import type { Collection, Document, IndexDescription } from 'mongodb';
import { FullstopError, messageOf } from '../../errors.ts';
import type { Connection } from './connection.ts';
import type {
  AuditDocument,
  DefinitionDocument,
  EngineDocument,
  EventsDocument,
  ExecutionDocument,
  KeyDocument,
  MetaDocument,
  PlacesDocument,
  ResultsDocument,
  SettingDocument,
  StartDocument,
  ValueDocument,
  WorkflowDocument,
} from './documents.ts';

/** Raised with every change of the documents (documents.ts) that an older Fullstop cannot read. */
export const SCHEMA_VERSION = 1;

export interface Collections {
  executions: Collection<ExecutionDocument>;
  starts: Collection<StartDocument>;
  events: Collection<EventsDocument>;
  results: Collection<ResultsDocument>;
  values: Collection<ValueDocument>;
  workflows: Collection<WorkflowDocument>;
  definitions: Collection<DefinitionDocument>;
  audit: Collection<AuditDocument>;
  apiKeys: Collection<KeyDocument>;
  settings: Collection<SettingDocument>;
  engines: Collection<EngineDocument>;
  places: Collection<PlacesDocument>;
  meta: Collection<MetaDocument>;
}

/** By this name recovery demands its index: by ids alone it would read what has ended, too. */
export const LIVE_INDEX = 'live';
/** By this name `listQueued` demands its index: the order of its keys is the order of the answer. */
export const QUEUED_INDEX = 'queued';

const live = { status: { $lt: 2 } };
const exists = { $exists: true };

/**
 * None has a field that an ordinary commit changes. All but those of lists hold only what waits, lives or has a parent,
 * so that they stay small whatever has ended or is parked. Several have the same key and another filter.
 *
 * No index is unique but `_id` and that of the keys' digests: a sharded cluster could not keep it.
 */
const INDEXES: { [K in keyof Collections]: IndexDescription[] } = {
  executions: [
    // Recovery. The second field is there because no index of the first alone may be partial.
    { name: LIVE_INDEX, key: { _id: 1, created: 1 }, partialFilterExpression: live },
    { name: 'owned', key: { engine: 1, root: 1 }, partialFilterExpression: live },
    // What waits for an engine.
    { name: 'intents', key: { engine: 1, _id: 1 }, partialFilterExpression: { ...live, 'stop.id': exists } },
    { name: 'offers', key: { 'offer.to': 1, _id: 1 }, partialFilterExpression: { 'offer.to': exists } },
    {
      name: 'undelivered',
      key: { engine: 1, 'triggers.delivered': 1 },
      partialFilterExpression: { ...live, 'triggers.delivered': false },
    },
    { name: 'triggers', key: { 'triggers.id': 1 }, partialFilterExpression: { 'triggers.id': exists } },
    {
      name: QUEUED_INDEX,
      key: { 'tasks.queued': 1, 'tasks.at': 1, engine: 1, project: 1 },
      partialFilterExpression: { 'tasks.queued': exists },
    },
    // Families.
    {
      name: 'children',
      key: { parent: 1, place: 1, item: 1 },
      partialFilterExpression: { parent: exists },
    },
    // Lists, newest first.
    { name: 'rootsByTime', key: { created: -1, _id: -1 }, partialFilterExpression: { isRoot: true } },
    {
      name: 'rootsOfProject',
      key: { project: 1, created: -1, _id: -1 },
      partialFilterExpression: { isRoot: true },
    },
    {
      name: 'rootsOfWorkflow',
      key: { project: 1, workflow: 1, created: -1, _id: -1 },
      partialFilterExpression: { isRoot: true },
    },
    { name: 'liveByTime', key: { created: -1, _id: -1 }, partialFilterExpression: live },
    { name: 'failedByTime', key: { created: -1, _id: -1 }, partialFilterExpression: { status: 3 } },
    { name: 'stoppedByTime', key: { created: -1, _id: -1 }, partialFilterExpression: { 'stop.id': exists } },
    {
      name: 'rootsByEnd',
      key: { ended: 1 },
      partialFilterExpression: { isRoot: true, ended: { $type: 'number' } },
    },
  ],
  starts: [],
  events: [{ name: 'ofExecution', key: { x: 1, first: 1 } }],
  results: [{ name: 'ofExecution', key: { x: 1 } }],
  values: [{ name: 'ofExecution', key: { x: 1 } }],
  workflows: [{ name: 'byName', key: { project: 1, name: 1 } }],
  definitions: [{ name: 'byName', key: { project: 1, name: 1, turn: -1 } }],
  audit: [{ name: 'ofProject', key: { project: 1, _id: -1 } }],
  apiKeys: [{ name: 'byHash', key: { hash: 1 }, unique: true }],
  settings: [],
  engines: [],
  places: [],
  meta: [],
};

export function collectionsOf(connection: Connection): Collections {
  const names = Object.keys(INDEXES) as (keyof Collections)[];
  return Object.fromEntries(names.map((name) => [name, connection.collection<Document>(name)])) as never;
}

/**
 * Creates collections and indexes that are missing, and checks the schema version.
 *
 * @throws FS_INVALID when a newer Fullstop wrote the database, or an index has another meaning there
 */
export async function prepare(connection: Connection, collections: Collections): Promise<void> {
  const version = await connection.run(async () => {
    const found = await collections.meta.findOne({ _id: 'schema' });
    return found?.version ?? 0;
  });
  if (version > SCHEMA_VERSION) {
    throw new FullstopError(
      'FS_INVALID',
      `the MongoDB database ${connection.db.databaseName} has schema version ${version}, this Fullstop reads up to ` +
        `${SCHEMA_VERSION}: start the newer Fullstop that wrote it, or choose another database`,
    );
  }
  const present = new Set(
    await connection.run(async () =>
      (await connection.db.listCollections({}, { nameOnly: true }).toArray()).map(nameOf),
    ),
  );
  for (const [name, indexes] of Object.entries(INDEXES) as [keyof Collections, IndexDescription[]][]) {
    // A collection must be there before a transaction of an older server can write to it.
    if (!present.has(name)) await connection.run(() => createCollection(connection, name));
    if (indexes.length > 0) await connection.run(() => createIndexes(connection, name, indexes));
  }
  if (version === 0) {
    await connection.run(() =>
      collections.meta.updateOne({ _id: 'schema' }, { $setOnInsert: { version: SCHEMA_VERSION } }, { upsert: true }),
    );
  }
}

const NAMESPACE_EXISTS = 48;
/** IndexOptionsConflict and IndexKeySpecsConflict. */
const INDEX_CONFLICTS = [85, 86];

async function createCollection(connection: Connection, name: string): Promise<void> {
  try {
    await connection.db.createCollection(name);
  } catch (error) {
    // Another engine was quicker.
    if (codeOf(error) !== NAMESPACE_EXISTS) throw error;
  }
}

async function createIndexes(connection: Connection, name: string, indexes: IndexDescription[]): Promise<void> {
  try {
    await connection.db.collection(name).createIndexes(indexes);
  } catch (error) {
    if (!INDEX_CONFLICTS.includes(Number(codeOf(error)))) throw error;
    const message = `an index of ${name} in ${connection.db.databaseName} is not as expected: ${messageOf(error)}; drop it, it is made anew`;
    throw new FullstopError('FS_INVALID', message, { cause: error });
  }
}

function nameOf({ name }: { name: string }): string {
  return name;
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code;
}
