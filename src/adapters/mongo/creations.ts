/** New executions: those that have a key or a parent in a transaction with these, the others in bulk. */
import type { ClientSession, Collection } from 'mongodb';
import type { CreateOutcome } from '../../ports/store.ts';
import { type EncodedNew, LIVE } from './codec.ts';
import type { Connection } from './connection.ts';
import type { ExecutionDocument, StartDocument } from './documents.ts';
import { Lanes } from './lanes.ts';
import type { Collections } from './schema.ts';
import { storedOf, type Texts } from './texts.ts';

/** The execution whose commit creates others; its document is the commit's to change. */
interface Creator {
  id: string;
  takesChildren: boolean;
}

export class Creations {
  readonly #connection: Connection;
  readonly #executions: Collection<ExecutionDocument>;
  readonly #starts: Collection<StartDocument>;
  readonly #texts: Texts;
  readonly #lanes: Lanes<ExecutionDocument>;

  constructor(connection: Connection, { executions, starts }: Collections, texts: Texts) {
    this.#connection = connection;
    this.#executions = executions;
    this.#starts = starts;
    this.#texts = texts;
    this.#lanes = new Lanes(connection, executions);
  }

  async create(given: EncodedNew): Promise<CreateOutcome> {
    const { document, bigs, startId } = given;
    if (bigs.length > 0) await this.#texts.put(bigs);
    const outcome =
      startId === null && document.parent === undefined ? await this.#plain(document) : await this.#transact(given);
    if (outcome.kind !== 'created' && bigs.length > 0)
      await this.#texts.drop(bigs.map(storedOf)).catch(() => undefined);
    return outcome;
  }

  async #plain(document: ExecutionDocument): Promise<CreateOutcome> {
    for (;;) {
      if (await this.#lanes.write({ insertOne: { document } })) return { kind: 'created' };
      const [existing] = await this.#connection.run(() => this.#find([document._id]));
      if (existing !== undefined) return answerOf(existing, document);
    }
  }

  #transact(given: EncodedNew): Promise<CreateOutcome> {
    return this.#connection.transaction(async (session) => {
      const { outcomes } = await this.insert(session, [given], null);
      return outcomes[0] as CreateOutcome;
    });
  }

  /** Creates what is new and may be, one after the other; `children` counts those of the creator. */
  async insert(
    session: ClientSession,
    creates: readonly EncodedNew[],
    creator: Creator | null,
  ): Promise<{ outcomes: CreateOutcome[]; children: number }> {
    if (creates.length === 0) return { outcomes: [], children: 0 };
    const startIds = creates.flatMap(({ startId }) => startId ?? []);
    const starts =
      startIds.length === 0 ? [] : await this.#starts.find({ _id: { $in: startIds } }, { session }).toArray();
    const idOfStart = new Map(starts.map(({ _id, x }) => [_id, x]));
    const ids = [...creates.map(({ document }) => document._id), ...idOfStart.values()];
    const known = new Map((await this.#find(ids, session)).map((each) => [each._id, each]));
    const parents = new Map<string, 'takes' | 'parentEnded' | 'parentStopping'>();
    const outcomes: CreateOutcome[] = [];
    const documents: ExecutionDocument[] = [];
    const newStarts: StartDocument[] = [];
    let children = 0;
    for (const { document, startId } of creates) {
      const id = startId === null ? undefined : idOfStart.get(startId);
      const existing = known.get(document._id) ?? (id === undefined ? undefined : known.get(id));
      if (existing !== undefined) {
        outcomes.push(answerOf(existing, document));
        continue;
      }
      const { parent } = document;
      if (parent !== undefined) {
        const state = parents.get(parent) ?? (await this.#parentState(session, parent, creator));
        parents.set(parent, state);
        if (state !== 'takes') {
          outcomes.push({ kind: 'refused', why: state });
          continue;
        }
        if (parent === creator?.id) children += 1;
      }
      documents.push(document);
      known.set(document._id, document);
      if (startId !== null) {
        newStarts.push({ _id: startId, x: document._id });
        idOfStart.set(startId, document._id);
      }
      outcomes.push({ kind: 'created' });
    }
    // A start without its execution: that one was being deleted.
    const stale = newStarts.filter(({ _id }) => starts.some((start) => start._id === _id)).map(({ _id }) => _id);
    if (stale.length > 0) await this.#starts.deleteMany({ _id: { $in: stale } }, { session });
    if (newStarts.length > 0) await this.#starts.insertMany(newStarts, { session });
    if (documents.length > 0) await this.#executions.insertMany(documents, { session });
    return { outcomes, children };
  }

  /** Raises the parent's count of children, so that a stop or an end of it at the same time is in the way of this. */
  async #parentState(
    session: ClientSession,
    id: string,
    creator: Creator | null,
  ): Promise<'takes' | 'parentEnded' | 'parentStopping'> {
    if (id === creator?.id) return creator.takesChildren ? 'takes' : 'parentEnded';
    const parent = await this.#executions.findOneAndUpdate(
      { _id: id },
      { $inc: { children: 1 } },
      { session, projection: { status: 1, stop: 1 } },
    );
    if (parent === null || parent.status >= LIVE) return 'parentEnded';
    return parent.stop === undefined ? 'takes' : 'parentStopping';
  }

  #find(ids: string[], session?: ClientSession): Promise<Pick<ExecutionDocument, '_id' | 'bodyHash' | 'made'>[]> {
    const options = { projection: { bodyHash: 1, made: 1 }, ...(session === undefined ? {} : { session }) };
    return this.#executions.find({ _id: { $in: ids } }, options).toArray();
  }
}

function answerOf(
  existing: Pick<ExecutionDocument, '_id' | 'bodyHash' | 'made'>,
  { made, bodyHash }: ExecutionDocument,
): CreateOutcome {
  // This call's own, whose answer was lost.
  if (existing.made === made) return { kind: 'created' };
  return { kind: 'exists', id: existing._id, sameBody: existing.bodyHash === bodyHash };
}
