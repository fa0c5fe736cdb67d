"""The Public Suffix List that ships inside tldextract, and the two questions that are asked of it.

The list is read from tldextract's own bundled file and tldextract itself is not imported: it brings requests, which
costs 0.1 s, and 20 microseconds a name, where the look-up here takes a quarter of one. Nothing is ever fetched.
Algorithm: publicsuffix.org/list, "Algorithm"; private suffixes count.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gfwtools.errors import GfwtoolsError

__all__ = ["Suffixes", "bundled", "bundled_path"]

_PRIVATE = "===BEGIN PRIVATE DOMAINS==="


class Suffixes:
    """A Public Suffix List, by its two sections."""

    __slots__ = ("_exceptions", "_icann", "_rules", "_wild")

    def __init__(self, icann: Iterable[str], private: Iterable[str]) -> None:
        """``icann`` and ``private``: the rules of the two sections as the list writes them, in Unicode or A-labels."""
        self._icann = set(_as_a_labels(icann))
        every = self._icann.union(_as_a_labels(private))
        special = [rule for rule in every if rule[0] in "*!"]
        self._rules = every.difference(special)
        self._wild = {rule[2:] for rule in special if rule[0] == "*"}  # "ck" of "*.ck"
        self._exceptions = {rule[1:] for rule in special if rule[0] == "!"}  # "www.ck" of "!www.ck"

    def is_suffix(self, name: str) -> bool:
        """Whether ``name`` (A-labels) is a public suffix, ICANN's or private; a single unknown label is one."""
        if name in self._rules:
            return True
        _, dot, parent = name.partition(".")
        return not dot or (parent in self._wild and name not in self._exceptions)

    def is_icann(self, name: str) -> bool:
        """Whether ``name`` is a suffix of ICANN's section, or a single label."""
        if name in self._icann:
            return True
        _, dot, parent = name.partition(".")
        return not dot or (f"*.{parent}" in self._icann and name not in self._exceptions)

    def has_suffixes(self, name: str) -> bool:
        """Whether everything right below ``name`` is a suffix by a rule such as ``*.kawasaki.jp``."""
        return name in self._wild

    def is_known(self, name: str) -> bool:
        """Whether ``name`` ends in a top-level domain that exists, as ``index.php`` does not."""
        top = name.rpartition(".")[2]
        return top in self._icann or f"*.{top}" in self._icann

    def registrable(self, name: str) -> str:
        """The domain one label below the longest public suffix of ``name``; a suffix itself is returned as it is."""
        rules, wild = self._rules, self._wild
        if name in rules:
            return name
        below = rest = name
        while True:
            dot = rest.find(".")
            parent = rest[dot + 1 :]
            if parent in wild and rest not in self._exceptions:
                return below  # "rest" is a suffix by a rule such as *.ck
            if parent in rules or rest in self._exceptions:
                return rest
            if dot < 0:
                return below  # an unknown top-level domain is a suffix (the rule "*")
            below, rest = rest, parent


def _as_a_labels(rules: Iterable[str]) -> list[str]:
    """The rules are in Unicode, normalised and lower case already, so that Punycode (RFC 3492) alone makes A-labels."""
    return [rule if rule.isascii() else ".".join(map(_a_label, rule.split("."))) for rule in rules]


def _a_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"


@cache
def bundled_path() -> Path:
    """Where the list of the installed tldextract lies.

    :raises GfwtoolsError: tldextract is not installed whole.
    """
    spec = find_spec("tldextract")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, ".tld_set_snapshot")
        if path.is_file():
            return path
    raise GfwtoolsError(
        "tldextract's suffix list is missing; install it again: pip install --force-reinstall tldextract"
    )


@cache
def bundled() -> Suffixes:
    """The list that ships with the installed tldextract.

    :raises GfwtoolsError: tldextract is not installed whole.
    """
    icann, _, private = bundled_path().read_text(encoding="utf-8").partition(_PRIVATE)
    return Suffixes(_rules(icann), _rules(private))


def _rules(section: str) -> list[str]:
    # A rule is the first word of a line that is no comment. One expression over it all: ten thousand lines in 3 ms.
    found: list[str] = re.findall(r"^(?!//)\S+", section, re.MULTILINE)
    return found
