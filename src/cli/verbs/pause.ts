import { type CommonOptions, type Define, spell } from '../cli.ts';

export const define: Define = (command, cli) => {
  command
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('pause')}\n\nStarts and schedules wait as Pending until ${spell('resume')}; what runs goes on.`,
    )
    .action(
      cli.action((options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          await client.admission.set(true);
          if (options.json) cli.json({ paused: true });
          else cli.line(`paused: starts and schedules wait until ${spell('resume')}`);
        }),
      ),
    );
};
