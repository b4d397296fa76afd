import type { EngineApi } from './engine/api.ts';
import type { WorkerGate } from './ports/workers.ts';
import type { EngineItem } from './wire.ts';

/**
 * The engine that a server talks to now: where several share a store, one that lost its lease is replaced by a new one,
 * and whoever is connected to the server need not know.
 */
export class CurrentEngine implements EngineApi {
  #engine: EngineApi;
  /** Why there is none that works, for an operator. */
  #vacant: string | null = null;
  readonly workers: WorkerGate = {
    connected: (link, held) => this.#engine.workers.connected(link, held),
    disconnected: (link) => this.#engine.workers.disconnected(link),
    heartbeat: (link, held) => this.#engine.workers.heartbeat(link, held),
    result: (link, taskId, token, report) => this.#engine.workers.result(link, taskId, token, report),
    log: (...said) => this.#engine.workers.log(...said),
    workers: () => this.#engine.workers.workers(),
    missing: () => this.#engine.workers.missing(),
  };

  constructor(engine: EngineApi) {
    this.#engine = engine;
  }

  get id(): string {
    return this.#engine.id;
  }

  /** The one there was does nothing any more. */
  vacate(why: string): void {
    this.#vacant = why;
  }

  replace(engine: EngineApi): void {
    engine.metrics().onNodeStopped = this.#engine.metrics().onNodeStopped;
    this.#engine = engine;
    this.#vacant = null;
  }

  trouble(): string | null {
    return this.#vacant ?? this.#engine.trouble();
  }

  describe(): EngineItem {
    const item = this.#engine.describe();
    return this.#vacant === null ? item : { ...item, status: 'stopped' };
  }

  start: EngineApi['start'] = () => this.#engine.start();
  drain: EngineApi['drain'] = (drainMs) => this.#engine.drain(drainMs);
  engines: EngineApi['engines'] = () => {
    const [, ...others] = this.#engine.engines();
    return [this.describe(), ...others];
  };
  allWorkers: EngineApi['allWorkers'] = () => this.#engine.allWorkers();
  requestDrain: EngineApi['requestDrain'] = (id) => this.#engine.requestDrain(id);
  ownerUrl: EngineApi['ownerUrl'] = (executionId) => this.#engine.ownerUrl(executionId);
  startExecution: EngineApi['startExecution'] = (request) => this.#engine.startExecution(request);
  requestStop: EngineApi['requestStop'] = (id) => this.#engine.requestStop(id);
  previewStop: EngineApi['previewStop'] = (id) => this.#engine.previewStop(id);
  receipt: EngineApi['receipt'] = (id) => this.#engine.receipt(id);
  trigger: EngineApi['trigger'] = (id, name, payload) => this.#engine.trigger(id, name, payload);
  setAdmission: EngineApi['setAdmission'] = (paused) => this.#engine.setAdmission(paused);
  admissionPaused: EngineApi['admissionPaused'] = () => this.#engine.admissionPaused();
  workflowChanged: EngineApi['workflowChanged'] = (project, name) => this.#engine.workflowChanged(project, name);
  nextInstants: EngineApi['nextInstants'] = (project, name) => this.#engine.nextInstants(project, name);
  compiled: EngineApi['compiled'] = (project, name, hash) => this.#engine.compiled(project, name, hash);
  forget: EngineApi['forget'] = (id) => this.#engine.forget(id);
  inspect: EngineApi['inspect'] = (executionId, observer) => this.#engine.inspect(executionId, observer);
  metrics: EngineApi['metrics'] = () => this.#engine.metrics();
}
