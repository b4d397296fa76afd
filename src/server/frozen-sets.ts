import { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Ids } from '../ports/ids.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { ExecutionFilter, Json } from '../wire.ts';
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

type KeptSet = FrozenSet & { keyId: string };

/**
 * What a dry run of a bulk stop matched, so that the stop that follows takes these and no others.
 *
 * Where engines share the store, the stop may be asked for at another one: a set is kept in the store, too, in one of
 * 256 places, so that nobody has to clear away what was never used.
 */
export class FrozenSets {
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #shared: Pick<ExecutionStore, 'getSetting' | 'putSetting'> | null;
  readonly #sets = new Map<string, KeptSet>();

  constructor(clock: Clock, ids: Ids, store: ExecutionStore | null = null) {
    this.#clock = clock;
    this.#ids = ids;
    this.#shared = store?.cluster == null ? null : store;
  }

  async keep(caller: Caller, set: FrozenSet): Promise<string> {
    const setId = this.#ids.next();
    const kept = { ...set, keyId: caller.keyId };
    this.#dropOld();
    this.#sets.set(setId, kept);
    await this.#shared?.putSetting(placeOf(setId), { setId, ...packed(kept) } as unknown as Json);
    return setId;
  }

  /** @throws FS_NOT_FOUND for a set that is unknown, too old, or another key's. */
  async get(caller: Caller, setId: string): Promise<FrozenSet> {
    this.#dropOld();
    const set = this.#sets.get(setId) ?? (await this.#elsewhere(setId));
    if (set === null || set.keyId !== caller.keyId) {
      throw new FullstopError(
        'FS_NOT_FOUND',
        `expected a set of the last 5 minutes, found "${setId}": do the dry run again`,
      );
    }
    return set;
  }

  /** What another engine froze. */
  async #elsewhere(setId: string): Promise<KeptSet | null> {
    const kept = ((await this.#shared?.getSetting(placeOf(setId))) ?? null) as unknown as
      | ({ setId: string } & PackedSet)
      | null;
    return kept === null || kept.setId !== setId || this.#isOld(kept) ? null : unpacked(kept);
  }

  #isOld({ frozenAtMs }: Pick<FrozenSet, 'frozenAtMs'>): boolean {
    return frozenAtMs + KEPT_MS <= this.#clock.nowMs();
  }

  #dropOld(): void {
    for (const [setId, set] of this.#sets) {
      if (this.#sets.size < SETS_MAX && !this.#isOld(set)) return;
      this.#sets.delete(setId);
    }
  }
}

/** The last digits of an id are random. */
function placeOf(setId: string): string {
  return `frozenSet:${setId.slice(-2).toLowerCase()}`;
}

/** Members by project: a name is written once. */
interface PackedSet {
  members: Record<string, string[]>;
  filter: ExecutionFilter;
  /** Of none, there is no key: JSON knows no undefined. */
  project?: string | null;
  frozenAtMs: number;
  keyId: string;
}

function packed({ members, project, ...rest }: KeptSet): PackedSet {
  const byProject: Record<string, string[]> = {};
  for (const { id, project: its } of members) {
    byProject[its] ??= [];
    byProject[its].push(id);
  }
  return { ...rest, members: byProject, ...(project === undefined ? {} : { project }) };
}

function unpacked({ members, ...rest }: PackedSet): KeptSet {
  const { filter, project, frozenAtMs, keyId } = rest;
  const all = Object.entries(members).flatMap(([its, ids]) => ids.map((id) => ({ id, project: its })));
  return { members: all, filter, project, frozenAtMs, keyId };
}
