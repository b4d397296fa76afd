import { expect } from 'chai';
import { type Client, connect, hasCode } from '../../src/client/index.ts';
import { ID, item, NO_ANSWER, record, ScriptedServer, until } from './scripted-server.ts';

/** What a promise was rejected with. */
async function fault(
  promise: Promise<unknown>,
): Promise<{ code: string; message: string; details: unknown; retryable: boolean }> {
  try {
    await promise;
  } catch (error) {
    return error as never;
  }
  throw new Error('expected a rejection');
}

describe('client', () => {
  let server: ScriptedServer;
  let client: Client;

  beforeEach(async () => {
    server = await new ScriptedServer().listen();
    client = connect({ url: server.url, key: 'fs_key', timeoutMs: 1_000 });
  });

  afterEach(async () => {
    client.close();
    await server.close();
  });

  describe('each verb', () => {
    const filter = { workflow: 'scan' };
    const rows: [verb: string, payload: object, call: (client: Client) => Promise<unknown>][] = [
      ['workflow.save', { definition: 'name: scan' }, (c) => c.workflows.save('name: scan')],
      [
        'workflow.save',
        { definition: { name: 'scan' }, dryRun: true, project: 'p' },
        (c) => c.workflows.save({ name: 'scan' }, { dryRun: true, project: 'p' }),
      ],
      ['workflow.list', {}, (c) => c.workflows.list()],
      ['workflow.get', { name: 'scan', project: 'p' }, (c) => c.workflows.get('scan', { project: 'p' })],
      ['workflow.get', { name: 'scan', versions: true }, (c) => c.workflows.get('scan', { versions: true })],
      ['workflow.disable', { name: 'scan' }, (c) => c.workflows.disable('scan')],
      ['workflow.enable', { name: 'scan' }, (c) => c.workflows.enable('scan')],
      [
        'execution.start',
        { workflow: 'scan', input: { a: 1 } },
        (c) => c.executions.start({ workflow: 'scan', input: { a: 1 } }),
      ],
      ['execution.list', { status: 'Running' }, (c) => c.executions.list({ status: 'Running' })],
      ['execution.get', { id: ID }, (c) => c.executions.get(ID)],
      ['execution.results', { id: ID }, (c) => c.executions.results(ID)],
      ['execution.events', { id: ID, from: 7 }, (c) => c.executions.eventPage(ID, 7)],
      ['execution.stop', { id: ID }, (c) => c.executions.stop(ID)],
      ['execution.preview', { id: ID }, (c) => c.executions.preview(ID)],
      ['execution.inspect', { id: ID }, (c) => c.executions.inspect(ID)],
      ['execution.receipt', { id: ID }, (c) => c.executions.receipt(ID)],
      ['execution.trigger', { id: ID, name: 'approve' }, (c) => c.executions.trigger(ID, 'approve')],
      [
        'execution.trigger',
        { id: ID, name: 'approve', payload: null },
        (c) => c.executions.trigger(ID, 'approve', null),
      ],
      ['execution.delete', { id: ID }, (c) => c.executions.delete(ID)],
      ['executions.stop', { filter }, (c) => c.stops.bulk({ filter })],
      ['executions.stop', { setId: ID }, (c) => c.stops.bulk({ setId: ID })],
      ['executions.stop', { filter, dryRun: true }, (c) => c.stops.dryRun(filter)],
      ['admission.set', { paused: true }, (c) => c.admission.set(true)],
      ['key.list', {}, (c) => c.keys.list()],
      ['key.create', { name: 'ci', role: 'viewer' }, (c) => c.keys.create({ name: 'ci', role: 'viewer' })],
      ['key.delete', { id: ID }, (c) => c.keys.delete(ID)],
      ['engine.list', {}, (c) => c.engines.list()],
      ['engine.drain', { id: 'e1' }, (c) => c.engines.drain('e1')],
      ['worker.list', {}, (c) => c.workers.list()],
      ['audit.list', { cursor: 'x' }, (c) => c.audit.list({ cursor: 'x' })],
      ['health', {}, (c) => c.health()],
    ];
    for (const [verb, payload, call] of rows) {
      it(`sends ${verb} ${JSON.stringify(payload)}`, async () => {
        server.handlers[verb] = () => ({ answer: 42 });
        const answer = await call(client);
        expect(server.calls).to.deep.equal([{ verb, payload }]);
        expect(answer ?? { answer: 42 }).to.deep.equal({ answer: 42 });
      });
    }
  });

  it('sends its key as the token of the handshake', async () => {
    server.tokens = ['fs_key'];
    server.handlers.health = () => ({ status: 'ok' });
    expect(await client.health()).to.deep.equal({ status: 'ok' });
  });

  it('rejects with the code, message and details of the server', async () => {
    const { FullstopError } = await import('../../src/errors.ts');
    server.handlers['execution.get'] = () => {
      throw new FullstopError('FS_NOT_FOUND', 'expected a known execution', { details: { id: ID } });
    };
    const error = await fault(client.executions.get(ID));
    expect(hasCode(error, 'FS_NOT_FOUND')).to.equal(true);
    expect(error).to.include({ message: 'expected a known execution', retryable: false });
    expect(error.details).to.deep.equal({ id: ID });
  });

  it('keeps a code that it does not know', async () => {
    server.handlers['execution.get'] = () => {
      throw Object.assign(new Error('new'), { code: 'FS_OF_TOMORROW' });
    };
    expect(await fault(client.executions.get(ID))).to.include({
      code: 'FS_OF_TOMORROW',
      message: 'new',
      retryable: false,
    });
  });

  it('rejects with FS_UNAVAILABLE when no answer comes in time', async () => {
    client.close();
    client = connect({ url: server.url, timeoutMs: 100 });
    server.handlers['execution.stop'] = () => NO_ANSWER;
    const error = await fault(client.executions.stop(ID));
    expect(error).to.include({ code: 'FS_UNAVAILABLE', retryable: true });
    expect(error.message).to.contain('within 100 ms');
  });

  it('rejects at once when the connection breaks before the answer', async () => {
    server.handlers['execution.stop'] = () => NO_ANSWER;
    const startedAt = Date.now();
    const failed = fault(client.executions.stop(ID));
    await until(() => server.calls.length === 1, 'the stop arrives');
    server.breakConnections();
    expect(await failed).to.include({ code: 'FS_UNAVAILABLE' });
    expect(Date.now() - startedAt).to.be.below(900);
  });

  it('waits for a connection that is not there yet', async () => {
    await client.ready();
    server.handlers['execution.get'] = () => record();
    server.breakConnections();
    await until(() => !client.connected, 'the client notices');
    expect((await client.executions.get(ID)).id).to.equal(ID);
  });

  it('connects again after the server hung up', async () => {
    await client.ready();
    server.handlers['execution.get'] = () => record();
    server.hangUp();
    await until(() => !client.connected, 'the client notices');
    expect((await client.executions.get(ID)).id).to.equal(ID);
  });

  it('never delivers a call that it reported as failed', async () => {
    client.close();
    const { url } = server;
    await server.close();
    client = connect({ url, timeoutMs: 100 });
    expect(await fault(client.executions.start({ workflow: 'scan' }))).to.include({ code: 'FS_UNAVAILABLE' });
    server = new ScriptedServer({ health: () => ({ status: 'ok' }) });
    await server.listen(Number(new URL(url).port));
    await until(() => client.connected, 'the client connects');
    await client.health();
    expect(server.calls.map(({ verb }) => verb)).to.deep.equal(['health']);
  });

  it('says at once that nothing listens', async () => {
    client.close();
    await server.close();
    client = connect({ url: server.url });
    const error = await fault(client.ready());
    expect(error).to.include({ code: 'FS_UNAVAILABLE' });
    expect(error.message).to.contain(`nothing answers at ${server.url}`);
  });

  it('gives up for good when the key is refused', async () => {
    client.close();
    server.tokens = [];
    client = connect({ url: server.url, key: 'fs_wrong' });
    expect(await fault(client.ready())).to.include({ code: 'FS_UNAUTHENTICATED' });
    expect(await fault(client.health())).to.include({ code: 'FS_UNAUTHENTICATED' });
  });

  it('fails what waits when its key is deleted', async () => {
    await client.ready();
    const events = client.executions.watch();
    server.handlers['executions.subscribe'] = () => ({});
    const next = fault(events.next());
    await until(() => server.calls.length === 1, 'the subscription arrives');
    server.tokens = [];
    server.hangUp();
    expect(await next).to.include({ code: 'FS_UNAUTHENTICATED' });
  });

  it('fails what waits when it is closed', async () => {
    server.handlers['execution.get'] = () => NO_ANSWER;
    const failed = fault(client.executions.get(ID));
    client.close();
    expect(await failed).to.include({ code: 'FS_UNAVAILABLE', message: 'the client was closed' });
    expect(await fault(client.health())).to.include({ code: 'FS_UNAVAILABLE' });
  });

  describe('watch', () => {
    it('gives each change of an execution', async () => {
      server.handlers['executions.subscribe'] = () => ({});
      server.handlers['executions.unsubscribe'] = () => ({});
      const changes = client.executions.watch({ project: 'default' });
      const next = changes.next();
      await until(() => server.calls.length === 1, 'the subscription arrives');
      expect(server.calls[0]).to.deep.equal({ verb: 'executions.subscribe', payload: { project: 'default' } });
      server.emit('execution.changed', item({ seq: 1 }));
      expect((await next).value).to.include({ id: ID, seq: 1 });
      server.emit('execution.changed', item({ seq: 5, project: 'other' }));
      server.emit('execution.changed', item({ seq: 2 }));
      expect((await changes.next()).value).to.include({ seq: 2 });
      await changes.return();
      await until(() => server.calls.length === 2, 'the subscription ends');
      expect(server.calls[1]?.verb).to.equal('executions.unsubscribe');
    });

    it('gives a slow reader the newest state of each', async () => {
      server.handlers['executions.subscribe'] = () => ({});
      const changes = client.executions.watch();
      const next = changes.next();
      await until(() => server.calls.length === 1, 'the subscription arrives');
      for (let seq = 1; seq <= 500; seq += 1) server.emit('execution.changed', item({ seq }));
      server.emit('execution.changed', item({ id: 'last' }));
      const seen = [(await next).value];
      await new Promise((resolve) => setTimeout(resolve, 50));
      while (seen.at(-1)?.id !== 'last') seen.push((await changes.next()).value);
      expect(seen.length).to.be.below(10);
      expect(seen.filter((changed) => changed?.id === ID).at(-1)).to.include({ seq: 500 });
      // A late push of an older state changes nothing.
      server.emit('execution.changed', item({ seq: 502 }));
      server.emit('execution.changed', item({ seq: 501 }));
      server.handlers.health = () => ({ status: 'ok' });
      await client.health();
      expect((await changes.next()).value).to.include({ seq: 502 });
    });

    it('reads after a reconnect what it may have missed', async () => {
      server.handlers['executions.subscribe'] = () => ({});
      const changes = client.executions.watch();
      const first = changes.next();
      await until(() => server.calls.length === 1, 'the subscription arrives');
      server.emit('execution.changed', item({ id: 'old', seq: 1 }));
      expect((await first).value).to.include({ id: 'old' });
      server.handlers['execution.list'] = () => ({ items: [item({ id: 'new' })], nextCursor: null });
      server.handlers['execution.get'] = ({ id }) =>
        record({ id, seq: 9, status: 'Complete', endedAt: item().createdAt });
      const second = changes.next();
      server.breakConnections();
      const missed = [(await second).value, (await changes.next()).value];
      expect(missed.map((changed) => [changed?.id, changed?.seq])).to.deep.equal([
        ['new', 1],
        ['old', 9],
      ]);
      expect(missed[1]).to.not.have.property('nodes');
    });
  });
});
