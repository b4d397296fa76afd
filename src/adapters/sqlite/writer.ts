import type { DatabaseSync, SQLInputValue } from 'node:sqlite';
import { isDeepStrictEqual } from 'node:util';
import { FullstopError } from '../../errors.ts';
import type { CommitOutcome, CreateOutcome, Intent, StopRequestOutcome, TriggerOutcome } from '../../ports/store.ts';
import {
  COMMITTED,
  DEFINITION_COLUMNS,
  type EncodedCommit,
  type EncodedDefinition,
  type EncodedEvents,
  type EncodedNewExecution,
  type EncodedRecoverable,
  type EncodedTaskRow,
  HEADER_COLUMNS,
  statusOf,
} from './codec.ts';
import { INLINE_MAX, type OutputFiles } from './files.ts';
import { Records } from './records.ts';
import { Query } from './sql.ts';

const LIVE = 2;

interface FileMark {
  written: number;
  doomed: number;
}

/**
 * Everything that writes, and the reads that must see the writes before them.
 *
 * Runs inside the batch's transaction. An operation that throws has its changes undone by the caller.
 */
export class Writer {
  readonly #db: DatabaseSync;
  readonly #files: OutputFiles;
  readonly #records: Records;
  readonly #statements = new Map<string, Query<unknown[]>>();
  /** The commit's conditional update, by the columns it changes beside the usual ones. */
  readonly #updates = new Map<string, Query<[n: number]>>();
  #written: string[] = [];
  #doomed: string[] = [];
  #nextNumber: number;

  constructor(db: DatabaseSync, files: OutputFiles) {
    this.#db = db;
    this.#files = files;
    this.#records = new Records(db, files);
    const [last] = this.#query<[number | null]>('SELECT max(n) FROM executions').get() as [number | null];
    this.#nextNumber = (last ?? 0) + 1;
  }

  /** To be called when the transaction was committed: the files of deleted rows go. */
  committed(): void {
    for (const name of this.#doomed) this.#files.remove(name);
    this.#written = [];
    this.#doomed = [];
  }

  /** What `rewind` goes back to. */
  mark(): FileMark {
    return { written: this.#written.length, doomed: this.#doomed.length };
  }

  /** To be called when the changes since `mark` were undone: so are the files they wrote. */
  rewind({ written, doomed }: FileMark): void {
    for (const name of this.#written.splice(written)) this.#files.remove(name);
    this.#doomed.length = doomed;
  }

  /** Removes the files of a transaction that a crash cut short. */
  removeOrphans(): void {
    const known = this.#query<[number]>('SELECT 1 FROM files WHERE n = ? AND name = ?');
    for (const name of this.#files.list()) {
      if (known.get(Number.parseInt(name, 10), name) === undefined) this.#files.remove(name);
    }
  }

  // Executions

  createExecution({ header, values, parent, events, uniqueKey, bodyHash }: EncodedNewExecution): CreateOutcome {
    const [id, project] = header;
    const existing =
      this.#query<[string, string | null]>(
        'SELECT id, body_hash FROM executions JOIN starts USING (n) WHERE id = ?',
      ).get(id) ?? (uniqueKey === null ? null : this.findStart(project, uniqueKey));
    if (existing !== null) return { kind: 'exists', id: existing[0], sameBody: existing[1] === bodyHash };
    if (parent !== null) {
      const owner = this.#query<[number, string | null]>(
        'SELECT status, stop_request FROM executions WHERE id = ?',
      ).get(parent[0]);
      if (owner === undefined || owner[0] >= LIVE) return { kind: 'refused', why: 'parentEnded' };
      if (owner[1] !== null) return { kind: 'refused', why: 'parentStopping' };
    }
    const n = this.#nextNumber;
    this.#query(
      `INSERT INTO executions (${HEADER_COLUMNS}, n, first_seq, parent, place, item, machine, outputs)
       VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?, ?,?,?,?,?,?,?)`,
    ).run(
      ...header,
      n,
      events?.[0] ?? header[10] + 1,
      ...(parent ?? [null, null, null]),
      values.machine,
      values.outputs,
    );
    this.#query('INSERT INTO starts (n, project, unique_key, body_hash, input) VALUES (?,?,?,?,?)').run(
      n,
      project,
      uniqueKey,
      bodyHash,
      values.input,
    );
    if (events !== null) this.#appendEvents(n, events);
    this.#nextNumber = n + 1;
    return { kind: 'created' };
  }

  findStart(project: string, uniqueKey: string): [id: string, bodyHash: string | null] | null {
    return (
      this.#query<[string, string | null]>(
        'SELECT id, body_hash FROM starts JOIN executions USING (n) WHERE starts.project = ? AND unique_key = ?',
      ).get(project, uniqueKey) ?? null
    );
  }

  commit(commit: EncodedCommit): CommitOutcome | typeof COMMITTED {
    const [, , , , , , , events, nodes, results, dropNodes, consumed, receipt, creates, tasks, endedTasks] = commit;
    const n = this.#updateHeader(commit);
    if (n === undefined) return this.#whyNot(commit);
    const putNode = this.#query('INSERT OR REPLACE INTO nodes (n, key, body) VALUES (?,?,?)');
    for (let index = 0; index < nodes.length; index += 2) {
      putNode.run(n, nodes[index] as string, nodes[index + 1] as string);
    }
    if (events !== null) this.#appendEvents(n, events);
    for (let index = 0; index < results.length; index += 3) {
      this.#putResult(n, results[index] as string, results[index + 1] as string, results[index + 2] as string);
    }
    if (dropNodes !== null) this.#dropNodes(n, dropNodes);
    if (consumed !== null) {
      const consume = this.#query('DELETE FROM triggers WHERE n = ? AND id = ?');
      for (const trigger of consumed) consume.run(n, trigger);
    }
    if (receipt !== null) this.#query('INSERT OR REPLACE INTO receipts (n, body) VALUES (?,?)').run(n, receipt);
    if (creates !== null) for (const execution of creates) this.createExecution(execution);
    if (tasks !== null) {
      const put = this.#query('INSERT OR IGNORE INTO tasks (id, n, queued_at, body) VALUES (?,?,?,?)');
      for (const [task, queuedAtMs, body] of tasks) put.run(task, n, queuedAtMs, body);
    }
    if (endedTasks !== null) for (const task of endedTasks) this.#query('DELETE FROM tasks WHERE id = ?').run(task);
    return COMMITTED;
  }

  /** The condition and the header's change in one: the execution's number when it applied. */
  #updateHeader([id, epoch, v, requestId, final, machine, changes, events]: EncodedCommit): number | undefined {
    let columns = final ? ', epoch = epoch + 1' : '';
    const values: SQLInputValue[] = [];
    let spilled: { name: string; text: string } | null = null;
    for (let index = 0; changes !== null && index < changes.length; index += 2) {
      let column = changes[index] as string;
      let value = changes[index + 1] as SQLInputValue;
      if (column === 'outputs' && typeof value === 'string' && value.length > INLINE_MAX) {
        spilled = { name: this.#files.nameOf(this.#records.numberOf(id) ?? 0, 'outputs'), text: value };
        column = 'outputs_file';
        value = spilled.name;
      }
      columns += `, ${column} = ?`;
      values.push(value);
    }
    let update = this.#updates.get(columns);
    if (update === undefined) {
      update = new Query(
        this.#db,
        `UPDATE executions SET v = ?, seq = coalesce(?, seq), machine = coalesce(?, machine)${columns}
         WHERE id = ? AND epoch = ? AND v = ? AND status < ${LIVE} AND stop_request IS ? AND seq = coalesce(?, seq)
         RETURNING n`,
      );
      this.#updates.set(columns, update);
    }
    const [before, last] = events === null ? [null, null] : [events[0] - 1, events[1]];
    const n = update.get(v, last, machine, ...values, id, epoch, v - 1, requestId, before)?.[0];
    if (n !== undefined && spilled !== null) this.#writeFile(n, spilled.name, spilled.text);
    return n;
  }

  /** Why the header's condition was not met. */
  #whyNot([id, epoch, v, requestId, final, , , events]: EncodedCommit): CommitOutcome | typeof COMMITTED {
    const row = this.#query<[number, number, number, string | null, number | null, number]>(
      'SELECT status, epoch, v, stop_request, stop_at, seq FROM executions WHERE id = ?',
    ).get(id);
    if (row === undefined) return { kind: 'refused', why: 'missing' };
    const [status, storedEpoch, storedV, stopRequest, stopAt, seq] = row;
    // Applied before, and its answer was lost; the terminal commit has raised the epoch.
    if (storedV === v && storedEpoch === (final ? epoch + 1 : epoch)) return COMMITTED;
    if (status >= LIVE) return { kind: 'refused', why: 'ended' };
    if (storedEpoch !== epoch || storedV !== v - 1) return { kind: 'refused', why: 'fenced' };
    if (stopRequest !== null && stopRequest !== requestId) {
      return { kind: 'refused', why: 'stopping', stop: { requestId: stopRequest, requestedAtMs: stopAt ?? 0 } };
    }
    if (stopRequest !== requestId) {
      throw new FullstopError('FS_INTERNAL', `commit of ${id} for stop ${requestId}, but no stop is stored`);
    }
    throw new FullstopError('FS_INTERNAL', `expected event ${seq + 1} of ${id}, found ${events?.[0]}`);
  }

  #appendEvents(n: number, [first, , body]: EncodedEvents): void {
    this.#query('INSERT INTO events (n, seq, body) VALUES (?,?,?)').run(n, first, body);
  }

  #putResult(n: number, key: string, attempt: string, output: string): void {
    const put = this.#query('INSERT OR IGNORE INTO results (n, key, attempt, output, file) VALUES (?,?,?,?,?)');
    if (output.length <= INLINE_MAX) {
      put.run(n, key, attempt, output, null);
      return;
    }
    const file = this.#files.nameOf(n, `${key}/${attempt}`);
    if (put.run(n, key, attempt, null, file) === 1) this.#writeFile(n, file, output);
  }

  #writeFile(n: number, name: string, text: string): void {
    this.#query('INSERT OR IGNORE INTO files (n, name) VALUES (?,?)').run(n, name);
    this.#written.push(name);
    this.#files.write(name, text);
  }

  #dropNodes(n: number, keys: string[]): void {
    for (const key of keys) {
      this.#query('DELETE FROM nodes WHERE n = ? AND key = ?').run(n, key);
      const files = this.#query<[string | null]>('DELETE FROM results WHERE n = ? AND key = ? RETURNING file').all(
        n,
        key,
      );
      for (const [file] of files) {
        if (file === null) continue;
        this.#query('DELETE FROM files WHERE n = ? AND name = ?').run(n, file);
        this.#doomed.push(file);
      }
    }
  }

  requestStop(id: string, requestId: string, requestedAtMs: number): StopRequestOutcome {
    const row = this.#query<[number, string | null, number | null]>(
      'SELECT status, stop_request, stop_at FROM executions WHERE id = ?',
    ).get(id);
    if (row === undefined) return { kind: 'missing' };
    const [status, storedRequest, storedAt] = row;
    if (status >= LIVE) {
      if (storedRequest === null) return { kind: 'ended', status: statusOf(status) };
      return { kind: 'stopped', requestId: storedRequest, requestedAtMs: storedAt ?? 0 };
    }
    const repeated = storedRequest !== null;
    const stop = { requestId: storedRequest ?? requestId, requestedAtMs: storedAt ?? requestedAtMs };
    const affected: Intent[] = [{ executionId: id, ...stop }];
    for (const child of this.#descendants(id)) {
      if (child.status >= LIVE) continue;
      const own = { requestId: child.stopRequest ?? stop.requestId, requestedAtMs: child.stopAt ?? stop.requestedAtMs };
      affected.push({ executionId: child.id, ...own });
    }
    const mark = this.#query(
      'UPDATE executions SET stop_request = ?, stop_at = ? WHERE id = ? AND stop_request IS NULL',
    );
    for (const { executionId } of affected) mark.run(stop.requestId, stop.requestedAtMs, executionId);
    return { kind: 'requested', repeated, ...stop, affected };
  }

  #descendants(
    id: string,
  ): { n: number; id: string; status: number; stopRequest: string | null; stopAt: number | null }[] {
    return this.#query<[number, string, number, string | null, number | null]>(
      `WITH RECURSIVE family (n, id, status, stop_request, stop_at) AS (
         SELECT n, id, status, stop_request, stop_at FROM executions WHERE parent = ?
         UNION ALL
         SELECT child.n, child.id, child.status, child.stop_request, child.stop_at
         FROM family JOIN executions AS child ON child.parent = family.id
       ) SELECT n, id, status, stop_request, stop_at FROM family`,
    )
      .all(id)
      .map(([n, childId, status, stopRequest, stopAt]) => ({ n, id: childId, status, stopRequest, stopAt }));
  }

  putTrigger(id: string, executionId: string, name: string, payload: string, atMs: number): TriggerOutcome {
    const row = this.#query<[number, number]>('SELECT n, status FROM executions WHERE id = ?').get(executionId);
    if (row === undefined) return { kind: 'missing' };
    const [n, status] = row;
    if (status >= LIVE) return { kind: 'ended', status: statusOf(status) };
    const waiting = this.#query<[string, string]>('SELECT id, payload FROM triggers WHERE n = ? AND name = ?').get(
      n,
      name,
    );
    if (waiting !== undefined) {
      if (!isDeepStrictEqual(JSON.parse(waiting[1]), JSON.parse(payload))) return { kind: 'conflict' };
      return { kind: 'duplicate', id: waiting[0] };
    }
    this.#query('INSERT INTO triggers (n, id, name, payload, at) VALUES (?,?,?,?,?)').run(n, id, name, payload, atMs);
    return { kind: 'stored' };
  }

  putReceipt(executionId: string, receipt: string, ifRevision: number): 'stored' | 'changed' | 'live' | 'missing' {
    const row = this.#query<[n: number, status: number, revision: number | null]>(
      `SELECT n, status, CASE WHEN body IS NULL THEN NULL ELSE coalesce(json_extract(body, '$.revision'), 0) END
       FROM executions LEFT JOIN receipts USING (n) WHERE id = ?`,
    ).get(executionId);
    if (row === undefined) return 'missing';
    const [n, status, revision] = row;
    if (status < LIVE) return 'live';
    if (revision === null) return 'missing';
    if (revision !== ifRevision) return 'changed';
    this.#query('UPDATE receipts SET body = ? WHERE n = ?').run(receipt, n);
    return 'stored';
  }

  getReceipt(executionId: string): string | null {
    const row = this.#query<[string]>('SELECT body FROM receipts JOIN executions USING (n) WHERE id = ?').get(
      executionId,
    );
    return row?.[0] ?? null;
  }

  claimTask(id: string, worker: string, tokenHash: string, atMs: number): 'claimed' | 'stopping' | 'gone' | 'taken' {
    const row = this.#query<[number, string | null, string | null, string | null]>(
      `SELECT status, stop_request, worker, token_hash FROM tasks JOIN executions ON executions.n = tasks.n
       WHERE tasks.id = ?`,
    ).get(id);
    if (row === undefined || row[0] >= LIVE) return 'gone';
    const [, stopRequest, holder, hash] = row;
    if (stopRequest !== null) return 'stopping';
    if (holder !== null) return holder === worker && hash === tokenHash ? 'claimed' : 'taken';
    this.#query('UPDATE tasks SET worker = ?, token_hash = ?, claimed_at = ? WHERE id = ?').run(
      worker,
      tokenHash,
      atMs,
      id,
    );
    return 'claimed';
  }

  listTasks(afterId: string, limit: number): EncodedTaskRow[] {
    return this.#query<EncodedTaskRow>(
      'SELECT id, queued_at, body, worker, token_hash, claimed_at FROM tasks WHERE id > ? ORDER BY id LIMIT ?',
    ).all(afterId, limit);
  }

  claimAll(engine: string): number {
    return this.#query(`UPDATE executions SET epoch = epoch + 1, engine = ? WHERE status < ${LIVE}`).run(engine);
  }

  recover(afterId: string | null, limit: number): EncodedRecoverable[] {
    return this.#records.live(afterId ?? '', limit).map(({ n, execution }) => this.#withTriggers(n, execution));
  }

  load(id: string): EncodedRecoverable | null {
    const found = this.#records.execution(id);
    return found === null ? null : this.#withTriggers(found.n, found.execution);
  }

  #withTriggers(n: number, execution: Omit<EncodedRecoverable, 'triggers'>): EncodedRecoverable {
    const triggers = this.#query<[string, string, string, number]>(
      'SELECT id, name, payload, at FROM triggers WHERE n = ? ORDER BY at, id',
    ).all(n);
    return { ...execution, triggers };
  }

  listIntents(limit: number): [id: string, requestId: string, requestedAtMs: number][] {
    return this.#query<[string, string, number]>(
      `SELECT id, stop_request, stop_at FROM executions WHERE status < ${LIVE} AND stop_request IS NOT NULL
       ORDER BY id LIMIT ?`,
    ).all(limit);
  }

  listChildren(
    parent: string,
    place: string,
  ): [
    id: string,
    status: number,
    error: string | null,
    errorCode: string | null,
    stopped: number,
    item: number | null,
  ][] {
    return this.#query<[string, number, string | null, string | null, number, number | null]>(
      `SELECT id, status, error, error_code, stop_request IS NOT NULL, item FROM executions
       WHERE parent = ? AND place = ? ORDER BY item`,
    ).all(parent, place);
  }

  deleteExecution(id: string): 'deleted' | 'missing' | 'live' {
    const row = this.#query<[number, number]>('SELECT n, status FROM executions WHERE id = ?').get(id);
    if (row === undefined) return 'missing';
    const descendants = this.#descendants(id);
    if (row[1] < LIVE || descendants.some((child) => child.status < LIVE)) return 'live';
    for (const n of [row[0], ...descendants.map((child) => child.n)]) this.#delete(n);
    return 'deleted';
  }

  deleteEndedBefore(beforeMs: number, limit: number): number {
    const next = this.#query<[string]>(
      'SELECT id FROM executions WHERE parent IS NULL AND ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT 1 OFFSET ?',
    );
    let deleted = 0;
    let kept = 0;
    while (deleted < limit) {
      const root = next.get(beforeMs, kept);
      if (root === undefined) break;
      if (this.deleteExecution(root[0]) === 'deleted') deleted += 1;
      else kept += 1;
    }
    return deleted;
  }

  #delete(n: number): void {
    for (const [name] of this.#query<[string]>('SELECT name FROM files WHERE n = ?').all(n)) this.#doomed.push(name);
    for (const table of [
      'executions',
      'starts',
      'nodes',
      'events',
      'results',
      'triggers',
      'receipts',
      'tasks',
      'files',
    ]) {
      this.#query(`DELETE FROM ${table} WHERE n = ?`).run(n);
    }
  }

  trimEvents(executionId: string, keep: number): void {
    const row = this.#query<[number, number]>(
      'UPDATE executions SET first_seq = max(first_seq, seq - ? + 1) WHERE id = ? RETURNING n, first_seq',
    ).get(keep, executionId);
    if (row === undefined) return;
    // A row goes when the next one begins at or before the first event kept.
    this.#query(
      `DELETE FROM events WHERE n = ?1 AND seq < (SELECT max(seq) FROM events WHERE n = ?1 AND seq <= ?2)`,
    ).run(...row);
  }

  // Definitions

  saveDefinition(
    project: string,
    name: string,
    hash: string,
    savedAtMs: number,
    source: string,
  ): { version: number; disabled: number; created: boolean } {
    this.#query('INSERT OR IGNORE INTO workflows (project, name, disabled) VALUES (?,?,0)').run(project, name);
    const known = this.#query<[number]>(
      `UPDATE definitions SET saved_at = ?,
         turn = (SELECT max(turn) + 1 FROM definitions AS other WHERE other.project = definitions.project AND other.name = definitions.name)
       WHERE project = ? AND name = ? AND hash = ? RETURNING version`,
    ).get(savedAtMs, project, name, hash);
    const [version] =
      known ??
      (this.#query<[number]>(
        `INSERT INTO definitions (project, name, hash, version, turn, saved_at, source)
         SELECT ?1, ?2, ?3, coalesce(max(version), 0) + 1, coalesce(max(turn), 0) + 1, ?4, ?5
         FROM definitions WHERE project = ?1 AND name = ?2 RETURNING version`,
      ).get(project, name, hash, savedAtMs, source) as [number]);
    const [disabled] = this.#query<[number]>('SELECT disabled FROM workflows WHERE project = ? AND name = ?').get(
      project,
      name,
    ) as [number];
    return { version, disabled, created: known === undefined };
  }

  getDefinition(project: string, name: string, hash: string | null): EncodedDefinition | null {
    const row = this.#query<EncodedDefinition>(
      `SELECT ${DEFINITION_COLUMNS} FROM definitions JOIN workflows USING (project, name)
       WHERE project = ?1 AND name = ?2 AND (?3 IS NULL OR hash = ?3) ORDER BY turn DESC LIMIT 1`,
    ).get(project, name, hash);
    return row ?? null;
  }

  setDisabled(project: string, name: string, disabled: boolean): boolean {
    const update = this.#query('UPDATE workflows SET disabled = ? WHERE project = ? AND name = ?');
    return update.run(disabled ? 1 : 0, project, name) === 1;
  }

  // Audit, keys, settings

  appendAudit(id: string, project: string | null, outcome: string | null, body: string): void {
    this.#query('INSERT OR IGNORE INTO audit (id, project, outcome, body) VALUES (?,?,?,?)').run(
      id,
      project,
      outcome,
      body,
    );
  }

  completeAudit(id: string, outcome: string): void {
    this.#query('UPDATE audit SET outcome = ? WHERE id = ?').run(outcome, id);
  }

  createKey(id: string, hash: string, project: string | null, body: string): void {
    this.#query('INSERT OR IGNORE INTO keys (id, hash, project, body) VALUES (?,?,?,?)').run(id, hash, project, body);
  }

  findKey(hash: string): string | null {
    return this.#query<[string]>('SELECT body FROM keys WHERE hash = ?').get(hash)?.[0] ?? null;
  }

  deleteKey(id: string, project: string | null): boolean {
    return this.#query('DELETE FROM keys WHERE id = ?1 AND (?2 IS NULL OR project = ?2)').run(id, project) === 1;
  }

  getSetting(name: string): string | null {
    return this.#query<[string]>('SELECT value FROM settings WHERE name = ?').get(name)?.[0] ?? null;
  }

  putSetting(name: string, value: string): void {
    this.#query('INSERT OR REPLACE INTO settings (name, value) VALUES (?,?)').run(name, value);
  }

  /** Prepared on first use. */
  #query<Row extends unknown[]>(sql: string): Query<Row> {
    let query = this.#statements.get(sql);
    if (query === undefined) {
      query = new Query(this.#db, sql);
      this.#statements.set(sql, query);
    }
    return query as Query<Row>;
  }
}
