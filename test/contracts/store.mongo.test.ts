import { MongoClient } from 'mongodb';
import { createMongoStore } from '../../src/adapters/mongo/store.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { clusterStoreContract, type OpenedCluster } from './cluster.contract.ts';
import { executionStoreContract } from './store.contract.ts';
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
});
