import { z } from 'zod';
import { cel, duration } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Runs its body again and again in the same execution. */
export const whileNode: NodeType = {
  ...plainNodeType,
  type: 'while',
  description: 'Runs its body while `condition` holds; its output is `{iterations, exhausted, last}`.',
  keys: {
    condition: cel.describe('CEL, tested before each iteration; sees `iter.index` and `iter.last`'),
    maxIterations: z.int().min(1).max(1_000_000).describe('After so many iterations it is exhausted'),
    delay: duration.default(0).describe('Between iterations'),
    onExhausted: z.enum(['complete', 'fail']).default('complete'),
  },
  celKeys: ['condition'],
  durationKeys: ['delay'],
  bodyRoots: ['iter'],
  keysSeeBodyRoots: true,
  run: { kind: 'loop' },
};
