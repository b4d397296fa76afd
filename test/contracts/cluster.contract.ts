import { expect } from 'chai';
import type { ClusterStore, EngineBeat } from '../../src/ports/cluster.ts';
import type { ExecutionStore, NewExecution } from '../../src/ports/store.ts';
import type { TaskClaim, TaskRow } from '../../src/ports/task-queue.ts';
import type { WorkReport } from '../../src/ports/work.ts';
import { child, commit, finalCommit, header, id, newExecution, T0 } from './rows.ts';
import type { OpenedStore } from './store.contract.ts';

export interface OpenedCluster extends OpenedStore {
  store: ExecutionStore & { readonly cluster: ClusterStore };
  /** As if the last heartbeat of this engine were so much older. */
  silence(engineId: string, ms: number): void | Promise<void>;
}

const [a, b, c, d, e, f] = ['a', 'b', 'c', 'd', 'e', 'f'].map(id) as [string, string, string, string, string, string];
const LEASE_MS = 8_000;
const [one, two, three] = ['engine-1', 'engine-2', 'engine-3'];

function beatOf(engineId: string, given: Partial<EngineBeat> = {}): EngineBeat {
  return {
    id: engineId,
    url: `http://${engineId}:4747/`,
    startedAtMs: T0,
    status: 'serving',
    version: '1',
    executions: { running: 1, pending: 2, parked: 3 },
    leaseMs: LEASE_MS,
    follows: [],
    workers: [],
    ...given,
  };
}

function owned(engineId: string, executionId: string): NewExecution {
  return newExecution({ id: executionId, owner: { engine: engineId, epoch: 1 } });
}

/** A child, and its child, where `above` says so. */
function below(engineId: string, executionId: string, ...above: string[]): NewExecution {
  const parent = above.at(-1) as string;
  return child(executionId, parent, { owner: { engine: engineId, epoch: 1 }, ancestors: above });
}

function task(executionId: string, given: Partial<TaskRow> = {}, node = 'scan'): TaskRow {
  const taskId = `${executionId}/${node}/-/1`;
  return {
    id: taskId,
    capability: 'container',
    queuedAtMs: T0 + 1,
    claim: null,
    engine: one,
    task: {
      id: taskId,
      executionId,
      project: 'default',
      node,
      iterations: [],
      attempt: 1,
      type: 'container',
      where: 'worker',
      with: { image: 'scanner:1.4' },
      secrets: [],
      idempotencyKey: `${executionId}/${node}/-`,
      workflow: 'perimeter-scan',
      workflowHash: 'abc',
    },
    ...given,
  };
}

const claim: TaskClaim = { worker: 'w1', tokenHash: 'hash', atMs: T0 + 5, via: one };
const completed: WorkReport = { kind: 'completed', output: { found: [1] } };
const failed: WorkReport = { kind: 'failed', error: 'broken', code: 'FS_FAILED', retryable: true };

/** What every store that several engines share promises; each test has a store of its own. */
export function clusterStoreContract(name: string, open: () => Promise<OpenedCluster>): void {
  describe(`the ${name} store of several engines`, () => {
    let opened: OpenedCluster;
    let store: ExecutionStore;
    let cluster: ClusterStore;

    beforeEach(async () => {
      opened = await open();
      ({ store } = opened);
      ({ cluster } = opened.store);
    });

    afterEach(() => opened.close());

    async function create(...executions: NewExecution[]): Promise<void> {
      for (const execution of executions)
        expect(await store.createExecution(execution)).to.deep.equal({ kind: 'created' });
    }

    async function kill(engineId: string): Promise<void> {
      await opened.silence(engineId, LEASE_MS + 1_000);
      expect(await cluster.declareDead(engineId)).to.equal(true);
    }

    async function ownerOf(executionId: string): Promise<string | undefined> {
      const stored = await store.load(executionId);
      return stored === null ? undefined : `${stored.header.owner.engine}/${stored.header.owner.epoch}`;
    }

    const ids = (executions: { header: { id: string } }[]): string[] => executions.map((each) => each.header.id);

    describe('beat', () => {
      it('joins, and tells of everybody what each said last', async () => {
        const first = await cluster.beat(beatOf(one));
        expect(first.engines.map((engine) => engine.id)).to.deep.equal([one]);
        const worker = { id: 'w1', name: 'w', kind: 'worker' as const, capabilities: ['http'], slots: 1, held: 0 };
        const later = beatOf(two, { workers: [{ ...worker, connected: true, silentMs: 0 }], follows: ['projects'] });
        await cluster.beat(beatOf(two));
        await cluster.beat(later);
        const view = await cluster.beat(beatOf(one, { status: 'draining' }));
        const rows = view.engines.toSorted((x, y) => (x.id < y.id ? -1 : 1));
        expect(rows.map(({ silentMs: _, ...row }) => row)).to.deep.equal([
          { ...beatOf(one, { status: 'draining' }), membership: 'member', drainRequested: false },
          { ...later, membership: 'member', drainRequested: false },
        ]);
        expect(view.self).to.deep.include({ id: one, membership: 'member' });
        for (const { silentMs } of rows) expect(silentMs).to.be.within(0, 5_000);
      });

      it('measures silence by its own clock', async () => {
        await cluster.beat(beatOf(one, { startedAtMs: T0 + 1e9 }));
        await opened.silence(one, 60_000);
        const { engines } = await cluster.beat(beatOf(two));
        expect(engines.find((engine) => engine.id === one)?.silentMs).to.be.within(60_000, 65_000);
        const again = await cluster.beat(beatOf(one));
        expect(again.self?.silentMs).to.be.below(5_000);
      });

      it('counts the changes of definitions, and knows the admission switch', async () => {
        const before = await cluster.beat(beatOf(one));
        expect(before.admission).to.equal(null);
        const definition = { project: 'default', name: 'w', hash: 'h1', source: {}, savedAtMs: T0 };
        await store.saveDefinition(definition);
        const saved = await cluster.beat(beatOf(one));
        expect(saved.definitionsTurn).to.be.greaterThan(before.definitionsTurn);
        await store.setDisabled('default', 'w', true);
        const disabled = await cluster.beat(beatOf(one));
        expect(disabled.definitionsTurn).to.be.greaterThan(saved.definitionsTurn);
        await store.saveDefinition({ ...definition, savedAtMs: T0 + 1 });
        await store.putSetting('admission', { paused: true });
        const last = await cluster.beat(beatOf(two));
        expect(last.definitionsTurn).to.be.greaterThan(disabled.definitionsTurn);
        expect(last.admission).to.deep.equal({ paused: true });
        expect((await cluster.beat(beatOf(one))).definitionsTurn).to.equal(last.definitionsTurn);
      });

      it('tells one that was declared dead that it is nobody any more', async () => {
        await cluster.beat(beatOf(one));
        await cluster.beat(beatOf(two));
        await kill(one);
        const view = await cluster.beat(beatOf(one));
        expect(view.self).to.equal(null);
        expect(view.engines.find((engine) => engine.id === one)?.membership).to.equal('dead');
        expect((await cluster.beat(beatOf(three))).self?.membership).to.equal('member');
      });

      it('does not bring back one that has left', async () => {
        await cluster.beat(beatOf(one));
        await cluster.leave(one);
        await cluster.leave(one);
        const view = await cluster.beat(beatOf(one));
        expect(view.self).to.equal(null);
        expect(view.engines.map(({ id: engineId, membership }) => [engineId, membership])).to.deep.equal([
          [one, 'left'],
        ]);
      });

      it('drops who has been gone for an hour, unless it owns something', async () => {
        for (const engine of [one, two, three]) await cluster.beat(beatOf(engine));
        await create(owned(one, a));
        await kill(one);
        await cluster.leave(two);
        for (const engine of [one, two]) await opened.silence(engine, 2 * 3_600_000);
        const members = async (): Promise<string[]> => {
          await cluster.beat(beatOf(three));
          return (await cluster.beat(beatOf(three))).engines.map((engine) => engine.id).sort();
        };
        expect(await members()).to.deep.equal([one, three]);
        await cluster.takeOver([a], [one], three);
        expect(await members()).to.deep.equal([three]);
      });
    });

    describe('declareDead', () => {
      it('takes its lease for an answer', async () => {
        await cluster.beat(beatOf(one));
        expect(await cluster.declareDead(one)).to.equal(false);
        await opened.silence(one, LEASE_MS - 2_000);
        expect(await cluster.declareDead(one)).to.equal(false);
        expect((await cluster.beat(beatOf(one))).self?.id).to.equal(one);
        await opened.silence(one, LEASE_MS + 100);
        expect(await cluster.declareDead(one)).to.equal(true);
        expect(await cluster.declareDead(one)).to.equal(true);
        expect(await cluster.declareDead('nobody')).to.equal(false);
      });

      it('goes by the lease that the engine itself named', async () => {
        await cluster.beat(beatOf(one, { leaseMs: 60_000 }));
        await opened.silence(one, 30_000);
        expect(await cluster.declareDead(one)).to.equal(false);
        await opened.silence(one, 31_000);
        expect(await cluster.declareDead(one)).to.equal(true);
      });
    });

    it('keeps that an engine is to drain, where it is a member', async () => {
      await cluster.beat(beatOf(one));
      await cluster.beat(beatOf(two));
      expect(await cluster.requestDrain(two)).to.equal(true);
      expect(await cluster.requestDrain(two)).to.equal(true);
      expect(await cluster.requestDrain('nobody')).to.equal(false);
      expect((await cluster.beat(beatOf(two))).self?.drainRequested).to.equal(true);
      expect((await cluster.beat(beatOf(one))).self?.drainRequested).to.equal(false);
      await cluster.leave(two);
      expect(await cluster.requestDrain(two)).to.equal(false);
    });

    describe('orphans', () => {
      it('are the roots of trees that hold something live of these engines, oldest first', async () => {
        await create(
          owned(one, a),
          owned(two, b),
          owned(one, c),
          below(one, d, b),
          below(one, e, c),
          below(one, f, c, e),
        );
        expect(await cluster.listOrphans([one], 10)).to.deep.equal([a, b, c]);
        expect(await cluster.listOrphans([one], 2)).to.have.length(2);
        expect(await cluster.listOrphans([two, three], 10)).to.deep.equal([b]);
        expect(await cluster.listOrphans([three], 10)).to.deep.equal([]);
        await store.commit(finalCommit(a));
        expect(await cluster.listOrphans([one], 1)).to.deep.equal([b]);
      });

      it('are taken over with everything that is live below them, parents first', async () => {
        await create(owned(one, a), below(one, b, a), below(one, c, a, b), below(one, d, a), owned(one, e));
        await store.commit(finalCommit(d));
        await store.requestStop(a, { requestId: 'stop-1', requestedAtMs: T0 + 9 });
        await store.putTrigger({ id: 't1', executionId: e, name: 'go', payload: 1, atMs: T0 });
        const taken = await cluster.takeOver([a, e], [one], two);
        expect(ids(taken).slice(0, 2).sort()).to.deep.equal([a, e]);
        expect(ids(taken).slice(2)).to.deep.equal([b, c]);
        for (const { header: row } of taken) expect(row.owner).to.deep.equal({ engine: two, epoch: 2 });
        for (const executionId of [a, b, c, e]) expect(await ownerOf(executionId)).to.equal('engine-2/2');
        expect(await ownerOf(d)).to.equal('engine-1/2');
        expect(taken.find((each) => each.header.id === b)?.header.stop?.requestId).to.equal('stop-1');
        expect(taken.find((each) => each.header.id === e)?.triggers.map((trigger) => trigger.id)).to.deep.equal(['t1']);
        expect(taken.find((each) => each.header.id === e)).to.deep.equal(await store.load(e));
        expect(await cluster.listOrphans([one], 10)).to.deep.equal([]);
      });

      it('are the same when the answer was lost and the call is repeated', async () => {
        await create(owned(one, a), below(one, b, a), owned(one, c));
        const taken = await cluster.takeOver([a], [one], two);
        expect(await cluster.takeOver([a], [one], two)).to.deep.equal(taken);
        expect(await ownerOf(b)).to.equal('engine-2/2');
        expect(await ownerOf(c)).to.equal('engine-1/1');
      });

      it('go to one of several that want them', async () => {
        await create(owned(one, a), below(one, b, a));
        const answers = await Promise.all([two, three].map((engine) => cluster.takeOver([a], [one], engine)));
        const winners = answers.filter((answer) => answer.length > 0);
        expect(winners.map(ids)).to.deep.equal([[a, b]]);
        expect(await ownerOf(a)).to.equal(await ownerOf(b));
      });

      it('below a root that somebody else runs are left to that one', async () => {
        await create(owned(two, a), below(one, b, a));
        expect(await cluster.takeOver([a], [one], three)).to.deep.equal([]);
        expect(await ownerOf(b)).to.equal('engine-1/1');
        const taken = await cluster.takeOver([a], [one], two);
        expect(ids(taken)).to.deep.equal([a, b]);
        expect(await ownerOf(a)).to.equal('engine-2/1');
        expect(await ownerOf(b)).to.equal('engine-2/2');
      });

      it('below a root that has ended are taken over, too', async () => {
        await create(owned(one, a), below(one, b, a));
        await store.commit(finalCommit(a));
        expect(await cluster.listOrphans([one], 10)).to.deep.equal([a]);
        expect(ids(await cluster.takeOver([a], [one], two))).to.deep.equal([b]);
        expect(await cluster.takeOver(['unknown'], [one], two)).to.deep.equal([]);
      });

      it('leave nothing to their former owner: its commits are fenced', async () => {
        await create(owned(one, a), below(one, b, a));
        await store.commit(commit(a, { v: 1 }));
        await cluster.takeOver([a], [one], two);
        const fenced = { kind: 'refused', why: 'fenced' };
        expect(await store.commit(commit(a, { v: 2 }))).to.deep.equal(fenced);
        expect(await store.commit(finalCommit(b))).to.deep.equal(fenced);
        expect(await store.commit(commit(a, { v: 2, epoch: 2 }))).to.deep.equal({ kind: 'committed' });
        expect(await store.commit(finalCommit(b, { epoch: 2 }))).to.deep.equal({ kind: 'committed' });
      });

      it('bring their tasks along', async () => {
        await create(owned(one, a), owned(one, b));
        await store.commit(commit(a, { tasks: [task(a)] }));
        await store.commit(commit(b, { tasks: [task(b)] }));
        await cluster.takeOver([a], [one], two);
        const rows = await cluster.getTasks([task(a).id, task(b).id]);
        expect(rows.map(({ id: taskId, engine }) => [taskId, engine])).to.have.deep.members([
          [task(a).id, two],
          [task(b).id, one],
        ]);
        expect((await cluster.listQueued(['container'], null, one, 10)).map((row) => row.id)).to.deep.equal([
          task(a).id,
        ]);
      });

      it('are no offers any more', async () => {
        await create({ ...owned(one, a), offeredTo: three });
        expect(ids(await cluster.takeOver([a], [one], two))).to.deep.equal([a]);
        expect(await cluster.acceptOffer(a, three)).to.equal(null);
        expect((await cluster.waiting(three, 10)).offered).to.deep.equal([]);
      });
    });

    describe('an offer', () => {
      it('is accepted by the one that it was made to, once', async () => {
        await create({ ...owned(one, a), offeredTo: two }, owned(one, b));
        expect((await cluster.waiting(two, 10)).offered).to.deep.equal([a]);
        expect((await cluster.waiting(one, 10)).offered).to.deep.equal([]);
        expect(await cluster.acceptOffer(a, three)).to.equal(null);
        expect(await cluster.acceptOffer(b, two)).to.equal(null);
        const taken = await cluster.acceptOffer(a, two);
        expect(taken?.header.owner).to.deep.equal({ engine: two, epoch: 2 });
        expect(taken).to.deep.equal(await store.load(a));
        expect(await cluster.acceptOffer(a, two)).to.deep.equal(taken);
        expect((await cluster.waiting(two, 10)).offered).to.deep.equal([]);
        expect(await store.commit(commit(a))).to.deep.equal({ kind: 'refused', why: 'fenced' });
        expect(await cluster.acceptOffer('unknown', two)).to.equal(null);
      });

      it('is one of many that are accepted at once, each for itself', async () => {
        await create({ ...owned(one, a), offeredTo: two }, { ...owned(one, b), offeredTo: three }, owned(one, c));
        const asked = [a, b, c, a, 'unknown'].map((id) => cluster.acceptOffer(id, two));
        const [first, ofThree, ofNobody, again, unknown] = await Promise.all(asked);
        expect(first).to.deep.equal(await store.load(a));
        expect(again).to.deep.equal(first);
        expect(first?.header.owner).to.deep.equal({ engine: two, epoch: 2 });
        expect([ofThree, ofNobody, unknown]).to.deep.equal([null, null, null]);
        expect((await store.load(c))?.header.owner).to.deep.equal({ engine: one, epoch: 1 });
        expect((await cluster.acceptOffer(b, three))?.header.owner).to.deep.equal({ engine: three, epoch: 2 });
      });

      it('carries a stop that came first', async () => {
        await create({ ...owned(one, a), offeredTo: two });
        await store.requestStop(a, { requestId: 'stop-1', requestedAtMs: T0 + 9 });
        expect((await cluster.acceptOffer(a, two))?.header.stop?.requestId).to.equal('stop-1');
      });

      it('is taken back by who made it, when it is old', async () => {
        await create({ ...owned(one, a), offeredTo: two }, { ...owned(two, b), offeredTo: three }, owned(one, c));
        expect(await cluster.takeBackOffers(one, 60_000)).to.deep.equal([]);
        await new Promise((resolve) => setTimeout(resolve, 10));
        const back = await cluster.takeBackOffers(one, 0);
        expect(ids(back)).to.deep.equal([a]);
        expect(back[0]?.header.owner.engine).to.equal(one);
        expect(await cluster.acceptOffer(a, two)).to.equal(null);
        const { header: row } = (await store.load(a)) ?? { header: header({ id: a }) };
        expect(await store.commit(commit(a, { epoch: row.owner.epoch }))).to.deep.equal({ kind: 'committed' });
        expect((await cluster.waiting(three, 10)).offered).to.deep.equal([b]);
      });
    });

    describe('waiting', () => {
      it('tells the owner of the stops of its live executions', async () => {
        await create(owned(one, a), owned(one, b), owned(two, c), owned(one, d));
        for (const executionId of [a, c, d])
          await store.requestStop(executionId, { requestId: `stop-${executionId}`, requestedAtMs: T0 + 9 });
        await store.commit({
          ...finalCommit(d),
          header: { status: 'Failed', endedAtMs: T0 + 1_000, error: 'x' },
          requestId: `stop-${d}`,
        });
        expect((await cluster.waiting(one, 10)).intents).to.deep.equal([
          { executionId: a, requestId: `stop-${a}`, requestedAtMs: T0 + 9 },
        ]);
        expect((await cluster.waiting(two, 10)).intents.map((intent) => intent.executionId)).to.deep.equal([c]);
        expect(await cluster.waiting(three, 10)).to.deep.equal({ intents: [], offered: [], triggers: [] });
        await cluster.takeOver([c], [two], one);
        expect((await cluster.waiting(one, 10)).intents).to.have.length(2);
        expect((await cluster.waiting(one, 1)).intents).to.have.length(1);
      });

      it('tells the owner of triggers until it has them in hand', async () => {
        await create(owned(one, a), owned(two, b));
        const triggers = ['t1', 't2'].map((triggerId) => {
          return { id: triggerId, executionId: a, name: triggerId, payload: { n: 1 }, atMs: T0 };
        });
        for (const trigger of triggers) await store.putTrigger(trigger);
        await store.putTrigger({ id: 't3', executionId: a, name: 't3', payload: null, atMs: T0 }, true);
        await store.putTrigger({ id: 't4', executionId: b, name: 't1', payload: null, atMs: T0 });
        expect((await cluster.waiting(one, 10)).triggers).to.deep.equal(triggers);
        await cluster.markDelivered(['t1']);
        await cluster.markDelivered(['t1', 'unknown']);
        expect((await cluster.waiting(one, 10)).triggers).to.deep.equal(triggers.slice(1));
        await store.commit(commit(a, { consumedTriggers: ['t2'] }));
        expect((await cluster.waiting(one, 10)).triggers).to.deep.equal([]);
        expect((await store.load(a))?.triggers.map((trigger) => trigger.id)).to.deep.equal(['t1', 't3']);
        await store.commit(finalCommit(b));
        expect((await cluster.waiting(two, 10)).triggers).to.deep.equal([]);
      });
    });

    describe('places of a workflow', () => {
      it('are as many as it says, and each has one', async () => {
        await create(owned(one, a), owned(two, b), owned(one, c), owned(one, d));
        expect(await cluster.takePlace('default', 'w', a, 2)).to.equal(true);
        expect(await cluster.takePlace('default', 'w', b, 2)).to.equal(true);
        expect(await cluster.takePlace('default', 'w', c, 2)).to.equal(false);
        expect(await cluster.takePlace('default', 'w', a, 2)).to.equal(true);
        expect(await cluster.takePlace('default', 'other', c, 1)).to.equal(true);
        expect(await cluster.takePlace('second', 'w', d, 1)).to.equal(true);
        await cluster.givePlaceBack('default', 'w', c);
        expect(await cluster.takePlace('default', 'w', c, 2)).to.equal(false);
        await cluster.givePlaceBack('default', 'w', a);
        await cluster.givePlaceBack('default', 'w', a);
        expect(await cluster.takePlace('default', 'w', c, 2)).to.equal(true);
        expect(await cluster.takePlace('default', 'w', a, 2)).to.equal(false);
      });

      it('are given to no more than that when all ask at once', async () => {
        const all = [a, b, c, d, e, f];
        await create(...all.map((each) => owned(one, each)));
        const taken = await Promise.all(all.map((each) => cluster.takePlace('default', 'w', each, 3)));
        expect(taken.filter((each) => each)).to.have.length(3);
      });

      it('are free when their executions have ended, or are gone', async () => {
        await create(owned(one, a), owned(one, b), owned(one, c), owned(one, d));
        await cluster.takePlace('default', 'w', a, 2);
        await cluster.takePlace('default', 'w', b, 2);
        await store.commit(finalCommit(a));
        expect(await cluster.takePlace('default', 'w', c, 2)).to.equal(true);
        await store.commit(finalCommit(b));
        await store.deleteExecution(b);
        expect(await cluster.takePlace('default', 'w', d, 2)).to.equal(true);
      });
    });

    describe('tasks', () => {
      beforeEach(() => create(owned(one, a), owned(two, b)));

      it('that wait are listed for the workers of others, oldest first', async () => {
        const old = task(a, { queuedAtMs: T0 }, 'old');
        const young = task(b, { queuedAtMs: T0 + 9, engine: two }, 'young');
        const agents = task(a, { capability: 'agent:site' }, 'agents');
        const taken = task(a, {}, 'taken');
        await store.commit(commit(a, { tasks: [old, agents, taken] }));
        await store.commit(commit(b, { tasks: [young] }));
        await store.claimTask(taken.id, claim);
        const listed = async (...args: Parameters<ClusterStore['listQueued']>): Promise<string[]> =>
          (await cluster.listQueued(...args)).map((row) => row.id);
        expect(await listed(['container'], null, three, 10)).to.deep.equal([old.id, young.id]);
        expect(await listed(['container'], null, three, 1)).to.deep.equal([old.id]);
        expect(await listed(['container', 'agent:site'], 'default', two, 10)).to.deep.equal([old.id, agents.id]);
        expect(await listed(['container'], 'second', three, 10)).to.deep.equal([]);
        expect(await listed(['http'], null, three, 10)).to.deep.equal([]);
        expect(await cluster.listQueued(['container'], null, one, 10)).to.deep.equal([young]);
      });

      it('are read where they are still there', async () => {
        const rows = [task(a, {}, 'x'), task(a, {}, 'y'), task(b, { engine: two })] as const;
        await store.commit(commit(a, { tasks: [rows[0], rows[1]] }));
        await store.commit(commit(b, { tasks: [rows[2]] }));
        await store.claimTask(rows[0].id, claim);
        await store.commit(commit(a, { v: 2, endedTasks: [rows[1].id] }));
        await store.requestStop(b, { requestId: 'stop-1', requestedAtMs: T0 + 9 });
        const asked = [...rows.map((row) => row.id), `${c}/scan/-/1`, 'unknown'];
        expect(await cluster.readTasks(asked)).to.have.deep.members([
          { id: rows[0].id, claim, report: null, stopping: false },
          { id: rows[2].id, claim: null, report: null, stopping: true },
        ]);
        expect((await cluster.getTasks(asked)).map((row) => row.id)).to.have.members([rows[0].id, rows[2].id]);
        expect((await cluster.getTasks([rows[2].id]))[0]).to.deep.include({ engine: two, task: rows[2].task });
        expect(await cluster.readTasks([])).to.deep.equal([]);
      });

      it('keep the first report of who has them', async () => {
        const row = task(a);
        await store.commit(commit(a, { tasks: [row] }));
        expect(await cluster.storeReport(row.id, 'hash', completed)).to.equal('refused');
        await store.claimTask(row.id, claim);
        expect(await cluster.storeReport(row.id, 'other', completed)).to.equal('refused');
        expect(await cluster.storeReport(row.id, 'hash', completed)).to.equal('stored');
        expect(await cluster.storeReport(row.id, 'hash', failed)).to.equal('stored');
        expect(await cluster.readTasks([row.id])).to.deep.equal([
          { id: row.id, claim, report: completed, stopping: false },
        ]);
        expect((await cluster.getTasks([row.id]))[0]?.report).to.deep.equal(completed);
        expect(await cluster.storeReport('unknown/scan/-/1', 'hash', completed)).to.equal('gone');
        await store.commit(commit(a, { v: 2, endedTasks: [row.id] }));
        expect(await cluster.storeReport(row.id, 'hash', completed)).to.equal('gone');
      });

      it('are gone with their execution', async () => {
        const row = task(a);
        await store.commit(commit(a, { tasks: [row] }));
        await store.claimTask(row.id, claim);
        await store.commit(finalCommit(a, { v: 2 }));
        expect(await cluster.storeReport(row.id, 'hash', completed)).to.equal('gone');
        expect(await cluster.readTasks([row.id])).to.deep.equal([]);
        expect(await cluster.getTasks([row.id])).to.deep.equal([]);
        expect(await cluster.listQueued(['container'], null, three, 10)).to.deep.equal([]);
      });

      it('go by another engine when their worker does', async () => {
        const rows = [task(a, {}, 'x'), task(a, {}, 'y'), task(a, {}, 'z')] as const;
        await store.commit(commit(a, { tasks: [...rows] }));
        await store.claimTask(rows[0].id, claim);
        await store.claimTask(rows[1].id, { ...claim, worker: 'w2' });
        await cluster.moveClaims([...rows.map((row) => row.id), 'unknown'], 'w1', two);
        const states = await cluster.readTasks(rows.map((row) => row.id));
        expect(states.map((state) => [state.id, state.claim])).to.have.deep.members([
          [rows[0].id, { ...claim, via: two }],
          [rows[1].id, { ...claim, worker: 'w2' }],
          [rows[2].id, null],
        ]);
      });
    });
  });
}
