const unitsMs: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** One hundred years: later instants, added to now, would leave the range of dates. */
export const maxDurationMs = 36_525 * 86_400_000;

/** What a duration looks like, for schemas and messages. */
export const durationPattern = /^\d+(\.\d+)?(ms|s|m|h|d)$/;
export const durationHint = 'a duration such as 250ms, 30s, 5m, 2h or 1d, or a number of milliseconds';

/** Milliseconds of `250ms`, `30s`, `5m`, `2h`, `1d` or a number; null for anything else. */
export function parseDuration(value: unknown): number | null {
  if (typeof value === 'number') return value >= 0 && value <= maxDurationMs ? Math.round(value) : null;
  if (typeof value !== 'string' || !durationPattern.test(value)) return null;
  const unit = value.endsWith('ms') ? 'ms' : value.slice(-1);
  const ms = Math.round(Number(value.slice(0, -unit.length)) * (unitsMs[unit] as number));
  return ms <= maxDurationMs ? ms : null;
}
