/** Who asked for what. */
import { useState } from 'react';
import type { AuditItem } from '../../../src/client/index.ts';
import { messageOf } from '../format.ts';
import { store, useResource } from '../store.ts';
import { Ago, Banner, Empty, Link, Loading, useTitle } from '../ui.tsx';

const UUID = /^[0-9a-f]{8}-[0-9a-f-]{27}$/;

export function AuditPage() {
  useTitle('Audit');
  const { data, error, reload } = useResource('audit', (client) => client.audit.list({ limit: 100 }));
  const [older, setOlder] = useState<{ items: AuditItem[]; next: string | null } | null>(null);
  const items = [...(data?.items ?? []), ...(older?.items ?? [])];
  const next = older === null ? (data?.nextCursor ?? null) : older.next;
  const more = async (): Promise<void> => {
    if (next === null) return;
    try {
      const page = await store.client.audit.list({ cursor: next, limit: 100 });
      setOlder({ items: [...(older?.items ?? []), ...page.items], next: page.nextCursor });
    } catch (cause) {
      store.notify(`No more could be read: ${messageOf(cause)}`);
    }
  };
  return (
    <div className="page">
      <div className="page-head">
        <h1>Audit</h1>
        <span className="muted">Who stopped, started, saved and was refused. Newest first.</span>
        <span className="grow" />
        <button
          type="button"
          className="button"
          onClick={() => {
            setOlder(null);
            reload();
          }}
        >
          Read again
        </button>
      </div>
      {error === null ? null : (
        <Banner
          kind="error"
          title={
            error.code === 'FS_FORBIDDEN' ? 'Your key may not read the audit log.' : 'The audit log could not be read.'
          }
        >
          {error.code === 'FS_FORBIDDEN' ? "An admin's key may, that of its project." : error.message}
        </Banner>
      )}
      {data === null && error === null ? <Loading what="the audit log" /> : null}
      {data !== null && items.length === 0 ? <Empty title="Nobody has asked for anything yet." /> : null}
      {items.length === 0 ? null : (
        <section className="scroll" tabIndex={0} aria-label="Audit log">
          <table className="table">
            <thead>
              <tr>
                <th>When</th>
                <th>Who</th>
                <th>What</th>
                <th>Of</th>
                <th>Outcome</th>
                <th>Details</th>
              </tr>
            </thead>
            <tbody>
              {items.map(({ id, at, actor, verb, target, outcome, data: details }) => (
                <tr key={id}>
                  <td>
                    <Ago at={at} />
                  </td>
                  <td title={actor?.keyId}>
                    {actor === null ? <span className="muted">nobody known</span> : actor.name}
                  </td>
                  <td>{verb}</td>
                  <td className="mono">
                    {target !== null && UUID.test(target) && verb.startsWith('execution') ? (
                      <Link to={`/executions/${target}`}>{target}</Link>
                    ) : (
                      target
                    )}
                  </td>
                  <td className={outcome?.startsWith('FS_') === true ? 'fault' : ''}>{outcome ?? 'not known'}</td>
                  <td className="muted mono">
                    {details === undefined || details === null ? '' : JSON.stringify(details)}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          {next === null ? null : (
            <button type="button" className="button" onClick={() => void more()}>
              Older entries
            </button>
          )}
        </section>
      )}
    </div>
  );
}
