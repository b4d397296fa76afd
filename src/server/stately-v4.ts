/** The messages of `@xstate/inspect` 0.8, to a viewer and from one: actors and machines as XState 4 knows them. */
import { z } from 'zod';
import type { Inspected, InspectedState } from '../engine/inspection.ts';
import type { Json } from '../wire.ts';
import { INSPECT_PATH } from './inspection-tokens.ts';
import { areExecution, parseAs, STOP_EVENT, type ViewerProtocol } from './viewer-protocol.ts';

const INIT_EVENT = 'xstate.init';

/** An actor's `sessionId` is its id, as with the other protocol. */
export const statelyV4: ViewerProtocol = {
  path: `${INSPECT_PATH}v4/`,
  framesOf: (_executionId, inspected) => messagesOf(inspected).map((message) => JSON.stringify(message)),
  heard(executionId, text) {
    const said = parseAs(viewerMessage, text);
    if (said === null) return null;
    if (said.type === 'xstate.inspecting') return 'greeting';
    const event = parseAs(stopEvent, said.event);
    if (event === null) return null;
    const origin = 'origin' in event ? event.origin : undefined;
    return areExecution(executionId, [said.service, said.sessionId, origin]) ? 'stop' : null;
  },
};

function messagesOf(inspected: Inspected): object[] {
  const { actorId: sessionId } = inspected;
  switch (inspected.kind) {
    case 'actor': {
      const { definition, parentId, state } = inspected;
      const machine = machineOf(definition);
      return [
        {
          type: 'service.register',
          machine: machine.text,
          // An actor that has only been made has none yet, and a viewer cannot do without.
          state: stateOf(sessionId, { ...state, value: state.value ?? machine.initial }, INIT_EVENT),
          id: sessionId,
          sessionId,
          parent: parentId ?? undefined,
        },
        ...stopOf(sessionId, state),
      ];
    }
    case 'event': {
      const event = eventOf(inspected.eventType, inspected.sourceId);
      return [{ type: 'service.event', event: JSON.stringify(event), sessionId }];
    }
    case 'snapshot': {
      const { eventType, state } = inspected;
      return [
        { type: 'service.state', state: stateOf(sessionId, state, eventType), sessionId },
        ...stopOf(sessionId, state),
      ];
    }
  }
}

function stopOf(sessionId: string, { status }: InspectedState): object[] {
  return status === 'active' ? [] : [{ type: 'service.stop', sessionId }];
}

/** An event as XState 4 keeps it. */
function eventOf(type: string, sourceId: string | null = null): object {
  return { name: type, data: { type }, $$type: 'scxml', type: 'external', origin: sourceId ?? undefined };
}

function stateOf(sessionId: string, { status, value }: InspectedState, eventType: string): string {
  return JSON.stringify({
    value,
    context: {},
    event: { type: eventType },
    _event: eventOf(eventType),
    _sessionid: sessionId,
    actions: [],
    children: {},
    done: status === 'done',
  });
}

// Machines

interface MachineV4 {
  /** Its config as JSON. */
  text: string;
  /** The state it starts in. */
  initial: Json;
}

/** By their definitions: there are as many as there are charts. */
const machines = new Map<string, MachineV4>();

function machineOf(definition: string): MachineV4 {
  let machine = machines.get(definition);
  if (machine === undefined) {
    const config = JSON.parse(definition) as StateConfig;
    // Without the word XState 4 warns of its older order of actions, which nothing here runs.
    const text = JSON.stringify({ ...stateConfigV4(config), predictableActionArguments: true });
    machine = { text, initial: initialOf(config) ?? {} };
    machines.set(definition, machine);
  }
  return machine;
}

interface StateConfig {
  initial?: string;
  type?: string;
  states?: Record<string, StateConfig>;
  on?: Record<string, Transitions>;
  after?: Record<string, Transitions>;
  always?: Transitions;
  onDone?: Transitions;
  invoke?: Invocation | Invocation[];
}
type Transition = string | { guard?: Json; reenter?: boolean };
type Transitions = Transition | Transition[];
interface Invocation {
  onDone?: Transitions;
  onError?: Transitions;
}

/** The same state for XState 4: only transitions are spelt otherwise. */
export function stateConfigV4(config: StateConfig): object {
  const { states, on, after, always, onDone, invoke, ...rest } = config;
  return {
    ...rest,
    ...(states && { states: mapped(states, stateConfigV4) }),
    ...(on && { on: mapped(on, transitionsV4) }),
    ...(after && { after: mapped(after, transitionsV4) }),
    ...(always && { always: transitionsV4(always) }),
    ...(onDone && { onDone: transitionsV4(onDone) }),
    ...(invoke && { invoke: [invoke].flat().map(invocationV4) }),
  };
}

function invocationV4({ onDone, onError, ...rest }: Invocation): object {
  return {
    ...rest,
    ...(onDone && { onDone: transitionsV4(onDone) }),
    ...(onError && { onError: transitionsV4(onError) }),
  };
}

function transitionsV4(transitions: Transitions): unknown {
  if (Array.isArray(transitions)) return transitions.map(transitionsV4);
  if (typeof transitions === 'string') return { target: transitions, internal: true };
  const { guard, reenter = false, ...rest } = transitions;
  return { ...rest, ...(guard !== undefined && { cond: guard }), internal: !reenter };
}

/** The value of a state's initial child; null where it has none. */
function initialOf({ initial, type, states = {} }: StateConfig): Json {
  if (type === 'parallel') return mapped(states, (state) => initialOf(state) ?? {});
  const child = initial === undefined ? undefined : states[initial];
  if (initial === undefined || child === undefined) return null;
  const inner = initialOf(child);
  return inner === null ? initial : { [initial]: inner };
}

function mapped<T, U>(record: Record<string, T>, convert: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, convert(value)]));
}

// From a viewer

const short = z.string().max(200).nullish();
const bareStop = z.strictObject({ type: z.literal(STOP_EVENT) });
/** As the package's documentation sends it, and as Stately's viewer does. */
const stopEvent = z.union([
  bareStop,
  z.strictObject({
    name: z.literal(STOP_EVENT),
    data: bareStop,
    $$type: z.literal('scxml'),
    type: z.literal('external'),
    origin: short,
  }),
]);
const viewerMessage = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('xstate.inspecting') }),
  z.strictObject({ type: z.literal('xstate.event'), event: z.string(), service: short, sessionId: short }),
]);
