import { expect } from 'chai';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

describe('a while', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  it('tests before each iteration, with the index and the last outputs', async () => {
    const id = await rig.run(`
name: w
nodes:
  count: { type: while, condition: "iter.index < 3 && (iter.last == null || iter.last.a < 100)", maxIterations: 10, body: { a: { type: set, with: { value: "\${{ iter.index + (iter.last == null ? 10 : iter.last.a) }}" } } } }
`);
    expect((await rig.record(id)).outputs).to.deep.equal({
      count: { iterations: 3, exhausted: false, last: { a: 13 } },
    });
    expect((await rig.told(id)).filter((line) => line.startsWith('iteration'))).to.have.length(3);
  });

  it('does nothing when its condition is false at first', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { count: { type: while, condition: "false", maxIterations: 10, body: { a: { type: set, with: { value: 1 } } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({ count: { iterations: 0, exhausted: false, last: null } });
    expect((await rig.node(id, 'count')).status).to.equal('Complete');
  });

  it('completes when it is exhausted', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { count: { type: while, condition: "true", maxIterations: 3, body: { a: { type: set, with: { value: "${{ iter.index }}" } } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({ count: { iterations: 3, exhausted: true, last: { a: 2 } } });
  });

  it('is not exhausted when its condition turns false after the last iteration', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { count: { type: while, condition: "iter.index < 3", maxIterations: 3, body: { a: { type: set, with: { value: 1 } } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({
      count: { iterations: 3, exhausted: false, last: { a: 1 } },
    });
  });

  it('fails when it is exhausted, where it says so', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { count: { type: while, condition: "true", maxIterations: 3, onExhausted: fail, retry: { attempts: 3 }, body: { a: { type: set, with: { value: 1 } } } } } }',
    );
    await rig.advance(100_000);
    expect(await rig.node(id, 'count')).to.include({ status: 'Failed', errorCode: 'FS_EXHAUSTED' });
  });

  it('waits between iterations, and not before the first', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { poll: { type: while, condition: "iter.index < 3", maxIterations: 9, delay: 2s, body: { a: { type: http, with: { url: "http://a/" } } } } } }',
    );
    expect(rig.work.started).to.have.length(1);
    rig.work.complete('poll/a');
    await rig.advance(1_999);
    expect(rig.work.started).to.have.length(1);
    expect((await rig.node(id, 'poll')).status).to.equal('Running');
    await rig.advance(1);
    expect(rig.work.started).to.have.length(2);
    rig.work.complete('poll/a');
    await rig.advance(2_000);
    rig.work.complete('poll/a');
    await rig.settle();
    expect((await rig.record(id)).status).to.equal('Complete');
  });

  it('fails when its condition fails or is no boolean', async () => {
    const id = await rig.run(`
name: w
nodes:
  x: { type: set, with: { value: { n: 1 } } }
  broken: { type: while, needs: [x], condition: "nodes.x.output.gone.deeper", maxIterations: 9, retry: { attempts: 3 }, body: { a: { type: set, with: { value: 1 } } } }
  number: { type: while, needs: [x], condition: "nodes.x.output.n", maxIterations: 9, body: { a: { type: set, with: { value: 1 } } } }
`);
    expect(await rig.node(id, 'broken')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION', attempt: 1 });
    expect(await rig.node(id, 'number')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
  });

  it('fails with the body node that failed first, once the others have ended', async () => {
    const id = await rig.run(`
name: w
nodes:
  poll: { type: while, condition: "true", maxIterations: 9, body: { a: { type: http, with: { url: "http://a/" } }, b: { type: http, with: { url: "http://b/" } }, c: { type: set, needs: [b], with: { value: 1 } } } }
`);
    rig.work.fail('poll/b', 'b broke');
    await rig.settle();
    expect((await rig.node(id, 'poll')).status).to.equal('Running');
    rig.work.fail('poll/a', 'a broke');
    await rig.settle();
    expect(await rig.node(id, 'poll')).to.include({ status: 'Failed', error: 'b: b broke' });
    expect((await rig.node(id, 'poll/c')).status).to.equal('Pending');
    expect(await rig.record(id)).to.include({ status: 'Failed', error: 'b: b broke' });
  });

  it('goes on with a body node that failed with continueOnError', async () => {
    const id = await rig.run(`
name: w
nodes:
  poll: { type: while, condition: "iter.index < 2", maxIterations: 9, body: { a: { type: fail, continueOnError: true, with: { message: no } }, b: { type: set, needs: [a], with: { value: "\${{ nodes.a.error }}" } } } }
`);
    expect((await rig.record(id)).outputs).to.deep.equal({
      poll: { iterations: 2, exhausted: false, last: { a: null, b: 'no' } },
    });
  });

  it('begins at iteration 0 in its next try, whose nodes carry its attempt', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { poll: { type: while, condition: "iter.index < 2", maxIterations: 9, retry: { attempts: 2, backoff: 1s }, body: { a: { type: http, with: { url: "http://a/${{ iter.last == null ? 0 : iter.last.a }}" } } } } } }',
    );
    rig.work.complete('poll/a', 7);
    await rig.settle();
    rig.work.fail('poll/a');
    await rig.advance(1_000);
    rig.work.complete('poll/a', 8);
    await rig.settle();
    rig.work.complete('poll/a', 9);
    await rig.settle();
    expect(rig.work.started.map((task) => [task.id, task.with['url']])).to.deep.equal([
      [`${id}/poll/a/0@1/1`, 'http://a/0'],
      [`${id}/poll/a/1@1/1`, 'http://a/7'],
      [`${id}/poll/a/0@2/1`, 'http://a/0'],
      [`${id}/poll/a/1@2/1`, 'http://a/8'],
    ]);
    expect((await rig.record(id)).outputs).to.deep.equal({ poll: { iterations: 2, exhausted: false, last: { a: 9 } } });
  });

  describe('that timed out while a loop within it runs', () => {
    const nested =
      '{ name: w, nodes: { outer: { type: while, timeout: 2s, retry: { attempts: 2, backoff: 1s }, condition: "iter.index < 1", maxIterations: 9, body: { inner: { type: while, condition: "iter.index < 1", maxIterations: 9, body: { a: { type: http, with: { url: "http://a/" } } } } } } } }';
    const started = (): string[] => rig.work.started.map((task) => task.id.slice(task.id.indexOf('/') + 1));

    it('waits with its next try until the work in there has ended', async () => {
      rig.work.ignoreAborts = true;
      const id = await rig.run(nested);
      await rig.advance(6_000);
      expect(await rig.node(id, 'outer')).to.include({ status: 'Running', attempt: 1 });
      expect(started()).to.deep.equal(['outer/inner/a/0@1,0@1/1']);
      rig.work.answer('outer/inner/a', { kind: 'aborted', outcome: 'forced' });
      await rig.advance(1_000);
      expect(started()).to.deep.equal(['outer/inner/a/0@1,0@1/1', 'outer/inner/a/0@2,0@1/1']);
      rig.work.complete('outer/inner/a', 1);
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Complete');
    });

    for (const restart of [false, true]) {
      it(`writes work off that ignores its abort${restart ? ', over a restart too' : ''}`, async () => {
        rig.work.ignoreAborts = true;
        const id = await rig.run(nested);
        await rig.advance(3_000);
        if (restart) rig = await rig.crash(0, { outlives: true });
        await rig.advance(restart ? 5_000 : 4_000);
        await rig.advance(1_000);
        expect(started().at(-1)).to.equal('outer/inner/a/0@2,0@1/1');
        rig.work.complete(`${id}/outer/inner/a/0@2,0@1/1`, 1);
        await rig.settle();
        expect((await rig.record(id)).status).to.equal('Complete');
        const keys = (await rig.store.getExecution(id))?.nodes.map(({ key }) => key);
        expect(keys).to.have.members(['outer/-', 'outer/inner/0@2', 'outer/inner/a/0@2,0@1']);
      });
    }
  });

  it('goes on after a restart with the children of its own try', async () => {
    const id = await rig.run(`
name: w
nodes:
  poll: { type: while, retry: { attempts: 2, backoff: 1s }, condition: "iter.index < 1", maxIterations: 9, body: { each: { type: foreach, items: "\${{ [1] }}", body: { a: { type: http, with: { url: "http://a/" } } } }, b: { type: http, needs: [each], with: { url: "http://b/" } } } }
`);
    const a = (): string => rig.work.running.find((task) => task.endsWith('/a/-/1')) ?? '';
    rig.work.complete(a(), 'first');
    await rig.settle();
    rig.work.fail('poll/b', 'no luck');
    await rig.advance(1_000);
    expect(a()).not.to.equal('');
    const [, child = ''] = await rig.children(id);
    const place = { executionId: id, node: 'poll/each', iterations: [0], attempt: 1, itemIndex: 0 };
    expect((await rig.record(child)).parent).to.deep.equal(place);
    rig = await rig.crash(0);
    await rig.settle();
    expect((await rig.node(id, 'poll/each')).status).to.equal('Running');
    rig.work.complete(rig.work.running[0] ?? '', 'second');
    await rig.settle();
    expect(await rig.output(id, 'poll/each')).to.deep.equal([{ a: 'second' }]);
    rig.work.complete('poll/b', 1);
    await rig.settle();
    expect((await rig.record(id)).status).to.equal('Complete');
  });

  it('keeps in the record the iteration it is in, and lets older ones go', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { poll: { type: while, condition: "true", maxIterations: 100, body: { a: { type: http, with: { url: "http://a/" } } } } } }',
    );
    for (let turn = 0; turn < 10; turn += 1) {
      rig.work.complete('poll/a', turn);
      await rig.settle();
    }
    const stored = await rig.store.getExecution(id);
    expect(stored?.nodes.filter((row) => row.path === 'poll/a').map((row) => row.iterations)).to.deep.equal([
      ['10@1'],
      ['9@1'],
    ]);
    expect((await rig.node(id, 'poll')).iteration?.index).to.equal(10);
    expect(await rig.store.readResults(id)).to.have.length(1);
    await rig.stop(id);
  });

  it('keeps no more of a loop within a loop', async () => {
    const id = await rig.run(`
name: w
nodes:
  outer: { type: while, condition: "iter.index < 3", maxIterations: 9, body: { inner: { type: while, condition: "iter.index < 50", maxIterations: 99, body: { a: { type: set, with: { value: "\${{ iter.index }}" } } } } } }
`);
    const record = await rig.record(id);
    expect(record.outputs).to.deep.equal({
      outer: {
        iterations: 3,
        exhausted: false,
        last: { inner: { iterations: 50, exhausted: false, last: { a: 49 } } },
      },
    });
    const stored = await rig.store.getExecution(id);
    const rows = stored?.nodes.map((row) => row.key) ?? [];
    expect(rows).to.include.members(['outer/-', 'outer/inner/2@1', 'outer/inner/a/2@1,49@1']);
    expect(rows.length).to.be.at.most(7);
  });

  it('sees its own iteration in a nested body, and nodes of every enclosing one', async () => {
    const id = await rig.run(`
name: w
nodes:
  base: { type: set, with: { value: 1000 } }
  outer:
    type: while
    needs: [base]
    condition: "iter.index < 2"
    maxIterations: 9
    body:
      own: { type: set, with: { value: "\${{ iter.index * 100 + nodes.base.output }}" } }
      inner: { type: while, needs: [own], condition: "iter.index < 2", maxIterations: 9, body: { a: { type: set, with: { value: "\${{ iter.index + nodes.own.output + nodes.base.output }}" } } } }
`);
    expect((await rig.record(id)).outputs).to.deep.equal({
      outer: {
        iterations: 2,
        exhausted: false,
        last: { own: 1100, inner: { iterations: 2, exhausted: false, last: { a: 2101 } } },
      },
    });
  });

  it('runs within a foreach, and a foreach within it', async () => {
    const id = await rig.run(`
name: w
nodes:
  each:
    type: foreach
    items: "\${{ [10, 20] }}"
    body:
      count: { type: while, condition: "iter.index < 2", maxIterations: 9, body: { a: { type: set, with: { value: "\${{ item + iter.index }}" } } } }
  poll:
    type: while
    condition: "iter.index < 2"
    maxIterations: 9
    body:
      own: { type: set, with: { value: "\${{ iter.index }}" } }
      list: { type: foreach, needs: [own], items: "\${{ [1, 2] }}", body: { b: { type: set, with: { value: "\${{ item + itemIndex + nodes.own.output }}" } } } }
`);
    const record = await rig.record(id);
    expect(record.error).to.equal(null);
    const looped = (a: number) => ({ count: { iterations: 2, exhausted: false, last: { a } } });
    expect(record.outputs).to.deep.equal({
      each: [looped(11), looped(21)],
      poll: { iterations: 2, exhausted: false, last: { own: 1, list: [{ b: 2 }, { b: 4 }] } },
    });
    const places = await Promise.all((await rig.children(id)).map(async (child) => (await rig.record(child)).parent));
    expect(places.map((parent) => [parent?.node, parent?.iterations, parent?.itemIndex])).to.have.deep.members([
      ['each', undefined, 0],
      ['each', undefined, 1],
      ['poll/list', [0], 0],
      ['poll/list', [0], 1],
      ['poll/list', [1], 0],
      ['poll/list', [1], 1],
    ]);
  });

  it('sees iter in the body of a foreach within it', async () => {
    const id = await rig.run(`
name: w
nodes:
  poll:
    type: while
    condition: "iter.index < 2"
    maxIterations: 9
    body: { list: { type: foreach, items: "\${{ [iter.index] }}", body: { b: { type: set, with: { value: "\${{ item + iter.index }}" } } } } }
`);
    expect((await rig.record(id)).outputs).to.deep.equal({
      poll: { iterations: 2, exhausted: false, last: { list: [{ b: 2 }] } },
    });
  });

  it('iterates 5,000 times without a pause, and leaves room for others', async function () {
    this.timeout(60_000);
    await rig.save('{ name: quick, nodes: { a: { type: set, with: { value: 1 } } } }');
    await rig.save(
      '{ name: spin, nodes: { count: { type: while, condition: "iter.index < 5000", maxIterations: 10000, body: { a: { type: set, with: { value: "${{ iter.index }}" } } } } } }',
    );
    const spin = rig.engine.startExecution({
      project: 'default',
      workflow: 'spin',
      input: {},
      labels: {},
      idempotencyKey: null,
    });
    const quick = rig.engine.startExecution({
      project: 'default',
      workflow: 'quick',
      input: {},
      labels: {},
      idempotencyKey: null,
    });
    let iterationsWhenQuickEnded = -1;
    const { onCommit } = rig.gate;
    let iterations = 0;
    rig.gate.onCommit = (commit) => {
      onCommit(commit);
      iterations += commit.events.filter(({ type }) => type === 'iteration.started').length;
      if (commit.final && iterationsWhenQuickEnded < 0) iterationsWhenQuickEnded = iterations;
    };
    await rig.settle();
    expect((await rig.record((await quick).header.id)).status).to.equal('Complete');
    expect(iterationsWhenQuickEnded).to.be.below(100);
    const record = await rig.record((await spin).header.id);
    expect(record.outputs).to.deep.equal({ count: { iterations: 5000, exhausted: false, last: { a: 4999 } } });
  });

  it('goes on when all of its body is skipped', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { count: { type: while, condition: "iter.index < 300", maxIterations: 999, body: { a: { type: set, if: "false", with: { value: 1 } } } } } }',
    );
    expect((await rig.record(id)).outputs).to.deep.equal({
      count: { iterations: 300, exhausted: false, last: { a: null } },
    });
  });

  it('waits for what a skipped body node made ready', async () => {
    const id = await rig.run(`
name: w
nodes:
  poll:
    type: while
    condition: "iter.index < 1"
    maxIterations: 9
    body:
      a: { type: http, with: { url: "http://a/" } }
      b: { type: set, needs: [a], if: "false", with: { value: 1 } }
      c: { type: set, needs: [b], if: "false", with: { value: 1 } }
      d: { type: http, needs: [c], with: { url: "http://d/" } }
`);
    rig.work.complete('poll/a', 1);
    await rig.settle();
    expect((await rig.node(id, 'poll')).status).to.equal('Running');
    rig.work.complete('poll/d', 2);
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({
      poll: { iterations: 1, exhausted: false, last: { a: 1, b: null, c: null, d: 2 } },
    });
  });

  it('holds in its body', async () => {
    const id = await rig.run(
      '{ name: w, nodes: { ask: { type: while, condition: "iter.last == null || iter.last.answer != \'yes\'", maxIterations: 9, body: { answer: { type: hold, trigger: answer } } } } }',
    );
    for (const answer of ['no', 'yes']) {
      expect((await rig.node(id, 'ask/answer')).status).to.equal('Held');
      const sent = rig.engine.trigger(id, 'answer', answer);
      await rig.settle();
      await sent;
    }
    expect((await rig.record(id)).outputs).to.deep.equal({
      ask: { iterations: 2, exhausted: false, last: { answer: 'yes' } },
    });
  });
});
