import { z } from 'zod';
import { type NodeType, plainNodeType } from './node-type.ts';

/** Fails the execution on purpose, with a message of the workflow's own. */
export const failNode: NodeType = {
  ...plainNodeType,
  type: 'fail',
  description: 'Fails with `with.message`.',
  with: z.strictObject({ message: z.string() }),
  run: {
    kind: 'instant',
    finish(rendered) {
      const { message } = rendered as { message: unknown };
      return { error: typeof message === 'string' ? message : JSON.stringify(message), code: 'FS_FAIL_NODE' };
    },
  },
};
