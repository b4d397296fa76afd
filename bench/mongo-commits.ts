/**
 * The MongoDB store alone, without an engine: its commits beside the driver's floors.
 *
 * `node bench/mongo-commits.ts [URI]` prints them as JSON; without a URI it starts three members of its own.
 */
import { randomBytes } from 'node:crypto';
import { MongoClient } from 'mongodb';
import { createMongoStore } from '../src/adapters/mongo/store.ts';
import type { Commit, ExecutionStore, NewExecution, NodeRow } from '../src/ports/store.ts';
import { TestMongo } from '../test/support/mongo.ts';
import { measureMongoFloors } from './mongo-floors.ts';

export interface MongoCommits {
  /** Commits per second of executions of ten nodes in a row, 256 at once, their creations not counted. */
  commits: number;
  /** Commits per second of as many executions with up to 2,000 nodes, evenly spread over their lives. */
  large: number;
}

const IN_FLIGHT = 256;
export async function measureMongoCommits(uri: string, ms = 3_000, withLarge = true): Promise<MongoCommits> {
  const database = `fullstop-commits-${randomBytes(4).toString('hex')}`;
  const store = createMongoStore({ uri, database });
  await store.open();
  try {
    await chains(store, ms / 4);
    const commits = await chains(store, ms);
    const large = withLarge ? await graphs(store, ms, 2_000) : 0;
    return { commits: Math.round(commits), large: Math.round(large) };
  } finally {
    await store.close();
    const client = new MongoClient(uri);
    await client.db(database).dropDatabase();
    await client.close();
  }
}

/** Executions of ten nodes one after the other, as an engine commits them. */
async function chains(store: ExecutionStore, ms: number): Promise<number> {
  const nodes = 10;
  let commits = 0;
  const startedMs = performance.now();
  await together(IN_FLIGHT, ms, async () => {
    const { header, ...more } = newExecution();
    await store.createExecution({ header, ...more });
    for (let v = 1; v <= nodes + 1; v += 1) {
      await done(store, stepOf(header.id, v, nodes));
      commits += 1;
    }
  });
  return (commits / (performance.now() - startedMs)) * 1_000;
}

/** Commits of executions of `size` nodes, some of which they have already. */
async function graphs(store: ExecutionStore, ms: number, size: number): Promise<number> {
  const executions = Array.from({ length: IN_FLIGHT }, (_, index) => ({
    execution: newExecution(),
    done: Math.floor((index * size) / IN_FLIGHT),
  }));
  await Promise.all(
    executions.map(async ({ execution, done: count }) => {
      await store.createExecution(execution);
      const nodes = Array.from({ length: count }, (_, index) => nodeOf(`n${index}`, true));
      await done(store, { ...stepOf(execution.header.id, 1, size), nodes });
    }),
  );
  let commits = 0;
  const startedMs = performance.now();
  await Promise.all(
    executions.map(async ({ execution, done: count }) => {
      for (let v = 2; performance.now() - startedMs < ms; v += 1) {
        const index = (count + v) % size;
        const nodes = [nodeOf(`n${index}`, true), nodeOf(`n${index + 1}`, false)];
        await done(store, { ...stepOf(execution.header.id, v, Number.POSITIVE_INFINITY), nodes });
        commits += 1;
      }
    }),
  );
  return (commits / (performance.now() - startedMs)) * 1_000;
}

async function done(store: ExecutionStore, commit: Commit): Promise<void> {
  const outcome = await store.commit(commit);
  if (outcome.kind !== 'committed') throw new Error(`a commit was refused: ${outcome.why}`);
}

/** The commit that ends node `v - 1` and starts node `v`. */
function stepOf(executionId: string, v: number, nodes: number): Commit {
  const [before, next] = [`n${v - 1}`, `n${v}`];
  const final = v > nodes;
  const atMs = Date.now();
  const event = { atMs, node: null, iterations: null, attempt: null, data: null };
  const seq = 2 * v;
  return {
    executionId,
    epoch: 1,
    v,
    requestId: null,
    header: final
      ? { status: 'Complete', outputs: { [before]: before }, endedAtMs: atMs, machine: { value: 'complete' } }
      : v === 1
        ? { status: 'Running', startedAtMs: atMs, machine: { value: 'running', failure: null } }
        : {},
    nodes: [...(v === 1 ? [] : [nodeOf(before, true)]), ...(final ? [] : [nodeOf(next, false)])],
    dropNodes: [],
    events: [
      v === 1
        ? { ...event, seq, type: 'execution.started' }
        : { ...event, seq, type: 'node.completed', node: before, attempt: 1 },
      final
        ? { ...event, seq: seq + 1, type: 'execution.completed' }
        : { ...event, seq: seq + 1, type: 'node.started', node: next, attempt: 1 },
    ],
    results: v === 1 ? [] : [{ id: `${executionId}/${before}/-/1`, key: `${before}/-`, output: before }],
    consumedTriggers: [],
    receipt: null,
    tasks: [],
    endedTasks: [],
    creates: [],
    final,
  };
}

function nodeOf(path: string, ended: boolean): NodeRow {
  const atMs = Date.now();
  return {
    key: `${path}/-`,
    path,
    iterations: [],
    type: 'set',
    status: ended ? 'Complete' : 'Running',
    error: null,
    errorCode: null,
    attempt: 1,
    startedAtMs: atMs,
    endedAtMs: ended ? atMs : null,
    where: 'engine',
    hasOutput: ended,
    machine: ended
      ? null
      : {
          version: 1,
          value: 'running',
          mode: 'work',
          attempt: 1,
          tries: 0,
          lost: 0,
          dueAtMs: null,
          wakeAtMs: null,
          deadlineAtMs: null,
          failure: null,
          lastTry: false,
        },
    data: null,
  };
}

function newExecution(): NewExecution {
  const hex = randomBytes(16).toString('hex');
  const id = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-7${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
  const atMs = Date.now();
  return {
    header: {
      id,
      project: 'default',
      workflow: { name: 'chain', hash: 'a'.repeat(64), version: 1 },
      bodyPath: null,
      labels: {},
      status: 'Pending',
      error: null,
      errorCode: null,
      input: {},
      outputs: null,
      parent: null,
      ancestors: [],
      startedByFailure: false,
      createdAtMs: atMs,
      startedAtMs: null,
      endedAtMs: null,
      owner: { engine: 'engine-1', epoch: 1 },
      v: 0,
      stop: null,
      seq: 1,
      machine: null,
    },
    events: [{ seq: 1, atMs, type: 'execution.created', node: null, iterations: null, attempt: null, data: null }],
    uniqueKey: null,
    bodyHash: null,
  };
}

async function together(inFlight: number, ms: number, work: () => Promise<unknown>): Promise<void> {
  const untilMs = performance.now() + ms;
  const lane = async (): Promise<void> => {
    while (performance.now() < untilMs) await work();
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
}

async function main(given: string | undefined): Promise<void> {
  const mongo = given === undefined ? await TestMongo.start({ members: 3, own: true }) : null;
  if (typeof mongo === 'string') throw new Error(mongo);
  const uri = given ?? (mongo?.uri as string);
  try {
    const floors = await measureMongoFloors(uri);
    const commits = await measureMongoCommits(uri);
    const after = await measureMongoFloors(uri);
    const [single, bulkRate] = [(floors.single + after.single) / 2, (floors.bulk + after.bulk) / 2];
    const ratios = {
      ofSingle: Number((commits.commits / single).toFixed(2)),
      ofBulk: Number((commits.commits / bulkRate).toFixed(2)),
      costOfLarge: Number((commits.commits / commits.large).toFixed(2)),
    };
    console.log(JSON.stringify({ floors, after, commits, ratios }, null, 2));
  } finally {
    await mongo?.close();
  }
}

if (import.meta.main) await main(process.argv[2]);
