import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { FullstopError } from '../../errors.ts';

/**
 * Keeps every other process off a data directory.
 *
 * It is an open transaction on a database of its own, so an operating system lock: it ends with the process,
 * however that ends. The file with the process id beside it is for the message alone.
 */
export class DirectoryLock {
  readonly #db: DatabaseSync;

  /** @throws FS_LOCKED */
  constructor(directory: string) {
    const pidFile = join(directory, 'lock.pid');
    this.#db = new DatabaseSync(join(directory, 'lock.sqlite'));
    try {
      this.#db.exec('BEGIN EXCLUSIVE');
      writeFileSync(pidFile, `${process.pid}\n`);
    } catch (error) {
      this.#db.close();
      if ((error as { errcode?: unknown }).errcode !== 5) throw error;
      throw new FullstopError(
        'FS_LOCKED',
        `the data directory ${directory} is in use by process ${pidIn(pidFile)}: stop that one, or choose another directory`,
      );
    }
  }

  release(): void {
    this.#db.close();
  }
}

function pidIn(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return 'unknown';
  }
}
