/** The receipt of a stop, as it comes: requested, delivered, halted, each task's end, the final record. */
import type { ExecutionRecord, StopReceipt, TaskOutcome } from '../../../src/client/index.ts';
import { absolute, clock, count, place, shortId, span } from '../format.ts';
import type { ExecutionState } from '../store.ts';
import { Banner, Empty, Link, Loading, type Look, Since, Status } from '../ui.tsx';

const OUTCOMES: Record<TaskOutcome, { look: Look; text: string }> = {
  aborted: { look: 'Stopped', text: 'aborted' },
  neverStarted: { look: 'Pending', text: 'never started' },
  finishedFirst: { look: 'Complete', text: 'finished first' },
  forced: { look: 'Failed', text: 'killed by force' },
  unconfirmed: { look: 'Stopping', text: 'not confirmed yet' },
  agentRunsOn: { look: 'Held', text: 'runs on at its agent' },
};

const PATHS = {
  local: 'within the server',
  bus: 'over the bus',
  poll: 'by the sweep',
  takeover: 'after a restart or a takeover',
} as const;

export function StopTab({ execution, record }: { execution: ExecutionState; record: ExecutionRecord }) {
  const { receipt } = execution;
  if (record.stop === null) {
    return <Empty title="Nobody has stopped this execution.">What a stop does is shown here when there is one.</Empty>;
  }
  if (receipt === null) return <Loading what="the receipt" />;
  const agents = receipt.tasks.filter(({ outcome }) => outcome === 'agentRunsOn');
  return (
    <section className="scroll stop" tabIndex={0} aria-label="Receipt of the stop">
      <ol className="steps">
        <Step done title="Requested" at={clock(receipt.requestedAt)} hint={absolute(receipt.requestedAt)}>
          durable: nothing can lose it now
        </Step>
        <Step done={receipt.delivery !== null} title="Delivered" ms={receipt.delivery?.ms ?? null}>
          {receipt.delivery === null
            ? 'on its way to the engine that owns the execution'
            : PATHS[receipt.delivery.path]}
        </Step>
        <Step done={receipt.haltedMs !== null} title="Halted" ms={receipt.haltedMs}>
          nothing more starts, no result is taken, every task has been told
        </Step>
        <Step
          done={receipt.finalisedAt !== null}
          title={receipt.finalisedAt === null ? 'Waiting for confirmations' : 'Final record stored'}
          ms={receipt.finalisedMs}
        >
          {finality(receipt)}
        </Step>
      </ol>
      {receipt.finalisedAt !== null && receipt.unconfirmed > 0 ? (
        <Banner kind="error" title={`${count(receipt.unconfirmed, 'task')} not confirmed.`}>
          The record is final all the same. The worker is asked again until it answers; look under{' '}
          <Link to="/engines">Engines</Link> whether it is connected.
        </Banner>
      ) : null}
      {agents.length === 0 ? null : (
        <Banner kind="note" title={`${count(agents.length, 'External Agent task')} cannot be reached.`}>
          {agents.map((task) => (
            <span key={place(task)}>
              <strong>{place(task)}</strong> has run on for <Since at={receipt.requestedAt} /> since the stop; its
              result will be discarded.{' '}
            </span>
          ))}
        </Banner>
      )}
      <h2>Tasks</h2>
      {receipt.tasks.length === 0 ? (
        <p className="muted">Nothing ran when the stop came.</p>
      ) : (
        <table className="table">
          <thead>
            <tr>
              <th>Node</th>
              <th>Type</th>
              <th>Runs on</th>
              <th>Attempt</th>
              <th>Outcome</th>
              <th>After</th>
            </tr>
          </thead>
          <tbody>
            {receipt.tasks.map((task) => {
              const { look, text } = OUTCOMES[task.outcome];
              return (
                <tr key={`${place(task)}/${task.attempt}`}>
                  <td>{place(task)}</td>
                  <td>{task.type}</td>
                  <td>{task.where}</td>
                  <td className="num">{task.attempt}</td>
                  <td>
                    <Status look={look} text={text} />
                  </td>
                  <td className="num">{task.ms === null ? '' : `${Math.round(task.ms)} ms`}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      )}
      {receipt.children.length === 0 ? null : (
        <>
          <h2>Children stopped with it</h2>
          <ul className="outcomes">
            {receipt.children.map((child) => (
              <li key={child.executionId}>
                <Status look={child.status === 'Failed' ? 'Stopped' : child.status} text={child.status} />
                <Link to={`/executions/${child.executionId}/stop`}>{shortId(child.executionId)}</Link>
              </li>
            ))}
          </ul>
        </>
      )}
      {receipt.lateResultsDiscarded === 0 ? null : (
        <p>{count(receipt.lateResultsDiscarded, 'late result')} discarded.</p>
      )}
    </section>
  );
}

function finality(receipt: StopReceipt): string {
  if (receipt.finalisedAt !== null) return 'Failed, with the error "workflow stopped by user"; it never changes again';
  return receipt.unconfirmed === 0
    ? 'the final record comes next'
    : `${count(receipt.unconfirmed, 'task')} to go, five seconds at most`;
}

function Step({
  done,
  title,
  ms = null,
  at,
  hint,
  children,
}: {
  done: boolean;
  title: string;
  ms?: number | null;
  at?: string;
  hint?: string;
  children: React.ReactNode;
}) {
  return (
    <li className={done ? 'is-done' : 'is-open'}>
      <span className="step-time num" title={hint}>
        {at ?? (ms === null ? '' : `+${ms < 10_000 ? `${Math.round(ms)} ms` : span(ms)}`)}
      </span>
      <span className="step-dot" aria-hidden="true" />
      <span>
        <strong>{title}</strong> <span className="muted">{children}</span>
      </span>
    </li>
  );
}
