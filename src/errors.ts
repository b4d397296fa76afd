/**
 * The one error class and the catalogue of its codes.
 *
 * Codes are added, never renamed; `docs/errors.md` has a section for each, and a test compares the two.
 * Recognise an error with `hasCode`, never with `instanceof`: errors come back from threads, stores and
 * sockets as plain objects.
 */
export const errorCodes = {
  FS_INVALID: { status: 400, retryable: false },
  FS_UNAUTHENTICATED: { status: 401, retryable: false },
  FS_FORBIDDEN: { status: 403, retryable: false },
  FS_NOT_FOUND: { status: 404, retryable: false },
  FS_ENDED: { status: 409, retryable: false },
  FS_CONFLICT: { status: 409, retryable: false },
  FS_DISABLED: { status: 409, retryable: false },
  FS_GONE: { status: 410, retryable: false },
  FS_TOO_LARGE: { status: 413, retryable: false },
  FS_RATE: { status: 429, retryable: true },
  FS_INTERNAL: { status: 500, retryable: false },
  FS_UNAVAILABLE: { status: 503, retryable: true },
  /** A second server on one data directory. */
  FS_LOCKED: { status: 503, retryable: false },
  /** The store refused a write of a former owner. */
  FS_FENCED: { status: 409, retryable: false },
  /** Errors of nodes and executions (`errorCode` in a record). */
  FS_STOPPED: { status: 409, retryable: false },
  FS_TIMEOUT: { status: 408, retryable: true },
  FS_LOST: { status: 500, retryable: false },
  FS_EXPRESSION: { status: 400, retryable: false },
  FS_FAILED: { status: 500, retryable: true },
  FS_FAIL_NODE: { status: 500, retryable: false },
  FS_EXHAUSTED: { status: 500, retryable: false },
  FS_BODY_FAILED: { status: 500, retryable: true },
  FS_CHILD_FAILED: { status: 500, retryable: true },
  FS_CHILD_STOPPED: { status: 500, retryable: false },
  FS_PARENT_ENDED: { status: 500, retryable: false },
  FS_HTTP_STATUS: { status: 502, retryable: true },
  FS_HTTP_NETWORK: { status: 502, retryable: true },
  FS_HTTP_BLOCKED: { status: 403, retryable: false },
  FS_HTTP_TOO_LARGE: { status: 502, retryable: false },
  FS_AI_MODEL: { status: 400, retryable: false },
  FS_AI_CALL: { status: 502, retryable: true },
  FS_AI_OUTPUT: { status: 502, retryable: true },
  FS_SECRET: { status: 400, retryable: false },
  FS_CONTAINER_EXIT: { status: 502, retryable: true },
  FS_CONTAINER_OUTPUT: { status: 502, retryable: false },
  FS_CONTAINER_IMAGE: { status: 403, retryable: false },
  FS_CONTAINER_ENGINE: { status: 503, retryable: true },
  FS_NODE_VERSION: { status: 500, retryable: false },
} as const satisfies Record<string, { status: number; retryable: boolean }>;

export type ErrorCode = keyof typeof errorCodes;

/** The marker of a stopped execution and node: exactly this text, and only with a stop (contract point 7). */
export const STOPPED_MESSAGE = 'workflow stopped by user';

export interface FullstopErrorOptions {
  details?: unknown;
  cause?: unknown;
  /** Overrides the code's default. */
  retryable?: boolean;
}

export class FullstopError extends Error {
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly details: unknown;

  constructor(code: ErrorCode, message: string, options: FullstopErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'FullstopError';
    this.code = code;
    this.retryable = options.retryable ?? errorCodes[code].retryable;
    this.details = options.details ?? null;
  }
}

/** Whether `error` carries one of the codes, also after it crossed a thread or a socket. */
export function hasCode(error: unknown, ...codes: ErrorCode[]): boolean {
  if (typeof error !== 'object' || error === null) return false;
  const code = (error as { code?: unknown }).code;
  return typeof code === 'string' && (codes as string[]).includes(code);
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  if (typeof error === 'object' && error !== null && typeof (error as { message?: unknown }).message === 'string') {
    return (error as { message: string }).message;
  }
  return String(error);
}
