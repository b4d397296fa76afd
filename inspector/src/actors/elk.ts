/** ELK in a worker, which is loaded when a nested statechart is first drawn and ended when none was for a while. */
import ELK, { type ElkNode } from 'elkjs/lib/elk-api.js';
import workerUrl from 'elkjs/lib/elk-worker.min.js?url';

const IDLE_MS = 30_000;

interface Running {
  elk: InstanceType<typeof ELK>;
  /** Rejects when the worker cannot be loaded, or breaks. */
  broken: Promise<never>;
}

let running: Running | null = null;
let idle: ReturnType<typeof setTimeout> | undefined;

function end(): void {
  running?.elk.terminateWorker();
  running = null;
}

function start(): Running {
  const worker = new Worker(workerUrl);
  const broken = new Promise<never>((_resolve, reject) => {
    worker.onerror = () => reject(new Error('the layout could not be loaded: load the page again'));
  });
  broken.catch(end);
  return { elk: new ELK({ workerFactory: () => worker }), broken };
}

export async function layoutInWorker(graph: ElkNode): Promise<ElkNode> {
  clearTimeout(idle);
  running ??= start();
  const { elk, broken } = running;
  try {
    return await Promise.race([elk.layout(graph), broken]);
  } finally {
    clearTimeout(idle);
    idle = setTimeout(end, IDLE_MS);
  }
}
