import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import type { TaskLog } from './executor.ts';
import type { Hide } from './secrets.ts';

export const stderrTailBytes = 64 * 1024;
/** What is kept before the tail, so that no secret is half in it: the longest secret is shorter. */
const leadBytes = 16 * 1024;

/**
 * What a container prints: passed on as it comes, stdout kept up to a limit, the end of stderr kept.
 *
 * dockerode's own demultiplexer recurses once per frame, so that a container which prints single bytes overflows the
 * stack.
 * @see https://docs.docker.com/reference/api/engine (ContainerAttach, "Stream format")
 */
export class ContainerOutput {
  /** Resolves when all output is here, or no more is wanted; rejects when the connection broke. */
  readonly ended: Promise<void>;
  /** stdout grew beyond its limit. */
  overflown = false;
  readonly #maxBytes: number;
  readonly #log: TaskLog;
  readonly hide: Hide;
  readonly #stdout: Buffer[] = [];
  #stdoutBytes = 0;
  readonly #stderr: Buffer[] = [];
  #stderrBytes = 0;
  #stderrCut = false;
  readonly #decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  /** Of a frame whose header has not come whole. */
  #header = Buffer.alloc(0);
  #frame: { stream: 'stdout' | 'stderr'; leftBytes: number } | null = null;
  #stream: Readable | null = null;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;

  constructor(maxBytes: number, log: TaskLog, hide: Hide) {
    this.#maxBytes = maxBytes;
    this.#log = log;
    this.hide = hide;
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Who does not wait for it has failed already.
    this.ended.catch(() => undefined);
  }

  read(stream: Readable): void {
    this.#stream = stream;
    stream.on('data', (chunk: Buffer) => this.#take(chunk));
    stream.once('end', () => this.#end());
    stream.once('close', () => this.#end());
    stream.once('error', (error) => this.#reject(error));
  }

  close(): void {
    this.#stream?.destroy();
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString();
  }

  /** Begins with a whole character; secrets are hidden before it is cut. */
  get stderrTail(): string {
    const hidden = Buffer.from(this.hide(Buffer.concat(this.#stderr).toString()));
    let start = Math.max(this.#stderrCut ? leadBytes : 0, hidden.length - stderrTailBytes);
    if (start > 0) while (((hidden[start] ?? 0) & 0xc0) === 0x80) start++;
    return hidden.subarray(start).toString();
  }

  #end(): void {
    for (const stream of ['stdout', 'stderr'] as const) this.#tell(stream, this.#decoders[stream].end());
    this.#resolve();
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#frame === null) {
        const wanted = 8 - this.#header.length;
        this.#header = Buffer.concat([this.#header, rest.subarray(0, wanted)]);
        rest = rest.subarray(wanted);
        if (this.#header.length < 8) return;
        this.#frame = { stream: this.#header[0] === 2 ? 'stderr' : 'stdout', leftBytes: this.#header.readUInt32BE(4) };
        this.#header = Buffer.alloc(0);
      }
      const { stream, leftBytes } = this.#frame;
      const piece = rest.subarray(0, leftBytes);
      rest = rest.subarray(piece.length);
      if (piece.length > 0) this.#keep(stream, piece);
      if (piece.length === leftBytes) this.#frame = null;
      else this.#frame.leftBytes -= piece.length;
    }
  }

  #keep(stream: 'stdout' | 'stderr', piece: Buffer): void {
    this.#tell(stream, this.#decoders[stream].write(piece));
    if (stream === 'stderr') {
      this.#stderr.push(piece);
      this.#stderrBytes += piece.length;
      if (this.#stderrBytes > 2 * (stderrTailBytes + leadBytes) || this.#stderr.length > 4096) {
        const all = Buffer.concat(this.#stderr);
        const tail = all.subarray(-(stderrTailBytes + leadBytes));
        this.#stderrCut ||= tail.length < all.length;
        this.#stderr.splice(0, Infinity, tail);
        this.#stderrBytes = tail.length;
      }
      return;
    }
    this.#stdoutBytes += piece.length;
    if (this.#stdoutBytes <= this.#maxBytes) {
      this.#stdout.push(piece);
    } else {
      this.overflown = true;
      this.#resolve();
    }
  }

  #tell(stream: 'stdout' | 'stderr', text: string): void {
    if (text !== '') this.#log(stream, text);
  }
}
