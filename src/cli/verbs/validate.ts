import { type CommonOptions, type Define, exit, spell } from '../cli.ts';
import { printFaults } from '../definition-faults.ts';
import { readText } from '../values.ts';

interface Options extends CommonOptions {
  project?: string;
}

export const define: Define = (command, cli) => {
  command
    .argument('<file>', 'a workflow file; - reads stdin')
    .option('--project <name>', 'for keys of all projects')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('validate scan.yaml')}\n\nPrints every fault with its line. Exit code 1 when there is one.`,
    )
    .action(
      cli.action(async (file: string, options: Options) => {
        const text = await readText(cli.terminal, file);
        return cli.withClient(options, async (client) => {
          try {
            const checked = await client.workflows.save(text, {
              dryRun: true,
              ...(options.project === undefined ? {} : { project: options.project }),
            });
            if (options.json) cli.json(checked);
            else cli.line(`${file} is valid: ${checked.name}, hash ${checked.hash.slice(0, 12)}`);
            return exit.ok;
          } catch (error) {
            const code = printFaults(cli, file, error, options.json === true);
            if (code === null) throw error;
            return code;
          }
        });
      }),
    );
};
