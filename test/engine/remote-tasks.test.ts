import { expect } from 'chai';
import type { FakeLink, FakeLinkOptions } from '../support/engine.ts';
import { type EngineRig, Engines, type Fate } from '../support/engine-rigs.ts';
import { idOf, intervene, pushedTo, remoteTasks, workflow } from '../support/remote-tasks.ts';

const MARKER = 'workflow stopped by user';

describe('tasks of several engines', () => {
  let engines: Engines;
  const { link, output, outcomes } = remoteTasks(() => engines);
  /** Owns the executions; workers are connected to `b`, and move to `c`. */
  let a: EngineRig;
  let b: EngineRig;
  let c: EngineRig;

  beforeEach(async () => {
    engines = new Engines();
    a = await engines.start();
    b = await engines.start();
    c = await engines.start();
  });
  afterEach(() => engines.close());

  const agentLink = (at: EngineRig, more: FakeLinkOptions = {}): Promise<FakeLink> =>
    link(at, { kind: 'agent', capabilities: ['agent:site'], ...more });
  const header = async (id: string) => (await engines.store.getHeader(id)) as NonNullable<unknown>;
  const fates = (fate: Fate): void => {
    engines.hub.fateOf = () => fate;
  };
  async function expectRows(...rows: [id: string, worker: string | null, via?: EngineRig][]): Promise<void> {
    expect((await engines.tasks()).map(({ id, claim }) => [id, claim?.worker ?? null, claim?.via])).to.deep.equal(
      rows.map(([id, worker, via]) => [id, worker, via?.engine.id]),
    );
  }

  for (const fate of ['told', 'lost', 'doubled'] as const) {
    describe(`with every hint ${fate}`, () => {
      beforeEach(() => fates(fate));
      const slow = fate === 'lost';

      it('are served by a worker that is connected elsewhere', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('served'));
        if (slow) {
          expect(worker.pushed).to.deep.equal([]);
          await engines.clock.advance(1_000);
        }
        expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
        await expectRows([idOf(id), 'worker-1', b]);
        expect((await engines.tasks())[0]?.engine).to.equal(a.engine.id);
        if (slow) await engines.live(2_000, worker);
        expect((await engines.told(id)).at(-1)).to.equal('task.claimed a');
        expect(await worker.complete(idOf(id), 7)).to.equal(false);
        if (slow) await engines.live(2_000, worker);
        expect(await output(id)).to.equal(7);
        await expectRows();
        expect((await engines.told(id)).filter((line) => /claimed|completed/.test(line))).to.deep.equal([
          'task.claimed a',
          'node.completed a',
          'node.completed b',
          'execution.completed',
        ]);
        expect(engines.discarded()).to.equal(0);
      });

      it('are served that were queued before the worker came', async () => {
        const id = await engines.run(a, workflow('before'));
        const worker = await link(b);
        expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
        await worker.complete(idOf(id));
        await engines.live(4_000, worker);
        await expectRows();
      });

      it('are ended for real when their execution is stopped', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('stopped'));
        await engines.live(4_000, worker);
        const atMs = engines.clock.nowMs();
        await engines.stop(b, id);
        while (worker.cancelled.length === 0 && engines.clock.nowMs() < atMs + 3_000) await engines.clock.advance(100);
        expect(engines.clock.nowMs() - atMs).to.be.at.most(slow ? 3_000 : 0);
        expect(new Set(worker.cancelled)).to.deep.equal(new Set([idOf(id)]));
        expect(worker.beat()).to.deep.equal([idOf(id)]);
        await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
        if (slow) await engines.live(2_000, worker);
        expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
        expect(await outcomes(id)).to.deep.equal(['aborted']);
        expect((await engines.receipt(id)).unconfirmed).to.equal(0);
        await expectRows();
      });

      it('are ended when their attempt times out, and tried again', async () => {
        const worker = await link(b, { slots: 2 });
        const id = await engines.run(a, workflow('slow', 'timeout: 10s, retry: { attempts: 2, backoff: 1s },'));
        await engines.live(slow ? 12_000 : 10_000, worker);
        expect(await engines.node(id, 'a')).to.include({ errorCode: 'FS_TIMEOUT' });
        await engines.live(slow ? 2_000 : 0, worker);
        expect(worker.cancelled[0]).to.equal(idOf(id));
        expect(await worker.complete(idOf(id), 'late')).to.equal(true);
        await engines.live(slow ? 6_000 : 2_000, worker);
        expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(id, 2)]);
        expect(engines.discarded()).to.equal(slow ? 0 : 1);
        await worker.complete(idOf(id, 2), 2);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(2);
      });

      it('are lost with a worker that is silent for a lease', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('silent'));
        await engines.clock.advance(1_000);
        const token = worker.held.get(idOf(id));
        await engines.clock.advance(6_999);
        expect(await engines.node(id, 'a')).to.include({ attempt: 1 });
        await engines.clock.advance(slow ? 2_001 : 1);
        expect(worker.closed).to.equal(true);
        expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 2 });
        expect(await worker.connect(engines.at(b))).to.deep.equal([]);
        expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, token)).to.equal(true);
        await engines.live(2_000, worker);
        expect(pushedTo(worker)).to.deep.equal([idOf(id), idOf(id, 2)]);
        await worker.complete(idOf(id, 2), 2);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(2);
      });

      it('go on with a worker that comes back at another engine', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('moved', 'rerun: false,'));
        await engines.live(2_000, worker);
        worker.disconnect();
        expect(await worker.connect(engines.at(c))).to.deep.equal([idOf(id)]);
        await expectRows([idOf(id), 'worker-1', c]);
        await engines.live(20_000, worker);
        expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
        expect(b.engine.workers.workers()).to.deep.equal([]);
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(1);
        expect((await engines.told(id)).filter((line) => line === 'task.claimed a')).to.have.length(1);
      });

      it('go on with a worker that comes back at their own engine', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('home', 'rerun: false,'));
        await engines.live(1_000, worker);
        worker.disconnect();
        expect(await worker.connect(engines.at(a))).to.deep.equal([idOf(id)]);
        await engines.live(20_000, worker);
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        expect(await output(id)).to.equal(1);
        expect((await engines.told(id)).filter((line) => line === 'task.claimed a')).to.have.length(1);
        expect(b.engine.workers.workers()).to.deep.equal([]);
      });

      it('go on with a worker that leaves their own engine', async () => {
        const worker = await link(a);
        const id = await engines.run(a, workflow('away', 'rerun: false,'));
        worker.disconnect();
        expect(await worker.connect(engines.at(b))).to.deep.equal([idOf(id)]);
        await engines.live(20_000, worker);
        expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(1);
        expect(a.engine.workers.workers()).to.deep.equal([]);
      });

      it('go on with a worker that goes to another engine and back', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('back', 'rerun: false,'));
        await engines.live(1_000, worker);
        for (const at of [c, b]) {
          worker.disconnect();
          expect(await worker.connect(engines.at(at))).to.deep.equal([idOf(id)]);
        }
        await engines.live(20_000, worker);
        expect(c.engine.workers.workers()).to.deep.equal([]);
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(1);
      });

      for (const back of [false, true]) {
        it(`${back ? 'go on' : 'are lost'} when the engine of their worker died and it ${back ? 'came back elsewhere' : 'did not come back'}`, async () => {
          const worker = await link(c);
          const id = await engines.run(a, workflow('via', 'rerun: false,'));
          await engines.live(4_000, worker);
          c.kill();
          await engines.clock.advance(7_999);
          expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
          if (!back) {
            await engines.clock.advance(2_001);
            expect(await engines.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST' });
            return;
          }
          expect(await worker.connect(engines.at(b))).to.deep.equal([idOf(id)]);
          await engines.live(20_000, worker);
          expect(await worker.complete(idOf(id), 1)).to.equal(false);
          await engines.live(2_000, worker);
          expect(await output(id)).to.equal(1);
        });
      }

      it('tell of the end of a task that was written off', async () => {
        const worker = await link(b);
        const id = await engines.run(a, workflow('written-off'));
        await engines.live(4_000, worker);
        await engines.stop(a, id);
        await engines.live(6_000, worker);
        expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
        expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
        expect(worker.cancelled).to.include(idOf(id));
        await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
        await engines.clock.advance(slow ? 3_000 : 0);
        expect(await outcomes(id)).to.deep.equal(['forced']);
        expect((await engines.receipt(id)).unconfirmed).to.equal(0);
      });
    });
  }

  describe('are given', () => {
    it('to a worker of their own engine first, without a look at the store', async () => {
      const near = await link(a, { id: 'near' });
      const far = await link(b, { id: 'far', slots: 0 });
      a.calls.clear();
      const id = await engines.run(a, workflow('near'));
      expect(pushedTo(near)).to.deep.equal([idOf(id)]);
      await expectRows([idOf(id), 'near', a]);
      await engines.live(10_000, near, far);
      await near.complete(idOf(id), 1);
      expect(a.calls.get('readTasks')).to.equal(undefined);
      expect(a.calls.get('getTasks')).to.equal(undefined);
      expect(engines.hub.hints).to.deep.equal([]);
      expect(await output(id)).to.equal(1);
    });

    it('by capability and project, as many as there are free slots', async () => {
      const theirs = await link(b, { id: 'theirs', project: 'theirs', slots: 5 });
      const other = await link(b, { id: 'other', capabilities: ['container'], slots: 5 });
      const two = await link(b, { id: 'two', slots: 2 });
      const ids = [];
      for (let n = 0; n < 4; n++) ids.push(await engines.run(a, workflow('many')));
      await engines.live(3_000, theirs, other, two);
      expect(pushedTo(theirs)).to.deep.equal([]);
      expect(pushedTo(other)).to.deep.equal([]);
      expect(pushedTo(two)).to.deep.equal(ids.slice(0, 2).map((id) => idOf(id)));
      await two.complete(idOf(ids[0] as string));
      expect(pushedTo(two)).to.deep.equal(ids.slice(0, 3).map((id) => idOf(id)));
      for (const id of ids.slice(1, 3)) await two.complete(idOf(id));
      await two.complete(idOf(ids[3] as string));
    });

    it('after those of the engine that the worker is connected to', async () => {
      const far = await engines.run(a, workflow('far'));
      const near = await engines.run(b, workflow('near'));
      const worker = await link(b);
      expect(pushedTo(worker)).to.deep.equal([idOf(near)]);
      await worker.complete(idOf(near));
      expect(pushedTo(worker)).to.deep.equal([idOf(near), idOf(far)]);
      await worker.complete(idOf(far));
    });

    it('to one of two workers that both engines find for them', async () => {
      const gate = Promise.withResolvers<void>();
      const id = await engines.run(a, workflow('race', 'rerun: false,'));
      a.gate.intervene = ({ method }) => (method === 'claimTask' ? { holdBefore: gate.promise } : undefined);
      const near = await link(a, { id: 'near' });
      const far = await link(b, { id: 'far' });
      expect(pushedTo(far)).to.deep.equal([idOf(id)]);
      gate.resolve();
      await engines.settle();
      expect(near.pushed).to.deep.equal([]);
      const next = await engines.run(a, workflow('next'));
      expect(pushedTo(near)).to.deep.equal([idOf(next)]);
      expect(await far.complete(idOf(id), 1)).to.equal(false);
      expect(await output(id)).to.equal(1);
      await near.complete(idOf(next));
    });

    it('to a worker here while the pool of the process had them in mind', async () => {
      c = await engines.start({ slots: 1 });
      const first = await engines.run(c, workflow('pool'));
      const gate = Promise.withResolvers<void>();
      const second = await engines.run(c, workflow('pool'));
      c.gate.intervene = ({ method }) => (method === 'claimTask' ? { holdBefore: gate.promise } : undefined);
      c.work.complete(idOf(first));
      await engines.settle();
      const worker = await link(b);
      expect(pushedTo(worker)).to.deep.equal([idOf(second)]);
      gate.resolve();
      await engines.settle();
      expect(c.work.reserved).to.equal(0);
      expect(c.work.started).to.have.length(1);
      await worker.complete(idOf(second), 3);
      expect(await output(second)).to.equal(3);
    });

    it('though the store does not say whether the claim was made', async () => {
      for (const how of ['fail', 'lose'] as const) {
        const worker = await link(b, { id: how });
        intervene(b, 'claimTask', how, 3);
        const id = await engines.run(a, workflow('again', 'rerun: false,'));
        expect(worker.pushed, how).to.deep.equal([]);
        await engines.live(2_000, worker);
        expect(pushedTo(worker), how).to.deep.equal([idOf(id)]);
        await worker.complete(idOf(id), how);
        expect(await output(id)).to.equal(how);
        worker.disconnect();
      }
    });

    it('again when the worker of a claim without answer has gone', async () => {
      const id = await engines.run(a, workflow('gone'));
      b.gate.intervene = ({ method }) =>
        method === 'claimTask' && engines.clock.nowMs() < goneMs ? 'lose' : undefined;
      const goneMs = engines.clock.nowMs() + 8_200;
      const worker = await link(b);
      worker.disconnect();
      await engines.clock.advance(12_000);
      expect(worker.pushed).to.deep.equal([]);
      await expectRows([idOf(id, 2), null]);
    });

    it('only while the engine is not draining', async () => {
      const worker = await link(b);
      void b.engine.drain(60_000);
      expect(worker.closed).to.equal(true);
      const id = await engines.run(a, workflow('drained'));
      await engines.live(3_000, worker);
      expect(worker.pushed).to.deep.equal([]);
      await expectRows([idOf(id), null]);
    });
  });

  describe('cost', () => {
    const looks = (rig: EngineRig): number[] =>
      ['listQueued', 'readTasks', 'getTasks', 'moveClaims'].map((method) => rig.calls.get(method) ?? 0);

    it('no look of an engine without workers and tasks', async () => {
      await engines.run(a, '{ name: idle, nodes: { a: { type: hold, trigger: go } } }');
      for (const rig of [a, b]) rig.calls.clear();
      await engines.clock.advance(60_000);
      for (const rig of [a, b]) expect(looks(rig)).to.deep.equal([0, 0, 0, 0]);
    });

    it('a look each second while a worker has a free slot, and none while it has not', async () => {
      const worker = await link(b);
      b.calls.clear();
      await engines.live(10_000, worker);
      expect(looks(b)).to.deep.equal([10, 0, 0, 0]);
      const id = await engines.run(b, workflow('busy'));
      b.calls.clear();
      await engines.live(10_000, worker);
      expect(looks(b)).to.deep.equal([0, 0, 0, 0]);
      await worker.complete(idOf(id));
      worker.disconnect();
      await engines.clock.advance(2_000);
      b.calls.clear();
      await engines.clock.advance(10_000);
      expect(looks(b)).to.deep.equal([0, 0, 0, 0]);
    });

    it('one read in two seconds for all tasks that wait or are held elsewhere', async () => {
      const worker = await link(b, { slots: 2 });
      for (let n = 0; n < 10; n++) await engines.run(a, workflow('ten'));
      await engines.clock.advance(100);
      for (const rig of [a, b]) rig.calls.clear();
      await engines.live(10_000, worker);
      expect(looks(a)).to.deep.equal([0, 5, 0, 0]);
      expect(looks(b)).to.deep.equal([0, 5, 0, 0]);
      for (const id of pushedTo(worker)) await worker.complete(id);
    });

    it('one hint for what is queued within a moment', async () => {
      await engines.run(
        a,
        `{ name: wide, nodes: { ${Array.from({ length: 20 }, (_, n) => `n${n}: { type: http, with: { url: "http://a/" } }`).join(', ')} } }`,
      );
      expect(engines.hub.hints).to.deep.equal([
        { from: 'engine 1', hint: { kind: 'task.queued', capability: 'http' } },
      ]);
    });
  });

  describe('report', () => {
    let id: string;
    let worker: FakeLink;
    beforeEach(async () => {
      worker = await link(b);
      id = await engines.run(a, workflow('reports', 'rerun: false,'));
    });

    it('through a store that does not answer, once', async () => {
      for (const how of ['fail', 'lose'] as const) {
        const before = how === 'fail' ? id : await engines.run(a, workflow('again', 'rerun: false,'));
        // Also when its engine has taken it before the answer.
        intervene(b, 'storeReport', how, 6);
        const answer = worker.complete(idOf(before), how);
        await engines.live(4_000, worker);
        expect(await answer, how).to.equal(false);
        expect(await output(before), how).to.equal(how);
      }
      expect(engines.discarded()).to.equal(0);
    });

    it('once: the same again is discarded, and counted once', async () => {
      const token = worker.held.get(idOf(id));
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      for (let n = 0; n < 3; n++)
        expect(await worker.report(idOf(id), { kind: 'completed', output: 2 }, token)).to.equal(true);
      await engines.live(10_000, worker);
      expect(await output(id)).to.equal(1);
      expect(engines.discarded()).to.equal(1);
    });

    it('of its token and its worker alone', async () => {
      const token = worker.held.get(idOf(id)) as string;
      const other = await link(b, { id: 'other' });
      const far = await link(a, { id: 'far' });
      for (const [from, given] of [
        [worker, 'wrong'],
        [other, token],
        [far, token],
        [far, 'wrong'],
      ] as const) {
        expect(await from.report(idOf(id), { kind: 'completed', output: 'forged' }, given)).to.equal(true);
        from.gate.log(from, idOf(id), given, 'stdout', 'forged', false);
      }
      await engines.clock.advance(4_000);
      expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      expect(await engines.told(id)).not.to.include('log a');
      expect(engines.discarded()).to.equal(0);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, token)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    it('at another engine what was not answered', async () => {
      const [held] = worker.list();
      b.gate.intervene = ({ method }) =>
        method === 'storeReport' ? { holdBefore: new Promise(() => undefined) } : undefined;
      void worker.complete(idOf(id), 1).catch(() => undefined);
      worker.disconnect();
      expect(await worker.connect(engines.at(c), held === undefined ? [] : [held])).to.deep.equal([idOf(id)]);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, held?.token)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    it('at another engine what was stored and not answered: it counts once', async () => {
      const [held] = worker.list();
      fates('lost');
      intervene(b, 'storeReport', { holdAfter: new Promise(() => undefined) });
      void worker.complete(idOf(id), 1).catch(() => undefined);
      await engines.settle();
      worker.disconnect();
      expect(await worker.connect(engines.at(c), held === undefined ? [] : [held])).to.deep.equal([idOf(id)]);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 2 }, held?.token)).to.equal(false);
      await engines.live(4_000, worker);
      expect(await output(id)).to.equal(1);
      expect(engines.discarded()).to.equal(0);
    });

    it('at their own engine what was stored elsewhere and not answered: it counts once', async () => {
      const [held] = worker.list();
      fates('lost');
      intervene(b, 'storeReport', { holdAfter: new Promise(() => undefined) });
      void worker.complete(idOf(id), 1).catch(() => undefined);
      await engines.settle();
      worker.disconnect();
      await worker.connect(engines.at(a), held === undefined ? [] : [held]);
      await worker.report(idOf(id), { kind: 'completed', output: 2 }, held?.token);
      await engines.live(4_000, worker);
      expect(await output(id)).to.equal(1);
    });

    it('that failed, and the node is tried again', async () => {
      const retried = await engines.run(a, workflow('retried', 'retry: { attempts: 2, backoff: 1s },'));
      await worker.complete(idOf(id));
      await engines.clock.advance(100);
      await worker.report(idOf(retried), { kind: 'failed', error: 'no', code: 'FS_FAILED', retryable: true });
      await engines.live(2_000, worker);
      expect(pushedTo(worker).at(-1)).to.equal(idOf(retried, 2));
      await worker.complete(idOf(retried, 2), 2);
      expect(await output(retried)).to.equal(2);
    });

    it('what they print', async () => {
      worker.print(idOf(id), 'hello');
      await engines.settle();
      expect((await engines.events(id)).at(-1)).to.deep.include({
        type: 'log',
        node: 'a',
        data: { stream: 'stdout', text: 'hello' },
      });
    });

    it('what their engine takes up after a stop that came first: it is discarded', async () => {
      fates('lost');
      expect(await worker.complete(idOf(id), 'late')).to.equal(false);
      await engines.store.requestStop(id, { requestId: 'r-1', requestedAtMs: engines.clock.nowMs() });
      await engines.live(4_000, worker);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
      expect(await output(id)).to.equal(undefined);
    });

    it('though their engine builds the execution anew before it has taken the report', async () => {
      const gate = Promise.withResolvers<void>();
      intervene(a, 'commit', { holdBefore: gate.promise });
      expect(await worker.complete(idOf(id), 'kept')).to.equal(false);
      await engines.settle();
      // A broken invariant: the actors are rebuilt from the record.
      const { hostOf } = a.engine as unknown as { hostOf(id: string): { restart(verdict: null): void } };
      hostOf.call(a.engine, id).restart(null);
      await engines.settle();
      gate.resolve();
      await engines.live(4_000, worker);
      expect(await output(id)).to.equal('kept');
    });
  });

  describe('at a stop', () => {
    it('are withdrawn where nobody has claimed them, at once', async () => {
      const id = await engines.run(a, workflow('queued'));
      await engines.stop(b, id);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, finalisedMs: 0 });
      const worker = await link(b);
      expect(worker.pushed).to.deep.equal([]);
    });

    it('are not said to have never started while a worker runs them that their engine has not heard of', async () => {
      fates('lost');
      const worker = await link(b);
      const id = await engines.run(a, workflow('unheard'));
      await engines.clock.advance(1_000);
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      expect(await engines.told(id)).not.to.include('task.claimed a');
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      await engines.live(2_000, worker);
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      await engines.live(2_000, worker);
      expect(await outcomes(id)).to.deep.equal(['aborted']);
    });

    it('that is stored before the claim are given to nobody', async () => {
      const gate = Promise.withResolvers<void>();
      const worker = await link(b);
      intervene(b, 'claimTask', { holdBefore: gate.promise });
      const id = await engines.run(a, workflow('before'));
      await engines.stop(a, id);
      gate.resolve();
      await engines.settle();
      expect(worker.pushed).to.deep.equal([]);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      const next = await engines.run(a, workflow('next'));
      await engines.clock.advance(100);
      expect(pushedTo(worker)).to.deep.equal([idOf(next)]);
      await worker.complete(idOf(next));
    });

    it('between claim and push are not pushed', async () => {
      const gate = Promise.withResolvers<void>();
      const worker = await link(b);
      intervene(b, 'claimTask', { holdAfter: gate.promise });
      const id = await engines.run(a, workflow('between'));
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      gate.resolve();
      await engines.live(1_000, worker);
      expect(worker.pushed).to.deep.equal([]);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect((await engines.receipt(id)).finalisedMs).to.be.at.most(1_000);
    });

    it('whose worker has gone between claim and push are not pushed', async () => {
      const gate = Promise.withResolvers<void>();
      const worker = await link(b);
      intervene(b, 'claimTask', { holdAfter: gate.promise });
      const id = await engines.run(a, workflow('unpushed'));
      worker.disconnect();
      gate.resolve();
      await engines.settle();
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      await worker.connect(engines.at(b));
      expect(worker.pushed).to.deep.equal([]);
    });

    it('are told of by heartbeat where their worker moved with the stop', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('moving'));
      worker.disconnect();
      await engines.stop(a, id);
      await worker.connect(engines.at(c));
      expect(worker.beat()).to.deep.equal([idOf(id)]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      expect(await outcomes(id)).to.deep.equal(['aborted']);
    });

    it('count a result that came too late, once', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('late'));
      await engines.stop(a, id);
      await engines.live(6_000, worker);
      fates('doubled');
      const token = worker.held.get(idOf(id));
      expect(await worker.complete(idOf(id), 'late')).to.equal(true);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 'late' }, token)).to.equal(true);
      await engines.live(10_000, worker);
      expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
      expect(engines.discarded()).to.equal(1);
    });
  });

  describe('that nobody claims', () => {
    it('time out, and may be tried again', async () => {
      const id = await engines.run(a, workflow('patience', 'queueTimeout: 10s, retry: { attempts: 2, backoff: 1s },'));
      await engines.clock.advance(10_000);
      expect(await engines.node(id, 'a')).to.include({ status: 'Running', errorCode: 'FS_TIMEOUT' });
      await engines.clock.advance(11_000);
      expect(await engines.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT', attempt: 2 });
    });

    it('do not time out where a worker elsewhere has one', async () => {
      fates('lost');
      const id = await engines.run(a, workflow('patience', 'queueTimeout: 1500ms,'));
      await engines.clock.advance(1_499);
      const worker = await link(b);
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      await engines.clock.advance(1);
      expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      expect(await engines.told(id)).to.include('task.claimed a');
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      await engines.live(2_000, worker);
      expect(await output(id)).to.equal(1);
    });

    it('time out though the store rests meanwhile', async () => {
      const id = await engines.run(a, workflow('patience', 'queueTimeout: 10s,'));
      intervene(a, 'claimTask', 'lose', 3);
      await engines.clock.advance(12_000);
      expect(await engines.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT', attempt: 1 });
    });

    it('leave with an execution that times out, and are given to nobody', async () => {
      const source = workflow('deadline').replace('nodes:', 'timeout: 10s, nodes:');
      const id = await engines.run(a, source);
      await engines.clock.advance(10_000);
      expect(await header(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      await expectRows();
    });
  });

  describe('of agents', () => {
    it('are picked up elsewhere', async () => {
      const agent = await agentLink(b);
      const id = await engines.run(a, workflow('picked', '', 'agent'));
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      expect(await agent.complete(idOf(id), 1)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    for (const fate of ['told', 'lost'] as const) {
      it(`run on after a stop, and a late result is counted (hints ${fate})`, async () => {
        const agent = await agentLink(b);
        const id = await engines.run(a, workflow('picked', '', 'agent'));
        fates(fate);
        await engines.stop(a, id);
        expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
        expect(await engines.receipt(id)).to.include({ finalisedMs: 0, unconfirmed: 0 });
        expect((await engines.receipt(id)).tasks[0]).to.include({ outcome: 'agentRunsOn', ms: null });
        await engines.live(4_000, agent);
        expect(agent.cancelled).to.deep.equal([]);
        // It is busy with it.
        const next = await engines.run(a, workflow('next', '', 'agent'));
        await engines.live(2_000, agent);
        expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
        fates('told');
        const token = agent.held.get(idOf(id));
        for (let n = 0; n < 2; n++)
          expect(await agent.report(idOf(id), { kind: 'completed', output: 'late' }, token)).to.equal(true);
        await engines.settle();
        expect((await engines.receipt(id)).lateResultsDiscarded).to.equal(1);
        await engines.live(2_000, agent);
        expect(pushedTo(agent)).to.deep.equal([idOf(id), idOf(next)]);
        await agent.complete(idOf(next));
      });
    }

    it('that nobody has picked up are withdrawn', async () => {
      const id = await engines.run(a, workflow('waits', '', 'agent'));
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0 });
    });

    it('are said to run on where one has picked them up whom their engine has not heard of', async () => {
      fates('lost');
      const agent = await agentLink(b);
      const id = await engines.run(a, workflow('unheard', '', 'agent'));
      await engines.clock.advance(1_000);
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['agentRunsOn']);
      expect((await engines.receipt(id)).unconfirmed).to.equal(0);
    });

    it('are lost after a lease of 30 s', async () => {
      const agent = await agentLink(b);
      const id = await engines.run(a, workflow('vanished', '', 'agent'));
      agent.disconnect();
      await engines.clock.advance(29_999);
      expect(await engines.node(id, 'a')).to.include({ attempt: 1 });
      await engines.clock.advance(1);
      expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 2 });
    });

    for (const back of [false, true]) {
      it(`${back ? 'go on' : 'are lost'} when the engine of their agent died and it ${back ? 'came back elsewhere within 30 s' : 'did not come back'}`, async () => {
        const agent = await agentLink(c);
        const id = await engines.run(a, workflow('via', 'rerun: false,', 'agent'));
        c.kill();
        await engines.clock.advance(29_999);
        expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
        if (!back) {
          await engines.clock.advance(2_001);
          expect(await engines.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST' });
          return;
        }
        expect(await agent.connect(engines.at(b))).to.deep.equal([idOf(id)]);
        await engines.live(10_000, agent);
        expect(await agent.complete(idOf(id), 1)).to.equal(false);
        expect(await output(id)).to.equal(1);
      });
    }
  });
});
