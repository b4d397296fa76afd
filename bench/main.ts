/** `npm run bench`: what the README claims, measured. */
import { mkdirSync, mkdtempSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { BenchClient } from './client.ts';
import type { Bench, Figure, Measure } from './figure.ts';
import { containers } from './figures/containers.ts';
import { crash } from './figures/crash.ts';
import { graphCost, parallel } from './figures/graphs.ts';
import { page } from './figures/page.ts';
import { parked } from './figures/parked.ts';
import { sequential1, sequential256 } from './figures/sequential.ts';
import { coldStart } from './figures/start.ts';
import { stopAll, stopOne } from './figures/stop.ts';
import { watched } from './figures/watched.ts';
import { workerRate, workers } from './figures/workers.ts';
import { meanOf, measureFloors } from './floors.ts';
import { nowUs, type Span, summarise } from './profile.ts';
import { type Around, floorsTable, judge, table, type Verdict } from './report.ts';
import { BenchServer, isCompiled } from './server.ts';
import { BenchWorker } from './worker.ts';

const figures: readonly Figure[] = [
  sequential256,
  sequential1,
  parallel,
  graphCost,
  stopOne,
  stopAll,
  workers,
  workerRate,
  containers,
  parked,
  crash,
  coldStart,
];

/** Of the inspector and of inspection: measured when they are asked for. */
const inspectorFigures: readonly Figure[] = [page, watched];

/** Messages of failed checks that are printed; there may be one for every node. */
const FAULTS_SHOWN = 20;
const TMPFS = 0x01021994;

const usage = `npm run bench -- [options]

Starts the production server with its defaults, measures it over the public API, and reads everything back.

  --only NAME      one figure, or several with commas:
${[...figures, ...inspectorFigures].map(({ name, about }) => `                     ${name.padEnd(16)} ${about}`).join('\n')}
  --quick          smaller sizes: to see that it works, not for figures to keep
  --json FILE      the figures as JSON too
  --strict         exit 1 when a figure is over its limit; otherwise only when a check fails
  --cpu-prof       profile the server's threads, and print where their time went while it was measured
  --inspector      the figures of the inspector instead: ${inspectorFigures.map(({ name }) => name).join(', ')}
  --store mongo    engines that share a MongoDB instead, on a replica set of three members that it starts
  --dir DIRECTORY  where data directories are made: on a disk, not in memory (${tmpdir()})
  --help

Limits of rates are ratios to two floors, the mean of before and after each figure: X, bare XState steps per second,
and F, appends with fdatasync per second. Limits of times are meant for a quiet machine, and wider on a slower one.
`;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    strict: { type: 'boolean', default: false },
    'cpu-prof': { type: 'boolean', default: false },
    dir: { type: 'string', default: tmpdir() },
    inspector: { type: 'boolean', default: false },
    store: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
}

function chosen(): readonly Figure[] {
  const offered = options.inspector ? inspectorFigures : figures;
  if (options.only === undefined) return offered;
  const known = [...figures, ...inspectorFigures];
  const names = options.only.split(',');
  const unknown = names.filter((name) => !known.some((figure) => figure.name === name));
  if (unknown.length > 0) {
    console.error(`--only: expected some of ${known.map(({ name }) => name).join(', ')}, found ${unknown.join(', ')}`);
    process.exit(2);
  }
  return known.filter(({ name }) => names.includes(name));
}

async function run(figure: Figure, directory: string, faults: string[], skipped: string[]): Promise<Measure[]> {
  const profiles = options['cpu-prof'] ? mkdtempSync(join(directory, `fullstop-profile-${figure.name}-`)) : null;
  const closing: (() => unknown)[] = [];
  const spans: Span[] = [];
  const bench: Bench = {
    quick: options.quick,
    check(ok, message) {
      if (!ok) faults.push(`${figure.name}: ${message}`);
    },
    progress: (text) => progress(`${figure.name}: ${text}`),
    async server(more = {}) {
      const server = new BenchServer({ directory, profiles, ...more });
      closing.unshift(async () => {
        await server.close();
        bench.check(
          server.log.length === 0,
          `the server complained ${server.log.length} times, first: ${server.log[0]}`,
        );
      });
      return server.start();
    },
    async client(server, { ends }) {
      const client = new BenchClient(server);
      closing.unshift(() => client.close());
      await client.connect({ ends });
      return client;
    },
    async worker(server, more) {
      const worker = new BenchWorker(server, { profiles, ...more });
      closing.unshift(async () => {
        await worker.close();
        bench.check(worker.log.length === 0, `a worker complained ${worker.log.length} times, first: ${worker.log[0]}`);
      });
      return worker.start();
    },
    skip: (why) => skipped.push(`${figure.name}: ${why}`),
    atEnd: (close) => closing.unshift(close),
    async measured(work) {
      const fromUs = nowUs();
      try {
        return await work();
      } finally {
        spans.push({ fromUs, toUs: nowUs() });
      }
    },
  };
  let measures: Measure[] = [];
  try {
    measures = await figure.run(bench);
  } catch (error) {
    faults.push(`${figure.name}: ${error instanceof Error ? error.stack : error}`);
  } finally {
    for (const close of closing) await close();
  }
  progress('');
  if (profiles !== null)
    process.stdout.write(`${figure.name}, profiles in ${profiles}\n${summarise(profiles, spans)}\n`);
  return measures;
}

async function main(): Promise<void> {
  const directory = resolve(options.dir);
  mkdirSync(directory, { recursive: true });
  if (statfsSync(directory).type === TMPFS) {
    console.error(`${directory} is in memory: nothing there is durable, and F says nothing. Choose a disk with --dir.`);
  }
  if (!isCompiled()) {
    console.error(
      'dist/ is older than the sources: the server runs those, starts slower and takes more memory. npm run build',
    );
  }
  const faults: string[] = [];
  const skipped: string[] = [];
  const around: Around[] = [];
  const verdicts: Verdict[] = [];
  progress('floors');
  let before = await measureFloors(directory);
  for (const figure of chosen()) {
    const measures = await run(figure, directory, faults, skipped);
    progress('floors');
    const after = await measureFloors(directory);
    around.push({ figure: figure.name, before, after });
    verdicts.push(...measures.map((measure) => judge(measure, meanOf(before, after))));
    before = after;
  }
  progress('');
  report(verdicts, around, faults, skipped);
}

function report(verdicts: Verdict[], around: Around[], faults: string[], skipped: string[]): void {
  process.stdout.write(floorsTable(around) + table(verdicts));
  for (const what of skipped) console.log(`skipped: ${what}`);
  for (const fault of faults.slice(0, FAULTS_SHOWN)) console.error(`check failed: ${fault}`);
  if (faults.length > FAULTS_SHOWN) console.error(`and ${faults.length - FAULTS_SHOWN} more`);
  if (options.json !== undefined) {
    const content = { node: process.version, quick: options.quick, floors: around, figures: verdicts, skipped, faults };
    writeFileSync(options.json, `${JSON.stringify(content, null, 2)}\n`);
  }
  const over = verdicts.some(({ state }) => state === 'over');
  process.exitCode = faults.length > 0 || (options.strict && over) ? 1 : 0;
}

if (options.help) process.stdout.write(usage);
else if (options.store === 'mongo') await (await import('./mongo.ts')).measureMongo(options);
else if (options.store !== undefined) {
  console.error(`--store: expected mongo, found ${options.store}`);
  process.exitCode = 2;
} else await main();
