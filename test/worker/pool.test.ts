import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import { FullstopError } from '../../src/errors.ts';
import type { WorkReport } from '../../src/ports/work.ts';
import { AbortedAs, type Executor } from '../../src/worker/executor.ts';
import { createInProcessPool, type InProcessPool } from '../../src/worker/pool.ts';
import { VirtualClock } from '../support/virtual-clock.ts';
import { Endpoint, httpPool, httpTask, runTask, until } from './support.ts';

describe('the in-process pool', () => {
  describe('with tasks of any type', () => {
    let clock: VirtualClock;
    let pool: InProcessPool;
    let reports: WorkReport[];
    /** Ends the task that runs. */
    let finish: { resolve(output: unknown): void; reject(error: unknown): void };
    let signal: AbortSignal;

    beforeEach(() => {
      clock = new VirtualClock();
      reports = [];
      const executor: Executor = {
        run: (_task, given) => {
          signal = given;
          return new Promise((resolve, reject) => {
            finish = { resolve, reject };
          });
        },
        close: async () => {},
      };
      pool = createInProcessPool({ executors: new Map([['http', executor]]), clock });
    });

    function start(id: string, type = 'http'): void {
      pool.start(httpTask({}, { id, type }), (report) => reports.push(report));
    }

    it('reports the output once', async () => {
      start('a');
      finish.resolve({ x: 1 });
      await clock.settle();
      expect(reports).to.deep.equal([{ kind: 'completed', output: { x: 1 } }]);
      expect(pool.size).to.equal(0);
    });

    it('reports a coded failure with its code, and any other as FS_FAILED', async () => {
      start('a');
      finish.reject(new FullstopError('FS_HTTP_BLOCKED', 'no'));
      start('b');
      finish.reject(new TypeError('odd'));
      await clock.settle();
      expect(reports).to.deep.equal([
        { kind: 'failed', error: 'no', code: 'FS_HTTP_BLOCKED', retryable: false },
        { kind: 'failed', error: 'odd', code: 'FS_FAILED', retryable: true },
      ]);
    });

    it('fails a task whose output is nested too deep for a record, and does not try it again', async () => {
      const deep = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`) as unknown;
      start('a');
      finish.resolve(deep);
      await clock.settle();
      expect(reports).to.have.length(1);
      expect(reports[0]).to.include({ kind: 'failed', code: 'FS_FAILED', retryable: false });
    });

    it('reports an abort when the work has ended, not before', async () => {
      start('a');
      pool.abort('a');
      expect(signal.aborted).to.equal(true);
      await clock.settle();
      expect(reports).to.deep.equal([]);
      finish.reject(new Error('ended'));
      await clock.settle();
      expect(reports).to.deep.equal([{ kind: 'aborted', outcome: 'aborted' }]);
    });

    it('reports how an abort ended, where the executor says so', async () => {
      start('a');
      pool.abort('a');
      finish.reject(new AbortedAs('forced'));
      await clock.settle();
      expect(reports).to.deep.equal([{ kind: 'aborted', outcome: 'forced' }]);
    });

    it('reports a result that arrived before the abort took effect', async () => {
      start('a');
      finish.resolve(1);
      pool.abort('a');
      await clock.settle();
      expect(reports).to.deep.equal([{ kind: 'completed', output: 1 }]);
    });

    it('reports once when it is aborted twice, and after its end', async () => {
      start('a');
      pool.abort('a');
      pool.abort('a');
      finish.reject(new Error('ended'));
      await clock.settle();
      pool.abort('a');
      await clock.settle();
      expect(reports).to.have.length(1);
    });

    it('refuses a task whose abort overtook its start', async () => {
      pool.abort('a');
      start('a');
      expect(reports).to.deep.equal([]);
      await clock.settle();
      expect(reports).to.deep.equal([{ kind: 'aborted', outcome: 'neverStarted' }]);
      expect(pool.size).to.equal(0);
    });

    it('refuses it once: an abort is of one task', async () => {
      pool.abort('a');
      start('b');
      expect(pool.size).to.equal(1);
      finish.resolve(1);
      await clock.settle();
    });

    it('forgets such an abort after a minute', async () => {
      pool.abort('old');
      await clock.advance(60_000);
      pool.abort('new');
      start('old');
      expect(pool.size).to.equal(1);
      finish.resolve(1);
      await clock.settle();
    });

    it('fails a task of a type that nobody here runs', async () => {
      start('a', 'container');
      await clock.settle();
      expect(reports[0]).to.include({ kind: 'failed', code: 'FS_UNAVAILABLE', retryable: true });
    });

    it('aborts what runs when it closes, and starts nothing after', async () => {
      start('a');
      const closed = pool.close();
      expect(signal.aborted).to.equal(true);
      finish.reject(new Error('ended'));
      await closed;
      start('b');
      await clock.settle();
      expect(reports).to.deep.equal([
        { kind: 'aborted', outcome: 'aborted' },
        { kind: 'aborted', outcome: 'neverStarted' },
      ]);
    });
  });

  describe('with http tasks', () => {
    let endpoint: Endpoint;
    let pool: InProcessPool;

    beforeEach(async () => {
      endpoint = new Endpoint();
      await endpoint.open();
      pool = httpPool(() => true);
    });

    afterEach(async () => {
      await pool.close();
      await endpoint.close();
    });

    /** Aborts the task and gives the ms until the endpoint sees its connection closed. */
    async function closesSocket(report: Promise<WorkReport>): Promise<number> {
      const startedMs = performance.now();
      const { connections } = endpoint;
      pool.abort('E/call/1');
      await until(() => endpoint.sockets.size === 0, 'the endpoint sees the connection closed');
      const seenMs = performance.now() - startedMs;
      expect(await report).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      // Nothing connects again.
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(endpoint.connections).to.equal(connections);
      return seenMs;
    }

    it('closes the connection at once while it waits for an answer', async () => {
      endpoint.answer = () => {};
      const report = runTask(pool, httpTask({ url: endpoint.url }));
      await until(() => endpoint.requests.length === 1, 'the request is there');
      expect(await closesSocket(report)).to.be.below(500);
    });

    it('closes the connection at once in the middle of an answer', async () => {
      endpoint.answer = (_, response) => response.write('x');
      const report = runTask(pool, httpTask({ url: endpoint.url }));
      await until(() => endpoint.requests.length === 1, 'the request is there');
      expect(await closesSocket(report)).to.be.below(500);
    });

    it('closes the connection at once after a redirect', async () => {
      endpoint.answer = ({ url }, response) => url === '/' && response.writeHead(302, { location: '/slow' }).end();
      const report = runTask(pool, httpTask({ url: endpoint.url }));
      await until(() => endpoint.last?.url === '/slow', 'the second request is there');
      expect(await closesSocket(report)).to.be.below(500);
    });

    it('closes a connection that does not stand yet', async () => {
      // A peer that never answers the TLS handshake.
      const sockets = new Set<Socket>();
      let closes = 0;
      const silent = createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {}).once('close', () => closes++);
        socket.resume();
      }).listen(0, '127.0.0.1');
      await once(silent, 'listening');
      const { port } = silent.address() as AddressInfo;
      const report = runTask(pool, httpTask({ url: `https://127.0.0.1:${port}/` }));
      await until(() => sockets.size === 1, 'the connection is made');
      pool.abort('E/call/1');
      expect(await report).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      await until(() => closes === 1, 'the peer sees the connection closed');
      silent.close();
      await once(silent, 'close');
    });

    it('sends nothing when it is aborted in the turn of its start', async () => {
      const report = runTask(pool, httpTask({ url: endpoint.url }));
      pool.abort('E/call/1');
      expect(await report).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      await until(() => endpoint.sockets.size === 0, 'no connection is left');
      expect(endpoint.requests).to.have.length(0);
    });

    it('leaves the other tasks of the same host alone', async () => {
      endpoint.answer = ({ url }, response) => {
        if (url === '/quick') setTimeout(() => response.end('done'), 50);
      };
      const slow = runTask(pool, httpTask({ url: endpoint.url }));
      const quick = runTask(pool, httpTask({ url: `${endpoint.url}/quick` }, { id: 'E/quick/1' }));
      await until(() => endpoint.requests.length === 2, 'both requests are there');
      pool.abort('E/call/1');
      expect(await slow).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      expect(await quick).to.have.nested.property('output.body', 'done');
    });

    it('runs a thousand to one host at once, and aborts them all', async () => {
      endpoint.answer = () => {};
      const ids = Array.from({ length: 1000 }, (_, index) => `E${index}/call/1`);
      const reports = ids.map((id) => runTask(pool, httpTask({ url: endpoint.url }, { id })));
      await until(() => endpoint.requests.length === 1000, 'all requests are there');
      expect(endpoint.sockets.size).to.equal(1000);
      for (const id of ids) pool.abort(id);
      const outcomes = new Set((await Promise.all(reports)).map((report) => JSON.stringify(report)));
      expect([...outcomes]).to.deep.equal(['{"kind":"aborted","outcome":"aborted"}']);
      await until(() => endpoint.sockets.size === 0, 'the endpoint sees all connections closed');
      expect(endpoint.connections).to.equal(1000);
    });
  });
});
