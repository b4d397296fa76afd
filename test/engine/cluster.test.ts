import { expect } from 'chai';
import type { EngineOptions } from '../../src/engine/engine.ts';
import { type EngineRig, Engines } from '../support/engine-rigs.ts';

const MARKER = 'workflow stopped by user';
const HELD =
  '{ name: held, nodes: { first: { type: set, with: { value: 1 } }, wait: { type: hold, needs: [first], trigger: go } } }';
const CALL =
  '{ name: call, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: set, needs: [a], with: { value: 2 } } } }';

describe('several engines on one store', () => {
  let engines: Engines;
  const gone: string[] = [];

  beforeEach(() => {
    engines = new Engines();
    gone.length = 0;
  });
  afterEach(() => engines.close());

  const start = (options: Partial<EngineOptions> & { slots?: number } = {}): Promise<EngineRig> =>
    engines.start({ knows: 'heartbeats', onGone: (why) => gone.push(why), slots: 10, ...options });
  const trio = async (): Promise<[EngineRig, EngineRig, EngineRig]> => {
    const all: [EngineRig, EngineRig, EngineRig] = [await start(), await start(), await start()];
    // Each has heard of the others.
    await engines.live(4_000);
    return all;
  };
  const header = async (id: string) => {
    const found = await engines.store.getHeader(id);
    if (found === null) throw new Error(`no execution ${id}`);
    return found;
  };
  const silence = (): void => {
    engines.hub.fateOf = () => 'lost';
  };
  const deferred = () => Promise.withResolvers<void>();

  describe('a stop asked of another engine', () => {
    it('is acted on by the owner at once', async () => {
      const [a, b] = await trio();
      const id = await engines.run(a, CALL);
      await engines.stop(b, id);
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await engines.receipt(id)).delivery?.path).to.equal('bus');
      expect(a.work.aborted).to.have.length(1);
    });

    it('is found within a second or so when no engine hears it', async () => {
      const [a, b] = await trio();
      const id = await engines.run(a, CALL);
      silence();
      await engines.stop(b, id);
      await engines.live(1_500);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await engines.receipt(id)).delivery?.path).to.equal('poll');
    });
  });

  describe('an engine that is killed', () => {
    it('loses its executions to the others, which share them and run them on', async () => {
      const [a, b, c] = await trio();
      const ids: string[] = [];
      for (let index = 0; index < 40; index += 1) ids.push(await engines.run(a, HELD));
      const own: string[] = [];
      for (const id of ids) if ((await header(id)).owner.engine === a.engine.id) own.push(id);
      expect(own.length).to.be.greaterThan(10);
      a.kill();
      await engines.live(14_000);
      const heirs = new Map<string, number>();
      for (const id of own) {
        const { owner } = await header(id);
        heirs.set(owner.engine, (heirs.get(owner.engine) ?? 0) + 1);
        expect(owner.epoch).to.equal(2);
      }
      expect([...heirs.keys()]).to.have.members([b.engine.id, c.engine.id]);
      for (const share of heirs.values()) expect(share).to.be.greaterThan(own.length / 5);
      const [first = ''] = own;
      await b.engine.trigger(first, 'go', 7);
      await engines.live(2_000);
      expect(await header(first)).to.include({ status: 'Complete' });
    });

    it('while a stop was asked for: the intent is read before anything runs, and the end is there within 15 s', async () => {
      const [a, b, c] = await trio();
      const id = await engines.run(a, CALL);
      a.kill();
      await engines.stop(b, id);
      await engines.live(15_000);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await engines.receipt(id)).delivery?.path).to.equal('takeover');
      expect([...b.work.started, ...c.work.started]).to.deep.equal([]);
      expect((await engines.told(id)).filter((told) => told.startsWith('node.started'))).to.have.length(1);
    });

    it('has its lost attempts run again, as the next ones', async () => {
      const [a, b, c] = await trio();
      const id = await engines.run(a, CALL);
      expect(a.work.started).to.have.length(1);
      a.kill();
      await engines.live(14_000);
      const [task] = [...b.work.started, ...c.work.started];
      expect(task).to.include({ executionId: id, attempt: 2 });
      const heir = b.work.started.length > 0 ? b : c;
      heir.work.answer(task?.id ?? '', { kind: 'completed', output: 1 });
      await engines.live(100);
      expect(await header(id)).to.include({ status: 'Complete' });
    });

    it('leaves parents and children to one owner', async () => {
      const [a, b, c] = await trio();
      const ids: string[] = [];
      for (let index = 0; index < 6; index += 1) {
        ids.push(
          await engines.run(
            a,
            '{ name: list, nodes: { each: { type: foreach, items: "${{ [1, 2, 3] }}", body: { wait: { type: hold, trigger: go } } } } }',
          ),
        );
      }
      await engines.live(1_000);
      a.kill();
      await engines.live(14_000);
      for (const id of ids) {
        const { owner } = await header(id);
        expect([b.engine.id, c.engine.id]).to.include(owner.engine);
        const { items } = await engines.store.listExecutions({ project: null, parent: id, limit: 10 });
        expect(items).to.have.length(3);
        for (const child of items) expect(child.owner.engine).to.equal(owner.engine);
        await engines.stop(b, id);
      }
      await engines.live(2_000);
      for (const id of ids) {
        const { items } = await engines.store.listExecutions({ project: null, parent: id, limit: 10 });
        for (const child of items) expect(child).to.include({ status: 'Failed', error: MARKER });
      }
    });
  });

  describe('an engine that could not renew its lease', () => {
    it('gives up before the others may take over, and writes nothing more', async () => {
      const [a, b] = await trio();
      const id = await engines.run(a, CALL);
      let cut = true;
      a.gate.intervene = () => (cut ? 'fail' : undefined);
      await engines.live(7_000);
      expect(gone).to.deep.equal(['fenced']);
      expect(a.work.aborted).to.have.length(1);
      expect((await header(id)).owner.engine).to.equal(a.engine.id);
      a.errors.length = 0;
      cut = false;
      const before = a.gate.commits.length;
      await engines.live(14_000);
      expect(a.gate.commits).to.have.length(before);
      expect((await header(id)).owner).to.not.deep.equal({ engine: a.engine.id, epoch: 1 });
      expect(b.engine.engines().map((one) => one.id)).to.not.include(a.engine.id);
    });

    it('and was declared dead learns it from its first heartbeat', async () => {
      const [a, b] = await trio();
      const id = await engines.run(a, HELD);
      engines.store.cluster?.silence(a.engine.id, 20_000);
      expect(await engines.store.cluster?.declareDead(a.engine.id)).to.equal(true);
      await engines.live(6_000);
      expect(gone).to.deep.equal(['fenced']);
      a.errors.length = 0;
      await engines.live(8_000);
      expect((await header(id)).owner.engine).to.not.equal(a.engine.id);
      await engines.stop(b, id);
      await engines.live(2_000);
      expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
    });
  });

  describe('an engine that is drained', () => {
    it('hands over without waiting for its lease, and loses nothing', async () => {
      const [a, b, c] = await trio();
      const held = await engines.run(a, HELD);
      const called = await engines.run(a, CALL);
      const draining = a.engine.drain(2_000);
      await engines.live(200);
      a.work.answer(`${called}/a/-/1`, { kind: 'completed', output: 5 });
      await engines.live(3_000);
      await draining;
      for (const id of [held, called]) expect([b.engine.id, c.engine.id]).to.include((await header(id)).owner.engine);
      expect(await header(called)).to.include({ status: 'Complete' });
      expect((await engines.node(called, 'a')).attempt).to.equal(1);
      await c.engine.trigger(held, 'go', null);
      await engines.live(2_000);
      expect(await header(held)).to.include({ status: 'Complete' });
    });

    it('by request of another is asked once, over the bus or by its heartbeat', async () => {
      const [a, b] = await trio();
      silence();
      expect(await b.engine.requestDrain(a.engine.id)).to.equal(true);
      await engines.live(2_500);
      expect(gone).to.include('drain');
      expect(await b.engine.requestDrain('nobody')).to.equal(false);
    });

    it('takes no start', async () => {
      const [a, b, c] = await trio();
      await engines.run(b, HELD);
      const draining = a.engine.drain(0);
      await engines.live(100);
      await draining;
      const refused = await engines.run(a, HELD).catch((error: { code: string }) => error.code);
      expect(refused).to.equal('FS_UNAVAILABLE');
      expect(c.engine.engines()).to.have.length(2);
    });
  });

  describe('a start', () => {
    it('at an engine with much more to do than the others is given to one of them', async () => {
      const [a, b, c] = await trio();
      const ids: string[] = [];
      for (let index = 0; index < 80; index += 1) ids.push(await engines.run(a, CALL));
      await engines.live(2_000);
      const owners = await Promise.all(ids.map(async (id) => (await header(id)).owner.engine));
      expect(new Set(owners)).to.deep.equal(new Set([a.engine.id, b.engine.id, c.engine.id]));
      expect(b.work.started.length + c.work.started.length).to.equal(20);
      expect(a.work.started.length + b.work.started.length + c.work.started.length).to.equal(30);
    });

    it('stays where it was asked for when all engines get as many, between two heartbeats', async () => {
      const all = await trio();
      for (let index = 0; index < 100; index += 1) {
        for (const rig of all) await engines.run(rig, CALL);
        await engines.live(15);
      }
      for (const rig of all) expect(rig.calls.get('acceptOffer')).to.equal(undefined);
      const told = engines.hub.hints.filter(({ hint }) => hint.kind === 'engine.load');
      // Ten a second of each at most.
      expect(told.length)
        .to.be.greaterThan(10)
        .and.lessThan(3 * 16);
    });

    it('stays where it was asked for when as many come and go everywhere, by turns', async () => {
      const all: EngineRig[] = [];
      for (let index = 0; index < 3; index += 1) all.push(await start({ slots: 100 }));
      await engines.live(4_000);
      // Grows, so that nobody hears first of one engine that has much to do.
      for (const count of [16, 24, 32, 40, 48, 48, 48]) {
        for (const rig of all) {
          const ids: string[] = [];
          for (let index = 0; index < count; index += 1) ids.push(await engines.run(rig, CALL));
          await engines.live(120);
          for (const id of ids) rig.work.answer(`${id}/a/-/1`, { kind: 'completed', output: 1 });
          await engines.live(120);
        }
      }
      for (const rig of all) expect(rig.calls.get('acceptOffer')).to.equal(undefined);
    });

    it('stays where it was asked for when another engine had as many lately, and its last word is old', async () => {
      // Its heartbeats come just before those of the other.
      const [b, a] = [await start(), await start()];
      await engines.live(4_000);
      silence();
      for (let index = 0; index < 100; index += 1) await engines.run(b, CALL);
      await engines.live(3_900);
      expect(b.calls.get('acceptOffer')).to.equal(undefined);
      for (let index = 0; index < 230; index += 1) await engines.run(a, CALL);
      await engines.live(3_000);
      expect(b.calls.get('acceptOffer')).to.equal(undefined);
    });

    it('that is given to another is taken by one call of the store', async () => {
      const [a, b, c] = await trio();
      const answer = deferred();
      const asked: unknown[] = [];
      for (const rig of [b, c]) {
        rig.gate.intervene = ({ method, args }) => {
          if (method !== 'acceptOffer') return undefined;
          asked.push(args[0]);
          return { holdAfter: answer.promise };
        };
      }
      for (let index = 0; index < 60; index += 1) await engines.run(a, CALL);
      // Two sweeps.
      await engines.live(2_500);
      answer.resolve();
      await engines.live(1_000);
      expect(asked.length).to.be.greaterThan(5);
      expect(new Set(asked).size).to.equal(asked.length);
    });

    it('that was given to one that never heard of it and cannot take it comes back', async () => {
      const [a, b, c] = await trio();
      const ids: string[] = [];
      for (const rig of [b, c]) {
        rig.gate.intervene = ({ method }) => (method === 'acceptOffer' ? 'fail' : undefined);
      }
      for (let index = 0; index < 60; index += 1) ids.push(await engines.run(a, HELD.replace('held', 'held')));
      const calls: string[] = [];
      for (let index = 0; index < 60; index += 1) calls.push(await engines.run(a, CALL));
      await engines.live(12_000);
      for (const id of calls) expect((await header(id)).owner.engine).to.equal(a.engine.id);
      expect(a.work.started).to.have.length(10);
    });

    it('of a definition that was saved again at another engine runs the new version', async () => {
      const [a, b] = await trio();
      const version = (value: number): string =>
        `{ name: same, nodes: { n: { type: set, with: { value: ${value} } } } }`;
      await engines.run(a, version(1));
      await engines.run(b, version(2));
      await b.engine.workflowChanged('default', 'same');
      await engines.settle();
      const started = a.engine.startExecution({
        project: 'default',
        workflow: 'same',
        input: {},
        labels: {},
        idempotencyKey: null,
      });
      await engines.live(100);
      const { header: created } = await started;
      expect(created.workflow.version).to.equal(2);
      expect(await engines.store.readResult(`${created.id}/n/-/1`)).to.equal(2);
    });

    it('does so within a heartbeat when nobody heard of it', async () => {
      const [a, b] = await trio();
      silence();
      const version = (value: number): string =>
        `{ name: same, nodes: { n: { type: set, with: { value: ${value} } } } }`;
      await engines.run(a, version(1));
      await engines.run(b, version(2));
      await engines.live(2_500);
      const started = a.engine.startExecution({
        project: 'default',
        workflow: 'same',
        input: {},
        labels: {},
        idempotencyKey: null,
      });
      await engines.live(100);
      expect((await started).header.workflow.version).to.equal(2);
    });
  });

  it('start an instant of a schedule once', async () => {
    const [a] = await trio();
    await engines.run(
      a,
      '{ name: nightly, on: { schedule: "0 * * * *" }, nodes: { n: { type: set, with: { value: 1 } } } }',
    );
    await a.engine.workflowChanged('default', 'nightly');
    await engines.live(2 * 3_600_000 + 5_000);
    const { items } = await engines.store.listExecutions({ project: 'default', workflow: 'nightly', limit: 10 });
    expect(items).to.have.length(3);
  }).timeout(30_000);

  it('run no more executions of a workflow at once than its concurrency allows', async () => {
    const [a, b, c] = await trio();
    const one = CALL.replace('name: call,', 'name: narrow, concurrency: { max: 2 },');
    const ids: string[] = [];
    for (const rig of [a, b, c, a, b, c]) ids.push(await engines.run(rig, one));
    await engines.live(1_500);
    const running = async (): Promise<string[]> => {
      const headers = await Promise.all(ids.map(header));
      return headers.filter(({ status }) => status === 'Running').map(({ id }) => id);
    };
    const ended = new Set<string>();
    for (let round = 0; round < 20 && ended.size < 6; round += 1) {
      const now = await running();
      expect(now.length).to.be.at.most(2);
      for (const id of now) {
        const owner = (await header(id)).owner.engine;
        const rig = [a, b, c].find(({ engine }) => engine.id === owner);
        rig?.work.answer(`${id}/a/-/1`, { kind: 'completed', output: 1 });
        ended.add(id);
      }
      await engines.live(1_500);
    }
    expect(ended.size).to.equal(6);
    for (const id of ids) expect(await header(id)).to.include({ status: 'Complete' });
  });

  it('pause and resume together', async () => {
    const [a, b] = await trio();
    await b.engine.setAdmission(true);
    await engines.live(100);
    const id = await engines.run(a, CALL);
    expect(await header(id)).to.include({ status: 'Pending' });
    silence();
    await b.engine.setAdmission(false);
    await engines.live(2_500);
    expect(await header(id)).to.include({ status: 'Running' });
  });

  it('hear of a trigger within a second or so when the bus is silent', async () => {
    const [a, b] = await trio();
    const id = await engines.run(a, HELD);
    silence();
    await b.engine.trigger(id, 'go', 3);
    await engines.live(1_500);
    expect(await header(id)).to.include({ status: 'Complete' });
    expect(await engines.store.readResult(`${id}/wait/-/1`)).to.equal(3);
  });

  it('wake what waits as a whole, and stop it from anywhere', async () => {
    const [a, b] = await trio();
    const id = await engines.run(a, HELD);
    await engines.live(20_000);
    expect(a.engine.describe().executions.parked).to.equal(1);
    await engines.stop(b, id);
    await engines.live(500);
    expect(await header(id)).to.include({ status: 'Failed', error: MARKER });
    expect((await engines.node(id, 'wait')).status).to.equal('Held');
  });
});
