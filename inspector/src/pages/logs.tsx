/** What containers printed. */
import { useMemo } from 'react';
import { clock, place } from '../format.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import type { ExecutionState } from '../store.ts';
import { Empty } from '../ui.tsx';
import { Earlier } from './timeline.tsx';

/** Messages drawn at once; each may be long. */
const SHOWN_MAX = 2_000;

interface Log {
  seq: number;
  at: string;
  from: string;
  attempt: number;
  stream: string;
  text: string;
  truncated: boolean;
}

export function LogsTab({ execution }: { execution: ExecutionState }) {
  const { events, firstSeq } = execution;
  const { query } = useLocation();
  const wanted = query.get('node') ?? '';
  const logs = useMemo<Log[]>(
    () =>
      events.flatMap(({ seq, at, type, node = '', iterations, attempt = 1, data }) => {
        if (type !== 'log') return [];
        const { stream, text, truncated } = (data ?? {}) as { stream?: string; text?: string; truncated?: boolean };
        const from = place({ node, ...(iterations === undefined ? {} : { iterations }) });
        return [
          { seq, at, from, attempt, stream: stream ?? 'stdout', text: text ?? '', truncated: truncated === true },
        ];
      }),
    [events],
  );
  const froms = [...new Set(logs.map(({ from }) => from))];
  const shown = logs.filter(({ from }) => wanted === '' || from === wanted);
  if (logs.length === 0) {
    return (
      <Empty title="No container has printed anything.">
        What container nodes write to stdout and stderr appears here as it comes. <Earlier firstSeq={firstSeq} />
      </Empty>
    );
  }
  return (
    <section className="scroll" tabIndex={0} aria-label="Logs">
      <div className="toolbar">
        <select
          aria-label="Node"
          value={wanted}
          onChange={({ target }) => navigate(withQuery({ node: target.value }), { replace: true })}
        >
          <option value="">Every node</option>
          {froms.map((from) => (
            <option key={from}>{from}</option>
          ))}
        </select>
        <Earlier firstSeq={firstSeq} />
      </div>
      {shown.length > SHOWN_MAX ? (
        <p className="muted">
          The last {SHOWN_MAX} of {shown.length} messages.
        </p>
      ) : null}
      <ol className="logs">
        {shown.slice(-SHOWN_MAX).map(({ seq, at, from, attempt, stream, text, truncated }) => (
          <li key={seq} className={stream === 'stderr' ? 'is-stderr' : ''}>
            <span className="muted num">{clock(at)}</span>
            <span className="muted">
              {from}
              {attempt > 1 ? ` attempt ${attempt}` : ''} {stream}
            </span>
            <pre>{text}</pre>
            {truncated ? <em>truncated: the limit of one attempt is reached</em> : null}
          </li>
        ))}
      </ol>
    </section>
  );
}
