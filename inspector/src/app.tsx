/** The frame around every view: where one can go, whether we hear the server, and what was just said. */
import { lazy, type ReactNode, Suspense, useEffect, useState } from 'react';
import { ExecutionPage } from './pages/execution.tsx';
import { ExecutionsPage } from './pages/executions.tsx';
import { navigate, useLocation } from './router.ts';
import { store, useStore } from './store.ts';
import { applyTheme, type Theme, theme } from './theme.ts';
import { Banner, Empty, Link, Loading, Sheet, useKeys, useTitle } from './ui.tsx';

const WorkflowsPage = lazy(async () => ({ default: (await import('./pages/workflows.tsx')).WorkflowsPage }));
const EnginesPage = lazy(async () => ({ default: (await import('./pages/engines.tsx')).EnginesPage }));
const AuditPage = lazy(async () => ({ default: (await import('./pages/audit.tsx')).AuditPage }));

const NAV = [
  ['/executions', 'Executions'],
  ['/workflows', 'Workflows'],
  ['/engines', 'Engines'],
  ['/audit', 'Audit'],
] as const;

const KEYS = [
  ['/', 'search'],
  ['j, k', 'next, previous execution'],
  ['x', 'select, or take the selection back'],
  ['Enter', 'open'],
  ['←, →', 'step back and forth, under Actors'],
  ['s', 'stop: asks first, and shows what a stop would do'],
  ['Esc', 'close, or select nothing'],
  ['?', 'this help'],
] as const;

export function App() {
  const phase = useStore((state) => state.phase);
  if (phase === 'key') return <KeyForm />;
  return <Shell />;
}

function Shell() {
  const phase = useStore((state) => state.phase);
  const paused = useStore(({ health }) => health?.admissionPaused === true);
  const trouble = useStore(({ health }) =>
    health?.status === 'unavailable' ? (health.message ?? 'no reason given') : null,
  );
  const caller = useStore(({ health }) => health?.caller ?? null);
  const location = useLocation();
  const [help, setHelp] = useState(false);
  const [look, setLook] = useState<Theme>(theme);
  const section = location.parts[0] ?? 'executions';

  useEffect(() => {
    if (location.path === '/') navigate('/executions', { replace: true });
  }, [location.path]);
  useKeys((key) => {
    if (key !== '?') return false;
    setHelp(true);
    return true;
  });

  return (
    <div className="shell">
      <a className="skip" href="#main">
        Skip to the content
      </a>
      <header className="top">
        <Link to="/executions" className="brand">
          fullstop<span aria-hidden="true">.</span>
        </Link>
        <nav aria-label="Views">
          {NAV.map(([to, name]) => (
            <Link key={to} to={to} aria-current={section === to.slice(1) ? 'page' : undefined}>
              {name}
            </Link>
          ))}
        </nav>
        <div className="top-right">
          <span className={`link-state is-${phase}`}>
            <span className="dot" aria-hidden="true" />
            {phase === 'online' ? 'Live' : phase === 'connecting' ? 'Connecting' : 'Reconnecting'}
          </span>
          {caller === null ? null : (
            <span className="muted caller" title={`Key "${caller.name}", ${caller.project ?? 'all projects'}`}>
              {caller.role}
              {caller.project === null ? '' : ` of ${caller.project}`}
            </span>
          )}
          <button
            type="button"
            className="quiet"
            title="Dark, light, or as the system says"
            onClick={() => {
              const next: Theme = look === 'system' ? 'dark' : look === 'dark' ? 'light' : 'system';
              applyTheme(next);
              setLook(next);
            }}
          >
            Theme: {look}
          </button>
          <button type="button" className="quiet" aria-label="Keyboard help" onClick={() => setHelp(true)}>
            ?
          </button>
        </div>
      </header>
      {phase === 'reconnecting' ? (
        <Banner kind="note" title="The connection is lost.">
          You see what was last heard. This page reconnects by itself; a stop that was acknowledged takes effect all the
          same.
        </Banner>
      ) : null}
      {trouble === null ? null : (
        <Banner kind="error" title="The server takes no work now.">
          {trouble}
        </Banner>
      )}
      {paused ? (
        <Banner kind="note" title="Admission is paused.">
          New executions wait as Pending, what runs goes on. <Link to="/engines">Resume under Engines</Link>
        </Banner>
      ) : null}
      <main id="main" tabIndex={-1}>
        <Suspense fallback={<Loading what="this view" />}>{view(location.parts)}</Suspense>
      </main>
      <Notice />
      <Sheet open={help} onClose={() => setHelp(false)} title="Keyboard">
        <dl className="keys">
          {KEYS.map(([key, what]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <p className="muted">
          Fullstop is under the Apache License 2.0; this page contains{' '}
          <a href="/THIRD-PARTY-NOTICES.md">others' work</a>.
        </p>
      </Sheet>
    </div>
  );
}

function view(parts: string[]): ReactNode {
  const [section = 'executions', id, tab] = parts;
  if (section === 'executions' && id !== undefined) return <ExecutionPage key={id} id={id} tab={tab ?? 'graph'} />;
  if (section === 'executions') return <ExecutionsPage />;
  if (section === 'workflows') return <WorkflowsPage name={id ?? null} />;
  if (section === 'engines') return <EnginesPage />;
  if (section === 'audit') return <AuditPage />;
  return (
    <Empty title="There is nothing at this address.">
      <p>
        <Link to="/executions">See all executions</Link>
      </p>
    </Empty>
  );
}

/** The page's one live region. */
function Notice() {
  const notice = useStore((state) => state.notice);
  useEffect(() => {
    if (notice === null) return;
    const timer = setTimeout(() => store.clearNotice(), 6_000);
    return () => clearTimeout(timer);
  }, [notice]);
  return (
    <div className="notice" role="status" aria-live="polite">
      {notice === null ? null : <p key={notice.at}>{notice.text}</p>}
    </div>
  );
}

function KeyForm() {
  useTitle('Sign in');
  const refusal = useStore((state) => state.refusal);
  const [key, setKey] = useState('');
  return (
    <main className="sign-in">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (key.trim() !== '') store.signIn(key.trim());
        }}
      >
        <h1 className="brand">
          fullstop<span aria-hidden="true">.</span>
        </h1>
        <p>Open the link that the server printed when it started, or give a key.</p>
        <label htmlFor="key">API key</label>
        <input
          id="key"
          type="password"
          autoComplete="off"
          spellCheck={false}
          value={key}
          onChange={(event) => setKey(event.target.value)}
        />
        {refusal === null ? null : (
          <p className="fault" role="alert">
            {refusal}
          </p>
        )}
        <button type="submit" className="button primary">
          Open
        </button>
        <p className="muted">
          The key stays in this tab and is forgotten with it. Whoever runs the server makes one with{' '}
          <code>fullstop keys create NAME --role viewer</code>; the first one is in <code>admin.key</code> of the
          server's data directory.
        </p>
        <p className="muted">
          A link works once, and its session ends with the server: a start prints a new one. Executions are not touched
          by that, and can be stopped without this page: <code>fullstop stop ID</code>.
        </p>
      </form>
    </main>
  );
}
