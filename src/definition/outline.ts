/**
 * The nodes of a workflow file as they stand there, faults and all: what checking and compiling both walk.
 *
 * Tolerant: what is not of the right shape is left out here and told by the schema.
 */
import type { NodeType } from '../nodes/node-type.ts';
import { nodeTypes } from '../nodes/registry.ts';
import type { PathKey } from './names.ts';
import { hasBody } from './schema.ts';

export type Raw = Record<string, unknown>;

export interface OutlineGraph {
  nodes: OutlineNode[];
  byName: Map<string, OutlineNode>;
  /** The node whose body this is; null: the workflow itself. */
  outer: OutlineNode | null;
}

export interface OutlineNode {
  name: string;
  /** Position in its graph's `nodes`. */
  index: number;
  path: PathKey[];
  raw: Raw;
  /** null: unknown. */
  type: NodeType | null;
  graph: OutlineGraph;
  body: OutlineGraph | null;
  /** Those of `needs` that are nodes beside it, without itself. */
  needs: OutlineNode[];
  /** Names of nodes that expressions of it or of its body read, in its own graph or around that. */
  reads: Set<string>;
}

export function isObject(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `value` where it is an object, else an empty one. */
export function objectOr(value: unknown): Raw {
  return isObject(value) ? value : {};
}

export function outline(workflow: unknown): OutlineGraph {
  return outlineGraph(objectOr(workflow)['nodes'], ['nodes'], null);
}

function outlineGraph(nodes: unknown, path: PathKey[], outer: OutlineNode | null): OutlineGraph {
  const graph: OutlineGraph = { nodes: [], byName: new Map(), outer };
  for (const [name, value] of Object.entries(objectOr(nodes))) {
    const raw = objectOr(value);
    const type = typeof raw['type'] === 'string' ? (nodeTypes.get(raw['type']) ?? null) : null;
    const node: OutlineNode = {
      name,
      index: graph.nodes.length,
      path: [...path, name],
      raw,
      type,
      graph,
      body: null,
      needs: [],
      reads: new Set(),
    };
    if (type !== null && hasBody(type)) node.body = outlineGraph(raw['body'], [...path, name, 'body'], node);
    graph.nodes.push(node);
    graph.byName.set(name, node);
  }
  for (const node of graph.nodes) {
    const needs = new Set(Array.isArray(node.raw['needs']) ? node.raw['needs'] : []);
    for (const name of needs) {
      const needed = graph.byName.get(name);
      if (needed !== undefined && needed !== node) node.needs.push(needed);
    }
  }
  return graph;
}

/** The graph and those of all bodies within it. */
export function* allGraphs(graph: OutlineGraph): Generator<OutlineGraph> {
  yield graph;
  for (const node of graph.nodes) if (node.body !== null) yield* allGraphs(node.body);
}
