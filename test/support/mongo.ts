/**
 * A MongoDB replica set for tests, wherever one can be had: a server of `MONGODB_URI`, or members of a test's own from
 * `MONGOMS_SYSTEM_BINARY`, from `mongod` on the PATH, from the folder that `npm run mongod` fills, or from
 * mongodb-memory-server's own download. Where there is none the tests are skipped and say so; in CI that is a failure.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { MongoClient } from 'mongodb';
import { MongoMemoryReplSet } from 'mongodb-memory-server-core';
import { messageOf } from '../../src/errors.ts';
import { opened } from './leaks.ts';
import { ownMongod, ownVersion } from './mongod.ts';

export interface TestMongoOptions {
  /** 1 (the default) is quick; 3 for elections and majorities. */
  members?: number;
  /** A set of this test alone, whose members it may stop: not that of `MONGODB_URI`. */
  own?: boolean;
  /** More arguments for each `mongod`. */
  args?: string[];
}

const LAUNCH_MS = 60_000;
/** Elections in a second or two, not in ten. */
const ELECTION_MS = 1_500;
const SELECTION_MS = 5_000;

export class TestMongo {
  /** Without a database. */
  readonly uri: string;
  /** null: the server of `MONGODB_URI`. */
  readonly set: MongoMemoryReplSet | null;
  readonly #databases: string[] = [];
  readonly #noteClosed = opened('mongo');

  private constructor(uri: string, set: MongoMemoryReplSet | null) {
    this.uri = uri;
    this.set = set;
  }

  /** @returns why there is none, as text; in CI it throws instead */
  static async start(options: TestMongoOptions = {}): Promise<TestMongo | string> {
    try {
      const given = process.env['MONGODB_URI'];
      if (given !== undefined && given !== '' && options.own !== true && (options.members ?? 1) === 1) {
        return await TestMongo.#connect(given);
      }
      return await TestMongo.#launch(options);
    } catch (error) {
      const why = `no MongoDB can run here: ${messageOf(error)} (npm run mongod may bring one)`;
      if (inCi()) throw new Error(why, { cause: error });
      return why;
    }
  }

  static async #connect(uri: string): Promise<TestMongo> {
    const client = new MongoClient(uri, { serverSelectionTimeoutMS: SELECTION_MS });
    try {
      await client.db('admin').command({ ping: 1 });
    } finally {
      await client.close();
    }
    return new TestMongo(uri, null);
  }

  static async #launch({ members = 1, args = [] }: TestMongoOptions): Promise<TestMongo> {
    const systemBinary = findMongod();
    const set = await MongoMemoryReplSet.create({
      binary: systemBinary === null ? {} : { systemBinary, version: versionOf(systemBinary) },
      instanceOpts: Array.from({ length: members }, () => ({ launchTimeout: LAUNCH_MS })),
      replSet: {
        count: members,
        storageEngine: 'wiredTiger',
        args: ['--setParameter', 'enableTestCommands=1', '--wiredTigerCacheSizeGB', '0.25', ...args],
        configSettings: { electionTimeoutMillis: ELECTION_MS, heartbeatIntervalMillis: 500 },
      },
    });
    return new TestMongo(set.getUri(), set);
  }

  /** The name of a database that is empty, and dropped in the end. */
  freshDatabase(): string {
    const name = `fullstop-test-${randomBytes(6).toString('hex')}`;
    this.#databases.push(name);
    return name;
  }

  /** With a database in its path. */
  uriOf(database: string): string {
    // No URL in the sense of the standard where it names several members.
    return this.uri.replace(/^(mongodb(?:\+srv)?:\/\/[^/?]+)\/?[^?]*/, `$1/${database}`);
  }

  async close(): Promise<void> {
    if (this.set !== null) await this.set.stop({ doCleanup: true, force: true });
    else await this.#dropDatabases();
    this.#noteClosed();
  }

  async #dropDatabases(): Promise<void> {
    const client = new MongoClient(this.uri);
    try {
      for (const name of this.#databases) await client.db(name).dropDatabase();
    } finally {
      await client.close();
    }
  }
}

/** For a `before` hook: skips its suite where there is no MongoDB, and says why. */
export async function mongoOrSkip(context: Mocha.Context, options: TestMongoOptions = {}): Promise<TestMongo> {
  context.timeout(300_000);
  const mongo = await TestMongo.start(options);
  if (typeof mongo !== 'string') return mongo;
  console.log(`      skipped: ${mongo}`);
  return context.skip();
}

/** null: mongodb-memory-server looks for one, and downloads it. */
function findMongod(): string | null {
  const given = process.env['MONGOMS_SYSTEM_BINARY'];
  if (given !== undefined && given !== '') return given;
  const onPath = (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((folder) => join(folder, 'mongod'))
    .find(isExecutable);
  return onPath ?? (existsSync(ownMongod) ? ownMongod : null);
}

function versionOf(mongod: string): string {
  if (mongod === ownMongod) return ownVersion;
  const { stdout } = spawnSync(mongod, ['--version'], { encoding: 'utf8' });
  const version = /db version v(\d+\.\d+\.\d+)/.exec(stdout ?? '')?.[1];
  if (version === undefined) throw new Error(`${mongod} does not tell its version`);
  return version;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function inCi(): boolean {
  const ci = process.env['CI'];
  return ci !== undefined && ci !== '' && ci !== 'false';
}
