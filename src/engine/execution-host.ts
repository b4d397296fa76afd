import { type Actor, createActor } from 'xstate';
import type { ExecutionEvent as MachineEvent, NodeEvent, Verdict } from '../../machines/events.ts';
import { type ExecutionEdge, executionMachine, executionStatusOf } from '../../machines/execution.machine.ts';
import { NODE_STATE_VERSION, type NodeMode, nodeMachines, nodeStatusOf } from '../../machines/node.machine.ts';
import type { CompiledWorkflow, Graph } from '../definition/types.ts';
import { hasCode, messageOf, STOPPED_MESSAGE } from '../errors.ts';
import type {
  Commit,
  CommitOutcome,
  EventRow,
  HeaderRow,
  NewExecution,
  NodeRow,
  RecoverableExecution,
  ResultRow,
  TriggerRow,
} from '../ports/store.ts';
import type { WorkReport } from '../ports/work.ts';
import type { DeliveryPath, ExecutionEventType, ExecutionStatus, Json, NodeStatus } from '../wire.ts';
import { type ChildEnd, ChildrenDriver } from './children.ts';
import type { HostEnvironment } from './environment.ts';
import { ExpressionData, isBig } from './expression-data.ts';
import { iterationIndexes } from './identity.ts';
import { chain, settle } from './maybe-promise.ts';
import { discardActor, executionLogic, nodeLogics } from './registry.ts';
import { type NodeState, type Ready, Scope, Slot } from './slot.ts';
import {
  hasLiveNodes,
  isIterating,
  isMet,
  isParkedStage,
  isWithin,
  loopStateOf,
  samePrefix,
  scopeKey,
  stageOf,
  typeName,
} from './stages.ts';
import { StopReport } from './stop-report.ts';
import { TaskDesk } from './task-desk.ts';
import type { Timer } from './timers.ts';

/** Work to begin when the commit of its start is durable. */
interface Effect {
  slot: Slot;
  attempt: number;
}

/** A commit on its way, and what follows when it is durable. */
interface Sent {
  commit: Commit;
  effects: Effect[];
  big: Slot[];
}

type StopIntent = NonNullable<HeaderRow['stop']>;

/** How long tasks that nobody heard of are looked for in the store before they are written off. */
const LAST_LOOK_MS = 1_000;
const STORE_RETRY_MS = 500;
/** Steps of instant work that one commit holds at most: a loop without end still commits, and meets its stop. */
const STEPS_MAX = 32;

/**
 * One execution in memory: its nodes, their actors, and the one writer of its record.
 *
 * What happens within a turn becomes one commit, and with it the instant work that follows; what must leave the
 * process (work, announcements) waits until that commit is durable. A commit that the store refuses because a stop
 * intent came first is taken back by reading the record again: what was not durable never happened.
 */
export class ExecutionHost implements ExecutionEdge {
  readonly env: HostEnvironment;
  readonly workflow: CompiledWorkflow;
  readonly graph: Graph;
  header: HeaderRow;
  readonly data = new ExpressionData(this);
  actor!: Actor<typeof executionMachine>;
  root!: Scope;
  readonly live = new Set<Slot>();
  /** The terminal commit is durable, or this engine no longer owns the execution. */
  over = false;

  #pendingTriggers: TriggerRow[] = [];
  /** Those that came here, by a message or with the record: each is taken once. */
  readonly #triggersSeen = new Set<string>();
  #queue: { event: MachineEvent; scope: Scope | null }[] = [];
  #processing = false;
  /** Depth of `enter`. */
  #changing = 0;

  // The next commit.
  #dirty: Slot[] = [];
  #events: EventRow[] = [];
  #results: ResultRow[] = [];
  #dropNodes: string[] = [];
  #consumedTriggers: string[] = [];
  #creates: NewExecution[] = [];
  /** Nodes whose attempt begins with it: by the time it is durable they may have another. */
  #effects = new Set<Slot>();
  /** What needs nothing from outside and so no commit before it: instant nodes to be done, loops to be tested. */
  readonly #instant = new Set<Slot>();
  /** Ended nodes whose outputs go out of memory once it is durable. */
  #big: Slot[] = [];
  #headerDirty = false;
  #machineValue: unknown = null;
  #committing = false;
  #flushAsked = false;

  // Work in flight, by attempt identity.
  readonly #desk = new TaskDesk(this);
  #waiters: ((durable: boolean) => void)[] = [];
  /** Actors of this host were restored by a new process: tasks of the old one are gone with it. */
  #afterCrash = false;

  stopReport: StopReport | null = null;
  #stopWaits: { intent: StopIntent; path: DeliveryPath } | null = null;
  #reloading = false;
  /** Built from its record, and not told how to go on: what workers say waits until then. */
  #resting = false;
  #begun = false;
  #conclusions = 0;
  #giveUp: Verdict | null = null;
  #afterReload: (() => void)[] = [];
  #graceTimer: Timer | null = null;
  #timeoutTimer: Timer | null = null;
  /** Nodes that neither wait for an instant nor for a trigger: none of them, and the execution is parked. */
  busy = 0;
  /** Kept by the admission: whether this execution counts against the engine's limit. */
  counted = false;
  /** Kept by the admission: whether it has a place of its workflow's `concurrency`, whatever its record says yet. */
  hasPlace = false;
  /** Kept by the engine: what its expressions see. */
  roots: ReturnType<HostEnvironment['expressionRoots']> | null = null;

  constructor(env: HostEnvironment, workflow: CompiledWorkflow, graph: Graph, header: HeaderRow) {
    this.env = env;
    this.workflow = workflow;
    this.graph = graph;
    this.header = header;
  }

  // ------------------------------------------------------------------ life

  /** A new execution, or one that was queued: waits in `pending` until `begin`. */
  createActors(): void {
    this.root = new Scope(this.graph, [], null);
    this.actor = createActor(executionLogic, {
      id: `execution:${this.header.id}`,
      parent: this.env.registryActor,
      input: { edge: this, failFast: this.workflow.failFast },
    } as never) as Actor<typeof executionMachine>;
    this.actor.start();
    this.#machineValue = 'pending';
  }

  #goesOn(): void {
    if (!this.#resting) return;
    this.#resting = false;
    if (this.#reloading) return;
    this.env.clock.defer(() => {
      for (const run of this.#afterReload.splice(0)) run();
    });
  }

  /** Admission: starts the roots. */
  begin(): void {
    this.#goesOn();
    this.#begun = true;
    this.header.startedAtMs = this.env.clock.nowMs();
    this.header.status = 'Running';
    this.roots = null;
    this.#headerDirty = true;
    this.event('execution.started', null, null);
    this.#armTimeout();
    this.send(
      { type: 'execution.start', ready: this.root.graph.roots.map((node) => ({ scope: this.root, node })) },
      null,
    );
  }

  /**
   * Builds the actors from the record. Nothing is started yet: `resume` or `beginStop` follows.
   *
   * `afterCrash`: the process that ran its work is gone.
   */
  restore(stored: RecoverableExecution, afterCrash: boolean): void {
    this.header = stored.header;
    this.#resting = true;
    this.#afterCrash = this.#afterCrash || afterCrash;
    this.#pendingTriggers = stored.triggers;
    for (const { id } of stored.triggers) this.#triggersSeen.add(id);
    if (stored.header.machine === null) {
      this.createActors();
      return;
    }
    const rows = new Map<string, NodeRow[]>();
    for (const row of stored.nodes) {
      const place = scopeKey(row.path, row.iterations);
      const list = rows.get(place);
      if (list === undefined) rows.set(place, [row]);
      else list.push(row);
    }
    const machine = stored.header.machine as { value: string; failure: Verdict | null };
    this.#machineValue = machine.value;
    const context = { edge: this, failFast: this.workflow.failFast, live: 0, failure: machine.failure };
    this.root = new Scope(this.graph, [], null);
    this.actor = createActor(executionLogic, {
      id: `execution:${this.header.id}`,
      parent: this.env.registryActor,
      snapshot: executionMachine.resolveState({ value: machine.value as never, context }),
    } as never) as Actor<typeof executionMachine>;
    this.#restoreScope(this.root, rows);
    // Counted anew: what the record shows as live.
    context.live = this.live.size;
    this.actor.start();
    for (const slot of this.live) slot.actor?.start();
    this.#armTimeout();
  }

  #restoreScope(scope: Scope, rows: Map<string, NodeRow[]>): void {
    for (const row of rows.get(
      scopeKey(`${scope.graph.path === '' ? '' : `${scope.graph.path}/`}x`, scope.iterations),
    ) ?? []) {
      const name = row.path.slice(row.path.lastIndexOf('/') + 1);
      const node = scope.graph.byName.get(name);
      if (node === undefined) continue;
      const slot = new Slot(this, scope, node);
      scope.slots[node.index] = slot;
      Object.assign(slot, {
        status: row.status,
        attempt: row.attempt,
        error: row.error,
        errorCode: row.errorCode,
        startedAtMs: row.startedAtMs,
        endedAtMs: row.endedAtMs,
        hasOutput: row.hasOutput,
        stored: true,
      });
      if (row.machine === null) {
        slot.settled = true;
        slot.stage = row.status.toLowerCase();
        // It ended at once with a stop or a timeout, while nodes of its body were still told.
        if (node.body !== null && row.status === 'Failed' && hasLiveNodes(rows, row))
          this.#restoreLoop(slot, row, rows);
        continue;
      }
      this.#restoreActor(slot, row);
      if (node.type.run.kind === 'loop') this.#restoreLoop(slot, row, rows);
    }
    for (const slot of scope.slots) {
      if (slot?.settled !== true) continue;
      if (isMet(slot)) {
        for (const dependent of slot.node.dependents)
          scope.unmet[dependent.index] = (scope.unmet[dependent.index] ?? 1) - 1;
      } else if (slot.status === 'Failed') {
        if ((slot.endedAtMs ?? 0) < (scope.failed?.endedAtMs ?? Number.POSITIVE_INFINITY)) scope.failed = slot;
      }
    }
  }

  #restoreActor(slot: Slot, row: NodeRow): void {
    const saved = row.machine as unknown as NodeState;
    slot.unreadable = saved.version !== NODE_STATE_VERSION;
    const state = slot.unreadable ? this.#endable(slot, row, saved.version) : saved;
    slot.actor = this.#actorIn(slot, state);
    slot.stage = stageOf(state.value);
    if (slot.node.type.run.kind === 'task' && slot.stage !== 'backingOff') {
      this.#desk.restore(slot, row.data as { queued?: boolean } | null);
    }
    this.live.add(slot);
    slot.scope.countLive(1);
    if (!isParkedStage(slot)) this.busy += 1;
  }

  #actorIn(slot: Slot, { version: _, value, ...saved }: NodeState): Slot['actor'] {
    const snapshot = nodeMachines[saved.mode].resolveState({
      value: value as never,
      context: { edge: slot, policy: slot.policy(), ...saved },
    });
    return createActor(nodeLogics[saved.mode], {
      id: `node:${this.header.id}/${slot.key}`,
      parent: this.actor,
      snapshot,
    } as never) as Slot['actor'];
  }

  /** In place of a state that cannot be read: one from which the node ends, by a stop as any other. */
  #endable(slot: Slot, { status, attempt }: NodeRow, version: number): NodeState {
    const error = `its state is of version ${version}, this engine reads version ${NODE_STATE_VERSION}: another version of Fullstop wrote it`;
    let failure: Verdict = { error, errorCode: 'FS_NODE_VERSION' };
    let mode: NodeMode = 'work';
    let value: unknown = 'running';
    if (slot.node.type.run.kind === 'loop') {
      mode = 'loop';
      value = { looping: 'closing' };
    } else if (status === 'Held') {
      mode = 'hold';
      value = 'held';
    } else if (this.#stateValue() === 'stopping' || this.#stateValue() === 'aborting') {
      value = 'aborting';
      failure = this.actor.getSnapshot().context.failure ?? failure;
    }
    const instants = { dueAtMs: null, wakeAtMs: null, deadlineAtMs: null };
    return { version, value, mode, attempt, tries: 0, lost: 0, ...instants, failure, lastTry: true };
  }

  #endUnreadable(slot: Slot): void {
    if (slot.actor === null || slot.settled || slot.stage === 'aborting') return;
    const { context } = slot.actor.getSnapshot();
    const atMs = this.env.clock.nowMs();
    const verdict = context.failure ?? { error: '', errorCode: 'FS_NODE_VERSION' };
    if (slot.stage === 'looping') {
      // It fails when its body has ended.
      if (slot.body === null) this.deliver(slot, { type: 'iteration.ended', failure: null, atMs });
      else this.endIteration(slot, verdict);
      return;
    }
    if (slot.stage === 'held') {
      discardActor(slot.actor);
      const { edge: _edge, policy: _policy, ...saved } = context;
      slot.actor = this.#actorIn(slot, { version: NODE_STATE_VERSION, value: 'running', ...saved, mode: 'work' });
      slot.actor?.start();
    }
    this.abandonWork(slot);
    this.deliver(slot, { type: 'work.failed', ...verdict, retryable: false, atMs });
  }

  #restoreLoop(slot: Slot, row: NodeRow, rows: Map<string, NodeRow[]>): void {
    const data = row.data as { index: number } | null;
    slot.index = data?.index ?? -1;
    slot.last = undefined;
    if (slot.index < 0) {
      slot.last = null;
      return;
    }
    const body = slot.node.body as Graph;
    const prefix = `${slot.node.path}/`;
    const depth = slot.scope.iterations.length;
    const current = `${slot.index}@${slot.attempt}`;
    for (const list of rows.values()) {
      for (const other of list) {
        if (!other.path.startsWith(prefix) || !samePrefix(other.iterations, slot.scope.iterations)) continue;
        if (other.iterations[depth] === current) slot.currentKeys.add(other.key);
        else slot.formerKeys.add(other.key);
      }
    }
    const scope = new Scope(body, [...slot.scope.iterations, current], slot);
    slot.body = scope;
    this.#restoreScope(scope, rows);
    scope.over = !isIterating(slot);
    scope.closed = scope.over || loopStateOf(slot) !== 'iterating';
  }

  /** After `restore`: goes on from the last commit. */
  resume(): void {
    if (this.over) return;
    this.#goesOn();
    if (this.header.status === 'Pending') return;
    for (const slot of [...this.live]) if (slot.unreadable) this.#endUnreadable(slot);
    const ready: Ready[] = [];
    this.#collectReady(this.root, ready);
    for (const slot of this.live) if (slot.body !== null && !slot.body.closed) this.#collectReady(slot.body, ready);
    const lost: Slot[] = [];
    const loops: Slot[] = [];
    const concluding = this.#stateValue() === 'concluding';
    for (const slot of [...this.live]) {
      const kind = slot.node.type.run.kind;
      if (slot.stage === 'running') {
        if (kind === 'items' || kind === 'child') this.#prepareAgain(slot, () => this.#resumeChildren(slot));
        else if (!this.#desk.has(slot.attemptId)) lost.push(slot);
        else {
          this.#desk.noteClaim(slot);
          this.#prepareAgain(slot, () => undefined);
        }
      } else if (slot.stage === 'looping') {
        loops.push(slot);
        if (slot.body?.closed === true && !slot.body.over) this.#armBodyGrace(slot, slot.body);
      } else if (slot.stage === 'aborting') this.#taskGone(slot);
      // Its next try needs its `with`: a wait that is over would not leave time to render it.
      if (slot.stage === 'backingOff') this.#prepareAgain(slot, () => this.#armTimers(slot));
      else this.#armTimers(slot);
    }
    this.send({ type: 'nodes.ready', ready }, null);
    const nowMs = this.env.clock.nowMs();
    for (const slot of lost) this.#prepareAgain(slot, () => this.deliver(slot, { type: 'work.lost', atMs: nowMs }));
    for (const slot of loops) {
      const value = slot.actor?.getSnapshot().value as { looping?: string } | undefined;
      if (value?.looping === 'testing') this.testCondition(slot);
      else if (slot.body !== null && !slot.body.over && slot.body.live === 0) this.#iterationEnded(slot.body);
    }
    for (const trigger of this.#pendingTriggers.splice(0)) this.#offer(trigger);
    if (this.#stateValue() === 'aborting') this.#armGrace();
    if (concluding) this.conclude(this.actor.getSnapshot().context.failure);
    this.#scheduleFlush();
  }

  #collectReady(scope: Scope, ready: Ready[]): void {
    if (this.#stateValue() !== 'running') return;
    for (const node of scope.graph.nodes) {
      if (scope.slots[node.index] === undefined && scope.unmet[node.index] === 0) ready.push({ scope, node });
    }
  }

  #stateValue(): string {
    return this.actor.getSnapshot().value as string;
  }

  // ------------------------------------------------------------------ the execution's chart

  /** One event to the execution's chart; nested ones wait their turn. */
  send(event: MachineEvent, of: Scope | null): void {
    this.#queue.push({ event, scope: of });
    if (of !== null) of.untold += 1;
    if (this.#processing) return;
    this.#processing = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        const { scope } = next;
        this.actor.send(next.event);
        if (scope === null) continue;
        scope.untold -= 1;
        for (let at = scope; at.outer !== null; at = at.outer.scope)
          if (at.live === 0 && at.untold === 0) this.#iterationEnded(at);
      }
    } finally {
      this.#processing = false;
    }
    const snapshot = this.actor.getSnapshot();
    if (snapshot.status === 'error') throw (snapshot as { error?: unknown }).error;
    if (snapshot.value !== this.#machineValue) {
      this.#machineValue = snapshot.value;
      this.#headerDirty = true;
    }
    this.#scheduleFlush();
  }

  startNodes(ready: readonly unknown[]): void {
    for (const { scope, node } of ready as readonly Ready[]) {
      const slot = new Slot(this, scope, node);
      scope.slots[node.index] = slot;
      scope.countLive(1);
      this.live.add(slot);
      this.busy += 1;
      // A draining engine starts nothing: the node stays Pending, and ready for the next owner.
      if (!this.env.draining()) this.#prepare(slot);
    }
  }

  endNodes(verdict: Verdict): void {
    for (const slot of [...this.live]) {
      if (slot.actor === null) this.#withdraw(slot);
      else this.deliver(slot, { type: 'execution.end', verdict });
    }
  }

  failFast(verdict: Verdict): void {
    for (const slot of [...this.live]) {
      if (slot.actor === null) this.#withdraw(slot);
      else {
        this.deliver(slot, { type: 'execution.failFast', verdict });
        slot.children?.startNoMore(verdict);
        slot.children?.pump();
      }
    }
  }

  writeOffTasks(): void {
    for (const slot of [...this.live]) if (slot.actor !== null) this.deliver(slot, { type: 'stop.graceElapsed' });
  }

  conclude(failure: Verdict | null): void {
    this.#conclusions += 1;
    const turn = this.#conclusions;
    const concluded = (verdict: Verdict | null): void =>
      this.send({ type: 'execution.concluded', failure: verdict }, null);
    /** For answers that were waited for: a stop, a timeout or a restart that came meanwhile decides instead. */
    const later = (change: () => void): void => {
      this.enter(() => {
        if (turn === this.#conclusions && this.#stateValue() === 'concluding') change();
      });
    };
    if (failure !== null) {
      const followUp = this.env.followUp(this, failure);
      if (followUp === null) concluded(null);
      else {
        followUp.then(
          (execution) =>
            later(() => {
              if (execution !== null) this.#creates.push(execution);
              concluded(null);
            }),
          (error: unknown) => {
            if (hasCode(error, 'FS_UNAVAILABLE')) this.#later(() => later(() => this.conclude(failure)));
            else this.env.crashed(this, error);
          },
        );
      }
      return;
    }
    const done = (outputs: unknown): void => {
      this.header.outputs = outputs as Json;
      concluded(null);
    };
    const failed = (error: unknown): void =>
      concluded({ error: `outputs: ${messageOf(error)}`, errorCode: 'FS_EXPRESSION' });
    let outputs: unknown;
    try {
      outputs = this.data.outputs();
    } catch (error) {
      failed(error);
      return;
    }
    if (outputs instanceof Promise)
      outputs.then(
        (value) => later(() => done(value)),
        (error) => later(() => failed(error)),
      );
    else done(outputs);
  }

  // ------------------------------------------------------------------ starting a node

  #prepare(slot: Slot): void {
    const refuse = (error: unknown): void => {
      if (slot.settled || this.over || slot.actor !== null) return;
      this.#spawn(slot, 'refuse', null, {
        error: messageOf(error),
        errorCode: hasCode(error, 'FS_UNAVAILABLE') ? 'FS_UNAVAILABLE' : 'FS_EXPRESSION',
      });
    };
    const { node } = slot;
    try {
      if (node.condition === null) {
        this.#render(slot, refuse);
        return;
      }
      const { condition } = node;
      settle(
        chain(this.data.scopeOf(slot), (scope) => this.env.expressions.evaluate(condition, scope)),
        (value) => {
          if (slot.settled || this.over) return;
          if (value === true) this.#render(slot, refuse);
          else if (value === false) this.#spawn(slot, 'skip', null, null);
          else refuse(new Error(`if: expected true or false, found ${JSON.stringify(value)}`));
        },
        refuse,
      );
    } catch (error) {
      refuse(error);
    }
  }

  #render(slot: Slot, refuse: (error: unknown) => void): void {
    try {
      settle(
        this.#payload(slot),
        (payload) => {
          if (slot.settled || this.over || slot.actor !== null) return;
          slot.payload = payload;
          try {
            this.#spawnRendered(slot);
          } catch (error) {
            refuse(error);
          }
        },
        refuse,
      );
    } catch (error) {
      refuse(error);
    }
  }

  /** `with`, or a foreach's items, with its templates rendered. */
  #payload(slot: Slot): unknown | Promise<unknown> {
    const { node } = slot;
    const { kind } = node.type.run;
    const template = kind === 'items' ? (node.keys.items ?? null) : node.with;
    if (template === null || kind === 'hold' || kind === 'loop') return null;
    return chain(this.data.scopeOf(slot), (scope) => this.env.expressions.render(template, scope));
  }

  #spawnRendered(slot: Slot): void {
    const { node } = slot;
    const { run } = node.type;
    switch (run.kind) {
      case 'timer':
        // One look at the clock: the record shows that it waited as long as it should.
        slot.startedAtMs = this.env.clock.nowMs();
        this.#spawn(slot, 'wait', run.until(slot.payload, slot.startedAtMs), null);
        break;
      case 'hold':
        this.#spawn(slot, 'hold', this.env.holdInstant(node.keys.schedule, this.env.clock.nowMs()), null);
        break;
      case 'loop':
        this.#spawn(slot, 'loop', null, null);
        break;
      case 'items': {
        if (!Array.isArray(slot.payload)) throw new Error(`items: expected a list, found ${typeName(slot.payload)}`);
        if (slot.payload.length > 10_000) throw new Error(`items: at most 10,000, found ${slot.payload.length}`);
        this.#spawn(slot, 'work', null, null);
        break;
      }
      default:
        this.#spawn(slot, 'work', null, null);
    }
  }

  #spawn(slot: Slot, mode: NodeMode, dueAtMs: number | null, failure: Verdict | null): void {
    slot.actor = createActor(nodeLogics[mode], {
      id: `node:${this.header.id}/${slot.key}`,
      parent: this.actor,
      input: { edge: slot, policy: slot.policy(), mode, nowMs: this.env.clock.nowMs(), dueAtMs, failure },
    } as never) as NonNullable<Slot['actor']>;
    slot.actor.start();
    const { outer } = slot.scope;
    if (outer !== null) this.#noteKey(outer, slot.key);
    this.#observe(slot);
  }

  #noteKey(loop: Slot, key: string): void {
    loop.currentKeys.add(key);
    if (loop.scope.outer !== null) this.#noteKey(loop.scope.outer, key);
  }

  /** A node that was being prepared when the execution ended: it never ran. */
  #withdraw(slot: Slot): void {
    slot.settled = true;
    this.live.delete(slot);
    this.busy -= 1;
    slot.scope.countLive(-1);
    slot.scope.slots[slot.node.index] = undefined;
    this.send({ type: 'node.settled', ready: [], failure: null }, slot.scope);
  }

  /** Renders a restored node's `with` again: its inputs have not changed. */
  #prepareAgain(slot: Slot, then: () => void, otherwise: () => void = () => undefined): void {
    const fail = (error: unknown): void => {
      otherwise();
      const verdict: Verdict = { error: messageOf(error), errorCode: 'FS_EXPRESSION' };
      this.enter(() => {
        if (slot.actor === null || slot.settled) return;
        // Without its `with` there is no other try.
        if (slot.stage === 'backingOff') this.deliver(slot, { type: 'execution.end', verdict });
        else {
          // What it started may go on: a task at a worker, children.
          if (slot.stage === 'running') this.abandonWork(slot);
          this.deliver(slot, { type: 'work.failed', ...verdict, retryable: false, atMs: this.env.clock.nowMs() });
        }
      });
    };
    try {
      settle(
        this.#payload(slot),
        (payload) => {
          if (slot.settled || this.over) {
            otherwise();
            return;
          }
          slot.payload = payload;
          then();
        },
        fail,
      );
    } catch (error) {
      fail(error);
    }
  }

  // ------------------------------------------------------------------ a node's life

  /** One event to a node's actor, and everything that follows from it in the record. */
  deliver(slot: Slot, event: NodeEvent): void {
    if (slot.actor === null || slot.settled || this.over) return;
    slot.actor.send(event);
    this.#observe(slot);
  }

  #observe(slot: Slot): void {
    const snapshot = (slot.actor as NonNullable<Slot['actor']>).getSnapshot();
    if (snapshot.status === 'error') throw (snapshot as { error?: unknown }).error;
    const { context } = snapshot;
    const stage = stageOf(snapshot.value);
    const nowMs = this.env.clock.nowMs();
    if (stage !== slot.stage || context.attempt !== slot.attempt) {
      const wasParked = slot.stage !== 'ready' && isParkedStage(slot);
      const status = nodeStatusOf(snapshot.value) as NodeStatus;
      const began = context.attempt !== slot.attempt || slot.stage === 'ready';
      if (began && slot.node.type.run.kind === 'loop') slot.beginLoop();
      if (began || (stage !== 'running' && stage !== 'aborting')) this.#desk.dequeue(slot);
      slot.stage = stage;
      slot.attempt = context.attempt;
      slot.status = status;
      switch (stage) {
        case 'running':
        case 'waiting':
        case 'looping':
          slot.startedAtMs ??= nowMs;
          if (began) this.event('node.started', slot, null);
          if (began && slot.node.type.run.kind === 'task') this.#taskBegan(slot);
          break;
        case 'held':
          slot.startedAtMs ??= nowMs;
          this.event('node.held', slot, null);
          break;
        case 'backingOff':
          slot.error = context.failure?.error ?? null;
          slot.errorCode = context.failure?.errorCode ?? null;
          this.event('node.retrying', slot, { ...context.failure, wakeAtMs: context.wakeAtMs } as Json);
          break;
        case 'aborting':
          this.event('task.aborting', slot, null);
          break;
        default:
          break;
      }
      if (stage === 'running' || stage === 'looping' || stage === 'waiting') {
        slot.error = null;
        slot.errorCode = null;
      }
      if (snapshot.status !== 'done') {
        const parked = isParkedStage(slot);
        if (wasParked !== parked) this.busy += parked ? -1 : 1;
      } else if (wasParked) this.busy += 1;
    }
    this.#markDirty(slot);
    if (snapshot.status === 'done') {
      this.#settle(slot, context.failure, nowMs);
      return;
    }
    this.#armTimers(slot);
    if (stage === 'held' && this.#pendingTriggers.length > 0) this.#matchTriggers(slot);
  }

  #taskBegan(slot: Slot): void {
    this.event('task.queued', slot, null);
    slot.logs = 0;
    if (slot.reserved) return;
    this.#desk.enqueue(slot);
    // Its deadline begins with its claim.
    slot.actor?.send({ type: 'work.queued' });
  }

  /** A worker or agent in another process has the task: its deadline begins. */
  claimed(slot: Slot, worker: string, atMs: number): void {
    this.enter(() => {
      if (slot.settled || slot.stage !== 'running') return;
      this.event('task.claimed', slot, { worker });
      this.deliver(slot, { type: 'work.claimed', atMs });
    });
  }

  logged(slot: Slot, data: Json): void {
    this.enter(() => {
      if (slot.settled) return;
      this.event('log', slot, data);
      this.#scheduleFlush();
    });
  }

  #settle(slot: Slot, failure: Verdict | null, nowMs: number): void {
    if (slot.settled) return;
    slot.settled = true;
    this.live.delete(slot);
    this.busy -= 1;
    slot.scope.countLive(-1);
    if (slot.status !== 'Held') slot.endedAtMs = nowMs;
    if (slot.wakeTimer !== null) this.env.timers.cancel(slot.wakeTimer);
    if (slot.deadlineTimer !== null) this.env.timers.cancel(slot.deadlineTimer);
    slot.wakeTimer = null;
    slot.deadlineTimer = null;
    let met = false;
    switch (slot.status) {
      case 'Complete':
        slot.hasOutput = true;
        slot.error = null;
        slot.errorCode = null;
        this.#results.push({ id: slot.attemptId, key: slot.key, output: (slot.output ?? null) as Json });
        if (isBig(slot.output)) this.#big.push(slot);
        this.event('node.completed', slot, null);
        this.env.counters.nodesEnded += 1;
        met = true;
        break;
      case 'Skipped':
        this.event('node.skipped', slot, null);
        met = true;
        break;
      case 'Failed':
        slot.error = failure?.error ?? 'failed';
        slot.errorCode = failure?.errorCode ?? 'FS_FAILED';
        this.event('node.failed', slot, { error: slot.error, errorCode: slot.errorCode });
        this.env.counters.nodesEnded += 1;
        met = slot.node.continueOnError;
        break;
      default:
        break;
    }
    slot.payload = null;
    this.#desk.release(slot);
    slot.endChildren();
    const ready: Ready[] = [];
    if (met) {
      const { scope } = slot;
      for (const dependent of slot.node.dependents) {
        const left = (scope.unmet[dependent.index] ?? 1) - 1;
        scope.unmet[dependent.index] = left;
        if (left === 0 && !scope.closed) ready.push({ scope, node: dependent });
      }
    }
    const own: Verdict | null =
      slot.status === 'Failed' && !slot.node.continueOnError
        ? { error: slot.error ?? '', errorCode: slot.errorCode ?? 'FS_FAILED' }
        : null;
    if (own !== null) slot.scope.failed ??= slot;
    this.send({ type: 'node.settled', ready, failure: slot.scope.outer === null ? own : null }, slot.scope);
  }

  #armTimers(slot: Slot): void {
    const actor = slot.actor;
    if (actor === null || slot.settled) return;
    const { context } = actor.getSnapshot();
    const wakeAtMs = slot.stage === 'held' || slot.stage === 'waiting' ? context.dueAtMs : context.wakeAtMs;
    slot.wakeTimer = this.#arm(slot.wakeTimer, wakeAtMs, () => {
      slot.wakeTimer = null;
      this.#wake(slot);
    });
    const deadlineAtMs = slot.stage === 'aborting' ? null : context.deadlineAtMs;
    slot.deadlineTimer = this.#arm(slot.deadlineTimer, deadlineAtMs, () => {
      slot.deadlineTimer = null;
      this.enter(() => this.deliver(slot, { type: 'node.timedOut', atMs: this.env.clock.nowMs() }));
    });
  }

  #arm(timer: Timer | null, atMs: number | null, run: () => void): Timer | null {
    if (timer !== null) {
      if (timer.atMs === atMs && timer.run !== null) return timer;
      this.env.timers.cancel(timer);
    }
    return atMs === null ? null : this.env.timers.at(atMs, run);
  }

  #wake(slot: Slot): void {
    if (this.env.draining() && slot.stage !== 'waiting' && slot.stage !== 'held') return;
    slot.awaitsChildren = slot.stage === 'backingOff' && this.env.hasChildrenOf(slot);
    if (slot.awaitsChildren) return;
    this.enter(() => {
      const dueAtMs = slot.actor?.getSnapshot().context.dueAtMs ?? null;
      const { run } = slot.node.type;
      if (slot.stage === 'waiting' && run.kind === 'timer') slot.output = run.output(dueAtMs ?? this.env.clock.nowMs());
      if (slot.stage === 'held') slot.output = { at: new Date(dueAtMs ?? this.env.clock.nowMs()).toISOString() };
      this.deliver(slot, { type: 'node.wake', atMs: this.env.clock.nowMs() });
    });
  }

  // ------------------------------------------------------------------ work

  /** Called in the middle of a transition: work that leaves the process starts when its start is durable. */
  startWork(slot: Slot): void {
    const { kind } = slot.node.type.run;
    if (kind === 'task') this.#desk.reserve(slot);
    (kind === 'instant' ? this.#instant : this.#effects).add(slot);
  }

  /** Does what no commit needs to precede, and what follows from that, until a bound is spent; answers how much. */
  #step(): number {
    let steps = 0;
    // What happens here is in the commit that follows.
    this.#flushAsked = true;
    try {
      for (const slot of this.#instant) {
        this.#instant.delete(slot);
        if (slot.node.type.run.kind === 'loop') this.#test(slot);
        else this.#beginWork(slot);
        steps += 1;
        // Big outputs are not gathered.
        if (steps === STEPS_MAX || this.#big.length > 0) break;
      }
    } finally {
      this.#flushAsked = false;
    }
    return steps;
  }

  #beginWork(slot: Slot): void {
    if (slot.settled || slot.stage !== 'running') return;
    const { attempt } = slot;
    const { run } = slot.node.type;
    switch (run.kind) {
      case 'instant':
        try {
          const outcome = run.finish(slot.payload);
          if ('error' in outcome) this.workFailed(slot, attempt, outcome.error, outcome.code, true);
          else this.workCompleted(slot, attempt, outcome.output);
        } catch (error) {
          this.workFailed(slot, attempt, messageOf(error), hasCode(error) ? 'FS_FAILED' : 'FS_EXPRESSION', false);
        }
        break;
      case 'items':
        slot.children = new ChildrenDriver(this, slot, slot.payload as unknown[]);
        slot.children.pump();
        break;
      case 'child':
        slot.children = new ChildrenDriver(this, slot, null);
        slot.children.pump();
        break;
      case 'task':
        this.#desk.start(slot);
        break;
      default:
        break;
    }
  }

  #resumeChildren(slot: Slot): void {
    const children = new ChildrenDriver(
      this,
      slot,
      slot.node.type.run.kind === 'items' ? (slot.payload as unknown[]) : null,
    );
    slot.children = children;
    const { failure } = this.actor.getSnapshot().context;
    if (this.#stateValue() === 'failing' && failure !== null) children.startNoMore(failure);
    const resume = (): void => {
      if (children.over) return;
      children.resume().catch((error: unknown) => {
        if (hasCode(error, 'FS_UNAVAILABLE')) this.#later(resume);
        else this.env.crashed(this, error);
      });
    };
    resume();
  }

  /** Tries again what the store did not answer. */
  #later(run: () => void): void {
    this.env.timers.after(STORE_RETRY_MS, run);
  }

  /** A read that waits until the store answers: a node does not fail because a database rests. */
  async read<T>(read: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await read();
      } catch (error) {
        if (this.over || !hasCode(error, 'FS_UNAVAILABLE')) throw error;
        await new Promise<void>((resolve) => this.#later(resolve));
      }
    }
  }

  /**
   * A worker's word on a task; resolves when it is durable whether it was taken. One for a task that is no longer
   * asked for is discarded.
   */
  reported(id: string, report: WorkReport): Promise<boolean> {
    if (this.#reloading || this.#resting) {
      // A stop that follows finds it ended.
      this.#desk.noteEnded(id, report);
      return new Promise((resolve) => {
        this.#afterReload.push(() => void this.reported(id, report).then(resolve));
      });
    }
    const slot = this.#desk.take(id, report);
    if (this.stopReport?.taskEnded(id, report, this.env.clock.nowMs())) {
      const ended = this.stopReport.lastEnded;
      if (ended !== null) this.env.nodeStopped(ended.type, ended.ms);
    }
    if (this.over) {
      this.#lateReport(id, report);
      return Promise.resolve(false);
    }
    if (slot === undefined || slot.settled || slot.attemptId !== id) {
      this.#countDiscarded(id, report);
      return this.#discarded();
    }
    const taken = slot.stage !== 'aborting';
    if (!taken) this.#countDiscarded(id, report);
    this.#desk.noteEnded(id, report);
    if (taken && report.kind !== 'completed' && slot.payload === null) {
      // Just restored: the attempt that may follow at once needs its `with`.
      return new Promise((resolve) => {
        const take = (): void => {
          this.#take(slot, id, report);
          resolve(this.#durable());
        };
        this.#prepareAgain(slot, take, () => resolve(false));
      });
    }
    this.#take(slot, id, report);
    return taken ? this.#durable() : this.#discarded();
  }

  /** Its worker forgets it with the answer: the receipt of a stop speaks of it before. */
  #discarded(): Promise<boolean> {
    return this.stopReport === null ? Promise.resolve(false) : this.#durable().then(() => false);
  }

  /** Resolves when all that happened is in the record; false when it was taken back. */
  #durable(): Promise<boolean> {
    if (!this.#committing && !this.#unsaved()) return Promise.resolve(!this.over);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #tellWaiters(durable: boolean): void {
    for (const resolve of this.#waiters.splice(0)) resolve(durable);
  }

  #take(slot: Slot, id: string, report: WorkReport): void {
    this.enter(() => {
      if (slot.stage === 'aborting') {
        this.event('task.aborted', slot, { outcome: this.stopReport?.outcomeOf(id) ?? 'aborted' });
        this.deliver(slot, { type: 'work.aborted' });
        return;
      }
      switch (report.kind) {
        case 'completed':
          this.workCompleted(slot, slot.attempt, report.output);
          break;
        case 'failed':
          this.workFailed(slot, slot.attempt, report.error, report.code, report.retryable);
          break;
        case 'lost':
          this.deliver(slot, { type: 'work.lost', atMs: this.env.clock.nowMs() });
          break;
        case 'aborted':
          this.workFailed(slot, slot.attempt, 'its worker aborted the task', 'FS_LOST', true);
          break;
      }
    });
  }

  #lateReport(id: string, report: WorkReport): void {
    this.#countDiscarded(id, report);
    this.env.receiptChanged(this);
  }

  /** A result that came after its node's end, or after the word to end it. */
  #countDiscarded(id: string, report: WorkReport): void {
    if (report.kind !== 'completed' && report.kind !== 'failed') return;
    this.env.counters.lateResultsDiscarded += 1;
    this.stopReport?.resultDiscarded(id);
    this.saveReceipt();
  }

  /** Until it has ended the receipt of its stop goes with its commits: who told something may die, or forget it. */
  saveReceipt(): void {
    if (this.stopReport === null || this.stopReport.saved || this.over) return;
    this.#headerDirty = true;
    this.#scheduleFlush();
  }

  workCompleted(slot: Slot, attempt: number, output: unknown): void {
    if (slot.settled || slot.attempt !== attempt) return;
    this.enter(() => {
      slot.output = output;
      this.deliver(slot, { type: 'work.completed' });
    });
  }

  workFailed(slot: Slot, attempt: number, error: string, errorCode: string, retryable: boolean): void {
    if (slot.settled || slot.attempt !== attempt) return;
    // Only a stop leaves its marker.
    const text = error === STOPPED_MESSAGE ? `node error: ${error}` : error;
    this.enter(() =>
      this.deliver(slot, { type: 'work.failed', error: text, errorCode, retryable, atMs: this.env.clock.nowMs() }),
    );
  }

  /** Called in the middle of the stop's transition: the intent is durable, so the task is told at once. */
  abortTask(slot: Slot): void {
    const id = slot.attemptId;
    const nowMs = this.env.clock.nowMs();
    this.stopReport?.taskTold(slot, id);
    const how = this.#desk.abort(slot);
    if (how === 'told') return;
    if (how === 'unknown' && this.#afterCrash && this.#desk.pursue(slot)) return;
    const outcome = how === 'unknown' && this.#afterCrash ? 'aborted' : 'neverStarted';
    this.stopReport?.taskEnded(id, this.#desk.endOf(id) ?? { kind: 'aborted', outcome }, nowMs);
    slot.actor?.send({ type: 'work.aborted' });
  }

  /** A restored node was told before: where its task has ended since, or went with its process, nobody else says so. */
  #taskGone(slot: Slot): void {
    const id = slot.attemptId;
    const how = this.#desk.abort(slot);
    this.stopReport?.taskTold(slot, id);
    if (how === 'told' || (how === 'unknown' && this.#desk.pursue(slot))) return;
    const end: WorkReport = this.#desk.endOf(id) ?? { kind: 'aborted', outcome: 'aborted' };
    this.stopReport?.taskEnded(id, end, this.env.clock.nowMs());
    this.event('task.aborted', slot, { outcome: this.stopReport?.outcomeOf(id) ?? 'aborted' });
    this.deliver(slot, { type: 'work.aborted' });
  }

  /** Drops work that nobody waits for: a timed-out task is aborted, children end with their parent's node. */
  abandonWork(slot: Slot): void {
    const id = slot.attemptId;
    const { kind } = slot.node.type.run;
    if (kind === 'items' || kind === 'child') {
      const verdict =
        this.header.stop !== null ? null : { error: 'ended with its parent', errorCode: 'FS_PARENT_ENDED' };
      if (slot.children !== null) slot.children.abandon(verdict);
      else if (verdict !== null) this.env.endChildrenOf(slot, verdict);
    }
    if (kind !== 'task') return;
    const how = this.#desk.abandon(slot);
    if (this.stopReport === null || slot.node.type.where !== 'agent') return;
    if (how === 'told') {
      this.stopReport.agentRunsOn(slot, id);
      return;
    }
    this.stopReport.taskTold(slot, id, true);
    if (how === 'asked') return;
    const outcome = how === 'ended' ? 'finishedFirst' : 'neverStarted';
    this.stopReport.taskEnded(id, { kind: 'aborted', outcome }, this.env.clock.nowMs());
  }

  childrenChanged(slot: Slot): void {
    if (slot.settled || this.over) return;
    this.#markDirty(slot);
  }

  childEnded(end: ChildEnd): void {
    if (this.stopReport?.childEnded(end.id, end.status) === true && this.over) this.env.receiptChanged(this);
    for (const slot of this.live) if (slot.children?.running.has(end.id) === true) slot.children.ended(end);
  }

  /** A child is not here any more: a try may have waited for the last of the one before. */
  childLeft(): void {
    for (const slot of this.live) if (slot.awaitsChildren) this.#wake(slot);
  }

  /** A child that was being created when its node ended. */
  lateChild(id: string): void {
    if (this.stopReport === null) return;
    this.stopReport.childAdded(id, this.env.hostOf(id)?.liveStatus ?? 'Failed');
    if (this.over) this.env.receiptChanged(this);
  }

  // ------------------------------------------------------------------ loops

  /** Called in the middle of a transition, for which the answer is another event. */
  testCondition(slot: Slot): void {
    this.#instant.add(slot);
    this.#scheduleFlush();
  }

  #test(slot: Slot): void {
    const { condition, maxIterations, onExhausted, delayMs } = slot.node.keys;
    const next = slot.index + 1;
    const { attempt } = slot;
    const still = (): boolean => !slot.settled && !this.over && slot.attempt === attempt;
    const fail = (error: unknown): void => {
      if (!still()) return;
      this.enter(() =>
        this.deliver(slot, {
          type: 'work.failed',
          error: `condition: ${messageOf(error)}`,
          errorCode: 'FS_EXPRESSION',
          retryable: false,
          atMs: this.env.clock.nowMs(),
        }),
      );
    };
    if (!still()) return;
    try {
      settle(
        chain(this.data.loopScope(slot, next), (scope) =>
          chain(this.env.expressions.evaluate(condition ?? 'false', scope), (value) => ({
            value,
            last: scope.iter?.last ?? null,
          })),
        ),
        ({ value, last }) => {
          if (!still()) return;
          if (typeof value !== 'boolean') {
            fail(new Error(`expected true or false, found ${JSON.stringify(value)}`));
            return;
          }
          this.enter(() =>
            this.#tested(slot, value, next, maxIterations ?? 0, onExhausted ?? 'complete', delayMs ?? 0, last),
          );
        },
        fail,
      );
    } catch (error) {
      fail(error);
    }
  }

  #tested(
    slot: Slot,
    again: boolean,
    next: number,
    max: number,
    onExhausted: string,
    delayMs: number,
    last: unknown,
  ): void {
    const exhausted = again && next >= max;
    if (exhausted && onExhausted === 'fail') {
      this.workFailed(slot, slot.attempt, `still true after ${max} iterations`, 'FS_EXHAUSTED', false);
      return;
    }
    if (!again || exhausted) {
      this.workCompleted(slot, slot.attempt, { iterations: next, exhausted, last });
      return;
    }
    const wakeAtMs = next > 0 && delayMs > 0 ? this.env.clock.nowMs() + delayMs : null;
    this.deliver(slot, { type: 'loop.continue', wakeAtMs });
  }

  /** Called in the middle of a transition: the body's roots are offered to the execution's chart. */
  startIteration(slot: Slot): void {
    slot.index += 1;
    for (const key of slot.formerKeys) this.#drop(slot, key);
    slot.formerKeys = slot.currentKeys;
    slot.currentKeys = new Set();
    const body = slot.node.body as Graph;
    const scope = new Scope(body, [...slot.scope.iterations, `${slot.index}@${slot.attempt}`], slot);
    slot.body = scope;
    this.event('iteration.started', slot, { index: slot.index });
    this.#markDirty(slot);
    this.send({ type: 'nodes.ready', ready: body.roots.map((node) => ({ scope, node })) }, null);
  }

  /** A node of an iteration that is over leaves the record, and what enclosing loops remember of it. */
  #drop(loop: Slot, key: string): void {
    this.#dropNodes.push(key);
    for (let { outer } = loop.scope; outer !== null; outer = outer.scope.outer) outer.currentKeys.delete(key);
  }

  #iterationEnded(scope: Scope): void {
    const slot = scope.outer;
    if (slot === null || scope.over || slot.settled || slot.actor === null) return;
    scope.over = true;
    const nowMs = this.env.clock.nowMs();
    const { failed } = scope;
    if (failed !== null) {
      const failure = { error: `${failed.node.name}: ${failed.error}`, errorCode: failed.errorCode ?? 'FS_FAILED' };
      this.deliver(slot, { type: 'iteration.ended', failure, atMs: nowMs });
      return;
    }
    const last = this.data.outputsOf(scope, scope.graph.nodes);
    if (last instanceof Promise) {
      last.then(
        (value) => {
          if (slot.settled || this.over || slot.body !== scope) return;
          slot.last = value;
          this.enter(() =>
            this.deliver(slot, { type: 'iteration.ended', failure: null, atMs: this.env.clock.nowMs() }),
          );
        },
        (error: unknown) => this.env.crashed(this, error),
      );
      return;
    }
    slot.last = last;
    this.deliver(slot, { type: 'iteration.ended', failure: null, atMs: nowMs });
  }

  /** The loop timed out: its running body nodes end with that error. */
  endIteration(slot: Slot, verdict: Verdict): void {
    const { body } = slot;
    if (body === null) return;
    body.closed = true;
    for (const inner of [...this.live]) {
      if (!isWithin(inner, slot)) continue;
      if (inner.body !== null) inner.body.closed = true;
      if (inner.actor === null) this.#withdraw(inner);
      else this.deliver(inner, { type: 'execution.end', verdict });
    }
    this.#armBodyGrace(slot, body);
  }

  /** Who ignores the end of a loop's body is written off, as after a stop. */
  #armBodyGrace(slot: Slot, body: Scope): void {
    this.env.timers.after(this.env.stopGraceMs, () =>
      this.enter(() => {
        if (slot.settled || slot.body !== body) return;
        for (const inner of [...this.live])
          if (isWithin(inner, slot)) this.deliver(inner, { type: 'stop.graceElapsed' });
      }),
    );
  }

  // ------------------------------------------------------------------ triggers

  /** A durable trigger: releases what is Held under its name now, or waits for the next hold. */
  triggered(trigger: TriggerRow): void {
    if (this.over || this.header.stop !== null) return;
    if (this.#reloading) {
      this.#afterReload.push(() => this.triggered(trigger));
      return;
    }
    if (this.#triggersSeen.has(trigger.id)) return;
    this.#triggersSeen.add(trigger.id);
    this.enter(() => this.#offer(trigger));
  }

  #offer(trigger: TriggerRow): void {
    const held = [...this.live].filter((slot) => slot.stage === 'held' && slot.node.keys.trigger === trigger.name);
    if (held.length === 0) {
      this.#pendingTriggers.push(trigger);
      return;
    }
    this.#consumedTriggers.push(trigger.id);
    for (const slot of held) this.#release(slot, trigger);
  }

  #matchTriggers(slot: Slot): void {
    const index = this.#pendingTriggers.findIndex((trigger) => trigger.name === slot.node.keys.trigger);
    if (index < 0) return;
    const [trigger] = this.#pendingTriggers.splice(index, 1);
    if (trigger === undefined) return;
    this.#consumedTriggers.push(trigger.id);
    this.#release(slot, trigger);
  }

  #release(slot: Slot, trigger: TriggerRow): void {
    slot.output = trigger.payload;
    this.event('node.triggered', slot, { trigger: trigger.name });
    this.deliver(slot, { type: 'node.triggered' });
  }

  // ------------------------------------------------------------------ stop

  /** The intent is durable. Repeated and late deliveries change nothing. */
  deliverStop(intent: StopIntent, path: DeliveryPath): void {
    if (this.over || this.stopReport !== null || this.#stopWaits !== null) return;
    if (this.#committing || this.#reloading) {
      this.#stopWaits = { intent, path };
      return;
    }
    this.header.stop = intent;
    if (this.#unsaved()) this.#reload(path);
    else this.beginStop(path);
  }

  /** The record in memory is the stored one: halt. */
  beginStop(path: DeliveryPath): void {
    const { stop } = this.header;
    if (stop === null || this.over) return;
    this.#goesOn();
    if (this.#committing || this.#reloading) {
      // Something happened between its restoration and now: what becomes of that is known first.
      this.#stopWaits = { intent: stop, path };
      return;
    }
    if (this.#stateValue() === 'stopping') {
      this.#goOnStopping(stop, path);
      return;
    }
    if (this.stopReport !== null) return;
    const nowMs = this.env.clock.nowMs();
    this.#effects = new Set();
    this.stopReport = new StopReport(this.header.id, stop, path, nowMs, this.env.liveChildren(this.header.id));
    this.event('stop.requested', null, { requestId: stop.requestId });
    this.event('stop.delivered', null, { path });
    this.enter(() => {
      this.send({ type: 'execution.stop' }, null);
      // Also those that a timeout had told before, which may have ended since.
      for (const slot of [...this.live]) {
        if (slot.stage !== 'aborting') continue;
        if (this.#desk.has(slot.attemptId)) this.stopReport?.taskTold(slot, slot.attemptId);
        else this.#taskGone(slot);
      }
      for (const [id, { slot, elsewhere }] of this.#desk.abandoned) this.stopReport?.taskTold(slot, id, elsewhere);
      this.stopReport?.halted(this.env.clock.nowMs());
      this.event('stop.halted', null, null);
      this.#headerDirty = true;
      this.#scheduleFlush();
    });
    this.#awaitTasks(path);
  }

  /** What has not confirmed in time is pursued afterwards; a takeover has no time to wait. */
  #awaitTasks(path: DeliveryPath): void {
    if (this.over) return;
    if (path === 'takeover') this.#writeOff();
    else this.#armGrace();
  }

  #writeOff(): void {
    this.enter(() => {
      this.stopReport?.writeOff();
      this.send({ type: 'stop.graceElapsed' }, null);
    });
  }

  /** Its halt was committed before a restart: what was told then has ended, or will say so. */
  #goOnStopping(stop: StopIntent, path: DeliveryPath): void {
    const nowMs = this.env.clock.nowMs();
    this.stopReport ??= new StopReport(this.header.id, stop, path, nowMs, this.env.liveChildren(this.header.id));
    this.enter(() => {
      for (const slot of [...this.live]) this.#taskGone(slot);
    });
    this.#awaitTasks(path);
  }

  /** Ends it early for another reason: its timeout, or its parent's node. */
  abort(verdict: Verdict): void {
    if (this.over || this.header.stop !== null) return;
    // Those that were told before a restart.
    const told = this.#resting ? [...this.live].filter(({ stage }) => stage === 'aborting') : [];
    this.#goesOn();
    this.enter(() => {
      this.send({ type: 'execution.abort', verdict }, null);
      for (const slot of told) this.#taskGone(slot);
    });
    this.#armGrace();
  }

  #armGrace(): void {
    if (this.#graceTimer !== null) return;
    this.#graceTimer = this.env.timers.after(this.env.stopGraceMs, () => {
      this.#graceTimer = null;
      this.#writeOffAfterLook();
    });
  }

  /** Where another engine keeps the reports of tasks, they may be in the store, and the word of them lost. */
  #writeOffAfterLook(): void {
    const look = this.#desk.lookAgain();
    if (look === null) {
      this.#writeOff();
      return;
    }
    const { actor } = this;
    let isOver = false;
    const writeOff = (): void => {
      if (isOver) return;
      isOver = true;
      this.env.timers.cancel(timer);
      if (!this.over && this.actor === actor) this.#writeOff();
    };
    const timer = this.env.timers.after(LAST_LOOK_MS, writeOff);
    look.then(writeOff, writeOff);
  }

  #armTimeout(): void {
    const { timeoutMs } = this.workflow;
    const { startedAtMs } = this.header;
    // An item of a foreach runs a body of the workflow: the timeout is its root's.
    if (timeoutMs === null || startedAtMs === null || this.header.bodyPath !== null || this.#timeoutTimer !== null)
      return;
    this.#timeoutTimer = this.env.timers.at(startedAtMs + timeoutMs, () => {
      this.#timeoutTimer = null;
      this.abort({ error: `execution timed out after ${timeoutMs} ms`, errorCode: 'FS_TIMEOUT' });
    });
  }

  #unsaved(): boolean {
    return this.#dirty.length > 0 || this.#events.length > 0 || this.#headerDirty || this.#consumedTriggers.length > 0;
  }

  /** After a broken invariant: rebuilds the actors from the record; `giveUp` ends the execution with that error. */
  restart(giveUp: Verdict | null): void {
    if (this.over || this.#reloading) return;
    this.#committing = false;
    this.#giveUp = giveUp;
    this.#reload('local');
  }

  async #loadAgain(): Promise<RecoverableExecution | null> {
    const stored = await this.env.store.load(this.header.id);
    if (stored !== null) await this.env.dispatcher.fetch([stored]);
    return stored;
  }

  /** Takes back what is not durable by reading the record again, then halts. */
  #reload(path: DeliveryPath): void {
    this.#reloading = true;
    this.#loadAgain().then(
      (stored) => {
        this.#reloading = false;
        if (this.over) return;
        if (
          stored === null ||
          stored.header.endedAtMs !== null ||
          stored.header.owner.epoch !== this.header.owner.epoch
        ) {
          this.drop();
          return;
        }
        this.env.takenBack(this);
        this.#forget();
        this.enter(() => {
          this.restore(stored, false);
          // A stop that was told of meanwhile, and not yet when this was read.
          this.header.stop ??= this.#stopWaits?.intent ?? null;
          this.#stopWaits = null;
          if (this.#stateValue() !== 'stopping') this.stopReport = null;
          if (this.header.stop !== null) this.beginStop(path);
          else if (this.#giveUp !== null) this.abort(this.#giveUp);
          else if (this.header.status === 'Pending' && this.#begun) this.begin();
          else this.resume();
        });
        for (const run of this.#afterReload.splice(0)) run();
      },
      () => this.env.timers.after(200, () => this.#reload(path)),
    );
  }

  /** Forgets actors, timers and everything that waits for a commit; tasks in flight are kept. */
  #forget(): void {
    this.#tellWaiters(false);
    this.#desk.forgetUnsaved();
    for (const slot of this.live) {
      if (slot.wakeTimer !== null) this.env.timers.cancel(slot.wakeTimer);
      if (slot.deadlineTimer !== null) this.env.timers.cancel(slot.deadlineTimer);
      if (slot.queueTimer !== null) this.env.timers.cancel(slot.queueTimer);
      this.#desk.release(slot);
      slot.settled = true;
      slot.children?.abandon(null);
      if (slot.actor !== null) discardActor(slot.actor);
    }
    if (!this.#processing) discardActor(this.actor);
    this.live.clear();
    this.busy = 0;
    this.#queue = [];
    this.#dirty = [];
    this.#events = [];
    this.#results = [];
    this.#dropNodes = [];
    this.#consumedTriggers = [];
    this.#creates = [];
    this.#effects = new Set();
    this.#instant.clear();
    this.#big = [];
    this.#headerDirty = false;
  }

  /** This engine has no say in the execution any more: everything of it ends here, nothing is written. */
  drop(): void {
    if (this.over) return;
    this.over = true;
    this.stopReport = null;
    this.#desk.abortAll();
    this.env.takenBack(this);
    this.#forget();
    this.#disarm();
    this.env.dropped(this);
    for (const run of this.#afterReload.splice(0)) run();
  }

  /**
   * When this execution next wakes by itself (ms; infinity: never), if all that is live of it waits for instants
   * or triggers and everything is durable; else null.
   */
  parkedUntilMs(): number | null {
    const quiet = this.busy === 0 && this.live.size > 0 && !this.over && !this.#committing && !this.#unsaved();
    if (!quiet || this.#reloading || this.#desk.size > 0 || this.header.stop !== null || this.#stopWaits !== null)
      return null;
    if (this.#changing > 0 || this.#stateValue() !== 'running') return null;
    let atMs = this.#timeoutTimer?.atMs ?? Number.POSITIVE_INFINITY;
    for (const { stage, wakeTimer, deadlineTimer } of this.live) {
      if (stage !== 'held' && stage !== 'waiting') return null;
      atMs = Math.min(atMs, wakeTimer?.atMs ?? atMs, deadlineTimer?.atMs ?? atMs);
    }
    return atMs;
  }

  /** Leaves memory; the record is all that remains. */
  park(): void {
    this.over = true;
    this.#forget();
    this.#disarm();
  }

  #disarm(): void {
    if (this.#graceTimer !== null) this.env.timers.cancel(this.#graceTimer);
    if (this.#timeoutTimer !== null) this.env.timers.cancel(this.#timeoutTimer);
    this.#graceTimer = null;
    this.#timeoutTimer = null;
  }

  /** Attempts whose work runs in this process now. */
  get tasksInFlight(): number {
    return this.#desk.here;
  }

  get committing(): boolean {
    return this.#committing || this.#unsaved();
  }

  /** An end that is on its way to the store may be taken back. */
  get liveStatus(): ExecutionStatus {
    return this.header.status === 'Pending' ? 'Pending' : 'Running';
  }

  /** Its actors did what no durable commit stands behind yet. */
  get unsettled(): boolean {
    return this.#reloading || this.committing;
  }

  // ------------------------------------------------------------------ commits

  /** Runs what changes this execution; a throw crashes this execution alone. */
  enter(change: () => void): void {
    if (this.over) return;
    if (this.#reloading) {
      this.#afterReload.push(() => this.enter(change));
      return;
    }
    this.#changing += 1;
    try {
      change();
    } catch (error) {
      this.env.crashed(this, error);
    } finally {
      this.#changing -= 1;
    }
  }

  event(type: ExecutionEventType, slot: Slot | null, data: Json): void {
    this.header.seq += 1;
    this.#events.push({
      seq: this.header.seq,
      atMs: this.env.clock.nowMs(),
      type,
      node: slot === null ? null : slot.node.path,
      iterations: slot === null || slot.scope.iterations.length === 0 ? null : iterationIndexes(slot.scope.iterations),
      attempt: slot === null || slot.attempt === 0 ? null : slot.attempt,
      data,
    });
  }

  #markDirty(slot: Slot): void {
    if (slot.dirty) return;
    slot.dirty = true;
    this.#dirty.push(slot);
    this.#scheduleFlush();
  }

  /** It is known who has the tasks that a stop found in the queue. */
  answered(): void {
    if (this.#unsaved()) this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#flushAsked || this.#committing || this.over || this.#reloading) return;
    this.#flushAsked = true;
    this.env.flushSoon(this);
  }

  /** Sends the next commit, if there is anything for it; answers how many steps of instant work that took. */
  flush(): number {
    this.#flushAsked = false;
    if (this.#committing || this.over || this.#reloading) return 0;
    if (this.#changing > 0) {
      // In the middle of a change: what it leads to belongs into the same commit.
      this.#scheduleFlush();
      return 0;
    }
    const steps = this.#step();
    // What broke among these steps is taken back.
    if (this.#unsaved() && !this.#reloading) this.#sendCommit();
    return steps;
  }

  #sendCommit(): void {
    if (this.stopReport !== null && this.#desk.mustWait()) return;
    const { header } = this;
    const snapshot = this.actor.getSnapshot();
    const final = snapshot.status === 'done';
    const patch: Commit['header'] = {};
    const nowMs = this.env.clock.nowMs();
    if (final) {
      const { failure } = snapshot.context;
      header.status = executionStatusOf(snapshot.value);
      header.endedAtMs = nowMs;
      header.error = failure?.error ?? null;
      header.errorCode = failure?.errorCode ?? null;
      if (header.status === 'Failed') header.outputs = null;
      patch.error = header.error;
      patch.errorCode = header.errorCode;
      patch.outputs = header.outputs;
      patch.endedAtMs = nowMs;
      if (header.startedAtMs !== null) patch.startedAtMs = header.startedAtMs;
      if (failure === null) this.event('execution.completed', null, null);
      else this.event('execution.failed', null, { error: failure.error, errorCode: failure.errorCode });
      this.stopReport?.finalised(nowMs);
    }
    if (this.#headerDirty) {
      patch.status = header.status;
      if (header.startedAtMs !== null) patch.startedAtMs = header.startedAtMs;
      header.machine = { value: snapshot.value as Json, failure: snapshot.context.failure as Json };
      patch.machine = final ? null : header.machine;
    }
    const nodes: NodeRow[] = [];
    const dropped = new Set(this.#dropNodes);
    const results = dropped.size === 0 ? this.#results : this.#results.filter(({ key }) => !dropped.has(key));
    for (const slot of this.#dirty) {
      slot.dirty = false;
      // Of an iteration that began and is over since the last commit no row was ever needed.
      if (slot.stage === 'ready' || (!slot.stored && dropped.delete(slot.key))) continue;
      nodes.push(slot.row());
      slot.stored = true;
    }
    const commit: Commit = {
      executionId: header.id,
      epoch: header.owner.epoch,
      v: header.v + 1,
      // Until the halt it is a commit like any other: the store refuses it where a stop came first.
      requestId: this.stopReport === null ? null : (header.stop?.requestId ?? null),
      header: patch,
      nodes,
      dropNodes: [...dropped],
      events: this.#events,
      results,
      consumedTriggers: this.#consumedTriggers,
      receipt: this.stopReport?.row() ?? null,
      creates: this.#creates,
      tasks: this.#desk.queued,
      endedTasks: this.#desk.dequeued,
      final,
    };
    if (this.stopReport !== null) this.stopReport.saved = true;
    const effects: Effect[] = [];
    for (const slot of this.#effects) effects.push({ slot, attempt: slot.attempt });
    for (const slot of this.#instant) {
      if (slot.node.type.run.kind !== 'instant') continue;
      this.#instant.delete(slot);
      effects.push({ slot, attempt: slot.attempt });
    }
    const big = this.#big;
    this.#dirty = [];
    this.#events = [];
    this.#results = [];
    this.#dropNodes = [];
    this.#consumedTriggers = [];
    this.#creates = [];
    this.#desk.forgetUnsaved();
    this.#effects = new Set();
    this.#big = [];
    this.#headerDirty = false;
    this.#committing = true;
    this.env.cut(this);
    this.#commit({ commit, effects, big }, 0);
  }

  #commit(sent: Sent, tries: number): void {
    this.env.counters.commits += 1;
    // After a restart from the record the fate of an earlier commit is known.
    const { actor } = this;
    this.env.store.commit(sent.commit).then(
      (outcome) => {
        if (actor === this.actor) this.#committed(sent, outcome);
      },
      (error: unknown) => {
        if (this.over || actor !== this.actor || !this.#committing) return;
        if (!hasCode(error, 'FS_UNAVAILABLE')) {
          this.#committing = false;
          this.env.crashed(this, error);
          return;
        }
        // Never success: the actors wait, the same commit is tried until the store takes it.
        this.env.counters.commitRetries += 1;
        const delayMs = Math.min(2_000, 100 * 2 ** Math.min(tries, 5));
        this.env.timers.after(delayMs, () => {
          if (!this.over && actor === this.actor && this.#committing) this.#commit(sent, tries + 1);
        });
      },
    );
  }

  #committed({ commit, effects, big }: Sent, outcome: CommitOutcome): void {
    if (this.over) return;
    this.#committing = false;
    if (outcome.kind === 'refused') {
      if (outcome.why === 'stopping') {
        this.header.stop = outcome.stop;
        const path = this.#stopWaits?.path ?? 'local';
        this.#stopWaits = null;
        this.#reload(path);
      } else {
        this.env.log.warn(
          { executionId: this.header.id, why: outcome.why },
          'a commit was refused: no longer the owner',
        );
        this.drop();
      }
      return;
    }
    this.header.v = commit.v;
    for (const slot of big) slot.output = undefined;
    this.env.published(this, commit);
    if (commit.final) {
      this.over = true;
      this.#tellWaiters(true);
      this.#disarm();
      this.env.ended(this, commit);
      return;
    }
    if (this.#stopWaits !== null) {
      const { intent, path } = this.#stopWaits;
      this.#stopWaits = null;
      this.header.stop = intent;
      // Other engines may have given out by now what it queued: that is read with the record.
      const isOffered = commit.tasks.length > 0 && this.env.dispatcher.remote !== null;
      if (this.#unsaved() || isOffered) this.#reload(path);
      else this.beginStop(path);
      return;
    }
    if (this.env.lapsed()) return;
    try {
      for (const { slot, attempt } of effects) if (slot.attempt === attempt) this.#beginWork(slot);
    } catch (error) {
      this.env.crashed(this, error);
      return;
    }
    if (this.#unsaved()) this.#scheduleFlush();
    else {
      this.#desk.durable();
      this.#tellWaiters(true);
      if (this.#instant.size > 0) this.#scheduleFlush();
    }
    this.env.parkedMayHaveChanged(this);
  }
}
