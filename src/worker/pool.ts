import { FullstopError, messageOf } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { NodeWork, Task, WorkReport } from '../ports/work.ts';
import { AbortedAs, type Executor } from './executor.ts';

/** How long the abort of a task that is not here yet is remembered. */
const tombstoneMs = 60_000;
/** Beyond it the oldest is forgotten: a tombstone guards a race of milliseconds. */
const tombstonesMax = 100_000;

/** One reason for all: making a DOMException for each of a thousand aborts would take longer than aborting them. */
const aborted = new Error('aborted');

const ignoreLog = (): void => undefined;

export interface InProcessPoolOptions {
  /** By node type. */
  executors: Map<string, Executor>;
  clock: Clock;
  /** Tasks at once. */
  slots?: number;
}

export interface InProcessPool extends NodeWork {
  /** Tasks that have not reported. */
  readonly size: number;
  /** Aborts what runs, waits for its end, closes the executors. Reports are still made. */
  close(): Promise<void>;
}

/**
 * The worker inside the server's own process: runs every task it is given, at once.
 *
 * `start` makes exactly one report, never before it returned. An abort that overtakes its `start` leaves a
 * tombstone, and the task is refused with `neverStarted`.
 */
export function createInProcessPool({
  executors,
  clock,
  slots = Number.POSITIVE_INFINITY,
}: InProcessPoolOptions): InProcessPool {
  const running = new Map<string, AbortController>();
  let reserved = 0;
  /** When each unknown task was aborted; oldest first. */
  const tombstones = new Map<string, number>();
  let closed = false;
  let whenIdle: (() => void) | null = null;

  async function run(executor: Executor, task: Task, signal: AbortSignal, report: (report: WorkReport) => void) {
    let result: WorkReport;
    try {
      result = { kind: 'completed', output: await executor.run(task, signal, ignoreLog) };
    } catch (error) {
      result = signal.aborted ? abortedReport(error) : failedReport(error);
    }
    running.delete(task.id);
    report(result);
    if (running.size === 0) whenIdle?.();
  }

  return {
    get size() {
      return running.size;
    },

    reserve(type) {
      if (closed || !executors.has(type) || running.size + reserved >= slots) return false;
      reserved += 1;
      return true;
    },

    release() {
      reserved -= 1;
    },

    start(task, report) {
      reserved = Math.max(0, reserved - 1);
      const executor = executors.get(task.type);
      if (closed || tombstones.delete(task.id)) {
        clock.defer(() => report({ kind: 'aborted', outcome: 'neverStarted' }));
      } else if (executor === undefined) {
        const error = new FullstopError('FS_UNAVAILABLE', `no worker here runs tasks of type ${task.type}`);
        clock.defer(() => report(failedReport(error)));
      } else {
        const abort = new AbortController();
        running.set(task.id, abort);
        void run(executor, task, abort.signal, report);
      }
    },

    abort(taskId) {
      const abort = running.get(taskId);
      if (abort !== undefined) {
        abort.abort(aborted);
        return;
      }
      const nowMs = clock.nowMs();
      for (const [id, atMs] of tombstones) {
        if (nowMs - atMs < tombstoneMs && tombstones.size < tombstonesMax) break;
        tombstones.delete(id);
      }
      tombstones.set(taskId, nowMs);
    },

    async close() {
      closed = true;
      for (const abort of running.values()) abort.abort(aborted);
      if (running.size > 0)
        await new Promise<void>((resolve) => {
          whenIdle = resolve;
        });
      await Promise.all([...executors.values()].map((executor) => executor.close()));
    },
  };
}

function abortedReport(error: unknown): WorkReport {
  return { kind: 'aborted', outcome: error instanceof AbortedAs ? error.outcome : 'aborted' };
}

function failedReport(error: unknown): WorkReport {
  return error instanceof FullstopError
    ? { kind: 'failed', error: error.message, code: error.code, retryable: error.retryable }
    : { kind: 'failed', error: messageOf(error), code: 'FS_FAILED', retryable: true };
}
