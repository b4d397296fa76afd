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
    if (new Cron(cron, { timezone: timezone ?? 'UTC' }).nextRun() !== null) return { kind: 'cron', cron, timezone };
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
      return (
        new Cron(schedule.cron, { timezone: schedule.timezone ?? 'UTC' }).nextRun(new Date(fromMs))?.getTime() ?? null
      );
  }
}
