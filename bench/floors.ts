/**
 * What the machine can do now, so that rates are told as ratios and times are judged fairly.
 *
 * `node bench/floors.ts [DIRECTORY]` prints them as JSON; the bench runs that before and after the figures, in a
 * process of its own, so that neither's heap slows the other.
 */
import { spawn } from 'node:child_process';
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type AnyStateMachine, assign, createActor, createMachine, fromPromise } from 'xstate';

export interface Floors {
  /**
   * Steps per second of bare XState: machines of ten invoked promises, each output kept, each error handled; 256 root
   * actors at once.
   */
  x: number;
  /** Single appends with fdatasync per second, in the directory of the data. */
  f: number;
}

/** A quiet machine's, for which limits in ms and s are meant. */
const QUIET: Floors = { x: 60_000, f: 5_600 };
const STEPS = 10;
const ROOTS = 256;
const APPEND_BYTES = 512;
const MEASURED_MS = 1_500;

/** What times are divided by: 1 on a machine as fast as the quiet one, or faster. */
export function timeFactor({ x, f }: Floors): number {
  return Math.min(1, Math.sqrt((x / QUIET.x) * (f / QUIET.f)));
}

export function meanOf(before: Floors, after: Floors): Floors {
  return { x: (before.x + after.x) / 2, f: (before.f + after.f) / 2 };
}

/** Measures in a process of its own. */
export async function measureFloors(directory: string): Promise<Floors> {
  const child = spawn(process.execPath, [import.meta.filename, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await text(child.stdout)) as Floors;
}

async function stepsPerSecond(): Promise<number> {
  const machine = tenPromises();
  await runMachines(machine, MEASURED_MS / 4);
  return runMachines(machine, MEASURED_MS);
}

function tenPromises(): AnyStateMachine {
  const states: Record<string, object> = {};
  for (let step = 0; step < STEPS; step += 1) {
    const target = step + 1 === STEPS ? 'done' : `step${step + 1}`;
    const onDone = { target, actions: assign({ output: ({ event }) => (event as { output?: unknown }).output }) };
    states[`step${step}`] = { invoke: { src: 'work', onDone, onError: 'done' } };
  }
  states['done'] = { type: 'final' };
  const machine = createMachine({ id: 'floor', context: { output: null }, initial: 'step0', states } as object);
  return machine.provide({ actors: { work: fromPromise(async () => 1) } });
}

/** Keeps the roots running for `ms`; steps per second of the machines that ended in that time. */
function runMachines(machine: AnyStateMachine, ms: number): Promise<number> {
  return new Promise((resolve) => {
    const startedMs = performance.now();
    let ended = 0;
    let live = 0;
    const start = (): void => {
      live += 1;
      const actor = createActor(machine);
      actor.subscribe({
        complete() {
          live -= 1;
          ended += 1;
          if (performance.now() - startedMs < ms) start();
          else if (live === 0) resolve((ended * STEPS) / ((performance.now() - startedMs) / 1_000));
        },
      });
      actor.start();
    };
    for (let root = 0; root < ROOTS; root += 1) start();
  });
}

function appendsPerSecond(directory: string): number {
  const path = join(directory, `floor.${process.pid}`);
  const file = openSync(path, 'a');
  const bytes = Buffer.alloc(APPEND_BYTES, 1);
  try {
    const startedMs = performance.now();
    let appends = 0;
    while (performance.now() - startedMs < MEASURED_MS) {
      writeSync(file, bytes);
      fdatasyncSync(file);
      appends += 1;
    }
    return appends / ((performance.now() - startedMs) / 1_000);
  } finally {
    closeSync(file);
    rmSync(path);
  }
}

if (import.meta.main) {
  const [directory = tmpdir()] = process.argv.slice(2);
  const floors: Floors = { x: await stepsPerSecond(), f: appendsPerSecond(directory) };
  process.stdout.write(JSON.stringify(floors));
}
