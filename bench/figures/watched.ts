/**
 * What it costs an engine that Stately viewers may look, and that one does.
 *
 * Two servers run side by side under the same load, so that whatever else the machine does hits both; the ratio is
 * that of the nodes they ended in the same time.
 */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import type { Inspection } from '../../src/wire.ts';
import type { BenchClient } from '../client.ts';
import { type Bench, type Figure, type Measure, shown } from '../figure.ts';
import { readBack } from '../read-back.ts';
import type { BenchServer } from '../server.ts';
import { chain } from '../workflows.ts';

const NODES = 10;
/** At each server. */
const IN_FLIGHT = 128;
/** Of each round, how many are read back. */
const READ_BACK = 20;
/** Frames that a viewer is sent at least, in any round. */
const FRAMES_MIN = 10;

interface Sizes {
  /** Processes of the same code differ by a few percent: so many pairs are asked. */
  pairs: number;
  rounds: number;
  roundMs: number;
}

export const watched: Figure = {
  name: 'watched',
  about: 'nodes ended while nobody looks, and while a Stately viewer does, by those of a server beside it',
  async run(bench) {
    const sizes: Sizes = bench.quick
      ? { pairs: 1, rounds: 4, roundMs: 1_000 }
      : { pairs: 4, rounds: 6, roundMs: 2_000 };
    return [await nobody(bench, sizes), await oneViewer(bench, sizes, false), await oneViewer(bench, sizes, true)];
  },
};

class Load {
  readonly #bench: Bench;
  readonly #server: BenchServer;
  readonly #client: BenchClient;
  readonly #shape = chain('unwatched', NODES);
  #busy = '';

  private constructor(bench: Bench, server: BenchServer, client: BenchClient) {
    this.#bench = bench;
    this.#server = server;
    this.#client = client;
  }

  /** A server, and one execution that goes round in it: what there is to look at. */
  static async open(bench: Bench, inspect: boolean): Promise<Load> {
    const server = await bench.server({ inspect });
    const client = await bench.client(server, { ends: true });
    const load = new Load(bench, server, client);
    await client.save(load.#shape.definition);
    const round = { one: { type: 'set', with: { value: 1 } } };
    const rounds = { type: 'while', condition: 'true', maxIterations: 1_000_000, delay: '20ms', body: round };
    await client.save({ name: 'busy', nodes: { rounds } });
    load.#busy = await client.start('busy');
    return load;
  }

  async close(): Promise<void> {
    await this.#client.close();
    await this.#server.close();
  }

  /** Nodes that ended within `ms`; executions would come in waves. */
  async run(ms: number): Promise<number> {
    const nodes = (): Promise<number> => this.#client.counter('fullstop_nodes_ended_total');
    const before = await nodes();
    const going = this.#client.keepGoing('unwatched', ms, IN_FLIGHT);
    const after = await sleep(ms).then(nodes);
    const ids = await going;
    await readBack(this.#client, ids.slice(-READ_BACK), this.#shape, this.#bench.check);
    return after - before;
  }

  /** The same while one viewer watches the execution that goes round. */
  async runViewed(ms: number, isV4: boolean): Promise<number> {
    const { path } = await this.#client.http<Inspection>('POST', `/api/executions/${this.#busy}/inspections`);
    const address = this.#server.url.replace('http', 'ws') + (isV4 ? path.replace('/inspect/', '/inspect/v4/') : path);
    const socket = new WebSocket(address);
    let frames = 0;
    socket.on('message', () => {
      frames += 1;
    });
    await once(socket, 'open');
    if (isV4) socket.send('{"type":"xstate.inspecting"}');
    const ended = await this.run(ms);
    this.#bench.check(frames >= FRAMES_MIN, `a viewer was sent ${frames} frames`);
    this.#bench.check(socket.readyState === WebSocket.OPEN, 'a viewer was hung up on');
    socket.terminate();
    await once(socket, 'close');
    return ended;
  }
}

/** Nodes that two servers ended side by side. */
interface Round {
  measured: number;
  base: number;
}

/** Inspection off at one, on at the other, where a viewer has been and gone. */
async function nobody(bench: Bench, { pairs, rounds, roundMs }: Sizes): Promise<Measure> {
  const all: Round[] = [];
  for (let pair = 1; pair <= pairs; pair += 1) {
    bench.progress(`nobody looks, servers ${pair} of ${pairs}`);
    const [able, without] = [await Load.open(bench, true), await Load.open(bench, false)];
    await Promise.all([able.runViewed(roundMs, false), without.run(roundMs)]);
    for (let round = 0; round < rounds; round += 1)
      all.push(await sideBySide(bench, able.run(roundMs), without.run(roundMs)));
    await able.close();
    await without.close();
  }
  return ratioOf('engine that nobody watches, by one without inspection', 0.97, all);
}

/** A viewer now at one, now at the other: what sets the two apart is in both sums. */
async function oneViewer(bench: Bench, { pairs, rounds, roundMs }: Sizes, isV4: boolean): Promise<Measure> {
  const protocol = isV4 ? '@xstate/inspect' : '@statelyai/inspect';
  const all: Round[] = [];
  for (let pair = 1; pair <= pairs; pair += 1) {
    bench.progress(`one viewer of ${protocol}, servers ${pair} of ${pairs}`);
    const [one, other] = [await Load.open(bench, true), await Load.open(bench, true)];
    await Promise.all([one.runViewed(roundMs, isV4), other.runViewed(roundMs, isV4)]);
    for (let round = 0; round < rounds; round += 2) {
      all.push(await sideBySide(bench, one.runViewed(roundMs, isV4), other.run(roundMs)));
      all.push(await sideBySide(bench, other.runViewed(roundMs, isV4), one.run(roundMs)));
    }
    await one.close();
    await other.close();
  }
  return ratioOf(`engine with one viewer of ${protocol}, by one without`, 0.9, all);
}

async function sideBySide(bench: Bench, measured: Promise<number>, base: Promise<number>): Promise<Round> {
  const [one, other] = await bench.measured(() => Promise.all([measured, base]));
  return { measured: one, base: other };
}

function ratioOf(name: string, atLeast: number, rounds: readonly Round[]): Measure {
  const sumOf = (kind: keyof Round): number => rounds.reduce((sum, round) => sum + round[kind], 0);
  const ratios = rounds.map(({ measured, base }) => measured / base);
  return {
    name,
    value: sumOf('measured') / sumOf('base'),
    unit: 'x',
    limit: { kind: 'least', atLeast },
    note: `${sumOf('measured')} by ${sumOf('base')} nodes; rounds ${shown(ratios, 2)}`,
  };
}
