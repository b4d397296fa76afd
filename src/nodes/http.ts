import { z } from 'zod';
import { orTemplate } from '../definition/shapes.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

const methods = 'GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS';
const method = z.string().regex(/^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$/i, `expected ${methods}`);
const scalar = z.union([z.string(), z.number(), z.boolean()], { error: 'expected text, a number or a boolean' });
const statusHint = 'a status such as 200, or a range such as "200-299"';
const status = orTemplate(
  z.union([z.int().min(100).max(599), z.string().regex(/^[1-5]\d\d(-[1-5]\d\d)?$/, `expected ${statusHint}`)]),
  statusHint,
);

/** Calls an HTTP interface: the integration call. */
export const httpNode: NodeType = {
  ...plainNodeType,
  type: 'http',
  description: 'Sends one HTTP request; its output is `{status, headers, body}`.',
  where: 'worker',
  with: z.strictObject({
    url: z.string().min(1),
    method: orTemplate(method, methods).optional(),
    headers: orTemplate(z.record(z.string(), scalar), 'header values by name').optional(),
    query: orTemplate(
      z.record(z.string(), z.union([z.null(), scalar, z.array(scalar)])),
      'query values by name',
    ).optional(),
    json: z.unknown().optional().describe('Sent as JSON'),
    body: scalar.optional().describe('Sent as it is; not beside json'),
    expect: z
      .union([z.array(status).min(1), status], { error: 'expected a status, a range, or a list of them' })
      .optional(),
    maxBytes: orTemplate(
      z
        .int()
        .min(1)
        .max(64 * 2 ** 20),
      'a number of bytes, at most 64 MiB',
    ).optional(),
    redirects: orTemplate(z.int().min(0).max(20), 'a number of redirects, at most 20').optional(),
  }),
  secrets: true,
  check(node) {
    const given = Object(node['with']) as Record<string, unknown>;
    return given['json'] !== undefined && given['body'] !== undefined
      ? 'expected with.json or with.body, found both'
      : null;
  },
  run: { kind: 'task' },
};
