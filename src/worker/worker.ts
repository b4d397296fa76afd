/**
 * A worker in a process of its own, and under an External Agent: takes tasks from an engine, runs them, and
 * brings back how they ended.
 */
import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Task, WorkReport } from '../ports/work.ts';
import { EngineLink, type LinkLog } from './engine-link.ts';
import type { Executor } from './executor.ts';
import type { HeldTask } from './protocol.ts';
import { abortReason, runTask } from './run-task.ts';
import { Tombstones } from './tombstones.ts';

/** How long a closing worker waits for what it aborted to end. */
const EXIT_MS = 30_000;
/** How long a closing worker waits for its results to be answered. */
const ANSWERS_MS = 5_000;

export interface WorkerOptions {
  /** Of an engine, or of several with commas: tried in turn. */
  url: string;
  key: string;
  /** Node types that it offers; of an agent its tools, for display. */
  capabilities: string[];
  /** Tasks at once. */
  slots: number;
  /** By node type. */
  executors: Map<string, Executor>;
  clock: Clock;
  logger: LinkLog;
  /** For people; default: the host's name. */
  name?: string;
  /** Default: a new one. */
  workerId?: string;
  /** An External Agent of this pool: what it has picked up cannot be cancelled, and its late results are told. */
  agentOf?: string;
}

export interface RunningWorker {
  readonly workerId: string;
  /** Tasks that occupy a slot: their work has not been proven to have ended. */
  readonly running: number;
  /** Resolves when an engine has taken it in. @throws the refusal */
  ready(): Promise<void>;
  /** Resolves when the engine has refused it for good, such as when its key was deleted: it runs nothing any more. */
  readonly refused: Promise<FullstopError>;
  /**
   * Takes nothing more, gives what runs `graceMs`, then aborts it, reports and hangs up. What was aborted so is
   * lost: the engine's rule for lost attempts decides.
   */
  close(graceMs: number): Promise<void>;
}

interface Entry extends HeldTask {
  task: Task;
  /** null: it waits for a slot. */
  abort: AbortController | null;
  /** Why it was told to end; the first reason counts. */
  ending: 'asked' | 'lost' | 'unwanted' | null;
}

export function startWorker(options: WorkerOptions): RunningWorker {
  return new Worker(options);
}

class Worker implements RunningWorker {
  readonly workerId: string;
  readonly refused: Promise<FullstopError>;
  readonly #options: WorkerOptions;
  readonly #link: EngineLink;
  readonly #cancellable: boolean;
  /** What waits or runs here, oldest first, by task and token. */
  readonly #entries = new Map<string, Entry>();
  #running = 0;
  /** Tasks whose cancel came before them, executions that were stopped, and tasks that ended here. */
  readonly #cancelled: Tombstones;
  readonly #stopped: Tombstones;
  readonly #ended: Tombstones;
  #closing: Promise<void> | null = null;
  #whenIdle: (() => void) | null = null;

  constructor(options: WorkerOptions) {
    const { url, key, clock, logger, agentOf } = options;
    this.#options = options;
    this.workerId = options.workerId ?? randomUUID();
    this.#cancellable = agentOf === undefined;
    this.#cancelled = new Tombstones(clock);
    this.#stopped = new Tombstones(clock);
    this.#ended = new Tombstones(clock);
    const { promise, resolve } = Promise.withResolvers<FullstopError>();
    this.refused = promise;
    this.#link = new EngineLink({
      url,
      namespace: agentOf === undefined ? '/workers' : '/agents',
      auth: { token: key, ...(agentOf === undefined ? {} : { pool: agentOf }) },
      clock,
      log: logger,
      handlers: {
        hello: () => ({
          workerId: this.workerId,
          name: options.name ?? hostname(),
          capabilities: options.capabilities,
          slots: this.#closing === null ? options.slots : 0,
          held: [...this.#entries.values()].map(({ taskId, token }) => ({ taskId, token })),
        }),
        run: (task, token) => this.#take(task, token),
        cancel: (taskId) => this.#cancel(taskId),
        stop: (executionId) => this.#stop(executionId),
        unwanted: (task) => this.#unwanted(task),
        cutOff: () => {
          if (this.#cancellable) this.#endAll('lost');
        },
        refused: (error) => {
          logger.warn({ error: error.message }, 'the engine refused this process');
          this.#endAll('lost');
          resolve(error);
        },
      },
    });
    this.#link.connect();
  }

  get running(): number {
    return this.#running;
  }

  ready(): Promise<void> {
    return this.#link.ready();
  }

  close(graceMs: number): Promise<void> {
    this.#closing ??= this.#close(graceMs);
    return this.#closing;
  }

  async #close(graceMs: number): Promise<void> {
    const { clock, executors, logger } = this.#options;
    // `#closing` is set when this has returned for the first time: the hello then says that there are no slots.
    await null;
    if (this.#link.welcomed) void this.#link.sayHello();
    await this.#idle(graceMs);
    this.#endAll('lost');
    await this.#idle(EXIT_MS);
    await this.#link.answered(ANSWERS_MS);
    this.#link.close();
    if (this.#entries.size > 0) {
      logger.warn({ tasks: [...this.#entries.values()].map(({ taskId }) => taskId) }, 'some work did not end');
      return;
    }
    let late = (): void => {};
    const timer = clock.setTimer(ANSWERS_MS, () => late());
    const closed = Promise.all([...executors.values()].map((executor) => executor.close()));
    await Promise.race([closed, new Promise<void>((resolve) => (late = resolve))]);
    clock.clearTimer(timer);
  }

  /** Resolves when nothing runs or waits here, or after `ms`. */
  async #idle(ms: number): Promise<void> {
    if (this.#entries.size === 0 || ms === 0) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimer(ms, resolve);
      this.#whenIdle = () => {
        this.#options.clock.clearTimer(timer);
        resolve();
      };
    });
    this.#whenIdle = null;
  }

  // ------------------------------------------------------------------ tasks

  #take(task: Task, token: string): void {
    const held = { taskId: task.id, token };
    const key = keyOf(held);
    // Said twice: it runs, or its result is under way or was answered.
    if (this.#entries.has(key) || this.#link.holds(held) || this.#ended.has(key)) return;
    if (this.#cancelled.take(task.id) || this.#stopped.has(task.executionId)) {
      this.#report(held, { kind: 'aborted', outcome: 'neverStarted' });
      return;
    }
    const entry: Entry = { ...held, task, abort: null, ending: null };
    this.#entries.set(key, entry);
    // More than there are slots come when what the engine has given up still has not ended here.
    if (this.#running < this.#options.slots) void this.#run(entry);
  }

  async #run(entry: Entry): Promise<void> {
    const { task, taskId, token } = entry;
    entry.abort = new AbortController();
    this.#running += 1;
    const report = await runTask(
      this.#options.executors.get(task.type),
      task,
      entry.abort.signal,
      (stream, text, truncated) =>
        this.#link.print({ taskId, token, stream, text, ...(truncated ? { truncated } : {}) }),
    );
    this.#running -= 1;
    this.#entries.delete(keyOf(entry));
    this.#report(entry, asTold(report, entry.ending));
    this.#next();
  }

  /** A slot is free: the work in it has ended, which alone frees one. */
  #next(): void {
    for (const entry of this.#entries.values()) {
      if (this.#running >= this.#options.slots) break;
      if (entry.abort === null) void this.#run(entry);
    }
    if (this.#entries.size === 0) this.#whenIdle?.();
  }

  #report({ taskId, token }: HeldTask, report: WorkReport): void {
    this.#ended.add(keyOf({ taskId, token }));
    this.#link.send({ taskId, token }, report);
  }

  // ------------------------------------------------------------------ ends

  #cancel(taskId: string): void {
    let known = false;
    for (const entry of [...this.#entries.values()]) {
      if (entry.taskId !== taskId) continue;
      known = true;
      this.#end(entry, 'asked');
    }
    if (!known) this.#cancelled.add(taskId);
  }

  #stop(executionId: string): void {
    this.#stopped.add(executionId);
    for (const entry of [...this.#entries.values()]) {
      if (entry.task.executionId === executionId) this.#end(entry, 'asked');
    }
  }

  #unwanted(task: HeldTask): void {
    const entry = this.#entries.get(keyOf(task));
    if (entry !== undefined) this.#end(entry, 'unwanted');
    // Its payload is dropped, its end is still told. An agent's late result is told, and discarded there.
    else if (this.#cancellable) this.#link.send(task, { kind: 'aborted', outcome: 'finishedFirst' });
  }

  #end(entry: Entry, why: 'asked' | 'lost' | 'unwanted'): void {
    if (entry.abort === null) {
      this.#entries.delete(keyOf(entry));
      this.#report(entry, why === 'lost' ? { kind: 'lost' } : { kind: 'aborted', outcome: 'neverStarted' });
      this.#next();
    } else if (this.#cancellable && entry.ending === null) {
      entry.ending = why;
      entry.abort.abort(abortReason);
    }
  }

  /** The process itself gives up what it holds: also what nobody else could cancel. */
  #endAll(why: 'lost'): void {
    for (const entry of [...this.#entries.values()]) {
      if (entry.abort === null) {
        this.#end(entry, why);
      } else if (entry.ending === null) {
        entry.ending = why;
        entry.abort.abort(abortReason);
      }
    }
  }
}

/** What is reported of a task that was told to end. */
function asTold(report: WorkReport, ending: Entry['ending']): WorkReport {
  if (ending === 'lost' && report.kind === 'aborted') return { kind: 'lost' };
  if (ending === 'unwanted' && report.kind !== 'aborted') return { kind: 'aborted', outcome: 'finishedFirst' };
  return report;
}

function keyOf({ taskId, token }: HeldTask): string {
  return `${token} ${taskId}`;
}
