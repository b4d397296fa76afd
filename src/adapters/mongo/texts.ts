import { randomUUID } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { type Collection, GridFSBucket, MongoGridFSStreamError, MongoRuntimeError } from 'mongodb';
import type { Connection } from './connection.ts';
import type { Stored, ValueDocument } from './documents.ts';

/** Longer texts are kept apart from the header, in a document of their own. In characters of JSON text. */
export const INLINE_MAX = 8 * 1024;
/** Longer ones go to GridFS. */
const VALUE_MAX = 4 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

/** A text that a write will refer to, and that must be there before. */
export interface BigText {
  id: string;
  text: string;
}

/** Reads what was resolved. */
export type TextReader = (stored: Stored) => string;

/** A text that is replaced all the time is looked for as often. */
const LOOKS_MAX = 20;

/**
 * The texts of an execution that are too big for its header. They are written before the header that refers to them,
 * under a new name each time: what a refused write leaves behind is never seen, and goes with its execution at last.
 */
export class Texts {
  readonly #connection: Connection;
  readonly #values: Collection<ValueDocument>;
  readonly #files: GridFSBucket;

  constructor(connection: Connection) {
    this.#connection = connection;
    this.#values = connection.collection('values');
    this.#files = new GridFSBucket(connection.db, {
      bucketName: 'outputs',
      chunkSizeBytes: CHUNK_BYTES,
      writeConcern: { w: 'majority', journal: true, wtimeoutMS: 10_000 },
    });
  }

  async put(bigs: readonly BigText[]): Promise<void> {
    const values = bigs.filter((big) => big.text.length <= VALUE_MAX);
    const files = bigs.filter((big) => big.text.length > VALUE_MAX);
    for (const batch of batchesOf(values)) {
      await this.#connection.run(() =>
        this.#values.bulkWrite(
          batch.map((big) => ({
            updateOne: {
              filter: { _id: big.id },
              update: { $setOnInsert: { x: ownerOf(big.id), text: big.text } },
              upsert: true,
            },
          })),
          { ordered: false },
        ),
      );
    }
    for (const big of files) await this.#connection.run(() => this.#upload(big));
  }

  async #upload({ id, text: content }: BigText): Promise<void> {
    await this.#deleteFile(id);
    const upload = this.#files.openUploadStreamWithId(id as never, ownerOf(id));
    await pipeline([Buffer.from(content)], upload);
  }

  async #deleteFile(id: string): Promise<void> {
    try {
      await this.#files.delete(id as never);
    } catch (error) {
      // There is no such file. A half of one that an upload left has no entry either, but chunks.
      if (!(error instanceof MongoRuntimeError)) throw error;
    }
  }

  /**
   * What `find` gives, decoded with its texts. The owner of an execution drops a text when it has replaced it, maybe
   * between the two reads: then both are done again.
   */
  async decoded<D, T>(
    find: () => Promise<D | null>,
    storedIn: (document: D) => Iterable<Stored | null | undefined>,
    decode: (document: D, read: TextReader) => T,
  ): Promise<T | null> {
    for (let looks = 1; ; looks += 1) {
      const document = await find();
      if (document === null) return null;
      const { read, complete } = await this.#fetch(storedIn(document));
      if (complete || looks >= LOOKS_MAX) return decode(document, read);
    }
  }

  /** Fetches what of `stored` is kept apart. A text that is gone reads as `null`. */
  async reader(stored: Iterable<Stored | null | undefined>): Promise<TextReader> {
    return (await this.#fetch(stored)).read;
  }

  async #fetch(stored: Iterable<Stored | null | undefined>): Promise<{ read: TextReader; complete: boolean }> {
    const found = new Map<string, string>();
    let complete = true;
    const values: string[] = [];
    for (const each of stored) {
      if (typeof each !== 'object' || each === null) continue;
      if ('value' in each) values.push(each.value);
      else if (!found.has(each.file)) {
        const content = await this.#connection.run(() => this.#download(each.file));
        if (content === null) complete = false;
        else found.set(each.file, content);
      }
    }
    for (let index = 0; index < values.length; index += 100) {
      const ids = values.slice(index, index + 100);
      const documents = await this.#connection.run(() => this.#values.find({ _id: { $in: ids } }).toArray());
      for (const { _id, text: content } of documents) found.set(_id, content);
    }
    if (values.some((id) => !found.has(id))) complete = false;
    const read: TextReader = (each) =>
      typeof each === 'string' ? each : (found.get('value' in each ? each.value : each.file) ?? 'null');
    return { read, complete };
  }

  async #download(id: string): Promise<string | null> {
    try {
      return await text(this.#files.openDownloadStream(id as never));
    } catch (error) {
      if (error instanceof MongoRuntimeError || error instanceof MongoGridFSStreamError) return null;
      throw error;
    }
  }

  /** Of a write that was refused, or of what a write replaced. */
  async drop(stored: readonly Stored[]): Promise<void> {
    const values = stored.flatMap((each) => (typeof each === 'object' && 'value' in each ? [each.value] : []));
    const files = stored.flatMap((each) => (typeof each === 'object' && 'file' in each ? [each.file] : []));
    if (values.length > 0) await this.#connection.run(() => this.#values.deleteMany({ _id: { $in: values } }));
    for (const file of files) await this.#connection.run(() => this.#deleteFile(file));
  }

  async dropAll(executionIds: readonly string[]): Promise<void> {
    await this.#connection.run(() => this.#values.deleteMany({ x: { $in: [...executionIds] } }));
    const files = await this.#connection.run(() =>
      this.#files.find({ filename: { $in: [...executionIds] } }).toArray(),
    );
    for (const { _id } of files) await this.#connection.run(() => this.#deleteFile(String(_id)));
  }
}

/** Collects the texts of one write. */
export class TextWriter {
  readonly bigs: BigText[] = [];
  readonly #executionId: string;

  constructor(executionId: string) {
    this.#executionId = executionId;
  }

  store(content: string, max = INLINE_MAX): Stored {
    if (content.length <= max) return content;
    const id = `${this.#executionId}/${randomUUID()}`;
    this.bigs.push({ id, text: content });
    return storedOf({ id, text: content });
  }
}

export function storedOf({ id, text: content }: BigText): Stored {
  return content.length > VALUE_MAX ? { file: id } : { value: id };
}

function ownerOf(id: string): string {
  return id.slice(0, id.lastIndexOf('/'));
}

/** At most 100 and some 8 million characters each: a command takes 48 MB. */
function batchesOf(bigs: readonly BigText[]): BigText[][] {
  const batches: BigText[][] = [];
  let size = 0;
  for (const big of bigs) {
    const last = batches.at(-1);
    if (last === undefined || last.length >= 100 || size + big.text.length > 2 * VALUE_MAX) {
      batches.push([big]);
      size = big.text.length;
    } else {
      last.push(big);
      size += big.text.length;
    }
  }
  return batches;
}
