import type { Client, ExecutionFilter, StopAnswer, StopPreview, StopReceipt } from '../../client/index.ts';
import { hasCode, messageOf } from '../../errors.ts';
import {
  type Cli,
  type CommonOptions,
  type Define,
  exit,
  exitCodeOf,
  Interrupted,
  report,
  spell,
  UsageError,
  withCode,
} from '../cli.ts';
import { count, span } from '../table.ts';
import { plain } from '../terminal.ts';
import { parseTimeout, readPages } from '../values.ts';
import { executionTable, parseStatus } from './ps.ts';
import { describeReceipt } from './receipt.ts';

interface Options extends CommonOptions {
  yes?: boolean;
  wait?: boolean;
  timeout: string;
  preview?: boolean;
  all?: boolean;
  workflow?: string;
  label?: string;
  status?: string;
  text?: string;
  createdFrom?: string;
  createdTo?: string;
  project?: string;
}

/** Executions shown one by one before a person confirms; beyond that, counts. */
const SHOWN_MAX = 10;
/** Receipts followed at once. */
const FOLLOWED_MAX = 16;

export const define: Define = (command, cli) => {
  command
    .argument('[id...]', 'executions')
    .option('-y, --yes', 'do not ask')
    .option('-w, --wait', 'follow the stop until every task has confirmed its end')
    .option('--timeout <duration>', 'with --wait: how long', '30s')
    .option('--preview', 'say what a stop would do, and stop nothing')
    .option('--all', 'every execution that has not ended')
    .option('--workflow <name>', 'those of this workflow')
    .option('--label <name=value>', 'those with this label')
    .option('--status <status>', 'Pending or Running')
    .option('--text <text>', "start of an id, or words of a workflow's name")
    .option('--created-from <time>', 'ISO 8601')
    .option('--created-to <time>', 'ISO 8601')
    .option('--project <name>', 'for keys of all projects')
    .addHelpText(
      'after',
      `
Examples:
  ${spell('stop 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}
  ${spell('stop --wait --timeout 1m 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}
  ${spell('stop --workflow perimeter-scan --preview')}
  ${spell('stop --all --yes')}

A stop is durable when this returns; it takes effect within moments, --wait stays until it has. On a
terminal it shows first what would be stopped and asks. Without one, filters need --yes and ids do not.
Exit codes: 0 stopped or on its way, 1 had ended otherwise, 4 no such execution, 5 --wait timed out.`,
    )
    .action(
      cli.action((ids: string[], options: Options) => {
        const timeoutMs = parseTimeout('--timeout', options.timeout);
        const filter = toFilter(options);
        if (ids.length > 0 && filter !== null)
          throw new UsageError('expected ids or filters (--all, --workflow, ...), found both');
        if (ids.length === 0 && filter === null)
          throw new UsageError('expected ids, or --all, --workflow NAME, --label NAME=VALUE, --status STATUS');
        return cli.withClient(options, (client) =>
          filter === null
            ? stopByIds(cli, client, [...new Set(ids)], options, timeoutMs)
            : stopByFilter(cli, client, filter, options, timeoutMs),
        );
      }),
    );
};

function toFilter({ all, workflow, label, status, text, createdFrom, createdTo }: Options): ExecutionFilter | null {
  const narrow = {
    workflow,
    label,
    text,
    createdFrom,
    createdTo,
    status: status === undefined ? undefined : parseStatus(status, ['Pending', 'Running']),
  };
  const given = Object.entries(narrow).filter(([, value]) => value !== undefined);
  if (!all) return given.length === 0 ? null : (Object.fromEntries(given) as ExecutionFilter);
  if (given.length > 0) throw new UsageError('expected --all alone, found a narrower filter beside it');
  return { all: true };
}

async function stopByIds(
  cli: Cli,
  client: Client,
  ids: string[],
  options: Options,
  timeoutMs: number,
): Promise<number> {
  if (options.preview) return previewAll(cli, client, ids, options.json === true);
  if (!options.yes && cli.terminal.canAsk) {
    for (const id of ids.slice(0, SHOWN_MAX)) await notePreview(cli, client, id);
    if (ids.length > SHOWN_MAX) cli.note(`and ${count(ids.length - SHOWN_MAX, 'more execution')}`);
    if (!(await cli.confirm(`Stop ${ids.length === 1 ? 'it' : `these ${ids.length}`}?`))) return declined(cli);
  }
  const outcomes: ({ id: string; answer: StopAnswer } | { id: string; error: unknown })[] = [];
  for (const id of ids) {
    try {
      outcomes.push({ id, answer: await client.executions.stop(id) });
    } catch (error) {
      if (ids.length === 1) throw error;
      outcomes.push({ id, error });
    }
  }
  const answers = outcomes.flatMap((outcome) => ('answer' in outcome ? [outcome.answer] : []));
  if (!options.json) {
    for (const outcome of outcomes) {
      if ('answer' in outcome) cli.line(`${outcome.id}  ${outcome.answer.status}`);
      else report(cli.terminal, new Error(`${outcome.id}: ${withCode(outcome.error)}`), false);
    }
  }
  const waited = options.wait
    ? await waitForAll(
        cli,
        client,
        answers.map(({ executionId }) => executionId),
        timeoutMs,
        options.json === true,
      )
    : null;
  if (options.json) {
    cli.json(
      outcomes.map((outcome) =>
        'answer' in outcome
          ? { ...outcome.answer, ...(waited === null ? {} : { receipt: waited.receipts.get(outcome.id) ?? null }) }
          : { executionId: outcome.id, error: errorOf(outcome.error) },
      ),
    );
  }
  const refused = outcomes.find((outcome) => 'error' in outcome);
  if (waited?.timedOut) return exit.stopTimedOut;
  return refused !== undefined && 'error' in refused ? exitCodeOf(refused.error) : exit.ok;
}

async function stopByFilter(
  cli: Cli,
  client: Client,
  filter: ExecutionFilter,
  options: Options,
  timeoutMs: number,
): Promise<number> {
  const inProject = options.project === undefined ? {} : { project: options.project };
  const asks = !options.yes && !options.preview;
  if (asks && !cli.terminal.canAsk)
    throw new UsageError(
      'stopping by a filter without a terminal to ask on needs --yes; --preview says what it would stop',
    );
  let request: Parameters<Client['stops']['bulk']>[0] = { ...inProject, filter };
  if (asks || options.preview) {
    const { matched, setId } = await client.stops.dryRun(filter, inProject);
    if (options.preview && options.json) {
      cli.json({ matched, setId });
      return exit.ok;
    }
    if (matched === 0) {
      cli.note('nothing to stop: no live execution matches');
      return exit.ok;
    }
    await showMatching(cli, client, filter, inProject, matched);
    if (options.preview) return exit.ok;
    if (!(await cli.confirm(`Stop ${count(matched, 'execution')}?`))) return declined(cli);
    // What was shown is what is stopped.
    request = { setId };
  }
  const answer = await client.stops.bulk(request);
  if (!options.json) {
    cli.line(
      `${count(answer.requested.length, 'stop')} requested, ${answer.alreadyEnded.length} had ended, ${answer.failed.length} failed`,
    );
    for (const { id, code } of answer.failed) cli.note(`${id}: ${code}`);
    if (answer.startedMeanwhile.length > 0)
      cli.note(
        `${count(answer.startedMeanwhile.length, 'execution')} started meanwhile and match: repeat to stop them`,
      );
  }
  const waited = options.wait
    ? await waitForAll(cli, client, answer.requested, timeoutMs, options.json === true)
    : null;
  if (options.json) cli.json(waited === null ? answer : { ...answer, receipts: [...waited.receipts.values()] });
  if (waited?.timedOut) return exit.stopTimedOut;
  return answer.failed.length > 0 ? exit.failed : exit.ok;
}

async function showMatching(
  cli: Cli,
  client: Client,
  filter: ExecutionFilter,
  inProject: { project?: string },
  matched: number,
): Promise<void> {
  const { all: _all, ids: _ids, status, ...narrow } = filter;
  const statuses = status === undefined ? (['Running', 'Pending'] as const) : [status];
  const pages = await Promise.all(
    statuses.map((one) =>
      readPages(
        (cursor) => client.executions.list({ ...inProject, ...narrow, ...cursor, status: one, limit: SHOWN_MAX }),
        SHOWN_MAX,
      ),
    ),
  );
  const shown = pages.flatMap(({ items }) => items).slice(0, SHOWN_MAX);
  cli.terminal.err(executionTable(cli.terminal, shown));
  if (matched > shown.length) cli.note(`${count(matched, 'execution')} in all`);
}

function declined(cli: Cli): number {
  cli.note('nothing was stopped');
  return exit.failed;
}

async function previewAll(cli: Cli, client: Client, ids: string[], json: boolean): Promise<number> {
  const previews: StopPreview[] = [];
  for (const id of ids) {
    const preview = await client.executions.preview(id);
    previews.push(preview);
    if (!json) cli.terminal.out(describePreview(preview));
  }
  if (json) cli.json(previews);
  return exit.ok;
}

/** A preview that fails stands in nobody's way: whoever wants to stop something is asked all the same. */
async function notePreview(cli: Cli, client: Client, id: string): Promise<void> {
  try {
    cli.terminal.err(describePreview(await client.executions.preview(id)));
  } catch (error) {
    if (hasCode(error, 'FS_NOT_FOUND', 'FS_INVALID')) throw error;
    cli.note(`${id}: no preview: ${plain(messageOf(error))}`);
  }
}

function describePreview(preview: StopPreview): string {
  const place = (node: { node: string; iterations?: number[] }): string =>
    plain(`${node.node}${node.iterations?.length ? `[${node.iterations.join(',')}]` : ''}`);
  const { kept, stayPending, stayHeld, children } = preview;
  const lines = [`execution ${preview.executionId}: a stop`];
  for (const node of preview.willAbort) {
    const forTime = span(node.runningForMs);
    if (node.queued !== true)
      lines.push(`  aborts           ${place(node)} (${node.type} on the ${node.where}, for ${forTime})`);
    else {
      const whom = node.where === 'agent' ? 'an agent' : 'a worker';
      lines.push(
        `  withdraws        ${place(node)} (${node.type}, has waited ${forTime} for ${whom}); it never starts`,
      );
    }
  }
  for (const node of preview.cannotCancel)
    lines.push(
      `  cannot cancel    ${place(node)} (agent ${plain(node.agent)}, for ${span(node.runningForMs)}); its result is discarded`,
    );
  lines.push(`  keeps            ${kept.Complete} Complete, ${kept.Failed} Failed, ${kept.Skipped} Skipped`);
  if (stayPending.length + stayHeld.length > 0)
    lines.push(`  leaves           ${stayPending.length} Pending, ${stayHeld.length} Held`);
  if (children.length > 0) lines.push(`  stops with it    ${count(children.length, 'child execution')}`);
  return `${lines.join('\n')}\n`;
}

/** Follows the receipts until all tasks have confirmed or the time is over. */
async function waitForAll(
  cli: Cli,
  client: Client,
  ids: readonly string[],
  timeoutMs: number,
  json: boolean,
): Promise<{ timedOut: boolean; receipts: Map<string, StopReceipt> }> {
  const receipts = new Map<string, StopReceipt>();
  const confirmed = new Set<string>();
  const { signal: interrupt, done } = cli.interruptible();
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = AbortSignal.any([interrupt, timeout]);
  const queue = [...ids];
  const follow = async (): Promise<void> => {
    for (let id = queue.shift(); id !== undefined; id = queue.shift()) {
      for await (const receipt of client.receipts(id, { signal })) {
        receipts.set(id, receipt);
        if (cli.terminal.errIsTTY && !json)
          cli.terminal.err(`\r${progress(receipt)}, ${confirmed.size} of ${ids.length} done\u001b[K`);
      }
      confirmed.add(id);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(FOLLOWED_MAX, ids.length) }, follow));
  } catch (error) {
    if (error instanceof Interrupted || !timeout.aborted) throw error;
  } finally {
    done();
    if (cli.terminal.errIsTTY && !json) cli.terminal.err('\r\u001b[K');
  }
  if (!json) {
    if (ids.length === 1) for (const receipt of receipts.values()) cli.terminal.out(describeReceipt(cli, receipt));
    if (confirmed.size < ids.length) {
      cli.note(
        `${count(ids.length - confirmed.size, 'stop')} not confirmed within ${span(timeoutMs)}; it goes on. Follow it: ${spell('receipt -f ID')}`,
      );
    } else if (ids.length > 1) cli.line(`all ${ids.length} have ended`);
  }
  return { timedOut: confirmed.size < ids.length, receipts };
}

function progress(receipt: StopReceipt): string {
  if (receipt.finalisedAt !== null)
    return receipt.unconfirmed > 0 ? `ended, ${count(receipt.unconfirmed, 'task')} not confirmed` : 'ended';
  if (receipt.haltedMs !== null) return 'halted';
  return receipt.delivery === null ? 'requested' : 'delivered';
}

function errorOf(error: unknown): { code: string; message: string } {
  return { code: (error as { code?: string }).code ?? 'FS_INTERNAL', message: messageOf(error) };
}
