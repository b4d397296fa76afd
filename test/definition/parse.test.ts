import { expect } from 'chai';
import { parseDefinition } from '../../src/definition/parse.ts';
import { faultsOf, thrownBy } from './support.ts';

function parseFaults(text: string, format: 'yaml' | 'json' = 'yaml') {
  const error = thrownBy(() => parseDefinition(text, format));
  expect(error.code).to.equal('FS_INVALID');
  return (error.details as { faults: { path: string; line: number | null; message: string }[] }).faults;
}

describe('parseDefinition', () => {
  it('gives the value of YAML with the lines of its parts', () => {
    const { value, lineOf } = parseDefinition('name: a\nnodes:\n  x:\n    needs:\n      - y\n      - z\n', 'yaml');
    expect(value).to.deep.equal({ name: 'a', nodes: { x: { needs: ['y', 'z'] } } });
    expect(lineOf(['nodes'])).to.equal(2);
    expect(lineOf(['nodes', 'x', 'needs', 1])).to.equal(6);
  });

  it('gives the line of the nearest part around one that is missing', () => {
    const { lineOf } = parseDefinition('name: a\nnodes:\n  x: {}\n', 'yaml');
    expect(lineOf(['nodes', 'x', 'type'])).to.equal(3);
    expect(lineOf(['outputs'])).to.equal(1);
  });

  it('gives the lines of JSON, indented with tabs too', () => {
    const { value, lineOf } = parseDefinition(
      '{\n\t"name": "a\\u00e9\\ud83d\\ude00",\n\t"nodes": {\n\t\t"x": [1.5e3, true, null]\n\t}\n}',
      'json',
    );
    expect(value).to.deep.equal({ name: 'aé😀', nodes: { x: [1500, true, null] } });
    expect(lineOf(['nodes', 'x'])).to.equal(4);
  });

  it('reads on and yes as text, as YAML 1.2 says', () => {
    expect(parseDefinition('on: yes', 'yaml').value).to.deep.equal({ on: 'yes' });
    expect(parseFaults('%YAML 1.1\n---\non: yes')[0]?.message).to.equal('expected YAML 1.2, found YAML 1.1');
  });

  it('refuses text that is not YAML, with the line', () => {
    expect(parseFaults('name: a\nnodes: [1, 2\n')[0]).to.include({ path: '', line: 3 });
  });

  it('refuses text that is not JSON, with the line, even where it is YAML', () => {
    expect(parseFaults('{\n  "name": "a",\n  name: 1\n}', 'json')[0]).to.include({ path: '', line: 3 });
  });

  it('refuses a key that comes twice, in YAML and in JSON', () => {
    expect(parseFaults('name: a\nnodes:\n  x: 1\n  x: 2')).to.deep.equal([
      { path: 'nodes.x', line: 4, message: 'the key "x" comes twice' },
    ]);
    expect(parseFaults('{"a": 1,\n"a": 2}', 'json')[0]).to.include({ path: 'a', line: 2 });
  });

  for (const key of ['__proto__', 'constructor', 'prototype']) {
    it(`refuses the key ${key} at any depth`, () => {
      expect(parseFaults(`a:\n  b:\n    - ${key}: 1`)).to.deep.equal([
        { path: `a.b[0].${key}`, line: 3, message: `the key "${key}" is reserved` },
      ]);
      expect(parseFaults(`{"${key}": {"x": 1}}`, 'json')[0]).to.include({ path: key, line: 1 });
    });
  }

  it('refuses what JSON does not have', () => {
    expect(parseFaults('a: .inf\nb: .nan').map(({ path, line }) => [path, line])).to.deep.equal([
      ['a', 1],
      ['b', 2],
    ]);
    expect(parseFaults('{"a": "\\ud800"}', 'json')[0]?.message).to.equal('the text has half a surrogate pair');
    expect(parseFaults('{"a": 1e999}', 'json')[0]?.message).to.equal('Infinity is not a JSON value');
    expect(parseFaults('? [a]\n: b')[0]?.line).to.equal(1);
    for (const tag of ['!!binary', '!mine']) expect(parseFaults(`a: ${tag} aGk=`)[0]?.line).to.equal(1);
  });

  it('refuses more than 1 MiB', () => {
    const error = thrownBy(() => parseDefinition(`a: ${'x'.repeat(2 ** 20)}`, 'yaml'));
    expect(error.code).to.equal('FS_TOO_LARGE');
  });

  it('refuses aliases that grow beyond 1 MiB, and takes those that do not', () => {
    expect(parseDefinition('a: &x {b: 1}\nc: [*x, *x]', 'yaml').value).to.deep.equal({
      a: { b: 1 },
      c: [{ b: 1 }, { b: 1 }],
    });
    const levels = Array.from({ length: 9 }, (_, i) => `l${i + 1}: &l${i + 1} [${Array(9).fill(`*l${i}`).join(', ')}]`);
    const error = thrownBy(() => parseDefinition(['l0: &l0 lol', ...levels].join('\n'), 'yaml'));
    expect(error.code).to.equal('FS_TOO_LARGE');
  });

  it('takes the last anchor of a name before the alias', () => {
    expect(parseDefinition('a: &x 1\nb: *x\nc: &x 2\nd: *x', 'yaml').value).to.deep.equal({ a: 1, b: 1, c: 2, d: 2 });
    expect(parseFaults('a: 1\nb: *x\nc: &x 1')).to.deep.equal([
      { path: 'b', line: 2, message: 'there is no anchor "x" before its alias' },
    ]);
  });

  it('refuses an alias within its own anchor', () => {
    expect(parseFaults('a: &x [*x]')[0]?.message).to.match(/more than 64 deep/);
  });

  it('refuses nesting of more than 64 levels, and text that only looks like much of it', () => {
    expect(parseDefinition(`${'['.repeat(64)}${']'.repeat(64)}`, 'json').value).to.be.an('array');
    expect(parseFaults(`${'['.repeat(66)}${']'.repeat(66)}`, 'json')[0]?.message).to.match(/more than 64 deep/);
    expect(parseFaults(`a: ${'{b: '.repeat(100)}1${'}'.repeat(100)}`)[0]?.message).to.match(/more than 64 deep/);
  });

  for (const [what, text] of [
    ['open brackets', '['.repeat(2 ** 20 - 1)],
    ['open braces', '{a: '.repeat(200_000)],
    ['list marks of one line', `${'- '.repeat(500_000)}a`],
  ] as const) {
    it(`refuses a file full of ${what} at once`, () => {
      const startedMs = performance.now();
      expect(parseFaults(text)[0]?.message).to.match(/more than 64 deep/);
      expect(performance.now() - startedMs).to.be.below(1_000);
    });
  }

  it('tells lines in the faults of a whole file', () => {
    expect(faultsOf('{\n"name": "a",\n"nodes": {\n"x": {"type": "set"}}}', 'json')).to.deep.equal([
      { path: 'nodes.x.with', line: 4, message: 'expected object, but it is missing' },
    ]);
  });
});
