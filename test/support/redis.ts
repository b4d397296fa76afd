/** A Redis of a test's own: `redis-server` from the PATH, on a free port of loopback, keeping nothing. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { opened } from './leaks.ts';

const START_MS = 10_000;

export class TestRedis {
  readonly #directory = mkdtempSync(join(tmpdir(), 'fullstop-redis-'));
  readonly #port: number;
  readonly #noteClosed = opened('redis');
  #child: ChildProcess | null = null;

  private constructor(port: number) {
    this.#port = port;
  }

  /**
   * @returns why there is none, as text, where it is not installed
   * @throws instead, as root on Debian in CI, which installs it
   */
  static async start(): Promise<TestRedis | string> {
    if (spawnSync('redis-server', ['--version']).status !== 0) {
      const why = 'no redis-server on the PATH (Debian: apt-get install redis-server)';
      if (process.env.CI === 'true' && process.getuid?.() === 0 && existsSync('/etc/debian_version'))
        throw new Error(why);
      return why;
    }
    const probe = createServer();
    probe.listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address() as { port: number };
    probe.close();
    const redis = new TestRedis(port);
    await redis.run();
    return redis;
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#port}`;
  }

  /** Starts it, again after a `kill`, on the same port. */
  async run(): Promise<void> {
    const args = ['--port', String(this.#port), '--bind', '127.0.0.1', '--save', '', '--dir', this.#directory];
    this.#child = spawn('redis-server', args, { stdio: 'ignore' });
    const untilMs = performance.now() + START_MS;
    while (!(await this.#listens())) {
      if (performance.now() > untilMs) throw new Error('redis-server does not listen');
      await sleep(20);
    }
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
    this.#noteClosed();
  }

  async #listens(): Promise<boolean> {
    const socket = connect(this.#port, '127.0.0.1');
    const listens = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    return listens;
  }
}
