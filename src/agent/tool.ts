/**
 * Runs the tools of `agent` nodes as child processes on the agent's machine.
 *
 * A tool is a program that the agent's operator has allowed by name, found once when the agent starts. There is no
 * shell, and the workflow's arguments and variables are data: it can run nothing else, unless an allowed tool does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { z } from 'zod';
import { FullstopError, messageOf } from '../errors.ts';
import type { Task, TaskLog } from '../ports/work.ts';
import { AbortedAs, type Executor } from '../worker/executor.ts';

/** Characters of stdout that are kept as output. */
const STDOUT_CHARS_MAX = 1_048_576;
/** Characters of the end of stderr. */
const STDERR_TAIL_CHARS = 8_192;
/** Of stderr in the message of a failure. */
const EXCERPT_CHARS = 300;
/** From SIGTERM to SIGKILL, when the agent itself ends. */
const KILL_MS = 3_000;
/** How long what a tool left running may hold its output open once it has exited. */
const DRAIN_MS = 1_000;

/** By them a variable would decide which code an allowed tool runs. */
const VARIABLES_REFUSED =
  /^(PATH|IFS|ENV|BASH_ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PS4|LD_.*|DYLD_.*|GCONV_PATH|NODE_OPTIONS|NODE_PATH|PYTHON.*|PERL5?(LIB|OPT|DB)|RUBY(LIB|OPT)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH|GIT_.*|FULLSTOP_.*)$/i;

const scalar = z.union([z.string(), z.number(), z.boolean()], 'expected text, a number or a boolean').transform(String);
const noNul = scalar.refine((text) => !text.includes('\0'), 'expected no NUL character');

/** `with` of an `agent` node after its templates. */
const schema = z.strictObject({
  pool: z.string(),
  tool: z.string(),
  args: z.array(noNul).max(10_000).default([]),
  env: z.record(z.string().regex(/^[A-Za-z_]\w*$/, 'expected the name of a variable'), noNul).default({}),
  input: z.unknown().optional(),
});

export type Environment = Readonly<Record<string, string | undefined>>;

/** Absolute path of each allowed tool. */
export type Tools = ReadonlyMap<string, string>;

/**
 * Finds what an agent allows: names that are looked up in its own PATH, or paths.
 * @throws FS_INVALID for one that is no program
 */
export function findTools(names: readonly string[], env: Environment): Tools {
  return new Map(
    names.map((name) => {
      const path = name.includes('/')
        ? resolve(name)
        : (env.PATH ?? '')
            .split(delimiter)
            .filter(isAbsolute)
            .map((folder) => join(folder, name))
            .find(isProgram);
      if (path === undefined || !isProgram(path)) {
        throw new FullstopError('FS_INVALID', `expected programs of this machine, found "${name}": it is none`);
      }
      return [name, path];
    }),
  );
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

export interface ToolExecutorOptions {
  tools: Tools;
  /** The agent's own variables, which its tools inherit without those of this program. */
  env: Environment;
}

/** Its signal aborts only when the agent itself ends. */
export function createToolExecutor({ tools, env }: ToolExecutorOptions): Executor {
  const inherited = Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('FULLSTOP_')));
  return {
    async run(task, signal, log) {
      const { tool, args, env: given, input } = parseCall(task);
      const path = tools.get(tool);
      if (path === undefined) {
        const allowed = [...tools.keys()].join(', ') || 'none';
        throw new FullstopError(
          'FS_FORBIDDEN',
          `expected a tool that this agent allows (${allowed}), found "${tool.slice(0, 100)}"`,
        );
      }
      const folder = await mkdtemp(join(tmpdir(), 'fullstop-agent-'));
      try {
        const variables: Environment = { ...inherited, ...given };
        if (input === undefined) return await runTool(tool, path, args, variables, folder, signal, log);
        const file = join(folder, 'input.json');
        await writeFile(file, JSON.stringify(input), { mode: 0o400 });
        return await runTool(tool, path, args, { ...variables, FULLSTOP_INPUT: file }, folder, signal, log);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
    close: async () => {},
  };
}

/** @throws FS_INVALID */
function parseCall(task: Task): z.output<typeof schema> {
  const parsed = schema.safeParse(task.with);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = (issue?.path ?? []).map((key) => `.${String(key)}`).join('');
    throw new FullstopError('FS_INVALID', `with${path}: ${issue?.message ?? 'not valid'}`);
  }
  const refused = Object.keys(parsed.data.env).find((name) => VARIABLES_REFUSED.test(name));
  if (refused !== undefined) {
    throw new FullstopError(
      'FS_INVALID',
      `with.env: expected no variable that picks the code a tool runs, found ${refused}`,
    );
  }
  return parsed.data;
}

/** Resolves with the node's output. The process has ended, and what it started is not waited for long. */
async function runTool(
  tool: string,
  path: string,
  args: string[],
  env: Environment,
  cwd: string,
  signal: AbortSignal,
  log: TaskLog,
): Promise<unknown> {
  if (signal.aborted) throw new AbortedAs('neverStarted');
  const child = spawn(path, args, {
    cwd,
    env: env as NodeJS.ProcessEnv,
    shell: false,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own: a Ctrl-C in the agent's terminal is the agent's, and the group can be ended as one.
    detached: true,
  });
  let stdout = '';
  let tooLarge = false;
  let stderrTail = '';
  listen(child, 'stdout', (text) => {
    if (stdout.length + text.length > STDOUT_CHARS_MAX) tooLarge = true;
    else if (!tooLarge) stdout += text;
    log('stdout', text);
  });
  listen(child, 'stderr', (text) => {
    stderrTail = (stderrTail + text).slice(-STDERR_TAIL_CHARS);
    log('stderr', text);
  });
  const { code, killedBy } = await ended(child, tool, signal);
  if (code !== 0) {
    const how = code === null ? `was ended by ${killedBy}` : `exited with code ${code}`;
    const excerpt = stderrTail.slice(-EXCERPT_CHARS).replace(/\s+/g, ' ').trim();
    throw new FullstopError('FS_FAILED', `${tool} ${how}${excerpt === '' ? '' : `: ${excerpt}`}`, {
      details: { exitCode: code, stderrTail },
    });
  }
  if (tooLarge) {
    throw new FullstopError('FS_FAILED', `${tool} printed more than ${STDOUT_CHARS_MAX} characters`, {
      retryable: false,
    });
  }
  return { exitCode: code, stdout: objectOrText(stdout), stderrTail };
}

function listen(child: ChildProcess, stream: 'stdout' | 'stderr', hear: (text: string) => void): void {
  const decoder = new StringDecoder('utf8');
  child[stream]?.on('data', (chunk: Buffer) => {
    const text = decoder.write(chunk);
    if (text !== '') hear(text);
  });
  child[stream]?.on('end', () => {
    const text = decoder.end();
    if (text !== '') hear(text);
  });
}

/** Resolves when the process has exited and its output was read. @throws FS_FAILED when it cannot be started */
async function ended(
  child: ChildProcess,
  tool: string,
  signal: AbortSignal,
): Promise<{ code: number | null; killedBy: string | null }> {
  let forced = false;
  let timer: NodeJS.Timeout | undefined;
  const abort = (): void => {
    killGroup(child, 'SIGTERM');
    timer = setTimeout(() => {
      forced = true;
      killGroup(child, 'SIGKILL');
    }, KILL_MS);
  };
  try {
    return await new Promise((resolve, reject) => {
      child.once('error', (error) => {
        reject(new FullstopError('FS_FAILED', `${tool} cannot be started: ${messageOf(error)}`, { retryable: false }));
      });
      child.once('exit', (code, killedBy) => {
        clearTimeout(timer);
        const done = (): void => {
          clearTimeout(drain);
          if (signal.aborted) reject(new AbortedAs(forced ? 'forced' : 'aborted'));
          else resolve({ code, killedBy });
        };
        const drain = setTimeout(() => {
          child.stdout?.destroy();
          child.stderr?.destroy();
          done();
        }, DRAIN_MS);
        child.once('close', done);
      });
      signal.addEventListener('abort', abort);
      if (signal.aborted) abort();
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function killGroup({ pid }: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Gone already.
  }
}

/** An object or a list where the whole text is the JSON of one. */
function objectOrText(text: string): unknown {
  if (!/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
