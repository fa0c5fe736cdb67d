"""``/etc/gfwtools/config.toml`` as frozen values; every error names the file, the key and what was expected.

Whatever leaves this module has been validated: addresses are addresses, names of sets and interfaces hold no
character that the kernel, a shell or dnsmasq could read as anything else.
"""

import re
import stat
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gfwtools.errors import ConfigError
from gfwtools.store import NULL

__all__ = [
    "MIRRORS",
    "Config",
    "Dns",
    "Fetch",
    "Host",
    "Paths",
    "PolicyConfig",
    "Upstream",
    "is_url",
    "load",
    "loads",
    "parse_interface",
    "parse_proxy",
    "parse_upstream",
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

#: tomllib takes quadratic time for some nestings; a configuration with every key and its comment has 4 kB.
MAX_BYTES = 256 * 1024

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

#: Tables that the kernel names itself: unspec, default, main, local (rtnetlink(7)).
RESERVED_TABLES = {0: "unspec", 253: "default", 254: "main", 255: "local"}

#: Where the second dnsmasq of the split layout listens; mDNS holds 5353 and LLMNR 5355 (RFC 6762, RFC 4795).
SECOND_PORT = 5354
LLMNR_PORT = 5355

#: The policy that is there without any configuration.
_FIRST = "gfwlist"
# IPSET_MAXNAMELEN is 32 with the NUL; "_direct" and a family digit are put behind the name of a policy's set.
_SET_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,22}"
_POLICY_NAME = r"[a-z][a-z0-9_-]{0,30}"
# IFNAMSIZ is 16 with the NUL; the kernel forbids '/' and blanks (dev_valid_name), and ':' names an alias.
# "all" and "default" are no interfaces to sysctl(8), and iptables(8) takes "wg+" for whatever begins with wg.
_INTERFACE = r"(?!(?:all|default)$)[A-Za-z0-9_.@+][A-Za-z0-9_.@+-]{0,14}(?<!\+)"


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
    max_bytes: int = 64 * 1024 * 1024
    proxy: str = ""
    min_share: float = 0.5


class Dns(NamedTuple):
    """``[dns]``: how dnsmasq is told, and how it is reloaded."""

    layout: Literal["paired", "split"] = "paired"
    conf_dir: str = "/etc/dnsmasq.d"
    manager: Literal["auto", "systemd", "openrc", "command", "none"] = "auto"
    restart: tuple[str, ...] = ()
    pid_file: str = "/run/dnsmasq/dnsmasq.pid"
    resolvers: tuple[Upstream, ...] = ()
    listen: tuple[Address, ...] = ()
    canary: bool = True
    dnssec: bool = False
    addn_hosts: tuple[str, ...] = ()
    warm: bool = False


class Host(NamedTuple):
    """``[host]``: the plumbing that all policies share."""

    backend: Literal["auto", "iptables", "nftables"] = "auto"
    gateway: bool = False
    preference: int = 5180


class PolicyConfig(NamedTuple):
    """``[policy.NAME]``: which domains, by which resolver, into which set, with which mark, table and interface."""

    name: str = "gfwlist"
    format: Literal["autoproxy", "domains", "hosts", "dnsmasq"] = "autoproxy"
    sources: tuple[str, ...] = MIRRORS
    allow: tuple[str, ...] = ("/etc/gfwtools/allow.txt",)
    deny: tuple[str, ...] = ("/etc/gfwtools/deny.txt",)
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
    """Every file that the tool reads or writes, below ``root`` (as DESTDIR does)."""

    root: Path = Path("/")

    def at(self, path: str | Path) -> Path:
        """``path``, an absolute path on the host, below the root."""
        return self.root / str(path).lstrip("/")

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

    def direct(self, policy: str) -> Path:
        """Beside :meth:`domains`: what is direct again below a tunnelled domain."""
        return self.state_dir / f"{policy}.direct"

    def own_list(self, entry: str) -> Path:
        """Where an entry of ``allow`` or ``deny`` is on disk: the file itself, or the last good copy of a URL."""
        if not is_url(entry):
            return self.at(entry)
        from hashlib import sha256

        return self.state_dir / f"own-{sha256(entry.encode()).hexdigest()[:16]}.list"

    def ipset(self, policy: str) -> Path:
        """The seed of a policy, for ``ipset restore``."""
        return self.state_dir / f"{policy}.ipset"

    def servers(self, policy: str) -> Path:
        """The domains of a policy for the main dnsmasq in the split layout; it reads them again on SIGHUP."""
        return self.etc / "dns" / f"{policy}.servers"

    def second(self, policy: str) -> Path:
        """The configuration of the second dnsmasq of the split layout."""
        return self.etc / "dns" / f"{policy}.conf"

    def second_pid(self, policy: str) -> Path:
        return self.at(f"/run/gfwtools/dns-{policy}.pid")

    def nft(self, policy: str) -> Path:
        """The seed of a policy, for ``nft -f``."""
        return self.state_dir / f"{policy}.nft"

    def warm(self, policy: str) -> Path:
        """What the last warm-up was answered: ``{"name": ["address", ...]}``, of names without an address none."""
        return self.state_dir / f"{policy}.warm.json"


def is_url(entry: str) -> bool:
    """Whether an entry of ``allow`` or ``deny`` is fetched, and no file of this host."""
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

    def dnsmasq_conf(self, policy: PolicyConfig) -> Path:
        """The file that ``update`` writes for dnsmasq."""
        return self.paths.at(self.dns.conf_dir) / f"{policy.name}.conf"


class _Bad(Exception):
    """What was expected in place of a value; :func:`loads` puts the file and the key before it."""


def load(path: Path, root: Path = Path("/"), *, required: bool = False) -> Config:
    """Read the configuration at ``path``; where there is none, and it is not ``required``, the defaults.

    :raises ConfigError: the file cannot be read or says something that cannot be meant.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or status.st_rdev == NULL):
            # A pipe would keep us waiting; open() tells of a folder.
            raise ConfigError(f"{path}: no regular file; give the file itself")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file; `gfwtools bootstrap` writes one") from None
        return Config(root=root)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    return loads(text, str(path), root)


def loads(text: str, name: str = "config.toml", root: Path = Path("/")) -> Config:
    """Read a configuration from ``text``; ``name`` is what errors call the file.

    :raises ConfigError: with ``NAME: KEY: what is wrong; what to give`` in one line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{name}: larger than {MAX_BYTES} bytes; no configuration is, and lists have files of their own"
        )
    import tomllib  # 2 ms that a host without a configuration does not need

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError that is no TOMLDecodeError: a number of 5,000 digits
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{name}: not TOML: {reason or 'nested too deeply'}") from None
    sections: dict[str, Any] = {"fetch": Fetch(), "dns": Dns(), "host": Host()}
    policies: list[PolicyConfig] = []
    for key, value in document.items():
        if key == "policy":
            for policy_name, table in _table(value, name, key).items():
                where = f"policy.{_key(policy_name)}"
                if not re.fullmatch(_POLICY_NAME, policy_name):
                    raise ConfigError(
                        f"{name}: {where}: {_show(policy_name)} is no name for a policy; "
                        "give small letters, digits, - and _, 31 at most"
                    )
                index = sum(policy.name != _FIRST for policy in policies) + (_FIRST in value)
                policies.append(_fill(_new_policy(policy_name, index), _table(table, name, where), name, where))
        elif key in sections:
            sections[key] = _fill(sections[key], _table(value, name, key), name, key)
        else:
            raise ConfigError(f"{name}: {_key(key)}: unknown key; expected {_names([*sections, 'policy'])}")
    config = Config(**sections, policies=tuple(policies) or (PolicyConfig(),), root=root)
    _check_together(config, name)
    return config


def _new_policy(name: str, index: int) -> PolicyConfig:
    """The defaults of the policy called ``name``; further ones differ from the first in all that must differ."""
    first = PolicyConfig()
    if name == _FIRST:
        return first
    set_name = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:23]
    return first._replace(name=name, set=set_name, mark=first.mark + index, table=first.table + index)


def _check_together(config: Config, name: str) -> None:
    """What one key alone cannot tell: the policies among themselves, and a manager with its command."""
    if config.dns.manager == "command" and not config.dns.restart:
        raise ConfigError(
            f'{name}: dns.restart: needed with manager = "command"; '
            'give the command as a list, ["service", "dnsmasq", "restart"]'
        )
    if config.fetch.connect_timeout > config.fetch.timeout:
        raise ConfigError(
            f"{name}: fetch.connect_timeout: {config.fetch.connect_timeout:g} is more than "
            f"fetch.timeout, {config.fetch.timeout:g}; give less"
        )
    for key in ("mark", "table", "set"):
        seen: dict[object, str] = {}
        for policy in config.policies:
            value = getattr(policy, key)
            other = seen.setdefault(value, policy.name)
            if other != policy.name:
                shown = hex(value) if key == "mark" else value
                raise ConfigError(
                    f"{name}: policy.{policy.name}.{key}: {shown} is policy.{other}'s; "
                    f"give each policy a {key} of its own"
                )
    names: dict[str, str] = {}
    for policy in config.policies:
        kinds = (policy.set, f"{policy.set}_seed", policy.direct_set)
        # nftables has each kind for both families, ipset two of the names without one.
        for derived in (policy.set, policy.direct_set, *(f"{kind}{family}" for kind in kinds for family in (4, 6))):
            other = names.setdefault(derived, policy.name)
            if other != policy.name:
                raise ConfigError(
                    f"{name}: policy.{policy.name}.set: {derived} is a set of policy.{other} as well; "
                    "give names that do not end in 4, 6, _seed or _direct"
                )


def _table(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: {where}: expected a table, [{where}]")
    return value


def _fill(default: Any, table: Mapping[str, Any], name: str, where: str) -> Any:
    """``default`` with the keys of ``table`` in place, each through its check."""
    checks = _CHECKS[type(default)]
    changes = {}
    for key, value in table.items():
        if key not in checks:
            raise ConfigError(f"{name}: {where}.{_key(key)}: unknown key; expected {_names(checks)}")
        try:
            changes[key] = checks[key](value)
        except _Bad as bad:
            raise ConfigError(f"{name}: {where}.{key}: {bad}") from None
    return default._replace(**changes)


def _names(names: Sequence[str] | Mapping[str, object]) -> str:
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last


def _key(key: str) -> str:
    """A key as it stands in the file, where it can be printed."""
    return key if len(key) <= 60 and key.isprintable() else _show(key)


def _show(value: object) -> str:
    from gfwtools.userinfo import masked

    # A list is one where none was expected; it is not looked into.
    text = repr(masked(value)) if isinstance(value, str) else re.sub(r"://.*@", "://***@", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


# ---------------------------------------------------------------- one check a kind of value

Check = Callable[[object], Any]


def _number(low: float, high: float, unit: str) -> Check:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _Bad(f"{_show(value)} is not {unit}; give {low:g} to {high:g}")
        return float(value)

    return check


def _integer(low: int, high: int, what: str) -> Check:
    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Bad(f"{_show(value)} is not {what}; give {low} to {high}")
        return value

    return check


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Bad(f"{_show(value)} is neither true nor false")
    return value


def _choice(*choices: str) -> Check:
    def check(value: object) -> str:
        if value not in choices:
            raise _Bad(f"{_show(value)} is not known; give {_names(choices)}")
        return str(value)

    return check


def _text(value: object) -> str:
    if not isinstance(value, str) or _has_control(value):
        raise _Bad(f"{_show(value)} is not a text of one line")
    return value


def _climbs(path: str) -> bool:
    return ".." in path.split("/")


# C0 and C1 controls, the separators that end a line for some terminals and readers of logs, and what turns the
# direction of a line, so that a message would show another path than the one it is about (UAX 9).
_CONTROL = (  # compiled where there is a configuration
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def _has_control(text: str) -> bool:
    return re.search(_CONTROL, text) is not None


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or _has_control(value) or "," in value or _climbs(value):
        raise _Bad(f"{_show(value)} is not a path; give one that begins with /")
    return value


def _dnsmasq_path(value: object) -> str:
    """A path that stands in a configuration of dnsmasq, which has quotation marks and comments of its own."""
    if isinstance(value, str) and (not value.isprintable() or re.search(r"[\"\\]|\s#|\s$", value)):
        raise _Bad(f"{_show(value)} means something else to dnsmasq; give a path without quotation marks, \\ and ' #'")
    return _path(value)


def _conf_dir(value: object) -> str:
    """The folder that the host's dnsmasq reads: what is in ours is for other readers."""
    path = _dnsmasq_path(value)
    if re.match(r"/+(?:etc|var/+lib)/+gfwtools(?:/|$)", re.sub(r"/(?:\.?/)+", "/", path)):
        raise _Bad(f"{_show(path)} is a folder of gfwtools' own; give the one that dnsmasq reads")
    return path


def _list_of(check: Check, what: str, *, least: int = 0) -> Check:
    def check_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _Bad(f"{_show(value)} is not a list; give {what}")
        if len(value) < least:
            raise _Bad(f"the list is empty; give {what}")
        return tuple(check(item) for item in value)

    return check_list


def _matching(pattern: str, what: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or value in (".", ".."):
            raise _Bad(f"{_show(value)} is {what}")
        return value

    return check


def _source(value: object) -> str:
    text = _text(value)
    if text.startswith(("http://", "https://", "file:", "/")) and not any(c.isspace() for c in text.rstrip()):
        return text.strip()
    raise _Bad(f"{_show(value)} is no source; give an http(s) URL, a file: URL or a path that begins with /")


def _own_list(value: object) -> str:
    return _source(value) if isinstance(value, str) and is_url(value) else _path(value)


def parse_proxy(text: str) -> str:
    """A proxy, ``http://HOST:PORT`` or ``socks5://HOST:PORT``, as httpx takes it; a name and a password may be in it.

    :raises ValueError: with what was expected, and without the password.
    """
    host = r"\[([0-9A-Fa-f:.]+)\]|[^\s/?#@:\[\]]+"
    found = re.fullmatch(rf"(?:https?|socks5h?)://(?:[^\s/?#]*@)?(?:{host})(?::(\d{{1,5}}))?/?", text)
    try:
        good = (
            found and (found[1] is None or ip_address(found[1])) and (found[2] is None or 1 <= int(found[2]) <= 65535)
        )
    except ValueError:  # no address in the brackets
        good = False
    if not good:
        from gfwtools.userinfo import masked_proxy

        raise ValueError(f"{_show(masked_proxy(text))} is no proxy; give http://HOST:PORT or socks5://HOST:PORT")
    return text


def _proxy(value: object) -> str:
    text = _text(value)
    try:
        return text and parse_proxy(text)
    except ValueError as error:
        raise _Bad(str(error)) from None


def parse_upstream(text: str) -> Upstream:
    """``ADDRESS``, ``ADDRESS#PORT`` (dnsmasq's way to write it).

    :raises ValueError: with what was expected.
    """
    address, hash_sign, port = text.partition("#")
    try:
        parsed = _plain_address(address)
    except ValueError:
        raise ValueError(f"{_show(text)} is no resolver; give ADDRESS or ADDRESS#PORT, such as 8.8.8.8#53") from None
    if hash_sign and not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{_show(text)} has a bad port; give 1 to 65535, such as {address}#53")
    return Upstream(parsed, int(port) if hash_sign else 53)


def _plain_address(text: str) -> Address:
    """An address without a scope: Python takes any text at all behind a ``%``.

    :raises ValueError: it is none.
    """
    if "%" in text:
        raise ValueError(text)
    return ip_address(text)


def _upstream(value: object) -> Upstream:
    try:
        return parse_upstream(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise _Bad(str(error)) from None


def parse_interface(text: str) -> str:
    """The name of an interface, as the kernel and dnsmasq take it.

    :raises ValueError: with what was expected.
    """
    if not re.fullmatch(_INTERFACE, text) or text in (".", ".."):
        raise ValueError(f"{_show(text)} is no name for an interface; give letters, digits, . _ -, 15 at most")
    return text


def _interface(value: object) -> str:
    try:
        return parse_interface(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise _Bad(str(error)) from None


def _address(value: object) -> Address:
    try:
        return _plain_address(value if isinstance(value, str) else repr(value))
    except ValueError:
        raise _Bad(f"{_show(value)} is no address; give one such as 192.168.1.1") from None


def _network(value: object) -> Network:
    try:
        text = value if isinstance(value, str) else repr(value)
        _plain_address(text.partition("/")[0])
        network = ip_network(text)
    except ValueError as error:
        hint = "its host bits are set" if "host bits" in str(error) else "no address or network"
        raise _Bad(f"{_show(value)}: {hint}; give one such as 91.108.4.0/22") from None
    if not network.prefixlen:
        raise _Bad(f"{_show(value)} is the whole Internet; give something smaller")
    return network


def _table_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in RESERVED_TABLES:
        raise _Bad(f"{value} is the kernel's own table {RESERVED_TABLES[value]}; give another, such as 51820")
    return int(_integer(1, 2**32 - 1, "a routing table")(value))


def _nat(value: object) -> str:
    if isinstance(value, str) and value in ("masquerade", "none"):
        return value
    if isinstance(value, str) and value.startswith("snat:"):
        return f"snat:{_address(value[5:])}"
    raise _Bad(f'{_show(value)} is not known; give "masquerade", "snat:ADDRESS" or "none"')


_CHECKS: dict[type[Fetch | Dns | Host | PolicyConfig], dict[str, Check]] = {
    Fetch: {
        "timeout": _number(0.1, 3600, "a time in seconds"),
        "connect_timeout": _number(0.1, 3600, "a time in seconds"),
        "hedge": _number(0, 3600, "a time in seconds"),
        "max_bytes": _integer(1024, 2**40, "a size in bytes"),
        "proxy": _proxy,
        "min_share": _number(0, 1, "a share"),
    },
    Dns: {
        "layout": _choice("paired", "split"),
        "conf_dir": _conf_dir,
        "manager": _choice("auto", "systemd", "openrc", "command", "none"),
        "restart": _list_of(_text, 'the command as a list, ["service", "dnsmasq", "restart"]'),
        "pid_file": _dnsmasq_path,
        "resolvers": _list_of(_upstream, 'resolvers, ["192.168.1.1"]'),
        "listen": _list_of(_address, 'addresses, ["192.168.1.1"]'),
        "canary": _boolean,
        "dnssec": _boolean,
        "addn_hosts": _list_of(_dnsmasq_path, 'files, ["/etc/hosts.lan"]'),
        "warm": _boolean,
    },
    Host: {
        "backend": _choice("auto", "iptables", "nftables"),
        "gateway": _boolean,
        # Rule 0 is the kernel's lookup of local, 32766 its lookup of main.
        "preference": _integer(1, 32000, "a preference"),
    },
    PolicyConfig: {
        "format": _choice("autoproxy", "domains", "hosts", "dnsmasq"),
        "sources": _list_of(_source, "URLs or paths", least=1),
        "allow": _list_of(_own_list, 'files and URLs, ["/etc/gfwtools/allow.txt"]'),
        "deny": _list_of(_own_list, 'files and URLs, ["/etc/gfwtools/deny.txt"]'),
        "granularity": _choice("registrable", "host"),
        "upstream": _list_of(_upstream, 'resolvers, ["8.8.8.8#53"]', least=1),
        "set": _matching(_SET_NAME, "no name for a set; give letters, digits, _ and -, 23 at most"),
        "mark": _integer(1, 2**32 - 1, "a mark"),
        "table": _table_number,
        "interface": _interface,
        "nat": _nat,
        "seeds": _list_of(_network, 'addresses and networks, ["91.108.4.0/22"]'),
        "routes": _list_of(_network, 'networks, ["192.168.58.0/24"]'),
    },
}

# A key that is a field but has no check, or the other way round, is a mistake in this file.
for _type, _keys in _CHECKS.items():
    _expected = set(_type._fields) - {"name"}
    if _expected != set(_keys):
        raise AssertionError(f"{_type.__name__}: {_expected ^ set(_keys)}")
