import type { ReceiptRow } from '../ports/store.ts';
import type { WorkReport } from '../ports/work.ts';
import type { DeliveryPath, ExecutionStatus, StopReceipt, TaskOutcome } from '../wire.ts';
import { iterationIndexes } from './identity.ts';
import type { Slot } from './slot.ts';

/** Keeps the receipt of one stop: who was told when, and how each task ended. It names nobody. */
export class StopReport {
  readonly receipt: StopReceipt;
  readonly #requestedAtMs: number;
  readonly #tasks = new Map<string, StopReceipt['tasks'][number]>();
  /** Of a halt before a restart, by node and attempt. */
  readonly #earlier = new Map<string, StopReceipt['tasks'][number]>();
  /** Of tasks told and not ended. */
  readonly #open = new Set<string>();
  /** Of these, those that another process may have, whatever becomes of this one. */
  readonly #outliving = new Set<string>();
  /** Tasks whose results were discarded. */
  #discarded: string[] = [];
  /** Nothing changed since it was last given to the store. */
  saved = false;
  lastEnded: { type: string; ms: number } | null = null;

  constructor(
    executionId: string,
    stop: { requestId: string; requestedAtMs: number },
    path: DeliveryPath,
    nowMs: number,
    children: { executionId: string; status: ExecutionStatus }[],
  ) {
    this.#requestedAtMs = stop.requestedAtMs;
    this.receipt = {
      executionId,
      requestId: stop.requestId,
      requestedAt: new Date(stop.requestedAtMs).toISOString(),
      delivery: { path, ms: this.#since(nowMs) },
      haltedMs: null,
      finalisedMs: null,
      finalisedAt: null,
      tasks: [],
      lateResultsDiscarded: 0,
      unconfirmed: 0,
      children,
    };
  }

  /**
   * Goes on with the receipt of a halt before a restart: what had not confirmed ended with its process, unless it is
   * known to outlive that, or `taskTold` says that somebody else holds it.
   */
  static resumed(row: ReceiptRow, nowMs: number): StopReport {
    const receipt = receiptOf(row);
    const requestedAtMs = Date.parse(receipt.requestedAt);
    const { executionId, requestId, children } = receipt;
    const report = new StopReport(executionId, { requestId, requestedAtMs }, 'takeover', nowMs, children);
    Object.assign(report.receipt, receipt);
    report.#discarded = [...(row.discarded ?? [])];
    const outliving = new Map((row.outliving ?? []).map((id) => [placeOfTask(id), id]));
    for (const task of report.receipt.tasks) {
      if (task.outcome !== 'unconfirmed') continue;
      const id = outliving.get(placeOf(task));
      if (id !== undefined) {
        report.#tasks.set(id, task);
        report.#open.add(id);
        report.#outliving.add(id);
        continue;
      }
      report.#earlier.set(placeOf(task), task);
      task.outcome = 'aborted';
      task.ms = report.#since(nowMs);
    }
    report.receipt.unconfirmed = report.#open.size;
    return report;
  }

  /** The receipt of a stop that nobody has acted on yet. */
  static requested(
    executionId: string,
    stop: { requestId: string; requestedAtMs: number },
    children: { executionId: string; status: ExecutionStatus }[],
  ): StopReceipt {
    const { receipt } = new StopReport(executionId, stop, 'local', stop.requestedAtMs, children);
    return { ...receipt, delivery: null };
  }

  /** As it is now, for the store. */
  row(): ReceiptRow {
    const { receipt } = this;
    const outliving = [...this.#outliving].filter((id) => this.#open.has(id));
    return {
      ...receipt,
      tasks: receipt.tasks.map((task) => ({ ...task })),
      children: receipt.children.map((child) => ({ ...child })),
      discarded: [...this.#discarded],
      ...(outliving.length === 0 ? {} : { outliving }),
    };
  }

  /** What others have written of this stop. */
  learn(stored: ReceiptRow): void {
    const row: ReceiptRow = { ...this.receipt, discarded: this.#discarded };
    mergeReceipt(row, stored);
    this.#discarded = row.discarded ?? [];
    Object.assign(this.receipt, receiptOf(row));
    for (const [id, task] of this.#tasks) if (task.outcome !== 'unconfirmed') this.#open.delete(id);
  }

  #since(nowMs: number): number {
    return Math.max(0, nowMs - this.#requestedAtMs);
  }

  #add(slot: Slot, id: string, outcome: TaskOutcome): void {
    const task = this.#taskOf(slot, id, outcome);
    const earlier = this.#earlier.get(placeOf(task));
    if (earlier === undefined) this.receipt.tasks.push(task);
    this.#tasks.set(id, Object.assign(earlier ?? task, { outcome, ms: null }));
    this.saved = false;
  }

  #taskOf(slot: Slot, id: string, outcome: TaskOutcome): StopReceipt['tasks'][number] {
    const task: StopReceipt['tasks'][number] = {
      node: slot.node.path,
      // Of the task: the node may be at its next.
      attempt: Number(id.slice(id.lastIndexOf('/') + 1)),
      type: slot.node.type.type,
      where: slot.node.type.where,
      outcome,
      ms: null,
    };
    if (slot.scope.iterations.length > 0) task.iterations = iterationIndexes(slot.scope.iterations);
    return task;
  }

  /** The task's worker was told; unconfirmed until it answers. `outlives`: see `ReceiptRow.outliving`. */
  taskTold(slot: Slot, id: string, outlives = false): void {
    if (this.#tasks.has(id)) return;
    if (outlives) this.#outliving.add(id);
    this.#add(slot, id, 'unconfirmed');
    this.#open.add(id);
    this.receipt.unconfirmed = this.#open.size;
  }

  agentRunsOn(slot: Slot, id: string): void {
    if (!this.#tasks.has(id)) this.#add(slot, id, 'agentRunsOn');
  }

  /** False when the task is not one of this stop. */
  taskEnded(id: string, report: WorkReport, nowMs: number): boolean {
    const task = this.#tasks.get(id);
    if (task === undefined || !this.#open.delete(id)) return false;
    task.outcome = outcomeOf(report);
    task.ms = task.outcome === 'agentRunsOn' ? null : this.#since(nowMs);
    this.saved = false;
    this.receipt.unconfirmed = this.#open.size;
    this.lastEnded = task.ms === null ? null : { type: task.type, ms: task.ms };
    return true;
  }

  /** A result that nobody wanted any more. */
  resultDiscarded(id: string): void {
    const row: ReceiptRow = { ...this.receipt, discarded: this.#discarded };
    if (!noteDiscarded(row, id)) return;
    this.#discarded = row.discarded ?? [];
    this.receipt.lateResultsDiscarded = row.lateResultsDiscarded;
    this.saved = false;
  }

  outcomeOf(id: string): TaskOutcome | null {
    return this.#tasks.get(id)?.outcome ?? null;
  }

  /** The grace is over: what has not answered stays `unconfirmed`, and is pursued. */
  writeOff(): void {
    this.receipt.unconfirmed = this.#open.size;
  }

  halted(nowMs: number): void {
    this.receipt.haltedMs ??= this.#since(nowMs);
  }

  finalised(nowMs: number): void {
    this.receipt.finalisedMs ??= this.#since(nowMs);
    this.receipt.finalisedAt ??= new Date(nowMs).toISOString();
  }

  /** False when it is no child of this stop. */
  childEnded(executionId: string, status: ExecutionStatus): boolean {
    const child = this.receipt.children.find((one) => one.executionId === executionId);
    if (child === undefined) return false;
    child.status = status;
    this.saved = false;
    return true;
  }

  /** A child that was on its way when the stop came. */
  childAdded(executionId: string, status: ExecutionStatus): void {
    if (this.receipt.children.some((one) => one.executionId === executionId)) return;
    this.receipt.children.push({ executionId, status });
    this.saved = false;
  }
}

function placeOfTask(id: string): string {
  const [, path, iterations, attempt] = /^[^/]+\/(.+)\/([^/]+)\/(\d+)$/.exec(id) ?? [];
  return `${path}/${iterations?.replaceAll(/@\d+/g, '')}/${attempt}`;
}

function placeOf({ node, iterations, attempt }: StopReceipt['tasks'][number]): string {
  return `${node}/${iterations?.join() ?? '-'}/${attempt}`;
}

/** A receipt as everybody may read it. */
export function receiptOf(row: ReceiptRow): StopReceipt {
  const { executionId, requestId, requestedAt, delivery, haltedMs, finalisedMs, finalisedAt } = row;
  const { tasks, lateResultsDiscarded, unconfirmed, children } = row;
  const times = { requestedAt, delivery, haltedMs, finalisedMs, finalisedAt };
  return { executionId, requestId, ...times, tasks, lateResultsDiscarded, unconfirmed, children };
}

/** A task's result that was discarded; false: it is counted. */
export function noteDiscarded(row: ReceiptRow, taskId: string): boolean {
  if (row.discarded?.includes(taskId) === true) return false;
  row.discarded ??= [];
  row.discarded.push(taskId);
  row.lateResultsDiscarded += 1;
  return true;
}

/**
 * Puts into one receipt what another of the same stop knows more: an end that is proven stays as it is, and a result
 * counts once. False: nothing.
 */
export function mergeReceipt(into: ReceiptRow, from: ReceiptRow): boolean {
  let changed = false;
  const known = new Map(into.tasks.map((task) => [placeOf(task), task]));
  for (const task of from.tasks) {
    const own = known.get(placeOf(task));
    if (own === undefined) into.tasks.push({ ...task });
    else if (own.outcome === 'unconfirmed' && task.outcome !== 'unconfirmed') Object.assign(own, task);
    else continue;
    changed = true;
  }
  for (const child of from.children) {
    const own = into.children.find(({ executionId }) => executionId === child.executionId);
    if (own === undefined) into.children.push({ ...child });
    else if (own.status !== child.status && hasEnded(child.status) && !hasEnded(own.status)) own.status = child.status;
    else continue;
    changed = true;
  }
  for (const id of from.discarded ?? []) changed = noteDiscarded(into, id) || changed;
  into.unconfirmed = into.tasks.filter(({ outcome }) => outcome === 'unconfirmed').length;
  return changed;
}

function hasEnded(status: ExecutionStatus): boolean {
  return status === 'Complete' || status === 'Failed';
}

/** A task's end, told when its execution had left memory; false: the receipt does not wait for it. */
export function confirm(receipt: StopReceipt, taskId: string, report: WorkReport, nowMs: number): boolean {
  const place = placeOfTask(taskId);
  const task = receipt.tasks.find((one) => one.outcome === 'unconfirmed' && placeOf(one) === place);
  if (task === undefined) return false;
  task.outcome = outcomeOf(report);
  task.ms = task.outcome === 'agentRunsOn' ? null : Math.max(0, nowMs - Date.parse(receipt.requestedAt));
  receipt.unconfirmed = receipt.tasks.filter(({ outcome }) => outcome === 'unconfirmed').length;
  return true;
}

function outcomeOf(report: WorkReport): TaskOutcome {
  if (report.kind === 'aborted') return report.outcome;
  return report.kind === 'lost' ? 'aborted' : 'finishedFirst';
}
