import { paint, plain, type Style, type Terminal } from './terminal.ts';

export interface Column<T> {
  title: string;
  cell(row: T): string;
  style?(row: T): Style | undefined;
  /** Gives way when the terminal is too narrow; other columns are never cut. */
  flex?: true;
}

const FLEX_MIN = 6;
const GAP = '  ';

/** A table with a header, as wide as its content or the terminal. */
export function table<T>(terminal: Terminal, columns: readonly Column<T>[], rows: readonly T[]): string {
  const cells = rows.map((row) => columns.map((column) => plain(column.cell(row))));
  const widths = columns.map((column, index) =>
    cells.reduce((widest, line) => Math.max(widest, line[index]?.length ?? 0), column.title.length),
  );
  let excess = widths.reduce((sum, width) => sum + width, GAP.length * (columns.length - 1)) - terminal.columns();
  while (excess > 0) {
    const widest = columns.reduce(
      (best, column, index) => (column.flex && (best < 0 || (widths[index] ?? 0) > (widths[best] ?? 0)) ? index : best),
      -1,
    );
    const width = widths[widest];
    if (width === undefined || width <= FLEX_MIN) break;
    const less = Math.min(excess, Math.max(1, Math.floor((width - FLEX_MIN) / 2)));
    widths[widest] = width - less;
    excess -= less;
  }
  const line = (texts: readonly string[], styleOf: (index: number) => Style | undefined): string =>
    texts
      .map((text, index) => {
        const width = widths[index] ?? 0;
        const fitted = text.length > width ? `${text.slice(0, Math.max(0, width - 1))}…` : text;
        const padding = index === texts.length - 1 ? '' : ' '.repeat(width - fitted.length);
        return paint(terminal, fitted === '' ? undefined : styleOf(index), fitted) + padding;
      })
      .join(GAP)
      .trimEnd();
  const lines = [
    line(
      columns.map((column) => column.title),
      () => 'dim',
    ),
  ];
  for (const [at, row] of rows.entries()) lines.push(line(cells[at] ?? [], (index) => columns[index]?.style?.(row)));
  return `${lines.join('\n')}\n`;
}

/** A span as a person reads it: `850 ms`, `1.3 s`, `4m 10s`, `2h 5m`, `3d 4h`. */
export function span(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(Math.floor(ms / 100) / 10).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)}h ${Math.floor((seconds % 3_600) / 60)}m`;
  return `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3_600)}h`;
}

/** From `start` to `end`, or to now while it lasts; empty before the start. */
export function took(start: string | null, end: string | null): string {
  return start === null ? '' : span((end === null ? Date.now() : Date.parse(end)) - Date.parse(start));
}

export const ago = (at: string): string => `${span(Date.now() - Date.parse(at))} ago`;

/** How an execution or a node is coloured. */
export function statusStyle(status: string, stopped = false): Style | undefined {
  if (stopped) return 'yellow';
  const styles: Record<string, Style> = {
    Running: 'cyan',
    Held: 'yellow',
    Complete: 'green',
    Failed: 'red',
    Pending: 'dim',
    Skipped: 'dim',
  };
  return styles[status];
}

export const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`;
