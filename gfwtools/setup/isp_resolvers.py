"""The ISP's resolvers: the file in which this host keeps them, and a copy of ours where it keeps none.

They change with a lease. So dnsmasq gets ``resolv-file=`` on a file that changes with them, and watches it by itself.
systemd-resolved, NetworkManager and resolvconf maintain such a file. For dhclient and dhcpcd a hook of ours writes the
copy at each lease. What systemd-networkd keeps is copied by every ``up`` and ``update --reload``; a unit runs ``up``
when it changes. So is a file in which the tunnel's resolvers are beside the ISP's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

from gfwtools.config.model import Address, Config, Paths, Upstream
from gfwtools.setup.lease_hooks import COPIES, COPY, DHCLIENT_LEASES, DHCPCD_COPY, DHCPCD_LEASES, LEASES, head
from gfwtools.setup.tunnel_resolvers import RECORDS
from gfwtools.storage import atomic
from gfwtools.system.questions import RESOLV_CONF, nameservers_in

__all__ = [
    "NETWORK_MANAGER",
    "RESOLVCONF",
    "RESOLVED",
    "Found",
    "Surroundings",
    "copied",
    "copied_from",
    "find",
    "followed",
    "followed_by",
    "keeps_current",
]

RESOLVED = "/run/systemd/resolve/resolv.conf"
NETWORK_MANAGER = "/run/NetworkManager/no-stub-resolv.conf"
RESOLVCONF = "/run/dnsmasq/resolv.conf"
#: Where DHCP clients keep their leases: systemd-networkd, dhclient, NetworkManager.
_KEPT = (
    "/run/systemd/netif/state",
    "/run/systemd/netif/leases/*",
    DHCLIENT_LEASES,
    "/var/lib/NetworkManager/*.lease",
    *RECORDS,
)
_COPIED_FROM = re.compile(r"^# Copied from: (\S+)$", re.MULTILINE)
# What bootstrap notes in the file that dnsmasq reads.
_NOTE = "# The resolvers of this host at bootstrap: "


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What decides where the resolvers are read."""

    resolv_conf: str = ""
    """/etc/resolv.conf, or what it was before ours."""
    link: str | None = None
    """Where it led."""
    is_ours: bool = False
    """It is ours now, so that it names no resolver of the ISP."""
    maintained: tuple[str, ...] = ()
    """The files that running programs maintain, in resolv.conf's format."""
    promised: str = ""
    """The one of them that is maintained from now on."""
    hooked: bool = False
    """A program wrote it that can only be followed by a hook (dhcpcd)."""
    setting: str = ""
    """The ``resolv-file`` that bootstrap has set before."""
    noted: tuple[str, ...] = ()
    """Those that bootstrap has noted in the file for dnsmasq, for a host that has lost our copy."""
    own: frozenset[Address] = frozenset()
    """The addresses of this host."""
    of_tunnels: frozenset[Address] = frozenset()
    """The resolvers that the tunnels bring along."""
    leaves_out: tuple[str, ...] = ()
    """The files of ``maintained`` without them, by a setting of ours for the program."""


@dataclass(frozen=True, slots=True)
class Found:
    """The ISP's resolvers."""

    resolvers: tuple[Upstream, ...] = ()
    source: str = ""
    """Where they were read: a file, a pattern of files, or ``dns.resolvers``."""
    follow: str = ""
    """The file that changes when they do; empty where they are fixed."""

    @property
    def by_hook(self) -> bool:
        """Whether a hook of ours writes the copy at each lease."""
        return self.follow in COPIES and self.source in (DHCLIENT_LEASES, DHCPCD_LEASES)


def find(config: Config, around: Surroundings) -> Found:
    """Decide where the resolvers come from. A choice that was made before stays while it names a resolver.

    Where resolv.conf names other resolvers than the programs of the host, its owner has written it: those count.
    """
    if config.dns.resolvers:
        return Found(config.dns.resolvers, "dns.resolvers")
    paths, own = config.paths, around.own | around.of_tunnels
    named = usable(nameservers_in(around.resolv_conf), own)
    chosen = followed(paths, around.setting, own) if around.is_ours else Found()
    if chosen.resolvers:
        is_copy = chosen.follow in COPIES
        if not keeps_current(chosen.source) if is_copy else _may_follow(paths, chosen.follow, around):
            return chosen
    # What resolv.conf was before ours may be years old.
    agreeing = () if around.is_ours else named
    for path in around.maintained:
        servers = _read(paths, path, own)
        if not servers and path in around.leaves_out:
            servers = next((found for records in RECORDS if (found := _read(paths, records, own))), ())
        if (servers and (not agreeing or set(agreeing) & set(servers))) or (agreeing and path == around.promised):
            return Found(servers or agreeing, path, path if _may_follow(paths, path, around) else COPY)
    if chosen.resolvers or chosen.follow in around.maintained:
        return replace(chosen, resolvers=chosen.resolvers or named)  # while the network is down, the file may be empty
    if around.hooked and named:
        return Found(named, DHCPCD_LEASES, DHCPCD_COPY)
    for source in _KEPT:
        servers = _read(paths, source, own)
        if servers and (not agreeing or set(agreeing) & set(servers)):
            return Found(servers, source, COPY)
    if named:
        return Found(named, around.link or RESOLV_CONF, COPY)
    for path in (RESOLVED, NETWORK_MANAGER, RESOLVCONF):
        if servers := _read(paths, path, own):
            return Found(servers, path, COPY)
    if noted := usable(around.noted, own):
        return Found(noted, "an earlier bootstrap", COPY)
    return Found()


def _may_follow(paths: Paths, path: str, around: Surroundings) -> bool:
    """Whether dnsmasq may read the file: where it names a resolver of the tunnel, dnsmasq would ask that one too."""
    named = usable(nameservers_in(_text(paths, path)), frozenset())
    return path in around.leaves_out or not {server.address for server in named} & around.of_tunnels


def followed(paths: Paths, setting: str, own: frozenset[Address]) -> Found:
    """The resolvers of the file in ``setting``; those of our copy are read where they were copied from."""
    if setting not in COPIES:
        return Found(_read(paths, setting, own), setting, setting) if setting else Found()
    text = _text(paths, setting)
    source = copied_from(text) or RESOLV_CONF
    servers = _read(paths, LEASES, own) if source == DHCLIENT_LEASES else ()
    if not servers and keeps_current(source):
        servers = _read(paths, source, own)
    return Found(servers or usable(nameservers_in(text), own), source, setting)


def followed_by(text: str) -> str:
    """The file that dnsmasq follows by the file that bootstrap wrote for it, with this ``text``; empty for none."""
    settings = re.findall(r"^resolv-file=(.+)$", text, re.MULTILINE)
    return settings[-1] if settings else ""


def keeps_current(source: str) -> bool:
    """Whether ``source`` changes with a lease; else it is the owner's own file, and the copy stays."""
    return source in (DHCPCD_LEASES, RESOLVED, NETWORK_MANAGER, RESOLVCONF) or source in _KEPT


def copied_from(text: str) -> str:
    """Where the resolvers of a copy with this ``text`` come from; empty where it does not say."""
    return next(iter(_COPIED_FROM.findall(text)), "")


def copied(found: Found) -> str:
    """The copy, in resolv.conf's format. It can name no port but 53."""
    lines = "".join(f"nameserver {resolver.address}\n" for resolver in found.resolvers if resolver.port == 53)
    return f"{head(found.source)}{lines}"


def note(resolvers: Iterable[Upstream]) -> str:
    """A comment for the file that dnsmasq reads: the copy is lost where /var/lib/gfwtools is."""
    return f"{_NOTE}{' '.join(str(resolver.address) for resolver in resolvers)}\n"


def noted_in(text: str) -> list[str]:
    """The resolvers of :func:`note`."""
    lines = [line.removeprefix(_NOTE) for line in text.split("\n") if line.startswith(_NOTE)]
    return lines[-1].split() if lines else []


def usable(texts: Iterable[str], own: frozenset[Address]) -> tuple[Upstream, ...]:
    """The resolvers among ``texts`` that are not this host itself."""
    return tuple(dict.fromkeys(server for text in texts if (server := _usable(text, own))))


def _usable(text: str, own: frozenset[Address]) -> Upstream | None:
    """A link-local one is of no use: dnsmasq does not start where the interface in its scope is not there yet."""
    address, _, port = text.partition("#")
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast or parsed in own:
        return None
    return Upstream(parsed, int(port) if port.isdigit() else 53)


def _read(paths: Paths, source: str, own: frozenset[Address]) -> tuple[Upstream, ...]:
    """The resolvers of a file, or of all files of a pattern; of dhclient's, those of the last lease in the newest."""
    found = [path for path in paths.root.glob(source.lstrip("/")) if path.is_file()]
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    if source in (DHCLIENT_LEASES, "/var/lib/NetworkManager/*.lease"):
        newest = newest[:1]
    texts = [(atomic.read(paths.follow(path)) or b"").decode("utf-8", "replace") for path in newest]
    return usable([server for text in texts for server in _servers_in(text)], own)


def _servers_in(text: str) -> list[str]:
    """``nameserver 192.0.2.1``, ``option domain-name-servers 192.0.2.1, 192.0.2.2;`` (dhclient.leases(5)), or
    ``DNS=192.0.2.1 192.0.2.2``."""
    servers = nameservers_in(text)
    lines = re.findall(r"^\s*(?:option (?:domain-name-servers|dhcp6\.name-servers) |DNS=)([^;\n]*)", text, re.M)
    return servers + (re.split(r"[,\s]+", lines[-1].strip()) if lines else [])


def _text(paths: Paths, path: str) -> str:
    return (atomic.read(paths.follow(paths.at(path))) or b"").decode("utf-8", "replace")
