/** What `fullstop worker` and `fullstop agent` share: a process that takes tasks until it is told to end. */
import type { Logger } from 'pino';
import { type ClientConfig, type LogLevel, type Setting, settings } from '../config.ts';
import { FullstopError, hasCode } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { RunningWorker } from '../worker/worker.ts';
import { type Cli, type CommonOptions, clientConfig, exit, UsageError, unknownKey } from './cli.ts';
import { plain } from './terminal.ts';
import { parseCount } from './values.ts';

/** What a machine must have to offer a type of node. */
const needs: Readonly<Record<string, string>> = {
  ai: 'FULLSTOP_MODELS',
  container: 'FULLSTOP_IMAGES and the socket of Docker or Podman',
};

/** For the end of a sentence; nothing where every machine can. */
export function needsOf(type: string): string {
  const need = needs[type];
  return need === undefined ? '' : `, which needs ${need}`;
}

export interface WorkerProcess {
  url: string;
  key: string;
  keyFrom: ClientConfig['keyFrom'];
  clock: Clock;
  logger: Logger;
}

/** Where to work and with which key. @throws FS_UNAUTHENTICATED when there is none */
export async function prepareProcess(cli: Cli, options: CommonOptions, level: LogLevel): Promise<WorkerProcess> {
  const { url, urls = [url], key, keyFrom } = clientConfig(cli.terminal, options);
  if (key === null) {
    throw new FullstopError('FS_UNAUTHENTICATED', `${url} needs a key: set FULLSTOP_KEY to one that an admin made`);
  }
  const [{ destination, pino }, { systemClock }] = await Promise.all([
    import('pino'),
    import('../adapters/system/clock.ts'),
  ]);
  return { url: urls.join(','), key, keyFrom, clock: systemClock, logger: pino({ level }, destination(2)) };
}

/**
 * Works until the first SIGTERM or Ctrl-C: then nothing more is taken, and what runs is given `drainMs`. A second
 * one ends the process at once. Resolves with the exit code.
 */
export async function workUntilTold(
  cli: Cli,
  start: () => RunningWorker,
  {
    drainMs,
    json,
    process: { url, key, keyFrom },
    text,
    facts,
  }: { drainMs: number; json: boolean; process: WorkerProcess; text: string; facts: object },
): Promise<number> {
  let signals = 0;
  let tell = (): void => {};
  const told = new Promise<'told'>((resolve) => {
    tell = () => resolve('told');
  });
  const done = cli.terminal.onSignal((signal) => {
    signals += 1;
    if (signals > 1) cli.terminal.exitNow(signal === 'SIGINT' ? 130 : 143);
    if (cli.terminal.errIsTTY) cli.note('ending: what runs is given its time, once more ends at once');
    tell();
  });
  try {
    const worker = start();
    const announce = async (): Promise<void> => {
      await worker.ready();
      if (json) cli.jsonLine({ id: worker.workerId, url, ...facts });
      else cli.line(`${worker.workerId}  ${plain(text)}`);
    };
    announce().catch(() => undefined);
    const end = await Promise.race([told, worker.refused]);
    await worker.close(end === 'told' ? drainMs : 0);
    if (end !== 'told') throw hasCode(end, 'FS_UNAUTHENTICATED') ? unknownKey(end, { url, key, keyFrom }) : end;
  } finally {
    done();
  }
  // Whatever still keeps this process alive has no say.
  return cli.terminal.exitNow(exit.ok);
}

/** Flags of a server that a worker has too. */
export function shareSettings(keys: readonly Setting['key'][]): Setting[] {
  return settings.filter(({ key }) => keys.includes(key));
}

export const camelCase = (flag: string): string => flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

export function parseSlots(text: string, max: number): number {
  const slots = parseCount('--slots', text);
  if (slots > max) throw new UsageError(`--slots: expected at most ${max}, found ${slots}`);
  return slots;
}

export function parseNames(option: string, text: string): string[] {
  const names = [...new Set(text.split(',').map((name) => name.trim()))].filter((name) => name !== '');
  if (names.length === 0) throw new UsageError(`${option}: expected names with commas between them, found none`);
  return names;
}
