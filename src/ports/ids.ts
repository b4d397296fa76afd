/** Identity and randomness as the engine sees them. */
export interface Ids {
  /** A UUID version 7, ordered by time of creation. */
  next(): string;
}

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
}
