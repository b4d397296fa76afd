/** The package as a stranger gets it: packed, installed into an empty folder, run from there. */

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'chai';

const root = join(import.meta.dirname, '..', '..');
const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc');

const workflow = `
name: one
inputs:
  n: { type: number, required: true }
nodes:
  only: { type: set, with: { value: "\${{ input.n + 1 }}" } }
outputs:
  n: "\${{ nodes.only.output }}"
`;

const script = `
import { connect, hasCode } from 'fullstop/client';
const client = connect({ url: process.argv[2], key: process.argv[3] });
const { id } = await client.executions.start({ workflow: 'one', input: { n: 1 } });
const types = [];
for await (const event of client.executions.events(id)) types.push(event.type);
const { outputs } = await client.executions.result(id);
const stop = await client.executions.stop(id).catch((error) => hasCode(error, 'FS_ENDED'));
client.close();
console.log(JSON.stringify({ outputs, last: types.at(-1), stop }));
`;

const typed = `
import { connect, type Client, type ExecutionResult } from 'fullstop/client';
const client: Client = connect({ url: 'http://127.0.0.1:4747', key: 'k' });
const result: ExecutionResult = await client.executions.result('id');
for await (const { seq, type } of client.executions.events('id', { from: 2 })) console.log(seq.toFixed(), type === 'node.started');
// @ts-expect-error: a stop takes no reason
await client.executions.stop('id', result.status);
`;

const typedRoot = `
import { type Config, hasCode, resolveConfig, startServer, STOPPED_MESSAGE } from 'fullstop';
const config: Config = resolveConfig({}, { port: '0' });
const text: 'workflow stopped by user' = STOPPED_MESSAGE;
export const url: string = (await startServer(config)).url + text + hasCode(null, 'FS_GONE');
`;

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

describe('package', function () {
  // Packing compiles, installing may ask a registry.
  this.timeout(300_000);

  let directory: string;
  let consumer: string;
  let env: NodeJS.ProcessEnv;
  let server: ChildProcess | null = null;

  const run = (file: string, args: string[], cwd = consumer): Promise<Ran> =>
    new Promise((resolve) => {
      execFile(file, args, { cwd, env }, (error, stdout, stderr) => {
        resolve({ code: error === null ? 0 : Number(error.code ?? 1), stdout, stderr });
      });
    });
  const succeed = async (file: string, args: string[], cwd = consumer): Promise<string> => {
    const { code, stdout, stderr } = await run(file, args, cwd);
    expect(code, `${file} ${args.join(' ')}\n${stdout}${stderr}`).to.equal(0);
    return stdout;
  };
  const fullstop = (...args: string[]): Promise<Ran> => run(join(consumer, 'node_modules', '.bin', 'fullstop'), args);

  before(async () => {
    directory = mkdtempSync(join(tmpdir(), 'fullstop-package-'));
    consumer = join(directory, 'consumer');
    mkdirSync(consumer);
    // The Node.js that runs this test; and none of our own settings.
    const inherited = Object.entries(process.env).filter(([name]) => !/^(FULLSTOP_|npm_|NODE_OPTIONS)/i.test(name));
    env = { ...Object.fromEntries(inherited), PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` };
    await succeed('npm', ['pack', '--pack-destination', directory], root);
    const tarball = readdirSync(directory).find((name) => name.endsWith('.tgz')) as string;
    writeFileSync(join(consumer, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
    await succeed('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', join(directory, tarball)]);
  });

  after(() => {
    server?.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  });

  it('carries compiled JavaScript with types, and no sources or tests', () => {
    const files = readdirSync(join(consumer, 'node_modules', 'fullstop'), { recursive: true, encoding: 'utf8' });
    expect(files).to.include.members([
      'bin/fullstop.js',
      'inspector/dist/index.html',
      'dist/src/cli/main.js',
      'dist/src/client/index.d.ts',
      'dist/workflow.schema.json',
    ]);
    expect(
      files.filter((name) => /(^|\/)(src|test|bench)(\/|$)/.test(name) && !name.startsWith('dist/src')),
    ).to.deep.equal([]);
    expect(files.filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))).to.deep.equal([]);
  });

  it('is the same when built from what .dockerignore leaves to the image', async () => {
    const left = join(directory, 'left');
    const [first, ...lines] = readFileSync(join(root, '.dockerignore'), 'utf8')
      .split('\n')
      .filter((line) => /^[^#]/.test(line));
    expect(first, 'all but what is named').to.equal('*');
    for (const line of lines) {
      if (!line.startsWith('!')) rmSync(join(left, line), { recursive: true, force: true });
      else {
        const found = globSync(line.slice(1), { cwd: root });
        expect(found, line).not.to.be.empty;
        for (const path of found) cpSync(join(root, path), join(left, path), { recursive: true });
      }
    }
    symlinkSync(join(root, 'node_modules'), join(left, 'node_modules'));
    await succeed('npm', ['pack', '--pack-destination', left], left);
    const contents = async (folder: string): Promise<string[]> => {
      const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz')) as string;
      return (await succeed('tar', ['-tzf', join(folder, tarball)])).split('\n').sort();
    };
    expect(await contents(left)).to.deep.equal(await contents(directory));
  });

  it('carries the licence of everything that the page contains, and says where its source is', () => {
    const notices = readFileSync(
      join(consumer, 'node_modules', 'fullstop', 'inspector', 'dist', 'THIRD-PARTY-NOTICES.md'),
      'utf8',
    );
    const [head = '', ...sections] = notices.split(/^## (?=\S+ - \d+\.\d+\.\d+ \(.+\)$)/m);
    expect(head).to.contain('https://github.com/kieler/elkjs').and.to.contain('npm pack NAME@VERSION');
    const texts = new Map(sections.map((section) => [section.slice(0, section.indexOf(' - ')), section]));
    for (const [name, text] of texts) expect(text.length, name).to.be.greaterThan(500);
    expect(texts.get('elkjs')).to.match(/\(EPL-2\.0\b.*\)\n\n# Eclipse Public License - v 2\.0/);

    // What the page's own modules import, and what those of the client do.
    const imported = new Set<string>();
    for (const folder of ['inspector/src', 'src/client']) {
      for (const file of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
        if (!/\.tsx?$/.test(file)) continue;
        const source = readFileSync(join(root, folder, file), 'utf8');
        for (const [, specifier = ''] of source.matchAll(/^(?!import type|export type).* from '([^'.:][^':]*)';$/gm))
          imported.add(specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/'));
      }
    }
    expect([...imported]).to.include.members(['react', 'elkjs', '@dagrejs/dagre', 'socket.io-client']);
    // It re-exports others, each a package of its own.
    imported.delete('radix-ui');
    expect([...texts.keys()]).to.include.members([...imported, '@radix-ui/react-dialog']);
  });

  it('has a command that npx finds', async () => {
    expect(await succeed('npx', ['fullstop', '--help']))
      .to.contain('stop means stop')
      .and.to.contain('  fullstop serve');
  });

  it('exports the schema of workflow files', async () => {
    const path = await succeed(process.execPath, [
      '--input-type=module',
      '-e',
      "console.log(import.meta.resolve('fullstop/workflow.schema.json'))",
    ]);
    expect(JSON.parse(readFileSync(new URL(path.trim()), 'utf8'))).to.include.keys('$schema', 'properties');
  });

  it('has a client whose types resolve without any others', async () => {
    writeFileSync(join(consumer, 'typed.mts'), typed);
    await succeed(process.execPath, [
      tsc,
      '--noEmit',
      '--strict',
      '--module',
      'nodenext',
      '--target',
      'es2024',
      '--lib',
      'es2024,dom',
      '--types',
      '',
      'typed.mts',
    ]);
  });

  it('has a main entry whose types resolve', async () => {
    writeFileSync(join(consumer, 'root.mts'), typedRoot);
    await succeed(process.execPath, [
      tsc,
      '--noEmit',
      '--strict',
      '--skipLibCheck',
      '--module',
      'nodenext',
      '--target',
      'es2024',
      '--lib',
      'es2024,dom',
      '--types',
      '',
      'root.mts',
    ]);
  });

  it('serves, runs a workflow to its end, and ends on SIGTERM', async () => {
    const data = join(directory, 'data');
    env.FULLSTOP_DATA = data;
    server = spawn(
      join(consumer, 'node_modules', '.bin', 'fullstop'),
      ['serve', '--port', '0', '--demo', '0', '--json'],
      {
        cwd: consumer,
        env,
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const exited = once(server, 'exit');
    const lines = createInterface({ input: server.stdout as NodeJS.ReadableStream });
    const { url } = JSON.parse((await once(lines, 'line'))[0] as string) as { url: string };
    expect(url).to.match(/^http:\/\/127\.0\.0\.1:\d+$/);

    writeFileSync(join(consumer, 'one.yaml'), workflow);
    const ran = await fullstop('run', 'one.yaml', '--input', 'n=41', '--wait');
    expect(ran.stderr).to.contain('Complete');
    expect([ran.code, JSON.parse(ran.stdout)]).to.deep.equal([0, { n: 42 }]);
    expect((await fullstop('ps')).stdout).to.match(/one +Complete/);

    writeFileSync(join(consumer, 'script.js'), script);
    const key = readFileSync(join(data, 'admin.key'), 'utf8').trim();
    expect(JSON.parse(await succeed(process.execPath, ['script.js', url, key]))).to.deep.equal({
      outputs: { n: 2 },
      last: 'execution.completed',
      stop: true,
    });

    const signalledAt = Date.now();
    server.kill('SIGTERM');
    expect((await exited).slice(0, 2)).to.deep.equal([0, null]);
    expect(Date.now() - signalledAt).to.be.below(5_000);
    server = null;
    expect(await fullstop('ps')).to.include({ code: 1 });
  });
});
