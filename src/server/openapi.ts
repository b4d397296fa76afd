/**
 * The OpenAPI 3.1 document and its page, made from the verb table by a server that never listens: neither
 * costs anything until somebody looks.
 */
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import { type FastifyInstance, fastify } from 'fastify';
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { type ErrorCode, errorCodes } from '../errors.ts';
import { byRoute } from './http.ts';
import { type ShapeName, shapes } from './shapes.ts';
import { verbs } from './verbs/table.ts';
import type { Verb } from './verbs/verb.ts';

const EVERY_VERB: ErrorCode[] = ['FS_INVALID', 'FS_UNAUTHENTICATED', 'FS_FORBIDDEN', 'FS_UNAVAILABLE'];

let page: Promise<FastifyInstance> | null = null;

/** A fastify instance with the page at `/docs`: give it requests by its `routing`. */
export function docsPage(): Promise<FastifyInstance> {
  page ??= createPage();
  return page;
}

export async function openapiDocument(): Promise<object> {
  return (await docsPage()).swagger();
}

async function createPage(): Promise<FastifyInstance> {
  const app: FastifyInstance = fastify({ logger: false, exposeHeadRoutes: false });
  const schemaRegistry = z.registry<{ id: string }>();
  for (const [name, shape] of Object.entries(shapes)) schemaRegistry.add(shape, { id: name });
  const toComponents = createJsonSchemaTransformObject({ schemaRegistry });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Fullstop',
        version: '1',
        description:
          'An actor-model workflow runtime in which stop means stop. Every operation is also a Socket.IO verb: `emit(verb, payload, ack)` on namespace `/`, its payload the parameters, the query and the body in one object.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      security: [{ key: [] }],
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
    },
    transform: createJsonSchemaTransform({ schemaRegistry }),
    transformObject: (document) => withDefinitionBodies(answersOnly(toComponents(document))),
  });
  await app.register(swaggerUi, { routePrefix: '/docs' });
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => JSON.stringify);
  app.after(() => {
    for (const group of byRoute(verbs)) addOperation(app, group);
  });
  await app.ready();
  return app;
}

/** The shapes are of answers: their twins for requests go. */
function answersOnly<D extends object>(document: D): D {
  const { components } = document as { components?: { schemas?: Record<string, object> } };
  for (const name of Object.keys(shapes)) delete components?.schemas?.[`${name}Input`];
  delete components?.schemas?.Nothing;
  return document;
}

/** A workflow file comes as JSON or as YAML, which no zod schema says. */
function withDefinitionBodies<D extends object>(document: D): D {
  const { paths } = document as { paths?: Record<string, Record<string, object>> };
  for (const { http } of verbs.filter((verb) => verb.http.definition)) {
    Object.assign(paths?.[http.path]?.[http.method.toLowerCase()] ?? {}, {
      requestBody: {
        required: true,
        content: {
          'application/json': { schema: { type: 'object', description: 'a workflow: /api/workflow.schema.json' } },
          'application/yaml': { schema: { type: 'string', description: 'the same as YAML' } },
        },
      },
    });
  }
  return document;
}

/** Verbs of one route make one operation: what picks between them is a query parameter. */
function addOperation(app: FastifyInstance, group: Verb[]): void {
  const main = group.at(-1);
  if (main === undefined) return;
  const query = Object.assign({}, ...group.map((verb) => ({ ...verb.query, ...picker(verb) })));
  const { method, path, definition } = main.http;
  app.route({
    method,
    url: path,
    schema: {
      operationId: main.name,
      summary: group
        .map((verb) => verb.summary + (verb.http.when === undefined ? '' : ` (\`?${verb.http.when}=true\`)`))
        .reverse()
        .join('. '),
      description: group
        .map((verb) => `Socket.IO: \`${verb.name}\`.`)
        .reverse()
        .join(' '),
      tags: [main.name.split('.')[0] ?? main.name],
      ...(main.level === 'open' ? { security: [] } : {}),
      ...(Object.keys(main.params).length === 0 ? {} : { params: main.schemas.params }),
      ...(Object.keys(query).length === 0 ? {} : { querystring: z.strictObject(query) }),
      ...(method === 'GET' || definition || Object.keys(main.body).length === 0 ? {} : { body: main.schemas.body }),
      response: responses(group),
    },
    handler: async () => null,
  });
}

function picker(verb: Verb): z.ZodRawShape {
  return verb.http.when === undefined ? {} : { [verb.http.when]: z.boolean().optional() };
}

function responses(group: Verb[]): Record<number, unknown> {
  const found: Record<number, unknown> = {};
  const successes = new Map<number, ShapeName[]>();
  const failures = new Map<number, ErrorCode[]>();
  for (const verb of group) {
    for (const [status, name] of Object.entries(verb.answers)) {
      successes.set(Number(status), [...(successes.get(Number(status)) ?? []), name]);
    }
  }
  for (const [status, names] of successes) {
    const [first, second] = names.map((name) => shapes[name]);
    const schema = second === undefined ? first : z.union([first as z.ZodType, second]);
    const body = { description: names.join(' or '), content: { 'application/json': { schema } } };
    // An unnamed null is what the document's maker takes for an answer without a body.
    found[status] = status === 204 ? z.null().describe('Nothing') : body;
  }
  for (const code of new Set([...EVERY_VERB, ...group.flatMap(errorsOf)])) {
    const { status } = errorCodes[code];
    if (!successes.has(status)) failures.set(status, [...(failures.get(status) ?? []), code]);
  }
  for (const [status, codes] of failures) {
    found[status] = { description: codes.join(', '), content: { 'application/json': { schema: shapes.Error } } };
  }
  return found;
}

function errorsOf(verb: Verb): ErrorCode[] {
  return [
    ...(verb.errors ?? []),
    ...(Object.keys(verb.params).length === 0 ? [] : (['FS_NOT_FOUND'] as const)),
    ...(verb.http.method === 'POST' ? (['FS_TOO_LARGE'] as const) : []),
  ];
}
