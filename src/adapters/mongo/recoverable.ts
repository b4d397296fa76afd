import type { RecoverableExecution } from '../../ports/store.ts';
import { decodeRecoverable, type RecordFields, storedOfRecord } from './codec.ts';
import type { Texts } from './texts.ts';

export async function recoverableOf(documents: readonly RecordFields[], texts: Texts): Promise<RecoverableExecution[]> {
  const read = await texts.reader(documents.flatMap(storedOfRecord));
  return documents.map((document) => decodeRecoverable(document, read));
}
