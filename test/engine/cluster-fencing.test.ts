import { expect } from 'chai';
import type { HeaderRow } from '../../src/ports/store.ts';
import type { Intervention, StoreCall } from '../support/engine.ts';
import { type EngineRig, type EngineRigOptions, Engines } from '../support/engine-rigs.ts';

const MARKER = 'workflow stopped by user';
const HELD = '{ name: held, nodes: { wait: { type: hold, trigger: go } } }';
const CALL =
  '{ name: call, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: set, needs: [a], with: { value: 2 } } } }';
const PARENT =
  '{ name: parent, nodes: { each: { type: foreach, items: "${{ [1, 2] }}", body: { a: { type: http, with: { url: "http://a/" } } } } } }';

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe('an engine among several that', () => {
  let engines: Engines;
  let gone: [EngineRig, string][];
  let a: EngineRig;
  let b: EngineRig;
  let c: EngineRig;

  async function start(options: EngineRigOptions = {}): Promise<EngineRig> {
    const rig: EngineRig = await engines.start({
      knows: 'heartbeats',
      slots: 10,
      onGone: (why) => gone.push([rig, why]),
      ...options,
    });
    return rig;
  }

  beforeEach(async () => {
    engines = new Engines();
    gone = [];
    a = await start();
    b = await start();
    c = await start();
    await engines.live(4_000);
  });
  afterEach(() => engines.close());

  async function header(id: string): Promise<HeaderRow> {
    const found = await engines.store.getHeader(id);
    if (found === null) throw new Error(`no execution ${id}`);
    return found;
  }

  const ownerOf = async (id: string): Promise<EngineRig> => {
    const { owner } = await header(id);
    const rig = engines.all.find(({ engine }) => engine.id === owner.engine);
    if (rig === undefined) throw new Error(`nobody owns ${id}`);
    return rig;
  };

  /** The process of this engine stands still; its store and its bus go on without it. */
  async function standStill(rig: EngineRig, ms: number): Promise<void> {
    rig.process.stop();
    await engines.live(ms);
  }

  async function wake(rig: EngineRig): Promise<void> {
    rig.process.go();
    await engines.live(100);
  }

  /** As `intervene` says for the next call of a method. */
  function once(rig: EngineRig, method: StoreCall['method'], how: Intervention): void {
    let left = 1;
    rig.gate.intervene = (call) => (call.method === method && left-- > 0 ? how : undefined);
  }

  describe('stood still for longer than its lease', () => {
    it('does nothing when it wakes: it owns nothing any more, and says so once', async () => {
      const held = await engines.run(a, HELD);
      await engines.live(15_000);
      expect(a.engine.describe().executions.parked).to.equal(1);
      const called = await engines.run(a, CALL);
      await standStill(a, 15_000);
      expect((await header(called)).owner).to.deep.include({ epoch: 2 });
      expect(await ownerOf(held)).to.not.equal(a);
      const written = a.gate.commits.length;
      const told = engines.hub.hints.length;
      await wake(a);
      expect(gone).to.deep.equal([[a, 'fenced']]);
      expect(a.errors.splice(0)).to.have.length(1);
      expect(a.work.aborted).to.deep.equal([`${called}/a/-/1`]);
      await engines.live(20_000);
      expect(a.gate.commits).to.have.length(written);
      expect(engines.hub.hints.slice(told).filter(({ from }) => from === 'engine 1')).to.deep.equal([]);
      expect(a.engine.describe().executions).to.deep.equal({ running: 0, pending: 0, parked: 0 });
    });

    it('starts no work that a late answer would allow', async () => {
      const answer = deferred();
      once(a, 'commit', { holdAfter: answer.promise });
      const running = engines.run(a, CALL);
      await engines.settle();
      const id = await running;
      expect(await header(id)).to.include({ status: 'Running' });
      expect(a.work.started).to.deep.equal([]);
      await standStill(a, 15_000);
      await engines.stop(b, id);
      await engines.live(1_000);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      // The answer is read before any timer has fired.
      answer.resolve();
      await engines.settle();
      expect(a.work.started).to.deep.equal([]);
      expect(gone).to.deep.equal([[a, 'fenced']]);
      a.errors.length = 0;
      await wake(a);
    });

    it('gives its own pool no task whose claim is answered late', async () => {
      await engines.run(a, HELD);
      // No slot: the task enters the queue, and is claimed when there is one.
      a.work.slots = 0;
      b.work.slots = 0;
      c.work.slots = 0;
      const id = await engines.run(a, CALL);
      expect(await engines.tasks()).to.have.length(1);
      const answer = deferred();
      once(a, 'claimTask', { holdAfter: answer.promise });
      a.work.slots = 1;
      const other = await engines.run(a, CALL);
      a.work.complete(`${other}/a/-/1`);
      await engines.settle();
      expect((await engines.tasks())[0]?.claim?.worker).to.match(/^pool:/);
      b.work.slots = 1;
      c.work.slots = 1;
      await standStill(a, 15_000);
      answer.resolve();
      await engines.settle();
      expect(a.work.started.map((task) => task.executionId)).to.not.include(id);
      a.errors.length = 0;
      await wake(a);
      await engines.live(20_000);
      const started = [...b.work.started, ...c.work.started].filter((task) => task.executionId === id);
      expect(started.map(({ attempt }) => attempt)).to.deep.equal([2]);
    });

    it('refuses starts, and begins no instant of a schedule', async () => {
      await engines.run(
        a,
        '{ name: minutely, on: { schedule: "* * * * *" }, nodes: { n: { type: set, with: { value: 1 } } } }',
      );
      // Its heartbeats are not due when the schedule is.
      await engines.live(1_000);
      const late = await start();
      for (const { engine } of engines.all) await engine.workflowChanged('default', 'minutely');
      // Just before the instant: when it wakes, that is what it finds first.
      await engines.live(59_900 - (engines.clock.nowMs() % 60_000));
      const calls = new Set<string>();
      late.gate.intervene = ({ method }) => {
        calls.add(method);
        return undefined;
      };
      await standStill(late, 15_000);
      await wake(late);
      late.errors.length = 0;
      expect([...calls]).to.not.include('createExecution');
      expect([...calls]).to.not.include('putSetting');
      const request = { project: 'default', workflow: 'minutely', input: {}, labels: {}, idempotencyKey: null };
      const refused = await late.engine.startExecution(request).catch((error: { code: string }) => error.code);
      expect(refused).to.equal('FS_UNAVAILABLE');
      const { items } = await engines.store.listExecutions({ project: null, workflow: 'minutely', limit: 100 });
      expect(items).to.have.length(2);
    });

    it('and shorter than its lease goes on as if nothing had been', async () => {
      const id = await engines.run(a, CALL);
      await standStill(a, 4_000);
      await wake(a);
      await engines.live(10_000);
      expect(gone).to.deep.equal([]);
      a.work.complete(`${id}/a/-/1`);
      await engines.live(100);
      expect(await header(id)).to.deep.include({ status: 'Complete', owner: { engine: a.engine.id, epoch: 2 } });
    });

    it('does not lose what it wrote before, nor twice what it asked for then', async () => {
      const parent = await engines.run(a, PARENT);
      await engines.live(100);
      await standStill(a, 15_000);
      await wake(a);
      a.errors.length = 0;
      const heir = await ownerOf(parent);
      expect(heir).to.not.equal(a);
      for (const task of [...heir.work.started]) heir.work.complete(task.id, 1);
      await engines.live(3_000);
      expect(await header(parent)).to.include({ status: 'Complete' });
      const { items } = await engines.store.listExecutions({ project: null, parent, limit: 10 });
      expect(items.map(({ status, owner }) => [status, owner.engine])).to.deep.equal(
        new Array(2).fill(['Complete', heir.engine.id]),
      );
    });
  });

  describe('cannot reach the store', () => {
    it('ends its work before another may begin it', async () => {
      const id = await engines.run(a, CALL);
      let abortedAtMs: number | null = null;
      let begunAtMs: number | null = null;
      a.gate.intervene = () => 'fail';
      for (let ms = 0; ms < 16_000 && begunAtMs === null; ms += 100) {
        await engines.clock.advance(100);
        if (a.work.aborted.length > 0) abortedAtMs ??= engines.clock.nowMs();
        if (b.work.started.length + c.work.started.length > 0) begunAtMs ??= engines.clock.nowMs();
      }
      a.errors.length = 0;
      expect(abortedAtMs).to.not.equal(null);
      expect(begunAtMs).to.not.equal(null);
      expect((begunAtMs ?? 0) - (abortedAtMs ?? 0)).to.be.at.least(1_000);
      expect((await header(id)).owner.epoch).to.equal(2);
    });

    it('for a moment only keeps what it has', async () => {
      const id = await engines.run(a, CALL);
      a.gate.intervene = () => 'fail';
      await engines.live(4_000);
      a.gate.intervene = () => undefined;
      await engines.live(20_000);
      expect(gone).to.deep.equal([]);
      expect((await header(id)).owner).to.deep.equal({ engine: a.engine.id, epoch: 1 });
    });

    it('counts its lease from the sending of a heartbeat, not from its answer', async () => {
      await engines.run(a, CALL);
      const answers = deferred();
      let held = false;
      // Each heartbeat reaches the store, and the answer takes seven seconds.
      a.gate.intervene = ({ method }) => {
        if (method !== 'beat') return undefined;
        if (held) return 'fail';
        held = true;
        return { holdAfter: answers.promise };
      };
      await engines.live(8_000);
      answers.resolve();
      await engines.live(500);
      expect(gone).to.deep.equal([[a, 'fenced']]);
      a.errors.length = 0;
    });
  });

  describe('has a clock that is wrong by an hour', () => {
    for (const skewMs of [3_600_000, -3_600_000]) {
      it(`(${skewMs / 3_600_000}) is alive all the same, and takes over as the others do`, async () => {
        const wrong = await start({ skewMs });
        await engines.live(20_000);
        expect(gone).to.deep.equal([]);
        const id = await engines.run(wrong, CALL);
        expect((await header(id)).owner.engine).to.equal(wrong.engine.id);
        for (const rig of [a, b, c]) await engines.run(rig, HELD);
        a.kill();
        b.kill();
        c.kill();
        await engines.live(14_000);
        const { items } = await engines.store.listExecutions({ project: null, live: true, limit: 10 });
        expect(new Set(items.map(({ owner }) => owner.engine))).to.deep.equal(new Set([wrong.engine.id]));
      });
    }

    it('since a moment ago is not taken for silent', async () => {
      const id = await engines.run(a, CALL);
      a.process.skewMs = 3_600_000;
      await engines.live(10_000);
      a.process.skewMs = -3_600_000;
      await engines.live(10_000);
      expect(gone).to.deep.equal([]);
      expect((await header(id)).owner).to.deep.equal({ engine: a.engine.id, epoch: 1 });
    });
  });

  describe('loses an answer of the store', () => {
    const heirOf = async (id: string): Promise<void> => {
      await engines.live(2_000);
      await engines.stop(b, id);
      await engines.live(3_000);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
    };

    it('on a takeover takes in what it was given', async () => {
      c.kill();
      const id = await engines.run(a, CALL);
      once(b, 'takeOver', 'lose');
      a.kill();
      await engines.live(16_000);
      expect(b.work.started.map((task) => task.executionId)).to.deep.equal([id]);
      await heirOf(id);
    });

    it('on what it read for a takeover goes on with the rest', async () => {
      c.kill();
      const ids: string[] = [];
      for (let n = 0; n < 3; n += 1) ids.push(await engines.run(a, CALL.replace('call', `call${n}`)));
      let read = 0;
      b.gate.intervene = ({ method }) => {
        if (method === 'getDefinition') read += 1;
        return method === 'getDefinition' && read === 2 ? 'fail' : undefined;
      };
      a.kill();
      await engines.live(16_000);
      expect(b.work.started.map((task) => task.executionId).sort()).to.deep.equal(ids);
    });

    it('on an offer that it accepts has it all the same', async () => {
      c.kill();
      await engines.live(10_000);
      once(b, 'acceptOffer', 'lose');
      const ids: string[] = [];
      for (let n = 0; n < 80; n += 1) ids.push(await engines.run(a, CALL));
      await engines.live(3_000);
      const owned = await Promise.all(ids.map(ownerOf));
      expect(owned).to.include(b);
      for (const rig of [a, b])
        expect(rig.engine.describe().executions.running).to.equal(owned.filter((owner) => owner === rig).length);
    });

    it('on offers that it takes back has them all the same, while it makes new ones', async () => {
      c.kill();
      await engines.live(10_000);
      b.gate.intervene = ({ method }) => (method === 'acceptOffer' ? 'fail' : undefined);
      let lost = 0;
      a.gate.intervene = ({ method }) => (method === 'takeBackOffers' && lost++ === 0 ? 'lose' : undefined);
      const ids: string[] = [];
      for (let n = 0; n < 50; n += 1) ids.push(await engines.run(a, CALL));
      for (let second = 0; second < 20; second += 1) {
        for (let n = 0; n < 3; n += 1) ids.push(await engines.run(a, CALL));
        await engines.live(1_000);
      }
      expect(lost).to.be.greaterThan(1);
      // The oldest of them did not wait for the last.
      expect(a.engine.describe().executions.running).to.be.greaterThan(70);
      await engines.live(20_000);
      expect(a.engine.describe().executions.running).to.equal(ids.length);
    });

    it('on a start that it offered has it all the same', async () => {
      c.kill();
      await engines.live(10_000);
      for (let n = 0; n < 43; n += 1) await engines.run(a, CALL);
      b.gate.intervene = ({ method }) => (method === 'acceptOffer' ? 'fail' : undefined);
      once(a, 'createExecution', 'lose');
      const refused = await engines.run(a, CALL).catch((error: { code: string }) => error.code);
      expect(refused).to.equal('FS_UNAVAILABLE');
      await engines.live(20_000);
      const { items } = await engines.store.listExecutions({ project: null, live: true, limit: 100 });
      const running = engines.all
        .filter((rig) => rig !== c)
        .map((rig) => rig.engine.describe().executions)
        .reduce((sum, load) => sum + load.running, 0);
      expect(items).to.have.length(44);
      expect(running).to.equal(44);
    });
  });

  it('took over keeps a trigger that came between its reading and its memory', async () => {
    c.kill();
    const id = await engines.run(a, HELD);
    const answer = deferred();
    once(b, 'takeOver', { holdAfter: answer.promise });
    a.kill();
    await engines.live(14_000);
    expect((await header(id)).owner.engine).to.equal(b.engine.id);
    await b.engine.trigger(id, 'go', 7);
    await engines.live(2_000);
    answer.resolve();
    await engines.live(3_000);
    expect(await header(id)).to.include({ status: 'Complete' });
  });

  it('lost one execution drops that one, and leaves its receipt to the new owner', async () => {
    const lost = await engines.run(a, CALL);
    const kept = await engines.run(a, CALL);
    a.work.ignoreAborts = true;
    await engines.stop(a, lost);
    await engines.settle();
    // Halted, and it waits for its task; somebody else ends it meanwhile.
    await engines.store.cluster?.takeOver([lost], [a.engine.id], 'nobody');
    const before = await engines.store.getReceipt(lost);
    await engines.live(6_000);
    a.work.complete(`${lost}/a/-/1`);
    await engines.live(1_000);
    expect(await engines.store.getReceipt(lost)).to.deep.equal(before);
    expect(gone).to.deep.equal([]);
    a.work.complete(`${kept}/a/-/1`);
    await engines.live(100);
    expect(await header(kept)).to.include({ status: 'Complete' });
  });
});
