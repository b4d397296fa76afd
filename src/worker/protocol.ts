/**
 * What workers and agents say to an engine, over the Socket.IO namespaces `/workers` and `/agents`, and back.
 *
 * Every message may be lost, doubled or late: a result is repeated until it is answered, a cancel that is lost
 * comes again with the next heartbeat's answer, and after a reconnect `worker.hello` says what is held.
 */
import type { Task, WorkReport } from '../ports/work.ts';
import type { HeldTask } from '../ports/workers.ts';

export type { HeldTask, WorkerGate, WorkerItem, WorkerLink } from '../ports/workers.ts';

export const workerProtocol = {
  heartbeatMs: 2_000,
  /** A worker not heard of for this long has lost its tasks; cut off for this long, it aborts them by itself. */
  workerLeaseMs: 8_000,
  agentLeaseMs: 30_000,
  /** Characters of one log message, and messages per attempt. */
  logCharsMax: 65_536,
  logsMax: 1_000,
  /** Characters of a report's JSON in one message; a longer one comes in parts of this size. */
  partChars: 262_144,
  /** Characters of all parts of one report. */
  reportCharsMax: 134_217_728,
  slotsMax: 1_000,
  /** Tasks that one hello or heartbeat may list. */
  heldMax: 10_000,
} as const;

export interface WorkerHello {
  /** Made once per process (workers) or per installation (agents): a UUID. */
  workerId: string;
  /** For people, such as the host name. */
  name: string;
  /** Node types; of an agent its tools, for display: its pool is its key's. */
  capabilities: string[];
  /** 0: it takes nothing more, such as before it ends. */
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
  /** First on every connection; again when the number of slots changes. */
  'worker.hello': (hello: WorkerHello, ack: (answer: unknown) => void) => void;
  /** `data: {cancel: [taskId]}`: what must end here (stopped, timed out, not asked for any more). */
  'worker.heartbeat': (beat: { held: string[] }, ack: (answer: unknown) => void) => void;
  /** `data: {discarded: boolean}`: durable in the record, or not wanted any more. Not answered: say it again. */
  'task.result': (
    result: HeldTask & ({ report: WorkReport } | { parts: number }),
    ack: (answer: unknown) => void,
  ) => void;
  /** A piece of the JSON of a report that is too long for one message; `part` counts from 0, in order. */
  'task.part': (part: HeldTask & { part: number; text: string }, ack: (answer: unknown) => void) => void;
  'task.log': (log: HeldTask & { stream: 'stdout' | 'stderr'; text: string; truncated?: true }) => void;
}

/** Engine to worker. */
export interface EngineToWorkerEvents {
  'task.run': (run: { task: Task; token: string }) => void;
  'task.cancel': (cancel: { taskId: string }) => void;
  /** To room `execution:<id>`: a stop of that execution is durable. */
  STOP: (message: { executionId: string; requestId: string }) => void;
}
