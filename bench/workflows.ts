/** The workflows that are measured, and what their records must say afterwards. */
import type { Json } from '../src/wire.ts';
import type { Definition } from './client.ts';

export interface Shape {
  definition: Definition;
  /** What each node needs, by its name: also the order of events that must be found. */
  needs: Map<string, string[]>;
  /** What each node gives; absent: its own name. */
  output?: Json;
}

function shapeOf(name: string, needs: Map<string, string[]>, more: { [key: string]: Json } = {}): Shape {
  const nodes: { [key: string]: Json } = {};
  for (const [node, needed] of needs) nodes[node] = { type: 'set', needs: needed, with: { value: node } };
  return { definition: { name, ...more, nodes }, needs };
}

/** n1 → n2 → … : one node after the other. */
export function chain(name: string, length: number, more?: { [key: string]: Json }): Shape {
  const needs = new Map<string, string[]>();
  for (let index = 1; index <= length; index += 1) needs.set(`n${index}`, index === 1 ? [] : [`n${index - 1}`]);
  return shapeOf(name, needs, more);
}

/**
 * As `chain`, of nodes that do as little and need a commit each: a `foreach`, also of no items, begins when its start is
 * durable, and so does not share it with the end of the one before. (`set` nodes do.)
 */
export function chainOfCommits(name: string, length: number, more: { [key: string]: Json } = {}): Shape {
  const { needs } = chain(name, length);
  const nodes: { [key: string]: Json } = {};
  for (const [node, needed] of needs) {
    const body = { never: { type: 'set', with: { value: 1 } } };
    nodes[node] = { type: 'foreach', needs: needed, items: '${{ [] }}', body };
  }
  return { definition: { name, ...more, nodes }, needs, output: [] };
}

/** Blocks of ten nodes (one, eight at once, one), one block after the other. */
export function blocks(name: string, count: number): Shape {
  const needs = new Map<string, string[]>();
  for (let block = 1; block <= count; block += 1)
    addFan(needs, `b${block}`, 8, block === 1 ? [] : [`b${block - 1}_join`]);
  return shapeOf(name, needs);
}

/** One node, then `width` at once, then one. */
export function fan(name: string, width: number): Shape {
  const needs = new Map<string, string[]>();
  addFan(needs, 'f', width, []);
  return shapeOf(name, needs);
}

function addFan(needs: Map<string, string[]>, prefix: string, width: number, after: string[]): void {
  const middle = Array.from({ length: width }, (_, index) => `${prefix}_${index}`);
  needs.set(`${prefix}_fork`, after);
  for (const node of middle) needs.set(node, [`${prefix}_fork`]);
  needs.set(`${prefix}_join`, middle);
}

/** Nodes that call the endpoint at `host` with their names as the path. */
export function calls(
  name: string,
  count: number,
  host: string,
  { isRow, atOnce }: { isRow: boolean; atOnce: number },
): Shape {
  const needs = new Map<string, string[]>();
  for (let index = 1; index <= count; index += 1) needs.set(`n${index}`, isRow && index > 1 ? [`n${index - 1}`] : []);
  const nodes = Object.fromEntries(
    [...needs].map(([node, needed]) => [
      node,
      { type: 'http', needs: needed, with: { url: `http://${host}/${node}` } },
    ]),
  );
  return { definition: { name, concurrency: { max: atOnce }, nodes }, needs };
}
