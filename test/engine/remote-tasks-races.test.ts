import { expect } from 'chai';
import { FakeLink } from '../support/engine.ts';
import { type EngineRig, Engines } from '../support/engine-rigs.ts';
import { idOf, intervene, pushedTo, remoteTasks, workflow } from '../support/remote-tasks.ts';

/** A task of a worker, and one of an agent. */
const pair = `{ name: pair, nodes: { a: { type: http, with: { url: "http://a/" } }, s: { type: agent, with: { pool: site, tool: nmap } } } }`;

/** How long a stop waits for tasks. */
const GRACE_MS = 5_000;

interface Restartable {
  hostOf(id: string): { restart(verdict: null): void } | null;
}

describe('tasks of several engines, between two looks', () => {
  let engines: Engines;
  const { link, output, outcomes, silence } = remoteTasks(() => engines);
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

  const pass = (rig: EngineRig): void => {
    rig.gate.intervene = () => undefined;
  };
  const restart = (rig: EngineRig, id: string): void => {
    const engine = rig.engine as unknown as Restartable;
    engine.hostOf(id)?.restart(null);
  };
  /** The store gives an execution to another engine, while this one believes that it has it. */
  const fence = async (id: string): Promise<void> => {
    await engines.store.cluster?.takeOver([id], [a.engine.id], b.engine.id);
  };

  describe('where a worker moves', () => {
    it('believe no answer from before it came back', async () => {
      silence();
      for (const home of [b, a]) {
        const worker = await link(home, { id: `of ${home.engine.id}` });
        const id = await engines.run(a, workflow('back', 'rerun: false,'));
        await engines.live(2_000, worker);
        worker.disconnect();
        await worker.connect(engines.at(c));
        const gate = Promise.withResolvers<void>();
        intervene(home, 'readTasks', { holdAfter: gate.promise });
        await engines.live(2_000, worker);
        worker.disconnect();
        await worker.connect(engines.at(home));
        gate.resolve();
        await engines.settle();
        expect(worker.beat()).to.deep.equal([]);
        await engines.live(10_000, worker);
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(1);
        worker.disconnect();
      }
    });

    it('are not lost while the store does not say where it is', async () => {
      silence();
      for (const home of [b, a]) {
        const worker = await link(home, { id: `of ${home.engine.id}` });
        const id = await engines.run(a, workflow('unsaid', 'rerun: false,'));
        await engines.live(2_000, worker);
        home.gate.intervene = ({ method }) => (method === 'readTasks' ? 'fail' : undefined);
        worker.disconnect();
        await worker.connect(engines.at(c));
        await engines.live(12_000, worker);
        pass(home);
        await engines.live(4_000, worker);
        expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
        expect(home.engine.workers.workers()).to.deep.equal([]);
        expect(await worker.complete(idOf(id), 1)).to.equal(false);
        await engines.live(2_000, worker);
        expect(await output(id)).to.equal(1);
        worker.disconnect();
      }
    });

    it('have a whole lease again when the next engine dies too', async () => {
      const worker = await link(a);
      const id = await engines.run(a, workflow('twice', 'rerun: false,'));
      a.gate.intervene = ({ method }) => (method === 'readTasks' ? 'fail' : undefined);
      worker.disconnect();
      await worker.connect(engines.at(c));
      await engines.live(10_000, worker);
      pass(a);
      await engines.live(4_000, worker);
      c.kill();
      await engines.clock.advance(7_000);
      expect(await worker.connect(engines.at(b))).to.deep.equal([idOf(id)]);
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      await engines.clock.advance(2_000);
      expect(await output(id)).to.equal(1);
    });

    it('go on where it is back before the store has said that it is lost', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('late', 'rerun: false,'));
      b.gate.intervene = ({ method }) => (method === 'readTasks' ? 'fail' : undefined);
      worker.disconnect();
      await engines.clock.advance(8_500);
      await worker.connect(engines.at(b));
      pass(b);
      await engines.live(10_000, worker);
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    it('take no token but theirs with it', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('forged', 'rerun: false,'));
      const other = new FakeLink({ id: 'other' });
      const [held] = worker.list();
      expect(await other.connect(engines.at(c), worker.list())).to.deep.equal([]);
      const twin = new FakeLink();
      expect(await twin.connect(engines.at(c), [{ taskId: idOf(id), token: 'forged' }])).to.deep.equal([]);
      await engines.settle();
      expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
      expect((await engines.tasks())[0]?.claim?.via).to.equal(b.engine.id);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, held?.token)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    it('are taken from where it is, while its connection to here still seems to stand', async () => {
      const worker = await link(a);
      const id = await engines.run(a, workflow('seems', 'rerun: false,'));
      const again = new FakeLink();
      expect(await again.connect(engines.at(c), worker.list())).to.deep.equal([idOf(id)]);
      const [held] = worker.list();
      expect(await again.report(idOf(id), { kind: 'completed', output: 1 }, held?.token)).to.equal(false);
      await engines.clock.advance(500);
      expect(await output(id)).to.equal(1);
    });

    it('are not waited for on a connection that closed before its hello was answered', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('hasty', 'rerun: false,'));
      worker.disconnect();
      const gate = Promise.withResolvers<void>();
      intervene(c, 'getTasks', { holdAfter: gate.promise });
      const hasty = new FakeLink();
      const hello = hasty.connect(engines.at(c), worker.list());
      await engines.settle();
      hasty.disconnect();
      gate.resolve();
      expect(await hello).to.deep.equal([]);
      for (const item of c.engine.workers.workers()) expect(item.connected).to.equal(false);
      expect(await worker.connect(engines.at(c))).to.deep.equal([idOf(id)]);
      await engines.live(10_000, worker);
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });

    it('keep the answer that is on its way to it', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('answer', 'rerun: false,'));
      const held = worker.list();
      const gate = Promise.withResolvers<void>();
      intervene(b, 'storeReport', { holdBefore: gate.promise });
      const answer = worker.complete(idOf(id), 1);
      await engines.settle();
      worker.disconnect();
      expect(await worker.connect(engines.at(b), held)).to.deep.equal([idOf(id)]);
      const again = worker.report(idOf(id), { kind: 'completed', output: 2 }, held[0]?.token);
      gate.resolve();
      expect(await answer).to.equal(false);
      expect(await again).to.equal(false);
      await engines.settle();
      expect(b.engine.workers.workers()[0]?.held).to.equal(0);
      expect(await output(id)).to.equal(1);
    });

    it('count a result that its hello did not tell of', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('untold', 'rerun: false,'));
      const token = worker.held.get(idOf(id));
      worker.disconnect();
      await worker.connect(engines.at(c), []);
      expect(await worker.report(idOf(id), { kind: 'completed', output: 1 }, token)).to.equal(false);
      expect(await output(id)).to.equal(1);
    });
  });

  describe('are found at once', () => {
    it('when a slot is free again for what was told of meanwhile', async () => {
      const worker = await link(b);
      const near = await engines.run(b, workflow('near'));
      const far = await engines.run(a, workflow('far'));
      await engines.clock.advance(500);
      await worker.complete(idOf(near));
      expect(pushedTo(worker)).to.deep.equal([idOf(near), idOf(far)]);
      await worker.complete(idOf(far));
    });

    it('when a slot is free again that their own engine took during a search', async () => {
      const worker = await link(b);
      const gate = Promise.withResolvers<void>();
      intervene(b, 'listQueued', { holdAfter: gate.promise });
      const far = await engines.run(a, workflow('far'));
      const near = await engines.run(b, workflow('near'));
      gate.resolve();
      await engines.settle();
      expect(pushedTo(worker)).to.deep.equal([idOf(near)]);
      await worker.complete(idOf(near));
      expect(pushedTo(worker)).to.deep.equal([idOf(near), idOf(far)]);
      await worker.complete(idOf(far));
    });

    it('though they were told of during a search that did not see them', async () => {
      const gate = Promise.withResolvers<void>();
      intervene(b, 'listQueued', { holdAfter: gate.promise });
      const worker = await link(b);
      const id = await engines.run(a, workflow('during'));
      gate.resolve();
      await engines.settle();
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      await worker.complete(idOf(id));
    });

    it('by a worker that comes after another was there in vain', async () => {
      silence();
      const first = await link(b, { id: 'first' });
      first.disconnect();
      const id = await engines.run(a, workflow('vain'));
      const second = await link(b, { id: 'second' });
      expect(pushedTo(second)).to.deep.equal([idOf(id)]);
      await second.complete(idOf(id));
    });

    it('behind others that are being stopped and that nobody ends', async () => {
      const stopped: string[] = [];
      for (let n = 0; n < 4; n++) stopped.push(await engines.run(a, workflow('stopped')));
      a.kill();
      for (const each of stopped)
        await engines.store.requestStop(each, { requestId: `of ${each}`, requestedAtMs: engines.clock.nowMs() });
      const id = await engines.run(c, workflow('behind'));
      const worker = await link(b);
      await engines.live(1_000, worker);
      expect(pushedTo(worker)).to.deep.equal([idOf(id)]);
      await worker.complete(idOf(id));
    });

    it('by nobody where there is no other engine: nothing is told', async () => {
      engines.gone.add(b.engine.id).add(c.engine.id);
      await engines.run(a, workflow('alone'));
      await engines.clock.advance(10_000);
      expect(engines.hub.hints).to.deep.equal([]);
    });
  });

  describe('at a stop or a timeout', () => {
    it('tell their worker at once, also without a stop', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('slow', 'timeout: 9s,'));
      await engines.live(8_999, worker);
      expect(worker.cancelled).to.deep.equal([]);
      await engines.clock.advance(1);
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
    });

    it('are given to nobody once they were asked for without a claim', async () => {
      const id = await engines.run(a, workflow('deadline').replace('nodes:', 'timeout: 10s, nodes:'));
      await engines.clock.advance(9_999);
      const gate = Promise.withResolvers<void>();
      intervene(a, 'commit', { holdBefore: gate.promise });
      await engines.clock.advance(1);
      const worker = await link(b);
      await engines.live(1_000, worker);
      expect(worker.pushed).to.deep.equal([]);
      gate.resolve();
      await engines.settle();
      expect(await engines.store.getHeader(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('print nothing more', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('prints'));
      // Its worker's engine does not know yet.
      engines.hub.fateOf = (hint) => ('kind' in hint && hint.kind === 'task.log' ? 'told' : 'lost');
      await engines.stop(a, id);
      worker.print(idOf(id), 'after');
      await engines.settle();
      expect(await engines.told(id)).not.to.include('log a');
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
    });

    it('are looked for in the store before they are written off', async () => {
      silence();
      const worker = await link(b);
      const id = await engines.run(a, workflow('written'));
      await engines.live(2_000, worker);
      a.gate.intervene = ({ method }) => (method === 'readTasks' ? 'fail' : undefined);
      await engines.stop(a, id);
      await engines.live(GRACE_MS - 100, worker);
      expect(worker.cancelled).to.deep.equal([idOf(id)]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
      // It would have said so a little later.
      b.kill();
      pass(a);
      await engines.clock.advance(100);
      await engines.settle();
      expect(await engines.store.getHeader(id)).to.include({ status: 'Failed' });
      expect(await outcomes(id)).to.deep.equal(['aborted']);
    });

    it('are written off when the store does not answer that look', async () => {
      silence();
      const worker = await link(b);
      const id = await engines.run(a, workflow('unlooked'));
      await engines.live(2_000, worker);
      const gate = Promise.withResolvers<void>();
      a.gate.intervene = ({ method }) => (method === 'readTasks' ? { holdBefore: gate.promise } : undefined);
      await engines.stop(a, id);
      await engines.live(GRACE_MS + 999, worker);
      expect(await engines.store.getHeader(id)).to.include({ status: 'Running' });
      await engines.live(1, worker);
      expect(await engines.store.getHeader(id)).to.include({ status: 'Failed' });
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      gate.resolve();
    });

    it('end with the answer whether an agent has them', async () => {
      const id = await engines.run(a, workflow('asked', '', 'agent'));
      const gate = Promise.withResolvers<void>();
      intervene(a, 'readTasks', { holdBefore: gate.promise });
      await engines.stop(a, id);
      expect(await engines.store.getHeader(id)).to.include({ status: 'Running' });
      gate.resolve();
      await engines.settle();
      expect(await engines.store.getHeader(id)).to.include({ status: 'Failed' });
      expect(await outcomes(id)).to.deep.equal(['neverStarted']);
      expect((await engines.receipt(id)).unconfirmed).to.equal(0);
    });

    it('of an agent that nobody has heard of are no guess where the answer does not come', async () => {
      silence();
      const agent = await link(b, { kind: 'agent', capabilities: ['agent:site'] });
      const id = await engines.run(a, workflow('unanswered', '', 'agent'));
      await engines.live(1_000, agent);
      expect(pushedTo(agent)).to.deep.equal([idOf(id)]);
      const gate = Promise.withResolvers<void>();
      intervene(a, 'readTasks', { holdBefore: gate.promise });
      await engines.stop(a, id);
      await engines.live(2_900, agent);
      expect(await engines.store.getHeader(id)).to.include({ status: 'Running' });
      await engines.live(100, agent);
      expect(await engines.store.getHeader(id)).to.include({ status: 'Failed' });
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      gate.resolve();
      await engines.settle();
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      // The engine of the agent finds that the record has ended, and tells what it has.
      await engines.live(6_000, agent);
      expect(await outcomes(id)).to.deep.equal(['agentRunsOn']);
      expect((await engines.receipt(id)).tasks[0]).to.include({ ms: null });
    });

    for (const [type, capability, atOnce] of [
      ['http', 'http', 'unconfirmed'],
      ['agent', 'agent:site', 'agentRunsOn'],
    ] as const) {
      it(`are not said to have never started where a stop meets the commit that queued them (${type})`, async () => {
        const kind = type === 'agent' ? 'agent' : 'worker';
        const holder = await link(b, { kind, capabilities: [capability] });
        const gate = Promise.withResolvers<void>();
        intervene(a, 'commit', { holdAfter: gate.promise });
        const id = await engines.run(a, workflow('meeting', '', type));
        await engines.live(1_000, holder);
        expect(pushedTo(holder)).to.deep.equal([idOf(id)]);
        await engines.stop(b, id);
        gate.resolve();
        await engines.settle();
        expect(await outcomes(id)).to.deep.equal([atOnce]);
        if (kind === 'agent') return;
        expect(holder.cancelled).to.include(idOf(id));
        await holder.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
        await engines.settle();
        expect(await outcomes(id)).to.deep.equal(['aborted']);
      });
    }

    it('that had timed out say how they ended, though their report went with their row', async () => {
      const worker = await link(b);
      const id = await engines.run(
        a,
        workflow('crossing', 'timeout: 1s,').replace('b: {', 'h: { type: hold, trigger: go }, b: {'),
      );
      const gate = Promise.withResolvers<void>();
      intervene(a, 'commit', { holdBefore: gate.promise });
      silence();
      await engines.live(1_000, worker);
      // Its timeout is on its way to the store, its result is there.
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      gate.resolve();
      await engines.settle();
      await engines.stop(a, id);
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      pass(a);
      engines.hub.fateOf = () => 'told';
      await engines.live(2_000, worker);
      expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
    });

    it('give a slot of the pool back whose claim was on its way', async () => {
      const d = await engines.start({ slots: 1 });
      const first = await engines.run(d, workflow('one'));
      const second = await engines.run(d, workflow('two'));
      const third = await engines.run(d, workflow('three'));
      const gate = Promise.withResolvers<void>();
      intervene(d, 'claimTask', { holdAfter: gate.promise });
      d.work.complete(idOf(first));
      await engines.settle();
      await engines.stop(a, second);
      gate.resolve();
      await engines.settle();
      expect(await outcomes(second)).to.deep.equal(['neverStarted']);
      expect(d.work.running).to.deep.equal([idOf(third)]);
      d.work.complete(idOf(third));
    });

    it('are not waited for at another engine for longer than the lease of their worker', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('silent'));
      await engines.stop(a, id);
      await engines.clock.advance(9_000);
      expect(b.engine.workers.workers()).to.deep.equal([]);
      expect(await outcomes(id)).to.deep.equal(['unconfirmed']);
      // It comes back at last, and somewhere else.
      expect(await worker.connect(engines.at(c))).to.deep.equal([]);
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      await engines.settle();
      expect(await outcomes(id)).to.deep.equal(['forced']);
    });

    /** A stop that finds one task at a worker of the owner, and one at an agent of another engine. */
    const stopPair = async () => {
      const worker = await link(a);
      const agent = await link(b, { kind: 'agent', capabilities: ['agent:site'] });
      const id = await engines.run(a, pair);
      const [site = ''] = pushedTo(agent);
      await engines.stop(a, id);
      return { id, worker, agent, site };
    };

    it('leave one engine to write the receipt', async () => {
      const { id, worker, agent, site } = await stopPair();
      await engines.live(6_000, worker, agent);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 1 });
      expect(await agent.complete(site, 'late')).to.equal(true);
      await engines.settle();
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      await engines.live(6_000, worker, agent);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
      expect(engines.discarded()).to.equal(1);
    });

    it('have one receipt, whoever writes into it at the same time', async () => {
      const { id, worker, agent, site } = await stopPair();
      await engines.live(6_000, worker, agent);
      // The engine of the agent counts its result, because the owner does not hear of it; the owner has its own to tell.
      silence();
      await agent.complete(site, 'late');
      await engines.live(1_000, worker, agent);
      const gate = Promise.withResolvers<void>();
      intervene(a, 'putReceipt', { holdBefore: gate.promise });
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      await engines.live(4_000, worker, agent);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 1, lateResultsDiscarded: 1 });
      gate.resolve();
      await engines.settle();
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
      expect((await engines.receipt(id)).tasks.map(({ outcome }) => outcome)).to.have.members([
        'forced',
        'agentRunsOn',
      ]);
      // Whoever is asked says so.
      const expected = await engines.receipt(id);
      expect(await a.engine.receipt(id)).to.deep.equal(expected);
      expect(await b.engine.receipt(id)).to.deep.equal(expected);
    });

    it('count a result once, though the answer to the write of their receipt is lost', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('unsure'));
      await engines.stop(a, id);
      await engines.live(6_000, worker);
      intervene(a, 'putReceipt', 'lose', 3);
      expect(await worker.complete(idOf(id), 'late')).to.equal(true);
      await engines.live(8_000, worker);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
    });

    it('leave the receipt of a stop to the commits of its owner until the end', async () => {
      const { id, worker, agent, site } = await stopPair();
      silence();
      await agent.complete(site, 'late');
      // The owner waits for its own task, and was not told: who knows better waits until it has ended.
      await engines.live(4_000, worker, agent);
      expect(await engines.receipt(id)).to.include({ finalisedAt: null, lateResultsDiscarded: 0 });
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
      await engines.live(6_000, worker, agent);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 1 });
    });

    it('count no late word of another project’s worker', async () => {
      const worker = await link(b);
      const id = await engines.run(a, workflow('theirs'));
      await engines.stop(a, id);
      await engines.live(6_000, worker);
      const stranger = await link(c, { id: 'stranger', project: 'theirs' });
      await stranger.report(idOf(id), { kind: 'completed', output: 1 }, 'any');
      await stranger.report(idOf(id), { kind: 'aborted', outcome: 'aborted' }, 'any');
      await engines.live(6_000, worker);
      expect(await engines.receipt(id)).to.include({ unconfirmed: 1, lateResultsDiscarded: 0 });
      await worker.report(idOf(id), { kind: 'aborted', outcome: 'aborted' });
    });

    it('discard what their own worker says after the stop was stored, and say so', async () => {
      const worker = await link(a);
      const id = await engines.run(a, workflow('first'));
      const gate = Promise.withResolvers<void>();
      let held = false;
      a.gate.intervene = ({ method }) => {
        if (method !== 'commit' || held) return undefined;
        held = true;
        return { holdBefore: gate.promise };
      };
      const answer = worker.complete(idOf(id), 'too late');
      await engines.settle();
      await engines.stop(b, id);
      gate.resolve();
      await engines.settle();
      expect(await answer).to.equal(true);
      expect(await outcomes(id)).to.deep.equal(['finishedFirst']);
    });

    it('take nothing more from an agent that reconnects while the halt is on its way', async () => {
      const agent = await link(a, { kind: 'agent', capabilities: ['agent:site'] });
      const id = await engines.run(a, workflow('halting', '', 'agent'));
      const gate = Promise.withResolvers<void>();
      intervene(a, 'commit', { holdBefore: gate.promise });
      await engines.stop(a, id);
      agent.disconnect();
      expect(await agent.connect(engines.at(a))).to.deep.equal([]);
      expect(await agent.complete(idOf(id), 'late')).to.equal(true);
      gate.resolve();
      await engines.settle();
      expect(await outcomes(id)).to.deep.equal(['agentRunsOn']);
      expect(await engines.receipt(id)).to.include({ lateResultsDiscarded: 1 });
    });
  });

  describe('of a record that is read again or lost', () => {
    it('time out in the queue though their execution is built anew meanwhile', async () => {
      const id = await engines.run(a, workflow('patience', 'queueTimeout: 10s,'));
      const gate = Promise.withResolvers<void>();
      intervene(a, 'claimTask', { holdBefore: gate.promise });
      await engines.clock.advance(10_000);
      restart(a, id);
      await engines.settle();
      gate.resolve();
      await engines.settle();
      expect(await engines.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT', attempt: 1 });
      a.errors.length = 0;
    });

    it('are kept for the next owner where this one learns in the middle that it is not', async () => {
      const worker = await link(a, { slots: 2 });
      const id = await engines.run(a, workflow('fenced'));
      await fence(id);
      worker.print(idOf(id), 'this commit is refused');
      await engines.settle();
      expect(worker.beat()).to.deep.equal([]);
      expect(await worker.complete(idOf(id), 1)).to.equal(false);
      expect((await engines.tasks())[0]?.report).to.deep.equal({ kind: 'completed', output: 1 });
      a.errors.length = 0;
    });

    it('are answered though their execution is lost while its record is read', async () => {
      const worker = await link(a);
      const id = await engines.run(a, workflow('reading'));
      const gate = Promise.withResolvers<void>();
      intervene(a, 'load', { holdBefore: gate.promise });
      restart(a, id);
      const answer = worker.complete(idOf(id), 1);
      await engines.settle();
      await fence(id);
      gate.resolve();
      await engines.settle();
      expect(await answer).to.equal(false);
      expect((await engines.tasks())[0]?.report).to.deep.equal({ kind: 'completed', output: 1 });
    });

    it('are aborted in the pool of an engine that has lost them', async () => {
      const d = await engines.start({ slots: 1 });
      const first = await engines.run(d, workflow('one'));
      const second = await engines.run(d, workflow('two'));
      d.work.complete(idOf(first));
      await engines.settle();
      expect(d.work.running).to.deep.equal([idOf(second)]);
      await engines.store.cluster?.takeOver([second], [d.engine.id], b.engine.id);
      d.work.print(idOf(second), 'this commit is refused');
      await engines.settle();
      expect(d.work.aborted).to.deep.equal([idOf(second)]);
      d.errors.length = 0;
    });

    it('that a pool runs are not looked at', async () => {
      const d = await engines.start({ slots: 1 });
      const first = await engines.run(d, workflow('one'));
      const second = await engines.run(d, workflow('two'));
      d.work.complete(idOf(first));
      await engines.settle();
      d.calls.clear();
      await engines.clock.advance(10_000);
      expect(d.calls.get('readTasks')).to.equal(undefined);
      d.work.complete(idOf(second));
    });
  });
});

describe('tasks of several engines, in the middle of a takeover', () => {
  let engines: Engines;
  const { link, output } = remoteTasks(() => engines);
  let a: EngineRig;
  let b: EngineRig;

  beforeEach(async () => {
    engines = new Engines();
    a = await engines.start({ knows: 'heartbeats' });
    b = await engines.start({ knows: 'heartbeats' });
    await engines.live(4_000);
  });
  afterEach(() => engines.close());

  /** One that `a` keeps. */
  async function run(source: string): Promise<string> {
    for (;;) {
      const id = await engines.run(a, source);
      if ((await engines.store.getHeader(id))?.owner.engine === a.engine.id) return id;
      await engines.stop(a, id);
    }
  }

  it('are taken where the report was on its way to the store', async () => {
    const worker = await link(b, { slots: 20 });
    const id = await run(workflow('way', 'rerun: false,'));
    await engines.live(1_000, worker);
    const gate = Promise.withResolvers<void>();
    let held = false;
    b.gate.intervene = ({ method, args }) => {
      if (method !== 'storeReport' || args[0] !== idOf(id) || held) return undefined;
      held = true;
      return { holdBefore: gate.promise };
    };
    const token = worker.held.get(idOf(id)) as string;
    const answer = worker.complete(idOf(id), 1);
    await engines.settle();
    // A result without an answer is listed.
    worker.held.set(idOf(id), token);
    a.kill();
    await engines.live(14_000, worker);
    expect((await engines.store.getHeader(id))?.owner.engine).to.equal(b.engine.id);
    gate.resolve();
    await engines.settle();
    expect(await answer).to.equal(false);
    expect(await output(id)).to.equal(1);
    worker.held.delete(idOf(id));
    for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
  });

  it('stay with the new owner when their worker leaves it', async () => {
    const worker = await link(b, { slots: 20 });
    const id = await run(workflow('leaves', 'rerun: false,'));
    await engines.live(1_000, worker);
    const c = await engines.start({ knows: 'heartbeats' });
    await engines.live(4_000, worker);
    // Only `b` inherits: the other one hears of nothing yet.
    c.gate.intervene = ({ method }) => (method === 'listOrphans' ? 'fail' : undefined);
    a.kill();
    await engines.live(14_000, worker);
    await engines.store.cluster?.takeOver([id], [a.engine.id, c.engine.id], b.engine.id);
    c.gate.intervene = () => undefined;
    expect((await engines.store.getHeader(id))?.owner.engine).to.equal(b.engine.id);
    await engines.live(2_000, worker);
    worker.disconnect();
    expect(await worker.connect(engines.at(c))).to.include(idOf(id));
    await engines.live(12_000, worker);
    expect(await worker.complete(idOf(id), 1)).to.equal(false);
    await engines.live(2_000, worker);
    expect(await output(id)).to.equal(1);
    for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
  });

  it('are not taken before their execution goes on', async () => {
    const chain = `{ name: chain, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: http, needs: [a], with: { url: "http://b/" } } } }`;
    const worker = await link(b);
    const id = await run(chain);
    await engines.live(1_000, worker);
    engines.hub.fateOf = () => 'lost';
    const other = await run(workflow('other'));
    a.kill();
    expect(await worker.complete(idOf(id), 1)).to.equal(false);
    const gate = Promise.withResolvers<void>();
    const commits = Promise.withResolvers<void>();
    let held = false;
    // Of the second of the two executions, after the first was restored.
    b.gate.intervene = ({ method, args }) => {
      if (method === 'commit' && (args[0] as { executionId: string }).executionId === id)
        return { holdBefore: commits.promise };
      if (method !== 'getDefinition' || args[1] !== 'other' || held) return undefined;
      held = true;
      return { holdBefore: gate.promise };
    };
    await engines.live(14_000, worker);
    expect(held).to.equal(true);
    gate.resolve();
    await engines.settle();
    commits.resolve();
    await engines.live(1_000, worker);
    expect(await engines.node(id, 'b')).to.include({ status: 'Running', attempt: 1 });
    expect((await engines.store.getHeader(other))?.owner.engine).to.equal(b.engine.id);
    for (let left = 3; left > 0; left--) for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
  });

  it('have their timeout by the clock of their owner', async () => {
    const id = await run(workflow('skewed', 'timeout: 60s,'));
    a.kill();
    // Claimed by an engine whose clock is an hour behind, and the record does not say so.
    const claim = {
      worker: 'worker-1',
      tokenHash: 'hash of t',
      atMs: engines.clock.nowMs() - 3_600_000,
      via: b.engine.id,
    };
    expect(await engines.store.claimTask(idOf(id), claim)).to.equal('claimed');
    const worker = new FakeLink();
    worker.held.set(idOf(id), 't');
    expect(await worker.connect(engines.at(b))).to.deep.equal([idOf(id)]);
    await engines.live(40_000, worker);
    expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1, error: null });
    expect(await worker.complete(idOf(id), 1)).to.equal(false);
    expect(await output(id)).to.equal(1);
  });
});
