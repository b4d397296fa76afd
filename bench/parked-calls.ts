/** Executions that wait in an `http` call until they are stopped. */
import { type BenchClient, type Definition, forAll } from './client.ts';
import type { Check } from './figure.ts';

const MARKER = 'workflow stopped by user';

/** The path of its call says which execution it is. */
export function parkedWorkflow(name: string, host: string): Definition {
  return {
    name,
    nodes: {
      call: { type: 'http', with: { url: `http://${host}/\${{ execution.id }}` } },
      after: { type: 'set', needs: ['call'], with: { value: 1 } },
    },
  };
}

/** Failed with the marker, the call aborted, what it was needed for never started. */
export async function checkStopped(check: Check, client: BenchClient, ids: readonly string[]): Promise<void> {
  await forAll(ids, async (id) => {
    const [record, events] = await Promise.all([client.record(id), client.events(id)]);
    const { call, after } = record.nodes;
    check(
      record.status === 'Failed' && record.error === MARKER && record.stoppedByUser,
      `${id} is ${record.status}: ${record.error}`,
    );
    check(call?.status === 'Failed' && call.error === MARKER, `${id}/call is ${call?.status}: ${call?.error}`);
    check(after?.status === 'Pending', `${id}/after is ${after?.status}`);
    check(events.at(-1)?.type === 'execution.failed', `${id} ends with ${events.at(-1)?.type}`);
    check(events.filter(({ type }) => type === 'node.failed').length === 1, `${id} has not failed one node`);
  });
}
