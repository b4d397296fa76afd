import { type CommonOptions, clientConfig, type Define, spell } from '../cli.ts';

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('inspect 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}\n\nPrints an address for the WebSocket receiver of @statelyai/inspect, and another for that of @xstate/inspect 0.8.\nWhoever has one can watch this execution, and stop it, for one hour.`,
    )
    .action(
      cli.action((id: string, options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          const inspection = await client.executions.inspect(id);
          const server = clientConfig(cli.terminal, options).url.replace(/^http/, 'ws');
          const url = server + inspection.path;
          const urlV4 = server + inspection.path.replace('/inspect/', '/inspect/v4/');
          if (options.json) cli.json({ ...inspection, url, urlV4 });
          else {
            cli.line(url);
            cli.note(`for viewers of XState 4: ${urlV4}`);
            cli.note(`for one execution, until ${inspection.expiresAt}`);
          }
        }),
      ),
    );
};
