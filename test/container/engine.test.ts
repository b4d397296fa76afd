import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { hasCode } from '../../src/errors.ts';
import { ContainerEngine } from '../../src/worker/container-engine.ts';

describe('an answer of the container engine', () => {
  let server: Server;
  let engine: ContainerEngine;
  let answer: [status: number, message: string];

  beforeEach(async () => {
    server = createServer((_, response) => {
      const [status, message] = answer;
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ message }));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    engine = new ContainerEngine(`tcp://127.0.0.1:${(server.address() as AddressInfo).port}`);
  });

  afterEach(async () => {
    engine.close();
    const closed = once(server, 'close');
    server.close();
    await closed;
  });

  const goneAs: [status: number, message: string][] = [
    [404, 'No such container: c'],
    [404, 'no container with name or ID "c" found: no such container'],
    [500, 'container c does not exist in database: no such container'],
  ];
  for (const [status, message] of goneAs) {
    it(`says that it is gone: ${status} ${message}`, async () => {
      answer = [status, message];
      expect(await engine.state('c')).to.equal(null);
    });
  }

  it('proves nothing when it is another fault', async () => {
    answer = [500, 'database is locked'];
    const fault = await engine.state('c').catch((error: unknown) => error);
    expect(hasCode(fault, 'FS_CONTAINER_ENGINE')).to.equal(true);
  });
});
