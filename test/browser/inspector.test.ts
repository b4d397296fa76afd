/** The inspector as a person uses it: a real browser, a real server, real calls that hang until they are cut. */
import { expect } from 'chai';
import type { Browser, Page } from 'playwright-core';
import type { Endpoint } from '../support/endpoint.ts';
import { type ServerProcess, until } from '../support/server-process.ts';
import { picture, seriousFaults, startFarAgent, useInspector } from './support.ts';

describe('inspector', function () {
  this.timeout(120_000);

  const inspected = useInspector();
  const { open } = inspected;
  let browser: Browser;
  let endpoint: Endpoint;
  let server: ServerProcess;
  let order: { name: string } & Record<string, unknown>;

  before(async () => {
    ({ browser, endpoint, server } = inspected);
    order = {
      name: 'order',
      description: 'Buys a lamp.',
      inputs: {
        item: { type: 'string', required: true, description: 'What to buy' },
        gift: { type: 'boolean', default: false },
      },
      nodes: {
        stock: { type: 'http', with: { url: `${endpoint.url}/now?value=7` } },
        offers: { type: 'http', with: { url: `${endpoint.url}/bad` }, continueOnError: true },
        wrap: { type: 'set', if: 'input.gift', needs: ['stock'], with: { value: 'paper' } },
        price: { type: 'http', needs: ['stock'], with: { url: `${endpoint.url}/park` } },
        rival: { type: 'http', needs: ['offers'], with: { url: `${endpoint.url}/park` } },
        approve: { type: 'hold', needs: ['stock'], trigger: 'approve' },
        buy: { type: 'http', needs: ['price', 'rival', 'approve'], with: { url: `${endpoint.url}/now` } },
      },
    };
    await server.ok('POST', '/api/workflows', order);
  });

  /** An order whose two calls hang, with one node Held. */
  async function running(labels: Record<string, string> = {}): Promise<string> {
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'order', input: { item: 'lamp' }, labels });
    await endpoint.calling(`${id}/price`);
    await endpoint.calling(`${id}/rival`);
    await server.record(id, (record) => record.nodes.approve.status === 'Held');
    return id;
  }

  async function ended(item: string): Promise<string> {
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'quick', input: { item } });
    await server.record(id);
    return id;
  }

  const ids = async (page: Page): Promise<string[]> =>
    (await page.locator('.row .mono').allTextContents()).map((text) => text.trim()).sort();

  const shows = (page: Page, wanted: string[]): Promise<string[]> =>
    until(
      'the list',
      () => ids(page),
      (shown) => JSON.stringify(shown) === JSON.stringify([...wanted].sort()),
    );

  async function kill(page: Page): Promise<void> {
    await page.getByRole('button', { name: 'Workflow actions' }).click();
    await page.getByRole('menuitem', { name: 'Kill workflow' }).click();
  }

  it('kills: preview with the focus on Cancel, the request, the receipt, and every node as the contract says', async () => {
    const id = await running();
    const page = await open(`/executions/${id}`);
    await page.getByRole('button', { name: /^price/ }).waitFor();
    await picture(page, 'inspector-graph.png');

    await kill(page);
    const dialog = page.getByRole('alertdialog');
    await dialog.getByText('Will be aborted').waitFor();
    expect(await page.evaluate(() => document.activeElement?.textContent)).to.equal('Cancel');
    const text = await dialog.innerText();
    expect(text)
      .to.match(/Will be aborted\s+price http on the worker/)
      .and.to.match(/rival http on the worker/);
    expect(text).to.match(/Kept as they are\s+1 Complete, 1 Failed, 1 Skipped/);
    expect(text)
      .to.match(/Stay Pending\s+buy/)
      .and.to.match(/Stay Held\s+approve/);
    expect(await dialog.locator('input, textarea').count()).to.equal(0);
    await picture(page, 'inspector-kill.png');

    // Cancel stops nothing.
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'hidden' });
    expect((await server.ok('GET', `/api/executions/${id}`)).stop).to.equal(null);

    await kill(page);
    await dialog.getByText('Will be aborted').waitFor();
    await dialog.getByRole('button', { name: 'Kill workflow' }).click();
    await page.getByRole('status').getByText('stop has been requested').waitFor();
    expect(page.url()).to.equal(`${server.url}/executions/${id}/stop`);
    await page.getByText('Final record stored').waitFor();
    const receipt = await page.getByLabel('Receipt of the stop').innerText();
    expect(receipt)
      .to.match(/Requested/)
      .and.to.match(/\+\d+ ms\s+Delivered/)
      .and.to.match(/\+\d+ ms\s+Halted/);
    for (const node of ['price', 'rival']) {
      await page.getByRole('row', { name: new RegExp(`^${node} http worker 1 aborted \\d+ ms$`) }).waitFor();
    }
    await page.getByText('Failed, stopped by user').waitFor();
    await picture(page, 'inspector-stop.png');
    const [parked] = await endpoint.calling(`${id}/price`, ([call]) => call?.end !== null);
    expect(parked?.end).to.equal('aborted');

    await page.goto(`${server.url}/executions/${id}?view=table`);
    for (const [node, state] of Object.entries({
      stock: 'Complete',
      offers: 'Failed',
      wrap: 'Skipped',
      price: 'Failed',
      rival: 'Failed',
      approve: 'Held',
      buy: 'Pending',
    })) {
      await page.getByRole('row', { name: new RegExp(`^${node} ${state} `) }).waitFor();
    }
    // A stop is offered once, and the menu says why not again.
    await page.getByRole('button', { name: 'Workflow actions' }).click();
    const item = page.getByRole('menuitem', { name: /Kill workflow/ });
    expect(await item.getAttribute('aria-disabled')).to.equal('true');
    expect(await item.innerText()).to.contain('It is stopped already.');

    await page.getByRole('menuitem', { name: 'Run again' }).click();
    await page.waitForURL((url) => !url.pathname.includes(id) && url.pathname.startsWith('/executions/0'));
    const again = new URL(page.url()).pathname.split('/')[2] as string;
    const record = await server.ok('GET', `/api/executions/${again}`);
    expect(record.input).to.include({ item: 'lamp' });
    await server.ok('POST', `/api/executions/${again}/stop`);
    await server.record(again);
  });

  it('finds executions by each filter of the address, live', async () => {
    await server.ok('POST', '/api/workflows', {
      name: 'quick',
      inputs: { item: { type: 'string' } },
      nodes: {
        one: { type: 'set', if: "input.item != 'bad'", with: { value: 1 } },
        two: { type: 'fail', if: "input.item == 'bad'", with: { message: 'broken on purpose' } },
      },
    });
    const complete = await ended('good');
    const failed = await ended('bad');
    const live = await running({ team: 'red' });
    const stopped = await running();
    await server.ok('POST', `/api/executions/${stopped}/stop`);
    await server.record(stopped);
    const others = (await server.ok('GET', '/api/executions')).items
      .map((item: { id: string }) => item.id)
      .filter((id: string) => ![complete, failed, live, stopped].includes(id));
    const from = (await server.ok('GET', `/api/executions/${complete}`)).createdAt;

    const page = await open(`/executions?status=Complete`);
    await shows(page, [complete]);
    const filters: [string, string[]][] = [
      ['status=Running', [live]],
      ['status=Failed', [failed, stopped, ...others]],
      ['stopped=true', [stopped, ...others]],
      ['stopped=false', [failed]],
      ['workflow=quick', [complete, failed]],
      ['label=team%3Dred', [live]],
      ['q=broken', [failed]],
      [`q=${complete}`, [complete]],
      [`from=${encodeURIComponent(from)}`, [complete, failed, live, stopped]],
      [`to=${encodeURIComponent(from)}&workflow=order`, others],
      ['since=15m&workflow=quick&status=Failed', [failed]],
      ['workflow=nothing', []],
    ];
    for (const [query, wanted] of filters) {
      await page.goto(`${server.url}/executions?${query}`);
      await page.getByTestId('count').filter({ hasText: /\d/ }).waitFor();
      await shows(page, wanted);
    }
    await page.getByText('No execution matches these filters.').waitFor();

    // The controls write the address, and it comes back from there.
    await page.goto(`${server.url}/executions`);
    await page.getByRole('button', { name: 'Stopped by user' }).click();
    await shows(page, [stopped, ...others]);
    expect(new URL(page.url()).search).to.equal('?status=Failed&stopped=true');
    await page.getByRole('button', { name: 'All', exact: true }).click();
    await page.keyboard.press('/');
    await page.keyboard.type('broken');
    await shows(page, [failed]);
    expect(new URL(page.url()).search).to.equal('?q=broken');

    // What starts, and what ends, is seen without asking.
    await page.goto(`${server.url}/executions?status=Running`);
    await shows(page, [live]);
    const later = await running();
    await shows(page, [live, later]);

    await page.goto(`${server.url}/executions`);
    await shows(page, [complete, failed, live, stopped, later, ...others]);
    await picture(page, 'inspector-list.png');
    await page.goto(`${server.url}/executions?status=Running`);
    await shows(page, [live, later]);

    // By keyboard alone: to the first, select, to the next, select, stop.
    for (const key of ['j', 'x', 'j', 'x', 's']) await page.keyboard.press(key);
    const dialog = page.getByRole('alertdialog');
    await dialog.getByRole('button', { name: 'Stop 2 executions' }).click();
    await dialog.getByText('2 stops requested, 0 had ended, 0 failed.').waitFor();
    expect(await dialog.locator('li').count()).to.equal(2);
    await dialog.getByRole('button', { name: 'Close' }).click();
    await shows(page, []);
    for (const id of [live, later]) expect((await server.record(id)).stoppedByUser).to.equal(true);
  });

  it('says before a kill what no stop can reach, and after it that this runs on and is discarded', async () => {
    const agent = await startFarAgent(server);
    try {
      const id = await server.run({
        name: 'far-away',
        nodes: { scan: { type: 'agent', with: { pool: 'lab', tool: 'sleep', args: ['60'] } } },
      } as { name: string });
      await until(
        'the claim',
        () => server.ok('GET', `/api/executions/${id}/stop?preview=true`),
        ({ cannotCancel }) => cannotCancel.length === 1,
      );
      const page = await open(`/executions/${id}`);
      await kill(page);
      const dialog = page.getByRole('alertdialog');
      await dialog.getByText('Cannot be reached').waitFor();
      expect(await dialog.innerText()).to.match(/scan External Agent .*it runs on, and its result will be discarded/);
      await dialog.getByRole('button', { name: 'Kill workflow' }).click();
      await page.getByText('Final record stored').waitFor();
      await page.getByRole('row', { name: /^scan agent agent 1 runs on at its agent/ }).waitFor();
      await page.getByText(/has run on for .* since the stop; its result will be discarded/).waitFor();
      expect((await server.record(id)).nodes.scan.status).to.equal('Failed');
    } finally {
      await agent.close(0);
    }
  });

  it('says of what it waits for that nobody here runs it', async () => {
    await server.ok('POST', '/api/workflows', {
      name: 'answer',
      nodes: { ask: { type: 'ai', with: { model: 'default', prompt: 'why?' } } },
    });
    const { id } = (await server.ok('POST', '/api/executions', { workflow: 'answer', input: {} })) as { id: string };
    const page = await open(`/executions/${id}`);
    await page.getByText('Waiting: no worker here runs ai tasks.').waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);
  });

  it('comes back to a server that is killed in the middle of a stop, and shows it to its end', async () => {
    const id = await running();
    const page = await open(`/executions/${id}/events`);
    await page.getByText('node.held').waitFor();
    await page.getByText('Live', { exact: true }).waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);
    await server.kill();
    await page.getByText('The connection is lost.').waitFor();
    expect(await page.getByText('node.held').count()).to.equal(1);
    await server.start();
    await page.getByText('Live', { exact: true }).waitFor();
    await page.getByText('execution.failed').waitFor();
    await page.getByText('Failed, stopped by user').waitFor();
    await page.getByRole('link', { name: 'Stop', exact: true }).click();
    await page.getByText('Final record stored').waitFor();
    // Each event is there once.
    await page.getByRole('link', { name: 'Events', exact: true }).click();
    await page.getByText('execution.failed').waitFor();
    const stored = await server.events(id);
    expect(await page.getByTestId('events-count').innerText()).to.equal(`${stored.length} events`);
  });

  it('shows one page for an execution that is not there and for one that the key may not see', async () => {
    const id = await running();
    const { key } = await server.ok('POST', '/api/keys', { name: 'stranger', role: 'viewer', project: 'elsewhere' });
    const none = '01a20000-0000-7000-8000-000000000000';
    const seen: string[] = [];
    for (const one of [id, none]) {
      const page = await open(`/executions/${one}`, { key });
      await page.getByText('There is no such execution').waitFor();
      seen.push((await page.locator('main').innerHTML()).replaceAll(one, 'ID'));
      expect(await page.title()).to.equal('Execution · Fullstop');
    }
    expect(seen[0]).to.equal(seen[1]);

    // Whoever may see it may stop it, a viewer too; to start it again is not a viewer's.
    const { key: viewer } = await server.ok('POST', '/api/keys', { name: 'night', role: 'viewer', project: 'default' });
    const page = await open(`/executions/${id}`, { key: viewer });
    await page.getByRole('button', { name: 'Workflow actions' }).click();
    const again = page.getByRole('menuitem', { name: /Run again/ });
    await until(
      'its reason',
      () => again.innerText(),
      (text) => text.includes("yours is a viewer's"),
    );
    await page.keyboard.press('Escape');
    await kill(page);
    await page.getByRole('alertdialog').getByRole('button', { name: 'Kill workflow' }).click();
    await page.getByText('Final record stored').waitFor();
    expect((await server.record(id)).stoppedByUser).to.equal(true);
  });

  it('asks for a key without a session, and takes the link of the first visit instead', async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${server.url}/executions?status=Failed`);
    await page.getByLabel('API key').fill('wrong');
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByRole('alert').waitFor();
    await page.getByLabel('API key').fill(server.key);
    await page.getByRole('button', { name: 'Open' }).click();
    await page.getByRole('heading', { name: 'Executions' }).waitFor();
    expect(page.url()).to.equal(`${server.url}/executions?status=Failed`);
    await context.close();

    const visitor = await browser.newContext();
    const visit = await visitor.newPage();
    const [link] = /http:\S+first-visit\S+/.exec(server.stdout) ?? [];
    await visit.goto(link as string);
    await visit.getByText('Live', { exact: true }).waitFor();
    expect(await visit.evaluate(() => document.cookie)).to.equal('');
    expect(new URL(visit.url()).pathname).to.equal('/executions');

    // Once more, the link leads to the session that it opened; in another browser it says what to do instead.
    await visit.goto(link as string);
    await visit.getByRole('heading', { name: 'Executions' }).waitFor();
    expect(new URL(visit.url()).pathname).to.equal('/executions');
    const late = await browser.newContext();
    const latecomer = await late.newPage();
    await latecomer.goto(link as string);
    await latecomer.getByRole('alert').getByText('That link is over: each works once.').waitFor();
    expect(await seriousFaults(latecomer)).to.deep.equal([]);
    await latecomer.getByLabel('API key').fill(server.key);
    await latecomer.keyboard.press('Enter');
    await latecomer.getByRole('heading', { name: 'Executions' }).waitFor();
    await late.close();

    // A session ends with the server: whoever looks on is told, and a key brings them back to where they were.
    const id = await running();
    await visit.goto(`${server.url}/executions/${id}/events`);
    await visit.getByText('node.held').waitFor();
    await server.restart();
    await visit.getByRole('alert').getByText('Your session is over').waitFor();
    await visit.getByText('a start prints a new one').waitFor();
    expect(await seriousFaults(visit)).to.deep.equal([]);
    await visit.getByLabel('API key').fill(server.key);
    await visit.keyboard.press('Enter');
    await visit.getByText('node.held').waitFor();
    expect(visit.url()).to.equal(`${server.url}/executions/${id}/events`);
    await visitor.close();
    await server.ok('POST', `/api/executions/${id}/stop`);
    await server.record(id);
  });

  it('lists the versions of a workflow, those that never ran too', async () => {
    const version = (value: number): object => ({ name: 'twice', nodes: { a: { type: 'set', with: { value } } } });
    const first = await server.ok('POST', '/api/workflows', version(1));
    const second = await server.ok('POST', '/api/workflows', version(2));
    const page = await open('/workflows/twice');
    const versions = page.getByLabel('Versions');
    await versions.getByRole('row', { name: new RegExp(`^v2 ${second.hash.slice(0, 12)} .* this one$`) }).waitFor();
    await versions.getByRole('link', { name: 'v1' }).click();
    await page.waitForURL((url) => url.searchParams.get('hash') === first.hash);
    await page.getByLabel('File of twice').getByText('"value": 1').waitFor();
    expect(await page.locator('.versions tr.is-current').innerText()).to.match(/^v1\b/);
    expect(await seriousFaults(page)).to.deep.equal([]);
  });

  it('runs a workflow from its form, sends a trigger, and marks the faults of a pasted file', async () => {
    const page = await open('/workflows/order');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.getByText('item is needed.').waitFor();
    await page.getByLabel('item string, required').fill('desk');
    await page.getByLabel('gift boolean').selectOption('true');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.waitForURL(/\/executions\/0/);
    const id = new URL(page.url()).pathname.split('/')[2] as string;
    const record = await server.record(id, ({ nodes }) => nodes.approve.status === 'Held');
    expect(record.input).to.deep.equal({ item: 'desk', gift: true });
    await page.getByRole('button', { name: /^approve Held/ }).click();
    await page.getByRole('button', { name: 'Send trigger approve' }).click();
    await server.record(id, ({ nodes }) => nodes.approve.status === 'Complete');
    await page.getByRole('button', { name: /^approve Complete/ }).waitFor();
    await server.ok('POST', `/api/executions/${id}/stop`);

    await page.goto(`${server.url}/workflows/_check`);
    await page.getByLabel('Workflow file, YAML or JSON').fill('name: bad\nnodes:\n  a:\n    type: nothing\n');
    await page.getByRole('button', { name: 'Check', exact: true }).click();
    await page.getByRole('heading', { name: '1 fault' }).waitFor();
    expect((await page.locator('.gutter .is-fault').innerText()).trim()).to.equal('✕ 4');
    await page
      .getByLabel('Workflow file, YAML or JSON')
      .fill('name: good\nnodes:\n  a:\n    type: set\n    with: { value: 1 }\n');
    await page.getByRole('button', { name: 'Check', exact: true }).click();
    await page.getByText('No faults.').waitFor();
    expect((await server.ok('GET', '/api/workflows')).items.map(({ name }: { name: string }) => name)).not.to.include(
      'good',
    );
  });

  it('draws of a large table what is in sight, and the graph of it by a layout that was made meanwhile', async () => {
    const nodes = Object.fromEntries(
      Array.from({ length: 600 }, (_, index) => [
        `n${index}`,
        index < 20 ? { type: 'hold', trigger: 'go' } : { type: 'set', with: { value: 1 }, needs: [`n${index - 20}`] },
      ]),
    );
    await server.ok('POST', '/api/workflows', { name: 'large', nodes });
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'large' });
    const page = await open('/executions');
    const layouts: string[] = [];
    page.on('request', (request) => {
      if (/plan\.worker/.test(request.url())) layouts.push(request.url());
    });
    await page.goto(`${server.url}/executions/${id}?view=table`);
    await page.getByRole('row', { name: /^n0 Held/ }).waitFor();
    expect(await page.locator('tbody tr').count()).to.be.lessThan(120);
    expect(await page.getByRole('table').getAttribute('aria-rowcount')).to.equal('601');
    await page.getByLabel('Nodes').evaluate((element) => element.scrollTo(0, element.scrollHeight));
    const last = page.getByRole('row', { name: /^n599 Pending/ });
    await last.waitFor();
    expect(await last.getAttribute('aria-rowindex')).to.equal('601');
    // Rows are where they would be if all were drawn.
    const [box, scroller] = await Promise.all([last.boundingBox(), page.getByLabel('Nodes').boundingBox()]);
    expect((box?.y ?? 0) + (box?.height ?? 0)).to.be.within(
      (scroller?.y ?? 0) + (scroller?.height ?? 0) - 40,
      (scroller?.y ?? 0) + (scroller?.height ?? 0) + 1,
    );
    await until(
      'a layout ahead of time',
      async () => layouts.length,
      (count) => count === 1,
    );
    await page.getByRole('button', { name: 'Graph', exact: true }).click();
    await page.locator('[data-testid="graph"][data-nodes="600"]').waitFor();
    await page.locator('.overview[data-drawn="600"]').waitFor();
    expect(layouts.length).to.equal(1);
    // Few elements, in which a press still finds its node.
    expect(await page.locator('.overview path').count()).to.equal(2);
    const held = await page.locator('.overview .is-Held').boundingBox();
    await page.mouse.click((held?.x ?? 0) + 2, (held?.y ?? 0) + 2);
    const panel = page.locator('aside.panel');
    await panel.getByText('it waits for the trigger "go"').waitFor();
    expect(new URL(page.url()).searchParams.get('node')).to.equal(await panel.getByRole('heading').first().innerText());
    await server.ok('POST', `/api/executions/${id}/stop`);
  });

  it('pauses events at a number and goes on from there', async () => {
    await server.ok('POST', '/api/workflows', {
      name: 'ticks',
      nodes: {
        tick: {
          type: 'while',
          condition: 'true',
          maxIterations: 10_000,
          delay: '50ms',
          body: { one: { type: 'set', with: { value: 1 } } },
        },
      },
    });
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'ticks' });
    const page = await open(`/executions/${id}/events?type=iteration`);
    await page.getByRole('button', { name: 'Pause' }).click();
    const counted = page.getByTestId('events-count');
    const [, seq] = /#(\d+)/.exec(await counted.innerText()) ?? [];
    expect(new URL(page.url()).searchParams.get('paused')).to.equal(seq);
    const rows = await page.locator('.event').count();
    await until(
      'newer ones',
      () => counted.innerText(),
      (text) => Number(/(\d+) newer/.exec(text)?.[1]) > 5,
    );
    expect(await page.locator('.event').count()).to.equal(rows);
    await page.getByRole('button', { name: 'Resume' }).click();
    await until(
      'more rows',
      () => page.locator('.event').count(),
      (found) => found > rows,
    );
    await server.ok('POST', `/api/executions/${id}/stop`);
  });

  for (const colorScheme of ['light', 'dark'] as const) {
    it(`has no serious fault of accessibility on any page, ${colorScheme}`, async () => {
      const id = await running();
      const stopped = (await server.ok('GET', '/api/executions?stoppedByUser=true&workflow=order')).items[0].id;
      const page = await open('/executions', { colorScheme, reducedMotion: 'reduce' });
      const paths: [string, string][] = [
        ['/executions', '.row'],
        ['/executions?q=nothing+like+it', '.empty'],
        [`/executions/${id}?node=approve`, '.node'],
        [`/executions/${id}?view=table`, 'table'],
        [`/executions/${id}/timeline`, '.bar'],
        [`/executions/${id}/events`, '.event'],
        [`/executions/${id}/actors`, '.chart-drawing'],
        [`/executions/${id}/actors?actor=node:price`, '.chart-drawing'],
        [`/executions/${stopped}/actors?actor=task:price/1`, '.task-facts'],
        [`/executions/${id}/logs`, '.empty'],
        [`/executions/${id}/results`, '.json'],
        [`/executions/${stopped}`, '.node'],
        [`/executions/${stopped}/stop`, '.steps'],
        ['/executions/none', '.empty'],
        ['/workflows', 'table'],
        ['/workflows/order', '.form'],
        ['/workflows/_check', '.editor'],
        ['/engines', 'table'],
        ['/audit', 'table'],
      ];
      const faults: string[] = [];
      for (const [path, mark] of paths) {
        await page.goto(server.url + path);
        await page.locator(mark).first().waitFor();
        faults.push(...(await seriousFaults(page)).map((fault) => `${path}: ${fault}`));
      }
      expect(faults).to.deep.equal([]);
      await page.goto(`${server.url}/executions/${id}`);
      await kill(page);
      await page.getByText('Will be aborted').waitFor();
      expect(await seriousFaults(page), 'kill dialog').to.deep.equal([]);
      if (colorScheme === 'dark') await picture(page, 'inspector-dark.png');
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Keyboard help' }).click();
      expect(await seriousFaults(page), 'help').to.deep.equal([]);
      await server.ok('POST', `/api/executions/${id}/stop`);
      await server.record(id);
    });
  }

  it('tells what a kill aborts from what nobody has begun', async () => {
    await server.ok('POST', '/api/workflows', {
      name: 'waits',
      nodes: {
        call: { type: 'http', with: { url: `${endpoint.url}/park` } },
        site: { type: 'agent', with: { pool: 'nobody', tool: 'nmap' } },
      },
    });
    const { id } = await server.ok('POST', '/api/executions', { workflow: 'waits' });
    await endpoint.calling(`${id}/call`);
    const page = await open(`/executions/${id}`);
    await kill(page);
    const dialog = page.getByRole('alertdialog');
    await dialog.getByText('Withdrawn before they start').waitFor();
    expect(await dialog.innerText())
      .to.match(/Will be aborted\s+call http on the worker, for/)
      .and.to.match(/Withdrawn before they start\s+site agent, has waited .* for an External Agent/);
    await dialog.getByRole('button', { name: 'Kill workflow' }).click();
    await page.getByRole('row', { name: /^site agent agent 1 never started/ }).waitFor();
  });
});
