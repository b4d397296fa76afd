import { FullstopError } from '../errors.ts';
import type { Task } from '../ports/work.ts';

/**
 * Fails a task whose definition names a secret: this version has nowhere to look one up, and the text of the
 * reference must not travel in its place. The same text elsewhere in `with` is data.
 * @throws FS_INVALID
 */
export function refuseSecrets({ secrets }: Task): void {
  const name = secrets[0]?.names[0];
  if (name !== undefined) {
    throw new FullstopError('FS_INVALID', `secrets.${name} is not available: no secret store is set up`);
  }
}
