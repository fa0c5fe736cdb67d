"""AutoProxy syntax: a line -> a :class:`Rule`. What a host pattern means as a domain is not decided here.

The syntax is AutoProxy 0.2.9's, a part of Adblock Plus's: ``!`` comments, ``@@`` exceptions, ``||`` and ``|`` anchors,
``/.../`` regular expressions, ``*`` wildcards, ``^`` separators.
"""

import re
from collections.abc import Iterator
from itertools import compress
from operator import not_

from gfwtools.lists.hostname import MAX_NAME, PLAIN
from gfwtools.lists.pattern import pattern
from gfwtools.lists.rule import MAX_LINE, Anchor, Rule, Scan, batches, may_mean, numbered, too_long

__all__ = ["COSMETIC", "parse", "parse_line", "rules_in", "scan", "scan_about"]

# Nine rules of ten: ||name and nothing else. Every other line takes the long way.
_PLAIN = pattern(r"\|\|([a-z0-9_-]+(?:\.[a-z0-9_-]+)+)")
# The same of a name that is surely one, so that there is nothing more to ask (names.is_plain).
_SURE = pattern(rf"\|\|{PLAIN}")
_LONGEST = len("||") + MAX_NAME
# "*://" and "://" are any scheme, "//" is one that is left out. One slash alone is a slip, and only behind the name of
# a scheme of the web: "example.com:/path" has none.
_SCHEME = pattern(r"(?:(?:[a-z*][a-z0-9+.*?-]{0,30})?:)?//+|(?:https?|ftp|wss?)[*?]?:/", re.IGNORECASE)
# A host pattern ends where a URL's authority does (RFC 3986 section 3.2), or at Adblock's separator or options.
_END = pattern(r"[/?#^$]")
_HEADER = pattern(r"\[[^\]:]*\]")
#: Adblock's rules about a part of a page: ``##``, ``#@#``, ``#?#``, ``#@?#``, ``#$#`` and the like, and ``$$``.
COSMETIC = pattern(r"#@?[$%?]{0,2}#|^[^/|@]*\$@?\$")
# The next four are for rare lines, and compiled when one comes.
# An address and the length of its prefix, or its mask. Behind a scheme the same is an address with a path.
_NETWORK = (
    r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}/(?:3[0-2]|[12]?[0-9]|(?:[0-9]{1,3}\.){3}[0-9]{1,3})|"
    r"\[?[0-9a-f]{0,4}:[0-9a-f:.]{1,60}\]?/[0-9]{1,3})\^?(\$.*)?"
)
# Where the next rule of a line begins. It is behind a blank, which no URL has.
_NEXT_RULE = r"\s+(?=@@|\|)"
_COMMENT_BEHIND = r"\s[#!]"
_HOST_LIKE = r"[\w-]\.[\w-]"
#: What may stand behind a host without narrowing it.
_NOTHING = {"", "/", "^", "/*", "^*", "/^"}


def parse(text: str) -> Iterator[Rule]:
    """The rules of a list, in its order; blank lines, comments and the header are no rules."""
    plain = _PLAIN.fullmatch
    for number, line in numbered(text):
        if len(line) <= _LONGEST and (match := plain(line)):
            yield Rule(number, line, False, match[1], Anchor.HOST, True)
        else:
            yield from rules_in(line, number)


def scan(text: str) -> Iterator[Scan]:
    """:func:`parse` for those who want no more of ``||name`` than its name."""
    sure = _SURE.fullmatch
    for first, batch in batches(text):
        numbers = range(first, first + len(batch))
        plain = [len(line) <= _LONGEST and sure(line) is not None for line in batch]
        others = compress(zip(numbers, batch, strict=True), map(not_, plain))
        yield Scan(
            [line[2:] for line in compress(batch, plain)],
            list(compress(numbers, plain)),
            (rule for number, line in others for rule in rules_in(line, number)),
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
    for first, lines in batches(text):
        if max(map(len, lines)) > MAX_LINE:  # asked once for all of them, as no real list has one
            lines = [line if len(line) <= MAX_LINE else "" for line in lines]
        for number, line in enumerate(lines, first):
            if sure(line):
                if line.endswith(domain) and len(line) <= _LONGEST:
                    names.append(line[2:])
                    numbers.append(number)
            elif concerns(line):
                rules += [rule for rule in rules_in(line, number) if may_mean(rule, domain)]
    return Scan(names, numbers, rules)


def rules_in(line: str, number: int = 1) -> list[Rule]:
    """The rules of one line: one or none, as a rule. ``||a.com^ ||b.com^`` has two."""
    rule = parse_line(line, number)
    if rule is None:
        return []
    if len(line) > MAX_LINE:
        return [rule]
    if rule.anchor is Anchor.NONE and len(parts := re.split(_NEXT_RULE, _without_comment(rule.text))) > 1:
        return [part._replace(text=rule.text) for text in parts if (part := parse_line(text, number))]
    return [rule]


def parse_line(line: str, number: int = 1) -> Rule | None:
    """The rule of a line that has one, or None for a line that has none."""
    text = line.strip().strip("\ufeff")
    if not text or text[0] == "!" or (text[0] == "[" and len(text) <= MAX_LINE and _HEADER.fullmatch(text)):
        return None
    if len(line) > MAX_LINE:
        return too_long(text, number)
    if ("#" in text or "$" in text) and COSMETIC.search(text):  # no rule about a host
        return Rule(number, text, False, "", Anchor.LOOSE, False)
    exception = text.startswith("@@")
    body = text[2:] if exception else text
    if len(body) > 2 and body[0] == body[-1] == "/":
        return Rule(number, text, exception, body[1:-1], Anchor.REGEX, False)
    if (" " in body or not body.isprintable()) and len(body.split(maxsplit=1)) > 1:
        body = _without_comment(body)
        if _has_more(body):
            return Rule(number, text, exception, f"{text[:60]!r}: more than one rule", Anchor.NONE, True)
    if body.startswith("||"):
        anchor = Anchor.HOST
    elif body.startswith("|"):
        anchor = Anchor.URL
    else:
        anchor = Anchor.LOOSE
    body = body.lstrip("|")
    scheme = _SCHEME.match(body) if ":/" in body or body.startswith("//") else None
    if scheme:
        body = body[scheme.end() :]
    if body.endswith("|"):  # "the URL ends here"
        body = body[:-1]
    if not scheme and (body[:1].isdigit() or ":" in body) and (network := re.fullmatch(_NETWORK, body, re.IGNORECASE)):
        return Rule(number, text, exception, re.sub(r"[\[\]]", "", network[1]).lower(), anchor, not network[2])
    end = _END.search(body)
    host, behind = (body[: end.start()], body[end.start() :]) if end else (body, "")
    if scheme:  # a name and a password may stand before the host
        host = host.rpartition("@")[2]
    host, port = _split_port(host.strip())
    whole = scheme is None and not port and behind in _NOTHING
    return Rule(number, text, exception, host.lstrip(".").lower(), anchor, whole)


def _without_comment(text: str) -> str:
    comment = re.search(_COMMENT_BEHIND, text)
    return text[: comment.start()].rstrip() if comment else text


def _has_more(body: str) -> bool:
    """Whether a host, or another rule, stands behind the first word of ``body``."""
    return any(word.startswith(("|", "@@")) or re.search(_HOST_LIKE, word) for word in body.split()[1:])


def _split_port(host: str) -> tuple[str, str]:
    """``host:port`` in two; the colons of an IPv6 address in brackets are its own."""
    name, colon, port = host.rpartition(":")
    digits = port.replace("*", "")
    if colon and (digits.isdigit() or not digits) and (":" not in name or name.endswith("]")):
        return name, port or ":"
    return host, ""
