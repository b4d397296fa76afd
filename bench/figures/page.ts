import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Figure, Measure } from '../figure.ts';

const SCRIPT = join(import.meta.dirname, '..', 'inspector.ts');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** The inspector in a real browser, driven by a process of its own: what runs in a page is typed as such. */
export const page: Figure = {
  name: 'page',
  about: 'the inspector in Chromium: its script, a long list, a large graph, a busy execution',
  async run(bench) {
    if (!existsSync(CHROMIUM)) {
      bench.skip(`no Chromium at ${CHROMIUM}: install the package chromium, or name one with CHROMIUM`);
      return [];
    }
    bench.progress('in Chromium');
    const child = spawn(process.execPath, [SCRIPT, CHROMIUM, ...(bench.quick ? ['--quick'] : [])], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const printed = await text(child.stdout);
    if (printed === '') throw new Error('the page was not measured: what it said stands above');
    return JSON.parse(printed) as Measure[];
  },
};
