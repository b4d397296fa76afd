import { expect } from 'chai';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import type { Commit } from '../../src/ports/store.ts';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

const MARKER = 'workflow stopped by user';
/** Steps of one execution in one commit. */
const STEPS_MAX = 32;
/** Steps of all executions in one turn, and those of the last of them. */
const TURN_MAX = 256 + STEPS_MAX;

/** `set` nodes in a row, after what `more` says. */
function chain(name: string, length: number, more = ''): string {
  const nodes = Array.from({ length }, (_, index) => {
    const needs = index > 0 ? `[n${index}]` : more === '' ? '[]' : '[a]';
    return `n${index + 1}: { type: set, needs: ${needs}, with: { value: ${index + 1} } }`;
  });
  return `{ name: ${name}, nodes: { ${[more, ...nodes].filter((text) => text !== '').join(', ')} } }`;
}

const http = 'a: { type: http, with: { url: "http://a/" } }';

/** A loop of `body`, which is a node's type and more of it. */
const loop = (condition: string, body = 'type: set, with: { value: "${{ iter.index }}" }'): string =>
  `{ name: loop, nodes: { poll: { type: while, condition: "${condition}", maxIterations: 1000000, body: { a: { ${body} } } } } }`;

describe('instant nodes', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  const commitsOf = (id: string): Commit[] => rig.gate.commits.filter(({ executionId }) => executionId === id);

  /** The next commit that matches waits, until the answer is called. */
  function hold(when: 'holdBefore' | 'holdAfter', matches: (commit: Commit) => boolean): () => void {
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    rig.gate.intervene = ({ method, args }) =>
      method === 'commit' && matches(args[0] as Commit) ? ({ [when]: held } as { holdAfter: typeof held }) : undefined;
    return () => {
      rig.gate.intervene = () => undefined;
      release();
    };
  }

  describe('in a row', () => {
    it('are one commit, from the first start to the last word', async () => {
      const id = await rig.run(chain('row', 10));
      expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { n10: 10 } });
      const [only, ...more] = commitsOf(id);
      expect(more).to.deep.equal([]);
      expect(only).to.deep.include({ v: 1, final: true, dropNodes: [] });
      expect(only?.header).to.include({ status: 'Complete', machine: null });
      expect(only?.nodes.map(({ path, status, machine }) => [path, status, machine])).to.deep.equal(
        Array.from({ length: 10 }, (_, index) => [`n${index + 1}`, 'Complete', null]),
      );
      expect(await rig.output(id, 'n7')).to.equal(7);
    });

    it('tell of each start and each end, in order', async () => {
      const id = await rig.run(chain('row', 3));
      expect(await rig.told(id)).to.deep.equal([
        'execution.created',
        'execution.started',
        ...['n1', 'n2', 'n3'].flatMap((name) => [`node.started ${name}`, `node.completed ${name}`]),
        'execution.completed',
      ]);
      expect(rig.bus.events.map(({ event }) => event.seq)).to.deep.equal([2, 3, 4, 5, 6, 7, 8, 9]);
    });

    it('end with the commit of the task that made them ready', async () => {
      const id = await rig.run(chain('row', 3, http));
      expect(commitsOf(id)).to.have.length(1);
      rig.work.complete('a');
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Complete');
      expect(commitsOf(id)).to.have.length(2);
    });

    it('are in the record before a task that they make ready is started', async () => {
      const id = await rig.run(
        `{ name: row, nodes: { n: { type: set, with: { value: 1 } }, ${http.replace('http,', 'http, needs: [n],')} } }`,
      );
      const lines = rig.trace.filter((line) => line.includes(' commit ') || line.includes('work.start'));
      expect(lines.map((line) => line.split(' ')[1])).to.deep.equal(['commit', 'work.start']);
      expect(await rig.statuses(id)).to.deep.equal({ n: 'Complete', a: 'Running' });
    });
  });

  it('tell in the same order as when each had a commit of its own', async () => {
    const id = await rig.run(`
name: graph
nodes:
  fork: { type: set, with: { value: 1 } }
  left: { type: set, needs: [fork], with: { value: 1 } }
  right: { type: fail, continueOnError: true, needs: [fork], with: { message: no } }
  skipped: { type: set, needs: [left], if: "false", with: { value: 1 } }
  after: { type: set, needs: [skipped], with: { value: 1 } }
  join: { type: set, needs: [after, right], with: { value: 1 } }
`);
    expect(await rig.told(id)).to.deep.equal([
      'execution.created',
      'execution.started',
      'node.started fork',
      'node.completed fork',
      'node.started left',
      'node.started right',
      'node.completed left',
      'node.skipped skipped',
      'node.started after',
      'node.failed right',
      'node.completed after',
      'node.started join',
      'node.completed join',
      'execution.completed',
    ]);
    expect(commitsOf(id)).to.have.length(1);
  });

  it('that fail wait for their next try, and end the execution with the last', async () => {
    const id = await rig.run(
      '{ name: f, nodes: { a: { type: fail, retry: { attempts: 2, backoff: 1s }, with: { message: no } } } }',
    );
    expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 1, error: 'no' });
    await rig.advance(1_000);
    expect(await rig.record(id)).to.include({ status: 'Failed', error: 'no' });
    expect(commitsOf(id)).to.have.length(2);
  });

  it('wait for an expression that is evaluated on another thread, and for the commit before', async () => {
    await rig.close();
    const expressions = createExpressions();
    let answer = (): void => undefined;
    rig = await openRig({
      expressions: {
        ...expressions,
        render: (template, scope) => {
          const value = expressions.render(template, scope);
          if ((value as { value?: unknown }).value === 'slow') {
            return new Promise((resolve) => {
              answer = () => resolve(value);
            });
          }
          return value;
        },
      },
    });
    const id = await rig.run(
      '{ name: w, nodes: { a: { type: set, with: { value: 1 } }, b: { type: set, needs: [a], with: { value: slow } }, c: { type: set, needs: [b], with: { value: 3 } } } }',
    );
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Pending', c: 'Pending' });
    answer();
    await rig.settle();
    expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { c: 3 } });
    expect(commitsOf(id)).to.have.length(2);
  });

  it('never were where a stop was stored before their commit', async () => {
    const release = hold('holdBefore', ({ final }) => final);
    const id = await rig.run(chain('row', 5, http));
    rig.work.complete('a', 'late');
    await rig.settle();
    await rig.stop(id);
    release();
    await rig.settle();
    const pending = Object.fromEntries(Array.from({ length: 5 }, (_, index) => [`n${index + 1}`, 'Pending']));
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Failed', ...pending });
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    expect((await rig.told(id)).slice(4)).to.deep.equal([
      'stop.requested',
      'stop.delivered',
      'node.failed a',
      'stop.halted',
      'execution.failed',
    ]);
    expect(await rig.store.readResults(id)).to.deep.equal([]);
  });

  it('run again after a crash before their commit, from the one before', async () => {
    hold('holdBefore', ({ nodes }) => nodes.some(({ path }) => path === 'n5'));
    const id = await rig.run(chain('row', 5, http));
    rig.work.complete('a', 1);
    await rig.settle();
    expect((await rig.node(id, 'a')).status).to.equal('Running');
    rig = await rig.crash();
    expect(await rig.statuses(id)).to.include({ a: 'Running', n1: 'Pending', n5: 'Pending' });
    rig.work.complete('a', 2);
    await rig.settle();
    expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { n5: 5 } });
    expect((await rig.node(id, 'n5')).attempt).to.equal(1);
    expect((await rig.told(id)).filter((line) => line.endsWith('n3'))).to.have.length(2);
  });

  it('are taken back where the execution breaks among them, and begin again', async () => {
    await rig.close();
    const expressions = createExpressions();
    let breaks = false;
    rig = await openRig({
      expressions: {
        ...expressions,
        render: (template, scope) => {
          const value = expressions.render(template, scope) as { value?: unknown };
          if (value.value !== 3 || breaks) return value;
          // Read by the node's work: what the engine does next breaks.
          return Object.defineProperty({}, 'value', {
            get() {
              breaks = true;
              rig.clock.nowMs = () => {
                Reflect.deleteProperty(rig.clock, 'nowMs');
                throw new Error('broken');
              };
              return 3;
            },
          });
        },
      },
    });
    const id = await rig.run(chain('row', 5));
    expect(rig.errors.splice(0)).to.have.length(1);
    expect(await rig.record(id)).to.deep.include({ status: 'Complete', outputs: { n5: 5 } });
    expect(commitsOf(id)).to.have.length(1);
    expect((await rig.told(id)).filter((line) => line.startsWith('node.completed'))).to.have.length(5);
  });

  it('give big outputs to those that need them, and are not gathered then', async () => {
    const id = await rig.run(
      `{ name: big, inputs: { text: { type: string } }, nodes: { a: { type: set, with: { value: "\${{ input.text }}" } }, b: { type: set, needs: [a], with: { value: "\${{ nodes.a.output.size() }}" } }, ${http.replace('a:', 'c:').replace('http,', 'http, needs: [b],')}, d: { type: set, needs: [c], with: { value: "\${{ nodes.a.output.size() }}" } } } }`,
      { text: 'x'.repeat(100_000) },
    );
    expect(await rig.output(id, 'b')).to.equal(100_000);
    expect(commitsOf(id).map(({ results }) => results.length)).to.deep.equal([1, 1]);
    let reads = 0;
    rig.gate.intervene = ({ method }) => {
      if (method === 'readResult') reads += 1;
      return undefined;
    };
    rig.work.complete('c');
    await rig.settle();
    // By now it is out of memory.
    expect(reads).to.equal(1);
    expect(await rig.output(id, 'd')).to.equal(100_000);
  });

  describe('of a loop', () => {
    const keys = ({ nodes }: Commit): string[] => nodes.map(({ key }) => key);

    it('tell of each iteration, in order', async () => {
      const id = await rig.run(loop('iter.index < 2'));
      expect(await rig.told(id)).to.deep.equal([
        'execution.created',
        'execution.started',
        'node.started poll',
        ...[0, 1].flatMap((index) => [
          'iteration.started poll',
          `node.started poll/a [${index}]`,
          `node.completed poll/a [${index}]`,
        ]),
        'node.completed poll',
        'execution.completed',
      ]);
      expect(commitsOf(id)).to.have.length(1);
    });

    it('share commits, each of a bounded number', async () => {
      const id = await rig.run(loop('iter.index < 1000'));
      expect((await rig.record(id)).outputs).to.deep.equal({
        poll: { iterations: 1000, exhausted: false, last: { a: 999 } },
      });
      const commits = commitsOf(id);
      // A step for the condition, a step for the node.
      expect(commits.length).to.be.within(Math.floor(2_001 / STEPS_MAX), Math.ceil(2_001 / STEPS_MAX) + 1);
      for (const { events } of commits) {
        const iterations = events.filter(({ type }) => type === 'iteration.started').length;
        expect(iterations).to.be.at.most(STEPS_MAX / 2 + 1);
      }
    });

    it('leave the record with their iteration, or never come into it', async () => {
      const release = hold('holdAfter', ({ v }) => v === 3);
      const id = await rig.run(loop('iter.index < 1000'));
      const rows = (await rig.store.load(id))?.nodes.map(({ key }) => key);
      const index = (rows ?? []).map((key) => Number(/poll\/a\/(\d+)@1/.exec(key)?.[1] ?? -1)).sort((a, b) => a - b);
      // The loop itself, the iteration before and the one that runs.
      expect(index).to.deep.equal([-1, index[1], (index[1] ?? 0) + 1]);
      const results = (await rig.store.readResults(id)).map(({ key }) => key);
      for (const key of results) expect(rows).to.include(key);
      const [first, second] = commitsOf(id) as [Commit, Commit];
      expect(first.dropNodes).to.deep.equal([]);
      // What the one brought and the other drops.
      expect(second.dropNodes).to.deep.equal(keys(first).filter((key) => key !== 'poll/-'));
      for (const { dropNodes, nodes } of [first, second])
        expect(
          nodes.filter(({ key }) => dropNodes.includes(key)).every(({ key }) => keys(first).includes(key)),
        ).to.equal(true);
      release();
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Complete');
    });

    it('go on from the last commit after a crash, with the last outputs', async () => {
      hold('holdBefore', ({ v }) => v === 4);
      const id = await rig.run(
        loop('iter.index < 1000', 'type: set, with: { value: "${{ iter.last == null ? 1 : iter.last.a + 1 }}" }'),
      );
      expect((await rig.record(id)).status).to.equal('Running');
      rig = await rig.crash();
      await rig.settle();
      expect((await rig.record(id)).outputs).to.deep.equal({
        poll: { iterations: 1000, exhausted: false, last: { a: 1000 } },
      });
      const told = await rig.told(id);
      expect(told.filter((line) => line.startsWith('node.completed poll/a'))).to.have.length(1000);
    });

    it('drop what was there before a crash, with the iteration that it ended', async () => {
      const body = 'type: hold, if: "iter.index == 0", trigger: go';
      const id = await rig.run(loop('iter.index < 6', body));
      rig = await rig.crash();
      const sent = rig.engine.trigger(id, 'go', 'now');
      await rig.settle();
      await sent;
      expect((await rig.record(id)).status).to.equal('Complete');
      const rows = (await rig.store.load(id))?.nodes.map(({ key }) => key);
      expect(rows).to.have.members(['poll/-', 'poll/a/4@1', 'poll/a/5@1']);
      expect(await rig.store.readResults(id)).to.have.length(1);
    });

    for (const [what, body] of [
      ['set nodes', undefined],
      ['skipped nodes', 'type: set, if: "false", with: { value: 1 }'],
    ] as const) {
      it(`without end, of ${what}, is stopped at its next commit`, async () => {
        const release = hold('holdBefore', ({ v }) => v === 5);
        const id = await rig.run(loop('true', body));
        const stopping = rig.engine.requestStop(id);
        await rig.settle();
        await stopping;
        release();
        await rig.settle();
        expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
        // Of what was gathered while the store rested, nothing.
        expect(commitsOf(id)).to.have.length(5);
        const iterations = (await rig.told(id)).filter((line) => line.startsWith('iteration.started'));
        expect(iterations.length).to.be.at.most(4 * (STEPS_MAX + 1));
      });
    }
  });

  it('of many executions leave room in every turn', async () => {
    await rig.save(chain('row', 30));
    const turns: number[] = [];
    const { defer } = rig.clock;
    rig.clock.defer = (run) =>
      defer.call(rig.clock, () => {
        const before = rig.engine.metrics().nodesEnded;
        run();
        turns.push(rig.engine.metrics().nodesEnded - before);
      });
    const starts = Array.from({ length: 60 }, () =>
      rig.engine.startExecution({ project: 'default', workflow: 'row', input: {}, labels: {}, idempotencyKey: null }),
    );
    await rig.settle();
    await Promise.all(starts);
    expect(turns.reduce((sum, each) => sum + each, 0)).to.equal(30 * 60);
    expect(Math.max(...turns)).to.be.at.most(TURN_MAX);
    expect(rig.gate.commits).to.have.length(60);
  });
});
