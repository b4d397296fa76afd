/** What a load of many executions must have left, whatever happened to the processes that ran it. */
import type { Seen } from '../support/check-invariants.ts';
import type { Endpoint } from '../support/endpoint.ts';
import { type Data, hasEnded } from '../support/server-process.ts';
import { expectedEnd, type Started } from './crash-load.ts';

const MARKER = 'workflow stopped by user';
/** A call that was on its way when its stop was acknowledged. */
const ON_THE_WAY_MS = 1_000;

/** A server, or any of several. */
export interface Reader {
  // biome-ignore lint/suspicious/noExplicitAny: answers are checked field by field.
  ok(method: string, path: string): Promise<any>;
  events(id: string): Promise<Seen['events']>;
}

export async function see(server: Reader, id: string): Promise<Seen> {
  const record = await server.ok('GET', `/api/executions/${id}`);
  const events = await server.events(id);
  // Read after the record, they may tell of more than it; nothing follows an end.
  return { record, events: hasEnded(record) ? events : events.filter(({ seq }) => seq <= record.seq) };
}

export async function listAll(server: Reader, query = ''): Promise<Data[]> {
  const items: Data[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: Data = await server.ok(
      'GET',
      `/api/executions?limit=1000${query}${cursor === '' ? '' : `&cursor=${cursor}`}`,
    );
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return items;
}

/** What was acknowledged is there, and ended as it had to. */
export function promiseFaults(started: Started[], all: Seen[]): string[] {
  const faults: string[] = [];
  const byId = new Map(all.map((seen) => [seen.record.id, seen]));
  const byKey = new Map<string, string>();
  for (const { record } of all) {
    const { n } = record.labels;
    if (record.parent !== null || n === undefined) continue;
    if (byKey.has(n)) faults.push(`${record.id} and ${byKey.get(n)} were started by one request (n ${n})`);
    byKey.set(n, record.id);
  }
  for (const { id, workflow, n, stop, stopAnswer, triggered } of started) {
    const seen = byId.get(id);
    if (seen === undefined) {
      faults.push(`${id} (${workflow}) was acknowledged and is gone`);
      continue;
    }
    const { record, events } = seen;
    if (record.endedAt === null) faults.push(`${id} (${workflow}) has not ended: ${record.status}`);
    if (stop !== null) {
      if (record.error !== MARKER)
        faults.push(
          `${id} (${workflow}) was stopped with ${stopAnswer}, and is ${record.status} with ${record.error} (I4)`,
        );
      if (stop.requestId !== null && record.stop?.requestId !== stop.requestId)
        faults.push(`${id} was stopped by ${stop.requestId}, its record says ${record.stop?.requestId}`);
      continue;
    }
    if (record.stop !== null) continue;
    const expected = expectedEnd(workflow, n);
    if (expected === null) {
      faults.push(`${id} (${workflow}) ended by itself: ${record.status}, ${record.error}`);
      continue;
    }
    const lost = record.errorCode === 'FS_LOST' && mayBeLost(workflow, events);
    if (lost) continue;
    if (record.status !== expected.status || (expected.error !== undefined && record.error !== expected.error)) {
      faults.push(
        `${id} (${workflow}) is ${record.status} with ${record.error}, expected ${expected.status} (triggered ${triggered})`,
      );
    } else if (expected.outputs !== undefined && JSON.stringify(record.outputs) !== JSON.stringify(expected.outputs)) {
      faults.push(
        `${id} (${workflow}) gave ${JSON.stringify(record.outputs)}, expected ${JSON.stringify(expected.outputs)}`,
      );
    }
  }
  return faults;
}

/** Five attempts lost to crashes are the limit, one where it must not run again. */
function mayBeLost(workflow: string, events: Seen['events']): boolean {
  return workflow === 'once' || events.some(({ type, attempt }) => type === 'node.started' && (attempt ?? 0) >= 5);
}

/**
 * `wasExcused`: a process that had committed an attempt was frozen before its call, and made it when it woke.
 *
 * I7 and I3: no call without a durable attempt, one for each at most, and none after its stop. */
export function callFaults(
  endpoint: Endpoint,
  started: Started[],
  all: Seen[],
  wasExcused: (arrivedAtMs: number) => boolean = () => false,
): string[] {
  const faults: string[] = [];
  const byId = new Map(all.map((seen) => [seen.record.id, seen]));
  const stops = new Map(started.map(({ id, stop }) => [id, stop]));
  const calls = new Map<string, Endpoint['calls']>();
  for (const call of endpoint.calls) calls.set(call.key, [...(calls.get(call.key) ?? []), call]);
  for (const [key, made] of calls) {
    const [id = '', ...path] = key.split('/');
    const seen = byId.get(id);
    if (seen === undefined) {
      faults.push(`a call of ${key}, which nobody knows (I7)`);
      continue;
    }
    const iterations = path.pop() ?? '-';
    const index =
      iterations === '-'
        ? undefined
        : iterations
            .split(',')
            .map((part) => Number(part.split('@')[0]))
            .join();
    const attempts = seen.events.filter(
      (event) =>
        event.type === 'node.started' &&
        event.node === path.join('/') &&
        (index === undefined || event.iterations?.join() === index),
    ).length;
    if (made.length > attempts) faults.push(`${made.length} calls of ${key} for ${attempts} attempts (I7)`);
    if (seen.record.workflow.name === 'once' && made.length > 1)
      faults.push(`${made.length} calls of ${key}, which must not be repeated`);
    const stop = stops.get(seen.record.parent?.executionId ?? id) ?? null;
    const late =
      stop === null
        ? undefined
        : made.find(({ arrivedAtMs }) => arrivedAtMs > stop.answeredAtMs + ON_THE_WAY_MS && !wasExcused(arrivedAtMs));
    if (late !== undefined)
      faults.push(
        `a call of ${key} arrived ${late.arrivedAtMs - (stop?.answeredAtMs ?? 0)} ms after its stop was acknowledged (I3)`,
      );
    if (seen.record.endedAt !== null && made.some(({ end }) => end === null))
      faults.push(`a call of ${key} is still open after the end (I9)`);
  }
  return faults;
}

/** One follow-up for each failure, none for a stop. */
export function followUpFaults(all: Seen[]): string[] {
  const of = new Map<string, number>();
  for (const { record } of all) {
    if (record.workflow.name !== 'aftermath') continue;
    const { executionId } = record.input as { executionId: string };
    of.set(executionId, (of.get(executionId) ?? 0) + 1);
  }
  return all.flatMap(({ record }) => {
    if (record.workflow.name !== 'breaking') return [];
    const expected = record.stop === null ? 1 : 0;
    const found = of.get(record.id) ?? 0;
    return found === expected
      ? []
      : [`${record.id} (breaking, ${record.stop === null ? 'failed' : 'stopped'}) led to ${found} follow-ups`];
  });
}
