import { expect } from 'chai';
import { createActor } from 'xstate';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { executionLogic, nodeLogics } from '../../src/engine/registry.ts';
import { FullstopError } from '../../src/errors.ts';
import type { Expressions } from '../../src/ports/expressions.ts';
import type { Commit } from '../../src/ports/store.ts';
import type { Task, WorkReport } from '../../src/ports/work.ts';
import { closeRigs, FakeLink, openRig, type Rig, type RigOptions } from '../support/engine.ts';

const MARKER = 'workflow stopped by user';
const done = (output: unknown): WorkReport => ({ kind: 'completed', output });

const inner = `
name: inner
inputs: { n: { type: number } }
nodes:
  deep: { type: http, with: { url: "http://deep/\${{ input.n }}" } }
  more: { type: set, needs: [deep], with: { value: "\${{ nodes.deep.output + input.n }}" } }
`;

const workload = `
name: workload
onFailure: { workflow: inner, input: { n: 1 } }
nodes:
  a: { type: set, with: { value: 2 } }
  flaky: { type: http, needs: [a], retry: { attempts: 3, backoff: 2s }, with: { url: "http://flaky/\${{ nodes.a.output }}" } }
  pause: { type: delay, needs: [a], with: { duration: 3s } }
  poll:
    type: while
    needs: [a]
    condition: "iter.last == null || iter.last.check < 3"
    maxIterations: 10
    delay: 1s
    body:
      check: { type: http, with: { url: "http://check/\${{ iter.index }}" } }
      sum: { type: set, needs: [check], with: { value: "\${{ nodes.check.output + (iter.last == null ? 0 : iter.last.sum) }}" } }
  each:
    type: foreach
    needs: [flaky]
    items: "\${{ [10, 20, 30] }}"
    concurrency: 2
    body:
      one: { type: http, with: { url: "http://one/\${{ item }}" } }
      two: { type: set, needs: [one], with: { value: "\${{ nodes.one.output + item + nodes.flaky.output }}" } }
  sub: { type: workflow, needs: [pause], with: { workflow: inner, input: { n: 7 } } }
  timed: { type: hold, needs: [poll], schedule: 2s }
  gate: { type: hold, trigger: go, needs: [poll] }
  skipped: { type: set, needs: [gate], if: "false", with: { value: 1 } }
  late: { type: http, continueOnError: true, timeout: 4s, with: { url: "http://late/" } }
  call1: { type: http, needs: [gate], with: { url: "http://call/1" } }
  call2: { type: http, needs: [call1], with: { url: "http://call/2" } }
  call3: { type: http, needs: [call2], with: { url: "http://call/3" } }
  call4: { type: http, needs: [call3], with: { url: "http://call/4" } }
  call5: { type: http, needs: [call4], with: { url: "http://call/5" } }
  last: { type: set, needs: [call5, gate, timed, each, sub, late, skipped], with: { value: "\${{ [nodes.gate.output, nodes.each.output, nodes.sub.output, nodes.late.error, nodes.poll.output] }}" } }
`;

/** Answers every call as the same world would, however often it is asked; the first flaky call fails. */
function behave({ with: { url }, attempt }: Task): WorkReport | null {
  const address = String(url);
  if (address.startsWith('http://late')) return null;
  if (address.startsWith('http://check/')) return done(Number(address.slice('http://check/'.length)) + 1);
  if (!address.startsWith('http://flaky')) return done(1);
  return attempt === 1 ? { kind: 'failed', error: 'flaky', code: 'FS_FAILED', retryable: true } : done(100);
}

const expected = {
  last: [
    'payload',
    [10, 20, 30].map((item) => ({ one: 1, two: 1 + item + 100 })),
    { more: 8 },
    'timed out after 4000 ms',
    { iterations: 3, exhausted: false, last: { check: 3, sum: 6 } },
  ],
};

const open = (): Promise<Rig> => openRig({ behave });

/** Runs until the execution has ended, triggering its hold. Answers whether the engine died before. */
async function drive(rig: Rig, id: string): Promise<boolean> {
  for (let turn = 0; turn < 200 && !rig.gate.dead; turn += 1) {
    await rig.settle();
    const stored = await rig.store.getExecution(id);
    if (stored === null || stored.header.endedAtMs !== null) return rig.gate.dead;
    if (stored.nodes.some((row) => row.path === 'gate' && row.status === 'Held')) {
      void rig.engine.trigger(id, 'go', 'payload').catch(() => undefined);
      await rig.settle();
    }
    await rig.advance(250);
  }
  return rig.gate.dead;
}

/** Starts the workload, though the engine may die over it. */
async function begin(rig: Rig): Promise<string> {
  await rig.save(inner);
  await rig.save(workload);
  rig.engine
    .startExecution({ project: 'default', workflow: 'workload', input: {}, labels: {}, idempotencyKey: null })
    .catch(() => undefined);
  await rig.settle();
  const { items } = await rig.store.listExecutions({ project: null, workflow: 'workload', limit: 1 });
  return items[0]?.id ?? '';
}

/** Every completion event of an execution and its children. */
async function completions(rig: Rig): Promise<string[]> {
  const { items } = await rig.store.listExecutions({ project: null, withChildren: true, limit: 1_000 });
  const lists = await Promise.all(
    items.map(async ({ id }) =>
      (await rig.events(id))
        .filter(({ type }) => type === 'node.completed')
        .map(({ node, iterations }) => `${id} ${node} ${iterations}`),
    ),
  );
  return lists.flat();
}

describe('recovery', function () {
  this.timeout(120_000);
  afterEach(closeRigs);

  it('without a crash the workload ends as expected', async () => {
    const rig = await open();
    const id = await begin(rig);
    await drive(rig, id);
    expect((await rig.record(id)).error).to.equal(null);
    expect((await rig.record(id)).outputs).to.deep.equal(expected);
  });

  it('after a crash at every commit ends with the same outputs, and runs no completed node again', async () => {
    let commits = Number.POSITIVE_INFINITY;
    for (let dieAt = 1; dieAt <= commits; dieAt += 1) {
      let rig = await open();
      rig.gate.writesLeft = dieAt;
      const id = await begin(rig);
      const died = await drive(rig, id);
      if (!died) {
        commits = 0;
        await rig.close();
        break;
      }
      const before = new Set(await completions(rig));
      const ran = new Set(rig.work.started.map((task) => task.id));
      rig = await rig.crash();
      await drive(rig, id);
      const record = await rig.record(id);
      const message = `crash after write ${dieAt}`;
      expect(record.error, message).to.equal(null);
      expect(record.status, message).to.equal('Complete');
      expect(record.outputs, message).to.deep.equal(expected);
      const after = await completions(rig);
      expect(new Set(after).size, `${message}: completed twice`).to.equal(after.length);
      for (const task of rig.work.started) {
        const key = `${task.executionId} ${task.node} ${task.iterations.length === 0 ? null : task.iterations}`;
        expect(before.has(key), `${message}: ${task.id} ran again`).to.equal(false);
        expect(ran.has(task.id), `${message}: ${task.id} has a number that ran before`).to.equal(false);
      }
      await rig.close();
    }
    expect(commits, 'the loop ended by itself').to.equal(0);
  });

  it('after two crashes, the second soon after the first, too', async () => {
    for (let dieAt = 1; dieAt < 80; dieAt += 7) {
      for (const secondAt of [1, 2, 5]) {
        let rig = await open();
        rig.gate.writesLeft = dieAt;
        const id = await begin(rig);
        if (!(await drive(rig, id))) {
          await rig.close();
          continue;
        }
        const second = await rig.crash();
        second.gate.writesLeft = secondAt;
        await drive(second, id);
        rig = await second.crash();
        await drive(rig, id);
        expect((await rig.record(id)).error, `crashes after ${dieAt} and ${secondAt}`).to.equal(null);
        expect((await rig.record(id)).outputs, `crashes after ${dieAt} and ${secondAt}`).to.deep.equal(expected);
        await rig.close();
      }
    }
  });

  it('after a stop intent at every commit ends in the state of a stop, and runs nothing again', async () => {
    for (let dieAt = 1; ; dieAt += 1) {
      let rig = await open();
      rig.gate.writesLeft = dieAt;
      const id = await begin(rig);
      if (!(await drive(rig, id))) {
        await rig.close();
        expect(dieAt).to.be.greaterThan(30);
        break;
      }
      const message = `crash after write ${dieAt}`;
      const kind = (await rig.store.requestStop(id, { requestId: 'r', requestedAtMs: rig.clock.nowMs() })).kind;
      const was = await rig.statuses(id);
      rig = await rig.crash();
      const record = await rig.record(id);
      if (kind === 'requested') {
        expect(record, message).to.include({ status: 'Failed', error: MARKER, stoppedByUser: true });
        for (const [name, { status, error }] of Object.entries(record.nodes)) {
          expect(status, `${message}: ${name}`).to.equal(was[name] === 'Running' ? 'Failed' : was[name]);
          if (was[name] === 'Running') expect(error, `${message}: ${name}`).to.equal(MARKER);
        }
        expect((await rig.receipt(id)).delivery?.path, message).to.equal('takeover');
        expect((await rig.receipt(id)).unconfirmed, message).to.equal(0);
        await rig.advance(10_000);
        expect(rig.work.started, message).to.deep.equal([]);
        for (const child of await rig.children(id)) {
          const { status, stop } = await rig.record(child);
          expect(['Complete', 'Failed'], message).to.include(status);
          if (stop !== null) expect(stop.requestId, message).to.equal('r');
        }
      }
      await rig.close();
    }
  });

  it('after a stop that was halted and not final ends at once', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: single, nodes: { a: { type: http, with: { url: "http://a/" } }, h: { type: hold, trigger: go } } }',
    );
    rig.work.ignoreAborts = true;
    await rig.stop(id);
    await rig.advance(1_000);
    expect((await rig.record(id)).status).to.equal('Running');
    rig = await rig.crash();
    await rig.settle();
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Failed', h: 'Held' });
    expect((await rig.told(id)).filter((line) => line === 'stop.requested')).to.have.length(1);
    const receipt = await rig.receipt(id);
    expect(receipt.delivery?.path).to.equal('local');
    expect(receipt.haltedMs).to.equal(0);
    expect(receipt.tasks.map(({ outcome }) => outcome)).to.deep.equal(['aborted']);
  });

  for (const halted of [true, false]) {
    it(`after a stop ${halted ? 'that was halted' : 'nobody heard of'}, what outlived its process is unconfirmed until proven gone`, async () => {
      let rig = await openRig();
      const id = await rig.run('{ name: single, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      rig.work.ignoreAborts = true;
      if (halted) await rig.stop(id);
      else await rig.store.requestStop(id, { requestId: 'r', requestedAtMs: rig.clock.nowMs() });
      rig = await rig.crash(1_000, { outlives: true });
      await rig.advance(5_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(rig.work.started).to.deep.equal([]);
      const open = await rig.receipt(id);
      expect(open.tasks.map(({ outcome }) => outcome)).to.deep.equal(['unconfirmed']);
      expect(open.unconfirmed).to.equal(1);
      await rig.advance(3_000);
      expect([...rig.work.pursued.keys()]).to.deep.equal([`${id}/a/-/1`]);
      rig.work.pursued.get(`${id}/a/-/1`)?.({ kind: 'aborted', outcome: 'forced' });
      await rig.settle();
      const closed = await rig.receipt(id);
      expect(closed.tasks[0]).to.include({ outcome: 'forced', ms: 9_000 });
      expect(closed).to.include({ unconfirmed: 0, lateResultsDiscarded: 0 });
      expect((await rig.told(id)).at(-1)).to.equal('execution.failed');
    });
  }

  it('after a timeout whose work was still aborting goes on to its end', async () => {
    let rig = await openRig();
    const id = await rig.run('{ name: single, timeout: 5s, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    rig.work.ignoreAborts = true;
    await rig.advance(6_000);
    expect((await rig.record(id)).status).to.equal('Running');
    rig = await rig.crash();
    await rig.settle();
    expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    expect(rig.work.started).to.deep.equal([]);
  });

  it('keeps the instant of a delay, and fires it once', async () => {
    let rig = await openRig();
    const id = await rig.run('{ name: d, nodes: { a: { type: delay, with: { duration: 10s } } } }');
    const dueMs = rig.clock.nowMs() + 10_000;
    await rig.advance(4_000);
    rig = await rig.crash(3_000);
    await rig.advance(2_999);
    expect((await rig.record(id)).status).to.equal('Running');
    await rig.advance(1);
    expect(await rig.record(id)).to.deep.include({
      status: 'Complete',
      outputs: { a: { until: new Date(dueMs).toISOString() } },
    });
    expect(await rig.node(id, 'a')).to.include({ attempt: 1 });
  });

  it('fires what became due while nobody ran at once', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: d, nodes: { a: { type: delay, with: { duration: 10s } }, b: { type: hold, schedule: 5s } } }',
    );
    rig = await rig.crash(60_000);
    await rig.advance(0);
    expect((await rig.record(id)).status).to.equal('Complete');
  });

  it('keeps the instant of a backoff, its tries and its number', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: r, nodes: { x: { type: set, with: { value: 7 } }, a: { type: http, needs: [x], retry: { attempts: 2, backoff: 10s }, with: { url: "http://a/${{ nodes.x.output }}" } } } }',
    );
    rig.work.fail('a');
    await rig.advance(4_000);
    rig = await rig.crash(2_000);
    await rig.advance(3_999);
    expect(rig.work.started).to.deep.equal([]);
    await rig.advance(1);
    expect(rig.work.started.map((task) => [task.id, task.with])).to.deep.equal([
      [`${id}/a/-/2`, { url: 'http://a/7' }],
    ]);
    rig.work.fail('a');
    await rig.settle();
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', attempt: 2 });
  });

  it('prepares a node whose backoff is over before it tries again', async () => {
    let rig = await openRig();
    await rig.run(
      '{ name: r, nodes: { x: { type: set, with: { value: 7 } }, a: { type: http, needs: [x], retry: { attempts: 2, backoff: 1s }, with: { url: "http://a/${{ nodes.x.output }}" } } } }',
    );
    rig.work.fail('a');
    await rig.settle();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    rig = await rig.crash(60_000, {
      intervene: ({ method }) => (method === 'readResult' ? { holdAfter: held } : undefined),
    });
    await rig.advance(100);
    expect(rig.work.started).to.deep.equal([]);
    release();
    await rig.advance(0);
    expect(rig.work.started.map((task) => task.with)).to.deep.equal([{ url: 'http://a/7' }]);
  });

  it('keeps the deadline of an execution', async () => {
    let rig = await openRig();
    const id = await rig.run('{ name: t, timeout: 10s, nodes: { a: { type: hold, trigger: go } } }');
    await rig.advance(6_000);
    rig = await rig.crash(1_000);
    await rig.advance(2_999);
    expect((await rig.record(id)).status).to.equal('Running');
    await rig.advance(1);
    expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
  });

  it('keeps the deadline of a hold', async () => {
    let rig = await openRig();
    const id = await rig.run('{ name: t, nodes: { a: { type: hold, trigger: go, timeout: 10s } } }');
    await rig.advance(6_000);
    rig = await rig.crash(10_000);
    await rig.advance(0);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
  });

  it('runs a lost attempt again under the next number, and fails after five losses', async () => {
    let rig = await openRig();
    const id = await rig.run('{ name: l, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    for (let attempt = 2; attempt <= 5; attempt += 1) {
      rig = await rig.crash();
      await rig.settle();
      expect(rig.work.running).to.deep.equal([`${id}/a/-/${attempt}`]);
    }
    rig = await rig.crash();
    await rig.settle();
    expect(rig.work.started).to.deep.equal([]);
    expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_LOST' });
  });

  it('does not count losses against the tries', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: l, nodes: { a: { type: http, retry: { attempts: 2, backoff: 1s }, with: { url: "http://a/" } } } }',
    );
    rig = await rig.crash();
    rig = await rig.crash();
    await rig.settle();
    rig.work.fail('a');
    await rig.advance(1_000);
    expect(rig.work.running).to.deep.equal([`${id}/a/-/4`]);
  });

  it('fails what must not run again at its first loss, and never what was only queued by the record', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: l, nodes: { a: { type: http, rerun: false, retry: { attempts: 3 }, with: { url: "http://a/" } }, d: { type: delay, rerun: false, with: { duration: 1s } } } }',
    );
    rig = await rig.crash();
    await rig.advance(1_000);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 1 });
    expect(await rig.node(id, 'd')).to.include({ status: 'Complete', attempt: 1 });
    expect(rig.work.started).to.deep.equal([]);
  });

  it('releases every hold of a trigger that was stored and not taken', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: h, nodes: { a: { type: hold, trigger: go }, b: { type: hold, trigger: go }, c: { type: set, needs: [a, b], with: { value: 1 } } } }',
    );
    rig.gate.intervene = ({ method }) => (method === 'commit' ? 'fail' : undefined);
    await rig.store.putTrigger({ id: 't', executionId: id, name: 'go', payload: 5, atMs: rig.clock.nowMs() });
    rig = await rig.crash();
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Complete', c: 'Complete' });
  });

  it('keeps a trigger for the next hold', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: h, nodes: { w: { type: http, with: { url: "http://w/" } }, a: { type: hold, needs: [w], trigger: go } } }',
    );
    const sent = rig.engine.trigger(id, 'go', 'early');
    await rig.settle();
    await sent;
    rig = await rig.crash();
    await rig.settle();
    rig.work.complete('w');
    await rig.settle();
    expect((await rig.record(id)).outputs).to.deep.equal({ a: 'early' });
  });

  it('follows children in the receipt of a parent that was final before', async () => {
    let rig = await openRig();
    await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const id = await rig.run(
      '{ name: outer, nodes: { one: { type: workflow, with: { workflow: inner } }, two: { type: workflow, with: { workflow: inner } } } }',
    );
    rig.work.ignoreAborts = true;
    await rig.stop(id);
    expect((await rig.receipt(id)).children.map(({ status }) => status)).to.deep.equal(['Running', 'Running']);
    rig = await rig.crash();
    await rig.settle();
    expect((await rig.receipt(id)).children.map(({ status }) => status)).to.deep.equal(['Failed', 'Failed']);
  });

  it('waits for a store that does not answer reads', async () => {
    const yaml = `
name: reads
onFailure: { workflow: handler }
nodes:
  x: { type: set, with: { value: 2 } }
  a: { type: http, needs: [x], with: { url: "http://a/\${{ nodes.x.output }}" } }
  w: { type: while, condition: "iter.last == null", maxIterations: 3, body: { b: { type: http, with: { url: "http://b/" } } } }
  each: { type: foreach, items: "\${{ [1] }}", body: { c: { type: http, with: { url: "http://c/\${{ nodes.x.output }}" } } }, needs: [x] }
  last: { type: fail, needs: [a, w, each], with: { message: "\${{ 'x' + nodes.x.output }}" } }
`;
    let rig = await openRig();
    await rig.save(
      '{ name: handler, inputs: { executionId: { type: string }, workflow: { type: string }, error: { type: string }, errorCode: { type: string } }, nodes: { a: { type: set, with: { value: 1 } } } }',
    );
    const id = await rig.run(yaml);
    // `claimAll`, `recover` and definitions are read before anything goes on: without them no engine starts.
    let failures = 0;
    rig = await rig.crash(0, {
      intervene: ({ method, args }) => {
        const read =
          method.startsWith('read') || method === 'load' || method === 'listChildren' || method === 'getHeader';
        if (!read && !(method === 'getDefinition' && args[1] === 'handler')) return undefined;
        failures += 1;
        return failures % 3 === 0 ? undefined : 'fail';
      },
    });
    for (let turn = 0; turn < 30; turn += 1) {
      await rig.advance(1_000);
      for (const running of rig.work.running) rig.work.complete(running, 1);
    }
    expect(await rig.record(id)).to.include({ status: 'Failed', error: 'x2', errorCode: 'FS_FAIL_NODE' });
    expect(failures).to.be.greaterThan(10);
    const { items } = await rig.store.listExecutions({ project: null, workflow: 'handler', limit: 10 });
    expect(items.map(({ status }) => status)).to.deep.equal(['Complete']);
  });

  it('restarts an execution whose actor breaks, and gives it up after three times, alone', async () => {
    const rig = await openRig();
    const other = await rig.run('{ name: calm, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
    const { start } = rig.work;
    let breaks = 0;
    rig.work.start = function (task, report) {
      if (task.node !== 'broken') return start.call(this, task, report);
      breaks += 1;
      throw new Error('a broken invariant');
    };
    const id = await rig.run(
      '{ name: breaks, nodes: { done: { type: set, with: { value: 1 } }, broken: { type: http, needs: [done], with: { url: "http://b/" } } } }',
    );
    await rig.advance(10_000);
    expect(breaks).to.be.within(1, 6);
    expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_INTERNAL' });
    expect((await rig.node(id, 'done')).status).to.equal('Complete');
    expect((await rig.record(other)).status).to.equal('Running');
    expect(rig.errors.splice(0).length).to.be.greaterThan(0);
  });

  it('goes on with queued executions, oldest first', async () => {
    let rig = await openRig();
    const yaml = '{ name: q, concurrency: { max: 1 }, nodes: { a: { type: http, with: { url: "http://a/" } } } }';
    const ids = [await rig.run(yaml), await rig.start('q'), await rig.start('q')];
    rig = await rig.crash();
    await rig.settle();
    for (const id of ids) {
      expect(rig.work.running).to.have.length(1);
      expect(rig.work.running[0]).to.include(id);
      rig.work.complete('a');
      await rig.settle();
    }
  });

  it('ends children that their parent no longer waits for', async () => {
    let rig = await openRig();
    await rig.save('{ name: inner, nodes: { deep: { type: hold, trigger: go } } }');
    const id = await rig.run(
      '{ name: outer, nodes: { sub: { type: workflow, timeout: 5s, retry: { attempts: 2, backoff: 1h }, with: { workflow: inner } } } }',
    );
    const [child = ''] = await rig.children(id);
    // The parent's commit is stored, the child's is not.
    rig.gate.intervene = ({ method, args }) =>
      method === 'commit' && (args[0] as { executionId: string }).executionId === child ? 'fail' : undefined;
    await rig.advance(5_000);
    expect((await rig.record(child)).status).to.equal('Running');
    rig = await rig.crash();
    await rig.settle();
    expect(await rig.record(child)).to.include({ status: 'Failed', errorCode: 'FS_PARENT_ENDED' });
    expect(await rig.node(id, 'sub')).to.include({ status: 'Running', attempt: 1 });
  });

  /** An expression thread that was too slow this time, for whatever names `nodes.x`. */
  const slow = (): Expressions => {
    const inner = createExpressions();
    return {
      evaluate: inner.evaluate.bind(inner),
      close: () => inner.close(),
      render: (template, scope) =>
        JSON.stringify(template).includes('nodes.x')
          ? Promise.reject(new FullstopError('FS_EXPRESSION', 'ended after 200 ms'))
          : inner.render(template, scope),
    };
  };

  it('ends children whose node cannot be prepared again', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: each, nodes: { x: { type: set, with: { value: [1, 2] } }, each: { type: foreach, needs: [x], items: "${{ nodes.x.output }}", body: { deep: { type: http, with: { url: "http://deep/" } } } }, other: { type: hold, trigger: go } } }',
    );
    rig = await rig.crash(0, { expressions: slow() });
    await rig.advance(1_000);
    expect(await rig.node(id, 'each')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    for (const child of await rig.children(id))
      expect(await rig.record(child)).to.include({ status: 'Failed', errorCode: 'FS_PARENT_ENDED' });
    expect(rig.work.running).to.deep.equal([]);
  });

  it('ends a task at a worker whose node cannot be prepared again', async () => {
    let rig = await openRig({ slots: 0 });
    const worker = new FakeLink();
    await worker.connect(rig);
    const id = await rig.run(
      '{ name: task, nodes: { x: { type: set, with: { value: 7 } }, a: { type: http, needs: [x], with: { url: "http://a/${{ nodes.x.output }}" } } } }',
    );
    expect([...worker.held.keys()]).to.deep.equal([`${id}/a/-/1`]);
    rig = await rig.crash(0, { expressions: slow() });
    await worker.connect(rig);
    await rig.live(2_000, worker);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION' });
    expect([...worker.cancelled, ...worker.beat()]).to.include(`${id}/a/-/1`);
  });

  it('fails a node between tries that cannot be prepared again', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: tries, nodes: { x: { type: set, with: { value: 7 } }, a: { type: http, needs: [x], retry: { attempts: 2, backoff: 10s }, with: { url: "http://a/${{ nodes.x.output }}" } } } }',
    );
    rig.work.fail('a');
    await rig.settle();
    rig = await rig.crash(0, { expressions: slow() });
    await rig.advance(10_000);
    expect(rig.work.started).to.deep.equal([]);
    expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_EXPRESSION', attempt: 1 });
  });

  it('does not begin a queued child whose parent ended', async () => {
    let rig = await openRig();
    await rig.save('{ name: inner, nodes: { deep: { type: http, with: { url: "http://deep/" } } } }');
    const id = await rig.run(
      '{ name: outer, nodes: { x: { type: hold, trigger: go }, sub: { type: workflow, timeout: 5s, with: { workflow: inner } } } }',
    );
    const [child = ''] = await rig.children(id);
    await rig.stop(child);
    rig = await rig.crash();
    await rig.settle();
    expect(rig.work.started).to.deep.equal([]);
    expect((await rig.node(id, 'sub')).errorCode).to.equal('FS_CHILD_STOPPED');
  });

  describe('of what a newer version wrote', () => {
    /** An engine of that version: how it puts down where a node is, this one does not know. */
    const newer: RigOptions['intervene'] = ({ method, args }) => {
      if (method !== 'commit') return undefined;
      for (const row of (args[0] as Commit).nodes)
        if (row.machine !== null) row.machine = { version: 2, state: 'in a state that version 1 has not' };
      return undefined;
    };
    const older = { intervene: () => undefined };
    const all = `
name: all
nodes:
  done: { type: set, with: { value: 1 } }
  call: { type: http, continueOnError: true, retry: { attempts: 3 }, with: { url: "http://call/" } }
  wait: { type: delay, continueOnError: true, with: { duration: 1h } }
  hold: { type: hold, continueOnError: true, trigger: go }
  poll: { type: while, continueOnError: true, condition: "true", maxIterations: 9, body: { ask: { type: http, with: { url: "http://ask/" } }, step: { type: hold, trigger: step } } }
  each: { type: foreach, continueOnError: true, items: "\${{ [1, 2] }}", body: { one: { type: http, with: { url: "http://one/" } } } }
  other: { type: hold, needs: [call, wait, hold, poll, each], trigger: other }
`;
    const nodes = ['call', 'wait', 'hold', 'poll', 'each'];

    it('ends the nodes that it cannot go on with, what they started too, and nothing else', async () => {
      let rig = await openRig({ intervene: newer });
      const id = await rig.run(all);
      rig = await rig.crash(1_000, older);
      await rig.advance(10_000);
      for (const node of nodes)
        expect(await rig.node(id, node)).to.include({ status: 'Failed', errorCode: 'FS_NODE_VERSION', attempt: 1 });
      expect((await rig.node(id, 'call')).error)
        .to.include('version 2')
        .and.include('version 1');
      expect(await rig.node(id, 'poll/ask')).to.include({ status: 'Failed' });
      expect(await rig.statuses(id)).to.include({ done: 'Complete', other: 'Held' });
      for (const child of await rig.children(id)) expect(await rig.record(child)).to.include({ status: 'Failed' });
      expect(rig.work.started).to.deep.equal([]);
      await rig.engine.trigger(id, 'other', 1);
      await rig.settle();
      expect((await rig.record(id)).outputs).to.deep.equal({ done: 1, other: 1 });
    });

    it('ends the body of such a loop, before the loop', async () => {
      let rig = await openRig({
        intervene: ({ method, args }) => {
          if (method !== 'commit') return undefined;
          for (const row of (args[0] as Commit).nodes)
            if (row.machine !== null && row.type === 'while') row.machine = { version: 2 };
          return undefined;
        },
      });
      const id = await rig.run(
        '{ name: loop, nodes: { poll: { type: while, condition: "true", maxIterations: 9, body: { ask: { type: http, with: { url: "http://ask/" } } } } } }',
      );
      rig = await rig.crash(1_000, { ...older, outlives: true });
      await rig.advance(1_000);
      expect(rig.work.started).to.deep.equal([]);
      expect((await rig.node(id, 'poll')).status).to.equal('Running');
      for (const report of rig.work.pursued.values()) report({ kind: 'aborted', outcome: 'aborted' });
      await rig.settle();
      expect(await rig.node(id, 'poll')).to.include({ status: 'Failed', errorCode: 'FS_NODE_VERSION' });
      expect(await rig.node(id, 'poll/ask')).to.include({ status: 'Failed', errorCode: 'FS_NODE_VERSION' });
    });

    it('ends a task of such a node that a worker has', async () => {
      let rig = await openRig({ intervene: newer, slots: 0 });
      const worker = new FakeLink();
      await worker.connect(rig);
      const id = await rig.run('{ name: task, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      rig = await rig.crash(1_000, older);
      await worker.connect(rig);
      await rig.live(2_000, worker);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_NODE_VERSION' });
      expect([...worker.cancelled, ...worker.beat()]).to.include(`${id}/a/-/1`);
    });

    for (const end of ['a stop', 'its timeout']) {
      it(`ends it where ${end} was halted before`, async () => {
        let rig = await openRig({ intervene: newer });
        const id = await rig.run(
          '{ name: single, timeout: 5s, nodes: { a: { type: http, with: { url: "http://a/" } }, h: { type: hold, trigger: go } } }',
        );
        rig.work.ignoreAborts = true;
        if (end === 'a stop') await rig.stop(id);
        await rig.advance(end === 'a stop' ? 1_000 : 6_000);
        expect((await rig.record(id)).status).to.equal('Running');
        rig = await rig.crash(0, older);
        await rig.settle();
        const error = end === 'a stop' ? MARKER : 'execution timed out after 5000 ms';
        expect(await rig.record(id)).to.include({ status: 'Failed', error });
        expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error });
        expect(await rig.statuses(id)).to.deep.equal({ a: 'Failed', h: 'Held' });
      });
    }

    it('stops it as any other', async () => {
      let rig = await openRig({ intervene: newer });
      const id = await rig.run(all);
      await rig.store.requestStop(id, { requestId: 'r', requestedAtMs: rig.clock.nowMs() });
      rig = await rig.crash(1_000, older);
      await rig.settle();
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.statuses(id)).to.deep.equal({
        done: 'Complete',
        call: 'Failed',
        wait: 'Failed',
        hold: 'Held',
        poll: 'Failed',
        each: 'Failed',
        other: 'Pending',
      });
      for (const node of ['call', 'wait', 'poll', 'each', 'poll/ask'])
        expect((await rig.node(id, node)).error).to.equal(MARKER);
      expect((await rig.node(id, 'poll/step')).status).to.equal('Held');
    });
  });

  it('loses and doubles nothing when the answers of commits are lost', async () => {
    const rig = await open();
    const lost = new Set<string>();
    rig.gate.intervene = ({ method, args }) => {
      if (method !== 'commit' && method !== 'createExecution') return undefined;
      const key =
        method === 'commit'
          ? `${(args[0] as { executionId: string }).executionId} ${(args[0] as { v: number }).v}`
          : JSON.stringify((args[0] as { uniqueKey: string }).uniqueKey);
      if (lost.has(key)) return undefined;
      lost.add(key);
      return key === 'null' ? undefined : 'lose';
    };
    const id = await begin(rig);
    for (let turn = 0; turn < 10; turn += 1) await drive(rig, id);
    expect((await rig.record(id)).error).to.equal(null);
    expect((await rig.record(id)).outputs).to.deep.equal(expected);
    const children = await rig.children(id);
    expect(children).to.have.length(4);
    expect(new Set(rig.work.started.map((task) => task.id)).size).to.equal(rig.work.started.length);
  });

  it('waits while the store takes no commits, and goes on when it does', async () => {
    const rig = await open();
    const id = await begin(rig);
    await rig.advance(500);
    rig.gate.intervene = ({ method }) => (method === 'commit' ? 'fail' : undefined);
    await rig.advance(30_000);
    expect((await rig.record(id)).status).to.equal('Running');
    rig.gate.intervene = () => undefined;
    await drive(rig, id);
    await drive(rig, id);
    expect((await rig.record(id)).outputs).to.deep.equal(expected);
  });

  it('drops an execution that another engine has taken over, and writes nothing more', async () => {
    const rig = await openRig();
    const id = await rig.run(
      '{ name: f, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: set, needs: [a], with: { value: 1 } } } }',
    );
    await rig.store.claimAll('another');
    rig.work.complete('a');
    await rig.settle();
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Running', b: 'Pending' });
    expect(rig.errors.splice(0)).to.have.length(1);
    expect(rig.engine.describe().executions).to.deep.equal({ running: 0, pending: 0, parked: 0 });
  });

  it('costs a node the same in a large execution: nothing looks at all that it is part of', () => {
    // Whoever searches what an actor's context refers to lists the keys of its edge.
    const edge = new Proxy({}, { ownKeys: () => expect.fail('looked through the edge') });
    for (const logic of [executionLogic, ...Object.values(nodeLogics)]) {
      const [value] = Object.keys(logic.states);
      const snapshot = logic.resolveState({ value, context: { edge } } as never);
      const actor = createActor(logic, { snapshot } as never);
      expect(actor.getSnapshot()).to.include({ status: 'active', value });
    }
  });

  it('drains: starts nothing more, lets work end, marks no stop', async () => {
    let rig = await openRig();
    const id = await rig.run(
      '{ name: d, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: http, needs: [a], with: { url: "http://b/" } }, c: { type: http, with: { url: "http://c/" } } } }',
    );
    const drained = rig.engine.drain(10_000);
    await rig.advance(1_000);
    rig.work.complete('a', 1);
    await rig.advance(20_000);
    await drained;
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Pending', c: 'Running' });
    expect((await rig.record(id)).stop).to.equal(null);
    rig = await rig.crash();
    await rig.settle();
    expect(rig.work.running).to.have.members([`${id}/b/-/1`, `${id}/c/-/2`]);
  });
});
