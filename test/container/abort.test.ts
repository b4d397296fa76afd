import { expect } from 'chai';
import { ContainerEngine } from '../../src/worker/container-engine.ts';
import { containerEngineOrSkip, goneWithinMs, type TestEngine } from '../support/podman.ts';
import { Bench, printed } from './support.ts';

const graceMs = 1_000;

type Step = 'create' | 'attach' | 'start' | 'state' | 'kill' | 'remove' | 'list';
type Engine = Record<Step, (...args: unknown[]) => Promise<unknown>>;
const steps = ContainerEngine.prototype as unknown as Engine;

describe('the abort of a container', function () {
  this.timeout(60_000);
  let engine: TestEngine;
  let bench: Bench;
  const originals = { ...stepsOf() };

  function stepsOf(): Engine {
    const { create, attach, start, state, kill, remove, list } = steps;
    return { create, attach, start, state, kill, remove, list };
  }

  before(async function () {
    engine = await containerEngineOrSkip(this);
  });

  beforeEach(() => {
    bench = new Bench(engine, { graceMs, proofMs: 30_000 });
  });

  afterEach(async () => {
    Object.assign(steps, originals);
    if (bench === undefined) return;
    const left = await bench.left();
    await bench.close();
    expect(left, 'containers left').to.equal(0);
  });

  after(async () => {
    await engine?.close();
  });

  /** Runs `then` around one step of the executor's work with the engine. */
  function around(step: Step, then: (original: () => Promise<unknown>, args: unknown[]) => Promise<unknown>): void {
    steps[step] = function (this: unknown, ...args: unknown[]) {
      return then(() => originals[step].apply(this, args), args);
    };
  }

  const obeying = 'trap "exit 0" TERM; echo up; while true; do sleep 0.05; done';
  const ignoring = 'trap "" TERM; echo up; while true; do sleep 0.05; done';

  it('before it was created: none is', async () => {
    const abort = new AbortController();
    abort.abort();
    let created = 0;
    around('create', (original) => {
      created++;
      return original();
    });
    expect(await bench.end(bench.task(bench.sh(obeying)), abort.signal)).to.include({ outcome: 'aborted' });
    expect(created).to.equal(0);
  });

  for (const step of ['create', 'attach', 'start'] as const) {
    it(`during ${step}: nothing goes on after it, and it is gone`, async () => {
      const abort = new AbortController();
      const later: string[] = [];
      for (const next of ['attach', 'start'] as const) {
        around(next, (original) => {
          if (abort.signal.aborted) later.push(next);
          return original();
        });
      }
      around(step, (original) => {
        abort.abort();
        return original();
      });
      const task = bench.task(bench.sh(obeying));
      const ending = await bench.end(task, abort.signal);
      // A shell that has no trap yet ignores SIGTERM where it is the first process: no init, no mercy.
      const outcomes = step === 'start' ? ['aborted', 'forced'] : ['aborted'];
      expect(ending.kind === 'aborted' && ending.outcome).to.be.oneOf(outcomes);
      expect(later).to.deep.equal([]);
      expect(bench.gone).to.deep.equal([task.id]);
      expect(await bench.left()).to.equal(0);
    });
  }

  it('while it runs: SIGTERM, and it is gone before the task ends', async () => {
    const abort = new AbortController();
    const { log, seen } = printed('up');
    const running = bench.end(bench.task(bench.sh(obeying)), abort.signal, log);
    await seen;
    const abortedMs = performance.now();
    abort.abort();
    expect(await running).to.include({ kind: 'aborted', outcome: 'aborted' });
    const ms = performance.now() - abortedMs;
    expect(await bench.left()).to.equal(0);
    console.log(`      gone ${Math.round(ms)} ms after the abort`);
    expect(ms).to.be.below(graceMs);
  });

  it('of one that ignores SIGTERM: SIGKILL after the grace, gone within a second more, and forced', async () => {
    const abort = new AbortController();
    const { log, seen } = printed('up');
    const running = bench.end(bench.task(bench.sh(ignoring)), abort.signal, log);
    await seen;
    const abortedMs = performance.now();
    abort.abort();
    expect(await running).to.include({ kind: 'aborted', outcome: 'forced' });
    const ms = performance.now() - abortedMs;
    console.log(`      gone ${Math.round(ms - graceMs)} ms after its grace`);
    expect(ms).to.be.within(graceMs, graceMs + (await goneWithinMs(bench.engine)));
    expect(await bench.left()).to.equal(0);
  });

  it('of many at once: all are gone', async () => {
    const tasks = Array.from({ length: 8 }, () => {
      const abort = new AbortController();
      const { log, seen } = printed('up');
      return { abort, seen, running: bench.end(bench.task(bench.sh(obeying)), abort.signal, log) };
    });
    await Promise.all(tasks.map(({ seen }) => seen));
    const abortedMs = performance.now();
    const taken = await Promise.all(
      tasks.map(async ({ abort, running }) => {
        abort.abort();
        expect(await running).to.include({ kind: 'aborted' });
        return performance.now() - abortedMs;
      }),
    );
    console.log(`      8 gone ${Math.round(Math.max(...taken))} ms after the abort`);
    // The engine removes one after the other.
    expect(Math.max(...taken)).to.be.below(graceMs + 8 * 1_000);
  });

  it('of one that has just ended: its output counts', async () => {
    const abort = new AbortController();
    let looks = 0;
    around('state', async (original) => {
      const state = (await original()) as { ended: boolean } | null;
      if (state?.ended === true && looks++ === 0) abort.abort();
      return state;
    });
    const ending = await bench.end(bench.task(bench.sh('echo done')), abort.signal);
    expect(abort.signal.aborted).to.equal(true);
    expect(ending).to.deep.include({ kind: 'output', output: { exitCode: 0, stdout: 'done\n', stderrTail: '' } });
  });

  it('which nothing can prove is unconfirmed, and pursued until it is gone', async () => {
    await bench.close();
    bench = new Bench(engine, { graceMs, proofMs: 1_000 });
    const abort = new AbortController();
    const { log, seen } = printed('up');
    const task = bench.task(bench.sh(obeying));
    const running = bench.end(task, abort.signal, log);
    await seen;
    for (const step of ['state', 'kill', 'remove'] as const) {
      around(step, async () => {
        throw new Error('the engine hangs');
      });
    }
    abort.abort();
    expect(await running).to.include({ kind: 'aborted', outcome: 'unconfirmed' });
    expect(bench.gone).to.deep.equal([]);
    expect(await bench.left()).to.equal(1);
    Object.assign(steps, originals);
    while (bench.gone.length === 0) await new Promise((resolve) => setTimeout(resolve, 50));
    expect(bench.gone).to.deep.equal([task.id]);
    expect(await bench.left()).to.equal(0);
  });

  it('of a creation that never answered ends what it made after all', async () => {
    const abort = new AbortController();
    let made: Promise<unknown> = Promise.resolve();
    around('create', async (original) => {
      made = new Promise((resolve) => setTimeout(resolve, 300)).then(original);
      abort.abort();
      throw Object.assign(new Error('no answer'), { details: { status: null, unsent: false } });
    });
    await bench.end(bench.task(bench.sh(obeying)), abort.signal);
    await made;
    expect(bench.gone).to.have.lengthOf(1);
    expect(await bench.left()).to.equal(0);
  });

  it('of a paused one goes through', async () => {
    const abort = new AbortController();
    const { log, seen } = printed('up');
    const task = bench.task(bench.sh(obeying));
    const running = bench.end(task, abort.signal, log);
    await seen;
    const [found] = await bench.engine.list({ 'fullstop.task': task.id });
    const { default: Docker } = await import('dockerode');
    const docker = new Docker({ host: '', socketPath: engine.dockerHost.replace('unix://', '') });
    await docker.getContainer(found?.id ?? '').pause();
    abort.abort();
    expect(await running).to.include({ kind: 'aborted', outcome: 'aborted' });
    expect(await bench.left()).to.equal(0);
  });

  describe('by others', () => {
    it('is a failure to be tried again when somebody removes the container', async () => {
      for (let times = 0; times < 5; times++) {
        const { log, seen } = printed('up');
        const task = bench.task(bench.sh(ignoring));
        const running = bench.end(task, undefined, log);
        await seen;
        const [found] = await bench.engine.list({ 'fullstop.task': task.id });
        await bench.engine.remove(found?.id ?? '');
        const ending = await running;
        expect(ending.kind).to.equal('failed');
        if (ending.kind === 'failed') expect(ending.code).to.match(/^FS_CONTAINER_(ENGINE|EXIT)$/);
      }
    });
  });

  describe('of orphans', () => {
    /** Leaves a running container behind, as a worker does that is killed. */
    async function orphan(over: Parameters<Bench['task']>[1] = {}): Promise<string> {
      const dying = new Bench(engine, { engineId: bench.engineId });
      const { log, seen } = printed('up');
      const task = dying.task(dying.sh(ignoring), over);
      const end = dying.executor.run(task, new AbortController().signal, log).catch(() => undefined);
      await seen;
      // It leaves everything as it is.
      await dying.executor.close();
      void end;
      dying.engine.close();
      return task.id;
    }

    it('removes those whose task is not live, and leaves the others and what runs here', async () => {
      const dead = await orphan();
      const live = await orphan();
      const foreign = new Bench(engine, { graceMs: 100 });
      const elsewhere = printed('up');
      const abortElsewhere = new AbortController();
      const runningElsewhere = foreign.end(foreign.task(foreign.sh(obeying)), abortElsewhere.signal, elsewhere.log);
      const here = printed('up');
      const abortHere = new AbortController();
      const runningHere = bench.end(bench.task(bench.sh(obeying)), abortHere.signal, here.log);
      await Promise.all([elsewhere.seen, here.seen]);

      const asked: string[] = [];
      const count = await bench.executor.reap((taskId) => {
        asked.push(taskId);
        return taskId === live;
      });
      expect(count).to.equal(1);
      expect(asked.sort()).to.deep.equal([dead, live].sort());
      expect(await bench.left()).to.equal(2);
      expect(await foreign.left()).to.equal(1);

      abortHere.abort();
      abortElsewhere.abort();
      await Promise.all([runningHere, runningElsewhere]);
      expect(await bench.executor.reap(async () => false)).to.equal(1);
      expect(await foreign.left()).to.equal(0);
      await foreign.close();
    });

    it('of a task that somebody asks for: resolves when it is gone, with what it took', async () => {
      const left = await orphan();
      const other = await orphan();
      const reaping = bench.executor.reap((taskId) => taskId !== left);
      expect(await bench.executor.pursue({ id: left, type: 'container' })).to.equal('forced');
      expect(await bench.left()).to.equal(1);
      expect(await reaping).to.equal(1);
      const asked = await Promise.all([1, 2].map(() => bench.executor.pursue({ id: other, type: 'container' })));
      expect(asked).to.deep.equal(['forced', 'forced']);
      expect(await bench.executor.pursue({ id: other, type: 'container' })).to.equal('aborted');
    });

    it('comes before the next attempt of the same node starts', async () => {
      const first = bench.task(bench.sh(ignoring));
      await orphan(first);
      expect(await bench.left()).to.equal(1);
      let leftAtCreation = -1;
      around('create', async (original) => {
        leftAtCreation = await bench.left();
        return original();
      });
      const second = {
        ...first,
        id: `${first.idempotencyKey}/2`,
        attempt: 2,
        with: bench.task(bench.sh('echo two')).with,
      };
      expect(await bench.end(second)).to.deep.include({ output: { exitCode: 0, stdout: 'two\n', stderrTail: '' } });
      expect(leftAtCreation).to.equal(0);
    });

    it('comes before the same attempt starts anew', async () => {
      const first = bench.task(bench.sh(ignoring));
      await orphan(first);
      const again = { ...first, with: bench.task(bench.sh('echo again')).with };
      expect(await bench.end(again)).to.deep.include({ output: { exitCode: 0, stdout: 'again\n', stderrTail: '' } });
    });
  });
});
