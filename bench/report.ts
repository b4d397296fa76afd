/** How figures are judged and printed. */
import type { Limit, Measure } from './figure.ts';
import { type Floors, meanOf, timeFactor } from './floors.ts';

export interface Verdict {
  name: string;
  measured: number;
  unit: Measure['unit'];
  limit: number;
  isAtLeast: boolean;
  /** Measured by limit: at least 1 is wanted of a rate, at most 1 of anything else. */
  ratio: number;
  state: 'ok' | 'over' | 'aside';
  note: string;
}

/** The floors before and after one figure. */
export interface Around {
  figure: string;
  before: Floors;
  after: Floors;
}

export function judge(measure: Measure, floors: Floors): Verdict {
  const limit = limitOf(measure.limit, floors);
  const ratio = measure.value / limit;
  const ok = isAtLeast(measure.limit) ? ratio >= 1 : ratio <= 1;
  return {
    name: measure.name,
    measured: measure.value,
    unit: measure.unit,
    limit,
    isAtLeast: isAtLeast(measure.limit),
    ratio,
    state: measure.aside ? 'aside' : ok ? 'ok' : 'over',
    note: measure.note,
  };
}

function isAtLeast({ kind }: Limit): boolean {
  return kind === 'rate' || kind === 'throughput' || kind === 'least';
}

function limitOf(limit: Limit, floors: Floors): number {
  switch (limit.kind) {
    case 'rate':
      return limit.atLeast * floors[limit.of];
    case 'time':
      return (limit.waitMs ?? 0) + limit.atMostMs / timeFactor(floors);
    case 'throughput':
      return limit.atLeast * timeFactor(floors);
    case 'plain':
      return limit.atMost;
    case 'least':
      return limit.atLeast;
  }
}

export function table(verdicts: readonly Verdict[]): string {
  const rows = [
    ['figure', 'measured', 'limit', 'ratio', ''],
    ...verdicts.map((row) => [
      row.name,
      `${rounded(row.measured)} ${row.unit}`,
      `${row.isAtLeast ? '>=' : '<='} ${rounded(row.limit)}`,
      row.ratio.toFixed(2),
      row.state,
    ]),
  ];
  const widths = (rows[0] as string[]).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] as string).length)),
  );
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) => {
      const width = widths[column] as number;
      return column === 0 || column === 4 ? cell.padEnd(width) : cell.padStart(width);
    });
    return cells.join('  ').trimEnd();
  });
  const notes = verdicts.map((row) => `  ${row.name}: ${row.note}`);
  return [...lines, '', ...notes, ''].join('\n');
}

/** The floors around each figure, and what limits of times were divided by. */
export function floorsTable(around: readonly Around[]): string {
  const pair = (one: number, other: number): string => `${one.toFixed(0)} and ${other.toFixed(0)}`;
  const lines = around.map(({ figure, before, after }) => {
    const factor = timeFactor(meanOf(before, after)).toFixed(2);
    return `  ${figure.padEnd(16)} X ${pair(before.x, after.x)}, F ${pair(before.f, after.f)}, factor ${factor}`;
  });
  return ['floors before and after: X in XState steps/s, F in appends with fdatasync/s', ...lines, '', ''].join('\n');
}

function rounded(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
}
