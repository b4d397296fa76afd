import type { Json } from '../wire.ts';

/** A workflow file as an object. */
export type DemoWorkflow = { name: string } & { [key: string]: Json };

/** The demonstration's three workflows, which call the endpoint at `endpointUrl`. */
export function demoWorkflows(endpointUrl: string): DemoWorkflow[] {
  const retry = { attempts: 10, backoff: '1s' };
  return [
    {
      name: 'demo-poll',
      description: 'Polls a job that never ends, once a second, a million times: something to stop.',
      nodes: {
        poll: {
          type: 'while',
          condition: "iter.last == null || iter.last.check.body.state != 'done'",
          maxIterations: 1_000_000,
          delay: '1s',
          body: {
            check: { type: 'http', with: { url: `${endpointUrl}/status` }, timeout: '10s', retry },
          },
        },
      },
    },
    {
      name: 'demo-graph',
      description: 'Parallel branches: one calls a slow service, one waits for a person (trigger "approve").',
      inputs: { target: { type: 'string', default: 'demo.example' } },
      nodes: {
        prepare: { type: 'set', with: { value: { target: '${{ input.target }}', ports: [22, 80, 443] } } },
        inventory: { type: 'http', needs: ['prepare'], with: { url: `${endpointUrl}/status` }, timeout: '10s', retry },
        scan: { type: 'http', needs: ['prepare'], with: { url: `${endpointUrl}/slow?seconds=600` } },
        cool: { type: 'delay', needs: ['prepare'], with: { duration: '2s' } },
        approve: { type: 'hold', needs: ['inventory', 'cool'], trigger: 'approve' },
        report: {
          type: 'set',
          needs: ['scan', 'approve'],
          with: { value: 'scanned ${{ nodes.prepare.output.target }}' },
        },
      },
    },
    {
      name: 'demo-foreach',
      description: 'Works through a list, two items at a time, each item an execution of its own.',
      inputs: {
        hosts: {
          type: 'array',
          default: ['alpha', 'bravo', 'charlie', 'delta', 'echo', 'foxtrot', 'golf', 'hotel', 'india', 'juliett'],
        },
      },
      nodes: {
        hosts: {
          type: 'foreach',
          items: '${{ input.hosts }}',
          concurrency: 2,
          body: {
            check: { type: 'http', with: { url: `${endpointUrl}/slow?seconds=15` } },
            note: {
              type: 'set',
              needs: ['check'],
              with: { value: '${{ item }} answered ${{ nodes.check.output.status }}' },
            },
          },
        },
      },
    },
  ];
}
