import { MongoClient, MongoParseError, MongoServerError, MongoServerSelectionError } from 'mongodb';
import { FullstopError, messageOf } from '../../errors.ts';

export interface ReachOptions {
  uri: string;
  /** How long MongoDB may take to come up, ms. */
  withinMs?: number;
  /** Called now and then while it is waited for, with why. */
  waiting(why: string): void;
}

const WITHIN_MS = 60_000;
/** Of one attempt. */
const ATTEMPT_MS = 3_000;
const PAUSE_MS = 500;
const AUTHENTICATION_FAILED = 18;

/**
 * Waits until MongoDB can take writes as engines need them: transactions and change streams, so a replica set
 * (of one member, too) or a sharded cluster.
 *
 * @throws FS_INVALID a server that is neither, a URI or a user that it does not take; FS_UNAVAILABLE it did not come up
 */
export async function awaitMongo({ uri, withinMs = WITHIN_MS, waiting }: ReachOptions): Promise<void> {
  const untilMs = performance.now() + withinMs;
  for (;;) {
    const why = await attempt(uri, Math.min(ATTEMPT_MS, Math.max(PAUSE_MS, untilMs - performance.now())));
    if (why === null) return;
    if (performance.now() >= untilMs) {
      throw new FullstopError(
        'FS_UNAVAILABLE',
        `expected MongoDB at MONGODB_URI within ${withinMs / 1_000} s, found none that takes writes: ${why}`,
      );
    }
    waiting(why);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** null: it is there; otherwise why not yet. */
async function attempt(uri: string, ms: number): Promise<string | null> {
  let client: MongoClient;
  try {
    client = new MongoClient(uri, { serverSelectionTimeoutMS: ms, connectTimeoutMS: ms, appName: 'fullstop-start' });
  } catch (error) {
    throw new FullstopError('FS_INVALID', `MONGODB_URI: ${parseFault(error)}`);
  }
  try {
    const hello = await client.db('admin').command({ hello: 1 });
    if (typeof hello.setName === 'string' || hello.msg === 'isdbgrid') return null;
    throw new FullstopError(
      'FS_INVALID',
      'expected a replica set or a sharded cluster at MONGODB_URI, found a single server: start mongod with ' +
        '--replSet rs0 and run rs.initiate() once (one member is enough)',
    );
  } catch (error) {
    if (error instanceof FullstopError) throw error;
    if (error instanceof MongoParseError) throw new FullstopError('FS_INVALID', `MONGODB_URI: ${messageOf(error)}`);
    if (error instanceof MongoServerError && error.code === AUTHENTICATION_FAILED) {
      throw new FullstopError('FS_INVALID', 'MongoDB refuses the user or the password of MONGODB_URI: correct them');
    }
    return reasonOf(error);
  } finally {
    await client.close().catch(() => undefined);
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof MongoServerSelectionError)) return messageOf(error);
  const servers = [...(error.reason?.servers.values() ?? [])];
  if (servers.some(({ type }) => type === 'RSGhost')) {
    return 'its replica set is not initiated: run rs.initiate() once';
  }
  if (servers.length === 0) return 'no server of the URI is a member of the replica set that it names';
  if (servers.some(({ type }) => type.startsWith('RS'))) return 'its replica set has no primary';
  return messageOf(servers.find((server) => server.error !== null)?.error ?? error);
}

/** The driver repeats no password, but an invalid URI may be anything. */
function parseFault(error: unknown): string {
  return error instanceof MongoParseError ? messageOf(error) : 'expected a valid MongoDB URI';
}
