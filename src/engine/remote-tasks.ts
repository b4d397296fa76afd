/**
 * Tasks of executions that one engine owns and whose workers are connected to another.
 *
 * Between the two is the store: the row of a task holds its claim, through which engine its worker is reached, and
 * the worker's report until the owner has taken it. Hints save looks at it, and none is needed: what is not told is
 * found within a second where a worker has a free slot, and within two where a task waits, is held or was reported.
 */
import { hasCode, messageOf } from '../errors.ts';
import type { EngineHint } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { ClusterStore, TaskState } from '../ports/cluster.ts';
import type { Tokens } from '../ports/ids.ts';
import type { HeaderRow, StoredExecution } from '../ports/store.ts';
import type { TaskClaim, TaskQueue, TaskRow } from '../ports/task-queue.ts';
import type { WorkReport } from '../ports/work.ts';
import type { HeldTask, WorkerLink } from '../ports/workers.ts';
import type { Log } from './environment.ts';
import { type Entry, neverStarted, newEntry, type TaskOwner } from './task-entry.ts';
import { TaskSearch } from './task-search.ts';
import type { Timer, Timers } from './timers.ts';
import type { Worker, WorkerTable } from './worker-table.ts';

/** What is known of the other engines. */
export interface Peers {
  /** There is a member beside this one. */
  hasOthers(): boolean;
  /** It is a member, and nobody has declared it dead. */
  isAlive(engine: string): boolean;
  /** Of a worker or agent of any of them; null: unknown. */
  workerName(id: string): string | null;
  /** A connected worker of one of them offers it. */
  offers(capability: string): boolean;
}

/** What an engine gives its dispatcher where several share the store. */
export interface ClusterTasks {
  engine: string;
  cluster: ClusterStore;
  peers: Peers;
  tell(hint: EngineHint): void;
  /** This engine has the execution in hand: no task of it that the dispatcher does not know matters. */
  owns(executionId: string): boolean;
  /** Others may own what this engine had. */
  lapsed(): boolean;
  header(executionId: string): Promise<HeaderRow | null>;
}

/** The dispatcher, as these rules see it. */
export interface TaskTable {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly workers: WorkerTable;
  /** A worker here could take such a task, and no task of this engine is left that it could take. */
  free(capability: string): boolean;
  add(entry: Entry): void;
  claim(entry: Entry, worker: Worker): void;
  unqueue(entry: Entry): void;
  place(entry: Entry, claim: TaskClaim): void;
  release(entry: Entry): void;
  forget(entry: Entry): void;
  abort(id: string): unknown;
  gone(entry: Entry): void;
  take(entry: Entry, claim: TaskClaim, report: WorkReport): Promise<unknown>;
  noteDiscarded(id: string): boolean;
}

export interface RemoteTasksOptions extends ClusterTasks {
  table: TaskTable;
  queue: TaskQueue;
  clock: Clock;
  timers: Timers;
  tokens: Tokens;
  log: Log;
  local: { id: string };
  /** `again`: somebody else was told before, who counts it among what was discarded. */
  late(taskId: string, report: WorkReport, project: string | null, counts: boolean, again?: boolean): void;
}

const TICK_MS = 1_000;
/** Of one call of the store. */
const BATCH = 1_000;
/** Queued tasks that one look asks about: others take the oldest first. */
const QUEUED_MAX = 1_000;
/** Before a write that the store did not answer is tried again. */
const AGAIN_MS = 500;
/** Until the receipt is looked at, should its owner not have heard how a task ended. */
const CONFIRM_MS = 3_000;
/** How often the holder of a task without a row is asked for its end, one look after the other. */
const ASKED_MAX = 5;
/** Reports that are remembered for those who ask so. */
const KEPT_MAX = 10_000;

export class RemoteTasks {
  readonly engine: string;
  readonly #options: RemoteTasksOptions;
  readonly #table: TaskTable;
  #tickTimer: Timer | null = null;
  #ticks = 0;
  #closed = false;
  /** Tasks that the next look at the store is about. */
  readonly #asked = new Set<string>();
  #asking = false;
  /** Tasks that have no row any more, and how often their holder was asked for their end since. */
  readonly #rowless = new Map<Entry, number>();
  /** Of tasks of others, by which their owner may ask for them again: what was stored, without outputs. */
  readonly #kept = new Map<string, WorkReport>();
  readonly #search: TaskSearch;

  constructor(options: RemoteTasksOptions) {
    this.#options = options;
    this.#table = options.table;
    this.engine = options.engine;
    this.#search = new TaskSearch({ ...options, take: (row) => this.#takeForeign(row) });
  }

  close(): void {
    this.#closed = true;
    this.#search.close();
    if (this.#tickTimer !== null) this.#options.timers.cancel(this.#tickTimer);
  }

  get lapsed(): boolean {
    return this.#options.lapsed();
  }

  get hasOthers(): boolean {
    return this.#options.peers.hasOthers();
  }

  workerName(id: string): string | null {
    return this.#options.peers.workerName(id);
  }

  offers(capability: string): boolean {
    return this.#options.peers.offers(capability);
  }

  // ------------------------------------------------------------------ what others say

  heard(hint: EngineHint): void {
    if (this.#closed) return;
    switch (hint.kind) {
      case 'task.queued':
        this.#search.heard(hint.capability);
        break;
      case 'task.changed':
        // Its worker may be there, however connected to here it still seems.
        if (this.#mayChange(this.#table.entries.get(hint.taskId))) this.ask(hint.taskId);
        break;
      case 'task.cancel':
        this.#heardCancel(hint.taskId);
        break;
      case 'task.log': {
        const entry = this.#table.entries.get(hint.taskId);
        if (entry === undefined || entry.foreign || entry.aborting) return;
        entry.owner.log(hint.stream, hint.text, hint.truncated);
        break;
      }
      case 'task.ended':
        if (hint.to === this.engine) this.#heardEnd(hint.taskId, hint.report, hint.counts);
        break;
      default:
        break;
    }
  }

  /** A stop of this execution is durable. */
  stopHeard(executionId: string): void {
    const mark = `${executionId}/`;
    for (const [id, { foreign, state }] of this.#table.entries)
      if (foreign && state === 'held' && id.startsWith(mark)) this.ask(id);
  }

  /** Hints may have been missed. */
  gap(): void {
    this.#askAll();
    this.find();
  }

  // ------------------------------------------------------------------ looking

  /** There is something to look after. */
  wake(): void {
    if (this.#tickTimer !== null || this.#closed) return;
    const { timers } = this.#options;
    this.#tickTimer = timers.after(TICK_MS, () => {
      this.#tickTimer = null;
      this.#tick();
    });
  }

  #tick(): void {
    this.#ticks += 1;
    if (this.hasOthers) this.find();
    if (this.#ticks % 2 === 0) this.#askAll();
    if (this.#table.entries.size > 0 || this.#table.workers.size > 0) this.wake();
  }

  #askAll(): void {
    let queued = 0;
    for (const entry of this.#rowless.keys())
      if (this.#table.entries.get(entry.row.id) !== entry) this.#rowless.delete(entry);
    for (const [id, entry] of this.#table.entries) {
      if (!this.#isWatched(entry)) {
        if (this.#rowless.has(entry)) this.#askForEnd(entry);
        continue;
      }
      if (entry.state === 'queued') {
        queued += 1;
        if (queued > QUEUED_MAX || !this.hasOthers) continue;
      }
      this.ask(id);
    }
  }

  /** Others may change what becomes of it. */
  #mayChange(entry: Entry | undefined): entry is Entry {
    if (entry === undefined || entry.state === 'claiming' || this.#rowless.has(entry)) return false;
    return entry.foreign || entry.state !== 'held' || entry.row.claim?.worker !== this.#options.local.id;
  }

  /** They may, and this engine would not hear of it from the task's worker. */
  #isWatched(entry: Entry | undefined): boolean {
    if (!this.#mayChange(entry)) return false;
    if (entry.foreign || entry.state !== 'held') return true;
    const holder = entry.row.claim?.worker;
    return holder === undefined || this.#table.workers.get(holder)?.connected !== true;
  }

  /** Looks at the row of a task; those that are asked for in one turn are read at once. */
  ask(id: string): void {
    this.#asked.add(id);
    if (this.#asking || this.#closed) return;
    this.#asking = true;
    this.#options.clock.defer(() => void this.#look());
  }

  async #look(): Promise<void> {
    while (this.#asked.size > 0 && !this.#closed) {
      const ids = [...this.#asked].slice(0, BATCH);
      for (const id of ids) this.#asked.delete(id);
      try {
        await this.#read(ids);
      } catch (error) {
        // The next look asks again.
        this.#options.log.warn({ error: messageOf(error) }, 'tasks of other engines wait for the store');
      }
    }
    this.#asking = false;
  }

  /** Reads the rows of these once more where others may have changed them; null: there is nothing to read. */
  lookAgain(ids: readonly string[]): Promise<void> | null {
    const watched = ids.filter((id) => this.#isWatched(this.#table.entries.get(id)));
    return watched.length === 0 || this.#closed ? null : this.#readAll(watched);
  }

  async #readAll(ids: string[]): Promise<void> {
    for (let at = 0; at < ids.length; at += BATCH) await this.#read(ids.slice(at, at + BATCH));
  }

  async #read(ids: string[]): Promise<void> {
    const states = new Map((await this.#options.cluster.readTasks(ids)).map((state) => [state.id, state]));
    for (const id of ids) this.#saw(id, states.get(id) ?? null);
  }

  #saw(id: string, state: TaskState | null): void {
    const entry = this.#table.entries.get(id);
    if (entry === undefined || entry.state === 'claiming' || this.#closed) return;
    if (state === null) this.#sawNone(entry);
    else if (entry.foreign) this.#sawForeign(entry, state);
    else this.#sawOwn(entry, state);
  }

  /** The attempt is over as far as the record goes. */
  #sawNone(entry: Entry): void {
    if (entry.state !== 'queued' || entry.foreign || entry.aborting) this.#rowless.set(entry, 0);
    if (entry.foreign) {
      if (entry.overdue) this.#table.forget(entry);
      else if (!entry.aborting) this.#endForeign(entry);
    } else if (entry.aborting && entry.row.claim === null) {
      this.#table.forget(entry);
      entry.owner.found(false);
    } else if (entry.overdue && !entry.aborting) this.#table.gone(entry);
    else this.#askForEnd(entry);
  }

  #endForeign(entry: Entry): void {
    const { id } = entry.row;
    this.#table.abort(id);
    // Its owner may have ended it without knowing that somebody has it.
    if (isAgents(entry)) this.late(id, { kind: 'aborted', outcome: 'agentRunsOn' }, null, false);
  }

  /** Its report may have come to the store, and gone with its row: who has, or had, it is told again to end it. */
  #askForEnd(entry: Entry): void {
    const times = this.#rowless.get(entry) ?? ASKED_MAX;
    const via = entry.row.claim?.via;
    if (entry.foreign || !entry.aborting || entry.state !== 'elsewhere' || via === undefined) return;
    if (times >= ASKED_MAX || !this.#options.peers.isAlive(via)) return;
    this.#rowless.set(entry, times + 1);
    this.#cancelElsewhere(entry);
  }

  #heardCancel(id: string): void {
    const entry = this.#table.entries.get(id);
    // Its worker may have come here since.
    if (entry?.foreign === true) this.#table.abort(id);
    const report = entry === undefined ? this.#kept.get(id) : undefined;
    if (report === undefined) return;
    const isResult = report.kind === 'completed' || report.kind === 'failed';
    this.late(id, report, null, isResult && this.#table.noteDiscarded(id));
  }

  #keep(id: string, report: WorkReport): void {
    this.#kept.set(id, withoutOutput(report));
    if (this.#kept.size <= KEPT_MAX) return;
    const oldest = this.#kept.keys().next().value;
    if (oldest !== undefined) this.#kept.delete(oldest);
  }

  #sawForeign(entry: Entry, { claim, stopping }: TaskState): void {
    const holder = claim === null ? undefined : this.#table.workers.get(claim.worker);
    // An answer from before its hello here may still name another engine.
    const moved = claim?.via !== this.engine && holder?.connected !== true;
    if (moved) {
      this.#table.forget(entry);
    } else if (entry.overdue) {
      this.#table.gone(entry);
    } else if (!entry.aborting && stopping && !isAgents(entry)) {
      this.#table.abort(entry.row.id);
    }
  }

  #sawOwn(entry: Entry, { claim, report, stopping }: TaskState): void {
    if (claim === null) {
      // Queued as before; or it is asked whether anybody has it.
      if (entry.state !== 'elsewhere' || !entry.aborting) return;
      if (stopping) this.#end(entry, neverStarted);
      else this.withdraw(entry, () => undefined);
      return;
    }
    if (entry.aborting) entry.owner.found(true);
    if (report !== null) {
      void this.#table.take(entry, claim, report).catch(() => undefined);
    } else if (entry.aborting && entry.row.claim === null && isAgents(entry)) {
      this.#end(entry, { kind: 'aborted', outcome: 'agentRunsOn' });
    } else if (claim.via !== this.engine && claim.via !== undefined && this.#options.peers.isAlive(claim.via)) {
      this.#isElsewhere(entry, claim);
    } else if (entry.overdue && !entry.aborting) {
      this.#table.gone(entry);
    } else if (entry.state !== 'held') {
      // Through this engine, and its worker has gone; or through one that is dead: the worker may come back.
      this.#tellClaimed(entry, claim);
      this.#table.place(entry, claim);
    }
  }

  #isElsewhere(entry: Entry, claim: TaskClaim): void {
    const before = entry.row.claim;
    this.#tellClaimed(entry, claim);
    if (entry.state === 'held') this.#table.release(entry);
    entry.state = 'elsewhere';
    entry.overdue = false;
    entry.row = { ...entry.row, claim };
    if (entry.aborting && before?.via !== claim.via) this.#cancelElsewhere(entry);
  }

  /** It was queued as far as this engine knew. */
  #tellClaimed(entry: Entry, { worker }: TaskClaim): void {
    if (entry.state === 'queued') this.#table.unqueue(entry);
    if (entry.row.claim !== null || entry.aborting) return;
    entry.owner.claimed({ id: worker, name: this.workerName(worker) ?? worker });
  }

  #end(entry: Entry, report: WorkReport): void {
    this.#table.forget(entry);
    void entry.owner.reported(report);
  }

  // ------------------------------------------------------------------ the owner's side

  /** The rows of the tasks that a record names. @throws FS_UNAVAILABLE */
  async fetch(executions: readonly StoredExecution[]): Promise<TaskRow[]> {
    const ids = executions.flatMap(({ header, nodes }) =>
      nodes
        .filter(({ data }) => (data as { queued?: boolean } | null)?.queued === true)
        .map(({ key, attempt }) => `${header.id}/${key}/${attempt}`),
    );
    return this.#rows(ids.filter((id) => !this.#table.entries.has(id)));
  }

  async #rows(ids: string[]): Promise<TaskRow[]> {
    const rows: TaskRow[] = [];
    for (let at = 0; at < ids.length; at += BATCH) {
      rows.push(...(await this.#options.cluster.getTasks(ids.slice(at, at + BATCH))));
    }
    return rows;
  }

  /** Of an execution that was taken over: a worker has it, or has reported. */
  restored(entry: Entry, claim: TaskClaim, report: WorkReport | null): void {
    this.wake();
    if (report !== null) {
      this.#options.clock.defer(() => {
        if (this.#table.entries.get(entry.row.id) !== entry) return;
        void this.#table.take(entry, claim, report).catch(() => undefined);
      });
    } else if (claim.via === this.engine || claim.via === undefined || !this.#options.peers.isAlive(claim.via)) {
      this.#table.place(entry, claim);
    }
  }

  /** Not held by a worker that is connected here. */
  abort(entry: Entry): 'told' | 'asked' {
    entry.aborting = true;
    if (entry.foreign) return 'told';
    if (entry.state === 'elsewhere' && entry.row.claim !== null) {
      if (isAgents(entry)) this.#table.forget(entry);
      else this.#cancelElsewhere(entry);
      return 'told';
    }
    if (entry.state === 'queued') {
      this.#table.unqueue(entry);
      entry.state = 'elsewhere';
    }
    // Somebody may have claimed it who was not heard of yet.
    if (entry.state === 'elsewhere') this.ask(entry.row.id);
    return 'asked';
  }

  #cancelElsewhere({ row: { id, claim } }: Entry): void {
    const via = claim?.via;
    if (via !== undefined) this.#options.tell({ kind: 'task.cancel', via, taskId: id });
  }

  /** Claims a queued task that nobody is to have: from then on nobody can. */
  withdraw(entry: Entry, withdrawn: () => void): void {
    const { queue, clock, timers, local } = this.#options;
    const { id } = entry.row;
    if (entry.state === 'queued') this.#table.unqueue(entry);
    entry.state = 'claiming';
    const claim = { worker: `${local.id}/none`, tokenHash: '', atMs: clock.nowMs(), via: this.engine };
    const write = (): void => {
      queue.claimTask(id, claim).then(
        (outcome) => {
          if (this.#table.entries.get(id) !== entry) return;
          if (outcome === 'stopping' || outcome === 'taken') {
            this.refused(entry, outcome);
            return;
          }
          this.#table.forget(entry);
          if (entry.aborting) void entry.owner.reported(neverStarted);
          else withdrawn();
        },
        () => {
          timers.after(AGAIN_MS, () => {
            if (this.#table.entries.get(id) === entry) write();
          });
        },
      );
    };
    write();
  }

  /** A claim of this engine was not made. */
  refused(entry: Entry, outcome: 'stopping' | 'gone' | 'taken'): void {
    const { id } = entry.row;
    if (entry.foreign) {
      this.#search.refused(id);
      this.#table.forget(entry);
      return;
    }
    if (outcome === 'gone') {
      this.#table.forget(entry);
      if (entry.aborting) void entry.owner.reported(neverStarted);
      return;
    }
    const claimed = { ...entry };
    entry.row = { ...entry.row, claim: null };
    // One whose stop is on its way is given to nobody, and waits for it.
    entry.state = outcome === 'stopping' && !entry.aborting ? 'queued' : 'elsewhere';
    if (entry.state === 'elsewhere') this.ask(id);
    this.#table.release(claimed);
  }

  /** Its worker was silent here for a lease. */
  overdue(entry: Entry): void {
    // Its owner goes on asking where it is.
    if (entry.foreign && entry.aborting) this.#table.forget(entry);
    if (entry.aborting) return;
    entry.overdue = true;
    this.ask(entry.row.id);
  }

  /** Whoever owns the execution now takes from the store what is said of it. */
  disown(entry: Entry): void {
    entry.foreign = true;
    entry.owner = this.#ownerOf(entry);
  }

  /** Where the record was lost to another engine while it took the report, that one gets it. */
  async kept(entry: Entry, claim: TaskClaim, report: WorkReport, reported: Promise<boolean>): Promise<boolean> {
    const taken = await reported;
    const { id, task } = entry.row;
    if (taken || entry.foreign || entry.aborting || this.#options.owns(task.executionId)) return taken;
    try {
      const outcome = await this.#options.cluster.storeReport(id, claim.tokenHash, report);
      if (outcome === 'stored') this.#tellChanged(entry);
      return outcome === 'stored';
    } catch {
      return false;
    }
  }

  #heardEnd(id: string, report: WorkReport, counted: boolean): void {
    const entry = this.#table.entries.get(id);
    const counts = counted && this.#table.noteDiscarded(id);
    if (entry !== undefined && !entry.foreign && entry.aborting) this.#end(entry, report);
    else this.#options.late(id, report, null, counts);
  }

  // ------------------------------------------------------------------ the worker's side

  /** The queue of a capability was gone through; `waiting`: nobody here takes what is left. */
  pumped(capability: string, waiting: boolean): void {
    this.wake();
    this.#search.pumped(capability, waiting);
  }

  /** Looks for tasks of other engines, where there are free slots for them. */
  find(): void {
    this.#search.find();
  }

  /** False: no worker here has a slot for it. */
  #takeForeign(row: TaskRow): boolean {
    if (this.#table.entries.has(row.id) || this.#options.owns(row.task.executionId)) return true;
    const worker = this.#table.workers.freest(row.capability, row.task.project);
    if (worker !== null) this.#table.claim(this.#foreign(row), worker);
    return worker !== null;
  }

  #foreign(row: TaskRow): Entry {
    const entry = newEntry(row, nobody, 'claiming');
    entry.foreign = true;
    entry.owner = this.#ownerOf(entry);
    this.#table.add(entry);
    return entry;
  }

  #ownerOf(entry: Entry): TaskOwner {
    const { id, task } = entry.row;
    return {
      claimed: () => this.#tellChanged(entry),
      reported: (report) => this.#storeReport(entry, report),
      found: () => undefined,
      log: (stream, text, truncated) =>
        this.#options.tell({
          kind: 'task.log',
          executionId: task.executionId,
          taskId: id,
          stream,
          text,
          truncated: truncated === true,
        }),
    };
  }

  #tellChanged({ row: { id, task } }: Entry): void {
    this.#options.tell({ kind: 'task.changed', executionId: task.executionId, taskId: id });
    // A takeover may have made it this engine's own.
    if (this.#table.entries.get(id)?.foreign === false) this.ask(id);
  }

  /** Keeps a report for the owner; false: nobody waits for it. */
  async #storeReport(entry: Entry, report: WorkReport): Promise<boolean> {
    const { cluster, timers, log } = this.#options;
    const { id, claim } = entry.row;
    for (let unsure = false; ; ) {
      try {
        const outcome = await cluster.storeReport(id, claim?.tokenHash ?? '', report);
        // Its owner asks again where it has not heard of it.
        if (outcome === 'stored' || (outcome === 'gone' && report.kind !== 'lost')) this.#keep(id, report);
        if (outcome === 'stored') {
          this.#tellChanged(entry);
          // Its owner may end the execution without having seen it: the receipt of the stop is looked at then.
          if (report.kind === 'aborted' || entry.aborting)
            timers.after(CONFIRM_MS, () => this.#options.late(id, withoutOutput(report), null, false));
        }
        if (outcome !== 'gone') return outcome === 'stored';
        const isResult = report.kind === 'completed' || report.kind === 'failed';
        // Where an earlier answer was lost, the owner may have taken it since.
        const counts = isResult && !unsure && this.#table.noteDiscarded(id);
        if (report.kind !== 'lost') this.late(id, report, null, counts);
        return unsure;
      } catch (error) {
        if (!hasCode(error, 'FS_UNAVAILABLE')) log.error({ taskId: id, error: messageOf(error) }, 'a report was lost');
        if (!hasCode(error, 'FS_UNAVAILABLE') || this.#closed) throw error;
        unsure = true;
        await new Promise<void>((resolve) => timers.after(AGAIN_MS, resolve));
      }
    }
  }

  /** The end of a task that has no row: its execution's owner writes the receipt, and is told. */
  late(id: string, report: WorkReport, project: string | null, counts: boolean): void {
    const { late, timers } = this.#options;
    const ended = withoutOutput(report);
    this.#ownerElsewhere(id.slice(0, id.indexOf('/')), project).then(
      (to) => {
        if (to === null) {
          late(id, ended, project, counts);
          return;
        }
        this.#options.tell({ kind: 'task.ended', to, taskId: id, report: ended, counts });
        timers.after(CONFIRM_MS, () => late(id, ended, project, counts, true));
      },
      () => {
        if (!this.#closed) timers.after(CONFIRM_MS, () => this.late(id, report, project, counts));
      },
    );
  }

  /** Null: it is this one, a dead one, or nobody. */
  async #ownerElsewhere(executionId: string, project: string | null): Promise<string | null> {
    if (this.#options.owns(executionId)) return null;
    const header = await this.#options.header(executionId);
    if (header === null || (project !== null && header.project !== project)) return null;
    const owner = header.owner.engine;
    return owner !== this.engine && this.#options.peers.isAlive(owner) ? owner : null;
  }

  /**
   * A worker has come to this engine and says what it holds: what the store says to be its own goes on here, whoever
   * owns the execution. Resolves with those of them that are not its own. @throws FS_UNAVAILABLE
   */
  async arrived(
    link: WorkerLink,
    held: readonly HeldTask[],
    isAnswered: (id: string) => boolean,
  ): Promise<ReadonlySet<string>> {
    const { tokens, cluster, owns } = this.#options;
    const hashes = new Map(held.map(({ taskId, token }) => [taskId, tokens.hash(token)]));
    const isIts = (id: string, claim: TaskClaim | null): claim is TaskClaim =>
      claim?.worker === link.workerId && claim.tokenHash === hashes.get(id);
    const unknown: string[] = [];
    const its: string[] = [];
    for (const id of hashes.keys()) {
      const entry = this.#table.entries.get(id);
      if (entry?.state !== 'held') unknown.push(id);
      else if (isIts(id, entry.row.claim)) its.push(id);
    }
    const found = await this.#rows(unknown.filter((id) => !isAnswered(id)));
    const rows = found.filter(({ id, claim }) => isIts(id, claim));
    const strange = new Set(found.filter((row) => !rows.includes(row)).map(({ id }) => id));
    its.push(...rows.map(({ id }) => id));
    if (its.length === 0) return strange;
    await cluster.moveClaims(its, link.workerId, this.engine);
    for (const row of rows) {
      if (row.claim === null || isAnswered(row.id)) continue;
      const known = this.#table.entries.get(row.id);
      if (known?.state === 'claiming' || known?.state === 'held') continue;
      if (known === undefined && owns(row.task.executionId)) continue;
      const claim = { ...row.claim, via: this.engine };
      const entry = known ?? this.#foreign(row);
      this.#tellClaimed(entry, claim);
      this.#table.place(entry, claim);
    }
    for (const id of its) {
      // It may be stopped, over or reported: a stop that was told of before was not told here.
      this.ask(id);
      const entry = this.#table.entries.get(id);
      if (entry?.foreign === true) this.#tellChanged(entry);
    }
    return strange;
  }
}

const nobody: TaskOwner = {
  claimed: () => undefined,
  reported: () => Promise.resolve(false),
  found: () => undefined,
  log: () => undefined,
};

function isAgents({ row }: Entry): boolean {
  return row.capability.startsWith('agent:');
}

function withoutOutput(report: WorkReport): WorkReport {
  return report.kind === 'completed' ? { kind: 'completed', output: null } : report;
}
