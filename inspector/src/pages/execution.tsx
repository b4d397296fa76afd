/** One execution: what it is doing, what it did, and the way to end it. */
import { lazy, type ReactNode, Suspense, useEffect, useMemo, useRef, useState } from 'react';
import type { ExecutionRecord, NodeRecord } from '../../../src/client/index.ts';
import { adviceOf } from '../advice.ts';
import { count, messageOf, place, shortId, workflowRef } from '../format.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import {
  type Definition,
  type DefinitionNode,
  type ExecutionState,
  store,
  useDenied,
  useResource,
  useStore,
} from '../store.ts';
import {
  Ago,
  Banner,
  CopyId,
  Duration,
  Empty,
  ExecutionStatus,
  Link,
  Loading,
  lookOf,
  Menu,
  MenuItem,
  Status,
  useKeys,
  useTitle,
  useWindow,
} from '../ui.tsx';
import { EventsTab } from './events.tsx';
import { KillDialog } from './kill.tsx';
import { LogsTab } from './logs.tsx';
import { download, ResultsTab } from './results.tsx';
import { StopTab } from './stop-tab.tsx';
import { TimelineTab } from './timeline.tsx';

const Graph = lazy(async () => ({ default: (await import('./graph.tsx')).Graph }));
const ActorsTab = lazy(async () => ({ default: (await import('./actors.tsx')).ActorsTab }));

/** A graph with more nodes than this is laid out before somebody looks at it. */
const AHEAD = 250;
/** A table with more rows than this draws those in sight, each one line high. */
const TABLE_LARGE = 200;
const TABLE_ROW_PX = 30;

const TABS = [
  ['graph', 'Graph'],
  ['timeline', 'Timeline'],
  ['events', 'Events'],
  ['actors', 'Actors'],
  ['logs', 'Logs'],
  ['results', 'Results'],
  ['stop', 'Stop'],
] as const;

export function ExecutionPage({ id, tab }: { id: string; tab: string }) {
  useEffect(() => {
    store.openExecution(id);
    return () => store.closeExecution(id);
  }, [id]);
  const execution = useStore((state) => (state.execution?.id === id ? state.execution : null));
  useTitle(execution?.record == null ? 'Execution' : `${execution.record.workflow.name} ${shortId(id)}`);

  if (execution?.phase === 'missing') {
    return (
      <Empty title="There is no such execution, or your key may not see it.">
        <p className="mono">{id}</p>
        <p>
          <Link to="/executions">See all executions</Link>
        </p>
      </Empty>
    );
  }
  if (execution === null || execution.record === null) {
    return (
      <>
        {execution?.phase === 'failed' ? (
          <Banner kind="error" title="The execution could not be read.">
            {execution.error}
          </Banner>
        ) : null}
        <Loading what="the execution" />
      </>
    );
  }
  return <Loaded execution={execution} record={execution.record} tab={tab} />;
}

function Loaded({ execution, record, tab }: { execution: ExecutionState; record: ExecutionRecord; tab: string }) {
  const [killing, setKilling] = useState(false);
  const look = lookOf(record);
  const whyNotKill = notKillable(record);
  useKeys((key) => {
    if (key !== 's') return false;
    if (whyNotKill === null) setKilling(true);
    else store.notify(whyNotKill);
    return true;
  });
  const { id } = record;
  const { definition } = execution;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the record changes often, its graph does not.
  useEffect(() => {
    const names = Object.keys(record.nodes);
    if (definition === null || names.length <= AHEAD) return;
    void import('./graph.tsx').then(({ prepare }) => prepare(names, graphOf(record, definition)));
  }, [id, definition]);
  const tabs = TABS.filter(([name]) => name !== 'stop' || record.stop !== null || tab === 'stop');
  return (
    <div className="page">
      <div className="page-head">
        <h1>
          <Link to={`/executions?workflow=${record.workflow.name}`}>{record.workflow.name}</Link>{' '}
          <span className="muted">v{record.workflow.version}</span>
        </h1>
        <ExecutionStatus item={record} long />
        <span className="muted">
          started <Ago at={record.startedAt} />
          {record.startedAt === null ? '' : ', '}
          {record.startedAt === null ? null : (
            <>
              {record.endedAt === null ? 'for ' : 'took '}
              <Duration of={record} />
            </>
          )}
        </span>
        <span className="grow" />
        <Actions record={record} whyNotKill={whyNotKill} onKill={() => setKilling(true)} />
      </div>
      <div className="facts">
        <CopyId id={id} />
        {record.parent === null ? null : (
          <span>
            child of{' '}
            <Link to={`/executions/${record.parent.executionId}?node=${record.parent.node}`}>
              {shortId(record.parent.executionId)}
            </Link>
            , node {record.parent.node}
          </span>
        )}
        {Object.entries(record.labels).map(([name, value]) => (
          <Link key={name} className="label" to={`/executions?label=${encodeURIComponent(`${name}=${value}`)}`}>
            {name}={value}
          </Link>
        ))}
      </div>
      <Trouble record={record} tab={tab} />
      <nav className="tabs" aria-label="Views of this execution">
        {tabs.map(([name, title]) => (
          <Link
            key={name}
            to={name === 'graph' ? `/executions/${id}` : `/executions/${id}/${name}`}
            aria-current={tab === name ? 'page' : undefined}
          >
            {name === 'stop' ? <Status look={look === 'Stopping' ? 'Stopping' : 'Stopped'} text={title} /> : title}
          </Link>
        ))}
      </nav>
      <div className="tab-body">{body(tab, execution, record)}</div>
      {killing ? <KillDialog item={record} onClose={() => setKilling(false)} /> : null}
    </div>
  );
}

function body(tab: string, execution: ExecutionState, record: ExecutionRecord): ReactNode {
  if (tab === 'graph') return <GraphTab execution={execution} record={record} />;
  if (tab === 'timeline') return <TimelineTab execution={execution} record={record} />;
  if (tab === 'events') return <EventsTab execution={execution} record={record} />;
  if (tab === 'actors') {
    return (
      <Suspense fallback={<Loading what="the actors" />}>
        <ActorsTab execution={execution} record={record} />
      </Suspense>
    );
  }
  if (tab === 'logs') return <LogsTab execution={execution} />;
  if (tab === 'results') return <ResultsTab record={record} />;
  if (tab === 'stop') return <StopTab execution={execution} record={record} />;
  return <Empty title="There is no such view." />;
}

function notKillable(record: ExecutionRecord): string | null {
  if (record.endedAt !== null)
    return record.stoppedByUser ? 'It is stopped already.' : `It has ended ${record.status}: nothing to stop.`;
  return record.stop === null ? null : 'A stop has been requested already: see the Stop tab.';
}

function Actions({
  record,
  whyNotKill,
  onKill,
}: {
  record: ExecutionRecord;
  whyNotKill: string | null;
  onKill: () => void;
}) {
  const mayNotStart = useDenied('operate');
  const again = async (): Promise<void> => {
    try {
      const started = await store.client.executions.start({
        project: record.project,
        workflow: workflowRef(record.workflow),
        input: (record.input ?? {}) as Record<string, never>,
        labels: record.labels,
      });
      store.notify('started again, with the same input');
      navigate(`/executions/${started.id}`);
    } catch (error) {
      store.notify(`It was not started: ${messageOf(error)}`);
    }
  };
  const save = async (): Promise<void> => {
    try {
      download(`${record.id}.json`, await store.client.executions.results(record.id));
    } catch (error) {
      store.notify(`No results: ${messageOf(error)}`);
    }
  };
  return (
    <Menu label="Workflow actions">
      <MenuItem danger why={whyNotKill} onSelect={onKill}>
        Kill workflow
      </MenuItem>
      <MenuItem
        why={record.parent === null ? mayNotStart : 'A child runs again with its parent.'}
        onSelect={() => void again()}
      >
        Run again
      </MenuItem>
      <MenuItem onSelect={() => void save()}>Download results</MenuItem>
      <MenuItem onSelect={() => navigate(`/workflows/${record.workflow.name}?hash=${record.workflow.hash}`)}>
        Open the workflow
      </MenuItem>
    </Menu>
  );
}

/** What happened and what to do about it. */
function Trouble({ record, tab }: { record: ExecutionRecord; tab: string }) {
  const waiting = useWaiting(record);
  if (record.stop !== null) {
    if (record.endedAt === null) {
      return (
        <Banner kind="stop" title="stop has been requested">
          {record.waitingFor === undefined || record.waitingFor.length === 0
            ? 'The final record is being written.'
            : `Waiting for ${record.waitingFor.map(place).join(', ')} to confirm its end, five seconds at most.`}{' '}
          {tab === 'stop' ? null : <Link to={`/executions/${record.id}/stop`}>Follow the stop</Link>}
        </Banner>
      );
    }
    return (
      <Banner kind="stop" title={record.error ?? 'workflow stopped by user'}>
        It cannot be resumed. <em>Run again</em>, under Workflow actions, starts a new one.{' '}
        {tab === 'stop' ? null : <Link to={`/executions/${record.id}/stop`}>What the stop did</Link>}
      </Banner>
    );
  }
  const failed = Object.entries(record.nodes).filter(([, node]) => node.status === 'Failed');
  if (record.status === 'Failed') {
    const advice = adviceOf(record.errorCode);
    return (
      <Banner kind="error" title={record.error ?? 'It failed.'}>
        {failed.length === 0 ? null : (
          <>
            Failed: <NodeLinks record={record} names={failed.map(([name]) => name)} />{' '}
          </>
        )}
        {advice} {record.errorCode === null ? null : <code>{record.errorCode}</code>}
      </Banner>
    );
  }
  if (failed.length > 0 && record.status === 'Running') {
    return (
      <Banner kind="error" title={`${count(failed.length, 'node')} failed so far; the execution runs on.`}>
        <NodeLinks record={record} names={failed.map(([name]) => name)} />
      </Banner>
    );
  }
  if (waiting.length > 0) {
    return (
      <Banner kind="note" title={`Waiting: no worker here runs ${waiting.join(' or ')} tasks.`}>
        They go on as soon as one that does is connected: <Link to="/engines">Engines and workers</Link>
      </Banner>
    );
  }
  return null;
}

/** Types of running nodes whose tasks wait for a capability that nobody offers. */
function useWaiting(record: ExecutionRecord): string[] {
  const missing = useStore(({ health }) => health?.missing);
  const running = record.status === 'Running' && record.stop === null;
  useEffect(() => {
    if (!running) return;
    const look = setInterval(() => void store.refreshHealth(), 5_000);
    void store.refreshHealth();
    return () => clearInterval(look);
  }, [running]);
  if (!running || missing === undefined) return [];
  const types = new Set(
    Object.values(record.nodes).flatMap(({ status, type }) => (status === 'Running' ? [type] : [])),
  );
  return [...new Set(Object.keys(missing).map((capability) => capability.split(':')[0] ?? ''))].filter((type) =>
    types.has(type),
  );
}

function NodeLinks({ record, names }: { record: ExecutionRecord; names: string[] }) {
  return names.slice(0, 8).map((name) => (
    <span key={name}>
      <Link to={`/executions/${record.id}?node=${name}`}>{name}</Link>{' '}
    </span>
  ));
}

/** The nodes that this execution's file names, with what each needs: of a child, those of the body it runs. */
export function graphOf(record: ExecutionRecord, definition: Definition | null): Record<string, DefinitionNode> {
  let nodes = definition?.nodes ?? {};
  for (const name of record.parent?.node.split('/') ?? []) {
    const body = nodes[name]?.body;
    if (body === undefined) return definition?.nodes ?? {};
    nodes = body;
  }
  return nodes;
}

function GraphTab({ execution, record }: { execution: ExecutionState; record: ExecutionRecord }) {
  const { query } = useLocation();
  const asTable = query.get('view') === 'table';
  const selected = query.get('node');
  const select = (node: string | null): void => navigate(withQuery({ node }), { replace: true });
  const needs = graphOf(record, execution.definition);
  const found = selected === null ? null : nodeAt(record.nodes, selected);
  return (
    <div className="graph-tab">
      <div className="toolbar">
        <fieldset className="chips">
          <legend className="sr-only">Show as</legend>
          <button
            type="button"
            className="chip"
            aria-pressed={!asTable}
            onClick={() => navigate(withQuery({ view: null }), { replace: true })}
          >
            Graph
          </button>
          <button
            type="button"
            className="chip"
            aria-pressed={asTable}
            onClick={() => navigate(withQuery({ view: 'table' }), { replace: true })}
          >
            Table
          </button>
        </fieldset>
        <Legend nodes={record.nodes} />
      </div>
      <div className="split">
        <div className="split-main">
          {asTable ? (
            <NodeTable nodes={record.nodes} needs={needs} selected={selected} onSelect={select} />
          ) : (
            <Suspense fallback={<Loading what="the graph" />}>
              <Graph nodes={record.nodes} needs={needs} selected={selected} onSelect={select} />
            </Suspense>
          )}
        </div>
        {selected !== null && found !== null ? (
          <NodePanel
            record={record}
            path={selected}
            node={found}
            trigger={definitionAt(needs, selected)?.trigger ?? null}
            onClose={() => select(null)}
          />
        ) : null}
      </div>
    </div>
  );
}

function Legend({ nodes }: { nodes: Record<string, NodeRecord> }) {
  const counts = new Map<NodeRecord['status'], number>();
  for (const { status } of Object.values(nodes)) counts.set(status, (counts.get(status) ?? 0) + 1);
  const order = ['Running', 'Held', 'Pending', 'Complete', 'Failed', 'Skipped'] as const;
  return (
    <span className="legend">
      {order
        .filter((status) => counts.has(status))
        .map((status) => (
          <Status key={status} look={status} text={`${counts.get(status)} ${status}`} />
        ))}
    </span>
  );
}

function nodeAt(nodes: Record<string, NodeRecord>, path: string): NodeRecord | null {
  let found: NodeRecord | null = null;
  let here: Record<string, NodeRecord> | undefined = nodes;
  for (const name of path.split('/')) {
    found = here?.[name] ?? null;
    here = found?.iteration?.nodes;
  }
  return found;
}

function definitionAt(nodes: Record<string, DefinitionNode>, path: string): DefinitionNode | null {
  let found: DefinitionNode | null = null;
  let here: Record<string, DefinitionNode> | undefined = nodes;
  for (const name of path.split('/')) {
    found = here?.[name] ?? null;
    here = found?.body;
  }
  return found;
}

interface TableRow {
  path: string;
  depth: number;
  node: NodeRecord;
  needs: string[];
}

function tableRows(nodes: Record<string, NodeRecord>, needs: Record<string, DefinitionNode>): TableRow[] {
  const rows: TableRow[] = [];
  const walk = (some: Record<string, NodeRecord>, files: Record<string, DefinitionNode>, prefix: string): void => {
    for (const [name, node] of Object.entries(some)) {
      const path = prefix === '' ? name : `${prefix}/${name}`;
      rows.push({ path, depth: path.split('/').length - 1, node, needs: files[name]?.needs ?? [] });
      if (node.iteration !== undefined) walk(node.iteration.nodes, files[name]?.body ?? {}, path);
    }
  };
  walk(nodes, needs, '');
  return rows;
}

/** The same as the graph shows, row by row. */
function NodeTable({
  nodes,
  needs,
  selected,
  onSelect,
}: {
  nodes: Record<string, NodeRecord>;
  needs: Record<string, DefinitionNode>;
  selected: string | null;
  onSelect: (node: string) => void;
}) {
  const scroller = useRef<HTMLElement>(null);
  const rows = useMemo(() => tableRows(nodes, needs), [nodes, needs]);
  const large = rows.length > TABLE_LARGE;
  const { first, last } = useWindow(scroller, TABLE_ROW_PX, rows.length);
  const shown = large ? rows.slice(first, last) : rows;
  const gap = (count: number): ReactNode =>
    count <= 0 ? null : (
      <tr style={{ height: count * TABLE_ROW_PX }}>
        <td colSpan={8} />
      </tr>
    );
  return (
    <section className="scroll" ref={scroller} tabIndex={0} aria-label="Nodes">
      <table className={large ? 'table is-large' : 'table'} aria-rowcount={large ? rows.length + 1 : undefined}>
        <thead>
          <tr>
            <th>Node</th>
            <th>State</th>
            <th>Type</th>
            <th>Runs on</th>
            <th>Attempt</th>
            <th>Took</th>
            <th>Needs</th>
            <th>Error</th>
          </tr>
        </thead>
        <tbody>
          {large ? gap(first) : null}
          {shown.map(({ path, depth, node, needs: needed }, index) => (
            <tr
              key={path}
              className={path === selected ? 'is-current' : ''}
              aria-rowindex={large ? first + index + 2 : undefined}
            >
              <td style={{ paddingLeft: 10 + depth * 18 }}>
                <button type="button" className="as-link" onClick={() => onSelect(path)}>
                  {path}
                </button>
                {node.iteration === undefined ? null : <span className="muted"> iteration {node.iteration.index}</span>}
              </td>
              <td>
                <Status look={node.status} />
              </td>
              <td>{node.type}</td>
              <td>{node.where}</td>
              <td className="num">{node.attempt === 0 ? '' : node.attempt}</td>
              <td>
                <Duration of={node} />
              </td>
              <td className="muted">{needed.join(', ')}</td>
              <td className="muted">{node.error}</td>
            </tr>
          ))}
          {large ? gap(rows.length - last) : null}
        </tbody>
      </table>
    </section>
  );
}

function NodePanel({
  record,
  path,
  node,
  trigger,
  onClose,
}: {
  record: ExecutionRecord;
  path: string;
  node: NodeRecord;
  trigger: string | null;
  onClose: () => void;
}) {
  const denied = useDenied('operate');
  const send = async (): Promise<void> => {
    if (trigger === null) return;
    try {
      await store.client.executions.trigger(record.id, trigger);
      store.notify(`trigger ${trigger} sent`);
    } catch (error) {
      store.notify(`The trigger was not taken: ${messageOf(error)}`);
    }
  };
  return (
    <aside className="panel" aria-label={`Node ${path}`}>
      <div className="panel-head">
        <h2>{path}</h2>
        <button type="button" className="quiet" aria-label="Close" onClick={onClose}>
          ✕
        </button>
      </div>
      <Status look={node.status} />
      {node.error === null ? null : (
        <p className="fault">
          {node.error} {node.errorCode === null ? null : <code>{node.errorCode}</code>}
        </p>
      )}
      <dl className="facts-list">
        <dt>Type</dt>
        <dd>
          {node.type} on {node.where === 'agent' ? 'an External Agent' : `the ${node.where}`}
        </dd>
        <dt>Attempt</dt>
        <dd>{node.attempt === 0 ? 'none yet' : node.attempt}</dd>
        <dt>Started</dt>
        <dd>
          <Ago at={node.startedAt} />
        </dd>
        <dt>Took</dt>
        <dd>
          <Duration of={node} />
        </dd>
        {node.iteration === undefined ? null : (
          <>
            <dt>Iteration</dt>
            <dd>{node.iteration.index}</dd>
          </>
        )}
      </dl>
      {node.status === 'Held' ? (
        <div className="hold">
          <p>
            Held: it waits for {trigger === null ? 'its schedule' : `the trigger "${trigger}"`}. A stop leaves it Held.
          </p>
          {trigger === null ? null : (
            <button
              type="button"
              className="button"
              disabled={denied !== null}
              title={denied ?? undefined}
              onClick={() => void send()}
            >
              Send trigger {trigger}
            </button>
          )}
          {trigger !== null && denied !== null ? <p className="muted">{denied}</p> : null}
        </div>
      ) : null}
      {node.children === undefined ? null : <Children record={record} node={path} counts={node.children} />}
      <p className="panel-links">
        <Link to={`/executions/${record.id}/events?node=${encodeURIComponent(path)}`}>Its events</Link>
        {node.status === 'Pending' ? null : (
          <Link to={`/executions/${record.id}/actors?actor=${encodeURIComponent(`node:${path}`)}`}>Its actor</Link>
        )}
        {node.hasOutput ? <Link to={`/executions/${record.id}/results`}>Its output</Link> : null}
      </p>
    </aside>
  );
}

function Children({
  record,
  node,
  counts,
}: {
  record: ExecutionRecord;
  node: string;
  counts: NonNullable<NodeRecord['children']>;
}) {
  const { data } = useResource(
    `children:${record.id}`,
    (client) => client.executions.list({ parent: record.id, limit: 100 }),
    record.endedAt === null ? 2_000 : 0,
  );
  const items = data?.items.filter(({ parent }) => parent?.node === node) ?? [];
  return (
    <>
      <h3>Children</h3>
      <p className="muted">
        {counts.total} in all, {counts.running} running, {counts.complete} complete, {counts.failed} failed
      </p>
      <ul className="outcomes">
        {items.map((item) => (
          <li key={item.id}>
            <ExecutionStatus item={item} />
            <Link to={`/executions/${item.id}`}>
              {item.parent?.itemIndex === undefined ? shortId(item.id) : `item ${item.parent.itemIndex}`}
            </Link>
          </li>
        ))}
      </ul>
    </>
  );
}
