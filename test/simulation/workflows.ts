/** Workflows of nodes of every type, drawn; their work is modelled in `work.ts`. */
import type { Random } from '../../src/ports/ids.ts';
import { pick } from '../support/workloads.ts';

type Node = Record<string, unknown>;

function oneOf<T>(random: Random, values: readonly T[]): T {
  return values[pick(random, values.length)] as T;
}

const LEAVES = [
  'set',
  'set',
  'delay',
  'http',
  'http',
  'http',
  'ai',
  'container',
  'container',
  'agent',
  'agent',
  'hold',
  'fail',
];
const WITH_BODIES = [...LEAVES, 'while', 'while', 'foreach', 'foreach', 'workflow', 'workflow'];

/** The keys that any node may have. */
function commonKeys(random: Random, needs: string[]): Node {
  const keys: Node = {};
  const needed = needs.filter(() => random.next() < 0.4).slice(0, 3);
  if (needed.length > 0) keys['needs'] = needed;
  if (random.next() < 0.1) keys['if'] = oneOf(random, ['false', 'input.n > 2', 'true']);
  if (random.next() < 0.2) keys['timeout'] = oneOf(random, ['50ms', '500ms', '2s', '7s']);
  if (random.next() < 0.1) keys['queueTimeout'] = oneOf(random, ['300ms', '3s']);
  if (random.next() < 0.3) keys['retry'] = { attempts: 1 + pick(random, 3), backoff: oneOf(random, ['100ms', '1s']) };
  if (random.next() < 0.1) keys['rerun'] = false;
  if (random.next() < 0.4) keys['continueOnError'] = true;
  return keys;
}

function drawNode(random: Random, needs: string[], depth: number): Node {
  const keys = commonKeys(random, needs);
  const type = oneOf(random, depth > 0 ? WITH_BODIES : LEAVES);
  switch (type) {
    case 'set':
      return { ...keys, type, with: { value: oneOf(random, [1, 'text', '${{ input.n + 1 }}', { a: [1, 2] }]) } };
    case 'delay':
      return { ...keys, type, with: { duration: oneOf(random, ['0ms', '300ms', '3s', '15s']) } };
    case 'hold':
      return { ...keys, type, trigger: oneOf(random, ['go', 'other']), schedule: oneOf(random, ['1s', '4s', '14s']) };
    case 'fail':
      return {
        ...keys,
        type,
        continueOnError: random.next() < 0.7,
        with: { message: oneOf(random, ['no', 'workflow stopped by user']) },
      };
    case 'while':
      return {
        ...keys,
        type,
        condition: `iter.index < ${pick(random, 4)}`,
        maxIterations: 1 + pick(random, 4),
        onExhausted: oneOf(random, ['complete', 'fail']),
        delay: oneOf(random, ['0ms', '200ms']),
        body: drawNodes(random, 1 + pick(random, 2), depth - 1),
      };
    case 'foreach':
      return {
        ...keys,
        type,
        items: oneOf(random, ['${{ [] }}', '${{ [1, 2, 3] }}', '${{ [input.n, 5] }}', '${{ [1, 2, 3, 4, 5] }}']),
        concurrency: 1 + pick(random, 3),
        onItemError: oneOf(random, ['fail', 'continue']),
        body: drawNodes(random, 1, depth - 1),
      };
    case 'workflow':
      return { ...keys, type, with: { workflow: oneOf(random, ['leaf', 'leaf', 'gone']), input: { n: 1 } } };
    case 'ai':
      return { ...keys, type, with: { model: 'default', prompt: 'Rank ${{ input.n }}' } };
    case 'container':
      return { ...keys, type, with: { image: 'scanner', args: ['${{ input.n }}'] } };
    case 'agent':
      return { ...keys, type, with: { pool: 'site', tool: 'nmap' } };
    default:
      return { ...keys, type, with: { url: `http://host/${pick(random, 10)}` } };
  }
}

function drawNodes(random: Random, count: number, depth: number): Record<string, Node> {
  const nodes: Record<string, Node> = {};
  for (let index = 0; index < count; index += 1) nodes[`n${index}`] = drawNode(random, Object.keys(nodes), depth);
  return nodes;
}

export function drawWorkflow(random: Random, name: string): Node {
  const workflow: Node = {
    name,
    inputs: { n: { type: 'number', default: 2 } },
    nodes: drawNodes(random, 2 + pick(random, 3), 2),
  };
  if (random.next() < 0.15) workflow['failFast'] = true;
  if (random.next() < 0.15) workflow['timeout'] = oneOf(random, ['1s', '6s']);
  if (random.next() < 0.2) workflow['concurrency'] = { max: 1 + pick(random, 2) };
  if (random.next() < 0.2) workflow['onFailure'] = { workflow: 'leaf', input: { n: 3 } };
  return workflow;
}

/** One after the other: a trigger releases one of them. */
export const holds: Record<string, Node> = {
  first: { type: 'hold', trigger: 'go', schedule: '14s' },
  second: { type: 'hold', trigger: 'go', schedule: '4s', needs: ['first'] },
};

/** Over at once, and tried again where that is not noticed in time. */
export const quickItems: Node = {
  type: 'foreach',
  items: '${{ [1, 2] }}',
  timeout: '700ms',
  retry: { attempts: 3, backoff: '100ms' },
  continueOnError: true,
  body: { it: { type: 'set', with: { value: '${{ item }}' } } },
};

/** Noticed to be over while the next try's children run, where the answer takes `LATE_MS`. */
export const lateItems: Node = {
  ...quickItems,
  body: { it: { type: 'delay', with: { duration: '300ms' } } },
};
export const LATE_MS = 700;

export const slowItems: Node = {
  type: 'foreach',
  items: '${{ [1, 2, 3, 4, 5] }}',
  concurrency: 2,
  continueOnError: true,
  body: { it: { type: 'http', with: { url: 'http://host/item' } } },
};

/** The first ends well, the second fails while the third has a while to go. */
export const failingItems: Node = {
  type: 'foreach',
  items: '${{ [1, 2, 3, 4] }}',
  concurrency: 2,
  continueOnError: true,
  body: {
    wait: { type: 'delay', if: 'item == 2', with: { duration: '200ms' } },
    bad: { type: 'fail', if: 'item == 2', needs: ['wait'], with: { message: 'no' } },
    long: { type: 'delay', if: 'item == 3', with: { duration: '15s' } },
  },
};

/** Times out while nobody runs it, and its children have more to do when somebody does. */
export const forgottenItems: Node = {
  type: 'foreach',
  items: '${{ [1, 2] }}',
  timeout: '2s',
  continueOnError: true,
  body: {
    first: { type: 'delay', with: { duration: '3s' } },
    next: { type: 'delay', needs: ['first'], with: { duration: '6s' } },
    last: { type: 'set', needs: ['next'], with: { value: '${{ item }}' } },
  },
};

/** Between the instants of the one workflow that starts by itself. */
export const INSTANT_MS = 2_000;

export const timed = (overlap: 'skip' | 'allow'): Node => ({
  name: 'timed',
  on: { schedule: `*/${INSTANT_MS / 1_000} * * * * *`, overlap },
  nodes: { a: { type: 'set', with: { value: 1 } } },
});

export const leaf: Node = {
  name: 'leaf',
  inputs: { n: { type: 'number', default: 0 } },
  nodes: {
    a: { type: 'http', with: { url: 'http://leaf/' }, retry: { attempts: 2, backoff: '200ms' } },
    b: { type: 'set', needs: ['a'], with: { value: '${{ input.n }}' } },
  },
};
