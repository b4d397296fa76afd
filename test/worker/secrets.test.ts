import { randomBytes } from 'node:crypto';
import { globSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import fc from 'fast-check';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { FullstopError } from '../../src/errors.ts';
import type { Task, WorkReport } from '../../src/ports/work.ts';
import { AbortedAs } from '../../src/worker/executor.ts';
import { createExecutors } from '../../src/worker/executors.ts';
import { createInProcessPool, type InProcessPool } from '../../src/worker/pool.ts';
import { Redactor } from '../../src/worker/redact.ts';
import {
  type HidingExecutor,
  openSecrets,
  redact,
  resolvingSecrets,
  type SecretSource,
  withSecrets,
} from '../../src/worker/secrets.ts';
import { type Data, ServerProcess } from '../support/server-process.ts';
import { Endpoint, httpTask, runTask, until } from './support.ts';

const quiet = (): void => {};
const never = new AbortController().signal;

function sourceOf(values: Record<string, string>): SecretSource {
  return openSecrets({ kind: 'env', prefix: '' }, values);
}

async function failureOf(run: Promise<unknown>): Promise<FullstopError> {
  try {
    await run;
  } catch (error) {
    return error as FullstopError;
  }
  throw new Error('expected a failure');
}

describe('secrets', () => {
  describe('in a task', () => {
    const source = sourceOf({ TOKEN: 'value-of-token', OTHER: 'value-of-other' });
    const at = (...path: (string | number)[]) => ({ path, names: ['TOKEN'] });

    it('are filled in where the definition names them, and given by value', async () => {
      const with_ = {
        url: 'http://x',
        headers: { a: 'Bearer ${{ secrets.TOKEN }}' },
        json: [{ k: '${{secrets.TOKEN}}' }],
      };
      const secrets = [at('headers', 'a'), at('json', 0, 'k')];
      const { task, values } = await withSecrets(httpTask(with_, { secrets }), source);
      expect(task.with).to.deep.equal({
        url: 'http://x',
        headers: { a: 'Bearer value-of-token' },
        json: [{ k: 'value-of-token' }],
      });
      expect(values).to.deep.equal(['value-of-token']);
    });

    it('leave the task that was given as it is', async () => {
      const given = httpTask({ headers: { a: '${{ secrets.TOKEN }}' } }, { secrets: [at('headers', 'a')] });
      const before = structuredClone(given);
      await withSecrets(given, source);
      expect(given).to.deep.equal(before);
    });

    it('fill in more than one in a string', async () => {
      const secrets = [{ path: ['a'], names: ['TOKEN', 'OTHER', 'TOKEN'] }];
      const with_ = { a: '${{ secrets.TOKEN }}:${{ secrets.OTHER }}:${{ secrets.TOKEN }}' };
      expect((await withSecrets(httpTask(with_, { secrets }), source)).task.with).to.deep.equal({
        a: 'value-of-token:value-of-other:value-of-token',
      });
    });

    it('are not resolved in data that reads like a reference', async () => {
      const secrets = [at('headers', 'a')];
      const with_ = {
        headers: { a: '${{ secrets.TOKEN }}', b: '${{ secrets.TOKEN }}' },
        body: '${{ secrets.TOKEN }} ${{ secrets.OTHER }}',
      };
      const { task } = await withSecrets(httpTask(with_, { secrets }), source);
      expect(task.with).to.deep.equal({ ...with_, headers: { ...with_.headers, a: 'value-of-token' } });
    });

    it('are not resolved under a name that the definition does not have at that place', async () => {
      const with_ = { a: '${{ secrets.TOKEN }} and ${{ secrets.OTHER }}' };
      const { task, values } = await withSecrets(httpTask(with_, { secrets: [at('a')] }), source);
      expect(task.with).to.deep.equal({ a: 'value-of-token and ${{ secrets.OTHER }}' });
      expect(values).to.deep.equal(['value-of-token']);
    });

    it('refuse data with the same reference in the same string', async () => {
      const with_ = { a: '${{ secrets.TOKEN }} and ${{ secrets.TOKEN }}' };
      const error = await failureOf(withSecrets(httpTask(with_, { secrets: [at('a')] }), source));
      expect(error).to.include({ code: 'FS_SECRET', retryable: false });
      expect(error.message).to.contain('secrets.TOKEN').and.not.contain('value-of');
    });

    it('are not filled in again by what a value itself holds', async () => {
      const odd = sourceOf({ TOKEN: '${{ secrets.OTHER }} $& $1', OTHER: 'x' });
      const secrets = [{ path: ['a'], names: ['TOKEN', 'OTHER'] }];
      const { task } = await withSecrets(httpTask({ a: '${{ secrets.TOKEN }}${{ secrets.OTHER }}' }, { secrets }), odd);
      expect(task.with).to.deep.equal({ a: '${{ secrets.OTHER }} $& $1x' });
    });

    it('fail a task whose place is not there', async () => {
      for (const path of [['b'], ['a', 'length'], ['__proto__', 'a']]) {
        const task = httpTask({ a: '${{ secrets.TOKEN }}' }, { secrets: [{ path, names: ['TOKEN'] }] });
        expect(await failureOf(withSecrets(task, source)), path.join('.')).to.include({ code: 'FS_INVALID' });
      }
    });
  });

  describe('from the environment', () => {
    it('are the variables with the prefix, read at each call', async () => {
      const env: Record<string, string> = { APP_A: 'one', A: 'two' };
      const source = openSecrets({ kind: 'env', prefix: 'APP_' }, env);
      expect(await source.get('A')).to.equal('one');
      env['APP_A'] = 'three';
      expect(await source.get('A')).to.equal('three');
    });

    it('fail by name when they are not set or empty', async () => {
      const source = openSecrets({ kind: 'env', prefix: 'APP_' }, { APP_EMPTY: '' });
      for (const name of ['NONE', 'EMPTY']) {
        const error = await failureOf(source.get(name));
        expect(error).to.include({ code: 'FS_SECRET', retryable: false });
        expect(error.message).to.contain(`secrets.${name}`).and.to.contain(`APP_${name}`);
      }
    });

    it('fail where no source is set up, and say which setting it is', async () => {
      const error = await failureOf(openSecrets(null, { A: 'x' }).get('A'));
      expect(error.code).to.equal('FS_SECRET');
      expect(error.message).to.contain('FULLSTOP_SECRETS');
    });
  });

  describe('from a file', () => {
    let directory: string;
    let path: string;
    let source: SecretSource;

    beforeEach(() => {
      directory = mkdtempSync(join(tmpdir(), 'fullstop-secrets-'));
      path = join(directory, 'secrets');
      source = openSecrets({ kind: 'file', path }, {});
    });

    afterEach(() => rmSync(directory, { recursive: true }));

    it('are the texts of a JSON object', async () => {
      writeFileSync(path, '{"A": "one", "B": "two\\nlines", "N": 5}');
      expect([await source.get('A'), await source.get('B')]).to.deep.equal(['one', 'two\nlines']);
      expect((await failureOf(source.get('N'))).message)
        .to.contain('secrets.N')
        .and.not.contain('5');
      for (const name of ['C', 'toString', '__proto__']) {
        expect(await failureOf(source.get(name)), name).to.include({ code: 'FS_SECRET' });
      }
    });

    it('are the lines of a file of variables', async () => {
      writeFileSync(path, '# of the team\nA=one\nexport B="two # words"\n\nC= three =3 \n');
      expect(await Promise.all(['A', 'B', 'C'].map((name) => source.get(name)))).to.deep.equal([
        'one',
        'two # words',
        'three =3',
      ]);
    });

    it('are read again when the file has changed, and not before', async () => {
      writeFileSync(path, 'A=one\n');
      expect(await source.get('A')).to.equal('one');
      const { mtimeMs } = statSync(path);
      do writeFileSync(path, 'A=two\n');
      while (statSync(path).mtimeMs === mtimeMs);
      expect(await source.get('A')).to.equal('two');
    });

    it('fail without a word of the file when it cannot be read, which may pass', async () => {
      const missing = await failureOf(source.get('A'));
      expect(missing).to.include({ code: 'FS_SECRET', retryable: true });
      expect(missing.message).to.contain('ENOENT');
      for (const text of ['{"A": hunter2}', '["hunter2"]', '"hunter2"']) {
        writeFileSync(path, text);
        const error = await failureOf(source.get('A'));
        expect(error, text).to.include({ code: 'FS_SECRET', retryable: true });
        expect(error.message).to.not.contain('hunter2');
        expect(error.cause).to.equal(undefined);
      }
    });
  });

  describe('are hidden', () => {
    const secret = 'p/s+s wörd"\\&=1';
    const rows: [string, string][] = [
      ['as they are', secret],
      ['in base64', Buffer.from(secret).toString('base64')],
      ['in base64 for URLs', Buffer.from(secret).toString('base64url')],
      ['URL-encoded', encodeURIComponent(secret)],
      ['URL-encoded with small letters', encodeURIComponent(secret).replace(/%../g, (code) => code.toLowerCase())],
      ['as a form', new URLSearchParams({ k: secret }).toString().slice(2)],
      ['as JSON', JSON.stringify(secret).slice(1, -1)],
    ];
    for (const [what, text] of rows) {
      it(`${what}`, () => {
        expect(redact(`a ${text} b`, [secret])).to.equal('a *** b');
        expect(redact(`${text}${text}`, [secret])).to.match(/^(\*\*\*)+$/);
      });
    }

    it('in the base64 of something longer, wherever they begin in it', () => {
      const value = 'correct-horse-battery';
      for (const before of ['', 'u', 'us', 'use', 'user', 'user:']) {
        for (const after of ['', ':', ':x', ':xy']) {
          const hidden = redact(Buffer.from(before + value + after).toString('base64'), [value]);
          expect(hidden, `${before}${after}`).to.contain('***');
          expect(Buffer.from(hidden.replaceAll('*', ''), 'base64').toString()).to.not.match(/orrec|attery|horse/);
        }
      }
    });

    it('in keys, lists and numbers of a value, which stays what it is otherwise', () => {
      const value = { 'x-1234567-y': [1234567, '1234567', 12, null, true, { a: 'b 1234567' }] };
      expect(redact(value, ['1234567'])).to.deep.equal({ 'x-***-y': ['***', '***', 12, null, true, { a: 'b ***' }] });
      expect(redact({ a: 'b', n: 1 }, ['other'])).to.deep.equal({ a: 'b', n: 1 });
    });

    it('where they overlap', () => {
      expect(redact('xabcdefghiy', ['abcdef', 'defghi'])).to.equal('x***y');
      expect(redact('ababab', ['abab'])).to.equal('***');
      expect(redact('token-long', ['token-long', 'token'])).to.equal('***');
    });

    it('by their lines, and by the parts of a URL', () => {
      const key = '-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n';
      expect(redact(`  MIIEvQIBADANBg\n`, [key])).to.equal('  ***\n');
      const hook = 'https://hooks.example/services/T0123/B4567?token=abcdefgh';
      expect(redact('POST https://hooks.example/services/T0123/B4567: no', [hook])).to.equal('POST ***: no');
      expect(redact('token abcdefgh at /services/T0123/B4567', [hook])).to.equal('token *** at ***');
    });

    it('from four characters on', () => {
      expect(redact('abc abcd', ['abc'])).to.equal('abc abcd');
      expect(redact('abc abcd', ['abcd'])).to.equal('abc ***');
    });

    it('in a stream, however it is cut', () => {
      const seed = Number(process.env['SEED'] ?? Date.now() % 1e9);
      const pieces = fc.array(fc.constantFrom('a', 'b', 'ab', 'abc', 'abcabd', ' ', 'xyz', 'abd', 'cabca'), {
        maxLength: 30,
      });
      fc.assert(
        fc.property(pieces, fc.constantFrom('abcabd', 'aaaa', 'abca', 'abcabdabc'), (parts, value) => {
          const redactor = new Redactor([value]);
          let out = '';
          const stream = redactor.stream((text) => {
            out += text;
          });
          for (const part of parts) stream.write(part);
          stream.end();
          // Neighbouring finds may be one mask or two.
          const once = (text: string) => text.replace(/(\*\*\*)+/g, '***');
          expect(once(out)).to.equal(once(redactor.text(parts.join(''))));
        }),
        { seed, numRuns: 2_000 },
      );
    });

    it('in a stream without holding back what cannot be one', () => {
      const out: string[] = [];
      const stream = new Redactor(['secret-value']).stream((text) => out.push(text));
      stream.write('line one\n');
      stream.write('my sec');
      stream.write('ond\n');
      stream.write('secret-');
      stream.write('value\n');
      expect(out).to.deep.equal(['line one\n', 'my ', 'second\n', '***\n']);
    });

    it('in a megabyte within a second', () => {
      const value = randomBytes(3_000)
        .toString('base64')
        .replace(/(.{64})/g, '$1\n');
      const text = randomBytes(2 ** 20).toString('base64');
      const startedMs = performance.now();
      redact(text, [value, 'another-secret']);
      expect(performance.now() - startedMs).to.be.below(1_000);
    });
  });

  describe('around an executor', () => {
    const secrets = [{ path: ['k'], names: ['TOKEN'] }];
    const task = (over: Partial<Task> = {}) => httpTask({ k: '${{ secrets.TOKEN }}' }, { secrets, ...over });
    const source = sourceOf({ TOKEN: 'value-of-token' });

    function running(run: HidingExecutor['run']) {
      return resolvingSecrets({ run, close: async () => {} }, source);
    }

    it('are known to it, and to nobody who reads its output', async () => {
      let seen: unknown;
      const executor = running(async ({ with: with_ }) => {
        seen = with_;
        return { echo: with_ };
      });
      expect(await executor.run(task(), never, quiet)).to.deep.equal({ echo: { k: '***' } });
      expect(seen).to.deep.equal({ k: 'value-of-token' });
    });

    it('leave errors with their code and whether they may be retried, and nothing behind the message', async () => {
      const cause = new Error('value-of-token');
      const executor = running(() =>
        Promise.reject(
          new FullstopError('FS_HTTP_STATUS', 'no value-of-token', {
            cause,
            retryable: false,
            details: { exitCode: 1, tail: 'value-of-token' },
          }),
        ),
      );
      const error = await failureOf(executor.run(task(), never, quiet));
      expect(error).to.include({ code: 'FS_HTTP_STATUS', message: 'no ***', retryable: false });
      expect(error.cause).to.equal(undefined);
      expect(error.details).to.deep.equal({ exitCode: 1, tail: '***' });
      expect(error.stack).to.not.contain('value-of-token');
      const other = running(() => Promise.reject(new TypeError('odd value-of-token')));
      expect(await failureOf(other.run(task(), never, quiet))).to.include({ code: 'FS_FAILED', message: 'odd ***' });
    });

    it('leave what says how an abort ended', async () => {
      const named = resolvingSecrets(
        { run: () => Promise.reject(new AbortedAs('forced')), close: async () => {} },
        sourceOf({ TOKEN: 'forced' }),
      );
      expect(await failureOf(named.run(task(), never, quiet))).to.include({ outcome: 'forced' });
    });

    it('are hidden in its log, also across pieces', async () => {
      const printed: [string, string][] = [];
      const executor = running(async (_task, _signal, log) => {
        log('stdout', 'a value-of');
        log('stderr', 'b');
        log('stdout', '-token c value-');
      });
      await executor.run(task(), never, (stream, text) => printed.push([stream, text]));
      expect(printed).to.deep.equal([
        ['stdout', 'a '],
        ['stderr', 'b'],
        ['stdout', '*** c '],
        ['stdout', 'value-'],
      ]);
    });

    it('can be hidden by it before it cuts a text', async () => {
      const executor = running(async (_task, _signal, _log, hide = (text) => text) =>
        hide('x value-of-token').slice(0, 8),
      );
      expect(await executor.run(task(), never, quiet)).to.equal('x ***');
    });

    it('fail the task before it runs when one is unknown', async () => {
      const executor = running(() => Promise.reject(new Error('it ran')));
      const error = await failureOf(executor.run(task({ secrets: [{ path: ['k'], names: ['NONE'] }] }), never, quiet));
      expect(error.code).to.equal('FS_SECRET');
    });
  });

  describe('of http nodes', () => {
    const endpoint = new Endpoint();
    let pool: InProcessPool;

    before(() => endpoint.open());
    after(() => endpoint.close());

    beforeEach(() => {
      const config = { httpAllow: ['127.0.0.1'], models: {}, secrets: { kind: 'env' as const, prefix: 'T_' } };
      const executors = createExecutors({ config, env: { T_KEY: 'hunter2-hunter2', T_PATH: 'Path-Of-Secrets' } });
      pool = createInProcessPool({ executors, clock: systemClock });
    });

    afterEach(() => pool.close());

    const call = (with_: Record<string, unknown>, ...secrets: Task['secrets']): Promise<WorkReport> =>
      runTask(pool, httpTask({ url: endpoint.url, ...with_ }, { secrets }));

    it('reach the endpoint, and come back as ***', async () => {
      endpoint.answer = ({ headers }, response) => {
        response.setHeader('x-echo', String(headers['authorization']));
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify(headers));
      };
      const report = await call(
        { headers: { authorization: 'Bearer ${{ secrets.KEY }}' } },
        { path: ['headers', 'authorization'], names: ['KEY'] },
      );
      expect(endpoint.last.headers.authorization).to.equal('Bearer hunter2-hunter2');
      expect(JSON.stringify(report)).to.not.contain('hunter2');
      expect(report).to.have.nested.property('output.headers.x-echo', 'Bearer ***');
      expect(report).to.have.nested.property('output.body.authorization', 'Bearer ***');
    });

    it('are hidden as the user and password of a URL', async () => {
      endpoint.answer = ({ headers }, response) => response.end(headers.authorization);
      const report = await call(
        { url: `http://user:\${{ secrets.KEY }}@127.0.0.1:${endpoint.port}/` },
        { path: ['url'], names: ['KEY'] },
      );
      expect(endpoint.last.headers.authorization).to.equal(
        `Basic ${Buffer.from('user:hunter2-hunter2').toString('base64')}`,
      );
      const { body } = (report as Data).output;
      expect(Buffer.from(body.replaceAll('*', '').slice(6), 'base64').toString()).to.not.match(/unter|er2/);
    });

    it('leave no part where a message is cut', async () => {
      for (let before = 180; before <= 205; before++) {
        endpoint.answer = (_, response) => {
          response.statusCode = 500;
          response.end(`${'.'.repeat(before)}hunter2-hunter2`);
        };
        const report = await call({ body: '${{ secrets.KEY }}' }, { path: ['body'], names: ['KEY'] });
        expect(JSON.stringify(report)).to.not.contain('hunt');
      }
    });

    it('leave no part in what is said about a bad answer or a bad address', async () => {
      endpoint.answer = (_, response) => {
        response.setHeader('content-type', 'application/json');
        response.end('{"a": hunter2-hunter2}');
      };
      const report = await call({ body: '${{ secrets.KEY }}' }, { path: ['body'], names: ['KEY'] });
      expect(report).to.include({ kind: 'failed', code: 'FS_FAILED' });
      expect(JSON.stringify(report)).to.not.contain('unter');
      for (let before = 80; before <= 101; before++) {
        const url = `${'x'.repeat(before)}\${{ secrets.KEY }}`;
        const refused = await call({ url }, { path: ['url'], names: ['KEY'] });
        expect(refused).to.include({ kind: 'failed', code: 'FS_INVALID' });
        expect(JSON.stringify(refused)).to.not.contain('hunt');
      }
    });

    it('leave no part where the address in a message is cut', async () => {
      endpoint.answer = (_, response) => {
        response.statusCode = 404;
        response.end();
      };
      for (let before = 150; before <= 180; before++) {
        const url = `${endpoint.url}/${'x'.repeat(before)}/\${{ secrets.PATH }}`;
        const report = await call({ url }, { path: ['url'], names: ['PATH'] });
        expect(report).to.include({ kind: 'failed', code: 'FS_HTTP_STATUS' });
        expect(JSON.stringify(report)).to.not.contain('Path');
      }
    });

    it('send data that reads like a reference as it is', async () => {
      endpoint.answer = ({ body }, response) => response.end(body);
      const report = await call({ body: '${{ secrets.KEY }}' });
      expect(endpoint.last.body).to.equal('${{ secrets.KEY }}');
      expect(report).to.have.nested.property('output.body', '${{ secrets.KEY }}');
    });
  });

  describe('of a server', () => {
    /** Answers with everything it was sent, in every place that a service can answer in. */
    const endpoint = new Endpoint();
    const canary = `C${randomBytes(18).toString('base64')}`;
    const modelKey = `M${randomBytes(18).toString('base64')}`;
    const marks = [canary, modelKey].flatMap((value) => [
      value,
      encodeURIComponent(value),
      ...['', '.', '..'].map((start) =>
        Buffer.from(start + value)
          .toString('base64')
          .slice(4, -4),
      ),
      // What a cut would leave.
      value.slice(0, 10),
      value.slice(-10),
    ]);
    let server: ServerProcess;

    before(async () => {
      await endpoint.open();
      endpoint.answer = ({ url, headers, body }, response) => {
        const echo = JSON.stringify({ url, headers, body });
        const all = [echo, encodeURIComponent(echo), Buffer.from(echo).toString('base64')].join(' ');
        if (url.startsWith('/break')) return void response.destroy();
        response.statusCode = /fail/.test(url) ? 500 : 200;
        response.setHeader('x-echo', Buffer.from(echo).toString('base64'));
        response.setHeader('x-key', String(headers['authorization']));
        if (url.endsWith('/chat/completions') && response.statusCode === 200) {
          response.setHeader('content-type', 'text/event-stream');
          const event = (delta: object, finish_reason: string | null) =>
            response.write(`data: ${JSON.stringify({ id: 'x', choices: [{ index: 0, delta, finish_reason }] })}\n\n`);
          event({ role: 'assistant', content: all.slice(0, 40) }, null);
          event({ content: all.slice(40) }, null);
          event({}, 'stop');
          return void response.end('data: [DONE]\n\n');
        }
        if (url.startsWith('/text')) return void response.end(all);
        response.setHeader('content-type', 'application/json');
        response.end(JSON.stringify({ error: { message: all }, [String(headers['authorization'])]: all }));
      };
      const models = {
        echo: { baseURL: `${endpoint.url}/v1`, model: 'm', apiKey: 'env:CANARY_MODEL_KEY' },
        failing: { baseURL: `${endpoint.url}/fail/v1`, model: 'm', apiKey: 'env:CANARY_MODEL_KEY' },
      };
      server = await ServerProcess.start({
        env: {
          FULLSTOP_HTTP_ALLOW: '127.0.0.1',
          FULLSTOP_SECRETS: 'env:CANARY_',
          FULLSTOP_MODELS: JSON.stringify(models),
          FULLSTOP_LOG: 'trace',
          CANARY_TOKEN: canary,
          CANARY_MODEL_KEY: modelKey,
        },
      });
    });

    after(async () => {
      await server?.close();
      await endpoint.close();
    });

    it('leave no trace in records, events, results, receipts, logs and files', async () => {
      const header = { authorization: 'Bearer ${{ secrets.TOKEN }}' };
      const http = (path: string, more: object = {}) => ({
        type: 'http',
        continueOnError: true,
        with: { url: `${endpoint.url}${path}`, headers: header, ...more },
      });
      const ai = (model: string, more: object = {}) => ({
        type: 'ai',
        continueOnError: true,
        with: { model, prompt: 'say ${{ secrets.TOKEN }}', ...more },
      });
      const nodes = {
        json: http('/json'),
        text: http('/text?k=${{ secrets.TOKEN }}', { method: 'POST', json: { k: '${{ secrets.TOKEN }}' } }),
        fail: http('/fail/${{ secrets.TOKEN }}', { method: 'POST', body: '${{ secrets.TOKEN }}' }),
        broken: http('/break?${{ secrets.TOKEN }}'),
        basic: { ...http('/text'), with: { url: `http://u:\${{ secrets.TOKEN }}@127.0.0.1:${endpoint.port}/text` } },
        nowhere: { ...http(''), with: { url: 'nowhere ${{ secrets.TOKEN }}' } },
        bad: { ...http('/json'), with: { url: endpoint.url, headers: { 'a b': '${{ secrets.TOKEN }}' } } },
        said: ai('echo'),
        shaped: ai('echo', { schema: { type: 'object' } }),
        refused: ai('failing'),
        unknown: ai('${{ secrets.TOKEN }}'),
        missing: { ...http('/text'), with: { url: '${{ secrets.NOT_SET }}' } },
        after: { type: 'set', needs: ['text', 'said'], with: { value: '${{ nodes.text.output }}' } },
      };
      const id = await server.run({ name: 'canary', nodes } as never);
      const record = await server.record(id);
      const sent = endpoint.requests.filter(({ headers, url, body }) =>
        (url + body + headers.authorization).includes(canary),
      );
      expect(sent.length, 'calls that had the secret').to.be.at.least(4);
      expect(endpoint.requests.some(({ headers }) => headers.authorization === `Bearer ${modelKey}`)).to.equal(true);
      expect(record.status).to.equal('Complete');
      expect(record.nodes.fail.errorCode).to.equal('FS_HTTP_STATUS');
      expect(record.nodes.shaped.errorCode).to.equal('FS_AI_OUTPUT');
      expect(record.nodes.refused.errorCode).to.equal('FS_AI_CALL');
      expect(record.nodes.unknown.errorCode).to.equal('FS_AI_MODEL');
      expect(record.nodes.missing).to.include({ errorCode: 'FS_SECRET' });
      expect(record.nodes.missing.error).to.contain('NOT_SET');

      // One that is stopped while it has the secret.
      endpoint.answer = () => {};
      const before = endpoint.requests.length;
      const stopped = await server.run({ name: 'parked', nodes: { park: http('/park'), ask: ai('echo') } } as never);
      await until(() => endpoint.requests.length === before + 2, 'both calls arrive');
      await server.ok('POST', `/api/executions/${stopped}/stop`, {});
      await server.record(stopped);

      const seen: Record<string, unknown> = {};
      for (const [name, execution] of [
        ['ended', id],
        ['stopped', stopped],
      ] as const) {
        seen[`record of ${name}`] = await server.ok('GET', `/api/executions/${execution}`);
        seen[`events of ${name}`] = await server.events(execution);
        seen[`results of ${name}`] = await server.ok('GET', `/api/executions/${execution}/results`);
      }
      seen['receipt'] = await server.ok('GET', `/api/executions/${stopped}/stop`);
      seen['list'] = await server.ok('GET', '/api/executions');
      seen['definition'] = await server.ok('GET', '/api/workflows/canary');
      seen['audit'] = await server.ok('GET', '/api/audit');
      seen['metrics'] = await server.ok('GET', '/metrics');
      const { stdout, stderr } = await server.signal('SIGTERM');
      seen['stdout'] = stdout;
      seen['stderr'] = stderr;
      expect(JSON.stringify(seen['results of ended'])).to.contain('***');
      for (const [what, value] of Object.entries(seen)) expectNoTrace(what, Buffer.from(JSON.stringify(value)));
      const files = globSync('**/*', { cwd: server.dataDir }).filter((file) =>
        statSync(join(server.dataDir, file)).isFile(),
      );
      expect(files.length).to.be.greaterThan(1);
      for (const file of files) expectNoTrace(file, readFileSync(join(server.dataDir, file)));
    });

    function expectNoTrace(what: string, bytes: Buffer): void {
      for (const mark of marks) expect(bytes.includes(mark), `${what} has ${mark}`).to.equal(false);
    }
  });
});
