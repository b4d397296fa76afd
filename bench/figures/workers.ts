import { setTimeout as sleep } from 'node:timers/promises';
import type { Json, StopReceipt } from '../../src/wire.ts';
import { workerProtocol } from '../../src/worker/protocol.ts';
import { type BenchClient, forAll } from '../client.ts';
import { EchoEndpoint, Instants, SilentEndpoint } from '../endpoint.ts';
import { type Bench, type Figure, type Limit, type Measure, median, percentile, shown } from '../figure.ts';
import { checkStopped, parkedWorkflow } from '../parked-calls.ts';
import { LossyProxy } from '../proxy.ts';
import { readBack } from '../read-back.ts';
import { type BenchServer, cpuBetween } from '../server.ts';
import type { BenchWorker } from '../worker.ts';
import { calls } from '../workflows.ts';

const ROUNDS = 3;
const STOP_ROUNDS = 5;
/** More than are ever parked: none of them waits for the proof that another one has ended. */
const PARKING_SLOTS = 1_000;
/** Between two stops of one: what the one before has left is done. */
const PAUSE_MS = 15;
const POLL_MS = 10;
const WAIT_MS = 30_000;

/** A server that runs nothing itself, and a worker whose calls nobody answers. */
interface Parking {
  client: BenchClient;
  endpoint: SilentEndpoint;
  ends: Instants;
  /** Between the two; null: nothing is lost. */
  proxy: LossyProxy | null;
  parked: number;
}

export const workers: Figure = {
  name: 'workers',
  about: 'ms from the stop of 200 executions in a worker in another process to their aborts, and without its message',
  async run(bench) {
    const count = bench.quick ? 50 : 200;
    const atOnce: Limit = { kind: 'time', atMostMs: 100 };
    const byHeartbeat: Limit = { kind: 'time', waitMs: workerProtocol.heartbeatMs, atMostMs: 1_000 };
    const told = await openParking(bench, false);
    const measures = [
      await oneByOne(bench, told, count, 'stop in a worker, one by one', atOnce),
      await allAtOnce(bench, told, count, bench.quick ? 1 : STOP_ROUNDS, `stop in a worker, ${count} at once`, atOnce),
    ];
    const deaf = await openParking(bench, true);
    measures.push(
      await oneByOne(bench, deaf, count, '… its message lost, one by one', byHeartbeat),
      await allAtOnce(bench, deaf, count, 1, `… its message lost, ${count} at once`, byHeartbeat),
    );
    return measures;
  },
};

async function openParking(bench: Bench, isLossy: boolean): Promise<Parking> {
  const endpoint = new SilentEndpoint();
  const host = await endpoint.listen();
  bench.atEnd(() => endpoint.close());
  const server = await bench.server({ slots: 0 });
  const proxy = isLossy ? new LossyProxy(server.url) : null;
  if (proxy !== null) bench.atEnd(() => proxy.close());
  await bench.worker(server, {
    capabilities: 'http',
    slots: PARKING_SLOTS,
    args: ['--http-allow', host],
    ...(proxy === null ? {} : { url: await proxy.listen() }),
  });
  const client = await bench.client(server, { ends: true });
  const ends = new Instants();
  client.onEnded((id) => ends.note(id));
  await client.save(parkedWorkflow('parked', host));
  return { client, endpoint, ends, proxy, parked: 0 };
}

async function park(bench: Bench, parking: Parking, count: number): Promise<string[]> {
  bench.progress(`parking ${count} executions in a worker`);
  const ids = await parking.client.startAll('parked', count);
  parking.parked += count;
  await parking.endpoint.calls.until(parking.parked, 'calls at the endpoint');
  return ids;
}

/** Each is sent when the one before was answered. Where aborts come at once, also when that was aborted. */
async function oneByOne(bench: Bench, parking: Parking, count: number, name: string, limit: Limit): Promise<Measure> {
  const { client, endpoint, proxy } = parking;
  const ids = await park(bench, parking, count);
  const before = parking.parked - count;
  const sentAtMs = new Map<string, number>();
  for (const [index, id] of ids.entries()) {
    bench.progress(`${name}: ${index + 1} of ${count}`);
    await sleep(PAUSE_MS);
    sentAtMs.set(id, performance.now());
    await bench.measured(async () => {
      await client.call('execution.stop', JSON.stringify({ id }));
      if (proxy === null) await endpoint.aborts.until(before + index + 1, 'aborts seen by the endpoint');
    });
  }
  await endpoint.aborts.until(parking.parked, 'aborts seen by the endpoint');
  await checkAborted(bench, parking, ids);
  return measureOf(name, limit, [ids.map((id) => took(parking, id, sentAtMs.get(id)))]);
}

async function allAtOnce(
  bench: Bench,
  parking: Parking,
  count: number,
  rounds: number,
  name: string,
  limit: Limit,
): Promise<Measure> {
  const times: number[][] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const ids = await park(bench, parking, count);
    bench.progress(`${name}, round ${round} of ${rounds}`);
    const sentAtMs = performance.now();
    await bench.measured(async () => {
      const filter = { workflow: 'parked', status: 'Running' };
      const { requested } = await parking.client.http<{ requested: string[] }>('POST', '/api/stops', { filter });
      bench.check(requested.length === count, `${requested.length} of ${count} stops were accepted`);
      await parking.endpoint.aborts.until(parking.parked, 'aborts seen by the endpoint');
    });
    await checkAborted(bench, parking, ids);
    times.push(ids.map((id) => took(parking, id, sentAtMs)));
  }
  return measureOf(name, limit, times);
}

function took({ endpoint }: Parking, id: string, sentAtMs = Number.NaN): number {
  return (endpoint.aborts.at.get(id) ?? Number.NaN) - sentAtMs;
}

/** The median of the rounds' 99th percentiles. */
function measureOf(name: string, limit: Limit, rounds: readonly number[][]): Measure {
  const all = rounds.flat();
  const p99 = rounds.map((times) => percentile(times, 0.99));
  const first = rounds.map((times) => Math.min(...times));
  return {
    name: `${name}: abort seen, p99`,
    value: median(p99),
    unit: 'ms',
    limit,
    note: `p99 ${shown(p99, 1)}; first ${shown(first, 1)}; median ${median(all).toFixed(1)}, most ${Math.max(...all).toFixed(1)}`,
  };
}

/** Stopped as they must be, by the path that is measured, and the worker has confirmed every end. */
async function checkAborted(bench: Bench, parking: Parking, ids: readonly string[]): Promise<void> {
  const { client, ends, proxy, parked } = parking;
  await ends.until(parked, 'final records');
  await checkStopped(bench.check, client, ids);
  await forAll(ids, async (id) => {
    const call = (await client.record(id)).nodes['call'];
    bench.check(
      call?.where === 'worker' && call.attempt === 1,
      `${id} ran in ${call?.where}, attempt ${call?.attempt}`,
    );
    const { tasks } = await confirmed(client, id);
    bench.check(
      tasks.length === 1 && tasks[0]?.outcome === 'aborted',
      `${id} has the receipt ${JSON.stringify(tasks)}`,
    );
  });
  // None gets through; that they were there to be lost shows that the heartbeat had to tell.
  if (proxy !== null) bench.check(proxy.lost >= parked, `${proxy.lost} messages were lost of ${parked} stops`);
}

async function confirmed(client: BenchClient, id: string): Promise<StopReceipt> {
  for (const untilMs = performance.now() + WAIT_MS; ; await sleep(POLL_MS)) {
    const receipt = await client.http<StopReceipt>('GET', `/api/executions/${id}/stop`);
    if (receipt.unconfirmed === 0) return receipt;
    if (performance.now() > untilMs) throw new Error(`${id}: nobody has confirmed the end of its call`);
  }
}

const SLOTS = 64;
const CALLS = 10;

export const workerRate: Figure = {
  name: 'worker-rate',
  about: `tasks/s of http calls through one worker process with ${SLOTS} slots`,
  async run(bench) {
    const endpoint = new EchoEndpoint();
    const host = await endpoint.listen();
    bench.atEnd(() => endpoint.close());
    const server = await bench.server({ slots: 0 });
    const worker = await bench.worker(server, { capabilities: 'http', slots: SLOTS, args: ['--http-allow', host] });
    const client = await bench.client(server, { ends: false });
    const limit: Limit = { kind: 'throughput', atLeast: 1_000 };
    const setting = { bench, server, worker, client, endpoint };
    return [
      {
        ...(await rate(setting, 'calls-at-once', host)),
        limit,
        name: `worker, ${SLOTS} slots, ${CALLS} calls at once`,
      },
      {
        ...(await rate(setting, 'calls-in-a-row', host)),
        limit,
        name: `… ${CALLS} calls one after the other`,
        aside: true,
      },
    ] satisfies Measure[];
  },
};

interface Setting {
  bench: Bench;
  server: BenchServer;
  worker: BenchWorker;
  client: BenchClient;
  endpoint: EchoEndpoint;
}

/**
 * The client has nothing to do while it is timed but to answer the calls: all executions wait for admission, and
 * enough run at once that every slot has a task waiting for it.
 */
async function rate(
  { bench, server, worker, client, endpoint }: Setting,
  name: 'calls-at-once' | 'calls-in-a-row',
  host: string,
): Promise<Pick<Measure, 'value' | 'unit' | 'note'>> {
  const isRow = name === 'calls-in-a-row';
  const shape = calls(name, CALLS, host, { isRow, atOnce: isRow ? 4 * SLOTS : SLOTS });
  await client.save(shape.definition);
  const rates: number[] = [];
  let note = '';
  // The first is to warm up.
  for (let round = 0; round <= ROUNDS; round += 1) {
    const executions = round === 0 || bench.quick ? 100 : 400;
    bench.progress(`${name}, round ${round} of ${ROUNDS}`);
    await client.setAdmission(true);
    const ids = await client.startAll(name, executions);
    endpoint.forget();
    const before = { server: server.cpu(), worker: worker.cpu(), own: process.cpuUsage() };
    const startedMs = performance.now();
    const work = async (): Promise<void> => {
      await client.setAdmission(false);
      await allEnded(client);
    };
    await (round === 0 ? work() : bench.measured(work));
    const seconds = (performance.now() - startedMs) / 1_000;
    const own = process.cpuUsage(before.own);
    const tasks = executions * CALLS;
    if (round > 0) rates.push(tasks / seconds);
    note =
      `last round ${seconds.toFixed(2)} s: server CPU ${cpuBetween(before.server, server.cpu())}, ` +
      `worker CPU ${cpuBetween(before.worker, worker.cpu())}, endpoint CPU ${((own.user + own.system) / 1e6).toFixed(1)} s`;
    bench.progress(`${name}, reading round ${round} back`);
    bench.check(
      endpoint.calls === tasks && endpoint.keys.size === tasks,
      `the endpoint saw ${endpoint.calls} calls of ${endpoint.keys.size} nodes, expected ${tasks}`,
    );
    await readBack(
      client,
      ids,
      shape,
      bench.check,
      (output) => (output as { body?: { node?: Json } } | undefined)?.body?.node,
    );
  }
  return { value: median(rates), unit: 'tasks/s', note: `rounds ${shown(rates)}; ${note}` };
}

async function allEnded(client: BenchClient): Promise<void> {
  for (;;) {
    const { running, pending, parked } = (await client.engine()).executions;
    if (running + pending + parked === 0) return;
    await sleep(POLL_MS);
  }
}
