/** A worker whose work ignores its abort for as many ms as its argument says: run in a process of its own. */
import { systemClock } from '../../src/adapters/system/clock.ts';
import { startWorker } from '../../src/worker/worker.ts';

const ignoresMs = Number(process.argv[2]);
const worker = startWorker({
  url: process.env.FULLSTOP_URL as string,
  key: process.env.FULLSTOP_KEY as string,
  capabilities: ['http'],
  slots: 2,
  executors: new Map([
    [
      'http',
      {
        run: (_task, signal) =>
          new Promise((_, reject) => {
            signal.addEventListener('abort', () => setTimeout(() => reject(new Error('aborted')), ignoresMs));
          }),
        close: async () => {},
      },
    ],
  ]),
  clock: systemClock,
  logger: { info: () => {}, warn: () => {} },
});
await worker.ready();
console.log(JSON.stringify({ id: worker.workerId }));
