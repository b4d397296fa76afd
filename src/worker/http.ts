import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, zstdDecompress } from 'node:zlib';
import type { Dispatcher } from 'undici';
import { FullstopError, hasCode, messageOf } from '../errors.ts';
import { type Connection, Connections } from './connections.ts';
import { bareHost, type HttpAllow } from './guard.ts';
import { type HttpRequest, parseHttpRequest } from './http-request.ts';
import { type Hide, type HidingExecutor, hideNothing } from './secrets.ts';

/** How much of an unexpected answer a failure's message quotes. */
const excerptChars = 200;

export interface HttpExecutorOptions {
  /** Lets a host through the guard. Default: none. */
  allow?: HttpAllow;
}

/**
 * Runs `http` nodes.
 *
 * A request goes to a public address only, checked when the connection is made, at every redirect again. As many
 * run at once as are asked for, each on a connection of its own that is reused when it is idle.
 */
export function createHttpExecutor({ allow = () => false }: HttpExecutorOptions = {}): HidingExecutor {
  const connections = new Connections();
  return {
    async run(task, signal, _log, hide = hideNothing) {
      const request = parseHttpRequest(task, hide);
      for (let hop = 0; ; hop++) {
        const port = Number(request.url.port) || (request.url.protocol === 'https:' ? 443 : 80);
        if (signal.aborted) throw aborted;
        const connection = connections.acquire(request.url.origin, allow(bareHost(request.url), port, task));
        const { answer: arriving } = new Exchange(request, connections, connection, signal);
        const answer = await arriving;
        const target = hop < request.redirects ? redirectTarget(answer, request.url) : null;
        if (target === null) return await outputOf(request, answer, hide);
        follow(request, answer.status, target);
      }
    },
    close: () => connections.close(),
  };
}

/** One for all: a stop may abort thousands at once, and a stack trace each would cost more than the rest. */
const aborted = new FullstopError('FS_HTTP_NETWORK', 'aborted');

interface Answer {
  status: number;
  headers: Record<string, string | string[]>;
  bytes: Buffer;
}

/** One request and its answer. Ends at once, connection and all, when its signal aborts. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly answer: Promise<Answer>;
  readonly #request: HttpRequest;
  readonly #connections: Connections;
  readonly #connection: Connection;
  readonly #signal: AbortSignal;
  #resolve!: (answer: Answer) => void;
  #reject!: (error: unknown) => void;
  #status = 0;
  #headers: Answer['headers'] = {};
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(request: HttpRequest, connections: Connections, connection: Connection, signal: AbortSignal) {
    this.#request = request;
    this.#connections = connections;
    this.#connection = connection;
    this.#signal = signal;
    this.answer = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    signal.addEventListener('abort', this);
    connection.client.dispatch(
      {
        path: request.url.pathname + request.url.search,
        method: request.method,
        headers: Object.fromEntries(request.headers),
        body: request.body,
      },
      this,
    );
  }

  /** The signal aborts. */
  handleEvent(): void {
    this.#fail(aborted);
  }

  /** undici knows by it which of its two handler interfaces this is. */
  onRequestStart(): void {}

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: Answer['headers']): void {
    this.#status = status;
    this.#headers = headers;
    const length = this.#request.method === 'HEAD' ? 0 : Number(headers['content-length'] ?? 0);
    if (length > this.#request.maxBytes) this.#fail(tooLarge(this.#request));
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#sizeBytes += chunk.length;
    if (this.#sizeBytes > this.#request.maxBytes) this.#fail(tooLarge(this.#request));
    else this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    this.#signal.removeEventListener('abort', this);
    this.#connections.release(this.#connection);
    this.#resolve({ status: this.#status, headers: this.#headers, bytes: Buffer.concat(this.#chunks) });
  }

  onResponseError(_: Dispatcher.DispatchController | null, error: Error & { code?: string }): void {
    // What an abort closed fails once more, and an error with its stack trace takes longer than the abort.
    if (this.#signal.aborted) return this.#fail(aborted);
    if (hasCode(error, 'FS_HTTP_BLOCKED')) return this.#fail(error);
    const code = refusedByUndici.has(error.code ?? '') ? 'FS_INVALID' : 'FS_HTTP_NETWORK';
    const message = messageOf(error) || error.code || 'failed';
    this.#fail(new FullstopError(code, `${this.#request.title}: ${message}`, { cause: error }));
  }

  /** The first failure counts: closing the connection brings another. */
  #fail(error: Error): void {
    this.#signal.removeEventListener('abort', this);
    this.#reject(error);
    this.#connections.destroy(this.#connection, error);
  }
}

/** A header or body that no HTTP request can carry. */
const refusedByUndici = new Set([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
]);

function tooLarge({ title, maxBytes }: HttpRequest): FullstopError {
  return new FullstopError(
    'FS_HTTP_TOO_LARGE',
    `${title}: the answer is larger than ${maxBytes} bytes (with.maxBytes)`,
  );
}

/** Where an answer sends the request on to; null when it does not. @throws FS_HTTP_STATUS */
function redirectTarget({ status, headers }: Answer, from: URL): URL | null {
  const location = headers.location;
  if (![301, 302, 303, 307, 308].includes(status) || typeof location !== 'string') return null;
  const target = URL.parse(location, from.href);
  if (target === null || (target.protocol !== 'http:' && target.protocol !== 'https:')) {
    throw new FullstopError('FS_HTTP_STATUS', `${from.origin} redirects to what is not an http or https URL`);
  }
  target.username = '';
  target.password = '';
  target.hash = '';
  return target;
}

/** Turns a request into the one its redirect asks for. @see https://fetch.spec.whatwg.org/#http-redirect-fetch */
function follow(request: HttpRequest, status: number, target: URL): void {
  const { headers, method, url } = request;
  if ((status === 303 && method !== 'HEAD') || (status <= 302 && method === 'POST')) {
    request.method = 'GET';
    request.body = null;
    for (const name of headers.keys()) if (name.startsWith('content-')) headers.delete(name);
  }
  headers.delete('host');
  if (target.origin !== url.origin) {
    for (const name of ['authorization', 'cookie', 'proxy-authorization']) headers.delete(name);
  }
  request.url = target;
}

const decoders: Record<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>> = {
  gzip: promisify(gunzip),
  'x-gzip': promisify(gunzip),
  deflate: promisify(inflate),
  br: promisify(brotliDecompress),
  zstd: promisify(zstdDecompress),
};

/** The node's output, or the failure the answer is. @throws FS_HTTP_STATUS, FS_HTTP_TOO_LARGE, FS_FAILED */
async function outputOf(request: HttpRequest, answer: Answer, hide: Hide): Promise<unknown> {
  const { status, headers } = answer;
  const type = typeof headers['content-type'] === 'string' ? headers['content-type'] : '';
  const text = textOf(await decoded(request, answer), type);
  if (!request.expect.some(([first, last]) => first <= status && status <= last)) {
    const wanted = request.expect.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(', ');
    const excerpt = hide(text).slice(0, excerptChars).replace(/\s+/g, ' ').trim();
    throw new FullstopError(
      'FS_HTTP_STATUS',
      `${request.title}: expected status ${wanted}, found ${status}${excerpt === '' ? '' : ` (${excerpt})`}`,
    );
  }
  return {
    status,
    headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, joined(name, value)])),
    body: isJson(type) ? parseJson(request, text, hide) : text,
  };
}

async function decoded(request: HttpRequest, { headers, bytes }: Answer): Promise<Buffer> {
  const decode = decoders[String(headers['content-encoding'] ?? '').toLowerCase()];
  if (decode === undefined || bytes.length === 0) return bytes;
  try {
    return await decode(bytes, { maxOutputLength: request.maxBytes });
  } catch (error) {
    if ((error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge(request);
    throw new FullstopError('FS_FAILED', `${request.title}: the answer cannot be decompressed: ${messageOf(error)}`);
  }
}

function textOf(bytes: Buffer, type: string): string {
  const charset = /;\s*charset="?([\w-]+)/i.exec(type)?.[1];
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return new TextDecoder().decode(bytes);
  }
}

function isJson(type: string): boolean {
  return /^\s*(application|text)\/([\w.+-]+\+)?json\s*(;|$)/i.test(type);
}

function parseJson({ title }: HttpRequest, text: string, hide: Hide): unknown {
  if (text.trim() === '') return null;
  try {
    return JSON.parse(text);
  } catch (error) {
    // The parser quotes what is around the fault, and may cut a secret.
    const why = hide(text) === text ? `: ${messageOf(error)}` : '';
    throw new FullstopError('FS_FAILED', `${title}: the answer says it is JSON and is not${why}`);
  }
}

/** A header sent more than once is one value; cookies stay a list. */
function joined(name: string, value: string | string[]): string | string[] {
  if (name === 'set-cookie') return Array.isArray(value) ? value : [value];
  return Array.isArray(value) ? value.join(', ') : value;
}
