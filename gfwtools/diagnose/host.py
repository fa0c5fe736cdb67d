"""Is the plumbing complete? Shows every piece as OK, MISSING or MISMATCH, with the command that fixes it.

Nothing is changed. What cannot be seen in a listing is asked: dnsmasq for a name, the tunnel for an answer.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.diagnose import own_lines, room, usual
from gfwtools.diagnose.clean import clean_piece
from gfwtools.diagnose.firewall.crossing import Verdict
from gfwtools.diagnose.firewall.judge import Judged, judge_firewall, judge_questions_of_lan
from gfwtools.diagnose.lan_way import astray
from gfwtools.diagnose.outside import ask_from_outside, remedy_for
from gfwtools.dnsmasq import service
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.errors import HostError
from gfwtools.plumbing import record, taken_down
from gfwtools.plumbing.facts import Facts
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.this_boot import boot_id
from gfwtools.plumbing.updown import look
from gfwtools.render.files import Role
from gfwtools.system import questions
from gfwtools.system.commands import AskedOnce, Runner
from gfwtools.system.init import detect_init

__all__ = ["check"]

#: WireGuard makes a new handshake after 120 s of use and gives a session up after 180 s (its paper, section 6.1).
HANDSHAKE_AGE = 180
UP = "gfwtools up"


def check(config: Config, runner: Runner) -> list[Piece]:
    """Every piece of the wanted state, and whether it works; with a remedy where it is not OK.

    :raises HostError: a tool is missing.
    """
    # Rules, routes and addresses stay as they are meanwhile, and several pieces rest on the same ones.
    once = AskedOnce(runner)
    seen = look(config, once)
    assert seen.facts is not None
    findings = list(_taken_down(config))
    findings += [replace(piece, remedy="" if piece.state is State.OK else piece.remedy or UP) for piece in seen.pieces]
    findings += [piece for policy in config.policies for piece in room.pieces(seen, policy)]
    routed = all(piece.state is State.OK for piece in seen.pieces if piece.kind in (Kind.RULE, Kind.ROUTE))
    for policy in config.policies:
        findings += _tunnel(config, policy, seen.facts, once, routed=routed)
        tunnel = seen.facts.interfaces.get(policy.interface)
        if tunnel and tunnel.up and tunnel.endpoints:
            findings.append(_handshake(policy, runner))
        # Where a piece is missing, no answer is to be expected.
        whole = all(found.state in (State.OK, State.UNKNOWN) for found in findings)
        if tunnel and tunnel.endpoints and whole:
            findings.append(clean_piece(config, policy, once))
        if config.host.gateway:
            findings.append(_firewall(config, policy, seen.facts, once))
    resolver = Dnsmasq(config, runner)
    findings += _dnsmasq(config, resolver, seen.facts, once)
    if Piece("dnsmasq", State.OK, f"answers at {resolver.main}", Kind.DNSMASQ) in findings:
        findings += _outside(config, resolver.main, seen.facts, runner)
    findings += own_lines.pieces(resolver)
    return findings


def _taken_down(config: Config) -> Iterator[Piece]:
    if taken_down.is_noted(config.paths):
        detail = f"taken down by `{taken_down.how(config.paths)}`; `gfwtools update --reload` does not bring it up"
        yield Piece("plumbing", State.MISMATCH, detail, remedy=UP)


# ---------------------------------------------------------------- the tunnel


def _tunnel(config: Config, policy: PolicyConfig, facts: Facts, runner: Runner, *, routed: bool) -> Iterator[Piece]:
    name = policy.interface
    tunnel = facts.interfaces.get(name)
    if tunnel is None:
        yield Piece(
            f"interface {name}",
            State.MISSING,
            "no such interface",
            Kind.TUNNEL,
            remedy=f"bring up the tunnel: wg-quick up {name}",
        )
        return
    if not tunnel.up:
        yield Piece(f"interface {name}", State.MISMATCH, "it is down", Kind.TUNNEL, remedy=f"ip link set {name} up")
        return
    yield Piece(f"interface {name}", State.OK, ", ".join(map(str, tunnel.addresses)) or "up", Kind.TUNNEL)
    yield from _way(config, policy, runner, routed=routed)
    for endpoint in tunnel.endpoints:
        device = questions.route(runner, endpoint).device
        if device == name:
            yield Piece(
                f"endpoint {endpoint}",
                State.MISMATCH,
                f"routed into {name} itself",
                Kind.ENDPOINT,
                remedy=f"ip route get {endpoint}",
            )
        elif questions.own_mark(runner, name) == policy.mark:
            # wg-quick's usual FwMark is 51820, the default mark of a policy: the tunnel would be sent into itself.
            detail = f"{name} marks its own packets with {policy.mark:#x}, the policy's mark"
            yield Piece(f"endpoint {endpoint}", State.MISMATCH, detail, Kind.ENDPOINT, remedy=f"wg set {name} fwmark 0")
        else:
            yield Piece(
                f"endpoint {endpoint}",
                State.OK,
                f"reached by {device or 'nothing yet'}, not through {name}",
                Kind.ENDPOINT,
            )


def _way(config: Config, policy: PolicyConfig, runner: Runner, *, routed: bool) -> Iterator[Piece]:
    """Where a marked packet goes: where our rules and routes are there, a rule of another program comes first."""
    resolver = policy.upstream[0].address
    device = questions.route(runner, resolver, policy.mark).device
    name = f"route of packets with mark {policy.mark:#x}"
    if device == policy.interface:
        yield Piece(name, State.OK, f"by {device}", Kind.RULE)
    else:
        remedy = f"see ip rule show: remove the rule that comes first, or set host.preference before it, then: {UP}"
        detail = f"by {device or 'none'}, should be {policy.interface}"
        yield Piece(name, State.MISMATCH, detail, Kind.RULE, remedy=remedy if routed else UP)
        return
    for strayed in astray(config, policy, resolver, runner):
        yield Piece(f"route from {strayed.packet.iif}", State.MISMATCH, str(strayed), Kind.RULE, remedy=strayed.remedy)


def _handshake(policy: PolicyConfig, runner: Runner) -> Piece:
    """An idle tunnel has an old handshake and still works: it gets a question to carry before it is judged."""
    name = f"handshake of {policy.interface}"
    age = questions.handshake_age(runner, policy.interface)
    if age is None or age > HANDSHAKE_AGE:
        upstream = policy.upstream[0]
        Daemon(str(upstream.address), upstream.port).ask("example.com", timeout=2)
        age = questions.handshake_age(runner, policy.interface)
    if age is None:
        return Piece(name, State.MISSING, "no handshake yet", Kind.TUNNEL, remedy=f"wg show {policy.interface}")
    if age > HANDSHAKE_AGE:
        return Piece(
            name,
            State.MISMATCH,
            f"{age:,} s ago; the peer does not answer",
            Kind.TUNNEL,
            remedy=f"wg show {policy.interface}",
        )
    return Piece(name, State.OK, f"{age} s ago", Kind.TUNNEL)


def _firewall(config: Config, policy: PolicyConfig, facts: Facts, runner: Runner) -> Piece:
    return _judged(f"firewall before {policy.interface}", judge_firewall(config, policy, facts, runner))


def _judged(name: str, judged: Judged) -> Piece:
    states = {Verdict.PASSES: State.OK, Verdict.BLOCKED: State.MISMATCH, Verdict.UNKNOWN: State.UNKNOWN}
    return Piece(name, states[judged.verdict], judged.words, Kind.FIREWALL, remedy=judged.remedy)


# ---------------------------------------------------------------- dnsmasq


def _dnsmasq(config: Config, resolver: Resolver, facts: Facts, runner: Runner) -> Iterator[Piece]:
    daemon = resolver.main
    restart = resolver.restart_words()
    if not daemon.is_up():
        yield Piece("dnsmasq", State.MISSING, f"does not answer at {daemon}", Kind.DNSMASQ, remedy=restart)
        return
    yield Piece("dnsmasq", State.OK, f"answers at {daemon}", Kind.DNSMASQ)
    yield from _at_boot(config, runner)
    yield _is_resolver(config, daemon, runner)
    if config.host.gateway and (judged := judge_questions_of_lan(config, daemon, facts.families, runner)):
        yield _judged("firewall before dnsmasq", judged)
    before = _sets_before_dnsmasq(config, runner)
    if before is not None:
        late = "dnsmasq started before the sets existed, so its cached answers are in no set"
        detail = "the sets existed before dnsmasq started" if before else late
        yield Piece(
            "order of sets and dnsmasq",
            State.OK if before else State.MISMATCH,
            detail,
            Kind.DNSMASQ,
            remedy="" if before else restart,
        )
    yield usual.piece(config, daemon, restart, runner)
    for policy in config.policies:
        yield from _read(config, policy, resolver)


def _outside(config: Config, daemon: Daemon, facts: Facts, runner: Runner) -> Iterator[Piece]:
    """Reports nothing where no packet of ours can come in: in a container, or without tc."""
    name = "questions from outside"
    try:
        sides, heard = ask_from_outside(config, daemon, facts, runner)
    except HostError:
        return
    if heard:
        yield Piece(name, State.MISMATCH, "; ".join(map(str, heard)), Kind.DNSMASQ, remedy=remedy_for(heard))
    elif sides:
        detail = f"dnsmasq does not answer what comes in by {' or '.join(side.name for side in sides)}"
        yield Piece(name, State.OK, detail, Kind.DNSMASQ)


def _read(config: Config, policy: PolicyConfig, resolver: Resolver) -> Iterator[Piece]:
    """Asks the daemons of a policy whether they have read the current version of their files."""
    unread = {found.role: found for found in resolver.unread([policy])}
    name = f"list of policy {policy.name}"
    if not config.dnsmasq_conf(policy).is_file():
        missing = f"{config.dnsmasq_conf(policy)} does not exist"
        yield Piece(name, State.MISSING, missing, Kind.LIST, remedy="gfwtools update --reload")
    elif found := unread.get(Role.MAIN) or unread.get(Role.SERVERS):
        yield Piece(name, State.MISMATCH, found.detail, Kind.LIST, remedy=found.remedy)
    else:
        yield Piece(name, State.OK, "dnsmasq has read the current version", Kind.LIST)
    second = resolver.second(policy)
    if second is None:
        return
    name = f"second dnsmasq of {policy.name}"
    if not second.is_up(1):
        yield Piece(
            name,
            State.MISSING,
            f"does not answer at {second}",
            Kind.DNSMASQ,
            remedy=resolver.restart_words(policy.name),
        )
    elif found := unread.get(Role.SECOND):
        yield Piece(name, State.MISMATCH, found.detail, Kind.DNSMASQ, remedy=found.remedy)
    else:
        yield Piece(name, State.OK, f"answers at {second}, and has read its current configuration", Kind.DNSMASQ)


def _at_boot(config: Config, runner: Runner) -> Iterator[Piece]:
    """Reports nothing where no known init system starts dnsmasq."""
    init = detect_init(config.root)
    there = service.observe(config, init, runner)
    if there.live and there.is_there:
        on, _ = service.enabling(config, init, there.service)
        detail = f"{there.service} is {'' if there.enabled else 'not '}enabled"
        state = State.OK if there.enabled else State.MISSING
        yield Piece("dnsmasq at boot", state, detail, Kind.DNSMASQ, remedy="" if there.enabled else str(on))


def _is_resolver(config: Config, daemon: Daemon, runner: Runner) -> Piece:
    asked = questions.resolver(config.paths, runner, daemon.address, daemon.listens_at)
    name, path = "this host's resolver", config.paths.at(questions.RESOLV_CONF)
    if asked.is_ours:
        return Piece(name, State.OK, f"{asked.address} ({path})", Kind.DNSMASQ)
    detail = f"{asked.address}, should be {daemon.address} ({path})"
    return Piece(name, State.MISMATCH, detail, Kind.DNSMASQ, remedy="gfwtools bootstrap")


def _sets_before_dnsmasq(config: Config, runner: Runner) -> bool | None:
    """Whether dnsmasq started, or cleared its cache, after the sets were made; None where that is not known."""
    known = record.load(config.paths, boot_id(config.paths, runner))
    if known.cache_cleared or not known.sets_made:
        return True if known.cache_cleared else None
    try:
        pid = int(config.paths.at(config.dns.pid_file).read_text())
        # Field 22, behind the name in parentheses, which may hold blanks itself (proc(5)).
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return ticks / 100 + 1 >= known.sets_made  # USER_HZ is 100 everywhere; one second of grace for a common start
