/**
 * One seed's world: engines on one store, workers, agents and clients, on one virtual time; and one run of its plan,
 * to the end of everything that was started.
 */
import { isDeepStrictEqual } from 'node:util';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { createMemoryStore } from '../../src/adapters/memory/store.ts';
import type { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import type { CompiledWorkflow } from '../../src/definition/types.ts';
import type { EngineApi } from '../../src/engine/api.ts';
import type { Expressions } from '../../src/ports/expressions.ts';
import type { Ids } from '../../src/ports/ids.ts';
import type { StoredExecution } from '../../src/ports/store.ts';
import { composeBus, composeEngine } from '../../src/runtime.ts';
import { Audit } from '../../src/server/audit.ts';
import { FrozenSets } from '../../src/server/frozen-sets.ts';
import { openClientNamespace } from '../../src/server/sockets.ts';
import type { Context } from '../../src/server/verbs/verb.ts';
import { openWorkerNamespaces } from '../../src/server/workers.ts';
import type { ExecutionEvent, StopReceipt } from '../../src/wire.ts';
import { createInProcessPool } from '../../src/worker/pool.ts';
import { type RunningWorker, startWorker } from '../../src/worker/worker.ts';
import { Network, poisoned, SimLink, type Weather, watched } from './bus.ts';
import { checkWorld } from './checker.ts';
import { Clients, type Door } from './clients.ts';
import { Database, openLink, tail } from './database.ts';
import { definitionOf } from './definitions.ts';
import { eventLatency, type StopLatency, stopLatency, type Trouble } from './latency.ts';
import { Ledger } from './ledger.ts';
import { type Fault, type FaultKind, LOAD_MS, type Plan } from './plan.ts';
import { restored } from './restores.ts';
import { Process, Scheduler, Streams } from './scheduler.ts';
import { forgetWorlds, register, resetConnections, ServerIo, type Wires } from './sockets.ts';
import { Trace } from './trace.ts';
import { type Containers, executorsOf, type Run, type WorkWorld } from './work.ts';

/** After it nothing new goes wrong, and within it everything has ended. */
const END_MS = 600_000;
const HEAL_MS = LOAD_MS + 2_000;
/** How long the schedule goes on then. */
const TIMED_MS = 5_500;
/** How long a fault that is over may still be felt. */
const ECHO_MS = 3_000;
/** How long one call that went wrong may echo. */
const NTH_TROUBLE_MS = 5_000;
/** How long another engine takes at most to find out that one has died, and to take over. */
const TAKEOVER_MS = 13_000;
/** An accepted stop is final, whatever happened before. */
const FINAL_MS = 15_000;

export interface Outcome {
  faults: string[];
  hash: string;
  /** How often each kind of fault changed something. */
  hits: Partial<Record<FaultKind, number>>;
  executions: number;
  stops: number;
  steps: number;
  latencies: StopLatency[];
  /** Of virtual time. */
  tookMs: number;
  lines: string[];
}

/** Shared by all runs: parsed expressions are remembered. */
let shared: Expressions | null = null;
const sharedExpressions = (): Expressions => (shared ??= createExpressions());

export async function runPlan(plan: Plan, options: { trace?: boolean } = {}): Promise<Outcome> {
  const world = new World(plan, options.trace === true);
  return world.run();
}

class SimEngine {
  readonly index: number;
  readonly world: World;
  readonly count = { calls: 0, writes: 0, minor: 0, byName: new Map<string, number>() };
  readonly containers: Containers = new Map();
  process: Process;
  skewMs: number;
  /** Its fastest: what it set then is due by that. */
  skewMaxMs: number;
  engine: EngineApi | null = null;
  /** To the other engines; null: it has none. */
  link: SimLink | null = null;
  bus: SocketIoBus | null = null;
  io: ServerIo | null = null;
  door: Door | null = null;
  /** It answers clients and workers. */
  serving = false;
  nextVersion: boolean;
  generation = 0;
  startedAtMs = 0;
  /** It dies when a container has begun in it. */
  leavesOrphan = false;

  constructor(world: World, index: number) {
    this.world = world;
    this.index = index;
    const { faults } = world.plan;
    this.skewMs = 0;
    for (const fault of faults) if (fault.kind === 'clockSkewed' && fault.engine === index) this.skewMs = fault.byMs;
    this.skewMaxMs = Math.max(0, this.skewMs);
    this.nextVersion = faults.some((fault) => fault.kind === 'nextVersion' && fault.engine === index);
    this.process = new Process(`engine ${index}`, world.scheduler, this.skewMs);
  }

  start(): void {
    const { world, index } = this;
    const { scheduler, ledger, trace } = world;
    this.generation += 1;
    const process = new Process(`engine ${index}.${this.generation}`, scheduler, this.skewMs);
    this.process = process;
    const link = world.plan.engines.length > 1 ? new SimLink(process, world.network) : null;
    this.link = link;
    const bus = composeBus(link === null ? null : { link, clock: process.clock, id: process.name });
    this.bus = bus;
    const io = new ServerIo();
    this.io = io;
    const ownBus = watched(bus, {
      network: world.network,
      process,
      link,
      inRoom: (id) => io.inRoom(`execution:${id}`),
      stopsTold: () => world.stopsTold,
      sweeps: (sinceMs) =>
        this.serving && world.storeIsWell(sinceMs) ? (this.count.byName.get('cluster.waiting') ?? 0) : null,
    });
    let engineId = '';
    const store = openLink({
      database: world.database,
      process,
      faults: world.plan.faults.filter(
        (fault): fault is Fault & { nth: number } => 'nth' in fault && fault.engine === index,
      ),
      count: this.count,
      engineId: () => engineId,
      hit: (kind) => world.hit(kind, NTH_TROUBLE_MS),
      cut: (to) => world.isCut(index, 'store', to),
      kill: (downMs) => this.kill(downMs),
      nextVersion: this.nextVersion,
    });
    const plan = world.plan.engines[index] as Plan['engines'][number];
    const executors = executorsOf(world.work, process, plan.types, this.containers);
    const pool = createInProcessPool({
      executors,
      clock: process.clock,
      slots: plan.types.length === 0 ? 0 : plan.slots,
    });
    const work: typeof pool = {
      ...pool,
      get size() {
        return pool.size;
      },
      start: (task, report, log) => {
        if (!process.alive) return;
        ledger.taskLeaves(task.id, process.name);
        pool.start(task, report, log);
      },
    };
    const ids: Ids = { next: () => world.id(process) };
    const log = {
      info: () => undefined,
      debug: () => undefined,
      warn: (data: object, message: string) => trace.aside(process.name, `warns: ${message} ${JSON.stringify(data)}`),
      error: (data: object, message: string) => {
        trace.aside(process.name, `error: ${message} ${JSON.stringify(data)}`);
        if (process.alive && !EXPECTED_ERRORS.some((text) => message.includes(text)))
          ledger.fault(`${process.name} logged: ${message} ${JSON.stringify(data)}`);
      },
    };
    const tokens = { make: () => `token-${world.id(process)}`, hash: (token: string) => `hash of ${token}` };
    const expressions = world.expressionsIn(process);
    const engine = composeEngine(
      { store, bus: ownBus, clock: process.clock, ids, expressions, work, tokens, log },
      {
        maxRunning: plan.maxRunning,
        onGone: (why) => {
          if (!process.alive) return;
          trace.note(process.name, `is gone: ${why}`);
          // What its server does: a new engine in its place.
          if (why === 'fenced') process.later(1, () => this.kill(1_000));
          else this.drain(1_000);
        },
      },
    );
    this.engine = engine;
    engineId = engine.id;
    if (this.nextVersion) world.hit('nextVersion');
    if (this.skewMs !== 0 && this.generation === 1) world.hit('clockSkewed', END_MS);
    trace.note(process.name, `starts as ${tail(engine.id)}`);
    this.startedAtMs = scheduler.nowMs;
    world.boots.push({ startedAtMs: scheduler.nowMs, process });
    const start = async (): Promise<void> => {
      await bus.open();
      await engine.start();
    };
    start().then(
      () => {
        if (!process.alive) return;
        const context = {
          store,
          engine,
          workers: engine.workers,
          clock: process.clock,
          ids,
          access: { byKey: (key: string) => callerOf(key) },
          audit: new Audit(store, process.clock, ids, log as never),
          frozenSets: new FrozenSets(process.clock, ids),
          closeSocketsOf: () => undefined,
          drainMs: 1_000,
          logger: log,
        } as unknown as Context;
        openClientNamespace(io as never, { context, bus, verbs: [] });
        openWorkerNamespaces(io as never, { context, gate: engine.workers, bus });
        this.door = { name: process.name, process, context };
        this.serving = true;
        world.lives.push({ index, startedAtMs: this.startedAtMs, servesAtMs: scheduler.nowMs, process });
        trace.note(process.name, 'serves');
      },
      (error: unknown) => {
        if (!process.alive) return;
        trace.note(process.name, `could not start: ${String(error)}`);
        this.kill(500);
      },
    );
  }

  /** As `kill -9` does; another comes up after a while. */
  kill(downMs: number): void {
    const { world, process } = this;
    if (!process.alive) return;
    world.trace.note(process.name, 'is killed');
    process.alive = false;
    process.diedAtMs = world.scheduler.nowMs;
    this.serving = false;
    this.notServing(downMs);
    if (this.link !== null) world.network.members.delete(this.link);
    this.io?.break();
    world.processDied(process);
    world.scheduler.at(world.scheduler.nowMs + downMs, () => this.start());
  }

  /** Until it, or another engine, does what it did. */
  notServing(forMs: number): void {
    const { world, engine } = this;
    const { nowMs } = world.scheduler;
    const toMs = nowMs + Math.max(forMs, world.plan.engines.length > 1 ? TAKEOVER_MS : 0) + 1_000;
    world.troubles.push({ kind: 'engineDown', fromMs: nowMs, toMs, engineId: engine?.id ?? '' });
  }

  drain(downMs: number): void {
    const { engine, process } = this;
    if (engine === null || !this.serving) return;
    this.world.hit('engineDrained', 7_000 + downMs);
    this.world.trace.note(process.name, 'drains');
    const down = (): void => this.kill(downMs);
    engine
      .drain(1_000)
      .then(() => {
        this.link?.ends();
        return this.bus?.close();
      })
      .then(
        () => process.hear(down),
        () => process.hear(down),
      );
    process.later(5_000, down);
  }
}

const EXPECTED_ERRORS = [
  'this engine gives up what it owned',
  'onFailure could not start',
  'audit entry not stored',
  'audit outcome not stored',
];

class SimWorker {
  readonly index: number;
  readonly world: World;
  process: Process;
  worker: RunningWorker | null = null;
  generation = 0;
  deafUntilMs = 0;
  lateUntilMs = 0;
  doubledUntilMs = 0;
  /** Where it is connected, or will be. */
  towards = 0;

  constructor(world: World, index: number) {
    this.world = world;
    this.index = index;
    this.process = new Process('', world.scheduler);
    this.towards = index;
  }

  start(): void {
    const { world, index } = this;
    const { types, pool, slots } = world.plan.workers[index] as Plan['workers'][number];
    this.generation += 1;
    const process = new Process(`${pool === null ? 'worker' : 'agent'} ${index}.${this.generation}`, world.scheduler);
    this.process = process;
    world.byProcess.set(process, this);
    const url = `sim://${process.name.replace(' ', '-')}`;
    register(url, { process, wires: world.wires });
    // An agent is known by its installation, a worker by its process.
    const workerId = pool === null ? world.id(process) : `018ccccc-0000-7000-8000-0000000000a${index}`;
    this.worker = startWorker({
      url,
      key: pool === null ? 'worker' : 'agent',
      capabilities: pool === null ? types : ['nmap'],
      slots,
      executors: executorsOf(world.work, process, types, new Map()),
      clock: process.clock,
      logger: { info: () => undefined, warn: () => undefined },
      name: process.name,
      workerId,
      ...(pool === null ? {} : { agentOf: pool }),
    });
    void this.worker.refused.then((error) => world.ledger.fault(`${process.name} was refused: ${error.message}`));
  }

  kill(downMs: number): void {
    const { world, process } = this;
    if (!process.alive) return;
    world.hit('workerKilled');
    world.trace.note(process.name, 'is killed');
    process.alive = false;
    for (const engine of world.engines) engine.io?.break(process);
    world.processDied(process);
    world.scheduler.at(world.scheduler.nowMs + downMs, () => this.start());
  }

  /** The network breaks its connection, and another engine takes the next. */
  move(): void {
    const { world, process } = this;
    world.hit('workerMoved');
    world.trace.note(process.name, 'moves');
    this.towards += 1;
    for (const engine of world.engines) engine.io?.break(process);
  }
}

/** One process of an engine that came to serve. */
export interface Life {
  index: number;
  startedAtMs: number;
  servesAtMs: number;
  process: Process;
}

export class World {
  readonly plan: Plan;
  readonly scheduler = new Scheduler();
  readonly streams: Streams;
  readonly trace: Trace;
  readonly ledger: Ledger;
  readonly database: Database;
  readonly network: Network;
  readonly clients: Clients;
  readonly engines: SimEngine[] = [];
  readonly workers: SimWorker[] = [];
  readonly byProcess = new Map<Process, SimWorker>();
  readonly work: WorkWorld;
  readonly wires: Wires;
  readonly hits: Partial<Record<FaultKind, number>> = {};
  readonly troubles: Trouble[] = [];
  healed = false;
  /** How often STOP was said to a client or worker. */
  stopsTold = 0;
  healedAtMs = 0;
  /** Engines that have served: since when, and until when. */
  readonly lives: Life[] = [];
  /** Every process of an engine, whether it came to serve or not. */
  readonly boots: Pick<Life, 'startedAtMs' | 'process'>[] = [];
  /** No instant of the schedule starts anything any more. */
  timedUntilMs = 0;
  /** Definitions that were saved, by hash. */
  readonly compiled = new Map<string, CompiledWorkflow>();
  readonly #deaf = new Set<Process>();
  /** To which a client that follows is connected. */
  readonly #engineOf = new Map<Process, string>();
  /** Tasks, and executions, that a process was told to end. */
  readonly #cancelled = new Map<Process, Set<string>>();
  #ids = 0;
  /** Messages that are lost: until when, by where they are. */
  readonly #cuts: { engine: number; from: string; to: boolean; untilMs: number }[] = [];

  constructor(plan: Plan, keepTrace: boolean) {
    this.plan = plan;
    const { seed } = plan;
    const { scheduler } = this;
    this.streams = new Streams(seed);
    const now = (): number => scheduler.nowMs - scheduler.startMs;
    this.trace = new Trace(keepTrace, now);
    this.ledger = new Ledger(() => scheduler.nowMs);
    const { ledger, streams, trace } = this;
    const hit = (kind: FaultKind): void => this.hit(kind);
    this.database = new Database({
      inner: createMemoryStore({
        cluster: plan.engines.length > 1,
        // Each call has copied what it was given.
        takes: true,
        nowMs: () => Math.floor(scheduler.nowMs),
      }),
      scheduler,
      ledger,
      trace,
      seed,
    });
    this.network = new Network({
      scheduler,
      streams,
      ledger,
      trace,
      hit,
      cut: (process, sends) => this.isCut(this.#indexOf(process), 'engines', sends),
    });
    this.work = {
      seed,
      nowMs: () => scheduler.nowMs,
      trace,
      runs: new Map(),
      windingDown: false,
      fault: (text) => ledger.fault(text),
      began: (process, { id, executionId }) => {
        const cancelled = this.#cancelled.get(process);
        if (cancelled?.has(id) === true || cancelled?.has(executionId) === true)
          ledger.fault(`${id} began in ${process.name}, which had been told to end it (I3)`);
      },
      containerBegan: (process) => {
        const engine = this.engines.find((one) => one.process === process);
        if (engine?.leavesOrphan !== true) return;
        engine.leavesOrphan = false;
        process.later(0.2, () => {
          this.hit('orphanLeft');
          engine.kill(200);
        });
      },
      deaf: (process) => {
        const worker = this.byProcess.get(process);
        const deaf = worker !== undefined && worker.deafUntilMs > scheduler.nowMs;
        if (deaf) {
          this.hit('workerDeaf');
          this.#deaf.add(process);
        }
        return deaf;
      },
    };
    this.wires = this.#makeWires();
    this.clients = new Clients({
      scheduler,
      streams,
      ledger,
      trace,
      doors: () => this.engines.flatMap(({ serving, door }) => (serving && door !== null ? [door] : [])),
      cut: (door, to) => this.isCut(this.#indexOf(door.process), 'clients', to),
      healed: () => this.healed,
      wires: this.#followerWires(),
      engineOf: (client) => this.#engineOf.get(client) ?? '',
    });
    ledger.onOutput = (taskId, output) => {
      const runs = this.work.runs.get(taskId);
      if (runs !== undefined && !runs.some((run) => run.output !== undefined && isDeepStrictEqual(run.output, output)))
        ledger.fault(`the record has ${JSON.stringify(output)} of ${taskId}, its work gave something else (I5)`);
    };
    ledger.onReceipt = (receipt) => this.#checkReceipt(receipt);
  }

  /** `forMs`: how long it may change what happens; without it, its plan says that. */
  hit(kind: FaultKind, forMs: number | null = null): void {
    this.hits[kind] = (this.hits[kind] ?? 0) + 1;
    const { nowMs } = this.scheduler;
    if (forMs !== null) this.troubles.push({ kind, fromMs: nowMs, toMs: nowMs + forMs });
  }

  /** Ordered by the time of the process that made it, as UUIDs version 7 are. */
  id(process: Process): string {
    this.#ids += 1;
    const time = process.clock.nowMs().toString(16).padStart(12, '0');
    return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-${this.#ids.toString(16).padStart(12, '0')}`;
  }

  // ------------------------------------------------------------------ the network

  isCut(engine: number, from: string, to: boolean): boolean {
    const { nowMs } = this.scheduler;
    for (const cut of this.#cuts)
      if (cut.untilMs > nowMs && cut.engine === engine && cut.from === from && cut.to === to) return true;
    return false;
  }

  /** For a second before, too. */
  storeIsWell(sinceMs: number): boolean {
    return this.troubles.every(({ kind, toMs }) => isOfMessages(kind) || toMs < sinceMs - 1_000);
  }

  #indexOf(process: Process): number {
    return this.engines.findIndex((engine) => engine.process === process);
  }

  #makeWires(): Wires {
    const { scheduler, streams, trace, network } = this;
    return {
      whole: false,
      nowMs: () => scheduler.nowMs,
      route: (client) => {
        const serving = this.engines.filter((engine) => engine.serving);
        const towards = this.byProcess.get(client)?.towards ?? 0;
        const engine = serving[towards % Math.max(1, serving.length)];
        return engine?.io == null ? null : { process: engine.process, io: engine.io };
      },
      lost: (from, to, loss) => {
        const up = this.byProcess.has(from);
        const engine = this.#indexOf(up ? to : from);
        if (this.isCut(engine, 'workers', !up)) {
          this.hit('partitioned');
          return true;
        }
        if (!loss || network.weather.droppedUntilMs <= scheduler.nowMs) return false;
        if (streams.of('lost frames').next() > 0.25) return false;
        this.hit('messageDropped');
        return true;
      },
      delayMs: (from) => {
        const worker = this.byProcess.get(from);
        const late = worker !== undefined && worker.lateUntilMs > scheduler.nowMs;
        if (late) this.hit('resultLate');
        return 0.1 + streams.of(`wire of ${from.name}`).next() * 2 + (late ? 3_000 : 0);
      },
      strays: () => {
        const { reorderedUntilMs, lateUntilMs } = network.weather;
        const isLate = lateUntilMs > scheduler.nowMs;
        if (!isLate && reorderedUntilMs <= scheduler.nowMs) return null;
        const draw = streams.of('stray frames').next();
        if (draw > 0.4) return null;
        this.hit(isLate ? 'messageLate' : 'messageReordered');
        return isLate ? 1_000 + draw * 8_000 : draw * 400;
      },
      heard: (client, name, payload) => {
        if (name !== 'task.cancel' && name !== 'STOP') return;
        const { taskId, executionId } = payload as { taskId?: string; executionId?: string };
        const cancelled = this.#cancelled.get(client) ?? new Set();
        cancelled.add(taskId ?? executionId ?? '');
        this.#cancelled.set(client, cancelled);
      },
      said: (from, name, payload) => {
        trace.note(from.name, `${name} ${taskOf(payload)}`);
        if (name === 'task.run') this.ledger.taskLeaves((payload as { task: { id: string } }).task.id, 'a worker');
        if (name === 'STOP') {
          this.stopsTold += 1;
          const { executionId, requestId } = payload as { executionId: string; requestId: string };
          this.ledger.stopLeaves(executionId, requestId);
        }
      },
      doubled: (from, name) => {
        const worker = this.byProcess.get(from);
        const { nowMs } = scheduler;
        if (name === 'task.result' && worker !== undefined && worker.doubledUntilMs > nowMs) {
          this.hit('resultDoubled');
          return 50 + streams.of('doubled results').next() * 3_000;
        }
        if (network.weather.doubledUntilMs > nowMs && streams.of('doubled frames').next() < 0.2) {
          this.hit('messageDoubled');
          return streams.of('doubled frames').next() * 200;
        }
        return null;
      },
      answered: (_server, name, payload, answer) => {
        if (name !== 'task.result') return;
        const { ok, data } = answer as { ok: boolean; data?: { discarded: boolean } };
        if (!ok || data?.discarded !== false) return;
        const { taskId, report } = payload as { taskId: string; report?: { kind: string } };
        this.ledger.resultTaken(taskId, report?.kind ?? 'in parts');
      },
    };
  }

  /** Of those who follow: a connection that loses something is none any more. */
  #followerWires(): Wires {
    const { streams, wires } = this;
    return {
      ...wires,
      whole: true,
      route: (client) => {
        const serving = this.engines.filter((engine) => engine.serving);
        const engine = serving[Math.floor(streams.of(`ways of ${client.name}`).next() * serving.length)];
        this.#engineOf.set(client, engine?.engine?.id ?? '');
        return engine?.io == null ? null : { process: engine.process, io: engine.io };
      },
      lost: (from, to) => {
        const [engine, sends] = from.name.startsWith('follower') ? [to, false] : [from, true];
        if (!this.isCut(this.#indexOf(engine), 'clients', sends)) return false;
        this.hit('partitioned');
        return true;
      },
      delayMs: (from) => 0.1 + streams.of(`wire of ${from.name} to those who follow`).next() * 2,
      strays: () => null,
      doubled: () => null,
      said: (from, name, payload) => {
        wires.said(from, name, payload);
        if (name !== 'execution.event') return;
        const { executionId, event } = payload as { executionId: string; event: ExecutionEvent };
        this.ledger.eventLeaves(executionId, event);
      },
    };
  }

  expressionsIn(process: Process): Expressions {
    const inner = sharedExpressions();
    const random = this.streams.of(`expressions of ${process.name}`);
    /** Some take a while, as those on a thread of their own do. */
    const sometimesLater = (evaluate: () => unknown): unknown => {
      const draw = random.next();
      if (draw > 0.12) return evaluate();
      return new Promise((resolve, reject) => {
        process.later(draw * 100, () => {
          try {
            resolve(evaluate());
          } catch (error) {
            reject(error);
          }
        });
      });
    };
    return {
      evaluate: (source, scope) => sometimesLater(() => inner.evaluate(source, scope)),
      render: (value, scope) => sometimesLater(() => inner.render(value, scope)),
      close: async () => undefined,
    };
  }

  // ------------------------------------------------------------------ life

  async run(): Promise<Outcome> {
    const { scheduler, plan, ledger } = this;
    const restore = quietWorld(this.streams, this);
    try {
      resetConnections();
      await this.#save();
      for (let index = 0; index < plan.engines.length; index += 1) this.engines.push(new SimEngine(this, index));
      for (const engine of this.engines) engine.start();
      for (let index = 0; index < plan.workers.length; index += 1) {
        const worker = new SimWorker(this, index);
        this.workers.push(worker);
        worker.start();
      }
      const { startMs } = scheduler;
      plan.load.forEach((load, index) => {
        scheduler.at(startMs + 20 + load.atMs, () => {
          if (load.kind === 'save') void this.#saveAgain(load.workflow);
          else this.clients.do(index, load);
        });
      });
      for (const fault of plan.faults) this.#arm(fault);
      let healMs = HEAL_MS;
      for (const fault of plan.faults) if ('forMs' in fault) healMs = Math.max(healMs, fault.atMs + fault.forMs);
      const broken = (): boolean => ledger.faults.length > 0;
      await scheduler.run(startMs + healMs, broken);
      if (!broken()) {
        this.#heal();
        // What clients asked shortly before it may still start something.
        await scheduler.run(scheduler.nowMs + 1_000, broken);
        if (plan.timed !== undefined) {
          await scheduler.run(startMs + healMs + TIMED_MS, broken);
          await this.#endSchedule();
        }
        const stopped = [...ledger.executions.values()].filter(
          ({ stop, endAtMs }) => stop !== null && endAtMs === null,
        );
        if (stopped.length > 0) {
          await scheduler.run(
            startMs + healMs + FINAL_MS,
            () => broken() || stopped.every(({ endAtMs }) => endAtMs !== null),
          );
          for (const { id, endAtMs } of stopped)
            if (endAtMs === null && !broken())
              ledger.fault(`${id} was stopped, and has not ended ${FINAL_MS} ms after everything healed (I4)`);
        }
        const quiet = (): boolean =>
          broken() ||
          (ledger.live === 0 &&
            this.database.late === 0 &&
            this.clients.open === 0 &&
            this.clients.followers.every(({ upToDate }) => upToDate) &&
            this.#allServe());
        await scheduler.run(startMs + END_MS, quiet);
        await scheduler.run(scheduler.nowMs + 1_500, broken);
        // Confirmations come with the heartbeats of those who were away.
        if (!broken() && this.#unproven())
          await scheduler.run(scheduler.nowMs + 45_000, () => broken() || !this.#unproven());
      }
      if (!broken()) await this.#readReceipts();
      if (!broken()) {
        for (const fault of await checkWorld(this)) ledger.fault(fault);
      }
    } finally {
      for (const { process } of [...this.engines, ...this.workers]) process.alive = false;
      forgetWorlds();
      restore();
    }
    return {
      faults: ledger.faults,
      hash: this.trace.hash,
      hits: this.hits,
      executions: ledger.executions.size,
      stops: [...ledger.executions.values()].filter(({ stop }) => stop !== null).length,
      steps: scheduler.steps,
      latencies: [
        ...[...ledger.executions.values()].flatMap((known) => stopLatency(known, this.troubles) ?? []),
        ...this.#eventLatencies(),
      ],
      tookMs: scheduler.nowMs - scheduler.startMs,
      lines: this.trace.lines,
    };
  }

  *#eventLatencies(): Generator<StopLatency> {
    for (const { id, seen } of this.clients.followers) {
      const { eventsFrom } = this.ledger.executions.get(id) ?? { eventsFrom: [] };
      for (const [index, { atMs, sinceMs, engine }] of seen.entries()) {
        const from = eventsFrom[index];
        // Events of the engine that a client is connected to need no bus.
        if (from === undefined || sinceMs >= from.atMs || from.engine === engine) continue;
        const latency = eventLatency(from.atMs, atMs, this.troubles);
        if (latency !== null) yield latency;
      }
    }
  }

  /** As a client is told them: what their engines could not bring up to date any more is, by then. */
  async #readReceipts(): Promise<void> {
    const { ledger, scheduler, clients } = this;
    for (const { id, stop, endAtMs, deleted } of ledger.executions.values()) {
      if (stop === null || endAtMs === null || deleted) continue;
      const receipt = await this.database.inner.getReceipt(id);
      if (receipt?.children.every(({ status }) => status === 'Complete' || status === 'Failed') !== false) continue;
      clients.readReceipt(id, (told) => this.receipts.set(id, told));
    }
    if (clients.open > 0) await scheduler.run(scheduler.nowMs + 20_000, () => clients.open === 0);
  }

  async #save(): Promise<void> {
    for (const workflow of this.plan.workflows) {
      const { source, hash, compiled } = definitionOf(workflow);
      this.compiled.set(hash, compiled);
      const savedAtMs = Math.floor(this.scheduler.nowMs);
      await this.database.inner.saveDefinition({ project: 'default', name: compiled.name, hash, source, savedAtMs });
    }
  }

  /** A new version of a workflow, while older ones run. */
  async #saveAgain(name: string): Promise<void> {
    const workflow = this.plan.workflows.find((one) => one['name'] === name);
    if (workflow === undefined) return;
    const { source, hash, compiled } = definitionOf({ ...workflow, description: 'the next version' });
    this.compiled.set(hash, compiled);
    const savedAtMs = Math.floor(this.scheduler.nowMs);
    await this.database.inner.saveDefinition({ project: 'default', name, hash, source, savedAtMs });
    for (const { engine, process, serving } of this.engines)
      if (serving) process.hear(() => void engine?.workflowChanged('default', name).catch(() => undefined));
  }

  /** An execution of each instant would never let this world end. */
  async #endSchedule(): Promise<void> {
    await this.database.inner.setDisabled('default', 'timed', true);
    this.timedUntilMs = this.scheduler.nowMs;
    for (const { engine, process, serving } of this.engines)
      if (serving) process.hear(() => void engine?.workflowChanged('default', 'timed').catch(() => undefined));
    await this.scheduler.run(this.scheduler.nowMs + 3_000);
  }

  #allServe(): boolean {
    return this.engines.every(({ serving }) => serving);
  }

  #unproven(): boolean {
    for (const runs of this.work.runs.values())
      for (const run of runs) if (run.endedAtMs === null && run.process.alive) return true;
    for (const { engine } of this.engines)
      for (const { kind, held } of engine?.workers.workers() ?? []) if (kind !== 'agent' && held > 0) return true;
    // A commit that was applied is told to its engine late where the answer was lost.
    for (const { engine } of this.engines) {
      const { running, pending, parked } = engine?.describe().executions ?? { running: 0, pending: 0, parked: 0 };
      if (running + pending + parked > 0) return true;
    }
    return this.unconfirmed.size > 0;
  }

  // ------------------------------------------------------------------ what goes wrong

  #arm(fault: Fault): void {
    const { scheduler, database, network } = this;
    if (!('atMs' in fault)) return;
    const untilMs = scheduler.startMs + fault.atMs + ('forMs' in fault ? fault.forMs : 0);
    scheduler.at(scheduler.startMs + fault.atMs, () => {
      if (this.healed) return;
      this.trace.aside('fault', JSON.stringify(fault));
      const fenced = fault.kind === 'enginePaused' && this.plan.engines.length > 1;
      if ('forMs' in fault && !fenced)
        this.troubles.push({ kind: fault.kind, fromMs: scheduler.nowMs, toMs: untilMs + ECHO_MS });
      const engine = 'engine' in fault ? (this.engines[fault.engine] as SimEngine) : null;
      const worker = 'worker' in fault ? (this.workers[fault.worker] as SimWorker) : null;
      switch (fault.kind) {
        case 'stepDown':
          database.downUntilMs = Math.max(database.downUntilMs, untilMs);
          break;
        case 'noMajority':
          database.unacknowledgedUntilMs = Math.max(database.unacknowledgedUntilMs, untilMs);
          break;
        case 'diskFull':
          database.fullUntilMs = Math.max(database.fullUntilMs, untilMs);
          break;
        case 'streamGap': {
          const { link } = engine as SimEngine;
          if (link !== null) {
            link.deafUntilMs = untilMs;
            link.process.later(fault.forMs, () => link.gap());
          }
          break;
        }
        case 'broadcastLost':
          network.weather.silentUntilMs = untilMs;
          break;
        case 'messageDropped':
          network.weather.droppedUntilMs = untilMs;
          break;
        case 'messageDoubled':
          network.weather.doubledUntilMs = untilMs;
          break;
        case 'messageReordered':
          network.weather.reorderedUntilMs = untilMs;
          break;
        case 'messageLate':
          network.weather.lateUntilMs = untilMs;
          break;
        case 'enginePaused':
        case 'engineStalled':
          if (engine?.process.alive === true) {
            this.hit(fault.kind);
            if (fenced) engine.notServing(fault.forMs);
            engine.process.pausedUntilMs = Math.max(engine.process.pausedUntilMs, untilMs);
          }
          break;
        case 'clockJumped':
          if (engine !== null) {
            this.hit(fault.kind, END_MS);
            engine.skewMs += fault.byMs;
            engine.skewMaxMs = Math.max(engine.skewMaxMs, engine.skewMs);
            engine.process.skewMs = engine.skewMs;
          }
          break;
        case 'partitioned':
          this.#cuts.push({ engine: fault.engine, from: fault.from, to: fault.to, untilMs });
          break;
        case 'poisonedMessage':
          if (engine?.link != null) {
            this.hit(fault.kind);
            poisoned(network, engine.link, fault.what);
          }
          break;
        case 'orphanLeft':
          // With the next container that begins there.
          if (engine !== null) engine.leavesOrphan = true;
          break;
        case 'engineDrained':
          engine?.drain(fault.downMs);
          break;
        case 'workerKilled':
          worker?.kill(fault.downMs);
          break;
        case 'workerDeaf':
          if (worker !== null) worker.deafUntilMs = untilMs;
          break;
        case 'workerMoved':
          worker?.move();
          break;
        case 'resultLate':
          if (worker !== null) worker.lateUntilMs = untilMs;
          break;
        case 'resultDoubled':
          if (worker !== null) worker.doubledUntilMs = untilMs;
          break;
        case 'resultForged':
          if (worker !== null) this.#forge(worker, fault.ending === true, 60);
          break;
        default:
          break;
      }
    });
  }

  /** As soon as another worker of its engine has a task, and not for ever. */
  #forge(worker: SimWorker, ending: boolean, tries: number): void {
    if (tries === 0 || this.healed) return;
    const { process } = worker;
    const socket = this.engines.map(({ io }) => io?.socketOf(process) ?? null).find((one) => one !== null);
    for (const runs of socket == null ? [] : this.work.runs.values()) {
      const [run] = runs;
      if (run === undefined || run.endedAtMs !== null || run.process === process) continue;
      if (!this.byProcess.has(run.process) || (ending && run.abortedAtMs === null)) continue;
      const taskId = run.task.id;
      const report = { kind: 'completed', output: 'forged' };
      this.hit('resultForged');
      socket?.forge('task.result', { taskId, token: 'token-of-another', report }, () => undefined);
      return;
    }
    this.scheduler.at(this.scheduler.nowMs + 100, () => this.#forge(worker, ending, tries - 1));
  }

  #heal(): void {
    const { database, network } = this;
    this.healed = true;
    this.healedAtMs = this.scheduler.nowMs;
    this.trace.aside('world', 'heals');
    database.downUntilMs = 0;
    database.unacknowledgedUntilMs = 0;
    database.fullUntilMs = 0;
    this.#cuts.length = 0;
    for (const kind of Object.keys(network.weather) as (keyof Weather)[]) network.weather[kind] = 0;
    // No clock goes back: instants that the fastest set are reached by all.
    const fastestMs = Math.max(...this.engines.map((engine) => engine.skewMaxMs));
    for (const engine of this.engines) {
      engine.skewMs = fastestMs;
      engine.process.skewMs = fastestMs;
      // Faults by number that have not come do not come any more.
      engine.count.calls = Number.POSITIVE_INFINITY;
      engine.count.writes = Number.POSITIVE_INFINITY;
      engine.count.minor = Number.POSITIVE_INFINITY;
    }
    for (const engine of this.engines) engine.leavesOrphan = false;
    this.work.windingDown = true;
    this.clients.heal(this.plan.load);
    for (const runs of this.work.runs.values()) {
      for (const run of runs) {
        if (run.endedAtMs !== null || !run.process.alive) continue;
        const known = this.ledger.executions.get(run.task.executionId);
        const wanted = known?.endAtMs === null && known.stop === null;
        // What nobody wants any more ends by being told, or is found running.
        if (run.hangs && (wanted || run.task.where === 'agent')) run.process.later(100, run.finish);
      }
    }
  }

  /** Everything that ran in it has ended, but for containers. */
  processDied(process: Process): void {
    for (const runs of this.work.runs.values()) {
      for (const run of runs) {
        if (run.process === process && run.endedAtMs === null && run.task.type !== 'container')
          run.endedAtMs = this.scheduler.nowMs;
      }
    }
  }

  // ------------------------------------------------------------------ receipts

  /** Executions whose last receipt says that something has not confirmed. */
  readonly unconfirmed = new Set<string>();
  /** As clients were told them in the end, where they asked. */
  readonly receipts = new Map<string, StopReceipt>();

  /** Whatever a receipt says has ended has ended (I9). */
  #checkReceipt(receipt: StopReceipt): void {
    const { executionId } = receipt;
    if (receipt.unconfirmed > 0) this.unconfirmed.add(executionId);
    else this.unconfirmed.delete(executionId);
    const open = receipt.tasks.filter(({ outcome }) => outcome === 'unconfirmed').length;
    if (open !== receipt.unconfirmed)
      this.ledger.fault(
        `the receipt of ${executionId} counts ${receipt.unconfirmed} unconfirmed tasks, and lists ${open}`,
      );
    for (const task of receipt.tasks) {
      if (task.outcome === 'unconfirmed' || task.outcome === 'agentRunsOn') continue;
      for (const run of this.#runsOf(executionId, task)) {
        const said = `the receipt of ${executionId} says ${task.outcome} of ${task.node} attempt ${task.attempt}`;
        // Where a loop has had this iteration before, it is another task's run.
        if (task.outcome === 'neverStarted' && task.iterations !== undefined) continue;
        if (task.outcome === 'neverStarted') this.ledger.fault(`${said}, and it ran in ${run.process.name} (I9)`);
        else if (run.endedAtMs === null && run.task.where === 'worker' && !this.#standsStill(run.process))
          this.ledger.fault(`${said}, and it runs in ${run.process.name} (I9)`);
      }
    }
  }

  /** It was declared dead and does nothing: what it had ends when it wakes. */
  #standsStill(process: Process): boolean {
    return !process.alive || process.pausedUntilMs > this.scheduler.nowMs;
  }

  /** Runs at this place; none where several attempts of an enclosing loop had it. */
  #runsOf(executionId: string, task: { node: string; iterations?: number[]; attempt: number }): Run[] {
    const found: Run[] = [];
    for (const runs of this.work.runs.values()) {
      const [run] = runs;
      if (
        run !== undefined &&
        run.task.executionId === executionId &&
        run.task.node === task.node &&
        run.task.attempt === task.attempt &&
        run.task.iterations.join() === (task.iterations ?? []).join()
      )
        found.push(...runs);
    }
    return new Set(found.map((run) => run.task.id)).size === 1 ? found : [];
  }

  /** It did not hear an abort once. */
  wasDeaf(process: Process): boolean {
    return this.#deaf.has(process);
  }

  /** What is stored of an execution. */
  stored(id: string): Promise<StoredExecution | null> {
    return this.database.inner.getExecution(id);
  }
}

function isOfMessages(kind: Trouble['kind']): boolean {
  return kind.startsWith('message') || kind === 'streamGap' || kind === 'broadcastLost' || kind === 'poisonedMessage';
}

function callerOf(key: string) {
  return {
    keyId: `key-of-${key}`,
    name: key,
    role: key as 'worker' | 'agent',
    project: null,
    capabilities: null,
    pool: 'site',
  };
}

function taskOf(payload: unknown): string {
  const { taskId, task, executionId } = payload as { taskId?: string; task?: { id: string }; executionId?: string };
  const id = taskId ?? task?.id ?? executionId;
  return id === undefined ? '' : tail(id);
}

/** Real randomness is the seed's while a world runs, and a promise that nobody caught is a fault. */
function quietWorld(streams: Streams, world: World): () => void {
  const { random } = Math;
  const { stackTraceLimit } = Error;
  // Errors that are answers are many; where somebody reads, they say whence they came.
  if (!world.trace.keeps) Error.stackTraceLimit = 0;
  const own = streams.of('Math.random');
  Math.random = () => own.next();
  const uncaught = (error: unknown): void => {
    world.ledger.fault(`nobody caught: ${error instanceof Error ? error.stack : String(error)}`);
  };
  process.on('unhandledRejection', uncaught);
  const unwatch = restored((fault) => world.ledger.fault(fault));
  return () => {
    Math.random = random;
    Error.stackTraceLimit = stackTraceLimit;
    process.off('unhandledRejection', uncaught);
    unwatch();
  };
}
