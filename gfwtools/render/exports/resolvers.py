"""Other resolvers: which of their upstreams answers for which names, and which of them fill sets."""

from collections.abc import Iterable

from gfwtools.config.model import Upstream
from gfwtools.render.exports.values import Layer, Meaning, Said
from gfwtools.render.header import header

__all__ = ["adguardhome", "adguardhome_ipset", "smartdns", "unbound"]


def unbound(meaning: Meaning) -> Said:
    """A forward zone for each domain; the longest one decides (unbound.conf(5)). An exception needs the resolvers for
    what is direct, ``dns.resolvers``. Debian's unbound fills no set."""
    lines = [_zone(name, meaning.policy.upstream) for name in meaning.cover.tunnelled]
    whole = [name for name in meaning.cover.freed if not name.startswith("*.")]
    if meaning.usual:
        lines += [_zone(name, meaning.usual) for name in whole]
    lost = [name for name in meaning.cover.freed if name.startswith("*.") or not meaning.usual]
    return Said(_text("forward zones", meaning, lines), (*lost, *map(str, meaning.networks)))


def adguardhome(meaning: Meaning) -> Said:
    """``[/name/]ADDRESS``, and ``[/name/]#`` for the usual upstreams; ``*.name`` is what is under it alone (AdGuard
    Home's wiki, "Specifying upstreams for domains")."""
    servers = " ".join(_port(address) for address in meaning.policy.upstream)
    lines = [f"[/{name}/]{servers}" for name in meaning.cover.tunnelled]
    lines += [f"[/{name}/]#" for name in meaning.cover.freed]
    return Said(_text("upstreams", meaning, lines), tuple(map(str, meaning.networks)))


def adguardhome_ipset(meaning: Meaning) -> Said:
    """``name/SET4,SET6``. The file knows no exception."""
    lines = [f"{name}/{meaning.sets}" for name in meaning.cover.tunnelled]
    return Said(_text("sets", meaning, lines), (*meaning.cover.freed, *map(str, meaning.networks)))


def smartdns(meaning: Meaning) -> Said:
    """A group of upstreams, and two lines a domain. ``-`` takes an exception out of the group and of the sets, with all
    that is under it: smartdns 40 goes by it for longer domains as well. It cannot say what is freed under a name alone.
    """
    policy = meaning.policy
    four, six = meaning.sets.split(",")
    blocked, freed, *deeper = [*meaning.layers, Layer([], []), Layer([], [])]
    lines = [f"server {_port(server)} -group {policy.name} -exclude-default-group" for server in policy.upstream]
    for name in blocked.whole:
        lines += [f"nameserver /{name}/{policy.name}", f"ipset /{name}/#4:{four},#6:{six}"]
    for name in freed.whole:
        lines += [f"nameserver /{name}/-", f"ipset /{name}/#4:-,#6:-"]
    lost = [f"*.{name}" for name in freed.under] + [name for layer in deeper for name in (*layer.whole, *layer.under)]
    return Said(_text("upstreams and sets", meaning, lines), (*lost, *map(str, meaning.networks)))


def _zone(name: str, servers: Iterable[Upstream]) -> str:
    addresses = "".join(f"\n    forward-addr: {server.address}@{server.port}" for server in servers)
    return f'forward-zone:\n    name: "{name}."{addresses}'


def _port(server: Upstream) -> str:
    host = f"[{server.address}]" if server.address.version == 6 else str(server.address)
    return f"{host}:{server.port}"


def _text(title: str, meaning: Meaning, lines: list[str]) -> str:
    body = "".join(f"{line}\n" for line in lines)
    return header(f"{title} of the policy {meaning.policy.name}", meaning.list_date, body) + body
