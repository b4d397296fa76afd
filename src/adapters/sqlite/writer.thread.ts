/** The thread that writes: all calls that wait share one transaction. */
import { workerData } from 'node:worker_threads';
import { messageOf } from '../../errors.ts';
import { OutputFiles } from './files.ts';
import type { Call, FromThread, ThreadError } from './protocol.ts';
import { type ConnectionOptions, openForWriting } from './schema.ts';
import { type Served, serve, toThreadError } from './serve.ts';
import { isOutage, Query } from './sql.ts';
import { Writer } from './writer.ts';

/** How often a store in trouble is tried. */
const PROBE_MS = 1000;

/** More calls than this in one transaction gain nothing and delay the first. */
const BATCH_MAX = 512;

type Send = (message: FromThread) => void;

class Batches implements Served {
  readonly batchMax = BATCH_MAX;
  readonly #db;
  readonly #writer;
  readonly #send: Send;
  readonly #begin;
  readonly #commit;
  readonly #totalChanges;
  #trouble: string | null = null;
  #probe: NodeJS.Timeout | null = null;

  constructor(options: ConnectionOptions, send: Send) {
    this.#send = send;
    this.#db = openForWriting(options);
    this.#begin = this.#db.prepare('BEGIN IMMEDIATE');
    this.#commit = this.#db.prepare('COMMIT');
    this.#totalChanges = new Query<[number]>(this.#db, 'SELECT total_changes()');
    this.#writer = new Writer(this.#db, new OutputFiles(options.directory));
    this.#writer.removeOrphans();
  }

  run(calls: Call[]): void {
    try {
      this.#send(this.#runAll(calls));
    } catch (error) {
      this.#undo();
      if (isOutage(error)) this.#fail(calls.length, error);
      else this.#runApart(calls);
    }
  }

  close(): void {
    if (this.#probe !== null) clearTimeout(this.#probe);
    this.#db.close();
  }

  /** The ordinary case: no call throws. */
  #runAll(calls: Call[]): FromThread {
    const values = new Array<unknown>(calls.length);
    this.#transaction(() => {
      for (let index = 0; index < calls.length; index += 1) values[index] = this.#call(calls[index] as Call);
    });
    return { kind: 'outcomes', values, errors: null };
  }

  /** Again, when one threw: each in a savepoint, so that it takes none with it. */
  #runApart(calls: Call[]): void {
    const errors = new Map<number, ThreadError>();
    const values = new Array<unknown>(calls.length);
    try {
      this.#transaction(() => {
        for (const [index, call] of calls.entries()) {
          const mark = this.#writer.mark();
          this.#db.exec('SAVEPOINT one');
          try {
            values[index] = this.#call(call);
          } catch (error) {
            if (isOutage(error)) throw error;
            this.#db.exec('ROLLBACK TO one');
            this.#writer.rewind(mark);
            errors.set(index, toThreadError(error));
          }
          this.#db.exec('RELEASE one');
        }
      });
    } catch (error) {
      this.#undo();
      this.#fail(calls.length, error);
      return;
    }
    this.#send({ kind: 'outcomes', values, errors });
  }

  #transaction(work: () => void): void {
    const changesBefore = this.#trouble === null ? 0 : this.#changes();
    this.#begin.run();
    work();
    this.#commit.run();
    this.#writer.committed();
    // Reads alone do not show that the disk takes writes again.
    if (this.#trouble !== null && this.#changes() > changesBefore) this.#setTrouble(null);
  }

  #call([operation, ...args]: Call): unknown {
    return (this.#writer[operation as keyof Writer] as (...args: unknown[]) => unknown).apply(this.#writer, args);
  }

  #undo(): void {
    // SQLite has rolled back by itself after some errors.
    if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
    this.#writer.rewind({ written: 0, doomed: 0 });
  }

  #fail(count: number, error: unknown): void {
    const failure = toThreadError(error);
    this.#setTrouble(failure.message);
    this.#send({ kind: 'failed', count, error: failure });
  }

  #changes(): number {
    return this.#totalChanges.get()?.[0] ?? 0;
  }

  #setTrouble(message: string | null): void {
    this.#trouble = message;
    this.#send({ kind: 'trouble', message });
    if (message !== null && this.#probe === null) this.#probe = setTimeout(() => this.#tryAgain(), PROBE_MS);
  }

  /** Writes and removes something as big as a batch: callers may wait for the end of the trouble before they write. */
  #tryAgain(): void {
    this.#probe = null;
    if (this.#trouble === null) return;
    try {
      this.#db.exec('INSERT INTO probe (body) VALUES (zeroblob(262144)); DELETE FROM probe');
      this.#setTrouble(null);
    } catch (error) {
      this.#setTrouble(`the database cannot be used: ${messageOf(error)}`);
    }
  }
}

serve((send) => new Batches(workerData as ConnectionOptions, send));
