/**
 * `npm run check [-- --write]`: types, lint and format, import directions, generated docs.
 *
 * `--write` formats, applies the linter's safe fixes and writes the generated docs anew.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorCodes } from '../../src/errors.ts';
import { breaches } from './directions.ts';

const root = join(import.meta.dirname, '..', '..');

/** Answers the faults it finds; none: ok. */
type Step = (write: boolean) => string[] | Promise<string[]>;

const steps: Record<string, Step> = {
  types: () => runTool('typescript/bin/tsc', '-p', '.'),
  'types of inspector/': () => [
    ...runTool('typescript/bin/tsc', '-p', 'inspector'),
    ...runTool('typescript/bin/tsc', '-p', 'test/browser'),
  ],
  'lint and format': (write) =>
    runTool('@biomejs/biome/bin/biome', 'check', '--error-on-warnings', ...(write ? ['--write'] : [])),
  'import directions': breaches,
  'docs/errors.md': () => errorSectionFaults(readFileSync(join(root, 'docs/errors.md'), 'utf8')),
  'docs/stopping.md': () => testLinkFaults('docs/stopping.md'),
  'docs/machines.md': async (write) => {
    const { renderMachineDocs } = await import('./machine-docs.ts');
    return generated('docs/machines.md', renderMachineDocs(), write);
  },
  'docs/configuration.md': async (write) => {
    const { renderConfigurationDocs } = await import('./configuration-docs.ts');
    return generated('docs/configuration.md', renderConfigurationDocs(), write);
  },
  links: deadLinks,
  'docs/openapi.json': async (write) => {
    const { openapiDocument } = await import('../../src/server/openapi.ts');
    return generated('docs/openapi.json', `${JSON.stringify(await openapiDocument(), null, 2)}\n`, write);
  },
};

function runTool(bin: string, ...args: string[]): string[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'node_modules', bin), ...args], {
    cwd: root,
    encoding: 'utf8',
  });
  return status === 0 ? [] : [`${stdout}${stderr}`.trim() || `exit code ${status}`];
}

/** A section per code, and no section without its code. */
export function errorSectionFaults(text: string): string[] {
  const sections = [...text.matchAll(/^## `?(FS_\w+)`?$/gm)].map((match) => match[1] as string);
  const codes = Object.keys(errorCodes);
  return [
    ...codes.filter((code) => !sections.includes(code)).map((code) => `${code} has no section`),
    ...sections.filter((section) => !codes.includes(section)).map((section) => `${section} is not an error code`),
    ...sections
      .filter((section, index) => sections.indexOf(section) < index)
      .map((section) => `${section} is there twice`),
  ];
}

/** A link to a test names a test that is there: `[NAME](FILE)`, or `[…](FILE "NAME")`. */
function testLinkFaults(page: string): string[] {
  const text = readFileSync(join(root, page), 'utf8');
  return [...text.matchAll(/\[([^\]]+)\]\((\S+\.test\.ts)(?: "([^"]+)")?\)/g)].flatMap(([, label, file, title]) => {
    const path = join(root, page, '..', file as string);
    const name = title ?? (label as string);
    return existsSync(path) && readFileSync(path, 'utf8').includes(`'${name}'`)
      ? []
      : [`${file} has no test '${name}'`];
  });
}

/** The pages of the repository. */
function deadLinks(): string[] {
  const { stdout } = spawnSync('git', ['ls-files', '*.md'], { cwd: root, encoding: 'utf8' });
  const pages = stdout.split('\n').filter((page) => page !== '' && existsSync(join(root, page)));
  return pages.flatMap((page) => deadLinksIn(page, readFileSync(join(root, page), 'utf8')));
}

/** Links of a page that lead to no file of the repository, or to no heading of it. */
export function deadLinksIn(page: string, text: string): string[] {
  return [...text.matchAll(/\]\(([^)\s]+)/g)].flatMap(([, target = '']) => {
    if (/^[a-z]+:/.test(target)) return [];
    const [file = '', anchor] = target.split('#');
    const path = join(root, page, '..', file);
    if (!existsSync(path)) return [`${page} links to ${target}, which is not there`];
    if (anchor === undefined || headings(file === '' ? text : readFileSync(path, 'utf8')).includes(anchor)) return [];
    return [`${page} links to ${target}: there is no such heading`];
  });
}

/** As GitHub names them in an address. */
const headings = (text: string): string[] =>
  [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );

function generated(file: string, wanted: string, write: boolean): string[] {
  const path = join(root, file);
  if (existsSync(path) && readFileSync(path, 'utf8') === wanted) return [];
  if (!write) return ['stale: npm run check -- --write makes it anew'];
  writeFileSync(path, wanted);
  return [];
}

async function main(args: string[]): Promise<void> {
  const write = args.includes('--write');
  for (const [name, step] of Object.entries(steps)) {
    const startedMs = performance.now();
    let faults: string[];
    try {
      faults = await step(write);
    } catch (error) {
      faults = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    }
    const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
    console.log(`${faults.length === 0 ? 'ok    ' : 'failed'} ${name} (${seconds} s)`);
    for (const fault of faults) console.log(fault.replace(/^/gm, '  '));
    if (faults.length > 0) process.exitCode = 1;
  }
}

if (import.meta.main) await main(process.argv.slice(2));
