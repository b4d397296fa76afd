import type { ExecutionEvent, ExecutionItem, StopReceipt } from '../wire.ts';
import type { WorkReport } from './work.ts';

/**
 * Announces what is durable. A hint, never the truth: any message may be lost, doubled or late.
 *
 * None of the methods throws; an adapter catches and counts its own failures.
 */
export interface Bus {
  /** Whether anybody listens to this execution: lets the engine skip making messages nobody reads. */
  hasListeners(executionId: string): boolean;
  /** Whether anybody follows the list of this project. */
  hasListListeners(project: string): boolean;
  event(executionId: string, event: ExecutionEvent): void;
  changed(item: ExecutionItem): void;
  receipt(receipt: StopReceipt): void;
  /** To every engine, and to room `execution:<id>` of clients and workers. */
  stop(message: StopMessage): void;
  /** Called for every STOP that reaches this engine, its own included. */
  onStop(handler: (message: StopMessage) => void): void;
  /** To every other engine. */
  tell(hint: EngineHint): void;
  /** Called for every hint of another engine. */
  onHint(handler: (hint: EngineHint) => void): void;
  /** Called when messages of other engines may have been missed: whoever relies on them looks for himself. */
  onGap(handler: () => void): void;
  /** What clients of this engine follow, as `EngineBeat.follows` says it. */
  follows(): string[];
  /** What clients of other engines follow, as their heartbeats say: `event`, `changed` and `receipt` go there too. */
  othersFollow(rooms: ReadonlySet<string>): void;
}

/** One engine to the others. Each saves somebody a look at the store; none is needed for anything to be right. */
export type EngineHint =
  /** An engine has handed over or was declared dead: its executions wait for owners. */
  | { kind: 'engine.gone'; engine: string }
  | { kind: 'engine.drain'; engine: string }
  /** The most that ran and waited there lately: more or less than it said last. */
  | { kind: 'engine.load'; engine: string; load: number }
  /** An execution is offered to this engine. */
  | { kind: 'execution.offered'; engine: string; executionId: string }
  /** It is deleted: nobody keeps anything of it. */
  | { kind: 'execution.deleted'; executionId: string }
  /** A trigger of it is stored. */
  | { kind: 'execution.triggered'; executionId: string }
  /** A live or follow-up execution whose parent may live elsewhere has ended. */
  | { kind: 'execution.ended'; executionId: string; parentId: string }
  | { kind: 'workflow.changed'; project: string; name: string }
  | { kind: 'workflow.placeFreed'; project: string; workflow: string }
  | { kind: 'admission.changed' }
  | { kind: 'key.deleted'; id: string }
  /** A task waits for a worker of any engine. */
  | { kind: 'task.queued'; capability: string }
  /** It was claimed, or its report is stored. */
  | { kind: 'task.changed'; executionId: string; taskId: string }
  /** Its worker is connected to the engine `via`, and is to end it. */
  | { kind: 'task.cancel'; via: string; taskId: string }
  /** It had no row any more when it ended: its execution's owner `to` knows who waits for that. `counts`: a result. */
  | { kind: 'task.ended'; to: string; taskId: string; report: WorkReport; counts: boolean }
  | {
      kind: 'task.log';
      executionId: string;
      taskId: string;
      stream: 'stdout' | 'stderr';
      text: string;
      truncated: boolean;
    };

export interface StopMessage {
  executionId: string;
  requestId: string;
}
