import { z } from 'zod';
import { durationHint, parseDuration } from '../definition/duration.ts';
import { instantHint, parseInstant } from '../definition/instant.ts';
import { durationOrTemplate, instantOrTemplate } from '../definition/shapes.ts';
import { FullstopError } from '../errors.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Waits for a time; an instant that has passed is no wait. */
export const delayNode: NodeType = {
  ...plainNodeType,
  type: 'delay',
  description: 'Waits for `with.duration`, or until `with.until`; its output is `{until}`.',
  with: z.strictObject({ duration: durationOrTemplate.optional(), until: instantOrTemplate.optional() }),
  check(node) {
    const given = Object(node['with']) as Record<string, unknown>;
    return (given['duration'] === undefined) === (given['until'] === undefined)
      ? 'expected either with.duration or with.until'
      : null;
  },
  run: {
    kind: 'timer',
    until(rendered, nowMs) {
      const { duration, until } = rendered as { duration?: unknown; until?: unknown };
      if (duration !== undefined)
        return nowMs + expectMs(parseDuration(duration), 'with.duration', durationHint, duration);
      return expectMs(parseInstant(until), 'with.until', instantHint, until);
    },
    output: (untilMs) => ({ until: new Date(untilMs).toISOString() }),
  },
};

function expectMs(ms: number | null, path: string, hint: string, found: unknown): number {
  if (ms !== null) return ms;
  throw new FullstopError('FS_INVALID', `${path}: expected ${hint}, found ${JSON.stringify(found).slice(0, 100)}`);
}
