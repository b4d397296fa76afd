/** `npm run soak -- --minutes N`: the suite `soak` for as long as is asked. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '30' }, help: { type: 'boolean' } } });
const minutes = Number(values.minutes);
if (values.help === true || !(minutes > 0)) {
  console.error('npm run soak -- --minutes N: three engines under faults for N minutes (30); SEED=N repeats one');
  process.exit(values.help === true ? 0 : 2);
}
const { status } = spawnSync(process.execPath, [join(import.meta.dirname, '..', 'support', 'run.ts'), 'soak'], {
  stdio: 'inherit',
  env: { ...process.env, SOAK_MS: String(minutes * 60_000) },
});
process.exitCode = status ?? 1;
