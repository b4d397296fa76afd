/** What lets a viewer in that sends no headers: a token in the path, for one execution and one hour. */
import { randomBytes } from 'node:crypto';
import { FullstopError } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Inspection } from '../wire.ts';
import { type Caller, hashKey } from './access.ts';

export const INSPECT_PATH = '/inspect/';
const LIFETIME_MS = 3_600_000;
/** Tokens of one key that are good at once. */
const TOKENS_MAX = 1_000;

export interface Pass {
  /** Whose key made it: a stop by it is theirs. */
  caller: Caller;
  executionId: string;
  untilMs: number;
}

export class InspectionTokens {
  readonly #clock: Clock;
  readonly #enabled: boolean;
  /** By hash of the token, oldest first. */
  readonly #passes = new Map<string, Pass>();
  /** Messages of viewers that were not taken. */
  refused = 0;

  constructor(clock: Clock, enabled: boolean) {
    this.#clock = clock;
    this.#enabled = enabled;
  }

  /** @throws FS_DISABLED when inspection is off; FS_RATE */
  create(caller: Caller, executionId: string): Inspection {
    if (!this.#enabled) {
      throw new FullstopError('FS_DISABLED', 'expected inspection to be on, found FULLSTOP_INSPECT=0: set it to 1');
    }
    const nowMs = this.#clock.nowMs();
    let own = 0;
    for (const [tokenHash, pass] of this.#passes) {
      if (pass.untilMs <= nowMs) this.#passes.delete(tokenHash);
      else if (pass.caller.keyId === caller.keyId) own += 1;
    }
    if (own >= TOKENS_MAX) {
      throw new FullstopError(
        'FS_RATE',
        `expected at most ${TOKENS_MAX} inspections of a key at once: use an earlier one`,
      );
    }
    const token = randomBytes(32).toString('base64url');
    const untilMs = nowMs + LIFETIME_MS;
    this.#passes.set(hashKey(token), { caller, executionId, untilMs });
    return { path: INSPECT_PATH + token, expiresAt: new Date(untilMs).toISOString() };
  }

  /** What a token is good for; null: nothing, or no longer. */
  find(token: string): Pass | null {
    const pass = this.#passes.get(hashKey(token));
    return pass !== undefined && this.isGood(pass) ? pass : null;
  }

  isGood(pass: Pass): boolean {
    return this.#enabled && pass.untilMs > this.#clock.nowMs();
  }

  /** The tokens of a deleted key go with it. */
  forget(keyId: string): void {
    for (const [tokenHash, pass] of this.#passes) {
      if (pass.caller.keyId !== keyId) continue;
      pass.untilMs = 0;
      this.#passes.delete(tokenHash);
    }
  }
}
