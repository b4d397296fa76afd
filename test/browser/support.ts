/** A real Chromium that looks at a real server. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { AxeResults } from 'axe-core';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import type { ServerProcess } from '../support/server-process.ts';

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

/** A page that has the key in its tab, and what its console complained of. */
export async function openPage(
  browser: Browser,
  server: ServerProcess,
  path: string,
  { key = server.key, ...options }: BrowserContextOptions & { key?: string } = {},
): Promise<Page & { complaints: string[] }> {
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
