/**
 * Which file may import what, and what may not stand in pure code: the folders' promises, checked.
 *
 * Reads the text of the files: good enough, because imports and calls are written plainly here.
 */
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, posix, sep } from 'node:path';

const root = join(import.meta.dirname, '..', '..');

interface ImportRule {
  /** Files it is about: a path, or a folder with its slash. */
  from: string;
  /** Files and packages they may import; absent: all. */
  only?: string[];
  /** Files they may not import. */
  never?: string[];
}

const importRules: ImportRule[] = [
  { from: 'machines/', only: ['machines/', 'xstate'] },
  {
    from: 'src/engine/',
    never: ['src/adapters/', 'src/server/', 'src/cli/', 'src/client/', 'src/worker/', 'src/demo/', 'src/config.ts'],
  },
  { from: 'src/ports/', only: ['src/ports/', 'src/wire.ts', 'src/errors.ts'] },
  { from: 'src/definition/', never: ['src/engine/', 'src/adapters/', 'src/server/', 'src/cli/', 'src/client/'] },
  { from: 'src/nodes/', never: ['src/engine/', 'src/adapters/', 'src/server/', 'src/cli/', 'src/client/'] },
  { from: 'src/client/', only: ['src/client/', 'src/wire.ts', 'src/errors.ts', 'socket.io-client'] },
  { from: 'src/adapters/', never: ['src/engine/', 'src/server/', 'src/cli/', 'src/client/', 'src/worker/'] },
  { from: 'src/worker/', never: ['src/engine/', 'src/adapters/', 'src/server/', 'src/cli/', 'src/client/'] },
  {
    from: 'inspector/',
    only: [
      'inspector/',
      'src/client/',
      'src/wire.ts',
      'react',
      'react-dom/client',
      'radix-ui',
      '@xyflow/react',
      '@xyflow/react/dist/style.css',
      '@dagrejs/dagre',
      'elkjs/lib/elk-api.js',
      'elkjs/lib/elk-worker.min.js?url',
      'vite',
      'node:path',
    ],
  },
  { from: 'src/wire.ts', only: [] },
  { from: 'src/errors.ts', only: [] },
];

interface TextRule {
  /** Files and folders it is about, and those of them it is not. */
  in: string[];
  except: string[];
  found: RegExp;
  why: string;
}

const pure = ['machines/', 'src/engine/'];
/** What the simulation runs as it is, beside the pure code: its time is the clock's too. */
const driven = [
  ...pure,
  'src/adapters/socket-io/bus.ts',
  'src/adapters/socket-io/relay.ts',
  'src/worker/worker.ts',
  'src/worker/pool.ts',
  'src/worker/engine-link.ts',
  'src/worker/run-task.ts',
  'src/worker/tombstones.ts',
  'src/server/workers.ts',
  'src/server/sockets.ts',
  'src/server/subscriptions.ts',
  'src/server/audit.ts',
  'src/server/call.ts',
  'src/server/frozen-sets.ts',
  'src/server/verbs/',
];
const textRules: TextRule[] = [
  {
    in: ['src/', 'machines/'],
    except: ['src/config.ts'],
    found: /\bprocess\.env\b/g,
    why: 'only src/config.ts reads the environment',
  },
  {
    in: driven,
    except: [],
    found: /\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.now\b/g,
    why: 'time comes from the clock',
  },
  {
    in: driven,
    except: [],
    found: /(?<![.\w])(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/g,
    why: 'timers come from the clock',
  },
  {
    in: driven,
    // A worker's default id, and the spread of its reconnects, which the simulation seeds.
    except: ['src/worker/worker.ts', 'src/worker/engine-link.ts'],
    found: /\bMath\.random\b|\brandom(?:UUID|Bytes|Int|Fill|FillSync)\b|\bgetRandomValues\b|(?<![.\w])crypto\./g,
    why: 'randomness and ids come from their ports',
  },
  {
    in: driven,
    except: [],
    found: /(?<![.\w])(?:process|console|globalThis)\.|(?<![.\w]|async )fetch\(|\bAtomics\b/g,
    why: 'nothing here touches the world but through its ports',
  },
];

/** Every breach, as `file:line: what`. */
export function breaches(): string[] {
  const files = globSync(['src/**/*.ts', 'machines/**/*.ts', 'inspector/*.ts', 'inspector/src/**/*.{ts,tsx}'], {
    cwd: root,
  }).map((file) => file.split(sep).join('/'));
  return files.sort().flatMap((file) => breachesIn(file, readFileSync(join(root, file), 'utf8')));
}

/** `file` is relative to the project, with slashes. */
export function breachesIn(file: string, text: string): string[] {
  const code = withoutComments(text);
  const found: string[] = [];
  const report = (index: number, what: string) => {
    found.push(`${file}:${code.slice(0, index).split('\n').length}: ${what}`);
  };
  for (const match of code.matchAll(/(?<!['"])\b(?:from|import)\s*\(?\s*(['"])([^'"\n]+)\1/g)) {
    const imported = match[2] as string;
    const target = imported.startsWith('.') ? posix.join(dirname(file), imported) : imported;
    if (!mayImport(file, target)) report(match.index, `imports ${target}`);
  }
  for (const rule of textRules) {
    if (!within(file, rule.in) || within(file, rule.except)) continue;
    for (const match of withoutStrings(code).matchAll(rule.found)) report(match.index, `${match[0]}: ${rule.why}`);
  }
  return found;
}

function mayImport(file: string, target: string): boolean {
  if (within(file, pure) && !within(target, ['src/', 'machines/', 'xstate'])) return false;
  return importRules
    .filter(({ from }) => within(file, [from]))
    .every(({ only, never }) => (only === undefined || within(target, only)) && !within(target, never ?? []));
}

function within(path: string, places: string[]): boolean {
  return places.some((place) => path === place || (place.endsWith('/') && path.startsWith(place)));
}

/** Blanks comments, keeping lines; a string is matched first, so that `'//'` is none. */
function withoutComments(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (all, string) => (string === undefined ? all.replace(/[^\n]/g, ' ') : all),
  );
}

/** Blanks plain strings; templates stay, for the code inside them. */
function withoutStrings(code: string): string {
  return code.replace(/'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/g, (all) => ' '.repeat(all.length));
}
