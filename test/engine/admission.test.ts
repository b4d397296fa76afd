import { expect } from 'chai';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

const call = (keys = ''): string => `{ name: call, ${keys} nodes: { a: { type: http, with: { url: "http://a/" } } } }`;

describe('admission', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig({ maxRunning: 2 });
  });
  afterEach(closeRigs);

  const statuses = (ids: string[]): Promise<string[]> =>
    Promise.all(ids.map(async (id) => (await rig.record(id)).status));
  const end = async (id: string): Promise<void> => {
    rig.work.complete(`${id}/a/-/1`);
    await rig.settle();
  };
  const codeOf = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => 'started',
      (error: { code: string }) => error.code,
    );

  it('lets so many run at once, oldest first', async () => {
    await rig.save(call());
    const ids = [await rig.start('call'), await rig.start('call'), await rig.start('call'), await rig.start('call')];
    expect(await statuses(ids)).to.deep.equal(['Running', 'Running', 'Pending', 'Pending']);
    await end(ids[1] ?? '');
    expect(await statuses(ids)).to.deep.equal(['Running', 'Complete', 'Running', 'Pending']);
    await rig.stop(ids[0] ?? '');
    expect(await statuses(ids)).to.deep.equal(['Failed', 'Complete', 'Running', 'Running']);
  });

  it('does not count what is held or delayed, nor children', async () => {
    await rig.save('{ name: held, nodes: { a: { type: hold, trigger: go } } }');
    await rig.save('{ name: late, nodes: { a: { type: delay, with: { duration: 1h } } } }');
    await rig.save(call());
    await rig.save(
      '{ name: family, nodes: { a: { type: foreach, items: "${{ [1, 2, 3, 4] }}", body: { b: { type: http, with: { url: "http://b/" } } } } } }',
    );
    for (let count = 0; count < 3; count += 1) {
      await rig.start('held');
      await rig.start('late');
    }
    const family = await rig.start('family');
    expect(await statuses(await rig.children(family))).to.deep.equal(['Running', 'Running', 'Running', 'Running']);
    const ids = [await rig.start('call'), await rig.start('call')];
    expect(await statuses(ids)).to.deep.equal(['Running', 'Pending']);
    expect(rig.engine.metrics().live).to.include({ pending: 1, parked: 6 });
  });

  it('lets the next in when one parks', async () => {
    await rig.save(
      '{ name: parks, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: hold, needs: [a], trigger: go } } }',
    );
    const ids = [await rig.start('parks'), await rig.start('parks'), await rig.start('parks')];
    expect(await statuses(ids)).to.deep.equal(['Running', 'Running', 'Pending']);
    await end(ids[0] ?? '');
    expect(await statuses(ids)).to.deep.equal(['Running', 'Running', 'Running']);
  });

  it('queues what a workflow lets run one at a time', async () => {
    await rig.save(call('concurrency: { max: 1 },'));
    const ids = [await rig.start('call'), await rig.start('call'), await rig.start('call')];
    expect(await statuses(ids)).to.deep.equal(['Running', 'Pending', 'Pending']);
    await rig.save(call('description: more, ').replace('name: call', 'name: other'));
    const other = await rig.start('other');
    expect(await statuses([other])).to.deep.equal(['Running']);
    for (const [index, id] of ids.entries()) {
      await end(id);
      expect(await statuses(ids)).to.deep.equal(
        ids.map((_, at) => (at <= index ? 'Complete' : at === index + 1 ? 'Running' : 'Pending')),
      );
    }
  });

  it('keeps the order of the queue when one in its middle is stopped', async () => {
    await rig.save(call('concurrency: { max: 1 },'));
    const ids: string[] = [];
    for (let count = 0; count < 5; count += 1) ids.push(await rig.start('call'));
    await rig.stop(ids[2] ?? '');
    for (const id of [ids[0], ids[1], ids[3]]) await end(id ?? '');
    expect(await statuses(ids)).to.deep.equal(['Complete', 'Complete', 'Failed', 'Complete', 'Running']);
  });

  it('refuses where the workflow says so', async () => {
    await rig.save(call('concurrency: { max: 1, onFull: refuse },'));
    const first = await rig.start('call');
    expect(await codeOf(rig.start('call'))).to.equal('FS_RATE');
    await end(first);
    expect(await codeOf(rig.start('call'))).to.equal('started');
  });

  it('refuses the second of two that come at once', async () => {
    await rig.save(call('concurrency: { max: 1, onFull: refuse },'));
    const codes = await Promise.all([codeOf(rig.start('call')), codeOf(rig.start('call'))]);
    expect(codes.sort()).to.deep.equal(['FS_RATE', 'started']);
  });

  it('counts no child against its workflow', async () => {
    await rig.save(call('concurrency: { max: 1 },'));
    await rig.start('call');
    const id = await rig.run(
      '{ name: parent, nodes: { a: { type: workflow, with: { workflow: call } }, b: { type: workflow, with: { workflow: call } } } }',
    );
    expect(await statuses(await rig.children(id))).to.deep.equal(['Running', 'Running']);
  });

  it('pauses and resumes, and keeps that over a restart; what runs goes on', async () => {
    await rig.save(call());
    const running = await rig.start('call');
    await rig.engine.setAdmission(true);
    const waiting = await rig.start('call');
    expect(await statuses([running, waiting])).to.deep.equal(['Running', 'Pending']);
    await end(running);
    expect(await statuses([running, waiting])).to.deep.equal(['Complete', 'Pending']);
    rig = await rig.crash();
    await rig.settle();
    expect(rig.engine.admissionPaused()).to.equal(true);
    expect(await statuses([waiting])).to.deep.equal(['Pending']);
    await rig.engine.setAdmission(false);
    await rig.settle();
    expect(await statuses([waiting])).to.deep.equal(['Running']);
  });

  it('starts nothing of a disabled or unknown workflow, or with an input that does not fit', async () => {
    await rig.save(call('inputs: { n: { type: number, required: true } },'));
    expect(await codeOf(rig.start('call'))).to.equal('FS_INVALID');
    expect(await codeOf(rig.start('call', { n: 'x' }))).to.equal('FS_INVALID');
    expect(await codeOf(rig.start('call', { n: 1, m: 2 }))).to.equal('FS_INVALID');
    expect(await codeOf(rig.start('gone'))).to.equal('FS_NOT_FOUND');
    await rig.store.setDisabled('default', 'call', true);
    await rig.engine.workflowChanged('default', 'call');
    expect(await codeOf(rig.start('call', { n: 1 }))).to.equal('FS_DISABLED');
  });

  it('answers the first execution to the same key and body, and a conflict to another body', async () => {
    await rig.save(call('inputs: { n: { type: number, default: 1 } },'));
    const first = await rig.start('call', { n: 1 }, { idempotencyKey: 'k' });
    expect(await rig.start('call', { n: 1 }, { idempotencyKey: 'k' })).to.equal(first);
    expect(await codeOf(rig.start('call', { n: 2 }, { idempotencyKey: 'k' }))).to.equal('FS_CONFLICT');
    await end(first);
    expect(await rig.start('call', { n: 1 }, { idempotencyKey: 'k' })).to.equal(first);
    expect(rig.work.started).to.have.length(1);
  });

  it('answers a repeat with the first also when the workflow is full or disabled', async () => {
    await rig.save(call('concurrency: { max: 1, onFull: refuse },'));
    const first = await rig.start('call', {}, { idempotencyKey: 'k' });
    expect(await codeOf(rig.start('call'))).to.equal('FS_RATE');
    expect(await rig.start('call', {}, { idempotencyKey: 'k' })).to.equal(first);
    await rig.store.setDisabled('default', 'call', true);
    await rig.engine.workflowChanged('default', 'call');
    expect(await codeOf(rig.start('call'))).to.equal('FS_DISABLED');
    expect(await rig.start('call', {}, { idempotencyKey: 'k' })).to.equal(first);
  });

  it('runs an execution whose creation was stored and whose answer was lost', async () => {
    await rig.save(call());
    let losses = 1;
    rig.gate.intervene = ({ method }) => (method === 'createExecution' && losses-- > 0 ? 'lose' : undefined);
    expect(await codeOf(rig.start('call', {}, { idempotencyKey: 'k' }))).to.equal('FS_UNAVAILABLE');
    const id = await rig.start('call', {}, { idempotencyKey: 'k' });
    await rig.advance(2_000);
    expect(await statuses([id])).to.deep.equal(['Running']);
    expect(rig.work.started).to.have.length(1);
  });

  it('starts nothing while it drains', async () => {
    await rig.save(call());
    const drained = rig.engine.drain(0);
    await rig.advance(100);
    await drained;
    expect(await codeOf(rig.start('call'))).to.equal('FS_UNAVAILABLE');
  });
});
