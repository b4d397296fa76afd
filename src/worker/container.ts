import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ContainerCreateOptions } from 'dockerode';
import { FullstopError, messageOf } from '../errors.ts';
import type { LeftTask, Task } from '../ports/work.ts';
import type { TaskOutcome } from '../wire.ts';
import { ContainerEngine, type ContainerState, mayHappenYet, statusOf } from './container-engine.ts';
import { inputPath, removeLeftInputs, tarOf, writeInput } from './container-input.ts';
import { ContainerOutput } from './container-output.ts';
import { type ContainerSpec, isImageAllowed, parseContainerSpec } from './container-spec.ts';
import { AbortedAs, type TaskLog } from './executor.ts';
import { type Hide, type HidingExecutor, hideNothing } from './secrets.ts';

export { findContainerSocket } from './container-engine.ts';

export interface ContainerExecutorOptions {
  /** Where Docker or Podman listens, as in `DOCKER_HOST`: `findContainerSocket` knows. null: no container runs. */
  dockerHost: string | null;
  /** Which images may run: names where `*` stands for any text. Empty: none. */
  images: readonly string[];
  /** Names this installation in the labels: its reaper removes no other's containers. */
  engineId: string;
  /** Between SIGTERM and SIGKILL, in ms; 0: SIGKILL at once. Default: 3,000. */
  graceMs?: number;
  /** How long after the grace an aborted task waits for proof before it ends as `unconfirmed`, in ms. Default: 10,000. */
  proofMs?: number;
  /** A node that prints more to stdout fails. Default: 1 MiB. */
  stdoutMaxBytes?: number;
  /** Processes and threads of one container. Default: 512. */
  pidsMax?: number;
  /** How the input gets there: `bind` needs an engine on this machine. Default: by `dockerHost`. */
  inputBy?: 'bind' | 'archive';
  /** The container of a task is proven gone: also long after the task ended as `unconfirmed`. */
  onGone?: (taskId: string) => void;
}

export interface ContainerExecutor extends HidingExecutor {
  pursue(task: LeftTask): Promise<TaskOutcome>;
  /** Whether the engine answers. */
  available(): Promise<boolean>;
  /**
   * Ends the containers of this installation whose task is not live, those of this process left out, and waits
   * until they are gone. Resolves with how many. @throws FS_CONTAINER_ENGINE
   */
  reap(isLive: (taskId: string) => boolean | Promise<boolean>): Promise<number>;
  /**
   * Ends whatever earlier attempts of a node left behind, and resolves when that is proven gone.
   * `nodeKey` is the `idempotencyKey` of its tasks. @throws FS_CONTAINER_ENGINE
   */
  ensureGone(executionId: string, nodeKey: string): Promise<void>;
}

/** How often a running container is looked at, in case its output never ends. */
const watchMs = 5_000;
/** How long after an unanswered call to create a container it may still appear. */
const appearMs = 2_000;
/** How long SIGKILL may take before the container is removed as it stands. */
const killMs = 1_000;
const pauseMinMs = 10;
const pauseMaxMs = 250;
const pauseAfterFaultMaxMs = 5_000;
/** How much of stderr's last line a failure's message quotes. */
const lineChars = 300;

const aborted = new FullstopError('FS_CONTAINER_ENGINE', 'aborted');

/**
 * Runs `container` nodes on Docker or Podman.
 *
 * A task ends when its container is proven gone, however the task went. When that takes too long it ends all the
 * same, and the container is pursued until it is.
 */
export function createContainerExecutor(options: ContainerExecutorOptions): ContainerExecutor {
  return new Containers(options);
}

class Containers implements ContainerExecutor {
  readonly #engine: ContainerEngine;
  readonly #options: Required<ContainerExecutorOptions>;
  /** Names of the containers that a task here is about. */
  readonly #held = new Set<string>();
  /** Ends of containers that others left, under way, by the container's id. */
  readonly #endings = new Map<string, Promise<Proof>>();
  readonly #closing = new AbortController();
  readonly #prefix: string;
  /** Whether the engine has an init to run as the container's first process. */
  #hasInit = true;

  constructor(options: ContainerExecutorOptions) {
    this.#engine = new ContainerEngine(options.dockerHost);
    // Where SELinux rules, a container may not read a bound file of ours.
    const mayBind = this.#engine.isLocal && !existsSync('/sys/fs/selinux/enforce');
    this.#options = {
      graceMs: 3_000,
      proofMs: 10_000,
      stdoutMaxBytes: 2 ** 20,
      pidsMax: 512,
      inputBy: mayBind ? 'bind' : 'archive',
      onGone: () => undefined,
      ...options,
    };
    this.#prefix = `fullstop-${digest(options.engineId, 8)}-`;
  }

  async run(task: Task, signal: AbortSignal, log: TaskLog, hide: Hide = hideNothing): Promise<unknown> {
    const spec = parseContainerSpec(task);
    this.#refuseImage(spec.image);
    if (task.attempt > 1) await this.ensureGone(task.executionId, task.idempotencyKey);
    if (signal.aborted) throw aborted;
    const { graceMs, proofMs } = this.#options;
    const work = this.#runToTheEnd(task, spec, signal, log, hide);
    let tooLate: NodeJS.Timeout | undefined;
    const unproven = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => {
        tooLate = setTimeout(() => reject(new AbortedAs('unconfirmed')), graceMs + proofMs);
      });
    });
    try {
      return await Promise.race([work, unproven]);
    } finally {
      clearTimeout(tooLate);
      work.catch(() => undefined);
    }
  }

  async available(): Promise<boolean> {
    try {
      await this.#engine.ping();
      return true;
    } catch {
      return false;
    }
  }

  async reap(isLive: (taskId: string) => boolean | Promise<boolean>): Promise<number> {
    const found = await this.#engine.list({ 'fullstop.engine': this.#options.engineId });
    const verdicts = await Promise.all(
      found.map(async ({ name, labels }) => this.#held.has(name) || (await isLive(labels['fullstop.task'] ?? ''))),
    );
    const dead = found.filter((_, index) => !verdicts[index]);
    await this.#endAll(dead.map(({ id }) => id));
    const live = found.filter((_, index) => verdicts[index]).map(({ name }) => name);
    await removeLeftInputs(this.#prefix, new Set([...this.#held, ...live]));
    return dead.length;
  }

  async ensureGone(executionId: string, nodeKey: string): Promise<void> {
    const found = await this.#engine.list({ 'fullstop.execution': executionId, 'fullstop.key': nodeKey });
    await this.#endAll(found.map(({ id }) => id));
  }

  async pursue({ id }: LeftTask): Promise<TaskOutcome> {
    // The engine may still be creating it.
    const appearsUntilMs = performance.now() + appearMs;
    let forced = false;
    let pauseMs = pauseMaxMs;
    while (!this.#closing.signal.aborted) {
      try {
        const found = await this.#engine.list({ 'fullstop.task': id });
        if (found.length === 0 && performance.now() >= appearsUntilMs) return forced ? 'forced' : 'aborted';
        const proofs = await Promise.all(found.map((one) => this.#endLeft(one.id)));
        forced ||= proofs.some((proof) => proof.forced);
        pauseMs = pauseMaxMs;
      } catch {
        pauseMs = Math.min(pauseMs * 2, pauseAfterFaultMaxMs);
      }
      await pause(pauseMs, this.#closing.signal);
    }
    return 'unconfirmed';
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#engine.close();
  }

  #refuseImage(image: string): void {
    const { images } = this.#options;
    if (isImageAllowed(image, images)) return;
    const allowed = images.length === 0 ? 'which allows no image' : `which allows ${images.join(', ')}`;
    throw new FullstopError(
      'FS_CONTAINER_IMAGE',
      `with.image: "${image}" is not allowed by FULLSTOP_IMAGES, ${allowed}: an operator can add it there`,
    );
  }

  /** Settles when the container is gone; with its outcome all the same when the engine cannot prove that in time. */
  async #runToTheEnd(task: Task, spec: ContainerSpec, signal: AbortSignal, log: TaskLog, hide: Hide): Promise<unknown> {
    const name = `${this.#prefix}${digest(task.id, 24)}`;
    const output = new ContainerOutput(this.#options.stdoutMaxBytes, log, hide);
    const trace: Trace = { names: new Set(), appearsUntilMs: null, files: [] };
    this.#held.add(name);
    let result: { output: unknown } | { error: unknown };
    try {
      result = { output: await this.#work(name, task, spec, signal, output, trace) };
    } catch (error) {
      result = { error };
    }
    const ending = this.#leaveNothing(name, task, output, trace);
    const inTime = signal.aborted ? null : AbortSignal.timeout(this.#options.graceMs + this.#options.proofMs);
    const proof = await (inTime === null ? ending : Promise.race([ending, whenAborted(inTime)]));
    if ('output' in result) return result.output;
    if (signal.aborted && proof?.forced === true) throw new AbortedAs('forced');
    if (signal.aborted && proof?.proven === false) throw new AbortedAs('unconfirmed');
    throw result.error;
  }

  async #work(
    name: string,
    task: Task,
    spec: ContainerSpec,
    signal: AbortSignal,
    output: ContainerOutput,
    trace: Trace,
  ): Promise<unknown> {
    const goOn = () => {
      if (signal.aborted) throw aborted;
    };
    const options = await this.#createOptions(name, task, spec, trace, goOn);
    goOn();
    await this.#create(options, spec, trace);
    goOn();
    try {
      output.read(await this.#engine.attach(name));
      goOn();
      await this.#engine.start(name);
    } catch (error) {
      throw startFailure(error);
    }
    goOn();
    const state = await this.#untilEnded(name, output, signal);
    if (output.overflown) {
      throw new FullstopError(
        'FS_CONTAINER_OUTPUT',
        `stdout is larger than ${this.#options.stdoutMaxBytes} bytes, and the container was ended: ` +
          'print to stderr what no node reads',
      );
    }
    if (state === null) {
      throw new FullstopError('FS_CONTAINER_ENGINE', 'the container was removed while it ran, by somebody else');
    }
    return outputOf(spec, state, output);
  }

  /** Creates it; anew when a container of this very task was left behind, or when the engine has no init. */
  async #create(options: ContainerCreateOptions, spec: ContainerSpec, trace: Trace): Promise<void> {
    const name = options.name as string;
    for (let tries = 1; ; tries++) {
      trace.names.add(name);
      this.#held.add(name);
      const withInit = this.#hasInit;
      try {
        await this.#engine.create({ ...options, HostConfig: { ...options.HostConfig, Init: withInit } });
        return;
      } catch (error) {
        const message = messageOf(error);
        if (mayHappenYet(error)) trace.appearsUntilMs = performance.now() + appearMs;
        else trace.names.delete(name);
        if (statusOf(error) === 404 && /image/i.test(message)) {
          throw new FullstopError(
            'FS_CONTAINER_IMAGE',
            `with.image: there is no "${spec.image}" on this worker's machine: pull it there first`,
            { cause: error },
          );
        }
        if (tries <= 2 && /already in use|name.* in use/i.test(message)) await this.#end(name, 0, null);
        else if (withInit && /init binary|docker-init|catatonit/.test(message)) this.#hasInit = false;
        else throw refusedOptions(error);
      }
    }
  }

  async #createOptions(
    name: string,
    task: Task,
    spec: ContainerSpec,
    trace: Trace,
    goOn: () => void,
  ): Promise<ContainerCreateOptions> {
    const labels = this.#labels(task);
    const env = Object.entries(spec.env).map(([key, value]) => `${key}=${value}`);
    const host: ContainerCreateOptions['HostConfig'] = {
      NetworkMode: spec.network,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      Privileged: false,
      ReadonlyRootfs: true,
      Tmpfs: { '/tmp': `rw,nosuid,nodev,exec,mode=1777,size=${spec.memoryBytes}` },
      Memory: spec.memoryBytes,
      MemorySwap: spec.memoryBytes,
      NanoCpus: Math.round(spec.cpus * 1e9),
      PidsLimit: this.#options.pidsMax,
      IpcMode: 'private',
      // What is printed is read as it comes; a second copy would fill the engine's disk.
      LogConfig: { Type: 'none', Config: {} },
      RestartPolicy: { Name: 'no' },
    };
    if (spec.input !== null) {
      env.push(`FULLSTOP_INPUT=${inputPath}`);
      if (this.#options.inputBy === 'bind') {
        const { file, remove } = await writeInput(name, spec.input);
        trace.files.push(remove);
        host.Mounts = [{ Type: 'bind', Source: file, Target: inputPath, ReadOnly: true }];
      } else {
        goOn();
        host.VolumesFrom = [`${await this.#holdInput(name, spec, labels, trace)}:ro`];
      }
    }
    return {
      name,
      Image: spec.image,
      ...(spec.command !== null && { Entrypoint: spec.command }),
      ...(spec.args !== null && { Cmd: spec.args }),
      ...(spec.user !== null && { User: spec.user }),
      Env: env,
      Labels: labels,
      AttachStdout: true,
      AttachStderr: true,
      Tty: false,
      // A removal that finds it running, whoever asks for it, is not to wait.
      StopTimeout: 0,
      HostConfig: host,
    };
  }

  /** The input in a volume of a second container that never starts: an archive cannot be copied to a read-only root. */
  async #holdInput(name: string, spec: ContainerSpec, labels: Record<string, string>, trace: Trace): Promise<string> {
    const holder = `${name}-input`;
    const folder = inputPath.slice(0, inputPath.lastIndexOf('/'));
    await this.#create(
      {
        name: holder,
        Image: spec.image,
        Entrypoint: ['true'],
        Labels: labels,
        Volumes: { [folder]: {} },
        HostConfig: { NetworkMode: 'none', CapDrop: ['ALL'] },
      },
      spec,
      trace,
    );
    await this.#engine.putArchive(holder, tarOf('input.json', Buffer.from(spec.input as string)), folder);
    return holder;
  }

  #labels(task: Task): Record<string, string> {
    return {
      'fullstop.engine': this.#options.engineId,
      'fullstop.execution': task.executionId,
      'fullstop.node': task.node,
      'fullstop.iterations': task.iterations.join('/'),
      'fullstop.attempt': String(task.attempt),
      'fullstop.task': task.id,
      'fullstop.key': task.idempotencyKey,
    };
  }

  /** Resolves with the state of the ended container; null: it is not there any more. */
  async #untilEnded(name: string, output: ContainerOutput, signal: AbortSignal): Promise<ContainerState | null> {
    const stop = whenAborted(signal);
    let broken: unknown = null;
    const ended = output.ended.catch((error) => {
      broken = error;
    });
    for (;;) {
      const first = await Promise.race([
        ended.then(() => 'output' as const),
        stop,
        pause(watchMs, this.#closing.signal),
      ]);
      const state = await this.#engine.state(name).catch((error) => {
        // Its next look tells, unless it is gone for good: then the output's connection breaks.
        if (first === 'output' || statusOf(error) !== null) throw error;
        return undefined;
      });
      if (state !== undefined && (state === null || state.ended)) {
        // It ended by itself, also when the abort came meanwhile.
        await Promise.race([ended, pause(killMs, this.#closing.signal)]);
        return state;
      }
      if (signal.aborted) throw aborted;
      if (first !== 'output') continue;
      if (output.overflown) return state ?? null;
      if (broken !== null) {
        throw new FullstopError('FS_CONTAINER_ENGINE', `lost the container's output: ${messageOf(broken)}`);
      }
      // The engine tells of the end a moment late; or the program closed its streams and goes on.
      for (let pauseMs = pauseMinMs; ; pauseMs = Math.min(pauseMs * 1.5, 1_000)) {
        await Promise.race([pause(pauseMs, this.#closing.signal), stop]);
        const later = await this.#engine.state(name);
        if (later === null || later.ended) return later;
        if (signal.aborted) throw aborted;
      }
    }
  }

  async #leaveNothing(name: string, task: Task, output: ContainerOutput, trace: Trace): Promise<Proof> {
    const proof: Proof = { proven: true, forced: false };
    // Its own container was created last, and may use the other one's volume.
    for (const each of [...trace.names].reverse()) {
      const { proven, forced } = await this.#end(each, each === name ? this.#options.graceMs : 0, trace.appearsUntilMs);
      proof.proven &&= proven;
      proof.forced ||= forced;
      if (proven) this.#held.delete(each);
    }
    output.close();
    for (const remove of trace.files) await remove().catch(() => undefined);
    if (!proof.proven) return proof;
    this.#held.delete(name);
    this.#options.onGone(task.id);
    return proof;
  }

  async #endAll(ids: string[]): Promise<void> {
    const { graceMs, proofMs } = this.#options;
    const all = Promise.all(ids.map((id) => this.#endLeft(id)));
    const proofs = await Promise.race([all, whenAborted(AbortSignal.timeout(graceMs + proofMs))]);
    if (proofs === undefined || proofs.some(({ proven }) => !proven)) {
      throw new FullstopError('FS_CONTAINER_ENGINE', 'a container of an earlier attempt cannot be proven gone yet');
    }
  }

  /** Whoever else wants its end learns of the same one, SIGKILL included. */
  #endLeft(id: string): Promise<Proof> {
    const known = this.#endings.get(id);
    if (known !== undefined) return known;
    const ending = this.#end(id, this.#options.graceMs, null).finally(() => this.#endings.delete(id));
    this.#endings.set(id, ending);
    return ending;
  }

  /**
   * SIGTERM, the grace, SIGKILL, removal, and a look until it is not there: each step by what the last look found,
   * so that it does not matter which of them the engine answered wrongly, late, or not at all.
   */
  async #end(name: string, graceMs: number, appearsUntilMs: number | null): Promise<Proof> {
    let termAtMs: number | null = null;
    let killAtMs: number | null = null;
    let forced = false;
    let pauseMs = pauseMinMs;
    while (!this.#closing.signal.aborted) {
      try {
        const state = await this.#engine.state(name);
        const nowMs = performance.now();
        if (state === null) {
          if (nowMs >= (appearsUntilMs ?? 0)) return { proven: true, forced };
        } else if (!state.running && !state.paused) {
          await this.#engine.remove(name);
          pauseMs = pauseMinMs;
        } else if (killAtMs !== null && nowMs - killAtMs > killMs) {
          await this.#engine.remove(name);
        } else if (graceMs > 0 && termAtMs === null) {
          if (state.paused) await this.#engine.unpause(name);
          await this.#engine.kill(name, 'SIGTERM');
          termAtMs = nowMs;
        } else if (termAtMs === null || nowMs - termAtMs >= graceMs) {
          if (state.paused) await this.#engine.unpause(name);
          if (await this.#engine.kill(name, 'SIGKILL')) forced = true;
          killAtMs ??= nowMs;
          pauseMs = pauseMinMs;
        }
        pauseMs = Math.min(pauseMs, pauseMaxMs);
      } catch {
        pauseMs = Math.min(pauseMs * 2, pauseAfterFaultMaxMs);
      }
      const graceLeftMs = termAtMs === null ? Infinity : termAtMs + graceMs - performance.now();
      await pause(graceLeftMs > 0 ? Math.min(pauseMs, graceLeftMs) : pauseMs, this.#closing.signal);
      pauseMs *= 1.5;
    }
    return { proven: false, forced };
  }
}

interface Proof {
  proven: boolean;
  /** It took SIGKILL. */
  forced: boolean;
}

/** What a task has left to clear away. */
interface Trace {
  /** Containers that exist, or may. */
  names: Set<string>;
  /** The engine gave no answer to a creation: until then the container may still appear. */
  appearsUntilMs: number | null;
  files: (() => Promise<void>)[];
}

function outputOf(spec: ContainerSpec, state: ContainerState, output: ContainerOutput): unknown {
  const { exitCode } = state;
  const { stdout, stderrTail } = output;
  if (exitCode !== 0) {
    const line = stderrTail.trimEnd().split('\n').at(-1)?.trim().slice(0, lineChars) ?? '';
    const why = state.oomKilled
      ? ` (out of memory: with.memory is ${spec.memoryBytes} bytes)`
      : exitCode === 137
        ? ' (killed, perhaps for lack of memory: with.memory)'
        : '';
    throw new FullstopError('FS_CONTAINER_EXIT', `exit code ${exitCode}${why}${line === '' ? '' : `: ${line}`}`, {
      details: { exitCode, stderrTail },
    });
  }
  return { exitCode, stdout: parsed(spec.output, stdout, output.hide), stderrTail };
}

function parsed(output: ContainerSpec['output'], stdout: string, hide: Hide): unknown {
  if (output === 'text') return stdout;
  // A version or a number that some tool prints stays the text it is.
  if (output === 'auto' && !/^\s*[[{]/.test(stdout)) return stdout;
  try {
    return JSON.parse(stdout);
  } catch (error) {
    if (output === 'auto') return stdout;
    // The parser quotes what it read.
    const why = hide(stdout) === stdout ? `: ${messageOf(error)}` : '';
    throw new FullstopError('FS_CONTAINER_OUTPUT', `stdout is not JSON, as with.output asks${why}`);
  }
}

/** A command that cannot be started is its own fault, and no engine's. */
function startFailure(error: unknown): unknown {
  const message = messageOf(error);
  if (statusOf(error) === null) return error;
  if (/executable file not found|no such file or directory|exec format error|permission denied/i.test(message)) {
    return new FullstopError('FS_CONTAINER_EXIT', `the command cannot be started: ${reasonOf(message)}`, {
      retryable: false,
      cause: error,
    });
  }
  if (/unable to find (user|group)/i.test(message)) {
    return new FullstopError('FS_INVALID', `with.user: ${reasonOf(message)}`, { cause: error });
  }
  return error;
}

function reasonOf(message: string): string {
  return message.replace(/^.*?(?=exec:|unable to find (?:user|group))/s, '').slice(0, lineChars);
}

/** What the engine will not take at any time is not tried again. */
function refusedOptions(error: unknown): unknown {
  const isRefusal = statusOf(error) === 400 || /unable to find network|network .*not found/i.test(messageOf(error));
  return isRefusal ? new FullstopError('FS_INVALID', messageOf(error), { cause: error }) : error;
}

function digest(text: string, length: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length);
}

function whenAborted(signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return Promise.resolve(undefined);
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(undefined), { once: true }));
}

/** Ends early when `closing` aborts. */
async function pause(ms: number, closing: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal: closing }).catch(() => undefined);
}
