/** A store thread that can be told to die, for store-thread.test.ts. */
import { serve } from '../../src/adapters/sqlite/serve.ts';

serve((send) => ({
  batchMax: 10,
  run(calls) {
    if (calls.some(([operation]) => operation === 'die')) process.exit(1);
    send({ kind: 'outcomes', values: calls.map(([, value]) => value), errors: null });
  },
  close() {},
}));
