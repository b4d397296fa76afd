/**
 * What a verb is. HTTP routes, Socket.IO handlers, the OpenAPI document and the access matrix are all made
 * from the table in `table.ts`, so that every verb exists on both sides alike.
 */
import type { Logger } from 'pino';
import { z } from 'zod';
import type { EngineApi } from '../../engine/api.ts';
import type { ErrorCode } from '../../errors.ts';
import type { Clock } from '../../ports/clock.ts';
import type { Ids } from '../../ports/ids.ts';
import type { ExecutionStore } from '../../ports/store.ts';
import type { WorkerGate } from '../../ports/workers.ts';
import type { Access, Caller, Level } from '../access.ts';
import type { Act, Audit } from '../audit.ts';
import type { FrozenSets } from '../frozen-sets.ts';
import type { InspectionTokens } from '../inspection-tokens.ts';
import type { ShapeName } from '../shapes.ts';

/** What verbs work with. */
export interface Context {
  store: ExecutionStore;
  engine: EngineApi;
  /** null: no worker or agent may connect. */
  workers: WorkerGate | null;
  clock: Clock;
  ids: Ids;
  access: Access;
  audit: Audit;
  frozenSets: FrozenSets;
  inspections: InspectionTokens;
  /** Hangs up on every socket that came with this key. */
  closeSocketsOf(keyId: string): void;
  /** How long a drain lets running attempts go on. */
  drainMs: number;
  logger: Logger;
}

export interface Answer {
  status: number;
  data: unknown;
  /** Of the audit entry; `ok` unless said. */
  outcome?: string;
  headers?: Record<string, string>;
}

type Shape = z.ZodRawShape;

interface VerbSpec<P extends Shape, Q extends Shape, B extends Shape, Input> {
  /** On Socket.IO. */
  name: string;
  summary: string;
  http: {
    method: 'GET' | 'POST' | 'DELETE';
    path: string;
    /** The query parameter that picks this verb among those of its route, by `true`. */
    when?: string;
    /** The body is a definition: `definition` and `format` of the payload, by content type. */
    definition?: true;
  };
  params?: P;
  query?: Q;
  body?: B;
  level: Level;
  /** Where the level depends on what is asked. */
  levelOf?: (input: Input) => Level;
  /** Changes something: who asked is in the audit log, refusals too. */
  audited?: true;
  /** The shape of each success. */
  answers: Record<number, ShapeName>;
  /** Codes beyond those that every verb may answer with. */
  errors?: ErrorCode[];
  run: (context: Context, caller: Caller, input: Input, act: Act) => Promise<Answer>;
}

export interface Verb extends VerbSpec<Shape, Shape, Shape, never> {
  params: Shape;
  query: Shape;
  body: Shape;
  /** The parts of an HTTP request, and all of them in one for Socket.IO. */
  schemas: { params: z.ZodObject; query: z.ZodObject; body: z.ZodObject; payload: z.ZodObject };
}

/** A part of a request that takes no keys. */
type None = Record<never, never>;

type InputOf<S extends Shape> = z.output<z.ZodObject<S, z.core.$strict>>;

/** Completes a verb: its schemas, strict, from its parts. */
export function verb<P extends Shape = None, Q extends Shape = None, B extends Shape = None>(
  spec: VerbSpec<P, Q, B, InputOf<P> & InputOf<Q> & InputOf<B>>,
): Verb {
  const params = spec.params ?? {};
  const query = spec.query ?? {};
  const body = spec.body ?? {};
  return {
    ...(spec as unknown as VerbSpec<Shape, Shape, Shape, never>),
    params,
    query,
    body,
    schemas: {
      params: z.strictObject(params),
      query: z.strictObject(query),
      body: z.strictObject(body),
      payload: z.strictObject({ ...params, ...query, ...body }),
    },
  };
}
