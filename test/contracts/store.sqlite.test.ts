import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { expect } from 'chai';
import { createSqliteStore } from '../../src/adapters/sqlite/store.ts';
import { hasCode, messageOf } from '../../src/errors.ts';
import type { ExecutionStore } from '../../src/ports/store.ts';
import { commit, event, finalCommit, id, newExecution, node, receipt, result } from './rows.ts';
import { executionStoreContract, type OpenedStore, rejection } from './store.contract.ts';
import { taskQueueContract } from './task-queue.contract.ts';

const temporary = (): Promise<string> => mkdtemp(join(tmpdir(), 'fullstop-store-'));

async function openSqlite(): Promise<OpenedStore> {
  const directory = await temporary();
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
}

executionStoreContract('sqlite', openSqlite);
taskQueueContract('sqlite', openSqlite);

describe('the sqlite store on its disk', () => {
  const [a, b] = [id('a'), id('b')];
  let directory: string;
  let store: ExecutionStore;

  const open = async (maxPages = 0): Promise<void> => {
    store = createSqliteStore({ directory, maxPages });
    await store.open();
  };

  beforeEach(async () => {
    directory = await temporary();
  });

  afterEach(async () => {
    await store.close();
    await rm(directory, { recursive: true });
  });

  describe('lock', () => {
    it('keeps a second process out, names the first, and ends with it even by kill -9', async () => {
      const holder = fork(new URL('./holder.ts', import.meta.url), [directory]);
      const exit = once(holder, 'exit');
      try {
        await once(holder, 'message');
        store = createSqliteStore({ directory });
        const refused = await rejection(store.open());
        expect(hasCode(refused, 'FS_LOCKED')).to.equal(true);
        expect(messageOf(refused)).to.include(`process ${holder.pid}`);
      } finally {
        holder.kill('SIGKILL');
        await exit;
      }
      await open();
      expect((await store.load(a))?.header.id).to.equal(a);
    });

    it('keeps a second store of the same process out', async () => {
      await open();
      const refused = await rejection(createSqliteStore({ directory }).open());
      expect(hasCode(refused, 'FS_LOCKED')).to.equal(true);
      expect(await store.createExecution(newExecution({ id: a }))).to.deep.equal({ kind: 'created' });
    });
  });

  describe('trouble', () => {
    it('of a full disk refuses the whole batch, says why, and ends with the next write that succeeds', async () => {
      await open(200);
      await store.createExecution(newExecution({ id: a }));
      await store.createExecution(newExecution({ id: b }));
      await store.commit(commit(b, { results: [result(b, 'big/-', 'x'.repeat(400_000))] }));
      await store.commit(finalCommit(b, { v: 2 }));
      const [big, small] = await Promise.all([
        rejection(store.commit(commit(a, { nodes: [node('n/-')], results: [result(a, 'n/-', 'x'.repeat(400_000))] }))),
        rejection(store.putSetting('s', 1)),
      ]);
      for (const error of [big, small]) expect(hasCode(error, 'FS_UNAVAILABLE')).to.equal(true);
      expect(store.trouble()).to.include('full');
      expect((await store.load(a))?.header.v).to.equal(0);
      expect(await store.readResults(a)).to.deep.equal([]);
      expect(store.trouble(), 'reads alone end no trouble').to.include('full');
      expect(await store.deleteExecution(b)).to.equal('deleted');
      expect(store.trouble()).to.equal(null);
      const again = commit(a, { nodes: [node('n/-')], results: [result(a, 'n/-', 'x'.repeat(400_000))] });
      expect(await store.commit(again)).to.deep.equal({ kind: 'committed' });
    });

    it('ends by itself, without a call', async () => {
      await open();
      await store.createExecution(newExecution({ id: a }));
      const other = new DatabaseSync(join(directory, 'fullstop.sqlite'));
      other.exec('BEGIN IMMEDIATE');
      try {
        expect(hasCode(await rejection(store.commit(commit(a))), 'FS_UNAVAILABLE')).to.equal(true);
        expect(store.trouble()).to.include('locked');
      } finally {
        other.close();
      }
      for (let tries = 0; store.trouble() !== null && tries < 100; tries += 1) await sleep(50);
      expect(store.trouble()).to.equal(null);
      expect(await store.commit(commit(a))).to.deep.equal({ kind: 'committed' });
    });
  });

  it('refuses the database of a newer version, and leaves it unlocked', async () => {
    await open();
    await store.close();
    const db = new DatabaseSync(join(directory, 'fullstop.sqlite'));
    db.exec('PRAGMA user_version = 99');
    for (let tries = 0; tries < 2; tries += 1) {
      const refused = await rejection(open());
      expect(hasCode(refused, 'FS_INVALID')).to.equal(true);
      expect(messageOf(refused)).to.include('version 99');
    }
    db.exec('PRAGMA user_version = 1');
    db.close();
    await open();
  });

  it('leaves no row of a deleted execution', async () => {
    await open();
    const tables = ['executions', 'starts', 'nodes', 'events', 'results', 'triggers', 'receipts', 'files'];
    await store.createExecution(newExecution({ id: a }));
    await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: null, atMs: 1 });
    const results = [result(a, 'n/-', 'x'.repeat(4 * 1024 * 1024))];
    await store.commit(finalCommit(a, { nodes: [node('n/-')], results, receipt: receipt(a) }));
    const db = new DatabaseSync(join(directory, 'fullstop.sqlite'));
    const filled = (): string[] => tables.filter((table) => db.prepare(`SELECT 1 FROM ${table}`).get() !== undefined);
    try {
      expect(filled()).to.deep.equal(tables);
      await store.deleteExecution(a);
      expect(filled()).to.deep.equal([]);
    } finally {
      db.close();
    }
  });

  it('undoes what a call did before it failed, and only that', async () => {
    await open();
    await store.createExecution(newExecution({ id: a }));
    const unusable = [{}] as never;
    const outcomes = await Promise.allSettled([
      store.commit(commit(a, { nodes: [node('first/-')] })),
      store.commit(commit(a, { v: 2, nodes: [node('bad/-')], events: [event(2)], consumedTriggers: unusable })),
      store.commit(commit(a, { v: 2, nodes: [node('last/-')], events: [event(2, 'execution.started')] })),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).to.deep.equal(['fulfilled', 'rejected', 'fulfilled']);
    expect((await store.load(a))?.nodes.map((row) => row.key)).to.deep.equal(['first/-', 'last/-']);
    expect((await store.readEvents(a, 2, 10)).items).to.deep.equal([event(2, 'execution.started')]);
  });

  it('takes big outputs many at once in batches it can hold', async () => {
    await open();
    await store.createExecution(newExecution({ id: a }));
    const big = 'x'.repeat(1_000_000);
    const commits = Array.from({ length: 100 }, (_, index) =>
      store.commit(commit(a, { v: index + 1, results: [result(a, `n${index}/-`, `${index}${big}`)] })),
    );
    for (const outcome of await Promise.all(commits)) expect(outcome.kind).to.equal('committed');
    expect((await store.readResult(`${a}/n99/-/1`)) === `99${big}`).to.equal(true);
  });

  it('says that a directory cannot be used', async () => {
    await open();
    const refused = await rejection(createSqliteStore({ directory: join(directory, 'lock.pid', 'below') }).open());
    expect(hasCode(refused, 'FS_UNAVAILABLE')).to.equal(true);
    expect(messageOf(refused)).to.include('below');
  });

  it('finishes the calls made before it is closed', async () => {
    await open();
    const calls = [
      store.createExecution(newExecution({ id: a })),
      ...Array.from({ length: 1000 }, (_, index) =>
        store.commit(commit(a, { v: index + 1, events: [event(index + 2)] })),
      ),
    ];
    await store.close();
    expect(await Promise.all(calls)).to.have.length(1001);
    await open();
    expect((await store.load(a))?.header).to.deep.include({ v: 1000, seq: 1001 });
  });

  describe('outputs above 4 MB', () => {
    const big = `ä${'x'.repeat(4 * 1024 * 1024)}`;
    const files = (): Promise<string[]> => readdir(join(directory, 'outputs')).catch(() => []);

    beforeEach(async () => {
      await open();
      await store.createExecution(newExecution({ id: a }));
      await store.commit(commit(a, { results: [result(a, 'n/-', big), result(a, 'small/-', 'x')] }));
    });

    it('are in a file beside the database', async () => {
      expect(await files()).to.have.length(1);
      expect((await store.readResult(`${a}/n/-/1`)) === big).to.equal(true);
      expect((await store.readResults(a)).find((row) => row.key === 'n/-')?.output === big).to.equal(true);
    });

    it('may be those of the execution', async () => {
      await store.commit(finalCommit(a, { v: 2, header: { status: 'Complete', endedAtMs: 1, outputs: { big } } }));
      expect(await files()).to.have.length(2);
      expect(isDeepStrictEqual((await store.load(a))?.header.outputs, { big })).to.equal(true);
      expect(isDeepStrictEqual(await store.readOutputs([a]), [{ big }])).to.equal(true);
    });

    it('stay as they were first stored', async () => {
      await store.commit(commit(a, { v: 2, results: [result(a, 'n/-', `${big}2`)] }));
      expect(await files()).to.have.length(1);
      expect((await store.readResult(`${a}/n/-/1`)) === big).to.equal(true);
    });

    it('go with their node and with their execution', async () => {
      await store.commit(
        finalCommit(a, { v: 2, header: { status: 'Complete', endedAtMs: 1, outputs: big }, dropNodes: ['n/-'] }),
      );
      expect(await files()).to.have.length(1);
      await store.deleteExecution(a);
      expect(await files()).to.deep.equal([]);
    });

    it('leave no file when their commit is refused', async () => {
      await store.commit(commit(a, { v: 9, results: [result(a, 'other/-', big)] }));
      expect(await files()).to.have.length(1);
    });

    it('are tidied at the start when a crash came between file and commit', async () => {
      await store.close();
      await writeFile(join(directory, 'outputs', '7-left.json'), '1');
      await open();
      expect(await files()).to.have.length(1);
      expect((await store.readResult(`${a}/n/-/1`)) === big).to.equal(true);
    });
  });
});
