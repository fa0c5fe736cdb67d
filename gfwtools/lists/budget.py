"""How much of a list is read: a hostile one is refused early, before it has the memory or the time of a router."""

from gfwtools.errors import ListError
from gfwtools.lists.rule import Anchor, Rule

__all__ = ["MOST_RULES", "Budget"]

#: A million domains take 0.45 GB and 5 s of CPU on a slow core. A hosts file has many names a line, so that the number
#: of lines is no bound.
MOST_RULES = 1_000_000
#: More networks than this are refused: each takes half a kilobyte while a list is read, and a set has 65,536 entries by
#: default (ipset(8)). The routes of all of China are some 4,000.
MOST_NETWORKS = 32_768
#: What exceptions, and rules with a wildcard, an expression or another script, may cost together, in microseconds of a
#: slow core. gfwlist's cost 10,000.
MOST_COST = 4_000_000
#: What the shortest of them costs; the rest is by its length (measured: 20 to 70, and 1 a character).
_EACH = 48
#: What an exception costs more than a block.
_EXCEPTION = 10


class Budget:
    """Counts what was read of one list."""

    def __init__(self) -> None:
        self._rules = 0
        self._cost = 0

    def rules(self, count: int) -> None:
        """:raises ListError: with ``count`` more the list has too many rules."""
        self._rules += count
        if self._rules > MOST_RULES:
            raise ListError(f"the list has more than {MOST_RULES:,} rules; it is not read to its end")

    def rule(self, rule: Rule) -> None:
        """:raises ListError: with ``rule`` there are too many, or too many that cost much."""
        self.rules(1)
        host = rule.host
        if rule.exception:
            self._add(_EXCEPTION)
        is_ascii = host.isascii()
        if not is_ascii or "*" in host or rule.anchor is Anchor.REGEX:
            self._add(_EACH + len(host) * (1 if is_ascii else 3))

    def _add(self, cost: int) -> None:
        self._cost += cost
        if self._cost > MOST_COST:
            raise ListError(
                "the list has too many exceptions, or rules with wildcards, expressions or names in other scripts; "
                "it is not read to its end"
            )

    def networks(self, count: int) -> None:
        """:raises ListError: ``count`` addresses and networks are too many."""
        if count > MOST_NETWORKS:
            raise ListError(f"the list has more than {MOST_NETWORKS:,} addresses and networks")
