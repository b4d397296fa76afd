import { hasCode } from '../errors.ts';
import type { DefinitionFault } from '../wire.ts';
import { type Cli, exit, report } from './cli.ts';
import { count } from './table.ts';
import { plain } from './terminal.ts';

/**
 * Prints the faults of a definition as compilers do, `FILE:LINE: PATH: MESSAGE`, or the error as JSON. The exit code;
 * null when it is another error.
 */
export function printFaults(cli: Cli, file: string, error: unknown, json: boolean): number | null {
  if (!hasCode(error, 'FS_INVALID')) return null;
  const faults = (error as { details?: { faults?: DefinitionFault[] } | null }).details?.faults;
  if (!Array.isArray(faults) || faults.length === 0) return null;
  if (json) {
    report(cli.terminal, error, true);
    return exit.failed;
  }
  for (const fault of faults)
    cli.note(
      plain(
        `${file}:${fault.line === null ? '' : `${fault.line}:`} ${fault.path === '' ? '' : `${fault.path}: `}${fault.message}`,
      ),
    );
  cli.note(`${count(faults.length, 'fault')}; nothing was saved`);
  return exit.failed;
}
