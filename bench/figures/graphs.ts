import type { BenchClient } from '../client.ts';
import { type Bench, type Figure, median, shown } from '../figure.ts';
import { readBack } from '../read-back.ts';
import { blocks, chain, chainOfCommits, fan, type Shape } from '../workflows.ts';

const WIDTH = 1_000;
const PARALLEL_ROUNDS = 9;
const COST_ROUNDS = 3;

/** From the request that starts it to the news of its durable end. */
export const parallel: Figure = {
  name: 'parallel-1000',
  about: 'ms of a graph of one node, 1,000 at once, and one that needs them all',
  async run(bench) {
    const server = await bench.server();
    const client = await bench.client(server, { ends: true });
    const shape = fan('wide', WIDTH);
    await client.save(shape.definition);
    const times: number[] = [];
    for (let round = 1; round <= PARALLEL_ROUNDS; round += 1) {
      bench.progress(`round ${round} of ${PARALLEL_ROUNDS}`);
      const startedMs = performance.now();
      const ids = await bench.measured(() => client.keepInFlight('wide', 1, 1));
      times.push(performance.now() - startedMs);
      await readBack(client, ids, shape, bench.check);
    }
    const [first = Number.NaN] = times;
    return [
      {
        name: '1,000-way parallel graph',
        value: median(times),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 200 },
        note: `median of ${shown(times)}; the first, ${first.toFixed(0)}, runs code nobody has run before`,
      },
    ];
  },
};

/**
 * Each pair runs as many nodes in all, and as many at once, in big graphs as in small ones of the same form: what
 * differs is the graph's size alone (and that the small ones have more starts and ends to pay for). The worst of
 * the three forms counts.
 */
const pairs = [
  { form: 'chain', small: chain('chain-10', 10), big: chain('chain-2000', 2_000), bigInFlight: 16, perBig: 1 },
  {
    form: 'blocks of 1, 8, 1',
    small: blocks('blocks-10', 1),
    big: blocks('blocks-2000', 200),
    bigInFlight: 16,
    perBig: 1,
  },
  { form: 'fan of 1, many, 1', small: fan('fan-10', 8), big: fan('fan-2000', 1_998), bigInFlight: 1, perBig: 200 },
];

/** The others are of `set` nodes, which share commits. Each of these has a body of one node, and 2,000 is for both. */
const pairOfCommits = {
  form: 'chain of foreach of no items, a commit each',
  small: chainOfCommits('commits-10', 10),
  big: chainOfCommits('commits-1000', 1_000),
  bigInFlight: 16,
  perBig: 1,
};

export const graphCost: Figure = {
  name: 'graph-cost',
  about: 'cost per node of a 2,000-node graph, in that of a 10-node graph',
  async run(bench) {
    const server = await bench.server();
    const client = await bench.client(server, { ends: true });
    const costOf = async ({ form, small, big, bigInFlight, perBig }: (typeof pairs)[number]) => {
      await client.save(small.definition);
      await client.save(big.definition);
      const executions = bench.quick ? 4 : 16;
      const inFlight = Math.min(executions, bigInFlight);
      const costs = { small: [] as number[], big: [] as number[] };
      for (let round = 0; round <= COST_ROUNDS; round += 1) {
        bench.progress(`${form}, round ${round} of ${COST_ROUNDS}`);
        const one = await usPerNode(bench, client, small, executions * 200, inFlight * perBig);
        const other = await usPerNode(bench, client, big, executions, inFlight);
        // The first round warms up.
        if (round === 0) continue;
        costs.small.push(one);
        costs.big.push(other);
      }
      const note = `${form} ${median(costs.small).toFixed(0)} and ${median(costs.big).toFixed(0)} µs`;
      return { ratio: median(costs.big) / median(costs.small), note };
    };
    const sharing: { ratio: number; note: string }[] = [];
    for (const pair of pairs) sharing.push(await costOf(pair));
    const each = await costOf(pairOfCommits);
    const ratios = sharing.map(({ ratio }) => ratio);
    const limit = { kind: 'plain', atMost: 1.5 } as const;
    return [
      {
        name: 'node of a 2,000-node graph, to one of a 10-node graph',
        value: Math.max(...ratios),
        unit: 'x',
        limit,
        note: `set nodes, worst of ${shown(ratios, 2)}: ${sharing.map(({ note }) => note).join('; ')}`,
      },
      {
        name: '… with nodes that need a commit each, 1,000 with bodies',
        value: each.ratio,
        unit: 'x',
        limit,
        aside: true,
        note: each.note,
      },
    ];
  },
};

async function usPerNode(
  bench: Bench,
  client: BenchClient,
  shape: Shape,
  total: number,
  inFlight: number,
): Promise<number> {
  const startedMs = performance.now();
  const ids = await bench.measured(() => client.keepInFlight(shape.definition.name, total, inFlight));
  const us = (performance.now() - startedMs) * 1_000;
  await readBack(client, ids, shape, bench.check);
  return us / (total * shape.needs.size);
}
