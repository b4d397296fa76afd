/** A process that holds a data directory: `holder.ts DIRECTORY`. It stores an execution, says so, and waits. */
import { createSqliteStore } from '../../src/adapters/sqlite/store.ts';
import { id, newExecution } from './rows.ts';

const [directory = ''] = process.argv.slice(2);
const store = createSqliteStore({ directory });
await store.open();
await store.createExecution(newExecution({ id: id('a') }));
process.send?.('stored');
