import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Between two looks at how busy the process is. */
const LOOK_MS = 3_000;
/** Share of a processor below which the process counts as idle, and from which on it has a burst. */
const IDLE_SHARE = 0.05;
const BURST_SHARE = 0.1;
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
  const bursts = new Bursts(process.memoryUsage().heapTotal);
  let cpu = process.cpuUsage();
  const timer = setInterval(() => {
    const used = process.cpuUsage(cpu);
    cpu = process.cpuUsage();
    if (!bursts.isOver((used.user + used.system) / (LOOK_MS * 1_000), process.memoryUsage().heapTotal)) return;
    collect();
    bursts.collected(process.memoryUsage().heapTotal);
    cpu = process.cpuUsage();
  }, LOOK_MS).unref();
  return () => clearInterval(timer);
}

/**
 * When a collection is worth it. One for each burst: a process that always has a little to do leaves as much behind
 * every few seconds, and would spend more on collections, and on compiling what they threw away, than on its work.
 */
export class Bursts {
  #heapBytes: number;
  /** The start of the process is one. */
  #had = true;

  constructor(heapBytes: number) {
    this.#heapBytes = heapBytes;
  }

  /** Since the last look the process took this share of a processor. */
  isOver(share: number, heapBytes: number): boolean {
    if (share >= BURST_SHARE) this.#had = true;
    return this.#had && share < IDLE_SHARE && heapBytes >= this.#heapBytes + GROWTH_BYTES;
  }

  collected(heapBytes: number): void {
    this.#heapBytes = heapBytes;
    this.#had = false;
  }
}
