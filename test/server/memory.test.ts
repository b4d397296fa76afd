import { expect } from 'chai';
import { Bursts } from '../../src/adapters/system/memory.ts';

const MB = 1024 * 1024;

describe('memory of a process that had a burst', () => {
  it('is given back when the process is idle again, once', () => {
    const bursts = new Bursts(50 * MB);
    bursts.collected(50 * MB);
    expect(bursts.isOver(0.9, 200 * MB)).to.equal(false);
    expect(bursts.isOver(0.06, 200 * MB)).to.equal(false);
    expect(bursts.isOver(0.01, 200 * MB)).to.equal(true);
    bursts.collected(60 * MB);
    expect(bursts.isOver(0.01, 200 * MB)).to.equal(false);
    expect(bursts.isOver(0.9, 200 * MB)).to.equal(false);
    expect(bursts.isOver(0.01, 200 * MB)).to.equal(true);
  });

  it('is left alone where it is little', () => {
    const bursts = new Bursts(50 * MB);
    bursts.isOver(0.9, 60 * MB);
    expect(bursts.isOver(0.01, 60 * MB)).to.equal(false);
  });

  it('is given back after the start of the process', () => {
    expect(new Bursts(20 * MB).isOver(0.01, 60 * MB)).to.equal(true);
  });

  it('is left to V8 where the process always has a little to do', () => {
    const bursts = new Bursts(20 * MB);
    bursts.collected(20 * MB);
    for (let look = 0; look < 100; look += 1) expect(bursts.isOver(0.04, 80 * MB)).to.equal(false);
  });
});
