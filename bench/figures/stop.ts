import { setTimeout as sleep } from 'node:timers/promises';
import { type BenchClient, forAll } from '../client.ts';
import { Instants, SilentEndpoint } from '../endpoint.ts';
import { type Bench, type Figure, type Measure, median, percentile, shown } from '../figure.ts';
import { checkStopped, parkedWorkflow } from '../parked-calls.ts';
import type { BenchServer } from '../server.ts';

const PARKED = 1_000;
const ROUNDS = 3;
/** Between two stops of one: what the one before has left is done. */
const PAUSE_MS = 15;

/** Executions that wait in an `http` call, and what is heard of their ends. */
interface Parked {
  server: BenchServer;
  client: BenchClient;
  endpoint: SilentEndpoint;
  ends: Instants;
  ids: string[];
}

async function park(bench: Bench, count: number): Promise<Parked> {
  const endpoint = new SilentEndpoint();
  const host = await endpoint.listen();
  bench.atEnd(() => endpoint.close());
  const server = await bench.server({ httpAllow: host });
  const client = await bench.client(server, { ends: true });
  const ends = new Instants();
  client.onEnded((id) => ends.note(id));
  await client.save(parkedWorkflow('parked', host));
  bench.progress(`parking ${count} executions in an http call`);
  const ids = await client.startAll('parked', count);
  await endpoint.calls.until(count, 'calls at the endpoint');
  return { server, client, endpoint, ends, ids };
}

export const stopOne: Figure = {
  name: 'stop-one',
  about: 'ms from the stop of one among 1,000 executions in an http call to its abort, and to its final record',
  async run(bench) {
    const stops = bench.quick ? 100 : 300;
    const { client, endpoint, ends, ids } = await park(bench, PARKED + stops);
    const aborted: number[] = [];
    const final: number[] = [];
    const chosen = ids.slice(0, stops);
    for (const [index, id] of chosen.entries()) {
      bench.progress(`stop ${index + 1} of ${stops}`);
      await sleep(PAUSE_MS);
      const sentMs = performance.now();
      await bench.measured(async () => {
        await client.call('execution.stop', JSON.stringify({ id }));
        await Promise.all([
          endpoint.aborts.until(index + 1, 'aborts seen by the endpoint'),
          ends.until(index + 1, 'final records'),
        ]);
      });
      aborted.push((endpoint.aborts.at.get(id) ?? Number.NaN) - sentMs);
      final.push((ends.at.get(id) ?? Number.NaN) - sentMs);
    }
    await checkStopped(bench.check, client, chosen);
    await forAll(ids.slice(stops), async (id) => {
      const { status } = await client.record(id);
      bench.check(status === 'Running' && !endpoint.aborts.at.has(id), `${id} was not stopped and is ${status}`);
    });
    // Otherwise the server would wait for them.
    endpoint.close();
    const note = `${stops} stops: median ${median(aborted).toFixed(1)}, p99 ${percentile(aborted, 0.99).toFixed(1)}, most ${Math.max(...aborted).toFixed(1)}`;
    return [
      {
        name: 'stop of one: abort seen, median',
        value: median(aborted),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 5 },
        note,
      },
      {
        name: 'stop of one: abort seen, p99',
        value: percentile(aborted, 0.99),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 25 },
        note,
      },
      {
        name: 'stop of one: final record durable, p99',
        value: percentile(final, 0.99),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 50 },
        note: `median ${median(final).toFixed(1)}, most ${Math.max(...final).toFixed(1)}`,
      },
    ] satisfies Measure[];
  },
};

export const stopAll: Figure = {
  name: 'stop-all',
  about: 'ms from the stop of 1,000 executions in an http call to the last abort and the last final record',
  async run(bench) {
    const totals: number[] = [];
    let note = '';
    for (let round = 1; round <= ROUNDS; round += 1) {
      const { server, client, endpoint, ends, ids } = await park(bench, PARKED);
      bench.progress(`stopping all, round ${round} of ${ROUNDS}`);
      const sentMs = performance.now();
      let answeredMs = Number.NaN;
      await bench.measured(async () => {
        const answer = await client.http<{ requested: string[] }>('POST', '/api/stops', {
          filter: { workflow: 'parked' },
        });
        answeredMs = performance.now() - sentMs;
        bench.check(answer.requested.length === PARKED, `${answer.requested.length} of ${PARKED} stops were accepted`);
        await Promise.all([
          endpoint.aborts.until(PARKED, 'aborts seen by the endpoint'),
          ends.until(PARKED, 'final records'),
        ]);
      });
      const lastAbort = Math.max(...endpoint.aborts.at.values()) - sentMs;
      const lastEnd = Math.max(...ends.at.values()) - sentMs;
      totals.push(Math.max(lastAbort, lastEnd));
      note = `last round: answered after ${answeredMs.toFixed(0)}, last abort ${lastAbort.toFixed(0)}, last final record ${lastEnd.toFixed(0)}`;
      await checkStopped(bench.check, client, ids);
      await client.close();
      await server.close();
    }
    return [
      {
        name: 'stop of all 1,000: last abort and final record',
        value: median(totals),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 500 },
        note: `rounds ${shown(totals)}; ${note}`,
      },
    ];
  },
};
