/**
 * A real server in a process of its own, on a data directory that outlives it: started, killed, started again.
 *
 * Ends only processes that it started, each by its own id.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { io, type Socket } from 'socket.io-client';

const program = join(import.meta.dirname, '..', '..', 'bin', 'fullstop.js');

/** How long a server may take to listen, and to end, on a busy machine. */
const START_MS = 30_000;
const END_MS = 30_000;
/** How long a request may take. */
const ANSWER_MS = 30_000;

// biome-ignore lint/suspicious/noExplicitAny: answers are checked field by field.
export type Data = any;

export interface HttpAnswer {
  status: number;
  headers: Headers;
  data: Data;
}

export interface Exit {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface ServerProcessOptions {
  /** Beside those of the test's own process, without what would configure a server. */
  env?: Record<string, string>;
  /** 0, the default, is another one at each start. */
  port?: number;
  /** Of `serve`, after `--port N --data DIR`; default `--demo 0`. */
  args?: string[];
  /** An existing one is kept when the server is closed. */
  dataDir?: string;
}

export class ServerProcess {
  readonly dataDir: string;
  readonly #ownsDirectory: boolean;
  readonly #env: Record<string, string>;
  readonly #port: number;
  readonly #args: string[];
  readonly #sockets = new Set<Socket>();
  #child: ChildProcess | null = null;
  #log = '';
  #stdout = '';
  #url = '';
  #key = '';
  /** Times a process was started on the directory. */
  starts = 0;

  constructor({ env = {}, port = 0, args = ['--demo', '0'], dataDir }: ServerProcessOptions = {}) {
    this.#ownsDirectory = dataDir === undefined;
    this.dataDir = dataDir ?? mkdtempSync(join(tmpdir(), 'fullstop-data-'));
    this.#env = env;
    this.#port = port;
    this.#args = args;
  }

  /** A started server. */
  static async start(options: ServerProcessOptions = {}): Promise<ServerProcess> {
    const server = new ServerProcess(options);
    try {
      await server.start();
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  get url(): string {
    return this.#url;
  }

  /** The first admin's. */
  get key(): string {
    return this.#key;
  }

  get pid(): number | null {
    return this.#child?.pid ?? null;
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** What all its processes wrote to stderr. */
  get log(): string {
    return this.#log;
  }

  /** What the last process wrote to stdout. */
  get stdout(): string {
    return this.#stdout;
  }

  /** Starts the process without waiting for it to listen. */
  spawn(): void {
    if (this.running) throw new Error('the server runs already');
    // What a killed server left says nothing of this one.
    rmSync(join(this.dataDir, 'server.json'), { force: true });
    this.starts += 1;
    // Somebody else may have got the port of the last one.
    this.#url = '';
    this.#stdout = '';
    const child = spawn(
      process.execPath,
      [program, 'serve', '--port', String(this.#port), '--data', this.dataDir, ...this.#args],
      {
        env: environment(this.#env),
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log += text;
    });
    this.#child = child;
  }

  /** Resolves when it listens. */
  async start(): Promise<this> {
    this.spawn();
    await this.listening();
    return this;
  }

  async listening(): Promise<void> {
    const file = join(this.dataDir, 'server.json');
    const untilMs = performance.now() + START_MS;
    for (;;) {
      const written = readJson(file) as { url: string; pid: number } | null;
      if (written !== null && written.pid === this.pid) {
        this.#url = written.url;
        this.#key = this.#env.FULLSTOP_ADMIN_KEY ?? readFileSync(join(this.dataDir, 'admin.key'), 'utf8').trim();
        return;
      }
      if (!this.running) throw new Error(`the server ended before it listened:\n${this.#log}`);
      if (performance.now() > untilMs)
        throw new Error(`the server does not listen after ${START_MS} ms:\n${this.#log}`);
      await sleep(5);
    }
  }

  /** `kill -9`; resolves when the process is gone. */
  async kill(): Promise<void> {
    await this.signal('SIGKILL');
  }

  /** Sends a signal and waits for the process's end. */
  async signal(signal: 'SIGTERM' | 'SIGINT' | 'SIGKILL'): Promise<Exit> {
    const ended = this.ended();
    this.#child?.kill(signal);
    return ended;
  }

  /** Sends a signal and waits for nothing. */
  send(signal: 'SIGTERM' | 'SIGINT'): void {
    this.#child?.kill(signal);
  }

  /** Resolves when the process has ended, however it ends. */
  async ended(): Promise<Exit> {
    const child = this.#child;
    if (child === null) throw new Error('the server was never started');
    if (this.running) {
      const late = AbortSignal.timeout(END_MS);
      try {
        await once(child, 'close', { signal: late });
      } catch {
        child.kill('SIGKILL');
        throw new Error(`the server did not end within ${END_MS} ms:\n${this.#log}`);
      }
    }
    return { code: child.exitCode, signal: child.signalCode, stdout: this.#stdout, stderr: this.#log };
  }

  async restart(): Promise<void> {
    await this.kill();
    await this.start();
  }

  /** Ends the process, the sockets and the directory. */
  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.disconnect();
    this.#sockets.clear();
    if (this.running) await this.kill();
    if (this.#ownsDirectory) rmSync(this.dataDir, { recursive: true, force: true });
  }

  /** One request; `key` null sends none. Rejects when the server is not there. */
  async http(
    method: string,
    path: string,
    body?: unknown,
    { key = this.#key }: { key?: string | null } = {},
  ): Promise<HttpAnswer> {
    const answer = await fetch(this.#url + path, {
      method,
      redirect: 'manual',
      signal: AbortSignal.timeout(ANSWER_MS),
      headers: {
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.startsWith('application/json') === true;
    return { status: answer.status, headers: answer.headers, data: isJson && text !== '' ? JSON.parse(text) : text };
  }

  /** The data of an answer that has to be a success. */
  async ok(method: string, path: string, body?: unknown): Promise<Data> {
    const { status, data } = await this.http(method, path, body);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(data)}`);
    return data;
  }

  /** A connected socket; `close` ends it. */
  async socket(key = this.#key): Promise<Socket> {
    const socket = io(this.#url, {
      auth: { token: key },
      transports: ['websocket'],
      forceNew: true,
      reconnection: false,
    });
    this.#sockets.add(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
    });
    return socket;
  }

  /** Runs the command line on this server's machine: it finds URL and key in the data directory. */
  async cli(...args: string[]): Promise<Exit> {
    return runProgram(args, { FULLSTOP_DATA: this.dataDir });
  }

  /** Polls a record until `done`. */
  async record(id: string, done: (record: Data) => boolean = hasEnded, withinMs = 20_000): Promise<Data> {
    return until(`execution ${id}`, () => this.ok('GET', `/api/executions/${id}`), done, withinMs);
  }

  /** All events of an execution. */
  async events(id: string): Promise<Data[]> {
    const events: Data[] = [];
    for (let from = 1; ; ) {
      const page = await this.ok('GET', `/api/executions/${id}/events?from=${from}&limit=1000`);
      events.push(...page.items);
      if (page.items.length < 1_000) return events;
      from = page.nextFrom;
    }
  }

  /** Saves a definition and starts it; the id. */
  async run(definition: { name: string }, input: unknown = {}): Promise<string> {
    await this.ok('POST', '/api/workflows', definition);
    return (await this.ok('POST', '/api/executions', { workflow: definition.name, input })).id;
  }
}

/**
 * A port that nobody had a moment ago, for a server that clients find again where it was. It is none of those that the
 * system gives to connections: while no server listens, one of them, even a client's own, could have it.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    const probe = createServer().listen(port, '127.0.0.1');
    try {
      await once(probe, 'listening');
    } catch {
      continue;
    }
    await new Promise((resolve) => probe.close(resolve));
    return port;
  }
}

/** Runs `fullstop ARGS` to its end. */
export async function runProgram(args: string[], env: Record<string, string> = {}): Promise<Exit> {
  const child = spawn(process.execPath, [program, ...args], {
    env: environment(env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const late = setTimeout(() => child.kill('SIGKILL'), END_MS);
  const [code, signal] = await once(child, 'close');
  clearTimeout(late);
  return { code, signal, stdout, stderr };
}

export const hasEnded = (record: Data): boolean => record.endedAt !== null;

/** Reads again and again until what was read fits. */
export async function until<T>(
  what: string,
  read: () => Promise<T>,
  fits: (value: T) => boolean,
  withinMs = 20_000,
): Promise<T> {
  const untilMs = performance.now() + withinMs;
  for (;;) {
    const value = await read();
    if (fits(value)) return value;
    if (performance.now() > untilMs)
      throw new Error(`${what} is not as expected after ${withinMs} ms: ${JSON.stringify(value)}`);
    await sleep(15);
  }
}

function environment(more: Record<string, string>): NodeJS.ProcessEnv {
  // A database that tests may use is no place for the servers of all of them.
  const others = ['MONGODB_URI', 'REDIS_URL'];
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('FULLSTOP_') && !others.includes(name));
  return { ...Object.fromEntries(own), NO_COLOR: '1', ...more };
}

function readJson(file: string): unknown {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return null;
  }
}
