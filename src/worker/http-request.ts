import { z } from 'zod';
import { FullstopError } from '../errors.ts';
import type { Task } from '../ports/work.ts';
import type { Hide } from './secrets.ts';

/** What an `http` node asks for, checked and complete. */
export interface HttpRequest {
  /** The method and address for messages, as the workflow wrote it: without query, user and password. */
  title: string;
  url: URL;
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS';
  /** Names in lower case. */
  headers: Map<string, string>;
  body: string | null;
  /** Statuses that are a success, first and last of each range. */
  expect: (readonly [number, number])[];
  maxBytes: number;
  redirects: number;
}

const scalar = z.union([z.string(), z.number(), z.boolean()], 'expected text, a number or a boolean').transform(String);

const statusRange = z.union(
  [z.int().min(100).max(599), z.string().regex(/^[1-5]\d\d(-[1-5]\d\d)?$/)],
  'expected a status such as 200, a range such as "200-299", or a list of them',
);

/** `with` of an `http` node after its templates: they may have put a value of any type in any place. */
const schema = z.strictObject({
  url: z.string(),
  method: z
    .string()
    .transform((method) => method.toUpperCase())
    .pipe(z.enum(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']))
    .default('GET'),
  headers: z.record(z.string(), scalar).default({}),
  query: z.record(z.string(), z.union([z.null(), scalar, z.array(scalar)])).default({}),
  json: z.unknown().optional(),
  body: scalar.optional(),
  expect: z
    .union([statusRange.transform((one) => [one]), z.array(statusRange).min(1)])
    .default(['200-299'])
    .transform((list) => list.map(toRange)),
  maxBytes: z
    .int()
    .min(1)
    .max(64 * 2 ** 20)
    .default(2 ** 20),
  redirects: z.int().min(0).max(20).default(5),
});

/** `hide` takes secrets out of texts that are cut. @throws FS_INVALID */
export function parseHttpRequest(task: Task, hide: Hide): HttpRequest {
  const parsed = schema.safeParse(task.with);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalid(`with${(issue?.path ?? []).map((key) => `.${String(key)}`).join('')}`, issue?.message ?? 'not valid');
  }
  const { url: address, method, query, json, body, expect, maxBytes, redirects } = parsed.data;
  const url = URL.parse(address);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw invalid('with.url', `expected an http or https URL, found "${hide(address).slice(0, 100)}"`);
  }
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? value : [value]) if (item !== null) url.searchParams.append(name, item);
  }
  const headers = new Map(Object.entries(parsed.data.headers).map(([name, value]) => [name.toLowerCase(), value]));
  const setUnlessGiven = (name: string, value: string) => {
    if (!headers.has(name)) headers.set(name, value);
  };
  if (url.username !== '' || url.password !== '') {
    const userAndPassword = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
    setUnlessGiven('authorization', `Basic ${Buffer.from(userAndPassword).toString('base64')}`);
    url.username = '';
    url.password = '';
  }
  if (json !== undefined && body !== undefined) throw invalid('with', 'expected json or body, found both');
  if (json !== undefined) setUnlessGiven('content-type', 'application/json');
  setUnlessGiven('accept', '*/*');
  setUnlessGiven('user-agent', 'fullstop');
  setUnlessGiven('idempotency-key', task.idempotencyKey);
  return {
    title: hide(`${method} ${url.origin}${url.pathname}`).slice(0, 200),
    url,
    method,
    headers,
    body: json === undefined ? (body ?? null) : JSON.stringify(json),
    expect,
    maxBytes,
    redirects,
  };
}

function toRange(one: number | string): readonly [number, number] {
  const text = String(one);
  return [Number(text.slice(0, 3)), Number(text.slice(-3))];
}

function invalid(path: string, message: string): FullstopError {
  return new FullstopError('FS_INVALID', `${path}: ${message}`);
}
