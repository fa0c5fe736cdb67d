"""A rule's host pattern -> the domains that dnsmasq can match: a name and everything under it.

A pattern that dnsmasq cannot express is dropped with its reason; docs/lists.md has the table for users.
"""

from collections.abc import Collection
from contextlib import suppress
from enum import Enum
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from gfwtools.config.model import Network
from gfwtools.errors import InvalidNameError
from gfwtools.lists.hostname import CANARY, LOCAL, has_loose_hyphen, is_plain, to_ascii
from gfwtools.lists.rule import Anchor, Rule
from gfwtools.lists.suffixes import Suffixes

__all__ = ["Locator", "Reason", "Target", "known_names"]


class Reason(Enum):
    """Why a rule is dropped: a short name for programs, a sentence for people."""

    KEYWORD = ("keyword", "a keyword of URLs names no host")
    REGEX = ("regex", "a regular expression that names no single host")
    WILDCARD = ("wildcard", "a wildcard in place of the top-level domain")
    SUFFIX = ("suffix", "a wildcard that would take in a whole public suffix")
    TLD = ("tld", "a whole public suffix; only your own deny list may block one")
    RESERVED = ("reserved", "a name that is answered on this host or its LAN; only your own deny list may block one")
    NAME = ("name", "no valid host name")
    ADDRESS = ("address", "an address that can be no site's")
    NARROW = ("narrow-exception", "an exception for a part of a host, which DNS cannot distinguish")

    def __init__(self, slug: str, sentence: str) -> None:
        self.slug = slug
        self.sentence = sentence


class Target(NamedTuple):
    """What a rule comes to."""

    domains: tuple[str, ...] = ()
    """A-labels; more than one where a pattern such as ``google.*`` stands for the known domains of a name."""
    wider: bool = False
    """A domain is wider than what the rule names."""
    under: bool = False
    """Only what is under the domain, not the domain: ``@@||*.example.com``."""
    network: Network | None = None
    """The address of an IP rule, as a network."""
    reason: Reason | None = None
    """Why there is no domain."""
    detail: str = ""
    """More about the reason: what is wrong in the name."""


_HOST, _NAME = Anchor.HOST, Anchor.NAME
_DATA = Path(__file__).parent.parent / "data"
_NAMES, _PUBLISHED = _DATA / "names.txt", _DATA / "suffixes.txt"

_LONGEST_HOST = 1024  # a name has 253 octets, and its Unicode form is not longer than this

# Real lists have a handful of patterns such as google.*. Each stands for some 200 names: a list of nothing else would
# fill the memory.
_MOST_EXPANSIONS = 1000

# The prefixes that IANA gives to a registry for a whole region of the world: no site has more. Two lines of a list with
# half of the Internet each would be as bad as the whole.
_WIDEST = {4: 8, 6: 12}


def known_names() -> dict[str, tuple[str, ...]]:
    """The known domains of names such as google and blogspot (``data/names.txt``), by their first label."""
    names: dict[str, list[str]] = {}
    for line in _NAMES.read_text(encoding="utf-8").split("\n"):
        if line and not line.startswith("#"):
            names.setdefault(line.partition(".")[0], []).append(line.strip())
    return {label: tuple(domains) for label, domains in names.items()}


class Locator:
    """Finds the domains of rules, by one suffix list and one granularity."""

    def __init__(self, suffixes: Suffixes, granularity: str = "registrable", *, trusted: bool = False) -> None:
        """``trusted``: the user's own list, which may block a whole top-level domain, and means a name as it is
        written: neither widened nor a keyword."""
        self._suffixes = suffixes
        self._widen = granularity == "registrable" and not trusted
        self._trusted = trusted
        self._known: dict[str, tuple[str, ...]] | None = None
        self._expansions: dict[str, Target] = {}

    def domains(self, names: list[str]) -> list[str]:
        """:meth:`locate` in short, for blocks of plain names (:func:`~gfwtools.lists.hostname.is_plain`): the domain
        of each."""
        return self._suffixes.registrables(names) if self._widen else names

    def refused(self, domains: Collection[str]) -> dict[str, Reason]:
        """Those of ``domains`` that a fetched list may not block: for plain names what :meth:`locate` says of each."""
        refused = dict.fromkeys(self._suffixes.icann_among(domains) - _published(), Reason.TLD)
        return refused | dict.fromkeys({CANARY}.intersection(domains), Reason.RESERVED)

    def _blocked(self, domain: str, name: str, *, wider: bool = False) -> Target:
        """The target of a block of ``name`` that comes to ``domain``."""
        if not self._trusted:
            if domain == CANARY:
                return Target(reason=Reason.RESERVED, detail=repr(domain))
            if self._suffixes.is_icann(domain) and self._suffixes.is_known(domain) and domain not in _published():
                return Target(reason=Reason.TLD, detail=repr(domain))
        return Target((domain,), wider or domain != name)

    def locate(self, rule: Rule) -> Target:
        """What ``rule`` comes to. Never raises: what cannot be understood is a :class:`Target` with a reason."""
        if rule.exception and not rule.whole:
            return Target(reason=Reason.NARROW)
        _, _, exception, host, anchor, _ = rule
        if (anchor is _HOST or anchor is _NAME) and not exception and is_plain(host):
            # Nine rules of ten; the questions below have been answered for them by one regular expression.
            return self._blocked(self._suffixes.registrable(host) if self._widen else host, host)
        if anchor is Anchor.REGEX:
            return self._regex(host)
        if anchor is Anchor.NONE:
            return Target(reason=Reason.NAME, detail=host)
        if not host:
            return Target(reason=Reason.KEYWORD)
        if len(host) > _LONGEST_HOST:
            return Target(reason=Reason.NAME, detail=f"{host[:20]!r}... is {len(host)} characters long")
        if host[-1] == "." and not host.endswith(".."):
            host = host[:-1]
            rule = rule._replace(host=host)
        if self._trusted and "*" in host:
            return Target(
                reason=Reason.NAME, detail=f"{host!r}: give the domain itself; it stands for what is under it"
            )
        if "*" in host:
            return self._wildcard(rule)
        if host[-1:].isdigit() or host[-1:] == "]" or ":" in host or "/" in host:
            target = self._address(host)
            if target:
                return target
        # "||google" is the domain; "|http://google/x" may be a word of a URL, or a slip.
        single = anchor is _NAME or (anchor is _HOST and rule.whole and "." not in host and self._is_top_level(host))
        return self._name(host, loose=anchor is Anchor.LOOSE, exception=exception, single=single)

    def _name(
        self, host: str, *, loose: bool = False, exception: bool = False, wider: bool = False, single: bool = False
    ) -> Target:
        """The target of a host pattern without a wildcard.

        :param single: a single label is a domain, and no word.
        """
        try:
            name = to_ascii(host)
        except InvalidNameError as error:
            return Target(reason=Reason.KEYWORD if loose else Reason.NAME, detail=str(error))
        if name[-1].isdigit() and name.rpartition(".")[2].isdigit():
            # Digits and dots of other scripts, and a zero-width space behind an address, are mapped to ASCII's or away.
            return Target(reason=Reason.KEYWORD if loose else Reason.NAME, detail=_no_address(host))
        if has_loose_hyphen(name):
            detail = f"{name!r}: a label begins or ends with a hyphen"
            return Target(reason=Reason.KEYWORD if loose else Reason.NAME, detail=detail)
        suffixes = self._suffixes
        if loose and not ("." in name and suffixes.is_known(name)):
            return Target(reason=Reason.KEYWORD)
        if not self._trusted and name.rpartition(".")[2] in LOCAL:
            return Target(reason=Reason.RESERVED, detail=repr(name))
        if len(name) == 2 and not self._trusted and not exception:  # a country, and no word
            return Target(reason=Reason.TLD, detail=repr(name))
        if "." not in name and not single:
            return Target(reason=Reason.KEYWORD)
        if exception:
            return Target((name,), wider)
        if not self._widen:
            return self._blocked(name, name, wider=wider)
        return self._blocked(suffixes.registrable(name), name, wider=wider)

    def _is_top_level(self, label: str) -> bool:
        """Whether ``label``, as a list writes it, is a top-level domain that exists."""
        try:
            return self._suffixes.is_known(to_ascii(label))
        except InvalidNameError:
            return False

    # ------------------------------------------------------------ addresses

    def _address(self, host: str) -> Target | None:
        """The target of an address; None for a name."""
        text = host.removeprefix("[").removesuffix("]")
        if len(text) > 64 or "%" in text:  # Python takes any text at all for the scope behind a "%"
            return None
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            if text.rpartition(".")[2].isdigit():
                return Target(reason=Reason.NAME, detail=_no_address(text))
            return None
        if not network.prefixlen:
            return Target(reason=Reason.ADDRESS, detail=f"{text} is the whole Internet")
        if not self._trusted:
            from gfwtools.lists.addresses import has_no_site  # few lists have an address

            if network.prefixlen < _WIDEST[network.version]:
                return Target(reason=Reason.ADDRESS, detail=f"{text} is more than any site has")
            if has_no_site(network):
                return Target(reason=Reason.ADDRESS, detail=f"{text} is no address of a site")
        return Target(network=network)

    # ------------------------------------------------------------ wildcards

    def _wildcard(self, rule: Rule) -> Target:
        host = rule.host
        labels = host.split(".")
        if rule.exception:
            return self._under(labels)
        if "*" in labels[-1]:
            return self._open_end(host)
        # A label with a wildcard is widened to its parent; only what is right of the last one is certain.
        last = max(index for index, label in enumerate(labels) if "*" in label)
        parent = ".".join(labels[last + 1 :])
        if not parent.isascii():
            with suppress(InvalidNameError):  # _name() reports it
                parent = to_ascii(parent)  # as the suffix list has it
        wider = True
        if self._is_too_wide(parent):
            # "*site.com" matches no host but those whose name ends so: site.com it means.
            tail = labels[last].rpartition("*")[2]
            parent, wider = f"{tail}.{parent}", last > 0
            if not tail or labels[last] != f"*{tail}" or has_loose_hyphen(tail) or self._is_too_wide(parent):
                return Target(reason=Reason.SUFFIX)
        return self._name(parent, loose=rule.anchor is Anchor.LOOSE, wider=wider)

    def _is_too_wide(self, name: str) -> bool:
        """Whether widening may not reach ``name``: a suffix of ICANN's, or one with nothing but suffixes below."""
        return self._suffixes.is_icann(name) or self._suffixes.has_suffixes(name)

    def _under(self, labels: list[str]) -> Target:
        """An exception with a wildcard: dnsmasq can free what is under a name (``server=/*.name/#``), no more."""
        parent = ".".join(labels[1:])
        if labels[0] != "*" or "*" in parent or not parent:
            return Target(reason=Reason.NARROW)
        return self._name(parent, exception=True, single=True)._replace(under=True)

    def _open_end(self, host: str) -> Target:
        """A wildcard in the last label: ``google.*``, ``docs.google.com*View``, ``.google.*falun``."""
        *before, last = host.split(".")
        head, _, tail = last.partition("*")
        # What is left of another wildcard may be anything; only what is right of it is certain.
        wild = max((index for index, label in enumerate(before) if "*" in label), default=-1)
        certain = ".".join([*before[wild + 1 :], head])
        top = certain.rpartition(".")[2]
        if top and "." in certain and self._suffixes.is_known(top) and (tail or not self._expanded(certain)):
            # The wildcard begins in the path: the host stands whole before it.
            return self._name(certain)
        expanded = self._expanded(certain)
        return expanded or Target(reason=Reason.WILDCARD if "." in certain else Reason.KEYWORD)

    def _expanded(self, prefix: str) -> Target | None:
        """All known domains that begin with ``prefix``; None where there are none, or too many such rules before."""
        if prefix not in self._expansions:
            names = self._expand(prefix) if len(self._expansions) < _MOST_EXPANSIONS else []
            if not names:
                return None
            self._expansions[prefix] = self._all(names)
        return self._expansions[prefix]

    def _expand(self, prefix: str) -> list[str]:
        """The known domains that begin with ``prefix``; labels left of the name are kept before each."""
        if self._known is None:
            self._known = known_names()
        labels = prefix.split(".")
        for index, label in enumerate(labels[:-1]):
            if label not in self._known:
                continue
            rest = ".".join(labels[index:])
            found = [domain for domain in self._known[label] if domain.startswith(rest)]
            if found:
                before = "".join(f"{label}." for label in labels[:index])
                return [before + domain for domain in found]
        return []

    def _all(self, names: list[str]) -> Target:
        targets = [self._name(name) for name in names]
        domains = dict.fromkeys(domain for target in targets for domain in target.domains)
        if not domains:
            return Target(reason=Reason.NAME, detail=targets[0].detail)
        return Target(tuple(domains), any(target.wider for target in targets))

    # ------------------------------------------------------------ regular expressions

    def _regex(self, body: str) -> Target:
        from gfwtools.lists import expressions  # a question about a name reads none in most lists

        found = expressions.read(body)
        if not found:
            return Target(reason=Reason.REGEX)
        name = found.name
        if found.open_end:
            return (self._expanded(name) if found.begins else None) or Target(reason=Reason.REGEX)
        suffixes = self._suffixes
        if not suffixes.is_known(name) or suffixes.is_icann(name):
            return Target(reason=Reason.REGEX)
        parent = name.partition(".")[2]
        if found.whole or (found.begins and (name == suffixes.registrable(name) or suffixes.is_suffix(parent))):
            return self._name(name)
        # The first label may be the end of a longer one; what is behind its dot is certain.
        return Target(reason=Reason.REGEX) if suffixes.is_suffix(parent) else self._name(parent, wider=True)


@cache
def _published() -> frozenset[str]:
    """The suffixes that a fetched list may block whole (``data/suffixes.txt``)."""
    lines = _PUBLISHED.read_text(encoding="utf-8").split("\n")
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _no_address(text: str) -> str:
    """What is wrong with a name that ends in a number: no top-level domain does (RFC 3696 section 2)."""
    return f"{text!r}: neither a name nor an address"
