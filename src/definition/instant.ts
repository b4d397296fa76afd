const pattern = /^(\d{4})-(\d{2})-(\d{2})(T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2}))?$/;

export const instantHint = 'an ISO 8601 instant with its zone, such as 2030-01-31T08:00:00Z';

/** Milliseconds of an ISO 8601 instant with its zone, or of a date (midnight UTC); null for anything else. */
export function parseInstant(value: unknown): number | null {
  if (typeof value !== 'string') return null;
  const [, year, month, day] = pattern.exec(value) ?? [];
  if (year === undefined) return null;
  // Date.parse takes 30 February for 2 March.
  const daysInMonth = new Date(Date.UTC(Number(year), Number(month), 0)).getUTCDate();
  const atMs = Date.parse(value);
  return Number.isNaN(atMs) || Number(day) > daysInMonth ? null : atMs;
}
