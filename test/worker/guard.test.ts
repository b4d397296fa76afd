import { expect } from 'chai';
import { FullstopError } from '../../src/errors.ts';
import { allowHosts, isBlocked } from '../../src/worker/guard.ts';
import type { InProcessPool } from '../../src/worker/pool.ts';
import { Endpoint, httpPool, httpTask, runTask } from './support.ts';

describe('the guard of http nodes', () => {
  describe('of addresses', () => {
    const refused = {
      unspecified: ['0.0.0.0', '0.1.2.3', '::'],
      loopback: ['127.0.0.1', '127.255.255.254', '::1'],
      private: ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', 'fc00::1', 'fdff::1'],
      'link-local and metadata': ['169.254.169.254', 'fe80::1', 'febf::1', 'fec0::1', '168.63.129.16', 'fd00:ec2::254'],
      'carrier-grade NAT': ['100.64.0.1', '100.127.255.255'],
      multicast: ['224.0.0.1', '239.255.255.255', 'ff02::1'],
      'reserved and broadcast': ['240.0.0.1', '255.255.255.255', '192.0.0.1', '198.18.0.1'],
      documentation: ['192.0.2.1', '198.51.100.1', '203.0.113.1', '2001:db8::1', '3fff::1'],
      'carriers of an address of version 4': [
        '::ffff:127.0.0.1',
        '::ffff:8.8.8.8',
        '::127.0.0.1',
        '64:ff9b::127.0.0.1',
        '64:ff9b:1::1',
        '2002:7f00:1::',
        '2001:0:7f00:1::',
      ],
      'what is no address': ['', 'localhost', '1.2.3', '127.1'],
    };
    for (const [kind, addresses] of Object.entries(refused)) {
      it(`refuses ${kind}`, () => {
        expect(addresses.filter((address) => !isBlocked(address))).to.deep.equal([]);
      });
    }

    it('lets public ones through', () => {
      const open = ['1.1.1.1', '8.8.8.8', '100.63.255.255', '172.32.0.1', '223.255.255.255', '2606:4700::1', '2a00::1'];
      expect(open.filter(isBlocked)).to.deep.equal([]);
    });
  });

  describe('of requests', () => {
    let endpoint: Endpoint;
    let inside: Endpoint;
    let pool: InProcessPool;

    beforeEach(async () => {
      endpoint = new Endpoint();
      inside = new Endpoint();
      await Promise.all([endpoint.open(), inside.open()]);
    });

    afterEach(async () => {
      await pool.close();
      await Promise.all([endpoint.close(), inside.close()]);
    });

    const hosts = [
      '127.0.0.1',
      '127.1',
      '2130706433',
      '0x7f000001',
      '0x7f.0.0.1',
      '0177.0.0.1',
      '127.0.0.1.',
      '0.0.0.0',
      '[::1]',
      '[::]',
      '[::ffff:127.0.0.1]',
      '[::ffff:7f00:1]',
      '[64:ff9b::127.0.0.1]',
      'localhost',
      'LOCALHOST',
      '①②⑦.0.0.1',
      '10.0.0.1',
      '169.254.169.254',
    ];
    for (const host of hosts) {
      it(`refuses ${host}`, async () => {
        pool = httpPool(() => false);
        const report = await runTask(pool, httpTask({ url: `http://${host}:${endpoint.port}/` }));
        expect(report).to.include({ kind: 'failed', code: 'FS_HTTP_BLOCKED', retryable: false });
        expect(endpoint.connections).to.equal(0);
      });
    }

    it('refuses https too', async () => {
      pool = httpPool(() => false);
      for (const host of ['127.0.0.1', 'localhost']) {
        const report = await runTask(pool, httpTask({ url: `https://${host}:${endpoint.port}/` }));
        expect(report).to.include({ code: 'FS_HTTP_BLOCKED' });
      }
      expect(endpoint.connections).to.equal(0);
    });

    for (const host of ['127.0.0.1', 'localhost', '[::ffff:127.0.0.1]', '2130706433']) {
      it(`refuses a redirect to ${host}`, async () => {
        pool = httpPool(allowHosts([`127.0.0.1:${endpoint.port}`]));
        endpoint.answer = (_, response) =>
          response.writeHead(302, { location: `http://${host}:${inside.port}/` }).end();
        const report = await runTask(pool, httpTask({ url: endpoint.url }));
        expect(report).to.include({ kind: 'failed', code: 'FS_HTTP_BLOCKED' });
        expect(inside.connections).to.equal(0);
      });
    }

    it('refuses a task the connection that another, allowed one left idle', async () => {
      pool = httpPool((_host, _port, task) => task.workflowHash === 'demo');
      const allowed = await runTask(pool, httpTask({ url: endpoint.url }, { id: 'E/a/1', workflowHash: 'demo' }));
      expect(allowed.kind).to.equal('completed');
      const report = await runTask(pool, httpTask({ url: endpoint.url }, { id: 'E/b/1', workflowHash: 'other' }));
      expect(report).to.include({ kind: 'failed', code: 'FS_HTTP_BLOCKED' });
      expect(endpoint.requests).to.have.length(1);
    });

    it('lets an allowed host through by name, and its redirects to itself', async () => {
      pool = httpPool(allowHosts(['localhost']));
      endpoint.answer = ({ url }, response) =>
        url === '/' ? response.writeHead(302, { location: '/end' }).end() : response.end('end');
      const report = await runTask(pool, httpTask({ url: `http://LocalHost:${endpoint.port}/` }));
      expect(report).to.have.nested.property('output.body', 'end');
    });
  });

  describe('its list of allowed hosts', () => {
    const task = httpTask({});
    const rows: [entry: string, host: string, port: number, allowed: boolean][] = [
      ['internal', 'internal', 80, true],
      ['internal', 'internal', 8080, true],
      ['internal', 'sub.internal', 80, false],
      ['Internal:8080', 'internal', 8080, true],
      ['internal:8080', 'internal', 80, false],
      ['internal:80', 'internal', 80, true],
      ['127.0.0.1', '127.0.0.1', 1, true],
      ['127.0.0.1', 'localhost', 1, false],
      ['2130706433', '127.0.0.1', 1, true],
      ['::1', '::1', 80, true],
      ['[::1]', '::1', 80, true],
      ['[::1]:8080', '::1', 8080, true],
      ['[::1]:8080', '::1', 80, false],
    ];
    for (const [entry, host, port, allowed] of rows) {
      it(`with ${entry} ${allowed ? 'lets' : 'does not let'} ${host} port ${port} through`, () => {
        expect(allowHosts([entry])(host, port, task)).to.equal(allowed);
      });
    }

    for (const entry of [
      '',
      'http://internal',
      'internal/path',
      'internal:port',
      'internal:99999',
      'a b',
      'user@internal',
    ]) {
      it(`refuses the entry "${entry}"`, () => {
        expect(() => allowHosts([entry])).to.throw(FullstopError, 'HOST:PORT');
      });
    }
  });
});
