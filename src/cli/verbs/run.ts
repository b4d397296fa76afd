import { stat } from 'node:fs/promises';
import { parse } from 'yaml';
import type { Client, ExecutionEvent, ExecutionResult, Json } from '../../client/index.ts';
import { messageOf } from '../../errors.ts';
import { type Cli, type CommonOptions, type Define, exit, Interrupted, spell, UsageError } from '../cli.ts';
import { printFaults } from '../definition-faults.ts';
import { span, statusStyle } from '../table.ts';
import { paint, plain } from '../terminal.ts';
import { parseLabels, parsePairs, readText, repeat } from '../values.ts';

interface Options extends CommonOptions {
  input?: string[];
  inputFile?: string;
  label?: string[];
  wait?: boolean;
  idempotencyKey?: string;
  project?: string;
}

export const define: Define = (command, cli) => {
  command
    .argument('<file-or-name>', 'a workflow file (saved first), or NAME or NAME@HASH of a saved workflow')
    .option(
      '-i, --input <name=value>',
      'one input; the value is JSON where it parses, else text; may be repeated',
      repeat,
    )
    .option('--input-file <file>', 'inputs as a JSON or YAML object; - reads stdin; --input wins over it')
    .option('-l, --label <name=value>', 'a label of the execution; may be repeated', repeat)
    .option('-w, --wait', 'wait for the end and print the outputs')
    .option('--idempotency-key <key>', 'the same key with the same request gives the first execution again')
    .option('--project <name>', 'for keys of all projects')
    .addHelpText(
      'after',
      `
Examples:
  ${spell('run perimeter-scan --input target=example.com --input retries=3')}
  ${spell('run ./scan.yaml --input-file inputs.json --label ticket=OPS-17 --wait')}

Prints the execution's id, with --wait its outputs. With --wait the exit code is 0 when it is Complete,
1 when it Failed, 3 when it was stopped. Ctrl-C ends the waiting, not the execution.`,
    )
    .action(
      cli.action(async (target: string, options: Options) => {
        const input = {
          ...(await readInputFile(cli, options.inputFile)),
          ...parsePairs('--input', options.input ?? []),
        };
        const labels = parseLabels(options.label ?? []);
        const inProject = options.project === undefined ? {} : { project: options.project };
        const text = (await isFile(target)) ? await readText(cli.terminal, target) : null;
        return cli.withClient(options, async (client) => {
          let workflow = target;
          if (text !== null) {
            try {
              const saved = await client.workflows.save(text, inProject);
              workflow = `${saved.name}@${saved.hash}`;
            } catch (error) {
              const code = printFaults(cli, target, error, options.json === true);
              if (code === null) throw error;
              return code;
            }
          }
          const execution = await client.executions.start({
            ...inProject,
            workflow,
            input,
            ...(Object.keys(labels).length > 0 ? { labels } : {}),
            ...(options.idempotencyKey === undefined ? {} : { idempotencyKey: options.idempotencyKey }),
          });
          if (options.wait) return wait(cli, client, execution.id, options.json === true);
          if (options.json) cli.json(execution);
          else cli.line(execution.id);
          if (cli.terminal.errIsTTY && !options.json) cli.note(`follow it: ${spell(`events -f ${execution.id}`)}`);
          return exit.ok;
        });
      }),
    );
};

async function isFile(target: string): Promise<boolean> {
  if (target === '-') return true;
  const exists = await stat(target).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!exists && (/\.(ya?ml|json)$/i.test(target) || target.includes('/')))
    throw new UsageError(`no such file: ${target}`);
  return exists;
}

async function readInputFile(cli: Cli, file: string | undefined): Promise<Record<string, Json>> {
  if (file === undefined) return {};
  const text = await readText(cli.terminal, file);
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new UsageError(`--input-file: ${file} is neither JSON nor YAML: ${messageOf(error)}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UsageError(
      `--input-file: expected an object in ${file}, found ${Array.isArray(value) ? 'a list' : String(value)}`,
    );
  }
  return value as Record<string, Json>;
}

async function wait(cli: Cli, client: Client, id: string, json: boolean): Promise<number> {
  const { signal, done } = cli.interruptible();
  try {
    if (cli.terminal.errIsTTY) {
      cli.note(`execution ${id}`);
      await showProgress(cli, client.executions.events(id, { signal }));
    }
    const result = await client.executions.result(id, { signal });
    if (json) cli.json({ id, ...result });
    else {
      cli.note(
        `${id}  ${paint(cli.terminal, statusStyle(result.status, result.stoppedByUser), result.status, 'err')}${result.error === null ? '' : `: ${plain(result.error)}`}`,
      );
      if (result.status === 'Complete') cli.json(result.outputs);
    }
    return waitExitCode(result);
  } catch (error) {
    if (error instanceof Interrupted)
      cli.note(`\nnot waiting any more; ${id} goes on. Stop it: ${spell(`stop ${id}`)}`);
    throw error;
  } finally {
    done();
  }
}

function waitExitCode(result: ExecutionResult): number {
  if (result.stoppedByUser) return exit.stopped;
  return result.status === 'Complete' ? exit.ok : exit.failed;
}

const outcomes: Partial<Record<ExecutionEvent['type'], string>> = {
  'node.completed': 'Complete',
  'node.failed': 'Failed',
  'node.skipped': 'Skipped',
  'node.held': 'Held',
};

/** A line for each node as it ends, and one that is overwritten for loops, whose bodies may end a million times. */
async function showProgress(cli: Cli, events: AsyncIterable<ExecutionEvent>): Promise<void> {
  const startedAt = new Map<string, number>();
  let overwritten = '';
  let paintedAt = 0;
  for await (const event of events) {
    if (event.node === undefined) continue;
    if (event.type === 'iteration.started') {
      if (Date.now() - paintedAt < 100) continue;
      paintedAt = Date.now();
      overwritten = `  ${event.node} ${event.iterations?.join('/') ?? ''}`;
      cli.terminal.err(`\r${overwritten}\u001b[K`);
      continue;
    }
    if (event.iterations !== undefined && event.iterations.length > 0) continue;
    if (event.type === 'node.started') startedAt.set(event.node, Date.parse(event.at));
    const status = outcomes[event.type];
    if (status === undefined) continue;
    if (overwritten !== '') cli.terminal.err('\r\u001b[K');
    overwritten = '';
    const start = startedAt.get(event.node);
    const duration = start === undefined ? '' : `  ${span(Date.parse(event.at) - start)}`;
    cli.note(`  ${paint(cli.terminal, statusStyle(status), status.padEnd(8), 'err')}  ${plain(event.node)}${duration}`);
  }
  if (overwritten !== '') cli.terminal.err('\r\u001b[K');
}
