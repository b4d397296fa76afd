/**
 * Text of a workflow file to its value, with the lines of its parts.
 *
 * JSON goes through the YAML library too: it knows positions and sees keys that come twice, which JSON.parse
 * swallows. The value is built here rather than by the library, whose bounds on aliases count them but not what they
 * grow to, and whose check for double keys takes quadratic time.
 */
import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import { FullstopError, messageOf } from '../errors.ts';
import type { DefinitionFault, Json } from '../wire.ts';
import { depthMax, sizeMaxBytes } from './limits.ts';
import { forbiddenKeys, formatPath, type PathKey } from './names.ts';

export interface ParsedDefinition {
  value: Json;
  /** The 1-based line where the part at `path` begins, or the nearest part around it that is there. */
  lineOf(path: readonly PathKey[]): number;
}

/**
 * @throws FS_INVALID with `details.faults`; FS_TOO_LARGE for more than 1 MiB.
 */
export function parseDefinition(text: string, format: 'yaml' | 'json'): ParsedDefinition {
  if (Buffer.byteLength(text) > sizeMaxBytes) {
    throw new FullstopError(
      'FS_TOO_LARGE',
      `a workflow file has at most 1 MiB, found ${Buffer.byteLength(text)} bytes`,
    );
  }
  refuseSteepText(text);
  if (format === 'json') refuseInvalidJson(text);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, stringKeys: true });
  const faults = [...document.errors, ...document.warnings].map(({ message, pos }) =>
    fault([], lines.linePos(pos[0]).line, message.split(' at line ')[0] as string),
  );
  if (document.directives?.yaml.version === '1.1') faults.push(fault([], 1, 'expected YAML 1.2, found YAML 1.1'));
  if (faults.length > 0) throw invalidDefinition(faults);
  const targets = aliasTargets(document);
  const builder = new Builder(targets, lines);
  const value = builder.build(document.contents, [], 1);
  if (builder.faults.length > 0) throw invalidDefinition(builder.faults);
  return { value, lineOf: (path) => lineOf(document, targets, lines, path) };
}

/** One error for all that is wrong with a definition. */
export function invalidDefinition(faults: DefinitionFault[]): FullstopError {
  const [first] = faults as [DefinitionFault];
  const where = [first.line === null ? '' : `line ${first.line}`, first.path].filter((part) => part !== '').join(', ');
  const more = faults.length === 1 ? '' : ` (and ${faults.length - 1} more)`;
  return new FullstopError(
    'FS_INVALID',
    `the workflow is not valid: ${where === '' ? '' : `${where}: `}${first.message}${more}`,
    {
      details: { faults },
    },
  );
}

/**
 * Refuses nesting that keeps the YAML library busy for seconds before it gives up: far more open brackets or list
 * marks of one line than the depth that is allowed. Brackets within text count too, hence the distance.
 */
function refuseSteepText(text: string): void {
  let open = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x5b || code === 0x7b) open++;
    else if ((code === 0x5d || code === 0x7d) && open > 0) open--;
    if (open > 8 * depthMax) throw invalidDefinition([tooDeep([], null)]);
  }
  if (/^[ \t]*(?:[-?:][ \t]+){65}/m.test(text)) throw invalidDefinition([tooDeep([], null)]);
}

function refuseInvalidJson(text: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    const message = messageOf(error);
    const position = /position (\d+)/.exec(message)?.[1];
    const line = position === undefined ? null : text.slice(0, Number(position)).split('\n').length;
    throw invalidDefinition([fault([], line, message.replace(/ in JSON at position.*| \(line \d.*/s, ''))]);
  }
}

type Targets = ReadonlyMap<Alias, Node>;

/** What each alias stands for, found in one pass: the library's `resolve` makes one for each alias. */
function aliasTargets(document: Document): Targets {
  const anchors = new Map<string, Node>();
  const targets = new Map<Alias, Node>();
  visit(document, {
    Node(_key, node) {
      if (isAlias(node)) {
        const target = anchors.get(node.source);
        if (target !== undefined) targets.set(node, target);
      } else if (node.anchor !== undefined) anchors.set(node.anchor, node);
    },
  });
  return targets;
}

class Builder {
  readonly faults: DefinitionFault[] = [];
  readonly #targets: Targets;
  readonly #lines: LineCounter;
  /** Characters and marks of the JSON so far. */
  #size = 0;

  constructor(targets: Targets, lines: LineCounter) {
    this.#targets = targets;
    this.#lines = lines;
  }

  build(node: unknown, path: PathKey[], line: number): Json {
    const here = isNode(node) && node.range != null ? this.#lines.linePos(node.range[0]).line : line;
    this.#size += 2;
    if (this.#size > sizeMaxBytes)
      throw new FullstopError('FS_TOO_LARGE', 'a workflow has at most 1 MiB with its aliases written out');
    if (path.length > depthMax) throw invalidDefinition([tooDeep(path, here)]);
    if (isAlias(node)) return this.#buildAlias(node, path, here);
    if (isMap(node)) return this.#buildMap(node.items, path, here);
    if (isSeq(node)) return node.items.map((item, index) => this.build(item, [...path, index], here));
    return this.#buildScalar(isScalar(node) ? node.value : node, path, here);
  }

  #buildAlias(alias: Alias, path: PathKey[], line: number): Json {
    const target = this.#targets.get(alias);
    if (target !== undefined) return this.build(target, path, line);
    this.faults.push(fault(path, line, `there is no anchor "${alias.source}" before its alias`));
    return null;
  }

  #buildMap(pairs: { key: unknown; value: unknown }[], path: PathKey[], line: number): Json {
    const value: Record<string, Json> = {};
    for (const { key: node, value: item } of pairs) {
      const key = String(isScalar(node) ? node.value : node);
      const here = isScalar(node) && node.range != null ? this.#lines.linePos(node.range[0]).line : line;
      const at = [...path, key];
      this.#size += key.length;
      if (forbiddenKeys.has(key)) this.faults.push(fault(at, here, `the key "${key}" is reserved`));
      else if (Object.hasOwn(value, key)) this.faults.push(fault(at, here, `the key "${key}" comes twice`));
      else value[key] = this.build(item, at, here);
    }
    return value;
  }

  #buildScalar(value: unknown, path: PathKey[], line: number): Json {
    if (value === null || value === undefined) return null;
    if (typeof value === 'string') {
      this.#size += value.length;
      if (!value.isWellFormed()) this.faults.push(fault(path, line, 'the text has half a surrogate pair'));
      return value;
    }
    if (typeof value === 'boolean' || (typeof value === 'number' && Number.isFinite(value))) return value;
    this.faults.push(fault(path, line, `${String(value)} is not a JSON value`));
    return null;
  }
}

function lineOf(document: Document, targets: Targets, lines: LineCounter, path: readonly PathKey[]): number {
  let node: unknown = document.contents;
  let offset = isNode(node) ? (node.range?.[0] ?? 0) : 0;
  for (const key of path) {
    if (isAlias(node)) node = targets.get(node);
    const found: { at: unknown; value: unknown } | undefined = isMap(node)
      ? node.items
          .map((pair) => ({ at: pair.key, value: pair.value }))
          .find(({ at }) => isScalar(at) && String(at.value) === key)
      : isSeq(node) && typeof key === 'number' && key < node.items.length
        ? { at: node.items[key], value: node.items[key] }
        : undefined;
    if (found === undefined) break;
    offset = (found.at as Node | null)?.range?.[0] ?? offset;
    node = found.value;
  }
  return lines.linePos(offset).line;
}

function tooDeep(path: PathKey[], line: number | null): DefinitionFault {
  return fault(path.slice(0, 8), line, `lists and objects nest more than ${depthMax} deep`);
}

function fault(path: PathKey[], line: number | null, message: string): DefinitionFault {
  return { path: formatPath(path), line, message };
}
