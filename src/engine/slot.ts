import type { Actor } from 'xstate';
import type { Verdict } from '../../machines/events.ts';
import {
  NODE_STATE_VERSION,
  type NodeContext,
  type NodeEdge,
  type NodePolicy,
  type nodeMachine,
} from '../../machines/node.machine.ts';
import type { CompiledNode, Graph } from '../definition/types.ts';
import type { NodeRow } from '../ports/store.ts';
import type { TaskRow } from '../ports/task-queue.ts';
import type { Json, NodeStatus } from '../wire.ts';
import type { ChildrenDriver } from './children.ts';
import type { ExecutionHost } from './execution-host.ts';
import { attemptId, nodeKey } from './identity.ts';
import type { Timer } from './timers.ts';

export type NodeActor = Actor<typeof nodeMachine>;

/** What a record keeps of a live node's actor. */
export interface NodeState extends Omit<NodeContext, 'edge' | 'policy'> {
  version: number;
  value: unknown;
}

/** The nodes of one graph while it runs: the workflow itself, or one iteration of a loop's body. */
export class Scope {
  readonly graph: Graph;
  /** INDEX@ATTEMPT of each enclosing loop, outermost first. */
  readonly iterations: string[];
  /** The loop whose body this is. */
  readonly outer: Slot | null;
  /** By position in the graph; undefined: Pending and not being prepared. */
  readonly slots: (Slot | undefined)[];
  /** By position: needs that have not been met. A node's end costs its dependents, not the graph. */
  readonly unmet: number[];
  /**
   * Nodes started and not settled, those in the bodies of its loops too: a loop that is ended at once has settled
   * before the tasks in it.
   */
  live = 0;
  /** Ends of nodes that the execution's chart has not been told of: they may make others ready. */
  untold = 0;
  /** The first node without `continueOnError` that failed. */
  failed: Slot | null = null;
  over = false;
  /** Its loop has ended or is ending: no node starts here. */
  closed = false;

  constructor(graph: Graph, iterations: string[], outer: Slot | null) {
    this.graph = graph;
    this.iterations = iterations;
    this.outer = outer;
    this.slots = new Array<Slot | undefined>(graph.nodes.length).fill(undefined);
    this.unmet = graph.nodes.map((node) => node.needs.length);
  }

  /** One of its nodes started, or settled. */
  countLive(by: 1 | -1): void {
    this.live += by;
    this.outer?.scope.countLive(by);
  }
}

/** A node that became ready, as the execution's chart hands it back to be started. */
export interface Ready {
  scope: Scope;
  node: CompiledNode;
}

/**
 * One node that is being prepared, has started, or has ended: its record, its actor while it lives, and
 * what belongs to its current attempt.
 */
export class Slot implements NodeEdge {
  readonly host: ExecutionHost;
  readonly scope: Scope;
  readonly node: CompiledNode;
  readonly key: string;
  status: NodeStatus = 'Pending';
  /** The chart's state at the last look. */
  stage = 'ready';
  attempt = 0;
  error: string | null = null;
  errorCode: string | null = null;
  startedAtMs: number | null = null;
  endedAtMs: number | null = null;
  hasOutput = false;
  actor: NodeActor | null = null;
  /** `with`, rendered; of a foreach its items. */
  payload: unknown = null;
  /** In memory where it is small; undefined: in the store. */
  output: unknown = undefined;
  settled = false;
  dirty = false;
  /** A commit has held its row. */
  stored = false;
  /** Its state is of another version of Fullstop: it can only be ended. */
  unreadable = false;
  wakeTimer: Timer | null = null;
  deadlineTimer: Timer | null = null;
  /** Of a loop: the running or last iteration; -1 before the first. */
  index = -1;
  body: Scope | null = null;
  /** Keys of nodes of the last two iterations, the older first: older ones leave the record. */
  formerKeys = new Set<string>();
  currentKeys = new Set<string>();
  /** The last iteration's outputs; undefined: in the store. */
  last: Record<string, unknown> | null | undefined = null;
  /** Of a task: a slot of this process waits for it. */
  reserved = false;
  /** Its row in the task queue, while its attempt is there. */
  queuedTask: TaskRow | null = null;
  /** Name of the worker or agent that holds it. */
  claimedBy: string | null = null;
  queueTimer: Timer | null = null;
  /** Log events of this attempt. */
  logs = 0;
  children: ChildrenDriver | null = null;
  /** Its next try is due, and children of the last are ending. */
  awaitsChildren = false;
  #childCounts: Json = null;

  constructor(host: ExecutionHost, scope: Scope, node: CompiledNode) {
    this.host = host;
    this.scope = scope;
    this.node = node;
    this.key = nodeKey(node.path, scope.iterations);
  }

  get attemptId(): string {
    return attemptId(this.host.header.id, this.key, this.attempt);
  }

  policy(): NodePolicy {
    const { retry, rerun, timeoutMs, type } = this.node;
    return {
      attemptsMax: retry.attempts,
      backoffMs: retry.backoffMs,
      factor: retry.factor,
      maxBackoffMs: retry.maxBackoffMs,
      rerun,
      timeoutMs,
      confirmsAbort: type.where === 'worker',
    };
  }

  /** Data the record keeps beside the actor's snapshot. */
  data(): Json {
    if (this.node.body !== null && this.node.type.run.kind === 'loop') return { index: this.index };
    // Who holds it, under the name that people read it by.
    if (this.queuedTask !== null) return { queued: true, [this.node.type.where]: this.claimedBy };
    const counts = this.children?.counts() ?? this.#childCounts;
    return counts === null ? null : { children: counts };
  }

  row(): NodeRow {
    return {
      key: this.key,
      path: this.node.path,
      iterations: this.scope.iterations,
      type: this.node.type.type,
      status: this.status,
      error: this.error,
      errorCode: this.errorCode,
      attempt: this.attempt,
      startedAtMs: this.startedAtMs,
      endedAtMs: this.endedAtMs,
      where: this.node.type.where,
      hasOutput: this.hasOutput,
      machine: this.#persisted(),
      data: this.data(),
    };
  }

  /** A new attempt of a loop begins before its first iteration; what earlier ones left goes with it. */
  beginLoop(): void {
    for (const key of this.currentKeys) this.formerKeys.add(key);
    this.currentKeys = new Set();
    this.index = -1;
    this.last = null;
    this.body = null;
  }

  /** The node has ended: its counts stay in the record. */
  endChildren(): void {
    if (this.children !== null) this.#childCounts = this.children.counts();
    this.children = null;
  }

  /** The part of the actor's snapshot that a restart needs: an ended node needs none. */
  #persisted(): Json {
    if (this.actor === null || this.settled) return null;
    const { value, context } = this.actor.getSnapshot();
    return {
      version: NODE_STATE_VERSION,
      value: value as Json,
      mode: context.mode,
      attempt: context.attempt,
      tries: context.tries,
      lost: context.lost,
      dueAtMs: context.dueAtMs,
      wakeAtMs: context.wakeAtMs,
      deadlineAtMs: context.deadlineAtMs,
      failure: context.failure as Json,
      lastTry: context.lastTry,
    };
  }

  // NodeEdge: called by the actor in the middle of a transition.

  startWork(): void {
    this.host.startWork(this);
  }

  abortWork(): void {
    this.host.abortTask(this);
  }

  abandonWork(): void {
    this.host.abandonWork(this);
  }

  testCondition(): void {
    this.host.testCondition(this);
  }

  startIteration(): void {
    this.host.startIteration(this);
  }

  endIteration(verdict: Verdict): void {
    this.host.endIteration(this, verdict);
  }
}
