import { existsSync } from 'node:fs';
import { expect } from 'chai';
import { MongoMemoryServer } from 'mongodb-memory-server-core';
import { awaitMongo } from '../../src/adapters/mongo/reach.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { ownMongod, ownVersion } from '../support/mongod.ts';

/** What a start says that cannot go on. */
async function refusal(uri: string): Promise<{ code: string; message: string; waited: string[] }> {
  const waited: string[] = [];
  try {
    await awaitMongo({ uri, withinMs: 4_000, waiting: (why) => waited.push(why) });
  } catch (error) {
    return { ...(error as { code: string }), message: (error as Error).message, waited };
  }
  throw new Error('expected a refusal');
}

describe('a start on MongoDB', function () {
  this.timeout(120_000);

  it('waits for one that is not there, says why meanwhile, and gives up', async () => {
    const { code, message, waited } = await refusal('mongodb://user:hunter2@127.0.0.1:1');
    expect(code).to.equal('FS_UNAVAILABLE');
    expect(message)
      .to.match(/within 4 s.*ECONNREFUSED/)
      .and.not.contain('hunter2');
    expect(waited[0]).to.match(/ECONNREFUSED/);
  });

  for (const uri of ['mongodb://127.0.0.1:1/?unknownOption=1', 'mongodb://a:b:c@@127.0.0.1/']) {
    it(`refuses ${uri} at once`, async () => {
      const { code, message, waited } = await refusal(uri);
      expect([code, waited]).to.deep.equal(['FS_INVALID', []]);
      expect(message).to.match(/^MONGODB_URI: /);
    });
  }

  it('refuses a server that is no replica set at once, and says what to do', async function () {
    if (!existsSync(ownMongod)) return this.skip();
    const server = await MongoMemoryServer.create({ binary: { systemBinary: ownMongod, version: ownVersion } });
    try {
      const { code, message, waited } = await refusal(server.getUri());
      expect([code, waited]).to.deep.equal(['FS_INVALID', []]);
      expect(message).to.contain('--replSet').and.to.contain('rs.initiate()');
      expect((await refusal(`${server.getUri()}?replicaSet=rs0`)).message).to.contain('that it names');
    } finally {
      await server.stop();
    }
  });

  describe('that is a replica set', () => {
    let mongo: TestMongo;
    before(async function () {
      mongo = await mongoOrSkip(this);
    });
    after(() => mongo?.close());

    it('goes on', () => awaitMongo({ uri: mongo.uri, waiting: () => undefined }));
  });
});
