/**
 * What the page costs, in a real Chromium against a real server: `npm run bench -- --only page`.
 *
 * `node bench/inspector.ts CHROMIUM [--quick]` prints its measures as JSON.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { chromium, type Page } from 'playwright-core';
import { ServerProcess } from '../test/support/server-process.ts';
import { type Measure, median, shown } from './figure.ts';

const root = join(import.meta.dirname, '..');
const EXECUTIONS = 10_000;
const NODES = 2_000;
const LAYERS = 40;
const AT_ONCE = 48;
const DRAWS = 3;
/** Between two looks at how far the page is behind. */
const LOOK_MS = 500;

async function measureInspector(executablePath: string, isQuick: boolean): Promise<Measure[]> {
  const measures: Measure[] = [firstLoad()];
  const server = await ServerProcess.start();
  const browser = await chromium.launch({
    executablePath,
    args: ['--headless', '--disable-gpu', '--no-first-run', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
  });
  try {
    await server.ok('POST', '/api/workflows', { name: 'tiny', nodes: { one: { type: 'set', with: { value: 1 } } } });
    await server.ok('POST', '/api/workflows', { name: 'wide', nodes: wideGraph() });
    await server.ok('POST', '/api/workflows', { name: 'busy', nodes: busyLoops() });
    const { id: wide } = await server.ok('POST', '/api/executions', { workflow: 'wide' });
    const executions = isQuick ? EXECUTIONS / 10 : EXECUTIONS;
    let left = executions;
    await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        while (left-- > 0) await server.ok('POST', '/api/executions', { workflow: 'tiny' });
      }),
    );
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    await context.addInitScript((key) => sessionStorage.setItem('fullstop.key', key), server.key);
    const page = await context.newPage();
    measures.push(await scroll(page, server.url, executions));
    measures.push(await draw(page, `${server.url}/executions/${wide}/logs`, '.empty', 'from another view'));
    measures.push(await draw(page, `${server.url}/executions/${wide}?view=table`, 'td button', 'from its table'));
    measures.push(...(await follow(page, server, isQuick ? 6 : 20)));
  } finally {
    await browser.close();
    await server.close();
  }
  return measures;
}

/** The scripts that the page names: others come when they are needed. */
function firstLoad(): Measure {
  const dist = join(root, 'inspector', 'dist');
  const html = readFileSync(join(dist, 'index.html'), 'utf8');
  const files = readdirSync(join(dist, 'assets')).filter((name) => name.endsWith('.js') && html.includes(name));
  if (files.length === 0) throw new Error('the page names no script');
  return {
    name: 'page: script of the first load, gzipped',
    value: files.reduce((sum, name) => sum + gzipSync(readFileSync(join(dist, 'assets', name))).length, 0) / 1_000,
    unit: 'kB',
    limit: { kind: 'plain', atMost: 200 },
    note: files.join(', '),
  };
}

async function scroll(page: Page, url: string, executions: number): Promise<Measure> {
  await page.goto(`${url}/executions?workflow=tiny`);
  await page.locator('.row').first().waitFor();
  await page.evaluate(() => {
    const seen = window as unknown as { longest: number };
    seen.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) seen.longest = Math.max(seen.longest, duration);
    }).observe({ type: 'longtask', buffered: true });
  });
  const longest = (): Promise<number> => page.evaluate(() => (window as unknown as { longest: number }).longest);
  const startMs = performance.now();
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
  }, executions);
  const seconds = (performance.now() - startMs) / 1_000;
  if (reached < executions) throw new Error(`expected ${executions} executions in the list, found ${reached}`);
  const value = await longest();
  // A figure of 0 says something only if a long task would have been seen.
  await page.evaluate(async () => {
    await new Promise((resolve) => setTimeout(resolve, 0));
    for (const untilMs = performance.now() + 150; performance.now() < untilMs; );
  });
  await sleep(200);
  if ((await longest()) < 100) throw new Error('a task of 150 ms on the main thread was not seen');
  return {
    name: `page: longest task while ${executions} executions are listed and scrolled`,
    value,
    unit: 'ms',
    limit: { kind: 'plain', atMost: 100 },
    note: `scrolled through in ${seconds.toFixed(1)} s; a browser tells of tasks over 50 ms alone`,
  };
}

/** From the click on "Graph" at `address`, as soon as `mark` is there. */
async function draw(page: Page, address: string, mark: string, from: string): Promise<Measure> {
  const times: number[] = [];
  for (let round = 0; round < DRAWS; round += 1) {
    await page.goto(address);
    await page.locator(mark).first().waitFor();
    times.push(
      await page.evaluate(async (wanted) => {
        const named = [...document.querySelectorAll<HTMLElement>('a, .chip')].filter(
          ({ textContent }) => textContent === 'Graph',
        );
        const startMs = performance.now();
        // Of the tab and the chip beside the table the last: the tab is where the table is too.
        named.at(-1)?.click();
        while (Number(document.querySelector<SVGElement>('.overview')?.dataset.drawn ?? 0) < wanted) {
          if (performance.now() - startMs > 20_000) throw new Error('the graph was not drawn within 20 s');
          await new Promise(requestAnimationFrame);
        }
        await new Promise(requestAnimationFrame);
        return performance.now() - startMs;
      }, NODES),
    );
  }
  return {
    name: `page: until a graph of ${NODES} nodes is laid out and drawn, ${from}`,
    value: median(times),
    unit: 'ms',
    limit: { kind: 'plain', atMost: 2_000 },
    note: `median of ${shown(times)}`,
  };
}

/** An execution's events as they are written: how fast that is, and how far the page is behind at the worst look. */
async function follow(page: Page, server: ServerProcess, looks: number): Promise<Measure[]> {
  const { id } = await server.ok('POST', '/api/executions', { workflow: 'busy' });
  await page.goto(`${server.url}/executions/${id}/events`);
  await page.locator('.event').first().waitFor();
  const stored = async (): Promise<number> => (await server.ok('GET', `/api/executions/${id}`)).seq;
  // The page first catches up with what was written before it came.
  await sleep(1_000);
  const startMs = performance.now();
  const before = await stored();
  const behind: number[] = [];
  let last = before;
  for (let look = 0; look < looks; look += 1) {
    await sleep(LOOK_MS);
    last = await stored();
    behind.push(Math.max(0, last - (await lastShown(page))));
  }
  const perSecond = (last - before) / ((performance.now() - startMs) / 1_000);
  await server.ok('POST', `/api/executions/${id}/stop`);
  return [
    {
      name: 'page: events of an execution that is followed live',
      value: perSecond,
      unit: 'events/s',
      limit: { kind: 'least', atLeast: 500 },
      note: `${last - before} in all`,
    },
    {
      name: 'page: how far it is behind them at the worst look',
      value: (Math.max(...behind) / perSecond) * 1_000,
      unit: 'ms',
      limit: { kind: 'plain', atMost: 1_000 },
      note: `events behind, every ${LOOK_MS} ms: ${shown(behind)}`,
    },
  ];
}

/** The newest event in sight; those before it are there without a gap. */
async function lastShown(page: Page): Promise<number> {
  const texts = await page.locator('.event > .num').allInnerTexts();
  const seqs = texts.map((text) => Number(text.slice(1)));
  const gap = seqs.findIndex((seq, index) => index > 0 && seq !== (seqs[index - 1] as number) + 1);
  if (gap !== -1) throw new Error(`event ${seqs[gap]} follows ${seqs[gap - 1]}`);
  return seqs.at(-1) as number;
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
  return Object.fromEntries(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => [name, loop]));
}

const [executablePath = '/usr/bin/chromium', ...flags] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await measureInspector(executablePath, flags.includes('--quick'))));
