import { z } from 'zod';
import { orTemplate } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

const scalar = z.union([z.string(), z.number(), z.boolean()], { error: 'expected text, a number or a boolean' });

/** Asks an External Agent, which no stop can cancel, to run a tool on its side. */
export const agentNode: NodeType = {
  ...plainNodeType,
  type: 'agent',
  description: 'Has an External Agent of a pool run a tool; its output is `{exitCode, stdout, stderrTail}`.',
  where: 'agent',
  with: z.strictObject({
    pool: z.string().min(1).max(200).describe('Which agents may pick it up'),
    tool: z.string().min(1).describe('One that the agent allows'),
    args: orTemplate(z.array(scalar), 'a list of arguments').optional(),
    env: orTemplate(z.record(z.string(), scalar), 'environment variables by name').optional(),
    input: z.unknown().optional().describe('JSON for the tool'),
  }),
  run: { kind: 'task' },
};
