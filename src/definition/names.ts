/** Names that CEL reads as something else. */
const keywords = new Set(
  (
    'true false null in as break const continue else for function if import let loop package namespace return var ' +
    'void while'
  ).split(' '),
);

/** Keys that would reach an object's prototype. */
export const forbiddenKeys: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);

export const namePattern = /^[A-Za-z_][A-Za-z0-9_]{0,62}$/;

/** What is wrong with the name of a node, input, output or trigger; null when nothing is. */
export function nameFault(name: string): string | null {
  if (!namePattern.test(name)) {
    return `"${name.slice(0, 80)}" is not a name: expected a letter or _, then at most 62 letters, digits or _`;
  }
  if (keywords.has(name)) return `"${name}" is a keyword of CEL: choose another name`;
  if (forbiddenKeys.has(name)) return `"${name}" is reserved: choose another name`;
  return null;
}

export type PathKey = string | number;

/** A path as people write it: `nodes.scan.needs[0]`. */
export function formatPath(path: readonly PathKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else if (/^[\w$-]+$/.test(key)) text += text === '' ? key : `.${key}`;
    else text += `[${JSON.stringify(key)}]`;
  }
  return text;
}
