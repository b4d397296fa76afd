/** The one way from a request to a verb, shared by HTTP and Socket.IO: validate, authorise, act, audit. */
import type { z } from 'zod';
import { type ErrorCode, errorCodes, FullstopError, hasCode, messageOf } from '../errors.ts';
import type { DefinitionFault, ErrorBody } from '../wire.ts';
import { allows, type Caller } from './access.ts';
import type { Act } from './audit.ts';
import type { Answer, Context, Verb } from './verbs/verb.ts';

/** @throws FS_INVALID naming every fault. */
export function parse(schema: z.ZodObject, value: unknown): Record<string, unknown> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const faults: DefinitionFault[] = parsed.error.issues.map((issue) => ({
    path: issue.path.join('.'),
    line: null,
    message: issue.message,
  }));
  const message = faults
    .map((fault) => (fault.path === '' ? fault.message : `${fault.path}: ${fault.message}`))
    .join('; ');
  throw new FullstopError('FS_INVALID', message, { details: { faults } });
}

/**
 * Does what a caller asks, its input already parsed.
 *
 * Refusals are audited like successes: 403 and 404 of a verb that changes something say who tried.
 */
export async function call(
  context: Context,
  verb: Verb,
  caller: Caller | null,
  input: Record<string, unknown>,
): Promise<Answer> {
  const level = verb.levelOf?.(input as never) ?? verb.level;
  if (caller === null && level !== 'open') throw unauthenticated();
  // An open verb takes a caller that is null; only `health` is one.
  const who = caller as Caller;
  const act = context.audit.act({
    caller: who,
    verb: verb.name,
    project: projectOf(who, input),
    target: targetOf(input),
    outcome: null,
  });
  if (!allows(caller, level)) {
    const refused = new FullstopError(
      'FS_FORBIDDEN',
      `expected a key that may ${verb.name}, found the role ${caller?.role}: ask an admin for one`,
    );
    if (verb.audited) await act.end(refused.code);
    throw refused;
  }
  if (!verb.audited || input.dryRun === true) return verb.run(context, who, input as never, act);
  try {
    const answer = await verb.run(context, who, input as never, act);
    await endAct(context, act, answer.outcome ?? 'ok');
    return answer;
  } catch (error) {
    const code = codeOf(error);
    if (act.begun || code !== 'FS_INVALID') await endAct(context, act, code);
    throw error;
  }
}

/** What leaves the process of an error: codes of the catalogue as they are, anything else without its internals. */
export function errorBody(error: unknown): ErrorBody {
  const code = codeOf(error);
  if (code === 'FS_INTERNAL') {
    return { code, message: 'the server failed on this request: its log says why', details: null };
  }
  return { code, message: messageOf(error), details: (error as { details?: unknown }).details ?? null };
}

export function unauthenticated(): FullstopError {
  return new FullstopError(
    'FS_UNAUTHENTICATED',
    'expected a key this server knows: send `Authorization: Bearer KEY`, on Socket.IO `auth: {token: KEY}`',
  );
}

/** Codes a caller may be told; others, and errors of programs, are FS_INTERNAL. */
export function codeOf(error: unknown): ErrorCode {
  const code = (error as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' && code in errorCodes && hasCode(error, code as ErrorCode)
    ? (code as ErrorCode)
    : 'FS_INTERNAL';
}

/** What was done is durable already: a store that fails now does not make it undone, so the log has to do. */
async function endAct(context: Context, act: Act, outcome: string): Promise<void> {
  try {
    await act.end(outcome);
  } catch (error) {
    context.logger.error({ act, outcome, error: messageOf(error) }, 'audit entry not stored');
  }
}

function projectOf(caller: Caller | null, input: Record<string, unknown>): string | null {
  return typeof input.project === 'string' ? input.project : (caller?.project ?? null);
}

function targetOf(input: Record<string, unknown>): string | null {
  for (const target of [input.id, input.name]) if (typeof target === 'string') return target;
  return null;
}
