import { z } from 'zod';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Runs its body once per item of a list, each in a child execution. */
export const foreachNode: NodeType = {
  ...plainNodeType,
  type: 'foreach',
  description:
    'Runs its body for each of `items`, several at once; its output is a list of `{NAME: output}` or `{error}`.',
  keys: {
    items: z.string().describe('A template that gives a list of at most 10,000 items'),
    concurrency: z.int().min(1).max(10_000).default(10).describe('How many items run at once'),
    onItemError: z.enum(['fail', 'continue']).default('fail'),
  },
  templateKeys: ['items'],
  bodyRoots: ['item', 'itemIndex'],
  bodyNamesRefused: ['error'],
  run: { kind: 'items' },
};
