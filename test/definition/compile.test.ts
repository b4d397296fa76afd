import { expect } from 'chai';
import { checkDefinition, compileDefinition, loadDefinition, readsOfOutputs } from '../../src/definition/compile.ts';
import { hashDefinition } from '../../src/definition/hash.ts';
import { checkInput } from '../../src/definition/inputs.ts';
import { workflowJsonSchema } from '../../src/definition/json-schema.ts';
import { nodeTypes } from '../../src/nodes/registry.ts';
import { compiled, thrownBy, workflow } from './support.ts';

/** The example of the design, without the type that is not here yet. */
const example = `
name: perimeter-scan
inputs:
  target: { type: string, required: true }
  targets: { type: array, default: [] }
on:
  schedule: "0 2 * * *"            # optional; overlapping runs are a choice: allow, skip
nodes:
  resolve:
    type: http
    with: { url: "https://dns.example/resolve?name=\${{ input.target }}" }
    timeout: 30s
    retry: { attempts: 3, backoff: 1s }
  poll:
    type: while
    needs: [resolve]
    condition: "iter.last == null || iter.last.check.body.state != 'done'"
    maxIterations: 500
    delay: 2s
    body:
      check: { type: http, with: { url: "\${{ nodes.resolve.output.body.statusUrl }}" } }
  approve:
    type: hold                     # Held until \`POST …/triggers/approve\` (or its schedule)
    needs: [poll]
    trigger: approve
  triage:
    type: ai
    needs: [approve]
    if: "nodes.poll.output.last.check.body.findings.size() > 0"
    with: { model: default, prompt: "Rank these findings: \${{ nodes.poll.output.last.check.body.findings }}" }
  onsite:
    type: agent
    needs: [approve]
    with: { pool: datacentre-a, tool: nmap, args: ["-sV", "\${{ input.target }}"] }
`;

describe('loadDefinition', () => {
  it('compiles the example of the design', () => {
    const { compiled: workflow } = loadDefinition(example, 'yaml');
    const [resolve, poll, approve, triage, onsite] = workflow.graph.nodes;
    expect(workflow).to.deep.include({
      name: 'perimeter-scan',
      description: null,
      inputs: { target: { type: 'string', required: true }, targets: { type: 'array', required: false, default: [] } },
      schedules: [{ cron: '0 2 * * *', timezone: null, input: null }],
      overlap: 'skip',
      timeoutMs: null,
      concurrency: null,
      failFast: false,
      onFailure: null,
      outputs: null,
      outputReads: ['triage', 'onsite'],
    });
    expect(resolve).to.deep.include({
      path: 'resolve',
      timeoutMs: 30_000,
      retry: { attempts: 3, backoffMs: 1_000, factor: 2, maxBackoffMs: 300_000 },
      rerun: true,
      continueOnError: false,
      with: { url: 'https://dns.example/resolve?name=${{ input.target }}' },
      reads: [],
    });
    expect(poll?.keys).to.deep.equal({
      condition: "iter.last == null || iter.last.check.body.state != 'done'",
      maxIterations: 500,
      delayMs: 2_000,
      onExhausted: 'complete',
    });
    expect(poll?.body?.path).to.equal('poll');
    expect(poll?.body?.nodes[0]).to.deep.include({ path: 'poll/check', reads: ['resolve'] });
    expect(poll?.body?.nodes[0]?.outer).to.equal(poll);
    expect(poll?.reads).to.deep.equal(['resolve']);
    expect(approve?.keys).to.deep.equal({ trigger: 'approve' });
    expect(triage?.condition).to.equal('nodes.poll.output.last.check.body.findings.size() > 0');
    expect(triage?.reads).to.deep.equal(['poll']);
    expect(workflow.graph.roots).to.deep.equal([resolve]);
    expect(workflow.graph.leaves).to.deep.equal([triage, onsite]);
    expect([triage?.type.where, onsite?.type.where]).to.deep.equal(['worker', 'agent']);
    expect(poll?.needs).to.deep.equal([resolve]);
    expect(resolve?.dependents).to.deep.equal([poll]);
  });

  it('fills in every default', () => {
    const workflow = compiled(`
name: test
timeout: 1h
concurrency: { max: 2 }
onFailure: { workflow: alarm }
inputs: { x: { type: string } }
on: { schedule: [{ cron: "0 0 * * *", timezone: Europe/Berlin }] }
nodes:
  each: { type: foreach, items: "\${{ [1] }}", body: { one: { type: set, with: { value: 1 } } } }
  loop_: { type: while, condition: "true", maxIterations: 1, body: { one: { type: set, with: { value: 1 } } } }
  held: { type: hold, schedule: 5000 }
`);
    expect(workflow).to.deep.include({
      timeoutMs: 3_600_000,
      concurrency: { max: 2, onFull: 'queue' },
      onFailure: { workflow: 'alarm', input: null },
      schedules: [{ cron: '0 0 * * *', timezone: 'Europe/Berlin', input: null }],
      inputs: { x: { type: 'string', required: false } },
    });
    expect(workflow.graph.nodes.map(({ keys }) => keys)).to.deep.equal([
      { items: '${{ [1] }}', concurrency: 10, onItemError: 'fail' },
      { condition: 'true', maxIterations: 1, delayMs: 0, onExhausted: 'complete' },
      { schedule: '5000ms' },
    ]);
    expect(workflow.graph.nodes[2]).to.deep.include({
      condition: null,
      timeoutMs: null,
      queueTimeoutMs: null,
      retry: { attempts: 1, backoffMs: 1_000, factor: 2, maxBackoffMs: 300_000 },
      with: null,
    });
  });

  it('says what a node, and the body in it, reads', () => {
    const workflow = compiled(`
name: test
nodes:
  a: { type: set, with: { value: 1 } }
  b: { type: set, with: { value: 1 } }
  outer:
    type: while
    needs: [a, b]
    if: "nodes.b.status == 'Complete'"
    condition: "true"
    maxIterations: 1
    body:
      x: { type: set, with: { value: 1 } }
      inner:
        type: foreach
        needs: [x]
        items: "\${{ [1] }}"
        body:
          y: { type: set, with: { value: "\${{ [nodes.a.output, nodes.x.output] }}" } }
outputs: { o: "\${{ nodes.b.output }} \${{ has(nodes.a.output.q) }}" }
`);
    const outer = workflow.graph.byName.get('outer');
    const inner = outer?.body?.byName.get('inner');
    expect(outer?.reads).to.have.members(['a', 'b']);
    expect(inner?.reads).to.have.members(['a', 'x']);
    expect(inner?.body?.byName.get('y')?.reads).to.have.members(['a', 'x']);
    expect(readsOfOutputs(workflow)).to.have.members(['a', 'b']);
  });

  describe('secrets', () => {
    const secretsOf = (with_: string) =>
      compiled(`name: a\nnodes: { a: { type: http, with: ${with_} } }`).graph.nodes[0]?.secrets;

    it('are noted with their places and names', () => {
      expect(
        secretsOf(
          '{ url: "http://x/${{secrets.A}}/${{ 1 }}/${{ secrets.B }}${{ secrets.A }}", headers: { "a.b": "Bearer ${{ secrets.C }}" }, json: [1, ["${{ secrets.D }}"]] }',
        ),
      ).to.deep.equal([
        { path: ['url'], names: ['A', 'B', 'A'] },
        { path: ['headers', 'a.b'], names: ['C'] },
        { path: ['json', 1, 0], names: ['D'] },
      ]);
    });

    it('are none where a string only reads like one, or is computed', () => {
      expect(secretsOf('{ url: "http://x/secrets.A", body: "${{ \'$\' + \'{{ secrets.A }}\' }}" }')).to.deep.equal([]);
    });

    it('are noted in bodies too', () => {
      const loop = compiled(
        workflow(
          '  a: { type: while, condition: "true", maxIterations: 1, body: { b: { type: http, with: { url: "${{ secrets.U }}" } } } }',
        ),
      ).graph.nodes[0];
      expect(loop?.secrets).to.deep.equal([]);
      expect(loop?.body?.nodes[0]?.secrets).to.deep.equal([{ path: ['url'], names: ['U'] }]);
    });
  });

  it('reads the leaves for outputs where none are named', () => {
    expect(
      readsOfOutputs(compiled(workflow('  a: { type: hold, trigger: t }', '  b: { type: hold, trigger: t }'))),
    ).to.deep.equal(['a', 'b']);
  });

  it('gives one hash for one content, whatever its layout, order or format', () => {
    const { source, hash } = loadDefinition(example, 'yaml');
    const reversed = Object.fromEntries(Object.entries(source as object).reverse());
    expect(hash).to.match(/^[0-9a-f]{64}$/);
    expect(loadDefinition(JSON.stringify(source, null, 3), 'json').hash).to.equal(hash);
    expect(loadDefinition(reversed).hash).to.equal(hash);
    expect(loadDefinition(example.replace('500', '501'), 'yaml').hash).not.to.equal(hash);
    expect(compileDefinition(source, hash).hash).to.equal(hash);
  });

  it('hashes RFC 8785 canonical JSON with SHA-256', () => {
    // printf '{"a":[1e+21,"é"],"b":null}' | sha256sum
    expect(hashDefinition({ b: null, a: [1e21, 'é'] })).to.equal(
      'e386544a05de5ce7c18048992c2d3ff279070ccd1fca9ca04c56b197542746b6',
    );
  });

  it('refuses with every fault in one error', () => {
    const error = thrownBy(() => compileDefinition({ name: 'a', nodes: { x: { type: 'set' }, y: 1 } }, 'h'));
    expect(error.code).to.equal('FS_INVALID');
    expect((error.details as { faults: unknown[] }).faults).to.have.length(2);
  });

  it('compiles 2,000 nodes in a chain and 2,000 with many needs without delay', () => {
    const chain = Object.fromEntries(
      Array.from({ length: 2_000 }, (_, i) => [
        `n${i}`,
        {
          type: 'set',
          needs: i === 0 ? [] : [`n${i - 1}`],
          with: { value: i === 0 ? 1 : '${{ nodes.n0.output + 1 }}' },
        },
      ]),
    );
    const wide = Object.fromEntries(
      Array.from({ length: 2_000 }, (_, i) => [
        `n${i}`,
        { type: 'hold', trigger: 't', needs: Array.from({ length: Math.min(i, 40) }, (_, j) => `n${i - 1 - j}`) },
      ]),
    );
    for (const [name, nodes] of Object.entries({ chain, wide })) {
      const startedMs = performance.now();
      loadDefinition({ name: 'big', nodes });
      const tookMs = performance.now() - startedMs;
      console.log(`      ${name}: ${tookMs.toFixed(0)} ms`);
      expect(tookMs).to.be.below(2_000);
    }
    (chain['n0'] as { needs: string[] }).needs = ['n1999'];
    expect(checkDefinition({ name: 'big', nodes: chain })).to.have.length(1);
  });
});

describe('checkInput', () => {
  const { inputs } = compiled(`
name: test
inputs:
  text: { type: string, required: true, enum: [a, b] }
  count: { type: number, default: 3 }
  flag: { type: boolean }
  list: { type: array, default: [1] }
  map: { type: object, enum: [{ x: 1, y: 2 }] }
nodes:
  a: { type: hold, trigger: t }
`);
  const check = (input: unknown) => checkInput({ inputs }, input);

  it('fills in defaults and leaves out what is neither given nor has one', () => {
    expect(check({ text: 'a' })).to.deep.equal({ input: { text: 'a', count: 3, list: [1] } });
    expect(check({ text: 'b', count: 0, flag: false, list: [], map: { y: 2, x: 1 } })).to.deep.equal({
      input: { text: 'b', count: 0, flag: false, list: [], map: { y: 2, x: 1 } },
    });
  });

  it('refuses every input that does not fit, at once', () => {
    expect(check({ count: '3', flag: null, list: {}, map: { x: 1 }, other: 1 })).to.deep.equal({
      faults: [
        { path: 'input.other', line: null, message: 'the workflow has no input "other"' },
        { path: 'input.text', line: null, message: 'the input "text" is required' },
        { path: 'input.count', line: null, message: 'expected number, found string' },
        { path: 'input.flag', line: null, message: 'expected boolean, found null' },
        { path: 'input.list', line: null, message: 'expected array, found object' },
        { path: 'input.map', line: null, message: 'expected one of {"x":1,"y":2}, found {"x":1}' },
      ],
    });
  });

  it('takes no input for an empty one, and nothing but an object', () => {
    expect(check(undefined)).to.have.nested.property('faults[0].path', 'input.text');
    expect(check(null)).to.have.nested.property('faults[0].path', 'input.text');
    for (const input of [[], 'a', 5]) expect(check(input)).to.have.nested.property('faults[0].path', 'input');
  });

  it('refuses an input named __proto__', () => {
    expect(check(JSON.parse('{"text": "a", "__proto__": {"count": 5}}'))).to.have.nested.property(
      'faults[0].message',
      'the workflow has no input "__proto__"',
    );
  });
});

describe('workflowJsonSchema', () => {
  it('describes the file with every node type', () => {
    const schema = workflowJsonSchema();
    expect(schema['$schema']).to.equal('https://json-schema.org/draft/2020-12/schema');
    expect(schema['required']).to.deep.equal(['name', 'nodes']);
    const text = JSON.stringify(schema);
    for (const type of nodeTypes.keys()) expect(text).to.include(`"const":"${type}"`);
    expect(schema).to.have.nested.property('$defs.nodes.minProperties', 1);
    expect(schema).to.have.nested.property('properties.timeout.title', 'Duration');
  });
});
