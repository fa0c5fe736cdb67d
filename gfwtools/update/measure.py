"""Whether a fetched list may take the place of the last good one: by its date, its size, its names and its networks.

Pure, but for the wall clock that is given. A mirror, or whoever stands behind it, may send any text with a right
checksum: these bounds say how much of the list can change without the user.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from gfwtools.errors import ListError
from gfwtools.storage.state import Change, usable_of
from gfwtools.update.inputs import STARTER_NAME

if TYPE_CHECKING:
    from gfwtools.lists.compiler import Compiled
    from gfwtools.lists.formats import Listing

__all__ = [
    "Common",
    "changed_much",
    "in_common",
    "is_recent",
    "largest",
    "require_names",
    "require_networks",
    "require_not_older",
    "require_size",
]

#: How long the size of a list counts: less than half of a list every few hours would be nothing of it in a week.
MEMORY = timedelta(days=30)
#: A date that is later than now by more is not believed: it would be later than all true ones, and no list would ever
#: be taken again.
SLACK = timedelta(days=1)
#: A clock that says less has never been set: what is later than now by it may well be true.
OLDEST_CLOCK = datetime(2024, 1, 1, tzinfo=UTC)
#: The share of the addresses that sites have which a list may block. All networks of China are a twelfth of IPv4's.
WIDEST_SHARE = 1 / 8
#: A list that changes by more is reported.
MUCH = 0.1
_FORCE = "give --force if that is right"


def require_networks(compiled: "Compiled") -> None:
    """:raises ListError: the list's networks have too much of the Internet."""
    from gfwtools.lists.addresses import share_of_internet

    networks = [*compiled.policy.networks]
    for version, share in share_of_internet(networks).items():
        if share > WIDEST_SHARE:
            raise ListError(
                f"the list's networks have {share:.0%} of the addresses of IPv{version}; more than {WIDEST_SHARE:.1%} "
                "is not accepted"
            )


def require_not_older(new: str, used: str, now: datetime) -> None:
    """``new`` and ``used``: the dates of a list and of the one in use as they write them. What is no date is no reason.

    :raises ListError: the list is older than the one in use.
    """
    dates = _date(new), _date(used)
    if dates[0] and dates[1] and dates[0] < dates[1] and (dates[1] <= now + SLACK or now < OLDEST_CLOCK):
        raise ListError(f"the list is older than the one in use: it is of {new}, that one of {used}", _FORCE)


def largest(history: Iterable[Change], now: datetime) -> int:
    """How many rules that name a host the largest fetched list of the last 30 days had, since the user last gave
    --force; 0 where there was none."""
    fetched = [change for change in history if change.source != STARTER_NAME]
    recent = list(takewhile(lambda change: not change.forced, reversed(fetched)))
    last_forced = [change for change in reversed(fetched) if change.forced][:1]
    return max(
        (usable_of(change.counts) or 0 for change in (*recent, *last_forced) if is_recent(change.date, now)),
        default=0,
    )


def require_size(usable: int, before: int, min_share: float) -> None:
    """:raises ListError: ``usable`` rules are less than ``min_share`` of those ``before``."""
    if usable < min_share * before:
        raise ListError(
            f"the list has {usable:,} rules, the largest of the last 30 days had {before:,}; less than "
            f"fetch.min_share, {min_share:g} of it, is not accepted",
            _FORCE,
        )


class Common(NamedTuple):
    """An earlier list beside a new one."""

    usable: int
    """How many rules of the earlier one name a host or an address."""
    blocking: int
    """How many of these block it."""
    common: int
    """How many of those the new list blocks as well."""


def in_common(earlier: "Listing", compiled: "Compiled", granularity: str) -> Common:
    """``earlier`` beside a new list. The user's own lists count for nothing, and no set of a million names is made."""
    from gfwtools.lists.locator import Locator  # most updates bring nothing new
    from gfwtools.lists.suffixes import bundled

    policy = compiled.policy.of_list()
    blocks, networks, match = policy.blocks, policy.networks, policy.match
    at_once = not policy.special
    locator = Locator(bundled(), granularity)
    usable = blocking = common = 0
    for names, _, rules in earlier.scan():
        domains = locator.domains(names)
        if refused := locator.refused(domains):
            domains = [domain for domain in domains if domain not in refused]
        usable += len(domains)
        blocking += len(domains)
        common += sum((at_once and domain in blocks) or match(domain).verdict == "tunnel" for domain in domains)
        for rule in rules:
            target = locator.locate(rule)
            if target.reason:
                continue
            usable += 1
            if not rule.exception:
                blocking += 1
                found = target.domains[:1]
                common += match(found[0]).verdict == "tunnel" if found else target.network in networks
    return Common(usable, blocking, common)


def require_names(found: Common, which: str, min_share: float) -> None:
    """``which``: the list that was compared, in words.

    :raises ListError: the new one blocks less than ``min_share`` of what that one blocks.
    """
    if found.common < min_share * found.blocking:
        raise ListError(
            f"the list has {found.common:,} of the {found.blocking:,} domains of {which}; less than fetch.min_share, "
            f"{min_share:g} of them, is not accepted",
            _FORCE,
        )


def is_recent(date: str, now: datetime) -> bool:
    """Whether ``date``, one of ours, is within the last 30 days."""
    found = _date(date)
    return found is not None and timedelta() <= now - found <= MEMORY


def changed_much(before: int, added: int, removed: int) -> str:
    """One line about a list of which more than a tenth is new or gone; the empty text otherwise."""
    if not before or max(added, removed) <= MUCH * before:
        return ""
    return f"the list changed by more than a tenth: {removed:,} of its {before:,} domains are gone, {added:,} are new"


def _date(text: str) -> datetime | None:
    """A date as lists write it (RFC 5322) or as we do (ISO 8601); None for any other text."""
    from email.utils import parsedate_to_datetime

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
