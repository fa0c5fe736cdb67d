"""The formats of lists: each a text -> :class:`Rule` values, so that nothing further on knows which it was."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from gfwtools.lists import autoproxy
from gfwtools.lists.decode import decode
from gfwtools.lists.hostname import MAX_NAME, PLAIN
from gfwtools.lists.pattern import pattern
from gfwtools.lists.rule import MAX_LINE, Anchor, Rule, Scan, batches, may_mean, numbered, too_long

__all__ = ["FORMATS", "Listing", "OtherFormat", "looks_like", "parse"]

#: "[AutoPr", the beginning of every list that its mirrors have.
_AUTOPROXY_BASE64 = "W0F1dG9Q"
# Some lists have "0" for 0.0.0.0, as inet_aton(3) does; it is not a name.
_ADDRESS = pattern(r"[0-9.]+|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%.*)?")
_DNSMASQ = pattern(r"(server|address|local|ipset|nftset)\s*=\s*/(.*)/([^/]*)")
# dnsmasq takes a "#" for a comment behind what isspace(3) knows as white space, and for itself anywhere else.
_DNSMASQ_COMMENT = pattern(r"\s#.*", re.ASCII)
_NETWORK = r"[0-9a-fA-F.:]+/(?:[0-9]{1,3}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})"
# Nothing but Adblock's "##" and its like stands so; a comment has a blank at one side at least.
_HIDES = rf"[^\s#](?:{autoproxy.COSMETIC.pattern})\S"


def parse_domains(text: str) -> Iterator[Rule]:
    """One domain a line; ``#`` begins a comment. What a person pastes is understood: a URL, ``*.name``, ``.name``,
    ``||name^``, an address or a network."""
    return _each(_domains_in, text)


def parse_hosts(text: str) -> Iterator[Rule]:
    """hosts(5): an address and its names a line; the names are blocked, the address counts for nothing."""
    return _each(_hosts_in, text)


def parse_dnsmasq(text: str) -> Iterator[Rule]:
    """dnsmasq.conf(5): the domains of ``server=/a/b/ADDRESS`` and its like; a server of ``#`` is an exception. Any
    other option names no domain."""
    return _each(_dnsmasq_in, text)


def _each(rules_in: Callable[[str, int], Iterator[Rule]], text: str) -> Iterator[Rule]:
    for number, line in numbered(text):
        yield from rules_in(line, number)


def _domains_in(line: str, number: int) -> Iterator[Rule]:
    entry = line.partition("#")[0].strip().strip("\ufeff")
    if not entry:
        return
    if len(line) > MAX_LINE:
        yield too_long(line, number)
        return
    text = line.strip()
    if entry is not text and re.search(_HIDES, text):
        yield Rule(number, text, False, "", Anchor.LOOSE, True)
    elif re.fullmatch(_NETWORK, entry):  # no host with a path
        yield Rule(number, text, False, entry.lower(), Anchor.NAME, True)
    elif rule := autoproxy.parse_line(f"||{entry.removeprefix('||').removeprefix('*.')}", number):
        if rule.anchor is Anchor.NONE:
            rule = rule._replace(host=f"{entry[:60]!r}: give one domain a line")
        elif not rule.whole and rule.host and "." not in rule.host:  # "payload:", "regexp:^a", "keyword:163"
            rule = rule._replace(host=f"{entry[:60]!r} is no domain", anchor=Anchor.NONE)
        elif rule.anchor is Anchor.HOST:
            rule = rule._replace(anchor=Anchor.NAME)
        yield rule._replace(text=text, whole=True)


def _hosts_in(line: str, number: int) -> Iterator[Rule]:
    if len(line) > MAX_LINE:
        if not line.lstrip().startswith("#"):
            yield too_long(line, number)
        return
    words = line.removeprefix("\ufeff").partition("#")[0].split()
    if not words:
        return
    entry = line.strip().removeprefix("\ufeff")  # once: a line can have hundreds of names
    address, *names = words
    if not _ADDRESS.fullmatch(address):
        yield Rule(number, entry, False, "no address before the name", Anchor.NONE, True)
        return
    if not names:
        yield Rule(number, entry, False, "no name behind the address", Anchor.NONE, True)
    for name in names:
        yield Rule(number, entry, False, name.lower(), Anchor.NAME, True)


def _dnsmasq_in(line: str, number: int) -> Iterator[Rule]:
    entry = line.strip().strip("\ufeff")
    if not entry or entry.startswith("#"):
        return
    if len(line) > MAX_LINE:
        yield too_long(entry, number)
        return
    said = _DNSMASQ_COMMENT.sub("", entry).rstrip() if "#" in entry else entry
    found = _DNSMASQ.fullmatch(said)
    if not found:
        yield Rule(number, entry, False, "no server=/name/address", Anchor.NONE, True)
        return
    option, names, value = found.groups()
    exception = value == "#" and option in ("server", "local")  # local is another name of server
    for name in names.split("/"):
        yield Rule(number, entry, exception, name.lower().lstrip("."), Anchor.NAME, True)


class _Format(NamedTuple):
    """How the lines of a format are read."""

    rules_in: Callable[[str, int], Iterator[Rule]]
    """Of any line."""
    plain: "re.Pattern[str]"
    """A line with one plain block and nothing else: most lines of most lists. Its group is the name."""

    def scan(self, text: str, wanted: str = "") -> Iterator[Scan]:
        """The rules in parts, of plain blocks nothing but the name.

        :param wanted: only names that end so, and other rules that may mean it.
        """
        plain = self.plain.fullmatch
        for first, lines in batches(text):
            names, numbers, others = [], [], []
            for number, line in enumerate(lines, first):
                if len(line) <= _LONGEST and (found := plain(line)) and len(name := found[1]) <= MAX_NAME:
                    if name.endswith(wanted):
                        names.append(name)
                        numbers.append(number)
                else:
                    others.append((line, number))
            rules = (rule for line, number in others for rule in self.rules_in(line, number))
            yield Scan(names, numbers, [rule for rule in rules if may_mean(rule, wanted)] if wanted else rules)


_FORMATS = {
    "domains": _Format(_domains_in, pattern(f"({PLAIN})")),
    "hosts": _Format(_hosts_in, pattern(rf"[0-9.]+[ \t]+({PLAIN})")),
    "dnsmasq": _Format(_dnsmasq_in, pattern(rf"(?:server|address|local|ipset|nftset)=/({PLAIN})/[^/#\s]*")),
}
#: The longest plain line: a name, and an address or a few sets beside it.
_LONGEST = 2 * MAX_NAME

FORMATS: dict[str, Callable[[str], Iterator[Rule]]] = {
    "autoproxy": autoproxy.parse,
    "domains": parse_domains,
    "hosts": parse_hosts,
    "dnsmasq": parse_dnsmasq,
}


#: Formats that cannot be read, as messages call them.
_OTHERS = {
    "v2fly": "a v2fly domain list",
    "clash": "a Clash rule provider",
    "surge": "a Surge or Clash rule set",
    "sing_box": "a sing-box rule set",
}
# What a line of each format has and no line of another one: the name of the group is the format's. It and the two below
# are for a new list only, and compiled when one comes.
_SIGNS = (
    r"(?P<dnsmasq>(?:server|address|local|ipset|nftset)\s*=\s*/)"
    r"|(?P<hosts>(?:0|[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f]{0,4}:[0-9a-f:.]*)\s+[a-z0-9_])"
    r"|(?P<v2fly>(?:domain|full|keyword|regexp|include):\S|[a-z0-9_.-]+\s+[@&][a-z!-])"
    r"|(?P<clash>(?:payload|rules)\s*:\s*$|-\s+\S|['\"]?\+\.[a-z0-9_])"
    r"|(?P<surge>(?:DOMAIN|HOST|IP-|GEOIP|GEOSITE|URL-REGEX|USER-AGENT|PROCESS-|RULE-SET|MATCH|FINAL)[A-Z0-9-]*,)"
    r"|(?P<autoproxy>@@|\|)"
    r"|(?P<domains>(?:\.|\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)+\^?(?:\s*#.*)?$)"
)
# A JSON document with the keys of a rule set, or the head of a compiled one.
_SING_BOX = r'\s*\{(?:[^"]|"(?!version|rules))*"(?:version|rules)"\s*:|SRS[\0-\x08]'
# gfwlist's own head, also in base64, and that of Adblock's lists.
_AUTOPROXY = rf"\s*(?:{_AUTOPROXY_BASE64}|\[(?:AutoProxy|Adblock)\b)"
_NO_RULE = ("#", "!", "//", ";")
# What stands behind a label that is not the last one, or not whole.
_NAME_GOES_ON = pattern(r"[a-z0-9_-]|\.[a-z0-9_-]")
#: How much of a list is looked at: characters and lines.
_LOOKED_AT = 200_000, 1000
#: Of its lines at least this share shows another format; a stray line is dropped, and the list is read.
_FOREIGN_SHARE = 0.1


class OtherFormat(NamedTuple):
    """A list is in another format than the one it is said to be in."""

    what: str
    """What it looks like."""
    format: str = ""
    """The name of its format in :data:`FORMATS`; empty where that cannot be read."""

    @property
    def remedy(self) -> str:
        """What to write into the configuration of its policy, or which lists to give."""
        if self.format:
            return f'write format = "{self.format}"'
        *known, last = FORMATS
        return f"give one in {', '.join(known)} or {last}"


def looks_like(text: str, format: str) -> OtherFormat | None:
    """The other format that a list shows which is said to be in ``format``; None: nothing speaks against that one."""
    if re.match(_AUTOPROXY, text):
        found: str | None = "autoproxy"
    elif re.match(_SING_BOX, text[:4096]):
        found = "sing_box"
    else:
        found = _mostly(text, format)
    if found is None or found == format:
        return None
    if found in _OTHERS:
        return OtherFormat(f"it looks like {_OTHERS[found]}, which gfwtools cannot read")
    return OtherFormat(f"it looks like {found}, not {format}", found)


def _mostly(text: str, format: str) -> str | None:
    """The other format that enough lines of ``text`` have."""
    characters, most = _LOOKED_AT
    sign_of = re.compile(_SIGNS, re.IGNORECASE).match
    lines = (line.strip().strip("\ufeff") for line in text[:characters].split("\n"))
    lines_of_rules = list(islice((line for line in lines if line and not line.startswith(_NO_RULE)), most))
    signs = Counter(sign.lastgroup for line in lines_of_rules if (sign := sign_of(line)))
    # The format domains reads "||name" as well, and autoproxy a name alone.
    for own in {"autoproxy", "domains"} if format in ("autoproxy", "domains") else {format}:
        del signs[own]
    if not signs:
        return None
    ((found, count),) = signs.most_common(1)
    enough = count == len(lines_of_rules) or (count > 1 and count >= _FOREIGN_SHARE * len(lines_of_rules))
    return found if enough else None


class Listing(NamedTuple):
    """A list as text, with the name that errors and answers call it by."""

    source: str
    text: str
    format: str = "autoproxy"

    def rules(self) -> Iterator[Rule]:
        """Its rules, parsed anew each time: a list of a million is not kept twice."""
        return FORMATS[self.format](self.text)

    def rules_about(self, name: str) -> Iterator[Rule]:
        """The rules that may name ``name`` (A-labels) or a domain above it, and perhaps others: a list of 110,000
        domains is read in a fifth of the time."""
        if self.format == "autoproxy" or not self.text.isascii():
            yield from self.rules()
            return
        for number, line in _lines_about(self.text, name):
            for rule in FORMATS[self.format](line):
                yield rule._replace(line=number)

    def scan(self) -> Iterable[Scan]:
        """The same in parts, of plain blocks nothing but the name, where that is quicker."""
        return autoproxy.scan(self.text) if self.format == "autoproxy" else _FORMATS[self.format].scan(self.text)

    def scan_about(self, domain: str) -> Scan:
        """The rules that may mean ``domain`` (A-labels), its top-level domain or any under it, and perhaps others. They
        can be gone through many times."""
        if self.format == "autoproxy":
            return autoproxy.scan_about(self.text, domain)
        names: list[str] = []
        numbers: list[int] = []
        rules: list[Rule] = []
        for part in _FORMATS[self.format].scan(self.text, domain):
            names += part.names
            numbers += part.lines
            rules += part.rules
        return Scan(names, numbers, rules)


def _lines_about(text: str, name: str) -> Iterator[tuple[int, str]]:
    """The lines that have the last two labels of ``name``, or its top-level domain alone, with their numbers."""
    lower = f"\n{text.lower()}"  # an ASCII text has as many characters in lower case
    top = name.rpartition(".")[2]
    places = list(_places(lower, ".".join(name.split(".")[-2:])))
    for before in ("\n", " ", "\t", "/", "|", "\n.", " .", "/.", "*.", "|."):
        size = len(before) + len(top)
        places += [place for place in _places(lower, before + top) if not _NAME_GOES_ON.match(lower, place + size)]
    number, counted = 0, 0
    for start in sorted({lower.rfind("\n", 0, place + 1) for place in places}):
        number += lower.count("\n", counted, start + 1)
        counted = start + 1
        end = lower.find("\n", start + 1)
        yield number, text[start : end - 1 if end >= 0 else None]


def _places(text: str, part: str) -> Iterator[int]:
    place = text.find(part)
    while place >= 0:
        yield place
        place = text.find(part, place + 1)


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
