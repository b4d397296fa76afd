import { type CommonOptions, type Define, exit, exitCodeOf, report, spell, withCode } from '../cli.ts';
import { count } from '../table.ts';

interface Options extends CommonOptions {
  yes?: boolean;
}

export const define: Define = (command, cli) => {
  command
    .argument('<id...>', 'executions that have ended')
    .option('-y, --yes', 'do not ask')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('delete --yes 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}\n\nTakes results, events and receipts with it; the audit log stays.`,
    )
    .action(
      cli.action((ids: string[], options: Options) =>
        cli.withClient(options, async (client) => {
          if (
            !options.yes &&
            cli.terminal.canAsk &&
            !(await cli.confirm(`Delete ${count(ids.length, 'execution')} for good?`))
          )
            return exit.failed;
          let code: number = exit.ok;
          const deleted: string[] = [];
          for (const id of ids) {
            try {
              await client.executions.delete(id);
              deleted.push(id);
              if (!options.json) cli.line(`${id}  deleted`);
            } catch (error) {
              if (ids.length === 1) throw error;
              report(cli.terminal, new Error(`${id}: ${withCode(error)}`), false);
              code ||= exitCodeOf(error);
            }
          }
          if (options.json) cli.json({ deleted });
          return code;
        }),
      ),
    );
};
