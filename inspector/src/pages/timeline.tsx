/** When each attempt ran: one row per node and iteration, one bar per attempt, made from the events. */
import { useMemo, useRef } from 'react';
import type { ExecutionEvent, ExecutionRecord } from '../../../src/client/index.ts';
import { clock, place, span } from '../format.ts';
import { useNow } from '../now.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import { type ExecutionState, store } from '../store.ts';
import { Empty, type Look, Status, useWindow } from '../ui.tsx';

const ROW_PX = 26;
const WINDOWS = { '': 'Everything', '10000': 'Last 10 s', '60000': 'Last minute', '600000': 'Last 10 minutes' };

interface Bar {
  attempt: number;
  fromMs: number;
  /** null: it goes on. */
  toMs: number | null;
  look: Look;
}

export interface TimelineRow {
  key: string;
  name: string;
  bars: Bar[];
}

/** Folds events to rows, in the order in which nodes began. */
export function timeline(events: readonly ExecutionEvent[]): TimelineRow[] {
  const rows = new Map<string, TimelineRow>();
  const open = new Set<Bar>();
  for (const event of events) {
    const atMs = Date.parse(event.at);
    if (event.node === undefined) {
      if (event.type !== 'execution.failed' && event.type !== 'execution.completed') continue;
      for (const bar of open) {
        bar.toMs = atMs;
        if (bar.look === 'Running') bar.look = 'Stopped';
      }
      open.clear();
      continue;
    }
    const name = place({
      node: event.node,
      ...(event.iterations === undefined ? {} : { iterations: event.iterations }),
    });
    let row = rows.get(name);
    if (row === undefined) {
      row = { key: name, name, bars: [] };
      rows.set(name, row);
    }
    const attempt = event.attempt ?? 1;
    let bar = row.bars.at(-1);
    const begin = (look: Look): void => {
      if (bar !== undefined && bar.toMs === null && bar.attempt === attempt) {
        if (look === 'Held') bar.look = look;
        return;
      }
      bar = { attempt, fromMs: atMs, toMs: null, look };
      row.bars.push(bar);
      open.add(bar);
    };
    const end = (look: Look): void => {
      if (bar === undefined || bar.toMs !== null) {
        bar = { attempt, fromMs: atMs, toMs: atMs, look };
        row.bars.push(bar);
      }
      bar.toMs = atMs;
      bar.look = look;
      open.delete(bar);
    };
    if (event.type === 'node.started' || event.type === 'task.queued' || event.type === 'task.claimed')
      begin('Running');
    else if (event.type === 'node.held') begin('Held');
    else if (event.type === 'node.retrying') end('Failed');
    else if (event.type === 'node.completed' || event.type === 'node.triggered') end('Complete');
    else if (event.type === 'node.failed') end('Failed');
    else if (event.type === 'node.skipped') end('Skipped');
  }
  return [...rows.values()].filter(({ bars }) => bars.length > 0);
}

/** Nodes whose events are not loaded, or not kept any more: the record knows of their last attempt. */
function withRecord(rows: TimelineRow[], nodes: ExecutionRecord['nodes']): TimelineRow[] {
  const known = new Set(rows.map(({ name }) => name));
  const others: TimelineRow[] = [];
  for (const [name, { startedAt, endedAt, attempt, status }] of Object.entries(nodes)) {
    if (known.has(name) || startedAt === null) continue;
    const toMs = endedAt === null ? null : Date.parse(endedAt);
    others.push({ key: name, name, bars: [{ attempt, fromMs: Date.parse(startedAt), toMs, look: status }] });
  }
  return [...others, ...rows];
}

export function TimelineTab({ execution, record }: { execution: ExecutionState; record: ExecutionRecord }) {
  const { events, firstSeq } = execution;
  const all = useMemo(() => withRecord(timeline(events), record.nodes), [events, record.nodes]);
  const { query } = useLocation();
  const scroller = useRef<HTMLDivElement>(null);
  const now = useNow();
  const chosen = Number(query.get('window') ?? '');
  const toMs = record.endedAt === null ? now : Date.parse(record.endedAt);
  const allMs = Date.parse(record.startedAt ?? record.createdAt);
  const fromMs = chosen > 0 ? Math.max(allMs, toMs - chosen) : allMs;
  const rows = chosen > 0 ? all.filter(({ bars }) => bars.some((bar) => (bar.toMs ?? toMs) >= fromMs)) : all;
  const { first, last } = useWindow(scroller, ROW_PX, rows.length);
  const lengthMs = Math.max(1, toMs - fromMs);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const percent = (ms: number): number => Math.min(100, Math.max(0, ((ms - fromMs) / lengthMs) * 100));
  if (all.length === 0) return <Empty title="No node has started yet.">Bars appear here as soon as one does.</Empty>;
  return (
    <div className="timeline">
      <div className="toolbar">
        <label>
          Show{' '}
          <select
            value={query.get('window') ?? ''}
            onChange={({ target }) => navigate(withQuery({ window: target.value }), { replace: true })}
          >
            {Object.entries(WINDOWS).map(([value, name]) => (
              <option key={value} value={value}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <span className="muted">
          {clock(new Date(fromMs).toISOString())} to {clock(new Date(toMs).toISOString())}
        </span>
        <Earlier firstSeq={firstSeq} />
      </div>
      <div className="bars-head" aria-hidden="true">
        <span />
        <span className="ticks">
          {ticks.map((part) => (
            <span key={part} style={{ left: `${part * 100}%` }}>
              +{span(fromMs - allMs + part * lengthMs)}
            </span>
          ))}
        </span>
      </div>
      <section className="bars" ref={scroller} tabIndex={0} aria-label="Timeline">
        <div style={{ height: rows.length * ROW_PX }}>
          <ul style={{ transform: `translateY(${first * ROW_PX}px)` }}>
            {rows.slice(first, last).map((row) => (
              <li key={row.key} className="bar-row">
                <span className="cut" title={row.name}>
                  {row.name}
                </span>
                <span className="lane">
                  {row.bars
                    .filter((bar) => (bar.toMs ?? toMs) >= fromMs)
                    .map((bar) => {
                      const left = percent(bar.fromMs);
                      const ms = (bar.toMs ?? toMs) - bar.fromMs;
                      const what = `${row.name}, attempt ${bar.attempt}: ${bar.look}, ${span(ms)}`;
                      return (
                        <span
                          key={`${bar.attempt}-${bar.fromMs}`}
                          className={`bar is-${bar.look}`}
                          style={{ left: `${left}%`, width: `${percent(bar.toMs ?? toMs) - left}%` }}
                          title={what}
                        >
                          <span className="sr-only">{what}</span>
                        </span>
                      );
                    })}
                </span>
                <span className="bar-end">
                  {row.bars.length > 1 ? <span className="muted">×{row.bars.length} </span> : null}
                  <Status look={row.bars.at(-1)?.look ?? 'Pending'} />
                </span>
              </li>
            ))}
          </ul>
        </div>
      </section>
    </div>
  );
}

/** Says that not everything is here, and fetches it. */
export function Earlier({ firstSeq }: { firstSeq: number }) {
  if (firstSeq <= 1) return null;
  return (
    <span className="muted">
      Events before #{firstSeq} are not shown.{' '}
      <button type="button" className="button small" onClick={() => store.loadAllEvents()}>
        Load from the start
      </button>
    </span>
  );
}
