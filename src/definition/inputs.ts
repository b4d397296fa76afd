import { isDeepStrictEqual } from 'node:util';
import type { DefinitionFault, Json } from '../wire.ts';
import { formatPath } from './names.ts';
import { isObject } from './outline.ts';
import type { CompiledWorkflow, InputSpec } from './types.ts';

/**
 * The input of a start, with defaults filled in; or every reason why it does not fit.
 *
 * An input that is not required, has no default and is not given is left out: `has(input.NAME)` tells.
 */
export function checkInput(
  workflow: Pick<CompiledWorkflow, 'inputs'>,
  input: unknown,
): { input: Record<string, Json> } | { faults: DefinitionFault[] } {
  const faults: DefinitionFault[] = [];
  const add = (name: string | null, message: string) => {
    faults.push({ path: formatPath(name === null ? ['input'] : ['input', name]), line: null, message });
  };
  const given = input ?? {};
  if (!isObject(given)) {
    add(null, 'expected an object of inputs by name');
    return { faults };
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(workflow.inputs, name)) add(name, `the workflow has no input "${name}"`);
  }
  const complete: Record<string, Json> = {};
  for (const [name, spec] of Object.entries(workflow.inputs)) {
    const value = Object.hasOwn(given, name) ? given[name] : spec.default;
    if (value === undefined) {
      if (spec.required) add(name, `the input "${name}" is required`);
      continue;
    }
    const message = inputFault(spec, value);
    if (message === null) complete[name] = value as Json;
    else add(name, message);
  }
  return faults.length === 0 ? { input: complete } : { faults };
}

/** What is wrong with the value of an input; null when nothing is. */
export function inputFault(spec: Pick<InputSpec, 'type' | 'enum'>, value: unknown): string | null {
  const found = Array.isArray(value) ? 'array' : value === null ? 'null' : typeof value;
  if (found !== spec.type || (found === 'number' && !Number.isFinite(value)))
    return `expected ${spec.type}, found ${found}`;
  if (spec.enum === undefined || spec.enum.some((allowed) => isDeepStrictEqual(allowed, value))) return null;
  return `expected one of ${JSON.stringify(spec.enum).slice(1, -1)}, found ${JSON.stringify(value).slice(0, 100)}`;
}
