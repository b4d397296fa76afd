import { type CommonOptions, type Define, spell } from '../cli.ts';

export const define: Define = (command, cli) => {
  command
    .addHelpText(
      'after',
      `\nExample:\n  ${spell('resume')}\n\nA stopped execution cannot be resumed: this is the counterpart of ${spell('pause')}.`,
    )
    .action(
      cli.action((options: CommonOptions) =>
        cli.withClient(options, async (client) => {
          await client.admission.set(false);
          if (options.json) cli.json({ paused: false });
          else cli.line('resumed: starts and schedules are admitted');
        }),
      ),
    );
};
