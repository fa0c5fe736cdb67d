"""The configuration as frozen values. Every value in one has been validated."""

import errno
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Literal, NamedTuple

from gfwtools.config.walk import beneath
from gfwtools.errors import ConfigError

__all__ = [
    "MIRRORS",
    "Address",
    "BackendName",
    "Config",
    "Dns",
    "Fetch",
    "Host",
    "Network",
    "Paths",
    "PolicyConfig",
    "Upstream",
    "is_url",
]

#: Mirrors of gfwlist, in the order they are tried (from the list's own page).
MIRRORS = (
    "https://gcore.jsdelivr.net/gh/gfwlist/gfwlist/gfwlist.txt",
    "https://testingcf.jsdelivr.net/gh/gfwlist/gfwlist/gfwlist.txt",
    "https://fastly.jsdelivr.net/gh/gfwlist/gfwlist/gfwlist.txt",
    "https://gitlab.com/gfwlist/gfwlist/raw/master/gfwlist.txt",
    "https://repo.or.cz/gfwlist.git/blob_plain/HEAD:/gfwlist.txt",
    "https://raw.githubusercontent.com/gfwlist/gfwlist/master/gfwlist.txt",
)
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
#: What marks packets: iptables with ipset, or nftables.
BackendName = Literal["iptables", "nftables"]
#: Where the second dnsmasq of the split layout listens; mDNS holds 5353 and LLMNR 5355 (RFC 6762, RFC 4795).
SECOND_PORT = 5354
LLMNR_PORT = 5355


class Upstream(NamedTuple):
    """A resolver that dnsmasq asks: an address and a port."""

    address: Address
    port: int = 53

    def __str__(self) -> str:
        return f"{self.address}#{self.port}"


class Fetch(NamedTuple):
    """``[fetch]``: how a list is brought here. Times in seconds, sizes in bytes."""

    timeout: float = 20.0
    connect_timeout: float = 3.0
    hedge: float = 2.0
    max_bytes: int = 24 * 1024 * 1024
    proxy: str = ""
    min_share: float = 0.5


class Dns(NamedTuple):
    """``[dns]``: how dnsmasq gets the list, and how it is reloaded."""

    layout: Literal["paired", "split"] = "paired"
    conf_dir: str = "/etc/dnsmasq.d"
    manager: Literal["auto", "systemd", "openrc", "command", "none"] = "auto"
    restart: tuple[str, ...] = ()
    pid_file: str = "/run/dnsmasq/dnsmasq.pid"
    resolvers: tuple[Upstream, ...] = ()
    listen: tuple[Address, ...] = ()
    canary: bool = True
    https_records: bool = False
    stop_rebind: Literal["listed", "all", "off"] = "listed"
    rebind_ok: tuple[str, ...] = ()
    dnssec: bool = False
    addn_hosts: tuple[str, ...] = ()
    warm: bool = False


class Host(NamedTuple):
    """``[host]``: the plumbing that all policies share."""

    backend: Literal["auto", "iptables", "nftables"] = "auto"
    gateway: bool = False
    preference: int = 5180
    connmark_mask: int = 0x0F000000


class PolicyConfig(NamedTuple):
    """``[policy.NAME]``: which domains, by which resolver, into which set, with which mark, table and interface."""

    name: str = "gfwlist"
    format: Literal["autoproxy", "domains", "hosts", "dnsmasq"] = "autoproxy"
    sources: tuple[str, ...] = MIRRORS
    allow: tuple[str, ...] = ("/etc/gfwtools/allow.txt",)
    deny: tuple[str, ...] = ("/etc/gfwtools/deny.txt",)
    direct: tuple[str, ...] = ()
    granularity: Literal["registrable", "host"] = "registrable"
    upstream: tuple[Upstream, ...] = (Upstream(IPv4Address("8.8.8.8")),)
    set: str = "gfwlist"
    mark: int = 0xCA6C
    table: int = 51820
    interface: str = "wg0"
    nat: str = "masquerade"
    seeds: tuple[Network, ...] = ()
    routes: tuple[Network, ...] = ()

    @property
    def own_lists(self) -> tuple[str, ...]:
        """The lists beside the fetched one, all of them."""
        return (*self.allow, *self.deny, *self.direct)

    @property
    def set6(self) -> str:
        """The ipset beside :attr:`set` that holds IPv6 addresses."""
        return f"{self.set}6"

    @property
    def direct_set(self) -> str:
        """The ipset that takes the addresses of exceptions, and that nothing marks."""
        return f"{self.set}_direct"

    @property
    def snat(self) -> Address | None:
        """The address of ``nat = "snat:ADDRESS"``, or None."""
        return ip_address(self.nat[5:]) if self.nat.startswith("snat:") else None


class Paths(NamedTuple):
    """Every file that the tool reads or writes, below ``root`` (as DESTDIR does). No link leads out of another root."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """``path``, an absolute path on the host, below the root. A link at the path itself stays one, to a file.

        :raises ConfigError: links lead in a circle.
        """
        if self.root == Path("/"):
            return self.root / str(path).lstrip("/")
        place = self._beneath(path, last=False)
        if not place.is_symlink():
            return place
        try:
            folder = beneath(self.root, path)
        except OSError:
            return place
        return folder if folder.is_dir() or place.is_dir() else place

    def follow(self, place: Path) -> Path:
        """Where a link at ``place`` leads below the root; for files that others write and we read.

        :raises ConfigError: links lead in a circle.
        """
        return place if self.root == Path("/") else self._beneath(place.relative_to(self.root), last=True)

    def _beneath(self, path: str | Path, *, last: bool) -> Path:
        try:
            return beneath(self.root, path, last=last)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(
                    f"{error.filename}: links lead in a circle below {self.root}", "remove them"
                ) from None
            return self.root / str(path).lstrip("/")  # who opens it gets the same error

    @property
    def etc(self) -> Path:
        return self.at("/etc/gfwtools")

    @property
    def config(self) -> Path:
        return self.etc / "config.toml"

    @property
    def state_dir(self) -> Path:
        return self.at("/var/lib/gfwtools")

    @property
    def dns(self) -> Path:
        """What the split layout has of its own."""
        return self.at("/etc/gfwtools/dns")

    @property
    def journal(self) -> Path:
        return self.at("/var/lib/gfwtools/journal")

    @property
    def state(self) -> Path:
        return self.state_dir / "state.json"

    @property
    def lock(self) -> Path:
        return self.state_dir / "lock"

    def list(self, policy: str) -> Path:
        """The last good list of a policy, decoded."""
        return self.state_dir / f"{policy}.list"

    def domains(self, policy: str) -> Path:
        """The tunnelled domains of a policy, one a line."""
        return self.state_dir / f"{policy}.domains"

    def reference(self, policy: str) -> Path:
        """An earlier list of a policy, with which new ones are compared."""
        return self.state_dir / f"{policy}.earlier"

    def direct(self, policy: str) -> Path:
        """Beside :meth:`domains`: what is direct again below a tunnelled domain."""
        return self.state_dir / f"{policy}.direct"

    def own_list(self, entry: str) -> Path:
        """Where an entry of :attr:`PolicyConfig.own_lists` is on disk: the file itself, or the last good copy of a
        URL."""
        if not is_url(entry):
            return self.at(entry)
        from gfwtools.digest import sha256

        return self.state_dir / f"own-{sha256(entry.encode())[:16]}.list"

    def ipset(self, policy: str) -> Path:
        """The seed of a policy, for ``ipset restore``."""
        return self.state_dir / f"{policy}.ipset"

    def servers(self, policy: str) -> Path:
        """The domains of a policy for the main dnsmasq in the split layout; it reads them again on SIGHUP."""
        return self.dns / f"{policy}.servers"

    def second(self, policy: str) -> Path:
        """The configuration of the second dnsmasq of the split layout."""
        return self.dns / f"{policy}.conf"

    def second_pid(self, policy: str) -> Path:
        return self.at(f"/run/gfwtools/dns-{policy}.pid")

    def nft(self, policy: str) -> Path:
        """The seed of a policy, for ``nft -f``."""
        return self.state_dir / f"{policy}.nft"

    def warm(self, policy: str) -> Path:
        """What the last warm-up was answered: ``{"name": ["address", ...]}``, of names without an address none."""
        return self.state_dir / f"{policy}.warm.json"


def is_url(entry: str) -> bool:
    """Whether an entry of ``allow``, ``deny`` or ``direct`` is fetched, and no file of this host."""
    return entry.startswith(("http://", "https://"))


class Config(NamedTuple):
    """The whole configuration."""

    fetch: Fetch = Fetch()
    dns: Dns = Dns()
    host: Host = Host()
    policies: tuple[PolicyConfig, ...] = (PolicyConfig(),)
    root: Path = Path("/")

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def second_port(self, policy: PolicyConfig) -> int:
        """The port of the policy's second dnsmasq: counted up from 5354, but for 5355, which LLMNR holds."""
        ports = (port for port in range(SECOND_PORT, 65536) if port != LLMNR_PORT)
        return next(port for port, other in zip(ports, self.policies, strict=False) if other.name == policy.name)

    def connmark(self, policy: PolicyConfig) -> int:
        """The policy's value in the bits of ``host.connmark_mask``: 1 for the first policy, 2 for the next one."""
        mask = self.host.connmark_mask
        place = [other.name for other in self.policies].index(policy.name)
        return (place + 1) * (mask & -mask)

    def dnsmasq_conf(self, policy: PolicyConfig) -> Path:
        """The file that ``update`` writes for dnsmasq."""
        return self.paths.at(self.dns.conf_dir) / f"{policy.name}.conf"
