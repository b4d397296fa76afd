import type { CompiledNode, Graph } from '../definition/types.ts';
import type { ExpressionScope } from '../ports/expressions.ts';
import type { ExecutionHost } from './execution-host.ts';
import { attemptId } from './identity.ts';
import { chain, put } from './maybe-promise.ts';
import type { Scope, Slot } from './slot.ts';

/** Outputs larger than this are read from the store when an expression needs them. */
const OUTPUT_IN_MEMORY_BYTES = 65_536;

/** What the expressions of one execution see: input, outputs of nodes, iterations, items. */
export class ExpressionData {
  readonly #host: ExecutionHost;

  constructor(host: ExecutionHost) {
    this.#host = host;
  }

  /** The outputs of the execution itself. */
  outputs(): unknown | Promise<unknown> {
    const { outputs } = this.#host.workflow;
    if (outputs !== null && this.#host.header.bodyPath === null) {
      const scope = this.#expressionScope(this.#host.root, this.#host.workflow.outputReads, null);
      return chain(scope, (ready) => this.#host.env.expressions.render(outputs, ready));
    }
    const nodes = this.#host.header.bodyPath === null ? this.#host.root.graph.leaves : this.#host.root.graph.nodes;
    return this.outputsOf(this.#host.root, nodes);
  }

  /** The outputs of these nodes, by name; null for one that has none. */
  outputsOf(scope: Scope, nodes: readonly CompiledNode[]): Record<string, unknown> | Promise<Record<string, unknown>> {
    const found: Record<string, unknown> = {};
    const waits: Promise<void>[] = [];
    for (const node of nodes) {
      const slot = scope.slots[node.index];
      const output = slot === undefined ? null : this.#outputOf(slot);
      found[node.name] = null;
      put(output, waits, (value) => {
        found[node.name] = value;
      });
    }
    return waits.length === 0 ? found : Promise.all(waits).then(() => found);
  }

  /** What the expressions of a node see. */
  scopeOf(slot: Slot): ExpressionScope | Promise<ExpressionScope> {
    return this.#expressionScope(slot.scope, slot.node.reads, null);
  }

  /** What a loop's condition sees before its iteration `index`. */
  loopScope(slot: Slot, index: number): ExpressionScope | Promise<ExpressionScope> {
    const last = index === 0 ? null : this.#lastOf(slot);
    return chain(last, (value) => this.#expressionScope(slot.scope, slot.node.reads, { index, last: value }));
  }

  #lastOf(slot: Slot): Record<string, unknown> | null | Promise<Record<string, unknown> | null> {
    if (slot.last !== undefined) return slot.last;
    // Restored: the iteration before the current one, or the current one where that is over.
    const over = slot.body?.over === true;
    if (over && slot.body !== null)
      return chain(this.outputsOf(slot.body, slot.body.graph.nodes), (value) => (slot.last = value));
    const body = slot.node.body as Graph;
    const iterations = [...slot.scope.iterations, `${slot.index - 1}@${slot.attempt}`];
    return this.#host
      .read(() => this.#host.env.store.load(this.#host.header.id))
      .then(async (stored) => {
        const last: Record<string, unknown> = {};
        for (const node of body.nodes) {
          const row = stored?.nodes.find((r) => r.path === node.path && r.iterations.join() === iterations.join());
          const output =
            row?.hasOutput === true
              ? await this.#host.read(() =>
                  this.#host.env.store.readResult(attemptId(this.#host.header.id, row.key, row.attempt)),
                )
              : null;
          last[node.name] = output ?? null;
        }
        slot.last = last;
        return last;
      });
  }

  #expressionScope(
    scope: Scope,
    reads: readonly string[],
    iter: { index: number; last: Record<string, unknown> | null } | null,
  ): ExpressionScope | Promise<ExpressionScope> {
    const base = this.#host.env.expressionRoots(this.#host);
    const nodes: ExpressionScope['nodes'] = {};
    const result: ExpressionScope = { input: base.input, nodes, execution: base.execution };
    if (base.item !== undefined) {
      result.item = base.item.item;
      result.itemIndex = base.item.itemIndex;
    }
    const waits: Promise<void>[] = [];
    if (iter !== null) result.iter = iter;
    else {
      const loop = this.#loopAround(scope);
      if (loop !== null) {
        const last = loop.index === 0 ? null : loop.host.data.#lastOf(loop);
        put(last, waits, (value) => {
          result.iter = { index: loop.index, last: value };
        });
      }
    }
    for (const name of reads) {
      const found = this.#find(scope, name);
      if (found === null) continue;
      const entry = { output: null as unknown, status: found.status as string, error: found.error };
      nodes[name] = entry;
      const output = found.host.data.#outputOf(found);
      put(output, waits, (value) => {
        entry.output = value;
      });
    }
    return waits.length === 0 ? result : Promise.all(waits).then(() => result);
  }

  /** The loop in whose body this is, also across a foreach into its parent. */
  #loopAround(scope: Scope): Slot | null {
    if (scope.outer !== null) return scope.outer;
    const above = this.#host.header.bodyPath === null ? null : this.#host.env.parentSlot(this.#host);
    return above === null ? null : above.host.data.#loopAround(above.scope);
  }

  /** The node of that name in this scope or an enclosing one, also across a foreach into its parent. */
  #find(scope: Scope, name: string): Slot | null {
    for (let place: Scope | null = scope; place !== null; place = place.outer?.scope ?? null) {
      const node = place.graph.byName.get(name);
      if (node !== undefined) return place.slots[node.index] ?? null;
    }
    const above = this.#host.header.bodyPath === null ? null : this.#host.env.parentSlot(this.#host);
    return above === null ? null : above.host.data.#find(above.scope, name);
  }

  #outputOf(slot: Slot): unknown | Promise<unknown> {
    if (!slot.hasOutput) return null;
    if (slot.output !== undefined) return slot.output;
    return this.#host
      .read(() => this.#host.env.store.readResult(slot.attemptId))
      .then((value) => {
        const output = value ?? null;
        if (!isBig(output)) slot.output = output;
        return output;
      });
  }
}

/** Whether an output is too big to be kept in memory beside the store. */
export function isBig(output: unknown): boolean {
  return exceeds(output, OUTPUT_IN_MEMORY_BYTES) > OUTPUT_IN_MEMORY_BYTES;
}

/** A rough size in bytes of a JSON value; stops counting beyond `limit`. */
function exceeds(value: unknown, limit: number): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null || limit < 0) return 8;
  let size = 16;
  for (const key in value) {
    size += key.length + exceeds((value as Record<string, unknown>)[key], limit - size);
    if (size > limit) break;
  }
  return size;
}
