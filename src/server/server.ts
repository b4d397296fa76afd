/** The server: HTTP and Socket.IO on one port, over a store and an engine. */
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { SocketIoBus } from '../adapters/socket-io/bus.ts';
import type { EngineApi } from '../engine/api.ts';
import type { Clock } from '../ports/clock.ts';
import type { Ids } from '../ports/ids.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { WorkerGate } from '../ports/workers.ts';
import { Access } from './access.ts';
import { Audit } from './audit.ts';
import { FrozenSets } from './frozen-sets.ts';
import { createHttp } from './http.ts';
import { openInspectSocket } from './inspect-socket.ts';
import { InspectionTokens } from './inspection-tokens.ts';
import { Metrics } from './metrics.ts';
import { Origins } from './origins.ts';
import { createSockets, type Sockets } from './sockets.ts';
import { verbs } from './verbs/table.ts';
import type { Context } from './verbs/verb.ts';
import { watchKeys } from './watch-keys.ts';
import { openWorkerNamespaces, type WorkerTimes } from './workers.ts';

export interface ServerOptions {
  store: ExecutionStore;
  engine: EngineApi;
  /** The one the engine announces on; without it subscriptions replay, and hear nothing new. */
  bus?: SocketIoBus;
  /** Takes in workers and agents; without it their namespaces are not there. */
  workers?: WorkerGate;
  workerTimes?: WorkerTimes;
  clock: Clock;
  ids: Ids;
  logger: Logger;
  config: {
    host: string;
    /** 0 picks one. */
    port: number;
    /** Where others reach it; null or left out: the address it listens on. */
    advertisedUrl?: string | null;
    /** SHA-256 of the first admin's key, as `hashKey` gives it. */
    adminKeyHash: string;
    /** What a drain asked for by `engine.drain` gives running attempts. */
    drainMs: number;
    /** Pages elsewhere that may show inspections, as `https://viewer.example`; null: no inspection at all. */
    inspectOrigins?: readonly string[] | null;
  };
}

export interface RunningServer {
  url: string;
  /** Opens the first visitor's session, once. */
  firstVisitUrl: string;
  /** Workers and agents connect again. */
  hangUpOnWorkers(): void;
  /** Hangs up on everybody and resolves when the port is free. */
  close(): Promise<void>;
}

/** Resolves when the server listens. @throws what `listen` does, such as EADDRINUSE. */
export async function createServer(options: ServerOptions): Promise<RunningServer> {
  const { store, engine, clock, ids, logger, config, bus = new SocketIoBus(), workers = null } = options;
  const access = new Access(store, clock, config.adminKeyHash);
  const audit = new Audit(store, clock, ids, logger);
  const origins = new Origins(config.host);
  const { inspectOrigins = [] } = config;
  const inspections = new InspectionTokens(clock, inspectOrigins !== null);
  const keyed: Pick<Sockets, 'closeSocketsOf'>[] = [];
  const closeSocketsHere = (keyId: string): void => {
    for (const one of keyed) one.closeSocketsOf(keyId);
  };
  const context: Context = {
    store,
    engine,
    workers,
    clock,
    ids,
    access,
    audit,
    frozenSets: new FrozenSets(clock, ids, store),
    inspections,
    closeSocketsOf(keyId) {
      closeSocketsHere(keyId);
      bus.tell({ kind: 'key.deleted', id: keyId });
    },
    drainMs: config.drainMs,
    logger,
  };
  const http = createHttp({ context, origins, metrics: new Metrics(engine, inspections, bus), verbs });
  const sockets = createSockets(http.server, { context, origins, bus, verbs });
  const { io } = sockets;
  const inspectSocket = openInspectSocket(http.server, { context, origins, allowed: inspectOrigins ?? [], verbs });
  keyed.push(sockets, inspectSocket);
  if (workers !== null) {
    const times = options.workerTimes;
    keyed.push(openWorkerNamespaces(io, { context, gate: workers, bus, ...(times === undefined ? {} : { times }) }));
  }
  const forget = (keyId: string): void => {
    access.forget(keyId);
    closeSocketsHere(keyId);
  };
  bus.onHint((hint) => {
    if (hint.kind === 'key.deleted') forget(hint.id);
  });
  const watch = store.cluster === null ? null : watchKeys({ store, logger, inUse: () => sockets.keysInUse(), forget });
  await http.listen({ host: config.host, port: config.port });
  const { port } = http.server.address() as AddressInfo;
  const url = urlOf({ host: config.host, port });
  return {
    url,
    firstVisitUrl: (config.advertisedUrl ?? url) + access.createFirstVisit(),
    hangUpOnWorkers() {
      for (const name of ['/workers', '/agents']) if (workers !== null) io.of(name).disconnectSockets(true);
    },
    async close() {
      watch?.close();
      sockets.close();
      inspectSocket.close();
      io.disconnectSockets(true);
      io.engine.close();
      await http.close();
      await audit.settled();
    },
  };
}

/** What to type in a browser on this machine. */
export function urlOf({ host, port }: { host: string; port: number }): string {
  if (host === '0.0.0.0' || host === '::') return `http://127.0.0.1:${port}`;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
