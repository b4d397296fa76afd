/**
 * What the main thread and a store thread say to each other.
 *
 * The main thread posts lists of calls; the thread answers each with one outcome, in order, in replies of as
 * many calls as shared a transaction.
 */
import type { ErrorCode } from '../../errors.ts';

export type Operations = Record<string, (...args: never[]) => unknown>;

export type Call = [operation: string, ...args: unknown[]];

/** `size`: characters of the calls' big texts, so that a thread takes no more than it can hold. */
export type ToThread = { calls: Call[]; size: number } | 'close';

export interface ThreadError {
  code: ErrorCode;
  message: string;
}

export type FromThread =
  | { kind: 'opened' }
  | { kind: 'refused'; error: ThreadError }
  | { kind: 'outcomes'; values: unknown[]; errors: Map<number, ThreadError> | null }
  /** None of the next `count` calls took effect. */
  | { kind: 'failed'; count: number; error: ThreadError }
  | { kind: 'trouble'; message: string | null };
