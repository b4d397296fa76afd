import { FullstopError } from '../../errors.ts';

/** Long expressions are cut in messages: they are stored with the node. */
const sourceShown = 200;

/** An evaluation that failed: `expression "input.x": No such key: x`. */
export function expressionError(source: string, message: string, cause?: unknown): FullstopError {
  const shown = source.length > sourceShown ? `${source.slice(0, sourceShown)}…` : source;
  return new FullstopError('FS_EXPRESSION', `expression "${shown}": ${message}`, cause === undefined ? {} : { cause });
}
