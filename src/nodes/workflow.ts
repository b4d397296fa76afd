import { z } from 'zod';
import { orTemplate } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Runs another workflow as a child execution. */
export const workflowNode: NodeType = {
  ...plainNodeType,
  type: 'workflow',
  description: 'Runs another workflow of the project; its output is the outputs of that.',
  with: z.strictObject({
    workflow: orTemplate(z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{64})?$/), 'a workflow name, or name@hash'),
    input: orTemplate(z.record(z.string(), z.unknown()), 'the inputs by name').optional(),
  }),
  run: { kind: 'child' },
};
