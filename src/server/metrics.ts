/** Prometheus metrics. The library is loaded at the first scrape: until then only stop latencies are kept. */
import type { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { BusCounters } from '../adapters/socket-io/bus.ts';
import type { EngineApi } from '../engine/api.ts';

/** Stopped nodes kept for the first scrape; those before them are not counted. */
const WAITING_MAX = 20_000;
const STOP_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15];

type Loaded = { registry: Registry; stops: Histogram<'type'> };

export class Metrics {
  readonly #engine: EngineApi;
  readonly #inspections: { readonly refused: number };
  #waiting: { type: string; ms: number }[] = [];
  #loaded: Promise<Loaded> | null = null;

  readonly #bus: { counters(): BusCounters };

  constructor(engine: EngineApi, inspections: { readonly refused: number }, bus: { counters(): BusCounters }) {
    this.#engine = engine;
    this.#inspections = inspections;
    this.#bus = bus;
    engine.metrics().onNodeStopped = (type, ms) => {
      if (this.#waiting.length < WAITING_MAX) this.#waiting.push({ type, ms });
    };
  }

  async scrape(): Promise<{ type: string; text: string }> {
    this.#loaded ??= this.#load();
    const { registry, stops } = await this.#loaded;
    for (const { type, ms } of this.#waiting) stops.observe({ type }, ms / 1_000);
    this.#waiting = [];
    return { type: registry.contentType, text: await registry.metrics() };
  }

  async #load(): Promise<Loaded> {
    const { default: prom } = await import('prom-client');
    const engine = this.#engine;
    const registry = new prom.Registry();
    prom.collectDefaultMetrics({ register: registry });
    const registers = [registry];
    const counter = (name: string, help: string, read: () => number) =>
      new prom.Counter({ name, help, registers, collect: setTo(read) });

    counter('fullstop_executions_started_total', 'Executions started', () => engine.metrics().executionsStarted);
    counter('fullstop_nodes_ended_total', 'Nodes ended', () => engine.metrics().nodesEnded);
    counter('fullstop_commits_total', 'Commits', () => engine.metrics().commits);
    counter('fullstop_commit_retries_total', 'Commits tried again', () => engine.metrics().commitRetries);
    counter(
      'fullstop_late_results_discarded_total',
      'Results that came after a stop',
      () => engine.metrics().lateResultsDiscarded,
    );
    counter(
      'fullstop_inspection_refusals_total',
      'Messages of viewers that are no stop',
      () => this.#inspections.refused,
    );
    new prom.Counter({
      name: 'fullstop_executions_ended_total',
      help: 'Executions ended, by how; stopped ones are not among the failed',
      labelNames: ['status'],
      registers,
      collect(this: Counter<'status'>) {
        const { Complete, Failed, stopped } = engine.metrics().executionsEnded;
        this.reset();
        this.inc({ status: 'complete' }, Complete);
        this.inc({ status: 'failed' }, Failed);
        this.inc({ status: 'stopped' }, stopped);
      },
    });
    new prom.Gauge({
      name: 'fullstop_executions',
      help: 'Live executions; parked ones run, with nothing live but held or delayed nodes',
      labelNames: ['status'],
      registers,
      collect(this: Gauge<'status'>) {
        for (const [status, count] of Object.entries(engine.metrics().live)) this.set({ status }, count);
      },
    });
    const bus = this.#bus;
    new prom.Counter({
      name: 'fullstop_bus_messages_total',
      help: 'Messages to and from other engines; dropped ones could not leave, doubled ones came again',
      labelNames: ['what'],
      registers,
      collect(this: Counter<'what'>) {
        const { sent, received, dropped, doubled } = bus.counters();
        this.reset();
        for (const [what, count] of Object.entries({ sent, received, dropped, doubled })) this.inc({ what }, count);
      },
    });
    counter('fullstop_bus_gaps_total', 'Times that messages of others may have been missed', () => bus.counters().gaps);
    new prom.Gauge({
      name: 'fullstop_bus_engines',
      help: 'Other engines that are heard now',
      registers,
      collect(this: Gauge) {
        this.set(bus.counters().others);
      },
    });
    const stops = new prom.Histogram({
      name: 'fullstop_stop_seconds',
      help: 'From the durable intent of a stop to the end of a node that ran, by node type',
      labelNames: ['type'] as const,
      buckets: STOP_SECONDS,
      registers,
    });
    return { registry, stops };
  }
}

/** The counters live in the engine: a scrape copies them. */
function setTo(read: () => number) {
  return function collect(this: Counter): void {
    this.reset();
    this.inc(read());
  };
}
