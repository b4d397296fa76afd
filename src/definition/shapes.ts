/** Pieces of the workflow file's schema that several places share. */
import { z } from 'zod';
import { durationHint, durationPattern, parseDuration } from './duration.ts';
import { instantHint, parseInstant } from './instant.ts';
import { nameFault } from './names.ts';

/** A string that holds a template, which may stand where `with` expects a typed value. */
const template = z.string().regex(/\$\{\{/).meta({ description: 'A template: ${{ CEL }}' });

/** `schema`, or a template that gives such a value. */
export function orTemplate(schema: z.ZodType, expected: string): z.ZodType {
  return z.union([schema, template], { error: `expected ${expected}` });
}

export const duration = z
  .union([z.string().regex(durationPattern), z.number().min(0)], { error: `expected ${durationHint}` })
  .refine((value) => parseDuration(value) !== null, `expected ${durationHint}, at most 100 years`)
  .meta({ title: 'Duration', description: '250ms, 30s, 5m, 2h, 1d, or a number of milliseconds' });

/** A duration where 0 would make no sense. */
export const positiveDuration = duration.refine((value) => parseDuration(value) !== 0, 'expected more than 0');

export const durationOrTemplate = orTemplate(duration, durationHint);
export const instantOrTemplate = orTemplate(
  z.string().refine((value) => parseInstant(value) !== null),
  instantHint,
);

export const cel = z.string().min(1).meta({ title: 'CEL expression' });

export const name = z.string().superRefine((value, context) => {
  const message = nameFault(value);
  if (message !== null) context.addIssue({ code: 'custom', message, input: value });
});

/** Anything JSON, but there. */
export const anyJson = z.unknown().refine((value) => value !== undefined, 'is required');
