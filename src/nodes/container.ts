import { z } from 'zod';
import { orTemplate } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

const scalar = z.union([z.string(), z.number(), z.boolean()], { error: 'expected text, a number or a boolean' });
const words = orTemplate(z.array(scalar), 'a list of words');
const memoryHint = 'an amount of memory such as 512m or 2g, or a number of bytes';
const networkHint = 'none, bridge, or the name of a network; not host';

/** Runs a program in a container of its own. */
export const containerNode: NodeType = {
  ...plainNodeType,
  type: 'container',
  description: 'Runs a container; its output is `{exitCode, stdout, stderrTail}`.',
  where: 'worker',
  with: z.strictObject({
    image: z.string().min(1).describe('Must be allowed by FULLSTOP_IMAGES'),
    command: z
      .union([words, z.string().regex(/^\S+$/, 'expected one program, or a list such as [sh, -c, "echo hello"]')], {
        error: 'expected one program, or a list such as [sh, -c, "echo hello"]',
      })
      .optional()
      .describe("Instead of the image's entrypoint"),
    args: words.optional().describe("Instead of the image's command"),
    env: orTemplate(z.record(z.string().regex(/^[^=\0]+$/), scalar), 'environment values by name').optional(),
    input: z.unknown().optional().describe('JSON, in a read-only file at $FULLSTOP_INPUT'),
    network: orTemplate(
      z.string().regex(/^(?!(?:host|default)$)[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/),
      networkHint,
    ).optional(),
    memory: orTemplate(
      z.union([z.int().min(6 * 2 ** 20), z.string().regex(/^\d{1,15}(\.\d{1,3})?\s*([bkmgtBKMGT](i?[bB])?)?$/)]),
      memoryHint,
    ).optional(),
    cpus: orTemplate(z.number().min(0.01).max(1024), 'a number of processors, such as 0.5 or 2').optional(),
    user: orTemplate(
      z.union([z.int().min(0), z.string().regex(/^[\w.-]+(:[\w.-]+)?$/)]),
      'a user, or user:group',
    ).optional(),
    output: orTemplate(z.enum(['auto', 'json', 'text']), 'auto, json or text').optional(),
  }),
  secrets: true,
  run: { kind: 'task' },
};
