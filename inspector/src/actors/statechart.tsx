/** The statechart of one actor, drawn from its definition, with the states lit that it is in. */
import { memo, useEffect, useLayoutEffect, useMemo, useRef, useState } from 'react';
import { messageOf } from '../format.ts';
import { Banner, Empty, Loading } from '../ui.tsx';
import { activeStates, type Chart, chartOf, type Placed, type Point, place } from './chart.ts';
import { type SeenActor, stateName } from './recording.ts';

const ZOOMS = [0.5, 0.65, 0.8, 1, 1.25, 1.6];
const LINE = 15;

export function Statechart({ actor, title }: { actor: SeenActor; title: string }) {
  const chart = chartOf(actor.definition);
  const [placed, setPlaced] = useState<{ chart: Chart; at: Placed } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [zoom, setZoom] = useState(1);
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    if (chart === null) return;
    let gone = false;
    setError(null);
    place(chart).then(
      (at) => gone || setPlaced({ chart, at }),
      (thrown: unknown) => gone || setError(messageOf(thrown)),
    );
    return () => {
      gone = true;
    };
  }, [chart]);
  const name = stateName(actor.state.value);
  const active = useMemo(() => activeStates(actor.state.value), [actor.state.value]);
  const at = placed?.chart === chart ? placed?.at : undefined;
  // What is lit is in sight.
  useLayoutEffect(() => {
    const element = box.current;
    const last = [...active].at(-1);
    const state = last === undefined ? undefined : at?.states.get(last);
    if (element === null || state === undefined) return;
    const { x, y, width, height } = state;
    const hidden =
      x * zoom < element.scrollLeft ||
      y * zoom < element.scrollTop ||
      (x + width) * zoom > element.scrollLeft + element.clientWidth ||
      (y + height) * zoom > element.scrollTop + element.clientHeight;
    if (!hidden) return;
    element.scrollLeft = (x + width / 2) * zoom - element.clientWidth / 2;
    element.scrollTop = (y + height / 2) * zoom - element.clientHeight / 2;
  }, [at, active, zoom]);

  if (chart === null) return <Empty title={`${title} has no machine to draw.`} />;
  const step = (by: 1 | -1): void => {
    const next = ZOOMS[ZOOMS.indexOf(zoom) + by];
    if (next !== undefined) setZoom(next);
  };
  return (
    <div className="chart">
      <div className="chart-head">
        <h2>
          {title} <span className="muted">{chart.name === title ? '' : `${chart.name} `}machine</span>
        </h2>
        <span className="chart-state" data-testid="actor-state">
          {name}
        </span>
        {actor.state.status === 'active' ? null : <span className="muted">{actor.state.status}</span>}
        <span className="grow" />
        <button
          type="button"
          className="button small"
          aria-label="Smaller"
          disabled={zoom === ZOOMS[0]}
          onClick={() => step(-1)}
        >
          −
        </button>
        <button
          type="button"
          className="button small"
          aria-label="Larger"
          disabled={zoom === ZOOMS.at(-1)}
          onClick={() => step(1)}
        >
          +
        </button>
      </div>
      {error === null ? null : (
        <Banner kind="error" title="The chart could not be laid out.">
          {error}
        </Banner>
      )}
      {at === undefined ? (
        error === null ? (
          <Loading what="the statechart" />
        ) : null
      ) : (
        <section className="chart-box" ref={box} tabIndex={0} aria-label={`Statechart of ${title}`}>
          <Drawing chart={chart} placed={at} active={active} zoom={zoom} label={`${title} is in ${name}`} />
        </section>
      )}
      <NextSteps chart={chart} active={active} />
    </div>
  );
}

const Drawing = memo(function Drawing({
  chart,
  placed,
  active,
  zoom,
  label,
}: {
  chart: Chart;
  placed: Placed;
  active: ReadonlySet<string>;
  zoom: number;
  label: string;
}) {
  const { width, height } = placed;
  return (
    <svg
      className="chart-drawing"
      role="img"
      aria-label={label}
      width={width * zoom}
      height={height * zoom}
      viewBox={`0 0 ${width} ${height}`}
    >
      <defs>
        <marker
          id="arrow"
          viewBox="0 0 8 8"
          refX="7"
          refY="4"
          markerWidth="8"
          markerHeight="8"
          orient="auto-start-reverse"
        >
          <path d="M0 0 8 4 0 8z" className="chart-arrow" />
        </marker>
      </defs>
      {chart.states.map(({ id, name, compound, final, initial, inner }) => {
        const box = placed.states.get(id);
        if (box === undefined) return null;
        const isActive = active.has(id);
        const { x, y, width: w, height: h } = box;
        return (
          <g
            key={id}
            className={`chart-node${isActive ? ' is-active' : ''}${compound ? ' is-compound' : ''}`}
            data-state={id}
            data-active={isActive}
          >
            <rect x={x} y={y} width={w} height={h} rx={final ? 15 : 6} />
            {final ? <rect x={x + 3} y={y + 3} width={w - 6} height={h - 6} rx={12} className="chart-inner" /> : null}
            {initial ? (
              <>
                <circle cx={x - 14} cy={y + 9} r={3.5} className="chart-initial" />
                <path d={`M${x - 11} ${y + 9}H${x - 2}`} className="chart-edge" />
              </>
            ) : null}
            <text
              x={compound ? x + 12 : x + w / 2}
              y={y + 20}
              textAnchor={compound ? 'start' : 'middle'}
              className="chart-name"
            >
              {isActive ? '● ' : ''}
              {name}
            </text>
            {inner.map((text, index) => (
              <text key={text} x={x + w / 2} y={y + 36 + index * LINE} textAnchor="middle" className="chart-label">
                {text}
              </text>
            ))}
          </g>
        );
      })}
      {placed.edges.map(({ edge, points }) => (
        <path
          key={edge.id}
          d={smooth(points)}
          className={active.has(edge.from) ? 'chart-edge is-next' : 'chart-edge'}
          markerEnd="url(#arrow)"
        />
      ))}
      {placed.edges.map(({ edge, label: at }) =>
        edge.labels.map((text, index) => (
          <text
            key={`${edge.id} ${text}`}
            x={at.x}
            y={at.y + 4 + (index - (edge.labels.length - 1) / 2) * LINE}
            textAnchor="middle"
            className={active.has(edge.from) ? 'chart-label is-next' : 'chart-label'}
          >
            {text}
          </text>
        )),
      )}
    </svg>
  );
});

/** Through the middles between the points, so that no corner is sharp. */
function smooth(points: readonly Point[]): string {
  const [first, ...rest] = points;
  const end = rest.pop();
  if (first === undefined || end === undefined) return '';
  let path = `M${first.x} ${first.y}`;
  for (const [index, point] of rest.entries()) {
    const next = rest[index + 1];
    const to = next === undefined ? end : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    path += `Q${point.x} ${point.y} ${to.x} ${to.y}`;
  }
  return rest.length === 0 ? `${path}L${end.x} ${end.y}` : path;
}

/** The same in words: what the actor takes now, and the whole machine as a table. */
function NextSteps({ chart, active }: { chart: Chart; active: ReadonlySet<string> }) {
  const next = chart.edges.filter(({ from }) => active.has(from));
  return (
    <details className="chart-words">
      <summary>
        {next.length === 0
          ? 'Nothing leads on from here'
          : `From here: ${[...new Set(next.map(({ to }) => to))].join(', ')}`}
        {chart.everywhere.length === 0 ? '' : `; in every state: ${chart.everywhere.join(', ')}`}
      </summary>
      <section className="chart-table" tabIndex={0} aria-label={`Transitions of the ${chart.name} machine`}>
        <table className="table">
          <thead>
            <tr>
              <th>In</th>
              <th>Event</th>
              <th>Goes to</th>
            </tr>
          </thead>
          <tbody>
            {chart.edges.flatMap(({ id, from, to, labels }) =>
              labels.map((text) => (
                <tr key={`${id} ${text}`} className={active.has(from) ? 'is-current' : ''}>
                  <td>{from}</td>
                  <td className="mono">{text}</td>
                  <td>{to}</td>
                </tr>
              )),
            )}
          </tbody>
        </table>
      </section>
    </details>
  );
}
