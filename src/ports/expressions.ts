/**
 * Evaluates CEL and templates for nodes.
 *
 * Synchronous where the expression has no comprehension; a promise where it has one, because those run on
 * a thread of their own and are ended after 200 ms.
 */
export interface Expressions {
  /**
   * The value of one bare CEL expression (`if`, `condition`), as JSON.
   * @throws FS_EXPRESSION, or rejects with it.
   */
  evaluate(source: string, scope: ExpressionScope): unknown | Promise<unknown>;
  /**
   * `value` with every `${{ CEL }}` in its strings replaced; a string that is one template whole keeps the
   * value's type. `${{ secrets.NAME }}` is left as it stands: workers resolve it.
   * @throws FS_EXPRESSION, or rejects with it.
   */
  render(value: unknown, scope: ExpressionScope): unknown | Promise<unknown>;
  close(): Promise<void>;
}

/** The roots of an expression; plain JSON values. Only the nodes it names need be there. */
export interface ExpressionScope {
  input: unknown;
  nodes: Record<string, { output: unknown; status: string; error: string | null }>;
  execution: { id: string; workflow: string; startedAt: string | null };
  iter?: { index: number; last: Record<string, unknown> | null };
  item?: unknown;
  itemIndex?: number;
}
