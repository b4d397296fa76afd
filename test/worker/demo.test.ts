import { expect } from 'chai';
import { createMemoryStore, type MemoryStore } from '../../src/adapters/memory/store.ts';
import { type Demo, startDemo } from '../../src/demo/demo.ts';
import { startDemoEndpoint } from '../../src/demo/endpoint.ts';
import type { EngineApi, StartRequest } from '../../src/engine/api.ts';
import { FullstopError } from '../../src/errors.ts';
import type { ExecutionQuery, HeaderRow } from '../../src/ports/store.ts';
import type { Task } from '../../src/ports/work.ts';
import { httpTask, until } from './support.ts';

const names = ['demo-poll', 'demo-graph', 'demo-foreach'];

describe('the demonstration', () => {
  let store: MemoryStore;
  let demo: Demo;
  let started: StartRequest[];
  let changed: string[];
  let disabled: string | null;

  /** What `seed` asks of an engine. */
  const engine = {
    async startExecution(request: StartRequest) {
      if (request.workflow === disabled) throw new FullstopError('FS_DISABLED', 'disabled');
      started.push(request);
      return { header: { id: `E-${request.workflow}` } as HeaderRow, created: true };
    },
    async workflowChanged(_project: string, name: string) {
      changed.push(name);
    },
  } as unknown as EngineApi;

  beforeEach(async () => {
    started = [];
    changed = [];
    disabled = null;
    store = createMemoryStore();
    await store.open();
    demo = await startDemo({ store });
  });

  afterEach(async () => {
    await demo.close();
    await store.close();
  });

  async function restart(): Promise<void> {
    await demo.close();
    started = [];
    changed = [];
    demo = await startDemo({ store });
  }

  async function taskOf(name: string): Promise<Task> {
    const saved = await store.getDefinition('default', name);
    return httpTask({}, { workflow: name, workflowHash: saved?.hash ?? 'none' });
  }

  it('saves three workflows and starts one execution of each', async () => {
    const seeded = await demo.seed(engine);
    expect(seeded).to.deep.equal(names.map((name) => ({ name, executionId: `E-${name}` })));
    expect(started.map(({ workflow }) => workflow)).to.deep.equal(names);
    expect(changed).to.deep.equal(names);
  });

  it('listens at the same address after a restart, and saves nothing anew', async () => {
    await demo.seed(engine);
    const { url } = demo.endpoint;
    await restart();
    await demo.seed(engine);
    expect(demo.endpoint.url).to.equal(url);
    expect(changed).to.deep.equal([]);
    expect(started).to.have.length(3);
  });

  it('takes another address when that one is in use', async () => {
    await demo.seed(engine);
    const { port } = demo.endpoint;
    await demo.close();
    const squatter = await startDemoEndpoint({ port });
    await restart();
    await demo.seed(engine);
    expect(squatter.port).to.equal(port);
    expect(demo.endpoint.port).not.to.equal(port);
    expect(changed).to.deep.equal(names);
    await squatter.close();
  });

  it('starts none beside one that lives', async () => {
    const asked: ExecutionQuery[] = [];
    store.listExecutions = async (query) => {
      asked.push(query);
      const items = query.workflow === 'demo-poll' ? [{ id: 'E-alive' } as HeaderRow] : [];
      return { items, nextCursor: null };
    };
    const seeded = await demo.seed(engine);
    expect(seeded[0]).to.deep.equal({ name: 'demo-poll', executionId: 'E-alive' });
    expect(started.map(({ workflow }) => workflow)).to.deep.equal(['demo-graph', 'demo-foreach']);
    expect(asked.every(({ live, project }) => live === true && project === 'default')).to.equal(true);
  });

  it('starts nothing that an operator has disabled', async () => {
    disabled = 'demo-graph';
    expect((await demo.seed(engine)).map(({ name }) => name)).to.deep.equal(['demo-poll', 'demo-foreach']);
  });

  it('leaves a workflow alone that somebody saved under its name', async () => {
    await demo.seed(engine);
    const source = { name: 'demo-poll', nodes: {} };
    await store.saveDefinition({ project: 'default', name: 'demo-poll', hash: 'mine', source, savedAtMs: 1 });
    await restart();
    expect((await demo.seed(engine)).map(({ name }) => name)).to.deep.equal(['demo-graph', 'demo-foreach']);
    expect((await store.getDefinition('default', 'demo-poll'))?.hash).to.equal('mine');
  });

  describe('its endpoint', () => {
    it('is open to its own tasks, before and after a restart', async () => {
      await demo.seed(engine);
      for (const name of names) expect(demo.allow('127.0.0.1', demo.endpoint.port, await taskOf(name))).to.equal(true);
      await restart();
      for (const name of names) expect(demo.allow('127.0.0.1', demo.endpoint.port, await taskOf(name))).to.equal(true);
    });

    it('is closed to a definition that somebody saved under the name of one of them', async () => {
      await demo.seed(engine);
      const source = { name: 'demo-poll', nodes: {} };
      await store.saveDefinition({ project: 'default', name: 'demo-poll', hash: 'mine', source, savedAtMs: 1 });
      const task = await taskOf('demo-poll');
      expect(demo.allow('127.0.0.1', demo.endpoint.port, task)).to.equal(false);
      await restart();
      expect(demo.allow('127.0.0.1', demo.endpoint.port, task)).to.equal(false);
    });

    it('is closed to the same definition in another project', async () => {
      await demo.seed(engine);
      const task = { ...(await taskOf('demo-poll')), project: 'other' };
      expect(demo.allow('127.0.0.1', demo.endpoint.port, task)).to.equal(false);
    });

    it('opens no other port and no other host to its tasks', async () => {
      await demo.seed(engine);
      const task = await taskOf('demo-poll');
      expect(demo.allow('127.0.0.1', demo.endpoint.port + 1, task)).to.equal(false);
      expect(demo.allow('localhost', demo.endpoint.port, task)).to.equal(false);
      expect(demo.allow('169.254.169.254', demo.endpoint.port, task)).to.equal(false);
    });

    it('answers a poll, answers late, and counts who went away', async () => {
      const { endpoint } = demo;
      expect(await (await fetch(`${endpoint.url}/status`)).json()).to.deep.equal({ state: 'running', polls: 1 });
      expect(await (await fetch(`${endpoint.url}/slow?seconds=0.01`)).json()).to.deep.equal({ waitedSeconds: 0.01 });
      expect((await fetch(`${endpoint.url}/slow?seconds=-1`)).status).to.equal(400);
      expect((await fetch(`${endpoint.url}/`)).status).to.equal(404);
      const abort = new AbortController();
      const call = fetch(`${endpoint.url}/slow?seconds=600`, { signal: abort.signal }).catch(() => 'aborted');
      await until(() => endpoint.waiting === 1, 'the call is there');
      abort.abort();
      expect(await call).to.equal('aborted');
      await until(() => endpoint.waiting === 0, 'the call is gone');
      expect(endpoint.aborted).to.equal(1);
    });
  });
});
