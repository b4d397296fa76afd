import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { createExpressions } from '../../src/adapters/expressions/expressions.ts';
import { inlineCel } from '../../src/definition/cel.ts';
import type { ExpressionScope, Expressions } from '../../src/ports/expressions.ts';

const list200 = Array.from({ length: 200 }, (_, i) => i);

const scope = {
  input: {
    n: 5,
    half: 0.5,
    zero: 0,
    s: 'abc',
    no: false,
    list: [1, 2, 'x'],
    numbers: [1, 2, 3],
    words: ['a', 'b'],
    map: { a: 1, b: { c: null } },
    long: `${'a'.repeat(100_000)}!`,
    pattern: '^a.c$',
    list200,
    car: { constructor: 'Ferrari', year: 1962, parts: [{ constructor: null, n: 1 }] },
    evil: JSON.parse('{"__proto__": {"polluted": true}, "x": 1}'),
  },
  nodes: { check: { output: { state: 'done' }, status: 'Complete', error: null } },
  execution: { id: 'id-1', workflow: 'test', startedAt: null },
  iter: { index: 3, last: null },
  item: null,
  itemIndex: 0,
} satisfies ExpressionScope;

describe('Expressions', () => {
  const expressions = createExpressions();
  after(() => expressions.close());

  const evaluate = async (source: string) => await expressions.evaluate(source, scope);

  async function failure(run: () => unknown): Promise<{ code: string; message: string }> {
    try {
      await run();
    } catch (error) {
      return error as { code: string; message: string };
    }
    throw new Error('expected an error');
  }

  const values: [source: string, value: unknown][] = [
    // JSON numbers and integer literals mix
    ['input.n + 1', 6],
    ['1 + input.n', 6],
    ['input.n - 1', 4],
    ['2 * input.n', 10],
    ['input.n / 2', 2.5],
    ['iter.index % 2', 1],
    ['iter.index % 2 == 1', true],
    ['input.n % input.n', 0],
    ['10 % input.n', 0],
    ['-input.n + 3', -2],
    ['input.n == 5', true],
    ['5 == input.n', true],
    ['input.n != 5', false],
    ['5.0 == 5', true],
    ['5 != 5.5', true],
    ['input.n > 3 && input.n <= 5', true],
    ['1 < input.half', false],
    ['5 / 2', 2],
    ['size(input.list) > 0', true],
    ['size(input.list) == input.n - 2', true],
    ['input.numbers.size() * 2.5', 7.5],
    ["int('5') + input.n", 10],
    ['1 in input.numbers', true],
    ['input.n in [1, 5]', true],
    ['input.numbers == [1, 2, 3]', true],
    ["input.map == {'a': 1, 'b': {'c': null}}", true],
    ['input.list[1]', 2],
    ['input.numbers[input.zero]', 1],
    ['[7, 8][input.zero]', 7],
    ['input.s.substring(input.zero, 2)', 'ab'],
    ['input.no ? 1 : input.half', 0.5],
    // strings and numbers join
    ["'a' + input.n", 'a5'],
    ["input.n + 'a'", '5a'],
    ["'a' + 1 + 2", 'a12'],
    ['input.s + input.half', 'abc0.5'],
    // null
    ["iter.last == null || iter.last.check.body.state != 'done'", true],
    ['item == null', true],
    ['item != null', false],
    ['input.map.b.c == null', true],
    ['input.s == null', false],
    ['null == input.n', false],
    ['execution.startedAt == null', true],
    // values of other types compare as unequal
    ['input.s == 1', false],
    ['input.n == input.s', false],
    ['input.list == []', false],
    // presence
    ['has(input.q)', false],
    ['has(input.n) && input.n == 5', true],
    ['input.?q.orValue(7)', 7],
    ['input.?n.orValue(7)', 5],
    // integers leave as numbers, at any depth, and other kinds as JSON
    ['1', 1],
    ['size(input.list)', 3],
    ["[1, 'a', input.n, {'b': [2]}]", [1, 'a', 5, { b: [2] }]],
    ["{'a': 1, 'b': 'x', 'c': {'d': size('abc')}}", { a: 1, b: 'x', c: { d: 3 } }],
    ["{1: 'a', true: 'b'}", { 1: 'a', true: 'b' }],
    ['3u', 3],
    ["bytes('abc')", 'YWJj'],
    ["timestamp('2024-01-01T00:00:00Z')", '2024-01-01T00:00:00.000Z'],
    ["duration('90s')", '90s'],
    ['9007199254740991', 9007199254740991],
    ['input.list + [1]', [1, 2, 'x', 1]],
    ['nodes.check.output', { state: 'done' }],
    ['nodes.check.output.state', 'done'],
    ['type(input.n) == double', true],
    // comprehensions, on the thread
    ['input.numbers.map(x, x * 2)', [2, 4, 6]],
    ['input.numbers.filter(x, x > 1)', [2, 3]],
    ['input.numbers.all(x, x > 0) && input.numbers.exists(y, y == 2)', true],
    ['input.numbers.exists_one(x, x == 2)', true],
    ['input.list.map(x, size(input.words))', [2, 2, 2]],
    ['cel.bind(x, input.n, x + x)', 10],
    ["[1].map(x, {'n': x, 'b': bytes('a')})", [{ n: 1, b: 'YQ==' }]],
    // regular expressions, by RE2
    ["input.s.matches('^a.c$')", true],
    ["input.s.matches('^b')", false],
    ['input.s.matches(input.pattern)', true],
    ["input.words.exists(w, w.matches('^b$'))", true],
    ["input.long.matches('^(a+)+$')", false],
    // data with keys that JavaScript knows
    ['input.car.year', 1962],
    ['input.car.constructor', 'Ferrari'],
    ['input.car', scope.input.car],
    ['input.car.parts[0].n + 1', 2],
    ['input.car == input.car', true],
    ['input.car.parts.map(p, p.n)', [1]],
    ['has(input.evil.polluted)', false],
    ['input.evil.x', 1],
  ];
  for (const [source, value] of values) {
    it(`evaluates ${source}`, async () => expect(await evaluate(source)).to.deep.equal(value));
  }

  const failures: [source: string, message: string | RegExp][] = [
    ['input.q', 'expression "input.q": No such key: q'],
    ['input.map.a.b.c', /No such key/],
    ['iter.last.check', /No such key: check/],
    ['nodes.other.output', /No such key: other/],
    ['input.list[3]', /out of bounds/],
    ['input.polluted', /No such key: polluted/],
    ['input.toString', /No such key: toString/],
    ['input.n + true', /no such overload/],
    ['input.n +', /Unexpected token: EOF/],
    ['foo', 'expression "foo": Unknown variable: foo'],
    ['input.zero / 0', /division by zero/],
    ['input.n % 0', /division by zero/],
    ['input.n / input.zero', /Infinity is not a JSON number/],
    ["double('nan')", /NaN is not a JSON number/],
    ['9007199254740992', /beyond what JSON numbers hold exactly/],
    ['[1, [9007199254740993]]', /beyond what JSON numbers hold exactly/],
    ['9007199254740993 + input.n', /too large to mix/],
    ['9223372036854775807 + 1', /integer overflow/],
    ['type(1)', /is a type or an optional/],
    ['input.?n', /is a type or an optional/],
    ['[input.?n]', /is a type or an optional/],
    ["input.s.matches('(?=a)')", /error parsing regexp/],
    ["input.s.matches('a{1000}b{1000}c{1000}')", /too large/],
    ["input.n.matches('a')", /matches expects a string, found number/],
    ["input.s.matches(input.s + '(')", /error parsing regexp/],
    ['input.numbers.map(x, x.q)', /^expression "input.numbers.map\(x, x.q\)": /],
    ['input.numbers.map(x, y)', /Unknown variable: y/],
    ['input.s.substring(input.n)', /out of range/],
  ];
  for (const [source, message] of failures) {
    it(`fails ${source}`, async () => {
      const error = await failure(() => evaluate(source));
      expect(error.code).to.equal('FS_EXPRESSION');
      if (typeof message === 'string') expect(error.message).to.equal(message);
      else expect(error.message).to.match(message);
    });
  }

  it('evaluates inline what has no comprehension, and the rest later', async () => {
    expect(expressions.evaluate('input.n + 1', scope)).to.equal(6);
    expect(expressions.evaluate("input.s.matches('^a')", scope)).to.equal(true);
    for (const source of [
      '[1].map(x, x)',
      'cel.bind(x, 1, x)',
      'input.s.matches(input.pattern)',
      "input.long.matches('^(a+)+$')",
    ]) {
      const result = expressions.evaluate(source, scope);
      expect(result, source).to.be.instanceOf(Promise);
      await result;
    }
  });

  it('gives parts of the scope themselves, not copies', () => {
    expect(expressions.evaluate('input.list200', scope)).to.equal(scope.input.list200);
    expect(expressions.evaluate('input.no ? input.map : input.list200', scope)).to.equal(scope.input.list200);
    expect((expressions.evaluate('[input.list200]', scope) as unknown[])[0]).to.equal(scope.input.list200);
  });

  it('ends a comprehension after 200 ms, without holding the event loop, and goes on with the next', async () => {
    await evaluate('[1].map(x, x)');
    const loops = ['a', 'b', 'c', 'd'].map((name) => `input.list200.all(${name}, `).join('');
    let turns = 0;
    const counter = setInterval(() => turns++, 5);
    const startedMs = performance.now();
    const slow = failure(() => evaluate(`${loops}a + b + c + d >= 0))))`));
    const next = evaluate('input.numbers.map(x, x + 1)');
    const error = await slow;
    clearInterval(counter);
    expect(error.code).to.equal('FS_EXPRESSION');
    expect(error.message).to.match(/took longer than 200 ms$/);
    expect(performance.now() - startedMs).to.be.within(190, 1_500);
    expect(turns).to.be.above(5);
    expect(await next).to.deep.equal([2, 3, 4]);
  });

  it('takes an answer that came in time while the event loop was held', async () => {
    await evaluate('[1].map(x, x)');
    const { promise, resolve } = Promise.withResolvers<unknown>();
    // From here, timers that are due come before the answer is looked for.
    setImmediate(() => {
      resolve(evaluate('[1].map(x, x + 1)'));
      const untilMs = performance.now() + 400;
      while (performance.now() < untilMs);
    });
    expect(await promise).to.deep.equal([2]);
  });

  it('does not count the time for which its process was frozen', async () => {
    const module = new URL('../../src/adapters/expressions/expressions.ts', import.meta.url).href;
    const script = `
      const { createExpressions } = await import('${module}');
      const expressions = createExpressions();
      const scope = { input: { list: Array.from({ length: 60 }, (_, i) => i) } };
      await expressions.evaluate('[1].map(x, x)', scope);
      const value = expressions.evaluate('input.list.map(a, input.list.map(b, a + b))', scope);
      process.kill(process.pid, 'SIGSTOP');
      console.log((await value).length);
      await expressions.close();
    `;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
    const said = Promise.all([text(child.stdout), text(child.stderr)]);
    const isFrozen = (): boolean => /\) T /.test(readFileSync(`/proc/${child.pid}/stat`, 'utf8'));
    while (child.exitCode === null && !isFrozen()) await sleep(20);
    await sleep(400);
    child.kill('SIGCONT');
    expect(await said).to.deep.equal(['60\n', '']);
  });

  it('ends what grows without bounds', async () => {
    let doubling = 'x0';
    for (let i = 40; i > 0; i--) doubling = `cel.bind(x${i % 2}, x${(i + 1) % 2} + x${(i + 1) % 2}, ${doubling})`;
    for (const source of [
      `cel.bind(x0, [input.list200], cel.bind(x1, x0, ${doubling}))`,
      'input.list200.map(a, input.list200.map(b, input.list200.map(c, input.list200)))',
    ]) {
      const error = await failure(() => evaluate(source));
      expect(error.code, error.message).to.equal('FS_EXPRESSION');
    }
    expect(await evaluate('[1].map(x, x)')).to.deep.equal([1]);
  });

  it('refuses a result that shares its parts into many megabytes', async () => {
    const big = { ...scope, input: { list: Array.from({ length: 10_000 }, (_, i) => `item ${i}`) } };
    const source = `[${Array(200).fill('input.list').join(', ')}]`;
    const error = await failure(() => expressions.evaluate(source, big));
    expect(error.message).to.match(/more than 1000000 values/);
  });

  it('sends the thread only what the expression reads', async () => {
    const unsendable = { ...scope, input: { ...scope.input, run: () => 1 } };
    expect(await expressions.evaluate('input.numbers.map(x, x)', unsendable)).to.deep.equal([1, 2, 3]);
  });

  it('leaves the prototype of objects alone', async () => {
    const { evil } = scope.input;
    expect(await evaluate('[1].map(x, input.evil.__proto__.polluted)')).to.deep.equal([true]);
    for (const source of [
      'input.evil',
      '[input.evil, 1]',
      'input.list.map(x, input.evil)',
      '[input.evil, input.car]',
    ]) {
      const result = JSON.stringify(await evaluate(source));
      expect(result, source).to.include('"__proto__":{"polluted":true}');
    }
    expect(Object.getPrototypeOf(evil)).to.equal(Object.prototype);
    expect(({} as { polluted?: boolean }).polluted).to.equal(undefined);
  });

  it('parses an expression once', () => {
    expect(inlineCel.parse('input.n + 1')).to.equal(inlineCel.parse('input.n + 1'));
  });

  it('evaluates many different expressions within a bounded cache', () => {
    for (let i = 0; i < 15_000; i++) expect(expressions.evaluate(`input.n + ${i}`, scope)).to.equal(5 + i);
  });

  it('rejects what waits when it is closed, and what comes after', async () => {
    const closing = createExpressions();
    const waiting = [
      failure(() => closing.evaluate('[1].map(x, x)', scope)),
      failure(() => closing.evaluate('[2].map(x, x)', scope)),
    ];
    await closing.close();
    for (const error of [
      ...(await Promise.all(waiting)),
      await failure(() => closing.evaluate('[1].map(x, x)', scope)),
    ]) {
      expect(error.code).to.equal('FS_UNAVAILABLE');
    }
    expect(closing.evaluate('input.n', scope)).to.equal(5);
  });

  it('runs its thread as compiled JavaScript too', async () => {
    // Below node_modules, so that packages are found from there.
    const directory = mkdtempSync(new URL('../../node_modules/.test-', import.meta.url).pathname);
    try {
      for (const folder of ['definition', 'adapters/expressions', '']) {
        const from = new URL(`../../src/${folder}/`, import.meta.url);
        for (const file of readdirSync(from).filter((name) => name.endsWith('.ts'))) {
          const code = stripTypeScriptTypes(readFileSync(new URL(file, from), 'utf8')).replaceAll(
            /(?<=from '[^']+)\.ts(?=')/g,
            '.js',
          );
          mkdirSync(`${directory}/${folder}`, { recursive: true });
          writeFileSync(`${directory}/${folder}/${file.replace(/ts$/, 'js')}`, code);
        }
      }
      const module = await import(`${directory}/adapters/expressions/expressions.js`);
      const compiled: Expressions = module.createExpressions();
      expect(await compiled.evaluate('[1].map(x, x + 1)', scope)).to.deep.equal([2]);
      await compiled.close();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  describe('render', () => {
    const render = async (value: unknown) => await expressions.render(value, scope);

    const table: [what: string, value: unknown, rendered: unknown][] = [
      ['keeps the type of a string that is one template', '${{ input.n }}', 5],
      ['takes space around neither for text nor for the expression', '${{input.map}}', { a: 1, b: { c: null } }],
      ['joins text and templates', 'n=${{ input.n }}, ${{ input.s }}', 'n=5, abc'],
      [
        'writes objects, lists and null as JSON within text',
        'x ${{ input.words }} ${{ input.map }} ${{ item }}',
        'x ["a","b"] {"a":1,"b":{"c":null}} null',
      ],
      ['renders at any depth', { a: [{ b: '${{ input.n }}' }, 'x', 1, null] }, { a: [{ b: 5 }, 'x', 1, null] }],
      ['leaves keys alone', { '${{ input.n }}': '${{ input.n }}' }, { '${{ input.n }}': 5 }],
      ['leaves secrets as they stand', 'Bearer ${{ secrets.TOKEN }}', 'Bearer ${{ secrets.TOKEN }}'],
      ['leaves secrets beside templates', '${{ input.n }} ${{secrets.TOKEN}}', '5 ${{ secrets.TOKEN }}'],
      ['ends a template after braces of the expression', "${{ {'a': {'b': input.n}} }}", { a: { b: 5 } }],
      ['ends a template after braces in its strings', "${{ '}}' + input.s }}", '}}abc'],
      ['ends a template after escaped quotes', "${{ 'a\\'}}' }}-", "a'}}-"],
      ['ends a template after strings of three quotes', "${{ '''a'}}''' }}", "a'}}"],
      ['writes a literal opening', "${{ '${{' }} x }}", '${{ x }}'],
      ['does not render what it rendered', '${{ "$" + "{{ input.n }}" }}', '${{ input.n }}'],
      [
        'renders comprehensions on the thread',
        { a: '${{ input.numbers.map(x, x + 1) }}', b: ['${{ [1].map(x, x) }} ${{ input.n }}'] },
        { a: [2, 3, 4], b: ['[1] 5'] },
      ],
      ['leaves a lone dollar alone', '$ {{ ${ }} $', '$ {{ ${ }} $'],
    ];
    for (const [what, value, rendered] of table) {
      it(what, async () => expect(await render(value)).to.deep.equal(rendered));
    }

    it('gives a value without templates itself, at once', () => {
      for (const value of [{ a: [1, { b: 'text' }] }, 'text', 5, null, true, [], { a: '${{ secrets.X }}' }]) {
        expect(expressions.render(value, scope)).to.equal(value);
      }
    });

    it('changes nothing of the value', async () => {
      const value = { a: ['${{ input.n }}', { b: 'x' }] };
      const copy = structuredClone(value);
      const rendered = (await render(value)) as typeof value;
      expect(value).to.deep.equal(copy);
      expect(rendered.a[1]).to.equal(value.a[1]);
      expect(await render(value)).to.deep.equal(rendered);
    });

    it('renders inline where no template has a comprehension', () => {
      expect(expressions.render({ a: '${{ input.n }}' }, scope)).to.deep.equal({ a: 5 });
    });

    it('fails with the expression, also while others are still on the thread', async () => {
      const unhandled: unknown[] = [];
      const note = (error: unknown) => unhandled.push(error);
      process.on('unhandledRejection', note);
      for (const value of [
        { a: '${{ input.words.map(x, x.q) }}', b: '${{ input.q }}' },
        ['${{ input.words.map(x, x.q) }} ${{ input.numbers.map(x, x.q) }} ${{ input.q }}'],
      ]) {
        const error = await failure(() => render(value));
        expect(error.code).to.equal('FS_EXPRESSION');
        expect(error.message).to.equal('expression "input.q": No such key: q');
      }
      const error = await failure(() => render({ a: '${{ input.words.map(x, x.q) }}', b: '${{ [2].map(x, x) }}' }));
      expect(error.message).to.match(/input\.words\.map/);
      await evaluate('[1].map(x, x)');
      process.off('unhandledRejection', note);
      expect(unhandled).to.deep.equal([]);
    });

    it('fails for a template that does not end', async () => {
      expect((await failure(() => render('${{ 1'))).code).to.equal('FS_EXPRESSION');
    });

    it('bounds the text it makes', async () => {
      const long = { ...scope, input: { text: 'x'.repeat(2 ** 20) } };
      const error = await failure(() => expressions.render('${{ input.text }}'.repeat(40), long));
      expect(error.message).to.match(/grows beyond/);
    });
  });

  it('evaluates a small expression, and renders, within microseconds', () => {
    const value = { url: 'https://x/${{ input.n }}', plain: { a: 1 } };
    const plain = { a: [1, 2, { b: 'c' }] };
    const cases: [string, () => unknown][] = [
      ['evaluate', () => expressions.evaluate("iter.last == null || iter.last.check.body.state != 'done'", scope)],
      ['render a template', () => expressions.render(value, scope)],
      ['render nothing', () => expressions.render(plain, scope)],
    ];
    for (const [name, run] of cases) {
      for (let i = 0; i < 20_000; i++) run();
      const startedMs = performance.now();
      for (let i = 0; i < 50_000; i++) run();
      const micros = (performance.now() - startedMs) / 50;
      console.log(`      ${name}: ${micros.toFixed(2)} µs`);
      expect(micros).to.be.below(50);
    }
  });
});
