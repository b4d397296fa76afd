/**
 * What a stop does to work outside the engine, seen from where the work is: the container engine, the called services,
 * the agent's machine.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ContainerEngine, type ListedContainer } from '../../src/worker/container-engine.ts';
import { Endpoint } from '../support/endpoint.ts';
import { ModelEndpoint } from '../support/model-endpoint.ts';
import { containerEngineOrSkip, goneWithinMs, type TestEngine, testImage } from '../support/podman.ts';
import { type Data, hasEnded, ServerProcess, until } from '../support/server-process.ts';
import { WorkerProcess, type WorkerProcessOptions } from '../support/worker-process.ts';

const MARKER = 'workflow stopped by user';
const STOPPED = { status: 'Failed', error: MARKER, errorCode: 'FS_STOPPED' };
const PENDING = { status: 'Pending', error: null, attempt: 0, startedAt: null };
/** As the worker's: from SIGTERM to SIGKILL. */
const GRACE_MS = 3_000;
/** How soon the other side of a connection sees that it was closed, on a busy machine. */
const CLOSED_MS = 1_000;

/** In text that leaves no trace anywhere but in the work itself. */
const CANARY = `canary-${randomUUID()}`;
const MODEL_KEY = `sk-${randomUUID()}`;

const obeying = 'trap "echo bye; exit 0" TERM; echo up; while true; do sleep 0.05; done';
const ignoring = 'trap "" TERM; echo up; while true; do sleep 0.05; done';

/** A container node that runs a script. */
function scripted(script: string, more: object = {}, keys: object = {}): object {
  const shell = { image: testImage, command: ['sh', '-c'], args: [script], memory: '64m' };
  return { type: 'container', with: { ...shell, ...more }, ...keys };
}

const names = (entries: Data[]): string[] => entries.map(({ node }) => node).sort();

/** A server, and who works for it. */
class Site {
  readonly server: ServerProcess;
  readonly #started: WorkerProcess[] = [];

  private constructor(server: ServerProcess) {
    this.server = server;
  }

  static async open(env: Record<string, string>): Promise<Site> {
    return new Site(await ServerProcess.start({ env }));
  }

  async worker(verb: 'worker' | 'agent', options: WorkerProcessOptions): Promise<WorkerProcess> {
    const one = await WorkerProcess.start(this.server, verb, options);
    this.#started.push(one);
    return one;
  }

  preview(id: string): Promise<Data> {
    return this.server.ok('GET', `/api/executions/${id}/stop?preview=true`);
  }

  receipt(id: string, fits: (receipt: Data) => boolean = () => true): Promise<Data> {
    return until('the receipt', () => this.server.ok('GET', `/api/executions/${id}/stop`), fits);
  }

  /** Stops it; when it was answered, in ms of `performance.now`. */
  async stop(id: string): Promise<number> {
    const atMs = performance.now();
    const { status, data } = await this.server.http('POST', `/api/executions/${id}/stop`);
    expect({ status, said: data.status }).to.deep.equal({ status: 202, said: 'stop requested' });
    return atMs;
  }

  /** Resolves when each of these nodes has printed `text`. */
  async printed(id: string, text: string, ...nodes: string[]): Promise<void> {
    await until(
      `${nodes.join(', ')} of ${id} printed ${text}`,
      () => this.server.events(id),
      (events) => nodes.every((node) => logOf(events, node).includes(text)),
    );
  }

  /** Everything that can be read of an execution over HTTP, as text. */
  async everything(id: string): Promise<string> {
    const paths = ['', '/results', '/stop'].map((path) => this.server.http('GET', `/api/executions/${id}${path}`));
    const answers = await Promise.all(paths);
    return JSON.stringify([...answers.map(({ data }) => data), await this.server.events(id)]);
  }

  /** What its processes wrote. */
  get log(): string {
    return [this.server, ...this.#started].map(({ log }) => log).join('');
  }

  /** Whether a file of the data directory, the database among them, has this text. */
  keeps(text: string): boolean {
    return readdirSync(this.server.dataDir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .some((entry) => readFileSync(join(entry.parentPath, entry.name)).includes(text));
  }

  async close(): Promise<void> {
    for (const worker of this.#started) if (worker.running) await worker.kill();
    await this.server.close();
  }
}

function logOf(events: Data[], node: string): string {
  const lines = events.filter((event) => event.type === 'log' && event.node === node);
  return lines.map(({ data }) => data.text).join('');
}

/** Nothing begins after the stop, and nothing at all follows the end. */
function expectQuiet(events: Data[]): void {
  const types = events.map(({ type }) => type);
  const after = types.slice(types.indexOf('stop.requested'));
  expect(after.filter((type) => /^(node\.(started|completed|retrying)|task\.(queued|claimed))$/.test(type))).to.eql([]);
  expect(types.at(-1)).to.equal('execution.failed');
  expect(types.filter((type) => type === 'execution.failed')).to.have.length(1);
}

for (const place of ['the server', 'a worker process'] as const) {
  describe(`the state table of a stop, for ai, http and agent nodes that ${place} runs`, function () {
    this.timeout(60_000);
    let site: Site;
    let endpoint: Endpoint;
    let model: ModelEndpoint;
    let folder: string;
    let id: string;
    let preview: Data;
    let ended: Data;
    let endedMs: number;
    let results: Data;
    let stoppedAtMs: number;

    before(async () => {
      endpoint = await Endpoint.start();
      model = await ModelEndpoint.start();
      folder = mkdtempSync(join(tmpdir(), 'fullstop-tools-'));
      const env = {
        FULLSTOP_HTTP_ALLOW: endpoint.host,
        FULLSTOP_MODELS: JSON.stringify({
          local: { baseURL: model.url, model: 'test', apiKey: 'env:MODEL_KEY' },
        }),
        MODEL_KEY,
        FULLSTOP_SECRETS: 'env:HIDDEN_',
        HIDDEN_TOKEN: CANARY,
      };
      site = await Site.open(place === 'the server' ? env : { FULLSTOP_SLOTS: '0' });
      if (place !== 'the server') await site.worker('worker', { env, args: ['--capabilities', 'http,ai'] });
      await site.worker('agent', { args: ['--pool', 'yard', '--allow', process.execPath] });
      id = await site.server.run(tableOf() as unknown as { name: string });
      await site.server.record(
        id,
        ({ nodes }) =>
          ['doneAi', 'doneCall', 'doneTool'].every((name) => nodes[name].status === 'Complete') &&
          ['failedAi', 'failedCall', 'failedTool'].every((name) => nodes[name].status === 'Failed'),
      );
      await Promise.all([
        endpoint.calling(`${id}/call`),
        model.asked('park', ({ said }) => said),
        model.asked('silent'),
        until(
          'the tool runs',
          async () => existsSync(join(folder, 'begun')),
          (is) => is,
        ),
      ]);
      preview = await site.preview(id);
      stoppedAtMs = await site.stop(id);
      ended = await site.server.record(id);
      endedMs = performance.now() - stoppedAtMs;
      results = await site.server.ok('GET', `/api/executions/${id}/results`);
    });

    after(async () => {
      await site.close();
      await endpoint.close();
      await model.close();
      rmSync(folder, { recursive: true, force: true });
    });

    function tool(code: string): object {
      return { type: 'agent', with: { pool: 'yard', tool: process.execPath, args: ['-e', code] } };
    }

    /** Waits for the file `go`, prints what is in it, writes `done`. */
    function parkedTool(): object {
      const [begun, go, done] = ['begun', 'go', 'done'].map((name) => JSON.stringify(join(folder, name)));
      return tool(
        `fs.writeFileSync(${begun}, ''); const t = setInterval(() => { if (!fs.existsSync(${go})) return; clearInterval(t); console.log(fs.readFileSync(${go}, 'utf8')); fs.writeFileSync(${done}, '') }, 20)`,
      );
    }

    function tableOf() {
      const ask = (prompt: string, keys: object = {}) => ({ type: 'ai', with: { model: 'local', prompt }, ...keys });
      const headers = { 'x-token': '${{ secrets.TOKEN }}' };
      const call = (path: string) => ({ type: 'http', with: { url: `${endpoint.url}/${path}`, headers } });
      const then = (node: string) => ({ type: 'set', needs: [node], with: { value: 1 } });
      return {
        name: 'outside',
        nodes: {
          doneAi: ask('say hello'),
          doneCall: call('ok?value=kept'),
          doneTool: tool('console.log(JSON.stringify({ kept: true }))'),
          failedAi: ask('refuse'),
          failedCall: call('bad'),
          failedTool: tool('console.error("no such host"); process.exit(3)'),
          ask: ask('park'),
          silent: ask('silent'),
          call: call('park'),
          tool: parkedTool(),
          unheard: { type: 'agent', with: { pool: 'nobody', tool: 'nmap' } },
          afterAsk: then('ask'),
          afterCall: { ...call('ok'), needs: ['call'] },
          afterTool: { ...tool('0'), needs: ['tool'] },
          afterUnheard: then('unheard'),
        },
      };
    }

    const agent = async (): Promise<Data> =>
      (await site.server.ok('GET', '/api/workers')).items.find((one: Data) => one.kind === 'agent');

    /** The agent's heartbeat was answered: had it been told to end its tool, it would know. */
    async function heardSinceTheStop(): Promise<void> {
      await until('a heartbeat', agent, ({ silentMs }) => silentMs < performance.now() - stoppedAtMs - 500);
      expect(existsSync(join(folder, 'done'))).to.equal(false);
    }

    const taskOf = async (node: string): Promise<Data> =>
      (await site.receipt(id)).tasks.find((task: Data) => task.node === node);

    it('an ai call in flight is aborted and ends Failed with the marker', async () => {
      for (const [node, prompt] of [
        ['ask', 'park'],
        ['silent', 'silent'],
      ] as const) {
        expect(ended.nodes[node], node).to.include({ ...STOPPED, hasOutput: false, where: 'worker' });
        expect(results.nodes[node]).to.deep.equal({ status: 'Failed', output: null, error: MARKER });
        const asked = await model.asked(prompt, ({ end }) => end !== null);
        expect(asked).to.include({ end: 'aborted' });
        expect(await taskOf(node)).to.include({ type: 'ai', where: 'worker', outcome: 'aborted', attempt: 1 });
        const closedMs = (asked.endedAtMs as number) - stoppedAtMs;
        console.log(`      ${node}: its socket closed ${Math.round(closedMs)} ms after the stop`);
        expect(closedMs).to.be.below(CLOSED_MS);
      }
      expect(model.calls('park') + model.calls('silent')).to.equal(2);
    });

    it('an integration call in flight is aborted and ends Failed with the marker', async () => {
      expect(ended.nodes.call).to.include({ ...STOPPED, hasOutput: false, where: 'worker' });
      expect(results.nodes.call).to.deep.equal({ status: 'Failed', output: null, error: MARKER });
      const calls = await endpoint.calling(`${id}/call`, ([one]) => one?.end !== null, CLOSED_MS);
      expect(calls.map(({ end }) => end)).to.deep.equal(['aborted']);
      const { ms, ...task } = await taskOf('call');
      expect(task).to.deep.equal({ node: 'call', attempt: 1, type: 'http', where: 'worker', outcome: 'aborted' });
      expect(ms).to.be.within(0, CLOSED_MS);
    });

    it('a node on an External Agent is Failed at once with the marker, and the agent runs on', async () => {
      expect(ended.nodes.tool).to.include({ ...STOPPED, hasOutput: false, where: 'agent' });
      expect(endedMs).to.be.below(2_000);
      expect(await taskOf('tool')).to.include({ type: 'agent', where: 'agent', outcome: 'agentRunsOn' });
      expect(existsSync(join(folder, 'done'))).to.equal(false);
      expect(await site.receipt(id)).to.include({ unconfirmed: 0, lateResultsDiscarded: 0 });
    });

    it('an agent task that nobody has picked up never starts', async () => {
      expect(ended.nodes.unheard).to.include({ ...STOPPED, hasOutput: false });
      expect(await taskOf('unheard')).to.include({ where: 'agent', outcome: 'neverStarted' });
      expect((await site.server.ok('GET', '/api/health')).missing ?? {}).to.deep.equal({});
    });

    it('Complete keeps its output', () => {
      expect(ended.nodes.doneAi).to.include({ status: 'Complete', error: null, hasOutput: true });
      expect(results.nodes.doneAi.output).to.include({ text: 'hello', finishReason: 'stop' });
      expect(results.nodes.doneCall.output).to.deep.include({ status: 200, body: { value: 'kept' } });
      expect(results.nodes.doneTool.output).to.deep.equal({ exitCode: 0, stdout: { kept: true }, stderrTail: '' });
    });

    it('Failed keeps its error', () => {
      expect(ended.nodes.failedAi).to.include({ status: 'Failed', errorCode: 'FS_AI_CALL' });
      expect(ended.nodes.failedCall).to.include({ status: 'Failed', errorCode: 'FS_HTTP_STATUS' });
      expect(ended.nodes.failedTool).to.include({ status: 'Failed', errorCode: 'FS_FAILED' });
      expect(ended.nodes.failedTool.error).to.match(/exited with code 3: no such host/);
    });

    it('Pending stays Pending', async () => {
      for (const name of ['afterAsk', 'afterCall', 'afterTool', 'afterUnheard'])
        expect(ended.nodes[name], name).to.include(PENDING);
      expect(endpoint.of(`${id}/afterCall`)).to.deep.equal([]);
    });

    it('the execution ends Failed with the marker, and its events end there', async () => {
      expect(ended).to.include({ ...STOPPED, stoppedByUser: true, outputs: null });
      expectQuiet(await site.server.events(id));
    });

    it('the preview told which tasks cannot be reached', () => {
      expect(names(preview.willAbort)).to.deep.equal(['ask', 'call', 'silent', 'unheard']);
      expect(preview.cannotCancel).to.have.length(1);
      expect(preview.cannotCancel[0]).to.include({ node: 'tool', agent: hostname() });
      expect(preview.cannotCancel[0].runningForMs).to.be.a('number');
      expect(preview.kept).to.deep.equal({ Complete: 3, Failed: 3, Skipped: 0 });
      expect(names(preview.stayPending)).to.deep.equal(['afterAsk', 'afterCall', 'afterTool', 'afterUnheard']);
    });

    it('the receipt names each task once', async () => {
      const { tasks, finalisedMs } = await site.receipt(id);
      expect(names(tasks)).to.deep.equal(['ask', 'call', 'silent', 'tool', 'unheard']);
      expect(finalisedMs).to.be.below(2_000);
    });

    it('the late result of an agent is answered as discarded, counted, and nowhere to be found', async () => {
      const eventsBefore = await site.server.events(id);
      await heardSinceTheStop();
      const late = `late-${randomUUID()}`;
      writeFileSync(join(folder, 'go'), JSON.stringify({ late }));
      const { lateResultsDiscarded } = await site.receipt(id, (receipt) => receipt.lateResultsDiscarded > 0);
      expect(lateResultsDiscarded).to.equal(1);
      expect(existsSync(join(folder, 'done'))).to.equal(true);
      // It was answered: its slot is free, and it has nothing more to say.
      const idle = await until('the agent is idle', agent, ({ held }) => held === 0);
      expect(idle).to.include({ connected: true });
      expect(await site.server.record(id)).to.deep.equal(ended);
      expect(await site.server.events(id)).to.deep.equal(eventsBefore);
      expect(await site.server.ok('GET', `/api/executions/${id}/results`)).to.deep.equal(results);
      expect(await site.everything(id)).not.to.contain(late);
      expect(site.keeps(late)).to.equal(false);
      const next = await site.server.run({ name: 'next', nodes: { tool: tool('console.log("[2]")') } } as {
        name: string;
      });
      expect((await site.server.record(next)).outputs.tool.stdout).to.deep.equal([2]);
      expect((await site.receipt(id)).lateResultsDiscarded).to.equal(1);
    });

    it('an agent that comes later is given nothing of it', async () => {
      const late = await site.worker('agent', { args: ['--pool', 'nobody', '--allow', process.execPath] });
      const items: Data[] = (await site.server.ok('GET', '/api/workers')).items;
      expect(items.find((one) => one.id === late.id)).to.include({ held: 0 });
      await late.kill();
    });

    it('secrets and keys of models were used, and are kept nowhere', async () => {
      expect(model.keys).to.deep.equal(new Set([`Bearer ${MODEL_KEY}`]));
      const all = `${await site.everything(id)}${site.log}`;
      for (const secret of [CANARY, MODEL_KEY]) {
        expect(all).not.to.contain(secret);
        expect(site.keeps(secret)).to.equal(false);
      }
    });
  });
}

describe('containers and a stop', function () {
  this.timeout(60_000);
  let engine: TestEngine;
  let eyes: ContainerEngine;
  const sites: Site[] = [];
  /** Of one test. */
  const brief: Site[] = [];
  const executions: string[] = [];

  before(async function () {
    engine = await containerEngineOrSkip(this);
    eyes = new ContainerEngine(engine.dockerHost);
  });

  after(async () => {
    if (engine === undefined) return;
    for (const site of sites) await site.close();
    const left = (await ours()).map(({ name }) => name);
    eyes.close();
    await engine.close();
    expect(left, 'containers left after the tests').to.deep.equal([]);
  });

  afterEach(async () => {
    for (const site of brief.splice(0)) await site.close();
  });

  const settings = () => ({
    DOCKER_HOST: engine.dockerHost,
    FULLSTOP_IMAGES: 'localhost/fullstop-*',
    FULLSTOP_SECRETS: 'env:HIDDEN_',
    HIDDEN_TOKEN: CANARY,
  });

  async function open(owner: Site[], env: Record<string, string> = settings()): Promise<Site> {
    const site = await Site.open(env);
    owner.push(site);
    return site;
  }

  async function run(site: Site, name: string, nodes: object): Promise<string> {
    const id = await site.server.run({ name, nodes } as { name: string });
    executions.push(id);
    return id;
  }

  /** Those of an execution, or of a node. */
  const containersOf = (id: string, node?: string): Promise<ListedContainer[]> =>
    eyes.list({ 'fullstop.execution': id, ...(node === undefined ? {} : { 'fullstop.node': node }) });

  /** All with our labels; in an engine that serves others too, those of these tests. */
  async function ours(): Promise<ListedContainer[]> {
    const all = (await eyes.list({})).filter(({ labels }) =>
      Object.keys(labels).some((key) => /^fullstop\./.test(key)),
    );
    return engine.own ? all : all.filter(({ labels }) => executions.includes(labels['fullstop.execution'] ?? ''));
  }

  /** The one container of a node that runs. */
  async function containerOf(id: string, node: string): Promise<ListedContainer> {
    const found = await containersOf(id, node);
    expect(found).to.have.length(1);
    return found[0] as ListedContainer;
  }

  /** Resolves when the engine says of it that there is none (404): how many ms after `sinceMs`. */
  async function gone({ id }: ListedContainer, sinceMs: number, withinMs = 20_000): Promise<number> {
    await until(
      `container ${id} is gone`,
      () => eyes.state(id),
      (state) => state === null,
      withinMs,
    );
    return performance.now() - sinceMs;
  }

  for (const place of ['the server', 'a worker process'] as const) {
    describe(`that ${place} runs`, () => {
      let site: Site;
      let id: string;
      let preview: Data;
      let ended: Data;
      let results: Data;
      let receipt: Data;
      const goneMs: Record<string, number> = {};
      /** Of one that was killed. */
      let allowedMs: number;

      before(async () => {
        site = await open(sites, place === 'the server' ? settings() : { FULLSTOP_SLOTS: '0' });
        if (place !== 'the server') await site.worker('worker', { env: settings() });
        const hidden = { env: { TOKEN: '${{ secrets.TOKEN }}' } };
        const then = (node: string) => ({ type: 'set', needs: [node], with: { value: 1 } });
        id = await run(site, 'scans', {
          done: scripted('echo "{\\"host\\": \\"db1\\", \\"size\\": ${#TOKEN}}"; echo "token $TOKEN" >&2', hidden),
          flown: {
            type: 'set',
            needs: ['done'],
            with: { value: '${{ nodes.done.output.stdout.host + "!" }}' },
          },
          fed: scripted(
            'cat $FULLSTOP_INPUT',
            { input: { from: '${{ nodes.done.output.stdout.host }}' } },
            { needs: ['done'] },
          ),
          failed: scripted('echo "bad token $TOKEN" >&2; exit 3', hidden, { retry: { attempts: 1 } }),
          scan: scripted(`echo "token $TOKEN"; ${obeying}`, hidden),
          stubborn: scripted(ignoring),
          pending: scripted('echo never', {}, { needs: ['scan'] }),
          alsoPending: then('stubborn'),
        });
        await site.server.record(
          id,
          ({ nodes }) =>
            ['done', 'flown', 'fed'].every((name) => nodes[name].status === 'Complete') &&
            nodes.failed.status === 'Failed',
        );
        await site.printed(id, 'up', 'scan', 'stubborn');
        const [scan, stubborn] = [await containerOf(id, 'scan'), await containerOf(id, 'stubborn')];
        preview = await site.preview(id);
        const atMs = await site.stop(id);
        [goneMs['scan'], goneMs['stubborn']] = await Promise.all([gone(scan, atMs), gone(stubborn, atMs)]);
        allowedMs = await goneWithinMs(eyes);
        ended = await site.server.record(id);
        receipt = await site.receipt(id, ({ unconfirmed }) => unconfirmed === 0);
        results = await site.server.ok('GET', `/api/executions/${id}/results`);
      });

      const taskOf = (node: string): Data => receipt.tasks.find((task: Data) => task.node === node);

      it('a container in flight is gone, and its node Failed with the marker', async () => {
        expect(ended.nodes.scan).to.include({ ...STOPPED, hasOutput: false, where: 'worker', attempt: 1 });
        expect(results.nodes.scan).to.deep.equal({ status: 'Failed', output: null, error: MARKER });
        expect(taskOf('scan')).to.include({ type: 'container', where: 'worker', outcome: 'aborted', attempt: 1 });
        console.log(`      gone ${Math.round(goneMs['scan'] as number)} ms after the stop`);
        expect(goneMs['scan']).to.be.below(GRACE_MS);
        expect(await containersOf(id)).to.deep.equal([]);
      });

      it('a container that ignores SIGTERM is gone within its grace and a second, forced', () => {
        expect(ended.nodes.stubborn).to.include(STOPPED);
        expect(taskOf('stubborn')).to.include({ outcome: 'forced' });
        console.log(`      gone ${Math.round(goneMs['stubborn'] as number)} ms after the stop`);
        expect(goneMs['stubborn']).to.be.within(GRACE_MS, GRACE_MS + allowedMs);
        expect(taskOf('stubborn').ms).to.be.within(GRACE_MS, GRACE_MS + allowedMs + 500);
      });

      it('Complete keeps its output, which has flown into the next nodes', () => {
        const stdout = { host: 'db1', size: CANARY.length };
        expect(results.nodes.done).to.deep.equal({
          status: 'Complete',
          output: { exitCode: 0, stdout, stderrTail: 'token ***\n' },
          error: null,
        });
        expect(results.nodes.flown.output).to.equal('db1!');
        expect(results.nodes.fed.output.stdout).to.deep.equal({ from: 'db1' });
      });

      it('Failed keeps its error', () => {
        expect(ended.nodes.failed).to.include({ status: 'Failed', errorCode: 'FS_CONTAINER_EXIT' });
        expect(ended.nodes.failed.error).to.equal('exit code 3: bad token ***');
      });

      it('Pending stays Pending', () => {
        for (const name of ['pending', 'alsoPending']) expect(ended.nodes[name], name).to.include(PENDING);
      });

      it('what it prints are log events, and none follows the end', async () => {
        const events = await site.server.events(id);
        expectQuiet(events);
        expect(logOf(events, 'done')).to.contain('"host": "db1"').and.contain('token ***');
        expect(logOf(events, 'scan')).to.match(/^token \*\*\*\nup\n/);
        const [first] = events.filter(({ type, node }) => type === 'log' && node === 'done');
        expect(first.data.stream).to.be.oneOf(['stdout', 'stderr']);
        expect(first).to.include({ attempt: 1 });
      });

      it('preview and receipt name them', () => {
        expect(names(preview.willAbort)).to.deep.equal(['scan', 'stubborn']);
        for (const entry of preview.willAbort) expect(entry).to.include({ type: 'container', where: 'worker' });
        expect(preview).to.deep.include({ cannotCancel: [], kept: { Complete: 3, Failed: 1, Skipped: 0 } });
        expect(names(preview.stayPending)).to.deep.equal(['alsoPending', 'pending']);
        expect(names(receipt.tasks)).to.deep.equal(['scan', 'stubborn']);
        expect(receipt).to.include({ unconfirmed: 0, lateResultsDiscarded: 0 });
      });

      it('a secret that it was given is kept nowhere', async () => {
        expect(`${await site.everything(id)}${site.log}`).not.to.contain(CANARY);
        expect(site.keeps(CANARY)).to.equal(false);
      });

      it('a stop while one is being created leaves none', async () => {
        const ids: string[] = [];
        const outcomes: string[] = [];
        for (let round = 0; round < 8; round += 1) {
          const next = await run(site, 'brief', { scan: scripted(ignoring) });
          ids.push(next);
          if (round > 0) await new Promise((resolve) => setTimeout(resolve, round * 25));
          await site.stop(next);
        }
        for (const next of ids) {
          const record = await site.server.record(next);
          expect(record).to.include(STOPPED);
          const { tasks } = await site.receipt(next, ({ unconfirmed }) => unconfirmed === 0);
          outcomes.push(...tasks.map(({ outcome }: Data) => outcome));
          expect(await containersOf(next), `containers of ${next}`).to.deep.equal([]);
        }
        console.log(`      ${outcomes.join(', ')}`);
        for (const outcome of outcomes) expect(outcome).to.be.oneOf(['aborted', 'forced', 'neverStarted']);
      });
    });
  }

  it('a node that waits for a worker is stopped before it starts, and never given to one that comes', async () => {
    const site = await open(brief, {});
    const id = await run(site, 'waiting', { scan: scripted(obeying) });
    await site.server.record(id, ({ nodes }) => nodes.scan.status === 'Running');
    expect(names((await site.preview(id)).willAbort)).to.deep.equal(['scan']);
    await site.stop(id);
    const record = await site.server.record(id);
    expect(record.nodes.scan).to.include(STOPPED);
    expect((await site.receipt(id)).tasks[0]).to.include({ node: 'scan', outcome: 'neverStarted' });
    const later = await run(site, 'later', { scan: scripted('echo') });
    await site.worker('worker', { env: settings(), args: ['--capabilities', 'container'] });
    expect((await site.server.record(later)).status).to.equal('Complete');
    expect(await containersOf(id)).to.deep.equal([]);
    expect(logOf(await site.server.events(id), 'scan')).to.equal('');
  });

  it('a node that nobody can run waits, doctor names what is missing, and a worker that comes runs it', async () => {
    const site = await open(brief, {});
    const id = await run(site, 'waiting', { scan: scripted('echo "[1]"') });
    await site.server.record(id, ({ nodes }) => nodes.scan.status === 'Running');
    expect(await site.server.ok('GET', '/api/health')).to.deep.include({ missing: { container: 1 } });
    const { code, stdout } = await site.server.cli('doctor', '--json');
    expect(code).to.equal(1);
    const said = JSON.parse(stdout);
    expect(said.health.missing).to.deep.equal({ container: 1 });
    const [check] = said.checks.filter(({ name }: Data) => name === 'workers');
    expect(check).to.include({ ok: false });
    expect(check.text).to.match(/1 task waits for container, which nobody offers/);
    expect((await site.server.events(id)).map(({ type }) => type))
      .to.include('task.queued')
      .but.not.include('task.claimed');
    await site.worker('worker', { env: settings(), args: ['--capabilities', 'container'] });
    expect((await site.server.record(id)).outputs.scan.stdout).to.deep.equal([1]);
    expect((await site.server.ok('GET', '/api/health')).missing ?? {}).to.deep.equal({});
  });

  describe('when the server is killed', () => {
    it('an orphan is removed, and its node runs as attempt 2', async () => {
      const site = await open(brief);
      const id = await run(site, 'orphan', {
        scan: scripted('echo "up"; while ! [ -f /tmp/go ]; do sleep 0.05; done', { env: { A: '1' } }),
      });
      await site.printed(id, 'up', 'scan');
      const first = await containerOf(id, 'scan');
      await site.server.kill();
      expect((await eyes.state(first.id))?.running).to.equal(true);
      await site.server.start();
      const atMs = performance.now();
      console.log(`      the orphan is gone ${Math.round(await gone(first, atMs))} ms after the restart`);
      const second = await until(
        'attempt 2',
        async () => (await containersOf(id))[0],
        (one) => one !== undefined,
      );
      expect(second?.labels['fullstop.attempt']).to.equal('2');
      const record = await site.server.record(id, ({ nodes }) => nodes.scan.attempt === 2);
      expect(record.nodes.scan).to.include({ status: 'Running' });
      await site.stop(id);
      expect(await site.server.record(id)).to.include(STOPPED);
      await gone(second as ListedContainer, performance.now());
    });

    it('with a stop that was just accepted, its node never runs again, and the receipt waits for the proof', async () => {
      const site = await open(brief);
      const id = await run(site, 'stopped', { scan: scripted(ignoring) });
      await site.printed(id, 'up', 'scan');
      const orphan = await containerOf(id, 'scan');
      await site.stop(id);
      await site.server.kill();
      expect(await eyes.state(orphan.id)).not.to.equal(null);
      await site.server.start();
      const atMs = performance.now();
      const record = await site.server.record(id);
      expect(record).to.include(STOPPED);
      expect(record.nodes.scan).to.include({ ...STOPPED, attempt: 1 });
      let receipt = await site.receipt(id);
      while (receipt.unconfirmed > 0 && performance.now() - atMs < 15_000) receipt = await site.receipt(id);
      expect(receipt.unconfirmed).to.equal(0);
      expect(receipt.tasks).to.have.length(1);
      expect(receipt.tasks[0]).to.include({ node: 'scan', outcome: 'forced' });
      expect(await eyes.state(orphan.id), `receipt ${JSON.stringify(receipt.tasks)}`).to.equal(null);
      console.log(`      gone and confirmed ${Math.round(performance.now() - atMs)} ms after the restart`);
      const types = (await site.server.events(id)).map(({ type }) => type);
      expect(types.filter((type) => type === 'node.started')).to.have.length(1);
      expect(await containersOf(id)).to.deep.equal([]);
    });
  });

  it('a worker that is killed leaves a container to its successor, and the node runs again', async () => {
    const site = await open(brief, { FULLSTOP_SLOTS: '0' });
    const name = `w-${randomUUID().slice(0, 8)}`;
    const options = { env: settings(), args: ['--name', name] };
    const first = await site.worker('worker', options);
    const id = await run(site, 'inherited', { scan: scripted(obeying) });
    await site.printed(id, 'up', 'scan');
    const orphan = await containerOf(id, 'scan');
    await first.kill();
    expect((await eyes.state(orphan.id))?.running).to.equal(true);
    const successor = await site.worker('worker', options);
    const atMs = performance.now();
    console.log(`      reaped ${Math.round(await gone(orphan, atMs, 5_000))} ms after the successor came`);
    const record = await site.server.record(id, ({ nodes }) => nodes.scan.attempt === 2);
    expect(record.nodes.scan).to.include({ status: 'Running' });
    const second = await until(
      'attempt 2',
      async () => (await containersOf(id))[0],
      (one) => one !== undefined,
    );
    expect(second?.labels['fullstop.attempt']).to.equal('2');
    const stopMs = await site.stop(id);
    await gone(second as ListedContainer, stopMs);
    expect(await site.server.record(id, hasEnded)).to.include(STOPPED);
    successor.send('SIGTERM');
    expect(await successor.ended()).to.equal(0);
  });

  // Suites run after the tests beside them.
  describe('at the end', () => {
    it('no container with our labels is left', async () => {
      expect(await ours()).to.deep.equal([]);
    });
  });
});
