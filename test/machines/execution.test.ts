import { expect } from 'chai';
import type { EventFrom, SnapshotFrom } from 'xstate';
import { executionMachine, executionStatusOf, stopVerdict } from '../../machines/execution.machine.ts';
import { STOPPED_MESSAGE } from '../../src/errors.ts';
import { declaredStates, fold, foldFrom, reached, stateOf } from './support.ts';

type Event = EventFrom<typeof executionMachine>;

const edge = {} as never;
const calm = { edge, failFast: false };
const hasty = { edge, failFast: true };
const broken = { error: 'broken', errorCode: 'FS_FAILED' };
const late = { error: 'too late', errorCode: 'FS_TIMEOUT' };

const start = (count: number): Event => ({ type: 'execution.start', ready: new Array(count).fill('node') });
const settled = (more = 0, failure: typeof broken | null = null): Event => ({
  type: 'node.settled',
  ready: new Array(more).fill('node'),
  failure,
});
const ready = (count: number): Event => ({ type: 'nodes.ready', ready: new Array(count).fill('node') });
const concluded = (failure: typeof broken | null = null): Event => ({ type: 'execution.concluded', failure });
const stop: Event = { type: 'execution.stop' };
const abort: Event = { type: 'execution.abort', verdict: late };
const grace: Event = { type: 'stop.graceElapsed' };

const rows: [name: string, input: typeof calm, events: Event[], state: string, error: string | null][] = [
  ['waits to be admitted', calm, [], 'pending', null],
  ['runs its roots', calm, [start(2)], 'running', null],
  ['runs until the last node has settled', calm, [start(2), settled()], 'running', null],
  ['concludes when nothing runs', calm, [start(2), settled(), settled()], 'concluding', null],
  ['goes on with what a node made ready', calm, [start(1), settled(2), settled()], 'running', null],
  ['completes when its outputs are good', calm, [start(1), settled(), concluded()], 'complete', null],
  ['fails when its outputs are not', calm, [start(1), settled(), concluded(broken)], 'failed', 'broken'],
  [
    'fails with the first failure',
    calm,
    [start(2), settled(0, broken), settled(0, late), concluded()],
    'failed',
    'broken',
  ],
  ['lets other branches go on after a failure', calm, [start(2), settled(0, broken), settled(1)], 'running', 'broken'],
  ['counts the nodes of a loop', calm, [start(1), ready(2), settled(), settled()], 'running', null],
  ['fails fast: lets what runs end', hasty, [start(2), settled(0, broken)], 'failing', 'broken'],
  ['fails fast: starts nothing more', hasty, [start(2), settled(0, broken), settled(3)], 'concluding', 'broken'],
  ['fails fast at once when nothing else runs', hasty, [start(1), settled(1, broken)], 'concluding', 'broken'],
  ['ignores a stop of what is complete', calm, [start(1), settled(), concluded(), stop], 'complete', null],
  ['stops a queued execution at once', calm, [stop], 'failed', STOPPED_MESSAGE],
  ['waits for its nodes after a stop', calm, [start(2), stop, settled()], 'stopping', STOPPED_MESSAGE],
  ['starts nothing after a stop', calm, [start(2), stop, settled(5), settled(5)], 'failed', STOPPED_MESSAGE],
  ['takes no new nodes after a stop', calm, [start(1), stop, ready(3), settled()], 'failed', STOPPED_MESSAGE],
  [
    'keeps the marker whatever fails after the stop',
    calm,
    [start(1), stop, settled(0, broken)],
    'failed',
    STOPPED_MESSAGE,
  ],
  [
    'lets a stop win over an earlier failure',
    calm,
    [start(2), settled(0, broken), stop, settled()],
    'failed',
    STOPPED_MESSAGE,
  ],
  [
    'lets a stop win over a failing fast',
    hasty,
    [start(2), settled(0, broken), stop, settled()],
    'failed',
    STOPPED_MESSAGE,
  ],
  ['lets a stop win over its conclusion', calm, [start(1), settled(), stop, concluded()], 'failed', STOPPED_MESSAGE],
  ['ends its nodes when it timed out', calm, [start(1), abort], 'aborting', 'too late'],
  ['concludes a timeout, for what follows a failure', calm, [start(1), abort, settled()], 'concluding', 'too late'],
  ['lets a stop win over a timeout', calm, [start(1), abort, stop, settled()], 'failed', STOPPED_MESSAGE],
  ['times out a queued execution', calm, [abort], 'failed', 'too late'],
  [
    'times out while its outputs are evaluated, and concludes that',
    calm,
    [start(1), settled(), abort],
    'concluding',
    'too late',
  ],
  [
    'keeps its failure when the timeout passes while that is concluded',
    calm,
    [start(1), settled(0, broken), abort],
    'concluding',
    'broken',
  ],
  ['times out what fails fast', hasty, [start(2), settled(0, broken), abort, settled()], 'concluding', 'too late'],
];

describe('executionMachine', () => {
  for (const [name, input, events, state, error] of rows) {
    it(name, () => {
      const { snapshot } = fold(executionMachine, input, events);
      expect(stateOf(snapshot)).to.equal(state);
      expect(snapshot.context.failure?.error ?? null).to.equal(error);
    });
  }

  it('starts nodes only on its way through running', () => {
    const { actions } = fold(executionMachine, calm, [start(1), settled(1), stop, ready(1), settled(1)]);
    expect(actions.filter((action) => action === 'startNodes')).to.have.length(2);
  });

  it('tells its nodes of a stop exactly once', () => {
    const { actions } = fold(executionMachine, calm, [start(2), stop, stop, settled(), stop]);
    expect(actions.filter((action) => action === 'endNodes')).to.have.length(1);
  });

  it('writes tasks off when the grace is over', () => {
    expect(fold(executionMachine, calm, [start(1), stop, grace]).actions).to.include('writeOffTasks');
    expect(fold(executionMachine, calm, [start(1), abort, grace]).actions).to.include('writeOffTasks');
    expect(fold(executionMachine, calm, [start(1), grace]).actions).not.to.include('writeOffTasks');
  });

  describe('in every state that events lead to', () => {
    const serialize = (snapshot: SnapshotFrom<typeof executionMachine>): string =>
      `${stateOf(snapshot)} ${snapshot.context.live} ${snapshot.context.failure?.error}`;
    // Without what only counts up: that would lead on without end.
    const events = [
      start(2),
      settled(),
      settled(1),
      settled(0, broken),
      concluded(),
      concluded(broken),
      stop,
      abort,
      grace,
    ];
    const all = (input: typeof calm) => reached(executionMachine, input, events, serialize);

    for (const input of [calm, hasty]) {
      it(`a stop ends it as the contract says (failFast: ${input.failFast})`, () => {
        const states = all(input);
        expect(states.length).to.be.greaterThan(10);
        for (const { snapshot, path } of states) {
          const before = stateOf(snapshot);
          const settleAll = new Array<Event>(snapshot.context.live).fill(settled(0, broken));
          const after = foldFrom(executionMachine, snapshot, [stop, ...settleAll]).snapshot;
          const message = `${path} > execution.stop from ${before}`;
          if (snapshot.status === 'done') {
            expect(stateOf(after), message).to.equal(before);
            expect(after.context.failure, message).to.deep.equal(snapshot.context.failure);
          } else {
            expect(stateOf(after), message).to.equal('failed');
            expect(after.context.failure, message).to.deep.equal(stopVerdict);
          }
        }
      });
    }

    it('none of its declared states is out of reach', () => {
      const found = new Set([...all(calm), ...all(hasty)].map(({ snapshot }) => stateOf(snapshot)));
      expect([...found]).to.have.members(declaredStates(executionMachine));
    });
  });

  it('shows people four words', () => {
    const words = Object.fromEntries(
      declaredStates(executionMachine).map((state) => [state, executionStatusOf(state)]),
    );
    expect(words).to.deep.equal({
      pending: 'Pending',
      running: 'Running',
      failing: 'Running',
      concluding: 'Running',
      stopping: 'Running',
      aborting: 'Running',
      complete: 'Complete',
      failed: 'Failed',
    });
  });

  it('has the marker of the contract, to the letter', () => {
    expect(stopVerdict).to.deep.equal({ error: 'workflow stopped by user', errorCode: 'FS_STOPPED' });
    expect(STOPPED_MESSAGE).to.equal(stopVerdict.error);
  });
});
