import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { loadDefinition } from '../../src/definition/compile.ts';
import { demoWorkflows } from '../../src/demo/workflows.ts';

const folder = join(import.meta.dirname, '..', '..', 'examples');

describe('examples/', () => {
  for (const file of readdirSync(folder)) {
    it(`${file} is a valid workflow of its own name that says its command`, () => {
      const text = readFileSync(join(folder, file), 'utf8');
      expect(`${loadDefinition(text, 'yaml').compiled.name}.yaml`).to.equal(file);
      expect(text).to.match(new RegExp(`^# +npm run -s fullstop -- (run|save) examples/${file}`, 'm'));
    });
  }
});

describe('the demonstration', () => {
  for (const workflow of demoWorkflows('http://127.0.0.1:4000')) {
    it(`has a valid workflow ${workflow.name}`, () => {
      expect(loadDefinition(workflow).compiled.name).to.equal(workflow.name);
    });
  }
});
