import { access, constants } from 'node:fs/promises';
import type { Health } from '../../client/index.ts';
import { type Config, type Environment, explainConfig, readServerFile, resolveConfig } from '../../config.ts';
import { hasCode, messageOf } from '../../errors.ts';
import { variableOf } from '../../model-settings.ts';
import { type Cli, type CommonOptions, clientConfig, type Define, exit, spell } from '../cli.ts';
import { type Column, count, table } from '../table.ts';
import { paint, plain } from '../terminal.ts';
import { needsOf } from '../worker-process.ts';

/** How long MongoDB may take to be seen. */
const MONGO_MS = 3_000;

interface Check {
  name: string;
  ok: boolean;
  /** What was found, and what to do about it. */
  text: string;
}

type Row = { name: string; value: string; from: string };

const columns: Column<Row>[] = [
  { title: 'SETTING', cell: ({ name }) => name },
  { title: 'VALUE', cell: ({ value }) => value, flex: true },
  { title: 'FROM', cell: ({ from }) => from },
];

export const define: Define = (command, cli) => {
  command.addHelpText('after', `\nExample:\n  ${spell('doctor')}\n\nExit code 1 when something is wrong.`).action(
    cli.action(async (options: CommonOptions) => {
      const { checks, health } = await examine(cli, options);
      const rows = configuration(cli, options);
      const ok = checks.every((check) => check.ok);
      if (options.json) {
        cli.json({ ok, checks, configuration: rows, health });
      } else {
        cli.terminal.out(`${table(cli.terminal, columns, rows)}\n`);
        for (const check of checks) {
          cli.line(
            `${paint(cli.terminal, check.ok ? 'green' : 'red', check.ok ? 'ok     ' : 'trouble')}  ${check.name.padEnd(14)}  ${plain(check.text)}`,
          );
        }
      }
      return ok ? exit.ok : exit.failed;
    }),
  );
};

async function examine(cli: Cli, options: CommonOptions): Promise<{ checks: Check[]; health: Health | null }> {
  const checks: Check[] = [{ name: 'Node.js', ok: true, text: process.version }];
  let config: Config | null = null;
  try {
    config = resolveConfig(cli.terminal.env, options.data === undefined ? {} : { data: options.data });
    checks.push({ name: 'configuration', ok: true, text: 'fits' });
  } catch (error) {
    if (!hasCode(error, 'FS_INVALID')) throw error;
    checks.push({ name: 'configuration', ok: false, text: messageOf(error) });
  }
  if (config !== null) {
    checks.push(await checkDataDirectory(config.dataDir));
    checks.push(...checkModels(config, cli.terminal.env), ...(await checkSecrets(config)));
    checks.push(...(await checkDatabase(config)));
  }
  const { url } = clientConfig(cli.terminal, options);
  let health: Health | null = null;
  try {
    health = await cli.withClient(options, (client) => client.health());
    const { status, message, engine, admissionPaused } = health;
    const detail =
      engine === undefined
        ? ''
        : `, engine ${engine.status}, ${count(engine.executions.running, 'execution')} running${admissionPaused ? ', admission is paused' : ''}`;
    checks.push({ name: 'server', ok: status === 'ok', text: `${url}: ${message ?? status}${detail}` });
    checks.push(...checkMissing(health.missing ?? {}));
  } catch (error) {
    checks.push({ name: 'server', ok: false, text: messageOf(error) });
  }
  return { checks, health };
}

/** Those of several engines. */
async function checkDatabase({ mongodbUri, redisUrl, adminKey }: Config): Promise<Check[]> {
  if (mongodbUri === null) {
    return redisUrl === null
      ? []
      : [{ name: 'REDIS_URL', ok: true, text: 'is not used: it carries what several engines say, with MONGODB_URI' }];
  }
  const { awaitMongo } = await import('../../adapters/mongo/reach.ts');
  const database = await awaitMongo({ uri: mongodbUri, withinMs: MONGO_MS, waiting: () => undefined }).then(
    (): Check => ({ name: 'MongoDB', ok: true, text: 'takes writes' }),
    (error: unknown): Check => ({ name: 'MongoDB', ok: false, text: messageOf(error) }),
  );
  const key = {
    name: 'admin key',
    ok: false,
    text: 'each engine makes its own: set FULLSTOP_ADMIN_KEY to one for all',
  };
  return adminKey === null ? [database, key] : [database];
}

/** Tasks that wait for what nobody here offers wait for ever. */
function checkMissing(missing: Record<string, number>): Check[] {
  return Object.entries(missing).map(([capability, tasks]) => {
    const pool = capability.startsWith('agent:') ? capability.slice('agent:'.length) : null;
    const remedy =
      pool === null
        ? `${spell(`worker --capabilities ${capability}`)}${needsOf(capability)}`
        : spell(`agent --pool ${pool} --allow TOOLS`);
    const waits = tasks === 1 ? 'waits' : 'wait';
    return {
      name: 'workers',
      ok: false,
      text: `${count(tasks, 'task')} ${waits} for ${capability}, which nobody offers: start ${remedy}`,
    };
  });
}

/** Those with a key. */
function checkModels({ models }: Config, env: Environment): Check[] {
  return Object.entries(models).flatMap(([name, { apiKey }]) => {
    if (apiKey === null) return [];
    const variable = variableOf(apiKey);
    const ok = (env[variable] ?? '') !== '';
    return { name: `model ${name}`, ok, text: `its key, ${variable}, ${ok ? 'is set' : 'is not set'}` };
  });
}

async function checkSecrets({ secrets }: Config): Promise<Check[]> {
  if (secrets?.kind !== 'file') return [];
  try {
    await access(secrets.path, constants.R_OK);
    return [{ name: 'secrets', ok: true, text: secrets.path }];
  } catch (error) {
    return [{ name: 'secrets', ok: false, text: `cannot read ${secrets.path}: ${messageOf(error)}` }];
  }
}

async function checkDataDirectory(dataDir: string): Promise<Check> {
  const name = 'data directory';
  try {
    await access(dataDir, constants.R_OK | constants.W_OK);
  } catch (error) {
    const missing = (error as { code?: string }).code === 'ENOENT';
    return {
      name,
      ok: missing,
      text: missing
        ? `${dataDir} does not exist yet: a server makes it`
        : `cannot write ${dataDir}: ${messageOf(error)}`,
    };
  }
  const server = readServerFile(dataDir);
  return { name, ok: true, text: server === null ? dataDir : `${dataDir}, of the server with pid ${server.pid}` };
}

function configuration(cli: Cli, options: CommonOptions): Row[] {
  const rows: Row[] = explainConfig(cli.terminal.env, options.data === undefined ? {} : { data: options.data }).map(
    ({ setting, shown, from }) => ({
      name: setting.env,
      value: shown,
      from,
    }),
  );
  const client = clientConfig(cli.terminal, options);
  rows.push({ name: 'FULLSTOP_URL', value: client.url, from: client.urlFrom });
  rows.push({ name: 'FULLSTOP_KEY', value: client.key === null ? 'none' : '(set)', from: client.keyFrom ?? 'default' });
  return rows;
}
