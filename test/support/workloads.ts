import type { Expressions } from '../../src/ports/expressions.ts';
import type { Random } from '../../src/ports/ids.ts';
import type { Task, WorkReport } from '../../src/ports/work.ts';
import type { Rig } from './engine.ts';

/** A whole number in [0, below). */
export function pick(random: Random, below: number): number {
  return Math.floor(random.next() * below);
}

function oneOf<T>(random: Random, values: readonly T[]): T {
  return values[pick(random, values.length)] as T;
}

/** The keys that any node may have, drawn. */
function commonKeys(random: Random, needs: string[]): Record<string, unknown> {
  const keys: Record<string, unknown> = {};
  const needed = needs.filter(() => random.next() < 0.4).slice(0, 3);
  if (needed.length > 0) keys['needs'] = needed;
  if (random.next() < 0.1) keys['if'] = oneOf(random, ['false', 'input.n > 2', 'true']);
  if (random.next() < 0.2) keys['timeout'] = oneOf(random, ['500ms', '2s', '7s']);
  if (random.next() < 0.3) keys['retry'] = { attempts: 1 + pick(random, 3), backoff: oneOf(random, ['100ms', '1s']) };
  if (random.next() < 0.4) keys['continueOnError'] = true;
  return keys;
}

/** One node of any type; `depth` bounds bodies within bodies. */
function drawNode(random: Random, needs: string[], depth: number): Record<string, unknown> {
  const keys = commonKeys(random, needs);
  const types = [
    'set',
    'set',
    'delay',
    'http',
    'http',
    'http',
    'hold',
    'fail',
    ...(depth > 0 ? ['while', 'foreach', 'workflow'] : []),
  ];
  const type = oneOf(random, types);
  switch (type) {
    case 'set':
      return { ...keys, type, with: { value: oneOf(random, [1, 'text', '${{ input.n + 1 }}', { a: [1, 2] }]) } };
    case 'delay':
      return { ...keys, type, with: { duration: oneOf(random, ['0ms', '300ms', '3s']) } };
    case 'hold':
      return { ...keys, type, trigger: oneOf(random, ['go', 'other']), schedule: oneOf(random, ['1s', '4s']) };
    case 'fail':
      return {
        ...keys,
        type,
        continueOnError: random.next() < 0.7,
        with: { message: oneOf(random, ['no', 'workflow stopped by user']) },
      };
    case 'while': {
      const body = drawNodes(random, 1 + pick(random, 3), depth - 1);
      const condition = `iter.index < ${pick(random, 4)}`;
      return {
        ...keys,
        type,
        condition,
        maxIterations: 1 + pick(random, 4),
        delay: oneOf(random, ['0ms', '200ms']),
        body,
      };
    }
    case 'foreach':
      return {
        ...keys,
        type,
        items: oneOf(random, ['${{ [] }}', '${{ [1, 2, 3] }}', '${{ [input.n, 5] }}']),
        concurrency: 1 + pick(random, 3),
        onItemError: oneOf(random, ['fail', 'continue']),
        body: drawNodes(random, 1 + pick(random, 2), depth - 1),
      };
    case 'workflow':
      return { ...keys, type, with: { workflow: oneOf(random, ['leaf', 'gone']), input: { n: 1 } } };
    default:
      return { ...keys, type, with: { url: `http://host/${pick(random, 10)}` } };
  }
}

function drawNodes(random: Random, count: number, depth: number): Record<string, unknown> {
  const nodes: Record<string, unknown> = {};
  for (let index = 0; index < count; index += 1) nodes[`n${index}`] = drawNode(random, Object.keys(nodes), depth);
  return nodes;
}

/** A workflow of nodes of every type. */
export function drawWorkflow(random: Random, name: string): Record<string, unknown> {
  const workflow: Record<string, unknown> = {
    name,
    inputs: { n: { type: 'number', default: 2 } },
    nodes: drawNodes(random, 2 + pick(random, 8), 2),
  };
  if (random.next() < 0.3) workflow['failFast'] = true;
  if (random.next() < 0.2) workflow['timeout'] = oneOf(random, ['1s', '6s']);
  if (random.next() < 0.3) workflow['concurrency'] = { max: 1 + pick(random, 2) };
  if (random.next() < 0.3) workflow['onFailure'] = { workflow: 'leaf', input: { n: 3 } };
  return workflow;
}

export const leaf = {
  name: 'leaf',
  inputs: { n: { type: 'number', default: 0 } },
  nodes: {
    a: { type: 'http', with: { url: 'http://leaf/' } },
    b: { type: 'set', needs: ['a'], with: { value: '${{ input.n }}' } },
  },
};

/** One moment of a random life: starts, stops, triggers, reports of every kind, and time. */
export async function liveOn(rig: Rig, random: Random, ids: string[], workflows: readonly string[]): Promise<void> {
  const roll = random.next();
  const id = ids.length === 0 ? '' : (ids[pick(random, ids.length)] as string);
  if (roll < 0.15 || ids.length === 0) {
    const started = await rig.start(oneOf(random, workflows), { n: pick(random, 5) });
    if (started !== '') ids.push(started);
  } else if (roll < 0.22) {
    await rig.stop(id);
  } else if (roll < 0.32) {
    const sent = rig.engine.trigger(id, oneOf(random, ['go', 'other']), pick(random, 3)).catch(() => undefined);
    await rig.settle();
    if (!rig.gate.dead) await sent;
  } else if (roll < 0.75) {
    const running = rig.work.running;
    if (running.length > 0) rig.work.answer(oneOf(random, running), drawReport(random));
    if (random.next() < 0.7) await rig.settle();
  } else {
    await rig.advance(oneOf(random, [0, 10, 100, 700, 2_500]));
  }
}

function drawReport(random: Random): WorkReport {
  const roll = random.next();
  if (roll < 0.6) return { kind: 'completed', output: { status: 200, body: pick(random, 9) } };
  if (roll < 0.85) return { kind: 'failed', error: 'no answer', code: 'FS_HTTP_NETWORK', retryable: roll < 0.8 };
  return roll < 0.95 ? { kind: 'lost' } : { kind: 'aborted', outcome: 'aborted' };
}

/** Answers whatever still runs or waits, until everything has ended. */
export async function windDown(rig: Rig, ids: readonly string[]): Promise<void> {
  rig.work.behave = (_task: Task) => ({ kind: 'completed', output: { status: 200, body: 1 } });
  for (let turn = 0; turn < 100; turn += 1) {
    for (const running of rig.work.running) rig.work.complete(running, { status: 200, body: 1 });
    await rig.advance(2_000);
    const live = await rig.store.countExecutions({ project: null, withChildren: true, live: true });
    const { running, pending, parked } = rig.engine.describe().executions;
    if (live + running + pending + parked === 0) return;
  }
  throw new Error(`these do not end: ${await stuck(rig, ids)}`);
}

async function stuck(rig: Rig, ids: readonly string[]): Promise<string> {
  const { items } = await rig.store.listExecutions({ project: null, withChildren: true, live: true, limit: 20 });
  const texts = items.map(
    async (item) => `${item.id} ${item.workflow.name} ${JSON.stringify((await rig.record(item.id)).nodes)}`,
  );
  return `${ids.length} started\n${(await Promise.all(texts)).join('\n')}`;
}

/** Inline only: a thread's answers come when they come. */
export function withoutThreads(expressions: Expressions): Expressions {
  const inline = <T>(value: T): T => {
    if (value instanceof Promise) throw new Error('an expression of the workload runs on a thread');
    return value;
  };
  return {
    evaluate: (source, scope) => inline(expressions.evaluate(source, scope)),
    render: (value, scope) => inline(expressions.render(value, scope)),
    close: () => expressions.close(),
  };
}
