/**
 * The one store behind every engine, and each engine's way to it: calls and answers take time, and what can happen to
 * a call of a database happens to them.
 */
import { jsonCopy as copy } from '../../src/adapters/memory/entry.ts';
import type { MemoryStore } from '../../src/adapters/memory/store.ts';
import { FullstopError } from '../../src/errors.ts';
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
  async apply(engine: string, name: string, args: unknown[]): Promise<unknown> {
    const { ledger } = this;
    const cluster = name.startsWith('cluster.');
    const target = (cluster ? this.inner.cluster : this.inner) as unknown as Record<string, Call>;
    const method = target[cluster ? name.slice(8) : name] as Call;
    const answer = await method.apply(target, args);
    switch (name) {
      case 'createExecution':
        if ((answer as CreateOutcome).kind === 'created') ledger.created(args[0] as NewExecution);
        break;
      case 'commit':
        if ((answer as { kind: string }).kind === 'committed') {
          // After it the receipt is the store's: shared with nobody.
          ledger.committed(engine, args[0] as Commit);
        }
        break;
      case 'claimTask':
        if (answer === 'claimed') ledger.claimed(args[0] as string);
        break;
      case 'cluster.storeReport':
        if (answer === 'stored') ledger.reported(args[0] as string);
        break;
      case 'requestStop':
        ledger.stopRequested(engine, args[0] as string, answer as StopRequestOutcome);
        break;
      case 'putReceipt':
        if (answer === 'stored') ledger.onReceipt(args[0] as StopReceipt, false);
        break;
      case 'claimAll':
        ledger.claimedAll(args[0] as string);
        break;
      case 'cluster.takeOver':
      case 'cluster.takeBackOffers':
        for (const { header } of answer as RecoverableExecution[]) ledger.owned(header);
        break;
      case 'cluster.acceptOffer':
        if (answer !== null) ledger.owned((answer as RecoverableExecution).header);
        break;
      case 'appendAudit': {
        const { verb, target: of, data } = args[0] as AuditItem;
        ledger.audited(verb, of);
        void data;
        break;
      }
      case 'deleteExecution':
        if (answer === 'deleted') ledger.deleted(args[0] as string);
        break;
      default:
        break;
    }
    return answer;
  }
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
  const { database } = options;
  const methods = (of: object, prefix: string): Record<string, unknown> => {
    const link: Record<string, unknown> = {};
    for (const name of Object.getOwnPropertyNames(Object.getPrototypeOf(of))) {
      if (LOCAL.has(name)) continue;
      link[name] = (...args: unknown[]) => call(options, prefix + name, args);
    }
    return link;
  };
  const { inner } = database;
  const link = methods(inner, '');
  link['open'] = async () => undefined;
  link['close'] = async () => undefined;
  link['trouble'] = () => (database.fullUntilMs > database.scheduler.nowMs ? 'the disk is full' : null);
  link['cluster'] = inner.cluster === null ? null : methods(inner.cluster, 'cluster.');
  return link as unknown as ExecutionStore;
}

function call(options: LinkOptions, name: string, args: unknown[]): Promise<unknown> {
  const { database, process, count, hit, cut } = options;
  const { scheduler, trace } = database;
  if (!process.alive) return never();
  const isWrite = !READS.has(name);
  count.calls += 1;
  if (isWrite) count.writes += 1;
  let fault: Fault | undefined;
  const nth = (count.byName.get(name) ?? 0) + 1;
  count.byName.set(name, nth);
  const minor = name === 'commit' && isMinor(args[0] as Commit);
  if (minor) count.minor += 1;
  for (const one of options.faults) {
    if ('call' in one && one.call !== undefined) {
      if (one.call === name && one.nth === nth && Number.isFinite(count.calls)) fault = one;
    } else if (one.kind === 'slowWrite' && one.minor === true) {
      if (minor && one.nth === count.minor) fault = one;
    } else if (one.nth === (one.kind === 'engineKilled' ? count.calls : isWrite ? count.writes : -1)) fault = one;
  }
  // What the engine gave is what is written, whatever it does with it later.
  const given = args.map((arg) => copy(arg));
  if (options.nextVersion) addField(name, given);
  const engineId = options.engineId();
  trace.note(process.name, `> ${name} ${brief(name, given)}`);
  const random = database.streams.of(`store of ${process.name}`);
  const there = delay(random.next());
  const back = delay(random.next());
  const fate = random.next();
  if (fault !== undefined) {
    hit(fault.kind);
    trace.aside(process.name, `fault ${fault.kind} at ${name}`);
  }
  const kill = fault?.kind === 'engineKilled' ? fault : null;
  if (kill?.when === 'before') {
    options.kill(kill.downMs);
    return never();
  }
  return new Promise((resolve, reject) => {
    const answer = (settle: () => void, afterMs: number): void => {
      if (cut(false)) {
        hit('partitioned');
        process.later(TIMEOUT_MS, () => reject(unavailable('no answer came')));
        return;
      }
      process.later(afterMs, settle);
    };
    const refuse = (why: string, afterMs = back): void => {
      trace.note(process.name, `< ${name} refused`);
      answer(() => reject(unavailable(why)), afterMs);
    };
    const apply = (): Promise<{ value: unknown } | { error: unknown }> =>
      database.apply(engineId, name, given).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      );
    // Alone on its store, what a process had not written when it died it never writes.
    const gone = (): boolean => !process.alive && database.inner.cluster === null;
    const arrive = async (): Promise<void> => {
      if (gone()) return;
      const { nowMs } = scheduler;
      if (database.downUntilMs > nowMs) {
        hit('stepDown');
        refuse('there is no primary');
        return;
      }
      if (isWrite && database.fullUntilMs > nowMs) {
        hit('diskFull');
        refuse('the disk is full');
        return;
      }
      if (fault?.kind === 'replyLostUnapplied') {
        refuse('the connection broke', TIMEOUT_MS / 4);
        return;
      }
      if (isWrite && database.unacknowledgedUntilMs > nowMs) {
        hit('noMajority');
        if (fate < 0.5) await apply();
        refuse('not acknowledged by a majority', TIMEOUT_MS / 2);
        return;
      }
      if (fault?.kind === 'repeatedWrite') await apply();
      const outcome = await apply();
      if (kill?.when === 'applied') {
        options.kill(kill.downMs);
        return;
      }
      if (fault?.kind === 'replyLostApplied') {
        refuse('the connection broke', TIMEOUT_MS / 4);
        return;
      }
      answer(
        () => {
          if (kill?.when === 'answered') {
            options.kill(kill.downMs);
            return;
          }
          trace.note(process.name, `< ${name} ${'error' in outcome ? 'failed' : short(outcome.value)}`);
          if ('error' in outcome) reject(outcome.error);
          else resolve(outcome.value);
        },
        back + (fault?.kind === 'slowRead' ? fault.lateMs : 0),
      );
    };
    if (cut(true)) {
      hit('partitioned');
      process.later(TIMEOUT_MS, () => reject(unavailable('no answer came')));
      return;
    }
    if (fault?.kind === 'slowWrite') {
      if (fault.gaveUp) {
        // Whatever becomes of it later, its caller has been told that nobody knows.
        process.later(Math.min(fault.lateMs / 2, TIMEOUT_MS), () => reject(unavailable('no answer came in time')));
        database.late += 1;
        scheduler.at(scheduler.nowMs + fault.lateMs, () => {
          database.late -= 1;
          if (!gone()) void apply();
        });
        if (fault.died === true) options.kill(500);
        return;
      }
      scheduler.at(scheduler.nowMs + fault.lateMs, () => void arrive());
      return;
    }
    scheduler.at(scheduler.nowMs + there, () => void arrive());
  });
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
