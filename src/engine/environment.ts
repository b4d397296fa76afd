import type { AnyActorRef } from 'xstate';
import type { Verdict } from '../../machines/events.ts';
import type { Bus } from '../ports/bus.ts';
import type { Clock } from '../ports/clock.ts';
import type { Expressions } from '../ports/expressions.ts';
import type { Ids, Tokens } from '../ports/ids.ts';
import type { Commit, ExecutionStore, NewExecution } from '../ports/store.ts';
import type { NodeWork } from '../ports/work.ts';
import type { ExecutionStatus, Json } from '../wire.ts';
import type { EngineMetrics } from './api.ts';
import type { ChildEnd } from './children.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { ExecutionHost } from './execution-host.ts';
import type { Slot } from './slot.ts';
import type { Timers } from './timers.ts';

/** The engine's log: pino's shape, so that the server's logger fits. */
export interface Log {
  info(data: object, message: string): void;
  warn(data: object, message: string): void;
  error(data: object, message: string): void;
}

/** Everything the engine needs from outside. */
export interface EnginePorts {
  store: ExecutionStore;
  bus: Bus;
  clock: Clock;
  ids: Ids;
  expressions: Expressions;
  work: NodeWork;
  tokens: Tokens;
  log: Log;
}

export type ChildOutcome =
  /** `id`: not the one given where an earlier write created the child and its reply was lost. */
  | { kind: 'created'; id: string }
  /** It was created by an earlier write, and has ended since. */
  | { kind: 'ended'; end: ChildEnd }
  /** The parent is stopping or has ended. */
  | { kind: 'refused' }
  /** The child cannot be: no such workflow, wrong input, too deep. */
  | { kind: 'invalid'; error: string; errorCode: string };

/** What one execution's host asks of its engine. */
export interface HostEnvironment extends EnginePorts {
  readonly timers: Timers;
  /** The actor whose children the executions are. */
  readonly registryActor: AnyActorRef;
  readonly dispatcher: Dispatcher;
  readonly stopGraceMs: number;
  readonly counters: EngineMetrics;
  draining(): boolean;
  /** Others may own what this engine had: asked before anything that no commit decides. */
  lapsed(): boolean;
  /** Calls `host.flush()` once at the end of the turn. */
  flushSoon(host: ExecutionHost): void;
  /** The commit that is on its way holds what the actors did so far. */
  cut(host: ExecutionHost): void;
  /** What the actors did since the last durable commit never happened. */
  takenBack(host: ExecutionHost): void;
  /** A commit is durable: its events may leave the process. */
  published(host: ExecutionHost, commit: Commit): void;
  /** The terminal commit is durable. */
  ended(host: ExecutionHost, commit: Commit): void;
  /** The host gave its execution up without a terminal commit. */
  dropped(host: ExecutionHost): void;
  crashed(host: ExecutionHost, error: unknown): void;
  parkedMayHaveChanged(host: ExecutionHost): void;
  hostOf(executionId: string): ExecutionHost | null;
  liveChildren(executionId: string): { executionId: string; status: ExecutionStatus }[];
  createChild(
    parent: ExecutionHost,
    slot: Slot,
    id: string,
    place: { item: unknown; itemIndex: number } | null,
  ): Promise<ChildOutcome>;
  endChild(executionId: string, verdict: Verdict): void;
  /** Those of this attempt that are here: after a restart it may have ended before it found them. */
  endChildrenOf(slot: Slot, verdict: Verdict): void;
  /** Whether children of this attempt are here, and so have not ended. */
  hasChildrenOf(slot: Slot): boolean;
  /** The node of the parent that started this execution, for expressions of a foreach's body. */
  parentSlot(host: ExecutionHost): Slot | null;
  /** `input`, `execution` and the item as the expressions of this execution see them. */
  expressionRoots(host: ExecutionHost): {
    input: Json;
    execution: { id: string; workflow: string; startedAt: string | null };
    item?: { item: unknown; itemIndex: number };
  };
  /** The execution that `onFailure` asks for; null: none. */
  followUp(host: ExecutionHost, failure: Verdict): Promise<NewExecution | null> | null;
  /** When a hold's schedule is due; null without one. */
  holdInstant(schedule: string | undefined, nowMs: number): number | null;
  /** A receipt changed after the terminal commit. */
  receiptChanged(host: ExecutionHost): void;
  /** For the histogram of stop latencies. */
  nodeStopped(type: string, ms: number): void;
}
