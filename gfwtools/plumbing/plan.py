"""The parts of the plumbing: what each finds on the host, and the steps from there to what is wanted.

A :class:`Part` says what is there, and how to get from one state to another. ``up`` goes from what is there to what is
wanted, ``down`` from what is there to nothing, and the inverse of a step is the same way back: one function a part
serves all three.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from gfwtools.system.step import Step

__all__ = ["Comparison", "Kind", "Part", "Piece", "State", "Worded", "compare"]

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class State(StrEnum):
    """How a piece of the host compares with what is wanted. UNKNOWN could not be seen."""

    OK = "OK"
    MISSING = "MISSING"
    MISMATCH = "MISMATCH"
    UNKNOWN = "UNKNOWN"


class Kind(StrEnum):
    """What a piece is a part of."""

    SETS = "sets"
    CHAIN = "chain"  #: the chain that marks
    JUMP = "jump"  #: from the hooks into that chain
    KILL_SWITCH = "kill switch"  #: drops what would leave by another way than its tunnel
    CLAMP = "clamp"  #: the size of TCP segments
    NAT = "nat"
    RULE = "rule"
    ROUTE = "route"
    SYSCTL = "sysctl"
    NAMES = "names"  #: of tables, for people
    TUNNEL = "tunnel"  #: the interface, and its traffic
    ENDPOINT = "endpoint"  #: of the tunnel's peer
    FIREWALL = "firewall"  #: rules of other programs
    DNSMASQ = "dnsmasq"
    RESOLVERS = "resolvers"  #: for names that are not blocked
    LIST = "list"  #: and whether dnsmasq has read it


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that is wanted, and how it is. ``name``, ``detail`` and ``remedy`` are for people; code reads the other
    fields."""

    name: str
    state: State
    detail: str = ""
    kind: Kind = Kind.NAMES
    subject: object = None
    """The value of :mod:`~gfwtools.plumbing.wanted` that it is about; None where it is about the whole of its kind."""
    extra: bool = False
    """It is there and not wanted."""
    remedy: str = ""
    """The command that fixes it; empty where it is OK, or where ``gfwtools up`` does."""

    def to_json(self) -> dict[str, str | None]:
        """The object that ``check host --json`` and ``status --json`` print."""
        return {
            "name": self.name,
            "state": self.state.value,
            "detail": self.detail,
            "remedy": self.remedy or None,
        }


class Worded(str):
    """A rule in the words of a backend, with the value of :mod:`~gfwtools.plumbing.wanted` that it says."""

    subject: object

    @classmethod
    def of(cls, text: str, subject: object) -> "Worded":
        made = cls(text)
        made.subject = subject
        return made


class Part(Protocol[S_contra]):
    """One part of the plumbing. Both functions are pure, and ``steps`` is empty exactly where all pieces are OK."""

    def pieces(self, there: S_contra, wanted: S_contra) -> list[Piece]:
        """Every piece of ``wanted``, and every piece of ours that should not be there."""

    def steps(self, there: S_contra, wanted: S_contra) -> list[Step]:
        """The steps from ``there`` to ``wanted``, in an order in which no packet goes astray."""


@dataclass(frozen=True, slots=True)
class Comparison(Generic[S]):
    """A part: the present state and the wanted state."""

    part: Part[S]
    there: S
    wanted: S

    def pieces(self) -> list[Piece]:
        return self.part.pieces(self.there, self.wanted)

    def steps(self) -> list[Step]:
        return self.part.steps(self.there, self.wanted)


def compare(
    kind: Kind, name: str, wanted: Sequence[str], there: Sequence[str] | None, same: Callable[[str], object]
) -> list[Piece]:
    """The pieces of a chain: each rule that is wanted, each of ours that is not, and the order they are in.

    :param there: None where the chain is missing.
    :param same: rule -> a value that is equal for two spellings of one rule.
    """
    have = [same(rule) for rule in there or ()]
    want = [same(rule) for rule in wanted]
    pieces = [
        Piece(
            name,
            State.OK if key in have else State.MISSING,
            rule,
            kind,
            rule.subject if isinstance(rule, Worded) else None,
        )
        for key, rule in zip(want, wanted, strict=True)
    ]
    if not wanted and there is None:
        pieces.append(Piece(name, State.MISSING, kind=kind))
    pieces += [
        Piece(name, State.MISMATCH, f"not wanted: {rule}", kind, extra=True)
        for key, rule in zip(have, there or (), strict=True)
        if key not in want
    ]
    if have != want and all(piece.state is State.OK for piece in pieces):
        pieces.append(Piece(name, State.MISMATCH, "rules twice or in another order", kind))
    return pieces
