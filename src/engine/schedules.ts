import { nextInstantMs, parseCronSchedule, type Schedule } from '../definition/schedule.ts';
import { hasCode, messageOf } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { Json } from '../wire.ts';
import type { Log } from './environment.ts';
import type { Timer, Timers } from './timers.ts';
import type { KnownWorkflow } from './workflows.ts';

const CLOCKS_DIFFER_MS = 3_600_000;

interface Live {
  schedule: Schedule;
  /** Names this schedule in the store: its last instant, its executions' unique keys. */
  name: string;
  input: Json;
  /** The last instant that this engine knows to be dealt with. */
  lastAtMs: number;
  nextAtMs: number | null;
  timer: Timer | null;
}

export interface SchedulesOptions {
  store: ExecutionStore;
  clock: Clock;
  timers: Timers;
  log: Log;
  /** Starts an execution unless one with this unique key exists. */
  start(project: string, name: string, input: Json, uniqueKey: string): Promise<void>;
  find(project: string, name: string): KnownWorkflow | null | Promise<KnownWorkflow | null>;
}

/**
 * Starts executions by `on.schedule` of the last saved version of every workflow.
 *
 * An instant never starts two executions: it is part of their unique key. Instants that passed while no
 * engine ran are made up for by one execution, at the last of them.
 */
export class Schedules {
  readonly #options: SchedulesOptions;
  readonly #live = new Map<string, Live[]>();
  #closed = false;

  constructor(options: SchedulesOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    for (const row of await this.#options.store.listDefinitions(null)) {
      const source = row.source as { on?: { schedule?: unknown } };
      if (source.on?.schedule !== undefined) await this.refresh(row.project, row.name, true);
    }
  }

  /** Definitions were saved by another engine. */
  async refreshAll(): Promise<void> {
    const known = new Set(this.#live.keys());
    for (const { project, name, source } of await this.#options.store.listDefinitions(null)) {
      const isScheduled = (source as { on?: { schedule?: unknown } }).on?.schedule !== undefined;
      if (isScheduled || known.has(`${project}/${name}`)) await this.refresh(project, name);
    }
  }

  close(): void {
    this.#closed = true;
    for (const schedules of this.#live.values()) this.#disarm(schedules);
    this.#live.clear();
  }

  nextInstants(project: string, name: string): (number | null)[] {
    return (this.#live.get(`${project}/${name}`) ?? []).map((live) => live.nextAtMs);
  }

  /**
   * The workflow was saved, enabled or disabled: its schedules are those of its last version.
   *
   * `afterRest`: no engine ran meanwhile. Otherwise only a schedule that was live has missed anything.
   */
  async refresh(project: string, name: string, afterRest = false): Promise<void> {
    const { store, clock } = this.#options;
    const key = `${project}/${name}`;
    const known = await this.#options.find(project, name);
    const before = this.#live.get(key) ?? [];
    this.#disarm(before);
    this.#live.delete(key);
    if (known === null || known.row.disabled || this.#closed || known.compiled.schedules.length === 0) return;
    const schedules: Live[] = known.compiled.schedules.map(({ cron, timezone, input }) => ({
      schedule: parseCronSchedule(cron, timezone),
      name: `schedule:${key}:${cron}:${timezone ?? 'UTC'}:${JSON.stringify(input)}`,
      input,
      lastAtMs: 0,
      nextAtMs: null,
      timer: null,
    }));
    this.#live.set(key, schedules);
    for (const live of schedules) {
      const last = (await store.getSetting(live.name)) as { atMs: number } | null;
      const nowMs = clock.nowMs();
      live.lastAtMs = last?.atMs ?? 0;
      if (last === null || !(afterRest || before.some((other) => other.name === live.name))) {
        await this.#note(live, nowMs);
      } else {
        const missed = lastInstantBetween(live.schedule, last.atMs, nowMs);
        if (missed !== null) await this.#fire(project, name, live, missed);
      }
      if (this.#live.get(key) === schedules) this.#arm(project, name, live);
    }
  }

  #arm(project: string, name: string, live: Live): void {
    if (this.#closed) return;
    const { clock, timers } = this.#options;
    const nowMs = clock.nowMs();
    live.nextAtMs = nextInstantMs(live.schedule, isAhead(live.lastAtMs, nowMs) ? live.lastAtMs : nowMs);
    if (live.nextAtMs === null) return;
    const atMs = live.nextAtMs;
    live.timer = timers.at(atMs, () => {
      live.timer = null;
      void this.#fire(project, name, live, atMs).then(() => {
        if (this.#live.get(`${project}/${name}`)?.includes(live) === true) this.#arm(project, name, live);
      });
    });
  }

  async #fire(project: string, name: string, live: Live, atMs: number): Promise<void> {
    const { clock, log } = this.#options;
    for (;;) {
      try {
        await this.#options.start(project, name, live.input, `${live.name}:${new Date(atMs).toISOString()}`);
        await this.#note(live, atMs);
        return;
      } catch (error) {
        // Another engine, or the next one, makes up for it.
        if (this.#closed) return;
        if (!hasCode(error, 'FS_UNAVAILABLE')) {
          log.error({ project, workflow: name, error: messageOf(error) }, 'a schedule could not start its workflow');
          return;
        }
        await new Promise<void>((resolve) => clock.setTimer(1_000, resolve));
      }
    }
  }

  /** Instants up to this one are dealt with. An engine whose clock is ahead may have come to a later one. */
  async #note(live: Live, atMs: number): Promise<void> {
    const { store } = this.#options;
    const last = (await store.getSetting(live.name)) as { atMs: number } | null;
    if (last !== null && isAhead(last.atMs, atMs)) {
      live.lastAtMs = last.atMs;
      return;
    }
    live.lastAtMs = atMs;
    await store.putSetting(live.name, { atMs });
  }

  #disarm(schedules: Live[]): void {
    for (const live of schedules) if (live.timer !== null) this.#options.timers.cancel(live.timer);
  }
}

/** Later, and by no more than clocks differ: a clock that was wrong by years does not count. */
function isAhead(lastAtMs: number, atMs: number): boolean {
  return lastAtMs > atMs && lastAtMs - atMs <= CLOCKS_DIFFER_MS;
}

/** The last instant in (fromMs, toMs]; null when there is none. */
function lastInstantBetween(schedule: Schedule, fromMs: number, toMs: number): number | null {
  let first = nextInstantMs(schedule, fromMs);
  if (first === null || first > toMs) return null;
  // Instants may be many: halve the span from the end until one lies in it.
  let spanMs = 60_000;
  while (toMs - spanMs > fromMs) {
    const next = nextInstantMs(schedule, toMs - spanMs);
    if (next !== null && next <= toMs) {
      first = next;
      break;
    }
    spanMs *= 2;
  }
  let last = first;
  for (let next = nextInstantMs(schedule, last); next !== null && next <= toMs; next = nextInstantMs(schedule, last))
    last = next;
  return last;
}
