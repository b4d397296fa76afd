import { expect } from 'chai';
import type { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import type { EngineHint } from '../../src/ports/bus.ts';
import type { ExecutionEvent } from '../../src/wire.ts';
import { busOver, type TestLink, Wire } from './links.ts';

interface World {
  wire: Wire;
  link: TestLink;
  bus: SocketIoBus;
  otherLink: TestLink;
  other: SocketIoBus;
  /** What the other bus heard. */
  heard: EngineHint[];
  gaps: number;
}

const hint = (id: string): EngineHint => ({ kind: 'key.deleted', id });
const event = { seq: 1, at: '', type: 'execution.created' } as ExecutionEvent;
/** What is said within a turn leaves after it. */
const turn = () => new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));

describe('the bus between engines', () => {
  const open: SocketIoBus[] = [];

  async function pair(): Promise<World> {
    const wire = new Wire();
    const link = wire.link();
    const otherLink = wire.link();
    const bus = busOver(link);
    const other = busOver(otherLink);
    open.push(bus, other);
    const world: World = { wire, link, bus, otherLink, other, heard: [], gaps: 0 };
    other.onHint((found) => world.heard.push(found));
    other.onGap(() => {
      world.gaps += 1;
    });
    await bus.open();
    await other.open();
    await turn();
    link.sent = [];
    return world;
  }

  afterEach(async () => {
    await Promise.all(open.splice(0).map((bus) => bus.close()));
  });

  it('takes what is said here to the others, in order, and not back', async () => {
    const world = await pair();
    const own: EngineHint[] = [];
    world.bus.onHint((found) => own.push(found));
    for (const id of ['a', 'b', 'c']) world.bus.tell(hint(id));
    await turn();
    expect(world.heard).to.deep.equal([hint('a'), hint('b'), hint('c')]);
    expect([own, world.gaps]).to.deep.equal([[], 0]);
  });

  it('says in one packet what is said within a turn, and what while a packet is on its way', async () => {
    const world = await pair();
    const held: (() => void)[] = [];
    world.link.held = held;
    world.bus.tell(hint('a'));
    world.bus.tell(hint('b'));
    await turn();
    for (const id of ['c', 'd', 'e']) world.bus.tell(hint(id));
    await turn();
    world.link.held = null;
    for (const go of held) go();
    await turn();
    expect(world.link.sent.map(({ count }) => count)).to.deep.equal([2, 3]);
    expect(world.heard).to.have.length(5);
  });

  it('delivers a stop here before it leaves, and at every other engine', async () => {
    const { bus, other } = await pair();
    const heard: string[] = [];
    bus.onStop(({ executionId }) => heard.push(`here ${executionId}`));
    other.onStop(({ executionId }) => heard.push(`there ${executionId}`));
    bus.stop({ executionId: 'e', requestId: 'r' });
    expect(heard).to.deep.equal(['here e']);
    await turn();
    expect(heard).to.deep.equal(['here e', 'there e']);
  });

  it('takes a packet that comes twice once, and one that is late not at all', async () => {
    const world = await pair();
    world.wire.copies = () => 2;
    world.bus.tell(hint('a'));
    await turn();
    world.wire.copies = () => 1;
    world.bus.tell(hint('b'));
    await turn();
    world.otherLink.handlers?.received(world.link.sent[0]);
    expect(world.heard).to.deep.equal([hint('a'), hint('b')]);
    expect(world.other.counters()).to.include({ doubled: 2, gaps: 0 });
  });

  it('does not hear once more what comes twice of an engine that has said goodbye, and counts it out', async () => {
    const world = await pair();
    world.bus.tell(hint('a'));
    await turn();
    const [packet] = world.link.sent;
    await world.bus.close();
    await turn();
    expect(world.other.counters().others).to.equal(0);
    world.otherLink.handlers?.received(packet);
    expect(world.heard).to.deep.equal([hint('a')]);
    expect(world.other.counters()).to.include({ others: 0, gaps: 0 });
  });

  it('notices a packet that was lost when the next one comes', async () => {
    const world = await pair();
    world.wire.copies = () => 0;
    world.bus.tell(hint('a'));
    await turn();
    expect(world.gaps).to.equal(0);
    world.wire.copies = () => 1;
    world.bus.tell(hint('b'));
    await turn();
    expect([world.gaps, world.heard]).to.deep.equal([1, [hint('b')]]);
  });

  it('notices that the last packet was lost by a sign of life', async () => {
    const world = await pair();
    world.wire.copies = () => 0;
    world.bus.tell(hint('a'));
    await turn();
    world.wire.copies = () => 1;
    world.link.handlers?.up();
    await turn();
    expect(world.gaps).to.equal(1);
  });

  it('drops what cannot leave, counts it, and still serves those who are here', async () => {
    const world = await pair();
    const heard: string[] = [];
    world.bus.onStop(({ executionId }) => heard.push(executionId));
    world.link.isUp = false;
    world.bus.stop({ executionId: 'e', requestId: 'r' });
    world.bus.tell(hint('a'));
    await turn();
    expect(heard).to.deep.equal(['e']);
    expect(world.bus.counters().dropped).to.equal(2);
    world.link.isUp = true;
    world.bus.tell(hint('b'));
    await turn();
    expect([world.gaps, world.heard]).to.deep.equal([1, [hint('b')]]);
  });

  it('keeps a bounded number while a packet is stuck', async () => {
    const world = await pair();
    world.link.held = [];
    for (let id = 0; id < 10_010; id += 1) world.bus.tell(hint(String(id)));
    await turn();
    for (let id = 0; id < 1_000; id += 1) world.bus.tell(hint(String(id)));
    expect(world.bus.counters().dropped).to.be.within(500, 1_010);
    const { held } = world.link;
    world.link.held = null;
    for (const go of held ?? []) go();
    await turn();
    world.bus.tell(hint('last'));
    await turn();
    expect(world.heard.at(-1)).to.deep.equal(hint('last'));
    expect(world.gaps).to.be.greaterThan(0);
  });

  it('calls those who look for themselves when the link had a gap, and once for many gaps at once', async () => {
    const world = await pair();
    for (let count = 0; count < 10; count += 1) world.otherLink.handlers?.gap();
    expect(world.gaps).to.equal(1);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(world.gaps).to.equal(2);
  });

  it('looks for itself where it cannot read a packet, or not all of it', async () => {
    const world = await pair();
    let gaps = 0;
    for (const text of ['[{"kind":', '7', '[{}]']) {
      world.otherLink.handlers?.received({ from: text, first: 1, count: 2, text });
      expect(world.other.counters().gaps).to.equal(++gaps);
    }
    expect(world.gaps).to.be.greaterThan(0);
  });

  it('is not made deaf by a number that nobody reaches', async () => {
    const world = await pair();
    world.bus.tell(hint('a'));
    await turn();
    const { from } = world.link.sent[0] as { from: string };
    for (const first of [2 ** 53, Number.MAX_SAFE_INTEGER, 1e15, -1])
      world.otherLink.handlers?.received({ from, first, count: 1, text: '[{}]' });
    world.otherLink.handlers?.received({ from, first: 3, count: 2 ** 50, text: '[{}]' });
    world.bus.tell(hint('b'));
    await turn();
    expect([world.heard, world.gaps]).to.deep.equal([[hint('a'), hint('b')], 0]);
  });

  it('survives a message that is none, and a handler that throws', async () => {
    const world = await pair();
    world.other.onHint(() => {
      throw new Error('handler');
    });
    for (const packet of [null, 'text', {}, { from: 'x', first: 1, count: 1, text: '{' }, { from: 'y', first: 'z' }])
      world.otherLink.handlers?.received(packet);
    world.bus.tell(hint('a'));
    await turn();
    expect(world.heard).to.deep.equal([hint('a')]);
    expect(world.other.counters().failed).to.equal(1);
  });

  describe('events', () => {
    /** A bus with rooms that a test fills. */
    function rooms(bus: SocketIoBus) {
      const listeners = new Map<string, (room: string) => void>();
      const heard: string[] = [];
      const namespace = {
        adapter: { on: (name: string, run: (room: string) => void) => listeners.set(name, run), rooms: new Map() },
        to: () => ({ emit: (name: string) => heard.push(name) }),
      };
      bus.attach(namespace as never, (executionId) => heard.push(`event of ${executionId}`));
      return {
        heard,
        follow: (room: string) => listeners.get('create-room')?.(room),
        unfollow: (room: string) => listeners.get('delete-room')?.(room),
      };
    }

    it('leave only for executions that somebody follows elsewhere', async () => {
      const world = await pair();
      const there = rooms(world.other);
      expect(world.bus.hasListeners('e')).to.equal(false);
      there.follow('execution:e');
      there.follow('socket-id');
      await turn();
      expect([world.bus.hasListeners('e'), world.bus.hasListeners('f')]).to.deep.equal([true, false]);
      expect(world.other.follows()).to.deep.equal(['execution:e']);
      world.link.sent = [];
      world.bus.event('f', event);
      await turn();
      expect(world.link.sent).to.have.length(0);
      world.bus.event('e', event);
      world.bus.receipt({ executionId: 'e' } as never);
      await turn();
      expect(there.heard).to.deep.equal(['event of e', 'stop.receipt']);
      there.unfollow('execution:e');
      await turn();
      expect(world.bus.hasListeners('e')).to.equal(false);
    });

    it('leave for lists of a project, and of every project', async () => {
      const world = await pair();
      const there = rooms(world.other);
      world.bus.changed({ id: 'e', project: 'p' } as never);
      there.follow('project:p');
      await turn();
      expect([world.bus.hasListListeners('p'), world.bus.hasListListeners('q')]).to.deep.equal([true, false]);
      world.bus.changed({ id: 'e', project: 'p' } as never);
      there.unfollow('project:p');
      there.follow('projects');
      await turn();
      expect(world.bus.hasListListeners('q')).to.equal(true);
      world.bus.changed({ id: 'e', project: 'q' } as never);
      await turn();
      expect(there.heard).to.deep.equal(['execution.changed', 'execution.changed']);
    });

    it('are told of by an engine that comes later, and forgotten of one that says goodbye', async () => {
      const world = await pair();
      rooms(world.other).follow('execution:e');
      await turn();
      const late = busOver(world.wire.link());
      open.push(late);
      await late.open();
      await turn();
      expect(late.hasListeners('e')).to.equal(true);
      await world.other.close();
      await turn();
      expect([late.hasListeners('e'), world.bus.hasListeners('e')]).to.deep.equal([false, false]);
    });

    it('are followed again after the message that said so was lost', async () => {
      const world = await pair();
      const there = rooms(world.other);
      world.wire.copies = () => 0;
      there.follow('execution:e');
      await turn();
      world.wire.copies = () => 1;
      world.otherLink.handlers?.up();
      await turn();
      await turn();
      expect(world.bus.hasListeners('e')).to.equal(true);
    });

    it('are followed elsewhere by what heartbeats say, too', async () => {
      const world = await pair();
      world.bus.othersFollow(new Set(['execution:e', 'projects']));
      expect([world.bus.hasListeners('e'), world.bus.hasListListeners('p')]).to.deep.equal([true, true]);
      world.bus.othersFollow(new Set());
      expect([world.bus.hasListeners('e'), world.bus.hasListListeners('p')]).to.deep.equal([false, false]);
    });

    it('name at most 200 rooms in a heartbeat, lists first', async () => {
      const world = await pair();
      const here = rooms(world.bus);
      for (let id = 0; id < 300; id += 1) here.follow(`execution:${id}`);
      here.follow('project:p');
      expect(world.bus.follows()).to.have.length(200);
      expect(world.bus.follows()[0]).to.equal('project:p');
    });
  });
});
