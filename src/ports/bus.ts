import type { ExecutionEvent, ExecutionItem, StopReceipt } from '../wire.ts';

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
}

export interface StopMessage {
  executionId: string;
  requestId: string;
}
