"""The usual resolvers: those that dnsmasq asks for every name that no ``server=/DOMAIN/`` line sends elsewhere."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from gfwtools.config.model import Config, Upstream
from gfwtools.dnsmasq import conf
from gfwtools.dnsmasq.conf import MAIN_CONF, SNIPPET
from gfwtools.storage import atomic
from gfwtools.system.questions import RESOLV_CONF, nameservers_in

__all__ = ["Usual", "files_followed", "usual_resolvers"]


@dataclass(frozen=True, slots=True)
class Usual:
    """A resolver, and the file that names it."""

    resolver: Upstream
    path: str

    def __str__(self) -> str:
        return f"{self.resolver} ({self.path})"


def usual_resolvers(config: Config) -> list[Usual] | None:
    """The resolvers, by the configuration that dnsmasq reads; none where it has none.

    :returns: None where they cannot be known: a ``servers-file`` of the user's may name others.
    :raises StoreError: a file is there and cannot be read.
    """
    read = _read(config)
    if any(name == "servers-file" for name, _ in read.directives):
        return None
    found = [Usual(server, _path_of(config, value)) for value in _servers(read) if (server := _server(value))]
    for path in _followed(config, read)[:1]:
        text = (atomic.read(config.paths.follow(config.paths.at(path))) or b"").decode("utf-8", "replace")
        found += [Usual(server, path) for name in nameservers_in(text) if (server := _server(name))]
    return list({str(usual.resolver): usual for usual in reversed(found)}.values())[::-1]


def files_followed(config: Config) -> list[str]:
    """The files of ``resolv-file``, the one that dnsmasq reads now first: it is the one that was changed last."""
    return _followed(config, _read(config))


def _read(config: Config) -> conf.DnsmasqConf:
    own = {f"{policy.name}.conf" for policy in config.policies}
    return conf.read(config, skip=own)


def _followed(config: Config, read: conf.DnsmasqConf) -> list[str]:
    if any(name == "no-resolv" for name, _ in read.directives):
        return []
    named = [value for name, value in read.directives if name == "resolv-file"]
    files = list(dict.fromkeys([*conf.start_resolv_files(config), *named])) or [RESOLV_CONF]

    def changed(path: str) -> float:
        place = config.paths.at(path)
        return place.stat().st_mtime if place.is_file() else 0.0

    return sorted(files, key=changed, reverse=True)


def _servers(read: conf.DnsmasqConf) -> Iterator[str]:
    for name, value in read.directives:
        if name in ("server", "local") and not value.startswith("/"):
            yield value
        elif name == "server" and value.startswith("/#/"):
            yield value.removeprefix("/#/")


def _server(value: str) -> Upstream | None:
    """``ADDRESS[#PORT][@INTERFACE|@SOURCE]``; None for this host itself, which dnsmasq leaves out."""
    address, _, port = value.partition("@")[0].partition("#")
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if (parsed.is_loopback or parsed.is_unspecified) and port in ("", "53"):
        return None
    return Upstream(parsed, int(port) if port.isdigit() else 53)


def _path_of(config: Config, value: str) -> str:
    """The file with that ``server=`` line; the main file where it is said in a way that is not searched for."""
    folder = config.paths.at(config.dns.conf_dir)
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    line = re.compile(rf"^\s*server\s*=\s*(?:/#/)?{re.escape(value)}\s*(?:#.*)?$", re.MULTILINE)
    for place in [config.paths.at(MAIN_CONF), folder / SNIPPET, *names]:
        if place.is_file() and line.search((atomic.read(config.paths.follow(place)) or b"").decode("utf-8", "replace")):
            return os.path.join("/", Path(place).relative_to(config.root))
    return conf.main_file(config)
