import type { Filter } from 'mongodb';
import type { ExecutionQuery } from '../../ports/store.ts';
import { statusNumber } from './codec.ts';
import type { ExecutionDocument } from './documents.ts';

/** What documents of `executions` must fulfil to be in a list. */
export function filterOf(query: Omit<ExecutionQuery, 'limit' | 'cursor'>): Filter<ExecutionDocument> {
  const all: Filter<ExecutionDocument>[] = [];
  const { status } = query;
  if (query.parent !== undefined) all.push({ parent: query.parent });
  else if (query.withChildren !== true) all.push({ isRoot: true });
  if (query.project !== null) all.push({ project: query.project });
  if (query.workflow !== undefined) all.push({ workflow: query.workflow });
  if (query.ids !== undefined) all.push({ _id: { $in: query.ids } });
  if (query.live === true || status === 'Pending' || status === 'Running') all.push({ status: { $lt: 2 } });
  if (query.live === false) all.push({ status: { $gte: 2 } });
  if (status !== undefined) all.push({ status: statusNumber(status) });
  if (query.stoppedByUser !== undefined) all.push({ 'stop.id': { $exists: query.stoppedByUser } });
  if (query.createdFromMs !== undefined) all.push({ created: { $gte: query.createdFromMs } });
  if (query.createdToMs !== undefined) all.push({ created: { $lte: query.createdToMs } });
  if (query.label !== undefined) all.push(labelFilter(query.label));
  const text = query.text?.trim().toLowerCase() ?? '';
  if (text !== '') all.push(textFilter(text));
  return all.length === 0 ? {} : { $and: all };
}

/** `k=v`, or `k` for any value. */
function labelFilter(label: string): Filter<ExecutionDocument> {
  const equals = label.indexOf('=');
  if (equals < 0) return { 'labels.k': label };
  return { labels: { $elemMatch: { k: label.slice(0, equals), v: label.slice(equals + 1) } } };
}

/** The beginning of an id, or words each of which is in the workflow's name or the error. */
function textFilter(text: string): Filter<ExecutionDocument> {
  const words = text.split(/\s+/).map((word) => ({ $regex: escaped(word) }));
  const inWords = words.map((word) => ({ $or: [{ workflow: word }, { errorWords: word }] }));
  return { $or: [{ _id: { $regex: `^${escaped(text)}` } }, { $and: inWords }] };
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
}
