import type { AnyStateMachine, EventFrom, SnapshotFrom } from 'xstate';
import { initialTransition, transition } from 'xstate';
import { getShortestPaths } from 'xstate/graph';

/** What the machine's actions were, by name, in order: pure folding executes none. */
export interface Folded<M extends AnyStateMachine> {
  snapshot: SnapshotFrom<M>;
  actions: string[];
}

/** Folds events through the machine without running it: no timers, no actors, no effects. */
export function fold<M extends AnyStateMachine>(
  machine: M,
  input: unknown,
  events: readonly EventFrom<M>[],
): Folded<M> {
  const [initial, first] = initialTransition(machine as AnyStateMachine, input as never);
  const rest = foldFrom(machine, initial as SnapshotFrom<M>, events);
  return { snapshot: rest.snapshot, actions: [...first.map((action) => action.type), ...rest.actions] };
}

/** As `fold`, from a state on. */
export function foldFrom<M extends AnyStateMachine>(
  machine: M,
  from: SnapshotFrom<M>,
  events: readonly EventFrom<M>[],
): Folded<M> {
  let snapshot = from;
  const actions: string[] = [];
  for (const event of events) {
    const [next, executed] = transition(machine as AnyStateMachine, snapshot, event as never);
    snapshot = next as SnapshotFrom<M>;
    actions.push(...executed.map((action) => action.type));
  }
  return { snapshot, actions };
}

/** A state as one word: `looping.testing`. */
export function stateOf(snapshot: { value: unknown }): string {
  return flatten(snapshot.value);
}

function flatten(value: unknown): string {
  if (typeof value === 'string') return value;
  return Object.entries(value as Record<string, unknown>)
    .map(([key, inner]) => `${key}.${flatten(inner)}`)
    .join('|');
}

export interface Reached<M extends AnyStateMachine> {
  snapshot: SnapshotFrom<M>;
  /** The events of the shortest path, for a failing test's message. */
  path: string;
}

/** Every state that the events lead to, told apart by `serialize`. */
export function reached<M extends AnyStateMachine>(
  machine: M,
  input: unknown,
  events: readonly EventFrom<M>[],
  serialize: (snapshot: SnapshotFrom<M>) => string,
): Reached<M>[] {
  const paths = getShortestPaths(
    machine as AnyStateMachine,
    {
      input,
      events: events as never,
      serializeState: (snapshot: unknown) => serialize(snapshot as SnapshotFrom<M>),
      limit: 50_000,
    } as never,
  ) as unknown as { state: SnapshotFrom<M>; steps: { event: { type: string } }[] }[];
  return paths.map(({ state, steps }) => ({ snapshot: state, path: steps.map(({ event }) => event.type).join(' > ') }));
}

interface StateNodeLike {
  states: Record<string, StateNodeLike>;
}

/** Every state the machine declares that has no states of its own, and is not merely passed through. */
export function declaredStates(machine: AnyStateMachine, passedThrough: readonly string[] = []): string[] {
  const collect = (node: StateNodeLike, prefix: string): string[] =>
    Object.entries(node.states).flatMap(([key, child]) =>
      Object.keys(child.states).length > 0 ? collect(child, `${prefix}${key}.`) : [`${prefix}${key}`],
    );
  return collect(machine.root as unknown as StateNodeLike, '').filter((state) => !passedThrough.includes(state));
}
