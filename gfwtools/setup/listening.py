"""The addresses at which the LAN reaches this host, and the networks where another program answers names.

libvirt, LXC, Podman and NetworkManager's shared mode run a resolver of their own on a network that they made. It asks
the resolver of /etc/resolv.conf, which is ours: its clients get our answers, and we need not listen there. Two programs
cannot listen at one address.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from gfwtools.config.model import Address, Config, Paths
from gfwtools.dnsmasq.conf import MAIN_CONF, option_values
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner
from gfwtools.system.networks import WITH_RESOLVER, WITHOUT_RESOLVER, wans
from gfwtools.system.questions import Holder, holders

__all__ = ["WILDCARDS", "Listening", "OtherNetwork", "command_line", "listening_of", "other_dnsmasqs", "words_of"]

#: As ss(8) writes "at every address".
WILDCARDS = (str(IPv4Address(0)), "*", str(IPv6Address(0)))
#: What the command line of such a resolver names, on a bridge of any name: libvirt; LXC, LXD and Incus; NetworkManager.
_OWNERS = (
    *("/libvirt/", "/run/lxc/", "/lxd/", "/incus/"),
    *("/dnsmasq-shared.d", "/nm-dnsmasq-"),
)


@dataclass(frozen=True, slots=True)
class OtherNetwork:
    """A network of this host where another program answers names, so that we do not listen there."""

    interface: str
    addresses: tuple[Address, ...]
    who: str = ""
    """The program that answers there now, in words; empty where none does yet."""

    def __str__(self) -> str:
        where = f"{', '.join(map(str, self.addresses))} ({self.interface})"
        why = f"{self.who} answers there" if self.who else "it is a network of virtual machines or containers"
        return f"dnsmasq does not listen at {where}: {why}; to choose the addresses yourself, set dns.listen"


@dataclass(frozen=True, slots=True)
class Listening:
    """Where this host listens for others."""

    addresses: tuple[Address, ...] = ()
    """The addresses at which the LAN reaches this host."""
    interfaces: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    """The interfaces that lead to the LAN alone, each with its part of the addresses."""
    others: tuple[OtherNetwork, ...] = ()
    """The networks that are left out."""
    outer: tuple[str, ...] = ()
    """The interfaces that lead to the Internet or into a tunnel, and to no LAN."""


def listening_of(config: Config, found: Sequence[tuple[str, Address]], runner: Runner) -> Listening:
    """The addresses that are neither the tunnels' nor the WAN's; of a gateway with one leg, that leg's private ones.

    :param found: interface and address of this host, but for link-local ones.
    """
    tunnels = {policy.interface for policy in config.policies}
    wan = wans(runner)
    usable = [(name, address) for name, address in found if name not in tunnels and not address.is_loopback]
    others = tuple(_other_networks(config, [pair for pair in usable if pair[0] not in wan], runner))
    left_out = {network.interface for network in others}
    inner = [(name, address) for name, address in usable if name not in wan and name not in left_out]
    # A bridge of Docker's may be listened at. It makes no gateway of a host with one leg.
    has_lan = any(not WITHOUT_RESOLVER.fullmatch(name) for name, _ in inner)
    outer = [] if has_lan else [pair for pair in usable if pair[0] in wan and pair[1].is_private]
    names = dict.fromkeys(name for name, _ in inner)
    by_name = tuple((name, tuple(address for other, address in inner if other == name)) for name in names)
    outside = (*sorted(wan - {name for name, _ in outer}), *sorted(tunnels)) if outer or has_lan else ()
    addresses = tuple(dict.fromkeys(address for _, address in (*outer, *inner)))
    return Listening(addresses, by_name, others, outside)


def _other_networks(config: Config, found: Iterable[tuple[str, Address]], runner: Runner) -> Iterator[OtherNetwork]:
    by_interface: dict[str, list[Address]] = {}
    for name, address in found:
        by_interface.setdefault(name, []).append(address)
    others = _not_the_hosts_resolver(config, runner) if by_interface else []
    for name, addresses in by_interface.items():
        there = [other for other in others if other.address in set(map(str, addresses))]
        owned = [other for other in there if _has_owner(config.paths, other)]
        if owned or WITH_RESOLVER.fullmatch(name) or (there and WITHOUT_RESOLVER.fullmatch(name)):
            yield OtherNetwork(
                name, tuple(addresses), *(words_of(config.paths, other) for other in (owned or there)[:1])
            )


def other_dnsmasqs(config: Config, runner: Runner) -> list[Holder]:
    """The dnsmasqs at port 53 that are not the resolver of this host: each has a configuration of its own."""
    return [
        holder
        for holder in _not_the_hosts_resolver(config, runner)
        if holder.program == "dnsmasq" and _has_own_configuration(config, holder)
    ]


def words_of(paths: Paths, holder: Holder) -> str:
    """The program in words: its name, its process and, of a dnsmasq, its configuration."""
    if not holder.program:
        return "another program"
    words = command_line(paths, holder.pid)
    named = [*option_values(words, "-C", "--conf-file"), *option_values(words, "-7", "--conf-dir")]
    files = [name for name in named if name and name != "/dev/null"] if holder.program == "dnsmasq" else []
    return f"{holder.program} (process {holder.pid}{f', {files[0]}' if files else ''})"


def _not_the_hosts_resolver(config: Config, runner: Runner) -> list[Holder]:
    """The programs at port 53 that answer neither everywhere nor at the loopback addresses."""
    found = holders(runner)
    main = (atomic.read(config.paths.at(config.dns.pid_file)) or b"").decode("ascii", "replace").strip()
    own = {holder.pid for holder in found if holder.address in WILDCARDS or _is_loopback(holder.address)}
    return [holder for holder in found if holder.pid not in own and str(holder.pid) != main]


def _is_loopback(text: str) -> bool:
    with suppress(ValueError):
        return ip_address(text).is_loopback
    return False


def _has_owner(paths: Paths, holder: Holder) -> bool:
    line = " ".join(command_line(paths, holder.pid))
    return any(part in line for part in _OWNERS)


def _has_own_configuration(config: Config, holder: Holder) -> bool:
    words = command_line(config.paths, holder.pid)
    files = [*option_values(words, "-C", "--conf-file")]
    pid_files = [*option_values(words, "-x", "--pid-file")]
    return bool(set(files) - {MAIN_CONF} or set(pid_files) - {config.dns.pid_file})


def command_line(paths: Paths, pid: int) -> list[str]:
    """The words with which a program was started; none where that cannot be read."""
    try:
        text = paths.at(f"/proc/{pid}/cmdline").read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    return [word if word.isprintable() else ascii(word) for word in text.rstrip("\0").split("\0")]
