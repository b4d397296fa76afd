/** Bad input gets a coded error and changes nothing; the server lives. SEED repeats a run. */
import { connect } from 'node:net';
import { expect } from 'chai';
import fc from 'fast-check';
import { verbs } from '../../src/server/verbs/table.ts';
import { seedOfRun } from '../support/seeds.ts';
import { ADMIN_KEY, ask, openWorld, type World } from './support.ts';

const codes = ['FS_INVALID', 'FS_NOT_FOUND', 'FS_TOO_LARGE', 'FS_CONFLICT', 'FS_ENDED', 'FS_GONE'];

describe('bad input', () => {
  let world: World;
  let id: string;
  let seed: number;
  before(async () => {
    seed = seedOfRun();
    world = await openWorld();
    id = await world.running('default');
  });
  after(() => world.close());
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') console.log(`    SEED=${seed}`);
    await untouched();
  });

  /** The server answers, and what there was is as it was. */
  async function untouched(): Promise<void> {
    expect((await world.http(ADMIN_KEY, 'GET', '/api/health')).status).to.equal(200);
    const header = await world.store.getHeader(id);
    expect([header?.status, header?.stop, header?.seq]).to.deep.equal(['Running', null, 1]);
    expect(await world.store.countExecutions({ project: null })).to.equal(1);
    expect(await world.store.listDefinitions(null)).to.deep.equal([]);
    expect(await world.store.listKeys(null)).to.deep.equal([]);
    expect(world.engine.admissionPaused()).to.equal(false);
    expect(world.engine.drains).to.equal(0);
    expect(world.logged.filter((line) => line.includes('"level":50'))).to.deep.equal([]);
    expect(({} as { polluted?: unknown }).polluted).to.equal(undefined);
  }

  const badIds = [
    { $ne: null },
    { $gt: '' },
    [],
    null,
    1,
    true,
    '',
    'x',
    '../..',
    `${'0'.repeat(8)}`,
    "'; DROP TABLE executions; --",
  ];

  it('as an id is 400', async () => {
    const socket = await world.connect(ADMIN_KEY);
    for (const verb of verbs.filter((each) => 'id' in each.params && each.name !== 'engine.drain')) {
      for (const bad of badIds) {
        const answer = await ask(socket, verb.name, { id: bad, name: 'approve' });
        expect(answer, `${verb.name} ${JSON.stringify(bad)}`).to.have.nested.property('error.code', 'FS_INVALID');
        const path = verb.http.path
          .replace(':name', 'approve')
          .replace(':id', encodeURIComponent(typeof bad === 'string' ? bad : JSON.stringify(bad)));
        const { status } = await world.http(ADMIN_KEY, verb.http.method, path);
        expect(status, `${verb.http.method} ${path}`).to.be.oneOf(bad === '' || bad === '../..' ? [400, 404] : [400]);
      }
    }
  });

  it('of any shape for any verb is a coded error', async () => {
    const socket = await world.connect(ADMIN_KEY);
    const keys = fc.constantFrom(
      'id',
      'name',
      'filter',
      'setId',
      'definition',
      'paused',
      'payload',
      'from',
      'project',
      '$ne',
      '__proto__',
      'constructor',
      'x',
    );
    const anything = fc.oneof(
      fc.anything({ key: keys, maxDepth: 3 }),
      fc.dictionary(keys, fc.jsonValue()),
      fc.jsonValue(),
    );
    const quiet = new Set([
      'health',
      'workflow.list',
      'execution.list',
      'key.list',
      'engine.list',
      'worker.list',
      'audit.list',
      'executions.unsubscribe',
      'executions.subscribe',
    ]);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...verbs.filter(({ name }) => !quiet.has(name)), ...verbs),
        anything,
        async (verb, payload) => {
          const wire = toWire({
            ...(typeof payload === 'object' && payload !== null && !Array.isArray(payload) ? payload : { payload }),
            surplus: 1,
          });
          const answer = await ask(socket, verb.name, wire);
          if (answer.ok) throw new Error(`${verb.name} took ${JSON.stringify(wire)}`);
          expect(answer.error.code).to.be.oneOf(codes);
          expect(answer.error).to.have.all.keys('code', 'message', 'details');
          if (verb.http.method === 'GET') return;
          const { path } = verb.http;
          const http = await world.http(
            ADMIN_KEY,
            verb.http.method,
            path.replace(':id', id).replace(':name', 'approve'),
            JSON.stringify(wire),
          );
          expect(http.data?.code, `${http.status} ${http.text}`).to.be.oneOf(codes);
        },
      ),
      { seed, numRuns: 300 },
    );
  }).timeout(20_000);

  it('that is no JSON, or reaches for prototypes, or nests deep, is 400', async () => {
    const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
    const bodies = [
      '{',
      'nope',
      '"\\ud800',
      '[1,]',
      '\u0000',
      `{"payload":${deep(100)}}`,
      `{"payload":${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
      '{"__proto__":{"polluted":1}}',
      '{"payload":{"a":[{"__proto__":{"polluted":1}}]}}',
      '{"constructor":{"prototype":{"polluted":1}}}',
    ];
    for (const body of bodies) {
      const answer = await world.http(ADMIN_KEY, 'POST', `/api/executions/${id}/triggers/approve`, body);
      expect([answer.status, answer.data.code], body.slice(0, 60)).to.deep.equal([400, 'FS_INVALID']);
    }
    const socket = await world.connect(ADMIN_KEY);
    for (const body of bodies.filter((each) => each.length < 10_000 && isJson(each))) {
      const answer = await ask(socket, 'execution.trigger', {
        id,
        name: 'approve',
        ...JSON.parse(body),
        payload: JSON.parse(body),
      });
      expect(answer, body.slice(0, 60)).to.have.nested.property('error.code', 'FS_INVALID');
    }
    // Too deep for the client library to send.
    const frame = `421["execution.trigger",{"id":"${id}","name":"approve","payload":${'['.repeat(100_000)}${']'.repeat(100_000)}}]`;
    const answers = await exchange(world.server.url, [`40${JSON.stringify({ token: ADMIN_KEY })}`, frame], 300);
    expect(answers.find((text) => text.startsWith('431'))).to.include('FS_INVALID');
  });

  it('of 10 MB is 413 over HTTP, and closes a socket', async () => {
    const large = 'x'.repeat(10_000_000);
    const answer = await world
      .http(ADMIN_KEY, 'POST', `/api/executions/${id}/triggers/approve`, { payload: large })
      .catch(() => null);
    if (answer !== null) expect([answer.status, answer.data.code]).to.deep.equal([413, 'FS_TOO_LARGE']);
    const justOver = await world.http(ADMIN_KEY, 'POST', '/api/workflows', 'x'.repeat(1_048_577), {
      'content-type': 'application/yaml',
    });
    expect([justOver.status, justOver.data.code]).to.deep.equal([413, 'FS_TOO_LARGE']);
    const socket = await world.connect(ADMIN_KEY);
    const gone = new Promise<void>((resolve) => socket.on('disconnect', () => resolve()));
    socket.emit('execution.trigger', { id, name: 'approve', payload: large });
    await gone;
  }).timeout(20_000);

  it('of another content type, or with an unknown query, is 400', async () => {
    const path = `/api/executions/${id}/stop`;
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'application/yaml']) {
      const answer = await world.http(ADMIN_KEY, 'POST', path, '{}', { 'content-type': type });
      expect(answer.data.code, type).to.equal('FS_INVALID');
    }
    for (const query of ['?force=true', '?a=1&a=2', '?__proto__=1', '?preview=true']) {
      expect((await world.http(ADMIN_KEY, 'POST', path + query)).status, query).to.equal(400);
    }
    expect((await world.http(ADMIN_KEY, 'GET', '/api/%ff')).data.code).to.equal('FS_INVALID');
  });

  it('as an event nobody knows is answered where there is an ack', async () => {
    const socket = await world.connect(ADMIN_KEY);
    for (const name of ['nope', 'execution.kill', '__proto__', 'constructor', 'toString', 'STOP', 'x'.repeat(10_000)]) {
      expect(await ask(socket, name, {})).to.have.nested.property('error.code', 'FS_INVALID');
      socket.emit(name, {});
    }
    expect(await socket.timeout(5_000).emitWithAck('execution.stop')).to.have.nested.property(
      'error.code',
      'FS_INVALID',
    );
    expect(await socket.timeout(5_000).emitWithAck('execution.stop', { id }, { id })).to.have.nested.property(
      'error.code',
      'FS_INVALID',
    );
    expect(
      await ask(socket, 'execution.trigger', { id, name: 'approve', payload: Buffer.from('x') }),
    ).to.have.nested.property('error.code', 'FS_INVALID');
  });

  it('below the protocol of the socket ends that socket alone', async () => {
    const frames = fc.oneof(
      fc.string(),
      fc.constantFrom(
        '40',
        '42',
        '42[',
        '42[]',
        '42["execution.stop"',
        '42{"a":1}',
        '4',
        '45-',
        '451-["x",{"_placeholder":true,"num":0}]',
        '43[]',
        '41',
        '2',
        '42["disconnect"]',
        '42["connection",1]',
        '42[null]',
        '42[{"a":1}]',
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(frames, { maxLength: 5 }), fc.boolean(), async (texts, authenticated) => {
        await exchange(world.server.url, [
          ...(authenticated ? [`40${JSON.stringify({ token: ADMIN_KEY })}`] : []),
          ...texts,
        ]);
        expect((await world.http(null, 'GET', '/api/health')).status).to.equal(200);
      }),
      { seed, numRuns: 60 },
    );
  }).timeout(20_000);

  it('below HTTP is answered with 400 or hung up on', async () => {
    const { hostname, port } = new URL(world.server.url);
    for (const bytes of [
      '\u0000\u0001\u0002',
      'NOPE / HTTP/9.9\r\n\r\n',
      'GET / HTTP/1.1\r\n\r\n',
      'POST /api/stops HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n',
      `GET / HTTP/1.1\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`,
    ]) {
      const answer = await new Promise<string>((resolve) => {
        let text = '';
        const socket = connect(Number(port), hostname, () => socket.end(bytes));
        socket.on('data', (data) => {
          text += data;
        });
        socket.on('error', () => resolve(text));
        socket.on('close', () => resolve(text));
      });
      expect(answer).to.match(/^(HTTP\/1\.1 4\d\d|$)/);
    }
  });

  it('never reaches an answer as something the program did not mean', () => {
    expect(
      world.logged.filter((line) => line.includes('call failed') || line.includes('request failed')),
    ).to.deep.equal([]);
  });
});

/** What arrives of a value that a client emits: JSON, or nothing that can be sent. */
function toWire(value: unknown): unknown {
  try {
    return JSON.parse(
      JSON.stringify(value, (_key, inner) => (typeof inner === 'bigint' ? String(inner) : inner)) ?? 'null',
    );
  } catch {
    return null;
  }
}

function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === 'object';
  } catch {
    return false;
  }
}

/** Sends text frames on a bare WebSocket and gives what came back until it closed, or for `ms`. */
function exchange(url: string, frames: string[], ms = 30): Promise<string[]> {
  return new Promise((resolve) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
    const heard: string[] = [];
    const done = (): void => {
      socket.close();
      resolve(heard);
    };
    socket.addEventListener('message', ({ data }) => void heard.push(String(data)));
    socket.addEventListener('open', () => {
      for (const frame of frames) socket.send(frame);
      setTimeout(done, ms);
    });
    socket.addEventListener('close', done);
    socket.addEventListener('error', done);
  });
}
