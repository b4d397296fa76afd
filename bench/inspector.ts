/**
 * `npm run bench -- --inspector`: what the page costs, in a real Chromium against a real server.
 *
 * Prints the script of the first load, the longest task while 10,000 executions are scrolled, the time until a graph
 * of 2,000 nodes is drawn, and how far the page is behind an execution that writes many events.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { chromium, type Page } from 'playwright-core';
import { ServerProcess } from '../test/support/server-process.ts';

const root = join(import.meta.dirname, '..');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const EXECUTIONS = 10_000;
const NODES = 2_000;
const LAYERS = 40;
const AT_ONCE = 48;
const FOLLOW_MS = 5_000;

interface Figure {
  name: string;
  value: number;
  unit: string;
  limit: number;
}

export async function measureInspector(): Promise<Figure[]> {
  const figures: Figure[] = [
    { name: 'script of the first load, gzipped', value: firstLoadKb(), unit: 'kB', limit: 200 },
  ];
  const server = await ServerProcess.start();
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--headless', '--disable-gpu', '--no-first-run', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
  });
  try {
    await server.ok('POST', '/api/workflows', { name: 'tiny', nodes: { one: { type: 'set', with: { value: 1 } } } });
    await server.ok('POST', '/api/workflows', { name: 'wide', nodes: wideGraph() });
    await server.ok('POST', '/api/workflows', { name: 'busy', nodes: busyLoops() });
    const { id: wide } = await server.ok('POST', '/api/executions', { workflow: 'wide' });
    let left = EXECUTIONS;
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        while (left-- > 0) await server.ok('POST', '/api/executions', { workflow: 'tiny' });
      }),
    );
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    await context.addInitScript((key) => sessionStorage.setItem('fullstop.key', key), server.key);
    const page = await context.newPage();
    figures.push(...(await scroll(page, server.url)));
    figures.push(await draw(page, server.url, wide));
    figures.push(...(await follow(page, server)));
  } finally {
    await browser.close();
    await server.close();
  }
  for (const { name, value, unit, limit } of figures)
    console.log(`${value <= limit ? 'ok    ' : 'over  '} ${name}: ${value.toFixed(0)} ${unit} (limit ${limit})`);
  return figures;
}

/** The scripts that the page names: others come when they are needed. */
function firstLoadKb(): number {
  const dist = join(root, 'inspector', 'dist');
  const html = readFileSync(join(dist, 'index.html'), 'utf8');
  const files = readdirSync(join(dist, 'assets')).filter((name) => name.endsWith('.js') && html.includes(name));
  return files.reduce((sum, name) => sum + gzipSync(readFileSync(join(dist, 'assets', name))).length, 0) / 1_000;
}

async function scroll(page: Page, url: string): Promise<Figure[]> {
  await page.goto(`${url}/executions?workflow=tiny`);
  await page.locator('.row').first().waitFor();
  await page.evaluate(() => {
    const seen = window as unknown as { longest: number };
    seen.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) seen.longest = Math.max(seen.longest, duration);
    }).observe({ type: 'longtask' });
  });
  const reached = await page.evaluate(async (wanted) => {
    const rows = document.querySelector('.rows') as HTMLElement;
    const frame = (): Promise<number> => new Promise(requestAnimationFrame);
    for (let still = 0; still < 60; ) {
      const before = rows.scrollHeight;
      rows.scrollTop += 700;
      await frame();
      const atEnd = rows.scrollTop + rows.clientHeight >= rows.scrollHeight - 1;
      still = atEnd && rows.scrollHeight === before ? still + 1 : 0;
      if (atEnd && Number(rows.getAttribute('aria-rowcount')) >= wanted) break;
    }
    return Number(rows.getAttribute('aria-rowcount'));
  }, EXECUTIONS);
  if (reached < EXECUTIONS) throw new Error(`expected ${EXECUTIONS} executions in the list, found ${reached}`);
  const longest = await page.evaluate(() => (window as unknown as { longest: number }).longest);
  return [
    {
      name: `longest task while ${EXECUTIONS} executions are loaded and scrolled`,
      value: longest,
      unit: 'ms',
      limit: 100,
    },
  ];
}

async function draw(page: Page, url: string, id: string): Promise<Figure> {
  await page.goto(`${url}/executions/${id}/logs`);
  await page.locator('.empty').waitFor();
  const ms = await page.evaluate(async (wanted) => {
    const link = [...document.querySelectorAll('a')].find(({ textContent }) => textContent === 'Graph');
    const startMs = performance.now();
    link?.click();
    while (document.querySelectorAll('.node, .mini').length < wanted) {
      if (performance.now() - startMs > 20_000) return Number.NaN;
      await new Promise(requestAnimationFrame);
    }
    await new Promise(requestAnimationFrame);
    return performance.now() - startMs;
  }, NODES);
  if (process.env.SHOT !== undefined) await page.screenshot({ path: process.env.SHOT });
  return { name: `until a graph of ${NODES} nodes is laid out and drawn`, value: ms, unit: 'ms', limit: 2_000 };
}

async function follow(page: Page, server: ServerProcess): Promise<Figure[]> {
  const { id } = await server.ok('POST', '/api/executions', { workflow: 'busy' });
  await page.goto(`${server.url}/executions/${id}/events`);
  await page.locator('.event').first().waitFor();
  const seqOf = async (): Promise<number> => (await server.ok('GET', `/api/executions/${id}`)).seq;
  const before = await seqOf();
  await sleep(FOLLOW_MS);
  const [stored, text] = await Promise.all([seqOf(), page.locator('.event > .num').last().innerText()]);
  await server.ok('POST', `/api/executions/${id}/stop`);
  const perSecond = (stored - before) / (FOLLOW_MS / 1_000);
  const behind = stored - Number(text.slice(1));
  console.log(`       ${perSecond.toFixed(0)} events/s were followed`);
  return [
    {
      name: 'behind an execution that is followed live',
      value: Math.max(0, (behind / perSecond) * 1_000),
      unit: 'ms',
      limit: 1_000,
    },
  ];
}

function wideGraph(): Record<string, unknown> {
  const nodes: Record<string, unknown> = {};
  const perLayer = NODES / LAYERS;
  for (let layer = 0; layer < LAYERS; layer += 1) {
    for (let at = 0; at < perLayer; at += 1) {
      nodes[`n${layer}_${at}`] =
        layer === 0
          ? { type: 'hold', trigger: 'go' }
          : {
              type: 'set',
              with: { value: 1 },
              needs: [`n${layer - 1}_${at}`, ...(at % 5 === 0 ? [`n${layer - 1}_${(at + 1) % perLayer}`] : [])],
            };
    }
  }
  return nodes;
}

function busyLoops(): Record<string, unknown> {
  const loop = {
    type: 'while',
    condition: 'true',
    maxIterations: 1_000_000,
    delay: '20ms',
    body: { one: { type: 'set', with: { value: 1 } } },
  };
  return Object.fromEntries(['a', 'b', 'c', 'd'].map((name) => [name, loop]));
}

if (import.meta.main) await measureInspector();
