/**
 * What carries packets from one engine to all others: an adapter of Socket.IO on one namespace of a server that
 * nobody can connect to, so that its adapter's own messages are paid once, and no client's broadcast waits for it.
 */
import { type Namespace, Server } from 'socket.io';

export interface Packet {
  /** Who sends: another one after each start. */
  from: string;
  /** Number of its first message; the sender's first ever is 1. */
  first: number;
  count: number;
  /** A JSON list of `count` messages. */
  text: string;
}

export interface LinkHandlers {
  received(packet: unknown): void;
  /** The link was down, or something was lost on it: what was sent before now may never come. */
  gap(): void;
  /** It takes packets again. */
  up(): void;
}

/** Carries packets, or loses them: it never waits for better times, and never throws at its owner. */
export interface EngineLink {
  /** Resolves when packets of others arrive, or after `OPEN_MS`: then it goes on trying by itself. */
  open(handlers: LinkHandlers): Promise<void>;
  /** Resolves when the packet has left; rejects when it was dropped, or nobody knows. */
  send(packet: Packet): Promise<void>;
  close(): Promise<void>;
}

/** How long a start waits for a link. */
export const OPEN_MS = 10_000;
/** How long a packet may take to leave before it counts as lost. */
export const SEND_MS = 2_000;
/** The adapters' own heartbeats count servers for acknowledgements, which engines do not use. */
export const ADAPTER_HEARTBEAT_MS = 3_600_000;

const EVENT = 'engines';

type AdapterFactory = (namespace: Namespace) => object;

export function openNamespace(createAdapter: AdapterFactory, received: (packet: unknown) => void): Namespace {
  // Socket.IO calls an adapter's factory with `new`.
  function Adapter(namespace: Namespace): object {
    return createAdapter(namespace);
  }
  const namespace = new Server({ adapter: Adapter as never, serveClient: false }).of('/');
  namespace.on(EVENT as never, received as never);
  return namespace;
}

export function emitToEngines(namespace: Namespace, packet: Packet): void {
  namespace.serverSideEmit(EVENT, packet);
}

/** What `done` resolves to; undefined when it has not after that time. */
export async function atMost<T>(ms: number, done: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}
