/** Servers of several engines on one store, their bus in the hands of a test. */
import { expect } from 'chai';
import { pino } from 'pino';
import { io, type Socket } from 'socket.io-client';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import type { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds, systemTokens } from '../../src/adapters/system/ids.ts';
import { resolveConfig } from '../../src/config.ts';
import type { EngineApi } from '../../src/engine/api.ts';
import { composeEngine } from '../../src/runtime.ts';
import { hashKey } from '../../src/server/access.ts';
import { createServer, type RunningServer } from '../../src/server/server.ts';
import { createExecutors } from '../../src/worker/executors.ts';
import { createInProcessPool, type InProcessPool } from '../../src/worker/pool.ts';
import { Endpoint } from '../support/endpoint.ts';
import { type Data, until } from '../support/server-process.ts';
import { busOver, Wire } from './links.ts';
import { ADMIN_KEY } from './support.ts';

const STOPPED = 'workflow stopped by user';

class Member {
  readonly bus: SocketIoBus;
  readonly engine: EngineApi;
  readonly #pool: InProcessPool;
  readonly #store: MemoryStore;
  readonly #expressions = createExpressions();
  #server: RunningServer | null = null;
  #sockets: Socket[] = [];
  gone: string[] = [];

  constructor(store: MemoryStore, wire: Wire, allowed: string) {
    this.#store = store;
    this.bus = busOver(wire.link(), 500);
    const config = resolveConfig({ FULLSTOP_HTTP_ALLOW: allowed });
    const executors = createExecutors({ config, containers: null, env: {}, allow: () => false });
    this.#pool = createInProcessPool({ executors, clock: systemClock });
    const logger = pino({ level: 'silent' });
    this.engine = composeEngine(
      {
        store,
        bus: this.bus,
        clock: systemClock,
        ids: systemIds,
        expressions: this.#expressions,
        work: this.#pool,
        tokens: systemTokens,
        log: logger,
      },
      { url: () => this.#server?.url ?? null, onGone: (why) => this.gone.push(why) },
    );
  }

  async open(): Promise<void> {
    await this.bus.open();
    await this.engine.start();
    this.#server = await createServer({
      store: this.#store,
      engine: this.engine,
      workers: this.engine.workers,
      bus: this.bus,
      clock: systemClock,
      ids: systemIds,
      logger: pino({ level: 'silent' }),
      config: { host: '127.0.0.1', port: 0, adminKeyHash: hashKey(ADMIN_KEY), drainMs: 0 },
    });
  }

  get url(): string {
    return this.#server?.url ?? '';
  }

  async http(method: string, path: string, body?: unknown, key = ADMIN_KEY): Promise<{ status: number; data: Data }> {
    const answer = await fetch(this.url + path, {
      method,
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    return { status: answer.status, data: text === '' ? null : JSON.parse(text) };
  }

  async socket(key = ADMIN_KEY): Promise<Socket> {
    const socket = io(this.url, {
      auth: { token: key },
      transports: ['websocket'],
      forceNew: true,
      reconnection: false,
    });
    this.#sockets.push(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
    });
    return socket;
  }

  /** What a client hears that follows an execution here. */
  async follow(id: string): Promise<{ seqs: number[]; types: string[] }> {
    const heard: { seqs: number[]; types: string[] } = { seqs: [], types: [] };
    const socket = await this.socket();
    socket.on('execution.event', ({ event }: Data) => {
      heard.seqs.push(event.seq);
      heard.types.push(event.type);
    });
    await socket.emitWithAck('execution.subscribe', { id, from: 1 });
    return heard;
  }

  record(id: string): Promise<Data> {
    const read = async () => (await this.http('GET', `/api/executions/${id}`)).data;
    return until(`execution ${id}`, read, (record) => record.endedAt !== null);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets.splice(0)) socket.disconnect();
    await this.engine.drain(0);
    await this.#server?.close();
    await this.#pool.close();
    await this.#expressions.close();
    await this.bus.close();
  }
}

describe('servers of several engines', function () {
  this.timeout(60_000);
  let endpoint: Endpoint;
  let store: MemoryStore;
  let wire: Wire;
  let members: [Member, Member, Member];

  beforeEach(async () => {
    endpoint = await Endpoint.start();
    store = createMemoryStore({ cluster: true });
    await store.open();
    wire = new Wire();
    const member = (): Member => new Member(store, wire, endpoint.host);
    members = [member(), member(), member()];
    for (const one of members) await one.open();
    for (const one of members) {
      const list = async () => (await one.http('GET', '/api/engines')).data.items.map(({ url }: Data) => url);
      await until('engines', list, (urls: string[]) => members.every(({ url }) => urls.includes(url)));
    }
  });
  afterEach(async () => {
    wire.copies = () => 1;
    for (const one of members) await one.close();
    await endpoint.close();
    await store.close();
  });

  /** An execution of the first engine whose call waits at the endpoint. */
  async function park(): Promise<string> {
    const [first] = members;
    const call = { type: 'http', with: { url: `${endpoint.url}/park` } };
    await first.http('POST', '/api/workflows', { name: 'parked', nodes: { call } });
    const { id } = (await first.http('POST', '/api/executions', { workflow: 'parked' })).data;
    await endpoint.calling(id);
    return id;
  }

  const inOrder = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1);

  for (const [how, copies, path] of [
    ['with a bus', 1, 'bus'],
    ['with a bus that doubles everything', 2, 'bus'],
    ['with a bus that loses everything', 0, 'poll'],
  ] as const) {
    it(`stop at one what another runs, while a client of a third hears every event (${how})`, async () => {
      const [first, second, third] = members;
      const id = await park();
      wire.copies = () => copies;
      const heard = await third.follow(id);
      const atMs = performance.now();
      expect((await second.http('POST', `/api/executions/${id}/stop`)).status).to.equal(202);
      await endpoint.calling(id, ([one]) => one?.end === 'aborted');
      expect(performance.now() - atMs).to.be.below(path === 'bus' ? 500 : 3_000);
      const record = await second.record(id);
      expect(record).to.include({ status: 'Failed', error: STOPPED, stoppedByUser: true });
      await until(
        'events',
        async () => heard.types,
        (types) => types.includes('execution.failed'),
        5_000,
      );
      expect(heard.seqs).to.deep.equal(inOrder(record.seq));
      const receipt = (await third.http('GET', `/api/executions/${id}/stop`)).data;
      expect(receipt.delivery.path).to.equal(path);
      expect((await first.http('GET', `/api/executions/${id}/stop`)).data).to.deep.equal(receipt);
    });
  }

  it('tell clients of other engines what becomes of their lists and receipts', async () => {
    const [, second, third] = members;
    const socket = await third.socket();
    const heard: string[] = [];
    socket.onAny((name: string, message: Data) => heard.push(`${name} ${message.status ?? ''}`.trim()));
    await socket.emitWithAck('executions.subscribe', {});
    const id = await park();
    await socket.emitWithAck('execution.subscribe', { id });
    await until(
      'the start',
      async () => heard,
      (all) => all.includes('execution.changed Running'),
    );
    await second.http('POST', `/api/executions/${id}/stop`);
    await until(
      'the end',
      async () => heard,
      (all) => all.includes('execution.changed Failed'),
    );
    expect(heard).to.include.members(['STOP', 'stop.receipt']);
  });

  it('hang up on a deleted key at every engine, and know a set that another one froze', async () => {
    const [first, second] = members;
    const { id: keyId, key } = (await first.http('POST', '/api/keys', { name: 'k', role: 'viewer' })).data;
    const socket = await second.socket(key);
    const gone = new Promise((resolve) => socket.once('disconnect', resolve));
    await first.http('DELETE', `/api/keys/${keyId}`);
    await gone;
    expect((await second.http('GET', '/api/executions', undefined, key)).status).to.equal(401);

    const id = await park();
    const frozen = await first.http('POST', '/api/stops', { filter: { workflow: 'parked' }, dryRun: true });
    const stopped = await second.http('POST', '/api/stops', { setId: frozen.data.setId });
    expect(stopped.data.requested).to.deep.equal([id]);
    expect(await first.record(id)).to.include({ error: STOPPED });
  });

  it('say who runs what is to be inspected', async () => {
    const [first, second] = members;
    const id = await park();
    expect((await first.http('POST', `/api/executions/${id}/inspections`)).status).to.equal(201);
    const refused = await second.http('POST', `/api/executions/${id}/inspections`);
    expect([refused.status, refused.data.code]).to.deep.equal([409, 'FS_CONFLICT']);
    expect(refused.data.details).to.deep.equal({ engine: first.engine.id, url: first.url });
  });

  it('pass a drain on to the engine that is meant, and know no other', async () => {
    const [first, second] = members;
    expect((await first.http('POST', '/api/engines/nobody/drain')).status).to.equal(404);
    const answer = await first.http('POST', `/api/engines/${second.engine.id}/drain`);
    expect([answer.status, answer.data.status, answer.data.url]).to.deep.equal([202, 'draining', second.url]);
    await until(
      'the drain',
      async () => second.gone,
      (gone) => gone.includes('drain'),
    );
    expect(first.gone).to.deep.equal([]);
  });
});
