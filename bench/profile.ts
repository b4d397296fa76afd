/**
 * Where a server's CPU time went: self time by function and by file, of each thread.
 *
 * `node bench/profile.ts FILE.cpuprofile…` summarises profiles that `--cpu-prof` has written.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join, sep } from 'node:path';

const ROOT = `${join(import.meta.dirname, '..')}${sep}`;
const FUNCTIONS = 30;
const FILES = 15;
/** What is no code of a file. */
const WHOLE = ['(idle)', '(program)', '(garbage collector)'];

/** Between two instants of the monotonic clock, in µs: the clock of profiles too. */
export interface Span {
  fromUs: number;
  toUs: number;
}

interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  /** The first sample's time is `startTime` and the first delta. */
  startTime: number;
  samples: number[];
  timeDeltas: number[];
}

export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** Of every profile in `directory`; without spans of the whole life of the process. */
export function summarise(directory: string, spans: readonly Span[]): string {
  const files = readdirSync(directory).filter((name) => name.endsWith('.cpuprofile'));
  return files
    .map((name) => summary(join(directory, name), spans))
    .filter((text) => !text.includes('thread without work'))
    .join('\n');
}

function summary(path: string, spans: readonly Span[]): string {
  const profile = JSON.parse(readFileSync(path, 'utf8')) as Profile;
  const frames = new Map(profile.nodes.map(({ id, callFrame }) => [id, callFrame]));
  const byFunction = new Map<string, number>();
  const byFile = new Map<string, number>();
  let totalUs = 0;
  let atUs = profile.startTime;
  for (const [index, deltaUs] of profile.timeDeltas.entries()) {
    atUs += deltaUs;
    if (spans.length > 0 && !spans.some(({ fromUs, toUs }) => atUs >= fromUs && atUs <= toUs)) continue;
    const frame = frames.get(profile.samples[index] as number);
    if (frame === undefined) continue;
    totalUs += deltaUs;
    const file = frame.url === '' ? 'V8 and system' : short(frame.url);
    add(byFile, WHOLE.includes(frame.functionName) ? frame.functionName : file, deltaUs);
    add(
      byFunction,
      `${frame.functionName || '(anonymous)'}  ${frame.url === '' ? '' : `${file}:${frame.lineNumber + 1}`}`,
      deltaUs,
    );
  }
  return [
    `thread ${threadOf(path, byFile)}, ${(totalUs / 1e6).toFixed(1)} s (${basename(path)})`,
    ...top(byFile, FILES, totalUs),
    '  by function, self time',
    ...top(byFunction, FUNCTIONS, totalUs),
    '',
  ].join('\n');
}

function top(times: ReadonlyMap<string, number>, count: number, totalUs: number): string[] {
  const sorted = [...times].sort((a, b) => b[1] - a[1]).slice(0, count);
  return sorted.map(([what, us]) => `  ${((100 * us) / totalUs).toFixed(1).padStart(5)} %  ${what}`);
}

/** Files are named CPU.DATE.TIME.PID.THREAD.NUMBER; the main thread is 0. */
function threadOf(path: string, byFile: ReadonlyMap<string, number>): string {
  if (basename(path).split('.')[4] === '0') return 'main';
  return [...byFile.keys()].find((file) => /\.thread\.[jt]s$/.test(file)) ?? 'without work';
}

/** A path without what all have in common. */
function short(url: string): string {
  const path = url.replace('file://', '').replace(ROOT, '');
  const modules = path.lastIndexOf('node_modules/');
  return modules < 0 ? path : path.slice(modules + 'node_modules/'.length);
}

function add(times: Map<string, number>, key: string, us: number): void {
  times.set(key, (times.get(key) ?? 0) + us);
}

if (import.meta.main) for (const path of process.argv.slice(2)) console.log(summary(path, []));
