/**
 * What the driver itself can do on a replica set: majority-acknowledged updates of one path of one document, with
 * nothing of ours around them.
 *
 * `node bench/mongo-floors.ts URI` prints them as JSON; the bench runs that in a process of its own.
 */
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { MongoClient } from 'mongodb';

export interface MongoFloors {
  /** Updates per second, one command each, 256 in flight. */
  single: number;
  /** Updates per second in unordered bulk writes of 64, in four lanes. */
  bulk: number;
}

const DOCUMENTS = 256;
const IN_FLIGHT = 256;
const BULK = 64;
const LANES = 4;
const WARM_UP_MS = 1_000;
const MEASURED_MS = 4_000;

export async function measureMongoFloors(uri: string): Promise<MongoFloors> {
  const child = spawn(process.execPath, [import.meta.filename, uri], { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await text(child.stdout)) as MongoFloors;
}

/** Calls `work` in `lanes` loops for a while; updates per second. */
async function rate(lanes: number, updatesEach: number, work: (lane: number, turn: number) => Promise<unknown>) {
  const run = async (ms: number): Promise<number> => {
    let calls = 0;
    const startedMs = performance.now();
    const untilMs = startedMs + ms;
    await Promise.all(
      Array.from({ length: lanes }, async (_, lane) => {
        for (let turn = 0; performance.now() < untilMs; turn += 1) {
          await work(lane, turn);
          calls += 1;
        }
      }),
    );
    return (calls * updatesEach * 1_000) / (performance.now() - startedMs);
  };
  await run(WARM_UP_MS);
  return run(MEASURED_MS);
}

async function floors(uri: string): Promise<MongoFloors> {
  const client = new MongoClient(uri, { writeConcern: { w: 'majority', journal: true }, maxPoolSize: IN_FLIGHT });
  try {
    const collection = client.db(`floors-${process.pid}`).collection<{ _id: number; v: number; nodes: object }>('docs');
    await collection.insertMany(Array.from({ length: DOCUMENTS }, (_, _id) => ({ _id, v: 0, nodes: {} })));
    const set = (turn: number) => ({ $set: { 'nodes.a': { status: 'Running', attempt: turn } }, $inc: { v: 1 } });
    const single = await rate(IN_FLIGHT, 1, (lane, turn) => collection.updateOne({ _id: lane }, set(turn)));
    const bulk = await rate(LANES, BULK, (lane, turn) =>
      collection.bulkWrite(
        Array.from({ length: BULK }, (_, index) => ({
          updateOne: { filter: { _id: (lane * BULK + index) % DOCUMENTS }, update: set(turn) },
        })),
        { ordered: false },
      ),
    );
    await client.db(`floors-${process.pid}`).dropDatabase();
    return { single, bulk };
  } finally {
    await client.close();
  }
}

const uri = process.argv[2];
if (import.meta.main && uri !== undefined) console.log(JSON.stringify(await floors(uri)));
