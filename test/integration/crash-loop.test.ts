import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { changeFaults, familyFaults, faultsOf, type Seen } from '../support/check-invariants.ts';
import { Endpoint } from '../support/endpoint.ts';
import { seededRandom, seedOfRun } from '../support/seeds.ts';
import { type Data, hasEnded, ServerProcess, until } from '../support/server-process.ts';
import { expectedEnd, Load, loadWorkflows, type Started } from './crash-load.ts';

const MARKER = 'workflow stopped by user';
const KILLS_MIN = 50;
const SPAN_MS = Number(process.env.CRASH_LOOP_MS ?? 180_000);
const CLIENTS = 8;
/** A call that was on its way when its stop was acknowledged. */
const ON_THE_WAY_MS = 1_000;

async function see(server: ServerProcess, id: string): Promise<Seen> {
  const record = await server.ok('GET', `/api/executions/${id}`);
  const events = await server.events(id);
  // Read after the record, they may tell of more than it; nothing follows an end.
  return { record, events: hasEnded(record) ? events : events.filter(({ seq }) => seq <= record.seq) };
}

async function listAll(server: ServerProcess, query = ''): Promise<Data[]> {
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

describe('kill -9, again and again', () => {
  let endpoint: Endpoint;
  let server: ServerProcess;
  let load: Load | null = null;

  beforeEach(async () => {
    endpoint = await Endpoint.start();
    server = await ServerProcess.start({ env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
  });

  afterEach(async () => {
    load?.abandon();
    await server.close();
    await endpoint.close();
  });

  it('a stop accepted just before takes effect after the restart, and aborted work is not run again', async function () {
    this.timeout(120_000);
    const definition = {
      name: 'doomed',
      nodes: {
        ask: { type: 'http', with: { url: `${endpoint.url}/park` } },
        wait: { type: 'delay', with: { duration: '1h' } },
        again: {
          type: 'http',
          with: { url: `${endpoint.url}/bad` },
          retry: { attempts: 5, backoff: '10m', maxBackoff: '10m' },
        },
        poll: {
          type: 'while',
          condition: 'true',
          maxIterations: 9,
          delay: '10m',
          body: { step: { type: 'set', with: { value: 1 } } },
        },
        child: { type: 'workflow', with: { workflow: 'doomed-child' } },
      },
    };
    await server.ok('POST', '/api/workflows', {
      name: 'doomed-child',
      nodes: { ask: { type: 'http', with: { url: `${endpoint.url}/park` } } },
    });
    for (let round = 0; round < 8; round += 1) {
      const ids = await Promise.all(Array.from({ length: 3 }, () => server.run(definition)));
      const families: string[] = [];
      for (const id of ids) {
        await endpoint.calling(`${id}/ask`);
        await server.record(
          id,
          ({ nodes }) =>
            nodes.again.errorCode === 'FS_HTTP_STATUS' && nodes.poll.iteration?.nodes.step.status === 'Complete',
        );
        const [child] = await until(
          'its child',
          () => listAll(server, `&parent=${id}`),
          (items) => items.length === 1,
        );
        await endpoint.calling(child.id);
        families.push(id, child.id);
      }
      const accepted: string[] = [];
      // Killed at the first answer, in a round with an odd number at the last.
      await Promise.all(
        ids.map(async (id) => {
          const answer = await server.http('POST', `/api/executions/${id}/stop`).catch(() => null);
          if (answer === null) return;
          expect(answer.status).to.equal(202);
          accepted.push(id);
          if (round % 2 === 0 || accepted.length === ids.length) void server.kill();
        }),
      );
      await server.ended();
      const calls = endpoint.calls.length;
      const killedAtMs = Date.now();
      await server.start();
      const listeningAtMs = Date.now();
      for (const id of ids) {
        if (!accepted.includes(id)) await server.http('POST', `/api/executions/${id}/stop`);
        const record = await server.record(id);
        expect(record).to.include({ status: 'Failed', error: MARKER, stoppedByUser: true });
        for (const name of ['ask', 'wait', 'again', 'poll', 'child']) {
          expect(record.nodes[name], name).to.include({ status: 'Failed', error: MARKER });
          if (accepted.includes(id)) expect(record.nodes[name], name).to.include({ attempt: 1 });
        }
        // A takeover finalises at once.
        if (accepted.includes(id) && Date.parse(record.endedAt) > killedAtMs) {
          expect(Date.parse(record.endedAt) - listeningAtMs, 'ms from listening to the end').to.be.below(2_000);
        }
      }
      // Whoever asked is on record: the entry was durable before the stop was.
      const audit = (await server.ok('GET', '/api/audit')).items.filter(({ verb }: Data) => verb === 'execution.stop');
      for (const id of accepted) {
        expect(audit.find(({ target }: Data) => target === id)?.actor, 'audit entry').to.include({ role: 'admin' });
      }
      for (const id of families) {
        const seen = await until(
          'the end',
          () => see(server, id),
          ({ record }) => record.endedAt !== null,
        );
        expect(faultsOf(seen)).to.deep.equal([]);
        expect(seen.record).to.include({ error: MARKER });
      }
      const stopped = families.filter((id) =>
        accepted.some((parent) => id === parent || families[families.indexOf(parent) + 1] === id),
      );
      const again = endpoint.calls.slice(calls).filter(({ key }) => stopped.some((id) => key.startsWith(id)));
      expect(
        again.map(({ key }) => key),
        'calls after the restart',
      ).to.deep.equal([]);
    }
  });

  it('at random moments of a mixed load: nothing acknowledged is lost, doubled, early or revived', async function () {
    this.timeout(SPAN_MS + 300_000);
    const seed = seedOfRun();
    const workflows = loadWorkflows(endpoint.url);
    for (const workflow of workflows) await server.ok('POST', '/api/workflows', workflow);
    const running = new Load(server);
    load = running;
    const clients = Promise.all(
      Array.from({ length: CLIENTS }, (_, client) => running.client(seededRandom(seed + 1 + client))),
    );
    let broken: unknown = null;
    clients.catch((error: unknown) => {
      broken = error;
    });
    const faults: string[] = [];
    const snapshots = new Map<string, Seen>();
    const nodesOf = new Map(workflows.map(({ name, nodes }) => [name, nodes]));
    const check = (seen: Seen): string[] => faultsOf(seen, nodesOf.get(seen.record.workflow.name));

    const random = seededRandom(seed);
    const beganAtMs = performance.now();
    let kills = 0;
    let whileStarting = 0;
    while ((performance.now() - beganAtMs < SPAN_MS || kills < KILLS_MIN) && broken === null && faults.length === 0) {
      if (random.next() < 0.75) {
        await server.listening();
        await sleep(random.next() * 1_200);
        // Between two kills: a few that were seen before, and a few new ones.
        const known = [...snapshots.keys()];
        const some = [
          known[Math.floor(random.next() * known.length)],
          running.started[Math.floor(random.next() * running.started.length)]?.id,
          running.started.at(-1)?.id,
        ];
        for (const id of new Set(some)) {
          if (id === undefined) continue;
          const seen = await see(server, id);
          faults.push(...check(seen), ...changeFaults(snapshots.get(id) ?? seen, seen));
          snapshots.set(id, seen);
        }
        await server.kill();
        server.spawn();
      } else {
        // It has not begun to listen: recovery itself is interrupted.
        await sleep(random.next() * 1_000);
        await server.kill();
        server.spawn();
        whileStarting += 1;
      }
      kills += 1;
    }
    const spanMs = performance.now() - beganAtMs;
    if (!server.running) server.spawn();
    await server.listening();
    running.end();
    await clients;
    await until(
      'the rest',
      () => listAll(server, '&status=Running'),
      (items) => items.length === 0,
      60_000,
    );
    await until(
      'the queue',
      () => listAll(server, '&status=Pending'),
      (items) => items.length === 0,
      60_000,
    );

    const all: Seen[] = [];
    for (const { id } of await listAll(server)) {
      const seen = await see(server, id);
      all.push(seen);
      if (!['each', 'parent', 'parked-family'].includes(seen.record.workflow.name)) continue;
      for (const child of await listAll(server, `&parent=${id}`)) all.push(await see(server, child.id));
    }
    for (const seen of all) faults.push(...check(seen), ...changeFaults(snapshots.get(seen.record.id) ?? seen, seen));
    faults.push(
      ...familyFaults(all),
      ...promiseFaults(running.started, all),
      ...callFaults(endpoint, running.started, all),
      ...followUpFaults(all),
    );
    const stopped = all.filter(({ record }) => record.stop !== null).length;
    const attempts = all
      .flatMap(({ record }) => Object.values(record.nodes))
      .filter(({ attempt }) => attempt > 1).length;
    console.log(
      `    ${kills} kills in ${(spanMs / 1000).toFixed(0)} s, ${whileStarting} of them while it started; ${all.length} executions, ${stopped} stopped (${running.counts.bulk} bulk stops), ${attempts} nodes with a second attempt, ${endpoint.calls.length} calls`,
    );
    if (faults.length > 0) console.log(`    SEED=${seed}\n${faults.slice(0, 40).join('\n')}`);
    expect(faults.slice(0, 10), `SEED=${seed}`).to.deep.equal([]);
    expect(kills).to.be.at.least(KILLS_MIN);
    expect(stopped).to.be.above(0);
  });
});

/** What was acknowledged is there, and ended as it had to. */
function promiseFaults(started: Started[], all: Seen[]): string[] {
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

/** I7 and I3: no call without a durable attempt, one for each at most, and none after its stop. */
function callFaults(endpoint: Endpoint, started: Started[], all: Seen[]): string[] {
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
      stop === null ? undefined : made.find(({ arrivedAtMs }) => arrivedAtMs > stop.answeredAtMs + ON_THE_WAY_MS);
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
function followUpFaults(all: Seen[]): string[] {
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
