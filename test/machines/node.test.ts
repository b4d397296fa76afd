import { expect } from 'chai';
import type { EventFrom, SnapshotFrom } from 'xstate';
import { stopVerdict } from '../../machines/execution.machine.ts';
import {
  backoffMs,
  LOST_MAX,
  type NodeMode,
  type NodePolicy,
  nodeMachine,
  nodeStatusOf,
} from '../../machines/node.machine.ts';
import { declaredStates, fold, foldFrom, reached, stateOf } from './support.ts';

type Event = EventFrom<typeof nodeMachine>;
type State = SnapshotFrom<typeof nodeMachine>;

const plain: NodePolicy = {
  attemptsMax: 1,
  backoffMs: 1_000,
  factor: 2,
  maxBackoffMs: 5_000,
  rerun: true,
  timeoutMs: null,
  confirmsAbort: false,
};
const retried: NodePolicy = { ...plain, attemptsMax: 3 };
const onWorker: NodePolicy = { ...plain, confirmsAbort: true };

function input(mode: NodeMode, policy = plain) {
  const failure = mode === 'refuse' ? { error: 'if: no', errorCode: 'FS_EXPRESSION' } : null;
  return { edge: {} as never, policy, mode, nowMs: 0, dueAtMs: mode === 'wait' ? 9_000 : null, failure };
}

const broken = { error: 'broken', errorCode: 'FS_FAILED' };
const done: Event = { type: 'work.completed' };
const failed: Event = { type: 'work.failed', ...broken, retryable: true, atMs: 100 };
const failedForGood: Event = { ...failed, retryable: false };
const lost: Event = { type: 'work.lost', atMs: 100 };
const aborted: Event = { type: 'work.aborted' };
const triggered: Event = { type: 'node.triggered' };
const wake: Event = { type: 'node.wake', atMs: 2_000 };
const timedOut: Event = { type: 'node.timedOut', atMs: 100 };
const again: Event = { type: 'loop.continue', wakeAtMs: null };
const againLater: Event = { type: 'loop.continue', wakeAtMs: 7_000 };
const iterated: Event = { type: 'iteration.ended', failure: null, atMs: 100 };
const bodyFailed: Event = { type: 'iteration.ended', failure: broken, atMs: 100 };
const stop: Event = { type: 'execution.end', verdict: stopVerdict };
const failFast: Event = { type: 'execution.failFast', verdict: { error: 'another', errorCode: 'FS_FAILED' } };
const grace: Event = { type: 'stop.graceElapsed' };

const marker = stopVerdict.error;
type Row = [name: string, mode: NodeMode, policy: NodePolicy, events: Event[], state: string, error?: string | null];

const rows: Row[] = [
  ['is skipped', 'skip', plain, [], 'skipped'],
  ['is refused with what its expression said', 'refuse', plain, [], 'failed', 'if: no'],
  ['runs', 'work', plain, [], 'running'],
  ['completes', 'work', plain, [done], 'complete'],
  ['fails', 'work', plain, [failed], 'failed', 'broken'],
  ['tries again', 'work', retried, [failed], 'backingOff', 'broken'],
  ['forgets the error of the try before', 'work', retried, [failed, wake], 'running', null],
  ['fails after its last try', 'work', retried, [failed, wake, failed, wake, failed], 'failed', 'broken'],
  ['does not try again what would fail again', 'work', retried, [failedForGood], 'failed', 'broken'],
  ['fails when it timed out', 'work', plain, [timedOut], 'failed', 'timed out after null ms'],
  ['tries again when it timed out', 'work', retried, [timedOut], 'backingOff', 'timed out after null ms'],
  [
    'ignores the result of work that timed out',
    'work',
    retried,
    [timedOut, done],
    'backingOff',
    'timed out after null ms',
  ],
  ['runs again when its process died', 'work', plain, [lost], 'running'],
  [
    'fails when it lost too many attempts',
    'work',
    plain,
    new Array<Event>(LOST_MAX).fill(lost),
    'failed',
    'lost 5 attempts to crashes',
  ],
  ['survives one loss less', 'work', plain, new Array<Event>(LOST_MAX - 1).fill(lost), 'running'],
  ['does not count losses as tries', 'work', retried, [lost, lost, failed, wake, failed], 'backingOff', 'broken'],
  ['is held', 'hold', plain, [], 'held'],
  ['is released by its trigger', 'hold', plain, [triggered], 'complete'],
  ['is released by its schedule', 'hold', plain, [wake], 'complete'],
  ['is held no longer than its timeout', 'hold', plain, [timedOut], 'failed', 'timed out after null ms'],
  ['is held again by its next try', 'hold', retried, [timedOut, wake], 'held', null],
  ['keeps a trigger for the next try', 'hold', retried, [timedOut, triggered], 'backingOff', 'timed out after null ms'],
  ['waits', 'wait', plain, [], 'waiting'],
  ['waits until its instant', 'wait', plain, [wake], 'complete'],
  ['waits no longer than its timeout', 'wait', plain, [timedOut], 'failed', 'timed out after null ms'],
  ['tests its condition first', 'loop', plain, [], 'looping.testing'],
  ['iterates', 'loop', plain, [again], 'looping.iterating'],
  ['tests again after an iteration', 'loop', plain, [again, iterated], 'looping.testing'],
  ['pauses before an iteration', 'loop', plain, [again, iterated, againLater], 'looping.pausing'],
  ['iterates after the pause', 'loop', plain, [again, iterated, againLater, wake], 'looping.iterating'],
  ['completes when the condition is false', 'loop', plain, [again, iterated, done], 'complete'],
  ['fails when the condition cannot be told', 'loop', plain, [failedForGood], 'failed', 'broken'],
  ['does not try a broken condition again', 'loop', retried, [failedForGood], 'failed', 'broken'],
  ['fails with its body', 'loop', plain, [again, bodyFailed], 'failed', 'broken'],
  ['tries the whole loop again when its body failed', 'loop', retried, [again, bodyFailed], 'backingOff', 'broken'],
  ['begins the loop anew in its next try', 'loop', retried, [again, bodyFailed, wake], 'looping.testing', null],
  [
    'ends its body before it fails with a timeout',
    'loop',
    plain,
    [again, timedOut],
    'looping.closing',
    'timed out after null ms',
  ],
  [
    'fails with the timeout once its body has ended',
    'loop',
    plain,
    [again, timedOut, bodyFailed],
    'failed',
    'timed out after null ms',
  ],
  [
    'tries again once its body has ended',
    'loop',
    retried,
    [again, timedOut, bodyFailed],
    'backingOff',
    'timed out after null ms',
  ],
  ['times out in a pause', 'loop', plain, [again, iterated, againLater, timedOut], 'failed', 'timed out after null ms'],
  ['times out while it tests', 'loop', plain, [timedOut], 'failed', 'timed out after null ms'],
  // failFast
  ['lets running work end', 'work', retried, [failFast], 'running'],
  ['lets running work complete', 'work', retried, [failFast, done], 'complete'],
  ['tries no more', 'work', retried, [failFast, failed], 'failed', 'broken'],
  ['tries no more after a timeout', 'work', retried, [failFast, timedOut], 'failed', 'timed out after null ms'],
  ['fails between tries with the last error', 'work', retried, [failed, failFast], 'failed', 'broken'],
  ['stays held', 'hold', plain, [failFast], 'keptHeld'],
  ['lets a delay end', 'wait', retried, [failFast, wake], 'complete'],
  ['does not delay again', 'wait', retried, [failFast, timedOut], 'failed', 'timed out after null ms'],
  ['ends a loop that tests with the verdict', 'loop', retried, [failFast], 'failed', 'another'],
  ['ends a loop in its pause', 'loop', retried, [again, iterated, againLater, failFast], 'failed', 'another'],
  ['lets running body nodes end', 'loop', retried, [again, failFast], 'looping.finishing', 'another'],
  ['fails once the body has ended', 'loop', retried, [again, failFast, iterated], 'failed', 'another'],
  ['fails with the error of its body', 'loop', retried, [again, failFast, bodyFailed], 'failed', 'broken'],
  ['closes for good', 'loop', retried, [again, timedOut, failFast, bodyFailed], 'failed'],
  // stop
  ['ends on the engine at once', 'work', plain, [stop], 'failed', marker],
  ['waits for its worker', 'work', onWorker, [stop], 'aborting', marker],
  ['ends when its worker has', 'work', onWorker, [stop, aborted], 'failed', marker],
  ['ends when its worker was faster', 'work', onWorker, [stop, done], 'failed', marker],
  ['ends when its worker failed meanwhile', 'work', onWorker, [stop, failed], 'failed', marker],
  ['ends when its worker died', 'work', onWorker, [stop, lost], 'failed', marker],
  ['ends when the grace is over', 'work', onWorker, [stop, grace], 'failed', marker],
  ['does not time out while it is aborted', 'work', onWorker, [stop, timedOut], 'aborting', marker],
  ['is not stopped twice', 'work', onWorker, [stop, stop], 'aborting', marker],
  ['stays held after a stop', 'hold', plain, [stop], 'keptHeld', null],
  ['ends a delay', 'wait', plain, [stop], 'failed', marker],
  ['ends between tries', 'work', retried, [failed, stop], 'failed', marker],
  ['ends a loop in its body', 'loop', plain, [again, stop], 'failed', marker],
  ['ends a loop that is closing', 'loop', plain, [again, timedOut, stop], 'failed', marker],
];

describe('nodeMachine', () => {
  for (const [name, mode, policy, events, state, error] of rows) {
    it(`${mode}: ${name}`, () => {
      const { snapshot } = fold(nodeMachine, input(mode, policy), events);
      expect(stateOf(snapshot)).to.equal(state);
      if (error !== undefined) expect(snapshot.context.failure?.error ?? null).to.equal(error);
    });
  }

  it('numbers attempts from 1, lost ones included', () => {
    const attempts = (mode: NodeMode, events: Event[]): number =>
      fold(nodeMachine, input(mode, { ...retried, attemptsMax: 9 }), events).snapshot.context.attempt;
    expect(attempts('skip', [])).to.equal(0);
    expect(attempts('work', [])).to.equal(1);
    expect(attempts('work', [failed])).to.equal(1);
    expect(attempts('work', [failed, wake])).to.equal(2);
    expect(attempts('work', [failed, wake, lost])).to.equal(3);
    expect(attempts('loop', [again, iterated, again, bodyFailed, wake])).to.equal(2);
  });

  it('starts work once per attempt', () => {
    const { actions } = fold(nodeMachine, input('work', retried), [lost, failed, wake, done]);
    expect(actions.filter((action) => action === 'startWork')).to.have.length(3);
  });

  it('backs off longer each time, up to the most', () => {
    expect([1, 2, 3, 4, 5].map((tries) => backoffMs(plain, tries))).to.deep.equal([1_000, 2_000, 4_000, 5_000, 5_000]);
    expect(backoffMs({ ...plain, factor: 10 }, 400)).to.equal(5_000);
    const { context } = fold(nodeMachine, input('work', retried), [failed]).snapshot;
    expect(context.wakeAtMs).to.equal(1_100);
  });

  it('gives each try a deadline of its own, and none to the wait between them', () => {
    const policy = { ...retried, timeoutMs: 500 };
    const deadline = (events: Event[]): number | null =>
      fold(nodeMachine, input('work', policy), events).snapshot.context.deadlineAtMs;
    expect([deadline([]), deadline([failed]), deadline([failed, wake]), deadline([lost])]).to.deep.equal([
      500,
      null,
      2_500,
      600,
    ]);
  });

  it('has no deadline left once it has timed out', () => {
    for (const events of [
      [again, timedOut],
      [again, failFast, timedOut],
    ]) {
      const { context } = fold(nodeMachine, input('loop', { ...plain, timeoutMs: 500 }), events).snapshot;
      expect(context.deadlineAtMs).to.equal(null);
    }
  });

  it('fails at the first loss where it must not run again', () => {
    const { snapshot } = fold(nodeMachine, input('work', { ...retried, rerun: false }), [lost]);
    expect(stateOf(snapshot)).to.equal('failed');
    expect(snapshot.context.failure?.errorCode).to.equal('FS_LOST');
  });

  describe('in every state that events lead to', () => {
    const events = [
      done,
      failed,
      failedForGood,
      lost,
      aborted,
      triggered,
      wake,
      timedOut,
      again,
      againLater,
      iterated,
      bodyFailed,
      stop,
      failFast,
      grace,
    ];
    const serialize = ({ value, context }: State): string =>
      JSON.stringify([
        value,
        context.mode,
        context.tries,
        context.lost,
        context.attempt,
        context.failure?.error,
        context.lastTry,
      ]);
    const inputs = (['skip', 'refuse', 'hold', 'work', 'wait', 'loop'] as NodeMode[]).flatMap((mode) =>
      [retried, { ...retried, confirmsAbort: true }].map((policy) => input(mode, policy)),
    );
    const all = inputs.flatMap((each) => reached(nodeMachine, each, events, serialize));

    /** Design section 2: what a node is after a stop. */
    function afterStop(state: State): string {
      const value = stateOf(state);
      switch (value) {
        case 'held':
          return 'keptHeld';
        case 'running':
          return state.context.policy.confirmsAbort ? 'aborting' : 'failed';
        case 'aborting':
          return 'aborting';
        default:
          return state.status === 'done' ? value : 'failed';
      }
    }

    it('a stop ends in the table of the contract', () => {
      expect(all.length).to.be.greaterThan(200);
      for (const { snapshot, path } of all) {
        const after = foldFrom(nodeMachine, snapshot, [stop]).snapshot;
        const message = `${snapshot.context.mode}: ${path} > execution.end from ${stateOf(snapshot)}`;
        expect(stateOf(after), message).to.equal(afterStop(snapshot));
        if (snapshot.status === 'done' || stateOf(snapshot) === 'aborting') {
          expect(after.context.failure, message).to.deep.equal(snapshot.context.failure);
        } else if (stateOf(after) !== 'keptHeld') {
          expect(after.context.failure, message).to.deep.equal(stopVerdict);
        }
      }
    });

    it('whatever its worker says, or the grace, ends an aborted node', () => {
      const aborting = all.filter(({ snapshot }) => stateOf(snapshot) === 'aborting');
      expect(aborting).not.to.have.length(0);
      for (const { snapshot, path } of aborting) {
        for (const event of [done, failed, failedForGood, lost, aborted, grace]) {
          expect(stateOf(foldFrom(nodeMachine, snapshot, [event]).snapshot), path).to.equal('failed');
        }
      }
    });

    it('failFast leaves nothing that would begin another try or iteration', () => {
      for (const { snapshot, path } of all) {
        const [{ snapshot: after }] = [foldFrom(nodeMachine, snapshot, [failFast])];
        for (const event of [failed, timedOut, iterated, bodyFailed]) {
          const value = stateOf(foldFrom(nodeMachine, after, [event, wake]).snapshot);
          const running = after.status === 'done' || ['running', 'waiting', 'aborting'].includes(stateOf(after));
          const message = `${snapshot.context.mode}: ${path} > failFast > ${event.type} leads to ${value}`;
          if (running && after.status !== 'done')
            expect(['running', 'aborting', 'waiting', 'complete', 'failed'], message).to.include(value);
          expect(['backingOff', 'looping.testing', 'looping.iterating', 'looping.pausing'], message).not.to.include(
            value,
          );
          expect(foldFrom(nodeMachine, after, [event, wake]).snapshot.context.attempt, message).to.equal(
            snapshot.context.attempt,
          );
        }
      }
    });

    it('none of its declared states is out of reach', () => {
      const found = new Set(all.map(({ snapshot }) => stateOf(snapshot)));
      expect([...found]).to.have.members(declaredStates(nodeMachine, ['ready']));
    });
  });

  it('shows people six words', () => {
    const words = Object.fromEntries(
      Object.keys(nodeMachine.config.states ?? {}).map((state) => [state, nodeStatusOf(state)]),
    );
    expect(words).to.deep.equal({
      ready: 'Pending',
      held: 'Held',
      waiting: 'Running',
      running: 'Running',
      looping: 'Running',
      backingOff: 'Running',
      aborting: 'Running',
      complete: 'Complete',
      failed: 'Failed',
      skipped: 'Skipped',
      keptHeld: 'Held',
    });
    expect(nodeStatusOf({ looping: 'testing' })).to.equal('Running');
  });
});
