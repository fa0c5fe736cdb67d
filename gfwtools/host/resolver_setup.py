"""dnsmasq as the resolver of the host: its own set-up, /etc/resolv.conf, and whoever else would write that file.

:func:`observe` reads, :func:`edits` and :func:`steps` decide. What of a file is ours stands between two comments, or
is the whole file: so that a second run comes to the same content as the first one, and finds nothing to do.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any

from gfwtools.config.model import Address, Config, Paths, Upstream
from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.conf import MAIN_CONF
from gfwtools.host import files
from gfwtools.host.files import FileEdit
from gfwtools.storage import atomic
from gfwtools.system.commands import Command, Runner
from gfwtools.system.step import Step

__all__ = [
    "SNIPPET",
    "Holder",
    "ResolverFacts",
    "edits",
    "holders",
    "leave_steps",
    "nameservers_instead",
    "observe",
    "places",
    "steps",
]

#: Before the files of the policies, and before whatever else lies in the folder.
SNIPPET = "00-gfwtools.conf"
CANARY = "use-application-dns.net"
#: dnsmasq's own default is 150 names, which a browser fills with a few pages.
CACHE_SIZE = 4096
#: The root's key-signing keys of 2017 and 2024 (IANA, root-anchors.xml); dnsmasq 2.90 ships only the first.
ROOT_KEYS = (
    ".,20326,8,2,E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ".,38696,8,2,683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
)

_RESOLV_CONF = "/etc/resolv.conf"
_RESOLVED = "/run/systemd/resolve"
_LOOPBACK: tuple[Address, ...] = (ip_address("127.0.0.1"), ip_address("::1"))
_HEADER = "# Written by gfwtools bootstrap; gfwtools teardown puts back what was here before.\n"
_BEGIN, _END = "# gfwtools begin", "# gfwtools end"
_BLOCK = re.compile(rf"^{_BEGIN}.*?^{_END}\n", re.MULTILINE | re.DOTALL)
#: Where the ISP's resolvers are found, after resolv.conf itself; the first one that names some counts.
_SERVER_FILES = (f"{_RESOLVED}/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf", "/run/dnsmasq/resolv.conf")
#: Where DHCP clients leave what they were told: dhclient, systemd-networkd.
_LEASES = ("var/lib/dhcp/*.leases", "var/lib/NetworkManager/*.lease", "run/systemd/netif/leases/*")
#: Where distributions put dnsmasq's file with the root's keys.
_ANCHOR_FILES = ("/usr/share/dnsmasq-base/trust-anchors.conf", "/usr/share/dnsmasq/trust-anchors.conf")
#: Directives by which dnsmasq serves other hosts; without an interface named it does so on all of them.
_SERVES_OTHERS = frozenset({"dhcp-range", "except-interface", "local-service", "enable-tftp", "auth-server"})


# ---------------------------------------------------------------- who else writes resolv.conf


@dataclass(frozen=True, slots=True)
class _Manager:
    """A program that writes /etc/resolv.conf, and how it is told not to."""

    name: str
    path: str
    change: Callable[[str], str]
    """The file's content without ours -> as it shall be; the same where it says so already."""
    reload: tuple[str, ...] = ()
    why: str = "leaves /etc/resolv.conf alone"


def _block(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (f"{_BEGIN} (gfwtools teardown removes it)", *lines, _END))


def _without_ours(text: str) -> str:
    return "" if text.startswith(_HEADER) else _BLOCK.sub("", text)


def _append(*lines: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{_block(lines)}"

    return change


def _whole(text: str) -> Callable[[str], str]:
    return lambda _: _HEADER + text


def _dhcpcd(text: str) -> str:
    # What stands after an `interface`, `ssid` or `profile` line is for that one only (dhcpcd.conf(5)): ours goes first.
    general = re.split(r"^[ \t]*(?:interface|ssid|profile)\b", text, maxsplit=1, flags=re.MULTILINE)[0]
    hooks = re.findall(r"^[ \t]*nohook[ \t]+([^#\n]*)", general, re.MULTILINE)
    if "resolv.conf" in re.split(r"[,\s]+", ",".join(hooks)):
        return text
    return _block(["nohook resolv.conf"]) + text


def _openresolv(text: str) -> str:
    # The file is read by a shell: the last assignment counts.
    values = re.findall(r"^[ \t]*resolvconf=[\"']?(\w+)", text, re.MULTILINE)
    if values and values[-1].lower() in ("no", "false", "0", "off"):
        return text
    return _append("resolvconf=NO")(text)


_MANAGERS = (
    _Manager(
        "systemd-resolved",
        "/etc/systemd/resolved.conf.d/90-gfwtools.conf",
        # Programs that ask it over D-Bus or nss-resolve must come to dnsmasq as well, and a set is filled only by an
        # answer that dnsmasq gives: hence the routing domain, and no cache (resolved.conf(5)).
        _whole("[Resolve]\nDNSStubListener=no\nDNS=127.0.0.1\nDomains=~.\nCache=no\n"),
        ("systemctl", "try-restart", "systemd-resolved.service"),
        "leaves port 53 to dnsmasq",
    ),
    _Manager(
        "NetworkManager",
        "/etc/NetworkManager/conf.d/90-gfwtools.conf",
        _whole("[main]\ndns=none\n"),
        ("systemctl", "try-reload-or-restart", "NetworkManager.service"),
    ),
    _Manager("dhcpcd", "/etc/dhcpcd.conf", _dhcpcd),
    _Manager("openresolv", "/etc/resolvconf.conf", _openresolv),
    # Debian's resolvconf touches /etc/resolv.conf only where that is a link to its own file; should somebody make the
    # link again, this line comes first in it, and none after it is kept (TRUNCATE_NAMESERVERS_LIST_...).
    _Manager("resolvconf", "/etc/resolvconf/resolv.conf.d/head", _append("nameserver 127.0.0.1"), ("resolvconf", "-u")),
    # Its hooks are read by the shell in alphabetical order: the last definition counts.
    _Manager(
        "dhclient",
        "/etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools",
        _whole("make_resolv_conf() { :; }\n"),
    ),
)


# ---------------------------------------------------------------- what is there


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """How the host resolves names now, and was before the first bootstrap."""

    link: str | None = None
    """Where /etc/resolv.conf leads (led, before ours was put there), if it is a symbolic link."""
    nameservers: tuple[str, ...] = ()
    """Those of /etc/resolv.conf, before ours was put there."""
    managers: tuple[str, ...] = ()
    """Who else writes /etc/resolv.conf; empty for nobody."""
    resolvers: tuple[Upstream, ...] = ()
    """The ISP's; never an address of this host."""
    found_in: str = ""
    """Where the resolvers were found."""
    reads_conf_dir: bool = False
    """dnsmasq reads ``dns.conf_dir`` without our doing."""
    directives: tuple[tuple[str, str], ...] = ()
    """Name and value of every line of dnsmasq's configuration that is not ours."""
    addresses: frozenset[Address] = frozenset()
    """Those of this host."""
    lan: tuple[Address, ...] = ()
    """Those at which the LAN reaches it."""
    anchors: str = ""
    """The distribution's file with the root's keys, if there is one."""
    pid_folder: bool = False
    """The folder of ``dns.pid_file`` is there at every boot."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """What is in the files that may have to be changed; none for a file that is not there."""
    tools: frozenset[str] = frozenset()
    """Of the tools that tell a manager to read its configuration, those that can be used here."""
    dhcpcd_pid: int | None = None

    def has(self, name: str) -> bool:
        """Is there such a directive, that is not ours?"""
        return any(directive == name for directive, _ in self.directives)

    def values(self, name: str) -> list[str]:
        return [value for directive, value in self.directives if directive == name]

    @property
    def has_upstream(self) -> bool:
        """dnsmasq has been told a resolver for any name, other than by /etc/resolv.conf."""
        files_ = {*self.values("resolv-file"), *self.values("servers-file")} - {_RESOLV_CONF}
        servers = [value for value in self.values("server") if not value.startswith("/") or value.startswith("/#/")]
        return bool(files_ or servers)


def observe(config: Config, runner: Runner) -> ResolverFacts:
    """Look at the host.

    :raises StoreError: a file is there and cannot be read.
    """
    paths = config.paths
    is_host = config.root == Path("/")
    before, link = _resolv_conf_before(paths)
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "address") or "[]")
    addresses = frozenset(address for _, address in _addresses(links))
    managers = _managers(paths, link, runner)
    resolvers, found_in = _resolvers(config, before, link, addresses)
    # What is ours aside; what else lies in the folder must not be said twice, though nothing reads it before our line.
    own = {SNIPPET, *(f"{policy.name}.conf" for policy in config.policies)}
    found = conf.read(config, skip=own, edit=_without_ours)
    edited = [MAIN_CONF, *(manager.path for manager in _MANAGERS)]
    texts = {path: text for path in edited if (text := _text(paths, path)) is not None}
    # A link of a fake root would lead out of it: it has been followed already.
    place = paths.at(_RESOLV_CONF)
    ours = "" if place.is_symlink() else _text(paths, _RESOLV_CONF) or ""
    texts[_RESOLV_CONF] = ours if ours.startswith(_HEADER) else before
    systemd = is_host and runner.has("systemctl") and paths.at("/run/systemd/system").is_dir()
    usable = {"systemctl": systemd, "resolvconf": is_host and runner.has("resolvconf")}
    return ResolverFacts(
        link=link,
        nameservers=tuple(_nameservers(before)),
        managers=managers,
        resolvers=resolvers,
        found_in=found_in,
        reads_conf_dir=found.reads_conf_dir,
        directives=found.directives,
        addresses=addresses,
        lan=_lan(config, links, runner),
        anchors=next((path for path in _ANCHOR_FILES if paths.at(path).is_file()), ""),
        pid_folder=_stays(paths, config.dns.pid_file),
        texts=texts,
        tools=frozenset(tool for tool, can in usable.items() if can),
        dhcpcd_pid=_pid(paths, "/run/dhcpcd/pid", "/run/dhcpcd.pid") if is_host else None,
    )


def _text(paths: Paths, path: str | Path) -> str | None:
    data = atomic.read(paths.at(path))
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _resolv_conf_before(paths: Paths) -> tuple[str, str | None]:
    """/etc/resolv.conf before ours, and where it led. A link is followed below the root."""
    place = paths.at(_RESOLV_CONF)
    target = os.readlink(place) if place.is_symlink() else None
    if target is None:
        text = _text(paths, _RESOLV_CONF) or ""
        original = files.recorded(paths).get(_RESOLV_CONF)
        if original is None or not text.startswith(_HEADER):
            return text, None
        if original.target is None:
            return (original.data or b"").decode("utf-8", "surrogateescape"), None
        target = original.target
    return _text(paths, os.path.normpath(target if target.startswith("/") else f"/etc/{target}")) or "", target


def _nameservers(text: str) -> list[str]:
    return re.findall(r"^[ \t]*nameserver[ \t]+(\S+)", text, re.MULTILINE)


def _addresses(links: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Address]]:
    """Name of the interface and address, but for link-local ones."""
    for link in links:
        for entry in link.get("addr_info", ()):
            if "local" in entry and entry.get("scope") != "link":
                yield str(link.get("ifname")), ip_address(entry["local"])


def _lan(config: Config, links: list[dict[str, Any]], runner: Runner) -> tuple[Address, ...]:
    """The addresses that are neither the tunnels' nor the WAN's; of a gateway with one leg, that leg's private ones."""
    tunnels = {policy.interface for policy in config.policies}
    wan = set()
    for family in ("-4", "-6"):
        for route in json.loads(runner.ask("ip", family, "-j", "route", "show", "default") or "[]"):
            wan |= {hop.get("dev") for hop in (route, *route.get("nexthops", ()))}
    usable = [(name, a) for name, a in _addresses(links) if name not in tunnels and not a.is_loopback]
    inner = [address for name, address in usable if name not in wan]
    return tuple(inner or [address for _, address in usable if address.is_private])


def _stays(paths: Paths, pid_file: str) -> bool:
    """dnsmasq does not start where the folder is missing, and /run is empty at boot but for what tmpfiles.d makes."""
    folder = PurePosixPath(pid_file).parent
    if not paths.at(str(folder)).is_dir():
        return False
    volatile = any(top in folder.parents for top in (PurePosixPath("/run"), PurePosixPath("/var/run")))
    return not volatile or paths.at("/usr/lib/tmpfiles.d/dnsmasq.conf").is_file()


def _pid(paths: Paths, *names: str) -> int | None:
    for name in names:
        text = (_text(paths, name) or "").strip()
        if text.isascii() and text.isdigit():
            return int(text)
    return None


# ---------------------------------------------------------------- managers


def _managers(paths: Paths, link: str | None, runner: Runner) -> tuple[str, ...]:
    def there(*names: str) -> bool:
        return any(paths.at(name).exists() for name in names)

    resolved = (
        (link is not None and "systemd/resolve/" in link)
        or (there(_RESOLVED) and runner.ask("systemctl", "is-active", "systemd-resolved.service") is not None)
        or any(holder.program.startswith("systemd-resolve") for holder in holders(runner))
    )
    found = {
        # Its files in /run stay when it has been stopped: they prove nothing.
        "systemd-resolved": resolved,
        "NetworkManager": there("/run/NetworkManager", "/etc/NetworkManager/NetworkManager.conf"),
        "dhcpcd": there("/etc/dhcpcd.conf"),
        "openresolv": there("/etc/resolvconf.conf"),
        "resolvconf": there("/etc/resolvconf/resolv.conf.d", "/etc/resolvconf/interface-order"),
        "dhclient": there("/etc/dhcp/dhclient.conf"),
    }
    # One that we have told is one, whatever has become of the signs by which it was found.
    ours = {manager.name for manager in _MANAGERS if _is_ours(_text(paths, manager.path))}
    return tuple(name for name, is_there in found.items() if is_there or name in ours)


def _is_ours(text: str | None) -> bool:
    return text is not None and (text.startswith(_HEADER) or _BEGIN in text)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who listens at port 53: the address, without its interface, and the program's name (15 characters at most)."""

    address: str
    program: str
    pid: int


def holders(runner: Runner, port: int = 53) -> list[Holder]:
    """Who holds a port in this network namespace (ss(8))."""
    found = []
    for line in (runner.ask("ss", "-H", "-lntup", f"sport = {port}") or "").splitlines():
        words = line.split(None, 6)
        if len(words) < 5 or not words[4].endswith(f":{port}"):
            continue
        address = words[4].removesuffix(f":{port}").partition("%")[0].strip("[]")
        users = re.findall(r'"([^"]*)",pid=(\d+)', words[6] if len(words) > 6 else "") or [("", "0")]
        found += [Holder(address, program, int(pid)) for program, pid in users]
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- the ISP's resolvers


def _resolvers(
    config: Config, before: str, link: str | None, own: frozenset[Address]
) -> tuple[tuple[Upstream, ...], str]:
    """The resolvers for what is not blocked, and where they were found."""
    if config.dns.resolvers:
        return config.dns.resolvers, "dns.resolvers"
    paths = config.paths
    sources: list[tuple[str, list[str]]] = [(_RESOLV_CONF if link is None else link, _nameservers(before))]
    sources += [(path, _nameservers(_text(paths, path) or "")) for path in _SERVER_FILES]
    sources += [(f"/{pattern}", _leased(paths, pattern)) for pattern in _LEASES]
    # Where resolv.conf is ours and nobody else knows: what was found the first time.
    ours = re.findall(r"^server=([^/#\s]+(?:#\d+)?)$", _text(paths, _snippet(config)) or "", re.MULTILINE)
    sources.append((_snippet(config), ours))
    for where, servers in sources:
        usable = dict.fromkeys(server for text in servers if (server := _usable(text, own)))
        if usable:
            return tuple(usable), where
    return (), ""


def _usable(text: str, own: frozenset[Address]) -> Upstream | None:
    """The resolver, or None for one that is this host itself.

    A link-local one is of no use either: dnsmasq does not start where the interface in its scope is not there yet.
    """
    address, _, port = text.partition("#")
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_link_local or parsed.is_multicast or parsed in own:
        return None
    return Upstream(parsed, int(port) if port.isdigit() else 53)


def _leased(paths: Paths, pattern: str) -> list[str]:
    """The resolvers of the last lease in the newest of the files."""
    found = [path for path in paths.root.glob(pattern) if path.is_file()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        text = (atomic.read(path) or b"").decode("utf-8", "replace")
        # `option domain-name-servers 192.0.2.1, 192.0.2.2;` (dhclient.leases(5)), `DNS=192.0.2.1 192.0.2.2`
        lines = re.findall(r"^\s*(?:option (?:domain-name-servers|dhcp6\.name-servers) |DNS=)([^;\n]*)", text, re.M)
        if lines:
            return re.split(r"[,\s]+", lines[-1].strip())
    return []


# ---------------------------------------------------------------- dnsmasq's configuration


def _snippet(config: Config) -> str:
    return str(PurePosixPath(config.dns.conf_dir) / SNIPPET)


# ---------------------------------------------------------------- what shall be


def edits(config: Config, facts: ResolverFacts) -> list[FileEdit]:
    """The files as they shall be; what is right already is among them, and what needs no change of ours is not."""
    found = [
        FileEdit(_snippet(config), _encode(_HEADER + "".join(_snippet_lines(config, facts))), "dnsmasq for this host")
    ]
    if not facts.reads_conf_dir:
        base = _without_ours(facts.texts.get(MAIN_CONF, ""))
        folder = config.dns.conf_dir.rstrip("/")
        text = _append(f"conf-dir={folder}/,*.conf")(base)
        found.append(FileEdit(MAIN_CONF, _encode(text), f"dnsmasq reads {config.dns.conf_dir}"))
    found += [edit for _, edit in _manager_edits(facts)]
    found.append(FileEdit(_RESOLV_CONF, _encode(_resolv_conf(facts)), "this host asks its own dnsmasq"))
    return found


def places(config: Config) -> tuple[str, ...]:
    """Every path that :func:`edits` may give."""
    return (_snippet(config), MAIN_CONF, *(manager.path for manager in _MANAGERS), _RESOLV_CONF)


def nameservers_instead(facts: ResolverFacts) -> dict[str, bytes]:
    """A resolv.conf for a host of which nobody knows any more what it had: the resolvers that dnsmasq has asked."""
    lines = [f"nameserver {server.address}\n" for server in facts.resolvers if server.port == 53]
    return {_RESOLV_CONF: "".join(lines).encode()} if lines else {}


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _resolv_conf(facts: ResolverFacts) -> str:
    text = facts.texts.get(_RESOLV_CONF, "")
    kept = re.findall(r"^[ \t]*(?:search|domain|options|sortlist)\b.*$", text, re.MULTILINE)
    return _HEADER + "".join(f"{line}\n" for line in ("nameserver 127.0.0.1", *kept))


def _manager_edits(facts: ResolverFacts) -> Iterator[tuple[_Manager, FileEdit]]:
    for manager in _MANAGERS:
        if manager.name not in facts.managers:
            continue
        base = _without_ours(facts.texts.get(manager.path, ""))
        text = manager.change(base)
        if text != base:
            yield manager, FileEdit(manager.path, _encode(text), f"{manager.name} {manager.why}")


def _snippet_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """The lines that the host's own configuration lacks.

    dnsmasq refuses cache-size, pid-file and the like when they come twice; lists such as listen-address may grow.
    """
    dns = config.dns
    yield from _listen_lines(config, facts)
    if dns.resolvers or not facts.has_upstream:
        # resolv.conf leads to dnsmasq itself now.
        if facts.resolvers and not facts.has("no-resolv"):
            yield "no-resolv\n"
        known = facts.values("server")
        yield from (f"server={_server(resolver)}\n" for resolver in facts.resolvers if _server(resolver) not in known)
    if not facts.has("cache-size"):
        yield f"cache-size={CACHE_SIZE}\n"
    if facts.pid_folder and not facts.has("pid-file"):
        yield f"pid-file={dns.pid_file}\n"
    if dns.dnssec:
        if not facts.has("dnssec"):
            yield "dnssec\n"
        if facts.anchors and facts.anchors not in facts.values("conf-file"):
            yield f"conf-file={facts.anchors}\n"
        yield from (f"trust-anchor={key}\n" for key in ROOT_KEYS)
    yield from (f"addn-hosts={path}\n" for path in dns.addn_hosts if path not in facts.values("addn-hosts"))
    answered = [value for name in ("server", "local", "address") for value in facts.values(name)]
    if dns.canary and not any(value.startswith(f"/{CANARY}/") for value in answered):
        yield "# Firefox keeps to this resolver where this name does not exist\n"
        yield f"server=/{CANARY}/\n"


def _server(resolver: Upstream) -> str:
    return str(resolver.address) if resolver.port == 53 else str(resolver)


def _listen_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """Without any dnsmasq listens everywhere, the WAN included."""
    limited = facts.has("listen-address") or facts.has("interface")
    binds = facts.has("bind-interfaces")
    if limited or not any(facts.has(name) for name in _SERVES_OTHERS):
        there = {part.strip() for value in facts.values("listen-address") for part in value.split(",")}
        lan = (config.dns.listen or facts.lan) if config.host.gateway else config.dns.listen
        for address in dict.fromkeys((*_LOOPBACK, *lan)):
            # With bind-interfaces dnsmasq does not start where an address is missing.
            if str(address) not in there and not (binds and address not in facts.addresses):
                yield f"listen-address={address}\n"
    # Unlike bind-interfaces it waits for an address that is not there yet, and leaves the others to other programs;
    # both at once is an error.
    if not binds and not facts.has("bind-dynamic"):
        yield "bind-dynamic\n"


# ---------------------------------------------------------------- reloads


def steps(facts: ResolverFacts) -> list[Step]:
    """The managers that have to read a file that :func:`edits` changes; the files are in place."""
    found = []
    for manager, edit in _manager_edits(facts):
        if facts.texts.get(edit.path) != edit.data.decode("utf-8", "surrogateescape"):
            found += _reload(manager, facts.tools, facts.dhcpcd_pid, manager.why)
    return found


def leave_steps(changed: Iterable[str], runner: Runner, paths: Paths | None = None) -> list[Step]:
    """The same once the files of ``changed`` (paths on the host) have been put back."""
    paths = paths or Paths()
    if paths.root != Path("/"):
        return []
    paths_changed = set(changed)
    systemd = runner.has("systemctl") and paths.at("/run/systemd/system").is_dir()
    tools = {tool for tool, can in (("systemctl", systemd), ("resolvconf", runner.has("resolvconf"))) if can}
    pid = _pid(paths, "/run/dhcpcd/pid", "/run/dhcpcd.pid")
    return [
        step
        for manager in _MANAGERS
        if manager.path in paths_changed
        for step in _reload(manager, tools, pid, "is as it was before")
    ]


def _reload(manager: _Manager, tools: Iterable[str], dhcpcd_pid: int | None, why: str) -> list[Step]:
    argv = manager.reload
    if manager.name == "dhcpcd" and dhcpcd_pid is not None:
        argv = ("kill", "-HUP", str(dhcpcd_pid))  # `dhcpcd --rebind` would start one where none runs
    elif not argv or argv[0] not in tools:
        return []
    command = Command(argv)
    return [Step(manager.name, why, (command,), (command,))]
