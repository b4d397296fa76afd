import { z } from 'zod';
import { FullstopError } from '../errors.ts';
import type { Task } from '../ports/work.ts';

/** What a `container` node asks for, checked and complete. */
export interface ContainerSpec {
  image: string;
  /** null: the image's own. */
  command: string[] | null;
  args: string[] | null;
  env: Record<string, string>;
  /** JSON text; null: none. */
  input: string | null;
  network: string;
  memoryBytes: number;
  cpus: number;
  user: string | null;
  output: 'auto' | 'json' | 'text';
}

const scalar = z.union([z.string(), z.number(), z.boolean()], 'expected text, a number or a boolean').transform(String);
const words = z.array(scalar, 'expected a list').transform((list) => list as string[]);

/** Less than this no engine takes. */
const memoryMinBytes = 6 * 2 ** 20;
const memoryUnits: Record<string, number> = { b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

export const memoryHint = 'an amount of memory of at least 6m, such as 512m or 2g, or a number of bytes';
export const memoryPattern = /^(\d{1,15}(?:\.\d{1,3})?)\s*(?:([bkmgt])(?:i?b)?)?$/i;
export const networkHint = 'none, bridge, or the name of a network; not host';
/** `host`, `container:ID` and `ns:PATH` would end the container's isolation. */
export const networkPattern = /^(?!(?:host|default)$)[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;
export const imagePattern = /^[A-Za-z0-9][\w.\-/:@+]{0,511}$/;

const memory = z.union([z.number(), z.string()], `expected ${memoryHint}`).transform((value, context) => {
  const [, amount, unit] = memoryPattern.exec(String(value)) ?? [];
  const bytes = Math.floor(Number(amount ?? 'NaN') * (memoryUnits[unit?.toLowerCase() ?? 'b'] ?? 1));
  if (bytes >= memoryMinBytes && Number.isSafeInteger(bytes)) return bytes;
  context.addIssue({ code: 'custom', message: `expected ${memoryHint}` });
  return z.NEVER;
});

/** `with` of a `container` node after its templates: they may have put a value of any type in any place. */
const schema = z.strictObject({
  image: z.string('expected the name of an image').regex(imagePattern, 'expected the name of an image'),
  command: z
    .union([z.string().transform((program) => [program]), words])
    .nullable()
    .default(null),
  args: words.nullable().default(null),
  env: z.record(z.string().regex(/^[^=\0]+$/, 'expected a name without ='), scalar).default({}),
  input: z.unknown().optional(),
  network: z.string().regex(networkPattern, `expected ${networkHint}`).default('none'),
  memory: memory.default(512 * 2 ** 20),
  cpus: z.coerce.number<string | number>().min(0.01).max(1024).default(1),
  user: z
    .union([
      z.string().regex(/^[\w.-]+(:[\w.-]+)?$/, 'expected a user, or user:group'),
      z.int().min(0).transform(String),
    ])
    .nullable()
    .default(null),
  output: z.enum(['auto', 'json', 'text']).default('auto'),
});

/** @throws FS_INVALID */
export function parseContainerSpec(task: Pick<Task, 'with'>): ContainerSpec {
  const parsed = schema.safeParse(task.with);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const path = (issue?.path ?? []).map((key) => `.${String(key)}`).join('');
    throw new FullstopError('FS_INVALID', `with${path}: ${issue?.message ?? 'not valid'}`);
  }
  const { memory: memoryBytes, input, command, args, ...rest } = parsed.data;
  const spec = { ...rest, command, args, memoryBytes, input: input === undefined ? null : JSON.stringify(input) };
  if ([...(command ?? []), ...(args ?? []), ...Object.values(rest.env)].some((text) => text.includes('\0'))) {
    throw new FullstopError('FS_INVALID', 'with: no program takes a zero byte in its arguments or environment');
  }
  return spec;
}

/** Whether a pattern fits the image's name, where `*` stands for any characters. Without a tag it means `:latest`. */
export function isImageAllowed(image: string, patterns: readonly string[]): boolean {
  const names = /:[^/]*$|@/.test(image) ? [image] : [image, `${image}:latest`];
  return patterns.some((pattern) => {
    const parts = pattern.split('*').map((text) => text.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
    const fits = new RegExp(`^${parts.join('.*')}$`);
    return names.some((name) => fits.test(name));
  });
}
