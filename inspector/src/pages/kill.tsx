/** The question before a kill: what it will do, with the focus on Cancel. It asks for no reason. */
import { useEffect, useState } from 'react';
import { type ExecutionItem, hasCode, type StopPreview } from '../../../src/client/index.ts';
import type { NodeAddress } from '../../../src/wire.ts';
import { count, messageOf, place, span } from '../format.ts';
import { navigate } from '../router.ts';
import { store } from '../store.ts';
import { Banner, Confirm, Loading } from '../ui.tsx';

/** While the question stands, what it shows is read again. */
const REFRESH_MS = 2_000;
const NAMED_MAX = 12;

type Aborted = StopPreview['willAbort'][number];

export function KillDialog({ item, onClose }: { item: ExecutionItem; onClose: () => void }) {
  const [preview, setPreview] = useState<StopPreview | null>(null);
  const [trouble, setTrouble] = useState<string | null>(null);
  const [ended, setEnded] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);

  useEffect(() => {
    let here = true;
    const read = async (): Promise<void> => {
      try {
        const found = await store.client.executions.preview(item.id);
        if (here) setPreview(found);
      } catch (error) {
        if (!here) return;
        if (hasCode(error, 'FS_ENDED')) setEnded(messageOf(error));
        else setTrouble(messageOf(error));
      }
    };
    void read();
    const timer = setInterval(() => void read(), REFRESH_MS);
    return () => {
      here = false;
      clearInterval(timer);
    };
  }, [item.id]);

  const kill = async (): Promise<void> => {
    setBusy(true);
    try {
      await store.stop(item.id);
      store.notify('stop has been requested');
      onClose();
      navigate(`/executions/${item.id}/stop`);
    } catch (error) {
      setBusy(false);
      if (hasCode(error, 'FS_ENDED')) setEnded(messageOf(error));
      else setTrouble(`The stop was not acknowledged: ${messageOf(error)} Asking again is safe: it is the same stop.`);
    }
  };

  return (
    <Confirm
      open
      title={`Kill workflow ${item.workflow.name}?`}
      confirm={ended === null ? 'Kill workflow' : null}
      busy={busy}
      onClose={onClose}
      onConfirm={() => void kill()}
    >
      {ended === null ? null : (
        <Banner kind="note" title="It has ended meanwhile.">
          {ended}
        </Banner>
      )}
      {trouble === null ? null : (
        <Banner kind="error" title="Something went wrong.">
          {trouble}
        </Banner>
      )}
      {preview === null && trouble === null && ended === null ? <Loading what="what a stop would do" /> : null}
      {preview === null || ended !== null ? null : <Preview preview={preview} />}
      {ended === null ? (
        <p>
          It cannot be resumed afterwards. <em>Run again</em> starts a new execution.
        </p>
      ) : null}
    </Confirm>
  );
}

function Preview({ preview }: { preview: StopPreview }) {
  const { willAbort, cannotCancel, kept, stayPending, stayHeld, children } = preview;
  const running = willAbort.filter(({ queued }) => queued !== true);
  const queued = willAbort.filter((node) => node.queued === true);
  return (
    <dl className="preview">
      <dt>Will be aborted</dt>
      <dd>
        {running.length === 0 ? (
          'nothing runs'
        ) : (
          <Nodes
            nodes={running}
            describe={({ type, where, runningForMs }) => `${type} on the ${where}, for ${span(runningForMs)}`}
          />
        )}
      </dd>
      {queued.length === 0 ? null : (
        <>
          <dt>Withdrawn before they start</dt>
          <dd>
            <Nodes
              nodes={queued}
              describe={({ type, where, runningForMs }) =>
                `${type}, has waited ${span(runningForMs)} for ${where === 'agent' ? 'an External Agent' : 'a worker'}`
              }
            />
          </dd>
        </>
      )}
      {cannotCancel.length === 0 ? null : (
        <>
          <dt className="is-Held">Cannot be reached</dt>
          <dd>
            <ul>
              {cannotCancel.map((node) => (
                <li key={place(node)}>
                  <strong>{place(node)}</strong>{' '}
                  <span className="muted">
                    External Agent {node.agent}, for {span(node.runningForMs)}: it runs on, and its result will be
                    discarded
                  </span>
                </li>
              ))}
            </ul>
          </dd>
        </>
      )}
      <dt>Kept as they are</dt>
      <dd>
        {kept.Complete} Complete, {kept.Failed} Failed, {kept.Skipped} Skipped
      </dd>
      <dt>Stay Pending</dt>
      <dd>{names(stayPending)}</dd>
      <dt>Stay Held</dt>
      <dd>{names(stayHeld)}</dd>
      {children.length === 0 ? null : (
        <>
          <dt>Stopped with it</dt>
          <dd>{count(children.length, 'child execution')}</dd>
        </>
      )}
    </dl>
  );
}

function Nodes({ nodes, describe }: { nodes: Aborted[]; describe: (node: Aborted) => string }) {
  return (
    <ul>
      {nodes.slice(0, NAMED_MAX).map((node) => (
        <li key={place(node)}>
          <strong>{place(node)}</strong> <span className="muted">{describe(node)}</span>
        </li>
      ))}
      {nodes.length > NAMED_MAX ? <li>and {nodes.length - NAMED_MAX} more</li> : null}
    </ul>
  );
}

function names(nodes: NodeAddress[]): string {
  if (nodes.length === 0) return 'none';
  const shown = nodes.slice(0, NAMED_MAX).map(place).join(', ');
  return nodes.length > NAMED_MAX ? `${shown} and ${nodes.length - NAMED_MAX} more` : shown;
}
