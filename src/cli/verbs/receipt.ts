import type { StopReceipt } from '../../client/index.ts';
import { type Cli, type CommonOptions, type Define, exit, Interrupted, spell } from '../cli.ts';
import { count, span } from '../table.ts';
import { paint, plain } from '../terminal.ts';

interface Options extends CommonOptions {
  follow?: boolean;
}

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .option('-f, --follow', 'stay until every task has confirmed its end')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('receipt -f 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}\n\nExit code 4 when nobody asked for a stop.`,
    )
    .action(
      cli.action((id: string, options: Options) =>
        cli.withClient(options, async (client) => {
          const print = (receipt: StopReceipt): void => {
            if (!options.json) cli.terminal.out(describeReceipt(cli, receipt));
            else if (options.follow) cli.jsonLine(receipt);
            else cli.json(receipt);
          };
          const now = await client.executions.receipt(id);
          if (!options.follow) {
            print(now);
            return exit.ok;
          }
          const { signal, done } = cli.interruptible();
          try {
            for await (const receipt of client.receipts(id, { signal })) print(receipt);
            return exit.ok;
          } catch (error) {
            if (error instanceof Interrupted) return error.exitCode;
            throw error;
          } finally {
            done();
          }
        }),
      ),
    );
};

/** The receipt for a person: one line per fact, each with its time after the request. */
export function describeReceipt(cli: Cli, receipt: StopReceipt): string {
  const lines = [`stop of ${receipt.executionId}, requested ${receipt.requestedAt}`];
  if (receipt.delivery !== null) lines.push(fact(receipt.delivery.ms, `delivered (${receipt.delivery.path})`));
  if (receipt.haltedMs !== null) lines.push(fact(receipt.haltedMs, 'halted: nothing more starts, every task told'));
  for (const task of receipt.tasks) {
    const place = `${task.node}${task.iterations?.length ? `[${task.iterations.join(',')}]` : ''}`;
    lines.push(fact(task.ms, `${task.type} ${place}: ${outcomeTexts[task.outcome]}`));
  }
  if (receipt.finalisedMs !== null)
    lines.push(fact(receipt.finalisedMs, paint(cli.terminal, 'yellow', 'ended: the final record is stored')));
  if (receipt.children.length > 0) lines.push(`  ${count(receipt.children.length, 'child execution')} stopped with it`);
  if (receipt.lateResultsDiscarded > 0) lines.push(`  ${count(receipt.lateResultsDiscarded, 'late result')} discarded`);
  if (receipt.unconfirmed > 0)
    lines.push(`  ${paint(cli.terminal, 'red', `${count(receipt.unconfirmed, 'task')} not confirmed yet`)}`);
  return `${lines.map(plainLine).join('\n')}\n`;
}

const outcomeTexts: Record<StopReceipt['tasks'][number]['outcome'], string> = {
  aborted: 'aborted',
  neverStarted: 'never started',
  finishedFirst: 'finished first',
  forced: 'killed',
  unconfirmed: 'not confirmed yet',
  agentRunsOn: 'runs on at its agent, its result is discarded',
};

const fact = (ms: number | null, text: string): string =>
  `  ${(ms === null ? '' : `+${span(ms)}`).padStart(9)}  ${text}`;

/** Node names are checked by the server; this is for servers that are not ours. */
const plainLine = (line: string): string => (line.split('\u001b').length > 1 ? line : plain(line));
