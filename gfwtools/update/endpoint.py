"""The endpoint of a tunnel that has a name: WireGuard resolves it once, and then sends to that address for ever.

The name is in the file that wg-quick(8) reads. Where it has another address now and the tunnel is dead, the peer gets
the new address, as the example reresolve-dns of wireguard-tools does.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.errors import HostError
from gfwtools.plumbing.facts import parse_endpoints
from gfwtools.storage import atomic
from gfwtools.system.commands import Command, Runner

__all__ = ["Astray", "NamedPeer", "astray", "follow", "named_peers"]

#: Seconds within which a resolver behind a tunnel that works has answered.
PATIENCE = 2.0
# The syntax of a key (wg(8)): 32 octets in base64. A host name, for a command line and a question to dnsmasq.
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class NamedPeer:
    """A peer whose endpoint has a name."""

    key: str
    host: str
    port: int


def named_peers(text: str) -> list[NamedPeer]:
    """The peers with a name in the text of a wg-quick(8) file. What is not valid is skipped: wg(8) refuses it."""
    found = []
    for section in re.split(r"(?m)^\s*(?=\[)", text):
        lines = (line.partition("#")[0].partition("=") for line in section.splitlines())
        keys = {name.strip().lower(): value.strip() for name, _, value in lines}
        host, _, port = keys.get("endpoint", "").rpartition(":")
        is_name = _HOST.fullmatch(host) and not _is_address(host)
        if section[:6].lower() == "[peer]" and _KEY.fullmatch(keys.get("publickey", "")) and is_name and _is_port(port):
            found.append(NamedPeer(keys["publickey"], host, int(port)))
    return found


def _is_address(text: str) -> bool:
    with suppress(ValueError):
        return bool(ip_address(text))
    return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536


@dataclass(frozen=True, slots=True)
class Astray:
    """A peer of a dead tunnel whose endpoint is at none of its name's addresses."""

    interface: str
    peer: NamedPeer
    address: Address | None
    """The first address of the name; None where it has none."""


def astray(config: Config, runner: Runner, resolver: Daemon) -> Iterator[Astray]:
    """The peers of dead tunnels whose endpoint's name has another address now, or none.

    A tunnel that works is left alone: its peer may have moved by itself (the paper of WireGuard, section 2.1).

    :param resolver: this host's own, which is asked for the names.
    """
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        text = (atomic.read(config.paths.at(f"/etc/wireguard/{name}.conf")) or b"").decode("utf-8", "replace")
        peers = named_peers(text)
        if not peers:
            continue
        policies = [policy for policy in config.policies if policy.interface == name]
        known = (runner.ask("wg", "show", name, "endpoints") or "").splitlines()
        for peer in peers:
            lines = [line for line in known if line.startswith(f"{peer.key}\t")]
            if not lines:
                continue  # the file was changed since, and the tunnel not brought up anew
            addresses = _addresses(resolver, peer.host)
            if not set(parse_endpoints(lines[0])) & set(addresses) and not any(map(_answers, policies)):
                yield Astray(name, peer, addresses[0] if addresses else None)


def follow(found: Astray, runner: Runner, resolver: Daemon, prepare: Callable[[str, Address], None]) -> str:
    """Give the peer the new address.

    :param prepare: called with an interface and its new endpoint before the tunnel sends anything there.
    :returns: what was done, in words.
    :raises HostError: the name has no address.
    """
    interface, peer, address = found.interface, found.peer, found.address
    if address is None:
        raise HostError(
            f"{interface} carries nothing, and its endpoint {peer.host} has no address by {resolver}",
            "if a list has that name, add it to allow.txt; if not, look whether the name is still right",
        )
    prepare(interface, address)
    endpoint = f"[{address}]:{peer.port}" if address.version == 6 else f"{address}:{peer.port}"
    runner.change(Command(("wg", "set", interface, "peer", peer.key, "endpoint", endpoint)))
    return f"{peer.host}, the endpoint of {interface}, is {address} now"


def _addresses(resolver: Daemon, host: str) -> tuple[Address, ...]:
    four = resolver.ask(host).addresses
    return tuple(four or resolver.ask(host, "AAAA").addresses)


def _answers(policy: PolicyConfig) -> bool:
    """Whether the policy's resolver, which is reached through the tunnel, answers."""
    upstream = policy.upstream[0]
    return Daemon(str(upstream.address), upstream.port).ask("example.com", timeout=PATIENCE).answered
