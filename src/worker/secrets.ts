import { FullstopError } from '../errors.ts';

const reference = /\$\{\{\s*secrets\.([A-Za-z_]\w*)\s*\}\}/;

/**
 * Fails a task that still holds a reference to a secret: this version has nowhere to look one up, and the text
 * of the reference must not travel in its place.
 * @throws FS_INVALID
 */
export function refuseSecrets(value: unknown): void {
  if (typeof value === 'string') {
    const name = reference.exec(value)?.[1];
    if (name !== undefined)
      throw new FullstopError('FS_INVALID', `secrets.${name} is not available: no secret store is set up`);
  } else if (typeof value === 'object' && value !== null) {
    for (const item of Object.values(value)) refuseSecrets(item);
  }
}
