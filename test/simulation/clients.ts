/** People and programs that start, stop, read and follow, by the server's own verbs; and what each was told. */
import type { Caller } from '../../src/server/access.ts';
import { call as callVerb } from '../../src/server/call.ts';
import { verbs } from '../../src/server/verbs/table.ts';
import type { Context, Verb } from '../../src/server/verbs/verb.ts';
import type {
  BulkStopAnswer,
  EventPage,
  ExecutionEvent,
  ExecutionItem,
  ExecutionRecord,
  StopAnswer,
  StopReceipt,
} from '../../src/wire.ts';
import { copy, tail } from './database.ts';
import type { Ledger } from './ledger.ts';
import type { Load } from './plan.ts';
import { Process, type Scheduler, type Streams } from './scheduler.ts';
import { type ClientSocket, io, register, type Wires } from './sockets.ts';
import type { Trace } from './trace.ts';

const byName = new Map<string, Verb>(verbs.map((verb) => [verb.name, verb]));

export const operator: Caller = { keyId: 'key-1', name: 'somebody', role: 'admin', project: null };
export const stranger: Caller = { keyId: 'key-2', name: 'a stranger', role: 'admin', project: 'elsewhere' };

/** Until a client asks again, elsewhere. */
const PATIENCE_MS = 4_000;

/** An engine that answers clients. */
export interface Door {
  name: string;
  process: Process;
  context: Context;
}

export interface ClientWorld {
  scheduler: Scheduler;
  streams: Streams;
  ledger: Ledger;
  trace: Trace;
  /** Engines that take requests now. */
  doors(): Door[];
  /** Messages between clients and this engine are lost now. */
  cut(door: Door, to: boolean): boolean;
  healed(): boolean;
  /** Of those who follow. */
  wires: Wires;
  /** Id of the engine that this one is connected to. */
  engineOf(client: Process): string;
}

type Told = { ok: true; status: number; data: unknown } | { ok: false; code: string };

/** Everybody who asks. Ids of executions are known by the load's starts. */
export class Clients {
  readonly #world: ClientWorld;
  readonly #process: Process;
  /** By position of the start in the load. */
  readonly ids = new Map<number, string>();
  /** Stops that were accepted: by execution, their request. */
  readonly accepted = new Map<string, string>();
  readonly followers: SimFollower[] = [];
  /** Requests that have not ended. */
  open = 0;

  constructor(world: ClientWorld) {
    this.#world = world;
    this.#process = new Process('clients', world.scheduler);
  }

  do(index: number, load: Load): void {
    const { kind } = load;
    if (kind === 'start') {
      const input = { workflow: load.workflow, project: 'default', input: { n: load.n } };
      this.#ask(
        'execution.start',
        load.key === null ? input : { ...input, idempotencyKey: load.key },
        false,
        (told) => {
          if (!told.ok) return;
          const { id } = told.data as ExecutionRecord;
          this.ids.set(index, id);
          this.#known(id, 'was told of');
        },
      );
      return;
    }
    if (kind === 'pause') {
      this.#ask('admission.set', { paused: true }, true);
      this.#process.later(load.forMs, () => this.#ask('admission.set', { paused: false }, true));
      return;
    }
    if (kind === 'disable') {
      this.#ask('workflow.disable', { name: load.workflow }, true);
      this.#process.later(load.forMs, () => this.#ask('workflow.enable', { name: load.workflow }, true));
      return;
    }
    if (kind === 'save') return;
    if (kind === 'stopMany') {
      this.#stopMany(load);
      return;
    }
    const id = this.ids.get(load.start);
    if (id === undefined) {
      // Not there yet: a little later, or never.
      if (!this.#world.healed()) this.#process.later(700, () => this.do(index, load));
      return;
    }
    switch (kind) {
      case 'stop':
        this.stop(load.child === true ? (this.#childOf(id) ?? id) : id);
        break;
      case 'trigger':
        this.#ask('execution.trigger', { id, name: load.name, payload: load.payload }, true);
        break;
      case 'delete':
        this.#ask('execution.delete', { id }, true, (told) => {
          if (told.ok && this.#world.ledger.executions.get(id)?.deleted !== true)
            this.#fault(`${id} was told to be deleted, and is there`);
        });
        break;
      case 'subscribe':
        this.followers.push(new SimFollower(this.#world, this, id, this.followers.length));
        break;
      case 'read':
        this.#read(id, load.what);
        break;
      case 'stranger':
        this.#stranger(id, load.what);
        break;
    }
  }

  /** What was shut for a while is open in the end, in whatever order that was asked. */
  heal(load: readonly Load[]): void {
    const open = (): void => {
      if (load.some(({ kind }) => kind === 'pause')) this.#ask('admission.set', { paused: false }, true);
      for (const item of load) if (item.kind === 'disable') this.#ask('workflow.enable', { name: item.workflow }, true);
    };
    // Once more when whoever wanted it shut has given up.
    this.#process.later(900, open);
    this.#process.later(PATIENCE_MS + 1_000, open);
  }

  /** Asks until it is answered for good. */
  stop(id: string): void {
    this.#ask('execution.stop', { id }, true, (told) => {
      const known = this.#known(id, 'is told to stop');
      if (known === undefined || known.deleted) return;
      if (!told.ok) {
        if (told.code === 'FS_ENDED' && (known.endAtMs === null || known.stop !== null))
          this.#fault(`the stop of ${id} was answered 409, and it ${known.endAtMs === null ? 'lives' : 'was stopped'}`);
        else if (!['FS_ENDED', 'FS_UNAVAILABLE'].includes(told.code))
          this.#fault(`the stop of ${id} was answered ${told.code}`);
        return;
      }
      const answer = told.data as StopAnswer;
      if (known.stop?.requestId !== answer.requestId)
        this.#fault(`the stop of ${id} was accepted as ${answer.requestId}, stored is ${known.stop?.requestId} (I7)`);
      const before = this.accepted.get(id);
      if (before !== undefined && before !== answer.requestId)
        this.#fault(`the stop of ${id} was accepted as ${before}, then as ${answer.requestId}`);
      this.accepted.set(id, answer.requestId);
    });
  }

  #stopMany(load: Load & { kind: 'stopMany' }): void {
    const ids = [...this.ids.values()];
    const filter =
      load.by === 'all'
        ? { all: true }
        : load.by === 'workflow'
          ? { workflow: load.workflow }
          : { ids: ids.slice(0, 2) };
    if (load.by === 'ids' && ids.length === 0) return;
    const taken = (told: Told): void => {
      if (!told.ok) return;
      const { requested } = told.data as BulkStopAnswer;
      for (const id of requested) {
        const known = this.#known(id, 'was stopped in bulk');
        if (known !== undefined && !known.deleted && known.stop === null)
          this.#fault(`the stop of ${id} in bulk was accepted, and none is stored (I7)`);
        if (known?.stop != null) this.accepted.set(id, known.stop.requestId);
      }
    };
    if (!load.dryRun) {
      this.#ask('executions.stop', { filter }, true, taken);
      return;
    }
    this.#ask('executions.stop', { filter, dryRun: true }, true, (told, door) => {
      if (told.ok) this.#ask('executions.stop', { setId: (told.data as { setId: string }).setId }, false, taken, door);
    });
  }

  #read(id: string, what: (Load & { kind: 'read' })['what']): void {
    switch (what) {
      case 'get':
        this.#ask('execution.get', { id }, true, (told) => told.ok && this.checkItem(told.data as ExecutionRecord));
        break;
      case 'events':
        this.#ask('execution.events', { id, from: 1 }, true, (told) => {
          if (!told.ok) return;
          (told.data as EventPage).items.forEach((event) => {
            this.#world.ledger.eventLeaves(id, event);
          });
        });
        break;
      case 'receipt':
        this.#ask('execution.receipt', { id }, true);
        break;
      case 'preview':
        this.#ask('execution.preview', { id }, true);
        break;
      case 'results':
        this.#ask('execution.results', { id }, true);
        break;
      case 'list':
        this.#ask('execution.list', { project: 'default' }, true);
        break;
    }
  }

  /** What a client sees has happened (I7), and an end stays (I1). */
  checkItem(record: ExecutionItem): void {
    const known = this.#world.ledger.executions.get(record.id);
    if (known === undefined) this.#fault(`${record.id} was read, and nobody created it`);
    else if (record.seq > (known.events.at(-1)?.seq ?? 0))
      this.#fault(`${record.id} was read at event ${record.seq} (I7)`);
    else if (record.endedAt !== null && known.endAtMs === null) this.#fault(`${record.id} was read as ended (I7)`);
  }

  #stranger(id: string, what: (Load & { kind: 'stranger' })['what']): void {
    const inputs = {
      get: ['execution.get', { id }],
      stop: ['execution.stop', { id }],
      trigger: ['execution.trigger', { id, name: 'go', payload: 1 }],
      stopMany: ['executions.stop', { filter: { ids: [id] } }],
      events: ['execution.events', { id }],
      receipt: ['execution.receipt', { id }],
      delete: ['execution.delete', { id }],
    } as const;
    const [verb, input] = inputs[what];
    this.#ask(
      verb,
      input,
      true,
      (told) => {
        const nothing =
          what === 'stopMany'
            ? told.ok && (told.data as BulkStopAnswer).matched === 0
            : !told.ok && ['FS_NOT_FOUND', 'FS_UNAVAILABLE'].includes(told.code);
        if (!nothing) this.#fault(`a stranger asked for ${verb} of ${id} and was told ${JSON.stringify(told)} (I10)`);
      },
      undefined,
      stranger,
    );
  }

  readReceipt(id: string, then: (receipt: StopReceipt) => void): void {
    this.#ask('execution.receipt', { id }, true, (told) => {
      if (told.ok) then(told.data as StopReceipt);
    });
  }

  #childOf(id: string): string | null {
    for (const known of this.#world.ledger.executions.values())
      if (known.parent?.executionId === id && known.endAtMs === null) return known.id;
    return null;
  }

  #known(id: string, how: string) {
    const known = this.#world.ledger.executions.get(id);
    if (known === undefined) this.#fault(`${id} ${how}, and nobody created it (I7)`);
    return known;
  }

  #fault(text: string): void {
    this.#world.ledger.fault(text);
  }

  /** `again`: it may be asked twice. */
  #ask(
    name: string,
    input: object,
    again: boolean,
    then: (told: Told, door: Door) => void = () => undefined,
    at?: Door,
    caller = operator,
  ): void {
    const { trace } = this.#world;
    this.open += 1;
    const request = (tries: number): void => {
      const repeat = (): void => {
        const shuts = name === 'workflow.disable' || (input as { paused?: boolean }).paused === true;
        if (again && tries < 12 && !(shuts && this.#world.healed())) this.#process.later(300, () => request(tries + 1));
        else this.open -= 1;
      };
      const asked = this.ask(name, input, caller, at, (told, door) => {
        if (told === null || (!told.ok && told.code === 'FS_UNAVAILABLE')) {
          trace.note('clients', `${name} unavailable`);
          repeat();
          return;
        }
        trace.note('clients', `${name} ${told.ok ? told.status : told.code}`);
        this.open -= 1;
        then(told, door);
      });
      if (!asked) repeat();
    };
    request(0);
  }

  /** One request to one engine; `null`: no answer came. False: no engine is there. */
  ask(
    name: string,
    input: object,
    caller: Caller,
    at: Door | undefined,
    then: (told: Told | null, door: Door) => void,
  ): boolean {
    const { streams, trace } = this.#world;
    const random = streams.of('clients');
    const doors = this.#world.doors();
    const door = at ?? doors[Math.floor(random.next() * doors.length)];
    if (door === undefined) return false;
    trace.note('clients', `${name} ${'id' in input ? tail(String(input.id)) : ''} -> ${door.name}`);
    const verb = byName.get(name);
    if (verb === undefined) throw new Error(`no verb ${name}`);
    const there = 0.2 + random.next() * 3;
    const back = 0.2 + random.next() * 3;
    let over = false;
    const end = (told: Told | null): void => {
      if (over) return;
      over = true;
      then(told, door);
    };
    this.#process.later(PATIENCE_MS, () => end(null));
    if (this.#world.cut(door, false)) return true;
    door.process.later(there, () => {
      const answer = (told: Told): void => {
        if (!door.process.alive || this.#world.cut(door, true)) return;
        this.#process.later(back, () => end(told));
      };
      callVerb(door.context, verb, caller, input as Record<string, unknown>).then(
        ({ status, data }) => answer({ ok: true, status, data: copy(data) }),
        (error: unknown) => {
          const code = (error as { code?: unknown }).code;
          if (typeof code !== 'string')
            this.#fault(`${name} broke: ${error instanceof Error ? error.stack : String(error)}`);
          answer({ ok: false, code: String(code) });
        },
      );
    });
    return true;
  }
}

/** Follows one execution over whatever engine lets it in, and goes on from the last event it saw. */
export class SimFollower {
  readonly id: string;
  readonly process: Process;
  /** Each, and when; and which engine told it, since when. */
  readonly seen: { event: ExecutionEvent; atMs: number; sinceMs: number; engine: string }[] = [];
  /** Since when its engine tells it what happens. */
  sinceMs = 0;
  readonly #world: ClientWorld;
  readonly #socket: ClientSocket;
  /** It follows the list of all, too. */
  readonly #listed: boolean;
  /** It is not there, or no more. */
  gone = false;

  constructor(world: ClientWorld, clients: Clients, id: string, number: number) {
    this.#world = world;
    this.id = id;
    this.process = new Process(`follower ${number}`, world.scheduler);
    const url = `sim://follower-${number}`;
    register(url, { process: this.process, wires: world.wires });
    const options = {
      auth: { token: 'admin' },
      reconnectionDelay: 50,
      reconnectionDelayMax: 800,
      timeout: PATIENCE_MS,
    };
    this.#socket = io(`${url}/`, options)
      .on('connect', () => this.#subscribe())
      .on('disconnect', () => this.#lost())
      .on('execution.event', ({ executionId, event }: { executionId: string; event: ExecutionEvent }) => {
        if (executionId === id) this.#take(event);
        else world.ledger.fault(`a client was told of ${executionId}, and follows ${id}`);
      })
      .on('execution.changed', (item: ExecutionItem) => clients.checkItem(item))
      .on('stop.receipt', (receipt: StopReceipt) => this.#checkReceipt(receipt))
      .connect();
    const random = world.streams.of(this.process.name);
    this.#listed = random.next() < 0.4;
    // Now and then it goes elsewhere.
    if (random.next() < 0.4) this.process.later(random.next() * 5_000, () => this.#again());
  }

  #checkReceipt({ executionId, requestId }: StopReceipt): void {
    const { ledger } = this.#world;
    if (executionId !== this.id)
      ledger.fault(`a client was told of the stop of ${executionId}, and follows ${this.id}`);
    else if (ledger.executions.get(executionId)?.stop?.requestId !== requestId)
      ledger.fault(`a client was told of the receipt ${requestId} of ${executionId}, which is not its stop (I7)`);
  }

  #take(event: ExecutionEvent): void {
    const { ledger, scheduler } = this.#world;
    const { seq } = event;
    if (seq !== this.seen.length + 1)
      ledger.fault(`a client saw event ${seq} of ${this.id} after ${this.seen.length} (I7)`);
    else
      this.seen.push({
        event,
        atMs: scheduler.nowMs,
        sinceMs: this.sinceMs,
        engine: this.#world.engineOf(this.process),
      });
  }

  #lost(): void {
    this.sinceMs = Number.POSITIVE_INFINITY;
    // Hung up on by the server, it does not come back by itself.
    this.process.later(100, () => this.#socket.connect());
  }

  #again(): void {
    this.sinceMs = Number.POSITIVE_INFINITY;
    this.#socket.disconnect();
    this.process.later(100, () => this.#socket.connect());
  }

  #subscribe(): void {
    const { ledger, streams } = this.#world;
    // Some are gone before they are answered.
    const random = streams.of(this.process.name);
    if (random.next() < 0.15) this.process.later(random.next() * 8, () => this.#again());
    const asked = this.#socket.timeout(PATIENCE_MS);
    asked.emitWithAck('execution.subscribe', { id: this.id, from: this.seen.length + 1 }).then(
      (answer) => {
        const { ok, error } = answer as { ok: boolean; error?: { code: string } };
        if (ok) {
          this.sinceMs = this.#world.scheduler.nowMs;
          if (this.#listed) this.#socket.emit('executions.subscribe', {});
          return;
        }
        if (error?.code === 'FS_UNAVAILABLE') return this.#again();
        this.gone = true;
        if (error?.code !== 'FS_NOT_FOUND' || ledger.executions.get(this.id)?.deleted !== true)
          ledger.fault(`a client asked to follow ${this.id} and was told ${error?.code}`);
      },
      () => this.#again(),
    );
  }

  /** It has seen everything there is. */
  get upToDate(): boolean {
    const known = this.#world.ledger.executions.get(this.id);
    return this.gone || known === undefined || known.deleted || known.events.length === this.seen.length;
  }
}
