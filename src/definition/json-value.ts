import { Duration, UnsignedInt } from '@marcbachmann/cel-js/evaluator';

/** Bound on the values of one result: above it, its JSON would be tens of megabytes. */
const valuesMax = 1_000_000;
/** Bound on the text of one result, in UTF-16 units: shared parts of a value count each time they appear. */
export const textMax = 32 * 2 ** 20;

interface Budget {
  values: number;
  text: number;
}

/**
 * What CEL gave, as JSON: integers become numbers, maps and sets objects and lists, bytes base64, timestamps and
 * durations their text. What is JSON already is returned as it is, not copied.
 * @throws Error for what has no JSON form, and for results beyond the bounds.
 */
export function toJson(value: unknown): unknown {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value;
    case 'number':
      return finite(value);
    case 'bigint':
      return safe(value);
    default:
      return convert(value, { values: valuesMax, text: textMax });
  }
}

function convert(value: unknown, budget: Budget): unknown {
  if (--budget.values < 0) throw new RangeError(`the result holds more than ${valuesMax} values`);
  switch (typeof value) {
    case 'string':
      spendText(value, budget);
      return value;
    case 'boolean':
      return value;
    case 'number':
      return finite(value);
    case 'bigint':
      return safe(value);
    case 'object':
      return value === null ? null : convertObject(value, budget);
    default:
      throw new TypeError(`the result holds a ${typeof value}, which JSON does not have`);
  }
}

function convertObject(value: object, budget: Budget): unknown {
  if (Array.isArray(value)) return convertList(value, budget);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null)
    return convertPlain(value as Record<string, unknown>, budget);
  if (value instanceof Map) return convertMap(value, budget);
  if (value instanceof Set) return convertList([...value], budget);
  if (value instanceof Uint8Array) return convert(Buffer.from(value).toString('base64'), budget);
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Duration) return value.toString();
  if (value instanceof UnsignedInt) return safe(value.valueOf());
  throw new TypeError('the result is a type or an optional, which JSON does not have');
}

function convertList(list: unknown[], budget: Budget): unknown[] {
  let copy: unknown[] | null = null;
  for (let i = 0; i < list.length; i++) {
    const converted = convert(list[i], budget);
    if (converted !== list[i]) copy ??= list.slice(0, i);
    copy?.push(converted);
  }
  return copy ?? list;
}

function convertPlain(value: Record<string, unknown>, budget: Budget): unknown {
  const keys = Object.keys(value);
  let copy: [string, unknown][] | null = null;
  for (const [i, key] of keys.entries()) {
    spendText(key, budget);
    const converted = convert(value[key], budget);
    if (converted !== value[key]) copy ??= keys.slice(0, i).map((before) => [before, value[before]]);
    copy?.push([key, converted]);
  }
  // Defines keys, so that one named `__proto__` stays a key.
  return copy === null ? value : Object.fromEntries(copy);
}

function convertMap(map: Map<unknown, unknown>, budget: Budget): unknown {
  const entries: [string, unknown][] = [];
  for (const [key, value] of map) {
    spendText(String(key), budget);
    entries.push([String(key), convert(value, budget)]);
  }
  return Object.fromEntries(entries);
}

function spendText(text: string, budget: Budget): void {
  budget.text -= text.length;
  if (budget.text < 0) throw new RangeError(`the result holds more than ${textMax} characters`);
}

function finite(value: number): number {
  if (Number.isFinite(value)) return value;
  throw new RangeError(`the result ${value} is not a JSON number`);
}

function safe(value: bigint): number {
  const number = Number(value);
  if (Number.isSafeInteger(number)) return number;
  throw new RangeError(`the integer ${value} is beyond what JSON numbers hold exactly`);
}
