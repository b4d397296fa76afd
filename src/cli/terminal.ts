import { createInterface } from 'node:readline/promises';
import { styleText } from 'node:util';
import { type Environment, processEnvironment } from '../config.ts';

export type Style = 'red' | 'green' | 'yellow' | 'cyan' | 'dim' | 'bold';

/** What the command line sees of the world: tests give it a scripted one. */
export interface Terminal {
  env: Environment;
  /** Writes to stdout: answers. */
  out(text: string): void;
  /** Writes to stderr: progress, questions, errors. */
  err(text: string): void;
  outIsTTY: boolean;
  errIsTTY: boolean;
  /** Somebody can be asked. */
  canAsk: boolean;
  /** Width of stdout; Infinity when it is no terminal. */
  columns(): number;
  rows(): number;
  ask(question: string): Promise<string>;
  readStdin(): Promise<string>;
  /** Hears SIGINT and SIGTERM instead of dying of them; the returned function ends that. */
  onSignal(listener: (signal: 'SIGINT' | 'SIGTERM') => void): () => void;
  exitNow(code: number): never;
}

export function processTerminal(): Terminal {
  const { stdin, stdout, stderr } = process;
  return {
    env: processEnvironment(),
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    outIsTTY: stdout.isTTY === true,
    errIsTTY: stderr.isTTY === true,
    canAsk: stdin.isTTY === true && stderr.isTTY === true,
    columns: () => (stdout.isTTY ? stdout.columns : Number.POSITIVE_INFINITY),
    rows: () => (stdout.isTTY ? stdout.rows : Number.POSITIVE_INFINITY),
    ask: async (question) => {
      const lines = createInterface({ input: stdin, output: stderr });
      try {
        return await lines.question(question);
      } finally {
        lines.close();
      }
    },
    readStdin: async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of stdin) chunks.push(chunk as Buffer);
      return Buffer.concat(chunks).toString('utf8');
    },
    onSignal: (listener) => {
      const sigint = (): void => listener('SIGINT');
      const sigterm = (): void => listener('SIGTERM');
      process.on('SIGINT', sigint);
      process.on('SIGTERM', sigterm);
      return () => {
        process.off('SIGINT', sigint);
        process.off('SIGTERM', sigterm);
      };
    },
    exitNow: (code) => process.exit(code),
  };
}

/** Colours `text` for stdout or stderr, where that is a terminal and NO_COLOR is not set. */
export function paint(
  terminal: Terminal,
  style: Style | undefined,
  text: string,
  stream: 'out' | 'err' = 'out',
): string {
  const isTTY = stream === 'out' ? terminal.outIsTTY : terminal.errIsTTY;
  if (style === undefined || !isTTY || terminal.env.NO_COLOR) return text;
  return styleText(style, text, { validateStream: false });
}

/** Text of others made safe to print on one line: control characters could drive the terminal. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it removes
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g, ' ');
}
