/** What both protocols of Stately viewers keep to: who may look, what they are told, and what is taken from them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import type { AnyActorRef } from 'xstate';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds } from '../../src/adapters/system/ids.ts';
import { executionActorId, Inspections } from '../../src/engine/inspection.ts';
import { STOPPED_MESSAGE } from '../../src/errors.ts';
import type { Inspection, StopReceipt } from '../../src/wire.ts';
import {
  ADMIN_KEY,
  CANARY,
  FOREIGN,
  flow,
  held,
  openWorld,
  stately07,
  until,
  Viewer,
  type World,
  xstate08,
} from './inspect-support.ts';

for (const dialect of [stately07, xstate08])
  describe(`inspection by ${dialect.name}`, () => {
    let world: World;
    const viewers: Viewer[] = [];
    beforeEach(async () => {
      world = await openWorld();
    });
    afterEach(async () => {
      for (const viewer of viewers.splice(0)) viewer.socket.terminate();
      await world.close();
    });

    const address = (path: string): string => world.server.url.replace('http', 'ws') + path;
    const view = (path: string, headers: Record<string, string> = {}): Viewer => {
      const viewer = new Viewer(dialect, address(path), headers);
      viewers.push(viewer);
      return viewer;
    };
    const token = (id: string, key?: string): Promise<string> => world.token(id, key).then(dialect.path);
    const runs = (definition?: object, input?: object): Promise<string> =>
      world.start(definition, input).then(async (id) => {
        await until('a task', () => world.work.running.length > 0);
        return id;
      });
    const record = async (id: string) => (await world.store.getExecution(id))?.header;
    const stops = async () =>
      (await world.store.listAudit(null, undefined, 100)).items.filter(({ verb }) => verb === 'execution.stop');
    /** Behind the engine's interface: whether an execution is in memory, and its actor. */
    const hostOf = (id: string) =>
      (world.engine as unknown as { hostOf(id: string): { actor: AnyActorRef } | null }).hostOf(id);

    it('shows no other execution', async () => {
      const [id, other] = [await runs(), await world.start()];
      const viewer = view(await token(id));
      await until('frames', () => viewer.frames.length > 0);
      await world.engine.requestStop(other);
      await until('the end of the other', async () => (await record(other))?.endedAtMs != null);
      await world.engine.requestStop(id);
      await until('the end', () => viewer.states.some(({ value, done }) => done && value === 'failed'));
      expect(viewer.frames.join()).to.include(id).and.not.include(other);
    });

    it('shows one that waits, one that is parked, and one that has ended, from its record', async () => {
      const held1 = await world.start({ ...held, name: 'held-1' });
      await until(
        'parked',
        () => world.engine.metrics().live.parked,
        (count) => count === 1,
      );
      await until('out of memory', () => hostOf(held1) === null);
      const viewer = view(await token(held1));
      const actors = await until(
        'actors',
        () => viewer.states,
        ({ length }) => length === 3,
      );
      expect(actors.map(({ value }) => value)).to.deep.equal(['serving', 'running', 'held']);
      viewer.send(dialect.stop(held1));
      await until(
        'its end',
        () => viewer.states.at(-1),
        (state) => state?.value === 'failed',
      );
      const late = view(await token(held1));
      const ended = await until(
        'its actors',
        () => late.states,
        ({ length }) => length === 2,
      );
      // No engine runs it any more.
      expect(ended).to.deep.equal([
        { sessionId: executionActorId(held1), value: 'failed', done: true },
        { sessionId: `node:${held1}/wait/-`, value: 'keptHeld', done: true },
      ]);
      expect(late.frames.join()).not.to.include('"parentId":"engine"').and.not.to.include('"parent":"engine"');
    });

    it('tells of the engine what it is told to do, and nothing of what other executions did to it', async () => {
      const id = await runs();
      const viewer = view(await token(id));
      await until('actors', () => viewer.states.length >= 4);
      const engine = (world.engine as unknown as { registryActor: AnyActorRef }).registryActor._parent as AnyActorRef;
      engine.send({ type: 'execution.crashed', executionId: systemIds.next(), atMs: 0 });
      engine.send({ type: 'engine.pause' });
      engine.send({ type: 'engine.resume' });
      const told = await until(
        'the engine',
        () => viewer.eventsOf('engine'),
        ({ length }) => length >= 2,
      );
      expect(told).to.deep.equal(['engine.pause', 'engine.resume']);
      expect(viewer.states.at(-1)).to.deep.equal({ sessionId: 'engine', value: 'serving', done: false });
      // Before its time nobody is told of it.
      const other = view(await token(await world.start()));
      await until('its actors', () => other.states.length >= 4);
      expect(other.eventsOf('engine')).to.deep.equal([]);
    });

    it('tells nothing before it is durable', async () => {
      const id = await runs();
      const viewer = view(await token(id));
      await until('actors', () => viewer.frames.length >= 2);
      let release = (): void => undefined;
      world.gate.commits = new Promise<void>((resolve) => {
        release = resolve;
      });
      const before = viewer.frames.length;
      world.work.answer('call', { kind: 'completed', output: {} });
      await sleep(100);
      // A newcomer sees no more than the others.
      const newcomer = view(await token(id));
      await newcomer.opened;
      await sleep(50);
      expect([viewer.frames.length, newcomer.frames.length]).to.deep.equal([before, 0]);
      world.gate.commits = null;
      release();
      await until(
        'the end',
        () => viewer.states.at(-1),
        (state) => state?.value === 'complete',
      );
      await until('the end', () => newcomer.states.at(-1)?.value === 'complete');
    });

    it('does not tell what a stop took back', async () => {
      const id = await runs();
      const viewer = view(await token(id));
      await until('actors', () => viewer.frames.length >= 2);
      let release = (): void => undefined;
      world.gate.commits = new Promise<void>((resolve) => {
        release = resolve;
      });
      world.work.answer('call', { kind: 'completed', output: {} });
      await sleep(20);
      await world.engine.requestStop(id);
      world.gate.commits = null;
      release();
      await until('the end', async () => (await record(id))?.endedAtMs != null);
      await until('the end', () => viewer.states.at(-1)?.value === 'failed');
      const complete = viewer.states.filter(({ value }) => value === 'complete');
      expect(complete.map(({ sessionId }) => sessionId)).to.deep.equal([`node:${id}/prepare/-`]);
    });

    describe('the token', () => {
      it('is random, kept as a hash alone, and good for one hour', async () => {
        const id = await runs();
        const made = await world.http(ADMIN_KEY, 'POST', `/api/executions/${id}/inspections`);
        const { path, expiresAt } = made.data as Inspection;
        expect(path).to.match(/^\/inspect\/[\w-]{43}$/);
        const address = dialect.path(path);
        expect(Date.parse(expiresAt) - Date.now()).to.be.within(3_590_000, 3_600_000);
        expect(await world.token(id)).not.to.equal(path);
        world.skewMs = 3_590_000;
        expect(await view(address).opened).to.equal(true);
        world.skewMs = 3_601_000;
        expect(await view(address).ended).to.equal(404);
      });

      it('ends what it let in when its hour is over', async () => {
        const id = await runs();
        const viewer = view(await token(id));
        await until('frames', () => viewer.frames.length > 0);
        world.skewMs = 3_601_000;
        viewer.send(dialect.stop(id));
        expect(await viewer.ended).to.equal(1008);
        const other = view(await token(id));
        await until('frames', () => other.frames.length > 0);
        world.skewMs = 2 * 3_601_000;
        for (const timer of [...world.timers]) timer.run();
        expect(await other.ended).to.equal(1008);
        expect((await record(id))?.stop).to.equal(null);
        await until(
          'nobody looks',
          () => world.observers(),
          (count) => count === 0,
        );
      });

      it('is nothing when it is unknown, cut, or more than itself', async () => {
        const path = await token(await runs());
        const [none, other] = ['/inspect/', `/inspect/${'A'.repeat(43)}`].map(dialect.path) as [string, string];
        for (const wrong of [none, '/inspect/v4', other, path.slice(0, -1), `${path}?x=1`, `${path}/`]) {
          expect(await view(wrong).ended, wrong).to.equal(404);
        }
        expect((await world.http(ADMIN_KEY, 'GET', path)).status).to.equal(404);
        expect(await view(path).opened).to.equal(true);
      });

      it('is of no use for another execution', async () => {
        const [id, other] = [await runs(), await world.start()];
        const viewer = view(await token(id));
        await viewer.opened;
        viewer.send(dialect.stop(other));
        await refusals(1);
        expect((await record(other))?.stop).to.equal(null);
        expect((await record(id))?.stop).to.equal(null);
      });

      it('ends with the key that made it', async () => {
        const id = await runs();
        const { id: keyId, key } = await world.key('viewer', 'default');
        const path = await token(id, key);
        const [viewer, silent, kept] = [view(path), view(path), view(await token(id))];
        await until('frames', () => [viewer, silent, kept].every(({ frames }) => frames.length > 0));
        expect((await world.http(ADMIN_KEY, 'DELETE', `/api/keys/${keyId}`)).status).to.equal(204);
        viewer.send(dialect.stop(id));
        expect(await viewer.ended).to.equal(1008);
        // At once, not when it is next looked after.
        await until('hung up', () => silent.socket.readyState === WebSocket.CLOSED);
        expect(await view(path).ended).to.equal(404);
        expect((await record(id))?.stop).to.equal(null);
        expect(kept.socket.readyState).to.equal(WebSocket.OPEN);
      });

      it('ends with a key that another server deleted', async () => {
        const id = await runs();
        const { id: keyId, key } = await world.key('viewer', 'default');
        const path = await token(id, key);
        const [viewer, silent] = [view(path), view(path)];
        await until('frames', () => viewer.frames.length > 0 && silent.frames.length > 0);
        await world.store.deleteKey(keyId, null);
        viewer.send(dialect.stop(id));
        expect(await viewer.ended).to.equal(1008);
        for (const timer of [...world.timers]) timer.run();
        expect(await silent.ended).to.equal(1008);
        const late = view(path);
        expect(await late.ended).to.equal(1008);
        expect(late.frames).to.deep.equal([]);
        expect((await record(id))?.stop).to.equal(null);
      });

      it('is not made for an execution the key may not see, nor when inspection is off', async () => {
        const id = await runs();
        const { key } = await world.key('admin', 'alpha');
        expect((await world.http(key, 'POST', `/api/executions/${id}/inspections`)).status).to.equal(404);
        await world.close();
        world = await openWorld(null);
        const made = await world.http(ADMIN_KEY, 'POST', `/api/executions/${await runs()}/inspections`);
        expect([made.status, made.data.code]).to.deep.equal([409, 'FS_DISABLED']);
        expect(await view(dialect.path(`/inspect/${'A'.repeat(43)}`)).ended).to.equal(404);
      });
    });

    it('lets in programs, pages of this server and those that are listed, and no other page', async () => {
      const path = await token(await runs());
      const { host } = new URL(world.server.url);
      for (const origin of [`http://${host}`, FOREIGN])
        expect(await view(path, { origin }).opened, origin).to.equal(true);
      for (const origin of ['https://evil.example', `${FOREIGN}.evil.example`, 'null', 'http://viewer.example']) {
        expect(await view(path, { origin }).ended, origin).to.equal(403);
      }
      expect(await view(path, { host: 'evil.example' }).ended).to.equal(403);
      await world.close();
      world = await openWorld([]);
      expect(await view(await token(await runs()), { origin: FOREIGN }).ended).to.equal(403);
    });

    describe('from a viewer', () => {
      it('takes execution.stop as the stop verb does: audited with the key that made the token, with a receipt', async () => {
        const id = await runs();
        const { id: keyId, key } = await world.key('viewer', 'default');
        const viewer = view(await token(id, key));
        await viewer.opened;
        viewer.send(dialect.stop(id));
        await until('its end', async () => (await record(id))?.endedAtMs != null);
        expect((await record(id))?.error).to.equal(STOPPED_MESSAGE);
        const receipt = await world.http(key, 'GET', `/api/executions/${id}/stop`);
        expect((receipt.data as StopReceipt).tasks).to.deep.include.members([
          { ...(receipt.data as StopReceipt).tasks[0], outcome: 'aborted' },
        ]);
        const [entry] = await until('the entry', stops, (found) => found[0]?.outcome === 'requested');
        expect(entry).to.deep.include({ target: id, project: 'default' });
        expect(entry?.actor?.keyId).to.equal(keyId);
        expect(world.work.aborted).to.have.length(1);
        viewer.send(dialect.stop(id));
        await until('the second entry', stops, (found) => found.length === 2 && found[0]?.outcome !== null);
      });

      it('takes nothing else: forged events, other types, garbage', async () => {
        const id = await runs();
        const viewer = view(await token(id));
        await until('actors', () => viewer.frames.length >= 2);
        const frames = viewer.frames.length;
        const forged = dialect.forged(id);
        for (const message of forged) viewer.send(message);
        await refusals(forged.length);
        await sleep(50);
        expect(viewer.frames.length).to.equal(frames);
        expect(world.work.running).to.have.length(1);
        const header = await record(id);
        expect([header?.status, header?.stop]).to.deep.equal(['Running', null]);
        expect(await stops()).to.deep.equal([]);
      });

      it('refuses a frame of 1 MB, and hangs up on one that goes on', async () => {
        const id = await runs();
        const [large, noisy] = [view(await token(id)), view(await token(id))];
        await Promise.all([large.opened, noisy.opened]);
        large.send(JSON.stringify({ ...dialect.stop(id), padding: 'x'.repeat(1_048_576) }));
        expect(await large.ended).to.equal(1009);
        await refusals(1);
        for (let index = 0; index < 200; index += 1) noisy.send('nonsense');
        expect(await noisy.ended).to.equal(1008);
        expect((await record(id))?.stop).to.equal(null);
      });
    });

    it('sends names and states, and nothing else', async () => {
      const id = await runs(flow, { secret: `${CANARY}-input` });
      const viewer = view(await token(id));
      await until('actors', () => viewer.frames.length >= 2);
      world.work.answer('call', {
        kind: 'failed',
        error: `${CANARY}-error`,
        code: 'FS_HTTP_STATUS',
        retryable: true,
      });
      await until('the next try', () => viewer.frames.join().includes('backingOff') && world.work.running.length > 0);
      world.work.answer('call', { kind: 'completed', output: `${CANARY}-result` });
      await until(
        'the end',
        () => viewer.states.at(-1),
        (state) => state?.value === 'complete',
      );
      const all = viewer.frames.join('\n');
      expect(all).not.to.include(CANARY).and.not.include('=>').and.not.include('function');
      for (const frame of viewer.events) dialect.checkRedacted(frame);
    });

    it('observes the actors only while somebody looks', async () => {
      const [id, other] = [await runs(), await world.start()];
      const path = await token(id);
      expect(world.observers()).to.equal(0);
      const [one, two, three] = [view(path), view(path), view(await token(other))];
      await until('frames', () => [one, two, three].every((viewer) => viewer.frames.length > 0));
      expect(world.observers()).to.equal(1);
      await Promise.all([one.close(), three.close()]);
      expect(world.observers()).to.equal(1);
      const frames = two.frames.length;
      world.work.answer('call', { kind: 'completed', output: {} });
      await until('more', () => two.frames.length > frames);
      await two.close();
      await until(
        'nobody',
        () => world.observers(),
        (count) => count === 0,
      );
    });

    it('hangs up on a viewer that does not read', async function () {
      this.timeout(30_000);
      const id = await runs();
      const viewer = view(await token(id));
      await until('actors', () => viewer.frames.length >= 2);
      viewer.socket.pause();
      const actor = hostOf(id)?.actor as AnyActorRef;
      // Events that the chart ignores: each is told, and changes nothing.
      for (let round = 0; round < 200 && world.observers() > 0; round += 1) {
        for (let index = 0; index < 1_000; index += 1) actor.send({ type: 'node.ignored' } as never);
        await sleep(1);
      }
      expect(world.observers()).to.equal(0);
      expect((await record(id))?.status).to.equal('Running');
    });

    it('hangs up on a viewer that has gone without a word', async () => {
      const [gone, there] = [view(await token(await runs())), view(await token(await world.start()))];
      await until('frames', () => gone.frames.length > 0 && there.frames.length > 0);
      gone.socket.pause();
      for (let round = 0; round < 2; round += 1) {
        for (const timer of [...world.timers]) timer.run();
        await sleep(100);
      }
      await until(
        'one check',
        () => world.timers.size,
        (count) => count === 1,
      );
      expect(there.socket.readyState).to.equal(WebSocket.OPEN);
    });

    it('ends with the server', async () => {
      const viewer = view(await token(await runs()));
      await until('frames', () => viewer.frames.length > 0);
      await world.engine.drain(0);
      await world.server.close();
      expect(await viewer.ended).to.be.oneOf([1001, 1006]);
      expect(world.observers()).to.equal(0);
    });

    async function refusals(count: number): Promise<void> {
      const read = async (): Promise<number> => {
        const { text } = await world.http(ADMIN_KEY, 'GET', '/metrics');
        return Number(/^fullstop_inspection_refusals_total (\d+)$/m.exec(text)?.[1]);
      };
      await until('refusals', read, (found) => found === count);
    }
  });

describe('inspections of an engine', () => {
  it('convert nothing of executions that nobody looks at', () => {
    let observe: (event: unknown) => void = () => undefined;
    const system = {
      inspect(next: typeof observe) {
        observe = next;
        return { unsubscribe: () => undefined };
      },
    };
    const env = {
      clock: systemClock,
      log: pino({ level: 'silent' }),
      engineId: systemIds.next(),
      engine: {} as never,
      hostOf: () => null,
      read: async () => null,
    };
    const inspections = new Inspections(env, system as never);
    const id = systemIds.next();
    inspections.observe(id, { tell: () => undefined, lost: () => undefined });
    const touched: PropertyKey[] = [];
    const event = (actorId: string): object =>
      new Proxy(
        { type: '@xstate.event', actorRef: { id: actorId }, event: { type: 'x' } },
        {
          get(target, name) {
            touched.push(name);
            return Reflect.get(target, name);
          },
        },
      );
    for (const actorId of [executionActorId(systemIds.next()), `node:${systemIds.next()}/a`, 'engine', 'executions'])
      observe(event(actorId));
    expect(new Set(touched)).to.deep.equal(new Set(['type', 'actorRef']));
    observe(event(executionActorId(id)));
    expect(touched).to.include('event');
    inspections.close();
  });
});
