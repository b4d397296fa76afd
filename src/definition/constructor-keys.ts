/**
 * cel-js takes an object's kind from its `constructor`, and so refuses data that has a key of that name. As a Map
 * it reads the same data well.
 *
 * `value` with such objects, at any depth, replaced by Maps; `value` itself when there are none.
 */
export function mapConstructorKeys(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) {
    const copy = value.map(mapConstructorKeys);
    return copy.some((item, i) => item !== value[i]) ? copy : value;
  }
  const entries = Object.entries(value).map(([key, item]) => [key, mapConstructorKeys(item)] as const);
  if (Object.hasOwn(value, 'constructor')) return new Map(entries);
  return entries.some(([key, item]) => item !== (value as Record<string, unknown>)[key])
    ? Object.fromEntries(entries)
    : value;
}
