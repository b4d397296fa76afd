import type { Reference } from './cel.ts';

type Tree = Record<string, unknown>;

/** The part of `scope` that the references read, so that no more is sent to a thread or copied. */
export function narrow(scope: object, references: Reference[]): object {
  const part = emptyTree();
  // Shorter paths first: what they take whole needs no parts.
  for (const { root, path } of references.toSorted((a, b) => a.path.length - b.path.length)) {
    take(scope as Tree, part, [root, ...path]);
  }
  return part;
}

function take(from: Tree, to: Tree, path: string[]): void {
  for (const [i, key] of path.entries()) {
    if (!Object.hasOwn(from, key)) return;
    const value = from[key];
    const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (i === path.length - 1 || !isObject) {
      to[key] = value;
      return;
    }
    if (to[key] === value) return;
    to[key] ??= emptyTree();
    from = value as Tree;
    to = to[key] as Tree;
  }
}

/** Without a prototype: a key `__proto__` is then a key like any other. */
function emptyTree(): Tree {
  return Object.create(null);
}
