/** Between a store and a server: cuts the connection when a command passes, before or after the server has done it. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, Socket } from 'node:net';

export class LosingProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #plan: { command: string; when: 'before' | 'after'; left: number } | null = null;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(target: { host: string; port: number }): Promise<LosingProxy> {
    const server = createServer((client) => proxy.#join(client, target));
    const proxy = new LosingProxy(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return proxy;
  }

  get uri(): string {
    return `mongodb://127.0.0.1:${(this.#server.address() as AddressInfo).port}/?directConnection=true`;
  }

  /** The next `times` commands of this name lose their connection. */
  lose(command: string, when: 'before' | 'after', times = 1): void {
    this.#plan = { command, when, left: times };
  }

  /** How many are still to be lost. */
  get left(): number {
    return this.#plan?.left ?? 0;
  }

  #join(client: Socket, target: { host: string; port: number }): void {
    const server = new Socket().connect(target);
    const end = (): void => {
      client.destroy();
      server.destroy();
      this.#sockets.delete(client);
      this.#sockets.delete(server);
    };
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.on('error', end).on('close', end);
    }
    let answersLost = false;
    client.on('data', (chunk) => {
      const plan = this.#plan;
      // The name of a command is the first field of its document: a string, or a number as in `commitTransaction`.
      const names = plan === null ? [] : [`\u0002${plan.command}\u0000`, `\u0010${plan.command}\u0000`];
      if (plan !== null && plan.left > 0 && names.some((name) => chunk.includes(name))) {
        plan.left -= 1;
        if (plan.when === 'before') return end();
        answersLost = true;
      }
      server.write(chunk);
    });
    server.on('data', (chunk) => {
      if (answersLost) end();
      else client.write(chunk);
    });
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
