import { expect } from 'chai';
import { errorCodes } from '../../src/errors.ts';
import { deadLinksIn, errorSectionFaults } from './check.ts';
import { breachesIn } from './directions.ts';

describe('npm run check', () => {
  describe('import directions', () => {
    const allowed: [file: string, text: string][] = [
      ['machines/a.machine.ts', "import { setup } from 'xstate';\nimport type { E } from './events.ts';"],
      ['src/engine/a.ts', "import { nodeMachine } from '../../machines/node.machine.ts';"],
      ['src/engine/a.ts', "// import x from '../server/server.ts'; Date.now()"],
      ['src/engine/a.ts', "const text = 'Date.now()';"],
      ['src/engine/a.ts', 'const at = new Date(ms).toISOString(); clock.setTimer(1, run); this.setTimeout(1);'],
      ['src/client/a.ts', "import { io } from 'socket.io-client';\nimport type { Json } from '../wire.ts';"],
      ['src/config.ts', 'const port = process.env.FULLSTOP_PORT;'],
      ['src/worker/a.ts', 'setTimeout(run, 1);'],
      ['src/runtime.ts', "import { createSqliteStore } from './adapters/sqlite/store.ts';"],
    ];
    for (const [file, text] of allowed) {
      it(`lets ${file} have ${JSON.stringify(text)}`, () => {
        expect(breachesIn(file, text)).to.deep.equal([]);
      });
    }

    const refused: [file: string, text: string][] = [
      ['machines/a.machine.ts', "import { x } from '../src/errors.ts';"],
      ['machines/a.machine.ts', "import { uuid } from 'uuid';"],
      ['machines/a.machine.ts', "import fs from 'node:fs';"],
      ['src/engine/a.ts', "import {\n  x,\n} from '../adapters/sqlite/store.ts';"],
      ['src/engine/a.ts', "export * from '../server/server.ts';"],
      ['src/engine/a.ts', "const x = await import('../worker/pool.ts');"],
      ['src/engine/a.ts', "import '../cli/cli.ts';"],
      ['src/engine/a.ts', "import { randomUUID } from 'node:crypto';"],
      ['src/engine/a.ts', 'const at = Date.now();'],
      ['src/engine/a.ts', 'const at = new Date();'],
      ['src/engine/a.ts', 'setTimeout(run, 1);'],
      ['src/engine/a.ts', 'const text = `${Math.random()}`;'],
      ['src/engine/a.ts', 'const key = crypto.randomUUID();'],
      ['src/engine/a.ts', 'const port = process.env.PORT;'],
      ['src/engine/a.ts', "import { WebSocket } from 'ws';"],
      ['src/engine/a.ts', 'const used = process.memoryUsage();'],
      ['src/engine/a.ts', 'console.log(1);'],
      ['src/engine/a.ts', "const answer = await fetch('http://host/');"],
      ['src/engine/a.ts', 'queueMicrotask(run);'],
      ['src/worker/worker.ts', 'setTimeout(run, 1);'],
      ['src/server/verbs/a.ts', 'const at = Date.now();'],
      ['src/adapters/socket-io/bus.ts', 'setImmediate(run);'],
      ['src/adapters/socket-io/relay.ts', "import { randomBytes } from 'node:crypto';"],
      ['src/adapters/socket-io/relay.ts', 'const at = performance.now();'],
      ['src/worker/a.ts', 'const port = process.env.PORT;'],
      ['src/ports/a.ts', "import type { E } from '../engine/api.ts';"],
      ['src/definition/a.ts', "import type { E } from '../engine/api.ts';"],
      ['src/client/a.ts', "import { z } from 'zod';"],
      ['src/client/a.ts', "import type { E } from '../server/server.ts';"],
      ['src/worker/a.ts', "import type { E } from '../engine/api.ts';"],
    ];
    for (const [file, text] of refused) {
      it(`refuses ${file} ${JSON.stringify(text)}`, () => {
        expect(breachesIn(file, text)).not.to.deep.equal([]);
      });
    }

    it('names the line', () => {
      expect(breachesIn('src/engine/a.ts', '/* one\ntwo */\nDate.now();')[0]).to.match(
        /^src\/engine\/a\.ts:3: Date\.now/,
      );
    });
  });

  describe('links', () => {
    it('lead to files and headings that are there', () => {
      const text =
        '# Own heading\n[a](../README.md) [b](errors.md#fs_invalid) [c](#own-heading) [d](https://a.example/x)';
      expect(deadLinksIn('docs/a.md', text)).to.deep.equal([]);
      expect(deadLinksIn('docs/a.md', '[a](README.md) [b](errors.md#fs_odd) [c](#own-heading)')).to.deep.equal([
        'docs/a.md links to README.md, which is not there',
        'docs/a.md links to errors.md#fs_odd: there is no such heading',
        'docs/a.md links to #own-heading: there is no such heading',
      ]);
    });
  });

  describe('docs/errors.md', () => {
    const all = Object.keys(errorCodes).map((code) => `## ${code}\n\nText.\n`);

    it('has a section for each code', () => {
      expect(errorSectionFaults(all.join('\n'))).to.deep.equal([]);
      expect(errorSectionFaults(all.slice(1).join('\n'))).to.deep.equal(['FS_INVALID has no section']);
    });

    it('has no section without a code, and none twice', () => {
      expect(errorSectionFaults(`${all.join('\n')}\n## FS_ODD\n`)).to.deep.equal(['FS_ODD is not an error code']);
      expect(errorSectionFaults(all.join('\n') + all[0])).to.deep.equal(['FS_INVALID is there twice']);
    });
  });
});
