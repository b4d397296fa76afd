import { z } from 'zod';
import { parseHoldSchedule } from '../definition/schedule.ts';
import { name } from '../definition/shapes.ts';
import { messageOf } from '../errors.ts';
import { type NodeType, plainNodeType } from './node-type.ts';

const schedule = z
  .union([z.string(), z.number()], { error: 'expected a cron pattern, an instant or a duration' })
  .transform((value) => (typeof value === 'number' ? `${value}ms` : value))
  .superRefine((value, context) => {
    try {
      parseHoldSchedule(value);
    } catch (error) {
      context.addIssue({ code: 'custom', message: messageOf(error), input: value });
    }
  })
  .meta({ description: 'A cron pattern (UTC), an ISO 8601 instant, or a duration' });

/** Is Held until somebody sends its trigger, or its time comes. */
export const holdNode: NodeType = {
  ...plainNodeType,
  type: 'hold',
  description: 'Is Held until its trigger or its schedule; its output is the payload, or `{at}`.',
  keys: { trigger: name.optional(), schedule: schedule.optional() },
  check: (node) =>
    node['trigger'] === undefined && node['schedule'] === undefined ? 'expected a trigger, a schedule, or both' : null,
  run: { kind: 'hold' },
};
