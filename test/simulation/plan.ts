/**
 * What one seed is about, as data: its processes, its workflows, what its clients ask, and what goes wrong. A plan can
 * be cut down and kept; what it leaves open (delays, outcomes of work) is drawn from the seed by name.
 */
import type { Random } from '../../src/ports/ids.ts';
import type { Json } from '../../src/wire.ts';
import { pick } from '../support/workloads.ts';
import { POISONS } from './bus.ts';
import { Streams } from './scheduler.ts';
import {
  drawWorkflow,
  failingItems,
  forgottenItems,
  holds,
  LATE_MS,
  lateItems,
  leaf,
  quickItems,
  slowItems,
  timed,
} from './workflows.ts';

export interface Plan {
  seed: number;
  engines: EnginePlan[];
  workers: WorkerPlan[];
  workflows: Record<string, unknown>[];
  /** Of a workflow that starts by itself: whether instants wait for the last execution. */
  timed?: 'skip' | 'allow';
  load: Load[];
  faults: Fault[];
}

export interface EnginePlan {
  /** Of its in-process pool. */
  slots: number;
  types: string[];
  maxRunning: number;
}

export interface WorkerPlan {
  /** null: a platform worker. */
  pool: string | null;
  types: string[];
  slots: number;
}

/** What a client does. `start` names the start, by position in the load, whose execution it is about. */
export type Load = { atMs: number; client: number } & (
  | { kind: 'start'; workflow: string; n: number; key: string | null }
  | { kind: 'stop'; start: number; child?: true }
  | { kind: 'stopMany'; by: 'all' | 'workflow' | 'ids'; workflow: string; dryRun: boolean }
  | { kind: 'trigger'; start: number; name: string; payload: Json }
  | { kind: 'read'; start: number; what: 'get' | 'events' | 'receipt' | 'preview' | 'list' | 'results' }
  | { kind: 'subscribe'; start: number }
  | { kind: 'pause'; forMs: number }
  | { kind: 'save'; workflow: string }
  | { kind: 'disable'; workflow: string; forMs: number }
  | { kind: 'delete'; start: number }
  /** By a viewer of another project: sees nothing, changes nothing. */
  | { kind: 'stranger'; start: number; what: 'get' | 'stop' | 'trigger' | 'stopMany' | 'events' | 'receipt' | 'delete' }
);

/** `nth`: counted from the process's first call, over its restarts. `engine`, `worker`: by position. */
export type Fault =
  /** `call`: the nth of this name. */
  | { kind: 'replyLostApplied' | 'replyLostUnapplied' | 'repeatedWrite'; engine: number; nth: number; call?: string }
  /**
   * Applied `lateMs` after it was sent; `gaveUp`: its caller was told long before that it had failed; `died`: its caller
   * died when it had sent it; `minor`: the nth commit after which nothing has begun or ended.
   */
  | { kind: 'slowWrite'; engine: number; nth: number; lateMs: number; gaveUp: boolean; died?: true; minor?: true }
  /** The answer to the nth call of this name comes `lateMs` later. */
  | { kind: 'slowRead'; engine: number; call: string; nth: number; lateMs: number }
  | { kind: 'stepDown' | 'noMajority' | 'diskFull'; atMs: number; forMs: number }
  | { kind: 'streamGap'; engine: number; atMs: number; forMs: number }
  /** Engines hear nothing of each other. */
  | { kind: 'broadcastLost'; atMs: number; forMs: number }
  | { kind: 'messageDropped' | 'messageDoubled' | 'messageReordered' | 'messageLate'; atMs: number; forMs: number }
  | { kind: 'engineKilled'; engine: number; nth: number; when: 'before' | 'applied' | 'answered'; downMs: number }
  | { kind: 'enginePaused' | 'engineStalled'; engine: number; atMs: number; forMs: number }
  | { kind: 'clockSkewed'; engine: number; byMs: number }
  | { kind: 'clockJumped'; engine: number; atMs: number; byMs: number }
  | {
      kind: 'partitioned';
      engine: number;
      from: 'store' | 'engines' | 'workers' | 'clients';
      to: boolean;
      atMs: number;
      forMs: number;
    }
  | { kind: 'poisonedMessage'; engine: number; atMs: number; what: number }
  | { kind: 'nextVersion'; engine: number }
  | { kind: 'orphanLeft'; engine: number; atMs: number }
  | { kind: 'engineDrained'; engine: number; atMs: number; downMs: number }
  | { kind: 'workerKilled'; worker: number; atMs: number; downMs: number }
  | { kind: 'workerDeaf'; worker: number; atMs: number; forMs: number }
  | { kind: 'workerMoved'; worker: number; atMs: number }
  | { kind: 'resultLate' | 'resultDoubled'; worker: number; atMs: number; forMs: number }
  /** This worker reports the result of a task that another one has; `ending`: of one that has been told to end. */
  | { kind: 'resultForged'; worker: number; atMs: number; ending?: true };

export type FaultKind = Fault['kind'];

/** Every kind, as often as each is drawn. */
const WEIGHTS: Record<FaultKind, number> = {
  replyLostApplied: 4,
  replyLostUnapplied: 3,
  repeatedWrite: 2,
  slowWrite: 3,
  slowRead: 2,
  stepDown: 2,
  noMajority: 2,
  diskFull: 1,
  streamGap: 2,
  broadcastLost: 1,
  messageDropped: 3,
  messageDoubled: 2,
  messageReordered: 2,
  messageLate: 2,
  engineKilled: 6,
  enginePaused: 2,
  engineStalled: 2,
  clockSkewed: 1,
  clockJumped: 2,
  partitioned: 3,
  poisonedMessage: 1,
  nextVersion: 1,
  orphanLeft: 2,
  engineDrained: 1,
  workerKilled: 2,
  workerDeaf: 2,
  workerMoved: 2,
  resultLate: 2,
  resultDoubled: 2,
  resultForged: 1,
};

/** Writes that are few, and that others wait for. */
const FEW = [
  'cluster.markDelivered',
  'cluster.takeOver',
  'cluster.acceptOffer',
  'cluster.storeReport',
  'cluster.moveClaims',
  'claimTask',
  'requestStop',
  'putTrigger',
  'putReceipt',
  'createExecution',
];
/** Reads whose answers something is decided by. */
const DECISIVE = [
  'readOutputs',
  'readOutputs',
  'load',
  'listChildren',
  'getHeader',
  'recover',
  'cluster.waiting',
  'cluster.readTasks',
  'cluster.getTasks',
];

const NAMES = ['one', 'two'];

export const faultKinds = Object.keys(WEIGHTS) as FaultKind[];

/** Load and faults begin within this time; then everything heals. */
export const LOAD_MS = 6_000;
const HOUR_MS = 3_600_000;

export function oneOf<T>(random: Random, values: readonly T[]): T {
  return values[pick(random, values.length)] as T;
}

/** What every seed has, at least. */
export const LEAST = { executions: 3, stops: 1, faults: 3 };
export type Counts = typeof LEAST;

/** How many a plan asks for. What comes to be may be less (a start is refused, or shares its key) or more. */
export function countsOf({ load, faults }: Plan): Counts {
  return {
    executions: load.filter(({ kind }) => kind === 'start').length,
    stops: load.filter(({ kind }) => kind === 'stop').length,
    faults: faults.length,
  };
}

export interface PlanOptions {
  engines?: number;
}

export function drawPlan(seed: number, { engines: wanted }: PlanOptions = {}): Plan {
  const random = new Streams(seed).of('plan');
  const several = oneOf(random, [1, 2, 3, 3]);
  const engines = wanted ?? several;
  const types = [['http'], ['http', 'ai'], ['http', 'ai', 'container'], []];
  const plan: Plan = {
    seed,
    engines: Array.from({ length: engines }, () => ({
      slots: 1 + pick(random, 4),
      types: oneOf(random, types),
      maxRunning: oneOf(random, [2, 6, 10_000]),
    })),
    workers: [
      { pool: null, types: ['http', 'ai', 'container'], slots: 1 + pick(random, 3) },
      { pool: 'site', types: ['agent'], slots: 1 + pick(random, 2) },
    ],
    workflows: [leaf, ...NAMES.slice(0, 1 + pick(random, 2)).map((name) => drawWorkflow(random, name))],
    load: [],
    faults: [],
  };
  if (random.next() < 0.1) {
    plan.timed = oneOf(random, ['skip', 'allow', 'allow']);
    plan.workflows.push(timed(plan.timed));
  }
  if (random.next() < 0.3) plan.workers.push({ pool: null, types: oneOf(random, [['http'], ['container']]), slots: 2 });
  drawLoad(random, plan);
  drawSpecial(random, plan);
  const count = LEAST.faults + pick(random, 4);
  while (plan.faults.length < count) plan.faults.push(drawFault(random, plan));
  for (const fault of plan.faults) {
    // Work that nobody but a worker can do, and that is long enough for it to miss its lease.
    if (fault.kind === 'partitioned' && fault.from === 'workers' && fault.forMs > 8_000) {
      fault.atMs = Math.floor(fault.atMs / 3);
      for (const engine of plan.engines) engine.types = [];
    }
  }
  const { nodes: first } = plan.workflows[1] as { nodes: Record<string, unknown> };
  for (const fault of plan.faults) {
    if (fault.kind !== 'partitioned' || fault.from !== 'workers' || fault.forMs > 500) continue;
    // It takes the word to end, and no heartbeat: of the first start, whose tasks are at the first engine's worker.
    const stop = plan.load.find(({ kind }) => kind === 'stop');
    const startedAtMs = plan.load[0]?.atMs ?? 0;
    if (stop !== undefined) Object.assign(stop, { start: 0, atMs: startedAtMs + 500 });
    Object.assign(fault, { engine: 0, to: true, atMs: startedAtMs + 480, forMs: 300 });
    for (const engine of plan.engines) engine.types = [];
    for (const name of ['w0', 'w1', 'w2']) first[name] = { type: 'http', with: { url: 'http://host/' } };
  }
  for (const fault of plan.faults) {
    if (fault.kind !== 'resultForged' || fault.ending !== true) continue;
    // Some containers take a while to end, at a worker.
    for (const engine of plan.engines) engine.types = ['http'];
    first['box'] = { type: 'container', with: { image: 'scanner' }, continueOnError: true };
  }
  for (const fault of plan.faults) {
    if (fault.kind !== 'orphanLeft') continue;
    // Somebody has to leave one.
    for (const engine of plan.engines) engine.types = ['http', 'ai', 'container'];
    first['box'] = { type: 'container', with: { image: 'scanner' }, continueOnError: true };
  }
  return plan;
}

function drawLoad(random: Random, plan: Plan): void {
  const { load } = plan;
  const names = plan.workflows.map((workflow) => String(workflow['name'])).filter((name) => NAMES.includes(name));
  const within = (ms: number): number => Math.floor(random.next() * ms);
  const starts = LEAST.executions + pick(random, 2);
  for (let index = 0; index < starts; index += 1) {
    // Two starts may share a key: only one of them comes to be.
    const key = random.next() < 0.25 ? `key-${pick(random, 2)}` : null;
    const workflow = index === 0 ? (names[0] as string) : oneOf(random, [...names, ...names, 'leaf']);
    load.push({ atMs: within(2_000), client: pick(random, 2), kind: 'start', workflow, n: pick(random, 5), key });
  }
  const start = (): number => pick(random, starts);
  const after = (index: number, ms: number): number => (load[index]?.atMs ?? 0) + within(ms);
  const client = (): number => pick(random, 2);
  const stopped = start();
  load.push({ atMs: after(stopped, oneOf(random, [50, 500, 4_000])), client: client(), kind: 'stop', start: stopped });
  if (random.next() < 0.3) {
    const other = start();
    const item: Load = { atMs: after(other, 3_000), client: client(), kind: 'stop', start: other };
    if (random.next() < 0.5) load.push({ ...item, child: true });
    else load.push(item);
  }
  if (random.next() < 0.25) {
    load.push({
      atMs: 500 + within(4_000),
      client: client(),
      kind: 'stopMany',
      by: oneOf(random, ['all', 'workflow', 'ids']),
      workflow: oneOf(random, names),
      dryRun: random.next() < 0.3,
    });
  }
  for (let count = pick(random, 3); count > 0; count -= 1) {
    const of = start();
    const name = oneOf(random, ['go', 'other']);
    load.push({ atMs: after(of, 3_000), client: client(), kind: 'trigger', start: of, name, payload: pick(random, 2) });
  }
  const followed = start();
  load.push({ atMs: after(followed, 300), client: client(), kind: 'subscribe', start: followed });
  const what = oneOf(random, ['get', 'events', 'receipt', 'preview', 'list', 'results'] as const);
  load.push({ atMs: after(stopped, 5_000), client: client(), kind: 'read', start: stopped, what });
  if (random.next() < 0.08) load.push({ atMs: within(3_000), client: 0, kind: 'pause', forMs: 1_000 });
  if (random.next() < 0.08) load.push({ atMs: within(3_000), client: 0, kind: 'save', workflow: oneOf(random, names) });
  if (random.next() < 0.05)
    load.push({
      atMs: within(3_000),
      client: 0,
      kind: 'disable',
      workflow: oneOf(random, [...names, 'leaf']),
      forMs: 1_000,
    });
  if (random.next() < 0.1) load.push({ atMs: 4_000 + within(4_000), client: 0, kind: 'delete', start: start() });
  if (random.next() < 0.2) {
    const about = start();
    const act = oneOf(random, ['get', 'stop', 'trigger', 'stopMany', 'events', 'receipt', 'delete'] as const);
    load.push({ atMs: after(about, 4_000), client: 0, kind: 'stranger', start: about, what: act });
  }
}

/** Nodes whose guards matter in few situations, and what leads there. */
function drawSpecial(random: Random, plan: Plan): void {
  const draw = random.next();
  const { nodes } = plan.workflows[1] as { nodes: Record<string, unknown> };
  const engine = pick(random, plan.engines.length);
  const first = plan.load.findIndex(({ kind }) => kind === 'start');
  if (draw < 0.08) {
    Object.assign(nodes, holds);
    for (const afterMs of [300, 1_200 + pick(random, 1_500)]) {
      const atMs = (plan.load[first]?.atMs ?? 0) + afterMs;
      plan.load.push({ atMs, client: 1, kind: 'trigger', start: first, name: 'go', payload: 1 });
    }
    if (random.next() < 0.5)
      plan.faults.push({ kind: 'replyLostUnapplied', engine, nth: 1, call: 'cluster.markDelivered' });
  } else if (draw < 0.13) {
    const late = random.next() < 0.5;
    nodes['many'] = { ...(late ? lateItems : quickItems) };
    const lateMs = late ? LATE_MS : 1_500;
    if (random.next() < 0.7) plan.faults.push({ kind: 'slowRead', engine, call: 'readOutputs', nth: 1, lateMs });
  } else if (draw < 0.16) nodes['many'] = { ...slowItems };
  else if (draw < 0.2) {
    nodes['many'] = { ...failingItems };
    plan.faults.push({ kind: 'engineKilled', engine, nth: 40 + pick(random, 60), when: 'answered', downMs: 500 });
  } else if (draw < 0.23) {
    nodes['many'] = { ...forgottenItems };
    plan.faults.push({ kind: 'engineKilled', engine, nth: 25 + pick(random, 50), when: 'answered', downMs: 3_000 });
  }
}

function drawKind(random: Random): FaultKind {
  let left = random.next() * Object.values(WEIGHTS).reduce((sum, weight) => sum + weight, 0);
  for (const kind of faultKinds) {
    left -= WEIGHTS[kind];
    if (left < 0) return kind;
  }
  return 'engineKilled';
}

function drawFault(random: Random, plan: Plan): Fault {
  const kind = drawKind(random);
  const engine = pick(random, plan.engines.length);
  const worker = pick(random, plan.workers.length);
  const atMs = Math.floor(random.next() * LOAD_MS);
  // Early writes matter most: later ones are fewer.
  const nth = 1 + Math.floor(random.next() ** 1.5 * 70);
  const shortly = (): number => Math.floor(100 + random.next() * 2_500);
  switch (kind) {
    case 'replyLostApplied':
    case 'replyLostUnapplied':
    case 'repeatedWrite':
      if (random.next() < 0.3) return { kind, engine, nth: 1 + pick(random, 3), call: oneOf(random, FEW) };
      return { kind, engine, nth };
    case 'slowWrite':
      if (random.next() < 0.1) return { kind, engine, nth, lateMs: 12_000, gaveUp: true, died: true };
      if (random.next() < 0.3)
        return { kind, engine, nth: 1 + pick(random, 2), lateMs: 12_000, gaveUp: true, died: true, minor: true };
      return { kind, engine, nth, lateMs: oneOf(random, [30, 300, 3_000]), gaveUp: random.next() < 0.7 };
    case 'slowRead':
      return {
        kind,
        engine,
        call: oneOf(random, DECISIVE),
        nth: 1 + pick(random, 5),
        lateMs: oneOf(random, [300, 1_500, 4_000]),
      };
    case 'stepDown':
    case 'noMajority':
    case 'diskFull':
      return { kind, atMs, forMs: shortly() };
    case 'streamGap':
      return { kind, engine, atMs, forMs: shortly() };
    case 'broadcastLost':
      return { kind, atMs: 0, forMs: LOAD_MS + 1_500 };
    case 'messageDropped':
    case 'messageDoubled':
    case 'messageReordered':
    case 'messageLate':
      return { kind, atMs, forMs: shortly() };
    case 'engineKilled': {
      const when = oneOf(random, ['before', 'applied', 'answered'] as const);
      return { kind, engine, nth: 6 + Math.floor(nth * 1.2), when, downMs: oneOf(random, [10, 500, 3_000, 10_000]) };
    }
    case 'enginePaused':
      return { kind, engine, atMs, forMs: 9_000 + Math.floor(random.next() * 5_000) };
    case 'engineStalled':
      return { kind, engine, atMs, forMs: 5_000 };
    case 'clockSkewed':
      return { kind, engine, byMs: oneOf(random, [HOUR_MS, -HOUR_MS]) };
    case 'clockJumped':
      return { kind, engine, atMs, byMs: oneOf(random, [HOUR_MS, -HOUR_MS, 1_500, -1_500]) };
    case 'partitioned':
      return {
        kind,
        engine,
        from: oneOf(random, ['store', 'engines', 'workers', 'workers', 'clients'] as const),
        to: random.next() < 0.5,
        atMs,
        forMs: oneOf(random, [500, 4_000, 13_000, 15_000]),
      };
    case 'poisonedMessage':
      return { kind, engine, atMs, what: pick(random, POISONS) };
    case 'nextVersion':
      return { kind, engine };
    case 'orphanLeft':
      return { kind, engine, atMs: Math.floor(atMs / 6) };
    case 'engineDrained':
      return { kind, engine, atMs, downMs: oneOf(random, [10, 1_000]) };
    case 'workerKilled':
      return { kind, worker, atMs, downMs: oneOf(random, [10, 1_000]) };
    case 'workerDeaf':
      return { kind, worker, atMs: Math.floor(atMs / 2), forMs: oneOf(random, [2_000, 8_000]) };
    case 'workerMoved':
      return { kind, worker, atMs };
    case 'resultLate':
    case 'resultDoubled':
      return { kind, worker, atMs, forMs: shortly() };
    case 'resultForged':
      return random.next() < 0.5 ? { kind, worker, atMs, ending: true } : { kind, worker, atMs };
  }
}
