import type { TaskRow } from '../ports/task-queue.ts';
import type { TaskLog, WorkReport } from '../ports/work.ts';

/** What the owner of a task wants to hear of it. */
export interface TaskOwner {
  /** A worker or agent holds it now. */
  claimed(worker: { id: string; name: string }): void;
  /** Resolves when it is durable whether the report was taken. */
  reported(report: WorkReport): Promise<boolean>;
  /** Of an aborted task of which it was `asked`: somebody has it. False: its row went before that was known. */
  found(isThere: boolean): void;
  log: TaskLog;
}

/** A task that the dispatcher of an engine knows. */
export interface Entry {
  row: TaskRow;
  owner: TaskOwner;
  /** `elsewhere`: a worker of another engine has it, or the store is being asked who has it. */
  state: 'queued' | 'claiming' | 'held' | 'elsewhere';
  /** Its node has ended: what its worker does to it is only waited for. */
  aborting: boolean;
  /** Heartbeats since the push that did not list it. */
  unlisted: number;
  /** Of a task that is its worker's and was not pushed, because the connection was gone: its token. */
  unpushed: string | null;
  /** Another engine owns its execution: what its worker says goes to the store. */
  foreign: boolean;
  /** Its worker's lease ran out: it is lost, unless the store says that the worker is back elsewhere. */
  overdue: boolean;
}

export function newEntry(row: TaskRow, owner: TaskOwner, state: Entry['state']): Entry {
  return { row, owner, state, aborting: false, unlisted: 0, unpushed: null, foreign: false, overdue: false };
}

export const neverStarted: WorkReport = { kind: 'aborted', outcome: 'neverStarted' };
