import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'chai';
import {
  type Config,
  configDefaults,
  databaseOf,
  explainConfig,
  type Flags,
  loadAdminKey,
  parseDurationMs,
  readServerFile,
  removeServerFile,
  resolveClientConfig,
  resolveConfig,
  settings,
  writeServerFile,
} from '../../src/config.ts';

function fault(run: () => unknown): {
  code: string;
  message: string;
  details: { flag: string; expected: string; found: string };
} {
  try {
    run();
  } catch (error) {
    return error as never;
  }
  throw new Error('expected a throw');
}

const DAY_MS = 86_400_000;

describe('configuration', () => {
  it('has the defaults of the reference', () => {
    expect(resolveConfig({}, {})).to.deep.equal({
      host: '127.0.0.1',
      port: 4747,
      dataDir: resolve('./data'),
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
      retentionMs: 30 * DAY_MS,
      inspect: true,
      inspectOrigins: [],
      logLevel: 'info',
    });
  });

  const accepted: [env: string, flag: string, text: string, key: keyof Config, value: unknown][] = [
    ['FULLSTOP_HOST', 'host', '0.0.0.0', 'host', '0.0.0.0'],
    ['FULLSTOP_HOST', 'host', '::1', 'host', '::1'],
    ['FULLSTOP_HOST', 'host', 'localhost', 'host', 'localhost'],
    ['FULLSTOP_PORT', 'port', '0', 'port', 0],
    ['FULLSTOP_PORT', 'port', '65535', 'port', 65_535],
    ['FULLSTOP_DATA', 'data', 'elsewhere', 'dataDir', resolve('elsewhere')],
    [
      'MONGODB_URI',
      'mongodb-uri',
      'mongodb://u:p@a:1,b:2/fs?replicaSet=rs',
      'mongodbUri',
      'mongodb://u:p@a:1,b:2/fs?replicaSet=rs',
    ],
    ['MONGODB_URI', 'mongodb-uri', 'mongodb+srv://cluster.example', 'mongodbUri', 'mongodb+srv://cluster.example'],
    [
      'REDIS_URL',
      'redis-url',
      'rediss://user:pass@cache.example:6380/1',
      'redisUrl',
      'rediss://user:pass@cache.example:6380/1',
    ],
    ['FULLSTOP_ADVERTISED_URL', 'advertised-url', 'https://one.example/', 'advertisedUrl', 'https://one.example'],
    ['FULLSTOP_ADMIN_KEY', 'admin-key', 'fs_0123456789abcdef', 'adminKey', 'fs_0123456789abcdef'],
    ['FULLSTOP_DEMO', 'demo', '0', 'demo', false],
    ['FULLSTOP_DEMO', 'demo', '1', 'demo', true],
    [
      'FULLSTOP_HTTP_ALLOW',
      'http-allow',
      'Intranet.example, 10.0.0.5:8080,[::1]:80',
      'httpAllow',
      ['intranet.example', '10.0.0.5:8080', '[::1]:80'],
    ],
    ['FULLSTOP_SLOTS', 'slots', '0', 'slots', 0],
    ['DOCKER_HOST', 'docker-host', 'unix:///run/docker.sock', 'dockerHost', 'unix:///run/docker.sock'],
    ['DOCKER_HOST', 'docker-host', 'tcp://10.0.0.5:2375', 'dockerHost', 'tcp://10.0.0.5:2375'],
    [
      'FULLSTOP_IMAGES',
      'images',
      'alpine:3.20, registry.example:5000/team/*,busybox@sha256:0a',
      'images',
      ['alpine:3.20', 'registry.example:5000/team/*', 'busybox@sha256:0a'],
    ],
    ['FULLSTOP_MODELS', 'models', '{}', 'models', {}],
    [
      'FULLSTOP_MODELS',
      'models',
      '{"a": {"baseURL": "http://x/v1", "model": "m"}, "b": {"baseURL": "https://y", "model": "n", "apiKey": "env:K"}}',
      'models',
      {
        a: { baseURL: 'http://x/v1', model: 'm', apiKey: null },
        b: { baseURL: 'https://y', model: 'n', apiKey: 'env:K' },
      },
    ],
    ['FULLSTOP_SECRETS', 'secrets', 'env:APP_', 'secrets', { kind: 'env', prefix: 'APP_' }],
    ['FULLSTOP_SECRETS', 'secrets', 'env:FULLSTOP_SECRET_', 'secrets', { kind: 'env', prefix: 'FULLSTOP_SECRET_' }],
    ['FULLSTOP_SECRETS', 'secrets', '@some/file', 'secrets', { kind: 'file', path: resolve('some/file') }],
    ['FULLSTOP_DRAIN_MS', 'drain-ms', '0', 'drainMs', 0],
    ['FULLSTOP_MAX_RUNNING', 'max-running', '1', 'maxRunning', 1],
    ['FULLSTOP_INSPECT', 'inspect', '0', 'inspect', false],
    ['FULLSTOP_INSPECT', 'inspect', '1', 'inspect', true],
    [
      'FULLSTOP_INSPECT_ORIGINS',
      'inspect-origins',
      'https://stately.ai, http://localhost:5173',
      'inspectOrigins',
      ['https://stately.ai', 'http://localhost:5173'],
    ],
    ['FULLSTOP_RETENTION', 'retention', '12h', 'retentionMs', DAY_MS / 2],
    ['FULLSTOP_RETENTION', 'retention', '0', 'retentionMs', 0],
    ['FULLSTOP_LOG', 'log', 'silent', 'logLevel', 'silent'],
  ];
  for (const [env, flag, text, key, value] of accepted) {
    it(`takes ${env}=${text} and --${flag} alike`, () => {
      const expected = { ...resolveConfig({}, {}), ...(key === 'mongodbUri' ? { demo: false } : {}), [key]: value };
      expect(resolveConfig({ [env]: text }, {})).to.deep.equal(expected);
      expect(resolveConfig({}, { [flag]: text })).to.deep.equal(expected);
    });
  }

  const refused: [env: string, flag: string, text: string][] = [
    ['FULLSTOP_HOST', 'host', 'http://127.0.0.1'],
    ['FULLSTOP_HOST', 'host', 'a b'],
    ['FULLSTOP_PORT', 'port', '65536'],
    ['FULLSTOP_PORT', 'port', '-1'],
    ['FULLSTOP_PORT', 'port', '80.5'],
    ['FULLSTOP_PORT', 'port', '0x50'],
    ['FULLSTOP_DATA', 'data', 'a\0b'],
    ['MONGODB_URI', 'mongodb-uri', 'localhost:27017'],
    ['MONGODB_URI', 'mongodb-uri', 'mongodb:///fullstop'],
    ['MONGODB_URI', 'mongodb-uri', 'mongodb://a b'],
    ['REDIS_URL', 'redis-url', 'localhost:6379'],
    ['REDIS_URL', 'redis-url', 'http://localhost'],
    ['FULLSTOP_ADVERTISED_URL', 'advertised-url', 'engine-1:4747'],
    ['FULLSTOP_ADVERTISED_URL', 'advertised-url', 'https://one.example/path'],
    ['FULLSTOP_ADMIN_KEY', 'admin-key', 'short'],
    ['FULLSTOP_ADMIN_KEY', 'admin-key', 'long enough, but with spaces'],
    ['FULLSTOP_DEMO', 'demo', 'yes'],
    ['FULLSTOP_HTTP_ALLOW', 'http-allow', 'http://intranet'],
    ['FULLSTOP_HTTP_ALLOW', 'http-allow', 'a,,b'],
    ['FULLSTOP_HTTP_ALLOW', 'http-allow', 'a:0'],
    ['FULLSTOP_HTTP_ALLOW', 'http-allow', '*'],
    ['FULLSTOP_SLOTS', 'slots', '-1'],
    ['DOCKER_HOST', 'docker-host', '/run/docker.sock'],
    ['DOCKER_HOST', 'docker-host', 'ftp://x'],
    ['FULLSTOP_IMAGES', 'images', 'a,,b'],
    ['FULLSTOP_IMAGES', 'images', 'a b'],
    ['FULLSTOP_MODELS', 'models', '{'],
    ['FULLSTOP_MODELS', 'models', '[]'],
    ['FULLSTOP_MODELS', 'models', '@no/such/file'],
    ['FULLSTOP_MODELS', 'models', '{"a": {"baseURL": "x", "model": "m"}}'],
    ['FULLSTOP_MODELS', 'models', '{"a": {"baseURL": "http://x"}}'],
    ['FULLSTOP_MODELS', 'models', '{"a": {"baseURL": "http://u:p@x", "model": "m"}}'],
    ['FULLSTOP_MODELS', 'models', '{"a": {"baseURL": "http://x", "model": "m", "apiKey": "sk-0123456789"}}'],
    ['FULLSTOP_MODELS', 'models', '{"a": {"baseURL": "http://x", "model": "m", "key": "env:K"}}'],
    ['FULLSTOP_MODELS', 'models', '{"a b": {"baseURL": "http://x", "model": "m"}}'],
    ['FULLSTOP_SECRETS', 'secrets', 'env:'],
    ['FULLSTOP_SECRETS', 'secrets', 'env:FULLSTOP_'],
    ['FULLSTOP_SECRETS', 'secrets', 'env:F'],
    ['FULLSTOP_SECRETS', 'secrets', '@'],
    ['FULLSTOP_SECRETS', 'secrets', 'hunter2'],
    ['FULLSTOP_DRAIN_MS', 'drain-ms', '10s'],
    ['FULLSTOP_MAX_RUNNING', 'max-running', '0'],
    ['FULLSTOP_INSPECT', 'inspect', 'no'],
    ['FULLSTOP_INSPECT_ORIGINS', 'inspect-origins', '*'],
    ['FULLSTOP_INSPECT_ORIGINS', 'inspect-origins', 'null'],
    ['FULLSTOP_INSPECT_ORIGINS', 'inspect-origins', 'stately.ai'],
    ['FULLSTOP_INSPECT_ORIGINS', 'inspect-origins', 'https://stately.ai/'],
    ['FULLSTOP_INSPECT_ORIGINS', 'inspect-origins', 'https://stately.ai,,'],
    ['FULLSTOP_RETENTION', 'retention', '30 days'],
    ['FULLSTOP_RETENTION', 'retention', '99999999d'],
    ['FULLSTOP_LOG', 'log', 'verbose'],
  ];
  for (const [env, flag, text] of refused) {
    it(`refuses ${env}=${JSON.stringify(text)} and --${flag} alike`, () => {
      for (const [name, run] of [
        [env, () => resolveConfig({ [env]: text }, {})],
        [`--${flag}`, () => resolveConfig({}, { [flag]: text })],
      ] as const) {
        const error = fault(run);
        expect(error.code).to.equal('FS_INVALID');
        expect(error.details.flag).to.equal(name);
        expect(error.message).to.equal(`${name}: expected ${error.details.expected}, found ${error.details.found}`);
      }
    });
  }

  it('has a row here that is taken and one that is refused for each setting', () => {
    expect([...new Set(accepted.map(([env]) => env))]).to.have.members(settings.map(({ env }) => env));
    expect([...new Set(refused.map(([env]) => env))]).to.have.members(settings.map(({ env }) => env));
    expect(settings.map(({ key }) => key)).to.have.members(Object.keys(configDefaults));
  });

  it('lets a flag win over the environment, and counts an empty variable as not set', () => {
    expect(resolveConfig({ FULLSTOP_PORT: '1' }, { port: '2' }).port).to.equal(2);
    expect(resolveConfig({ FULLSTOP_PORT: '' }, {}).port).to.equal(4747);
  });

  it('refuses a flag that is given twice with different values', () => {
    const flags: Flags = { port: ['1', '2'] };
    expect(fault(() => resolveConfig({}, flags)).message).to.equal('--port: expected one value, found "1" and "2"');
    expect(resolveConfig({}, { port: ['1', '1'] }).port).to.equal(1);
  });

  it('refuses names that mean nothing, but not those of other programs', () => {
    expect(fault(() => resolveConfig({ FULLSTOP_RETENTON: '1d' }, {})).details.flag).to.equal('FULLSTOP_RETENTON');
    expect(fault(() => resolveConfig({}, { prot: '1' })).details.flag).to.equal('--prot');
    resolveConfig(
      {
        FULLSTOP_URL: 'x',
        FULLSTOP_KEY: 'y',
        FULLSTOP_SERVICE_HOST: '10.0.0.1',
        FULLSTOP_PORT_4747_TCP: 'tcp://10.0.0.1:4747',
        PATH: '/bin',
      },
      {},
    );
  });

  it('never shows a secret', () => {
    for (const name of ['FULLSTOP_ADMIN_KEY', 'MONGODB_URI', 'REDIS_URL']) {
      const env = { [name]: 'short secret' };
      expect(fault(() => resolveConfig(env, {})).message, name).to.not.contain('secret');
      expect(JSON.stringify(explainConfig(env, {})), name).to.not.contain('short secret');
    }
    const uri = 'mongodb://u:hunter2@a';
    expect(JSON.stringify(explainConfig({ MONGODB_URI: uri }, {}).map(({ shown }) => shown))).to.not.contain('hunter2');
  });

  it('never shows a key that stands where its name should, or a secret in place of its source', () => {
    const rows = [
      ['FULLSTOP_MODELS', '{"a": {"baseURL": "http://x", "model": "m", "apiKey": "sk-hunter2"}}'],
      ['FULLSTOP_MODELS', '{"a": sk-hunter2}'],
      ['FULLSTOP_MODELS', '{"a": {"baseURL": "http://u:sk-hunter2@x", "model": "m"}}'],
      ['FULLSTOP_SECRETS', 'sk-hunter2'],
      ['DOCKER_HOST', 'sk-hunter2'],
      ['DOCKER_HOST', 'ssh://u:sk-hunter2@x'],
    ] as const;
    for (const [name, text] of rows) {
      const env = { [name]: text };
      if (!text.startsWith('ssh:')) expect(fault(() => resolveConfig(env, {})).message, text).to.not.contain('hunter2');
      expect(JSON.stringify(explainConfig(env, {}).map(({ shown }) => shown)), text).to.not.contain('hunter2');
    }
  });

  it('shows the names and places of models', () => {
    const text = '{"a": {"baseURL": "http://x/v1", "model": "m", "apiKey": "env:K"}}';
    const row = explainConfig({ FULLSTOP_MODELS: text }, {}).find(({ setting }) => setting.key === 'models');
    expect(row?.shown).to.equal('a: m at http://x/v1');
  });

  it('reads models from a file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'fullstop-config-'));
    const file = join(directory, 'models.json');
    writeFileSync(file, '{"a": {"baseURL": "http://x", "model": "m"}}');
    expect(resolveConfig({ FULLSTOP_MODELS: `@${file}` }, {}).models).to.have.property('a');
    rmSync(directory, { recursive: true });
  });

  it('takes variables of this prefix that the configuration itself names', () => {
    const models = '{"a": {"baseURL": "http://x", "model": "m", "apiKey": "env:FULLSTOP_MODEL_KEY"}}';
    const env = { FULLSTOP_MODEL_KEY: 'x', FULLSTOP_SECRET_TOKEN: 'y' };
    expect(fault(() => resolveConfig(env, {})).details.flag).to.equal('FULLSTOP_MODEL_KEY');
    resolveConfig({ ...env, FULLSTOP_MODELS: models, FULLSTOP_SECRETS: 'env:FULLSTOP_SECRET_' }, {});
  });

  it('leaves the demonstration out of a database that engines share, unless it is asked for', () => {
    const env = { MONGODB_URI: 'mongodb://a' };
    expect(resolveConfig(env, {}).demo).to.equal(false);
    expect(explainConfig(env, {}).find(({ setting }) => setting.key === 'demo')?.shown).to.equal('0');
    expect(resolveConfig({ ...env, FULLSTOP_DEMO: '1' }, {}).demo).to.equal(true);
  });

  it('takes the database from the URI', () => {
    const names = [
      'mongodb://a',
      'mongodb://a/',
      'mongodb://a:1,b:2/?replicaSet=x',
      'mongodb://u:p@a:1,b:2/my%20db?x=y',
    ];
    expect(names.map(databaseOf)).to.deep.equal(['fullstop', 'fullstop', 'fullstop', 'my db']);
  });

  it('says where each value came from', () => {
    const from = Object.fromEntries(
      explainConfig({ FULLSTOP_PORT: '1' }, { host: '::1' }).map((row) => [row.setting.flag, [row.shown, row.from]]),
    );
    expect(from).to.deep.include({ port: ['1', 'environment'], host: ['::1', 'flag'], log: ['info', 'default'] });
  });

  it('shows as default what the default is', () => {
    for (const row of settings) {
      if (configDefaults[row.key] === null || ['httpAllow', 'images', 'models', 'inspectOrigins'].includes(row.key))
        continue;
      const value = row.key === 'dataDir' ? resolve(configDefaults.dataDir) : configDefaults[row.key];
      expect(row.parse(row.shown), row.env).to.deep.equal(value);
    }
  });

  it('reads durations', () => {
    expect(['250ms', '30s', '5m', '2h', '1d', '1500', '', '5 m', '-1s', '1w'].map(parseDurationMs)).to.deep.equal([
      250,
      30_000,
      300_000,
      7_200_000,
      DAY_MS,
      1_500,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });

  describe('data directory', () => {
    let data: string;
    beforeEach(() => {
      data = mkdtempSync(join(tmpdir(), 'fullstop-config-'));
    });
    afterEach(() => rmSync(data, { recursive: true }));

    it('keeps the generated admin key for its owner alone, and gives it again', () => {
      const dataDir = join(data, 'new', 'directory');
      const key = loadAdminKey({ adminKey: null, dataDir });
      expect(key).to.match(/^fs_[\w-]{43}$/);
      expect(statSync(join(dataDir, 'admin.key')).mode & 0o777).to.equal(0o600);
      expect(loadAdminKey({ adminKey: null, dataDir })).to.equal(key);
      expect(loadAdminKey({ adminKey: 'fs_configured', dataDir })).to.equal('fs_configured');
    });

    it('tells the command line where the server listens and with which key', () => {
      const env = { FULLSTOP_DATA: data };
      expect(resolveClientConfig(env)).to.deep.equal({
        url: 'http://127.0.0.1:4747',
        urlFrom: 'default',
        key: null,
        keyFrom: null,
      });
      writeServerFile(data, { url: 'http://127.0.0.1:5000', pid: 1 });
      const key = loadAdminKey({ adminKey: null, dataDir: data });
      expect(resolveClientConfig(env)).to.deep.equal({
        url: 'http://127.0.0.1:5000',
        urlFrom: 'data directory',
        key,
        keyFrom: 'data directory',
      });
      expect(resolveClientConfig({}, { data })).to.include({ url: 'http://127.0.0.1:5000', key });
      removeServerFile(data);
      expect(readServerFile(data)).to.equal(null);
    });

    it('is made for server.json, where the database and the key are elsewhere', () => {
      const dataDir = join(data, 'new', 'directory');
      writeServerFile(dataDir, { url: 'http://127.0.0.1:5000', pid: 1 });
      expect(readServerFile(dataDir)).to.deep.equal({ url: 'http://127.0.0.1:5000', pid: 1 });
      expect(statSync(join(dataDir, 'server.json')).mode & 0o777).to.equal(0o600);
    });

    it('is not believed when server.json is damaged', () => {
      writeFileSync(join(data, 'server.json'), '{"url": 1');
      expect(resolveClientConfig({ FULLSTOP_DATA: data }).urlFrom).to.equal('default');
    });

    it('gives its key to no other machine', () => {
      loadAdminKey({ adminKey: null, dataDir: data });
      const env = { FULLSTOP_DATA: data, FULLSTOP_ADMIN_KEY: 'fs_0123456789abcdef' };
      expect(resolveClientConfig({ ...env, FULLSTOP_URL: 'https://elsewhere.example' })).to.include({
        key: null,
        keyFrom: null,
      });
      expect(resolveClientConfig({ ...env, FULLSTOP_URL: 'http://127.0.0.1.elsewhere.example' }).key).to.equal(null);
      expect(resolveClientConfig({ ...env, FULLSTOP_URL: 'http://localhost:4747' }).key).to.equal(
        'fs_0123456789abcdef',
      );
      expect(resolveClientConfig({ FULLSTOP_DATA: data, FULLSTOP_URL: 'http://[::1]:4747' }).key).to.equal(
        readFileSync(join(data, 'admin.key'), 'utf8').trim(),
      );
    });

    it('takes several addresses, and keeps its key from all where one is another machine', () => {
      const env = {
        FULLSTOP_DATA: data,
        FULLSTOP_ADMIN_KEY: 'fs_0123456789abcdef',
        FULLSTOP_URL: 'http://localhost:1/, http://127.0.0.1:2',
      };
      const urls = ['http://localhost:1', 'http://127.0.0.1:2'];
      expect(resolveClientConfig(env)).to.deep.include({ url: urls[0], urls });
      expect(resolveClientConfig(env).key).not.to.equal(null);
      expect(resolveClientConfig({ ...env, FULLSTOP_URL: `${urls[0]},https://elsewhere.example` }).key).to.equal(null);
      expect(fault(() => resolveClientConfig({ FULLSTOP_URL: `${urls[0]},` }))).to.include({ code: 'FS_INVALID' });
    });

    it('comes after FULLSTOP_URL and FULLSTOP_KEY', () => {
      writeServerFile(data, { url: 'http://127.0.0.1:5000', pid: 1 });
      const env = { FULLSTOP_DATA: data, FULLSTOP_URL: 'https://elsewhere.example/', FULLSTOP_KEY: 'fs_mine' };
      expect(resolveClientConfig(env)).to.deep.equal({
        url: 'https://elsewhere.example',
        urlFrom: 'environment',
        key: 'fs_mine',
        keyFrom: 'environment',
      });
      expect(resolveClientConfig(env, { url: 'http://flag.example' })).to.include({
        url: 'http://flag.example',
        urlFrom: 'flag',
      });
    });
  });

  for (const url of ['elsewhere', 'ftp://a', 'http://user@a', 'http://a/path', 'http://a?b', '/tmp']) {
    it(`refuses ${url} as the address of a server`, () => {
      expect(fault(() => resolveClientConfig({ FULLSTOP_URL: url }))).to.include({ code: 'FS_INVALID' });
    });
  }
});
