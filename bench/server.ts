/** The production server, as a process of its own with its defaults, and what the system says of it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const ROOT = join(import.meta.dirname, '..');
const { stampOf } = createRequire(import.meta.url)('../bin/sources.js') as { stampOf(root: string): string };
/** Of the system's CPU times. */
const TICKS_PER_SECOND = 100;

export interface ServerOptions {
  /** Where data directories are made. */
  directory: string;
  /** Where the server writes CPU profiles; null: it makes none. */
  profiles: string | null;
  /** `host:port` that http nodes may call. */
  httpAllow?: string;
  /** Tasks that the server itself runs at once. */
  slots?: number;
  /** Whether Stately viewers may look; default: they may. */
  inspect?: boolean;
  /** More of its environment. */
  env?: Record<string, string>;
}

/** CPU seconds so far; threads by their names, those of V8's helpers as one. */
export interface CpuTimes {
  total: number;
  threads: Map<string, number>;
}

export class BenchServer {
  readonly dataDir: string;
  readonly #options: ServerOptions;
  /** What it wrote to stderr: nothing, when all is well. */
  readonly log: string[] = [];
  #child: ChildProcess | null = null;
  #url = '';
  /** When its process was started last, on the wall clock. */
  startedAtMs = 0;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.dataDir = mkdtempSync(join(options.directory, 'fullstop-bench-'));
  }

  get url(): string {
    return this.#url;
  }

  get key(): string {
    return readFileSync(join(this.dataDir, 'admin.key'), 'utf8').trim();
  }

  /** Resolves when it listens. */
  async start(): Promise<this> {
    const { profiles, httpAllow, slots, inspect = true, env } = this.#options;
    const flags = profiles === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${profiles}`];
    const serve = ['serve', '--port', '0', '--data', this.dataDir, '--demo', '0', '--json'];
    if (slots !== undefined) serve.push('--slots', String(slots));
    if (!inspect) serve.push('--inspect', '0');
    this.startedAtMs = Date.now();
    const child = spawn(process.execPath, [...flags, join(ROOT, 'bin', 'fullstop.js'), ...serve], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env, ...(httpAllow === undefined ? {} : { FULLSTOP_HTTP_ALLOW: httpAllow }) },
    });
    this.#child = child;
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (text) => this.log.push(text));
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the server ended with ${code} before it listened`);
    });
    ended.catch(() => {});
    const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    const [line] = (await Promise.race([once(lines, 'line'), ended])) as [string];
    this.#url = (JSON.parse(line) as { url: string }).url;
    return this;
  }

  /** As a power cut would, for the process. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** Ends it as an operator does, and deletes its data. */
  async close(): Promise<void> {
    await this.#end('SIGTERM');
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  async #end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (text) => this.log.push(text));
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  residentMb(): number {
    const kb = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${this.#child?.pid}/status`, 'utf8'))?.[1];
    return Number(kb) / 1_024;
  }

  cpu(): CpuTimes {
    return cpuOf(this.#child?.pid);
  }
}

export function cpuOf(pid: number | undefined): CpuTimes {
  const threads = new Map<string, number>();
  for (const id of readdirSync(`/proc/${pid}/task`)) {
    const { name, seconds } = statOf(`/proc/${pid}/task/${id}`);
    const known = name.startsWith('store ') ? name : name === 'MainThread' ? 'main' : 'helpers';
    threads.set(known, (threads.get(known) ?? 0) + seconds);
  }
  return { total: statOf(`/proc/${pid}`).seconds, threads };
}

/** `stat` is PID (NAME) STATE …, user and system ticks in fields 14 and 15. */
function statOf(path: string): { name: string; seconds: number } {
  const stat = readFileSync(`${path}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { name: stat.slice(stat.indexOf('(') + 1, stat.lastIndexOf(')')), seconds: ticks / TICKS_PER_SECOND };
}

/** Whether the server will run its compiled files; it runs its sources when those are newer. */
export function isCompiled(): boolean {
  try {
    const built = JSON.parse(readFileSync(join(ROOT, 'dist', 'sources.json'), 'utf8')) as { stamp: string };
    return built.stamp === stampOf(ROOT);
  } catch {
    return false;
  }
}

/** What was used between two looks, in words: `main 4.1 s, store writer 2.9 s`. */
export function cpuBetween(before: CpuTimes, after: CpuTimes): string {
  const used = [...after.threads].map(([name, seconds]) => [name, seconds - (before.threads.get(name) ?? 0)] as const);
  const shown = used.filter(([, seconds]) => seconds >= 0.05).sort((a, b) => b[1] - a[1]);
  const total = (after.total - before.total).toFixed(1);
  return `${total} s (${shown.map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`).join(', ')})`;
}
