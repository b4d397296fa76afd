/** The workflow file's shape, built from the node types. What one key alone cannot tell is in check.ts. */
import { z } from 'zod';
import type { NodeType } from '../nodes/node-type.ts';
import { nodeTypes } from '../nodes/registry.ts';
import { namePattern, type PathKey } from './names.ts';
import { anyJson, cel, duration, positiveDuration, workflowReference } from './shapes.ts';

const byName = { propertyNames: { pattern: namePattern.source } };

const retry = z
  .strictObject({
    attempts: z.int().min(1).optional().describe('All tries; default 1'),
    backoff: duration.optional().describe('Before the second try; default 1s'),
    factor: z.number().min(1).max(100).optional().describe('What the pause grows by each time; default 2'),
    maxBackoff: duration.optional().describe('Longest pause; default 5m'),
  })
  .meta({ title: 'Retry' });

/** Keys of every node. */
const common = {
  needs: z.array(z.string()).optional().describe('Nodes that must end before this one starts'),
  if: cel.optional().describe('CEL; false: the node is Skipped'),
  timeout: positiveDuration.optional().describe('Of one attempt'),
  queueTimeout: positiveDuration.optional().describe('How long a task may wait for a worker'),
  retry: retry.optional(),
  rerun: z.boolean().optional().describe('false: an attempt lost to a crash fails the node; default true'),
  continueOnError: z.boolean().optional().describe('Its failure does not fail the execution; default false'),
};

/** The nodes of a workflow or of a body. Lazy: bodies hold nodes. */
const nodes: z.ZodType = z
  .lazy(() => z.record(z.string(), node).refine((nodes) => Object.keys(nodes).length > 0, 'expected at least one node'))
  .meta({ id: 'nodes', title: 'Nodes by name', minProperties: 1, ...byName });

const node = z.discriminatedUnion(
  'type',
  [...nodeTypes.values()].map(nodeSchema) as unknown as [z.ZodObject, ...z.ZodObject[]],
);

function nodeSchema(type: NodeType): z.ZodObject {
  return z
    .strictObject({
      type: z.literal(type.type),
      ...common,
      ...(type.with === null ? {} : { with: type.with }),
      ...type.keys,
      ...(hasBody(type) ? { body: nodes } : {}),
    })
    .meta({ title: `${type.type} node`, description: type.description });
}

/** Whether a node of this type holds other nodes. */
export function hasBody(type: NodeType): boolean {
  return type.run.kind === 'loop' || type.run.kind === 'items';
}

const inputSpec = z
  .strictObject({
    type: z.enum(['string', 'number', 'boolean', 'array', 'object']),
    required: z.boolean().optional(),
    default: z.unknown().optional(),
    enum: z.array(anyJson).min(1).optional(),
    description: z.string().optional(),
  })
  .meta({ title: 'Input' });

const scheduleSpec = z.strictObject({
  cron: z.string(),
  timezone: z.string().optional().describe('Such as Europe/Berlin; default UTC'),
  input: z.record(z.string(), z.unknown()).optional(),
});

const workflowName = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'expected 1 to 63 of a-z, 0-9 and -, not - first');

export const workflowSchema = z
  .strictObject({
    name: workflowName,
    description: z.string().optional(),
    inputs: z.record(z.string(), inputSpec).meta(byName).optional(),
    on: z
      .strictObject({
        schedule: z
          .union([z.string(), z.array(scheduleSpec)], {
            error: 'expected a cron pattern, or a list of {cron, timezone, input}',
          })
          .optional(),
        overlap: z.enum(['skip', 'allow']).optional().describe('When the last one still runs; default skip'),
      })
      .optional(),
    timeout: positiveDuration.optional().describe('Of the whole execution'),
    concurrency: z
      .strictObject({ max: z.int().min(1), onFull: z.enum(['queue', 'refuse']).optional() })
      .optional()
      .describe('Executions of this workflow that run at once'),
    failFast: z.boolean().optional().describe('true: after a failure no further node starts; default false'),
    onFailure: z
      .strictObject({
        workflow: workflowReference,
        input: z.record(z.string(), z.unknown()).optional(),
      })
      .optional()
      .describe('A workflow that starts after a failure'),
    nodes,
    outputs: z.record(z.string(), z.string()).meta(byName).optional().describe('Templates by name'),
  })
  .meta({ title: 'Fullstop workflow', description: 'A graph of nodes, what each needs, and how each runs.' });

export interface SchemaFault {
  path: PathKey[];
  message: string;
}

/** Every way in which the shape is wrong. */
export function schemaFaults(value: unknown): SchemaFault[] {
  const parsed = workflowSchema.safeParse(value);
  return parsed.success ? [] : parsed.error.issues.flatMap(toFaults);
}

function toFaults(issue: z.core.$ZodIssue): SchemaFault[] {
  const path = issue.path as PathKey[];
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ path: [...path, key], message: `unknown key "${key}"` }));
  }
  if (issue.code === 'invalid_union' && issue.errors.length === 0) {
    return [{ path, message: `unknown node type: expected one of ${[...nodeTypes.keys()].join(', ')}` }];
  }
  if (issue.code === 'invalid_union' && issue.message.startsWith('expected')) {
    const deeper = deepestBranch(issue);
    if (deeper !== null) return deeper.flatMap((inner) => toFaults({ ...inner, path: [...path, ...inner.path] }));
  }
  return [
    {
      path,
      message: issue.message.replace(/^Invalid input: /, '').replace(/, received undefined$/, ', but it is missing'),
    },
  ];
}

/** Of a union's branches, the one that fits in kind and fails only within; null when none does. */
function deepestBranch(issue: z.core.$ZodIssueInvalidUnion): z.core.$ZodIssue[] | null {
  return (
    issue.errors.find((branch) => branch.every(({ path, code }) => path.length > 0 || code === 'unrecognized_keys')) ??
    null
  );
}
