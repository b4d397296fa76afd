/** How a task runs, in the server's own process and in a worker's alike. */
import { FullstopError, messageOf } from '../errors.ts';
import type { Task, TaskLog, WorkReport } from '../ports/work.ts';
import { AbortedAs, type Executor } from './executor.ts';
import { limitLog } from './logs.ts';

/** One reason for all: making a DOMException for each of a thousand aborts would take longer than aborting them. */
export const abortReason = new Error('aborted');

/** Nesting of an output: what the record, expressions and clients can still take. */
const DEPTH_MAX = 60;

/** Runs a task to its end and says how it ended; never rejects. The end of its work is proven then. */
export async function runTask(
  executor: Executor | undefined,
  task: Task,
  signal: AbortSignal,
  sink: TaskLog,
): Promise<WorkReport> {
  if (executor === undefined) {
    return failedReport(new FullstopError('FS_UNAVAILABLE', `no worker here runs tasks of type ${task.type}`));
  }
  const log = limitLog(sink);
  try {
    const output = await executor.run(task, signal, log.write);
    if (isDeeper(output, DEPTH_MAX)) {
      throw new FullstopError('FS_FAILED', `expected an output of at most ${DEPTH_MAX} levels of nesting, found more`, {
        retryable: false,
      });
    }
    return { kind: 'completed', output };
  } catch (error) {
    return signal.aborted ? abortedReport(error) : failedReport(error);
  } finally {
    log.end();
  }
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((item) => isDeeper(item, levels - 1));
}

function abortedReport(error: unknown): WorkReport {
  return { kind: 'aborted', outcome: error instanceof AbortedAs ? error.outcome : 'aborted' };
}

function failedReport(error: unknown): WorkReport {
  return error instanceof FullstopError
    ? { kind: 'failed', error: error.message, code: error.code, retryable: error.retryable }
    : { kind: 'failed', error: messageOf(error), code: 'FS_FAILED', retryable: true };
}
