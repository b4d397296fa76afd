import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { expect } from 'chai';
import { createContainerExecutor } from '../../src/worker/container.ts';
import { ContainerEngine } from '../../src/worker/container-engine.ts';
import { containerEngineOrSkip, type TestEngine } from '../support/podman.ts';
import { Bench, printed } from './support.ts';

describe('a container node', function () {
  this.timeout(60_000);
  let engine: TestEngine;
  let bench: Bench;

  before(async function () {
    engine = await containerEngineOrSkip(this);
    bench = new Bench(engine);
  });

  after(async () => {
    if (engine === undefined) return;
    const left = await bench.left();
    await bench.close();
    await engine.close();
    expect(left, 'containers left after the tests').to.equal(0);
  });

  describe('its output', () => {
    it('is the exit code, stdout and the end of stderr', async () => {
      expect(await bench.output(bench.sh('echo out; echo err >&2'))).to.deep.equal({
        exitCode: 0,
        stdout: 'out\n',
        stderrTail: 'err\n',
      });
    });

    it('is an object or a list when stdout is one, and text otherwise', async () => {
      expect((await bench.output(bench.sh('echo \'{"a": [1]}\''))).stdout).to.deep.equal({ a: [1] });
      expect((await bench.output(bench.sh('echo "[1, 2]"'))).stdout).to.deep.equal([1, 2]);
      expect((await bench.output(bench.sh('echo 1.10'))).stdout).to.equal('1.10\n');
      expect((await bench.output(bench.sh('echo "{not"'))).stdout).to.equal('{not\n');
    });

    it('stays text where the node says text', async () => {
      expect((await bench.output(bench.sh('echo "[1]"', { output: 'text' }))).stdout).to.equal('[1]\n');
    });

    it('is any JSON where the node says json, and a failure when it is none', async () => {
      expect((await bench.output(bench.sh('echo 1.10', { output: 'json' }))).stdout).to.equal(1.1);
      const { code, retryable } = await bench.failure(bench.sh('echo no', { output: 'json' }));
      expect({ code, retryable }).to.deep.equal({ code: 'FS_CONTAINER_OUTPUT', retryable: false });
    });

    it('is whole up to 1 MiB', async () => {
      const { stdout } = await bench.output(bench.sh('yes 123456789abcde | head -c 1048576'));
      expect((stdout as string).length).to.equal(2 ** 20);
    });

    it('fails beyond 1 MiB, and the container is ended at once', async () => {
      const { code, message } = await bench.failure(bench.sh('yes; sleep 60'));
      expect(code).to.equal('FS_CONTAINER_OUTPUT');
      expect(message).to.contain('1048576 bytes');
      expect(await bench.left()).to.equal(0);
    });

    it('has the last 64 KiB of stderr, from a whole character on', async () => {
      const { stderrTail } = await bench.output(bench.sh('yes ä | head -c 600001 >&2; echo end >&2'));
      expect(Buffer.byteLength(stderrTail)).to.be.within(65_530, 65_536);
      expect(stderrTail)
        .to.match(/^[ä\n]/)
        .and.match(/end\n$/);
    });

    it('takes many small writes', async () => {
      const script = 'i=0; while [ $i -lt 20000 ]; do echo -n x; i=$((i+1)); done';
      expect((await bench.output(bench.sh(script))).stdout).to.equal('x'.repeat(20_000));
    });
  });

  describe('its exit code', () => {
    it('other than 0 is a failure with the last line of stderr, to be tried again', async () => {
      const found = await bench.failure(bench.sh('echo first >&2; echo no such host >&2; exit 3'));
      expect(found).to.include({
        code: 'FS_CONTAINER_EXIT',
        message: 'exit code 3: no such host',
        retryable: true,
      });
    });

    it('is right however soon the container ends', async () => {
      const tasks = Array.from({ length: 12 }, (_, index) => bench.failure(bench.sh(`exit ${index + 1}`)));
      const messages = (await Promise.all(tasks)).map(({ message }) => message);
      expect(messages).to.deep.equal(Array.from({ length: 12 }, (_, index) => `exit code ${index + 1}`));
    });

    it('says that memory ran out', async () => {
      const script = 'a=xxxxxxxxxxxxxxxx; while true; do a=$a$a; done';
      const { code, message } = await bench.failure(bench.sh(script, { memory: '16m' }));
      expect(code).to.equal('FS_CONTAINER_EXIT');
      expect(message).to.match(/memory: with\.memory/);
    });

    it('is a failure without another try when the command is not there', async () => {
      const { code, retryable } = await bench.failure({ command: ['/nowhere'] });
      expect(code).to.equal('FS_CONTAINER_EXIT');
      if (!(await hasInit())) expect(retryable).to.equal(false);
    });
  });

  describe('what it is given', () => {
    it('has the command, the arguments and the environment as they are', async () => {
      const with_ = {
        command: ['sh', '-c', 'echo "$0|$1|$2|$A|$B"'],
        args: ['a b', '$A', 7],
        env: { A: 'x "y" $z', B: true },
      };
      expect((await bench.output(with_)).stdout).to.equal('a b|$A|7|x "y" $z|true\n');
    });

    for (const inputBy of ['bind', 'archive'] as const) {
      it(`finds its input in a read-only file (${inputBy})`, async () => {
        const own = new Bench(engine, { inputBy });
        const input = { list: [1, 'ä'], big: 'x'.repeat(300_000) };
        const script = 'cat $FULLSTOP_INPUT; echo x > $FULLSTOP_INPUT; chmod 777 $FULLSTOP_INPUT';
        const ending = await own.end(own.task(own.sh(`${script}; exit 0`, { input })));
        expect(ending.kind).to.equal('output');
        if (ending.kind === 'output') {
          expect(ending.output.stdout).to.deep.equal(input);
          expect(ending.output.stderrTail.match(/Read-only file system/g)).to.have.lengthOf(2);
        }
        expect((await own.end(own.task(own.sh('cat $FULLSTOP_INPUT', { input: null, user: 1000 })))).kind).to.equal(
          'output',
        );
        expect(await own.left()).to.equal(0);
        await own.close();
      });
    }

    it('has no input file without an input, and leaves none behind', async () => {
      expect((await bench.output(bench.sh('echo "[$FULLSTOP_INPUT]"', { output: 'text' }))).stdout).to.equal('[]\n');
      expect(readdirSync(tmpdir()).filter((name) => /^fullstop-[0-9a-f]{8}-/.test(name))).to.deep.equal([]);
    });

    it('runs as the user it names', async () => {
      expect((await bench.output(bench.sh('id -u', { user: 'nobody' }))).stdout).to.equal('65534\n');
      expect((await bench.output(bench.sh('id -u; id -g', { user: '1000:1001' }))).stdout).to.equal('1000\n1001\n');
      expect(await bench.failure(bench.sh('id', { user: 'nosuch' }))).to.include({ code: 'FS_INVALID' });
    });

    for (const [with_, text] of [
      [{ network: 'host' }, 'with.network'],
      [{ network: 'container:abc' }, 'with.network'],
      [{ memory: '1k' }, 'with.memory'],
      [{ cpus: 'many' }, 'with.cpus'],
      [{ privileged: true }, 'Unrecognized key'],
      [{ env: { 'A=B': 'c' } }, 'with.env'],
      [{ args: ['a\0b'] }, 'zero byte'],
      [{ image: '-v' }, 'with.image'],
    ] as const) {
      it(`refuses ${JSON.stringify(with_)}`, async () => {
        const { code, message } = await bench.failure(with_);
        expect(code).to.equal('FS_INVALID');
        expect(message).to.contain(text);
      });
    }
  });

  describe('its walls', () => {
    it('are no network but loopback', async () => {
      expect((await bench.output(bench.sh('ls /sys/class/net'))).stdout).to.equal('lo\n');
      const { exitCode } = await bench.output(bench.sh('wget -T 2 -O - http://1.1.1.1/ || exit 0; exit 1'));
      expect(exitCode).to.equal(0);
    });

    it('are no capability and no new privilege, as root too', async () => {
      const { stdout } = await bench.output(bench.sh('grep -E "Cap|NoNewPrivs|Seccomp:" /proc/self/status'));
      for (const name of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
        expect(stdout).to.match(new RegExp(`${name}:\\s+0000000000000000`));
      }
      expect(stdout).to.match(/NoNewPrivs:\s+1/);
    });

    it('are a root that is read-only and a /tmp that is not, for any user', async () => {
      const script = 'touch /x /etc/x /bin/x; echo "#!/bin/sh\necho ran" > /tmp/x && chmod +x /tmp/x && /tmp/x';
      for (const user of [0, 1000]) {
        const { stdout, stderrTail } = await bench.output(bench.sh(script, { user }));
        expect(stdout).to.equal('ran\n');
        expect(stderrTail.match(/Read-only file system/g)).to.have.lengthOf(3);
      }
    });

    it('are asked for, whatever the engine does by default', async () => {
      const { create } = ContainerEngine.prototype;
      let asked: Parameters<typeof create>[0] | undefined;
      ContainerEngine.prototype.create = function (options) {
        asked = options;
        return create.call(this, options);
      };
      try {
        await bench.output(bench.sh('true'));
      } finally {
        ContainerEngine.prototype.create = create;
      }
      expect(asked?.HostConfig).to.deep.include({
        NetworkMode: 'none',
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges'],
        Privileged: false,
        ReadonlyRootfs: true,
        Memory: 512 * 2 ** 20,
        MemorySwap: 512 * 2 ** 20,
        NanoCpus: 1e9,
        PidsLimit: 512,
      });
    });

    it('are limits of memory, processors and processes', async () => {
      const own = new Bench(engine, { pidsMax: 32 });
      const v2 = 'cd /sys/fs/cgroup; cat memory.max cpu.max pids.max';
      const v1 =
        'cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max';
      const script = `if [ -d /sys/fs/cgroup/memory ]; then ${v1}; else ${v2}; fi`;
      const ending = await own.end(own.task(own.sh(script, { memory: '64m', cpus: 0.5 })));
      await own.close();
      const lines = ending.kind === 'output' ? String(ending.output.stdout).trim().split(/\s+/) : [];
      expect(lines).to.deep.equal([String(64 * 2 ** 20), '50000', '100000', '32']);
    });
  });

  describe('its log', () => {
    it('comes while it runs, stream by stream, no character broken', async () => {
      const abort = new AbortController();
      const { log, seen, all } = printed('fertig');
      const running = bench.end(
        bench.task(bench.sh('echo ä; echo oh >&2; sleep 0.3; echo fertig; sleep 60')),
        abort.signal,
        log,
      );
      await seen;
      abort.abort();
      await running;
      const of = (wanted: string) =>
        all
          .filter(([stream]) => stream === wanted)
          .map(([, text]) => text)
          .join('');
      expect(of('stdout')).to.equal('ä\nfertig\n');
      expect(of('stderr')).to.equal('oh\n');
      expect(all.length).to.be.at.least(3);
    });
  });

  describe('its image', () => {
    it('must be on the list, and the message names the setting', async () => {
      expect(await bench.failure({ image: 'docker.io/library/alpine:3' })).to.include({
        code: 'FS_CONTAINER_IMAGE',
        retryable: false,
        message:
          'with.image: "docker.io/library/alpine:3" is not allowed by FULLSTOP_IMAGES, which allows ' +
          'localhost/fullstop-*: an operator can add it there',
      });
    });

    it('is none where the list is empty', async () => {
      const own = new Bench(engine, { images: [] });
      const { code, message } = await own.failure({});
      expect(code).to.equal('FS_CONTAINER_IMAGE');
      expect(message).to.contain('allows no image');
      await own.close();
    });

    it('must be on the machine', async () => {
      const { code, message } = await bench.failure({ image: 'localhost/fullstop-other:9' });
      expect(code).to.equal('FS_CONTAINER_IMAGE');
      expect(message).to.contain('pull it there first');
    });
  });

  describe('its engine', () => {
    it('is said to be missing where nothing listens', async () => {
      const own = new Bench({ ...engine, dockerHost: 'unix:///nowhere/docker.sock' });
      const { code, message, retryable } = await own.failure(own.sh('true', { input: 1 }));
      expect({ code, retryable }).to.deep.equal({ code: 'FS_CONTAINER_ENGINE', retryable: true });
      expect(message).to.equal(
        'no container engine answers at unix:///nowhere/docker.sock (ENOENT): ' +
          'start Docker or Podman there, or set DOCKER_HOST to where it is',
      );
      expect(await own.executor.available()).to.equal(false);
      await own.close();
    });

    it('is said to be unknown where none was found', async () => {
      const executor = createContainerExecutor({ dockerHost: null, images: ['*'], engineId: 'e' });
      const error = await executor
        .run(bench.task({}), new AbortController().signal, () => undefined)
        .then(
          () => null,
          (error) => error,
        );
      expect(error).to.include({ code: 'FS_CONTAINER_ENGINE' });
      expect(error.message).to.contain('set DOCKER_HOST');
      await executor.close();
    });

    it('is available where it answers', async () => {
      expect(await bench.executor.available()).to.equal(true);
    });
  });

  it('runs many at once', async () => {
    const startedMs = performance.now();
    const outputs = await Promise.all(Array.from({ length: 24 }, (_, i) => bench.output(bench.sh(`echo ${i}`))));
    expect(outputs.map(({ stdout }) => stdout)).to.deep.equal(Array.from({ length: 24 }, (_, i) => `${i}\n`));
    console.log(`      24 containers, created to gone: ${Math.round(performance.now() - startedMs)} ms`);
  });

  /** Whether containers here have an init of the engine as their first process. */
  async function hasInit(): Promise<boolean> {
    return /init/.test(String((await bench.output(bench.sh('cat /proc/1/cmdline'))).stdout));
  }

  it('carries its identity in labels', async () => {
    const abort = new AbortController();
    const { log, seen } = printed('up');
    const task = bench.task(bench.sh('echo up; sleep 60'), { node: 'poll/scan', iterations: [3] });
    const running = bench.end(task, abort.signal, log);
    await seen;
    const eyes = new ContainerEngine(engine.dockerHost);
    const [found] = await eyes.list({ 'fullstop.task': task.id });
    abort.abort();
    await running;
    eyes.close();
    expect(found?.labels).to.include({
      'fullstop.engine': bench.engineId,
      'fullstop.execution': task.executionId,
      'fullstop.node': 'poll/scan',
      'fullstop.iterations': '3',
      'fullstop.attempt': '1',
      'fullstop.task': task.id,
      'fullstop.key': task.idempotencyKey,
    });
  });
});
