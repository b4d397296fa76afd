/**
 * Lets one reader sleep until something happens: what `wake` reports while nobody sleeps is not lost.
 */
export class Alarm {
  #rung = false;
  #wakeUp: (() => void) | null = null;

  wake(): void {
    this.#rung = true;
    this.#wakeUp?.();
  }

  /** Resolves true at the next `wake`, or at once if one came since the last sleep; false after `ms`. */
  async sleep(ms: number): Promise<boolean> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#wakeUp = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wakeUp = null;
    }
    const rung = this.#rung;
    this.#rung = false;
    return rung;
  }
}
