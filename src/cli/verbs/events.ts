import type { ExecutionEvent } from '../../client/index.ts';
import { type CommonOptions, type Define, exit, Interrupted, spell } from '../cli.ts';
import { paint, plain, type Style } from '../terminal.ts';
import { parseCount } from '../values.ts';

interface Options extends CommonOptions {
  follow?: boolean;
  from: string;
}

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .option('-f, --follow', 'stay until the execution ends')
    .option('--from <seq>', 'first event', '1')
    .addHelpText(
      'after',
      `
Examples:
  ${spell('events -f 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}
  ${spell('events --from 120 --json 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f')}

With --json: one JSON value per line.`,
    )
    .action(
      cli.action((id: string, options: Options) => {
        const from = parseCount('--from', options.from);
        const print = (event: ExecutionEvent): void => {
          if (options.json) cli.jsonLine(event);
          else cli.line(eventLine(event, (style, text) => paint(cli.terminal, style, text), cli.terminal.columns()));
        };
        return cli.withClient(options, async (client) => {
          if (!options.follow) {
            for (let next = from; ; ) {
              const page = await client.executions.eventPage(id, next);
              for (const event of page.items) print(event);
              if (page.items.length === 0) return exit.ok;
              next = page.nextFrom;
            }
          }
          const { signal, done } = cli.interruptible();
          try {
            for await (const event of client.executions.events(id, { from, signal })) print(event);
            return exit.ok;
          } catch (error) {
            if (error instanceof Interrupted) return error.exitCode;
            throw error;
          } finally {
            done();
          }
        });
      }),
    );
};

/** Of the longest type. */
const TYPE_WIDTH = 19;

function eventLine(
  event: ExecutionEvent,
  color: (style: Style | undefined, text: string) => string,
  columns: number,
): string {
  const place = [
    event.node,
    event.iterations?.length ? `[${event.iterations.join(',')}]` : '',
    event.attempt !== undefined && event.attempt > 1 ? `try ${event.attempt}` : '',
  ]
    .filter((part) => part)
    .join(' ');
  const head = `${event.at}  ${String(event.seq).padStart(6)}  `;
  const data = event.data === undefined || event.data === null ? '' : JSON.stringify(event.data);
  const tail = plain(`  ${place.padEnd(16)}  ${data}`).trimEnd();
  if (tail === '') return head + color(styleOf(event.type), event.type);
  const room = columns - head.length - TYPE_WIDTH;
  const fitted = tail.length > room ? `${tail.slice(0, Math.max(0, room - 1))}…` : tail;
  return head + color(styleOf(event.type), event.type.padEnd(TYPE_WIDTH)) + fitted;
}

function styleOf(type: ExecutionEvent['type']): Style | undefined {
  if (type.endsWith('.failed')) return 'red';
  if (type.endsWith('.completed')) return 'green';
  return type.startsWith('stop.') || type === 'task.aborting' || type === 'task.aborted' ? 'yellow' : undefined;
}
