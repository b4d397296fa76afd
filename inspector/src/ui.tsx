/** The small parts that every view is made of. */
import { AlertDialog, Dialog, DropdownMenu } from 'radix-ui';
import { type ReactNode, type RefObject, useEffect, useLayoutEffect, useRef, useState } from 'react';
import type { ExecutionItem, NodeStatus } from '../../src/client/index.ts';
import { absolute, ago, durationMs, span } from './format.ts';
import { useNow } from './now.ts';
import { followLink } from './router.ts';

export type Look = NodeStatus | 'Stopped' | 'Stopping';

/** One shape per state, so that none is told by its colour alone. */
const shapes: Record<Look, ReactNode> = {
  Pending: <circle cx="8" cy="8" r="5" fill="none" stroke="currentColor" strokeWidth="1.6" strokeDasharray="2.6 2.2" />,
  Held: (
    <g fill="currentColor">
      <rect x="4" y="3" width="3" height="10" rx="1" />
      <rect x="9" y="3" width="3" height="10" rx="1" />
    </g>
  ),
  Running: (
    <g fill="none" stroke="currentColor" strokeWidth="2">
      <circle cx="8" cy="8" r="5.4" opacity=".3" />
      <path className="spin" d="M8 2.6a5.4 5.4 0 0 1 5.4 5.4" strokeLinecap="round" />
    </g>
  ),
  Complete: (
    <path d="m3 8.5 3.4 3.4L13 4.6" fill="none" stroke="currentColor" strokeWidth="2.2" strokeLinecap="round" />
  ),
  Failed: <path d="m4 4 8 8m0-8-8 8" fill="none" stroke="currentColor" strokeWidth="2.2" strokeLinecap="round" />,
  Skipped: <path d="M3 8h7m-3-3.4L10.4 8 7 11.4M13 4v8" fill="none" stroke="currentColor" strokeWidth="1.8" />,
  Stopped: <rect x="3.5" y="3.5" width="9" height="9" rx="1.5" fill="currentColor" />,
  Stopping: <rect x="4" y="4" width="8" height="8" rx="1.5" fill="none" stroke="currentColor" strokeWidth="2" />,
};

export function Icon({ look }: { look: Look }) {
  return (
    <svg className={`icon is-${look}`} viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
      {shapes[look]}
    </svg>
  );
}

export function Status({ look, text }: { look: Look; text?: string }) {
  return (
    <span className={`status is-${look}`}>
      <Icon look={look} />
      <span>{text ?? look}</span>
    </span>
  );
}

export function lookOf(item: Pick<ExecutionItem, 'status' | 'stop' | 'endedAt' | 'stoppedByUser'>): Look {
  if (item.stop === null) return item.status;
  return item.endedAt === null ? 'Stopping' : 'Stopped';
}

/** The status in the product's words: a stop is a facet of Failed, never a status of its own. */
export function ExecutionStatus({
  item,
  long = false,
}: {
  item: Pick<ExecutionItem, 'status' | 'stop' | 'endedAt' | 'stoppedByUser'>;
  long?: boolean;
}) {
  const look = lookOf(item);
  if (look === 'Stopping') return <Status look={look} text={long ? `${item.status}, stop requested` : 'Stopping'} />;
  if (look === 'Stopped') return <Status look={look} text={long ? 'Failed, stopped by user' : 'Failed · stopped'} />;
  return <Status look={look} />;
}

export function Ago({ at }: { at: string | null }) {
  const now = useNow();
  if (at === null) return <span className="muted">not yet</span>;
  return (
    <time dateTime={at} title={absolute(at)}>
      {ago(at, now)}
    </time>
  );
}

export function Duration({ of }: { of: Pick<ExecutionItem, 'startedAt' | 'endedAt'> }) {
  const now = useNow();
  const ms = durationMs(of, now);
  return (
    <span className="num">{ms === null ? '' : span(of.endedAt === null ? Math.floor(ms / 1_000) * 1_000 : ms)}</span>
  );
}

export function Since({ at }: { at: string }) {
  const now = useNow();
  return <span className="num">{span(Math.floor((now - Date.parse(at)) / 1_000) * 1_000)}</span>;
}

export function Link({
  to,
  children,
  className,
  ...rest
}: {
  to: string;
  children: ReactNode;
  className?: string;
  'aria-current'?: 'page' | undefined;
}) {
  return (
    <a href={to} className={className} onClick={followLink} {...rest}>
      {children}
    </a>
  );
}

export function Banner({
  kind,
  title,
  children,
}: {
  kind: 'error' | 'stop' | 'note';
  title: string;
  children?: ReactNode;
}) {
  return (
    <div className={`banner is-${kind}`}>
      <strong>{title}</strong>
      {children === undefined ? null : <div>{children}</div>}
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children}
    </div>
  );
}

/** Grey bars where rows will be; nothing moves for who wants no motion. */
export function Loading({ what }: { what: string }) {
  return (
    <div className="loading" aria-busy="true">
      <p className="muted">Loading {what}…</p>
      <div className="bone" />
      <div className="bone short" />
      <div className="bone" />
    </div>
  );
}

export function CopyId({ id }: { id: string }) {
  const [copied, setCopied] = useState(false);
  return (
    <span className="copy">
      <code>{id}</code>
      <button
        type="button"
        className="quiet small"
        onClick={() => {
          void navigator.clipboard?.writeText(id).then(() => {
            setCopied(true);
            setTimeout(() => setCopied(false), 1_500);
          });
        }}
      >
        {copied ? 'copied' : 'copy'}
      </button>
    </span>
  );
}

export function JsonView({ value, label }: { value: unknown; label: string }) {
  return (
    <section className="json" tabIndex={0} aria-label={label}>
      <pre>{JSON.stringify(value, null, 2)}</pre>
    </section>
  );
}

export function Menu({ label, children }: { label: string; children: ReactNode }) {
  return (
    <DropdownMenu.Root modal={false}>
      <DropdownMenu.Trigger className="button">
        {label} <span aria-hidden="true">▾</span>
      </DropdownMenu.Trigger>
      <DropdownMenu.Portal>
        <DropdownMenu.Content className="menu" align="end" sideOffset={4}>
          {children}
        </DropdownMenu.Content>
      </DropdownMenu.Portal>
    </DropdownMenu.Root>
  );
}

/** An action that is not possible stays reachable and says why. */
export function MenuItem({
  children,
  why = null,
  danger = false,
  onSelect,
}: {
  children: ReactNode;
  why?: string | null;
  danger?: boolean;
  onSelect: () => void;
}) {
  return (
    <DropdownMenu.Item
      className={`menu-item${danger && why === null ? ' is-danger' : ''}`}
      aria-disabled={why !== null}
      onSelect={(event) => {
        if (why === null) onSelect();
        else event.preventDefault();
      }}
    >
      <span>{children}</span>
      {why === null ? null : <span className="why">{why}</span>}
    </DropdownMenu.Item>
  );
}

/** Asks before something that cannot be taken back: the focus is on Cancel. */
export function Confirm({
  open,
  onClose,
  title,
  confirm,
  busy = false,
  onConfirm,
  children,
}: {
  open: boolean;
  onClose: () => void;
  title: string;
  /** null: there is nothing to confirm. */
  confirm: string | null;
  busy?: boolean;
  onConfirm: () => void;
  children: ReactNode;
}) {
  return (
    <AlertDialog.Root open={open} onOpenChange={(now) => (now ? undefined : onClose())}>
      <AlertDialog.Portal>
        <AlertDialog.Overlay className="overlay" />
        <AlertDialog.Content className="dialog">
          <AlertDialog.Title className="dialog-title">{title}</AlertDialog.Title>
          <AlertDialog.Description asChild>
            <div className="dialog-body" tabIndex={0}>
              {children}
            </div>
          </AlertDialog.Description>
          <div className="dialog-buttons">
            <AlertDialog.Cancel className="button">{confirm === null ? 'Close' : 'Cancel'}</AlertDialog.Cancel>
            {confirm === null ? null : (
              <button type="button" className="button danger" disabled={busy} onClick={onConfirm}>
                {confirm}
              </button>
            )}
          </div>
        </AlertDialog.Content>
      </AlertDialog.Portal>
    </AlertDialog.Root>
  );
}

export function Sheet({
  open,
  onClose,
  title,
  children,
}: {
  open: boolean;
  onClose: () => void;
  title: string;
  children: ReactNode;
}) {
  return (
    <Dialog.Root open={open} onOpenChange={(now) => (now ? undefined : onClose())}>
      <Dialog.Portal>
        <Dialog.Overlay className="overlay" />
        <Dialog.Content className="dialog" aria-describedby={undefined}>
          <Dialog.Title className="dialog-title">{title}</Dialog.Title>
          <div className="dialog-body">{children}</div>
          <div className="dialog-buttons">
            <Dialog.Close className="button">Close</Dialog.Close>
          </div>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** Which of many rows of one height are to be seen: only those are drawn. */
export function useWindow(ref: RefObject<HTMLElement | null>, rowPx: number, total: number) {
  const [view, setView] = useState({ top: 0, height: 600 });
  const attached = useRef<{ element: HTMLElement | null; leave: () => void }>({ element: null, leave: () => {} });
  // After each drawing: what scrolls may come later than this component.
  useLayoutEffect(() => {
    const element = ref.current;
    if (element === attached.current.element) return;
    attached.current.leave();
    attached.current = { element, leave: () => {} };
    if (element === null) return;
    const look = (): void => {
      // Whole screens of rows: most scrolling then changes nothing.
      const top = Math.floor(element.scrollTop / (rowPx * 8)) * rowPx * 8;
      const height = element.clientHeight;
      setView((before) => (before.top === top && before.height === height ? before : { top, height }));
    };
    look();
    element.addEventListener('scroll', look, { passive: true });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    attached.current.leave = () => {
      element.removeEventListener('scroll', look);
      observer.disconnect();
    };
  });
  useEffect(() => () => attached.current.leave(), []);
  const first = Math.max(0, Math.floor(view.top / rowPx) - 8);
  const last = Math.min(total, Math.ceil((view.top + view.height) / rowPx) + 16);
  return { first: Math.min(first, Math.max(0, total - 1)), last };
}

/** Calls `onKey` for keys that nobody types into a field. */
export function useKeys(onKey: (key: string) => boolean): void {
  const latest = useRef(onKey);
  latest.current = onKey;
  useEffect(() => {
    const listen = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return;
      const target = event.target as HTMLElement;
      if (target.closest('input, textarea, select, [role="dialog"], [role="alertdialog"], [role="menu"]') !== null)
        return;
      // Enter on a button or a link is that button's or link's.
      if (event.key === 'Enter' && target.closest('button, a') !== null) return;
      if (latest.current(event.key)) event.preventDefault();
    };
    document.addEventListener('keydown', listen);
    return () => document.removeEventListener('keydown', listen);
  }, []);
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Fullstop`;
  }, [title]);
}
