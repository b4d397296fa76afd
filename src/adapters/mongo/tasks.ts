/**
 * The queue of tasks, which lives in the headers: a claim meets a stop, an end and another claim in one document.
 *
 * An index holds those that nobody has claimed, by capability and age.
 */
import type { Collection, Filter } from 'mongodb';
import type { TaskState } from '../../ports/cluster.ts';
import type { TaskClaim, TaskRow } from '../../ports/task-queue.ts';
import type { WorkReport } from '../../ports/work.ts';
import { compare, decodeClaim, decodeTask, encodeClaim, LIVE, tasksOf } from './codec.ts';
import type { Connection } from './connection.ts';
import { type ExecutionDocument, fieldOf, type TaskDocument } from './documents.ts';
import type { Lanes } from './lanes.ts';
import { type Collections, LIVE_INDEX, QUEUED_INDEX } from './schema.ts';
import { storedOf, type Texts, TextWriter } from './texts.ts';

export interface TasksOptions {
  connection: Connection;
  collections: Collections;
  texts: Texts;
  lanes: Lanes<ExecutionDocument>;
}

type TaskHeader = Pick<ExecutionDocument, '_id' | 'engine' | 'project' | 'status' | 'stop' | 'tasks' | 'gone'>;
const TASK_FIELDS = { engine: 1, project: 1, status: 1, stop: 1, tasks: 1, gone: 1 } as const;
interface Found {
  header: TaskHeader;
  task: TaskDocument;
}

export class Tasks {
  readonly #connection: Connection;
  readonly #executions: Collection<ExecutionDocument>;
  readonly #texts: Texts;
  readonly #lanes: Lanes<ExecutionDocument>;

  constructor({ connection, collections, texts, lanes }: TasksOptions) {
    this.#connection = connection;
    this.#executions = collections.executions;
    this.#texts = texts;
    this.#lanes = lanes;
  }

  async claim(id: string, claim: TaskClaim): Promise<'claimed' | 'stopping' | 'gone' | 'taken'> {
    const claimed = await this.#lanes.write({
      updateOne: {
        filter: {
          ...liveTask(id),
          stop: { $exists: false },
          tasks: { $elemMatch: { id, queued: { $exists: true } } },
        },
        update: { $set: { 'tasks.$.claim': encodeClaim(claim) }, $unset: { 'tasks.$.queued': '' } },
        hint: '_id_',
      },
    });
    if (claimed) return 'claimed';
    const [found] = await this.#find([id]);
    if (found === undefined) return 'gone';
    if (found.header.stop !== undefined) return 'stopping';
    const holder = decodeClaim(found.task.claim);
    return holder?.worker === claim.worker && holder.tokenHash === claim.tokenHash ? 'claimed' : 'taken';
  }

  async list(afterId: string | null, limit: number): Promise<TaskRow[]> {
    const found: Found[] = [];
    await this.#connection.run(async () => {
      found.length = 0;
      const cursor = this.#executions
        .find<TaskHeader>(
          {
            status: { $lt: LIVE },
            'tasks.0': { $exists: true },
            ...(afterId === null ? {} : { _id: { $gte: executionOf(afterId) } }),
          },
          { projection: TASK_FIELDS, hint: LIVE_INDEX },
        )
        .sort({ _id: 1 });
      for await (const header of cursor) {
        const tasks = tasksOf(header)
          .filter(({ id }) => afterId === null || id > afterId)
          .sort((a, b) => compare(a.id, b.id));
        for (const task of tasks) found.push({ header, task });
        if (found.length >= limit) break;
      }
    });
    return this.#rows(found.slice(0, limit));
  }

  async listQueued(capabilities: string[], project: string | null, notOf: string, limit: number): Promise<TaskRow[]> {
    const found = await Promise.all(capabilities.map((each) => this.#queued(each, project, notOf, limit)));
    const oldest = found.flat().sort((a, b) => a.task.at - b.task.at || compare(a.task.id, b.task.id));
    return this.#rows(oldest.slice(0, limit));
  }

  async #queued(capability: string, project: string | null, notOf: string, limit: number): Promise<Found[]> {
    const filter: Filter<ExecutionDocument> = {
      'tasks.queued': capability,
      engine: { $ne: notOf },
      status: { $lt: LIVE },
      ...(project === null ? {} : { project }),
    };
    // In the order of the index, which is that of age: a sort would read all that wait first.
    const headers = await this.#connection.run(() =>
      this.#executions.find<TaskHeader>(filter, { projection: TASK_FIELDS, hint: QUEUED_INDEX }).limit(limit).toArray(),
    );
    return headers.flatMap((header) =>
      tasksOf(header)
        .filter((task) => task.queued === capability)
        .map((task) => ({ header, task })),
    );
  }

  async states(ids: string[]): Promise<TaskState[]> {
    const found = await this.#find(ids);
    const read = await this.#texts.reader(found.map(({ task }) => task.report));
    return found.map(({ header, task }) => ({
      id: task.id,
      claim: decodeClaim(task.claim),
      report: task.report === undefined ? null : (JSON.parse(read(task.report)) as WorkReport),
      stopping: header.stop !== undefined,
    }));
  }

  async get(ids: string[]): Promise<TaskRow[]> {
    return this.#rows(await this.#find(ids));
  }

  async storeReport(id: string, tokenHash: string, report: WorkReport): Promise<'stored' | 'gone' | 'refused'> {
    const texts = new TextWriter(executionOf(id));
    const stored = texts.store(JSON.stringify(report));
    if (texts.bigs.length > 0) await this.#texts.put(texts.bigs);
    const applied = await this.#lanes.write({
      updateOne: {
        filter: {
          ...liveTask(id),
          tasks: { $elemMatch: { id, 'claim.tokenHash': tokenHash, report: { $exists: false } } },
        },
        update: { $set: { 'tasks.$.report': stored } },
        hint: '_id_',
      },
    });
    if (applied) return 'stored';
    const [found] = await this.#find([id]);
    const kept = found?.task.report;
    if (texts.bigs.length > 0 && JSON.stringify(kept) !== JSON.stringify(stored)) {
      await this.#texts.drop(texts.bigs.map(storedOf));
    }
    if (found === undefined) return 'gone';
    return found.task.claim?.tokenHash === tokenHash ? 'stored' : 'refused';
  }

  async moveClaims(ids: string[], worker: string, via: string): Promise<void> {
    await Promise.all(
      ids.map((id) =>
        this.#lanes.write({
          updateOne: {
            filter: { ...liveTask(id), tasks: { $elemMatch: { id, 'claim.worker': worker } } },
            update: { $set: { 'tasks.$.claim.via': via } },
            hint: '_id_',
          },
        }),
      ),
    );
  }

  /** Of live executions, in the order asked. */
  async #find(ids: string[]): Promise<Found[]> {
    const executionIds = [...new Set(ids.map(executionOf))];
    const headers = await this.#connection.run(() =>
      this.#executions.find<TaskHeader>({ _id: { $in: executionIds } }, { projection: TASK_FIELDS }).toArray(),
    );
    const found = new Map<string, Found>();
    for (const header of headers) {
      if (header.status >= LIVE) continue;
      for (const task of tasksOf(header)) found.set(task.id, { header, task });
    }
    return ids.flatMap((id) => found.get(id) ?? []);
  }

  async #rows(found: Found[]): Promise<TaskRow[]> {
    const read = await this.#texts.reader(found.flatMap(({ task }) => [task.task, task.report]));
    return found.map(({ header, task }) => decodeTask(task, header.engine, read));
  }
}

function liveTask(id: string): Filter<ExecutionDocument> {
  return { _id: executionOf(id), status: { $lt: LIVE }, [`gone.${fieldOf(id)}`]: { $exists: false } };
}

function executionOf(taskId: string): string {
  return taskId.slice(0, taskId.indexOf('/'));
}
