"""The list of a policy: fetched, the last good one, or the starter list; whether it may be used."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from gfwtools.config.model import MIRRORS, Config, PolicyConfig, is_url
from gfwtools.config.userinfo import masked
from gfwtools.errors import FetchError, ListError
from gfwtools.lists.decode import Decoded, decode
from gfwtools.lists.formats import Listing, looks_like
from gfwtools.storage import atomic
from gfwtools.storage.state import MAX_TEXT, Mirror, PolicyState
from gfwtools.update.inputs import STARTER_NAME, UserLists, compile_with, current_list, is_starter, starter_list
from gfwtools.update.values import Obtained

if TYPE_CHECKING:
    from gfwtools.fetch.values import Progress
    from gfwtools.lists.compiler import Compiled

__all__ = ["answered_first", "obtain", "public", "require_list"]

#: Of a list's rules at least this share names a host; 98 of 100 did in the worst of the published lists. A page that
#: a network gives in place of the list (a captive portal) has a few lines that look like one.
USABLE_SHARE = 0.1


def obtain(
    config: Config,
    policy: PolicyConfig,
    state: PolicyState,
    own: UserLists,
    *,
    explicit: tuple[str, ...],
    offline: bool,
    force: bool,
    progress: "Progress | None",
) -> Obtained:
    last = current_list(config, policy)
    starting = last is not None and is_starter(last, state)
    good = None if starting else last
    had_one = bool(state.list_digest) and not state.starter
    path = config.paths.list(policy.name)

    def compiler(decoded: Decoded) -> "Callable[[], Compiled]":
        return cache(lambda: compile_with(str(path), policy, decoded, own))

    def starter(warning: str) -> Obtained:
        decoded = starter_list()
        return Obtained(STARTER_NAME, decoded, compiler(decoded), True, warnings=(warning,))

    if offline:
        if last:
            return Obtained(public(state.source) or str(path), last, compiler(last), starting)
        if had_one:
            raise ListError(f"{path} is missing or damaged", "run: gfwtools update")
        if not _starter_stands_in(policy):
            raise ListError(f"policy.{policy.name}: no list fetched yet", "run: gfwtools update")
        return starter("no list fetched yet; using the built-in starter list")

    from gfwtools.fetch.race import fetch
    from gfwtools.fetch.values import Validators

    # A validator stands for the list that its mirror gave; once another mirror's list is the last good one, a 304 would
    # say nothing about it.
    held = atomic.digest(good.data) if good else ""
    sources = explicit or answered_first(policy.sources, state.answered)
    validators = {
        source: Validators(mirror.etag, mirror.last_modified)
        for source in sources
        if (mirror := state.mirrors.get(public(source))) and held and mirror.digest == held
    }

    def accept(data: bytes) -> "tuple[Decoded, Callable[[], Compiled]]":
        decoded = decode(data, base64=policy.format == "autoproxy", max_bytes=config.fetch.max_bytes)
        compiled = compiler(decoded)
        if not good or decoded.data != good.data:
            from gfwtools.update.measure import require_not_older  # most updates bring nothing new

            require_list(compiled(), policy.name)
            now = datetime.now(UTC)
            if good and not force:
                require_not_older(decoded.last_modified, good.last_modified, now)
                _require_kept(compiled(), config, policy, state, good, now)
            elif not force and not explicit and (starting or policy.sources == MIRRORS):
                _require_starter(compiled(), policy, config.fetch.min_share)
        return decoded, compiled

    try:
        fetched = fetch(sources, config.fetch, validators=validators, accept=accept, progress=progress)
    except FetchError as error:
        if explicit:
            raise
        if good or had_one:
            date = good.last_modified if good else state.list_date
            raise FetchError(f"{error}; the list of {date or 'the last update'} stays in use") from None
        if not _starter_stands_in(policy):
            raise FetchError(f"policy.{policy.name}: {error}", "correct its sources in the configuration") from None
        reasons = "; ".join(dict.fromkeys(error.answers))
        return starter(
            f"no list from {len(error.answers)} sources ({reasons}); using the built-in starter list until one answers"
        )
    source = public(fetched.source)
    answered = "" if explicit else source
    if fetched.data is None:
        assert good is not None  # a 304 answers a validator, and those are sent for a good list only
        return Obtained(source, good, compiler(good), answered=answered)
    decoded, compiled = fetched.data
    mirror = Mirror(fetched.validators.etag, fetched.validators.last_modified, atomic.digest(decoded.data))
    return Obtained(source, decoded, compiled, mirror=mirror, answered=answered)


def answered_first(sources: Sequence[str], answered: str) -> list[str]:
    """The sources in the order in which they are asked: a mirror that is dead today was most likely dead yesterday,
    so the one that answered last is asked before the mirrors that stand before it.

    It passes mirrors only. A file costs no wait, and who lists one before a mirror wants that file where it is there.

    :param answered: what :func:`public` made of it; any other text changes nothing.
    """
    order = list(sources)
    for index, source in enumerate(order):
        if public(source) == answered:
            place = index
            while place and is_url(order[place - 1]):
                place -= 1
            order.insert(place, order.pop(index))
            break
    return order


def public(source: str) -> str:
    """A source as state.json and the output have it, which anybody may read: without the name and password that a URL
    may have (RFC 3986 section 3.2.1), and the bytes of a path that are no UTF-8 escaped."""
    return masked(source, "").encode("utf-8", "backslashreplace").decode()[:MAX_TEXT]


def _starter_stands_in(policy: PolicyConfig) -> bool:
    """Whether the starter list may be used where no source answers: it stands for gfwlist, whose mirrors are often
    blocked themselves. A mistyped path, or a list of another kind, must not send its domains into the tunnel."""
    return policy.format == "autoproxy" and any(
        source.lower().startswith(("http://", "https://")) for source in policy.sources
    )


def require_list(compiled: "Compiled", policy: str) -> None:
    """Whether what was compiled is a list in the format of ``policy``.

    :raises ListError: it looks like one in another format, hardly a line of it names a host, or it has too much of the
        Internet.
    """
    listing = compiled.listing
    if other := looks_like(listing.text, listing.format):
        place = f" into [policy.{policy}]" if other.format else ""
        raise ListError(f"the list is in the wrong format: {other.what}", f"{other.remedy}{place}")
    usable, rules = _usable(compiled), compiled.read
    if not usable or usable < USABLE_SHARE * rules:
        raise ListError(f"the text is no list; {usable:,} of its {rules:,} lines name a host")
    from gfwtools.update.measure import require_networks

    require_networks(compiled)


def _require_kept(
    compiled: "Compiled", config: Config, policy: PolicyConfig, state: PolicyState, good: Decoded, now: datetime
) -> None:
    """Whether a list is much the same as the last good one, or as an earlier one where that is the measure.

    :raises ListError: it is much smaller, or has other names.
    """
    from gfwtools.update.measure import in_common, largest, require_names, require_size
    from gfwtools.update.reference import reference_of

    min_share = config.fetch.min_share
    earlier = reference_of(config, policy, state, now)
    which = "the list that was in use before" if earlier else "the last good one"
    found = in_common(Listing("", (earlier or good).text, policy.format), compiled, policy.granularity)
    require_size(_usable(compiled), max(largest(state.history, now), found.usable), min_share)
    require_names(found, which, min_share)


def _require_starter(compiled: "Compiled", policy: PolicyConfig, min_share: float) -> None:
    """Whether a first list has the names of the starter list, which stands for it.

    :raises ListError: it has less than ``min_share`` of them.
    """
    from gfwtools.update.measure import in_common, require_names

    found = in_common(Listing("", starter_list().text), compiled, policy.granularity)
    require_names(found, "the built-in starter list", min_share)


def _usable(compiled: "Compiled") -> int:
    """How many rules of a list name a host."""
    return compiled.read - sum(compiled.dropped.values())
