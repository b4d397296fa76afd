import { brotliCompressSync, gzipSync } from 'node:zlib';
import { expect } from 'chai';
import type { WorkReport } from '../../src/ports/work.ts';
import { Connections } from '../../src/worker/connections.ts';
import { createHttpExecutor } from '../../src/worker/http.ts';
import type { InProcessPool } from '../../src/worker/pool.ts';
import { Endpoint, httpPool, httpTask, runTask, until } from './support.ts';

interface Output {
  status: number;
  headers: Record<string, string | string[]>;
  body: unknown;
}

describe('an http node', () => {
  let endpoint: Endpoint;
  let other: Endpoint;
  let pool: InProcessPool;

  beforeEach(async () => {
    endpoint = new Endpoint();
    other = new Endpoint();
    await Promise.all([endpoint.open(), other.open()]);
    pool = httpPool((host) => host === '127.0.0.1');
  });

  afterEach(async () => {
    await pool.close();
    await Promise.all([endpoint.close(), other.close()]);
  });

  function call(with_: Record<string, unknown>): Promise<WorkReport> {
    return runTask(pool, httpTask({ url: endpoint.url, ...with_ }));
  }

  async function output(with_: Record<string, unknown>): Promise<Output> {
    const report = await call(with_);
    if (report.kind !== 'completed') throw new Error(`expected an output, found ${JSON.stringify(report)}`);
    return report.output as Output;
  }

  async function failure(with_: Record<string, unknown>): Promise<{ error: string; code: string; retryable: boolean }> {
    const report = await call(with_);
    if (report.kind !== 'failed') throw new Error(`expected a failure, found ${JSON.stringify(report)}`);
    return report;
  }

  describe('its request', () => {
    it('is a GET without a body unless it says otherwise', async () => {
      await output({ url: `${endpoint.url}/a?b=c` });
      expect(endpoint.last).to.include({ method: 'GET', url: '/a?b=c', body: '' });
      expect(endpoint.last.headers).to.include({ 'user-agent': 'fullstop', accept: '*/*' });
    });

    for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      it(`has the method ${method}, in any case`, async () => {
        await output({ method: method.toLowerCase() });
        expect(endpoint.last.method).to.equal(method);
      });
    }

    it('has the headers given, numbers and booleans as text', async () => {
      await output({ headers: { 'X-Text': 'a', 'x-number': 3, 'x-flag': true, 'User-Agent': 'mine' } });
      expect(endpoint.last.headers).to.include({
        'x-text': 'a',
        'x-number': '3',
        'x-flag': 'true',
        'user-agent': 'mine',
      });
    });

    it('adds the query to the one in the URL, encoded, a list as several, null left out', async () => {
      await output({ url: `${endpoint.url}/?a=1`, query: { b: 'x y&z', c: [1, true], d: null, e: 0 } });
      expect(endpoint.last.url).to.equal('/?a=1&b=x+y%26z&c=1&c=true&e=0');
    });

    it('sends json, with its content type', async () => {
      await output({ method: 'POST', json: { a: [1, null] } });
      expect(endpoint.last.body).to.equal('{"a":[1,null]}');
      expect(endpoint.last.headers).to.include({ 'content-type': 'application/json', 'content-length': '14' });
    });

    it('sends json null, and keeps a content type that is given', async () => {
      await output({ method: 'POST', json: null, headers: { 'Content-Type': 'application/vnd.x+json' } });
      expect(endpoint.last.body).to.equal('null');
      expect(endpoint.last.headers['content-type']).to.equal('application/vnd.x+json');
    });

    it('sends a body as it is', async () => {
      await output({ method: 'PUT', body: 'päckchen' });
      expect(endpoint.last.body).to.equal('päckchen');
      expect(endpoint.last.headers).not.to.have.property('content-type');
    });

    it('has the same Idempotency-Key on every attempt, unless one is given', async () => {
      await runTask(pool, httpTask({ url: endpoint.url }, { id: 'E/call/1', attempt: 1 }));
      await runTask(pool, httpTask({ url: endpoint.url }, { id: 'E/call/2', attempt: 2 }));
      await output({ headers: { 'IDEMPOTENCY-KEY': 'mine' } });
      expect(endpoint.requests.map(({ headers }) => headers['idempotency-key'])).to.deep.equal([
        'E/call',
        'E/call',
        'mine',
      ]);
    });

    it('turns user and password of the URL into a header', async () => {
      await output({ url: endpoint.url.replace('//', '//us%65r:p%40ss@') });
      expect(endpoint.last.headers.authorization).to.equal(`Basic ${Buffer.from('user:p@ss').toString('base64')}`);
    });

    it('reuses an idle connection, and makes a new one when it was closed meanwhile', async () => {
      for (let times = 0; times < 10; times++) await output({});
      expect(endpoint.connections).to.equal(1);
      for (const socket of endpoint.sockets) socket.destroy();
      await until(() => endpoint.sockets.size === 0, 'the connection is closed');
      await new Promise((resolve) => setTimeout(resolve, 20));
      await output({});
      expect(endpoint.connections).to.equal(2);
    });

    it('forgets an idle connection that the other side closes', async () => {
      const connections = new Connections();
      const connection = connections.acquire(endpoint.url, true);
      await (await connection.client.request({ path: '/', method: 'GET' })).body.dump();
      connections.release(connection);
      expect(connections.size).to.equal(1);
      for (const socket of endpoint.sockets) socket.destroy();
      await until(() => connections.size === 0, 'it is forgotten');
    });

    it('is not made when it is aborted before', async () => {
      const executor = createHttpExecutor({ allow: () => true });
      const run = executor.run(httpTask({ url: endpoint.url }), AbortSignal.abort(), () => {});
      expect(await run.catch((error) => error.message)).to.equal('aborted');
      await executor.close();
      expect(endpoint.connections).to.equal(0);
    });

    it('makes a new connection after an answer that closes its own', async () => {
      endpoint.answer = (_, response) => response.writeHead(200, { connection: 'close' }).end();
      for (let times = 0; times < 3; times++) await output({});
      expect(endpoint.connections).to.equal(3);
    });
  });

  describe('its output', () => {
    it('has the status, the headers by lower-case name, and the body as text', async () => {
      endpoint.answer = (_, response) => {
        response.writeHead(
          201,
          [
            ['X-One', 'a'],
            ['X-Two', 'b'],
            ['X-Two', 'c'],
            ['Set-Cookie', 'd=e'],
            ['Content-Type', 'text/plain'],
          ].flat(),
        );
        response.end('{"not": "parsed"}');
      };
      const { status, headers, body } = await output({});
      expect(status).to.equal(201);
      expect(headers).to.deep.include({ 'x-one': 'a', 'x-two': 'b, c', 'set-cookie': ['d=e'] });
      expect(body).to.equal('{"not": "parsed"}');
    });

    for (const type of [
      'application/json',
      'application/problem+json; charset=utf-8',
      'text/json',
      'APPLICATION/JSON',
    ]) {
      it(`parses ${type}`, async () => {
        endpoint.answer = (_, response) => response.writeHead(200, { 'content-type': type }).end('{"a":[1]}');
        expect((await output({})).body).to.deep.equal({ a: [1] });
      });
    }

    it('is null for an empty JSON body, and empty text for another', async () => {
      endpoint.answer = (_, response) => response.writeHead(204, { 'content-type': 'application/json' }).end();
      expect((await output({})).body).to.equal(null);
      endpoint.answer = (_, response) => response.writeHead(204).end();
      expect((await output({})).body).to.equal('');
    });

    it('fails when what is called JSON is none', async () => {
      endpoint.answer = (_, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('<html>');
      expect(await failure({})).to.include({ code: 'FS_FAILED', retryable: true });
    });

    it('reads the charset that the content type names, UTF-8 where it names none that is known', async () => {
      endpoint.answer = (_, response) =>
        response.writeHead(200, { 'content-type': 'text/plain; charset="latin1"' }).end(Buffer.from('é', 'latin1'));
      expect((await output({})).body).to.equal('é');
      endpoint.answer = (_, response) =>
        response.writeHead(200, { 'content-type': 'text/plain; charset=klingon' }).end('é');
      expect((await output({})).body).to.equal('é');
    });

    for (const [encoding, compress] of [
      ['gzip', gzipSync],
      ['br', brotliCompressSync],
    ] as const) {
      it(`decompresses ${encoding}`, async () => {
        endpoint.answer = (_, response) =>
          response.writeHead(200, { 'content-encoding': encoding }).end(compress('text'));
        expect((await output({})).body).to.equal('text');
      });
    }

    it('fails when it cannot be decompressed', async () => {
      endpoint.answer = (_, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('text');
      expect(await failure({})).to.include({ code: 'FS_FAILED' });
    });

    it('has no body for HEAD, whatever length the answer names', async () => {
      endpoint.answer = (_, response) => response.writeHead(200, { 'content-length': 2 ** 30 }).end();
      expect(await output({ method: 'HEAD' })).to.include({ status: 200, body: '' });
    });
  });

  describe('expect', () => {
    const rows: [expect: unknown, status: number, succeeds: boolean][] = [
      [undefined, 200, true],
      [undefined, 299, true],
      [undefined, 304, false],
      [undefined, 404, false],
      [404, 404, true],
      [404, 200, false],
      ['404', 404, true],
      ['400-499', 418, true],
      ['400-499', 500, false],
      [[200, '404'], 404, true],
      [['200-204', 503], 503, true],
      [[200, '404'], 500, false],
    ];
    for (const [wanted, status, succeeds] of rows) {
      it(`${JSON.stringify(wanted) ?? 'left out'} ${succeeds ? 'accepts' : 'refuses'} ${status}`, async () => {
        endpoint.answer = (_, response) => response.writeHead(status).end();
        const report = await call(wanted === undefined ? {} : { expect: wanted });
        expect(report.kind).to.equal(succeeds ? 'completed' : 'failed');
      });
    }

    it('fails with the statuses, the address without its query, and the start of the answer; a retry is allowed', async () => {
      endpoint.answer = (_, response) => response.writeHead(404).end(`no\n such thing ${'.'.repeat(500)}`);
      const { error, code, retryable } = await failure({ url: `${endpoint.url}/things?token=abc` });
      expect(error).to.match(
        /^GET http:\/\/127\.0\.0\.1:\d+\/things: expected status 200-299, found 404 \(no such thing \.+\)$/,
      );
      expect(error).to.have.length.below(320);
      expect({ code, retryable }).to.deep.equal({ code: 'FS_HTTP_STATUS', retryable: true });
    });
  });

  describe('maxBytes', () => {
    it('takes an answer of exactly that size', async () => {
      endpoint.answer = (_, response) => response.end('x'.repeat(10));
      expect((await output({ maxBytes: 10 })).body).to.equal('xxxxxxxxxx');
    });

    it('is 1 MiB by default', async () => {
      endpoint.answer = (_, response) => response.end('x'.repeat(2 ** 20));
      expect((await output({})).body).to.have.length(2 ** 20);
      endpoint.answer = (_, response) => response.end('x'.repeat(2 ** 20 + 1));
      expect(await failure({})).to.include({ code: 'FS_HTTP_TOO_LARGE', retryable: false });
    });

    it('ends the connection as soon as an answer grows beyond it', async () => {
      endpoint.answer = (_, response) => {
        const flow = setInterval(() => response.write('x'.repeat(8)), 1);
        response.once('close', () => clearInterval(flow));
      };
      expect(await failure({ maxBytes: 20 })).to.include({ code: 'FS_HTTP_TOO_LARGE' });
      await until(() => endpoint.sockets.size === 0, 'the endpoint sees the connection closed');
    });

    it('refuses an answer that announces more, before any of it comes', async () => {
      endpoint.answer = (_, response) => response.writeHead(200, { 'content-length': 21 }).flushHeaders();
      expect(await failure({ maxBytes: 20 })).to.include({ code: 'FS_HTTP_TOO_LARGE' });
      await until(() => endpoint.sockets.size === 0, 'the endpoint sees the connection closed');
    });

    it('counts what a compressed answer becomes', async () => {
      endpoint.answer = (_, response) =>
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('x'.repeat(100_000)));
      expect(await failure({ maxBytes: 10_000 })).to.include({ code: 'FS_HTTP_TOO_LARGE' });
    });
  });

  describe('redirects', () => {
    function redirect(status: number, location: (url: string) => string): void {
      endpoint.answer = ({ url }, response) => {
        if (url.startsWith('/end')) response.end('end');
        else response.writeHead(status, { location: location(url) }).end('moved');
      };
    }

    for (const [status, method, becomes] of [
      [301, 'POST', 'GET'],
      [302, 'POST', 'GET'],
      [303, 'POST', 'GET'],
      [303, 'PUT', 'GET'],
      [303, 'HEAD', 'HEAD'],
      [302, 'PUT', 'PUT'],
      [307, 'POST', 'POST'],
      [308, 'POST', 'POST'],
    ] as const) {
      it(`makes ${method} a ${becomes} after ${status}`, async () => {
        redirect(status, () => '/end');
        await output({ method, ...(method === 'HEAD' ? {} : { json: 1 }) });
        expect(endpoint.last).to.include({
          method: becomes,
          url: '/end',
          body: becomes === method && method !== 'HEAD' ? '1' : '',
        });
        expect('content-type' in endpoint.last.headers).to.equal(becomes === method && method !== 'HEAD');
      });
    }

    it('are followed five times by default, and then the redirect is the answer', async () => {
      redirect(302, (url) => `/${Number(url.slice(1)) + 1}`);
      expect(await failure({ url: `${endpoint.url}/0` })).to.include({ code: 'FS_HTTP_STATUS' });
      expect(endpoint.requests.map(({ url }) => url)).to.deep.equal(['/0', '/1', '/2', '/3', '/4', '/5']);
    });

    it('are not followed where it is 0: the answer is the redirect', async () => {
      redirect(302, () => '/end');
      expect(await output({ redirects: 0, expect: 302 })).to.deep.include({ status: 302, body: 'moved' });
      expect(endpoint.requests).to.have.length(1);
    });

    it('do not repeat the query, and keep the other headers', async () => {
      redirect(302, () => '/end');
      await output({ query: { a: 1 }, headers: { authorization: 'secret', 'x-a': 'b' } });
      expect(endpoint.last.url).to.equal('/end');
      expect(endpoint.last.headers).to.include({ authorization: 'secret', 'x-a': 'b', 'idempotency-key': 'E/call' });
    });

    it('take no Authorization and no Cookie to another origin', async () => {
      redirect(307, () => `${other.url}/end`);
      await output({ headers: { Authorization: 'secret', Cookie: 'a=b', 'Proxy-Authorization': 'c', 'x-a': 'b' } });
      expect(endpoint.last.headers).to.include({ authorization: 'secret', cookie: 'a=b' });
      expect(other.last.headers).to.include({ 'x-a': 'b' });
      expect(other.last.headers).not.to.have.any.keys('authorization', 'cookie', 'proxy-authorization');
    });

    it('ask for the host they lead to, whatever Host was given', async () => {
      redirect(302, () => `${other.url}/end`);
      await output({ headers: { Host: 'elsewhere' } });
      expect(endpoint.last.headers.host).to.equal('elsewhere');
      expect(other.last.headers.host).to.equal(`127.0.0.1:${other.port}`);
    });

    it('to another protocol fail', async () => {
      redirect(302, () => 'file:///etc/passwd');
      expect(await failure({})).to.include({ code: 'FS_HTTP_STATUS' });
    });

    it('without a location are the answer', async () => {
      endpoint.answer = (_, response) => response.writeHead(302).end();
      expect(await output({ expect: 302 })).to.include({ status: 302 });
    });
  });

  describe('with values of the wrong type, where a template put them', () => {
    const rows: [with_: Record<string, unknown>, path: string][] = [
      [{ url: 3 }, 'with.url'],
      [{ url: null }, 'with.url'],
      [{ url: 'not a url' }, 'with.url'],
      [{ url: 'ftp://127.0.0.1/' }, 'with.url'],
      [{ url: '/relative' }, 'with.url'],
      [{ method: 3 }, 'with.method'],
      [{ method: 'CONNECT' }, 'with.method'],
      [{ headers: 'a: b' }, 'with.headers'],
      [{ headers: { a: { b: 1 } } }, 'with.headers.a'],
      [{ query: { a: { b: 1 } } }, 'with.query.a'],
      [{ body: { a: 1 } }, 'with.body'],
      [{ json: 1, body: 'a' }, 'with'],
      [{ expect: '2xx' }, 'with.expect'],
      [{ expect: 99 }, 'with.expect'],
      [{ expect: [] }, 'with.expect'],
      [{ maxBytes: '10' }, 'with.maxBytes'],
      [{ maxBytes: 0 }, 'with.maxBytes'],
      [{ redirects: -1 }, 'with.redirects'],
      [{ surplus: 1 }, 'with'],
      [{ url: 'http://127.0.0.1/', headers: { 'a b': 'c' } }, 'GET'],
      [{ url: 'http://127.0.0.1/', headers: { a: 'b\r\nc: d' } }, 'GET'],
      [{ url: 'http://127.0.0.1/', headers: { 'transfer-encoding': 'chunked' } }, 'GET'],
    ];
    for (const [with_, path] of rows) {
      it(`fails and names the place: ${JSON.stringify(with_)}`, async () => {
        const { error, code, retryable } = await failure(with_);
        expect({ code, retryable }).to.deep.equal({ code: 'FS_INVALID', retryable: false });
        expect(error).to.match(new RegExp(`^${path}[ .:]`));
      });
    }
  });

  describe('a network failure', () => {
    it('fails with FS_HTTP_NETWORK when nobody listens, and may be retried', async () => {
      const { url } = other;
      await other.close();
      expect(await failure({ url })).to.include({ code: 'FS_HTTP_NETWORK', retryable: true });
      await other.open();
    });

    it('fails with FS_HTTP_NETWORK when the answer breaks off', async () => {
      endpoint.answer = (_, response) => {
        response.writeHead(200, { 'content-length': 100 });
        response.write('x', () => response.destroy());
      };
      expect(await failure({})).to.include({ code: 'FS_HTTP_NETWORK', retryable: true });
    });

    it('fails with FS_HTTP_NETWORK when a name does not resolve', async () => {
      expect(await failure({ url: 'http://nowhere.invalid/' })).to.include({ code: 'FS_HTTP_NETWORK' });
    });
  });
});
