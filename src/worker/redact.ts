/** What stands where a secret was. */
const mask = '***';
/** A shorter value would be found everywhere; hiding it would tell more than it hides. */
const charsMin = 4;
/** The same of a part of a value, which may be an ordinary word. */
const partCharsMin = 8;
/** The longest text a stream holds back while what is in it may still become a secret. */
const heldMax = 65_536;

/** `value` with every trace of the secrets replaced by `***`. */
export function redact<T>(value: T, values: readonly string[]): T {
  return new Redactor(values).value(value) as T;
}

type Range = [from: number, to: number];

/**
 * Finds secrets of at least 4 characters in texts: as they are, and in the forms that they take on the way through
 * an HTTP service (base64, URL encoding, JSON).
 */
export class Redactor {
  readonly #forms: string[];
  /** The same by their first characters. */
  readonly #byStart = new Map<string, string[]>();
  readonly #formChars: number;
  /** Whether a number may be a secret. */
  readonly #numeric: boolean;

  constructor(values: readonly string[]) {
    const forms = new Set(values.flatMap((value) => [...formsOf(value), ...formsOf(value.trim()), ...partsOf(value)]));
    this.#forms = [...forms].filter((form) => form.length >= charsMin);
    for (const form of this.#forms) {
      const start = form.slice(0, charsMin);
      this.#byStart.set(start, [...(this.#byStart.get(start) ?? []), form]);
    }
    this.#formChars = this.#forms.reduce((longest, form) => Math.max(longest, form.length), 0);
    this.#numeric = this.#forms.some((form) => /^[\d.eE+-]+$/.test(form));
  }

  text(text: string): string {
    return masked(text, this.#find(text));
  }

  /** A JSON value, keys included. What is no JSON value stays as it is. */
  value(value: unknown): unknown {
    if (typeof value === 'string') return this.text(value);
    if (typeof value === 'number' && this.#numeric) {
      const text = String(value);
      return this.#find(text).length === 0 ? value : this.text(text);
    }
    if (Array.isArray(value)) return value.map((item) => this.value(item));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [this.text(key), this.value(item)]));
  }

  /**
   * For text that comes in pieces: what may be the beginning of a secret is held back until the rest has come.
   * `end` gives what is left.
   */
  stream(emit: (text: string) => void): { write(text: string): void; end(): void } {
    let held = '';
    const pass = (text: string): void => {
      if (text !== '') emit(text);
    };
    return {
      write: (text) => {
        held += text;
        const found = this.#find(held);
        let cut = this.#beginning(held);
        for (const [from, to] of found) if (from < cut && cut < to) cut = from;
        if (held.length - cut > heldMax) cut = held.length;
        const ranges = found.filter(([from]) => from < cut);
        pass(masked(held.slice(0, cut), ranges));
        held = held.slice(cut);
      },
      end: () => {
        pass(this.text(held));
        held = '';
      },
    };
  }

  /** In order, none touching another. */
  #find(text: string): Range[] {
    const found: Range[] = [];
    for (const form of this.#forms) {
      for (let from = text.indexOf(form); from !== -1; from = text.indexOf(form, from + 1)) {
        const last = found.at(-1);
        if (last !== undefined && last[0] <= from && from <= last[1]) last[1] = Math.max(last[1], from + form.length);
        else found.push([from, from + form.length]);
      }
    }
    if (found.length < 2) return found;
    found.sort((a, b) => a[0] - b[0]);
    const merged: Range[] = [];
    for (const range of found) {
      const last = merged.at(-1);
      if (last !== undefined && range[0] <= last[1]) last[1] = Math.max(last[1], range[1]);
      else merged.push(range);
    }
    return merged;
  }

  /** Where the longest end of `text` begins that a secret may begin with; its length where there is none. */
  #beginning(text: string): number {
    for (let from = Math.max(0, text.length - this.#formChars + 1); from < text.length; from++) {
      const end = text.slice(from);
      const forms = end.length < charsMin ? this.#forms : this.#byStart.get(end.slice(0, charsMin));
      if (forms?.some((form) => form.length > end.length && form.startsWith(end))) return from;
    }
    return text.length;
  }
}

function masked(text: string, ranges: readonly Range[]): string {
  if (ranges.length === 0) return text;
  let result = '';
  let at = 0;
  for (const [from, to] of ranges) {
    result += text.slice(at, from) + mask;
    at = to;
  }
  return result + text.slice(at);
}

/** What of a value may be met on its own: its lines, and of a URL what error messages show. */
function partsOf(value: string): string[] {
  const parts = value.split(/\r?\n/).map((line) => line.trim());
  const url = URL.parse(value);
  if (url !== null && /^https?:$/.test(url.protocol)) {
    parts.push(url.href, url.origin + url.pathname, url.pathname, url.search.slice(1), url.password);
    parts.push(...url.searchParams.values());
  }
  return parts.filter((part) => part.length >= partCharsMin);
}

function formsOf(value: string): string[] {
  const encoded = encodeURIComponent(value.toWellFormed());
  const strict = encoded.replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  const form = new URLSearchParams({ v: value }).toString().slice(2);
  const urls = [encoded, strict, form, encodeURI(value.toWellFormed())].flatMap((text) => [
    text,
    text.replace(/%[\dA-F]{2}/g, (code) => code.toLowerCase()),
  ]);
  const json = JSON.stringify(value).slice(1, -1);
  return [value, value.toLowerCase(), json, json.replaceAll('/', '\\/'), ...urls, ...base64FormsOf(value)];
}

/**
 * The value's base64, alone and in the middle of something longer (`user:password`): there it depends on where the
 * value begins, and only the characters that hold nothing of its neighbours are known.
 */
function base64FormsOf(value: string): string[] {
  const bytes = Buffer.from(value);
  const alone = bytes.toString('base64');
  const forms = [alone, alone.replace(/=+$/, '')];
  for (const [before, charsLost] of [
    [0, 0],
    [1, 2],
    [2, 3],
  ] as const) {
    const text = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    forms.push(text.slice(charsLost, Math.floor(((before + bytes.length) * 8) / 6)));
  }
  return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')]);
}
