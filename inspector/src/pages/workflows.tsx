/** What can be run: the saved workflows, one of them with a form to run it, and a place to check a file. */
import { useState } from 'react';
import type { Json } from '../../../src/client/index.ts';
import { messageOf } from '../format.ts';
import { navigate, useLocation, withQuery } from '../router.ts';
import { type Definition, type InputSpec, store, useDenied, useResource } from '../store.ts';
import { Ago, Banner, Duration, Empty, ExecutionStatus, JsonView, Link, Loading, Status, useTitle } from '../ui.tsx';
import { CheckPage } from './check.tsx';

export function WorkflowsPage({ name }: { name: string | null }) {
  // No workflow has a name with a capital letter or an underscore.
  if (name === '_check') return <CheckPage />;
  return name === null ? <All /> : <One key={name} name={name} />;
}

function All() {
  useTitle('Workflows');
  const { data, error } = useResource('workflows', (client) => client.workflows.list(), 5_000);
  return (
    <div className="page">
      <div className="page-head">
        <h1>Workflows</h1>
        <span className="grow" />
        <Link to="/workflows/_check" className="button">
          Check a file…
        </Link>
      </div>
      {error === null ? null : (
        <Banner kind="error" title="The workflows could not be read.">
          {error.message}
        </Banner>
      )}
      {data === null && error === null ? <Loading what="workflows" /> : null}
      {data?.items.length === 0 ? (
        <Empty title="No workflow is saved yet.">
          <p>
            Paste one under <Link to="/workflows/_check">Check a file</Link>, or use <code>fullstop save FILE</code>.
          </p>
        </Empty>
      ) : null}
      {data === null || data.items.length === 0 ? null : (
        <section className="scroll" tabIndex={0} aria-label="Workflows">
          <table className="table">
            <thead>
              <tr>
                <th>Name</th>
                <th>Version</th>
                <th>Starts</th>
                <th>Next</th>
                <th>Saved</th>
                <th>Description</th>
              </tr>
            </thead>
            <tbody>
              {data.items.map((item) => (
                <tr key={`${item.project}/${item.name}`}>
                  <td>
                    <Link to={addressOf(item)}>{item.name}</Link>{' '}
                    {item.project === 'default' ? null : <span className="muted">in {item.project}</span>}
                  </td>
                  <td className="num">v{item.version}</td>
                  <td>
                    {item.disabled ? <Status look="Held" text="disabled" /> : <Status look="Complete" text="enabled" />}
                  </td>
                  <td>
                    {item.schedules.map(({ cron, nextAt }) => (
                      <span key={cron} title={cron}>
                        <Ago at={nextAt} />{' '}
                      </span>
                    ))}
                  </td>
                  <td>
                    <Ago at={item.savedAt} />
                  </td>
                  <td className="muted">{item.description}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </div>
  );
}

const addressOf = ({ name, project }: { name: string; project: string }): string =>
  `/workflows/${name}${project === 'default' ? '' : `?project=${project}`}`;

function One({ name }: { name: string }) {
  useTitle(name);
  const { query } = useLocation();
  const hash = query.get('hash');
  const project = query.get('project');
  const ref = hash === null ? name : `${name}@${hash}`;
  const inProject = project === null ? {} : { project };
  const { data, error, reload } = useResource(`workflow:${project ?? ''}:${ref}`, (client) =>
    client.workflows.get(ref, { ...inProject, versions: true }),
  );
  const runs = useResource(
    `runs:${project ?? ''}:${name}`,
    (client) => client.executions.list({ ...inProject, workflow: name, limit: 100 }),
    3_000,
  );
  const mayNotAdmin = useDenied('administer');
  if (error !== null) {
    return (
      <Empty
        title={error.code === 'FS_NOT_FOUND' ? 'There is no such workflow, or your key may not see it.' : error.message}
      >
        <p>
          <Link to="/workflows">See all workflows</Link>
        </p>
      </Empty>
    );
  }
  if (data === null) return <Loading what="the workflow" />;
  const definition = data.definition as unknown as Definition;
  const versions = data.versions ?? [data];
  const toggle = async (): Promise<void> => {
    try {
      await (data.disabled
        ? store.client.workflows.enable(name, inProject)
        : store.client.workflows.disable(name, inProject));
      store.notify(data.disabled ? `${name} enabled` : `${name} disabled: what runs goes on`);
      reload();
    } catch (cause) {
      store.notify(`That did not work: ${messageOf(cause)}`);
    }
  };
  return (
    <section className="page scroll" tabIndex={0} aria-label={`Workflow ${name}`}>
      <div className="page-head">
        <h1>{name}</h1>
        {data.disabled ? <Status look="Held" text="disabled" /> : null}
        <label>
          Version{' '}
          <select
            value={data.hash}
            onChange={({ target }) => navigate(withQuery({ hash: target.value }), { replace: true })}
          >
            {versions.map(({ version, hash: itsHash }) => (
              <option key={itsHash} value={itsHash}>
                v{version} {itsHash.slice(0, 8)}
              </option>
            ))}
          </select>
        </label>
        <span className="muted">
          saved <Ago at={data.savedAt} />
        </span>
        <span className="grow" />
        <button
          type="button"
          className="button"
          disabled={mayNotAdmin !== null}
          title={mayNotAdmin ?? undefined}
          onClick={() => void toggle()}
        >
          {data.disabled ? 'Enable starts' : 'Disable starts'}
        </button>
      </div>
      <p>{data.description}</p>
      {data.schedules.length === 0 ? null : (
        <p className="muted">
          {data.schedules.map(({ cron, timezone, nextAt }) => (
            <span key={cron}>
              <code>{cron}</code> {timezone ?? 'UTC'}, next <Ago at={nextAt} />{' '}
            </span>
          ))}
        </p>
      )}
      <div className="columns">
        <div>
          <h2>Run it</h2>
          <RunForm
            key={data.hash}
            definition={definition}
            reference={`${name}@${data.hash}`}
            inProject={inProject}
            disabled={data.disabled}
          />
          <h2>
            <Link to={`/executions?workflow=${name}`}>Last executions</Link>
          </h2>
          {runs.data?.items.length === 0 ? <p className="muted">None yet.</p> : null}
          <ul className="outcomes">
            {runs.data?.items.slice(0, 10).map((item) => (
              <li key={item.id}>
                <ExecutionStatus item={item} />
                <Link to={`/executions/${item.id}`}>
                  <Ago at={item.createdAt} />
                </Link>
                <Duration of={item} />
                <span className="muted">v{item.workflow.version}</span>
              </li>
            ))}
          </ul>
        </div>
        <div>
          <h2>Versions</h2>
          <Versions versions={versions} shown={data.hash} />
          <h2>The file, as JSON</h2>
          <JsonView value={definition} label={`File of ${name}`} />
        </div>
      </div>
    </section>
  );
}

/** The last saved first: it is what the bare name means. */
function Versions({
  versions,
  shown,
}: {
  versions: readonly { version: number; hash: string; savedAt: string }[];
  shown: string;
}) {
  return (
    <section className="versions" tabIndex={0} aria-label="Versions">
      <table className="table">
        <thead>
          <tr>
            <th>Version</th>
            <th>Hash</th>
            <th>Saved</th>
            <th>Starts by the bare name</th>
          </tr>
        </thead>
        <tbody>
          {versions.map(({ version, hash, savedAt }, index) => (
            <tr key={hash} className={hash === shown ? 'is-current' : ''}>
              <td>
                <Link to={withQuery({ hash })} aria-current={hash === shown ? 'page' : undefined}>
                  v{version}
                </Link>
              </td>
              <td className="mono">{hash.slice(0, 12)}</td>
              <td>
                <Ago at={savedAt} />
              </td>
              <td>{index === 0 ? <Status look="Complete" text="this one" /> : null}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

/** A field per input of the file; what is left empty takes the file's default. */
function RunForm({
  definition,
  reference,
  inProject,
  disabled,
}: {
  definition: Definition;
  reference: string;
  inProject: { project?: string };
  disabled: boolean;
}) {
  const denied = useDenied('operate');
  const [given, setGiven] = useState<Record<string, string>>({});
  const [fault, setFault] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const inputs = Object.entries(definition.inputs ?? {});
  const why = denied ?? (disabled ? 'Starts of this workflow are disabled.' : null);
  const run = async (): Promise<void> => {
    const input: Record<string, Json> = {};
    for (const [name, spec] of inputs) {
      const text = given[name] ?? '';
      if (text === '') {
        if (spec.required === true && spec.default === undefined) return setFault(`${name} is needed.`);
        continue;
      }
      const value = read(spec, text);
      if (value === undefined)
        return setFault(
          `${name}: expected ${spec.type === 'array' ? 'an' : 'a'} ${spec.type}${spec.type === 'array' || spec.type === 'object' ? ' as JSON' : ''}, found "${text}".`,
        );
      input[name] = value;
    }
    setBusy(true);
    try {
      const { id } = await store.client.executions.start({ ...inProject, workflow: reference, input });
      store.notify('started');
      navigate(`/executions/${id}`);
    } catch (error) {
      setFault(messageOf(error));
      setBusy(false);
    }
  };
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        void run();
      }}
    >
      {inputs.length === 0 ? <p className="muted">It has no inputs.</p> : null}
      {inputs.map(([name, spec]) => (
        <div key={name} className="field">
          <label htmlFor={`input-${name}`}>
            {name}{' '}
            <span className="muted">
              {spec.type}
              {spec.required === true ? ', required' : ''}
            </span>
          </label>
          <Field
            id={`input-${name}`}
            spec={spec}
            value={given[name] ?? ''}
            onChange={(value) => {
              setFault(null);
              setGiven({ ...given, [name]: value });
            }}
          />
          {spec.description === undefined ? null : <p className="muted">{spec.description}</p>}
        </div>
      ))}
      {fault === null ? null : (
        <p className="fault" role="alert">
          {fault}
        </p>
      )}
      <button type="submit" className="button primary" disabled={busy || why !== null}>
        Run
      </button>
      {why === null ? null : <p className="muted">{why}</p>}
    </form>
  );
}

function Field({
  id,
  spec,
  value,
  onChange,
}: {
  id: string;
  spec: InputSpec;
  value: string;
  onChange: (value: string) => void;
}) {
  const otherwise =
    spec.default === undefined ? '' : spec.type === 'string' ? String(spec.default) : JSON.stringify(spec.default);
  const options =
    spec.enum?.map((one) => (typeof one === 'string' ? one : JSON.stringify(one))) ??
    (spec.type === 'boolean' ? ['true', 'false'] : null);
  if (options !== null) {
    return (
      <select id={id} value={value} onChange={({ target }) => onChange(target.value)}>
        <option value="">{otherwise === '' ? 'not given' : `default: ${otherwise}`}</option>
        {options.map((option) => (
          <option key={option}>{option}</option>
        ))}
      </select>
    );
  }
  if (spec.type === 'array' || spec.type === 'object') {
    return (
      <textarea
        id={id}
        rows={3}
        spellCheck={false}
        placeholder={otherwise}
        value={value}
        onChange={({ target }) => onChange(target.value)}
      />
    );
  }
  return (
    <input
      id={id}
      type="text"
      inputMode={spec.type === 'number' ? 'decimal' : 'text'}
      placeholder={otherwise}
      value={value}
      onChange={({ target }) => onChange(target.value)}
    />
  );
}

/** undefined: the text is not of that type. */
function read(spec: InputSpec, text: string): Json | undefined {
  if (spec.type === 'string') return text;
  try {
    const value = JSON.parse(text) as Json;
    const kind = Array.isArray(value) ? 'array' : typeof value;
    return kind === spec.type && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
