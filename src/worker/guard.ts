import { type LookupAddress, lookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { FullstopError } from '../errors.ts';
import type { Task } from '../ports/work.ts';

/**
 * Whether an `http` task may reach this host although the guard would refuse its address.
 *
 * `host` is as in the URL: lower-case, an IPv6 address without brackets.
 */
export type HttpAllow = (host: string, port: number, task: Task) => boolean;

/** The rule of `FULLSTOP_HTTP_ALLOW`: each entry is `host` or `host:port`. @throws FS_INVALID */
export function allowHosts(entries: readonly string[]): HttpAllow {
  const allowed = new Set(entries.map(normalise));
  return (host, port) => allowed.has(host) || allowed.has(`${host}:${port}`);
}

function normalise(entry: string): string {
  // An address of version 6 may stand bare, or in brackets when a port follows.
  const bare = isIP(entry) === 6;
  const url = URL.parse(`http://${bare ? `[${entry}]` : entry}/`);
  const port = bare ? undefined : /:(\d+)$/.exec(entry)?.[1];
  if (url === null || url.pathname !== '/' || url.username !== '' || url.search !== '' || url.hash !== '') {
    throw new FullstopError('FS_INVALID', `expected HOST or HOST:PORT in the allowed hosts, found "${entry}"`);
  }
  const host = bareHost(url);
  return port === undefined ? host : `${host}:${Number(port)}`;
}

/** The host of a URL without the brackets of an IPv6 address. */
export function bareHost(url: URL): string {
  return url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
}

/**
 * Refuses addresses that are not on the public internet.
 * @see https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
 */
export function isBlocked(address: string): boolean {
  const family = isIP(address);
  if (family === 4) return blocked.check(address, 'ipv4');
  // Of version 6 only global unicast is public: the rest is loopback, private, link-local, multicast, or carries
  // an address of version 4 (mapped ::ffff:0:0/96, NAT64 64:ff9b::/96).
  return family === 0 || !globalUnicast.check(address, 'ipv6') || blocked.check(address, 'ipv6');
}

const globalUnicast = new BlockList();
globalUnicast.addSubnet('2000::', 3, 'ipv6');

const blocked = new BlockList();
for (const [net, prefix] of [
  ['0.0.0.0', 8], // this network, unspecified
  ['10.0.0.0', 8], // private
  ['100.64.0.0', 10], // carrier-grade NAT
  ['127.0.0.0', 8], // loopback
  ['168.63.129.16', 32], // Azure's platform address
  ['169.254.0.0', 16], // link-local, metadata services
  ['172.16.0.0', 12], // private
  ['192.0.0.0', 24], // protocol assignments
  ['192.0.2.0', 24], // documentation
  ['192.88.99.0', 24], // 6to4 relays
  ['192.168.0.0', 16], // private
  ['198.18.0.0', 15], // benchmarks
  ['198.51.100.0', 24], // documentation
  ['203.0.113.0', 24], // documentation
  ['224.0.0.0', 4], // multicast
  ['240.0.0.0', 4], // reserved, broadcast
] as const) {
  blocked.addSubnet(net, prefix, 'ipv4');
}
for (const [net, prefix] of [
  ['2001::', 23], // protocol assignments, Teredo
  ['2001:db8::', 32], // documentation
  ['2002::', 16], // 6to4
  ['3fff::', 20], // documentation
] as const) {
  blocked.addSubnet(net, prefix, 'ipv6');
}

export function blockedError(host: string): FullstopError {
  return new FullstopError(
    'FS_HTTP_BLOCKED',
    `${host} is not an address on the public internet; an operator can let it through with FULLSTOP_HTTP_ALLOW`,
  );
}

/**
 * `dns.lookup` that leaves out blocked addresses. The socket connects to what this answers, so a name cannot be
 * one address when checked and another when used.
 */
export const guardedLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, found) => {
    if (error) return callback(error, []);
    const public_ = found.filter(({ address }: LookupAddress) => !isBlocked(address));
    const first = public_[0];
    if (first === undefined) return callback(blockedError(hostname), []);
    if (options.all) callback(null, public_);
    else callback(null, first.address, first.family);
  });
};
