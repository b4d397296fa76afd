/** The mixed load of the crash loop: what it starts, stops and triggers, and what it was promised. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../src/ports/ids.ts';
import type { CheckedNode } from '../support/check-invariants.ts';
import { type Data, type HttpAnswer, hasEnded } from '../support/server-process.ts';

export interface LoadWorkflow {
  name: string;
  nodes: Record<string, CheckedNode>;
  [key: string]: unknown;
}

const set = (value: unknown, needs: string[] = []): CheckedNode => ({ type: 'set', needs, with: { value } });

/** One of each way to run; `url` is the endpoint's. */
export function loadWorkflows(url: string): LoadWorkflow[] {
  const n = { inputs: { n: { type: 'number', default: 0 } } };
  const chain: Record<string, CheckedNode> = { s0: set('${{ input.n }}') };
  for (let step = 1; step < 10; step += 1)
    chain[`s${step}`] = set(`\${{ nodes.s${step - 1}.output + 1 }}`, [`s${step - 1}`]);
  const fan: Record<string, CheckedNode> = { root: set('${{ input.n }}') };
  for (let branch = 0; branch < 20; branch += 1)
    fan[`b${branch}`] = set(`\${{ nodes.root.output + ${branch} }}`, ['root']);
  fan.join = set(
    '${{ nodes.b0.output + nodes.b19.output }}',
    Array.from({ length: 20 }, (_, branch) => `b${branch}`),
  );
  const late = (ms: number): { url: string } => ({ url: `${url}/late?ms=${ms}&value=\${{ input.n }}` });
  return [
    { name: 'chain', ...n, nodes: chain, outputs: { last: '${{ nodes.s9.output }}' } },
    { name: 'fan', ...n, nodes: fan, outputs: { join: '${{ nodes.join.output }}' } },
    {
      name: 'loop',
      ...n,
      nodes: {
        poll: {
          type: 'while',
          condition: 'iter.index < 6',
          maxIterations: 20,
          delay: '40ms',
          body: { a: set('${{ iter.index }}'), b: set('${{ nodes.a.output + input.n }}', ['a']) },
        },
        after: set('${{ nodes.poll.output.last.b }}', ['poll']),
      },
      outputs: { last: '${{ nodes.after.output }}', iterations: '${{ nodes.poll.output.iterations }}' },
    },
    {
      name: 'polling',
      ...n,
      nodes: {
        poll: {
          type: 'while',
          condition: 'iter.index < 3',
          maxIterations: 20,
          body: {
            ask: { type: 'http', with: late(30) },
            rest: { type: 'delay', needs: ['ask'], with: { duration: '50ms' } },
          },
        },
      },
      outputs: { value: '${{ nodes.poll.output.last.ask.body.value }}' },
    },
    {
      name: 'each',
      ...n,
      nodes: {
        each: {
          type: 'foreach',
          items: '${{ [1, 2, 3, 4, 5] }}',
          concurrency: 2,
          body: { wait: { type: 'delay', with: { duration: '30ms' } }, value: set('${{ item + input.n }}', ['wait']) },
        },
      },
      outputs: { values: '${{ nodes.each.output.map(one, one.value) }}' },
    },
    {
      name: 'parent',
      ...n,
      nodes: {
        first: set(1),
        child: { type: 'workflow', needs: ['first'], with: { workflow: 'chain', input: { n: '${{ input.n }}' } } },
      },
      outputs: { last: '${{ nodes.child.output.last }}' },
    },
    {
      name: 'holding',
      ...n,
      nodes: { wait: { type: 'hold', trigger: 'go' }, after: set('${{ nodes.wait.output }}', ['wait']) },
      outputs: { payload: '${{ nodes.after.output }}' },
    },
    {
      name: 'timer',
      ...n,
      nodes: { wait: { type: 'delay', with: { duration: '400ms' } }, after: set('${{ input.n }}', ['wait']) },
      outputs: { n: '${{ nodes.after.output }}' },
    },
    {
      name: 'flaky',
      ...n,
      nodes: {
        ask: {
          type: 'http',
          with: { url: `${url}/flaky?times=2&value=\${{ input.n }}` },
          retry: { attempts: 4, backoff: '120ms' },
        },
      },
      outputs: { value: '${{ nodes.ask.output.body.value }}' },
    },
    {
      name: 'hopeless',
      ...n,
      nodes: {
        ask: {
          type: 'http',
          continueOnError: true,
          with: { url: `${url}/bad` },
          retry: { attempts: 3, backoff: '100ms' },
        },
        after: set('${{ nodes.ask.status }}', ['ask']),
      },
      outputs: { status: '${{ nodes.after.output }}' },
    },
    {
      name: 'asking',
      ...n,
      nodes: { a: { type: 'http', with: late(60) }, b: { type: 'http', needs: ['a'], with: late(20) } },
      outputs: { value: '${{ nodes.b.output.body.value }}' },
    },
    {
      name: 'once',
      ...n,
      nodes: { ask: { type: 'http', rerun: false, with: late(60) } },
      outputs: { value: '${{ nodes.ask.output.body.value }}' },
    },
    {
      name: 'hurried',
      ...n,
      nodes: {
        ask: { type: 'http', continueOnError: true, timeout: '150ms', with: { url: `${url}/park` } },
        after: set('${{ nodes.ask.status }}', ['ask']),
      },
      outputs: { status: '${{ nodes.after.output }}' },
    },
    {
      name: 'breaking',
      ...n,
      onFailure: { workflow: 'aftermath' },
      nodes: {
        first: set(1),
        wait: { type: 'delay', with: { duration: '20ms' } },
        broken: { type: 'fail', needs: ['first', 'wait'], with: { message: 'as meant' } },
      },
    },
    {
      name: 'aftermath',
      inputs: {
        executionId: { type: 'string' },
        workflow: { type: 'string' },
        error: { type: 'string' },
        errorCode: { type: 'string' },
      },
      nodes: { note: set('${{ input.executionId }}') },
      outputs: { of: '${{ nodes.note.output }}' },
    },
    /** Never ends by itself: three ways to be stopped. */
    {
      name: 'parked',
      ...n,
      nodes: {
        ask: { type: 'http', with: { url: `${url}/park` } },
        wait: { type: 'delay', with: { duration: '1h' } },
        held: { type: 'hold', trigger: 'never' },
        after: set(1, ['ask']),
      },
    },
    {
      name: 'parked-family',
      ...n,
      nodes: {
        each: {
          type: 'foreach',
          items: '${{ [1, 2, 3] }}',
          body: { ask: { type: 'http', with: { url: `${url}/park` } } },
        },
      },
    },
  ];
}

/** What an unstopped execution of a workflow has to end with; null: it may not end by itself. */
export function expectedEnd(workflow: string, n: number): { status: string; outputs?: unknown; error?: string } | null {
  switch (workflow) {
    case 'chain':
      return { status: 'Complete', outputs: { last: n + 9 } };
    case 'fan':
      return { status: 'Complete', outputs: { join: 2 * n + 19 } };
    case 'loop':
      return { status: 'Complete', outputs: { last: n + 5, iterations: 6 } };
    case 'polling':
    case 'flaky':
    case 'asking':
    case 'once':
      return { status: 'Complete', outputs: { value: String(n) } };
    case 'each':
      return { status: 'Complete', outputs: { values: [1, 2, 3, 4, 5].map((item) => item + n) } };
    case 'parent':
      return { status: 'Complete', outputs: { last: n + 9 } };
    case 'holding':
      return { status: 'Complete', outputs: { payload: { n } } };
    case 'timer':
      return { status: 'Complete', outputs: { n } };
    case 'hopeless':
    case 'hurried':
      return { status: 'Complete', outputs: { status: 'Failed' } };
    case 'breaking':
      return { status: 'Failed', error: 'as meant' };
    default:
      return null;
  }
}

/** One execution that the server has acknowledged. */
export interface Started {
  id: string;
  workflow: string;
  n: number;
  triggered: boolean;
  /** Acknowledged stop; null: none was. */
  stop: { requestId: string | null; answeredAtMs: number } | null;
  /** The last answer to a request for a stop. */
  stopAnswer: string | null;
}

const kinds = [
  'chain',
  'fan',
  'loop',
  'polling',
  'each',
  'parent',
  'holding',
  'timer',
  'flaky',
  'hopeless',
  'asking',
  'once',
  'hurried',
  'breaking',
];

/** A server, or any of several: whichever answers. */
export interface Target {
  http(method: string, path: string, body?: unknown): Promise<HttpAnswer>;
}

export class Load {
  readonly started: Started[] = [];
  readonly #server: Target;
  #count = 0;
  #ending = false;
  #abandoned = false;
  readonly counts = { refused: 0, unreachable: 0, bulk: 0 };

  constructor(server: Target) {
    this.#server = server;
  }

  /** No further execution is started; those that are under way are seen through. */
  end(): void {
    this.#ending = true;
  }

  /** Everything that is under way is given up. */
  abandon(): void {
    this.#ending = true;
    this.#abandoned = true;
  }

  /** One client: starts, stops and triggers, one execution after the other, until `end`. */
  async client(random: Random): Promise<void> {
    while (!this.#ending) {
      const dice = random.next();
      if (dice < 0.12) await this.#bulk(random);
      else if (dice < 0.3) await this.#parked(random);
      else await this.#one(kinds[Math.floor(random.next() * kinds.length)] as string, random);
    }
  }

  async #one(workflow: string, random: Random): Promise<void> {
    const stops = random.next() < 0.25;
    const afterMs = random.next() * 300;
    const started = await this.#start(workflow, {});
    if (workflow === 'holding' && random.next() < 0.9) {
      await sleep(random.next() * 100);
      await this.#trigger(started);
    } else if (workflow === 'holding') {
      await this.#stop(started);
    }
    if (stops) {
      await sleep(afterMs);
      await this.#stop(started);
    }
    // Others are started meanwhile: only some are waited for.
    if (random.next() < 0.6) await this.#ended(started);
  }

  async #parked(random: Random): Promise<void> {
    const started = await this.#start(random.next() < 0.6 ? 'parked' : 'parked-family', {});
    await sleep(random.next() * 400);
    await this.#stop(started);
    if (random.next() < 0.5) await this.#stop(started);
    if (random.next() < 0.5) await this.#ended(started);
  }

  async #bulk(random: Random): Promise<void> {
    const group = `g${this.#count}`;
    const members: Started[] = [];
    const size = 3 + Math.floor(random.next() * 4);
    for (let member = 0; member < size; member += 1) {
      const workflow = random.next() < 0.6 ? 'parked' : (kinds[Math.floor(random.next() * kinds.length)] as string);
      members.push(await this.#start(workflow, { group }));
      if (workflow === 'holding') await this.#trigger(members.at(-1) as Started);
    }
    await sleep(random.next() * 200);
    const { data } = await this.#ask('POST', '/api/stops', { filter: { label: `group=${group}` } });
    this.counts.bulk += 1;
    for (const member of members) {
      if (data.requested.includes(member.id)) {
        member.stop = { requestId: null, answeredAtMs: Date.now() };
        member.stopAnswer = 'requested';
      } else if (member.workflow === 'parked') {
        // Its stop was stored by a request whose answer the crash took.
        await this.#stop(member);
      }
    }
  }

  async #start(workflow: string, labels: Record<string, string>): Promise<Started> {
    this.#count += 1;
    const n = this.#count;
    const body = { workflow, input: { n }, labels: { ...labels, n: String(n) }, idempotencyKey: `load-${n}` };
    const { data } = await this.#ask('POST', '/api/executions', body);
    const started: Started = { id: data.id, workflow, n, triggered: false, stop: null, stopAnswer: null };
    this.started.push(started);
    return started;
  }

  async #stop(started: Started): Promise<void> {
    const { status, data } = await this.#ask('POST', `/api/executions/${started.id}/stop`, undefined, [409]);
    started.stopAnswer = `${status}`;
    if (status !== 409) started.stop ??= { requestId: data.requestId, answeredAtMs: Date.now() };
  }

  async #trigger(started: Started): Promise<void> {
    // Repeated after a crash its first one may have been consumed: then it ended (409), or the same again waits for nobody.
    const { status } = await this.#ask(
      'POST',
      `/api/executions/${started.id}/triggers/go`,
      { payload: { n: started.n } },
      [409],
    );
    started.triggered = status === 200;
  }

  async #ended({ id }: Started): Promise<void> {
    for (;;) {
      const { data } = await this.#ask('GET', `/api/executions/${id}`);
      if (hasEnded(data)) return;
      await sleep(60);
    }
  }

  /** Repeats a request until it is answered, over as many servers as that takes. */
  async #ask(
    method: string,
    path: string,
    body?: unknown,
    accepted: number[] = [],
  ): Promise<HttpAnswer & { data: Data }> {
    for (;;) {
      if (this.#abandoned) throw new Error('the load was abandoned');
      let answer: HttpAnswer;
      try {
        answer = await this.#server.http(method, path, body);
      } catch {
        this.counts.unreachable += 1;
        await sleep(30);
        continue;
      }
      if (answer.status < 300 || accepted.includes(answer.status)) return answer;
      if (answer.status !== 503) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.data)}`);
      this.counts.refused += 1;
      await sleep(50);
    }
  }
}
