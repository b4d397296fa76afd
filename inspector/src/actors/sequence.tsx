/** Who told whom what, one row a step, newest at the end. */
import { memo, useLayoutEffect, useMemo, useRef } from 'react';
import { clock } from '../format.ts';
import { Empty, useWindow } from '../ui.tsx';
import { placeOf, titleOf } from './names.ts';
import { type Step, stateName } from './recording.ts';

const ROW_PX = 26;
const COLUMN_PX = 150;
const TIME_PX = 140;
/** Nodes with a lifeline of their own; others share one. */
const NODES_MAX = 24;
const ENGINE = 'engine';
const EXECUTION = 'execution';
const TASKS = 'tasks';
const OTHERS = 'other nodes';

/** The lifeline of an actor: the iterations of a body's node share one. */
export function lineOf(actorId: string): string {
  return placeOf(actorId)?.path ?? (actorId === ENGINE ? ENGINE : EXECUTION);
}

export interface Row {
  step: Step;
  /** Null: it happened at `to` alone. */
  from: string | null;
  to: string;
  text: string;
}

/** `onTasks`: whether a node's work is a task, which then is who reports of it. */
export function rowsOf(steps: readonly Step[], onTasks: (path: string) => boolean): Row[] {
  return steps.map((step) => rowOf(step, onTasks));
}

function rowOf(step: Step, onTasks: (path: string) => boolean): Row {
  switch (step.kind) {
    case 'here':
      return { step, from: null, to: EXECUTION, text: step.why };
    case 'born':
      return { step, from: EXECUTION, to: lineOf(step.actor.id), text: 'starts' };
    case 'event': {
      const to = lineOf(step.actorId);
      const told = step.sourceId === null ? ENGINE : lineOf(step.sourceId);
      const from = step.eventType.startsWith('work.') && onTasks(to) ? TASKS : told;
      // The rest is the id of whom it is from.
      const text = step.eventType.replace(/^(xstate\.(?:done|error)\.actor)\..*/, '$1');
      return { step, from: from === to ? null : from, to, text };
    }
    case 'state': {
      const text = `${step.before === null ? '' : stateName(step.before.value)} → ${stateName(step.state.value)}`;
      return { step, from: null, to: lineOf(step.actorId), text };
    }
  }
}

/** What a screen reader says; the picture says it with lines. */
function wordsOf({ step, from, text }: Row): string {
  if (step.kind === 'here') return text;
  if (step.kind === 'born') return `${EXECUTION} starts ${titleOf(step.actor.id)}`;
  const to = titleOf(step.actorId);
  return from === null ? `${to}: ${text}` : `${from} to ${to}: ${text}`;
}

/** Lifelines in the order in which they first did something. */
export function linesOf(rows: readonly Row[], wanted: string | null): string[] {
  const nodes = new Set<string>();
  const others = new Set<string>([ENGINE, EXECUTION]);
  for (const { from, to } of rows) for (const line of [from, to]) if (line !== null) nodes.add(line);
  const tasks = nodes.delete(TASKS);
  for (const line of others) nodes.delete(line);
  let shown = [...nodes].slice(0, NODES_MAX);
  if (wanted !== null && nodes.has(wanted) && !shown.includes(wanted)) shown = [...shown.slice(0, -1), wanted];
  return [...others, ...shown, ...(nodes.size > shown.length ? [OTHERS] : []), ...(tasks ? [TASKS] : [])];
}

export function Sequence({
  rows,
  wanted,
  current,
  live,
  onStep,
}: {
  rows: readonly Row[];
  /** The lifeline of the selected actor. */
  wanted: string | null;
  current: number;
  live: boolean;
  onStep: (seq: number) => void;
}) {
  const scroller = useRef<HTMLDivElement>(null);
  const { first, last } = useWindow(scroller, ROW_PX, rows.length);
  const lines = useMemo(() => linesOf(rows, wanted), [rows, wanted]);
  const columns = useMemo(() => new Map(lines.map((line, index) => [line, index])), [lines]);
  const at = useMemo(() => rows.findLastIndex(({ step }) => step.seq <= current), [rows, current]);
  // The current step is in sight, with what led to it.
  useLayoutEffect(() => {
    const element = scroller.current;
    if (element === null || at < 0) return;
    const top = (at + 1) * ROW_PX;
    const view = element.clientHeight - ROW_PX;
    if (live) element.scrollTop = top;
    else if (top < element.scrollTop + ROW_PX || top > element.scrollTop + view) element.scrollTop = top - view / 2;
    const x = middle(columns.get(rows[at]?.to ?? '') ?? 0);
    if (live || (x > element.scrollLeft && x < element.scrollLeft + element.clientWidth - COLUMN_PX / 2)) return;
    element.scrollLeft = x - element.clientWidth / 2;
  }, [at, live, columns, rows]);
  const width = TIME_PX + lines.length * COLUMN_PX;
  if (rows.length === 0) return <Empty title="This actor has done nothing since the recording began." />;
  return (
    <div className="sequence" ref={scroller} tabIndex={0} role="region" aria-label="Sequence of events">
      <div className="lines-head" style={{ width }}>
        {lines.map((line, index) => (
          <span
            key={line}
            className={`cut${line === wanted ? ' is-current' : ''}`}
            style={{ left: TIME_PX + index * COLUMN_PX, width: COLUMN_PX }}
            title={line}
          >
            {line}
          </span>
        ))}
      </div>
      <div className="lines" style={{ height: rows.length * ROW_PX, width }}>
        {lines.map((line, index) => (
          <i key={line} style={{ left: TIME_PX + (index + 0.5) * COLUMN_PX }} />
        ))}
        <ol style={{ transform: `translateY(${first * ROW_PX}px)` }}>
          {rows.slice(first, last).map((row) => (
            <SequenceRow
              key={row.step.seq}
              row={row}
              from={row.from === null ? null : (columns.get(row.from) ?? columns.get(OTHERS) ?? 0)}
              to={columns.get(row.to) ?? columns.get(OTHERS) ?? 0}
              isCurrent={row.step.seq === current}
              isLater={row.step.seq > current}
              onStep={onStep}
            />
          ))}
        </ol>
      </div>
    </div>
  );
}

const middle = (column: number): number => TIME_PX + (column + 0.5) * COLUMN_PX;

const SequenceRow = memo(function SequenceRow({
  row,
  from,
  to,
  isCurrent,
  isLater,
  onStep,
}: {
  row: Row;
  from: number | null;
  to: number;
  isCurrent: boolean;
  isLater: boolean;
  onStep: (seq: number) => void;
}) {
  const { step, text } = row;
  const arrow = from !== null && from !== to;
  return (
    <li>
      <button
        type="button"
        tabIndex={-1}
        className={`step is-${step.kind}${isCurrent ? ' is-current' : ''}${isLater ? ' is-later' : ''}`}
        aria-current={isCurrent ? 'step' : undefined}
        onClick={() => onStep(step.seq)}
      >
        <span className="step-at num">
          #{step.seq} <span className="muted">{clock(new Date(step.atMs).toISOString())}</span>
        </span>
        <span className="sr-only">{wordsOf(row)}</span>
        {arrow ? (
          <>
            <span
              className={`step-arrow${to < from ? ' is-back' : ''}`}
              style={{ left: middle(Math.min(from, to)), width: Math.abs(to - from) * COLUMN_PX }}
              aria-hidden="true"
            />
            <span className="step-text" style={{ left: (middle(from) + middle(to)) / 2 }} aria-hidden="true">
              {text}
            </span>
          </>
        ) : (
          <span
            className={step.kind === 'here' ? 'step-text is-note' : 'step-text'}
            style={{ left: step.kind === 'here' ? TIME_PX : middle(to) }}
            aria-hidden="true"
          >
            {text}
          </span>
        )}
      </button>
    </li>
  );
});
