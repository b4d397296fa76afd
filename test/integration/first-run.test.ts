import { expect } from 'chai';
import { type Data, ServerProcess, until } from '../support/server-process.ts';

const MARKER = 'workflow stopped by user';

describe('the first minute, from an empty directory', function () {
  this.timeout(120_000);
  let server: ServerProcess;
  let demo: { name: string; executionId: string }[];

  before(async () => {
    server = await ServerProcess.start({ args: ['--json'] });
    const line = await until(
      'its line',
      async () => server.stdout,
      (text) => text.includes('\n'),
    );
    demo = JSON.parse(line.slice(0, line.indexOf('\n'))).demo;
  });

  after(() => server.close());

  const of = (name: string): string => {
    const found = demo.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no ${name} among ${JSON.stringify(demo)}`);
    return found.executionId;
  };

  it('three demonstration workflows are saved and one execution of each runs', async () => {
    expect(demo.map(({ name }) => name)).to.have.members(['demo-poll', 'demo-graph', 'demo-foreach']);
    const { items } = await server.ok('GET', '/api/workflows');
    expect(items.map(({ name }: Data) => name)).to.include.members(['demo-poll', 'demo-graph', 'demo-foreach']);
    for (const { executionId } of demo) await server.record(executionId, ({ status }) => status === 'Running');
  });

  it('`ps` lists them', async () => {
    const { code, stdout } = await server.cli('ps');
    expect(code).to.equal(0);
    for (const { name, executionId } of demo) {
      expect(stdout).to.include(executionId);
      expect(stdout).to.include(name);
    }
    const json = JSON.parse((await server.cli('ps', '--json')).stdout);
    expect((json.items ?? json).map(({ id }: Data) => id)).to.include.members(
      demo.map(({ executionId }) => executionId),
    );
  });

  it('the poll polls, the graph calls, holds and waits, the list is worked through', async () => {
    await server.record(of('demo-poll'), ({ nodes }) => (nodes.poll.iteration?.index ?? 0) >= 1, 15_000);
    await server.record(
      of('demo-graph'),
      ({ nodes }) =>
        nodes.scan.status === 'Running' && nodes.approve.status === 'Held' && nodes.report.status === 'Pending',
      15_000,
    );
    await server.record(of('demo-foreach'), ({ nodes }) => nodes.hosts.children?.running === 2, 15_000);
  });

  it('a trigger over the command line releases the held node', async () => {
    expect((await server.cli('trigger', of('demo-graph'), 'approve')).code).to.equal(0);
    await server.record(of('demo-graph'), ({ nodes }) => nodes.approve.status === 'Complete');
  });

  it('`stop --preview` says what would be, and stops nothing', async () => {
    const { code, stdout } = await server.cli('stop', '--preview', of('demo-graph'));
    expect(code).to.equal(0);
    expect(stdout).to.match(/aborts +scan \(http on the worker/);
    expect(await server.ok('GET', `/api/executions/${of('demo-graph')}`)).to.include({ status: 'Running', stop: null });
  });

  for (const name of ['demo-poll', 'demo-graph', 'demo-foreach']) {
    it(`\`stop --wait\` ends ${name}`, async () => {
      const id = of(name);
      const { code, stdout, stderr } = await server.cli('stop', id, '--wait');
      expect(code, stderr).to.equal(0);
      expect(stdout).to.include(id);
      const record = await server.ok('GET', `/api/executions/${id}`);
      expect(record).to.include({ status: 'Failed', error: MARKER, stoppedByUser: true });
      for (const child of (await server.ok('GET', `/api/executions?parent=${id}`)).items) {
        expect(child.endedAt, child.id).not.to.equal(null);
      }
      const shown = await server.cli('show', id);
      expect(shown.stdout).to.include(MARKER);
      expect((await server.cli('receipt', id)).code).to.equal(0);
      // Once more is the same stop.
      expect((await server.cli('stop', id)).code).to.equal(0);
    });
  }

  it('the endpoint is the demonstration’s alone: somebody else’s workflow is not let through', async () => {
    const { definition } = await server.ok('GET', '/api/workflows/demo-poll');
    const id = await server.run({ name: 'mine', nodes: { ask: definition.nodes.poll.body.check } } as unknown as {
      name: string;
    });
    const ended = await server.record(id, ({ nodes }) => nodes.ask.error !== null, 15_000);
    expect(ended.nodes.ask.errorCode).to.equal('FS_HTTP_BLOCKED');
  });

  it('the link opens a session once', async () => {
    const { firstVisitUrl } = JSON.parse(server.stdout.slice(0, server.stdout.indexOf('\n')));
    expect(firstVisitUrl).to.match(new RegExp(`^${server.url}/`));
    const first = await fetch(firstVisitUrl, { redirect: 'manual' });
    expect(first.status).to.equal(302);
    const cookie = first.headers.get('set-cookie') ?? '';
    expect(cookie)
      .to.match(/HttpOnly/i)
      .and.match(/SameSite=(Strict|Lax)/i);
    const session = { headers: { cookie: cookie.split(';')[0] as string } };
    expect((await fetch(`${server.url}/api/executions`, session)).status).to.equal(200);
    const again = await fetch(firstVisitUrl, { redirect: 'manual' });
    expect(again.status).to.equal(401);
    expect(again.headers.get('set-cookie')).to.equal(null);
    expect((await fetch(`${server.url}/api/executions`)).status).to.equal(401);
  });

  it('a restart starts the demonstration again where it was stopped, and leaves alone what runs', async () => {
    const started = async (): Promise<Data[]> => (await server.ok('GET', '/api/executions?label=demo=true')).items;
    const before = (await started()).length;
    await server.restart();
    await until('one of each', started, (items) => items.length === before + 3);
    const live = (await started()).filter(({ endedAt }: Data) => endedAt === null).map(({ id }: Data) => id);
    await server.restart();
    const after = await started();
    expect(after).to.have.length(before + 3);
    expect(after.filter(({ endedAt }: Data) => endedAt === null).map(({ id }: Data) => id)).to.have.members(live);
  });
});
