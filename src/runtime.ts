/** The composition root: the only file that picks adapters. */
import { createRequire } from 'node:module';
import { type Logger, pino } from 'pino';
import { createExpressions } from './adapters/expressions/expressions.ts';
import { type BusMessage, SocketIoBus } from './adapters/socket-io/bus.ts';
import type { EngineLink } from './adapters/socket-io/link.ts';
import { Relay, type RelayOptions } from './adapters/socket-io/relay.ts';
import { createSqliteStore } from './adapters/sqlite/store.ts';
import { systemClock } from './adapters/system/clock.ts';
import { systemIds, systemTokens } from './adapters/system/ids.ts';
import { giveMemoryBackWhenIdle } from './adapters/system/memory.ts';
import {
  type Config,
  databaseOf,
  loadAdminKey,
  processEnvironment,
  readServerFile,
  removeServerFile,
  writeServerFile,
} from './config.ts';
import { CurrentEngine } from './current-engine.ts';
import type { Demo, SeededExecution } from './demo/demo.ts';
import type { EngineApi } from './engine/api.ts';
import { createEngine, type EngineOptions } from './engine/engine.ts';
import type { EnginePorts } from './engine/environment.ts';
import { messageOf } from './errors.ts';
import type { ExecutionStore } from './ports/store.ts';
import { hashKey } from './server/access.ts';
import { createServer, type RunningServer, urlOf } from './server/server.ts';
import { openContainers, reapLeftovers } from './worker/containers.ts';
import { createExecutors } from './worker/executors.ts';
import { createInProcessPool } from './worker/pool.ts';

/** An engine on the given ports: what the server runs, and what a test runs on a virtual clock. */
export function composeEngine(ports: EnginePorts, options: Partial<EngineOptions> = {}): EngineApi {
  return createEngine(ports, options);
}

/** What an engine and its server announce on: alone, or over a link to the others. */
export function composeBus(others: RelayOptions | null = null): SocketIoBus {
  return new SocketIoBus(others === null ? null : new Relay<BusMessage>(others));
}

export interface FullstopServer {
  url: string;
  /** Opens the first visitor's session, once. */
  firstVisitUrl: string;
  demo: SeededExecution[];
  /** Resolves when this engine was drained by request where others go on with its work: then there is nothing left to do. */
  drained: Promise<void>;
  /** Drains and closes; resolves when everything is durable and the port is free. */
  close(): Promise<void>;
}

/** Between two tries to start an engine where one lost its lease. */
const RESTART_MS = 1_000;

/** How long an end waits for an engine that is just starting in another's place. */
const REPLACED_MS = 5_000;

/** What differs between one engine on its own database and several on a shared one. */
interface Ground {
  store: ExecutionStore;
  bus: SocketIoBus;
  /**
   * Names this process's containers in their labels; null: it runs none. Where it may be another machine's engine that
   * goes on with an execution, nobody there could prove that a container is gone: they are work for workers.
   */
  installation: string | null;
}

async function openAlone(config: Config, logger: Logger): Promise<Ground> {
  if (config.redisUrl !== null) {
    logger.warn('REDIS_URL is not used: it carries what several engines tell each other, and those need MONGODB_URI');
  }
  const store = createSqliteStore({ directory: config.dataDir });
  await store.open();
  return { store, bus: composeBus(), installation: await installationOf(store) };
}

/** @throws FS_INVALID, FS_UNAVAILABLE when MongoDB is not what engines need, or not there */
async function openShared(config: Config, uri: string, logger: Logger): Promise<Ground> {
  const [{ createMongoStore }, { awaitMongo }, link] = await Promise.all([
    import('./adapters/mongo/store.ts'),
    import('./adapters/mongo/reach.ts'),
    openLink(config, uri, logger),
  ]);
  await awaitMongo({ uri, waiting: sparsely((why) => logger.warn({ why }, 'waiting for MongoDB')) });
  if (config.adminKey === null) {
    logger.warn(
      'FULLSTOP_ADMIN_KEY is not set: the first admin key is of this engine alone, the others do not know it',
    );
  }
  if (config.images.length > 0) {
    logger.warn('FULLSTOP_IMAGES is not used: engines that share a database run no containers, workers do');
  }
  const store = createMongoStore({ uri, database: databaseOf(uri) });
  await store.open();
  const bus = composeBus({ link, clock: systemClock, id: systemIds.next() });
  await bus.open();
  return { store, bus, installation: null };
}

async function openLink(config: Config, uri: string, log: Logger): Promise<EngineLink> {
  const database = databaseOf(uri);
  if (config.redisUrl === null) {
    const { createMongoLink } = await import('./adapters/socket-io/mongo-link.ts');
    return createMongoLink({ uri, database, log });
  }
  const { createRedisLink } = await import('./adapters/socket-io/redis-link.ts');
  return createRedisLink({ url: config.redisUrl, channel: `fullstop:${database}`, log });
}

/**
 * Opens the data directory, or the database that engines share, recovers, and serves.
 * @throws FS_LOCKED when another server has the directory.
 */
export async function startServer(config: Config, logger = pino({ level: config.logLevel })): Promise<FullstopServer> {
  const { mongodbUri } = config;
  const ground = mongodbUri === null ? await openAlone(config, logger) : await openShared(config, mongodbUri, logger);
  const { store, bus } = ground;
  const expressions = createExpressions();
  let demo: Demo | null = null;
  let url = config.advertisedUrl ?? (config.port === 0 ? null : urlOf(config));
  let ending = false;
  let noteDrained = (): void => {};
  const drained = new Promise<void>((resolve) => {
    noteDrained = resolve;
  });

  /** An engine with what runs its tasks in this process: one that lost its lease leaves both to its successor. */
  function makeEngine(): OwnEngine {
    const { installation } = ground;
    const containers = installation === null ? null : openContainers(config, installation);
    const executors = createExecutors({
      config,
      containers,
      env: processEnvironment(),
      allow: (host, port, task) => demo?.allow(host, port, task) === true,
    });
    const pool = createInProcessPool({ executors, clock: systemClock, slots: config.slots });
    const engine = composeEngine(
      { store, bus, clock: systemClock, ids: systemIds, expressions, work: pool, tokens: systemTokens, log: logger },
      {
        maxRunning: config.maxRunning,
        retentionMs: config.retentionMs,
        version: version(),
        url: () => url,
        onGone(why) {
          if (why === 'fenced') replacing = replacing.then(() => replace(engine));
          else if (store.cluster !== null) noteDrained();
          // Nobody takes over: it stays, and takes nothing more.
          else void engine.drain(config.drainMs);
        },
      },
    );
    const stopReaping = containers === null ? null : reapLeftovers(containers, (message) => logger.warn(message));
    return {
      engine,
      async close() {
        stopReaping?.();
        await pool.close();
      },
    };
  }

  let own = makeEngine();
  let replacing = Promise.resolve();
  const current = new CurrentEngine(own.engine);
  let server: RunningServer | null = null;

  /** Its lease ran out: a new engine begins with nothing, and takes its share of what nobody owns. */
  async function replace(lost: EngineApi): Promise<void> {
    if (own.engine !== lost || ending) return;
    current.vacate('this engine could not renew its lease: a new one starts as soon as the database answers');
    const before = own;
    const closed = before
      .close()
      .catch((error: unknown) => logger.warn({ error: messageOf(error) }, 'not all tasks ended'));
    while (!ending) {
      own = makeEngine();
      try {
        await own.engine.start();
        break;
      } catch (error) {
        logger.warn({ error: messageOf(error) }, 'the new engine does not start yet');
        await own.engine.drain(0);
        await own.close();
        await new Promise((resolve) => setTimeout(resolve, RESTART_MS));
      }
    }
    if (ending) return own.engine.drain(0);
    current.replace(own.engine);
    // They come back, and say what they hold.
    server?.hangUpOnWorkers();
    await closed;
  }

  const stopCollecting = giveMemoryBackWhenIdle();
  const closeAll = async (): Promise<void> => {
    stopCollecting();
    await own.close();
    await expressions.close();
    await demo?.close();
    // Behind what the engine said at last.
    await bus.close();
    await store.close();
  };
  try {
    if (config.demo) demo = await (await import('./demo/demo.ts')).startDemo({ store });
    await current.start();
    const listening = await createServer({
      store,
      engine: current,
      workers: current.workers,
      bus,
      clock: systemClock,
      ids: systemIds,
      logger,
      config: {
        host: config.host,
        port: config.port,
        advertisedUrl: config.advertisedUrl,
        adminKeyHash: hashKey(loadAdminKey(config)),
        drainMs: config.drainMs,
        inspectOrigins: config.inspect ? config.inspectOrigins : null,
      },
    });
    server = listening;
    url ??= listening.url;
    const seeded = demo === null ? [] : await demo.seed(current);
    writeServerFile(config.dataDir, { url: listening.url, pid: process.pid });
    return {
      url: listening.url,
      firstVisitUrl: listening.firstVisitUrl,
      demo: seeded,
      drained,
      async close() {
        ending = true;
        await current.drain(config.drainMs);
        await listening.close();
        await Promise.race([replacing, new Promise((resolve) => setTimeout(resolve, REPLACED_MS))]);
        // Another engine of the shared database may have the directory by now.
        if (readServerFile(config.dataDir)?.pid === process.pid) removeServerFile(config.dataDir);
        await closeAll();
      },
    };
  } catch (error) {
    ending = true;
    await current.drain(0);
    await closeAll();
    throw error;
  }
}

interface OwnEngine {
  engine: EngineApi;
  /** Ends the tasks of this process. */
  close(): Promise<void>;
}

/** Names this data directory in the labels of its containers, through every restart. */
async function installationOf(store: ExecutionStore): Promise<string> {
  const known = (await store.getSetting('installation')) as { id: string } | null;
  if (known !== null) return known.id;
  const id = `engine:${systemIds.next()}`;
  await store.putSetting('installation', { id });
  return id;
}

/** Calls `run` at the first call, and then at most every five seconds. */
function sparsely(run: (why: string) => void): (why: string) => void {
  let againAtMs = 0;
  return (why) => {
    if (performance.now() < againAtMs) return;
    againAtMs = performance.now() + 5_000;
    run(why);
  };
}

/** Of this package. */
function version(): string {
  return (createRequire(import.meta.url)('fullstop/package.json') as { version: string }).version;
}
