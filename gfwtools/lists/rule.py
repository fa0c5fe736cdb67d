"""What a line of a list is, in any format."""

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

__all__ = ["MAX_LINE", "Anchor", "Rule", "Scan", "batches", "may_mean", "numbered", "too_long"]

#: The longest line that is read (characters). The longest name has 253, and dnsmasq itself reads no line of 1,025.
MAX_LINE = 4096
#: How much of a text is split into lines at once (characters): all lines of a large list take four times its size.
BATCH = 256 * 1024


class Anchor(Enum):
    """Where in a URL a rule's host pattern stands."""

    NAME = "name"  #: the line has a name, and can have nothing else: a list of domains, hosts(5), dnsmasq.conf(5)
    HOST = "host"  #: ``||host``: the host and everything under it
    URL = "url"  #: ``|scheme://host``: a URL that begins so
    LOOSE = "loose"  #: anywhere in a URL: a host, or only a keyword
    REGEX = "regex"  #: a regular expression over the URL
    NONE = "none"  #: nowhere: the line is not written as its format has it


class Rule(NamedTuple):
    """One line of a list, parsed."""

    line: int
    """Its number in the list, from 1."""
    text: str
    """The line as the list has it, without blanks around it."""
    exception: bool
    """``@@``: reachable directly."""
    host: str
    """The host pattern in lower case: it may hold ``*``, other characters than ASCII's, or anything else that a list
    writes there; the expression itself for :attr:`Anchor.REGEX`, and what is missing, in words, for
    :attr:`Anchor.NONE`."""
    anchor: Anchor
    whole: bool
    """The rule means every URL of its host: it has no path, no port and no scheme of its own."""


class Scan(NamedTuple):
    """Rules by how much there is to say of them: nine of ten are a name and no more.

    A Rule and a Target for each of a million lines took two seconds of four.
    """

    names: list[str]
    """Of plain blocks, rules such as ``||name``: the name, which is surely one
    (:func:`~gfwtools.lists.hostname.is_plain`)."""
    lines: list[int]
    """The line of each of ``names``."""
    rules: Iterable[Rule]
    """All others, in the list's order."""


def may_mean(rule: Rule, domain: str) -> bool:
    """Whether ``rule`` may mean ``domain`` (A-labels), its top-level domain or any under it. A question about one name
    keeps only such rules: a million of others would take a quarter of a gigabyte."""
    host = rule.host
    if rule.anchor is Anchor.REGEX or "*" in host or not host.isascii():
        return True
    return domain in host or host.strip(".") == domain.rpartition(".")[2]


def too_long(line: str, number: int) -> Rule:
    """What stands for a line that is longer than :data:`MAX_LINE`: no pattern is tried on it."""
    return Rule(
        number,
        line[:MAX_LINE],
        False,
        f"{line[:20]!r}... has {len(line):,} characters; of a line at most {MAX_LINE:,} are read",
        Anchor.NONE,
        True,
    )


def batches(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each part, from 1, and its lines."""
    number, start = 1, 0
    while True:
        end = text.find("\n", start + BATCH)
        lines = (text[start:] if end < 0 else text[start:end]).split("\n")
        yield number, lines
        if end < 0:
            return
        number, start = number + len(lines), end + 1


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its number, from 1."""
    for first, lines in batches(text):
        yield from enumerate(lines, first)
