import type { WorkerItem } from '../../client/index.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { type Column, span, table } from '../table.ts';

const columns: Column<WorkerItem>[] = [
  { title: 'ID', cell: ({ id }) => id },
  { title: 'KIND', cell: ({ kind }) => kind },
  { title: 'NAME', cell: ({ name }) => name, flex: true },
  { title: 'OFFERS', cell: ({ capabilities }) => capabilities.join(', '), flex: true },
  { title: 'HOLDS', cell: ({ held, slots }) => `${held} of ${slots}` },
  { title: 'STATUS', cell: ({ connected }) => (connected ? 'connected' : 'silent'), style: styleOf },
  { title: 'HEARD', cell: ({ silentMs }) => `${span(silentMs)} ago` },
];

export const define: Define = (command, cli) => {
  command.addHelpText('after', `\nExample:\n  ${spell('workers')}`).action(
    cli.action((options: CommonOptions) =>
      cli.withClient(options, async (client) => {
        const { items } = await client.workers.list();
        if (options.json) cli.json({ items });
        else cli.terminal.out(table(cli.terminal, columns, items));
      }),
    ),
  );
};

function styleOf({ connected }: WorkerItem): 'green' | 'yellow' {
  return connected ? 'green' : 'yellow';
}
