import { type CommonOptions, type Define, spell } from '../cli.ts';

interface Options extends CommonOptions {
  project?: string;
}

export const define: Define = (command, cli) => {
  command
    .argument('<name>', 'the workflow')
    .option('--project <name>', 'for keys of all projects')
    .addHelpText('after', `\nExample:\n  ${spell('disable perimeter-scan')}\n\nWhat runs already goes on.`)
    .action(
      cli.action((name: string, options: Options) =>
        cli.withClient(options, async (client) => {
          const answer = await client.workflows.disable(
            name,
            options.project === undefined ? {} : { project: options.project },
          );
          if (options.json) cli.json(answer);
          else cli.line(`${name} is disabled`);
        }),
      ),
    );
};
