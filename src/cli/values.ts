/** Reads what people type: `NAME=VALUE`, durations, counts, files. */
import { readFile } from 'node:fs/promises';
import { parseDurationMs } from '../config.ts';
import type { Json, List } from '../wire.ts';
import { UsageError } from './cli.ts';
import type { Terminal } from './terminal.ts';

/** For options that may be given again and again. */
export const repeat = (value: string, before: string[] = []): string[] => [...before, value];

/** `count=3` is a number, `name=db-1` a string: the value is JSON where it parses, text where it does not. */
export function parsePairs(option: string, pairs: readonly string[]): Record<string, Json> {
  return Object.fromEntries(splitPairs(option, pairs).map(([name, text]) => [name, jsonOrText(text)]));
}

export function parseLabels(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(splitPairs('--label', pairs));
}

function splitPairs(option: string, pairs: readonly string[]): [string, string][] {
  return pairs.map((pair) => {
    const at = pair.indexOf('=');
    if (at < 1) throw new UsageError(`${option}: expected NAME=VALUE, found ${JSON.stringify(pair)}`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
}

export function jsonOrText(text: string): Json {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return text;
  }
}

export function parseTimeout(option: string, text: string): number {
  const ms = parseDurationMs(text);
  // Node's timers hold no more.
  if (ms === undefined || ms > 2_147_483_647)
    throw new UsageError(`${option}: expected a duration such as 30s or 5m, found ${JSON.stringify(text)}`);
  return ms;
}

export function parseCount(option: string, text: string, min = 1): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  if (value < min)
    throw new UsageError(`${option}: expected a whole number of at least ${min}, found ${JSON.stringify(text)}`);
  return value;
}

/** The text of a file; `-` is stdin. */
export async function readText(terminal: Terminal, file: string): Promise<string> {
  if (file === '-') return terminal.readStdin();
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${(error as Error).message}`);
  }
}

/** The first `max` items of a list that comes in pages, and whether there are more. */
export async function readPages<T>(
  page: (cursor: { cursor?: string }) => Promise<List<T>>,
  max: number,
): Promise<{ items: T[]; more: boolean }> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const answer: List<T> = await page(cursor === null ? {} : { cursor });
    items.push(...answer.items);
    cursor = answer.nextCursor ?? null;
  } while (cursor !== null && items.length < max);
  return { items: items.slice(0, max), more: cursor !== null || items.length > max };
}
