/** What happened, as one number to compare and, where somebody reads, as lines. */
export class Trace {
  /** Lines are kept. */
  readonly keeps: boolean;
  readonly lines: string[] = [];
  #one = 0x811c9dc5;
  #other = 0x9e3779b9;
  readonly #timeMs: () => number;

  constructor(keeps: boolean, timeMs: () => number) {
    this.keeps = keeps;
    this.#timeMs = timeMs;
  }

  /** `who` did something; `what` in a few words. */
  note(who: string, what: string): void {
    this.#mix(who);
    this.#mix(what);
    const micros = Math.round(this.#timeMs() * 1_000);
    this.#one = Math.imul(this.#one ^ micros, 0x01000193);
    if (this.keeps) this.aside(who, what);
  }

  /** For readers alone: no part of the hash, such as the faults themselves. */
  aside(who: string, what: string): void {
    if (this.keeps) this.lines.push(`${this.#timeMs().toFixed(1).padStart(9)}  ${who.padEnd(10)} ${what}`);
  }

  #mix(text: string): void {
    let one = this.#one;
    let other = this.#other;
    for (let index = 0; index < text.length; index += 1) {
      const unit = text.charCodeAt(index);
      one = Math.imul(one ^ unit, 0x01000193);
      other = Math.imul(other + unit, 0x85ebca6b) ^ (other >>> 13);
    }
    this.#one = one;
    this.#other = other;
  }

  get hash(): string {
    return [this.#one, this.#other].map((part) => (part >>> 0).toString(16).padStart(8, '0')).join('');
  }
}
