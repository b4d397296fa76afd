import type { Logger } from 'pino';
import { messageOf } from '../errors.ts';
import type { Clock } from '../ports/clock.ts';
import type { Ids } from '../ports/ids.ts';
import type { ExecutionStore } from '../ports/store.ts';
import type { AuditItem, Json } from '../wire.ts';
import type { Caller } from './access.ts';

export interface AuditedAct {
  caller: Caller;
  verb: string;
  project: string | null;
  target: string | null;
  outcome: string | null;
  data?: Json;
}

/** Who asked for what, and what came of it. */
export class Audit {
  readonly #store: ExecutionStore;
  readonly #clock: Clock;
  readonly #ids: Ids;
  readonly #logger: Logger;
  readonly #completing = new Set<Promise<void>>();

  constructor(store: ExecutionStore, clock: Clock, ids: Ids, logger: Logger) {
    this.#store = store;
    this.#clock = clock;
    this.#ids = ids;
    this.#logger = logger;
  }

  /** Resolves to the entry's id when it is durable. */
  async append(act: AuditedAct): Promise<string> {
    const { caller, ...rest } = act;
    const entry: AuditItem = {
      id: this.#ids.next(),
      at: new Date(this.#clock.nowMs()).toISOString(),
      actor: { keyId: caller.keyId, name: caller.name, role: caller.role },
      ...rest,
    };
    await this.#store.appendAudit(entry);
    return entry.id;
  }

  /** Adds what came of it, in the background: the act itself is on record already. */
  complete(id: string, outcome: string): void {
    const completing = this.#store
      .completeAudit(id, outcome)
      .catch((error: unknown) =>
        this.#logger.error({ audit: id, outcome, error: messageOf(error) }, 'audit outcome not stored'),
      )
      .finally(() => this.#completing.delete(completing));
    this.#completing.add(completing);
  }

  /** One verb's act, its entry not written yet. */
  act(act: AuditedAct): Act {
    return new Act(this, act);
  }

  /** Resolves when no outcome waits to be stored. */
  async settled(): Promise<void> {
    await Promise.all(this.#completing);
  }
}

/**
 * What a verb does for one caller. A verb whose entry has to be durable before its effect begins it; for the
 * others the entry follows the effect, when its target has an id.
 */
export class Act {
  readonly #audit: Audit;
  readonly #act: AuditedAct;
  #entry: string | null = null;

  constructor(audit: Audit, act: AuditedAct) {
    this.#audit = audit;
    this.#act = act;
  }

  get begun(): boolean {
    return this.#entry !== null;
  }

  /** Says more about what is done, in time for the entry. */
  about(more: Partial<Pick<AuditedAct, 'project' | 'target' | 'data'>>): void {
    Object.assign(this.#act, more);
  }

  /** Resolves when the entry is durable, its outcome still open. */
  async begin(more: Partial<Pick<AuditedAct, 'project' | 'target' | 'data'>> = {}): Promise<void> {
    this.about(more);
    this.#entry = await this.#audit.append(this.#act);
  }

  /** Resolves when the entry is durable; an outcome added to one that was begun follows in the background. */
  async end(outcome: string): Promise<void> {
    if (this.#entry !== null) this.#audit.complete(this.#entry, outcome);
    else await this.#audit.append({ ...this.#act, outcome });
  }
}
