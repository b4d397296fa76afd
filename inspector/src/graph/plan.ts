/** Where the nodes of a graph are drawn, by dagre: pure, so that a worker can do it. */
import { graphlib, layout } from '@dagrejs/dagre';
import type { DefinitionNode } from '../store.ts';

const WIDTH = 190;
const HEIGHT = 54;
const PAD = 16;
const HEAD = 48;
/** With more nodes than this the fast layout is used, in a worker, and only what is in sight is drawn. */
export const LARGE = 250;

export interface Box {
  path: string;
  name: string;
  x: number;
  y: number;
  width: number;
  height: number;
  holds: boolean;
}

interface Point {
  x: number;
  y: number;
}

interface Plan {
  width: number;
  height: number;
  boxes: Box[];
  edges: { points: Point[] }[];
}

export interface Placement {
  width: number;
  height: number;
  boxes: Box[];
  /** All edges, as the path of one SVG element. */
  edges: string;
}

export interface GraphShape {
  names: string[];
  needs: Record<string, DefinitionNode>;
}

export function placeGraph({ names, needs }: GraphShape): Placement {
  const { edges, ...placed } = plan(names, needs, '');
  return { ...placed, edges: pathOf(edges) };
}

/** Places the nodes of one graph, bodies within their loops. */
function plan(names: string[], needs: Record<string, DefinitionNode>, prefix: string): Plan {
  const graph = new graphlib.Graph();
  graph.setGraph({
    rankdir: 'LR',
    nodesep: 18,
    ranksep: 56,
    ...(names.length > LARGE ? { ranker: 'longest-path' } : {}),
  });
  graph.setDefaultEdgeLabel(() => ({}));
  const bodies = new Map<string, Plan>();
  for (const name of names) {
    // Each item of a foreach is an execution of its own: its body has no states to show here.
    const body = needs[name]?.type === 'while' ? needs[name].body : undefined;
    if (body === undefined) {
      graph.setNode(name, { width: WIDTH, height: HEIGHT });
      continue;
    }
    const inner = plan(Object.keys(body), body, `${prefix}${name}/`);
    bodies.set(name, inner);
    graph.setNode(name, {
      width: Math.max(WIDTH, inner.width + 2 * PAD),
      height: inner.height + HEAD + PAD,
    });
  }
  const known = new Set(names);
  const edges: Plan['edges'] = [];
  for (const name of names) {
    for (const needed of needs[name]?.needs ?? []) {
      if (!known.has(needed)) continue;
      graph.setEdge(needed, name);
    }
  }
  layout(graph, { disableOptimalOrderHeuristic: names.length > LARGE });
  for (const { v, w } of graph.edges()) {
    const { points = [] } = graph.edge(v, w) as { points?: Point[] };
    const from = graph.node(v) as Point & { width: number };
    const to = graph.node(w) as Point & { width: number };
    edges.push({
      points: [{ x: from.x + from.width / 2, y: from.y }, ...points.slice(1, -1), { x: to.x - to.width / 2, y: to.y }],
    });
  }
  const boxes: Box[] = [];
  for (const name of names) {
    const { x, y, width, height } = graph.node(name) as { x: number; y: number; width: number; height: number };
    const left = x - width / 2;
    const top = y - height / 2;
    const inner = bodies.get(name);
    boxes.push({ path: prefix + name, name, x: left, y: top, width, height, holds: inner !== undefined });
    if (inner === undefined) continue;
    for (const box of inner.boxes) boxes.push({ ...box, x: box.x + left + PAD, y: box.y + top + HEAD });
    for (const { points } of inner.edges)
      edges.push({ points: points.map(({ x: px, y: py }) => ({ x: px + left + PAD, y: py + top + HEAD })) });
  }
  const { width = WIDTH, height = HEIGHT } = graph.graph() as { width?: number; height?: number };
  return { width, height, boxes, edges };
}

/**
 * All edges as one path, along the points that the layout found, so that none runs through a node: thousands of them
 * as elements of their own take seconds to draw.
 */
function pathOf(edges: Plan['edges']): string {
  return edges
    .map(({ points: [first, ...rest] }) => {
      if (first === undefined) return '';
      let from = first;
      let path = `M${Math.round(from.x)},${Math.round(from.y)}`;
      for (const to of rest) {
        const half = Math.round((from.x + to.x) / 2);
        path += `C${half},${Math.round(from.y)} ${half},${Math.round(to.y)} ${Math.round(to.x)},${Math.round(to.y)}`;
        from = to;
      }
      return path;
    })
    .join('');
}
