/** Every verb of the server (docs/api.md). Subscriptions live on Socket.IO alone: see `sockets.ts`. */
import { executionVerbs } from './executions.ts';
import { keyVerbs } from './keys.ts';
import { operationVerbs } from './operations.ts';
import { stopVerbs } from './stops.ts';
import type { Verb } from './verb.ts';
import { workflowVerbs } from './workflows.ts';

export const verbs: readonly Verb[] = [
  ...workflowVerbs,
  ...executionVerbs,
  ...stopVerbs,
  ...keyVerbs,
  ...operationVerbs,
];
