import { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Ids } from '../ports/ids.ts';
import type { ExecutionFilter } from '../wire.ts';
import type { Caller } from './access.ts';

const KEPT_MS = 5 * 60_000;
/** Sets kept at once; the oldest goes first. */
const SETS_MAX = 100;

export interface FrozenSet {
  members: { id: string; project: string }[];
  filter: ExecutionFilter;
  /** The project it was matched in; null: all, undefined: none that the caller may see. */
  project: string | null | undefined;
  frozenAtMs: number;
}

/** What a dry run of a bulk stop matched, so that the stop that follows takes these and no others. */
export class FrozenSets {
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #sets = new Map<string, FrozenSet & { keyId: string }>();

  constructor(clock: Clock, ids: Ids) {
    this.#clock = clock;
    this.#ids = ids;
  }

  keep(caller: Caller, set: FrozenSet): string {
    const setId = this.#ids.next();
    this.#dropOld();
    this.#sets.set(setId, { ...set, keyId: caller.keyId });
    return setId;
  }

  /** @throws FS_NOT_FOUND for a set that is unknown, too old, or another key's. */
  get(caller: Caller, setId: string): FrozenSet {
    this.#dropOld();
    const set = this.#sets.get(setId);
    if (set === undefined || set.keyId !== caller.keyId) {
      throw new FullstopError(
        'FS_NOT_FOUND',
        `expected a set of the last 5 minutes, found "${setId}": do the dry run again`,
      );
    }
    return set;
  }

  #dropOld(): void {
    for (const [setId, set] of this.#sets) {
      if (this.#sets.size < SETS_MAX && set.frozenAtMs + KEPT_MS > this.#clock.nowMs()) return;
      this.#sets.delete(setId);
    }
  }
}
