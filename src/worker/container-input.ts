import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where the container finds its input; `FULLSTOP_INPUT` says so. */
export const inputPath = '/fullstop/input.json';

/** A folder of this age whose task is unknown was left by a worker that died. */
const leftoverAgeMs = 60_000;

/** A private folder with the input of one container; the container sees the file alone, and may only read it. */
export async function writeInput(name: string, json: string): Promise<{ file: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), `${name}-`));
  const file = join(folder, 'input.json');
  // The container's user is anybody. On this side the folder keeps others out.
  await writeFile(file, json);
  await chmod(file, 0o444);
  return { file, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** Removes the folders of containers named `prefix…` that are not among `names`. */
export async function removeLeftInputs(prefix: string, names: ReadonlySet<string>): Promise<void> {
  for (const entry of await readdir(tmpdir())) {
    if (!entry.startsWith(prefix) || names.has(entry.slice(0, entry.lastIndexOf('-')))) continue;
    const folder = join(tmpdir(), entry);
    const info = await stat(folder).catch(() => null);
    const isOurs = info?.isDirectory() === true && info.uid === (process.getuid?.() ?? info.uid);
    if (isOurs && Date.now() - info.mtimeMs > leftoverAgeMs) await rm(folder, { recursive: true, force: true });
  }
}

/** One file as a tar archive, for an engine on another machine. @see POSIX pax, "ustar Interchange Format" */
export function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0, 100);
  header.write(octal(0o444, 7), 100);
  header.write(octal(0, 7), 108);
  header.write(octal(0, 7), 116);
  header.write(octal(content.length, 11), 124);
  header.write(octal(0, 11), 136);
  header.write('        0', 148);
  header.write('ustar\x0000', 257);
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148);
  return Buffer.concat([header, content, Buffer.alloc(((512 - (content.length % 512)) % 512) + 1024)]);
}
