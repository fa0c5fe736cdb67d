"""Connections that the plumbing of now would send another way than they began: they are removed from conntrack.

A connection keeps the source address of its first packet. One that began before a rule was there, or whose policy has
moved or gone, would hang as long as packets are sent. Without its entry, the next packet begins it anew.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import cache
from ipaddress import ip_network
from typing import NamedTuple

from gfwtools.config.model import Address, Config, Network, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.backend import Backend, seed_files
from gfwtools.plumbing.facts import seeds_of
from gfwtools.plumbing.survey import Survey
from gfwtools.plumbing.wanted import Connmark, Masked, connmarks
from gfwtools.system import conntrack
from gfwtools.system.conntrack import Connection
from gfwtools.system.step import Step

__all__ = ["Networks", "adopt", "begin_again", "drop", "drop_all", "foresee", "gone", "leave", "settle"]

_UDP = 17
_MOVED = "they began on a way that is gone"
_RUNNING = "running connections"
_LEFT = "their address has left the sets"
_EARLY = "they began before the rules or the sets knew them"


class Networks:
    """Networks of both families; ``in`` asks whether an address is in one of them."""

    def __init__(self, networks: Iterable[Network | Address]) -> None:
        self._numbers: dict[tuple[int, int], set[int]] = defaultdict(set)
        for network in map(ip_network, networks):
            bits = network.max_prefixlen - network.prefixlen
            self._numbers[network.version, bits].add(int(network.network_address) >> bits)

    def __contains__(self, address: Address) -> bool:
        return any(
            version == address.version and int(address) >> bits in numbers
            for (version, bits), numbers in self._numbers.items()
        )


def gone(before: Iterable[Connmark], after: Collection[Connmark]) -> tuple[Masked, ...]:
    """The connection marks of policies that are no longer there, or have another value, mark, table or interface."""
    return tuple(dict.fromkeys(bits for mark in before if mark not in after for bits in mark.forms))


class _Stale(NamedTuple):
    """Connections that have to begin anew."""

    includes: Callable[[Connection], bool]
    why: str
    unanswered: bool = False
    """Only those that no packet of the other side has been seen of."""


def adopt(config: Config, survey: Survey) -> list[Step]:
    """Before ``up`` runs the steps of ``survey``: what rules without connection marks have sent into a tunnel stays.

    :returns: what was done, as steps without commands.
    """
    if not survey.steps:
        return []
    with suppress(HostError):  # settle() names a kernel that cannot
        if count := conntrack.mark(_adopted_mark(config, survey)):
            return [Step(f"{_words(count)} marked in conntrack", "they go on as they began", (), ())]
    return []


def settle(config: Config, survey: Survey) -> list[Step]:
    """After ``up`` has run the steps of ``survey``.

    :returns: what was done, as steps without commands.
    """
    return [step for stale in _stale(config, survey) for step in _remove(stale)]


def foresee(config: Config, survey: Survey) -> list[Step]:
    """What :func:`settle` would remove if ``up`` ran the steps of ``survey`` now. Nothing is changed.

    :returns: steps without commands.
    """
    try:
        found = conntrack.connections()
    except HostError as error:
        return [Step(_RUNNING, error.message, (), ())]
    if survey.steps:
        adopted = _adopted_mark(config, survey)
        found = [each._replace(mark=_marked(each.mark, bits)) if (bits := adopted(each)) else each for each in found]
    steps = []
    for stale in _stale(config, survey):
        gone = [each for each in found if not (stale.unanswered and each.answered) and stale.includes(each)]
        found = [each for each in found if each not in gone]
        if gone:
            steps.append(Step(f"{_words(len(gone))} to remove from conntrack", stale.why, (), ()))
    return steps


def _adopted_mark(config: Config, survey: Survey) -> Callable[[Connection], Masked | None]:
    """The mark that a connection gets which goes through a tunnel without one; None for another."""
    forms = _forms(survey.wanted.connmarks)
    tunnels = _tunnels(survey)
    inside = _in_sets(config, survey)

    def bits(found: Connection) -> Masked | None:
        if not found.answered or _has(found, forms) or found.answers_to not in tunnels:
            return None
        return tunnels[found.answers_to] if found.destination in inside() else None

    return bits


def _marked(mark: int, bits: Masked) -> int:
    return (mark & ~bits.mask) | bits.value


def _stale(config: Config, survey: Survey) -> list[_Stale]:
    """What has to begin anew once ``up`` has run the steps of ``survey``."""
    forms = _forms(survey.wanted.connmarks)
    resolvers = {upstream.address for policy in config.policies for upstream in policy.upstream}
    inside = _in_sets(config, survey)

    def is_early(found: Connection) -> bool:
        return not found.answered and not _has(found, forms) and found.destination in inside()

    def is_astray(found: Connection) -> bool:
        """The rules were away, or were others: what has our mark may lack its address."""
        if _has(found, forms):
            return not found.answered
        if not found.answered:
            return found.destination in inside()
        # The answer to a question that was asked directly is forged.
        return found.protocol == _UDP and found.destination in resolvers

    moved = _with_marks(gone(survey.record.connmarks, survey.wanted.connmarks))
    early = _Stale(is_astray, _EARLY) if survey.steps else _Stale(is_early, _EARLY, unanswered=True)
    return [*moved, early]


def begin_again(config: Config, backend: Backend, policies: Iterable[PolicyConfig]) -> list[Step]:
    """After the seeds of ``policies`` were loaded: what was sent to them before, and is not answered.

    :returns: what was done, as steps without commands.
    """
    forms = _forms(connmarks(config))
    seeds = [seed for policy in policies for seed in seeds_of(seed_files(backend, config.paths, policy), policy)]
    inside = Networks(seeds)
    if not seeds:
        return []
    return _remove(
        _Stale(lambda found: not _has(found, forms) and found.destination in inside, _EARLY, unanswered=True)
    )


def leave(config: Config, addresses: Collection[Address]) -> list[Step]:
    """After ``addresses`` have left the sets: what goes to them through a tunnel begins anew, and directly.

    :returns: what was done, as steps without commands.
    """
    forms = _forms(connmarks(config))
    return _remove(_Stale(lambda found: found.destination in addresses and _has(found, forms), _LEFT))


def drop(marks: Collection[Masked]) -> list[Step]:
    """Remove the connections that have one of ``marks``.

    :returns: what was done, as steps without commands.
    """
    return [step for stale in _with_marks(marks) for step in _remove(stale)]


def drop_all(config: Config, survey: Survey) -> list[Step]:
    """After ``down`` has run the steps of ``survey``: the connections of every policy.

    :returns: what was done, as steps without commands.
    """
    known = survey.record.connmarks or (connmarks(config) if survey.is_up else ())
    return drop(gone(known, ()))


def _with_marks(marks: Collection[Masked]) -> list[_Stale]:
    return [_Stale(lambda found: _has(found, marks), _MOVED)] if marks else []


def _forms(marks: Iterable[Connmark]) -> tuple[Masked, ...]:
    return tuple(bits for mark in marks for bits in mark.forms)


def _has(connection: Connection, marks: Iterable[Masked]) -> bool:
    return any(connection.mark & mask == value for value, mask in marks)


def _tunnels(survey: Survey) -> dict[Address, Masked]:
    """The addresses of the policies' interfaces -> the connection mark of the interface's first policy."""
    facts = survey.facts
    assert facts is not None
    found: dict[Address, Masked] = {}
    for mark in survey.wanted.connmarks:
        interface = facts.interfaces.get(mark.interface)
        for address in interface.addresses if interface else ():
            found.setdefault(address.ip, mark.bits)
    return found


def _in_sets(config: Config, survey: Survey) -> Callable[[], Networks]:
    """What the sets hold: the seeds, and what dnsmasq has learned. It is put together when it is asked for."""
    facts = survey.facts
    assert facts is not None

    def held() -> Iterator[Network | Address]:
        for policy in config.policies:
            seeds = facts.seeds.get(policy.name, ())
            yield from seeds
            yield from facts.learned.get(policy.name, ())
            for marking in survey.markings:
                if marking.backend is survey.backend:
                    yield from marking.backend.learned(marking.there, policy, seeds)

    return cache(lambda: Networks(held()))


def _words(count: int) -> str:
    return f"{count} connection{'s' * (count != 1)}"


def _remove(stale: _Stale) -> list[Step]:
    """A kernel that cannot is named in the step."""
    try:
        count = conntrack.forget(stale.includes, unanswered=stale.unanswered)
    except HostError as error:
        return [Step(_RUNNING, error.message, (), ())]
    if not count:
        return []
    return [Step(f"{_words(count)} removed from conntrack", stale.why, (), ())]
