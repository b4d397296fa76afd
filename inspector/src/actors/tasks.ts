/** Tasks are no actors of the engine: the events of the record say what became of each. */
import type { ExecutionEvent } from '../../../src/client/index.ts';
import { place } from '../format.ts';
import type { Look } from '../ui.tsx';

export interface Task {
  /** Of its node, as `poll/check[3]`. */
  node: string;
  attempt: number;
  state: 'handed over' | 'claimed' | 'aborting' | 'aborted' | 'completed' | 'failed';
  /** What has it; null: not known, or nobody yet. */
  worker: string | null;
  /** What became of an abort. */
  outcome: string | null;
  events: { at: string; type: string }[];
}

export const taskLook: Record<Task['state'], Look> = {
  'handed over': 'Running',
  claimed: 'Running',
  aborting: 'Stopping',
  aborted: 'Stopped',
  completed: 'Complete',
  failed: 'Failed',
};

const ENDS: Record<string, Task['state']> = {
  'node.completed': 'completed',
  'node.failed': 'failed',
  'node.retrying': 'failed',
};

const hasEnded = ({ state }: Task): boolean => state === 'completed' || state === 'failed' || state === 'aborted';

/** The tasks of each node, first attempt first, as they were at a time. */
export function tasksAt(events: readonly ExecutionEvent[], atMs: number): ReadonlyMap<string, Task[]> {
  const tasks = new Map<string, Task[]>();
  for (const { type, node: path, iterations, attempt = 1, at, data } of events) {
    if (path === undefined || (!type.startsWith('task.') && ENDS[type] === undefined)) continue;
    if (Date.parse(at) > atMs) continue;
    const node = place({ node: path, ...(iterations === undefined ? {} : { iterations }) });
    const list = tasks.get(node) ?? [];
    let task = list.find((one) => one.attempt === attempt);
    if (task === undefined) {
      if (!type.startsWith('task.')) continue;
      task = { node, attempt, state: 'handed over', worker: null, outcome: null, events: [] };
      list.push(task);
      tasks.set(node, list);
    }
    task.events.push({ at, type });
    const more = data as { worker?: string; outcome?: string } | undefined;
    if (type === 'task.claimed') {
      task.state = 'claimed';
      task.worker = more?.worker ?? null;
    } else if (type === 'task.aborting') task.state = 'aborting';
    else if (type === 'task.aborted') {
      task.state = 'aborted';
      task.outcome = more?.outcome ?? null;
    } else {
      const end = ENDS[type];
      if (end !== undefined && !hasEnded(task)) task.state = end;
    }
  }
  return tasks;
}
