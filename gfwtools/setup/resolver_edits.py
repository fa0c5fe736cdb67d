"""dnsmasq as the resolver of the host: its own set-up, /etc/resolv.conf, and the programs that would write that file.

:func:`edits` and :func:`steps` decide, from what :mod:`~gfwtools.setup.resolver_facts` has read. Our part of a file
stands between two comments, or is the whole file. So a second run gives the same content as the first one.
"""

import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from gfwtools.config.model import Address, Config, Paths, Upstream
from gfwtools.dnsmasq import version
from gfwtools.dnsmasq.conf import MAIN_CONF
from gfwtools.render.files import ADDRESS_RECORDS
from gfwtools.setup.files import FileEdit
from gfwtools.setup.isp_resolvers import Found, copied, note
from gfwtools.setup.lease_hooks import COPIES, HEADER
from gfwtools.setup.resolv_conf_writers import WRITERS, Writer, append, encode, snippet, without_ours
from gfwtools.setup.resolver_facts import ResolverFacts, tools_of
from gfwtools.system.commands import Command, Runner
from gfwtools.system.questions import RESOLV_CONF
from gfwtools.system.step import Step

__all__ = ["edits", "leave_steps", "nameservers_instead", "places", "steps"]

CANARY = "use-application-dns.net"
#: dnsmasq's own default is 150 names, which a browser fills with a few pages.
CACHE_SIZE = 4096
#: The root's key-signing keys of 2017 and 2024 (IANA, root-anchors.xml); dnsmasq 2.90 ships only the first.
ROOT_KEYS = (
    ".,20326,8,2,E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D",
    ".,38696,8,2,683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16",
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.@+-]+")
_LOOPBACK: tuple[Address, ...] = (ip_address("127.0.0.1"), ip_address("::1"))
#: Directives by which dnsmasq serves other hosts; without an interface named it does so on all of them.
_SERVES_OTHERS = frozenset({"dhcp-range", "except-interface", "local-service", "enable-tftp", "auth-server"})


def edits(config: Config, facts: ResolverFacts) -> list[FileEdit]:
    """The wanted files, also those that are right already; files that need no line of ours are left out."""
    found = [
        FileEdit(snippet(config), encode(HEADER + "".join(_snippet_lines(config, facts))), "dnsmasq for this host")
    ]
    if not facts.reads_conf_dir:
        base = without_ours(facts.texts.get(MAIN_CONF, ""))
        folder = config.dns.conf_dir.rstrip("/")
        text = append(f"conf-dir={folder}/,*.conf")(base)
        found.append(FileEdit(MAIN_CONF, encode(text), f"dnsmasq reads {config.dns.conf_dir}"))
    if facts.follow in COPIES:
        text = copied(Found(facts.resolvers, facts.found_in, facts.follow))
        found.append(FileEdit(facts.follow, encode(text), "the ISP's resolvers for dnsmasq"))
    found += [edit for _, edit in _manager_edits(facts)]
    found.append(FileEdit(RESOLV_CONF, encode(_resolv_conf(facts)), "this host asks its own dnsmasq"))
    return found


def places(config: Config) -> tuple[str, ...]:
    """Every path that :func:`edits` may give."""
    return (snippet(config), MAIN_CONF, *COPIES, *(manager.path for manager in WRITERS), RESOLV_CONF)


def nameservers_instead(facts: ResolverFacts) -> dict[str, bytes]:
    """A resolv.conf for a host whose original is lost. It names the resolvers that dnsmasq has asked."""
    lines = [f"nameserver {server.address}\n" for server in facts.resolvers if server.port == 53]
    return {RESOLV_CONF: "".join(lines).encode()} if lines else {}


def _resolv_conf(facts: ResolverFacts) -> str:
    text = facts.texts.get(RESOLV_CONF, "")
    kept = re.findall(r"^[ \t]*(?:search|domain|options|sortlist)\b.*$", text, re.MULTILINE)
    return HEADER + "".join(f"{line}\n" for line in ("nameserver 127.0.0.1", *kept))


def _manager_edits(facts: ResolverFacts) -> Iterator[tuple[Writer, FileEdit]]:
    for manager in WRITERS:
        if manager.name not in facts.managers:
            continue
        there = facts.texts.get(manager.path, "")
        base = without_ours(there)
        text = manager.change(base, facts.needs)
        if text != base:
            yield manager, FileEdit(manager.path, encode(text), f"{manager.name} {manager.why}")
        elif there != base:  # an earlier bootstrap needed lines of ours: resolvconf, say, came later
            yield manager, FileEdit(manager.path, encode(base), f"{manager.name} needs no line of ours any more")


def _snippet_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """The lines that the host's own configuration lacks.

    dnsmasq refuses cache-size, pid-file and the like when they come twice; lists such as listen-address may grow.
    """
    dns = config.dns
    yield from _listen_lines(config, facts)
    if dns.resolvers or not facts.has_upstream:
        # resolv.conf leads to dnsmasq itself now.
        yield from _followed(facts) if facts.follow else _fixed_lines(facts)
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
    yield from _record_lines(config, facts)
    if dns.stop_rebind == "all":
        yield from _rebind_lines(config, facts)
    answered = [value for name in ("server", "local", "address") for value in facts.values(name)]
    if dns.canary and not any(value.startswith(f"/{CANARY}/") for value in answered):
        yield "# Firefox keeps to this resolver where this name does not exist\n"
        yield f"server=/{CANARY}/\n"


def _record_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """In the split layout the second dnsmasq leaves these records out, and for the listed names alone."""
    there = ",".join(facts.values("filter-rr")).upper().replace(" ", "").split(",")
    lacking = [kind for kind in ADDRESS_RECORDS if kind not in there]
    if config.dns.layout == "paired" and version.filters(facts.version) and lacking and not config.dns.https_records:
        yield "# Such a record may hold addresses, which dnsmasq puts into no set\n"
        yield f"filter-rr={','.join(lacking)}\n"


def _rebind_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """A name that the user's lines send to a resolver of their own may have private addresses."""
    yield "# No name has a private address, but for these\n"
    if not facts.has("stop-dns-rebind"):
        yield "stop-dns-rebind\n"
    own = [value.split("/") for value in facts.values("server")]
    named = [name for parts in own if len(parts) > 2 and parts[0] == "" and parts[-1] for name in parts[1:-1]]
    for name in dict.fromkeys((*config.dns.rebind_ok, *(name.removeprefix("*.") for name in named))):
        if name and _PLAIN_NAME.fullmatch(name):
            yield f"rebind-domain-ok=/{name}/\n"


def _followed(facts: ResolverFacts) -> Iterator[str]:
    if facts.follow in COPIES:
        yield note(facts.resolvers)
    yield f"resolv-file={facts.follow}\n"


def _fixed_lines(facts: ResolverFacts) -> Iterator[str]:
    """The resolvers as they are now, where dnsmasq cannot follow a file."""
    if facts.resolvers and not facts.has("no-resolv"):
        yield "no-resolv\n"
    known = facts.values("server")
    yield from (f"server={_server(resolver)}\n" for resolver in facts.resolvers if _server(resolver) not in known)


def _server(resolver: Upstream) -> str:
    return str(resolver.address) if resolver.port == 53 else str(resolver)


def _listen_lines(config: Config, facts: ResolverFacts) -> Iterator[str]:
    """Without any dnsmasq listens everywhere, the WAN included."""
    limited = facts.has("listen-address") or facts.has("interface")
    binds = facts.has("bind-interfaces")
    if limited or not any(facts.has(name) for name in _SERVES_OTHERS):
        there = {part.strip() for value in facts.values("listen-address") for part in value.split(",")}
        lan = (config.dns.listen or facts.lan) if config.host.gateway else config.dns.listen
        named = dict(_named(config, facts))
        yield from (f"interface={name}\n" for name in named if name not in facts.values("interface"))
        by_name = {address for addresses in named.values() for address in addresses}
        for address in dict.fromkeys((*_LOOPBACK, *(address for address in lan if address not in by_name))):
            # With bind-interfaces dnsmasq does not start where an address is missing.
            if str(address) not in there and not (binds and address not in facts.addresses):
                yield f"listen-address={address}\n"
    else:
        kept = {part.strip() for value in facts.values("except-interface") for part in value.split(",")}
        taken = [network.interface for network in facts.others if network.who]
        if config.host.gateway and not binds:
            taken += filter(_PLAIN_NAME.fullmatch, facts.outside)
        yield from (f"except-interface={name}\n" for name in taken if name not in kept)
    # Unlike bind-interfaces it waits for an address that is not there yet, and leaves the others to other programs;
    # both at once is an error.
    if not binds and not facts.has("bind-dynamic"):
        yield "bind-dynamic\n"


def _named(config: Config, facts: ResolverFacts) -> Iterator[tuple[str, tuple[Address, ...]]]:
    """The LAN's interfaces that are named to dnsmasq, not their addresses.

    With ``interface`` dnsmasq asks by which interface a question came in; with ``listen-address``, and always with
    ``bind-interfaces``, it answers the WAN at an address of the LAN too. An address that the user's lines name is left
    alone.
    """
    if not config.host.gateway or config.dns.listen or facts.has("bind-interfaces"):
        return
    there = {part.strip() for value in facts.values("listen-address") for part in value.split(",")}
    for name, addresses in facts.inner:
        # A star at the end stands for any name, and a comma parts two.
        if _PLAIN_NAME.fullmatch(name) and not all(str(address) in there for address in addresses):
            yield name, addresses


def steps(facts: ResolverFacts) -> list[Step]:
    """The managers that have to read a file that :func:`edits` changes; the files are in place."""
    found = []
    for manager, edit in _manager_edits(facts):
        if facts.texts.get(edit.path) != edit.data.decode("utf-8", "surrogateescape"):
            found += _reload(manager, facts.tools, manager.why)
    return found


def leave_steps(changed: Iterable[str], runner: Runner, paths: Paths | None = None) -> list[Step]:
    """The same once the files of ``changed`` (paths on the host) have been put back."""
    paths_changed = set(changed)
    tools = tools_of(paths or Paths(), runner)
    return [
        step
        for manager in WRITERS
        if manager.path in paths_changed
        for step in _reload(manager, tools, "is as it was before")
    ]


def _reload(manager: Writer, tools: Iterable[str], why: str) -> list[Step]:
    if not manager.reload or manager.reload[0] not in tools:
        return []
    command = Command(manager.reload)
    return [Step(manager.name, why, (command,), (command,))]
