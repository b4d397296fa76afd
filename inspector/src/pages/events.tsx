/** What happened, in order, as it happens; paused at a number while somebody reads. */
import { useEffect, useMemo, useRef } from 'react';
import type { ExecutionEvent, ExecutionRecord } from '../../../src/client/index.ts';
import { absolute, clock, count, place } from '../format.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import type { ExecutionState } from '../store.ts';
import { Empty, Loading, useWindow } from '../ui.tsx';
import { Earlier } from './timeline.tsx';

const ROW_PX = 25;
const GROUPS = ['execution', 'stop', 'node', 'iteration', 'task', 'log'];

export function EventsTab({ execution, record }: { execution: ExecutionState; record: ExecutionRecord }) {
  const { query } = useLocation();
  const set = (change: Record<string, string | null>): void => navigate(withQuery(change), { replace: true });
  const type = query.get('type') ?? '';
  const node = query.get('node') ?? '';
  const text = query.get('q') ?? '';
  const paused = Number(query.get('paused') ?? '') || null;
  const { events, firstSeq } = execution;
  const matching = useMemo(() => events.filter(matcher({ type, node, text })), [events, type, node, text]);
  const shown = useMemo(
    () => (paused === null ? matching : matching.filter(({ seq }) => seq <= paused)),
    [matching, paused],
  );
  const newer = matching.length - shown.length;
  const scroller = useRef<HTMLDivElement>(null);
  const { first, last } = useWindow(scroller, ROW_PX, shown.length);
  const atEnd = useRef(true);
  const wasTop = useRef(0);
  // biome-ignore lint/correctness/useExhaustiveDependencies: new rows keep the end in sight, for who is at the end.
  useEffect(() => {
    const element = scroller.current;
    if (element !== null && atEnd.current && paused === null) element.scrollTop = element.scrollHeight;
  }, [shown.length, paused]);
  const lastSeq = events.at(-1)?.seq ?? 0;
  const nodes = useMemo(() => [...new Set(events.flatMap((event) => event.node ?? []))].sort(), [events]);

  if (events.length === 0)
    return record.seq === 0 ? <Empty title="Nothing has happened yet." /> : <Loading what="events" />;
  return (
    <div className="events">
      <div className="toolbar">
        {record.endedAt !== null && paused === null ? null : paused === null ? (
          <button type="button" className="button" onClick={() => set({ paused: String(lastSeq) })}>
            Pause
          </button>
        ) : (
          <button type="button" className="button primary" onClick={() => set({ paused: null })}>
            Resume
          </button>
        )}
        <select aria-label="Kind of event" value={type} onChange={({ target }) => set({ type: target.value })}>
          <option value="">Every kind</option>
          {GROUPS.map((group) => (
            <option key={group}>{group}</option>
          ))}
        </select>
        <select aria-label="Node" value={node} onChange={({ target }) => set({ node: target.value })}>
          <option value="">Every node</option>
          {(node === '' || nodes.includes(node) ? nodes : [...nodes, node]).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
        <input
          type="search"
          aria-label="Text in events"
          placeholder="Text"
          value={text}
          onChange={({ target }) => set({ q: target.value })}
        />
        <span className="muted" data-testid="events-count">
          {paused === null ? count(shown.length, 'event') : `Paused at #${paused}, ${newer.toLocaleString('en')} newer`}
        </span>
        <Earlier firstSeq={firstSeq} />
      </div>
      <section
        className="event-rows"
        ref={scroller}
        tabIndex={0}
        aria-label="Events"
        onScroll={({ currentTarget: at }) => {
          // Rows that come while it scrolls by itself are no wish to stay behind: only scrolling back is.
          const near = at.scrollHeight - at.scrollTop - at.clientHeight < 3 * ROW_PX;
          if (near) atEnd.current = true;
          else if (at.scrollTop < wasTop.current) atEnd.current = false;
          wasTop.current = at.scrollTop;
        }}
      >
        <div style={{ height: shown.length * ROW_PX }}>
          <ol style={{ transform: `translateY(${first * ROW_PX}px)` }}>
            {shown.slice(first, last).map((event) => (
              <Row key={event.seq} event={event} />
            ))}
          </ol>
        </div>
      </section>
      {shown.length === 0 ? <p className="muted">No event matches these filters.</p> : null}
    </div>
  );
}

function matcher({
  type,
  node,
  text,
}: {
  type: string;
  node: string;
  text: string;
}): (event: ExecutionEvent) => boolean {
  const words = text.toLowerCase();
  return (event) =>
    (type === '' || event.type === type || event.type.startsWith(`${type}.`)) &&
    (node === '' || event.node === node || event.node?.startsWith(`${node}/`) === true) &&
    (words === '' || JSON.stringify(event).toLowerCase().includes(words));
}

function Row({ event }: { event: ExecutionEvent }) {
  const { seq, at, type, node, iterations, attempt, data } = event;
  const text = data === undefined ? '' : JSON.stringify(data);
  return (
    <li className={`event is-${type.split('.')[0]} ${/failed|aborted|stop/.test(type) ? 'is-bad' : ''}`}>
      <span className="num muted">#{seq}</span>
      <time dateTime={at} title={absolute(at)}>
        {clock(at)}
      </time>
      <span>{type}</span>
      <span className="cut">
        {node === undefined ? '' : place({ node, ...(iterations === undefined ? {} : { iterations }) })}
        {attempt !== undefined && attempt > 1 ? <span className="muted"> attempt {attempt}</span> : null}
      </span>
      <span className="cut muted" title={text.slice(0, 2_000)}>
        {text.slice(0, 400)}
      </span>
    </li>
  );
}
