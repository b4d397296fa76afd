import { type CommonOptions, type Define, spell } from '../cli.ts';
import { jsonOrText, readText } from '../values.ts';

interface Options extends CommonOptions {
  payload?: string;
  payloadFile?: string;
}

export const define: Define = (command, cli) => {
  command
    .argument('<id>', 'the execution')
    .argument('<name>', "the trigger's name")
    .option('--payload <value>', 'the output of the hold; JSON where it parses, else text')
    .option('--payload-file <file>', 'the same from a file; - reads stdin')
    .addHelpText(
      'after',
      `\nExample:\n  ${spell(`trigger 0190f0c2-8a1b-7c3d-9e4f-5a6b7c8d9e0f approve --payload '{"by": "night shift"}'`)}`,
    )
    .action(
      cli.action(async (id: string, name: string, options: Options) => {
        const text =
          options.payloadFile === undefined ? options.payload : await readText(cli.terminal, options.payloadFile);
        return cli.withClient(options, async (client) => {
          const answer = await client.executions.trigger(id, name, text === undefined ? undefined : jsonOrText(text));
          if (options.json) cli.json(answer);
          else cli.line(answer.duplicate ? 'accepted before: it waits for its hold' : 'accepted');
        });
      }),
    );
};
