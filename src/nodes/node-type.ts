import type { ZodRawShape, ZodType } from 'zod';
import type { Where } from '../wire.ts';

/**
 * One node type: its keys in the workflow file and how the engine runs it. One file per type in this
 * folder, listed in `registry.ts`; nothing else in the engine names a type.
 */
export interface NodeType {
  type: string;
  /** For people who write the file: what the node does, in one sentence. */
  description: string;
  /** Where an attempt runs, and so what a stop does to it (docs/stopping.md). */
  where: Where;
  /** Shape of `with`, before templates are rendered (strings may hold `${{ }}` anywhere a value may stand). null: no `with`. */
  with: ZodType | null;
  /** Keys of the node itself beyond those of every node, such as `condition` of a `while`. */
  keys: ZodRawShape;
  /** Of `keys`: which hold bare CEL, which a template (both checked at save), and which a duration. */
  celKeys: string[];
  templateKeys: string[];
  durationKeys: string[];
  /** Which roots `celKeys`, `templateKeys` and the body see beyond the ordinary ones. */
  bodyRoots: ('iter' | 'item' | 'itemIndex')[];
  /** Whether `celKeys` see `bodyRoots` too (`condition` of a while does). */
  keysSeeBodyRoots: boolean;
  /** Names that no node of the body may have. */
  bodyNamesRefused: string[];
  /** `${{ secrets.NAME }}` is allowed in `with`. */
  secrets: boolean;
  /** A rule over several keys of the node as it stands in the file: what is wrong, or null. */
  check(node: Record<string, unknown>): string | null;
  run: NodeRun;
}

export type NodeRun =
  /** Ends as soon as it started, from its rendered `with` alone. May throw a FullstopError. */
  | { kind: 'instant'; finish(rendered: unknown): InstantOutcome }
  /** Waits for an instant in time; `until` gives it from the rendered `with`, in ms since the epoch. */
  | { kind: 'timer'; until(rendered: unknown, nowMs: number): number; output(untilMs: number): unknown }
  /** Held until its trigger or its schedule. */
  | { kind: 'hold' }
  /** Runs its body again and again in this execution. */
  | { kind: 'loop' }
  /** Runs its body once per item, each a child execution. */
  | { kind: 'items' }
  /** Starts one child execution of another workflow. */
  | { kind: 'child' }
  /** Handed to a worker or an agent; the type's name is the capability. */
  | { kind: 'task' };

export type InstantOutcome = { output: unknown } | { error: string; code: 'FS_FAIL_NODE' };

/** What most types are not. */
export const plainNodeType = {
  where: 'engine',
  with: null,
  keys: {},
  celKeys: [],
  templateKeys: [],
  durationKeys: [],
  bodyRoots: [],
  keysSeeBodyRoots: false,
  bodyNamesRefused: [],
  secrets: false,
  check: () => null,
} satisfies Partial<NodeType>;
