/** Guards of the product, each switched off by a rewrite of its text: the simulation has to notice every one. */
import type { Rewrite } from './modules.ts';

export interface Mutant {
  name: string;
  what: string;
  rewrites: Rewrite[];
}

export const mutants: Mutant[] = [];
