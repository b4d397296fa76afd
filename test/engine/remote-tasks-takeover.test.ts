import { expect } from 'chai';
import type { FakeLink } from '../support/engine.ts';
import { type EngineRig, Engines } from '../support/engine-rigs.ts';
import { idOf, pushedTo, remoteTasks, workflow } from '../support/remote-tasks.ts';

const MARKER = 'workflow stopped by user';

describe('tasks of executions that change hands', () => {
  let engines: Engines;
  const { link, output, outcomes, silence } = remoteTasks(() => engines);
  /** Owns the executions, and goes. */
  let a: EngineRig;
  /** Workers are connected to it. */
  let b: EngineRig;
  let c: EngineRig;
  const gone: string[] = [];

  beforeEach(async () => {
    engines = new Engines();
    gone.length = 0;
    const start = (slots = 0) =>
      engines.start({ knows: 'heartbeats', slots, onGone: (why) => gone.push(why), leaseMs: 8_000 });
    a = await start();
    b = await start();
    c = await start();
    await engines.live(4_000);
  });
  afterEach(() => engines.close());

  const header = async (id: string) => {
    const found = await engines.store.getHeader(id);
    if (found === null) throw new Error(`no execution ${id}`);
    return found;
  };

  /** Executions of `a` whose task the worker has, and that `b` and `c` inherit; those of `heir` alone. */
  async function run(source: string, worker: FakeLink | null): Promise<string[]> {
    const ids: string[] = [];
    for (let n = 0; n < 8; n++) ids.push(await engines.run(a, source));
    const own: string[] = [];
    for (const id of ids) if ((await header(id)).owner.engine === a.engine.id) own.push(id);
    expect(own.length).to.be.greaterThan(2);
    if (worker === null) return own;
    await engines.live(2_000, worker);
    for (const id of own) expect(pushedTo(worker)).to.include(idOf(id));
    return own;
  }

  /** `a` dies; answers when everything has a new owner. */
  async function takeOver(ids: string[], ...links: FakeLink[]): Promise<void> {
    a.kill();
    await engines.live(14_000, ...links);
    const owners = new Set<string>();
    for (const id of ids) {
      const { owner, endedAtMs } = await header(id);
      if (endedAtMs === null) owners.add(owner.engine);
    }
    expect(owners).not.to.include(a.engine.id);
  }

  for (const hints of ['told', 'lost'] as const) {
    describe(`with every hint ${hints}`, () => {
      beforeEach(() => {
        if (hints === 'lost') silence();
      });

      it('go on where their worker is connected elsewhere', async () => {
        const worker = await link(b, { slots: 20 });
        const ids = await run(workflow('on', 'rerun: false,'), worker);
        await takeOver(ids, worker);
        for (const id of ids) {
          expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
          expect(await worker.complete(idOf(id), id)).to.equal(false);
        }
        await engines.live(2_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const id of ids)
          expect((await engines.told(id)).filter((line) => line === 'task.claimed a')).to.have.length(1);
        expect(worker.cancelled).to.deep.equal([]);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('are taken from what was reported before, once, also where the worker says it again', async () => {
        const worker = await link(b, { slots: 20 });
        const ids = await run(workflow('reported', 'rerun: false,'), worker);
        a.kill();
        const tokens = new Map(worker.held);
        for (const id of ids) expect(await worker.complete(idOf(id), id)).to.equal(false);
        await engines.live(6_000, worker);
        for (const id of ids) expect(await engines.node(id, 'a')).to.include({ status: 'Running' });
        for (const id of ids)
          await worker.report(idOf(id), { kind: 'completed', output: 'again' }, tokens.get(idOf(id)));
        await engines.live(10_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const id of ids)
          expect(await worker.report(idOf(id), { kind: 'completed', output: 'late' }, tokens.get(idOf(id)))).to.equal(
            true,
          );
        await engines.live(4_000, worker);
        for (const id of ids) {
          expect(await output(id)).to.equal(id);
          expect((await engines.told(id)).filter((line) => line === 'node.completed a')).to.have.length(1);
        }
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('go on with a worker that was connected to the engine that died, where it comes back', async () => {
        const worker = await link(a, { slots: 20 });
        const ids = await run(workflow('came', 'rerun: false,'), worker);
        a.kill();
        await engines.clock.advance(1_000);
        expect(await worker.connect(engines.at(b))).to.include.members(ids.map((id) => idOf(id)));
        await engines.live(20_000, worker);
        for (const id of ids) expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
        for (const id of ids) expect(await worker.complete(idOf(id), id)).to.equal(false);
        await engines.live(2_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('are lost with a worker that does not come back', async () => {
        const worker = await link(a, { slots: 20 });
        const ids = await run(workflow('lost'), worker);
        await takeOver(ids);
        await engines.live(10_000);
        for (const id of ids) expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 2 });
      });

      it('that wait are claimed before their executions have a new owner, and what is reported counts', async () => {
        const ids = await run(workflow('waits', 'rerun: false,'), null);
        a.kill();
        const worker = await link(b, { slots: 20 });
        expect(pushedTo(worker)).to.include.members(ids.map((id) => idOf(id)));
        for (const id of ids.slice(1)) expect(await worker.complete(idOf(id), id)).to.equal(false);
        await engines.live(16_000, worker);
        expect(await worker.complete(idOf(ids[0] as string), ids[0])).to.equal(false);
        await engines.live(4_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('that wait keep their attempt', async () => {
        const ids = await run(workflow('kept', 'rerun: false,'), null);
        await takeOver(ids);
        const worker = await link(b, { slots: 20 });
        await engines.live(2_000, worker);
        for (const id of ids) expect(await worker.complete(idOf(id), id)).to.equal(false);
        await engines.live(2_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('are ended within 3 s of a stop though nobody owns them, and the receipt says so', async () => {
        const worker = await link(b, { slots: 20 });
        const ids = await run(workflow('stopped'), worker);
        a.kill();
        for (const id of ids) await engines.stop(c, id);
        await engines.live(hints === 'lost' ? 3_000 : 100);
        for (const id of ids) expect(worker.cancelled).to.include(idOf(id));
        const slow = idOf(ids[0] as string);
        for (const id of ids.slice(1)) await worker.report(idOf(id), { kind: 'aborted', outcome: 'forced' });
        await engines.live(14_000, worker);
        for (const id of ids) expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
        for (const id of ids.slice(1)) expect(await outcomes(id)).to.deep.equal(['forced']);
        expect(await outcomes(ids[0] as string)).to.deep.equal(['unconfirmed']);
        await worker.report(slow, { kind: 'aborted', outcome: 'aborted' });
        await engines.live(4_000, worker);
        expect(await outcomes(ids[0] as string)).to.deep.equal(['aborted']);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });

      it('whose engine hands over go on at other engines, with workers that it told to go', async () => {
        const worker = await link(a, { slots: 20 });
        const ids = await run(workflow('drained', 'rerun: false,'), worker);
        const drained = a.engine.drain(2_000);
        expect(worker.closed).to.equal(true);
        worker.disconnect();
        expect(await worker.connect(engines.at(b))).to.include.members(ids.map((id) => idOf(id)));
        await engines.live(2_000, worker);
        await drained;
        await engines.live(10_000, worker);
        for (const id of ids) {
          expect((await header(id)).owner.engine).not.to.equal(a.engine.id);
          expect(await engines.node(id, 'a')).to.include({ status: 'Running', attempt: 1 });
          expect(await worker.complete(idOf(id), id)).to.equal(false);
        }
        await engines.live(2_000, worker);
        for (const id of ids) expect(await output(id)).to.equal(id);
        for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
      });
    });
  }

  it('that a pool had are lost with its process', async () => {
    const d = await engines.start({ knows: 'heartbeats', slots: 1 });
    await engines.live(4_000);
    a = d;
    const ids = await run(workflow('pool'), null);
    const held = (await engines.tasks()).filter(({ claim }) => claim !== null);
    d.work.complete('a');
    await engines.settle();
    const [queued] = (await engines.tasks()).filter(({ claim, engine }) => claim !== null && engine === d.engine.id);
    expect(held).to.deep.equal([]);
    expect(queued?.claim?.worker).to.match(/^pool:/);
    await takeOver(ids);
    const executionId = queued?.task.executionId as string;
    expect(await engines.node(executionId, 'a')).to.include({ status: 'Running', attempt: 2 });
  });

  it('of an engine that cannot renew go on: it hangs up on its workers, and takes nothing more from them', async () => {
    const worker = await link(a, { slots: 20 });
    const ids = await run(workflow('fenced', 'rerun: false,'), worker);
    a.gate.intervene = ({ method }) => (method === 'beat' ? 'fail' : undefined);
    for (let passed = 0; !worker.closed && passed < 10_000; passed += 500) await engines.clock.advance(500);
    expect(gone).to.deep.equal(['fenced']);
    expect(worker.closed).to.equal(true);
    a.errors.length = 0;
    let refused = false;
    await worker.connect(engines.at(a)).catch(() => {
      refused = true;
    });
    expect(refused).to.equal(true);
    expect(await worker.connect(engines.at(c))).to.include.members(ids.map((id) => idOf(id)));
    await engines.live(16_000, worker);
    for (const id of ids) {
      expect((await header(id)).owner.engine).not.to.equal(a.engine.id);
      expect(await worker.complete(idOf(id), id)).to.equal(false);
    }
    await engines.live(2_000, worker);
    for (const id of ids) expect(await output(id)).to.equal(id);
    for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
  });

  it('are not told to have been discarded where the commit of their result came too late for its engine', async () => {
    const worker = await link(a, { slots: 20 });
    const ids = await run(workflow('fenced', 'rerun: false,'), worker);
    const [id = ''] = ids;
    // Taken over while the engine believes that it lives.
    await engines.store.cluster?.takeOver([id], [a.engine.id], b.engine.id);
    expect(await worker.complete(idOf(id), 1)).to.equal(false);
    expect((await engines.tasks()).find((task) => task.id === idOf(id))?.report).to.deep.equal({
      kind: 'completed',
      output: 1,
    });
    a.errors.length = 0;
    for (const taskId of [...worker.held.keys()]) await worker.complete(taskId);
  });
});
