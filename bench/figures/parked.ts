import { setTimeout as sleep } from 'node:timers/promises';
import { forAll } from '../client.ts';
import { type Figure, median, shown } from '../figure.ts';

const POLL_MS = 100;
/** Until the memory is read: what the starts have left is collected by then, or counts. */
const SETTLE_MS = 20_000;
const IDLE_MS = 10_000;
const LOOKS = 5;
const CHECKED = 500;

export const parked: Figure = {
  name: 'parked',
  about: 'MB and idle CPU of a server with 10,000 executions, half in a delay, half in a hold',
  async run(bench) {
    const total = bench.quick ? 2_000 : 10_000;
    const server = await bench.server();
    const client = await bench.client(server, { ends: false });
    await client.save({ name: 'delayed', nodes: { wait: { type: 'delay', with: { duration: '1h' } } } });
    await client.save({ name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } });
    bench.progress(`parking ${total} executions`);
    const delayed = await client.startAll('delayed', total / 2);
    const held = await client.startAll('held', total / 2);
    while ((await client.engine()).executions.parked < total) await sleep(POLL_MS);
    await client.close();
    bench.progress('letting them settle');
    await sleep(SETTLE_MS);
    bench.progress('watching the idle server');
    const sizes: number[] = [];
    const before = server.cpu();
    await bench.measured(async () => {
      for (let look = 0; look < LOOKS; look += 1) {
        await sleep(IDLE_MS / LOOKS);
        sizes.push(server.residentMb());
      }
    });
    const idle = (server.cpu().total - before.total) / (IDLE_MS / 1_000);
    const reader = await bench.client(server, { ends: false });
    await forAll([...delayed.slice(0, CHECKED), ...held.slice(0, CHECKED)], async (id) => {
      const { nodes, workflow } = await reader.record(id);
      const expected = workflow.name === 'held' ? 'Held' : 'Running';
      bench.check(nodes['wait']?.status === expected, `${id}/wait is ${nodes['wait']?.status}`);
    });
    return [
      {
        name: `${total} parked executions: memory`,
        value: median(sizes),
        unit: 'MB',
        limit: { kind: 'plain', atMost: 200 },
        note: `resident, ${SETTLE_MS / 1_000} s after the last start: ${shown(sizes)}`,
      },
      {
        name: `${total} parked executions: idle CPU`,
        value: idle * 100,
        unit: '%',
        limit: { kind: 'plain', atMost: 2 },
        note: `of one core, over ${IDLE_MS / 1_000} s`,
      },
    ];
  },
};
