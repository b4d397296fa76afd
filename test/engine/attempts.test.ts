import { expect } from 'chai';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

describe('attempts of a node', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  const call = (keys = ''): string =>
    `{ name: call, nodes: { a: { type: http, ${keys} with: { url: "http://a/" } } } }`;

  describe('retry', () => {
    it('waits backoff, then factor times as long, and at most maxBackoff', async () => {
      const id = await rig.run(call('retry: { attempts: 5, backoff: 1s, factor: 3, maxBackoff: 5s },'));
      const waits: number[] = [];
      for (let attempt = 1; attempt <= 5; attempt += 1) {
        const from = rig.clock.nowMs();
        while (rig.work.started.length < attempt) await rig.advance(100);
        waits.push(rig.clock.nowMs() - from);
        rig.work.fail('a');
        await rig.settle();
      }
      expect(waits).to.deep.equal([0, 1_000, 3_000, 5_000, 5_000]);
      expect(await rig.node(id, 'a')).to.include({
        status: 'Failed',
        attempt: 5,
        error: 'broken',
        errorCode: 'FS_FAILED',
      });
    });

    it('is Running between tries, with the error of the last, and tells when it goes on', async () => {
      const id = await rig.run(call('retry: { attempts: 2 },'));
      rig.work.fail('a', 'no answer');
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', error: 'no answer', attempt: 1 });
      const event = (await rig.events(id)).find(({ type }) => type === 'node.retrying');
      expect(event).to.deep.include({ node: 'a', attempt: 1 });
      expect(event?.data).to.include({ error: 'no answer', wakeAtMs: rig.clock.nowMs() + 1_000 });
      await rig.advance(1_000);
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', error: null, attempt: 2 });
      rig.work.complete('a', 1);
      await rig.settle();
      expect(await rig.told(id)).to.deep.equal([
        'execution.created',
        'execution.started',
        'node.started a',
        'task.queued a',
        'node.retrying a',
        'node.started a',
        'task.queued a',
        'node.completed a',
        'execution.completed',
      ]);
    });

    it('tries once by default', async () => {
      const id = await rig.run(call());
      rig.work.fail('a');
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Failed');
    });

    it('does not try again what cannot succeed', async () => {
      const id = await rig.run(call('retry: { attempts: 3 },'));
      rig.work.fail('a', 'forbidden', false);
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', attempt: 1 });
    });

    it('tries a fail node as often as it says', async () => {
      const id = await rig.run(
        '{ name: f, nodes: { a: { type: fail, retry: { attempts: 3, backoff: 1s, factor: 1 }, with: { message: no } } } }',
      );
      await rig.advance(5_000);
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', attempt: 3 });
    });

    it('sends the same key with every attempt', async () => {
      await rig.run(call('retry: { attempts: 2 },'));
      rig.work.fail('a');
      await rig.advance(1_000);
      expect(new Set(rig.work.started.map((task) => task.idempotencyKey)).size).to.equal(1);
      expect(new Set(rig.work.started.map((task) => task.id)).size).to.equal(2);
    });

    it('takes a lost task up again under the next number, and counts it apart', async () => {
      const id = await rig.run(call('retry: { attempts: 1 },'));
      for (let loss = 1; loss <= 4; loss += 1) {
        rig.work.answer('a', { kind: 'lost' });
        await rig.settle();
      }
      expect(await rig.node(id, 'a')).to.include({ status: 'Running', attempt: 5 });
      rig.work.answer('a', { kind: 'lost' });
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 5 });
    });

    it('fails at the first loss with rerun: false', async () => {
      const id = await rig.run(call('rerun: false, retry: { attempts: 3 },'));
      rig.work.answer('a', { kind: 'lost' });
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 1 });
    });
  });

  describe('timeout', () => {
    it('fails an attempt and aborts its work', async () => {
      const id = await rig.run(call('timeout: 3s,'));
      await rig.advance(2_999);
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      await rig.advance(1);
      expect(await rig.node(id, 'a')).to.include({
        status: 'Failed',
        errorCode: 'FS_TIMEOUT',
        error: 'timed out after 3000 ms',
      });
      expect(rig.work.aborted).to.deep.equal([`${id}/a/-/1`]);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('of an attempt whose start was not durable in time: it never ran, and the next runs once', async () => {
      const mendedAtMs = rig.clock.nowMs() + 650;
      rig.gate.intervene = ({ method }) => (method === 'commit' && rig.clock.nowMs() < mendedAtMs ? 'fail' : undefined);
      const id = await rig.run(call('timeout: 500ms, retry: { attempts: 2, backoff: 100ms },'));
      await rig.advance(1_000);
      expect(rig.work.started.map((task) => task.id)).to.deep.equal([`${id}/a/-/2`]);
      const start = rig.trace.findIndex((line) => line.includes('work.start'));
      expect(rig.trace.slice(0, start).join()).to.include('"attempt":2');
    });

    it('counts anew for each attempt', async () => {
      const id = await rig.run(call('timeout: 3s, retry: { attempts: 2, backoff: 2s },'));
      await rig.advance(3_000);
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      await rig.advance(2_000);
      expect(rig.work.running).to.deep.equal([`${id}/a/-/2`]);
      await rig.advance(2_999);
      rig.work.complete('a', 1);
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Complete');
    });

    it('discards the result of an attempt that timed out', async () => {
      rig.work.ignoreAborts = true;
      const id = await rig.run(call('timeout: 3s, retry: { attempts: 2, backoff: 2s },'));
      await rig.advance(3_000);
      rig.work.complete(`${id}/a/-/1`, 'late');
      await rig.settle();
      expect((await rig.node(id, 'a')).status).to.equal('Running');
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
      await rig.advance(2_000);
      rig.work.complete(`${id}/a/-/2`, 'in time');
      await rig.settle();
      expect(await rig.output(id, 'a')).to.equal('in time');
    });

    it('ends a delay and a hold', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { d: { type: delay, timeout: 1s, with: { duration: 1h } }, h: { type: hold, timeout: 2s, trigger: go } } }',
      );
      await rig.advance(1_000);
      expect(await rig.statuses(id)).to.deep.equal({ d: 'Failed', h: 'Held' });
      await rig.advance(1_000);
      expect(await rig.statuses(id)).to.deep.equal({ d: 'Failed', h: 'Failed' });
      expect(await rig.node(id, 'h')).to.include({ errorCode: 'FS_TIMEOUT', error: 'timed out after 2000 ms' });
    });

    it('holds again in the next try', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { h: { type: hold, timeout: 2s, retry: { attempts: 2, backoff: 1s }, trigger: go } } }',
      );
      await rig.advance(2_000);
      expect((await rig.node(id, 'h')).status).to.equal('Running');
      await rig.advance(1_000);
      expect(await rig.node(id, 'h')).to.include({ status: 'Held', attempt: 2 });
      await rig.advance(2_000);
      expect(await rig.node(id, 'h')).to.include({ status: 'Failed', attempt: 2 });
    });

    it('does not touch what ends in time', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { s: { type: set, timeout: 1ms, with: { value: 1 } }, d: { type: delay, timeout: 1h, with: { duration: 1s } } } }',
      );
      await rig.advance(7_200_000);
      expect((await rig.record(id)).status).to.equal('Complete');
    });

    it('of a while ends its body first, and every body node with it', async () => {
      const id = await rig.run(`
name: t
nodes:
  poll:
    type: while
    timeout: 3s
    condition: "true"
    maxIterations: 9
    body:
      a: { type: http, continueOnError: true, with: { url: "http://a/" } }
      b: { type: set, needs: [a], with: { value: 1 } }
      h: { type: hold, trigger: go }
      inner: { type: while, condition: "true", maxIterations: 9, body: { c: { type: http, continueOnError: true, with: { url: "http://c/" } }, d: { type: http, needs: [c], with: { url: "http://d/" } } } }
`);
      rig.work.ignoreAborts = true;
      await rig.advance(3_000);
      expect(await rig.node(id, 'poll')).to.include({ status: 'Running' });
      expect(rig.work.aborted).to.have.members([`${id}/poll/a/0@1/1`, `${id}/poll/inner/c/0@1,0@1/1`]);
      rig.work.answer('poll/inner/c', { kind: 'aborted', outcome: 'aborted' });
      rig.work.answer('poll/a', { kind: 'aborted', outcome: 'aborted' });
      await rig.settle();
      expect(await rig.node(id, 'poll')).to.include({
        status: 'Failed',
        errorCode: 'FS_TIMEOUT',
        error: 'timed out after 3000 ms',
      });
      expect(await rig.node(id, 'poll/a')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      expect((await rig.node(id, 'poll/b')).status).to.equal('Pending');
      expect((await rig.node(id, 'poll/h')).status).to.equal('Held');
      expect((await rig.record(id)).status).to.equal('Failed');
      expect(rig.work.started.map(({ node }) => node)).to.have.members(['poll/a', 'poll/inner/c']);
    });

    it('of a while waits no longer than the grace for a body that ignores it', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { poll: { type: while, timeout: 3s, condition: "true", maxIterations: 9, body: { a: { type: http, with: { url: "http://a/" } } } } } }',
      );
      rig.work.ignoreAborts = true;
      await rig.advance(3_000 + 5_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('of a while leads to its next try, at iteration 0', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { poll: { type: while, timeout: 3s, retry: { attempts: 2, backoff: 1s }, condition: "true", maxIterations: 9, body: { a: { type: http, with: { url: "http://a/" } } } } } }',
      );
      rig.work.complete('poll/a');
      await rig.advance(4_000);
      expect(rig.work.started.map((task) => task.id)).to.deep.equal([
        `${id}/poll/a/0@1/1`,
        `${id}/poll/a/1@1/1`,
        `${id}/poll/a/0@2/1`,
      ]);
    });

    it('of a while in its pause', async () => {
      const id = await rig.run(
        '{ name: t, nodes: { poll: { type: while, timeout: 3s, delay: 1h, condition: "true", maxIterations: 9, body: { a: { type: set, with: { value: 1 } } } } } }',
      );
      await rig.advance(3_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('of a foreach and of a workflow ends the children, which are not stopped', async () => {
      await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      const id = await rig.run(`
name: t
nodes:
  each: { type: foreach, timeout: 3s, items: "\${{ [1, 2, 3] }}", concurrency: 2, body: { a: { type: http, with: { url: "http://a/" } } } }
  sub: { type: workflow, timeout: 3s, with: { workflow: inner } }
`);
      await rig.advance(3_000);
      expect(await rig.node(id, 'each')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      expect(await rig.node(id, 'sub')).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
      const children = await rig.children(id);
      expect(children).to.have.length(3);
      for (const child of children) {
        const record = await rig.record(child);
        expect(record).to.include({
          status: 'Failed',
          error: 'ended with its parent',
          errorCode: 'FS_PARENT_ENDED',
          stop: null,
          stoppedByUser: false,
        });
      }
      expect(rig.work.running).to.deep.equal([]);
    });

    it('of a workflow ends a child whose creation is on its way', async () => {
      await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      let release = (): void => undefined;
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      rig.gate.intervene = ({ method, args }) =>
        method === 'createExecution' && JSON.stringify(args[0]).includes('"node":"sub"')
          ? { holdAfter: held }
          : undefined;
      const id = await rig.run(
        '{ name: t, nodes: { sub: { type: workflow, timeout: 3s, with: { workflow: inner } } } }',
      );
      await rig.advance(3_000);
      release();
      await rig.settle();
      const [child = ''] = await rig.children(id);
      expect(await rig.record(child)).to.include({ status: 'Failed', errorCode: 'FS_PARENT_ENDED' });
      expect(rig.work.started).to.deep.equal([]);
    });
  });

  describe('timeout of the whole execution', () => {
    it('ends it Failed with FS_TIMEOUT, its work aborted, and is no stop', async () => {
      await rig.save('{ name: inner, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      const id = await rig.run(`
name: t
timeout: 3s
nodes:
  done: { type: set, with: { value: 1 } }
  a: { type: http, retry: { attempts: 3 }, with: { url: "http://a/" } }
  next: { type: set, needs: [a], with: { value: 1 } }
  d: { type: delay, with: { duration: 1h } }
  h: { type: hold, trigger: go }
  sub: { type: workflow, with: { workflow: inner } }
`);
      await rig.advance(3_000);
      expect(await rig.record(id)).to.include({
        status: 'Failed',
        errorCode: 'FS_TIMEOUT',
        stop: null,
        stoppedByUser: false,
      });
      expect(await rig.statuses(id)).to.deep.equal({
        done: 'Complete',
        a: 'Failed',
        next: 'Pending',
        d: 'Failed',
        h: 'Held',
        sub: 'Failed',
      });
      expect(await rig.node(id, 'a')).to.include({ errorCode: 'FS_TIMEOUT' });
      const [child = ''] = await rig.children(id);
      expect(await rig.record(child)).to.include({ errorCode: 'FS_PARENT_ENDED', stop: null });
      expect(rig.work.running).to.deep.equal([]);
      expect(await rig.store.getReceipt(id)).to.equal(null);
    });

    it('waits no longer than the grace for work that ignores its abort', async () => {
      const id = await rig.run('{ name: t, timeout: 3s, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
      rig.work.ignoreAborts = true;
      await rig.advance(7_999);
      expect((await rig.record(id)).status).to.equal('Running');
      await rig.advance(1);
      expect(await rig.record(id)).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('counts from its start, not from its creation', async () => {
      const yaml =
        '{ name: t, timeout: 3s, concurrency: { max: 1 }, nodes: { a: { type: http, with: { url: "http://a/" } } } }';
      await rig.run(yaml);
      const second = await rig.start('t');
      await rig.advance(3_000);
      expect((await rig.record(second)).status).to.equal('Running');
      await rig.advance(2_999);
      expect((await rig.record(second)).status).to.equal('Running');
      await rig.advance(1);
      expect((await rig.record(second)).errorCode).to.equal('FS_TIMEOUT');
    });

    it('comes too late for what has ended', async () => {
      const id = await rig.run('{ name: t, timeout: 3s, nodes: { a: { type: set, with: { value: 1 } } } }');
      await rig.advance(3_000);
      expect((await rig.record(id)).status).to.equal('Complete');
    });
  });
});
