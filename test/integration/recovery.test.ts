import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { faultsOf } from '../support/check-invariants.ts';
import { Endpoint } from '../support/endpoint.ts';
import { type Data, hasEnded, runProgram, ServerProcess, until } from '../support/server-process.ts';

/** What a busy machine may take beyond an instant. */
const SLACK_MS = 3_000;

describe('a server that ends and starts again', function () {
  this.timeout(120_000);
  let endpoint: Endpoint;
  let server: ServerProcess;

  beforeEach(async () => {
    endpoint = await Endpoint.start();
    server = new ServerProcess({ env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
  });

  afterEach(async () => {
    await server.close();
    await endpoint.close();
  });

  const asking = (path = '/park', more: Record<string, unknown> = {}) => ({
    name: 'asking',
    nodes: {
      ask: { type: 'http', with: { url: endpoint.url + path }, ...more },
      after: { type: 'set', needs: ['ask'], with: { value: 'done' } },
    },
  });
  const events = async (id: string, type: string): Promise<Data[]> =>
    (await server.events(id)).filter((event) => event.type === type);
  const sound = async (id: string): Promise<void> => {
    expect(
      faultsOf({ record: await server.ok('GET', `/api/executions/${id}`), events: await server.events(id) }),
    ).to.deep.equal([]);
  };

  describe('the data directory', () => {
    it('has one server: a second one is refused with FS_LOCKED and exit code 1', async () => {
      await server.start();
      const id = await server.run(asking());
      await endpoint.calling(id);
      const second = await runProgram(['serve', '--port', '0', '--data', server.dataDir, '--demo', '0', '--json']);
      expect(second.code).to.equal(1);
      expect(second.stdout + second.stderr).to.include('FS_LOCKED');
      expect(second.stderr + second.stdout).to.include(String(server.pid));
      const plain = await runProgram(['serve', '--port', '0', '--data', server.dataDir, '--demo', '0']);
      expect(plain.code).to.equal(1);
      expect(plain.stderr).to.include(`in use by process ${server.pid}`);
      // The first one did not notice.
      expect((await server.http('GET', '/api/health')).data.status).to.equal('ok');
      expect(await server.ok('GET', `/api/executions/${id}`)).to.include({ status: 'Running' });
      expect(endpoint.of(id)).to.have.length(1);
    });

    it('is free at once when its server was killed', async () => {
      await server.start();
      await server.kill();
      await server.start();
      expect((await server.http('GET', '/api/health')).status).to.equal(200);
    });
  });

  describe('SIGTERM', () => {
    it('ends a server without work at once, exit code 0, and the directory is free', async () => {
      await server.start();
      const pid = server.pid;
      const beganAtMs = performance.now();
      expect(await server.signal('SIGTERM')).to.include({ code: 0, signal: null });
      expect(performance.now() - beganAtMs).to.be.below(SLACK_MS);
      await server.start();
      expect(server.pid).not.to.equal(pid);
    });

    it('ends a server that has timers and held nodes only at once; they go on', async () => {
      await server.start();
      const id = await server.run({
        name: 'parked',
        nodes: { wait: { type: 'delay', with: { duration: '1h' } }, hold: { type: 'hold', trigger: 'go' } },
      } as { name: string });
      await server.record(id, ({ nodes }) => nodes.hold.status === 'Held' && nodes.wait.status === 'Running');
      const beganAtMs = performance.now();
      expect((await server.signal('SIGTERM')).code).to.equal(0);
      expect(performance.now() - beganAtMs).to.be.below(SLACK_MS);
      await server.start();
      expect(await server.ok('GET', `/api/executions/${id}`)).to.include({
        status: 'Running',
        stop: null,
        error: null,
      });
    });

    it('admits nothing more, keeps what ends within its time, starts nothing after it, marks no stop', async () => {
      await server.start();
      const id = await server.run(asking());
      const [call] = await endpoint.calling(id);
      server.send('SIGTERM');
      const refused = await until(
        'a refusal',
        () => server.http('POST', '/api/executions', { workflow: 'asking' }),
        ({ status }) => status !== 201,
      );
      expect(refused.status).to.equal(503);
      expect(refused.data.code).to.equal('FS_UNAVAILABLE');
      expect(refused.headers.get('retry-after')).to.match(/^\d+$/);
      expect(server.running).to.equal(true);
      const before = (await server.ok('GET', '/api/executions')).items.length;
      call?.answer(200, { fine: true });
      expect(await server.ended()).to.include({ code: 0, signal: null });
      await server.start();
      const ended = await server.record(id);
      expect(ended).to.include({ status: 'Complete', stop: null, stoppedByUser: false });
      expect(ended.nodes.ask).to.include({ status: 'Complete', attempt: 1 });
      expect(endpoint.of(id)).to.have.length(1);
      // Those that slipped in before the drain began are there too, and no others.
      expect((await server.ok('GET', '/api/executions')).items).to.have.length(before);
      await sound(id);
    });

    it('waits no longer than FULLSTOP_DRAIN_MS: what still runs goes on after the next start', async () => {
      server = new ServerProcess({ env: { FULLSTOP_HTTP_ALLOW: endpoint.host, FULLSTOP_DRAIN_MS: '300' } });
      await server.start();
      const id = await server.run(asking());
      await endpoint.calling(id);
      const beganAtMs = performance.now();
      expect((await server.signal('SIGTERM')).code).to.equal(0);
      expect(performance.now() - beganAtMs).to.be.within(290, 300 + SLACK_MS);
      expect(endpoint.of(id)[0]?.end).to.equal('aborted');
      await server.start();
      const [, second] = await endpoint.calling(id, (calls) => calls.length === 2);
      expect(await server.ok('GET', `/api/executions/${id}`)).to.include({
        status: 'Running',
        stop: null,
        error: null,
      });
      second?.answer(200, {});
      const ended = await server.record(id);
      expect(ended).to.include({ status: 'Complete', stop: null });
      expect(ended.nodes.ask).to.include({ attempt: 2 });
      await sound(id);
    });

    it('a second signal ends it at once', async () => {
      await server.start();
      const id = await server.run(asking());
      await endpoint.calling(id);
      server.send('SIGTERM');
      await until(
        'a refusal',
        () => server.http('POST', '/api/executions', { workflow: 'asking' }),
        ({ status }) => status === 503,
      );
      const beganAtMs = performance.now();
      expect(await server.signal('SIGTERM')).to.include({ code: 143 });
      expect(performance.now() - beganAtMs).to.be.below(SLACK_MS);
      await server.start();
      await endpoint.calling(id, (calls) => calls.length === 2);
      expect(await server.ok('GET', `/api/executions/${id}`)).to.include({ status: 'Running', stop: null });
    });
  });

  describe('after kill -9', () => {
    it('a running attempt goes on as attempt 2, with the same Idempotency-Key', async () => {
      await server.start();
      const id = await server.run(asking());
      await endpoint.calling(id);
      await server.restart();
      const calls = await endpoint.calling(id, ({ length }) => length === 2);
      expect(new Set(calls.map(({ key }) => key)).size).to.equal(1);
      expect(calls[0]?.end).to.equal('aborted');
      calls[1]?.answer(200, { fine: true });
      const ended = await server.record(id);
      expect(ended).to.include({ status: 'Complete' });
      expect(ended.nodes.ask).to.include({ status: 'Complete', attempt: 2 });
      expect(
        (await events(id, 'node.started')).filter(({ node }) => node === 'ask').map(({ attempt }) => attempt),
      ).to.deep.equal([1, 2]);
      await sound(id);
    });

    it('a lost attempt counts as no try, and the fifth fails the node with FS_LOST', async () => {
      await server.start();
      const id = await server.run(asking());
      for (let lost = 1; lost <= 5; lost += 1) {
        await endpoint.calling(id, ({ length }) => length === lost);
        await server.restart();
      }
      const ended = await server.record(id);
      expect(ended).to.include({ status: 'Failed', errorCode: 'FS_LOST', stop: null });
      expect(ended.nodes.ask).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 5 });
      expect(endpoint.of(id)).to.have.length(5);
      await sound(id);
    });

    it('a node with rerun: false is not called again', async () => {
      await server.start();
      const id = await server.run(asking('/park', { rerun: false, retry: { attempts: 3, backoff: '1ms' } }));
      await endpoint.calling(id);
      await server.restart();
      const ended = await server.record(id);
      expect(ended.nodes.ask).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 1 });
      expect(endpoint.of(id)).to.have.length(1);
    });

    it('what was Complete is not run again, and its output is there', async () => {
      await server.start();
      const id = await server.run({
        name: 'two',
        nodes: {
          first: { type: 'http', with: { url: `${endpoint.url}/echo?value=kept` } },
          hold: { type: 'hold', trigger: 'go', needs: ['first'] },
          last: {
            type: 'set',
            needs: ['hold'],
            with: { value: '${{ nodes.first.output.body.value }} ${{ nodes.hold.output }}' },
          },
        },
      } as { name: string });
      await server.record(id, ({ nodes }) => nodes.hold.status === 'Held');
      await server.restart();
      await server.ok('POST', `/api/executions/${id}/triggers/go`, { payload: 'released' });
      const ended = await server.record(id);
      expect(ended.outputs).to.deep.equal({ last: 'kept released' });
      expect(endpoint.of(id)).to.have.length(1);
    });

    it('an acknowledged trigger releases its hold, though the process died before it did', async () => {
      await server.start();
      const ids: string[] = [];
      for (let count = 0; count < 10; count += 1)
        ids.push(
          await server.run({ name: 'held', nodes: { hold: { type: 'hold', trigger: 'go' } } } as { name: string }),
        );
      for (const id of ids) await server.record(id, ({ nodes }) => nodes.hold.status === 'Held');
      const accepted: string[] = [];
      await Promise.all(
        ids.map(async (id) => {
          const answer = await server
            .http('POST', `/api/executions/${id}/triggers/go`, { payload: id })
            .catch(() => null);
          if (answer?.status !== 200) return;
          accepted.push(id);
          void server.kill();
        }),
      );
      await server.ended();
      await server.start();
      expect(accepted).not.to.deep.equal([]);
      for (const id of accepted) expect((await server.record(id)).outputs).to.deep.equal({ hold: id });
    });

    it('children go on with their parent, none twice', async () => {
      await server.start();
      const id = await server.run({
        name: 'family',
        nodes: {
          each: {
            type: 'foreach',
            items: '${{ [1, 2, 3, 4] }}',
            concurrency: 2,
            body: {
              ask: { type: 'http', with: { url: `${endpoint.url}/park?item=\${{ item }}` } },
              value: { type: 'set', needs: ['ask'], with: { value: '${{ item }}' } },
            },
          },
        },
      } as { name: string });
      const children = async (): Promise<Data[]> => (await server.ok('GET', `/api/executions?parent=${id}`)).items;
      await until('two children', children, ({ length }) => length === 2);
      for (const child of await children()) await endpoint.calling(child.id);
      await server.restart();
      for (const child of await children()) {
        const [, again] = await endpoint.calling(child.id, ({ length }) => length === 2);
        again?.answer(200, {});
      }
      const all = await until('four children', children, ({ length }) => length === 4);
      for (const child of all) {
        const open = await endpoint.calling(
          child.id,
          (calls) => calls.some(({ end }) => end === null) || calls.some(({ end }) => end === 'answered'),
        );
        for (const call of open) call.answer(200, {});
      }
      const ended = await server.record(id);
      expect(ended.outputs.each.map(({ value }: Data) => value)).to.deep.equal([1, 2, 3, 4]);
      expect(await children()).to.have.length(4);
    });
  });

  describe('instants', () => {
    const definition = () => ({
      name: 'instants',
      nodes: {
        delay: { type: 'delay', with: { duration: '4s' } },
        retry: { type: 'http', with: { url: `${endpoint.url}/flaky?times=1` }, retry: { attempts: 2, backoff: '4s' } },
        pause: {
          type: 'while',
          condition: 'iter.index < 2',
          maxIterations: 3,
          delay: '4s',
          body: { step: { type: 'set', with: { value: '${{ iter.index }}' } } },
        },
        hold: { type: 'hold', schedule: '4s' },
        hurried: {
          type: 'http',
          timeout: '4s',
          continueOnError: true,
          with: { url: `${endpoint.url}/late?ms=600000` },
        },
      },
    });
    const begun = async (): Promise<{ id: string; dueAtMs: number }> => {
      const id = await server.run(definition());
      const record = await server.record(
        id,
        ({ nodes }) =>
          nodes.retry.errorCode === 'FS_HTTP_STATUS' &&
          nodes.pause.iteration?.nodes.step.status === 'Complete' &&
          nodes.hold.status === 'Held',
      );
      return { id, dueAtMs: Date.parse(record.startedAt) + 4_000 };
    };
    const firedOnce = async (id: string): Promise<Record<string, number>> => {
      const ended = await server.record(id, hasEnded, 30_000);
      expect(ended).to.include({ status: 'Complete' });
      await sound(id);
      const all = await server.events(id);
      const at = (type: string, node: string, nth = -1): number =>
        Date.parse(all.filter((event) => event.type === type && event.node === node).at(nth)?.at);
      expect(
        all.filter(({ type, node }) => type === 'node.completed' && ['delay', 'retry', 'pause', 'hold'].includes(node)),
      ).to.have.length(4);
      expect(all.filter(({ type }) => type === 'iteration.started')).to.have.length(2);
      expect(endpoint.of(`${id}/retry`)).to.have.length(2);
      return {
        delay: at('node.completed', 'delay'),
        retry: at('node.started', 'retry'),
        pause: at('iteration.started', 'pause'),
        hold: at('node.completed', 'hold'),
      };
    };

    it('that lie ahead keep their time over a restart', async () => {
      await server.start();
      const { id, dueAtMs } = await begun();
      await server.restart();
      await server.restart();
      // On a busy machine two restarts may take longer than that.
      const possibleAtMs = Math.max(dueAtMs, Date.now());
      for (const [name, atMs] of Object.entries(await firedOnce(id)))
        expect(atMs, name).to.be.within(dueAtMs - 50, possibleAtMs + SLACK_MS);
      const { nodes } = await server.ok('GET', `/api/executions/${id}`);
      expect(nodes.retry).to.include({ attempt: 2 });
      for (const name of ['delay', 'pause', 'hold']) expect(nodes[name], name).to.include({ attempt: 1 });
      expect(nodes.hurried).to.include({ status: 'Failed', errorCode: 'FS_TIMEOUT' });
    });

    it('that passed while no server ran fire at the start, once', async () => {
      await server.start();
      const { id, dueAtMs } = await begun();
      await server.kill();
      await sleep(Math.max(0, dueAtMs + 500 - Date.now()));
      const startedAtMs = Date.now();
      await server.start();
      const listeningAtMs = Date.now();
      for (const [name, atMs] of Object.entries(await firedOnce(id)))
        expect(atMs, name).to.be.within(startedAtMs, listeningAtMs + SLACK_MS);
    });
  });

  describe('a schedule', () => {
    const scheduled = async (): Promise<Data[]> => (await server.ok('GET', '/api/executions?workflow=scheduled')).items;
    /** Once a minute, `aheadMs` from now. */
    const definition = (aheadMs: number) => {
      const atMs = Math.ceil((Date.now() + aheadMs) / 1_000) * 1_000;
      return {
        atMs,
        source: {
          name: 'scheduled',
          on: { schedule: `${new Date(atMs).getUTCSeconds()} * * * * *` },
          nodes: { one: { type: 'set', with: { value: 1 } } },
        },
      };
    };

    it('whose instant passed while no server ran starts one execution, once', async () => {
      await server.start();
      const { atMs, source } = definition(2_000);
      await server.ok('POST', '/api/workflows', source);
      await server.kill();
      await sleep(Math.max(0, atMs + 300 - Date.now()));
      await server.start();
      await until('its execution', scheduled, ({ length }) => length > 0);
      await server.restart();
      await server.restart();
      expect(await scheduled()).to.have.length(1);
      expect(Date.now()).to.be.below(atMs + 60_000);
    });

    it('whose instant came just before a crash does not start a second execution', async () => {
      await server.start();
      const { atMs, source } = definition(2_000);
      await server.ok('POST', '/api/workflows', source);
      await until('its execution', scheduled, ({ length }) => length > 0);
      await server.restart();
      await server.record((await scheduled())[0].id);
      expect(await scheduled()).to.have.length(1);
      expect(Date.now()).to.be.below(atMs + 60_000);
    });
  });
});

describe('a full disk', function () {
  this.timeout(60_000);
  let endpoint: Endpoint;
  let directory: string | null = null;
  let server: ServerProcess;

  before(async function () {
    const made = mkdtempSync(join(tmpdir(), 'fullstop-small-'));
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', made], { stdio: 'ignore' });
    } catch {
      rmdirSync(made);
      this.test?.parent?.tests.forEach((test) => {
        test.title += ' (no small file system: mounting a tmpfs needs root)';
      });
      this.skip();
    }
    directory = made;
    endpoint = await Endpoint.start();
    server = await ServerProcess.start({ dataDir: directory, env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
  });

  after(async () => {
    if (directory === null) return;
    await server.close();
    await endpoint.close();
    execFileSync('umount', [directory]);
    rmdirSync(directory);
  });

  it('is told, nothing is acknowledged, actors wait, and all goes on when there is space', async () => {
    const definition = {
      name: 'patient',
      nodes: {
        ask: { type: 'http', with: { url: `${endpoint.url}/park` } },
        next: { type: 'http', needs: ['ask'], with: { url: `${endpoint.url}/echo?value=after` } },
      },
    };
    const id = await server.run(definition);
    const [call] = await endpoint.calling(id);
    const ballast = join(directory as string, 'ballast');
    const { bavail, bsize } = statfsSync(directory as string);
    writeFileSync(ballast, Buffer.alloc(bavail * bsize));

    // The log may have room for a few more: its file is as large as it ever was.
    const start = () =>
      server.http('POST', '/api/executions', { workflow: 'patient', labels: { filler: 'x'.repeat(200) }, input: {} });
    let acknowledged = 0;
    const refused = await until(
      'a refusal',
      start,
      ({ status }) => {
        if (status === 201) acknowledged += 1;
        return status !== 201;
      },
      30_000,
    );
    expect(refused.status).to.equal(503);
    expect(refused.data.code).to.equal('FS_UNAVAILABLE');
    expect(refused.headers.get('retry-after')).to.match(/^\d+$/);
    const health = await server.http('GET', '/api/health');
    expect(health.status).to.equal(503);
    expect(health.data).to.include({ status: 'unavailable' });
    expect(health.data.message).to.match(/full|disk|space/i);
    const blind = await server.http('GET', '/api/health', undefined, { key: null });
    expect(blind.status).to.equal(503);
    expect(JSON.stringify(blind.data)).not.to.match(/full|disk|space/i);

    // The node's end cannot be stored: what needs it does not start.
    call?.answer(200, {});
    const stop = await server.http('POST', `/api/executions/${id}/stop`);
    expect(stop.status).to.equal(503);
    await sleep(500);
    expect(endpoint.of(`${id}/next`)).to.have.length(0);
    expect(await server.ok('GET', `/api/executions/${id}`)).to.include({ status: 'Running', stop: null });

    rmSync(ballast);
    await until(
      'health',
      () => server.http('GET', '/api/health'),
      ({ status }) => status === 200,
    );
    await endpoint.calling(`${id}/next`);
    const ended = await server.record(id);
    expect(ended).to.include({ status: 'Complete', stop: null });
    expect(endpoint.of(`${id}/ask`)).to.have.length(1);
    expect(faultsOf({ record: ended, events: await server.events(id) })).to.deep.equal([]);
    const all = (await server.ok('GET', '/api/executions?workflow=patient&limit=1000')).items;
    expect(all.length, 'executions beyond those that were acknowledged').to.equal(acknowledged + 1);
    expect((await server.http('POST', '/api/executions', { workflow: 'patient' })).status).to.equal(201);
  });
});
