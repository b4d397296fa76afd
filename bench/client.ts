/**
 * A client of the public API that costs little: it shares the machine with the server it measures.
 *
 * Starts and pushes go over one Socket.IO connection whose frames are read as text; everything else over HTTP.
 */
import { Pool } from 'undici';
import type { EngineItem, ExecutionEvent, ExecutionRecord, Json, Results, WorkflowSaved } from '../src/wire.ts';

const CONNECTIONS = 32;
const EVENTS_PAGE = 1_000;
/** Without an end for so long, a figure is given up. */
const STALLED_MS = 30_000;

/** Engine.IO and Socket.IO packet types, as they begin a frame. */
const OPENED = '0';
const PING = '2';
const PONG = '3';
const CONNECTED = '40';
const REFUSED = '44';
const CHANGED = '42["execution.changed",';
const ACK = '43';

export type Definition = { name: string } & { [key: string]: Json };

interface Waiting {
  resolve: (answer: string) => void;
  reject: (error: Error) => void;
}

export class BenchClient {
  readonly #url: string;
  readonly #key: string;
  readonly #pool: Pool;
  #socket: WebSocket | null = null;
  #nextAck = 0;
  readonly #waiting = new Map<string, Waiting>();
  #ended: (id: string) => void = () => {};

  constructor({ url, key }: { url: string; key: string }) {
    this.#url = url;
    this.#key = key;
    this.#pool = new Pool(url, { connections: CONNECTIONS });
  }

  async close(): Promise<void> {
    this.#socket?.close();
    this.#socket = null;
    if (!this.#pool.closed) await this.#pool.close();
  }

  // HTTP

  async http<T>(method: 'GET' | 'POST', path: string, body?: Json): Promise<T> {
    const headers: Record<string, string> = { authorization: `Bearer ${this.#key}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    const answer = await this.#pool.request({
      method,
      path,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 400) throw new Error(`${method} ${path}: ${answer.statusCode} ${text}`);
    return JSON.parse(text) as T;
  }

  save(definition: Definition): Promise<WorkflowSaved> {
    return this.http('POST', '/api/workflows', definition);
  }

  record(id: string): Promise<ExecutionRecord> {
    return this.http('GET', `/api/executions/${id}`);
  }

  results(id: string): Promise<Results> {
    return this.http('GET', `/api/executions/${id}/results`);
  }

  async events(id: string): Promise<ExecutionEvent[]> {
    const events: ExecutionEvent[] = [];
    for (;;) {
      const path = `/api/executions/${id}/events?from=${events.length + 1}&limit=${EVENTS_PAGE}`;
      const { items } = await this.http<{ items: ExecutionEvent[] }>('GET', path);
      events.push(...items);
      if (items.length < EVENTS_PAGE) return events;
    }
  }

  setAdmission(paused: boolean): Promise<unknown> {
    return this.http('POST', '/api/admission', { paused });
  }

  async engine(): Promise<EngineItem> {
    const { items } = await this.http<{ items: [EngineItem] }>('GET', '/api/engines');
    return items[0];
  }

  /** Of `/metrics`, a counter without labels. */
  async counter(name: string): Promise<number> {
    const { body } = await this.#pool.request({
      method: 'GET',
      path: '/metrics',
      headers: { authorization: `Bearer ${this.#key}` },
    });
    const value = new RegExp(`^${name} (\\d+)$`, 'm').exec(await body.text())?.[1];
    if (value === undefined) throw new Error(`expected ${name} in /metrics`);
    return Number(value);
  }

  // Socket.IO

  /** Without `ends` the server announces nothing to this client. */
  async connect({ ends }: { ends: boolean }): Promise<void> {
    const socket = new WebSocket(`${this.#url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
    this.#socket = socket;
    await new Promise<void>((resolve, reject) => {
      socket.onclose = () => {
        reject(new Error('the server hung up'));
        this.#failAll('the server hung up');
      };
      socket.onmessage = ({ data }: { data: string }) => {
        if (data.startsWith(CONNECTED)) resolve();
        else if (data.startsWith(REFUSED)) reject(new Error(`the server refused the connection: ${data}`));
        else this.#receive(data);
      };
    });
    if (ends) await this.call('executions.subscribe', '{}');
  }

  /** `payload` and the answer are JSON texts. */
  call(verb: string, payload: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const ack = String(this.#nextAck);
      this.#nextAck += 1;
      this.#waiting.set(ack, { resolve, reject });
      this.#socket?.send(`42${ack}["${verb}",${payload}]`);
    });
  }

  #receive(frame: string): void {
    if (frame.startsWith(CHANGED)) {
      // The item's id comes first and is never escaped; an item with an end has its instant as a string.
      if (frame.includes('"endedAt":"')) this.#ended(idIn(frame));
    } else if (frame.startsWith(ACK)) {
      const from = frame.indexOf('[');
      const ack = frame.slice(ACK.length, from);
      const waiting = this.#waiting.get(ack);
      this.#waiting.delete(ack);
      if (frame.startsWith('[{"ok":true', from)) waiting?.resolve(frame);
      else waiting?.reject(new Error(frame.slice(from)));
    } else if (frame === PING) this.#socket?.send(PONG);
    else if (frame.startsWith(OPENED)) this.#socket?.send(`${CONNECTED}${JSON.stringify({ token: this.#key })}`);
  }

  #failAll(why: string): void {
    for (const { reject } of this.#waiting.values()) reject(new Error(why));
    this.#waiting.clear();
  }

  async start(workflow: string): Promise<string> {
    return idIn(await this.call('execution.start', `{"workflow":"${workflow}"}`));
  }

  /** Calls back when an execution's end was announced: it is durable then. */
  onEnded(listener: (id: string) => void): void {
    this.#ended = listener;
  }

  /** Starts `total` executions, at most `inFlight` calls at once; resolves with their ids when all are accepted. */
  async startAll(workflow: string, total: number, inFlight = 128): Promise<string[]> {
    const ids: string[] = [];
    let asked = 0;
    const one = async (): Promise<void> => {
      while (asked < total) {
        asked += 1;
        ids.push(await this.start(workflow));
      }
    };
    await Promise.all(Array.from({ length: Math.min(inFlight, total) }, one));
    return ids;
  }

  /** Keeps `inFlight` executions going for `ms`, and waits for the last; the ids of those that ended in that time. */
  keepGoing(workflow: string, ms: number, inFlight: number): Promise<string[]> {
    return new Promise((resolve, reject) => {
      const ids: string[] = [];
      let going = 0;
      const untilMs = performance.now() + ms;
      const watchdog = setTimeout(() => reject(new Error(`${going} executions did not end`)), ms + STALLED_MS);
      const start = (): void => {
        going += 1;
        this.start(workflow).catch(reject);
      };
      this.onEnded((id) => {
        going -= 1;
        if (performance.now() < untilMs) {
          ids.push(id);
          start();
        } else if (going === 0) {
          clearTimeout(watchdog);
          resolve(ids);
        }
      });
      while (going < inFlight) start();
    });
  }

  /** Keeps `inFlight` executions between their start and the news of their end, until `total` have ended. */
  keepInFlight(workflow: string, total: number, inFlight: number): Promise<string[]> {
    return new Promise((resolve, reject) => {
      const ids: string[] = [];
      let started = 0;
      let seen = 0;
      const watchdog = setInterval(() => {
        if (ids.length === seen) settle(new Error(`${total - seen} of ${total} executions did not end`));
        seen = ids.length;
      }, STALLED_MS);
      const settle = (error: Error | null): void => {
        clearInterval(watchdog);
        if (error === null) resolve(ids);
        else reject(error);
      };
      const start = (): void => {
        started += 1;
        this.start(workflow).catch(settle);
      };
      this.onEnded((id) => {
        ids.push(id);
        if (started < total) start();
        else if (ids.length === total) settle(null);
      });
      while (started < Math.min(inFlight, total)) start();
    });
  }
}

/** The first id in an answer or a push: the execution's own. */
function idIn(frame: string): string {
  const at = frame.indexOf('"id":"') + 6;
  return frame.slice(at, at + 36);
}

/** Runs `work` on every item, 32 at once. */
export async function forAll<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < items.length) {
      const item = items[next] as T;
      next += 1;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, worker));
}
