/** Several engines in processes of their own on one replica set. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { MongoClient } from 'mongodb';
import type { Socket } from 'socket.io-client';
import { createMongoStore } from '../../src/adapters/mongo/store.ts';
import type { ExecutionStore } from '../../src/ports/store.ts';
import { Endpoint } from '../support/endpoint.ts';
import { EngineProcesses } from '../support/engine-processes.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { TestRedis } from '../support/redis.ts';
import { type Data, ServerProcess, until } from '../support/server-process.ts';
import { WorkerProcess } from '../support/worker-process.ts';

const STOPPED = 'workflow stopped by user';

describe('several engines in processes of their own', function () {
  this.timeout(180_000);
  let mongo: TestMongo;
  let uri: string;
  let engines: EngineProcesses;
  let endpoint: Endpoint;
  let store: ExecutionStore;
  const sockets: Socket[] = [];
  const workers: WorkerProcess[] = [];

  const uriOf = (database: string): string => mongo.uri.replace(/\/(?=\?|$)/, `/${database}`);

  before(async function () {
    mongo = await mongoOrSkip(this, { members: 3 });
    const database = mongo.freshDatabase();
    uri = uriOf(database);
    endpoint = await Endpoint.start();
    store = createMongoStore({ uri, database });
    await store.open();
  });
  after(async () => {
    await store?.close();
    await endpoint?.close();
    await mongo?.close();
  });
  /** Three, for all tests of a group; or for each test, which may end them. */
  function useEngines(span: 'group' | 'test', env: () => Record<string, string> = () => ({})): void {
    const [open, close] = span === 'group' ? [before, after] : [beforeEach, afterEach];
    open(() => start(env()));
    close(() => engines?.close());
    afterEach(async () => {
      for (const socket of sockets.splice(0)) socket.disconnect();
      for (const worker of workers.splice(0)) if (worker.running) await worker.kill();
      if (span === 'group') await engines.at(0).http('POST', '/api/stops', { filter: { all: true } });
    });
  }

  async function start(env: Record<string, string>): Promise<void> {
    const common = { FULLSTOP_HTTP_ALLOW: endpoint.host, FULLSTOP_DRAIN_MS: '500' };
    engines = await EngineProcesses.start({ uri, env: { ...common, ...env } });
  }

  /** One http node that waits at the endpoint for its answer. */
  const parked = () => ({ name: 'parked', nodes: { call: { type: 'http', with: { url: `${endpoint.url}/park` } } } });
  const stop = (server: ServerProcess, id: string): Promise<Data> => server.ok('POST', `/api/executions/${id}/stop`);
  const receiptOf = (server: ServerProcess, id: string): Promise<Data> =>
    server.ok('GET', `/api/executions/${id}/stop`);

  async function ownerOf(id: string): Promise<ServerProcess> {
    const owner = (await store.getHeader(id))?.owner.engine;
    for (const server of engines.all) if (server.running && (await engines.idOf(server)) === owner) return server;
    throw new Error(`nobody owns ${id}`);
  }
  const othersOf = (server: ServerProcess): ServerProcess[] =>
    engines.all.filter((other) => other !== server && other.running);

  /** What a client that follows an execution at this engine hears, in order. */
  async function follow(server: ServerProcess, id: string): Promise<{ seqs: number[]; types: string[] }> {
    const heard: { seqs: number[]; types: string[] } = { seqs: [], types: [] };
    const socket = await server.socket();
    sockets.push(socket);
    socket.on('execution.event', ({ event }: Data) => {
      heard.seqs.push(event.seq);
      heard.types.push(event.type);
    });
    const answer = await socket.emitWithAck('execution.subscribe', { id, from: 1 });
    expect(answer.ok).to.equal(true);
    return heard;
  }

  /** Starts that many at one engine and waits until each has called; by placement some may be of others. */
  async function park(server: ServerProcess, count: number): Promise<string[]> {
    await server.ok('POST', '/api/workflows', parked());
    const start = async (): Promise<string> =>
      (await server.ok('POST', '/api/executions', { workflow: 'parked' })).id as string;
    const ids = await Promise.all(Array.from({ length: count }, start));
    await Promise.all(ids.map((id) => endpoint.calling(id)));
    return ids;
  }

  async function parkAtOne(): Promise<{ id: string; owner: ServerProcess; others: ServerProcess[] }> {
    const [id] = await park(engines.at(0), 1);
    if (id === undefined) throw new Error('nothing started');
    const owner = await ownerOf(id);
    return { id, owner, others: othersOf(owner) };
  }

  /** The path by which the owner heard is `path`. */
  async function stopElsewhere(path: 'bus' | 'poll'): Promise<void> {
    const { id, others } = await parkAtOne();
    const [asked, watched] = others as [ServerProcess, ServerProcess];
    const heard = await follow(watched, id);
    const atMs = performance.now();
    const { requestId } = await stop(asked, id);
    await endpoint.calling(id, ([one]) => one?.end === 'aborted');
    expect(performance.now() - atMs).to.be.below(path === 'bus' ? 1_000 : 3_000);
    const record = await asked.record(id);
    expect(record).to.include({ status: 'Failed', error: STOPPED, stoppedByUser: true });
    const receipt = await receiptOf(watched, id);
    expect(receipt).to.include({ requestId }).and.to.nested.include({ 'delivery.path': path });
    expect(receipt.tasks[0].outcome).to.equal('aborted');
    await until(
      'the events',
      async () => heard.types,
      (types) => types.includes('execution.failed'),
      5_000,
    );
    expect(heard.seqs).to.deep.equal(Array.from({ length: record.seq }, (_, index) => index + 1));
  }

  describe('that stay', () => {
    useEngines('group');

    it('stop at one what another runs, while a client of a third hears every event in order', () =>
      stopElsewhere('bus'));

    it('list each other, with addresses, and the workers of all', async () => {
      const worker = await WorkerProcess.start(engines.at(1), 'worker', {
        env: { FULLSTOP_HTTP_ALLOW: endpoint.host, FULLSTOP_SLOTS: '8' },
      });
      workers.push(worker);
      for (const server of engines.all) {
        const { items } = await server.ok('GET', '/api/engines');
        expect(items.map(({ url }: Data) => url)).to.have.members(engines.all.map(({ url }) => url));
        await until(
          'the workers',
          async () => (await server.ok('GET', '/api/workers')).items.map(({ id }: Data) => id),
          (ids: string[]) => ids.includes(worker.id),
        );
      }
    });

    it('know a set that another one froze, and hang up on the key that another one deleted', async () => {
      const [a, b] = [engines.at(0), engines.at(1)];
      const ids = await park(a, 3);
      const { setId, matched } = await a.ok('POST', '/api/stops', { filter: { workflow: 'parked' }, dryRun: true });
      expect(matched).to.equal(3);
      const answer = await b.ok('POST', '/api/stops', { setId });
      expect(answer.requested).to.have.members(ids);
      for (const id of ids) expect(await b.record(id)).to.include({ error: STOPPED });

      const { id: keyId, key } = await a.ok('POST', '/api/keys', { name: 'k', role: 'viewer' });
      const socket = await b.socket(key);
      sockets.push(socket);
      const gone = new Promise<string>((resolve) => socket.once('disconnect', resolve));
      await a.ok('DELETE', `/api/keys/${keyId}`);
      await gone;
      expect((await b.http('GET', '/api/executions', undefined, { key })).status).to.equal(401);
    });

    it('say who runs an execution that is to be inspected elsewhere', async () => {
      const { id, owner, others } = await parkAtOne();
      expect((await owner.http('POST', `/api/executions/${id}/inspections`)).status).to.equal(201);
      const [other] = others as [ServerProcess];
      const refused = await other.http('POST', `/api/executions/${id}/inspections`);
      expect([refused.status, refused.data.code]).to.deep.equal([409, 'FS_CONFLICT']);
      expect(refused.data.details).to.deep.equal({ engine: await engines.idOf(owner), url: owner.url });
    });

    it('send at most four commands a second each while nothing happens, whatever they hold', async () => {
      const hold = { name: 'idle', nodes: { wait: { type: 'hold', trigger: 'go' } } };
      for (const server of engines.all) {
        const id = await server.run(hold);
        await server.record(id, (record) => record.nodes.wait?.status === 'Held');
      }
      const seconds = 8;
      const client = new MongoClient(uri);
      try {
        await client.db().command({ profile: 2 });
        await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
        await client.db().command({ profile: 0 });
        const own = { appName: /^fullstop/, op: { $ne: 'getmore' } };
        const sent = await client.db().collection('system.profile').countDocuments(own);
        expect(sent / seconds / engines.all.length).to.be.within(0.5, 4);
      } finally {
        await client.close();
      }
    });

    it('are a new engine each when they slept past their lease, and lose nothing', async () => {
      const { id, owner } = await parkAtOne();
      const before = await engines.idOf(owner);
      const { pid } = owner;
      if (pid === null) throw new Error('it does not run');
      process.kill(pid, 'SIGSTOP');
      const calls = await endpoint.calling(id, (all) => all.length === 2, 30_000);
      process.kill(pid, 'SIGCONT');
      const health = async (): Promise<Data> => (await owner.http('GET', '/api/health')).data;
      await until('the new engine', health, ({ status, engine }) => status === 'ok' && engine.id !== before, 30_000);
      // What the former engine called is given up, the call of the heir counts.
      await endpoint.calling(id, ([first]) => first?.end === 'aborted');
      calls[1]?.answer(200, { ok: true });
      expect(await owner.record(id)).to.include({ status: 'Complete' });
      const next = await owner.run(parked());
      (await endpoint.calling(next))[0]?.answer(200, {});
      expect(await owner.record(next)).to.include({ status: 'Complete' });
    });

    it('come back when the database was away for longer than a lease', async () => {
      const { id } = await parkAtOne();
      const pids = (mongo.set?.servers ?? []).map(
        (server) => server.instanceInfo?.instance.mongodProcess?.pid as number,
      );
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      await new Promise((resolve) => setTimeout(resolve, 12_000));
      for (const pid of pids) process.kill(pid, 'SIGCONT');
      const calls = await endpoint.calling(id, (all) => all.some(({ end }) => end === null) && all.length >= 2, 60_000);
      for (const call of calls) if (call.end === null) call.answer(200, { ok: true });
      const record = await until(
        'the record',
        () => engines.at(0).http('GET', `/api/executions/${id}`),
        ({ status, data }) => status === 200 && data.endedAt !== null,
        30_000,
      );
      expect(record.data).to.include({ status: 'Complete' });
      for (const server of engines.all) expect(server.running).to.equal(true);
    });
  });

  it('start where there is no data directory yet', async () => {
    const parent = mkdtempSync(join(tmpdir(), 'fullstop-parent-'));
    const server = new ServerProcess({
      // Those of the other tests do not list it.
      env: { MONGODB_URI: uriOf(mongo.freshDatabase()), FULLSTOP_ADMIN_KEY: 'fs_0123456789abcdef' },
      dataDir: join(parent, 'data'),
    });
    try {
      await server.start();
      expect((await server.http('GET', '/api/health')).status).to.equal(200);
    } finally {
      await server.close();
      rmSync(parent, { recursive: true });
    }
  });

  describe('that go', () => {
    useEngines('test');

    it('take over what a killed one ran, and end what was stopped', async () => {
      const ids = await park(engines.at(0), 6);
      const victim = await ownerOf(ids[0] as string);
      const own: string[] = [];
      for (const id of ids) if ((await ownerOf(id)) === victim) own.push(id);
      const [stopped, ...goOn] = own as [string, ...string[]];
      await victim.kill();
      const [other] = othersOf(victim) as [ServerProcess];
      const atMs = performance.now();
      await stop(other, stopped);
      const record = await other.record(stopped);
      expect(record).to.include({ status: 'Failed', error: STOPPED, stoppedByUser: true });
      expect(performance.now() - atMs).to.be.below(15_000);
      expect((await receiptOf(other, stopped)).delivery.path).to.equal('takeover');
      for (const id of goOn) {
        const calls = await endpoint.calling(id, (all) => all.length === 2);
        calls[1]?.answer(200, { ok: true });
        expect(await other.record(id)).to.include({ status: 'Complete' });
      }
      // None of what the others ran was touched.
      for (const id of ids) if (!own.includes(id)) expect(endpoint.of(id)).to.have.length(1);
    });

    for (const how of ['asked at another one', 'by SIGTERM'] as const) {
      it(`hand over what a drained one runs (${how}), and it ends`, async () => {
        const hold = {
          name: 'hold',
          nodes: { wait: { type: 'hold', trigger: 'go' }, after: { type: 'set', needs: ['wait'], with: { value: 1 } } },
        };
        const held = await engines.at(0).run(hold);
        await engines.at(0).record(held, (record) => record.nodes.wait?.status === 'Held');
        const drained = await ownerOf(held);
        const [other] = othersOf(drained) as [ServerProcess];
        const called = await park(drained, 3);
        if (how === 'by SIGTERM') drained.send('SIGTERM');
        else await other.ok('POST', `/api/engines/${await engines.idOf(drained)}/drain`);
        const exit = await drained.ended();
        expect([exit.code, exit.signal], exit.stderr).to.deep.equal([0, null]);
        await other.ok('POST', `/api/executions/${held}/triggers/go`, { payload: 1 });
        expect(await other.record(held)).to.include({ status: 'Complete' });
        for (const id of called) {
          await until(
            'its owner',
            // In between it has none among those that are there.
            () =>
              ownerOf(id).then(
                (owner) => owner !== drained,
                () => false,
              ),
            (moved) => moved,
          );
          const open = await endpoint.calling(id, (calls) => calls.some(({ end }) => end === null));
          for (const each of open) if (each.end === null) each.answer(200, {});
          expect(await other.record(id)).to.include({ status: 'Complete' });
        }
      });
    }
  });

  describe('that run no task themselves', () => {
    useEngines('test', () => ({ FULLSTOP_SLOTS: '0' }));

    it('let a worker of one serve the tasks of another, and a third stop them', async () => {
      workers.push(await WorkerProcess.start(engines.at(1), 'worker', { env: { FULLSTOP_HTTP_ALLOW: endpoint.host } }));
      const ids = await park(engines.at(0), 4);
      const owner = await ownerOf(ids[0] as string);
      const asked = othersOf(owner).at(-1) as ServerProcess;
      const atMs = performance.now();
      await stop(asked, ids[0] as string);
      await endpoint.calling(ids[0] as string, ([one]) => one?.end === 'aborted');
      expect(performance.now() - atMs).to.be.below(1_000);
      expect(await asked.record(ids[0] as string)).to.include({ error: STOPPED });
      for (const id of ids.slice(1)) {
        endpoint.of(id)[0]?.answer(200, { ok: true });
        const record = await asked.record(id);
        expect(record).to.include({ status: 'Complete' });
        expect(record.nodes.call).to.include({ where: 'worker', attempt: 1 });
      }
    });
  });

  describe('with Redis for a bus', () => {
    let redis: TestRedis;
    before(async function () {
      const started = await TestRedis.start();
      if (typeof started === 'string') {
        console.log(`      skipped: ${started}`);
        this.skip();
      }
      redis = started;
    });
    useEngines('group', () => ({ REDIS_URL: redis.url }));
    after(() => redis?.close());

    it('stop at one what another runs, while a client of a third hears every event in order', () =>
      stopElsewhere('bus'));

    it('do the same without it, by looking', async () => {
      await redis.kill();
      await stopElsewhere('poll');
      await redis.run();
    });
  });
});

describe('npm run cluster', function () {
  this.timeout(180_000);
  it('starts three engines and a worker, and leaves nothing when it is told to end', async () => {
    const file = join(import.meta.dirname, '..', 'support', 'cluster.ts');
    const child = spawn(process.execPath, [file, '--port', '0'], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    }
    const code = new Promise<number | null>((resolve) => child.once('exit', resolve));
    let links: string[] = [];
    try {
      await until(
        'the cluster',
        async () => said,
        (text) => text.includes('Ctrl-C ends it all'),
        120_000,
      );
      links = [...said.matchAll(/http:\/\/127\.0\.0\.1:\d+(?=\/first-visit)/g)].map(([url]) => url);
      const authorization = `Bearer ${/FULLSTOP_KEY=(\S+)/.exec(said)?.[1]}`;
      const urls = async (): Promise<unknown[]> => {
        const answer = await fetch(`${links[0]}/api/engines`, { headers: { authorization } });
        return ((await answer.json()) as { items: { url: string }[] }).items.map(({ url }) => url);
      };
      await until('the engines', urls, (found) => links.length === 3 && links.every((link) => found.includes(link)));
    } finally {
      child.kill('SIGINT');
    }
    expect(await code).to.equal(0);
    for (const link of links) expect(await fetch(link).catch(() => 'gone')).to.equal('gone');
  });
});
