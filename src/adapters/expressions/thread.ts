/** The expression thread: evaluates one expression after the other, for as long as it is let. */

import type { MessagePort } from 'node:worker_threads';
import { workerData } from 'node:worker_threads';
import { createCel, describe } from '../../definition/cel.ts';

export interface ThreadRequest {
  source: string;
  scope: object;
}
export type ThreadAnswer = { value: unknown } | { message: string };

const { port } = workerData as { port: MessagePort };
const cel = createCel(Number.POSITIVE_INFINITY);

port.on('message', ({ source, scope }: ThreadRequest) => {
  port.postMessage(evaluate(source, scope));
});
port.postMessage('ready');

function evaluate(source: string, scope: object): ThreadAnswer {
  try {
    return { value: cel.parse(source).evaluate(scope) };
  } catch (error) {
    return { message: describe(error) };
  }
}
