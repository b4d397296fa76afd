/** A statechart from a machine's definition: its states and transitions, and where they are drawn. */
import { layout as dagre, graphlib } from '@dagrejs/dagre';
import type { ElkExtendedEdge, ElkNode } from 'elkjs/lib/elk-api.js';
import type { Json } from '../../../src/client/index.ts';

/** Of a character and a line, px, at the chart's own size. */
const CHAR = 6.6;
const LINE = 15;
const STATE_HEIGHT = 30;
const STATE_PAD = 14;
const HEAD = 30;

export interface ChartState {
  /** The names from the root down, joined by dots. */
  id: string;
  name: string;
  parent: string | null;
  initial: boolean;
  final: boolean;
  compound: boolean;
  /** Events that it takes and stays. */
  inner: string[];
}

export interface ChartEdge {
  id: string;
  from: string;
  to: string;
  /** `event [guard]`, one a line. */
  labels: string[];
}

export interface Chart {
  name: string;
  states: ChartState[];
  edges: ChartEdge[];
  /** Events that every state takes. */
  everywhere: string[];
  nested: boolean;
}

interface StateConfig {
  id?: string;
  type?: string;
  initial?: string;
  states?: Record<string, StateConfig>;
  on?: Record<string, TransitionConfig>;
  always?: TransitionConfig;
  after?: Record<string, TransitionConfig>;
  onDone?: TransitionConfig;
  invoke?: OneOrMany<{ src?: string; onDone?: TransitionConfig; onError?: TransitionConfig }>;
}

type OneOrMany<T> = T | T[];
type TransitionConfig = OneOrMany<string | { target?: OneOrMany<string>; guard?: string | { type: string } }>;

const list = <T>(value: OneOrMany<T> | undefined): T[] =>
  value === undefined ? [] : Array.isArray(value) ? value : [value];

const charts = new Map<string, Chart | null>();

/** null: the text is no machine. */
export function chartOf(definition: string): Chart | null {
  let chart = charts.get(definition);
  if (chart === undefined) {
    chart = read(definition);
    charts.set(definition, chart);
  }
  return chart;
}

function read(definition: string): Chart | null {
  const root = JSON.parse(definition) as StateConfig;
  if (root.states === undefined) return null;
  const name = root.id ?? 'machine';
  const states: ChartState[] = [];
  const configs = new Map<string, StateConfig>();
  /** Ids that `#id` targets name. */
  const named = new Map<string, string>([[name, '']]);
  const walk = (config: StateConfig, parent: string | null): void => {
    for (const [key, inner] of Object.entries(config.states ?? {})) {
      const id = parent === null ? key : `${parent}.${key}`;
      configs.set(id, inner);
      if (inner.id !== undefined) named.set(inner.id, id);
      states.push({
        id,
        name: key,
        parent,
        initial: config.type !== 'parallel' && config.initial === key,
        final: inner.type === 'final',
        compound: inner.states !== undefined,
        inner: [],
      });
      walk(inner, id);
    }
  };
  walk(root, null);

  const resolve = (from: string, target: string): string | null => {
    if (target.startsWith('#')) {
      const text = target.slice(1);
      for (const [id, path] of named) {
        if (text === id) return path;
        if (text.startsWith(`${id}.`)) return [path, text.slice(id.length + 1)].filter(Boolean).join('.');
      }
      return null;
    }
    if (target.startsWith('.')) return from + target;
    const parent = from.includes('.') ? from.slice(0, from.lastIndexOf('.') + 1) : '';
    return parent + target;
  };
  const edges = new Map<string, ChartEdge>();
  for (const state of states) {
    for (const [event, config] of transitionsOf(configs.get(state.id) as StateConfig)) {
      for (const one of list(config)) {
        const { target, guard } = typeof one === 'string' ? { target: one, guard: undefined } : one;
        const label = labelOf(event, guard);
        const targets = list(target);
        if (targets.length === 0) state.inner.push(label);
        for (const wanted of targets) {
          const to = resolve(state.id, wanted);
          if (to === null || !configs.has(to)) continue;
          const id = `${state.id}→${to}`;
          const known = edges.get(id);
          if (known === undefined) edges.set(id, { id, from: state.id, to, labels: [label] });
          else if (!known.labels.includes(label)) known.labels.push(label);
        }
      }
    }
  }
  return {
    name,
    states,
    edges: [...edges.values()],
    everywhere: transitionsOf(root).flatMap(([event, config]) =>
      list(config).map((one) => labelOf(event, typeof one === 'string' ? undefined : one.guard)),
    ),
    nested: states.some(({ parent }) => parent !== null),
  };
}

function transitionsOf(config: StateConfig): [string, TransitionConfig][] {
  const all: [string, TransitionConfig][] = Object.entries(config.on ?? {});
  if (config.always !== undefined) all.push(['always', config.always]);
  for (const [delay, transition] of Object.entries(config.after ?? {})) all.push([`after ${delay}`, transition]);
  if (config.onDone !== undefined) all.push(['done', config.onDone]);
  for (const { src = 'invoked', onDone, onError } of list(config.invoke)) {
    if (onDone !== undefined) all.push([`${src} done`, onDone]);
    if (onError !== undefined) all.push([`${src} failed`, onError]);
  }
  return all;
}

function labelOf(event: string, guard: string | { type: string } | undefined): string {
  if (guard === undefined) return event;
  return `${event} [${typeof guard === 'string' ? guard : guard.type}]`;
}

/** Ids of the states that a machine is in, those around them included. */
export function activeStates(value: Json | undefined, prefix = ''): Set<string> {
  const active = new Set<string>();
  if (typeof value === 'string') active.add(prefix + value);
  else if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) {
      active.add(prefix + name);
      for (const id of activeStates(inner, `${prefix}${name}.`)) active.add(id);
    }
  }
  return active;
}

export interface Point {
  x: number;
  y: number;
}

export interface Placed {
  width: number;
  height: number;
  states: Map<string, { x: number; y: number; width: number; height: number }>;
  edges: { edge: ChartEdge; points: Point[]; label: Point }[];
}

const placements = new WeakMap<Chart, Promise<Placed>>();

/** A machine is laid out once: a flat one here, a nested one by ELK in a worker that is loaded for it. */
export function place(chart: Chart): Promise<Placed> {
  let placed = placements.get(chart);
  if (placed === undefined) {
    placed = chart.nested ? placeNested(chart) : Promise.resolve(placeFlat(chart));
    placements.set(chart, placed);
    placed.catch(() => placements.delete(chart));
  }
  return placed;
}

const textWidth = (lines: readonly string[]): number => Math.max(0, ...lines.map(({ length }) => length)) * CHAR;

function sizeOf(state: ChartState): { width: number; height: number } {
  return {
    width: Math.ceil(Math.max(textWidth([state.name]) * 1.12 + 2 * STATE_PAD, textWidth(state.inner) + STATE_PAD)),
    height: STATE_HEIGHT + state.inner.length * LINE + (state.inner.length > 0 ? 6 : 0),
  };
}

function labelSize({ labels }: ChartEdge): { width: number; height: number } {
  return { width: Math.ceil(textWidth(labels)) + 8, height: labels.length * LINE };
}

function placeFlat(chart: Chart): Placed {
  const graph = new graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: 'LR', nodesep: 22, ranksep: 26, edgesep: 12, marginx: 20, marginy: 8 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const state of chart.states) graph.setNode(state.id, sizeOf(state));
  for (const edge of chart.edges) graph.setEdge(edge.from, edge.to, { ...labelSize(edge), labelpos: 'c' }, edge.id);
  dagre(graph);
  const { width = 0, height = 0 } = graph.graph() as { width?: number; height?: number };
  return {
    width,
    height,
    states: new Map(
      chart.states.map(({ id }) => {
        const box = graph.node(id) as { x: number; y: number; width: number; height: number };
        return [id, { ...box, x: box.x - box.width / 2, y: box.y - box.height / 2 }];
      }),
    ),
    edges: chart.edges.map((edge) => {
      const { points = [], x, y } = graph.edge(edge.from, edge.to, edge.id) as Point & { points?: Point[] };
      return { edge, points, label: { x, y } };
    }),
  };
}

async function placeNested(chart: Chart): Promise<Placed> {
  const { layoutInWorker } = await import('./elk.ts');
  const nodes = new Map<string, ElkNode>();
  const root: ElkNode = {
    id: '',
    children: [],
    edges: chart.edges.map((edge) => ({
      id: edge.id,
      sources: [edge.from],
      targets: [edge.to],
      labels: [{ text: edge.labels.join('\n'), ...labelSize(edge) }],
    })),
    layoutOptions: {
      'elk.algorithm': 'layered',
      'elk.direction': 'RIGHT',
      'elk.hierarchyHandling': 'INCLUDE_CHILDREN',
      'elk.json.edgeCoords': 'ROOT',
      'elk.json.shapeCoords': 'ROOT',
      'elk.edgeRouting': 'POLYLINE',
      'elk.spacing.nodeNode': '18',
      'elk.spacing.edgeLabel': '3',
      'elk.layered.spacing.nodeNodeBetweenLayers': '28',
      'elk.padding': '[top=8,left=20,bottom=8,right=20]',
    },
  };
  for (const state of chart.states) {
    const node: ElkNode = { id: state.id, ...sizeOf(state) };
    if (state.compound) {
      node.children = [];
      node.layoutOptions = { 'elk.padding': `[top=${HEAD + state.inner.length * LINE},left=24,bottom=12,right=14]` };
    }
    nodes.set(state.id, node);
    const parent = state.parent === null ? root : (nodes.get(state.parent) as ElkNode);
    parent.children?.push(node);
  }
  const { width = 0, height = 0, edges = [], children = [] } = await layoutInWorker(root);
  const states: Placed['states'] = new Map();
  const collect = (some: ElkNode[]): void => {
    for (const { id, x = 0, y = 0, width: w = 0, height: h = 0, children: inner = [] } of some) {
      states.set(id, { x, y, width: w, height: h });
      collect(inner);
    }
  };
  collect(children);
  const byId = new Map(chart.edges.map((edge) => [edge.id, edge]));
  return {
    width,
    height,
    states,
    edges: (edges as ElkExtendedEdge[]).map(({ id, sections: [section] = [], labels: [label] = [] }) => ({
      edge: byId.get(id) as ChartEdge,
      points: section === undefined ? [] : [section.startPoint, ...(section.bendPoints ?? []), section.endPoint],
      label: {
        x: (label?.x ?? 0) + (label?.width ?? 0) / 2,
        y: (label?.y ?? 0) + (label?.height ?? 0) / 2,
      },
    })),
  };
}
