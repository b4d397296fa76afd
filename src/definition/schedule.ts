/**
 * Schedules: cron patterns of five fields (six with seconds) and, for a hold, instants and durations.
 *
 * Cron runs in UTC unless a timezone is given, so that a definition means the same on every machine.
 */
import { Cron } from 'croner';
import { FullstopError, messageOf } from '../errors.ts';
import { durationHint, parseDuration } from './duration.ts';
import { instantHint, parseInstant } from './instant.ts';

export type Schedule =
  | { kind: 'cron'; cron: string; timezone: string | null }
  | { kind: 'instant'; atMs: number }
  | { kind: 'duration'; ms: number };

/**
 * The schedule of a hold.
 * @throws FS_INVALID
 */
export function parseHoldSchedule(text: string): Schedule {
  const ms = parseDuration(text);
  if (ms !== null) return { kind: 'duration', ms };
  const atMs = parseInstant(text);
  if (atMs !== null) return { kind: 'instant', atMs };
  if (text.trim().includes(' ') || text.startsWith('@')) return parseCronSchedule(text, null);
  throw new FullstopError('FS_INVALID', `expected a cron pattern, ${instantHint}, or ${durationHint}, found "${text}"`);
}

/**
 * A schedule that starts executions.
 * @throws FS_INVALID also for a pattern that never comes, such as 31 February.
 */
export function parseCronSchedule(cron: string, timezone: string | null): Schedule {
  const fields = cron.trim().split(/\s+/);
  if (fields.length !== 5 && fields.length !== 6 && !cron.startsWith('@')) {
    throw new FullstopError('FS_INVALID', `expected a cron pattern of five fields, found "${cron}"`);
  }
  try {
    if (cronOf(cron, timezone).nextRun() !== null) return { kind: 'cron', cron, timezone };
  } catch (error) {
    throw new FullstopError('FS_INVALID', messageOf(error).replace(/^Cron\w+: /, ''), { cause: error });
  }
  throw new FullstopError('FS_INVALID', `"${cron}" never comes`);
}

/** The first instant of the schedule after `fromMs`; for an instant itself, also when it has passed. */
export function nextInstantMs(schedule: Schedule, fromMs: number): number | null {
  switch (schedule.kind) {
    case 'duration':
      return fromMs + schedule.ms;
    case 'instant':
      return schedule.atMs;
    case 'cron':
      return cronOf(schedule.cron, schedule.timezone).nextRun(new Date(fromMs))?.getTime() ?? null;
  }
}

const CRONS_MAX = 1_000;
/** Parsed patterns: a schedule is asked for one instant after the other. */
const crons = new Map<string, Cron>();

function cronOf(cron: string, timezone: string | null): Cron {
  const key = `${timezone} ${cron}`;
  let known = crons.get(key);
  if (known === undefined) {
    // UTC as an offset: by its name, each instant is formatted as text and read again.
    known = new Cron(cron, timezone === null || timezone === 'UTC' ? { utcOffset: 0 } : { timezone });
    if (crons.size >= CRONS_MAX) crons.clear();
    crons.set(key, known);
  }
  return known;
}
