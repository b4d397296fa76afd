/** Which pages and which names of this host may talk to the server. */
import type { IncomingHttpHeaders } from 'node:http';
import { FullstopError } from '../errors.ts';

const LOOPBACK_NAMES = new Set(['localhost', '127.0.0.1', '[::1]']);

export class Origins {
  readonly #loopbackOnly: boolean;

  /** `host` is the address the server listens on. */
  constructor(host: string) {
    this.#loopbackOnly = isLoopback(host);
  }

  /** A page that rebinds its own name to 127.0.0.1 gives itself away by the `Host` it asks for. */
  refuseHost(host: string | undefined): FullstopError | null {
    if (!this.#loopbackOnly || (host !== undefined && isLoopback(host.replace(/:\d+$/, '')))) return null;
    return new FullstopError(
      'FS_FORBIDDEN',
      `expected the host name 127.0.0.1 or localhost, found "${host}": the server listens on loopback only`,
    );
  }

  /** Programs send no origin. A page must come from this server. */
  refuseOrigin({ origin, host }: IncomingHttpHeaders): FullstopError | null {
    if (origin === undefined || (URL.canParse(origin) && new URL(origin).host === host)) return null;
    return new FullstopError('FS_FORBIDDEN', `expected a page of this server, found one of ${origin}`);
  }

  /** A change by a browser's cookie: the browser says where it comes from, so its silence is refused too. */
  refuseCrossSite(headers: IncomingHttpHeaders): FullstopError | null {
    if (headers.origin !== undefined) return this.refuseOrigin(headers);
    return new FullstopError('FS_FORBIDDEN', 'expected the header Origin with a change made by a browser, found none');
  }
}

function isLoopback(name: string): boolean {
  return LOOPBACK_NAMES.has(name) || name === '::1' || /^127\.\d+\.\d+\.\d+$/.test(name);
}
