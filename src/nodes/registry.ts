import { agentNode } from './agent.ts';
import { aiNode } from './ai.ts';
import { containerNode } from './container.ts';
import { delayNode } from './delay.ts';
import { failNode } from './fail.ts';
import { foreachNode } from './foreach.ts';
import { holdNode } from './hold.ts';
import { httpNode } from './http.ts';
import type { NodeType } from './node-type.ts';
import { setNode } from './set.ts';
import { whileNode } from './while.ts';
import { workflowNode } from './workflow.ts';

/** Every node type by name. A new one is its file and its line here. */
export const nodeTypes: Map<string, NodeType> = new Map(
  [
    setNode,
    httpNode,
    containerNode,
    aiNode,
    agentNode,
    whileNode,
    foreachNode,
    workflowNode,
    delayNode,
    holdNode,
    failNode,
  ].map((type) => [type.type, type]),
);
