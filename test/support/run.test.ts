import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { failureText, type Report } from './reporter.ts';
import { failureLines, runSuite } from './run.ts';

describe('npm test', () => {
  let folder: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'fullstop-run-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  async function run(source: string, graceMs?: number): Promise<Report> {
    const file = join(folder, 'some.test.mjs');
    writeFileSync(file, `import assert from 'node:assert';\n${source}`);
    const reportFile = join(folder, 'report.json');
    return runSuite('some', {
      files: [file],
      reportFile,
      stdio: 'ignore',
      ...(graceMs === undefined ? {} : { graceMs }),
    });
  }

  it('counts what passed and was skipped, and tells of nothing else', async () => {
    const report = await run(`it('goes', () => {}); it.skip('waits', () => {});`);
    expect(report).to.deep.equal({ passed: 1, failed: 0, skipped: 1, failures: [] });
  });

  it('keeps of each test that failed its full title, its message, the difference and where', async () => {
    const report = await run(`
      describe('outer', () => {
        it('compares', () => assert.deepStrictEqual({ a: 1, b: 2 }, { a: 1, b: 3 }));
        it('goes', () => {});
        describe('inner', () => it('throws', async () => { throw new TypeError('no such thing'); }));
      });`);
    expect(report).to.include({ passed: 1, failed: 2, skipped: 0 });
    const [compared, thrown] = report.failures;
    expect(report.failures.map(({ title }) => title)).to.deep.equal(['outer compares', 'outer inner throws']);
    expect(compared?.text).to.match(/^AssertionError.*\n/);
    expect(compared?.text)
      .to.match(/^ *-.*"b": 2$/m)
      .and.match(/^ *\+.*"b": 3$/m);
    expect(thrown?.text).to.match(/^TypeError: no such thing\n +at .*some\.test\.mjs:6/);
  });

  it('tells of a hook that failed', async () => {
    const { failures } = await run(
      `describe('outer', () => { before(() => { throw new Error('not today'); }); it('goes', () => {}); });`,
    );
    expect(failures).to.have.length(1);
    expect(failures[0]?.title).to.include('"before all" hook');
    expect(failures[0]?.text).to.match(/^Error: not today\n/);
  });

  it('tells of a process that ended before its tests, with what', async () => {
    const { failures, ...counts } = await run(`it('goes', () => process.kill(process.pid, 'SIGKILL'));`);
    expect(counts).to.deep.equal({ passed: 0, failed: 1, skipped: 0 });
    expect(failures).to.deep.equal([{ title: 'suite some', text: 'ended with SIGKILL before its tests had ended' }]);
  });

  it('tells of a suite without a test', async () => {
    const { failed, failures } = await run('');
    expect(failed).to.equal(1);
    expect(failures).to.deep.equal([{ title: 'suite some', text: 'ran no test' }]);
  });

  it('ends a process that does not exit once its tests have ended', async () => {
    // Opened when the tests and what looks at them have ended.
    const { failed, failures } = await run(
      `it('goes', () => {}); process.once('beforeExit', () => setInterval(() => {}, 1_000));`,
      300,
    );
    expect(failed).to.equal(1);
    expect(failures).to.deep.equal([{ title: 'suite some', text: 'did not exit: something was left open' }]);
  });

  it('of a failure tells no more than 30 lines, none of them endless', () => {
    const error = new Error(Array.from({ length: 100 }, (_, line) => `${line} ${'x'.repeat(10_000)}`).join('\n'));
    Object.assign(error, { expected: 'a\n'.repeat(100), actual: 'b\n'.repeat(100), showDiff: true });
    const lines = failureText(error).split('\n');
    expect(lines.length).to.be.at.most(30);
    expect(Math.max(...lines.map(({ length }) => length))).to.be.below(1_000);
    expect(lines).to.include('… 90 more lines');
  });

  it('tells the first failures in full, and of all the titles', () => {
    const failures = Array.from({ length: 50 }, (_, index) => ({
      suite: 'some',
      title: `t${index + 1}.`,
      text: 'why\nand where',
    }));
    const lines = failureLines(failures);
    expect(lines.slice(0, 4)).to.deep.equal(['=== failures', '1) some: t1.', '   why', '   and where']);
    expect(lines).to.include('50) some: t50.');
    expect(lines.filter((line) => line === '   why')).to.have.length(20);
    expect(failureLines([])).to.deep.equal([]);
  });
});
