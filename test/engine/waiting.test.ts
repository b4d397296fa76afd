import { expect } from 'chai';
import type { Json } from '../../src/wire.ts';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

const DAY = 86_400_000;

async function send(
  rig: Rig,
  id: string,
  name: string,
  payload: Json = null,
): Promise<{ duplicate: boolean } | string> {
  const sent = rig.engine.trigger(id, name, payload);
  const told = sent.catch((error: { code: string }) => error.code);
  await rig.settle();
  return told;
}

describe('a hold', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  it('is released by its trigger, with the payload', async () => {
    const id = await rig.run('{ name: h, nodes: { a: { type: hold, trigger: go } } }');
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Held' });
    expect((await rig.record(id)).status).to.equal('Running');
    expect(await send(rig, id, 'go', { by: 'me' })).to.deep.equal({ duplicate: false });
    expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { a: { by: 'me' } } });
    expect(await rig.told(id)).to.include.members(['node.held a', 'node.triggered a', 'node.completed a']);
  });

  it('is released with every other that is Held under the name now, and no later one', async () => {
    const id = await rig.run(
      '{ name: h, nodes: { a: { type: hold, trigger: go }, b: { type: hold, trigger: go }, other: { type: hold, trigger: other }, c: { type: hold, needs: [a], trigger: go } } }',
    );
    await send(rig, id, 'go', 1);
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Complete', other: 'Held', c: 'Held' });
  });

  it('takes a trigger that came before it, once', async () => {
    const id = await rig.run(
      '{ name: h, nodes: { w: { type: http, with: { url: "http://w/" } }, a: { type: hold, needs: [w], trigger: go }, b: { type: hold, needs: [a], trigger: go } } }',
    );
    expect(await send(rig, id, 'go', 1)).to.deep.equal({ duplicate: false });
    expect(await send(rig, id, 'go', 1)).to.deep.equal({ duplicate: true });
    expect(await send(rig, id, 'go', 2)).to.equal('FS_CONFLICT');
    rig.work.complete('w');
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ w: 'Complete', a: 'Complete', b: 'Held' });
    expect(await send(rig, id, 'go', 2)).to.deep.equal({ duplicate: false });
    expect((await rig.record(id)).outputs).to.deep.equal({ b: 2 });
  });

  it('takes a trigger that came while it was queued', async () => {
    const yaml = '{ name: h, concurrency: { max: 1 }, nodes: { a: { type: hold, trigger: go } } }';
    const first = await rig.run(yaml);
    const second = await rig.start('h');
    expect(await send(rig, second, 'go', 'early')).to.deep.equal({ duplicate: false });
    await send(rig, first, 'go');
    expect((await rig.record(second)).outputs).to.deep.equal({ a: 'early' });
  });

  it('refuses names that no hold has, executions that are not there, and ended ones', async () => {
    const id = await rig.run('{ name: h, nodes: { a: { type: hold, trigger: go } } }');
    expect(await send(rig, id, 'gone')).to.equal('FS_NOT_FOUND');
    expect(await send(rig, '00000000-0000-7000-8000-000000000000', 'go')).to.equal('FS_NOT_FOUND');
    await send(rig, id, 'go');
    expect(await send(rig, id, 'go')).to.equal('FS_ENDED');
  });

  it('is released by its schedule: a duration, an instant, a cron pattern', async () => {
    const from = rig.clock.nowMs();
    const id = await rig.run(
      `{ name: h, nodes: { d: { type: hold, schedule: 5s }, i: { type: hold, schedule: "${new Date(from + 7_000).toISOString()}" }, c: { type: hold, schedule: "*/1 * * * *" }, t: { type: hold, trigger: go, schedule: 1h } } }`,
    );
    await rig.advance(4_999);
    expect(await rig.statuses(id)).to.deep.equal({ d: 'Held', i: 'Held', c: 'Held', t: 'Held' });
    await rig.advance(1);
    expect((await rig.node(id, 'd')).status).to.equal('Complete');
    expect(await rig.output(id, 'd')).to.deep.equal({ at: new Date(from + 5_000).toISOString() });
    await rig.advance(2_000);
    expect((await rig.node(id, 'i')).status).to.equal('Complete');
    await rig.advance(53_000);
    expect(await rig.output(id, 'c')).to.deep.equal({ at: new Date(from + 60_000).toISOString() });
    await send(rig, id, 'go', 'sooner');
    expect((await rig.record(id)).status).to.equal('Complete');
    expect(await rig.output(id, 't')).to.equal('sooner');
  });

  /** The store takes the next trigger, and its answer is lost. */
  function loseAnswer(): void {
    rig.gate.intervene = ({ method }) => {
      if (method !== 'putTrigger') return undefined;
      rig.gate.intervene = () => undefined;
      return 'lose';
    };
  }

  it('takes a trigger whose answer was lost when it is sent again', async () => {
    const id = await rig.run('{ name: h, nodes: { a: { type: hold, trigger: go } } }');
    loseAnswer();
    expect(await send(rig, id, 'go', 1)).to.equal('FS_UNAVAILABLE');
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Held' });
    expect(await send(rig, id, 'go', 1)).to.deep.equal({ duplicate: true });
    expect((await rig.record(id)).outputs).to.deep.equal({ a: 1 });
  });

  it('takes a trigger whose answer was lost, and that is not sent again', async () => {
    const id = await rig.run('{ name: h, nodes: { a: { type: hold, trigger: go } } }');
    loseAnswer();
    expect(await send(rig, id, 'go', 1)).to.equal('FS_UNAVAILABLE');
    await rig.advance(1_500);
    expect((await rig.record(id)).outputs).to.deep.equal({ a: 1 });
  });

  it('takes a trigger once whose answer was lost, however often it hears of it', async () => {
    const id = await rig.run(
      '{ name: h, nodes: { w: { type: http, with: { url: "http://w/" } }, a: { type: hold, needs: [w], trigger: go }, b: { type: hold, needs: [a], trigger: go } } }',
    );
    loseAnswer();
    expect(await send(rig, id, 'go', 1)).to.equal('FS_UNAVAILABLE');
    expect(await send(rig, id, 'go', 1)).to.deep.equal({ duplicate: true });
    expect(await send(rig, id, 'go', 1)).to.deep.equal({ duplicate: true });
    rig.work.complete('w');
    await rig.advance(120_000);
    expect(await rig.statuses(id)).to.deep.equal({ w: 'Complete', a: 'Complete', b: 'Held' });
  });

  it('keeps a trigger whose commit the store refuses for a while', async () => {
    const id = await rig.run('{ name: h, nodes: { a: { type: hold, trigger: go } } }');
    rig.gate.intervene = ({ method }) => (method === 'commit' ? 'fail' : undefined);
    await send(rig, id, 'go', 1);
    rig.gate.intervene = () => undefined;
    await rig.advance(5_000);
    expect((await rig.record(id)).outputs).to.deep.equal({ a: 1 });
  });
});

describe('a delay', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  it('waits for a duration or until an instant; one that has passed is no wait', async () => {
    const from = rig.clock.nowMs();
    const id = await rig.run(`
name: d
inputs: { at: { type: string, default: "${new Date(from + 3_000).toISOString()}" } }
nodes:
  span: { type: delay, with: { duration: 2s } }
  until: { type: delay, with: { until: "\${{ input.at }}" } }
  past: { type: delay, with: { until: "2001-01-01T00:00:00Z" } }
`);
    await rig.advance(0);
    expect((await rig.node(id, 'past')).status).to.equal('Complete');
    await rig.advance(2_000);
    expect((await rig.node(id, 'span')).status).to.equal('Complete');
    expect((await rig.node(id, 'until')).status).to.equal('Running');
    await rig.advance(1_000);
    expect(await rig.output(id, 'until')).to.deep.equal({ until: new Date(from + 3_000).toISOString() });
    expect((await rig.record(id)).status).to.equal('Complete');
  });

  it('fails where its template gives no time', async () => {
    const id = await rig.run(
      '{ name: d, inputs: { t: { type: string, default: soon } }, nodes: { a: { type: delay, with: { duration: "${{ input.t }}" } } } }',
    );
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
  });
});

describe('schedules', () => {
  let rig: Rig;
  // Midnight of 1 January 2030, UTC.
  beforeEach(async () => {
    rig = await openRig({ retentionMs: 0 });
  });
  afterEach(closeRigs);

  const nightly = (more = '', body = '{ a: { type: set, with: { value: 1 } } }'): string =>
    `{ name: nightly, on: { schedule: "0 2 * * *"${more} }, nodes: ${body} }`;
  const started = async (name = 'nightly'): Promise<string[]> =>
    (await rig.store.listExecutions({ project: null, workflow: name, limit: 100 })).items
      .map((item) => new Date(item.createdAtMs).toISOString().slice(8, 16))
      .reverse();

  it('start executions at their instants', async () => {
    await rig.save(nightly());
    expect(rig.engine.nextInstants('default', 'nightly')).to.deep.equal([Date.UTC(2030, 0, 1, 2)]);
    await rig.advance(2 * DAY);
    expect(await started()).to.deep.equal(['01T02:00', '02T02:00']);
    expect(rig.engine.nextInstants('default', 'nightly')).to.deep.equal([Date.UTC(2030, 0, 3, 2)]);
  });

  it('give each its own input and timezone', async () => {
    await rig.save(`
name: nightly
inputs: { n: { type: number, default: 0 } }
on: { overlap: allow, schedule: [{ cron: "0 2 * * *", input: { n: 1 } }, { cron: "0 2 * * *", timezone: Europe/Berlin, input: { n: 2 } }] }
nodes: { a: { type: set, with: { value: "\${{ input.n }}" } } }
`);
    await rig.advance(DAY / 2);
    const { items } = await rig.store.listExecutions({ project: null, workflow: 'nightly', limit: 100 });
    const records = await Promise.all(items.map(({ id }) => rig.record(id)));
    expect(records.map(({ createdAt, outputs }) => [createdAt.slice(11, 16), outputs])).to.deep.equal([
      ['02:00', { a: 1 }],
      ['01:00', { a: 2 }],
    ]);
  });

  it('make up for missed instants once, and start none twice', async () => {
    await rig.save(nightly());
    await rig.advance(3 * 3_600_000);
    expect(await started()).to.deep.equal(['01T02:00']);
    rig = await rig.crash(5 * DAY);
    await rig.settle();
    expect(await started()).to.deep.equal(['01T02:00', '06T03:00']);
    rig = await rig.crash();
    await rig.settle();
    expect(await started()).to.deep.equal(['01T02:00', '06T03:00']);
    await rig.advance(DAY);
    expect(await started()).to.deep.equal(['01T02:00', '06T03:00', '07T02:00']);
  });

  it('start no instant twice whose answer was lost', async () => {
    await rig.save(nightly());
    let losses = 2;
    rig.gate.intervene = ({ method }) => (method === 'createExecution' && losses-- > 0 ? 'lose' : undefined);
    await rig.advance(3 * 3_600_000);
    expect(await started()).to.deep.equal(['01T02:00']);
    const { items } = await rig.store.listExecutions({ project: null, workflow: 'nightly', limit: 100 });
    expect(items[0]?.status).to.equal('Complete');
  });

  it('skip an instant while the one before runs, unless they may overlap', async () => {
    const body = '{ a: { type: hold, trigger: go } }';
    await rig.save(nightly('', body));
    await rig.save(nightly(', overlap: allow', body).replace('name: nightly', 'name: often'));
    await rig.advance(3 * DAY);
    expect(await started()).to.deep.equal(['01T02:00']);
    expect(await started('often')).to.have.length(3);
  });

  it('rest while their workflow is disabled, and do not make up for that', async () => {
    await rig.save(nightly());
    await rig.store.setDisabled('default', 'nightly', true);
    await rig.engine.workflowChanged('default', 'nightly');
    expect(rig.engine.nextInstants('default', 'nightly')).to.deep.equal([]);
    await rig.advance(3 * DAY);
    expect(await started()).to.deep.equal([]);
    await rig.store.setDisabled('default', 'nightly', false);
    await rig.engine.workflowChanged('default', 'nightly');
    await rig.settle();
    expect(await started()).to.deep.equal([]);
    await rig.advance(DAY);
    expect(await started()).to.deep.equal(['04T02:00']);
  });

  it('are those of the last saved version', async () => {
    await rig.save(nightly());
    await rig.save(nightly().replace('0 2', '0 5'));
    await rig.advance(DAY);
    expect(await started()).to.deep.equal(['01T05:00']);
    await rig.save('{ name: nightly, nodes: { a: { type: set, with: { value: 1 } } } }');
    await rig.advance(DAY);
    expect(await started()).to.deep.equal(['01T05:00']);
  });

  it('wait as Pending while admission is paused', async () => {
    await rig.save(nightly());
    await rig.engine.setAdmission(true);
    await rig.advance(DAY);
    const { items } = await rig.store.listExecutions({ project: null, workflow: 'nightly', limit: 100 });
    expect(items.map(({ status }) => status)).to.deep.equal(['Pending']);
  });
});
