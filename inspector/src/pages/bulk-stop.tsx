/** Stopping many: what was counted when this opened is what is stopped, and each of them is accounted for. */
import { useEffect, useState } from 'react';
import type { BulkStopAnswer, ExecutionFilter, ExecutionListQuery } from '../../../src/client/index.ts';
import { count, messageOf } from '../format.ts';
import { store, useStore } from '../store.ts';
import { Banner, Confirm, ExecutionStatus, Link, Loading, Status } from '../ui.tsx';

export type BulkTarget = { ids: string[] } | { query: ExecutionListQuery };

const SHOWN_MAX = 500;

interface Frozen {
  matched: number;
  setId: string;
}

export function BulkStop({ target, onClose }: { target: BulkTarget; onClose: () => void }) {
  const [frozen, setFrozen] = useState<Frozen | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [answer, setAnswer] = useState<BulkStopAnswer | null>(null);

  useEffect(() => {
    const { filter, inProject } = filterOf(target);
    store.client.stops.dryRun(filter, inProject).then(setFrozen, (cause) => setError(messageOf(cause)));
  }, [target]);

  const stop = async (): Promise<void> => {
    if (frozen === null) return;
    setBusy(true);
    try {
      const given = await store.client.stops.bulk({ setId: frozen.setId });
      setAnswer(given);
      store.notify(`${count(given.requested.length, 'stop')} requested`);
    } catch (cause) {
      setError(messageOf(cause));
    }
    setBusy(false);
  };

  if (answer !== null) {
    return (
      <Confirm open title="What became of each" confirm={null} onClose={onClose} onConfirm={() => {}}>
        <Outcome answer={answer} />
      </Confirm>
    );
  }
  const live = frozen?.matched ?? 0;
  const title =
    frozen === null ? 'Stop executions?' : live === 0 ? 'Nothing to stop' : `Stop ${count(live, 'execution')}?`;
  return (
    <Confirm
      open
      title={title}
      confirm={live === 0 ? null : `Stop ${count(live, 'execution')}`}
      busy={busy}
      onClose={onClose}
      onConfirm={() => void stop()}
    >
      {error === null ? null : (
        <Banner kind="error" title="That did not work.">
          {error}
        </Banner>
      )}
      {frozen === null && error === null ? <Loading what="what would be stopped" /> : null}
      {frozen === null ? null : (
        <>
          <p>
            {'ids' in target ? `You selected ${count(target.ids.length, 'execution')}; ` : ''}
            {live === 0
              ? 'none of them is live.'
              : `${live.toLocaleString('en')} ${live === 1 ? 'is' : 'are'} live and will be stopped, with all children.`}
          </p>
          {live === 0 ? null : (
            <p>
              This set is frozen: whatever starts from now on is not in it, and is listed afterwards. A stop cannot be
              taken back.
            </p>
          )}
        </>
      )}
    </Confirm>
  );
}

function filterOf(target: BulkTarget): { filter: ExecutionFilter; inProject: { project?: string } } {
  if ('ids' in target) return { filter: { ids: target.ids }, inProject: {} };
  const { project, stoppedByUser: _stopped, parent: _parent, cursor: _cursor, limit: _limit, ...narrow } = target.query;
  const inProject = project === undefined ? {} : { project };
  return { filter: Object.keys(narrow).length === 0 ? { all: true } : narrow, inProject };
}

function Outcome({ answer }: { answer: BulkStopAnswer }) {
  const items = useStore(({ list }) => list.items);
  const byId = new Map(items.map((item) => [item.id, item]));
  const { requested, alreadyEnded, failed, startedMeanwhile } = answer;
  return (
    <>
      <p>
        {count(requested.length, 'stop')} requested, {alreadyEnded.length} had ended, {failed.length} failed.
      </p>
      <ul className="outcomes">
        {failed.map(({ id, code }) => (
          <li key={id}>
            <Status look="Failed" text={code} />
            <Link to={`/executions/${id}`} className="mono">
              {id}
            </Link>
          </li>
        ))}
        {requested.slice(0, SHOWN_MAX).map((id) => {
          const item = byId.get(id);
          return (
            <li key={id}>
              {item === undefined ? <Status look="Stopping" text="stop requested" /> : <ExecutionStatus item={item} />}
              <Link to={`/executions/${id}/stop`} className="mono">
                {id}
              </Link>
            </li>
          );
        })}
        {alreadyEnded.slice(0, SHOWN_MAX).map((id) => (
          <li key={id}>
            <Status look="Complete" text="had ended" />
            <Link to={`/executions/${id}`} className="mono">
              {id}
            </Link>
          </li>
        ))}
      </ul>
      {requested.length > SHOWN_MAX ? <p className="muted">and {requested.length - SHOWN_MAX} more</p> : null}
      {startedMeanwhile.length === 0 ? null : (
        <Banner kind="note" title={`${count(startedMeanwhile.length, 'execution')} started meanwhile and match.`}>
          They were not stopped. Repeat to stop them too.
        </Banner>
      )}
    </>
  );
}
