import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { changeFaults, familyFaults, faultsOf, type Seen } from '../support/check-invariants.ts';
import { Endpoint } from '../support/endpoint.ts';
import { seededRandom, seedOfRun } from '../support/seeds.ts';
import { type Data, ServerProcess, until } from '../support/server-process.ts';
import { callFaults, followUpFaults, listAll, promiseFaults, see } from './crash-checks.ts';
import { Load, loadWorkflows } from './crash-load.ts';

const MARKER = 'workflow stopped by user';
const KILLS_MIN = 50;
const SPAN_MS = Number(process.env.CRASH_LOOP_MS ?? 180_000);
const CLIENTS = 8;

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
