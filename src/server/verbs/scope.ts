/** What of the stored things a caller sees. */
import { FullstopError } from '../../errors.ts';
import type { HeaderRow } from '../../ports/store.ts';
import { type Caller, maySee, notFound } from '../access.ts';
import type { Context } from './verb.ts';

export const DEFAULT_PROJECT = 'default';

/** The execution, when the caller may see it. @throws FS_NOT_FOUND the same way when it is not there. */
export async function seenExecution(context: Context, caller: Caller, id: string): Promise<HeaderRow> {
  const header = await context.store.getHeader(id);
  if (header === null || !maySee(caller, header.project)) throw notFound('execution', id);
  return header;
}

/** Whether its actors are in this engine, or nowhere any more. */
export function isHere({ store, engine }: Context, { owner, endedAtMs }: HeaderRow): boolean {
  return store.cluster === null || endedAtMs !== null || owner.engine === engine.id;
}

/** The one project a verb works in; `name` is what it looks for there. @throws FS_NOT_FOUND */
export function oneProject(caller: Caller, asked: string | undefined, noun: string, name: string): string {
  if (asked !== undefined && !maySee(caller, asked)) throw notFound(noun, name);
  return asked ?? caller.project ?? DEFAULT_PROJECT;
}

/** The projects a list is of: null all, undefined none that the caller may see. */
export function listedProject(caller: Caller, asked: string | undefined): string | null | undefined {
  if (asked === undefined) return caller.project;
  return maySee(caller, asked) ? asked : undefined;
}

export function invalid(message: string): FullstopError {
  return new FullstopError('FS_INVALID', message);
}
