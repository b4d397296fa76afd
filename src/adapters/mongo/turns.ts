/** Calls on one execution in the order in which they were made; those on others side by side. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  /** Runs `work` when all earlier calls under each of `keys` have ended. */
  take<T>(keys: readonly string[], work: () => Promise<T>): Promise<T> {
    const before = keys.flatMap((key) => this.#last.get(key) ?? []);
    const own = before.length === 0 ? work() : Promise.all(before).then(work);
    const done = own.then(noop, noop);
    for (const key of keys) this.#last.set(key, done);
    void done.then(() => {
      for (const key of keys) if (this.#last.get(key) === done) this.#last.delete(key);
    });
    return own;
  }

  /** Resolves when all calls made so far have ended. */
  async idle(): Promise<void> {
    await Promise.all(this.#last.values());
  }
}

function noop(): void {}
