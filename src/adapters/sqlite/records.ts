import type { DatabaseSync } from 'node:sqlite';
import { type EncodedExecution, HEADER_COLUMNS, type HeaderColumns } from './codec.ts';
import type { OutputFiles } from './files.ts';
import { Query } from './sql.ts';

const HEADER_LENGTH = HEADER_COLUMNS.split(',').length;

type RecordColumns = [...HeaderColumns, n: number, outputs: string | null, file: string | null, machine: string];

/** Reads of whole records, for either thread. */
export class Records {
  readonly #files: OutputFiles;
  readonly #byId: Query<RecordColumns>;
  readonly #live: Query<RecordColumns>;
  readonly #input: Query<[string]>;
  readonly #nodes: Query<[key: string, body: string]>;
  readonly #numberOf: Query<[number]>;

  constructor(db: DatabaseSync, files: OutputFiles) {
    const record = `SELECT ${HEADER_COLUMNS}, n, outputs, outputs_file, machine FROM executions`;
    this.#files = files;
    this.#byId = new Query(db, `${record} WHERE id = ?`);
    this.#live = new Query(db, `${record} WHERE status < 2 AND id > ? ORDER BY id LIMIT ?`);
    this.#input = new Query(db, 'SELECT input FROM starts WHERE n = ?');
    this.#nodes = new Query(db, 'SELECT key, body FROM nodes WHERE n = ?');
    this.#numberOf = new Query(db, 'SELECT n FROM executions WHERE id = ?');
  }

  numberOf(id: string): number | undefined {
    return this.#numberOf.get(id)?.[0];
  }

  header(id: string): { n: number; header: Omit<EncodedExecution, 'nodes'> } | null {
    const row = this.#byId.get(id);
    return row === undefined ? null : this.#header(row);
  }

  execution(id: string): { n: number; execution: EncodedExecution } | null {
    const row = this.#byId.get(id);
    return row === undefined ? null : this.#execution(row);
  }

  live(afterId: string, limit: number): { n: number; execution: EncodedExecution }[] {
    return this.#live.all(afterId, limit).map((row) => this.#execution(row));
  }

  /** The text of an output, wherever it is. */
  text(inline: string | null, file: string | null): string | null {
    return file === null ? inline : this.#files.read(file);
  }

  #header(row: RecordColumns): { n: number; header: Omit<EncodedExecution, 'nodes'> } {
    const [n, outputs, file, machine] = row.slice(HEADER_LENGTH) as [number, string | null, string | null, string];
    const [input] = this.#input.get(n) as [string];
    const header = row.slice(0, HEADER_LENGTH) as HeaderColumns;
    return { n, header: { header, values: { input, outputs: this.text(outputs, file), machine } } };
  }

  #execution(row: RecordColumns): { n: number; execution: EncodedExecution } {
    const { n, header } = this.#header(row);
    return { n, execution: { ...header, nodes: this.#nodes.all(n) } };
  }
}
