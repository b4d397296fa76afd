/** Where we are: the address is the state of the page, so that every view can be sent to somebody. */
import { type MouseEvent, useMemo, useSyncExternalStore } from 'react';

export interface Location {
  path: string;
  /** The path's parts, decoded. */
  parts: string[];
  query: URLSearchParams;
}

const CHANGED = 'fullstop:navigate';

function subscribe(listener: () => void): () => void {
  window.addEventListener('popstate', listener);
  window.addEventListener(CHANGED, listener);
  return () => {
    window.removeEventListener('popstate', listener);
    window.removeEventListener(CHANGED, listener);
  };
}

const address = (): string => window.location.pathname + window.location.search;

export function useLocation(): Location {
  const now = useSyncExternalStore(subscribe, address);
  return useMemo(() => parse(now), [now]);
}

export function parse(target: string): Location {
  const url = new URL(target, window.location.origin);
  const parts = url.pathname.split('/').filter(Boolean).map(decode);
  return { path: url.pathname, parts, query: url.searchParams };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function navigate(target: string, { replace = false }: { replace?: boolean } = {}): void {
  if (target === address()) return;
  if (replace) window.history.replaceState(null, '', target);
  else window.history.pushState(null, '', target);
  window.dispatchEvent(new Event(CHANGED));
}

/** The address of here with other query parameters; null takes one away. */
export function withQuery(change: Record<string, string | null>): string {
  const query = new URLSearchParams(window.location.search);
  for (const [name, value] of Object.entries(change)) {
    if (value === null || value === '') query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return window.location.pathname + (text === '' ? '' : `?${text}`);
}

/** For the click of a link: goes there without loading the page, unless a new tab is asked for. */
export function followLink(event: MouseEvent<HTMLAnchorElement>): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  navigate(event.currentTarget.getAttribute('href') ?? '/');
}
