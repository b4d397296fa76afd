import { expect } from 'chai';
import { closeRigs, openRig, type Rig } from '../support/engine.ts';

const MARKER = 'workflow stopped by user';

const everything = `
name: everything
nodes:
  done: { type: set, with: { value: kept } }
  skipped: { type: set, if: "false", with: { value: 1 } }
  failed: { type: fail, continueOnError: true, with: { message: own error } }
  call: { type: http, with: { url: "http://call/" } }
  wait: { type: delay, with: { duration: 1h } }
  held: { type: hold, trigger: go }
  tries: { type: http, retry: { attempts: 3, backoff: 1h }, with: { url: "http://tries/" } }
  poll: { type: while, condition: "true", maxIterations: 9, body: { check: { type: http, with: { url: "http://check/" } }, after: { type: set, needs: [check], with: { value: 1 } } } }
  each: { type: foreach, items: "\${{ [1, 2] }}", body: { item: { type: http, with: { url: "http://item/" } } } }
  sub: { type: workflow, with: { workflow: inner } }
  pending: { type: set, needs: [call], with: { value: 1 } }
`;
const inner = '{ name: inner, nodes: { deep: { type: http, with: { url: "http://deep/" } } } }';
const single =
  '{ name: single, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: set, needs: [a], with: { value: 1 } } } }';

interface Deferred {
  promise: Promise<void>;
  resolve: () => void;
}

function deferred(): Deferred {
  let resolve = (): void => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

describe('a stop', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = await openRig();
  });
  afterEach(closeRigs);

  describe('of an execution with a node in every state', () => {
    let id: string;
    let before: string[];
    beforeEach(async () => {
      await rig.save(inner);
      id = await rig.run(everything);
      rig.work.fail('tries', 'not now');
      await rig.settle();
      before = rig.work.started.map((task) => task.id);
    });

    const table: [node: string, before: string, after: string, error: string | null][] = [
      ['done', 'Complete', 'Complete', null],
      ['failed', 'Failed', 'Failed', 'own error'],
      ['skipped', 'Skipped', 'Skipped', null],
      ['pending', 'Pending', 'Pending', null],
      ['held', 'Held', 'Held', null],
      ['wait', 'Running', 'Failed', MARKER],
      ['call', 'Running', 'Failed', MARKER],
      ['tries', 'Running', 'Failed', MARKER],
      ['poll', 'Running', 'Failed', MARKER],
      ['poll/check', 'Running', 'Failed', MARKER],
      ['poll/after', 'Pending', 'Pending', null],
      ['each', 'Running', 'Failed', MARKER],
      ['sub', 'Running', 'Failed', MARKER],
    ];
    for (const [name, was, is, error] of table) {
      it(`leaves ${name}, ${was} before, ${is}${error === null ? '' : ` with "${error}"`}`, async () => {
        expect((await rig.node(id, name)).status).to.equal(was);
        await rig.stop(id);
        expect(await rig.node(id, name)).to.include({ status: is, error });
      });
    }

    it('ends it Failed with exactly the marker', async () => {
      await rig.stop(id);
      expect(await rig.record(id)).to.include({
        status: 'Failed',
        error: MARKER,
        errorCode: 'FS_STOPPED',
        stoppedByUser: true,
        outputs: null,
      });
      expect(await rig.output(id, 'done')).to.equal('kept');
    });

    it('aborts every task, and starts nothing any more', async () => {
      await rig.stop(id);
      expect(rig.work.running).to.deep.equal([]);
      await rig.advance(7_200_000);
      expect(rig.work.started.map((task) => task.id)).to.deep.equal(before);
      const told = await rig.told(id);
      const stopAt = told.indexOf('stop.requested');
      expect(told.slice(stopAt, stopAt + 2)).to.deep.equal(['stop.requested', 'stop.delivered']);
      expect(told.at(-1)).to.equal('execution.failed');
    });

    it('stops its children with the same request, and the receipt follows them', async () => {
      const outcome = await rig.stop(id);
      const children = await rig.children(id);
      expect(children).to.have.length(3);
      for (const child of children) {
        const record = await rig.record(child);
        expect(record).to.include({ status: 'Failed', error: MARKER });
        expect(record.stop?.requestId).to.equal((outcome as { requestId: string }).requestId);
      }
      const { children: listed } = await rig.receipt(id);
      expect(listed.map((child) => child.executionId)).to.have.members(children);
      expect(listed.map((child) => child.status)).to.deep.equal(['Failed', 'Failed', 'Failed']);
    });

    it('previews what it will do', async () => {
      const preview = await rig.engine.previewStop(id);
      expect(preview?.willAbort.map(({ node }) => node)).to.have.members([
        'wait',
        'call',
        'tries',
        'poll',
        'poll/check',
        'each',
        'sub',
      ]);
      expect(preview?.kept).to.deep.equal({ Complete: 1, Failed: 1, Skipped: 1 });
      expect(preview?.stayHeld).to.deep.equal([{ node: 'held' }]);
      expect(preview?.stayPending.map(({ node }) => node)).to.have.members(['pending', 'poll/after']);
      expect(preview?.children).to.have.length(3);
    });

    it('gives a receipt that names each task and nobody', async () => {
      await rig.advance(100);
      await rig.stop(id);
      const receipt = await rig.receipt(id);
      expect(receipt.delivery).to.deep.equal({ path: 'local', ms: 0 });
      expect(receipt).to.include({ haltedMs: 0, finalisedMs: 0, unconfirmed: 0, lateResultsDiscarded: 0 });
      expect(receipt.tasks.map(({ node, outcome }) => [node, outcome])).to.have.deep.members([
        ['call', 'aborted'],
        ['poll/check', 'aborted'],
      ]);
    });
  });

  it('of what is unknown, ended by itself, or stopped before says so', async () => {
    expect(await rig.stop('00000000-0000-7000-8000-000000000000')).to.deep.equal({ kind: 'missing' });
    const ended = await rig.run('{ name: quick, nodes: { a: { type: set, with: { value: 1 } } } }');
    expect(await rig.stop(ended)).to.deep.equal({ kind: 'ended', status: 'Complete' });
    const id = await rig.run(single);
    const first = (await rig.stop(id)) as { requestId: string };
    expect(await rig.stop(id)).to.deep.include({ kind: 'stopped', requestId: first.requestId });
    const before = await rig.events(id);
    await rig.stop(id);
    expect(await rig.events(id)).to.deep.equal(before);
  });

  it('repeated while it waits is the same stop', async () => {
    rig.work.ignoreAborts = true;
    const id = await rig.run(single);
    const first = (await rig.stop(id)) as { requestId: string };
    const second = await rig.stop(id);
    expect(second).to.deep.include({ kind: 'requested', repeated: true, requestId: first.requestId });
    expect(rig.work.aborted).to.have.length(1);
    expect((await rig.told(id)).filter((line) => line === 'stop.requested')).to.have.length(1);
    await rig.advance(5_000);
  });

  it('of an execution with nothing live but Held nodes ends at once, and they stay Held', async () => {
    const id = await rig.run(
      '{ name: held, nodes: { a: { type: hold, trigger: go }, b: { type: hold, schedule: 1h } } }',
    );
    await rig.stop(id);
    expect((await rig.record(id)).status).to.equal('Failed');
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Held', b: 'Held' });
    await rig.advance(3_600_000);
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Held', b: 'Held' });
  });

  describe('of a queued execution', () => {
    const one = single.replace('nodes:', 'concurrency: { max: 1 }, nodes:');

    it('ends it with the marker, no node started', async () => {
      const first = await rig.run(one);
      const second = await rig.start('single');
      expect((await rig.record(second)).status).to.equal('Pending');
      await rig.stop(second);
      expect(await rig.record(second)).to.include({ status: 'Failed', error: MARKER, startedAt: null });
      expect(await rig.statuses(second)).to.deep.equal({ a: 'Pending', b: 'Pending' });
      rig.work.complete(`${first}/a/-/1`);
      await rig.settle();
      expect(await rig.record(second)).to.include({ status: 'Failed', startedAt: null });
    });

    it('frees its place in the queue, and no other', async () => {
      const ids = [await rig.run(one), await rig.start('single'), await rig.start('single'), await rig.start('single')];
      await rig.stop(ids[1] ?? '');
      const statuses = async () => Promise.all(ids.map(async (id) => (await rig.record(id)).status));
      expect(await statuses()).to.deep.equal(['Running', 'Failed', 'Pending', 'Pending']);
      rig.work.complete(`${ids[0]}/a/-/1`);
      await rig.settle();
      expect(await statuses()).to.deep.equal(['Complete', 'Failed', 'Running', 'Pending']);
    });

    it('wins over an admission that comes in the same turn', async () => {
      const first = await rig.run(one);
      const second = await rig.start('single');
      const gate = deferred();
      rig.gate.intervene = ({ method, args }) =>
        method === 'requestStop' && args[0] === second ? { holdAfter: gate.promise } : undefined;
      const stopping = rig.engine.requestStop(second);
      await rig.settle();
      // Its predecessor ends: it is admitted, though its intent is stored already.
      rig.work.complete(`${first}/a/-/1`);
      await rig.settle();
      gate.resolve();
      await rig.settle();
      await stopping;
      expect(await rig.record(second)).to.include({ status: 'Failed', error: MARKER });
      expect(rig.work.started.map((task) => task.executionId)).to.deep.equal([first]);
      const third = await rig.start('single');
      expect((await rig.record(third)).status).to.equal('Running');
    });
  });

  describe('that meets a commit', () => {
    /** Holds the commits of an execution that match, before or after they are applied. */
    function holdCommits(when: 'holdBefore' | 'holdAfter', match: (text: string) => boolean): Deferred {
      const gate = deferred();
      rig.gate.intervene = ({ method, args }) => {
        if (method !== 'commit' || !match(JSON.stringify(args[0]))) return undefined;
        return { [when]: gate.promise } as { holdAfter: Promise<void> };
      };
      return gate;
    }

    it('between the start of a task and its commit: it never ran, and stays Pending', async () => {
      const gate = holdCommits('holdBefore', (text) => text.includes('"task.queued"'));
      const id = await rig.run(single);
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER, startedAt: null });
      expect(await rig.statuses(id)).to.deep.equal({ a: 'Pending', b: 'Pending' });
      expect(rig.work.started).to.deep.equal([]);
    });

    it('between the commit of a task and its start: neverStarted', async () => {
      const gate = holdCommits('holdAfter', (text) => text.includes('"task.queued"'));
      const id = await rig.run(single);
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER, attempt: 1 });
      expect(rig.work.started).to.deep.equal([]);
      expect((await rig.receipt(id)).tasks).to.deep.include({
        node: 'a',
        attempt: 1,
        type: 'http',
        where: 'worker',
        outcome: 'neverStarted',
        ms: 0,
      });
    });

    it('while a result is being committed: the intent was first, so the result is not accepted', async () => {
      const id = await rig.run(single);
      const gate = holdCommits('holdBefore', (text) => text.includes('"node.completed"'));
      rig.work.complete('a', 'late');
      await rig.settle();
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER, hasOutput: false });
      expect(await rig.statuses(id)).to.deep.equal({ a: 'Failed', b: 'Pending' });
      expect((await rig.receipt(id)).tasks.map(({ outcome }) => outcome)).to.deep.equal(['finishedFirst']);
    });

    it('after a result was committed, before the answer: the result stays, what it made ready ends with the marker', async () => {
      const id = await rig.run(
        '{ name: two, nodes: { a: { type: http, with: { url: "http://a/" } }, b: { type: http, needs: [a], with: { url: "http://b/" } }, c: { type: set, needs: [a], with: { value: 1 } } } }',
      );
      const gate = holdCommits('holdAfter', (text) => text.includes('"node.completed"'));
      rig.work.complete('a', 'in time');
      await rig.settle();
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Complete', hasOutput: true });
      expect(await rig.node(id, 'b')).to.include({ status: 'Failed', error: MARKER });
      expect(rig.work.started.map(({ node }) => node)).to.deep.equal(['a']);
      // It was in the same commit, whole.
      expect((await rig.node(id, 'c')).status).to.equal('Complete');
    });

    it('with a result in memory that no commit has taken: not accepted', async () => {
      const id = await rig.run(single);
      const stopping = rig.engine.requestStop(id);
      rig.work.complete('a', 'late');
      await rig.settle();
      await stopping;
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER });
    });

    it('that is the last: its receipt tells of the end when it is durable', async () => {
      const id = await rig.run(single);
      const gate = holdCommits('holdBefore', (text) => text.includes('"execution.failed"'));
      await rig.stop(id);
      await rig.settle();
      expect(await rig.record(id)).to.include({ endedAt: null });
      expect(await rig.engine.receipt(id)).to.include({ finalisedAt: null, finalisedMs: null });
      gate.resolve();
      await rig.settle();
      expect((await rig.engine.receipt(id))?.finalisedAt).to.equal((await rig.record(id)).endedAt);
    });

    it('that is the last: either is decided by the store, never both', async () => {
      for (const when of ['holdBefore', 'holdAfter'] as const) {
        const id = await rig.run('{ name: last, nodes: { a: { type: http, with: { url: "http://a/" } } } }');
        const gate = holdCommits(when, (text) => text.includes('"final":true') && text.includes(id));
        rig.work.complete(`${id}/a/-/1`);
        await rig.settle();
        const stopping = rig.engine.requestStop(id);
        gate.resolve();
        await rig.settle();
        const outcome = await stopping;
        const record = await rig.record(id);
        if (when === 'holdBefore') {
          expect(outcome.kind).to.equal('requested');
          expect(record).to.include({ status: 'Failed', error: MARKER });
        } else {
          expect(outcome).to.deep.equal({ kind: 'ended', status: 'Complete' });
          expect(record.status).to.equal('Complete');
        }
      }
    });

    it('of the halt itself, twice: the second changes nothing', async () => {
      const id = await rig.run(single);
      const gate = holdCommits('holdBefore', (text) => text.includes('"stop.halted"'));
      await rig.stop(id);
      await rig.stop(id);
      gate.resolve();
      await rig.settle();
      expect((await rig.record(id)).status).to.equal('Failed');
      expect((await rig.told(id)).filter((line) => line === 'stop.halted')).to.have.length(1);
    });
  });

  it('while a node waits for an expression leaves it Pending', async () => {
    const id = await rig.run(`
name: thinking
nodes: { a: { type: set, with: { value: [1] } }, b: { type: set, needs: [a], if: "nodes.a.output.all(n, n > 0)", with: { value: 1 } } }
`);
    await rig.stop(id);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await rig.settle();
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    expect(await rig.statuses(id)).to.deep.equal({ a: 'Complete', b: 'Pending' });
  });

  it('while outputs are evaluated wins', async () => {
    const id = await rig.run(`
name: summing
nodes: { a: { type: set, with: { value: [1] } } }
outputs: { all: "\${{ nodes.a.output.map(n, n + 1) }}" }
`);
    expect((await rig.record(id)).status).to.equal('Running');
    await rig.stop(id);
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER, outputs: null });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await rig.settle();
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER, outputs: null });
  });

  it('in the middle of a fast loop starts no further iteration', async () => {
    const id = await rig.run(
      '{ name: spin, nodes: { a: { type: while, condition: "true", maxIterations: 1000000, body: { b: { type: delay, with: { duration: 1ms } } } } } }',
    );
    await rig.advance(50);
    await rig.stop(id);
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    const count = (await rig.events(id)).length;
    await rig.advance(1_000);
    expect(await rig.events(id)).to.have.length(count);
  });

  it('stored with no broadcast is found by the sweep', async () => {
    const id = await rig.run(single);
    await rig.store.requestStop(id, { requestId: 'r-1', requestedAtMs: rig.clock.nowMs() });
    await rig.settle();
    expect((await rig.record(id)).status).to.equal('Running');
    await rig.advance(1_000);
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    const receipt = await rig.receipt(id);
    expect(receipt.requestId).to.equal('r-1');
    expect(receipt.delivery?.path).to.equal('poll');
    expect(receipt.delivery?.ms).to.be.within(0, 1_000);
  });

  it('heard on the bus is acted on by what the store says', async () => {
    const id = await rig.run(single);
    rig.bus.hear({ executionId: id, requestId: 'nobody' });
    await rig.settle();
    expect((await rig.record(id)).status).to.equal('Running');
    await rig.store.requestStop(id, { requestId: 'r-1', requestedAtMs: rig.clock.nowMs() });
    rig.bus.hear({ executionId: id, requestId: 'r-1' });
    await rig.settle();
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    expect((await rig.receipt(id)).delivery?.path).to.equal('bus');
  });

  describe('of work that ignores its abort', () => {
    let id: string;
    beforeEach(async () => {
      id = await rig.run(single);
      rig.work.ignoreAborts = true;
      await rig.stop(id);
    });

    it('halts at once, and waits for the grace', async () => {
      const record = await rig.record(id);
      expect(record.status).to.equal('Running');
      expect(record.waitingFor).to.deep.equal([{ node: 'a', where: 'worker', sinceMs: 0 }]);
      expect(await rig.told(id)).to.include.members(['stop.halted', 'task.aborting a']);
      await rig.advance(4_999);
      expect((await rig.record(id)).status).to.equal('Running');
      await rig.advance(1);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.receipt(id)).to.include({ unconfirmed: 1, haltedMs: 0, finalisedMs: 5_000 });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'unconfirmed', ms: null });
    });

    it('takes a late confirmation into the receipt, and nowhere else', async () => {
      await rig.advance(5_000);
      const before = await rig.events(id);
      await rig.advance(2_000);
      rig.work.answer('a', { kind: 'aborted', outcome: 'forced' });
      await rig.settle();
      expect(await rig.receipt(id)).to.include({ unconfirmed: 0, finalisedMs: 5_000, lateResultsDiscarded: 0 });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'forced', ms: 7_000 });
      expect(await rig.events(id)).to.deep.equal(before);
      expect(await rig.engine.receipt(id)).to.deep.equal(await rig.receipt(id));
    });

    it('discards a late result, and counts it', async () => {
      await rig.advance(6_000);
      const record = await rig.record(id);
      rig.work.complete('a', 'too late');
      await rig.settle();
      expect(await rig.record(id)).to.deep.equal(record);
      expect(await rig.receipt(id)).to.include({ lateResultsDiscarded: 1, unconfirmed: 0 });
      expect(rig.engine.metrics().lateResultsDiscarded).to.equal(1);
      expect(await rig.output(id, 'a')).to.equal(undefined);
    });

    it('takes a result within the grace as finishedFirst, and does not accept it', async () => {
      await rig.advance(1_000);
      rig.work.complete('a', 'too late');
      await rig.settle();
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER, hasOutput: false });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'finishedFirst', ms: 1_000 });
      expect((await rig.record(id)).status).to.equal('Failed');
    });

    it('takes a confirmation that comes while the final commit is on its way', async () => {
      const gate = deferred();
      rig.gate.intervene = ({ method }) => (method === 'commit' ? { holdAfter: gate.promise } : undefined);
      await rig.advance(5_000);
      rig.work.answer('a', { kind: 'aborted', outcome: 'aborted' });
      await rig.settle();
      gate.resolve();
      await rig.settle();
      expect(await rig.receipt(id)).to.include({ unconfirmed: 0 });
      expect((await rig.receipt(id)).tasks[0]).to.include({ outcome: 'aborted' });
    });
  });

  it('follows children that end after their parent', async () => {
    await rig.save(inner);
    const id = await rig.run('{ name: outer, nodes: { sub: { type: workflow, with: { workflow: inner } } } }');
    const [child = ''] = await rig.children(id);
    rig.work.ignoreAborts = true;
    await rig.stop(id);
    expect((await rig.record(id)).status).to.equal('Failed');
    expect((await rig.receipt(id)).children).to.deep.equal([{ executionId: child, status: 'Running' }]);
    await rig.advance(5_000);
    expect((await rig.record(child)).status).to.equal('Failed');
    expect((await rig.receipt(id)).children).to.deep.equal([{ executionId: child, status: 'Failed' }]);
    expect((await rig.receipt(child)).tasks.map(({ node, outcome }) => [node, outcome])).to.deep.equal([
      ['deep', 'unconfirmed'],
    ]);
  });

  it('says of a child whose end it takes back how it ended', async () => {
    await rig.save(inner);
    const id = await rig.run('{ name: outer, nodes: { sub: { type: workflow, with: { workflow: inner } } } }');
    const [child = ''] = await rig.children(id);
    const gate = deferred();
    rig.gate.intervene = ({ method, args }) =>
      method === 'commit' && (args[0] as { executionId: string }).executionId === child
        ? { holdBefore: gate.promise }
        : undefined;
    rig.work.complete('deep');
    await rig.settle();
    await rig.stop(id);
    expect((await rig.receipt(id)).children).to.deep.equal([{ executionId: child, status: 'Running' }]);
    gate.resolve();
    await rig.settle();
    expect(await rig.record(child)).to.include({ status: 'Failed', error: MARKER });
    expect((await rig.receipt(id)).children).to.deep.equal([{ executionId: child, status: 'Failed' }]);
  });

  it('reaches a child whose creation is on its way', async () => {
    await rig.save(inner);
    const gate = deferred();
    rig.gate.intervene = ({ method, args }) =>
      method === 'createExecution' &&
      JSON.stringify(args[0]).includes('"deep"') === false &&
      JSON.stringify(args[0]).includes('"sub"')
        ? { holdAfter: gate.promise }
        : undefined;
    const id = await rig.run('{ name: outer, nodes: { sub: { type: workflow, with: { workflow: inner } } } }');
    await rig.stop(id);
    gate.resolve();
    await rig.settle();
    const [child = ''] = await rig.children(id);
    expect(await rig.record(child)).to.include({ status: 'Failed', error: MARKER });
    expect(rig.work.started).to.deep.equal([]);
    await rig.advance(1_000);
    expect((await rig.receipt(id)).children).to.deep.equal([{ executionId: child, status: 'Failed' }]);
  });

  it('of a child alone fails its parent, which never tries again', async () => {
    await rig.save(inner);
    const id = await rig.run(
      '{ name: outer, nodes: { sub: { type: workflow, retry: { attempts: 5 }, with: { workflow: inner } } } }',
    );
    const [child = ''] = await rig.children(id);
    await rig.stop(child);
    const error = `child execution ${child} was stopped`;
    expect(await rig.node(id, 'sub')).to.include({
      status: 'Failed',
      error,
      errorCode: 'FS_CHILD_STOPPED',
      attempt: 1,
    });
    expect(await rig.record(id)).to.include({ status: 'Failed', error, stoppedByUser: false });
  });

  it('of a timed-out execution that still aborts wins', async () => {
    const id = await rig.run(single.replace('nodes:', 'timeout: 5s, nodes:'));
    rig.work.ignoreAborts = true;
    await rig.advance(5_000);
    await rig.stop(id);
    await rig.advance(5_000);
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    expect((await rig.node(id, 'a')).errorCode).to.equal('FS_TIMEOUT');
    expect((await rig.receipt(id)).tasks.map(({ node, outcome }) => [node, outcome])).to.deep.equal([
      ['a', 'unconfirmed'],
    ]);
  });

  describe('while the store takes no writes', () => {
    it('is refused, and works when the store is mended', async () => {
      const id = await rig.run(single);
      rig.store.setTrouble('disk full');
      const refused = await rig.stop(id).then(
        () => null,
        (error: { code: string }) => error.code,
      );
      expect(refused).to.equal('FS_UNAVAILABLE');
      expect(rig.engine.trouble()).to.include('disk full');
      rig.store.setTrouble(null);
      await rig.stop(id);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    });

    it('whose intent was stored before: tasks end at once, the record follows when the store is mended', async () => {
      const id = await rig.run(single);
      rig.gate.intervene = ({ method }) => (method === 'commit' ? 'fail' : undefined);
      await rig.stop(id);
      expect(rig.work.running).to.deep.equal([]);
      await rig.advance(20_000);
      expect((await rig.record(id)).status).to.equal('Running');
      rig.gate.intervene = () => undefined;
      await rig.advance(2_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect(await rig.node(id, 'a')).to.include({ status: 'Failed', error: MARKER });
    });

    it('whose answer was lost is found by the sweep', async () => {
      const id = await rig.run(single);
      rig.gate.intervene = ({ method }) => (method === 'requestStop' ? 'lose' : undefined);
      await rig.stop(id).catch(() => undefined);
      await rig.advance(1_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
    });

    it('with commits whose answers are lost doubles nothing', async () => {
      const id = await rig.run(single);
      const lost = new Set<number>();
      rig.gate.intervene = ({ method, args }) => {
        if (method !== 'commit') return undefined;
        const { v } = args[0] as { v: number };
        if (lost.has(v)) return undefined;
        lost.add(v);
        return 'lose';
      };
      await rig.stop(id);
      await rig.advance(2_000);
      expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
      expect((await rig.told(id)).filter((line) => line === 'stop.halted')).to.have.length(1);
    });
  });

  it('that cannot read the record tries again', async () => {
    const id = await rig.run(single);
    let failures = 3;
    rig.gate.intervene = ({ method }) => (method === 'load' && failures-- > 0 ? 'fail' : undefined);
    const stopping = rig.engine.requestStop(id);
    rig.work.complete('a', 'late');
    await rig.advance(1_000);
    await stopping;
    expect(await rig.record(id)).to.include({ status: 'Failed', error: MARKER });
  });

  it('is told for every node to the metrics', async () => {
    const told: [string, number][] = [];
    rig.engine.metrics().onNodeStopped = (type, ms) => told.push([type, ms]);
    const id = await rig.run(single);
    await rig.stop(id);
    expect(told).to.deep.equal([['http', 0]]);
  });
});
