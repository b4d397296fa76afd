import type { ActorLogic, ActorSystem, AnyActorRef, AnyEventObject, Snapshot } from 'xstate';
import { executionMachine } from '../../machines/execution.machine.ts';
import { type NodeMode, nodeMachines } from '../../machines/node.machine.ts';

/** The registry's own state never changes: its children are the executions, held in a Map by the engine. */
const snapshot: Snapshot<undefined> = { status: 'active', output: undefined, error: undefined };

/**
 * The actor whose children the executions are.
 *
 * A machine copies its whole `children` object at every spawn and stop, which costs seconds with thousands of
 * them; this logic holds nothing and takes its children's ends without a transition.
 */
export const registryLogic: ActorLogic<Snapshot<undefined>, AnyEventObject, undefined, ActorSystem<never>> = {
  getInitialSnapshot: () => snapshot,
  transition: (state) => state,
  getPersistedSnapshot: (state) => state,
};

/**
 * A snapshot from `resolveState` is whole, without children and without actors in its context. XState would look
 * for some in everything that the context refers to, and by its edge that is the workflow, the other nodes and the
 * engine: for each node that is restored.
 */
const restoreSnapshot = { value: (restored: unknown) => restored };

/**
 * The execution's chart, deaf to XState's own reports of its children's ends.
 *
 * Nodes report by `node.settled`. `xstate.done.actor.ID` is a type of its own for each child, and a machine
 * remembers the candidates of every type it ever saw: that would be a leak, and a step for nothing.
 */
export const executionLogic: typeof executionMachine = Object.create(executionMachine, {
  transition: {
    value(
      snapshot: Parameters<typeof executionMachine.transition>[0],
      event: AnyEventObject,
      scope: Parameters<typeof executionMachine.transition>[2],
    ) {
      if (event.type.startsWith('xstate.done.actor.') || event.type.startsWith('xstate.error.actor.')) return snapshot;
      return executionMachine.transition(snapshot, event as never, scope);
    },
  },
  restoreSnapshot,
});

/** The charts of nodes, for actors. */
export const nodeLogics = Object.fromEntries(
  Object.entries(nodeMachines).map(([mode, machine]) => [mode, Object.create(machine, { restoreSnapshot })]),
) as Record<NodeMode, (typeof nodeMachines)[NodeMode]>;

/** Ends an actor that is to leave no trace: no exit action, no event to anybody. */
export function discardActor(actor: AnyActorRef): void {
  (actor as unknown as { _stop(): void })._stop();
}
