import type { NodeType } from '../nodes/node-type.ts';
import type { SecretReference } from '../ports/work.ts';
import type { Json } from '../wire.ts';

/** A saved definition, checked and laid out for running. Made once per hash by `compile` and shared. */
export interface CompiledWorkflow {
  name: string;
  hash: string;
  description: string | null;
  inputs: Record<string, InputSpec>;
  schedules: ScheduleSpec[];
  overlap: 'skip' | 'allow';
  /** Of the whole execution; null: none. */
  timeoutMs: number | null;
  concurrency: { max: number; onFull: 'queue' | 'refuse' } | null;
  failFast: boolean;
  onFailure: { workflow: string; input: Json | null } | null;
  /** Templates by name; null: the outputs of the nodes that nobody needs. */
  outputs: Record<string, string> | null;
  /** Names of nodes that `outputs` reads, or all leaves where it is null. */
  outputReads: string[];
  graph: Graph;
}

export interface InputSpec {
  type: 'string' | 'number' | 'boolean' | 'array' | 'object';
  required: boolean;
  default?: Json;
  enum?: Json[];
  description?: string;
}

export interface ScheduleSpec {
  cron: string;
  timezone: string | null;
  input: Json | null;
}

/** The nodes of a workflow, or of one body. */
export interface Graph {
  /** '' for the workflow itself, else the path of the node whose body this is. */
  path: string;
  /** In the file's order. */
  nodes: CompiledNode[];
  byName: Map<string, CompiledNode>;
  /** Nodes that need nothing. */
  roots: CompiledNode[];
  /** Nodes that no other needs. */
  leaves: CompiledNode[];
}

export interface CompiledNode {
  name: string;
  /** With the names of the enclosing nodes: `poll/check`. */
  path: string;
  /** Position in its graph's `nodes`. */
  index: number;
  type: NodeType;
  needs: CompiledNode[];
  /** Who needs this one. */
  dependents: CompiledNode[];
  /** Bare CEL; null: always. */
  condition: string | null;
  timeoutMs: number | null;
  queueTimeoutMs: number | null;
  retry: { attempts: number; backoffMs: number; factor: number; maxBackoffMs: number };
  rerun: boolean;
  continueOnError: boolean;
  /** As in the file, templates unrendered; null where there is none. */
  with: Json;
  /** Where `with` names secrets, and which. */
  secrets: SecretReference[];
  /** The type's own keys, parsed (durations in ms under their names in the file plus `Ms`). */
  keys: {
    trigger?: string;
    /** Of a hold. */
    schedule?: string;
    /** Of a while. */
    condition?: string;
    maxIterations?: number;
    delayMs?: number;
    onExhausted?: 'complete' | 'fail';
    /** Of a foreach: a template. */
    items?: string;
    concurrency?: number;
    onItemError?: 'fail' | 'continue';
  };
  body: Graph | null;
  /** The node that holds this one in its body; null at the top. */
  outer: CompiledNode | null;
  /** Names of nodes (of this graph or an enclosing one) that any expression of the node reads. */
  reads: string[];
}
