/** After everything has healed and ended: what is stored, and what everybody saw, held to the invariants. */
import type { CompiledNode, CompiledWorkflow, Graph } from '../../src/definition/types.ts';
import { eventOf, recordOf } from '../../src/engine/views.ts';
import type { EventRow, StoredExecution } from '../../src/ports/store.ts';
import type { StopReceipt } from '../../src/wire.ts';
import { type CheckedNode, familyFaults, faultsOf, type Seen } from '../support/check-invariants.ts';
import { checkStore } from '../support/engine.ts';
import type { Known } from './ledger.ts';
import { INSTANT_MS } from './workflows.ts';
import type { World } from './world.ts';

/** From the intent to the halt where everything works; with its broadcast lost. */
const LOST_MAX = 5;
/** A lease until its worker knows by itself that nobody wants it, an engine's pause, and the grace. */
const RAN_ON_MAX_MS = 20_000;
/** Until the children of a node that has ended early do nothing any more. */
const CHILDREN_MAX_MS = 2_000;

export async function checkWorld(world: World): Promise<string[]> {
  const { ledger, database, plan, clients, work } = world;
  const faults: string[] = [];
  const fault = (text: string): void => void faults.push(text);
  const { inner } = database;
  await checkStore(inner).catch((error: unknown) => fault((error as Error).message));
  const clocksDiffer = plan.faults.some(({ kind }) => kind === 'clockSkewed' || kind === 'clockJumped');
  const seen: Seen[] = [];
  for (const known of ledger.executions.values()) {
    if (known.deleted) continue;
    const stored = await inner.getExecution(known.id);
    if (stored === null) {
      fault(`${known.id} is gone`);
      continue;
    }
    const { name, hash } = stored.header.workflow;
    const workflow = world.compiled.get(hash);
    if (workflow === undefined) {
      fault(`${known.id} runs a definition that nobody saved`);
      continue;
    }
    const receipt = world.receipts.get(known.id) ?? (await inner.getReceipt(known.id));
    const { items } = await inner.readEvents(known.id, 1, 1e9);
    const record = recordOf(stored, workflow, receipt, world.scheduler.nowMs);
    const one: Seen = { record, events: items.map(eventOf) };
    seen.push(one);
    if (record.endedAt === null)
      fault(
        `${known.id} (${name}) does not end: ${JSON.stringify(stored.header.machine)} ${JSON.stringify(record.nodes)}`,
      );
    const source = plan.workflows.find((one) => one['name'] === name) as { nodes: Record<string, CheckedNode> };
    faults.push(...faultsOf(one, clocksDiffer ? null : source.nodes));
    if (!clocksDiffer) checkChildren(known, fault);
    checkRetries(known, workflow, items, fault);
    checkReceipt(world, known, receipt, fault);
    // What another engine took for the owner is in the record, unless a stop or the node's own end came first.
    for (const taskId of known.reports)
      if (!known.results.has(taskId) && known.stop === null && !known.lostAtMs.has(taskId))
        fault(`the result of ${taskId} was acknowledged, and is not in the record (I5)`);
    checkStopLatency(world, known, fault);
    checkPending(stored, workflow, fault);
  }
  // By the time of the world: clocks differ.
  const endedBefore = ({ id, parent, stop }: Seen['record']): boolean => {
    const child = ledger.executions.get(id);
    const above = ledger.executions.get(parent?.executionId ?? '');
    const stoppedAtMs = above?.stopAtMs ?? 0;
    return stop === null ? (child?.endAtMs ?? Infinity) <= stoppedAtMs : (child?.stopAtMs ?? Infinity) <= stoppedAtMs;
  };
  faults.push(...familyFaults(seen, endedBefore));
  for (const [id, requestId] of clients.accepted) {
    const known = ledger.executions.get(id);
    if (known === undefined || known.deleted) continue;
    if (known.stop?.requestId !== requestId) fault(`the stop ${requestId} of ${id} was accepted, and is lost (I4)`);
  }
  for (const follower of clients.followers) {
    const events = ledger.executions.get(follower.id)?.events ?? [];
    if (!follower.upToDate)
      fault(`a client has seen ${follower.seen.length} of ${events.length} events of ${follower.id} (I7)`);
    follower.seen.forEach(({ event }, index) => {
      if (JSON.stringify(event) !== JSON.stringify(eventOf(events[index] as EventRow)))
        fault(`a client saw event ${event.seq} of ${follower.id} as ${event.type}: ${JSON.stringify(event)} (I7)`);
    });
  }
  for (const [taskId, runs] of work.runs) {
    for (const run of runs) {
      const owner = ledger.executions.get(run.task.executionId);
      const lostAtMs = owner?.lostAtMs.get(taskId);
      const { process, endedAtMs } = run;
      const overAtMs = owner?.overAtMs.get(taskId) ?? owner?.endAtMs ?? null;
      if (overAtMs !== null && run.task.where === 'worker' && process.alive && !world.wasDeaf(process)) {
        const ranOnMs = (endedAtMs ?? Number.POSITIVE_INFINITY) - overAtMs;
        if (ranOnMs > RAN_ON_MAX_MS)
          fault(`${taskId} ran on in ${process.name} for ${Math.round(ranOnMs)} ms after it was over (I9)`);
      }
      // Its worker lost its lease when the engine gave the attempt up, and knows that by itself.
      if (lostAtMs !== undefined && run.task.where === 'worker' && process.alive && !world.wasDeaf(process)) {
        // What began even later was told with the next heartbeat.
        const knownAtMs = Math.max(lostAtMs, run.startedAtMs + 2_000);
        const ranOnMs = (endedAtMs ?? Number.POSITIVE_INFINITY) - knownAtMs;
        if (ranOnMs > 4_000)
          fault(`${taskId} ran on in ${process.name} for ${Math.round(ranOnMs)} ms after it was lost (I9)`);
      }
      const known = ledger.executions.get(run.task.executionId);
      if (known === undefined || known.deleted || run.endedAtMs !== null || run.task.where === 'agent') continue;
      // A container whose process died is the reaper's.
      if (!run.process.alive) continue;
      fault(`${run.task.id} runs in ${run.process.name}, its execution has ended (I9)`);
    }
  }
  for (const { engine, index, bus, io } of world.engines) {
    for (const room of bus?.follows() ?? [])
      if (io?.of('/').inRoom(room) === 0) fault(`engine ${index} believes that somebody follows ${room}`);
    const { running, pending, parked } = engine?.describe().executions ?? { running: 0, pending: 0, parked: 0 };
    if (running + pending + parked > 0)
      fault(`engine ${index} keeps ${running} running, ${pending} pending, ${parked} parked executions`);
    for (const item of engine?.workers.workers() ?? [])
      if (item.kind !== 'agent' && item.held > 0 && item.connected)
        fault(`engine ${index} believes that ${item.name} holds ${item.held} tasks`);
  }
  checkInstants(world, fault);
  const queued = await inner.listTasks(null, 1_000);
  for (const { id } of queued) fault(`task ${id} is left in the queue`);
  return faults;
}

/** Each instant of the schedule starts one execution, not early; those that passed while nobody ran, one for all. */
function checkInstants(
  { plan, ledger, lives, boots, troubles, timedUntilMs, scheduler }: World,
  fault: (text: string) => void,
): void {
  if (plan.timed === undefined) return;
  const { instants } = ledger;
  const skews = plan.faults.some(({ kind }) => kind === 'clockSkewed' || kind === 'clockJumped');
  if (skews) return;
  const started = new Set(instants.map(({ atMs }) => atMs));
  const since = (atMs: number): string => `the instant at ${atMs - scheduler.startMs} ms`;
  for (const { atMs, startedAtMs } of instants)
    if (startedAtMs < atMs) fault(`${since(atMs)} started an execution ${atMs - startedAtMs} ms early (I8)`);
  const first = Math.ceil(scheduler.startMs / INSTANT_MS) * INSTANT_MS;
  for (let atMs = first; atMs < timedUntilMs - 1_000 && plan.timed === 'allow'; atMs += INSTANT_MS) {
    const lived = lives.some(
      ({ servesAtMs, process }) =>
        servesAtMs < atMs - 1_000 && (process.diedAtMs ?? Number.POSITIVE_INFINITY) > atMs + 1_000,
    );
    const disturbed = troubles.some(({ fromMs, toMs }) => fromMs < atMs + 1_000 && toMs > atMs - 1_000);
    if (lived && !disturbed && !started.has(atMs)) fault(`${since(atMs)} started no execution (I8)`);
  }
  // One engine that was down: what it missed is made up for by one execution, at the last of them.
  if (plan.engines.length > 1) return;
  const missedBetween = (fromMs: number, untilMs: number): number[] => {
    const missed: number[] = [];
    for (let atMs = first; atMs <= untilMs; atMs += INSTANT_MS) if (atMs > fromMs) missed.push(atMs);
    return missed;
  };
  // A process that dies on its way up may have made up for what was missed until then.
  boots.forEach(({ startedAtMs }, index) => {
    const diedAtMs = boots[index - 1]?.process.diedAtMs;
    if (diedAtMs == null) return;
    const missed = missedBetween(diedAtMs, startedAtMs);
    const madeUp = missed.filter((atMs) => started.has(atMs));
    if (madeUp.length > 1) fault(`${madeUp.length} instants that were missed started executions (I8)`);
    if (madeUp.length === 1 && madeUp[0] !== missed.at(-1))
      fault(`${since(madeUp[0] as number)} was made up for, it was not the last (I8)`);
  });
  lives.forEach(({ startedAtMs }, index) => {
    const { process, servesAtMs } = lives[index - 1] ?? {};
    if (process?.diedAtMs == null || servesAtMs === undefined) return;
    const { diedAtMs } = process;
    const missed = missedBetween(diedAtMs, startedAtMs);
    const last = missed.at(-1);
    const isMadeUp = missed.some((atMs) => started.has(atMs));
    const disturbed = troubles.some(({ kind, toMs }) => kind !== 'engineDown' && toMs > servesAtMs && toMs > diedAtMs);
    if (plan.timed === 'allow' && last !== undefined && !isMadeUp && !disturbed)
      fault(`${since(last)} was missed, and nothing made up for it (I8)`);
  });
}

/** Nothing of a child starts when the attempt that started it is over. */
function checkChildren(known: Known, fault: (text: string) => void): void {
  for (const child of known.children) {
    const overAtMs = known.overBy.get(child.startedBy ?? '');
    if (overAtMs === undefined || child.stop !== null) continue;
    for (const { type, node, atMs } of child.events)
      if (type === 'node.started' && atMs > overAtMs + CHILDREN_MAX_MS)
        fault(`${node} of ${child.id} began ${atMs - overAtMs} ms after its parent's ${child.startedBy} was over (I9)`);
  }
}

/** Tries within their policy; attempts lost to crashes only where work can be lost, and at most five. */
function checkRetries(
  known: Known,
  workflow: CompiledWorkflow,
  events: EventRow[],
  fault: (text: string) => void,
): void {
  const lives = new Map<string, { retries: number; lost: number; backingOff: boolean; attempt: number }>();
  for (const { type, node, iterations, attempt } of events) {
    if (node === null) continue;
    // A loop's next attempt has iterations of the same index: those are lives of their own.
    const key = `${node} ${iterations?.join() ?? ''}`;
    if ((type === 'node.started' || type === 'node.held') && attempt === 1) lives.delete(key);
    const life = lives.get(key) ?? { retries: 0, lost: 0, backingOff: false, attempt: 0 };
    lives.set(key, life);
    if (type === 'node.retrying') {
      life.retries += 1;
      life.backingOff = true;
    } else if (type === 'node.started') {
      if ((attempt ?? 0) > 1 && !life.backingOff) life.lost += 1;
      life.backingOff = false;
    }
    const found = nodeAt(workflow.graph, node);
    if (found === null) continue;
    const place = `${key} of ${known.id}`;
    if (life.retries >= Math.max(1, found.retry.attempts)) {
      fault(`${place} was tried ${life.retries + 1} times, at most ${found.retry.attempts} may be (retry policy)`);
      return;
    }
    const { kind } = found.type.run;
    if (life.lost > 0 && (!found.rerun || (kind !== 'task' && kind !== 'instant'))) {
      fault(
        `${place}, a ${found.type.type}${found.rerun ? '' : ' with rerun: false'}, lost an attempt and ran again (I8)`,
      );
      return;
    }
    if (life.lost > LOST_MAX) fault(`${place} ran again after ${life.lost} lost attempts`);
  }
}

function nodeAt(graph: Graph, path: string): CompiledNode | null {
  let found: CompiledNode | null = null;
  let level: Graph | null = graph;
  for (const name of path.split('/')) {
    found = level?.byName.get(name) ?? null;
    level = found?.body ?? null;
  }
  return found;
}

/** A receipt for each stop, complete where its workers live. */
function checkReceipt(world: World, known: Known, receipt: StopReceipt | null, fault: (text: string) => void): void {
  const { id, stop, endAtMs } = known;
  if (stop === null) {
    if (receipt !== null) fault(`${id} was not stopped, and has a receipt`);
    return;
  }
  if (endAtMs === null) return;
  if (receipt === null) {
    fault(`${id} was stopped, and has no receipt`);
    return;
  }
  if (receipt.requestId !== stop.requestId)
    fault(`the receipt of ${id} is of ${receipt.requestId}, its stop ${stop.requestId}`);
  // Its own bus tells an engine of nothing that it did not know before.
  if (receipt.delivery?.path === 'bus' && !known.askedElsewhere)
    fault(`${id} was stopped where it lives, and its stop came by the bus (local first)`);
  if (receipt.finalisedAt === null) fault(`${id} has ended, its receipt is not finalised`);
  for (const { executionId, status } of receipt.children) {
    const child = world.ledger.executions.get(executionId);
    if (child !== undefined && child.endAtMs !== null && child.status !== status)
      fault(`the receipt of ${id} says that its child ${executionId} is ${status}, it is ${child.status}`);
  }
  for (const task of receipt.tasks) {
    // Of an iteration that a loop may have had before, it is not known which task ran.
    if (task.outcome !== 'unconfirmed' || task.iterations !== undefined) continue;
    for (const runs of world.work.runs.values()) {
      const [run] = runs;
      if (run === undefined || run.task.executionId !== id || run.task.node !== task.node) continue;
      if (run.task.attempt !== task.attempt || run.task.iterations.join() !== (task.iterations ?? []).join()) continue;
      if (run.endedAtMs !== null && run.process.alive && runs.length === 1)
        fault(`${run.task.id} has ended in ${run.process.name}, the receipt of its stop says unconfirmed (I9)`);
    }
  }
}

/** I4: a stop of a healed world halts, and ends, in time. */
function checkStopLatency(
  world: World,
  { id, stopAtMs, haltAtMs, endAtMs }: Known,
  fault: (text: string) => void,
): void {
  if (stopAtMs === null || endAtMs === null || world.plan.faults.length > 0) return;
  if (haltAtMs !== null && haltAtMs - stopAtMs > 3_000)
    fault(`${id} halted ${haltAtMs - stopAtMs} ms after its stop (I4)`);
  if (endAtMs - stopAtMs > 9_000) fault(`${id} ended ${endAtMs - stopAtMs} ms after its stop (I4)`);
}

/** What could have become ready is not left Pending in an execution that ended by itself. */
function checkPending(
  { header, nodes }: StoredExecution,
  workflow: CompiledWorkflow,
  fault: (text: string) => void,
): void {
  if (header.status !== 'Complete' || header.bodyPath !== null) return;
  const top = new Map(nodes.filter(({ iterations }) => iterations.length === 0).map((row) => [row.path, row]));
  for (const node of workflow.graph.nodes) {
    if (top.has(node.name)) continue;
    const met = node.needs.every((need) => {
      const row = top.get(need.name);
      return row?.status === 'Complete' || row?.status === 'Skipped';
    });
    if (met) fault(`${header.id} is Complete, and ${node.name}, whose needs are met, is Pending`);
  }
}
