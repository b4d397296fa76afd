/**
 * One execution: start what is ready, stop, finish.
 *
 * Owner: engine.machine's registry spawns it; its host (src/engine) keeps the nodes and spawns their actors.
 * Restart: the state survives; `live` is counted anew from the record.
 */
import { assign, setup } from 'xstate';
import type { ExecutionEvent, Verdict } from './events.ts';

/** What an execution's actor does to its nodes and to the world. */
export interface ExecutionEdge {
  /** Prepares and spawns nodes. The only way a node starts. */
  startNodes(ready: readonly unknown[]): void;
  /** Sends `execution.end` to every live node. */
  endNodes(verdict: Verdict): void;
  failFast(verdict: Verdict): void;
  /** Sends `stop.graceElapsed` to every live node. */
  writeOffTasks(): void;
  /** Evaluates the outputs, or prepares what follows a failure. */
  conclude(failure: Verdict | null): void;
}

export interface ExecutionInput {
  edge: ExecutionEdge;
  failFast: boolean;
}

export interface ExecutionContext {
  edge: ExecutionEdge;
  /** A failure ends the execution as soon as what runs has ended. */
  failFast: boolean;
  /** Nodes that were told to start and have not settled. */
  live: number;
  /** The first failure of a node without `continueOnError`, or what ended the execution early. */
  failure: Verdict | null;
}

/** The stop's verdict: `error` is the marker that tells a stop from a failure. */
export const stopVerdict: Verdict = { error: 'workflow stopped by user', errorCode: 'FS_STOPPED' };

export const executionMachine = setup({
  types: {} as { input: ExecutionInput; context: ExecutionContext; events: ExecutionEvent },
  guards: {
    allSettled: ({ context }) => context.live === 0,
    failedBefore: ({ context }) => context.failure !== null,
    failsFast: ({ context, event }) => context.failFast && event.type === 'node.settled' && event.failure !== null,
    concludedWell: ({ context, event }) =>
      event.type === 'execution.concluded' && event.failure === null && context.failure === null,
  },
  actions: {
    startNodes: ({ context, event }) => {
      if ('ready' in event && event.ready.length > 0) context.edge.startNodes(event.ready);
    },
    countSettled: assign({
      live: ({ context }) => context.live - 1,
      failure: ({ context, event }) => context.failure ?? (event.type === 'node.settled' ? event.failure : null),
    }),
    countStarted: assign({
      live: ({ context, event }) => ('ready' in event ? context.live + event.ready.length : context.live),
    }),
    settleAndStart: assign({
      live: ({ context, event }) => context.live - 1 + ('ready' in event ? event.ready.length : 0),
      failure: ({ context, event }) => context.failure ?? (event.type === 'node.settled' ? event.failure : null),
    }),
    noteStop: assign({ failure: stopVerdict }),
    noteVerdict: assign({
      failure: ({ context, event }) => (event.type === 'execution.abort' ? event.verdict : context.failure),
    }),
    noteConclusion: assign({
      failure: ({ context, event }) => context.failure ?? (event.type === 'execution.concluded' ? event.failure : null),
    }),
    endNodes: ({ context }) => context.edge.endNodes(context.failure ?? stopVerdict),
    failFast: ({ context }) => context.edge.failFast(context.failure ?? stopVerdict),
    writeOffTasks: ({ context }) => context.edge.writeOffTasks(),
    conclude: ({ context }) => context.edge.conclude(context.failure),
  },
}).createMachine({
  id: 'execution',
  context: ({ input }) => ({ edge: input.edge, failFast: input.failFast, live: 0, failure: null }),
  initial: 'pending',
  states: {
    /** Queued: no node has started. */
    pending: {
      on: {
        'execution.start': { target: 'running', actions: ['countStarted', 'startNodes'] },
        'execution.stop': { target: 'failed', actions: 'noteStop' },
        'execution.abort': { target: 'failed', actions: 'noteVerdict' },
      },
    },
    running: {
      always: { guard: 'allSettled', target: 'concluding' },
      on: {
        'node.settled': [
          { guard: 'failsFast', target: 'failing', actions: ['countSettled', 'failFast'] },
          { actions: ['settleAndStart', 'startNodes'] },
        ],
        'nodes.ready': { actions: ['countStarted', 'startNodes'] },
        'execution.stop': { target: 'stopping', actions: ['noteStop', 'endNodes'] },
        'execution.abort': { target: 'aborting', actions: ['noteVerdict', 'endNodes'] },
      },
    },
    /** failFast: what runs ends by itself, nothing starts. */
    failing: {
      always: { guard: 'allSettled', target: 'concluding' },
      on: {
        'node.settled': { actions: 'countSettled' },
        'execution.stop': { target: 'stopping', actions: ['noteStop', 'endNodes'] },
        'execution.abort': { target: 'aborting', actions: ['noteVerdict', 'endNodes'] },
      },
    },
    /** Nothing runs and nothing can become ready. */
    concluding: {
      entry: 'conclude',
      on: {
        'execution.concluded': [
          { guard: 'concludedWell', target: 'complete' },
          { target: 'failed', actions: 'noteConclusion' },
        ],
        'execution.stop': { target: 'failed', actions: 'noteStop' },
        'execution.abort': [{ guard: 'failedBefore' }, { target: 'concluding', reenter: true, actions: 'noteVerdict' }],
      },
    },
    /** Stop: the gate is closed, every node was told. */
    stopping: {
      always: { guard: 'allSettled', target: 'failed' },
      on: {
        'node.settled': { actions: 'countSettled' },
        'stop.graceElapsed': { actions: 'writeOffTasks' },
      },
    },
    /** As stopping, for another reason; a stop that comes now still is one. */
    aborting: {
      always: { guard: 'allSettled', target: 'concluding' },
      on: {
        'node.settled': { actions: 'countSettled' },
        'stop.graceElapsed': { actions: 'writeOffTasks' },
        'execution.stop': { target: 'stopping', actions: ['noteStop', 'endNodes'] },
      },
    },
    complete: { type: 'final' },
    failed: { type: 'final' },
  },
});

/** The record's word for a state of the machine. */
export function executionStatusOf(value: unknown): 'Pending' | 'Running' | 'Complete' | 'Failed' {
  switch (value) {
    case 'pending':
      return 'Pending';
    case 'complete':
      return 'Complete';
    case 'failed':
      return 'Failed';
    default:
      return 'Running';
  }
}
