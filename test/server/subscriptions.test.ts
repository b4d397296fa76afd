import { expect } from 'chai';
import { pino } from 'pino';
import type { Socket } from 'socket.io';
import { systemClock } from '../../src/adapters/system/clock.ts';
import type { EventRow, ExecutionQuery, ExecutionStore, HeaderRow } from '../../src/ports/store.ts';
import { Subscriptions } from '../../src/server/subscriptions.ts';
import type { ExecutionEvent } from '../../src/wire.ts';
import { eventRow } from './support.ts';

/** A store that is only asked for events and for how far executions have come. */
class EventStore {
  readonly cluster: unknown;
  readonly events: EventRow[] = [];
  looks: string[][] = [];

  constructor(shared: boolean) {
    this.cluster = shared ? {} : null;
  }

  add(type: EventRow['type']): void {
    this.events.push(eventRow(this.events.length + 1, type));
  }

  async readEvents(_id: string, from: number, limit: number) {
    return { items: this.events.slice(from - 1, from - 1 + limit), firstSeq: 1 };
  }

  async listExecutions({ ids = [] }: ExecutionQuery) {
    this.looks.push(ids);
    return { items: ids.map((id) => ({ id, seq: this.events.length }) as HeaderRow), nextCursor: null };
  }
}

function listener() {
  const heard: number[] = [];
  const socket = {
    id: 's',
    conn: { writeBuffer: [] },
    emit: (_name: string, { event }: { event: ExecutionEvent }) => heard.push(event.seq),
    disconnect: () => undefined,
  };
  return { heard, socket: socket as unknown as Socket };
}

const LOOK_MS = 1_500;
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('subscriptions', () => {
  const all: Subscriptions[] = [];
  function open(store: EventStore): Subscriptions {
    const subscriptions = new Subscriptions({
      store: store as unknown as ExecutionStore,
      clock: systemClock,
      logger: pino({ level: 'silent' }),
    });
    all.push(subscriptions);
    return subscriptions;
  }
  afterEach(() => {
    for (const one of all.splice(0)) one.close();
  });

  it('find what another engine did and nobody announced, in one look for all, and look no more after the end', async () => {
    const store = new EventStore(true);
    const subscriptions = open(store);
    const { heard, socket } = listener();
    store.add('execution.created');
    subscriptions.start(socket, 'e', 1);
    subscriptions.start(socket, 'f', 1);
    await wait(50);
    expect(heard).to.deep.equal([1, 1]);
    store.add('execution.started');
    store.add('execution.completed');
    await wait(LOOK_MS + 300);
    expect(heard.toSorted()).to.deep.equal([1, 1, 2, 2, 3, 3]);
    expect(store.looks).to.deep.equal([['e', 'f']]);
    await wait(LOOK_MS);
    expect(store.looks.length).to.equal(1);
  });

  it('look at once when messages may have been missed', async () => {
    const store = new EventStore(true);
    const subscriptions = open(store);
    const { heard, socket } = listener();
    subscriptions.start(socket, 'e', 1);
    await wait(20);
    store.add('execution.created');
    subscriptions.missed();
    await wait(50);
    expect(heard).to.deep.equal([1]);
  });

  it('never look where one engine has the store for itself', async () => {
    const store = new EventStore(false);
    const subscriptions = open(store);
    const { socket } = listener();
    subscriptions.start(socket, 'e', 1);
    await wait(LOOK_MS + 300);
    expect(store.looks).to.deep.equal([]);
  });
});
