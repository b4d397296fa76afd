/**
 * What a viewer is told of an execution's actors: their machines, the events they get and the states they reach.
 *
 * Names and states only. Context, inputs, outputs, the payloads of events and errors stay here.
 */
import type { ActorSystem, AnyActorRef, InspectionEvent } from 'xstate';
import { executionMachine } from '../../machines/execution.machine.ts';
import { type NodeMode, nodeMachine, nodeMachines } from '../../machines/node.machine.ts';
import { messageOf } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { NodeRow, StoredExecution } from '../ports/store.ts';
import type { Json, NodeStatus } from '../wire.ts';
import type { Log } from './environment.ts';
import type { ExecutionHost } from './execution-host.ts';
import type { Scope } from './slot.ts';

export interface InspectedState {
  status: 'active' | 'done' | 'error' | 'stopped';
  /** The state of the machine; absent where the actor has only been made. */
  value?: Json;
}

export type Inspected = { atMs: number; actorId: string } & (
  | {
      kind: 'actor';
      /** null: the engine's own, and that of an execution which no engine runs any more. */
      parentId: string | null;
      /** The machine's definition as JSON: states, transitions, names of guards and actions. */
      definition: string;
      state: InspectedState;
    }
  | { kind: 'event'; eventType: string /** null: the engine's. */; sourceId: string | null }
  | { kind: 'snapshot'; eventType: string; state: InspectedState }
);

/** Its methods do not throw. */
export interface InspectionObserver {
  tell(inspected: Inspected): void;
  /** Nothing more comes: what it knows is no longer what is. */
  lost(): void;
}

/** Messages that may wait for one commit; with more its viewers are out of step with the execution. */
const WAITING_MAX = 100_000;
const ENGINE = 'engine';
const EXECUTION = 'execution:';
const NODE = 'node:';
const ID_CHARS = 36;

/** One execution that somebody looks at. */
interface Watch {
  /** Replaced when somebody comes or goes: each message keeps those it was for. */
  observers: readonly InspectionObserver[];
  /** What no durable commit stands behind yet, in order. */
  waiting: { to: readonly InspectionObserver[]; inspected: Inspected }[];
  /** How many of them belong to the commit on its way. */
  cut: number;
  releasing: boolean;
  /** Counts what its actors did. */
  heard: number;
  /** Told of the engine's actor, and so of what comes to it. */
  engine: boolean;
}

type MachineActor = AnyActorRef & { logic: object };

export interface InspectionEnvironment {
  readonly clock: Clock;
  readonly log: Log;
  readonly engineId: string;
  readonly engine: MachineActor;
  hostOf(executionId: string): ExecutionHost | null;
  read(executionId: string): Promise<StoredExecution | null>;
}

/**
 * Observes the actor system, and only while somebody looks.
 *
 * What an actor did is told when the commit of it is durable, and not at all when it is taken back: as with
 * everything else that leaves the process.
 */
export class Inspections {
  readonly #env: InspectionEnvironment;
  readonly #system: ActorSystem<never>;
  readonly #watches = new Map<string, Watch>();
  #subscription: { unsubscribe(): void } | null = null;

  constructor(env: InspectionEnvironment, system: ActorSystem<never>) {
    this.#env = env;
    this.#system = system;
  }

  /** First what is there now, then what happens; until the answer is called. */
  observe(executionId: string, observer: InspectionObserver): () => void {
    const one: InspectionObserver = { tell: (inspected) => observer.tell(inspected), lost: () => observer.lost() };
    let watch = this.#watches.get(executionId);
    if (watch === undefined) {
      watch = { observers: [], waiting: [], cut: 0, releasing: false, heard: 0, engine: false };
      this.#watches.set(executionId, watch);
    }
    watch.observers = [...watch.observers, one];
    this.#subscription ??= this.#system.inspect((event) => this.#heard(event));
    const host = this.#env.hostOf(executionId);
    if (host === null) this.#tellStored(executionId, watch, one);
    else this.#tellLive(executionId, watch, host, [one]);
    return () => this.#leave(executionId, one);
  }

  /** The next commit of this execution holds what was heard so far. */
  cut(executionId: string): void {
    const watch = this.#watches.get(executionId);
    if (watch !== undefined) watch.cut = watch.waiting.length;
  }

  durable(executionId: string): void {
    const watch = this.#watches.get(executionId);
    if (watch === undefined) return;
    this.#tell(watch, watch.cut);
    watch.cut = 0;
    this.#releaseSoon(executionId, watch);
  }

  /** What was not durable never happened; the engine's actor has nothing that is. */
  takenBack(executionId: string): void {
    const watch = this.#watches.get(executionId);
    if (watch === undefined) return;
    watch.waiting = watch.waiting.filter(({ inspected }) => inspected.actorId === ENGINE);
    watch.cut = 0;
  }

  close(): void {
    this.#watches.clear();
    this.#detach();
  }

  #leave(executionId: string, observer: InspectionObserver): void {
    const watch = this.#watches.get(executionId);
    if (watch === undefined) return;
    watch.observers = watch.observers.filter((other) => other !== observer);
    for (const message of watch.waiting) message.to = message.to.filter((other) => other !== observer);
    if (watch.observers.length > 0) return;
    this.#watches.delete(executionId);
    if (this.#watches.size === 0) this.#detach();
  }

  #detach(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = null;
  }

  /** Called by every actor of the engine: those of other executions cost a look-up. */
  #heard(event: InspectionEvent): void {
    if (event.type !== '@xstate.event' && event.type !== '@xstate.snapshot' && event.type !== '@xstate.actor') return;
    const actorId = (event.actorRef as AnyActorRef).id;
    if (actorId === ENGINE) return this.#heardEngine(event);
    const executionId = executionIdOf(actorId);
    const watch = executionId === null ? undefined : this.#watches.get(executionId);
    if (executionId === null || watch === undefined) return;
    // A throw would reach the actor.
    try {
      watch.heard += 1;
      this.#add(executionId, watch, watch.observers, this.#inspected(event));
    } catch (error) {
      this.#lose(executionId, watch, error);
    }
  }

  /** The commands it gets and the states they lead to: its other events are about one execution or another. */
  #heardEngine(
    event: Extract<InspectionEvent, { type: '@xstate.event' | '@xstate.snapshot' | '@xstate.actor' }>,
  ): void {
    for (const [executionId, watch] of this.#watches) {
      if (!watch.engine) continue;
      try {
        if (event.type === '@xstate.actor' || !event.event.type.startsWith('engine.')) return;
        this.#add(executionId, watch, watch.observers, this.#inspected(event));
      } catch (error) {
        this.#lose(executionId, watch, error);
      }
    }
  }

  #lose(executionId: string, watch: Watch, error: unknown): void {
    this.#env.log.error({ executionId, error: messageOf(error) }, 'an inspection broke');
    for (const observer of watch.observers) observer.lost();
    if (this.#watches.get(executionId) === watch) this.#watches.delete(executionId);
    if (this.#watches.size === 0) this.#detach();
  }

  #inspected(
    event: Extract<InspectionEvent, { type: '@xstate.event' | '@xstate.snapshot' | '@xstate.actor' }>,
  ): Inspected {
    const actorId = (event.actorRef as AnyActorRef).id;
    const atMs = this.#env.clock.nowMs();
    switch (event.type) {
      case '@xstate.actor':
        // It has no state yet: a snapshot follows with its start.
        return actorOf(atMs, actorId, (event.actorRef as MachineActor).logic, { status: 'active' });
      case '@xstate.event': {
        const sourceId = (event.sourceRef as AnyActorRef | undefined)?.id;
        const own = sourceId !== undefined && executionIdOf(sourceId) !== null;
        return { kind: 'event', atMs, actorId, eventType: event.event.type, sourceId: own ? sourceId : null };
      }
      case '@xstate.snapshot':
        return { kind: 'snapshot', atMs, actorId, eventType: event.event.type, state: stateOf(event.snapshot) };
    }
  }

  #add(executionId: string, watch: Watch, to: readonly InspectionObserver[], inspected: Inspected): void {
    if (watch.waiting.length >= WAITING_MAX) throw new Error('too much waits for one commit');
    watch.waiting.push({ to, inspected });
    this.#releaseSoon(executionId, watch);
  }

  /** At the end of the turn what no commit waits for is told. */
  #releaseSoon(executionId: string, watch: Watch): void {
    if (watch.releasing || watch.waiting.length === 0) return;
    watch.releasing = true;
    this.#env.clock.defer(() => {
      watch.releasing = false;
      if (this.#env.hostOf(executionId)?.unsettled === true) return;
      this.#tell(watch, watch.waiting.length);
      watch.cut = 0;
    });
  }

  #tell(watch: Watch, count: number): void {
    for (const { to, inspected } of watch.waiting.splice(0, count)) for (const observer of to) observer.tell(inspected);
  }

  #tellLive(executionId: string, watch: Watch, host: ExecutionHost, to: readonly InspectionObserver[]): void {
    const atMs = this.#env.clock.nowMs();
    const tell = (inspected: Inspected): void => this.#add(executionId, watch, to, inspected);
    watch.engine = true;
    tell(runningActor(atMs, this.#env.engine));
    tell(runningActor(atMs, host.actor));
    for (const settled of settledIn(host.root)) tell(endedNode(executionId, settled, atMs));
    for (const { actor } of host.live) if (actor !== null) tell(runningActor(atMs, actor));
  }

  /** One that is parked, waits or has ended: its record says what its actors are. */
  #tellStored(executionId: string, watch: Watch, observer: InspectionObserver): void {
    const { heard } = watch;
    this.#env
      .read(executionId)
      .then((stored) => {
        if (stored === null || !watch.observers.includes(observer)) return;
        const host = this.#env.hostOf(executionId);
        if (host !== null) this.#tellLive(executionId, watch, host, [observer]);
        else if (watch.heard === heard) {
          const { endedAtMs, owner } = stored.header;
          watch.engine = endedAtMs === null && owner.engine === this.#env.engineId;
          const atMs = this.#env.clock.nowMs();
          if (watch.engine) observer.tell(runningActor(atMs, this.#env.engine));
          for (const inspected of storedActors(stored, watch.engine ? ENGINE : null, atMs)) observer.tell(inspected);
        }
      })
      .catch((error: unknown) => this.#lose(executionId, watch, error));
  }
}

/** Of an actor's id; null for the engine's own actors. */
function executionIdOf(actorId: string): string | null {
  if (actorId.startsWith(NODE)) return actorId.slice(NODE.length, NODE.length + ID_CHARS);
  return actorId.startsWith(EXECUTION) ? actorId.slice(EXECUTION.length) : null;
}

export function executionActorId(executionId: string): string {
  return EXECUTION + executionId;
}

function actorOf(atMs: number, actorId: string, machine: object, state: InspectedState): Inspected & { kind: 'actor' } {
  return { kind: 'actor', atMs, actorId, parentId: parentOf(actorId), definition: definitionOf(machine), state };
}

function parentOf(actorId: string): string | null {
  if (actorId.startsWith(NODE)) return executionActorId(executionIdOf(actorId) as string);
  return actorId === ENGINE ? null : ENGINE;
}

function runningActor(atMs: number, actor: MachineActor): Inspected {
  return actorOf(atMs, actor.id, actor.logic, stateOf(actor.getSnapshot()));
}

interface Settled {
  key: string;
  status: NodeStatus;
}

/** Nodes that have ended, and so have no actor any more, of this graph and of the bodies in their iteration. */
function* settledIn(scope: Scope): Generator<Settled> {
  for (const slot of scope.slots) {
    if (slot === undefined) continue;
    if (slot.settled) yield slot;
    if (slot.body !== null) yield* settledIn(slot.body);
  }
}

/** The final states of the chart, by what the record says. */
const finalStates: Partial<Record<NodeStatus, string>> = {
  Complete: 'complete',
  Failed: 'failed',
  Skipped: 'skipped',
  Held: 'keptHeld',
};

/** The actor of a node that has ended, as it was last. */
function endedNode(executionId: string, { key, status }: Settled, atMs: number): Inspected {
  const value = finalStates[status] ?? 'failed';
  return actorOf(atMs, `${NODE}${executionId}/${key}`, nodeMachine, { status: 'done', value });
}

function stateOf(snapshot: object): InspectedState {
  const { status, value } = snapshot as { status: InspectedState['status']; value?: Json };
  return value === undefined ? { status } : { status, value };
}

const definitions = new WeakMap<object, string>();

/** States, transitions, names of guards and actions: what is a function, and the context, is left out. */
function definitionOf(machine: object): string {
  const { config } = machine as { config?: object };
  if (config === undefined) return '{}';
  let definition = definitions.get(config);
  if (definition === undefined) {
    const { context: _context, ...shown } = config as Record<string, unknown>;
    definition = JSON.stringify(shown);
    definitions.set(config, definition);
  }
  return definition;
}

function storedActors({ header, nodes }: StoredExecution, parentId: string | null, atMs: number): Inspected[] {
  const ended = header.endedAtMs !== null;
  const value = ended
    ? header.status === 'Complete'
      ? 'complete'
      : 'failed'
    : ((header.machine as { value: string } | null)?.value ?? 'pending');
  const state: InspectedState = { status: ended ? 'done' : 'active', value };
  const execution = actorOf(atMs, executionActorId(header.id), executionMachine, state);
  const actors: Inspected[] = [{ ...execution, parentId }];
  for (const row of nodes) {
    if (row.status === 'Pending') continue;
    if (ended || row.machine === null) actors.push(endedNode(header.id, row, atMs));
    else actors.push(storedNode(header.id, row, atMs));
  }
  return actors;
}

function storedNode(executionId: string, row: NodeRow, atMs: number): Inspected {
  const { value, mode } = row.machine as { value: Json; mode: NodeMode };
  return actorOf(atMs, `${NODE}${executionId}/${row.key}`, nodeMachines[mode], { status: 'active', value });
}
