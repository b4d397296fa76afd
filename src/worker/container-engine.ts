import { accessSync, constants, existsSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type Docker from 'dockerode';
import { FullstopError, messageOf } from '../errors.ts';

/** Calls to the engine at once; more wait. A followed output leaves this count when it stands. */
const connectionsMax = 16;
/** How long an answer may take. Creating and starting wait for disks, and for Podman's locks when many do. */
const slowMs = 60_000;
const quickMs = 10_000;

/** What of a container's state decides anything. */
export interface ContainerState {
  running: boolean;
  /** It has run, and its exit code is final: not so while somebody stops or removes it. */
  ended: boolean;
  paused: boolean;
  exitCode: number;
  oomKilled: boolean;
}

export interface ListedContainer {
  id: string;
  name: string;
  labels: Record<string, string>;
}

/**
 * Where a container engine can be reached, as in `DOCKER_HOST`: its value when there is one, else the first of the
 * usual sockets of Docker and Podman, those that this user may open before the others. null: none.
 */
export function findContainerSocket(dockerHost: string | null): string | null {
  if (dockerHost !== null && dockerHost !== '') return dockerHost;
  const runtimeDir = `/run/user/${process.getuid?.() ?? 0}`;
  const sockets = [
    '/var/run/docker.sock',
    join(homedir(), '.docker/run/docker.sock'),
    join(runtimeDir, 'docker.sock'),
    '/run/podman/podman.sock',
    join(runtimeDir, 'podman/podman.sock'),
  ].filter((path) => existsSync(path));
  const path = sockets.find(mayOpen) ?? sockets[0];
  return path === undefined ? null : `unix://${path}`;
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * The calls that container nodes make to Docker or Podman, each with a bound on its time.
 *
 * Every method throws FS_CONTAINER_ENGINE, its `details` a `CallFault`; a container that is not there is no error.
 */
export class ContainerEngine {
  readonly dockerHost: string | null;
  readonly #agent: HttpAgent | HttpsAgent;
  #docker: Docker | null = null;

  constructor(dockerHost: string | null) {
    this.dockerHost = dockerHost;
    // Without keep-alive: no call then finds that a restarted engine has closed its connection.
    const options = { keepAlive: false, maxSockets: connectionsMax };
    this.#agent = dockerHost?.startsWith('https:') ? new HttpsAgent(options) : new HttpAgent(options);
  }

  /** Whether files of this machine are files of the engine's machine. */
  get isLocal(): boolean {
    return this.dockerHost === null || /^(unix:\/\/)?\//.test(this.dockerHost);
  }

  async ping(): Promise<void> {
    await this.#call('reach it', 2_000, (docker, abortSignal) =>
      // Its types do not know the options, which its code takes.
      (docker.ping as unknown as (options: { abortSignal: AbortSignal }) => Promise<unknown>).call(docker, {
        abortSignal,
      }),
    );
  }

  async create(options: Docker.ContainerCreateOptions): Promise<void> {
    await this.#call('create a container', slowMs, (docker, abortSignal) =>
      docker.createContainer({ ...options, abortSignal }),
    );
  }

  /** Its output, both streams interleaved in frames, from its first byte when it has not been started yet. */
  async attach(name: string): Promise<Duplex> {
    const options = { stream: true, stdout: true, stderr: true, hijack: true };
    const stream = await this.#call('follow the output of a container', slowMs, (docker, abortSignal) =>
      docker.getContainer(name).attach({ ...options, abortSignal }),
    );
    return stream as Duplex;
  }

  async start(name: string): Promise<void> {
    await this.#call('start a container', slowMs, (docker, abortSignal) =>
      docker.getContainer(name).start({ abortSignal }),
    );
  }

  /** Whether it got the signal: false when it has ended or is not there. */
  async kill(name: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<boolean> {
    // One that has ended: 409 from Docker, 500 from Podman.
    return this.#unless([404, 409, 500], `send ${signal} to a container`, (docker, abortSignal) =>
      docker.getContainer(name).kill({ signal, abortSignal }),
    );
  }

  async unpause(name: string): Promise<void> {
    await this.#unless([404, 409, 500], 'unpause a container', (docker, abortSignal) =>
      docker.getContainer(name).unpause({ abortSignal }),
    );
  }

  /** With its anonymous volumes. Another removal may be under way (409): only `state` proves that it is gone. */
  async remove(name: string): Promise<void> {
    await this.#unless([404, 409], 'remove a container', (docker, abortSignal) =>
      docker.getContainer(name).remove({ force: true, v: true, abortSignal }),
    );
  }

  /** null: there is no such container. */
  async state(name: string): Promise<ContainerState | null> {
    try {
      const { State } = await this.#call('inspect a container', quickMs, (docker, abortSignal) =>
        docker.getContainer(name).inspect({ abortSignal }),
      );
      return {
        running: State.Running,
        // `stopped` is Podman's word for one that it has yet to tidy up.
        ended: ['exited', 'stopped', 'dead'].includes(State.Status),
        paused: State.Paused,
        exitCode: State.ExitCode,
        oomKilled: State.OOMKilled,
      };
    } catch (error) {
      if (statusOf(error) === 404) return null;
      // Podman, when it is removed while it is looked at.
      if (statusOf(error) === 500 && /no such container/i.test(messageOf(error))) return null;
      throw error;
    }
  }

  async putArchive(name: string, tar: Buffer, path: string): Promise<void> {
    await this.#call('copy the input into a container', slowMs, (docker, abortSignal) =>
      docker.getContainer(name).putArchive(tar, { path, abortSignal }),
    );
  }

  /** Running or not, those that carry all of these labels. */
  async list(labels: Record<string, string>): Promise<ListedContainer[]> {
    const wanted = Object.entries(labels);
    const filters = JSON.stringify({ label: wanted.map(([name, value]) => `${name}=${value}`) });
    const found = await this.#call('list containers', quickMs, (docker, abortSignal) =>
      docker.listContainers({ all: true, filters, abortSignal }),
    );
    return (
      found
        .map(({ Id, Names, Labels }) => ({ id: Id, name: (Names[0] ?? Id).replace(/^\//, ''), labels: Labels ?? {} }))
        // Asked again: what is listed here may be removed.
        .filter((container) => wanted.every(([name, value]) => container.labels[name] === value))
    );
  }

  close(): void {
    this.#agent.destroy();
  }

  async #unless(
    statuses: number[],
    what: string,
    call: (docker: Docker, signal: AbortSignal) => Promise<unknown>,
  ): Promise<boolean> {
    try {
      await this.#call(what, slowMs, call);
      return true;
    } catch (error) {
      if (statuses.includes(statusOf(error) ?? 0)) return false;
      throw error;
    }
  }

  async #call<T>(
    what: string,
    withinMs: number,
    call: (docker: Docker, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    this.#docker ??= await this.#load();
    const docker = this.#docker;
    const bound = AbortSignal.timeout(withinMs);
    try {
      return await call(docker, bound);
    } catch (error) {
      if (error instanceof FullstopError) throw error;
      const { statusCode = null, json, code } = error as { statusCode?: number; json?: unknown; code?: string };
      const place = this.dockerHost;
      if (statusCode !== null) {
        const said = (json as { message?: unknown } | null)?.message;
        const text = typeof said === 'string' ? said : messageOf(error).trim();
        throw fault(`the container engine does not ${what}: ${text}`, { status: statusCode, unsent: false }, error);
      }
      if (bound.aborted) {
        throw fault(
          `the container engine at ${place} did not ${what} within ${withinMs / 1000} s`,
          { status: null, unsent: false },
          error,
        );
      }
      const unsent = ['ENOENT', 'ECONNREFUSED', 'EACCES', 'ENOTFOUND', 'EAI_AGAIN'].includes(code ?? '');
      const remedy =
        code === 'EACCES' ? 'let this user open it' : 'start Docker or Podman there, or set DOCKER_HOST to where it is';
      const text = unsent
        ? `no container engine answers at ${place} (${code}): ${remedy}`
        : `the container engine at ${place} does not ${what}: ${messageOf(error) || code}`;
      throw fault(text, { status: null, unsent }, error);
    }
  }

  /** dockerode is loaded when the first container needs it: it takes a quarter of a second, and is optional. */
  async #load(): Promise<Docker> {
    if (this.dockerHost === null) {
      throw fault('no container engine was found: start Docker or Podman, or set DOCKER_HOST', {
        status: null,
        unsent: true,
      });
    }
    const where = addressOf(this.dockerHost);
    let Client: typeof Docker;
    try {
      ({ default: Client } = await import('dockerode'));
    } catch (cause) {
      throw fault(
        'container nodes need the package dockerode: npm install dockerode',
        { status: null, unsent: true },
        cause,
      );
    }
    // `host` is always given: without it, DOCKER_HOST of the environment would win over the socket.
    return new Client({ host: '', ...where, agent: this.#agent } as unknown as Docker.DockerOptions);
  }
}

function addressOf(dockerHost: string): { socketPath: string } | { protocol: string; host: string; port: string } {
  if (dockerHost.startsWith('/')) return { socketPath: dockerHost };
  if (dockerHost.startsWith('unix:///')) return { socketPath: dockerHost.slice('unix://'.length) };
  const url = URL.parse(dockerHost.replace(/^tcp:/, 'http:'));
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new FullstopError(
      'FS_INVALID',
      `DOCKER_HOST: expected unix:///PATH, tcp://HOST:PORT or https://HOST:PORT, found "${dockerHost}"`,
    );
  }
  const protocol = url.protocol.slice(0, -1);
  return { protocol, host: url.hostname, port: url.port || (protocol === 'https' ? '2376' : '2375') };
}

/** `details` of FS_CONTAINER_ENGINE. */
export interface CallFault {
  /** HTTP status of the engine's answer; null: there was none. */
  status: number | null;
  /** The call did not reach the engine, which so did nothing. */
  unsent: boolean;
}

function fault(message: string, details: CallFault, cause?: unknown): FullstopError {
  return new FullstopError('FS_CONTAINER_ENGINE', message, { details, cause });
}

export function statusOf(error: unknown): number | null {
  return (error as { details?: Partial<CallFault> }).details?.status ?? null;
}

/** Whether the engine may still do what this failed call asked for. */
export function mayHappenYet(error: unknown): boolean {
  const details = (error as { details?: Partial<CallFault> | null }).details;
  return details?.status === null && details.unsent === false;
}
