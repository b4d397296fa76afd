/** Values that are there already or come later: no promise is made where none is needed. */

/** Puts a value where it belongs: at once, or when its promise has it. */
export function put<T>(value: T | Promise<T>, waits: Promise<void>[], take: (value: T) => void): void {
  if (value instanceof Promise) waits.push(value.then(take));
  else take(value);
}

/** Continues with a value that may be a promise, without making one where it is none. */
export function chain<T, R>(value: T | Promise<T>, next: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

export function settle<T>(value: T | Promise<T>, done: (value: T) => void, failed: (error: unknown) => void): void {
  if (value instanceof Promise) value.then(done, failed);
  else done(value);
}
