/** The inspector at an engine that does not run what it shows. */
import { expect } from 'chai';
import type { Browser } from 'playwright-core';
import { EngineProcesses } from '../support/engine-processes.ts';
import { mongoOrSkip, type TestMongo } from '../support/mongo.ts';
import { openBrowser, seriousFaults, usePages } from './support.ts';

describe('the inspector of several engines', function () {
  this.timeout(120_000);

  let browser: Browser;
  let mongo: TestMongo;
  let engines: EngineProcesses;
  const open = usePages(() => browser);

  before(async function () {
    browser = await openBrowser(this);
    mongo = await mongoOrSkip(this);
    const uri = mongo.uri.replace(/\/(?=\?|$)/, `/${mongo.freshDatabase()}`);
    engines = await EngineProcesses.start({ uri, count: 2 });
  });

  after(async () => {
    await browser?.close();
    await engines?.close();
    await mongo?.close();
  });

  it('shows and stops at any of them, and links the actors to the engine that runs them', async () => {
    const [owner, other] = [engines.at(0), engines.at(1)];
    await owner.ok('POST', '/api/workflows', { name: 'held', nodes: { wait: { type: 'hold', trigger: 'go' } } });
    const { id } = await owner.ok('POST', '/api/executions', { workflow: 'held' });
    await owner.record(id, ({ nodes }) => nodes.wait.status === 'Held');

    const page = await open(other, `/executions/${id}/actors`);
    await page.getByText('The actors could not be read.').waitFor();
    expect(await seriousFaults(page)).to.deep.equal([]);
    await page.getByRole('link', { name: 'Watch it at the engine that runs it' }).click();
    await page.getByRole('treeitem', { name: /wait held/ }).waitFor();
    expect(page.url()).to.equal(`${owner.url}/executions/${id}/actors`);

    await page.goto(`${other.url}/executions/${id}`);
    await page.getByRole('button', { name: 'Workflow actions' }).click();
    await page.getByRole('menuitem', { name: 'Kill workflow' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Kill workflow' }).click();
    await page.getByText('Final record stored').waitFor();
    expect((await owner.record(id)).stoppedByUser).to.equal(true);
  });
});
