import { z } from 'zod';
import { orTemplate } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

const message = z.strictObject({
  role: z.string().regex(/^(system|user|assistant)$|\$\{\{/, 'expected system, user or assistant'),
  content: z.string(),
});

/** Asks a language model. */
export const aiNode: NodeType = {
  ...plainNodeType,
  type: 'ai',
  description: 'Asks a language model; its output is `{text or object, finishReason, usage}`.',
  where: 'worker',
  with: z.strictObject({
    model: z.string().min(1).describe('A name of FULLSTOP_MODELS'),
    system: z.string().optional().describe('What the model is told beforehand'),
    prompt: z.string().optional().describe('The question; not beside messages'),
    messages: orTemplate(z.array(message).min(1), 'a list of {role, content}').optional(),
    schema: orTemplate(z.record(z.string(), z.unknown()), 'a JSON Schema')
      .optional()
      .describe('The answer is JSON that fits it, and the output has `object` instead of `text`'),
    temperature: orTemplate(z.number().min(0), 'a number of at least 0').optional(),
    maxOutputTokens: orTemplate(z.int().min(1), 'a number of tokens').optional(),
  }),
  secrets: true,
  check(node) {
    const given = Object(node['with']) as Record<string, unknown>;
    if (given['prompt'] !== undefined && given['messages'] !== undefined)
      return 'expected with.prompt or with.messages, found both';
    return given['prompt'] === undefined && given['messages'] === undefined
      ? 'expected with.prompt or with.messages, found neither'
      : null;
  },
  run: { kind: 'task' },
};
