import { type Actor, type AnyActorRef, createActor } from 'xstate';
import { engineMachine } from '../../machines/engine.machine.ts';
import type { Verdict } from '../../machines/events.ts';
import { hashDefinition } from '../definition/hash.ts';
import { checkInput } from '../definition/inputs.ts';
import { nextInstantMs, parseHoldSchedule } from '../definition/schedule.ts';
import type { CompiledWorkflow } from '../definition/types.ts';
import { FullstopError, hasCode, messageOf } from '../errors.ts';
import type { EngineHint } from '../ports/bus.ts';
import type { EngineBeat } from '../ports/cluster.ts';
import type {
  Commit,
  CreateOutcome,
  HeaderRow,
  NewExecution,
  ReceiptRow,
  RecoverableExecution,
  StopRequestOutcome,
  TriggerRow,
} from '../ports/store.ts';
import type { WorkReport } from '../ports/work.ts';
import type { EngineItem, ExecutionStatus, Json, StopPreview, StopReceipt, WorkerItem } from '../wire.ts';
import { Admission, type Places } from './admission.ts';
import type { EngineApi, EngineMetrics, StartRequest } from './api.ts';
import type { ChildEnd } from './children.ts';
import { ClusterDuties } from './cluster-duties.ts';
import { Dispatcher, LOCAL } from './dispatcher.ts';
import type { ChildOutcome, EnginePorts, HostEnvironment } from './environment.ts';
import { ExecutionHost } from './execution-host.ts';
import { iterationIndexes, loopPlaces } from './identity.ts';
import { type InspectionObserver, Inspections } from './inspection.ts';
import { registryLogic } from './registry.ts';
import type { ClusterTasks, Peers } from './remote-tasks.ts';
import { Schedules } from './schedules.ts';
import type { Slot } from './slot.ts';
import { confirm, mergeReceipt, noteDiscarded, receiptOf, StopReport } from './stop-report.ts';
import { type Timer, Timers } from './timers.ts';
import { eventOf, itemOf, previewOf } from './views.ts';
import { graphAt, type KnownWorkflow, Workflows } from './workflows.ts';

export interface EngineOptions {
  /** Executions running at once; more wait as Pending. */
  maxRunning: number;
  /** Ended executions are deleted after this many ms; 0 keeps all. */
  retentionMs: number;
  /** From the halt to the final record, whoever has not confirmed. */
  stopGraceMs: number;
  /** Between two looks for stop intents whose broadcast was lost. */
  sweepMs: number;
  /** A worker or agent that is silent for this long has lost its tasks. */
  workerLeaseMs: number;
  agentLeaseMs: number;
  /** Events a running execution keeps. */
  eventsKept: number;
  version: string;
  /** Where several engines share a store: this one's silence after which the others take over. */
  leaseMs: number;
  /** Where clients reach this engine, for the others; null: unknown yet. */
  url: () => string | null;
  /**
   * Called once, where several engines share a store. `fenced`: it owns nothing any more and does nothing any more, a
   * new engine may be started in its place. `drain`: somebody asked that it hands over and ends.
   */
  onGone: (why: 'fenced' | 'drain') => void;
}

export const engineDefaults: EngineOptions = {
  maxRunning: 10_000,
  retentionMs: 30 * 86_400_000,
  stopGraceMs: 5_000,
  sweepMs: 1_000,
  workerLeaseMs: 8_000,
  agentLeaseMs: 30_000,
  eventsKept: 100_000,
  version: '0',
  leaseMs: 8_000,
  url: () => null,
  onGone: () => undefined,
};

const RECOVERY_PAGE = 500;
const RETENTION_SWEEP_MS = 60_000;
const RETENTION_BATCH = 100;
/** Executions that changed within one turn before their commits go to the store. */
const FLUSH_AT = 64;
/** Steps of instant work in one turn, of all executions: then sockets, timers and stops have theirs. */
const STEPS_PER_TURN = 256;
/** An execution that wakes sooner stays in memory. */
const PARK_MS = 10_000;
const DEPTH_MAX = 16;
/** Until the receipt of another engine's stop is looked at again, where that is not final. */
const LATE_AGAIN_MS = 3_000;
/** How late a write may arrive whose answer did not come. */
const LATE_WRITE_MS = 60_000;
const RESTARTS_MAX = 3;
const RESTART_WINDOW_MS = 60_000;
const EMPTY: Record<string, never> = {};
/** Where no other engine shares the store. */
const alone: Peers = { hasOthers: () => false, isAlive: () => false, workerName: () => null, offers: () => false };
const parentEnded: Verdict = { error: 'ended with its parent', errorCode: 'FS_PARENT_ENDED' };

/** An engine on the given ports. Everything it does to the world goes through them. */
export function createEngine(ports: EnginePorts, options: Partial<EngineOptions> = {}): EngineApi {
  return new Engine(ports, { ...engineDefaults, ...options });
}

/** What stays in memory of an execution whose record says everything. */
interface Parked {
  timer: Timer | null;
  waking: Promise<void> | null;
  /** A stop that waits for its waking, and how it came. */
  stopPath: 'local' | 'bus' | 'poll';
  verdict: Verdict | null;
  /** It has one of its workflow's `concurrency`. */
  hasPlace: boolean;
  parent: HeaderRow['parent'];
}

class Engine implements EngineApi, HostEnvironment {
  readonly id: string;
  readonly store;
  readonly bus;
  readonly clock;
  readonly ids;
  readonly expressions;
  readonly work;
  readonly log;
  readonly tokens;
  readonly dispatcher: Dispatcher;
  /** What the membership knows of the other engines. */
  readonly peers: Peers;
  readonly timers: Timers;
  readonly stopGraceMs: number;
  readonly #options: EngineOptions;
  readonly #actor: Actor<typeof engineMachine>;
  readonly registryActor: AnyActorRef;
  readonly #hosts = new Map<string, ExecutionHost>();
  /** Stopped executions whose record is final while a task has not confirmed. */
  readonly #pursued = new Map<string, ExecutionHost>();
  /** Executions that wait for an instant or a trigger and have left memory. */
  readonly #parked = new Map<string, Parked>();
  /** Those that may leave at the next sweep. */
  #parkable = new Set<ExecutionHost>();
  readonly #childrenOf = new Map<string, Set<string>>();
  readonly #workflows: Workflows;
  readonly #admission: Admission;
  readonly #schedules: Schedules;
  readonly #inspections: Inspections;
  /** Where several engines share the store. */
  readonly #duties: ClusterDuties | null;
  readonly #goneTold = new Set<'fenced' | 'drain'>();
  /** One set of executions at a time. */
  #takingIn: Promise<void> = Promise.resolve();
  /** Reports whose receipt is on its way to the store. */
  readonly #savingReceipts = new Set<StopReport>();
  /** One change of a stored receipt at a time. */
  #receiptTurn: Promise<void> = Promise.resolve();
  /** Starts that the store has not answered, by workflow. */
  readonly #starting = new Map<string, number>();
  #flushQueue: ExecutionHost[] = [];
  #flushDeferred = false;
  #stepsLeft = STEPS_PER_TURN;
  #startedAtMs = 0;
  #epoch = 0;
  #closed = false;
  #givenUp: string | null = null;
  readonly #trimmedAt = new Map<string, number>();
  readonly counters: EngineMetrics = {
    executionsStarted: 0,
    executionsEnded: { Complete: 0, Failed: 0, stopped: 0 },
    nodesEnded: 0,
    commits: 0,
    commitRetries: 0,
    lateResultsDiscarded: 0,
    live: { running: 0, pending: 0, parked: 0 },
    onNodeStopped: null,
  };

  constructor(ports: EnginePorts, options: EngineOptions) {
    this.store = ports.store;
    this.bus = ports.bus;
    this.clock = ports.clock;
    this.ids = ports.ids;
    this.expressions = ports.expressions;
    this.work = ports.work;
    this.log = ports.log;
    this.tokens = ports.tokens;
    this.#options = options;
    this.stopGraceMs = options.stopGraceMs;
    this.id = ports.ids.next();
    this.timers = new Timers(ports.clock);
    this.#duties = this.#openDuties();
    this.peers = this.#duties?.peers ?? alone;
    this.dispatcher = new Dispatcher({
      queue: ports.store,
      clock: ports.clock,
      timers: this.timers,
      tokens: ports.tokens,
      log: ports.log,
      workerLeaseMs: options.workerLeaseMs,
      agentLeaseMs: options.agentLeaseMs,
      local: { id: `${LOCAL}${this.id}`, work: ports.work },
      cluster: this.#clusterTasks(),
      late: (taskId, report, project, counts, again) => this.#late(taskId, report, project, counts, again === true),
    });
    this.#workflows = new Workflows(ports.store);
    this.#admission = new Admission(options.maxRunning, () => this.#admits(), this.#places());
    this.#schedules = new Schedules({
      store: ports.store,
      clock: ports.clock,
      timers: this.timers,
      log: ports.log,
      start: (project, name, input, uniqueKey) => this.#startScheduled(project, name, input, uniqueKey),
      find: (project, name) => this.#workflows.find(project, name),
    });
    this.#actor = createActor(engineMachine, {
      id: 'engine',
      input: { restartsMax: RESTARTS_MAX, windowMs: RESTART_WINDOW_MS, paused: false },
    });
    this.#actor.subscribe({ error: (error) => this.log.error({ error: messageOf(error) }, 'the supervisor broke') });
    this.registryActor = createActor(registryLogic, { id: 'executions', parent: this.#actor } as never) as never;
    this.#inspections = new Inspections(
      {
        clock: this.clock,
        log: this.log,
        engineId: this.id,
        engine: this.#actor,
        hostOf: (id) => this.hostOf(id),
        read: (id) => this.store.load(id),
      },
      this.#actor.system as never,
    );
  }

  /** For the dispatcher, where several engines share the store. */
  #clusterTasks(): ClusterTasks | null {
    const { cluster } = this.store;
    if (cluster === null) return null;
    return {
      engine: this.id,
      cluster,
      peers: this.peers,
      tell: (hint) => this.bus.tell(hint),
      owns: (executionId) => this.#hosts.has(executionId),
      lapsed: () => this.lapsed(),
      header: (executionId) => this.store.getHeader(executionId),
    };
  }

  // ------------------------------------------------------------------ life

  async start(): Promise<void> {
    this.#startedAtMs = this.clock.nowMs();
    this.#actor.start();
    this.registryActor.start();
    const admission = (await this.store.getSetting('admission')) as { paused?: boolean } | null;
    if (admission?.paused === true) this.#actor.send({ type: 'engine.pause' });
    this.bus.onStop((message) => this.#heardStop(message.executionId));
    if (this.#duties === null) {
      await this.store.claimAll(this.id);
      await this.dispatcher.recover();
      await this.#recover();
      this.dispatcher.recovered();
    } else {
      const { remote } = this.dispatcher;
      this.bus.onHint((hint) => {
        if (!this.lapsed()) remote?.heard(hint);
      });
      this.bus.onGap(() => remote?.gap());
      await this.#duties.join();
    }
    this.#actor.send({ type: 'engine.recovered' });
    await this.#schedules.start();
    this.#admission.admit();
    this.#duties?.sweepNow();
    this.#every(this.#options.sweepMs, () => this.#sweep());
    this.#every(RETENTION_SWEEP_MS, () => this.#retire());
  }

  async #recover(): Promise<void> {
    let after: string | null = null;
    const restored: ExecutionHost[] = [];
    for (;;) {
      const page: RecoverableExecution[] = await this.store.recover(after, RECOVERY_PAGE);
      for (const stored of page) {
        const host = await this.#adopt(stored, true);
        if (host !== null) restored.push(host);
      }
      const last = page.at(-1);
      if (last === undefined || page.length < RECOVERY_PAGE) break;
      after = last.header.id;
    }
    // Parents come before their children: they are older.
    for (const host of restored) this.#goOn(host);
  }

  /** A host for a stored execution; null when its definition cannot run here. */
  async #adopt(stored: RecoverableExecution, afterCrash: boolean): Promise<ExecutionHost | null> {
    const { header } = stored;
    if (this.#duties !== null && header.owner.engine !== this.id) return null;
    const known = await this.#workflows.byHash(header.project, header.workflow.name, header.workflow.hash);
    const graph = known === null ? null : graphAt(known.compiled, header.bodyPath);
    if (known === null || graph === null) {
      this.log.error(
        { executionId: header.id, workflow: header.workflow },
        'its definition is not stored: it cannot go on',
      );
      return null;
    }
    const report = header.stop === null ? null : await this.#haltReport(header.id);
    if (this.#hosts.has(header.id)) return null;
    const host = new ExecutionHost(this, known.compiled, graph, header);
    this.#add(host);
    host.enter(() => host.restore(stored, afterCrash));
    host.stopReport = report;
    return host;
  }

  /** The report of a stop that was halted, and not final, before a restart; null: it was not. */
  async #haltReport(id: string): Promise<StopReport | null> {
    const row = await this.store.getReceipt(id);
    if (row === null) return null;
    for (const child of row.children) {
      const header = await this.store.getHeader(child.executionId);
      if (header !== null) child.status = header.status;
    }
    return StopReport.resumed(row, this.clock.nowMs());
  }

  #goOn(host: ExecutionHost): void {
    const { header } = host;
    if (host.over) return;
    if (header.status === 'Pending' && header.stop === null) {
      if (header.parent === null) this.#admission.enqueue(host, true);
      else this.#beginChild(host);
      return;
    }
    if (header.status !== 'Pending') this.#admission.countBegun(host);
    if (header.stop !== null) host.beginStop('takeover');
    else if (header.parent !== null && !this.#wantedByParent(host)) host.abort(parentEnded);
    else host.enter(() => host.resume());
    if (host.busy === 0) this.#parkable.add(host);
  }

  /** Whether the node attempt that started this child still runs. */
  #wantedByParent(host: ExecutionHost): boolean {
    const { parent } = host.header;
    if (parent === null) return true;
    const slot = this.parentSlot(host);
    return slot !== null && slot.stage === 'running' && slot.attempt === parent.attempt;
  }

  /** The node that asked for it may have ended while it was created. */
  #beginChild(host: ExecutionHost): void {
    if (this.#wantedByParent(host)) host.enter(() => host.begin());
    else host.abort(parentEnded);
  }

  #add(host: ExecutionHost): void {
    const { id, parent } = host.header;
    this.#hosts.set(id, host);
    if (parent === null) return;
    const siblings = this.#childrenOf.get(parent.executionId);
    if (siblings === undefined) this.#childrenOf.set(parent.executionId, new Set([id]));
    else siblings.add(id);
  }

  #remove({ header: { id, parent } }: ExecutionHost): void {
    this.#hosts.delete(id);
    this.#trimmedAt.delete(id);
    this.#leaveParent(id, parent);
  }

  #leaveParent(id: string, parent: HeaderRow['parent']): void {
    if (parent === null) return;
    const siblings = this.#childrenOf.get(parent.executionId);
    siblings?.delete(id);
    if (siblings?.size === 0) this.#childrenOf.delete(parent.executionId);
    this.#hosts.get(parent.executionId)?.childLeft();
  }

  async drain(drainMs: number): Promise<void> {
    this.#actor.send({ type: 'engine.drain' });
    this.#schedules.close();
    this.dispatcher.drain();
    const untilMs = this.clock.nowMs() + drainMs;
    await new Promise<void>((resolve) => {
      const look = (): void => {
        const busy = [...this.#hosts.values()].some((host) => host.tasksInFlight > 0 || host.committing);
        if (!busy || this.clock.nowMs() >= untilMs) resolve();
        else this.clock.setTimer(20, look);
      };
      look();
    });
    this.#actor.send({ type: 'engine.drained' });
    this.#close();
    if (this.store.cluster === null || this.#goneTold.has('fenced')) return;
    try {
      await this.store.cluster.leave(this.id);
      this.bus.tell({ kind: 'engine.gone', engine: this.id });
    } catch (error) {
      this.log.warn(
        { error: messageOf(error) },
        'nobody could be told that this engine leaves: its lease must run out',
      );
    }
  }

  #close(): void {
    this.#closed = true;
    this.#duties?.membership.close();
    this.#schedules.close();
    this.#inspections.close();
    for (const host of [...this.#hosts.values()]) host.drop();
    this.dispatcher.close();
    this.timers.close();
  }

  #state(): EngineItem['status'] {
    return this.#actor.getSnapshot().value as EngineItem['status'];
  }

  draining(): boolean {
    return this.#state() === 'draining' || this.#closed || this.lapsed();
  }

  lapsed(): boolean {
    return this.#duties?.membership.lapsed() === true;
  }

  #admits(): boolean {
    return this.#state() === 'serving' && !this.#actor.getSnapshot().context.paused;
  }

  #every(ms: number, work: () => Promise<void>): void {
    const run = (): void => {
      if (this.#closed) return;
      const again = (): void => {
        if (!this.#closed) this.timers.after(ms, run);
      };
      work().then(again, again);
    };
    this.timers.after(ms, run);
  }

  describe(): EngineItem {
    return {
      id: this.id,
      epoch: this.#epoch,
      startedAt: new Date(this.#startedAtMs).toISOString(),
      status: this.#state(),
      executions: this.#load(),
      version: this.#options.version,
      url: this.#options.url(),
    };
  }

  #load(): EngineMetrics['live'] {
    let running = 0;
    let pending = 0;
    let parked = this.#parked.size;
    for (const host of this.#hosts.values()) {
      if (host.header.status === 'Pending') pending += 1;
      else if (host.busy === 0) parked += 1;
      else running += 1;
    }
    return { running, pending, parked };
  }

  trouble(): string | null {
    const store = this.store.trouble();
    if (store !== null) return `the store takes no writes: ${store}`;
    if (this.#givenUp !== null) return `execution ${this.#givenUp} broke its actor more than ${RESTARTS_MAX} times`;
    return null;
  }

  // ------------------------------------------------------------------ other engines on the same store

  #openDuties(): ClusterDuties | null {
    const { cluster } = this.store;
    if (cluster === null) return null;
    return new ClusterDuties({
      id: this.id,
      cluster,
      bus: this.bus,
      clock: this.clock,
      timers: this.timers,
      log: this.log,
      leaseMs: this.#options.leaseMs,
      engine: {
        beat: () => this.#beat(),
        draining: () => this.draining(),
        has: (id) => this.#isHere(id),
        load: (id) => this.store.load(id),
        takeIn: (taken, afterCrash) => this.#takeIn(taken, afterCrash),
        stopped: (intent) => this.#deliver(intent.executionId, intent, 'poll'),
        triggered: (trigger) => this.#triggered(trigger),
        placesMayBeFree: () => this.#admission.askAgain(),
        definitionsChanged: () => this.#refreshWorkflows(),
        admissionIs: (paused) => this.#noteAdmission(paused),
        heard: (hint) => this.#heard(hint),
        fenced: (why) => this.#fenced(why),
        drainAsked: () => this.#tellGone('drain'),
      },
    });
  }

  #isHere(id: string): boolean {
    return this.#hosts.has(id) || this.#parked.has(id);
  }

  #beat(): EngineBeat {
    return {
      id: this.id,
      url: this.#options.url(),
      startedAtMs: this.#startedAtMs,
      status: this.#state(),
      version: this.#options.version,
      executions: this.#load(),
      leaseMs: this.#options.leaseMs,
      follows: this.bus.follows(),
      workers: this.dispatcher.workers(),
    };
  }

  #refreshWorkflows(): void {
    this.#workflows.forgetLast();
    this.#schedules
      .refreshAll()
      .catch((error: unknown) => this.log.warn({ error: messageOf(error) }, 'schedules wait for the store'));
  }

  #noteAdmission(paused: boolean): void {
    if (paused === this.admissionPaused()) return;
    this.#actor.send({ type: paused ? 'engine.pause' : 'engine.resume' });
    if (!paused) this.#admission.admit();
  }

  #tellGone(why: 'fenced' | 'drain'): void {
    if (this.#goneTold.has(why)) return;
    this.#goneTold.add(why);
    this.#options.onGone(why);
  }

  /** What it had is, or may soon be, somebody else's: it ends what it does, and writes nothing. */
  #fenced(why: string): void {
    if (this.#closed) return;
    this.log.error({ engine: this.id, why }, 'this engine gives up what it owned');
    this.#close();
    this.#parked.clear();
    this.#pursued.clear();
    this.#tellGone('fenced');
  }

  #heard(hint: EngineHint): void {
    switch (hint.kind) {
      case 'engine.drain':
        if (hint.engine === this.id) this.#tellGone('drain');
        return;
      case 'execution.deleted':
        this.#forgetHere(hint.executionId);
        return;
      case 'workflow.changed':
        this.#workflows.changed(hint.project, hint.name);
        this.#schedules.refresh(hint.project, hint.name).catch(() => this.#refreshWorkflows());
        return;
      case 'workflow.placeFreed':
        this.#admission.placeFreed(hint.project, hint.workflow);
        return;
    }
  }

  /** These are this engine's now. A stop that was asked for meanwhile is read with them, before anything runs. */
  #takeIn(taken: RecoverableExecution[], afterCrash: boolean): Promise<void> {
    const turn = this.#takingIn.then(() => this.#takeInNow(taken, afterCrash));
    this.#takingIn = turn.catch(() => undefined);
    return turn;
  }

  async #takeInNow(taken: RecoverableExecution[], afterCrash: boolean): Promise<void> {
    const fresh = taken.filter(({ header }) => !this.#isHere(header.id));
    const hosts: ExecutionHost[] = [];
    try {
      await this.dispatcher.fetch(fresh);
      for (const stored of fresh) {
        if (this.lapsed()) return;
        const host = await this.#adopt(stored, afterCrash);
        if (host !== null) hosts.push(host);
      }
    } finally {
      // Where the store did not answer to the end, the others are asked for again; these are here now.
      this.dispatcher.recovered();
      for (const host of hosts) if (!this.lapsed()) this.#goOn(host);
    }
  }

  engines(): EngineItem[] {
    const others = this.#duties?.membership.others ?? [];
    return [
      this.describe(),
      ...others.map((row) => ({
        id: row.id,
        epoch: 0,
        startedAt: new Date(row.startedAtMs).toISOString(),
        status: row.status,
        executions: row.executions,
        version: row.version,
        url: row.url,
      })),
    ];
  }

  allWorkers(): WorkerItem[] {
    return [...this.dispatcher.workers(), ...(this.#duties?.workers ?? [])];
  }

  async requestDrain(id: string): Promise<boolean> {
    if (id === this.id) {
      this.#tellGone('drain');
      return true;
    }
    const asked = (await this.store.cluster?.requestDrain(id)) === true;
    if (asked) this.bus.tell({ kind: 'engine.drain', engine: id });
    return asked;
  }

  async ownerUrl(executionId: string): Promise<string | null> {
    const owner = (await this.store.getHeader(executionId))?.owner.engine;
    return owner === undefined ? null : (this.#duties?.membership.find(owner)?.url ?? null);
  }

  /** The places of workflows with `concurrency`, where several engines share them. */
  #places(): Places | null {
    const { cluster } = this.store;
    if (cluster === null) return null;
    return {
      take: ({ header, workflow }) =>
        cluster.takePlace(header.project, header.workflow.name, header.id, workflow.concurrency?.max ?? 1),
      giveBack: ({ header }) => {
        const { project, workflow } = header;
        cluster.givePlaceBack(project, workflow.name, header.id).then(
          () => this.bus.tell({ kind: 'workflow.placeFreed', project, workflow: workflow.name }),
          // Whoever looks for a place counts only those that have not ended.
          () => undefined,
        );
      },
    };
  }

  // ------------------------------------------------------------------ starting

  /** A start whose idempotency key was used before. */
  async #repeated(
    request: StartRequest,
    id: string,
    sameBody: boolean,
  ): Promise<{ header: HeaderRow; created: false }> {
    if (!sameBody) {
      throw new FullstopError(
        'FS_CONFLICT',
        `idempotency key "${request.idempotencyKey}" was used for another start: execution ${id}`,
      );
    }
    const first = await this.store.load(id);
    if (first === null) throw new FullstopError('FS_NOT_FOUND', `execution ${id} is gone`);
    return { header: first.header, created: false };
  }

  async startExecution(request: StartRequest): Promise<{ header: HeaderRow; created: boolean }> {
    if (this.draining())
      throw new FullstopError('FS_UNAVAILABLE', 'this engine is shutting down: start it elsewhere or later');
    const key = request.idempotencyKey === null ? null : `key:${request.idempotencyKey}`;
    const body = { workflow: request.workflow, input: request.input, labels: request.labels };
    const bodyHash = key === null ? null : hashDefinition(body as Json);
    if (key !== null) {
      // A repeat is answered whatever has become of the workflow since.
      const first = await this.store.findStart(request.project, key);
      if (first !== null) return this.#repeated(request, first.id, first.bodyHash === bodyHash);
    }
    const known = await this.#known(request.project, request.workflow);
    if (known.row.disabled) {
      throw new FullstopError('FS_DISABLED', `workflow ${known.row.name} is disabled: enable it first`);
    }
    const { compiled } = known;
    const input = inputOf(compiled, request.input);
    const { concurrency } = compiled;
    const place = `${request.project}/${known.row.name}`;
    const starting = this.#starting.get(place) ?? 0;
    if (
      concurrency?.onFull === 'refuse' &&
      this.#admission.loadOfWorkflow(request.project, known.row.name) + starting >= concurrency.max
    ) {
      throw isFull(compiled.name, concurrency.max);
    }
    if (concurrency?.onFull === 'refuse' && this.peers.hasOthers()) {
      const live = await this.store.countExecutions({ project: request.project, workflow: known.row.name, live: true });
      if (live >= concurrency.max) throw isFull(compiled.name, concurrency.max);
    }
    const header = this.#header(known, request.project, input);
    header.labels = request.labels;
    const execution = newExecution(header, key, bodyHash);
    const offeredTo = this.#duties?.lessLoaded(this.#admission.load) ?? null;
    if (offeredTo !== null) execution.offeredTo = offeredTo;
    this.#starting.set(place, starting + 1);
    const outcome = await this.#create(execution).finally(() => {
      const left = (this.#starting.get(place) ?? 1) - 1;
      if (left === 0) this.#starting.delete(place);
      else this.#starting.set(place, left);
    });
    if (outcome.kind === 'exists') return this.#repeated(request, outcome.id, outcome.sameBody);
    // As of its creation: the actor's own moves on.
    const created = { ...header };
    if (offeredTo === null) this.#created(header, compiled);
    else {
      this.#duties?.offered(header.id, true);
      this.bus.tell({ kind: 'execution.offered', engine: offeredTo, executionId: header.id });
      if (this.bus.hasListListeners(header.project)) this.bus.changed(itemOf(header));
    }
    return { header: created, created: true };
  }

  /** Stores a new execution. Where the store took it and its answer was lost, it runs all the same. */
  async #create(execution: NewExecution): Promise<CreateOutcome> {
    try {
      const outcome = await this.store.createExecution(execution);
      // Its own: the write was made twice.
      return outcome.kind === 'exists' && outcome.id === execution.header.id ? { kind: 'created' } : outcome;
    } catch (error) {
      if (hasCode(error, 'FS_UNAVAILABLE')) {
        if (execution.offeredTo === undefined) this.#adoptCreated(execution.header.id, 1_000);
        else this.#duties?.offered(execution.header.id, false);
      }
      throw error;
    }
  }

  async #known(project: string, reference: string): Promise<KnownWorkflow> {
    const known = await this.#workflows.find(project, reference);
    if (known === null) {
      throw new FullstopError('FS_NOT_FOUND', `no workflow ${reference} in project ${project}: save it first`);
    }
    return known;
  }

  #header(known: KnownWorkflow, project: string, input: Json): HeaderRow {
    const { name, hash, version } = known.row;
    return {
      id: this.ids.next(),
      project,
      workflow: { name, hash, version },
      bodyPath: null,
      labels: EMPTY,
      status: 'Pending',
      error: null,
      errorCode: null,
      input,
      outputs: null,
      parent: null,
      ancestors: [],
      startedByFailure: false,
      createdAtMs: this.clock.nowMs(),
      startedAtMs: null,
      endedAtMs: null,
      owner: { engine: this.id, epoch: 1 },
      v: 0,
      stop: null,
      seq: 1,
      machine: null,
    };
  }

  /** A new execution is durable: its actor joins the others. */
  #created(header: HeaderRow, compiled: CompiledWorkflow): void {
    const graph = graphAt(compiled, header.bodyPath);
    if (graph === null || this.#closed) return;
    const host = new ExecutionHost(this, compiled, graph, header);
    host.createActors();
    this.#add(host);
    this.counters.executionsStarted += 1;
    if (this.bus.hasListListeners(header.project)) this.bus.changed(itemOf(header));
    if (header.parent === null) this.#admission.enqueue(host);
    else if (this.#state() !== 'draining') this.#beginChild(host);
  }

  async #startScheduled(project: string, name: string, input: Json, uniqueKey: string): Promise<void> {
    if (this.lapsed()) throw new FullstopError('FS_UNAVAILABLE', 'this engine owns nothing any more');
    const known = await this.#known(project, name);
    if (known.row.disabled) return;
    if (known.compiled.overlap === 'skip') {
      const live = await this.store.countExecutions({ project, workflow: name, live: true });
      if (live > 0) return;
    }
    const header = this.#header(known, project, inputOf(known.compiled, (input ?? {}) as Record<string, Json>));
    const outcome = await this.#create(newExecution(header, uniqueKey, null));
    if (outcome.kind === 'created') this.#created(header, known.compiled);
  }

  async createChild(
    parent: ExecutionHost,
    slot: Slot,
    id: string,
    place: { item: unknown; itemIndex: number } | null,
  ): Promise<ChildOutcome> {
    const invalid = (error: unknown): ChildOutcome => ({
      kind: 'invalid',
      error: messageOf(error),
      errorCode: hasCode(error, 'FS_NOT_FOUND') ? 'FS_NOT_FOUND' : 'FS_INVALID',
    });
    const { header: above } = parent;
    if (above.ancestors.length >= DEPTH_MAX) {
      return invalid(new FullstopError('FS_INVALID', `at most ${DEPTH_MAX} workflows deep`));
    }
    let known: KnownWorkflow;
    let input: Json;
    if (place === null) {
      const payload = slot.payload as { workflow: string; input?: Record<string, Json> };
      try {
        known = await this.#known(above.project, payload.workflow);
        input = inputOf(known.compiled, payload.input ?? {});
      } catch (error) {
        if (hasCode(error, 'FS_UNAVAILABLE')) throw error;
        return invalid(error);
      }
    } else {
      const own = await this.#workflows.byHash(above.project, above.workflow.name, above.workflow.hash);
      if (own === null) return invalid(new FullstopError('FS_NOT_FOUND', 'its definition is gone'));
      known = own;
      input = place as Json;
    }
    const header = this.#header(known, above.project, input);
    header.id = id;
    header.labels = above.labels;
    header.ancestors = [...above.ancestors, above.id];
    header.bodyPath = place === null ? null : slot.node.path;
    header.parent = { executionId: above.id, node: slot.node.path, attempt: slot.attempt };
    if (slot.scope.iterations.length > 0) header.parent.iterations = iterationIndexes(slot.scope.iterations);
    const loops = loopPlaces(slot.scope.iterations);
    if (loops.some((place) => typeof place === 'string')) header.parent.loops = loops;
    if (place !== null) header.parent.itemIndex = place.itemIndex;
    const uniqueKey = `child:${slot.attemptId}/${place?.itemIndex ?? 0}`;
    const outcome = await this.#create(newExecution(header, uniqueKey, null));
    if (outcome.kind === 'refused') return { kind: 'refused' };
    if (outcome.kind === 'created') {
      this.#created(header, known.compiled);
      return { kind: 'created', id };
    }
    // Created by a write whose reply was lost.
    if (!this.#hosts.has(outcome.id)) {
      const stored = await this.store.load(outcome.id);
      if (stored !== null && stored.header.endedAtMs !== null) return { kind: 'ended', end: endOf(stored.header) };
      const owner = stored?.header.owner.engine;
      if (stored === null || owner === undefined) return { kind: 'created', id: outcome.id };
      if (this.store.cluster !== null && owner !== this.id) {
        // By the engine that had the parent before, and after it had lost it.
        const root = above.ancestors[0] ?? above.id;
        await this.#takeIn(await this.store.cluster.takeOver([root], [owner], this.id), true);
      } else {
        await this.#takeIn([stored], false);
      }
    }
    return { kind: 'created', id: outcome.id };
  }

  endChild(executionId: string, verdict: Verdict): void {
    const parked = this.#parked.get(executionId);
    if (parked === undefined) {
      this.#hosts.get(executionId)?.abort(verdict);
      return;
    }
    parked.verdict = verdict;
    this.#wake(executionId);
  }

  endChildrenOf(slot: Slot, verdict: Verdict): void {
    for (const id of this.#idsOfChildren(slot)) this.endChild(id, verdict);
  }

  hasChildrenOf(slot: Slot): boolean {
    return this.#idsOfChildren(slot).length > 0;
  }

  #idsOfChildren(slot: Slot): string[] {
    const ids = this.#childrenOf.get(slot.host.header.id);
    if (ids === undefined) return [];
    return [...ids].filter((id) => {
      const parent = (this.#hosts.get(id)?.header ?? this.#parked.get(id))?.parent;
      return parent?.attempt === slot.attempt && isPlacedAt(slot, parent);
    });
  }

  followUp(host: ExecutionHost, failure: Verdict): Promise<NewExecution | null> | null {
    const { onFailure } = host.workflow;
    const { header } = host;
    if (onFailure === null || header.parent !== null || header.startedByFailure) return null;
    return this.#followUp(host, onFailure, failure);
  }

  async #followUp(
    host: ExecutionHost,
    onFailure: { workflow: string; input: Json | null },
    failure: Verdict,
  ): Promise<NewExecution | null> {
    const { header } = host;
    try {
      const known = await this.#known(header.project, onFailure.workflow);
      const about = {
        executionId: header.id,
        workflow: header.workflow.name,
        error: failure.error,
        errorCode: failure.errorCode,
      };
      const roots = this.expressionRoots(host);
      const given =
        onFailure.input === null
          ? about
          : await this.expressions.render(onFailure.input, {
              input: roots.input,
              execution: roots.execution,
              nodes: {},
            });
      const next = this.#header(known, header.project, inputOf(known.compiled, given as Record<string, Json>));
      next.startedByFailure = true;
      return newExecution(next, `onFailure:${header.id}`, null);
    } catch (error) {
      if (hasCode(error, 'FS_UNAVAILABLE')) throw error;
      this.log.error(
        { executionId: header.id, workflow: onFailure.workflow, error: messageOf(error) },
        'onFailure could not start',
      );
      return null;
    }
  }

  // ------------------------------------------------------------------ stopping

  async requestStop(id: string): Promise<StopRequestOutcome> {
    const outcome = await this.store.requestStop(id, { requestId: this.ids.next(), requestedAtMs: this.clock.nowMs() });
    if (outcome.kind === 'requested') {
      for (const { executionId, ...intent } of outcome.affected) {
        this.#deliver(executionId, intent, 'local');
        this.bus.stop({ executionId, requestId: intent.requestId });
      }
    }
    return outcome;
  }

  #deliver(id: string, intent: { requestId: string; requestedAtMs: number }, path: 'local' | 'bus' | 'poll'): void {
    const { requestId, requestedAtMs } = intent;
    const parked = this.#parked.get(id);
    if (parked === undefined) {
      this.#hosts.get(id)?.deliverStop({ requestId, requestedAtMs }, path);
      return;
    }
    if (parked.waking === null) parked.stopPath = path;
    this.#wake(id);
  }

  /** A STOP from the bus: only the owner acts, and on what the store says. */
  #heardStop(id: string): void {
    if (this.#closed || this.lapsed()) return;
    this.dispatcher.remote?.stopHeard(id);
    const host = this.#hosts.get(id);
    const parked = this.#parked.get(id);
    if (parked === undefined ? host === undefined || host.header.stop !== null : parked.waking !== null) return;
    this.store.load(id).then(
      (stored) => {
        const stop = stored?.header.stop ?? null;
        if (stop !== null) this.#deliver(id, stop, 'bus');
      },
      () => undefined,
    );
  }

  /** Finds what a lost broadcast would have told. */
  async #sweep(): Promise<void> {
    this.#park();
    if (this.#duties !== null) return this.#duties.sweep();
    if (this.#hosts.size + this.#parked.size === 0) return;
    for (const intent of await this.store.listIntents(1_000)) this.#deliver(intent.executionId, intent, 'poll');
  }

  async previewStop(id: string): Promise<StopPreview | null> {
    const stored = await this.store.getExecution(id);
    if (stored === null) return null;
    const { header } = stored;
    if (header.endedAtMs !== null) {
      throw new FullstopError('FS_ENDED', `execution ${id} has ended: ${header.status}`, {
        details: { status: header.status },
      });
    }
    const workflow = await this.compiled(header.project, header.workflow.name, header.workflow.hash);
    return { ...previewOf(stored, workflow, this.clock.nowMs()), children: await this.#liveChildrenOf(header) };
  }

  /** Of an execution that another engine may own. */
  async #liveChildrenOf({ id, owner }: HeaderRow): Promise<{ executionId: string; status: ExecutionStatus }[]> {
    if (this.#duties === null || owner.engine === this.id) return this.liveChildren(id);
    const { items } = await this.store.listExecutions({ project: null, parent: id, live: true, limit: 1_000 });
    return items.map((child) => ({ executionId: child.id, status: child.status }));
  }

  async receipt(id: string): Promise<StopReceipt | null> {
    const live = this.#hosts.get(id)?.stopReport?.receipt;
    // Its end is told when it is durable: until then the host is among the live ones.
    if (live !== undefined) return { ...live, finalisedMs: null, finalisedAt: null };
    const row = await this.store.getReceipt(id);
    const pursued = this.#pursued.get(id)?.stopReport?.row();
    if (row !== null && pursued !== undefined) mergeReceipt(row, pursued);
    if (row !== null || pursued !== undefined) return this.#withEnds(receiptOf(row ?? (pursued as ReceiptRow)));
    // Requested, and not delivered yet: the intent is all there is.
    const stored = await this.store.load(id);
    const stop = stored?.header.stop ?? null;
    if (stored === null || stop === null) return null;
    return StopReport.requested(id, stop, await this.#liveChildrenOf(stored.header));
  }

  /** Also of children that ended when nobody could tell: their parent had left memory, and their engine died then. */
  async #withEnds(receipt: StopReceipt): Promise<StopReceipt> {
    for (const child of receipt.children) {
      if (!isLive(child.status)) continue;
      const header = await this.store.getHeader(child.executionId);
      if (header !== null) child.status = header.status;
    }
    return receipt;
  }

  receiptChanged(host: ExecutionHost): void {
    const { stopReport } = host;
    if (stopReport === null || this.#closed) return;
    const { executionId } = stopReport.receipt;
    this.#pursue(host);
    if (this.#savingReceipts.has(stopReport)) return;
    this.#savingReceipts.add(stopReport);
    stopReport.saved = true;
    this.#changeReceipt(executionId, (row) => mergeReceipt(row, stopReport.row())).then(
      ({ row }) => {
        this.#savingReceipts.delete(stopReport);
        if (row !== null) stopReport.learn(row);
        this.#pursue(host);
        if (!stopReport.saved) this.receiptChanged(host);
      },
      (error: unknown) => {
        this.log.warn({ executionId, error: messageOf(error) }, 'a receipt waits for the store');
        this.timers.after(1_000, () => {
          this.#savingReceipts.delete(stopReport);
          this.receiptChanged(host);
        });
      },
    );
  }

  /**
   * Changes the receipt of an execution that has ended, as other engines may at the same time: `change` is asked again
   * where one did. `live`: it has not ended, and nothing was changed. `row` null: there is none.
   */
  async #changeReceipt(
    id: string,
    change: (row: ReceiptRow) => boolean,
  ): Promise<{ row: ReceiptRow | null; live: boolean }> {
    for (;;) {
      const stored = await this.store.getReceipt(id);
      if (stored === null) return { row: null, live: false };
      const { revision, ...row } = stored;
      if (!change(row)) return { row, live: false };
      const outcome = await this.store.putReceipt(row, revision);
      if (outcome === 'changed') continue;
      if (outcome === 'stored') this.bus.receipt(receiptOf(row));
      return { row: outcome === 'stored' ? row : null, live: outcome === 'live' };
    }
  }

  /** A stopped parent that has left memory, over a restart: its stored receipt follows its children. */
  #tellReceipt(parentId: string, end: ChildEnd): void {
    this.#receiptTurn = this.#receiptTurn.then(async () => {
      await this.#changeReceipt(parentId, ({ children }) => {
        const child = children.find((one) => one.executionId === end.id);
        if (child === undefined || child.status === end.status) return false;
        child.status = end.status;
        return true;
      });
    });
    this.#receiptTurn = this.#receiptTurn.catch((error: unknown) =>
      this.log.warn({ executionId: parentId, error: messageOf(error) }, 'a receipt was not updated'),
    );
  }

  /** Keeps an ended execution in memory while its receipt is not complete. */
  #pursue(host: ExecutionHost): void {
    const receipt = host.stopReport?.receipt;
    if (receipt === undefined) return;
    if (receipt.unconfirmed > 0 || receipt.children.some((child) => isLive(child.status))) {
      this.#pursued.set(receipt.executionId, host);
    } else this.#pursued.delete(receipt.executionId);
  }

  get workers(): Dispatcher {
    return this.dispatcher;
  }

  /** The end of a task that nobody waits for any more: the receipt of its execution's stop follows. */
  #late(taskId: string, report: WorkReport, project: string | null, counts: boolean, again: boolean): void {
    const id = taskId.slice(0, taskId.indexOf('/'));
    const host = this.#hosts.get(id) ?? this.#pursued.get(id);
    // A token is no longer known: that of another project's worker cannot have been one.
    if (host !== undefined && project !== null && host.header.project !== project) return;
    if (counts && !again) this.counters.lateResultsDiscarded += 1;
    this.#writeLate(taskId, report, project, counts);
  }

  #writeLate(taskId: string, report: WorkReport, project: string | null, counts: boolean): void {
    const id = taskId.slice(0, taskId.indexOf('/'));
    const host = this.#hosts.get(id) ?? this.#pursued.get(id);
    if (host?.stopReport != null) {
      const confirms = host.stopReport.taskEnded(taskId, report, this.clock.nowMs());
      if (counts) host.stopReport.resultDiscarded(taskId);
      if (host.over && (counts || confirms)) this.receiptChanged(host);
      host.saveReceipt();
      return;
    }
    this.#receiptTurn = this.#receiptTurn.then(async () => {
      const header = await this.store.getHeader(id);
      if (header === null || header.stop === null || (project !== null && header.project !== project)) return;
      const { live } = await this.#changeReceipt(id, (row) => {
        const confirms = confirm(row, taskId, report, this.clock.nowMs());
        return (counts && noteDiscarded(row, taskId)) || confirms;
      });
      // Whoever owns it writes it once more, and may not know of this.
      if (live || header.endedAtMs === null)
        this.timers.after(LATE_AGAIN_MS, () => this.#writeLate(taskId, report, project, counts));
    });
    this.#receiptTurn = this.#receiptTurn.catch((error: unknown) =>
      this.log.warn({ taskId, error: messageOf(error) }, 'a late report did not reach its receipt'),
    );
  }

  nodeStopped(type: string, ms: number): void {
    this.counters.onNodeStopped?.(type, ms);
  }

  metrics(): EngineMetrics {
    this.counters.live = this.#load();
    return this.counters;
  }

  // ------------------------------------------------------------------ triggers, schedules, admission

  async trigger(id: string, name: string, payload: Json): Promise<{ duplicate: boolean }> {
    const header = this.#hosts.get(id)?.header ?? (await this.store.getHeader(id));
    const workflow =
      header === null ? null : await this.compiled(header.project, header.workflow.name, header.workflow.hash);
    if (header === null || workflow === null) throw new FullstopError('FS_NOT_FOUND', `no execution ${id}`);
    if (!this.#workflows.triggersOf(workflow).has(name)) {
      throw new FullstopError('FS_NOT_FOUND', `no hold of workflow ${workflow.name} waits for a trigger "${name}"`);
    }
    const trigger = { id: this.ids.next(), executionId: id, name, payload, atMs: this.clock.nowMs() };
    const isHere = this.#isHere(id);
    const outcome = await this.store.putTrigger(trigger, isHere).catch((error: unknown) => {
      // It may be stored, and as one that its owner has in hand.
      if (isHere && hasCode(error, 'FS_UNAVAILABLE')) this.#lookForTrigger(trigger, 1_000);
      throw error;
    });
    switch (outcome.kind) {
      case 'missing':
        throw new FullstopError('FS_NOT_FOUND', `no execution ${id}`);
      case 'ended':
        throw new FullstopError('FS_ENDED', `execution ${id} has ended: ${outcome.status}`, {
          details: { status: outcome.status },
        });
      case 'conflict':
        throw new FullstopError('FS_CONFLICT', `another payload of trigger "${name}" waits already`);
      case 'duplicate':
        // Whoever stored it may not have been told so.
        this.#tellTriggered({ ...trigger, id: outcome.id }, isHere);
        return { duplicate: true };
      case 'stored':
        this.#tellTriggered(trigger, isHere);
        return { duplicate: false };
    }
  }

  #tellTriggered(trigger: TriggerRow, isHere: boolean): void {
    if (isHere || this.#duties === null) this.#triggered(trigger);
    else this.bus.tell({ kind: 'execution.triggered', executionId: trigger.executionId });
  }

  /** The answer to its write was lost. `delayMs`: until the next look, as of an execution that was created so. */
  #lookForTrigger(trigger: TriggerRow, delayMs: number): void {
    this.timers.after(delayMs, () => {
      if (this.#closed || !this.#isHere(trigger.executionId)) return;
      this.store.load(trigger.executionId).then(
        (stored) => {
          if (stored?.triggers.some(({ id }) => id === trigger.id) === true) this.#triggered(trigger);
          else if (stored?.header.endedAtMs === null && delayMs <= LATE_WRITE_MS)
            this.#lookForTrigger(trigger, delayMs * 2);
        },
        () => this.#lookForTrigger(trigger, delayMs),
      );
    });
  }

  #triggered(trigger: TriggerRow): void {
    const { executionId } = trigger;
    this.#wake(executionId);
    // One that is on its way back may have been read before the trigger was stored.
    const waking = this.#parked.get(executionId)?.waking ?? Promise.resolve();
    void waking.then(() => this.#hosts.get(executionId)?.triggered(trigger));
  }

  async setAdmission(paused: boolean): Promise<void> {
    await this.store.putSetting('admission', { paused });
    if (this.#duties !== null) this.bus.tell({ kind: 'admission.changed' });
    this.#actor.send({ type: paused ? 'engine.pause' : 'engine.resume' });
    if (!paused) this.#admission.admit();
  }

  admissionPaused(): boolean {
    return this.#actor.getSnapshot().context.paused;
  }

  async workflowChanged(project: string, name: string): Promise<void> {
    this.#workflows.changed(project, name);
    if (this.#duties !== null) this.bus.tell({ kind: 'workflow.changed', project, name });
    await this.#schedules.refresh(project, name);
  }

  nextInstants(project: string, name: string): (number | null)[] {
    return this.#schedules.nextInstants(project, name);
  }

  async compiled(project: string, name: string, hash: string): Promise<CompiledWorkflow | null> {
    return (await this.#workflows.byHash(project, name, hash))?.compiled ?? null;
  }

  forget(id: string): void {
    this.#forgetHere(id);
    if (this.#duties !== null) this.bus.tell({ kind: 'execution.deleted', executionId: id });
  }

  #forgetHere(id: string): void {
    this.#pursued.delete(id);
    this.dispatcher.forgetExecution(id);
  }

  inspect(executionId: string, observer: InspectionObserver): () => void {
    return this.#inspections.observe(executionId, observer);
  }

  // ------------------------------------------------------------------ hosts

  hostOf(executionId: string): ExecutionHost | null {
    return this.#hosts.get(executionId) ?? null;
  }

  liveChildren(executionId: string): { executionId: string; status: ExecutionStatus }[] {
    const ids = this.#childrenOf.get(executionId);
    if (ids === undefined) return [];
    return [...ids].map((id) => ({ executionId: id, status: this.#hosts.get(id)?.liveStatus ?? 'Running' }));
  }

  parentSlot(host: ExecutionHost): Slot | null {
    const { parent } = host.header;
    if (parent === null) return null;
    const above = this.#hosts.get(parent.executionId);
    if (above === undefined) return null;
    for (const slot of above.live) if (isPlacedAt(slot, parent)) return slot;
    return null;
  }

  expressionRoots(host: ExecutionHost): ReturnType<HostEnvironment['expressionRoots']> {
    host.roots ??= this.#roots(host);
    return host.roots;
  }

  #roots(host: ExecutionHost): ReturnType<HostEnvironment['expressionRoots']> {
    const { header } = host;
    const startedAt = header.startedAtMs === null ? null : new Date(header.startedAtMs).toISOString();
    const execution = { id: header.id, workflow: header.workflow.name, startedAt };
    if (header.bodyPath === null || header.parent === null) return { input: header.input, execution };
    // The body of a foreach sees the input of the execution that the foreach belongs to.
    const above = this.#hosts.get(header.parent.executionId);
    const item = header.input as unknown as { item: unknown; itemIndex: number };
    return { input: above === undefined ? null : this.expressionRoots(above).input, execution, item };
  }

  holdInstant(schedule: string | undefined, nowMs: number): number | null {
    return schedule === undefined ? null : nextInstantMs(parseHoldSchedule(schedule), nowMs);
  }

  flushSoon(host: ExecutionHost): void {
    this.#flushQueue.push(host);
    if (!this.#flushDeferred) this.#deferFlush();
    // The store works on these while this turn goes on with others.
    else if (this.#flushQueue.length >= FLUSH_AT && this.#stepsLeft > 0) this.#flush();
  }

  #deferFlush(): void {
    this.#flushDeferred = true;
    this.clock.defer(() => {
      this.#flushDeferred = false;
      this.#stepsLeft = STEPS_PER_TURN;
      this.#flush();
    });
  }

  #flush(): void {
    const hosts = this.#flushQueue;
    this.#flushQueue = [];
    for (const [index, host] of hosts.entries()) {
      if (this.#stepsLeft <= 0) {
        this.#flushQueue = [...hosts.slice(index), ...this.#flushQueue];
        if (!this.#flushDeferred) this.#deferFlush();
        return;
      }
      try {
        this.#stepsLeft -= host.flush();
      } catch (error) {
        this.crashed(host, error);
      }
    }
  }

  cut(host: ExecutionHost): void {
    this.#inspections.cut(host.header.id);
  }

  takenBack(host: ExecutionHost): void {
    this.#inspections.takenBack(host.header.id);
  }

  published(host: ExecutionHost, commit: Commit): void {
    const { header } = host;
    this.#inspections.durable(header.id);
    if (this.bus.hasListeners(header.id)) {
      for (const row of commit.events) this.bus.event(header.id, eventOf(row));
      if (commit.receipt !== null) this.bus.receipt(receiptOf(commit.receipt));
    }
    const { status } = commit.header;
    if (status !== undefined && this.bus.hasListListeners(header.project)) {
      // As of this commit: what happened since is not durable yet.
      this.bus.changed(itemOf({ ...header, status, seq: commit.events.at(-1)?.seq ?? header.seq }));
    }
    const { eventsKept } = this.#options;
    if (header.seq > eventsKept) {
      const trimmedAt = this.#trimmedAt.get(header.id) ?? 0;
      if (header.seq - trimmedAt > eventsKept + 1_000) {
        this.#trimmedAt.set(header.id, header.seq - eventsKept);
        this.store.trimEvents(header.id, eventsKept).catch(() => undefined);
      }
    }
  }

  ended(host: ExecutionHost, commit: Commit): void {
    const { header, stopReport } = host;
    this.#remove(host);
    this.#admission.release(host);
    const stopped = header.stop !== null;
    if (header.status === 'Complete') this.counters.executionsEnded.Complete += 1;
    else if (stopped) this.counters.executionsEnded.stopped += 1;
    else this.counters.executionsEnded.Failed += 1;
    if (stopReport !== null) {
      this.#pursue(host);
      // A task or a child may have ended while the terminal commit was on its way.
      if (!stopReport.saved) this.receiptChanged(host);
    }
    if (header.parent !== null && header.endedAtMs !== null) {
      const parentId = header.parent.executionId;
      const parent = this.#hosts.get(parentId) ?? this.#pursued.get(parentId);
      if (parent !== undefined) parent.childEnded(endOf(header));
      else if (stopped) this.#tellReceipt(parentId, endOf(header));
    }
    for (const created of commit.creates) this.#adoptCreated(created.header.id);
  }

  /** `delayMs`: where its write may still be under way, until the next look; it doubles. */
  #adoptCreated(id: string, delayMs = Number.POSITIVE_INFINITY): void {
    this.store
      .load(id)
      .then(async (stored) => {
        if (stored === null && delayMs <= LATE_WRITE_MS) {
          this.timers.after(delayMs, () => this.#adoptCreated(id, delayMs * 2));
          return;
        }
        if (stored === null || stored.header.endedAtMs !== null || this.#closed || this.#hosts.has(id)) return;
        const host = await this.#adopt(stored, false);
        if (host === null) return;
        this.counters.executionsStarted += 1;
        if (this.bus.hasListListeners(stored.header.project)) this.bus.changed(itemOf(stored.header));
        this.#goOn(host);
      })
      .catch((error: unknown) => {
        this.log.warn({ executionId: id, error: messageOf(error) }, 'a new execution waits for the store');
        this.timers.after(1_000, () => this.#adoptCreated(id, delayMs));
      });
  }

  dropped(host: ExecutionHost): void {
    this.#remove(host);
    this.#admission.release(host);
  }

  crashed(host: ExecutionHost, error: unknown): void {
    const { id } = host.header;
    if (this.#closed) return;
    this.log.error(
      { executionId: id, error: error instanceof Error ? error.stack : messageOf(error) },
      'an execution broke',
    );
    const before = this.#actor.getSnapshot().context.crashes[id]?.length ?? 0;
    this.#actor.send({ type: 'execution.crashed', executionId: id, atMs: this.clock.nowMs() });
    const { givenUp } = this.#actor.getSnapshot().context;
    if (givenUp !== id) {
      host.restart(null);
      return;
    }
    if (before <= RESTARTS_MAX) {
      host.restart({ error: `internal error: ${messageOf(error)}`, errorCode: 'FS_INTERNAL' });
      return;
    }
    this.#givenUp = id;
    host.drop();
  }

  parkedMayHaveChanged(host: ExecutionHost): void {
    this.#admission.recount(host);
    if (host.busy === 0) this.#parkable.add(host);
  }

  /** Executions that have been quiet since the last sweep, and will be for a while, leave memory. */
  #park(): void {
    const hosts = this.#parkable;
    this.#parkable = new Set();
    if (this.draining()) return;
    for (const host of hosts) {
      const { id } = host.header;
      const atMs = host.parkedUntilMs();
      if (atMs === null || atMs - this.clock.nowMs() < PARK_MS || this.#hosts.get(id) !== host) continue;
      const { hasPlace } = host;
      const { parent } = host.header;
      host.park();
      this.#hosts.delete(id);
      const timer = Number.isFinite(atMs) ? this.timers.at(atMs, () => this.#wake(id)) : null;
      this.#parked.set(id, { timer, waking: null, stopPath: 'local', verdict: null, hasPlace, parent });
    }
  }

  /** Brings a parked execution back; what waited for it is done then. */
  #wake(id: string): void {
    const parked = this.#parked.get(id);
    if (parked === undefined || parked.waking !== null || this.#closed) return;
    parked.waking = this.#bringBack(id, parked).catch((error: unknown) => {
      parked.waking = null;
      this.log.warn({ executionId: id, error: messageOf(error) }, 'a parked execution waits for the store');
      this.timers.after(500, () => this.#wake(id));
    });
  }

  async #bringBack(id: string, parked: Parked): Promise<void> {
    const stored = await this.store.load(id);
    if (this.#closed) return;
    const gone = stored === null || stored.header.endedAtMs !== null;
    const host = gone ? null : await this.#adopt(stored, false);
    this.#parked.delete(id);
    if (parked.timer !== null) this.timers.cancel(parked.timer);
    if (host === null) {
      if (!this.#hosts.has(id)) this.#leaveParent(id, parked.parent);
      return;
    }
    host.hasPlace = parked.hasPlace;
    this.#admission.recount(host);
    if (host.header.stop !== null) host.beginStop(parked.stopPath);
    else if (parked.verdict !== null) host.abort(parked.verdict);
    else host.enter(() => host.resume());
    this.#parkable.add(host);
  }

  /** Deletes what retention no longer keeps, in small batches. */
  async #retire(): Promise<void> {
    const { retentionMs } = this.#options;
    if (retentionMs === 0) return;
    const beforeMs = this.clock.nowMs() - retentionMs;
    // Who has not confirmed by now never will, and nobody can ask.
    for (const [id, { header }] of this.#pursued) if ((header.endedAtMs ?? beforeMs) < beforeMs) this.#forgetHere(id);
    for (;;) {
      const deleted = await this.store.deleteEndedBefore(beforeMs, RETENTION_BATCH);
      if (deleted < RETENTION_BATCH || this.#closed) return;
    }
  }
}

function isFull(workflow: string, max: number): FullstopError {
  return new FullstopError('FS_RATE', `${max} executions of ${workflow} run already: start it when one has ended`);
}

function isLive(status: ExecutionStatus): boolean {
  return status === 'Pending' || status === 'Running';
}

/** What a parent needs to know of a child that has ended. */
function endOf({ id, status, error, errorCode, stop }: HeaderRow): ChildEnd {
  return { id, status, error, errorCode, stopped: stop !== null };
}

/** @throws FS_INVALID with every fault. */
function inputOf(workflow: CompiledWorkflow, given: Record<string, Json>): Json {
  const checked = checkInput(workflow, given);
  if ('faults' in checked) {
    const [first] = checked.faults;
    throw new FullstopError(
      'FS_INVALID',
      `input of ${workflow.name}: ${first?.path ?? ''} ${first?.message ?? ''}`.trim(),
      {
        details: { faults: checked.faults },
      },
    );
  }
  return checked.input as Json;
}

function newExecution(header: HeaderRow, uniqueKey: string | null, bodyHash: string | null): NewExecution {
  return {
    header,
    events: [
      {
        seq: 1,
        atMs: header.createdAtMs,
        type: 'execution.created',
        node: null,
        iterations: null,
        attempt: null,
        data: null,
      },
    ],
    uniqueKey,
    bodyHash,
  };
}

/** Whether a child with this `parent` is one of this node's, in the same attempts of its loops. */
function isPlacedAt(slot: Slot, { node, loops, iterations }: NonNullable<HeaderRow['parent']>): boolean {
  return node === slot.node.path && loopPlaces(slot.scope.iterations).join() === (loops ?? iterations ?? []).join();
}
