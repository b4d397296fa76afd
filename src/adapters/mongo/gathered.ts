/** One read for all that ask in one turn of the event loop. */
export class Gathered<Value> {
  readonly #read: (ids: string[]) => Promise<ReadonlyMap<string, Value>>;
  #asked: { ids: Set<string>; answer: Promise<ReadonlyMap<string, Value>> } | null = null;

  constructor(read: (ids: string[]) => Promise<ReadonlyMap<string, Value>>) {
    this.#read = read;
  }

  /** null: there is none. */
  async get(id: string): Promise<Value | null> {
    this.#asked ??= this.#begin();
    this.#asked.ids.add(id);
    return (await this.#asked.answer).get(id) ?? null;
  }

  #begin() {
    const ids = new Set<string>();
    const answer = new Promise<void>((resolve) => setImmediate(resolve)).then(() => {
      this.#asked = null;
      return this.#read([...ids]);
    });
    return { ids, answer };
  }
}
