/**
 * `npm run bench -- --store mongo`: the figures of engines that share a MongoDB, on a replica set of three members on
 * this machine, beside what the driver itself does there.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { MongoClient } from 'mongodb';
import { LIVE } from '../src/adapters/mongo/codec.ts';
import { TestMongo } from '../test/support/mongo.ts';
import { BenchClient, forAll } from './client.ts';
import { Instants, SilentEndpoint } from './endpoint.ts';
import { median, percentile, shown } from './figure.ts';
import { type MongoFloors, measureMongoFloors } from './mongo-floors.ts';
import { checkStopped, parkedWorkflow } from './parked-calls.ts';
import { readBack } from './read-back.ts';
import { BenchServer } from './server.ts';
import { chain, chainOfCommits, type Shape } from './workflows.ts';

export interface MongoBenchOptions {
  only?: string | undefined;
  quick: boolean;
}

let quick = false;
/** Executions that wait while others are stopped. */
const parked = (): number => (quick ? 100 : 1_000);
const KEY = `fs_${randomBytes(24).toString('hex')}`;
/** Commands that a driver sends for its caller, as the server counts them. `getMore` is left out. */
const COMMANDS = ['find', 'insert', 'update', 'delete', 'findAndModify', 'aggregate', 'count', 'distinct'] as const;

interface Row {
  name: string;
  measured: number;
  unit: string;
  /** null: told for comparison. */
  limit: number | null;
  atLeast: boolean;
  note: string;
}

const rows: Row[] = [];
const faults: string[] = [];
const check = (ok: boolean, message: string): void => {
  if (!ok) faults.push(message);
};
const progress = (text: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`);
  else console.error(text);
};
const most = (name: string, measured: number, unit: string, limit: number, note: string): void => {
  rows.push({ name, measured, unit, limit, atLeast: false, note });
};
const least = (name: string, measured: number, unit: string, limit: number, note: string): void => {
  rows.push({ name, measured, unit, limit, atLeast: true, note });
};

const aside = (name: string, measured: number, unit: string, note: string): void => {
  rows.push({ name, measured, unit, limit: null, atLeast: true, note });
};

/** Engines on one database of their own, and what is to be closed with them. */
class Cluster {
  readonly database: string;
  readonly uri: string;
  readonly servers: BenchServer[] = [];
  readonly #closing: (() => unknown)[] = [];
  readonly #env: Record<string, string>;

  constructor(mongo: TestMongo, env: Record<string, string> = {}) {
    this.database = mongo.freshDatabase();
    this.uri = mongo.uriOf(this.database);
    this.#env = env;
  }

  async server(more: { httpAllow?: string; slots?: number } = {}): Promise<BenchServer> {
    const env = { MONGODB_URI: this.uri, FULLSTOP_ADMIN_KEY: KEY, ...this.#env };
    const server = new BenchServer({ directory: tmpdir(), profiles: null, env, ...more });
    this.servers.push(server);
    await server.start();
    return server;
  }

  async client(server: BenchServer, ends = true): Promise<BenchClient> {
    const client = new BenchClient({ url: server.url, key: KEY });
    this.#closing.unshift(() => client.close());
    await client.connect({ ends });
    return client;
  }

  atEnd(close: () => unknown): void {
    this.#closing.unshift(close);
  }

  /** Resolves when every engine knows of so many. */
  async know(count: number): Promise<void> {
    for (const server of this.servers) {
      const client = new BenchClient({ url: server.url, key: KEY });
      while ((await client.http<{ items: unknown[] }>('GET', '/api/engines')).items.length < count) await sleep(200);
      await client.close();
    }
  }

  async close(): Promise<void> {
    for (const close of this.#closing) await close();
    await Promise.all(this.servers.map((server) => server.close()));
  }
}

async function nodesPerSecond(client: BenchClient, shape: Shape, total: number, inFlight: number): Promise<number> {
  const startedMs = performance.now();
  const ids = await client.keepInFlight(shape.definition.name, total, inFlight);
  const seconds = (performance.now() - startedMs) / 1_000;
  await readBack(client, ids, shape, check);
  return (total * shape.needs.size) / seconds;
}

interface Counted {
  /** Of a driver for its caller: a bulk write is one. */
  commands: number;
  /** Reads and writes of documents: a bulk write is as many as it holds. */
  operations: number;
}

/** Of a node, with so many engines. */
interface Cost {
  cpuUs: number;
  operations: number;
}

/** Since the members started, over all of them; replication's own are not among these. */
async function countedBy(mongo: TestMongo): Promise<Counted> {
  const counted: Counted = { commands: 0, operations: 0 };
  for (const { instanceInfo } of mongo.set?.servers ?? []) {
    const client = new MongoClient(`mongodb://127.0.0.1:${instanceInfo?.port}/?directConnection=true`);
    const status = await client.db('admin').command({ serverStatus: 1 });
    for (const name of COMMANDS) counted.commands += Number(status['metrics'].commands[name]?.total ?? 0);
    for (const name of ['insert', 'query', 'update', 'delete'])
      counted.operations += Number(status['opcounters'][name]);
    await client.close();
  }
  return counted;
}

const figures: Record<string, (mongo: TestMongo) => Promise<void>> = {
  async sequential(mongo) {
    const cluster = new Cluster(mongo);
    const floorsBefore = await measureMongoFloors(mongo.uri);
    const server = await cluster.server();
    const client = await cluster.client(server);
    /** Commits and processor time per node are of what is timed. */
    const measured = async (shape: Shape): Promise<{ rate: number; note: string }> => {
      await client.save(shape.definition);
      await nodesPerSecond(client, shape, quick ? 128 : 512, 256);
      const total = quick ? 256 : 1_024;
      const rates: number[] = [];
      let [commits, cpuUs] = [0, 0];
      for (let round = 0; round < 3; round += 1) {
        const [commitsBefore, cpuBefore] = [await client.counter('fullstop_commits_total'), server.cpu().total];
        const startedMs = performance.now();
        const ids = await client.keepInFlight(shape.definition.name, total, 256);
        rates.push((total * shape.needs.size) / ((performance.now() - startedMs) / 1_000));
        cpuUs += (server.cpu().total - cpuBefore) * 1e6;
        commits += (await client.counter('fullstop_commits_total')) - commitsBefore;
        await readBack(client, ids, shape, check);
      }
      const nodes = 3 * total * shape.needs.size;
      const each = `${(commits / nodes).toFixed(2)} commits and ${(cpuUs / nodes).toFixed(0)} µs of the engine per node`;
      return { rate: median(rates), note: `rounds ${shown(rates)}; ${each}` };
    };
    const each = await measured(chainOfCommits('sequential', 10));
    const sharing = await measured(chain('sharing', 10));
    await cluster.close();
    const floorsAfter = await measureMongoFloors(mongo.uri);
    const mean = (one: keyof MongoFloors): number => (floorsBefore[one] + floorsAfter[one]) / 2;
    const [single, bulk] = [mean('single'), mean('bulk')];
    const ratios = `${(each.rate / single).toFixed(2)} of single updates, ${(each.rate / bulk).toFixed(2)} of bulk updates`;
    aside('sequential, a commit each, 256 in flight', each.rate, 'nodes/s', `${ratios}; ${each.note}`);
    const note = `${sharing.note}; floors single ${single.toFixed(0)}, bulk ${bulk.toFixed(0)} updates/s`;
    least('sequential set nodes, which share commits, to 1.5 of single', sharing.rate, 'nodes/s', 1.5 * single, note);
    least('sequential set nodes, which share commits, to 0.5 of bulk', sharing.rate, 'nodes/s', 0.5 * bulk, note);
  },

  async graph(mongo) {
    const cluster = new Cluster(mongo);
    const client = await cluster.client(await cluster.server());
    /** In a small graph, and in a big one. */
    const costs = async (
      small: Shape,
      big: Shape,
      sizes: { small: number; big: number; inFlight: number; rounds: number },
    ) => {
      await client.save(small.definition);
      await client.save(big.definition);
      const ratios: number[] = [];
      // The first round warms up.
      for (let round = 0; round <= sizes.rounds; round += 1) {
        const one = await nodesPerSecond(client, small, sizes.small, sizes.inFlight);
        const other = await nodesPerSecond(client, big, sizes.big, sizes.inFlight);
        if (round > 0) ratios.push(one / other);
      }
      return ratios;
    };
    const sizes = { small: quick ? 200 : 800, big: quick ? 1 : 4, inFlight: 16, rounds: 2 };
    const sharing = await costs(chain('chain-10', 10), chain('chain-2000', 2_000), sizes);
    const sizesOfCommits = quick
      ? { small: 20, big: 1, inFlight: 1, rounds: 1 }
      : { small: 400, big: 8, inFlight: 8, rounds: 1 };
    // Each has a body of one node, and a definition holds 2,000 of both.
    const [small, big] = [chainOfCommits('commits-10', 10), chainOfCommits('commits-1000', 1_000)];
    const each = await costs(small, big, sizesOfCommits);
    await cluster.close();
    const name = 'node of a 2,000-node graph, to one of a 10-node graph';
    most(name, median(sharing), 'x', 3, `set nodes, which share commits; rounds ${shown(sharing, 2)}`);
    const ofCommits = '… with nodes that need a commit each, 1,000 with bodies';
    aside(ofCommits, median(each), 'x', `foreach of no items; rounds ${shown(each, 2)}`);
  },

  /** The stop asked of one engine, the executions on another. */
  async stop(mongo) {
    const { cluster, endpoint, ends, ids, far } = await parkedCalls(mongo, 2);
    const stops = Math.min(quick ? 20 : 200, ids.length);
    const aborted: number[] = [];
    for (const [index, id] of ids.slice(0, stops).entries()) {
      await sleep(15);
      const sentMs = performance.now();
      await far.call('execution.stop', JSON.stringify({ id }));
      await endpoint.aborts.until(index + 1, 'aborts seen by the endpoint');
      aborted.push((endpoint.aborts.at.get(id) ?? Number.NaN) - sentMs);
    }
    await ends.until(stops, 'final records');
    await checkStopped(check, far, ids.slice(0, stops));
    most(
      'stop asked elsewhere: abort, p99',
      percentile(aborted, 0.99),
      'ms',
      100,
      `median ${median(aborted).toFixed(1)}`,
    );
    const sentMs = performance.now();
    await far.http('POST', '/api/stops', { filter: { workflow: 'parked' } });
    await Promise.all([endpoint.aborts.until(ids.length, 'aborts'), ends.until(ids.length, 'final records')]);
    const totalMs = Math.max(...endpoint.aborts.at.values(), ...ends.at.values()) - sentMs;
    await checkStopped(check, far, ids);
    most(
      `stop of all ${ids.length - stops}, asked elsewhere`,
      totalMs,
      'ms',
      3_000,
      'last abort and last final record',
    );
    endpoint.close();
    await cluster.close();
  },

  /** A bus that carries nothing: the Redis it goes over is frozen. */
  async silence(mongo) {
    const redis = await startRedis();
    if (redis === null) {
      console.log('skipped: silence: there is no redis-server here');
      return;
    }
    const { cluster, endpoint, ids, far } = await parkedCalls(mongo, 2, { REDIS_URL: redis.url });
    redis.freeze();
    const stops = Math.min(quick ? 10 : 50, ids.length);
    const aborted: number[] = [];
    for (const [index, id] of ids.slice(0, stops).entries()) {
      const sentMs = performance.now();
      await far.call('execution.stop', JSON.stringify({ id }));
      await endpoint.aborts.until(index + 1, 'aborts seen by the endpoint');
      aborted.push((endpoint.aborts.at.get(id) ?? Number.NaN) - sentMs);
    }
    const note = `median ${median(aborted).toFixed(0)} of ${stops} stops`;
    most('… with the bus silenced: abort, p99', percentile(aborted, 0.99), 'ms', 3_000, note);
    redis.thaw();
    endpoint.close();
    await cluster.close();
    redis.close();
  },

  async killed(mongo) {
    const { cluster, endpoint, ids, far, near } = await parkedCalls(mongo, 2);
    const count = Math.min(50, ids.length);
    const stopped = ids.slice(0, count);
    await near.kill();
    const sentMs = performance.now();
    await forAll(stopped, async (id) => {
      await far.call('execution.stop', JSON.stringify({ id }));
    });
    const took: number[] = [];
    await forAll(stopped, async (id) => {
      while ((await far.record(id)).status !== 'Failed') await sleep(100);
      took.push(performance.now() - sentMs);
    });
    await checkStopped(check, far, stopped);
    most(
      'owner killed: final records',
      Math.max(...took),
      'ms',
      15_000,
      `${count} stops, first ${Math.min(...took).toFixed(0)}`,
    );
    endpoint.close();
    await cluster.close();
  },

  /**
   * CPU of the engines and operations per node, with one engine and with three, in two ways.
   *
   * Under full load each engine gets as many executions as the one alone: what a process pays however many there are
   * (collecting its garbage, say) is then a like share of each node. Three engines, three members and the client share
   * the machine's cores, and what they take from each other's caches is in the figure too.
   *
   * At a pace that one engine keeps up with easily, all engines together get the same executions per second. Nobody
   * waits for a core then, but a commit finds fewer others to share a bulk with, and what an engine does that has nothing
   * to do (its heartbeats, its look at what waits, its connections) is paid three times for the same nodes.
   *
   * Before anything is counted every engine has run as many executions as another, under the same load (for full load as
   * many as it is measured with): each has compiled its own hot code, a price of its start. And before the pace each has
   * given back the memory that the full load took.
   *
   * The no-op nodes are `set` nodes, which share commits; the same with nodes that need a commit each is told
   * beside them. And so is the ratio to three engines with a database each, on the same members: what engines cost that
   * share nothing but the machine and the load. Nobody asks the engines whether all have ended: that would be part of what they do.
   */
  async scale(mongo) {
    const [perSecond, seconds, warmEach] = [40, quick ? 5 : 15, quick ? 50 : 200];
    const kinds = {
      sharing: { shape: chain('sharing', 10), each: quick ? 500 : 1_500, words: '' },
      commits: { shape: chainOfCommits('commits', 10), each: quick ? 100 : 400, words: ', a commit each' },
    };
    type Kind = keyof typeof kinds;
    type Costs = Partial<Record<Kind, { full: Cost; paced: Cost }>>;
    const client = new MongoClient(mongo.uri);
    const measure = async (engines: number, measured: Kind[], apart = false): Promise<Costs> => {
      const clusters = Array.from({ length: apart ? engines : 1 }, () => new Cluster(mongo));
      for (const cluster of clusters) {
        for (let index = 0; index < engines / clusters.length; index += 1) await cluster.server();
        await cluster.know(engines / clusters.length);
      }
      const clients: BenchClient[] = [];
      for (const cluster of clusters) {
        const own = await Promise.all(cluster.servers.map((server) => cluster.client(server, false)));
        for (const kind of measured) await own[0]?.save(kinds[kind].shape.definition);
        clients.push(...own);
      }
      await sleep(3_000);
      const ended = async (): Promise<void> => {
        for (const { database } of clusters) {
          const executions = client.db(database).collection('executions');
          while ((await executions.findOne({ status: { $lt: LIVE } }, { projection: { _id: 1 } })) !== null)
            await sleep(100);
        }
      };
      /** Both answer what each client started. */
      const full = async ({ shape, each }: (typeof kinds)[Kind]): Promise<string[][]> => {
        const ids = await Promise.all(clients.map((one) => one.startAll(shape.definition.name, each, 64)));
        await ended();
        return ids;
      };
      const paced = async ({ shape }: (typeof kinds)[Kind], total = perSecond * seconds): Promise<string[][]> => {
        const ids: Promise<string>[] = [];
        for (const startedMs = performance.now(); ids.length < total; ) {
          const one = clients[ids.length % engines] as BenchClient;
          ids.push(one.start(shape.definition.name));
          await sleep(Math.max(0, startedMs + (ids.length * 1_000) / perSecond - performance.now()));
        }
        const all = await Promise.all(ids);
        await ended();
        return clients.map((_, own) => all.filter((_id, index) => index % engines === own));
      };
      const servers = clusters.flatMap((cluster) => cluster.servers);
      const cpu = (): number => servers.reduce((sum, server) => sum + server.cpu().total, 0);
      const costOf = async (kind: Kind, load: (of: (typeof kinds)[Kind]) => Promise<string[][]>): Promise<Cost> => {
        const { shape } = kinds[kind];
        const [cpuBefore, before] = [cpu(), await countedBy(mongo)];
        const ids = await load(kinds[kind]);
        const nodes = ids.flat().length * shape.needs.size;
        const cost = {
          cpuUs: ((cpu() - cpuBefore) * 1e6) / nodes,
          operations: ((await countedBy(mongo)).operations - before.operations) / nodes,
        };
        for (const [index, one] of clients.entries())
          await readBack(one, ids[index]?.slice(0, 200) ?? [], shape, check);
        return cost;
      };
      const costs: Costs = {};
      for (const kind of measured) {
        await full(kinds[kind]);
        const ofFull = await costOf(kind, full);
        await sleep(quick ? 1_000 : 8_000);
        await paced(kinds[kind], engines * warmEach);
        costs[kind] = { full: ofFull, paced: await costOf(kind, paced) };
      }
      for (const cluster of clusters) await cluster.close();
      return costs;
    };
    const rounds: { one: Costs; three: Costs; apart: Costs }[] = [];
    // By turns, because other work on the machine comes and goes.
    for (let round = 0; round < (quick ? 1 : 3); round += 1)
      rounds.push({
        one: await measure(1, ['sharing', 'commits']),
        three: await measure(3, ['sharing', 'commits']),
        apart: await measure(3, ['sharing'], true),
      });
    await client.close();
    const loads = { full: 'full load', paced: `${perSecond} executions/s` };
    const told = (load: keyof typeof loads, what: keyof Cost, kind: Kind, to: 'one' | 'apart'): void => {
      const of = (engines: 'one' | 'three' | 'apart') =>
        rounds.map((round) => round[engines][kind]?.[load][what] ?? NaN);
      const ratios = of('three').map((value, index) => value / (of(to)[index] as number));
      const digits = what === 'cpuUs' ? 0 : 3;
      const unit = what === 'cpuUs' ? 'engine CPU' : 'operations';
      const others = to === 'one' ? 'one' : 'three apart';
      const name = `${unit} per node, three engines to ${others}, ${loads[load]}${kinds[kind].words}`;
      const note = `${others} ${shown(of(to), digits)}, three ${shown(of('three'), digits)}; rounds ${shown(ratios, 2)}`;
      if (kind === 'sharing' && to === 'one') most(name, median(ratios), 'x', 1.2, note);
      else aside(name, median(ratios), 'x', note);
    };
    for (const what of ['cpuUs', 'operations'] as const)
      for (const load of ['full', 'paced'] as const) told(load, what, 'sharing', 'one');
    for (const load of ['full', 'paced'] as const) told(load, 'cpuUs', 'sharing', 'apart');
    for (const what of ['cpuUs', 'operations'] as const)
      for (const load of ['full', 'paced'] as const) told(load, what, 'commits', 'one');
  },

  async idle(mongo) {
    const rest = async (): Promise<number> => {
      const { commands: before } = await countedBy(mongo);
      const { commands: own } = await countedBy(mongo);
      await sleep(quick ? 5_000 : 20_000);
      return ((await countedBy(mongo)).commands - own - (own - before)) / (quick ? 5 : 20);
    };
    const without = await rest();
    const cluster = new Cluster(mongo);
    const client = await cluster.client(await cluster.server(), false);
    await client.save({ name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } });
    await client.startAll('held', parked());
    await client.close();
    await sleep(quick ? 3_000 : 15_000);
    const persecond = (await rest()) - without;
    await cluster.close();
    most(
      'idle engine, no worker',
      persecond,
      'commands/s',
      4,
      `${parked()} executions parked; ${without.toFixed(2)} without an engine`,
    );
  },
};

/** Executions that wait in an `http` call on the first engine, and a client of the last one. */
async function parkedCalls(mongo: TestMongo, engines: number, env: Record<string, string> = {}) {
  const endpoint = new SilentEndpoint();
  const host = await endpoint.listen();
  const cluster = new Cluster(mongo, env);
  const near = await cluster.server({ httpAllow: host });
  const client = await cluster.client(near);
  const ends = new Instants();
  client.onEnded((id) => ends.note(id));
  await client.save(parkedWorkflow('parked', host));
  progress(`parking ${parked()} executions in an http call`);
  // Before there is another engine: all of them stay with this one.
  const ids = await client.startAll('parked', parked());
  await endpoint.calls.until(parked(), 'calls at the endpoint');
  for (let index = 1; index < engines; index += 1) await cluster.server({ httpAllow: host, slots: 0 });
  await cluster.know(engines);
  const far = await cluster.client(cluster.servers.at(-1) as BenchServer, false);
  return { cluster, endpoint, ends, ids, far, near };
}

async function startRedis() {
  const port = 20_000 + (process.pid % 20_000);
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
  const child = spawn('redis-server', args, { stdio: 'ignore' });
  const failed = once(child, 'error').then(() => true);
  if (await Promise.race([failed, sleep(1_000).then(() => false)])) return null;
  return {
    url: `redis://127.0.0.1:${port}`,
    freeze: () => child.kill('SIGSTOP'),
    thaw: () => child.kill('SIGCONT'),
    close: () => child.kill('SIGKILL'),
  };
}

/** Starts the replica set, measures, and prints; the exit code tells whether every check held. */
export async function measureMongo(options: MongoBenchOptions): Promise<void> {
  quick = options.quick;
  const wanted = options.only?.split(',') ?? Object.keys(figures);
  const mongo = await TestMongo.start({ members: 3, own: true });
  if (typeof mongo === 'string') {
    console.error(mongo);
    process.exitCode = 1;
    return;
  }
  for (const name of wanted) {
    progress(name);
    const figure = figures[name];
    if (figure === undefined)
      faults.push(`there is no figure ${name}: expected some of ${Object.keys(figures).join(', ')}`);
    else {
      await figure(mongo).catch((error: unknown) => {
        faults.push(`${name}: ${error instanceof Error ? error.stack : error}`);
      });
    }
  }
  await mongo.close();
  const digits = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
  console.log('\non a replica set of three members, two engines or more where a stop is asked elsewhere');
  for (const { name, measured, unit, limit, atLeast } of rows) {
    const value = `${digits(measured)} ${unit}`.padStart(16);
    const ok = limit === null || (atLeast ? measured >= limit : measured <= limit);
    const judged = limit === null ? '' : `${atLeast ? '>=' : '<='} ${digits(limit).padStart(6)}  ${ok ? 'ok' : 'over'}`;
    console.log(`${name.padEnd(78)} ${value}  ${judged}`.trimEnd());
  }
  for (const { name, note } of rows) console.log(`  ${name}: ${note}`);
  for (const fault of faults.slice(0, 20)) console.error(`check failed: ${fault}`);
  process.exitCode = faults.length > 0 ? 1 : 0;
}
