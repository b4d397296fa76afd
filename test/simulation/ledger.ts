/**
 * What is durable, kept apart from the store: every write that was applied passes here, and is held to the invariants
 * at that moment. Also tells, of everything that leaves an engine, whether what caused it is durable (I7).
 */
import type { Commit, EventRow, HeaderRow, NewExecution, NodeRow, StopRequestOutcome } from '../../src/ports/store.ts';
import type { ExecutionEvent, ExecutionStatus, Json, StopReceipt } from '../../src/wire.ts';

export interface Known {
  id: string;
  project: string;
  workflow: string;
  parent: HeaderRow['parent'];
  ancestors: string[];
  status: ExecutionStatus;
  owner: { engine: string; epoch: number };
  v: number;
  stop: { requestId: string; requestedAtMs: number } | null;
  /** Its owner when it was stopped. */
  stoppedWith: string | null;
  /** Virtual time of its creation, the stop's intent, the halt and the end. */
  createdAtMs: number;
  stopAtMs: number | null;
  haltAtMs: number | null;
  endAtMs: number | null;
  events: EventRow[];
  /** When each was durable, and whose it was. */
  eventsFrom: { atMs: number; engine: string }[];
  /** Identities of attempts whose start is durable. */
  started: Set<string>;
  /** Of attempts that are settled or retried: what a result led to. */
  results: Set<string>;
  /** What another engine keeps for the owner. */
  reports: Set<string>;
  /** Attempts that were lost: since when. */
  lostAtMs: Map<string, number>;
  /** Attempts that are over in the record, for whatever reason: since when. */
  overAtMs: Map<string, number>;
  /** The same, by the clock of the engine that said so. */
  overBy: Map<string, number>;
  /** The attempt of its parent's node that started it. */
  startedBy: string | null;
  children: Known[];
  /** Triggers that were taken. */
  consumed: Set<string>;
  rows: Map<string, NodeRow>;
  deleted: boolean;
  /** An engine that does not own it was asked to stop it. */
  askedElsewhere: boolean;
}

/** Not after a stop (I3). */
const STARTS = new Set([
  'execution.started',
  'node.started',
  'node.held',
  'node.triggered',
  'node.retrying',
  'node.completed',
  'node.skipped',
  'iteration.started',
  'task.queued',
  'task.claimed',
]);

export class Ledger {
  readonly executions = new Map<string, Known>();
  readonly faults: string[] = [];
  /** Instants of the schedule that have started an execution, and when. */
  readonly instants: { atMs: number; startedAtMs: number }[] = [];
  /** Targets of stops whose audit entry is durable. */
  readonly #auditedStops = new Set<string>();
  readonly #uniqueKeys = new Set<string>();
  readonly #nowMs: () => number;
  live = 0;
  /** Called with what a task node's attempt is said to have given. */
  onOutput: (taskId: string, output: Json) => void = () => undefined;
  /** Called with each receipt that is stored. */
  onReceipt: (receipt: StopReceipt, final: boolean) => void = () => undefined;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  fault(text: string): void {
    if (this.faults.length < 50) this.faults.push(text);
  }

  created({ header, events, uniqueKey }: NewExecution): void {
    if (this.executions.has(header.id)) return;
    if (uniqueKey !== null) {
      const key = `${header.project}/${uniqueKey}`;
      if (this.#uniqueKeys.has(key)) this.fault(`${header.id} is the second execution of the key ${uniqueKey} (I5)`);
      this.#uniqueKeys.add(key);
    }
    const instant = uniqueKey?.startsWith('schedule:') === true ? /\d{4}-[^"]*Z$/.exec(uniqueKey)?.[0] : undefined;
    if (instant !== undefined) this.instants.push({ atMs: Date.parse(instant), startedAtMs: this.#nowMs() });
    const parent = header.parent === null ? null : this.executions.get(header.parent.executionId);
    if (parent?.endAtMs != null) this.fault(`${header.id} was created when its parent ${parent.id} had ended (I1)`);
    if (parent?.stop != null) this.fault(`${header.id} was created when its parent ${parent.id} was stopping (I3)`);
    this.live += 1;
    const known: Known = {
      id: header.id,
      project: header.project,
      workflow: header.workflow.name,
      parent: header.parent,
      ancestors: header.ancestors,
      status: header.status,
      owner: { ...header.owner },
      v: header.v,
      stop: null,
      stoppedWith: null,
      createdAtMs: this.#nowMs(),
      stopAtMs: null,
      haltAtMs: null,
      endAtMs: null,
      events: [...events],
      eventsFrom: events.map(() => ({ atMs: this.#nowMs(), engine: header.owner.engine })),
      started: new Set(),
      results: new Set(),
      reports: new Set(),
      lostAtMs: new Map(),
      overAtMs: new Map(),
      overBy: new Map(),
      startedBy: parent === null ? null : (uniqueKey?.slice('child:'.length, uniqueKey.lastIndexOf('/')) ?? null),
      children: [],
      consumed: new Set(),
      rows: new Map(),
      deleted: false,
      askedElsewhere: false,
    };
    this.executions.set(header.id, known);
    parent?.children.push(known);
  }

  committed(engine: string, commit: Commit): void {
    const known = this.executions.get(commit.executionId);
    if (known === undefined) {
      this.fault(`a commit of ${commit.executionId}, which nobody created, was applied`);
      return;
    }
    const { id } = known;
    // The same commit again, its first answer lost.
    if (commit.v === known.v) return;
    const what = `commit ${commit.v} of ${id}`;
    if (known.endAtMs !== null) this.fault(`${what} was applied after its end (I1)`);
    if (known.stop !== null && commit.requestId !== known.stop.requestId)
      this.fault(`${what} was applied though it did not know of the stop (I2)`);
    if (known.owner.engine !== engine || known.owner.epoch !== commit.epoch) {
      this.fault(
        `${what} by ${engine} in epoch ${commit.epoch} was applied, the owner is ${known.owner.engine} in epoch ${known.owner.epoch} (I6)`,
      );
    }
    if (commit.v !== known.v + 1) this.fault(`${what} was applied to version ${known.v}`);
    known.v = commit.v;
    if (commit.header.status !== undefined) known.status = commit.header.status;
    for (const event of commit.events) {
      const last = known.events.at(-1)?.seq ?? 0;
      if (event.seq !== last + 1) this.fault(`event ${event.seq} of ${id} follows ${last} (I7)`);
      if (known.stop !== null && STARTS.has(event.type))
        this.fault(`${event.type} of ${event.node} in ${id} was stored after its stop (I3)`);
      if (event.type === 'stop.halted') known.haltAtMs = this.#nowMs();
      known.events.push(event);
      known.eventsFrom.push({ atMs: this.#nowMs(), engine });
    }
    for (const row of commit.nodes) {
      const before = known.rows.get(row.key);
      if (row.attempt > 0) known.started.add(`${id}/${row.key}/${row.attempt}`);
      const beforeId = `${id}/${row.key}/${before?.attempt}`;
      if (before?.status === 'Running' && !isOver(before)) {
        if (row.attempt > before.attempt || (row.status === 'Failed' && row.errorCode === 'FS_LOST'))
          known.lostAtMs.set(beforeId, this.#nowMs());
      }
      // What ended an attempt is in the record: its row has settled, waits for another try, or is at one.
      if (before !== undefined && before.attempt > 0 && (row.attempt > before.attempt || isOver(row)))
        this.#over(known, beforeId, commit);
      if (isOver(row)) this.#over(known, `${id}/${row.key}/${row.attempt}`, commit);
      if (row.status === 'Complete' || row.errorCode === 'FS_CHILD_FAILED') this.#childrenEnded(known, row);
      known.rows.set(row.key, row);
    }
    for (const { id: attempt, output } of commit.results) this.onOutput(attempt, output);
    for (const trigger of commit.consumedTriggers) {
      if (known.consumed.has(trigger)) this.fault(`the trigger ${trigger} of ${id} was taken twice (I5)`);
      known.consumed.add(trigger);
    }
    for (const key of commit.dropNodes) known.rows.delete(key);
    for (const created of commit.creates) {
      const key = created.uniqueKey === null ? null : `${created.header.project}/${created.uniqueKey}`;
      if (key === null || !this.#uniqueKeys.has(key)) this.created(created);
    }
    if (commit.receipt !== null) this.onReceipt(commit.receipt, commit.final);
    if (commit.final) {
      known.endAtMs = this.#nowMs();
      known.owner.epoch += 1;
      this.live -= 1;
      if (known.status !== 'Complete' && known.status !== 'Failed') this.fault(`${id} ended as ${known.status} (I1)`);
      if (known.stop !== null && known.status !== 'Failed')
        this.fault(`${id} was stopped, and is ${known.status} (I2)`);
    }
  }

  #over(known: Known, attempt: string, { events }: Commit): void {
    known.results.add(attempt);
    if (known.overAtMs.has(attempt)) return;
    known.overAtMs.set(attempt, this.#nowMs());
    known.overBy.set(attempt, events.at(-1)?.atMs ?? Number.POSITIVE_INFINITY);
  }

  /** A node that ended by its children ends after all of them. */
  #childrenEnded(known: Known, { key, attempt, status }: NodeRow): void {
    const by = `${known.id}/${key}/${attempt}`;
    for (const child of known.children)
      if (child.startedBy === by && child.endAtMs === null)
        this.fault(`${by} is ${status}, and its child ${child.id} has not ended (I5)`);
  }

  stopRequested(engine: string, target: string, outcome: StopRequestOutcome): void {
    if (outcome.kind !== 'requested') return;
    if (!this.#auditedStops.has(target))
      this.fault(`the stop of ${target} was stored without an entry in the audit log`);
    for (const { executionId: id, requestId, requestedAtMs } of outcome.affected) {
      const known = this.executions.get(id);
      if (known === undefined) {
        this.fault(`a stop affects ${id}, which nobody created`);
        continue;
      }
      if (known.owner.engine !== engine) known.askedElsewhere = true;
      if (known.endAtMs !== null) this.fault(`a stop affects ${id}, which had ended (I1)`);
      if (known.stop !== null) continue;
      known.stop = { requestId, requestedAtMs };
      known.stoppedWith = known.owner.engine;
      known.stopAtMs = this.#nowMs();
    }
  }

  reported(taskId: string): void {
    this.executions.get(taskId.slice(0, taskId.indexOf('/')))?.reports.add(taskId);
  }

  claimed(taskId: string): void {
    const known = this.executions.get(taskId.slice(0, taskId.indexOf('/')));
    if (known?.stop != null) this.fault(`task ${taskId} was claimed after the stop of its execution (I3)`);
    if (known?.endAtMs != null) this.fault(`task ${taskId} was claimed after the end of its execution (I1)`);
  }

  audited(verb: string, target: string | null): void {
    if (target !== null && (verb === 'execution.stop' || verb === 'executions.stop')) this.#auditedStops.add(target);
  }

  /** Every live execution is this engine's now. */
  claimedAll(engine: string): void {
    for (const known of this.executions.values()) {
      if (known.endAtMs === null) known.owner = { engine, epoch: known.owner.epoch + 1 };
    }
  }

  /** As a takeover answered: the owner changes in the store alone. */
  owned({ id, owner }: HeaderRow): void {
    const known = this.executions.get(id);
    if (known !== undefined && known.endAtMs === null && owner.epoch > known.owner.epoch) known.owner = { ...owner };
  }

  deleted(id: string): void {
    for (const known of this.executions.values()) {
      if (known.id !== id && !known.ancestors.includes(id)) continue;
      if (known.endAtMs === null) this.fault(`${known.id} was deleted, and had not ended`);
      known.deleted = true;
    }
  }

  // ------------------------------------------------------------------ what leaves an engine

  /** A task is given to whoever runs it. */
  taskLeaves(taskId: string, to: string): void {
    const known = this.executions.get(taskId.slice(0, taskId.indexOf('/')));
    if (known?.started.has(taskId) !== true)
      this.fault(`task ${taskId} was given to ${to} before its start was durable (I7)`);
  }

  eventLeaves(id: string, event: ExecutionEvent): void {
    const stored = this.executions.get(id)?.events[event.seq - 1];
    if (stored === undefined) this.fault(`event ${event.seq} of ${id} was announced before it was durable (I7)`);
    else if (stored.type !== event.type || new Date(stored.atMs).toISOString() !== event.at)
      this.fault(`event ${event.seq} of ${id} was announced as ${event.type}, and is ${stored.type} (I7)`);
  }

  stopLeaves(id: string, requestId: string): void {
    const known = this.executions.get(id);
    // A child that was stopped before its parent keeps its own request.
    const requests = [known, ...(known?.ancestors ?? []).map((above) => this.executions.get(above))];
    if (known?.stop == null || !requests.some((one) => one?.stop?.requestId === requestId))
      this.fault(`a STOP of ${id} was broadcast before its intent was durable (I7)`);
  }

  /** An engine told a worker that its report is taken. */
  resultTaken(taskId: string, kind: string): void {
    const known = this.executions.get(taskId.slice(0, taskId.indexOf('/')));
    if (known === undefined || known.deleted) return;
    if (known.results.has(taskId) || known.reports.has(taskId)) return;
    this.fault(`the result of ${taskId} (${kind}) was acknowledged before it was durable (I5)`);
  }
}

function isOver({ status, machine }: NodeRow): boolean {
  if (status === 'Complete' || status === 'Failed' || status === 'Skipped') return true;
  return (machine as { value?: unknown } | null)?.value === 'backingOff';
}
