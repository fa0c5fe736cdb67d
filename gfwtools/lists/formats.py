"""The formats of lists: each a text -> :class:`Rule` values, so that nothing further on knows which it was."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gfwtools.lists import autoproxy
from gfwtools.lists.decode import decode
from gfwtools.lists.rule import Anchor, Rule, Scan

__all__ = ["FORMATS", "Listing", "parse"]

#: "[AutoPr", the beginning of every list that its mirrors have.
_AUTOPROXY_BASE64 = "W0F1dG9Q"
# Some lists have "0" for 0.0.0.0, as inet_aton(3) does; whatever it is, it is no name.
_ADDRESS = re.compile(r"[0-9.]+|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%.*)?")
_DNSMASQ = re.compile(r"(server|address|local|ipset|nftset)\s*=\s*/(.*)/([^/]*)")
# dnsmasq takes a "#" for a comment behind what isspace(3) knows as white space, and for itself anywhere else.
_DNSMASQ_COMMENT = re.compile(r"\s#.*", re.ASCII)


def parse_domains(text: str) -> Iterator[Rule]:
    """One domain a line; ``#`` begins a comment. What a person pastes is understood: a URL, ``*.name``, ``.name``,
    ``||name^``, an address or a network."""
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.partition("#")[0].strip().strip("\ufeff")
        if not entry:
            continue
        # A network is no host with a path.
        if re.fullmatch(r"[0-9a-fA-F.:]+/(?:\d{1,3}|\d{1,3}(?:\.\d{1,3}){3})", entry, re.ASCII):
            yield Rule(number, line.strip(), False, entry.lower(), Anchor.HOST, True)
        elif rule := autoproxy.parse_line(f"||{entry.removeprefix('||').removeprefix('*.')}", number):
            yield rule._replace(text=line.strip(), whole=True)


def parse_hosts(text: str) -> Iterator[Rule]:
    """hosts(5): an address and its names a line; the names are blocked, the address counts for nothing."""
    last = ""  # most lists have one address, a million times
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        entry = line.strip()  # once: a line can have a hundred thousand names
        address, *names = words
        if address != last:
            if not _ADDRESS.fullmatch(address):
                yield Rule(number, entry, False, "no address before the name", Anchor.NONE, True)
                continue
            last = address
        if not names:
            yield Rule(number, entry, False, "no name behind the address", Anchor.NONE, True)
        for name in names:
            yield Rule(number, entry, False, name.lower(), Anchor.HOST, True)


def parse_dnsmasq(text: str) -> Iterator[Rule]:
    """dnsmasq.conf(5): the domains of ``server=/a/b/ADDRESS`` and its like; a server of ``#`` is an exception. Any
    other option names no domain."""
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip().strip("\ufeff")
        if not entry or entry.startswith("#"):
            continue
        said = _DNSMASQ_COMMENT.sub("", entry).rstrip() if "#" in entry else entry
        found = _DNSMASQ.fullmatch(said)
        if not found:
            yield Rule(number, entry, False, "no server=/name/address", Anchor.NONE, True)
            continue
        option, names, value = found.groups()
        exception = value == "#" and option in ("server", "local")  # local is another name of server
        for name in names.split("/"):
            yield Rule(number, entry, exception, name.lower().lstrip("."), Anchor.HOST, True)


FORMATS: dict[str, Callable[[str], Iterator[Rule]]] = {
    "autoproxy": autoproxy.parse,
    "domains": parse_domains,
    "hosts": parse_hosts,
    "dnsmasq": parse_dnsmasq,
}


class Listing(NamedTuple):
    """A list as text, with the name that errors and answers call it by."""

    source: str
    text: str
    format: str = "autoproxy"

    def rules(self) -> Iterator[Rule]:
        """Its rules, parsed anew each time: a list of a million is not kept twice."""
        return FORMATS[self.format](self.text)

    def scan(self) -> Iterable[Scan]:
        """The same in parts, of plain blocks nothing but the name, where that is quicker."""
        return autoproxy.scan(self.text) if self.format == "autoproxy" else [Scan([], [], self.rules())]

    def scan_about(self, domain: str) -> Scan:
        """The rules that may mean ``domain`` (A-labels), its top-level domain or any under it, and perhaps others. They
        can be gone through many times."""
        if self.format == "autoproxy":
            return autoproxy.scan_about(self.text, domain)
        return Scan([], [], list(self.rules()))


def parse(text: str | bytes, format: str = "autoproxy") -> list[Rule]:
    """The rules of a list, as published or decoded, in one of :data:`FORMATS`.

    :raises ListError: the text is base64 that is broken, or its checksum is wrong.
    :raises ValueError: no such format.
    """
    if format not in FORMATS:
        raise ValueError(f"{format!r} is no format; give {', '.join(FORMATS)}")
    return list(FORMATS[format](decoded_text(text, format)))


def decoded_text(text: str | bytes, format: str) -> str:
    """The text of a list; bytes, and a text that is an AutoProxy list in base64, are decoded.

    :raises ListError: what is to be decoded is broken.
    """
    base64 = format == "autoproxy"
    if isinstance(text, bytes):
        return decode(text, base64=base64).text
    if base64 and text.lstrip().startswith(_AUTOPROXY_BASE64):
        return decode(text.encode("ascii", "replace")).text
    return text.replace("\r\n", "\n").replace("\r", "\n")
