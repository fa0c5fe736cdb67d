"""How the host resolves names now, and did before the first bootstrap. This module reads, and changes nothing."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any

from gfwtools.config.model import Address, Config, Paths, Upstream
from gfwtools.dnsmasq import conf, version
from gfwtools.dnsmasq.conf import MAIN_CONF, SNIPPET
from gfwtools.setup import files, isp_resolvers
from gfwtools.setup.isp_resolvers import Found, Surroundings
from gfwtools.setup.listening import OtherNetwork, listening_of
from gfwtools.setup.resolv_conf_writers import (
    WRITERS,
    Needs,
    encode,
    snippet,
    stops_openresolv,
    without_ours,
)
from gfwtools.setup.tunnel_resolvers import resolvers_of_tunnels
from gfwtools.storage import atomic
from gfwtools.system import ownership
from gfwtools.system.commands import Runner
from gfwtools.system.init import detect_init
from gfwtools.system.questions import RESOLV_CONF, holders, nameservers_in

__all__ = ["ResolverFacts", "observe", "text_of", "tools_of"]

_RESOLVED = "/run/systemd/resolve"
_RESOLVCONF_PROGRAMS = ("/sbin/resolvconf", "/usr/sbin/resolvconf", "/usr/bin/resolvconf")
#: Where distributions put dnsmasq's file with the root's keys.
_ANCHOR_FILES = ("/usr/share/dnsmasq-base/trust-anchors.conf", "/usr/share/dnsmasq/trust-anchors.conf")


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """How the host resolves names now, and did before the first bootstrap."""

    link: str | None = None
    """The target of /etc/resolv.conf before ours was put there; None where it was not a symbolic link."""
    nameservers: tuple[str, ...] = ()
    """The nameservers of /etc/resolv.conf before ours was put there."""
    managers: tuple[str, ...] = ()
    """The other programs that write /etc/resolv.conf."""
    resolvers: tuple[Upstream, ...] = ()
    """The ISP's resolvers; never an address of this host."""
    found_in: str = ""
    """Where the resolvers were found."""
    follow: str = ""
    """The file that names them also after they have changed; empty where dnsmasq cannot follow one."""
    needs: Needs = field(default_factory=Needs)
    """What the other programs must go on doing for that file."""
    reads_conf_dir: bool = False
    """dnsmasq reads ``dns.conf_dir`` without a line of ours, after its service manager has restarted it."""
    directives: tuple[tuple[str, str], ...] = ()
    """Name and value of every line of dnsmasq's configuration that is not ours."""
    addresses: frozenset[Address] = frozenset()
    """The addresses of this host."""
    lan: tuple[Address, ...] = ()
    """The addresses at which the LAN reaches this host."""
    inner: tuple[tuple[str, tuple[Address, ...]], ...] = ()
    """The interfaces that lead to the LAN alone, each with its part of ``lan``."""
    outside: tuple[str, ...] = ()
    """The interfaces that lead to the Internet or into a tunnel, and to no LAN."""
    others: tuple[OtherNetwork, ...] = ()
    """The networks of this host where another program answers names."""
    anchors: str = ""
    """The distribution's file with the root's keys, if there is one."""
    version: tuple[int, int] | None = None
    """The version of dnsmasq; None where none is installed yet."""
    pid_folder: bool = False
    """The folder of ``dns.pid_file`` is there at every boot."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Path -> content of the files that may have to be changed. A file that is missing has no entry."""
    tools: frozenset[str] = frozenset()
    """The tools that can be used here to have a manager read its configuration."""

    def has(self, name: str) -> bool:
        """Whether there is such a directive that is not ours."""
        return any(directive == name for directive, _ in self.directives)

    def values(self, name: str) -> list[str]:
        return [value for directive, value in self.directives if directive == name]

    @property
    def has_upstream(self) -> bool:
        """Whether dnsmasq has a resolver for any name from a source other than /etc/resolv.conf."""
        files_ = {*self.values("resolv-file"), *self.values("servers-file")} - {RESOLV_CONF}
        servers = [value for value in self.values("server") if not value.startswith("/") or value.startswith("/#/")]
        return bool(files_ or servers)


def observe(config: Config, runner: Runner) -> ResolverFacts:
    """Read the host.

    :raises StoreError: a file is there and cannot be read.
    """
    paths = config.paths
    before, link = _resolv_conf_before(paths)
    links: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", "address") or "[]")
    here = tuple(addresses_of(links))
    addresses = frozenset(address for _, address in here)
    listening = listening_of(config, here, runner)
    managers = _managers(paths, link, runner)
    # What is ours aside; what else lies in the folder must not be said twice, though nothing reads it before our line.
    own = {SNIPPET, *(f"{policy.name}.conf" for policy in config.policies)}
    found = conf.read(config, skip=own, edit=without_ours, anew=True)
    edited = [MAIN_CONF, *(manager.path for manager in WRITERS)]
    texts = {path: text for path in edited if (text := text_of(paths, path)) is not None}
    # A link of a fake root would lead out of it: it has been followed already.
    place = paths.at(RESOLV_CONF)
    ours = "" if place.is_symlink() else text_of(paths, RESOLV_CONF) or ""
    is_ours = ownership.is_file(encode(ours))
    texts[RESOLV_CONF] = ours if is_ours else before
    brought = resolvers_of_tunnels(config, links, runner)
    of_tunnels = frozenset().union(*brought.values())
    around = _surroundings(config, runner, before, link, managers, addresses, of_tunnels, is_ours=is_ours)
    isp = isp_resolvers.find(config, around)
    if not _can_follow(config, found.directives, isp):
        isp = replace(isp, follow="")
    facts = ResolverFacts(
        link=link,
        nameservers=tuple(nameservers_in(before)),
        managers=managers,
        resolvers=isp.resolvers,
        found_in=isp.source,
        follow=isp.follow,
        needs=Needs(
            copy=isp.follow if isp.by_hook else "", collected=_collects(paths, managers), left_out=tuple(brought)
        ),
        reads_conf_dir=found.reads_conf_dir,
        directives=found.directives,
        addresses=addresses,
        lan=listening.addresses,
        inner=listening.interfaces,
        outside=listening.outer,
        others=listening.others,
        anchors=next((path for path in _ANCHOR_FILES if paths.at(path).is_file()), ""),
        version=version.version_of(runner),
        pid_folder=_stays(paths, config.dns.pid_file),
        texts=texts,
        tools=tools_of(paths, runner),
    )
    if facts.has_upstream and not config.dns.resolvers:
        # The user's own lines name the resolvers, and dnsmasq reads no file of ours.
        return replace(facts, follow="", needs=replace(facts.needs, copy=""))
    return facts


def tools_of(paths: Paths, runner: Runner) -> frozenset[str]:
    """The tools that can be used here to have a manager read its configuration; none below another root."""
    if paths.root != Path("/"):
        return frozenset()
    can = {"systemctl": _has_systemd(paths, runner), "resolvconf": runner.has("resolvconf")}
    return frozenset(tool for tool, is_usable in can.items() if is_usable)


def text_of(paths: Paths, path: str | Path) -> str | None:
    data = atomic.read(paths.follow(paths.at(path)))
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _has_ours(paths: Paths, path: str) -> bool:
    data = atomic.read(paths.follow(paths.at(path))) or b""
    return ownership.is_file(data) or ownership.with_lines(data)


def _resolv_conf_before(paths: Paths) -> tuple[str, str | None]:
    """/etc/resolv.conf before ours, and where it led. A link is followed below the root."""
    place = paths.at(RESOLV_CONF)
    target = os.readlink(place) if place.is_symlink() else None
    if target is None:
        text = text_of(paths, RESOLV_CONF) or ""
        entry = files.recorded(paths).get(RESOLV_CONF)
        if entry is None or not ownership.is_file(encode(text)):
            return text, None
        original = files.original_of(entry)
        if original.target is None:
            return (files.content_of(paths, original) or b"").decode("utf-8", "surrogateescape"), None
        target = original.target
    return text_of(paths, os.path.normpath(target if target.startswith("/") else f"/etc/{target}")) or "", target


def addresses_of(links: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Address]]:
    """Name of the interface and address, but for link-local ones."""
    for link in links:
        for entry in link.get("addr_info", ()):
            if "local" in entry and entry.get("scope") != "link":
                yield str(link.get("ifname")), ip_address(entry["local"])


def _stays(paths: Paths, pid_file: str) -> bool:
    """dnsmasq does not start where the folder is missing, and /run is empty at boot but for what tmpfiles.d makes."""
    folder = PurePosixPath(pid_file).parent
    if not paths.at(str(folder)).is_dir():
        return False
    volatile = any(top in folder.parents for top in (PurePosixPath("/run"), PurePosixPath("/var/run")))
    return not volatile or paths.at("/usr/lib/tmpfiles.d/dnsmasq.conf").is_file()


def _has_nohook(text: str) -> bool:
    """Whether dhcpcd leaves /etc/resolv.conf alone by its own configuration."""
    # What stands after an `interface`, `ssid` or `profile` line is for that one only (dhcpcd.conf(5)).
    general = re.split(r"^[ \t]*(?:interface|ssid|profile)\b", text, maxsplit=1, flags=re.MULTILINE)[0]
    hooks = re.findall(r"^[ \t]*nohook[ \t]+([^#\n]*)", general, re.MULTILINE)
    return "resolv.conf" in re.split(r"[,\s]+", ",".join(hooks))


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
        "dhcpcd": there("/etc/dhcpcd.conf") and not _has_nohook(text_of(paths, "/etc/dhcpcd.conf") or ""),
        "openresolv": there("/etc/resolvconf.conf")
        and not stops_openresolv(without_ours(text_of(paths, "/etc/resolvconf.conf") or ""), "resolvconf"),
        "resolvconf": there("/etc/resolvconf/resolv.conf.d", "/etc/resolvconf/interface-order"),
        "dhclient": there("/etc/dhcp/dhclient.conf"),
    }
    # A manager with a setting of ours counts, also where the signs by which it was found have gone.
    ours = {manager.name for manager in WRITERS if _has_ours(paths, manager.path)}
    return tuple(name for name, is_there in found.items() if is_there or name in ours)


# ---------------------------------------------------------------- the ISP's resolvers


def _surroundings(
    config: Config,
    runner: Runner,
    before: str,
    link: str | None,
    managers: tuple[str, ...],
    own: frozenset[Address],
    of_tunnels: frozenset[Address],
    *,
    is_ours: bool,
) -> Surroundings:
    paths = config.paths
    maintained, promised, leaves_out = [], "", []
    if set_by_script := conf.service_resolv_file(config):
        maintained.append(set_by_script)
    if _collects(paths, managers):
        where = _written_by_openresolv(paths) if "openresolv" in managers else isp_resolvers.RESOLVCONF
        maintained.append(where)
        leaves_out.append(where)
        if "openresolv" in managers and "resolvconf" in before.partition("\n")[0]:
            promised = where
    if "systemd-resolved" in managers:
        maintained.append(isp_resolvers.RESOLVED)
    if "NetworkManager" in managers and _is_running(paths, runner, "NetworkManager.service"):
        maintained.append(isp_resolvers.NETWORK_MANAGER)
    text = text_of(paths, snippet(config)) or ""
    return Surroundings(
        resolv_conf=before,
        link=link,
        is_ours=is_ours,
        maintained=tuple(dict.fromkeys(maintained)),
        promised=promised,
        hooked="dhcpcd" in managers and re.search(r"^# .*dhcpcd", before, re.MULTILINE) is not None,
        setting=isp_resolvers.followed_by(text),
        noted=tuple(isp_resolvers.noted_in(text)),
        own=own,
        of_tunnels=of_tunnels,
        leaves_out=tuple(leaves_out),
    )


def _can_follow(config: Config, directives: tuple[tuple[str, str], ...], isp: Found) -> bool:
    """dnsmasq reads of all its resolv-files the one that was changed last, and with ``no-resolv`` none."""
    if ("no-resolv", "") in directives or ("resolv-file", RESOLV_CONF) in directives:
        return False
    other = conf.service_resolv_file(config)
    return not other or other == isp.follow or not config.paths.at(other).exists()


def _collects(paths: Paths, managers: tuple[str, ...]) -> bool:
    """Whether resolvconf collects the resolvers; systemd-resolved has a program of that name that does not."""
    if not {"resolvconf", "openresolv"} & set(managers):
        return False
    there = [paths.at(path) for path in _RESOLVCONF_PROGRAMS if paths.at(path).exists()]
    return bool(there) and not any("resolvectl" in str(path.resolve()) for path in there)


def _written_by_openresolv(paths: Paths) -> str:
    values = re.findall(r"^[ \t]*dnsmasq_resolv=[\"']?([^\s\"']+)", text_of(paths, "/etc/resolvconf.conf") or "", re.M)
    return values[-1].replace("/var/run/", "/run/") if values else isp_resolvers.RESOLVCONF


def _is_running(paths: Paths, runner: Runner, unit: str) -> bool:
    """Whether a service runs; its files in /run stay when it has been stopped. True where systemd does not run."""
    return not _has_systemd(paths, runner) or runner.ask("systemctl", "is-active", unit) is not None


def _has_systemd(paths: Paths, runner: Runner) -> bool:
    return detect_init(paths.root) == "systemd" and runner.has("systemctl")
