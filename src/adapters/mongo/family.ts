import type { ClientSession, Collection } from 'mongodb';
import type { ExecutionDocument } from './documents.ts';

export type Member = Pick<ExecutionDocument, '_id' | 'status' | 'stop' | 'project' | 'uniqueKey'>;

/** The descendants of an execution: its children, then theirs, and so on. */
export async function descendantsOf(
  executions: Collection<ExecutionDocument>,
  id: string,
  session?: ClientSession,
): Promise<Member[][]> {
  const projection = { status: 1, stop: 1, project: 1, uniqueKey: 1 };
  const options = session === undefined ? { projection } : { projection, session };
  const generations: Member[][] = [];
  for (let level = [id]; level.length > 0; ) {
    const children = await executions.find<Member>({ parent: { $in: level } }, options).toArray();
    if (children.length > 0) generations.push(children);
    level = children.map(({ _id }) => _id);
  }
  return generations;
}
