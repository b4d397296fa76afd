/** How times, spans and names read. */
import type { ExecutionItem } from '../../src/client/index.ts';
import type { NodeAddress } from '../../src/wire.ts';

export function span(ms: number): string {
  const whole = Math.max(0, ms);
  if (whole < 1_000) return `${Math.round(whole)} ms`;
  const s = whole / 1_000;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m} min ${Math.floor(s % 60)} s`;
  const h = Math.floor(m / 60);
  if (h < 48) return `${h} h ${m % 60} min`;
  return `${Math.floor(h / 24)} d ${h % 24} h`;
}

export function ago(iso: string, nowMs: number): string {
  const ms = nowMs - Date.parse(iso);
  // Clocks differ a little, and ours ticks once a second.
  if (ms < -5_000) return `in ${coarse(-ms)}`;
  return ms < 5_000 ? 'just now' : `${coarse(ms)} ago`;
}

function coarse(ms: number): string {
  const s = Math.floor(ms / 1_000);
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return `${m} min`;
  const h = Math.floor(m / 60);
  return h < 48 ? `${h} h` : `${Math.floor(h / 24)} d`;
}

export function absolute(iso: string): string {
  const at = new Date(iso);
  return `${at.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' })} (${iso})`;
}

/** Hours, minutes, seconds and milliseconds, in the reader's time zone. */
export function clock(iso: string): string {
  const at = new Date(iso);
  const two = (n: number): string => String(n).padStart(2, '0');
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
}

export function count(n: number, noun: string, plural = `${noun}s`): string {
  return `${n.toLocaleString('en')} ${n === 1 ? noun : plural}`;
}

export function place({ node, iterations }: NodeAddress): string {
  return iterations === undefined || iterations.length === 0 ? node : `${node}[${iterations.join(',')}]`;
}

export const shortId = (id: string): string => `${id.slice(0, 8)}…${id.slice(-6)}`;

export function durationMs(item: Pick<ExecutionItem, 'startedAt' | 'endedAt'>, nowMs: number): number | null {
  if (item.startedAt === null) return null;
  return (item.endedAt === null ? nowMs : Date.parse(item.endedAt)) - Date.parse(item.startedAt);
}

export const workflowRef = ({ name, hash }: { name: string; hash: string }): string => `${name}@${hash}`;

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (typeof error === 'object' && error !== null && 'message' in error) return String(error.message);
  return String(error);
}
