/**
 * Iterators over what the server pushes. The store is the truth and a push only a hint: whatever a lost
 * connection, a lost push, a gap or a slow reader leaves out is read from the store.
 */
import { FullstopError, hasCode } from '../errors.ts';
import type { ExecutionEvent, ExecutionItem, ExecutionRecord, StopReceipt } from '../wire.ts';
import { Alarm } from './alarm.ts';
import type { Connection } from './connection.ts';
import type { Rooms } from './rooms.ts';

/** Pushed events that may wait for the reader; with more, the client unsubscribes and reads them from the store. */
const BUFFER_MAX = 1_000;
/** After this long without a push the store is asked whether one was lost. */
const QUIET_MS = 10_000;
/** Between two tries of a read that failed in a way that passes. */
const RETRY_MS = 500;

export interface FollowOptions {
  /** Ends the iteration by throwing its reason. */
  signal?: AbortSignal;
}

export interface EventsOptions extends FollowOptions {
  /** First `seq`; by default the first kept, which is 1 unless the execution is very long. */
  from?: number;
}

/** @internal Test seam of the two times above. */
export interface FollowTimes {
  quietMs: number;
  retryMs: number;
  bufferMax: number;
}

const defaultTimes: FollowTimes = { quietMs: QUIET_MS, retryMs: RETRY_MS, bufferMax: BUFFER_MAX };

/** Each event of one execution once and in order, to the terminal one. See `Client.executions.events`. */
export async function* followEvents(
  connection: Connection,
  rooms: Rooms,
  id: string,
  options: EventsOptions = {},
  times: FollowTimes = defaultTimes,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  const { signal } = options;
  const alarm = new Alarm();
  const wake = (): void => alarm.wake();
  let next = options.from ?? 1;
  /** Nothing was demanded and nothing seen yet: the store says where its events begin. */
  let anywhere = options.from === undefined;
  /** Contiguous from `next` on. */
  let buffer: ExecutionEvent[] = [];
  /** Whether pushes are put in the buffer; false: the store is read first. */
  let live = false;
  let joined = false;

  const leave = (): void => {
    live = false;
    if (joined) rooms.leave(id);
    joined = false;
  };
  const pushed = (message: { executionId: string; event: ExecutionEvent }): void => {
    if (!live || message.executionId !== id) return;
    const expected = next + buffer.length;
    if (message.event.seq < expected) return;
    if (message.event.seq > expected || buffer.length >= times.bufferMax) leave();
    else buffer.push(message.event);
    wake();
  };
  const broken = (): void => {
    leave();
    wake();
  };

  const stopListening = [connection.on('execution.event', pushed), connection.onBreak(broken)];
  signal?.addEventListener('abort', wake);
  try {
    let first = true;
    for (;;) {
      for (;;) {
        const page = await patiently(connection, signal, times, () =>
          connection.call('execution.events', anywhere ? { id } : { id, from: next }, signal),
        );
        if (anywhere) next = page.items[0]?.seq ?? next;
        anywhere = false;
        for (const event of page.items) {
          if (event.seq < next) continue;
          if (event.seq > next) throw gap(id, next, event.seq);
          next += 1;
          yield event;
          if (isTerminal(event)) return;
        }
        if (page.items.length === 0) break;
      }
      // Beyond the last event of an ended execution nothing will ever come.
      if (first && next > 1 && (await hasEnded(connection, id, next, signal, times))) return;
      first = false;

      live = true;
      joined = true;
      try {
        await rooms.join(id, next, signal);
      } catch (error) {
        leave();
        if (!passes(connection, error)) throw error;
      }

      while (live || buffer.length > 0) {
        const event = buffer.shift();
        if (event !== undefined) {
          next += 1;
          yield event;
          if (isTerminal(event)) return;
          continue;
        }
        if (await alarm.sleep(times.quietMs)) {
          signal?.throwIfAborted();
        } else {
          const page = await patiently(connection, signal, times, () =>
            connection.call('execution.events', { id, from: next }, signal),
          );
          if (page.items.length > 0 && buffer.length === 0) leave();
        }
      }
    }
  } finally {
    leave();
    buffer = [];
    for (const stop of stopListening) stop();
    signal?.removeEventListener('abort', wake);
  }
}

/** The record when the execution has ended. See `Client.executions.result`. */
export async function readEnded(
  connection: Connection,
  rooms: Rooms,
  id: string,
  options: FollowOptions = {},
  times: FollowTimes = defaultTimes,
): Promise<ExecutionRecord> {
  const { signal } = options;
  const read = (): Promise<ExecutionRecord> =>
    patiently(connection, signal, times, () => connection.call('execution.get', { id }, signal));
  const record = await read();
  if (record.endedAt !== null) return record;
  for await (const _ of followEvents(connection, rooms, id, { ...options, from: record.seq + 1 }, times));
  return read();
}

/** The receipt of a stop at each change, until every task has confirmed. See `Client.receipts`. */
export async function* followReceipt(
  connection: Connection,
  rooms: Rooms,
  id: string,
  options: FollowOptions = {},
  times: FollowTimes = defaultTimes,
): AsyncGenerator<StopReceipt, void, undefined> {
  const { signal } = options;
  const alarm = new Alarm();
  const wake = (): void => alarm.wake();
  /** Only the newest counts: a receipt is a state, not an event. */
  let newest: StopReceipt | null = null;
  let shown = '';
  let joined = false;
  const leave = (): void => {
    if (joined) rooms.leave(id);
    joined = false;
  };
  const stopListening = [
    connection.on('stop.receipt', (receipt) => {
      if (receipt.executionId !== id) return;
      newest = receipt;
      wake();
    }),
    connection.onBreak(() => {
      leave();
      wake();
    }),
  ];
  signal?.addEventListener('abort', wake);
  try {
    for (;;) {
      signal?.throwIfAborted();
      const receipt: StopReceipt | null = newest;
      newest = null;
      if (receipt !== null) {
        const text = JSON.stringify(receipt);
        if (text !== shown) yield receipt;
        shown = text;
        if (receipt.finalisedAt !== null && receipt.unconfirmed === 0) return;
        continue;
      }
      if (joined && (await alarm.sleep(times.quietMs))) continue;
      const record = await patiently(connection, signal, times, () => connection.call('execution.get', { id }, signal));
      if (!joined) {
        joined = true;
        try {
          await rooms.join(id, record.seq + 1, signal);
        } catch (error) {
          leave();
          if (!passes(connection, error)) throw error;
        }
      }
      const stored = await patiently(connection, signal, times, () =>
        connection.call('execution.receipt', { id }, signal).catch((error: unknown) => {
          if (hasCode(error, 'FS_NOT_FOUND')) return null;
          throw error;
        }),
      );
      if (stored === null && record.endedAt !== null) return;
      newest ??= stored;
    }
  } finally {
    leave();
    for (const stop of stopListening) stop();
    signal?.removeEventListener('abort', wake);
  }
}

/** Live executions that a watch remembers, to ask for them after a reconnect. */
const WATCHED_MAX = 1_000;

/** Executions as they change. See `Client.executions.watch`. */
export async function* watchExecutions(
  connection: Connection,
  rooms: Rooms,
  options: FollowOptions & { project?: string } = {},
  times: FollowTimes = defaultTimes,
): AsyncGenerator<ExecutionItem, void, undefined> {
  const { signal } = options;
  const query = options.project === undefined ? {} : { project: options.project };
  const alarm = new Alarm();
  const wake = (): void => alarm.wake();
  /** The newest state of each execution that the reader has not taken: at most one per execution. */
  const changed = new Map<string, ExecutionItem>();
  const liveIds = new Set<string>();
  let joined = false;
  /** The room was entered and then lost with the connection. */
  let missed = false;
  let established = false;
  const leave = (): void => {
    if (joined) rooms.leaveProject(query);
    joined = false;
    established = false;
  };
  const put = (item: ExecutionItem): void => {
    const waiting = changed.get(item.id);
    if (waiting !== undefined && waiting.seq > item.seq) return;
    changed.set(item.id, item);
  };
  const stopListening = [
    connection.on('execution.changed', (item) => {
      if (options.project !== undefined && item.project !== options.project) return;
      put(item);
      wake();
    }),
    connection.onBreak(() => {
      missed ||= established;
      leave();
      wake();
    }),
  ];
  signal?.addEventListener('abort', wake);
  try {
    for (;;) {
      signal?.throwIfAborted();
      if (!joined) {
        joined = true;
        try {
          await rooms.joinProject(query, signal);
          established = joined;
        } catch (error) {
          leave();
          if (!passes(connection, error)) throw error;
        }
        if (established && missed) {
          missed = false;
          for (const item of await readMissed(connection, query, liveIds, signal, times)) put(item);
        }
      }
      for (const [id, item] of changed) {
        changed.delete(id);
        if (item.endedAt === null && liveIds.size < WATCHED_MAX) liveIds.add(id);
        else liveIds.delete(id);
        yield item;
      }
      if (joined && changed.size === 0) await alarm.sleep(times.quietMs);
    }
  } finally {
    leave();
    for (const stop of stopListening) stop();
    signal?.removeEventListener('abort', wake);
  }
}

/** What may have changed while the connection was away: the newest page, and those that lived when last seen. */
async function readMissed(
  connection: Connection,
  query: { project?: string },
  liveIds: Set<string>,
  signal: AbortSignal | undefined,
  times: FollowTimes,
): Promise<ExecutionItem[]> {
  const { items } = await patiently(connection, signal, times, () => connection.call('execution.list', query, signal));
  const onPage = new Set(items.map((item) => item.id));
  for (const id of liveIds) {
    if (onPage.has(id)) continue;
    const record = await patiently(connection, signal, times, () =>
      connection.call('execution.get', { id }, signal).catch((error: unknown) => {
        if (hasCode(error, 'FS_NOT_FOUND')) return null;
        throw error;
      }),
    );
    if (record === null) {
      liveIds.delete(id);
      continue;
    }
    const { input: _input, outputs: _outputs, nodes: _nodes, waitingFor: _waitingFor, ...item } = record;
    items.push(item);
  }
  return items;
}

const isTerminal = (event: ExecutionEvent): boolean =>
  event.type === 'execution.completed' || event.type === 'execution.failed';

const gap = (id: string, expected: number, found: number): FullstopError =>
  new FullstopError('FS_INTERNAL', `events of ${id} have a gap: expected seq ${expected}, found ${found}`);

async function hasEnded(
  connection: Connection,
  id: string,
  next: number,
  signal: AbortSignal | undefined,
  times: FollowTimes,
): Promise<boolean> {
  const record = await patiently(connection, signal, times, () => connection.call('execution.get', { id }, signal));
  return record.endedAt !== null && record.seq < next;
}

/** Whether the same read may succeed later. What never connected at all is told at once. */
function passes(connection: Connection, error: unknown): boolean {
  return connection.over === null && connection.everConnected && hasCode(error, 'FS_UNAVAILABLE', 'FS_RATE');
}

/** Repeats a read until it succeeds or fails for good: a reconnect or a busy server is waited for. */
async function patiently<T>(
  connection: Connection,
  signal: AbortSignal | undefined,
  times: FollowTimes,
  read: () => Promise<T>,
): Promise<T> {
  for (;;) {
    try {
      return await read();
    } catch (error) {
      signal?.throwIfAborted();
      if (!passes(connection, error)) throw error;
    }
    if (connection.connected) await new Promise((resolve) => setTimeout(resolve, times.retryMs));
  }
}
