import { expect } from 'chai';
import { loadDefinition } from '../../src/definition/compile.ts';
import type { CompiledWorkflow } from '../../src/definition/types.ts';
import type { DefinitionFault } from '../../src/wire.ts';

/** The error that `run` throws. */
export function thrownBy(run: () => unknown): { code: string; message: string; details: unknown } {
  try {
    run();
  } catch (error) {
    return error as { code: string; message: string; details: unknown };
  }
  throw new Error('expected an error');
}

/** The faults of a workflow file, which there must be. */
export function faultsOf(text: string, format: 'yaml' | 'json' = 'yaml'): DefinitionFault[] {
  const error = thrownBy(() => loadDefinition(text, format));
  expect(error.code, error.message).to.equal('FS_INVALID');
  return (error.details as { faults: DefinitionFault[] }).faults;
}

/** Expects exactly one fault. */
export function expectFault(text: string, path: string, line: number, message: string | RegExp): void {
  const faults = faultsOf(text);
  expect(faults, JSON.stringify(faults)).to.have.length(1);
  expect(faults[0]).to.include({ path, line });
  if (typeof message === 'string') expect(faults[0]?.message).to.equal(message);
  else expect(faults[0]?.message).to.match(message);
}

export function compiled(text: string): CompiledWorkflow {
  return loadDefinition(text, 'yaml').compiled;
}

/** A workflow of one `set` node, `a`, with more lines of YAML from line 3 on. */
export function workflow(...lines: string[]): string {
  return ['name: test', 'nodes:', ...lines].join('\n');
}
