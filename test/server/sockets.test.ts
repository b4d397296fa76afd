import { expect } from 'chai';
import { itemOf } from '../../src/engine/views.ts';
import type { HeaderRow } from '../../src/ports/store.ts';
import type { ExecutionEvent } from '../../src/wire.ts';
import { ADMIN_KEY, ask, eventRow, openWorld, type World } from './support.ts';

describe('subscriptions', () => {
  let world: World;
  beforeEach(async () => {
    world = await openWorld();
  });
  afterEach(() => world.close());

  const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, at) => from + at);
  const produce = (id: string, from: number, to: number) =>
    world.engine.produce(
      id,
      range(from, to).map((seq) => eventRow(seq)),
    );

  async function follow(id: string, from: number) {
    const socket = await world.connect(ADMIN_KEY);
    const heard: number[] = [];
    let wake = (): void => {};
    socket.on('execution.event', ({ executionId, event }: { executionId: string; event: ExecutionEvent }) => {
      if (executionId === id) heard.push(event.seq);
      wake();
    });
    const answer = await ask(socket, 'execution.subscribe', { id, from });
    const until = (seq: number): Promise<void> =>
      new Promise((resolve) => {
        wake = () => {
          if ((heard.at(-1) ?? 0) >= seq) resolve();
        };
        wake();
      });
    return { socket, heard, answer, until };
  }

  it('replay from a number and go live, without gap or duplicate, while events are produced', async () => {
    const id = await world.running('default');
    await produce(id, 2, 1_700);
    let seq = 1_700;
    let producing = true;
    const producer = (async () => {
      while (producing) {
        await produce(id, seq + 1, seq + 3);
        seq += 3;
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const followers = await Promise.all([1, 1, 500, 1_700].map((from) => follow(id, from)));
    await new Promise((resolve) => setTimeout(resolve, 100));
    producing = false;
    await producer;
    await Promise.all(followers.map((follower) => follower.until(seq)));
    expect(seq).to.be.greaterThan(1_800);
    for (const [at, from] of [1, 1, 500, 1_700].entries()) expect(followers[at]?.heard).to.deep.equal(range(from, seq));
  });

  it('go back for what was announced while the store was read', async () => {
    const id = await world.running('default');
    const { readEvents } = world.store;
    let reads = 0;
    world.store.readEvents = async (...args) => {
      const page = await readEvents.apply(world.store, args);
      reads += 1;
      // The first read only looks whether `from` is kept; the second is the replay.
      if (reads === 2) await produce(id, 2, 3);
      return page;
    };
    const follower = await follow(id, 1);
    await follower.until(3);
    expect(follower.heard).to.deep.equal([1, 2, 3]);
  });

  it('leave nobody in a room who hung up before the answer', async () => {
    const id = await world.running('default');
    const socket = await world.connect(ADMIN_KEY);
    const { getHeader } = world.store;
    let answered = (): void => {};
    const done = new Promise<void>((resolve) => {
      answered = resolve;
    });
    world.store.getHeader = async (...args) => {
      const header = await getHeader.apply(world.store, args);
      socket.disconnect();
      while (world.bus.waiting().length > 0) await new Promise((resolve) => setImmediate(resolve));
      setTimeout(answered, 20);
      return header;
    };
    socket.emit('execution.subscribe', { id });
    await done;
    expect(world.bus.follows()).to.deep.equal([]);
  });

  it('find in the store what an announcement was lost of, and drop what came twice', async () => {
    const id = await world.running('default');
    const follower = await follow(id, 1);
    await produce(id, 2, 2);
    await follower.until(2);
    const listeners = world.bus.hasListeners.bind(world.bus);
    world.bus.hasListeners = () => false;
    await produce(id, 3, 5);
    world.bus.hasListeners = listeners;
    await produce(id, 6, 6);
    await follower.until(6);
    world.bus.event(id, { seq: 6, at: '', type: 'log' });
    world.bus.event(id, { seq: 3, at: '', type: 'log' });
    await produce(id, 7, 7);
    await follower.until(7);
    expect(follower.heard).to.deep.equal(range(1, 7));
  });

  it('do not grow for a client that does not read: it goes on from the store when it does', async () => {
    const id = await world.running('default');
    const follower = await follow(id, 1);
    const raw = (
      follower.socket.io.engine.transport as unknown as { ws: { _socket: { pause(): void; resume(): void } } }
    ).ws._socket;
    raw.pause();
    const data = 'x'.repeat(2_000);
    for (let seq = 2; seq <= 20_000; seq += 500) {
      await world.engine.produce(
        id,
        range(seq, Math.min(20_000, seq + 499)).map((at) => ({ ...eventRow(at), data })),
      );
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(Math.max(...world.bus.waiting())).to.be.lessThan(2_000);
    raw.resume();
    await follower.until(20_000);
    expect(follower.heard).to.deep.equal(range(1, 20_000));
  }).timeout(20_000);

  it('refuse a start that is not kept, with the first that is', async () => {
    const id = await world.running('default');
    await produce(id, 2, 10);
    await world.store.trimEvents(id, 3);
    const { answer } = await follow(id, 1);
    expect(answer).to.have.nested.property('error.code', 'FS_GONE');
    expect(answer).to.have.nested.property('error.details.firstSeq', 8);
  });

  it('end, and nobody is told of anything more', async () => {
    const id = await world.running('default');
    const { socket, heard, until } = await follow(id, 1);
    await until(1);
    expect(world.bus.hasListeners(id)).to.equal(true);
    await ask(socket, 'execution.unsubscribe', { id });
    expect(world.bus.hasListeners(id)).to.equal(false);
    await produce(id, 2, 3);
    await ask(socket, 'health', {});
    expect(heard).to.deep.equal([1]);
  });

  it('bring STOP and the receipt to the execution, and list items to its project alone', async () => {
    const id = await world.running('alpha');
    const { socket } = await follow(id, 1);
    const stranger = await world.connect(await world.key('viewer', 'beta'));
    const insider = await world.connect(await world.key('viewer', 'alpha'));
    await ask(stranger, 'executions.subscribe', {});
    await ask(stranger, 'executions.subscribe', { project: 'alpha' });
    await ask(insider, 'executions.subscribe', {});
    expect(world.bus.hasListListeners('alpha')).to.equal(true);
    expect(world.bus.hasListListeners('gamma')).to.equal(false);
    await ask(socket, 'executions.subscribe', {});
    expect(world.bus.hasListListeners('gamma')).to.equal(true);
    const heard: string[] = [];
    for (const [name, each] of Object.entries({ socket, stranger, insider })) {
      each.onAny((event) => heard.push(`${name} ${event}`));
    }
    const header = (await world.store.getHeader(id)) as HeaderRow;
    world.bus.stop({ executionId: id, requestId: 'r' });
    world.bus.receipt({ executionId: id } as never);
    world.bus.changed(itemOf(header));
    await Promise.all([socket, stranger, insider].map((each) => ask(each, 'health', {})));
    expect(heard).to.have.members([
      'socket STOP',
      'socket stop.receipt',
      'socket execution.changed',
      'insider execution.changed',
    ]);
  });

  it('call every handler of a STOP, listeners or not, and survive one that throws', () => {
    const heard: string[] = [];
    world.bus.onStop(() => {
      throw new Error('handler');
    });
    world.bus.onStop(({ executionId }) => heard.push(executionId));
    world.bus.stop({ executionId: 'e', requestId: 'r' });
    expect([heard, world.bus.counters().failed]).to.deep.equal([['e'], 1]);
  });
});
