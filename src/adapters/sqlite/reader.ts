import type { DatabaseSync } from 'node:sqlite';
import type { ExecutionQuery } from '../../ports/store.ts';
import {
  DEFINITION_COLUMNS,
  type EncodedDefinition,
  type EncodedExecution,
  HEADER_COLUMNS,
  type HeaderColumns,
} from './codec.ts';
import type { OutputFiles } from './files.ts';
import { type Condition, conditionsOf } from './filter.ts';
import { Records } from './records.ts';
import { Query } from './sql.ts';

type Filter = Omit<ExecutionQuery, 'limit' | 'cursor'>;

/** Lists, counts and downloads. Each operation runs in a transaction of its own: one moment's state. */
export class Reader {
  readonly #db: DatabaseSync;
  readonly #records: Records;
  readonly #statements = new Map<string, Query<unknown[]>>();

  constructor(db: DatabaseSync, files: OutputFiles) {
    this.#db = db;
    this.#records = new Records(db, files);
  }

  getHeader(id: string): Omit<EncodedExecution, 'nodes'> | null {
    return this.#records.header(id)?.header ?? null;
  }

  getExecution(id: string): EncodedExecution | null {
    return this.#records.execution(id)?.execution ?? null;
  }

  /** Headers and, when there are more, the cursor of the last one. */
  listExecutions(filter: Filter, cursor: string | null, limit: number): { rows: HeaderColumns[]; next: string | null } {
    const conditions = conditionsOf(filter);
    if (cursor !== null) {
      const [createdAt, n] = cursor.split('.').map(Number);
      conditions.push({ sql: '(created_at, n) < (?, ?)', values: [createdAt ?? 0, n ?? 0] });
    }
    const rows = this.#select<[...HeaderColumns, n: number]>(
      `SELECT ${HEADER_COLUMNS}, n FROM executions`,
      conditions,
      'ORDER BY created_at DESC, n DESC LIMIT ?',
      limit + 1,
    );
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    const next = rows.length > limit && last !== undefined ? `${last[4]}.${last[16]}` : null;
    return { rows: page.map((row) => row.slice(0, 16) as HeaderColumns), next };
  }

  countExecutions(filter: Filter): number {
    return this.#select<[number]>('SELECT count(*) FROM executions', conditionsOf(filter), '')[0]?.[0] ?? 0;
  }

  /** The rows that hold the events `from` to `from + limit - 1`; the first row may begin before. */
  readEvents(id: string, from: number, limit: number): { firstSeq: number; rows: [first: number, body: string][] } {
    const execution = this.#query<[number, number]>('SELECT n, first_seq FROM executions WHERE id = ?').get(id);
    if (execution === undefined) return { firstSeq: 1, rows: [] };
    const [n, firstSeq] = execution;
    const start = Math.max(from, firstSeq);
    const rows = this.#query<[number, string]>(
      `SELECT seq, body FROM events
       WHERE n = ?1 AND seq >= coalesce((SELECT max(seq) FROM events WHERE n = ?1 AND seq <= ?2), 0) AND seq < ?3
       ORDER BY seq`,
    ).all(n, start, start + limit);
    return { firstSeq, rows };
  }

  readResult(executionId: string, key: string, attempt: string): string | null {
    const row = this.#query<[string | null, string | null]>(
      `SELECT output, file FROM results
       WHERE n = (SELECT n FROM executions WHERE id = ?) AND key = ? AND attempt = ?`,
    ).get(executionId, key, attempt);
    return row === undefined ? null : this.#records.text(...row);
  }

  readResults(executionId: string): [key: string, attempt: string, output: string][] {
    return this.#query<[string, string, string | null, string | null]>(
      'SELECT key, attempt, output, file FROM results WHERE n = (SELECT n FROM executions WHERE id = ?)',
    )
      .all(executionId)
      .map(([key, attempt, output, file]) => [key, attempt, this.#records.text(output, file) as string]);
  }

  readOutputs(ids: string[]): (string | null)[] {
    const query = this.#query<[string | null, string | null]>(
      'SELECT outputs, outputs_file FROM executions WHERE id = ? AND status >= 2',
    );
    return ids.map((id) => {
      const row = query.get(id);
      return row === undefined ? null : this.#records.text(...row);
    });
  }

  listVersions(project: string, name: string): EncodedDefinition[] {
    return this.#query<EncodedDefinition>(
      `SELECT ${DEFINITION_COLUMNS} FROM definitions JOIN workflows USING (project, name)
       WHERE project = ? AND name = ? ORDER BY turn DESC`,
    ).all(project, name);
  }

  listDefinitions(project: string | null): EncodedDefinition[] {
    return this.#query<EncodedDefinition>(
      `SELECT ${DEFINITION_COLUMNS} FROM definitions AS each JOIN workflows USING (project, name)
       WHERE (?1 IS NULL OR project = ?1)
         AND turn = (SELECT max(turn) FROM definitions WHERE project = each.project AND name = each.name)
       ORDER BY project, name`,
    ).all(project);
  }

  /** Newest first, from before `cursor`: one more than `limit` when there are more. */
  listAudit(
    project: string | null,
    cursor: number | null,
    limit: number,
  ): [turn: number, outcome: string | null, body: string][] {
    const conditions: Condition[] = [];
    if (project !== null) conditions.push({ sql: 'project = ?', values: [project] });
    if (cursor !== null) conditions.push({ sql: 'turn < ?', values: [cursor] });
    return this.#select('SELECT turn, outcome, body FROM audit', conditions, 'ORDER BY turn DESC LIMIT ?', limit + 1);
  }

  listKeys(project: string | null): string[] {
    return this.#query<[string]>('SELECT body FROM keys WHERE ?1 IS NULL OR project = ?1 ORDER BY id')
      .all(project)
      .map(([body]) => body);
  }

  #select<Row extends unknown[]>(select: string, conditions: Condition[], tail: string, ...last: number[]): Row[] {
    const where = conditions.length === 0 ? '' : `WHERE ${conditions.map((condition) => condition.sql).join(' AND ')}`;
    const values = conditions.flatMap((condition) => condition.values);
    return new Query<Row>(this.#db, `${select} ${where} ${tail}`).all(...values, ...last);
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
