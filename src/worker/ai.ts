import { AsyncLocalStorage } from 'node:async_hooks';
import type { LanguageModel } from 'ai';
import type { Dispatcher } from 'undici';
import { FullstopError, hasCode, messageOf } from '../errors.ts';
import type { ModelSetting, ModelSettings } from '../model-settings.ts';
import { type AiRequest, parseAiRequest } from './ai-request.ts';
import { type Connection, Connections } from './connections.ts';
import { type Fits, fitsOf } from './fits.ts';
import { type Hide, type HidingExecutor, hideNothing, hidingSecrets } from './secrets.ts';

/** How much of an answer a failure's message quotes. */
const excerptChars = 200;
/** An answer that is larger is a fault of the endpoint. */
const answerMaxBytes = 16 * 2 ** 20;
/** Answers that a repeat may change. */
const passing = new Set([408, 409, 425, 429]);

export interface AiExecutorOptions {
  models: ModelSettings;
  /** The value behind an `apiKey`, such as `env:VAR`. @throws FS_SECRET */
  resolveSecret(reference: string): Promise<string>;
}

/**
 * Runs `ai` nodes: one streamed call of an OpenAI-compatible endpoint each.
 *
 * Nothing is tried twice here: the node's policy alone retries. Whether a call was aborted is the signal's word, and
 * an abort closes the call's connection at once, whatever it waits for.
 */
export function createAiExecutor({ models, resolveSecret }: AiExecutorOptions): HidingExecutor {
  const connections = new Connections();
  return {
    async run(task, signal, log, hide = hideNothing) {
      const request = parseAiRequest(task.with);
      const setting = Object.hasOwn(models, request.model) ? models[request.model] : undefined;
      if (setting === undefined) throw unknownModel(hide(request.model), models);
      const key = setting.apiKey === null ? null : await resolveSecret(setting.apiKey);
      return hidingSecrets(key === null ? [] : [key], log, (_log, hideKey) => {
        return call({ request, setting, key, signal, connections, hide: (text) => hideKey(hide(text)) });
      });
    },
    close: () => connections.close(),
  };
}

/** One for all: a stop may abort thousands at once, and a stack trace each would cost more than the rest. */
const aborted = new FullstopError('FS_AI_CALL', 'aborted');

interface Call {
  request: AiRequest;
  setting: ModelSetting;
  key: string | null;
  signal: AbortSignal;
  connections: Connections;
  hide: Hide;
}

async function call(parts: Call): Promise<unknown> {
  const { request, setting, signal, connections, hide } = parts;
  const fits = request.schema === null ? null : await fitsOf(request.schema);
  await loadLibraries();
  if (signal.aborted) throw aborted;
  const connection = connections.acquire(new URL(setting.baseURL).origin, true);
  let onAbort!: () => void;
  const abort = new Promise<never>((_, reject) => {
    onAbort = () => reject(aborted);
  });
  signal.addEventListener('abort', onAbort);
  let answer: Answer;
  try {
    answer = await Promise.race([ask(parts, connection), abort]);
    connections.release(connection);
  } catch (error) {
    connections.destroy(connection, aborted);
    if (signal.aborted) throw aborted;
    throw failureOf(error, `model ${request.model}`, hide);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  return outputOf(request, answer, fits, hide);
}

interface Answer {
  text: string;
  finishReason: string;
  usage: { inputTokens: number | null; outputTokens: number | null };
}

type Libraries = readonly [typeof import('ai'), typeof import('@ai-sdk/openai-compatible'), typeof import('undici')];

let libraries: Promise<Libraries> | null = null;

/** On first use: they take a quarter of a second and 30 MB. */
function loadLibraries(): Promise<Libraries> {
  libraries ??= Promise.all([import('ai'), import('@ai-sdk/openai-compatible'), import('undici')]);
  return libraries;
}

/** The call in whose course the library sends its request. */
const current = new AsyncLocalStorage<{ key: string | null; connection: Connection }>();

/** One per model and not per call: each makes schemas anew, which take more memory than all else of a call. */
const handles = new WeakMap<ModelSetting, LanguageModel>();

async function handleOf(setting: ModelSetting): Promise<LanguageModel> {
  const known = handles.get(setting);
  if (known !== undefined) return known;
  const [, { createOpenAICompatible }, { fetch, Response }] = await loadLibraries();
  const provider = createOpenAICompatible({
    name: 'fullstop',
    baseURL: setting.baseURL,
    ...(setting.apiKey === null ? {} : { apiKey: () => current.getStore()?.key ?? '' }),
    includeUsage: true,
    supportsStructuredOutputs: true,
    fetch: (async (input: string, init: object) => {
      const dispatcher = current.getStore()?.connection.client as Dispatcher;
      // A redirect would take the key and the question to another host.
      const response = await fetch(input, { ...init, redirect: 'manual', dispatcher });
      if (response.body === null) return response;
      const { status, statusText, headers } = response;
      return new Response(response.body.pipeThrough(limited()), { status, statusText, headers });
    }) as unknown as typeof globalThis.fetch,
  });
  const handle = provider(setting.model);
  handles.set(setting, handle);
  return handle;
}

async function ask({ request, setting, key }: Call, connection: Connection): Promise<Answer> {
  const [{ jsonSchema, Output, streamText }] = await loadLibraries();
  const model = await handleOf(setting);
  // The library would print its warnings to the console.
  globalThis.AI_SDK_LOG_WARNINGS = false;
  const options: Parameters<typeof streamText>[0] = {
    model,
    ...(request.system === null ? {} : { instructions: request.system }),
    messages: request.messages,
    allowSystemInMessages: true,
    ...(request.schema === null ? {} : { output: Output.object({ schema: jsonSchema(request.schema) }) }),
    ...(request.temperature === null ? {} : { temperature: request.temperature }),
    ...(request.maxOutputTokens === null ? {} : { maxOutputTokens: request.maxOutputTokens }),
    providerOptions: { fullstop: { strictJsonSchema: request.schema !== null && isStrict(request.schema) } },
    maxRetries: 0,
    // The default prints errors, with the request in them.
    onError: () => {},
  };
  return current.run({ key, connection }, () => read(streamText(options).stream));
}

async function read(stream: ReturnType<typeof import('ai').streamText>['stream']): Promise<Answer> {
  let text = '';
  for await (const part of stream) {
    if (part.type === 'text-delta') text += part.text;
    else if (part.type === 'error') throw part.error;
    else if (part.type === 'finish') {
      const { inputTokens = null, outputTokens = null } = part.totalUsage;
      return { text, finishReason: part.finishReason, usage: { inputTokens, outputTokens } };
    }
  }
  throw new Error('the answer ended early');
}

/** Passes bytes on up to the limit. */
function limited(): TransformStream<Uint8Array, Uint8Array> {
  let sizeBytes = 0;
  return new TransformStream({
    transform(chunk, controller) {
      sizeBytes += chunk.length;
      if (sizeBytes <= answerMaxBytes) return controller.enqueue(chunk);
      controller.error(new FullstopError('FS_AI_OUTPUT', `the answer is larger than ${answerMaxBytes / 2 ** 20} MiB`));
    },
  });
}

/**
 * Whether endpoints with a strict mode take the schema in it: there every object lists all its keys as required and
 * forbids others. They refuse any other schema, which goes without the mode.
 */
function isStrict(schema: unknown): boolean {
  if (Array.isArray(schema)) return schema.every(isStrict);
  if (typeof schema !== 'object' || schema === null) return true;
  const { type, properties, required, additionalProperties } = schema as Record<string, unknown>;
  if (type === 'object' || (typeof properties === 'object' && properties !== null && type === undefined)) {
    const names = Object.keys(Object(properties));
    if (additionalProperties !== false || !Array.isArray(required)) return false;
    if (!names.every((name) => required.includes(name))) return false;
  }
  return Object.values(schema).every(isStrict);
}

/** @throws FS_AI_OUTPUT when the answer does not fit the schema. */
function outputOf(request: AiRequest, { text, finishReason, usage }: Answer, fits: Fits | null, hide: Hide): unknown {
  if (fits === null) return { text, finishReason, usage };
  const wrong = (what: string): FullstopError =>
    new FullstopError(
      'FS_AI_OUTPUT',
      `model ${request.model}: the answer ${what}, it ended by ${finishReason} (${excerptOf(text, hide)})`,
    );
  let object: unknown;
  try {
    object = JSON.parse(withoutFence(text));
  } catch {
    throw wrong('is no JSON');
  }
  const fault = fits(object);
  if (fault !== null) throw wrong(`does not fit with.schema: ${fault}`);
  return { object, finishReason, usage };
}

/** Some models put JSON in a block of Markdown whatever they are told. */
function withoutFence(text: string): string {
  return /^\s*```(?:json)?\s*\n([\s\S]*)\n\s*```\s*$/i.exec(text)?.[1] ?? text;
}

function failureOf(error: unknown, title: string, hide: Hide): FullstopError {
  for (let cause = error; typeof cause === 'object' && cause !== null; cause = (cause as { cause?: unknown }).cause) {
    if (hasCode(cause, 'FS_AI_OUTPUT')) {
      const message = messageOf(cause);
      return new FullstopError('FS_AI_OUTPUT', message.startsWith(title) ? message : `${title}: ${message}`);
    }
  }
  const { statusCode, responseBody } = error as { statusCode?: unknown; responseBody?: unknown };
  // An error after the call began to answer has the status of a success.
  if (typeof statusCode === 'number' && (statusCode < 200 || statusCode > 299)) {
    const excerpt = excerptOf(messageIn(responseBody) ?? messageOf(error), hide);
    return new FullstopError(
      'FS_AI_CALL',
      `${title}: expected status 200, found ${statusCode}${excerpt === '' ? '' : ` (${excerpt})`}`,
      { retryable: statusCode >= 500 || passing.has(statusCode) },
    );
  }
  return new FullstopError('FS_AI_CALL', `${title}: ${excerptOf(deepestMessage(error), hide)}`);
}

/** What an endpoint says in the body of a refusal. */
function messageIn(body: unknown): string | null {
  if (typeof body !== 'string') return null;
  try {
    const { error, message } = JSON.parse(body);
    const text = error?.message ?? error ?? message;
    return typeof text === 'string' ? text : body;
  } catch {
    return body;
  }
}

/** "fetch failed" says less than its cause. */
function deepestMessage(error: unknown): string {
  let deepest = error;
  for (let next = error; typeof next === 'object' && next !== null; next = (next as { cause?: unknown }).cause) {
    if (messageOf(next) !== '') deepest = next;
  }
  return messageOf(deepest);
}

function excerptOf(text: string, hide: Hide): string {
  return hide(text).slice(0, excerptChars).replace(/\s+/g, ' ').trim();
}

function unknownModel(name: string, models: ModelSettings): FullstopError {
  const known = Object.keys(models).sort();
  const there = known.length === 0 ? 'none' : known.slice(0, 20).join(', ');
  return new FullstopError(
    'FS_AI_MODEL',
    `there is no model "${name.slice(0, 63)}" here: FULLSTOP_MODELS names ${there}`,
  );
}
