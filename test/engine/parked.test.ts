import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { createSqliteStore } from '../../src/adapters/sqlite/store.ts';
import { Admission } from '../../src/engine/admission.ts';
import type { ExecutionHost } from '../../src/engine/execution-host.ts';
import { closeRigs, FakeLink, openRig, type Rig, type RigOptions } from '../support/engine.ts';
import { Engines } from '../support/engine-rigs.ts';

const holds = (keys = ''): string =>
  `{ name: holds, ${keys} nodes: { a: { type: hold, trigger: go }, b: { type: hold, trigger: on } } }`;

describe('an execution that left memory', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  /** Until the sweep after the next has parked what waits. */
  const park = (): Promise<void> => rig.advance(2_500);
  const parkedOnes = (): number => rig.engine.metrics().live.parked;

  it('gives its place of its workflow back when it ends', async () => {
    await rig.save(holds('concurrency: { max: 1, onFull: refuse },'));
    for (const end of ['stop', 'triggers']) {
      const id = await rig.start('holds');
      await park();
      expect(parkedOnes()).to.equal(1);
      if (end === 'stop') await rig.stop(id);
      else for (const name of ['go', 'on']) await rig.engine.trigger(id, name, null);
      await rig.settle();
      expect((await rig.record(id)).status).to.equal(end === 'stop' ? 'Failed' : 'Complete');
    }
    await rig.start('holds');
  });

  it('takes a trigger that is stored while it is on its way back', async () => {
    const id = await rig.run(holds());
    await park();
    let goOn = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    rig.gate.intervene = ({ method }) => (method === 'load' ? { holdAfter: held } : undefined);
    await rig.engine.trigger(id, 'go', 1);
    await rig.engine.trigger(id, 'on', 2);
    rig.gate.intervene = () => undefined;
    goOn();
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Complete' });
    expect((await rig.told(id)).filter((line) => line.startsWith('node.triggered'))).to.have.length(2);
  });

  it('leaves it again after a restart', async () => {
    const id = await rig.run(holds());
    await park();
    rig = await rig.crash();
    await park();
    let loads = 0;
    rig.gate.intervene = ({ method }) => {
      if (method === 'load') loads += 1;
      return undefined;
    };
    await rig.engine.trigger(id, 'go', 1);
    await rig.settle();
    expect(loads).to.equal(1);
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Held' });
  });

  it('takes a trigger once that came with the record and by a message', async () => {
    const id = await rig.run(
      '{ name: twice, nodes: { a: { type: hold, trigger: go }, b: { type: hold, needs: [a], trigger: go } } }',
    );
    await park();
    await rig.engine.trigger(id, 'go', 1);
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Held' });
  });
});

describe('a child that left memory', () => {
  afterEach(closeRigs);

  const child =
    '{ name: inner, nodes: { wait: { type: delay, with: { duration: 15s } }, deep: { type: hold, needs: [wait], trigger: go } } }';
  const parent =
    '{ name: outer, nodes: { sub: { type: workflow, timeout: 60s, with: { workflow: inner } }, other: { type: hold, trigger: go } } }';
  const unread: RigOptions['intervene'] = ({ method }) => (method === 'listChildren' ? 'fail' : undefined);

  for (const kind of ['memory', 'SQLite']) {
    it(`ends with its parent's node, though that never found it after a restart (${kind})`, async () => {
      const directory = mkdtempSync(join(tmpdir(), 'fullstop-parked-'));
      const store = kind === 'memory' ? createMemoryStore() : createSqliteStore({ directory });
      await store.open();
      let rig = await openRig({ inner: store as MemoryStore });
      /** What the engine wrote before this is answered before it. */
      const pass = async (ms: number): Promise<void> => {
        for (let left = ms; left > 0; left -= 500) {
          await rig.advance(500);
          for (let turn = 0; turn < 3; turn += 1) {
            await store.putSetting('turn', left);
            await rig.settle();
          }
        }
      };
      try {
        await rig.save(child);
        const id = await rig.run(parent);
        await pass(500);
        const [inner = ''] = await rig.children(id);
        rig = await rig.crash(0, { intervene: unread });
        await pass(58_500);
        expect(rig.engine.metrics().live).to.include({ running: 1, parked: 1 });
        expect(await rig.node(inner, 'deep')).to.include({ status: 'Held' });
        await pass(3_000);
        expect(await rig.node(id, 'sub')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
        expect(await rig.record(inner)).to.deep.include({
          status: 'Failed',
          errorCode: 'FS_PARENT_ENDED',
          stop: null,
        });
        expect((await rig.engine.previewStop(id))?.children).to.deep.equal([]);
      } finally {
        await rig.close();
        await store.close();
        rmSync(directory, { recursive: true });
      }
    });
  }

  it('ends so at the engine that took both over', async () => {
    const engines = new Engines();
    const first = await engines.start();
    const second = await engines.start();
    await engines.run(first, child);
    const id = await engines.run(first, parent);
    const [inner] = (await engines.store.listExecutions({ project: null, parent: id, limit: 9 })).items;
    await engines.live(4_000);
    const { intervene } = second.gate;
    second.gate.intervene = (call) => (call.method === 'listChildren' ? 'fail' : intervene(call));
    first.kill();
    await engines.live(58_000);
    expect((await engines.node(id, 'sub')).errorCode).to.equal('FS_TIMEOUT');
    const stored = await engines.store.getHeader(inner?.id ?? '');
    expect(stored?.owner.engine).to.equal(second.engine.id);
    expect(stored).to.include({ status: 'Failed', errorCode: 'FS_PARENT_ENDED' });
    await engines.close();
  });
});

describe('a stop that nobody has acted on yet', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  it('has a receipt that says so', async () => {
    const id = await rig.run('{ name: n, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const intent = { requestId: '01990000-0000-7000-8000-0000000000ff', requestedAtMs: rig.clock.nowMs() };
    expect(await rig.engine.receipt(id)).to.equal(null);
    await rig.store.requestStop(id, intent);
    expect(await rig.engine.receipt(id)).to.include({ requestId: intent.requestId, delivery: null, haltedMs: null });
    await rig.advance(1_500);
    expect((await rig.receipt(id)).delivery?.path).to.equal('poll');
  });

  it('lists the task of an attempt that timed out and has not confirmed its end', async () => {
    const id = await rig.run(
      '{ name: n, nodes: { a: { type: http, timeout: 1s, retry: { attempts: 3, backoff: 1h }, with: { url: "http://a/" } } } }',
    );
    rig.work.ignoreAborts = true;
    await rig.advance(1_100);
    await rig.stop(id);
    expect((await rig.record(id)).status).to.equal('Failed');
    expect(await rig.engine.receipt(id)).to.deep.include({ unconfirmed: 1 });
    rig.work.answer(`${id}/a/-/1`, { kind: 'aborted', outcome: 'forced' });
    await rig.settle();
    const receipt = await rig.engine.receipt(id);
    expect(receipt?.unconfirmed).to.equal(0);
    expect(receipt?.tasks).to.have.length(1);
    expect(receipt?.tasks[0]).to.include({ node: 'a', attempt: 1, outcome: 'forced' });
  });

  it('is forgotten with its record, however long a worker keeps silent', async () => {
    await rig.close();
    rig = await openRig({ slots: 0, retentionMs: 60_000 });
    const worker = new FakeLink({ id: 'gone' });
    await worker.connect(rig);
    const id = await rig.run('{ name: n, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    await rig.stop(id);
    await rig.advance(40_000);
    expect(rig.engine.workers.workers().map((one) => one.id)).to.include('gone');
    await rig.advance(120_000);
    expect(rig.engine.workers.workers().map((one) => one.id)).not.to.include('gone');
    expect(await rig.engine.receipt(id)).to.equal(null);
  });

  it('calls a task aborted that its worker aborted before the engine was free to ask', async () => {
    await rig.close();
    rig = await openRig({ slots: 0 });
    const worker = new FakeLink();
    await worker.connect(rig);
    const id = await rig.run(
      '{ name: n, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: hold, trigger: go } } }',
    );
    let goOn = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    rig.gate.intervene = ({ method }) => (method === 'commit' ? { holdAfter: held } : undefined);
    await rig.engine.trigger(id, 'go', null);
    await rig.settle();
    const stopping = rig.engine.requestStop(id);
    await rig.settle();
    void worker.report(`${id}/a/-/1`, { kind: 'aborted', outcome: 'aborted' });
    await rig.settle();
    rig.gate.intervene = () => undefined;
    goOn();
    await stopping;
    await rig.settle();
    const { tasks } = await rig.receipt(id);
    expect(tasks.map(({ node, outcome }) => ({ node, outcome }))).to.deep.equal([{ node: 'a', outcome: 'aborted' }]);
  });
});

describe('what waits for its start', () => {
  afterEach(closeRigs);

  it('leaves memory when it is stopped, also while the place is taken', async () => {
    const rig = await openRig();
    await rig.save(holds('concurrency: { max: 1 },'));
    const first = await rig.start('holds');
    const stopped = [await rig.start('holds'), await rig.start('holds')];
    for (const id of stopped) await rig.stop(id);
    expect(rig.engine.metrics().live.pending).to.equal(0);
    const last = await rig.start('holds');
    await rig.stop(first);
    expect((await rig.record(last)).status).to.equal('Running');
  });

  it('is forgotten by the admission', () => {
    const admission = new Admission(10, () => true);
    const hosts = [1, 2, 3].map(
      () =>
        ({
          header: {
            project: 'p',
            workflow: { name: 'w' },
            status: 'Pending',
            stop: null,
            parent: null,
            startedAtMs: null,
          },
          workflow: { concurrency: { max: 1 } },
          over: false,
          busy: 0,
          counted: false,
          hasPlace: false,
          enter: () => undefined,
        }) as unknown as ExecutionHost,
    );
    for (const host of hosts) admission.enqueue(host);
    expect(admission.waiting).to.equal(2);
    expect(admission.loadOfWorkflow('p', 'w')).to.equal(3);
    const [, second] = hosts as [ExecutionHost, ExecutionHost, ExecutionHost];
    second.over = true;
    admission.release(second);
    expect(admission.waiting).to.equal(1);
    expect(admission.loadOfWorkflow('p', 'w')).to.equal(2);
  });
});

describe('a late report', () => {
  afterEach(closeRigs);

  it('from a worker of another project changes no receipt and no count', async () => {
    const rig = await openRig({ slots: 0, stopGraceMs: 60_000 });
    const worker = new FakeLink();
    await worker.connect(rig);
    const id = await rig.run('{ name: n, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    await rig.stop(id);
    const stranger = new FakeLink({ id: 'stranger', project: 'other' });
    await stranger.connect(rig);
    const before = rig.engine.metrics().lateResultsDiscarded;
    await stranger.report(`${id}/x/-/1`, { kind: 'completed', output: 1 }, 'forged');
    await rig.settle();
    expect(rig.engine.metrics().lateResultsDiscarded).to.equal(before);
    expect((await rig.engine.receipt(id))?.lateResultsDiscarded).to.equal(0);
  });
});
