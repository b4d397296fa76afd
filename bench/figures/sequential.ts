import { setTimeout as sleep } from 'node:timers/promises';
import type { BenchClient } from '../client.ts';
import { type Bench, type Figure, type Limit, type Measure, median, shown } from '../figure.ts';
import { readBack } from '../read-back.ts';
import { type BenchServer, cpuBetween } from '../server.ts';
import { chain, chainOfCommits, type Shape } from '../workflows.ts';

const NODES = 10;
const ROUNDS = 3;
/** Between two looks whether all have ended. */
const POLL_MS = 10;

interface Sizes {
  inFlight: number;
  warmUp: number;
  total: number;
  limit: Limit;
}

/**
 * Sequential ten-node workflows of nodes that do nothing, each node's commit durable before the next one starts; and, for
 * comparison, of `set` nodes, which share theirs.
 */
export const sequential256: Figure = {
  name: 'sequential-256',
  about: 'nodes/s of sequential 10-node workflows, 256 executions in flight',
  run: (bench) =>
    measure(bench, {
      inFlight: 256,
      warmUp: bench.quick ? 500 : 2_000,
      total: bench.quick ? 1_000 : 6_000,
      limit: { kind: 'rate', atLeast: 0.2, of: 'x' },
    }),
};

export const sequential1: Figure = {
  name: 'sequential-1',
  about: 'nodes/s of sequential 10-node workflows, one execution in flight',
  run: (bench) =>
    measure(bench, {
      inFlight: 1,
      warmUp: bench.quick ? 100 : 300,
      total: bench.quick ? 150 : 600,
      limit: { kind: 'rate', atLeast: 0.25, of: 'f' },
    }),
};

async function measure(bench: Bench, sizes: Sizes): Promise<Measure[]> {
  const server = await bench.server();
  const { inFlight } = sizes;
  const each = chainOfCommits('sequential', NODES);
  const sharing = chain('sharing', NODES);
  return [
    { ...(await withClient(bench, server, sizes, each)), name: `sequential, ${inFlight} in flight` },
    await startedBefore(bench, server, sizes),
    { ...(await withClient(bench, server, sizes, sharing)), name: '… of set nodes, which share commits', aside: true },
  ];
}

/** The headline: a client starts one as soon as it hears of the end of another. */
async function withClient(
  bench: Bench,
  server: BenchServer,
  sizes: Sizes,
  shape: Shape,
): Promise<Omit<Measure, 'name'>> {
  const { inFlight, total, warmUp, limit } = sizes;
  const { name } = shape.definition;
  const client = await bench.client(server, { ends: true });
  await client.save(shape.definition);
  bench.progress('warming up');
  await client.keepInFlight(name, warmUp, inFlight);
  const rounds = await measureRounds(bench, server, client, shape, total, {
    prepare: async () => [],
    timed: () => client.keepInFlight(name, total, inFlight),
  });
  await client.close();
  return { unit: 'nodes/s', limit, ...rounds };
}

/**
 * The client, which shares the machine with the server, has nothing to do while it is timed: all executions wait
 * for admission, and the workflow's `concurrency` lets so many run at once.
 */
async function startedBefore(bench: Bench, server: BenchServer, sizes: Sizes): Promise<Measure> {
  const { inFlight, total, limit } = sizes;
  const shape = chainOfCommits('started-before', NODES, { concurrency: { max: inFlight } });
  const client = await bench.client(server, { ends: false });
  await client.save(shape.definition);
  const rounds = await measureRounds(bench, server, client, shape, total, {
    async prepare() {
      await client.setAdmission(true);
      return client.startAll('started-before', total);
    },
    async timed(ids) {
      await client.setAdmission(false);
      await allEnded(client);
      return ids;
    },
  });
  await client.close();
  return { name: '… started while admission is paused', unit: 'nodes/s', limit, aside: true, ...rounds };
}

async function allEnded(client: BenchClient): Promise<void> {
  for (;;) {
    const { running, pending, parked } = (await client.engine()).executions;
    if (running + pending + parked === 0) return;
    await sleep(POLL_MS);
  }
}

interface Round {
  /** Not timed; what it answers goes to `timed`. */
  prepare(): Promise<string[]>;
  /** Resolves at the last end, with the ids of all that ran. */
  timed(prepared: string[]): Promise<string[]>;
}

/** Median of the rounds; each is read back, and must have made a commit for every step where none may share. */
async function measureRounds(
  bench: Bench,
  server: BenchServer,
  client: BenchClient,
  shape: Shape,
  total: number,
  { prepare, timed }: Round,
): Promise<Pick<Measure, 'value' | 'note'>> {
  const { name } = shape.definition;
  const rates: number[] = [];
  let note = '';
  for (let round = 1; round <= ROUNDS; round += 1) {
    bench.progress(`${name}, round ${round} of ${ROUNDS}`);
    const commitsBefore = await client.counter('fullstop_commits_total');
    const prepared = await prepare();
    const cpuBefore = server.cpu();
    const ownBefore = process.cpuUsage();
    const startedMs = performance.now();
    const ids = await bench.measured(() => timed(prepared));
    const seconds = (performance.now() - startedMs) / 1_000;
    const own = process.cpuUsage(ownBefore);
    const used = cpuBetween(cpuBefore, server.cpu());
    const commits = (await client.counter('fullstop_commits_total')) - commitsBefore;
    const mayShare = shape.output === undefined;
    bench.check(
      mayShare || commits >= total * (NODES + 1),
      `${total} executions made ${commits} commits: nodes shared some`,
    );
    bench.progress(`${name}, reading round ${round} back`);
    await readBack(client, ids, shape, bench.check);
    rates.push((total * NODES) / seconds);
    note = `last round ${seconds.toFixed(2)} s: ${(commits / (total * NODES)).toFixed(2)} commits per node, server CPU ${used}, client CPU ${((own.user + own.system) / 1e6).toFixed(1)} s`;
  }
  return { value: median(rates), note: `rounds ${shown(rates)}; ${note}` };
}
