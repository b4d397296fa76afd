/**
 * Secrets in tasks: looked up when a task runs, and taken out of everything that leaves it.
 *
 * A task holds references, and says where: only those places, and only the names that the definition has there, are
 * resolved. Text that reads the same but came from data stays text.
 */
import { readFile, stat } from 'node:fs/promises';
import { parseEnv } from 'node:util';
import type { Environment, SecretsSetting } from '../config.ts';
import { FullstopError, messageOf } from '../errors.ts';
import type { Task, TaskLog } from '../ports/work.ts';
import { AbortedAs, type Executor } from './executor.ts';
import { Redactor } from './redact.ts';

export { redact } from './redact.ts';

/** Where secrets come from. */
export interface SecretSource {
  /** @throws FS_SECRET when there is none of that name; the message has no value in it. */
  get(name: string): Promise<string>;
}

/** An executor that cuts texts short: it hides secrets in them first, or a part of one would be left at the cut. */
export interface HidingExecutor extends Executor {
  run(task: Task, signal: AbortSignal, log: TaskLog, hide?: Hide): Promise<unknown>;
}

export type Hide = (text: string) => string;

export const hideNothing: Hide = (text) => text;

/** The secrets of FULLSTOP_SECRETS; null: there are none. */
export function openSecrets(setting: SecretsSetting | null, env: Environment): SecretSource {
  if (setting === null) {
    return {
      get: async (name) => {
        throw unknown(name, 'no secrets are set up (FULLSTOP_SECRETS)');
      },
    };
  }
  return setting.kind === 'env' ? environmentSecrets(setting.prefix, env) : new FileSecrets(setting.path);
}

function environmentSecrets(prefix: string, env: Environment): SecretSource {
  return {
    async get(name) {
      const value = env[prefix + name];
      if (value === undefined || value === '')
        throw unknown(name, `the environment variable ${prefix}${name} is not set`);
      return value;
    },
  };
}

/** JSON object or KEY=VALUE lines, read again when the file has changed. */
class FileSecrets implements SecretSource {
  readonly #path: string;
  #version = '';
  #values = new Map<string, unknown>();

  constructor(path: string) {
    this.#path = path;
  }

  async get(name: string): Promise<string> {
    const value = (await this.#read()).get(name);
    if (value === undefined || value === '') throw unknown(name, 'the file of FULLSTOP_SECRETS does not have it');
    if (typeof value !== 'string') throw unknown(name, 'in the file of FULLSTOP_SECRETS it is not a text');
    return value;
  }

  async #read(): Promise<Map<string, unknown>> {
    let text: string;
    try {
      const { mtimeMs, ctimeMs, size, ino } = await stat(this.#path);
      const version = `${mtimeMs} ${ctimeMs} ${size} ${ino}`;
      if (version === this.#version) return this.#values;
      text = await readFile(this.#path, 'utf8');
      this.#values = parseSecrets(text);
      this.#version = version;
      return this.#values;
    } catch (error) {
      // A message of the parser would quote the file.
      const { code } = error as { code?: unknown };
      const why =
        typeof code === 'string' ? `cannot be read (${code})` : 'is neither a JSON object nor KEY=VALUE lines';
      // It may be in the middle of being replaced.
      throw new FullstopError('FS_SECRET', `the file of FULLSTOP_SECRETS ${why}`, { retryable: true });
    }
  }
}

/** @throws for text that begins like JSON and is no object. */
function parseSecrets(text: string): Map<string, unknown> {
  const trimmed = text.replace(/^\uFEFF/, '').trimStart();
  const values: unknown = /^[{["]/.test(trimmed) ? JSON.parse(trimmed) : parseEnv(trimmed);
  if (typeof values !== 'object' || values === null || Array.isArray(values)) throw new TypeError('not an object');
  return new Map(Object.entries(values));
}

function unknown(name: string, why: string): FullstopError {
  return new FullstopError('FS_SECRET', `secrets.${name} is not available: ${why}`);
}

/**
 * The task with its secrets in place, and their values.
 *
 * @throws FS_SECRET for an unknown name, and when data brought the text of a reference into a string that names the
 * same secret itself: which of the two is meant cannot be told.
 */
export async function withSecrets(task: Task, source: SecretSource): Promise<{ task: Task; values: string[] }> {
  if (task.secrets.length === 0) return { task, values: [] };
  const names = [...new Set(task.secrets.flatMap((reference) => reference.names))];
  const values = new Map(await Promise.all(names.map(async (name) => [name, await source.get(name)] as const)));
  let filled: unknown = task.with;
  for (const reference of task.secrets) {
    filled = replaceAt(filled, reference.path, 0, (text) => fill(text, reference.names, values));
  }
  return {
    task: { ...task, with: filled as Task['with'], secrets: [] },
    values: [...new Set(values.values())],
  };
}

const referencePattern = /\$\{\{\s*secrets\.([A-Za-z_]\w{0,62})\s*\}\}/g;

function fill(text: string, names: readonly string[], values: ReadonlyMap<string, string>): string {
  let count = 0;
  const filled = text.replace(referencePattern, (all, name: string) => {
    if (!names.includes(name)) return all;
    count += 1;
    return values.get(name) as string;
  });
  if (count !== names.length) {
    throw new FullstopError(
      'FS_SECRET',
      `a string that names secrets.${names[0]} also holds data that reads like the reference: put them in strings of their own`,
    );
  }
  return filled;
}

/** A copy of `value` with another string at `path`; what is beside the path is shared. */
function replaceAt(
  value: unknown,
  path: readonly (string | number)[],
  depth: number,
  replace: (text: string) => string,
): unknown {
  const key = path[depth];
  if (key === undefined && typeof value === 'string') return replace(value);
  if (key === undefined || typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) {
    throw new FullstopError('FS_INVALID', `with.${path.join('.')}: expected a text with a reference to a secret`);
  }
  const copy = (Array.isArray(value) ? [...value] : { ...value }) as Record<string | number, unknown>;
  copy[key] = replaceAt(copy[key], path, depth + 1, replace);
  return copy;
}

/** Resolves the secrets of an executor's tasks, and keeps them out of its outputs, errors and logs. */
export function resolvingSecrets(executor: HidingExecutor, source: SecretSource): Executor {
  return {
    async run(task, signal, log) {
      if (task.secrets.length === 0) return executor.run(task, signal, log);
      const resolved = await withSecrets(task, source);
      return hidingSecrets(resolved.values, log, (log, hide) => executor.run(resolved.task, signal, log, hide));
    },
    ...(executor.pursue === undefined ? {} : { pursue: executor.pursue.bind(executor) }),
    close: () => executor.close(),
  };
}

/** Runs work that knows secrets: its output, its error and its log come out without them. */
export async function hidingSecrets(
  values: readonly string[],
  log: TaskLog,
  work: (log: TaskLog, hide: Hide) => Promise<unknown>,
): Promise<unknown> {
  if (values.length === 0) return work(log, hideNothing);
  const redactor = new Redactor(values);
  const streams = {
    stdout: redactor.stream((text) => log('stdout', text)),
    stderr: redactor.stream((text) => log('stderr', text)),
  };
  try {
    return redactor.value(
      await work(
        (stream, text) => streams[stream].write(text),
        (text) => redactor.text(text),
      ),
    );
  } catch (error) {
    throw withoutSecrets(error, redactor);
  } finally {
    streams.stdout.end();
    streams.stderr.end();
  }
}

/** The same error without its cause, which may be anything and is for nobody outside. */
function withoutSecrets(error: unknown, redactor: Redactor): unknown {
  if (error instanceof AbortedAs) return error;
  const message = messageOf(error);
  const hidden = redactor.text(message);
  if (error instanceof FullstopError) {
    if (hidden === message && error.cause === undefined && error.details === null) return error;
    const details = redactor.value(error.details);
    return new FullstopError(error.code, hidden, { retryable: error.retryable, details });
  }
  if (hidden === message && error instanceof Error && error.cause === undefined) return error;
  return new FullstopError('FS_FAILED', hidden);
}
