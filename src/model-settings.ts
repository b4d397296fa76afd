/**
 * The value of FULLSTOP_MODELS: which language models `ai` nodes may name, and where each of them is.
 *
 * Checked by hand: the schema library would take longer to load than a command line takes to answer.
 */
import { readFileSync } from 'node:fs';

export interface ModelSetting {
  /** Of an OpenAI-compatible interface, such as `http://127.0.0.1:11434/v1`. */
  baseURL: string;
  /** The name that the endpoint knows. */
  model: string;
  /** Where its key is, as `env:VAR`; null: it needs none. */
  apiKey: string | null;
}

export type ModelSettings = Readonly<Record<string, ModelSetting>>;

/** The models, or what is wrong: never with a text of the file, which may hold a key in the wrong place. */
export function readModels(text: string): { models: ModelSettings } | { fault: string } {
  let json = text;
  if (text.startsWith('@')) {
    try {
      json = readFileSync(text.slice(1), 'utf8');
    } catch (error) {
      return { fault: `a file that cannot be read (${(error as { code?: string }).code ?? 'unknown'})` };
    }
  }
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    return { fault: 'what is no JSON' };
  }
  if (!isObject(value)) return { fault: 'JSON that is no object' };
  const models = Object.entries(value);
  for (const [name, model] of models) {
    const fault = modelFault(name, model);
    if (fault !== null) return { fault };
  }
  return {
    models: Object.fromEntries(
      (models as [string, ModelSetting][]).map(([name, { baseURL, model, apiKey }]) => {
        return [name, { baseURL, model, apiKey: apiKey ?? null }];
      }),
    ),
  };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const keys = ['baseURL', 'model', 'apiKey'];

function modelFault(name: string, model: unknown): string | null {
  if (!/^[A-Za-z0-9][\w.:/-]{0,62}$/.test(name))
    return 'a name of a model with other characters than A-Z a-z 0-9 _ . : / -';
  if (!isObject(model)) return `no object as ${name}`;
  const { baseURL, model: id, apiKey } = model;
  if (Object.keys(model).some((key) => !keys.includes(key))) return `other keys than ${keys.join(', ')} in ${name}`;
  if (typeof baseURL !== 'string' || !isBaseUrl(baseURL))
    return `${name}.baseURL that is no http or https URL, or one with user, password or query`;
  if (typeof id !== 'string' || id === '') return `${name}.model that is no text`;
  if (apiKey !== undefined && apiKey !== null && !(typeof apiKey === 'string' && /^env:[A-Za-z_]\w*$/.test(apiKey)))
    return `${name}.apiKey that is not "env:VAR" (keys stand in the environment, not here)`;
  return null;
}

function isBaseUrl(text: string): boolean {
  const url = URL.parse(text);
  return url !== null && /^https?:$/.test(url.protocol) && url.username + url.password + url.search + url.hash === '';
}

/** The variable that an `apiKey` names. */
export function variableOf(apiKey: string): string {
  return apiKey.slice('env:'.length);
}
