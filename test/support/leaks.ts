/**
 * Mocha root hooks: what a test opens, it closes.
 *
 * After each test: nothing announced with `opened` in it is open, and no listening server or child process is left
 * that was not there before. After the last test of a process: nothing keeps the process alive.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** How long closing may take after a test, and after all of them (idle connections time out). */
const graceMs = 2_000;
const graceAtEndMs = 10_000;

const open = new Map<symbol, { what: string; inTest: boolean }>();
/** Told at the end: a hook that throws after a test would take the tests behind it along. */
const leaks: string[] = [];
let inTest = false;
let before: Map<string, number> = new Map();
let beforeAll: Map<string, number> = new Map();

/** Announces that something which must be closed was opened, such as `engine e1`; call the answer when it is closed. */
export function opened(what: string): () => void {
  const key = Symbol(what);
  open.set(key, { what, inTest });
  return () => open.delete(key);
}

export const mochaHooks = {
  async beforeAll(this: Mocha.Context): Promise<void> {
    this.timeout(0);
    await ownTimer();
    beforeAll = resources(() => true);
  },

  beforeEach(): void {
    inTest = true;
    before = resources(exact);
  },

  async afterEach(this: Mocha.Context): Promise<void> {
    inTest = false;
    const left = await untilNothing(() => [...announced(true), ...grown(before, resources(exact))], graceMs);
    for (const [key, entry] of open) if (entry.inTest) open.delete(key);
    if (left.length > 0) leaks.push(`"${this.currentTest?.fullTitle()}" left open: ${left.join(', ')}`);
  },

  async afterAll(this: Mocha.Context): Promise<void> {
    this.timeout(0);
    await ownTimer();
    const left = await untilNothing(
      () => [...announced(false), ...grown(beforeAll, resources(keepsAlive))],
      graceAtEndMs,
    );
    if (left.length > 0) leaks.push(`left open after all tests: ${left.join(', ')}`);
    if (leaks.length > 0) throw new Error(leaks.join('\n'));
  },
};

/** Mocha arms a timer, though without a limit, once a hook has returned its promise: it counts before and after. */
async function ownTimer(): Promise<void> {
  await null;
}

/** Those that do not come and go by themselves while a server that outlives a test is at work. */
function exact(type: string): boolean {
  return type === 'TCPServerWrap' || type === 'ProcessWrap';
}

function keepsAlive(type: string): boolean {
  return exact(type) || ['TCPSocketWrap', 'Timeout', 'Worker', 'UDPWrap', 'FSEventWrap'].includes(type);
}

function announced(inTestOnly: boolean): string[] {
  return [...open.values()].filter((entry) => entry.inTest || !inTestOnly).map(({ what }) => what);
}

function resources(include: (type: string) => boolean): Map<string, number> {
  const counts = new Map<string, number>();
  for (const type of process.getActiveResourcesInfo()) {
    if (include(type)) counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  return counts;
}

function grown(from: Map<string, number>, to: Map<string, number>): string[] {
  const more = [...to].map(([type, count]) => [type, count - (from.get(type) ?? 0)] as const);
  return more.filter(([, count]) => count > 0).map(([type, count]) => `${count} ${type}`);
}

async function untilNothing(look: () => string[], withinMs: number): Promise<string[]> {
  const untilMs = performance.now() + withinMs;
  let left = look();
  while (left.length > 0 && performance.now() < untilMs) {
    await sleep(10);
    left = look();
  }
  return left;
}
