/**
 * What engines ask of MongoDB while they work, as its profiler saw it: each command goes to one shard, by the shard key
 * that decision 11 names, or is one of few that ask all of them, and those use an index.
 *
 * As far as one replica set can show it: here is no `mongos`.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { type Db, MongoClient } from 'mongodb';
import { Endpoint } from '../support/endpoint.ts';
import { EngineProcesses } from '../support/engine-processes.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { type Data, type ServerProcess, until } from '../support/server-process.ts';
import { WorkerProcess } from '../support/worker-process.ts';

/** Commands that ask every shard, by collection and index, and why they may. */
const SCATTERED: Record<string, Record<string, string>> = {
  executions: {
    intents: 'what waits for an engine: one command for each engine and second',
    offers: 'offers that nobody took: once for each',
    owned: 'takeovers, and once for an engine that is gone for an hour',
    children: 'a stop asks for the family, once; so does a foreach that another engine goes on with',
    triggers: 'triggers that an engine found by looking',
    queued: 'the queue of tasks: one command when a worker has a free place, and for each second',
    live: 'the tasks that wait, as a person asks for them',
    rootsByTime: 'lists',
    liveByTime: 'lists, and the count of a workflow that takes only so many',
    rootsOfProject: 'lists',
    rootsOfWorkflow: 'lists',
    rootsByEnd: 'retention, once a minute',
  },
  values: { ofExecution: 'big texts of what is deleted' },
  audit: { _id_: 'the audit log, as a person asks for it' },
};
const PROFILE_BYTES = 128 * 1024 * 1024;

interface Profile {
  op: string;
  ns: string;
  appName?: string;
  planSummary?: string;
  command: Data;
  originatingCommand?: Data;
}

/** As the table of the decision has them; null: the collection is in one place. */
function shardKeys(): Map<string, string | null> {
  const page = join(import.meta.dirname, '..', '..', 'docs', 'decisions', '0011-one-document-per-execution.md');
  const keys = new Map<string, string | null>();
  for (const line of readFileSync(page, 'utf8').split('\n')) {
    const [, names = '', , given = ''] = line.split('|');
    const collections = [...names.matchAll(/`([\w.]+)`/g)].map(([, name]) => name as string);
    const fields = [...given.matchAll(/\{(\w+): 'hashed'\}/g)].map(([, field]) => field as string);
    for (const [index, name] of collections.entries()) keys.set(name, fields[index] ?? null);
  }
  return keys;
}

/** What a command looks for; null: it looks for nothing. */
function filterOf({ op, command, originatingCommand }: Profile): Data {
  const { q, filter, query, pipeline } = originatingCommand ?? command;
  if (op === 'insert') return null;
  // Of a command above 50 kB the profiler keeps the beginning, as text.
  const id = /^\{ q: \{ _id: "([^"]+)"/.exec(command.$truncated ?? '')?.[1];
  if (id !== undefined) return { _id: id };
  return q ?? filter ?? query ?? pipeline?.[0]?.$match ?? {};
}

/** Whether this equals one value of `field`, or one of several. */
function names(filter: Data, field: string): boolean {
  const wanted = filter[field];
  if (typeof wanted === 'string' || (typeof wanted === 'object' && wanted !== null && '$in' in wanted)) return true;
  return Array.isArray(filter.$and) && filter.$and.some((part: Data) => names(part, field));
}

describe('what engines ask of a database that may be sharded', function () {
  this.timeout(180_000);
  let mongo: TestMongo;
  let client: MongoClient;
  let db: Db;
  let engines: EngineProcesses;
  let endpoint: Endpoint;
  let worker: WorkerProcess;
  let seen: Profile[];
  /** Names of the indexes of a collection, by their keys as a plan shows them. */
  const indexes = new Map<string, Map<string, string[]>>();

  before(async function () {
    mongo = await mongoOrSkip(this);
    const uri = mongo.uriOf(mongo.freshDatabase());
    client = new MongoClient(uri);
    db = client.db();
    await db.createCollection('system.profile', { capped: true, size: PROFILE_BYTES });
    endpoint = await Endpoint.start();
    const env = { FULLSTOP_HTTP_ALLOW: endpoint.host, FULLSTOP_SLOTS: '0', FULLSTOP_DRAIN_MS: '500' };
    engines = await EngineProcesses.start({ uri, count: 2, env });
    worker = await WorkerProcess.start(engines.at(1), 'worker', { env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
    await db.command({ profile: 2 });
    await work(engines.at(0), engines.at(1));
    await db.command({ profile: 0 });
    const found = await db.collection<Profile>('system.profile').find({ appName: 'fullstop' }).toArray();
    seen = found.filter(({ ns }) => !ns.endsWith('.$cmd'));
    for (const { name } of await db.listCollections({}, { nameOnly: true }).toArray()) {
      if (name.startsWith('system.')) continue;
      const byKeys = new Map<string, string[]>();
      for (const index of await db.collection(name).indexes()) {
        const keys = Object.entries(index.key).map(([field, order]) => `${field}: ${order}`);
        const text = `{ ${keys.join(', ')} }`;
        byKeys.set(text, [...(byKeys.get(text) ?? []), String(index.name)]);
      }
      indexes.set(name, byKeys);
    }
  });
  after(async () => {
    if (worker?.running) await worker.kill();
    await engines?.close();
    await endpoint?.close();
    await client?.close();
    await mongo?.close();
  });

  /** Everything that a commit, a claim, a stop, a trigger, a read, a takeover and a deletion do. */
  async function work(a: ServerProcess, b: ServerProcess): Promise<void> {
    const start = async (workflow: string, more: Data = {}): Promise<string> =>
      (await a.ok('POST', '/api/executions', { workflow, ...more })).id;
    const chainOf = (length: number, value: unknown): Data => {
      const node = (n: number) => ({ type: 'set', with: { value }, ...(n === 0 ? {} : { needs: [`n${n - 1}`] }) });
      return Object.fromEntries(Array.from({ length }, (_, n) => [`n${n}`, node(n)]));
    };
    await a.ok('POST', '/api/workflows', { name: 'chain', nodes: chainOf(10, 1) });
    const chains = await Promise.all(Array.from({ length: 200 }, () => start('chain')));
    for (const id of chains) await b.record(id, ({ endedAt }) => endedAt !== null);

    // A key of the caller, texts that are kept apart, and headers that are full.
    const inputs = { text: { type: 'string' } };
    await a.ok('POST', '/api/workflows', { name: 'full', inputs, nodes: chainOf(120, '${{ input.text }}') });
    const given = { input: { text: 'x'.repeat(2_000) }, idempotencyKey: 'once' };
    const full = await start('full', given);
    expect(await start('full', given)).to.equal(full);
    await b.record(full, ({ endedAt }) => endedAt !== null);
    await a.ok('GET', `/api/executions/${full}/events`);
    await b.ok('GET', `/api/executions/${full}/results`);
    await b.record(await start('full', { input: { text: 'x'.repeat(9_000) } }), ({ endedAt }) => endedAt !== null);

    // Tasks of a worker of the other engine; a limit that all engines share.
    const call = { type: 'http', with: { url: `${endpoint.url}/park` } };
    await a.ok('POST', '/api/workflows', { name: 'call', concurrency: { max: 4 }, nodes: { call } });
    const calls = await Promise.all(Array.from({ length: 6 }, () => start('call')));
    for (const id of calls) {
      (await endpoint.calling(id))[0]?.answer(200, { ok: true });
      await b.record(id, ({ endedAt }) => endedAt !== null);
    }

    // A family that is stopped at the other engine; a trigger that is given there.
    const hold = { type: 'hold', trigger: 'go' };
    const each = { type: 'foreach', items: '${{ [1, 2, 3] }}', body: { wait: hold } };
    await a.ok('POST', '/api/workflows', { name: 'family', nodes: { each } });
    const family = await start('family');
    await until(
      'the children',
      () => a.ok('GET', `/api/executions?parent=${family}`),
      ({ items }) => items.length === 3,
    );
    await b.ok('POST', `/api/executions/${family}/stop`);
    await b.record(family, ({ endedAt }) => endedAt !== null);
    await b.ok('GET', `/api/executions/${family}/stop`);
    await a.ok('POST', '/api/workflows', { name: 'held', nodes: { wait: hold } });
    const held = await start('held');
    await a.record(held, ({ nodes }) => nodes.wait?.status === 'Held');
    await b.ok('POST', `/api/executions/${held}/triggers/go`, { payload: 1 });
    await b.record(held, ({ endedAt }) => endedAt !== null);

    // Lists, and what an operator asks.
    for (const path of ['executions', 'executions?status=Running', 'executions?workflow=chain', 'audit', 'workers'])
      await b.ok('GET', `/api/${path}`);
    await b.ok('DELETE', `/api/executions/${full}`);

    // A takeover.
    const left = await Promise.all(Array.from({ length: 5 }, () => start('held')));
    for (const id of left) await a.record(id, ({ nodes }) => nodes.wait?.status === 'Held');
    await a.kill();
    for (const id of left) {
      await b.ok('POST', `/api/executions/${id}/triggers/go`, { payload: 1 });
      await b.record(id, ({ endedAt }) => endedAt !== null);
    }
  }

  const collectionOf = ({ ns }: Profile): string => ns.slice(ns.indexOf('.') + 1);

  it('names its shard key in each command of the hot path, and an index in each of the few others', () => {
    const keys = shardKeys();
    const counts = new Map<string, number>();
    const faults = new Set<string>();
    for (const profile of seen) {
      const collection = collectionOf(profile);
      const key = keys.get(collection);
      const filter = filterOf(profile);
      if (key === undefined) faults.add(`the decision names no shard key of ${collection}`);
      // What is inserted has its key, and what is in one place needs none.
      if (key === undefined || key === null || filter === null || names(filter, key)) continue;
      // There is no such collection.
      if (profile.planSummary === 'EOF' && !indexes.has(collection)) continue;
      const plan = /^IXSCAN (\{[^}]*\})/.exec(profile.planSummary ?? '')?.[1] ?? '';
      const used = indexes.get(collection)?.get(plan) ?? [];
      const allowed = used.find((name) => SCATTERED[collection]?.[name] !== undefined);
      if (allowed === undefined)
        faults.add(`${profile.op} of ${collection} by ${Object.keys(filter)}: ${profile.planSummary}`);
      else counts.set(`${collection}.${allowed}`, (counts.get(`${collection}.${allowed}`) ?? 0) + 1);
    }
    expect([...faults]).to.deep.equal([]);
    // They do not grow with what runs: 220 executions and 240 commits were there.
    const often = [...counts].filter(([, count]) => count > 110);
    expect(often).to.deep.equal([]);
  });

  it('scans no collection but those that are little, and in one place', () => {
    const keys = shardKeys();
    const scans = seen.filter(
      (profile) => profile.planSummary?.includes('COLLSCAN') === true && keys.get(collectionOf(profile)) !== null,
    );
    expect(scans.map(({ op, ns, command }) => [op, ns, JSON.stringify(command).slice(0, 200)])).to.deep.equal([]);
  });

  it('was seen in all it does', () => {
    const kinds = new Set(seen.map((profile) => `${profile.op} ${collectionOf(profile)}`));
    expect([...kinds]).to.include.members([
      ...['insert', 'update', 'query', 'command', 'remove'].map((op) => `${op} executions`),
      ...['insert starts', 'query starts', 'remove starts', 'insert audit', 'query audit', 'command places'],
      ...['insert events', 'query events', 'remove events', 'insert results', 'query results'],
      ...['update values', 'query values', 'remove values', 'update engines', 'query engines'],
    ]);
    const commits = seen.filter(({ op, command }) => op === 'update' && typeof command.q?.v === 'number');
    expect(commits.length).to.be.greaterThan(200);
    for (const { planSummary } of commits) expect(planSummary).to.match(/^(IXSCAN \{ _id: 1 \}|IDHACK)$/);
    const taken = seen.filter(({ op, command }) => op === 'update' && command.q?.root !== undefined);
    expect(taken.length).to.be.greaterThan(0);
  });
});
