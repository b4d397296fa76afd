/** `fullstop worker` and `fullstop agent` in processes of their own. Ends only processes that it started. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { ServerProcess } from './server-process.ts';

const program = join(import.meta.dirname, '..', '..', 'bin', 'fullstop.js');

/** How long it may take to be taken in, and to end, on a busy machine. */
const START_MS = 30_000;
const END_MS = 45_000;

export interface WorkerProcessOptions {
  /** After the name of the verb. */
  args?: string[];
  env?: Record<string, string>;
  /** Default: the first admin's. */
  key?: string;
  /** Run instead of the program: a file that stands in for a worker. */
  file?: string;
}

export class WorkerProcess {
  readonly #child: ChildProcess;
  #stdout = '';
  log = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text;
    });
  }

  /** Resolves when the server has taken it in. */
  static async start(
    server: ServerProcess,
    verb: 'worker' | 'agent',
    { args = [], env = {}, key = server.key, file }: WorkerProcessOptions = {},
  ): Promise<WorkerProcess> {
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith('FULLSTOP_'));
    const command = file === undefined ? [program, verb, '--json', ...args] : [file, ...args];
    const child = spawn(process.execPath, command, {
      env: { ...Object.fromEntries(own), NO_COLOR: '1', FULLSTOP_URL: server.url, FULLSTOP_KEY: key, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const worker = new WorkerProcess(child);
    const untilMs = performance.now() + START_MS;
    while (!worker.#stdout.includes('\n')) {
      if (!worker.running || performance.now() > untilMs) {
        child.kill('SIGKILL');
        throw new Error(`the ${verb} was not taken in:\n${worker.log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return worker;
  }

  /** Its id, as it said. */
  get id(): string {
    return (JSON.parse(this.#stdout.split('\n')[0] as string) as { id: string }).id;
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  send(signal: 'SIGTERM' | 'SIGINT' | 'SIGSTOP' | 'SIGCONT'): void {
    this.#child.kill(signal);
  }

  /** Resolves with its exit code, or the signal that ended it. */
  async ended(): Promise<number | string | null> {
    if (this.running) {
      const late = setTimeout(() => this.#child.kill('SIGKILL'), END_MS);
      await once(this.#child, 'exit');
      clearTimeout(late);
    }
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  /** `kill -9`. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.ended();
  }
}
