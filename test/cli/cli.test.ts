import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { spell } from '../../src/cli/cli.ts';
import { main } from '../../src/cli/main.ts';
import { type Column, span, table } from '../../src/cli/table.ts';
import type { Terminal } from '../../src/cli/terminal.ts';
import { FullstopError } from '../../src/errors.ts';
import {
  event,
  finalReceipt,
  ID,
  item,
  OTHER_ID,
  receipt,
  record,
  ScriptedExecution,
  ScriptedServer,
  stopped,
  until,
} from '../client/scripted-server.ts';

interface Script extends Terminal {
  stdout: string;
  stderr: string;
  asked: string[];
  answer: string;
  interrupt(): void;
}

/** No terminal unless `tty`. */
function scripted(env: Record<string, string>, tty: { columns?: number } | null = null): Script {
  const listeners = new Set<(signal: 'SIGINT' | 'SIGTERM') => void>();
  const script: Script = {
    env,
    stdout: '',
    stderr: '',
    asked: [],
    answer: 'n',
    out: (text) => {
      script.stdout += text;
    },
    err: (text) => {
      script.stderr += text;
    },
    outIsTTY: tty !== null,
    errIsTTY: tty !== null,
    canAsk: tty !== null,
    columns: () => tty?.columns ?? (tty === null ? Number.POSITIVE_INFINITY : 200),
    rows: () => 24,
    ask: async (question) => {
      script.asked.push(question);
      return script.answer;
    },
    readStdin: async () => '{"from": "stdin"}',
    onSignal: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    interrupt: () => {
      for (const listener of listeners) listener('SIGINT');
    },
    exitNow: (code) => {
      throw new Error(`exit ${code}`);
    },
  };
  return script;
}

describe('command line', () => {
  let directory: string;
  let server: ScriptedServer;
  let execution: ScriptedExecution;
  let terminal: Script;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'fullstop-cli-'));
    execution = new ScriptedExecution();
    server = await new ScriptedServer(execution.handlers).listen();
    terminal = scripted(env());
  });

  afterEach(async () => {
    await server.close();
    rmSync(directory, { recursive: true });
  });

  const env = (): Record<string, string> => ({
    FULLSTOP_URL: server.url,
    FULLSTOP_KEY: 'fs_key',
    FULLSTOP_DATA: directory,
  });
  const run = (...argv: string[]): Promise<number> => main(argv, terminal);
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text);
    return join(directory, name);
  };

  describe('exit codes', () => {
    const usage: string[][] = [
      ['frobnicate'],
      ['--nope'],
      ['ps', '--nope'],
      ['ps', 'extra'],
      ['ps', '--status', 'Stopped'],
      ['ps', '--limit', '0'],
      ['show'],
      ['events', ID, '--from', '0'],
      ['run', 'scan', '--input', 'novalue'],
      ['run', 'scan', '--input', '=1'],
      ['run', 'missing.yaml'],
      ['run', 'scan', '--input-file', 'missing.json'],
      ['stop'],
      ['stop', ID, '--all'],
      ['stop', '--all', '--workflow', 'scan'],
      ['stop', '--all'],
      ['stop', '--status', 'Failed', '--yes'],
      ['stop', ID, '--timeout', 'soon'],
      ['trigger', ID],
      ['keys', 'create', 'ci'],
      ['keys', 'create', 'ci', '--role', 'king'],
      ['validate', 'missing.yaml'],
      ['delete'],
      ['serve', '--port', 'x'],
      ['serve', '--port', '1', '--port', '2'],
    ];
    for (const argv of usage) {
      it(`is 2 for fullstop ${argv.join(' ')}`, async () => {
        expect(await run(...argv)).to.equal(2);
        expect(terminal.stdout).to.equal('');
        expect(terminal.stderr).to.match(/^fullstop: .+\n(See .+--help\n)?$/);
        expect(server.calls).to.deep.equal([]);
      });
    }

    const refusals = [
      ['FS_NOT_FOUND', 4],
      ['FS_INVALID', 2],
      ['FS_FORBIDDEN', 1],
      ['FS_ENDED', 1],
      ['FS_RATE', 1],
    ] as const;
    for (const [code, expected] of refusals) {
      it(`is ${expected} when the server answers ${code}`, async () => {
        server.handlers['execution.stop'] = () => {
          throw new FullstopError(code, 'expected something else');
        };
        expect(await run('stop', ID)).to.equal(expected);
        expect(terminal.stderr).to.equal(`fullstop: expected something else (${code})\n`);
      });
    }

    it('is 0 for help, of every verb and with examples', async () => {
      expect(await run('--help')).to.equal(0);
      const verbs = [...terminal.stdout.matchAll(/^ {2}([a-z]+)(?:\|[a-z]+)? {2,}\S/gm)].map(
        ([, verb]) => verb as string,
      );
      expect(verbs).to.include.members(['serve', 'stop', 'doctor']);
      for (const verb of verbs.filter((one) => one !== 'npm')) {
        terminal.stdout = '';
        expect(await run(verb, '--help'), verb).to.equal(0);
        expect(terminal.stdout, verb).to.match(/Examples?:\n {2}\S/);
        expect(terminal.stdout, verb).to.contain('--json');
      }
      expect(terminal.stderr).to.equal('');
    });

    it('is 0 for help, --version and no arguments', async () => {
      expect(await run()).to.equal(0);
      expect(await run('help', 'stop')).to.equal(0);
      terminal.stdout = '';
      expect(await run('--version')).to.equal(0);
      expect(terminal.stdout).to.match(/^\d+\.\d+\.\d+\n$/);
    });
  });

  describe('errors', () => {
    it('say in one line that nothing listens, and what to do', async () => {
      await server.close();
      expect(await run('ps')).to.equal(1);
      expect(terminal.stderr).to.equal(
        `fullstop: nothing listens at ${server.url}: check FULLSTOP_URL (FS_UNAVAILABLE)\n`,
      );
      terminal = scripted({ FULLSTOP_DATA: directory });
      writeFileSync(join(directory, 'server.json'), JSON.stringify({ url: server.url, pid: 1 }));
      expect(await run('ps')).to.equal(1);
      expect(terminal.stderr).to.equal(
        `fullstop: nothing listens at ${server.url}: start it with npm start (FS_UNAVAILABLE)\n`,
      );
    });

    it('say that the key is missing or wrong, and what to do', async () => {
      server.tokens = ['fs_other'];
      expect(await run('ps')).to.equal(1);
      expect(terminal.stderr).to.contain('refused the key from the environment: set FULLSTOP_KEY');
      terminal = scripted({ FULLSTOP_URL: server.url, FULLSTOP_DATA: directory });
      expect(await run('ps')).to.equal(1);
      expect(terminal.stderr).to.contain('needs a key: set FULLSTOP_KEY');
    });

    it('are JSON on stdout with --json', async () => {
      server.handlers['execution.get'] = () => {
        throw new FullstopError('FS_NOT_FOUND', 'expected a known execution');
      };
      expect(await run('show', ID, '--json')).to.equal(4);
      expect(JSON.parse(terminal.stdout)).to.deep.equal({
        error: { code: 'FS_NOT_FOUND', message: 'expected a known execution', details: null },
      });
      expect(terminal.stderr).to.equal('');
    });

    it('cannot drive the terminal', async () => {
      server.handlers['execution.get'] = () => {
        throw new FullstopError('FS_NOT_FOUND', 'a\u001b[2Jb\nc');
      };
      await run('show', ID);
      expect(terminal.stderr).to.equal('fullstop: a [2Jb c (FS_NOT_FOUND)\n');
    });

    it('suggest the verb that was meant', async () => {
      await run('stpo');
      expect(terminal.stderr).to.contain('Did you mean stop?');
    });
  });

  it('uses the key and the address in the data directory of the server on its machine', async () => {
    writeFileSync(join(directory, 'admin.key'), 'fs_admin\n');
    writeFileSync(join(directory, 'server.json'), JSON.stringify({ url: server.url, pid: 1 }));
    server.tokens = ['fs_admin'];
    server.handlers['execution.list'] = () => ({ items: [], nextCursor: null });
    terminal = scripted({ FULLSTOP_DATA: directory });
    expect(await run('ps')).to.equal(0);
    terminal = scripted({});
    expect(await run('ps', '--data', directory)).to.equal(0);
  });

  describe('run', () => {
    beforeEach(() => {
      server.handlers['execution.start'] = () => execution.record;
    });

    it('reads inputs as JSON where they parse and as text where they do not', async () => {
      expect(
        await run(
          'run',
          'scan',
          '-i',
          'n=3',
          '-i',
          'host=10.0.0.1',
          '-i',
          'list=[1]',
          '-i',
          'eq=a=b',
          '-i',
          'text="3"',
          '-l',
          'ticket=OPS-17',
          '--idempotency-key',
          'k',
          '--project',
          'web',
        ),
      ).to.equal(0);
      expect(server.payloads('execution.start')).to.deep.equal([
        {
          workflow: 'scan',
          input: { n: 3, host: '10.0.0.1', list: [1], eq: 'a=b', text: '3' },
          labels: { ticket: 'OPS-17' },
          idempotencyKey: 'k',
          project: 'web',
        },
      ]);
      expect(terminal.stdout).to.equal(`${ID}\n`);
    });

    it('reads inputs from a file or stdin, and lets --input win', async () => {
      await run('run', 'scan', '--input-file', file('in.yaml', 'a: 1\nb: [2]\n'), '-i', 'a=5');
      await run('run', 'scan', '--input-file', '-');
      expect(server.payloads('execution.start').map((payload) => (payload as { input: unknown }).input)).to.deep.equal([
        { a: 5, b: [2] },
        { from: 'stdin' },
      ]);
      expect(await run('run', 'scan', '--input-file', file('list.json', '[1]'))).to.equal(2);
    });

    it('saves a file first, and runs that version', async () => {
      const hash = 'b'.repeat(64);
      server.handlers['workflow.save'] = () => ({ name: 'scan', hash, version: 2 });
      expect(await run('run', file('scan.yaml', 'name: scan\n'), '--json')).to.equal(0);
      expect(server.payloads('workflow.save')).to.deep.equal([{ definition: 'name: scan\n' }]);
      expect(server.payloads('execution.start')).to.deep.equal([{ workflow: `scan@${hash}`, input: {} }]);
      expect(JSON.parse(terminal.stdout)).to.include({ id: ID });
    });

    const ends = [
      ['Complete', record({ status: 'Complete', outputs: { n: 1 }, endedAt: record().createdAt }), 0],
      ['Failed', record({ status: 'Failed', error: 'boom', endedAt: record().createdAt }), 1],
      ['stopped', stopped(), 3],
    ] as const;
    for (const [name, ended, code] of ends) {
      it(`--wait exits ${code} when it is ${name}`, async () => {
        const waiting = run('run', 'scan', '--wait');
        await until(() => execution.subscribers.size > 0, 'it waits');
        execution.record = { ...ended };
        execution.append(event(2, name === 'Complete' ? 'execution.completed' : 'execution.failed'));
        expect(await waiting).to.equal(code);
        expect(terminal.stdout).to.equal(name === 'Complete' ? '{\n  "n": 1\n}\n' : '');
        if (ended.error !== null) expect(terminal.stderr).to.contain(ended.error);
      });
    }

    it('--wait shows nodes as they finish on a terminal', async () => {
      terminal = scripted(env(), {});
      execution.record = record({ status: 'Complete', outputs: {}, endedAt: record().createdAt });
      execution.append(
        { ...event(1, 'node.started'), node: 'resolve' },
        { ...event(2, 'node.completed'), node: 'resolve' },
        { ...event(3, 'iteration.started'), node: 'poll', iterations: [0] },
        { ...event(4, 'node.completed'), node: 'poll/check', iterations: [0] },
        event(5, 'execution.completed'),
      );
      expect(await run('run', 'scan', '--wait')).to.equal(0);
      expect(terminal.stderr).to.contain('resolve');
      expect(terminal.stderr).to.not.contain('poll/check');
    });

    it('--wait leaves the execution alone when it is interrupted', async () => {
      const waiting = run('run', 'scan', '--wait');
      await until(() => execution.subscribers.size > 0, 'it waits');
      terminal.interrupt();
      expect(await waiting).to.equal(130);
      expect(terminal.stderr).to.contain(`${ID} goes on`);
      expect(server.payloads('execution.stop')).to.deep.equal([]);
    });
  });

  describe('ps', () => {
    it('asks with its filters and prints a table', async () => {
      server.handlers['execution.list'] = () => ({
        items: [item(), item({ id: OTHER_ID, status: 'Failed', error: 'boom\u0007' })],
        nextCursor: null,
      });
      expect(
        await run(
          'ps',
          '--status',
          'running',
          '--workflow',
          'scan',
          '--stopped',
          '--label',
          'a=b',
          '--text',
          't',
          '--parent',
          ID,
          '--created-from',
          '2026-01-01',
        ),
      ).to.equal(0);
      expect(server.payloads('execution.list')).to.deep.equal([
        {
          status: 'Running',
          workflow: 'scan',
          stoppedByUser: true,
          label: 'a=b',
          text: 't',
          parent: ID,
          createdFrom: '2026-01-01',
        },
      ]);
      const [head, first, second] = terminal.stdout.split('\n');
      expect(head).to.match(/^ID +WORKFLOW +STATUS +CREATED +TOOK +ERROR$/);
      expect(first).to.match(new RegExp(`^${ID}  scan +Running`));
      expect(second).to.match(/Failed .* boom$/);
      expect(terminal.stdout).to.not.contain('\u001b');
    });

    it('shows a stopped one as Failed with the marker, and one whose stop is under way as Stopping', async () => {
      const stop = { requestId: OTHER_ID, requestedAt: '2026-01-01T00:00:00.000Z' };
      server.handlers['execution.list'] = () => ({
        items: [item({ ...stopped(), id: ID }), item({ id: OTHER_ID, stop })],
        nextCursor: null,
      });
      expect(await run('ps')).to.equal(0);
      const [, first, second] = terminal.stdout.split('\n');
      expect(first).to.match(/ {2}Failed .* workflow stopped by user$/);
      expect(second).to.match(/ {2}Stopping /);
    });

    it('says how to list the stopped ones to whoever takes it for a status', async () => {
      expect(await run('ps', '--status', 'stopped')).to.equal(2);
      expect(terminal.stderr).to.contain('ps --stopped');
    });

    it('-q prints ids, page by page up to the limit', async () => {
      server.handlers['execution.list'] = ({ cursor = '0' }) => ({
        items: [item({ id: `id-${cursor}` })],
        nextCursor: String(Number(cursor) + 1),
      });
      expect(await run('ps', '-q', '-n', '3')).to.equal(0);
      expect(terminal.stdout).to.equal('id-0\nid-1\nid-2\n');
    });

    it('-w --json prints each change until it is interrupted', async () => {
      server.handlers['execution.list'] = () => ({ items: [item()], nextCursor: null });
      server.handlers['executions.subscribe'] = () => ({});
      server.handlers['executions.unsubscribe'] = () => ({});
      const watching = run('ps', '-w', '--json', '--status', 'Running');
      await until(() => server.payloads('executions.subscribe').length === 1, 'it watches');
      await new Promise((resolve) => setTimeout(resolve, 20));
      server.emit('execution.changed', item({ id: OTHER_ID, seq: 2 }));
      server.emit('execution.changed', item({ id: 'ended', status: 'Complete' }));
      await until(() => terminal.stdout.includes(OTHER_ID), 'the change is printed');
      terminal.interrupt();
      expect(await watching).to.equal(130);
      expect(
        terminal.stdout
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line).id),
      ).to.deep.equal([ID, OTHER_ID]);
    });

    it('colours on a terminal, and not with NO_COLOR', async () => {
      server.handlers['execution.list'] = () => ({ items: [item()], nextCursor: null });
      terminal = scripted(env(), {});
      await run('ps');
      expect(terminal.stdout).to.contain('\u001b[36mRunning');
      terminal = scripted({ ...env(), NO_COLOR: '1' }, {});
      await run('ps');
      expect(terminal.stdout).to.not.contain('\u001b');
    });
  });

  describe('stop', () => {
    const answer = { executionId: ID, requestId: OTHER_ID, requestedAt: item().createdAt, status: 'stop requested' };
    const preview = {
      executionId: ID,
      willAbort: [
        { node: 'call', type: 'http', where: 'worker', runningForMs: 1_500 },
        { node: 'next', type: 'http', where: 'worker', runningForMs: 2_500, queued: true },
        { node: 'site', type: 'agent', where: 'agent', runningForMs: 3_500, queued: true },
      ],
      cannotCancel: [],
      kept: { Complete: 2, Failed: 0, Skipped: 0 },
      stayPending: [{ node: 'later' }],
      stayHeld: [],
      children: [],
    };

    beforeEach(() => {
      server.handlers['execution.stop'] = () => answer;
      server.handlers['execution.preview'] = () => preview;
    });

    it('stops by ids without asking where nobody can be asked', async () => {
      expect(await run('kill', ID, OTHER_ID, ID)).to.equal(0);
      expect(server.payloads('execution.stop')).to.deep.equal([{ id: ID }, { id: OTHER_ID }]);
      expect(terminal.stdout).to.equal(`${ID}  stop requested\n${OTHER_ID}  stop requested\n`);
    });

    it('shows on a terminal what it would do, and asks', async () => {
      terminal = scripted(env(), {});
      expect(await run('stop', ID)).to.equal(1);
      expect(terminal.stderr).to.contain('call (http on the worker, for 1.5 s)');
      expect(terminal.asked).to.deep.equal(['Stop it? [y/N] ']);
      expect(server.payloads('execution.stop')).to.deep.equal([]);
      terminal.answer = 'y';
      expect(await run('stop', ID)).to.equal(0);
      expect(await run('stop', ID, '--yes')).to.equal(0);
      expect(terminal.asked).to.have.length(2);
      expect(server.payloads('execution.stop')).to.have.length(2);
    });

    it('goes on with the others when one is refused, and says so', async () => {
      server.handlers['execution.stop'] = ({ id }) => {
        if (id === ID) throw new FullstopError('FS_NOT_FOUND', 'expected a known execution');
        return { ...answer, executionId: id };
      };
      expect(await run('stop', ID, OTHER_ID)).to.equal(4);
      expect(terminal.stdout).to.equal(`${OTHER_ID}  stop requested\n`);
      expect(terminal.stderr).to.contain(`${ID}: expected a known execution`);
    });

    it('--preview stops nothing', async () => {
      expect(await run('stop', ID, '--preview', '--json')).to.equal(0);
      expect(JSON.parse(terminal.stdout)).to.deep.equal([preview]);
      expect(server.payloads('execution.stop')).to.deep.equal([]);
    });

    it('--preview tells what is aborted from what nobody has begun', async () => {
      expect(await run('stop', ID, '--preview')).to.equal(0);
      for (const line of [
        'aborts           call (http on the worker, for 1.5 s)',
        'withdraws        next (http, has waited 2.5 s for a worker); it never starts',
        'withdraws        site (agent, has waited 3.5 s for an agent); it never starts',
      ])
        expect(terminal.stdout).to.contain(`  ${line}\n`);
    });

    it('--wait follows the receipt to its end', async () => {
      server.handlers['execution.receipt'] = () => receipt();
      const waiting = run('stop', ID, '--wait');
      await until(() => execution.subscribers.size > 0, 'it waits');
      server.emit(
        'stop.receipt',
        finalReceipt({
          tasks: [{ node: 'call', attempt: 1, type: 'http', where: 'worker', outcome: 'aborted', ms: 2 }],
        }),
      );
      expect(await waiting).to.equal(0);
      expect(terminal.stdout).to.contain('http call: aborted');
      expect(terminal.stdout).to.contain('ended: the final record is stored');
    });

    it('--wait exits 5 when the time is over', async () => {
      server.handlers['execution.receipt'] = () => finalReceipt({ unconfirmed: 1 });
      expect(await run('stop', ID, '--wait', '--timeout', '100ms')).to.equal(5);
      expect(terminal.stderr).to.contain('1 stop not confirmed within 100 ms');
    });

    it('--wait fails when the connection is lost for good', async () => {
      server.handlers['execution.receipt'] = () => receipt();
      const waiting = run('stop', ID, '--wait');
      await until(() => execution.subscribers.size > 0, 'it waits');
      server.tokens = [];
      server.hangUp();
      expect(await waiting).to.equal(1);
    });

    describe('by a filter', () => {
      const bulk = { matched: 2, requested: [ID, OTHER_ID], alreadyEnded: [], failed: [], startedMeanwhile: [] };
      beforeEach(() => {
        server.handlers['executions.stop'] = ({ dryRun }) => (dryRun ? { matched: 2, setId: OTHER_ID } : bulk);
        server.handlers['execution.list'] = ({ status }) => ({
          items: status === 'Running' ? [item()] : [],
          nextCursor: null,
        });
      });

      it('needs --yes where nobody can be asked', async () => {
        expect(await run('stop', '--workflow', 'scan')).to.equal(2);
        expect(terminal.stderr).to.contain('--yes');
        expect(server.calls).to.deep.equal([]);
        expect(await run('stop', '--workflow', 'scan', '--label', 'a=b', '--status', 'running', '--yes')).to.equal(0);
        expect(server.payloads('executions.stop')).to.deep.equal([
          { filter: { workflow: 'scan', label: 'a=b', status: 'Running' } },
        ]);
        expect(terminal.stdout).to.equal('2 stops requested, 0 had ended, 0 failed\n');
      });

      it('stops on a terminal exactly what it has shown', async () => {
        terminal = scripted(env(), {});
        expect(await run('stop', '--all')).to.equal(1);
        expect(terminal.asked).to.deep.equal(['Stop 2 executions? [y/N] ']);
        expect(terminal.stderr).to.contain(ID).and.to.contain('2 executions in all');
        terminal.answer = 'yes';
        expect(await run('stop', '--all')).to.equal(0);
        expect(server.payloads('executions.stop').at(-1)).to.deep.equal({ setId: OTHER_ID });
      });

      it('says when nothing matches', async () => {
        server.handlers['executions.stop'] = () => ({ matched: 0, setId: OTHER_ID });
        expect(await run('stop', '--all', '--preview')).to.equal(0);
        expect(terminal.stderr).to.contain('nothing to stop');
      });

      it('exits 1 when a stop failed, and names what started meanwhile', async () => {
        server.handlers['executions.stop'] = () => ({
          ...bulk,
          failed: [{ id: ID, code: 'FS_UNAVAILABLE' }],
          startedMeanwhile: [OTHER_ID],
        });
        expect(await run('stop', '--all', '--yes')).to.equal(1);
        expect(terminal.stderr).to.contain(`${ID}: FS_UNAVAILABLE`).and.to.contain('1 execution started meanwhile');
      });

      it('--wait waits for each', async () => {
        server.handlers['execution.get'] = ({ id }) => stopped({ id });
        server.handlers['execution.receipt'] = ({ id }) => finalReceipt({ executionId: id });
        expect(await run('stop', '--all', '--yes', '--wait', '--json')).to.equal(0);
        expect(JSON.parse(terminal.stdout).receipts).to.have.length(2);
      });
    });
  });

  it('events prints one page after another, and -f ends with the execution', async () => {
    execution.pageMax = 2;
    execution.append(
      event(1, 'execution.created'),
      { ...event(2, 'node.started'), node: 'poll/check', iterations: [3] },
      event(3, 'execution.completed'),
    );
    expect(await run('events', ID, '--from', '2')).to.equal(0);
    expect(terminal.stdout).to.match(/ 2 {2}node\.started +poll\/check \[3\]\n.* 3 {2}execution\.completed\n$/);
    terminal.stdout = '';
    expect(await run('events', '-f', '--json', ID)).to.equal(0);
    expect(
      terminal.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).seq),
    ).to.deep.equal([1, 2, 3]);
  });

  it('show prints the nodes, those of the current iteration below their loop', async () => {
    const node = {
      type: 'http',
      status: 'Running',
      error: null,
      errorCode: null,
      attempt: 1,
      startedAt: null,
      endedAt: null,
      hasOutput: false,
      where: 'worker',
    } as const;
    execution.record = record({
      nodes: { poll: { ...node, type: 'while', iteration: { index: 7, nodes: { check: node } } } },
    });
    expect(await run('show', ID)).to.equal(0);
    expect(terminal.stdout).to.match(/poll +while +Running +1 +iteration 7\n· check +http/);
  });

  it('show counts how long a node was Held to the end of its execution', async () => {
    execution.record = stopped({
      endedAt: '2026-01-01T00:00:05.000Z',
      nodes: {
        wait: {
          type: 'hold',
          status: 'Held',
          error: null,
          errorCode: null,
          attempt: 1,
          startedAt: '2026-01-01T00:00:02.000Z',
          endedAt: null,
          hasOutput: false,
          where: 'engine',
        },
      },
    });
    expect(await run('show', ID)).to.equal(0);
    expect(terminal.stdout).to.match(/wait +hold +Held +1 +3\.0 s/);
  });

  it('show says of a node whose capability nobody offers that it waits', async () => {
    const node = {
      type: 'container',
      status: 'Running',
      error: null,
      errorCode: null,
      attempt: 1,
      startedAt: null,
      endedAt: null,
      hasOutput: false,
      where: 'worker',
    } as const;
    execution.record = record({ nodes: { scan: node, call: { ...node, type: 'http' } } });
    server.handlers.health = () => ({ status: 'ok', missing: { container: 1 } });
    expect(await run('show', ID)).to.equal(0);
    expect(terminal.stdout).to.match(/scan +container +Running +1 +waits: no worker here runs container tasks/);
    expect(terminal.stdout).to.match(/call +http +Running +1 *\n/);
  });

  it('inspect prints the address for a viewer', async () => {
    const inspection = { path: '/inspect/TOKEN', expiresAt: '2030-01-01T01:00:00.000Z' };
    server.handlers['execution.inspect'] = () => inspection;
    expect(await run('inspect', ID)).to.equal(0);
    const url = `${server.url.replace('http', 'ws')}/inspect/TOKEN`;
    const urlV4 = `${server.url.replace('http', 'ws')}/inspect/v4/TOKEN`;
    expect(terminal.stdout).to.equal(`${url}\n`);
    expect(terminal.stderr).to.include(urlV4).and.include(inspection.expiresAt);
    terminal.stdout = '';
    expect(await run('inspect', ID, '--json')).to.equal(0);
    expect(JSON.parse(terminal.stdout)).to.deep.equal({ ...inspection, url, urlV4 });
  });

  it('receipt exits 4 when nobody asked for a stop', async () => {
    server.handlers['execution.receipt'] = () => {
      throw new FullstopError('FS_NOT_FOUND', 'expected a stop, found none');
    };
    expect(await run('receipt', ID)).to.equal(4);
  });

  it('results prints the outputs, or writes all to a file', async () => {
    const results = { executionId: ID, outputs: { n: 1 }, nodes: {} };
    server.handlers['execution.results'] = () => results;
    expect(await run('results', ID)).to.equal(0);
    expect(JSON.parse(terminal.stdout)).to.deep.equal({ n: 1 });
    const target = join(directory, 'out.json');
    expect(await run('results', ID, '-o', target)).to.equal(0);
    expect(JSON.parse(readFileSync(target, 'utf8'))).to.deep.equal(results);
  });

  it('trigger sends its payload', async () => {
    server.handlers['execution.trigger'] = () => ({ duplicate: false });
    expect(await run('trigger', ID, 'approve', '--payload', '{"by": "me"}')).to.equal(0);
    expect(server.payloads('execution.trigger')).to.deep.equal([{ id: ID, name: 'approve', payload: { by: 'me' } }]);
  });

  it('validate, save and run print every fault of a file with its line and exit 1', async () => {
    server.handlers['workflow.save'] = () => {
      throw new FullstopError('FS_INVALID', 'two faults', {
        details: {
          faults: [
            { path: 'nodes.a.needs[0]', line: 4, message: 'unknown node' },
            { path: '', line: null, message: 'a cycle' },
          ],
        },
      });
    };
    const path = file('scan.yaml', 'name: scan\n');
    for (const verb of ['validate', 'save', 'run']) {
      terminal.stderr = '';
      expect(await run(verb, path)).to.equal(1);
      expect(terminal.stderr).to.equal(
        `${path}:4: nodes.a.needs[0]: unknown node\n${path}: a cycle\n2 faults; nothing was saved\n`,
      );
      terminal.stdout = '';
      expect(await run(verb, path, '--json')).to.equal(1);
      expect(JSON.parse(terminal.stdout).error.details.faults).to.have.length(2);
    }
    expect(server.payloads('workflow.save')[0]).to.deep.equal({ definition: 'name: scan\n', dryRun: true });
    expect(server.payloads('execution.start')).to.deep.equal([]);
  });

  it('keys create prints the key alone on stdout', async () => {
    server.handlers['key.create'] = () => ({ id: ID, key: 'fs_secret' });
    expect(await run('keys', 'create', 'ci', '--role', 'operator', '--project', 'web')).to.equal(0);
    expect(server.payloads('key.create')).to.deep.equal([{ name: 'ci', role: 'operator', project: 'web' }]);
    expect(terminal.stdout).to.equal('fs_secret\n');
    server.handlers['key.list'] = () => ({ items: [], nextCursor: null });
    terminal.stdout = '';
    expect(await run('keys', '--json')).to.equal(0);
    expect(JSON.parse(terminal.stdout)).to.deep.equal({ items: [] });
  });

  it('delete asks on a terminal', async () => {
    server.handlers['execution.delete'] = () => null;
    terminal = scripted(env(), {});
    expect(await run('delete', ID)).to.equal(1);
    expect(server.payloads('execution.delete')).to.deep.equal([]);
    expect(await run('delete', ID, '--yes')).to.equal(0);
    expect(server.payloads('execution.delete')).to.deep.equal([{ id: ID }]);
  });

  describe('plain verbs', () => {
    const rows: [argv: string[], verb: string, payload: object][] = [
      [['save', '-'], 'workflow.save', { definition: '{"from": "stdin"}' }],
      [['workflows'], 'workflow.list', {}],
      [['workflows', 'scan'], 'workflow.get', { name: 'scan' }],
      [['disable', 'scan'], 'workflow.disable', { name: 'scan' }],
      [['enable', 'scan', '--project', 'p'], 'workflow.enable', { name: 'scan', project: 'p' }],
      [['pause'], 'admission.set', { paused: true }],
      [['resume'], 'admission.set', { paused: false }],
      [['keys', 'delete', ID], 'key.delete', { id: ID }],
      [['engines'], 'engine.list', {}],
      [['workers'], 'worker.list', {}],
      [['drain', 'e1'], 'engine.drain', { id: 'e1' }],
      [['audit'], 'audit.list', {}],
    ];
    for (const [argv, verb, payload] of rows) {
      it(`fullstop ${argv.join(' ')} sends ${verb}, for people and as JSON`, async () => {
        server.handlers[verb] = () => ({
          items: [],
          nextCursor: null,
          name: 'scan',
          hash: 'c'.repeat(64),
          version: 1,
          definition: { name: 'scan' },
        });
        expect(await run(...argv)).to.equal(0);
        expect(server.calls).to.deep.equal([{ verb, payload }]);
        terminal.stdout = '';
        expect(await run(...argv, '--json')).to.equal(0);
        JSON.parse(terminal.stdout);
      });
    }
  });

  describe('doctor', () => {
    it('says what nobody offers, how to offer it, and what that needs', async () => {
      server.handlers.health = () => ({ status: 'ok', missing: { container: 2, ai: 1, http: 1, 'agent:site': 1 } });
      expect(await run('doctor', '--json')).to.equal(1);
      const { checks } = JSON.parse(terminal.stdout) as { checks: { name: string; text: string }[] };
      const remedies = checks.filter(({ name }) => name === 'workers').map(({ text }) => text.split(': start ')[1]);
      const needs = [
        'worker --capabilities container, which needs FULLSTOP_IMAGES and the socket of Docker or Podman',
        'worker --capabilities ai, which needs FULLSTOP_MODELS',
        'worker --capabilities http',
        'agent --pool site --allow TOOLS',
      ];
      expect(remedies).to.deep.equal(needs.map(spell));
    });

    it('exits 0 when all is well, and says where each value came from', async () => {
      server.handlers.health = () => ({ status: 'ok' });
      expect(await run('doctor')).to.equal(0);
      expect(terminal.stdout).to.match(/FULLSTOP_DATA .* environment\n/);
      expect(terminal.stdout).to.contain(process.version);
      expect(terminal.stdout).to.not.contain('fs_key');
    });

    it('exits 1 and says why when the store is in trouble', async () => {
      server.handlers.health = () => ({ status: 'unavailable', message: 'disk full' });
      expect(await run('doctor', '--json')).to.equal(1);
      const { ok, checks } = JSON.parse(terminal.stdout);
      expect(ok).to.equal(false);
      expect(checks.find(({ name }: { name: string }) => name === 'server').text).to.contain('disk full');
    });

    it('says which model has no key and that the file of secrets is missing, and shows no key', async () => {
      server.handlers.health = () => ({ status: 'ok' });
      const model = (key: string) => ({ baseURL: 'http://127.0.0.1:1/v1', model: 'm', apiKey: `env:${key}` });
      const models = JSON.stringify({ good: model('SOME_KEY'), bad: model('NO_KEY') });
      const secrets = `@${join(directory, 'missing')}`;
      terminal = scripted({ ...env(), FULLSTOP_MODELS: models, FULLSTOP_SECRETS: secrets, SOME_KEY: 'hunter2' });
      expect(await run('doctor', '--json')).to.equal(1);
      expect(terminal.stdout).to.not.contain('hunter2');
      const { checks } = JSON.parse(terminal.stdout) as { checks: { name: string; ok: boolean; text: string }[] };
      const found = Object.fromEntries(checks.map(({ name, ok, text }) => [name, `${ok} ${text}`]));
      expect(found['model good']).to.equal('true its key, SOME_KEY, is set');
      expect(found['model bad']).to.equal('false its key, NO_KEY, is not set');
      expect(found['secrets']).to.match(/^false cannot read .*missing/);
    });

    it('says that the database of several engines is not there, without its password', async () => {
      server.handlers.health = () => ({ status: 'ok' });
      terminal = scripted({ ...env(), MONGODB_URI: 'mongodb://user:hunter2@127.0.0.1:1/fs' });
      expect(await run('doctor', '--json')).to.equal(1);
      expect(terminal.stdout).to.not.contain('hunter2');
      const { checks } = JSON.parse(terminal.stdout) as { checks: { name: string; ok: boolean; text: string }[] };
      const found = Object.fromEntries(checks.map(({ name, ok, text }) => [name, `${ok} ${text}`]));
      expect(found['MongoDB']).to.match(/^false expected MongoDB at MONGODB_URI .*ECONNREFUSED/);
      expect(found['admin key']).to.match(/^false .*FULLSTOP_ADMIN_KEY/);
    });

    it('says of a Redis that one engine does not use it', async () => {
      server.handlers.health = () => ({ status: 'ok' });
      terminal = scripted({ ...env(), REDIS_URL: 'redis://127.0.0.1:1' });
      expect(await run('doctor')).to.equal(0);
      expect(terminal.stdout).to.match(/REDIS_URL +is not used/);
    });

    it('goes on when nothing listens or a setting does not fit', async () => {
      await server.close();
      terminal = scripted({ ...env(), FULLSTOP_PORT: 'x' });
      expect(await run('doctor')).to.equal(1);
      expect(terminal.stdout).to.contain('FULLSTOP_PORT: expected').and.to.contain('nothing listens');
    });
  });

  describe('tables', () => {
    const rows = [{ id: ID, text: 'x'.repeat(300) }];
    const columns: Column<{ id: string; text: string }>[] = [
      { title: 'ID', cell: ({ id }) => id },
      { title: 'TEXT', cell: ({ text }) => text, flex: true },
    ];

    for (const width of [50, 80, 120]) {
      it(`fit a terminal of ${width} columns, ids whole`, () => {
        const lines = table(scripted({ NO_COLOR: '1' }, { columns: width }), columns, rows)
          .trimEnd()
          .split('\n');
        expect(Math.max(...lines.map((line) => line.length))).to.equal(width);
        expect(lines[1]).to.contain(ID).and.to.match(/…$/);
      });
    }

    it('are whole where there is no terminal', () => {
      expect(table(scripted({}), columns, rows)).to.contain('x'.repeat(300));
    });

    it('write spans as people read them', () => {
      expect([0, 850, 1_349, 59_999, 250_000, 7_500_000, 273_600_000].map(span)).to.deep.equal([
        '0 ms',
        '850 ms',
        '1.3 s',
        '59.9 s',
        '4m 10s',
        '2h 5m',
        '3d 4h',
      ]);
    });
  });
});
