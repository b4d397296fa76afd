/** The composition root: the only file that picks adapters. */
import { createRequire } from 'node:module';
import { pino } from 'pino';
import { createExpressions } from './adapters/expressions/expressions.ts';
import { SocketIoBus } from './adapters/socket-io/bus.ts';
import { createSqliteStore } from './adapters/sqlite/store.ts';
import { systemClock } from './adapters/system/clock.ts';
import { systemIds, systemTokens } from './adapters/system/ids.ts';
import { giveMemoryBackWhenIdle } from './adapters/system/memory.ts';
import { type Config, loadAdminKey, processEnvironment, removeServerFile, writeServerFile } from './config.ts';
import type { Demo, SeededExecution } from './demo/demo.ts';
import type { EngineApi } from './engine/api.ts';
import { createEngine, type EngineOptions } from './engine/engine.ts';
import type { EnginePorts } from './engine/environment.ts';
import type { ExecutionStore } from './ports/store.ts';
import { hashKey } from './server/access.ts';
import { createServer } from './server/server.ts';
import { openContainers, reapLeftovers } from './worker/containers.ts';
import { createExecutors } from './worker/executors.ts';
import { createInProcessPool } from './worker/pool.ts';

/** An engine on the given ports: what the server runs, and what a test runs on a virtual clock. */
export function composeEngine(ports: EnginePorts, options: Partial<EngineOptions> = {}): EngineApi {
  return createEngine(ports, options);
}

export interface FullstopServer {
  url: string;
  /** Opens the first visitor's session, once. */
  firstVisitUrl: string;
  demo: SeededExecution[];
  /** Drains and closes; resolves when everything is durable and the port is free. */
  close(): Promise<void>;
}

/**
 * Opens the data directory, recovers, and serves.
 * @throws FS_LOCKED when another server has the directory.
 */
export async function startServer(config: Config, logger = pino({ level: config.logLevel })): Promise<FullstopServer> {
  const store = createSqliteStore({ directory: config.dataDir });
  await store.open();
  const expressions = createExpressions();
  let demo: Demo | null = null;
  const containers = openContainers(config, await installationOf(store));
  const executors = createExecutors({
    config,
    containers,
    env: processEnvironment(),
    allow: (host, port, task) => demo?.allow(host, port, task) === true,
  });
  const pool = createInProcessPool({ executors, clock: systemClock, slots: config.slots });
  const bus = new SocketIoBus();
  const engine = composeEngine(
    { store, bus, clock: systemClock, ids: systemIds, expressions, work: pool, tokens: systemTokens, log: logger },
    { maxRunning: config.maxRunning, retentionMs: config.retentionMs, version: version() },
  );
  const stopCollecting = giveMemoryBackWhenIdle();
  const stopReaping = containers === null ? null : reapLeftovers(containers, (message) => logger.warn(message));
  const closeAll = async (): Promise<void> => {
    stopCollecting();
    stopReaping?.();
    await pool.close();
    await expressions.close();
    await demo?.close();
    await store.close();
  };
  try {
    if (config.demo) demo = await (await import('./demo/demo.ts')).startDemo({ store });
    await engine.start();
    const server = await createServer({
      store,
      engine,
      workers: engine.workers,
      bus,
      clock: systemClock,
      ids: systemIds,
      logger,
      config: {
        host: config.host,
        port: config.port,
        adminKeyHash: hashKey(loadAdminKey(config)),
        drainMs: config.drainMs,
        inspectOrigins: config.inspect ? config.inspectOrigins : null,
      },
    });
    const seeded = demo === null ? [] : await demo.seed(engine);
    writeServerFile(config.dataDir, { url: server.url, pid: process.pid });
    return {
      url: server.url,
      firstVisitUrl: server.firstVisitUrl,
      demo: seeded,
      async close() {
        await engine.drain(config.drainMs);
        await server.close();
        removeServerFile(config.dataDir);
        await closeAll();
      },
    };
  } catch (error) {
    await engine.drain(0);
    await closeAll();
    throw error;
  }
}

/** Names this data directory in the labels of its containers, through every restart. */
async function installationOf(store: ExecutionStore): Promise<string> {
  const known = (await store.getSetting('installation')) as { id: string } | null;
  if (known !== null) return known.id;
  const id = `engine:${systemIds.next()}`;
  await store.putSetting('installation', { id });
  return id;
}

/** Of this package. */
function version(): string {
  return (createRequire(import.meta.url)('fullstop/package.json') as { version: string }).version;
}
