import { z } from 'zod';
import type { Json } from '../wire.ts';
import { workflowSchema } from './schema.ts';

/** The workflow file's shape as JSON Schema (draft 2020-12), for editors. Rules between keys are beyond it. */
export function workflowJsonSchema(): Record<string, Json> {
  const schema = z.toJSONSchema(workflowSchema, { target: 'draft-2020-12', io: 'input' });
  return { ...(schema as Record<string, Json>) };
}
