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

  const agentLink = (): Promise<FakeLink> => link({ kind: 'agent', capabilities: ['agent:site'] });

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

  it('keeps a draining engine waiting only for what runs in its own process', async () => {
    const held = await rig.run(workflow('elsewhere'));
    const worker = await link();
    const queued = await rig.start('elsewhere');
    let drained = false;
    void rig.engine.drain(60_000).then(() => {
      drained = true;
    });
    await rig.settle();
    expect(drained).to.equal(true);
    rig = await rig.crash(1_000);
    expect(await worker.connect(rig)).to.deep.equal([idOf(held)]);
    await expectQueue([idOf(held), 'worker-1'], [idOf(queued), null]);

    await open({ slots: 1 });
    const first = await rig.run(workflow('here'));
    const second = await rig.start('here');
    rig.work.complete(idOf(first));
    await rig.settle();
    const waits = rig.engine.drain(60_000);
    await rig.advance(1_000);
    expect((await rig.node(second, 'a')).status).to.equal('Running');
    rig.work.complete(idOf(second));
    await rig.advance(100);
    await waits;
    expect((await rig.node(second, 'a')).status).to.equal('Complete');
    await expectQueue();
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

  describe('at a stop', () => {
    const outcomes = async (id: string) => (await rig.receipt(id)).tasks.map(({ outcome }) => outcome);

    it('withdraws what is queued: it never started', async () => {
      const id = await rig.run(workflow('queued'));
      await rig.advance(3_000);
      expect((await rig.engine.previewStop(id))?.willAbort).to.deep.equal([
        { node: 'a', type: 'http', where: 'worker', runningForMs: 3_000, queued: true },
      ]);
      await rig.stop(id);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.receipt(id)).to.include({ unconfirmed: 0, finalisedMs: 0 });
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      await expectQueue();
      const worker = await link();
      expect(worker.pushed).to.deep.equal([]);
    });

    it('aborts what a worker has, and says so before', async () => {
      await link();
      const id = await rig.run(workflow('claimed'));
      expect((await rig.engine.previewStop(id))?.willAbort).to.deep.equal([
        { node: 'a', type: 'http', where: 'worker', runningForMs: 0 },
      ]);
    });

    describe('whose engine dies before the final record', () => {
      const two = workflow('two').replace('b: {', 'c: { type: http, with: { url: "http://c/" } }, b: {');
      /** Nothing is stored any more, and the engine dies. */
      const die = async (): Promise<void> => {
        rig.gate.intervene = ({ method }) => (method === 'commit' ? { holdBefore: deferred().promise } : undefined);
      };

      it('tells a worker that its result was discarded when the receipt says so', async () => {
        const worker = await link();
        const id = await rig.run(workflow('late'));
        const held = worker.list();
        await rig.stop(id);
        die();
        let answered = false;
        void worker.complete(idOf(id), 1).then(() => {
          answered = true;
        });
        await rig.settle();
        expect(answered).to.equal(false);
        rig = await rig.crash();
        await worker.connect(rig, held);
        expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, held[0]?.token)).to.equal(true);
        expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
        expect(await rig.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
      });

      it('counts the late result of an agent once it is answered', async () => {
        const [worker, agent] = [await link(), await agentLink()];
        const id = await rig.run(
          workflow('mixed').replace('b: {', 's: { type: agent, with: { pool: site, tool: nmap } }, b: {'),
        );
        await rig.stop(id);
        const [site = ''] = pushedTo(agent);
        expect(await agent.complete(site, 1)).to.equal(true);
        rig = await rig.crash();
        await worker.connect(rig);
        await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
        expect(await rig.receipt(id)).to.include({ lateResultsDiscarded: 1, unconfirmed: 0 });
      });

      it('does not say that a try which had timed out is gone, which its worker may have yet', async () => {
        const worker = await link({ slots: 2 });
        const id = await rig.run(
          two.replace('a: { type: http,', 'a: { type: http, timeout: 1s, retry: { attempts: 2, backoff: 1h },'),
        );
        await rig.advance(1_100);
        await rig.stop(id);
        expect((await rig.engine.receipt(id))?.unconfirmed).to.equal(2);
        const tokens = new Map(worker.held);
        rig = await rig.crash();
        await rig.advance(9_000);
        expect(await outcomes(id)).to.deep.equal(['unconfirmed', 'unconfirmed']);
        await worker.connect(rig);
        for (const [task, token] of tokens) await worker.report(task, { kind: 'aborted', outcome: 'forced' }, token);
        expect(await outcomes(id)).to.deep.equal(['forced', 'forced']);
      });
    });

    it('claims nothing whose intent was stored before', async () => {
      const id = await rig.run(workflow('before', 'retry: { attempts: 3 },'));
      await rig.store.requestStop(id, { requestId: 'r-1', requestedAtMs: rig.clock.nowMs() });
      const worker = await link();
      expect(worker.pushed).to.deep.equal([]);
      expect((await rig.tasks()).map(({ claim }) => claim)).to.deep.equal([null]);
      await rig.advance(1_000);
      expect(worker.pushed).to.deep.equal([]);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      // Its slot is free.
      const next = await rig.start('before');
      expect(pushedTo(worker)).to.deep.equal([idOf(next)]);
      await worker.complete(idOf(next));
    });

    it('between claim and push never starts it', async () => {
      const id = await rig.run(workflow('claiming'));
      const gate = deferred();
      rig.gate.intervene = ({ method }) => (method === 'claimTask' ? { holdAfter: gate.promise } : undefined);
      const worker = await link();
      await expectQueue([idOf(id), 'worker-1']);
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(worker.pushed).to.deep.equal([]);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect((await rig.record(id)).error).to.equal(MARKER);
    });

    it('after a claim whose worker had gone before the push never starts it', async () => {
      const id = await rig.run(workflow('unpushed'));
      const gate = deferred();
      rig.gate.intervene = ({ method }) => (method === 'claimTask' ? { holdAfter: gate.promise } : undefined);
      const worker = await link();
      worker.disconnect();
      gate.resolve();
      await rig.settle();
      await rig.stop(id);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect(await rig.receipt(id)).to.include({ finalisedMs: 0, unconfirmed: 0 });
      await worker.connect(rig);
      expect(worker.pushed).to.deep.equal([]);
    });

    it('that meets the commit of the claim cancels what was pushed', async () => {
      const id = await rig.run(workflow('met'));
      const gate = deferred();
      rig.gate.intervene = ({ method, args }) =>
        method === 'commit' && JSON.stringify(args).includes('task.claimed') ? { holdBefore: gate.promise } : undefined;
      const worker = await link();
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      expect(await outcomes(id)).to.deep.equal(['aborted']);
      expect(await rig.told(id)).not.to.include('task.claimed a');
    });

    const answers = [
      ['aborted', { kind: 'aborted', outcome: 'aborted' }, 0],
      ['forced', { kind: 'aborted', outcome: 'forced' }, 0],
      ['neverStarted', { kind: 'aborted', outcome: 'neverStarted' }, 0],
      ['finishedFirst', { kind: 'completed', output: 1 }, 1],
      ['finishedFirst', { kind: 'failed', error: 'no', code: 'FS_FAILED', retryable: true }, 1],
    ] as const;
    for (const [outcome, report, discarded] of answers) {
      it(`cancels what a worker holds: ${report.kind} makes it ${outcome}`, async () => {
        const id = await rig.run(workflow('held', 'retry: { attempts: 3 },'));
        const worker = await link();
        await rig.stop(id);
        expect(worker.cancelled).to.deep.equal([idOf(id)]);
        expect((await rig.told(id)).slice(-3)).to.deep.equal(['stop.delivered', 'task.aborting a', 'stop.halted']);
        // Also by heartbeat, should the cancel be lost.
        expect(worker.beat()).to.deep.equal([idOf(id)]);
        await rig.advance(1_000);
        const token = worker.held.get(idOf(id));
        expect(await worker.report(idOf(id), report)).to.equal(true);
        expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
        expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER, hasOutput: false });
        expect((await rig.told(id)).slice(-3)).to.deep.equal(['task.aborted a', 'node.failed a', 'execution.failed']);
        const receipt = await rig.receipt(id);
        expect(receipt.tasks[0]).to.include({ node: 'a', attempt: 1, where: 'worker', outcome, ms: 1_000 });
        expect(receipt).to.include({
          haltedMs: 0,
          finalisedMs: 1_000,
          unconfirmed: 0,
          lateResultsDiscarded: discarded,
        });
        await worker.report(idOf(id), report, token);
        expect((await rig.receipt(id)).lateResultsDiscarded).to.equal(discarded);
        expect(rig.engine.metrics().lateResultsDiscarded).to.equal(discarded);
        await expectQueue();
      });
    }

    it('writes off a silent worker after the grace, and believes its report later', async () => {
      const id = await rig.run(workflow('silent'));
      const worker = await link();
      await rig.stop(id);
      await rig.advance(5_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.receipt(id)).to.include({ finalisedMs: 5_000, unconfirmed: 1 });
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      await expectQueue();
      const events = await rig.events(id);
      await rig.advance(60_000);
      expect(worker.closed).to.equal(true);
      expect(rig.engine.workers.workers().map(({ id, held }) => [id, held])).to.deep.equal([['worker-1', 1]]);
      expect(await worker.connect(rig)).to.deep.equal([]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      expect(await rig.receipt(id)).to.include({ finalisedMs: 5_000, unconfirmed: 0 });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'forced', ms: 65_000 });
      expect(rig.bus.receipts.at(-1)).to.deep.equal(await rig.receipt(id));
      expect(await rig.events(id)).to.deep.equal(events);
    });

    it('believes a heartbeat that lists the task no more', async () => {
      const id = await rig.run(workflow('unlisted'));
      const worker = await link();
      await rig.stop(id);
      await rig.live(6_000, worker);
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      worker.held.clear();
      worker.beat();
      await rig.settle();
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      worker.beat();
      await rig.settle();
      expect(await outcomes(id)).to.deep.equal(['aborted']);
      expect((await rig.receipt(id)).unconfirmed).to.equal(0);
    });

    it('tells a worker that does not know of a task, before it gives that up: its push may still arrive', async () => {
      const id = await rig.run(workflow('astray'));
      const worker = await link();
      worker.held.clear();
      worker.beat();
      expect(worker.cancelled).to.deep.equal([]);
      worker.beat();
      await rig.settle();
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      expect(worker.pushed.map((task) => task.id)).to.deep.equal([idOf(id), idOf(id, 2)]);
      await worker.complete(idOf(id, 2), 1);
    });

    it('counts a late result of what was written off', async () => {
      const id = await rig.run(workflow('late'));
      const worker = await link();
      await rig.stop(id);
      await rig.live(6_000, worker);
      expect(await worker.complete(idOf(id), 'late')).to.equal(true);
      expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
      expect(await rig.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
      expect(await rig.output(id, 'a')).to.equal(undefined);
    });

    it('tells a worker that comes back to keep nothing of it', async () => {
      const id = await rig.run(workflow('away'));
      const worker = await link();
      worker.disconnect();
      await rig.stop(id);
      expect(worker.cancelled).to.deep.equal([]);
      expect(await worker.connect(rig)).to.deep.equal([]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      expect(await outcomes(id)).to.deep.equal(['aborted']);
    });
  });

  describe('loses a task', () => {
    it('whose worker is silent for a lease, and runs it again', async () => {
      const id = await rig.run(workflow('lost'));
      const first = await link({ id: 'first' });
      const token = first.held.get(idOf(id));
      await rig.advance(7_999);
      expect((await rig.node(id, 'a')).attempt).to.equal(1);
      await rig.advance(1);
      expect(first.closed).to.equal(true);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 2 });
      await expectQueue([idOf(id, 2), null]);
      const second = await link({ id: 'second' });
      expect(pushedTo(second)).to.deep.equal([idOf(id, 2)]);
      expect(await first.connect(rig)).to.deep.equal([]);
      expect(await first.report(idOf(id), { kind: 'completed', output: 1 }, token)).to.equal(true);
      expect(await second.complete(idOf(id, 2), 2)).to.equal(false);
      expect(await rig.output(id, 'b')).to.equal(2);
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
    });

    it('five times at most, whatever its tries', async () => {
      const id = await rig.run(workflow('five', 'retry: { attempts: 9 },'));
      for (let n = 1; n <= 5; n++) {
        const worker = await link({ id: `worker-${n}` });
        expect(pushedTo(worker)).to.deep.equal([idOf(id, n)]);
        worker.disconnect();
        await rig.advance(8_000);
      }
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 5 });
      await expectQueue();
    });

    it('once, where it must not run again', async () => {
      const id = await rig.run(workflow('once', 'rerun: false,'));
      const worker = await link();
      worker.disconnect();
      await rig.advance(8_000);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 1 });
    });

    it('that its worker says is lost', async () => {
      const id = await rig.run(workflow('said'));
      const worker = await link();
      expect(await worker.report(idOf(id), { kind: 'lost' })).to.equal(false);
      expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(id, 2)]);
      await worker.complete(idOf(id, 2));
    });

    it('whose push did not arrive: two heartbeats do not list it', async () => {
      const id = await rig.run(workflow('push'));
      const worker = await link();
      worker.held.clear();
      worker.beat();
      await rig.settle();
      expect((await rig.node(id, 'a')).attempt).to.equal(1);
      worker.beat();
      await rig.settle();
      expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(id, 2)]);
      await worker.complete(idOf(id, 2));
    });

    it('not, when its worker is back within the lease and lists it', async () => {
      const id = await rig.run(workflow('back'));
      const worker = await link();
      worker.disconnect();
      await rig.advance(7_000);
      expect(await worker.connect(rig)).to.deep.equal([idOf(id)]);
      await rig.live(10_000, worker);
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      expect(await rig.node(id, 'a')).to.include({ status: 'Complete', attempt: 1 });
    });

    it('when its worker is back and lists it not, or with another token', async () => {
      for (const forged of [false, true]) {
        await open();
        const id = await rig.run(workflow('forged'));
        const worker = await link();
        worker.disconnect();
        const held = forged ? [{ taskId: idOf(id), token: 'forged' }] : [];
        worker.held.clear();
        expect(await worker.connect(rig, held)).to.deep.equal([]);
        expect((await rig.node(id, 'a')).attempt).to.equal(2);
        if (forged) {
          // It says that it runs something: its slot is taken until that has ended.
          expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
          expect(worker.beat([idOf(id)])).to.deep.equal([idOf(id)]);
          worker.beat([]);
          await rig.settle();
        }
        expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(id, 2)]);
        await worker.complete(idOf(id, 2));
      }
    });

    it('not to a connection that is older than the worker’s last', async () => {
      const id = await rig.run(workflow('older'));
      const old = await link();
      const fresh = new FakeLink();
      expect(await fresh.connect(rig, old.list())).to.deep.equal([idOf(id)]);
      old.disconnect();
      expect(rig.engine.workers.workers()[0]).to.include({ connected: true });
      expect(old.beat([])).to.deep.equal([]);
      expect(old.beat([])).to.deep.equal([]);
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      await fresh.report(idOf(id), { kind: 'completed', output: 1 }, old.held.get(idOf(id)));
    });

    it('tells a worker to end what nobody knows', async () => {
      const worker = await link();
      expect(worker.beat(['nobody/a/-/1'])).to.deep.equal(['nobody/a/-/1']);
    });
  });

  describe('with an agent', () => {
    it('withdraws what nobody has picked up', async () => {
      const id = await rig.run(workflow('waits', '', 'agent'));
      const preview = await rig.engine.previewStop(id);
      expect(preview?.willAbort.map(({ node, where, queued }) => [node, where, queued])).to.deep.equal([
        ['a', 'agent', true],
      ]);
      expect(preview?.cannotCancel).to.deep.equal([]);
      expect(rig.engine.workers.missing()).to.deep.equal({ 'agent:site': 1 });
      await rig.stop(id);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER });
      expect((await rig.receipt(id)).tasks[0]).to.include({ where: 'agent', outcome: 'neverStarted' });
      await expectQueue();
    });

    it('lets run on what was picked up, and counts its late result once', async () => {
      const id = await rig.run(workflow('picked', '', 'agent'));
      const agent = await agentLink();
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      await rig.advance(3_000);
      const preview = await rig.engine.previewStop(id);
      expect(preview?.willAbort).to.deep.equal([]);
      expect(preview?.cannotCancel).to.deep.equal([{ node: 'a', agent: 'name of agent-1', runningForMs: 3_000 }]);
      await rig.stop(id);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER });
      const receipt = await rig.receipt(id);
      expect(receipt).to.include({ finalisedMs: 0, unconfirmed: 0, lateResultsDiscarded: 0 });
      expect(receipt.tasks[0]).to.include({ outcome: 'agentRunsOn', ms: null });
      expect(agent.cancelled).to.deep.equal([]);
      await expectQueue();
      // It is busy with it.
      const next = await rig.start('picked');
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      agent.beat();
      await rig.settle();
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      const events = await rig.events(id);
      const token = agent.held.get(idOf(id));
      for (let n = 0; n < 2; n++)
        expect(await agent.report(idOf(id), { kind: 'completed', output: 'late' }, token)).to.equal(true);
      expect(await rig.receipt(id)).to.include({ lateResultsDiscarded: 1 });
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
      expect(await rig.events(id)).to.deep.equal(events);
      expect(await rig.output(id, 'a')).to.equal(undefined);
      expect(pushedTo(agent)).to.deep.equal([idOf(id), idOf(next)]);
      await agent.complete(idOf(next));
    });

    it('counts late results after a restart too, those that come at once as well', async () => {
      const two = `{ name: two, nodes: { a: { type: agent, with: { pool: site, tool: nmap } }, c: { type: agent, with: { pool: site, tool: nmap } } } }`;
      const id = await rig.run(two);
      const agent = await link({ kind: 'agent', capabilities: ['agent:site'], slots: 2 });
      await rig.stop(id);
      rig = await rig.crash(1_000);
      expect(await agent.connect(rig)).to.deep.equal([]);
      const tokens = agent.list();
      await Promise.all(
        tokens.map(({ taskId, token }) => agent.report(taskId, { kind: 'completed', output: 1 }, token)),
      );
      expect((await rig.receipt(id)).lateResultsDiscarded).to.equal(2);
    });

    it('loses what it holds after a lease of 30 s', async () => {
      const id = await rig.run(workflow('vanished', '', 'agent'));
      const agent = await agentLink();
      agent.disconnect();
      await rig.advance(29_999);
      expect((await rig.node(id, 'a')).attempt).to.equal(1);
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 2 });
      await expectQueue([idOf(id, 2), null]);
    });

    it('is asked by its pool alone', async () => {
      const id = await rig.run(workflow('pool', '', 'agent'));
      const other = await link({ kind: 'agent', capabilities: ['agent:elsewhere'], slots: 5 });
      expect(other.pushed).to.deep.equal([]);
      await expectQueue([idOf(id), null]);
    });
  });

  describe('after a crash of the engine', () => {
    it('keeps what is queued, in its attempt', async () => {
      const id = await rig.run(workflow('queued'));
      rig = await rig.crash(20_000);
      await expectQueue([idOf(id), null]);
      const worker = await link();
      await worker.complete(idOf(id), 1);
      expect(await rig.node(id, 'a')).to.include({ status: 'Complete', attempt: 1 });
    });

    for (const [kind, leaseMs] of [
      ['worker', 8_000],
      ['agent', 30_000],
    ] as const) {
      it(`waits a lease for the ${kind} that holds a task, and keeps the attempt when it is back`, async () => {
        const id = await rig.run(workflow('held', '', kind === 'agent' ? 'agent' : 'http'));
        const holder = kind === 'agent' ? await agentLink() : await link();
        rig = await rig.crash(60_000);
        await expectQueue([idOf(id), holder.workerId]);
        await rig.advance(leaseMs - 1);
        expect((await rig.node(id, 'a')).attempt).to.equal(1);
        expect(await holder.connect(rig)).to.deep.equal([idOf(id)]);
        const preview = await rig.engine.previewStop(id);
        if (kind === 'agent') expect(preview?.cannotCancel.map(({ agent }) => agent)).to.deep.equal([holder.name]);
        expect(await holder.complete(idOf(id), 1)).to.equal(false);
        expect(await rig.node(id, 'a')).to.include({ status: 'Complete', attempt: 1 });
        expect((await rig.told(id)).filter((line) => line === 'task.claimed a')).to.have.length(1);
        await expectQueue();
      });

      it(`gives up a ${kind} that does not come back`, async () => {
        const id = await rig.run(workflow('held', '', kind === 'agent' ? 'agent' : 'http'));
        const holder = kind === 'agent' ? await agentLink() : await link();
        rig = await rig.crash();
        await rig.advance(leaseMs);
        await expectQueue([idOf(id, 2), null]);
        expect(await holder.connect(rig)).to.deep.equal([]);
        expect(rig.engine.workers.workers()).to.have.length(1);
      });
    }

    it('keeps the name of the holder in the record', async () => {
      const id = await rig.run(workflow('named', 'timeout: 1h,', 'agent'));
      const agent = await agentLink();
      rig = await rig.crash();
      await agent.connect(rig);
      agent.print(idOf(id), 'hello');
      await rig.settle();
      await rig.store.requestStop(id, { requestId: 'other', requestedAtMs: rig.clock.nowMs() });
      expect((await rig.engine.previewStop(id))?.cannotCancel[0]?.agent).to.equal(agent.name);
      await rig.advance(1_000);
    });

    it('has lost what the pool of the process held', async () => {
      await open({ slots: 1 });
      const first = await rig.run(workflow('pool'));
      const second = await rig.start('pool');
      rig.work.complete(idOf(first));
      await rig.settle();
      expect(rig.work.running).to.deep.equal([idOf(second)]);
      rig = await rig.crash();
      expect(await rig.node(second, 'a')).to.include({ status: 'Running', attempt: 2 });
      expect(rig.work.running).to.deep.equal([idOf(second, 2)]);
      rig.work.complete(idOf(second, 2));
      await rig.settle();
      await expectQueue();
    });

    it('takes a result that was under way again, and once', async () => {
      const id = await rig.run(workflow('way'));
      const worker = await link();
      const [held] = worker.list();
      rig.gate.intervene = ({ method }) =>
        method === 'commit' ? { holdBefore: new Promise(() => undefined) } : undefined;
      void worker.complete(idOf(id), 'first').catch(() => undefined);
      await rig.settle();
      rig = await rig.crash(0, { intervene: () => undefined });
      expect(await worker.connect(rig, held === undefined ? [] : [held])).to.deep.equal([idOf(id)]);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 'again' }, held?.token)).to.equal(false);
      expect(await rig.output(id, 'b')).to.equal('again');
    });

    for (const halted of [false, true]) {
      it(`ends a stop ${halted ? 'that was halted' : 'that nobody heard of'} at once, and pursues what a worker holds`, async () => {
        const id = await rig.run(workflow('pursued'));
        const worker = await link();
        if (halted) await rig.stop(id);
        else await rig.store.requestStop(id, { requestId: 'r-1', requestedAtMs: rig.clock.nowMs() });
        rig = await rig.crash(1_000);
        expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
        await expectQueue();
        expect(await rig.receipt(id)).to.include({ unconfirmed: 1, finalisedMs: 1_000 });
        expect((await rig.receipt(id)).tasks).to.have.length(1);
        expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'unconfirmed', ms: null });
        const events = await rig.events(id);
        await rig.advance(1_000);
        expect(await worker.connect(rig)).to.deep.equal([]);
        expect(worker.beat()).to.deep.equal([idOf(id)]);
        await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
        expect(await rig.receipt(id)).to.include({ unconfirmed: 0, finalisedMs: 1_000 });
        expect((await rig.receipt(id)).tasks).to.have.length(1);
        expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'aborted', ms: 2_000 });
        expect(await rig.events(id)).to.deep.equal(events);
      });
    }

    it('ends a stop of what was queued, or held by an agent', async () => {
      const queued = await rig.run(workflow('queued'));
      const agent = await agentLink();
      const held = await rig.run(workflow('held', '', 'agent'));
      for (const id of [queued, held])
        await rig.store.requestStop(id, { requestId: `of ${id}`, requestedAtMs: rig.clock.nowMs() });
      rig = await rig.crash();
      expect((await rig.receipt(queued)).tasks[0]).to.include({ outcome: 'neverStarted' });
      expect((await rig.receipt(held)).tasks[0]).to.include({ outcome: 'agentRunsOn' });
      for (const id of [queued, held]) expect((await rig.record(id)).error).to.equal(MARKER);
      await expectQueue();
      await agent.connect(rig);
      expect(await agent.complete(idOf(held))).to.equal(true);
      expect((await rig.receipt(held)).lateResultsDiscarded).to.equal(1);
    });

    it('confirms in the receipt what a worker reports after another restart', async () => {
      const id = await rig.run(workflow('twice'));
      const worker = await link();
      await rig.stop(id);
      await rig.advance(5_000);
      rig = await rig.crash(1_000);
      expect((await rig.receipt(id)).unconfirmed).to.equal(1);
      expect(await worker.connect(rig)).to.deep.equal([]);
      const stranger = await link({ id: 'stranger', project: 'theirs' });
      await stranger.report(idOf(id), { kind: 'aborted', outcome: 'aborted' }, 'any');
      await stranger.report(idOf(id), { kind: 'completed', output: 1 }, 'any');
      expect(await rig.receipt(id)).to.include({ unconfirmed: 1, lateResultsDiscarded: 0 });
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      expect(await rig.receipt(id)).to.include({ unconfirmed: 0 });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'forced', ms: 6_000 });
    });
  });

  describe('tells people', () => {
    it('which workers there are', async () => {
      const worker = await link({ slots: 2 });
      const id = await rig.run(workflow('shown'));
      await rig.advance(3_000);
      expect(rig.engine.workers.workers()).to.deep.equal([
        {
          id: 'worker-1',
          name: 'name of worker-1',
          kind: 'worker',
          capabilities: ['http'],
          slots: 2,
          held: 1,
          connected: true,
          silentMs: 3_000,
        },
      ]);
      worker.disconnect();
      expect(rig.engine.workers.workers()[0]).to.include({ connected: false });
      await worker.connect(rig);
      await worker.complete(idOf(id));
      worker.disconnect();
      expect(rig.engine.workers.workers()).to.deep.equal([]);
      await open({ slots: 3 });
      expect(rig.engine.workers.workers()[0]).to.include({ kind: 'pool', slots: 3, held: 0, connected: true });
    });

    it('what nobody offers', async () => {
      await rig.run(workflow('missing'));
      await rig.start('missing');
      await rig.run(workflow('missing-agent', '', 'agent'));
      expect(rig.engine.workers.missing()).to.deep.equal({ http: 2, 'agent:site': 1 });
      const worker = await link();
      expect(rig.engine.workers.missing()).to.deep.equal({ 'agent:site': 1 });
      await worker.complete(pushedTo(worker)[0] as string);
      expect(rig.engine.workers.missing()).to.deep.equal({ 'agent:site': 1 });
    });

    it('what a task prints, up to the limits, and nothing after the end', async () => {
      const id = await rig.run(workflow('prints'));
      const worker = await link();
      const logs = async () => (await rig.events(id)).filter(({ type }) => type === 'log').map(({ data }) => data);
      worker.print(idOf(id), 'one');
      worker.print(idOf(id), 'x'.repeat(65_537));
      worker.print(idOf(id), 'cut', true);
      await rig.settle();
      expect(await logs()).to.deep.equal([
        { stream: 'stdout', text: 'one' },
        { stream: 'stdout', text: 'x'.repeat(65_536), truncated: true },
        { stream: 'stdout', text: 'cut', truncated: true },
      ]);
      for (let n = 3; n < 1_010; n++) worker.print(idOf(id), `line ${n}`);
      await rig.settle();
      const all = await logs();
      expect(all).to.have.length(1_000);
      expect(all.at(-1)).to.deep.equal({ stream: 'stdout', text: 'line 999', truncated: true });
      await rig.stop(id);
      worker.print(idOf(id), 'after');
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      worker.print(idOf(id), 'late');
      await rig.settle();
      expect(await logs()).to.have.length(1_000);
      expect((await rig.told(id)).at(-1)).to.equal('execution.failed');
    });

    it('what a task of this process prints, with the mark of its pool', async () => {
      await open({ slots: 1 });
      const ids = [await rig.run(workflow('prints')), await rig.start('prints')];
      for (const id of ids) {
        rig.work.print(idOf(id), 'last', true);
        await rig.settle();
        expect((await rig.events(id)).at(-1)?.data).to.deep.equal({ stream: 'stdout', text: 'last', truncated: true });
        rig.work.complete(idOf(id));
        await rig.settle();
      }
    });
  });
});
