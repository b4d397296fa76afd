/**
 * CEL expressions of a workflow file: parsed once, with what they refer to, checked and evaluated.
 */
import type { ASTNode, Environment, ParseResult } from '@marcbachmann/cel-js';
import { messageOf } from '../errors.ts';
import { BoundedCache } from './bounded-cache.ts';
import { createEnvironment } from './cel-environment.ts';
import { mapConstructorKeys } from './constructor-keys.ts';
import { toJson } from './json-value.ts';
import { narrow } from './narrow.ts';

/** Bound on an expression's text: keeps the parser's recursion, which its own limits miss in places, shallow. */
const sourceMax = 10_000;

/** A path that starts at a root; it ends before the first part that is not a constant, such as `[input.i]`. */
export interface Reference {
  root: string;
  path: string[];
  /** Whether a part that is not a constant follows. */
  open: boolean;
}

export interface Expression {
  source: string;
  references: Reference[];
  /** The static type, such as `bool`, or `dyn` where only evaluation tells. */
  type: string;
  /** It has a comprehension, or a regular expression that is not a constant: it must not hold the event loop. */
  onThread: boolean;
  /**
   * Its value as JSON.
   * @throws Error, also `tooLongInline`.
   */
  evaluate(scope: object): unknown;
}

export interface Cel {
  /** @throws Error that says what is wrong with `source`. */
  parse(source: string): Expression;
}

/** @param regexStepsMax see `createEnvironment`. */
export function createCel(regexStepsMax: number): Cel {
  const environment = createEnvironment(regexStepsMax);
  const cache = new BoundedCache<string, Expression>(5_000);
  return {
    parse(source) {
      let expression = cache.get(source);
      if (expression === undefined) {
        expression = parse(environment, source);
        cache.set(source, expression);
      }
      return expression;
    },
  };
}

/** For the event loop: 20,000 steps of a regular expression take a few milliseconds. */
export const inlineCel: Cel = createCel(20_000);

function parse(environment: Environment, source: string): Expression {
  if (source.length > sourceMax) throw new RangeError(`an expression has at most ${sourceMax} characters`);
  let parsed: ParseResult;
  let walk: Walk;
  try {
    parsed = environment.parse(source);
    walk = new Walk(parsed.ast);
  } catch (error) {
    throw new SyntaxError(describe(error));
  }
  // Unknown names are faults of the caller's kind, told with what they would have to be.
  const checked = walk.references.every(({ root }) => environment.hasVariable(root)) ? parsed.check() : null;
  if (checked?.error !== undefined) throw new SyntaxError(describe(checked.error));
  const plain = isPlain(parsed.ast);
  return {
    source,
    references: walk.references,
    type: checked?.type ?? 'dyn',
    onThread: walk.onThread,
    evaluate(scope) {
      let value: unknown;
      try {
        value = parsed(scope);
      } catch (error) {
        if (!isUnsupportedData(error)) throw error;
        return toJson(parsed(mapConstructorKeys(narrow(scope, walk.references)) as object));
      }
      return plain && typeof value === 'object' ? value : toJson(value);
    },
  };
}

/** The message of an error of cel-js, without its drawing of the source. */
export function describe(error: unknown): string {
  if (error instanceof RangeError && error.message.includes('call stack')) return 'the expression nests too deeply';
  const text = (error as { summary?: unknown } | null)?.summary;
  const message = typeof text === 'string' ? text : messageOf(error);
  return message.startsWith('Ternary branches must') ? `${message} (dyn(...) around one lifts this)` : message;
}

/** Whether cel-js met an object with a key `constructor`. */
function isUnsupportedData(error: unknown): boolean {
  return error instanceof TypeError || (error as { code?: unknown }).code === 'unsupported_type';
}

/** Whether an object it gives is a part of the scope, and so JSON already. */
function isPlain(ast: ASTNode): boolean {
  switch (ast.op) {
    case 'id':
      return true;
    case '.':
    case '[]':
      return isPlain(ast.args[0]);
    case '?:':
      return isPlain(ast.args[1]) && isPlain(ast.args[2]);
    default:
      return ast.op === 'value' && ast.args === null;
  }
}

/** Macros with a variable: how many arguments, after the variable, see it. `cel.bind` can double a value at each step. */
const comprehensions: Record<string, number[]> = {
  all: [2],
  exists: [2],
  exists_one: [2],
  filter: [2],
  map: [2, 3],
  bind: [3],
};

/** Names that the library gives a meaning as types. */
const typeNames = new Set([
  'bool',
  'bytes',
  'double',
  'google',
  'int',
  'list',
  'map',
  'null_type',
  'optional',
  'string',
  'type',
  'uint',
]);

/** One walk over the syntax tree: what it refers to, and whether it may run inline. */
class Walk {
  readonly references: Reference[] = [];
  onThread = false;

  constructor(ast: ASTNode) {
    this.#visit(ast, new Set());
  }

  #visit(ast: ASTNode, bound: ReadonlySet<string>): void {
    switch (ast.op) {
      case 'value':
        return;
      case 'id':
      case '.':
      case '.?':
      case '[]':
      case '[?]':
        return this.#visitPath(ast, bound);
      case 'call':
        for (const argument of ast.args[1]) this.#visit(argument, bound);
        return;
      case 'rcall':
        return this.#visitMethod(ast.args, bound);
      case 'map':
        for (const [key, value] of ast.args) {
          refusePrototypeKey(key);
          this.#visit(key, bound);
          this.#visit(value, bound);
        }
        return;
      case '!_':
      case '-_':
        return this.#visit(ast.args, bound);
      default:
        for (const argument of ast.args) this.#visit(argument, bound);
    }
  }

  #visitPath(ast: ASTNode, bound: ReadonlySet<string>): void {
    const path: (string | null)[] = [];
    let base = ast;
    while (base.op === '.' || base.op === '.?' || base.op === '[]' || base.op === '[?]') {
      const [left, key]: [ASTNode, ASTNode | string] = base.args;
      if (typeof key === 'string') path.unshift(key);
      else if (key.op === 'value' && typeof key.args === 'string') path.unshift(key.args);
      else {
        path.unshift(null);
        this.#visit(key, bound);
      }
      base = left;
    }
    if (base.op !== 'id') return this.#visit(base, bound);
    if (bound.has(base.args) || typeNames.has(base.args)) return;
    const end = path.indexOf(null);
    const constant = (end === -1 ? path : path.slice(0, end)) as string[];
    this.references.push({ root: base.args, path: constant, open: end !== -1 });
  }

  #visitMethod([method, receiver, args]: [string, ASTNode, ASTNode[]], bound: ReadonlySet<string>): void {
    if (method === 'matches' && args[0]?.op !== 'value') this.onThread = true;
    const isNamespace = receiver.op === 'id' && receiver.args === (method === 'bind' ? 'cel' : 'optional');
    if (!isNamespace) this.#visit(receiver, bound);
    if (Object.hasOwn(comprehensions, method) && comprehensions[method]?.includes(args.length)) {
      this.onThread = true;
      const [variable, ...rest] = args as [ASTNode, ...ASTNode[]];
      const inner = new Set(bound);
      if (variable.op === 'id') inner.add(variable.args);
      // The value that `bind` binds does not see the variable yet.
      if (method === 'bind') this.#visit(rest.shift() as ASTNode, bound);
      for (const argument of rest) this.#visit(argument, inner);
    } else {
      for (const argument of args) this.#visit(argument, bound);
    }
  }
}

/** The library would leave such a key out without a word. */
function refusePrototypeKey(key: ASTNode): void {
  if (key.op === 'value' && (key.args === '__proto__' || key.args === 'constructor' || key.args === 'prototype')) {
    throw new SyntaxError(`a map cannot have the key "${key.args}"`);
  }
}
