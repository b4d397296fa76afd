import { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Tokens } from '../ports/ids.ts';
import type { StoredExecution } from '../ports/store.ts';
import type { TaskClaim, TaskQueue, TaskRow } from '../ports/task-queue.ts';
import type { NodeWork, WorkReport } from '../ports/work.ts';
import type { HeldTask, WorkerGate, WorkerItem, WorkerLink } from '../ports/workers.ts';
import type { Log } from './environment.ts';
import { type ClusterTasks, RemoteTasks } from './remote-tasks.ts';
import { type Entry, neverStarted, newEntry, type TaskOwner } from './task-entry.ts';
import type { Timers } from './timers.ts';
import { type Worker, WorkerTable } from './worker-table.ts';

export interface DispatcherOptions {
  queue: TaskQueue;
  clock: Clock;
  timers: Timers;
  tokens: Tokens;
  log: Log;
  workerLeaseMs: number;
  agentLeaseMs: number;
  /** The pool of this process, and the name its claims bear: no other process may ever have it. */
  local: { id: string; work: NodeWork };
  /** Where several engines share the store; null: this one is alone. */
  cluster: ClusterTasks | null;
  /**
   * A worker of this project (null: of all) says how a task ended that is not known here any more. `counts`: it is a
   * result, and the first of that task; its payload is dropped. `again`: another engine was told so before.
   */
  late(taskId: string, report: WorkReport, project: string | null, counts: boolean, again?: boolean): void;
}

const DISCARDED_MAX = 10_000;
/** Before a claim that the store did not answer is tried again. */
const CLAIM_AGAIN_MS = 500;

/** How ids of in-process pools begin. */
export const LOCAL = 'pool:';

/**
 * Hands queued tasks to workers and agents in other processes: claims durably, then pushes; counts free slots;
 * passes on cancels, results and losses.
 *
 * The queue's order lives in memory and is rebuilt from the store. A worker that is silent for a lease has lost
 * its tasks, except those that only wait for the proof of their end.
 */
export class Dispatcher implements WorkerGate {
  readonly #options: DispatcherOptions;
  readonly #entries = new Map<string, Entry>();
  /** Identities of queued tasks by capability, oldest first. */
  readonly #queues = new Map<string, string[]>();
  readonly #workers = new WorkerTable();
  /** Rows that a restart found, until their owners ask for them. */
  readonly #found = new Map<string, TaskRow>();
  /** Results already counted as discarded: one that is repeated counts once. */
  readonly #discarded = new Set<string>();
  /** Results whose fate is not durable yet: one that is repeated gets the same answer. */
  readonly #answers = new Map<string, { claim: TaskClaim; answer: Promise<{ discarded: boolean }> }>();
  readonly #remote: RemoteTasks | null;
  /** Connections that closed before their hello was answered. */
  readonly #left = new WeakSet<WorkerLink>();
  #draining = false;
  #closed = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    const { cluster } = options;
    this.#remote =
      cluster === null
        ? null
        : new RemoteTasks({
            ...options,
            ...cluster,
            table: {
              entries: this.#entries,
              workers: this.#workers,
              free: (capability) => !this.#draining && this.#workers.anyFree(capability),
              claim: (entry, worker) => this.#claim(entry.row.id, entry, worker),
              add: (entry) => this.#entries.set(entry.row.id, entry),
              unqueue: (entry) => this.#unqueue(entry),
              place: (entry, claim) => this.#place(entry, claim),
              release: (entry) => this.#release(entry),
              forget: (entry) => this.#forget(entry.row.id, entry),
              abort: (id) => this.abort(id),
              gone: (entry) => this.#gone(entry.row.id, entry),
              take: (entry, claim, report) => this.#takeStored(entry, claim, report),
              noteDiscarded: (id) => this.#noteDiscarded(id),
            },
          });
  }

  /** What concerns tasks of several engines; null where this one is alone. */
  get remote(): RemoteTasks | null {
    return this.#remote;
  }

  /** Reads what an earlier process left in the queue; where engines share it, `fetch` does for each that is taken over. */
  async recover(): Promise<void> {
    if (this.#remote !== null) return;
    for (let after: string | null = null; ; ) {
      const rows: TaskRow[] = await this.#options.queue.listTasks(after, 1_000);
      for (const row of rows) this.#found.set(row.id, row);
      const last = rows.at(-1);
      if (last === undefined || rows.length < 1_000) return;
      after = last.id;
    }
  }

  /** Reads the tasks of executions that were taken over, before their hosts are restored. */
  async fetch(executions: readonly StoredExecution[]): Promise<void> {
    for (const row of (await this.#remote?.fetch(executions)) ?? []) this.#found.set(row.id, row);
  }

  /** After the owners were restored: what none of them took back is nobody's. */
  recovered(): void {
    this.#found.clear();
  }

  /** Gives nothing out any more; what is held goes on, at another engine where there is one. */
  drain(): void {
    this.#draining = true;
    if (this.#remote?.hasOthers === true) this.hangUp();
  }

  /** Workers and agents come back, and say what they hold: to another engine where they know one. */
  hangUp(): void {
    for (const { connected, link } of [...this.#workers]) if (connected) link.close();
  }

  close(): void {
    this.#closed = true;
    this.#remote?.close();
    // Their tasks go on elsewhere.
    if (this.#remote !== null) this.hangUp();
    for (const { leaseTimer } of this.#workers) if (leaseTimer !== null) this.#options.timers.cancel(leaseTimer);
  }

  // ------------------------------------------------------------------ owners

  /** Its row is durable: the task waits for a worker. */
  offer(row: TaskRow, owner: TaskOwner): void {
    if (this.#entries.has(row.id)) return;
    this.#entries.set(row.id, newEntry(row, owner, 'queued'));
    this.#enqueue(row);
    this.#pump(row.capability);
  }

  /** Mostly the youngest; what a restart found, or a claim gave back, has its old place. */
  #enqueue({ id, capability, queuedAtMs }: TaskRow): void {
    const queue = this.#queues.get(capability);
    if (queue === undefined) {
      this.#queues.set(capability, [id]);
      return;
    }
    let place = queue.length;
    while (place > 0 && (this.#entries.get(queue[place - 1] as string)?.row.queuedAtMs ?? 0) > queuedAtMs) place -= 1;
    queue.splice(place, 0, id);
  }

  /** A task that was queued or held when an earlier process ended; null: it is not in the queue. */
  restore(id: string, owner: TaskOwner): TaskRow | null {
    const known = this.#entries.get(id);
    if (known !== undefined) {
      known.owner = owner;
      known.foreign = false;
      // Its owner hears of a claim when it is made.
      return known.state === 'claiming' ? { ...known.row, claim: null } : known.row;
    }
    const row = this.#found.get(id);
    if (row === undefined) return null;
    this.#found.delete(id);
    // What a pool had went with its process.
    if (row.claim?.worker.startsWith(LOCAL) === true) return null;
    if (row.claim === null) {
      this.offer(row, owner);
      return row;
    }
    const entry = newEntry(row, owner, 'elsewhere');
    this.#entries.set(id, entry);
    if (this.#remote === null) this.#place(entry, row.claim);
    else this.#remote.restored(entry, row.claim, row.report ?? null);
    return row;
  }

  /** It is this worker's, who has a lease's time to come back where it is not here. */
  #place(entry: Entry, claim: TaskClaim): void {
    const { id, capability } = entry.row;
    entry.state = 'held';
    entry.row = { ...entry.row, claim };
    let worker = this.#workers.get(claim.worker);
    if (worker === undefined) {
      const name = this.#remote?.workerName(claim.worker) ?? claim.worker;
      worker = this.#workers.addAbsent(claim.worker, name, capability, this.#options.clock.monotonicMs());
      this.#armLease(worker);
    }
    worker.held.add(id);
  }

  has(id: string): boolean {
    return this.#entries.has(id);
  }

  /** The pool of this process has it. */
  isHere(id: string): boolean {
    return this.#entries.get(id)?.row.claim?.worker === this.#options.local.id;
  }

  /**
   * Nobody needs the task any more: `withdrawn` before anybody had it, else its holder is told. `asked`: another engine
   * may have given it out; a report follows, or `found`.
   */
  abort(id: string): 'withdrawn' | 'told' | 'asked' | 'unknown' {
    const entry = this.#entries.get(id);
    if (entry === undefined) return 'unknown';
    if (this.#remote !== null && entry.state !== 'held') return this.#remote.abort(entry);
    // One that is being claimed was not pushed yet, and will not be.
    if (entry.state !== 'held' || entry.unpushed !== null) {
      this.#forget(id, entry);
      if (entry.foreign) void entry.owner.reported(neverStarted);
      return 'withdrawn';
    }
    entry.aborting = true;
    const { local } = this.#options;
    if (entry.row.claim?.worker === local.id) {
      local.work.abort(id);
      return 'told';
    }
    const worker = this.#holderOf(id);
    if (worker?.link.kind === 'agent') {
      // Nobody can cancel it: it runs on, and what it brings is discarded.
      worker.runsOn.add(id);
      this.#forget(id, entry);
      return 'told';
    }
    if (worker?.connected === true) worker.link.cancel(id);
    return 'told';
  }

  /** Takes a queued task back for good, then calls; not where somebody turns out to have it. */
  withdraw(id: string, withdrawn: () => void): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (this.#remote !== null) {
      if (entry.state === 'queued') this.#remote.withdraw(entry, withdrawn);
      return;
    }
    if (this.abort(id) === 'withdrawn') withdrawn();
  }

  /** This engine has no say in its execution any more: who holds it here goes on for the next owner. */
  disown(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || this.#remote === null || entry.foreign) return;
    if (this.isHere(id)) this.#options.local.work.abort(id);
    else if (entry.state === 'claiming' || entry.state === 'held') return this.#remote.disown(entry);
    this.#forget(id, entry);
  }

  /** Its record is deleted: nobody waits for the ends of its tasks any more. */
  forgetExecution(executionId: string): void {
    for (const [id, entry] of this.#entries) if (id.startsWith(`${executionId}/`)) this.#forget(id, entry);
  }

  #holderOf(id: string): Worker | null {
    const claim = this.#entries.get(id)?.row.claim ?? null;
    return claim === null ? null : (this.#workers.get(claim.worker) ?? null);
  }

  /** Takes the task out of everything; its worker's slot is free. */
  #forget(id: string, entry: Entry): void {
    this.#entries.delete(id);
    if (entry.state === 'queued') this.#unqueue(entry);
    this.#release(entry);
  }

  #unqueue({ row: { id, capability } }: Entry): void {
    const queue = this.#queues.get(capability);
    const index = queue?.indexOf(id) ?? -1;
    if (index >= 0) queue?.splice(index, 1);
    if (queue?.length === 0) this.#queues.delete(capability);
  }

  /** Its worker has it no more. */
  #release({ row: { id, claim } }: Entry): void {
    const worker = claim === null ? undefined : this.#workers.get(claim.worker);
    if (worker?.held.delete(id) === true) this.#slotFreed(worker);
  }

  #slotFreed(worker: Worker): void {
    if (!worker.connected) {
      if (worker.held.size === 0 && worker.leaseTimer === null) this.#workers.delete(worker.link.workerId);
      return;
    }
    for (const capability of worker.link.capabilities) this.#pump(capability);
  }

  // ------------------------------------------------------------------ giving tasks out

  #pump(capability: string): void {
    this.#giveOut(capability);
    this.#remote?.pumped(capability, this.#queues.has(capability));
  }

  #giveOut(capability: string): void {
    const queue = this.#queues.get(capability);
    if (queue === undefined || this.#draining || this.#closed) return;
    let index = 0;
    while (index < queue.length) {
      const id = queue[index] as string;
      const entry = this.#entries.get(id);
      const worker = entry === undefined ? null : this.#workers.freest(capability, entry.row.task.project);
      if (entry === undefined) {
        queue.splice(index, 1);
        continue;
      }
      if (worker === null && !capability.startsWith('agent:') && this.#options.local.work.reserve(capability)) {
        queue.splice(index, 1);
        this.#claimHere(id, entry);
        continue;
      }
      if (worker === null) {
        // Nobody may take it; a later one may be of a project that somebody serves.
        index += 1;
        if (!this.#workers.anyFree(capability)) break;
        continue;
      }
      queue.splice(index, 1);
      this.#claim(id, entry, worker);
    }
    if (queue.length === 0) this.#queues.delete(capability);
  }

  /** A conditional write on the task, which reads the stop intent; then the push. */
  #claim(id: string, entry: Entry, worker: Worker): void {
    const { tokens } = this.#options;
    const token = tokens.make();
    const claim = this.#newClaim(worker.link.workerId, tokens.hash(token));
    entry.state = 'claiming';
    entry.row = { ...entry.row, claim };
    worker.held.add(id);
    this.#writeClaim(id, entry, claim, token);
  }

  #newClaim(worker: string, tokenHash: string): TaskClaim {
    const claim = { worker, tokenHash, atMs: this.#options.clock.nowMs() };
    return this.#remote === null ? claim : { ...claim, via: this.#remote.engine };
  }

  #writeClaim(id: string, entry: Entry, claim: TaskClaim, token: string): void {
    const { queue, timers } = this.#options;
    queue.claimTask(id, claim).then(
      (outcome) => {
        if (this.#entries.get(id) !== entry) return;
        if (outcome !== 'claimed') {
          this.#refused(id, entry, outcome);
          return;
        }
        if (entry.aborting) {
          this.#withdrawn(id, entry);
          return;
        }
        entry.state = 'held';
        const worker = this.#workers.get(claim.worker);
        if (worker === undefined) {
          this.#gone(id, entry);
          return;
        }
        worker.held.add(id);
        entry.owner.claimed({ id: worker.link.workerId, name: worker.link.name });
        if (worker.connected) worker.link.run(entry.row.task, token);
        else entry.unpushed = token;
      },
      () => {
        // Whether it was made is not known: the same claim is tried again, by another worker if this one has gone.
        timers.after(CLAIM_AGAIN_MS, () => {
          if (this.#entries.get(id) !== entry) return;
          // Of another engine's task nobody else finds out.
          if (entry.foreign || this.#workers.has(claim.worker)) this.#writeClaim(id, entry, claim, token);
          else this.#requeue(entry);
        });
      },
    );
  }

  #requeue(entry: Entry): void {
    entry.state = 'queued';
    entry.row = { ...entry.row, claim: null };
    this.#enqueue(entry.row);
    this.#pump(entry.row.capability);
  }

  /** It is claimed and was never pushed, and nobody wants it any more. */
  #withdrawn(id: string, entry: Entry): void {
    this.#forget(id, entry);
    void entry.owner.reported(neverStarted);
  }

  #refused(id: string, entry: Entry, outcome: 'stopping' | 'gone' | 'taken'): void {
    if (this.#remote !== null) {
      this.#remote.refused(entry, outcome);
      return;
    }
    if (outcome === 'stopping') {
      // It is given to nobody, and waits for the stop that came first.
      const worker = this.#holderOf(id);
      entry.state = 'queued';
      entry.row = { ...entry.row, claim: null };
      if (worker?.held.delete(id) === true) this.#slotFreed(worker);
      return;
    }
    this.#forget(id, entry);
    // An earlier claim was made, its answer was lost, and its worker has gone since.
    if (outcome === 'taken') void entry.owner.reported({ kind: 'lost' });
  }

  /** A slot of this process became free: who waits in the queue takes it. */
  localFreed(): void {
    for (const capability of [...this.#queues.keys()]) this.#pump(capability);
  }

  #claimHere(id: string, entry: Entry): void {
    const claim = this.#newClaim(this.#options.local.id, '');
    entry.state = 'claiming';
    entry.row = { ...entry.row, claim };
    this.#writeClaimHere(id, entry, claim);
  }

  #writeClaimHere(id: string, entry: Entry, claim: TaskClaim): void {
    const { queue, local, timers } = this.#options;
    const giveBack = (): void => {
      local.work.release(entry.row.capability);
      this.localFreed();
    };
    queue.claimTask(id, claim).then(
      (outcome) => {
        if (this.#entries.get(id) !== entry || this.#remote?.lapsed === true) {
          giveBack();
          return;
        }
        if (outcome !== 'claimed') {
          this.#refused(id, entry, outcome);
          giveBack();
          return;
        }
        if (entry.aborting) {
          this.#withdrawn(id, entry);
          giveBack();
          return;
        }
        entry.state = 'held';
        entry.owner.claimed({ id: local.id, name: 'in-process pool' });
        local.work.start(
          entry.row.task,
          (report) => {
            this.#forget(id, entry);
            // Before what this report makes ready: that is younger.
            this.localFreed();
            void entry.owner.reported(report);
          },
          (stream, text, truncated) => entry.owner.log(stream, text, truncated),
        );
      },
      () => {
        timers.after(CLAIM_AGAIN_MS, () => {
          if (this.#entries.get(id) === entry) this.#writeClaimHere(id, entry, claim);
          else giveBack();
        });
      },
    );
  }

  // ------------------------------------------------------------------ what workers say

  async connected(link: WorkerLink, held: HeldTask[]): Promise<string[]> {
    const { clock, tokens, timers } = this.#options;
    if (this.#remote !== null && this.#closed) throw new FullstopError('FS_UNAVAILABLE', 'this engine has ended');
    if (this.#remote !== null && held.length > 0) {
      await this.#remote.arrived(link, held, (id) => this.#answers.has(id));
      if (this.#left.has(link)) return [];
    }
    const worker = this.#workers.get(link.workerId) ?? this.#workers.add(link, true, 0);
    worker.link = link;
    worker.connected = true;
    worker.heardAtMs = clock.monotonicMs();
    if (worker.leaseTimer !== null) timers.cancel(worker.leaseTimer);
    worker.leaseTimer = null;
    const listed = new Map(held.map(({ taskId, token }) => [taskId, token]));
    const keep: string[] = [];
    for (const id of [...worker.held]) {
      const entry = this.#entries.get(id);
      const token = listed.get(id);
      if (entry === undefined) {
        worker.held.delete(id);
      } else if (token !== undefined && tokens.hash(token) === entry.row.claim?.tokenHash) {
        entry.overdue = false;
        if (!entry.aborting) keep.push(id);
      } else if (entry.unpushed !== null) {
        link.run(entry.row.task, entry.unpushed);
        entry.unpushed = null;
      } else if (entry.state === 'held') {
        this.#gone(id, entry);
      }
    }
    worker.runsOn = new Set();
    for (const [id, token] of listed) {
      const answer = this.#answers.get(id);
      if (answer?.claim.tokenHash === tokens.hash(token)) keep.push(id);
      else if (!worker.held.has(id)) worker.runsOn.add(id);
    }
    this.#armLease(worker);
    for (const capability of link.capabilities) this.#pump(capability);
    this.#remote?.find();
    return keep;
  }

  disconnected(link: WorkerLink): void {
    const worker = this.#workers.get(link.workerId);
    if (worker === undefined || worker.link !== link) {
      this.#left.add(link);
      return;
    }
    worker.connected = false;
    if (worker.held.size === 0) this.#drop(worker);
  }

  heartbeat(link: WorkerLink, held: string[]): string[] {
    const worker = this.#workers.get(link.workerId);
    if (worker === undefined || worker.link !== link) return held;
    worker.heardAtMs = this.#options.clock.monotonicMs();
    const listed = new Set(held);
    const cancel = held.filter((id) => {
      if (this.#answers.has(id)) return false;
      const entry = this.#entries.get(id);
      return entry === undefined || entry.aborting || entry.row.claim?.worker !== link.workerId;
    });
    for (const id of [...worker.held]) {
      const entry = this.#entries.get(id);
      if (entry === undefined || entry.state !== 'held' || listed.has(id)) {
        if (entry !== undefined) entry.unlisted = 0;
        continue;
      }
      // One beat may have been under way when the task was pushed.
      entry.unlisted += 1;
      if (entry.unlisted <= 1) continue;
      // Should its push arrive after all, this is right behind it.
      if (link.kind === 'worker') link.cancel(id);
      this.#gone(id, entry);
    }
    for (const id of worker.runsOn) if (!listed.has(id)) this.#ranOn(worker, id);
    return cancel;
  }

  async result(link: WorkerLink, taskId: string, token: string, report: WorkReport): Promise<{ discarded: boolean }> {
    const tokenHash = this.#options.tokens.hash(token);
    const isIts = (claim: TaskClaim | null | undefined): claim is TaskClaim =>
      claim?.worker === link.workerId && claim.tokenHash === tokenHash;
    let isStrange = false;
    if (this.#remote !== null && !this.#answers.has(taskId) && this.#entries.get(taskId)?.state !== 'held') {
      const strange = await this.#remote.arrived(link, [{ taskId, token }], (id) => this.#answers.has(id));
      isStrange = strange.has(taskId);
    }
    const before = this.#answers.get(taskId);
    if (before !== undefined) return isIts(before.claim) ? before.answer : { discarded: true };
    const worker = this.#workers.get(link.workerId);
    if (worker?.runsOn.has(taskId) === true) this.#ranOn(worker, taskId);
    const entry = this.#entries.get(taskId);
    if (entry === undefined && isStrange) return { discarded: true };
    if (entry === undefined) {
      const isResult = report.kind === 'completed' || report.kind === 'failed';
      const counts = isResult && this.#noteDiscarded(taskId);
      if (this.#remote === null) this.#options.late(taskId, report, link.project, counts);
      else this.#remote.late(taskId, report, link.project, counts);
      return { discarded: true };
    }
    const { claim } = entry.row;
    // It is somebody else's: nothing of it is known to be late.
    if (!isIts(claim)) return { discarded: true };
    return this.#takeReport(entry, claim, report);
  }

  #takeReport(entry: Entry, claim: TaskClaim, report: WorkReport): Promise<{ discarded: boolean }> {
    const { id } = entry.row;
    this.#forget(id, entry);
    const reported = entry.owner.reported(report);
    const kept = this.#remote === null ? reported : this.#remote.kept(entry, claim, report, reported);
    const answer = kept.then((taken) => {
      if (!taken) this.#noteDiscarded(id);
      return { discarded: !taken };
    });
    this.#answers.set(id, { claim, answer });
    return answer.finally(() => this.#answers.delete(id));
  }

  /** Its worker was told that the report is kept: an owner that is built anew meanwhile asks for it again. */
  async #takeStored(entry: Entry, claim: TaskClaim, report: WorkReport): Promise<void> {
    const { id } = entry.row;
    const row = { ...entry.row, claim, report };
    this.#found.set(id, row);
    await this.#takeReport(entry, claim, report);
    if (this.#found.get(id) === row) this.#found.delete(id);
  }

  /** False when it was noted before. */
  #noteDiscarded(taskId: string): boolean {
    if (this.#discarded.has(taskId)) return false;
    this.#discarded.add(taskId);
    if (this.#discarded.size > DISCARDED_MAX) {
      const oldest = this.#discarded.values().next().value;
      if (oldest !== undefined) this.#discarded.delete(oldest);
    }
    return true;
  }

  /** What ran on there has ended. */
  #ranOn(worker: Worker, id: string): void {
    worker.runsOn.delete(id);
    this.#slotFreed(worker);
  }

  log(
    link: WorkerLink,
    taskId: string,
    token: string,
    stream: 'stdout' | 'stderr',
    text: string,
    truncated: boolean,
  ): void {
    const entry = this.#entries.get(taskId);
    const claim = entry?.row.claim ?? null;
    if (entry === undefined || claim === null || entry.aborting) return;
    if (claim.worker !== link.workerId || claim.tokenHash !== this.#options.tokens.hash(token)) return;
    entry.owner.log(stream, text, truncated);
  }

  /** Its worker has it no more, and brought no result. */
  #gone(id: string, entry: Entry): void {
    this.#forget(id, entry);
    void entry.owner.reported(entry.aborting ? { kind: 'aborted', outcome: 'aborted' } : { kind: 'lost' });
  }

  // ------------------------------------------------------------------ leases

  #leaseMs(worker: Worker): number {
    return worker.link.kind === 'agent' ? this.#options.agentLeaseMs : this.#options.workerLeaseMs;
  }

  #armLease(worker: Worker): void {
    const { clock, timers } = this.#options;
    const leftMs = worker.heardAtMs + this.#leaseMs(worker) - clock.monotonicMs();
    worker.leaseTimer = timers.after(Math.max(0, Math.ceil(leftMs)), () => {
      worker.leaseTimer = null;
      const silentMs = Math.round(clock.monotonicMs() - worker.heardAtMs);
      if (silentMs < this.#leaseMs(worker)) {
        this.#armLease(worker);
        return;
      }
      this.#options.log.warn(
        { worker: worker.link.workerId, name: worker.link.name, silentMs },
        'a worker lost its lease',
      );
      if (worker.connected) worker.link.close();
      this.#drop(worker);
    });
  }

  /** It is silent for a lease: its tasks are lost, those that are being aborted stay open until it is heard of. */
  #drop(worker: Worker): void {
    const { workerId } = worker.link;
    worker.connected = false;
    for (const id of [...worker.held]) {
      const entry = this.#entries.get(id);
      // A claim that is being written ends as its own answer says.
      if (entry === undefined || entry.state !== 'held') worker.held.delete(id);
      else if (this.#remote !== null) this.#remote.overdue(entry);
      else if (!entry.aborting) this.#gone(id, entry);
    }
    worker.runsOn.clear();
    if (worker.held.size === 0) {
      if (worker.leaseTimer !== null) this.#options.timers.cancel(worker.leaseTimer);
      this.#workers.delete(workerId);
    }
  }

  // ------------------------------------------------------------------ for people

  workers(): WorkerItem[] {
    const nowMs = this.#options.clock.monotonicMs();
    const { id, work } = this.#options.local;
    const pool: WorkerItem = {
      id,
      name: 'in-process pool',
      kind: 'pool',
      ...work.describe(),
      connected: true,
      silentMs: 0,
    };
    const others = this.#workers.items(nowMs);
    return pool.slots > 0 ? [pool, ...others] : others;
  }

  missing(): Record<string, number> {
    const missing: Record<string, number> = {};
    const here = this.#options.local.work.describe();
    for (const [capability, queue] of this.#queues) {
      const offered = this.#workers.offers(capability) || this.#remote?.offers(capability) === true;
      if (!offered && !(here.slots > 0 && here.capabilities.includes(capability))) missing[capability] = queue.length;
    }
    return missing;
  }
}
