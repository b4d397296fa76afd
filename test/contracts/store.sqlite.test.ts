import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSqliteStore } from '../../src/adapters/sqlite/store.ts';
import { executionStoreContract } from './store.contract.ts';

executionStoreContract('sqlite', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'fullstop-store-'));
  let store = createSqliteStore({ directory });
  await store.open();
  return {
    store,
    reopen: async () => {
      await store.close();
      store = createSqliteStore({ directory });
      await store.open();
      return store;
    },
    close: async () => {
      await store.close();
      await rm(directory, { recursive: true });
    },
  };
});
