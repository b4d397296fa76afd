/**
 * What the inspection endpoint tells of one execution's actors, kept in order so that one can step through it.
 *
 * It hears only while the Actors view is open, and hangs up when the execution has ended. Frames are those of
 * `@statelyai/inspect` 0.7, as any viewer gets them.
 */
import { useSyncExternalStore } from 'react';
import { type Client, hasCode, type Json } from '../../../src/client/index.ts';
import { count, messageOf } from '../format.ts';
import { store } from '../store.ts';

/** Steps kept: the newest. */
export const STEPS_MAX = 5_000;
/** Actors kept, those that have ended first to go: a loop makes new ones with each iteration. */
const ACTORS_MAX = 2_500;
const GATHER_MS = 100;
const RETRY_MS = 250;
const RETRY_MAX_MS = 5_000;
/** After the end of the execution: nothing more is to come when nothing came for so long. */
const QUIET_MS = 1_000;
/** The server's close code for a viewer that did not keep up. */
const TOO_SLOW = 1013;

export interface ActorState {
  status: 'active' | 'done' | 'error' | 'stopped';
  /** Absent of an actor that has only been made. */
  value?: Json;
}

export interface SeenActor {
  id: string;
  parentId: string | null;
  /** Its machine as JSON; the same text for each actor of one machine. */
  definition: string;
  state: ActorState;
}

export type Step = { seq: number; atMs: number } & (
  | { kind: 'here'; actors: SeenActor[]; why: string }
  | { kind: 'born'; actor: SeenActor }
  /** `sourceId` null: the engine's code, which is no actor. */
  | { kind: 'event'; actorId: string; sourceId: string | null; eventType: string }
  | { kind: 'state'; actorId: string; state: ActorState; before: ActorState | null }
);

/** `off`: the server has inspection turned off. `ended`: with the execution, so nothing more comes. */
export type RecordingPhase = 'connecting' | 'live' | 'reconnecting' | 'ended' | 'off' | 'failed';

export interface Recording {
  phase: RecordingPhase;
  error: string | null;
  /** Of the engine that runs the execution, when it is not the one that was asked. */
  elsewhere: string | null;
  steps: readonly Step[];
  /** Steps before the first one kept. */
  dropped: number;
  /** How the actors were before the first step kept. */
  base: ReadonlyMap<string, SeenActor>;
}

interface Frame {
  type: string;
  sessionId: string;
  parentId?: string;
  sourceId?: string;
  definition?: string;
  createdAt: string;
  event?: { type: string };
  snapshot?: ActorState;
}

type Unnumbered = Step extends infer One ? (One extends Step ? Omit<One, 'seq'> : never) : never;

class Recorder {
  readonly id: string;
  readonly client: Client;
  #now: Recording = { phase: 'connecting', error: null, elsewhere: null, steps: [], dropped: 0, base: new Map() };
  readonly #listeners = new Set<() => void>();
  #watchers = 0;
  #abort: AbortController | null = null;
  readonly #base = new Map<string, SeenActor>();
  /** States as of the last step, shown or not yet. */
  readonly #states = new Map<string, ActorState>();
  #waiting: Unnumbered[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #seq = 0;
  #why = 'The recording begins.';
  /** The first actors are on their way, told as they are now. */
  #here: Extract<Unnumbered, { kind: 'here' }> | null = null;
  /** Some of them came since they were shown. */
  #hereGrew = false;
  #over = false;

  constructor(id: string, client: Client) {
    this.id = id;
    this.client = client;
  }

  get now(): Recording {
    return this.#now;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Listens until the answer is called. */
  watch(): () => void {
    this.#watchers += 1;
    if (this.#watchers === 1) this.listen();
    return () => {
      this.#watchers -= 1;
      if (this.#watchers > 0) return;
      this.#abort?.abort();
      this.#abort = null;
      if (this.#seq > 0) this.#why = 'Nobody looked meanwhile; this is how the actors are again.';
    };
  }

  listen(): void {
    if (this.#over || this.#abort !== null) return;
    this.#abort = new AbortController();
    this.#set({ phase: this.#seq === 0 ? 'connecting' : 'reconnecting', error: null });
    void this.#run(this.#abort.signal);
  }

  #set(change: Partial<Recording>): void {
    this.#now = { ...this.#now, ...change };
    for (const listener of [...this.#listeners]) listener();
  }

  async #run(signal: AbortSignal): Promise<void> {
    let waitMs = RETRY_MS;
    while (!signal.aborted) {
      try {
        const { path } = await this.client.executions.inspect(this.id);
        if (signal.aborted) return;
        const heard = await this.#hear(path, signal);
        if (signal.aborted) return;
        if (this.#over) return this.#set({ phase: 'ended' });
        if (heard) waitMs = RETRY_MS;
      } catch (error) {
        if (signal.aborted) return;
        if (!hasCode(error, 'FS_UNAVAILABLE')) {
          this.#abort = null;
          const phase = hasCode(error, 'FS_DISABLED') ? 'off' : 'failed';
          return this.#set({ phase, error: messageOf(error), elsewhere: engineOf(error) });
        }
      }
      this.#set({ phase: this.#seq === 0 ? 'connecting' : 'reconnecting' });
      await new Promise((resolve) => setTimeout(resolve, waitMs));
      waitMs = Math.min(RETRY_MAX_MS, waitMs * 2);
    }
  }

  /** One connection, to its end; answers whether anything came. */
  #hear(path: string, signal: AbortSignal): Promise<boolean> {
    const socket = new WebSocket(new URL(path, window.location.href.replace(/^http/, 'ws')));
    let heard = false;
    let quiet: ReturnType<typeof setTimeout> | undefined;
    this.#here = null;
    const hangUp = (): void => socket.close();
    signal.addEventListener('abort', hangUp);
    socket.onmessage = ({ data }) => {
      if (!heard) this.#set({ phase: 'live' });
      heard = true;
      this.#take(JSON.parse(String(data)) as Frame);
      if (!this.#over) return;
      clearTimeout(quiet);
      quiet = setTimeout(hangUp, QUIET_MS);
    };
    return new Promise((resolve) => {
      socket.onclose = ({ code }) => {
        clearTimeout(quiet);
        signal.removeEventListener('abort', hangUp);
        if (heard && !signal.aborted) {
          this.#why =
            code === TOO_SLOW
              ? 'This page did not keep up and missed some; this is how the actors are again.'
              : 'The connection was lost meanwhile; this is how the actors are again.';
        }
        this.#show();
        resolve(heard);
      };
    });
  }

  #take({ type, sessionId, parentId, sourceId, definition, createdAt, event, snapshot }: Frame): void {
    const atMs = Number(createdAt);
    if (type === '@xstate.event') {
      this.#add({ kind: 'event', atMs, actorId: sessionId, sourceId: sourceId ?? null, eventType: event?.type ?? '' });
    } else if (type === '@xstate.snapshot' && snapshot !== undefined) {
      const before = this.#states.get(sessionId) ?? null;
      if (before === null || !sameState(before, snapshot))
        this.#add({ kind: 'state', atMs, actorId: sessionId, state: snapshot, before });
      this.#states.set(sessionId, snapshot);
    } else if (type === '@xstate.actor') {
      const actor: SeenActor = {
        id: sessionId,
        parentId: parentId ?? null,
        definition: definition ?? '{}',
        state: snapshot ?? { status: 'active' },
      };
      this.#states.set(sessionId, actor.state);
      // One that is told with its state was there before.
      if (actor.state.value === undefined) this.#add({ kind: 'born', atMs, actor });
      else if (this.#here === null) {
        this.#here = { kind: 'here', atMs, actors: [actor], why: this.#why };
        this.#add(this.#here);
      } else {
        this.#here.actors.push(actor);
        this.#hereGrew = true;
        this.#showSoon();
      }
    }
    if (sessionId === `execution:${this.id}` && (this.#states.get(sessionId)?.status ?? 'active') !== 'active')
      this.#over = true;
  }

  #add(step: Unnumbered): void {
    this.#waiting.push(step);
    this.#showSoon();
  }

  #showSoon(): void {
    this.#timer ??= setTimeout(() => this.#show(), GATHER_MS);
  }

  /** Several times a second at most: the page is drawn anew with it. */
  #show(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#waiting.length === 0 && !this.#hereGrew) return;
    this.#hereGrew = false;
    const all: Step[] = [...this.#now.steps];
    for (const step of this.#waiting) {
      this.#seq += 1;
      all.push({ ...step, seq: this.#seq });
    }
    this.#waiting = [];
    const tooMany = Math.max(0, all.length - STEPS_MAX);
    for (const step of all.splice(0, tooMany)) apply(this.#base, step);
    if (this.#base.size > ACTORS_MAX) this.#forget();
    this.#set({
      steps: all,
      dropped: this.#now.dropped + tooMany,
      ...(tooMany > 0 ? { base: new Map(this.#base) } : {}),
    });
  }

  #forget(): void {
    for (const [id, { state }] of this.#base) {
      if (this.#base.size <= ACTORS_MAX) return;
      if (state.status === 'active') continue;
      this.#base.delete(id);
      this.#states.delete(id);
    }
  }
}

/** What a step makes of the actors. */
function apply(actors: Map<string, SeenActor>, step: Step): void {
  switch (step.kind) {
    case 'here':
      actors.clear();
      for (const actor of step.actors) actors.set(actor.id, actor);
      return;
    case 'born':
      actors.set(step.actor.id, step.actor);
      return;
    case 'state': {
      const actor = actors.get(step.actorId);
      if (actor !== undefined) actors.set(step.actorId, { ...actor, state: step.state });
      return;
    }
    case 'event':
      return;
  }
}

/** The actors as they were after a step. */
export function actorsAt({ base, steps }: Recording, seq: number): ReadonlyMap<string, SeenActor> {
  const actors = new Map(base);
  for (const step of steps) {
    if (step.seq > seq) break;
    apply(actors, step);
  }
  return actors;
}

/** The address that a refusal names, of an engine that would not refuse. */
function engineOf(error: unknown): string | null {
  const url = (error as { details?: { url?: unknown } }).details?.url;
  return typeof url === 'string' && /^https?:\/\//.test(url) ? url : null;
}

function sameState(a: ActorState, b: ActorState): boolean {
  return a.status === b.status && JSON.stringify(a.value) === JSON.stringify(b.value);
}

/** The state's name as one reads it: `running`, `looping.testing`. */
export function stateName(value: Json | undefined): string {
  if (value === undefined || value === null) return 'made';
  if (typeof value !== 'object') return String(value);
  return Object.entries(value)
    .map(([name, inner]) =>
      inner !== null && typeof inner === 'object' && Object.keys(inner).length === 0
        ? name
        : `${name}.${stateName(inner)}`,
    )
    .join(', ');
}

let last: Recorder | null = null;

/** Kept while one moves between the views of an execution; another execution, or another key, begins anew. */
export function recorderOf(id: string): Recorder {
  if (last?.id !== id || last.client !== store.client) last = new Recorder(id, store.client);
  return last;
}

export function useRecording(recorder: Recorder): Recording {
  return useSyncExternalStore(recorder.subscribe, () => recorder.now);
}

export function lifeOf({ dropped, steps }: Recording): string {
  return dropped === 0
    ? count(steps.length, 'step')
    : `the last ${count(steps.length, 'step')}; ${count(dropped, 'older one')} dropped`;
}
