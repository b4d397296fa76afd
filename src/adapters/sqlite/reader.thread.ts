/** The thread that reads lists and downloads, on a connection of its own. */
import { workerData } from 'node:worker_threads';
import { OutputFiles } from './files.ts';
import type { Call } from './protocol.ts';
import { Reader } from './reader.ts';
import { type ConnectionOptions, openForReading } from './schema.ts';
import { serve, toThreadError } from './serve.ts';

serve((send) => {
  const options = workerData as ConnectionOptions;
  const db = openForReading(options);
  const reader = new Reader(db, new OutputFiles(options.directory));
  return {
    // Each is answered before the next begins: a long one delays none that came earlier.
    batchMax: 1,
    run([call]) {
      const [operation, ...args] = call as Call;
      try {
        db.exec('BEGIN');
        const value = (reader[operation as keyof Reader] as (...args: unknown[]) => unknown).apply(reader, args);
        send({ kind: 'outcomes', values: [value], errors: null });
      } catch (error) {
        send({ kind: 'failed', count: 1, error: toThreadError(error) });
      } finally {
        if (db.isTransaction) db.exec('COMMIT');
      }
    },
    close() {
      db.close();
    },
  };
});
