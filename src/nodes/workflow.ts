import { z } from 'zod';
import { orTemplate, workflowReference } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Runs another workflow as a child execution. */
export const workflowNode: NodeType = {
  ...plainNodeType,
  type: 'workflow',
  description: 'Runs another workflow of the project; its output is the outputs of that.',
  with: z.strictObject({
    workflow: orTemplate(workflowReference, 'a workflow name, or name@hash'),
    input: orTemplate(z.record(z.string(), z.unknown()), 'the inputs by name').optional(),
  }),
  run: { kind: 'child' },
};
