/** docs/configuration.md, from the table that the program itself reads. */

import { agentSettings } from '../../src/cli/verbs/agent.ts';
import { workerSettings } from '../../src/cli/verbs/worker.ts';
import { type Setting, settings } from '../../src/config.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|');

function row({ env, flag, placeholder, help, shown, expected, key }: Setting): string {
  const readers = ['serve'];
  if (workerSettings.some((setting) => setting.key === key)) readers.push('worker');
  if (agentSettings.some((setting) => setting.key === key)) readers.push('agent');
  const cells = [`\`${env}\``, `\`--${flag} ${placeholder}\``, readers.join(', '), shown, `${help}. Takes ${expected}`];
  return `| ${cells.map(cell).join(' | ')} |`;
}

export function renderConfigurationDocs(): string {
  return `# Configuration

<!-- Made from src/config.ts by \`npm run check -- --write\`. -->

By environment variables, or flags of the same meaning, which win. \`fullstop doctor\` shows what a server would run with,
and where each value comes from. An unknown \`FULLSTOP_\` variable is refused, so that none is misspelt in silence.

| variable | flag | read by | default | meaning |
|---|---|---|---|---|
${settings.map(row).join('\n')}

The other verbs, \`fullstop worker\` and \`fullstop agent\` find their server by these:

| variable | flag | default | meaning |
|---|---|---|---|
| \`FULLSTOP_URL\` | \`--url URL\` | what the server wrote into the data directory, else http://127.0.0.1:4747 | where the server is; for workers and agents several engines, with commas between them |
| \`FULLSTOP_KEY\` | none: it would show in the process list | on the server's machine \`FULLSTOP_ADMIN_KEY\`, else the key in the data directory | which key to use |
| \`FULLSTOP_DATA\` | \`--data DIRECTORY\` | ./data | the data directory to look into for both |
| \`NO_COLOR\` | | | set to anything, nothing is coloured |

A tool of an External Agent and a container find the JSON file of their \`input\` by \`FULLSTOP_INPUT\`, which Fullstop sets.
`;
}
