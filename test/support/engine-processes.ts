/** Several engines in processes of their own, on one database. */
import { randomBytes } from 'node:crypto';
import { type Data, ServerProcess, type ServerProcessOptions, until } from './server-process.ts';

export interface EnginesOptions extends Omit<ServerProcessOptions, 'dataDir' | 'port'> {
  /** Of the database that they share. */
  uri: string;
  count?: number;
}

/** Started engines that know each other, each with its id. */
export class EngineProcesses {
  readonly key = `fs_${randomBytes(24).toString('hex')}`;
  readonly all: ServerProcess[] = [];
  readonly #options: EnginesOptions;

  private constructor(options: EnginesOptions) {
    this.#options = options;
  }

  static async start(options: EnginesOptions): Promise<EngineProcesses> {
    const engines = new EngineProcesses(options);
    try {
      await Promise.all(Array.from({ length: options.count ?? 3 }, () => engines.add()));
      await engines.know();
    } catch (error) {
      await engines.close();
      throw error;
    }
    return engines;
  }

  /** One more, which the others need not know yet. */
  async add(env: Record<string, string> = {}): Promise<ServerProcess> {
    const { uri, env: common = {}, count: _count, ...rest } = this.#options;
    const server = new ServerProcess({
      ...rest,
      env: { MONGODB_URI: uri, FULLSTOP_ADMIN_KEY: this.key, ...common, ...env },
    });
    this.all.push(server);
    return server.start();
  }

  at(index: number): ServerProcess {
    const server = this.all[index];
    if (server === undefined) throw new Error(`there is no engine ${index}`);
    return server;
  }

  /** Resolves when every running engine lists every other, with its address. */
  async know(): Promise<void> {
    const running = this.all.filter((server) => server.running);
    for (const server of running) {
      const urls = async (): Promise<unknown[]> =>
        (await server.ok('GET', '/api/engines')).items.map(({ url }: Data) => url);
      await until('the list of engines', urls, (found) => running.every(({ url }) => found.includes(url)));
    }
  }

  async idOf(server: ServerProcess): Promise<string> {
    return (await server.ok('GET', '/api/health')).engine.id;
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((server) => server.close()));
  }
}
