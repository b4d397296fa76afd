/** Pieces of the workflow file's schema that several places share. */
import { z } from 'zod';
import { durationHint, durationPattern, parseDuration } from './duration.ts';
import { instantHint, parseInstant } from './instant.ts';
import { nameFault } from './names.ts';

/** `schema`, or a string that holds a template, which gives such a value. */
export function orTemplate(schema: z.ZodType, expected: string): z.ZodType {
  const error = `expected ${expected}`;
  return z.union([schema, z.string().regex(/\$\{\{/, error)], { error });
}

export const duration = z
  .union([z.string().meta({ pattern: durationPattern.source }), z.number()], { error: `expected ${durationHint}` })
  .refine((value) => parseDuration(value) !== null, `expected ${durationHint}, at most 100 years`)
  .meta({ title: 'Duration', description: '250ms, 30s, 5m, 2h, 1d, or a number of milliseconds' });

/** A duration where 0 would make no sense. */
export const positiveDuration = duration.refine((value) => parseDuration(value) !== 0, 'expected more than 0');

export const durationOrTemplate = orTemplate(duration, durationHint);
export const instantOrTemplate = orTemplate(
  z.string().refine((value) => parseInstant(value) !== null, `expected ${instantHint}`),
  instantHint,
);

export const cel = z.string().min(1).meta({ title: 'CEL expression' });

export const name = z.string().superRefine((value, context) => {
  const message = nameFault(value);
  if (message !== null) context.addIssue({ code: 'custom', message, input: value });
});

/** Anything JSON, but there. */
export const anyJson = z.unknown().refine((value) => value !== undefined, 'is required');

/** A workflow of the same project: its last version, or the one with a hash. */
export const workflowReference = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{64})?$/, 'expected a workflow name, or name@hash');
