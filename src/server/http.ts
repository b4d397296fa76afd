/** HTTP: one route per path of the verb table, and the few addresses that are no verbs. */
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { errorCodes, FullstopError, messageOf } from '../errors.ts';
import { allows, type Caller } from './access.ts';
import { call, errorBody, parse, unauthenticated } from './call.ts';
import { assertPlainJson, refuseKey } from './json.ts';
import type { Metrics } from './metrics.ts';
import type { Origins } from './origins.ts';
import { addPage, pageFolder } from './page.ts';
import type { Context, Verb } from './verbs/verb.ts';

export const BODY_BYTES_MAX = 1_048_576;
/** NAME@HASH is the longest. */
const PARAM_CHARS_MAX = 200;
const RETRY_AFTER_S = '1';
const YAML_TYPES = ['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml'];

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller | null;
  }
  interface FastifyContextConfig {
    /** The body is a definition, kept as its text. */
    definition?: boolean;
  }
}

export interface HttpOptions {
  context: Context;
  origins: Origins;
  metrics: Metrics;
  verbs: readonly Verb[];
}

export function createHttp({ context, origins, metrics, verbs }: HttpOptions): FastifyInstance {
  const app: FastifyInstance = fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    routerOptions: { maxParamLength: PARAM_CHARS_MAX },
    exposeHeadRoutes: false,
    forceCloseConnections: true,
    frameworkErrors: (error, _request, reply) =>
      sendError(reply as FastifyReply, new FullstopError('FS_INVALID', messageOf(error))),
    clientErrorHandler(_error, socket) {
      const body = JSON.stringify(
        errorBody(new FullstopError('FS_INVALID', 'expected an HTTP/1.1 request, found something else')),
      );
      if (socket.writable) {
        socket.end(
          `HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
        );
      }
    },
  });

  parseBodies(app);
  app.decorateRequest('caller', null);
  app.addHook('onRequest', (request, _reply, done) => {
    const refused = origins.refuseHost(request.headers.host);
    if (refused !== null) return done(refused);
    const { authorization } = request.headers;
    const caller =
      authorization === undefined ? context.access.bySession(request.headers) : context.access.byHeader(authorization);
    if (caller !== null && authorization === undefined && request.method !== 'GET') {
      const crossed = origins.refuseCrossSite(request.headers);
      if (crossed !== null) return done(crossed);
    }
    if (!(caller instanceof Promise)) {
      request.caller = caller;
      return done();
    }
    caller.then((found) => {
      request.caller = found;
      done();
    }, done);
  });
  app.setErrorHandler((error, _request, reply) => {
    const known = asKnown(error);
    if (errorBody(known).code === 'FS_INTERNAL') context.logger.error({ err: error }, 'request failed');
    sendError(reply, known);
  });
  app.setNotFoundHandler((request, reply) => {
    sendError(
      reply,
      new FullstopError(
        'FS_NOT_FOUND',
        `expected an address of this API, found ${request.method} ${request.url.slice(0, 200)}: see /docs`,
      ),
    );
  });

  for (const group of byRoute(verbs)) addRoute(app, context, group);
  addPages(app, context, metrics);
  return app;
}

/** Verbs that share a method and a path, those picked by a query parameter first. */
export function byRoute(verbs: readonly Verb[]): Verb[][] {
  const groups = new Map<string, Verb[]>();
  for (const verb of verbs) {
    const key = `${verb.http.method} ${verb.http.path}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [verb]);
    else if (verb.http.when !== undefined) group.unshift(verb);
    else group.push(verb);
  }
  return [...groups.values()];
}

function addRoute(app: FastifyInstance, context: Context, group: Verb[]): void {
  const [first] = group;
  if (first === undefined) return;
  const readers = group.map((verb) => ({ verb, read: reader(verb) }));
  app.route({
    method: first.http.method,
    url: first.http.path,
    config: { definition: first.http.definition ?? false },
    async handler(request, reply) {
      const asked = request.query as Record<string, unknown>;
      const chosen = readers.find(({ verb }) => verb.http.when === undefined || asked[verb.http.when] === 'true');
      if (chosen === undefined) throw new FullstopError('FS_NOT_FOUND', 'expected an address of this API: see /docs');
      if (request.caller === null && chosen.verb.level !== 'open') throw unauthenticated();
      const answer = await call(context, chosen.verb, request.caller, chosen.read(request));
      if (answer.headers !== undefined) reply.headers(answer.headers);
      send(reply, answer.status, answer.data);
      return reply;
    },
  });
}

/** Reads a verb's payload from the parts of a request, each checked strictly. */
function reader(verb: Verb): (request: FastifyRequest) => Record<string, unknown> {
  const { schemas, http } = verb;
  const coerce = coercer(verb);
  const noParams = Object.keys(verb.params).length === 0;
  return (request) => {
    const asked = coerce(request.query as Record<string, unknown>);
    if (http.when !== undefined) delete asked[http.when];
    const params = noParams ? {} : parse(schemas.params, request.params);
    const query = parse(schemas.query, asked);
    const body = request.method === 'GET' ? {} : parse(schemas.body, bodyOf(request.body));
    return { ...params, ...query, ...body };
  };
}

function bodyOf(body: unknown): unknown {
  return body === undefined || body === null ? {} : body;
}

/** A query's values come as text: those of numbers and booleans are read, what cannot be stays for the schema to refuse. */
function coercer(verb: Verb): (query: Record<string, unknown>) => Record<string, unknown> {
  const kinds = new Map<string, string>();
  for (const [key, schema] of Object.entries(verb.query)) {
    let inner = schema as unknown as { def: { type: string; innerType?: unknown } };
    while (inner.def.innerType !== undefined) inner = inner.def.innerType as typeof inner;
    kinds.set(key, inner.def.type);
  }
  return (query) => {
    const read: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(query)) {
      refuseKey(key);
      const kind = kinds.get(key);
      if (kind === 'boolean' && (value === 'true' || value === 'false')) read[key] = value === 'true';
      else if (kind === 'number' && typeof value === 'string' && /^\d{1,15}$/.test(value)) read[key] = Number(value);
      else read[key] = value;
    }
    return read;
  };
}

function parseBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, text: string, done) => {
    try {
      if (request.routeOptions.config.definition) return done(null, { definition: text, format: 'json' });
      done(null, text === '' ? undefined : parseJson(text));
    } catch (error) {
      done(error as Error);
    }
  });
  app.addContentTypeParser(YAML_TYPES, { parseAs: 'string' }, (request, text: string, done) => {
    if (request.routeOptions.config.definition) return done(null, { definition: text, format: 'yaml' });
    done(new FullstopError('FS_INVALID', 'expected a body of application/json, found YAML'));
  });
  app.addContentTypeParser('*', { parseAs: 'string' }, (request, _text, done) => {
    const found = request.headers['content-type'] ?? 'none';
    done(new FullstopError('FS_INVALID', `expected the content type application/json, found ${found}`));
  });
}

function parseJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new FullstopError('FS_INVALID', `expected JSON: ${messageOf(error)}`);
  }
  assertPlainJson(value);
  return value;
}

function addPages(app: FastifyInstance, context: Context, metrics: Metrics): void {
  const folder = pageFolder();
  if (folder === null) app.get('/', (_request, reply) => reply.redirect('/docs'));
  else addPage(app, folder);

  app.get('/first-visit', (request, reply) => {
    const { token } = request.query as { token?: unknown };
    const cookie = typeof token === 'string' ? context.access.redeemFirstVisit(token, request.headers.host) : null;
    if (cookie === null) {
      // A person gets the page: with the session that the link once opened, or asked for another way in.
      if (folder !== null && /\btext\/html\b/.test(request.headers.accept ?? ''))
        return reply.header('cache-control', 'no-store').redirect(request.caller === null ? '/?link=used' : '/');
      throw new FullstopError(
        'FS_UNAUTHENTICATED',
        'expected a link that nobody has used, found one that is over: start the server again for a new one',
      );
    }
    return reply
      .headers({ 'set-cookie': cookie, 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' })
      .redirect('/');
  });

  app.get('/metrics', async (request, reply) => {
    if (request.caller === null) throw unauthenticated();
    if (!allows(request.caller, 'see'))
      throw new FullstopError('FS_FORBIDDEN', 'expected the key of a viewer, an operator or an admin');
    const { type, text } = await metrics.scrape();
    return reply.type(type).send(text);
  });

  // Loaded when somebody looks: these cost more time and memory than the rest of the server.
  app.get('/api/workflow.schema.json', async (_request, reply) => {
    const { workflowJsonSchema } = await import('../definition/json-schema.ts');
    return reply.type('application/schema+json').send(JSON.stringify(workflowJsonSchema(), null, 2));
  });
  app.get('/api/openapi.json', async (_request, reply) => {
    const { openapiDocument } = await import('./openapi.ts');
    return reply.type(JSON_TYPE).send(JSON.stringify(await openapiDocument(), null, 2));
  });
  const showDocs = async (request: FastifyRequest, reply: FastifyReply) => {
    const { docsPage } = await import('./openapi.ts');
    const page = await docsPage();
    reply.hijack();
    page.routing(request.raw, reply.raw);
  };
  app.get('/docs', showDocs);
  app.get('/docs/*', showDocs);
}

const JSON_TYPE = 'application/json; charset=utf-8';

function send(reply: FastifyReply, status: number, data: unknown): void {
  reply.code(status);
  if (status === 503) reply.header('retry-after', RETRY_AFTER_S);
  if (status === 204) reply.send();
  else reply.header('content-type', JSON_TYPE).header('cache-control', 'no-store').send(JSON.stringify(data));
}

function sendError(reply: FastifyReply, error: unknown): void {
  const body = errorBody(error);
  const { status } = errorCodes[body.code as keyof typeof errorCodes];
  if (status === 401) reply.header('www-authenticate', 'Bearer');
  send(reply, status, body);
}

/** Errors of the framework, by what they mean to a caller. */
function asKnown(error: unknown): unknown {
  const { code, statusCode } = error as { code?: unknown; statusCode?: unknown };
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new FullstopError('FS_TOO_LARGE', `expected a body of at most ${BODY_BYTES_MAX} bytes, found a larger one`);
  }
  const fromFramework = typeof code === 'string' && code.startsWith('FST_');
  return fromFramework && typeof statusCode === 'number' && statusCode < 500
    ? new FullstopError('FS_INVALID', messageOf(error))
    : error;
}
