import type { TaskLog } from './executor.ts';
import { workerProtocol } from './protocol.ts';

export interface LimitedLog {
  write: TaskLog;
  /** The task has ended: what was held back goes out. */
  end(): void;
}

/**
 * Cuts what one attempt prints to the record's limits.
 *
 * The last message that is allowed is held back until it is known whether more would follow: then it is marked.
 */
export function limitLog(sink: TaskLog, limits: { logCharsMax: number; logsMax: number } = workerProtocol): LimitedLog {
  let left = limits.logsMax;
  let last: [stream: 'stdout' | 'stderr', text: string] | null = null;
  let over = false;

  return {
    write(stream, text) {
      for (let at = 0; at < text.length && !over; ) {
        const end = endOfPiece(text, at, limits.logCharsMax);
        if (last !== null) {
          over = true;
          sink(...last, true);
        } else if (left === 1) {
          last = [stream, text.slice(at, end)];
        } else {
          left -= 1;
          sink(stream, text.slice(at, end), false);
        }
        at = end;
      }
    },
    end() {
      if (last !== null && !over) sink(...last, false);
      over = true;
    },
  };
}

/** Where a piece that begins at `at` ends: never inside a surrogate pair. */
function endOfPiece(text: string, at: number, charsMax: number): number {
  const end = Math.min(at + charsMax, text.length);
  const cutsPair = end < text.length && /[\uD800-\uDBFF]/.test(text.charAt(end - 1));
  return cutsPair && end - at > 1 ? end - 1 : end;
}
