import type {
  AuditItem,
  BulkStopAnswer,
  BulkStopDryRun,
  EngineItem,
  EventPage,
  ExecutionEvent,
  ExecutionFilter,
  ExecutionItem,
  ExecutionRecord,
  ExecutionStatus,
  Inspection,
  Json,
  KeyItem,
  List,
  Results,
  StopAnswer,
  StopPreview,
  StopReceipt,
  WorkerItem,
  WorkflowItem,
  WorkflowSaved,
} from '../wire.ts';
import { Connection, type ConnectOptions } from './connection.ts';
import {
  type EventsOptions,
  type FollowOptions,
  followEvents,
  followReceipt,
  readEnded,
  watchExecutions,
} from './follow.ts';
import { Rooms } from './rooms.ts';
import type { ExecutionListQuery, Health, InProject, KeyRequest, StartRequest, WorkflowDetail } from './verbs.ts';

/** How an execution ended. */
export interface ExecutionResult {
  status: ExecutionStatus;
  outputs: Json;
  error: string | null;
  errorCode: string | null;
  /** Tells a stop from a failure; the status of both is Failed. */
  stoppedByUser: boolean;
}

/**
 * A connection to a Fullstop server.
 *
 * Every method rejects with an error that has a `code` (`hasCode(error, 'FS_NOT_FOUND')`), a `message` and
 * `details`, as the server gave them. FS_UNAVAILABLE: no answer came within `timeoutMs`; a change may then
 * have happened, and a stop, a trigger or a start with an `idempotencyKey` can simply be repeated.
 */
export interface Client {
  workflows: {
    /** Saves a definition, as the text of a YAML or JSON file or as a value. With `dryRun` it is only checked. */
    save(definition: string | Json, options?: InProject & { dryRun?: boolean }): Promise<WorkflowSaved>;
    list(query?: InProject): Promise<List<WorkflowItem>>;
    /** Of `NAME` the last saved, or the one of `NAME@HASH`; with `versions` it lists those of the name. */
    get(name: string, options?: InProject & { versions?: boolean }): Promise<WorkflowDetail>;
    /** Schedules and starts are refused from now on; what runs goes on. */
    disable(name: string, options?: InProject): Promise<WorkflowItem>;
    enable(name: string, options?: InProject): Promise<WorkflowItem>;
  };
  executions: {
    start(request: StartRequest): Promise<ExecutionRecord>;
    /** Newest first; pass `nextCursor` as `cursor` for the next page. */
    list(query?: ExecutionListQuery): Promise<List<ExecutionItem>>;
    get(id: string): Promise<ExecutionRecord>;
    /** Outputs of the execution and of its nodes. */
    results(id: string): Promise<Results>;
    /**
     * Asks for a stop. The answer means that the request is durable, not that everything has ended: follow
     * `client.receipts(id)`. Repeating it is the same stop.
     *
     * @throws FS_ENDED when the execution ended otherwise before.
     */
    stop(id: string): Promise<StopAnswer>;
    /** What a stop would do now. @throws FS_ENDED */
    preview(id: string): Promise<StopPreview>;
    /** What a stop did so far. @throws FS_NOT_FOUND without a stop. */
    receipt(id: string): Promise<StopReceipt>;
    /** A path of the server at which a Stately viewer watches the execution, without a key, for one hour. */
    inspect(id: string): Promise<Inspection>;
    /** Releases the holds of this trigger's name, or is kept for the next one. */
    trigger(id: string, name: string, payload?: Json): Promise<{ duplicate: boolean }>;
    /** Deletes an ended execution with its results, events and receipt. */
    delete(id: string): Promise<void>;
    /** One page of the stored events. */
    eventPage(id: string, from?: number): Promise<EventPage>;
    /**
     * Each event once and in order of `seq`, stored ones first, then as they happen; ends after the terminal
     * event. Loses and doubles nothing when the connection breaks, however long. A reader that is slower than
     * the execution is served from the store and costs bounded memory.
     *
     * @throws FS_GONE when `from` is older than the first event kept; the signal's reason when it aborts.
     */
    events(id: string, options?: EventsOptions): AsyncGenerator<ExecutionEvent, void, undefined>;
    /** Waits for the end, however long and over reconnects. */
    result(id: string, options?: FollowOptions): Promise<ExecutionResult>;
    /**
     * Executions as they change: the newest state of each, so a slow reader misses steps but no execution.
     * After a reconnect those that may have changed meanwhile come again.
     */
    watch(options?: FollowOptions & InProject): AsyncGenerator<ExecutionItem, void, undefined>;
  };
  stops: {
    /** Stops all live executions that match; a `setId` stops exactly those that a dry run has shown. */
    bulk(request: (InProject & { filter: ExecutionFilter }) | { setId: string }): Promise<BulkStopAnswer>;
    /** How many would be stopped, and the set's id, good for five minutes. */
    dryRun(filter: ExecutionFilter, options?: InProject): Promise<BulkStopDryRun>;
  };
  keys: {
    list(): Promise<List<KeyItem>>;
    /** The key itself is in this answer and never shown again. */
    create(request: KeyRequest): Promise<{ id: string; key: string }>;
    /** Closes its connections too. */
    delete(id: string): Promise<void>;
  };
  engines: {
    list(): Promise<List<EngineItem>>;
    drain(id: string): Promise<EngineItem>;
  };
  workers: {
    /** Workers, agents and the server's own pool. */
    list(): Promise<List<WorkerItem>>;
  };
  admission: {
    /** Paused: starts and schedules wait as Pending, what runs goes on. */
    set(paused: boolean): Promise<void>;
  };
  audit: {
    /** Newest first. */
    list(query?: { cursor?: string; limit?: number }): Promise<List<AuditItem>>;
  };
  health(): Promise<Health>;
  /**
   * The receipt of a stop as it is now and at each change, until every task has confirmed its end. Waits for
   * a stop if there is none yet; ends without a receipt when the execution ends without one.
   */
  receipts(id: string, options?: FollowOptions): AsyncGenerator<StopReceipt, void, undefined>;
  /**
   * Resolves when the connection stands. Calls wait for it by themselves: this is for those who want to know
   * at once. @throws FS_UNAVAILABLE when nothing answers, FS_UNAUTHENTICATED when the key is refused.
   */
  ready(): Promise<void>;
  readonly connected: boolean;
  /** Ends the connection; calls and iterators that wait reject with FS_UNAVAILABLE. */
  close(): void;
}

/** Opens a connection, which is kept and renewed until `close()`. */
export function connect(options: ConnectOptions): Client {
  const connection = new Connection(options);
  const rooms = new Rooms(connection);
  const call = connection.call.bind(connection);

  const executions: Client['executions'] = {
    start: (request) => call('execution.start', request),
    list: (query = {}) => call('execution.list', query),
    get: (id) => call('execution.get', { id }),
    results: (id) => call('execution.results', { id }),
    stop: (id) => call('execution.stop', { id }),
    preview: (id) => call('execution.preview', { id }),
    receipt: (id) => call('execution.receipt', { id }),
    inspect: (id) => call('execution.inspect', { id }),
    trigger: (id, name, payload) =>
      call('execution.trigger', payload === undefined ? { id, name } : { id, name, payload }),
    delete: async (id) => void (await call('execution.delete', { id })),
    eventPage: (id, from) => call('execution.events', from === undefined ? { id } : { id, from }),
    events: (id, eventsOptions) => followEvents(connection, rooms, id, eventsOptions),
    watch: (watchOptions) => watchExecutions(connection, rooms, watchOptions),
    result: async (id, followOptions) => {
      const record = await readEnded(connection, rooms, id, followOptions);
      const { status, outputs, error, errorCode, stoppedByUser } = record;
      return { status, outputs, error, errorCode, stoppedByUser };
    },
  };

  return {
    executions,
    workflows: {
      save: (definition, saveOptions = {}) => call('workflow.save', { ...saveOptions, definition }),
      list: (query = {}) => call('workflow.list', query),
      get: (name, getOptions = {}) => call('workflow.get', { ...getOptions, name }),
      disable: (name, inProject = {}) => call('workflow.disable', { ...inProject, name }),
      enable: (name, inProject = {}) => call('workflow.enable', { ...inProject, name }),
    },
    stops: {
      bulk: async (request) => (await call('executions.stop', request)) as BulkStopAnswer,
      dryRun: async (filter, inProject = {}) =>
        (await call('executions.stop', { ...inProject, filter, dryRun: true })) as BulkStopDryRun,
    },
    keys: {
      list: () => call('key.list', {}),
      create: (request) => call('key.create', request),
      delete: async (id) => void (await call('key.delete', { id })),
    },
    engines: {
      list: () => call('engine.list', {}),
      drain: (id) => call('engine.drain', { id }),
    },
    workers: { list: () => call('worker.list', {}) },
    admission: { set: async (paused) => void (await call('admission.set', { paused })) },
    audit: { list: (query = {}) => call('audit.list', query) },
    health: () => call('health', {}),
    receipts: (id, followOptions) => followReceipt(connection, rooms, id, followOptions),
    ready: () => connection.ready(),
    get connected() {
      return connection.connected;
    },
    close: () => connection.close(),
  };
}
