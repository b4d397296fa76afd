import type { SQLInputValue } from 'node:sqlite';
import type { ExecutionQuery } from '../../ports/store.ts';
import { statusNumber } from './codec.ts';

export interface Condition {
  sql: string;
  values: SQLInputValue[];
}

/**
 * What rows of `executions` must fulfil to be in a list.
 *
 * A condition that few rows meet has an index of its own, ordered by time. Beside it the indexes of the common
 * ones are put out of reach by a `+`, because SQLite, which knows no numbers of rows, would rather use them.
 */
export function conditionsOf(filter: Omit<ExecutionQuery, 'limit' | 'cursor'>): Condition[] {
  const conditions: Condition[] = [];
  const add = (sql: string, ...values: SQLInputValue[]): void => {
    conditions.push({ sql, values });
  };
  const { status } = filter;
  const isLive = filter.live === true || status === 'Pending' || status === 'Running';
  const common = isLive || status === 'Failed' || filter.stoppedByUser === true ? '+' : '';
  if (filter.parent !== undefined) add('parent = ?', filter.parent);
  else if (filter.withChildren !== true) add(`${common}parent IS NULL`);
  if (filter.project !== null) add(`${common}project = ?`, filter.project);
  if (filter.workflow !== undefined) add(`${common}workflow = ?`, filter.workflow);
  if (filter.ids !== undefined) add('id IN (SELECT value FROM json_each(?))', JSON.stringify(filter.ids));
  if (isLive) add('status < 2');
  if (filter.live === false) add('status >= 2');
  if (status !== undefined) add(`status = ${statusNumber(status)}`);
  if (filter.stoppedByUser !== undefined) add(`stop_request IS ${filter.stoppedByUser ? 'NOT NULL' : 'NULL'}`);
  if (filter.createdFromMs !== undefined) add('created_at >= ?', filter.createdFromMs);
  if (filter.createdToMs !== undefined) add('created_at <= ?', filter.createdToMs);
  if (filter.label !== undefined) conditions.push(labelCondition(filter.label));
  const text = filter.text?.trim().toLowerCase() ?? '';
  if (text !== '') conditions.push(textCondition(text));
  return conditions;
}

/** `k=v`, or `k` for any value. */
function labelCondition(label: string): Condition {
  const equals = label.indexOf('=');
  const [key, value] = equals < 0 ? [label, null] : [label.slice(0, equals), label.slice(equals + 1)];
  return {
    sql: `EXISTS (SELECT 1 FROM json_each(facts, '$.labels') AS label WHERE label.key = ? AND coalesce(label.value = ?, TRUE))`,
    values: [key, value],
  };
}

/** The beginning of an id, or words each of which is in the workflow's name or the error. */
function textCondition(text: string): Condition {
  const words = text.split(/\s+/);
  const inWords = words.map(() => `instr(lower(workflow || ' ' || coalesce(error, '')), ?) > 0`).join(' AND ');
  return { sql: `(substr(lower(id), 1, ?) = ? OR (${inWords}))`, values: [text.length, text, ...words] };
}
