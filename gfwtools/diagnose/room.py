"""Is there room in the sets? From 80 % it is a finding; when one is full, all listed names are refused."""

from collections.abc import Iterator

from gfwtools.config.model import PolicyConfig
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.survey import Survey
from gfwtools.plumbing.wanted import FULL

__all__ = ["ENOUGH", "pieces"]

#: From this share on it is a finding.
ENOUGH = 0.8
#: ``down`` keeps the first addresses only (:mod:`gfwtools.plumbing.learned`).
REMEDY = "find who asks for so many names, then: gfwtools down; gfwtools up"


def pieces(seen: Survey, policy: PolicyConfig) -> Iterator[Piece]:
    """One for each set of ``policy`` that dnsmasq fills."""
    for name, count in seen.held(policy):
        used = f"{count:,} of {FULL:,} addresses"
        if count >= FULL:
            detail = f"{used}: listed names are refused until there is room"
            yield Piece(f"room in {name}", State.MISMATCH, detail, Kind.SETS, policy, remedy=REMEDY)
        elif count >= ENOUGH * FULL:
            yield Piece(f"room in {name}", State.MISMATCH, f"{used}", Kind.SETS, policy, remedy=REMEDY)
        else:
            yield Piece(f"room in {name}", State.OK, used, Kind.SETS, policy)
