import { expect } from 'chai';
import { compileDefinition } from '../../src/definition/compile.ts';
import { eventOf, itemOf, previewOf, recordOf, resultsOf } from '../../src/engine/views.ts';
import { shapes } from '../../src/server/shapes.ts';
import { eventRow, headerOf, nodeRow } from './support.ts';

const set = { type: 'set', with: { value: 1 } };
const workflow = compileDefinition(
  {
    name: 'flow',
    nodes: {
      first: set,
      poll: {
        type: 'while',
        needs: ['first'],
        condition: 'true',
        maxIterations: 9,
        body: {
          check: set,
          again: { type: 'while', needs: ['check'], condition: 'true', maxIterations: 9, body: { deep: set } },
        },
      },
      fan: {
        type: 'foreach',
        items: '${{ [1, 2] }}',
        body: { part: set, again: { type: 'while', condition: 'true', maxIterations: 2, body: { deep: set } } },
      },
      approve: { type: 'hold', trigger: 'approve', needs: ['poll'] },
    },
  },
  'a'.repeat(64),
);

describe('views', () => {
  it('show a node without a row as Pending, in the order of the file', () => {
    const record = recordOf(
      { header: headerOf('default'), nodes: [nodeRow('first', { status: 'Complete' })] },
      workflow,
      null,
      0,
    );
    expect(Object.entries(record.nodes).map(([name, { status }]) => `${name} ${status}`)).to.deep.equal([
      'first Complete',
      'poll Pending',
      'fan Pending',
      'approve Pending',
    ]);
    expect(record.nodes.poll).to.deep.equal({
      type: 'while',
      status: 'Pending',
      error: null,
      errorCode: null,
      attempt: 0,
      startedAt: null,
      endedAt: null,
      hasOutput: false,
      where: 'engine',
    });
    shapes.Execution.parse(record);
  });

  it('show the current iteration of a while, and of one in its body', () => {
    const nodes = [
      nodeRow('poll', { type: 'while', attempt: 2, data: { index: 3 } }),
      nodeRow('poll/check', { key: 'poll/check/3@2', iterations: ['3@2'], status: 'Complete' }),
      nodeRow('poll/again', {
        key: 'poll/again/3@2',
        iterations: ['3@2'],
        type: 'while',
        data: { index: 1, delayUntilMs: 5 },
      }),
      nodeRow('poll/again/deep', { key: 'poll/again/deep/3@2,1@1', iterations: ['3@2', '1@1'], where: 'worker' }),
    ];
    const record = recordOf({ header: headerOf('default'), nodes }, workflow, null, 0);
    const { iteration } = record.nodes.poll ?? {};
    expect(iteration?.index).to.equal(3);
    expect(iteration?.nodes.check?.status).to.equal('Complete');
    expect(iteration?.nodes.again?.iteration).to.deep.include({ index: 1 });
    expect(iteration?.nodes.again?.iteration?.nodes.deep?.where).to.equal('worker');
    shapes.Execution.parse(record);
    const bare = recordOf({ header: headerOf('default'), nodes }, null, null, 0);
    expect(bare.nodes.poll?.iteration?.nodes.again?.iteration?.nodes.deep?.status).to.equal('Running');
  });

  it('show the body of a foreach in a child, and the counts of children in their parent', () => {
    const child = headerOf('default', {
      bodyPath: 'fan',
      parent: { executionId: headerOf('x').id, node: 'fan', attempt: 1, itemIndex: 0 },
    });
    const record = recordOf({ header: child, nodes: [nodeRow('fan/part', { status: 'Complete' })] }, workflow, null, 0);
    expect(Object.entries(record.nodes).map(([name, { status }]) => `${name} ${status}`)).to.deep.equal([
      'part Complete',
      'again Pending',
    ]);
    const children = { total: 2, running: 1, complete: 1, failed: 0 };
    const parent = recordOf(
      { header: headerOf('default'), nodes: [nodeRow('fan', { type: 'foreach', data: { children } })] },
      workflow,
      null,
      0,
    );
    expect(parent.nodes.fan?.children).to.deep.equal(children);
  });

  it('say what a stop waits for, and nothing once it has ended', () => {
    const stop = { requestId: headerOf('x').id, requestedAtMs: 1_000 };
    const nodes = [
      nodeRow('first', { where: 'worker' }),
      nodeRow('poll/check', { key: 'poll/check/3@1', iterations: ['3@1'], where: 'worker' }),
      nodeRow('approve', { status: 'Held' }),
      nodeRow('fan', { where: 'agent' }),
    ];
    const record = recordOf({ header: headerOf('default', { stop }), nodes }, workflow, null, 1_250);
    expect(record.waitingFor).to.deep.equal([
      { node: 'first', where: 'worker', sinceMs: 250 },
      { node: 'poll/check', iterations: [3], where: 'worker', sinceMs: 250 },
    ]);
    expect(
      recordOf({ header: headerOf('default', { stop, status: 'Failed' }), nodes }, workflow, null, 0),
    ).to.not.have.property('waitingFor');
    expect(recordOf({ header: headerOf('default'), nodes }, workflow, null, 0)).to.not.have.property('waitingFor');
  });

  it('derive stoppedByUser from the stop, never from text', () => {
    expect(itemOf(headerOf('default', { error: 'workflow stopped by user' })).stoppedByUser).to.equal(false);
    expect(itemOf(headerOf('default', { stop: { requestId: 'r', requestedAtMs: 0 } })).stoppedByUser).to.equal(true);
  });

  it('leave out of an event what is null', () => {
    expect(eventOf(eventRow(3))).to.deep.equal({ seq: 3, at: '1970-01-01T00:00:01.003Z', type: 'node.started' });
    const full = { ...eventRow(3), node: 'poll/check', iterations: [3], attempt: 2, data: { a: 1 } };
    expect(eventOf(full)).to.deep.include({ node: 'poll/check', iterations: [3], attempt: 2, data: { a: 1 } });
    expect(eventOf({ ...full, iterations: [] })).to.not.have.property('iterations');
  });

  it('preview a stop: what it aborts, cannot cancel, keeps and leaves', () => {
    const nodes = [
      nodeRow('first', { status: 'Complete' }),
      nodeRow('poll', { type: 'while', data: { index: 2 } }),
      nodeRow('poll/check', { key: 'poll/check/2@1', iterations: ['2@1'], type: 'http', where: 'worker' }),
      nodeRow('fan', { type: 'agent', where: 'agent', data: { queued: true, agent: 'edge-1' } }),
      nodeRow('call', { type: 'http', where: 'worker', data: { queued: true, worker: null } }),
      nodeRow('had', { type: 'http', where: 'worker', data: { queued: true, worker: 'build-1' } }),
    ];
    const preview = previewOf({ header: headerOf('default'), nodes }, workflow, 1_500);
    expect(preview.willAbort).to.deep.equal([
      { node: 'poll', type: 'while', where: 'engine', runningForMs: 500 },
      { node: 'poll/check', iterations: [2], type: 'http', where: 'worker', runningForMs: 500 },
      { node: 'call', type: 'http', where: 'worker', runningForMs: 500, queued: true },
      { node: 'had', type: 'http', where: 'worker', runningForMs: 500 },
    ]);
    expect(preview.cannotCancel).to.deep.equal([{ node: 'fan', agent: 'edge-1', runningForMs: 500 }]);
    expect(preview.kept).to.deep.equal({ Complete: 1, Failed: 0, Skipped: 0 });
    expect(preview.stayPending).to.deep.equal([{ node: 'poll/again', iterations: [2] }, { node: 'approve' }]);
    shapes.Preview.parse(preview);
  });

  it('give the outputs of the attempts that count', () => {
    const header = headerOf('default');
    const nodes = [nodeRow('first', { status: 'Complete', attempt: 2, hasOutput: true })];
    const rows = [1, 2].map((attempt) => ({
      id: `${header.id}/first/-/${attempt}`,
      key: 'first/-',
      output: `of ${attempt}`,
    }));
    const results = resultsOf({ header, nodes }, workflow, rows);
    expect(results.nodes.first).to.deep.equal({ status: 'Complete', output: 'of 2', error: null });
    expect(results.nodes.poll).to.deep.equal({ status: 'Pending', output: null, error: null });
    shapes.Results.parse(results);
  });
});
