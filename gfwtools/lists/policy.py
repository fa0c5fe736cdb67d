"""A policy: look names up in it, and find the smallest output that means the same.

:meth:`Policy.lookup` is the meaning. :meth:`Policy.cover` is its smallest encoding as domains that each stand for
themselves and everything under them, the longest one deciding, which is how dnsmasq reads a file; that the two agree
for every name is a property test.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Set
from enum import Enum
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from gfwtools.config.model import Network
from gfwtools.lists.hostname import to_ascii

__all__ = ["Cover", "Match", "MatchReason", "Policy", "Ref", "Standing", "Verdict"]

Verdict = Literal["tunnel", "direct"]
MatchReason = Literal["list", "deny", "allow", "exception", "direct", "none"]


class Match(NamedTuple):
    """What happens to a name, and why."""

    verdict: Verdict
    matched: str | None
    """The domain that decided; ``*.name`` for an exception that frees only what is under the name."""
    reason: MatchReason


#: Nothing covers the name: most names, so that it is made once.
_UNNAMED = Match("direct", None, "none")


class Cover(NamedTuple):
    """Domains where the verdict is another than above them, each with all that is under it. Both lists are sorted."""

    tunnelled: list[str]
    freed: list[str]
    """From here on downwards it is direct again; ``*.domain``, as dnsmasq writes it, where that is so under the domain
    and not at the domain itself."""

    @property
    def patterns(self) -> list[str]:
        """All of both."""
        return self.tunnelled + self.freed


class Ref(NamedTuple):
    """Where an entry of a list stands."""

    source: str
    line: int


class Standing(NamedTuple):
    """The blocks of a policy without those that are under another block and nothing else."""

    alone: list[str]
    """With nothing above them."""
    contested: list[str]
    """With an exception, or a domain of the user's or of a direct list, at or above them."""


class _By(Enum):
    """What says something about a domain or one above it."""

    NOTHING = 0
    BLOCKS = 1
    OTHERS = 2  #: exceptions or the user's domains, and perhaps blocks as well


class _Above(dict[str, _By]):
    """Domain -> what says something about it or one above it. Names of one parent ask once.

    Only what was asked is kept, not what is above it: a hostile list has names of a hundred labels.
    """

    def __init__(self, blocks: Set[str], special: Set[str]) -> None:
        super().__init__()
        self._blocks = blocks
        self.special = special

    def __missing__(self, name: str) -> _By:
        by, rest = _By.NOTHING, name
        while rest:
            if rest in self.special:
                by = _By.OTHERS
                break
            if rest in self._blocks:
                by = _By.BLOCKS
            rest = rest.partition(".")[2]
        self[name] = by
        return by


class Policy:
    """A named decision over all names; build one with :func:`gfwtools.compile`.

    The dictionaries go from a domain in A-labels to where it was first said. They are not to be changed.
    """

    def __init__(self) -> None:
        self.blocks: dict[str, int] = {}
        """Domain -> its line in the fetched list."""
        self.exceptions: dict[str, int] = {}
        self.under: dict[str, int] = {}
        """Exceptions that free what is under a domain and not the domain itself."""
        self.deny: dict[str, Ref] = {}
        self.allow: dict[str, Ref] = {}
        self.direct: dict[str, Ref] = {}
        """Domains of the direct lists: no block of the fetched list is widened over them."""
        self.narrow: dict[str, int] = {}
        """The blocks as the fetched list writes them, not widened -> its line; only where there are direct lists."""
        self.networks: dict[Network, Ref] = {}
        """Addresses of the list's IP rules."""
        self.freed: dict[Network, Ref] = {}
        """Addresses of the list's exceptions."""
        self.denied: dict[Network, Ref] = {}
        """Addresses and networks of the deny lists."""
        self.allowed: dict[Network, Ref] = {}
        """Addresses and networks of the allow lists."""

    def lookup(self, name: str) -> Match:
        """What happens to ``name``: any spelling of a host name is understood.

        The longest of the user's domains that covers it decides, deny before allow; else an exception frees it; else a
        block tunnels it. Where a direct list covers the name, only a block that is not widened does.

        :raises InvalidNameError: it is no host name.
        """
        return self.match(to_ascii(name))

    def match(self, name: str, *, inside: bool = False) -> Match:
        """The match of a name in A-labels; with ``inside``, of a name under it that no list names."""
        blocks, special = self.blocks, self.special
        block = exception = None
        rest = name
        while True:
            if rest in blocks:
                block = rest  # the last one is the widest, and that is the one that gets written
            if rest in special:  # one look for the four that most names are in none of
                if rest in self.deny:
                    return Match("tunnel", rest, "deny")
                if rest in self.allow:
                    return Match("direct", rest, "allow")
                if not exception:
                    if rest in self.exceptions:
                        exception = rest
                    elif inside or rest is not name:  # what is left is in under
                        exception = f"*.{rest}"
            dot = rest.find(".")
            if dot < 0:
                break
            rest = rest[dot + 1 :]
        if exception:
            return Match("direct", exception, "exception")
        if block:
            return self._unless_direct(name, block) if self.direct else Match("tunnel", block, "list")
        return _UNNAMED

    def _unless_direct(self, name: str, block: str) -> Match:
        """The match of a name that ``block``, which may be widened, covers and no exception frees."""
        direct = self._at_or_above(name, self.direct)
        if direct is None:
            return Match("tunnel", block, "list")
        narrow, rest = None, name
        while rest:
            if rest in self.narrow:
                narrow = rest  # the last one is the widest, as for blocks
            rest = rest.partition(".")[2]
        return Match("tunnel", narrow, "list") if narrow else Match("direct", direct, "direct")

    def is_direct(self, name: str) -> bool:
        """Whether a direct list covers ``name``, in A-labels."""
        return self._at_or_above(name, self.direct) is not None

    @staticmethod
    def _at_or_above(name: str, domains: Container[str]) -> str | None:
        """The longest of ``domains`` that covers ``name``."""
        while name and name not in domains:
            name = name.partition(".")[2]
        return name or None

    def cover(self, standing: Standing | None = None, *, beside: bool = False) -> Cover:
        """The smallest equivalent output.

        :param standing: what :meth:`standing` gives, where it is at hand.
        :param beside: it stands beside another policy's, of which a domain may lie between two of ours, or be the same
            as one of ours: all domains that are tunnelled or freed by name are in it, also those that another one
            covers.
        """
        standing = standing or self.standing()
        tunnelled: list[str] = standing.alone.copy()
        freed: list[str] = []
        names = self.special.union(standing.contested, self._narrowing)

        @lru_cache(1000)  # a million names have one parent at worst
        def is_tunnelled_below(parent: str) -> bool:
            return bool(parent) and self.match(parent, inside=True).verdict == "tunnel"

        for name in names:
            above = is_tunnelled_below(name.partition(".")[2])
            own = self.match(name).verdict == "tunnel"
            if own != above:
                (tunnelled if own else freed).append(name)
            if own and name in self.under and self.match(name, inside=True).verdict == "direct":
                freed.append(f"*.{name}")
        if beside:
            named = self.blocks.keys() | self.deny.keys() | self.narrow.keys()
            tunnelled = [*{*tunnelled, *(name for name in named if self.match(name).verdict == "tunnel")}]
            freed += self.unset(Cover(tunnelled, freed))
        return Cover(sorted(tunnelled), sorted(freed))

    def unset(self, cover: Cover) -> list[str]:
        """Domains that are direct by a ``*.domain`` above them, and by their own names as well. dnsmasq knows no
        wildcard for sets: beside the ``cover`` they have to be named there, to be in no set. Sorted."""
        if not self.under:
            return []
        names = [name for name in self.exceptions.keys() | self.allow.keys() if self._is_freed_twice(name)]
        if not names:
            return []
        wanted = dict.fromkeys(cover.tunnelled, True) | dict.fromkeys(cover.freed, False)
        found = []
        for name in sorted(names, key=lambda name: name.count(".")):  # what is above a name comes before it
            above = name
            while above and above not in wanted:
                above = above.partition(".")[2]
            if wanted.get(above):
                wanted[name] = False
                found.append(name)
        return sorted(found)

    def _is_freed_twice(self, name: str) -> bool:
        """By its own name, and by a wildcard above it."""
        match = self.match(name)
        above = self.match(name.partition(".")[2], inside=True).matched
        return match.verdict == "direct" and match.matched == name and bool(above) and str(above).startswith("*.")

    def standing(self) -> Standing:
        """The blocks, by what is above them. Only those that are contested are worth a closer look, which costs ten
        times as much: where there is nothing but other blocks above a block, it changes nothing."""
        special = self.special | self.direct.keys() if self.direct else self.special
        above = _Above(self.blocks.keys(), special)
        nothing, others = _By.NOTHING, _By.OTHERS
        alone, contested = [], []
        for name in self.blocks:
            by = above[name.partition(".")[2]]
            if by is others or name in special:
                contested.append(name)
            elif by is nothing:
                alone.append(name)
        return Standing(alone, contested)

    def of_list(self) -> "Policy":
        """The policy that the fetched list alone would be."""
        alone = Policy()
        alone.blocks, alone.exceptions, alone.under = self.blocks, self.exceptions, self.under
        alone.networks, alone.freed = self.networks, self.freed
        return alone

    @cached_property
    def special(self) -> set[str]:
        """The domains of everything but blocks."""
        return self.exceptions.keys() | self.under.keys() | self.deny.keys() | self.allow.keys()

    @cached_property
    def _narrowing(self) -> set[str]:
        """The domains at which a direct list changes something: its own under a block, and blocks at or under them."""
        if not self.direct:
            return set()
        freed = {name for name in self.direct if self._at_or_above(name, self.blocks)}
        return freed | {name for name in self.narrow if self._at_or_above(name, self.direct)}

    def seeds(self) -> list[Network]:
        """The networks that the lists put into the set, sorted.

        As for names, the user's win over the list's and the longer prefix wins among the user's, deny before allow; an
        allowed network inside a denied one is cut out of it. So is one that an exception frees out of the list's.
        """
        parts = [*self._parts(self.networks, self.freed).values(), *self._parts(self.denied, {}).values()]
        return sorted({part for found in parts for part in found}, key=_place)

    def seeded(self) -> set[Network]:
        """The list's networks that are in :meth:`seeds`, whole or in part."""
        return {network for network, parts in self._parts(self.networks, self.freed).items() if parts}

    def excepted(self) -> set[Network]:
        """The list's networks that an exception frees whole."""
        freed = _Networks(self.freed)
        return {network for network in self.networks if freed.longest(network) >= 0}

    def _parts(self, networks: Iterable[Network], exceptions: Iterable[Network]) -> dict[Network, list[Network]]:
        """What is left of each of ``networks`` by the user's lists and ``exceptions``."""
        allowed, denied, freed = _Networks(self.allowed), _Networks(self.denied), _Networks(exceptions)
        return {
            network: list(_without(network, allowed.inside(network) + freed.inside(network)))
            for network in networks
            if allowed.longest(network) <= denied.longest(network) and freed.longest(network) < 0
        }

    def freeing(self) -> set[Network]:
        """The exceptions' networks that have an address of one that the list blocks."""
        blocked = _Networks(self.networks)
        return {network for network in self.freed if blocked.longest(network) >= 0 or blocked.inside(network)}


class _Networks:
    """Networks in which another one is looked up in a few steps, however many they are."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._sorted = sorted(networks, key=_place)
        self._by_length: dict[tuple[int, int], set[int]] = {}  # version and prefix length -> prefixes
        for network in self._sorted:
            prefixes = self._by_length.setdefault((network.version, network.prefixlen), set())
            prefixes.add(_prefix(network, network.prefixlen))

    def longest(self, network: Network) -> int:
        """The prefix length of the longest one that covers ``network``; -1 where none does."""
        return max(
            (
                length
                for (version, length), prefixes in self._by_length.items()
                if version == network.version and length <= network.prefixlen and _prefix(network, length) in prefixes
            ),
            default=-1,
        )

    def inside(self, network: Network) -> list[Network]:
        """Those that are a part of ``network``, smaller than it."""
        end: tuple[int, int, int] = (network.version, int(network.broadcast_address), network.max_prefixlen)
        first = bisect_left(self._sorted, _place(network), key=_place)
        last = bisect_right(self._sorted, end, key=_place)
        return [other for other in self._sorted[first:last] if other.prefixlen > network.prefixlen]


def _place(network: Network) -> tuple[int, int, int]:
    """A key for sorting: a network stands right before what is inside it."""
    return network.version, int(network.network_address), network.prefixlen


def _prefix(network: Network, length: int) -> int:
    return int(network.network_address) >> (network.max_prefixlen - length)


def _without(network: Network, holes: list[Network]) -> Iterator[Network]:
    """``network`` without the smaller ones inside it, in the fewest pieces."""
    if not holes:
        yield network
        return
    for half in network.subnets():
        within = [hole for hole in holes if _prefix(hole, half.prefixlen) == _prefix(half, half.prefixlen)]
        if half not in within:
            yield from _without(half, within)
