import type { Config, Environment } from '../config.ts';
import { FullstopError } from '../errors.ts';
import { variableOf } from '../model-settings.ts';
import { createAiExecutor } from './ai.ts';
import type { ContainerExecutor } from './container.ts';
import type { Executor } from './executor.ts';
import { allowHosts, type HttpAllow } from './guard.ts';
import { createHttpExecutor } from './http.ts';
import { type HidingExecutor, openSecrets, resolvingSecrets } from './secrets.ts';

export interface ExecutorsOptions {
  config: Pick<Config, 'httpAllow' | 'models' | 'secrets'>;
  /** Where keys of models and secrets are, if the configuration says so. */
  env: Environment;
  /** Lets more hosts through the guard of http nodes than the configuration does. */
  allow?: HttpAllow;
  /** Runs container tasks; null: others must. */
  containers?: ContainerExecutor | null;
}

/** What a worker can run, by node type: the same in the server and in a process of its own. */
export function createExecutors({
  config,
  env,
  allow = () => false,
  containers = null,
}: ExecutorsOptions): Map<string, Executor> {
  const listed = allowHosts(config.httpAllow);
  const secrets = openSecrets(config.secrets, env);
  const executors: Record<string, HidingExecutor> = {
    http: createHttpExecutor({ allow: (host, port, task) => listed(host, port, task) || allow(host, port, task) }),
  };
  // Without a model its tasks wait for a worker that has one.
  if (Object.keys(config.models).length > 0) {
    executors['ai'] = createAiExecutor({
      models: config.models,
      resolveSecret: async (reference) => variable(env, reference),
    });
  }
  if (containers !== null) executors['container'] = containers;
  return new Map(Object.entries(executors).map(([type, executor]) => [type, resolvingSecrets(executor, secrets)]));
}

function variable(env: Environment, apiKey: string): string {
  const name = variableOf(apiKey);
  const value = env[name];
  if (value === undefined || value === '') {
    throw new FullstopError(
      'FS_SECRET',
      `the key of the model is not available: the environment variable ${name} is not set`,
    );
  }
  return value;
}
