import { expect } from 'chai';
import { openapiDocument } from '../../src/server/openapi.ts';
import { verbs } from '../../src/server/verbs/table.ts';
import { ADMIN_KEY, ask, openWorld, type World } from './support.ts';

/** docs/api.md, without subscriptions, `/metrics` and the two schema documents. */
const contract = `
POST /api/workflows                      workflow.save
GET /api/workflows                       workflow.list
GET /api/workflows/:name                 workflow.get
POST /api/workflows/:name/disable        workflow.disable
POST /api/workflows/:name/enable         workflow.enable
POST /api/executions                     execution.start
GET /api/executions                      execution.list
GET /api/executions/:id                  execution.get
GET /api/executions/:id/results          execution.results
GET /api/executions/:id/events           execution.events
POST /api/executions/:id/inspections     execution.inspect
POST /api/executions/:id/stop            execution.stop
GET /api/executions/:id/stop             execution.receipt
GET /api/executions/:id/stop?preview     execution.preview
POST /api/stops                          executions.stop
POST /api/executions/:id/triggers/:name  execution.trigger
DELETE /api/executions/:id               execution.delete
POST /api/admission                      admission.set
GET /api/keys                            key.list
POST /api/keys                           key.create
DELETE /api/keys/:id                     key.delete
GET /api/engines                         engine.list
POST /api/engines/:id/drain              engine.drain
GET /api/workers                         worker.list
GET /api/audit                           audit.list
GET /api/health                          health
`
  .trim()
  .split('\n')
  .map((line) => line.split(/ +/) as [string, string, string]);

describe('verbs', () => {
  let world: World;
  beforeEach(async () => {
    world = await openWorld();
  });
  afterEach(() => world.close());

  const http = (method: string, path: string, body?: unknown, headers?: Record<string, string>) =>
    world.http(ADMIN_KEY, method, path, body, headers);

  describe('on both sides', () => {
    it('are those of the contract, each with its address', () => {
      const table = verbs.map(
        (verb) =>
          `${verb.http.method} ${verb.http.path}${verb.http.when === undefined ? '' : `?${verb.http.when}`} ${verb.name}`,
      );
      expect(table).to.have.members(contract.map((row) => row.join(' ')));
    });

    it('are known by a listening server, over HTTP and over Socket.IO', async () => {
      const socket = await world.connect(ADMIN_KEY);
      for (const [method, path, name] of contract) {
        const answer = await http(method, path.replace(/:\w+/g, 'x').replace('?preview', '?preview=true'));
        expect(answer.text, path).not.to.include('an address of this API');
        const reply = await ask(socket, name, { unknown: true });
        expect(reply, name).to.have.nested.property('error.message').that.does.not.include('a verb of this API');
      }
    });

    it('are in the OpenAPI document, each a description of its answers', async () => {
      const document = (await openapiDocument()) as {
        openapi: string;
        paths: Record<string, Record<string, { responses: object }>>;
      };
      expect(document.openapi).to.equal('3.1.0');
      for (const [method, path] of contract) {
        const address = path.replace('?preview', '').replace(/:(\w+)/g, '{$1}');
        expect(document.paths[address]?.[method.toLowerCase()]?.responses, address).to.be.an('object');
      }
    });
  });

  describe('stop', () => {
    it('answers 202 first and repeated with one request, 200 once it ended by it', async () => {
      const id = await world.running('default');
      const first = await http('POST', `/api/executions/${id}/stop`);
      const again = await http('POST', `/api/executions/${id}/stop`, {});
      expect([first.status, again.status]).to.deep.equal([202, 202]);
      expect(first.data).to.deep.equal({ ...again.data, status: 'stop requested', executionId: id });
      await world.engine.finish(id);
      const ended = await http('POST', `/api/executions/${id}/stop`);
      expect([ended.status, ended.data.status, ended.data.requestId]).to.deep.equal([
        200,
        'stopped',
        first.data.requestId,
      ]);
    });

    it('answers 409 with the status for an execution that ended otherwise', async () => {
      const id = await world.running('default');
      await world.engine.finish(id);
      const answer = await http('POST', `/api/executions/${id}/stop`);
      expect([answer.status, answer.data.code, answer.data.details]).to.deep.equal([
        409,
        'FS_ENDED',
        { status: 'Complete' },
      ]);
      expect((await http('GET', `/api/executions/${id}/stop?preview=true`)).data.code).to.equal('FS_ENDED');
      expect((await http('GET', `/api/executions/${id}/stop`)).status).to.equal(404);
    });

    it('refuses a body that says anything, a reason too, and stores no intent', async () => {
      const id = await world.running('default');
      for (const body of [{ reason: 'because' }, [], 'null ', '"x"', '1']) {
        const answer = await http('POST', `/api/executions/${id}/stop`, body);
        if (body === 'null ') continue;
        expect(answer.status, JSON.stringify(body)).to.equal(400);
      }
      const other = await world.running('default');
      const reply = await ask(await world.connect(ADMIN_KEY), 'execution.stop', { id: other, reason: 'because' });
      expect(reply).to.have.nested.property('error.code', 'FS_INVALID');
      expect((await world.store.getHeader(other))?.stop).to.equal(null);
    });

    it('has a durable audit entry before the intent', async () => {
      const id = await world.running('default');
      world.store.failNext(1);
      const answer = await http('POST', `/api/executions/${id}/stop`);
      expect([answer.status, answer.data.code, answer.headers.get('retry-after')]).to.deep.equal([
        503,
        'FS_UNAVAILABLE',
        '1',
      ]);
      expect((await world.store.getHeader(id))?.stop).to.equal(null);
      const seen: unknown[] = [];
      const { requestStop } = world.store;
      world.store.requestStop = async (...args) => {
        seen.push(
          ...(await world.store.listAudit(null, undefined, 10)).items.filter(({ outcome }) => outcome === null),
        );
        return requestStop.apply(world.store, args);
      };
      await http('POST', `/api/executions/${id}/stop`);
      expect(seen).to.have.length(1);
      expect(seen[0]).to.include({ verb: 'execution.stop', target: id, project: 'default', outcome: null });
    });
  });

  describe('bulk stop', () => {
    it('stops all that match, names each, and audits each', async () => {
      const ids = await Promise.all(Array.from({ length: 5 }, () => world.running('default')));
      await world.running('default', { workflow: { name: 'other', hash: 'c'.repeat(64), version: 1 } });
      const answer = await http('POST', '/api/stops', { filter: { workflow: 'flow' } });
      expect(answer.data).to.deep.include({ matched: 5, alreadyEnded: [], failed: [], startedMeanwhile: [] });
      expect(answer.data.requested).to.have.members(ids);
      const { items } = await world.store.listAudit(null, undefined, 100);
      expect(
        items.filter(({ verb, target }) => verb === 'executions.stop' && target !== null).map(({ target }) => target),
      ).to.have.members(ids);
    });

    it('stops a frozen set and tells what ended and started since', async () => {
      const [a, b] = await Promise.all([world.running('default'), world.running('default')]);
      const dry = await http('POST', '/api/stops', { filter: { all: true }, dryRun: true });
      expect(dry.data.matched).to.equal(2);
      expect((await world.store.getHeader(a as string))?.stop).to.equal(null);
      await world.engine.finish(a as string);
      const late = await world.running('default');
      const answer = await http('POST', '/api/stops', { setId: dry.data.setId });
      expect(answer.data).to.deep.equal({
        matched: 2,
        requested: [b],
        alreadyEnded: [a],
        failed: [],
        startedMeanwhile: [late],
      });
    });

    it('keeps a set for the key that made it alone', async () => {
      const key = await world.key('viewer', 'default');
      const dry = await http('POST', '/api/stops', { filter: { all: true }, dryRun: true });
      expect((await world.http(key, 'POST', '/api/stops', { setId: dry.data.setId })).status).to.equal(404);
    });

    it('leaves children to the stop of their parent', async () => {
      const parent = await world.running('default');
      const child = await world.running('default', {
        parent: { executionId: parent, node: 'a', attempt: 1 },
        ancestors: [parent],
      });
      const answer = await http('POST', '/api/stops', { filter: { workflow: 'flow' } });
      expect(answer.data.requested).to.deep.equal([parent]);
      expect((await world.store.getHeader(child))?.stop).to.not.equal(null);
    });

    it('refuses a filter that matches by accident', async () => {
      await world.running('default');
      for (const body of [
        {},
        { filter: {} },
        { filter: { all: false } },
        { filter: { all: true, workflow: 'flow' } },
        { filter: { nope: 1 } },
        { filter: { ids: [] } },
        { filter: { ids: [{ $ne: null }] } },
      ]) {
        expect((await http('POST', '/api/stops', body)).status, JSON.stringify(body)).to.equal(400);
      }
    });

    it('takes 1,000 at once', async () => {
      await Promise.all(Array.from({ length: 1_000 }, () => world.running('default')));
      const answer = await http('POST', '/api/stops', { filter: { all: true } });
      expect(answer.data.requested).to.have.length(1_000);
    });
  });

  describe('workflows', () => {
    const yaml = 'name: flow\nnodes:\n  a: { type: set, with: { value: 1 } }\n';

    it('are saved as YAML or JSON, known again by their hash', async () => {
      const first = await http('POST', '/api/workflows', yaml, { 'content-type': 'application/yaml' });
      const second = await http('POST', '/api/workflows', {
        name: 'flow',
        nodes: { a: { type: 'set', with: { value: 1 } } },
      });
      expect([first.status, second.status]).to.deep.equal([201, 200]);
      expect(second.data).to.deep.equal(first.data);
      const got = await http('GET', `/api/workflows/flow@${first.data.hash}`);
      expect(got.data.definition.nodes.a.type).to.equal('set');
      expect(got.data).not.to.have.property('versions');
    });

    it('list their versions where they are asked for, the last saved first', async () => {
      const first = await http('POST', '/api/workflows', yaml, { 'content-type': 'application/yaml' });
      const second = await http('POST', '/api/workflows', yaml.replace('1', '2'), {
        'content-type': 'application/yaml',
      });
      const list = async (): Promise<[number, string][]> =>
        (await http('GET', `/api/workflows/flow@${first.data.hash}?versions=true`)).data.versions.map(
          ({ version, hash }: { version: number; hash: string }) => [version, hash],
        );
      expect(await list()).to.deep.equal([
        [2, second.data.hash],
        [1, first.data.hash],
      ]);
      await http('POST', '/api/workflows', yaml, { 'content-type': 'application/yaml' });
      expect((await list()).map(([version]) => version)).to.deep.equal([1, 2]);
    });

    it('are only checked by a dry run', async () => {
      const answer = await http('POST', '/api/workflows?dryRun=true', yaml, { 'content-type': 'application/yaml' });
      expect([answer.status, answer.data.version]).to.deep.equal([200, 1]);
      expect((await http('GET', '/api/workflows')).data.items).to.deep.equal([]);
    });

    it('are refused with every fault, its path and line', async () => {
      const answer = await http(
        'POST',
        '/api/workflows',
        'name: flow\nnodes:\n  a: { type: set, nope: 1, with: { value: 1 } }\n',
        {
          'content-type': 'application/yaml',
        },
      );
      expect([answer.status, answer.data.code]).to.deep.equal([400, 'FS_INVALID']);
      expect(answer.data.details.faults[0].line).to.equal(3);
    });
  });

  describe('executions', () => {
    beforeEach(() =>
      http('POST', '/api/workflows', { name: 'flow', nodes: { a: { type: 'set', with: { value: 1 } } } }),
    );

    it('answer a repeated idempotency key with the first one', async () => {
      const body = { workflow: 'flow', input: { a: 1 }, idempotencyKey: 'once' };
      const first = await http('POST', '/api/executions', body);
      const again = await http('POST', '/api/executions', body);
      const other = await http('POST', '/api/executions', { ...body, input: { a: 2 } });
      expect([first.status, again.status, other.status]).to.deep.equal([201, 200, 409]);
      expect(again.data.id).to.equal(first.data.id);
    });

    it('give their results as a file', async () => {
      const id = await world.running('default');
      const answer = await http('GET', `/api/executions/${id}/results`);
      expect(answer.headers.get('content-disposition')).to.equal(`attachment; filename="${id}.json"`);
    });

    it('give events in pages, and say from where older ones are kept', async () => {
      const id = await world.running('default');
      await world.engine.produce(
        id,
        [2, 3, 4, 5].map((seq) => ({ seq, atMs: 0, type: 'log', node: 'a', iterations: null, attempt: 1, data: null })),
      );
      const page = await http('GET', `/api/executions/${id}/events?from=2&limit=2`);
      expect(page.data).to.deep.equal({
        items: [2, 3].map((seq) => ({ seq, at: '1970-01-01T00:00:00.000Z', type: 'log', node: 'a', attempt: 1 })),
        nextFrom: 4,
      });
      await world.store.trimEvents(id, 2);
      const gone = await http('GET', `/api/executions/${id}/events?from=1`);
      expect([gone.status, gone.data.code, gone.data.details]).to.deep.equal([410, 'FS_GONE', { firstSeq: 4 }]);
    });

    it('are deleted only when they have ended', async () => {
      const id = await world.running('default');
      expect((await http('DELETE', `/api/executions/${id}`)).data.code).to.equal('FS_CONFLICT');
      await world.engine.finish(id);
      expect((await http('DELETE', `/api/executions/${id}`)).status).to.equal(204);
      expect((await http('GET', `/api/executions/${id}`)).status).to.equal(404);
    });

    it('are listed by any filter, page by page', async () => {
      for (const label of ['a', 'b', 'c']) await world.running('default', { labels: { label } });
      const first = await http('GET', '/api/executions?limit=2');
      const second = await http('GET', `/api/executions?limit=2&cursor=${first.data.nextCursor}`);
      expect([first.data.items.length, second.data.items.length, second.data.nextCursor]).to.deep.equal([2, 1, null]);
      expect((await http('GET', '/api/executions?label=label%3Db')).data.items).to.have.length(1);
      expect((await http('GET', '/api/executions?createdTo=2020-01-01T00:00:00Z')).data.items).to.have.length(0);
      expect((await http('GET', '/api/executions?stoppedByUser=true')).data.items).to.have.length(0);
      expect((await http('GET', '/api/executions?stoppedByUser=maybe')).status).to.equal(400);
    });

    it('wait in the open of a trigger that came twice', async () => {
      const id = await world.running('default');
      const path = `/api/executions/${id}/triggers/approve`;
      const answers = [
        await http('POST', path, { payload: 1 }),
        await http('POST', path, { payload: 1 }),
        await http('POST', path, { payload: 2 }),
      ];
      expect(answers.map(({ status }) => status)).to.deep.equal([200, 200, 409]);
      expect(answers[1]?.data).to.deep.equal({ duplicate: true });
    });
  });

  describe('trouble', () => {
    it('of the store is 503, and health says why to those with a key', async () => {
      world.store.setTrouble('disk full');
      const answer = await http('POST', '/api/admission', { paused: true });
      expect([answer.status, answer.data.code]).to.deep.equal([503, 'FS_UNAVAILABLE']);
      const seen = await http('GET', '/api/health');
      expect([seen.status, seen.data.message]).to.deep.equal([503, 'disk full']);
      const unseen = await world.http(null, 'GET', '/api/health');
      expect(unseen.status).to.equal(503);
      expect(unseen.text).to.not.include('disk');
    });

    it('of the program is 500 without its internals, which the log has', async () => {
      await http('POST', '/api/workflows', { name: 'flow', nodes: { a: { type: 'set', with: { value: 1 } } } });
      const answer = await http('POST', '/api/executions', { workflow: 'flow', input: { boom: 1 } });
      expect([answer.status, answer.data.code]).to.deep.equal([500, 'FS_INTERNAL']);
      expect(answer.text).to.not.include('secret');
      expect(world.logged.join('')).to.include('secret internals');
    });
  });

  it('shows metrics with the latency of stops by node type', async () => {
    world.engine.metrics().onNodeStopped?.('http', 3);
    const answer = await http('GET', '/metrics');
    expect(answer.text).to.include('fullstop_stop_seconds_bucket{le="0.005",type="http"} 1');
    expect((await world.http(null, 'GET', '/metrics')).status).to.equal(401);
  });

  it('opens the two schema documents and the page to everybody', async () => {
    for (const path of ['/api/openapi.json', '/api/workflow.schema.json', '/docs']) {
      expect((await world.http(null, 'GET', path)).status, path).to.equal(200);
    }
  });
});
