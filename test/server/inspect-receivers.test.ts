/** One execution, watched with the receiver of each package. */
import { createWebSocketReceiver as createReceiver07, type StatelyInspectionEvent } from '@statelyai/inspect';
import { expect } from 'chai';
import { executionActorId } from '../../src/engine/inspection.ts';
import { STOPPED_MESSAGE } from '../../src/errors.ts';
import {
  type AnyState,
  type AnyStateMachine,
  createWebSocketReceiver as createReceiver08,
} from '../xstate4/receiver.ts';
import { ADMIN_KEY, openWorld, until, type World, xstate08 } from './inspect-support.ts';

describe('the receiver of', () => {
  let world: World;
  let id: string;
  let execution: string;
  let node: string;
  beforeEach(async () => {
    world = await openWorld();
    id = await world.start();
    execution = executionActorId(id);
    node = `node:${id}/call/-`;
    await until('a task', () => world.work.running.length > 0);
  });
  afterEach(() => world.close());

  const server = (path: string): string => world.server.url.replace('http://', '') + path;
  const failOnce = (): void => {
    world.work.answer('call', { kind: 'failed', error: 'no', code: 'FS_HTTP_STATUS', retryable: true });
  };
  const stop = async (): Promise<void> => {
    expect((await world.http(ADMIN_KEY, 'POST', `/api/executions/${id}/stop`)).status).to.equal(202);
  };

  it('@statelyai/inspect 0.7 shows the actors with their machines, snapshots while nodes run, and the stop', async () => {
    const events: StatelyInspectionEvent[] = [];
    const receiver = createReceiver07({ server: `ws://${server(await world.token(id))}` });
    receiver.subscribe((event) => void events.push(event));
    const states = (sessionId: string): unknown[] =>
      events.flatMap((event) =>
        event.sessionId === sessionId && event.type === '@xstate.snapshot'
          ? [(event.snapshot as { value?: unknown }).value]
          : [],
      );
    const heard = (type: string): boolean =>
      events.some((event) => event.type === '@xstate.event' && event.event.type === type);

    const actors = await until(
      'actors',
      () => events.filter((event) => event.type === '@xstate.actor'),
      ({ length }) => length >= 4,
    );
    expect(actors.map(({ sessionId, parentId }) => [sessionId, parentId])).to.deep.equal([
      ['engine', undefined],
      [execution, 'engine'],
      [`node:${id}/prepare/-`, execution],
      [node, execution],
    ]);
    expect(actors.map(({ snapshot }) => snapshot)).to.deep.equal([
      { status: 'active', value: 'serving' },
      { status: 'active', value: 'running' },
      { status: 'done', value: 'complete' },
      { status: 'active', value: 'running' },
    ]);
    for (const [index, { definition, rootId }] of actors.entries()) {
      expect(rootId).to.equal(execution);
      const machine = JSON.parse(definition as string);
      expect(machine.states[index === 0 ? 'serving' : 'running'].on).to.be.an('object');
      expect(machine).not.to.have.property('context');
    }
    expect(actors[1]?.definition).to.include('"guard":"allSettled"').and.include('"startNodes"');

    failOnce();
    await until(
      'the second try',
      () => states(node),
      (seen) => seen.join().includes('backingOff,running'),
    );
    expect(heard('work.failed')).to.equal(true);

    await stop();
    await until(
      'its end',
      () => states(execution),
      (seen) => seen.at(-1) === 'failed',
    );
    expect(states(execution)).to.include('stopping');
    expect(states(node)).to.include('aborting');
    expect(heard('execution.stop')).to.equal(true);
    const last = events.findLast((event) => event.type === '@xstate.snapshot' && event.sessionId === execution);
    expect((last as { snapshot: object }).snapshot).to.deep.equal({ status: 'done', value: 'failed' });
  });

  describe('@xstate/inspect 0.8', () => {
    const faults: string[] = [];
    afterEach(() => expect(faults.splice(0)).to.deep.equal([]));

    /** What the receiver made of what it was sent; as a viewer does, each state is resolved by its machine. */
    class Watched {
      readonly events: string[] = [];
      readonly machines = new Map<string, AnyStateMachine>();
      readonly parents = new Map<string, string | undefined>();
      readonly states: [sessionId: string, state: AnyState][] = [];
      readonly registered: string[] = [];
      readonly stopped: string[] = [];
      readonly receiver: ReturnType<typeof createReceiver08>;

      constructor(path: string) {
        this.receiver = createReceiver08({ server: server(path), serialize: undefined });
        this.receiver.subscribe((event) => {
          switch (event.type) {
            case 'service.register':
              expect(event.id).to.equal(event.sessionId);
              this.registered.push(event.sessionId);
              this.machines.set(event.sessionId, event.machine);
              this.parents.set(event.sessionId, event.parent);
              this.#add(event.sessionId, event.state);
              break;
            case 'service.state':
              this.#add(event.sessionId, event.state);
              break;
            case 'service.event':
              this.events.push(`${event.sessionId} ${event.event.name} from ${event.event.origin}`);
              break;
            case 'service.stop':
              this.stopped.push(event.sessionId);
          }
        });
      }

      /** A state that the machine does not have would throw, and the receiver only writes that down. */
      #add(sessionId: string, state: AnyState): void {
        try {
          const resolved = (this.machines.get(sessionId) as AnyStateMachine).resolveState(state);
          expect(state.value).to.deep.equal(resolved.value);
          this.states.push([sessionId, resolved]);
        } catch (error) {
          faults.push(`${sessionId} ${JSON.stringify(state.value)}: ${error}`);
        }
      }

      values(sessionId: string): unknown[] {
        return this.states.flatMap(([of, { value }]) => (of === sessionId ? [value] : []));
      }
    }

    const watch = async (executionId = id): Promise<Watched> =>
      new Watched(xstate08.path(await world.token(executionId)));

    it('registers the actors with machines of version 4, shows their events and states, and the stop', async () => {
      const watched = await watch();
      await until('actors', () => watched.machines.size >= 4);
      expect([...watched.parents]).to.deep.equal([
        ['engine', undefined],
        [execution, 'engine'],
        [`node:${id}/prepare/-`, execution],
        [node, execution],
      ]);
      expect([watched.values(execution), watched.values(node)]).to.deep.equal([['running'], ['running']]);
      expect(watched.states[1]?.[1].nextEvents).to.include.members(['node.settled', 'execution.stop']);
      const guards = watched.machines.get(execution)?.states['running']?.transitions.map(({ cond }) => cond?.name);
      expect(guards).to.include('allSettled').and.include('failsFast');
      expect(watched.machines.get(execution)?.config).to.include({ predictableActionArguments: true });

      failOnce();
      await until(
        'the second try',
        () => watched.values(node),
        (seen) => seen.join().includes('backingOff,running'),
      );
      expect(watched.events).to.include(`${node} work.failed from undefined`);
      const backingOff = watched.states.find(([, { value }]) => value === 'backingOff');
      expect(backingOff?.[1].event).to.deep.equal({ type: 'work.failed' });
      const prepare = `node:${id}/prepare/-`;
      expect(watched.stopped).to.deep.equal([prepare]);

      await stop();
      await until('its end', () => watched.stopped.includes(execution));
      expect(watched.values(execution)).to.include('stopping');
      expect(watched.values(node)).to.include('aborting');
      expect(watched.events).to.include(`${execution} execution.stop from undefined`);
      expect(watched.stopped).to.have.members([prepare, node, execution]);
      const [last, state] = watched.states.at(-1) ?? [];
      expect([last, state?.value, state?.done]).to.deep.equal([execution, 'failed', true]);
    });

    it('shows an actor that starts while it looks, from its first state on', async () => {
      const loop = {
        name: 'loop',
        nodes: {
          first: { type: 'http', with: { url: 'https://x.example/' } },
          rounds: {
            type: 'while',
            needs: ['first'],
            condition: 'iter.index < 1',
            maxIterations: 2,
            body: { inner: { type: 'http', with: { url: 'https://x.example/' } } },
          },
        },
      };
      const looping = await world.start(loop);
      const watched = await watch(looping);
      await until('actors', () => watched.machines.size >= 2);
      world.work.answer('first', { kind: 'completed', output: {} });
      const rounds = `node:${looping}/rounds/-`;
      await until(
        'an iteration',
        () => watched.values(rounds).map((value) => JSON.stringify(value)),
        (seen) => seen.includes('{"looping":"iterating"}'),
      );
      const testing = { looping: 'testing' };
      expect(watched.values(rounds).slice(0, 3)).to.deep.equal([testing, testing, { looping: 'iterating' }]);
      expect(watched.events).to.include(`${rounds} xstate.init from ${executionActorId(looping)}`);
      expect(watched.parents.get(rounds)).to.equal(executionActorId(looping));
    });

    it('shows one that has ended as stopped', async () => {
      await stop();
      await until(
        'its end',
        () => world.store.getExecution(id),
        (found) => found?.header.endedAtMs != null,
      );
      const watched = await watch();
      await until('their stops', () => watched.stopped.length >= 3);
      expect(watched.states.map(([of, { value, done }]) => [of, value, done])).to.deep.equal([
        [execution, 'failed', true],
        [node, 'failed', true],
        [`node:${id}/prepare/-`, 'complete', true],
      ]);
    });

    it('shows one that leaves memory as stopped, and as registered again when it goes on', async () => {
      const parking = await world.start({
        name: 'parking',
        nodes: {
          first: { type: 'http', with: { url: 'https://x.example/' } },
          wait: { type: 'hold', trigger: 'go', needs: ['first'] },
        },
      });
      const watched = await watch(parking);
      const hold = `node:${parking}/wait/-`;
      const ofHold = (list: string[]): number => list.filter((sessionId) => sessionId === hold).length;
      await until('actors', () => watched.machines.size >= 2);
      world.work.answer('first', { kind: 'completed', output: {} });
      await until('out of memory', () => watched.stopped.includes(hold));
      await world.engine.trigger(parking, 'go', null);
      await until('its end', () => watched.values(executionActorId(parking)).at(-1) === 'complete');
      await until('its stop', () => watched.stopped.at(-1) === executionActorId(parking));
      expect([ofHold(watched.registered), ofHold(watched.stopped)]).to.deep.equal([2, 2]);
      expect(new Set(watched.values(hold))).to.deep.equal(new Set(['held', 'complete']));
    });

    const sent = {
      'as its documentation sends it': () => ({
        type: 'xstate.event' as const,
        event: JSON.stringify({ type: 'execution.stop' }),
        service: execution,
      }),
      "as Stately's viewer sends it": () => ({
        type: 'xstate.event' as const,
        event: JSON.stringify({
          name: 'execution.stop',
          data: { type: 'execution.stop' },
          $$type: 'scxml',
          type: 'external',
          origin: execution,
        }),
        sessionId: execution,
      }),
    };
    for (const [how, message] of Object.entries(sent))
      it(`stops the execution by execution.stop ${how}`, async () => {
        const watched = await watch();
        await until('actors', () => watched.machines.size >= 2);
        watched.receiver.send(message() as never);
        await until('its end', () => watched.stopped.includes(execution));
        expect((await world.store.getExecution(id))?.header.error).to.equal(STOPPED_MESSAGE);
        const { items } = await world.store.listAudit(null, undefined, 10);
        expect(items.map(({ verb, target }) => [verb, target])).to.deep.include(['execution.stop', id]);
      });
  });
});
