import type { SocketIoBus } from '../../src/adapters/socket-io/bus.ts';
import type { EngineLink, LinkHandlers, Packet } from '../../src/adapters/socket-io/link.ts';
import { systemClock } from '../../src/adapters/system/clock.ts';
import { systemIds } from '../../src/adapters/system/ids.ts';
import { composeBus } from '../../src/runtime.ts';

/** As the server composes it. */
export function busOver(link: EngineLink, beatMs?: number): SocketIoBus {
  const others = { link, clock: systemClock, id: systemIds.next() };
  return composeBus(beatMs === undefined ? others : { ...others, beatMs });
}

/** Carries packets between engines of one process at once, or as a test says. */
export class Wire {
  readonly links: TestLink[] = [];
  /** What becomes of a packet on its way to one of the others: how often it arrives. */
  copies = (_packet: Packet): number => 1;

  link(): TestLink {
    const link = new TestLink(this);
    this.links.push(link);
    return link;
  }
}

export class TestLink implements EngineLink {
  readonly #wire: Wire;
  handlers: LinkHandlers | null = null;
  isUp = true;
  /** Packets that are held back until the test lets them go. */
  held: (() => void)[] | null = null;
  sent: Packet[] = [];

  constructor(wire: Wire) {
    this.#wire = wire;
  }

  async open(handlers: LinkHandlers): Promise<void> {
    this.handlers = handlers;
  }

  async send(packet: Packet): Promise<void> {
    if (this.held !== null) await new Promise<void>((resolve) => this.held?.push(resolve));
    if (!this.isUp) throw new Error('down');
    this.sent.push(packet);
    for (const other of this.#wire.links) {
      if (other === this) continue;
      for (let copy = this.#wire.copies(packet); copy > 0; copy -= 1) other.handlers?.received(packet);
    }
  }

  async close(): Promise<void> {
    this.handlers = null;
  }
}
