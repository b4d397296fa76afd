import { expect } from 'chai';
import { hasCode } from '../../src/errors.ts';
import type { Commit, ExecutionQuery, ExecutionStore, KeyRow } from '../../src/ports/store.ts';
import type { StopReceipt } from '../../src/wire.ts';
import * as rows from './rows.ts';
import { audit, child, event, id, newExecution, node, receipt, result, T0 } from './rows.ts';

export interface OpenedStore {
  store: ExecutionStore;
  /** Closes the store and opens one on what it kept; absent where nothing is kept. */
  reopen?: () => Promise<ExecutionStore>;
  close: () => Promise<void>;
}

const intent = { requestId: 'stop-1', requestedAtMs: T0 + 500 };
const [a, b, c, d] = [id('a'), id('b'), id('c'), id('d')];

/** What every adapter of `ExecutionStore` promises; each test has a store of its own. */
export function executionStoreContract(name: string, open: () => Promise<OpenedStore>): void {
  describe(`the ${name} store`, () => {
    let opened: OpenedStore;
    let store: ExecutionStore;
    /** The number of the last commit made here, by execution. */
    let numbers: Map<string, number>;

    beforeEach(async () => {
      numbers = new Map();
      opened = await open();
      store = opened.store;
    });

    afterEach(() => opened.close());

    /** The next commit of an execution. */
    function commit(executionId: string, given: Partial<Commit> = {}): Commit {
      const v = given.v ?? (numbers.get(executionId) ?? 0) + 1;
      numbers.set(executionId, v);
      return rows.commit(executionId, { ...given, v });
    }

    function finalCommit(executionId: string, given: Partial<Commit> = {}): Commit {
      return commit(executionId, { ...rows.finalCommit(executionId, given), v: (numbers.get(executionId) ?? 0) + 1 });
    }

    /** Everything a caller can read of an execution. */
    async function everything(executionId: string): Promise<unknown> {
      return {
        load: await store.load(executionId),
        events: await store.readEvents(executionId, 1, 100),
        results: await store.readResults(executionId),
        receipt: await store.getReceipt(executionId),
      };
    }

    async function listed(query: Partial<ExecutionQuery>): Promise<string[]> {
      const { items } = await store.listExecutions({ project: null, limit: 100, ...query });
      return items.map((item) => item.id.slice(-1));
    }

    describe('findStart', () => {
      it('finds an execution by its unique key, within its project', async () => {
        await store.createExecution(newExecution({ id: a }, { uniqueKey: 'k', bodyHash: 'h' }));
        expect(await store.findStart('default', 'k')).to.deep.equal({ id: a, bodyHash: 'h' });
        expect(await store.findStart('other', 'k')).to.equal(null);
        expect(await store.findStart('default', 'l')).to.equal(null);
      });
    });

    describe('createExecution', () => {
      it('stores the execution and its first events', async () => {
        const given = newExecution({
          id: a,
          labels: { team: 'red' },
          parent: null,
          bodyPath: 'each',
          startedByFailure: true,
          status: 'Pending',
          input: { deep: [1, { ä: '✓' }] },
        });
        expect(await store.createExecution(given)).to.deep.equal({ kind: 'created' });
        expect(await store.load(a)).to.deep.equal({ header: given.header, nodes: [], triggers: [] });
        expect(await store.getExecution(a)).to.deep.include({ header: given.header, nodes: [] });
        expect(await store.getHeader(a)).to.deep.equal(given.header);
        expect(await store.readEvents(a, 1, 10)).to.deep.equal({ items: given.events, firstSeq: 1 });
      });

      it('answers a repeat of the same id with the first', async () => {
        await store.createExecution(newExecution({ id: a }, { bodyHash: 'x' }));
        const again = newExecution({ id: a, input: 'other' }, { bodyHash: 'x' });
        expect(await store.createExecution(again)).to.deep.equal({ kind: 'exists', id: a, sameBody: true });
        expect((await store.load(a))?.header.input).to.deep.equal({ target: 'example.org' });
      });

      it('finds the first execution of a unique key, and tells another body', async () => {
        await store.createExecution(newExecution({ id: a }, { uniqueKey: 'k', bodyHash: 'x' }));
        expect(await store.createExecution(newExecution({ id: b }, { uniqueKey: 'k', bodyHash: 'x' }))).to.deep.equal({
          kind: 'exists',
          id: a,
          sameBody: true,
        });
        expect(await store.createExecution(newExecution({ id: b }, { uniqueKey: 'k', bodyHash: 'y' }))).to.deep.equal({
          kind: 'exists',
          id: a,
          sameBody: false,
        });
        expect(await store.load(b)).to.equal(null);
      });

      it('keeps the unique keys of projects apart', async () => {
        await store.createExecution(newExecution({ id: a }, { uniqueKey: 'k', bodyHash: 'x' }));
        const other = newExecution({ id: b, project: 'other' }, { uniqueKey: 'k', bodyHash: 'x' });
        expect(await store.createExecution(other)).to.deep.equal({ kind: 'created' });
      });

      it('lets one of two racing executions have a unique key', async () => {
        const outcomes = await Promise.all(
          [a, b].map((each) => store.createExecution(newExecution({ id: each }, { uniqueKey: 'k', bodyHash: 'x' }))),
        );
        expect(outcomes).to.deep.equal([{ kind: 'created' }, { kind: 'exists', id: a, sameBody: true }]);
      });

      it('refuses a child of a parent that is missing, ended or stopping', async () => {
        expect(await store.createExecution(child(b, a))).to.deep.equal({ kind: 'refused', why: 'parentEnded' });
        await store.createExecution(newExecution({ id: a }));
        expect(await store.createExecution(child(b, a))).to.deep.equal({ kind: 'created' });
        await store.requestStop(a, intent);
        expect(await store.createExecution(child(c, a))).to.deep.equal({ kind: 'refused', why: 'parentStopping' });
        await store.commit(finalCommit(a, { requestId: 'stop-1' }));
        expect(await store.createExecution(child(c, a))).to.deep.equal({ kind: 'refused', why: 'parentEnded' });
        expect(await store.load(c)).to.equal(null);
      });

      it('finds a child again though its parent is stopping', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.createExecution({ ...child(b, a), uniqueKey: 'place' });
        await store.requestStop(a, intent);
        const again = await store.createExecution({ ...child(c, a), uniqueKey: 'place' });
        expect(again).to.deep.equal({ kind: 'exists', id: b, sameBody: true });
      });
    });

    describe('commit', () => {
      beforeEach(() => store.createExecution(newExecution({ id: a })));

      it('changes the header, nodes, events and results, and counts', async () => {
        const first = commit(a, {
          header: { startedAtMs: T0 + 5, machine: { value: 'running' } },
          nodes: [node('scan/-'), node('resolve/-', { status: 'Complete', hasOutput: true })],
          events: [
            event(2, 'execution.started'),
            event(3, 'node.started', { node: 'scan', attempt: 1, data: { x: 1 } }),
          ],
          results: [result(a, 'resolve/-', { ok: true })],
        });
        expect(await store.commit(first)).to.deep.equal({ kind: 'committed' });
        const loaded = await store.load(a);
        expect(loaded?.header).to.deep.include({ v: 1, seq: 3, startedAtMs: T0 + 5, status: 'Running' });
        expect(loaded?.header.machine).to.deep.equal({ value: 'running' });
        expect(loaded?.nodes).to.have.deep.members(first.nodes);
        expect((await store.readEvents(a, 2, 10)).items).to.deep.equal(first.events);
        expect(await store.readResult(`${a}/resolve/-/1`)).to.deep.equal({ ok: true });
        expect(await store.readResults(a)).to.deep.equal(first.results);
      });

      it('leaves what it does not name', async () => {
        await store.commit(commit(a, { header: { machine: { n: 1 }, startedAtMs: T0 + 5 }, nodes: [node('scan/-')] }));
        await store.commit(commit(a, { nodes: [node('other/-')] }));
        const loaded = await store.load(a);
        expect(loaded?.header).to.deep.include({ startedAtMs: T0 + 5, v: 2, seq: 1, error: null });
        expect(loaded?.header.machine).to.deep.equal({ n: 1 });
        expect(loaded?.nodes.map((row) => row.key)).to.have.members(['scan/-', 'other/-']);
      });

      it('replaces a node', async () => {
        await store.commit(commit(a, { nodes: [node('scan/-')] }));
        const ended = node('scan/-', {
          status: 'Failed',
          error: 'no',
          errorCode: 'FS_FAILED',
          data: [1],
          machine: null,
        });
        await store.commit(commit(a, { nodes: [ended] }));
        expect((await store.load(a))?.nodes).to.deep.equal([ended]);
      });

      it('takes a header value back to null', async () => {
        await store.commit(commit(a, { header: { error: 'no', errorCode: 'FS_FAILED', outputs: 1, machine: 1 } }));
        await store.commit(commit(a, { header: { error: null, errorCode: null, outputs: null, machine: null } }));
        const fields = { error: null, errorCode: null, outputs: null, machine: null };
        expect((await store.load(a))?.header).to.deep.include(fields);
      });

      it('ends the execution and bumps the epoch when it is final', async () => {
        await store.commit(finalCommit(a));
        expect((await store.load(a))?.header).to.deep.include({
          status: 'Complete',
          endedAtMs: T0 + 1000,
          outputs: { done: true },
          owner: { engine: 'engine-1', epoch: 2 },
        });
        expect(await store.readOutputs([b, a])).to.deep.equal([null, { done: true }]);
      });

      const refusals: { name: string; prepare: () => Promise<unknown>; given: Partial<Commit>; outcome: object }[] = [
        {
          name: 'a former epoch',
          prepare: () => store.claimAll('engine-2'),
          given: {},
          outcome: { kind: 'refused', why: 'fenced' },
        },
        {
          name: 'an epoch to come',
          prepare: () => Promise.resolve(),
          given: { epoch: 2 },
          outcome: { kind: 'refused', why: 'fenced' },
        },
        {
          name: 'a number left out',
          prepare: () => Promise.resolve(),
          given: { v: 3 },
          outcome: { kind: 'refused', why: 'fenced' },
        },
        {
          name: 'a former number',
          prepare: () => store.commit(commit(a)),
          given: { v: 1 },
          outcome: { kind: 'refused', why: 'fenced' },
        },
        {
          name: 'an ended execution',
          prepare: () => store.commit(finalCommit(a)),
          given: { epoch: 2 },
          outcome: { kind: 'refused', why: 'ended' },
        },
        {
          name: 'the owner of before the terminal commit',
          prepare: () => store.commit(finalCommit(a)),
          given: {},
          outcome: { kind: 'refused', why: 'ended' },
        },
        {
          name: 'no stop intent where one is stored',
          prepare: () => store.requestStop(a, intent),
          given: {},
          outcome: { kind: 'refused', why: 'stopping', stop: intent },
        },
        {
          name: 'another stop intent than the stored one',
          prepare: () => store.requestStop(a, intent),
          given: { requestId: 'stop-2' },
          outcome: { kind: 'refused', why: 'stopping', stop: intent },
        },
        {
          name: 'a former epoch with a stop intent',
          prepare: async () => {
            await store.requestStop(a, intent);
            await store.claimAll('engine-2');
          },
          given: { requestId: 'stop-1' },
          outcome: { kind: 'refused', why: 'fenced' },
        },
      ];
      for (const { name: what, prepare, given, outcome } of refusals) {
        it(`refuses ${what}, and changes nothing at all`, async () => {
          await store.commit(commit(a, { nodes: [node('scan/-')], results: [result(a, 'old/-', 1)] }));
          await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: null, atMs: T0 });
          await prepare();
          const { seq } = (await store.load(a))?.header ?? { seq: 0 };
          const before = await everything(a);
          const refused = commit(a, {
            header: { status: 'Failed', error: 'x', machine: 9, outputs: 9 },
            nodes: [node('scan/-', { status: 'Failed' }), node('new/-')],
            events: [event(seq + 1)],
            results: [result(a, 'new/-', 2)],
            dropNodes: ['old/-'],
            consumedTriggers: ['t'],
            receipt: receipt(a),
            creates: [newExecution({ id: d })],
            final: true,
            ...given,
          });
          expect(await store.commit(refused)).to.deep.equal(outcome);
          expect(await everything(a)).to.deep.equal(before);
          expect(await store.load(d)).to.equal(null);
        });
      }

      it('says that a missing execution is missing', async () => {
        expect(await store.commit(commit(b))).to.deep.equal({ kind: 'refused', why: 'missing' });
      });

      it('rejects a stop request that is stored nowhere, as a broken invariant', async () => {
        const error = await rejection(store.commit(commit(a, { requestId: 'stop-9' })));
        expect(hasCode(error, 'FS_INTERNAL')).to.equal(true);
      });

      it('accepts the stored stop intent', async () => {
        await store.requestStop(a, intent);
        expect(await store.commit(finalCommit(a, { requestId: 'stop-1', receipt: receipt(a) }))).to.deep.equal({
          kind: 'committed',
        });
        expect(await store.getReceipt(a)).to.deep.include(receipt(a));
      });

      it('lets the final commit win over the stop that comes after it', async () => {
        const [committed, stop] = await Promise.all([store.commit(finalCommit(a)), store.requestStop(a, intent)]);
        expect(committed).to.deep.equal({ kind: 'committed' });
        expect(stop).to.deep.equal({ kind: 'ended', status: 'Complete' });
        expect((await store.load(a))?.header).to.deep.include({ status: 'Complete', stop: null });
      });

      it('lets the stop win over the final commit that comes after it', async () => {
        const [stop, committed] = await Promise.all([store.requestStop(a, intent), store.commit(finalCommit(a))]);
        expect(stop.kind).to.equal('requested');
        expect(committed).to.deep.equal({ kind: 'refused', why: 'stopping', stop: intent });
        expect((await store.load(a))?.header).to.deep.include({ status: 'Running', stop: intent });
      });

      it('lets exactly one of two final commits win', async () => {
        await store.claimAll('engine-2');
        const ends = [
          finalCommit(a, { epoch: 1, header: { status: 'Failed', endedAtMs: T0 } }),
          { ...finalCommit(a, { epoch: 2 }), v: 1 },
          { ...finalCommit(a, { epoch: 2 }), v: 2 },
          { ...finalCommit(a, { epoch: 1 }), v: 1 },
        ];
        const outcomes = await Promise.all(ends.map((end) => store.commit(end)));
        expect(outcomes).to.deep.equal([
          { kind: 'refused', why: 'fenced' },
          { kind: 'committed' },
          { kind: 'refused', why: 'ended' },
          { kind: 'refused', why: 'ended' },
        ]);
        expect((await store.load(a))?.header.status).to.equal('Complete');
      });

      it('keeps a result as it was first stored', async () => {
        await store.commit(commit(a, { results: [result(a, 'scan/-', 'first')] }));
        await store.commit(commit(a, { results: [result(a, 'scan/-', 'second'), result(a, 'scan/-', null, 2)] }));
        expect(await store.readResult(`${a}/scan/-/1`)).to.equal('first');
        expect(await store.readResult(`${a}/scan/-/2`)).to.equal(null);
        expect(await store.readResult(`${a}/scan/-/3`)).to.equal(undefined);
        expect(await store.readResult(`${b}/scan/-/1`)).to.equal(undefined);
        expect(await store.readResults(a)).to.have.length(2);
      });

      it('keeps the results of other executions apart', async () => {
        await store.createExecution(newExecution({ id: b }));
        await store.commit(commit(a, { results: [result(a, 'scan/-', 'of a')] }));
        await store.commit(commit(b, { results: [result(b, 'scan/-', 'of b')] }));
        expect(await store.readResults(b)).to.deep.equal([result(b, 'scan/-', 'of b')]);
      });

      it('drops nodes with their results, those it brings itself too', async () => {
        await store.commit(
          commit(a, {
            nodes: [node('poll/-'), node('poll/check/0@1'), node('poll/save/0@1')],
            results: [result(a, 'poll/check/0@1', 1)],
          }),
        );
        await store.commit(
          commit(a, {
            nodes: [node('poll/save/0@1', { status: 'Complete' }), node('poll/check/1@1')],
            results: [result(a, 'poll/save/0@1', 2)],
            dropNodes: ['poll/check/0@1', 'poll/save/0@1'],
          }),
        );
        const keys = (await store.load(a))?.nodes.map((row) => row.key);
        expect(keys).to.have.members(['poll/-', 'poll/check/1@1']);
        expect(await store.readResults(a)).to.deep.equal([]);
      });

      it('may hold what comes and goes between it and the one before', async () => {
        await store.commit(commit(a, { nodes: [node('poll/-'), node('poll/check/0@1')] }));
        const keys = Array.from({ length: 12 }, (_, index) => `poll/check/${index + 1}@1`);
        const whole = keys.map((key) => node(key, { status: 'Complete', machine: null, hasOutput: true }));
        const results = keys.map((key, index) => result(a, key, index));
        await store.commit(
          commit(a, {
            nodes: [node('poll/check/0@1', { status: 'Complete', machine: null }), ...whole],
            results: [result(a, 'poll/check/0@1', 'first'), ...results],
            events: keys.flatMap((key, index) => [event(2 + 2 * index), event(3 + 2 * index, 'log', { data: key })]),
            dropNodes: ['poll/check/0@1', ...keys.slice(0, -2), 'poll/never/0@1'],
          }),
        );
        const left = (await store.load(a))?.nodes ?? [];
        expect(left).to.have.deep.members([node('poll/-'), ...whole.slice(-2)]);
        expect(await store.readResults(a)).to.have.deep.members(results.slice(-2));
        expect((await store.readEvents(a, 1, 100)).items.map(({ seq }) => seq)).to.deep.equal(
          Array.from({ length: 25 }, (_, index) => index + 1),
        );
        await store.commit(commit(a, { dropNodes: keys }));
        expect((await store.load(a))?.nodes).to.deep.equal([node('poll/-')]);
        expect(await store.readResults(a)).to.deep.equal([]);
      });

      it('may hold the whole life of an execution, from Pending to its end', async () => {
        await store.createExecution(newExecution({ id: b, status: 'Pending' }));
        const keys = Array.from({ length: 32 }, (_, index) => `n${index + 1}/-`);
        const nodes = keys.map((key) =>
          node(key, {
            type: 'set',
            where: 'engine',
            status: 'Complete',
            machine: null,
            hasOutput: true,
            endedAtMs: T0 + 9,
          }),
        );
        const results = keys.map((key, index) => result(b, key, `${index} ${'x'.repeat(8_000)}`));
        const events = [
          event(2, 'execution.started'),
          ...keys.flatMap((_, index) => [
            event(3 + 2 * index, 'node.started', { node: `n${index + 1}`, attempt: 1 }),
            event(4 + 2 * index, 'node.completed', { node: `n${index + 1}`, attempt: 1 }),
          ]),
          event(67, 'execution.completed'),
        ];
        const life = finalCommit(b, {
          header: { status: 'Complete', startedAtMs: T0 + 1, endedAtMs: T0 + 9, outputs: { n32: 1 }, machine: null },
          nodes,
          results,
          events,
        });
        expect(await store.commit(life)).to.deep.equal({ kind: 'committed' });
        const loaded = await store.load(b);
        expect(loaded?.header).to.deep.include({
          status: 'Complete',
          startedAtMs: T0 + 1,
          v: 1,
          seq: 67,
          machine: null,
        });
        expect(loaded?.header.owner.epoch).to.equal(2);
        expect(loaded?.nodes).to.have.deep.members(nodes);
        expect((await store.readEvents(b, 2, 100)).items).to.deep.equal(events);
        expect(await store.readResults(b)).to.have.deep.members(results);
        expect(await store.readOutputs([b])).to.deep.equal([{ n32: 1 }]);
        expect(await store.requestStop(b, intent)).to.deep.equal({ kind: 'ended', status: 'Complete' });
      });

      it('can be repeated until the next one, and is applied once', async () => {
        const given = commit(a, { nodes: [node('scan/-')], events: [event(2)], creates: [newExecution({ id: b })] });
        await store.commit(given);
        const before = await everything(a);
        expect(await store.commit({ ...given, nodes: [node('other/-')] })).to.deep.equal({ kind: 'committed' });
        expect(await everything(a)).to.deep.equal(before);
        await store.requestStop(a, intent);
        expect(await store.commit(given)).to.deep.equal({ kind: 'committed' });
        await store.commit(commit(a, { requestId: 'stop-1' }));
        expect(await store.commit(given)).to.deep.equal({ kind: 'refused', why: 'fenced' });
      });

      it('can be repeated when it was final', async () => {
        const given = finalCommit(a);
        await store.commit(given);
        const before = await everything(a);
        expect(await store.commit(given)).to.deep.equal({ kind: 'committed' });
        expect(await everything(a)).to.deep.equal(before);
        expect(await store.commit({ ...given, final: false })).to.deep.equal({ kind: 'refused', why: 'ended' });
      });

      it("of a former owner is no repeat of the new one's", async () => {
        await store.claimAll('engine-2');
        await store.commit(commit(a, { epoch: 2, v: 1 }));
        expect(await store.commit(commit(a, { epoch: 1, v: 1 }))).to.deep.equal({ kind: 'refused', why: 'fenced' });
      });

      it('creates executions, except those whose key or id exists or whose parent takes none', async () => {
        await store.createExecution(newExecution({ id: b }, { uniqueKey: 'k', bodyHash: 'x' }));
        const creates = [
          child(c, a),
          newExecution({ id: d }, { uniqueKey: 'k', bodyHash: 'x' }),
          newExecution({ id: b, input: 'other' }),
          child(id('e'), id('z')),
        ];
        expect(await store.commit(commit(a, { creates }))).to.deep.equal({ kind: 'committed' });
        expect((await store.load(c))?.header).to.deep.equal(creates[0]?.header);
        expect((await store.readEvents(c, 1, 10)).items).to.deep.equal(creates[0]?.events);
        expect((await store.load(b))?.header.input).to.deep.equal({ target: 'example.org' });
        expect(await store.load(d)).to.equal(null);
        expect(await store.load(id('e'))).to.equal(null);
      });

      it('creates what follows a failure with the terminal commit', async () => {
        await store.commit(finalCommit(a, { creates: [newExecution({ id: b, startedByFailure: true }), child(c, a)] }));
        expect((await store.load(b))?.header.startedByFailure).to.equal(true);
        expect(await store.load(c)).to.equal(null);
      });

      it('rejects a gap in the events, and changes nothing', async () => {
        const before = await everything(a);
        const [gap, hole, fine] = await Promise.all([
          rejection(store.commit(commit(a, { v: 1, events: [event(3)], nodes: [node('scan/-')] }))),
          rejection(store.commit(commit(a, { v: 1, events: [event(2), event(4)] }))),
          store.requestStop(b, intent),
        ]);
        expect(hasCode(gap, 'FS_INTERNAL')).to.equal(true);
        expect(hasCode(hole, 'FS_INTERNAL')).to.equal(true);
        expect(fine).to.deep.equal({ kind: 'missing' });
        expect(await everything(a)).to.deep.equal(before);
      });

      it('takes the calls around one that fails', async () => {
        const [first, failed, last] = await Promise.allSettled([
          store.commit(commit(a, { events: [event(2)] })),
          store.commit(commit(a, { events: [event(9)], nodes: [node('bad/-')] })),
          store.commit(commit(a, { v: 2, events: [event(3)], nodes: [node('good/-')] })),
        ]);
        expect([first.status, failed.status, last.status]).to.deep.equal(['fulfilled', 'rejected', 'fulfilled']);
        const loaded = await store.load(a);
        expect(loaded?.header).to.deep.include({ seq: 3, v: 2 });
        expect(loaded?.nodes.map((row) => row.key)).to.deep.equal(['good/-']);
      });

      it('keeps what was passed as it was then', async () => {
        const given = commit(a, { nodes: [node('scan/-', { data: { n: 1 } })] });
        const done = store.commit(given);
        (given.nodes[0] as { data: unknown }).data = { n: 2 };
        await done;
        const loaded = await store.load(a);
        expect(loaded?.nodes[0]?.data).to.deep.equal({ n: 1 });
        (loaded?.nodes[0] as { data: unknown }).data = { n: 3 };
        expect((await store.load(a))?.nodes[0]?.data).to.deep.equal({ n: 1 });
      });

      it('answers many commits in their order', async () => {
        const count = 1500;
        const outcomes = await Promise.all(
          Array.from({ length: count }, (_, index) => store.commit(commit(a, { events: [event(index + 2)] }))),
        );
        expect(outcomes.every((outcome) => outcome.kind === 'committed')).to.equal(true);
        const { items } = await store.readEvents(a, 1, 2000);
        expect(items.map((item) => item.seq)).to.deep.equal(Array.from({ length: count + 1 }, (_, index) => index + 1));
      });
    });

    describe('requestStop', () => {
      it('stores the intent once, and says so again', async () => {
        await store.createExecution(newExecution({ id: a }));
        const answer = { kind: 'requested', ...intent, affected: [{ executionId: a, ...intent }] };
        expect(await store.requestStop(a, intent)).to.deep.equal({ ...answer, repeated: false });
        expect(await store.requestStop(a, { requestId: 'stop-2', requestedAtMs: T0 + 900 })).to.deep.equal({
          ...answer,
          repeated: true,
        });
        expect((await store.load(a))?.header.stop).to.deep.equal(intent);
      });

      it('lets one of two racing requests be the stop', async () => {
        await store.createExecution(newExecution({ id: a }));
        const [first, second] = await Promise.all([
          store.requestStop(a, intent),
          store.requestStop(a, { requestId: 'stop-2', requestedAtMs: T0 }),
        ]);
        expect(first).to.deep.include({ kind: 'requested', repeated: false, requestId: 'stop-1' });
        expect(second).to.deep.include({ kind: 'requested', repeated: true, requestId: 'stop-1' });
      });

      it('marks live descendants with the same request, and leaves those that have one', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.createExecution(child(b, a));
        await store.createExecution(child(c, b, { ancestors: [a, b] }));
        await store.createExecution(child(d, a));
        await store.createExecution(child(id('e'), a));
        await store.commit(finalCommit(d));
        const own = { requestId: 'own', requestedAtMs: T0 };
        await store.requestStop(id('e'), own);
        const answer = await store.requestStop(a, intent);
        expect(answer).to.deep.include({ kind: 'requested', repeated: false, ...intent });
        const affected = [
          ...[a, b, c].map((each) => ({ executionId: each, ...intent })),
          { executionId: id('e'), ...own },
        ];
        expect((answer as { affected: unknown[] }).affected).to.have.deep.members(affected);
        for (const each of [a, b, c]) expect((await store.load(each))?.header.stop).to.deep.equal(intent);
        expect((await store.load(d))?.header.stop).to.equal(null);
        expect((await store.load(id('e')))?.header.stop).to.deep.equal(own);
        const again = await store.requestStop(a, { requestId: 'stop-2', requestedAtMs: T0 });
        expect((again as { affected: unknown[] }).affected).to.have.deep.members(affected);
      });

      it('does not reach the parent', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.createExecution(child(b, a));
        expect(await store.requestStop(b, intent)).to.deep.include({ affected: [{ executionId: b, ...intent }] });
        expect((await store.load(a))?.header.stop).to.equal(null);
      });

      it('tells missing, stopped and otherwise ended apart', async () => {
        expect(await store.requestStop(a, intent)).to.deep.equal({ kind: 'missing' });
        await store.createExecution(newExecution({ id: a }));
        await store.requestStop(a, intent);
        await store.commit(finalCommit(a, { requestId: 'stop-1', header: { status: 'Failed', endedAtMs: T0 } }));
        expect(await store.requestStop(a, { requestId: 'stop-2', requestedAtMs: T0 })).to.deep.equal({
          kind: 'stopped',
          ...intent,
        });
        await store.createExecution(newExecution({ id: b }));
        await store.commit(finalCommit(b));
        expect(await store.requestStop(b, intent)).to.deep.equal({ kind: 'ended', status: 'Complete' });
        expect((await store.load(b))?.header.stop).to.equal(null);
      });

      it('lists the intents of live executions', async () => {
        for (const each of [a, b, c, d]) await store.createExecution(newExecution({ id: each }));
        for (const each of [c, a, b]) await store.requestStop(each, { ...intent, requestId: `stop-${each}` });
        await store.commit(finalCommit(b, { requestId: `stop-${b}` }));
        expect(await store.listIntents(10)).to.have.deep.members([
          { executionId: a, requestId: `stop-${a}`, requestedAtMs: T0 + 500 },
          { executionId: c, requestId: `stop-${c}`, requestedAtMs: T0 + 500 },
        ]);
        expect(await store.listIntents(1)).to.have.length(1);
      });
    });

    describe('triggers', () => {
      const trigger = { id: 't1', executionId: a, name: 'approve', payload: { by: 'ada', n: 1 }, atMs: T0 };

      beforeEach(() => store.createExecution(newExecution({ id: a })));

      it('keeps one of a name until a commit consumes it', async () => {
        expect(await store.putTrigger(trigger)).to.deep.equal({ kind: 'stored' });
        expect((await store.load(a))?.triggers).to.deep.equal([trigger]);
        const sameInOtherOrder = { ...trigger, id: 't2', payload: { n: 1, by: 'ada' } };
        expect(await store.putTrigger(sameInOtherOrder)).to.deep.equal({ kind: 'duplicate', id: 't1' });
        expect(await store.putTrigger({ ...trigger, id: 't3', payload: null })).to.deep.equal({ kind: 'conflict' });
        expect(await store.putTrigger({ ...trigger, id: 't4', name: 'other' })).to.deep.equal({ kind: 'stored' });
        await store.commit(commit(a, { consumedTriggers: ['t1'] }));
        expect((await store.load(a))?.triggers.map((row) => row.id)).to.deep.equal(['t4']);
        expect(await store.putTrigger({ ...trigger, id: 't5', payload: null })).to.deep.equal({ kind: 'stored' });
      });

      it('belongs to its execution alone', async () => {
        await store.createExecution(newExecution({ id: b }));
        await store.putTrigger(trigger);
        expect(await store.putTrigger({ ...trigger, executionId: b, payload: 2 })).to.deep.equal({ kind: 'stored' });
        await store.commit(commit(b, { consumedTriggers: ['t1'] }));
        expect((await store.load(a))?.triggers).to.deep.equal([trigger]);
      });

      it('is refused for a missing and for an ended execution', async () => {
        expect(await store.putTrigger({ ...trigger, executionId: b })).to.deep.equal({ kind: 'missing' });
        await store.commit(finalCommit(a));
        expect(await store.putTrigger(trigger)).to.deep.equal({ kind: 'ended', status: 'Complete' });
      });
    });

    describe('receipts', () => {
      const revisionOf = async (executionId: string): Promise<number> =>
        (await store.getReceipt(executionId))?.revision ?? -1;

      async function stopped(given: Partial<StopReceipt> = {}): Promise<void> {
        await store.createExecution(newExecution({ id: a }));
        await store.requestStop(a, intent);
        await store.commit(finalCommit(a, { requestId: 'stop-1', receipt: receipt(a, given) }));
      }

      it('replaces the receipt of an ended execution', async () => {
        await stopped({ unconfirmed: 1 });
        const next = { ...receipt(a, { lateResultsDiscarded: 2 }), discarded: ['x', 'y'] };
        expect(await store.putReceipt(next, await revisionOf(a))).to.equal('stored');
        expect(await store.getReceipt(a)).to.deep.include(next);
      });

      it('replaces none that was replaced since it was read', async () => {
        await stopped();
        const read = await revisionOf(a);
        expect(await store.putReceipt(receipt(a, { unconfirmed: 1 }), read)).to.equal('stored');
        expect(await store.putReceipt(receipt(a, { unconfirmed: 2 }), read)).to.equal('changed');
        expect(await store.getReceipt(a)).to.include({ unconfirmed: 1 });
        expect(await store.putReceipt(receipt(a, { unconfirmed: 2 }), await revisionOf(a))).to.equal('stored');
        expect(await store.getReceipt(a)).to.include({ unconfirmed: 2 });
      });

      it('takes one of several that are written at once, however big', async () => {
        const children = Array.from({ length: 200 }, (_, n) => ({
          executionId: `${id('a')}-${n}`,
          status: 'Failed' as const,
        }));
        await stopped({ children });
        for (const given of [{ children }, {}]) {
          const read = await revisionOf(a);
          const put = [1, 2, 3].map((unconfirmed) => store.putReceipt(receipt(a, { ...given, unconfirmed }), read));
          const outcomes = await Promise.all(put);
          expect(outcomes.filter((outcome) => outcome === 'stored')).to.have.length(1);
          expect(outcomes.filter((outcome) => outcome === 'changed')).to.have.length(2);
          const unconfirmed = outcomes.indexOf('stored') + 1;
          expect(await store.getReceipt(a)).to.deep.include(receipt(a, { ...given, unconfirmed }));
        }
      });

      it('leaves the receipt of a live execution to its commits, which count as changes', async () => {
        await store.createExecution(newExecution({ id: a }));
        expect(await store.putReceipt(receipt(a), 0)).to.equal('live');
        await store.requestStop(a, intent);
        await store.commit(commit(a, { requestId: 'stop-1', receipt: receipt(a, { unconfirmed: 1 }) }));
        const halted = await revisionOf(a);
        expect(await store.putReceipt(receipt(a), halted)).to.equal('live');
        expect(await store.getReceipt(a)).to.include({ unconfirmed: 1 });
        await store.commit(finalCommit(a, { requestId: 'stop-1', receipt: receipt(a, { unconfirmed: 2 }) }));
        expect(await store.putReceipt(receipt(a), halted)).to.equal('changed');
        expect(await store.getReceipt(a)).to.include({ unconfirmed: 2 });
      });

      it('a final commit that is repeated takes nothing back', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.requestStop(a, intent);
        const final = finalCommit(a, { requestId: 'stop-1', receipt: receipt(a, { unconfirmed: 1 }) });
        await store.commit(final);
        await store.putReceipt(receipt(a), await revisionOf(a));
        expect(await store.commit(final)).to.deep.equal({ kind: 'committed' });
        expect(await store.getReceipt(a)).to.include({ unconfirmed: 0 });
      });

      it('keeps none of an execution that is gone, or was not stopped', async () => {
        expect(await store.putReceipt(receipt(a), 0)).to.equal('missing');
        expect(await store.getReceipt(a)).to.equal(null);
        await store.createExecution(newExecution({ id: a }));
        expect(await store.getReceipt(a)).to.equal(null);
        await store.commit(finalCommit(a));
        expect(await store.putReceipt(receipt(a), 0)).to.equal('missing');
        expect(await store.getReceipt(a)).to.equal(null);
      });
    });

    describe('recovery', () => {
      it('takes over live executions and fences their former owner', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.createExecution(
          newExecution({ id: b, owner: { engine: 'engine-0', epoch: 7 }, status: 'Pending' }),
        );
        await store.createExecution(newExecution({ id: c }));
        await store.commit(finalCommit(c));
        expect(await store.claimAll('engine-2')).to.equal(2);
        expect((await store.load(a))?.header.owner).to.deep.equal({ engine: 'engine-2', epoch: 2 });
        expect((await store.load(b))?.header.owner).to.deep.equal({ engine: 'engine-2', epoch: 8 });
        expect((await store.load(c))?.header.owner).to.deep.equal({ engine: 'engine-1', epoch: 2 });
        expect(await store.commit(commit(a))).to.deep.equal({ kind: 'refused', why: 'fenced' });
        expect(await store.commit(commit(a, { epoch: 2, v: 1 }))).to.deep.equal({ kind: 'committed' });
      });

      it('gives live executions in pages, in order of creation, with nodes and triggers', async () => {
        for (const each of [a, b, c, d]) await store.createExecution(newExecution({ id: each }));
        await store.commit(finalCommit(b));
        await store.commit(commit(c, { nodes: [node('scan/-')] }));
        await store.putTrigger({ id: 't', executionId: c, name: 'go', payload: 1, atMs: T0 });
        const first = await store.recover(null, 2);
        expect(first.map((each) => each.header.id)).to.deep.equal([a, c]);
        expect(first[1]).to.deep.equal(await store.load(c));
        expect((await store.recover(c, 2)).map((each) => each.header.id)).to.deep.equal([d]);
        expect(await store.recover(d, 2)).to.deep.equal([]);
      });

      it('goes on after an execution that is gone', async () => {
        for (const each of [a, c]) await store.createExecution(newExecution({ id: each }));
        expect((await store.recover(b, 2)).map((each) => each.header.id)).to.deep.equal([c]);
      });

      it('loads ended executions, and null for none', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.commit(finalCommit(a));
        expect((await store.load(a))?.header.status).to.equal('Complete');
        expect(await store.load(b)).to.equal(null);
        expect(await store.getExecution(b)).to.equal(null);
        expect(await store.getHeader(b)).to.equal(null);
      });

      it('sees the writes that were called before, though not answered yet', async () => {
        const writing = store.createExecution(newExecution({ id: a }));
        const committing = store.commit(commit(a, { nodes: [node('scan/-')] }));
        const loaded = await store.load(a);
        expect(loaded?.nodes).to.have.length(1);
        await Promise.all([writing, committing]);
      });
    });

    describe('children', () => {
      it('are listed by attempt of a node, in order of their items', async () => {
        await store.createExecution(newExecution({ id: a }));
        const place = (itemIndex: number, more: object = {}): object => {
          return { parent: { executionId: a, node: 'each', attempt: 1, itemIndex, ...more } };
        };
        await store.createExecution(child(d, a, place(10)));
        await store.createExecution(child(b, a, place(2)));
        await store.createExecution(child(c, a, place(1, { iterations: [3] })));
        await store.createExecution(child(id('e'), a, place(0, { attempt: 2 })));
        await store.createExecution(child(id('f'), a, place(0, { node: 'other' })));
        await store.requestStop(b, intent);
        await store.commit(
          finalCommit(b, {
            requestId: 'stop-1',
            header: { status: 'Failed', error: 'workflow stopped by user', errorCode: 'FS_STOPPED', endedAtMs: T0 },
          }),
        );
        expect(await store.listChildren(a, 'each', [], 1)).to.deep.equal([
          {
            id: b,
            status: 'Failed',
            error: 'workflow stopped by user',
            errorCode: 'FS_STOPPED',
            stopped: true,
            itemIndex: 2,
          },
          { id: d, status: 'Running', error: null, errorCode: null, stopped: false, itemIndex: 10 },
        ]);
        expect((await store.listChildren(a, 'each', [3], 1)).map((each) => each.id)).to.deep.equal([c]);
        expect(await store.listChildren(a, 'each', ['3@2'], 1)).to.deep.equal([]);
        expect(await store.listChildren(b, 'each', [], 1)).to.deep.equal([]);
      });

      it('of one attempt of a loop are not those of another', async () => {
        await store.createExecution(newExecution({ id: a }));
        const place = { executionId: a, node: 'poll/each', iterations: [0, 3], attempt: 1, itemIndex: 0 };
        await store.createExecution(child(b, a, { parent: place }));
        const again = { ...place, loops: [0, '3@2'] };
        await store.createExecution(child(c, a, { parent: again }));
        expect((await store.listChildren(a, 'poll/each', [0, 3], 1)).map((each) => each.id)).to.deep.equal([b]);
        expect((await store.listChildren(a, 'poll/each', [0, '3@2'], 1)).map((each) => each.id)).to.deep.equal([c]);
        expect((await store.load(c))?.header.parent).to.deep.equal(again);
      });

      it('of a sub-workflow have no item', async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.createExecution(child(b, a, { parent: { executionId: a, node: 'sub', attempt: 1 } }));
        expect((await store.listChildren(a, 'sub', [], 1))[0]).to.deep.include({ id: b, itemIndex: null });
        expect((await store.load(b))?.header.parent).to.deep.equal({ executionId: a, node: 'sub', attempt: 1 });
      });

      it('give outputs in the order asked', async () => {
        for (const each of [a, b, c]) await store.createExecution(newExecution({ id: each }));
        await store.commit(finalCommit(a, { header: { status: 'Complete', endedAtMs: T0, outputs: 'of a' } }));
        await store.commit(finalCommit(b, { header: { status: 'Complete', endedAtMs: T0, outputs: 'of b' } }));
        await store.commit(commit(c, { header: { outputs: 'not yet' } }));
        expect(await store.readOutputs([b, d, a, c])).to.deep.equal(['of b', null, 'of a', null]);
      });
    });

    describe('events', () => {
      beforeEach(async () => {
        await store.createExecution(newExecution({ id: a }));
        await store.commit(commit(a, { events: [event(2), event(3), event(4)] }));
        await store.commit(
          commit(a, { events: [event(5, 'node.started', { node: 'n', iterations: [1], attempt: 2 })] }),
        );
        await store.commit(commit(a, { events: [event(6), event(7)] }));
      });

      const seqs = async (from: number, limit: number): Promise<number[]> => {
        return (await store.readEvents(a, from, limit)).items.map((item) => item.seq);
      };

      it('are read from any number on, in pages', async () => {
        expect(await seqs(1, 100)).to.deep.equal([1, 2, 3, 4, 5, 6, 7]);
        expect(await seqs(3, 3)).to.deep.equal([3, 4, 5]);
        expect(await seqs(7, 1)).to.deep.equal([7]);
        expect(await seqs(8, 10)).to.deep.equal([]);
        expect((await store.readEvents(a, 5, 1)).items[0]).to.deep.equal(
          event(5, 'node.started', { node: 'n', iterations: [1], attempt: 2 }),
        );
        expect(await store.readEvents(b, 1, 10)).to.deep.equal({ items: [], firstSeq: 1 });
      });

      it('lose the oldest when trimmed, exactly', async () => {
        await store.trimEvents(a, 100);
        expect(await store.readEvents(a, 1, 1)).to.deep.include({ firstSeq: 1 });
        for (const [keep, first] of [
          [5, 3],
          [4, 4],
          [1, 7],
          [3, 7],
        ] as const) {
          await store.trimEvents(a, keep);
          const { items, firstSeq } = await store.readEvents(a, 1, 100);
          expect(firstSeq).to.equal(first);
          expect(items.map((item) => item.seq)[0]).to.equal(first);
          expect(items.at(-1)?.seq).to.equal(7);
        }
      });

      it('go on after a trim', async () => {
        await store.trimEvents(a, 2);
        await store.commit(commit(a, { events: [event(8)] }));
        expect(await seqs(1, 100)).to.deep.equal([6, 7, 8]);
        expect(await seqs(7, 1)).to.deep.equal([7]);
      });

      it('are not trimmed for an execution that is missing', async () => {
        await store.trimEvents(b, 1);
        expect(await seqs(1, 100)).to.have.length(7);
      });
    });

    describe('listExecutions', () => {
      /** a to f, a minute apart, so that e is newer than d. */
      beforeEach(async () => {
        const at = (minute: number): { createdAtMs: number } => ({ createdAtMs: T0 + minute * 60_000 });
        const web = { workflow: { name: 'web-check', hash: 'def', version: 2 } };
        await store.createExecution(newExecution({ id: a, ...at(0), labels: { team: 'red', tier: '1' } }));
        await store.createExecution(newExecution({ id: b, ...at(1), ...web, labels: { team: 'blue' } }));
        await store.createExecution(newExecution({ id: c, ...at(2), project: 'other' }));
        await store.createExecution(newExecution({ id: d, ...at(3), ...web, status: 'Pending' }));
        await store.createExecution(newExecution({ id: id('e'), ...at(4) }));
        await store.createExecution(child(id('f'), a, { ...at(5), labels: { team: 'red' } }));
        await store.commit(
          finalCommit(a, {
            header: {
              status: 'Failed',
              error: 'Connection refused by 100% of hosts',
              errorCode: 'FS_FAILED',
              endedAtMs: T0,
            },
          }),
        );
        await store.commit(finalCommit(b));
        await store.requestStop(id('e'), intent);
      });

      it('gives executions without parent, newest first', async () => {
        expect(await listed({})).to.deep.equal(['e', 'd', 'c', 'b', 'a']);
        expect(await listed({ withChildren: true })).to.deep.equal(['f', 'e', 'd', 'c', 'b', 'a']);
      });

      it('gives headers without input, outputs and machine', async () => {
        const { items } = await store.listExecutions({
          project: null,
          limit: 1,
          workflow: 'web-check',
          status: 'Complete',
        });
        const stored = await store.getHeader(b);
        expect(items).to.deep.equal([{ ...stored, input: null, outputs: null, machine: null }]);
      });

      const filters: [name: string, query: Partial<ExecutionQuery>, found: string[]][] = [
        ['project', { project: 'other' }, ['c']],
        ['ids', { ids: [b, d, 'nope'] }, ['d', 'b']],
        ['no ids', { ids: [] }, []],
        ['status Running', { status: 'Running' }, ['e', 'c']],
        ['status Pending', { status: 'Pending' }, ['d']],
        ['status Complete', { status: 'Complete' }, ['b']],
        ['status Failed', { status: 'Failed' }, ['a']],
        ['live', { live: true }, ['e', 'd', 'c']],
        ['live with children', { live: true, withChildren: true }, ['f', 'e', 'd', 'c']],
        ['not live', { live: false }, ['b', 'a']],
        ['workflow', { workflow: 'web-check' }, ['d', 'b']],
        ['label with value', { label: 'team=red' }, ['a']],
        ['label', { label: 'team' }, ['b', 'a']],
        ['label of nobody', { label: 'tea' }, []],
        ['label with the value of another', { label: 'tier=red' }, []],
        ['text that begins an id', { text: d.toUpperCase() }, ['d']],
        ['text that begins every id', { text: '01990000' }, ['e', 'd', 'c', 'b', 'a']],
        ['text inside an id', { text: '7000-8000' }, []],
        ['words of the workflow', { text: 'Scan perimeter' }, ['e', 'c', 'a']],
        ['words of the error', { text: 'refused connection' }, ['a']],
        ['a word of each', { text: 'perimeter refused' }, ['a']],
        ['a word too many', { text: 'refused nowhere' }, []],
        ['a wildcard of SQL as text', { text: '100%' }, ['a']],
        ['another wildcard of SQL as text', { text: 'web_check' }, []],
        ['blank text', { text: ' ' }, ['e', 'd', 'c', 'b', 'a']],
        ['stopped by user', { stoppedByUser: true }, ['e']],
        ['not stopped by user', { stoppedByUser: false }, ['d', 'c', 'b', 'a']],
        ['created from', { createdFromMs: T0 + 3 * 60_000 }, ['e', 'd']],
        ['created to', { createdToMs: T0 + 60_000 }, ['b', 'a']],
        ['created between', { createdFromMs: T0 + 60_000, createdToMs: T0 + 2 * 60_000 }, ['c', 'b']],
        ['parent', { parent: a }, ['f']],
        ['parent and label', { parent: a, label: 'team=blue' }, []],
        [
          'all at once',
          { workflow: 'web-check', status: 'Complete', label: 'team=blue', text: 'web', project: 'default' },
          ['b'],
        ],
      ];
      for (const [what, query, found] of filters) {
        it(`filters by ${what}, and counts the same`, async () => {
          expect(await listed(query)).to.deep.equal(found);
          expect(await store.countExecutions({ project: null, ...query })).to.equal(found.length);
        });
      }

      it('pages without loss or repeat while executions are created', async () => {
        const seen: string[] = [];
        let cursor: string | undefined;
        for (let page = 0; page < 10; page += 1) {
          const query = { project: null, limit: 2, ...(cursor === undefined ? {} : { cursor }) };
          const { items, nextCursor } = await store.listExecutions(query);
          seen.push(...items.map((item) => item.id.slice(-1)));
          await store.createExecution(newExecution({ id: id(String(page)), createdAtMs: T0 + 10 * 60_000 + page }));
          if (nextCursor === null) break;
          cursor = nextCursor;
        }
        expect(seen).to.deep.equal(['e', 'd', 'c', 'b', 'a']);
      });

      it('pages through executions of one millisecond', async () => {
        for (const each of '0123456') await store.createExecution(newExecution({ id: id(each), project: 'same' }));
        const first = await store.listExecutions({ project: 'same', limit: 3 });
        const second = await store.listExecutions({ project: 'same', limit: 3, cursor: first.nextCursor ?? '' });
        const third = await store.listExecutions({ project: 'same', limit: 3, cursor: second.nextCursor ?? '' });
        const all = [...first.items, ...second.items, ...third.items].map((item) => item.id.slice(-1));
        expect(all).to.deep.equal(['6', '5', '4', '3', '2', '1', '0']);
        expect(third.nextCursor).to.equal(null);
      });

      it('refuses a cursor that is none', async () => {
        const error = await rejection(store.listExecutions({ project: null, limit: 1, cursor: 'x' }));
        expect(hasCode(error, 'FS_INVALID')).to.equal(true);
      });
    });

    describe('deletion', () => {
      beforeEach(async () => {
        await store.createExecution(newExecution({ id: a }, { uniqueKey: 'k', bodyHash: 'x' }));
        await store.createExecution(child(b, a));
        await store.createExecution(child(c, b));
        await store.createExecution(newExecution({ id: d }));
        await store.commit(commit(a, { nodes: [node('scan/-')], results: [result(a, 'scan/-', 1)] }));
        await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: 1, atMs: T0 });
        await store.requestStop(a, intent);
      });

      const end = (executionId: string, endedAtMs = T0): Promise<unknown> => {
        return store.commit(
          finalCommit(executionId, {
            requestId: executionId === d ? null : 'stop-1',
            header: { status: 'Failed', endedAtMs },
            receipt: receipt(executionId),
          }),
        );
      };

      it('refuses what is missing, live, or has a live descendant', async () => {
        expect(await store.deleteExecution(id('e'))).to.equal('missing');
        expect(await store.deleteExecution(a)).to.equal('live');
        await end(a);
        await end(b);
        expect(await store.deleteExecution(a)).to.equal('live');
        expect((await store.load(a))?.nodes).to.have.length(1);
      });

      it('takes the execution, its descendants and all of theirs; the audit log stays', async () => {
        await store.appendAudit(audit('1', { target: a }));
        for (const each of [a, b, c]) await end(each);
        expect(await store.deleteExecution(a)).to.equal('deleted');
        for (const each of [a, b, c]) {
          expect(await everything(each)).to.deep.equal({
            load: null,
            events: { items: [], firstSeq: 1 },
            results: [],
            receipt: null,
          });
        }
        expect(await store.deleteExecution(a)).to.equal('missing');
        expect((await store.load(d))?.header.id).to.equal(d);
        expect((await store.listAudit(null, undefined, 10)).items).to.have.length(1);
      });

      it('frees the id and the unique key, and leaves nothing to the next', async () => {
        for (const each of [c, b, a]) await end(each);
        await store.deleteExecution(a);
        const again = newExecution({ id: a }, { uniqueKey: 'k', bodyHash: 'y' });
        expect(await store.createExecution(again)).to.deep.equal({ kind: 'created' });
        expect(await store.load(a)).to.deep.equal({ header: again.header, nodes: [], triggers: [] });
        expect((await store.readEvents(a, 1, 10)).items).to.have.length(1);
      });

      it('takes a child alone', async () => {
        await end(b);
        await end(c);
        expect(await store.deleteExecution(b)).to.equal('deleted');
        expect(await store.load(c)).to.equal(null);
        expect((await store.load(a))?.header.id).to.equal(a);
      });

      it('by age takes ended roots in small batches, oldest first, with their descendants', async () => {
        for (const each of [c, b]) await end(each, T0 + 10);
        await end(a, T0 + 20);
        await end(d, T0 + 30);
        await store.createExecution(newExecution({ id: id('e') }));
        expect(await store.deleteEndedBefore(T0 + 20, 10)).to.equal(0);
        expect(await listed({ withChildren: true })).to.have.members(['a', 'b', 'c', 'd', 'e']);
        expect(await store.deleteEndedBefore(T0 + 100, 1)).to.equal(1);
        expect(await listed({ withChildren: true })).to.have.members(['d', 'e']);
        expect(await store.deleteEndedBefore(T0 + 100, 10)).to.equal(1);
        expect(await store.deleteEndedBefore(T0 + 100, 10)).to.equal(0);
        expect(await listed({ withChildren: true })).to.deep.equal(['e']);
      });

      it('by age passes over a root whose child is live, never to stand still at it', async () => {
        await end(a, T0);
        await end(d, T0 + 30);
        expect(await store.deleteEndedBefore(T0 + 100, 1)).to.equal(1);
        expect(await listed({ withChildren: true })).to.have.members(['a', 'b', 'c']);
      });
    });

    describe('definitions', () => {
      const save = (hash: string, savedAtMs: number, more: object = {}) => {
        return store.saveDefinition({ project: 'p', name: 'w', hash, source: { hash }, savedAtMs, ...more });
      };

      it('numbers the hashes of a name', async () => {
        const row = {
          project: 'p',
          name: 'w',
          hash: 'h1',
          source: { hash: 'h1' },
          savedAtMs: T0,
          version: 1,
          disabled: false,
        };
        expect(await save('h1', T0)).to.deep.equal({ row, created: true });
        expect((await save('h2', T0)).row.version).to.equal(2);
        expect((await save('h1', T0, { name: 'other' })).row.version).to.equal(1);
        expect(await store.getDefinition('p', 'w', 'h1')).to.deep.equal(row);
        expect((await store.getDefinition('p', 'w'))?.hash).to.equal('h2');
        expect(await store.getDefinition('p', 'w', 'h3')).to.equal(null);
        expect(await store.getDefinition('q', 'w')).to.equal(null);
      });

      it('makes a known hash the last again, under its number', async () => {
        await save('h1', T0);
        await save('h2', T0);
        const again = await save('h1', T0 + 5);
        expect(again).to.deep.include({ created: false });
        expect(again.row).to.deep.include({ version: 1, savedAtMs: T0 + 5 });
        expect((await store.getDefinition('p', 'w'))?.hash).to.equal('h1');
        expect((await store.listVersions('p', 'w')).map((row) => row.hash)).to.deep.equal(['h1', 'h2']);
        expect((await save('h3', T0)).row.version).to.equal(3);
      });

      it('lists the last of each name, by project and name', async () => {
        await save('h1', T0, { project: 'q', name: 'a' });
        await save('h1', T0, { name: 'z' });
        await save('h1', T0);
        await save('h2', T0);
        const names = async (project: string | null): Promise<string[]> => {
          return (await store.listDefinitions(project)).map((row) => `${row.project}/${row.name}@${row.hash}`);
        };
        expect(await names(null)).to.deep.equal(['p/w@h2', 'p/z@h1', 'q/a@h1']);
        expect(await names('p')).to.deep.equal(['p/w@h2', 'p/z@h1']);
        expect(await store.listVersions('p', 'none')).to.deep.equal([]);
      });

      it('disables a name with all its versions, later ones too', async () => {
        expect(await store.setDisabled('p', 'w', true)).to.equal(false);
        await save('h1', T0);
        expect(await store.setDisabled('p', 'w', true)).to.equal(true);
        expect((await save('h2', T0)).row.disabled).to.equal(true);
        expect((await store.getDefinition('p', 'w', 'h1'))?.disabled).to.equal(true);
        await store.setDisabled('p', 'w', false);
        expect((await store.listDefinitions('p'))[0]?.disabled).to.equal(false);
      });
    });

    describe('the audit log', () => {
      it('is listed newest first, by project, in pages', async () => {
        for (const each of ['1', '2', '3', '4']) {
          await store.appendAudit(audit(each, { project: each === '2' ? 'other' : 'default' }));
        }
        await store.appendAudit(audit('5', { project: null, actor: null, data: { why: ['x'] } }));
        const first = await store.listAudit(null, undefined, 3);
        expect(first.items.map((entry) => entry.id)).to.deep.equal(['5', '4', '3']);
        expect(first.items[0]).to.deep.equal(audit('5', { project: null, actor: null, data: { why: ['x'] } }));
        await store.appendAudit(audit('6'));
        const second = await store.listAudit(null, first.nextCursor ?? '', 3);
        expect(second.items.map((entry) => entry.id)).to.deep.equal(['2', '1']);
        expect(second.nextCursor).to.equal(null);
        const own = await store.listAudit('default', undefined, 10);
        expect(own.items.map((entry) => entry.id)).to.deep.equal(['6', '4', '3', '1']);
      });

      it('gets its outcome later, and keeps a repeated entry once', async () => {
        await store.appendAudit(audit('1'));
        await store.completeAudit('1', 'stop requested');
        await store.appendAudit(audit('1'));
        await store.completeAudit('9', 'nothing');
        const { items } = await store.listAudit(null, undefined, 10);
        expect(items).to.deep.equal([audit('1', { outcome: 'stop requested' })]);
      });

      it('refuses a cursor that is none', async () => {
        expect(hasCode(await rejection(store.listAudit(null, 'x', 1)), 'FS_INVALID')).to.equal(true);
      });
    });

    describe('keys', () => {
      const key = (keyId: string, given: Partial<KeyRow> = {}): KeyRow => {
        const project = given.project === undefined ? 'default' : given.project;
        return {
          id: keyId,
          hash: `hash-${keyId}`,
          name: 'n',
          role: 'admin',
          capabilities: null,
          pool: null,
          createdAtMs: T0,
          ...given,
          project,
        };
      };

      it('are found by hash and listed by project', async () => {
        const worker = key('1', { role: 'worker', capabilities: ['ai', 'http'] });
        await store.createKey(worker);
        await store.createKey(key('2', { project: null }));
        await store.createKey(key('3', { project: 'other', role: 'agent', pool: 'p' }));
        expect(await store.findKey('hash-1')).to.deep.equal(worker);
        expect(await store.findKey('hash-9')).to.equal(null);
        expect((await store.listKeys(null)).map((row) => row.id)).to.deep.equal(['1', '2', '3']);
        expect(await store.listKeys('default')).to.deep.equal([worker]);
      });

      it('can be created again without harm', async () => {
        await store.createKey(key('1'));
        await store.createKey(key('1'));
        expect(await store.listKeys(null)).to.have.length(1);
      });

      it('are deleted by those who may see them', async () => {
        await store.createKey(key('1'));
        await store.createKey(key('2', { project: null }));
        expect(await store.deleteKey('1', 'other')).to.equal(false);
        expect(await store.deleteKey('2', 'default')).to.equal(false);
        expect(await store.deleteKey('1', 'default')).to.equal(true);
        expect(await store.deleteKey('1', 'default')).to.equal(false);
        expect(await store.deleteKey('2', null)).to.equal(true);
        expect(await store.findKey('hash-1')).to.equal(null);
      });
    });

    it('keeps settings by name', async () => {
      expect(await store.getSetting('admission')).to.equal(null);
      await store.putSetting('admission', { paused: true });
      await store.putSetting('admission', { paused: false });
      expect(await store.getSetting('admission')).to.deep.equal({ paused: false });
    });

    it('has no trouble when all is well', () => {
      expect(store.trouble()).to.equal(null);
    });

    it('keeps everything over a restart', async function () {
      if (opened.reopen === undefined) return this.skip();
      await store.createExecution(newExecution({ id: a, labels: { x: 'y' } }));
      await store.commit(
        commit(a, {
          header: { machine: { value: 'running' } },
          nodes: [node('scan/-')],
          events: [event(2), event(3)],
          results: [result(a, 'scan/-', { ok: 1 })],
        }),
      );
      await store.putTrigger({ id: 't', executionId: a, name: 'go', payload: 1, atMs: T0 });
      await store.requestStop(a, intent);
      await store.createExecution(newExecution({ id: b }));
      await store.requestStop(b, intent);
      await store.commit(finalCommit(b, { requestId: 'stop-1', receipt: receipt(b) }));
      await store.saveDefinition({ project: 'p', name: 'w', hash: 'h', source: { a: 1 }, savedAtMs: T0 });
      await store.appendAudit(audit('1'));
      await store.putSetting('s', 1);
      const read = async (): Promise<unknown> => [
        await everything(a),
        await everything(b),
        await store.listIntents(10),
        await store.getDefinition('p', 'w'),
        await store.listAudit(null, undefined, 10),
        await store.getSetting('s'),
        await listed({}),
      ];
      const before = await read();
      store = await opened.reopen();
      expect(await read()).to.deep.equal(before);
      expect(await store.createExecution(newExecution({ id: c }))).to.deep.equal({ kind: 'created' });
    });
  });
}

/** The error of a promise that rejects. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('expected a rejection');
}
