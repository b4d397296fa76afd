/** The MongoDB store on three members: elections and majorities. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { MongoClient } from 'mongodb';
import { createMongoStore, type MongoExecutionStore } from '../../src/adapters/mongo/store.ts';
import { hasCode } from '../../src/errors.ts';
import type { Commit, CommitOutcome } from '../../src/ports/store.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { child, commit, event, finalCommit, id, newExecution, node, result, T0 } from './rows.ts';
import { rejection } from './store.contract.ts';

describe('the mongo store on three members', function () {
  this.timeout(120_000);
  const a = id('a');
  let mongo: TestMongo;
  let client: MongoClient;
  let store: MongoExecutionStore;

  before(async function () {
    mongo = await mongoOrSkip(this, { members: 3, own: true });
    client = new MongoClient(mongo.uri);
  });

  after(async () => {
    await client?.close();
    await mongo?.close();
  });

  beforeEach(async () => {
    store = createMongoStore({ uri: mongo.uri, database: mongo.freshDatabase() });
    await store.open();
  });

  afterEach(() => store.close());

  /** As an engine does: the same commit again until it is known what became of it. */
  async function insist(given: Commit): Promise<CommitOutcome> {
    for (;;) {
      try {
        return await store.commit(given);
      } catch (error) {
        if (!hasCode(error, 'FS_UNAVAILABLE')) throw error;
        await sleep(100);
      }
    }
  }

  it('commits all, once each, while the primary steps down', async () => {
    const letters = Array.from({ length: 60 }, (_, index) => `${a.slice(0, -3)}${String(index).padStart(3, '0')}`);
    await Promise.all(letters.map((each) => store.createExecution(newExecution({ id: each }))));
    const steps = 40;
    let ended = 0;
    const load = letters.map(async (each, index) => {
      for (let v = 1; v <= steps; v += 1) {
        const outcome = await insist(
          commit(each, {
            v,
            nodes: [node(`n${v}/-`, { status: 'Complete' }), node(`n${v + 1}/-`)],
            results: [result(each, `n${v}/-`, v)],
            events: [event(2 * v), event(2 * v + 1)],
            // Some are transactions.
            creates: index < 5 && v % 10 === 0 ? [child(`${each.slice(0, -12)}${v}${each.slice(-10)}`, each)] : [],
          }),
        );
        expect(outcome).to.deep.equal({ kind: 'committed' });
      }
      expect(await insist(finalCommit(each, { v: steps + 1, events: [event(2 * steps + 2)] }))).to.deep.equal({
        kind: 'committed',
      });
      ended += 1;
    });
    const before = await primary();
    for (let election = 0; election < 2; election += 1) {
      await sleep(300);
      expect(ended).to.be.lessThan(letters.length);
      await client
        .db('admin')
        .command({ replSetStepDown: 5, force: true })
        .catch(() => undefined);
      await eventually(async () => (await primary()) !== null);
    }
    await Promise.all(load);
    expect(before).to.be.a('string');
    for (const [index, each] of letters.entries()) {
      expect((await store.load(each))?.header).to.deep.include({
        v: steps + 1,
        seq: 2 * steps + 2,
        status: 'Complete',
      });
      const { items } = await store.readEvents(each, 1, 1_000);
      expect(items.map(({ seq }) => seq)).to.deep.equal(items.map((_, at) => at + 1));
      expect(items).to.have.length(2 * steps + 2);
      expect(await store.readResults(each)).to.have.length(steps);
      const children = await store.listChildren(each, 'each', [], 1);
      expect(children).to.have.length(index < 5 ? 4 : 0);
    }
    await eventually(async () => store.trouble() === null);
  });

  it('is unavailable while no majority acknowledges, says so, and is consistent afterwards', async () => {
    await store.createExecution(newExecution({ id: a }));
    await stopSecondaries(true);
    try {
      const refused = await rejection(store.commit(commit(a, { events: [event(2)], nodes: [node('n/-')] })));
      expect(hasCode(refused, 'FS_UNAVAILABLE')).to.equal(true);
      expect(store.trouble()).to.include('majority');
      // Nobody is told of what a majority does not have.
      expect((await store.getHeader(a))?.v).to.equal(0);
      const stop = await rejection(store.requestStop(a, { requestId: 'r', requestedAtMs: T0 }));
      expect(hasCode(stop, 'FS_UNAVAILABLE')).to.equal(true);
    } finally {
      await stopSecondaries(false);
    }
    await eventually(async () => store.trouble() === null);
    const again = commit(a, { events: [event(2)], nodes: [node('n/-')] });
    const outcome = await insist(again);
    const stored = await store.load(a);
    // The stop that nobody was told of may be stored: then it is one that counts.
    if (outcome.kind === 'committed') expect(stored?.header).to.deep.include({ v: 1, seq: 2 });
    else expect(outcome).to.deep.include({ why: 'stopping' });
    expect((await store.readEvents(a, 1, 10)).items).to.have.length(stored?.header.seq ?? 0);
  });

  it('goes on when the primary stands still', async () => {
    await store.createExecution(newExecution({ id: a }));
    const name = await primary();
    const server = mongo.set?.servers.find(({ instanceInfo }) => name?.endsWith(`:${instanceInfo?.port}`) === true);
    const pid = server?.instanceInfo?.instance.mongodProcess?.pid;
    expect(pid).to.be.a('number');
    let v = 0;
    const untilMs = performance.now() + 6_000;
    const committing = (async () => {
      while (performance.now() < untilMs) {
        v += 1;
        expect(await insist(commit(a, { v, events: [event(v + 1)] }))).to.deep.equal({ kind: 'committed' });
      }
    })();
    await sleep(200);
    process.kill(pid as number, 'SIGSTOP');
    try {
      await committing;
    } finally {
      process.kill(pid as number, 'SIGCONT');
    }
    expect(await insist(commit(a, { v: v + 1, events: [event(v + 2)] }))).to.deep.equal({ kind: 'committed' });
    const { items } = await store.readEvents(a, 1, 100_000);
    expect(items.map(({ seq }) => seq)).to.deep.equal(Array.from({ length: v + 2 }, (_, index) => index + 1));
  });

  async function primary(): Promise<string | null> {
    try {
      const hello = await client.db('admin').command({ hello: 1 });
      return typeof hello['primary'] === 'string' && hello['isWritablePrimary'] === true ? hello['primary'] : null;
    } catch {
      return null;
    }
  }

  /** They answer, and stay secondaries, but apply nothing. */
  async function stopSecondaries(stopped: boolean): Promise<void> {
    for (const server of mongo.set?.servers ?? []) {
      const direct = new MongoClient(`mongodb://127.0.0.1:${server.instanceInfo?.port}/?directConnection=true`);
      try {
        const admin = direct.db('admin');
        if (stopped && (await admin.command({ hello: 1 }))['secondary'] !== true) continue;
        await admin.command({ configureFailPoint: 'rsSyncApplyStop', mode: stopped ? 'alwaysOn' : 'off' });
      } finally {
        await direct.close();
      }
    }
  }
});

async function eventually(holds: () => Promise<boolean>, withinMs = 30_000): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await holds())) {
    if (performance.now() > untilMs) throw new Error('it did not come to be');
    await sleep(50);
  }
}
