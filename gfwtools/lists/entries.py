"""The entries of a user's own list: which line names what, and the text with one more or one fewer."""

import codecs
import re
from collections.abc import Iterator
from typing import NamedTuple

from gfwtools.config.model import Network
from gfwtools.errors import InvalidNameError, ListError
from gfwtools.lists.formats import Listing
from gfwtools.lists.locator import Locator
from gfwtools.lists.suffixes import bundled

__all__ = ["Entry", "Removed", "entries_in", "parse_entry", "with_entry", "without_entry"]

_LINE_END = re.compile(r"\r\n|\r|\n")


class Entry(NamedTuple):
    """A domain in A-labels, or an address or network."""

    text: str
    """As it is written into a list."""
    network: Network | None = None

    @property
    def name(self) -> str | None:
        """The domain; None for an address or network."""
        return None if self.network else self.text


class Removed(NamedTuple):
    """A text without an entry."""

    data: bytes
    comments: tuple[str, ...]
    """What stood behind the entry on its lines, without the ``#``."""


def parse_entry(text: str) -> Entry:
    """What a person means by ``text``, as the reader of lists understands a line: a name in any spelling, a URL,
    ``*.name``, an address or a network.

    :raises InvalidNameError: it names nothing, or more than one thing.
    """
    shown = repr(text if len(text) <= 60 else f"{text[:60]}...")
    if len(_LINE_END.split(text.strip())) > 1:
        raise InvalidNameError(f"{shown} has several lines", "give one name a word")
    found = list(_read(text))
    if not found:
        raise InvalidNameError(f"{shown} names no host", "give a domain, a URL or an address")
    _, entry, detail = found[0]
    if entry is None:
        raise InvalidNameError(detail if text.strip()[:20] in detail else f"{shown}: {detail}")
    return entry


def entries_in(text: str) -> dict[int, Entry]:
    """The line -> what it names, of every line that names something."""
    return {line: entry for line, entry, _ in _read(text) if entry}


def with_entry(data: bytes, entry: Entry, comment: str = "") -> bytes:
    """``data`` with one more line at its end. All other lines, the line ends and the encoding stay.

    :raises ListError: ``data`` is no text.
    """
    text, encoding = _decoded(data)
    found = _LINE_END.search(text)
    end = found[0] if found else "\n"
    before = text if not text.strip("\ufeff") or text.endswith(("\n", "\r")) else text + end
    behind = f"  # {comment}" if comment else ""
    return _encoded(f"{before}{entry.text}{behind}{end}", encoding)


def without_entry(data: bytes, entry: Entry) -> Removed:
    """``data`` without the lines that name ``entry``. All other lines stay as they are.

    :raises ListError: ``data`` is no text.
    """
    text, encoding = _decoded(data)
    named = {line for line, other in entries_in(_LINE_END.sub("\n", text)).items() if other == entry}
    kept: list[str] = []
    comments: list[str] = []
    for number, line in enumerate(_lines(text), 1):
        if number not in named:
            kept.append(line)
            continue
        if number == 1 and line.startswith("\ufeff"):
            kept.append("\ufeff")
        if comment := line.partition("#")[2].strip():
            comments.append(comment)
    return Removed(_encoded("".join(kept), encoding), tuple(comments))


def _read(text: str) -> Iterator[tuple[int, Entry | None, str]]:
    """The line, what it names, and where that is nothing, why."""
    locator = Locator(bundled(), trusted=True)
    for rule in Listing("", text, "domains").rules():
        target = locator.locate(rule)
        if target.network:
            network = target.network
            alone = network.prefixlen == network.max_prefixlen
            yield rule.line, Entry(str(network.network_address if alone else network), network), ""
        elif target.domains:
            yield rule.line, Entry(target.domains[0]), ""
        else:
            yield rule.line, None, target.detail or (target.reason.sentence if target.reason else "no domain")


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends; unlike str.splitlines() at the reader's line ends only."""
    start = 0
    for end in _LINE_END.finditer(text):
        yield text[start : end.end()]
        start = end.end()
    if start < len(text):
        yield text[start:]


def _decoded(data: bytes) -> tuple[str, str]:
    """The text with its byte order mark, and the encoding that gives the same bytes again."""
    for bom, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(bom):
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError:
                raise ListError("the file begins as UTF-16 and is none", "save it as UTF-8") from None
    return data.decode("utf-8", "surrogateescape"), "utf-8"


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
