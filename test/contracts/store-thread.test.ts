import { expect } from 'chai';
import { StoreThread } from '../../src/adapters/sqlite/store-thread.ts';
import { rejection } from './store.contract.ts';

type Operations = { echo: (value: number) => number; die: () => void };

describe('a store thread', () => {
  let thread: StoreThread<Operations>;

  beforeEach(async () => {
    thread = new StoreThread<Operations>('../../../test/contracts/dying', { directory: '', maxPages: 0 });
    await thread.open();
  });

  afterEach(() => thread.close());

  it('answers in the order of the calls, over batches', async () => {
    const values = Array.from({ length: 25 }, (_, index) => index);
    expect(await Promise.all(values.map((value) => thread.call('echo', value)))).to.deep.equal(values);
  });

  it('rejects the calls under way when it dies, says so, and is started again by the next call', async () => {
    const [dying, beside] = await Promise.all([rejection(thread.call('die')), rejection(thread.call('echo', 1))]);
    for (const error of [dying, beside]) expect(error).to.include({ code: 'FS_UNAVAILABLE' });
    expect(thread.trouble).to.include('thread failed');
    expect(await thread.call('echo', 2)).to.equal(2);
    expect(thread.trouble).to.equal(null);
  });

  it('takes no call once it is closed', async () => {
    const last = thread.call('echo', 3);
    await thread.close();
    expect(await last).to.equal(3);
    expect(await rejection(thread.call('echo', 4))).to.include({ code: 'FS_UNAVAILABLE' });
  });
});
