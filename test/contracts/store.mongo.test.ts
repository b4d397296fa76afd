import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { MongoClient, MongoServerClosedError } from 'mongodb';
import { passes } from '../../src/adapters/mongo/connection.ts';
import { createMongoStore, type MongoExecutionStore } from '../../src/adapters/mongo/store.ts';
import { hasCode, messageOf } from '../../src/errors.ts';
import type { TaskRow } from '../../src/ports/task-queue.ts';
import type { Json } from '../../src/wire.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { clusterStoreContract, type OpenedCluster } from './cluster.contract.ts';
import { LosingProxy } from './losing-proxy.ts';
import { child, commit, event, finalCommit, header, id, newExecution, node, result, T0 } from './rows.ts';
import { executionStoreContract, rejection } from './store.contract.ts';
import { taskQueueContract } from './task-queue.contract.ts';

describe('on one member of MongoDB', () => {
  let mongo: TestMongo;
  let client: MongoClient;
  let database: string;

  before(async function () {
    mongo = await mongoOrSkip(this);
    client = new MongoClient(mongo.uri);
    database = mongo.freshDatabase();
  });

  after(async () => {
    await client?.close();
    await mongo?.close();
  });

  async function openMongo(): Promise<OpenedCluster> {
    let store = createMongoStore({ uri: mongo.uri, database });
    await store.open();
    return {
      store,
      silence: async (engineId, ms) => {
        const engines = client.db(database).collection<{ _id: string }>('engines');
        await engines.updateOne({ _id: engineId }, [{ $set: { at: { $subtract: ['$at', ms] } } }]);
      },
      reopen: async () => {
        await store.close();
        store = createMongoStore({ uri: mongo.uri, database });
        await store.open();
        return store;
      },
      close: async () => {
        await store.close();
        await empty();
      },
    };
  }

  /** Quicker than to drop the database, and all its indexes. */
  async function empty(): Promise<void> {
    const db = client.db(database);
    const collections = await db.collections();
    await Promise.all(collections.map((collection) => collection.deleteMany({})));
  }

  executionStoreContract('mongo', openMongo);
  taskQueueContract('mongo', openMongo);
  clusterStoreContract('mongo', openMongo);

  describe('the mongo store in its database', () => {
    const [a, b, c] = [id('a'), id('b'), id('c')];
    let store: MongoExecutionStore;

    const open = async (uri = mongo.uri): Promise<MongoExecutionStore> => {
      const opened = createMongoStore({ uri, database });
      await opened.open();
      return opened;
    };
    const collection = (name: string) =>
      client.db(database).collection<Record<string, unknown> & { _id: string }>(name);

    beforeEach(async () => {
      store = await open();
    });

    afterEach(async () => {
      await store.close();
      await empty();
    });

    it('refuses the database of a newer version', async () => {
      await collection('meta').updateOne({ _id: 'schema' }, { $set: { version: 99 } });
      const refused = await rejection(open());
      expect(hasCode(refused, 'FS_INVALID')).to.equal(true);
      expect(messageOf(refused)).to.include('version 99').and.include(database);
    });

    it('makes an index that is missing anew, and refuses one that is another', async () => {
      const executions = collection('executions');
      await executions.dropIndex('owned');
      await (await open()).close();
      expect((await executions.indexes()).map(({ name }) => name)).to.include('owned');
      await executions.dropIndex('owned');
      await executions.createIndex({ engine: -1 }, { name: 'owned' });
      const refused = await rejection(open());
      expect(hasCode(refused, 'FS_INVALID')).to.equal(true);
      expect(messageOf(refused)).to.include('drop it');
      await executions.dropIndex('owned');
    });

    it('can be opened by several engines at once', async () => {
      const fresh = mongo.freshDatabase();
      const stores = [1, 2, 3].map(() => createMongoStore({ uri: mongo.uri, database: fresh }));
      await Promise.all(stores.map((each) => each.open()));
      await Promise.all(stores.map((each) => each.close()));
    });

    it('gives JSON back as it was', async () => {
      const odd = JSON.parse(
        '{"$set": {"a.b": 1}, "__proto__": {"x": 1}, "": null, "1.5e300": 1.5e300, "big": 9007199254740993, ' +
          '"small": -1, "real": 0.1, "list": [[], {}], "lone": "\\ud800", "nul": "a\\u0000b", "2": 1, "1": 2}',
      ) as Json;
      const { machine: _machine, ...more } = header({ id: a });
      await store.createExecution(newExecution({ ...more, machine: odd, input: odd, labels: { 'a.b': '$x' } }));
      const key = 'a.b$c%/-';
      const given = node(key, { data: odd, machine: odd, error: 'lone \ud800' });
      await store.commit(
        commit(a, {
          header: { outputs: odd, error: 'lone \ud800' },
          nodes: [given],
          results: [result(a, key, odd)],
          events: [event(2, 'log', { data: odd })],
        }),
      );
      await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: odd, atMs: T0 });
      const loaded = await store.load(a);
      expect(loaded?.nodes).to.deep.equal([given]);
      expect(loaded?.header).to.deep.include({ outputs: odd, input: odd, machine: odd, error: 'lone \ud800' });
      expect(loaded?.header.labels).to.deep.equal({ 'a.b': '$x' });
      expect(loaded?.triggers[0]?.payload).to.deep.equal(odd);
      expect(await store.readResult(`${a}/${key}/1`)).to.deep.equal(odd);
      expect((await store.readEvents(a, 2, 1)).items[0]?.data).to.deep.equal(odd);
      await store.commit(commit(a, { v: 2, dropNodes: [key] }));
      expect((await store.load(a))?.nodes).to.deep.equal([]);
      expect(await store.readResults(a)).to.deep.equal([]);
    });

    it('writes one document for the commit of a node with its output and events', async () => {
      await store.createExecution(newExecution({ id: a }));
      await store.createExecution(newExecution({ id: b }));
      const writes = await profiled(async () => {
        for (const [index, each] of [a, b, a, b].entries()) {
          const v = Math.floor(index / 2) + 1;
          await store.commit(
            commit(each, {
              v,
              nodes: [node('one/-', { status: 'Complete', hasOutput: true }), node('two/-')],
              results: [result(each, 'one/-', { ok: 'x'.repeat(1_000) }, v)],
              events: [event(2 * v), event(2 * v + 1)],
              tasks: v === 1 ? [task(each)] : [],
              endedTasks: v === 2 ? [task(each).id] : [],
            }),
          );
        }
      });
      expect(writes.map(({ op, ns }) => [op, ns])).to.deep.equal(
        Array.from({ length: 4 }, () => ['update', `${database}.executions`]),
      );
    });

    it('asks little when nothing happens, however many executions are parked', async () => {
      const ids = Array.from({ length: 300 }, (_, index) => id('a').slice(0, -3) + String(index).padStart(3, '0'));
      await Promise.all(ids.map((each) => store.createExecution(newExecution({ id: each }))));
      const beat = {
        id: 'engine-1',
        url: null,
        startedAtMs: T0,
        status: 'serving' as const,
        version: '1',
        executions: { running: 0, pending: 0, parked: 300 },
        leaseMs: 8_000,
        follows: [],
        workers: [],
      };
      await store.cluster.beat(beat);
      const commands = await profiled(async () => {
        await store.cluster.beat(beat);
        await store.cluster.waiting('engine-1', 100);
        await store.cluster.listQueued(['ai'], null, 'engine-1', 100);
      }, true);
      expect(commands.length).to.be.at.most(6);
      const examined = commands.map(({ keysExamined = 0, docsExamined = 0 }) => keysExamined + docsExamined);
      expect(Math.max(...examined)).to.be.at.most(5);
    });

    it('moves events and outputs out of a header that is full, and finds them all', async () => {
      await store.createExecution(newExecution({ id: a }));
      const count = 120;
      let sizeMax = 0;
      for (let v = 1; v <= count; v += 1) {
        const outcome = await store.commit(
          commit(a, {
            v,
            nodes: [node(`n${v}/-`, { status: 'Complete', hasOutput: true })],
            results: [result(a, `n${v}/-`, `${v}${'x'.repeat(2_000)}`)],
            events: [event(v + 1, 'log', { data: 'y'.repeat(1_000) })],
            tasks: [task(a, `n${v}`)],
            endedTasks: v > 5 ? [task(a, `n${v - 5}`).id] : [],
          }),
        );
        expect(outcome).to.deep.equal({ kind: 'committed' });
        const [size] = await collection('executions')
          .aggregate<{ bytes: number }>([{ $project: { bytes: { $bsonSize: '$$ROOT' } } }])
          .toArray();
        sizeMax = Math.max(sizeMax, size?.bytes ?? 0);
      }
      expect(sizeMax).to.be.lessThan(256 * 1024);
      expect(await collection('events').countDocuments({ x: a })).to.be.greaterThan(0);
      expect(await collection('results').countDocuments({ x: a })).to.be.greaterThan(0);
      const { items, firstSeq } = await store.readEvents(a, 1, 1_000);
      expect(firstSeq).to.equal(1);
      expect(items.map(({ seq }) => seq)).to.deep.equal(Array.from({ length: count + 1 }, (_, index) => index + 1));
      expect((await store.readEvents(a, 40, 3)).items.map(({ seq }) => seq)).to.deep.equal([40, 41, 42]);
      expect(await store.readResults(a)).to.have.length(count);
      expect(await store.readResult(`${a}/n1/-/1`)).to.equal(`1${'x'.repeat(2_000)}`);
      expect((await store.load(a))?.nodes).to.have.length(count);
      expect((await store.listTasks(null, 100)).map((row) => row.id).sort()).to.deep.equal(
        [116, 117, 118, 119, 120].map((n) => task(a, `n${n}`).id),
      );
      await store.commit(
        commit(a, { v: count + 1, dropNodes: ['n1/-', `n${count}/-`], results: [result(a, 'n2/-', 'late')] }),
      );
      expect(await store.readResult(`${a}/n1/-/1`)).to.equal(undefined);
      expect(await store.readResult(`${a}/n2/-/1`)).to.equal(`2${'x'.repeat(2_000)}`);
      expect(await store.readResults(a)).to.have.length(count - 2);
      await store.trimEvents(a, 10);
      expect((await store.readEvents(a, 1, 1_000)).items.map(({ seq }) => seq)[0]).to.equal(count - 8);
    });

    it('keeps the queue of tasks small in a long chain of them', async () => {
      await store.createExecution(newExecution({ id: a }));
      for (let v = 1; v <= 60; v += 1) {
        await store.commit(
          commit(a, { v, tasks: [task(a, `n${v}`)], endedTasks: v > 1 ? [task(a, `n${v - 1}`).id] : [] }),
        );
      }
      expect((await store.listTasks(null, 100)).map((row) => row.id)).to.deep.equal([task(a, 'n60').id]);
      const stored = await collection('executions').findOne({ _id: a });
      expect(stored?.['tasks']).to.have.length.below(25);
    });

    it('keeps big values apart, and leaves none behind', async () => {
      const big = { text: `ä${'x'.repeat(20_000)}` };
      const huge = { text: `ä${'x'.repeat(5 * 1024 * 1024)}` };
      await store.createExecution(newExecution({ id: a, input: big }));
      await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: big, atMs: T0 });
      await store.commit(
        commit(a, {
          nodes: [node('n/-', { data: big })],
          results: [result(a, 'n/-', big), result(a, 'm/-', huge)],
          events: [event(2, 'log', { data: big })],
          tasks: [{ ...task(a), task: { ...task(a).task, with: big } }],
        }),
      );
      const stored = await collection('executions').findOne({ _id: a });
      expect(JSON.stringify(stored).length).to.be.lessThan(5_000);
      expect((await store.load(a))?.header.input).to.deep.equal(big);
      expect((await store.load(a))?.triggers[0]?.payload).to.deep.equal(big);
      expect((await store.load(a))?.nodes[0]?.data).to.deep.equal(big);
      expect(isDeepStrictEqual(await store.readResult(`${a}/m/-/1`), huge)).to.equal(true);
      expect((await store.readEvents(a, 2, 1)).items[0]?.data).to.deep.equal(big);
      expect((await store.listTasks(null, 1))[0]?.task.with).to.deep.equal(big);
      expect(await collection('outputs.files').countDocuments()).to.equal(1);
      const values = await collection('values').countDocuments();
      await store.commit(commit(a, { v: 2, nodes: [node('n/-')], dropNodes: ['m/-'] }));
      await eventually(async () => (await collection('outputs.files').countDocuments()) === 0);
      await eventually(async () => (await collection('values').countDocuments()) === values - 1);
      expect(await store.commit(commit(a, { v: 9, results: [result(a, 'o/-', big)] }))).to.deep.include({
        why: 'fenced',
      });
      await eventually(async () => (await collection('values').countDocuments()) === values - 1);
      await store.commit(
        finalCommit(a, { v: 3, header: { status: 'Complete', endedAtMs: 1, outputs: huge }, events: [event(3)] }),
      );
      expect(isDeepStrictEqual(await store.readOutputs([a]), [huge])).to.equal(true);
      expect(await store.deleteExecution(a)).to.equal('deleted');
      for (const name of ['executions', 'events', 'results', 'values', 'starts', 'outputs.files', 'outputs.chunks']) {
        expect(await collection(name).countDocuments(), name).to.equal(0);
      }
    });

    it('reads an execution whole for another engine while its owner replaces big values', async () => {
      await store.createExecution(newExecution({ id: a }));
      const other = await open();
      const big = (n: number): Json => ({ n, text: 'x'.repeat(20_000) });
      let writing = true;
      const reading = (async () => {
        const seen: number[] = [];
        while (writing) {
          const found = await other.getExecution(a);
          const data = found?.nodes[0]?.data as { n: number } | undefined;
          if (data !== undefined) seen.push(data.n);
        }
        return seen;
      })();
      reading.catch(() => undefined);
      try {
        for (let v = 1; v <= 150; v += 1) {
          await store.commit(commit(a, { v, nodes: [node('scan', { data: big(v) })], events: [event(v + 1)] }));
        }
      } finally {
        writing = false;
      }
      const seen = await reading.finally(() => other.close());
      expect(seen.length).to.be.above(10);
      expect(seen).to.deep.equal(seen.toSorted((x, y) => x - y));
    });

    it('takes what a socket says whose other side has ended for an error that passes', () => {
      const ended = Object.assign(new Error('This socket has been ended by the other party'), { code: 'EPIPE' });
      expect(passes(ended)).to.equal(true);
      expect(passes(new MongoServerClosedError('Server is closed'))).to.equal(true);
      expect(passes(Object.assign(new Error('no such file'), { code: 'ENOENT' }))).to.equal(false);
      expect(passes(new TypeError('x is not iterable'))).to.equal(false);
    });

    it('stops every child, also those that another engine creates at the same time', async () => {
      const other = await open();
      try {
        for (let round = 0; round < 10; round += 1) {
          const of = (letter: string) => `${id(letter).slice(0, -4)}${String(round).padStart(3, '0')}${letter}`;
          const [parent, ...children] = ['a', 'b', 'c', 'd', 'e'].map(of) as [string, ...string[]];
          await store.createExecution(newExecution({ id: parent }));
          const creating = children.map((each, index) =>
            index < 2
              ? other.createExecution(child(each, parent))
              : Promise.resolve().then(() =>
                  other.commit(commit(parent, { v: index - 1, creates: [child(each, parent)] })),
                ),
          );
          const stopping = store.requestStop(parent, { requestId: 'r', requestedAtMs: T0 });
          await Promise.all([...creating, stopping]);
          for (const each of children) {
            const loaded = await store.load(each);
            if (loaded !== null) expect(loaded.header.stop?.requestId, each).to.equal('r');
          }
        }
      } finally {
        await other.close();
      }
    });

    it('gives a tree to one of two engines that take it over at the same time', async () => {
      const other = await open();
      try {
        const letters = ['a', 'b', 'c', 'd', 'e', 'f'];
        await Promise.all(letters.map((each) => store.createExecution(newExecution({ id: id(each) }))));
        for (const each of letters) {
          await store.createExecution(child(id(each).replace('7000', '7001'), id(each)));
        }
        const roots = letters.map(id);
        await Promise.all([
          store.cluster.takeOver(roots, ['engine-1'], 'engine-2'),
          other.cluster.takeOver([...roots].reverse(), ['engine-1'], 'engine-3'),
        ]);
        for (const root of roots) {
          const [one, two] = await Promise.all([store.load(root), store.load(root.replace('7000', '7001'))]);
          expect(one?.header.owner.epoch).to.equal(2);
          expect(one?.header.owner).to.deep.equal(two?.header.owner);
        }
      } finally {
        await other.close();
      }
    });

    describe('when an answer is lost', () => {
      let proxy: LosingProxy;
      let behind: MongoExecutionStore;

      before(needsOwn);

      beforeEach(async () => {
        proxy = await LosingProxy.start(await member());
        behind = await open(proxy.uri);
      });

      afterEach(async () => {
        await behind?.close();
        await proxy.close();
      });

      for (const when of ['before', 'after'] as const) {
        it(`commits once (${when} the server did it)`, async () => {
          const ids = Array.from(
            { length: 100 },
            (_, index) => `${id('a').slice(0, -3)}${String(index).padStart(3, '0')}`,
          );
          await Promise.all(ids.map((each) => behind.createExecution(newExecution({ id: each }))));
          proxy.lose('update', when, 3);
          const outcomes = await Promise.all(
            ids.flatMap((each) =>
              [1, 2, 3].map((v) =>
                behind.commit(
                  commit(each, {
                    v,
                    events: [event(v + 1)],
                    nodes: [node('n/-')],
                    results: [result(each, 'n/-', v, v)],
                  }),
                ),
              ),
            ),
          );
          expect(proxy.left).to.equal(0);
          expect(outcomes.every(({ kind }) => kind === 'committed')).to.equal(true);
          for (const each of ids) {
            expect((await store.load(each))?.header).to.deep.include({ v: 3, seq: 4 });
            expect((await store.readEvents(each, 1, 10)).items).to.have.length(4);
            expect(await store.readResults(each)).to.have.length(3);
          }
        });

        it(`creates, stops, triggers and claims once (${when})`, async () => {
          proxy.lose('insert', when);
          expect(await behind.createExecution(newExecution({ id: a }))).to.deep.equal({ kind: 'created' });
          proxy.lose('commitTransaction', when);
          const keyed = newExecution({ id: b }, { uniqueKey: 'k', bodyHash: 'x' });
          expect(await behind.createExecution(keyed)).to.deep.equal({ kind: 'created' });
          proxy.lose('commitTransaction', when);
          const creates = [child(c, a)];
          expect(await behind.commit(commit(a, { creates, tasks: [task(a)] }))).to.deep.equal({ kind: 'committed' });
          expect((await store.load(c))?.header.id).to.equal(c);
          proxy.lose('update', when);
          const trigger = { id: 't', executionId: a, name: 'go', payload: 1, atMs: T0 };
          expect(await behind.putTrigger(trigger)).to.deep.equal({ kind: 'stored' });
          expect((await store.load(a))?.triggers).to.deep.equal([trigger]);
          proxy.lose('update', when);
          const claim = { worker: 'w', tokenHash: 'h', atMs: T0 };
          expect(await behind.claimTask(task(a).id, claim)).to.equal('claimed');
          proxy.lose('commitTransaction', when);
          const stop = { requestId: 'r', requestedAtMs: T0 };
          const answer = await behind.requestStop(a, stop);
          expect(answer).to.deep.include({ kind: 'requested', repeated: false });
          proxy.lose('update', when);
          expect(await behind.requestStop(b, stop)).to.deep.include({ kind: 'requested', repeated: false });
          expect(proxy.left).to.equal(0);
        });
      }

      it('of the terminal commit, it ends once', async () => {
        await behind.createExecution(newExecution({ id: a }));
        proxy.lose('update', 'after');
        expect(await behind.commit(finalCommit(a))).to.deep.equal({ kind: 'committed' });
        expect((await store.load(a))?.header).to.deep.include({ status: 'Complete', v: 1 });
      });

      it('and nothing comes through any more, it is unavailable, says so, and comes back by itself', async function () {
        this.timeout(60_000);
        await behind.createExecution(newExecution({ id: a }));
        proxy.lose('update', 'after', 1_000_000);
        const refused = await rejection(behind.commit(commit(a)));
        expect(hasCode(refused, 'FS_UNAVAILABLE')).to.equal(true);
        expect((refused as Error).cause).to.be.instanceOf(Error);
        expect(behind.trouble()).to.be.a('string');
        proxy.lose('update', 'after', 0);
        await eventually(async () => behind.trouble() === null);
        expect(await behind.commit(commit(a))).to.deep.equal({ kind: 'committed' });
        expect((await store.load(a))?.header.v).to.equal(1);
      });
    });

    it('repeats what was written but not acknowledged by a majority', async function () {
      needsOwn.call(this);
      await store.createExecution(newExecution({ id: a }));
      await failNext(client, {
        failCommands: ['update'],
        appName: 'fullstop',
        writeConcernError: { code: 64, errmsg: 'waiting for replication timed out' },
      });
      expect(await store.commit(commit(a, { events: [event(2)] }))).to.deep.equal({ kind: 'committed' });
      expect((await store.load(a))?.header).to.deep.include({ v: 1, seq: 2 });
      await eventually(async () => store.trouble() === null);
    });

    describe('while a write is under way', () => {
      const turn = () => new Promise((resolve) => setImmediate(resolve));
      const idOf = (index: number): string => id('a').slice(0, -3) + String(index).padStart(3, '0');
      let ended: number[];
      let all: Promise<unknown>[];

      /** One that the server holds back, then so many, each in a turn of its own. */
      async function write(count: number, heldBackMs: number): Promise<Profile[]> {
        [ended, all] = [[], []];
        await store.createExecution(newExecution({ id: id('z') }));
        await failNext(client, {
          failCommands: ['insert'],
          appName: 'fullstop',
          blockConnection: true,
          blockTimeMS: heldBackMs,
        });
        return profiled(async () => {
          for (let index = 0; index <= count; index += 1) {
            const created = store.createExecution(newExecution({ id: idOf(index) }));
            all.push(created.then(() => ended.push(index)));
            await turn();
            // The server may be told of the first before it is told of others.
            if (index === 0) await sleep(5);
          }
          await Promise.all(all);
        });
      }

      it('a few others wait for it, and share what follows', async function () {
        needsOwn.call(this);
        const commands = await write(12, 20);
        expect(commands.length).to.be.at.most(3);
        expect(ended).to.have.length(13);
      });

      it('a few others do not wait for long', async function () {
        needsOwn.call(this);
        await write(3, 1_000);
        expect(ended.at(-1)).to.equal(0);
      });

      it('many others do not wait for it', async function () {
        needsOwn.call(this);
        const commands = await write(40, 1_000);
        expect(ended.at(-1)).to.equal(0);
        // As soon as there are enough: they did not gather for as long as a few do.
        expect(Math.max(...commands.map(({ ninserted = 0 }) => ninserted))).to.be.lessThan(30);
      });
    });

    /** Whose connections can be cut, and whose commands be made to fail. */
    function needsOwn(this: Mocha.Context): void {
      if (mongo.set === null) this.skip();
    }

    async function member(): Promise<{ host: string; port: number }> {
      const hello = await client.db('admin').command({ hello: 1 });
      const [host, port] = String(hello['primary'] ?? hello['me']).split(':') as [string, string];
      return { host, port: Number(port) };
    }

    /** What the server did meanwhile in this database: writes, or with reads. */
    async function profiled(work: () => Promise<void>, reads = false): Promise<Profile[]> {
      const db = client.db(database);
      await db.command({ profile: 2 });
      try {
        await work();
      } finally {
        await db.command({ profile: 0 });
      }
      const found = await db
        .collection<Profile>('system.profile')
        .find({ appName: 'fullstop', ...(reads ? {} : { op: { $in: ['update', 'insert', 'remove'] } }) })
        .toArray();
      await db.collection('system.profile').drop();
      return found;
    }
  });
});

interface Profile {
  op: string;
  ns: string;
  keysExamined?: number;
  docsExamined?: number;
  ninserted?: number;
}

async function failNext(client: MongoClient, data: object, times = 1): Promise<void> {
  await client.db('admin').command({ configureFailPoint: 'failCommand', mode: { times }, data });
}

async function eventually(holds: () => Promise<boolean>, withinMs = 10_000): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > untilMs) throw new Error('it did not come to be');
    await sleep(20);
  }
}

function task(executionId: string, name = 'scan'): TaskRow {
  const taskId = `${executionId}/${name}/-/1`;
  return {
    id: taskId,
    capability: 'container',
    queuedAtMs: T0 + 1,
    claim: null,
    task: {
      id: taskId,
      executionId,
      project: 'default',
      node: name,
      iterations: [],
      attempt: 1,
      type: 'container',
      where: 'worker',
      with: { image: 'scanner:1.4' },
      secrets: [],
      idempotencyKey: `${executionId}/${name}/-`,
      workflow: 'perimeter-scan',
      workflowHash: 'abc',
    },
  };
}
