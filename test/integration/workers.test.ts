/** Workers and agents in processes of their own: killed, cut off, deaf, late. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { io, type Socket } from 'socket.io-client';
import type { Task } from '../../src/ports/work.ts';
import { workerProtocol } from '../../src/worker/protocol.ts';
import { Endpoint } from '../support/endpoint.ts';
import { type Data, freePort, hasEnded, ServerProcess, until } from '../support/server-process.ts';
import { WorkerProcess, type WorkerProcessOptions } from '../support/worker-process.ts';

const STOPPED = 'workflow stopped by user';
const { heartbeatMs, workerLeaseMs: leaseMs } = workerProtocol;

describe('workers and agents in other processes', function () {
  this.timeout(120_000);
  let server: ServerProcess;
  let endpoint: Endpoint;
  let started: WorkerProcess[];
  let sockets: Socket[];

  beforeEach(async () => {
    endpoint = await Endpoint.start();
    server = await ServerProcess.start({ port: await freePort(), env: { FULLSTOP_SLOTS: '0' } });
    started = [];
    sockets = [];
  });
  afterEach(async function () {
    if (this.currentTest?.state === 'failed') {
      for (const one of [server, ...started]) console.log(one.log.split('\n').slice(-40).join('\n'));
    }
    for (const socket of sockets) socket.disconnect();
    for (const worker of started) if (worker.running) await worker.kill();
    await server.close();
    await endpoint.close();
  });

  async function worker(options: WorkerProcessOptions = {}): Promise<WorkerProcess> {
    const one = await WorkerProcess.start(server, 'worker', {
      ...options,
      env: { FULLSTOP_HTTP_ALLOW: endpoint.host, ...options.env },
    });
    started.push(one);
    return one;
  }

  /** An execution whose one node calls the endpoint, and its id. */
  async function runCall(path: string, more: object = {}): Promise<string> {
    const call = { type: 'http', with: { url: `${endpoint.url}/${path}` }, ...more };
    return server.run({ name: 'call', nodes: { call } } as { name: string });
  }

  const stop = (id: string): Promise<Data> => server.ok('POST', `/api/executions/${id}/stop`);
  const receipt = (id: string): Promise<Data> => server.ok('GET', `/api/executions/${id}/stop`);

  describe('a worker', () => {
    it('runs what waited for it, and doctor says what is missing until then', async () => {
      const id = await runCall('ok');
      const before = await server.cli('doctor');
      expect(before.code).to.equal(1);
      expect(before.stdout).to.match(/1 task waits for http, which nobody offers/);
      await worker();
      const record = await server.record(id);
      expect(record).to.include({ status: 'Complete' });
      expect(record.nodes.call).to.include({ where: 'worker', attempt: 1 });
    });

    it('closes the socket of its call when the execution is stopped', async () => {
      await worker();
      const id = await runCall('park');
      const [call] = await endpoint.calling(id);
      const atMs = performance.now();
      await stop(id);
      await endpoint.calling(id, ([one]) => one?.end === 'aborted');
      expect(performance.now() - atMs).to.be.below(1_000);
      expect(call?.end).to.equal('aborted');
      const record = await server.record(id);
      expect(record).to.include({ status: 'Failed', error: STOPPED, stoppedByUser: true });
      expect((await receipt(id)).tasks).to.have.nested.property('[0].outcome', 'aborted');
    });

    it('that is killed loses its task after a lease, and another one runs it as the next attempt', async () => {
      const first = await worker();
      const id = await runCall('park');
      await endpoint.calling(id);
      await first.kill();
      await worker();
      await endpoint.calling(id, (calls) => calls.length === 2);
      const [one, two] = endpoint.of(id);
      expect(one?.end).to.equal('aborted');
      two?.answer(200, { ok: true });
      const record = await server.record(id);
      expect(record).to.include({ status: 'Complete' });
      expect(record.nodes.call.attempt).to.equal(2);
    });

    it('that is killed with a call that must not be repeated fails its node', async () => {
      const first = await worker();
      const id = await runCall('park', { rerun: false });
      await endpoint.calling(id);
      await first.kill();
      const record = await server.record(id);
      expect(record.nodes.call).to.include({ status: 'Failed', errorCode: 'FS_LOST', attempt: 1 });
    });

    it('that is killed in the middle of a stop leaves no stop without its end', async () => {
      const deaf = await worker({ file: join(import.meta.dirname, '../support/deaf-worker.ts'), args: ['60000'] });
      const id = await runCall('park');
      await claimed(id);
      await stop(id);
      await deaf.kill();
      const record = await server.record(id);
      expect(record).to.include({ status: 'Failed', error: STOPPED });
      expect((await receipt(id)).finalisedMs).to.be.below(6_000);
    });

    it('keeps its task over a restart of the engine, which takes its result as the same attempt', async () => {
      await worker();
      // Only an engine that is back within the lease is owed that: on a busy machine it may take more than one try.
      const backWithinMs = leaseMs - heartbeatMs - 1_000;
      const restarts: number[] = [];
      while (restarts.length < 4) {
        const id = await runCall('park');
        const [call] = await endpoint.calling(id);
        const killedAtMs = performance.now();
        await server.restart();
        await until('it is back', workers, (list) => list.some(({ held, connected }) => connected && held === 1));
        const tookMs = performance.now() - killedAtMs;
        if (tookMs < backWithinMs || call?.end === null) {
          expect(call?.end).to.equal(null);
          call?.answer(200, { kept: true });
          const record = await server.record(id);
          expect(record).to.include({ status: 'Complete' });
          expect(record.nodes.call.attempt).to.equal(1);
          expect(endpoint.of(id)).to.have.length(1);
          return;
        }
        restarts.push(Math.round(tookMs));
        await stop(id);
        await server.record(id);
        await until('its slot is free', workers, ([one]) => one?.held === 0);
      }
      throw new Error(`no engine was back within ${backWithinMs} ms: it took ${restarts.join(', ')} ms`);
    });

    it('that has reached no engine for a lease aborts by itself, and takes the next attempt', async () => {
      await worker();
      const id = await runCall('park');
      await endpoint.calling(id);
      const askedAtMs = performance.now();
      const [{ silentMs }] = await workers();
      await server.kill();
      const killedAtMs = performance.now();
      await endpoint.calling(id, ([one]) => one?.end === 'aborted');
      const abortedAtMs = performance.now();
      // Its lease began with a message that was heard by then, or later. That one was under way for a moment.
      expect(abortedAtMs - (askedAtMs - silentMs)).to.be.at.least(leaseMs - 1_000);
      expect(abortedAtMs - killedAtMs).to.be.below(leaseMs + 1_500);
      await server.start();
      await endpoint.calling(id, (calls) => calls.length === 2);
      endpoint.of(id)[1]?.answer(200, {});
      const record = await server.record(id);
      expect(record.nodes.call).to.include({ status: 'Complete', attempt: 2 });
    });

    it('that was frozen for longer than its lease brings nothing that counts, and works on', async () => {
      const frozen = await worker();
      const id = await runCall('park');
      await endpoint.calling(id);
      frozen.send('SIGSTOP');
      await until(
        'it is lost',
        () => server.record(id, () => true),
        ({ nodes }) => nodes.call.attempt === 2,
      );
      endpoint.of(id)[0]?.answer(200, { late: true });
      frozen.send('SIGCONT');
      await endpoint.calling(id, (calls) => calls.length === 2);
      endpoint.of(id)[1]?.answer(200, { second: true });
      const record = await server.record(id);
      expect(record.nodes.call).to.include({ status: 'Complete', attempt: 2 });
      expect(record.outputs.call.body).to.deep.equal({ second: true });
    });

    it('whose work ignores its abort does not hold the stop: its receipt is unconfirmed until it ends', async () => {
      await worker({ file: join(import.meta.dirname, '../support/deaf-worker.ts'), args: ['9000'] });
      const id = await runCall('park');
      await claimed(id);
      await stop(id);
      const record = await server.record(id);
      expect(record).to.include({ status: 'Failed', error: STOPPED });
      const open = await receipt(id);
      expect(open.unconfirmed).to.equal(1);
      expect(open.tasks[0].outcome).to.equal('unconfirmed');
      const closed = await until(
        'it is confirmed',
        () => receipt(id),
        ({ unconfirmed }) => unconfirmed === 0,
      );
      expect(closed.tasks[0].outcome).to.equal('aborted');
      expect(closed.tasks[0].ms).to.be.at.least(8_000);
    });

    it('that is told to end lets its task end; its second signal ends it at once', async () => {
      const ending = await worker();
      const id = await runCall('park');
      const [call] = await endpoint.calling(id);
      ending.send('SIGTERM');
      await until('it takes nothing more', workers, ([one]) => one?.slots === 0);
      call?.answer(200, {});
      expect((await server.record(id)).status).to.equal('Complete');
      expect(await ending.ended()).to.equal(0);
      const hasty = await worker();
      const next = await runCall('park');
      await endpoint.calling(next);
      hasty.send('SIGINT');
      await until('it takes nothing more', workers, ([one]) => one?.slots === 0);
      hasty.send('SIGINT');
      expect(await hasty.ended()).to.equal(130);
    });

    it('that ends before its task gives it back at once', async () => {
      const ending = await worker({ args: ['--drain-ms', '100'] });
      const id = await runCall('park');
      await endpoint.calling(id);
      ending.send('SIGTERM');
      expect(await ending.ended()).to.equal(0);
      await worker();
      await endpoint.calling(id, (calls) => calls.length === 2, 4_000);
      endpoint.of(id)[1]?.answer(200, {});
      expect((await server.record(id)).nodes.call.attempt).to.equal(2);
    });
  });

  describe('a worker that says things twice, too late, or of others', () => {
    interface RawWorker {
      socket: Socket;
      pushed: { task: Task; token: string }[];
      ask(name: string, payload: unknown): Promise<Data>;
    }

    async function rawWorker(workerId: string): Promise<RawWorker> {
      const socket = io(`${server.url}/workers`, {
        auth: { token: server.key },
        transports: ['websocket'],
        forceNew: true,
        reconnection: false,
      });
      sockets.push(socket);
      const raw: RawWorker = {
        socket,
        pushed: [],
        ask: (name, payload) => socket.timeout(10_000).emitWithAck(name, payload),
      };
      socket.on('task.run', (run) => raw.pushed.push(run));
      const hello = { workerId, name: 'raw', capabilities: ['http'], slots: 1, held: [] };
      expect(await raw.ask('worker.hello', hello)).to.have.property('ok', true);
      return raw;
    }

    const [A, B] = ['0190b0a0-1111-4000-8000-00000000000a', '0190b0a0-1111-4000-8000-00000000000b'];
    const completed = (output: unknown) => ({ kind: 'completed', output });

    async function pushedTo(raw: RawWorker): Promise<{ task: Task; token: string }> {
      return (await until(
        'a task is pushed',
        async () => raw.pushed.at(-1),
        (run) => run !== undefined,
      )) as {
        task: Task;
        token: string;
      };
    }

    it('is believed once, and only for what it was given', async () => {
      const a = await rawWorker(A);
      const id = await runCall('x');
      const { task, token } = await pushedTo(a);
      expect(task.id).to.equal(`${id}/call/-/1`);
      const b = await rawWorker(B);
      const discarded = { ok: true, data: { discarded: true } };
      const say = (raw: RawWorker, over: object) =>
        raw.ask('task.result', { taskId: task.id, token, report: completed(1), ...over });
      expect(await say(b, {})).to.deep.equal(discarded);
      expect(await say(a, { token: 'wrong' })).to.deep.equal(discarded);
      expect(await say(a, { taskId: `${id}/call/-/2` })).to.deep.equal(discarded);
      expect((await server.record(id, () => true)).status).to.equal('Running');
      expect(await say(a, { report: completed({ mine: 1 }) })).to.deep.equal({ ok: true, data: { discarded: false } });
      expect(await say(a, { report: completed({ mine: 2 }) })).to.deep.equal(discarded);
      const record = await server.record(id);
      expect(record.outputs.call).to.deep.equal({ mine: 1 });
    });

    it('brings a result after the stop: it is discarded, and in no record', async () => {
      const a = await rawWorker(A);
      const id = await runCall('x');
      const { task, token } = await pushedTo(a);
      await stop(id);
      const answer = await a.ask('task.result', { taskId: task.id, token, report: completed('late') });
      expect(answer).to.deep.equal({ ok: true, data: { discarded: true } });
      const record = await server.record(id);
      expect(record).to.include({ status: 'Failed', error: STOPPED });
      expect(record.nodes.call).to.include({ status: 'Failed', error: STOPPED, hasOutput: false });
      const { tasks, unconfirmed } = await receipt(id);
      expect(tasks[0].outcome).to.equal('finishedFirst');
      expect(unconfirmed).to.equal(0);
    });

    it('brings a result after its attempt was lost: it is discarded, the next attempt counts', async () => {
      const a = await rawWorker(A);
      const id = await runCall('x');
      const { task, token } = await pushedTo(a);
      a.socket.disconnect();
      const again = await rawWorker(A);
      const next = await until(
        'the next attempt is pushed',
        async () => again.pushed[0],
        (run) => run !== undefined,
      );
      expect(next?.task.id).to.equal(`${id}/call/-/2`);
      expect(await again.ask('task.result', { taskId: task.id, token, report: completed('late') })).to.deep.equal({
        ok: true,
        data: { discarded: true },
      });
      await again.ask('task.result', { taskId: next?.task.id, token: next?.token, report: completed('next') });
      expect((await server.record(id)).outputs.call).to.equal('next');
    });
  });

  describe('an agent', () => {
    let folder: string;
    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), 'fullstop-agent-'));
    });
    afterEach(() => rmSync(folder, { recursive: true, force: true }));

    async function agent(options: WorkerProcessOptions = {}): Promise<WorkerProcess> {
      const one = await WorkerProcess.start(server, 'agent', {
        args: ['--pool', 'yard', '--allow', process.execPath],
        ...options,
      });
      started.push(one);
      return one;
    }

    /** An execution whose one node runs a tool that waits for the file `go`. */
    async function runTool(more: object = {}): Promise<string> {
      const [begun, go, ended] = ['begun', 'go', 'ended'].map((name) => JSON.stringify(join(folder, name)));
      const code = `fs.appendFileSync(${begun}, process.pid + "\\n"); const t = setInterval(() => { if (!fs.existsSync(${go})) return; console.log('{"found":1}'); fs.writeFileSync(${ended}, ""); clearInterval(t) }, 20)`;
      const tool = { type: 'agent', with: { pool: 'yard', tool: process.execPath, args: ['-e', code] }, ...more };
      return server.run({ name: 'tool', nodes: { tool } } as { name: string });
    }

    const begun = () =>
      until(
        'the tool runs',
        async () => pids(),
        (list) => list.length > 0,
      );
    const pids = () =>
      existsSync(join(folder, 'begun')) ? readFileSync(join(folder, 'begun'), 'utf8').trim().split('\n') : [];
    const go = () => writeFileSync(join(folder, 'go'), '');

    it('picks up by pool with its own key, and returns what the tool printed', async () => {
      const { key } = await server.ok('POST', '/api/keys', { name: 'a', role: 'agent', pool: 'yard' });
      await agent({ key });
      const id = await runTool();
      await begun();
      go();
      const record = await server.record(id);
      expect(record.outputs.tool).to.deep.equal({ exitCode: 0, stdout: { found: 1 }, stderrTail: '' });
      expect(record.nodes.tool.where).to.equal('agent');
    });

    it('runs on after a stop: its node is Failed at once, its late result discarded and counted', async () => {
      await agent();
      const id = await runTool();
      await begun();
      const preview = await server.ok('GET', `/api/executions/${id}/stop?preview=true`);
      expect(preview.cannotCancel).to.have.length(1);
      expect(preview.willAbort).to.deep.equal([]);
      await stop(id);
      const record = await server.record(id, hasEnded, 2_000);
      expect(record.nodes.tool).to.include({ status: 'Failed', error: STOPPED });
      expect((await receipt(id)).tasks[0].outcome).to.equal('agentRunsOn');
      expect(existsSync(join(folder, 'ended'))).to.equal(false);
      go();
      const counted = await until(
        'it is counted',
        () => receipt(id),
        ({ lateResultsDiscarded }) => lateResultsDiscarded > 0,
      );
      expect(existsSync(join(folder, 'ended'))).to.equal(true);
      // It is said once: the answer ends it.
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      expect(counted.lateResultsDiscarded).to.equal(1);
      expect((await receipt(id)).lateResultsDiscarded).to.equal(1);
      expect((await server.record(id)).nodes.tool.hasOutput).to.equal(false);
    });

    it('is never given what was stopped before anybody picked it up', async () => {
      const id = await runTool();
      await server.record(id, ({ nodes }) => nodes.tool.status === 'Running');
      const preview = await server.ok('GET', `/api/executions/${id}/stop?preview=true`);
      expect(preview.willAbort).to.have.length(1);
      await stop(id);
      await server.record(id, hasEnded, 2_000);
      expect((await receipt(id)).tasks[0].outcome).to.equal('neverStarted');
      await agent();
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      expect(pids()).to.deep.equal([]);
    });

    it('that is killed loses its task after its own lease, not a worker’s', async () => {
      const first = await agent();
      const id = await runTool();
      const [pid] = await begun();
      const atMs = Date.now();
      await first.kill();
      await agent();
      await until(
        'it runs again',
        async () => pids(),
        (list) => list.length === 2,
        60_000,
      );
      const again = (await server.events(id)).find(({ type, attempt }) => type === 'node.started' && attempt === 2);
      expect(Date.parse(again.at) - atMs).to.be.within(20_000, 36_000);
      go();
      expect((await server.record(id)).nodes.tool).to.include({ status: 'Complete', attempt: 2 });
      expect(pids()[0]).to.equal(pid);
    });
  });

  const workers = async (): Promise<Data[]> => (await server.ok('GET', '/api/workers')).items;

  /** Resolves when somebody holds the task of an execution. */
  async function claimed(id: string): Promise<void> {
    await until(
      'it is claimed',
      () => server.events(id),
      (events) => events.some(({ type }) => type === 'task.claimed'),
    );
  }
});
