import { randomUUID } from 'node:crypto';
import type { Task, TaskLog } from '../../src/ports/work.ts';
import {
  type ContainerExecutor,
  type ContainerExecutorOptions,
  createContainerExecutor,
} from '../../src/worker/container.ts';
import { ContainerEngine } from '../../src/worker/container-engine.ts';
import { AbortedAs } from '../../src/worker/executor.ts';
import type { TestEngine } from '../support/podman.ts';

export interface Output {
  exitCode: number;
  stdout: unknown;
  stderrTail: string;
}

/** How a task ended, and after how long. */
export type Ending = { ms: number } & (
  | { kind: 'output'; output: Output }
  | { kind: 'failed'; code: string; message: string; retryable: boolean }
  | { kind: 'aborted'; outcome: string }
);

/** An executor on the engine of the tests, and eyes of its own on that engine. */
export class Bench {
  readonly engineId = `test-${randomUUID()}`;
  readonly engine: ContainerEngine;
  readonly image: string;
  readonly executor: ContainerExecutor;
  readonly gone: string[] = [];
  readonly #dockerHost: string;
  readonly #all: ContainerExecutor[] = [];

  constructor(engine: TestEngine, options: Partial<ContainerExecutorOptions> = {}) {
    this.#dockerHost = engine.dockerHost;
    this.image = engine.image;
    this.engine = new ContainerEngine(engine.dockerHost);
    this.executor = this.another(options);
  }

  another(options: Partial<ContainerExecutorOptions> = {}): ContainerExecutor {
    const executor = createContainerExecutor({
      dockerHost: this.#dockerHost,
      images: ['localhost/fullstop-*'],
      engineId: this.engineId,
      onGone: (taskId) => this.gone.push(taskId),
      ...options,
    });
    this.#all.push(executor);
    return executor;
  }

  task(with_: Record<string, unknown>, over: Partial<Task> = {}): Task {
    const executionId = over.executionId ?? randomUUID();
    const key = over.idempotencyKey ?? `${executionId}/scan`;
    const attempt = over.attempt ?? 1;
    return {
      id: `${key}/${attempt}`,
      executionId,
      project: 'default',
      node: 'scan',
      iterations: [],
      attempt,
      type: 'container',
      where: 'worker',
      with: { image: this.image, ...with_ },
      secrets: [],
      idempotencyKey: key,
      workflow: 'demo',
      workflowHash: 'h',
      ...over,
    };
  }

  /** `with` of a shell script. */
  sh(script: string, over: Record<string, unknown> = {}): Record<string, unknown> {
    return { command: ['sh', '-c'], args: [script], ...over };
  }

  async end(
    task: Task,
    signal: AbortSignal = new AbortController().signal,
    log: TaskLog = () => undefined,
  ): Promise<Ending> {
    const startedMs = performance.now();
    const ms = () => performance.now() - startedMs;
    try {
      return { kind: 'output', output: (await this.executor.run(task, signal, log)) as Output, ms: ms() };
    } catch (error) {
      if (error instanceof AbortedAs) return { kind: 'aborted', outcome: error.outcome, ms: ms() };
      if (signal.aborted) return { kind: 'aborted', outcome: 'aborted', ms: ms() };
      const { code, message, retryable } = error as { code: string; message: string; retryable: boolean };
      return { kind: 'failed', code, message, retryable, ms: ms() };
    }
  }

  async output(with_: Record<string, unknown>): Promise<Output> {
    const ending = await this.end(this.task(with_));
    if (ending.kind !== 'output') throw new Error(`expected an output, found ${JSON.stringify(ending)}`);
    return ending.output;
  }

  async failure(with_: Record<string, unknown>): Promise<{ code: string; message: string; retryable: boolean }> {
    const ending = await this.end(this.task(with_));
    if (ending.kind !== 'failed') throw new Error(`expected a failure, found ${JSON.stringify(ending)}`);
    return ending;
  }

  /** How many containers of this bench the engine has. */
  async left(): Promise<number> {
    return (await this.engine.list({ 'fullstop.engine': this.engineId })).length;
  }

  async close(): Promise<void> {
    await Promise.all(this.#all.map((executor) => executor.close()));
    this.engine.close();
  }
}

/** Resolves when the task prints this for the first time. */
export function printed(text: string): { log: TaskLog; seen: Promise<void>; all: [string, string][] } {
  const all: [string, string][] = [];
  let tell!: () => void;
  const seen = new Promise<void>((resolve) => {
    tell = resolve;
  });
  let sum = '';
  const log: TaskLog = (stream, piece) => {
    all.push([stream, piece]);
    sum += piece;
    if (sum.includes(text)) tell();
  };
  return { log, seen, all };
}
