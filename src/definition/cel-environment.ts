/**
 * The CEL dialect of workflow files, on top of @marcbachmann/cel-js.
 *
 * JSON numbers are CEL doubles and integer literals CEL ints (BigInt); CEL does not mix the two, so the mixed
 * operators are registered here, and `string + number`. `matches` goes to RE2: the library's own is a backtracking
 * RegExp. It cannot be replaced by registering it again, but a macro of the same name, on a receiver type of its own,
 * takes over every call, because macros are found by name and number of arguments alone.
 */
import { type ASTNode, Environment } from '@marcbachmann/cel-js';
import { RE2JS } from 're2js';

/** Bounds on the syntax tree: what runs inline must be short. */
const limits = { maxAstNodes: 1_000, maxDepth: 64, maxListElements: 500, maxMapEntries: 500, maxCallArguments: 16 };

/** Bound on a regular expression's program: steps per character of text. */
const regexSizeMax = 2_000;

/** The names a context gives. Which of them an expression may use is checked by `references`. */
export const roots = ['input', 'nodes', 'execution', 'iter', 'item', 'itemIndex'] as const;

/** Thrown by an evaluation that turned out too long for the event loop; it is then repeated on the thread. */
export const tooLongInline = new Error('too long to run inline');

/**
 * @param regexStepsMax program size times length of text that one `matches` may cost; above it throws
 * `tooLongInline`. 20,000 steps are at most a few milliseconds.
 */
export function createEnvironment(regexStepsMax: number): Environment {
  const environment = new Environment({
    homogeneousAggregateLiterals: false,
    enableOptionalTypes: true,
    limits,
  });
  for (const root of roots) environment.registerVariable(root, 'dyn');
  for (const [left, right] of [
    ['int', 'double'],
    ['double', 'int'],
  ]) {
    environment
      .registerOperator(`${left} + ${right}: double`, (a, b) => toDouble(a) + toDouble(b))
      .registerOperator(`${left} - ${right}: double`, (a, b) => toDouble(a) - toDouble(b))
      .registerOperator(`${left} * ${right}: double`, (a, b) => toDouble(a) * toDouble(b))
      .registerOperator(`${left} / ${right}: double`, (a, b) => toDouble(a) / toDivisor(b))
      .registerOperator(`${left} % ${right}: double`, (a, b) => toDouble(a) % toDivisor(b));
  }
  environment
    .registerOperator('double % double: double', (a, b) => a % toDivisor(b))
    .registerOperator('int == double: bool', (a, b) => Number(a) === b);
  for (const number of ['int', 'double']) {
    environment
      .registerOperator(`string + ${number}: string`, (a, b) => a + b)
      .registerOperator(`${number} + string: string`, (a, b) => a + b);
  }
  registerDoublePositions(environment);
  registerMatches(environment, regexStepsMax);
  return environment;
}

function toDouble(value: number | bigint): number {
  if (typeof value === 'number') return value;
  const double = Number(value);
  if (Number.isSafeInteger(double)) return double;
  throw new RangeError(`${value} is too large to mix with JSON numbers`);
}

function toDivisor(value: number | bigint): number {
  const divisor = toDouble(value);
  if (divisor === 0) throw new RangeError('division by zero');
  return divisor;
}

/** Lets string functions take positions that are JSON numbers. */
function registerDoublePositions(environment: Environment): void {
  const slice = (text: string, start: number | bigint, end: number | bigint = text.length) => {
    const [from, to] = [Number(start), Number(end)];
    if (Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to && to <= text.length) {
      return text.substring(from, to);
    }
    throw new RangeError(`substring from ${from} to ${to} is out of range`);
  };
  environment
    .registerFunction('string.substring(double): string', slice)
    .registerFunction('string.substring(double, double): string', slice)
    .registerFunction('string.substring(int, double): string', slice)
    .registerFunction('string.substring(double, int): string', slice);
}

/** What a macro of cel-js gets and gives; the library does not type them. */
interface MacroCall {
  args: [ASTNode];
  receiver: ASTNode;
}
interface Matches extends MacroCall {
  pattern: RE2JS | null;
}
interface Visitor {
  check(ast: ASTNode, context: unknown): unknown;
  run(ast: ASTNode, context: unknown): unknown;
  getType(name: string): unknown;
}

function registerMatches(environment: Environment, regexStepsMax: number): void {
  const expand = ({ args, receiver }: MacroCall) => ({
    args,
    receiver,
    pattern: args[0].op === 'value' ? compilePattern(args[0].args) : null,
    async: false,
    typeCheck(checker: Visitor, { args, receiver }: Matches, context: unknown) {
      checker.check(receiver, context);
      checker.check(args[0], context);
      return checker.getType('bool');
    },
    evaluate(evaluator: Visitor, { args, receiver, pattern }: Matches, context: unknown) {
      const text = evaluator.run(receiver, context);
      if (typeof text !== 'string') throw new TypeError(`matches expects a string, found ${typeof text}`);
      const compiled = pattern ?? compilePattern(evaluator.run(args[0], context));
      if (compiled.programSize() * text.length > regexStepsMax) throw tooLongInline;
      return compiled.test(text);
    },
  });
  environment.registerFunction('list.matches(ast): bool', expand);
}

function compilePattern(pattern: unknown): RE2JS {
  if (typeof pattern !== 'string') throw new TypeError(`matches expects a pattern, found ${typeof pattern}`);
  const compiled = RE2JS.compile(pattern);
  if (compiled.programSize() <= regexSizeMax) return compiled;
  throw new RangeError('the regular expression is too large');
}
