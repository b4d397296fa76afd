import type {
  EventRow,
  HeaderRow,
  NodeRow,
  RecoverableExecution,
  ResultRow,
  StoredReceipt,
  TriggerRow,
} from '../../ports/store.ts';
import type { TaskRow } from '../../ports/task-queue.ts';

/** All that is kept of one execution. */
export interface Entry {
  header: HeaderRow;
  /** In order of creation: tells executions of one millisecond apart. */
  turn: number;
  uniqueKey: string | null;
  bodyHash: string | null;
  nodes: Map<string, NodeRow>;
  events: EventRow[];
  firstSeq: number;
  results: Map<string, ResultRow>;
  triggers: Map<string, TriggerRow>;
  tasks: Map<string, TaskRow>;
  receipt: StoredReceipt | null;
  /** The engine that may take it, and since when. */
  offer: { to: string; atMs: number } | null;
  /** Triggers that the owner has in hand. */
  delivered: Set<string>;
}

export function hasEnded({ header: { status } }: Entry): boolean {
  return status === 'Complete' || status === 'Failed';
}

export function recoverable({ header, nodes, triggers }: Entry): RecoverableExecution {
  return {
    header,
    nodes: [...nodes.values()].sort((a, b) => compare(a.key, b.key)),
    triggers: [...triggers.values()].sort((a, b) => a.atMs - b.atMs || compare(a.id, b.id)),
  };
}

/** What a database would give back: without what JSON cannot say. */
export function jsonCopy<T>(value: T): T {
  if (typeof value !== 'object' || value === null)
    return (typeof value === 'number' && !Number.isFinite(value) ? null : value) as T;
  // Without JSON's text between, nor a list of each object's entries: a simulation does little else.
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    for (const item of value as unknown[]) list.push(item === undefined ? null : jsonCopy(item));
    return list as T;
  }
  const copy: Record<string, unknown> = {};
  for (const key in value) {
    const item = value[key];
    if (item !== undefined) copy[key] = jsonCopy(item);
  }
  return copy as T;
}

export function nameKey(project: string, name: string): string {
  return `${project}/${name}`;
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
