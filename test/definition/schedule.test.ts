import { expect } from 'chai';
import { parseDuration } from '../../src/definition/duration.ts';
import { parseInstant } from '../../src/definition/instant.ts';
import { nextInstantMs, parseCronSchedule, parseHoldSchedule } from '../../src/definition/schedule.ts';
import { thrownBy } from './support.ts';

describe('parseDuration', () => {
  it('reads every unit, decimals and numbers of milliseconds', () => {
    const table: [unknown, number][] = [
      ['250ms', 250],
      ['30s', 30_000],
      ['5m', 300_000],
      ['2h', 7_200_000],
      ['1d', 86_400_000],
      ['0s', 0],
      ['1.5s', 1_500],
      [250, 250],
      [0, 0],
    ];
    for (const [text, ms] of table) expect(parseDuration(text), String(text)).to.equal(ms);
  });

  it('reads nothing else', () => {
    for (const value of [
      '',
      '5',
      '5 s',
      '-1s',
      '1w',
      's',
      '1e3s',
      '1h30m',
      -1,
      Number.NaN,
      Infinity,
      null,
      {},
      '99999999d',
    ]) {
      expect(parseDuration(value), String(value)).to.equal(null);
    }
  });
});

describe('parseInstant', () => {
  it('reads instants with their zone, and dates', () => {
    expect(parseInstant('2030-01-31T08:00:00Z')).to.equal(Date.UTC(2030, 0, 31, 8));
    expect(parseInstant('2030-01-31T08:00:00.250+02:00')).to.equal(Date.UTC(2030, 0, 31, 6, 0, 0, 250));
    expect(parseInstant('2028-02-29')).to.equal(Date.UTC(2028, 1, 29));
  });

  it('reads nothing else', () => {
    for (const value of [
      '2030-02-29',
      '2030-13-01',
      '2030-01-31T25:00:00Z',
      '2030-01-31T08:00:00',
      'tomorrow',
      '2030',
      5,
      null,
    ]) {
      expect(parseInstant(value), String(value)).to.equal(null);
    }
  });
});

describe('schedules', () => {
  const from = Date.UTC(2026, 2, 28, 12);
  const next = (text: string) => nextInstantMs(parseHoldSchedule(text), from);

  it('gives the next instant of cron, in UTC', () => {
    expect(next('30 2 * * *')).to.equal(Date.UTC(2026, 2, 29, 2, 30));
    expect(next('0 12 * * *')).to.equal(Date.UTC(2026, 2, 29, 12));
    expect(next('@hourly')).to.equal(Date.UTC(2026, 2, 28, 13));
    expect(next('*/10 * * * * *')).to.equal(from + 10_000);
  });

  it('gives it in a timezone, over the change of the clocks', () => {
    const berlin = parseCronSchedule('0 8 * * *', 'Europe/Berlin');
    expect(nextInstantMs(berlin, from)).to.equal(Date.UTC(2026, 2, 29, 6));
    expect(nextInstantMs(berlin, from - 86_400_000)).to.equal(Date.UTC(2026, 2, 28, 7));
  });

  it('gives an instant itself, passed or not, and a duration from now', () => {
    expect(next('2026-03-28T11:00:00Z')).to.equal(from - 3_600_000);
    expect(next('5m')).to.equal(from + 300_000);
  });

  it('refuses what never comes, unknown zones and anything else', () => {
    for (const run of [
      () => parseCronSchedule('0 0 31 2 *', null),
      () => parseCronSchedule('0 0 0 1 1 * 2020', null),
      () => parseCronSchedule('0 0 * * *', 'Mars/Base'),
      () => parseCronSchedule('2030-01-01T00:00:00Z', null),
      () => parseHoldSchedule('soon'),
      () => parseHoldSchedule(''),
      () => parseHoldSchedule('61 * * * *'),
    ]) {
      expect(thrownBy(run).code).to.equal('FS_INVALID');
    }
  });
});
