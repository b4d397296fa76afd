/**
 * The one store of the page, over the client SDK: what was heard from the server, and whether we hear it still.
 *
 * State is replaced, never changed in place; what arrives often (list items, events) is gathered and shown at most
 * ten times a second.
 */
import { useEffect, useSyncExternalStore } from 'react';
import {
  type Client,
  connect,
  type ExecutionEvent,
  type ExecutionItem,
  type ExecutionListQuery,
  type ExecutionRecord,
  type Health,
  hasCode,
  type Json,
  type StopReceipt,
} from '../../src/client/index.ts';
import { messageOf, workflowRef } from './format.ts';

const KEY_NAME = 'fullstop.key';
/** Where the server sends a browser that came by a link which had been used; the address does not stay. */
const cameLate = new URLSearchParams(window.location.search).get('link') === 'used';
const GATHER_MS = 100;
const RECORD_MS = 300;
const LOOK_MS = 250;
const FIRST_PAGE = 200;
const PAGE = 1_000;
/** Events kept of the execution that is looked at: the newest. */
export const EVENTS_MAX = 20_000;
/** Events loaded of the past; older ones on demand. */
const PAST_EVENTS = 5_000;

/** `key`: the server wants one. */
export type Phase = 'connecting' | 'key' | 'online' | 'reconnecting';

export interface ListState {
  /** The filter it answers, as text. */
  key: string;
  items: ExecutionItem[];
  nextCursor: string | null;
  loading: boolean;
  error: string | null;
}

export interface ExecutionState {
  id: string;
  /** `missing`: there is none, or we may not see it; the server does not say which. */
  phase: 'loading' | 'ready' | 'missing' | 'failed';
  error: string | null;
  record: ExecutionRecord | null;
  /** The workflow file of this version; null until known, or when it is gone. */
  definition: Definition | null;
  events: ExecutionEvent[];
  /** Events before this one are not loaded. */
  firstSeq: number;
  receipt: StopReceipt | null;
}

export interface DefinitionNode {
  type: string;
  needs?: string[];
  trigger?: string;
  body?: Record<string, DefinitionNode>;
}

export interface InputSpec {
  type: 'string' | 'number' | 'boolean' | 'array' | 'object';
  required?: boolean;
  default?: Json;
  enum?: Json[];
  description?: string;
}

export interface Definition {
  name: string;
  description?: string;
  inputs?: Record<string, InputSpec>;
  nodes: Record<string, DefinitionNode>;
}

export interface Resource {
  data: unknown;
  error: { code: string; message: string } | null;
}

export interface State {
  phase: Phase;
  /** Why the server wants another key. */
  refusal: string | null;
  health: Health | null;
  list: ListState;
  execution: ExecutionState | null;
  resources: Record<string, Resource>;
  /** Said once, to eyes and to screen readers. */
  notice: { text: string; at: number } | null;
}

const emptyList: ListState = { key: '', items: [], nextCursor: null, loading: true, error: null };

export class Store {
  #state: State = {
    phase: 'connecting',
    refusal: null,
    health: null,
    list: emptyList,
    execution: null,
    resources: {},
    notice: null,
  };
  readonly #listeners = new Set<() => void>();
  #client: Client | null = null;
  #lookTimer: ReturnType<typeof setInterval> | undefined;
  #watching: AbortController | null = null;

  #query: ExecutionListQuery | null = null;
  readonly #changed = new Map<string, ExecutionItem>();
  #gathering = false;
  #following: { id: string; abort: AbortController } | null = null;

  get state(): State {
    return this.#state;
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  #set(change: Partial<State>): void {
    this.#state = { ...this.#state, ...change };
    for (const listener of [...this.#listeners]) listener();
  }

  /** @throws Error before the first connection. */
  get client(): Client {
    if (this.#client === null) throw new Error('not connected');
    return this.#client;
  }

  /** Connects with the key of this tab, or with the browser's session where there is none. */
  async start(): Promise<void> {
    this.#end();
    const key = sessionStorage.getItem(KEY_NAME);
    const client = connect({ url: window.location.origin, ...(key === null ? {} : { key }) });
    this.#client = client;
    this.#set({ phase: 'connecting' });
    for (;;) {
      try {
        await client.ready();
        break;
      } catch (error) {
        if (client !== this.#client) return;
        if (hasCode(error, 'FS_UNAUTHENTICATED')) {
          const noLink = cameLate ? 'That link is over: each works once.' : null;
          return this.#refused(key === null ? noLink : messageOf(error));
        }
        this.#set({ phase: 'reconnecting' });
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
    if (client !== this.#client) return;
    this.#set({ phase: 'online', refusal: null });
    this.#lookTimer = setInterval(() => this.#look(client), LOOK_MS);
    void this.refreshHealth();
    void this.#watch(client);
    if (this.#query !== null) void this.#loadList();
    const { execution } = this.#state;
    if (execution !== null) this.#follow(execution.id);
  }

  signIn(key: string): void {
    sessionStorage.setItem(KEY_NAME, key);
    void this.start();
  }

  forgetKey(): void {
    sessionStorage.removeItem(KEY_NAME);
    this.#refused(null);
  }

  #end(): void {
    clearInterval(this.#lookTimer);
    this.#watching?.abort();
    this.#following?.abort.abort();
    this.#following = null;
    this.#client?.close();
    this.#client = null;
  }

  #refused(why: string | null): void {
    this.#end();
    sessionStorage.removeItem(KEY_NAME);
    this.#set({ phase: 'key', refusal: why, health: null, resources: {}, list: emptyList });
  }

  #look(client: Client): void {
    if (client !== this.#client) return;
    if (client.connected) {
      if (this.#state.phase !== 'reconnecting') return;
      this.#set({ phase: 'online' });
      void this.refreshHealth();
      return;
    }
    if (this.#state.phase === 'online') {
      this.#set({ phase: 'reconnecting' });
      client.ready().catch((error: unknown) => {
        if (client === this.#client && hasCode(error, 'FS_UNAUTHENTICATED'))
          this.#refused('Your session is over: the server was started again, or the key was deleted.');
      });
      return;
    }
    client.ready().catch((error: unknown) => {
      if (client === this.#client && hasCode(error, 'FS_UNAUTHENTICATED'))
        this.#refused('Your session is over: the server was started again, or the key was deleted.');
    });
  }

  async refreshHealth(): Promise<void> {
    try {
      this.#set({ health: await this.client.health() });
    } catch {
      // The look at the connection tells.
    }
  }

  notify(text: string): void {
    this.#set({ notice: { text, at: Date.now() } });
  }

  clearNotice(): void {
    this.#set({ notice: null });
  }

  // --- the list

  /** Shows the executions that match; the same filter again is a reload only when asked for. */
  showList(query: ExecutionListQuery): void {
    const key = JSON.stringify(query);
    if (key === this.#state.list.key && this.#state.list.error === null) return;
    this.#query = query;
    this.#changed.clear();
    this.#set({ list: { ...emptyList, key } });
    if (this.#client !== null) void this.#loadList();
  }

  reloadList(): void {
    this.#set({ list: { ...emptyList, key: this.#state.list.key } });
    void this.#loadList();
  }

  async #loadList(): Promise<void> {
    const { key } = this.#state.list;
    await this.#page(key, null);
  }

  /** The next page, when there is one and none is on its way. */
  loadMore(): void {
    const { list } = this.#state;
    if (list.loading || list.nextCursor === null) return;
    this.#set({ list: { ...list, loading: true } });
    void this.#page(list.key, list.nextCursor);
  }

  async #page(key: string, cursor: string | null): Promise<void> {
    const query = this.#query;
    if (query === null) return;
    try {
      const page = await this.client.executions.list({
        ...query,
        ...(cursor === null ? { limit: FIRST_PAGE } : { cursor, limit: PAGE }),
      });
      const { list } = this.#state;
      if (list.key !== key) return;
      const known = new Set(list.items.map(({ id }) => id));
      const items = [...list.items, ...page.items.filter(({ id }) => !known.has(id))].sort(newestFirst);
      this.#set({ list: { key, items, nextCursor: page.nextCursor, loading: false, error: null } });
    } catch (error) {
      const { list } = this.#state;
      if (list.key === key) this.#set({ list: { ...list, loading: false, error: messageOf(error) } });
    }
  }

  async #watch(client: Client): Promise<void> {
    const abort = new AbortController();
    this.#watching = abort;
    try {
      for await (const item of client.executions.watch({ signal: abort.signal })) {
        if (item.parent !== null) continue;
        this.#changed.set(item.id, item);
        this.#gather();
      }
    } catch {
      // Over with the client: the look at the connection tells.
    }
  }

  #gather(): void {
    if (this.#gathering) return;
    this.#gathering = true;
    setTimeout(() => {
      this.#gathering = false;
      this.#merge();
    }, GATHER_MS);
  }

  #merge(): void {
    const query = this.#query;
    const { list } = this.#state;
    if (query === null || list.loading) {
      if (query !== null && this.#changed.size > 0) this.#gather();
      return;
    }
    const at = new Map(list.items.map((item, index) => [item.id, index]));
    const items = [...list.items];
    const gone = new Set<string>();
    const last = list.items.at(-1);
    let inserted = false;
    for (const item of this.#changed.values()) {
      const index = at.get(item.id);
      if (!fits(item, query)) {
        if (index !== undefined) gone.add(item.id);
      } else if (index !== undefined) {
        const shown = items[index];
        if (shown === undefined || item.seq >= shown.seq) items[index] = item;
      } else if (list.nextCursor === null || last === undefined || item.id > last.id) {
        items.push(item);
        inserted = true;
      }
    }
    this.#changed.clear();
    const kept = gone.size === 0 ? items : items.filter(({ id }) => !gone.has(id));
    if (inserted) kept.sort(newestFirst);
    this.#set({ list: { ...list, items: kept } });
  }

  // --- one execution

  /** Follows an execution until another is opened or it is closed. */
  openExecution(id: string): void {
    if (this.#state.execution?.id === id && this.#following !== null) return;
    this.#set({ execution: { ...emptyExecution, id } });
    if (this.#client !== null) this.#follow(id);
  }

  closeExecution(id: string): void {
    if (this.#state.execution?.id !== id) return;
    this.#following?.abort.abort();
    this.#following = null;
    this.#set({ execution: null });
  }

  #patch(id: string, change: Partial<ExecutionState>): void {
    const { execution } = this.#state;
    if (execution?.id === id) this.#set({ execution: { ...execution, ...change } });
  }

  #follow(id: string): void {
    this.#following?.abort.abort();
    const abort = new AbortController();
    this.#following = { id, abort };
    void this.#followAll(id, abort.signal);
  }

  async #followAll(id: string, signal: AbortSignal): Promise<void> {
    const { client } = this;
    let record: ExecutionRecord;
    for (;;) {
      try {
        record = await client.executions.get(id);
        break;
      } catch (error) {
        if (signal.aborted) return;
        // An id that is none is answered like one that is not there.
        if (hasCode(error, 'FS_NOT_FOUND', 'FS_INVALID')) return this.#patch(id, { phase: 'missing' });
        this.#patch(id, { phase: 'failed', error: messageOf(error) });
        if (!hasCode(error, 'FS_UNAVAILABLE', 'FS_RATE') || client !== this.#client) return;
        await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      }
    }
    if (signal.aborted) return;
    this.#patch(id, { phase: 'ready', error: null, record });
    client.workflows
      .get(workflowRef(record.workflow), { project: record.project })
      .then(({ definition }) => {
        if (!signal.aborted) this.#patch(id, { definition: definition as unknown as Definition });
      })
      .catch(() => {});
    if (record.stop !== null) void this.#followReceipt(id, signal);
    void this.#followEvents(id, record.seq > PAST_EVENTS ? record.seq - PAST_EVENTS + 1 : 1, signal);
  }

  /** Loads the events from the first one kept on. */
  loadAllEvents(): void {
    const { execution } = this.#state;
    if (execution === null) return;
    this.#following?.abort.abort();
    const abort = new AbortController();
    this.#following = { id: execution.id, abort };
    if (execution.record?.stop != null) void this.#followReceipt(execution.id, abort.signal);
    void this.#followEvents(execution.id, 1, abort.signal);
  }

  async #followEvents(id: string, from: number, signal: AbortSignal): Promise<void> {
    const { client } = this;
    let events: ExecutionEvent[] = [];
    let waiting: ExecutionEvent[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    let willRead = false;
    let readAt = 0;
    const read = async (): Promise<void> => {
      willRead = false;
      if (signal.aborted) return;
      readAt = performance.now();
      try {
        const record = await client.executions.get(id);
        if (signal.aborted) return;
        const before = this.#state.execution?.record;
        this.#patch(id, { record });
        if (record.stop !== null && before?.stop === null) void this.#followReceipt(id, signal);
      } catch {
        if (client === this.#client) readSoon(RECORD_MS);
      }
    };
    const readSoon = (ms: number): void => {
      if (willRead) return;
      willRead = true;
      setTimeout(() => void read(), Math.max(0, ms));
    };
    const show = (): void => {
      timer = undefined;
      if (signal.aborted) return;
      events = events.concat(waiting).slice(-EVENTS_MAX);
      waiting = [];
      this.#patch(id, { events, firstSeq: events[0]?.seq ?? 1 });
      readSoon(readAt + RECORD_MS - performance.now());
    };
    try {
      for await (const event of client.executions.events(id, { signal, ...(from > 1 ? { from } : {}) })) {
        waiting.push(event);
        timer ??= setTimeout(show, GATHER_MS);
      }
    } catch (error) {
      if (!signal.aborted && hasCode(error, 'FS_NOT_FOUND')) this.#patch(id, { phase: 'missing' });
    }
    clearTimeout(timer);
    if (waiting.length > 0) show();
  }

  async #followReceipt(id: string, signal: AbortSignal): Promise<void> {
    try {
      for await (const receipt of this.client.receipts(id, { signal })) this.#patch(id, { receipt });
    } catch {
      // The record tells what became of it.
    }
  }

  /** Asks for the stop and shows it at once, before its first event comes. */
  async stop(id: string): Promise<void> {
    await this.client.executions.stop(id);
    const record = await this.client.executions.get(id).catch(() => null);
    const { execution } = this.#state;
    if (record === null || execution?.id !== id || this.#following === null) return;
    const isNew = execution.record?.stop == null;
    this.#patch(id, { record });
    if (isNew) void this.#followReceipt(id, this.#following.abort.signal);
  }

  // --- what is read now and then

  async load(key: string, read: (client: Client) => Promise<unknown>): Promise<void> {
    if (this.#client === null) return;
    const client = this.#client;
    try {
      const data = await read(client);
      this.#set({ resources: { ...this.#state.resources, [key]: { data, error: null } } });
    } catch (error) {
      if (client !== this.#client) return;
      const code = String((error as { code?: unknown }).code ?? '');
      const before = this.#state.resources[key];
      // What was read stays while the server is away.
      if (before !== undefined && code === 'FS_UNAVAILABLE') return;
      this.#set({
        resources: {
          ...this.#state.resources,
          [key]: { data: before?.data ?? null, error: { code, message: messageOf(error) } },
        },
      });
    }
  }
}

const emptyExecution: Omit<ExecutionState, 'id'> = {
  phase: 'loading',
  error: null,
  record: null,
  definition: null,
  events: [],
  firstSeq: 1,
  receipt: null,
};

const newestFirst = (a: ExecutionItem, b: ExecutionItem): number => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0);

/** Whether an item that was pushed belongs in the list: the server's own rule, for what it cannot be asked each time. */
export function fits(item: ExecutionItem, query: ExecutionListQuery): boolean {
  if (query.status !== undefined && item.status !== query.status) return false;
  if (query.workflow !== undefined && item.workflow.name !== query.workflow) return false;
  if (query.stoppedByUser !== undefined && item.stoppedByUser !== query.stoppedByUser) return false;
  if (query.createdFrom !== undefined && Date.parse(item.createdAt) < Date.parse(query.createdFrom)) return false;
  if (query.createdTo !== undefined && Date.parse(item.createdAt) > Date.parse(query.createdTo)) return false;
  if (query.label !== undefined) {
    const [name = '', ...value] = query.label.split('=');
    const found = item.labels[name];
    if (found === undefined || (value.length > 0 && found !== value.join('='))) return false;
  }
  if (query.text === undefined) return true;
  const text = query.text.toLowerCase();
  if (item.id.startsWith(text)) return true;
  const words = `${item.workflow.name} ${item.error ?? ''}`.toLowerCase();
  return text.split(/\s+/).every((word) => words.includes(word));
}

export const store = new Store();

export function useStore<T>(select: (state: State) => T): T {
  return useSyncExternalStore(store.subscribe, () => select(store.state));
}

/** Reads something now and every `everyMs`, while it is looked at; 0: once. */
export function useResource<T>(
  key: string,
  read: (client: Client) => Promise<T>,
  everyMs = 0,
): { data: T | null; error: Resource['error']; reload: () => void } {
  const online = useStore(({ phase }) => phase === 'online');
  const resource = useStore(({ resources }) => resources[key]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the key says what is read.
  useEffect(() => {
    if (!online) return;
    void store.load(key, read);
    if (everyMs === 0) return;
    const timer = setInterval(() => void store.load(key, read), everyMs);
    return () => clearInterval(timer);
  }, [key, online, everyMs]);
  return {
    data: (resource?.data ?? null) as T | null,
    error: resource?.error ?? null,
    reload: () => void store.load(key, read),
  };
}

/** What the key may not do, in words; null: it may. */
export function useDenied(level: 'operate' | 'administer' | 'administerAll'): string | null {
  const caller = useStore(({ health }) => health?.caller ?? null);
  if (caller === null) return null;
  const rank = { worker: 0, agent: 0, viewer: 1, operator: 2, admin: 3 }[caller.role];
  if (level === 'operate')
    return rank >= 2 ? null : `Needs an operator's or an admin's key; yours is a ${caller.role}'s.`;
  if (rank < 3) return `Needs an admin's key; yours is ${caller.role === 'operator' ? 'an' : 'a'} ${caller.role}'s.`;
  return level === 'administerAll' && caller.project !== null
    ? `Needs an admin's key of all projects; yours is of the project ${caller.project}.`
    : null;
}
