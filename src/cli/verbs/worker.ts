import { hostname } from 'node:os';
import { resolveConfig } from '../../config.ts';
import { workerProtocol } from '../../worker/protocol.ts';
import { type CommonOptions, type Define, spell, UsageError } from '../cli.ts';
import { count } from '../table.ts';
import { repeat } from '../values.ts';
import {
  camelCase,
  needsOf,
  parseNames,
  parseSlots,
  prepareProcess,
  shareSettings,
  workUntilTold,
} from '../worker-process.ts';

interface Options extends CommonOptions {
  capabilities?: string;
  slots: string;
  name?: string;
}

export const workerSettings = shareSettings([
  'httpAllow',
  'dockerHost',
  'images',
  'models',
  'secrets',
  'drainMs',
  'logLevel',
]);

export const define: Define = (command, cli) => {
  command
    .option('--capabilities <types>', 'node types that it runs, with commas; default: all that it can')
    .option('--slots <count>', `tasks at once, at most ${workerProtocol.slotsMax}`, '16')
    .option('--name <name>', "for people, in the list of workers (the host's name)");
  for (const { flag, placeholder, help, env, shown } of workerSettings) {
    command.option(`--${flag} <${placeholder.toLowerCase()}>`, `${help} (${env}; ${shown})`, repeat);
  }
  command
    .addHelpText(
      'after',
      `
Examples:
  ${spell('keys create build-1 --role worker --project web --capability container')}
  FULLSTOP_KEY=fs_… ${spell('worker --url http://10.0.0.5:4747 --capabilities container --slots 4')}
  ${spell('worker --capabilities http,ai --slots 64')}

It runs tasks of the project of its key (FULLSTOP_KEY, of the role worker). A stop ends them for real: by a message,
by the next heartbeat when that is lost, and by itself when it has reached no engine for ${workerProtocol.workerLeaseMs / 1_000} s.
SIGTERM or Ctrl-C: it takes nothing more, gives what runs --drain-ms, and aborts the rest, which runs again elsewhere.
A second one ends it at once.`,
    )
    .action(
      cli.action(async () => {
        const { capabilities, slots: slotsText, name, ...options } = command.opts<Options>();
        const given = command.opts<Record<string, string[]>>();
        const config = resolveConfig(
          cli.terminal.env,
          Object.fromEntries(workerSettings.map(({ flag }) => [flag, given[camelCase(flag)]])),
        );
        const slots = parseSlots(slotsText, workerProtocol.slotsMax);
        const asked = capabilities === undefined ? null : parseNames('--capabilities', capabilities);
        const [{ claimInstallation, openContainers, reapLeftovers }, { createExecutors }, { startWorker }] =
          await Promise.all([
            import('../../worker/containers.ts'),
            import('../../worker/executors.ts'),
            import('../../worker/worker.ts'),
          ]);
        const { installation, release } = claimInstallation(name ?? hostname());
        const containers = openContainers(config, installation);
        const all = createExecutors({ config, env: cli.terminal.env, containers });
        const offered = asked ?? [...all.keys()];
        const unknown = offered.filter((type) => !all.has(type));
        if (unknown.length > 0) {
          throw new UsageError(
            `--capabilities: expected some of ${[...all.keys()].join(', ')}, found ${unknown.map((type) => `${type}${needsOf(type)}`).join(', ')}`,
          );
        }
        const process = await prepareProcess(cli, options, config.logLevel);
        const { url, key, clock, logger } = process;
        const executors = new Map([...all].filter(([type]) => offered.includes(type)));
        await Promise.all([...all].filter(([type]) => !offered.includes(type)).map(([, unused]) => unused.close()));
        const stopReaping =
          containers === null || !offered.includes('container')
            ? null
            : reapLeftovers(containers, (message) => logger.warn(message));
        return workUntilTold(
          cli,
          () =>
            startWorker({
              url,
              key,
              capabilities: offered,
              slots,
              executors,
              clock,
              logger,
              ...(name === undefined ? {} : { name }),
            }),
          {
            drainMs: config.drainMs,
            json: options.json === true,
            process,
            text: `takes tasks of ${url}: ${offered.join(', ')}, ${count(slots, 'slot')}`,
            facts: { capabilities: offered, slots },
          },
        ).finally(() => {
          stopReaping?.();
          release();
        });
      }),
    );
};
