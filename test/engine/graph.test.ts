import { expect } from 'chai';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

const START = ['execution.created', 'execution.started'];

describe('an engine runs a graph', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  it('and tells those who follow lists no more than what is durable, whatever happens meanwhile', async () => {
    const work = (name: string): string => `${name}: { type: http, with: { url: "http://${name}/" } }`;
    const id = await rig.run(`{ name: two, failFast: true, nodes: { ${work('a')}, ${work('b')} } }`);
    rig.work.ignoreAborts = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.gate.intervene = ({ method }) => (method === 'commit' ? { holdBefore: promise } : undefined);
    rig.work.fail('a');
    await rig.settle();
    for (let line = 0; line < 5; line += 1) rig.work.print(`${id}/b/-/1`, 'more');
    rig.bus.items.length = 0;
    resolve();
    const before = rig.gate.commits.length;
    await rig.settle();
    expect(rig.bus.items.map(({ seq }) => seq)).to.deep.equal([rig.gate.commits[before]?.events.at(-1)?.seq]);
  });

  it('in the order of its needs, and completes with the outputs of its leaves', async () => {
    const id = await rig.run(`
name: chain
inputs: { n: { type: number, default: 3 } }
nodes:
  c: { type: set, needs: [b], with: { value: "\${{ nodes.b.output + 1 }}" } }
  a: { type: set, with: { value: "\${{ input.n }}" } }
  b: { type: set, needs: [a], with: { value: "\${{ nodes.a.output * 2 }}" } }
`);
    const record = await rig.record(id);
    expect(record).to.include({ status: 'Complete', error: null, errorCode: null });
    expect(record.outputs).to.deep.equal({ c: 7 });
    expect(await rig.told(id)).to.deep.equal([
      ...START,
      ...['a', 'b', 'c'].flatMap((name) => [`node.started ${name}`, `node.completed ${name}`]),
      'execution.completed',
    ]);
  });

  it('starts every root at once, and a join when the last of its needs is met', async () => {
    const id = await rig.run(`
name: join
nodes:
  a: { type: http, with: { url: "http://a/" } }
  b: { type: http, with: { url: "http://b/" } }
  c: { type: set, needs: [a, b], with: { value: 1 } }
`);
    expect(rig.work.started.map(({ node }) => node)).to.deep.equal(['a', 'b']);
    rig.work.complete('b');
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Running', b: 'Complete', c: 'Pending' });
    rig.work.complete('a');
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Complete', c: 'Complete' });
  });

  it('starts work only after the commit that says so', async () => {
    const id = await rig.run('{ name: order, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const commit = rig.trace.findIndex((line) => line.includes('commit') && line.includes('"task.queued"'));
    const start = rig.trace.findIndex((line) => line.includes(`work.start ${id}/a/-/1`));
    expect(commit).to.be.greaterThan(-1);
    expect(start).to.be.greaterThan(commit);
  });

  it('gives a task its identity, its rendered with and a key that every attempt shares', async () => {
    const id = await rig.run(`
name: task
inputs: { host: { type: string, default: x.example } }
nodes: { a: { type: http, with: { url: "http://\${{ input.host }}/", headers: { k: "\${{ secrets.KEY }}" } } } }
`);
    expect(rig.work.started[0]).to.deep.include({
      id: `${id}/a/-/1`,
      executionId: id,
      project: 'default',
      node: 'a',
      iterations: [],
      attempt: 1,
      type: 'http',
      where: 'worker',
      with: { url: 'http://x.example/', headers: { k: '${{ secrets.KEY }}' } },
      idempotencyKey: `${id}/a/-`,
      workflow: 'task',
    });
  });

  it('skips a node whose condition is false, and gives null for its output', async () => {
    const id = await rig.run(`
name: skips
nodes:
  a: { type: set, if: "1 > 2", with: { value: 1 } }
  b: { type: set, needs: [a], with: { value: "\${{ nodes.a.output == null ? nodes.a.status : 'no' }}" } }
`);
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Skipped', b: 'Complete' });
    expect((await rig.record(id)).outputs).to.deep.equal({ b: 'Skipped' });
    expect(await rig.node(id, 'a')).to.include({ attempt: 0, startedAt: null, hasOutput: false });
  });

  it('skips two thousand nodes in a row', async () => {
    const nodes = Array.from(
      { length: 2_000 },
      (_, n) => `  n${n}: { type: set, if: "false", ${n > 0 ? `needs: [n${n - 1}], ` : ''}with: { value: 1 } }`,
    );
    const id = await rig.run(`name: long\nnodes:\n${nodes.join('\n')}`);
    expect((await rig.record(id)).status).to.equal('Complete');
  });

  it('fails a node whose condition fails or is no boolean, without retry', async () => {
    const id = await rig.run(`
name: conditions
inputs: { n: { type: number, default: 1 } }
nodes:
  a: { type: set, if: "nodes.x.output.missing.deeper", needs: [x], retry: { attempts: 3 }, with: { value: 1 } }
  b: { type: set, if: "input.n", with: { value: 1 } }
  x: { type: set, with: { value: {} } }
`);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION', startedAt: null });
    expect(await rig.node(id, 'b')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    expect((await rig.record(id)).status).to.equal('Failed');
    expect(await rig.told(id)).not.to.include('node.retrying a');
  });

  it('fails a node whose with fails, without retry', async () => {
    const id = await rig.run(`
name: templates
nodes:
  x: { type: set, with: { value: {} } }
  a: { type: http, needs: [x], retry: { attempts: 3 }, with: { url: "\${{ nodes.x.output.a.b }}" } }
`);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    expect(rig.work.started).to.deep.equal([]);
  });

  it('runs what needs a failed node with continueOnError, which reads its error', async () => {
    const id = await rig.run(`
name: tolerant
nodes:
  a: { type: fail, continueOnError: true, with: { message: "no luck" } }
  b: { type: set, needs: [a], with: { value: "\${{ nodes.a.error + '/' + nodes.a.status }}" } }
`);
    const record = await rig.record(id);
    expect(record).to.include({ status: 'Complete', error: null });
    expect(record.outputs).to.deep.equal({ b: 'no luck/Failed' });
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: 'no luck', errorCode: 'FS_FAIL_NODE' });
  });

  it('goes on with other branches after a failure, leaves what needs it Pending, and fails with the first error', async () => {
    const id = await rig.run(`
name: branches
nodes:
  slow: { type: delay, with: { duration: 10s } }
  late: { type: fail, needs: [slow], with: { message: second } }
  early: { type: fail, with: { message: first } }
  never: { type: set, needs: [early], with: { value: 1 } }
  also: { type: set, needs: [slow], with: { value: 1 } }
`);
    await rig.advance(10_000);
    const record = await rig.record(id);
    expect(record).to.include({ status: 'Failed', error: 'first', errorCode: 'FS_FAIL_NODE', outputs: null });
    expect(await rig.statuses(id)).to.deep.equal({
      slow: 'Complete',
      late: 'Failed',
      early: 'Failed',
      never: 'Pending',
      also: 'Complete',
    });
  });

  it('renders outputs on completion, of all nodes by name', async () => {
    const id = await rig.run(`
name: outputs
nodes:
  a: { type: set, with: { value: 4 } }
  b: { type: set, needs: [a], if: "false", with: { value: 1 } }
outputs: { sum: "\${{ nodes.a.output + 1 }}", text: "a=\${{ nodes.a.output }}", none: "\${{ nodes.b.output }}" }
`);
    expect((await rig.record(id)).outputs).to.deep.equal({ sum: 5, text: 'a=4', none: null });
  });

  it('fails when an output fails', async () => {
    const id = await rig.run(`
name: outputs
nodes: { a: { type: set, with: { value: {} } } }
outputs: { x: "\${{ nodes.a.output.b.c }}" }
`);
    const record = await rig.record(id);
    expect(record).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION', outputs: null });
    expect(record.error).to.match(/^outputs: /);
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete' });
  });

  it('evaluates comprehensions on their thread', async () => {
    const id = await rig.run(`
name: comprehension
nodes: { a: { type: set, with: { value: [1, 2, 3] } }, b: { type: set, needs: [a], if: "nodes.a.output.all(n, n > 0)", with: { value: "\${{ nodes.a.output.filter(n, n > 1) }}" } } }
`);
    // A real thread: it takes real time.
    for (let turn = 0; turn < 400 && (await rig.record(id)).status === 'Running'; turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      await rig.settle();
    }
    expect((await rig.record(id)).outputs).to.deep.equal({ b: [2, 3] });
  });

  it('stores the marker of another as a node error', async () => {
    const id = await rig.run(`
name: liar
nodes:
  a: { type: fail, continueOnError: true, with: { message: "workflow stopped by user" } }
  b: { type: http, needs: [a], with: { url: "http://b/" } }
`);
    rig.work.fail('b', 'workflow stopped by user');
    await rig.settle();
    expect((await rig.node(id, 'a')).error).to.equal('node error: workflow stopped by user');
    const record = await rig.record(id);
    expect(record.error).to.equal('node error: workflow stopped by user');
    expect(record.stoppedByUser).to.equal(false);
  });

  describe('with failFast', () => {
    const yaml = `
name: hasty
failFast: true
nodes:
  bad: { type: http, with: { url: "http://bad/" } }
  run: { type: http, retry: { attempts: 3 }, with: { url: "http://run/" } }
  next: { type: set, needs: [run], with: { value: 1 } }
  tries: { type: http, retry: { attempts: 3, backoff: 1h }, with: { url: "http://tries/" } }
  hold: { type: hold, trigger: go }
  poll:
    type: while
    condition: "true"
    maxIterations: 9
    body:
      first: { type: http, with: { url: "http://first/" } }
      second: { type: set, needs: [first], with: { value: 1 } }
`;
    let id: string;
    beforeEach(async () => {
      id = await rig.run(yaml);
      rig.work.fail('tries', 'not now');
      await rig.settle();
      rig.work.fail('bad');
      await rig.settle();
    });

    it('fails nodes between tries with their last error, at once', async () => {
      expect(await rig.node(id, 'tries')).to.include({ status: 'Failed', error: 'not now' });
    });

    it('lets what runs end by itself, and starts nothing that needs it', async () => {
      expect((await rig.record(id)).status).to.equal('Running');
      rig.work.complete('run');
      rig.work.complete('poll/first');
      await rig.settle();
      expect(await rig.statuses(id)).to.deep.equal({
        bad: 'Failed',
        run: 'Complete',
        next: 'Pending',
        tries: 'Failed',
        hold: 'Held',
        poll: 'Failed',
      });
      expect(await rig.record(id)).to.include({ status: 'Failed', error: 'broken' });
      expect(await rig.told(id)).not.to.include('node.started poll/second [0]');
    });

    it('tries nothing again', async () => {
      rig.work.complete('poll/first');
      rig.work.fail('run', 'last words');
      await rig.settle();
      expect(await rig.record(id)).to.include({ status: 'Failed', error: 'broken' });
      expect(await rig.node(id, 'run')).to.include({ status: 'Failed', error: 'last words', attempt: 1 });
    });

    it('starts no further item of a foreach, and lets those that run end by themselves', async () => {
      const parent = await rig.run(`
name: hasty-items
failFast: true
nodes:
  bad: { type: http, with: { url: "http://bad/" } }
  each:
    type: foreach
    items: "\${{ [1, 2, 3] }}"
    concurrency: 1
    body: { one: { type: http, with: { url: "http://one/" } } }
`);
      rig.work.fail(`${parent}/bad/-/1`);
      await rig.settle();
      rig = await rig.crash();
      await rig.settle();
      const [first, ...others] = await rig.children(parent);
      expect(others).to.deep.equal([]);
      rig.work.complete(`${first}/each/one/-/2`);
      await rig.settle();
      expect(await rig.statuses(parent)).to.deep.equal({ bad: 'Failed', each: 'Failed' });
      expect(await rig.record(first ?? '')).to.include({ status: 'Complete' });
      expect(await rig.children(parent)).to.have.length(1);
    });

    it('keeps to that after a crash', async () => {
      rig = await rig.crash();
      await rig.settle();
      expect(rig.work.running).to.have.members([`${id}/run/-/2`, `${id}/poll/first/0@1/2`]);
      rig.work.fail('run', 'last words');
      rig.work.complete('poll/first');
      await rig.settle();
      expect(await rig.statuses(id)).to.include({ run: 'Failed', poll: 'Failed', hold: 'Held', next: 'Pending' });
      expect((await rig.record(id)).status).to.equal('Failed');
    });

    it('stops as ever', async () => {
      await rig.stop(id);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: 'workflow stopped by user' });
      expect(await rig.node(id, 'tries')).to.include({ status: 'Failed', error: 'not now' });
      expect(await rig.node(id, 'run')).to.include({ status: 'Failed', error: 'workflow stopped by user' });
    });
  });

  describe('with onFailure', () => {
    const handler = `
name: handler
inputs: { executionId: { type: string }, workflow: { type: string }, error: { type: string }, errorCode: { type: string }, note: { type: string } }
nodes: { a: { type: set, with: { value: "\${{ input }}" } } }
`;
    const started = async (): Promise<string[]> =>
      (
        await rig.store.listExecutions({ project: null, workflow: 'handler', withChildren: true, limit: 100 })
      ).items.map(({ id }) => id);
    beforeEach(() => rig.save(handler));

    it('starts it with what failed', async () => {
      const id = await rig.run(
        '{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      const [other = ''] = await started();
      const record = await rig.record(other);
      expect(record).to.include({ status: 'Complete', parent: null });
      expect(record.input).to.deep.equal({ executionId: id, workflow: 'f', error: 'oops', errorCode: 'FS_FAIL_NODE' });
    });

    it('gives it the input of the file', async () => {
      await rig.run(`
name: f
inputs: { who: { type: string, default: me } }
onFailure: { workflow: handler, input: { note: "by \${{ input.who }}" } }
nodes: { a: { type: fail, with: { message: oops } } }
`);
      const [other = ''] = await started();
      expect((await rig.record(other)).input).to.deep.equal({ note: 'by me' });
    });

    it('starts none after a success', async () => {
      await rig.run('{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: set, with: { value: 1 } } } }');
      expect(await started()).to.deep.equal([]);
    });

    it('starts none after a stop', async () => {
      const id = await rig.run(
        '{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: http, with: { url: "http://a/" } } } }',
      );
      await rig.stop(id);
      expect((await rig.record(id)).status).to.equal('Failed');
      expect(await started()).to.deep.equal([]);
    });

    it('starts none where a stop comes while the failure is concluded', async () => {
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const again = await rig.crash();
      rig = again;
      rig.gate.intervene = ({ method, args }) =>
        method === 'getDefinition' && args[1] === 'handler' ? { holdAfter: held } : undefined;
      const id = await rig.run(
        '{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      expect((await rig.record(id)).status).to.equal('Running');
      await rig.stop(id);
      release();
      await rig.settle();
      expect(await rig.record(id)).to.include({ status: 'Failed', error: 'workflow stopped by user' });
      expect(await started()).to.deep.equal([]);
    });

    it('starts it after a timeout', async () => {
      const id = await rig.run(
        '{ name: f, timeout: 5s, onFailure: { workflow: handler }, nodes: { a: { type: hold, trigger: go } } }',
      );
      await rig.advance(5_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      const [other = ''] = await started();
      expect((await rig.record(other)).input).to.include({ errorCode: 'FS_TIMEOUT' });
    });

    it('starts none for a child, and none for what onFailure started', async () => {
      await rig.save(
        '{ name: inner, onFailure: { workflow: handler }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      await rig.run('{ name: outer, nodes: { a: { type: workflow, with: { workflow: inner } } } }');
      expect(await started()).to.deep.equal([]);
      await rig.save(
        `${handler.replace('nodes:', 'onFailure: { workflow: handler }\nnodes:').replace(/\{ a: .*/, '{ a: { type: fail, with: { message: again } } }')}`,
      );
      await rig.run(
        '{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      expect(await started()).to.have.length(1);
    });

    it('loses it to no crash right after the terminal commit', async () => {
      await rig.save(
        '{ name: f, onFailure: { workflow: handler }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      const { onCommit } = rig.gate;
      rig.gate.onCommit = (commit) => {
        onCommit(commit);
        if (commit.final) rig.gate.dead = true;
      };
      const starting = rig.engine.startExecution({
        project: 'default',
        workflow: 'f',
        input: {},
        labels: {},
        idempotencyKey: null,
      });
      await rig.settle();
      const { header } = await starting;
      expect((await rig.store.getHeader(header.id))?.status).to.equal('Failed');
      rig = await rig.crash();
      await rig.settle();
      const [other = '', ...more] = await started();
      expect(more).to.deep.equal([]);
      expect((await rig.record(other)).status).to.equal('Complete');
    });

    it('fails all the same where that workflow is not there', async () => {
      const id = await rig.run(
        '{ name: f, onFailure: { workflow: gone }, nodes: { a: { type: fail, with: { message: oops } } } }',
      );
      expect(await rig.record(id)).to.include({ status: 'Failed', error: 'oops' });
      expect(rig.errors.splice(0)).to.have.length(1);
    });
  });
});
