/** Cuts a failing plan down: as long as it fails in the same way, whatever it does not need goes. */
import { copy } from './database.ts';
import type { Plan } from './plan.ts';
import { runPlan } from './world.ts';

/** Runs spent on one plan. */
const TRIES_MAX = 400;

/** What a fault is about, without the names in it. */
export function kindOf(fault: string): string {
  return fault
    .replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, 'ID')
    .replace(/\d+/g, 'N')
    .replace(/[\s:({].*$/, '')
    .concat(/\((I\d+)\)$/.exec(fault)?.[1] ?? '', ` ${sentenceOf(fault)}`);
}

/** The first words that say what is wrong. */
function sentenceOf(fault: string): string {
  return fault
    .replace(/[0-9a-f]{8}-[0-9a-f-]{27}\S*/g, 'ID')
    .replace(/ \((one|two|leaf)\)/g, '')
    .replace(/\{.*$/s, '')
    .replace(/\S*\d\S*/g, 'N')
    .slice(0, 60);
}

export async function shrink(plan: Plan, fault: string): Promise<Plan> {
  const wanted = kindOf(fault);
  let tries = 0;
  const fails = async (candidate: Plan): Promise<boolean> => {
    if (tries >= TRIES_MAX) return false;
    tries += 1;
    try {
      const { faults } = await runPlan(candidate);
      return faults.some((found) => kindOf(found) === wanted);
    } catch {
      // A cut that leaves no valid workflow.
      return false;
    }
  };
  let best = plan;
  for (let changed = true; changed && tries < TRIES_MAX; ) {
    changed = false;
    for (const smaller of cuts(best)) {
      if (!(await fails(smaller))) continue;
      best = smaller;
      changed = true;
      break;
    }
  }
  return best;
}

/** Plans with one thing less, the largest cuts first. */
function* cuts(plan: Plan): Generator<Plan> {
  if (plan.faults.length > 1) yield { ...plan, faults: [] };
  for (let index = 0; index < plan.faults.length; index += 1)
    yield { ...plan, faults: plan.faults.filter((_, other) => other !== index) };
  for (let index = plan.load.length - 1; index >= 0; index -= 1) {
    const item = plan.load[index];
    // Others name a start by its position: it is replaced by one that does nothing.
    if (item === undefined || (item.kind === 'read' && item.what === 'list')) continue;
    const nothing = { atMs: item.atMs, client: 0, kind: 'read', start: 0, what: 'list' } as const;
    const load = [...plan.load];
    if (index === plan.load.length - 1) load.pop();
    else load[index] = nothing;
    yield { ...plan, load };
  }
  for (const [index, workflow] of plan.workflows.entries()) {
    for (const smaller of smallerNodes(workflow)) {
      yield { ...plan, workflows: plan.workflows.map((other, at) => (at === index ? smaller : other)) };
    }
  }
}

/** The workflow with one node, or one key of a node, less; in bodies too. */
function* smallerNodes(workflow: Record<string, unknown>): Generator<Record<string, unknown>> {
  for (const key of ['failFast', 'timeout', 'concurrency', 'onFailure'])
    if (key in workflow) yield without(workflow, key);
  const change = function* (
    nodes: Record<string, Record<string, unknown>>,
  ): Generator<Record<string, Record<string, unknown>>> {
    const names = Object.keys(nodes);
    for (const name of names) {
      if (names.length > 1) {
        const left = copy(without(nodes, name)) as Record<string, Record<string, unknown>>;
        for (const other of Object.values(left)) {
          if (!Array.isArray(other['needs'])) continue;
          other['needs'] = other['needs'].filter((need) => need !== name);
          if ((other['needs'] as unknown[]).length === 0) delete other['needs'];
        }
        yield left;
      }
      const node = nodes[name] as Record<string, unknown>;
      for (const key of ['if', 'timeout', 'queueTimeout', 'retry', 'rerun', 'continueOnError', 'needs'])
        if (key in node) yield { ...nodes, [name]: without(node, key) };
      const body = node['body'] as Record<string, Record<string, unknown>> | undefined;
      if (body !== undefined)
        for (const smaller of change(body)) yield { ...nodes, [name]: { ...node, body: smaller } };
    }
  };
  for (const nodes of change(workflow['nodes'] as Record<string, Record<string, unknown>>))
    yield { ...workflow, nodes };
}

function without<T extends object>(of: T, key: string): T {
  const { [key as keyof T]: _, ...left } = of;
  return left as T;
}
