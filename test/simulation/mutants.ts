/**
 * Guards of the product, each switched off by a rewrite of its text: the simulation has to notice every one.
 *
 * A guard whose text is no longer there is an error: it moved, and so must the mutant.
 */
import type { Rewrite } from './modules.ts';

export interface Mutant {
  name: string;
  what: string;
  rewrites: Rewrite[];
}

const STORE = 'src/adapters/memory/store.ts';
const ENGINE = 'src/engine/engine.ts';
const DUTIES = 'src/engine/cluster-duties.ts';
const MEMBERSHIP = 'src/engine/membership.ts';
const HOST = 'src/engine/execution-host.ts';
const DISPATCHER = 'src/engine/dispatcher.ts';
const DESK = 'src/engine/task-desk.ts';
const CHILDREN = 'src/engine/children.ts';
const WORKER = 'src/worker/worker.ts';
const LINK = 'src/worker/engine-link.ts';
const BUS = 'src/adapters/socket-io/bus.ts';
const RELAY = 'src/adapters/socket-io/relay.ts';
const SUBSCRIPTIONS = 'src/server/subscriptions.ts';
const NODE = 'machines/node.machine.ts';

function mutant(name: string, what: string, file: string, text: string, by: string): Mutant {
  return { name, what, rewrites: [{ file, text, by }] };
}

export const mutants: Mutant[] = [
  // The store's conditions.
  mutant(
    'commit-stop-filter',
    'a commit that knows of no stop is applied after one',
    STORE,
    'if (header.stop !== null && header.stop.requestId !== commit.requestId) {',
    'if (false as boolean) {',
  ),
  mutant(
    'claim-stop-filter',
    'a task is claimed after a stop',
    STORE,
    "if (entry.header.stop !== null) return 'stopping';",
    '',
  ),
  mutant(
    'child-stop-filter',
    'a child is created under a parent that is stopping',
    STORE,
    "if (parent.header.stop !== null) return { kind: 'refused', why: 'parentStopping' };",
    '',
  ),
  mutant(
    'repeated-commit',
    'a commit that was applied before is not known again',
    STORE,
    "if (applied) return { kind: 'committed' };",
    '',
  ),
  mutant(
    'stop-descendants',
    'a stop does not reach the children',
    STORE,
    '...this.#descendants(id).filter((child) => !hasEnded(child))',
    '',
  ),
  mutant(
    'unique-key',
    'a start or a child is created twice',
    STORE,
    'entry.uniqueKey === uniqueKey',
    '(entry.uniqueKey === uniqueKey && (false as boolean))',
  ),
  // The engine.
  mutant(
    'audit-first',
    'a stop is stored before its audit entry',
    'src/server/verbs/stops.ts',
    'await act.begin({ project: where });\n    const outcome',
    'const outcome',
  ),
  mutant(
    'access-rule',
    'a stranger sees an execution',
    'src/server/verbs/scope.ts',
    'if (header === null || !maySee(caller, header.project))',
    'if (header === null)',
  ),
  mutant(
    'local-dispatch',
    'a stop is not delivered in its own engine',
    ENGINE,
    "this.#deliver(executionId, intent, 'local');",
    '',
  ),
  {
    name: 'unsaved-before-stop',
    what: 'what was not durable stays when a stop comes',
    rewrites: [
      {
        file: HOST,
        text: 'this.header.stop = intent;\n    if (this.#unsaved()) this.#reload(path);\n    else this.beginStop(path);',
        by: 'this.header.stop = intent;\n    this.beginStop(path);',
      },
      {
        file: HOST,
        text: 'if (this.#unsaved() || isOffered) this.#reload(path);\n      else this.beginStop(path);',
        by: 'this.beginStop(path);',
      },
    ],
  },
  {
    name: 'sweep',
    what: 'nobody looks for stops whose broadcast was lost',
    rewrites: [
      { file: DUTIES, text: 'for (const intent of waiting.intents) this.#engine.stopped(intent);', by: '' },
      { file: ENGINE, text: "this.#deliver(intent.executionId, intent, 'poll');\n  }", by: 'void intent;\n  }' },
    ],
  },
  mutant(
    'fence',
    'an engine whose lease ran out goes on',
    MEMBERSHIP,
    'leaseMs - MARGIN_MS) return false;',
    'Number.POSITIVE_INFINITY) return false;',
  ),
  mutant('takeover', 'nobody takes over what an engine left', DUTIES, 'await this.#try(() => this.#takeOver());', ''),
  mutant(
    'intent-before-restore',
    'a restored execution goes on before its stop is read',
    ENGINE,
    "if (header.stop !== null) host.beginStop('takeover');\n    else if",
    'if',
  ),
  mutant(
    'lost-create',
    'an execution whose creation was not answered is forgotten',
    ENGINE,
    'if (execution.offeredTo === undefined) this.#adoptCreated(execution.header.id, 1_000);',
    "if (execution.offeredTo === undefined) return { kind: 'created' } as never;",
  ),
  mutant(
    'work-after-commit',
    'work begins before its start is durable',
    HOST,
    'this.#commit({ commit, effects, big }, 0);',
    'for (const { slot } of effects) this.#beginWork(slot);\n    this.#commit({ commit, effects: [], big }, 0);',
  ),
  mutant(
    'told-after-commit',
    'events are announced before they are durable',
    HOST,
    'this.env.cut(this);\n    this.#commit',
    'this.env.published(this, commit);\n    this.#commit',
  ),
  mutant(
    'commit-retry',
    'a commit that was not answered is not tried again',
    HOST,
    'if (!this.over && actor === this.actor && this.#committing) this.#commit(sent, tries + 1);',
    '',
  ),
  mutant(
    'stop-grace',
    'a stop waits for its tasks for ever',
    HOST,
    "if (path === 'takeover') this.#writeOff();\n    else this.#armGrace();",
    "if (path === 'takeover') this.#writeOff();",
  ),
  mutant('deadline-rearm', 'a restored node has no timers', HOST, 'else this.#armTimers(slot);\n    }', '}'),
  mutant(
    'result-durable',
    'a result is acknowledged before it is durable',
    HOST,
    'return taken ? this.#durable() : this.#discarded();',
    'return Promise.resolve(taken);',
  ),
  mutant(
    'abort-told',
    'a task on a worker is not told to end',
    DESK,
    'const how = this.#host.env.dispatcher.abort(id);',
    "const how = 'told' as 'told' | 'withdrawn' | 'asked' | 'unknown';",
  ),
  {
    name: 'children-unfound',
    what: 'children live on whose node ended before a restart had found them',
    rewrites: [
      { file: CHILDREN, text: 'this.#host.env.endChildrenOf(this.#slot, verdict);', by: '' },
      { file: HOST, text: 'else if (verdict !== null) this.env.endChildrenOf(slot, verdict);', by: '' },
    ],
  },
  mutant(
    'children-unsure',
    'a node ends though it is not known whether a child was created',
    CHILDREN,
    '() => this.#findOut(index, id),\n    );\n  }',
    '() => void this.running.delete(id),\n    );\n  }',
  ),
  mutant(
    'report-of-another',
    "a worker's word on a task that it does not have is believed where another engine owns it",
    DISPATCHER,
    'if (entry === undefined && isStrange) return { discarded: true };',
    '',
  ),
  // Workers.
  mutant(
    'unlisted',
    'a task whose push was lost is waited for',
    DISPATCHER,
    'if (entry.unlisted <= 1) continue;',
    'continue;',
  ),
  mutant(
    'worker-lease',
    'tasks of a worker that is silent are waited for',
    DISPATCHER,
    'else if (!entry.aborting) this.#gone(id, entry);',
    '',
  ),
  mutant(
    'run-twice',
    'a task that is pushed twice runs twice',
    WORKER,
    'if (this.#entries.has(key) || this.#link.holds(held) || this.#ended.has(key)) return;',
    '',
  ),
  mutant('result-repeat', 'a result that was not answered is not said again', LINK, 'else this.#repeatLater();', ''),
  mutant(
    'beat-cancels',
    'what a heartbeat is answered with is not heard',
    LINK,
    'for (const taskId of cancel) this.#handlers.cancel(taskId);',
    'void cancel;',
  ),
  // Policies.
  mutant(
    'rerun-policy',
    'a node with rerun: false runs again',
    NODE,
    'mayRerun: ({ context }) => context.policy.rerun && ',
    'mayRerun: ({ context }) => ',
  ),
  mutant(
    'retry-policy',
    'a node is tried once more than it may be',
    NODE,
    '!lastTry && tries + 1 < policy.attemptsMax',
    '!lastTry && tries < policy.attemptsMax',
  ),
  // What matters in few situations.
  mutant(
    'epoch-filter',
    'a former owner commits',
    STORE,
    'header.owner.epoch !== commit.epoch || header.v !== commit.v - 1',
    'header.v !== commit.v - 1',
  ),
  mutant(
    'attempt-of-result',
    'the result of an earlier attempt is taken',
    HOST,
    'if (slot.settled || slot.attempt !== attempt) return;\n    this.enter(() => {\n      slot.output = output;',
    'if (slot.settled) return;\n    this.enter(() => {\n      slot.output = output;',
  ),
  mutant(
    'trigger-once',
    'a trigger that came twice is taken twice',
    HOST,
    'if (this.#triggersSeen.has(trigger.id)) return;',
    '',
  ),
  {
    // Whom the node knows and whom the engine finds is ended by either.
    name: 'children-end',
    what: 'children go on when their node has timed out',
    rewrites: [
      { file: CHILDREN, text: 'for (const id of this.running.keys()) this.#host.env.endChild(id, verdict);', by: '' },
      { file: CHILDREN, text: 'this.#host.env.endChildrenOf(this.#slot, verdict);', by: '' },
    ],
  },
  mutant(
    'children-found',
    'a restart does not look for children',
    CHILDREN,
    'this.#ids[index] = child.id;\n',
    'continue;\n',
  ),
  mutant(
    'result-token',
    "another claim's result is taken",
    DISPATCHER,
    'claim?.worker === link.workerId && claim.tokenHash === tokenHash;',
    'claim !== null && claim !== undefined;',
  ),
  mutant(
    'tombstone',
    'a cancel that overtakes its task is forgotten',
    WORKER,
    'if (this.#cancelled.take(task.id) || this.#stopped.has(task.executionId)) {',
    'if (false as boolean) {',
  ),
  mutant('cut-off', 'a worker that nobody hears goes on', WORKER, "if (this.#cancellable) this.#endAll('lost');", ''),
  // Between engines.
  mutant(
    'relay-dedupe',
    'what another engine said is heard as often as it arrives',
    RELAY,
    'const doubled = Math.min(count, Math.max(0, sender.next - first));',
    'const doubled = 0;',
  ),
  mutant(
    'relay-gap',
    'nobody notices by its number that a message never came',
    RELAY,
    'else if (first > sender.next) this.#gap(from);',
    '',
  ),
  mutant(
    'relay-goodbye',
    'what comes once more of an engine that said goodbye is heard once more',
    RELAY,
    "if (message === 'goodbye') this.#left(from, sender, true);",
    "if (message === 'goodbye' && this.#senders.delete(from)) this.#left(from, sender, true);",
  ),
  mutant(
    'relay-unreadable',
    'what cannot be read is not missed',
    RELAY,
    'if (messages.length !== count) return this.#gap(from);',
    '',
  ),
  mutant(
    'relay-numbers',
    'a number that nobody reaches is believed',
    RELAY,
    'isWithin(first, 1, NUMBER_MAX) &&',
    'Number.isSafeInteger(first) &&',
  ),
  mutant('link-gap', 'a gap of the link is not told', RELAY, 'gap: () => this.#gap(null),', 'gap: () => undefined,'),
  mutant(
    'relay-beat',
    'an engine that has nothing to say says nothing',
    RELAY,
    '* 0.9) this.#sendBeat();',
    '* 0.9) return;',
  ),
  mutant('gap-asks', 'after a gap nobody asks who follows what', BUS, "relay.say({ kind: 'ask', of: from });", ''),
  mutant(
    'gap-calls',
    'nobody is called after a gap',
    BUS,
    'for (const handler of this.#gapHandlers) this.#try(handler);',
    '',
  ),
  mutant(
    'gap-sweep',
    'an engine that missed something waits for its next sweep',
    DUTIES,
    'bus.onGap(() => this.sweepNow());',
    '',
  ),
  mutant(
    'bus-local-first',
    'a STOP reaches those who are connected here by the relay alone',
    BUS,
    'this.#stopHere(message);\n    this.#relay',
    'this.#relay',
  ),
  mutant(
    'bus-workers',
    'a STOP is not passed on to workers',
    BUS,
    "this.#try(() => this.#workers?.to(room).emit('STOP', message));",
    '{}',
  ),
  // Clients.
  mutant(
    'subscription-order',
    'an event is sent to a client before the ones that it missed',
    SUBSCRIPTIONS,
    'if (event.seq === this.#last + 1 && ',
    'if (',
  ),
  mutant(
    'subscription-look',
    'nobody looks for events whose announcement was lost',
    SUBSCRIPTIONS,
    'for (const subscription of this.#all.get(id)?.values() ?? []) subscription.reached(seq);',
    'void [id, seq];',
  ),
  mutant(
    'subscription-announced',
    'an event that is announced while older ones are read is forgotten',
    SUBSCRIPTIONS,
    'if (this.#last >= this.#announced) break;',
    'break;',
  ),
  mutant(
    'list-durable',
    'those who follow lists are told of events that are not durable',
    ENGINE,
    'seq: commit.events.at(-1)?.seq ?? header.seq',
    'seq: header.seq',
  ),
];
