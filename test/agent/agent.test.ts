import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { startAgent } from '../../src/agent/agent.ts';
import { createToolExecutor, findTools } from '../../src/agent/tool.ts';
import { hasCode } from '../../src/errors.ts';
import type { Task } from '../../src/ports/work.ts';
import type { RunningWorker } from '../../src/worker/worker.ts';
import { type GateWorld, openGateWorld, pause, quick, silentLog, taskOf } from '../worker/gate.ts';
import { until } from '../worker/support.ts';

const env = { PATH: process.env.PATH, HOME: '/home/agent', FULLSTOP_KEY: 'fs_secret' };

/** The Node.js of these tests as a tool: it runs whatever a test writes. */
const node = process.execPath;

function toolTask(name: string, with_: Record<string, unknown>): Task {
  return taskOf(name, { type: 'agent', where: 'agent', with: { pool: 'yard', ...with_ } });
}

describe('a tool of an agent', () => {
  const logs: [string, string][] = [];

  function run(with_: Record<string, unknown>, allow = [node], signal = new AbortController().signal) {
    logs.length = 0;
    return createToolExecutor({ tools: findTools(allow, env), env }).run(toolTask('t', with_), signal, (stream, text) =>
      logs.push([stream, text]),
    );
  }

  const script = (code: string, ...args: unknown[]) => ({ tool: node, args: ['-e', code, '--', ...args] });

  async function failure(promise: Promise<unknown>): Promise<{ code: string; message: string; retryable: boolean }> {
    try {
      await promise;
    } catch (error) {
      return error as { code: string; message: string; retryable: boolean };
    }
    throw new Error('expected a failure');
  }

  it('gives its exit code, what it printed, and the end of its errors', async () => {
    const output = await run(script('console.log("hi"); console.error("careful")'));
    expect(output).to.deep.equal({ exitCode: 0, stdout: 'hi\n', stderrTail: 'careful\n' });
    expect(logs).to.deep.include(['stdout', 'hi\n']).and.deep.include(['stderr', 'careful\n']);
  });

  it('gives an object or a list that it printed as JSON, and leaves all else text', async () => {
    for (const [printed, stdout] of [
      ['{"a":[1]}\n', { a: [1] }],
      ['[1,2]', [1, 2]],
      ['42', '42'],
      ['"x"', '"x"'],
      ['{"a":', '{"a":'],
      ['{"a":1}\n{"a":2}\n', '{"a":1}\n{"a":2}\n'],
    ] as const) {
      const output = (await run(script(`process.stdout.write(${JSON.stringify(printed)})`))) as { stdout: unknown };
      expect(output.stdout).to.deep.equal(stdout);
    }
  });

  it('gets its arguments as they are: there is no shell', async () => {
    const args = ['$(id)', '; rm -rf /', '*', "'", 'a b', 7, true, ''];
    const output = await run(script('console.log(JSON.stringify(process.argv.slice(1)))', ...args));
    expect(output).to.have.property('stdout').that.deep.equals(args.map(String));
  });

  it('gets its variables, and none of the agent that are of this program', async () => {
    const output = (await run({ ...script('console.log(JSON.stringify(process.env))'), env: { DEPTH: 3 } })) as {
      stdout: Record<string, string>;
    };
    expect(output.stdout).to.include({ DEPTH: '3', HOME: '/home/agent' });
    expect(output.stdout).not.to.have.property('FULLSTOP_KEY');
    expect(output.stdout).not.to.have.property('FULLSTOP_INPUT');
  });

  it('may not be given variables that pick the code it runs', async () => {
    for (const name of [
      'PATH',
      'LD_PRELOAD',
      'NODE_OPTIONS',
      'DYLD_INSERT_LIBRARIES',
      'BASH_ENV',
      'PYTHONPATH',
      'FULLSTOP_INPUT',
    ]) {
      const error = await failure(run({ ...script('1'), env: { [name]: 'x' } }));
      expect(error).to.include({ code: 'FS_INVALID', retryable: false });
      expect(error.message).to.include(name);
    }
  });

  it('reads its input from a file of its own, which is gone afterwards', async () => {
    const code =
      'const f = process.env.FULLSTOP_INPUT; console.log(JSON.stringify({ f, text: fs.readFileSync(f, "utf8"), cwd: process.cwd() }))';
    const output = (await run({ ...script(code), input: { x: [1, 'é'] } })) as { stdout: { f: string; text: string } };
    expect(JSON.parse(output.stdout.text)).to.deep.equal({ x: [1, 'é'] });
    expect(existsSync(output.stdout.f)).to.equal(false);
    expect(existsSync(join(output.stdout.f, '..'))).to.equal(false);
  });

  it('fails with its exit code and the end of its errors', async () => {
    const error = await failure(run(script('console.error("no such host"); process.exit(3)')));
    expect(error).to.include({ code: 'FS_FAILED', retryable: true });
    expect(error.message).to.match(/exited with code 3: no such host$/);
    expect((await failure(run(script('process.kill(process.pid, "SIGKILL")')))).message).to.include('ended by SIGKILL');
  });

  it('is refused when it is not allowed, with what is', async () => {
    for (const tool of ['bash', '/bin/sh', '../nmap', 'true ', '']) {
      const error = await failure(run({ tool }, ['true']));
      expect(error).to.include({ code: 'FS_FORBIDDEN', retryable: false });
      expect(error.message).to.include('(true)');
    }
  });

  it('is refused with a call that is not one', async () => {
    for (const with_ of [
      { args: 'x' },
      { args: [{}] },
      { args: ['a\0b'] },
      { env: { 'A-B': 'x' } },
      { env: { A: [] } },
      { shell: true },
    ]) {
      expect(await failure(run({ tool: 'true', ...with_ }, ['true']))).to.include({ code: 'FS_INVALID' });
    }
  });

  it('is found when the agent starts, or it does not start', () => {
    expect(findTools(['true', node], env).get(node)).to.equal(node);
    expect(findTools(['true'], env).get('true')).to.match(/^\/.*\/true$/);
    for (const name of ['no-such-program', '/etc/passwd', '/tmp', './nothing']) {
      try {
        findTools([name], env);
      } catch (error) {
        expect(hasCode(error, 'FS_INVALID')).to.equal(true);
        continue;
      }
      throw new Error(`${name} was found`);
    }
  });

  it('may print a lot to its errors, and no more than a megabyte as its output', async () => {
    const output = (await run(script('process.stderr.write("e".repeat(3e6) + "end")'))) as { stderrTail: string };
    expect(output.stderrTail).to.have.length(8_192).and.match(/end$/);
    const error = await failure(run(script('process.stdout.write("o".repeat(3e6))')));
    expect(error).to.include({ code: 'FS_FAILED', retryable: false });
    expect(error.message).to.include('printed more than');
  });

  it('is not waited for long when it leaves something running behind it', async () => {
    const startedMs = performance.now();
    const code = 'require("node:child_process").spawn("sleep", ["5"], { stdio: "inherit", detached: true }).unref()';
    expect(await run(script(code))).to.include({ exitCode: 0 });
    expect(performance.now() - startedMs).to.be.below(3_500);
  });

  it('ends with all that it started when the agent ends', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'fullstop-tool-'));
    const file = join(folder, 'pid');
    const abort = new AbortController();
    const code = `const c = require("node:child_process").spawn("sleep", ["60"]); fs.writeFileSync(${JSON.stringify(file)}, String(c.pid)); setInterval(() => {}, 1e3)`;
    const ended = failure(run(script(code), [node], abort.signal));
    await until(() => existsSync(file) && readFileSync(file, 'utf8') !== '', 'it runs');
    abort.abort();
    expect(await ended).to.include({ outcome: 'aborted' });
    const pid = Number(readFileSync(file, 'utf8'));
    await until(() => !isAlive(pid), 'what it started has ended');
    rmSync(folder, { recursive: true });
  });
});

describe('an agent', () => {
  let world: GateWorld;
  let agent: RunningWorker;
  let folder: string;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'fullstop-agent-test-'));
    world = await openGateWorld();
    const { key } = await world.key('agent');
    agent = world.keepTrack(
      startAgent({
        url: world.url,
        key,
        pool: 'yard',
        allow: [node],
        slots: 2,
        env,
        clock: systemClock,
        logger: silentLog,
      }),
    );
    await agent.ready();
  });
  afterEach(async () => {
    await world.close();
    rmSync(folder, { recursive: true });
  });

  const gate = () => world.gate;

  /** Pushes a task that says its pid and waits for a file before it ends. */
  async function pushWaiting(name: string): Promise<{ id: string; pid: number; finish(): void }> {
    const [started, go] = [join(folder, `${name}.started`), join(folder, `${name}.go`)];
    const code = `fs.writeFileSync(${JSON.stringify(started)}, String(process.pid)); const t = setInterval(() => { if (fs.existsSync(${JSON.stringify(go)})) { console.log('ran on'); clearInterval(t) } }, 10)`;
    const task = toolTask(name, { tool: node, args: ['-e', code] });
    gate().link.run(task, 't');
    await until(() => existsSync(started) && readFileSync(started, 'utf8') !== '', 'it runs');
    return { id: task.id, pid: Number(readFileSync(started, 'utf8')), finish: () => writeFileSync(go, '') };
  }

  it('picks up the tasks of its pool and brings results', async () => {
    expect(gate().link).to.include({ kind: 'agent', slots: 2 });
    expect(gate().link.capabilities).to.deep.equal(['agent:yard']);
    const task = toolTask('a', { tool: node, args: ['-p', '1+1'] });
    gate().link.run(task, 't');
    expect(await gate().reported(task.id)).to.deep.equal({
      kind: 'completed',
      output: { exitCode: 0, stdout: '2\n', stderrTail: '' },
    });
  });

  it('refuses a tool that it does not allow, and runs nothing', async () => {
    const task = toolTask('a', { tool: '/bin/sh', args: ['-c', `touch ${join(folder, 'ran')}`] });
    gate().link.run(task, 't');
    expect(await gate().reported(task.id)).to.include({ kind: 'failed', code: 'FS_FORBIDDEN', retryable: false });
    expect(existsSync(join(folder, 'ran'))).to.equal(false);
  });

  it('runs on when it is cancelled or stopped, and does not say its late result again', async () => {
    const waiting = await pushWaiting('a');
    gate().link.cancel(waiting.id);
    world.bus.stop({ executionId: taskOf('a').executionId, requestId: 'r' });
    gate().cancel = (held) => held;
    const beats = gate().beats.length;
    await until(() => gate().beats.length > beats + 2, 'it was told by heartbeats too');
    expect(isAlive(waiting.pid)).to.equal(true);
    gate().answer = async () => ({ discarded: true });
    waiting.finish();
    expect(await gate().reported(waiting.id)).to.have.nested.property('output.stdout', 'ran on\n');
    await pause(1_200);
    expect(gate().results).to.have.length(1);
  });

  it('runs on when it was cut off for a lease, and brings its result to whoever is there then', async () => {
    const waiting = await pushWaiting('a');
    await world.stopServer();
    await pause(quick.agentLeaseMs * 1.5);
    expect(isAlive(waiting.pid)).to.equal(true);
    waiting.finish();
    await until(() => !isAlive(waiting.pid), 'it ends');
    gate().keep = () => [];
    gate().answer = async () => ({ discarded: true });
    await world.startServer();
    expect(await gate().reported(waiting.id)).to.have.nested.property('output.stdout', 'ran on\n');
    expect(gate().hellos.at(-1)).to.deep.equal([{ taskId: waiting.id, token: 't' }]);
    await until(() => gate().beats.at(-1)?.length === 0, 'it is held no more');
  });

  it('runs on when it is kept no more, and its late result is told to be discarded', async () => {
    const waiting = await pushWaiting('a');
    gate().keep = () => [];
    gate().link.close();
    await until(() => gate().hellos.length === 2, 'it comes back');
    await pause(50);
    expect(isAlive(waiting.pid)).to.equal(true);
    waiting.finish();
    expect(await gate().reported(waiting.id)).to.include({ kind: 'completed' });
  });

  it('says a result again until it is answered', async () => {
    let refusals = 1;
    gate().answer = () => (refusals-- > 0 ? Promise.reject(new Error('full')) : Promise.resolve({ discarded: false }));
    const waiting = await pushWaiting('a');
    waiting.finish();
    await until(() => gate().results.length === 2, 'it is said again');
  });

  it('never starts what it was told to end while it waited for a slot', async () => {
    const waiting = [await pushWaiting('a'), await pushWaiting('b')];
    const task = toolTask('c', { tool: node, args: ['-p', '1'] });
    gate().link.run(task, 't');
    gate().link.cancel(task.id);
    expect(await gate().reported(task.id)).to.deep.equal({ kind: 'aborted', outcome: 'neverStarted' });
    for (const { finish } of waiting) finish();
    await until(() => gate().results.length === 3, 'the others end by themselves');
  });

  it('ends its tools when it is closed itself, and reports them as lost', async () => {
    const waiting = await pushWaiting('a');
    await agent.close(50);
    expect(isAlive(waiting.pid)).to.equal(false);
    expect(await gate().reported(waiting.id)).to.deep.equal({ kind: 'lost' });
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
