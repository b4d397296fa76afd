import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type Client, connect, type ExecutionEvent, STOPPED_MESSAGE } from '../../src/client/index.ts';
import { Endpoint } from '../support/endpoint.ts';
import { freePort, ServerProcess, until } from '../support/server-process.ts';

/** Five iterations a second or so, for as long as it takes. */
const busy = {
  name: 'busy',
  nodes: {
    poll: {
      type: 'while',
      condition: 'true',
      maxIterations: 1_000_000,
      delay: '20ms',
      body: { step: { type: 'set', with: { value: '${{ iter.index }}' } } },
    },
  },
};

const holding = { name: 'held', nodes: { hold: { type: 'hold', trigger: 'go' } } };

/** Reads in the background; what was read so far can be looked at. */
function reading(client: Client, id: string, from?: number): { events: ExecutionEvent[]; done: Promise<void> } {
  const events: ExecutionEvent[] = [];
  const read = async (): Promise<void> => {
    for await (const event of client.executions.events(id, from === undefined ? {} : { from })) events.push(event);
  };
  return { events, done: read() };
}

describe('clients of a server that goes and comes', function () {
  this.timeout(120_000);
  let endpoint: Endpoint;
  let server: ServerProcess;
  let client: Client;

  before(async () => {
    endpoint = await Endpoint.start();
    // The same port at every start, as in life: clients find the server again.
    const port = await freePort();
    server = await ServerProcess.start({ port, env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
  });

  after(async () => {
    await server.close();
    await endpoint.close();
  });

  beforeEach(async () => {
    client = connect({ url: server.url, key: server.key });
    await client.ready();
  });

  afterEach(() => client.close());

  const seqs = (events: { seq: number }[]): number[] => events.map(({ seq }) => seq);
  const counted = (length: number, from = 1): number[] => Array.from({ length }, (_, index) => from + index);
  const reached = (events: unknown[], count: number): Promise<number> =>
    until(
      'events',
      async () => events.length,
      (length) => length >= count,
    );

  for (const [how, end] of [
    ['kill -9', (): Promise<unknown> => server.kill()],
    ['SIGTERM', (): Promise<unknown> => server.signal('SIGTERM')],
  ] as const) {
    it(`events() loses and doubles nothing over ${how} and a restart, twice, and ends after the terminal event`, async () => {
      const id = await server.run(busy);
      const { events, done } = reading(client, id);
      for (let restart = 0; restart < 2; restart += 1) {
        await reached(events, events.length + 20);
        await end();
        const before = events.length;
        await server.start();
        await reached(events, before + 20);
      }
      await client.executions.stop(id);
      await done;
      expect(seqs(events)).to.deep.equal(counted(events.length));
      expect(events.at(-1)?.type).to.equal('execution.failed');
      expect(events).to.deep.equal(await server.events(id));
      expect(await client.executions.result(id)).to.include({
        status: 'Failed',
        error: STOPPED_MESSAGE,
        stoppedByUser: true,
      });
    });
  }

  it('result() waits over a restart', async () => {
    const id = await server.run({
      name: 'waits',
      nodes: { ask: { type: 'http', with: { url: `${endpoint.url}/park` } } },
    } as { name: string });
    const result = client.executions.result(id);
    await endpoint.calling(id);
    await server.restart();
    const [, call] = await endpoint.calling(id, ({ length }) => length === 2);
    call?.answer(200, { fine: true });
    const { status, outputs } = await result;
    expect(status).to.equal('Complete');
    expect((outputs as { ask: { body: unknown } }).ask.body).to.deep.equal({ fine: true });
  });

  it('result() outlives a server that dies before it answers', async () => {
    const id = await server.run(holding);
    const result = client.executions.result(id);
    await server.kill();
    await server.start();
    await server.ok('POST', `/api/executions/${id}/triggers/go`, { payload: 1 });
    expect(await result).to.deep.include({ status: 'Complete', outputs: { hold: 1 } });
  });

  it('events() of an ended execution is its whole story, again and again, and from the middle', async () => {
    const id = await server.run({ name: 'short', nodes: { one: { type: 'set', with: { value: 1 } } } } as {
      name: string;
    });
    await server.record(id);
    const all = await server.events(id);
    for (const from of [undefined, 1, 3, all.length]) {
      const { events, done } = reading(client, id, from);
      await done;
      expect(events).to.deep.equal(all.slice((from ?? 1) - 1));
    }
  });

  it('many readers of one execution each get all of it', async () => {
    const id = await server.run(busy);
    const readers = Array.from({ length: 10 }, () => reading(client, id));
    await reached(readers[0]?.events ?? [], 30);
    const late = reading(client, id);
    await reached(late.events, 30);
    await client.executions.stop(id);
    const all = await Promise.all([...readers, late].map(async ({ events, done }) => done.then(() => events)));
    for (const events of all) expect(events).to.deep.equal(await server.events(id));
  });

  it('receipts() follows a stop over a restart to its end', async () => {
    const id = await server.run({
      name: 'waits',
      nodes: { ask: { type: 'http', with: { url: `${endpoint.url}/park` } } },
    } as { name: string });
    await endpoint.calling(id);
    const receipts = (async () => {
      let last = null;
      for await (const receipt of client.receipts(id)) last = receipt;
      return last;
    })();
    await server.restart();
    await endpoint.calling(id, ({ length }) => length === 2);
    await until(
      'its connection',
      async () => client.connected,
      (connected) => connected,
    );
    const { requestId } = await client.executions.stop(id);
    const receipt = await receipts;
    expect(receipt).to.include({ executionId: id, requestId, unconfirmed: 0 });
    expect(receipt?.finalisedAt).to.be.a('string');
    expect(receipt?.tasks.map(({ outcome }) => outcome)).to.deep.equal(['aborted']);
  });

  it('a subscription goes on from the seq that is asked for, on another socket and another server', async () => {
    const id = await server.run(busy);
    const subscribe = async (from: number, count: number): Promise<ExecutionEvent[]> => {
      const socket = await server.socket();
      const events: ExecutionEvent[] = [];
      socket.on('execution.event', (message: { executionId: string; event: ExecutionEvent }) => {
        if (message.executionId === id) events.push(message.event);
      });
      const answer = await socket.timeout(10_000).emitWithAck('execution.subscribe', { id, from });
      expect(answer).to.deep.include({ ok: true });
      await reached(events, count);
      socket.disconnect();
      return events;
    };
    const first = await subscribe(1, 25);
    expect(seqs(first)).to.deep.equal(counted(first.length));
    await sleep(200);
    const second = await subscribe(first.length + 1, 25);
    expect(seqs(second)).to.deep.equal(counted(second.length, first.length + 1));
    await server.restart();
    const third = await subscribe(first.length + second.length + 1, 25);
    expect(seqs(third)).to.deep.equal(counted(third.length, first.length + second.length + 1));
    await server.ok('POST', `/api/executions/${id}/stop`);
    await server.record(id);
    const stored = await server.events(id);
    const heard = [...first, ...second, ...third];
    expect(heard).to.deep.equal(stored.slice(0, heard.length));
  });

  it('a list that is watched tells of changes after a restart too', async () => {
    const seen = new Map<string, string[]>();
    const stop = new AbortController();
    const watching = (async () => {
      for await (const { id, status } of client.executions.watch({ signal: stop.signal }))
        seen.set(id, [...(seen.get(id) ?? []), status]);
    })().catch((error: unknown) => error);
    const quick = { name: 'short', nodes: { one: { type: 'set', with: { value: 1 } } } } as { name: string };
    const told = (id: string): Promise<string | undefined> =>
      until(
        'its end in the list',
        async () => seen.get(id)?.at(-1),
        (status) => status === 'Complete',
      );
    const held = await server.run({ name: 'held', nodes: { hold: { type: 'hold', trigger: 'go' } } } as {
      name: string;
    });
    await until(
      'the held one',
      async () => seen.get(held)?.at(-1),
      (status) => status === 'Running',
    );
    await server.restart();
    await server.ok('POST', `/api/executions/${held}/triggers/go`, {});
    await told(held);
    await until(
      'its connection',
      async () => client.connected,
      (connected) => connected,
    );
    await told(await server.run(quick));
    stop.abort(new Error('enough'));
    expect(await watching)
      .to.be.an('error')
      .with.property('message', 'enough');
  });
});
