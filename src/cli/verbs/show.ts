import type { ExecutionRecord, NodeRecord } from '../../client/index.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { type Column, statusStyle, table, took } from '../table.ts';
import { paint, plain, type Terminal } from '../terminal.ts';

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .addHelpText('after', `\nExample:\n  ${spell('show 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}`)
    .action(
      cli.action((id: string, options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          const execution = await client.executions.get(id);
          if (options.json) {
            cli.json(execution);
            return;
          }
          const missing = await client.health().then(
            (health) => Object.keys(health.missing ?? {}),
            () => [],
          );
          cli.terminal.out(describe(cli.terminal, execution, missing));
        }),
      ),
    );
};

type NodeLine = NodeRecord & { name: string; note: string };

const columns: Column<NodeLine>[] = [
  { title: 'NODE', cell: ({ name }) => name, flex: true },
  { title: 'TYPE', cell: ({ type }) => type },
  { title: 'STATUS', cell: ({ status }) => status, style: ({ status }) => statusStyle(status) },
  { title: 'ATTEMPT', cell: ({ attempt }) => (attempt === 0 ? '' : String(attempt)) },
  { title: 'TOOK', cell: ({ startedAt, endedAt }) => took(startedAt, endedAt) },
  { title: 'NOTE', cell: ({ note }) => note, flex: true },
];

function noteOf(node: NodeRecord, missing: readonly string[]): string {
  if (node.error !== null) return node.error;
  if (node.status === 'Running' && missing.some((capability) => capability.split(':')[0] === node.type)) {
    return `waits: no worker here runs ${node.type} tasks`;
  }
  if (node.iteration !== undefined) return `iteration ${node.iteration.index}`;
  if (node.children !== undefined)
    return `${node.children.complete} of ${node.children.total} children complete, ${node.children.failed} failed`;
  return '';
}

/** `missing`: capabilities that queued tasks wait for and nobody offers. */
function describe(terminal: Terminal, execution: ExecutionRecord, missing: readonly string[]): string {
  const { workflow, stop } = execution;
  const facts: [string, string][] = [
    ['id', execution.id],
    ['workflow', `${workflow.name}, version ${workflow.version} (${workflow.hash.slice(0, 12)})`],
    ['project', execution.project],
    ['status', paint(terminal, statusStyle(execution.status, execution.stoppedByUser), execution.status)],
    ['error', plain(execution.error ?? '')],
    [
      'labels',
      Object.entries(execution.labels)
        .map(([name, value]) => `${name}=${value}`)
        .join(', '),
    ],
    ['parent', execution.parent === null ? '' : `${execution.parent.executionId}, node ${execution.parent.node}`],
    ['created', execution.createdAt],
    ['ended', execution.endedAt ?? ''],
    ['took', took(execution.startedAt, execution.endedAt)],
    ['stop', stop === null ? '' : `requested ${stop.requestedAt}: ${spell(`receipt ${execution.id}`)}`],
    [
      'waiting for',
      (execution.waitingFor ?? [])
        .map(({ node, where, sinceMs }) => `${node} on the ${where}, ${sinceMs} ms`)
        .join('; '),
    ],
  ];
  const shown = facts.filter(([, value]) => value !== '').map(([name, value]) => `${name.padEnd(12)}${value}`);
  return `${shown.join('\n')}\n\n${table(terminal, columns, flatten(execution.nodes, '', missing, execution.endedAt))}`;
}

/** Body nodes of the current iteration below their loop, indented. */
function flatten(
  nodes: Record<string, NodeRecord>,
  indent: string,
  missing: readonly string[],
  ended: string | null,
): NodeLine[] {
  return Object.entries(nodes).flatMap(([name, node]) => [
    // One that stays Held waits no longer than its execution lives.
    { ...node, endedAt: node.endedAt ?? ended, name: indent + name, note: noteOf(node, missing) },
    ...(node.iteration === undefined ? [] : flatten(node.iteration.nodes, `${indent}· `, missing, ended)),
  ]);
}
