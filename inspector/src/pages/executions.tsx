/** All executions, live: found by filters that stand in the address, selected, and stopped together. */
import { memo, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import type { ExecutionItem, ExecutionListQuery, ExecutionStatus as Status } from '../../../src/client/index.ts';
import { count } from '../format.ts';
import { followLink, navigate, useLocation, withQuery } from '../router.ts';
import { store, useResource, useStore } from '../store.ts';
import {
  Ago,
  Banner,
  Duration,
  Empty,
  ExecutionStatus,
  Icon,
  Link,
  Loading,
  useKeys,
  useTitle,
  useWindow,
} from '../ui.tsx';
import { BulkStop, type BulkTarget } from './bulk-stop.tsx';
import { KillDialog } from './kill.tsx';

const ROW_PX = 34;
const HEAD_PX = 26;
/** Load the next page when the reader is this near to the end. */
const AHEAD = 200;
const TYPING_MS = 250;
const STATUSES: Status[] = ['Pending', 'Running', 'Complete', 'Failed'];
const SPANS = {
  '15m': ['Last 15 minutes', 900_000],
  '1h': ['Last hour', 3_600_000],
  '24h': ['Last 24 hours', 86_400_000],
  '7d': ['Last 7 days', 604_800_000],
} as const;

/** What the server is asked, from what the address says. */
export function queryOf(query: URLSearchParams, nowMs: number): ExecutionListQuery {
  const asked: ExecutionListQuery = {};
  const status = query.get('status');
  if (STATUSES.includes(status as Status)) asked.status = status as Status;
  const stopped = query.get('stopped');
  if (stopped === 'true' || stopped === 'false') {
    asked.status = 'Failed';
    asked.stoppedByUser = stopped === 'true';
  }
  for (const name of ['workflow', 'label', 'project'] as const) {
    const value = query.get(name);
    if (value !== null && value !== '') asked[name] = value;
  }
  const text = query.get('q')?.trim();
  if (text) asked.text = text.slice(0, 200);
  const since = SPANS[query.get('since') as keyof typeof SPANS];
  if (since !== undefined) asked.createdFrom = new Date(nowMs - since[1]).toISOString();
  for (const [param, name] of [
    ['from', 'createdFrom'],
    ['to', 'createdTo'],
  ] as const) {
    const value = query.get(param);
    if (value !== null && !Number.isNaN(Date.parse(value))) asked[name] = new Date(value).toISOString();
  }
  return asked;
}

export function ExecutionsPage() {
  useTitle('Executions');
  const { query } = useLocation();
  const filterText = query.toString();
  // biome-ignore lint/correctness/useExhaustiveDependencies: a relative time is counted from when it was chosen.
  const asked = useMemo(() => queryOf(query, Date.now()), [filterText]);
  useEffect(() => store.showList(asked), [asked]);

  const list = useStore((state) => state.list);
  const { items } = list;
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const [cursor, setCursor] = useState<string | null>(null);
  const [killing, setKilling] = useState<ExecutionItem | null>(null);
  const [bulk, setBulk] = useState<BulkTarget | null>(null);
  const search = useRef<HTMLInputElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const byKeyboard = useRef(false);
  const { first, last } = useWindow(scroller, ROW_PX, items.length);

  useEffect(() => {
    if (last >= items.length - AHEAD) store.loadMore();
  }, [last, items.length]);

  const move = (step: number): void => {
    const at = items.findIndex(({ id }) => id === cursor);
    const next = items[at === -1 ? 0 : Math.min(items.length - 1, Math.max(0, at + step))];
    if (next === undefined) return;
    byKeyboard.current = true;
    setCursor(next.id);
    const element = scroller.current;
    if (element === null) return;
    const top = items.indexOf(next) * ROW_PX;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + ROW_PX + HEAD_PX > element.scrollTop + element.clientHeight)
      element.scrollTop = top + ROW_PX + HEAD_PX - element.clientHeight;
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: the row is there once it is drawn.
  useEffect(() => {
    if (!byKeyboard.current || cursor === null) return;
    byKeyboard.current = false;
    document.getElementById(`open-${cursor}`)?.focus({ preventScroll: true });
  }, [cursor, first, last]);

  const toggle = useCallback((id: string): void => {
    setSelected((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });
  }, []);

  useKeys((key) => {
    const current = items.find(({ id }) => id === cursor);
    if (key === '/') search.current?.focus();
    else if (key === 'j') move(1);
    else if (key === 'k') move(-1);
    else if (key === 'x' && current !== undefined) toggle(current.id);
    else if (key === 'Enter' && current !== undefined) navigate(`/executions/${current.id}`);
    else if (key === 's' && selected.size > 0) setBulk({ ids: [...selected] });
    else if (key === 's' && current !== undefined) {
      if (current.endedAt === null) setKilling(current);
      else store.notify(`Nothing to stop: it has ended ${current.status}.`);
    } else if (key === 'Escape' && selected.size > 0) setSelected(new Set());
    else return false;
    return true;
  });

  const filtered = filterText !== '';
  return (
    <div className="page">
      <div className="page-head">
        <h1>Executions</h1>
        <span className="muted" data-testid="count">
          {list.loading && items.length === 0
            ? ''
            : `${items.length.toLocaleString('en')}${list.nextCursor === null ? '' : '+'} ${filtered ? 'match' : 'in all'}`}
        </span>
        <span className="grow" />
        <button type="button" className="button" onClick={() => setBulk({ query: asked })}>
          Stop all {filtered ? 'that match' : 'of them'}…
        </button>
      </div>
      <Filters search={search} />
      {selected.size === 0 ? null : (
        <div className="selection">
          <strong>{selected.size} selected</strong>
          <button type="button" className="button danger" onClick={() => setBulk({ ids: [...selected] })}>
            Stop…
          </button>
          <button type="button" className="button" onClick={() => setSelected(new Set())}>
            Select none
          </button>
        </div>
      )}
      {list.error === null ? null : (
        <Banner kind="error" title="The list could not be read.">
          {list.error}{' '}
          <button type="button" className="button small" onClick={() => store.reloadList()}>
            Try again
          </button>
        </Banner>
      )}
      <div
        className="rows"
        ref={scroller}
        {...(items.length > 0 ? { role: 'table', 'aria-label': 'Executions', 'aria-rowcount': items.length } : {})}
      >
        {items.length > 0 ? (
          <div className="rows-head" role="row">
            {['', 'Status', 'Workflow', 'Id', 'Started', 'Took', 'Error'].map((title) => (
              <span key={title} role="columnheader">
                {title === '' ? <span className="sr-only">Selected</span> : title}
              </span>
            ))}
          </div>
        ) : null}
        {items.length > 0 ? (
          <div role="rowgroup" style={{ height: items.length * ROW_PX, position: 'relative' }}>
            <div style={{ transform: `translateY(${first * ROW_PX}px)` }} role="presentation">
              {items.slice(first, last).map((item, index) => (
                <Row
                  key={item.id}
                  item={item}
                  index={first + index}
                  isSelected={selected.has(item.id)}
                  isCurrent={item.id === cursor}
                  onToggle={toggle}
                  onPoint={setCursor}
                />
              ))}
            </div>
          </div>
        ) : null}
        {items.length === 0 && list.loading ? <Loading what="executions" /> : null}
        {items.length === 0 && !list.loading && list.error === null ? <Nothing filtered={filtered} /> : null}
      </div>
      {killing === null ? null : <KillDialog item={killing} onClose={() => setKilling(null)} />}
      {bulk === null ? null : (
        <BulkStop
          target={bulk}
          onClose={() => {
            setBulk(null);
            setSelected(new Set());
          }}
        />
      )}
    </div>
  );
}

const Row = memo(function Row({
  item,
  index,
  isSelected,
  isCurrent,
  onToggle,
  onPoint,
}: {
  item: ExecutionItem;
  index: number;
  isSelected: boolean;
  isCurrent: boolean;
  onToggle: (id: string) => void;
  onPoint: (id: string) => void;
}) {
  const { name, version } = item.workflow;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: j, k and Enter do the same, and the link is a link.
    <div
      role="row"
      aria-rowindex={index + 1}
      className={`row${isSelected ? ' is-selected' : ''}${isCurrent ? ' is-current' : ''}`}
      onClick={(event) => {
        onPoint(item.id);
        if ((event.target as HTMLElement).closest('a, input, label') === null) navigate(`/executions/${item.id}`);
      }}
    >
      <span role="cell">
        <input
          type="checkbox"
          aria-label={`Select ${name} ${item.id}`}
          checked={isSelected}
          onChange={() => onToggle(item.id)}
        />
      </span>
      <span role="cell">
        <ExecutionStatus item={item} />
      </span>
      <span role="cell" className="cut">
        <a id={`open-${item.id}`} href={`/executions/${item.id}`} onClick={followLink}>
          {name}
        </a>{' '}
        <span className="muted">v{version}</span>
      </span>
      <span role="cell" className="cut mono muted">
        {item.id}
      </span>
      <span role="cell">
        <Ago at={item.startedAt ?? item.createdAt} />
      </span>
      <span role="cell">
        <Duration of={item} />
      </span>
      <span role="cell" className="cut muted" title={item.error ?? undefined}>
        {item.error}
      </span>
    </div>
  );
});

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title="No execution matches these filters.">
        <button type="button" className="button" onClick={() => navigate('/executions')}>
          Clear the filters
        </button>
      </Empty>
    );
  }
  return (
    <Empty title="Nothing has run yet.">
      <p>
        Start a workflow under <Link to="/workflows">Workflows</Link>, or with{' '}
        <code>fullstop run examples/sequence.yaml</code>.
      </p>
    </Empty>
  );
}

function Filters({ search }: { search: React.RefObject<HTMLInputElement | null> }) {
  const { query } = useLocation();
  const set = (change: Record<string, string | null>): void => navigate(withQuery(change), { replace: true });
  const workflows = useResource('workflows', (client) => client.workflows.list());
  const names = [...new Set(workflows.data?.items.map(({ name }) => name) ?? [])];
  const workflow = query.get('workflow') ?? '';
  if (workflow !== '' && !names.includes(workflow)) names.push(workflow);
  const status = query.get('status');
  const stopped = query.get('stopped') === 'true';
  const custom = query.has('from') || query.has('to');
  const label = query.get('label');

  const q = query.get('q') ?? '';
  const [text, setText] = useState(q);
  const typed = useRef(q);
  useEffect(() => {
    if (q === typed.current) return;
    typed.current = q;
    setText(q);
  }, [q]);
  useEffect(() => {
    if (text === typed.current) return;
    const timer = setTimeout(() => {
      typed.current = text;
      navigate(withQuery({ q: text }), { replace: true });
    }, TYPING_MS);
    return () => clearTimeout(timer);
  }, [text]);

  const chip = (name: string, pressed: boolean, change: Record<string, string | null>, icon: React.ReactNode) => (
    <button type="button" className="chip" aria-pressed={pressed} onClick={() => set(change)}>
      {icon}
      {name}
    </button>
  );
  return (
    <search className="filters">
      <input
        ref={search}
        type="search"
        className="search"
        placeholder="Id, workflow or error   /"
        aria-label="Search by id, workflow or error"
        value={text}
        onChange={(event) => setText(event.target.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') event.currentTarget.blur();
        }}
      />
      <fieldset className="chips">
        <legend className="sr-only">Status</legend>
        {chip('All', status === null && !stopped, { status: null, stopped: null }, null)}
        {STATUSES.map((one) => (
          <span key={one}>
            {chip(one, status === one && !stopped, { status: one, stopped: null }, <Icon look={one} />)}
          </span>
        ))}
        {chip('Stopped by user', stopped, { status: 'Failed', stopped: 'true' }, <Icon look="Stopped" />)}
      </fieldset>
      <label>
        <span className="sr-only">Workflow</span>
        <select value={workflow} onChange={(event) => set({ workflow: event.target.value })}>
          <option value="">Every workflow</option>
          {names.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <label>
        <span className="sr-only">Time of creation</span>
        <select
          value={custom ? 'custom' : (query.get('since') ?? '')}
          onChange={({ target }) => {
            if (target.value !== 'custom') return set({ since: target.value, from: null, to: null });
            set({ since: null, from: new Date(Date.now() - 86_400_000).toISOString() });
          }}
        >
          <option value="">At any time</option>
          {Object.entries(SPANS).map(([value, [name]]) => (
            <option key={value} value={value}>
              {name}
            </option>
          ))}
          <option value="custom">Between…</option>
        </select>
      </label>
      {custom ? (
        <>
          <Instant name="from" value={query.get('from')} onChange={(value) => set({ from: value })} />
          <Instant name="to" value={query.get('to')} onChange={(value) => set({ to: value })} />
        </>
      ) : null}
      {label === null ? null : (
        <button type="button" className="chip" aria-pressed="true" onClick={() => set({ label: null })}>
          {label} ✕
        </button>
      )}
      {query.toString() === '' ? null : (
        <button type="button" className="quiet" onClick={() => navigate('/executions', { replace: true })}>
          Clear ({count([...query.keys()].length, 'filter')})
        </button>
      )}
    </search>
  );
}

function Instant({
  name,
  value,
  onChange,
}: {
  name: string;
  value: string | null;
  onChange: (value: string | null) => void;
}) {
  const at = value === null || Number.isNaN(Date.parse(value)) ? null : new Date(value);
  const local = at === null ? '' : new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  return (
    <input
      type="datetime-local"
      aria-label={`Created ${name}`}
      value={local}
      onChange={({ target }) => onChange(target.value === '' ? null : new Date(target.value).toISOString())}
    />
  );
}
