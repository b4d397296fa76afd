/** A real Chromium that looks at a real server. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { AxeResults } from 'axe-core';
import { expect } from 'chai';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { startAgent } from '../../src/agent/agent.ts';
import type { RunningWorker } from '../../src/worker/worker.ts';
import { Endpoint } from '../support/endpoint.ts';
import { freePort, ServerProcess } from '../support/server-process.ts';

const root = join(import.meta.dirname, '..', '..');
const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const FLAGS = [
  '--headless',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const isRoot = process.getuid?.() === 0;

/** Where Chromium is; null where there is none. */
const chromiumPath: string | null =
  [process.env.CHROMIUM, ...PLACES].find((path) => path !== undefined && existsSync(path)) ?? null;

/**
 * Skips a suite where there is no browser, and says so. Where the package can be installed (root on Debian, `CI=true`)
 * a skip is a failure.
 */
export async function openBrowser(context: Mocha.Context): Promise<Browser> {
  if (!existsSync(join(root, 'inspector', 'dist', 'index.html')))
    throw new Error('the page is not built: npm run build:inspector');
  if (chromiumPath === null) {
    const why = 'no Chromium found: install the package chromium, or name one with CHROMIUM';
    if (process.env.CI === 'true' && isRoot && existsSync('/etc/debian_version')) throw new Error(why);
    console.log(`    skipped: ${why}`);
    context.skip();
  }
  return chromium.launch({
    executablePath: chromiumPath as string,
    args: isRoot ? [...FLAGS, '--no-sandbox'] : FLAGS,
  });
}

export type Opened = Page & { complaints: string[] };

/** What the tests of a suite look at, from its `before` on. */
export interface Inspected {
  readonly browser: Browser;
  readonly endpoint: Endpoint;
  /** Has the same port after a restart: an open page comes back to it. */
  readonly server: ServerProcess;
  /** A page that is closed with the test, and fails it when its console complained. */
  open(path: string, options?: Parameters<typeof openPage>[3], from?: ServerProcess): Promise<Opened>;
}

/** A browser, an endpoint and a server that may call it, for all tests of the suite around. */
export function useInspector(): Inspected {
  let browser: Browser;
  let endpoint: Endpoint;
  let server: ServerProcess;
  const open = usePages(() => browser);

  before(async function () {
    browser = await openBrowser(this);
    endpoint = await Endpoint.start();
    server = await ServerProcess.start({ port: await freePort(), env: { FULLSTOP_HTTP_ALLOW: endpoint.host } });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
    await endpoint?.close();
  });
  return {
    get browser() {
      return browser;
    },
    get endpoint() {
      return endpoint;
    },
    get server() {
      return server;
    },
    open: (path, options, from = server) => open(from, path, options),
  };
}

/** Opens pages that are closed with the test; one whose console complained fails it. */
export function usePages(
  browser: () => Browser,
): (server: ServerProcess, path: string, options?: Parameters<typeof openPage>[3]) => Promise<Opened> {
  let pages: Opened[] = [];
  afterEach(async () => {
    const complaints = pages.flatMap((page) => page.complaints);
    for (const page of pages) await page.context().close();
    pages = [];
    expect(complaints).to.deep.equal([]);
  });
  return async (server, path, options) => {
    const page = await openPage(browser(), server, path, options);
    pages.push(page);
    return page;
  };
}

/** An External Agent named `far` that serves the pool `lab` with `sleep`. */
export async function startFarAgent(server: ServerProcess): Promise<RunningWorker> {
  const { key } = await server.ok('POST', '/api/keys', { name: 'far', role: 'agent', pool: 'lab', project: 'default' });
  return startAgent({
    url: server.url,
    key,
    pool: 'lab',
    allow: ['sleep'],
    slots: 1,
    env: process.env,
    clock: systemClock,
    logger: { info() {}, warn() {} },
    name: 'far',
  });
}

/** A page that has the key in its tab, and what its console complained of. */
export async function openPage(
  browser: Browser,
  server: ServerProcess,
  path: string,
  { key = server.key, ...options }: BrowserContextOptions & { key?: string } = {},
): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 760 }, ...options });
  await context.addInitScript((value) => sessionStorage.setItem('fullstop.key', value), key);
  const page = Object.assign(await context.newPage(), { complaints: [] as string[] });
  page.setDefaultTimeout(20_000);
  page.on('pageerror', (error) => page.complaints.push(String(error)));
  page.on('console', (message) => {
    // A server that is away is what some of the tests are about.
    if (message.type() === 'error' && !/ERR_CONNECTION|WebSocket|favicon/.test(message.text()))
      page.complaints.push(message.text());
  });
  await page.goto(server.url + path);
  return page;
}

/** With `PICTURES=1` the pictures of the docs are taken anew. */
export async function picture(page: Page, name: string): Promise<void> {
  if (process.env.PICTURES === '1') await page.screenshot({ path: join(root, 'docs', name) });
}

/** What axe-core calls serious or critical on this page, in words. */
export async function seriousFaults(page: Page): Promise<string[]> {
  // Evaluated through the debugger: the page's policy does not hold for it.
  await page.evaluate(axeSource());
  const results = (await page.evaluate('axe.run(document, { resultTypes: ["violations"] })')) as AxeResults;
  return results.violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}

let source: string | null = null;

function axeSource(): string {
  source ??= readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
  return source;
}
