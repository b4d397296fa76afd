/**
 * I4's percentiles: from the durable intent of a stop to its halt, and to its end where the owner died, by what went
 * wrong meanwhile. Over all seeds of a run.
 */
import type { Known } from './ledger.ts';
import type { FaultKind } from './plan.ts';

export const stopClasses = ['healthy', 'broadcastLost', 'ownerDead', 'eventHealthy', 'eventLost'] as const;
export type StopClass = (typeof stopClasses)[number];

/** What each may take, at the 99th percentile. */
export const STOP_BOUNDS_MS: Record<StopClass, number> = {
  healthy: 250,
  broadcastLost: 3_000,
  ownerDead: 15_000,
  eventHealthy: 250,
  eventLost: 2_500,
};

/** Something that went wrong, and until when it may have changed how a stop went. */
export interface Trouble {
  kind: FaultKind | 'engineDown';
  fromMs: number;
  toMs: number;
  /** Of the process that is down or away. */
  engineId?: string;
}

export interface StopLatency {
  class: StopClass;
  ms: number;
}

/** They change nothing of how engines hear of stops and halt. */
const HARMLESS = new Set<Trouble['kind']>([
  'workerKilled',
  'workerDeaf',
  'workerMoved',
  'resultLate',
  'resultDoubled',
  'resultForged',
  'nextVersion',
  'poisonedMessage',
  'orphanLeft',
  // What follows is told as `engineDown`.
  'engineKilled',
  'messageDoubled',
]);
/** Before it, what went wrong may still have something to do with a stop. */
const ECHO_MS = 1_000;

/** null: it tells nothing of I4, several things went wrong at once. */
export function stopLatency(known: Known, troubles: readonly Trouble[]): StopLatency | null {
  const { stopAtMs, haltAtMs, endAtMs, stoppedWith } = known;
  if (stopAtMs === null || endAtMs === null) return null;
  const within = (untilMs: number): Trouble[] =>
    troubles.filter(({ kind, fromMs, toMs }) => !HARMLESS.has(kind) && fromMs <= untilMs && toMs >= stopAtMs - ECHO_MS);
  const untilHalt = haltAtMs ?? endAtMs;
  const before = within(untilHalt);
  if (before.length === 0) return { class: 'healthy', ms: untilHalt - stopAtMs };
  if (before.every(({ kind }) => kind === 'broadcastLost'))
    return known.askedElsewhere ? { class: 'broadcastLost', ms: untilHalt - stopAtMs } : null;
  const all = within(endAtMs);
  const deaths = all.filter(({ kind }) => kind === 'engineDown');
  if (deaths.length !== all.length) return null;
  // Its owner, and no other, was gone when it was asked for, or went before it had halted.
  const isOwners = deaths.every(({ engineId, fromMs }) => engineId === stoppedWith && fromMs <= untilHalt);
  return isOwners ? { class: 'ownerDead', ms: endAtMs - stopAtMs } : null;
}

/**
 * From an event that is durable to a client that followed by then on another engine; null: what went wrong meanwhile
 * says nothing of how events travel.
 */
export function eventLatency(durableAtMs: number, seenAtMs: number, troubles: readonly Trouble[]): StopLatency | null {
  const ms = seenAtMs - durableAtMs;
  const meanwhile = troubles.filter(
    ({ kind, fromMs, toMs }) => !HARMLESS.has(kind) && fromMs <= seenAtMs && toMs >= durableAtMs - ECHO_MS,
  );
  if (meanwhile.length === 0) return { class: 'eventHealthy', ms };
  return meanwhile.every(({ kind }) => kind === 'broadcastLost') ? { class: 'eventLost', ms } : null;
}

/** How many stops took so many milliseconds. */
export type Histogram = Record<string, number>;

export function percentile(histogram: Histogram, share: number): number {
  const sorted = Object.entries(histogram)
    .map(([ms, times]) => [Number(ms), times] as const)
    .sort(([one], [other]) => one - other);
  let left = Math.ceil(sorted.reduce((total, [, times]) => total + times, 0) * share);
  for (const [ms, times] of sorted) {
    left -= times;
    if (left <= 0) return ms;
  }
  return 0;
}
