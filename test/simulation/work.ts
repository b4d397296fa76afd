/** The work of nodes, modelled: how long it takes, how it ends, whether it hears an abort. Drawn by the task's name. */
import { FullstopError } from '../../src/errors.ts';
import type { Task } from '../../src/ports/work.ts';
import { AbortedAs, type Executor } from '../../src/worker/executor.ts';
import { tail } from './database.ts';
import type { Process } from './scheduler.ts';
import { hashText } from './scheduler.ts';
import type { Trace } from './trace.ts';

/** One task in one process. */
export interface Run {
  task: Task;
  process: Process;
  startedAtMs: number;
  endedAtMs: number | null;
  /** Told to end. */
  abortedAtMs: number | null;
  /** It ends only when it is told to, or when the simulation winds down. */
  hangs: boolean;
  /** What it gave; undefined: nothing. */
  output: unknown;
  finish: () => void;
}

export interface WorkWorld {
  seed: number;
  nowMs: () => number;
  trace: Trace;
  runs: Map<string, Run[]>;
  /** No task hangs any more. */
  windingDown: boolean;
  fault: (text: string) => void;
  /** A task begins in this process. */
  began: (process: Process, task: Task) => void;
  /** A container has begun in this process. */
  containerBegan: (process: Process) => void;
  /** Aborts are not heard in this process now. */
  deaf: (process: Process) => boolean;
}

/** How long work goes on that does not hear its abort. */
const DEAF_MS = 30_000;

/** Containers that outlive the process that started them, by task. */
export type Containers = Map<string, Run>;

export function executorsOf(world: WorkWorld, process: Process, types: readonly string[], containers: Containers) {
  return new Map(types.map((type) => [type, new ModelExecutor(world, process, type, containers)]));
}

class ModelExecutor implements Executor {
  readonly #world: WorkWorld;
  readonly #process: Process;
  readonly #type: string;
  readonly #containers: Containers;

  constructor(world: WorkWorld, process: Process, type: string, containers: Containers) {
    this.#world = world;
    this.#process = process;
    this.#type = type;
    this.#containers = containers;
    // Only containers outlive their process.
    if (type !== 'container') (this as { pursue?: unknown }).pursue = undefined;
  }

  run(task: Task, signal: AbortSignal, log: (stream: 'stdout', text: string) => void): Promise<unknown> {
    const world = this.#world;
    const process = this.#process;
    const draw = hashText(task.id, world.seed) / 2 ** 32;
    const other = hashText(`${task.id} more`, world.seed) / 2 ** 32;
    const hangs = draw > 0.83 && draw < 0.95 && !world.windingDown;
    const run: Run = {
      task,
      process,
      startedAtMs: world.nowMs(),
      endedAtMs: null,
      abortedAtMs: null,
      hangs,
      output: undefined,
      finish: () => undefined,
    };
    const before = world.runs.get(task.id);
    if (before === undefined) world.runs.set(task.id, [run]);
    else {
      before.push(run);
      world.fault(`task ${task.id} ran twice: in ${before[0]?.process.name}, then in ${process.name} (I5)`);
    }
    world.trace.note(process.name, `work ${tail(task.id)}`);
    world.began(process, task);
    if (this.#type === 'container') {
      this.#containers.set(task.id, run);
      world.containerBegan(process);
    }
    if (other < 0.2) log('stdout', 'hello\n');
    return new Promise((resolve, reject) => {
      const end = (how: string, settle: () => void): void => {
        if (run.endedAtMs !== null) return;
        run.endedAtMs = world.nowMs();
        this.#containers.delete(task.id);
        world.trace.note(process.name, `work ${tail(task.id)} ${how}`);
        settle();
      };
      run.finish = () =>
        end('finished', () => {
          if (draw < 0.7 || hangs) {
            run.output = outputOf(this.#type, other);
            resolve(run.output);
          } else reject(failureOf(draw));
        });
      const tookMs = other < 0.6 ? 1 + other * 100 : other < 0.9 ? other * 1_000 : other * 5_000;
      if (!hangs) process.later(tookMs, run.finish);
      signal.addEventListener('abort', () => {
        if (run.endedAtMs !== null) return;
        run.abortedAtMs = world.nowMs();
        if (world.deaf(process)) {
          // It goes on, and ends late by itself.
          process.later(DEAF_MS, run.finish);
          return;
        }
        const forced = this.#type === 'container' && other > 0.5;
        process.later(forced ? 3_000 : 0.1 + other * 20, () =>
          end('aborted', () => reject(forced ? new AbortedAs('forced') : new Error('aborted'))),
        );
      });
    });
  }

  pursue?({ id }: { id: string }): Promise<'aborted' | 'forced'> {
    return new Promise((resolve) => {
      this.#process.later(20 + (hashText(id) % 2_000), () => {
        const left = this.#containers.get(id);
        if (left !== undefined) {
          left.endedAtMs ??= this.#world.nowMs();
          this.#containers.delete(id);
        }
        resolve('aborted');
      });
    });
  }

  async close(): Promise<void> {}
}

function outputOf(type: string, draw: number): unknown {
  const value = Math.floor(draw * 10);
  switch (type) {
    case 'http':
      return { status: 200, headers: {}, body: value };
    case 'ai':
      return { text: `answer ${value}`, finishReason: 'stop', usage: { inputTokens: 1, outputTokens: 1 } };
    default:
      return { exitCode: 0, stdout: value, stderrTail: '' };
  }
}

function failureOf(draw: number): Error {
  if (draw < 0.8) return new FullstopError('FS_HTTP_NETWORK', 'no answer', { retryable: true });
  if (draw < 0.83) return new FullstopError('FS_HTTP_STATUS', 'workflow stopped by user', { retryable: false });
  return new FullstopError('FS_FAILED', 'broken', { retryable: true });
}
