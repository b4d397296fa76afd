/**
 * Workers and agents in other processes, as the engine sees them: a link to each, and the gate they come in by.
 */
import type { WorkerItem } from '../wire.ts';
import type { Task, WorkReport } from './work.ts';

export type { WorkerItem } from '../wire.ts';

export interface HeldTask {
  taskId: string;
  token: string;
}

/** One connected worker or agent, as the engine's dispatcher sees it. */
export interface WorkerLink {
  readonly workerId: string;
  readonly name: string;
  readonly kind: 'worker' | 'agent';
  /** Node types; of an agent `agent:POOL`. */
  readonly capabilities: readonly string[];
  readonly slots: number;
  /** The project whose tasks it may take; null: all. */
  readonly project: string | null;
  run(task: Task, token: string): void;
  cancel(taskId: string): void;
  /** Hangs up, as on one whose lease ran out: it comes back and says hello. */
  close(): void;
}

/** What a namespace calls when a worker says something. The dispatcher of the engine implements it. */
export interface WorkerGate {
  /** A (re)connected worker: which of the tasks it holds go on. */
  connected(link: WorkerLink, held: HeldTask[]): Promise<string[]>;
  /** Its socket closed: its lease begins to run out. Ignored when a newer link of the same worker is there. */
  disconnected(link: WorkerLink): void;
  /** What it must end. */
  heartbeat(link: WorkerLink, held: string[]): string[];
  /** Resolves when the result is durable in the record, or known to be unwanted. Rejects: say it again. */
  result(link: WorkerLink, taskId: string, token: string, report: WorkReport): Promise<{ discarded: boolean }>;
  /** `truncated`: more was printed than is kept, this is the last message. */
  log(
    link: WorkerLink,
    taskId: string,
    token: string,
    stream: 'stdout' | 'stderr',
    text: string,
    truncated: boolean,
  ): void;
  /** For `worker.list`. */
  workers(): WorkerItem[];
  /** Capabilities that queued tasks wait for and nobody offers: number of tasks by capability. */
  missing(): Record<string, number>;
}
