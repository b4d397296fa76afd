/** One engine on ports that a test holds in its hands: time, store, bus, work, ids. */
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { loadDefinition } from '../../src/definition/compile.ts';
import type { EngineApi, StartRequest } from '../../src/engine/api.ts';
import type { EngineOptions } from '../../src/engine/engine.ts';
import type { EnginePorts } from '../../src/engine/environment.ts';
import { receiptOf } from '../../src/engine/stop-report.ts';
import { recordOf } from '../../src/engine/views.ts';
import { FullstopError } from '../../src/errors.ts';
import type { Bus, StopMessage } from '../../src/ports/bus.ts';
import type { Clock } from '../../src/ports/clock.ts';
import type { ClusterStore } from '../../src/ports/cluster.ts';
import type { Expressions } from '../../src/ports/expressions.ts';
import type { Ids } from '../../src/ports/ids.ts';
import type { Commit, EventRow, ExecutionStore } from '../../src/ports/store.ts';
import type { TaskRow } from '../../src/ports/task-queue.ts';
import type { LeftTask, NodeWork, Task, TaskLog, WorkReport } from '../../src/ports/work.ts';
import type { HeldTask, WorkerGate, WorkerLink } from '../../src/ports/workers.ts';
import { composeEngine } from '../../src/runtime.ts';
import type { ExecutionEvent, ExecutionItem, ExecutionRecord, Json, NodeRecord, StopReceipt } from '../../src/wire.ts';
import { countingIds } from './seeds.ts';
import { VirtualClock } from './virtual-clock.ts';

/** What happens to a call of the store: it goes through, fails before, fails after it was applied, or waits. */
export type Intervention =
  | 'pass'
  | 'fail'
  /** Applied, and its answer is lost: rejects with FS_UNAVAILABLE. */
  | 'lose'
  | { holdBefore: Promise<unknown> }
  | { holdAfter: Promise<unknown> };

type Method = keyof ExecutionStore | keyof ClusterStore;

export interface StoreCall {
  method: Method;
  args: readonly unknown[];
}

/** Between an engine and the store that outlives it: counts, delays, loses, and dies with its engine. */
export class StoreGate {
  readonly inner: MemoryStore;
  readonly store: ExecutionStore;
  readonly commits: Commit[] = [];
  /** The engine's process is dead: nothing is applied, nothing is answered. */
  dead = false;
  intervene: (call: StoreCall) => Intervention | undefined = () => undefined;
  /** Called after a commit was applied. */
  onCommit: (commit: Commit) => void = () => undefined;
  /** The engine dies when so many more commits and new executions have been applied. */
  writesLeft = Number.POSITIVE_INFINITY;

  constructor(inner: MemoryStore) {
    this.inner = inner;
    this.store = new Proxy(inner, {
      get: (target, method: keyof ExecutionStore) => {
        if (method === 'trouble') return () => target.trouble();
        if (method === 'cluster') return cluster;
        return (...args: unknown[]) => this.#call(target, method, args);
      },
    });
    const cluster =
      inner.cluster === null
        ? null
        : new Proxy(inner.cluster, {
            get:
              (target, method: keyof ClusterStore) =>
              (...args: unknown[]) =>
                this.#call(target, method, args),
          });
  }

  async #call(target: object, method: Method, args: unknown[]): Promise<unknown> {
    if (this.dead) return never();
    // What the engine gave is what is written, whatever it does with it later.
    const given = structuredClone(args);
    const how = this.intervene({ method, args: given }) ?? 'pass';
    if (how === 'fail') throw unavailable();
    if (typeof how === 'object' && 'holdBefore' in how) {
      await how.holdBefore;
      if (this.dead) return never();
    }
    const work = target[method as never] as (...args: unknown[]) => Promise<unknown>;
    const answer = await work.apply(target, given);
    if (this.dead) return never();
    if (method === 'commit' && (answer as { kind: string }).kind === 'committed') {
      const commit = given[0] as Commit;
      this.commits.push(commit);
      this.onCommit(commit);
      this.#countWrite();
    }
    if (method === 'createExecution') this.#countWrite();
    if (this.dead) return never();
    if (how === 'lose') throw unavailable();
    if (typeof how === 'object' && 'holdAfter' in how) {
      await how.holdAfter;
      if (this.dead) return never();
    }
    return answer;
  }

  #countWrite(): void {
    this.writesLeft -= 1;
    if (this.writesLeft <= 0) this.dead = true;
  }
}

function never(): Promise<never> {
  return new Promise(() => undefined);
}

function unavailable(): FullstopError {
  return new FullstopError('FS_UNAVAILABLE', 'the test made this call fail');
}

/** Work that does what the test says: by default tasks wait, and an abort ends them at once. */
export class FakeWork implements NodeWork {
  readonly started: Task[] = [];
  readonly aborted: string[] = [];
  ignoreAborts = false;
  dead = false;
  /** Whether tasks leave something behind when their process dies. */
  outlives = false;
  /** What such tasks left, and who is told that it is gone. */
  readonly pursued = new Map<string, (report: WorkReport) => void>();
  /** Tasks at once. */
  slots = Number.POSITIVE_INFINITY;
  /** Slots that were reserved and not used yet. */
  reserved = 0;
  /** What becomes of a task by itself; null: it waits for `answer`. */
  behave: (task: Task) => WorkReport | null = () => null;
  readonly #clock: Clock;
  readonly #running = new Map<string, (report: WorkReport) => void>();
  readonly #logs = new Map<string, TaskLog>();
  readonly #trace: (line: string) => void;

  constructor(clock: Clock, trace: (line: string) => void) {
    this.#clock = clock;
    this.#trace = trace;
  }

  /** Identities of the tasks that run. */
  get running(): string[] {
    return [...this.#running.keys()];
  }

  describe() {
    return { capabilities: ['http'], slots: this.slots, held: this.#running.size };
  }

  reserve(type: string): boolean {
    if (type !== 'http' || this.#running.size + this.reserved >= this.slots) return false;
    this.reserved += 1;
    return true;
  }

  pursue({ id }: LeftTask, report: (report: WorkReport) => void): boolean {
    if (this.outlives) this.pursued.set(id, report);
    return this.outlives;
  }

  release(): void {
    if (this.reserved === 0) throw new Error('a slot was released that was not reserved');
    this.reserved -= 1;
  }

  start(task: Task, report: (report: WorkReport) => void, log: TaskLog = () => undefined): void {
    if (this.dead) return;
    if (this.reserved === 0) throw new Error(`task ${task.id} was started without a slot`);
    this.reserved -= 1;
    this.#logs.set(task.id, log);
    if (this.started.some((other) => other.id === task.id)) throw new Error(`task ${task.id} was started twice`);
    this.#trace(`work.start ${task.id}`);
    this.started.push(structuredClone(task));
    this.#running.set(task.id, report);
    const own = this.behave(task);
    if (own !== null) this.#clock.defer(() => this.answer(task.id, own));
  }

  abort(taskId: string): void {
    if (this.dead) return;
    this.#trace(`work.abort ${taskId}`);
    this.aborted.push(taskId);
    if (!this.ignoreAborts) this.#clock.defer(() => this.answer(taskId, { kind: 'aborted', outcome: 'aborted' }));
  }

  print(taskId: string, text: string, truncated?: boolean): void {
    this.#logs.get(taskId)?.('stdout', text, truncated);
  }

  /** Reports on a running task: by its identity, or by its node's path where one task of it runs. */
  answer(idOrNode: string, report: WorkReport): boolean {
    if (this.dead) return false;
    const id = this.#running.has(idOrNode)
      ? idOrNode
      : this.running.find((running) => running.slice(running.indexOf('/') + 1).startsWith(`${idOrNode}/`));
    const tell = id === undefined ? undefined : this.#running.get(id);
    if (id === undefined || tell === undefined) return false;
    this.#running.delete(id);
    this.#trace(`work.report ${id} ${report.kind}`);
    tell(report);
    return true;
  }

  complete(idOrNode: string, output: unknown = null): boolean {
    return this.answer(idOrNode, { kind: 'completed', output });
  }

  fail(idOrNode: string, error = 'broken', retryable = true): boolean {
    return this.answer(idOrNode, { kind: 'failed', error, code: 'FS_FAILED', retryable });
  }
}

export interface FakeLinkOptions {
  id?: string;
  kind?: WorkerLink['kind'];
  capabilities?: string[];
  slots?: number;
  project?: string | null;
}

/** A worker or agent of another process: does nothing by itself, and outlives the engine that it talks to. */
export class FakeLink implements WorkerLink {
  readonly workerId: string;
  readonly kind: WorkerLink['kind'];
  capabilities: string[];
  slots: number;
  project: string | null;
  /** Every task that was pushed here, oldest first. */
  readonly pushed: Task[] = [];
  /** Tasks it was told to end. */
  readonly cancelled: string[] = [];
  /** Tokens of what it has, by task: it lists these. */
  readonly held = new Map<string, string>();
  /** The engine hung up. */
  closed = false;
  /** Called in the middle of a push. */
  onRun: (task: Task) => void = () => undefined;
  #rig: Rig | null = null;

  constructor({ id, kind = 'worker', capabilities = ['http'], slots = 1, project = null }: FakeLinkOptions = {}) {
    this.workerId = id ?? `${kind}-1`;
    this.kind = kind;
    this.capabilities = capabilities;
    this.slots = slots;
    this.project = project;
  }

  get name(): string {
    return `name of ${this.workerId}`;
  }

  get #connected(): Rig {
    if (this.#rig === null) throw new Error(`${this.workerId} was never connected`);
    return this.#rig;
  }

  get gate(): WorkerGate {
    return this.#connected.engine.workers;
  }

  run(task: Task, token: string): void {
    this.pushed.push(structuredClone(task));
    this.held.set(task.id, token);
    this.onRun(task);
  }

  cancel(taskId: string): void {
    this.cancelled.push(taskId);
  }

  close(): void {
    this.closed = true;
  }

  /** Says hello to a rig's engine; answers what goes on. */
  async connect(rig: Rig, held: HeldTask[] = this.list()): Promise<string[]> {
    this.#rig = rig;
    const keep = await this.gate.connected(this, held);
    await rig.settle();
    return keep;
  }

  disconnect(): void {
    this.gate.disconnected(this);
  }

  list(): HeldTask[] {
    return [...this.held].map(([taskId, token]) => ({ taskId, token }));
  }

  beat(held: string[] = [...this.held.keys()]): string[] {
    return this.gate.heartbeat(this, held);
  }

  /** Reports on a task, which it no longer has, and lets happen what follows; answers whether that was discarded. */
  async report(taskId: string, report: WorkReport, token = this.held.get(taskId) ?? ''): Promise<boolean> {
    this.held.delete(taskId);
    const answer = this.gate.result(this, taskId, token, report);
    await this.#connected.settle();
    return (await answer).discarded;
  }

  complete(taskId: string, output: unknown = null): Promise<boolean> {
    return this.report(taskId, { kind: 'completed', output });
  }

  print(taskId: string, text: string, truncated = false): void {
    this.gate.log(this, taskId, this.held.get(taskId) ?? '', 'stdout', text, truncated);
  }
}

class RecordingBus implements Bus {
  readonly stops: StopMessage[] = [];
  readonly events: { executionId: string; event: ExecutionEvent }[] = [];
  readonly receipts: StopReceipt[] = [];
  readonly items: ExecutionItem[] = [];
  readonly #trace: (line: string) => void;
  #onStop: (message: StopMessage) => void = () => undefined;

  constructor(trace: (line: string) => void) {
    this.#trace = trace;
  }

  hasListeners(): boolean {
    return true;
  }

  hasListListeners(): boolean {
    return true;
  }

  event(executionId: string, event: ExecutionEvent): void {
    this.#trace(`bus.event ${executionId} ${JSON.stringify(event)}`);
    this.events.push({ executionId, event });
  }

  changed(item: ExecutionItem): void {
    this.items.push(structuredClone(item));
  }

  receipt(receipt: StopReceipt): void {
    this.receipts.push(structuredClone(receipt));
  }

  stop(message: StopMessage): void {
    this.stops.push(message);
  }

  onStop(handler: (message: StopMessage) => void): void {
    this.#onStop = handler;
  }

  tell(): void {}
  onHint(): void {}
  onGap(): void {}
  othersFollow(): void {}

  follows(): string[] {
    return [];
  }

  /** A STOP that another engine sent. */
  hear(message: StopMessage): void {
    this.#onStop(message);
  }
}

export interface RigOptions extends Partial<EngineOptions> {
  /** Of an engine before, which is dead: what it left. */
  inner?: MemoryStore;
  ids?: Ids;
  startMs?: number;
  expressions?: Expressions;
  intervene?: StoreGate['intervene'];
  behave?: FakeWork['behave'];
  /** Of the in-process work; default: no limit. */
  slots?: number;
  /** As that of FakeWork. */
  outlives?: boolean;
}

export interface Rig {
  readonly engine: EngineApi;
  readonly clock: VirtualClock;
  readonly gate: StoreGate;
  /** The store behind the gate: what a test reads and writes past the engine. */
  readonly store: MemoryStore;
  readonly work: FakeWork;
  readonly bus: RecordingBus;
  readonly ids: Ids;
  /** Commits, announcements and work in the order they happened. */
  readonly trace: string[];
  /** What the engine logged as errors: a test that expects some takes them out. */
  readonly errors: string[];
  /** Answers the workflow's name. */
  save(yaml: string): Promise<string>;
  /** Starts an execution and lets everything happen that needs no time. */
  start(workflow: string, input?: Record<string, Json>, more?: Partial<StartRequest>): Promise<string>;
  /** Saves, then starts. */
  run(yaml: string, input?: Record<string, Json>): Promise<string>;
  stop(id: string): Promise<Awaited<ReturnType<EngineApi['requestStop']>>>;
  settle(): Promise<void>;
  advance(ms: number): Promise<void>;
  record(id: string): Promise<ExecutionRecord>;
  node(id: string, path: string): Promise<NodeRecord>;
  /** Status of each top-level node. */
  statuses(id: string): Promise<Record<string, string>>;
  events(id: string): Promise<EventRow[]>;
  /** Events as short texts: `node.started a`. */
  told(id: string): Promise<string[]>;
  output(id: string, path: string): Promise<Json | undefined>;
  receipt(id: string): Promise<StopReceipt>;
  /** What is in the task queue. */
  tasks(): Promise<TaskRow[]>;
  /** Moves time on while these workers send their heartbeats. */
  live(ms: number, ...links: FakeLink[]): Promise<void>;
  /** Ids of the children of an execution, in order of creation. */
  children(id: string): Promise<string[]>;
  /** Kills the engine as `kill -9` would; the answer runs on what it left. */
  crash(downMs?: number, options?: RigOptions): Promise<Rig>;
  /** Ends what the rig has; checks that what is stored makes sense. */
  close(): Promise<void>;
}

const open = new Set<Rig>();

/** Closes every rig that the test opened, and checks what each leaves behind: for `afterEach`. */
export async function closeRigs(): Promise<void> {
  const rigs = [...open];
  open.clear();
  for (const rig of rigs) await rig.close();
}

export async function openRig(options: RigOptions = {}): Promise<Rig> {
  const {
    inner = createMemoryStore(),
    ids = countingIds(),
    startMs,
    expressions = createExpressions(),
    intervene,
    behave,
    slots,
    outlives = false,
    ...engineOptions
  } = options;
  const clock = new VirtualClock(startMs);
  const trace: string[] = [];
  const tell = (line: string): void => {
    trace.push(`${clock.nowMs()} ${line}`);
  };
  const gate = new StoreGate(inner);
  gate.onCommit = (commit) => tell(`commit ${JSON.stringify(commit)}`);
  if (intervene !== undefined) gate.intervene = intervene;
  const work = new FakeWork(clock, tell);
  if (behave !== undefined) work.behave = behave;
  if (slots !== undefined) work.slots = slots;
  work.outlives = outlives;
  const bus = new RecordingBus(tell);
  const errors: string[] = [];
  const log: EnginePorts['log'] = {
    info: () => undefined,
    warn: (data, message) => {
      if (message.includes('refused')) errors.push(`${message} ${JSON.stringify(data)}`);
    },
    error: (data, message) => errors.push(`${message} ${JSON.stringify(data)}`),
  };
  const tokens = { make: () => `token-${ids.next()}`, hash: (token: string) => `hash of ${token}` };
  const engine = composeEngine({ store: gate.store, bus, clock, ids, expressions, work, tokens, log }, engineOptions);
  let closed = false;

  const rig: Rig = {
    engine,
    clock,
    gate,
    store: inner,
    work,
    bus,
    ids,
    trace,
    errors,

    async save(yaml) {
      const { source, hash, compiled } = loadDefinition(yaml, 'yaml');
      await inner.saveDefinition({ project: 'default', name: compiled.name, hash, source, savedAtMs: clock.nowMs() });
      const changed = engine.workflowChanged('default', compiled.name);
      await clock.settle();
      await changed;
      return compiled.name;
    },

    async start(workflow, input = {}, more = {}) {
      const started = engine.startExecution({
        project: 'default',
        workflow,
        input,
        labels: {},
        idempotencyKey: null,
        ...more,
      });
      started.catch(() => undefined);
      await clock.settle();
      // A dead engine answers nobody.
      return gate.dead ? '' : (await started).header.id;
    },

    async run(yaml, input) {
      return rig.start(await rig.save(yaml), input);
    },

    async stop(id) {
      const stopped = engine.requestStop(id);
      stopped.catch(() => undefined);
      await clock.settle();
      return gate.dead ? { kind: 'missing' } : stopped;
    },

    settle: () => clock.settle(),
    advance: (ms) => clock.advance(ms),

    async record(id) {
      const stored = await inner.getExecution(id);
      if (stored === null) throw new Error(`no execution ${id}`);
      const { name, hash } = stored.header.workflow;
      const row = await inner.getDefinition('default', name, hash);
      const compiled = row === null ? null : loadDefinition(row.source).compiled;
      return recordOf(stored, compiled, await inner.getReceipt(id), clock.nowMs());
    },

    async node(id, path) {
      let { nodes } = await rig.record(id);
      const names = path.split('/');
      const last = names.pop() ?? '';
      for (const name of names) nodes = nodes[name]?.iteration?.nodes ?? {};
      const node = nodes[last];
      if (node === undefined) throw new Error(`no node ${path} in ${id}`);
      return node;
    },

    async statuses(id) {
      return Object.fromEntries(
        Object.entries((await rig.record(id)).nodes).map(([name, { status }]) => [name, status]),
      );
    },

    events: async (id) => (await inner.readEvents(id, 1, 1e9)).items,

    async told(id) {
      return (await rig.events(id)).map(({ type, node, iterations }) =>
        [type, node, iterations === null ? null : `[${iterations}]`].filter((part) => part !== null).join(' '),
      );
    },

    async output(id, path) {
      const stored = await inner.getExecution(id);
      const row = stored?.nodes.findLast((each) => each.path === path);
      return row === undefined ? undefined : inner.readResult(`${id}/${row.key}/${row.attempt}`);
    },

    async receipt(id) {
      const receipt = await inner.getReceipt(id);
      if (receipt === null) throw new Error(`no receipt of ${id}`);
      return receiptOf(receipt);
    },

    tasks: () => inner.listTasks(null, 1e6),

    async live(ms, ...links) {
      for (let left = ms; left > 0; left -= 2_000) {
        await clock.advance(Math.min(2_000, left));
        for (const link of links) link.beat();
        await clock.settle();
      }
    },

    async children(id) {
      const { items } = await inner.listExecutions({ project: null, parent: id, limit: 1e6 });
      return items.map((item) => item.id).reverse();
    },

    async crash(downMs = 0, more = {}) {
      gate.dead = true;
      work.dead = true;
      open.delete(rig);
      await rig.close();
      return openRig({
        ...options,
        inner,
        ids,
        expressions: createExpressions(),
        startMs: clock.nowMs() + downMs,
        ...more,
      });
    },

    async close() {
      open.delete(rig);
      if (closed) return;
      closed = true;
      if (!gate.dead) {
        await clock.settle();
        await checkStore(inner);
      }
      gate.dead = true;
      await expressions.close();
      if (errors.length > 0) throw new Error(`the engine logged: ${errors.join('\n')}`);
    },
  };

  const started = engine.start();
  await clock.settle();
  await started;
  open.add(rig);
  return rig;
}

/**
 * What holds of every stored execution at every moment (I1 to I3, events without gaps, no task without its node).
 * @throws Error
 */
export async function checkStore(store: ExecutionStore): Promise<void> {
  const { items } = await store.listExecutions({ project: null, withChildren: true, limit: 1e6 });
  for (const { id, task } of await store.listTasks(null, 1e6)) {
    const stored = await store.getExecution(task.executionId);
    const row = stored?.nodes.find(({ key }) => `${task.executionId}/${key}` === task.idempotencyKey);
    if (stored?.header.endedAtMs !== null) throw new Error(`task ${id} is in the queue, its execution has ended`);
    if (row?.status !== 'Running' || row.attempt !== task.attempt)
      throw new Error(`task ${id} is in the queue, its node is ${row?.status} with attempt ${row?.attempt}`);
  }
  for (const { id } of items) {
    const stored = await store.getExecution(id);
    if (stored === null) continue;
    const { header, nodes } = stored;
    const { items: events } = await store.readEvents(id, 1, 1e9);
    const fault = (what: string): Error =>
      new Error(
        `${id} (${header.workflow.name}): ${what}\n${events.map((e) => `${e.seq} ${e.type} ${e.node ?? ''}`).join('\n')}`,
      );
    for (const [index, { seq }] of events.entries())
      if (seq !== index + 1) throw fault(`event ${index + 1} has seq ${seq}`);
    if (header.seq !== events.length) throw fault(`seq ${header.seq} with ${events.length} events`);
    const ended = header.status === 'Complete' || header.status === 'Failed';
    const terminal = events.findIndex(({ type }) => type === 'execution.completed' || type === 'execution.failed');
    if (ended !== terminal >= 0) throw fault(`${header.status} with terminal event ${terminal}`);
    if (ended && terminal !== events.length - 1) throw fault('an event follows the terminal one');
    if (ended !== (header.endedAtMs !== null)) throw fault(`${header.status}, ended at ${header.endedAtMs}`);
    if (ended && nodes.some(({ status }) => status === 'Running'))
      throw fault(`ended with a Running node ${JSON.stringify(nodes)}`);
    if (header.status === 'Complete' && header.error !== null) throw fault('Complete with an error');
    if (header.status === 'Failed' && header.error === null) throw fault('Failed without an error');
    if ((header.error === 'workflow stopped by user') !== (ended && header.stop !== null)) {
      throw fault(`error "${header.error}" with stop ${JSON.stringify(header.stop)}`);
    }
    const stopped = events.findIndex(({ type }) => type === 'stop.requested');
    for (const { type, node } of stopped < 0 ? [] : events.slice(stopped)) {
      if (
        [
          'node.started',
          'node.held',
          'node.completed',
          'iteration.started',
          'task.queued',
          'execution.started',
        ].includes(type)
      ) {
        throw fault(`${type} ${node ?? ''} after the stop`);
      }
    }
    // A loop's next try has iterations of the same index.
    const completed = events
      .filter(({ type, iterations }) => type === 'node.completed' && (iterations ?? []).length === 0)
      .map(({ node }) => node);
    if (new Set(completed).size !== completed.length) throw fault('a node completed twice');
  }
}
