import { resolveConfig } from '../../config.ts';
import { workerProtocol } from '../../worker/protocol.ts';
import { type CommonOptions, type Define, spell } from '../cli.ts';
import { repeat } from '../values.ts';
import { camelCase, parseNames, parseSlots, prepareProcess, shareSettings, workUntilTold } from '../worker-process.ts';

interface Options extends CommonOptions {
  pool: string;
  allow: string;
  slots: string;
  name?: string;
}

export const agentSettings = shareSettings(['drainMs', 'logLevel']);

export const define: Define = (command, cli) => {
  command
    .requiredOption('--pool <name>', 'whose tasks it picks up; the one of its key')
    .requiredOption('--allow <tools>', 'programs that it runs, with commas: names in its PATH, or paths')
    .option('--slots <count>', `tasks at once, at most ${workerProtocol.slotsMax}`, '4')
    .option('--name <name>', "for people, in the list of workers (the host's name)");
  for (const { flag, placeholder, help, env, shown } of agentSettings) {
    command.option(`--${flag} <${placeholder.toLowerCase()}>`, `${help} (${env}; ${shown})`, repeat);
  }
  command
    .addHelpText(
      'after',
      `
Examples:
  ${spell('keys create scanner --role agent --pool datacentre-a')}
  FULLSTOP_KEY=fs_… ${spell('agent --url https://flows.example --pool datacentre-a --allow nmap,dig')}

It runs the allowed programs as they are, without a shell, in a folder of their own; a node's input is a JSON file
whose path is in FULLSTOP_INPUT. Allow no shell and no interpreter: with one, a workflow could run anything here.
No stop reaches what it has picked up: the node is Failed at once, the tool runs on, its result is discarded.
SIGTERM or Ctrl-C: it picks up nothing more, gives what runs --drain-ms, and ends the rest, which is lost to the
workflow. A second one ends it at once.`,
    )
    .action(
      cli.action(async () => {
        const { pool, allow, slots: slotsText, name, ...options } = command.opts<Options>();
        const given = command.opts<Record<string, string[]>>();
        const config = resolveConfig(
          cli.terminal.env,
          Object.fromEntries(agentSettings.map(({ flag }) => [flag, given[camelCase(flag)]])),
        );
        const slots = parseSlots(slotsText, workerProtocol.slotsMax);
        const tools = parseNames('--allow', allow);
        const { startAgent } = await import('../../agent/agent.ts');
        const process = await prepareProcess(cli, options, config.logLevel);
        const { url, key, clock, logger } = process;
        return workUntilTold(
          cli,
          () =>
            startAgent({
              url,
              key,
              pool,
              allow: tools,
              slots,
              env: cli.terminal.env,
              clock,
              logger,
              ...(name === undefined ? {} : { name }),
            }),
          {
            drainMs: config.drainMs,
            json: options.json === true,
            process,
            text: `picks up tasks of pool ${pool} of ${url}: ${tools.join(', ')}`,
            facts: { pool, tools, slots },
          },
        );
      }),
    );
};
