/**
 * The one store behind every engine, and each engine's way to it: calls and answers take time, and what can happen to
 * a call of a database happens to them.
 */
import { jsonCopy as copy } from '../../src/adapters/memory/entry.ts';
import type { MemoryStore } from '../../src/adapters/memory/store.ts';
import { FullstopError } from '../../src/errors.ts';
import type { Random } from '../../src/ports/ids.ts';
import type {
  Commit,
  CreateOutcome,
  ExecutionStore,
  NewExecution,
  RecoverableExecution,
  StopRequestOutcome,
} from '../../src/ports/store.ts';
import type { AuditItem, StopReceipt } from '../../src/wire.ts';
import type { Ledger } from './ledger.ts';
import type { Fault, FaultKind } from './plan.ts';
import { type Process, type Scheduler, Streams } from './scheduler.ts';
import type { Trace } from './trace.ts';

const READS = new Set([
  'getDefinition',
  'listVersions',
  'listDefinitions',
  'findStart',
  'getReceipt',
  'recover',
  'load',
  'listIntents',
  'listChildren',
  'readOutputs',
  'getHeader',
  'getExecution',
  'listExecutions',
  'countExecutions',
  'readEvents',
  'readResult',
  'readResults',
  'listAudit',
  'listKeys',
  'findKey',
  'getSetting',
  'listTasks',
  'cluster.listOrphans',
  'cluster.waiting',
  'cluster.listQueued',
  'cluster.readTasks',
  'cluster.getTasks',
]);
/** Answered in the caller's process. */
const LOCAL = new Set(['constructor', 'trouble', 'failNext', 'setTrouble', 'open', 'close', 'cluster']);
/** Until a driver gives an unanswered call up. */
const TIMEOUT_MS = 2_000;

export { copy };

type Call = (...args: unknown[]) => Promise<unknown>;

export interface DatabaseOptions {
  inner: MemoryStore;
  scheduler: Scheduler;
  ledger: Ledger;
  trace: Trace;
  seed: number;
}

export class Database {
  readonly inner: MemoryStore;
  readonly scheduler: Scheduler;
  readonly ledger: Ledger;
  readonly trace: Trace;
  readonly streams: Streams;
  /** Nothing is taken until then: no primary. */
  downUntilMs = 0;
  /** Writes are applied or not, and not acknowledged. */
  unacknowledgedUntilMs = 0;
  /** Writes that are applied some time after their callers gave them up. */
  late = 0;
  /** Writes are refused. */
  fullUntilMs = 0;

  constructor({ inner, scheduler, ledger, trace, seed }: DatabaseOptions) {
    this.inner = inner;
    this.scheduler = scheduler;
    this.ledger = ledger;
    this.trace = trace;
    this.streams = new Streams(seed);
  }

  /** Does the call, and enters what it changed into the ledger. */
  apply(engine: string, name: string, args: unknown[]): Promise<unknown> {
    const cluster = name.startsWith('cluster.');
    const target = (cluster ? this.inner.cluster : this.inner) as unknown as Record<string, Call>;
    const method = target[cluster ? name.slice(8) : name] as Call;
    const answers = method.apply(target, args);
    const enter = ENTRIES[name];
    if (enter === undefined) return answers;
    return answers.then((answer) => {
      enter(this.ledger, engine, args, answer);
      return answer;
    });
  }
}

/** What a call that was applied enters into the ledger. */
const ENTRIES: Record<string, (ledger: Ledger, engine: string, args: unknown[], answer: unknown) => void> = {
  createExecution: (ledger, _engine, [execution], answer) => {
    if ((answer as CreateOutcome).kind === 'created') ledger.created(execution as NewExecution);
  },
  commit: (ledger, engine, [commit], answer) => {
    // After it the receipt is the store's: shared with nobody.
    if ((answer as { kind: string }).kind === 'committed') ledger.committed(engine, commit as Commit);
  },
  claimTask: (ledger, _engine, [id], answer) => {
    if (answer === 'claimed') ledger.claimed(id as string);
  },
  'cluster.storeReport': (ledger, _engine, [id], answer) => {
    if (answer === 'stored') ledger.reported(id as string);
  },
  requestStop: (ledger, engine, [id], answer) => {
    ledger.stopRequested(engine, id as string, answer as StopRequestOutcome);
  },
  putReceipt: (ledger, _engine, [receipt], answer) => {
    if (answer === 'stored') ledger.onReceipt(receipt as StopReceipt, false);
  },
  claimAll: (ledger, _engine, [engineId]) => ledger.claimedAll(engineId as string),
  'cluster.takeOver': enterOwned,
  'cluster.takeBackOffers': enterOwned,
  'cluster.acceptOffer': (ledger, engine, args, answer) => {
    if (answer !== null) enterOwned(ledger, engine, args, [answer]);
  },
  appendAudit: (ledger, _engine, [item]) => {
    const { verb, target } = item as AuditItem;
    ledger.audited(verb, target);
  },
  deleteExecution: (ledger, _engine, [id], answer) => {
    if (answer === 'deleted') ledger.deleted(id as string);
  },
};

function enterOwned(ledger: Ledger, _engine: string, _args: unknown[], answer: unknown): void {
  for (const { header } of answer as RecoverableExecution[]) ledger.owned(header);
}

export interface LinkOptions {
  database: Database;
  process: Process;
  /** Of the engine whose link it is: position, and its faults by the number of the call. */
  faults: (Fault & { nth: number })[];
  /** Calls so far, over the process's restarts. */
  count: { calls: number; writes: number; minor: number; byName: Map<string, number> };
  engineId: () => string;
  hit: (kind: FaultKind) => void;
  /** Messages to (true) or from the store are lost now. */
  cut: (to: boolean) => boolean;
  kill: (downMs: number) => void;
  /** It writes one field more than the others know. */
  nextVersion: boolean;
}

/** One engine's connection to the database. */
export function openLink(options: LinkOptions): ExecutionStore {
  const { database, process } = options;
  const { inner } = database;
  const random = database.streams.of(`store of ${process.name}`);
  const methods = (of: object, prefix: string): Record<string, unknown> => {
    const link: Record<string, unknown> = {};
    for (const method of methodsOf(of)) {
      const name = prefix + method;
      const isWrite = !READS.has(name);
      link[method] = (...args: unknown[]) => {
        if (!process.alive) return never();
        return new LinkCall(options, random, name, isWrite, args).answer();
      };
    }
    return link;
  };
  const link = methods(inner, '');
  link['open'] = async () => undefined;
  link['close'] = async () => undefined;
  link['trouble'] = () => (database.fullUntilMs > database.scheduler.nowMs ? 'the disk is full' : null);
  link['cluster'] = inner.cluster === null ? null : methods(inner.cluster, 'cluster.');
  return link as unknown as ExecutionStore;
}

const methodNames = new Map<object, string[]>();

function methodsOf(of: object): string[] {
  const prototype = Object.getPrototypeOf(of) as object;
  let names = methodNames.get(prototype);
  if (names === undefined) {
    names = Object.getOwnPropertyNames(prototype).filter((name) => !LOCAL.has(name));
    methodNames.set(prototype, names);
  }
  return names;
}

/** One call, on its way there and back. */
class LinkCall {
  readonly #link: LinkOptions;
  readonly #name: string;
  readonly #isWrite: boolean;
  /** What the engine gave is what is written, whatever it does with it later. */
  readonly #given: unknown[];
  readonly #engineId: string;
  readonly #fault: Fault | undefined;
  readonly #kill: Extract<Fault, { kind: 'engineKilled' }> | null;
  readonly #thereMs: number;
  readonly #backMs: number;
  readonly #fate: number;
  #resolve: (value: unknown) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(link: LinkOptions, random: Random, name: string, isWrite: boolean, args: unknown[]) {
    this.#link = link;
    this.#name = name;
    this.#isWrite = isWrite;
    this.#fault = this.#count(args);
    this.#given = args.map((arg) => copy(arg));
    if (link.nextVersion) addField(name, this.#given);
    this.#engineId = link.engineId();
    const { trace } = link.database;
    trace.note(link.process.name, `> ${name} ${brief(name, this.#given)}`);
    this.#thereMs = delay(random.next());
    this.#backMs = delay(random.next());
    this.#fate = random.next();
    if (this.#fault !== undefined) {
      link.hit(this.#fault.kind);
      trace.aside(link.process.name, `fault ${this.#fault.kind} at ${name}`);
    }
    this.#kill = this.#fault?.kind === 'engineKilled' ? this.#fault : null;
  }

  /** The fault that is about this one. */
  #count(args: unknown[]): Fault | undefined {
    const { count, faults } = this.#link;
    const name = this.#name;
    count.calls += 1;
    if (this.#isWrite) count.writes += 1;
    const nth = (count.byName.get(name) ?? 0) + 1;
    count.byName.set(name, nth);
    const minor = name === 'commit' && isMinor(args[0] as Commit);
    if (minor) count.minor += 1;
    let fault: Fault | undefined;
    for (const one of faults) {
      if ('call' in one && one.call !== undefined) {
        if (one.call === name && one.nth === nth && Number.isFinite(count.calls)) fault = one;
      } else if (one.kind === 'slowWrite' && one.minor === true) {
        if (minor && one.nth === count.minor) fault = one;
      } else if (one.nth === (one.kind === 'engineKilled' ? count.calls : this.#isWrite ? count.writes : -1))
        fault = one;
    }
    return fault;
  }

  answer(): Promise<unknown> {
    const kill = this.#kill;
    if (kill?.when === 'before') {
      this.#link.kill(kill.downMs);
      return never();
    }
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      this.#send();
    });
  }

  #send(): void {
    const { database, process, hit, cut, kill } = this.#link;
    const { scheduler } = database;
    const fault = this.#fault;
    if (cut(true)) {
      hit('partitioned');
      process.later(TIMEOUT_MS, () => this.#reject(unavailable('no answer came')));
      return;
    }
    if (fault?.kind !== 'slowWrite') {
      scheduler.at(scheduler.nowMs + this.#thereMs, () => this.#arrive());
      return;
    }
    if (!fault.gaveUp) {
      scheduler.at(scheduler.nowMs + fault.lateMs, () => this.#arrive());
      return;
    }
    // Whatever becomes of it later, its caller has been told that nobody knows.
    process.later(Math.min(fault.lateMs / 2, TIMEOUT_MS), () => this.#reject(unavailable('no answer came in time')));
    database.late += 1;
    scheduler.at(scheduler.nowMs + fault.lateMs, () => {
      database.late -= 1;
      if (!this.#gone()) void this.#apply().catch(() => undefined);
    });
    if (fault.died === true) kill(500);
  }

  /** Alone on its store, what a process had not written when it died it never writes. */
  #gone(): boolean {
    const { database, process } = this.#link;
    return !process.alive && database.inner.cluster === null;
  }

  #apply(): Promise<unknown> {
    return this.#link.database.apply(this.#engineId, this.#name, this.#given);
  }

  #arrive(): void {
    if (this.#gone()) return;
    const { database, hit } = this.#link;
    const { nowMs } = database.scheduler;
    const fault = this.#fault;
    if (database.downUntilMs > nowMs) {
      hit('stepDown');
      this.#refuse('there is no primary', this.#backMs);
      return;
    }
    if (this.#isWrite && database.fullUntilMs > nowMs) {
      hit('diskFull');
      this.#refuse('the disk is full', this.#backMs);
      return;
    }
    if (fault?.kind === 'replyLostUnapplied') {
      this.#refuse('the connection broke', TIMEOUT_MS / 4);
      return;
    }
    if (this.#isWrite && database.unacknowledgedUntilMs > nowMs) {
      hit('noMajority');
      const refuse = (): void => this.#refuse('not acknowledged by a majority', TIMEOUT_MS / 2);
      if (this.#fate < 0.5) this.#apply().then(refuse, refuse);
      else refuse();
      return;
    }
    const applied = (value: unknown): void => this.#applied(value, null);
    const failed = (error: unknown): void => this.#applied(null, { error });
    const apply = (): void => void this.#apply().then(applied, failed);
    if (fault?.kind === 'repeatedWrite') this.#apply().then(apply, apply);
    else apply();
  }

  #applied(value: unknown, failure: { error: unknown } | null): void {
    const { database, process, kill: die } = this.#link;
    const kill = this.#kill;
    const fault = this.#fault;
    if (kill?.when === 'applied') {
      die(kill.downMs);
      return;
    }
    if (fault?.kind === 'replyLostApplied') {
      this.#refuse('the connection broke', TIMEOUT_MS / 4);
      return;
    }
    this.#comeBack(
      () => {
        if (kill?.when === 'answered') {
          die(kill.downMs);
          return;
        }
        database.trace.note(process.name, `< ${this.#name} ${failure === null ? short(value) : 'failed'}`);
        if (failure === null) this.#resolve(value);
        else this.#reject(failure.error);
      },
      this.#backMs + (fault?.kind === 'slowRead' ? fault.lateMs : 0),
    );
  }

  #refuse(why: string, afterMs: number): void {
    const { database, process } = this.#link;
    database.trace.note(process.name, `< ${this.#name} refused`);
    this.#comeBack(() => this.#reject(unavailable(why)), afterMs);
  }

  #comeBack(settle: () => void, afterMs: number): void {
    const { process, hit, cut } = this.#link;
    if (cut(false)) {
      hit('partitioned');
      process.later(TIMEOUT_MS, () => this.#reject(unavailable('no answer came')));
      return;
    }
    process.later(afterMs, settle);
  }
}

function isMinor({ events, final }: Commit): boolean {
  return !final && events.every(({ type }) => type === 'log');
}

/** Of one way: mostly short, now and then long. */
function delay(draw: number): number {
  return 0.05 + (draw < 0.95 ? draw * 1.5 : (draw - 0.95) * 600);
}

function unavailable(why: string): FullstopError {
  return new FullstopError('FS_UNAVAILABLE', why);
}

function never(): Promise<never> {
  return new Promise(() => undefined);
}

function brief(name: string, args: unknown[]): string {
  const [first] = args;
  if (name === 'commit') {
    const { executionId, v, epoch, events, nodes, final, requestId } = first as Commit;
    const told = events.map(({ type, node, attempt }) => `${type} ${node ?? ''} ${attempt ?? ''}`).join(', ');
    const more = nodes.some(({ machine }) => machine !== null && Object(machine).next === 1) ? ' next' : '';
    return `${tail(executionId)} v${v} e${epoch}${more}${final ? ' final' : ''}${requestId === null ? '' : ' stop'}: ${told}`;
  }
  if (typeof first === 'string') return tail(first);
  if (name === 'createExecution') return tail((first as NewExecution).header.id);
  return '';
}

/** Enough of an id to tell it from the others. */
export function tail(id: string): string {
  return id.length > 36 ? `${id.slice(28, 36)}${id.slice(36)}` : id.slice(-8);
}

function short(answer: unknown): string {
  if (answer === null || typeof answer !== 'object') return String(answer);
  const { kind, why } = answer as { kind?: string; why?: string };
  return kind === undefined ? (Array.isArray(answer) ? `${answer.length} rows` : 'a row') : `${kind} ${why ?? ''}`;
}

/** One field more in whatever keeps an engine's own data: what an engine of the next version would write. */
function addField(name: string, args: unknown[]): void {
  if (name !== 'commit') return;
  const commit = args[0] as Commit;
  const more = (of: unknown): void => {
    if (typeof of === 'object' && of !== null && !Array.isArray(of)) (of as Record<string, unknown>)['next'] = 1;
  };
  more(commit.header.machine);
  for (const row of commit.nodes) {
    more(row.machine);
    more(row.data);
  }
}
