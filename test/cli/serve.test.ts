import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { readServerFile } from '../../src/config.ts';

const bin = join(import.meta.dirname, '..', '..', 'bin', 'fullstop.js');

interface Run {
  child: ChildProcess;
  stdout: string;
  stderr: string;
  /** Exit code and signal. */
  exit: Promise<unknown[]>;
}

describe('fullstop serve', () => {
  let directory: string;
  let data: string;
  let runs: Run[];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'fullstop-serve-'));
    data = join(directory, 'data');
    runs = [];
  });

  afterEach(async () => {
    for (const { child, exit } of runs) {
      child.kill('SIGKILL');
      await exit;
    }
    rmSync(directory, { recursive: true });
  });

  function fullstop(args: string[], env: Record<string, string> = {}): Run {
    const child = spawn(process.execPath, [bin, ...args], {
      env: { PATH: process.env.PATH, FULLSTOP_DATA: data, FULLSTOP_DEMO: '0', FULLSTOP_LOG: 'warn', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const run: Run = { child, stdout: '', stderr: '', exit: once(child, 'close') };
    child.stdout?.on('data', (chunk) => {
      run.stdout += chunk;
    });
    child.stderr?.on('data', (chunk) => {
      run.stderr += chunk;
    });
    runs.push(run);
    return run;
  }

  async function serve(env: Record<string, string> = {}, args: string[] = []): Promise<Run> {
    const run = fullstop(['serve', '--port', '0', ...args], env);
    while (!/stop \S+\n|firstVisitUrl/.test(run.stdout)) {
      await Promise.race([
        once(run.child.stdout as NodeJS.ReadableStream, 'data'),
        run.exit.then(() => Promise.reject(new Error(run.stderr))),
      ]);
    }
    return run;
  }

  it('prints the link and the commands to try, which find the server', async () => {
    const server = await serve({ FULLSTOP_DEMO: '1' });
    const { url } = readServerFile(data) ?? { url: '' };
    expect(server.stdout).to.contain(`listens at ${url}`).and.to.contain(`${url}/first-visit?token=`);
    const [, id] = /events -f (\S+)/.exec(server.stdout) ?? [];
    expect(server.stdout).to.contain('npm run -s fullstop -- ps').and.to.contain(`npm run -s fullstop -- stop ${id}`);
    const stop = fullstop(['stop', String(id), '--wait']);
    expect(await stop.exit, stop.stderr).to.deep.equal([0, null]);
    expect(stop.stdout).to.contain('ended: the final record is stored');
  });

  it('links to where others reach it, and serves its own machine where it listens', async () => {
    const server = await serve({ FULLSTOP_ADVERTISED_URL: 'https://one.example:4748' });
    const { url = '' } = readServerFile(data) ?? {};
    expect(server.stdout).to.contain(`listens at ${url}`).and.to.contain('https://one.example:4748/first-visit?token=');
    const ps = fullstop(['ps']);
    expect(await ps.exit, ps.stderr).to.deep.equal([0, null]);
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`ends on ${signal} with 0 and takes server.json away`, async () => {
      const server = await serve();
      server.child.kill(signal);
      expect(await server.exit, server.stderr).to.deep.equal([0, null]);
      expect(existsSync(join(data, 'server.json'))).to.equal(false);
    });
  }

  it('refuses a data directory in use, and a port that is taken, in one line', async () => {
    await serve();
    const second = fullstop(['serve', '--port', '0']);
    expect(await second.exit).to.deep.equal([1, null]);
    expect(second.stderr).to.match(/^fullstop: .*in use.*\n$/);
    const port = new URL(readServerFile(data)?.url ?? '').port;
    const third = fullstop(['serve', '--port', port, '--data', join(directory, 'other')]);
    expect(await third.exit).to.deep.equal([1, null]);
    expect(third.stderr).to.match(new RegExp(`^fullstop: port ${port} of 127.0.0.1 is taken: .*--port.*\\n$`));
  });

  it('tells a worker and an agent with an unknown key in their terms what to do', async () => {
    await serve();
    for (const args of [['worker'], ['agent', '--pool', 'yard', '--allow', 'true']]) {
      const refused = fullstop(args, { FULLSTOP_KEY: 'fs_nobody', FULLSTOP_LOG: 'silent' });
      expect(await refused.exit).to.deep.equal([1, null]);
      expect(refused.stderr).to.match(
        /^fullstop: http:\S+ refused the key from the environment: set FULLSTOP_KEY .* \(FS_UNAUTHENTICATED\)\n$/,
      );
    }
  });

  it('tells a worker what a capability needs that it does not have', async () => {
    const worker = fullstop(['worker', '--capabilities', 'ai,http'], { FULLSTOP_KEY: 'fs_nobody' });
    expect(await worker.exit).to.deep.equal([2, null]);
    expect(worker.stderr).to.contain('expected some of http, found ai, which needs FULLSTOP_MODELS');
  });

  describe('while an attempt runs', () => {
    let endpoint: Server;
    let asked: Promise<unknown>;

    beforeEach(async () => {
      endpoint = createServer(() => {});
      asked = once(endpoint, 'request');
      await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve));
    });

    afterEach(() => {
      endpoint.closeAllConnections();
      endpoint.close();
    });

    for (const [signal, code] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      it(`waits after ${signal}, and ends at once with ${code} on a second one`, async () => {
        const host = `127.0.0.1:${(endpoint.address() as AddressInfo).port}`;
        const server = await serve({ FULLSTOP_HTTP_ALLOW: host });
        const file = join(directory, 'slow.yaml');
        writeFileSync(file, `name: slow\nnodes:\n  call: { type: http, with: { url: "http://${host}/" } }\n`);
        const run = fullstop(['run', file]);
        expect(await run.exit, run.stderr).to.deep.equal([0, null]);
        await asked;
        server.child.kill(signal);
        await new Promise((resolve) => setTimeout(resolve, 500));
        expect(server.child.exitCode).to.equal(null);
        server.child.kill(signal);
        expect(await server.exit).to.deep.equal([code, null]);
      });
    }
  });
});
