/** The public names of the package, one by one. */

export type {
  Client,
  ConnectOptions,
  EventsOptions,
  ExecutionListQuery,
  ExecutionResult,
  FollowOptions,
  Health,
  InProject,
  KeyRequest,
  StartRequest,
  WorkflowDetail,
} from './client/index.ts';
export { connect } from './client/index.ts';
export type { Config, Environment, Flags, LogLevel } from './config.ts';
export { configDefaults, resolveConfig } from './config.ts';
export type { ErrorCode, FullstopErrorOptions } from './errors.ts';
export { errorCodes, FullstopError, hasCode, STOPPED_MESSAGE } from './errors.ts';
export { startServer } from './runtime.ts';
export type {
  AuditItem,
  BulkStopAnswer,
  BulkStopDryRun,
  DefinitionFault,
  DeliveryPath,
  EngineItem,
  ErrorBody,
  EventPage,
  ExecutionEvent,
  ExecutionEventType,
  ExecutionFilter,
  ExecutionItem,
  ExecutionRecord,
  ExecutionStatus,
  Json,
  KeyItem,
  List,
  NodeAddress,
  NodeRecord,
  NodeStatus,
  ParentRef,
  Results,
  Role,
  ServerEvents,
  StopAnswer,
  StopPreview,
  StopReceipt,
  StopRef,
  TaskOutcome,
  Where,
  WorkflowItem,
  WorkflowRef,
  WorkflowSaved,
} from './wire.ts';
