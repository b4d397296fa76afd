/**
 * What every verb of the command line shares: how it is declared, connects, answers and fails.
 */
import type { Command } from 'commander';
import type { Client } from '../client/index.ts';
import { type ClientConfig, resolveClientConfig } from '../config.ts';
import { FullstopError, hasCode, messageOf } from '../errors.ts';
import { paint, plain, type Terminal } from './terminal.ts';

/** Exit codes: part of the contract. */
export const exit = { ok: 0, failed: 1, usage: 2, stopped: 3, notFound: 4, stopTimedOut: 5 } as const;

/** A verb's module exports one of these as `define`. */
export type Define = (command: Command, cli: Cli) => void;

export interface CommonOptions {
  json?: boolean;
  url?: string;
  data?: string;
}

/** Bad arguments that only the verb itself can see. */
export class UsageError extends Error {}

/** A checkout may run compiled files too; a package is always under node_modules. */
const inCheckout = !import.meta.url.includes('/node_modules/');

/** A command as the reader can type it: in a checkout through npm, from a package by its name. */
export const spell = (rest: string): string => `${inCheckout ? 'npm run -s fullstop --' : 'fullstop'} ${rest}`;
export const startCommand = inCheckout ? 'npm start' : 'fullstop serve';

export class Cli {
  readonly terminal: Terminal;
  exitCode: number = exit.ok;

  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  /** An action for commander; a number it resolves to is the exit code, anything else is 0. */
  action<A extends unknown[]>(run: (...args: A) => Promise<unknown>): (...args: A) => Promise<void> {
    return async (...args) => {
      const code = await run(...args);
      this.exitCode = typeof code === 'number' ? code : exit.ok;
    };
  }

  /**
   * Connects, runs and closes.
   *
   * @throws FS_UNAVAILABLE and FS_UNAUTHENTICATED with what to do about it.
   */
  async withClient<T>(options: CommonOptions, run: (client: Client) => Promise<T>): Promise<T> {
    const config = clientConfig(this.terminal, options);
    const { connect } = await import('../client/index.ts');
    const client = connect({ url: config.url, ...(config.key === null ? {} : { key: config.key }) });
    try {
      await client.ready().catch((error: unknown) => {
        throw withRemedy(error, config);
      });
      return await run(client);
    } finally {
      client.close();
    }
  }

  /** A signal that aborts at the first SIGINT or SIGTERM. Call `done` when nobody listens any more. */
  interruptible(): { signal: AbortSignal; done(): void } {
    const controller = new AbortController();
    const done = this.terminal.onSignal((signal) => controller.abort(new Interrupted(signal)));
    return { signal: controller.signal, done };
  }

  json(value: unknown): void {
    this.terminal.out(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** One line of a stream of JSON values. */
  jsonLine(value: unknown): void {
    this.terminal.out(`${JSON.stringify(value)}\n`);
  }

  line(text: string): void {
    this.terminal.out(`${text}\n`);
  }

  /** A line for whoever watches; stderr, so that stdout stays the answer. */
  note(text: string): void {
    this.terminal.err(`${text}\n`);
  }

  /** True when the person says yes. */
  async confirm(question: string): Promise<boolean> {
    return /^y(es)?$/i.test((await this.terminal.ask(`${question} [y/N] `)).trim());
  }
}

/** The person pressed Ctrl-C, or the process was told to end. */
export class Interrupted extends Error {
  readonly exitCode: number;
  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`);
    this.exitCode = signal === 'SIGINT' ? 130 : 143;
  }
}

export function clientConfig(terminal: Terminal, options: CommonOptions): ClientConfig {
  return resolveClientConfig(terminal.env, {
    ...(options.url === undefined ? {} : { url: options.url }),
    ...(options.data === undefined ? {} : { data: options.data }),
  });
}

/** What the reader of a terminal does about a missing or unknown key. */
export function unknownKey(
  error: unknown,
  { url, key, keyFrom }: Pick<ClientConfig, 'url' | 'key' | 'keyFrom'>,
): FullstopError {
  const remedy =
    key === null
      ? 'needs a key: set FULLSTOP_KEY, or on its machine run this where its data directory is (or set FULLSTOP_DATA)'
      : `refused the key from the ${keyFrom}: set FULLSTOP_KEY to one that it knows`;
  return new FullstopError('FS_UNAUTHENTICATED', `${url} ${remedy}`, { cause: error });
}

function withRemedy(error: unknown, config: ClientConfig): unknown {
  if (hasCode(error, 'FS_UNAUTHENTICATED')) return unknownKey(error, config);
  if (!hasCode(error, 'FS_UNAVAILABLE')) return error;
  const remedy = {
    flag: 'check --url',
    environment: 'check FULLSTOP_URL',
    'data directory': `start it with ${startCommand}`,
    default: `start it with ${startCommand}, or set FULLSTOP_URL`,
  }[config.urlFrom];
  return new FullstopError('FS_UNAVAILABLE', `nothing listens at ${config.url}: ${remedy}`, {
    cause: error,
    details: { reason: messageOf(error) },
  });
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError || hasCode(error, 'FS_INVALID')) return exit.usage;
  if (error instanceof Interrupted) return error.exitCode;
  return hasCode(error, 'FS_NOT_FOUND') ? exit.notFound : exit.failed;
}

/** One line on stderr that says what to do, and the code to look up; with --json the error itself on stdout. */
export function report(terminal: Terminal, error: unknown, json: boolean): void {
  if (error instanceof Interrupted) return;
  if (json) {
    const { code = error instanceof UsageError ? 'FS_INVALID' : 'FS_INTERNAL', details = null } = error as {
      code?: string;
      details?: unknown;
    };
    terminal.out(`${JSON.stringify({ error: { code, message: messageOf(error), details } }, null, 2)}\n`);
    return;
  }
  terminal.err(`${paint(terminal, 'red', 'fullstop:', 'err')} ${plain(withCode(error))}\n`);
}

/** The message, and the code under which docs/errors.md has more. */
export function withCode(error: unknown): string {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' && code.startsWith('FS_') ? `${messageOf(error)} (${code})` : messageOf(error);
}
