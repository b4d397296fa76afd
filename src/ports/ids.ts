/** Identity and randomness as the engine sees them. */
export interface Ids {
  /** A UUID version 7, ordered by time of creation. */
  next(): string;
}

/** Secrets that bind a task's result to the worker that was given it. */
export interface Tokens {
  /** A new token of at least 128 random bits. */
  make(): string;
  /** SHA-256, hex: what is stored. */
  hash(token: string): string;
}

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
}
