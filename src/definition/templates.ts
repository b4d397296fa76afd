/**
 * Strings with `${{ CEL }}` in them.
 *
 * A template ends at the first `}}` outside of the expression's own strings, braces and comments. A literal `${{`
 * is written `${{ '${{' }}`.
 */

/** A string's parts in order: text as it stands, or an expression with where it begins. */
export type TemplatePart = string | { source: string };

const secretPattern = /^secrets\.([A-Za-z_]\w{0,62})$/;

/** The name in an expression that is `secrets.NAME` and nothing else; null otherwise. */
export function secretName(source: string): string | null {
  return secretPattern.exec(source)?.[1] ?? null;
}

/**
 * The parts of a string; null when it holds no template.
 * @throws SyntaxError for a template that is empty or does not end.
 */
export function parseTemplate(text: string): TemplatePart[] | null {
  let open = text.indexOf('${{');
  if (open === -1) return null;
  const parts: TemplatePart[] = [];
  let end = 0;
  while (open !== -1) {
    if (open > end) parts.push(text.slice(end, open));
    const close = endOfExpression(text, open + 3);
    const source = text.slice(open + 3, close).trim();
    if (source === '') throw new SyntaxError('the template ${{ }} is empty');
    parts.push({ source });
    end = close + 2;
    open = text.indexOf('${{', end);
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

/** Where the `}}` stands that ends the expression that begins at `from`. */
function endOfExpression(text: string, from: number): number {
  let depth = 0;
  for (let i = from; i < text.length; i++) {
    const char = text[i];
    if (char === '"' || char === "'") i = endOfString(text, i);
    else if (char === '/' && text[i + 1] === '/') {
      const newline = text.indexOf('\n', i);
      i = newline === -1 ? text.length : newline;
    } else if (char === '{') depth++;
    else if (char === '}') {
      if (depth > 0) depth--;
      else if (text[i + 1] === '}') return i;
    }
  }
  throw new SyntaxError('a template begins with ${{ but does not end with }}');
}

/** Where the string literal that begins at `from` has its last quote. */
function endOfString(text: string, from: number): number {
  const quote = text[from] as string;
  const delimiter = text.startsWith(quote.repeat(3), from) ? quote.repeat(3) : quote;
  for (let i = from + delimiter.length; i < text.length; i++) {
    // Also in raw strings: the library skips the character after a backslash there too.
    if (text[i] === '\\') i++;
    else if (text.startsWith(delimiter, i)) return i + delimiter.length - 1;
  }
  return text.length;
}
