/** The kill with every kind of task in flight: a container, an answer of a model, a call, and an External Agent. */
import { expect } from 'chai';
import type { Browser } from 'playwright-core';
import { ContainerEngine } from '../../src/worker/container-engine.ts';
import { Endpoint } from '../support/endpoint.ts';
import { ModelEndpoint } from '../support/model-endpoint.ts';
import { containerEngineOrSkip, type TestEngine } from '../support/podman.ts';
import { ServerProcess, until } from '../support/server-process.ts';
import { openBrowser, startFarAgent, usePages } from './support.ts';

const PROMPT = 'park here';

describe('kill', function () {
  this.timeout(120_000);

  let browser: Browser;
  let containers: TestEngine;
  let endpoint: Endpoint;
  let model: ModelEndpoint;
  let server: ServerProcess;
  let eyes: ContainerEngine;
  const open = usePages(() => browser);

  before(async function () {
    browser = await openBrowser(this);
    containers = await containerEngineOrSkip(this);
    eyes = new ContainerEngine(containers.dockerHost);
    endpoint = await Endpoint.start();
    model = await ModelEndpoint.start();
    server = await ServerProcess.start({
      env: {
        FULLSTOP_HTTP_ALLOW: endpoint.host,
        FULLSTOP_MODELS: JSON.stringify({ local: { baseURL: model.url, model: 'test', apiKey: 'env:MODEL_KEY' } }),
        MODEL_KEY: 'test',
        DOCKER_HOST: containers.dockerHost,
        FULLSTOP_IMAGES: 'localhost/fullstop-*',
      },
    });
  });

  after(async () => {
    await browser?.close();
    await server?.close();
    await model?.close();
    await endpoint?.close();
    eyes?.close();
    await containers?.close();
  });

  it('ends the container, the answer and the call for real, and says of the agent that it runs on', async () => {
    const agent = await startFarAgent(server);
    try {
      await server.ok('POST', '/api/workflows', {
        name: 'everything',
        nodes: {
          pack: { type: 'container', with: { image: containers.image, command: ['sleep'], args: ['600'] } },
          ask: { type: 'ai', with: { model: 'local', prompt: PROMPT } },
          call: { type: 'http', with: { url: `${endpoint.url}/park` } },
          far: { type: 'agent', with: { pool: 'lab', tool: 'sleep', args: ['60'] } },
          after: { type: 'set', needs: ['pack', 'ask', 'call', 'far'], with: { value: 1 } },
        },
      });
      const { id } = await server.ok('POST', '/api/executions', { workflow: 'everything' });
      const held = (): Promise<unknown[]> => eyes.list({ 'fullstop.execution': id });
      await until('the container', held, (list) => list.length === 1);
      await model.asked(PROMPT, ({ said }) => said);
      await endpoint.calling(`${id}/call`);
      await until(
        'the claim of the agent',
        () => server.ok('GET', `/api/executions/${id}/stop?preview=true`),
        ({ cannotCancel, willAbort }) => cannotCancel.length === 1 && willAbort.length === 3,
      );

      const page = await open(server, `/executions/${id}`);
      await page.getByRole('button', { name: 'Workflow actions' }).click();
      await page.getByRole('menuitem', { name: 'Kill workflow' }).click();
      const dialog = page.getByRole('alertdialog');
      await dialog.getByText('Cannot be reached').waitFor();
      const text = await dialog.innerText();
      for (const [node, type] of [
        ['pack', 'container'],
        ['ask', 'ai'],
        ['call', 'http'],
      ])
        expect(text).to.match(new RegExp(`${node} ${type} on the worker`));
      expect(text)
        .to.match(/far External Agent .*it runs on, and its result will be discarded/)
        .and.to.match(/Stay Pending\s+after/);
      await dialog.getByRole('button', { name: 'Kill workflow' }).click();
      await page.getByText('Final record stored').waitFor();
      for (const [node, type] of [
        ['pack', 'container'],
        ['ask', 'ai'],
        ['call', 'http'],
      ])
        await page.getByRole('row', { name: new RegExp(`^${node} ${type} worker 1 (aborted|forced) \\d+`) }).waitFor();
      await page.getByRole('row', { name: /^far agent agent 1 runs on at its agent/ }).waitFor();
      // What the page says is so, seen from the other side.
      expect(await held()).to.deep.equal([]);
      expect((await model.asked(PROMPT, ({ end }) => end !== null)).end).to.equal('aborted');
      const [parked] = await endpoint.calling(`${id}/call`, ([one]) => one?.end !== null);
      expect(parked?.end).to.equal('aborted');
      const { nodes } = await server.record(id);
      expect(nodes.after.status).to.equal('Pending');
    } finally {
      await agent.close(0);
    }
  });
});
