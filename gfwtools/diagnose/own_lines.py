"""Lines of the user's that override the list, as pieces of the host and as a link of a name's chain."""

from collections.abc import Iterator, Sequence

from gfwtools.diagnose.link import Link, LinkState
from gfwtools.dnsmasq.overrides import Override, words
from gfwtools.dnsmasq.resolver import Resolver
from gfwtools.plumbing.plan import Kind, Piece, State

__all__ = ["LINK", "link", "pieces"]

LINK = "own lines"


def pieces(resolver: Resolver) -> Iterator[Piece]:
    """One piece for each file with such lines.

    What the user blocks below a listed domain is shown and counts as OK: no packet takes a wrong way for it.
    """
    found = resolver.overrides()
    files: dict[str, list[Override]] = {}
    for override in found:
        if not override.is_block:
            files.setdefault(override.file, []).append(override)
    for file, overrides in files.items():
        detail = f"override the list: {words(overrides)}"
        yield Piece(f"own lines in {file}", State.MISMATCH, detail, Kind.LIST, remedy=resolver.remedy_for(overrides))
    unread = resolver.not_read()
    if unread and not files:
        detail = f"not known whether one overrides the list: {'; '.join(unread)} prints lines of its own"
        yield Piece("own lines", State.UNKNOWN, detail, Kind.LIST, remedy="gfwtools check domain --live NAME")
    elif not files:
        blocked = f"; blocked by you: {words(found)}" if found else ""
        yield Piece("own lines", State.OK, f"none overrides the list{blocked}", Kind.LIST)


def link(resolver: Resolver, overrides: Sequence[Override]) -> Link:
    """Does a line of the user's decide the name in place of ours?

    :param overrides: those that decide it.
    """
    expected = "no line of yours decides this name"
    if not overrides:
        return Link(LINK, LinkState.OK, expected, "none decides it")
    return Link(LINK, LinkState.BROKEN, expected, words(overrides), resolver.remedy_for(overrides))
