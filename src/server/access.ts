/** Who is asking, and what they may do: keys, roles, projects, and the browser's session. */
import { hash, randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { Role } from '../wire.ts';

export interface Caller {
  keyId: string;
  name: string;
  role: Role;
  /** null: all projects. */
  project: string | null;
  /** Of a worker: what it may offer. null: everything. */
  capabilities?: readonly string[] | null;
  /** Of an agent. */
  pool?: string | null;
}

/**
 * What a verb asks of its caller (docs/api.md, who may do what): `open` nothing, `see` any person's key,
 * `operate` an operator's, `administer` an admin's, `administerAll` an admin's of all projects.
 */
export type Level = 'open' | 'see' | 'operate' | 'administer' | 'administerAll';

const RANKS = { worker: 0, agent: 0, viewer: 1, operator: 2, admin: 3 } as const satisfies Record<Role, number>;
const DEMANDS = { open: 0, see: 1, operate: 2, administer: 3, administerAll: 3 } as const satisfies Record<
  Level,
  number
>;

export function allows(caller: Caller | null, level: Level): boolean {
  if (level === 'open') return true;
  if (caller === null || RANKS[caller.role] < DEMANDS[level]) return false;
  return level !== 'administerAll' || caller.project === null;
}

/** The rule that lets one read is the rule that lets one stop. */
export function maySee(caller: Caller, project: string): boolean {
  return caller.project === null || caller.project === project;
}

/** The first answer to anything the caller may not see, or that is not there: the two cannot be told apart. */
export function notFound(noun: string, name: string): FullstopError {
  return new FullstopError('FS_NOT_FOUND', `expected a known ${noun}, found "${name}": list those this key may see`);
}

export function hashKey(key: string): string {
  return hash('sha256', key, 'hex');
}

/** 256 random bits, recognisable as a key of this program. */
export function newKey(): string {
  return `fs_${randomBytes(32).toString('base64url')}`;
}

const SESSION_COOKIE = 'fullstop_session';
const SESSION_MS = 24 * 3_600_000;
const CACHE_MS = 10_000;
const CACHE_MAX = 1_000;
const KEY_CHARS_MAX = 512;

export class Access {
  readonly #store: ExecutionStore;
  readonly #clock: Clock;
  readonly #adminKeyHash: string;
  /** By hash of the key; only keys that exist. */
  readonly #known = new Map<string, { caller: Caller; untilMs: number }>();
  /** By hash of the cookie's value: until when. */
  readonly #sessions = new Map<string, number>();
  /** Hashes of first-visit tokens nobody has used. */
  readonly #firstVisits = new Set<string>();
  /** Counts deletions, so that a look-up that began before one is not cached after it. */
  #deletions = 0;

  constructor(store: ExecutionStore, clock: Clock, adminKeyHash: string) {
    this.#store = store;
    this.#clock = clock;
    this.#adminKeyHash = adminKeyHash;
  }

  /** Whose key this is; null when it is nobody's. Answers at once for a key seen lately. */
  byKey(key: string): Caller | null | Promise<Caller | null> {
    if (key.length === 0 || key.length > KEY_CHARS_MAX) return null;
    const keyHash = hashKey(key);
    if (keyHash === this.#adminKeyHash) return FIRST_ADMIN;
    const known = this.#known.get(keyHash);
    return known !== undefined && known.untilMs > this.#clock.nowMs() ? known.caller : this.#look(keyHash);
  }

  /** The caller of `Authorization: Bearer KEY`; null for any other header. */
  byHeader(header: string): Caller | null | Promise<Caller | null> {
    return /^bearer /i.test(header) ? this.byKey(header.slice('bearer '.length).trim()) : null;
  }

  /** The caller of a browser that came by the first-visit link. */
  bySession({ cookie, host }: IncomingHttpHeaders): Caller | null {
    if (cookie === undefined) return null;
    const name = `${sessionCookie(host)}=`;
    const found = cookie.split(';').find((pair) => pair.trimStart().startsWith(name));
    if (found === undefined) return null;
    const value = found.trim().slice(name.length);
    return (this.#sessions.get(hashKey(value)) ?? 0) > this.#clock.nowMs() ? FIRST_ADMIN : null;
  }

  /** A path that opens a session for whoever visits it first. */
  createFirstVisit(): string {
    const token = randomBytes(32).toString('base64url');
    this.#firstVisits.add(hashKey(token));
    return `/first-visit?token=${token}`;
  }

  /** The `Set-Cookie` of a new session; null when the token was used before or never was one. */
  redeemFirstVisit(token: string, host: string | undefined): string | null {
    if (!this.#firstVisits.delete(hashKey(token))) return null;
    const value = randomBytes(32).toString('base64url');
    this.#sessions.set(hashKey(value), this.#clock.nowMs() + SESSION_MS);
    return `${sessionCookie(host)}=${value}; Path=/; HttpOnly; SameSite=Strict`;
  }

  /** A deleted key is nobody's from now on. */
  forget(keyId: string): void {
    this.#deletions += 1;
    for (const [keyHash, { caller }] of this.#known) if (caller.keyId === keyId) this.#known.delete(keyHash);
  }

  async #look(keyHash: string): Promise<Caller | null> {
    const deletions = this.#deletions;
    const row = await this.#store.findKey(keyHash);
    if (row === null || deletions !== this.#deletions) {
      this.#known.delete(keyHash);
      return row === null ? null : this.#look(keyHash);
    }
    const { id: keyId, name, role, project, capabilities, pool } = row;
    const caller: Caller = { keyId, name, role, project, capabilities, pool };
    if (this.#known.size >= CACHE_MAX) this.#known.clear();
    this.#known.set(keyHash, { caller, untilMs: this.#clock.nowMs() + CACHE_MS });
    return caller;
  }
}

/** Cookies do not tell ports apart: engines of one machine would take each other's session away. */
function sessionCookie(host: string | undefined): string {
  const port = /:(\d+)$/.exec(host ?? '')?.[1];
  return port === undefined ? SESSION_COOKIE : `${SESSION_COOKIE}_${port}`;
}

/** Its key is in no store, and is never deleted. */
export function isFirstAdmin({ keyId }: Pick<Caller, 'keyId'>): boolean {
  return keyId === FIRST_ADMIN.keyId;
}

/** The key the server was started with. */
const FIRST_ADMIN: Caller = { keyId: 'admin', name: 'first admin key', role: 'admin', project: null };
