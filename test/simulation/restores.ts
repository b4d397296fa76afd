/** Holds every restored execution to the record it was restored from: the same snapshot, nothing lost, nothing added. */
import { isDeepStrictEqual } from 'node:util';
import { ExecutionHost } from '../../src/engine/execution-host.ts';
import type { Scope } from '../../src/engine/slot.ts';
import type { NodeRow, RecoverableExecution } from '../../src/ports/store.ts';
import { copy } from './database.ts';

let tell: ((fault: string) => void) | null = null;
const { restore } = ExecutionHost.prototype;

ExecutionHost.prototype.restore = function (this: ExecutionHost, stored: RecoverableExecution, afterCrash: boolean) {
  const before = tell === null ? null : copy(stored);
  restore.call(this, stored, afterCrash);
  if (before === null || tell === null || before.header.machine === null) return;
  const rows = new Map<string, NodeRow>();
  collect(this.root, rows);
  for (const row of before.nodes) {
    // Of a body that is over, or of an earlier iteration: nothing runs there.
    const now = rows.get(row.key);
    if (row.machine === null) continue;
    if (now === undefined) {
      tell(`${before.header.id}: ${row.key}, ${row.status}, was not restored (I8)`);
      continue;
    }
    const expected = core(row);
    const found = core(copy(now));
    if (!isDeepStrictEqual(found, expected))
      tell(
        `${before.header.id}: ${row.key} was restored as ${JSON.stringify(found)}, stored is ${JSON.stringify(expected)} (I8)`,
      );
  }
  for (const [key, row] of rows) {
    if (row.machine !== null && !before.nodes.some((other) => other.key === key))
      tell(`${before.header.id}: ${key} was restored, and is not stored (I8)`);
  }
};

/** Without what an engine of another version added. */
function core({ data: _data, machine, ...row }: NodeRow): unknown {
  const { next: _next, ...known } = machine as Record<string, unknown>;
  return { ...row, machine: known };
}

function collect(scope: Scope, rows: Map<string, NodeRow>): void {
  for (const slot of scope.slots) {
    if (slot === undefined) continue;
    rows.set(slot.key, slot.row());
    if (slot.body !== null) collect(slot.body, rows);
  }
}

/** Tells faults until the answer is called. */
export function restored(fault: (text: string) => void): () => void {
  tell = fault;
  return () => {
    tell = null;
  };
}
