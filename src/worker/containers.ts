import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Config } from '../config.ts';
import { messageOf } from '../errors.ts';
import { type ContainerExecutor, createContainerExecutor, findContainerSocket } from './container.ts';

/** Between two looks for containers that nobody runs any more. */
const REAP_MS = 10_000;
/** A slot is free by proof of exit, never by hope: an aborted task's end waits as long as its container does. */
const PROOF_MS = 86_400_000;

/**
 * Runs container tasks, where this machine has an engine and the configuration allows images; else null, and the
 * tasks wait for a worker that can.
 *
 * `installation` names in labels whose containers these are: at most one live process may bear it.
 */
export function openContainers(
  config: Pick<Config, 'dockerHost' | 'images'>,
  installation: string,
): ContainerExecutor | null {
  const dockerHost = findContainerSocket(config.dockerHost);
  if (dockerHost === null || config.images.length === 0) return null;
  return createContainerExecutor({ dockerHost, images: config.images, engineId: installation, proofMs: PROOF_MS });
}

/** Removes what an earlier process of this installation left behind, now and again; returns what ends it. */
export function reapLeftovers(containers: ContainerExecutor, warn: (message: string) => void): () => void {
  let ended = false;
  let timer: NodeJS.Timeout | null = null;
  let complaint = '';
  const look = async (): Promise<void> => {
    try {
      // This process knows its own; any other of its installation has no owner.
      await containers.reap(() => false);
      complaint = '';
    } catch (error) {
      if (messageOf(error) !== complaint) warn(messageOf(error));
      complaint = messageOf(error);
    }
    if (!ended) timer = setTimeout(() => void look(), REAP_MS).unref();
  };
  void look();
  return () => {
    ended = true;
    if (timer !== null) clearTimeout(timer);
  };
}

/**
 * A name for the containers of a worker process that its successor takes over, and no other worker beside it:
 * `worker:NAME:1`, or the next number while a live process has that.
 */
export function claimInstallation(name: string): { installation: string; release(): void } {
  for (let number = 1; ; number += 1) {
    const installation = `worker:${name}:${number}`;
    const digest = createHash('sha256').update(installation).digest('hex').slice(0, 16);
    const file = join(tmpdir(), `fullstop-${digest}.pid`);
    if (isHeld(file)) continue;
    rmSync(file, { force: true });
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx', mode: 0o600 });
    } catch {
      // Another worker was faster.
      continue;
    }
    return { installation, release: () => rmSync(file, { force: true }) };
  }
}

function isHeld(file: string): boolean {
  try {
    const pid = Number(readFileSync(file, 'utf8'));
    if (!Number.isInteger(pid) || pid <= 0) return false;
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === 'EPERM';
  }
}
