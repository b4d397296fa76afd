/**
 * A container engine for tests, and an image in it that needs no registry: a busybox and nothing else.
 *
 * As root on Debian: a Podman of its own, its packages installed when they are missing, everything it keeps in one
 * temporary directory that goes with it. Elsewhere: the engine of `DOCKER_HOST` or of the usual sockets. Where there is
 * neither, the tests are skipped and say why; as root on Debian in CI that is a failure.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  accessSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ContainerEngine, findContainerSocket } from '../../src/worker/container-engine.ts';
import { opened } from './leaks.ts';

export interface TestEngine {
  /** As in `DOCKER_HOST`. */
  dockerHost: string;
  /** An image with `sh` and the tools of busybox. */
  image: string;
  /** Whether it is a Podman of these tests alone. */
  own: boolean;
  close(): Promise<void>;
}

export const testImage = 'localhost/fullstop-test:latest';

const packages = ['podman', 'runc', 'conmon', 'busybox-static'];
/** An init makes a stop quick; without one containers run as well. */
const optionalPackages = ['catatonit'];
const startWithinMs = 30_000;

/**
 * To be called in a `before` hook, which needs minutes where packages are missing.
 *
 * @returns what is missing, as text, when no container can run here
 * @throws instead, as root on Debian in CI
 */
export async function startContainerEngine(): Promise<TestEngine | string> {
  const debianRoot = process.getuid?.() === 0 && isDebian();
  try {
    return debianRoot ? await ownPodman() : await usualEngine();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    if (debianRoot && isSet(process.env['CI'])) throw new Error(`no container can run here: ${why}`);
    return why;
  }
}

/** As `startContainerEngine`; skips the suite of the hook, and says why. */
export async function containerEngineOrSkip(context: Mocha.Context): Promise<TestEngine> {
  context.timeout(300_000);
  const engine = await startContainerEngine();
  if (typeof engine !== 'string') return engine;
  console.log(`      skipped, no container can run here: ${engine}`);
  return context.skip();
}

/**
 * What a container may take to go once it was killed: a second, or on a busy machine three times what the engine itself
 * takes at this moment to kill one and to remove it.
 */
export async function goneWithinMs(engine: ContainerEngine): Promise<number> {
  const name = `yardstick-${randomUUID()}`;
  await engine.create({
    name,
    Image: testImage,
    Entrypoint: ['sleep', '60'],
    HostConfig: { NetworkMode: 'none', CapDrop: ['ALL'] },
  });
  let startedMs: number;
  try {
    await engine.start(name);
  } finally {
    startedMs = performance.now();
    await engine.kill(name, 'SIGKILL');
    await engine.remove(name);
  }
  while ((await engine.state(name)) !== null) await sleep(10);
  return Math.max(1_000, 3 * (performance.now() - startedMs));
}

const isSet = (value: string | undefined): boolean => !['', '0', 'false', undefined].includes(value);

function isDebian(): boolean {
  try {
    return /^ID(_LIKE)?=.*\bdebian\b/m.test(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    return false;
  }
}

async function usualEngine(): Promise<TestEngine> {
  const dockerHost = findContainerSocket(process.env['DOCKER_HOST'] ?? null);
  if (dockerHost === null) throw new Error('neither DOCKER_HOST nor a socket of Docker or Podman');
  await importImage(dockerHost);
  return { dockerHost, image: testImage, own: false, close: async () => undefined };
}

async function ownPodman(): Promise<TestEngine> {
  installPackages();
  const dir = mkdtempSync(join(tmpdir(), 'fullstop-podman-'));
  const faults: string[] = [];
  // Overlay does not go on top of overlay, which is what a container's own root often is.
  for (const driver of ['overlay', 'vfs']) {
    const podman = new Podman(join(dir, driver), driver);
    try {
      await podman.start();
      await importImage(podman.dockerHost);
      podman.run('run', '--rm', testImage, 'true');
    } catch (error) {
      faults.push(`${driver}: ${error instanceof Error ? error.message : error}`);
      await podman.close();
      continue;
    }
    const closed = opened('the Podman of these tests');
    return {
      dockerHost: podman.dockerHost,
      image: testImage,
      own: true,
      async close() {
        try {
          await podman.close();
          rmSync(dir, { recursive: true, force: true });
        } finally {
          closed();
        }
      },
    };
  }
  rmSync(dir, { recursive: true, force: true });
  throw new Error(`Podman does not run a container: ${faults.join('; ')}`);
}

function installPackages(): void {
  const missing = (names: string[]) =>
    names.filter((name) => spawnSync('dpkg', ['-s', name], { stdio: 'ignore' }).status !== 0);
  const install = (names: string[]) =>
    spawnSync('apt-get', ['install', '-y', '--no-install-recommends', ...names], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      encoding: 'utf8',
      timeout: 240_000,
    });
  const needed = missing(packages);
  const wanted = missing(optionalPackages);
  if (needed.length + wanted.length === 0) return;
  if (needed.length > 0) spawnSync('apt-get', ['update'], { stdio: 'ignore', timeout: 120_000 });
  if (wanted.length > 0) install(wanted);
  if (needed.length === 0) return;
  const { status, stderr, error } = install(needed);
  if (status === 0) return;
  throw new Error(`apt-get does not install ${needed.join(', ')}: ${error?.message ?? stderr.trim().slice(-300)}`);
}

/** One Podman with a storage, a state and a socket of its own. */
class Podman {
  readonly dockerHost: string;
  readonly #dir: string;
  readonly #args: string[];
  readonly #env: NodeJS.ProcessEnv;
  #service: ChildProcess | null = null;

  constructor(dir: string, driver: string) {
    mkdirSync(dir, { recursive: true });
    this.#dir = dir;
    this.dockerHost = `unix://${join(dir, 'podman.sock')}`;
    const config = join(dir, 'containers.conf');
    writeFileSync(config, containersConf(dir));
    this.#env = { ...process.env, CONTAINERS_CONF: config };
    const places = ['--root', join(dir, 'storage'), '--runroot', join(dir, 'run'), '--tmpdir', join(dir, 'tmp')];
    this.#args = [...places, '--storage-driver', driver];
  }

  async start(): Promise<void> {
    const service = spawn('podman', [...this.#args, 'system', 'service', '--time=0', this.dockerHost], {
      // Its children leave files where they are started.
      cwd: this.#dir,
      env: this.#env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#service = service;
    let said = '';
    service.stderr.setEncoding('utf8').on('data', (text) => {
      said = (said + text).slice(-1000);
    });
    let failure: Error | null = null;
    service.once('error', (error) => {
      failure = error;
    });
    const socket = this.dockerHost.slice('unix://'.length);
    for (const untilMs = performance.now() + startWithinMs; !existsSync(socket); await sleep(20)) {
      if (failure !== null) throw failure;
      if (service.exitCode !== null || performance.now() > untilMs) {
        throw new Error(`its service does not start: ${said.trim()}`);
      }
    }
  }

  run(...args: string[]): void {
    const { status, stderr, error } = spawnSync('podman', [...this.#args, ...args], {
      cwd: this.#dir,
      env: this.#env,
      encoding: 'utf8',
      timeout: 30_000,
    });
    if (status !== 0) throw error ?? new Error(stderr.trim().slice(-300));
  }

  async close(): Promise<void> {
    const service = this.#service;
    this.#service = null;
    if (service?.pid !== undefined && service.exitCode === null && service.signalCode === null) {
      const exited = once(service, 'exit');
      service.kill();
      const killed = setTimeout(() => service.kill('SIGKILL'), 10_000);
      await exited;
      clearTimeout(killed);
    }
    try {
      this.run('rm', '--all', '--force', '--time', '0');
    } catch {
      // What could not start has nothing to remove.
    }
    // A container's own clean-up may still be at work.
    for (const untilMs = performance.now() + 10_000; ; await sleep(100)) {
      for (const place of mountsUnder(this.#dir)) spawnSync('umount', [place], { stdio: 'ignore' });
      try {
        rmSync(this.#dir, { recursive: true, force: true });
        return;
      } catch (error) {
        if (performance.now() > untilMs) throw error;
      }
    }
  }
}

function containersConf(dir: string): string {
  const init = ['/usr/libexec/podman/catatonit', '/usr/bin/catatonit'].find((path) => existsSync(path));
  return `[containers]
netns = "none"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
volume_path = "${join(dir, 'volumes')}"
${init === undefined ? '' : `init_path = "${init}"`}
[network]
network_config_dir = "${join(dir, 'networks')}"
`;
}

/** Innermost first. */
function mountsUnder(dir: string): string[] {
  const places = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  return places.filter((place) => place === dir || place.startsWith(`${dir}/`)).reverse();
}

/** Makes the image from the busybox of this machine. */
async function importImage(dockerHost: string): Promise<void> {
  const busybox = ['/bin/busybox', '/usr/bin/busybox'].find(isExecutable);
  if (busybox === undefined) throw new Error('no static busybox to make an image of (Debian: package busybox-static)');
  const dir = mkdtempSync(join(tmpdir(), 'fullstop-image-'));
  try {
    const root = join(dir, 'root');
    for (const folder of ['bin', 'etc']) mkdirSync(join(root, folder), { recursive: true });
    copyFileSync(busybox, join(root, 'bin/busybox'));
    const { stdout } = spawnSync(busybox, ['--list'], { encoding: 'utf8' });
    for (const name of stdout.split('\n')) {
      if (name !== '' && name !== 'busybox') symlinkSync('busybox', join(root, 'bin', name));
    }
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n');
    writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
    const archive = join(dir, 'root.tar');
    const packed = spawnSync('tar', ['-C', root, '-cf', archive, '.'], { encoding: 'utf8' });
    if (packed.status !== 0) throw new Error(`tar: ${packed.stderr}`);
    const { default: Docker } = await import('dockerode');
    const docker = new Docker({ socketPath: dockerHost.replace(/^unix:\/\//, ''), host: '' });
    // Podman 4.3 takes no tag here: it is `latest` on both.
    const answer = await docker.importImage(archive, { repo: testImage.replace(/:latest$/, '') });
    for await (const _ of answer) {
      // Done when the answer is.
    }
    await docker.getImage(testImage).inspect();
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
