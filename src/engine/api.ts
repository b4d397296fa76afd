import type { CompiledWorkflow } from '../definition/types.ts';
import type { HeaderRow, StopRequestOutcome } from '../ports/store.ts';
import type { WorkerGate } from '../ports/workers.ts';
import type { EngineItem, Json, StopPreview, StopReceipt, WorkerItem } from '../wire.ts';
import type { InspectionObserver } from './inspection.ts';

/**
 * What the server asks of an engine. Authorisation and audit are the caller's; reads of records, events and
 * results go to the store directly.
 */
export interface EngineApi {
  readonly id: string;
  /** What the namespaces of workers and agents call. */
  readonly workers: WorkerGate;
  /** Opens for work: claims and recovers live executions, then admits. Resolves when the API may answer. */
  start(): Promise<void>;
  /**
   * Admits nothing more, gives running attempts `drainMs`, stops the actors without touching the records.
   * Never marks a stop.
   */
  drain(drainMs: number): Promise<void>;
  describe(): EngineItem;
  /** This engine first, then the others that share its store, as their last heartbeats said. */
  engines(): EngineItem[];
  /** Workers and agents connected to any of them. */
  allWorkers(): WorkerItem[];
  /** Asks an engine that shares the store, or this one, to hand over and end (`onGone`); false: there is no such engine. */
  requestDrain(id: string): Promise<boolean>;
  /** Where the owner of an execution is reached; null: unknown, or nobody's. */
  ownerUrl(executionId: string): Promise<string | null>;
  /** null when healthy; otherwise what is wrong, for an operator. */
  trouble(): string | null;

  /**
   * @throws FS_NOT_FOUND no such workflow; FS_INVALID the input does not fit, with `details.faults`;
   * FS_DISABLED; FS_RATE the workflow's `concurrency` refuses; FS_CONFLICT the idempotency key with another
   * body; FS_UNAVAILABLE draining, or the store does not take writes.
   */
  startExecution(request: StartRequest): Promise<{ header: HeaderRow; created: boolean }>;
  /** Stores the stop intent, then delivers it. The answer is durable; the effect follows. */
  requestStop(id: string): Promise<StopRequestOutcome>;
  /** What a stop would do now; null when the execution is unknown. @throws FS_ENDED */
  previewStop(id: string): Promise<StopPreview | null>;
  /** The receipt as it stands, live or stored; null without a stop. */
  receipt(id: string): Promise<StopReceipt | null>;
  /** @throws FS_NOT_FOUND unknown execution or trigger name; FS_CONFLICT; FS_ENDED */
  trigger(id: string, name: string, payload: Json): Promise<{ duplicate: boolean }>;
  /** False: starts and schedules wait as Pending; what runs goes on. Durable. */
  setAdmission(paused: boolean): Promise<void>;
  admissionPaused(): boolean;
  /** Tells the engine that definitions of this workflow or their switch changed: schedules follow. */
  workflowChanged(project: string, name: string): Promise<void>;
  /** Next instants of the live schedules of a workflow, ms since the epoch, in the order of the file. */
  nextInstants(project: string, name: string): (number | null)[];
  /** The compiled form of a saved definition, cached by hash; null when it is not saved. */
  compiled(project: string, name: string, hash: string): Promise<CompiledWorkflow | null>;
  /** Executions in memory: an execution that was deleted is forgotten. */
  forget(id: string): void;
  /**
   * Tells what the actors of an execution are, then what they do, until the answer is called: names and states,
   * no data. Durable before it is told. Costs nothing while nobody observes.
   */
  inspect(executionId: string, observer: InspectionObserver): () => void;
  metrics(): EngineMetrics;
}

export interface StartRequest {
  project: string;
  /** NAME or NAME@HASH. */
  workflow: string;
  input: Record<string, Json>;
  labels: Record<string, string>;
  idempotencyKey: string | null;
}

export interface EngineMetrics {
  executionsStarted: number;
  executionsEnded: { Complete: number; Failed: number; stopped: number };
  nodesEnded: number;
  commits: number;
  commitRetries: number;
  lateResultsDiscarded: number;
  live: { running: number; pending: number; parked: number };
  /** Called for each stopped node: type and ms from the durable intent to its task's end. */
  onNodeStopped: ((type: string, ms: number) => void) | null;
}
