import { expect } from 'chai';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { startWorker } from '../../src/worker/worker.ts';
import { ADMIN_KEY, type GateWorld, HandExecutor, openGateWorld, silentLog, taskOf } from './gate.ts';
import { until } from './support.ts';

describe('a worker that knows several engines', () => {
  let first: GateWorld;
  let second: GateWorld;
  let hand: HandExecutor;

  beforeEach(async () => {
    first = await openGateWorld();
    second = await openGateWorld();
    hand = new HandExecutor();
  });
  afterEach(async () => {
    hand.obey();
    await Promise.all([first.close(), second.close()]);
  });

  const start = (...urls: string[]) =>
    first.keepTrack(
      startWorker({
        url: urls.join(','),
        key: ADMIN_KEY,
        capabilities: ['http'],
        slots: 1,
        executors: new Map([['http', hand]]),
        clock: systemClock,
        logger: silentLog,
      }),
    );

  it('goes to the next when one hangs up on it, with what it holds, and brings the result there', async () => {
    const worker = start(first.url, second.url);
    await worker.ready();
    const task = taskOf('a');
    first.gate.link.run(task, 't');
    await until(() => hand.started.includes(task.id), 'it runs');
    first.gate.link.close();
    await until(() => second.gate.hellos.length === 1, 'it is at the second');
    expect(second.gate.hellos).to.deep.equal([[{ taskId: task.id, token: 't' }]]);
    expect(first.gate.hellos).to.have.length(1);
    hand.finish(task.id, 1);
    expect(await second.gate.reported(task.id)).to.deep.equal({ kind: 'completed', output: 1 });
    expect(hand.aborted).to.deep.equal([]);
    second.gate.link.close();
    await until(() => first.gate.hellos.length === 2, 'it is back at the first');
  });

  it('goes to the next when nothing listens at one', async () => {
    const worker = start('http://127.0.0.1:1', second.url);
    await worker.ready();
    expect(second.gate.link.workerId).to.equal(worker.workerId);
  });

  it('goes to the next when its hello is not answered', async () => {
    first.gate.keep = () => Promise.reject(new Error('the store is away'));
    const worker = start(first.url, second.url);
    await worker.ready();
    expect(second.gate.link.workerId).to.equal(worker.workerId);
  });
});
