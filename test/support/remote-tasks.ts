/** Tasks whose worker may be connected to another engine than the one that runs their execution. */
import { FakeLink, type FakeLinkOptions, type Intervention } from './engine.ts';
import type { EngineRig, Engines } from './engine-rigs.ts';

/** One task `a`, and `b` after it. */
export function workflow(name: string, keys = '', type = 'http'): string {
  const work = type === 'agent' ? '{ pool: site, tool: nmap }' : '{ url: "http://a/" }';
  return `{ name: ${name}, nodes: { a: { type: ${type}, ${keys} with: ${work} }, b: { type: set, needs: [a], with: { value: "\${{ nodes.a.output }}" } } } }`;
}

/** Of the task `a` of an execution. */
export const idOf = (id: string, attempt = 1): string => `${id}/a/-/${attempt}`;

export const pushedTo = (worker: FakeLink): string[] => worker.pushed.map((task) => task.id);

/** Meddles with calls of an engine to its store: once, or as often as is said. */
export function intervene(rig: EngineRig, method: string, how: Intervention, times = 1): void {
  let left = times;
  rig.gate.intervene = (call) => (call.method === method && left-- > 0 ? how : undefined);
}

/** What is asked of the engines of the test that runs. */
export function remoteTasks(engines: () => Engines) {
  return {
    /** A worker that is connected to one of them. */
    async link(at: EngineRig, options?: FakeLinkOptions): Promise<FakeLink> {
      const worker = new FakeLink(options);
      await worker.connect(engines().at(at));
      return worker;
    },
    /** Of the node `b`. */
    output: (id: string) => engines().store.readResult(`${id}/b/-/1`),
    outcomes: async (id: string) => (await engines().receipt(id)).tasks.map(({ outcome }) => outcome),
    /** Every hint from one engine to another is lost. */
    silence: (): void => {
      engines().hub.fateOf = () => 'lost';
    },
  };
}
