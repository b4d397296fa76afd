import type { Client, ExecutionItem, ExecutionListQuery, ExecutionStatus } from '../../client/index.ts';
import { type Cli, type CommonOptions, type Define, exit, Interrupted, spell, UsageError } from '../cli.ts';
import { ago, type Column, count, statusStyle, table, took } from '../table.ts';
import type { Terminal } from '../terminal.ts';
import { parseCount, readPages } from '../values.ts';

interface Options extends CommonOptions {
  watch?: boolean;
  quiet?: boolean;
  status?: string;
  workflow?: string;
  stopped?: boolean;
  label?: string;
  text?: string;
  parent?: string;
  createdFrom?: string;
  createdTo?: string;
  project?: string;
  limit: string;
}

/** Between two paintings of `-w`. */
const REPAINT_MS = 250;

export const define: Define = (command, cli) => {
  command
    .option('-w, --watch', 'stay, and show each change')
    .option('-q, --quiet', 'print ids only')
    .option('--status <status>', 'Pending, Running, Complete or Failed')
    .option('--workflow <name>', 'executions of this workflow')
    .option('--stopped', 'those that a person stopped')
    .option('--label <name=value>', 'those with this label')
    .option('--text <text>', "start of an id, or words of a workflow's name or an error")
    .option('--parent <id>', 'children of this execution')
    .option('--created-from <time>', 'ISO 8601')
    .option('--created-to <time>', 'ISO 8601')
    .option('--project <name>', 'for keys of all projects')
    .option('-n, --limit <count>', 'at most so many, newest first', '50')
    .addHelpText(
      'after',
      `
Examples:
  ${spell('ps --status Running')}
  ${spell('ps -w --workflow perimeter-scan')}
  ${spell('ps -q --label ticket=OPS-17')}

With --json and --watch: one JSON value per line, each an execution that changed.`,
    )
    .action(
      cli.action(async (options: Options) => {
        const query = toQuery(options);
        const limit = parseCount('--limit', options.limit);
        return cli.withClient(options, async (client) => {
          const read = (): Promise<{ items: ExecutionItem[]; more: boolean }> =>
            readPages((cursor) => client.executions.list({ ...query, ...cursor }), limit);
          if (options.watch) return watch(cli, client, options, read);
          const { items, more } = await read();
          if (options.json) cli.json({ items, more });
          else if (options.quiet) for (const { id } of items) cli.line(id);
          else if (items.length === 0) cli.note(`no executions: start one with ${spell('run')}`);
          else {
            cli.terminal.out(executionTable(cli.terminal, items));
            if (more) cli.note(`the newest ${items.length}; more with --limit`);
          }
          return exit.ok;
        });
      }),
    );
};

export const statuses: readonly ExecutionStatus[] = ['Pending', 'Running', 'Complete', 'Failed'];

export function parseStatus(text: string, allowed: readonly ExecutionStatus[] = statuses): ExecutionStatus {
  const status = allowed.find((known) => known.toLowerCase() === text.toLowerCase());
  if (status === undefined)
    throw new UsageError(
      `--status: expected ${allowed.join(', ')}, found ${JSON.stringify(text)}${/^stopped$/i.test(text) ? ': ps --stopped lists what a person stopped' : ''}`,
    );
  return status;
}

function toQuery(options: Options): ExecutionListQuery {
  const { workflow, label, text, parent, createdFrom, createdTo, project } = options;
  const query = {
    workflow,
    label,
    text,
    parent,
    createdFrom,
    createdTo,
    project,
    status: options.status === undefined ? undefined : parseStatus(options.status),
    stoppedByUser: options.stopped ? true : undefined,
  };
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined));
}

const columns: Column<ExecutionItem>[] = [
  { title: 'ID', cell: ({ id }) => id },
  { title: 'WORKFLOW', cell: ({ workflow }) => workflow.name, flex: true },
  {
    title: 'STATUS',
    cell: ({ status, stoppedByUser, stop, endedAt }) =>
      !stoppedByUser && stop !== null && endedAt === null ? 'Stopping' : status,
    style: ({ status, stoppedByUser }) => statusStyle(status, stoppedByUser),
  },
  { title: 'CREATED', cell: ({ createdAt }) => ago(createdAt) },
  { title: 'TOOK', cell: ({ startedAt, endedAt }) => took(startedAt, endedAt) },
  { title: 'ERROR', cell: ({ error }) => error ?? '', flex: true },
];

export function executionTable(terminal: Terminal, items: readonly ExecutionItem[]): string {
  return table(terminal, columns, items);
}

/** On a terminal the list is painted again; elsewhere each change is a line. */
async function watch(
  cli: Cli,
  client: Client,
  options: Options,
  read: () => Promise<{ items: ExecutionItem[] }>,
): Promise<number> {
  const { terminal } = cli;
  const { signal, done } = cli.interruptible();
  const paintable = terminal.outIsTTY && !options.json && !options.quiet;
  const ids = new Set<string>();
  const repaint = async (): Promise<void> => {
    const { items } = await read();
    const shown = items.slice(0, Math.max(1, terminal.rows() - 3));
    terminal.out(
      `\u001b[H\u001b[2J${executionTable(terminal, shown)}\n${count(items.length, 'execution')}; Ctrl-C leaves\n`,
    );
  };
  try {
    const changes = client.executions.watch({
      signal,
      ...(options.project === undefined ? {} : { project: options.project }),
    });
    if (paintable) {
      let repainting: Promise<void> = repaint();
      let due = false;
      for await (const _ of changes) {
        if (due) continue;
        due = true;
        repainting = repainting
          .then(() => new Promise((resolve) => setTimeout(resolve, REPAINT_MS)))
          .then(() => {
            due = false;
            return repaint();
          });
        // Shown where it is awaited; a broken connection is healed by the client meanwhile.
        repainting = repainting.catch(() => {});
      }
      return exit.ok;
    }
    const show = (item: ExecutionItem): void => {
      if (options.json) cli.jsonLine(item);
      else if (options.quiet) {
        if (!ids.has(item.id)) cli.line(item.id);
        ids.add(item.id);
      } else cli.line(changeLine(item));
    };
    for (const item of (await read()).items.reverse()) show(item);
    for await (const item of changes) if (matches(item, options)) show(item);
    return exit.ok;
  } catch (error) {
    if (error instanceof Interrupted) return error.exitCode;
    throw error;
  } finally {
    done();
  }
}

const changeLine = (item: ExecutionItem): string =>
  [item.id, item.workflow.name, item.status, item.error ?? ''].join('  ').trimEnd();

/** The filters that a change can be held against here; the server has held the list against all. */
function matches(item: ExecutionItem, options: Options): boolean {
  const [name, ...value] = options.label?.split('=') ?? [];
  return (
    (options.status === undefined || item.status === parseStatus(options.status)) &&
    (options.workflow === undefined || item.workflow.name === options.workflow) &&
    (!options.stopped || item.stoppedByUser) &&
    (options.parent === undefined || item.parent?.executionId === options.parent) &&
    (name === undefined || item.labels[name] === value.join('=')) &&
    (options.createdFrom === undefined || Date.parse(item.createdAt) >= Date.parse(options.createdFrom)) &&
    (options.createdTo === undefined || Date.parse(item.createdAt) <= Date.parse(options.createdTo)) &&
    (options.text === undefined ||
      item.id.startsWith(options.text) ||
      `${item.workflow.name} ${item.error ?? ''}`.toLowerCase().includes(options.text.toLowerCase()))
  );
}
