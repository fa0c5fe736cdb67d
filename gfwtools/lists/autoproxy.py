"""AutoProxy syntax: a line -> a :class:`Rule`. What a host pattern means as a domain is not decided here.

The syntax is AutoProxy 0.2.9's, a part of Adblock Plus's: ``!`` comments, ``@@`` exceptions, ``||`` and ``|`` anchors,
``/.../`` regular expressions, ``*`` wildcards, ``^`` separators.
"""

import re
from collections.abc import Iterator
from itertools import compress
from operator import not_

from gfwtools.lists.hostname import MAX_NAME, PLAIN
from gfwtools.lists.rule import Anchor, Rule, Scan

__all__ = ["parse", "parse_line", "scan", "scan_about"]

# Nine rules of ten: ||name and nothing else. Every other line takes the long way.
_PLAIN = re.compile(r"\|\|([a-z0-9_-]+(?:\.[a-z0-9_-]+)+)")
# The same of a name that is surely one, so that there is nothing more to ask (names.is_plain).
_SURE = re.compile(rf"\|\|{PLAIN}")
#: Lines that are scanned at once. All of a million take twice the memory and no less time.
BATCH = 10_000
_LONGEST = len("||") + MAX_NAME
_SCHEME = re.compile(r"[a-z][a-z0-9+.*?-]{0,30}://", re.IGNORECASE)
# A host pattern ends where a URL's authority does (RFC 3986 section 3.2), or at Adblock's separator or options.
_END = re.compile(r"[/?#^$]")
_HEADER = re.compile(r"\[[^\]:]*\]")
#: What may stand behind a host without narrowing it.
_NOTHING = {"", "/", "^", "/*", "^*", "/^"}


def parse(text: str) -> Iterator[Rule]:
    """The rules of a list, in its order; blank lines, comments and the header are no rules."""
    plain = _PLAIN.fullmatch
    for number, line in enumerate(text.split("\n"), 1):
        if match := plain(line):
            yield Rule(number, line, False, match[1], Anchor.HOST, True)
        elif rule := parse_line(line, number):
            yield rule


def scan(text: str) -> Iterator[Scan]:
    """:func:`parse` for those who want no more of ``||name`` than its name: :data:`BATCH` lines at a time."""
    sure, lines = _SURE.fullmatch, text.split("\n")
    for start in range(0, len(lines), BATCH):
        batch, numbers = lines[start : start + BATCH], range(start + 1, start + BATCH + 1)
        plain = [sure(line) is not None and len(line) <= _LONGEST for line in batch]
        others = compress(zip(numbers, batch, strict=False), map(not_, plain))
        yield Scan(
            [line[2:] for line in compress(batch, plain)],
            list(compress(numbers, plain)),
            [rule for number, line in others if (rule := parse_line(line, number))],
        )


def scan_about(text: str, domain: str) -> Scan:
    """:func:`scan` without the rules that surely mean neither ``domain`` (A-labels), nor its top-level domain, nor any
    under it: a question about one name needs a handful of rules, and the list is read ten times as fast."""
    top = re.escape(domain.rpartition(".")[2])
    # A top-level domain is a rule's where it stands alone. What is not lower case, not ASCII, has a wildcard or is an
    # expression may mean anything.
    concerns = re.compile(
        rf"{re.escape(domain)}|(?:^|[|/@\s])\.*{top}(?![a-z0-9_-]|\.[a-z0-9_-])|[*\\A-Z]|[^\x00-\x7f]"
    ).search
    sure = _SURE.fullmatch
    names, numbers, rules = [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        if sure(line):
            if line.endswith(domain) and len(line) <= _LONGEST:
                names.append(line[2:])
                numbers.append(number)
        elif concerns(line) and (rule := parse_line(line, number)):
            rules.append(rule)
    return Scan(names, numbers, rules)


def parse_line(line: str, number: int = 1) -> Rule | None:
    """The rule of one line, or None for a line that is none."""
    text = line.strip().strip("\ufeff")
    if not text or text[0] == "!" or (text[0] == "[" and _HEADER.fullmatch(text)):
        return None
    if "##" in text or "#@#" in text:  # Adblock's way to hide a part of a page: no rule about hosts
        return Rule(number, text, False, "", Anchor.LOOSE, False)
    exception = text.startswith("@@")
    body = text[2:] if exception else text
    if len(body) > 2 and body[0] == body[-1] == "/":
        return Rule(number, text, exception, body[1:-1], Anchor.REGEX, False)
    if body.startswith("||"):
        anchor = Anchor.HOST
    elif body.startswith("|"):
        anchor = Anchor.URL
    else:
        anchor = Anchor.LOOSE
    body = body.lstrip("|")
    scheme = _SCHEME.match(body)
    if scheme:
        body = body[scheme.end() :]
    if body.endswith("|"):  # "the URL ends here"
        body = body[:-1]
    end = _END.search(body)
    host, behind = (body[: end.start()], body[end.start() :]) if end else (body, "")
    if scheme:  # a name and a password may stand before the host
        host = host.rpartition("@")[2]
    host, port = _split_port(host.strip())
    whole = scheme is None and not port and behind in _NOTHING
    return Rule(number, text, exception, host.lstrip(".").lower(), anchor, whole)


def _split_port(host: str) -> tuple[str, str]:
    """``host:port`` in two; the colons of an IPv6 address in brackets are its own."""
    name, colon, port = host.rpartition(":")
    digits = port.replace("*", "")
    if colon and (digits.isdigit() or not digits) and (":" not in name or name.endswith("]")):
        return name, port or ":"
    return host, ""
