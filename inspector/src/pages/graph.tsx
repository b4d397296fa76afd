/** The graph of an execution: laid out when its shape changes, painted anew when its states do. */
import '@xyflow/react/dist/style.css';
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
import { type MouseEvent, memo, useEffect, useMemo, useRef, useState } from 'react';
import type { NodeRecord } from '../../../src/client/index.ts';
import { placementOf, shapeOf } from '../graph/placement.ts';
import { LARGE, type Placement } from '../graph/plan.ts';
import type { DefinitionNode } from '../store.ts';
import { Icon, Loading } from '../ui.tsx';

/** Below this zoom nobody reads what stands in a node: a large graph shows its states alone. */
const LEGIBLE_ZOOM = 0.3;

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

const NONE: Node<Data>[] = [];
/** Where a large graph begins, so that none of its nodes is drawn in full before all are fitted in. */
const FAR = { x: 0, y: 0, zoom: 0.03 };

/**
 * Each node as a block in the colour of its state; the table has the same in words.
 *
 * All of one state are one element: thousands of them take a good part of a second to make and to style.
 */
const Overview = memo(function Overview({
  nodes,
  onSelect,
}: {
  nodes: Node<Data>[];
  onSelect: (path: string) => void;
}) {
  const press = ({ clientX, clientY, currentTarget }: MouseEvent<SVGGElement>): void => {
    const toGraph = currentTarget.getScreenCTM()?.inverse();
    if (toGraph === undefined) return;
    const at = new DOMPoint(clientX, clientY).matrixTransform(toGraph);
    // Nodes of a body come after their loop.
    const hit = nodes.findLast(
      ({ position: { x, y }, width = 0, height = 0 }) =>
        at.x >= x && at.x <= x + width && at.y >= y && at.y <= y + height,
    );
    if (hit !== undefined) onSelect(hit.id);
  };
  const blocks = useMemo(() => blocksOf(nodes), [nodes]);
  const current = nodes.find(({ data }) => data.selected);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: by keyboard the same is in the table.
    <g className="overview" data-drawn={nodes.length} onClick={press}>
      {blocks.map(({ key, status, path }) => (
        <path key={key} className={`mini is-${status}`} d={path} />
      ))}
      {current === undefined ? null : (
        <rect
          className="mini-current"
          x={current.position.x}
          y={current.position.y}
          width={current.width}
          height={current.height}
        />
      )}
    </g>
  );
});

/** Loops before what is in them. */
function blocksOf(nodes: readonly Node<Data>[]): { key: string; status: string; path: string }[] {
  const blocks = new Map<string, { key: string; depth: number; status: string; path: string }>();
  for (const { position, width = 0, height = 0, zIndex: depth = 0, data } of nodes) {
    const { status } = data.record;
    const key = `${depth} ${status}`;
    const block = blocks.get(key) ?? { key, depth, status, path: '' };
    block.path += `M${Math.round(position.x)},${Math.round(position.y)}h${width}v${height}h${-width}z`;
    blocks.set(key, block);
  }
  return [...blocks.values()].sort((a, b) => a.depth - b.depth);
}

const nodeTypes = { fullstop: FlowNode };

/** Lays a graph out before it is shown. */
export function prepare(names: string[], needs: Record<string, DefinitionNode>): void {
  const shape = { names, needs };
  placementOf(shapeOf(shape), shape);
}

export function Graph(props: Props) {
  const { nodes, needs } = props;
  const names = Object.keys(nodes);
  const key = shapeOf({ names, needs });
  // biome-ignore lint/correctness/useExhaustiveDependencies: states come often and move nothing.
  const placing = useMemo(() => placementOf(key, { names, needs }), [key]);
  const [placed, setPlaced] = useState(placing instanceof Promise ? null : placing);
  useEffect(() => {
    if (!(placing instanceof Promise)) return setPlaced(placing);
    let gone = false;
    void placing.then((placement) => gone || setPlaced(placement));
    return () => {
      gone = true;
    };
  }, [placing]);
  // Until another shape is laid out, the one before is shown.
  const shown = placing instanceof Promise ? placed : placing;
  if (shown === null) return <Loading what="the graph" />;
  return (
    <ReactFlowProvider>
      <Flow {...props} placed={shown} />
    </ReactFlowProvider>
  );
}

function Flow({ nodes, needs, selected, onSelect, placed }: Props & { placed: Placement }) {
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
        key={`${placed.boxes.length} ${placed.width} ${placed.height}`}
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
            <path d={placed.edges} />
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
