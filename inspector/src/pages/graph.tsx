/** The graph of an execution: laid out by dagre when its shape changes, painted anew when its states do. */
import '@xyflow/react/dist/style.css';
import { graphlib, layout } from '@dagrejs/dagre';
import {
  Background,
  Controls,
  type Node,
  type NodeProps,
  ReactFlow,
  ReactFlowProvider,
  useStore as useFlowStore,
  useReactFlow,
  ViewportPortal,
} from '@xyflow/react';
import { type MouseEvent, memo, useMemo, useRef } from 'react';
import type { NodeRecord } from '../../../src/client/index.ts';
import type { DefinitionNode } from '../store.ts';
import { Icon } from '../ui.tsx';

const WIDTH = 190;
const HEIGHT = 54;
const PAD = 16;
const HEAD = 48;
/** With more nodes than this the fast layout is used, and only what is in sight is drawn. */
const LARGE = 250;
/** Below this zoom nobody reads what stands in a node: a large graph shows its states alone. */
const LEGIBLE_ZOOM = 0.3;

interface Box {
  path: string;
  name: string;
  x: number;
  y: number;
  width: number;
  height: number;
  holds: boolean;
}

interface Plan {
  width: number;
  height: number;
  boxes: Box[];
  edges: { points: Point[] }[];
}

interface Point {
  x: number;
  y: number;
}

type Data = {
  path: string;
  name: string;
  record: NodeRecord;
  selected: boolean;
  holds: boolean;
  onSelect: (path: string) => void;
};

interface Props {
  nodes: Record<string, NodeRecord>;
  needs: Record<string, DefinitionNode>;
  selected: string | null;
  onSelect: (node: string) => void;
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

const pending: NodeRecord = {
  type: '',
  status: 'Pending',
  error: null,
  errorCode: null,
  attempt: 0,
  startedAt: null,
  endedAt: null,
  hasOutput: false,
  where: 'engine',
};

/** A node of a body is in the current iteration of its loop; one that has not come to it is Pending. */
function recordAt(nodes: Record<string, NodeRecord>, needs: Record<string, DefinitionNode>, path: string): NodeRecord {
  let record: NodeRecord | undefined;
  let here: Record<string, NodeRecord> | undefined = nodes;
  let file: DefinitionNode | undefined;
  let files: Record<string, DefinitionNode> | undefined = needs;
  for (const name of path.split('/')) {
    record = here?.[name];
    file = files?.[name];
    here = record?.iteration?.nodes;
    files = file?.body;
  }
  return record ?? { ...pending, type: file?.type ?? '' };
}

const FlowNode = memo(function FlowNode({ data }: NodeProps<Node<Data>>) {
  const { record, name, path, selected, holds, onSelect } = data;
  const { status, type, attempt, children, iteration } = record;
  const more =
    children !== undefined
      ? `${children.complete} of ${children.total}${children.failed > 0 ? `, ${children.failed} failed` : ''}`
      : iteration !== undefined
        ? `iteration ${iteration.index}`
        : attempt > 1
          ? `attempt ${attempt}`
          : '';
  return (
    <button
      type="button"
      className={`node is-${status}${selected ? ' is-current' : ''}${holds ? ' holds' : ''}`}
      onClick={() => onSelect(path)}
    >
      <span className="node-name">{name}</span>
      <span className="node-line">
        <Icon look={status} />
        <span className="node-status">{status}</span>
        <span className="node-type">{type}</span>
        <span className="node-more">{more}</span>
      </span>
    </button>
  );
});

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

const NONE: Node<Data>[] = [];
/** Where a large graph begins, so that none of its nodes is drawn in full before all are fitted in. */
const FAR = { x: 0, y: 0, zoom: 0.03 };

/** Each node as a block in the colour of its state; the table has the same in words. */
const Overview = memo(function Overview({
  nodes,
  onSelect,
}: {
  nodes: Node<Data>[];
  onSelect: (path: string) => void;
}) {
  const press = (event: MouseEvent<SVGGElement>): void => {
    const path = (event.target as SVGElement).dataset.path;
    if (path !== undefined) onSelect(path);
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: by keyboard the same is in the table.
    <g onClick={press}>
      {nodes.map(({ id, position: { x, y }, width, height, data }) => (
        <rect
          key={id}
          data-path={id}
          className={`mini is-${data.record.status}${data.selected ? ' is-current' : ''}`}
          x={x}
          y={y}
          width={width}
          height={height}
        />
      ))}
    </g>
  );
});

const nodeTypes = { fullstop: FlowNode };

export function Graph(props: Props) {
  return (
    <ReactFlowProvider>
      <Flow {...props} />
    </ReactFlowProvider>
  );
}

function Flow({ nodes, needs, selected, onSelect }: Props) {
  const names = Object.keys(nodes);
  const shape = JSON.stringify([names, needs]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: states come often and move nothing.
  const placed = useMemo(() => plan(names, needs, ''), [shape]);
  const latest = useRef(onSelect);
  latest.current = onSelect;
  const select = useRef((path: string) => latest.current(path)).current;
  const shown = useRef(new Map<string, Node<Data>>());

  const flowNodes = useMemo(() => {
    const kept = new Map<string, Node<Data>>();
    for (const { path, name, x, y, width, height, holds } of placed.boxes) {
      const record = recordAt(nodes, needs, path);
      const isSelected = path === selected;
      const before = shown.current.get(path);
      const same =
        before !== undefined &&
        before.position.x === x &&
        before.position.y === y &&
        before.data.selected === isSelected &&
        sameLook(before.data.record, record);
      kept.set(
        path,
        same
          ? before
          : {
              id: path,
              type: 'fullstop',
              position: { x, y },
              width,
              height,
              measured: { width, height },
              zIndex: path.split('/').length,
              draggable: false,
              connectable: false,
              focusable: false,
              selectable: false,
              data: { path, name, record, selected: isSelected, holds, onSelect: select },
            },
      );
    }
    shown.current = kept;
    return [...kept.values()];
  }, [placed, nodes, needs, selected, select]);
  const edges = useMemo(() => pathOf(placed.edges), [placed]);
  const large = placed.boxes.length > LARGE;
  const legible = useFlowStore(({ transform: [, , zoom] }) => zoom >= LEGIBLE_ZOOM);
  const overview = large && !legible;
  const { fitBounds } = useReactFlow();
  const fit = (): void => {
    const { width, height } = placed;
    void fitBounds({ x: 0, y: 0, width, height }, { padding: 0.04 });
  };
  return (
    <div className="flow" data-testid="graph" data-nodes={placed.boxes.length}>
      <ReactFlow
        // Another shape is another picture: it is fitted anew.
        key={shape.length}
        nodes={overview ? NONE : flowNodes}
        nodeTypes={nodeTypes}
        {...(large ? { onInit: fit, defaultViewport: FAR } : { fitView: true })}
        fitViewOptions={{ maxZoom: 1.1, padding: 0.08 }}
        minZoom={0.02}
        maxZoom={2}
        onlyRenderVisibleElements={large}
        nodesDraggable={false}
        nodesConnectable={false}
        nodesFocusable={false}
        elementsSelectable={false}
        proOptions={{ hideAttribution: false }}
        aria-label="Graph of the nodes"
      >
        <ViewportPortal>
          <svg className="edges" aria-hidden="true">
            <path d={edges} />
            {overview ? <Overview nodes={flowNodes} onSelect={select} /> : null}
          </svg>
        </ViewportPortal>
        <Background gap={24} />
        <Controls showInteractive={false} {...(large ? { onFitView: fit } : {})} />
      </ReactFlow>
    </div>
  );
}

function sameLook(a: NodeRecord, b: NodeRecord): boolean {
  return (
    a.status === b.status &&
    a.attempt === b.attempt &&
    a.type === b.type &&
    a.iteration?.index === b.iteration?.index &&
    JSON.stringify(a.children) === JSON.stringify(b.children)
  );
}
