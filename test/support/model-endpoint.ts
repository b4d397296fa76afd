/** An OpenAI-compatible service that ai nodes of the tests ask. What it does is in the prompt. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { until } from './server-process.ts';

export interface ModelCall {
  prompt: string;
  /** A first piece of the answer is out. */
  said: boolean;
  /** null: it is open. `aborted`: the caller went away first. */
  end: 'answered' | 'aborted' | null;
  /** Of `performance.now`. */
  endedAtMs: number | null;
}

export class ModelEndpoint {
  readonly #calls: ModelCall[] = [];
  /** The Authorization headers it has seen. */
  readonly keys = new Set<string>();
  readonly #server: Server;

  private constructor() {
    this.#server = createServer((request, response) => void this.#arrived(request, response));
  }

  static async start(): Promise<ModelEndpoint> {
    const endpoint = new ModelEndpoint();
    endpoint.#server.listen(0, '127.0.0.1');
    await once(endpoint.#server, 'listening');
    return endpoint;
  }

  /** As `baseURL` of a model. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/v1`;
  }

  calls(prompt: string): number {
    return this.#calls.filter((call) => call.prompt === prompt).length;
  }

  /** Resolves with the first call of that prompt as soon as `fits` holds. */
  async asked(prompt: string, fits: (call: ModelCall) => boolean = () => true): Promise<ModelCall> {
    const call = await until(
      `the call of "${prompt}"`,
      async () => this.#calls.find((one) => one.prompt === prompt),
      (one) => one !== undefined && fits(one),
    );
    return call as ModelCall;
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #arrived(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = JSON.parse(Buffer.concat(chunks).toString());
    this.keys.add(request.headers.authorization ?? '');
    const call: ModelCall = { prompt: body.messages.at(-1).content, said: false, end: null, endedAtMs: null };
    response.once('close', () => {
      call.end = response.writableFinished ? 'answered' : 'aborted';
      call.endedAtMs = performance.now();
    });
    this.#calls.push(call);
    const say = (delta: object, finish: string | null): void => {
      const choices = [{ index: 0, delta, finish_reason: finish }];
      response.write(`data: ${JSON.stringify({ id: 'c', model: 'm', created: 1, choices })}\n\n`);
      call.said = true;
    };
    const [verb, ...rest] = call.prompt.split(' ');
    switch (verb) {
      /** Not a byte comes. */
      case 'silent':
        break;
      case 'refuse':
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end('{"error": {"message": "no"}}');
        break;
      /** Stays open in the middle of an answer. */
      case 'park':
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        say({ content: 'Well' }, null);
        break;
      /** Answers with the words after it. */
      default:
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        say({ content: rest.join(' ') }, null);
        say({}, 'stop');
        response.end('data: [DONE]\n\n');
    }
  }
}
