/** Reads the records, events and outputs of every node back and checks them: no figure without its proof. */
import { isDeepStrictEqual } from 'node:util';
import type { ExecutionEvent, Json } from '../src/wire.ts';
import { type BenchClient, forAll } from './client.ts';
import type { Check } from './figure.ts';
import type { Shape } from './workflows.ts';

/** Every execution Complete, each node once and after what it needs, its output as the shape says, or as `nameIn` finds it there. */
export async function readBack(
  client: BenchClient,
  ids: readonly string[],
  shape: Shape,
  check: Check,
  nameIn: (output: Json | undefined) => unknown = (output) => output,
): Promise<void> {
  check(new Set(ids).size === ids.length, 'an execution was announced twice');
  await forAll(ids, async (id) => {
    const [record, events, results] = await Promise.all([client.record(id), client.events(id), client.results(id)]);
    check(record.status === 'Complete', `${id} is ${record.status}: ${record.error}`);
    check(record.seq === events.length, `${id} has ${events.length} events, its record says ${record.seq}`);
    checkNodes(id, events, shape.needs, check);
    for (const node of shape.needs.keys()) {
      const { status, attempt, hasOutput } = record.nodes[node] ?? {};
      check(
        status === 'Complete' && attempt === 1 && hasOutput === true,
        `${id}/${node} is ${status}, attempt ${attempt}`,
      );
      const output = nameIn(results.nodes[node]?.output);
      check(isDeepStrictEqual(output, shape.output ?? node), `${id}/${node} has another output`);
    }
  });
}

/** Numbers without a gap; each node started and completed once, and started after all it needs had completed. */
export function checkNodes(
  id: string,
  events: readonly ExecutionEvent[],
  needs: ReadonlyMap<string, string[]>,
  check: Check,
): void {
  const started = new Set<string>();
  const completed = new Set<string>();
  for (const [index, { seq, type, node = '' }] of events.entries()) {
    check(seq === index + 1, `${id} has event ${seq} in the place of ${index + 1}`);
    if (type === 'node.started') {
      check(!started.has(node), `${id}/${node} started twice`);
      check(
        needs.get(node)?.every((needed) => completed.has(needed)) === true,
        `${id}/${node} started before its needs`,
      );
      started.add(node);
    } else if (type === 'node.completed') {
      check(started.has(node) && !completed.has(node), `${id}/${node} completed twice or before its start`);
      completed.add(node);
    }
  }
  check(completed.size === needs.size, `${id} completed ${completed.size} of ${needs.size} nodes`);
  check(events.at(-1)?.type === 'execution.completed', `${id} ends with ${events.at(-1)?.type}`);
}
