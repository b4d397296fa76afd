/**
 * Supervisor of one engine instance: recover, serve, drain; admit executions; bound restarts of their actors.
 *
 * Owner: src/engine/engine.ts. Executions hang below its registry (src/engine/registry.ts), because a
 * machine that holds thousands of children copies them all at each change.
 */
import { assign, setup } from 'xstate';
import type { EngineEvent } from './events.ts';

export interface EngineInput {
  /** Restarts of one execution's actor within `windowMs` before the engine gives it up. */
  restartsMax: number;
  windowMs: number;
  paused: boolean;
}

export interface EngineContext extends EngineInput {
  /** Times of the crashes within the window, by execution. */
  crashes: Record<string, number[]>;
  /** The last execution that crashed more often than the budget allows. */
  givenUp: string | null;
}

export const engineMachine = setup({
  types: {} as { input: EngineInput; context: EngineContext; events: EngineEvent },
  actions: {
    pause: assign({ paused: true }),
    resume: assign({ paused: false }),
    countCrash: assign(({ context, event }) => {
      if (event.type !== 'execution.crashed') return {};
      const recent = (context.crashes[event.executionId] ?? []).filter((at) => at > event.atMs - context.windowMs);
      const crashes = { ...context.crashes, [event.executionId]: [...recent, event.atMs] };
      return { crashes, givenUp: recent.length + 1 > context.restartsMax ? event.executionId : null };
    }),
  },
}).createMachine({
  id: 'engine',
  context: ({ input }) => ({ ...input, crashes: {}, givenUp: null }),
  initial: 'starting',
  on: {
    'engine.pause': { actions: 'pause' },
    'engine.resume': { actions: 'resume' },
    'execution.crashed': { actions: 'countCrash' },
  },
  states: {
    /** Claims and restores live executions; admits nothing. */
    starting: { on: { 'engine.recovered': 'serving', 'engine.drain': 'draining' } },
    serving: { on: { 'engine.drain': 'draining' } },
    /** Admits nothing, starts no attempt; those that run may end. */
    draining: { on: { 'engine.drained': 'stopped' } },
    stopped: { type: 'final' },
  },
});
