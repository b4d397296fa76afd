import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { Expression } from '../../definition/cel.ts';
import { narrow } from '../../definition/narrow.ts';
import { FullstopError } from '../../errors.ts';
import { expressionError } from './expression-error.ts';
import type { ThreadAnswer, ThreadMessage, ThreadRequest } from './thread.ts';

/** How long one evaluation may take of its thread's own time; the contract's. */
const evaluationMaxMs = 200;
/** On a machine that gives the thread next to no time, or whose processes were frozen: that it ends at all. */
const evaluationMaxWallMs = 10_000;
/** Ends an evaluation that gathers more than this, and nothing but it. */
const heapMaxMb = 128;

interface Job {
  source: string;
  request: ThreadRequest;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

interface Running {
  worker: Worker;
  /** What its thread had used of its CPU before the current evaluation, ms. */
  usedMs: number;
  port: MessagePort;
  ready: boolean;
}

/**
 * Evaluates expressions one at a time on a thread of their own: a thread can be ended in the middle of a loop.
 *
 * Started with the first expression, and again after it was ended. It keeps the process alive only while it works.
 */
export class ExpressionThread {
  #queue: Job[] = [];
  #current: Job | null = null;
  #running: Running | null = null;
  #timer: NodeJS.Timeout | undefined;
  /** Since when the current evaluation is under way. */
  #sinceMs = 0;
  #closed = false;

  /** @throws FS_EXPRESSION (rejects), or FS_UNAVAILABLE once closed. */
  run(expression: Expression, scope: object): Promise<unknown> {
    const result = new Promise((resolve, reject) => {
      if (this.#closed) throw closedError();
      const { source, references } = expression;
      this.#queue.push({ source, request: { source, scope: narrow(scope, references) }, resolve, reject });
      this.#next();
    });
    // Whoever started several may give up at the first that fails.
    result.catch(() => {});
    return result;
  }

  async close(): Promise<void> {
    this.#closed = true;
    const jobs = this.#current === null ? this.#queue : [this.#current, ...this.#queue];
    this.#queue = [];
    const ended = this.#end();
    for (const job of jobs) job.reject(closedError());
    await ended;
  }

  #next(): void {
    if (this.#current !== null) return;
    const running = this.#running ?? this.#start();
    if (!running.ready) return;
    const job = this.#queue.shift();
    if (job === undefined) {
      running.port.unref();
      return;
    }
    this.#current = job;
    running.port.ref();
    running.port.postMessage(job.request);
    this.#sinceMs = performance.now();
    this.#look(evaluationMaxMs);
  }

  #look(afterMs: number): void {
    this.#timer = setTimeout(() => void this.#tooLong(), afterMs);
  }

  #start(): Running {
    const { port1: port, port2 } = new MessageChannel();
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const worker = new Worker(new URL(`./thread.${extension}`, import.meta.url), {
      workerData: { port: port2 },
      transferList: [port2],
      resourceLimits: { maxOldGenerationSizeMb: heapMaxMb },
    });
    const running: Running = { worker, usedMs: 0, port, ready: false };
    this.#running = running;
    port.on('message', (message) => this.#receive(running, message));
    worker.on('error', (error) => this.#died(running, error));
    // Only the port keeps the process alive, and only while somebody waits.
    worker.unref();
    return running;
  }

  #receive(running: Running, message: ThreadMessage): void {
    if (running !== this.#running) return;
    running.usedMs = message.usedMs;
    running.ready = true;
    if (message.answer !== null) this.#finish(message.answer);
    this.#next();
  }

  #finish(answer: ThreadAnswer): void {
    const job = this.#current as Job;
    clearTimeout(this.#timer);
    this.#current = null;
    if ('value' in answer) job.resolve(answer.value);
    else job.reject(expressionError(job.source, answer.message));
  }

  async #tooLong(): Promise<void> {
    const [running, job] = [this.#running as Running, this.#current];
    // When this thread was busy itself, the answer may have been here in time.
    const received = receiveMessageOnPort(running.port);
    if (received !== undefined) return this.#receive(running, received.message as ThreadMessage);
    // A machine that is busy, or was frozen, gave the evaluation less time than has passed.
    const { user, system } = await running.worker.cpuUsage().catch(() => ({ user: 0, system: 0 }));
    if (this.#running !== running || this.#current !== job) return;
    const leftMs = evaluationMaxMs - ((user + system) / 1_000 - running.usedMs);
    const wallLeftMs = evaluationMaxWallMs - (performance.now() - this.#sinceMs);
    if (leftMs > 1 && wallLeftMs > 0) return this.#look(Math.max(10, leftMs));
    this.#fail(`took longer than ${evaluationMaxMs} ms`);
    this.#next();
  }

  #died(running: Running, error: Error & { code?: string }): void {
    if (running !== this.#running) return;
    this.#fail(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'needs too much memory' : error.message);
    if (this.#queue.length > 0) this.#next();
  }

  /** Ends the thread and fails what it was at, or was started for. */
  #fail(message: string): void {
    const job = this.#current ?? this.#queue.shift();
    void this.#end();
    job?.reject(expressionError(job.source, message));
  }

  async #end(): Promise<void> {
    const running = this.#running;
    clearTimeout(this.#timer);
    this.#current = null;
    this.#running = null;
    running?.port.close();
    await running?.worker.terminate();
  }
}

function closedError(): FullstopError {
  return new FullstopError('FS_UNAVAILABLE', 'the engine is closing');
}
