import type { Logger } from 'pino';
import { messageOf } from '../errors.ts';
import type { ExecutionStore } from '../ports/store.ts';
import { isFirstAdmin } from './access.ts';

/** Between two looks at whether the keys of connected clients are still there. */
const LOOK_MS = 10_000;

export interface KeyWatchOptions {
  store: Pick<ExecutionStore, 'listKeys'>;
  logger: Logger;
  /** Ids of keys that connected clients came with. */
  inUse(): string[];
  forget(keyId: string): void;
}

/**
 * Finds keys that another engine deleted and whose hint was lost: a client that only listens asks for nothing, and
 * would hear on.
 */
export function watchKeys({ store, logger, inUse, forget }: KeyWatchOptions): { close(): void } {
  let looking = false;
  const look = async (): Promise<void> => {
    const used = inUse().filter((keyId) => !isFirstAdmin({ keyId }));
    if (looking || used.length === 0) return;
    looking = true;
    try {
      const known = new Set((await store.listKeys(null)).map(({ id }) => id));
      for (const keyId of used) if (!known.has(keyId)) forget(keyId);
    } catch (error) {
      logger.debug({ error: messageOf(error) }, 'keys were not looked at');
    } finally {
      looking = false;
    }
  };
  const timer = setInterval(() => void look(), LOOK_MS).unref();
  return { close: () => clearInterval(timer) };
}
