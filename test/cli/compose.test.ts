import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { databaseOf, resolveConfig } from '../../src/config.ts';

const root = join(import.meta.dirname, '..', '..');

interface Service {
  build?: string;
  image?: string;
  command?: string[];
  environment?: Record<string, string>;
  depends_on?: string[] | Record<string, { condition: string }>;
  ports?: string[];
  volumes?: string[];
}

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
    expect(existsSync(join(root, 'Dockerfile'))).to.equal(true);
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
});
