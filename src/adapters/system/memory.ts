import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Between two looks at how busy the process is. */
const LOOK_MS = 3_000;
/** Share of a processor below which the process counts as idle. */
const IDLE_SHARE = 0.05;
/** Heap beyond that after the last collection that makes another one worth its pause. */
const GROWTH_BYTES = 24 * 1024 * 1024;

/**
 * Gives memory back after a burst: V8 collects when it needs room, and an idle process never does.
 *
 * A full collection takes some tens of milliseconds, so it happens only after an idle `LOOK_MS` and only when the
 * heap has grown. Returns what ends it.
 */
export function giveMemoryBackWhenIdle(): () => void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  setFlagsFromString('--no-expose-gc');
  let heapAfter = process.memoryUsage().heapTotal;
  let cpu = process.cpuUsage();
  const timer = setInterval(() => {
    const used = process.cpuUsage(cpu);
    cpu = process.cpuUsage();
    if (used.user + used.system > LOOK_MS * 1_000 * IDLE_SHARE) return;
    if (process.memoryUsage().heapTotal < heapAfter + GROWTH_BYTES) return;
    collect();
    heapAfter = process.memoryUsage().heapTotal;
    cpu = process.cpuUsage();
  }, LOOK_MS).unref();
  return () => clearInterval(timer);
}
