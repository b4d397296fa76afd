/** The actors below the engine, as a tree: the execution, its nodes as their bodies nest, tasks, child executions. */
import { type KeyboardEvent, memo, useEffect, useMemo, useRef } from 'react';
import type { ExecutionItem, ExecutionRecord } from '../../../src/client/index.ts';
import { shortId } from '../format.ts';
import { navigate } from '../router.ts';
import { Icon, type Look, lookOf, useWindow } from '../ui.tsx';
import { nameOf, placeOf, taskName, titleOf } from './names.ts';
import { type ActorState, type SeenActor, stateName } from './recording.ts';
import { type Task, taskLook } from './tasks.ts';

const ROW_PX = 26;

export interface TreeRow {
  /** As the address names it; a child execution is a page of its own. */
  name: string;
  depth: number;
  title: string;
  kind: string;
  look: Look;
  state: string;
  to?: string;
}

function nodeLook({ status, value }: ActorState): Look {
  if (value === 'held' || value === 'keptHeld') return 'Held';
  if (value === 'ready') return 'Pending';
  if (value === 'complete') return 'Complete';
  if (value === 'skipped') return 'Skipped';
  if (value === 'aborting') return 'Stopping';
  return value === 'failed' || status === 'error' ? 'Failed' : 'Running';
}

function executionLook({ value }: ActorState, stopped: boolean): Look {
  if (value === 'pending') return 'Pending';
  if (value === 'complete') return 'Complete';
  if (value === 'stopping' || value === 'aborting') return 'Stopping';
  if (value === 'failed') return stopped ? 'Stopped' : 'Failed';
  return 'Running';
}

/** Rows in the order of the tree. Of a loop's body each node is there once, in its last iteration. */
export function treeOf(
  actors: ReadonlyMap<string, SeenActor>,
  tasks: ReadonlyMap<string, Task[]>,
  record: ExecutionRecord,
  children: readonly ExecutionItem[],
): TreeRow[] {
  const rows: TreeRow[] = [];
  const engine = actors.get('engine');
  const execution = actors.get(`execution:${record.id}`);
  if (engine !== undefined) {
    const state = stateName(engine.state.value);
    rows.push({ name: 'engine', depth: 0, title: 'engine', kind: 'engine', look: 'Running', state });
  }
  const depth = rows.length;
  if (execution !== undefined) {
    rows.push({
      name: 'execution',
      depth,
      title: record.workflow.name,
      kind: 'execution',
      look: executionLook(execution.state, record.stop !== null),
      state: stateName(execution.state.value),
    });
  }
  // Later iterations come later.
  const last = new Map<string, SeenActor>();
  for (const actor of actors.values()) {
    const place = placeOf(actor.id);
    if (place !== null) last.set(place.path, actor);
  }
  const order = new Map(Object.keys(record.nodes).map((name, index) => [name, index]));
  const rank = (path: string): number => order.get(path.split('/')[0] ?? '') ?? order.size;
  const paths = [...last].sort(([a], [b]) => rank(a) - rank(b) || (a < b ? -1 : 1));
  for (const [path, { id, state: actorState }] of paths) {
    const level = depth + path.split('/').length;
    const title = titleOf(id);
    rows.push({
      name: nameOf(id),
      depth: level,
      title: title.slice(title.lastIndexOf('/') + 1),
      kind: 'node',
      look: nodeLook(actorState),
      state: stateName(actorState.value),
    });
    for (const { node, attempt, state } of tasks.get(title) ?? []) {
      rows.push({
        name: taskName(node, attempt),
        depth: level + 1,
        title: `task, attempt ${attempt}`,
        kind: 'task',
        look: taskLook[state],
        state,
      });
    }
    for (const item of children) {
      if (item.parent?.node !== path) continue;
      rows.push({
        name: item.id,
        depth: level + 1,
        title: item.parent.itemIndex === undefined ? shortId(item.id) : `item ${item.parent.itemIndex}`,
        kind: 'child execution',
        look: lookOf(item),
        state: item.status,
        to: `/executions/${item.id}/actors`,
      });
    }
  }
  return rows;
}

export function ActorTree({
  rows,
  selected,
  onSelect,
}: {
  rows: readonly TreeRow[];
  selected: string;
  onSelect: (name: string) => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const { first, last } = useWindow(scroller, ROW_PX, rows.length);
  const at = useMemo(() => rows.findIndex(({ name }) => name === selected), [rows, selected]);
  useEffect(() => {
    const element = scroller.current;
    if (element === null || at < 0) return;
    const top = at * ROW_PX;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW_PX > element.scrollTop + element.clientHeight)
      element.scrollTop = top + ROW_PX - element.clientHeight;
  }, [at]);
  const move = (event: KeyboardEvent): void => {
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    const current = rows[at];
    if (event.key === 'Enter' && current?.to !== undefined) return navigate(current.to);
    const row = to === undefined ? undefined : rows[Math.max(0, Math.min(rows.length - 1, to))];
    if (row === undefined) return;
    event.preventDefault();
    onSelect(row.name);
  };
  return (
    <div
      className="actor-tree"
      ref={scroller}
      role="tree"
      tabIndex={0}
      aria-label="Actors"
      aria-activedescendant={at >= first && at < last ? `actor-${at}` : undefined}
      onKeyDown={move}
    >
      <div style={{ height: rows.length * ROW_PX }} role="presentation">
        <div style={{ transform: `translateY(${first * ROW_PX}px)` }} role="presentation">
          {rows.slice(first, last).map((row, index) => (
            <ActorRow
              key={row.name}
              row={row}
              id={`actor-${first + index}`}
              position={first + index + 1}
              total={rows.length}
              isSelected={row.name === selected}
              onSelect={onSelect}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

const ActorRow = memo(function ActorRow({
  row: { name, depth, title, kind, look, state, to },
  id,
  position,
  total,
  isSelected,
  onSelect,
}: {
  row: TreeRow;
  id: string;
  position: number;
  total: number;
  isSelected: boolean;
  onSelect: (name: string) => void;
}) {
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the tree has the focus and moves with the arrows.
    <div
      id={id}
      role="treeitem"
      className="actor"
      aria-level={depth + 1}
      aria-posinset={position}
      aria-setsize={total}
      aria-selected={isSelected}
      data-actor={name}
      style={{ paddingLeft: 8 + depth * 14 }}
      onClick={() => (to === undefined ? onSelect(name) : navigate(to))}
      title={`${kind} ${title}: ${state}`}
    >
      <Icon look={look} />
      <span className="cut">
        {kind === 'node' || kind === 'task' ? null : (
          <span className="muted">{kind === 'engine' ? '' : `${kind} `}</span>
        )}
        {title}
      </span>
      <span className="actor-state cut">{state}</span>
    </div>
  );
});
