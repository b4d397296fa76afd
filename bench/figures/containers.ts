import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StopReceipt } from '../../src/wire.ts';
import { ContainerEngine } from '../../src/worker/container-engine.ts';
import { startContainerEngine } from '../../test/support/podman.ts';
import type { BenchClient } from '../client.ts';
import { type Bench, type Figure, type Limit, type Measure, median, shown } from '../figure.ts';
import { checkStopped } from '../parked-calls.ts';

/** Between SIGTERM and SIGKILL, as workers have it. */
const GRACE_MS = 3_000;
const POLL_MS = 10;
const WAIT_MS = 60_000;

const programs = {
  obeys: { on: 'trap "exit 0" TERM', outcome: 'aborted', title: 'obeys SIGTERM' },
  ignores: { on: 'trap "" TERM', outcome: 'forced', title: 'ignores SIGTERM' },
} as const;

export const containers: Figure = {
  name: 'containers',
  about: 'ms from the stop of an execution whose container runs until the container engine has it no more',
  async run(bench) {
    bench.progress('starting a container engine');
    const engine = await startContainerEngine();
    if (typeof engine === 'string') {
      bench.skip(`no container can run here: ${engine}`);
      return [];
    }
    bench.atEnd(() => engine.close());
    const looker = new ContainerEngine(engine.dockerHost);
    bench.atEnd(() => looker.close());
    const server = await bench.server({ slots: 0 });
    await bench.worker(server, {
      capabilities: 'container',
      slots: 4,
      args: ['--images', engine.image, '--docker-host', engine.dockerHost],
    });
    const client = await bench.client(server, { ends: false });
    const setting = { bench, client, looker, image: engine.image, isHere: engine.own };
    return [
      // It needs nothing of its grace but what its shell sleeps.
      await measure(setting, 'obeys', { kind: 'time', atMostMs: 1_000 }),
      await measure(setting, 'ignores', { kind: 'time', waitMs: GRACE_MS, atMostMs: 1_000 }),
    ];
  },
};

interface Setting {
  bench: Bench;
  client: BenchClient;
  looker: ContainerEngine;
  image: string;
  /** Its processes are among those of this machine. */
  isHere: boolean;
}

async function measure(setting: Setting, program: keyof typeof programs, limit: Limit): Promise<Measure> {
  const { bench, client, image } = setting;
  const { on, title } = programs[program];
  const script = `: \${{ execution.id }}; ${on}; echo up; while true; do sleep 0.05; done`;
  const call = { type: 'container', with: { image, command: ['sh', '-c', script] } };
  await client.save({ name: program, nodes: { call, after: { type: 'set', needs: ['call'], with: { value: 1 } } } });
  const times: number[] = [];
  const rounds = bench.quick ? 2 : 5;
  for (let round = 1; round <= rounds; round += 1) {
    bench.progress(`a container that ${title}, round ${round} of ${rounds}`);
    times.push(await stopOne(setting, program));
  }
  return {
    name: `stop of a container that ${title}: gone, slowest`,
    value: Math.max(...times),
    unit: 'ms',
    limit,
    note: `of ${shown(times)}; median ${median(times).toFixed(0)}`,
  };
}

async function stopOne({ bench, client, looker, isHere }: Setting, program: keyof typeof programs): Promise<number> {
  const id = await client.start(program);
  // Its trap is set.
  await until(`${id} to print`, async () => (await client.events(id)).some(({ type }) => type === 'log'));
  const found = await looker.list({ 'fullstop.execution': id });
  bench.check(found.length === 1, `${id} has ${found.length} containers`);
  const container = found[0]?.id ?? '';
  bench.check((await looker.state(container))?.running === true, `${id}: its container does not run before the stop`);
  if (isHere) bench.check(processesOf(id) > 0, `${id} has no process before the stop`);
  const sentMs = performance.now();
  const tookMs = await bench.measured(async () => {
    await client.call('execution.stop', JSON.stringify({ id }));
    await until(`the container of ${id} to go`, async () => (await looker.state(container)) === null);
    return performance.now() - sentMs;
  });
  if (isHere) bench.check(processesOf(id) === 0, `${id} has processes though its container is gone`);
  let receipt!: StopReceipt;
  await until(`the receipt of ${id}`, async () => {
    receipt = await client.http<StopReceipt>('GET', `/api/executions/${id}/stop`);
    return receipt.unconfirmed === 0 && receipt.finalisedAt !== null;
  });
  await checkStopped(bench.check, client, [id]);
  const [task] = receipt.tasks;
  bench.check(
    task?.where === 'worker' && task.outcome === programs[program].outcome,
    `${id} has the receipt ${JSON.stringify(task)}`,
  );
  const left = await looker.list({ 'fullstop.execution': id });
  bench.check(left.length === 0, `${id} has left ${left.length} containers`);
  return tookMs;
}

/** Processes whose command line names the execution. */
function processesOf(id: string): number {
  return readdirSync('/proc').filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(id);
    } catch {
      // It has ended meanwhile.
      return false;
    }
  }).length;
}

async function until(what: string, isTrue: () => Promise<boolean>): Promise<void> {
  for (const untilMs = performance.now() + WAIT_MS; !(await isTrue()); await sleep(POLL_MS)) {
    if (performance.now() > untilMs) throw new Error(`waited in vain for ${what}`);
  }
}
