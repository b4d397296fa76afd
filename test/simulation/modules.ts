/**
 * Exchanges what the code under test imports: the worker's `socket.io-client` is the simulation's, and engines share
 * what they compile. And, for the proof that the simulation sees what it should, rewrites one guard of a source file
 * (see `mutants.ts`).
 *
 * Runs before anything of `src/` is loaded: whoever simulates imports `world.ts` after `prepareModules`.
 */
import { registerHooks } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface Rewrite {
  /** From the project's root. */
  file: string;
  text: string;
  by: string;
}

const root = join(import.meta.dirname, '..', '..');
const urlOf = (file: string): string => pathToFileURL(join(root, file)).href;
const LINK = urlOf('src/worker/engine-link.ts');
const SOCKETS = urlOf('test/simulation/sockets.ts');
const WORKFLOWS = urlOf('src/engine/workflows.ts');
const DEFINITIONS = urlOf('test/simulation/definitions.ts');

let prepared = false;

/** @throws Error where the text of a rewrite is not in its file, exactly once. */
export function prepareModules(rewrites: readonly Rewrite[] = []): void {
  if (prepared) return;
  prepared = true;
  registerHooks({
    resolve(specifier, context, next) {
      if (specifier === 'socket.io-client' && context.parentURL === LINK) return { url: SOCKETS, shortCircuit: true };
      if (specifier === '../definition/compile.ts' && context.parentURL === WORKFLOWS)
        return { url: DEFINITIONS, shortCircuit: true };
      return next(specifier, context);
    },
    load(url, context, next) {
      const loaded = next(url, context);
      const here = rewrites.filter(({ file }) => urlOf(file) === url);
      if (here.length === 0 || loaded.source === undefined || loaded.source === null) return loaded;
      let source = String(loaded.source);
      for (const rewrite of here) source = rewritten(source, rewrite);
      return { ...loaded, source };
    },
  });
}

export function rewritten(source: string, { file, text, by }: Rewrite): string {
  const parts = source.split(text);
  if (parts.length !== 2)
    throw new Error(`expected this once in ${file}, found it ${parts.length - 1} times:\n${text}`);
  return parts.join(by);
}
