import { parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { type ErrorCode, errorCodes, messageOf } from '../../errors.ts';
import type { Call, FromThread, ThreadError, ToThread } from './protocol.ts';
import { isOutage } from './sql.ts';

/** Characters of big texts after which a thread takes no more calls into a batch. */
const BATCH_SIZE_MAX = 16 * 1024 * 1024;

/** What a thread does with the calls that wait; the rest of its life is the same for all. */
export interface Served {
  /** How many calls `run` takes at most. */
  batchMax: number;
  /** Answers all of `calls`. */
  run(calls: Call[]): void;
  close(): void;
}

/** The life of a store thread: opens, takes all that waits as one batch, again and again, until told to close. */
export function serve(open: (send: (message: FromThread) => void) => Served): void {
  const port = parentPort;
  if (port === null) throw new Error('a store thread is started by the store');
  const send = (message: FromThread): void => port.postMessage(message);
  let served: Served;
  try {
    served = open(send);
  } catch (error) {
    send({ kind: 'refused', error: toThreadError(error) });
    return;
  }
  let waiting: Call[] = [];
  let size = 0;
  let closing = false;
  const take = (message: ToThread): void => {
    if (message === 'close') {
      closing = true;
      return;
    }
    waiting = waiting.length === 0 ? message.calls : waiting.concat(message.calls);
    size += message.size;
  };
  port.on('message', (first: ToThread) => {
    take(first);
    for (;;) {
      while (waiting.length < served.batchMax && size < BATCH_SIZE_MAX) {
        const next = receiveMessageOnPort(port) as { message: ToThread } | undefined;
        if (next === undefined) break;
        take(next.message);
      }
      if (waiting.length === 0) break;
      const batch = waiting.slice(0, served.batchMax);
      waiting = waiting.slice(served.batchMax);
      if (waiting.length === 0) size = 0;
      served.run(batch);
    }
    if (closing) {
      served.close();
      port.close();
    }
  });
  send({ kind: 'opened' });
}

export function toThreadError(error: unknown): ThreadError {
  const { code } = error as { code?: unknown };
  if (typeof code === 'string' && code in errorCodes) return { code: code as ErrorCode, message: messageOf(error) };
  if (isOutage(error)) return { code: 'FS_UNAVAILABLE', message: `the database cannot be used: ${messageOf(error)}` };
  return { code: 'FS_INTERNAL', message: `the store failed: ${messageOf(error)}` };
}
