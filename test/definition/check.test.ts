import { expect } from 'chai';
import { checkDefinition, loadDefinition } from '../../src/definition/compile.ts';
import { expectFault, faultsOf, thrownBy, workflow } from './support.ts';

/** A `set` node of one line whose value is `value`. */
const set = (name: string, value: string, more = '') => `  ${name}: { type: set, with: { value: "${value}" }${more} }`;

describe('checkDefinition', () => {
  describe('the shape', () => {
    const table: [what: string, text: string, path: string, line: number, message: string | RegExp][] = [
      ['an unknown key at the top', `${workflow(set('a', '1'))}\nextra: 1`, 'extra', 4, 'unknown key "extra"'],
      [
        'an unknown key of a node',
        workflow('  a:', '    type: set', '    with: { value: 1 }', '    when: x'),
        'nodes.a.when',
        6,
        'unknown key "when"',
      ],
      [
        'an unknown key of with',
        workflow('  a: { type: set, with: { value: 1, x: 2 } }'),
        'nodes.a.with.x',
        3,
        'unknown key "x"',
      ],
      [
        'an unknown key of retry',
        workflow(set('a', '1', ', retry: { tries: 2 }')),
        'nodes.a.retry.tries',
        3,
        'unknown key "tries"',
      ],
      [
        'an unknown type',
        workflow('  a: { type: sett }'),
        'nodes.a.type',
        3,
        /^unknown node type: expected one of set, http/,
      ],
      ['a missing type', workflow('  a: {}'), 'nodes.a.type', 3, /^unknown node type/],
      ['a node that is no object', workflow('  a: 5'), 'nodes.a', 3, 'expected object, received number'],
      ['no nodes', 'name: a\nnodes: {}', 'nodes', 2, 'expected at least one node'],
      ['a bad workflow name', `name: A_b\nnodes:\n${set('a', '1')}`, 'name', 1, /a-z, 0-9 and -/],
      ['a missing name', `nodes:\n${set('a', '1')}`, 'name', 1, 'expected string, but it is missing'],
      [
        'a bad duration',
        workflow(set('a', '1', ', timeout: 5 minutes')),
        'nodes.a.timeout',
        3,
        /^expected a duration such as 250ms/,
      ],
      ['a timeout of 0', workflow(set('a', '1', ', timeout: 0s')), 'nodes.a.timeout', 3, 'expected more than 0'],
      ['no attempts', workflow(set('a', '1', ', retry: { attempts: 0 }')), 'nodes.a.retry.attempts', 3, /Too small/],
      ['a factor below 1', workflow(set('a', '1', ', retry: { factor: 0.5 }')), 'nodes.a.retry.factor', 3, /Too small/],
      ['a set without value', workflow('  a: { type: set, with: {} }'), 'nodes.a.with.value', 3, 'is required'],
      [
        'a hold without trigger and schedule',
        workflow('  a: { type: hold }'),
        'nodes.a',
        3,
        'expected a trigger, a schedule, or both',
      ],
      [
        'a hold with a bad trigger name',
        workflow('  a: { type: hold, trigger: a-b }'),
        'nodes.a.trigger',
        3,
        /is not a name/,
      ],
      [
        'a hold with a bad cron',
        workflow('  a: { type: hold, schedule: "99 * * * *" }'),
        'nodes.a.schedule',
        3,
        'Invalid value for minute: 99',
      ],
      [
        'a hold with a bad schedule',
        workflow('  a: { type: hold, schedule: tomorrow }'),
        'nodes.a.schedule',
        3,
        /^expected a cron pattern, an ISO/,
      ],
      [
        'a delay with both',
        workflow('  a: { type: delay, with: { duration: 1s, until: "2030-01-01T00:00:00Z" } }'),
        'nodes.a',
        3,
        /either/,
      ],
      ['a delay with neither', workflow('  a: { type: delay, with: {} }'), 'nodes.a', 3, /either/],
      [
        'a day that no month has',
        workflow('  a: { type: delay, with: { until: "2030-02-30T00:00:00Z" } }'),
        'nodes.a.with.until',
        3,
        /ISO 8601/,
      ],
      [
        'an instant without zone',
        workflow('  a: { type: delay, with: { until: "2030-02-20T00:00:00" } }'),
        'nodes.a.with.until',
        3,
        /ISO 8601/,
      ],
      [
        'a while without maxIterations',
        workflow('  a: { type: while, condition: "true", body: { b: { type: set, with: { value: 1 } } } }'),
        'nodes.a.maxIterations',
        3,
        /but it is missing/,
      ],
      [
        'too many iterations',
        workflow(
          '  a: { type: while, condition: "true", maxIterations: 1000001, body: { b: { type: set, with: { value: 1 } } } }',
        ),
        'nodes.a.maxIterations',
        3,
        /Too big/,
      ],
      [
        'an empty body',
        workflow('  a: { type: while, condition: "true", maxIterations: 1, body: {} }'),
        'nodes.a.body',
        3,
        'expected at least one node',
      ],
      [
        'a fault in a body of a body',
        workflow(
          '  a:',
          '    type: while',
          '    condition: "true"',
          '    maxIterations: 1',
          '    body:',
          '      b:',
          '        type: foreach',
          '        items: "${{ [1] }}"',
          '        body:',
          '          c: { type: set }',
        ),
        'nodes.a.body.b.body.c.with',
        12,
        /missing/,
      ],
      [
        'json beside body',
        workflow('  a: { type: http, with: { url: "http://x", json: 1, body: x } }'),
        'nodes.a',
        3,
        /found both/,
      ],
      [
        'an unknown method',
        workflow('  a: { type: http, with: { url: "http://x", method: FETCH } }'),
        'nodes.a.with.method',
        3,
        /^expected GET/,
      ],
      [
        'a bad status',
        workflow('  a: { type: http, with: { url: "http://x", expect: [200, 2000] } }'),
        'nodes.a.with.expect[1]',
        3,
        /expected/,
      ],
      [
        'an ai node with prompt and messages',
        workflow('  a: { type: ai, with: { model: m, prompt: x, messages: [{ role: user, content: x }] } }'),
        'nodes.a',
        3,
        /found both/,
      ],
      [
        'an ai node that asks nothing',
        workflow('  a: { type: ai, with: { model: m, system: x } }'),
        'nodes.a',
        3,
        /found neither/,
      ],
      [
        'an ai node without a model',
        workflow('  a: { type: ai, with: { prompt: x } }'),
        'nodes.a.with.model',
        3,
        /missing/,
      ],
      [
        'a message of nobody',
        workflow('  a: { type: ai, with: { model: m, messages: [{ role: tool, content: x }] } }'),
        'nodes.a.with.messages[0].role',
        3,
        /expected system, user or assistant/,
      ],
      [
        'an agent node without a tool',
        workflow('  a: { type: agent, with: { pool: p } }'),
        'nodes.a.with.tool',
        3,
        /missing/,
      ],
      [
        'a secret in an agent node',
        workflow('  a: { type: agent, with: { pool: p, tool: t, args: ["${{ secrets.X }}"] } }'),
        'nodes.a.with.args[0]',
        3,
        /secrets may stand only/,
      ],
      [
        'a bad workflow reference',
        workflow('  a: { type: workflow, with: { workflow: "x@1" } }'),
        'nodes.a.with.workflow',
        3,
        'expected a workflow name, or name@hash',
      ],
      [
        'with where the type has none',
        workflow('  a: { type: hold, trigger: t, with: {} }'),
        'nodes.a.with',
        3,
        'unknown key "with"',
      ],
    ];
    for (const [what, text, path, line, message] of table) {
      it(`refuses ${what}`, () => expectFault(text, path, line, message));
    }

    it('takes a template where with expects a typed value', () => {
      const text = `inputs: { n: { type: number, default: 1 } }\n${workflow(
        '  a: { type: http, with: { url: "${{ input.n }}", maxBytes: "${{ input.n }}", method: "${{ input.n }}", expect: "${{ [200] }}", headers: "${{ {} }}" } }',
        '  b: { type: delay, with: { duration: "${{ input.n }}" } }',
        '  c: { type: workflow, with: { workflow: "${{ input.n }}", input: "${{ {} }}" } }',
      )}`;
      expect(loadDefinition(text, 'yaml').compiled.graph.nodes).to.have.length(3);
    });
  });

  describe('names', () => {
    for (const name of ['while', 'in', 'true', 'null', 'var', 'package']) {
      it(`refuses the CEL keyword ${name}`, () => {
        expectFault(
          workflow(set(`"${name}"`, '1')),
          `nodes.${name}`,
          3,
          `"${name}" is a keyword of CEL: choose another name`,
        );
      });
    }

    it('refuses names of other characters, and long ones', () => {
      expectFault(workflow(set('a-b', '1')), 'nodes.a-b', 3, /is not a name/);
      expectFault(workflow(set('1a', '1')), 'nodes.1a', 3, /is not a name/);
      expectFault(workflow(set('a'.repeat(64), '1')), `nodes.${'a'.repeat(64)}`, 3, /is not a name/);
      expect(loadDefinition(workflow(set('_'.repeat(63), '1')), 'yaml').compiled.graph.nodes).to.have.length(1);
    });

    it('refuses them for inputs and outputs too', () => {
      expectFault(`${workflow(set('a', '1'))}\ninputs:\n  for: { type: string }`, 'inputs.for', 5, /keyword/);
      expectFault(`${workflow(set('a', '1'))}\noutputs:\n  x-y: "1"`, 'outputs.x-y', 5, /is not a name/);
    });

    it('refuses __proto__, constructor and prototype in a value that did not come as text', () => {
      const value = JSON.parse('{"name": "a", "nodes": {"__proto__": {"type": "hold", "trigger": "t"}}}');
      expect(checkDefinition(value)).to.deep.equal([
        { path: 'nodes.__proto__', line: null, message: 'the key "__proto__" is reserved' },
      ]);
    });

    it('refuses a node named error in the body of a foreach', () => {
      const text = workflow(
        '  a:',
        '    type: foreach',
        '    items: "${{ [1] }}"',
        '    body:',
        `    ${set('error', '1')}`,
      );
      expectFault(text, 'nodes.a.body.error', 7, 'no node in the body of a foreach may be named "error"');
      expect(loadDefinition(workflow(set('error', '1')), 'yaml').compiled.graph.nodes).to.have.length(1);
    });
  });

  describe('needs', () => {
    it('refuses a node that is not there', () => {
      expectFault(
        workflow('  a:', '    type: set', '    with: { value: 1 }', '    needs:', '      - b'),
        'nodes.a.needs[0]',
        7,
        'there is no node "b"',
      );
    });

    it('refuses a node outside of the body', () => {
      const text = workflow(
        set('o', '1'),
        '  a:',
        '    type: foreach',
        '    items: "${{ [1] }}"',
        '    body:',
        `    ${set('b', '1', ', needs: [o]')}`,
      );
      expectFault(text, 'nodes.a.body.b.needs[0]', 8, 'there is no node "o" in this body');
    });

    it('refuses a node that needs itself', () => {
      expectFault(workflow(set('a', '1', ', needs: [a]')), 'nodes.a.needs[0]', 3, '"a" needs itself');
    });

    it('refuses a need that comes twice', () => {
      expectFault(workflow(set('a', '1'), set('b', '1', ', needs: [a, a]')), 'nodes.b.needs[1]', 4, '"a" comes twice');
    });

    it('names the cycle, without the nodes that only lead to it', () => {
      const text = workflow(
        set('z', '1', ', needs: [a]'),
        set('a', '1', ', needs: [b]'),
        set('b', '1', ', needs: [c]'),
        set('c', '1', ', needs: [a]'),
      );
      expectFault(text, 'nodes.a.needs', 4, 'nodes need each other in a circle: a needs b needs c needs a');
    });

    it('names every cycle that has nodes of its own', () => {
      const text = workflow(...['ab', 'ba', 'cd', 'dc'].map(([x, y]) => set(String(x), '1', `, needs: [${y}]`)));
      expect(faultsOf(text).map(({ path, line }) => [path, line])).to.deep.equal([
        ['nodes.a.needs', 3],
        ['nodes.c.needs', 5],
      ]);
    });

    it('names a cycle that needs another', () => {
      const text = workflow(
        set('a', '1', ', needs: [b]'),
        set('b', '1', ', needs: [a]'),
        set('c', '1', ', needs: [b, d]'),
        set('d', '1', ', needs: [c]'),
      );
      expect(faultsOf(text).map(({ message }) => message)).to.deep.equal([
        'nodes need each other in a circle: a needs b needs a',
        'nodes need each other in a circle: c needs d needs c',
      ]);
    });

    it('finds a cycle in a body', () => {
      const text = workflow(
        '  w:',
        '    type: while',
        '    condition: "true"',
        '    maxIterations: 1',
        '    body:',
        `    ${set('x', '1', ', needs: [y]')}`,
        `    ${set('y', '1', ', needs: [x]')}`,
      );
      expectFault(text, 'nodes.w.body.x.needs', 8, /x needs y needs x/);
    });
  });

  describe('expressions', () => {
    const table: [what: string, lines: string[], path: string, line: number, message: string | RegExp][] = [
      [
        'CEL that does not parse',
        [set('a', '${{ 1 + }}')],
        'nodes.a.with.value',
        3,
        /^expression "1 \+": Unexpected token: EOF/,
      ],
      ['CEL whose types do not fit', [set('a', '${{ [1] + true }}')], 'nodes.a.with.value', 3, /no such overload/],
      [
        'an unknown function',
        [set('a', '${{ foo(1) }}')],
        'nodes.a.with.value',
        3,
        /no matching overload for 'foo\(int\)'/,
      ],
      [
        'an unknown name',
        [set('a', '${{ foo + 1 }}')],
        'nodes.a.with.value',
        3,
        'unknown name "foo": expected one of input, nodes, execution',
      ],
      ['a template that does not end', [set('a', '${{ 1 }')], 'nodes.a.with.value', 3, /does not end/],
      ['an empty template', [set('a', '${{ }}')], 'nodes.a.with.value', 3, /is empty/],
      [
        'a template in if',
        [set('a', '1', ", if: '${{ true }}'")],
        'nodes.a.if',
        3,
        'expected bare CEL, without ${{ }}',
      ],
      [
        'an if that is no condition',
        [set('a', '1', ', if: "size([])"')],
        'nodes.a.if',
        3,
        'expected an expression that gives true or false, found int',
      ],
      [
        'a node that is not needed',
        [set('a', '1'), set('b', '${{ nodes.a.output }}')],
        'nodes.b.with.value',
        4,
        '"b" does not need "a": add it to its needs',
      ],
      ['itself', [set('a', '${{ nodes.a.output }}')], 'nodes.a.with.value', 3, '"a" names itself'],
      [
        'a node that is not there',
        [set('a', '${{ nodes.b.output }}')],
        'nodes.a.with.value',
        3,
        'there is no node "b"',
      ],
      [
        'a field that nodes do not have',
        [set('a', '1'), set('b', '${{ nodes.a.result }}', ', needs: [a]')],
        'nodes.b.with.value',
        4,
        'nodes.a has output, status, error, not "result"',
      ],
      ['nodes without a name', [set('a', '${{ nodes }}')], 'nodes.a.with.value', 3, /expected nodes\.NAME/],
      [
        'nodes by a computed name',
        [set('a', '${{ nodes[execution.id] }}')],
        'nodes.a.with.value',
        3,
        /expected nodes\.NAME/,
      ],
      [
        'a field that execution does not have',
        [set('a', '${{ execution.name }}')],
        'nodes.a.with.value',
        3,
        'execution has id, workflow, startedAt, not "name"',
      ],
      [
        'an input that is not declared',
        [set('a', '${{ input.x }}')],
        'nodes.a.with.value',
        3,
        'the workflow has no input "x"',
      ],
      ['iter outside of a while', [set('a', '${{ iter.index }}')], 'nodes.a.with.value', 3, /iter is known only in/],
      ['item outside of a foreach', [set('a', '${{ item }}')], 'nodes.a.with.value', 3, /item is known only in/],
      [
        'itemIndex outside of a foreach',
        [set('a', '${{ itemIndex }}')],
        'nodes.a.with.value',
        3,
        /itemIndex is known only in/,
      ],
      [
        'item in items',
        ['  a: { type: foreach, items: "${{ item }}", body: { b: { type: set, with: { value: 1 } } } }'],
        'nodes.a.items',
        3,
        /item is known only in/,
      ],
      [
        'items that are no template',
        ['  a: { type: foreach, items: "1, 2", body: { b: { type: set, with: { value: 1 } } } }'],
        'nodes.a.items',
        3,
        /expected one template/,
      ],
      [
        'iter in the if of a while',
        [
          '  a: { type: while, if: "iter.index == 0", condition: "true", maxIterations: 1, body: { b: { type: set, with: { value: 1 } } } }',
        ],
        'nodes.a.if',
        3,
        /iter is known only in/,
      ],
      [
        'a body node in iter.last that is not there',
        [
          '  a: { type: while, condition: "iter.last.x == 1", maxIterations: 1, body: { b: { type: set, with: { value: 1 } } } }',
        ],
        'nodes.a.condition',
        3,
        'the body has no node "x"',
      ],
      [
        'a body node in its condition',
        [
          '  a: { type: while, condition: "nodes.b.output == 1", maxIterations: 1, body: { b: { type: set, with: { value: 1 } } } }',
        ],
        'nodes.a.condition',
        3,
        'there is no node "b"',
      ],
      ['a secret in a set node', [set('a', '${{ secrets.X }}')], 'nodes.a.with.value', 3, /secrets may stand only in/],
      [
        'a secret that is not alone',
        ['  a: { type: http, with: { url: "${{ secrets.X + 1 }}" } }'],
        'nodes.a.with.url',
        3,
        /a secret stands alone/,
      ],
      [
        'a secret in if',
        ['  a: { type: http, if: "secrets.X == 1", with: { url: "http://x" } }'],
        'nodes.a.if',
        3,
        /a secret stands alone/,
      ],
      [
        'a regular expression that RE2 does not have',
        [set('a', "${{ 'x'.matches('(?=x)') }}")],
        'nodes.a.with.value',
        3,
        /error parsing regexp/,
      ],
      [
        'a map with a reserved key',
        [set('a', "${{ {'__proto__': 1} }}")],
        'nodes.a.with.value',
        3,
        /cannot have the key "__proto__"/,
      ],
      [
        'an expression that nests too deeply',
        [set('a', `\${{ ${'('.repeat(100)}1${')'.repeat(100)} }}`)],
        'nodes.a.with.value',
        3,
        /maxDepth/,
      ],
      ['a long expression', [set('a', `\${{ ${'1+'.repeat(600)}1 }}`)], 'nodes.a.with.value', 3, /maxAstNodes/],
      [
        'a very long expression',
        [set('a', `\${{ ${'!'.repeat(20_000)}true }}`)],
        'nodes.a.with.value',
        3,
        /at most 10000 characters/,
      ],
    ];
    for (const [what, lines, path, line, message] of table) {
      it(`refuses ${what}`, () => expectFault(workflow(...lines), path, line, message));
    }

    it('gives the line and path of a template deep in with', () => {
      const text = workflow(
        '  a:',
        '    type: set',
        '    with:',
        '      value:',
        '        - x',
        '        - deep: "${{ foo }}"',
      );
      expectFault(text, 'nodes.a.with.value[1].deep', 8, /unknown name "foo"/);
    });

    it('takes nodes that are needed through others, and by a constant in brackets', () => {
      loadDefinition(
        workflow(
          set('a', '1'),
          set('b', '1', ', needs: [a]'),
          set('c', "${{ nodes.a.output + nodes['b'].output }}", ', needs: [b]'),
        ),
        'yaml',
      );
    });

    it('takes in a body what the enclosing nodes need, and not what they do not', () => {
      const body = (needs: string) =>
        workflow(
          set('a', '1'),
          set('b', '1', ', needs: [a]'),
          '  w:',
          '    type: while',
          `    needs: [${needs}]`,
          '    condition: "iter.index < nodes.a.output"',
          '    maxIterations: 1',
          '    body:',
          '      f:',
          '        type: foreach',
          '        items: "${{ [iter.index] }}"',
          '        body:',
          '          x: { type: set, with: { value: "${{ nodes.a.output + item + itemIndex + iter.index }}" } }',
        );
      loadDefinition(body('b'), 'yaml');
      expect(faultsOf(body('')).map(({ path, line, message }) => [path, line, message])).to.deep.equal([
        ['nodes.w.condition', 8, '"w" does not need "a": add it to its needs'],
        ['nodes.w.body.f.body.x.with.value', 15, '"w" does not need "a": add it to its needs'],
      ]);
    });

    it('takes the nearest node of a name', () => {
      const text = workflow(
        set('a', '1'),
        '  w:',
        '    type: foreach',
        '    needs: [a]',
        '    items: "${{ [1] }}"',
        '    body:',
        `    ${set('a', '1')}`,
        `    ${set('b', '${{ nodes.a.output }}')}`,
      );
      expectFault(text, 'nodes.w.body.b.with.value', 10, '"b" does not need "a": add it to its needs');
    });

    it('takes variables of comprehensions, which may hide a root, and no further', () => {
      loadDefinition(
        workflow(
          set('a', '${{ [1].map(nodes, nodes + 1) }}'),
          set('b', '${{ cel.bind(x, [1], x.exists(y, y in x)) }}'),
        ),
        'yaml',
      );
      expectFault(workflow(set('a', '${{ [1].map(x, x) == x }}')), 'nodes.a.with.value', 3, /unknown name "x"/);
      expectFault(workflow(set('a', '${{ cel.bind(x, x, 1) }}')), 'nodes.a.with.value', 3, /unknown name "x"/);
    });

    it('takes secrets in http nodes, with text around them', () => {
      loadDefinition(
        workflow(
          '  a: { type: http, with: { url: "http://x", headers: { authorization: "Bearer ${{ secrets.TOKEN }}" } } }',
        ),
        'yaml',
      );
    });

    it('takes secrets in ai nodes', () => {
      loadDefinition(workflow('  a: { type: ai, with: { model: m, prompt: "${{ secrets.X }}" } }'), 'yaml');
    });

    it('takes all top-level nodes in outputs, and only those', () => {
      const outputs = (template: string) => `${workflow(set('a', '1'), set('b', '2'))}\noutputs:\n  x: "${template}"`;
      loadDefinition(outputs('${{ nodes.a.output + nodes.b.output }}'), 'yaml');
      expectFault(outputs('${{ nodes.c.output }}'), 'outputs.x', 6, 'there is no node "c"');
      expectFault(outputs('${{ secrets.c }}'), 'outputs.x', 6, /secrets may stand only/);
    });
  });

  describe('inputs and schedules', () => {
    const top = (...lines: string[]) => ['name: test', ...lines, 'nodes:', set('a', '1')].join('\n');
    const table: [what: string, lines: string[], path: string, line: number, message: string | RegExp][] = [
      [
        'a default of another type',
        ['inputs:', '  x: { type: string, default: 1 }'],
        'inputs.x.default',
        3,
        'expected string, found number',
      ],
      [
        'a default outside of the enum',
        ['inputs:', '  x: { type: string, enum: [a, b], default: c }'],
        'inputs.x.default',
        3,
        'expected one of "a","b", found "c"',
      ],
      [
        'an enum of another type',
        ['inputs:', '  x: { type: number, enum: [1, a] }'],
        'inputs.x.enum[1]',
        3,
        'expected number, found string',
      ],
      ['an unknown type', ['inputs:', '  x: { type: integer }'], 'inputs.x.type', 3, /Invalid option/],
      [
        'a bad cron',
        ['on:', '  schedule: "0 0 * *"'],
        'on.schedule',
        3,
        'expected a cron pattern of five fields, found "0 0 * *"',
      ],
      [
        'an instant where cron stands',
        ['on:', '  schedule: "2030-01-01T00:00:00Z"'],
        'on.schedule',
        3,
        /expected a cron pattern/,
      ],
      ['a cron that never comes', ['on:', '  schedule: "0 0 31 2 *"'], 'on.schedule', 3, '"0 0 31 2 *" never comes'],
      [
        'an unknown timezone',
        ['on:', '  schedule:', '    - cron: "0 0 * * *"', '      timezone: Mars/Base'],
        'on.schedule[0].cron',
        4,
        /Mars\/Base/,
      ],
      [
        'an input that is not declared',
        ['on:', '  schedule: [{ cron: "0 0 * * *", input: { x: 1 } }]'],
        'on.schedule[0].input.x',
        3,
        'the workflow has no input "x"',
      ],
      [
        'an input of another type',
        ['inputs: { x: { type: string } }', 'on:', '  schedule: [{ cron: "0 0 * * *", input: { x: 1 } }]'],
        'on.schedule[0].input.x',
        4,
        'expected string, found number',
      ],
      ['an unknown overlap', ['on: { overlap: queue }'], 'on.overlap', 2, /Invalid option/],
      ['a concurrency of 0', ['concurrency: { max: 0 }'], 'concurrency.max', 2, /Too small/],
      ['an output that is no text', ['outputs: { x: 1 }'], 'outputs.x', 2, 'expected string, received number'],
    ];
    for (const [what, lines, path, line, message] of table) {
      it(`refuses ${what}`, () => expectFault(top(...lines), path, line, message));
    }
  });

  it('refuses more than 2,000 nodes, with those of bodies', () => {
    const nodes = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`n${i}`, { type: 'hold', trigger: 't' }]));
    const poll = { type: 'while', condition: 'true', maxIterations: 1, body: nodes(1_000) };
    expect(checkDefinition({ name: 'a', nodes: { ...nodes(999), poll } })).to.deep.equal([]);
    expect(checkDefinition({ name: 'a', nodes: { ...nodes(1_000), poll } })).to.deep.equal([
      { path: 'nodes', line: null, message: 'a workflow has at most 2000 nodes with those of all bodies, found 2001' },
    ]);
  });

  it('refuses what is no JSON, in a value that did not come as text', () => {
    for (const value of [undefined, 5n, new Date(), () => 1, Number.NaN, new Map()]) {
      const [fault] = checkDefinition({ name: 'a', nodes: { a: { type: 'set', with: { value: { x: value } } } } });
      expect(fault?.path).to.equal('nodes.a.with.value.x');
    }
    for (const value of [null, 'text', 5, []]) expect(checkDefinition(value)[0]).to.include({ path: '' });
    const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
    const deep = (depth: number) =>
      checkDefinition({ name: 'a', nodes: { a: { type: 'set', with: { value: nested(depth) } } } });
    expect(deep(60)).to.deep.equal([]);
    expect(deep(61)[0]?.message).to.match(/more than 64 deep/);
    const round: Record<string, unknown> = {};
    round['self'] = round;
    expect(checkDefinition(round)[0]?.message).to.match(/more than 64 deep/);
  });

  it('finds every fault of a file at once, in the order of its lines', () => {
    const text = [
      'name: Test',
      'nodes:',
      '  a: { type: set, needs: [b, zz], with: { value: 1, x: 1 } }',
      '  b: { type: set, needs: [a], with: { value: "${{ foo }}" } }',
      '  c: { type: http, if: "1 +", with: { url: "${{ nodes.a.output }}" }, retry: { attempts: 0 } }',
      '  while: 5',
      'extra: 1',
    ].join('\n');
    expect(faultsOf(text).map(({ line, path }) => `${line} ${path}`)).to.deep.equal([
      '1 name',
      '3 nodes.a.with.x',
      '3 nodes.a.needs[1]',
      '3 nodes.a.needs',
      '4 nodes.b.with.value',
      '5 nodes.c.retry.attempts',
      '5 nodes.c.if',
      '5 nodes.c.with.url',
      '6 nodes.while',
      '6 nodes.while',
      '7 extra',
    ]);
  });

  it('sums the faults up in the message of the error', () => {
    const error = thrownBy(() => loadDefinition(workflow('  a: 5', '  b: 6'), 'yaml'));
    expect(error.message).to.equal(
      'the workflow is not valid: line 3, nodes.a: expected object, received number (and 1 more)',
    );
  });
});
