import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';

/** A statement whose rows are lists in the order of its columns: `Row` names their types. */
export class Query<Row extends unknown[]> {
  readonly #statement: StatementSync;

  constructor(db: DatabaseSync, sql: string) {
    this.#statement = db.prepare(sql);
  }

  get(...values: SQLInputValue[]): Row | undefined {
    return this.#statement.get(...values) as unknown as Row | undefined;
  }

  all(...values: SQLInputValue[]): Row[] {
    return this.#statement.all(...values) as unknown as Row[];
  }

  /** How many rows it changed. */
  run(...values: SQLInputValue[]): number {
    return Number(this.#statement.run(...values).changes);
  }
}

const OUTAGES = new Set([
  5, // SQLITE_BUSY
  6, // SQLITE_LOCKED
  7, // SQLITE_NOMEM
  8, // SQLITE_READONLY
  10, // SQLITE_IOERR
  11, // SQLITE_CORRUPT
  13, // SQLITE_FULL
  14, // SQLITE_CANTOPEN
  15, // SQLITE_PROTOCOL
  26, // SQLITE_NOTADB
]);

/** Whether `error` tells of the database or its disk, and not of the call that met it. */
export function isOutage(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const { errcode, syscall } = error as { errcode?: unknown; syscall?: unknown };
  return typeof syscall === 'string' || (typeof errcode === 'number' && OUTAGES.has(errcode & 0xff));
}
