/** From a workflow file to what the engine runs. */
import { z } from 'zod';
import type { NodeType } from '../nodes/node-type.ts';
import type { Json } from '../wire.ts';
import { type Checked, type CheckOptions, check, checkDefinition } from './check.ts';
import { parseDuration } from './duration.ts';
import { hashDefinition } from './hash.ts';
import { type OutlineGraph, type OutlineNode, objectOr, type Raw } from './outline.ts';
import { invalidDefinition, parseDefinition } from './parse.ts';
import { secretReferences } from './secrets.ts';
import type { CompiledNode, CompiledWorkflow, Graph, InputSpec, ScheduleSpec } from './types.ts';

export { checkDefinition };

export interface LoadedDefinition {
  /** The file as a JSON value. */
  source: Json;
  hash: string;
  compiled: CompiledWorkflow;
}

/**
 * Reads, checks and compiles a workflow file: text of the given format, or without a format its value.
 * @throws FS_INVALID with every fault in `details.faults`; FS_TOO_LARGE.
 */
export function loadDefinition(file: unknown, format?: 'yaml' | 'json'): LoadedDefinition {
  const { value, ...options } = format === undefined ? { value: file } : parseDefinition(String(file), format);
  const checked = checkOrThrow(value, options);
  const source = value as Json;
  const hash = hashDefinition(source);
  return { source, hash, compiled: layOut(source, hash, checked) };
}

/** @throws FS_INVALID with every fault in `details.faults`. */
export function compileDefinition(value: unknown, hash: string): CompiledWorkflow {
  return layOut(value, hash, checkOrThrow(value, {}));
}

/** Names of the nodes whose outputs the execution's outputs are made of. */
export function readsOfOutputs(workflow: CompiledWorkflow): string[] {
  return workflow.outputReads;
}

function checkOrThrow(value: unknown, options: CheckOptions): Checked {
  const checked = check(value, options);
  if (checked.faults.length > 0) throw invalidDefinition(checked.faults);
  return checked;
}

/** Of each type's own keys: to make one costs many times what it is used for. */
const keySchemas = new Map<NodeType, z.ZodObject>();

/** From here on the value has the shape of the schema. */
function layOut(value: unknown, hash: string, { graph: outline, outputReads }: Checked): CompiledWorkflow {
  const workflow = value as Raw;
  const graph = layOutGraph(outline, null);
  const on = objectOr(workflow['on']);
  const concurrency = workflow['concurrency'] as { max: number; onFull?: 'queue' | 'refuse' } | undefined;
  const onFailure = workflow['onFailure'] as { workflow: string; input?: Json } | undefined;
  const outputs = (workflow['outputs'] as Record<string, string> | undefined) ?? null;
  return {
    name: workflow['name'] as string,
    hash,
    description: (workflow['description'] as string | undefined) ?? null,
    inputs: Object.fromEntries(
      Object.entries(objectOr(workflow['inputs'])).map(([name, spec]) => [
        name,
        layOutInput(spec as Partial<InputSpec>),
      ]),
    ),
    schedules: layOutSchedules(on['schedule']),
    overlap: (on['overlap'] as 'skip' | 'allow' | undefined) ?? 'skip',
    timeoutMs: durationOf(workflow['timeout']),
    concurrency: concurrency === undefined ? null : { onFull: 'queue', ...concurrency },
    failFast: workflow['failFast'] === true,
    onFailure: onFailure === undefined ? null : { input: null, ...onFailure },
    outputs,
    outputReads: outputs === null ? graph.leaves.map(({ name }) => name) : outputReads,
    graph,
  };
}

function layOutInput(spec: Partial<InputSpec>): InputSpec {
  return { required: false, ...spec } as InputSpec;
}

function layOutSchedules(schedule: unknown): ScheduleSpec[] {
  if (schedule === undefined) return [];
  if (typeof schedule === 'string') return [{ cron: schedule, timezone: null, input: null }];
  return (schedule as ScheduleSpec[]).map((item) => ({
    ...item,
    timezone: item.timezone ?? null,
    input: item.input ?? null,
  }));
}

function layOutGraph(outline: OutlineGraph, outer: CompiledNode | null): Graph {
  const nodes = outline.nodes.map((node) => layOutNode(node, outer));
  for (const [index, node] of nodes.entries()) {
    for (const needed of (outline.nodes[index] as OutlineNode).needs) {
      const other = nodes[needed.index] as CompiledNode;
      node.needs.push(other);
      other.dependents.push(node);
    }
  }
  return {
    path: outer?.path ?? '',
    nodes,
    byName: new Map(nodes.map((node) => [node.name, node])),
    roots: nodes.filter(({ needs }) => needs.length === 0),
    leaves: nodes.filter(({ dependents }) => dependents.length === 0),
  };
}

function layOutNode(outline: OutlineNode, outer: CompiledNode | null): CompiledNode {
  const { raw, name } = outline;
  const type = outline.type as NodeType;
  const retry = objectOr(raw['retry']);
  const with_ = (raw['with'] as Json | undefined) ?? null;
  const node: CompiledNode = {
    name,
    path: outer === null ? name : `${outer.path}/${name}`,
    index: outline.index,
    type,
    needs: [],
    dependents: [],
    condition: (raw['if'] as string | undefined) ?? null,
    timeoutMs: durationOf(raw['timeout']),
    queueTimeoutMs: durationOf(raw['queueTimeout']),
    retry: {
      attempts: (retry['attempts'] as number | undefined) ?? 1,
      backoffMs: durationOf(retry['backoff']) ?? 1_000,
      factor: (retry['factor'] as number | undefined) ?? 2,
      maxBackoffMs: durationOf(retry['maxBackoff']) ?? 300_000,
    },
    rerun: raw['rerun'] !== false,
    continueOnError: raw['continueOnError'] === true,
    with: with_,
    secrets: type.secrets ? secretReferences(with_) : [],
    keys: layOutKeys(type, raw),
    body: null,
    outer,
    reads: [...outline.reads],
  };
  if (outline.body !== null) node.body = layOutGraph(outline.body, node);
  return node;
}

/** The type's own keys with their defaults; a duration `delay` becomes `delayMs`. */
function layOutKeys(type: NodeType, raw: Raw): CompiledNode['keys'] {
  let schema = keySchemas.get(type);
  if (schema === undefined) {
    schema = z.object(type.keys);
    keySchemas.set(type, schema);
  }
  const parsed = schema.parse(raw);
  return Object.fromEntries(
    Object.entries(parsed).map(([key, value]) => {
      return type.durationKeys.includes(key) ? [`${key}Ms`, durationOf(value)] : [key, value];
    }),
  );
}

function durationOf(value: unknown): number | null {
  return value === undefined ? null : parseDuration(value);
}
