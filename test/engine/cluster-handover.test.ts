import { expect } from 'chai';
import type { StartRequest } from '../../src/engine/api.ts';
import type { Peers } from '../../src/engine/remote-tasks.ts';
import type { HeaderRow } from '../../src/ports/store.ts';
import { type EngineRig, type EngineRigOptions, Engines } from '../support/engine-rigs.ts';

const MARKER = 'workflow stopped by user';
const HELD = '{ name: held, nodes: { wait: { type: hold, trigger: go } } }';
const CALL = '{ name: call, nodes: { a: { type: http, with: { url: "http://a/" } } } }';
const LATER =
  '{ name: later, nodes: { a: { type: http, with: { url: "http://a/" } }, wait: { type: hold, needs: [a], trigger: go } } }';
const PARENT =
  '{ name: parent, nodes: { each: { type: foreach, items: "${{ [1] }}", body: { a: { type: http, with: { url: "http://a/" } } } } } }';

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe('between several engines', () => {
  let engines: Engines;
  let a: EngineRig;
  let b: EngineRig;

  const start = (options: EngineRigOptions = {}): Promise<EngineRig> =>
    engines.start({ knows: 'heartbeats', slots: 10, ...options });

  beforeEach(async () => {
    engines = new Engines();
    a = await start();
    b = await start();
    await engines.live(4_000);
  });
  afterEach(() => engines.close());

  const silence = (): void => {
    engines.hub.fateOf = () => 'lost';
  };
  const ownerOf = async (id: string): Promise<string> => (await header(id)).owner.engine;

  async function header(id: string): Promise<HeaderRow> {
    const found = await engines.store.getHeader(id);
    if (found === null) throw new Error(`no execution ${id}`);
    return found;
  }

  /** Of a workflow that is saved; answers its id or the error's code. */
  async function begin(at: EngineRig, workflow: string, more: Partial<StartRequest> = {}): Promise<string> {
    const request = { project: 'default', workflow, input: {}, labels: {}, idempotencyKey: null, ...more };
    const started = at.engine.startExecution(request).then(
      ({ header: { id } }) => id,
      ({ code }: { code: string }) => code,
    );
    await engines.settle();
    return started;
  }

  describe('a stop', () => {
    it('of what waits for its turn elsewhere leaves it Pending there, and ends it', async () => {
      await a.engine.setAdmission(true);
      const id = await engines.run(a, CALL);
      await engines.stop(b, id);
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await engines.store.getExecution(id))?.nodes).to.deep.equal([]);
    });

    it('is previewed, and its receipt read, at any engine', async () => {
      const id = await engines.run(a, PARENT);
      await engines.live(100);
      const preview = await b.engine.previewStop(id);
      expect(preview?.willAbort.map(({ node }) => node)).to.deep.equal(['each']);
      expect(preview?.children).to.have.length(1);
      a.work.ignoreAborts = true;
      await engines.stop(b, id);
      await engines.live(1_000);
      const [child] = (await b.engine.receipt(id))?.children ?? [];
      const halted = await b.engine.receipt(child?.executionId ?? '');
      expect(halted).to.deep.include({ finalisedAt: null });
      expect(halted?.tasks.map(({ node }) => node)).to.deep.equal(['each/a']);
      await engines.live(6_000);
      expect(await b.engine.receipt(child?.executionId ?? '')).to.deep.include({ unconfirmed: 1 });
      for (const task of a.work.running) a.work.answer(task, { kind: 'aborted', outcome: 'forced' });
      await engines.live(1_000);
      expect(await b.engine.receipt(child?.executionId ?? '')).to.deep.include({ unconfirmed: 0 });
      expect((await b.engine.receipt(id))?.children.map(({ status }) => status)).to.deep.equal(['Failed']);
    });

    it('of a tree whose owner died is final within 15 s, and no node starts', async () => {
      const ids: string[] = [];
      for (let n = 0; n < 5; n += 1) ids.push(await engines.run(a, PARENT));
      await engines.live(100);
      silence();
      a.kill();
      for (const id of ids) await engines.stop(b, id);
      const started = b.work.started.length;
      await engines.live(15_000);
      const { items } = await engines.store.listExecutions({ project: null, withChildren: true, limit: 100 });
      expect(items).to.have.length(10);
      for (const item of items) expect(item).to.include({ status: 'Failed', error: MARKER });
      expect(b.work.started).to.have.length(started);
    });
  });

  describe('an offer', () => {
    it('that the bus lost is found within a second or so', async () => {
      silence();
      const ids: string[] = [];
      for (let n = 0; n < 60; n += 1) ids.push(await engines.run(a, CALL));
      await engines.live(1_500);
      const owners = await Promise.all(ids.map(ownerOf));
      expect(owners.filter((owner) => owner === b.engine.id).length).to.be.greaterThan(5);
      for (const rig of [a, b]) {
        const own = owners.filter((owner) => owner === rig.engine.id).length;
        expect(rig.engine.describe().executions.running).to.equal(own);
      }
    });

    it('of what is stopped before anybody took it ends with the stop', async () => {
      for (let n = 0; n < 43; n += 1) await engines.run(a, CALL);
      silence();
      const id = await engines.run(a, CALL);
      expect((await engines.store.cluster?.waiting(b.engine.id, 9))?.offered).to.deep.equal([id]);
      await engines.stop(a, id);
      await engines.live(2_000);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await engines.store.getExecution(id))?.nodes).to.deep.equal([]);
    });

    it('of who has died goes on with the others', async () => {
      for (let n = 0; n < 43; n += 1) await engines.run(a, CALL);
      silence();
      b.gate.intervene = ({ method }) => (method === 'acceptOffer' ? 'fail' : undefined);
      const id = await engines.run(a, CALL);
      a.kill();
      await engines.live(16_000);
      expect(await ownerOf(id)).to.equal(b.engine.id);
      expect(await header(id)).to.include({ status: 'Running' });
    });
  });

  describe('a trigger', () => {
    it('is told of once, though its hold is not there yet', async () => {
      const id = await engines.run(a, LATER);
      silence();
      await b.engine.trigger(id, 'go', 5);
      expect((await engines.store.cluster?.waiting(a.engine.id, 9))?.triggers).to.have.length(1);
      await engines.live(1_500);
      expect((await engines.store.cluster?.waiting(a.engine.id, 9))?.triggers).to.deep.equal([]);
      a.work.complete(`${id}/a/-/1`);
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Complete' });
      expect(await engines.store.readResult(`${id}/wait/-/1`)).to.equal(5);
    });

    it('is kept for one that is taken over before it', async () => {
      const id = await engines.run(a, LATER);
      await a.engine.trigger(id, 'go', 5);
      await engines.live(100);
      a.kill();
      await engines.live(14_000);
      b.work.complete(`${id}/a/-/2`);
      await engines.live(100);
      expect(await engines.store.readResult(`${id}/wait/-/1`)).to.equal(5);
    });

    it('reaches an execution that was read before it and is not in memory yet', async () => {
      await engines.run(a, HELD);
      const read = deferred();
      let created = '';
      a.gate.intervene = ({ method, args }) => {
        if (method === 'createExecution') {
          created = (args[0] as { header: { id: string } }).header.id;
          return 'lose';
        }
        return method === 'load' && args[0] === created ? { holdAfter: read.promise } : undefined;
      };
      expect(await begin(a, 'held')).to.equal('FS_UNAVAILABLE');
      await engines.settle();
      await b.engine.trigger(created, 'go', 5);
      await engines.live(3_000);
      read.resolve();
      await engines.live(3_000);
      expect(await header(created)).to.include({ status: 'Complete' });
    });

    it('whose answer its owner lost is taken, whoever hears of it again', async () => {
      const id = await engines.run(a, HELD);
      silence();
      a.gate.intervene = ({ method }) => (method === 'putTrigger' ? 'lose' : undefined);
      expect(await a.engine.trigger(id, 'go', 5).catch(({ code }) => code)).to.equal('FS_UNAVAILABLE');
      expect(await b.engine.trigger(id, 'go', 5)).to.deep.equal({ duplicate: true });
      await engines.live(2_000);
      expect(await header(id)).to.include({ status: 'Complete' });
    });

    it('that was stored by one who could not tell is told of with its repeat', async () => {
      const id = await engines.run(a, HELD);
      engines.hub.fateOf = () => 'lost';
      await b.engine.trigger(id, 'go', 5);
      await engines.settle();
      expect(await header(id)).to.include({ status: 'Running' });
      engines.hub.fateOf = () => 'told';
      expect(await b.engine.trigger(id, 'go', 5)).to.deep.equal({ duplicate: true });
      await engines.settle();
      expect(await header(id)).to.include({ status: 'Complete' });
    });

    it('wakes what is parked elsewhere', async () => {
      const id = await engines.run(a, HELD);
      await engines.live(15_000);
      expect(a.engine.describe().executions.parked).to.equal(1);
      await b.engine.trigger(id, 'go', 5);
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Complete' });
    });
  });

  describe('an execution that has another owner', () => {
    it('is not brought back by the one that had parked it', async () => {
      const id = await engines.run(a, HELD);
      await engines.live(15_000);
      await engines.store.cluster?.takeOver([id], [a.engine.id], 'somebody');
      const commits = a.gate.commits.length;
      await engines.stop(b, id);
      await engines.live(5_000);
      expect(a.gate.commits).to.have.length(commits);
      expect(await header(id)).to.deep.include({ status: 'Running', owner: { engine: 'somebody', epoch: 2 } });
    });

    it('and whose child its former owner creates too late, has that child', async () => {
      const [late, own] = [deferred(), deferred()];
      const isChild = (args: readonly unknown[]): boolean => (args[0] as { header: HeaderRow }).header.parent !== null;
      const holding = (promise: Promise<void>): EngineRig['gate']['intervene'] => {
        return ({ method, args }) =>
          method === 'createExecution' && isChild(args) ? { holdBefore: promise } : undefined;
      };
      a.gate.intervene = holding(late.promise);
      b.gate.intervene = holding(own.promise);
      const id = await engines.run(a, PARENT);
      await engines.live(100);
      a.process.stop();
      await engines.live(14_000);
      expect(await ownerOf(id)).to.equal(b.engine.id);
      late.resolve();
      await engines.settle();
      const [child] = (await engines.store.listExecutions({ project: null, parent: id, limit: 9 })).items;
      expect(child?.owner.engine).to.equal(a.engine.id);
      own.resolve();
      await engines.live(200);
      a.errors.length = 0;
      expect(await ownerOf(child?.id ?? '')).to.equal(b.engine.id);
      expect(b.work.started.map((task) => task.executionId)).to.deep.equal([child?.id]);
      expect(a.work.started).to.deep.equal([]);
      for (const task of b.work.running) b.work.complete(task);
      await engines.live(1_000);
      expect(await header(id)).to.include({ status: 'Complete' });
    });

    it("has it within a second or two of the end of the former one's lease", async () => {
      const id = await engines.run(a, CALL);
      a.kill();
      await engines.live(7_000);
      expect(await ownerOf(id)).to.equal(a.engine.id);
      await engines.live(2_100);
      expect(await ownerOf(id)).to.equal(b.engine.id);
      expect(b.work.started.map(({ attempt }) => attempt)).to.deep.equal([2]);
    });

    it('because nobody heard that it was created, is found', async () => {
      await engines.run(a, CALL);
      const late = deferred();
      a.gate.intervene = ({ method }) => (method === 'createExecution' ? { holdBefore: late.promise } : undefined);
      void begin(a, 'call');
      await engines.live(100);
      a.process.stop();
      await engines.live(20_000);
      // Its executions have gone to the other one, which found nothing more.
      expect(b.engine.describe().executions.running).to.equal(1);
      late.resolve();
      await engines.live(12_000);
      expect(b.engine.describe().executions.running).to.equal(2);
      a.errors.length = 0;
    });
  });

  describe('concurrency', () => {
    const narrow = (onFull: string): string =>
      CALL.replace('name: call,', `name: narrow, concurrency: { max: 2, onFull: ${onFull} },`);

    it('refuses what is too much, wherever the others run', async () => {
      const ids = [await engines.run(a, narrow('refuse')), await begin(b, 'narrow')];
      expect(await begin(a, 'narrow')).to.equal('FS_RATE');
      expect(await begin(b, 'narrow')).to.equal('FS_RATE');
      b.work.complete(`${ids[1]}/a/-/1`);
      await engines.live(100);
      expect(await begin(a, 'narrow')).to.not.equal('FS_RATE');
      expect(await begin(b, 'narrow')).to.equal('FS_RATE');
    });

    it('gives a freed place to an engine that waits for it, at once', async () => {
      const ids = [await engines.run(a, narrow('queue')), await begin(a, 'narrow'), await begin(b, 'narrow')] as const;
      expect(await header(ids[2])).to.include({ status: 'Pending' });
      await engines.live(2_000);
      expect(await header(ids[2])).to.include({ status: 'Pending' });
      a.work.complete(`${ids[0]}/a/-/1`);
      await engines.settle();
      expect(await header(ids[2])).to.include({ status: 'Running' });
    });

    it('holds when the engine of some dies: they keep their places with their heir', async () => {
      const ids = [await engines.run(a, narrow('queue')), await begin(a, 'narrow'), await begin(b, 'narrow')] as const;
      a.kill();
      await engines.live(15_000);
      const statuses = await Promise.all(ids.map(async (id) => (await header(id)).status));
      expect(statuses).to.deep.equal(['Running', 'Running', 'Pending']);
      b.work.complete(`${ids[0]}/a/-/2`);
      await engines.live(1_500);
      expect(await header(ids[2])).to.include({ status: 'Running' });
    });

    it('lets nobody wait for the place of one that waits behind it, after its engine died', async () => {
      a.gate.intervene = ({ method }) =>
        method === 'commit' ? { holdBefore: new Promise(() => undefined) } : undefined;
      const first = await engines.run(a, CALL.replace('name: call,', 'name: only, concurrency: { max: 1 },'));
      const second = await begin(b, 'only');
      const gate = deferred();
      b.gate.intervene = ({ method }) => (method === 'takePlace' ? { holdBefore: gate.promise } : undefined);
      await engines.live(2_000);
      a.kill();
      await engines.live(15_000);
      b.gate.intervene = () => undefined;
      gate.resolve();
      await engines.live(2_500);
      expect(await header(first)).to.include({ status: 'Running' });
      expect(await header(second)).to.include({ status: 'Pending' });
      b.work.complete(`${first}/a/-/1`);
      await engines.live(1_500);
      expect(await header(second)).to.include({ status: 'Running' });
    });

    it('knows places of those that ended when nobody gave them back', async () => {
      const ids = [await engines.run(a, narrow('queue')), await begin(a, 'narrow'), await begin(b, 'narrow')] as const;
      a.gate.intervene = ({ method }) => (method === 'givePlaceBack' ? 'fail' : undefined);
      silence();
      a.work.complete(`${ids[0]}/a/-/1`);
      await engines.live(1_500);
      expect(await header(ids[2])).to.include({ status: 'Running' });
    });
  });

  describe('a schedule', () => {
    const MINUTELY =
      '{ name: minutely, on: { schedule: "* * * * *" }, nodes: { n: { type: set, with: { value: 1 } } } }';
    const lastOf = async (): Promise<number> => {
      const name = 'schedule:default/minutely:* * * * *:UTC:';
      for (const input of ['null', '{}']) {
        const value = (await engines.store.getSetting(`${name}${input}`)) as { atMs: number } | null;
        if (value !== null) return value.atMs;
      }
      throw new Error('no last instant is kept');
    };

    it('starts each instant once, and its last instant is never an earlier one, though a clock is late', async () => {
      await engines.run(a, MINUTELY);
      await start({ skewMs: -90_000 });
      for (const { engine } of engines.all) await engine.workflowChanged('default', 'minutely');
      let last = await lastOf();
      for (let second = 0; second < 300; second += 5) {
        await engines.live(5_000);
        const now = await lastOf();
        expect(now).to.be.at.least(last);
        last = now;
      }
      const { items } = await engines.store.listExecutions({ project: null, workflow: 'minutely', limit: 100 });
      expect(items).to.have.length(1 + 5);
    });

    it('goes on when the engine that started it last is gone, and misses none', async () => {
      await engines.run(a, MINUTELY);
      for (const { engine } of engines.all) await engine.workflowChanged('default', 'minutely');
      await engines.live(120_000);
      a.kill();
      await engines.live(180_000);
      const { items } = await engines.store.listExecutions({ project: null, workflow: 'minutely', limit: 100 });
      expect(items).to.have.length(1 + 5);
    });

    it('of a workflow that is disabled elsewhere starts nothing, though nobody heard of it', async () => {
      await engines.run(a, MINUTELY);
      for (const { engine } of engines.all) await engine.workflowChanged('default', 'minutely');
      silence();
      await engines.store.setDisabled('default', 'minutely', true);
      await engines.live(180_000);
      const { items } = await engines.store.listExecutions({ project: null, workflow: 'minutely', limit: 100 });
      expect(items).to.have.length(1);
      expect(await begin(b, 'minutely')).to.equal('FS_DISABLED');
    });
  });

  describe('a drain', () => {
    it('hands over what runs on workers, in queues and in its pool: no try is counted', async () => {
      const tried = CALL.replace('type: http,', 'type: http, retry: { attempts: 1 },');
      const id = await engines.run(a, tried);
      const drained = a.engine.drain(1_000);
      await engines.live(1_500);
      await drained;
      await engines.live(500);
      expect(await ownerOf(id)).to.equal(b.engine.id);
      expect(b.work.started.map(({ attempt }) => attempt)).to.deep.equal([2]);
      b.work.complete(`${id}/a/-/2`);
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Complete' });
    });

    it('takes no stop away: what is stopped meanwhile ends as a stop', async () => {
      const ids = [await engines.run(a, CALL), await engines.run(a, HELD)] as const;
      const drained = a.engine.drain(2_000);
      await engines.live(200);
      for (const id of ids) await engines.stop(b, id);
      await engines.live(4_000);
      await drained;
      for (const id of ids) expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
    });

    it('of every engine leaves all to the next that comes', async () => {
      const ids = [await engines.run(a, HELD), await engines.run(b, CALL)] as const;
      for (const rig of [a, b]) {
        const drained = rig.engine.drain(0);
        await engines.live(200);
        await drained;
      }
      const next = await start();
      await engines.live(2_000);
      for (const id of ids) expect(await ownerOf(id)).to.equal(next.engine.id);
    });

    it('that the store does not hear of is a death: the lease must run out', async () => {
      const id = await engines.run(a, HELD);
      a.gate.intervene = ({ method }) => (method === 'leave' ? 'fail' : undefined);
      const drained = a.engine.drain(0);
      await engines.live(200);
      await drained;
      expect(await ownerOf(id)).to.equal(a.engine.id);
      await engines.live(14_000);
      expect(await ownerOf(id)).to.equal(b.engine.id);
    });
  });

  it('one that has just come is taken for alive before any view shows it, a name that nobody has for a moment', async () => {
    const next = await start();
    const { peers } = b.engine as unknown as { peers: Peers };
    expect(peers.isAlive(next.engine.id)).to.equal(true);
    expect(peers.isAlive('nobody')).to.equal(true);
    await engines.live(7_000);
    expect(peers.isAlive(next.engine.id)).to.equal(true);
    expect(peers.isAlive('nobody')).to.equal(false);
    next.kill();
    await engines.live(12_000);
    expect(peers.isAlive(next.engine.id)).to.equal(false);
  });

  it('what is deleted at one is forgotten by the others', async () => {
    const id = await engines.run(a, CALL);
    a.work.ignoreAborts = true;
    await engines.stop(a, id);
    await engines.live(6_000);
    expect(await header(id)).to.include({ status: 'Failed' });
    expect(await engines.store.deleteExecution(id)).to.equal('deleted');
    // Its task has not confirmed: it is followed.
    expect(await a.engine.receipt(id)).to.deep.include({ unconfirmed: 1 });
    b.engine.forget(id);
    await engines.settle();
    expect(await a.engine.receipt(id)).to.equal(null);
    a.work.answer(`${id}/a/-/1`, { kind: 'aborted', outcome: 'forced' });
    await engines.live(2_000);
    expect(await a.engine.receipt(id)).to.equal(null);
  });

  it('an idle one asks the store for little, whatever it holds parked', async () => {
    for (let n = 0; n < 30; n += 1) await engines.run(a, HELD);
    await engines.live(30_000);
    expect(a.engine.describe().executions).to.deep.equal({ running: 0, pending: 0, parked: 30 });
    const asked: string[] = [];
    a.gate.intervene = ({ method }) => {
      asked.push(method);
      return undefined;
    };
    await engines.live(60_000);
    expect(asked.length / 60).to.be.at.most(2);
    expect(new Set(asked)).to.deep.equal(new Set(['beat', 'waiting', 'deleteEndedBefore']));
  });
});
