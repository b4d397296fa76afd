/**
 * The client SDK, for Node.js and browsers: `import { connect } from 'fullstop/client'`.
 *
 * ```ts
 * const client = connect({ url: 'http://127.0.0.1:4747', key });
 * const { id } = await client.executions.start({ workflow: 'perimeter-scan', input: { target: 'example.com' } });
 * for await (const event of client.executions.events(id)) console.log(event.seq, event.type, event.node);
 * const { status, outputs, stoppedByUser } = await client.executions.result(id);
 * client.close();
 * ```
 */

export type { ErrorCode } from '../errors.ts';
export { FullstopError, hasCode, STOPPED_MESSAGE } from '../errors.ts';
export type {
  AuditItem,
  BulkStopAnswer,
  BulkStopDryRun,
  DefinitionFault,
  EngineItem,
  EventPage,
  ExecutionEvent,
  ExecutionEventType,
  ExecutionFilter,
  ExecutionItem,
  ExecutionRecord,
  ExecutionStatus,
  Inspection,
  Json,
  KeyItem,
  List,
  NodeRecord,
  NodeStatus,
  ParentRef,
  Results,
  Role,
  StopAnswer,
  StopPreview,
  StopReceipt,
  StopRef,
  TaskOutcome,
  Where,
  WorkerItem,
  WorkflowItem,
  WorkflowRef,
  WorkflowSaved,
} from '../wire.ts';
export type { Client, ExecutionResult } from './client.ts';
export { connect } from './client.ts';
export type { ConnectOptions } from './connection.ts';
export type { EventsOptions, FollowOptions } from './follow.ts';
export type { ExecutionListQuery, Health, InProject, KeyRequest, StartRequest, WorkflowDetail } from './verbs.ts';
