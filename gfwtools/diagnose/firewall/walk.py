"""The way of one packet through the chains of a firewall, to the rule that decides. Pure.

A rule that is not understood may match or not, so a walk can have several ends. Where all of them are the same verdict,
the rule does not matter. Where they differ, the verdict is not known, and the rule is named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from gfwtools.diagnose.firewall.packet import Packet

__all__ = ["BaseChain", "Chain", "End", "Judgement", "Jump", "Place", "Reading", "Rule", "Verb", "judge"]

#: Netfilter itself allows 16 jumps inside one another; so many rules are more than any packet meets.
DEPTH = 64
BUDGET = 200_000


class Verb(Enum):
    """What a rule does with a packet. ANYTHING is a target that is not understood.

    TRANSLATE gives it an address that the other end of the tunnel does not know.
    """

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    TRANSLATE = "translate"
    ANYTHING = "anything"

    @property
    def stops(self) -> bool:
        return self in (Verb.DROP, Verb.REJECT, Verb.TRANSLATE)


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain. ``final``: what returns from there returns from this chain as well (goto)."""

    chain: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A rule, or the policy of a chain."""

    program: str
    """What lists and changes it: ``nft``, ``iptables``, ``ip6tables-legacy``."""
    table: str
    chain: str
    rule: str
    """As the program shows it; for nft ``handle 5``."""

    def __str__(self) -> str:
        return f"{self.program} {self.table}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule does with a packet.

    ``certain``: the packet gets the one action, or none where there is none. Otherwise it may get any of them, or none.
    """

    packet: Packet
    """Behind the rule: it may have set a mark."""
    actions: tuple[Verb | Jump, ...] = ()
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    place: Place
    read: Callable[[Packet], Reading]


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    rules: Sequence[Rule]


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that netfilter calls at a hook. ``chains`` are those of its table, which it can jump to."""

    hook: str
    priority: int
    chain: Chain
    policy: Verb
    policy_place: Place
    chains: Mapping[str, Chain]
    device: tuple[str, ...] = ()
    """Of the netdev family: the interfaces whose packets it sees."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of the walk: the verdict, the rule that gives it, and the rule that is not understood on the way."""

    verb: Verb
    place: Place
    packet: Packet
    doubt: Place | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a packet in one base chain."""

    base: BaseChain
    packet: Packet
    """Behind the chain, where it passes."""
    passes: bool | None
    decided: Place
    """The rule that decides; where ``passes`` is None, the rule that is not understood."""
    verb: Verb = Verb.ACCEPT


@dataclass
class _Walk:
    chains: Mapping[str, Chain]
    ends: list[End] = field(default_factory=list)
    doubt: Place | None = None
    budget: int = BUDGET

    def through(self, chain: Chain, packet: Packet, depth: int) -> Packet | None:
        """The packet where it comes out of the chain again; None where it never does."""
        left: list[Packet] = []  # what may have returned before the end
        for rule in chain.rules:
            self.budget -= 1
            if self.budget < 0 or depth > DEPTH:
                self._end(Verb.ANYTHING, rule.place, packet)
                return None
            reading = rule.read(packet)
            if not reading.actions:
                packet = reading.packet
                continue
            if not reading.certain:
                before, self.doubt = self.doubt, self.doubt or rule.place
                ways = [packet, reading.packet]
                for action in reading.actions:
                    out = self._act(action, rule, reading.packet, depth)
                    if out is not None:
                        (left if action is Verb.RETURN or _is_final(action) else ways).append(out)
                packet = _merged(ways)
                # What is doubtful only says whether this rule matched: the walk goes on with or without it.
                self.doubt = before if not left else self.doubt
                continue
            action = reading.actions[0]
            out = self._act(action, rule, reading.packet, depth)
            if isinstance(action, Jump) and not action.final:
                if out is None:
                    return _merged(left) if left else None
                packet = out
                continue
            if out is not None:
                left.append(out)
            if action is Verb.ANYTHING:  # it may also let the packet go on to the next rule
                continue
            return _merged(left) if left else None
        return _merged([*left, packet])

    def _act(self, action: Verb | Jump, rule: Rule, packet: Packet, depth: int) -> Packet | None:
        """Take one action. The packet where the rule's chain, or its caller, goes on with it."""
        if isinstance(action, Jump):
            chain = self.chains.get(action.chain)
            if chain is None:
                self._end(Verb.ANYTHING, rule.place, packet)
                return packet
            return self.through(chain, packet, depth + 1)
        if action is Verb.RETURN:
            return packet
        self._end(action, rule.place, packet)
        return None

    def _end(self, verb: Verb, place: Place, packet: Packet) -> None:
        if verb is Verb.ANYTHING:
            self.doubt = self.doubt or place
            self.ends += [End(Verb.ACCEPT, place, packet, place), End(Verb.DROP, place, packet, place)]
        else:
            self.ends.append(End(verb, place, packet, self.doubt))


def judge(base: BaseChain, packet: Packet) -> Judgement:
    """The verdict of one base chain over a packet."""
    walk = _Walk(base.chains)
    out = walk.through(base.chain, packet, 0)
    if out is not None:
        walk.ends.append(End(base.policy, base.policy_place, out, walk.doubt))
    behind = _merged([end.packet for end in walk.ends if not end.verb.stops] or [packet])
    last = walk.ends[-1]
    others = [end for end in walk.ends if end.verb.stops != last.verb.stops]
    if others:
        doubt = others[0].doubt or last.doubt or others[0].place
        return Judgement(base, behind, None, doubt)
    decided = next((end for end in walk.ends if end.doubt is None), last)
    return Judgement(base, behind, not last.verb.stops, decided.place, decided.verb)


def _is_final(action: Verb | Jump) -> bool:
    return isinstance(action, Jump) and action.final


def _merged(packets: Sequence[Packet]) -> Packet:
    first = packets[0]
    for other in packets[1:]:
        first = first.merge(other)
    return first
