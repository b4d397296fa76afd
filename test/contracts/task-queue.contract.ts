import { expect } from 'chai';
import type { ExecutionStore } from '../../src/ports/store.ts';
import type { TaskRow } from '../../src/ports/task-queue.ts';
import { commit, finalCommit, id, newExecution, T0 } from './rows.ts';
import type { OpenedStore } from './store.contract.ts';

const [a, b] = [id('a'), id('b')];
const claim = { worker: 'w1', tokenHash: 'hash', atMs: T0 + 5 };

function task(executionId: string, node = 'scan', attempt = 1): TaskRow {
  const taskId = `${executionId}/${node}/-/${attempt}`;
  return {
    id: taskId,
    capability: 'container',
    queuedAtMs: T0 + 1,
    claim: null,
    task: {
      id: taskId,
      executionId,
      project: 'default',
      node,
      iterations: [],
      attempt,
      type: 'container',
      where: 'worker',
      with: { image: 'scanner:1.4' },
      secrets: [],
      idempotencyKey: `${executionId}/${node}/-`,
      workflow: 'perimeter-scan',
      workflowHash: 'abc',
    },
  };
}

/** What every adapter of `TaskQueue` promises. */
export function taskQueueContract(name: string, open: () => Promise<OpenedStore>): void {
  describe(`the ${name} task queue`, () => {
    let opened: OpenedStore;
    let store: ExecutionStore;

    beforeEach(async () => {
      opened = await open();
      store = opened.store;
      await store.createExecution(newExecution({ id: a }));
    });

    afterEach(() => opened.close());

    it('takes a task with the commit of its node, and lets it go with another', async () => {
      const row = task(a);
      await store.commit(commit(a, { v: 1, tasks: [row] }));
      expect(await store.listTasks(null, 10)).to.deep.equal([row]);
      await store.commit(commit(a, { v: 2, endedTasks: [row.id] }));
      expect(await store.listTasks(null, 10)).to.deep.equal([]);
    });

    it('takes nothing with a commit that is refused', async () => {
      await store.commit(commit(a, { v: 1, epoch: 7, tasks: [task(a)] }));
      expect(await store.listTasks(null, 10)).to.deep.equal([]);
    });

    it('keeps a claimed task as it is when its commit is repeated', async () => {
      const first = commit(a, { v: 1, tasks: [task(a)] });
      await store.commit(first);
      await store.claimTask(task(a).id, claim);
      await store.commit(first);
      expect((await store.listTasks(null, 10))[0]?.claim).to.deep.equal(claim);
    });

    it('gives a task to one worker, and says the same to a repeated claim', async () => {
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      expect(await store.claimTask(task(a).id, claim)).to.equal('claimed');
      expect(await store.claimTask(task(a).id, claim)).to.equal('claimed');
      expect(await store.claimTask(task(a).id, { ...claim, worker: 'w2' })).to.equal('taken');
      expect(await store.claimTask(task(a).id, { ...claim, tokenHash: 'other' })).to.equal('taken');
      expect(await store.listTasks(null, 10)).to.deep.equal([{ ...task(a), claim }]);
    });

    it('gives one of two racing claims the task', async () => {
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      const outcomes = await Promise.all(
        ['w1', 'w2', 'w3'].map((worker) => store.claimTask(task(a).id, { ...claim, worker })),
      );
      expect(outcomes.toSorted()).to.deep.equal(['claimed', 'taken', 'taken']);
    });

    it('gives nothing out once a stop intent is stored', async () => {
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      await store.requestStop(a, { requestId: 'r1', requestedAtMs: T0 + 9 });
      expect(await store.claimTask(task(a).id, claim)).to.equal('stopping');
      expect((await store.listTasks(null, 10))[0]?.claim).to.equal(null);
    });

    it('knows no task that has ended, or whose execution has', async () => {
      expect(await store.claimTask(task(a).id, claim)).to.equal('gone');
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      await store.commit({ ...finalCommit(a), v: 2 });
      expect(await store.claimTask(task(a).id, claim)).to.equal('gone');
    });

    it('lists tasks in pages, by identity', async () => {
      await store.createExecution(newExecution({ id: b }));
      const rows = [task(a, 'one'), task(a, 'two'), task(b, 'one')];
      await store.commit(commit(a, { v: 1, tasks: [rows[1] as TaskRow, rows[0] as TaskRow] }));
      await store.commit(commit(b, { v: 1, tasks: [rows[2] as TaskRow] }));
      const first = await store.listTasks(null, 2);
      expect(first).to.deep.equal(rows.slice(0, 2));
      expect(await store.listTasks(first[1]?.id ?? null, 2)).to.deep.equal(rows.slice(2));
    });

    it('loses the tasks of an execution that is deleted', async () => {
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      await store.commit({ ...finalCommit(a), v: 2 });
      await store.deleteExecution(a);
      expect(await store.listTasks(null, 10)).to.deep.equal([]);
    });

    it('keeps tasks and claims across a restart, where anything is kept', async function () {
      if (opened.reopen === undefined) return this.skip();
      await store.commit(commit(a, { v: 1, tasks: [task(a)] }));
      await store.claimTask(task(a).id, claim);
      store = await opened.reopen();
      expect(await store.listTasks(null, 10)).to.deep.equal([{ ...task(a), claim }]);
    });
  });
}
