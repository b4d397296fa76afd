import type { DefinitionRow } from '../../ports/store.ts';
import type { Json } from '../../wire.ts';
import type { Connection } from './connection.ts';
import { CLUSTER_ID, type DefinitionDocument, type WorkflowDocument } from './documents.ts';
import type { Collections } from './schema.ts';

/**
 * Definitions, and for each name what all its versions share. A save is a transaction: its name's document is where
 * two at once meet.
 */
export class Definitions {
  readonly #connection: Connection;
  readonly #collections: Collections;

  constructor(connection: Connection, collections: Collections) {
    this.#connection = connection;
    this.#collections = collections;
  }

  save(given: Omit<DefinitionRow, 'version' | 'disabled'>): Promise<{ row: DefinitionRow; created: boolean }> {
    const { workflows, definitions, engines } = this.#collections;
    const { project, name, hash, savedAtMs } = given;
    const source = JSON.stringify(given.source);
    const nameId = nameIdOf(project, name);
    const id = definitionIdOf(project, name, hash);
    return this.#connection.transaction(async (session) => {
      const known = await definitions.findOne({ _id: id }, { session, projection: { version: 1, source: 1 } });
      const workflow = await workflows.findOneAndUpdate(
        { _id: nameId },
        {
          $setOnInsert: { project, name, disabled: false },
          $set: { last: hash },
          $inc: { turn: 1, versions: known === null ? 1 : 0 },
        },
        { session, upsert: true, returnDocument: 'after' },
      );
      const { turn = 1, versions = 1, disabled = false } = workflow ?? {};
      const version = known?.version ?? versions;
      if (known === null) {
        await definitions.insertOne(
          { _id: id, project, name, hash, version, turn, saved: savedAtMs, source },
          { session },
        );
      } else {
        await definitions.updateOne({ _id: id }, { $set: { turn, saved: savedAtMs } }, { session });
      }
      await engines.updateOne({ _id: CLUSTER_ID }, { $inc: { definitionsTurn: 1 } }, { session, upsert: true });
      const row = { project, name, hash, version, source: JSON.parse(source) as Json, savedAtMs, disabled };
      return { row, created: known === null };
    });
  }

  get(project: string, name: string, hash?: string): Promise<DefinitionRow | null> {
    const { workflows, definitions } = this.#collections;
    return this.#connection.run(async () => {
      const workflow = await workflows.findOne({ _id: nameIdOf(project, name) });
      if (workflow === null) return null;
      const document = await definitions.findOne({ _id: definitionIdOf(project, name, hash ?? workflow.last) });
      return document === null ? null : rowOf(document, workflow.disabled);
    });
  }

  listVersions(project: string, name: string): Promise<DefinitionRow[]> {
    const { workflows, definitions } = this.#collections;
    return this.#connection.run(async () => {
      const workflow = await workflows.findOne({ _id: nameIdOf(project, name) });
      if (workflow === null) return [];
      const documents = await definitions.find({ project, name }).sort({ turn: -1 }).toArray();
      return documents.map((document) => rowOf(document, workflow.disabled));
    });
  }

  list(project: string | null): Promise<DefinitionRow[]> {
    const { workflows, definitions } = this.#collections;
    return this.#connection.run(async () => {
      const names = await workflows
        .find(project === null ? {} : { project })
        .sort({ project: 1, name: 1 })
        .toArray();
      const ids = names.map((each) => definitionIdOf(each.project, each.name, each.last));
      const documents = await definitions.find({ _id: { $in: ids } }).toArray();
      const byId = new Map(documents.map((document) => [document._id, document]));
      return names.flatMap((each: WorkflowDocument, index) => {
        const document = byId.get(ids[index] as string);
        return document === undefined ? [] : [rowOf(document, each.disabled)];
      });
    });
  }

  setDisabled(project: string, name: string, disabled: boolean): Promise<boolean> {
    const { workflows, engines } = this.#collections;
    return this.#connection.transaction(async (session) => {
      const update = { $set: { disabled } };
      const { matchedCount } = await workflows.updateOne({ _id: nameIdOf(project, name) }, update, { session });
      if (matchedCount === 0) return false;
      await engines.updateOne({ _id: CLUSTER_ID }, { $inc: { definitionsTurn: 1 } }, { session, upsert: true });
      return true;
    });
  }
}

function nameIdOf(project: string, name: string): string {
  return `${project}/${name}`;
}

function definitionIdOf(project: string, name: string, hash: string): string {
  return `${project}/${name}@${hash}`;
}

function rowOf(document: DefinitionDocument, disabled: boolean): DefinitionRow {
  const { project, name, hash, version, saved, source } = document;
  return { project, name, hash, version, source: JSON.parse(source) as Json, savedAtMs: saved, disabled };
}
