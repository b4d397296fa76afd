/**
 * One node of an execution: run it, back off, try again, finish; or hold it; or loop over its body.
 *
 * Owner: the execution's host spawns it when the node is ready and reports its end to execution.machine.
 * Restart: state and context survive. A lost attempt runs again under a new number (`work.lost`); holds,
 * delays, loops and backoffs keep their attempt and their absolute instants.
 */
import { assign, setup } from 'xstate';
import type { NodeEvent, Verdict } from './events.ts';

/** How the node goes about its work. */
export type NodeMode =
  /** Its `if` is false. */
  | 'skip'
  /** It could not be prepared: an expression failed. */
  | 'refuse'
  | 'hold'
  | 'work'
  /** Waits for `dueAtMs`. */
  | 'wait'
  | 'loop';

export interface NodePolicy {
  attemptsMax: number;
  backoffMs: number;
  factor: number;
  maxBackoffMs: number;
  /** False: the first lost attempt fails the node. */
  rerun: boolean;
  timeoutMs: number | null;
  /** Its work runs on a platform worker: an early end waits until the task has confirmed its own. */
  confirmsAbort: boolean;
}

/**
 * What a node's actor does to the world; the host acts after the commit that the transition led to.
 *
 * Timers are no actions: the host arms what `dueAtMs`, `wakeAtMs` and `deadlineAtMs` say after every event,
 * and so after a restart too.
 */
export interface NodeEdge {
  startWork(): void;
  abortWork(): void;
  /** Drops work whose end nobody waits for. */
  abandonWork(): void;
  testCondition(): void;
  startIteration(): void;
  endIteration(verdict: Verdict): void;
}

export interface NodeInput {
  edge: NodeEdge;
  policy: NodePolicy;
  mode: NodeMode;
  nowMs: number;
  dueAtMs: number | null;
  failure: Verdict | null;
}

export interface NodeContext {
  edge: NodeEdge;
  policy: NodePolicy;
  mode: NodeMode;
  /** 1 for the first try. */
  attempt: number;
  /** Tries that ended by their own failure: what `attemptsMax` bounds. */
  tries: number;
  /** Attempts lost to crashes. */
  lost: number;
  /** Of a hold's schedule or a delay: the same for every try. */
  dueAtMs: number | null;
  /** Of a backoff or a loop's pause. */
  wakeAtMs: number | null;
  deadlineAtMs: number | null;
  failure: Verdict | null;
  /** Under failFast: no other try follows. */
  lastTry: boolean;
}

/** Of what a record keeps of a node's state. Raised by a change after which an engine could not go on from it. */
export const NODE_STATE_VERSION = 1;

/** Attempts lost before a node fails with FS_LOST. */
export const LOST_MAX = 5;

const deadline = (policy: NodePolicy, atMs: number): number | null =>
  policy.timeoutMs === null ? null : atMs + policy.timeoutMs;

function triesRemain({ lastTry, tries, policy }: NodeContext): boolean {
  return !lastTry && tries + 1 < policy.attemptsMax;
}

/** Wait before the try after `tries` failed ones, ms. */
export function backoffMs(policy: NodePolicy, tries: number): number {
  return Math.min(policy.maxBackoffMs, Math.round(policy.backoffMs * policy.factor ** (tries - 1)));
}

const nodeSetup = setup({
  types: {} as { input: NodeInput; context: NodeContext; events: NodeEvent },
  guards: {
    isSkipped: ({ context }) => context.mode === 'skip',
    isRefused: ({ context }) => context.mode === 'refuse',
    isHold: ({ context }) => context.mode === 'hold',
    isLoop: ({ context }) => context.mode === 'loop',
    isWait: ({ context }) => context.mode === 'wait',
    mayRetry: ({ context, event }) => event.type === 'work.failed' && event.retryable && triesRemain(context),
    triesRemain: ({ context }) => triesRemain(context),
    mayRerun: ({ context }) => context.policy.rerun && context.lost + 1 < LOST_MAX,
    confirmsAbort: ({ context }) => context.policy.confirmsAbort,
    bodyFailed: ({ event }) => event.type === 'iteration.ended' && event.failure !== null,
    bodyFailedForGood: ({ context, event }) =>
      event.type === 'iteration.ended' && event.failure !== null && !triesRemain(context),
    pauses: ({ event }) => event.type === 'loop.continue' && event.wakeAtMs !== null,
  },
  actions: {
    startWork: ({ context }) => context.edge.startWork(),
    abortWork: ({ context }) => context.edge.abortWork(),
    abandonWork: ({ context }) => context.edge.abandonWork(),
    testCondition: ({ context }) => context.edge.testCondition(),
    startIteration: ({ context }) => context.edge.startIteration(),
    endIteration: ({ context, event }) =>
      context.edge.endIteration(
        event.type === 'execution.end' ? event.verdict : (context.failure ?? { error: '', errorCode: 'FS_TIMEOUT' }),
      ),
    noteFailure: assign({
      failure: ({ context, event }) => {
        switch (event.type) {
          case 'work.failed':
            return { error: event.error, errorCode: event.errorCode };
          case 'iteration.ended':
            return event.failure ?? context.failure;
          case 'execution.end':
            return event.verdict;
          default:
            return context.failure;
        }
      },
    }),
    noteVerdict: assign({
      failure: ({ event, context }) => (event.type === 'execution.failFast' ? event.verdict : context.failure),
    }),
    noteTimeout: assign({
      // Passed once: a loop that ends its body now does not time out again.
      deadlineAtMs: null,
      failure: ({ context }) => ({
        error: `timed out after ${context.policy.timeoutMs} ms`,
        errorCode: 'FS_TIMEOUT',
      }),
    }),
    noteLost: assign({
      failure: ({ context }) => ({
        error: context.policy.rerun
          ? `lost ${context.lost + 1} attempts to crashes`
          : 'the attempt was lost to a crash and the node has rerun: false',
        errorCode: 'FS_LOST',
      }),
    }),
    backOff: assign({
      tries: ({ context }) => context.tries + 1,
      deadlineAtMs: null,
      wakeAtMs: ({ context, event }) =>
        'atMs' in event ? event.atMs + backoffMs(context.policy, context.tries + 1) : context.wakeAtMs,
    }),
    beginTry: assign({
      attempt: ({ context }) => context.attempt + 1,
      wakeAtMs: null,
      failure: null,
      deadlineAtMs: ({ context, event }) => ('atMs' in event ? deadline(context.policy, event.atMs) : null),
    }),
    beginRerun: assign({
      attempt: ({ context }) => context.attempt + 1,
      lost: ({ context }) => context.lost + 1,
      deadlineAtMs: ({ context, event }) => ('atMs' in event ? deadline(context.policy, event.atMs) : null),
    }),
    awaitClaim: assign({ deadlineAtMs: null }),
    beginClaim: assign({
      deadlineAtMs: ({ context, event }) => ('atMs' in event ? deadline(context.policy, event.atMs) : null),
    }),
    beginPause: assign({
      wakeAtMs: ({ event }) => (event.type === 'loop.continue' ? event.wakeAtMs : null),
    }),
    endPause: assign({ wakeAtMs: null }),
    noteLastTry: assign({ lastTry: true }),
  },
});

const chartFrom = (initial: 'ready' | 'held' | 'waiting' | 'running' | 'looping' | 'skipped' | 'failed') =>
  nodeSetup.createMachine({
    id: 'node',
    context: ({ input }) => ({
      edge: input.edge,
      policy: input.policy,
      mode: input.mode,
      attempt: input.mode === 'skip' || input.mode === 'refuse' ? 0 : 1,
      tries: 0,
      lost: 0,
      dueAtMs: input.dueAtMs,
      wakeAtMs: null,
      deadlineAtMs: deadline(input.policy, input.nowMs),
      failure: input.failure,
      lastTry: false,
    }),
    initial,
    states: {
      ready: {
        always: [
          { guard: 'isSkipped', target: 'skipped' },
          { guard: 'isRefused', target: 'failed' },
          { guard: 'isHold', target: 'held' },
          { guard: 'isLoop', target: 'looping' },
          { guard: 'isWait', target: 'waiting' },
          { target: 'running' },
        ],
      },
      /** For its trigger or its schedule. */
      held: {
        on: {
          'node.triggered': 'complete',
          'node.wake': 'complete',
          'node.timedOut': [
            { guard: 'triesRemain', target: 'backingOff', actions: ['noteTimeout', 'backOff'] },
            { target: 'failed', actions: 'noteTimeout' },
          ],
          'execution.end': 'keptHeld',
          'execution.failFast': 'keptHeld',
        },
      },
      /** A delay, until `dueAtMs`. */
      waiting: {
        on: {
          'node.wake': 'complete',
          'node.timedOut': [
            { guard: 'triesRemain', target: 'backingOff', actions: ['noteTimeout', 'backOff'] },
            { target: 'failed', actions: 'noteTimeout' },
          ],
          'execution.end': { target: 'failed', actions: 'noteFailure' },
          'execution.failFast': { actions: 'noteLastTry' },
        },
      },
      running: {
        entry: 'startWork',
        on: {
          'work.queued': { actions: 'awaitClaim' },
          'work.claimed': { actions: 'beginClaim' },
          'work.completed': 'complete',
          'work.failed': [
            { guard: 'mayRetry', target: 'backingOff', actions: ['noteFailure', 'backOff'] },
            { target: 'failed', actions: 'noteFailure' },
          ],
          'work.lost': [
            { guard: 'mayRerun', target: 'running', reenter: true, actions: 'beginRerun' },
            { target: 'failed', actions: 'noteLost' },
          ],
          'node.timedOut': [
            { guard: 'triesRemain', target: 'backingOff', actions: ['abandonWork', 'noteTimeout', 'backOff'] },
            { target: 'failed', actions: ['abandonWork', 'noteTimeout'] },
          ],
          'execution.end': [
            { guard: 'confirmsAbort', target: 'aborting', actions: ['noteFailure', 'abortWork'] },
            { target: 'failed', actions: ['noteFailure', 'abandonWork'] },
          ],
          'execution.failFast': { actions: 'noteLastTry' },
        },
      },
      looping: {
        initial: 'testing',
        states: {
          testing: {
            entry: 'testCondition',
            on: {
              'loop.continue': [{ guard: 'pauses', target: 'pausing', actions: 'beginPause' }, { target: 'iterating' }],
              'work.completed': '#node.complete',
              'work.failed': { target: '#node.failed', actions: 'noteFailure' },
              'node.timedOut': [
                { guard: 'triesRemain', target: '#node.backingOff', actions: ['noteTimeout', 'backOff'] },
                { target: '#node.failed', actions: 'noteTimeout' },
              ],
              'execution.failFast': { target: '#node.failed', actions: 'noteVerdict' },
            },
          },
          iterating: {
            entry: 'startIteration',
            on: {
              'iteration.ended': [
                { guard: 'bodyFailedForGood', target: '#node.failed', actions: 'noteFailure' },
                { guard: 'bodyFailed', target: '#node.backingOff', actions: ['noteFailure', 'backOff'] },
                { target: 'testing' },
              ],
              'node.timedOut': { target: 'closing', actions: ['noteTimeout', 'endIteration'] },
              'execution.failFast': { target: 'finishing', actions: 'noteVerdict' },
            },
          },
          /** Before the next iteration, until `wakeAtMs`. */
          pausing: {
            on: {
              'node.wake': { target: 'iterating', actions: 'endPause' },
              'node.timedOut': [
                { guard: 'triesRemain', target: '#node.backingOff', actions: ['noteTimeout', 'backOff'] },
                { target: '#node.failed', actions: 'noteTimeout' },
              ],
              'execution.failFast': { target: '#node.failed', actions: 'noteVerdict' },
            },
          },
          /** Timed out: its body nodes are being ended. */
          closing: {
            on: {
              'iteration.ended': [
                { guard: 'triesRemain', target: '#node.backingOff', actions: 'backOff' },
                { target: '#node.failed' },
              ],
              'execution.failFast': { target: 'finishing' },
            },
          },
          /** Under failFast: the running body nodes end by themselves. */
          finishing: {
            on: {
              'iteration.ended': { target: '#node.failed', actions: 'noteFailure' },
              'node.timedOut': { actions: ['noteTimeout', 'endIteration'] },
            },
          },
        },
        on: {
          'execution.end': { target: 'failed', actions: 'noteFailure' },
        },
      },
      backingOff: {
        on: {
          'node.wake': [
            { guard: 'isLoop', target: 'looping', actions: 'beginTry' },
            { guard: 'isHold', target: 'held', actions: 'beginTry' },
            { guard: 'isWait', target: 'waiting', actions: 'beginTry' },
            { target: 'running', actions: 'beginTry' },
          ],
          'execution.end': { target: 'failed', actions: 'noteFailure' },
          'execution.failFast': 'failed',
        },
      },
      /** Its task was told; its own end, or the grace, ends the node. */
      aborting: {
        on: {
          'work.aborted': 'failed',
          'work.completed': 'failed',
          'work.failed': 'failed',
          'work.lost': 'failed',
          'stop.graceElapsed': 'failed',
        },
      },
      complete: { type: 'final' },
      failed: { type: 'final' },
      skipped: { type: 'final' },
      /** The execution ended while it was held: it stays Held. */
      keptHeld: { type: 'final' },
    },
  });

/** The chart. */
export const nodeMachine = chartFrom('ready');

/** The same chart, entered where `ready` leads for that mode: one step less for every node. */
export const nodeMachines: Readonly<Record<NodeMode, typeof nodeMachine>> = {
  skip: chartFrom('skipped'),
  refuse: chartFrom('failed'),
  hold: chartFrom('held'),
  wait: chartFrom('waiting'),
  loop: chartFrom('looping'),
  work: chartFrom('running'),
};

/** The record's word for a state of the machine. */
export function nodeStatusOf(value: unknown): 'Pending' | 'Held' | 'Running' | 'Complete' | 'Failed' | 'Skipped' {
  if (typeof value !== 'string') return 'Running';
  switch (value) {
    case 'ready':
      return 'Pending';
    case 'held':
    case 'keptHeld':
      return 'Held';
    case 'complete':
      return 'Complete';
    case 'failed':
      return 'Failed';
    case 'skipped':
      return 'Skipped';
    default:
      return 'Running';
  }
}
