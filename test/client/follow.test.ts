import { expect } from 'chai';
import { Connection } from '../../src/client/connection.ts';
import { type EventsOptions, type FollowTimes, followEvents, followReceipt } from '../../src/client/follow.ts';
import { connect, type ExecutionEvent, type StopReceipt } from '../../src/client/index.ts';
import { Rooms } from '../../src/client/rooms.ts';
import { FullstopError } from '../../src/errors.ts';
import {
  event,
  finalReceipt,
  history,
  ID,
  receipt,
  record,
  ScriptedExecution,
  ScriptedServer,
  stopped,
  until,
} from './scripted-server.ts';

const times: FollowTimes = { quietMs: 5_000, retryMs: 10, bufferMax: 1_000 };

describe('events of an execution', () => {
  let execution: ScriptedExecution;
  let server: ScriptedServer;
  let connection: Connection;
  let rooms: Rooms;

  beforeEach(async () => {
    execution = new ScriptedExecution();
    server = await new ScriptedServer(execution.handlers).listen();
    connection = new Connection({ url: server.url, timeoutMs: 1_000 });
    rooms = new Rooms(connection);
  });

  afterEach(async () => {
    connection.close();
    await server.close();
  });

  const follow = (
    options: EventsOptions = {},
    over: Partial<FollowTimes> = {},
  ): AsyncGenerator<ExecutionEvent, void, undefined> =>
    followEvents(connection, rooms, ID, options, { ...times, ...over });

  /** Reads to the end; `seen` grows meanwhile. */
  function collect(events: AsyncIterable<ExecutionEvent>): { seen: number[]; done: Promise<number[]> } {
    const seen: number[] = [];
    const done = (async () => {
      for await (const { seq } of events) seen.push(seq);
      return seen;
    })();
    return { seen, done };
  }

  const upTo = (count: number, from = 1): number[] =>
    Array.from({ length: count - from + 1 }, (_, index) => from + index);
  const subscribed = (): Promise<void> => until(() => execution.subscribers.size > 0, 'the subscription arrives');

  it('come from the store in pages and end after the terminal one', async () => {
    execution.append(...history(250));
    expect(await collect(follow()).done).to.deep.equal(upTo(250));
    expect(server.payloads('execution.events')).to.deep.equal([
      { id: ID },
      { id: ID, from: 101 },
      { id: ID, from: 201 },
    ]);
    expect(server.payloads('execution.subscribe')).to.deep.equal([]);
  });

  it('come as they happen once the stored ones are read', async () => {
    const all = history(6);
    execution.append(...all.slice(0, 3));
    const { done } = collect(follow());
    await subscribed();
    execution.append(...all.slice(3));
    expect(await done).to.deep.equal(upTo(6));
    expect(server.payloads('execution.subscribe')).to.deep.equal([{ id: ID, from: 4 }]);
    await until(() => server.payloads('execution.unsubscribe').length === 1, 'the room is left');
  });

  it('resume by number after the connection broke in the middle', async () => {
    const all = history(9);
    execution.append(...all.slice(0, 2));
    const { seen, done } = collect(follow());
    await subscribed();
    execution.append(...all.slice(2, 5));
    await until(() => seen.length === 5, 'five were read');
    server.breakConnections();
    await until(() => execution.subscribers.size === 0, 'the server notices');
    execution.append(...all.slice(5, 7));
    await subscribed();
    execution.append(...all.slice(7));
    expect(await done).to.deep.equal(upTo(9));
    expect(server.payloads('execution.subscribe')).to.deep.equal([
      { id: ID, from: 3 },
      { id: ID, from: 8 },
    ]);
  });

  it('come once when pushes are doubled', async () => {
    const { push } = execution;
    execution.push = (socket, pushed) => {
      push(socket, pushed);
      push(socket, pushed);
    };
    const { done } = collect(follow());
    await subscribed();
    execution.append(...history(5));
    expect(await done).to.deep.equal(upTo(5));
  });

  it('are read from the store and subscribed to again where a push was lost', async () => {
    const { push } = execution;
    execution.push = (socket, pushed) => {
      if (pushed.seq !== 3) push(socket, pushed);
    };
    const { seen, done } = collect(follow());
    await subscribed();
    execution.append(...history(9).slice(0, 5));
    await until(() => seen.length === 5 && server.payloads('execution.subscribe').length === 2, 'the gap is closed');
    execution.append(...history(9).slice(5));
    expect(await done).to.deep.equal(upTo(9));
    expect(server.payloads('execution.subscribe')).to.deep.equal([
      { id: ID, from: 1 },
      { id: ID, from: 6 },
    ]);
  });

  it('are asked for when it is quiet, so that a lost last push is found', async () => {
    const { push } = execution;
    execution.push = (socket, pushed) => {
      if (pushed.type === 'log') push(socket, pushed);
    };
    const { done } = collect(follow({}, { quietMs: 50 }));
    await subscribed();
    execution.append(...history(4));
    expect(await done).to.deep.equal(upTo(4));
  });

  it('leave the room when the reader is slow, and come from the store after that', async () => {
    const events = follow({}, { bufferMax: 10 });
    const first = events.next();
    await subscribed();
    const all = history(500);
    execution.append(...all.slice(0, 400));
    expect((await first).value?.seq).to.equal(1);
    await until(() => server.payloads('execution.unsubscribe').length === 1, 'the room is left');
    expect(execution.subscribers.size).to.equal(0);
    execution.append(...all.slice(400));
    expect(await collect(events).done).to.deep.equal(upTo(500, 2));
    expect(server.payloads('execution.events')).to.deep.include({ id: ID, from: 11 });
  });

  it('begin with the first one kept when none is demanded', async () => {
    execution.append(...history(20));
    execution.events.splice(0, 10);
    expect(await collect(follow()).done).to.deep.equal(upTo(20, 11));
  });

  it('reject with FS_GONE when the demanded ones are not kept', async () => {
    execution.handlers['execution.events'] = () => {
      throw new FullstopError('FS_GONE', 'gone', { details: { firstSeq: 11 } });
    };
    const failed = await follow({ from: 3 })
      .next()
      .catch((error: unknown) => error);
    expect(failed).to.include({ code: 'FS_GONE' });
    expect((failed as FullstopError).details).to.deep.equal({ firstSeq: 11 });
  });

  it('end at once after the last one of an ended execution', async () => {
    execution.append(...history(5));
    expect(await collect(follow({ from: 6 })).done).to.deep.equal([]);
  });

  it('end with the reason of a signal, and leave the room', async () => {
    const controller = new AbortController();
    const next = follow({ signal: controller.signal })
      .next()
      .catch((error: unknown) => error);
    await subscribed();
    controller.abort(new Error('enough'));
    expect(await next).to.have.property('message', 'enough');
    await until(() => execution.subscribers.size === 0, 'the room is left');
  });

  it('wait out a server that is busy', async () => {
    execution.append(...history(3));
    const read = execution.handlers['execution.events'];
    let refusals = 3;
    execution.handlers['execution.events'] = (payload, socket) => {
      refusals -= 1;
      if (refusals >= 0) throw new FullstopError('FS_RATE', 'busy');
      return read?.(payload, socket);
    };
    expect(await collect(follow()).done).to.deep.equal(upTo(3));
  });

  it('serve two readers at different places, and the last one leaves the room', async () => {
    const all = history(8);
    execution.append(...all.slice(0, 4));
    const one = collect(follow());
    await subscribed();
    const two = follow({ from: 3 });
    expect((await two.next()).value?.seq).to.equal(3);
    await two.return();
    expect(server.payloads('execution.unsubscribe')).to.deep.equal([]);
    const three = collect(follow({ from: 5 }));
    await until(() => server.payloads('execution.subscribe').length === 2, 'both are in the room');
    execution.append(...all.slice(4));
    expect(await one.done).to.deep.equal(upTo(8));
    expect(await three.done).to.deep.equal(upTo(8, 5));
    await until(() => server.payloads('execution.unsubscribe').length === 1, 'the room is left once');
  });

  it('lose and double nothing while pushes are lost, doubled and swapped and connections break', async function () {
    this.timeout(20_000);
    const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
    console.log(`      SEED=${seed}`);
    let state = seed;
    const random = (): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
    const { push } = execution;
    let held: ExecutionEvent | null = null;
    execution.push = (socket, pushed) => {
      const dice = random();
      if (dice < 0.02) return;
      if (dice < 0.04) {
        held = pushed;
        return;
      }
      push(socket, pushed);
      if (dice < 0.06) push(socket, pushed);
      if (held !== null) push(socket, held);
      held = null;
    };
    const all = history(2_000);
    const { seen, done } = collect(follow({}, { quietMs: 50, bufferMax: 50 }));
    for (let at = 0; at < all.length; ) {
      const batch = 1 + Math.floor(random() * 60);
      execution.append(...all.slice(at, at + batch));
      at += batch;
      if (random() < 0.1) server.breakConnections();
      if (random() < 0.02) server.hangUp();
      await new Promise((resolve) => setTimeout(resolve, random() * 20));
    }
    await done;
    expect(seen).to.deep.equal(upTo(2_000));
  });

  describe('result', () => {
    const client = (): ReturnType<typeof connect> => connect({ url: server.url });

    it('is there at once for an ended execution', async () => {
      execution.record = record({ status: 'Complete', outputs: { n: 1 }, endedAt: record().createdAt });
      const one = client();
      expect(await one.executions.result(ID)).to.deep.equal({
        status: 'Complete',
        outputs: { n: 1 },
        error: null,
        errorCode: null,
        stoppedByUser: false,
      });
      expect(server.payloads('execution.subscribe')).to.deep.equal([]);
      one.close();
    });

    it('comes when the execution is stopped, and tells a stop from a failure', async () => {
      execution.append(event(1), event(2));
      const one = client();
      const result = one.executions.result(ID);
      await subscribed();
      expect(server.payloads('execution.events')).to.deep.equal([{ id: ID, from: 3 }]);
      execution.record = stopped();
      execution.append(event(3, 'execution.failed'));
      expect(await result).to.include({ status: 'Failed', error: 'workflow stopped by user', stoppedByUser: true });
      one.close();
    });
  });

  describe('the receipt of a stop', () => {
    let now: StopReceipt | null;

    beforeEach(() => {
      now = receipt();
      execution.handlers['execution.receipt'] = () => {
        if (now === null) throw new FullstopError('FS_NOT_FOUND', 'no stop');
        return now;
      };
    });

    const tell = (next: StopReceipt): void => {
      now = next;
      server.emit('stop.receipt', next);
    };

    it('comes at each change until every task has confirmed', async () => {
      const receipts = followReceipt(connection, rooms, ID, {}, times);
      expect((await receipts.next()).value?.haltedMs).to.equal(null);
      tell(receipt({ haltedMs: 2 }));
      expect((await receipts.next()).value?.haltedMs).to.equal(2);
      const next = receipts.next();
      await until(() => execution.subscribers.size > 0, 'the room is entered');
      server.emit('stop.receipt', finalReceipt({ executionId: 'another', unconfirmed: 7 }));
      await connection.call('execution.get', { id: ID });
      tell(finalReceipt({ unconfirmed: 1 }));
      expect((await next).value).to.include({ executionId: ID, unconfirmed: 1 });
      tell(finalReceipt());
      expect((await receipts.next()).value?.unconfirmed).to.equal(0);
      expect((await receipts.next()).done).to.equal(true);
    });

    it('is read again after a reconnect', async () => {
      const receipts = followReceipt(connection, rooms, ID, {}, times);
      await receipts.next();
      const next = receipts.next();
      await subscribed();
      now = finalReceipt();
      server.breakConnections();
      expect((await next).value?.finalisedMs).to.equal(3);
    });

    it('is waited for when nobody has asked for a stop yet', async () => {
      now = null;
      const next = followReceipt(connection, rooms, ID, {}, times).next();
      await subscribed();
      tell(finalReceipt());
      expect((await next).value?.finalisedMs).to.equal(3);
    });

    it('never comes for an execution that ended without a stop', async () => {
      now = null;
      execution.append(...history(2));
      expect((await followReceipt(connection, rooms, ID, {}, times).next()).done).to.equal(true);
    });
  });
});
