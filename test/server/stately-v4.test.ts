/** Machines of XState 5 as those of XState 4 read them. */
import { expect } from 'chai';
import { createMachine as createMachine5, type AnyStateMachine as Machine5, type AnyStateNode as Node5 } from 'xstate';
import { executionMachine } from '../../machines/execution.machine.ts';
import { nodeMachines } from '../../machines/node.machine.ts';
import { stateConfigV4 } from '../../src/server/stately-v4.ts';
import { createMachine as createMachine4 } from '../xstate4/receiver.ts';

interface Edge {
  event: string;
  targets: string[];
  guard: unknown;
  actions: unknown[];
  reenters: boolean;
}

const nameOf = (guard: unknown): unknown =>
  typeof guard === 'object' && guard !== null && 'type' in guard ? guard.type : guard;

function nodesOf(node: Node5): Node5[] {
  return [node, ...Object.values(node.states).flatMap(nodesOf)];
}

/** The same events, as version 4 calls them. */
function eventOfVersion4(type: string): string {
  return type
    .replace(/^xstate\.done\.state\./, 'done.state.')
    .replace(/^xstate\.done\.actor\./, 'done.invoke.')
    .replace(/^xstate\.error\.actor\./, 'error.platform.')
    .replace(/^xstate\.after\.(\d+)\./, 'xstate.after($1)#');
}

/** Of each state of a machine of version 5, as it stands there. */
function edges5(machine: Machine5): Record<string, Edge[]> {
  return Object.fromEntries(
    nodesOf(machine.root).map((node) => [
      node.id,
      [...[...node.transitions.values()].flat(), ...(node.always ?? [])].map(
        ({ eventType, target = [], guard, actions, reenter }) => ({
          event: eventOfVersion4(eventType),
          targets: target.map(({ id }) => id),
          guard: nameOf(guard),
          actions: actions.map(nameOf),
          reenters: target.length > 0 && reenter,
        }),
      ),
    ]),
  );
}

/** The same of what version 4 made of its JSON. */
function edges4(machine: Machine5): Record<string, Edge[]> {
  const config = JSON.parse(JSON.stringify(stateConfigV4({ ...machine.config, context: undefined } as never)));
  const read = createMachine4({ ...config, predictableActionArguments: true });
  return Object.fromEntries(
    read.stateIds.map((id) => [
      id,
      read.getStateNodeById(id).transitions.map(({ eventType, target, cond, actions, internal }) => ({
        event: eventType,
        targets: (target ?? []).map((node) => node.id),
        guard: (cond as { name?: string } | undefined)?.name,
        actions: actions.map(({ type }) => type),
        reenters: !internal,
      })),
    ]),
  );
}

const odd = createMachine5({
  id: 'odd',
  initial: 'guard',
  states: {
    // Words of a transition as names of a state and of an event.
    guard: {
      on: {
        guard: 'reenter',
        reenter: { target: 'guard', reenter: true },
        both: [{ guard: 'a', target: 'reenter' }, {}],
      },
    },
    reenter: {
      type: 'parallel',
      states: {
        left: { initial: 'in', states: { in: { always: { guard: 'b', target: 'out' } }, out: { type: 'final' } } },
        right: {},
      },
      onDone: { guard: 'c', target: 'guard', actions: 'note' },
      after: { 50: { guard: 'd', target: 'waiting' } },
    },
    waiting: { invoke: { src: 'work', id: 'work', onDone: { guard: 'e', target: 'guard' }, onError: 'reenter' } },
  },
} as never);

describe('a machine for viewers of version 4', () => {
  for (const [name, machine] of Object.entries({ execution: executionMachine, ...nodeMachines }))
    it(`has the states and transitions of ${name}`, () => {
      expect(edges4(machine)).to.deep.equal(edges5(machine));
    });

  it('has a guard as cond wherever one can stand, and the names of states and events as they are', () => {
    expect(edges4(odd)).to.deep.equal(edges5(odd));
  });
});
