"""What the resolvers say of a name. All are asked at the same time, so that a silent one costs its two seconds once."""

import os
import socket
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer

from gfwtools.config.model import Address, Config, Upstream
from gfwtools.diagnose.usual import Asked, ask_usual
from gfwtools.dnsmasq import client
from gfwtools.dnsmasq.client import Reply
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.overrides import Override
from gfwtools.dnsmasq.resolver import Resolver, Unread
from gfwtools.lists.answer import Answer

__all__ = ["Lookup", "ask_resolvers", "count_asked"]

#: No program listens there: traceroute(8)'s first port.
KNOCK_PORT = 33434
#: After this many questions, none of them to the policy's resolvers, dnsmasq asks other resolvers.
POKES = 3
#: No more addresses of one name than these are looked at.
LIMIT = 8


@dataclass(frozen=True, slots=True)
class Lookup:
    """What the resolvers said."""

    resolver: Resolver
    alive: bool
    local: tuple[Reply, ...] = ()
    clean: tuple[Reply, ...] = ()
    upstream: Upstream | None = None
    """Who gave the clean answer, or should have."""
    asked: int | None = None
    """Questions that our dnsmasq sent to the policy's resolvers when it was asked for what it does not cache."""
    second_alive: bool | None = None
    unread: tuple[Unread, ...] = ()
    """Files of the policy that its daemons have not read in their current version."""
    overrides: tuple[Override, ...] = ()
    """Lines of the user's that decide the name."""
    strangers: tuple[str, ...] | None = None
    """Other resolvers than the policy's that were seen to be asked; None where that cannot be seen."""
    itself: bool = False
    """Our dnsmasq has the address from a line or a hosts file that it has read, and asks no resolver."""
    usual: Asked | None = None
    """What the resolvers of a direct name said."""

    @property
    def daemon(self) -> Daemon:
        return self.resolver.main

    @property
    def nowhere(self) -> bool:
        """Our dnsmasq says that there is no such name; it may have that from its cache, for any type of record."""
        return any(reply.rcode == "NXDOMAIN" for reply in self.local)

    @property
    def elsewhere(self) -> bool:
        """Our dnsmasq asked other resolvers than those of the policy."""
        return bool(self.strangers) or (self.asked is not None and self.asked <= 0 and not self.nowhere)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(dict.fromkeys(address for reply in self.local for address in reply.addresses))[:LIMIT]


def ask_resolvers(pool: ThreadPoolExecutor, found: Answer, config: Config, resolver: Resolver) -> Lookup:
    """Ask all resolvers at the same time."""
    daemon = resolver.main
    kinds: tuple[str, ...] = ("A", "AAAA")

    def both(address: Address | str, port: int) -> list[Future[Reply]]:
        return [pool.submit(client.ask, address, port, found.name, kind) for kind in kinds]

    alive = pool.submit(daemon.is_up)
    local = both(daemon.address, daemon.port)
    unread = pool.submit(resolver.unread, [found.policy])
    if found.match.verdict != "tunnel":
        usual = ask_usual(config, [found.name])
        return Lookup(resolver, alive.result(), _replies(local), unread=tuple(unread.result()), usual=usual)
    addresses = [server.address for server in found.policy.upstream]
    _knock(addresses)
    # Once more while a resolver is silent: one may be lost, and after several
    # errors a kernel sends an address at most one more each second (icmp(7), icmp_ratelimit).
    again = Timer(1.0, _knock, [addresses])
    again.daemon = True
    again.start()
    clean = {upstream: both(upstream.address, upstream.port) for upstream in found.policy.upstream}
    other = resolver.second(found.policy)
    # A rule of ours has the second dnsmasq answer root and the first one alone.
    second = pool.submit(other.is_up) if other and os.geteuid() == 0 else None
    overrides = pool.submit(resolver.overrides, found.name)
    strangers = pool.submit(resolver.strangers, found.policy, found.name)
    asked = count_asked(resolver.asks(found.policy), found.name, daemon) if alive.result() else None
    replies = {upstream: _replies(futures) for upstream, futures in clean.items()}
    again.cancel()
    # dnsmasq takes whichever answers: so do we.
    upstream = next((u for u, said in replies.items() if any(r.usable for r in said)), found.policy.upstream[0])
    said = _replies(local)
    is_other = client.compare(said[0], replies[upstream][0]) == "different"
    addresses = [address for reply in replies[upstream] for address in reply.addresses]
    changing = resolver.changing(found.name, found.policy, addresses)
    return Lookup(
        resolver,
        alive.result(),
        said,
        replies[upstream],
        upstream,
        asked,
        second.result() if second else None,
        tuple(unread.result()),
        overrides=(*overrides.result(), *changing),
        strangers=strangers.result(),
        itself=is_other and resolver.answers_itself(found.name),
    )


def _knock(addresses: Sequence[Address]) -> None:
    """Make the tunnel's peer answer, even where the resolver behind it does not.

    As traceroute(8) begins: one hop, and a port without a listener. The peer's kernel says "time exceeded", or "port
    unreachable" where an address is its own, and the tunnel counts what comes back. By itself a peer that has nothing
    to say is silent for ten seconds (WireGuard's paper, section 6.5).
    """
    for address in addresses:
        family, level, option = (
            (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
            if address.version == 6
            else (socket.AF_INET, socket.IPPROTO_IP, socket.IP_TTL)
        )
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as knock:  # no way there: other links say so
            knock.setsockopt(level, option, 1)
            knock.sendto(b"", (str(address), KNOCK_PORT))


def _replies(futures: Sequence[Future[Reply]]) -> tuple[Reply, ...]:
    return tuple(future.result() for future in futures)


def count_asked(servers: Sequence[str], name: str, daemon: Daemon) -> int | None:
    """Ask for what dnsmasq does not cache, and see whose count rises (dnsmasq(8), servers.bind).

    :returns: None where dnsmasq does not report its counts.
    """
    asked = 0
    for _ in range(POKES):  # a packet may be lost, and a dnsmasq that starts anew meanwhile counts from 0
        before = daemon.queries()
        if before is None:
            return None
        client.poke(daemon.address, daemon.port, name)
        after = daemon.queries()
        if after is None:
            return None
        asked = sum(after.get(server, 0) - before.get(server, 0) for server in servers)
        if asked > 0:
            break
    return asked
