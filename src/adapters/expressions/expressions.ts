import { describe, type Expression, inlineCel } from '../../definition/cel.ts';
import { tooLongInline } from '../../definition/cel-environment.ts';
import type { ExpressionScope, Expressions } from '../../ports/expressions.ts';
import { expressionError } from './expression-error.ts';
import { ExpressionThread } from './expression-thread.ts';
import { Templates } from './template-plan.ts';

/** Evaluates inline what is short by its form, and the rest on one thread, started on first use. */
export function createExpressions(): Expressions {
  const thread = new ExpressionThread();
  const evaluate = (source: string, scope: ExpressionScope): unknown => {
    const expression = parse(source);
    if (expression.onThread) return thread.run(expression, scope);
    try {
      return expression.evaluate(scope);
    } catch (error) {
      if (error === tooLongInline) return thread.run(expression, scope);
      throw expressionError(source, describe(error), error);
    }
  };
  const templates = new Templates(evaluate);
  return {
    evaluate,
    render: (value, scope) => templates.render(value, scope),
    close: () => thread.close(),
  };
}

function parse(source: string): Expression {
  try {
    return inlineCel.parse(source);
  } catch (error) {
    throw expressionError(source, describe(error), error);
  }
}
