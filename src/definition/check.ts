/** Everything that can be wrong with a workflow file, found in one go. */
import { messageOf } from '../errors.ts';
import type { DefinitionFault } from '../wire.ts';
import { describe, type Expression, inlineCel, type Reference } from './cel.ts';
import { inputFault } from './inputs.ts';
import { valueFaults } from './json-faults.ts';
import { nodesMax } from './limits.ts';
import { formatPath, nameFault, type PathKey } from './names.ts';
import { allGraphs, isObject, type OutlineGraph, type OutlineNode, objectOr, outline, type Raw } from './outline.ts';
import { Reachability } from './reachability.ts';
import { parseCronSchedule } from './schedule.ts';
import { schemaFaults } from './schema.ts';
import { parseTemplate, secretName } from './templates.ts';
import type { InputSpec } from './types.ts';

export interface CheckOptions {
  /** The 1-based line of the part at a path; without it faults have no lines. */
  lineOf?: (path: readonly PathKey[]) => number;
}

/** What checking found out: the faults, and for a definition without any what compiling needs. */
export interface Checked {
  faults: DefinitionFault[];
  graph: OutlineGraph;
  /** Names of the top-level nodes that `outputs` reads. */
  outputReads: string[];
}

/** Every fault of a workflow file, in the order of its lines; none: it can be compiled. */
export function checkDefinition(value: unknown, options: CheckOptions = {}): DefinitionFault[] {
  return check(value, options).faults;
}

export function check(value: unknown, { lineOf }: CheckOptions = {}): Checked {
  const checker = new Checker(value);
  checker.run();
  const faults = checker.faults.map(({ path, message }) => ({
    path: formatPath(path),
    line: lineOf?.(path) ?? null,
    message,
  }));
  faults.sort((a, b) => (a.line ?? 0) - (b.line ?? 0));
  return { faults, graph: checker.graph, outputReads: [...checker.outputReads] };
}

/** Where an expression stands, and so what it may name. */
interface Place {
  path: PathKey[];
  /** The node that holds it; null: `outputs`. */
  node: OutlineNode | null;
  roots: ReadonlySet<string>;
  /** The body whose outputs `iter.last` has. */
  iterBody: OutlineGraph | null;
  secrets: boolean;
}

/** Fields of the roots that have fixed ones. */
const fields: Record<string, string[]> = {
  execution: ['id', 'workflow', 'startedAt'],
  iter: ['index', 'last'],
};
const nodeFields = ['output', 'status', 'error'];
const ordinaryRoots = ['input', 'nodes', 'execution'];

class Checker {
  readonly faults: { path: PathKey[]; message: string }[] = [];
  readonly graph: OutlineGraph;
  readonly outputReads = new Set<string>();
  readonly #workflow: Raw;
  readonly #value: unknown;
  readonly #reachability = new Map<OutlineGraph, Reachability>();

  constructor(value: unknown) {
    this.#value = value;
    this.#workflow = objectOr(value);
    this.graph = outline(value);
  }

  run(): void {
    this.faults.push(...valueFaults(this.#value));
    // What is no plain JSON would trip what follows.
    if (this.faults.length > 0) return;
    this.faults.push(...schemaFaults(this.#value));
    this.#checkInputs();
    this.#checkSchedules();
    const graphs = [...allGraphs(this.graph)];
    const count = graphs.reduce((sum, { nodes }) => sum + nodes.length, 0);
    if (count > nodesMax) {
      this.#add(['nodes'], `a workflow has at most ${nodesMax} nodes with those of all bodies, found ${count}`);
      return;
    }
    for (const graph of graphs) this.#checkNeeds(graph);
    for (const graph of graphs) for (const node of graph.nodes) this.#checkNode(node);
    this.#checkOutputs();
  }

  #add(path: PathKey[], message: string): void {
    this.faults.push({ path, message });
  }

  #checkName(path: PathKey[], name: string): void {
    const message = nameFault(name);
    if (message !== null) this.#add(path, message);
  }

  #checkInputs(): void {
    for (const [name, spec] of Object.entries(objectOr(this.#workflow['inputs']))) {
      const path = ['inputs', name];
      this.#checkName(path, name);
      if (!isObject(spec) || typeof spec['type'] !== 'string') continue;
      const { type, enum: allowed, default: standard } = spec as unknown as InputSpec;
      if (Array.isArray(allowed)) {
        for (const [index, item] of allowed.entries())
          this.#addFault([...path, 'enum', index], inputFault({ type }, item));
      }
      if (standard === undefined) continue;
      const spec_ = Array.isArray(allowed) ? { type, enum: allowed } : { type };
      this.#addFault([...path, 'default'], inputFault(spec_, standard));
    }
  }

  #addFault(path: PathKey[], message: string | null): void {
    if (message !== null) this.#add(path, message);
  }

  #checkSchedules(): void {
    const schedule = objectOr(this.#workflow['on'])['schedule'];
    if (typeof schedule === 'string') this.#checkCron(['on', 'schedule'], schedule, null);
    if (!Array.isArray(schedule)) return;
    const inputs = objectOr(this.#workflow['inputs']);
    for (const [index, item] of schedule.entries()) {
      const path = ['on', 'schedule', index];
      const { cron, timezone, input } = objectOr(item);
      if (typeof cron === 'string')
        this.#checkCron([...path, 'cron'], cron, typeof timezone === 'string' ? timezone : null);
      for (const [name, value] of Object.entries(objectOr(input))) {
        const spec = Object.hasOwn(inputs, name) ? inputs[name] : undefined;
        if (spec === undefined) this.#add([...path, 'input', name], `the workflow has no input "${name}"`);
        else if (isObject(spec) && typeof spec['type'] === 'string') {
          this.#addFault([...path, 'input', name], inputFault(spec as unknown as InputSpec, value));
        }
      }
    }
  }

  #checkCron(path: PathKey[], cron: string, timezone: string | null): void {
    try {
      parseCronSchedule(cron, timezone);
    } catch (error) {
      this.#add(path, messageOf(error));
    }
  }

  #checkNeeds(graph: OutlineGraph): void {
    for (const node of graph.nodes) {
      const needs = Array.isArray(node.raw['needs']) ? node.raw['needs'] : [];
      for (const [index, name] of needs.entries()) {
        const path = [...node.path, 'needs', index];
        if (name === node.name) this.#add(path, `"${name}" needs itself`);
        else if (typeof name === 'string' && !graph.byName.has(name)) {
          this.#add(path, `there is no node "${name}"${graph.outer === null ? '' : ' in this body'}`);
        } else if (needs.indexOf(name) !== index) this.#add(path, `"${name}" comes twice`);
      }
    }
    const reachability = new Reachability(graph);
    this.#reachability.set(graph, reachability);
    for (const cycle of reachability.cycles) {
      const [first] = cycle as [OutlineNode];
      const names = [...cycle, first].map(({ name }) => name).join(' needs ');
      this.#add([...first.path, 'needs'], `nodes need each other in a circle: ${names}`);
    }
  }

  #checkNode(node: OutlineNode): void {
    this.#checkName(node.path, node.name);
    const { type, raw, graph } = node;
    if (graph.outer?.type?.bodyNamesRefused.includes(node.name)) {
      this.#add(node.path, `no node in the body of a ${graph.outer.type.type} may be named "${node.name}"`);
    }
    if (type === null) return;
    this.#addFault(node.path, type.check(raw));
    const outside = rootsAround(node);
    const place = { node, roots: new Set(outside), iterBody: iterBodyAround(node), secrets: false };
    this.#checkCel(raw['if'], { ...place, path: [...node.path, 'if'] });
    const keyPlace = type.keysSeeBodyRoots
      ? { ...place, roots: new Set([...outside, ...type.bodyRoots]), iterBody: node.body ?? place.iterBody }
      : place;
    for (const key of type.celKeys) this.#checkCel(raw[key], { ...keyPlace, path: [...node.path, key] });
    for (const key of type.templateKeys) this.#checkWholeTemplate(raw[key], { ...keyPlace, path: [...node.path, key] });
    this.#checkTemplates(raw['with'], { ...place, secrets: type.secrets, path: [...node.path, 'with'] });
  }

  #checkOutputs(): void {
    for (const [name, template] of Object.entries(objectOr(this.#workflow['outputs']))) {
      const path = ['outputs', name];
      this.#checkName(path, name);
      this.#checkTemplates(template, {
        path,
        node: null,
        roots: new Set(ordinaryRoots),
        iterBody: null,
        secrets: false,
      });
    }
  }

  #checkTemplates(value: unknown, place: Place): void {
    if (typeof value === 'string') return this.#checkTemplate(value, place);
    if (typeof value !== 'object' || value === null) return;
    const isList = Array.isArray(value);
    for (const [key, item] of Object.entries(value)) {
      this.#checkTemplates(item, { ...place, path: [...place.path, isList ? Number(key) : key] });
    }
  }

  #checkTemplate(text: string, place: Place): void {
    try {
      for (const part of parseTemplate(text) ?? []) {
        if (typeof part === 'string') continue;
        if (secretName(part.source) === null) this.#checkExpression(part.source, place);
        else if (!place.secrets)
          this.#add(place.path, 'secrets may stand only in `with` of nodes that pass them on, such as http');
      }
    } catch (error) {
      this.#add(place.path, messageOf(error));
    }
  }

  /** A string that is to give a value of any type. */
  #checkWholeTemplate(text: unknown, place: Place): void {
    if (typeof text !== 'string') return;
    if (!/^\$\{\{.*\}\}$/s.test(text))
      this.#add(place.path, 'expected one template, ${{ CEL }}, and no text around it');
    this.#checkTemplate(text, place);
  }

  /** A condition: CEL that gives true or false. */
  #checkCel(source: unknown, place: Place): void {
    if (typeof source !== 'string' || source === '') return;
    if (source.includes('${{')) return this.#add(place.path, 'expected bare CEL, without ${{ }}');
    const expression = this.#checkExpression(source, place);
    if (expression !== null && expression.type !== 'bool' && expression.type !== 'dyn') {
      this.#add(place.path, `expected an expression that gives true or false, found ${expression.type}`);
    }
  }

  #checkExpression(source: string, place: Place): Expression | null {
    let expression: Expression;
    try {
      expression = inlineCel.parse(source);
    } catch (error) {
      this.#add(place.path, `expression "${source.slice(0, 200)}": ${describe(error)}`);
      return null;
    }
    const messages = new Set(expression.references.map((reference) => this.#referenceFault(reference, place)));
    for (const message of messages) this.#addFault(place.path, message);
    return expression;
  }

  #referenceFault({ root, path, open }: Reference, place: Place): string | null {
    const [first, second] = path;
    if (root === 'secrets') return 'a secret stands alone in its template: ${{ secrets.NAME }}';
    if (!place.roots.has(root)) return unknownRoot(root, place.roots);
    if (root === 'input') return this.#inputReferenceFault(first);
    if (root === 'nodes') return this.#nodeReferenceFault(first, second, place);
    const known = fields[root];
    if (known !== undefined && first !== undefined && !known.includes(first)) {
      return `${root} has ${known.join(', ')}, not "${first}"`;
    }
    if (root !== 'iter' || first !== 'last' || second === undefined || open) return null;
    const body = place.iterBody;
    return body === null || body.byName.has(second) ? null : `the body has no node "${second}"`;
  }

  #inputReferenceFault(name: string | undefined): string | null {
    if (name === undefined || Object.hasOwn(objectOr(this.#workflow['inputs']), name)) return null;
    return `the workflow has no input "${name}"`;
  }

  #nodeReferenceFault(name: string | undefined, field: string | undefined, place: Place): string | null {
    if (name === undefined)
      return 'expected nodes.NAME: which nodes an expression reads must be known when it is saved';
    if (field !== undefined && !nodeFields.includes(field))
      return `nodes.${name} has ${nodeFields.join(', ')}, not "${field}"`;
    if (place.node === null) {
      this.outputReads.add(name);
      return this.graph.byName.has(name) ? null : `there is no node "${name}"`;
    }
    return this.#readFault(name, place.node);
  }

  /** Finds the node in the graph of the reader, or the nearest one around it; notes who reads it. */
  #readFault(name: string, reader: OutlineNode): string | null {
    const readers: OutlineNode[] = [];
    for (let holder: OutlineNode | null = reader; holder !== null; holder = holder.graph.outer) {
      readers.push(holder);
      const found = holder.graph.byName.get(name);
      if (found === undefined) continue;
      for (const { reads } of readers) reads.add(name);
      if (this.#reachability.get(holder.graph)?.needs(holder, found)) return null;
      return found === holder
        ? `"${name}" names itself`
        : `"${holder.name}" does not need "${name}": add it to its needs`;
    }
    return `there is no node "${name}"`;
  }
}

/** The roots that expressions of a node see: the ordinary ones and those of every body it is in. */
function rootsAround(node: OutlineNode): string[] {
  const roots = [...ordinaryRoots];
  for (let outer = node.graph.outer; outer !== null; outer = outer.graph.outer)
    roots.push(...(outer.type?.bodyRoots ?? []));
  return roots;
}

/** The innermost body around a node that has `iter`. */
function iterBodyAround(node: OutlineNode): OutlineGraph | null {
  for (let outer = node.graph.outer; outer !== null; outer = outer.graph.outer) {
    if (outer.type?.bodyRoots.includes('iter')) return outer.body;
  }
  return null;
}

function unknownRoot(root: string, roots: ReadonlySet<string>): string {
  if (root === 'iter') return 'iter is known only in the body and the condition of a while';
  if (root === 'item' || root === 'itemIndex') return `${root} is known only in the body of a foreach`;
  return `unknown name "${root}": expected one of ${[...roots].join(', ')}`;
}
