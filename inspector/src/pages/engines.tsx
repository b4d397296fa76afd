/** The processes: what they run, whether they answer, and how to empty one. */
import { useState } from 'react';
import type { EngineItem } from '../../../src/client/index.ts';
import { count, messageOf, shortId, span } from '../format.ts';
import { store, useDenied, useResource, useStore } from '../store.ts';
import { Ago, Banner, Confirm, Empty, Loading, type Look, Status, useTitle } from '../ui.tsx';

const POLL_MS = 2_000;
/** A worker that is silent for longer is as good as gone: leases last so long. */
const SILENT_MS = 8_000;
const LOOKS: Record<EngineItem['status'], Look> = {
  starting: 'Pending',
  serving: 'Running',
  draining: 'Held',
  stopped: 'Skipped',
};

export function EnginesPage() {
  useTitle('Engines and workers');
  const denied = useDenied('administerAll');
  const health = useStore((state) => state.health);
  const engines = useResource('engines', (client) => client.engines.list(), POLL_MS);
  const workers = useResource('workers', (client) => client.workers.list(), POLL_MS);
  const [draining, setDraining] = useState<EngineItem | null>(null);
  const missing = Object.entries(health?.missing ?? {}).filter(([, tasks]) => tasks > 0);
  const paused = health?.admissionPaused === true;

  const drain = async (): Promise<void> => {
    if (draining === null) return;
    setDraining(null);
    try {
      await store.client.engines.drain(draining.id);
      store.notify('the engine drains: it admits nothing more');
      engines.reload();
    } catch (error) {
      store.notify(`It does not drain: ${messageOf(error)}`);
    }
  };
  const pause = async (): Promise<void> => {
    try {
      await store.client.admission.set(!paused);
      store.notify(paused ? 'admission resumed' : 'admission paused: what runs goes on');
      await store.refreshHealth();
    } catch (error) {
      store.notify(`That did not work: ${messageOf(error)}`);
    }
  };

  return (
    <section className="page scroll" tabIndex={0} aria-label="Engines and workers">
      <div className="page-head">
        <h1>Engines and workers</h1>
        <span className="grow" />
        <button
          type="button"
          className="button"
          disabled={denied !== null}
          title={denied ?? undefined}
          onClick={() => void pause()}
        >
          {paused ? 'Resume admission' : 'Pause admission'}
        </button>
      </div>
      {denied === null ? null : (
        <Banner kind="note" title="Engines and workers are not shown.">
          {denied}
        </Banner>
      )}
      {missing.map(([capability, tasks]) => (
        <Banner key={capability} kind="error" title={`${count(tasks, 'task')} wait for the capability ${capability}.`}>
          No connected worker offers it. Start one: <code>fullstop worker --capabilities {capability}</code>
        </Banner>
      ))}
      {denied !== null ? null : (
        <>
          <h2>Engines</h2>
          {engines.data === null && engines.error === null ? <Loading what="engines" /> : null}
          {engines.error === null ? null : (
            <Banner kind="error" title="Engines could not be read.">
              {engines.error.message}
            </Banner>
          )}
          {engines.data === null ? null : (
            <table className="table">
              <thead>
                <tr>
                  <th>Engine</th>
                  <th>Status</th>
                  <th>Running</th>
                  <th>Pending</th>
                  <th>Parked</th>
                  <th>Started</th>
                  <th>Version</th>
                  <th>
                    <span className="sr-only">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {engines.data.items.map((engine) => (
                  <tr key={engine.id}>
                    <td className="mono" title={engine.id}>
                      {shortId(engine.id)}
                    </td>
                    <td>
                      <Status look={LOOKS[engine.status]} text={engine.status} />
                    </td>
                    <td className="num">{engine.executions.running}</td>
                    <td className="num">{engine.executions.pending}</td>
                    <td className="num">{engine.executions.parked}</td>
                    <td>
                      <Ago at={engine.startedAt} />
                    </td>
                    <td>{engine.version}</td>
                    <td>
                      <button
                        type="button"
                        className="button small"
                        disabled={engine.status !== 'serving'}
                        title={engine.status === 'serving' ? undefined : `It is ${engine.status}.`}
                        onClick={() => setDraining(engine)}
                      >
                        Drain…
                      </button>
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          <h2>Workers and agents</h2>
          {workers.data?.items.length === 0 ? (
            <Empty title="No worker is connected.">
              Start one with <code>fullstop worker</code>.
            </Empty>
          ) : null}
          {workers.data === null || workers.data.items.length === 0 ? null : (
            <table className="table">
              <thead>
                <tr>
                  <th>Name</th>
                  <th>Kind</th>
                  <th>State</th>
                  <th>Takes</th>
                  <th>Holds</th>
                  <th>Last word</th>
                </tr>
              </thead>
              <tbody>
                {workers.data.items.map((worker) => (
                  <tr key={worker.id}>
                    <td title={worker.id}>{worker.name}</td>
                    <td>{worker.kind === 'pool' ? 'pool in the server' : worker.kind}</td>
                    <td>
                      {worker.connected ? (
                        <Status
                          look={worker.silentMs > SILENT_MS ? 'Held' : 'Complete'}
                          text={worker.silentMs > SILENT_MS ? 'silent' : 'connected'}
                        />
                      ) : (
                        <Status look="Failed" text="gone" />
                      )}
                    </td>
                    <td>{worker.capabilities.join(', ')}</td>
                    <td className="num">
                      {worker.held} of {worker.slots}
                    </td>
                    <td className="num">{worker.silentMs < 1_000 ? 'now' : `${span(worker.silentMs)} ago`}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </>
      )}
      <Confirm
        open={draining !== null}
        title="Drain this engine?"
        confirm="Drain"
        onClose={() => setDraining(null)}
        onConfirm={() => void drain()}
      >
        <p>
          It admits nothing more, and lets running attempts end. This is no stop: its executions go on elsewhere, or
          after a restart. To start them here again, restart the process.
        </p>
      </Confirm>
    </section>
  );
}
