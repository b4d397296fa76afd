/** Stands between a worker and its server, and loses what tells of a stop at once. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

const HEAD_END = '\r\n\r\n';
const UPGRADED = 'HTTP/1.1 101';
/** How the messages begin that are lost: those of Socket.IO's namespace `/workers`. */
const LOST = ['42/workers,["STOP"', '42/workers,["task.cancel"'];

export class LossyProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Messages that were lost. */
  lost = 0;

  /** `url` is the server's. */
  constructor(url: string) {
    const { hostname, port } = new URL(url);
    this.#server = createServer((near) => {
      const far = connect({ host: hostname, port: Number(port) });
      const frames = new Frames((text) => this.#isLost(text));
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.setNoDelay(true);
        one.on('error', () => one.destroy());
        one.on('close', () => {
          this.#sockets.delete(one);
          other.destroy();
        });
      }
      near.on('data', (bytes) => far.write(bytes));
      far.on('data', (bytes) => {
        for (const passed of frames.pass(bytes)) near.write(passed);
      });
    });
  }

  /** Resolves with the address that the worker is given. */
  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #isLost(text: Buffer): boolean {
    const lost = LOST.some((start) => text.subarray(0, start.length).toString('latin1') === start);
    if (lost) this.lost += 1;
    return lost;
  }
}

/** The bytes of a server that upgrades to WebSocket: its frames, which it neither masks nor compresses, one by one. */
class Frames {
  readonly #isLost: (text: Buffer) => boolean;
  #waiting: Buffer = Buffer.alloc(0);
  #state: 'head' | 'frames' | 'other' = 'head';

  constructor(isLost: (text: Buffer) => boolean) {
    this.#isLost = isLost;
  }

  /** What is to be passed on now. */
  *pass(bytes: Buffer): Generator<Buffer> {
    if (this.#state === 'other') return yield bytes;
    this.#waiting = this.#waiting.length === 0 ? bytes : Buffer.concat([this.#waiting, bytes]);
    if (this.#state === 'head') {
      const end = this.#waiting.indexOf(HEAD_END);
      if (end < 0) return;
      this.#state = this.#waiting.subarray(0, UPGRADED.length).toString() === UPGRADED ? 'frames' : 'other';
      yield this.#take(this.#state === 'frames' ? end + HEAD_END.length : this.#waiting.length);
      if (this.#state === 'other') return;
    }
    for (;;) {
      const frame = frameAt(this.#waiting);
      if (frame === null) return;
      const whole = this.#take(frame.end);
      if (!this.#isLost(whole.subarray(frame.start))) yield whole;
    }
  }

  #take(length: number): Buffer {
    const taken = this.#waiting.subarray(0, length);
    this.#waiting = this.#waiting.subarray(length);
    return taken;
  }
}

/** Where the payload of the first frame starts and ends; null: it is not whole. @see RFC 6455, section 5.2 */
function frameAt(bytes: Buffer): { start: number; end: number } | null {
  if (bytes.length < 2) return null;
  const short = bytes.readUInt8(1) & 0x7f;
  const start = short === 127 ? 10 : short === 126 ? 4 : 2;
  if (bytes.length < start) return null;
  const length = short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
  return bytes.length < start + length ? null : { start, end: start + length };
}
