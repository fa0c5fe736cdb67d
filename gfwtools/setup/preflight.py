"""Finds every problem that stops ``bootstrap``, and reports them together, each with a remedy. It changes nothing."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_interface
from itertools import pairwise
from typing import Any

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq import service
from gfwtools.errors import GfwtoolsError, HostError
from gfwtools.plumbing.backend import working_backend
from gfwtools.plumbing.choice import dnsmasq_fills
from gfwtools.plumbing.facts import Facts, Interface, families_of
from gfwtools.plumbing.wanted import MAIN, wanted
from gfwtools.render.backends import TEXTS
from gfwtools.setup import resolver_facts
from gfwtools.setup.resolver_facts import ResolverFacts
from gfwtools.storage import atomic
from gfwtools.system import ownership, questions
from gfwtools.system.commands import Runner
from gfwtools.system.init import detect_init

__all__ = ["Problem", "preflight"]

#: The oldest that is tried.
OLDEST_DNSMASQ = (2, 80)
_TOOLS = {"ip": "iproute2", "sysctl": "procps"}
#: Tables of nft that iptables-nft keeps its own rules in: iptables-save has shown them.
_IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_ALL = frozenset({"0.0.0.0/0", "::/0"})
#: As ss(8) writes "at every address".
_WILDCARDS = (str(IPv4Address(0)), "*", "::")
_HALVES = (frozenset({"0.0.0.0/1", "128.0.0.0/1"}), frozenset({"::/1", "8000::/1"}))


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem and its remedy; one line each."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def preflight(config: Config, runner: Runner, *, is_root: bool | None = None) -> list[Problem]:
    """Every problem that was found.

    :param is_root: whether the process runs as root; by default this process.
    """
    if is_root is None:
        is_root = os.geteuid() == 0
    problems = [] if is_root else [Problem("this is not root", "run it as root: sudo gfwtools bootstrap")]
    missing = [tool for tool in _TOOLS if not runner.has(tool)]
    problems += [Problem(f"{tool}: no such program", f"install {_TOOLS[tool]}") for tool in missing]
    problems += _dnsmasq(config, runner)
    if is_root:
        problems += _backend(config, runner)
    if "ip" not in missing:
        quick = list(_wg_quick(config, runner))
        problems += _interfaces(config, runner)
        problems += [problem for _, problem in quick]
        problems += _routing(config, runner)
        problems += _marks(config, runner, {name for name, _ in quick})
        problems += _families(config, runner)
    problems += _resolver(config, runner)
    return list(dict.fromkeys(problems))


# ---------------------------------------------------------------- programs


def _dnsmasq(config: Config, runner: Runner) -> Iterator[Problem]:
    text = runner.ask("dnsmasq", "--version") if runner.has("dnsmasq") else None
    if text is None:
        yield Problem("dnsmasq: no such program", "install dnsmasq")
        return
    match = re.search(r"\bversion (\d+)\.(\d+)", text, re.IGNORECASE)
    if match and (int(match[1]), int(match[2])) < OLDEST_DNSMASQ:
        yield Problem(f"dnsmasq {match[1]}.{match[2]} is too old", "install 2.80 or later")
    fills = dnsmasq_fills(runner)
    if not fills:
        yield Problem(
            "dnsmasq was built without ipset and nftset: it can fill no set",
            "install one whose `dnsmasq --version` names one of them",
        )
    elif config.host.backend != "auto" and config.host.backend not in fills:
        option = TEXTS[config.host.backend].directive
        other = next(name for name in TEXTS if name != config.host.backend)
        yield Problem(
            f"dnsmasq was built without {option}, which host.backend = {config.host.backend} needs",
            f"give --backend {other}, or install a dnsmasq with {option}",
        )
    there = service.observe(config, detect_init(config.root), runner)
    if there.live and there.masked:
        yield Problem(f"{there.service} is masked: it cannot be started", f"run: systemctl unmask {there.service}")
    elif there.live and not there.is_there:
        yield Problem(
            f"{there.service}: there is no such service, and dnsmasq has to be there at boot",
            "install the package dnsmasq (Debian's dnsmasq-base has none), or set dns.manager in config.toml",
        )


def _backend(config: Config, runner: Runner) -> Iterator[Problem]:
    """Checks the tools and the kernel; the message names what to install or to load."""
    try:
        for chain, rename in working_backend(config, runner).foreign_chains(runner).items():
            yield Problem(f"chain {chain} is not ours, and gfwtools would empty it", f"rename it: {rename}")
    except HostError as error:
        both = "install ipset and iptables, or nftables, with a kernel and a dnsmasq that have the same"
        yield Problem(error.what, both if config.host.backend == "auto" else error.remedy or both)


# ---------------------------------------------------------------- interfaces


def _interfaces(config: Config, runner: Runner) -> Iterator[Problem]:
    names = [str(link["ifname"]) for link in _ip(runner, "link")]
    others = ", ".join(name for name in names if name != "lo") or "none"
    for name in dict.fromkeys(policy.interface for policy in config.policies):
        if names and name not in names:
            yield Problem(
                f"there is no interface {name}; there are: {others}", "bring the tunnel up, or give --interface NAME"
            )


def _families(config: Config, runner: Runner) -> Iterator[Problem]:
    """Addresses of a family that the tunnel does not carry. Each policy is checked alone: none hides another."""
    facts = Facts(
        interfaces={
            link["ifname"]: Interface(
                name=link["ifname"],
                up="UP" in link.get("flags", ()),
                mtu=int(link.get("mtu", 0)),
                addresses=tuple(
                    ip_interface(f"{entry['local']}/{entry['prefixlen']}")
                    for entry in link.get("addr_info", ())
                    if entry.get("scope") == "global"
                ),
            )
            for link in _ip(runner, "address")
        },
    )
    for policy in config.policies:
        try:
            wanted(config._replace(policies=(policy,)), facts)
        except HostError as error:
            yield Problem(error.what, error.remedy)


# ---------------------------------------------------------------- rules and tables


def _ip(runner: Runner, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(runner.ask("ip", "-j", *words) or "[]")
    return [entry for entry in found if entry]


def _numbers(runner: Runner, family: int, *words: str) -> list[dict[str, Any]]:
    """The same question as in :mod:`~gfwtools.plumbing.routing`: numbers, not the names in rt_tables and rt_protos."""
    found: list[dict[str, Any]] = json.loads(runner.ask("ip", f"-{family}", "-N", "-d", "-j", *words) or "[]")
    return [entry for entry in found if entry and not ownership.is_route(entry)]


def _routing(config: Config, runner: Runner) -> Iterator[Problem]:
    """Preferences, marks and tables that another program uses. A rule equal to ours is not a problem."""
    for family in families_of(runner):
        rules = [rule for rule in _numbers(runner, family, "rule") if not _catches_all(rule)]
        for index, policy in enumerate(config.policies):
            preference = config.host.preference + 2 * index
            for rule in rules:
                yield from _rule(policy, preference, rule)
            for route in _numbers(runner, family, "route", "show", "table", str(policy.table)):
                if route.get("dev") != policy.interface:
                    yield Problem(
                        f"table {policy.table} has a route that is not ours: {_route_words(route)} (IPv{family})",
                        f"give policy.{policy.name}.table another number, or remove the route",
                    )


def _rule(policy: PolicyConfig, preference: int, rule: dict[str, Any]) -> Iterator[Problem]:
    there, table = int(rule["priority"]), rule.get("table")
    words = f"{there}: {_rule_words(rule)}"
    is_marking = _matches_mark(rule, policy.mark)
    suppresses = table == str(MAIN) and rule.get("suppress_prefixlen") == 0 and "fwmark" not in rule
    as_ours = (there == preference and suppresses) or (
        there == preference + 1 and is_marking and table == str(policy.table)
    )
    if as_ours:
        return
    if there in (preference, preference + 1):
        yield Problem(
            f"preference {there} is taken by an ip rule that is not ours: {words}",
            "give host.preference another number, or remove the rule",
        )
    elif is_marking and table != str(policy.table):
        yield Problem(
            f"mark {policy.mark:#x} is taken by an ip rule that is not ours: {words}",
            f"give policy.{policy.name}.mark another value, or remove the rule",
        )
    elif table == str(policy.table) and not is_marking:
        yield Problem(
            f"table {policy.table} is taken by an ip rule that is not ours: {words}",
            f"give policy.{policy.name}.table another number, or remove the rule",
        )


def _matches_mark(rule: dict[str, Any], mark: int) -> bool:
    if "fwmark" not in rule or "not" in rule:
        return False
    mask = int(str(rule.get("fwmask", "0xffffffff")), 16)
    return mark & mask == int(str(rule["fwmark"]), 16)


def _catches_all(rule: dict[str, Any]) -> bool:
    """wg-quick's own rule: every packet goes into the tunnel, except the tunnel's own packets."""
    return "not" in rule and "fwmark" in rule


def _rule_words(rule: dict[str, Any]) -> str:
    words = ["not"] if "not" in rule else []
    words.append(f"from {rule.get('src', 'all')}{'/' + str(rule['srclen']) if 'srclen' in rule else ''}")
    if "dst" in rule:
        words.append(f"to {rule['dst']}{'/' + str(rule['dstlen']) if 'dstlen' in rule else ''}")
    words += [f"{key} {rule[key]}" for key in ("iif", "oif", "fwmark") if key in rule]
    words.append(f"lookup {rule['table']}" if "table" in rule else str(rule.get("action", "")))
    return " ".join(words)


def _route_words(route: dict[str, Any]) -> str:
    words = [str(route.get("dst"))]
    words += [f"via {route['gateway']}"] if "gateway" in route else []
    words += [f"dev {route['dev']}"] if "dev" in route else []
    return " ".join(words)


# ---------------------------------------------------------------- marks


def _marks(config: Config, runner: Runner, quick: set[str]) -> Iterator[Problem]:
    """Marks that another program's filter sets or matches, or that a tunnel puts on its own packets."""
    uses = list(_iptables_marks(runner)) + list(_nft_marks(runner))
    for policy in config.policies:
        remedy = f"give policy.{policy.name}.mark another value, or remove the rule"
        for mark, where in uses:
            if mark == policy.mark:
                yield Problem(f"mark {policy.mark:#x} is used by {where}", remedy)
        for other in dict.fromkeys(policy.interface for policy in config.policies):
            if other not in quick and questions.own_mark(runner, other) == policy.mark:
                # Its packets to the peer would be sent into the tunnel again.
                yield Problem(
                    f"{other} marks its own packets with {policy.mark:#x}, the mark of policy {policy.name}",
                    f"run: wg set {other} fwmark 0, and remove FwMark from its configuration",
                )


def _iptables_marks(runner: Runner) -> Iterator[tuple[int, str]]:
    for tool in ("iptables-save", "ip6tables-save"):
        table = ""
        text = runner.ask(tool) if runner.has(tool) or runner.has("iptables-save") else None
        for line in (text or "").splitlines():
            if line.startswith("*"):
                table = line[1:]
            if not line.startswith("-A") or "mark" not in line or "wg-quick(8)" in line:
                continue
            try:
                words = shlex.split(line)
            except ValueError:
                continue
            if ownership.is_rule(line):
                continue
            for option, value in pairwise(words):
                # connmark has --mark as well: it is the connection's, not the packet's.
                is_match = option == "--mark" and "connmark" not in words
                is_set = option in ("--set-xmark", "--set-mark") and "CONNMARK" not in words
                number = re.fullmatch(r"(0x[0-9a-f]+|\d+)(?:/.*)?", value, re.IGNORECASE)
                if (is_match or is_set) and number:
                    yield (
                        int(number[1], 0),
                        f"a rule of {tool.removesuffix('-save')} -t {table} that is not ours: {line}",
                    )


def _nft_marks(runner: Runner) -> Iterator[tuple[int, str]]:
    # -t: a set may have a million elements.
    text = runner.ask("nft", "-t", "list", "ruleset") if runner.has("nft") else None
    shown = runner.has("iptables-save")
    table = ""
    for line in (text or "").splitlines():
        if line.startswith("table "):
            table = line.removesuffix("{").strip()
        _, family, name = (*table.split(), "", "")[:3]
        if ownership.is_nft_table(family, name) or name.startswith("wg-quick-"):
            continue
        if shown and family in ("ip", "ip6") and name in _IPTABLES_TABLES:
            continue
        for number in re.findall(r"\bmeta mark (?:set )?(?:==? )?0x([0-9a-f]+)\b", line):
            yield int(number, 16), f"{table} of nft, which is not ours: {line.strip()}"


# ---------------------------------------------------------------- wg-quick


def _wg_quick(config: Config, runner: Runner) -> Iterator[tuple[str, Problem]]:
    """Interfaces that take all traffic, by the rules that are there or by the file that makes them at the next start.

    :returns: name of the interface and problem, one an interface.
    """
    found: dict[str, Problem] = {}
    tunnels = tuple(dict.fromkeys(policy.interface for policy in config.policies))
    for family in families_of(runner):
        for rule in _numbers(runner, family, "rule"):
            if _catches_all(rule) and "table" in rule:
                routes = _numbers(runner, family, "route", "show", "table", str(rule["table"]))
                devices = [str(route["dev"]) for route in routes if route.get("dst") == "default" and "dev" in route]
                name = devices[0] if devices else tunnels[0]
                words = f"{rule['priority']}: {_rule_words(rule)}"
                found.setdefault(name, _takes_all(name, f"its rule {words} sends all traffic into it"))
    for name, reason in _main_takes_all(runner, tunnels):
        found.setdefault(name, _takes_all(name, reason))
    for name in tunnels:
        reason = _file_takes_all(config, name)
        if reason and name not in found:
            found[name] = _takes_all(name, reason)
    yield from found.items()


def _main_takes_all(runner: Runner, tunnels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Interfaces that the main table sends everything to: by the best default route, or by two halves."""
    defaults = _numbers(runner, 4, "route", "show", "default")
    best = min(defaults, key=lambda route: int(route.get("metric", 0)), default={})
    for name in tunnels:
        halves = {route.get("dst") for route in _numbers(runner, 4, "route", "show", "table", str(MAIN), "dev", name)}
        if best.get("dev") == name or _HALVES[0] <= halves:
            yield name, "the main table sends all traffic into it"


def _takes_all(name: str, reason: str) -> Problem:
    return Problem(
        f"{name}: {reason}",
        f"put `Table = off` below [Interface] in /etc/wireguard/{name}.conf and run: "
        f"wg-quick down {name} && wg-quick up {name}",
    )


def _file_takes_all(config: Config, name: str) -> str:
    """Why wg-quick would send all traffic into the interface, by its file; empty where it would not (wg-quick(8))."""
    path = f"/etc/wireguard/{name}.conf"
    try:
        text = (atomic.read(config.paths.at(path)) or b"").decode("utf-8", "replace")
    except GfwtoolsError:
        return ""
    pairs = re.findall(r"^[ \t]*(table|allowedips)[ \t]*=[ \t]*([^#\n]*)", text, re.IGNORECASE | re.MULTILINE)
    tables = [value.strip().lower() for key, value in pairs if key.lower() == "table"]
    # Only a rule that the user makes leads to a table with a number.
    if tables and tables[-1] not in ("auto", "main", str(MAIN)):
        return ""
    allowed = {part.strip() for key, value in pairs if key.lower() == "allowedips" for part in value.split(",")}
    everything = sorted(allowed & _ALL) or next((sorted(half) for half in _HALVES if half <= allowed), [])
    if not everything:
        return ""
    return f"AllowedIPs = {', '.join(everything)} in {path} without `Table = off` has wg-quick send all traffic into it"


# ---------------------------------------------------------------- the resolver


def _resolver(config: Config, runner: Runner) -> Iterator[Problem]:
    facts = resolver_facts.observe(config, runner)
    yield from _port_53(config, runner, facts)
    yield from _second_ports(config, runner)
    if not facts.resolvers and not facts.has_upstream:
        yield Problem(
            "no resolver is known for what is not blocked: neither resolv.conf nor a DHCP lease names one "
            "that is not this host itself",
            'set dns.resolvers in config.toml, such as ["192.168.1.1"]',
        )
    if "0" in facts.values("port"):
        yield Problem("dnsmasq's configuration has port=0, which switches DNS off", "remove that line")
    elif others := [port for port in facts.values("port") if port != "53"]:
        yield Problem(
            f"dnsmasq's configuration has port={others[-1]}, and resolv.conf can name no port", "remove that line"
        )


def _port_53(config: Config, runner: Runner, facts: ResolverFacts) -> Iterator[Problem]:
    """Programs where dnsmasq has to listen. At other addresses they are left alone: dnsmasq binds its own only."""
    lan = config.dns.listen or facts.lan if config.host.gateway else config.dns.listen
    needed = {*_WILDCARDS, "127.0.0.1", "::1", *map(str, lan)}
    programs: dict[tuple[str, int], list[str]] = {}
    for holder in questions.holders(runner):
        # bootstrap has systemd-resolved give up the port.
        if holder.program == "dnsmasq" or holder.program.startswith("systemd-resolve"):
            continue
        if holder.address in needed:
            programs.setdefault((holder.program, holder.pid), []).append(holder.address)
    for (program, pid), addresses in programs.items():
        who = f"{program} (process {pid})" if program else "another program"
        where = ", ".join(dict.fromkeys(addresses))
        yield Problem(
            f"port 53 is held by {who} at {where}", f"stop and disable it: dnsmasq is to answer there{_unit(program)}"
        )


def _second_ports(config: Config, runner: Runner) -> Iterator[Problem]:
    """Programs where the second dnsmasqs of the split layout have to listen."""
    for policy in config.policies if config.dns.layout == "split" else ():
        port = config.second_port(policy)
        ours = (atomic.read(config.paths.second_pid(policy.name)) or b"").decode("ascii", "replace").strip()
        for holder in questions.holders(runner, port):
            if holder.address in (*_WILDCARDS, "127.0.0.1") and str(holder.pid) != ours:
                who = f"{holder.program} (process {holder.pid})" if holder.program else "another program"
                yield Problem(
                    f"port {port} is held by {who} at {holder.address}",
                    f"end it: the second dnsmasq of policy {policy.name} is to answer there",
                )


def _unit(program: str) -> str:
    units = {"named": "named", "unbound": "unbound", "pdns_recursor": "pdns-recursor", "coredns": "coredns"}
    return f" (systemctl disable --now {units[program]})" if program in units else ""
