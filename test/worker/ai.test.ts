import type { ServerResponse } from 'node:http';
import { createServer } from 'node:net';
import { expect } from 'chai';
import { systemClock } from '../../src/adapters/system/clock.ts';
import type { WorkReport } from '../../src/ports/work.ts';
import { createAiExecutor } from '../../src/worker/ai.ts';
import { createExecutors } from '../../src/worker/executors.ts';
import { createInProcessPool, type InProcessPool } from '../../src/worker/pool.ts';
import type { Data } from '../support/server-process.ts';
import { Endpoint, httpTask, runTask, until } from './support.ts';

/** How soon the endpoint must see an abort. */
const abortMs = 100;

/** Speaks the streamed part of OpenAI's chat completions. */
class Answer {
  readonly #response: ServerResponse;

  constructor(response: ServerResponse) {
    this.#response = response;
    response.setHeader('content-type', 'text/event-stream');
  }

  event(data: unknown): this {
    this.#response.write(`data: ${JSON.stringify(data)}\n\n`);
    return this;
  }

  say(...pieces: string[]): this {
    for (const content of pieces) this.#choice({ content }, null);
    return this;
  }

  end(
    finishReason = 'stop',
    usage: object | null = { prompt_tokens: 11, completion_tokens: 3, total_tokens: 14 },
  ): void {
    this.#choice({}, finishReason);
    if (usage !== null) this.event({ id: 'c', model: 'm', choices: [], usage });
    this.#response.end('data: [DONE]\n\n');
  }

  #choice(delta: object, finish_reason: string | null): void {
    this.event({ id: 'c', model: 'm', created: 1, choices: [{ index: 0, delta, finish_reason }] });
  }
}

describe('an ai node', () => {
  const endpoint = new Endpoint();
  let pool: InProcessPool;

  before(async function () {
    this.timeout(30_000);
    await endpoint.open();
  });
  after(() => endpoint.close());

  beforeEach(() => {
    endpoint.requests.length = 0;
    const models = {
      plain: { baseURL: `${endpoint.url}/v1`, model: 'llama', apiKey: null },
      keyed: { baseURL: `${endpoint.url}/v1/`, model: 'llama', apiKey: 'env:MODEL_KEY' },
      keyless: { baseURL: `${endpoint.url}/v1`, model: 'llama', apiKey: 'env:NOT_SET' },
    };
    const config = { httpAllow: [], models, secrets: null };
    const executors = createExecutors({ config, env: { MODEL_KEY: 'sk-hunter2-hunter2' } });
    pool = createInProcessPool({ executors, clock: systemClock });
  });

  afterEach(() => pool.close());

  const ask = (with_: Record<string, unknown>, id = 'E/ask/1'): Promise<WorkReport> =>
    runTask(pool, httpTask({ model: 'plain', ...with_ }, { id, type: 'ai' }));

  async function output(with_: Record<string, unknown>): Promise<Data> {
    const report = await ask(with_);
    if (report.kind !== 'completed') throw new Error(`expected an output, found ${JSON.stringify(report)}`);
    return report.output;
  }

  async function failure(with_: Record<string, unknown>): Promise<{ code: string; error: string; retryable: boolean }> {
    const report = await ask(with_);
    if (report.kind !== 'failed') throw new Error(`expected a failure, found ${JSON.stringify(report)}`);
    return report;
  }

  const says =
    (...pieces: string[]) =>
    (_: unknown, response: ServerResponse): void =>
      new Answer(response).say(...pieces).end();

  const sent = (): Data => JSON.parse(endpoint.last.body);

  describe('asks', () => {
    it('for a stream of text, and gives it whole with the tokens used', async () => {
      endpoint.answer = says('Hel', 'lo');
      expect(await output({ prompt: 'Hi', system: 'Be brief', temperature: 0.5, maxOutputTokens: 9 })).to.deep.equal({
        text: 'Hello',
        finishReason: 'stop',
        usage: { inputTokens: 11, outputTokens: 3 },
      });
      expect(endpoint.last).to.include({ method: 'POST', url: '/v1/chat/completions' });
      expect(endpoint.last.headers.authorization).to.equal(undefined);
      expect(sent()).to.deep.equal({
        model: 'llama',
        messages: [
          { role: 'system', content: 'Be brief' },
          { role: 'user', content: 'Hi' },
        ],
        temperature: 0.5,
        max_tokens: 9,
        stream: true,
        stream_options: { include_usage: true },
      });
    });

    it('with messages, and with JSON where a template gave no text', async () => {
      endpoint.answer = says('ok');
      const messages = [
        { role: 'system', content: 's' },
        { role: 'user', content: { a: [1] } },
        { role: 'assistant', content: 'b' },
        { role: 'user', content: 'c' },
      ];
      await output({ messages });
      expect(sent().messages).to.deep.equal(
        messages.map(({ role, content }) => ({ role, content: typeof content === 'string' ? content : '{"a":[1]}' })),
      );
      await output({ prompt: [1, 2] });
      expect(sent().messages).to.deep.equal([{ role: 'user', content: '[1,2]' }]);
    });

    it('with its key, whose traces stay here', async () => {
      endpoint.answer = ({ headers }, response) => new Answer(response).say(`key ${headers.authorization}`).end();
      expect((await output({ model: 'keyed', prompt: 'x' })).text).to.equal('key Bearer ***');
      expect(endpoint.last.headers.authorization).to.equal('Bearer sk-hunter2-hunter2');
      endpoint.answer = ({ headers }, response) => {
        response.statusCode = 401;
        response.end(JSON.stringify({ error: { message: `${'.'.repeat(195)}${headers.authorization?.slice(7)}` } }));
      };
      expect(JSON.stringify(await failure({ model: 'keyed', prompt: 'x' }))).to.not.contain('sk-');
    });

    it('again on the same connection', async () => {
      endpoint.answer = says('ok');
      const before = endpoint.connections;
      await output({ prompt: '1' });
      await output({ prompt: '2' });
      await failure({ prompt: '3', schema: { type: 'object' } });
      await output({ prompt: '4' });
      expect(endpoint.connections).to.equal(before + 1);
    });

    it('many at once', async () => {
      endpoint.answer = says('ok');
      const reports = await Promise.all(Array.from({ length: 100 }, (_, i) => ask({ prompt: `${i}` }, `E/ask/${i}`)));
      expect(reports.filter(({ kind }) => kind === 'completed')).to.have.length(100);
    });

    it('and says null for tokens that the endpoint does not count', async () => {
      endpoint.answer = (_, response) => new Answer(response).say('x').end('length', null);
      expect(await output({ prompt: 'x' })).to.deep.equal({
        text: 'x',
        finishReason: 'length',
        usage: { inputTokens: null, outputTokens: null },
      });
    });

    it('and leaves out what the model only thought', async () => {
      endpoint.answer = (_, response) => {
        const delta = { reasoning_content: 'hm' };
        new Answer(response)
          .event({ id: 'c', choices: [{ index: 0, delta, finish_reason: null }] })
          .say('yes')
          .end();
      };
      expect((await output({ prompt: 'x' })).text).to.equal('yes');
    });
  });

  describe('with a schema', () => {
    const schema = {
      type: 'object',
      properties: { n: { type: 'integer', minimum: 1 }, tag: { pattern: '^[a-z]+$' }, id: { pattern: '^[0-9]$' } },
      required: ['n'],
    };

    it('gives the object, and sends the schema', async () => {
      endpoint.answer = says('{"n":', ' 2, "tag": "ab"}');
      expect(await output({ prompt: 'x', schema })).to.deep.equal({
        object: { n: 2, tag: 'ab' },
        finishReason: 'stop',
        usage: { inputTokens: 11, outputTokens: 3 },
      });
      expect(sent().response_format).to.deep.equal({
        type: 'json_schema',
        json_schema: { name: 'response', schema, strict: false },
      });
    });

    it('sends one in strict mode that fits the mode', async () => {
      endpoint.answer = says('{"a": {"b": 1}}');
      const closed = (properties: object) => ({
        type: 'object',
        properties,
        required: Object.keys(properties),
        additionalProperties: false,
      });
      const inner = closed({ b: { type: 'number' } });
      await output({ prompt: 'x', schema: closed({ a: inner }) });
      expect(sent().response_format.json_schema.strict).to.equal(true);
      await output({ prompt: 'x', schema: closed({ a: { ...inner, required: [] } }) });
      expect(sent().response_format.json_schema.strict).to.equal(false);
    });

    it('takes JSON in a block of Markdown', async () => {
      endpoint.answer = says('```json\n{"n": 1}\n```\n');
      expect((await output({ prompt: 'x', schema })).object).to.deep.equal({ n: 1 });
    });

    const misfits: [what: string, answer: string, message: RegExp][] = [
      ['no JSON', 'Sure! {"n": 1}', /is no JSON, it ended by stop \(Sure!/],
      ['nothing', '', /is no JSON/],
      ['a missing key', '{}', /it must have required property 'n'/],
      ['another type', '{"n": "1"}', /n must be integer/],
      ['a broken bound', '{"n": 0}', /n must be >= 1/],
      ['a broken pattern, beside one that fits', '{"n": 1, "tag": "a", "id": "x"}', /id must match pattern/],
      ['a broken pattern', '{"n": 1, "tag": "A"}', /tag must match pattern/],
    ];
    for (const [what, answer, message] of misfits) {
      it(`fails with FS_AI_OUTPUT for ${what}, and may be retried`, async () => {
        endpoint.answer = says(answer);
        const { code, error, retryable } = await failure({ prompt: 'x', schema });
        expect({ code, retryable }).to.deep.equal({ code: 'FS_AI_OUTPUT', retryable: true });
        expect(error)
          .to.match(/^model plain: the answer /)
          .and.match(message);
      });
    }

    it('says when the answer was cut', async () => {
      endpoint.answer = (_, response) => new Answer(response).say('{"n": ').end('length');
      expect((await failure({ prompt: 'x', schema, maxOutputTokens: 2 })).error).to.contain('it ended by length');
    });

    for (const bad of [{ type: 'objekt' }, { $ref: '#/none' }, { properties: { a: { pattern: '(?=a)' } } }]) {
      it(`refuses what is no schema before it asks: ${JSON.stringify(bad)}`, async () => {
        const { code, error, retryable } = await failure({ prompt: 'x', schema: bad });
        expect({ code, retryable }).to.deep.equal({ code: 'FS_INVALID', retryable: false });
        expect(error).to.match(/^with\.schema: /);
        expect(endpoint.requests).to.have.length(0);
      });
    }

    it('reads draft 7 where the schema says so', async () => {
      endpoint.answer = says('[1, "a"]');
      const pair = { type: 'array', items: [{ type: 'number' }, { type: 'string' }] };
      const draft7 = { $schema: 'http://json-schema.org/draft-07/schema#', ...pair };
      expect((await output({ prompt: 'x', schema: draft7 })).object).to.deep.equal([1, 'a']);
    });

    it('is not held up by a pattern', async () => {
      endpoint.answer = says(JSON.stringify({ s: `${'a'.repeat(40)}!` }));
      const startedMs = performance.now();
      await failure({ prompt: 'x', schema: { properties: { s: { pattern: '^(a+)+$' } } } });
      expect(performance.now() - startedMs).to.be.below(1_000);
    });
  });

  describe('fails', () => {
    it('with FS_AI_MODEL for a model without a name here, and says the setting and the names', async () => {
      for (const model of ['nobody', 'toString', '__proto__']) {
        const { code, error, retryable } = await failure({ model, prompt: 'x' });
        expect({ code, retryable }).to.deep.equal({ code: 'FS_AI_MODEL', retryable: false });
        expect(error).to.contain(model).and.contain('FULLSTOP_MODELS names keyed, keyless, plain');
      }
    });

    it('with FS_SECRET when the variable of its key is not set', async () => {
      const { code, error } = await failure({ model: 'keyless', prompt: 'x' });
      expect(code).to.equal('FS_SECRET');
      expect(error).to.contain('NOT_SET');
      expect(endpoint.requests).to.have.length(0);
    });

    for (const [status, retryable] of [
      [302, false],
      [400, false],
      [401, false],
      [404, false],
      [408, true],
      [429, true],
      [500, true],
      [503, true],
    ] as const) {
      it(`with FS_AI_CALL for status ${status}, which ${retryable ? 'may' : 'will not'} be retried, after one call`, async () => {
        endpoint.answer = (_, response) => {
          response.statusCode = status;
          response.setHeader('location', `${endpoint.url}/elsewhere`);
          response.setHeader('content-type', 'application/json');
          response.end(JSON.stringify({ error: { message: 'because' } }));
        };
        const found = await failure({ prompt: 'x' });
        expect(found).to.include({ code: 'FS_AI_CALL', retryable });
        expect(found.error).to.equal(`model plain: expected status 200, found ${status} (because)`);
        expect(endpoint.requests).to.have.length(1);
      });
    }

    it('with FS_AI_CALL when the answer breaks off, and for one that ends without an end', async () => {
      endpoint.answer = (_, response) => {
        new Answer(response).say('half');
        setImmediate(() => response.destroy());
      };
      expect(await failure({ prompt: 'x' })).to.include({ code: 'FS_AI_CALL', retryable: true });
      endpoint.answer = (_, response) => {
        new Answer(response).say('half');
        response.end();
      };
      expect(await failure({ prompt: 'x' })).to.include({ code: 'FS_AI_CALL', retryable: true });
    });

    it('with FS_AI_CALL for an error in the middle, and an answer of another kind', async () => {
      endpoint.answer = (_, response) => {
        new Answer(response).say('half').event({ error: { message: 'overloaded', type: 'server_error' } });
        response.end();
      };
      const found = await failure({ prompt: 'x' });
      expect(found).to.include({ code: 'FS_AI_CALL', retryable: true });
      expect(found.error).to.contain('overloaded');
      endpoint.answer = (_, response) => response.end('<html>');
      expect(await failure({ prompt: 'x' })).to.include({ code: 'FS_AI_CALL' });
    });

    it('with FS_AI_CALL when nobody listens', async () => {
      const closed = createServer().listen(0, '127.0.0.1');
      await new Promise((resolve) => closed.once('listening', resolve));
      const { port } = closed.address() as { port: number };
      await new Promise((resolve) => closed.close(resolve));
      const executor = createAiExecutor({
        models: { m: { baseURL: `http://127.0.0.1:${port}`, model: 'x', apiKey: null } },
        resolveSecret: async () => '',
      });
      const other = createInProcessPool({ executors: new Map([['ai', executor]]), clock: systemClock });
      const report = await runTask(other, httpTask({ model: 'm', prompt: 'x' }, { type: 'ai' }));
      expect(report).to.include({ kind: 'failed', code: 'FS_AI_CALL', retryable: true });
      expect(report).to.have.property('error').that.contains('ECONNREFUSED');
      await other.close();
    });

    it('with FS_AI_OUTPUT for an answer without an end', async () => {
      endpoint.answer = (_, response) => {
        const answer = new Answer(response);
        const more = (): void => {
          while (!response.writableNeedDrain && !response.destroyed) answer.say('x'.repeat(100_000));
          if (!response.destroyed) response.once('drain', more);
        };
        more();
      };
      const found = await failure({ prompt: 'x' });
      expect(found.code).to.equal('FS_AI_OUTPUT');
      expect(found.error).to.contain('16 MiB');
      await until(() => endpoint.sockets.size === 0, 'the connection is closed');
    });

    for (const [with_, place] of [
      [{ prompt: 'x', messages: [{ role: 'user', content: 'x' }] }, 'with'],
      [{}, 'with'],
      [{ messages: [] }, 'with.messages'],
      [{ messages: [{ role: 'tool', content: 'x' }] }, 'with.messages.0.role'],
      [{ prompt: 'x', temperature: 'hot' }, 'with.temperature'],
      [{ prompt: 'x', maxOutputTokens: 0 }, 'with.maxOutputTokens'],
      [{ prompt: 'x', schema: 'text' }, 'with.schema'],
    ] as const) {
      it(`with FS_INVALID and the place: ${JSON.stringify(with_)}`, async () => {
        const { code, error, retryable } = await failure(with_);
        expect({ code, retryable }).to.deep.equal({ code: 'FS_INVALID', retryable: false });
        expect(error).to.match(new RegExp(`^${place}: `));
      });
    }

    it('without a word on the console', async () => {
      const { error, warn, log, info } = console;
      const printed: unknown[] = [];
      const keep = (...parts: unknown[]): void => void printed.push(parts);
      Object.assign(console, { error: keep, warn: keep, log: keep, info: keep });
      try {
        endpoint.answer = (_, response) => void new Answer(response).say('x').event({ error: { message: 'y' } });
        const found = failure({ prompt: 'x', schema: { type: 'object' } });
        await until(() => endpoint.requests.length === 1, 'it is called');
        endpoint.sockets.forEach((socket) => void setTimeout(() => socket.destroy(), 20));
        await found;
      } finally {
        Object.assign(console, { error, warn, log, info });
      }
      expect(printed).to.deep.equal([]);
    });
  });

  describe('aborted', () => {
    const moments: Record<string, (response: ServerResponse) => void> = {
      'while it waits for the first byte': () => {},
      'with the headers there': (response) => response.flushHeaders(),
      'in the middle of an answer': (response) => void new Answer(response).say('Hel'),
      'while an answer streams': (response) => {
        const answer = new Answer(response);
        const timer = setInterval(() => answer.say('x'), 1);
        response.once('close', () => clearInterval(timer));
      },
      'in the middle of a refusal': (response) => {
        response.statusCode = 500;
        response.write('{"error"');
      },
    };
    for (const [what, answer] of Object.entries(moments)) {
      it(`closes the connection at once ${what}`, async () => {
        let closedAtMs = 0;
        endpoint.answer = (_, response) => {
          response.once('close', () => {
            closedAtMs = performance.now();
          });
          answer(response);
        };
        const report = ask({ prompt: 'x' });
        await until(() => endpoint.requests.length === 1, 'it is called');
        await new Promise((resolve) => setTimeout(resolve, 30));
        const abortedAtMs = performance.now();
        pool.abort('E/ask/1');
        expect(await report).to.deep.equal({ kind: 'aborted', outcome: 'aborted' });
        await until(() => closedAtMs > 0, 'the endpoint sees it close');
        expect(closedAtMs - abortedAtMs).to.be.below(abortMs);
        expect(endpoint.sockets.size).to.equal(0);
      });
    }

    it('never calls when it comes first', async () => {
      const report = ask({ prompt: 'x' });
      pool.abort('E/ask/1');
      expect((await report).kind).to.equal('aborted');
      await new Promise((resolve) => setTimeout(resolve, 30));
      expect(endpoint.requests).to.have.length(0);
    });

    it('is what the signal says: an error that is named so is a failure', async () => {
      endpoint.answer = (_, response) => {
        const error = { message: 'AbortError: The operation was aborted', type: 'AbortError', code: 'ABORT_ERR' };
        new Answer(response).say('x').event({ error });
        response.end();
      };
      expect(await failure({ prompt: 'x' })).to.include({ code: 'FS_AI_CALL', retryable: true });
    });

    it('leaves the others alone, 200 at once', async () => {
      const open = new Map<ServerResponse, Answer>();
      endpoint.answer = (_, response) => {
        response.once('close', () => open.delete(response));
        open.set(response, new Answer(response).say('x'));
      };
      const stay = ask({ prompt: 'stay' }, 'E/stay/1');
      const reports = Array.from({ length: 200 }, (_, i) => ask({ prompt: 'x' }, `E/go/${i}`));
      await until(() => open.size === 201, 'all are called');
      const abortedAtMs = performance.now();
      for (let i = 0; i < 200; i++) pool.abort(`E/go/${i}`);
      for (const report of await Promise.all(reports)) expect(report.kind).to.equal('aborted');
      await until(() => open.size === 1, 'the endpoint sees them close');
      expect(performance.now() - abortedAtMs).to.be.below(1_000);
      for (const answer of open.values()) answer.end();
      expect((await stay).kind).to.equal('completed');
    });
  });
});
