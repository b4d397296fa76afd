/** The bus over real Redis and MongoDB: gone, back, and the rooms of this engine meanwhile. */
import { expect } from 'chai';
import { MongoClient } from 'mongodb';
import type { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import type { EngineLink } from '../../src/adapters/socket-io/link.ts';
import { BUS_APP_NAME, BUS_COLLECTION, createMongoLink } from '../../src/adapters/socket-io/mongo-link.ts';
import { createRedisLink } from '../../src/adapters/socket-io/redis-link.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { TestRedis } from '../support/redis.ts';
import { until } from '../support/server-process.ts';
import { busOver } from './links.ts';

const BEAT_MS = 500;
const log = { warn: () => undefined, debug: () => undefined };

/** Two engines' buses, and what the second heard. */
class Pair {
  readonly here: SocketIoBus;
  readonly there: SocketIoBus;
  readonly heardHere: string[] = [];
  readonly heardThere: string[] = [];
  gaps = 0;

  constructor(link: () => EngineLink) {
    this.here = busOver(link(), BEAT_MS);
    this.there = busOver(link(), BEAT_MS);
    this.here.onStop(({ executionId }) => this.heardHere.push(executionId));
    this.there.onStop(({ executionId }) => this.heardThere.push(executionId));
    this.there.onGap(() => {
      this.gaps += 1;
    });
  }

  async open(): Promise<void> {
    await Promise.all([this.here.open(), this.there.open()]);
  }

  stop(executionId: string): void {
    this.here.stop({ executionId, requestId: 'r' });
  }

  hears(executionId: string, withinMs = 5_000): Promise<boolean> {
    return until(
      executionId,
      async () => this.heardThere.includes(executionId),
      (heard) => heard,
      withinMs,
    );
  }

  async close(): Promise<void> {
    await Promise.all([this.here.close(), this.there.close()]);
  }
}

/** A bus that says nothing unhandled, whatever becomes of what carries it. */
function linkTests(open: () => { pair: Pair; take: () => Promise<void>; giveBack: () => Promise<void> }): void {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  before(() => process.on('unhandledRejection', note));
  after(() => {
    process.off('unhandledRejection', note);
    expect(unhandled).to.deep.equal([]);
  });

  it('carries stops both ways, in order', async () => {
    const { pair } = open();
    const ids = Array.from({ length: 1_000 }, (_, index) => `e${index}`);
    for (const id of ids) pair.stop(id);
    await pair.hears('e999');
    expect(pair.heardThere).to.deep.equal(ids);
    // They come to know each other in either order.
    await until(
      'the other engine',
      async () => pair.here.counters().others,
      (others) => others === 1,
      5_000,
    );
    expect(pair.here.counters()).to.include({ others: 1, dropped: 0 });
  });

  it('serves this engine while it is gone, queues nothing, and is noticed to have had a gap when it is back', async () => {
    const { pair, take, giveBack } = open();
    pair.stop('before');
    await pair.hears('before');
    const gaps = pair.gaps;
    await take();
    for (let count = 0; count < 20; count += 1) {
      pair.stop(`lost${count}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(pair.heardHere).to.include('lost19');
    await giveBack();
    await until(
      'the bus',
      async () => {
        pair.stop('after');
        return pair.heardThere.includes('after');
      },
      (back) => back,
      40_000,
    );
    await until(
      'a gap',
      async () => pair.gaps,
      (count) => count > gaps,
      10_000,
    );
    expect(pair.here.counters().dropped).to.be.greaterThan(0);
    expect(pair.heardThere.filter((id) => id === 'lost5')).to.have.length(0);
  });
}

describe('the bus over Redis', function () {
  this.timeout(60_000);
  let redis: TestRedis;
  let pair: Pair;
  before(async function () {
    const started = await TestRedis.start();
    if (typeof started !== 'string') redis = started;
    else {
      console.log(`      skipped: ${started}`);
      this.skip();
    }
  });
  after(() => redis?.close());
  beforeEach(async () => {
    pair = new Pair(() => createRedisLink({ url: redis.url, channel: 'fullstop:test', log }));
    await pair.open();
  });
  afterEach(() => pair.close());
  linkTests(() => ({ pair, take: () => redis.kill(), giveBack: () => redis.run() }));

  it('does not keep a start waiting for a Redis that is not there', async () => {
    const bus = busOver(createRedisLink({ url: 'redis://127.0.0.1:1', channel: 'x', log }));
    const atMs = performance.now();
    await bus.open();
    expect(performance.now() - atMs).to.be.below(12_000);
    bus.stop({ executionId: 'e', requestId: 'r' });
    await bus.close();
  });
});

describe('the bus over MongoDB', function () {
  this.timeout(120_000);
  let mongo: TestMongo;
  let admin: MongoClient;
  let database: string;
  let pair: Pair;
  before(async function () {
    mongo = await mongoOrSkip(this, { members: 3, own: true });
    admin = new MongoClient(mongo.uri);
  });
  after(async () => {
    await admin?.close();
    await mongo?.close();
  });
  beforeEach(async () => {
    database = mongo.freshDatabase();
    pair = new Pair(() => createMongoLink({ uri: mongo.uri, database, log }));
    await pair.open();
  });
  afterEach(() => pair.close());

  const failPoint = (mode: unknown, data: object = {}) =>
    admin.db('admin').command({ configureFailPoint: 'failCommand', mode, data });
  const fail = (data: object) => failPoint('alwaysOn', { appName: BUS_APP_NAME, ...data });

  linkTests(() => ({
    pair,
    take: async () => void (await fail({ failCommands: ['insert'], errorCode: 8_000 })),
    giveBack: async () => void (await failPoint('off')),
  }));

  it('goes on after its primary stepped down', async () => {
    await admin.db('admin').command({ replSetStepDown: 5, force: true });
    pair.stop('during');
    expect(pair.heardHere).to.deep.equal(['during']);
    let count = 0;
    await until(
      'the bus',
      async () => {
        count += 1;
        pair.stop(`after${count}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
        return pair.heardThere.some((id) => id.startsWith('after'));
      },
      (back) => back,
      40_000,
    );
    expect(new Set(pair.heardThere).size).to.equal(pair.heardThere.length);
  });

  it('is noticed to have had a gap where its change stream cannot go on where it was', async () => {
    const { gaps } = pair;
    pair.stop('before');
    await pair.hears('before');
    // Of no use to resume by: what CappedPositionLost and ChangeStreamHistoryLost mean.
    await failPoint({ times: 2 }, { appName: BUS_APP_NAME, failCommands: ['getMore'], errorCode: 286 });
    await until(
      'a gap',
      async () => pair.gaps,
      (count) => count > gaps,
      20_000,
    );
    pair.stop('after');
    await pair.hears('after', 10_000);
    expect(pair.heardThere.filter((id) => id === 'after')).to.have.length(1);
  });

  it('lets MongoDB delete what it said, and costs next to nothing while nobody says anything', async () => {
    const db = admin.db(database);
    const ttl = (await db.collection(BUS_COLLECTION).indexes()).find(({ key }) => 'createdAt' in key);
    expect(ttl?.expireAfterSeconds).to.equal(60);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const before = await db.collection(BUS_COLLECTION).countDocuments();
    await new Promise((resolve) => setTimeout(resolve, 10 * BEAT_MS));
    const said = (await db.collection(BUS_COLLECTION).countDocuments()) - before;
    // A sign of life of each in a beat, and none of the adapter's own.
    expect(said).to.be.within(16, 22);
  });
});
