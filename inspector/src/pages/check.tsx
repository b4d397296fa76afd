/** A place to paste a workflow file: its faults are marked on their lines, and a good one can be saved. */
import { useRef, useState } from 'react';
import type { DefinitionFault, WorkflowSaved } from '../../../src/client/index.ts';
import { count, messageOf } from '../format.ts';
import { navigate } from '../router.ts';
import { store, useDenied } from '../store.ts';
import { Banner, Link, useTitle } from '../ui.tsx';

const LINE_PX = 20;
const SAMPLE = `name: hello
nodes:
  greet:
    type: set
    with: { value: "hello" }
`;

export function CheckPage() {
  useTitle('Check a file');
  const [text, setText] = useState(SAMPLE);
  const [faults, setFaults] = useState<DefinitionFault[] | null>(null);
  const [found, setFound] = useState<WorkflowSaved | null>(null);
  const [error, setError] = useState<string | null>(null);
  const denied = useDenied('administer');
  const area = useRef<HTMLTextAreaElement>(null);
  const gutter = useRef<HTMLDivElement>(null);
  const lines = text.split('\n');
  const marked = new Map<number, string[]>();
  for (const { line, message } of faults ?? []) {
    if (line !== null) marked.set(line, [...(marked.get(line) ?? []), message]);
  }

  const send = async (dryRun: boolean): Promise<void> => {
    setError(null);
    setFound(null);
    setFaults(null);
    try {
      const saved = await store.client.workflows.save(text, dryRun ? { dryRun } : {});
      if (dryRun) return setFound(saved);
      store.notify(`${saved.name} saved, version ${saved.version}`);
      navigate(`/workflows/${saved.name}`);
    } catch (cause) {
      const details = (cause as { details?: { faults?: DefinitionFault[] } | null }).details;
      if (details?.faults === undefined) setError(messageOf(cause));
      else setFaults(details.faults);
    }
  };
  const goTo = (line: number | null): void => {
    const element = area.current;
    if (element === null || line === null) return;
    const start = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0);
    element.focus();
    element.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
    element.scrollTop = Math.max(0, (line - 5) * LINE_PX);
  };
  return (
    <div className="page">
      <div className="page-head">
        <h1>Check a workflow file</h1>
        <span className="grow" />
        <button type="button" className="button" onClick={() => void send(true)}>
          Check
        </button>
        <button
          type="button"
          className="button primary"
          disabled={denied !== null}
          title={denied ?? undefined}
          onClick={() => void send(false)}
        >
          Save
        </button>
      </div>
      {error === null ? null : (
        <Banner kind="error" title="It could not be checked.">
          {error}
        </Banner>
      )}
      {found === null ? null : (
        <Banner kind="note" title="No faults.">
          It would be <code>{found.name}</code>, version {found.version}. <Link to="/workflows">All workflows</Link>
        </Banner>
      )}
      {faults === null ? null : (
        <section className="faults" aria-label="Faults">
          <h2>{count(faults.length, 'fault')}</h2>
          <ul>
            {faults.map(({ path, line, message }, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: two faults may read the same.
              <li key={index}>
                <button type="button" className="as-link" onClick={() => goTo(line)}>
                  {line === null ? 'the file' : `line ${line}`}
                </button>{' '}
                <code>{path}</code> {message}
              </li>
            ))}
          </ul>
        </section>
      )}
      <div className="editor">
        <div className="gutter" ref={gutter} aria-hidden="true">
          {lines.map((_, index) => {
            const messages = marked.get(index + 1);
            return (
              // biome-ignore lint/suspicious/noArrayIndexKey: a line is its number.
              <div key={index} className={messages === undefined ? '' : 'is-fault'} title={messages?.join('\n')}>
                {messages === undefined ? '' : '✕ '}
                {index + 1}
              </div>
            );
          })}
        </div>
        <textarea
          ref={area}
          aria-label="Workflow file, YAML or JSON"
          spellCheck={false}
          wrap="off"
          value={text}
          onChange={({ target }) => {
            setText(target.value);
            setFaults(null);
            setFound(null);
          }}
          onScroll={({ currentTarget }) => {
            if (gutter.current !== null) gutter.current.scrollTop = currentTarget.scrollTop;
          }}
        />
      </div>
    </div>
  );
}
