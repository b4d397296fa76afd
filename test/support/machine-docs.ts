import type { AnyStateMachine } from 'xstate';
import { engineMachine } from '../../machines/engine.machine.ts';
import { executionMachine, executionStatusOf } from '../../machines/execution.machine.ts';
import { nodeMachine, nodeStatusOf } from '../../machines/node.machine.ts';

interface Chart {
  machine: AnyStateMachine;
  title: string;
  about: string;
  statusOf: ((value: string) => string) | null;
}

const charts: Chart[] = [
  {
    machine: engineMachine,
    title: 'engine',
    about: 'Supervisor of one engine instance. Source: `machines/engine.machine.ts`.',
    statusOf: null,
  },
  {
    machine: executionMachine,
    title: 'execution',
    about: 'One execution. Source: `machines/execution.machine.ts`.',
    statusOf: executionStatusOf,
  },
  {
    machine: nodeMachine,
    title: 'node',
    about: 'One node of an execution. Source: `machines/node.machine.ts`.',
    statusOf: (value) => nodeStatusOf(value),
  },
];

interface StateLike {
  key: string;
  id: string;
  type: string;
  states: Record<string, StateLike>;
  transitions: Map<string, TransitionLike[]>;
  always?: TransitionLike[];
  initial?: { target: StateLike[] };
  description?: string;
}

interface TransitionLike {
  target?: StateLike[];
  guard?: unknown;
  actions: unknown[];
}

const nameOf = (value: unknown): string =>
  typeof value === 'string' ? value : ((value as { type?: string } | undefined)?.type ?? '');

const idOf = (state: StateLike): string => state.id.replaceAll('.', '_');

function edges(state: StateLike, lines: string[]): void {
  const add = (event: string, transition: TransitionLike): void => {
    const guard = transition.guard === undefined ? '' : ` [${nameOf(transition.guard)}]`;
    const actions = transition.actions.length === 0 ? '' : ` / ${transition.actions.map(nameOf).join(', ')}`;
    const target = transition.target?.[0] ?? state;
    lines.push(`    ${idOf(state)} --> ${idOf(target)}: ${`${event}${guard}${actions}`.trim()}`);
  };
  for (const transition of state.always ?? []) add('', transition);
  for (const [event, transitions] of state.transitions) {
    if (event === '' || event.startsWith('xstate.')) continue;
    for (const transition of transitions) add(event, transition);
  }
  for (const child of Object.values(state.states)) edges(child, lines);
}

function declare(state: StateLike, lines: string[], indent: string): void {
  for (const child of Object.values(state.states)) {
    const inner = Object.keys(child.states).length > 0;
    lines.push(`${indent}state "${child.key}" as ${idOf(child)}${inner ? ' {' : ''}`);
    if (inner) {
      declare(child, lines, `${indent}  `);
      const first = child.initial?.target[0];
      if (first !== undefined) lines.push(`${indent}  [*] --> ${idOf(first)}`);
      lines.push(`${indent}}`);
    }
    if (child.type === 'final') lines.push(`${indent}${idOf(child)} --> [*]`);
  }
}

/** `docs/machines.md`, drawn from the machines themselves; a check fails when the file is stale. */
export function renderMachineDocs(): string {
  const parts = [
    '# The machines',
    '',
    'Generated from `machines/` by `npm run check -- --write`; do not edit. A label reads `event [guard] / actions`.',
    '',
  ];
  for (const { machine, title, about, statusOf } of charts) {
    const root = machine.root as unknown as StateLike;
    const lines: string[] = [];
    declare(root, lines, '    ');
    const first = root.initial?.target[0];
    if (first !== undefined) lines.push(`    [*] --> ${idOf(first)}`);
    edges(root, lines);
    parts.push(`## ${title}`, '', about, '', '```mermaid', 'stateDiagram-v2', ...lines, '```', '');
    if (statusOf !== null) {
      parts.push('| state | status in the record |', '|---|---|');
      for (const state of Object.values(root.states)) parts.push(`| ${state.key} | ${statusOf(state.key)} |`);
      parts.push('');
    }
  }
  return `${parts.join('\n').trimEnd()}\n`;
}
