import { expect } from 'chai';
import { systemIds } from '../../src/adapters/system/ids.ts';
import type { ExecutionStore } from '../../src/ports/store.ts';
import type { Caller } from '../../src/server/access.ts';
import { type FrozenSet, FrozenSets } from '../../src/server/frozen-sets.ts';
import type { Json } from '../../src/wire.ts';

const caller: Caller = { keyId: 'k', name: 'k', role: 'viewer', project: null };
const set: FrozenSet = {
  members: [
    { id: 'a', project: 'p' },
    { id: 'b', project: 'q' },
    { id: 'c', project: 'p' },
  ],
  filter: { text: 'x' },
  project: null,
  frozenAtMs: 1_000,
};

const codeOf = (failing: Promise<unknown>): Promise<unknown> =>
  failing.then(
    () => null,
    (error: { code: unknown }) => error.code,
  );

describe('frozen sets', () => {
  let nowMs: number;
  let settings: Map<string, string>;
  const engine = (shared: boolean): FrozenSets => {
    const store = {
      cluster: shared ? {} : null,
      getSetting: async (name: string) => JSON.parse(settings.get(name) ?? 'null'),
      putSetting: async (name: string, value: Json) => void settings.set(name, JSON.stringify(value)),
    };
    return new FrozenSets({ nowMs: () => nowMs } as never, systemIds, store as unknown as ExecutionStore);
  };
  beforeEach(() => {
    nowMs = 1_000;
    settings = new Map();
  });

  it('are known to every engine of a database, with all their members', async () => {
    const setId = await engine(true).keep(caller, set);
    const found = await engine(true).get(caller, setId);
    expect(found.members).to.have.deep.members(set.members);
    expect(found)
      .to.include({ project: null, frozenAtMs: 1_000 })
      .and.to.deep.include({ filter: { text: 'x' } });
  });

  it('stay those of the key that made them, and end after five minutes', async () => {
    const setId = await engine(true).keep(caller, set);
    expect(await codeOf(engine(true).get({ ...caller, keyId: 'other' }, setId))).to.equal('FS_NOT_FOUND');
    nowMs += 5 * 60_000;
    expect(await codeOf(engine(true).get(caller, setId))).to.equal('FS_NOT_FOUND');
  });

  it('of a project that the caller may not see stay of none', async () => {
    const setId = await engine(true).keep(caller, { ...set, members: [], project: undefined });
    expect((await engine(true).get(caller, setId)).project).to.equal(undefined);
  });

  it('leave nothing in a store that one engine has for itself', async () => {
    await engine(false).keep(caller, set);
    expect(settings.size).to.equal(0);
  });

  it('take a bounded place', async () => {
    const one = engine(true);
    for (let count = 0; count < 600; count += 1) await one.keep(caller, set);
    expect(settings.size).to.be.at.most(256);
  });
});
