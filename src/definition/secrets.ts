import type { SecretReference } from '../ports/work.ts';
import type { Json } from '../wire.ts';
import { parseTemplate, secretName } from './templates.ts';

/**
 * Where a `with`, as it stands in the file, names secrets. Rendering keeps these paths: the string at each of them
 * stays a string, and the references in it stay as text.
 *
 * `names` has one entry per reference, in the order of the string.
 */
export function secretReferences(value: Json): SecretReference[] {
  const found: SecretReference[] = [];
  collect(value, [], found);
  return found;
}

function collect(value: Json, path: SecretReference['path'], found: SecretReference[]): void {
  if (typeof value === 'string') {
    const names = (parseTemplate(value) ?? []).flatMap((part) =>
      typeof part === 'string' ? [] : (secretName(part.source) ?? []),
    );
    if (names.length > 0) found.push({ path, names });
  } else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) collect(item, [...path, index], found);
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) collect(item, [...path, key], found);
  }
}
