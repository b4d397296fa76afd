import type { AuditItem } from '../../client/index.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { type Column, table } from '../table.ts';
import { parseCount, readPages } from '../values.ts';

interface Options extends CommonOptions {
  limit: string;
}

const columns: Column<AuditItem>[] = [
  { title: 'AT', cell: ({ at }) => at },
  { title: 'WHO', cell: ({ actor }) => (actor === null ? '' : `${actor.name} (${actor.role})`), flex: true },
  { title: 'VERB', cell: ({ verb }) => verb },
  { title: 'TARGET', cell: ({ target }) => target ?? '', flex: true },
  { title: 'OUTCOME', cell: ({ outcome }) => outcome ?? '(not known yet)' },
];

export const define: Define = (command, cli) => {
  command
    .option('-n, --limit <count>', 'at most so many, newest first', '50')
    .addHelpText('after', `\nExample:\n  ${spell('audit -n 200 --json')}`)
    .action(
      cli.action((options: Options) => {
        const limit = parseCount('--limit', options.limit);
        return cli.withClient(options, async (client) => {
          const { items, more } = await readPages((cursor) => client.audit.list(cursor), limit);
          if (options.json) cli.json({ items, more });
          else cli.terminal.out(table(cli.terminal, columns, items));
        });
      }),
    );
};
