import { type Figure, median, shown } from '../figure.ts';
import { readBack } from '../read-back.ts';
import { chain } from '../workflows.ts';

const ROUNDS = 5;

export const coldStart: Figure = {
  name: 'start',
  about: 'ms from the start of the node process, on an empty data directory, to the first workflow completed',
  async run(bench) {
    const shape = chain('first', 10);
    const times: number[] = [];
    const listened: number[] = [];
    for (let round = 1; round <= ROUNDS; round += 1) {
      bench.progress(`round ${round} of ${ROUNDS}`);
      const server = await bench.server();
      listened.push(Date.now() - server.startedAtMs);
      const client = await bench.client(server, { ends: true });
      await client.save(shape.definition);
      const [id] = await client.keepInFlight('first', 1, 1);
      times.push(Date.now() - server.startedAtMs);
      await readBack(client, [id as string], shape, bench.check);
      await client.close();
      await server.close();
    }
    return [
      {
        name: 'start to first workflow completed',
        value: median(times),
        unit: 'ms',
        limit: { kind: 'time', atMostMs: 1_000 },
        note: `median of ${shown(times)}; listening after ${shown(listened)}`,
      },
    ];
  },
};
