"""What ``update --reload`` repairs before it fetches a list: the plumbing, the daemons, the endpoint of the tunnel.

It comes first, because a host whose dnsmasq is dead or poisoned reaches no mirror. Each part is looked at also where
another one cannot be repaired.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq.conf import is_wired
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.dnsmasq.resolver import Reading, Resolver, Unread
from gfwtools.errors import GfwtoolsError, ResolverError
from gfwtools.plumbing import record, taken_down, updown
from gfwtools.render.files import Role, on_host
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state
from gfwtools.system.commands import Runner
from gfwtools.update.endpoint import Astray, astray, follow
from gfwtools.update.values import NotRepairedError, Update
from gfwtools.update.verify import require_daemons

__all__ = ["Repair", "repair"]

#: How many pieces of the plumbing are named in the one line for the log.
SHOWN = 4


@dataclass
class Repair:
    """What was found wrong on this host."""

    done: list[str] = field(default_factory=list)
    """What was repaired, in words."""
    notes: list[str] = field(default_factory=list)
    """What only the owner can change, such as an interface that is down."""
    problems: list[GfwtoolsError] = field(default_factory=list)
    """What could not be repaired."""

    def line(self) -> str:
        """What was repaired, in one line; empty where nothing was."""
        return f"repaired: {'; '.join(self.done)}" if self.done else ""

    def attempt(self, part: Callable[[], None]) -> None:
        """Run a part; where it fails the others still run."""
        try:
            part()
        except GfwtoolsError as error:
            self.problems.append(error)

    def raise_problems(self, done: Update, notes: list[str]) -> None:
        """Called after the update.

        :param notes: what its reload did.
        :raises NotRepairedError: something could not be repaired.
        """
        if self.problems:
            what = "; ".join(dict.fromkeys(problem.what for problem in self.problems))
            remedy = "; ".join(dict.fromkeys(problem.remedy for problem in self.problems if problem.remedy))
            raise NotRepairedError(f"not repaired: {what}", remedy or "run: gfwtools check host", done, notes)


def repair(config: Config, runner: Runner) -> Repair:
    """Do what ``up`` would, restart a daemon that is dead or has not read our files, follow the tunnel's endpoint.

    The caller holds the lock of an update. A host that was never set up is left alone. Where the plumbing was taken
    down by hand, only the daemons are looked at.
    """
    found = Repair()
    resolver: Resolver = Dnsmasq(config, runner)
    wired = is_wired(config)
    if wired or record.is_kept(config.paths):
        found.attempt(lambda: _plumbing(config, runner, resolver, found))
    if wired:
        found.attempt(lambda: _daemons(config, resolver, found))
        if not taken_down.is_noted(config.paths):
            found.attempt(lambda: _endpoints(config, runner, resolver, found))
    return found


def _plumbing(config: Config, runner: Runner, resolver: Resolver, found: Repair) -> None:
    kept = updown.keep_up(config, runner, clear_caches=resolver.clear_caches)
    if kept:
        seen, _ = kept
        names = list(dict.fromkeys(step.what for step in seen.steps))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        found.done += [f"{'; '.join(names[:SHOWN])}{more}"] if names else []
        found.notes += [note for note in seen.interfaces_down(config) if note not in found.notes]


def _daemons(config: Config, resolver: Resolver, found: Repair) -> None:
    main = resolver.main
    # One that runs and is silent may be reading a long list.
    is_up = main.is_up() or (resolver.is_running() and main.wait())
    dead = [policy for policy in config.policies if (second := resolver.second(policy)) and not second.is_up()]
    unread = {policy.name: _unread(config, policy, resolver) for policy in config.policies} if is_up else {}
    stale = [policy for policy in config.policies if _has(unread, Role.SECOND, policy.name) and policy not in dead]
    reading = Reading(not is_up or _has(unread, Role.MAIN), _has(unread, Role.SERVERS), (*dead, *stale))
    if not reading:
        return
    if not resolver.can_reload():
        wrong = [] if is_up else [f"dnsmasq does not answer at {main}"]
        wrong += [
            f"the second dnsmasq of {policy.name} does not answer at {resolver.second(policy)}" for policy in dead
        ]
        wrong += [each.detail for some in unread.values() for each in some]
        raise ResolverError("; ".join(wrong), 'restart it; gfwtools does not (dns.manager = "none")')
    resolver.check({})
    notes = resolver.reload(reading, was_up=is_up)
    require_daemons(config, resolver)
    found.done += notes


def _has(unread: Mapping[str, list[Unread]], role: Role, policy: str = "") -> bool:
    return any(each.role is role for name, some in unread.items() if policy in ("", name) for each in some)


def _unread(config: Config, policy: PolicyConfig, resolver: Resolver) -> list[Unread]:
    """The files that a daemon has not read though an update has seen that it had. Others are due, and no fault: the
    update has them read. It also writes a damaged file again, and no restart helps before that."""
    state = read_state(config.paths.state).of(policy.name)
    if not config.dnsmasq_conf(policy).exists():  # it names the other files: they are not read before it is there again
        return []
    found = [(on_host(config, each.path), each) for each in resolver.unread([policy])]
    return [
        each
        for path, each in found
        if path in state.loaded
        and state.loaded[path] == state.effective.get(path)
        and atomic.is_as_written(config.paths.at(path), state.files.get(path, ""))
    ]


def _endpoints(config: Config, runner: Runner, resolver: Resolver, found: Repair) -> None:
    def prepare(interface: str, address: Address) -> None:
        """Keep what goes to the new endpoint out of the tunnel, before anything goes there."""
        updown.keep_up(config, runner, clear_caches=resolver.clear_caches, endpoints={interface: address})

    def move(peer: Astray) -> None:
        found.done.append(follow(peer, runner, resolver.main, prepare))

    before = len(found.done)
    for peer in astray(config, runner, resolver.main):
        found.attempt(partial(move, peer))
    if len(found.done) > before:
        _plumbing(config, runner, resolver, found)
