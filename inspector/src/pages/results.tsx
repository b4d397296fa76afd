/** What the nodes gave. */
import type { ExecutionRecord } from '../../../src/client/index.ts';
import { useResource } from '../store.ts';
import { Banner, Empty, JsonView, Loading, Status } from '../ui.tsx';

/** Saves a value as a file of the reader's. */
export function download(name: string, value: unknown): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function ResultsTab({ record }: { record: ExecutionRecord }) {
  // Read again when the record moves on.
  const { data, error } = useResource(`results:${record.id}:${record.seq}`, (client) =>
    client.executions.results(record.id),
  );
  if (error !== null)
    return (
      <Banner kind="error" title="The results could not be read.">
        {error.message}
      </Banner>
    );
  if (data === null) return <Loading what="the results" />;
  const nodes = Object.entries(data.nodes).filter(([, { output, error: why }]) => output !== null || why !== null);
  return (
    <section className="scroll" tabIndex={0} aria-label="Results">
      <div className="toolbar">
        <button type="button" className="button" onClick={() => download(`${record.id}.json`, data)}>
          Download {record.id.slice(0, 8)}….json
        </button>
        {record.endedAt === null ? <span className="muted">So far: it has not ended.</span> : null}
      </div>
      <h2>Input</h2>
      <JsonView value={record.input} label="Input" />
      <h2>Outputs</h2>
      {data.outputs === null ? (
        <p className="muted">{record.endedAt === null ? 'None yet.' : 'None: it did not complete.'}</p>
      ) : (
        <JsonView value={data.outputs} label="Outputs" />
      )}
      <h2>Nodes</h2>
      {nodes.length === 0 ? <Empty title="No node has given anything yet." /> : null}
      {nodes.map(([name, { status, output, error: why }]) => (
        <details key={name} open={nodes.length <= 8}>
          <summary>
            <strong>{name}</strong> <Status look={status} />
          </summary>
          {why === null ? null : <p className="fault">{why}</p>}
          {output === null ? null : <JsonView value={output} label={`Output of ${name}`} />}
        </details>
      ))}
    </section>
  );
}
