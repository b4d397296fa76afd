import { z } from 'zod';
import { anyJson } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Gives a value a name. */
export const setNode: NodeType = {
  ...plainNodeType,
  type: 'set',
  description: 'Gives a value; its output is `with.value`.',
  with: z.strictObject({ value: anyJson }),
  run: { kind: 'instant', finish: (rendered) => ({ output: (rendered as { value: unknown }).value }) },
};
