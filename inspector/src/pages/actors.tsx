/**
 * The actors of an execution: who there is, in which state of which machine, and who told whom what.
 *
 * Live by the inspection endpoint, as any Stately viewer; what was heard can be stepped through.
 */
import { useEffect, useMemo, useState } from 'react';
import type { ExecutionRecord } from '../../../src/client/index.ts';
import { nameOf, titleOf } from '../actors/names.ts';
import { actorsAt, lifeOf, type Recording, recorderOf, STEPS_MAX, useRecording } from '../actors/recording.ts';
import { lineOf, rowsOf, Sequence } from '../actors/sequence.tsx';
import { Statechart } from '../actors/statechart.tsx';
import { type Task, taskLook, tasksAt } from '../actors/tasks.ts';
import { ActorTree, treeOf } from '../actors/tree.tsx';
import { clock, count } from '../format.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import { type ExecutionState, useResource } from '../store.ts';
import { Banner, Empty, Link, Loading, Status, useKeys } from '../ui.tsx';

/** A step goes into the address when one stays on it: browsers bear only so many changes. */
const ADDRESS_MS = 200;

export function ActorsTab({ execution, record }: { execution: ExecutionState; record: ExecutionRecord }) {
  const recorder = recorderOf(record.id);
  const recording = useRecording(recorder);
  useEffect(() => recorder.watch(), [recorder]);
  const { phase, error, elsewhere, steps } = recording;
  const there =
    elsewhere === null ? null : (
      <a href={new URL(`/executions/${record.id}/actors`, elsewhere).href}>Watch it at the engine that runs it</a>
    );

  if (phase === 'off') {
    return (
      <Empty title="This server shows nobody its actors.">
        <p>
          Inspection is turned off (<code>FULLSTOP_INSPECT=0</code>). Timeline and events have the same history.
        </p>
      </Empty>
    );
  }
  if (steps.length === 0) {
    if (phase !== 'failed') return <Loading what="the actors" />;
    return (
      <Banner kind="error" title="The actors could not be read.">
        {error} {there}{' '}
        <button type="button" className="button small" onClick={() => recorder.listen()}>
          Try again
        </button>
      </Banner>
    );
  }
  return (
    <>
      {phase === 'failed' ? (
        <Banner kind="error" title="The recording was cut off.">
          {error} {there}{' '}
          <button type="button" className="button small" onClick={() => recorder.listen()}>
            Go on
          </button>
        </Banner>
      ) : null}
      <Recorded recording={recording} execution={execution} record={record} />
    </>
  );
}

function Recorded({
  recording,
  execution,
  record,
}: {
  recording: Recording;
  execution: ExecutionState;
  record: ExecutionRecord;
}) {
  const { steps } = recording;
  const { query } = useLocation();
  const firstSeq = steps[0]?.seq ?? 1;
  const lastSeq = steps.at(-1)?.seq ?? 1;
  const stepper = useStepper(firstSeq, lastSeq);
  const { seq, live } = stepper;
  const selected = query.get('actor') ?? 'execution';
  const only = query.get('only') === '1';
  const select = (name: string): void =>
    navigate(withQuery({ actor: name === 'execution' ? null : name }), { replace: true });

  const atMs = live ? Number.POSITIVE_INFINITY : (steps.find((step) => step.seq === seq)?.atMs ?? 0);
  const actors = useMemo(() => actorsAt(recording, seq), [recording, seq]);
  const tasks = useMemo(() => tasksAt(execution.events, atMs), [execution.events, atMs]);
  const children = useChildren(record);
  const rows = useMemo(() => treeOf(actors, tasks, record, children), [actors, tasks, record, children]);
  const actor = useMemo(() => [...actors.values()].findLast(({ id }) => nameOf(id) === selected), [actors, selected]);
  const task = actor === undefined ? taskOf(selected, tasks) : null;
  const line = actor === undefined ? null : lineOf(actor.id);
  const sequence = useMemo(() => {
    const withTasks = new Set(
      execution.events.flatMap(({ type, node }) => (type === 'task.queued' ? (node ?? []) : [])),
    );
    const all = rowsOf(steps, (path) => withTasks.has(path));
    if (!only || line === null) return all;
    return all.filter(({ step, from, to }) => step.kind === 'here' || from === line || to === line);
  }, [steps, only, line, execution.events]);
  const pending = Object.values(record.nodes).filter(({ status }) => status === 'Pending').length;

  return (
    <div className="actors">
      <Stepper recording={recording} stepper={stepper} record={record} />
      <div className="actors-split">
        <div className="actors-left">
          <ActorTree rows={rows} selected={selected} onSelect={select} />
          {pending === 0 ? null : (
            <p className="muted actors-note">
              {count(pending, 'node')} Pending:{' '}
              {record.endedAt === null ? 'no actor until ready' : 'never had an actor'}.
            </p>
          )}
        </div>
        <div className="actors-main">
          {actor !== undefined ? (
            <Statechart actor={actor} title={titleOf(actor.id)} />
          ) : task !== null ? (
            <TaskFacts task={task} record={record} />
          ) : (
            <Absent name={selected} live={live} />
          )}
          <div className="toolbar sequence-bar">
            <h2>Sequence</h2>
            <label>
              <input
                type="checkbox"
                checked={only}
                disabled={actor === undefined}
                onChange={({ target }) => navigate(withQuery({ only: target.checked ? '1' : null }), { replace: true })}
              />{' '}
              Only {line ?? 'the selected actor'}
            </label>
          </div>
          <Sequence rows={sequence} wanted={line} current={seq} live={live} onStep={stepper.go} />
        </div>
      </div>
    </div>
  );
}

function taskOf(name: string, tasks: ReadonlyMap<string, Task[]>): Task | null {
  const [, node, attempt] = /^task:(.+)\/(\d+)$/.exec(name) ?? [];
  return tasks.get(node ?? '')?.find((task) => task.attempt === Number(attempt)) ?? null;
}

interface StepperState {
  seq: number;
  /** Follows what comes. */
  live: boolean;
  go: (seq: number | null) => void;
  by: (steps: number) => void;
}

function useStepper(first: number, last: number): StepperState {
  const { query } = useLocation();
  const inAddress = Number(query.get('step') ?? '') || null;
  // One that is not recorded is of another recording.
  const [chosen, setChosen] = useState(inAddress !== null && inAddress <= last ? inAddress : null);
  useEffect(() => {
    const timer = setTimeout(
      () => navigate(withQuery({ step: chosen === null ? null : String(chosen) }), { replace: true }),
      ADDRESS_MS,
    );
    return () => clearTimeout(timer);
  }, [chosen]);
  const seq = chosen === null ? last : Math.max(first, chosen);
  const go = (to: number | null): void => setChosen(to === null ? null : Math.max(first, Math.min(last, to)));
  return {
    seq,
    live: chosen === null,
    go,
    by: (steps) => (chosen === null && steps > 0 ? undefined : go(seq + steps)),
  };
}

function Stepper({
  recording,
  stepper: { seq, live, go, by },
  record,
}: {
  recording: Recording;
  stepper: StepperState;
  record: ExecutionRecord;
}) {
  const { steps, phase, dropped } = recording;
  const first = steps[0]?.seq ?? 1;
  const last = steps.at(-1)?.seq ?? 1;
  useKeys((key) => {
    if (key === 'ArrowLeft') by(-1);
    else if (key === 'ArrowRight') by(1);
    else return false;
    return true;
  });
  const at = steps.find((step) => step.seq === seq);
  const over = phase === 'ended';
  return (
    <div className="toolbar stepper">
      <button
        type="button"
        className="button"
        disabled={seq <= first}
        onClick={() => go(first)}
        aria-label="First step"
      >
        |◀
      </button>
      <button type="button" className="button" disabled={seq <= first} onClick={() => by(-1)} aria-label="Step back">
        ◀
      </button>
      <input
        type="range"
        min={first}
        max={last}
        value={seq}
        disabled={first === last}
        aria-label="Step"
        aria-valuetext={`step ${seq} of ${last}`}
        onChange={({ target }) => go(Number(target.value))}
      />
      <button type="button" className="button" disabled={seq >= last} onClick={() => by(1)} aria-label="Step forward">
        ▶
      </button>
      <button type="button" className="chip" aria-pressed={live} onClick={() => go(live ? seq : null)}>
        {over ? 'Last' : 'Live'}
      </button>
      <span className="num" data-testid="step">
        {live ? (over ? 'At its end' : phase === 'live' ? 'Live' : 'Reconnecting') : 'Paused'}, step {seq} of {last}
        {at === undefined ? '' : `, ${clock(new Date(at.atMs).toISOString())}`}
      </span>
      <span className="muted" title={`The newest ${STEPS_MAX.toLocaleString('en')} steps are kept.`}>
        {over && last === 1 && dropped === 0 ? (
          <>
            It had ended before this was opened: its actors as the record has them. Its{' '}
            <Link to={`/executions/${record.id}/events`}>events</Link> tell how it came to that.
          </>
        ) : (
          <>Recorded here: {lifeOf(recording)}</>
        )}
      </span>
    </div>
  );
}

function Absent({ name, live }: { name: string; live: boolean }) {
  return (
    <Empty title={`There is no actor ${name.replace(/^(node|task):/, '')} ${live ? 'now' : 'at this step'}.`}>
      <p>A node has one from when it is ready. Choose another in the tree.</p>
    </Empty>
  );
}

function TaskFacts({ task, record }: { task: Task; record: ExecutionRecord }) {
  const { node, attempt, state, worker, outcome, events } = task;
  const path = node.replace(/\[.*$/, '');
  return (
    <div className="chart">
      <div className="chart-head">
        <h2>
          {node} <span className="muted">task, attempt {attempt}</span>
        </h2>
        <Status look={taskLook[state]} text={state} />
      </div>
      <div className="task-facts">
        <p className="muted">
          A task is no actor of the engine and has no machine here: these are its events in the record.
          {state === 'handed over' ? " It runs in the server's own worker, or waits for one that is free." : ''}
        </p>
        <dl className="facts-list">
          {worker === null ? null : (
            <>
              <dt>Claimed by</dt>
              <dd>{worker}</dd>
            </>
          )}
          {outcome === null ? null : (
            <>
              <dt>Outcome</dt>
              <dd>{outcome}</dd>
            </>
          )}
          {events.map(({ at, type }) => (
            <div key={at + type} className="facts-row">
              <dt>{type}</dt>
              <dd>{clock(at)}</dd>
            </div>
          ))}
        </dl>
        <Link to={`/executions/${record.id}/events?node=${encodeURIComponent(path)}`}>Its node's events</Link>
      </div>
    </div>
  );
}

/** Child executions have inspections of their own: here they are only named. */
function useChildren(record: ExecutionRecord) {
  const has = Object.values(record.nodes).some(({ children }) => children !== undefined);
  const { data } = useResource(
    has ? `children:${record.id}` : 'children:none',
    async (client) =>
      has ? client.executions.list({ parent: record.id, limit: 100 }) : { items: [], nextCursor: null },
    has && record.endedAt === null ? 2_000 : 0,
  );
  return data?.items ?? NO_CHILDREN;
}

const NO_CHILDREN: never[] = [];
