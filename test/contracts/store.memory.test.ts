import { expect } from 'chai';
import { createMemoryStore } from '../../src/adapters/memory/store.ts';
import { hasCode } from '../../src/errors.ts';
import { clusterStoreContract, type OpenedCluster } from './cluster.contract.ts';
import { commit, id, newExecution, node } from './rows.ts';
import { executionStoreContract, type OpenedStore, rejection } from './store.contract.ts';
import { taskQueueContract } from './task-queue.contract.ts';

async function openMemory(): Promise<OpenedStore> {
  const store = createMemoryStore();
  await store.open();
  return { store, close: () => store.close() };
}

async function openShared(): Promise<OpenedCluster> {
  const store = createMemoryStore({ cluster: true });
  const { cluster } = store;
  if (cluster === null) throw new Error('it is not shared');
  await store.open();
  return {
    store: Object.assign(store, { cluster }),
    silence: (engineId, ms) => cluster.silence(engineId, ms),
    close: () => store.close(),
  };
}

executionStoreContract('memory', openMemory);
taskQueueContract('memory', openMemory);
executionStoreContract('shared memory', openShared);
taskQueueContract('shared memory', openShared);
clusterStoreContract('memory', openShared);

describe('the memory store, for tests', () => {
  const a = id('a');

  it('fails as many writes as asked, reads never', async () => {
    const store = createMemoryStore();
    await store.createExecution(newExecution({ id: a }));
    store.failNext(2);
    expect(hasCode(await rejection(store.commit(commit(a))), 'FS_UNAVAILABLE')).to.equal(true);
    expect((await store.load(a))?.header.v).to.equal(0);
    expect(hasCode(await rejection(store.putSetting('s', 1)), 'FS_UNAVAILABLE')).to.equal(true);
    expect(await store.commit(commit(a))).to.deep.equal({ kind: 'committed' });
  });

  it('refuses writes while it is in trouble, and says why', async () => {
    const store = createMemoryStore();
    store.setTrouble('no space left');
    expect(store.trouble()).to.equal('no space left');
    const error = await rejection(store.createExecution(newExecution({ id: a })));
    expect(error).to.include({ code: 'FS_UNAVAILABLE', message: 'no space left' });
    store.setTrouble(null);
    expect(await store.createExecution(newExecution({ id: a }))).to.deep.equal({ kind: 'created' });
  });

  it('does its work when the test says so, in the order of the calls', async () => {
    const works: (() => void)[] = [];
    const store = createMemoryStore({ defer: (work) => works.push(work) });
    const done: string[] = [];
    const calls = [
      store.createExecution(newExecution({ id: a })).then(() => done.push('created')),
      store.commit(commit(a, { nodes: [node('n/-')] })).then((outcome) => done.push(outcome.kind)),
    ];
    await Promise.resolve();
    expect(done).to.deep.equal([]);
    for (const work of works) work();
    await Promise.all(calls);
    expect(done).to.deep.equal(['created', 'committed']);
  });
});
