import { compileDefinition } from '../definition/compile.ts';
import type { CompiledNode, CompiledWorkflow, Graph } from '../definition/types.ts';
import type { DefinitionRow, ExecutionStore } from '../ports/store.ts';

/** Compiled definitions kept in memory: the least recently used leave. */
const COMPILED_MAX = 1_000;

export interface KnownWorkflow {
  row: DefinitionRow;
  compiled: CompiledWorkflow;
}

/** Saved definitions as the engine runs them: compiled once per hash. */
export class Workflows {
  readonly #store: ExecutionStore;
  readonly #compiled = new Map<string, KnownWorkflow>();
  /** The last saved version by name; forgotten when the workflow changes. */
  readonly #last = new Map<string, KnownWorkflow>();
  readonly #triggers = new WeakMap<CompiledWorkflow, Set<string>>();

  constructor(store: ExecutionStore) {
    this.#store = store;
  }

  /** `reference`: NAME or NAME@HASH. null: not saved. */
  find(project: string, reference: string): KnownWorkflow | null | Promise<KnownWorkflow | null> {
    const at = reference.indexOf('@');
    if (at >= 0) return this.byHash(project, reference.slice(0, at), reference.slice(at + 1));
    const key = `${project}/${reference}`;
    const known = this.#last.get(key);
    if (known !== undefined) return known;
    return this.#store.getDefinition(project, reference).then((row) => {
      if (row === null) return null;
      const found = this.#compile(row);
      this.#last.set(key, found);
      return found;
    });
  }

  byHash(project: string, name: string, hash: string): KnownWorkflow | null | Promise<KnownWorkflow | null> {
    const known = this.#compiled.get(`${project}/${name}@${hash}`);
    if (known !== undefined) return known;
    return this.#store.getDefinition(project, name, hash).then((row) => (row === null ? null : this.#compile(row)));
  }

  changed(project: string, name: string): void {
    this.#last.delete(`${project}/${name}`);
    for (const key of this.#compiled.keys()) if (key.startsWith(`${project}/${name}@`)) this.#compiled.delete(key);
  }

  /** Any of them may have a newer version, or another switch. */
  forgetLast(): void {
    this.#last.clear();
    this.#compiled.clear();
  }

  #compile(row: DefinitionRow): KnownWorkflow {
    const key = `${row.project}/${row.name}@${row.hash}`;
    const known = this.#compiled.get(key);
    if (known !== undefined) return known;
    const found = { row, compiled: compileDefinition(row.source, row.hash) };
    this.#compiled.set(key, found);
    if (this.#compiled.size > COMPILED_MAX) {
      const oldest = this.#compiled.keys().next().value;
      if (oldest !== undefined) this.#compiled.delete(oldest);
    }
    return found;
  }

  /** Every trigger name that a hold of the workflow declares. */
  triggersOf(workflow: CompiledWorkflow): Set<string> {
    let names = this.#triggers.get(workflow);
    if (names === undefined) {
      names = new Set();
      collectTriggers(workflow.graph, names);
      this.#triggers.set(workflow, names);
    }
    return names;
  }
}

function collectTriggers(graph: Graph, names: Set<string>): void {
  for (const node of graph.nodes) {
    if (node.keys.trigger !== undefined) names.add(node.keys.trigger);
    if (node.body !== null) collectTriggers(node.body, names);
  }
}

/** The graph an execution runs: the workflow's, or the body of the foreach that started it. */
export function graphAt(workflow: CompiledWorkflow, bodyPath: string | null): Graph | null {
  if (bodyPath === null) return workflow.graph;
  let graph: Graph | null = workflow.graph;
  for (const name of bodyPath.split('/')) {
    const node: CompiledNode | undefined = graph?.byName.get(name);
    graph = node?.body ?? null;
  }
  return graph;
}
