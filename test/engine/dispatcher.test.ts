import { expect } from 'chai';
import { closeRigs, FakeLink, type FakeLinkOptions, openRig, type Rig, type RigOptions } from '../support/engine.ts';

const MARKER = 'workflow stopped by user';

/** One task `a`, and `b` after it. */
function workflow(name: string, keys = '', type = 'http'): string {
  const work = type === 'agent' ? '{ pool: site, tool: nmap }' : '{ url: "http://a/" }';
  return `{ name: ${name}, nodes: { a: { type: ${type}, ${keys} with: ${work} }, b: { type: set, needs: [a], with: { value: "\${{ nodes.a.output }}" } } } }`;
}

interface Deferred {
  promise: Promise<void>;
  resolve: () => void;
}

function deferred(): Deferred {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe('the dispatcher', () => {
  let rig: Rig;

  async function open(options: RigOptions = {}): Promise<Rig> {
    rig = await openRig({ slots: 0, ...options });
    return rig;
  }

  async function link(options?: FakeLinkOptions): Promise<FakeLink> {
    const worker = new FakeLink(options);
    await worker.connect(rig);
    return worker;
  }

  const idOf = (id: string, attempt = 1): string => `${id}/a/-/${attempt}`;
  const pushedTo = (worker: FakeLink): string[] => worker.pushed.map((task) => task.id);

  async function expectQueue(...rows: [id: string, worker: string | null][]): Promise<void> {
    expect((await rig.tasks()).map(({ id, claim }) => [id, claim?.worker ?? null])).to.deep.equal(rows);
  }

  beforeEach(async () => {
    await open();
  });
  afterEach(closeRigs);

  describe('gives out a task', () => {
    it('that found no slot to a worker that connects later', async () => {
      const id = await rig.run(workflow('later'));
      const [start] = rig.gate.commits.filter(({ tasks }) => tasks.length > 0);
      expect(start?.nodes.map(({ key, status }) => [key, status])).to.deep.equal([['a/-', 'Running']]);
      expect(start?.tasks.map((task) => task.id)).to.deep.equal([idOf(id)]);
      await expectQueue([idOf(id), null]);
      expect(await rig.told(id)).to.deep.equal([
        'execution.created',
        'execution.started',
        'node.started a',
        'task.queued a',
      ]);
      const worker = await link();
      await expectQueue([idOf(id), 'worker-1']);
      expect(worker.pushed[0]).to.deep.include({ id: idOf(id), executionId: id, node: 'a', attempt: 1, type: 'http' });
      expect((await rig.tasks())[0]?.claim?.tokenHash).to.equal(`hash of ${worker.held.get(idOf(id))}`);
      expect(await worker.complete(idOf(id), 7)).to.equal(false);
      await rig.settle();
      await expectQueue();
      expect(await rig.record(id)).to.include({ status: 'Complete' });
      expect(await rig.output(id, 'b')).to.equal(7);
      expect((await rig.events(id)).find(({ type }) => type === 'task.claimed')?.data).to.deep.equal({
        worker: 'name of worker-1',
      });
    });

    it('by capability', async () => {
      const id = await rig.run(workflow('capable'));
      const other = await link({ id: 'other', capabilities: ['container', 'agent:site'], slots: 9 });
      expect(other.pushed).to.deep.equal([]);
      expect(rig.engine.workers.missing()).to.deep.equal({ http: 1 });
      const able = await link({ id: 'able', capabilities: ['container', 'http'] });
      expect(pushedTo(able)).to.deep.equal([idOf(id)]);
      expect(rig.engine.workers.missing()).to.deep.equal({});
      await able.complete(idOf(id));
    });

    it('to no key of another project, and does not keep others waiting behind it', async () => {
      const source = workflow('mine');
      const mine = await rig.run(source);
      const stored = await rig.store.getDefinition('default', 'mine');
      await rig.store.saveDefinition({ ...(stored as NonNullable<typeof stored>), project: 'theirs' });
      const theirs = await rig.start('mine', {}, { project: 'theirs' });
      const worker = await link({ project: 'theirs', slots: 2 });
      expect(pushedTo(worker)).to.deep.equal([idOf(theirs)]);
      await expectQueue([idOf(mine), null], [idOf(theirs), 'worker-1']);
      const all = await link({ id: 'all', slots: 2 });
      expect(pushedTo(all)).to.deep.equal([idOf(mine)]);
      await all.complete(idOf(mine));
      await worker.complete(idOf(theirs));
    });

    it('where most slots are free, and never more than there are', async () => {
      const small = await link({ id: 'small', slots: 1 });
      const large = await link({ id: 'large', slots: 3 });
      const ids = [await rig.run(workflow('many'))];
      for (let n = 0; n < 5; n++) ids.push(await rig.start('many'));
      expect([small.pushed.length, large.pushed.length]).to.deep.equal([1, 3]);
      expect(pushedTo(large).slice(0, 2)).to.deep.equal(ids.slice(0, 2).map((id) => idOf(id)));
      await large.complete(pushedTo(large)[2] as string);
      await rig.settle();
      expect(large.pushed.map((task) => task.id).at(-1)).to.equal(idOf(ids[4] as string));
      expect((await rig.tasks()).filter(({ claim }) => claim === null).map(({ id }) => id)).to.deep.equal([
        idOf(ids[5] as string),
      ]);
    });

    it('that is oldest first, also after a restart', async () => {
      await rig.save(
        `{ name: second, nodes: { wait: { type: delay, with: { duration: 5s } }, a: { type: http, needs: [wait], with: { url: "http://a/" } } } }`,
      );
      const young = await rig.start('second');
      const old = await rig.run(workflow('first'));
      await rig.advance(6_000);
      await expectQueue([idOf(young), null], [idOf(old), null]);
      rig = await rig.crash();
      const worker = await link();
      expect(pushedTo(worker)).to.deep.equal([idOf(old)]);
      await worker.complete(idOf(old));
      await rig.settle();
      expect(pushedTo(worker)).to.deep.equal([idOf(old), idOf(young)]);
    });

    it('again and again until the store has said whether the claim was made', async () => {
      for (const how of ['fail', 'lose'] as const) {
        await open();
        const id = await rig.run(workflow('again'));
        let left = 3;
        rig.gate.intervene = ({ method }) => (method === 'claimTask' && left-- > 0 ? how : undefined);
        const worker = await link();
        expect(worker.pushed, how).to.deep.equal([]);
        await rig.live(2_000, worker);
        expect(pushedTo(worker), how).to.deep.equal([idOf(id)]);
        expect(await worker.complete(idOf(id), how)).to.equal(false);
        await rig.settle();
        expect(await rig.node(id, 'a'), how).to.include({ status: 'Complete', attempt: 1 });
      }
    });

    it('to another worker when the one of a claim without answer has gone', async () => {
      for (const [how, attempt] of [
        ['fail', 1],
        ['lose', 2],
      ] as const) {
        await open();
        const id = await rig.run(workflow('gone'));
        let left = 1;
        rig.gate.intervene = ({ method }) => (method === 'claimTask' && left-- > 0 ? how : undefined);
        const first = await link({ id: 'first' });
        first.disconnect();
        const second = await link({ id: 'second' });
        rig.gate.intervene = ({ method }) => (method === 'claimTask' && rig.clock.nowMs() < gone ? 'fail' : undefined);
        const gone = rig.clock.nowMs() + 8_200;
        await rig.live(12_000, second);
        expect(first.pushed, how).to.deep.equal([]);
        expect(pushedTo(second), how).to.deep.equal([idOf(id, attempt)]);
        await second.complete(idOf(id, attempt));
        await rig.settle();
        expect(await rig.node(id, 'a'), how).to.include({ status: 'Complete', attempt });
      }
    });

    it('whose worker disconnected during the claim when it is back, in the same attempt', async () => {
      const id = await rig.run(workflow('between', 'rerun: false,'));
      const gate = deferred();
      rig.gate.intervene = ({ method }) => (method === 'claimTask' ? { holdAfter: gate.promise } : undefined);
      const worker = await link();
      worker.disconnect();
      gate.resolve();
      await rig.settle();
      expect(worker.pushed).to.deep.equal([]);
      await worker.connect(rig);
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      await worker.complete(idOf(id));
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Complete', attempt: 1 });
    });

    it('only while the engine is not draining', async () => {
      const id = await rig.run(workflow('drained'));
      const drained = rig.engine.drain(0);
      const worker = await link();
      await rig.settle();
      await drained;
      expect(worker.pushed).to.deep.equal([]);
      await expectQueue([idOf(id), null]);
    });
  });

  describe('with slots in this process', () => {
    it('queues what finds none, and gives it the next that is free', async () => {
      await open({ slots: 1 });
      const first = await rig.run(workflow('one'));
      const second = await rig.start('one');
      await expectQueue([idOf(second), null]);
      rig.work.complete(idOf(first));
      await rig.settle();
      expect(rig.work.running).to.deep.equal([idOf(second)]);
      const [row] = await rig.tasks();
      expect(row?.claim?.worker).to.match(/^pool:/);
      rig.work.complete(idOf(second), 2);
      await rig.settle();
      expect(await rig.output(second, 'b')).to.equal(2);
      await expectQueue();
      expect(rig.work.reserved).to.equal(0);
    });

    it('lets nothing that becomes ready overtake the queue', async () => {
      await open({ slots: 1 });
      const chain = await rig.run(
        '{ name: chain, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: http, needs: [a], with: { url: "http://b/" } } } }',
      );
      const other = await rig.run(workflow('other'));
      rig.work.complete(idOf(chain));
      await rig.settle();
      expect(rig.work.running).to.deep.equal([idOf(other)]);
      rig.work.complete(idOf(other));
      await rig.settle();
      expect(rig.work.running).to.deep.equal([`${chain}/b/-/1`]);
      rig.work.complete('b');
      await rig.settle();
      await expectQueue();
    });

    it('gives a slot that a stop left unused to who waits', async () => {
      await open({ slots: 1 });
      await rig.save(workflow('unused'));
      const gate = deferred();
      let commits = 0;
      rig.gate.intervene = ({ method }) =>
        method === 'commit' && commits++ === 0 ? { holdBefore: gate.promise } : undefined;
      const first = await rig.start('unused');
      const second = await rig.start('unused');
      await expectQueue([idOf(second), null]);
      await rig.stop(first);
      gate.resolve();
      await rig.settle();
      expect((await rig.record(first)).error).to.equal(MARKER);
      expect(rig.work.running).to.deep.equal([idOf(second)]);
    });

    it('keeps the slot of a claim without answer until it knows', async () => {
      for (const how of ['fail', 'lose'] as const) {
        await open({ slots: 1 });
        const first = await rig.run(workflow('kept'));
        const second = await rig.start('kept');
        let left = 2;
        rig.gate.intervene = ({ method }) => (method === 'claimTask' && left-- > 0 ? how : undefined);
        rig.work.complete(idOf(first));
        await rig.settle();
        expect(rig.work.running).to.deep.equal([]);
        await rig.advance(1_000);
        expect(rig.work.running, how).to.deep.equal([idOf(second)]);
        expect(await rig.node(second, 'a')).to.include({ status: 'Running', attempt: 1 });
        rig.work.complete(idOf(second));
        await rig.settle();
        expect(rig.work.reserved).to.equal(0);
      }
    });

    it('gives the slot of a claim back when a stop withdraws its task', async () => {
      await open({ slots: 1 });
      const ids = [await rig.run(workflow('back')), await rig.start('back'), await rig.start('back')];
      const gate = deferred();
      rig.gate.intervene = ({ method, args }) =>
        method === 'claimTask' && args[0] === idOf(ids[1] as string) ? { holdAfter: gate.promise } : undefined;
      rig.work.complete(idOf(ids[0] as string));
      await rig.settle();
      await rig.stop(ids[1] as string);
      gate.resolve();
      await rig.settle();
      expect((await rig.receipt(ids[1] as string)).tasks.map(({ outcome }) => outcome)).to.deep.equal(['neverStarted']);
      expect(rig.work.running).to.deep.equal([idOf(ids[2] as string)]);
    });
  });

  describe('watches the time', () => {
    it('of a queued task: queueTimeout fails what nobody claimed, and that may be tried again', async () => {
      const id = await rig.run(workflow('patience', 'queueTimeout: 10s, retry: { attempts: 2, backoff: 1s },'));
      await rig.advance(9_999);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 1, error: null });
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', errorCode: 'FS_TIMEOUT' });
      await expectQueue();
      await rig.advance(1_000);
      await expectQueue([idOf(id, 2), null]);
      await rig.advance(10_000);
      expect(await rig.node(id, 'a')).to.include({
        status: 'Failed',
        error: 'no worker claimed it within 10000 ms',
        errorCode: 'FS_TIMEOUT',
        attempt: 2,
      });
      const worker = await link();
      expect(worker.pushed).to.deep.equal([]);
    });

    it('of a queued task over a restart, from its queueing', async () => {
      const id = await rig.run(workflow('patience', 'queueTimeout: 10s,'));
      await rig.advance(6_000);
      rig = await rig.crash(3_000);
      await rig.advance(999);
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT', attempt: 1 });
    });

    it('of a claimed one: no queueTimeout, also after a restart', async () => {
      const id = await rig.run(workflow('claimed', 'queueTimeout: 10s,'));
      const worker = await link();
      await rig.live(12_000, worker);
      rig = await rig.crash();
      await worker.connect(rig);
      await rig.live(12_000, worker);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      await worker.complete(idOf(id));
    });

    it('of an attempt from its claim', async () => {
      const id = await rig.run(workflow('slow', 'timeout: 10s,'));
      await rig.advance(60_000);
      const worker = await link();
      await rig.live(8_000, worker);
      await rig.advance(1_999);
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      await expectQueue();
      // Until it has ended, its slot is taken.
      const next = await rig.start('slow');
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      expect(worker.beat()).to.deep.equal([idOf(id)]);
      expect(await worker.complete(idOf(id))).to.equal(true);
      await rig.settle();
      expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(next)]);
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
      await worker.complete(idOf(next));
    });

    it('of an attempt from its claim, though a crash took the commit that tells of it', async () => {
      const id = await rig.run(workflow('slow', 'timeout: 10s,'));
      await rig.advance(60_000);
      rig.gate.intervene = ({ method }) =>
        method === 'commit' ? { holdBefore: new Promise(() => undefined) } : undefined;
      const worker = await link();
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      rig = await rig.crash(1_000, { intervene: () => undefined });
      expect((await rig.told(id)).at(-1)).to.equal('task.claimed a');
      expect(await worker.connect(rig)).to.deep.equal([idOf(id)]);
      await rig.live(8_000, worker);
      await rig.advance(999);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });
  });

  describe('takes a result', () => {
    let id: string;
    let worker: FakeLink;
    beforeEach(async () => {
      id = await rig.run(workflow('result'));
      worker = await link();
    });

    it('once: the same again is discarded, and counted once', async () => {
      const token = worker.held.get(idOf(id));
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      for (let n = 0; n < 3; n++)
        expect(await worker.report(idOf(id), { kind: 'completed', output: 2 }, token)).to.equal(true);
      await rig.settle();
      expect(await rig.output(id, 'b')).to.equal(1);
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
    });

    it('of its token and its worker alone; what is refused is not counted', async () => {
      const token = worker.held.get(idOf(id)) as string;
      const other = await link({ id: 'other' });
      const wrong: [FakeLink, string, string][] = [
        [worker, idOf(id), 'wrong'],
        [other, idOf(id), token],
      ];
      for (const [from, task, given] of wrong) {
        expect(await from.report(task, { kind: 'completed', output: 'forged' }, given)).to.equal(true);
        from.gate.log(from, task, given, 'stdout', 'forged', false);
      }
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Running' });
      expect(await rig.told(id)).not.to.include('log a');
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(0);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, token)).to.equal(false);
    });

    it('and answers when it is durable, the same to one that is repeated meanwhile', async () => {
      const gate = deferred();
      rig.gate.intervene = ({ method }) => (method === 'commit' ? { holdBefore: gate.promise } : undefined);
      const answers: boolean[] = [];
      const held = worker.list();
      const token = held[0]?.token;
      void worker.complete(idOf(id), 1).then((discarded) => answers.push(discarded));
      await rig.settle();
      // Its socket broke: it says hello, still lists the task, and says it again.
      worker.disconnect();
      expect(await worker.connect(rig, held)).to.deep.equal([idOf(id)]);
      expect(worker.beat([idOf(id)])).to.deep.equal([]);
      void worker
        .report(idOf(id), { kind: 'completed', output: 1 }, token)
        .then((discarded) => answers.push(discarded));
      await rig.settle();
      expect(answers).to.deep.equal([]);
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      gate.resolve();
      await rig.settle();
      expect(answers).to.deep.equal([false, false]);
      expect(await rig.output(id, 'b')).to.equal(1);
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(0);
    });

    it('that failed, and its node is tried again', async () => {
      const retried = await rig.run(workflow('retried', 'retry: { attempts: 2, backoff: 1s },'));
      await worker.complete(idOf(id));
      await rig.settle();
      await worker.report(idOf(retried), { kind: 'failed', error: 'no', code: 'FS_FAILED', retryable: true });
      await rig.settle();
      await expectQueue();
      await rig.advance(1_000);
      expect(pushedTo(worker).at(-1)).to.equal(idOf(retried, 2));
      await worker.complete(idOf(retried, 2), 2);
      await rig.settle();
      expect(await rig.output(retried, 'b')).to.equal(2);
    });

    it('and discards it when the stop was stored first', async () => {
      const gate = deferred();
      let stopped = false;
      rig.gate.intervene = ({ method }) => {
        if (method !== 'commit' || stopped) return undefined;
        stopped = true;
        return { holdBefore: gate.promise };
      };
      const answer = worker.complete(idOf(id), 'too late');
      await rig.settle();
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(await answer).to.equal(true);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER, hasOutput: false });
      expect((await rig.receipt(id)).tasks.map(({ outcome }) => outcome)).to.deep.equal(['finishedFirst']);
      await expectQueue();
    });
  });
});
