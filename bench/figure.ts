/** What a figure is: something measured, its limit, and the proof that it was done right. */
import type { BenchClient } from './client.ts';
import type { Floors } from './floors.ts';
import type { BenchServer, ServerOptions } from './server.ts';
import type { BenchWorker, WorkerOptions } from './worker.ts';

/** Fails the bench when `ok` is false, whatever the figures say. */
export type Check = (ok: boolean, message: string) => void;

export type Limit =
  | { kind: 'rate'; atLeast: number; of: keyof Floors }
  /** Divided by the machine's factor; `waitMs` is added, a wait that is meant and no machine's fault. */
  | { kind: 'time'; atMostMs: number; waitMs?: number }
  /** Multiplied by the machine's factor. */
  | { kind: 'throughput'; atLeast: number }
  | { kind: 'plain'; atMost: number }
  | { kind: 'least'; atLeast: number };

export interface Measure {
  name: string;
  value: number;
  unit: 'nodes/s' | 'tasks/s' | 'events/s' | 'ms' | 'MB' | 'kB' | '%' | 'x';
  limit: Limit;
  /** Told beside the others: its limit is shown for comparison, and nothing follows from it. */
  aside?: true;
  note: string;
}

export interface Bench {
  quick: boolean;
  check: Check;
  progress(text: string): void;
  /** A server that listens, on an empty data directory. */
  server(options?: Pick<ServerOptions, 'httpAllow' | 'slots' | 'inspect'>): Promise<BenchServer>;
  /** A worker in a process of its own that the server has taken in. */
  worker(server: BenchServer, options: Omit<WorkerOptions, 'profiles'>): Promise<BenchWorker>;
  /** A connected client; with `ends` it hears of the end of every execution. */
  client(server: BenchServer, options: { ends: boolean }): Promise<BenchClient>;
  /** The figure cannot be had here. */
  skip(why: string): void;
  /** Closes something when the figure is over, however that ends; servers and clients are closed anyway. */
  atEnd(close: () => unknown): void;
  /** Marks what is measured, for profiles. */
  measured<T>(work: () => Promise<T>): Promise<T>;
}

export interface Figure {
  name: string;
  about: string;
  run(bench: Bench): Promise<Measure[]>;
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5);
}

/** The smallest value that `share` of all do not exceed. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const shown = (values: readonly number[], digits = 0): string =>
  values.map((value) => value.toFixed(digits)).join(', ');
