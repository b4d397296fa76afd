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
      `\nExample:\n  ${spell('save scan.yaml')}\n\nFrom now on its name means this version, and its schedule is live.`,
    )
    .action(
      cli.action(async (file: string, options: Options) => {
        const text = await readText(cli.terminal, file);
        return cli.withClient(options, async (client) => {
          try {
            const saved = await client.workflows.save(
              text,
              options.project === undefined ? {} : { project: options.project },
            );
            if (options.json) cli.json(saved);
            else cli.line(`${saved.name}, version ${saved.version}: ${spell(`run ${saved.name}`)}`);
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
