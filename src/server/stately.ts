/** The messages of `@statelyai/inspect` 0.7, to a viewer and from one. */
import { z } from 'zod';
import { executionActorId, type Inspected } from '../engine/inspection.ts';
import { INSPECT_PATH } from './inspection-tokens.ts';
import { areExecution, parseAs, STOP_EVENT, type ViewerProtocol } from './viewer-protocol.ts';

/** Of the protocol. */
const VERSION = '0.7.2';

/** An actor's `sessionId` is its id: the same after a restart, and for an actor that is shown from the record. */
export const stately: ViewerProtocol = {
  path: INSPECT_PATH,
  framesOf: (executionId, inspected) => [frameOf(executionId, inspected)],
  heard(executionId, text) {
    const said = parseAs(stopMessage, text);
    return said !== null && areExecution(executionId, [said.sessionId]) ? 'stop' : null;
  },
};

function frameOf(executionId: string, inspected: Inspected): string {
  const common = {
    sessionId: inspected.actorId,
    rootId: executionActorId(executionId),
    createdAt: String(inspected.atMs),
    id: null,
    _version: VERSION,
  };
  switch (inspected.kind) {
    case 'actor':
      return JSON.stringify({
        type: '@xstate.actor',
        name: inspected.actorId,
        parentId: inspected.parentId ?? undefined,
        definition: inspected.definition,
        snapshot: inspected.state,
        ...common,
      });
    case 'event':
      return JSON.stringify({
        type: '@xstate.event',
        sourceId: inspected.sourceId ?? undefined,
        event: { type: inspected.eventType },
        ...common,
      });
    case 'snapshot':
      return JSON.stringify({
        type: '@xstate.snapshot',
        event: { type: inspected.eventType },
        snapshot: inspected.state,
        ...common,
      });
  }
}

const short = z.string().max(200).nullish();
const stopMessage = z.strictObject({
  type: z.literal('@xstate.event'),
  sessionId: z.string().max(200),
  event: z.strictObject({ type: z.literal(STOP_EVENT) }),
  sourceId: short,
  rootId: short,
  createdAt: short,
  id: short,
  _version: short,
});
