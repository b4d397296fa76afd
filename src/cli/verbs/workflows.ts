import { stringify } from 'yaml';
import type { WorkflowItem } from '../../client/index.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { ago, type Column, table } from '../table.ts';

interface Options extends CommonOptions {
  project?: string;
}

const columns: Column<WorkflowItem>[] = [
  { title: 'NAME', cell: ({ name }) => name },
  { title: 'PROJECT', cell: ({ project }) => project },
  { title: 'VERSION', cell: ({ version }) => String(version) },
  { title: 'SAVED', cell: ({ savedAt }) => ago(savedAt) },
  {
    title: 'NEXT',
    cell: ({ disabled, schedules }) =>
      disabled ? 'disabled' : (schedules.map(({ nextAt }) => nextAt).sort()[0] ?? ''),
  },
  { title: 'DESCRIPTION', cell: ({ description }) => description ?? '', flex: true },
];

export const define: Define = (command, cli) => {
  command
    .argument('[name]', 'print the file of this one; NAME@HASH for an older version')
    .option('--project <name>', 'for keys of all projects')
    .addHelpText('after', `\nExamples:\n  ${spell('workflows')}\n  ${spell('workflows perimeter-scan > scan.yaml')}`)
    .action(
      cli.action((name: string | undefined, options: Options) =>
        cli.withClient(options, async (client) => {
          const inProject = options.project === undefined ? {} : { project: options.project };
          if (name !== undefined) {
            const workflow = await client.workflows.get(name, inProject);
            if (options.json) cli.json(workflow);
            else cli.terminal.out(stringify(workflow.definition));
            return;
          }
          const { items } = await client.workflows.list(inProject);
          if (options.json) cli.json({ items });
          else if (items.length === 0) cli.note(`no workflows: save one with ${spell('save FILE')}`);
          else cli.terminal.out(table(cli.terminal, columns, items));
        }),
      ),
    );
};
