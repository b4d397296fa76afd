import type { Connection } from './connection.ts';

/** What pushes this client hears: of its readers of one room, the last to leave tells the server. */
export class Rooms {
  readonly #connection: Connection;
  readonly #members = new Map<string, number>();

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Asks for the events of `id` from `from` on, and its receipts. Every join is followed by one `leave`, a
   * failed one too.
   */
  async join(id: string, from: number, signal?: AbortSignal): Promise<void> {
    this.#enter(`execution:${id}`);
    await this.#connection.call('execution.subscribe', { id, from }, signal);
  }

  leave(id: string): void {
    if (this.#exit(`execution:${id}`)) this.#connection.call('execution.unsubscribe', { id }).catch(() => {});
  }

  /** Asks for the changes of executions of one project, or of all that the key sees. */
  async joinProject(query: { project?: string }, signal?: AbortSignal): Promise<void> {
    this.#enter(`project:${query.project ?? ''}`);
    await this.#connection.call('executions.subscribe', query, signal);
  }

  leaveProject(query: { project?: string }): void {
    if (this.#exit(`project:${query.project ?? ''}`))
      this.#connection.call('executions.unsubscribe', query).catch(() => {});
  }

  #enter(room: string): void {
    this.#members.set(room, (this.#members.get(room) ?? 0) + 1);
  }

  /** True when nobody is left and the server can be told. A lost message costs pushes that nobody reads. */
  #exit(room: string): boolean {
    const left = (this.#members.get(room) ?? 1) - 1;
    if (left > 0) this.#members.set(room, left);
    else this.#members.delete(room);
    return left <= 0 && this.#connection.connected;
  }
}
