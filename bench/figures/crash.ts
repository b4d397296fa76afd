import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionItem, List } from '../../src/wire.ts';
import { type BenchClient, forAll } from '../client.ts';
import { type Figure, median, percentile } from '../figure.ts';
import { checkNodes } from '../read-back.ts';

const NODES = 10;
const DELAY_MS = 2_000;
const POLL_MS = 25;
/** Listing the executions takes the server's time: no longer than it is needed. */
const POLLED_MS = 3_000;

export const crash: Figure = {
  name: 'crash',
  about: 'ms from the restart after a kill -9 with 1,000 executions of ten 2-second delays to the last commit due',
  async run(bench) {
    const total = bench.quick ? 200 : 1_000;
    const server = await bench.server();
    const client = await bench.client(server, { ends: false });
    const needs = new Map(
      Array.from({ length: NODES }, (_, index) => [`n${index}`, index === 0 ? [] : [`n${index - 1}`]]),
    );
    const nodes = Object.fromEntries(
      [...needs].map(([node, needed]) => [node, { type: 'delay', needs: needed, with: { duration: DELAY_MS } }]),
    );
    await client.save({ name: 'delays', nodes });

    bench.progress(`starting ${total} executions over the length of a delay`);
    const ids: string[] = [];
    const starting: Promise<void>[] = [];
    for (let index = 0; index < total; index += 1) {
      starting.push(client.start('delays').then((id) => void ids.push(id)));
      if (index % 10 === 9) await sleep((DELAY_MS * 10) / total);
    }
    await Promise.all(starting);
    await sleep(2.3 * DELAY_MS);

    bench.progress('kill -9');
    await server.kill();
    await client.close();
    await server.start();
    const restartedAtMs = server.startedAtMs;
    const listenedMs = Date.now() - restartedAtMs;
    const reader = await bench.client(server, { ends: false });
    const seen = await bench.measured(() => watchSeqs(reader, restartedAtMs + POLLED_MS));

    bench.progress('waiting for the rest to end');
    for (;;) {
      const { running, pending, parked } = (await reader.engine()).executions;
      if (running + pending + parked === 0) break;
      await sleep(DELAY_MS / 10);
    }
    const lateMs: number[] = [];
    let due = 0;
    await forAll(ids, async (id) => {
      const [record, events, results] = await Promise.all([reader.record(id), reader.events(id), reader.results(id)]);
      bench.check(record.status === 'Complete', `${id} is ${record.status}: ${record.error}`);
      checkNodes(id, events, needs, bench.check);
      const untilMs = (node = ''): number =>
        Date.parse((results.nodes[node]?.output as { until?: string })?.until ?? '');
      for (const [node, { endedAt }] of Object.entries(record.nodes)) {
        const earlyMs = untilMs(node) - Date.parse(endedAt ?? '');
        bench.check(earlyMs <= 0, `${id}/${node} ended ${earlyMs} ms early`);
      }
      const next = events.find(({ at, type }) => type === 'node.completed' && Date.parse(at) >= restartedAtMs);
      if (next === undefined) return bench.check(false, `${id} has done nothing since the restart`);
      const dueAtMs = untilMs(next.node);
      const durable = seen.find(({ seqs }) => (seqs.get(id) ?? 0) >= next.seq);
      if (durable === undefined) return bench.check(false, `${id}: the commit of ${next.node} was not seen in time`);
      if (dueAtMs <= restartedAtMs + listenedMs) due += 1;
      lateMs.push(durable.atMs - Math.max(dueAtMs, restartedAtMs));
    });
    return [
      {
        name: 'restart after kill -9: the last commit due',
        value: Math.max(...lateMs),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 1_500 },
        note:
          `of ${lateMs.length} executions after the restart or their instant, whichever is later, seen in lists read every ${POLL_MS} ms: ` +
          `median ${median(lateMs).toFixed(0)}, p99 ${percentile(lateMs, 0.99).toFixed(0)}; ${due} were due when it listened, after ${listenedMs}`,
      },
    ];
  },
};

interface Look {
  /** When the answer was there: what it shows was durable by then. */
  atMs: number;
  seqs: Map<string, number>;
}

/** What lists show of every execution's last event, again and again. */
async function watchSeqs(client: BenchClient, untilMs: number): Promise<Look[]> {
  const looks: Look[] = [];
  while (Date.now() < untilMs) {
    const { items } = await client.http<List<ExecutionItem>>('GET', '/api/executions?limit=1000');
    looks.push({ atMs: Date.now(), seqs: new Map(items.map(({ id, seq }) => [id, seq])) });
    await sleep(POLL_MS);
  }
  return looks;
}
