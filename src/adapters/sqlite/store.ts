import { mkdirSync } from 'node:fs';
import { FullstopError, hasCode, messageOf } from '../../errors.ts';
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
import {
  COMMITTED,
  decodeDefinition,
  decodeEvents,
  decodeExecution,
  decodeHeader,
  decodeRecoverable,
  decodeTask,
  encodeCommit,
  encodeNew,
  placeOf,
  sizeOf,
  statusOf,
} from './codec.ts';
import { DirectoryLock } from './lock.ts';
import type { Operations } from './protocol.ts';
import type { Reader } from './reader.ts';
import type { ConnectionOptions } from './schema.ts';
import { StoreThread } from './store-thread.ts';
import type { Writer } from './writer.ts';

export interface SqliteStoreOptions {
  /** Where the database, its lock and big outputs live; created when missing. */
  directory: string;
  /** Upper bound of the database in pages of 4 KiB. 0, the default: none. For tests of a full disk. */
  maxPages?: number;
}

/** The operations of a class, as a thread offers them. */
type OperationsOf<T> = {
  [K in keyof T as T[K] extends (...args: never[]) => unknown ? K : never]: T[K];
} & Operations;

const committed: CommitOutcome = { kind: 'committed' };

/** The reader's thread and its memory go when nobody has asked for this long. */
const READER_IDLE_MS = 10_000;

/**
 * The store in one SQLite file: WAL, synchronous=FULL.
 *
 * Writes, and reads that must see them, run on one thread, where all that wait share a transaction; lists and
 * downloads run on another with its own connection. This thread only turns values into text and back.
 */
export class SqliteExecutionStore implements ExecutionStore {
  readonly cluster = null;
  readonly #options: ConnectionOptions;
  readonly #writer: StoreThread<OperationsOf<Writer>>;
  readonly #reader: StoreThread<OperationsOf<Reader>>;
  #lock: DirectoryLock | null = null;

  constructor({ directory, maxPages = 0 }: SqliteStoreOptions) {
    this.#options = { directory, maxPages };
    this.#writer = new StoreThread('writer', this.#options);
    this.#reader = new StoreThread('reader', this.#options, READER_IDLE_MS);
  }

  async open(): Promise<void> {
    this.#lock = lockDirectory(this.#options.directory);
    try {
      await this.#writer.open();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#writer.close(), this.#reader.close()]);
    this.#lock?.release();
    this.#lock = null;
  }

  trouble(): string | null {
    return this.#writer.trouble;
  }

  // Definitions

  async saveDefinition(
    row: Omit<DefinitionRow, 'version' | 'disabled'>,
  ): Promise<{ row: DefinitionRow; created: boolean }> {
    const { project, name, hash, savedAtMs, source } = row;
    const text = JSON.stringify(source);
    const saved = await this.#writer.call('saveDefinition', project, name, hash, savedAtMs, text);
    return { row: { ...row, version: saved.version, disabled: saved.disabled === 1 }, created: saved.created };
  }

  async getDefinition(project: string, name: string, hash?: string): Promise<DefinitionRow | null> {
    const columns = await this.#writer.call('getDefinition', project, name, hash ?? null);
    return columns === null ? null : decodeDefinition(columns);
  }

  async listVersions(project: string, name: string): Promise<DefinitionRow[]> {
    return (await this.#reader.call('listVersions', project, name)).map(decodeDefinition);
  }

  async listDefinitions(project: string | null): Promise<DefinitionRow[]> {
    return (await this.#reader.call('listDefinitions', project)).map(decodeDefinition);
  }

  setDisabled(project: string, name: string, disabled: boolean): Promise<boolean> {
    return this.#writer.call('setDisabled', project, name, disabled);
  }

  // Executions

  async createExecution(execution: NewExecution): Promise<CreateOutcome> {
    return this.#writer.call('createExecution', encodeNew(execution));
  }

  /** Not an async function: this is the hot path. */
  commit(commit: Commit): Promise<CommitOutcome> {
    try {
      const encoded = encodeCommit(commit);
      return this.#writer.callSized(sizeOf(encoded), decodeOutcome, 'commit', encoded);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  requestStop(id: string, intent: { requestId: string; requestedAtMs: number }): Promise<StopRequestOutcome> {
    return this.#writer.call('requestStop', id, intent.requestId, intent.requestedAtMs);
  }

  async putTrigger({ id, executionId, name, payload, atMs }: TriggerRow): Promise<TriggerOutcome> {
    return this.#writer.call('putTrigger', id, executionId, name, JSON.stringify(payload), atMs);
  }

  async putReceipt(receipt: ReceiptRow, ifRevision: number): Promise<'stored' | 'changed' | 'live' | 'missing'> {
    const json = JSON.stringify({ ...receipt, revision: ifRevision + 1 });
    return this.#writer.call('putReceipt', receipt.executionId, json, ifRevision);
  }

  async getReceipt(executionId: string): Promise<StoredReceipt | null> {
    const json = await this.#writer.call('getReceipt', executionId);
    return json === null ? null : { revision: 0, ...(JSON.parse(json) as ReceiptRow) };
  }

  claimTask(id: string, { worker, tokenHash, atMs }: TaskClaim): Promise<'claimed' | 'stopping' | 'gone' | 'taken'> {
    return this.#writer.call('claimTask', id, worker, tokenHash, atMs);
  }

  async listTasks(afterId: string | null, limit: number): Promise<TaskRow[]> {
    return (await this.#writer.call('listTasks', afterId ?? '', limit)).map(decodeTask);
  }

  async findStart(project: string, uniqueKey: string): ReturnType<ExecutionStore['findStart']> {
    const found = await this.#writer.call('findStart', project, uniqueKey);
    return found === null ? null : { id: found[0], bodyHash: found[1] };
  }

  claimAll(engine: string): Promise<number> {
    return this.#writer.call('claimAll', engine);
  }

  async recover(afterId: string | null, limit: number): Promise<RecoverableExecution[]> {
    return (await this.#writer.call('recover', afterId, limit)).map(decodeRecoverable);
  }

  async load(id: string): Promise<RecoverableExecution | null> {
    const stored = await this.#writer.call('load', id);
    return stored === null ? null : decodeRecoverable(stored);
  }

  async listIntents(limit: number): ReturnType<ExecutionStore['listIntents']> {
    const intents = await this.#writer.call('listIntents', limit);
    return intents.map(([executionId, requestId, requestedAtMs]) => ({ executionId, requestId, requestedAtMs }));
  }

  async listChildren(
    parentId: string,
    node: string,
    loops: LoopPlace[],
    attempt: number,
  ): ReturnType<ExecutionStore['listChildren']> {
    const children = await this.#writer.call('listChildren', parentId, placeOf(node, loops, attempt));
    return children.map(([id, status, error, errorCode, stopped, itemIndex]) => {
      return { id, status: statusOf(status), error, errorCode, stopped: stopped === 1, itemIndex };
    });
  }

  async readOutputs(ids: string[]): Promise<Json[]> {
    return (await this.#reader.call('readOutputs', ids)).map((text) => parsed<Json>(text));
  }

  async getHeader(id: string): Promise<HeaderRow | null> {
    const stored = await this.#reader.call('getHeader', id);
    return stored === null ? null : decodeHeader(stored.header, stored.values);
  }

  async getExecution(id: string): Promise<StoredExecution | null> {
    const stored = await this.#reader.call('getExecution', id);
    return stored === null ? null : decodeExecution(stored);
  }

  async listExecutions(query: ExecutionQuery): Promise<{ items: HeaderRow[]; nextCursor: string | null }> {
    const { cursor, limit, ...filter } = query;
    if (cursor !== undefined && !/^\d+\.\d+$/.test(cursor)) throw badCursor(cursor);
    const { rows, next } = await this.#reader.call('listExecutions', filter, cursor ?? null, limit);
    return { items: rows.map((columns) => decodeHeader(columns)), nextCursor: next };
  }

  countExecutions(query: Omit<ExecutionQuery, 'limit' | 'cursor'>): Promise<number> {
    return this.#reader.call('countExecutions', query);
  }

  async readEvents(id: string, from: number, limit: number): Promise<{ items: EventRow[]; firstSeq: number }> {
    const { firstSeq, rows } = await this.#reader.call('readEvents', id, from, limit);
    const start = Math.max(from, firstSeq);
    const events = rows.flatMap(([first, body]) => decodeEvents(first, body)).filter((event) => event.seq >= start);
    return { items: events.slice(0, limit), firstSeq };
  }

  async readResult(id: string): Promise<Json | undefined> {
    const [executionId, key, attempt] = [
      id.slice(0, id.indexOf('/')),
      id.slice(id.indexOf('/') + 1, id.lastIndexOf('/')),
      id.slice(id.lastIndexOf('/') + 1),
    ];
    const text = await this.#reader.call('readResult', executionId, key, attempt);
    return text === null ? undefined : (JSON.parse(text) as Json);
  }

  async readResults(executionId: string): Promise<ResultRow[]> {
    const results = await this.#reader.call('readResults', executionId);
    return results.map(([key, attempt, output]) => {
      return { id: `${executionId}/${key}/${attempt}`, key, output: JSON.parse(output) as Json };
    });
  }

  deleteExecution(id: string): Promise<'deleted' | 'missing' | 'live'> {
    return this.#writer.call('deleteExecution', id);
  }

  deleteEndedBefore(beforeMs: number, limit: number): Promise<number> {
    return this.#writer.call('deleteEndedBefore', beforeMs, limit);
  }

  trimEvents(executionId: string, keep: number): Promise<void> {
    return this.#writer.call('trimEvents', executionId, keep);
  }

  // Audit, keys, settings

  async appendAudit(entry: AuditItem): Promise<void> {
    return this.#writer.call('appendAudit', entry.id, entry.project, entry.outcome, JSON.stringify(entry));
  }

  completeAudit(id: string, outcome: string): Promise<void> {
    return this.#writer.call('completeAudit', id, outcome);
  }

  async listAudit(
    project: string | null,
    cursor: string | undefined,
    limit: number,
  ): Promise<{ items: AuditItem[]; nextCursor: string | null }> {
    if (cursor !== undefined && !/^\d+$/.test(cursor)) throw badCursor(cursor);
    const rows = await this.#reader.call('listAudit', project, cursor === undefined ? null : Number(cursor), limit);
    const page = rows.slice(0, limit);
    const items = page.map(([, outcome, body]) => ({ ...(JSON.parse(body) as AuditItem), outcome }));
    return { items, nextCursor: rows.length > limit ? String(page.at(-1)?.[0]) : null };
  }

  async createKey(row: KeyRow): Promise<void> {
    return this.#writer.call('createKey', row.id, row.hash, row.project, JSON.stringify(row));
  }

  async listKeys(project: string | null): Promise<KeyRow[]> {
    return (await this.#reader.call('listKeys', project)).map((body) => JSON.parse(body) as KeyRow);
  }

  async findKey(hash: string): Promise<KeyRow | null> {
    return parsed(await this.#writer.call('findKey', hash));
  }

  deleteKey(id: string, project: string | null): Promise<boolean> {
    return this.#writer.call('deleteKey', id, project);
  }

  async getSetting(name: string): Promise<Json> {
    return parsed<Json>(await this.#writer.call('getSetting', name));
  }

  async putSetting(name: string, value: Json): Promise<void> {
    return this.#writer.call('putSetting', name, JSON.stringify(value));
  }
}

export function createSqliteStore(options: SqliteStoreOptions): ExecutionStore {
  return new SqliteExecutionStore(options);
}

function lockDirectory(directory: string): DirectoryLock {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    return new DirectoryLock(directory);
  } catch (error) {
    if (hasCode(error, 'FS_LOCKED')) throw error;
    const message = `the data directory ${directory} cannot be used: ${messageOf(error)}`;
    throw new FullstopError('FS_UNAVAILABLE', message, { cause: error });
  }
}

function decodeOutcome(outcome: CommitOutcome | typeof COMMITTED): CommitOutcome {
  return outcome === COMMITTED ? committed : outcome;
}

function parsed<T>(text: string | null): T | null {
  return text === null ? null : (JSON.parse(text) as T);
}

function badCursor(cursor: string): FullstopError {
  return new FullstopError('FS_INVALID', `expected a cursor of an earlier page, found ${cursor}`);
}
