/**
 * Makes `dist/`, what the package carries and what a checkout runs while it is fresh: compiled src and machines in
 * their layout, and the JSON Schema of the workflow file. `npm ci` and `npm pack` run it.
 */
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { workflowJsonSchema } from '../../src/definition/json-schema.ts';

const root = join(import.meta.dirname, '..', '..');
const dist = join(root, 'dist');
const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');

const { stampOf } = createRequire(import.meta.url)('../../bin/sources.js') as { stampOf(root: string): string };

const stamp = stampOf(root);
rmSync(dist, { recursive: true, force: true });
execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
writeFileSync(join(dist, 'workflow.schema.json'), `${JSON.stringify(workflowJsonSchema(), null, 2)}\n`);
writeFileSync(join(dist, 'sources.json'), `${JSON.stringify({ stamp })}\n`);
