"""Regular expressions of a list, ECMAScript's, read just far enough to find the one host that most are about."""

import re
from typing import NamedTuple

from gfwtools.lists.pattern import pattern

__all__ = ["Spelt", "read"]

_LONGEST = 1024  # no host is spelt out longer, and the searches below are quadratic at worst
_CLASS = pattern(r"\[\^?\]?(?:\\.|[^\]\\])*\]")
_QUANTIFIER = pattern(r"(?:[*+?]|\{\d{1,9}(?:,\d{0,9})?\})\??")
_ABSENT = ("?", "*", "{0,", "{0}")  # how a quantifier begins that takes nothing as well
_CODE = pattern(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4}))")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")

# What stands for the parts that are no plain character, once the expression is simplified.
_ANY = "\0"  # may be a dot, or the end of the host
_SOME = "\1"  # one character or more of a label
_MAYBE = "\2"  # the same, or nothing
_OTHER = ","  # a character that no host has
_BREAK = "\3"  # no character: the beginning or the end of a word
# With one of these behind it, a name is not at its end.
_LONGER = _NAME | {*"?*+{\\", _SOME, _MAYBE}

# The look-behinds keep both linear: no search begins in the middle of a run, or of a name.
_LITERAL = pattern(r"(?<![a-z0-9_-])[a-z0-9_-]+(?:\\\.[a-z0-9_-]+)+")
_NAME_THEN_ANY = pattern(
    r"(?<![a-z0-9_-])(?<![a-z0-9_-]\\\.)((?:[a-z0-9_-]+\\\.)+)" + rf"(?:\(?[.{_ANY}{_SOME}][*+]\??\)?)"
)
_ATOM = pattern(r"(\\.|[^\\])([*+?]|\{\d+(?:,\d*)?\})?\??", re.DOTALL)


class Spelt(NamedTuple):
    """What an expression spells out of a host."""

    name: str
    """The name as it is written; with an open end up to its last dot."""
    open_end: bool
    """Anything may stand behind the last dot: ``blogspot\\.(.*)``."""
    begins: bool
    """The first label may be whole; where it is not, ``\\dporn\\.com``, it is surely the end of a longer one."""
    whole: bool
    """The first label is surely whole."""


def read(body: str) -> Spelt | None:
    """What ``body``, an expression over URLs, spells out, or None where it is not one name."""
    text = _simplified(body)
    if text is None or _has_alternatives(text):
        return None
    # Behind a scheme only the host counts: `/bar\.html` is no domain.
    _, _, text = text.rpartition("://")
    text = text.lstrip("^").partition("/")[0]
    if "|" in text or len(text) > _LONGEST:
        return None
    literals = list(_LITERAL.finditer(text))
    if len(literals) == 1:
        match = literals[0]
        behind = text[match.end() :].lstrip("()")
        if behind[:1] not in _LONGER:
            return _spelt(match[0], text[: match.start()], open_end=False)
    open_end = list(_NAME_THEN_ANY.finditer(text))
    if len(open_end) == 1 and not literals:
        return _spelt(open_end[0][1], text[: open_end[0].start()], open_end=True)
    return None


def _spelt(literal: str, before: str, *, open_end: bool) -> Spelt:
    begins, near = _may_begin(before), before.rstrip(_BREAK)
    if near != before and literal[0] == "-":  # no word begins so: the one that ends here is a part of the label
        begins = False
    whole = begins and (not near or near.endswith((r"\.", r"\.)", r"\.)?", r"\.)*")))
    return Spelt(literal.replace("\\.", "."), open_end, begins, whole)


def _may_begin(before: str) -> bool:
    """Whether a label may begin behind ``before``: where a dot may stand, or nothing at all."""
    edge = True
    opened: list[bool] = []
    for atom, quantifier in _ATOM.findall(before):
        if atom == "(":
            opened.append(edge)
            continue
        if atom == _BREAK:
            continue
        without = edge  # of the group, where one ends here
        if atom == ")":
            without = opened.pop() if opened else edge
        else:
            edge = atom not in _NAME and atom not in (_SOME, _MAYBE)
        if atom == _MAYBE or quantifier.startswith(_ABSENT):
            edge = edge or without
    return edge


def _has_alternatives(text: str) -> bool:
    """Whether an expression is one of several as a whole: ``a|b`` outside of all parentheses."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth <= 0:
            return True
    return False


def _simplified(body: str) -> str | None:
    """``body`` in lower case, with one character for each character class, each escape and each character that is
    repeated or may be left out, and without its ``(?=...)``, ``(?!...)``, ``(?<=...)`` groups, which match no character
    themselves; None where a class has no end. In one pass: linear in its length."""
    kept: list[str] = []
    depth = 0  # how many parentheses are open inside a group that is left out
    index = 0
    while index < len(body):
        character = body[index]
        width = 1
        if character == "[":
            found = _CLASS.match(body, index)
            if not found:
                return None
            width = len(found[0])
            character = _one_of(found[0])
        elif character == "\\":
            found = _CODE.match(body, index)
            width = len(found[0]) if found else 2
            character = _escaped(found[0] if found else body[index + 1 : index + 2])
        elif character == "(" and body.startswith("(?:", index):
            width = 3
        else:
            character = character.lower()
        if depth:
            depth += (character == "(") - (character == ")")
        elif character == "(" and body.startswith(("(?=", "(?!", "(?<=", "(?<!"), index):
            depth = 1
        else:
            if (character in _NAME or character == r"\.") and (repeat := _QUANTIFIER.match(body, index + width)):
                width += len(repeat[0])
                character = _ANY if character == r"\." else _MAYBE if repeat[0].startswith(_ABSENT) else _SOME
            kept.append(character)
        index += width
    return "".join(kept)


def _escaped(escape: str) -> str:
    """What is kept of an escape, given as ``d`` for ``\\d``, and as the whole for ``\\x2e`` and ``\\u002e``."""
    if len(escape) > 1:
        return _plain(chr(int(escape[2:], 16)))
    if escape == "b":
        return _BREAK
    if escape in {"D", "S", "W"}:
        return _ANY
    return _SOME if escape.isalnum() else _plain(escape)


def _plain(character: str) -> str:
    """A character that means itself."""
    if character == ".":
        return r"\."
    lower = character.lower()
    return lower if lower in _NAME or lower in {"/", ":"} or not lower.isascii() else _OTHER


def _one_of(text: str) -> str:
    """What is kept of a character class."""
    negated = text.startswith("[^")
    members = text[2:-1] if negated else text[1:-1]
    if not negated and len(members.removeprefix("\\")) == 1:  # "[.]"
        return _escaped(members[1:]) if members[0] == "\\" and len(members) > 1 else _plain(members)
    if negated:
        return _SOME if "." in members else _ANY
    return _ANY if re.search(r"[./:?#@]|\\[DSW]", members) else _SOME
