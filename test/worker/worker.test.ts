import { expect } from 'chai';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { AbortedAs } from '../../src/worker/executor.ts';
import { type RunningWorker, startWorker, type WorkerOptions } from '../../src/worker/worker.ts';
import { type GateWorld, HandExecutor, openGateWorld, pause, quick, silentLog, taskOf } from './gate.ts';
import { until } from './support.ts';

describe('a worker', () => {
  let world: GateWorld;
  let hand: HandExecutor;
  let key: { id: string; key: string };

  beforeEach(async () => {
    world = await openGateWorld();
    hand = new HandExecutor();
    key = await world.key('worker');
  });
  afterEach(() => {
    hand.obey();
    return world.close();
  });

  function start(over: Partial<WorkerOptions> = {}): RunningWorker {
    return world.keepTrack(
      startWorker({
        url: world.url,
        key: key.key,
        capabilities: ['http'],
        slots: 4,
        executors: new Map([['http', hand]]),
        clock: systemClock,
        logger: silentLog,
        name: 'w',
        ...over,
      }),
    );
  }

  async function ready(over: Partial<WorkerOptions> = {}): Promise<RunningWorker> {
    const worker = start(over);
    await worker.ready();
    return worker;
  }

  /** Pushes tasks and waits until they run. */
  async function push(...nodes: string[]): Promise<string[]> {
    const tasks = nodes.map((node) => taskOf(node));
    for (const task of tasks) world.gate.link.run(task, 't');
    await until(() => tasks.every(({ id }) => hand.started.includes(id)), `${nodes.join()} run`);
    return tasks.map(({ id }) => id);
  }

  const tellsAgain = () => world.gate.hellos.length;

  it('says hello, runs what it is given and says how it ended', async () => {
    await ready();
    expect(world.gate.link).to.include({ name: 'w', slots: 4, kind: 'worker' });
    const [a = '', b = ''] = await push('a', 'b');
    hand.finish(a, { x: 1 });
    hand.running.get(b)?.reject(new Error('odd'));
    expect(await world.gate.reported(a)).to.deep.equal({ kind: 'completed', output: { x: 1 } });
    expect(await world.gate.reported(b)).to.deep.equal({
      kind: 'failed',
      error: 'odd',
      code: 'FS_FAILED',
      retryable: true,
    });
    expect(world.gate.results.map(({ token }) => token)).to.deep.equal(['t', 't']);
  });

  it('reports an output of undefined as null, and one that is no JSON as a failure', async () => {
    await ready();
    const [a = '', b = '', c = ''] = await push('a', 'b', 'c');
    hand.finish(a, undefined);
    hand.running.get(a)?.resolve(undefined);
    hand.finish(b, { big: 1n });
    const deep: Record<string, unknown> = {};
    for (let at = deep, level = 0; level < 100; level++) at = at.x = {};
    hand.finish(c, deep);
    expect(await world.gate.reported(b)).to.include({ kind: 'failed', retryable: false });
    await until(
      () => world.gate.results.some(({ taskId, report }) => taskId === c && report.kind === 'failed'),
      'c failed',
    );
    expect((await world.gate.reported(c)) as { error: string })
      .to.have.property('error')
      .that.includes('levels of nesting');
  });

  it('brings an output of megabytes', async () => {
    await ready();
    const [a = ''] = await push('a');
    const output = 'é"\u{1f600}\n'.repeat(1_000_000);
    hand.finish(a, output);
    expect(await world.gate.reported(a)).to.deep.equal({ kind: 'completed', output });
  });

  it('runs as many at once as it has slots, the next when one has ended', async () => {
    const worker = await ready({ slots: 1 });
    const [a, b] = [taskOf('a'), taskOf('b')];
    world.gate.link.run(a, 't');
    world.gate.link.run(b, 't');
    await until(() => world.gate.beats.some((held) => held.length === 2), 'both are held');
    expect(hand.started).to.deep.equal([a.id]);
    expect(worker.running).to.equal(1);
    hand.finish(a.id);
    await until(() => hand.started.length === 2, 'the second runs');
  });

  it('frees the slot of an aborted task when its work has ended, not before', async () => {
    const worker = await ready({ slots: 1 });
    hand.obeys = false;
    const [a = ''] = await push('a');
    world.gate.link.cancel(a);
    await until(() => hand.aborted.length === 1, 'it is aborted');
    const b = taskOf('b');
    world.gate.link.run(b, 't');
    await pause(100);
    expect(hand.started).to.deep.equal([a]);
    expect(world.gate.results).to.deep.equal([]);
    expect(worker.running).to.equal(1);
    expect(world.gate.beats.at(-1)).to.deep.equal([a, b.id]);
    hand.running.get(a)?.reject(new AbortedAs('forced'));
    expect(await world.gate.reported(a)).to.deep.equal({ kind: 'aborted', outcome: 'forced' });
    await until(() => hand.started.includes(b.id), 'the slot is free');
  });

  it('runs a task that it is given twice once, also after its end', async () => {
    await ready();
    const [a = ''] = await push('a');
    world.gate.link.run(taskOf('a'), 't');
    hand.finish(a);
    await world.gate.reported(a);
    // Its answer has come too.
    await until(() => world.gate.beats.at(-1)?.length === 0, 'it is held no more');
    world.gate.link.run(taskOf('a'), 't');
    await pause(50);
    expect(hand.started).to.deep.equal([a]);
    expect(world.gate.results).to.have.length(1);
  });

  describe('told to end', () => {
    it('a task, aborts it', async () => {
      await ready();
      const [a = ''] = await push('a', 'b');
      world.gate.link.cancel(a);
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      expect(hand.aborted).to.deep.equal([a]);
    });

    it('by the answer to a heartbeat, aborts it', async () => {
      await ready();
      const [a = ''] = await push('a', 'b');
      world.gate.cancel = (held) => held.filter((id) => id === a);
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
      expect(hand.aborted).to.deep.equal([a]);
    });

    it('by a stop, aborts the tasks of that execution alone', async () => {
      await ready();
      const [a = '', b = ''] = await push('a', 'b');
      const other = taskOf('c', { executionId: '0190b0a0-0000-7000-8000-00000000000f' });
      world.gate.link.run(other, 't');
      await until(() => hand.started.length === 3, 'all run');
      world.bus.stop({ executionId: taskOf('a').executionId, requestId: 'r' });
      await Promise.all([a, b].map((id) => world.gate.reported(id)));
      expect(hand.aborted).to.deep.equal([a, b]);
    });

    it('before it came, refuses it', async () => {
      await ready();
      const { id } = taskOf('a');
      world.gate.link.cancel(id);
      world.gate.link.run(taskOf('a'), 't');
      expect(await world.gate.reported(id)).to.deep.equal({ kind: 'aborted', outcome: 'neverStarted' });
      expect(hand.started).to.deep.equal([]);
    });

    it('by a stop, refuses what comes of that execution later', async () => {
      await ready();
      await push('a');
      world.bus.stop({ executionId: taskOf('a').executionId, requestId: 'r' });
      world.gate.link.run(taskOf('b'), 't');
      expect(await world.gate.reported(taskOf('b').id)).to.deep.equal({ kind: 'aborted', outcome: 'neverStarted' });
      expect(hand.started).to.have.length(1);
    });

    it('while it waits for a slot, never starts it', async () => {
      await ready({ slots: 1 });
      await push('a');
      world.gate.link.run(taskOf('b'), 't');
      world.gate.link.cancel(taskOf('b').id);
      expect(await world.gate.reported(taskOf('b').id)).to.deep.equal({ kind: 'aborted', outcome: 'neverStarted' });
    });

    it('what had finished, reports the result', async () => {
      await ready();
      hand.obeys = false;
      const [a = ''] = await push('a');
      world.gate.link.cancel(a);
      await until(() => hand.aborted.length === 1, 'it is aborted');
      hand.finish(a, 'late');
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'completed', output: 'late' });
    });
  });

  describe('with a result that is not answered', () => {
    it('says it again, once that is due, and no more when it is answered', async () => {
      await ready();
      let refusals = 1;
      world.gate.answer = () =>
        refusals-- > 0 ? Promise.reject(new Error('full')) : Promise.resolve({ discarded: false });
      const [a = ''] = await push('a');
      hand.finish(a);
      await until(() => world.gate.results.length === 2, 'it is said again');
      await until(() => world.gate.beats.at(-1)?.length === 0, 'it is held no more');
      expect(world.gate.results).to.have.length(2);
    });

    it('says it again over a new connection', async () => {
      await ready();
      world.gate.answer = () => new Promise(() => {});
      const [a = ''] = await push('a');
      hand.finish(a);
      await world.gate.reported(a);
      await world.stopServer();
      world.gate.answer = async () => ({ discarded: false });
      await world.startServer();
      await until(() => world.gate.results.length === 2, 'it is said again');
      expect(world.gate.hellos.at(-1)).to.deep.equal([{ taskId: a, token: 't' }]);
      await until(() => world.gate.beats.at(-1)?.length === 0, 'it is held no more');
    });

    it('drops it when it is wanted no more', async () => {
      await ready();
      world.gate.answer = () => new Promise(() => {});
      const [a = ''] = await push('a');
      hand.finish(a);
      await world.gate.reported(a);
      world.gate.keep = () => [];
      world.gate.answer = async () => ({ discarded: true });
      world.gate.link.close();
      await until(() => world.gate.beats.at(-1)?.length === 0 && tellsAgain() === 2, 'it is held no more');
      expect(world.gate.results.at(-1)?.report).to.deep.equal({ kind: 'aborted', outcome: 'finishedFirst' });
    });

    it('lists it in heartbeats', async () => {
      await ready();
      world.gate.answer = () => new Promise(() => {});
      const [a = ''] = await push('a');
      hand.finish(a);
      await world.gate.reported(a);
      const before = world.gate.beats.length;
      await until(() => world.gate.beats.length > before + 1, 'it beats');
      expect(world.gate.beats.at(-1)).to.deep.equal([a]);
    });
  });

  describe('that was disconnected', () => {
    it('comes back, lists what it holds, and goes on with what is kept', async () => {
      await ready();
      const [a = '', b = ''] = await push('a', 'b');
      world.gate.keep = () => [a];
      world.gate.link.close();
      await until(() => tellsAgain() === 2, 'it says hello again');
      expect(world.gate.hellos[1]).to.deep.equal([
        { taskId: a, token: 't' },
        { taskId: b, token: 't' },
      ]);
      await world.gate.reported(b);
      expect(hand.aborted).to.deep.equal([b]);
      hand.finish(a, 1);
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'completed', output: 1 });
    });

    it('drops the payload of what is kept no more and has finished meanwhile', async () => {
      await ready();
      hand.obeys = false;
      const [a = ''] = await push('a');
      world.gate.keep = () => [];
      world.gate.link.close();
      await until(() => hand.aborted.length === 1, 'it is aborted');
      hand.finish(a, 'secret');
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'aborted', outcome: 'finishedFirst' });
    });

    it('keeps its tasks within the lease', async () => {
      await ready();
      const [a = ''] = await push('a');
      await world.stopServer();
      await pause(quick.workerLeaseMs / 4);
      await world.startServer();
      await until(() => tellsAgain() === 2, 'it says hello again');
      await pause(quick.workerLeaseMs * 2);
      expect(hand.aborted).to.deep.equal([]);
      hand.finish(a);
      await world.gate.reported(a);
    });

    it('aborts all by itself when the lease has run out, and then begins anew', async () => {
      await ready();
      const [a = '', b = ''] = await push('a', 'b');
      const atMs = performance.now();
      await world.stopServer();
      await until(() => hand.aborted.length === 2, 'all are aborted');
      expect(performance.now() - atMs).to.be.below(quick.workerLeaseMs + 100);
      await world.startServer();
      await until(() => tellsAgain() === 2, 'it says hello again');
      // The proof of their end is told: the engine may start them elsewhere.
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'lost' });
      expect(await world.gate.reported(b)).to.deep.equal({ kind: 'lost' });
      const [c = ''] = await push('c');
      hand.finish(c);
      expect(await world.gate.reported(c)).to.deep.equal({ kind: 'completed', output: 'done' });
    });

    it('connects anew when an engine is there that does not answer', async () => {
      await ready();
      await push('a');
      const { heartbeat } = world.gate;
      world.gate.heartbeat = () => {
        throw new Error('stuck');
      };
      await until(() => tellsAgain() >= 2, 'it says hello again');
      world.gate.heartbeat = heartbeat;
    });

    it('waits for an engine that is not there yet', async () => {
      await world.stopServer();
      const worker = start();
      await pause(100);
      await world.startServer();
      await worker.ready();
    });
  });

  describe('that is refused', () => {
    it('says why, and tries no more', async () => {
      const { key: viewer } = await world.key('viewer');
      const worker = start({ key: viewer });
      expect(await worker.refused).to.include({ code: 'FS_FORBIDDEN' });
      let thrown: unknown;
      await worker.ready().catch((error: unknown) => {
        thrown = error;
      });
      expect(thrown).to.include({ code: 'FS_FORBIDDEN' });
    });

    it('for what it offers, says so', async () => {
      const { key: narrow } = await world.key('worker', { capabilities: ['ai'] });
      expect(await start({ key: narrow }).refused).to.include({ code: 'FS_FORBIDDEN' });
    });

    it('because its key was deleted, aborts what runs', async () => {
      const worker = await ready();
      const [a = ''] = await push('a');
      await world.http('first-admin-key', 'DELETE', `/api/keys/${key.id}`);
      expect(await worker.refused).to.include({ code: 'FS_UNAUTHENTICATED' });
      expect(hand.aborted).to.deep.equal([a]);
    });
  });

  describe('that closes', () => {
    it('takes nothing more, and lets what runs end', async () => {
      const worker = await ready();
      const [a = ''] = await push('a');
      const closed = worker.close(5_000);
      await until(() => world.gate.link.slots === 0, 'it offers no slots');
      hand.finish(a, 1);
      await closed;
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'completed', output: 1 });
      expect(hand.closed).to.equal(true);
      await until(() => world.gate.gone.includes(world.gate.link), 'it is gone');
    });

    it('aborts the rest after its grace, and reports it as lost', async () => {
      const worker = await ready();
      const [a = ''] = await push('a');
      await worker.close(50);
      expect(hand.aborted).to.deep.equal([a]);
      expect(await world.gate.reported(a)).to.deep.equal({ kind: 'lost' });
    });

    it('waits for the end of what it aborts', async () => {
      const worker = await ready();
      hand.obeys = false;
      const [a = ''] = await push('a');
      let closed = false;
      const closing = worker.close(0).then(() => {
        closed = true;
      });
      await until(() => hand.aborted.length === 1, 'it is aborted');
      await pause(50);
      expect(closed).to.equal(false);
      hand.running.get(a)?.reject(new Error('ended'));
      await closing;
    });

    it('ends without an engine too', async () => {
      const worker = await ready();
      await world.stopServer();
      await worker.close(0);
      await start().close(0);
    });
  });

  describe('with what a task prints', () => {
    it('passes it on before its result, cut to pieces', async () => {
      await ready();
      const [a = ''] = await push('a');
      hand.log?.('stdout', `${'x'.repeat(65_535)}\u{1f600}y`);
      hand.log?.('stderr', 'z');
      hand.finish(a);
      world.gate.answer = async () => {
        expect(world.gate.logs).to.have.length(3);
        return { discarded: false };
      };
      await world.gate.reported(a);
      expect(world.gate.logs).to.deep.equal([
        { taskId: a, stream: 'stdout', text: 'x'.repeat(65_535), truncated: false },
        { taskId: a, stream: 'stdout', text: '\u{1f600}y', truncated: false },
        { taskId: a, stream: 'stderr', text: 'z', truncated: false },
      ]);
    });

    it('marks the last message when more was printed than is kept', async () => {
      await ready();
      const [a = '', b = ''] = [...(await push('a')), ''];
      for (let line = 1; line <= 1_002; line++) hand.log?.('stdout', `${line}`);
      hand.finish(a);
      await world.gate.reported(a);
      expect(world.gate.logs).to.have.length(1_000);
      expect(world.gate.logs.filter(({ truncated }) => truncated)).to.deep.equal([
        { taskId: a, stream: 'stdout', text: '1000', truncated: true },
      ]);
      expect(b).to.equal('');
    });

    it('marks nothing when it is exactly as much as is kept', async () => {
      await ready();
      const [a = ''] = await push('a');
      for (let line = 1; line <= 1_000; line++) hand.log?.('stdout', `${line}`);
      hand.finish(a);
      await world.gate.reported(a);
      expect(world.gate.logs).to.have.length(1_000);
      expect(world.gate.logs.some(({ truncated }) => truncated)).to.equal(false);
    });

    it('keeps it while there is no connection', async () => {
      await ready();
      const [a = ''] = await push('a');
      await world.stopServer();
      await pause(50);
      hand.log?.('stdout', 'meanwhile');
      await world.startServer();
      await until(() => world.gate.logs.length === 1, 'it is there');
      hand.finish(a);
      await world.gate.reported(a);
    });
  });
});
