/** Layouts of large graphs: made in a worker, ahead of time where somebody asks for it, and kept. */
import type { DefinitionNode } from '../store.ts';
import { type GraphShape, LARGE, type Placement, placeGraph } from './plan.ts';
import PlanWorker from './plan.worker.ts?worker';

const KEPT = 4;

/** Resolved ones are here as they are: a graph that is shown again is there at once. */
const placements = new Map<string, Placement | Promise<Placement>>();

/** Two executions of one shape look the same. */
export function shapeOf(shape: GraphShape): string {
  return JSON.stringify([shape.names, shape.needs]);
}

/** At once for a small graph and for one that was laid out before. */
export function placementOf(key: string, shape: GraphShape): Placement | Promise<Placement> {
  const kept = placements.get(key);
  if (kept !== undefined) return kept;
  if (sizeOf(shape.names, shape.needs) <= LARGE) return keep(key, placeGraph(shape));
  const placing = placeInWorker(shape).catch(() => placeGraph(shape));
  keep(key, placing);
  void placing.then((placement) => placements.has(key) && placements.set(key, placement));
  return placing;
}

function keep<T extends Placement | Promise<Placement>>(key: string, placement: T): T {
  placements.set(key, placement);
  for (const [oldest] of placements) {
    if (placements.size <= KEPT) break;
    placements.delete(oldest);
  }
  return placement;
}

function sizeOf(names: string[], needs: Record<string, DefinitionNode>): number {
  let size = names.length;
  for (const name of names) {
    const body = needs[name]?.type === 'while' ? needs[name].body : undefined;
    if (body !== undefined) size += sizeOf(Object.keys(body), body);
  }
  return size;
}

function placeInWorker(shape: GraphShape): Promise<Placement> {
  return new Promise<Placement>((resolve, reject) => {
    const worker = new PlanWorker();
    worker.onmessage = ({ data }: MessageEvent<Placement>) => {
      worker.terminate();
      resolve(data);
    };
    worker.onerror = () => {
      worker.terminate();
      reject(new Error('the layout could not be loaded'));
    };
    worker.postMessage(shape);
  });
}
