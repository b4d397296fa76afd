/** What callers may send, shared by the verbs. */
import { z } from 'zod';

const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
const NODE_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,62}$/;
const HASH = '[0-9a-f]{64}';

/** Bounds of what one request carries besides the 1 MiB of its body. */
const LABELS_MAX = 64;
const LIST_MAX = 1_000;

export const id = z.uuid({ error: 'expected an id: a UUID as a string' });
export const project = z.string().regex(NAME, 'expected the name of a project: a-z, 0-9 and -, at most 63 characters');
export const workflowName = z
  .string()
  .regex(NAME, 'expected the name of a workflow: a-z, 0-9 and -, at most 63 characters');
export const workflowRef = z
  .string()
  .regex(new RegExp(`^[a-z0-9][a-z0-9-]{0,62}(@${HASH})?$`), 'expected NAME or NAME@HASH of a workflow');
export const triggerName = z
  .string()
  .regex(NODE_NAME, 'expected the name of a trigger: letters, digits and _, at most 63');
export const json = z.unknown();
export const jsonObject = z.record(z.string(), z.unknown());
export const labels = z
  .record(z.string().min(1).max(63), z.string().max(255))
  .refine((all) => Object.keys(all).length <= LABELS_MAX, `expected at most ${LABELS_MAX} labels`);
export const status = z.enum(['Pending', 'Running', 'Complete', 'Failed']);
export const instant = z.union([z.iso.datetime({ offset: true }), z.iso.date()], {
  error: 'expected a time as in 2026-01-31T12:00:00Z',
});
export const cursor = z.string().min(1).max(512);
export const limit = z.int().min(1).max(LIST_MAX);
export const text = z.string().min(1).max(200);
export const label = z.string().min(1).max(320);

/** Which executions: shared by lists and bulk stops. */
export const filter = {
  status: status.optional(),
  workflow: workflowName.optional(),
  label: label.optional().describe('KEY=VALUE, or KEY'),
  text: text.optional().describe('a prefix of the id, or words of the workflow name or the error'),
  createdFrom: instant.optional(),
  createdTo: instant.optional(),
};
