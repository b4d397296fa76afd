/**
 * `npm run cluster [-- --port 4747]`: a replica set of three, three engines and a worker on this machine.
 *
 * The terminal's Ctrl-C reaches every process of its group: what must end in order (engines hand over what they run, to
 * a database that is there) runs in a group of its own, below a process that only passes signals on.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { TestMongo } from './mongo.ts';

const ENGINES = 3;
/** How long one may take to listen, and to end. */
const START_MS = 60_000;
const END_MS = 30_000;

const program = join(import.meta.dirname, '..', '..', 'bin', 'fullstop.js');
const npm = 'npm run -s fullstop --';

interface Part {
  name: string;
  child: ChildProcess;
  /** What it said first, as JSON. */
  said: { url?: string; firstVisitUrl?: string; id?: string };
}

const { values } = parseArgs({
  options: { port: { type: 'string', default: '4747' }, inner: { type: 'boolean', default: false } },
});
const directory = mkdtempSync(join(tmpdir(), 'fullstop-cluster-'));
const key = `fs_${randomBytes(24).toString('hex')}`;
const parts: Part[] = [];
let signals = 0;
let told = (): void => {};
const ended = new Promise<void>((resolve) => {
  told = resolve;
});

process.exit(values.inner ? await run(Number(values.port)) : await supervise());

async function supervise(): Promise<number> {
  rmSync(directory, { recursive: true });
  const args = [import.meta.filename, '--inner', '--port', values.port];
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  await gone(child);
  return child.exitCode ?? 1;
}

async function run(firstPort: number): Promise<number> {
  const tell = (): void => {
    signals += 1;
    if (signals > 1) for (const { child } of parts) child.kill('SIGKILL');
    told();
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'disconnect'] as const) process.on(signal as 'SIGINT', tell);
  let database: TestMongo | null = null;
  try {
    console.log('starting a replica set of three');
    const started = await TestMongo.start({ members: 3, own: true });
    if (typeof started === 'string') throw new Error(started);
    database = started;
    const uri = database.uri.replace(/\/(?=\?|$)/, '/fullstop');
    for (let number = 1; number <= ENGINES && signals === 0; number += 1) {
      const port = firstPort === 0 ? 0 : await freePort(firstPort + number - 1);
      const data = join(directory, `engine-${number}`);
      mkdirSync(data);
      await start(`engine-${number}`, ['serve', '--port', String(port), '--data', data, '--json'], {
        MONGODB_URI: uri,
        FULLSTOP_ADMIN_KEY: key,
      });
    }
    const urls = parts.map(({ said }) => said.url as string);
    if (signals === 0) {
      await start('worker', ['worker', '--slots', '64', '--json'], {
        FULLSTOP_URL: urls.join(','),
        FULLSTOP_KEY: key,
      });
    }
    if (signals === 0) console.log(welcome(urls));
    const watched = parts.map(async ({ name, child }) => {
      await gone(child);
      if (signals === 0) console.log(`${name} has ended: the others go on`);
    });
    void Promise.all(watched).then(told);
    await ended;
    return 0;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    return 1;
  } finally {
    console.log('ending the worker, the engines and the database');
    for (const part of parts.toReversed()) await end(part);
    await database?.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Resolves when it has said where it is. */
async function start(name: string, args: string[], env: Record<string, string>): Promise<void> {
  const own = Object.entries(process.env).filter(
    ([variable]) => !/^FULLSTOP_|^MONGODB_URI$|^REDIS_URL$/.test(variable),
  );
  const child = spawn(process.execPath, [program, ...args], {
    env: { ...Object.fromEntries(own), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log = createWriteStream(join(directory, `${name}.log`));
  child.stderr.pipe(log);
  const part: Part = { name, child, said: {} };
  parts.push(part);
  let text = '';
  child.stdout.setEncoding('utf8');
  const line = new Promise<string>((resolve) => {
    child.stdout.on('data', (more: string) => {
      text += more;
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
  });
  const late = AbortSignal.timeout(START_MS);
  const first = await Promise.race([line, gone(child), ended, once(late, 'abort')]);
  if (signals > 0) return;
  if (typeof first !== 'string') throw new Error(`${name} did not start: its log is ${join(directory, `${name}.log`)}`);
  part.said = JSON.parse(first);
  console.log(`${name} is there`);
}

async function end({ child }: Part): Promise<void> {
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), END_MS);
  await gone(child);
  clearTimeout(late);
}

async function gone(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** That port if nobody has it, else any. */
async function freePort(port: number): Promise<number> {
  const probe = createServer();
  try {
    probe.listen(port, '127.0.0.1');
    await once(probe, 'listening');
    return port;
  } catch {
    return 0;
  } finally {
    probe.close();
  }
}

function welcome([first, second, third]: string[]): string {
  const links = parts.flatMap(({ said }) => (said.firstVisitUrl === undefined ? [] : [`    ${said.firstVisitUrl}`]));
  return `
  Three engines and a worker, on one database. Open any of them:

${links.join('\n')}

  Try, in another terminal:
    export FULLSTOP_KEY=${key}
    ${npm} engines --url ${first}
    ${npm} run examples/approval.yaml --url ${first}
    ${npm} events -f ID --url ${second}
    ${npm} stop ID --url ${third}
    kill -9 ${parts[1]?.child.pid}          # engine-2: what it ran goes on at the others

  Logs: ${directory}
  Ctrl-C ends it all.
`;
}
