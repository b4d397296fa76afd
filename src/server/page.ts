/**
 * The inspector: the files that Vite built, read when somebody first asks and kept. A server without them has no
 * page, and its API does not wait for one.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { FullstopError } from '../errors.ts';

/** Beside the sources, and beside the compiled files. */
const PLACES = ['../../inspector/dist', '../../../inspector/dist'];
/** Addresses of the page itself: its own router does the rest. Nothing of them is secret. */
const VIEWS = ['/', '/executions', '/executions/*', '/workflows', '/workflows/*', '/engines', '/audit'];
const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.md': 'text/plain; charset=utf-8',
};
/** A file's name holds a hash of what is in it. */
const FOREVER = 'public, max-age=31536000, immutable';
const ASK_AGAIN = 'no-cache';

const HEADERS = {
  'content-security-policy':
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  vary: 'accept-encoding',
};

interface PageFile {
  type: string;
  etag: string;
  plain: Buffer;
  zipped: Buffer;
}

/** The folder of the built page; null when it was not built. */
export function pageFolder(): string | null {
  const folders = PLACES.map((place) => join(import.meta.dirname, place));
  return folders.find((folder) => existsSync(join(folder, 'index.html'))) ?? null;
}

/** Serves the page in `folder`. */
export function addPage(app: FastifyInstance, folder: string): void {
  const files = new Map<string, Promise<PageFile>>();
  const fileOf = (name: string): Promise<PageFile> => {
    const kept = files.get(name);
    if (kept !== undefined) return kept;
    const reading = readPageFile(join(folder, name));
    files.set(name, reading);
    reading.catch(() => files.delete(name));
    return reading;
  };
  const send = async (request: FastifyRequest, reply: FastifyReply, name: string, cache: string) => {
    const file = await fileOf(name).catch(() => {
      throw new FullstopError('FS_NOT_FOUND', `expected a file of the page, found ${name}: load the page again`);
    });
    reply.headers({ ...HEADERS, 'cache-control': cache, etag: file.etag });
    if (request.headers['if-none-match'] === file.etag) return reply.code(304).send();
    reply.type(file.type);
    if (!/\bgzip\b/.test(request.headers['accept-encoding'] ?? '')) return reply.send(file.plain);
    return reply.header('content-encoding', 'gzip').send(file.zipped);
  };
  for (const view of VIEWS) app.get(view, (request, reply) => send(request, reply, 'index.html', ASK_AGAIN));
  for (const name of ['favicon.svg', 'THIRD-PARTY-NOTICES.md'])
    app.get(`/${name}`, (request, reply) => send(request, reply, name, ASK_AGAIN));
  app.get('/assets/:name', (request, reply) => {
    const { name } = request.params as { name: string };
    if (!/^[\w-]+(\.[\w-]+)+$/.test(name))
      throw new FullstopError('FS_NOT_FOUND', 'expected a file of the page: load the page again');
    return send(request, reply, `assets/${name}`, FOREVER);
  });
}

async function readPageFile(path: string): Promise<PageFile> {
  const plain = await readFile(path);
  const zipped = await promisify(gzip)(plain);
  const etag = `"${createHash('sha256').update(plain).digest('base64url').slice(0, 22)}"`;
  return { type: TYPES[extname(path)] ?? 'application/octet-stream', etag, plain, zipped };
}
