/** The thread that reads lists and downloads, on a connection of its own. */
import type { DatabaseSync } from 'node:sqlite';
import { workerData } from 'node:worker_threads';
import { OutputFiles } from './files.ts';
import type { Call, FromThread } from './protocol.ts';
import { Reader } from './reader.ts';
import { type ConnectionOptions, openForReading } from './schema.ts';
import { type Served, serve, toThreadError } from './serve.ts';

class Reads implements Served {
  /** Each is answered before the next begins: a long one delays none that came earlier. */
  readonly batchMax = 1;
  readonly #options: ConnectionOptions;
  readonly #send: (message: FromThread) => void;
  #connection: { db: DatabaseSync; reader: Reader } | null = null;

  constructor(options: ConnectionOptions, send: (message: FromThread) => void) {
    this.#options = options;
    this.#send = send;
  }

  run(calls: Call[]): void {
    for (const call of calls) {
      try {
        this.#send({ kind: 'outcomes', values: [this.#read(call)], errors: null });
      } catch (error) {
        this.#send({ kind: 'failed', count: 1, error: toThreadError(error) });
      }
    }
  }

  close(): void {
    this.#connection?.db.close();
  }

  #read([operation, ...args]: Call): unknown {
    const { db, reader } = this.#connect();
    db.exec('BEGIN');
    try {
      return (reader[operation as keyof Reader] as (...args: unknown[]) => unknown).apply(reader, args);
    } finally {
      db.exec('COMMIT');
    }
  }

  /** With the first call: by then the writer has made the database, and the threads can start side by side. */
  #connect(): { db: DatabaseSync; reader: Reader } {
    if (this.#connection === null) {
      const db = openForReading(this.#options);
      this.#connection = { db, reader: new Reader(db, new OutputFiles(this.#options.directory)) };
    }
    return this.#connection;
  }
}

serve((send) => new Reads(workerData as ConnectionOptions, send));
