import { z } from 'zod';
import { FullstopError } from '../errors.ts';

/** What an `ai` node asks for, checked and complete. */
export interface AiRequest {
  model: string;
  system: string | null;
  messages: { role: 'system' | 'user' | 'assistant'; content: string }[];
  /** null: the answer is text. */
  schema: Record<string, unknown> | null;
  temperature: number | null;
  maxOutputTokens: number | null;
}

/** Text; of a template whole that gave something else, its JSON. */
const text = z.unknown().transform((value) => (typeof value === 'string' ? value : JSON.stringify(value)));

/** `with` of an `ai` node after its templates: they may have put a value of any type in any place. */
const schema = z.strictObject({
  model: z.string(),
  system: text.optional(),
  prompt: text.optional(),
  messages: z
    .array(z.strictObject({ role: z.enum(['system', 'user', 'assistant']), content: text }))
    .min(1)
    .optional(),
  schema: z.record(z.string(), z.unknown()).optional(),
  temperature: z.number().min(0).optional(),
  maxOutputTokens: z.int().min(1).optional(),
});

/** @throws FS_INVALID */
export function parseAiRequest(with_: unknown): AiRequest {
  const parsed = schema.safeParse(with_);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalid(`with${(issue?.path ?? []).map((key) => `.${String(key)}`).join('')}`, issue?.message ?? 'not valid');
  }
  const { model, system, prompt, messages, schema: shape, temperature, maxOutputTokens } = parsed.data;
  if ((prompt === undefined) === (messages === undefined))
    throw invalid('with', `expected prompt or messages, found ${prompt === undefined ? 'neither' : 'both'}`);
  return {
    model,
    system: system ?? null,
    messages: messages ?? [{ role: 'user', content: prompt as string }],
    schema: shape ?? null,
    temperature: temperature ?? null,
    maxOutputTokens: maxOutputTokens ?? null,
  };
}

function invalid(path: string, message: string): FullstopError {
  return new FullstopError('FS_INVALID', `${path}: ${message}`);
}
