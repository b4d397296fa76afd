import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { FullstopError } from '../../errors.ts';

/** Raised with every change of the tables below or of the stored shapes in codec.ts. */
export const SCHEMA_VERSION = 1;

export interface ConnectionOptions {
  directory: string;
  /** Upper bound of the database in pages of 4 KiB; 0: none. For tests of a full disk. */
  maxPages: number;
}

/**
 * An execution is known by a small integer `n` in every other table. Status: 0 Pending, 1 Running, 2 Complete,
 * 3 Failed; `status < 2` is "live". What every commit rewrites is in `executions`; what never changes and may
 * be big is in `starts`. One row of `events` holds the events of one commit, under the first one's number.
 *
 * An index costs each start or end of an execution, never an ordinary commit: none has a column that those
 * change.
 */
const TABLES = `
  CREATE TABLE executions (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL,
    workflow TEXT NOT NULL,
    status INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    parent TEXT,
    place TEXT,
    item INTEGER,
    engine TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    v INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    stop_request TEXT,
    stop_at INTEGER,
    error TEXT,
    error_code TEXT,
    facts TEXT NOT NULL,
    machine TEXT NOT NULL,
    outputs TEXT,
    outputs_file TEXT
  );
  CREATE INDEX live ON executions (id) WHERE status < 2;
  CREATE INDEX live_by_time ON executions (created_at) WHERE status < 2;
  CREATE INDEX intents ON executions (id) WHERE status < 2 AND stop_request IS NOT NULL;
  CREATE INDEX stopped_by_time ON executions (created_at) WHERE stop_request IS NOT NULL;
  CREATE INDEX failed_by_time ON executions (created_at) WHERE status = 3;
  CREATE INDEX children ON executions (parent, place, item) WHERE parent IS NOT NULL;
  CREATE INDEX roots ON executions (created_at) WHERE parent IS NULL;
  CREATE INDEX roots_of_project ON executions (project, created_at) WHERE parent IS NULL;
  CREATE INDEX roots_of_workflow ON executions (project, workflow, created_at) WHERE parent IS NULL;
  CREATE INDEX roots_ended ON executions (ended_at) WHERE parent IS NULL AND ended_at IS NOT NULL;

  CREATE TABLE starts (
    n INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    unique_key TEXT,
    body_hash TEXT,
    input TEXT NOT NULL
  );
  CREATE UNIQUE INDEX starts_by_key ON starts (project, unique_key) WHERE unique_key IS NOT NULL;

  CREATE TABLE nodes (n INTEGER, key TEXT, body TEXT NOT NULL, PRIMARY KEY (n, key)) WITHOUT ROWID;
  CREATE TABLE events (n INTEGER, seq INTEGER, body TEXT NOT NULL, PRIMARY KEY (n, seq)) WITHOUT ROWID;
  CREATE TABLE results (n INTEGER, key TEXT, attempt TEXT, output TEXT, file TEXT,
    PRIMARY KEY (n, key, attempt)) WITHOUT ROWID;
  CREATE TABLE triggers (n INTEGER, id TEXT, name TEXT NOT NULL, payload TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (n, id)) WITHOUT ROWID;
  CREATE TABLE receipts (n INTEGER PRIMARY KEY, body TEXT NOT NULL);
  CREATE TABLE tasks (id TEXT PRIMARY KEY, n INTEGER NOT NULL, queued_at INTEGER NOT NULL, body TEXT NOT NULL,
    worker TEXT, token_hash TEXT, claimed_at INTEGER) WITHOUT ROWID;
  CREATE INDEX tasks_of ON tasks (n);
  CREATE TABLE files (n INTEGER, name TEXT, PRIMARY KEY (n, name)) WITHOUT ROWID;

  CREATE TABLE workflows (project TEXT, name TEXT, disabled INTEGER NOT NULL, PRIMARY KEY (project, name)) WITHOUT ROWID;
  CREATE TABLE definitions (project TEXT, name TEXT, hash TEXT, version INTEGER NOT NULL, turn INTEGER NOT NULL,
    saved_at INTEGER NOT NULL, source TEXT NOT NULL, PRIMARY KEY (project, name, hash));
  CREATE TABLE audit (turn INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, project TEXT, outcome TEXT, body TEXT NOT NULL);
  CREATE INDEX audit_of_project ON audit (project) WHERE project IS NOT NULL;
  CREATE TABLE keys (id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, project TEXT, body TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE probe (body BLOB);
`;

export function databasePath(directory: string): string {
  return join(directory, 'fullstop.sqlite');
}

/**
 * The connection that writes, its tables created where they are missing.
 *
 * @throws FS_INVALID when a newer Fullstop wrote the database.
 */
export function openForWriting({ directory, maxPages }: ConnectionOptions): DatabaseSync {
  const db = new DatabaseSync(databasePath(directory), { returnArrays: true, timeout: 1000 });
  try {
    const [version] = db.prepare('PRAGMA user_version').get() as unknown as [number];
    if (version > SCHEMA_VERSION) {
      throw new FullstopError(
        'FS_INVALID',
        `the database in ${directory} has schema version ${version}, this Fullstop reads up to ${SCHEMA_VERSION}: ` +
          'start the newer Fullstop that wrote it, or choose another directory',
      );
    }
    // A checkpoint every 2,000 pages stalls a commit for some 10 ms; one of 16,000 pages for 40.
    db.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = FULL;
      PRAGMA wal_autocheckpoint = 2000;
      PRAGMA journal_size_limit = 67108864;
      PRAGMA cache_size = -16000;
    `);
    if (maxPages > 0) db.exec(`PRAGMA max_page_count = ${Math.trunc(maxPages)}`);
    if (version === 0) db.exec(`BEGIN; ${TABLES} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** The connection of lists and downloads: it sees what was committed before its read began, and blocks nobody. */
export function openForReading({ directory }: ConnectionOptions): DatabaseSync {
  const db = new DatabaseSync(databasePath(directory), { returnArrays: true, readOnly: true, timeout: 5000 });
  db.exec('PRAGMA cache_size = -4000');
  return db;
}
