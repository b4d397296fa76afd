/** `fullstop worker`, as a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type BenchServer, type CpuTimes, cpuOf } from './server.ts';

export interface WorkerOptions {
  capabilities: string;
  slots: number;
  /** After the flags of those. */
  args?: string[];
  /** Where it finds the server, when not at the server's own address. */
  url?: string;
  /** Where it writes its CPU profile; null: it makes none. */
  profiles: string | null;
}

let started = 0;

export class BenchWorker {
  readonly #server: BenchServer;
  readonly #options: WorkerOptions;
  /** What it wrote to stderr beside its news: nothing, when all is well. */
  readonly log: string[] = [];
  #child: ChildProcess | null = null;

  constructor(server: BenchServer, options: WorkerOptions) {
    this.#server = server;
    this.#options = options;
  }

  /** Resolves when the server has taken it in. */
  async start(): Promise<this> {
    const { capabilities, slots, args = [], url = this.#server.url, profiles } = this.#options;
    started += 1;
    const name = `bench-${process.pid}-${started}`;
    // The fields of a profile's name are those that Node.js gives it by itself: the fifth is the thread.
    const profile = [`--cpu-prof-name=CPU.worker.${started}.0.0.0.cpuprofile`, `--cpu-prof-dir=${profiles}`];
    const flags = profiles === null ? [] : ['--cpu-prof', ...profile];
    const verb = ['worker', '--capabilities', capabilities, '--slots', String(slots), '--name', name, '--json'];
    const program = join(import.meta.dirname, '..', 'bin', 'fullstop.js');
    const child = spawn(process.execPath, [...flags, program, ...verb, '--log', 'warn', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FULLSTOP_URL: url, FULLSTOP_KEY: this.#server.key },
    });
    this.#child = child;
    createInterface({ input: child.stderr as NodeJS.ReadableStream }).on('line', (text) => this.log.push(text));
    const said: string[] = [];
    const isTakenIn = new Promise<void>((resolve) => {
      createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (text) => {
        said.push(text);
        if (text.startsWith('{"id"')) resolve();
      });
    });
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the worker ended with ${code} before it was taken in: ${[...said, ...this.log].join('\n')}`);
    });
    ended.catch(() => {});
    await Promise.race([isTakenIn, ended]);
    return this;
  }

  cpu(): CpuTimes {
    return cpuOf(this.#child?.pid);
  }

  /** Ends it as an operator does. */
  async close(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  }
}
