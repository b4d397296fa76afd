/** The Actors view as a person uses it: a real browser, a real server, the endpoint that any Stately viewer uses. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect } from 'chai';
import type { Page } from 'playwright-core';
import type { Endpoint } from '../support/endpoint.ts';
import { ServerProcess, until } from '../support/server-process.ts';
import { picture, seriousFaults, useInspector } from './support.ts';

const dist = join(import.meta.dirname, '..', '..', 'inspector', 'dist');
const FIRST_LOAD_BYTES_MAX = 200_000;
const STEPS_MAX = 5_000;

describe('actors', function () {
  this.timeout(120_000);

  const inspected = useInspector();
  const { open } = inspected;
  let endpoint: Endpoint;
  let server: ServerProcess;

  before(async () => {
    ({ endpoint, server } = inspected);
    await server.ok('POST', '/api/workflows', {
      name: 'order',
      nodes: {
        stock: { type: 'http', with: { url: `${endpoint.url}/now?value=7` } },
        price: { type: 'http', needs: ['stock'], with: { url: `${endpoint.url}/park` } },
        approve: { type: 'hold', needs: ['stock'], trigger: 'approve' },
        buy: { type: 'http', needs: ['price', 'approve'], with: { url: `${endpoint.url}/now` } },
      },
    });
  });

  async function running(): Promise<string> {
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'order' });
    await endpoint.calling(`${id}/price`);
    await server.record(id, (record) => record.nodes.approve.status === 'Held');
    return id;
  }

  /** `NAME STATE` of each row, indented as the tree is. */
  const tree = (page: Page): Promise<string[]> =>
    page.getByRole('treeitem').evaluateAll((rows) =>
      rows.map(
        (row) =>
          `${'  '.repeat(Number(row.ariaLevel) - 1)}${[...row.children]
            .map((part) => part.textContent)
            .join(' ')
            .trim()}`,
      ),
    );

  const lit = (page: Page): Promise<string[]> =>
    page
      .locator('[data-active="true"]')
      .evaluateAll((states) => states.map((state) => (state as SVGGElement).dataset.state ?? ''));

  const lights = (page: Page, wanted: string[]): Promise<string[]> =>
    until(
      `${wanted.join(' and ')} lit`,
      () => lit(page),
      (found) => found.join() === wanted.join(),
    );

  it('shows the tree, lights the states, follows a stop, and steps back to what was before', async () => {
    const id = await running();
    const page = await open(`/executions/${id}`);
    const workers: string[] = [];
    page.on('request', (request) => {
      if (/elk/.test(request.url())) workers.push(request.url());
    });
    await page.getByRole('link', { name: 'Actors', exact: true }).click();
    await lights(page, ['running']);
    expect(await tree(page)).to.deep.equal([
      'engine serving',
      '  execution order running',
      '    stock complete',
      '      task, attempt 1 completed',
      '    price running',
      '      task, attempt 1 handed over',
      '    approve held',
    ]);
    await page.getByText('1 node Pending: no actor until ready.').waitFor();
    await page.getByRole('img', { name: 'execution is in running' }).waitFor();
    // A flat chart needs no worker; one with states within states does.
    expect(workers).to.deep.equal([]);
    await page.getByRole('treeitem', { name: /price/ }).click();
    await page.getByRole('img', { name: 'price is in running' }).waitFor();
    expect(new URL(page.url()).searchParams.get('actor')).to.equal('node:price');
    expect(workers.some((url) => /elk-worker/.test(url))).to.equal(true);
    for (const state of ['looping', 'looping.testing', 'aborting', 'keptHeld'])
      expect(await page.locator(`[data-state="${state}"]`).count(), state).to.equal(1);
    // By keyboard: to the engine's and back.
    await page.getByRole('tree').focus();
    await page.keyboard.press('Home');
    await lights(page, ['serving']);
    await page.keyboard.press('ArrowDown');
    await lights(page, ['running']);

    await server.ok('POST', `/api/executions/${id}/stop`);
    await lights(page, ['failed']);
    await page.getByText(/^At its end, step/).waitFor();
    await until(
      'the end of each',
      () => tree(page),
      (rows) => rows.join().includes('price failed') && rows.join().includes('approve keptHeld'),
    );
    const ended = await tree(page);
    expect(ended).to.include('      task, attempt 1 aborted');

    // Back: stopping, with the task told; and before that, running.
    await page.locator('main').click({ position: { x: 2, y: 2 } });
    const back = async (to: () => Promise<boolean>): Promise<void> => {
      for (let left = 50; left > 0 && !(await to()); left -= 1) await page.keyboard.press('ArrowLeft');
    };
    await back(async () => (await tree(page)).includes('    price aborting'));
    await lights(page, ['stopping']);
    await picture(page, 'inspector-actors.png');
    await back(async () => (await lit(page)).join() === 'running');
    await lights(page, ['running']);
    await page.getByText(/^Paused, step \d+ of/).waitFor();
    const step = Number(/step (\d+)/.exec(await page.getByTestId('step').innerText())?.[1]);
    await page.waitForURL((url) => url.searchParams.get('step') === String(step));
    await page.getByRole('button', { name: 'First step' }).click();
    await page.getByRole('treeitem', { name: /price running/ }).waitFor();
    expect(await page.getByRole('treeitem', { name: /approve/ }).innerText()).to.match(/held$/);
    // Forward again, by the sequence, to the stop itself.
    await page.getByRole('button', { name: /engine to execution: execution\.stop$/ }).click();
    await page.getByRole('button', { name: 'Last' }).click();
    await lights(page, ['failed']);
    expect(await tree(page)).to.deep.equal(ended);
  });

  it('keeps what was recorded while another view is open', async () => {
    const id = await running();
    const page = await open(`/executions/${id}/actors`);
    await lights(page, ['running']);
    await page.getByRole('link', { name: 'Events', exact: true }).click();
    await page.getByText('node.held').waitFor();
    await server.ok('POST', `/api/executions/${id}/triggers/approve`);
    await server.record(id, ({ nodes }) => nodes.approve.status === 'Complete');
    await page.getByRole('link', { name: 'Actors', exact: true }).click();
    await page.getByRole('button', { name: /Nobody looked meanwhile/ }).waitFor();
    await page.getByRole('treeitem', { name: /approve complete/ }).waitFor();
    await page.keyboard.press('ArrowLeft');
    await page.getByRole('treeitem', { name: /approve held/ }).waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);
    await server.record(id);
  });

  it('shows one that has ended as its record has it, by a link to one of its actors', async () => {
    const id = await running();
    await server.ok('POST', `/api/executions/${id}/stop`);
    await server.record(id);
    const page = await open(`/executions/${id}/actors?actor=node:approve&step=17`);
    await lights(page, ['keptHeld']);
    await page.getByText('It had ended before this was opened').waitFor();
    expect(await tree(page)).to.deep.equal([
      'execution order failed',
      '  stock complete',
      '    task, attempt 1 completed',
      '  price failed',
      '    task, attempt 1 aborted',
      '  approve keptHeld',
    ]);
    await page.goto(`${server.url}/executions/${id}/actors?actor=node:buy`);
    await page.getByText('There is no actor buy now.').waitFor();
    await page.goto(`${server.url}/executions/${id}?node=price`);
    await page.getByRole('link', { name: 'Its actor' }).click();
    await lights(page, ['failed']);
  });

  it('goes on after the server was killed, and says what it did not hear', async () => {
    const id = await running();
    const page = await open(`/executions/${id}/actors?actor=node:price`);
    await lights(page, ['running']);
    await server.kill();
    await page.getByText(/^Reconnecting, step/).waitFor();
    await lights(page, ['running']);
    await server.start();
    await page.getByRole('button', { name: /The connection was lost meanwhile/ }).waitFor();
    await page.getByText(/^Live, step/).waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);
    await lights(page, ['failed']);
  });

  it('shows every actor of a large execution, however long they take to come', async () => {
    const nodes = Object.fromEntries(
      Array.from({ length: 2_000 }, (_, index) => [
        `n${index}`,
        index === 0 ? { type: 'hold', trigger: 'go' } : { type: 'set', with: { value: 1 } },
      ]),
    );
    await server.ok('POST', '/api/workflows', { name: 'large', nodes });
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'large' });
    const page = await open(`/executions/${id}/actors`);
    await until(
      'the actors',
      () => page.getByRole('treeitem').first().getAttribute('aria-setsize'),
      (size) => size === '2002',
    );
    expect(await page.getByRole('treeitem').count()).to.be.lessThan(80);
    await page.getByRole('tree').focus();
    await page.keyboard.press('End');
    await page.getByRole('treeitem', { name: 'n1999 complete', selected: true }).waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);
  });

  it('keeps the newest steps of a busy execution, and says so', async () => {
    const loop = {
      type: 'while',
      condition: 'true',
      maxIterations: 1_000_000,
      delay: '10ms',
      body: { one: { type: 'set', with: { value: 1 } } },
    };
    await server.ok('POST', '/api/workflows', { name: 'busy', nodes: { a: loop, b: loop, c: loop, d: loop } });
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'busy' });
    const page = await open(`/executions/${id}/actors`);
    await until(
      'older steps dropped',
      () => page.locator('.stepper').innerText(),
      (text) => /the last 5,000 steps; [\d,]+ older ones dropped/.test(text),
    );
    await server.ok('POST', `/api/executions/${id}/stop`);
    await page.getByText(/^At its end, step/).waitFor();
    const slider = page.getByRole('slider', { name: 'Step' });
    const [first, last] = [Number(await slider.getAttribute('min')), Number(await slider.getAttribute('max'))];
    expect(last - first + 1).to.equal(STEPS_MAX);
    // The tree has each node once, whatever the iteration.
    expect((await tree(page)).length).to.equal(2 + 2 * 4);
    await page.getByRole('button', { name: 'First step' }).click();
    await lights(page, ['running']);
    expect((await tree(page)).length).to.equal(2 + 2 * 4);
    // Only what is in sight is drawn.
    expect(await page.locator('.sequence li').count()).to.be.lessThan(60);
  });

  it('says of a server that has inspection turned off that it is', async () => {
    const closed = await ServerProcess.start({ env: { FULLSTOP_INSPECT: '0' } });
    try {
      await closed.ok('POST', '/api/workflows', { name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } });
      const { id } = await closed.ok('POST', '/api/executions', { workflow: 'held' });
      const page = await open(`/executions/${id}/actors`, {}, closed);
      await page.getByText('This server shows nobody its actors.').waitFor();
      expect(await seriousFaults(page)).to.deep.equal([]);
    } finally {
      await closed.close();
    }
  });

  it('costs the first load nothing: 200 kB of gzipped script, and no layout engine in it', () => {
    const read = (file: string): Buffer => readFileSync(join(dist, 'assets', file));
    const html = readFileSync(join(dist, 'index.html'), 'utf8');
    const scripts = readdirSync(join(dist, 'assets')).filter((file) => file.endsWith('.js'));
    const first = scripts.filter((file) => html.includes(file));
    const bytes = first.reduce((sum, file) => sum + gzipSync(read(file)).length, 0);
    expect(bytes).to.be.within(1, FIRST_LOAD_BYTES_MAX);
    // The view, the layout of flat charts, and that of nested ones, each in a script that comes when it is needed.
    for (const mark of ['shows nobody its actors', 'rankdir', 'org.eclipse.elk.layered'])
      expect(first.filter((file) => read(file).includes(mark))).to.deep.equal([], mark);
    const holding = scripts.filter((file) => read(file).includes('org.eclipse.elk.layered'));
    expect(holding.length).to.equal(1);
    expect(holding[0]).to.match(/^elk-worker/);
  });
});
