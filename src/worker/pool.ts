import type { Clock } from '../ports/clock.ts';
import type { NodeWork, Task, TaskLog, WorkReport } from '../ports/work.ts';
import type { Executor } from './executor.ts';
import { abortReason, runTask } from './run-task.ts';
import { Tombstones } from './tombstones.ts';

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
  /** Tasks that were aborted before they came. */
  const cancelled = new Tombstones(clock);
  let closed = false;
  let whenIdle: (() => void) | null = null;

  async function run(task: Task, report: (report: WorkReport) => void, log: TaskLog) {
    const abort = new AbortController();
    running.set(task.id, abort);
    const result = await runTask(executors.get(task.type), task, abort.signal, log);
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

    start(task, report, log = ignoreLog) {
      reserved = Math.max(0, reserved - 1);
      if (closed || cancelled.take(task.id)) {
        clock.defer(() => report({ kind: 'aborted', outcome: 'neverStarted' }));
      } else {
        void run(task, report, log);
      }
    },

    abort(taskId) {
      const abort = running.get(taskId);
      if (abort === undefined) cancelled.add(taskId);
      else abort.abort(abortReason);
    },

    pursue(task, report) {
      const executor = executors.get(task.type);
      if (executor?.pursue === undefined) return false;
      executor.pursue(task).then(
        (outcome) => {
          if (outcome !== 'unconfirmed') report({ kind: 'aborted', outcome });
        },
        () => undefined,
      );
      return true;
    },

    describe() {
      return { capabilities: [...executors.keys()], slots, held: running.size };
    },

    async close() {
      closed = true;
      for (const abort of running.values()) abort.abort(abortReason);
      if (running.size > 0)
        await new Promise<void>((resolve) => {
          whenIdle = resolve;
        });
      await Promise.all([...executors.values()].map((executor) => executor.close()));
    },
  };
}
