import type { ErrorObject, ValidateFunction } from 'ajv';
import { RE2JS } from 're2js';
import { BoundedCache } from '../definition/bounded-cache.ts';
import { FullstopError, messageOf } from '../errors.ts';

/** What is wrong with a value, or null. */
export type Fits = (value: unknown) => string | null;

const compiled = new BoundedCache<string, Fits>(50);

/**
 * The check of a JSON Schema: draft 2020-12, or draft 7 where `$schema` says so. `format` is a remark, and `pattern`
 * goes to RE2, because a backtracking one could hold the event loop.
 * @throws FS_INVALID when it is no schema.
 */
export async function fitsOf(schema: Record<string, unknown>): Promise<Fits> {
  const key = JSON.stringify(schema);
  const known = compiled.get(key);
  if (known !== undefined) return known;
  const isDraft7 = /draft-0[67]/.test(String(schema['$schema'] ?? ''));
  const { Ajv } = isDraft7 ? await import('ajv') : { Ajv: (await import('ajv/dist/2020.js')).Ajv2020 };
  let validate: ValidateFunction;
  try {
    const { $schema: _, ...rules } = schema;
    validate = new Ajv({ strict: false, validateFormats: false, logger: false, code: { regExp } }).compile(rules);
  } catch (error) {
    throw new FullstopError('FS_INVALID', `with.schema: ${messageOf(error)}`);
  }
  const fits: Fits = (value) => (validate(value) === true ? null : describe(validate.errors?.[0]));
  compiled.set(key, fits);
  return fits;
}

const regExp = Object.assign(
  (pattern: string) => {
    const re = RE2JS.compile(pattern);
    // The library tells expressions apart by their text.
    return { test: (text: string) => re.matcher(text).find(), toString: () => pattern };
  },
  { code: '' },
);

function describe(error: ErrorObject | undefined): string {
  const place = error?.instancePath.slice(1).replaceAll('/', '.') ?? '';
  return `${place === '' ? 'it' : place} ${error?.message ?? 'does not fit'}`;
}
