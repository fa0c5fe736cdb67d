"""The Public Suffix List that ships inside tldextract, and the two questions that are asked of it.

The list is read from tldextract's own bundled file and tldextract itself is not imported: it brings requests, which
costs 0.1 s, and 20 microseconds a name, where the look-up here takes a quarter of one. The name of that file is
tldextract's own business: where it has another name, tldextract itself gives the rules. Nothing is ever fetched.
Algorithm: publicsuffix.org/list, "Algorithm"; private suffixes count.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

from gfwtools.errors import GfwtoolsError

__all__ = ["Suffixes", "bundled", "bundled_path", "bundled_stamp"]

_PRIVATE = "===BEGIN PRIVATE DOMAINS==="
_REMEDY = "install it again: pip install --force-reinstall tldextract"


class Suffixes:
    """A Public Suffix List, by its two sections."""

    def __init__(self, icann: Iterable[str], private: Iterable[str]) -> None:
        """``icann`` and ``private``: the rules of the two sections as the list writes them, in Unicode or A-labels."""
        self._rules: set[str] = set()  # of both sections
        self._private: set[str] = set()
        self._wild: set[str] = set()  # "ck" of "*.ck"
        self._exceptions: set[str] = set()  # "www.ck" of "!www.ck"
        self._closer: set[str] = set()  # where not everything right below is what the rule alone makes of it
        # Punycode for 500 rules takes longer than all else here, and few names are under any of them: they wait, by
        # their top-level domains, until a name in A-labels comes along.
        self._unicode: dict[str, list[tuple[str, bool]]] = {}
        self._met: set[str] = set()  # top-level domains whose rules wait no more
        for section, is_icann in ((icann, True), (private, False)):
            rules = list(section)
            self._add(rules, icann=is_icann)  # no name is equal to those in Unicode among them
            for rule in [rule for rule in rules if not rule.isascii()]:
                self._unicode.setdefault(rule.rpartition(".")[2], []).append((rule, is_icann))

    def _add(self, rules: Sequence[str], *, icann: bool) -> None:
        """Take in rules; of a rule in Unicode, its A-labels are what counts."""
        if not icann:
            self._private.update(rules)
        special = [rule for rule in rules if rule[0] in "*!"]
        self._wild.update(rule[2:] for rule in special if rule[0] == "*")
        self._exceptions.update(rule[1:] for rule in special if rule[0] == "!")
        self._closer.update(self._wild, (name.partition(".")[2] for name in self._exceptions))
        self._rules.update(rules)  # at the end: another thread may ask meanwhile

    def _meet(self, name: str) -> None:
        """Take in the rules that wait for a name such as this one."""
        if "xn--" not in name:
            return
        top = name.rpartition(".")[2]
        if top not in self._met:
            waiting = self._unicode.get(_u_label(top), [])
            for is_icann in (True, False):
                a_labels = [".".join(map(_a_label, rule.split("."))) for rule, icann in waiting if icann is is_icann]
                self._add(a_labels, icann=is_icann)
            self._met.add(top)  # not before: another thread may ask meanwhile

    def is_suffix(self, name: str) -> bool:
        """Whether ``name`` (A-labels) is a public suffix, ICANN's or private; a single unknown label is one."""
        self._meet(name)
        if name in self._rules:
            return True
        _, dot, parent = name.partition(".")
        return not dot or (parent in self._wild and name not in self._exceptions)

    def is_icann(self, name: str) -> bool:
        """Whether ``name`` is a suffix of ICANN's section, or a single label."""
        self._meet(name)
        if self._in_icanns(name):
            return True
        _, dot, parent = name.partition(".")
        return not dot or (self._in_icanns(f"*.{parent}") and name not in self._exceptions)

    def icann_among(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that are suffixes of ICANN's, single labels aside: a million names take 0.2 s."""
        endings = self._icann_wild
        suspects = [*self._rules.intersection(names)]
        suspects += [name for name in names if "xn--" in name or name.endswith(endings)]
        return set(filter(self.is_icann, suspects))

    @cached_property
    def _icann_wild(self) -> tuple[str, ...]:
        """ ".ck" of "*.ck": the endings of which everything one label below is a suffix of ICANN's."""
        return tuple(f".{parent}" for parent in self._wild if f"*.{parent}" not in self._private)

    def has_suffixes(self, name: str) -> bool:
        """Whether everything right below ``name`` is a suffix by a rule such as ``*.kawasaki.jp``."""
        self._meet(name)
        return name in self._wild

    def is_known(self, name: str) -> bool:
        """Whether ``name`` ends in a top-level domain that exists, as ``index.php`` does not."""
        self._meet(name)
        top = name.rpartition(".")[2]
        return self._in_icanns(top) or self._in_icanns(f"*.{top}")

    def _in_icanns(self, rule: str) -> bool:
        return rule in self._rules and rule not in self._private

    def registrables(self, names: Iterable[str]) -> list[str]:
        """:meth:`registrable` of each; for nine of ten a look at the parent is enough."""
        rules, closer, registrable = self._rules, self._closer, self.registrable
        return [
            name if (parent := name.partition(".")[2]) in rules and parent not in closer else registrable(name)
            for name in names
        ]

    def registrable(self, name: str) -> str:
        """The domain one label below the longest public suffix of ``name``; a suffix itself is returned as it is."""
        parent = name[name.find(".") + 1 :]
        if parent in self._rules and parent not in self._closer:  # nine names of ten, and suffixes such as com
            return name
        self._meet(name)
        rules, wild, exceptions = self._rules, self._wild, self._exceptions
        if name in rules:
            return name
        below = rest = name
        while True:
            dot = rest.find(".")
            parent = rest[dot + 1 :]
            if parent in wild and rest not in exceptions:
                return below  # "rest" is a suffix by a rule such as *.ck
            if parent in rules or rest in exceptions:
                return rest
            if dot < 0:
                return below  # an unknown top-level domain is a suffix (the rule "*")
            below, rest = rest, parent


def _u_label(label: str) -> str:
    """A label as a rule writes it (RFC 3492); what is no A-label stays as it is."""
    if label.startswith("xn--"):
        with suppress(UnicodeError):
            return label[4:].encode("ascii").decode("punycode")
    return label


def _a_label(label: str) -> str:
    """The rules are in Unicode, normalised and lower case already, so that Punycode (RFC 3492) alone makes A-labels."""
    return label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"


@cache
def bundled_path() -> Path | None:
    """The file that holds the list of the installed tldextract; None where it has another name than the known one.

    :raises GfwtoolsError: tldextract is not installed.
    """
    path = _package().parent / ".tld_set_snapshot"
    return path if path.is_file() else None


@cache
def bundled() -> Suffixes:
    """The list that ships with the installed tldextract.

    :raises GfwtoolsError: tldextract is not installed whole.
    """
    path = bundled_path()
    if path is None:
        return _from_tldextract()
    icann, _, private = path.read_bytes().decode("utf-8").partition(_PRIVATE)
    return Suffixes(_rules(icann), _rules(private))


def bundled_stamp() -> str:
    """A text that changes with each installation of tldextract, and so with its list.

    :raises GfwtoolsError: tldextract is not installed.
    """
    found = (bundled_path() or _package()).stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _package() -> Path:
    spec = find_spec("tldextract")
    if spec is None or spec.origin is None:
        raise GfwtoolsError(f"tldextract is missing; {_REMEDY}")
    return Path(spec.origin)


def _from_tldextract() -> Suffixes:
    """The same rules by tldextract's public API, without its cache on disk and without the network: 0.2 s more."""
    from tldextract import TLDExtract

    def rules(*, private: bool) -> set[str]:
        return set(TLDExtract(cache_dir=None, suffix_list_urls=(), include_psl_private_domains=private).tlds)

    try:
        icann = rules(private=False)
        return Suffixes(icann, rules(private=True) - icann)
    except OSError as error:  # its list is not there under any name
        raise GfwtoolsError(f"tldextract's suffix list is missing ({error}); {_REMEDY}") from None


def _rules(section: str) -> list[str]:
    # A rule is a line with one word. Without the comments only rules are left: ten thousand lines in 1 ms.
    return re.sub(r"//.*", "", section).split()
