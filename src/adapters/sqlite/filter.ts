import type { SQLInputValue } from 'node:sqlite';
import type { ExecutionQuery } from '../../ports/store.ts';
import { statusNumber } from './codec.ts';

export interface Condition {
  sql: string;
  values: SQLInputValue[];
}

/** What rows of `executions` must fulfil to be in a list. */
export function conditionsOf(filter: Omit<ExecutionQuery, 'limit' | 'cursor'>): Condition[] {
  const conditions: Condition[] = [];
  const add = (sql: string, ...values: SQLInputValue[]): void => {
    conditions.push({ sql, values });
  };
  if (filter.parent !== undefined) add('parent = ?', filter.parent);
  else if (filter.withChildren !== true) add('parent IS NULL');
  if (filter.project !== null) add('project = ?', filter.project);
  if (filter.ids !== undefined) add('id IN (SELECT value FROM json_each(?))', JSON.stringify(filter.ids));
  if (filter.status !== undefined) add(`status = ${statusNumber(filter.status)}`);
  if (filter.live !== undefined) add(filter.live ? 'status < 2' : 'status >= 2');
  if (filter.workflow !== undefined) add('workflow = ?', filter.workflow);
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
