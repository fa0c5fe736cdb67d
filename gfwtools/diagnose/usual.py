"""Do the resolvers answer that dnsmasq asks for names that are not blocked, and does dnsmasq pass that on?"""

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gfwtools.config.model import Config
from gfwtools.diagnose.link import Link, LinkState
from gfwtools.dnsmasq import client
from gfwtools.dnsmasq.client import Reply
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.dnsmasq.daemon import Daemon
from gfwtools.dnsmasq.usual import Usual, files_followed, usual_resolvers
from gfwtools.errors import GfwtoolsError
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.setup.lease_hooks import COPIES
from gfwtools.setup.tunnel_resolvers import resolvers_of_tunnels
from gfwtools.storage import atomic
from gfwtools.system.commands import Runner

__all__ = ["Asked", "ask_usual", "names_to_ask", "piece", "remedy", "usual_link"]


#: A name that every resolver of an ISP knows.
NAME = "example.com"
#: How many names that this host resolves directly are asked for where a resolver refuses the first.
MORE = 2
_PIECE = "resolvers for free names"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the usual resolvers said."""

    replies: tuple[tuple[Usual, Reply], ...] = ()
    files: tuple[str, ...] = ()
    """The files that dnsmasq follows."""
    problem: str = ""
    """Why they cannot be asked."""

    @property
    def answers(self) -> bool:
        return any(reply.usable for _, reply in self.replies)

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        if not self.replies:
            return f"{' and '.join(self.files) or 'the configuration of dnsmasq'} names no resolver but this host"
        return "; ".join(f"{usual}: {_said(reply)}" for usual, reply in self.replies)


def _said(reply: Reply) -> str:
    if reply.usable:
        return f"answers in {reply.seconds * 1000:.0f} ms"
    return reply.error or f"says {reply.rcode}"


def ask_usual(config: Config, names: Sequence[str]) -> Asked:
    """Ask all of them at the same time. A refused question is asked again with the next of ``names``."""
    try:
        usual = usual_resolvers(config)
        files = tuple(files_followed(config))
    except GfwtoolsError as error:
        return Asked(problem=str(error))
    if usual is None:
        return Asked(problem="a servers-file of your own names them")
    if not usual:
        return Asked(files=files)
    with ThreadPoolExecutor(max_workers=min(16, len(usual))) as pool:
        replies = pool.map(lambda one: _ask(one, names), usual)
        return Asked(tuple(zip(usual, replies, strict=True)), files)


def _ask(usual: Usual, names: Sequence[str]) -> Reply:
    server = usual.resolver
    reply = Reply("A")
    for name in names:
        reply = client.ask(server.address, server.port, name, "A")
        if reply.error:  # one packet may be lost
            reply = client.ask(server.address, server.port, name, "A")
        if reply.usable or reply.error:
            break
    return reply


def names_to_ask(config: Config) -> list[str]:
    """Names that the usual resolvers are asked for: a well-known one, and names that the list frees.

    A resolver may refuse what is not its own; it is one for this host where it answers any of them.
    """
    freed = [name for policy in config.policies for name in _lines(config, policy.name) if "*" not in name]
    return [NAME, *freed[:MORE]]


def _lines(config: Config, policy: str) -> list[str]:
    return (atomic.read(config.paths.direct(policy)) or b"").decode("utf-8", "replace").split()


def remedy(config: Config, asked: Asked) -> str:
    """What to do where none of them answers; it depends on who names them."""
    own = f"{config.dns.conf_dir.rstrip('/')}/{SNIPPET}"
    places = list(dict.fromkeys(usual.path for usual, _ in asked.replies)) or list(asked.files)
    instead = f"set dns.resolvers in {config.paths.config} to one that answers, then: gfwtools bootstrap"
    if config.dns.resolvers:
        return instead
    if any(place in (own, *COPIES) for place in places):
        return f"gfwtools update --reload, which looks them up again; or {instead}"
    return f"correct {' and '.join(places) or 'the configuration of dnsmasq'} (renew the lease?); or {instead}"


def piece(config: Config, daemon: Daemon, restart: str, runner: Runner) -> Piece:
    """The piece of ``check host``: a resolver for free names answers, and this host gets the answer from dnsmasq.

    :param restart: the command that restarts dnsmasq.
    """
    names = names_to_ask(config)
    asked = ask_usual(config, names)
    if not asked.answers:
        state = State.UNKNOWN if asked.problem else State.MISMATCH
        return Piece(_PIECE, state, str(asked), Kind.RESOLVERS, remedy="" if asked.problem else remedy(config, asked))
    if astray := _of_tunnels(config, asked, runner):
        detail = f"{astray} comes with the tunnel: what is not blocked goes through it, too"
        instead = f"gfwtools bootstrap, which leaves it out; or set dns.resolvers in {config.paths.config}"
        return Piece(_PIECE, State.MISMATCH, detail, Kind.RESOLVERS, remedy=instead)
    said = _ask_dnsmasq(daemon, names)
    if not said.usable:
        detail = f"dnsmasq at {daemon} does not pass their answers on: {_said(said)} ({asked})"
        return Piece(_PIECE, State.MISMATCH, detail, Kind.RESOLVERS, remedy=restart)
    return Piece(_PIECE, State.OK, str(asked), Kind.RESOLVERS)


def _ask_dnsmasq(daemon: Daemon, names: Sequence[str]) -> Reply:
    """Ask for what no cache has: a name that nobody has asked for, and a type for private use (RFC 6895, 3.1)."""
    number = random.SystemRandom().randint(65280, 65534)
    reply = Reply("A")
    for name in names:
        for asked, kind in ((f"gfwtools-{number}.{name}", "A"), (name, f"TYPE{number}")):
            reply = daemon.ask(asked, kind)
            if reply.usable:
                return reply
    return reply


def _of_tunnels(config: Config, asked: Asked, runner: Runner) -> str:
    """The resolvers of a file that dnsmasq follows which a tunnel has brought along; what the user has set is meant."""
    links = json.loads(runner.ask("ip", "-j", "address") or "[]")
    brought = {address for some in resolvers_of_tunnels(config, links, runner).values() for address in some}
    usual = [one for one, _ in asked.replies if one.path in asked.files and one.resolver.address in brought]
    return ", ".join(map(str, usual))


def usual_link(config: Config, asked: Asked) -> Link:
    """The link ``upstream`` of a name that goes directly."""
    expected = "one of the usual resolvers answers for this name"
    if asked.problem:
        return Link("upstream", LinkState.UNKNOWN, expected, asked.problem)
    if asked.answers:
        return Link("upstream", LinkState.OK, expected, str(asked))
    return Link("upstream", LinkState.BROKEN, expected, str(asked), remedy(config, asked))
