"""The chain of a name: what dnsmasq's question and then the client's packets pass, in that order.

The resolvers are asked first (``lookup``), beside the look at the host; then each link is judged by a function of its
own.
"""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.diagnose import blocked, own_lines, plumbing
from gfwtools.diagnose.firewall.crossing import Verdict
from gfwtools.diagnose.firewall.judge import Judged, judge_questions_into, judge_questions_of_lan
from gfwtools.diagnose.lan import Lan
from gfwtools.diagnose.lan_probe import Crossed, probe_from
from gfwtools.diagnose.link import Chain, Link, LinkState, skip_dependents, skipped
from gfwtools.diagnose.lookup import Lookup, ask_resolvers
from gfwtools.diagnose.usual import Asked, usual_link
from gfwtools.dnsmasq import client
from gfwtools.dnsmasq.client import Similarity
from gfwtools.dnsmasq.conf import NEVER, bootstrap_command, is_wired
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import HostError
from gfwtools.lists.answer import Answer
from gfwtools.plumbing.backend import Backend, sets_with, working_backend
from gfwtools.plumbing.facts import Interface
from gfwtools.plumbing.survey import Survey
from gfwtools.plumbing.updown import look
from gfwtools.system import questions
from gfwtools.system.commands import AskedOnce, Runner

__all__ = ["Connection", "answer_link", "clean_link", "clear_command", "probe", "way_link"]

PORT = 443
#: Seconds for a TCP connection.
CONNECT_TIMEOUT = 2.0
#: A keepalive packet of WireGuard is 32 bytes (its paper, section 5.4.6): more than that is an answer.
KEEPALIVE = 32

_AFTER = (
    *(
        "peer",
        "second dnsmasq",
        "dnsmasq",
        "generation",
        "own lines",
        "clean resolver",
        "upstream",
        "answer",
        "blocked",
        "in the set",
    ),
    *("way", "connect"),
)
#: What the question to the clean resolver passes on this host: while one of these is broken, nothing comes back.
_PATH = ("set", "jump", "mark", "endpoint", "tunnel", "route", "ip rule", "nat", "reverse path")
_RESTS_ON = {
    "peer": _PATH,
    "clean resolver": (*_PATH, "peer"),
    "generation": ("second dnsmasq",),
    "upstream": (*_PATH, "peer", "clean resolver", "second dnsmasq", "generation", "own lines"),
    "answer": (*_PATH, "peer", "clean resolver", "second dnsmasq", "generation", "own lines"),
    blocked.NAME: ("generation", "answer"),
    "in the set": ("set", "own lines", "upstream", "answer"),
    "way": ("tunnel", "route", "ip rule", "in the set"),
    "connect": (*_PATH, "peer", blocked.NAME, "in the set", "way"),
    "from the LAN": (*_PATH, "forwarding", "reverse path", "peer", "in the set", "way", "connect"),
}
_DIRECTLY = "the name goes directly"
_OK, _BROKEN, _UNKNOWN, _SKIPPED = LinkState.OK, LinkState.BROKEN, LinkState.UNKNOWN, LinkState.SKIPPED


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP connection that was tried: ``error`` is empty where it came about."""

    address: Address
    seconds: float
    error: str = ""

    @property
    def answered(self) -> bool:
        """A refusal is an answer: the way there and back works."""
        return not self.error or self.error == "refused"

    def __str__(self) -> str:
        return f"{self.address} {self.error or 'connected'} in {self.seconds * 1000:.0f} ms"


def probe(found: Answer, config: Config, runner: Runner, *, connect: bool = False, lan: Lan | None = None) -> Chain:
    """Walk the chain of a name whose verdict is ``found``. Nothing is changed.

    :param connect: also try a TCP connection to port 443 of each address.
    :param lan: also send the first packet of one as a client there does.
    """
    first = [_policy(found)]
    tunnelled = found.match.verdict == "tunnel"
    with ThreadPoolExecutor(max_workers=16) as pool:
        looking = pool.submit(_look, config, runner)
        if not is_wired(config) and not plumbing.is_bootstrapped(config, looking.result()[0]):
            remedy = bootstrap_command(found.policy)
            host = Link("host", _BROKEN, "gfwtools bootstrap has run", "it was never bootstrapped", remedy)
            names = ("client", *plumbing.LINKS, *_AFTER)
            return _chain(found, [*first, host, *skipped(names, NEVER)])
        resolver: Resolver = Dnsmasq(config, runner)
        daemon = resolver.main
        dropped = plumbing.dropped_by_filter()
        received = questions.received(runner, found.policy.interface)
        lookup = ask_resolvers(pool, found, config, resolver)
        survey, problem = looking.result()
        tunnel = survey.facts.interfaces.get(found.policy.interface) if survey and survey.facts else None
        first += [_host(problem), _client(config, daemon, runner)]
        # Without IPv6 in the tunnel the kill switch has it: that is no connection to try.
        tried = [a for a in lookup.addresses if a.version == 4 or not tunnelled or (tunnel and tunnel.carries(6))]
        connections = tuple(pool.map(_connect, tried)) if connect else None
    dropped = plumbing.dropped_by_filter() - dropped
    # Several links rest on the same rules, routes and sets. dnsmasq has filled the sets by now.
    once = AskedOnce(runner)
    pipes = skipped(plumbing.LINKS, _DIRECTLY) if not tunnelled else skipped(plumbing.LINKS, problem)
    peer = Link("peer", _SKIPPED, found=problem or _DIRECTLY)
    if tunnelled and survey is not None:
        seen = plumbing.see(config, survey, found.policy, once, lookup.addresses)
        pipes = plumbing.links(config, survey, found.policy, seen, dropped=dropped)
        peer = _peer(
            found.policy, survey, lookup, questions.received(runner, found.policy.interface) - received, runner
        )
        peer = _why(peer, found.policy, once)
    rest = [
        peer,
        _second(config, found, lookup),
        _dnsmasq(config, lookup, _lan_asks(config, lookup, survey, once)),
        _generation(lookup),
    ]
    backend = survey.backend if survey else _backend(config, runner)
    if tunnelled:
        rest.append(own_lines.link(resolver, lookup.overrides))
        rest += [
            _why(clean_link(config, found.policy, lookup), found.policy, once),
            _upstream(config, resolver.asks(found.policy), lookup),
        ]
    else:
        rest += [*skipped((own_lines.LINK, "clean resolver"), _DIRECTLY), usual_link(config, lookup.usual or Asked())]
    holding = {a: sets_with(once, backend, found.policy, a) if backend else [] for a in lookup.addresses}
    rest.append(answer_link(found, config, lookup, {a for a, names in holding.items() if names}))
    rest.append(_blocked(found, lookup, tunnel, problem))
    rest.append(
        _in_set(found, config, lookup, holding)
        if backend
        else Link("in the set", _UNKNOWN, "the sets can be read", problem)
    )
    rest.append(way_link(found, lookup, holding if backend else None, tunnel, once))
    rest.append(_connect_link(connections, dropped))
    if lan:
        crossed = [_cross(lan, address, runner) for address in _one_of_each_family(lan, tried)]
        rest.append(lan_link(lan, crossed, found.policy.interface if tunnelled else None))
        if rest[-1].state is _OK:
            pipes = [_seen_to_pass(link) if link.name == "forwarding" else link for link in pipes]
    return _chain(found, [*first, *pipes, *rest])


def _chain(found: Answer, links: Sequence[Link]) -> Chain:
    return Chain(found.name, found.match.verdict, tuple(skip_dependents(links, _RESTS_ON)))


def _look(config: Config, runner: Runner) -> tuple[Survey | None, str]:
    """What is there; or why that cannot be seen."""
    try:
        survey = look(config, runner)
        assert survey.pieces is not None
    except HostError as error:
        return None, str(error)
    return survey, ""


def _backend(config: Config, runner: Runner) -> Backend | None:
    try:
        return working_backend(config, runner)
    except HostError:
        return None


# ---------------------------------------------------------------- the name, the host, the client


def _policy(found: Answer) -> Link:
    match = found.match
    if match.reason == "none":
        return Link("policy", _OK, "a verdict", "direct: no list names it")
    rule = f" ({found.rules[0].source} line {found.rules[0].line})" if found.rules else ""
    return Link("policy", _OK, "a verdict", f"{match.verdict}: {match.reason}, {match.matched}{rule}")


def _host(problem: str) -> Link:
    expected = "gfwtools can read its state"
    if problem:
        return Link("host", _UNKNOWN, expected, problem)
    return Link("host", _OK, expected, "bootstrapped")


def _client(config: Config, daemon: Daemon, runner: Runner) -> Link:
    asked = questions.resolver(config.paths, runner, daemon.address, daemon.listens_at)
    expected = f"this host asks its dnsmasq, {daemon.address}"
    found = f"{asked.address} ({config.paths.at(questions.RESOLV_CONF)})"
    if asked.is_ours:
        return Link("client", _OK, expected, found)
    return Link("client", _BROKEN, expected, found, "gfwtools bootstrap")


# ---------------------------------------------------------------- resolvers


def clear_command(config: Config) -> str:
    """What clears dnsmasq's cache."""
    return f"kill -HUP $(cat {config.dns.pid_file})"


def _peer(policy: PolicyConfig, survey: Survey, lookup: Lookup, received: int, runner: Runner) -> Link:
    """Does the other end of the tunnel answer? Judged by what came back from it while the clean resolver and
    the peer were asked."""
    assert survey.facts is not None
    tunnel = survey.facts.interfaces.get(policy.interface)
    if tunnel is None or not tunnel.up:
        return Link("peer", _SKIPPED, found=f"{policy.interface} is not up")
    if not tunnel.endpoints:
        return Link("peer", _SKIPPED, found=f"{policy.interface} has no WireGuard peer with an address")
    expected = f"the peer of {policy.interface} answers"
    age = questions.handshake_age(runner, policy.interface)
    shake = "there was no handshake yet" if age is None else f"last handshake {age:,} s ago"
    if any(reply.rcode for reply in lookup.clean) or received > KEEPALIVE:
        return Link("peer", _OK, expected, f"{shake}, {received:,} bytes came back meanwhile")
    return Link("peer", _BROKEN, expected, f"{shake}, nothing came back meanwhile", f"wg show {policy.interface}")


def _second(config: Config, found: Answer, lookup: Lookup) -> Link:
    if lookup.second_alive is None:
        why = "it answers root alone" if found.match.verdict == "tunnel" else ""
        return Link("second dnsmasq", _SKIPPED, found="none when paired" if config.dns.layout == "paired" else why)
    port = config.second_port(found.policy)
    expected = f"answers at 127.0.0.1#{port}"
    if lookup.second_alive:
        return Link("second dnsmasq", _OK, expected, "answers")
    remedy = lookup.resolver.restart_words(found.policy.name)
    return Link("second dnsmasq", _BROKEN, expected, f"no answer within {client.TIMEOUT:g} s", remedy)


def _lan_asks(config: Config, lookup: Lookup, survey: Survey | None, runner: Runner) -> Judged | None:
    """Do questions of the LAN pass the firewall?"""
    if not (config.host.gateway and lookup.alive and survey and survey.facts):
        return None
    return judge_questions_of_lan(config, lookup.daemon, survey.facts.families, runner)


def _dnsmasq(config: Config, lookup: Lookup, lan: Judged | None) -> Link:
    expected = f"dnsmasq answers at {lookup.daemon}"
    if not lookup.alive:
        found = f"no answer within {client.TIMEOUT:g} s"
        return Link("dnsmasq", _BROKEN, expected, found, lookup.resolver.restart_words())
    if lan and lan.verdict is not Verdict.PASSES:
        state = _BROKEN if lan.verdict is Verdict.BLOCKED else _UNKNOWN
        return Link("dnsmasq", state, f"{expected}, and the LAN can ask it", f"firewall: {lan.words}", lan.remedy)
    return Link("dnsmasq", _OK, expected, "answers")


def _generation(lookup: Lookup) -> Link:
    """Has dnsmasq read the current version of our files?"""
    name, expected = "generation", "dnsmasq has read the current version of our files"
    if not lookup.alive:
        return Link(name, _SKIPPED, found="dnsmasq does not answer")
    for unread in lookup.unread:
        return Link(name, _BROKEN, expected, unread.detail, unread.remedy)
    return Link(name, _OK, expected, "dnsmasq has read the current files")


def _why(link: Link, policy: PolicyConfig, runner: Runner) -> Link:
    """Name the rule of the firewall where one stops this host's questions to the clean resolver, or the answers."""
    if link.state is not _BROKEN:
        return link
    judged = judge_questions_into(policy, runner)
    if judged.verdict is not Verdict.BLOCKED:
        return link
    return replace(link, found=f"{link.found}; {judged.words}", remedy=judged.remedy)


def clean_link(config: Config, policy: PolicyConfig, lookup: Lookup) -> Link:
    """Does the resolver that is reached through the tunnel answer?"""
    upstream = lookup.upstream or policy.upstream[0]
    expected = f"{' or '.join(map(str, policy.upstream))} answers"
    slowest = max((reply.seconds for reply in lookup.clean), default=0.0)
    if all(reply.error for reply in lookup.clean):
        found = lookup.clean[0].error if lookup.clean else "not asked"
        return Link("clean resolver", _BROKEN, expected, found, f"ping -I {policy.interface} {upstream.address}")
    if not any(reply.usable for reply in lookup.clean):
        # The question got through and the resolver refuses: another resolver is needed, not another tunnel. SERVFAIL is
        # also the answer for a name whose own servers fail.
        said = f"{upstream}: {client.words(lookup.clean)}"
        if all(reply.rcode == "SERVFAIL" for reply in lookup.clean if reply.rcode):
            said += "; if only this name fails, the name's own servers are broken"
        remedy = f"give another policy.{policy.name}.upstream in {config.paths.config}, then: gfwtools update --reload"
        return Link("clean resolver", _BROKEN, expected, said, remedy)
    return Link(
        "clean resolver", _OK, expected, f"{upstream}: {client.words(lookup.clean)}, in {slowest * 1000:.0f} ms"
    )


def _upstream(config: Config, servers: Sequence[str], lookup: Lookup) -> Link:
    expected = f"dnsmasq asks {', '.join(servers)} for this name"
    if lookup.strangers:
        found = f"{', '.join(lookup.strangers)} is asked as well: its answers can be poisoned"
        return Link("upstream", _BROKEN, expected, found, _reload(lookup.resolver))
    if lookup.asked is None:
        return Link(
            "upstream",
            _UNKNOWN if lookup.alive else _SKIPPED,
            expected,
            "dnsmasq reports no counts",
        )
    if lookup.nowhere and lookup.asked <= 0:
        return Link("upstream", _SKIPPED, expected, "dnsmasq has the answer that there is no such name")
    if lookup.elsewhere:
        found = "dnsmasq asks another resolver: its answers can be poisoned"
        return Link("upstream", _BROKEN, expected, found, _reload(lookup.resolver))
    if lookup.strangers is None:
        return Link("upstream", _OK, expected, "dnsmasq asks the clean resolver")
    return Link("upstream", _OK, expected, "dnsmasq asks the clean resolver and no other")


def _reload(resolver: Resolver) -> str:
    return f"gfwtools update && {resolver.restart_words()}"


def answer_link(found: Answer, config: Config, lookup: Lookup, in_set: set[Address]) -> Link:
    """What our dnsmasq says, beside what the clean resolver says.

    Large sites answer differently from one question to the next: a different answer is wrong only where its addresses
    have not come by the clean resolver.

    :param in_set: those of the local addresses that are in the set.
    """
    words = client.words(lookup.local)
    if not lookup.alive:
        return Link("answer", _SKIPPED, found="dnsmasq does not answer")
    if found.match.verdict != "tunnel":
        if lookup.local and not any(reply.usable for reply in lookup.local):
            if lookup.usual and not lookup.usual.answers:
                return Link("answer", _SKIPPED, "an answer", f"{words} (depends on: upstream)")
            return Link("answer", _BROKEN, "an answer", words, lookup.resolver.restart_words())
        return Link("answer", _OK, "an answer", words)
    expected = "what the clean resolver says"
    silent = [reply for reply in lookup.local if reply.error]
    if len(silent) == len(lookup.local):
        return Link("answer", _BROKEN, expected, words, lookup.resolver.restart_words())
    pairs = list(zip(lookup.local, lookup.clean, strict=False))
    similar: list[Similarity] = [client.compare(local, clean) for local, clean in pairs]
    for (local, clean), how in zip(pairs, similar, strict=True):
        foreign = how == "different" and not (set(local.addresses) & in_set)
        if lookup.itself and how == "different" and local.kind == "A":
            text = f"{local.kind} {client.listed(local.addresses)} is dnsmasq's own answer, of a line or a hosts file "
            text += f"that it has read; the clean resolver says {client.listed(clean.addresses)}"
            return Link("answer", _BROKEN, expected, text, lookup.resolver.restart_words())
        nothing = not any(reply.addresses for reply in lookup.local)
        lost = how == "missing" and nothing
        if local.error and clean.addresses and nothing:
            text = f"{words}; the clean resolver says {client.listed(clean.addresses)}"
            return Link("answer", _BROKEN, expected, text, lookup.resolver.restart_words())
        if foreign or lost or (lookup.elsewhere and how == "different"):
            kind = "poisoned" if lookup.elsewhere else "stale or poisoned"
            said = client.listed(local.addresses) if local.addresses else local.rcode
            text = f"{local.kind} {said} is {kind}; the clean resolver says {client.listed(clean.addresses)}"
            remedy = _reload(lookup.resolver) if lookup.elsewhere else clear_command(config)
            return Link("answer", _BROKEN, expected, text, remedy)
    if "different" in similar:
        return Link("answer", _OK, expected, f"{words}; other addresses than in its current answer, learned before")
    return Link("answer", _OK, expected, words if "unknown" not in similar else f"{words}; not compared")


def _blocked(found: Answer, lookup: Lookup, tunnel: Interface | None, problem: str) -> Link:
    """Does a name that goes directly work as it does through the tunnel?"""
    if found.match.verdict == "tunnel":
        return Link(blocked.NAME, _SKIPPED, found="the name takes the tunnel")
    if not lookup.alive:
        return Link(blocked.NAME, _SKIPPED, found="dnsmasq does not answer")
    if problem:
        return Link(blocked.NAME, _UNKNOWN, blocked.EXPECTED, f"not compared: {problem}")
    return blocked.blocked_link(found.name, found.policy, lookup.local, tunnel)


# ---------------------------------------------------------------- addresses


def _in_set(found: Answer, config: Config, lookup: Lookup, holding: dict[Address, list[str]]) -> Link:
    name = "in the set"
    if not lookup.addresses:
        return Link(name, _SKIPPED, found="there is no address")
    absent = [address for address, names in holding.items() if not names]
    names = ", ".join(dict.fromkeys(name for found_ in holding.values() for name in found_)) or "no set"
    if found.match.verdict != "tunnel":
        shared = [address for address in holding if address not in absent]
        if shared:
            text = f"{client.listed(shared)} in {names}: another name put it there, so it takes the tunnel"
            return Link(name, _OK, "in none", text)
        return Link(name, _OK, "in none", "in none")
    expected = "every address is in the set"
    if absent:
        text = f"{client.listed(absent)} is in none: dnsmasq answers from its cache, which fills no set"
        return Link(name, _BROKEN, expected, text, clear_command(config))
    return Link(name, _OK, expected, f"{client.listed(list(holding))} in {names}")


def way_link(
    found: Answer,
    lookup: Lookup,
    holding: dict[Address, list[str]] | None,
    tunnel: Interface | None,
    runner: Runner,
) -> Link:
    """Where the packets go: with the mark, if the address is in the set; where that is not known, if it should be."""
    policy = found.policy
    if not lookup.addresses:
        return Link("way", _SKIPPED, found="there is no address")
    tunnelled = found.match.verdict == "tunnel"
    expected = f"mark {policy.mark:#x}, dev {policy.interface}" if tunnelled else "no mark, the host's usual way"
    if not runner.has("ip"):
        return Link("way", _UNKNOWN, expected, "ip: no such program; install iproute2")
    words, wrong = [], False
    for address in lookup.addresses:
        mark = policy.mark if (tunnelled if holding is None else holding[address]) else 0
        way = questions.route(runner, address, mark)
        text = f"{address}{f' mark {mark:#x}' if mark else ''} {way}"
        if tunnelled and way.device != policy.interface:
            if address.version == 6 and way.device is None and not (tunnel and tunnel.carries(6)):
                text += f" ({policy.interface} carries no IPv6: nothing leaks)"
            else:
                wrong = True
        words.append(text)
    if wrong:
        return Link(
            "way", _BROKEN, expected, "; ".join(words), f"ip route get {lookup.addresses[0]} mark {policy.mark:#x}"
        )
    return Link("way", _OK, expected, "; ".join(words))


def _connect(address: Address) -> Connection:
    started = time.monotonic()
    try:
        with socket.create_connection((str(address), PORT), timeout=CONNECT_TIMEOUT):
            error = ""
    except ConnectionRefusedError:
        error = "refused"
    except TimeoutError:
        error = "timed out"
    except OSError as problem:
        error = (problem.strerror or str(problem)).lower()
    return Connection(address, time.monotonic() - started, error)


def _connect_link(connections: tuple[Connection, ...] | None, dropped: int) -> Link:
    if connections is None:
        return Link("connect", _SKIPPED, found="not asked for (--connect)")
    if not connections:
        return Link("connect", _SKIPPED, found="there is no address to connect to")
    expected = f"port {PORT} answers"
    words = "; ".join(map(str, connections))
    if any(connection.answered for connection in connections):
        return Link("connect", _OK, expected, words)
    if dropped:
        words += f"; {dropped} packets dropped meanwhile (IPReversePathFilter)"
    return Link("connect", _BROKEN, expected, words, f"gfwtools trace --connect {connections[0].address}")


# ---------------------------------------------------------------- a packet of the LAN


def _one_of_each_family(lan: Lan, addresses: Sequence[Address]) -> list[Address]:
    first = {address.version: address for address in reversed(addresses) if lan.address(address.version)}
    return [first[version] for version in sorted(first)]


def _cross(lan: Lan, site: Address, runner: Runner) -> Crossed | HostError:
    try:
        return probe_from(lan, site, runner)
    except HostError as error:
        return error


def _seen_to_pass(forwarding: Link) -> Link:
    """Rules that are not understood do not matter where a packet has crossed them."""
    if forwarding.state is not _UNKNOWN:
        return forwarding
    return replace(forwarding, state=_OK, found=f"a packet of the LAN has just passed ({forwarding.found})")


def lan_link(lan: Lan, crossed: Sequence[Crossed | HostError], tunnel: str | None) -> Link:
    """Did the packets of a LAN client leave by the tunnel, and did answers come?

    :param tunnel: None for a name that goes directly.
    """
    name = "from the LAN"
    expected = f"a packet from {lan.name} leaves {f'by {tunnel}' if tunnel else 'directly'}, and its answer comes back"
    if not crossed:
        return Link(name, _SKIPPED, found="there is no address to send a packet to")
    words = "; ".join(map(str, crossed))
    errors = [each for each in crossed if isinstance(each, HostError)]
    wrong = [
        each
        for each in crossed
        if isinstance(each, Crossed) and not (each.well and each.left_by == (tunnel or each.left_by))
    ]
    if wrong:
        remedy = "gfwtools check host" if not wrong[0].left_by else f"gfwtools trace {wrong[0].site}"
        return Link(name, _BROKEN, expected, words, remedy)
    if errors:
        return Link(name, _UNKNOWN, expected, words, errors[0].remedy)
    return Link(name, _OK, expected, words)
