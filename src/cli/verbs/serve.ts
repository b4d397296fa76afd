import { type Config, resolveConfig, settings } from '../../config.ts';
import { FullstopError } from '../../errors.ts';
import { type Define, exit, spell } from '../cli.ts';
import { plain } from '../terminal.ts';
import { repeat } from '../values.ts';

export const define: Define = (command, cli) => {
  for (const setting of settings) {
    command.option(
      `--${setting.flag} <${setting.placeholder.toLowerCase()}>`,
      `${setting.help} (${setting.env}; ${setting.shown})`,
      repeat,
    );
  }
  command
    .addHelpText(
      'after',
      `
Examples:
  ${spell('serve')}
  ${spell('serve --port 0 --data /var/lib/fullstop --demo 0')}

SIGTERM or Ctrl-C ends it: nothing more is admitted, running attempts get --drain-ms, and what they do not
finish goes on after the next start, or at the other engines of MONGODB_URI. A second one ends it at once.`,
    )
    .action(
      cli.action(async () => {
        const { json, ...given } = command.opts<Record<string, string[]> & { json?: boolean }>();
        const flags = Object.fromEntries(settings.map(({ flag }) => [flag, given[camelCase(flag)]]));
        const config = resolveConfig(cli.terminal.env, flags);
        const [{ startServer }, { destination, pino }] = await Promise.all([
          import('../../runtime.ts'),
          import('pino'),
        ]);

        let signalled = 0;
        let stop = (): void => {};
        const ended = new Promise<void>((resolve) => {
          stop = resolve;
        });
        const done = cli.terminal.onSignal((signal) => {
          signalled += 1;
          if (signalled > 1) cli.terminal.exitNow(signal === 'SIGINT' ? 130 : 143);
          if (cli.terminal.errIsTTY) cli.note('ending: running attempts are given their time, once more ends at once');
          stop();
        });
        try {
          const server = await startServer(config, pino({ level: config.logLevel }, destination(2))).catch(
            (error: unknown) => {
              throw withRemedy(error, config);
            },
          );
          if (json) cli.jsonLine({ url: server.url, firstVisitUrl: server.firstVisitUrl, demo: server.demo });
          else cli.terminal.out(welcome(server));
          await Promise.race([ended, server.drained]);
          await server.close();
        } finally {
          done();
        }
        // Everything is durable: whatever still keeps this process alive has no say.
        cli.terminal.exitNow(exit.ok);
      }),
    );
};

/** What the system says about an address or a directory, with what to do about it. */
function withRemedy(error: unknown, config: Config): unknown {
  const { code } = error as { code?: string };
  const remedies: Record<string, string> = {
    EADDRINUSE: `port ${config.port} of ${config.host} is taken: end what listens there, or choose another with --port (0 picks a free one)`,
    EADDRNOTAVAIL: `${config.host} is no address of this machine: choose one of its own with --host`,
    EACCES: `not allowed to listen on port ${config.port} or to write ${config.dataDir}: choose others with --port and --data`,
    ENOTFOUND: `${config.host} is no known host: choose an address of this machine with --host`,
  };
  const remedy = code === undefined ? undefined : remedies[code];
  return remedy === undefined ? error : new FullstopError('FS_UNAVAILABLE', remedy, { cause: error });
}

const camelCase = (flag: string): string => flag.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

function welcome(server: {
  url: string;
  firstVisitUrl: string;
  demo: { name: string; executionId: string }[];
}): string {
  const [first] = server.demo;
  const id = first?.executionId ?? 'ID';
  const lines = ['', `  Fullstop listens at ${server.url}`, '', `  Open   ${server.firstVisitUrl}`];
  if (server.demo.length > 0) {
    lines.push('', '  Running, for you to stop:');
    for (const { name, executionId } of server.demo) lines.push(`    ${executionId}  ${plain(name)}`);
  }
  lines.push(
    '',
    '  Try, in another terminal:',
    `    ${spell('ps')}`,
    `    ${spell(`events -f ${id}`)}`,
    `    ${spell(`stop ${id}`)}`,
    '',
    '',
  );
  return lines.join('\n');
}
