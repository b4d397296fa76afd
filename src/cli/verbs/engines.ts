import type { EngineItem } from '../../client/index.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { ago, type Column, table } from '../table.ts';

const columns: Column<EngineItem>[] = [
  { title: 'ID', cell: ({ id }) => id },
  { title: 'STATUS', cell: ({ status }) => status },
  { title: 'STARTED', cell: ({ startedAt }) => ago(startedAt) },
  { title: 'RUNNING', cell: ({ executions }) => String(executions.running) },
  { title: 'PENDING', cell: ({ executions }) => String(executions.pending) },
  { title: 'PARKED', cell: ({ executions }) => String(executions.parked) },
  { title: 'VERSION', cell: ({ version }) => version },
  { title: 'URL', cell: ({ url }) => url ?? '', flex: true },
];

export const define: Define = (command, cli) => {
  command.addHelpText('after', `\nExample:\n  ${spell('engines')}`).action(
    cli.action((options: CommonOptions) =>
      cli.withClient(options, async (client) => {
        const { items } = await client.engines.list();
        if (options.json) cli.json({ items });
        else cli.terminal.out(table(cli.terminal, columns, items));
      }),
    ),
  );
};
