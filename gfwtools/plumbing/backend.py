"""What marks the packets: iptables with ipset, or nftables. Nothing else in gfwtools knows which of the two it is.

A backend's text, such as the names of its sets and its seed, is in :mod:`gfwtools.render.backends`, where every update
finds it without the rest; which one a host has is decided in :mod:`gfwtools.plumbing.choice`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gfwtools.config.model import Address, BackendName, Config, Network, Paths, PolicyConfig
from gfwtools.errors import HostError
from gfwtools.plumbing.choice import decide, require
from gfwtools.plumbing.facts import Family
from gfwtools.plumbing.iptables import Iptables
from gfwtools.plumbing.nftables import Nftables
from gfwtools.plumbing.plan import Part, Piece
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.wanted import Wanted
from gfwtools.render.backends import TEXTS, Text
from gfwtools.system.commands import Command, Runner
from gfwtools.system.step import Step

__all__ = [
    "BACKENDS",
    "Backend",
    "Marking",
    "backend_of",
    "direct_sets_with",
    "seed_files",
    "sets_with",
    "working_backend",
]


class Backend(Part[Any], Protocol):
    """A backend. ``there`` and ``wanted`` are states in its own words; no other code reads them."""

    name: BackendName
    listing_tools: tuple[str, ...]
    """The programs that :meth:`sizes` and :meth:`counters` need."""

    # ---- from one state to another; pieces() and steps() are those of a Part

    def observe(self, runner: Runner, policies: Sequence[PolicyConfig], record: Record) -> Any:
        """What of ours is there, of these policies and of those that the record knows."""

    def want(self, wanted: Wanted, families: Iterable[Family], there: Any) -> Any:
        """The state that ``wanted`` asks for, on a host with ``there``."""

    def nothing(self, there: Any, record: Record) -> Any:
        """The state where nothing of ours is left."""

    def is_there(self, there: Any) -> bool:
        """Whether some of ours is in the kernel."""

    def lacks_sets(self, there: Any, wanted: Any) -> bool:
        """Whether a set is missing, or holds nothing of what it should hold from the start."""

    def next_record(self, record: Record, there: Any, wanted: Any) -> Record:
        """The record once the steps are done."""

    def learned(
        self, there: Any, policy: PolicyConfig, seeds: Iterable[Network], most: int | None = None
    ) -> tuple[Address, ...]:
        """The addresses that dnsmasq has put into the sets of the policy.

        :param seeds: what was in the sets before.
        :param most: of each set no more than this.
        """

    def held(self, there: Any, policy: PolicyConfig) -> tuple[tuple[str, int], ...]:
        """The sets of the policy that dnsmasq fills, and how many elements are in each."""

    def foreign_chains(self, runner: Runner) -> Mapping[str, str]:
        """Chains of others that have our name -> the command that renames each."""

    # ---- single questions and one command

    def holding(self, runner: Runner, sets: Iterable[str], address: Address) -> list[str]:
        """Those of the sets that hold the address, or a network with it."""

    def sizes(self, runner: Runner, policy: PolicyConfig) -> tuple[tuple[str, int | None], ...]:
        """The sets of the policy, and how many elements are in each; None for a set that is not there."""

    def counters(self, runner: Runner) -> Iterator[tuple[int, int, int]]:
        """Packets, bytes and mark of each rule that marks."""

    def seed_step(self, policy: PolicyConfig, path: Path, old: bytes) -> Step:
        """The step that loads a seed file into the kernel. What was in the last one and is not in this one goes.

        :param old: the last one; empty for none.
        """

    def forget_step(self, policy: PolicyConfig, addresses: Iterable[Address]) -> Step:
        """The step that takes addresses out of the sets that dnsmasq fills. They are in them."""

    def unmake(self, runner: Runner, policy: PolicyConfig) -> tuple[Command, ...]:
        """The commands that remove those sets of the policy that are not there yet, once they were made."""

    def seed_problem(self, step: Step, message: str, runner: Runner) -> HostError | None:
        """The error for a step that failed with ``message``; None where the message itself is clear."""


#: In the order in which they are surveyed.
BACKENDS: Mapping[BackendName, Backend] = {backend.name: backend for backend in (Iptables(), Nftables())}


def backend_of(config: Config, runner: Runner) -> Backend:
    """The one that is decided on (:func:`~gfwtools.plumbing.choice.decide`), whether or not it works."""
    return BACKENDS[decide(config, runner)]


def working_backend(config: Config, runner: Runner) -> Backend:
    """The one that is decided on.

    :raises HostError: it cannot work here.
    """
    return BACKENDS[require(config, runner)]


@dataclass(frozen=True, slots=True)
class Marking:
    """The part of the plumbing that a backend has: the present state and the wanted state."""

    backend: Backend
    there: Any
    wanted: Any

    def pieces(self) -> list[Piece]:
        return self.backend.pieces(self.there, self.wanted)

    def steps(self) -> list[Step]:
        return self.backend.steps(self.there, self.wanted)

    @property
    def is_there(self) -> bool:
        return self.backend.is_there(self.there)

    @property
    def lacks_sets(self) -> bool:
        return self.backend.lacks_sets(self.there, self.wanted)

    def next_record(self, record: Record) -> Record:
        return self.backend.next_record(record, self.there, self.wanted)


def sets_with(runner: Runner, backend: Backend, policy: PolicyConfig, address: Address) -> list[str]:
    """Of the sets whose packets are marked, those that hold ``address``, be it in a network."""
    return backend.holding(runner, _text(backend).names(policy).marked_in(address.version), address)


def direct_sets_with(runner: Runner, backend: Backend, policy: PolicyConfig, address: Address) -> list[str]:
    """The same for the set of the exceptions, which nothing marks."""
    return backend.holding(runner, _text(backend).names(policy).direct_in(address.version), address)


def seed_files(backend: Backend, paths: Paths, policy: PolicyConfig) -> list[Path]:
    """The seed file of the backend, then those of the others."""
    return [text.seed_file(paths, policy.name) for text in dict.fromkeys((_text(backend), *TEXTS.values()))]


def _text(backend: Backend) -> Text:
    return TEXTS[backend.name]
