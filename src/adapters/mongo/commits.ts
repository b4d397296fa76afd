/**
 * Commits: each one conditional update of one document, those of many executions in one bulk write.
 *
 * A commit that creates executions, or finds its header full, is a transaction instead; both are rare.
 */
import type { AnyBulkWriteOperation, ClientSession, Collection, Filter, UpdateFilter } from 'mongodb';
import { FullstopError } from '../../errors.ts';
import type { Commit, CommitOutcome } from '../../ports/store.ts';
import { bytesOf, type EncodedCommit, encodeCommit, LIVE, tasksOf } from './codec.ts';
import type { Connection } from './connection.ts';
import type { Creations } from './creations.ts';
import { type ExecutionDocument, fieldOf, keyOf, nodePath, type ResultsOfNode, type Stored } from './documents.ts';
import { Gathered } from './gathered.ts';
import { Lanes } from './lanes.ts';
import type { Collections } from './schema.ts';
import { storedOf, type Texts, TextWriter } from './texts.ts';
import type { Turns } from './turns.ts';

/**
 * A header that holds more events and outputs, in bytes, moves them with the next commit. Each byte costs every commit,
 * a move costs about five of them: so the limit grows with the root of what a commit brings.
 */
const INLINE_LIMIT_MIN = 16 * 1024;
const INLINE_LIMIT_MAX = 128 * 1024;
const INLINE_OF_ROOT = 900;
/** As many ended tasks may be in a header until they are taken out of it. */
const GONE_MAX = 16;
/** Of one execution sent together, one after the other. */
const RUN_MAX = 64;

const committed: CommitOutcome = { kind: 'committed' };

/** What tells why a commit was not applied. */
export type Verdict = Pick<
  ExecutionDocument,
  '_id' | 'status' | 'engine' | 'epoch' | 'v' | 'seq' | 'stop' | 'inline' | 'spilled'
>;
const VERDICT_FIELDS = { status: 1, engine: 1, epoch: 1, v: 1, seq: 1, stop: 1, inline: 1, spilled: 1 } as const;

interface Waiting {
  commit: EncodedCommit;
  /** Calls of other kinds made before it: commits with another one between them are not sent together. */
  barrier: number;
  resolve(outcome: CommitOutcome): void;
  reject(error: unknown): void;
}

export interface CommitsOptions {
  connection: Connection;
  collections: Collections;
  texts: Texts;
  turns: Turns;
  creations: Creations;
}

export class Commits {
  readonly #connection: Connection;
  readonly #collections: Collections;
  readonly #executions: Collection<ExecutionDocument>;
  readonly #texts: Texts;
  readonly #turns: Turns;
  readonly #creations: Creations;
  /** Of other updates of headers than commits, whoever makes them. */
  readonly lanes: Lanes<ExecutionDocument>;
  readonly #commitLanes: Lanes<ExecutionDocument>;
  readonly #waiting = new Map<string, Waiting[]>();
  #barrier = 0;
  readonly #verdicts = new Gathered((ids) => this.#look(ids));
  readonly #replaced = new ReplacedTexts();

  constructor({ connection, collections, texts, turns, creations }: CommitsOptions) {
    this.#connection = connection;
    this.#collections = collections;
    this.#executions = collections.executions;
    this.#texts = texts;
    this.#turns = turns;
    this.#creations = creations;
    this.lanes = new Lanes(connection, collections.executions);
    this.#commitLanes = new Lanes(connection, connection.unretried('executions'));
  }

  /** Commits called after this are not sent together with those before. */
  noteOther(): void {
    this.#barrier += 1;
  }

  commit(given: Commit): Promise<CommitOutcome> {
    let commit: EncodedCommit;
    try {
      commit = encodeCommit(given, this.#connection.serverTimeMs);
    } catch (error) {
      return Promise.reject(error);
    }
    const id = commit.executionId;
    return new Promise((resolve, reject) => {
      const waiting = this.#waiting.get(id) ?? [];
      waiting.push({ commit, barrier: this.#barrier, resolve, reject });
      this.#waiting.set(id, waiting);
      void this.#turns.take([id], () => this.#next(id));
    });
  }

  /** Sends the commits of one execution that may go together. Each call has its turn, and may find nothing left. */
  async #next(id: string): Promise<void> {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    const run = waiting.splice(0, runLength(waiting));
    if (waiting.length === 0) this.#waiting.delete(id);
    try {
      const outcomes = await this.#apply(run.map(({ commit }) => commit));
      for (const [index, { resolve, reject }] of run.entries()) {
        const outcome = outcomes[index] as CommitOutcome | FullstopError;
        if (outcome instanceof FullstopError) reject(outcome);
        else resolve(outcome);
      }
    } catch (error) {
      for (const { reject } of run) reject(error);
    }
  }

  async #apply(run: EncodedCommit[]): Promise<(CommitOutcome | FullstopError)[]> {
    for (const { bigs, creates } of run) {
      if (bigs.length > 0) await this.#texts.put(bigs);
      for (const each of creates) if (each.bigs.length > 0) await this.#texts.put(each.bigs);
    }
    const all = run.every(isPlain) && (await this.#commitLanes.write(...run.map(operationOf)));
    const outcomes: (CommitOutcome | FullstopError)[] = [];
    if (all) for (const _ of run) outcomes.push(committed);
    else if (run.length > 1) outcomes.push(...(await this.#appliedOf(run)));
    if (outcomes.length === 0) outcomes.push(await this.#judged(run[0] as EncodedCommit));
    for (const [index, outcome] of outcomes.entries()) this.#after(run[index] as EncodedCommit, outcome);
    const rest = run.slice(outcomes.length);
    return rest.length === 0 ? outcomes : [...outcomes, ...(await this.#apply(rest))];
  }

  /** Of a run that was applied in part, those that were: they are the first ones. */
  async #appliedOf(run: EncodedCommit[]): Promise<CommitOutcome[]> {
    const [first] = run as [EncodedCommit];
    const seen = await this.#verdicts.get(first.executionId);
    if (seen === null) return [];
    const applied = run.filter(({ epoch, v, final }) => v <= seen.v && seen.epoch === epoch + (final ? 1 : 0));
    return applied.map(() => committed);
  }

  /** Of a commit that was perhaps not applied. */
  async #judged(commit: EncodedCommit): Promise<CommitOutcome | FullstopError> {
    const seen = await this.#verdicts.get(commit.executionId);
    const outcome = verdictOn(commit, seen);
    // What is left: the header is full, or has moved outputs that this one drops, or it creates executions.
    return outcome ?? this.#transact(commit);
  }

  #after(commit: EncodedCommit, outcome: CommitOutcome | FullstopError): void {
    if (outcome instanceof FullstopError || outcome.kind !== 'committed') {
      this.#drop([...commit.bigs, ...commit.creates.flatMap(({ bigs }) => bigs)].map(storedOf));
      return;
    }
    this.#drop(this.#replaced.after(commit));
    if (commit.endedTasks.length > 0 && !commit.final) this.#sweepTasks(commit.executionId);
  }

  /** What nobody refers to any more; where that fails it goes with its execution. */
  #drop(texts: Stored[]): void {
    if (texts.length > 0) this.#texts.drop(texts).catch(() => undefined);
  }

  /** Takes ended tasks out of a header that holds many, in its turn, for a commit cannot both add and take out. */
  #sweepTasks(id: string): void {
    const count = this.#replaced.countGone(id);
    if (count < GONE_MAX) return;
    this.#replaced.resetGone(id);
    const sweep = async (): Promise<void> => {
      const found = await this.#executions.findOne({ _id: id }, { projection: { gone: 1 } });
      const gone = Object.keys(found?.gone ?? {});
      if (gone.length === 0) return;
      const unset = Object.fromEntries(gone.map((field) => [`gone.${field}`, '']));
      await this.lanes.write({
        updateOne: {
          filter: { _id: id },
          update: { $pull: { tasks: { id: { $in: gone.map(keyOf) } } }, $unset: unset } as never,
        },
      });
    };
    this.#turns.take([id], sweep).catch(() => undefined);
  }

  #look(ids: string[]): Promise<Map<string, Verdict>> {
    return this.#connection.run(async () => {
      const found = await this.#executions.find({ _id: { $in: ids } }, { projection: VERDICT_FIELDS }).toArray();
      return new Map(found.map((each) => [each._id, each as Verdict]));
    });
  }

  async #transact(commit: EncodedCommit): Promise<CommitOutcome | FullstopError> {
    return this.#connection.transaction(async (session) => {
      const seen = await this.#executions.findOne({ _id: commit.executionId }, { session, projection: VERDICT_FIELDS });
      const outcome = verdictOn(commit, seen);
      if (outcome !== null || seen === null) return outcome ?? { kind: 'refused', why: 'missing' };
      const update = updateOf(commit);
      if (seen.inline >= inlineLimit(commit.inline)) await this.#spill(session, commit, update);
      if (seen.spilled === true && commit.dropNodes.length > 0) {
        const unset = Object.fromEntries(commit.dropNodes.map((key) => [`results.${fieldOf(key)}`, '']));
        await this.#collections.results.updateMany({ x: commit.executionId }, { $unset: unset } as never, { session });
      }
      const { children } = await this.#creations.insert(session, commit.creates, {
        id: commit.executionId,
        takesChildren: !commit.final && seen.stop === undefined,
      });
      if (children > 0) update.$inc = { ...update.$inc, children } as never;
      await this.#executions.updateOne({ _id: commit.executionId }, update, { session });
      return committed;
    });
  }

  /**
   * Moves events, and outputs and tasks where these are many, out of a header, in the transaction of the commit that
   * found it full. What this commit brings stays.
   */
  async #spill(session: ClientSession, commit: EncodedCommit, update: UpdateFilter<ExecutionDocument>): Promise<void> {
    const id = commit.executionId;
    const header = await this.#executions.findOne(
      { _id: id },
      { session, projection: { events: 1, results: 1, tasks: 1, gone: 1, seq: 1 } },
    );
    if (header === null) return;
    update.$unset ??= {};
    const { $set, $unset } = update as { $set: Record<string, unknown>; $unset: Record<string, unknown> };
    const firsts = Object.keys(header.events).map(Number);
    if (firsts.length > 0) {
      const first = Math.min(...firsts);
      await this.#collections.events.insertOne(
        { _id: `${id}/${first}`, x: id, first, last: header.seq, events: header.events },
        { session },
      );
      for (const each of firsts) $unset[`events.${each}`] = '';
    }
    let inline = 0;
    const { size, moved } = resultsToMove(header.results, new Set(commit.dropNodes), commit.set);
    // Outputs stay until they alone are many, for those of loops are dropped from the header as it goes on.
    if (size < inlineLimit(commit.inline) / 2) {
      inline += size;
    } else {
      await this.#collections.results.insertOne({ _id: `${id}/${commit.v}`, x: id, results: moved }, { session });
      for (const field of Object.keys(moved)) $unset[`results.${field}`] = '';
      $set['spilled'] = true;
    }
    inline += await this.#spillTasks(session, commit, header, update);
    // In the place of the commit's `$inc`.
    const { inline: added = 0, ...rest } = (update.$inc ?? {}) as Record<string, number>;
    $set['inline'] = inline + added;
    if (Object.keys(rest).length > 0) update.$inc = rest as never;
    else delete update.$inc;
  }

  async #spillTasks(
    session: ClientSession,
    commit: EncodedCommit,
    header: Pick<ExecutionDocument, 'tasks' | 'gone'>,
    update: UpdateFilter<ExecutionDocument>,
  ): Promise<number> {
    if (header.tasks.length === 0 || commit.final) return 0;
    const ended = new Set(commit.endedTasks);
    const texts = new TextWriter(commit.executionId);
    const kept = tasksOf(header).filter(({ id }) => !ended.has(fieldOf(id)));
    for (const task of kept) if (typeof task.task === 'string') task.task = texts.store(task.task, 0);
    if (texts.bigs.length > 0) {
      const documents = texts.bigs.map(({ id, text }) => ({ _id: id, x: commit.executionId, text }));
      await this.#collections.values.insertMany(documents, { session });
    }
    const { $set, $unset } = update as { $set: Record<string, unknown>; $unset: Record<string, unknown> };
    $set['tasks'] = [...kept, ...commit.tasks];
    $unset['gone'] = '';
    for (const field of Object.keys($set)) if (field.startsWith('gone.')) delete $set[field];
    for (const field of Object.keys($unset)) if (field.startsWith('gone.')) delete $unset[field];
    delete update.$push;
    return 0;
  }
}

function isPlain({ creates }: EncodedCommit): boolean {
  return creates.length === 0;
}

/** How many of the first wait that only go all or up to one: of one owner, each the next, without a call between them. */
function runLength(waiting: readonly Waiting[]): number {
  let length = 1;
  while (length < Math.min(waiting.length, RUN_MAX)) {
    const [before, next] = [waiting[length - 1] as Waiting, waiting[length] as Waiting];
    const [one, two] = [before.commit, next.commit];
    const goesOn =
      next.barrier === before.barrier &&
      two.epoch === one.epoch &&
      two.v === one.v + 1 &&
      two.requestId === one.requestId &&
      !one.final &&
      isPlain(one) &&
      isPlain(two);
    if (!goesOn) break;
    length += 1;
  }
  return length;
}

function operationOf(commit: EncodedCommit): AnyBulkWriteOperation<ExecutionDocument> {
  return { updateOne: { filter: filterOf(commit), update: updateOf(commit), hint: '_id_' } };
}

function filterOf({
  executionId,
  epoch,
  v,
  requestId,
  firstSeq,
  dropNodes,
  inline,
}: EncodedCommit): Filter<ExecutionDocument> {
  const filter: Record<string, unknown> = {
    _id: executionId,
    v: v - 1,
    epoch,
    status: { $lt: LIVE },
    'stop.id': requestId,
    inline: { $lt: inlineLimit(inline) },
  };
  if (firstSeq !== null) filter['seq'] = firstSeq - 1;
  if (dropNodes.length > 0) filter['spilled'] = null;
  return filter as Filter<ExecutionDocument>;
}

function inlineLimit(bytes: number): number {
  return Math.min(INLINE_LIMIT_MAX, Math.max(INLINE_LIMIT_MIN, INLINE_OF_ROOT * Math.sqrt(bytes)));
}

function updateOf(commit: EncodedCommit): UpdateFilter<ExecutionDocument> {
  const set: Record<string, unknown> = { ...commit.set };
  const unset: Record<string, ''> = { ...commit.unset };
  const update: Record<string, unknown> = { $set: set };
  if (commit.inline > 0) update['$inc'] = { inline: commit.inline };
  if (commit.final) {
    set['tasks'] = [];
    unset['gone'] = '';
    unset['offer'] = '';
  } else {
    if (commit.tasks.length > 0) {
      update['$push'] = { tasks: { $each: commit.tasks } };
      for (const { id } of commit.tasks) unset[`gone.${fieldOf(id)}`] = '';
    }
    for (const field of commit.endedTasks) set[`gone.${field}`] = true;
  }
  if (Object.keys(unset).length > 0) update['$unset'] = unset;
  if (commit.consumedTriggers.length > 0) update['$pull'] = { triggers: { id: { $in: commit.consumedTriggers } } };
  return update as UpdateFilter<ExecutionDocument>;
}

/** null: nothing is in its way. */
function verdictOn(commit: EncodedCommit, seen: Verdict | null): CommitOutcome | FullstopError | null {
  if (seen === null) return { kind: 'refused', why: 'missing' };
  const { executionId: id, epoch, v, requestId, final, firstSeq } = commit;
  // Applied before, and its answer was lost; the terminal commit has raised the epoch.
  if (seen.v === v && seen.epoch === epoch + (final ? 1 : 0)) return committed;
  if (seen.status >= LIVE) return { kind: 'refused', why: 'ended' };
  if (seen.epoch !== epoch || seen.v !== v - 1) return { kind: 'refused', why: 'fenced' };
  if (seen.stop !== undefined && seen.stop.id !== requestId) {
    return { kind: 'refused', why: 'stopping', stop: { requestId: seen.stop.id, requestedAtMs: seen.stop.at } };
  }
  if (seen.stop === undefined && requestId !== null) {
    return new FullstopError('FS_INTERNAL', `commit of ${id} for stop ${requestId}, but no stop is stored`);
  }
  if (firstSeq !== null && firstSeq !== seen.seq + 1) {
    return new FullstopError('FS_INTERNAL', `expected event ${seen.seq + 1} of ${id}, found ${firstSeq}`);
  }
  return null;
}

/** Outputs that this commit does not change, and their size. */
function resultsToMove(
  results: ExecutionDocument['results'],
  dropped: ReadonlySet<string>,
  set: Record<string, unknown>,
): { size: number; moved: ExecutionDocument['results'] } {
  const droppedFields = new Set([...dropped].map(fieldOf));
  const changed = new Set(
    Object.keys(set).flatMap((path) => (path.startsWith('results.') ? [path.split('.')[1] as string] : [])),
  );
  const moved: Record<string, ResultsOfNode> = {};
  let size = 0;
  for (const [field, attempts] of Object.entries(results)) {
    if (droppedFields.has(field) || changed.has(field)) continue;
    moved[field] = attempts;
    for (const stored of Object.values(attempts)) size += bytesOf(stored);
  }
  return { size, moved };
}

/** Big texts that this process wrote and that a later commit replaces or drops; bounded, because they go at last anyway. */
class ReplacedTexts {
  readonly #byExecution = new Map<string, Map<string, Stored>>();
  readonly #gone = new Map<string, number>();

  /** Notes what the commit wrote; answers what nobody refers to since. */
  after(commit: EncodedCommit): Stored[] {
    const { executionId: id, set, dropNodes, final, endedTasks } = commit;
    if (endedTasks.length > 0) this.#gone.set(id, (this.#gone.get(id) ?? 0) + endedTasks.length);
    const known = this.#byExecution.get(id) ?? new Map<string, Stored>();
    const replaced: Stored[] = [];
    if (known.size > 0) {
      for (const path of Object.keys(set)) {
        const before = known.get(path);
        if (before === undefined) continue;
        replaced.push(before);
        known.delete(path);
      }
      for (const key of dropNodes) {
        const prefixes = [nodePath(key), `results.${fieldOf(key)}.`];
        for (const [path, stored] of known) {
          if (path !== prefixes[0] && !path.startsWith(prefixes[1] as string)) continue;
          replaced.push(stored);
          known.delete(path);
        }
      }
    }
    if (final) {
      this.#byExecution.delete(id);
      this.#gone.delete(id);
      return replaced;
    }
    if (commit.bigs.length > 0) {
      for (const [path, value] of Object.entries(set)) {
        if (typeof value === 'object' && value !== null && !path.startsWith('events.'))
          known.set(path, value as Stored);
      }
    }
    if (known.size > 0) this.#byExecution.set(id, known);
    else this.#byExecution.delete(id);
    if (this.#byExecution.size > 10_000) this.#byExecution.delete(this.#byExecution.keys().next().value as string);
    if (this.#gone.size > 10_000) this.#gone.delete(this.#gone.keys().next().value as string);
    return replaced;
  }

  countGone(id: string): number {
    return this.#gone.get(id) ?? 0;
  }

  resetGone(id: string): void {
    this.#gone.delete(id);
  }
}
