/** Several engines on one store and one clock, their bus in the hands of a test. */
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { loadDefinition } from '../../src/definition/compile.ts';
import type { EngineApi } from '../../src/engine/api.ts';
import type { EngineOptions } from '../../src/engine/engine.ts';
import type { Peers } from '../../src/engine/remote-tasks.ts';
import { receiptOf } from '../../src/engine/stop-report.ts';
import type { Bus, EngineHint, StopMessage } from '../../src/ports/bus.ts';
import type { EventRow, NodeRow } from '../../src/ports/store.ts';
import type { TaskRow } from '../../src/ports/task-queue.ts';
import { composeEngine } from '../../src/runtime.ts';
import type { Json, StopReceipt } from '../../src/wire.ts';
import { checkStore, FakeWork, type Rig, StoreGate } from './engine.ts';
import { ProcessClock } from './process-clock.ts';
import { countingIds } from './seeds.ts';
import { VirtualClock } from './virtual-clock.ts';

/** What becomes of what one engine says to the others. */
export type Fate = 'told' | 'lost' | 'doubled';

/** Brings hints and stops to all engines but their sender, as the test says. */
export class Hub {
  readonly hints: { from: string; hint: EngineHint }[] = [];
  fateOf: (hint: EngineHint | StopMessage) => Fate = () => 'told';
  readonly #buses = new Map<string, HubBus>();
  readonly #clock: VirtualClock;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  add(name: string, process: ProcessClock): HubBus {
    const bus = new HubBus(this, name, process);
    this.#buses.set(name, bus);
    return bus;
  }

  cut(name: string): void {
    this.#buses.delete(name);
  }

  send(from: string, hint: EngineHint | StopMessage, to: (bus: HubBus) => void): void {
    const fate = this.fateOf(hint);
    for (let times = fate === 'lost' ? 0 : fate === 'doubled' ? 2 : 1; times > 0; times--) {
      this.#clock.defer(() => {
        for (const [name, bus] of this.#buses) if (name !== from) bus.process.reach(() => to(bus));
      });
    }
  }
}

export class HubBus implements Bus {
  readonly process: ProcessClock;
  readonly receipts: StopReceipt[] = [];
  readonly #hub: Hub;
  readonly #name: string;
  readonly #stops: ((message: StopMessage) => void)[] = [];
  readonly #hints: ((hint: EngineHint) => void)[] = [];
  readonly #gaps: (() => void)[] = [];

  constructor(hub: Hub, name: string, process: ProcessClock) {
    this.#hub = hub;
    this.#name = name;
    this.process = process;
  }

  hasListeners(): boolean {
    return false;
  }
  hasListListeners(): boolean {
    return false;
  }
  event(): void {}
  changed(): void {}
  othersFollow(): void {}
  follows(): string[] {
    return [];
  }
  receipt(receipt: StopReceipt): void {
    this.receipts.push(structuredClone(receipt));
  }
  stop(message: StopMessage): void {
    this.hearStop(message);
    this.#hub.send(this.#name, message, (bus) => bus.hearStop(message));
  }
  onStop(handler: (message: StopMessage) => void): void {
    this.#stops.push(handler);
  }
  tell(hint: EngineHint): void {
    this.#hub.hints.push({ from: this.#name, hint });
    this.#hub.send(this.#name, hint, (bus) => bus.hear(hint));
  }
  onHint(handler: (hint: EngineHint) => void): void {
    this.#hints.push(handler);
  }
  onGap(handler: () => void): void {
    this.#gaps.push(handler);
  }
  hearStop(message: StopMessage): void {
    for (const handler of this.#stops) handler(message);
  }
  hear(hint: EngineHint): void {
    for (const handler of this.#hints) handler(hint);
  }
  gap(): void {
    for (const handler of this.#gaps) handler();
  }
}

export interface EngineRig {
  readonly engine: EngineApi;
  /** Stands still when it is told to: no timer fires, no message arrives. Answers of the store that nobody holds are in. */
  readonly process: ProcessClock;
  readonly gate: StoreGate;
  readonly work: FakeWork;
  readonly bus: HubBus;
  readonly errors: string[];
  /** Calls of the store by method, since it was last cleared. */
  readonly calls: Map<string, number>;
  /** `kill -9`; the others know when they look. */
  kill(): void;
}

export interface EngineRigOptions extends Partial<EngineOptions> {
  /** Of its own pool. */
  slots?: number;
  /** How wrong its wall clock is. */
  skewMs?: number;
  /** It learns of the others by their heartbeats alone; otherwise at once, from `gone`. */
  knows?: 'heartbeats';
}

/** A cluster of engines. */
export class Engines {
  readonly clock = new VirtualClock();
  readonly ids = countingIds();
  readonly store: MemoryStore;
  readonly hub = new Hub(this.clock);
  readonly all: EngineRig[] = [];
  /** Engines that the others know to be gone. */
  readonly gone = new Set<string>();
  readonly #expressions = createExpressions();

  constructor() {
    this.store = createMemoryStore({ cluster: true, nowMs: () => this.clock.nowMs() });
  }

  async start(options: EngineRigOptions = {}): Promise<EngineRig> {
    const { slots = 0, knows, skewMs = 0, ...engineOptions } = options;
    const name = `engine ${this.all.length + 1}`;
    const gate = new StoreGate(this.store);
    const calls = new Map<string, number>();
    gate.intervene = ({ method }) => {
      calls.set(method, (calls.get(method) ?? 0) + 1);
      return undefined;
    };
    const process = new ProcessClock(this.clock);
    process.skewMs = skewMs;
    const work = new FakeWork(process, () => undefined);
    work.slots = slots;
    const bus = this.hub.add(name, process);
    const errors: string[] = [];
    const { clock, ids } = this;
    const engine = composeEngine(
      {
        store: gate.store,
        bus,
        clock: process,
        ids,
        expressions: this.#expressions,
        work,
        tokens: { make: () => `token-${ids.next()}`, hash: (token: string) => `hash of ${token}` },
        log: {
          info: () => undefined,
          warn: () => undefined,
          error: (data, message) => {
            if (!gate.dead) errors.push(`${message} ${JSON.stringify(data)}`);
          },
        },
      },
      engineOptions,
    );
    const rig: EngineRig = {
      engine,
      process,
      gate,
      work,
      bus,
      errors,
      calls,
      kill: () => {
        gate.dead = true;
        work.dead = true;
        this.hub.cut(name);
        this.gone.add(engine.id);
      },
    };
    const peers: Peers = {
      hasOthers: () => this.all.some((other) => other !== rig && !this.gone.has(other.engine.id)),
      isAlive: (id) => this.all.some((other) => other.engine.id === id) && !this.gone.has(id),
      workerName: () => null,
      offers: () => false,
    };
    if (knows === undefined) Object.assign((engine as unknown as { peers: Peers }).peers, peers);
    const started = engine.start();
    await clock.settle();
    await started;
    this.all.push(rig);
    return rig;
  }

  /** Saves a workflow and starts it at an engine; answers the execution's id. */
  async run(at: EngineRig, yaml: string, input: Record<string, Json> = {}): Promise<string> {
    const { source, hash, compiled } = loadDefinition(yaml, 'yaml');
    const savedAtMs = this.clock.nowMs();
    await this.store.saveDefinition({ project: 'default', name: compiled.name, hash, source, savedAtMs });
    const started = at.engine.startExecution({
      project: 'default',
      workflow: compiled.name,
      input,
      labels: {},
      idempotencyKey: null,
    });
    await this.clock.settle();
    return (await started).header.id;
  }

  async stop(at: EngineRig, id: string): Promise<void> {
    const stopped = at.engine.requestStop(id);
    await this.clock.settle();
    await stopped;
  }

  settle(): Promise<void> {
    return this.clock.settle();
  }

  /** Moves time on, with the heartbeats of these workers. */
  async live(ms: number, ...links: { beat(): string[] }[]): Promise<void> {
    for (let left = ms; left > 0; left -= 2_000) {
      await this.clock.advance(Math.min(2_000, left));
      for (const link of links) link.beat();
      await this.clock.settle();
    }
  }

  /** What a `FakeLink` needs of a rig to connect to one of these engines. */
  at({ engine }: EngineRig): Rig {
    return { engine, settle: () => this.clock.settle() } as Rig;
  }

  async node(id: string, path: string): Promise<NodeRow> {
    const row = (await this.store.getExecution(id))?.nodes.find((node) => node.path === path);
    if (row === undefined) throw new Error(`no node ${path} in ${id}`);
    return row;
  }

  async tasks(): Promise<TaskRow[]> {
    const rows = await this.store.listTasks(null, 1e6);
    return (await this.store.cluster?.getTasks(rows.map(({ id }) => id))) ?? [];
  }

  async events(id: string): Promise<EventRow[]> {
    return (await this.store.readEvents(id, 1, 1e9)).items;
  }

  async told(id: string): Promise<string[]> {
    return (await this.events(id)).map(({ type, node }) => (node === null ? type : `${type} ${node}`));
  }

  async receipt(id: string): Promise<StopReceipt> {
    const receipt = await this.store.getReceipt(id);
    if (receipt === null) throw new Error(`no receipt of ${id}`);
    return receiptOf(receipt);
  }

  discarded(): number {
    return this.all.reduce((sum, { engine }) => sum + engine.metrics().lateResultsDiscarded, 0);
  }

  async close(): Promise<void> {
    await this.clock.settle();
    await checkStore(this.store);
    for (const { gate } of this.all) gate.dead = true;
    await this.#expressions.close();
    const errors = this.all.flatMap((rig) => rig.errors);
    if (errors.length > 0) throw new Error(`engines logged: ${errors.join('\n')}`);
  }
}
