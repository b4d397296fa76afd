import type { TaskRow } from '../ports/task-queue.ts';
import type { Task, TaskLog, WorkReport } from '../ports/work.ts';
import type { ExecutionHost } from './execution-host.ts';
import { iterationIndexes } from './identity.ts';
import type { Slot } from './slot.ts';
import { neverStarted } from './task-entry.ts';
import type { Timer } from './timers.ts';

type TaskEnd = 'told' | 'withdrawn' | 'ended' | 'unknown' | 'asked';

/** One log event's length in characters, and how many an attempt may have. */
const LOG_CHARS_MAX = 65_536;
const LOGS_MAX = 1_000;
/** A store that takes the commit answers before. */
const ANSWER_MAX_MS = 3_000;

/**
 * The tasks of one execution: which run in this process, which wait in the queue or are held elsewhere.
 *
 * A task that finds a free slot here never enters the queue: its start costs no write beyond its node's.
 */
export class TaskDesk {
  readonly #host: ExecutionHost;
  /** Started here or offered to others, and not reported. */
  readonly #inFlight = new Map<string, Slot>();
  /** Reported, and that is not durable yet. */
  readonly #ended = new Map<string, WorkReport>();
  /** Told to end because their attempt timed out, and not heard of since. */
  readonly abandoned = new Map<string, { slot: Slot; elsewhere: boolean }>();
  /** Agents' tasks whose attempt timed out, and that is not durable yet. */
  readonly #runOn = new Set<string>();
  /** Aborted, and the store is being asked whether another engine has given them out. */
  readonly #asked = new Set<string>();
  #askedTimer: Timer | null = null;
  /** For the next commit. */
  queued: TaskRow[] = [];
  dequeued: string[] = [];

  constructor(host: ExecutionHost) {
    this.#host = host;
  }

  get size(): number {
    return this.#inFlight.size;
  }

  /** Those that end with this process. */
  get here(): number {
    let here = 0;
    for (const [id, slot] of this.#inFlight) {
      if (slot.queuedTask === null || this.#host.env.dispatcher.isHere(id)) here += 1;
    }
    return here;
  }

  has(id: string): boolean {
    return this.#inFlight.has(id);
  }

  /** What a task reported that is not durable yet; null: nothing. */
  endOf(id: string): WorkReport | null {
    return this.#ended.get(id) ?? null;
  }

  /** The slot of a reported task, which is in flight no more. */
  take(id: string, report: WorkReport): Slot | undefined {
    this.#answered(id);
    const slot = this.#inFlight.get(id);
    this.#inFlight.delete(id);
    // Should the timeout that told it be taken back, this is how it ended.
    if (this.abandoned.delete(id)) this.#ended.set(id, report);
    return slot;
  }

  /**
   * The next commit takes the row of a task with it of which it is not known whether anybody has it: what a stop says
   * of that task would be a guess. It waits for the answer, and is asked for again then.
   */
  mustWait(): boolean {
    if (this.#asked.size === 0 || !this.dequeued.some((id) => this.#asked.has(id))) return false;
    this.#askedTimer ??= this.#host.env.timers.after(ANSWER_MAX_MS, () => {
      this.#askedTimer = null;
      this.#asked.clear();
      this.#host.answered();
    });
    return true;
  }

  #answered(id: string): void {
    if (!this.#asked.delete(id) || this.#askedTimer === null || this.mustWait()) return;
    this.#host.env.timers.cancel(this.#askedTimer);
    this.#askedTimer = null;
    this.#host.answered();
  }

  #found(id: string, isThere: boolean): void {
    this.#answered(id);
    // No receipt speaks of it, and nobody here has it.
    if (!isThere && this.#host.stopReport === null) void this.#host.reported(id, neverStarted);
  }

  noteEnded(id: string, report: WorkReport): void {
    this.#ended.set(id, report);
  }

  /** Everything is durable. */
  durable(): void {
    this.#ended.clear();
    this.#runOn.clear();
  }

  forgetUnsaved(): void {
    this.queued = [];
    this.dequeued = [];
  }

  /** In the middle of the transition that starts an attempt: is there a slot in this process? */
  reserve(slot: Slot): void {
    const { type, where } = slot.node.type;
    slot.reserved = where !== 'agent' && this.#host.env.work.reserve(type);
  }

  release(slot: Slot): void {
    if (!slot.reserved) return;
    slot.reserved = false;
    this.#host.env.work.release(slot.node.type.type);
    this.#host.env.dispatcher.localFreed();
  }

  /** An attempt began that has no slot here: its task enters the queue with this commit. */
  enqueue(slot: Slot): void {
    const task = this.#taskOf(slot);
    const { type, where } = slot.node.type;
    const capability = where === 'agent' ? `agent:${String(task.with['pool'])}` : type;
    const { clock, dispatcher } = this.#host.env;
    slot.queuedTask = { id: task.id, capability, task, queuedAtMs: clock.nowMs(), claim: null };
    if (dispatcher.remote !== null) slot.queuedTask.engine = dispatcher.remote.engine;
    this.queued.push(slot.queuedTask);
  }

  /** The attempt has ended: its task leaves the queue with this commit. */
  dequeue(slot: Slot): void {
    if (slot.queuedTask === null) return;
    this.dequeued.push(slot.queuedTask.id);
    slot.queuedTask = null;
    slot.claimedBy = null;
    if (slot.queueTimer !== null) this.#host.env.timers.cancel(slot.queueTimer);
    slot.queueTimer = null;
  }

  #taskOf(slot: Slot): Task {
    const { header } = this.#host;
    const { type, where } = slot.node.type;
    return {
      id: slot.attemptId,
      executionId: header.id,
      project: header.project,
      node: slot.node.path,
      iterations: iterationIndexes(slot.scope.iterations),
      attempt: slot.attempt,
      type,
      where,
      with: slot.payload as Record<string, unknown>,
      secrets: slot.node.secrets,
      idempotencyKey: `${header.id}/${slot.key}`,
      workflow: header.workflow.name,
      workflowHash: header.workflow.hash,
    };
  }

  /** Its start is durable. */
  start(slot: Slot): void {
    const id = slot.attemptId;
    if (slot.queuedTask !== null) {
      this.#inFlight.set(id, slot);
      this.#offer(slot, slot.queuedTask);
      return;
    }
    slot.reserved = false;
    this.#host.env.work.start(
      this.#taskOf(slot),
      (report) => {
        // Before what this report makes ready: who waits in the queue is older.
        this.#host.env.dispatcher.localFreed();
        void this.#host.reported(id, report);
      },
      (stream, text, truncated) => this.#log(id, stream, text, truncated),
    );
    // No report comes before `start` has returned, and none at all where it throws.
    this.#inFlight.set(id, slot);
  }

  #offer(slot: Slot, row: TaskRow): void {
    this.#host.env.dispatcher.offer(row, this.#ownerOf(row.id));
    this.#armQueueTimeout(slot, row);
  }

  #ownerOf(id: string) {
    return {
      claimed: (worker: { id: string; name: string }) => this.#claimed(id, worker.name),
      reported: (report: WorkReport) => this.#host.reported(id, report),
      found: (isThere: boolean) => this.#found(id, isThere),
      log: ((stream, text, truncated) => this.#log(id, stream, text, truncated)) satisfies TaskLog,
    };
  }

  /** A restored node: its task may still be in the queue, or in somebody's hands. */
  restore(slot: Slot, data: { queued?: boolean; worker?: string | null; agent?: string | null } | null): void {
    const id = slot.attemptId;
    // A timeout that told it may have been taken back.
    if (this.#inFlight.has(id) || this.abandoned.delete(id)) this.#inFlight.set(id, slot);
    if (data?.queued !== true) return;
    const row = this.#host.env.dispatcher.restore(id, this.#ownerOf(id));
    slot.queuedTask = row ?? { id, capability: '', task: this.#taskOf(slot), queuedAtMs: 0, claim: null };
    if (row === null) return;
    this.#inFlight.set(id, slot);
    slot.claimedBy = data.worker ?? data.agent ?? null;
    if (row.claim === null) this.#armQueueTimeout(slot, row);
  }

  /** A restored node whose task was claimed, and the record does not say so. */
  noteClaim(slot: Slot): void {
    const claim = slot.queuedTask?.claim ?? null;
    if (claim === null || slot.claimedBy !== null) return;
    slot.claimedBy = claim.worker;
    // The clock of another engine says nothing here.
    this.#host.claimed(slot, claim.worker, claim.via === undefined ? claim.atMs : this.#host.env.clock.nowMs());
  }

  #armQueueTimeout(slot: Slot, row: TaskRow): void {
    const { queueTimeoutMs } = slot.node;
    if (queueTimeoutMs === null) return;
    const { attempt } = slot;
    const { timers, dispatcher } = this.#host.env;
    slot.queueTimer = timers.at(row.queuedAtMs + queueTimeoutMs, () => {
      slot.queueTimer = null;
      if (slot.claimedBy !== null) return;
      dispatcher.withdraw(row.id, () => {
        // The host may have been built anew meanwhile.
        const now = this.#inFlight.get(row.id) ?? slot;
        this.#inFlight.delete(row.id);
        this.#host.workFailed(now, attempt, `no worker claimed it within ${queueTimeoutMs} ms`, 'FS_TIMEOUT', true);
      });
    });
  }

  #claimed(id: string, name: string): void {
    const slot = this.#inFlight.get(id);
    if (slot === undefined || slot.settled) return;
    if (slot.queueTimer !== null) this.#host.env.timers.cancel(slot.queueTimer);
    slot.queueTimer = null;
    slot.claimedBy = name;
    this.#host.claimed(slot, name, this.#host.env.clock.nowMs());
  }

  #log(id: string, stream: 'stdout' | 'stderr', text: string, more = false): void {
    const slot = this.#inFlight.get(id);
    if (slot === undefined || slot.settled || slot.attemptId !== id || slot.logs >= LOGS_MAX) return;
    slot.logs += 1;
    const truncated = more || slot.logs === LOGS_MAX || text.length > LOG_CHARS_MAX;
    const data = { stream, text: text.slice(0, LOG_CHARS_MAX) };
    this.#host.logged(slot, truncated ? { ...data, truncated: true } : data);
  }

  /**
   * Ends a task for real: `told`, its report follows; `withdrawn`, nobody had it; `ended`, it had reported;
   * `unknown`, it was never handed out, or the process that ran it is gone; `asked`, whether an agent has it through
   * another engine, a report follows.
   */
  abort(slot: Slot): TaskEnd {
    const id = slot.attemptId;
    this.release(slot);
    if (this.#runOn.has(id)) return 'told';
    if (this.#ended.has(id)) {
      this.#inFlight.delete(id);
      return 'ended';
    }
    if (!this.#inFlight.has(id)) return 'unknown';
    if (slot.queuedTask === null) {
      this.#host.env.work.abort(id);
      return 'told';
    }
    const how = this.#host.env.dispatcher.abort(id);
    const isAgents = slot.node.type.where === 'agent';
    if (how === 'asked') this.#asked.add(id);
    if (how === 'asked' && !isAgents) return 'told';
    if (how !== 'told' || isAgents) this.#inFlight.delete(id);
    return how;
  }

  /** As `abort`, and its report is of no interest. */
  abandon(slot: Slot): TaskEnd {
    const id = slot.attemptId;
    const elsewhere = slot.queuedTask !== null && !this.#host.env.dispatcher.isHere(id);
    const how = this.abort(slot);
    this.#inFlight.delete(id);
    if (how !== 'told') return how;
    if (slot.node.type.where === 'agent') this.#runOn.add(id);
    else this.abandoned.set(id, { slot, elsewhere });
    return how;
  }

  /**
   * The process that ran the task is gone, what it started may not be: its report follows when that is proven.
   * false: nothing of the kind can be left.
   */
  pursue(slot: Slot): boolean {
    const id = slot.attemptId;
    const { type } = slot.node.type;
    if (!this.#host.env.work.pursue({ id, type }, (report) => void this.#host.reported(id, report))) return false;
    this.#inFlight.set(id, slot);
    return true;
  }

  /** What the store knows of those that have not reported, whatever hints were lost; null: nothing more than this engine. */
  lookAgain(): Promise<void> | null {
    const queued = [...this.#inFlight].flatMap(([id, slot]) => (slot.queuedTask === null ? [] : [id]));
    return this.#host.env.dispatcher.remote?.lookAgain(queued) ?? null;
  }

  /** This engine has no say in them any more. */
  abortAll(): void {
    const { work, dispatcher } = this.#host.env;
    for (const [id, slot] of this.#inFlight) {
      if (slot.queuedTask === null) work.abort(id);
      else dispatcher.disown(id);
    }
    for (const id of this.abandoned.keys()) dispatcher.disown(id);
  }
}
