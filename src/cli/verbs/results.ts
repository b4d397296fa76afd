import { writeFile } from 'node:fs/promises';
import { type CommonOptions, type Define, exit, spell, UsageError } from '../cli.ts';

interface Options extends CommonOptions {
  output?: string;
  nodes?: boolean;
}

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .option('-o, --output <file>', 'write all of it to a file')
    .option('--nodes', "print the nodes' outputs too")
    .addHelpText(
      'after',
      `
Examples:
  ${spell('results 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}
  ${spell('results -o outputs.json 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}

Prints the outputs of the execution as JSON; with --json the whole answer.`,
    )
    .action(
      cli.action((id: string, options: Options) =>
        cli.withClient(options, async (client) => {
          const results = await client.executions.results(id);
          if (options.output !== undefined) {
            await writeFile(options.output, `${JSON.stringify(results, null, 2)}\n`).catch((error: unknown) => {
              throw new UsageError(`cannot write ${options.output}: ${(error as Error).message}`);
            });
          } else if (options.json) cli.json(results);
          else if (options.nodes) cli.json({ outputs: results.outputs, nodes: results.nodes });
          else cli.json(results.outputs);
          return exit.ok;
        }),
      ),
    );
};
