/**
 * What can be set from outside: one interface, one defaults object, one table of names, one resolver.
 *
 * The only reader of the environment, and of the two files by which a server tells the command line on its
 * machine where it listens and with which key: `server.json` and `admin.key` in the data directory.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseDuration } from './definition/duration.ts';
import { FullstopError, hasCode } from './errors.ts';
import { type ModelSettings, readModels, variableOf } from './model-settings.ts';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export interface Config {
  /** Address to listen on. Anything but loopback opens the server to the network. */
  host: string;
  /** TCP port; 0 picks a free one. */
  port: number;
  /** Absolute path of the data directory. */
  dataDir: string;
  /** The database that engines share; null: the data directory's own, for one engine. */
  mongodbUri: string | null;
  /** Carries what engines tell each other instead of MongoDB; null: MongoDB does. */
  redisUrl: string | null;
  /** Where clients and other engines' callers reach this one; null: the address it listens on. */
  advertisedUrl: string | null;
  /** Key of the first admin; null: generated once and kept in the data directory (`loadAdminKey`). */
  adminKey: string | null;
  /** Seed the demonstration workflows and start one execution of each. Off by default with `mongodbUri`. */
  demo: boolean;
  /** `host` or `host:port` that http nodes may reach although the address guard refuses them. */
  httpAllow: string[];
  /** Tasks that the server itself runs at once; 0: none, all wait for workers. */
  slots: number;
  /** Address of the container engine; null: the usual sockets of Docker and Podman. */
  dockerHost: string | null;
  /** Patterns of the images that container nodes may run, `*` for any characters; none: no image. */
  images: string[];
  /** What ai nodes may name as their model. */
  models: ModelSettings;
  /** Where `secrets.NAME` is looked up; null: nowhere. */
  secrets: SecretsSetting | null;
  /** How long running attempts may go on after SIGTERM; 0: not at all. */
  drainMs: number;
  /** Executions running at once, at least 1; more wait as Pending. */
  maxRunning: number;
  /** How long ended executions are kept; 0: for ever. */
  retentionMs: number;
  /** Let Stately viewers in. */
  inspect: boolean;
  /** Origins of pages elsewhere that may show inspections, as `https://viewer.example`. */
  inspectOrigins: string[];
  logLevel: LogLevel;
}

/** Variables of the environment that begin with `prefix`, or a file of names and values. */
export type SecretsSetting = { kind: 'env'; prefix: string } | { kind: 'file'; path: string };

export const configDefaults: Readonly<Config> = {
  host: '127.0.0.1',
  port: 4747,
  dataDir: './data',
  mongodbUri: null,
  redisUrl: null,
  advertisedUrl: null,
  adminKey: null,
  demo: true,
  httpAllow: [],
  slots: 4096,
  dockerHost: null,
  images: [],
  models: {},
  secrets: null,
  drainMs: 10_000,
  maxRunning: 10_000,
  retentionMs: 30 * 86_400_000,
  inspect: true,
  inspectOrigins: [],
  logLevel: 'info',
};

/** One row of the table: how a field of `Config` is called outside, and what it may hold. */
export interface Setting<K extends keyof Config = keyof Config> {
  key: K;
  env: string;
  /** Without the two dashes. */
  flag: string;
  placeholder: string;
  help: string;
  /** The default as a person would type it. */
  shown: string;
  expected: string;
  secret?: true;
  /** undefined: not what is expected. */
  parse(text: string): Config[K] | undefined;
  /** What was found instead; for a text that may hold a secret in the wrong place. */
  misfit?(text: string): string;
  /** What `doctor` shows in place of the text. */
  show?(text: string): string;
}

const setting = <K extends keyof Config>(row: Setting<K>): Setting => row as unknown as Setting;

const wholeNumber = (text: string, min: number, max: number): number | undefined => {
  if (!/^\d{1,15}$/.test(text)) return undefined;
  const value = Number(text);
  return value >= min && value <= max ? value : undefined;
};

/** Drives the environment, the flags of `serve`, `--help` and `doctor`. */
export const settings: readonly Setting[] = [
  setting({
    key: 'host',
    env: 'FULLSTOP_HOST',
    flag: 'host',
    placeholder: 'ADDRESS',
    help: 'address to listen on; anything but loopback opens the server to the network',
    shown: '127.0.0.1',
    expected: 'a host name or an IP address, such as 127.0.0.1',
    parse: (text) =>
      /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$/.test(text) ? text : undefined,
  }),
  setting({
    key: 'port',
    env: 'FULLSTOP_PORT',
    flag: 'port',
    placeholder: 'NUMBER',
    help: 'TCP port; 0 picks a free one and prints it',
    shown: '4747',
    expected: 'a whole number from 0 to 65535',
    parse: (text) => wholeNumber(text, 0, 65_535),
  }),
  setting({
    key: 'dataDir',
    env: 'FULLSTOP_DATA',
    flag: 'data',
    placeholder: 'DIRECTORY',
    help: 'data directory: database, large outputs, admin key; created when missing',
    shown: './data',
    expected: 'a path',
    parse: (text) => (text.includes('\0') ? undefined : resolve(text)),
  }),
  setting({
    key: 'mongodbUri',
    env: 'MONGODB_URI',
    flag: 'mongodb-uri',
    placeholder: 'URI',
    help: 'replica set or sharded cluster that several engines share, its database in the path (prefer the environment)',
    shown: 'none: the data directory, for one engine',
    expected: 'an address that begins with mongodb:// or mongodb+srv://',
    secret: true,
    parse: (text) => (/^mongodb(\+srv)?:\/\/[^\s/]\S*$/.test(text) ? text : undefined),
  }),
  setting({
    key: 'redisUrl',
    env: 'REDIS_URL',
    flag: 'redis-url',
    placeholder: 'URL',
    help: 'Redis that carries what engines tell each other; with MONGODB_URI only (prefer the environment)',
    shown: 'none: MongoDB carries it',
    expected: 'an address that begins with redis:// or rediss://',
    secret: true,
    parse: (text) => (/^rediss?:\/\/[^\s/]\S*$/.test(text) && URL.canParse(text) ? text : undefined),
  }),
  setting({
    key: 'advertisedUrl',
    env: 'FULLSTOP_ADVERTISED_URL',
    flag: 'advertised-url',
    placeholder: 'URL',
    help: 'where others reach this engine, for lists of engines',
    shown: 'the address it listens on',
    expected: 'an address such as https://engine-1.example:4747',
    parse: (text) => (isPlainUrl(text) ? text.replace(/\/+$/, '') : undefined),
  }),
  setting({
    key: 'adminKey',
    env: 'FULLSTOP_ADMIN_KEY',
    flag: 'admin-key',
    placeholder: 'KEY',
    help: 'key of the first admin, the same for all engines of a database (a flag shows in the process list: prefer the environment)',
    shown: 'generated once, kept in the data directory',
    expected: 'at least 16 characters without spaces',
    secret: true,
    parse: (text) => (/^[\x21-\x7e]{16,}$/.test(text) ? text : undefined),
  }),
  setting({
    key: 'demo',
    env: 'FULLSTOP_DEMO',
    flag: 'demo',
    placeholder: '0|1',
    help: 'seed the demonstration workflows and start one execution of each; 0: do not, as is the default with MONGODB_URI',
    shown: '1',
    expected: '0 or 1',
    parse: (text) => (text === '1' ? true : text === '0' ? false : undefined),
  }),
  setting({
    key: 'httpAllow',
    env: 'FULLSTOP_HTTP_ALLOW',
    flag: 'http-allow',
    placeholder: 'HOSTS',
    help: 'comma-separated host or host:port that http nodes may reach although private or local',
    shown: 'none',
    expected: 'comma-separated host or host:port, such as intranet.example,10.0.0.5:8080',
    parse: parseHosts,
  }),
  setting({
    key: 'slots',
    env: 'FULLSTOP_SLOTS',
    flag: 'slots',
    placeholder: 'COUNT',
    help: 'tasks (http, ai, container) that the server itself runs at once; 0: none, all wait for workers',
    shown: '4096',
    expected: 'a whole number from 0 to 100000',
    parse: (text) => wholeNumber(text, 0, 100_000),
  }),
  setting({
    key: 'dockerHost',
    env: 'DOCKER_HOST',
    flag: 'docker-host',
    placeholder: 'ADDRESS',
    help: 'container engine: Docker, or Podman with its socket',
    shown: 'the usual sockets of Docker and Podman',
    expected: 'unix:///PATH, or an address that begins with tcp://, http://, https://, ssh:// or npipe://',
    parse: (text) => (/^(unix:\/\/\/|(tcp|https?|ssh|npipe):\/\/.)\S*$/.test(text) ? text : undefined),
    misfit: () => 'another address',
    show: (text) => text.replace(/\/\/[^/@]*@/, '//***@'),
  }),
  setting({
    key: 'images',
    env: 'FULLSTOP_IMAGES',
    flag: 'images',
    placeholder: 'PATTERNS',
    help: 'comma-separated images that container nodes may run; * stands for any characters',
    shown: 'none',
    expected: 'comma-separated images, such as alpine:3.20,registry.example/team/*',
    parse: parseImages,
  }),
  setting({
    key: 'models',
    env: 'FULLSTOP_MODELS',
    flag: 'models',
    placeholder: 'JSON|@FILE',
    help: 'language models that ai nodes may name: {NAME: {baseURL, model, apiKey: "env:VAR"}}',
    shown: 'none',
    expected: 'JSON, or @FILE with it: {NAME: {baseURL, model, apiKey: "env:VAR"}}',
    parse: (text) => {
      const read = readModels(text);
      return 'models' in read ? read.models : undefined;
    },
    misfit: (text) => {
      const read = readModels(text);
      return 'fault' in read ? read.fault : '';
    },
    show: (text) => {
      const read = readModels(text);
      if ('fault' in read) return '(set)';
      return Object.entries(read.models)
        .map(([name, { baseURL, model }]) => `${name}: ${model} at ${baseURL}`)
        .join(', ');
    },
  }),
  setting({
    key: 'secrets',
    env: 'FULLSTOP_SECRETS',
    flag: 'secrets',
    placeholder: 'SOURCE',
    help: 'where secrets.NAME is looked up: env:PREFIX_ (variables PREFIX_NAME) or @FILE (JSON, or KEY=VALUE lines)',
    shown: 'none',
    expected: 'env:PREFIX_, with a prefix that no setting of this program has, or @FILE',
    parse: parseSecretsSetting,
    misfit: (text) => (text.startsWith('env:') ? JSON.stringify(text) : `${text.length} characters`),
  }),
  setting({
    key: 'drainMs',
    env: 'FULLSTOP_DRAIN_MS',
    flag: 'drain-ms',
    placeholder: 'MS',
    help: 'milliseconds that running attempts are given after SIGTERM; 0: none',
    shown: '10000',
    expected: 'a whole number of milliseconds from 0 to 3600000',
    parse: (text) => wholeNumber(text, 0, 3_600_000),
  }),
  setting({
    key: 'maxRunning',
    env: 'FULLSTOP_MAX_RUNNING',
    flag: 'max-running',
    placeholder: 'COUNT',
    help: 'executions running at once; more wait as Pending',
    shown: '10000',
    expected: 'a whole number from 1 to 1000000',
    parse: (text) => wholeNumber(text, 1, 1_000_000),
  }),
  setting({
    key: 'retentionMs',
    env: 'FULLSTOP_RETENTION',
    flag: 'retention',
    placeholder: 'DURATION',
    help: 'how long ended executions are kept; 0: for ever',
    shown: '30d',
    expected: 'a duration such as 12h or 30d, at most 100 years, or 0',
    parse: parseDurationMs,
  }),
  setting({
    key: 'inspect',
    env: 'FULLSTOP_INSPECT',
    flag: 'inspect',
    placeholder: '0|1',
    help: 'let Stately viewers watch an execution by a token (execution.inspect); 0: do not',
    shown: '1',
    expected: '0 or 1',
    parse: (text) => (text === '1' ? true : text === '0' ? false : undefined),
  }),
  setting({
    key: 'inspectOrigins',
    env: 'FULLSTOP_INSPECT_ORIGINS',
    flag: 'inspect-origins',
    placeholder: 'ORIGINS',
    help: 'comma-separated origins of pages elsewhere that may show such an execution',
    shown: 'none',
    expected: 'comma-separated origins, such as https://stately.ai,http://localhost:5173',
    parse: parseOrigins,
  }),
  setting({
    key: 'logLevel',
    env: 'FULLSTOP_LOG',
    flag: 'log',
    placeholder: 'LEVEL',
    help: `level of the log on stderr: ${logLevels.join(', ')}`,
    shown: 'info',
    expected: `one of ${logLevels.join(', ')}`,
    parse: (text) => logLevels.find((level) => level === text),
  }),
];

export type Environment = Readonly<Record<string, string | undefined>>;

/** Values of flags by their names without dashes; a list where the flag was given more than once. */
export type Flags = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface ResolvedSetting {
  setting: Setting;
  /** As typed, or the default; a secret is never shown. */
  shown: string;
  from: 'flag' | 'environment' | 'default';
}

/** The environment of this process. */
export function processEnvironment(): Environment {
  return process.env;
}

/**
 * The configuration of a server: a flag wins over the environment, the environment over the default.
 *
 * @throws FS_INVALID naming the flag or variable, what was expected and what was found, for a value that does
 * not fit, a flag given twice with different values, and an unknown flag or FULLSTOP_ variable.
 */
export function resolveConfig(env: Environment = processEnvironment(), flags: Flags = {}): Config {
  const config: Record<string, unknown> = { ...configDefaults, dataDir: resolve(configDefaults.dataDir) };
  for (const row of settings) {
    const given = read(row, env, flags);
    if (given === null) {
      // A database that others share is no place for demonstrations that nobody asked for.
      if (row.key === 'demo') config.demo = config.mongodbUri === null;
      continue;
    }
    const value = row.parse(given.text);
    if (value === undefined) throw invalid(given.name, row.expected, found(row, given.text));
    config[row.key] = value;
  }
  refuseUnknown(env, flags, config as unknown as Config);
  return config as unknown as Config;
}

/** Every setting with its value and where it came from, for `doctor`. Does not judge the values. */
export function explainConfig(env: Environment = processEnvironment(), flags: Flags = {}): ResolvedSetting[] {
  const shared = settings.some((row) => row.key === 'mongodbUri' && read(row, env, flags) !== null);
  return settings.map((row) => {
    const given = read(row, env, flags);
    if (given === null) {
      return { setting: row, shown: row.key === 'demo' && shared ? '0' : row.shown, from: 'default' };
    }
    const hidden = row.secret || (row.misfit !== undefined && row.parse(given.text) === undefined);
    return { setting: row, shown: hidden ? '(set)' : (row.show?.(given.text) ?? given.text), from: given.from };
  });
}

/** The database that a MongoDB URI names, else `fullstop`. The URI of several hosts is no URL. */
export function databaseOf(mongodbUri: string): string {
  const name = /^mongodb(?:\+srv)?:\/\/[^/]+\/([^?/]+)/.exec(mongodbUri)?.[1];
  return name === undefined ? 'fullstop' : decodeURIComponent(name);
}

/** Variables with our prefix that are not the server's: other programs of the project read them. */
const otherVariables = ['FULLSTOP_URL', 'FULLSTOP_KEY', 'FULLSTOP_INPUT'];
/** Kubernetes injects these beside a service named `fullstop`. */
const injectedVariable = /^FULLSTOP_(SERVICE_|PORT_\d+_)/;

function refuseUnknown(env: Environment, flags: Flags, { secrets, models }: Config): void {
  const keys = Object.values(models).map(({ apiKey }) => (apiKey === null ? null : variableOf(apiKey)));
  for (const name of Object.keys(env)) {
    if (!name.startsWith('FULLSTOP_') || otherVariables.includes(name) || injectedVariable.test(name)) continue;
    if (settings.some((row) => row.env === name) || keys.includes(name)) continue;
    if (secrets?.kind === 'env' && name.startsWith(secrets.prefix)) continue;
    throw invalid(name, `one of ${settings.map((row) => row.env).join(', ')}`, 'a variable of no meaning');
  }
  for (const [name, value] of Object.entries(flags)) {
    if (value === undefined || settings.some((row) => row.flag === name)) continue;
    throw invalid(`--${name}`, `one of ${settings.map((row) => `--${row.flag}`).join(', ')}`, 'a flag of no meaning');
  }
}

/** An empty variable counts as not set; an empty flag is a value. */
function read(
  row: Setting,
  env: Environment,
  flags: Flags,
): { name: string; text: string; from: 'flag' | 'environment' } | null {
  const flag = flags[row.flag];
  if (flag !== undefined) {
    const values = [...new Set(typeof flag === 'string' ? [flag] : flag)];
    const [text] = values;
    if (values.length > 1 || text === undefined) {
      throw invalid(`--${row.flag}`, 'one value', values.map((value) => found(row, value)).join(' and '));
    }
    return { name: `--${row.flag}`, text, from: 'flag' };
  }
  const text = env[row.env];
  return text === undefined || text === '' ? null : { name: row.env, text, from: 'environment' };
}

const found = (row: Setting, text: string): string =>
  row.secret ? `${text.length} characters` : (row.misfit?.(text) ?? JSON.stringify(text));

function invalid(flag: string, expected: string, what: string): FullstopError {
  return new FullstopError('FS_INVALID', `${flag}: expected ${expected}, found ${what}`, {
    details: { flag, expected, found: what },
  });
}

/** `250ms`, `30s`, `5m`, `2h`, `1d`, or a number of milliseconds; undefined for anything else. */
export function parseDurationMs(text: string): number | undefined {
  return parseDuration(/^\d{1,15}$/.test(text) ? Number(text) : text) ?? undefined;
}

function parseHosts(text: string): string[] | undefined {
  const hosts = text.split(',').map((host) => host.trim().toLowerCase());
  const fits = hosts.every((host) => {
    const match = /^(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::(\d{1,5}))?$/.exec(host);
    return match !== null && (match[1] === undefined || (Number(match[1]) >= 1 && Number(match[1]) <= 65_535));
  });
  return fits ? [...new Set(hosts)] : undefined;
}

function parseOrigins(text: string): string[] | undefined {
  const origins = text.split(',').map((origin) => origin.trim());
  // Exactly as a browser sends it.
  const fits = origins.every(
    (origin) => /^https?:/.test(origin) && URL.canParse(origin) && new URL(origin).origin === origin,
  );
  return fits ? [...new Set(origins)] : undefined;
}

function parseImages(text: string): string[] | undefined {
  const images = text.split(',').map((image) => image.trim());
  return images.every((image) => /^[A-Za-z0-9*][\w.:/@*-]*$/.test(image)) ? [...new Set(images)] : undefined;
}

function parseSecretsSetting(text: string): SecretsSetting | undefined {
  if (text.startsWith('@')) {
    return text.length > 1 && !text.includes('\0') ? { kind: 'file', path: resolve(text.slice(1)) } : undefined;
  }
  const prefix = /^env:([A-Za-z_]\w*)$/.exec(text)?.[1];
  if (prefix === undefined) return undefined;
  // Such as FULLSTOP_: secrets.ADMIN_KEY would be the administrator's key.
  const own = [...settings.map((row) => row.env), ...otherVariables];
  return own.some((name) => name.startsWith(prefix)) ? undefined : { kind: 'env', prefix };
}

/** What a running server leaves in its data directory. */
export interface ServerFile {
  url: string;
  pid: number;
}

const serverFile = (dataDir: string): string => join(dataDir, 'server.json');
const adminKeyFile = (dataDir: string): string => join(dataDir, 'admin.key');

/** Tells the command line on this machine where the server listens. */
export function writeServerFile(dataDir: string, content: ServerFile): void {
  // Where the database is elsewhere and the key given, nobody else needs the directory.
  mkdirSync(dataDir, { recursive: true });
  writeFileSync(serverFile(dataDir), `${JSON.stringify(content)}\n`, { mode: 0o600 });
}

export function removeServerFile(dataDir: string): void {
  rmSync(serverFile(dataDir), { force: true });
}

/** null when no server of this data directory has written one, or what it wrote cannot be read. */
export function readServerFile(dataDir: string): ServerFile | null {
  try {
    const content = JSON.parse(readFileSync(serverFile(dataDir), 'utf8')) as Partial<ServerFile>;
    return typeof content.url === 'string' && typeof content.pid === 'number'
      ? { url: content.url, pid: content.pid }
      : null;
  } catch {
    return null;
  }
}

/** The first admin's key: the configured one, else the one in the data directory, made now if there is none. */
export function loadAdminKey(config: Pick<Config, 'adminKey' | 'dataDir'>): string {
  if (config.adminKey !== null) return config.adminKey;
  const kept = readAdminKey(config.dataDir);
  if (kept !== null) return kept;
  mkdirSync(config.dataDir, { recursive: true });
  const key = `fs_${randomBytes(32).toString('base64url')}`;
  writeFileSync(adminKeyFile(config.dataDir), `${key}\n`, { mode: 0o600, flag: 'wx' });
  return key;
}

/** @throws FS_UNAVAILABLE when there is a key that this user may not read. */
function readAdminKey(dataDir: string): string | null {
  try {
    const key = readFileSync(adminKeyFile(dataDir), 'utf8').trim();
    return key === '' ? null : key;
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT' || (error as { code?: string }).code === 'ENOTDIR') return null;
    throw new FullstopError('FS_UNAVAILABLE', `cannot read ${adminKeyFile(dataDir)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** How the command line, a worker or an agent reaches the server. */
export interface ClientConfig {
  url: string;
  /** Where several were given, with commas: all of them, for workers and agents. */
  urls?: string[];
  urlFrom: 'flag' | 'environment' | 'data directory' | 'default';
  /** null: none is known. */
  key: string | null;
  keyFrom: 'environment' | 'data directory' | null;
}

/**
 * Where the server is and the key for it. `FULLSTOP_URL` and `FULLSTOP_KEY` decide; on the server's machine
 * the data directory knows both. Its key goes to no other machine: only to the URL that the server wrote
 * down, or to loopback.
 *
 * @throws FS_INVALID for a URL that is none.
 */
export function resolveClientConfig(
  env: Environment = processEnvironment(),
  flags: { url?: string; data?: string } = {},
): ClientConfig {
  const dataDir = resolve(flags.data ?? (env.FULLSTOP_DATA || configDefaults.dataDir));
  const written = readServerFile(dataDir);
  const where = resolveUrl(env, flags.url, written);
  if (env.FULLSTOP_KEY) return { ...where, key: env.FULLSTOP_KEY, keyFrom: 'environment' };
  if ((where.urls ?? [where.url]).some((url) => url !== written?.url && !isLoopback(url)))
    return { ...where, key: null, keyFrom: null };
  if (env.FULLSTOP_ADMIN_KEY) return { ...where, key: env.FULLSTOP_ADMIN_KEY, keyFrom: 'environment' };
  let key: string | null = null;
  try {
    key = readAdminKey(dataDir);
  } catch (error) {
    if (!hasCode(error, 'FS_UNAVAILABLE')) throw error;
  }
  return { ...where, key, keyFrom: key === null ? null : 'data directory' };
}

function resolveUrl(
  env: Environment,
  flag: string | undefined,
  written: ServerFile | null,
): Pick<ClientConfig, 'url' | 'urls' | 'urlFrom'> {
  if (flag !== undefined) return { ...checkUrls('--url', flag), urlFrom: 'flag' };
  if (env.FULLSTOP_URL) return { ...checkUrls('FULLSTOP_URL', env.FULLSTOP_URL), urlFrom: 'environment' };
  if (written !== null) return { url: written.url, urlFrom: 'data directory' };
  return { url: `http://127.0.0.1:${configDefaults.port}`, urlFrom: 'default' };
}

function checkUrls(flag: string, text: string): Pick<ClientConfig, 'url' | 'urls'> {
  const urls = text.split(',').map((each) => checkUrl(flag, each.trim()));
  const [url = ''] = urls;
  return urls.length > 1 ? { url, urls } : { url };
}

function checkUrl(flag: string, text: string): string {
  if (!isPlainUrl(text)) throw invalid(flag, 'an address such as http://127.0.0.1:4747', JSON.stringify(text));
  return text.replace(/\/+$/, '');
}

/** HTTP, and nothing behind the port. */
function isPlainUrl(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : null;
  return (
    url !== null &&
    ['http:', 'https:'].includes(url.protocol) &&
    url.username === '' &&
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === ''
  );
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}
