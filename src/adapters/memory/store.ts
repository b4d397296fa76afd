import { isDeepStrictEqual } from 'node:util';
import { FullstopError } from '../../errors.ts';
import type {
  Commit,
  CommitOutcome,
  CreateOutcome,
  DefinitionRow,
  EventRow,
  ExecutionQuery,
  ExecutionStore,
  HeaderRow,
  KeyRow,
  LoopPlace,
  NewExecution,
  ParentRow,
  ReceiptRow,
  RecoverableExecution,
  ResultRow,
  StopRequestOutcome,
  StoredReceipt,
  TriggerOutcome,
  TriggerRow,
} from '../../ports/store.ts';
import type { TaskClaim, TaskRow } from '../../ports/task-queue.ts';
import type { AuditItem, Json } from '../../wire.ts';
import { MemoryClusterStore } from './cluster.ts';
import { compare, type Entry, hasEnded, jsonCopy, nameKey, recoverable } from './entry.ts';

export interface MemoryStoreOptions {
  /** Called with the work of every call; runs it when the test says so. By default at once. */
  defer?: (work: () => void) => void;
  /** Several engines share it. By default one at a time has it. */
  cluster?: boolean;
  /** true: what it is given it keeps, whoever gave it keeps nothing. By default it keeps a copy. */
  takes?: boolean;
  /** The store's own clock, for leases. By default the system's. */
  nowMs?: () => number;
}

/** A store for tests, with hooks to make it fail. */
export interface MemoryStore extends ExecutionStore {
  readonly cluster: MemoryClusterStore | null;
  /** The next `count` writes reject with FS_UNAVAILABLE and change nothing. */
  failNext(count: number): void;
  /** All writes reject with FS_UNAVAILABLE until null is set. */
  setTrouble(message: string | null): void;
}

/** The same promises as the SQLite store in plain maps: no timers, no I/O, answers in the order of the calls. */
class MemoryExecutionStore implements MemoryStore {
  readonly #defer: (work: () => void) => void;
  readonly #executions = new Map<string, Entry>();
  /** By project and name; the last saved is the last of the list. */
  readonly #definitions = new Map<string, DefinitionRow[]>();
  readonly #audit: AuditItem[] = [];
  readonly #keys = new Map<string, KeyRow>();
  readonly #settings = new Map<string, Json>();
  readonly cluster: MemoryClusterStore | null;
  readonly #nowMs: () => number;
  readonly #own: <T>(given: T) => T;
  #definitionsTurn = 0;
  #turns = 0;
  #failures = 0;
  #trouble: string | null = null;

  constructor({ defer = (work) => work(), cluster = false, takes = false, nowMs = Date.now }: MemoryStoreOptions) {
    this.#defer = defer;
    this.#nowMs = nowMs;
    this.#own = takes ? (given) => given : jsonCopy;
    this.cluster = cluster
      ? new MemoryClusterStore({
          entries: this.#executions,
          nowMs,
          own: this.#own,
          definitionsTurn: () => this.#definitionsTurn,
          admission: () => this.#settings.get('admission') ?? null,
          read: (work) => this.#read(work),
          write: (work) => this.#write(work),
        })
      : null;
  }

  async open(): Promise<void> {}

  async close(): Promise<void> {}

  trouble(): string | null {
    return this.#trouble;
  }

  failNext(count: number): void {
    this.#failures = count;
  }

  setTrouble(message: string | null): void {
    this.#trouble = message;
  }

  // Definitions

  saveDefinition(
    given: Omit<DefinitionRow, 'version' | 'disabled'>,
  ): Promise<{ row: DefinitionRow; created: boolean }> {
    const { project, name, hash, savedAtMs, source } = jsonCopy(given);
    return this.#write(() => {
      const key = nameKey(project, name);
      const versions = this.#definitions.get(key) ?? [];
      this.#definitions.set(key, versions);
      const known = versions.find((version) => version.hash === hash);
      const disabled = versions[0]?.disabled ?? false;
      this.#definitionsTurn += 1;
      const row = known ?? { project, name, hash, version: versions.length + 1, source, savedAtMs, disabled };
      row.savedAtMs = savedAtMs;
      if (known !== undefined) versions.splice(versions.indexOf(known), 1);
      versions.push(row);
      return { row, created: known === undefined };
    });
  }

  getDefinition(project: string, name: string, hash?: string): Promise<DefinitionRow | null> {
    return this.#read(() => {
      const versions = this.#definitions.get(nameKey(project, name));
      return versions?.findLast((version) => hash === undefined || version.hash === hash) ?? null;
    });
  }

  listVersions(project: string, name: string): Promise<DefinitionRow[]> {
    return this.#read(() => (this.#definitions.get(nameKey(project, name)) ?? []).toReversed());
  }

  listDefinitions(project: string | null): Promise<DefinitionRow[]> {
    return this.#read(() =>
      [...this.#definitions.values()]
        .flatMap((versions) => versions.slice(-1))
        .filter((row) => project === null || row.project === project)
        .sort((a, b) => compare(a.project, b.project) || compare(a.name, b.name)),
    );
  }

  setDisabled(project: string, name: string, disabled: boolean): Promise<boolean> {
    return this.#write(() => {
      const versions = this.#definitions.get(nameKey(project, name));
      for (const row of versions ?? []) row.disabled = disabled;
      this.#definitionsTurn += 1;
      return versions !== undefined;
    });
  }

  // Executions

  createExecution(given: NewExecution): Promise<CreateOutcome> {
    const execution = this.#own(given);
    return this.#write(() => this.#create(execution));
  }

  commit(given: Commit): Promise<CommitOutcome> {
    const commit = this.#own(given);
    return this.#write((): CommitOutcome => {
      const entry = this.#executions.get(commit.executionId);
      if (entry === undefined) return { kind: 'refused', why: 'missing' };
      const { header } = entry;
      // Applied before, and its answer was lost; the terminal commit has raised the epoch.
      const applied = header.v === commit.v && header.owner.epoch === commit.epoch + (commit.final ? 1 : 0);
      if (applied) return { kind: 'committed' };
      if (hasEnded(entry)) return { kind: 'refused', why: 'ended' };
      if (header.owner.epoch !== commit.epoch || header.v !== commit.v - 1) return { kind: 'refused', why: 'fenced' };
      if (header.stop !== null && header.stop.requestId !== commit.requestId) {
        return { kind: 'refused', why: 'stopping', stop: header.stop };
      }
      checkCommit(header, commit);
      apply(entry, commit);
      for (const execution of commit.creates) this.#create(execution);
      return { kind: 'committed' };
    });
  }

  requestStop(id: string, intent: { requestId: string; requestedAtMs: number }): Promise<StopRequestOutcome> {
    const { requestId, requestedAtMs } = intent;
    return this.#write((): StopRequestOutcome => {
      const entry = this.#executions.get(id);
      if (entry === undefined) return { kind: 'missing' };
      const { status, stop } = entry.header;
      if (hasEnded(entry)) return stop === null ? { kind: 'ended', status } : { kind: 'stopped', ...stop };
      const stored = stop ?? { requestId, requestedAtMs };
      const affected = [entry, ...this.#descendants(id).filter((child) => !hasEnded(child))];
      for (const each of affected) each.header.stop ??= { ...stored };
      return {
        kind: 'requested',
        repeated: stop !== null,
        ...stored,
        affected: affected.map(({ header }) => ({ executionId: header.id, ...(header.stop ?? stored) })),
      };
    });
  }

  claimTask(id: string, given: TaskClaim): Promise<'claimed' | 'stopping' | 'gone' | 'taken'> {
    const claim = jsonCopy(given);
    return this.#write(() => {
      const entry = this.#executions.get(id.slice(0, id.indexOf('/')));
      const task = entry?.tasks.get(id);
      if (entry === undefined || task === undefined || hasEnded(entry)) return 'gone';
      if (entry.header.stop !== null) return 'stopping';
      if (task.claim !== null) return isDeepStrictEqual(task.claim, claim) ? 'claimed' : 'taken';
      task.claim = claim;
      return 'claimed';
    });
  }

  listTasks(afterId: string | null, limit: number): Promise<TaskRow[]> {
    return this.#read(() =>
      this.#all(() => true)
        .flatMap(({ tasks }) => [...tasks.values()])
        .filter(({ id }) => afterId === null || id > afterId)
        .sort((a, b) => compare(a.id, b.id))
        .slice(0, limit),
    );
  }

  putTrigger(given: TriggerRow, delivered = false): Promise<TriggerOutcome> {
    const trigger = jsonCopy(given);
    return this.#write((): TriggerOutcome => {
      const entry = this.#executions.get(trigger.executionId);
      if (entry === undefined) return { kind: 'missing' };
      if (hasEnded(entry)) return { kind: 'ended', status: entry.header.status };
      const waiting = [...entry.triggers.values()].find((other) => other.name === trigger.name);
      if (waiting === undefined) {
        entry.triggers.set(trigger.id, trigger);
        if (delivered) entry.delivered.add(trigger.id);
        return { kind: 'stored' };
      }
      if (!isDeepStrictEqual(waiting.payload, trigger.payload)) return { kind: 'conflict' };
      return { kind: 'duplicate', id: waiting.id };
    });
  }

  putReceipt(given: ReceiptRow, ifRevision: number): Promise<'stored' | 'changed' | 'live' | 'missing'> {
    const receipt = jsonCopy(given);
    return this.#write(() => {
      const entry = this.#executions.get(receipt.executionId);
      if (entry === undefined) return 'missing';
      if (!hasEnded(entry)) return 'live';
      if (entry.receipt === null) return 'missing';
      if (entry.receipt.revision !== ifRevision) return 'changed';
      entry.receipt = { ...receipt, revision: ifRevision + 1 };
      return 'stored';
    });
  }

  getReceipt(executionId: string): Promise<StoredReceipt | null> {
    return this.#read(() => this.#executions.get(executionId)?.receipt ?? null);
  }

  findStart(project: string, uniqueKey: string): ReturnType<ExecutionStore['findStart']> {
    return this.#read(() => {
      const [entry] = this.#all((each) => each.header.project === project && each.uniqueKey === uniqueKey);
      return entry === undefined ? null : { id: entry.header.id, bodyHash: entry.bodyHash };
    });
  }

  claimAll(engine: string): Promise<number> {
    return this.#write(() => {
      const live = this.#all((entry) => !hasEnded(entry));
      for (const { header } of live) header.owner = { engine, epoch: header.owner.epoch + 1 };
      return live.length;
    });
  }

  recover(afterId: string | null, limit: number): Promise<RecoverableExecution[]> {
    return this.#read(() =>
      this.#all((entry) => !hasEnded(entry) && (afterId === null || entry.header.id > afterId))
        .sort((a, b) => compare(a.header.id, b.header.id))
        .slice(0, limit)
        .map(recoverable),
    );
  }

  load(id: string): Promise<RecoverableExecution | null> {
    return this.#read(() => {
      const entry = this.#executions.get(id);
      return entry === undefined ? null : recoverable(entry);
    });
  }

  listIntents(limit: number): ReturnType<ExecutionStore['listIntents']> {
    return this.#read(() =>
      this.#all((entry) => !hasEnded(entry))
        .flatMap(({ header: { id, stop } }) => (stop === null ? [] : [{ executionId: id, ...stop }]))
        .sort((a, b) => compare(a.executionId, b.executionId))
        .slice(0, limit),
    );
  }

  listChildren(
    parentId: string,
    node: string,
    loops: LoopPlace[],
    attempt: number,
  ): ReturnType<ExecutionStore['listChildren']> {
    return this.#read(() =>
      this.#all(({ header: { parent } }) => parent !== null && isPlace(parent, parentId, node, loops, attempt))
        .map(({ header: { id, status, error, errorCode, stop, parent } }) => {
          return { id, status, error, errorCode, stopped: stop !== null, itemIndex: parent?.itemIndex ?? null };
        })
        .sort((a, b) => (a.itemIndex ?? -1) - (b.itemIndex ?? -1)),
    );
  }

  readOutputs(ids: string[]): Promise<Json[]> {
    return this.#read(() =>
      ids.map((id) => {
        const entry = this.#executions.get(id);
        return entry !== undefined && hasEnded(entry) ? entry.header.outputs : null;
      }),
    );
  }

  getHeader(id: string): Promise<HeaderRow | null> {
    return this.#read(() => this.#executions.get(id)?.header ?? null);
  }

  async getExecution(id: string): Promise<RecoverableExecution | null> {
    return this.load(id);
  }

  listExecutions({
    cursor,
    limit,
    ...filter
  }: ExecutionQuery): Promise<{ items: HeaderRow[]; nextCursor: string | null }> {
    return this.#read(() => {
      const [createdAt, turn] = parseCursor(cursor);
      const found = this.#all((entry) => matches(entry, filter))
        .sort((a, b) => b.header.createdAtMs - a.header.createdAtMs || b.turn - a.turn)
        .filter(
          ({ header, turn: own }) => header.createdAtMs < createdAt || (header.createdAtMs === createdAt && own < turn),
        );
      const page = found.slice(0, limit);
      const last = page.at(-1);
      const items = page.map(({ header }) => ({ ...header, input: null, outputs: null, machine: null }));
      const more = found.length > limit && last !== undefined;
      return { items, nextCursor: more ? `${last.header.createdAtMs}.${last.turn}` : null };
    });
  }

  countExecutions(filter: Omit<ExecutionQuery, 'limit' | 'cursor'>): Promise<number> {
    return this.#read(() => this.#all((entry) => matches(entry, filter)).length);
  }

  readEvents(id: string, from: number, limit: number): Promise<{ items: EventRow[]; firstSeq: number }> {
    return this.#read(() => {
      const { events, firstSeq } = this.#executions.get(id) ?? { events: [], firstSeq: 1 };
      return { items: events.filter((event) => event.seq >= from).slice(0, limit), firstSeq };
    });
  }

  readResult(id: string): Promise<Json | undefined> {
    return this.#read(() => this.#executions.get(id.slice(0, id.indexOf('/')))?.results.get(id)?.output);
  }

  readResults(executionId: string): Promise<ResultRow[]> {
    return this.#read(() => [...(this.#executions.get(executionId)?.results.values() ?? [])]);
  }

  deleteExecution(id: string): Promise<'deleted' | 'missing' | 'live'> {
    return this.#write(() => this.#delete(id));
  }

  deleteEndedBefore(beforeMs: number, limit: number): Promise<number> {
    return this.#write(() => {
      const roots = this.#all(
        ({ header: { parent, endedAtMs } }) => parent === null && endedAtMs !== null && endedAtMs < beforeMs,
      ).sort((a, b) => (a.header.endedAtMs ?? 0) - (b.header.endedAtMs ?? 0));
      let deleted = 0;
      for (const { header } of roots) {
        if (deleted < limit && this.#delete(header.id) === 'deleted') deleted += 1;
      }
      return deleted;
    });
  }

  trimEvents(executionId: string, keep: number): Promise<void> {
    return this.#write(() => {
      const entry = this.#executions.get(executionId);
      if (entry === undefined) return;
      entry.firstSeq = Math.max(entry.firstSeq, entry.header.seq - keep + 1);
      entry.events = entry.events.filter((event) => event.seq >= entry.firstSeq);
    });
  }

  // Audit, keys, settings

  appendAudit(given: AuditItem): Promise<void> {
    const entry = jsonCopy(given);
    return this.#write(() => {
      if (!this.#audit.some((other) => other.id === entry.id)) this.#audit.push(entry);
    });
  }

  completeAudit(id: string, outcome: string): Promise<void> {
    return this.#write(() => {
      const entry = this.#audit.find((other) => other.id === id);
      if (entry !== undefined) entry.outcome = outcome;
    });
  }

  listAudit(
    project: string | null,
    cursor: string | undefined,
    limit: number,
  ): Promise<{ items: AuditItem[]; nextCursor: string | null }> {
    return this.#read(() => {
      if (cursor !== undefined && !/^\d+$/.test(cursor)) throw badCursor(cursor);
      const found = this.#audit
        .map((entry, turn) => ({ entry, turn }))
        .filter(
          ({ entry, turn }) => turn < Number(cursor ?? Infinity) && (project === null || entry.project === project),
        )
        .reverse();
      const page = found.slice(0, limit);
      return {
        items: page.map(({ entry }) => entry),
        nextCursor: found.length > limit ? String(page.at(-1)?.turn) : null,
      };
    });
  }

  createKey(given: KeyRow): Promise<void> {
    const row = jsonCopy(given);
    return this.#write(() => {
      if (!this.#keys.has(row.id)) this.#keys.set(row.id, row);
    });
  }

  listKeys(project: string | null): Promise<KeyRow[]> {
    return this.#read(() =>
      [...this.#keys.values()]
        .filter((row) => project === null || row.project === project)
        .sort((a, b) => compare(a.id, b.id)),
    );
  }

  findKey(hash: string): Promise<KeyRow | null> {
    return this.#read(() => [...this.#keys.values()].find((row) => row.hash === hash) ?? null);
  }

  deleteKey(id: string, project: string | null): Promise<boolean> {
    return this.#write(() => {
      const row = this.#keys.get(id);
      return row !== undefined && (project === null || row.project === project) && this.#keys.delete(id);
    });
  }

  getSetting(name: string): Promise<Json> {
    return this.#read(() => this.#settings.get(name) ?? null);
  }

  putSetting(name: string, given: Json): Promise<void> {
    const value = jsonCopy(given);
    return this.#write(() => {
      this.#settings.set(name, value);
    });
  }

  /** Runs `work` in its turn; what it returns is a copy. */
  #read<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#defer(() => {
        try {
          resolve(jsonCopy(work()));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #write<T>(work: () => T): Promise<T> {
    return this.#read(() => {
      if (this.#failures > 0) {
        this.#failures -= 1;
        throw new FullstopError('FS_UNAVAILABLE', 'the test made this write fail');
      }
      if (this.#trouble !== null) throw new FullstopError('FS_UNAVAILABLE', this.#trouble);
      return work();
    });
  }

  #create({ header, events, uniqueKey, bodyHash, offeredTo }: NewExecution): CreateOutcome {
    const existing =
      this.#executions.get(header.id) ??
      (uniqueKey === null
        ? undefined
        : this.#find((entry) => entry.header.project === header.project && entry.uniqueKey === uniqueKey));
    if (existing !== undefined) {
      return { kind: 'exists', id: existing.header.id, sameBody: existing.bodyHash === bodyHash };
    }
    if (header.parent !== null) {
      const parent = this.#executions.get(header.parent.executionId);
      if (parent === undefined || hasEnded(parent)) return { kind: 'refused', why: 'parentEnded' };
      if (parent.header.stop !== null) return { kind: 'refused', why: 'parentStopping' };
    }
    this.#turns += 1;
    this.#executions.set(header.id, {
      header,
      turn: this.#turns,
      uniqueKey,
      bodyHash,
      nodes: new Map(),
      events,
      firstSeq: events[0]?.seq ?? header.seq + 1,
      results: new Map(),
      triggers: new Map(),
      delivered: new Set(),
      tasks: new Map(),
      receipt: null,
      offer: offeredTo === undefined ? null : { to: offeredTo, atMs: this.#nowMs() },
    });
    return { kind: 'created' };
  }

  #find(condition: (entry: Entry) => boolean): Entry | undefined {
    return [...this.#executions.values()].find(condition);
  }

  #all(condition: (entry: Entry) => boolean): Entry[] {
    return [...this.#executions.values()].filter(condition);
  }

  #descendants(id: string): Entry[] {
    return this.#all(({ header }) => header.parent?.executionId === id).flatMap((child) => [
      child,
      ...this.#descendants(child.header.id),
    ]);
  }

  #delete(id: string): 'deleted' | 'missing' | 'live' {
    const entry = this.#executions.get(id);
    if (entry === undefined) return 'missing';
    const family = [entry, ...this.#descendants(id)];
    if (family.some((member) => !hasEnded(member))) return 'live';
    for (const { header } of family) this.#executions.delete(header.id);
    return 'deleted';
  }
}

export function createMemoryStore(options: MemoryStoreOptions = {}): MemoryStore {
  return new MemoryExecutionStore(options);
}

/** @throws FS_INTERNAL when the commit is none that the owner can have meant. */
function checkCommit(header: HeaderRow, { executionId, requestId, events, results }: Commit): void {
  if (header.stop === null && requestId !== null) {
    throw new FullstopError('FS_INTERNAL', `commit of ${executionId} for stop ${requestId}, but no stop is stored`);
  }
  for (const [index, { seq }] of events.entries()) {
    const expected = header.seq + 1 + index;
    if (seq !== expected)
      throw new FullstopError('FS_INTERNAL', `expected event ${expected} of ${executionId}, found ${seq}`);
  }
  for (const { id, key } of results) {
    const before = `${executionId}/${key}/`;
    if (!id.startsWith(before))
      throw new FullstopError('FS_INTERNAL', `expected a result ${before}ATTEMPT, found ${id}`);
  }
}

function apply(entry: Entry, commit: Commit): void {
  const { header } = entry;
  Object.assign(header, commit.header);
  header.v = commit.v;
  if (commit.final) header.owner.epoch += 1;
  for (const node of commit.nodes) entry.nodes.set(node.key, node);
  for (const event of commit.events) {
    entry.events.push(event);
    header.seq = event.seq;
  }
  for (const result of commit.results) {
    if (!entry.results.has(result.id)) entry.results.set(result.id, result);
  }
  for (const key of commit.dropNodes) {
    entry.nodes.delete(key);
    for (const [id, result] of entry.results) if (result.key === key) entry.results.delete(id);
  }
  for (const id of commit.consumedTriggers) {
    entry.triggers.delete(id);
    entry.delivered.delete(id);
  }
  for (const task of commit.tasks) entry.tasks.set(task.id, task);
  for (const id of commit.endedTasks) entry.tasks.delete(id);
  if (commit.receipt !== null) entry.receipt = { ...commit.receipt, revision: commit.v };
}

function matches({ header }: Entry, filter: Omit<ExecutionQuery, 'limit' | 'cursor'>): boolean {
  const live = header.status === 'Pending' || header.status === 'Running';
  return (
    (filter.parent !== undefined
      ? header.parent?.executionId === filter.parent
      : filter.withChildren === true || header.parent === null) &&
    (filter.project === null || header.project === filter.project) &&
    (filter.ids === undefined || filter.ids.includes(header.id)) &&
    (filter.status === undefined || header.status === filter.status) &&
    (filter.live === undefined || live === filter.live) &&
    (filter.workflow === undefined || header.workflow.name === filter.workflow) &&
    (filter.stoppedByUser === undefined || (header.stop !== null) === filter.stoppedByUser) &&
    (filter.createdFromMs === undefined || header.createdAtMs >= filter.createdFromMs) &&
    (filter.createdToMs === undefined || header.createdAtMs <= filter.createdToMs) &&
    (filter.label === undefined || hasLabel(header.labels, filter.label)) &&
    (filter.text === undefined || hasText(header, filter.text.trim().toLowerCase()))
  );
}

/** `k=v`, or `k` for any value. */
function hasLabel(labels: Record<string, string>, label: string): boolean {
  const equals = label.indexOf('=');
  if (equals < 0) return Object.hasOwn(labels, label);
  const key = label.slice(0, equals);
  return Object.hasOwn(labels, key) && labels[key] === label.slice(equals + 1);
}

/** The beginning of an id, or words each of which is in the workflow's name or the error. */
function hasText({ id, workflow, error }: HeaderRow, text: string): boolean {
  if (id.toLowerCase().startsWith(text)) return true;
  const words = `${workflow.name} ${error ?? ''}`.toLowerCase();
  return text.split(/\s+/).every((word) => words.includes(word));
}

function isPlace(parent: ParentRow, id: string, node: string, loops: LoopPlace[], attempt: number): boolean {
  return (
    parent.executionId === id &&
    parent.node === node &&
    parent.attempt === attempt &&
    isDeepStrictEqual(parent.loops ?? parent.iterations ?? [], loops)
  );
}

function parseCursor(cursor: string | undefined): [createdAt: number, turn: number] {
  if (cursor === undefined) return [Infinity, Infinity];
  const parts = /^(\d+)\.(\d+)$/.exec(cursor);
  if (parts === null) throw badCursor(cursor);
  return [Number(parts[1]), Number(parts[2])];
}

function badCursor(cursor: string): FullstopError {
  return new FullstopError('FS_INVALID', `expected a cursor of an earlier page, found ${cursor}`);
}
