import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { configDefaults, databaseOf, parseDurationMs, resolveClientConfig, resolveConfig } from '../../src/config.ts';
import { verbs } from '../../src/server/verbs/table.ts';

const root = join(import.meta.dirname, '..', '..');

interface Service {
  build?: string;
  image?: string;
  command?: string[];
  environment?: Record<string, string>;
  depends_on?: string[] | Record<string, { condition: string }>;
  ports?: string[];
  volumes?: string[];
  healthcheck?: { test: string[] };
  restart?: string;
  stop_grace_period?: string;
}

const packageJson = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

/** No container engine is needed to see whether the file says what the configuration takes. */
describe('compose.yaml', () => {
  const { services, volumes } = parse(readFileSync(join(root, 'compose.yaml'), 'utf8'), { merge: true }) as {
    services: Record<string, Service>;
    volumes: Record<string, unknown>;
  };
  const engines = Object.entries(services).filter(([name]) => name.startsWith('engine-'));
  const key = { FULLSTOP_ADMIN_KEY: 'fs_0123456789abcdef' };

  it('has three members of a replica set, three engines and a worker', () => {
    expect(Object.keys(services)).to.have.members([
      'mongo-1',
      'mongo-2',
      'mongo-3',
      'mongo-init',
      'engine-1',
      'engine-2',
      'engine-3',
      'worker',
    ]);
  });

  it('builds one image, which all engines and the worker run', () => {
    const own = Object.entries(services).filter(([name]) => !name.startsWith('mongo-'));
    expect(own.filter(([, { build }]) => build === '.')).to.have.length(1);
    expect(new Set(own.map(([, { image }]) => image)).size).to.equal(1);
  });

  it('names no service and no volume that is not there', () => {
    for (const [name, service] of Object.entries(services)) {
      const needed = Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {});
      expect(Object.keys(services), name).to.include.members(needed);
      for (const volume of service.volumes ?? []) expect(volumes).to.have.property(volume.split(':')[0] as string);
    }
  });

  it('configures engines as a server takes it, all on one database, each with an address of its own', () => {
    const configs = engines.map(([, { environment }]) => resolveConfig({ ...environment, ...key }));
    expect(new Set(configs.map(({ mongodbUri }) => mongodbUri)).size).to.equal(1);
    expect(new Set(configs.map(({ advertisedUrl }) => advertisedUrl)).size).to.equal(3);
    for (const { mongodbUri, host } of configs) {
      expect(databaseOf(mongodbUri as string)).to.equal('fullstop');
      for (const member of ['mongo-1', 'mongo-2', 'mongo-3']) expect(mongodbUri).to.contain(member);
      expect(mongodbUri).to.contain('replicaSet=rs0');
      expect(host).to.equal('0.0.0.0');
    }
    for (const [, { environment, ports }] of engines) {
      expect(environment?.FULLSTOP_ADMIN_KEY).to.match(/^\$\{FULLSTOP_ADMIN_KEY:\?/);
      expect(ports?.[0]).to.equal(`127.0.0.1:${new URL(environment?.FULLSTOP_ADVERTISED_URL as string).port}:4747`);
    }
  });

  it('lets an engine that was drained end for good, and gives it the time for it', () => {
    for (const [name, { restart, stop_grace_period: grace = '10s' }] of engines) {
      expect(restart, name).to.equal('on-failure');
      // What is handed over beside that takes less than ten seconds.
      expect(parseDurationMs(grace), name).to.be.at.least(configDefaults.drainMs + 10_000);
    }
  });

  it('configures the worker as it takes it, for all engines', () => {
    const environment = { ...services.worker?.environment };
    expect(() => resolveConfig(environment)).not.to.throw();
    expect(environment.FULLSTOP_KEY).to.match(/^\$\{FULLSTOP_ADMIN_KEY:\?/);
    const { urls } = resolveClientConfig(environment);
    expect(urls).to.have.members(engines.map(([name]) => `http://${name}:${configDefaults.port}`));
  });

  it('asks an engine for its health in a way that tells whether it takes work', async () => {
    const [how, command, ...args] = engines[0]?.[1].healthcheck?.test ?? [];
    expect([how, command]).to.deep.equal(['CMD', 'node']);
    expect(args.join(''), 'Podman 4 cuts at spaces').not.to.match(/\s/);
    let status = 200;
    const asked: (string | undefined)[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url);
      response.writeHead(status).end();
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const here = args.map((arg) => arg.replace(`127.0.0.1:${configDefaults.port}/`, `127.0.0.1:${port}/`));
    const ask = async (): Promise<unknown> =>
      (await once(spawn(process.execPath, here, { stdio: 'ignore' }), 'exit'))[0];
    try {
      expect(await ask()).to.equal(0);
      status = 503;
      expect(await ask()).to.equal(1);
    } finally {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    }
    expect(await ask()).to.equal(1);
    const { path } = verbs.find(({ name }) => name === 'health')?.http ?? {};
    expect(asked).to.deep.equal([path, path]);
    for (const [, { healthcheck }] of engines) expect(healthcheck).to.deep.equal(engines[0]?.[1].healthcheck);
  });
});

describe('Dockerfile', () => {
  const instructions = readFileSync(join(root, 'Dockerfile'), 'utf8')
    .split('\n')
    .filter((line) => /^[A-Z]+ /.test(line));
  const last = instructions.slice(instructions.findLastIndex((line) => line.startsWith('FROM ')));
  const only = (name: string): string => {
    const found = last.filter((line) => line.startsWith(`${name} `));
    expect(found, name).to.have.length(1);
    return (found[0] as string).slice(name.length + 1);
  };

  it('runs the command of the package on the Node.js that it needs, and not as root', () => {
    const [major] = /\d+/.exec(packageJson.engines.node) ?? [];
    expect(instructions[0]).to.equal(`ARG NODE_IMAGE=node:${major}-slim`);
    expect(only('USER')).to.equal('node');
    const [command] = JSON.parse(only('ENTRYPOINT'));
    expect(last).to.include(
      `RUN ln -s ../lib/node_modules/${packageJson.name}/${packageJson.bin[command]} /usr/local/bin/${command}`,
    );
    expect(JSON.parse(only('CMD'))).to.deep.equal(['serve']);
    expect(only('EXPOSE')).to.equal(String(configDefaults.port));
  });

  it('ends by itself before `docker stop` kills it after ten seconds', () => {
    const env = last.filter((line) => line.startsWith('ENV ')).map((line) => line.slice('ENV '.length).split('='));
    expect(resolveConfig(Object.fromEntries(env)).drainMs).to.be.within(1_000, 8_000);
  });

  it('installs what the lock file says, and leaves out what only building needs', () => {
    const installs = instructions.filter((line) => /^RUN .*\bnpm (ci|i|install|add)\b/.test(line));
    for (const line of installs) expect(line).to.match(/^RUN npm ci --ignore-scripts /);
    expect(installs.filter((line) => line.endsWith(' --omit=dev'))).to.have.length(1);
    const copied = last.filter(
      (line) => line.startsWith('COPY ') && line.includes('node_modules/fullstop/node_modules'),
    );
    expect(copied).to.have.length(1);
    expect(copied[0]).to.match(/^COPY --from=dependencies /);
  });
});
