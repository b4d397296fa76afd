import { expect } from 'chai';
import { validate, version } from 'uuid';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds } from '../../src/adapters/system/ids.ts';

describe('the system clock', () => {
  it('runs a timer no earlier than asked, not by a fraction of a millisecond', async () => {
    const earlyMs: number[] = [];
    const timers: Promise<void>[] = [];
    for (let times = 0; times < 400; times++) {
      const delayMs = 1 + (times % 4);
      const startedMs = performance.now();
      timers.push(
        new Promise<void>((resolve) =>
          systemClock.setTimer(delayMs, () => {
            const tookMs = performance.now() - startedMs;
            if (tookMs < delayMs) earlyMs.push(delayMs - tookMs);
            resolve();
          }),
        ),
      );
      // Starts them at all fractions of a millisecond.
      if (times % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await Promise.all(timers);
    expect(earlyMs).to.deep.equal([]);
  });

  it('takes delays that setTimeout does not', async () => {
    let ran = false;
    const warnings: Error[] = [];
    const warned = (warning: Error) => warnings.push(warning);
    process.on('warning', warned);
    const timers = [2 ** 31, 2 ** 40, 1e15].map((delayMs) =>
      systemClock.setTimer(delayMs, () => {
        ran = true;
      }),
    );
    await new Promise((resolve) => setTimeout(resolve, 30));
    for (const timer of timers) systemClock.clearTimer(timer);
    process.off('warning', warned);
    expect(ran).to.equal(false);
    expect(warnings).to.deep.equal([]);
  });

  it('runs a timer of 0 in the next turn', async () => {
    const order: string[] = [];
    const ran = new Promise<void>((resolve) =>
      systemClock.setTimer(0, () => {
        order.push('timer');
        resolve();
      }),
    );
    await Promise.resolve();
    order.push('this turn');
    await ran;
    expect(order).to.deep.equal(['this turn', 'timer']);
  });

  it('never runs a timer that was cleared, and may clear one that ran', async () => {
    let ran = 0;
    for (const delayMs of [0, 5]) systemClock.clearTimer(systemClock.setTimer(delayMs, () => ran++));
    const done = systemClock.setTimer(0, () => ran++);
    await new Promise((resolve) => setTimeout(resolve, 20));
    systemClock.clearTimer(done);
    expect(ran).to.equal(1);
  });

  it('defers to after the promises of this turn', async () => {
    const order: string[] = [];
    const deferred = new Promise<void>((resolve) =>
      systemClock.defer(() => {
        order.push('deferred');
        resolve();
      }),
    );
    await Promise.resolve().then(() => order.push('promise'));
    await deferred;
    expect(order).to.deep.equal(['promise', 'deferred']);
  });
});

describe('system ids', () => {
  it('are UUIDs version 7 of now', () => {
    const beforeMs = Date.now();
    for (let times = 0; times < 1000; times++) {
      const id = systemIds.next();
      expect(validate(id) && version(id) === 7, id).to.equal(true);
      expect(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)).to.be.within(beforeMs, Date.now() + 1);
    }
  });

  it('only ever increase, also when the clock goes back', () => {
    const realNow = Date.now;
    let previous = systemIds.next();
    try {
      for (let times = 0; times < 50_000; times++) {
        if (times === 20_000) Date.now = () => realNow() - 3_600_000;
        const id = systemIds.next();
        if (id <= previous) throw new Error(`${id} came after ${previous}`);
        previous = id;
      }
    } finally {
      Date.now = realNow;
    }
  });
});
