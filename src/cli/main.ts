/** The `fullstop` command: finds the verb, loads its file alone, and turns what it did into an exit code. */
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { Cli, type Define, exit, exitCodeOf, report, spell, UsageError } from './cli.ts';
import { processTerminal, type Terminal } from './terminal.ts';

interface VerbRow {
  summary: string;
  load(): Promise<{ define: Define }>;
  /** It talks to a server: --url and --data. */
  remote: boolean;
}

const remote = (summary: string, load: VerbRow['load']): VerbRow => ({ summary, load, remote: true });

const verbs: Record<string, VerbRow> = {
  serve: { summary: 'start a server', load: () => import('./verbs/serve.ts'), remote: false },
  worker: remote('run tasks of a server on this machine', () => import('./verbs/worker.ts')),
  agent: remote('run tools for a server, out of its reach', () => import('./verbs/agent.ts')),
  run: remote('start an execution of a workflow', () => import('./verbs/run.ts')),
  ps: remote('list executions', () => import('./verbs/ps.ts')),
  show: remote('show one execution and its nodes', () => import('./verbs/show.ts')),
  events: remote('print what happened in an execution, and follow it', () => import('./verbs/events.ts')),
  stop: remote('stop executions', () => import('./verbs/stop.ts')),
  receipt: remote('print what a stop did', () => import('./verbs/receipt.ts')),
  inspect: remote('let a Stately viewer watch an execution', () => import('./verbs/inspect.ts')),
  results: remote('print or download the outputs of an execution', () => import('./verbs/results.ts')),
  trigger: remote('release a held node', () => import('./verbs/trigger.ts')),
  delete: remote('delete ended executions', () => import('./verbs/delete.ts')),
  validate: remote('check a workflow file', () => import('./verbs/validate.ts')),
  save: remote('save a workflow file', () => import('./verbs/save.ts')),
  workflows: remote('list workflows, or show one', () => import('./verbs/workflows.ts')),
  disable: remote("refuse a workflow's schedules and starts", () => import('./verbs/disable.ts')),
  enable: remote("allow a workflow's schedules and starts again", () => import('./verbs/enable.ts')),
  pause: remote('let starts and schedules wait', () => import('./verbs/pause.ts')),
  resume: remote('admit starts and schedules again', () => import('./verbs/resume.ts')),
  keys: remote('list, create and delete API keys', () => import('./verbs/keys.ts')),
  engines: remote('list engines', () => import('./verbs/engines.ts')),
  workers: remote('list workers and agents', () => import('./verbs/workers.ts')),
  drain: remote('let an engine finish and take nothing more', () => import('./verbs/drain.ts')),
  audit: remote('print who asked for what', () => import('./verbs/audit.ts')),
  doctor: remote('check configuration, server and Node.js', () => import('./verbs/doctor.ts')),
};

const aliases: Record<string, string> = { kill: 'stop' };

/** Runs one command line, without the program's name, and gives its exit code. */
export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  const cli = new Cli(terminal);
  try {
    await run(argv, cli);
    return cli.exitCode;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return exit.ok;
    const fault = error instanceof CommanderError ? new UsageError(error.message.replace(/^error: /, '')) : error;
    const json = argv.includes('--json');
    report(terminal, fault, json);
    if (fault instanceof UsageError && !json)
      terminal.err(`See ${spell(known(argv[0]) ? `${argv[0]} --help` : '--help')}\n`);
    return exitCodeOf(fault);
  }
}

const known = (name = ''): boolean => Object.hasOwn(verbs, name) || Object.hasOwn(aliases, name);

async function run(argv: readonly string[], cli: Cli): Promise<void> {
  const [first = '--help', ...rest] = argv;
  if (first === 'help' || first.startsWith('-')) {
    const [name] = rest;
    if (first === 'help' && name !== undefined) return run([name, '--help'], cli);
    await overview(cli.terminal).parseAsync(first === 'help' ? ['--help'] : [first], { from: 'user' });
    return;
  }
  const name = aliases[first] ?? first;
  const row = verbs[name];
  if (!known(first) || row === undefined) {
    // The overview knows every name, and so the one that was meant.
    await overview(cli.terminal).parseAsync([first], { from: 'user' });
    return;
  }
  const command = prepare(new Command(`fullstop ${name}`), cli.terminal).description(row.summary);
  const { define } = await row.load();
  define(command, cli);
  if (row.remote) {
    command
      .option('--url <url>', 'the server (FULLSTOP_URL); of workers and agents several, with commas')
      .option('--data <directory>', 'data directory that knows the server and its key (FULLSTOP_DATA)');
  }
  command.option('--json', 'print JSON');
  for (const sub of command.commands) prepare(sub, cli.terminal);
  await command.parseAsync(rest, { from: 'user' });
}

/** Every verb with its summary, nothing loaded. */
function overview(terminal: Terminal): Command {
  const program = prepare(new Command('fullstop'), terminal)
    .description('A workflow runtime in which stop means stop.')
    .usage('VERB [options]')
    .helpCommand(false)
    .version(version(), '-V, --version', 'print the version');
  for (const [name, { summary }] of Object.entries(verbs)) {
    const command = prepare(program.command(name), terminal).summary(summary).usage(' ');
    for (const [alias, target] of Object.entries(aliases)) if (target === name) command.alias(alias);
  }
  return program.addHelpText(
    'after',
    `
Start here:
  ${spell('serve')}         start a server on this machine
  ${spell('ps')}            see what runs
  ${spell('events -f ID')}  follow it
  ${spell('stop ID')}       stop it

Environment: FULLSTOP_URL and FULLSTOP_KEY say which server and with which key; on the server's machine
its data directory knows both. NO_COLOR turns colours off.
Exit codes: 0 ok, 1 failed, 2 usage, 3 stopped, 4 not found, 5 stop timed out.`,
  );
}

function prepare(command: Command, terminal: Terminal): Command {
  return command
    .exitOverride()
    .showSuggestionAfterError()
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.err(text),
      // Written once, with the others, by `report`.
      outputError: () => {},
      getOutHelpWidth: () => Math.min(terminal.columns(), 120),
      getOutHasColors: () => false,
    });
}

/** From the package's own description, in a checkout and in a package alike. */
function version(): string {
  return (createRequire(import.meta.url)('fullstop/package.json') as { version: string }).version;
}

/** Runs the command line of this process. */
export async function runProcess(): Promise<void> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `fullstop events -f ID | head`: nobody reads any more.
    if (error.code === 'EPIPE') process.exit(exit.ok);
    throw error;
  });
  process.exitCode = await main(process.argv.slice(2), processTerminal());
}
