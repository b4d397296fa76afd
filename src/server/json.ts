import { FullstopError } from '../errors.ts';

/** Nesting of arrays and objects in what a caller sends: deep enough for any workflow file. */
const DEPTH_MAX = 64;
const REFUSED_KEYS: ReadonlySet<string> = new Set(['__proto__', 'constructor']);

/**
 * Refuses what a caller may not send: values that are no JSON (binary attachments), too deep nesting, and
 * keys that reach an object's prototype.
 *
 * @throws FS_INVALID
 */
export function assertPlainJson(value: unknown, depth = 0, refused = REFUSED_KEYS): void {
  if (typeof value !== 'object' || value === null) return;
  if (depth === DEPTH_MAX) {
    throw new FullstopError('FS_INVALID', `expected at most ${DEPTH_MAX} levels of nesting, found more`);
  }
  if (Array.isArray(value)) {
    for (const item of value) assertPlainJson(item, depth + 1, refused);
    return;
  }
  if (Object.getPrototypeOf(value) !== Object.prototype) {
    throw new FullstopError('FS_INVALID', 'expected JSON, found a binary value');
  }
  for (const key of Object.keys(value)) {
    refuseKey(key, refused);
    assertPlainJson((value as Record<string, unknown>)[key], depth + 1, refused);
  }
}

/** @throws FS_INVALID for a key that would reach an object's prototype. */
export function refuseKey(key: string, refused = REFUSED_KEYS): void {
  if (refused.has(key)) throw new FullstopError('FS_INVALID', `expected no key "${key}": rename it`);
}
