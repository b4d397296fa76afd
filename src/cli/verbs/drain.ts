import { type CommonOptions, type Define, spell } from '../cli.ts';

export const define: Define = (command, cli) => {
  command
    .argument('<id>', `the engine, from ${spell('engines')}`)
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('drain 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}\n\nIt takes nothing more; running attempts are given their time. Nothing is marked as stopped.`,
    )
    .action(
      cli.action((id: string, options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          await client.engines.drain(id);
          if (options.json) cli.json({ draining: id });
          else cli.line(`${id}  draining`);
        }),
      ),
    );
};
