import { expect } from 'chai';
import { containerNode } from '../../src/nodes/container.ts';
import { isImageAllowed, parseContainerSpec } from '../../src/worker/container-spec.ts';

describe('the allow-list of images', () => {
  for (const [image, patterns, allowed] of [
    ['scanner:1.4', [], false],
    ['scanner:1.4', ['scanner:*'], true],
    ['scanner', ['scanner:*'], true],
    ['scanner', ['scanner'], true],
    ['scanner:latest', ['scanner'], false],
    ['scanner:1.4', ['scanner'], false],
    ['scanner2:1', ['scanner:*'], false],
    ['evil/scanner:1', ['scanner:*'], false],
    ['registry.example/team/a/b:1', ['registry.example/team/*'], true],
    ['registryXexample/team/a', ['registry.example/team/*'], false],
    ['scanner@sha256:abc', ['scanner:*'], false],
    ['scanner@sha256:abc', ['scanner@sha256:*'], true],
    ['localhost:5000/a', ['localhost:5000/a:latest'], true],
    ['anything:1', ['no', '*'], true],
  ] as const) {
    it(`${allowed ? 'lets' : 'does not let'} ${image} through [${patterns}]`, () => {
      expect(isImageAllowed(image, patterns)).to.equal(allowed);
    });
  }
});

describe('with of a container node', () => {
  for (const [memory, bytes] of [
    ['512m', 2 ** 29],
    ['2g', 2 ** 31],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['8192k', 2 ** 23],
    [2 ** 23, 2 ** 23],
  ] as const) {
    it(`reads ${memory} as ${bytes} bytes of memory`, () => {
      expect(parseContainerSpec({ with: { image: 'a', memory } }).memoryBytes).to.equal(bytes);
    });
  }

  for (const with_ of [
    { image: 'a' },
    { image: '${{ input.image }}', command: 'scan', args: '${{ input.args }}', memory: '${{ input.m }}', cpus: 0.5 },
    { image: 'a', command: ['sh', '-c'], args: ['echo', 1], env: { A: 1 }, input: [1], network: 'bridge', user: 1000 },
  ]) {
    it(`may be ${JSON.stringify(with_)}`, () => {
      expect(containerNode.with?.safeParse(with_).error).to.equal(undefined);
    });
  }

  for (const with_ of [
    {},
    { image: 'a', command: 'echo hello' },
    { image: 'a', network: 'host' },
    { image: 'a', memory: 'much' },
    { image: 'a', output: 'xml' },
    { image: 'a', privileged: true },
  ]) {
    it(`may not be ${JSON.stringify(with_)}`, () => {
      expect(containerNode.with?.safeParse(with_).success).to.equal(false);
    });
  }
});
