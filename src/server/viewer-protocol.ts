/** What differs between the two protocols that Stately viewers speak. */
import type { z } from 'zod';
import { executionActorId, type Inspected } from '../engine/inspection.ts';

export interface ViewerProtocol {
  /** Of its addresses, before the token. */
  readonly path: string;
  /** What a viewer is sent of it, in order. */
  framesOf(executionId: string, inspected: Inspected): string[];
  /** What a viewer said; null: nothing that is taken. */
  heard(executionId: string, text: string): 'greeting' | 'stop' | null;
}

/** The one event that is taken from a viewer, to the actor of its very execution, and bare: a stop takes no reason. */
export const STOP_EVENT = 'execution.stop';

/** `text` as JSON of that shape; null when it is not. */
export function parseAs<T>(schema: z.ZodType<T>, text: string): T | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  return schema.safeParse(value).data ?? null;
}

/** Whether those of `names` that are there, one at least, are the actor of this execution. */
export function areExecution(executionId: string, names: readonly (string | null | undefined)[]): boolean {
  const given = names.filter((name) => name != null);
  return given.length > 0 && given.every((name) => name === executionActorId(executionId));
}
