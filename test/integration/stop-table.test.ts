import { expect } from 'chai';
import { Endpoint } from '../support/endpoint.ts';
import { type Data, hasEnded, ServerProcess, until } from '../support/server-process.ts';
import { type Driver, overHttp, overSocket } from './drivers.ts';

const MARKER = 'workflow stopped by user';
const UNKNOWN = '0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f';

/** Everything a node can be at the moment of a stop, at once. */
function tableOf(url: string) {
  return {
    name: 'table',
    nodes: {
      complete: { type: 'set', with: { value: { kept: [1, 2, 3] } } },
      skipped: { type: 'set', if: 'false', with: { value: 1 } },
      failed: { type: 'fail', with: { message: 'its own error' } },
      tolerated: { type: 'fail', continueOnError: true, with: { message: 'its own too' } },
      calling: { type: 'http', with: { url: `${url}/park` } },
      waiting: { type: 'delay', with: { duration: '10m' } },
      betweenTries: {
        type: 'http',
        with: { url: `${url}/bad` },
        retry: { attempts: 3, backoff: '10m', maxBackoff: '10m' },
      },
      pausing: {
        type: 'while',
        condition: 'true',
        maxIterations: 5,
        delay: '10m',
        body: { step: { type: 'set', with: { value: '${{ iter.index }}' } } },
      },
      inBody: {
        type: 'while',
        condition: 'true',
        maxIterations: 5,
        body: {
          before: { type: 'set', with: { value: 'done' } },
          ask: { type: 'http', needs: ['before'], with: { url: `${url}/park` } },
          after: { type: 'set', needs: ['ask'], with: { value: 1 } },
          wait: { type: 'hold', trigger: 'inside' },
        },
      },
      held: { type: 'hold', trigger: 'approve' },
      pending: { type: 'set', needs: ['calling'], with: { value: 1 } },
      pendingOnHeld: { type: 'set', needs: ['held'], with: { value: 1 } },
      child: { type: 'workflow', with: { workflow: 'table-child' } },
      each: {
        type: 'foreach',
        items: '${{ [1, 2, 3] }}',
        concurrency: 2,
        body: { ask: { type: 'http', with: { url: `${url}/park` } } },
      },
    },
  };
}

function childOf(url: string) {
  return {
    name: 'table-child',
    nodes: {
      first: { type: 'set', with: { value: 'first' } },
      ask: { type: 'http', needs: ['first'], with: { url: `${url}/park` } },
      last: { type: 'set', needs: ['ask'], with: { value: 1 } },
    },
  };
}

describe('the state table of a stop', function () {
  this.timeout(120_000);
  let endpoint: Endpoint;
  let server: ServerProcess;
  let drivers: Map<string, Driver>;

  before(async () => {
    endpoint = await Endpoint.start();
    server = await ServerProcess.start({ env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
    drivers = new Map([overHttp(server), overSocket(server)].map((driver) => [driver.name, driver]));
  });

  after(async () => {
    await server.close();
    await endpoint.close();
  });

  for (const transport of ['HTTP', 'Socket.IO']) {
    describe(`over ${transport}`, () => {
      const call: Driver['call'] = (...args) => (drivers.get(transport) as Driver).call(...args);
      const done = async (verb: string, payload: Record<string, unknown> = {}): Promise<Data> => {
        const answer = await call(verb, payload);
        if (answer.code !== null) throw new Error(`${verb}: ${JSON.stringify(answer.data)}`);
        return answer.data;
      };
      const record = (id: string, fits = hasEnded): Promise<Data> =>
        until(`execution ${id}`, () => done('execution.get', { id }), fits);
      const run = async (definition: { name: string }, more: Record<string, unknown> = {}): Promise<string> => {
        await done('workflow.save', { definition });
        return (await done('execution.start', { workflow: definition.name, ...more })).id;
      };
      const childrenOf = async (parent: string): Promise<Data[]> => (await done('execution.list', { parent })).items;
      const parked = () => ({
        name: 'parked',
        nodes: { ask: { type: 'http', with: { url: `${endpoint.url}/park` } } },
      });
      const held = () => ({ name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } });

      describe('of an execution with a node in every state', () => {
        let id: string;
        let preview: Data;
        let answer: { status: number | null; data: Data };
        let children: Data[];
        let ended: Data;
        let events: Data[];

        before(async () => {
          await done('workflow.save', { definition: childOf(endpoint.url) });
          id = await run(tableOf(endpoint.url));
          await record(id, ({ nodes }) => {
            const {
              complete,
              skipped,
              failed,
              tolerated,
              held: holding,
              waiting,
              pausing,
              betweenTries,
              inBody,
            } = nodes;
            return (
              complete.status === 'Complete' &&
              skipped.status === 'Skipped' &&
              failed.status === 'Failed' &&
              tolerated.status === 'Failed' &&
              holding.status === 'Held' &&
              waiting.status === 'Running' &&
              pausing.iteration?.nodes.step.status === 'Complete' &&
              betweenTries.errorCode === 'FS_HTTP_STATUS' &&
              inBody.iteration?.nodes.ask.status === 'Running' &&
              inBody.iteration?.nodes.wait.status === 'Held'
            );
          });
          await endpoint.calling(`${id}/calling`);
          await endpoint.calling(`${id}/inBody/ask`);
          children = await until(
            'children',
            () => childrenOf(id),
            (items) => items.length === 3,
          );
          for (const child of children) await endpoint.calling(child.id);
          preview = await done('execution.preview', { id });
          answer = await call('execution.stop', { id });
          ended = await record(id);
          events = (await done('execution.events', { id })).items;
        });

        const node = (name: string): Data => ended.nodes[name];

        it('a stop is answered at once: stop requested', () => {
          expect(answer.data).to.include({ executionId: id, status: 'stop requested' });
          expect(answer.data.requestId).to.be.a('string');
          if (transport === 'HTTP') expect(answer.status).to.equal(202);
        });

        it('a Complete node stays Complete', async () => {
          expect(node('complete')).to.include({ status: 'Complete', error: null, hasOutput: true });
          const results = await done('execution.results', { id });
          expect(results.nodes.complete).to.deep.equal({
            status: 'Complete',
            output: { kept: [1, 2, 3] },
            error: null,
          });
        });

        it('a Failed node keeps its error', () => {
          expect(node('failed')).to.include({ status: 'Failed', error: 'its own error' });
          expect(node('tolerated')).to.include({ status: 'Failed', error: 'its own too' });
          expect(node('failed').errorCode).not.to.equal('FS_STOPPED');
        });

        it('a node running on the engine ends Failed with the marker', () => {
          for (const name of ['waiting', 'pausing', 'inBody', 'child', 'each']) {
            expect(node(name), name).to.include({ status: 'Failed', error: MARKER, errorCode: 'FS_STOPPED' });
          }
        });

        it('a node between tries ends Failed with the marker', () => {
          expect(node('betweenTries')).to.include({
            status: 'Failed',
            error: MARKER,
            errorCode: 'FS_STOPPED',
            attempt: 1,
          });
        });

        it('an http call in flight is aborted and ends Failed with the marker', () => {
          expect(node('calling')).to.include({ status: 'Failed', error: MARKER, errorCode: 'FS_STOPPED' });
          const calls = endpoint.of(`${id}/calling`);
          expect(calls.map(({ end }) => end)).to.deep.equal(['aborted']);
        });

        it('a Pending node stays Pending', () => {
          for (const name of ['pending', 'pendingOnHeld']) {
            expect(node(name), name).to.include({ status: 'Pending', error: null, attempt: 0, startedAt: null });
          }
        });

        it('a Held node stays Held', () => {
          expect(node('held')).to.include({ status: 'Held', error: null, endedAt: null });
        });

        it('a Skipped node stays Skipped', () => {
          expect(node('skipped')).to.include({ status: 'Skipped', error: null });
        });

        it('nodes of a body follow the same table', () => {
          const { nodes } = node('inBody').iteration;
          expect(nodes.before).to.include({ status: 'Complete' });
          expect(nodes.ask).to.include({ status: 'Failed', error: MARKER });
          expect(nodes.after).to.include({ status: 'Pending' });
          expect(nodes.wait).to.include({ status: 'Held' });
          expect(endpoint.of(`${id}/inBody/ask`).map(({ end }) => end)).to.deep.equal(['aborted']);
        });

        it('the execution ends Failed with the marker', () => {
          expect(ended).to.include({
            status: 'Failed',
            error: MARKER,
            errorCode: 'FS_STOPPED',
            stoppedByUser: true,
            outputs: null,
          });
          expect(ended.stop).to.deep.equal({ requestId: answer.data.requestId, requestedAt: answer.data.requestedAt });
          expect(JSON.stringify(ended)).not.to.match(/reason|admin/i);
        });

        it('children stop with their parent, under the same request', async () => {
          expect(children).to.have.length(3);
          for (const { id: childId } of children) {
            const child = await record(childId);
            expect(child).to.include({ status: 'Failed', error: MARKER, stoppedByUser: true });
            expect(child.stop.requestId).to.equal(answer.data.requestId);
            expect(child.nodes.ask).to.include({ status: 'Failed', error: MARKER });
            expect(endpoint.of(childId).map(({ end }) => end)).to.deep.equal(['aborted']);
          }
          expect(await childrenOf(id)).to.have.length(3);
        });

        it('the events say so, once, and nothing follows the end', () => {
          const types = events.map(({ type }) => type);
          const from = types.indexOf('stop.requested');
          expect(types.filter((type) => type === 'stop.requested')).to.have.length(1);
          expect(types.filter((type) => type === 'stop.halted')).to.have.length(1);
          expect(types.slice(from)).not.to.include.members(['node.started']);
          expect(types.slice(from).filter((type) => /^node\.(started|completed|retrying)/.test(type))).to.deep.equal(
            [],
          );
          expect(types.at(-1)).to.equal('execution.failed');
          expect(events.map(({ seq }) => seq)).to.deep.equal(events.map((_, index) => index + 1));
          expect(ended.seq).to.equal(events.length);
        });

        it('the preview told what would be', () => {
          expect(preview.executionId).to.equal(id);
          const names = preview.willAbort.map((entry: Data) => [entry.node, ...(entry.iterations ?? [])].join('#'));
          expect(names).to.have.members([
            'calling',
            'waiting',
            'betweenTries',
            'pausing',
            'inBody',
            'inBody/ask#0',
            'child',
            'each',
          ]);
          const calling = preview.willAbort.find((entry: Data) => entry.node === 'calling');
          expect(calling).to.include({ type: 'http', where: 'worker' });
          expect(calling.runningForMs).to.be.a('number');
          expect(preview.cannotCancel).to.deep.equal([]);
          // Of the nodes of bodies too: one step of `pausing`, `before` of `inBody`.
          expect(preview.kept).to.deep.equal({ Complete: 3, Failed: 2, Skipped: 1 });
          expect(preview.stayPending).to.deep.include({ node: 'pending' });
          expect(preview.stayPending).to.deep.include({ node: 'inBody/after', iterations: [0] });
          expect(preview.stayHeld).to.have.deep.members([{ node: 'held' }, { node: 'inBody/wait', iterations: [0] }]);
          expect(preview.children.map((child: Data) => child.executionId)).to.have.members(
            children.map((child) => child.id),
          );
        });

        it('the receipt tells what was, and names nobody', async () => {
          const receipt = await until(
            'receipt',
            () => done('execution.receipt', { id }),
            ({ children: all }) => all.every((child: Data) => child.status === 'Failed'),
          );
          expect(Object.keys(receipt)).to.have.members([
            'executionId',
            'requestId',
            'requestedAt',
            'delivery',
            'haltedMs',
            'finalisedMs',
            'finalisedAt',
            'tasks',
            'lateResultsDiscarded',
            'unconfirmed',
            'children',
          ]);
          expect(receipt).to.include({
            executionId: id,
            requestId: answer.data.requestId,
            requestedAt: answer.data.requestedAt,
            unconfirmed: 0,
            lateResultsDiscarded: 0,
          });
          expect(receipt.delivery.path).to.equal('local');
          expect(receipt.haltedMs).to.be.within(0, 2_000);
          expect(receipt.finalisedMs).to.be.within(receipt.haltedMs, 5_000);
          expect(receipt.finalisedAt).to.equal(ended.endedAt);
          const calling = receipt.tasks.find((task: Data) => task.node === 'calling');
          expect(calling).to.include({ attempt: 1, type: 'http', where: 'worker', outcome: 'aborted' });
          expect(calling.ms).to.be.a('number');
          expect(receipt.tasks.find((task: Data) => task.node === 'inBody/ask')).to.deep.include({
            iterations: [0],
            outcome: 'aborted',
          });
          expect(receipt.children.map((child: Data) => child.executionId)).to.have.members(
            children.map((child) => child.id),
          );
          expect(JSON.stringify(receipt)).not.to.match(/admin|keyId|actor/);
        });

        it('a repeated stop is the same stop: it has ended by it', async () => {
          const again = await call('execution.stop', { id });
          expect(again.data).to.deep.equal({ ...answer.data, status: 'stopped' });
          if (transport === 'HTTP') expect(again.status).to.equal(200);
        });

        it('nothing can be resumed', async () => {
          const calls = endpoint.calls.length;
          for (const verb of ['execution.trigger']) {
            const late = await call(verb, { id, name: 'approve' });
            expect(late.code).to.equal('FS_ENDED');
          }
          const seen = await done('execution.get', { id });
          expect(seen).to.deep.equal(ended);
          expect((await call('execution.preview', { id })).code).to.equal('FS_ENDED');
          expect(endpoint.calls.length).to.equal(calls);
          for (const path of ['resume', 'restart', 'retry', 'start']) {
            expect((await server.http('POST', `/api/executions/${id}/${path}`)).status).to.equal(404);
          }
        });
      });

      it('a stop that is repeated before the end is the same stop', async () => {
        const id = await run(parked());
        await endpoint.calling(id);
        const answers = await Promise.all(Array.from({ length: 5 }, () => call('execution.stop', { id })));
        for (const { status, code, data } of answers) {
          expect(code).to.equal(null);
          if (transport === 'HTTP') expect(status).to.equal(data.status === 'stopped' ? 200 : 202);
        }
        expect(new Set(answers.map(({ data }) => data.requestId)).size).to.equal(1);
        await record(id);
      });

      it('a stop of an execution that ended by itself changes nothing and says so', async () => {
        const id = await run({ name: 'quick', nodes: { one: { type: 'set', with: { value: 1 } } } } as {
          name: string;
        });
        const before = await record(id);
        const { code, status, data } = await call('execution.stop', { id });
        expect(code).to.equal('FS_ENDED');
        expect(data.details).to.deep.equal({ status: 'Complete' });
        if (transport === 'HTTP') expect(status).to.equal(409);
        expect(await done('execution.get', { id })).to.deep.equal(before);
        expect((await call('execution.receipt', { id })).code).to.equal('FS_NOT_FOUND');
        expect((await call('execution.preview', { id })).code).to.equal('FS_ENDED');
      });

      it('a stop of nothing is refused', async () => {
        const { code, status } = await call('execution.stop', { id: UNKNOWN });
        expect(code).to.equal('FS_NOT_FOUND');
        if (transport === 'HTTP') expect(status).to.equal(404);
      });

      it('a stop takes no reason', async () => {
        const id = await run(held());
        await record(id, ({ nodes }) => nodes.wait.status === 'Held');
        for (const extra of [{ reason: 'because' }, { message: '' }, { force: true }]) {
          const { code, status } = await call('execution.stop', { id, ...extra });
          expect(code).to.equal('FS_INVALID');
          if (transport === 'HTTP') expect(status).to.equal(400);
        }
        expect(await done('execution.get', { id })).to.include({ status: 'Running', stop: null });
        await done('execution.stop', { id });
        await record(id);
      });

      it('an execution whose only live nodes are Held ends at once, and they stay Held', async () => {
        const id = await run(held());
        await record(id, ({ nodes }) => nodes.wait.status === 'Held');
        await done('execution.stop', { id });
        const ended = await record(id);
        expect(ended).to.include({ status: 'Failed', error: MARKER });
        expect(ended.nodes.wait).to.include({ status: 'Held', error: null });
        expect(Date.parse(ended.endedAt) - Date.parse(ended.stop.requestedAt)).to.be.below(2_000);
      });

      it('a queued execution ends Failed with the marker, no node started', async () => {
        await done('admission.set', { paused: true });
        try {
          const id = await run(parked());
          expect(await done('execution.get', { id })).to.include({ status: 'Pending', startedAt: null });
          await done('execution.stop', { id });
          const ended = await record(id);
          expect(ended).to.include({ status: 'Failed', error: MARKER, startedAt: null });
          expect(ended.nodes.ask).to.include({ status: 'Pending', attempt: 0 });
          expect(endpoint.of(id)).to.have.length(0);
        } finally {
          await done('admission.set', { paused: false });
        }
      });

      it('a child stopped alone fails its parent, which is not stopped', async () => {
        await done('workflow.save', { definition: childOf(endpoint.url) });
        const parent = {
          name: 'parent-of-one',
          nodes: {
            child: { type: 'workflow', with: { workflow: 'table-child' }, retry: { attempts: 3, backoff: '10ms' } },
          },
        };
        const id = await run(parent);
        const [child] = await until(
          'children',
          () => childrenOf(id),
          (items) => items.length === 1,
        );
        await endpoint.calling(child.id);
        await done('execution.stop', { id: child.id });
        const ended = await record(id);
        const error = `child execution ${child.id} was stopped`;
        expect(ended).to.include({
          status: 'Failed',
          error,
          errorCode: 'FS_CHILD_STOPPED',
          stop: null,
          stoppedByUser: false,
        });
        expect(ended.nodes.child).to.include({ status: 'Failed', error, attempt: 1 });
        expect(await record(child.id)).to.include({ error: MARKER, stoppedByUser: true });
        expect(await childrenOf(id)).to.have.length(1);
      });

      it('a stopped item is that item’s error where errors do not end the foreach', async () => {
        const id = await run({
          name: 'each-continues',
          nodes: {
            each: {
              type: 'foreach',
              items: '${{ [1, 2] }}',
              onItemError: 'continue',
              body: { ask: { type: 'http', with: { url: `${endpoint.url}/park?item=\${{ item }}` } } },
            },
          },
        } as { name: string });
        const children = await until(
          'children',
          () => childrenOf(id),
          (items) => items.length === 2,
        );
        for (const child of children) await endpoint.calling(child.id);
        const [one, other] = children.sort((a, b) => a.parent.itemIndex - b.parent.itemIndex);
        await done('execution.stop', { id: one.id });
        await record(one.id);
        endpoint.of(other.id)[0]?.answer(200, { fine: true });
        const ended = await record(id);
        expect(ended).to.include({ status: 'Complete', stoppedByUser: false });
        const [first, second] = ended.outputs.each;
        expect(first).to.deep.equal({ error: `child execution ${one.id} was stopped` });
        expect(second.ask.body).to.deep.equal({ fine: true });
      });

      it('a stop wins over a failure that is ending the execution: failFast', async () => {
        const id = await run({
          name: 'fails-fast',
          failFast: true,
          nodes: {
            ask: { type: 'http', with: { url: `${endpoint.url}/park` } },
            soon: { type: 'delay', with: { duration: '50ms' } },
            broken: { type: 'fail', needs: ['soon'], with: { message: 'its own error' } },
            held: { type: 'hold', trigger: 'go' },
          },
        } as { name: string });
        await endpoint.calling(id);
        await record(id, ({ nodes }) => nodes.broken.status === 'Failed');
        expect(await done('execution.get', { id })).to.include({ status: 'Running' });
        await done('execution.stop', { id });
        const ended = await record(id);
        expect(ended).to.include({ status: 'Failed', error: MARKER, stoppedByUser: true });
        expect(ended.nodes.ask).to.include({ status: 'Failed', error: MARKER });
        expect(ended.nodes.broken).to.include({ status: 'Failed', error: 'its own error' });
        expect(ended.nodes.held).to.include({ status: 'Held' });
        expect(endpoint.of(id).map(({ end }) => end)).to.deep.equal(['aborted']);
      });

      it('a stop starts no onFailure workflow', async () => {
        await done('workflow.save', {
          definition: {
            name: 'after-failure',
            inputs: {
              executionId: { type: 'string' },
              workflow: { type: 'string' },
              error: { type: 'string' },
              errorCode: { type: 'string' },
            },
            nodes: { note: { type: 'set', with: { value: 1 } } },
          },
        });
        const id = await run({ ...parked(), name: 'with-on-failure', onFailure: { workflow: 'after-failure' } } as {
          name: string;
        });
        await endpoint.calling(id);
        await done('execution.stop', { id });
        await record(id);
        expect((await done('execution.list', { workflow: 'after-failure' })).items).to.deep.equal([]);
      });

      describe('in bulk', () => {
        it('a filter stops the live executions that match', async () => {
          const label = `bulk=${transport === 'HTTP' ? 'a' : 'b'}`;
          const labels = { bulk: label.slice(5) };
          const ids = [];
          for (let count = 0; count < 5; count += 1) ids.push(await run(parked(), { labels }));
          const other = await run(parked());
          for (const id of [...ids, other]) await endpoint.calling(id);
          const answer = await done('executions.stop', { filter: { label } });
          expect(answer).to.deep.include({ matched: 5, alreadyEnded: [], failed: [], startedMeanwhile: [] });
          expect(answer.requested).to.have.members(ids);
          for (const id of ids) {
            expect(await record(id)).to.include({ status: 'Failed', error: MARKER });
            expect(endpoint.of(id).map(({ end }) => end)).to.deep.equal(['aborted']);
          }
          expect(await done('execution.get', { id: other })).to.include({ status: 'Running', stop: null });
          expect((await done('executions.stop', { filter: { label } })).matched).to.equal(0);
          await done('execution.stop', { id: other });
          await record(other);
        });

        it('a dry run freezes a set, and the set alone is stopped', async () => {
          const name = `frozen-${transport === 'HTTP' ? 'a' : 'b'}`;
          const definition = { ...parked(), name };
          const ids = [await run(definition), await run(definition)];
          const dry = await done('executions.stop', { filter: { workflow: name }, dryRun: true });
          expect(dry.matched).to.equal(2);
          const later = await run(definition);
          for (const id of [...ids, later]) expect(await done('execution.get', { id })).to.include({ stop: null });
          const answer = await done('executions.stop', { setId: dry.setId });
          expect(answer.requested).to.have.members(ids);
          expect(answer.startedMeanwhile).to.deep.equal([later]);
          for (const id of ids) expect(await record(id)).to.include({ error: MARKER });
          expect(await done('execution.get', { id: later })).to.include({ status: 'Running', stop: null });
          await done('execution.stop', { id: later });
          await record(later);
        });

        it('ids are stopped one and all, and those that have ended are told apart', async () => {
          const ids = [await run(parked()), await run(held())];
          const over = await run({ name: 'quick', nodes: { one: { type: 'set', with: { value: 1 } } } } as {
            name: string;
          });
          await record(over);
          const answer = await done('executions.stop', { filter: { ids: [...ids, over] } });
          expect(answer.matched).to.equal(2);
          expect(answer.requested).to.have.members(ids);
          for (const id of ids) expect(await record(id)).to.include({ error: MARKER });
          expect(await record(over)).to.include({ status: 'Complete' });
        });

        it('an empty filter is refused', async () => {
          for (const payload of [
            {},
            { filter: {} },
            { filter: { all: true, workflow: 'parked' } },
            { filter: { all: false } },
          ]) {
            expect((await call('executions.stop', payload)).code).to.equal('FS_INVALID');
          }
        });
      });

      it('the audit log says who stopped it and with what outcome, the record does not', async () => {
        const { key } = await done('key.create', {
          name: `operator of ${transport}`,
          role: 'operator',
          project: 'default',
        });
        const id = await run(parked());
        await endpoint.calling(id);
        expect((await call('execution.stop', { id }, key)).code).to.equal(null);
        expect(JSON.stringify(await record(id))).not.to.include('operator of');
        const entries = await until(
          'audit',
          async () =>
            (await done('audit.list')).items.filter(
              (entry: Data) => entry.target === id && entry.verb === 'execution.stop',
            ),
          ([entry]) => entry?.outcome != null,
        );
        expect(entries).to.have.length(1);
        expect(entries[0].actor).to.include({ name: `operator of ${transport}`, role: 'operator' });
        expect(entries[0]).to.include({ outcome: 'requested', project: 'default' });
      });

      it('a viewer may stop what it sees, and to others it does not exist', async () => {
        const own = (await done('key.create', { name: 'sees', role: 'viewer', project: 'default' })).key;
        const foreign = (await done('key.create', { name: 'elsewhere', role: 'viewer', project: 'elsewhere' })).key;
        const id = await run(parked());
        await endpoint.calling(id);
        expect((await call('execution.stop', { id }, foreign)).code).to.equal('FS_NOT_FOUND');
        expect((await call('execution.preview', { id }, foreign)).code).to.equal('FS_NOT_FOUND');
        expect((await call('executions.stop', { filter: { ids: [id] } }, foreign)).data.matched).to.equal(0);
        expect((await call('executions.stop', { filter: { all: true } }, foreign)).data.matched).to.equal(0);
        expect(await done('execution.get', { id })).to.include({ status: 'Running', stop: null });
        expect((await call('execution.stop', { id }, own)).code).to.equal(null);
        expect(await record(id)).to.include({ error: MARKER });
      });
    });
  }
});
