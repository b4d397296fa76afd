/** The receiver of `@xstate/inspect` 0.8 and the XState 4 that it needs, for tests of what older viewers are told. */
export { createWebSocketReceiver } from '@xstate/inspect';
export { type AnyState, type AnyStateMachine, createMachine, State } from 'xstate';
