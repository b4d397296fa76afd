import type { KeyItem, Role } from '../../client/index.ts';
import { type CommonOptions, type Define, spell, UsageError } from '../cli.ts';
import { ago, type Column, table } from '../table.ts';

interface CreateOptions extends CommonOptions {
  role: string;
  project?: string;
  capability?: string[];
  pool?: string;
}

const roles: readonly Role[] = ['viewer', 'operator', 'admin', 'worker', 'agent'];

const columns: Column<KeyItem>[] = [
  { title: 'ID', cell: ({ id }) => id },
  { title: 'NAME', cell: ({ name }) => name, flex: true },
  { title: 'ROLE', cell: ({ role }) => role },
  { title: 'PROJECT', cell: ({ project }) => project ?? '(all)' },
  { title: 'CREATED', cell: ({ createdAt }) => ago(createdAt) },
];

export const define: Define = (command, cli) => {
  // Options of the verb itself may follow the name of the part: `keys create ci --json`.
  const options = (): CommonOptions => command.opts<CommonOptions>();
  command.addHelpText(
    'after',
    `
Examples:
  ${spell('keys')}
  ${spell('keys create ci --role operator --project web')}
  ${spell('keys create build-1 --role worker --capability container ai')}
  ${spell('keys create scanner --role agent --pool datacentre-a')}
  ${spell('keys delete 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}

Roles: a viewer reads and stops; an operator starts and triggers too; an admin saves, deletes and manages keys.
A worker's key is for ${spell('worker')}, an agent's for ${spell('agent')}.`,
  );
  command
    .command('list', { isDefault: true })
    .description('list keys')
    .action(
      cli.action(() =>
        cli.withClient(options(), async (client) => {
          const { items } = await client.keys.list();
          if (options().json) cli.json({ items });
          else cli.terminal.out(table(cli.terminal, columns, items));
        }),
      ),
    );
  command
    .command('create')
    .description('create a key; it is printed once, and stored only as a hash')
    .argument('<name>', 'what it is for')
    .requiredOption('--role <role>', roles.join(', '))
    .option('--project <name>', 'the project it belongs to')
    .option('--capability <name...>', 'of a worker: what it can run')
    .option('--pool <name>', 'of an agent: its pool')
    .action(
      cli.action((name: string, create: CreateOptions) => {
        const role = roles.find((known) => known === create.role);
        if (role === undefined)
          throw new UsageError(`--role: expected ${roles.join(', ')}, found ${JSON.stringify(create.role)}`);
        return cli.withClient(options(), async (client) => {
          const created = await client.keys.create({
            name,
            role,
            ...(create.project === undefined ? {} : { project: create.project }),
            ...(create.capability === undefined ? {} : { capabilities: create.capability }),
            ...(create.pool === undefined ? {} : { pool: create.pool }),
          });
          if (options().json) cli.json(created);
          else {
            cli.line(created.key);
            cli.note(`shown only now; its id is ${created.id}`);
          }
        });
      }),
    );
  command
    .command('delete')
    .description('delete a key and close its connections')
    .argument('<id>', 'of the key, from the list')
    .action(
      cli.action((id: string) =>
        cli.withClient(options(), async (client) => {
          await client.keys.delete(id);
          if (options().json) cli.json({ deleted: [id] });
          else cli.line(`${id}  deleted`);
        }),
      ),
    );
};
