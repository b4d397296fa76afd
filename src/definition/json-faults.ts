import { depthMax, sizeMaxBytes } from './limits.ts';
import { forbiddenKeys, type PathKey } from './names.ts';

/**
 * Why a value is no JSON value that a definition may be: for values that did not come as text.
 *
 * Stops at the first fault of depth or size, since there may be no end of them.
 */
export function valueFaults(value: unknown): { path: PathKey[]; message: string }[] {
  const faults: { path: PathKey[]; message: string }[] = [];
  let size = 0;
  const visit = (item: unknown, path: PathKey[]): boolean => {
    size += typeof item === 'string' ? item.length + 2 : 2;
    if (size > sizeMaxBytes) return stop(path, 'a workflow has at most 1 MiB');
    if (path.length > depthMax) return stop(path.slice(0, 8), `lists and objects nest more than ${depthMax} deep`);
    if (item === null || typeof item === 'boolean') return true;
    if (typeof item === 'string') return item.isWellFormed() || note(path, 'the text has half a surrogate pair');
    if (typeof item === 'number') return Number.isFinite(item) || note(path, `${item} is not a JSON value`);
    if (Array.isArray(item)) return item.every((element, index) => visit(element, [...path, index]));
    const prototype: unknown = typeof item === 'object' ? Object.getPrototypeOf(item) : undefined;
    if (prototype !== Object.prototype && prototype !== null) return note(path, `a ${typeof item} is not a JSON value`);
    return Object.entries(item as object).every(([key, element]) => {
      size += key.length;
      if (forbiddenKeys.has(key)) return note([...path, key], `the key "${key}" is reserved`);
      return visit(element, [...path, key]);
    });
  };
  const note = (path: PathKey[], message: string): true => {
    faults.push({ path, message });
    return true;
  };
  const stop = (path: PathKey[], message: string): false => {
    faults.push({ path, message });
    return false;
  };
  visit(value, []);
  return faults;
}
