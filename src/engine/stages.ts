/** Where nodes are in their charts, and where their rows belong. */
import type { NodeRow } from '../ports/store.ts';
import type { Slot } from './slot.ts';

export function stageOf(value: unknown): string {
  return typeof value === 'string' ? value : 'looping';
}

/** Where a loop is; null when it has ended or is between tries. */
export function loopStateOf(slot: Slot): string | null {
  const value = slot.actor?.getSnapshot().value as { looping?: string } | string | undefined;
  return typeof value === 'object' ? (value.looping ?? null) : null;
}

export function isIterating(slot: Slot): boolean {
  return ['iterating', 'closing', 'finishing'].includes(loopStateOf(slot) ?? '');
}

/** Whether a node of this loop's body, or deeper, has not settled. */
export function hasLiveNodes(rows: Map<string, NodeRow[]>, loop: NodeRow): boolean {
  for (const list of rows.values()) {
    for (const row of list) {
      if (row.machine !== null && row.path.startsWith(`${loop.path}/`) && samePrefix(row.iterations, loop.iterations))
        return true;
    }
  }
  return false;
}

/** Waits for an instant or a trigger: costs memory only. */
export function isParkedStage(slot: Slot): boolean {
  return slot.stage === 'held' || slot.stage === 'waiting';
}

export function isMet(slot: Slot): boolean {
  return (
    slot.status === 'Complete' || slot.status === 'Skipped' || (slot.status === 'Failed' && slot.node.continueOnError)
  );
}

export function isWithin(inner: Slot, loop: Slot): boolean {
  for (let outer = inner.scope.outer; outer !== null; outer = outer.scope.outer) if (outer === loop) return true;
  return false;
}

export function samePrefix(iterations: readonly string[], prefix: readonly string[]): boolean {
  return prefix.every((part, index) => iterations[index] === part);
}

/** Where a node's row belongs: its graph's path and iterations. */
export function scopeKey(path: string, iterations: readonly string[]): string {
  return `${path.slice(0, path.lastIndexOf('/') + 1)}|${iterations.join(',')}`;
}

export function typeName(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value;
}
