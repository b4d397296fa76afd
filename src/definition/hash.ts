import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import type { Json } from '../wire.ts';

/**
 * SHA-256, in hex, of the canonical JSON: equal for files that differ in layout, order of keys or format.
 * @see RFC 8785
 */
export function hashDefinition(source: Json): string {
  return createHash('sha256')
    .update(canonicalize(source) as string)
    .digest('hex');
}
