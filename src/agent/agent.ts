/**
 * The External Agent: picks up the tasks of its pool, runs allowed tools on its own machine, and returns results.
 *
 * Nobody can cancel what it has picked up. A stop makes the node Failed at once; the tool here runs on, and its
 * late result is answered as discarded.
 */
import type { Clock } from '../ports/clock.ts';
import type { LinkLog } from '../worker/engine-link.ts';
import { type RunningWorker, startWorker } from '../worker/worker.ts';
import { createToolExecutor, type Environment, findTools } from './tool.ts';

export interface AgentOptions {
  url: string;
  key: string;
  pool: string;
  /** Tools it runs: names of programs in its PATH, or paths. */
  allow: string[];
  /** Tasks at once. */
  slots: number;
  /** Its own variables: tools inherit them without FULLSTOP_… */
  env: Environment;
  clock: Clock;
  logger: LinkLog;
  /** For people; default: the host's name. */
  name?: string;
}

/**
 * Starts an agent. Closing it ends its tools after the grace period: only its own operator can do that.
 * @throws FS_INVALID for an allowed tool that is no program
 */
export function startAgent(options: AgentOptions): RunningWorker {
  const { url, key, pool, allow, slots, env, clock, logger, name } = options;
  const tools = findTools(allow, env);
  return startWorker({
    url,
    key,
    agentOf: pool,
    capabilities: [...tools.keys()],
    slots,
    executors: new Map([['agent', createToolExecutor({ tools, env })]]),
    clock,
    logger,
    ...(name === undefined ? {} : { name }),
  });
}
