import { type CommonOptions, clientConfig, type Define, spell } from '../cli.ts';

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('inspect 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}\n\nPrints an address for the WebSocket receiver of @statelyai/inspect. Whoever has it can watch this execution,\nand stop it, for one hour.`,
    )
    .action(
      cli.action((id: string, options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          const inspection = await client.executions.inspect(id);
          const url = clientConfig(cli.terminal, options).url.replace(/^http/, 'ws') + inspection.path;
          if (options.json) cli.json({ ...inspection, url });
          else {
            cli.line(url);
            cli.note(`for one execution, until ${inspection.expiresAt}`);
          }
        }),
      ),
    );
};
