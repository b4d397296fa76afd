import { createHash } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Longer outputs go to a file beside the database. In characters of JSON text. */
export const INLINE_MAX = 4 * 1024 * 1024;

/** The outputs too big for a row. A name is derived from what it holds, so that a repeat writes the same file. */
export class OutputFiles {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = join(directory, 'outputs');
  }

  nameOf(n: number, identity: string): string {
    return `${n}-${createHash('sha256').update(identity).digest('hex').slice(0, 32)}.json`;
  }

  /** The file and its name in the directory are on disk when this returns. */
  write(name: string, text: string): void {
    mkdirSync(this.#directory, { recursive: true });
    const file = openSync(join(this.#directory, name), 'w', 0o600);
    try {
      writeFileSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    const directory = openSync(this.#directory, 'r');
    try {
      fsyncSync(directory);
    } finally {
      closeSync(directory);
    }
  }

  read(name: string): string {
    return readFileSync(join(this.#directory, name), 'utf8');
  }

  remove(name: string): void {
    rmSync(join(this.#directory, name), { force: true });
  }

  list(): string[] {
    try {
      return readdirSync(this.#directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  }
}
