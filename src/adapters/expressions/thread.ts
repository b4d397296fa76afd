/** The expression thread: evaluates one expression after the other, for as long as it is let. */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { createCel, describe } from '../../definition/cel.ts';

export interface ThreadRequest {
  source: string;
  scope: object;
}
export type ThreadAnswer = { value: unknown } | { message: string };
/** `answer` is null once, when the thread is ready; `usedMs` of CPU is what it has used so far. */
export interface ThreadMessage {
  answer: ThreadAnswer | null;
  usedMs: number;
}

const { port } = workerData as { port: MessagePort };
const cel = createCel(Number.POSITIVE_INFINITY);

port.on('message', ({ source, scope }: ThreadRequest) => {
  post(evaluate(source, scope));
});
post(null);

function post(answer: ThreadAnswer | null): void {
  const { user, system } = process.threadCpuUsage();
  port.postMessage({ answer, usedMs: (user + system) / 1_000 } satisfies ThreadMessage);
}

function evaluate(source: string, scope: object): ThreadAnswer {
  try {
    return { value: cel.parse(source).evaluate(scope) };
  } catch (error) {
    return { message: describe(error) };
  }
}
