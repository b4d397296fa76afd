/**
 * What workers and agents say to an engine, over the Socket.IO namespaces `/workers` and `/agents`, and back.
 *
 * Every message may be lost, doubled or late: a result is repeated until it is answered, a cancel that is lost
 * comes again with the next heartbeat's answer, and after a reconnect `worker.hello` says what is held.
 */
import type { Task, WorkReport } from '../ports/work.ts';

export const workerProtocol = {
  heartbeatMs: 2_000,
  /** A worker not heard of for this long has lost its tasks; cut off for this long, it aborts them by itself. */
  workerLeaseMs: 8_000,
  agentLeaseMs: 30_000,
  /** Characters of one log message, and messages per attempt. */
  logCharsMax: 65_536,
  logsMax: 1_000,
} as const;

export interface HeldTask {
  taskId: string;
  token: string;
}

export interface WorkerHello {
  /** Made once per process (workers) or per installation (agents): a UUID. */
  workerId: string;
  /** For people, such as the host name. */
  name: string;
  /** Node types; of an agent its tools, for display: its pool is its key's. */
  capabilities: string[];
  slots: number;
  /** Tasks that run here, and results that were not answered. */
  held: HeldTask[];
}

export interface WelcomeAnswer {
  /** Held tasks that go on. All others are aborted, their results dropped. */
  keep: string[];
  heartbeatMs: number;
  leaseMs: number;
}

/** Worker to engine. Acks: `{ok: true, data} | {ok: false, error}` as everywhere. */
export interface WorkerEvents {
  'worker.hello': (hello: WorkerHello, ack: (answer: unknown) => void) => void;
  /** `data: {cancel: [taskId]}`: what must end here (stopped, timed out, not asked for any more). */
  'worker.heartbeat': (beat: { held: string[] }, ack: (answer: unknown) => void) => void;
  /** `data: {discarded: boolean}`: durable in the record, or not wanted any more. Not answered: say it again. */
  'task.result': (result: HeldTask & { report: WorkReport }, ack: (answer: unknown) => void) => void;
  'task.log': (log: HeldTask & { stream: 'stdout' | 'stderr'; text: string }) => void;
}

/** Engine to worker. */
export interface EngineToWorkerEvents {
  'task.run': (run: { task: Task; token: string }) => void;
  'task.cancel': (cancel: { taskId: string }) => void;
  /** To room `execution:<id>`: a stop of that execution is durable. */
  STOP: (message: { executionId: string; requestId: string }) => void;
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
  log(link: WorkerLink, taskId: string, token: string, stream: 'stdout' | 'stderr', text: string): void;
  /** For `worker.list`. */
  workers(): WorkerItem[];
  /** Capabilities that queued tasks wait for and nobody offers: number of tasks by capability. */
  missing(): Record<string, number>;
}

export interface WorkerItem {
  id: string;
  name: string;
  kind: 'worker' | 'agent' | 'pool';
  capabilities: string[];
  slots: number;
  /** Tasks it holds. */
  held: number;
  connected: boolean;
  /** Since its last word, ms. */
  silentMs: number;
}
