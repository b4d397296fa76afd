import { expect } from 'chai';
import type { EventFrom } from 'xstate';
import { engineMachine } from '../../machines/engine.machine.ts';
import { declaredStates, fold, reached, stateOf } from './support.ts';

type Event = EventFrom<typeof engineMachine>;

const input = { restartsMax: 3, windowMs: 60_000, paused: false };
const recovered: Event = { type: 'engine.recovered' };
const drain: Event = { type: 'engine.drain' };
const drained: Event = { type: 'engine.drained' };
const pause: Event = { type: 'engine.pause' };
const resume: Event = { type: 'engine.resume' };
const crashed = (executionId: string, atMs: number): Event => ({ type: 'execution.crashed', executionId, atMs });

const rows: [name: string, events: Event[], state: string, paused?: boolean][] = [
  ['admits nothing before recovery', [], 'starting'],
  ['serves once recovered', [recovered], 'serving'],
  ['drains from serving', [recovered, drain], 'draining'],
  ['drains while it still recovers', [drain], 'draining'],
  ['does not serve again when recovery ends after the drain', [drain, recovered], 'draining'],
  ['stops once drained', [recovered, drain, drained], 'stopped'],
  ['does not stop without a drain', [recovered, drained], 'serving'],
  ['keeps draining when asked twice', [recovered, drain, drain], 'draining'],
  ['pauses before it serves', [pause, recovered], 'serving', true],
  ['resumes', [recovered, pause, resume], 'serving', false],
  ['keeps the pause while draining', [recovered, pause, drain], 'draining', true],
];

describe('engineMachine', () => {
  for (const [name, events, state, paused = false] of rows) {
    it(name, () => {
      const { snapshot } = fold(engineMachine, input, events);
      expect(stateOf(snapshot)).to.equal(state);
      expect(snapshot.context.paused).to.equal(paused);
    });
  }

  it('gives an execution up after more crashes within the window than the budget allows', () => {
    const four = [1, 2, 3, 4].map((at) => crashed('a', at * 1_000));
    expect(fold(engineMachine, input, four.slice(0, 3)).snapshot.context.givenUp).to.equal(null);
    expect(fold(engineMachine, input, four).snapshot.context.givenUp).to.equal('a');
  });

  it('counts the crashes of each execution by themselves', () => {
    const events = ['a', 'b', 'a', 'b', 'a', 'b'].map((id, at) => crashed(id, at));
    expect(fold(engineMachine, input, events).snapshot.context.givenUp).to.equal(null);
  });

  it('forgets crashes that the window has left behind', () => {
    const events = [0, 1, 2, 61_000].map((at) => crashed('a', at));
    const { context } = fold(engineMachine, input, events).snapshot;
    expect(context.givenUp).to.equal(null);
    expect(context.crashes).to.deep.equal({ a: [2, 61_000].filter((at) => at > 1_000) });
  });

  it('has no state that nothing leads to', () => {
    const states = reached(engineMachine, input, [recovered, drain, drained, pause, resume], (snapshot) =>
      stateOf(snapshot),
    );
    expect(states.map(({ snapshot }) => stateOf(snapshot))).to.have.members(declaredStates(engineMachine));
  });
});
