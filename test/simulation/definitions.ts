/**
 * Definitions, compiled once for all worlds and engines: a content hash always gives the same, and nobody changes it.
 * Stands where the engine imports `src/definition/compile.ts`; see `modules.ts`.
 */
import { compileDefinition as compile, type LoadedDefinition, loadDefinition } from '../../src/definition/compile.ts';
import type { CompiledWorkflow } from '../../src/definition/types.ts';

/** Those of some worlds: the least recently used leave. */
const MAX = 100;

const byHash = new Map<string, CompiledWorkflow>();
const byFile = new WeakMap<object, LoadedDefinition>();

export function compileDefinition(value: unknown, hash: string): CompiledWorkflow {
  const compiled = byHash.get(hash) ?? compile(value, hash);
  keep(hash, compiled);
  return compiled;
}

/** Of a workflow that does not change any more. */
export function definitionOf(workflow: object): LoadedDefinition {
  let loaded = byFile.get(workflow);
  if (loaded === undefined) {
    loaded = loadDefinition(workflow);
    byFile.set(workflow, loaded);
  }
  keep(loaded.hash, loaded.compiled);
  return loaded;
}

function keep(hash: string, compiled: CompiledWorkflow): void {
  byHash.delete(hash);
  byHash.set(hash, compiled);
  if (byHash.size <= MAX) return;
  const [oldest] = byHash.keys();
  if (oldest !== undefined) byHash.delete(oldest);
}
