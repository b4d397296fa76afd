import { hashDefinition } from '../definition/hash.ts';
import type { EngineApi } from '../engine/api.ts';
import { hasCode } from '../errors.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { HttpAllow } from '../worker/guard.ts';
import { type DemoEndpoint, startDemoEndpoint } from './endpoint.ts';
import { demoWorkflows } from './workflows.ts';

const project = 'default';
/** Where the store keeps what the demonstration must find again after a restart. */
const settingName = 'demo';

export interface Demo {
  endpoint: DemoEndpoint;
  /** Lets the demonstration's own tasks, and nobody else's, reach its endpoint. */
  allow: HttpAllow;
  /** Saves the workflows and starts one execution of each that has none alive; what it started, or found alive. */
  seed(engine: EngineApi): Promise<SeededExecution[]>;
  close(): Promise<void>;
}

export interface SeededExecution {
  name: string;
  executionId: string;
}

/**
 * Opens the demonstration on an open store, before the engine recovers executions that call its endpoint.
 *
 * The endpoint listens where it did last time if it can, so that executions go on after a restart.
 */
export async function startDemo({ store }: { store: ExecutionStore }): Promise<Demo> {
  const saved = (await store.getSetting(settingName)) as { port: number; hashes: string[] } | null;
  const endpoint = await startDemoEndpoint({ port: saved?.port ?? 0 });
  const workflows = demoWorkflows(endpoint.url).map((source) => ({
    name: source.name,
    source,
    hash: hashDefinition(source),
  }));
  const hashes = new Set([...(saved?.hashes ?? []), ...workflows.map(({ hash }) => hash)]);
  await store.putSetting(settingName, { port: endpoint.port, hashes: [...hashes] });

  return {
    endpoint,
    // By hash: a definition that somebody else saves under the same name is not the demonstration's.
    allow: (host, port, task) =>
      host === '127.0.0.1' && port === endpoint.port && task.project === project && hashes.has(task.workflowHash),

    async seed(engine) {
      const seeded: SeededExecution[] = [];
      for (const { name, source, hash } of workflows) {
        const last = await store.getDefinition(project, name);
        // Somebody made the name their own.
        if (last !== null && !hashes.has(last.hash)) continue;
        if (last?.hash !== hash) {
          await store.saveDefinition({ project, name, hash, source, savedAtMs: Date.now() });
          await engine.workflowChanged(project, name);
        }
        const executionId = (await liveExecution(store, name)) ?? (await start(engine, name));
        if (executionId !== null) seeded.push({ name, executionId });
      }
      return seeded;
    },

    close: () => endpoint.close(),
  };
}

async function liveExecution(store: ExecutionStore, workflow: string): Promise<string | null> {
  const { items } = await store.listExecutions({ project, workflow, live: true, limit: 1 });
  return items[0]?.id ?? null;
}

/** Null when an operator has disabled the workflow. */
async function start(engine: EngineApi, workflow: string): Promise<string | null> {
  try {
    const request = { project, workflow, input: {}, labels: { demo: 'true' }, idempotencyKey: null };
    return (await engine.startExecution(request)).header.id;
  } catch (error) {
    if (hasCode(error, 'FS_DISABLED')) return null;
    throw error;
  }
}
