import type { LoopPlace } from '../ports/store.ts';

/**
 * Identities of nodes and attempts, as tasks, results, labels and tokens carry them.
 *
 * `ID/poll/check/3@1/2`: execution, path, iterations (INDEX@ATTEMPT of each loop, outermost first, joined
 * by commas; `-` for none), attempt.
 */

/** A node within its execution: `poll/check/3@1`. */
export function nodeKey(path: string, iterations: readonly string[]): string {
  return iterations.length === 0 ? `${path}/-` : `${path}/${iterations.join(',')}`;
}

export function attemptId(executionId: string, key: string, attempt: number): string {
  return `${executionId}/${key}/${attempt}`;
}

/** Without the attempts of loops that are at their first. */
export function loopPlaces(iterations: readonly string[]): LoopPlace[] {
  return iterations.map((place) => (place.endsWith('@1') ? Number.parseInt(place, 10) : place));
}

/** The indexes alone, as records and events give them. */
export function iterationIndexes(iterations: readonly string[]): number[] {
  return iterations.map((iteration) => Number.parseInt(iteration, 10));
}
