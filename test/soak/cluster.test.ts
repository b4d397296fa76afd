/**
 * Three engines and two workers on one replica set under a mixed load, while processes are killed and frozen and the
 * database loses its primary: afterwards everything that was acknowledged is there, once, and ended as it had to.
 *
 * `npm run soak -- --minutes N` for longer than `npm test`.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { MongoClient } from 'mongodb';
import { callFaults, followUpFaults, listAll, promiseFaults, type Reader, see } from '../integration/crash-checks.ts';
import { Load, loadWorkflows, type Target } from '../integration/crash-load.ts';
import { changeFaults, familyFaults, faultsOf, type Seen } from '../support/check-invariants.ts';
import { Endpoint } from '../support/endpoint.ts';
import { EngineProcesses } from '../support/engine-processes.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { seededRandom, seedOfRun } from '../support/seeds.ts';
import { type Data, type HttpAnswer, type ServerProcess, until } from '../support/server-process.ts';
import { WorkerProcess } from '../support/worker-process.ts';

const SPAN_MS = Number(process.env.SOAK_MS ?? 150_000);
const ROUNDS_MIN = 30;
const CLIENTS = 6;
/** Longer than an engine's lease. */
const FROZEN_MS = 10_000;
/** What a process that wakes may still do of what it had begun. */
const WAKING_MS = 3_000;
/** Until another engine has what a dead one left, on a busy machine. */
const SETTLED_MS = 120_000;

/** Whichever engine answers, another one each time. */
class AnyEngine implements Target, Reader {
  readonly #engines: EngineProcesses;
  #turn = 0;

  constructor(engines: EngineProcesses) {
    this.#engines = engines;
  }

  #next(): ServerProcess {
    const running = this.#engines.all.filter((server) => server.running && server.url !== '');
    this.#turn += 1;
    const server = running[this.#turn % Math.max(1, running.length)];
    if (server === undefined) throw new Error('no engine runs');
    return server;
  }

  async http(method: string, path: string, body?: unknown): Promise<HttpAnswer> {
    return this.#next().http(method, path, body);
  }

  /** Repeated while an engine is not there or its database takes no calls. */
  async #again<T>(read: (server: ServerProcess) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await read(this.#next());
      } catch (error) {
        if (tries >= 60) throw error;
        await sleep(200);
      }
    }
  }

  ok(method: string, path: string, body?: unknown): Promise<Data> {
    return this.#again((server) => server.ok(method, path, body));
  }

  events(id: string): Promise<Data[]> {
    return this.#again((server) => server.events(id));
  }
}

describe('three engines on a replica set, under everything at once', () => {
  let mongo: TestMongo;
  let endpoint: Endpoint;
  let engines: EngineProcesses;
  let load: Load | null = null;
  const workers: (WorkerProcess | null)[] = [];

  before(async function () {
    mongo = await mongoOrSkip(this, { members: 3, own: true });
    endpoint = await Endpoint.start();
    // Few slots of their own: the workers get their share.
    engines = await EngineProcesses.start({
      uri: mongo.uriOf(mongo.freshDatabase()),
      env: { FULLSTOP_HTTP_ALLOW: endpoint.host, FULLSTOP_SLOTS: '3', FULLSTOP_LOG: 'error' },
    });
  });

  afterEach(async () => {
    load?.abandon();
    for (const worker of workers) {
      worker?.send('SIGCONT');
      await worker?.kill();
    }
  });

  after(async () => {
    for (const server of engines?.all ?? [])
      if (server.pid !== null && server.running) process.kill(server.pid, 'SIGCONT');
    await engines?.close();
    await endpoint?.close();
    await mongo?.close();
  });

  /** What the engines complained of last, beside what the faults explain. */
  function tellLogs(): void {
    for (const [index, server] of engines.all.entries()) {
      const lines = server.log.split('\n').filter((line) => line !== '');
      console.log(`    engine ${index}:\n${lines.slice(-12).join('\n')}`);
    }
  }

  /** What an engine answered with FS_INTERNAL, as its log has it. */
  function failedRequests(): string[] {
    return engines.all.flatMap((server, index) =>
      server.log
        .split('\n')
        .filter((line) => line.includes('"request failed"') || line.includes('"call failed"'))
        .slice(-3)
        .map((line) => `engine ${index}: ${line.slice(0, 2_000)}`),
    );
  }

  async function startWorker(at: number): Promise<WorkerProcess> {
    const urls = engines.all.filter((server) => server.running && server.url !== '').map((server) => server.url);
    const first = urls.splice(at % Math.max(1, urls.length), 1);
    return WorkerProcess.start(engines.at(0), 'worker', {
      args: ['--capabilities', 'http', '--slots', '20', '--http-allow', endpoint.host],
      key: engines.key,
      env: { FULLSTOP_URL: [...first, ...urls].join(',') },
    });
  }

  it('lose nothing, double nothing, start nothing after a stop', async function () {
    this.timeout(SPAN_MS + 400_000);
    const seed = seedOfRun();
    const any = new AnyEngine(engines);
    const workflows = loadWorkflows(endpoint.url);
    for (const workflow of workflows) await any.ok('POST', '/api/workflows', workflow);
    for (let index = 0; index < 2; index += 1) workers[index] = await startWorker(index);
    const running = new Load(any);
    load = running;
    const clients = Promise.all(
      Array.from({ length: CLIENTS }, (_, client) => running.client(seededRandom(seed + 1 + client))),
    );
    let broken: unknown = null;
    clients.catch((error: unknown) => {
      broken = error;
    });
    const random = seededRandom(seed);
    const done = new Map<string, number>();
    const thaws: number[] = [];
    const healing: Promise<unknown>[] = [];
    const faults: string[] = [];
    const snapshots = new Map<string, Seen>();
    const nodesOf = new Map(workflows.map(({ name, nodes }) => [name, nodes]));
    const check = (seen: Seen): string[] => faultsOf(seen, nodesOf.get(seen.record.workflow.name));
    /** Engines that a fault is about, until they are well again. */
    const ill = new Set<ServerProcess>();
    const pick = (): ServerProcess | null => {
      const well = engines.all.filter((server) => server.running && !ill.has(server));
      return well.length < 2 ? null : (well[Math.floor(random.next() * well.length)] ?? null);
    };

    const injections: Record<string, () => Promise<boolean>> = {
      async 'engine killed'() {
        const server = pick();
        if (server === null) return false;
        ill.add(server);
        await server.kill();
        server.spawn();
        healing.push(server.listening().finally(() => ill.delete(server)));
        return true;
      },
      async 'engine frozen longer than its lease'() {
        const server = pick();
        const pid = server?.pid ?? null;
        if (server === null || pid === null) return false;
        ill.add(server);
        process.kill(pid, 'SIGSTOP');
        healing.push(
          sleep(FROZEN_MS).then(() => {
            thaws.push(Date.now());
            if (server.pid === pid) process.kill(pid, 'SIGCONT');
            ill.delete(server);
          }),
        );
        return true;
      },
      async 'worker killed'() {
        const index = Math.floor(random.next() * 2);
        await workers[index]?.kill();
        workers[index] = null;
        healing.push(
          startWorker(index).then(
            (worker) => {
              workers[index] = worker;
            },
            () => undefined,
          ),
        );
        return true;
      },
      async 'primary steps down'() {
        const client = new MongoClient(mongo.uri);
        await client
          .db('admin')
          .command({ replSetStepDown: 5, force: true })
          .catch(() => undefined);
        await client.close();
        return true;
      },
      async 'primary killed'() {
        const { set } = mongo;
        if (set === null) return false;
        const client = new MongoClient(mongo.uri);
        const { primary } = await client.db('admin').command({ hello: 1 });
        await client.close();
        const member = set.servers.find(({ instanceInfo }) => String(primary).endsWith(`:${instanceInfo?.port}`));
        const pid = member?.instanceInfo?.instance.mongodProcess?.pid;
        if (member === undefined || pid === undefined) return false;
        process.kill(pid, 'SIGKILL');
        await sleep(1_000);
        // It is dead; the set's keeper does not know yet.
        await member.stop({ doCleanup: false, force: false });
        await member.start(true);
        return true;
      },
      async 'worker frozen'() {
        const worker = workers[Math.floor(random.next() * 2)];
        if (worker === null || worker === undefined || !worker.running) return false;
        worker.send('SIGSTOP');
        healing.push(
          sleep(FROZEN_MS).then(() => {
            thaws.push(Date.now());
            if (worker.running) worker.send('SIGCONT');
          }),
        );
        return true;
      },
    };
    const names = Object.keys(injections);
    const beganAtMs = performance.now();
    let rounds = 0;
    while ((performance.now() - beganAtMs < SPAN_MS || rounds < ROUNDS_MIN) && broken === null && faults.length === 0) {
      await sleep(2_000 + random.next() * 4_000);
      const name = names[rounds % names.length] as string;
      rounds += 1;
      if (await injections[name]?.()) done.set(name, (done.get(name) ?? 0) + 1);
      const known = [...snapshots.keys()];
      const some = [
        known[Math.floor(random.next() * known.length)],
        running.started[Math.floor(random.next() * running.started.length)]?.id,
      ];
      for (const id of new Set(some)) {
        if (id === undefined) continue;
        const seen = await see(any, id);
        faults.push(...check(seen), ...changeFaults(snapshots.get(id) ?? seen, seen));
        snapshots.set(id, seen);
      }
    }
    const spanMs = performance.now() - beganAtMs;
    await Promise.all(healing);
    if (broken !== null) {
      tellLogs();
      // What the engines said of it goes with the failure: that is what is read of a run long past.
      throw new Error([`SEED=${seed}: ${(broken as Error).message}`, ...failedRequests()].join('\n'), {
        cause: broken,
      });
    }
    running.end();
    const late = sleep(SETTLED_MS, 'late', { ref: false });
    const how = await Promise.race([clients.then(() => 'ended'), late]);
    if (how === 'late') running.abandon();
    for (const status of ['Running', 'Pending']) {
      await until(
        `what is ${status}`,
        () => listAll(any, `&status=${status}`),
        (items) => items.length === 0 || how === 'late',
        SETTLED_MS,
      );
    }
    const all: Seen[] = [];
    for (const { id } of await listAll(any)) {
      const seen = await see(any, id);
      all.push(seen);
      if (!['each', 'parent', 'parked-family'].includes(seen.record.workflow.name)) continue;
      for (const child of await listAll(any, `&parent=${id}`)) all.push(await see(any, child.id));
    }
    const byId = new Map(all.map((seen) => [seen.record.id, seen]));
    const wasExcused = (atMs: number): boolean => thaws.some((thaw) => atMs >= thaw && atMs <= thaw + WAKING_MS);
    for (const seen of all) faults.push(...check(seen), ...changeFaults(snapshots.get(seen.record.id) ?? seen, seen));
    faults.push(
      // While the database elects a primary, a request for a stop waits for it: the stop's instant is not yet its intent's.
      ...familyFaults(all, (child, at) => endedBeforeIntent(child, at, byId)),
      ...promiseFaults(running.started, all),
      ...callFaults(endpoint, running.started, all, wasExcused),
      ...followUpFaults(all),
    );
    const audited = new Set<string>();
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: Data = await any.ok('GET', `/api/audit?limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`);
      for (const { verb, target } of page.items) if (verb === 'execution.stop') audited.add(target);
      cursor = page.nextCursor;
    }
    for (const { id, stop } of running.started) {
      if (stop !== null && stop.requestId !== null && !audited.has(id)) faults.push(`the stop of ${id} is not audited`);
    }
    const stopped = all.filter(({ record }) => record.stop !== null).length;
    const told = [...done].map(([name, times]) => `${name} ${times}`).join(', ');
    console.log(
      `    ${rounds} rounds in ${(spanMs / 1000).toFixed(0)} s (${told}); ${all.length} executions, ${stopped} stopped, ${endpoint.calls.length} calls`,
    );
    if (faults.length > 0) tellLogs();
    if (faults.length > 0) console.log(`    SEED=${seed}\n${faults.slice(0, 40).join('\n')}`);
    expect(faults.slice(0, 10), `SEED=${seed}`).to.deep.equal([]);
    expect(how, 'the load came to its end').to.equal('ended');
    expect(rounds).to.be.at.least(ROUNDS_MIN);
    expect([...done.keys()]).to.have.members(names);
    expect(stopped).to.be.above(0);
  });
});

/** Whether a child ended before its parent knew of its stop: as its own event tells, not as the request was made. */
function endedBeforeIntent({ parent, stop, endedAt }: Seen['record'], at: string, all: Map<string, Seen>): boolean {
  if (stop !== null) return Date.parse(stop.requestedAt) <= Date.parse(at);
  const above = all.get(parent?.executionId ?? '')?.events.find(({ type }) => type === 'stop.requested');
  return endedAt !== null && above !== undefined && endedAt <= above.at;
}
