/** How actors are named in the address and on the page. */

/**
 * As the address names an actor: `engine`, `execution`, `node:poll/check`.
 *
 * A node of a loop's body has an actor in each iteration: its name means the last of them.
 */
export function nameOf(actorId: string): string {
  const place = placeOf(actorId);
  if (place !== null) return `node:${place.path}`;
  return actorId.startsWith('execution:') ? 'execution' : actorId;
}

export interface NodePlace {
  path: string;
  /** Indexes of the loops around it, outermost first. */
  iterations: number[];
}

/** Of a node's actor, whose id is `node:EXECUTION/PATH/ITERATIONS`; null for others. */
export function placeOf(actorId: string): NodePlace | null {
  if (!actorId.startsWith('node:')) return null;
  const from = actorId.indexOf('/') + 1;
  const to = actorId.lastIndexOf('/');
  const iterations = actorId.slice(to + 1);
  return {
    path: actorId.slice(from, to),
    iterations: iterations === '-' ? [] : iterations.split(',').map((part) => Number.parseInt(part, 10)),
  };
}

export function titleOf(actorId: string): string {
  const place = placeOf(actorId);
  if (place === null) return nameOf(actorId);
  return place.iterations.length === 0 ? place.path : `${place.path}[${place.iterations.join(',')}]`;
}

/** Of one attempt of a node. */
export const taskName = (node: string, attempt: number): string => `task:${node}/${attempt}`;
