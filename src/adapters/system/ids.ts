import { createHash, randomBytes, randomFillSync } from 'node:crypto';
import type { Ids, Random, Tokens } from '../../ports/ids.ts';

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
const pool = new Uint8Array(8192);
let used = pool.length;
let lastMs = 0;
/** 32 bits that count up within a millisecond (RFC 9562, section 6.2, method 1). */
let counter = 0;

/**
 * UUIDs version 7, strictly increasing within this process, also when the clock stands still or goes back.
 *
 * Random bytes are drawn from the system in blocks: an id costs a tenth of what the `uuid` package's costs,
 * and the engine makes one per execution, stop and trigger.
 */
export const systemIds: Ids = {
  next() {
    const nowMs = Date.now();
    if (nowMs > lastMs) {
      lastMs = nowMs;
      counter = ((take() & 0x7f) * 2 ** 24 + take() * 2 ** 16 + take() * 2 ** 8 + take()) >>> 0;
    } else if (++counter > 0xffff_ffff) {
      counter = 0;
      lastMs += 1;
    }
    const high = Math.floor(lastMs / 2 ** 16);
    return (
      `${byteHex(high >>> 24)}${byteHex(high >>> 16)}${byteHex(high >>> 8)}${byteHex(high)}-` +
      `${byteHex(lastMs >>> 8)}${byteHex(lastMs)}-` +
      // Version, then the counter's top 12 bits; variant, then 14 more; its last 6 lead the random bytes.
      `7${hex[counter >>> 24]}${hex[(counter >>> 16) & 0xff]?.charAt(0)}-` +
      `${hex[0x80 | ((counter >>> 14) & 0x3f)]}${hex[(counter >>> 6) & 0xff]}-` +
      `${hex[((counter & 0x3f) << 2) | (take() & 0x03)]}` +
      `${hex[take()]}${hex[take()]}${hex[take()]}${hex[take()]}${hex[take()]}`
    );
  },
};

export const systemTokens: Tokens = {
  make: () => randomBytes(24).toString('base64url'),
  hash: (token) => createHash('sha256').update(token).digest('hex'),
};

/** Uniform in [0, 1): spreads backoffs, decides nothing that must be secret. */
export const systemRandom: Random = { next: Math.random };

function byteHex(value: number): string {
  return hex[value & 0xff] as string;
}

function take(): number {
  if (used === pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  return pool[used++] as number;
}
