import type { OutlineGraph, OutlineNode } from './outline.ts';

/** What the nodes of one graph need, directly and through others. */
export class Reachability {
  /** Cycles among the needs, each as its nodes in order of need; at most one through each node. */
  readonly cycles: OutlineNode[][] = [];
  /** Per node a bit for each node it needs. */
  readonly #closures: Uint32Array[];

  constructor(graph: OutlineGraph) {
    const order = this.#order(graph);
    const words = Math.ceil(graph.nodes.length / 32);
    this.#closures = graph.nodes.map(() => new Uint32Array(words));
    for (const node of order) this.#close(node);
    // Around a cycle one pass in this order misses something: repeat until nothing is added.
    while (this.cycles.length > 0 && order.map((node) => this.#close(node)).includes(true));
  }

  needs(node: OutlineNode, other: OutlineNode): boolean {
    return (((this.#closures[node.index] as Uint32Array)[other.index >> 5] as number) >>> (other.index & 31)) % 2 === 1;
  }

  /** Adds to a node's closure its needs and theirs; whether that was new. */
  #close(node: OutlineNode): boolean {
    const closure = this.#closures[node.index] as Uint32Array;
    let changed = false;
    for (const needed of node.needs) {
      const theirs = this.#closures[needed.index] as Uint32Array;
      for (let word = 0; word < closure.length; word++) {
        const before = closure[word] as number;
        const self = word === needed.index >> 5 ? 1 << (needed.index & 31) : 0;
        closure[word] = before | (theirs[word] as number) | self;
        if (closure[word] !== before) changed = true;
      }
    }
    return changed;
  }

  /** Every node after those it needs; where a cycle forbids that, the cycle is noted and broken. */
  #order(graph: OutlineGraph): OutlineNode[] {
    const unmet = graph.nodes.map((node) => node.needs.length);
    const dependents: OutlineNode[][] = graph.nodes.map(() => []);
    for (const node of graph.nodes) for (const needed of node.needs) dependents[needed.index]?.push(node);
    const placed = new Set<OutlineNode>();
    const order = graph.nodes.filter((node) => unmet[node.index] === 0);
    for (let next = 0, from = 0; ; next++) {
      const node = order[next];
      if (node !== undefined) {
        placed.add(node);
        for (const dependent of dependents[node.index] as OutlineNode[]) {
          unmet[dependent.index] = (unmet[dependent.index] as number) - 1;
          if (unmet[dependent.index] === 0) order.push(dependent);
        }
        continue;
      }
      while (from < graph.nodes.length && placed.has(graph.nodes[from] as OutlineNode)) from++;
      const stuck = graph.nodes[from];
      if (stuck === undefined) return order;
      const cycle = findCycle(stuck, placed);
      this.cycles.push(cycle);
      order.push(...cycle);
      for (const member of cycle) {
        placed.add(member);
        // Never 0 again, so that none of them is placed twice.
        unmet[member.index] = -1;
      }
      next--;
    }
  }
}

/** Follows needs that are not placed, of which a stuck node has one, until a node comes again. */
function findCycle(start: OutlineNode, placed: ReadonlySet<OutlineNode>): OutlineNode[] {
  const trail = new Map<OutlineNode, number>();
  let node = start;
  while (!trail.has(node)) {
    trail.set(node, trail.size);
    node = node.needs.find((needed) => !placed.has(needed)) as OutlineNode;
  }
  return [...trail.keys()].slice(trail.get(node));
}
