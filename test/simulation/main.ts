/**
 * `npm run simulate -- [options]`
 *
 *     --seeds N       how many seeds (1,000), --from S the first of them (1), --workers W processes (1)
 *     --seed S        one seed; --trace tells its story, --plan prints what was drawn
 *     --file F        a plan that was kept, with --trace
 *     --engines E     engines in each world (drawn)
 *     --keep          cut failing seeds down and keep them in test/simulation/regressions/
 *     --mutants       for each guard that can be switched off, how many seeds it takes to notice; or one: --mutant NAME
 *     --json          for other processes
 */
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Histogram, StopClass } from './latency.ts';
import { prepareModules } from './modules.ts';
import { mutants } from './mutants.ts';
import type { Counts } from './plan.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    from: { type: 'string', default: '1' },
    workers: { type: 'string', default: '1' },
    engines: { type: 'string' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    plan: { type: 'boolean', default: false },
    file: { type: 'string' },
    keep: { type: 'boolean', default: false },
    mutants: { type: 'boolean', default: false },
    mutant: { type: 'string' },
    step: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});

/** Every so many seeds each fault is left out once, to see whether it changed anything. */
const SAMPLE = 25;
const SEEDS_OF_A_MUTANT = 5_000;

const mutant = values.mutant === undefined ? null : mutants.find(({ name }) => name === values.mutant);
if (mutant === undefined) throw new Error(`no mutant ${values.mutant}`);
prepareModules(mutant === null ? [] : mutant.rewrites);
const { countsOf, drawPlan, faultKinds, LEAST } = await import('./plan.ts');
const { runPlan } = await import('./world.ts');
const { percentile, STOP_BOUNDS_MS, stopClasses } = await import('./latency.ts');
type Plan = ReturnType<typeof drawPlan>;

interface Summary {
  seeds: number;
  failed: { seed: number; fault: string }[];
  executions: number;
  stops: number;
  steps: number;
  hits: Record<string, number>;
  /** The smallest of each over the seeds: what their plans ask for, and what came to be (of faults, the kinds). */
  planned: Counts;
  came: Counts;
  /** Seeds in which less came to be than every plan asks for. */
  below: Counts;
  /** Of the sampled seeds: how often a fault was there, and how often the run without it was another. */
  sampled: Record<string, [there: number, mattered: number]>;
  /** How long stops took, by what went wrong meanwhile. */
  latencies: Record<StopClass, Histogram>;
  /** Of the seeds themselves. */
  cpuMs: number;
}

const counted = Object.keys(LEAST) as (keyof Counts)[];
const most = (): Counts => ({ executions: 1e9, stops: 1e9, faults: 1e9 });

function lower(least: Counts, by: Counts): void {
  for (const what of counted) least[what] = Math.min(least[what], by[what]);
}

const emptySummary = (): Summary => ({
  seeds: 0,
  failed: [],
  executions: 0,
  stops: 0,
  steps: 0,
  hits: {},
  planned: most(),
  came: most(),
  below: { executions: 0, stops: 0, faults: 0 },
  sampled: {},
  latencies: { healthy: {}, broadcastLost: {}, ownerDead: {}, eventHealthy: {}, eventLost: {} },
  cpuMs: 0,
});

const planOf = (seed: number): Plan =>
  drawPlan(seed, values.engines === undefined ? {} : { engines: Number(values.engines) });

async function tellOne(plan: Plan): Promise<number> {
  if (values.plan) console.log(JSON.stringify(plan, null, 2));
  const outcome = await runPlan(plan, { trace: values.trace });
  if (values.trace) console.log(outcome.lines.join('\n'));
  console.log(`seed ${plan.seed}: ${outcome.executions} executions, ${outcome.stops} stopped, ${outcome.steps} steps`);
  console.log(
    `faults hit: ${Object.entries(outcome.hits)
      .map(([kind, times]) => `${kind} ${times}`)
      .join(', ')}`,
  );
  console.log(`hash ${outcome.hash}`);
  for (const fault of outcome.faults) console.log(`FAILED: ${fault}`);
  return outcome.faults.length > 0 ? 1 : 0;
}

async function runSeeds(from: number, count: number, step: number, tell: (summary: Summary) => void): Promise<Summary> {
  const summary = emptySummary();
  for (let index = 0; index < count; index += 1) {
    const seed = from + index * step;
    const plan = planOf(seed);
    const cpu = process.cpuUsage();
    const outcome = await runPlan(plan);
    const { user, system } = process.cpuUsage(cpu);
    summary.cpuMs += (user + system) / 1_000;
    for (const { class: of, ms } of outcome.latencies) add(summary.latencies[of], Math.ceil(ms), 1);
    summary.seeds += 1;
    summary.executions += outcome.executions;
    summary.stops += outcome.stops;
    summary.steps += outcome.steps;
    const came = {
      executions: outcome.executions,
      stops: outcome.stops,
      faults: Object.keys(outcome.hits).length,
    };
    lower(summary.planned, countsOf(plan));
    lower(summary.came, came);
    for (const what of counted) if (came[what] < LEAST[what]) summary.below[what] += 1;
    for (const kind of Object.keys(outcome.hits)) summary.hits[kind] = (summary.hits[kind] ?? 0) + 1;
    if (outcome.faults.length > 0) {
      summary.failed.push({ seed, fault: outcome.faults[0] ?? '' });
      if (mutant !== null) break;
    } else if (mutant === null && index % SAMPLE === 0) {
      for (const [at, fault] of plan.faults.entries()) {
        const without = await runPlan({ ...plan, faults: plan.faults.filter((_, other) => other !== at) });
        const sampled = summary.sampled[fault.kind] ?? [0, 0];
        summary.sampled[fault.kind] = sampled;
        sampled[0] += 1;
        if (without.hash !== outcome.hash) sampled[1] += 1;
      }
    }
    if (index % 100 === 99) tell(summary);
  }
  return summary;
}

/** In processes of their own, each with every W-th seed. */
async function runInProcesses(from: number, count: number, workers: number): Promise<Summary> {
  const parts = new Map<number, Summary>();
  const startedMs = performance.now();
  const tell = (): void => {
    const total = sum([...parts.values()]);
    const seconds = (performance.now() - startedMs) / 1_000;
    if (process.stderr.isTTY || total.seeds % 1_000 === 0)
      process.stderr.write(
        `${total.seeds} of ${count} seeds, ${total.failed.length} failed, ${Math.round(total.seeds / seconds)}/s\n`,
      );
  };
  if (workers === 1) {
    const summary = await runSeeds(from, count, 1, (part) => {
      parts.set(0, part);
      tell();
    });
    return summary;
  }
  await Promise.all(
    Array.from({ length: workers }, async (_, index) => {
      const seeds = Math.floor((count - index + workers - 1) / workers);
      const args = ['--from', String(from + index), '--seeds', String(seeds), '--step', String(workers), '--json'];
      if (values.engines !== undefined) args.push('--engines', values.engines);
      parts.set(
        index,
        await child(args, (part) => {
          parts.set(index, part);
          tell();
        }),
      );
    }),
  );
  return sum([...parts.values()]);
}

function child(args: string[], tell: (summary: Summary) => void): Promise<Summary> {
  return new Promise((resolve, reject) => {
    const started = spawn(process.execPath, [import.meta.filename, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    let last: Summary | null = null;
    started.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const lines = text.split('\n');
      text = lines.pop() ?? '';
      for (const line of lines) {
        last = JSON.parse(line) as Summary;
        tell(last);
      }
    });
    started.once('close', (code) => {
      if (last === null) reject(new Error(`a process of the simulation ended with ${code}`));
      else resolve(last);
    });
  });
}

function add(histogram: Histogram, ms: number | string, times: number): void {
  histogram[ms] = (histogram[ms] ?? 0) + times;
}

function sum(parts: Summary[]): Summary {
  const total = emptySummary();
  for (const part of parts) {
    total.seeds += part.seeds;
    total.failed.push(...part.failed);
    total.executions += part.executions;
    total.stops += part.stops;
    total.steps += part.steps;
    total.cpuMs += part.cpuMs;
    lower(total.planned, part.planned);
    lower(total.came, part.came);
    for (const what of counted) total.below[what] += part.below[what];
    for (const of of stopClasses)
      for (const [ms, times] of Object.entries(part.latencies[of])) add(total.latencies[of], ms, times);
    for (const [kind, times] of Object.entries(part.hits)) total.hits[kind] = (total.hits[kind] ?? 0) + times;
    for (const [kind, [there, mattered]] of Object.entries(part.sampled)) {
      const sampled = total.sampled[kind] ?? [0, 0];
      total.sampled[kind] = sampled;
      sampled[0] += there;
      sampled[1] += mattered;
    }
  }
  return total;
}

/** I4: false where a percentile is out of its bound. */
function printLatencies({ latencies }: Summary): boolean {
  let inTime = true;
  console.log('stops, events (ms)     times       p50       p99       max   p99 at most');
  for (const of of stopClasses) {
    const histogram = latencies[of];
    const count = Object.values(histogram).reduce((total, times) => total + times, 0);
    const [p50, p99, max] = [0.5, 0.99, 1].map((share) => percentile(histogram, share)) as [number, number, number];
    const bound = STOP_BOUNDS_MS[of];
    if (p99 > bound) inTime = false;
    const figures = [count, p50, p99, max].map((figure) => String(figure).padStart(9)).join(' ');
    console.log(`${of.padEnd(18)} ${figures}     ${String(bound).padStart(9)}`);
  }
  return inTime;
}

function print(summary: Summary, seconds: number): void {
  const { seeds, failed } = summary;
  const each = (total: number): string => (total / seeds).toFixed(1);
  console.log(
    `${seeds} seeds in ${seconds.toFixed(1)} s (${(seeds / seconds).toFixed(0)}/s with the sampled ones again; ${(summary.cpuMs / seeds).toFixed(1)} ms of CPU each: ${((1_000 * seeds) / summary.cpuMs).toFixed(0)}/s on one core): each ${each(summary.executions)} executions, ${each(summary.stops)} stopped, ${each(summary.steps)} steps`,
  );
  const row = (name: string, counts: Counts): void =>
    console.log(`${name.padEnd(18)} ${counted.map((what) => String(counts[what]).padStart(11)).join('')}`);
  console.log(`least of a seed    ${counted.map((what) => what.padStart(11)).join('')}`);
  row('planned', summary.planned);
  row('came to be', summary.came);
  row(`seeds below ${counted.map((what) => LEAST[what]).join(', ')}`, summary.below);
  console.log('fault                  seeds hit   changed the run (sampled)');
  for (const kind of faultKinds) {
    const [there, mattered] = summary.sampled[kind] ?? [0, 0];
    console.log(`${kind.padEnd(22)} ${String(summary.hits[kind] ?? 0).padStart(9)}   ${mattered} of ${there}`);
  }
  console.log(`${failed.length} seeds failed`);
  for (const { seed, fault } of failed.slice(0, 40)) console.log(`  seed ${seed}: ${fault.slice(0, 300)}`);
}

async function keep(failed: Summary['failed']): Promise<void> {
  const { shrink } = await import('./shrink.ts');
  for (const { seed, fault } of failed.slice(0, 10)) {
    const plan = await shrink(planOf(seed), fault);
    const file = join(import.meta.dirname, 'regressions', `${seed}.json`);
    writeFileSync(file, `${JSON.stringify({ fault, plan }, null, 2)}\n`);
    console.log(`kept ${file}: ${plan.faults.length} faults, ${plan.load.length} requests`);
  }
}

/** For each guard the first seed that fails without it, and does not with it. */
async function tellMutants(): Promise<number> {
  console.log('guard switched off'.padEnd(78), 'seeds  seconds   noticed by');
  let missed = 0;
  for (const { name, what } of mutants) {
    const startedMs = performance.now();
    const { seeds, failed } = await child(
      ['--mutant', name, '--seeds', String(SEEDS_OF_A_MUTANT), '--from', values.from, '--json'],
      () => undefined,
    );
    const [found] = failed;
    const alone = found === undefined ? null : await runPlan(planOf(found.seed));
    if (alone === null || alone.faults.length > 0) missed += 1;
    const seconds = ((performance.now() - startedMs) / 1_000).toFixed(0);
    const by = alone !== null && alone.faults.length > 0 ? 'fails with it too: ' : '';
    console.log(
      `${`${name}: ${what}`.padEnd(78)} ${(found === undefined ? '-' : String(seeds)).padStart(5)} ${seconds.padStart(8)}   ${by}${(found?.fault ?? 'nothing').slice(0, 140)}`,
    );
  }
  console.log(`${mutants.length - missed} of ${mutants.length} noticed within ${SEEDS_OF_A_MUTANT} seeds`);
  return missed === 0 ? 0 : 1;
}

async function main(): Promise<number> {
  if (values.file !== undefined) return tellOne((JSON.parse(readFileSync(values.file, 'utf8')) as { plan: Plan }).plan);
  if (values.seed !== undefined) return tellOne(planOf(Number(values.seed)));
  if (values.mutants) return tellMutants();
  const from = Number(values.from);
  const count = Number(values.seeds);
  if (values.json) {
    const line = (summary: Summary): void => void process.stdout.write(`${JSON.stringify(summary)}\n`);
    line(await runSeeds(from, count, Number(values.step), line));
    return 0;
  }
  const startedMs = performance.now();
  const summary = await runInProcesses(from, count, Number(values.workers));
  print(summary, (performance.now() - startedMs) / 1_000);
  const inTime = printLatencies(summary);
  if (!inTime) console.log('stops, or events on their way to clients, took longer than they may (I4)');
  if (values.keep) await keep(summary.failed);
  return summary.failed.length > 0 || !inTime ? 1 : 0;
}

process.exitCode = await main();
