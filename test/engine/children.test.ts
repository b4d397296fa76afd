import { expect } from 'chai';
import type { Commit } from '../../src/ports/store.ts';
import { closeRigs, FakeLink, openRig, type Rig } from '../support/engine.ts';

describe('a foreach', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  const each = (items: string, keys = ''): string =>
    `{ name: f, inputs: { list: { type: array, default: [1, 2, 3, 4] }, other: { type: object, default: {} } }, nodes: { each: { type: foreach, items: "${items}", ${keys} body: { a: { type: http, with: { url: "http://a/\${{ item }}/\${{ itemIndex }}" } } } } } }`;
  const url = (index: number): unknown => rig.work.started[index]?.with['url'];

  it('runs so many items at once, in order, and gives their outputs in the order of the items', async () => {
    const id = await rig.run(each('${{ input.list }}', 'concurrency: 2,'));
    expect(rig.work.started.map((task) => task.with['url'])).to.deep.equal(['http://a/1/0', 'http://a/2/1']);
    expect((await rig.node(id, 'each')).children).to.deep.equal({ total: 4, running: 2, complete: 0, failed: 0 });
    rig.work.complete(rig.work.running[1] ?? '', 'second');
    await rig.settle();
    expect(url(2)).to.equal('http://a/3/2');
    expect((await rig.node(id, 'each')).children).to.deep.equal({ total: 4, running: 2, complete: 1, failed: 0 });
    rig.work.complete(rig.work.running[1] ?? '', 'third');
    await rig.settle();
    rig.work.complete(rig.work.running[1] ?? '', 'fourth');
    await rig.settle();
    rig.work.complete(rig.work.running[0] ?? '', 'first');
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({
      each: ['first', 'second', 'third', 'fourth'].map((a) => ({ a })),
    });
    expect((await rig.node(id, 'each')).children).to.deep.equal({ total: 4, running: 0, complete: 4, failed: 0 });
  });

  it('runs ten at once by default', async () => {
    await rig.run(each('${{ [1,2,3,4,5,6,7,8,9,10,11,12] }}'));
    expect(rig.work.started).to.have.length(10);
  });

  it('gives its children a record, a place and the input of their parent', async () => {
    const id = await rig.run(
      '{ name: f, inputs: { x: { type: number, default: 5 } }, nodes: { before: { type: set, with: { value: 7 } }, each: { type: foreach, needs: [before], items: "${{ [1] }}", body: { a: { type: set, with: { value: "${{ input.x + item + nodes.before.output }}" } } } } } }',
    );
    const [child = ''] = await rig.children(id);
    expect(await rig.record(child)).to.deep.include({
      status: 'Complete',
      parent: { executionId: id, node: 'each', attempt: 1, itemIndex: 0 },
      outputs: { a: 13 },
    });
  });

  it('starts no further item after one failed, lets the running ones end, and fails', async () => {
    const id = await rig.run(each('${{ input.list }}', 'concurrency: 2,'));
    rig.work.fail(rig.work.running[0] ?? '', 'no luck');
    await rig.settle();
    expect(rig.work.started).to.have.length(2);
    expect((await rig.node(id, 'each')).status).to.equal('Running');
    rig.work.complete(rig.work.running[0] ?? '');
    await rig.settle();
    expect(await rig.node(id, 'each')).to.include({
      status: 'Failed',
      errorCode: 'FS_CHILD_FAILED',
      error: 'item 0: no luck',
    });
    expect(rig.work.started).to.have.length(2);
  });

  it('goes on with onItemError: continue, and gives the error', async () => {
    const id = await rig.run(each('${{ [1, 2] }}', 'onItemError: continue,'));
    rig.work.fail(rig.work.running[0] ?? '', 'no luck');
    await rig.settle();
    rig.work.complete(rig.work.running[0] ?? '', 'fine');
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({ each: [{ error: 'no luck' }, { a: 'fine' }] });
    expect((await rig.node(id, 'each')).children).to.deep.equal({ total: 2, running: 0, complete: 1, failed: 1 });
  });

  it('starts new children in its next try', async () => {
    const id = await rig.run(each('${{ [1, 2] }}', 'retry: { attempts: 2, backoff: 1s },'));
    rig.work.fail(rig.work.running[0] ?? '');
    rig.work.complete(rig.work.running[0] ?? '');
    await rig.advance(1_000);
    expect(rig.work.running).to.have.length(2);
    for (const running of rig.work.running) rig.work.complete(running, 1);
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({ each: [{ a: 1 }, { a: 1 }] });
    expect(await rig.children(id)).to.have.length(4);
  });

  describe('that timed out', () => {
    const timed = each('${{ [1, 2] }}', 'timeout: 10s, retry: { attempts: 2, backoff: 1s },');

    it('begins its next try when the children of the last have ended', async () => {
      const id = await rig.run(timed);
      rig.work.ignoreAborts = true;
      await rig.advance(13_000);
      expect(rig.work.running).to.have.length(2);
      expect(await rig.node(id, 'each')).to.include({ status: 'Running', attempt: 1 });
      const [first = '', second = ''] = rig.work.running;
      rig.work.answer(first, { kind: 'aborted', outcome: 'aborted' });
      await rig.settle();
      expect(rig.work.started).to.have.length(2);
      rig.work.answer(second, { kind: 'aborted', outcome: 'aborted' });
      await rig.settle();
      expect(rig.work.started).to.have.length(4);
      // The try has its time from its own start.
      await rig.advance(9_900);
      for (const running of rig.work.running) rig.work.complete(running, 1);
      await rig.settle();
      expect((await rig.record(id)).outputs).to.deep.equal({ each: [{ a: 1 }, { a: 1 }] });
    });

    it('waits for them no longer than the grace, and not at all where they ended within the backoff', async () => {
      const id = await rig.run(timed);
      rig.work.ignoreAborts = true;
      await rig.advance(15_000);
      expect(await rig.node(id, 'each')).to.include({ attempt: 2 });
      rig.work.ignoreAborts = false;
      const prompt = await rig.start('f');
      await rig.advance(10_999);
      expect(await rig.node(prompt, 'each')).to.include({ attempt: 1 });
      await rig.advance(1);
      expect(await rig.node(prompt, 'each')).to.include({ attempt: 2 });
    });

    it('waits for them over a restart', async () => {
      const id = await rig.run(timed);
      rig.work.ignoreAborts = true;
      await rig.advance(10_500);
      rig = await rig.crash(1_000, { outlives: true });
      await rig.advance(0);
      expect(await rig.node(id, 'each')).to.include({ status: 'Running', attempt: 1 });
      expect(rig.work.pursued.size).to.equal(2);
      for (const report of rig.work.pursued.values()) report({ kind: 'aborted', outcome: 'aborted' });
      await rig.advance(0);
      expect(rig.work.started).to.have.length(2);
    });

    it('tells their workers again over a restart', async () => {
      await rig.close();
      rig = await openRig({ slots: 0 });
      const worker = new FakeLink({ slots: 2 });
      await worker.connect(rig);
      const id = await rig.run(timed);
      await rig.live(10_000, worker);
      const held = [...worker.held.keys()];
      expect(worker.cancelled).to.have.members(held);
      worker.cancelled.length = 0;
      rig = await rig.crash(1_000);
      await worker.connect(rig);
      await rig.live(2_000, worker);
      expect([...worker.cancelled, ...worker.beat()]).to.include.members(held);
      for (const task of held) await worker.report(task, { kind: 'aborted', outcome: 'aborted' });
      await rig.live(2_000, worker);
      expect(worker.pushed).to.have.length(4);
      expect(await rig.node(id, 'each')).to.include({ attempt: 2 });
    });

    it('is stopped while it waits for them', async () => {
      const id = await rig.run(timed);
      rig.work.ignoreAborts = true;
      await rig.advance(12_000);
      await rig.stop(id);
      await rig.advance(20_000);
      expect(rig.work.started).to.have.length(2);
      expect(await rig.node(id, 'each')).to.include({
        status: 'Failed',
        error: 'workflow stopped by user',
        attempt: 1,
      });
    });
  });

  it('completes with an empty list, and asks nothing of the store', async () => {
    let reads = 0;
    rig.gate.intervene = ({ method }) => {
      if (method === 'readOutputs') reads += 1;
      return undefined;
    };
    const id = await rig.run(each('${{ [] }}'));
    expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { each: [] } });
    expect(reads).to.equal(0);
    // Its start is durable before it begins.
    expect(rig.gate.commits.map(({ nodes }) => nodes[0]?.status)).to.deep.equal(['Running', 'Complete']);
  });

  it('refuses what is no list, and more than 10,000 items', async () => {
    const id = await rig.run(each('${{ input.other }}'));
    expect(await rig.node(id, 'each')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    const many = await rig.start('f', { other: {}, list: [] });
    expect((await rig.record(many)).status).to.equal('Failed');
    const long = await rig.run(each('${{ input.list }}'), { list: new Array(10_001).fill(0) });
    expect(await rig.node(long, 'each')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    expect(await rig.children(long)).to.deep.equal([]);
  });

  it('fails when a child is stopped alone, once the others have ended, and never tries again', async () => {
    const id = await rig.run(each('${{ [1, 2] }}', 'retry: { attempts: 3, backoff: 1s },'));
    const [first = ''] = await rig.children(id);
    await rig.stop(first);
    rig.work.complete(rig.work.running[0] ?? '');
    await rig.advance(10_000);
    expect(await rig.node(id, 'each')).to.include({
      status: 'Failed',
      errorCode: 'FS_CHILD_STOPPED',
      error: `child execution ${first} was stopped`,
      attempt: 1,
    });
  });

  it('takes a child stopped alone as an error of that item, with onItemError: continue', async () => {
    const id = await rig.run(each('${{ [1, 2] }}', 'onItemError: continue,'));
    const [first = ''] = await rig.children(id);
    await rig.stop(first);
    rig.work.complete(rig.work.running[0] ?? '', 1);
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({
      each: [{ error: `child execution ${first} was stopped` }, { a: 1 }],
    });
  });

  it('starts an item again whose creation the store refused for a while', async () => {
    let failures = 3;
    rig.gate.intervene = ({ method, args }) =>
      method === 'createExecution' && JSON.stringify(args[0]).includes('itemIndex') && failures-- > 0
        ? 'fail'
        : undefined;
    const id = await rig.run(each('${{ [1, 2] }}'));
    await rig.advance(2_000);
    expect(rig.work.running).to.have.length(2);
    for (const running of rig.work.running) rig.work.complete(running, 1);
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({ each: [{ a: 1 }, { a: 1 }] });
    expect(await rig.children(id)).to.have.length(2);
  });

  it('finds an item whose creation was stored and whose answer was lost, though it has ended', async () => {
    let losses = 1;
    rig.gate.intervene = ({ method, args }) =>
      method === 'createExecution' && JSON.stringify(args[0]).includes('itemIndex') && losses-- > 0
        ? 'lose'
        : undefined;
    const id = await rig.run(
      '{ name: f, nodes: { each: { type: foreach, items: "${{ [1, 2] }}", body: { a: { type: set, with: { value: "${{ item }}" } } } } } }',
    );
    await rig.advance(2_000);
    expect((await rig.record(id)).outputs).to.deep.equal({ each: [{ a: 1 }, { a: 2 }] });
    expect(await rig.children(id)).to.have.length(2);
  });

  it('nests', async () => {
    const id = await rig.run(
      '{ name: f, nodes: { outer: { type: foreach, items: "${{ [1, 2] }}", body: { own: { type: set, with: { value: "${{ item * 10 }}" } }, inner: { type: foreach, needs: [own], items: "${{ [nodes.own.output, 5] }}", body: { a: { type: set, with: { value: "${{ item + nodes.own.output }}" } } } } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({
      outer: [
        { own: 10, inner: [{ a: 20 }, { a: 15 }] },
        { own: 20, inner: [{ a: 40 }, { a: 25 }] },
      ],
    });
  });

  it('runs 1,000 items', async () => {
    const id = await rig.run(
      '{ name: f, inputs: { list: { type: array } }, nodes: { each: { type: foreach, items: "${{ input.list }}", concurrency: 100, body: { a: { type: set, with: { value: "${{ item }}" } } } } } }',
      { list: Array.from({ length: 1_000 }, (_, index) => index) },
    );
    const { outputs } = await rig.record(id);
    expect((outputs as { each: { a: number }[] }).each.map(({ a }) => a)).to.deep.equal(
      Array.from({ length: 1_000 }, (_, index) => index),
    );
  });
});

describe('a workflow node', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  const inner =
    '{ name: inner, inputs: { n: { type: number, required: true } }, nodes: { a: { type: set, with: { value: "${{ input.n * 2 }}" } } }, outputs: { twice: "${{ nodes.a.output }}" } }';

  it('gives the outputs of its child', async () => {
    await rig.save(inner);
    const id = await rig.run(
      '{ name: outer, nodes: { sub: { type: workflow, with: { workflow: inner, input: { n: 4 } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({ sub: { twice: 8 } });
    const [child = ''] = await rig.children(id);
    expect((await rig.record(child)).parent).to.deep.equal({ executionId: id, node: 'sub', attempt: 1 });
  });

  it('resolves its workflow when it starts, or by hash', async () => {
    await rig.save(inner);
    const hash = (await rig.store.getDefinition('default', 'inner'))?.hash ?? '';
    const id = await rig.run(`
name: outer
nodes:
  wait: { type: delay, with: { duration: 1s } }
  last: { type: workflow, needs: [wait], with: { workflow: inner, input: { n: 1 } } }
  fixed: { type: workflow, needs: [wait], with: { workflow: "inner@${hash}", input: { n: 1 } } }
`);
    await rig.save(inner.replace('* 2', '* 3'));
    await rig.advance(1_000);
    expect((await rig.record(id)).outputs).to.deep.equal({ last: { twice: 3 }, fixed: { twice: 2 } });
  });

  it('fails where that workflow is not there, or its input does not fit', async () => {
    const id = await rig.run('{ name: outer, nodes: { sub: { type: workflow, with: { workflow: gone } } } }');
    expect((await rig.node(id, 'sub')).status).to.equal('Failed');
    expect((await rig.node(id, 'sub')).error).to.include('gone');
    await rig.save(inner);
    const wrong = await rig.run(
      '{ name: outer, nodes: { sub: { type: workflow, with: { workflow: inner, input: { n: many } } } } }',
    );
    expect((await rig.node(wrong, 'sub')).status).to.equal('Failed');
  });

  it('fails with its child, and tries again', async () => {
    await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const id = await rig.run(
      '{ name: outer, nodes: { sub: { type: workflow, retry: { attempts: 2, backoff: 1s }, with: { workflow: inner } } } }',
    );
    rig.work.fail(rig.work.running[0] ?? '', 'one');
    await rig.advance(1_000);
    rig.work.fail(rig.work.running[0] ?? '', 'two');
    await rig.settle();
    expect(await rig.node(id, 'sub')).to.include({
      status: 'Failed',
      error: 'two',
      errorCode: 'FS_CHILD_FAILED',
      attempt: 2,
    });
    expect(await rig.children(id)).to.have.length(2);
  });

  it('goes sixteen deep, and no deeper', async () => {
    await rig.save(
      '{ name: deep, inputs: { n: { type: number } }, nodes: { sub: { type: workflow, with: { workflow: deep, input: { n: "${{ input.n + 1 }}" } } } } }',
    );
    const id = await rig.start('deep', { n: 0 });
    const record = await rig.record(id);
    expect(record.status).to.equal('Failed');
    expect(record.error).to.include('16');
    const { items } = await rig.store.listExecutions({ project: null, withChildren: true, limit: 100 });
    expect(items).to.have.length(17);
  });

  it('keeps the stop of its child that was asked for before its own', async () => {
    await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const id = await rig.run(
      '{ name: outer, nodes: { one: { type: workflow, with: { workflow: inner } }, two: { type: workflow, with: { workflow: inner } } } }',
    );
    const [one = '', two = ''] = await rig.children(id);
    const asked = new Set<unknown>();
    rig.gate.intervene = ({ method, args }) => {
      const commit = args[0] as Commit;
      if (method === 'commit' && commit.executionId === one) asked.add(commit.requestId);
      return undefined;
    };
    await rig.store.requestStop(one, { requestId: 'first', requestedAtMs: rig.clock.nowMs() });
    const outcome = await rig.stop(id);
    const { requestId } = outcome as { requestId: string };
    expect([...asked]).to.deep.equal(['first']);
    expect(rig.bus.stops).to.have.deep.members([
      { executionId: id, requestId },
      { executionId: one, requestId: 'first' },
      { executionId: two, requestId },
    ]);
    expect((await rig.record(one)).stop?.requestId).to.equal('first');
  });

  it('stops the whole family, and only it', async () => {
    await rig.save('{ name: leaf, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    await rig.save('{ name: middle, nodes: { sub: { type: workflow, with: { workflow: leaf } } } }');
    await rig.save('{ name: top, nodes: { sub: { type: workflow, with: { workflow: middle } } } }');
    const [one, two] = [await rig.start('top'), await rig.start('top')];
    await rig.stop(one);
    expect(rig.work.running).to.have.length(1);
    const [child = ''] = await rig.children(one);
    const [grandchild = ''] = await rig.children(child);
    for (const id of [one, child, grandchild]) expect((await rig.record(id)).stoppedByUser).to.equal(true);
    expect((await rig.record(two)).status).to.equal('Running');
  });
});
