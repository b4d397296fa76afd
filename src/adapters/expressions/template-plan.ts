import { BoundedCache } from '../../definition/bounded-cache.ts';
import { textMax } from '../../definition/json-value.ts';
import { parseTemplate, secretName, type TemplatePart } from '../../definition/templates.ts';
import { messageOf } from '../../errors.ts';
import type { ExpressionScope } from '../../ports/expressions.ts';
import { expressionError } from './expression-error.ts';

/** Where the templates of a value are; null: there is none, the value is its own rendering. */
type Plan =
  | null
  /** A string that is one template whole. */
  | { kind: 'whole'; source: string }
  | { kind: 'text'; text: string; parts: TemplatePart[] }
  /** The entries of a list or an object that hold templates. */
  | { kind: 'tree'; entries: [string, Plan][] };

/** Work that is still on the thread, and puts its result in its place itself. */
type Pending = Promise<unknown>[];

type Evaluate = (source: string, scope: ExpressionScope) => unknown;

/**
 * Renders the templates of JSON values.
 *
 * What has no template is shared with the value, not copied; so neither may be changed. The plan of an object is
 * kept for as long as the object lives.
 */
export class Templates {
  readonly #evaluate: Evaluate;
  readonly #byObject = new WeakMap<object, { plan: Plan }>();
  readonly #byText = new BoundedCache<string, { plan: Plan }>(2_000);

  constructor(evaluate: Evaluate) {
    this.#evaluate = evaluate;
  }

  /** @throws FS_EXPRESSION, or rejects with it where an expression runs on the thread. */
  render(value: unknown, scope: ExpressionScope): unknown {
    const plan = this.#plan(value);
    if (plan === null) return value;
    const pending: Pending = [];
    const rendered = this.#apply(plan, value, scope, pending);
    if (pending.length === 0) return rendered;
    return Promise.all(pending).then(() => rendered);
  }

  #plan(value: unknown): Plan {
    if (typeof value === 'string') {
      const known = this.#byText.get(value);
      if (known !== undefined) return known.plan;
      const plan = planText(value);
      this.#byText.set(value, { plan });
      return plan;
    }
    if (typeof value !== 'object' || value === null) return null;
    const known = this.#byObject.get(value);
    if (known !== undefined) return known.plan;
    const plan = planValue(value);
    this.#byObject.set(value, { plan });
    return plan;
  }

  /** The rendering, or a promise of it where it is pending. */
  #apply(plan: Plan, value: unknown, scope: ExpressionScope, pending: Pending): unknown {
    switch (plan?.kind) {
      case undefined:
        return value;
      case 'whole':
        return this.#evaluate(plan.source, scope);
      case 'text':
        return this.#applyText(plan.text, plan.parts, scope);
      case 'tree': {
        const copy = (Array.isArray(value) ? [...value] : { ...(value as object) }) as Record<string, unknown>;
        for (const [key, entry] of plan.entries) {
          const rendered = this.#apply(entry, copy[key], scope, pending);
          copy[key] = rendered;
          if (rendered instanceof Promise)
            pending.push(
              quiet(
                rendered.then((result) => {
                  copy[key] = result;
                }),
              ),
            );
        }
        return copy;
      }
    }
  }

  #applyText(text: string, parts: TemplatePart[], scope: ExpressionScope): string | Promise<string> {
    const values = parts.map((part) => (typeof part === 'string' ? part : this.#evaluate(part.source, scope)));
    if (!values.some((value) => value instanceof Promise)) return join(text, values);
    return quiet(Promise.all(values).then((settled) => join(text, settled)));
  }
}

function planText(text: string): Plan {
  const parts = parse(text)?.map((part) => {
    const secret = typeof part === 'string' ? null : secretName(part.source);
    return secret === null ? part : `\${{ secrets.${secret} }}`;
  });
  if (parts === undefined || parts.every((part) => typeof part === 'string')) return null;
  const [first] = parts;
  return parts.length === 1 && typeof first === 'object' ? { kind: 'whole', ...first } : { kind: 'text', text, parts };
}

function parse(text: string): TemplatePart[] | null {
  try {
    return parseTemplate(text);
  } catch (error) {
    throw expressionError(text, messageOf(error), error);
  }
}

function planValue(value: unknown): Plan {
  if (typeof value === 'string') return planText(value);
  if (typeof value !== 'object' || value === null) return null;
  const entries: [string, Plan][] = [];
  for (const [key, item] of Object.entries(value)) {
    const plan = planValue(item);
    if (plan !== null) entries.push([key, plan]);
  }
  return entries.length === 0 ? null : { kind: 'tree', entries };
}

/** Text stands as it is, anything else as its JSON. */
function join(text: string, values: unknown[]): string {
  let joined = '';
  for (const value of values) {
    joined += typeof value === 'string' ? value : JSON.stringify(value);
    if (joined.length > textMax) throw expressionError(text, `the text grows beyond ${textMax} characters`);
  }
  return joined;
}

/** A failure beside it may end the rendering before anybody waits for this promise. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
